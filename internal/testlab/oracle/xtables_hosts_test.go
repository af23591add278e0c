package oracle

import (
	"maps"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/reach"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/testlab"
)

// hosts are rules of hosts as people and tools write them. "4" and "6" tell whose.
var hosts = map[string]form{
	"web 4": {fam: "4", vague: "limit", rule: `*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT DROP [0:0]
:LOGDROP - [0:0]
:TCP - [0:0]
:UDP - [0:0]
:ICMP - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp ! --syn -m state --state NEW -j LOGDROP
-A INPUT -p tcp --tcp-flags ALL NONE -j DROP
-A INPUT -p tcp --tcp-flags SYN,FIN SYN,FIN -j DROP
-A INPUT ! -i wlan+ -s 10.2.0.0/16 -j LOGDROP
-A INPUT -p tcp -g TCP
-A INPUT -p udp -j UDP
-A INPUT -p icmp -j ICMP
-A INPUT -j LOGDROP
-A TCP -p tcp -m multiport --dports 80,443 -m comment --comment "the site" -j ACCEPT
-A TCP -s 10.1.2.0/25 -p tcp --dport 22 -j ACCEPT
-A TCP -p tcp --dport 22 -m connlimit --connlimit-above 0 -j REJECT --reject-with tcp-reset
-A TCP -p tcp -m multiport ! --dports 400:500 -j RETURN
-A TCP -m iprange --src-range 10.1.2.127-198.51.100.200 -j ACCEPT
-A UDP ! -s 172.17.0.0/16 -p udp --dport 53 -j ACCEPT
-A UDP -p udp --sport 53 ! --dport 0:1023 -j ACCEPT
-A UDP -p udp -m length --length 50:100 -j ACCEPT
-A ICMP -p icmp --icmp-type 8 -m limit --limit 5/min -j ACCEPT
-A ICMP -p icmp --icmp-type destination-unreachable -j ACCEPT
-A LOGDROP -m limit --limit 2/min -j LOG --log-prefix "drop: "
-A LOGDROP -j DROP
-A OUTPUT -o lo -j ACCEPT
-A OUTPUT -m conntrack --ctstate NEW,ESTABLISHED -p udp --dport 53 -j ACCEPT
-A OUTPUT -p tcp --dport 80 -d 203.0.113.0/24 -j ACCEPT
-A OUTPUT -o wlan1 -p tcp ! --dport 443 -j REJECT
COMMIT
`},
	"mail 6": {fam: "6", rule: `*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -m rpfilter --invert -j DROP
-A PREROUTING -p udp --dport 53 -j CT --notrack
-A PREROUTING -m rt --rt-type 0 -j DROP
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:icmp - [0:0]
:ext - [0:0]
-A INPUT -m ipv6header --header hop,route,frag --soft -j ext
-A INPUT -m conntrack --ctstate UNTRACKED -p udp -j ACCEPT
-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A INPUT -p ipv6-icmp -j icmp
-A INPUT -p tcp -m tcp -m multiport --dports 22,80 -m conntrack --ctstate NEW ! --ctorigsrc 2001:db8:2::/48 -j ACCEPT
-A INPUT -p tcp --dport 443 -m conntrack --ctdir ORIGINAL --ctproto 6 --ctorigdst 2001:db8::/64 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp6-adm-prohibited
-A icmp -m hl --hl-eq 255 -p ipv6-icmp --icmpv6-type neighbour-solicitation -j ACCEPT
-A icmp -p ipv6-icmp --icmpv6-type 128 -j ACCEPT
-A icmp -p ipv6-icmp --icmpv6-type 1 -j ACCEPT
-A icmp -p ipv6-icmp ! --icmpv6-type 255 -j DROP
-A ext -m frag --fragfirst -j RETURN
-A ext -m dst -j RETURN
-A ext -m hbh --hbh-len 8 -j DROP
-A FORWARD -i eth0 -o wlan1 -p tcp --syn -m hl ! --hl-eq 64 -j ACCEPT
COMMIT
`},
	"router 4": {fam: "4", vague: "route after NAT", rule: `*mangle
:PREROUTING ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
-A PREROUTING -j CONNMARK --restore-mark
-A PREROUTING -m mark ! --mark 0 -j RETURN
-A PREROUTING -i eth0 -p tcp -m multiport --dports 22,80 -j MARK --set-xmark 0x10/0xf0
-A PREROUTING -s 10.1.0.0/16 -j MARK --or-mark 1
-A PREROUTING -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff
-A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:fwd - [0:0]
-A PREROUTING -d 192.0.2.1 -j fwd
-A PREROUTING -d 203.0.113.9 -p udp --dport 53 -j REDIRECT --to-ports 5353
-A fwd -p tcp --dport 22 -j DNAT --to-destination 203.0.113.9:2222
-A fwd -p tcp --dport 80 -j DNAT --to-destination 203.0.113.9
-A fwd -p udp -m udp --dport 53 -j DNAT --to-destination 198.51.100.129
-A fwd -p icmp -j ACCEPT
-A POSTROUTING -s 10.0.0.0/8 -o wlan1 -j SNAT --to-source 198.51.100.129-198.51.100.131
-A POSTROUTING -o wlan1 -j MASQUERADE
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
-A INPUT -p udp --dport 53 -d 198.51.100.129 -j ACCEPT
-A INPUT -p udp --dport 5353 -j ACCEPT
-A INPUT -m mark --mark 0x11 -j ACCEPT
-A INPUT -m connmark --mark 0x1/0x1 -p icmp -j ACCEPT
-A FORWARD -m conntrack ! --ctstate DNAT -p tcp --dport 2222 -j REJECT
-A FORWARD -m conntrack ! --ctstate NEW,INVALID -p tcp --dport 2222 -j ACCEPT
-A FORWARD -m conntrack --ctorigdstport 80 --ctproto tcp -d 203.0.113.9 -s 10.0.0.0/8 -j ACCEPT
-A FORWARD -p tcp --dport 443 -m mark --mark 0x0/0x10 -j ACCEPT
COMMIT
`},
	"kube 4": {fam: "4", vague: "route after NAT", rule: `*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-SEP-A - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-SERVICES -d 192.0.2.1/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-SVC-A
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m comment --comment "default/web" -m tcp --dport 443 -j KUBE-SVC-A
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-SVC-A ! -s 10.1.0.0/16 -j KUBE-MARK-MASQ
-A KUBE-SVC-A -j KUBE-SEP-A
-A KUBE-SEP-A -s 203.0.113.9/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 203.0.113.9:8080
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -s 198.51.100.0/24 -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-SERVICES -d 203.0.113.9/32 -p tcp -m tcp --dport 22 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP
COMMIT
`},
	"fail2ban 4": {fam: "4", rule: `*filter
:INPUT ACCEPT [0:0]
:f2b-sshd - [0:0]
:f2b-http - [0:0]
-A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd
-A INPUT -p tcp -m multiport --dports 80,443 -m set --match-set s4 src -j REJECT --reject-with icmp-port-unreachable
-A INPUT -m set ! --match-set n4 src -p udp -j f2b-http
-A INPUT -m set --match-set p4 src,dst -j DROP
-A f2b-sshd -s 10.1.2.127/32 -j REJECT --reject-with icmp-port-unreachable
-A f2b-sshd -s 198.51.100.200/32 -j DROP
-A f2b-sshd -j RETURN
-A f2b-http -m set --match-set l4 dst -j RETURN
-A f2b-http -m set --match-set t4 src,dst,dst -j ACCEPT
-A f2b-http -m set --match-set bp dst -j DROP
COMMIT
*security
:FORWARD ACCEPT [0:0]
-A FORWARD -m set --match-set s4 src -j RETURN
-A FORWARD -m set --match-set b4 src -j DROP
COMMIT
`},
	"gateway 6": {fam: "6", rule: `*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
-A PREROUTING -p tcp --dport 22 -j MARK --set-mark 0xff
-A PREROUTING -p tcp -j MARK --and-mark 0x0f
-A PREROUTING -p udp -j MARK --xor-mark 0x3
-A PREROUTING -p udp --dport 53 -j MARK --xor-mark 0x1
-A INPUT -m mark --mark 3 -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp --dport 443 -j REDIRECT --to-ports 8443
-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination [2001:db8:5::80]:81
-A PREROUTING -p udp -d 2001:db8:f::9 -j DNAT --to-destination 2001:db8::1
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:a - [0:0]
:b - [0:0]
:c - [0:0]
-A INPUT -j a
-A INPUT -p tcp --dport 8443 -j ACCEPT
-A INPUT -p tcp --dport 81 -d 2001:db8:5::80 -j ACCEPT
-A INPUT -p udp -m mark --mark 2 -j ACCEPT
-A a -m mark --mark 0xf -g b
-A a -p icmpv6 -j b
-A a -j RETURN
-A b -s 2001:db8:1::/48 -j c
-A b -s fd00::/8 -j ACCEPT
-A c -s 2001:db8:1:ffff::/64 -j RETURN
-A c -j ACCEPT
-A FORWARD -m mark --mark 0xf -j RETURN
-A FORWARD -p udp -j DROP
COMMIT
`},
	"ufw 6 full": {fam: "6", vague: "limit", rule: `*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw6-before-input - [0:0]
:ufw6-user-input - [0:0]
:ufw6-user-limit - [0:0]
:ufw6-user-limit-accept - [0:0]
:ufw6-after-input - [0:0]
:ufw6-skip-to-policy-input - [0:0]
:ufw6-logging-deny - [0:0]
-A INPUT -j ufw6-before-input
-A INPUT -j ufw6-user-input
-A INPUT -j ufw6-after-input
-A ufw6-before-input -i lo -j ACCEPT
-A ufw6-before-input -m rt --rt-type 0 -j DROP
-A ufw6-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw6-before-input -p ipv6-icmp -m icmp6 --icmpv6-type 129 -j ACCEPT
-A ufw6-before-input -m conntrack --ctstate INVALID -j ufw6-logging-deny
-A ufw6-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw6-before-input -p ipv6-icmp -m icmp6 --icmpv6-type 1 -j ACCEPT
-A ufw6-before-input -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j ACCEPT
-A ufw6-before-input -p ipv6-icmp -m icmp6 --icmpv6-type 135 -m hl --hl-eq 255 -j ACCEPT
-A ufw6-before-input -s fe80::/10 -d fe80::/10 -p udp -m udp --sport 547 --dport 546 -j ACCEPT
-A ufw6-before-input -d ff02::fb/128 -p udp -m udp --dport 5353 -j ACCEPT
-A ufw6-user-input -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --set --name DEFAULT --mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rsource
-A ufw6-user-input -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --update --seconds 30 --hitcount 6 --name DEFAULT --mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rsource -j ufw6-user-limit
-A ufw6-user-input -p tcp -m tcp --dport 22 -j ufw6-user-limit-accept
-A ufw6-user-input -p udp -m udp -m multiport --dports 53,4000:4010 -s 2001:db8:1::/48 -j ACCEPT
-A ufw6-user-limit -m limit --limit 3/min -j LOG --log-prefix "[UFW LIMIT BLOCK] "
-A ufw6-user-limit -j REJECT --reject-with icmp6-port-unreachable
-A ufw6-user-limit-accept -j ACCEPT
-A ufw6-after-input -p udp -m udp --dport 137 -j ufw6-skip-to-policy-input
-A ufw6-skip-to-policy-input -j DROP
-A ufw6-logging-deny -m conntrack --ctstate INVALID -m limit --limit 3/min --limit-burst 10 -j RETURN
COMMIT
`},
}

