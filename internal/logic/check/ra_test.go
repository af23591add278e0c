package check

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

const eth0 = "net/ipv6/conf/eth0/"

// raOn makes eth0 take router advertisements it does not need.
func raOn(s *fact.Snapshot) {
	confs("eth0", "accept_ra", "1", "accept_ra_defrtr", "1", "accept_ra_rtr_pref", "1")(s)
}

// networkd runs and takes router advertisements on eth0.
func networkd(s *fact.Snapshot) {
	addManager(s, fact.Manager{Name: "systemd-networkd", Running: fact.Value(true), NetNS: initNS, Interfaces: []fact.ManagedInterface{
		{Names: []string{"eth*"}, AcceptRA: fact.Value(true), InUserspace: true, Origin: fact.Origin{File: "/etc/systemd/network/10-eth.network"}},
	}})
}

// raSocket is a program with a raw ICMPv6 socket, bound to an interface or not.
func raSocket(exe string, ifindex int) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		addProcess(s, 777, exe)
		addSocket(s, fact.Socket{Family: "ipv6", Protocol: "raw", Number: 58, State: "unconnected", Local: netip.IPv6Unspecified(), Index: ifindex, V6Only: fact.Value(false), Inode: 99, Owners: fact.Value([]int{777}), Source: "proc"})
	}
}

func raRoute(via string) fact.Route {
	r := route("::/0", via, 2, fact.ProtoRA)
	r.Expires = fact.Value[int64](1800)
	return r
}

// otherTable adds a static default route that no common lookup finds.
func otherTable(s *fact.Snapshot) {
	r := route("::/0", "fe80::7", 2, fact.ProtoStatic)
	r.Table = 100
	addRoute(s, r)
}

func raAddress(s *fact.Snapshot) {
	a := address(2, "2001:db8:bad:0:5054:aaff:fe00:2/64")
	a.Flags, a.Protocol, a.Valid, a.Preferred = 0, 2, 86400, 14400
	addAddress(s, a)
}

// staticRoute lets eth0 have SLAAC addresses and a static default route.
func staticRoute(s *fact.Snapshot) {
	dropRoutes(s, isDefault6)
	addRoute(s, route("::/0", "fe80::1", 2, fact.ProtoStatic))
}

