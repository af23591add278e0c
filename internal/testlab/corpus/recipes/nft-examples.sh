# what: the workstation, filter, set and NAT examples that nftables installs in /usr/share/doc/nftables/examples, in one ruleset
# tool: nftables
# packages: nftables
version() { nft --version; }
recipe() {
	forwarding
	cd /usr/share/doc/nftables/examples
	for f in workstation.nft nat.nft sets_and_maps.nft load_balancing.nft netdev-ingress.nft ct_helpers.nft overview.nft ipv6-nat.nft ipv6-raw.nft ipv4-raw.nft ipv4-mangle.nft; do
		grep -v 'flush ruleset' "$f" >/run/x.nft
		nft -f /run/x.nft || echo "refused: $f" >&2
	done
}
