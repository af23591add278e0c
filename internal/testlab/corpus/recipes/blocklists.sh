# what: a CrowdSec-like bouncer and geo blocking (hand-written): sets with timeouts and thousands of intervals before a host firewall
# tool: hand-written
# packages: nftables
version() { nft --version; }
recipe() {
	{
		echo 'table ip crowdsec { set blacklist { type ipv4_addr; flags timeout; }'
		echo ' chain in { type filter hook input priority -10; policy accept; ip saddr @blacklist drop; } }'
		echo 'table ip6 crowdsec6 { set blacklist6 { type ipv6_addr; flags timeout; }'
		echo ' chain in { type filter hook input priority -10; policy accept; ip6 saddr @blacklist6 drop; } }'
		echo 'table inet geo { set no4 { type ipv4_addr; flags interval; } set no6 { type ipv6_addr; flags interval; }'
		echo ' chain pre { type filter hook prerouting priority -150; policy accept; ip saddr @no4 counter drop; ip6 saddr @no6 counter drop; }'
		echo ' chain input { type filter hook input priority 0; policy drop; ct state established,related accept; iif lo accept; meta l4proto { icmp, ipv6-icmp } accept; tcp dport { 22, 80, 443 } accept; } }'
		for i in $(seq 1 300); do
			echo "add element ip crowdsec blacklist { 198.51.$((i % 256)).$((i * 7 % 256)) timeout 4h }"
			printf 'add element ip6 crowdsec6 blacklist6 { 2001:db8:bad::%x timeout 4h }\n' "$i"
		done
		for i in $(seq 1 500); do
			echo "add element inet geo no4 { $((20 + i / 250)).$((i % 250)).0.0/$((16 + i % 8)) }"
			printf 'add element inet geo no6 { 2a0%x:%x::/32 }\n' $((i % 16)) $((i * 7))
		done
	} >/run/x.nft
	nft -f /run/x.nft
}