func raStates() map[string][]state {
	on := finding.Subject{Interface: "eth0"}
	// Every RA parameter: closed, open, open where RAs are needed, not read, unreadable.
	parameter := func(key, bad, good string, more ...state) []state {
		return append([]state{
			{name: "open", edit: edits(raOn, confs("eth0", key, bad)), want: finding.Fail, subject: on},
			{name: "closed", edit: edits(raOn, confs("eth0", key, good)), want: finding.Pass, subject: on},
			{name: "no RA taken", edit: confs("eth0", key, bad), want: finding.NotApplicable, subject: on},
			{name: "forwarding, so no RA taken", edit: edits(raOn, confs("eth0", key, bad, "forwarding", "1")), want: finding.NotApplicable, subject: on},
			{name: "unreadable", edit: edits(raOn, gapped(eth0+key)), want: finding.Unknown, subject: on},
			{name: "accept_ra unreadable", edit: edits(confs("eth0", key, bad), gapped(eth0+"accept_ra")), want: finding.Unknown, subject: on},
			{name: "all closed, interface open", edit: edits(raOn, confs("all", key, good), confs("default", key, good), confs("eth0", key, bad)), want: finding.Fail, subject: on},
			{name: "behind a filter", edit: edits(raOn, confs("eth0", key, bad), legacyFilter), want: finding.Unknown, subject: on},
		}, more...)
	}
	return map[string][]state{
		"SYSCTL-RA-01": {
			{name: "hardened", want: finding.Pass, compliance: finding.Pass, subject: on},
			{name: "benchmark passes, kernel accepts", edit: confs("eth0", "accept_ra", "1", "accept_ra_defrtr", "1", "accept_ra_pinfo", "1"), want: finding.Fail, compliance: finding.Pass, severity: finding.Critical, subject: on},
			{name: "benchmark fails, kernel refuses", edit: confs("all", "accept_ra", "1"), want: finding.Pass, compliance: finding.Fail, subject: on},
			{name: "minus one", edit: confs("eth0", "accept_ra", "-1"), want: finding.Fail, subject: on},
			{name: "three", edit: confs("eth0", "accept_ra", "3"), want: finding.Fail, subject: on},
			{name: "two", edit: confs("eth0", "accept_ra", "2"), want: finding.Fail, subject: on},
			{name: "forwarding and one", edit: confs("eth0", "accept_ra", "1", "forwarding", "1"), want: finding.Pass, subject: on},
			{name: "forwarding and minus one", edit: confs("eth0", "accept_ra", "-1", "forwarding", "1"), want: finding.Pass, subject: on},
			{name: "forwarding and two", edit: confs("eth0", "accept_ra", "2", "forwarding", "1"), want: finding.Fail, subject: on},
			{name: "all forwards, interface does not", edit: edits(confs("all", "forwarding", "1"), raOn), want: finding.Fail, subject: on},
			{name: "disable_ipv6", edit: edits(raOn, confs("eth0", "disable_ipv6", "1")), want: finding.NotApplicable, subject: on},
			{name: "loopback", edit: confs("lo", "accept_ra", "1"), want: finding.NotApplicable, subject: finding.Subject{Interface: "lo"}},
			{name: "bridge port", edit: edits(raOn, func(s *fact.Snapshot) {
				br := addLink(s, "br0").Index
				editLink("eth0", func(l *fact.Link) { l.SlaveKind, l.Master = "bridge", br })(s)
			}), want: finding.NotApplicable, subject: on},
			{name: "bond port", edit: edits(raOn, editLink("eth0", func(l *fact.Link) { l.SlaveKind, l.Master = "bond", 9 })), want: finding.NotApplicable, subject: on},
			{name: "VRF member", edit: edits(raOn, editLink("eth0", func(l *fact.Link) { l.SlaveKind = "vrf" })), want: finding.Fail, subject: on},
			{name: "dummy", edit: edits(raOn, editLink("eth0", func(l *fact.Link) { l.Kind = "dummy" })), want: finding.NotApplicable, subject: on},
			{name: "macvtap", edit: edits(raOn, editLink("eth0", func(l *fact.Link) { l.Kind = "macvtap" })), want: finding.Unknown, subject: on},
			{name: "macvtap, closed", edit: editLink("eth0", func(l *fact.Link) { l.Kind = "macvtap" }), want: finding.Pass, subject: on},
			{name: "VRF device", edit: edits(raOn, editLink("eth0", func(l *fact.Link) { l.Kind = "vrf" })), want: finding.NotApplicable, subject: on},
			{name: "down", edit: edits(raOn, editLink("eth0", func(l *fact.Link) { l.Flags &^= iffUp })), want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "no routes, no prefixes", edit: edits(raOn, confs("eth0", "accept_ra_defrtr", "0", "accept_ra_pinfo", "0")), want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "SLAAC", edit: slaac, want: finding.Fail, severity: finding.High, subject: on},
			{name: "SLAAC on a workstation", edit: slaac, role: RoleWorkstation, want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "behind a filter", edit: edits(raOn, legacyFilter), want: finding.Unknown, subject: on},
			{name: "XDP program", edit: edits(raOn, editLink("eth0", func(l *fact.Link) { l.XDP = fact.Value[uint8](2) })), want: finding.Unknown, subject: on},
			{name: "filter unreadable", edit: edits(raOn, func(s *fact.Snapshot) { s.Namespaces[0].PacketFilter = fact.PacketFilter{} }), want: finding.Unknown, subject: on},
			{name: "unreadable", edit: gapped(eth0 + "accept_ra"), want: finding.Unknown, subject: on},
			{name: "forwarding unreadable decides", edit: edits(raOn, gapped(eth0+"forwarding")), want: finding.Unknown, subject: on},
			{name: "forwarding unreadable, accept_ra 0", edit: gapped(eth0 + "forwarding"), want: finding.Pass, subject: on},
			{name: "forwarding unreadable, accept_ra 2", edit: edits(confs("eth0", "accept_ra", "2"), gapped(eth0+"forwarding")), want: finding.Fail, subject: on},
			{name: "sysctls unreadable, netlink tells", edit: edits(raOn, func(s *fact.Snapshot) {
				s.Namespaces[0].Sysctls = fact.Missing[fact.Sysctls](fact.Gap{Reason: fact.Permission, What: "/proc/sys/net"})
			}), want: finding.Fail, subject: on},
			{name: "no number", edit: confs("eth0", "accept_ra", "yes"), want: finding.Unknown, subject: on},
			{name: "links unreadable", edit: func(s *fact.Snapshot) {
				s.Namespaces[0].Links = fact.Missing[[]fact.Link](fact.Gap{Reason: fact.Truncated, What: "links"})
			}, want: finding.Unknown},
			{name: "name with a dot", edit: func(s *fact.Snapshot) {
				addLink(s, "eth0.100")
				setSysctl(s, "net/ipv6/conf/eth0.100/accept_ra", "1")
			}, want: finding.Fail, subject: finding.Subject{Interface: "eth0.100"}},
			{name: "an interface called all", edit: func(s *fact.Snapshot) { addLink(s, "all").Inet6 = fact.Absent[map[string]int32]() }, want: finding.NotApplicable, subject: finding.Subject{Interface: "all"}},
			{name: "another namespace", edit: func(s *fact.Snapshot) {
				n := addNamespace(s, "lab")
				setSysctlIn(n, eth0+"accept_ra", "1")
				setSysctlIn(n, eth0+"accept_ra_defrtr", "1")
			}, want: finding.Fail, severity: finding.High, subject: finding.Subject{NetNS: "lab", Interface: "eth0"}},
		},
		"SYSCTL-RA-02": {
			{name: "hardened", want: finding.Pass, compliance: finding.Pass},
			{name: "open", edit: confs("default", "accept_ra", "1"), want: finding.Fail, compliance: finding.Fail},
			{name: "open and forwarding", edit: confs("default", "accept_ra", "1", "forwarding", "1"), want: finding.Pass, compliance: finding.Fail},
			{name: "unreadable", edit: gapped("net/ipv6/conf/default/accept_ra"), want: finding.Unknown},
			{name: "behind a filter", edit: edits(confs("default", "accept_ra", "1"), legacyFilter), want: finding.Unknown},
			{name: "XDP on another interface", edit: edits(confs("default", "accept_ra", "1"), editLink("eth0", func(l *fact.Link) { l.XDP = fact.Value[uint8](2) })), want: finding.Fail},
		},
		"SYSCTL-RA-03": {
			{name: "benchmark satisfied", want: finding.Pass, compliance: finding.Pass},
			{name: "benchmark reads 1", edit: confs("all", "accept_ra", "1"), want: finding.Fail, compliance: finding.Fail, severity: finding.Info},
			{name: "unreadable", edit: gapped("net/ipv6/conf/all/accept_ra"), want: finding.Unknown},
		},
		"SYSCTL-RA-04": {
			{name: "clean", want: finding.Pass, subject: on},
			{name: "rogue route survives", edit: func(s *fact.Snapshot) { addRoute(s, raRoute("fe80::bad")) }, want: finding.Fail, severity: finding.High, subject: on},
			{name: "rogue address survives", edit: raAddress, want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "declared prefix survives", edit: func(s *fact.Snapshot) { addRoute(s, route("2001:db8:bad::/64", "", 2, fact.ProtoKernel)) }, want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "prefix of an address", edit: func(s *fact.Snapshot) {
				addRoute(s, route("2001:db8:2::/64", "", 2, fact.ProtoKernel))
				addAddress(s, address(2, "2001:db8:2::7/64"))
			}, want: finding.Pass, subject: on},
			{name: "prefix of a peer", edit: func(s *fact.Snapshot) {
				addRoute(s, route("2001:db8:2::/64", "", 2, fact.ProtoKernel))
				a := address(2, "2001:db8:3::7/128")
				a.Peer = netip.MustParseAddr("2001:db8:2::1")
				addAddress(s, a)
			}, want: finding.Pass, subject: on},
			{name: "prefix route survives", edit: func(s *fact.Snapshot) { addRoute(s, route("2001:db8:bad::/64", "", 2, fact.ProtoRA)) }, want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "only default route", edit: edits(slaac, confs("eth0", "accept_ra", "0")), want: finding.Fail, subject: on},
			{name: "RAs still taken", edit: slaac, want: finding.NotApplicable, subject: on},
			{name: "networkd explains it", edit: edits(networkd, func(s *fact.Snapshot) { addRoute(s, raRoute("fe80::1")) }), want: finding.NotApplicable, subject: on},
			{name: "networkd manages another interface", edit: edits(networkd, func(s *fact.Snapshot) {
				must(s.Host.Managers)[1].Interfaces[0].Names = []string{"wlan*"}
				addRoute(s, raRoute("fe80::1"))
			}), want: finding.Fail, subject: on},
			{name: "a client whose configuration is out of sight", edit: edits(raSocket("/usr/lib/systemd/systemd-networkd", 2), func(s *fact.Snapshot) { addRoute(s, raRoute("fe80::1")) }), want: finding.NotApplicable, subject: on},
			{name: "a client on some interface", edit: edits(raSocket("/usr/sbin/dhcpcd", 0), func(s *fact.Snapshot) { addRoute(s, raRoute("fe80::1")) }), want: finding.Unknown, subject: on},
			{name: "a client on another interface", edit: edits(raSocket("/usr/sbin/dhcpcd", 7), func(s *fact.Snapshot) { addRoute(s, raRoute("fe80::1")) }), want: finding.Fail, subject: on},
			{name: "radvd is no client", edit: edits(raSocket("/usr/sbin/radvd", 0), func(s *fact.Snapshot) { addRoute(s, raRoute("fe80::1")) }), want: finding.Fail, subject: on},
			{name: "managers unknown", edit: func(s *fact.Snapshot) {
				s.Host.Managers = fact.Missing[[]fact.Manager](fact.Gap{Reason: fact.Permission, What: "managers"})
				addRoute(s, raRoute("fe80::1"))
			}, want: finding.Unknown, subject: on},
			{name: "routes unreadable", edit: func(s *fact.Snapshot) {
				s.Namespaces[0].Routes = fact.Missing[[]fact.Route](fact.Gap{Reason: fact.Truncated, What: "routes"})
			}, want: finding.Unknown, subject: on},
			{name: "DHCPv6 address", edit: func(s *fact.Snapshot) {
				a := address(2, "2001:db8:1::d4c6/128")
				a.Flags, a.Valid = 0, 7200
				addAddress(s, a)
			}, want: finding.Pass, subject: on},
			{name: "old kernel", edit: func(s *fact.Snapshot) {
				as := must(s.Namespaces[0].Addresses)
				for i := range as {
					as[i].Protocol = 0
				}
				raAddress(s)
				as = must(s.Namespaces[0].Addresses)
				as[len(as)-1].Protocol = 0
			}, want: finding.Unknown, subject: on},
		},
		"SYSCTL-RA-05": parameter("accept_ra_defrtr", "1", "0",
			state{name: "RA addresses, static route", edit: edits(slaac, staticRoute), want: finding.Fail, severity: finding.High, subject: on},
			state{name: "the route comes by RA", edit: slaac, want: finding.NotApplicable, subject: on},
			state{name: "benchmark", edit: confs("all", "accept_ra_defrtr", "1"), want: finding.NotApplicable, compliance: finding.Fail, subject: on}),
		"SYSCTL-RA-06": parameter("accept_ra_pinfo", "1", "0",
			state{name: "the address comes by RA", edit: slaac, want: finding.NotApplicable, subject: on},
			state{name: "no room for an address, still on-link", edit: edits(raOn, confs("eth0", "accept_ra_pinfo", "1", "autoconf", "1", "max_addresses", "1")), want: finding.Fail, subject: on},
			state{name: "on-link prefixes only", edit: edits(raOn, confs("eth0", "accept_ra_pinfo", "1", "autoconf", "0")), want: finding.Fail, subject: on}),
		"SYSCTL-RA-07": parameter("accept_ra_rtr_pref", "1", "0"),
		"SYSCTL-RA-08": parameter("accept_ra_rt_info_max_plen", "64", "0",
			state{name: "no preferences, no routes", edit: edits(raOn, confs("eth0", "accept_ra_rt_info_max_plen", "64", "accept_ra_rtr_pref", "0")), want: finding.Pass, subject: on},
			state{name: "an empty range", edit: edits(raOn, confs("eth0", "accept_ra_rt_info_max_plen", "64", "accept_ra_rt_info_min_plen", "65")), want: finding.Pass, subject: on}),
		"SYSCTL-RA-09": parameter("accept_ra_mtu", "1", "0",
			state{name: "already the smallest", edit: edits(raOn, confs("eth0", "accept_ra_mtu", "1"), editLink("eth0", func(l *fact.Link) { l.MTU = 1280 })), want: finding.Pass, subject: on}),
		"SYSCTL-RA-10": parameter("accept_ra_min_hop_limit", "1", "64",
			state{name: "no default routers, no hop limit", edit: edits(raOn, confs("eth0", "accept_ra_min_hop_limit", "1", "accept_ra_defrtr", "0")), want: finding.Pass, subject: on}),
		"SYSCTL-RA-11": parameter("accept_ra_min_lft", "0", "180",
			state{name: "old kernel", edit: edits(raOn, func(s *fact.Snapshot) { dropSysctl(s, eth0+"accept_ra_min_lft") }), want: finding.NotApplicable, subject: on}),
		"SYSCTL-RA-13": {
			{name: "silent", want: finding.Pass, compliance: finding.Pass, subject: on},
			{name: "solicits without need", edit: edits(raOn, confs("eth0", "router_solicitations", "-1")), want: finding.Fail, compliance: finding.Pass, subject: on},
			{name: "accept_ra off", edit: edits(confs("eth0", "router_solicitations", "-1"), confs("all", "router_solicitations", "-1")), want: finding.Pass, compliance: finding.Fail, subject: on},
			{name: "lives by RA", edit: slaac, want: finding.NotApplicable, subject: on},
			{name: "unreadable", edit: edits(raOn, gapped(eth0+"router_solicitations")), want: finding.Unknown, subject: on},
		},
		"SYSCTL-RA-14": {
			{name: "unlimited", edit: edits(slaac, confs("eth0", "max_addresses", "0")), want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "too many", edit: edits(slaac, confs("eth0", "max_addresses", "100000")), want: finding.Fail, severity: finding.Low, subject: on},
			{name: "bounded", edit: slaac, want: finding.Pass, subject: on},
			{name: "all is not read", edit: edits(slaac, confs("all", "max_addresses", "1"), confs("default", "max_addresses", "1"), confs("eth0", "max_addresses", "0")), want: finding.Fail, compliance: finding.Pass, subject: on},
			{name: "no address is made", edit: edits(raOn, confs("eth0", "max_addresses", "0", "autoconf", "0")), want: finding.Pass, subject: on},
			{name: "no RA taken", edit: confs("eth0", "max_addresses", "0"), want: finding.NotApplicable, subject: on},
			{name: "unreadable", edit: edits(slaac, gapped(eth0+"max_addresses")), want: finding.Unknown, subject: on},
		},
		"SYSCTL-RA-15": {
			{name: "static", want: finding.Pass, subject: on},
			{name: "by RA, still taken", edit: slaac, want: finding.Pass, subject: on},
			{name: "a static default route for some traffic only", edit: edits(slaac, confs("eth0", "accept_ra", "0"), otherTable), want: finding.Fail, subject: on},
			{name: "a static default route that a rule for all leads to", edit: edits(slaac, confs("eth0", "accept_ra", "0"), otherTable, func(s *fact.Snapshot) {
				s.Namespaces[0].Rules = fact.Value(append(must(s.Namespaces[0].Rules), fact.Rule{Family: "ipv6", Priority: 900, Table: 100, Action: 1}))
			}), want: finding.Pass, subject: on},
			{name: "a static default route of a VRF", edit: edits(slaac, confs("eth0", "accept_ra", "0"), otherTable, editLink("eth0", func(l *fact.Link) { l.SlaveKind = "vrf" })), want: finding.Pass, subject: on},
			{name: "router-mode trap", edit: edits(slaac, confs("eth0", "forwarding", "1"), confs("all", "forwarding", "1")), want: finding.Fail, severity: finding.High, subject: on},
			{name: "accept_ra 2", edit: edits(slaac, confs("eth0", "forwarding", "1", "accept_ra", "2")), want: finding.Pass, subject: on},
			{name: "accept_ra 0", edit: edits(slaac, confs("eth0", "accept_ra", "0")), want: finding.Fail, subject: on},
			{name: "already lost", edit: edits(slaac, confs("eth0", "forwarding", "1"), func(s *fact.Snapshot) { dropRoutes(s, isDefault6) }), want: finding.Fail, subject: on},
			{name: "networkd renews it", edit: edits(slaac, networkd, confs("eth0", "accept_ra", "0")), want: finding.NotApplicable, subject: on},
			{name: "no default route by RA", edit: func(s *fact.Snapshot) { dropRoutes(s, isDefault6) }, want: finding.NotApplicable, subject: on},
			{name: "routes unreadable", edit: edits(slaac, func(s *fact.Snapshot) {
				s.Namespaces[0].Routes = fact.Missing[[]fact.Route](fact.Gap{Reason: fact.Truncated, What: "routes"})
			}), want: finding.Unknown, subject: on},
		},
		"SYSCTL-RA-16": {
			{name: "none", want: finding.Pass, subject: on},
			{name: "one", edit: slaac, want: finding.Pass, subject: on},
			{name: "three", edit: edits(slaac, routers(2)), want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "a flood", edit: edits(slaac, routers(40)), want: finding.Fail, severity: finding.High, subject: on},
			{name: "routes unreadable", edit: func(s *fact.Snapshot) {
				s.Namespaces[0].Routes = fact.Missing[[]fact.Route](fact.Gap{Reason: fact.Truncated, What: "routes"})
			}, want: finding.Unknown, subject: on},
		},
	}
}

