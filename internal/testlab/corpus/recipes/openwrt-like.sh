# what: a router in the shape of OpenWrt's fw4 (hand-written): zones, helper chains, reject, masquerade, published port
# tool: hand-written
# packages: nftables
version() { nft --version; }
recipe() {
	forwarding
	nft -f - <<'N'
table inet fw4 {
	chain input {
		type filter hook input priority filter; policy accept;
		iifname "lo" accept comment "!fw4: Accept traffic from loopback"
		ct state established,related accept
		tcp flags & (fin | syn | rst | ack) == syn jump syn_flood
		iifname "eth1" jump input_lan
		iifname "eth0" jump input_wan
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "eth1" jump forward_lan
		iifname "eth0" jump forward_wan
		jump handle_reject
	}
	chain output {
		type filter hook output priority filter; policy accept;
		oifname "lo" accept
		ct state established,related accept
		oifname "eth1" jump output_lan
		oifname "eth0" jump output_wan
	}
	chain prerouting { type filter hook prerouting priority filter; policy accept; iifname "eth1" jump helper_lan; }
	chain handle_reject {
		meta l4proto tcp reject with tcp reset
		reject with icmpx type port-unreachable
	}
	chain syn_flood { limit rate 25/second burst 50 packets return comment "!fw4: Accept SYN packets below rate-limit"; drop; }
	chain input_lan { jump accept_from_lan; }
	chain output_lan { jump accept_to_lan; }
	chain forward_lan { jump accept_to_wan; jump accept_to_lan; }
	chain helper_lan { }
	chain accept_from_lan { iifname "eth1" counter accept; }
	chain accept_to_lan { oifname "eth1" counter accept; }
	chain input_wan {
		meta nfproto ipv4 udp dport 68 counter accept comment "!fw4: Allow-DHCP-Renew"
		icmp type echo-request counter accept
		meta nfproto ipv4 meta l4proto igmp counter accept
		meta nfproto ipv6 udp dport 546 counter accept comment "!fw4: Allow-DHCPv6"
		ip6 saddr fe80::/10 icmpv6 type . icmpv6 code { mld-listener-query . 0, mld-listener-report . 0, mld-listener-done . 0, mld2-listener-report . 0 } counter accept comment "!fw4: Allow-MLD"
		icmpv6 type { destination-unreachable, time-exceeded, echo-request, echo-reply, nd-router-solicit, nd-router-advert } limit rate 1000/second counter accept
		icmpv6 type . icmpv6 code { packet-too-big . 0, parameter-problem . 0, nd-neighbor-solicit . 0, nd-neighbor-advert . 0, parameter-problem . 1 } limit rate 1000/second counter accept
		tcp dport 22 ip6 saddr 2001:db8:5::/48 counter accept
		jump reject_from_wan
	}
	chain output_wan { jump accept_to_wan; }
	chain forward_wan {
		icmpv6 type { destination-unreachable, time-exceeded, echo-request, echo-reply } limit rate 1000/second counter accept
		icmpv6 type . icmpv6 code { packet-too-big . 0, parameter-problem . 0, parameter-problem . 1 } limit rate 1000/second counter accept
		meta l4proto esp counter jump accept_to_lan
		udp dport 500 counter jump accept_to_lan
		ip6 daddr fd00:20::5 tcp dport 443 counter accept
		ct status dnat accept comment "!fw4: Accept port forwards"
		jump reject_to_wan
	}
	chain accept_to_wan { meta nfproto ipv4 oifname "eth0" ct state invalid counter drop; oifname "eth0" counter accept; }
	chain reject_from_wan { iifname "eth0" counter jump handle_reject; }
	chain reject_to_wan { oifname "eth0" counter jump handle_reject; }
	chain dstnat { type nat hook prerouting priority dstnat; policy accept; iifname "eth0" jump dstnat_wan; }
	chain srcnat { type nat hook postrouting priority srcnat; policy accept; oifname "eth0" jump srcnat_wan; }
	chain dstnat_wan { meta nfproto ipv4 tcp dport 8443 counter dnat ip to 10.20.0.5:443; }
	chain srcnat_wan { meta nfproto ipv4 masquerade; }
	chain raw_prerouting { type filter hook prerouting priority raw; policy accept; }
	chain mangle_forward {
		type filter hook forward priority mangle; policy accept;
		iifname "eth0" tcp flags & (fin | syn | rst) == syn tcp option maxseg size set rt mtu
		oifname "eth0" tcp flags & (fin | syn | rst) == syn tcp option maxseg size set rt mtu
	}
}
N
}