// hostShapes are packets of every hook, and of flows that are established.
func hostShapes(v6 bool) ([]Shape, []Probe) {
	ss, ps := xtShapes(v6)
	n := len(ss)
	srcs := []string{"192.0.2.1", "10.1.2.3"}
	dsts := []string{"8.8.8.8", "203.0.113.9"}
	if v6 {
		srcs, dsts = []string{"2001:db8::1", "2001:db8:1::1"}, []string{"2a00::8", "2001:db8:f::9"}
	}
	for i := 0; i < n; i++ {
		if k := ss[i]; i%3 == 0 && len(k.Ext) == 0 {
			k.Output, k.Forward, k.Iface, k.Dst = true, false, i/3%2, netip.MustParseAddr(dsts[i/3%2])
			ss = append(ss, k)
			for _, s := range srcs {
				ps = append(ps, Probe{len(ss) - 1, netip.MustParseAddr(s)})
			}
		}
	}
	for _, k := range establishedShapes() {
		if k.IPv6 == v6 {
			ss = append(ss, k)
			for i := range flowSources {
				ps = append(ps, Probe{len(ss) - 1, flowSource(v6, i)})
			}
		}
	}
	return ss, ps
}

// testHosts puts the rules of whole hosts to both the kernel and the model.
func testHosts(t *testing.T, backend string) {
	for _, p := range []string{"iptables-" + backend + "-restore", "ip6tables-" + backend + "-restore"} {
		testlab.RequireTool(t, p)
	}
	l := NewLab(t)
	l.makeSets(t)
	before, verdicts, uncertain := "", 0, 0
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		f := hosts[name]
		if s := os.Getenv("XT_FORM"); s != "" && s != name {
			continue
		}
		shapes, probes := hostShapes(f.fam == "6")
		if err := l.loadXT(backend, f.fam, f.text(), &before); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ts, err := l.tables()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		types := map[string]uint16{"lo": 772, Interfaces[0]: 1, Interfaces[1]: 1}
		written := l.written(t, backend, f.fam, f, ts)
		accepted, err := l.Fire(shapes, probes)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		f.rule = name
		for _, tables := range [][]*rs.Table{ts, written} {
			uncertain += l.compareXT(t, f, &rs.Ruleset{Tables: tables, Interfaces: l.names, Types: types}, shapes, probes, accepted)
			verdicts += len(probes)
		}
	}
	t.Logf("%s: %d hosts, %d verdicts compared with the kernel, %d uncertain", backend, len(hosts), verdicts, uncertain)
}

