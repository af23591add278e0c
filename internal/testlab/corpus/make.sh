#!/usr/bin/env bash
# Makes the corpus again: every recipe sets up a firewall with the real tool, in
# network, mount, process and IPC namespaces of its own, on an overlay of this
# machine's root in which the tool is installed. Nothing of the machine changes.
#
#   make.sh [RECIPE…]     all of them without arguments
#
# A recipe that fails keeps the others from nothing: it is named at the end, and what
# was recorded of it before stays. The exit code is 1 when a recipe that was asked for
# by name failed, or all did.
#
# CORPUS_CACHE (default ~/.cache/sixfence-corpus) keeps the overlay and what is built.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
cache=${CORPUS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sixfence-corpus}
[ "$(id -u)" -eq 0 ] || { echo "run this as root: it makes namespaces" >&2; exit 1; }
mkdir -p "$cache"/{upper,work,root,bin,log,out}

field() { sed -n "s/^# $1: //p" "$2"; }
recipes=()
for r in "${@:-}"; do [ -z "$r" ] || recipes+=("$here/recipes/$(basename "$r" .sh).sh"); done
[ ${#recipes[@]} -gt 0 ] || recipes=("$here"/recipes/*.sh)

(cd "$top" && go build -o "$cache/bin/sixfence" ./cmd/sixfence && go build -o "$cache/bin/record" ./internal/testlab/corpus/record)
# Programs that are built from Go modules; a module of their own, so that the
# product's does not grow. Kept between runs.
for r in "${recipes[@]}"; do
	for b in $(field builds "$r"); do
		[ -x "$cache/bin/$b" ] || (cd "$here/build/$b" && ./build.sh "$cache/bin/$b") || echo "not built: $b" >&2
	done
done

# install PACKAGE…: into the overlay. Packages that cannot stand each other take turns.
install() {
	unshare --mount --propagation private -- bash -eu -o pipefail -c '
		cache=$1; shift
		mount -t overlay overlay -o "lowerdir=/,upperdir=$cache/upper,workdir=$cache/work" "$cache/root"
		root=$cache/root
		mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"; mount -t tmpfs tmpfs "$root/run"; mkdir -p "$root/run/lock"
		printf "#!/bin/sh\nexit 101\n" >"$root/usr/sbin/policy-rc.d"; chmod +x "$root/usr/sbin/policy-rc.d"
		missing=()
		for p in python3-minimal iproute2 nftables iptables ipset procps "$@"; do
			chroot "$root" dpkg-query -W -f "\${Status}" "$p" 2>/dev/null | grep -q "ok installed" || missing+=("$p")
		done
		[ ${#missing[@]} -gt 0 ] || exit 0
		echo "== installing into the overlay: ${missing[*]}"
		export DEBIAN_FRONTEND=noninteractive
		chroot "$root" apt-get update -qq
		chroot "$root" apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$cache/log/apt" 2>&1
	' - "$cache" "$@"
}

failed=()
for r in "${recipes[@]}"; do
	name=$(basename "$r" .sh)
	echo "== $name"
	# shellcheck disable=SC2046
	if ! install $(field packages "$r"); then
		echo "   its packages cannot be installed" >&2
		failed+=("$name")
		continue
	fi
	if ! timeout 300 unshare --mount --propagation private --net --pid --fork --ipc --uts --kill-child -- \
		bash "$here/inside.sh" "$cache" "$here" "$name" >"$cache/log/$name" 2>&1; then
		tail -5 "$cache/log/$name" | sed 's/^/   /' >&2
		failed+=("$name")
		continue
	fi
	"$cache/bin/record" "$cache/out/$name" "$r" "$here/testdata"
done
for name in "${failed[@]}"; do
	if [ -e "$here/testdata/$name.json.gz" ]; then
		echo "not made again: $name (the old record stays; log: $cache/log/$name)" >&2
	else
		echo "not made: $name, which the corpus goes without (log: $cache/log/$name)" >&2
	fi
done
[ ${#failed[@]} -eq 0 ] || [ -z "${1:-}" ] && [ ${#failed[@]} -lt ${#recipes[@]} ]