func routers(n int) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		for i := range n {
			addRoute(s, raRoute(fmt.Sprintf("fe80::bad:%x", i)))
		}
	}
}

// TestExpiryMoment: the trap says when it closes.
func TestExpiryMoment(t *testing.T) {
	ctl, _ := Find("SYSCTL-RA-15")
	for _, r := range answers(with(edits(slaac, confs("eth0", "forwarding", "1"))), RoleRouter, ctl) {
		if r.Subject.Interface != "eth0" {
			continue
		}
		if !strings.Contains(r.Message, "expires in 1500 s, at 2026-03-01T12:25:00Z") {
			t.Errorf("message without the moment: %s", r.Message)
		}
		if len(r.Remediation) == 0 || !strings.Contains(r.Remediation[0].Text, "default via fe80::1 dev eth0") {
			t.Errorf("remediation: %v", r.Remediation)
		}
	}
}

// TestRemediationNames: names are chosen by others and end up in a shell.
func TestRemediationNames(t *testing.T) {
	for name, want := range map[string]string{
		"eth0":      "sysctl -w net.ipv6.conf.eth0.accept_ra=0",
		"eth0.100":  "sysctl -w net/ipv6/conf/eth0.100/accept_ra=0",
		"a;reboot":  "sysctl -w 'net.ipv6.conf.a;reboot.accept_ra=0'",
		"x$(id)'.1": `sysctl -w 'net/ipv6/conf/x$(id)'\''.1/accept_ra=0'`,
	} {
		s := with(func(s *fact.Snapshot) {
			addLink(s, name)
			setSysctl(s, "net/ipv6/conf/"+name+"/accept_ra", "1")
		})
		ctl, _ := Find("SYSCTL-RA-01")
		found := false
		for _, r := range answers(s, RoleServer, ctl) {
			if r.Subject.Interface == name {
				found = true
				if r.Remediation[0].Text != want {
					t.Errorf("%q: %s, want %s", name, r.Remediation[0].Text, want)
				}
			}
		}
		if !found {
			t.Errorf("%q: no answer", name)
		}
	}
	n := namespace("lab", fact.NamespaceID{})
	n.Paths = []string{"/run/netns/l'ab"}
	if got := (&Space{Namespace: &n}).SetNow("net/ipv6/conf/all/forwarding", "0").Text; got != `ip netns exec 'l'\''ab' sysctl -w net.ipv6.conf.all.forwarding=0` {
		t.Error(got)
	}
}

func TestGatewayMAC(t *testing.T) {
	ctl, _ := Find("SYSCTL-RA-01")
	for _, r := range answers(with(slaac), RoleServer, ctl) {
		if r.Subject.Interface != "eth0" {
			continue
		}
		last := r.Remediation[len(r.Remediation)-1]
		if last.Kind != finding.Intent || !strings.Contains(last.Text, `{address: "fe80::1", mac: "52:54:00:00:00:01"}`) {
			t.Errorf("intent: %s", last.Text)
		}
	}
}