func TestHostsNFT(t *testing.T)    { t.Parallel(); testHosts(t, "nft") }
func TestHostsLegacy(t *testing.T) { t.Parallel(); testHosts(t, "legacy") }

// testReversePath asks the reverse path filter of x_tables about sources that have a
// route which is not for a single host, and about those that it does not look up.
func testReversePath(t *testing.T, backend string) {
	testlab.RequireTool(t, "iptables-"+backend+"-restore")
	l := NewLab(t)
	var shapes []Shape
	var probes []Probe
	for i, dst := range []string{"192.0.2.1", "198.51.100.129", "255.255.255.255", "224.0.0.1"} {
		for iface := range Interfaces {
			shapes = append(shapes, Shape{Proto: protoUDP, Dport: 67, Sport: uint16(4000 + i), Iface: iface, Dst: netip.MustParseAddr(dst), MAC: [2]byte{2, 0}, HopLimit: 64, Body: 16, Ct: reach.CtNew})
			for _, src := range []string{"0.0.0.0", "0.0.0.5", "192.0.2.9", "192.0.2.255", "198.51.100.200", "198.51.100.255", "10.1.2.3", "203.0.113.9"} {
				if src != "0.0.0.0" || i > 1 { // which is refused behind the rules
					probes = append(probes, Probe{len(shapes) - 1, netip.MustParseAddr(src)})
				}
			}
		}
	}
	before := ""
	for _, match := range []string{"", "--invert", "--validmark"} {
		f := form{fam: "4", rule: "*raw\n:PREROUTING DROP [0:0]\n-A PREROUTING -m rpfilter " + match + " -j ACCEPT\nCOMMIT\n"}
		if err := l.loadXT(backend, f.fam, f.text(), &before); err != nil {
			t.Fatal(err)
		}
		tables, err := l.tables()
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := l.Fire(shapes, probes)
		if err != nil {
			t.Fatal(err)
		}
		if n := l.compareXT(t, f, &rs.Ruleset{Tables: tables, Interfaces: l.names}, shapes, probes, accepted); n > 0 {
			t.Errorf("rpfilter %s: %d of %d left open", match, n, len(probes))
		}
	}
}

func TestReversePathNFT(t *testing.T)    { t.Parallel(); testReversePath(t, "nft") }
func TestReversePathLegacy(t *testing.T) { t.Parallel(); testReversePath(t, "legacy") }
