package check

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// table is an edit of the neighbour table.
func table(f func(*fact.NeighbourTable)) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		t := must(s.Namespaces[0].NeighbourTable)
		f(&t)
		s.Namespaces[0].NeighbourTable = fact.Value(t)
	}
}

// neighbours adds n entries in one state on eth0.
func neighbours(n int, state uint16) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		a := netip.MustParseAddr("2001:db8:1::1:0")
		for range n {
			a = a.Next()
			addNeighbour(s, fact.Neighbour{Index: 2, Address: a, State: state})
		}
	}
}

// gatewayState replaces the gateway's entry.
func gatewayState(state uint16) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		s.Namespaces[0].Neighbours = fact.Value([]fact.Neighbour{{Index: 2, Address: netip.MustParseAddr("fe80::1"), MAC: "52:54:00:00:00:01", State: state, Flags: fact.NeighRouter}})
	}
}

func ndpStates() map[string][]state {
	limits := func(a, b, c, entries uint32) func(*fact.Snapshot) {
		return table(func(t *fact.NeighbourTable) { t.GCThresh1, t.GCThresh2, t.GCThresh3, t.Entries = a, b, c, entries })
	}
	noTable := func(s *fact.Snapshot) {
		s.Namespaces[0].NeighbourTable = fact.Missing[fact.NeighbourTable](fact.Gap{Reason: fact.Permission, What: "neighbour table"})
	}
	return map[string][]state{
		"NDP-01": {
			{name: "room enough", want: finding.Pass},
			{name: "default limits on an idle server", edit: limits(128, 512, 1024, 4), role: RoleServer, want: finding.Pass},
			{name: "a third of the table is in use", edit: limits(128, 512, 1024, 340), want: finding.Fail, severity: finding.Medium},
			{name: "default limits on a kube node", edit: limits(128, 512, 1024, 4), role: RoleKubeNode, want: finding.Fail, severity: finding.Low},
			{name: "limits that descend", edit: limits(4096, 512, 1024, 4), want: finding.Fail},
			{name: "not read", edit: noTable, want: finding.Unknown},
		},
		"NDP-02": {
			{name: "never full", want: finding.Pass},
			{name: "was full", edit: table(func(t *fact.NeighbourTable) { t.TableFulls = fact.Value[uint64](1988) }), want: finding.Fail, severity: finding.Medium},
			{name: "is full", edit: table(func(t *fact.NeighbourTable) { t.TableFulls = fact.Value[uint64](1988); t.Entries = 4096 }), want: finding.Fail, severity: finding.High},
			{name: "kernel does not count", edit: table(func(t *fact.NeighbourTable) { t.TableFulls = fact.Unsupported[uint64]() }), want: finding.Unknown},
			{name: "no stack", edit: noIPv6, want: finding.NotApplicable},
		},
		"NDP-03": {
			{name: "quiet", want: finding.Pass},
			{name: "forced collection", edit: table(func(t *fact.NeighbourTable) { t.ForcedGCRuns = 3 }), want: finding.Fail},
			{name: "most lookups fail", edit: table(func(t *fact.NeighbourTable) { t.Allocs, t.ResFailed = 3000, 2800 }), want: finding.Fail},
			{name: "few lookups, all fail", edit: table(func(t *fact.NeighbourTable) { t.Allocs, t.ResFailed = 12, 12 }), want: finding.Pass},
		},
		"NDP-04": {
			{name: "quiet", want: finding.Pass},
			{name: "a scan", edit: neighbours(600, fact.NUDIncomplete), want: finding.Fail, subject: finding.Subject{Interface: "eth0"}},
			{name: "after a scan", edit: neighbours(600, fact.NUDFailed), want: finding.Fail},
			{name: "many neighbours that answer", edit: neighbours(600, fact.NUDReachable), want: finding.Pass},
			{name: "cache not read", edit: func(s *fact.Snapshot) { s.Namespaces[0].Neighbours = fact.Known[[]fact.Neighbour]{} }, want: finding.Unknown},
		},
		"NDP-05": {
			{name: "a host does not forward", want: finding.NotApplicable},
			{name: "router with a /64", edit: confs("all", "forwarding", "1"), want: finding.Fail, subject: finding.Subject{Interface: "eth0", Address: "2001:db8:1::/64"}},
			{name: "force_forwarding is enough", edit: confs("eth0", "force_forwarding", "1"), want: finding.Fail},
			{name: "router with a /127", edit: edits(confs("all", "forwarding", "1"), func(s *fact.Snapshot) {
				dropRoutes(s, func(r fact.Route) bool { return r.Dst.Bits() == 64 })
				addRoute(s, route("2001:db8:1::/127", "", 2, fact.ProtoKernel))
			}), want: finding.Pass},
			{name: "filtered", edit: edits(confs("all", "forwarding", "1"), legacyFilter), want: finding.Unknown},
		},
		"NDP-06": {
			{name: "pinned", want: finding.Pass},
			{name: "reachable", edit: gatewayState(fact.NUDReachable), want: finding.Fail, subject: finding.Subject{Interface: "eth0", Address: "fe80::1"}},
			{name: "stale", edit: gatewayState(fact.NUDStale), want: finding.Fail},
			{name: "no entry", edit: func(s *fact.Snapshot) { s.Namespaces[0].Neighbours = fact.Value([]fact.Neighbour{}) }, want: finding.Fail},
			{name: "learned by RA", edit: edits(slaac, gatewayState(fact.NUDReachable)), want: finding.Fail},
			{name: "filtered", edit: edits(gatewayState(fact.NUDStale), legacyFilter), want: finding.Unknown},
			{name: "no default route", edit: func(s *fact.Snapshot) { dropRoutes(s, isDefault6) }, want: finding.NotApplicable},
			{name: "point-to-point", edit: edits(gatewayState(fact.NUDStale), editLink("eth0", func(l *fact.Link) { l.Flags |= iffPointToPoint | iffNoARP })), want: finding.NotApplicable},
			{name: "IPv4 through an IPv6 gateway", edit: edits(gatewayState(fact.NUDStale), func(s *fact.Snapshot) {
				dropRoutes(s, func(r fact.Route) bool { return r.Dst.Bits() == 0 })
				r := route("0.0.0.0/0", "fe80::1", 2, fact.ProtoStatic)
				r.Family = "ipv4"
				addRoute(s, r)
			}), want: finding.Fail},
			{name: "nexthop object not resolved", edit: func(s *fact.Snapshot) {
				dropRoutes(s, isDefault6)
				r := route("::/0", "", 2, fact.ProtoStatic)
				r.NextHops, r.NextHopID = nil, 7
				addRoute(s, r)
			}, want: finding.Unknown},
		},
		"NDP-10": {
			{name: "all addresses work", want: finding.Pass},
			{name: "dadfailed", edit: func(s *fact.Snapshot) {
				a := address(2, "2001:db8:1::99/64")
				a.Flags |= fact.AddrTentative | fact.AddrDADFailed
				addAddress(s, a)
			}, want: finding.Fail, subject: finding.Subject{Interface: "eth0", Address: "2001:db8:1::99"}, severity: finding.High},
			{name: "not read", edit: func(s *fact.Snapshot) { s.Namespaces[0].Addresses = fact.Known[[]fact.Address]{} }, want: finding.Unknown},
		},
		"NDP-11": {
			{name: "on", want: finding.Pass},
			{name: "switched off", edit: edits(confs("eth0", "disable_ipv6", "1", "accept_dad", "2"), withoutBootSettings), want: finding.Fail},
			{name: "accept_dad of all counts", edit: edits(confs("eth0", "disable_ipv6", "1"), confs("all", "accept_dad", "2"), withoutBootSettings), want: finding.Fail},
			{name: "off, not by DAD", edit: confs("eth0", "disable_ipv6", "1"), want: finding.Pass},
			{name: "off everywhere", edit: edits(confs("eth0", "disable_ipv6", "1", "accept_dad", "2"), confs("all", "disable_ipv6", "1")), want: finding.NotApplicable},
			{name: "off by a file", edit: edits(confs("eth0", "disable_ipv6", "1", "accept_dad", "2"), func(s *fact.Snapshot) {
				s.Host.Files.Sysctl = fact.Value([]fact.SysctlSetting{{Key: "net/ipv6/conf/eth0/disable_ipv6", Value: "1", By: "systemd-sysctl", Origin: fact.Origin{File: "/etc/sysctl.d/x.conf", Line: 1}}})
			}), want: finding.NotApplicable},
		},
		"NDP-13": {
			{name: "default", want: finding.Pass},
			{name: "raised", edit: edits(table(func(t *fact.NeighbourTable) { t.Parms[2].QueueBytes = 4 << 20 }), sysctls("net/ipv6/neigh/eth0/unres_qlen_bytes", "4194304")), want: finding.Fail, subject: finding.Subject{Interface: "eth0"}},
		},
		"NDP-14": {
			{name: "defaults", want: finding.Pass},
			{name: "an RA changed them", edit: edits(table(func(t *fact.NeighbourTable) { t.Parms[2].BaseReachableMs, t.Parms[2].RetransMs = 1000, 8 }), sysctls("net/ipv6/neigh/eth0/base_reachable_time_ms", "1000", "net/ipv6/neigh/eth0/retrans_time_ms", "8")), want: finding.Fail},
			{name: "the machine's default is another", edit: table(func(t *fact.NeighbourTable) { t.Parms[0].BaseReachableMs, t.Parms[2].BaseReachableMs = 15000, 15000 }), want: finding.Pass},
			{name: "a file says so", edit: edits(table(func(t *fact.NeighbourTable) { t.Parms[2].BaseReachableMs = 15000 }), func(s *fact.Snapshot) {
				s.Host.Files.Sysctl = fact.Value([]fact.SysctlSetting{{Key: "net/ipv6/neigh/eth0/base_reachable_time_ms", Value: "15000", By: "systemd-sysctl", Origin: fact.Origin{File: "/etc/sysctl.d/x.conf", Line: 1}}})
			}), want: finding.Pass},
		},
		"NDP-16": {
			{name: "quiet", want: finding.Pass},
			{name: "a storm", edit: neighbours(700, fact.NUDDelay), want: finding.Fail},
			{name: "probing", edit: neighbours(700, fact.NUDProbe), want: finding.Fail},
		},
	}
}

// withoutBootSettings takes the fixture's sysctl.d away.
func withoutBootSettings(s *fact.Snapshot) { s.Host.Files.Sysctl = fact.Value([]fact.SysctlSetting{}) }
