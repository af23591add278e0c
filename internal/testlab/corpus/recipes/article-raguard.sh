# what: the same with the article's rogue router advertisement chain, which nothing jumps to
# tool: hand-written
# packages: nftables
version() { nft --version; }
recipe() {
	nft -f - <<'N'
table inet filter {
    # Rate limiting for ICMPv6 (prevent NDP flooding)
    set icmpv6_meter {
        type ipv6_addr
        flags dynamic,timeout
        timeout 10s
    }

    chain input {
        type filter hook input priority filter; policy drop;

        # Allow established and related connections
        ct state established,related accept

        # Drop invalid state packets
        ct state invalid drop

        # Allow loopback
        iif lo accept

        # --- ICMPv4: allow essential types ---
        ip protocol icmp icmp type {
            echo-request,
            echo-reply,
            destination-unreachable,
            time-exceeded
        } accept

        # Rate limit ICMPv4 echo requests
        ip protocol icmp icmp type echo-request \
            limit rate 10/second burst 20 packets accept

        # --- ICMPv6: allow essential types ---
        # ICMPv6 is critical for IPv6 operation. Do not block all ICMPv6.
        # These types are required for basic IPv6 connectivity:

        # Neighbor Discovery (required for IPv6 to function)
        ip6 nexthdr icmpv6 icmpv6 type {
            nd-neighbor-solicit,
            nd-neighbor-advert
        } accept

        # Router Discovery (required for SLAAC)
        # Only accept RAs from link-local addresses (fe80::/10)
        # to prevent rogue RA from remote addresses.
        ip6 nexthdr icmpv6 icmpv6 type nd-router-advert \
            ip6 saddr fe80::/10 accept

        ip6 nexthdr icmpv6 icmpv6 type nd-router-solicit accept

        # Echo (ping6)
        ip6 nexthdr icmpv6 icmpv6 type {
            echo-request,
            echo-reply
        } limit rate 10/second burst 20 packets accept

        # Destination unreachable and packet too big
        # (required for Path MTU Discovery)
        ip6 nexthdr icmpv6 icmpv6 type {
            destination-unreachable,
            packet-too-big,
            time-exceeded,
            parameter-problem
        } accept

        # --- Service ports ---
        tcp dport 22 accept comment "SSH"
        tcp dport { 80, 443 } accept comment "HTTP/HTTPS"

        # --- Drop everything else ---
        # Log dropped packets for analysis (rate limited)
        limit rate 5/minute burst 10 packets \
            log prefix "nft-drop: " level info
        drop
    }

    chain forward {
        type filter hook forward priority filter; policy drop;

        # Allow forwarding for established connections
        ct state established,related accept

        # Add specific forwarding rules if this host routes traffic
    }

    chain output {
        type filter hook output priority filter; policy accept;

        # Output is permissive by default.
        # Restrict if this server should only communicate with
        # specific destinations.
    }
}
table inet filter {
    chain ra_guard {
        # Only accept Router Advertisements from known routers.
        # Replace with your actual router's link-local addresses.

        ip6 nexthdr icmpv6 icmpv6 type nd-router-advert \
            ip6 saddr fe80::1 accept comment "Known router 1"

        ip6 nexthdr icmpv6 icmpv6 type nd-router-advert \
            ip6 saddr fe80::2 accept comment "Known router 2"

        # Drop RAs from all other sources
        ip6 nexthdr icmpv6 icmpv6 type nd-router-advert \
            log prefix "rogue-ra: " drop
    }
}
N
}
