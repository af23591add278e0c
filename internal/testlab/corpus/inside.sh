#!/usr/bin/env bash
# One recipe, inside its namespaces: a fresh overlay over the one with the tools.
set -eu -o pipefail
cache=$1 here=$2 name=$3
root=$(mktemp -d)
mount -t tmpfs tmpfs "$root"
mkdir -p "$root"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$cache/upper,workdir=$cache/work" "$cache/root"
mount -t overlay overlay -o "lowerdir=$cache/root,upperdir=$root/upper,workdir=$root/work" "$root/root"
root=$root/root
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
for d in run tmp var/run; do [ -L "$root/$d" ] || mount -t tmpfs tmpfs "$root/$d"; done
mkdir -p "$root/run/lock" "$root/run/netns" "$root/run/corpus"
mount --bind "$cache/bin" "$root/run/corpus"
mkdir -p "$root/run/recipes" && mount --bind "$here" "$root/run/recipes"
mkdir -p "$cache/out/$name" "$root/run/out" && mount --bind "$cache/out/$name" "$root/run/out"
hostname corpus
cat >"$root/run/all.sh" <<'R'
set -eu -o pipefail
. /run/recipes/lab.sh
. "/run/recipes/recipes/$1.sh"
recipe
[ ! -s /run/services ] || services
cd /run/out
rm -f ./*
/run/corpus/sixfence snapshot -q -o snapshot.json || [ $? -eq 3 ]
version >version
# The text, as the tools print it. The nf_tables form of iptables is printed by iptables.
nft -s list ruleset >nft.txt 2>/dev/null || true
for b in nft legacy; do
	for f in ip ip6; do
		[ "$b" != legacy ] || grep -q . "/proc/net/${f}_tables_names" || continue
		"/usr/sbin/xtables-$b-multi" "${f}tables-save" 2>/dev/null | grep -v -e '^#' >"${f}tables-$b.txt" || true
	done
done
[ -z "$(ipset list -n 2>/dev/null)" ] || ipset save >ipset.txt
R
chroot "$root" bash /run/all.sh "$name"
