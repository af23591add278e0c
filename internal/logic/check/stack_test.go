package check

import (
	"net/netip"
	"testing"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

func stackStates() map[string][]state {
	on := finding.Subject{Interface: "eth0"}
	lab := finding.Subject{NetNS: "lab"}
	// Settings of the interface only: all is never read.
	ifOnly := func(key, bad, good string, more ...state) []state {
		return append([]state{
			{name: "closed", edit: confs("eth0", key, good), want: finding.Pass, subject: on},
			{name: "open", edit: confs("eth0", key, bad), want: finding.Fail, subject: on},
			{name: "all closed, interface open", edit: edits(confs("all", key, good), confs("default", key, good), confs("eth0", key, bad)), want: finding.Fail, subject: on},
			{name: "all open, interface closed", edit: confs("all", key, bad), want: finding.Pass, subject: on},
			{name: "behind a filter", edit: edits(confs("eth0", key, bad), legacyFilter), want: finding.Unknown, subject: on},
			{name: "unreadable", edit: gapped(eth0 + key), want: finding.Unknown, subject: on},
			{name: "old kernel", edit: func(s *fact.Snapshot) {
				dropSysctl(s, eth0+key)
				editLink("eth0", func(l *fact.Link) { l.Inet6 = fact.Value(map[string]int32{}) })(s)
			}, want: finding.NotApplicable, subject: on},
			{name: "IPv6 off", edit: edits(confs("eth0", key, bad, "disable_ipv6", "1")), want: finding.NotApplicable, subject: on},
		}, more...)
	}
	perNet := func(path, bad string, more ...state) []state {
		return append([]state{
			{name: "default", want: finding.Pass},
			{name: "changed", edit: sysctls(path, bad), want: finding.Fail},
			{name: "unreadable", edit: gapped(path), want: finding.Unknown},
		}, more...)
	}
	static := func(p string) func(*fact.Snapshot) {
		return func(s *fact.Snapshot) {
			dropAddresses(s, func(a fact.Address) bool { return a.Prefix.Addr().Is6() && a.Prefix.Addr().IsGlobalUnicast() })
			addAddress(s, address(2, p))
		}
	}
	proxy := func(s *fact.Snapshot) {
		s.Namespaces[0].ProxyNeighbours = fact.Value([]fact.Neighbour{{Index: 2, Address: netip.MustParseAddr("2001:db8:1::99"), Flags: 8}})
	}
	mac := func(s *fact.Snapshot) {
		dropAddresses(s, func(a fact.Address) bool { return a.Prefix.Addr().IsLinkLocalUnicast() })
		addAddress(s, address(2, "fe80::5054:ff:fe00:2/64"))
	}
	anycast := func(s *fact.Snapshot) {
		r := route("2001:db8:1::/128", "", 2, fact.ProtoKernel)
		r.Table, r.Type = 255, 4
		addRoute(s, r)
	}
	return map[string][]state{
		"SYSCTL-FWD-01": {
			{name: "host", want: finding.Pass, compliance: finding.Pass},
			{name: "host forwards", edit: confs("all", "forwarding", "1"), want: finding.Fail, compliance: finding.Fail, severity: finding.High},
			{name: "forwarding does not make a role", edit: edits(confs("all", "forwarding", "1"), confs("eth0", "forwarding", "1"), confs("default", "forwarding", "1")), want: finding.Fail, severity: finding.High},
			{name: "router", edit: confs("all", "forwarding", "1"), role: RoleRouter, want: finding.Pass, compliance: finding.Fail},
			{name: "kubernetes node", edit: edits(confs("all", "forwarding", "1"), func(s *fact.Snapshot) {
				s.Host.Runtimes.Kubelet = fact.Value(fact.Kubelet{Running: true, Pods: 12})
			}), want: finding.Pass},
			{name: "a user's program called radvd", edit: edits(confs("all", "forwarding", "1"), func(s *fact.Snapshot) { addProcess(s, 4000, "/home/eve/radvd") }), want: finding.Fail},
			{name: "radvd", edit: edits(confs("all", "forwarding", "1"), func(s *fact.Snapshot) { addProcess(s, 900, "/usr/sbin/radvd") }), want: finding.Pass},
			{name: "interface value only", edit: confs("eth0", "forwarding", "1"), want: finding.Pass},
			{name: "forward chain", edit: edits(confs("all", "forwarding", "1"), legacyFilter), want: finding.Unknown},
			{name: "input rules only", edit: edits(confs("all", "forwarding", "1"), nftDump("good")), want: finding.Fail},
			{name: "forwarding is dropped", edit: edits(confs("all", "forwarding", "1"), nftDump("noforward")), want: finding.Pass},
			{name: "IPv4 table only", edit: edits(confs("all", "forwarding", "1"), func(s *fact.Snapshot) {
				s.Namespaces[0].PacketFilter.Legacy = fact.Value([]fact.LegacyTable{{Family: "ipv4", Name: "filter", Hooks: 0b1110}})
			}), want: finding.Fail},
			{name: "a namespace of a router host", edit: func(s *fact.Snapshot) {
				setSysctlIn(addNamespace(s, "lab"), "net/ipv6/conf/all/forwarding", "1")
			}, role: RoleRouter, want: finding.Fail, severity: finding.Medium, subject: lab},
			{name: "unreadable", edit: gapped("net/ipv6/conf/all/forwarding"), want: finding.Unknown},
			{name: "nothing but loopback", edit: edits(confs("all", "forwarding", "1"), confs("eth0", "disable_ipv6", "1")), want: finding.NotApplicable},
		},
		"SYSCTL-FWD-02": {
			{name: "agree", want: finding.Pass, subject: on},
			{name: "a block that is none", edit: confs("all", "forwarding", "1"), want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "takes RAs on purpose", edit: edits(slaac, confs("all", "forwarding", "1")), want: finding.Pass, subject: on},
			{name: "plays the router", edit: confs("eth0", "forwarding", "1"), want: finding.Fail, severity: finding.Low, subject: on},
			{name: "unreadable", edit: gapped("net/ipv6/conf/all/forwarding"), want: finding.Unknown, subject: on},
		},
		"SYSCTL-FWD-03": {
			{name: "off", want: finding.Pass, subject: on},
			{name: "on", edit: confs("eth0", "force_forwarding", "1"), want: finding.Fail, severity: finding.High, subject: on},
			{name: "on, all off", edit: edits(confs("all", "force_forwarding", "0"), confs("eth0", "force_forwarding", "1")), want: finding.Fail, subject: on},
			{name: "all forwards anyway", edit: edits(confs("all", "forwarding", "1"), confs("eth0", "force_forwarding", "1")), want: finding.NotApplicable, subject: on},
			{name: "declared router", edit: confs("eth0", "force_forwarding", "1"), role: RoleRouter, want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "before 6.17", edit: func(s *fact.Snapshot) {
				dropSysctl(s, eth0+"force_forwarding")
				editLink("eth0", func(l *fact.Link) { l.Inet6 = fact.Value(map[string]int32{}) })(s)
			}, want: finding.NotApplicable, subject: on},
			{name: "behind a filter", edit: edits(confs("eth0", "force_forwarding", "1"), legacyFilter), want: finding.Unknown, subject: on},
			{name: "unreadable", edit: gapped(eth0 + "force_forwarding"), want: finding.Unknown, subject: on},
		},
		"SYSCTL-FWD-04": {
			{name: "agree", want: finding.Pass, compliance: finding.Pass},
			{name: "router, new interfaces are hosts", edit: confs("all", "forwarding", "1"), want: finding.Fail, severity: finding.Medium},
			{name: "host, new interfaces are routers", edit: confs("default", "forwarding", "1"), want: finding.Fail, compliance: finding.Fail, severity: finding.Low},
			{name: "router", edit: edits(confs("all", "forwarding", "1"), confs("default", "forwarding", "1")), want: finding.Pass, compliance: finding.Fail},
			{name: "unreadable", edit: gapped("net/ipv6/conf/default/forwarding"), want: finding.Unknown},
		},
		"SYSCTL-FWD-05": {
			{name: "off", want: finding.Pass, subject: on},
			{name: "answers", edit: edits(proxy, confs("eth0", "proxy_ndp", "1", "forwarding", "1")), want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "behind a filter", edit: edits(proxy, confs("eth0", "proxy_ndp", "1", "forwarding", "1"), legacyFilter), want: finding.Unknown, subject: on},
			{name: "answers by all", edit: edits(proxy, confs("all", "proxy_ndp", "1"), confs("eth0", "forwarding", "1")), want: finding.Fail, subject: on},
			{name: "does not forward", edit: edits(proxy, confs("eth0", "proxy_ndp", "1")), want: finding.Pass, subject: on},
			{name: "on, empty table", edit: confs("eth0", "proxy_ndp", "1", "forwarding", "1"), want: finding.Pass, subject: on},
			{name: "router", edit: edits(proxy, confs("eth0", "proxy_ndp", "1", "forwarding", "1")), role: RoleRouter, want: finding.Fail, severity: finding.Low, subject: on},
			{name: "table unreadable", edit: edits(confs("eth0", "proxy_ndp", "1", "forwarding", "1"), func(s *fact.Snapshot) {
				s.Namespaces[0].ProxyNeighbours = fact.Missing[[]fact.Neighbour](fact.Gap{Reason: fact.Truncated, What: "proxy"})
			}), want: finding.Unknown, subject: on},
		},
		"SYSCTL-FWD-06": {
			{name: "off", want: finding.Pass},
			{name: "on", edit: confs("all", "mc_forwarding", "1"), want: finding.Fail},
			{name: "router", edit: confs("all", "mc_forwarding", "1"), role: RoleRouter, want: finding.Pass},
			{name: "unreadable", edit: gapped("net/ipv6/conf/all/mc_forwarding"), want: finding.Unknown},
		},
		"SYSCTL-RED-01": {
			{name: "closed", want: finding.Pass, compliance: finding.Pass, subject: on},
			{name: "benchmark passes, kernel accepts", edit: confs("eth0", "accept_redirects", "1"), want: finding.Fail, compliance: finding.Pass, severity: finding.High, subject: on},
			{name: "benchmark fails, kernel refuses", edit: confs("all", "accept_redirects", "1"), want: finding.Pass, compliance: finding.Fail, subject: on},
			{name: "forwarding", edit: confs("eth0", "accept_redirects", "1", "forwarding", "1"), want: finding.Pass, subject: on},
			{name: "all forwards, interface does not", edit: edits(confs("all", "forwarding", "1"), confs("eth0", "accept_redirects", "1")), want: finding.Fail, subject: on},
			{name: "gateway with a global address", edit: edits(confs("eth0", "accept_redirects", "1"), func(s *fact.Snapshot) {
				dropRoutes(s, isDefault6)
				addRoute(s, route("::/0", "2001:db8:1::1", 2, fact.ProtoStatic))
			}), want: finding.Fail, severity: finding.Low, subject: on},
			{name: "no gateway", edit: edits(confs("eth0", "accept_redirects", "1"), func(s *fact.Snapshot) { dropRoutes(s, isDefault6) }), want: finding.Fail, severity: finding.Low, subject: on},
			{name: "forwarding unreadable", edit: edits(confs("eth0", "accept_redirects", "1"), gapped(eth0+"forwarding")), want: finding.Unknown, subject: on},
			{name: "accept_redirects unreadable on a router", edit: edits(confs("eth0", "forwarding", "1"), gapped(eth0+"accept_redirects")), want: finding.Pass, subject: on},
			{name: "behind a filter", edit: edits(confs("eth0", "accept_redirects", "1"), legacyFilter), want: finding.Unknown, subject: on},
			{name: "interfaces to come", edit: confs("default", "accept_redirects", "1"), want: finding.Fail, compliance: finding.Fail, subject: finding.Subject{Key: "net.ipv6.conf.default.accept_redirects"}},
		},
		"SYSCTL-SR-01": {
			{name: "minus one", want: finding.Pass, compliance: finding.Fail, subject: on},
			{name: "zero", edit: edits(confs("all", "accept_source_route", "0"), confs("default", "accept_source_route", "0"), confs("eth0", "accept_source_route", "0")), want: finding.Pass, compliance: finding.Pass, subject: on},
			{name: "asked for", edit: edits(confs("all", "accept_source_route", "1"), confs("eth0", "accept_source_route", "1")), want: finding.Fail, subject: on},
			{name: "all holds it back", edit: edits(confs("all", "accept_source_route", "0"), confs("eth0", "accept_source_route", "1")), want: finding.Pass, subject: on},
			{name: "unreadable", edit: edits(confs("all", "accept_source_route", "1"), gapped(eth0+"accept_source_route")), want: finding.Unknown, subject: on},
		},
		"SYSCTL-SR-02": {
			{name: "off", want: finding.Pass, subject: on},
			{name: "on in both, forwarding", edit: edits(confs("all", "seg6_enabled", "1", "forwarding", "1"), confs("eth0", "seg6_enabled", "1")), want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "on in both, forced forwarding", edit: edits(confs("all", "seg6_enabled", "1"), confs("eth0", "seg6_enabled", "1", "force_forwarding", "1")), want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "on in both of a host", edit: edits(confs("all", "seg6_enabled", "1"), confs("eth0", "seg6_enabled", "1")), want: finding.Fail, severity: finding.Low, subject: on},
			{name: "on the interface only", edit: confs("eth0", "seg6_enabled", "1"), want: finding.Pass, subject: on},
			{name: "on in all only", edit: confs("all", "seg6_enabled", "1"), want: finding.Pass, subject: on},
			{name: "with HMAC", edit: edits(confs("all", "seg6_enabled", "1"), confs("eth0", "seg6_enabled", "1", "seg6_require_hmac", "1")), want: finding.Fail, severity: finding.Low, subject: on},
			{name: "behind a filter", edit: edits(confs("all", "seg6_enabled", "1"), confs("eth0", "seg6_enabled", "1"), legacyFilter), want: finding.Unknown, subject: on},
			{name: "unreadable", edit: gapped("net/ipv6/conf/all/seg6_enabled"), want: finding.Unknown, subject: on},
		},
		"SYSCTL-SR-03": {
			{name: "off", want: finding.Pass, subject: on},
			{name: "RPL", edit: edits(confs("all", "rpl_seg_enabled", "1"), confs("eth0", "rpl_seg_enabled", "1")), want: finding.Fail, subject: on},
			{name: "RPL on the interface only", edit: confs("eth0", "rpl_seg_enabled", "1"), want: finding.Pass, subject: on},
			{name: "IOAM", edit: confs("eth0", "ioam6_enabled", "1"), want: finding.Fail, subject: on},
			{name: "unreadable", edit: gapped(eth0 + "ioam6_enabled"), want: finding.Unknown, subject: on},
		},
		"SYSCTL-ND-01": ifOnly("suppress_frag_ndisc", "0", "1",
			state{name: "and takes RAs", edit: edits(raOn, confs("eth0", "suppress_frag_ndisc", "0")), want: finding.Fail, severity: finding.High, subject: on},
			state{name: "and takes no RAs", edit: confs("eth0", "suppress_frag_ndisc", "0"), want: finding.Fail, severity: finding.Low, subject: on}),
		"SYSCTL-ND-02": ifOnly("drop_unsolicited_na", "0", "1"),
		"SYSCTL-ND-03": {
			{name: "off", want: finding.Pass, subject: on},
			{name: "on a host it has no effect", edit: confs("eth0", "accept_untracked_na", "1"), want: finding.Pass, subject: on},
			{name: "on a forwarding interface", edit: confs("eth0", "accept_untracked_na", "1", "forwarding", "1"), want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "from the same subnet only, as link-local sources are", edit: confs("eth0", "accept_untracked_na", "2", "forwarding", "1"), want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "router", edit: confs("eth0", "accept_untracked_na", "1", "forwarding", "1"), role: RoleRouter, want: finding.Fail, severity: finding.Info, subject: on},
			{name: "unreadable", edit: edits(confs("eth0", "accept_untracked_na", "1"), gapped(eth0+"forwarding")), want: finding.Unknown, subject: on},
		},
		"SYSCTL-ND-04": ifOnly("drop_unicast_in_l2_multicast", "0", "1"),
		"SYSCTL-ND-05": {
			{name: "one", want: finding.Pass, subject: on},
			{name: "two, address from the MAC", edit: edits(mac, confs("eth0", "accept_dad", "2")), want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "two, address from another MAC", edit: edits(mac, confs("eth0", "accept_dad", "2"), editLink("eth0", func(l *fact.Link) { l.MAC = "52:54:00:00:00:77" })), want: finding.Fail, severity: finding.Low, subject: on},
			{name: "two, address not from the MAC", edit: confs("eth0", "accept_dad", "2"), want: finding.Fail, severity: finding.Low, subject: on},
			{name: "two without probes: whoever speaks first wins", edit: edits(mac, confs("eth0", "accept_dad", "2", "dad_transmits", "0")), want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "two in all", edit: edits(mac, confs("all", "accept_dad", "2")), want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "off", edit: edits(confs("all", "accept_dad", "0"), confs("eth0", "accept_dad", "0")), want: finding.Fail, severity: finding.Low, subject: on},
			{name: "off on the interface, on in all", edit: confs("eth0", "accept_dad", "0"), want: finding.Pass, subject: on},
			{name: "no probes", edit: confs("eth0", "dad_transmits", "0"), want: finding.Fail, subject: on},
			{name: "NOARP", edit: edits(confs("eth0", "accept_dad", "0"), editLink("eth0", func(l *fact.Link) { l.Flags |= iffNoARP })), want: finding.NotApplicable, subject: on},
			{name: "unreadable", edit: gapped("net/ipv6/conf/all/accept_dad"), want: finding.Unknown, subject: on},
		},
		"SYSCTL-ND-06": {
			{name: "on", want: finding.Pass, subject: on},
			{name: "on in all", edit: confs("eth0", "enhanced_dad", "0"), want: finding.Pass, subject: on},
			{name: "off", edit: edits(confs("all", "enhanced_dad", "0"), confs("eth0", "enhanced_dad", "0")), want: finding.Fail, subject: on},
			{name: "unreadable", edit: edits(confs("all", "enhanced_dad", "0"), gapped(eth0+"enhanced_dad")), want: finding.Unknown, subject: on},
		},
		"SYSCTL-ND-07": {
			{name: "defaults", want: finding.Pass, subject: on},
			{name: "keeps neighbours", edit: confs("eth0", "ndisc_evict_nocarrier", "0"), want: finding.Fail, subject: on},
			{name: "keeps neighbours by all", edit: confs("all", "ndisc_evict_nocarrier", "0"), want: finding.Fail, subject: on},
			{name: "unreadable", edit: gapped(eth0 + "force_tllao"), want: finding.Unknown, subject: on},
		},
		"SYSCTL-ADDR-01": {
			{name: "off", want: finding.Pass, subject: on},
			{name: "in use", edit: func(s *fact.Snapshot) {
				a := address(2, "2001:db8:1:0:1c2f:ab34:9d01:7e5c/64")
				a.Flags, a.Valid = fact.AddrTemporary, 86400
				addAddress(s, a)
			}, want: finding.Fail, subject: on},
			{name: "would be made", edit: edits(slaac, confs("eth0", "use_tempaddr", "2")), want: finding.Fail, subject: on},
			{name: "nothing to make them from", edit: confs("eth0", "use_tempaddr", "2"), want: finding.Pass, subject: on},
			{name: "workstation", edit: edits(slaac, confs("eth0", "use_tempaddr", "2")), role: RoleWorkstation, want: finding.NotApplicable, subject: on},
			{name: "addresses unreadable", edit: func(s *fact.Snapshot) {
				s.Namespaces[0].Addresses = fact.Missing[[]fact.Address](fact.Gap{Reason: fact.Truncated, What: "addresses"})
			}, want: finding.Unknown, subject: on},
		},
		"SYSCTL-ADDR-02": {
			{name: "random", want: finding.Pass, subject: on},
			{name: "from the MAC", edit: static("2001:db8:1:0:5054:ff:fe00:2/64"), want: finding.Fail, subject: on},
			{name: "link-local only", edit: mac, want: finding.Pass, subject: on},
			{name: "no link-local address, still the MAC", edit: edits(raOn, confs("eth0", "accept_ra_pinfo", "1", "autoconf", "1", "addr_gen_mode", "1")), want: finding.Fail, subject: on},
			{name: "stable", edit: edits(raOn, confs("eth0", "accept_ra_pinfo", "1", "autoconf", "1", "addr_gen_mode", "2")), want: finding.Pass, subject: on},
			{name: "NOARP, still the MAC", edit: edits(raOn, confs("eth0", "accept_ra_pinfo", "1", "autoconf", "1", "addr_gen_mode", "0"), editLink("eth0", func(l *fact.Link) { l.Flags |= iffNoARP })), want: finding.Fail, subject: on},
			{name: "a token comes first", edit: edits(raOn, confs("eth0", "accept_ra_pinfo", "1", "autoconf", "1", "addr_gen_mode", "0"), editLink("eth0", func(l *fact.Link) { l.Token = fact.Value(netip.MustParseAddr("::99")) })), want: finding.Pass, subject: on},
			{name: "whether there is a token is not known", edit: edits(raOn, confs("eth0", "accept_ra_pinfo", "1", "autoconf", "1", "addr_gen_mode", "0"), editLink("eth0", func(l *fact.Link) { l.Token = fact.Known[netip.Addr]{} })), want: finding.Unknown, subject: on},
			{name: "a tun device has no MAC", edit: edits(raOn, confs("eth0", "accept_ra_pinfo", "1", "autoconf", "1", "addr_gen_mode", "0"), editLink("eth0", func(l *fact.Link) { l.Type = 65534 })), want: finding.Pass, subject: on},
			{name: "the next one, behind a filter", edit: edits(raOn, confs("eth0", "accept_ra_pinfo", "1", "autoconf", "1", "addr_gen_mode", "0"), legacyFilter), want: finding.Unknown, subject: on},
			{name: "the next one", edit: edits(slaac, func(s *fact.Snapshot) {
				dropAddresses(s, func(a fact.Address) bool { return a.Protocol == 2 })
			}, confs("eth0", "addr_gen_mode", "0")), want: finding.Fail, subject: on},
			{name: "addresses unreadable", edit: func(s *fact.Snapshot) {
				s.Namespaces[0].Addresses = fact.Missing[[]fact.Address](fact.Gap{Reason: fact.Truncated, What: "addresses"})
			}, want: finding.Unknown, subject: on},
		},
		"SYSCTL-ADDR-03": {
			{name: "random", want: finding.Pass, subject: on},
			{name: "low byte", edit: static("2001:db8:1::10/64"), want: finding.Fail, subject: on},
			{name: "words", edit: static("2001:db8:1::dead:beef/64"), want: finding.Fail, subject: on},
			{name: "IPv4 embedded", edit: static("2001:db8:1::c000:20a/64"), want: finding.Fail, subject: on},
			{name: "IPv4 spelt", edit: static("2001:db8:1:0:192:0:2:10/64"), want: finding.Fail, subject: on},
			{name: "repeated", edit: static("2001:db8:1:0:7777:7777:7777:7777/64"), want: finding.Fail, subject: on},
			{name: "point to point", edit: static("2001:db8:1::1/127"), want: finding.NotApplicable, subject: on},
			{name: "addresses unreadable", edit: func(s *fact.Snapshot) {
				s.Namespaces[0].Addresses = fact.Missing[[]fact.Address](fact.Gap{Reason: fact.Truncated, What: "addresses"})
			}, want: finding.Unknown, subject: on},
		},
		"SYSCTL-ICMP-01": perNet("net/ipv6/icmp/ratelimit", "0",
			state{name: "Packet Too Big limited", edit: sysctls("net/ipv6/icmp/ratemask", "0-127"), want: finding.Fail},
			state{name: "errors not limited", edit: sysctls("net/ipv6/icmp/ratemask", "0"), want: finding.Fail},
			state{name: "nonsense", edit: sysctls("net/ipv6/icmp/ratemask", "9-"), want: finding.Unknown},
			state{name: "before 5.0", edit: func(s *fact.Snapshot) { dropSysctl(s, "net/ipv6/icmp/ratemask") }, want: finding.Pass}),
		"SYSCTL-ICMP-02": perNet("net/ipv6/icmp/echo_ignore_multicast", "0",
			state{name: "anycast only", edit: edits(sysctls("net/ipv6/icmp/echo_ignore_anycast", "0"), anycast), want: finding.Fail, severity: finding.Info},
			state{name: "no anycast address", edit: sysctls("net/ipv6/icmp/echo_ignore_anycast", "0"), want: finding.Pass},
			state{name: "anycast addresses unreadable", edit: edits(sysctls("net/ipv6/icmp/echo_ignore_anycast", "0"), func(s *fact.Snapshot) {
				s.Namespaces[0].Routes = fact.Missing[[]fact.Route](fact.Gap{Reason: fact.Truncated, What: "routes"})
			}), want: finding.Unknown},
			state{name: "no echo at all", edit: sysctls("net/ipv6/icmp/echo_ignore_multicast", "0", "net/ipv6/icmp/echo_ignore_all", "1"), want: finding.Pass},
			state{name: "behind a filter", edit: edits(sysctls("net/ipv6/icmp/echo_ignore_multicast", "0"), legacyFilter), want: finding.Unknown}),
		"SYSCTL-EXT-01": perNet("net/ipv6/max_dst_opts_number", "100",
			state{name: "lengths without a bound", edit: sysctls("net/ipv6/max_hbh_length", "2147483647"), want: finding.Fail, severity: finding.Info},
			state{name: "known options only", edit: sysctls("net/ipv6/max_dst_opts_number", "-4"), want: finding.Pass}),
		"SYSCTL-FRAG-01": perNet("net/ipv6/ip6frag_high_thresh", "268435456",
			state{name: "long", edit: sysctls("net/ipv6/ip6frag_time", "600"), want: finding.Fail},
			state{name: "no fragments at all", edit: sysctls("net/ipv6/ip6frag_high_thresh", "0"), want: finding.Pass}),
		"SYSCTL-TCP-01":  perNet("net/ipv4/tcp_mtu_probing", "0"),
		"SYSCTL-MISC-01": perNet("net/ipv6/bindv6only", "1"),
		"SYSCTL-MISC-02": perNet("net/ipv6/ip_nonlocal_bind", "1"),
		"SYSCTL-LOG-01": {
			{name: "no container firewalls", want: finding.NotApplicable},
			{name: "lost", edit: func(s *fact.Snapshot) {
				addNamespace(s, "lab").PacketFilter.Legacy = fact.Value([]fact.LegacyTable{{Family: "ipv6", Name: "filter", Hooks: 0b1110}})
			}, want: finding.Fail},
			{name: "kept", edit: edits(sysctls("net/netfilter/nf_log_all_netns", "1"), func(s *fact.Snapshot) {
				addNamespace(s, "lab").PacketFilter.Legacy = fact.Value([]fact.LegacyTable{{Family: "ipv6", Name: "filter", Hooks: 0b1110}})
			}), want: finding.Pass},
			{name: "unreadable", edit: gapped("net/netfilter/nf_log_all_netns"), want: finding.Unknown},
			{name: "filters unreadable", edit: func(s *fact.Snapshot) { addNamespace(s, "lab").PacketFilter = fact.PacketFilter{} }, want: finding.Unknown},
		},
	}
}

func TestRanges(t *testing.T) {
	for in, want := range map[string]int{"0-1,3-127": 127, "": 0, "5": 1, "0-255": 256} {
		if got, ok := ranges(in); !ok || len(got) != want {
			t.Errorf("%q: %d, %v", in, len(got), ok)
		}
	}
	for _, in := range []string{"x", "3-1", "0-256", "-1", "1-", "0-99999999999"} {
		if _, ok := ranges(in); ok {
			t.Errorf("%q was read", in)
		}
	}
}
