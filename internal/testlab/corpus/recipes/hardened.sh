# what: a hardened dual-stack host: ND sanity before conntrack, anti-spoofing with fib, per-source echo limits, tunnels blocked
# tool: hand-written
# packages: nftables
version() { nft --version; }
recipe() {
	nft -f - <<'N'
# A hardened host: own table only.
table inet v6guard
table inet v6guard {
    set routers { type ipv6_addr; flags interval; elements = { fe80::1 } }   # per-site allow-list (address + iif + optional MAC)
    set ndrate { type ether_addr; size 4096; flags dynamic,timeout; timeout 30s; }
    set echo6 { type ipv6_addr; size 65536; flags dynamic,timeout; timeout 30s; }
    set echo4 { type ipv4_addr; size 65536; flags dynamic,timeout; timeout 30s; }

    chain raw {
        type filter hook prerouting priority -450; policy accept;   # before conntrack defrag (-400): fragments are visible
        icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect } jump nd_sane
        rt type 0 drop                                               # RFC 5095
    }
    chain nd_sane {
        ip6 hoplimit != 255 drop                                     # RFC 4861 6.1/7.1, RFC 5082
        exthdr frag exists drop                                      # RFC 6980
        icmpv6 code != 0 drop
        icmpv6 type nd-redirect drop
        icmpv6 type nd-router-advert ip6 saddr != fe80::/10 drop
        icmpv6 type nd-router-advert jump ra_guard
        icmpv6 type { nd-neighbor-solicit, nd-router-solicit, nd-neighbor-advert } update @ndrate { ether saddr limit rate over 50/second burst 100 packets } counter drop
    }
    chain ra_guard {
        ip6 saddr @routers return
        limit rate 6/minute burst 5 packets log prefix "v6guard rogue-ra: " level warn
        counter drop
    }
    chain antispoof {
        type filter hook prerouting priority -300; policy accept;
        iif lo accept
        ip6 saddr { ::1, ::ffff:0:0/96, ::/96, ff00::/8 } ip6 saddr != :: drop
        ip6 saddr { 2001:db8:ffff::/48, fec0::/10 } drop             # bogons (site configurable)
        ip6 daddr ::1 drop
        meta nfproto ipv6 fib saddr . iif oif missing drop           # IPv6 has no rp_filter sysctl
    }
    chain input {
        type filter hook input priority 0; policy drop;
        iif lo accept
        # echo limits MUST precede the established rule: packets 2..n of one ping flow are "established"
        icmpv6 type echo-request update @echo6 { ip6 saddr limit rate 10/second burst 20 packets } accept
        icmpv6 type echo-request drop
        icmp type echo-request update @echo4 { ip saddr limit rate 10/second burst 20 packets } accept
        icmp type echo-request drop
        ct state established,related accept
        icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept   # sanity done in raw
        ip6 saddr { ::, fe80::/10 } icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept
        ct state invalid drop
        icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
        icmp type { destination-unreachable, time-exceeded, parameter-problem } accept
        ip6 saddr fe80::/10 ip6 daddr fe80::/10 udp sport 547 udp dport 546 accept         # DHCPv6 client
        tcp dport { 22, 80, 443 } ct state new accept
        limit rate 5/minute burst 10 packets log prefix "v6guard drop: "
    }
    chain output {
        type filter hook output priority 0; policy accept;
        meta nfproto ipv4 meta l4proto 41 counter drop comment "6in4/6to4/ISATAP/6rd"
        ip daddr 192.88.99.0/24 counter drop
        ip6 daddr { 2002::/16, 2001::/32 } counter drop
        udp dport { 3544, 3653, 5072 } counter drop comment "Teredo/TSP/AYIYA"
        tcp dport 3653 counter drop
    }
}
N
}
