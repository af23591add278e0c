# what: a CrowdSec-like bouncer and geo blocking (hand-written): sets with timeouts and hundreds of intervals before a host firewall
# tool: hand-written
# packages: nftables
version() { nft --version; }
recipe() {
	nft -f - <<'N'
table ip crowdsec {
	set blacklist { type ipv4_addr; flags timeout; }
	chain in {
		type filter hook input priority -10; policy accept;
		ip saddr @blacklist drop
	}
}
table ip6 crowdsec6 {
	set blacklist6 { type ipv6_addr; flags timeout; }
	chain in {
		type filter hook input priority -10; policy accept;
		ip6 saddr @blacklist6 drop
	}
}
table inet geo {
	set no4 { type ipv4_addr; flags interval; }
	set no6 { type ipv6_addr; flags interval; }
	chain pre {
		type filter hook prerouting priority -150; policy accept;
		ip saddr @no4 counter drop
		ip6 saddr @no6 counter drop
	}
	chain input {
		type filter hook input priority 0; policy drop;
		ct state established,related accept
		iif lo accept
		meta l4proto { icmp, ipv6-icmp } accept
		tcp dport { 22, 80, 443 } accept
	}
}
N
	for i in $(seq 1 300); do
		echo "add element ip crowdsec blacklist { 198.51.$((i % 256)).$((i * 7 % 256)) timeout 4h }"
		printf 'add element ip6 crowdsec6 blacklist6 { 2001:db8:bad::%x timeout 4h }\n' "$i"
	done >/run/x.nft
	for i in $(seq 1 400); do
		echo "add element inet geo no4 { $((20 + i / 250)).$((i % 250)).0.0/$((16 + i % 8)) }"
		printf 'add element inet geo no6 { 2a0%x:%x::/32 }\n' $((i % 16)) $((i * 7))
	done >>/run/x.nft
	nft -f /run/x.nft
}
