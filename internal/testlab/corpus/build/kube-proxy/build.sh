#!/usr/bin/env bash
# build.sh FILE: kube-proxy and kube-apiserver from the module k8s.io/kubernetes
# (ten minutes the first time). Its staging modules are v0.0.0 there, so that every
# one needs a replacement.
set -euo pipefail
out=$1 version=1.36.3
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp main.go.txt "$dir/main.go"
cd "$dir"
mod=$(go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')
{
	printf 'module kube.test\n\ngo %s\n\nrequire k8s.io/kubernetes v%s\n\nreplace (\n' "$(awk '$1 == "go" { print $2 }' "$mod")" "$version"
	awk -v s="v0.${version#1.}" '$2 == "v0.0.0" && $1 ~ /^k8s\.io\// { print "\t" $1 " => " $1 " " s }' "$mod" | sort -u
	echo ')'
} >go.mod
go mod tidy
p=k8s.io/component-base/version
CGO_ENABLED=0 nice -n 15 go build -p 1 -ldflags "-s -w -X $p.gitVersion=v$version -X $p.gitMajor=1 -X $p.gitMinor=${version#1.}" -o "$out" .
ln -sf kube-proxy "$(dirname "$out")/kube-apiserver"
