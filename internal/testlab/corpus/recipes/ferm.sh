# what: ferm with one source for both families, NAT, a hook chain and limits
# tool: ferm
# packages: ferm iptables
version() { ferm --version | head -1; }
recipe() {
	forwarding
	cat >/run/ferm.conf <<'F'
@def $WEB = (80 443);
@def $ADMIN = (198.51.100.0/24 2001:db8:5::/48);
domain (ip ip6) {
    table filter {
        chain INPUT {
            policy DROP;
            mod state state INVALID DROP;
            mod state state (ESTABLISHED RELATED) ACCEPT;
            interface lo ACCEPT;
            proto tcp dport $WEB ACCEPT;
            saddr @ipfilter($ADMIN) proto tcp dport ssh ACCEPT;
            proto tcp dport 9100 mod hashlimit hashlimit 10/minute hashlimit-burst 20 hashlimit-mode srcip hashlimit-name prom ACCEPT;
            interface eth1 proto (tcp udp) dport domain ACCEPT;
            proto tcp REJECT reject-with tcp-reset;
        }
        chain FORWARD {
            policy DROP;
            mod state state (ESTABLISHED RELATED) ACCEPT;
            interface eth1 outerface eth0 ACCEPT;
            mod conntrack ctstate DNAT ACCEPT;
        }
        chain OUTPUT policy ACCEPT;
    }
    table mangle chain FORWARD proto tcp tcp-flags (SYN RST) SYN TCPMSS clamp-mss-to-pmtu;
}
domain ip {
    table filter chain INPUT proto icmp icmp-type echo-request mod limit limit 5/s limit-burst 10 ACCEPT;
    table nat {
        chain PREROUTING interface eth0 proto tcp dport 8443 DNAT to 10.20.0.5:443;
        chain POSTROUTING outerface eth0 saddr 10.20.0.0/24 MASQUERADE;
    }
}
domain ip6 {
    table filter chain INPUT proto ipv6-icmp icmpv6-type (echo-request neighbour-solicitation neighbour-advertisement router-advertisement packet-too-big) ACCEPT;
    table nat chain PREROUTING interface eth0 proto tcp dport 8443 DNAT to "[fd00:20::5]:443";
}
F
	ferm /run/ferm.conf
}
