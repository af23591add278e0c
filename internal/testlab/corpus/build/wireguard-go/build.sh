#!/usr/bin/env bash
# build.sh FILE: WireGuard in user space, for kernels without the module.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
printf 'module wg.test\n\ngo 1.26\n' >go.mod
go get golang.zx2c4.com/wireguard@v0.0.0-20250521234502-f333402bd9cb
CGO_ENABLED=0 go build -o "$1" golang.zx2c4.com/wireguard
