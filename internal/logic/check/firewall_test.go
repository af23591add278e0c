package check

import (
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// nftDump gives the first namespace a ruleset as a kernel dumped it (testdata/nft).
func nftDump(name string) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		b, err := os.ReadFile("testdata/nft/" + name + ".json")
		if err != nil {
			panic(err)
		}
		var n fact.NFTables
		if err := json.Unmarshal(b, &n); err != nil {
			panic(err)
		}
		s.Namespaces[0].PacketFilter.NFTables = fact.Value(n)
	}
}

func legacyToo(s *fact.Snapshot) {
	nftDump("v4only")(s)
	legacyFilter(s)
}

// secondNetwork adds eth1 with a network of its own.
func secondNetwork(s *fact.Snapshot) {
	l := addLink(s, "eth1")
	addAddress(s, address(l.Index, "2001:db8:2::1/64"))
	addAddress(s, address(l.Index, "fe80::2/64"))
	addRoute(s, route("2001:db8:2::/64", "", l.Index, fact.ProtoKernel))
	addRoute(s, route("fe80::/64", "", l.Index, fact.ProtoKernel))
}

var forwarding = edits(secondNetwork, confs("all", "forwarding", "1"), confs("eth0", "forwarding", "1"), confs("eth1", "forwarding", "1"))

// unreadRules are rules that the reader had no right to see.
func unreadRules(s *fact.Snapshot) {
	s.Namespaces[0].PacketFilter.NFTables = fact.Missing[fact.NFTables](fact.Gap{Reason: fact.Permission, What: "nf_tables ruleset"})
}

// twoPorts is a bridge with two ports.
func twoPorts(call string) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		b := addLink(s, "br0")
		b.Kind = "bridge"
		index := b.Index
		for _, n := range []string{"p1", "p2"} {
			l := addLink(s, n)
			l.Kind, l.Master, l.SlaveKind = "veth", index, "bridge"
		}
		s.Namespaces[0].PacketFilter.BridgeNFCall = fact.Value(call)
	}
}

// leased gives eth0 an address of a DHCPv6 server.
func leased(s *fact.Snapshot) {
	a := address(2, "2001:db8:1::77/128")
	a.Flags, a.Preferred, a.Valid = 0, 3600, 7200
	dropAddresses(s, func(a fact.Address) bool { return a.Prefix.Addr().IsGlobalUnicast() && a.Prefix.Addr().Is6() })
	addAddress(s, a)
}

var onEth0 = finding.Subject{Interface: "eth0"}

func firewallStates() map[string][]state {
	type st = []state
	const fails, passes, open, na = finding.Fail, finding.Pass, finding.Unknown, finding.NotApplicable
	d := nftDump
	out := map[string][]state{
		"FW-01": {
			{name: "only IPv4 is filtered", edit: d("v4only"), want: fails, severity: finding.Critical},
			{name: "accept by policy", edit: d("bad"), want: fails, severity: finding.Medium},
			{name: "no rules", want: fails, severity: finding.Medium},
			{name: "drop by policy", edit: d("good"), want: passes},
			{name: "strict", edit: d("guard"), want: passes},
			{name: "by chance", edit: d("chance"), want: open},
			{name: "legacy rules unread", edit: legacyToo, want: open},
		},
		"FW-02": {
			{name: "server that forwards", edit: edits(forwarding, d("bad")), role: RoleServer, want: fails, severity: finding.Medium},
			{name: "server that would", edit: edits(forwarding, d("noforward")), role: RoleServer, want: passes},
			{name: "router that cannot", edit: edits(forwarding, d("noforward")), role: RoleRouter, want: fails},
			{name: "router", edit: edits(forwarding, d("router")), role: RoleRouter, want: passes},
			{name: "by chance", edit: edits(forwarding, d("chance")), role: RoleServer, want: open},
			{name: "does not forward", edit: d("good"), want: na},
		},
		"FW-03": {
			{name: "one table for both", edit: d("good"), want: passes},
			{name: "ssh named for IPv6 only", edit: d("six"), want: fails, severity: finding.High},
			{name: "ssh for IPv6 only, and nothing listens", edit: edits(d("six"), func(s *fact.Snapshot) { s.Namespaces[0].Sockets = fact.Value([]fact.Socket{}) }), want: fails, severity: finding.Low},
		},
		"FW-33": {{name: "second table drops unless", edit: d("perhaps"), want: open}, {name: "second table drops", edit: d("drowned"), want: fails}, {name: "tables agree", edit: d("pair"), want: passes}, {name: "one table", edit: d("good"), want: passes}},
		"FW-43": {{name: "by source port", edit: d("stateless"), want: fails, severity: finding.High}, {name: "conntrack", edit: d("good"), want: passes}, {name: "by chance", edit: d("chance"), want: open}},
		"LISTEN-03": {
			{name: "only IPv4 is filtered", edit: d("v4only"), want: fails, severity: finding.Critical},
			{name: "both", edit: d("good"), want: passes},
			{name: "by chance", edit: d("chance"), want: open},
			{name: "legacy rules unread", edit: legacyToo, want: open},
		},
		"LISTEN-06": {{name: "open", edit: d("good"), want: fails}, {name: "closed", edit: d("closed"), want: passes}, {name: "by chance", edit: d("chance"), want: open}},
		"FW-10":     {{name: "dropped", edit: d("closed"), want: fails, severity: finding.Critical}, {name: "accepted", edit: d("good"), want: passes}, {name: "checked", edit: d("guard"), want: passes}, {name: "by chance", edit: d("chance"), want: open}},
		"FW-11":     {{name: "dropped", edit: d("closed"), want: fails, severity: finding.Critical}, {name: "accepted", edit: d("good"), want: passes}, {name: "checked", edit: d("guard"), want: passes}, {name: "by chance", edit: d("chance"), want: open}},
		"FW-13":     {{name: "dropped", edit: d("closed"), want: fails}, {name: "related", edit: d("good"), want: passes}, {name: "by chance", edit: d("chance"), want: open}},
		"FW-14": {
			{name: "black hole", edit: edits(forwarding, d("blackhole")), role: RoleRouter, want: fails},
			{name: "related passes", edit: edits(forwarding, d("router")), role: RoleRouter, want: passes},
			{name: "forwards nothing", edit: edits(forwarding, d("noforward")), role: RoleRouter, want: na},
			{name: "by chance", edit: edits(forwarding, d("chance")), role: RoleRouter, want: open},
		},
		"FW-15": {{name: "accepted", edit: d("bad"), want: fails}, {name: "dropped", edit: d("good"), want: passes}, {name: "by chance", edit: d("chance"), want: open}},
		"FW-16": {{name: "all ICMPv6", edit: d("stateless"), want: fails, severity: finding.Info}, {name: "listed types", edit: d("good"), want: passes}, {name: "by chance", edit: d("chance"), want: open}},
		"RA-01": {
			{name: "no guard", edit: edits(d("bad"), confs("eth0", "accept_ra", "1")), want: fails, severity: finding.High},
			{name: "a guard for plain ones", edit: edits(d("nexthdr"), confs("eth0", "accept_ra", "1")), want: fails},
			{name: "one router", edit: edits(d("good"), confs("eth0", "accept_ra", "1")), want: passes},
			{name: "one router, strict", edit: edits(d("guard"), confs("eth0", "accept_ra", "1")), want: passes},
			{name: "nobody takes them", edit: d("bad"), want: na},
			{name: "by chance", edit: edits(d("chance"), confs("eth0", "accept_ra", "1")), want: open},
		},
		"RA-14": {
			{name: "client and no rules", edit: networkd, want: fails, severity: finding.Medium, subject: onEth0},
			{name: "client behind a first-header guard", edit: edits(networkd, d("nexthdr")), want: fails, severity: finding.High, subject: onEth0},
			{name: "client behind a guard", edit: edits(networkd, d("guard")), want: passes, subject: onEth0},
			{name: "no client", edit: d("bad"), want: na},
			{name: "by chance", edit: edits(networkd, d("chance")), want: open, subject: onEth0},
		},
		"FW-12": {{name: "no limit", edit: d("good"), want: fails, severity: finding.Low}, {name: "by sender", edit: d("guard"), want: passes}, {name: "by chance", edit: d("chance"), want: open}},
		"FW-17": {
			{name: "behind established", edit: d("good"), want: fails},
			{name: "by sender", edit: d("limits"), want: passes},
			{name: "a set that fills", edit: d("guard"), want: fails, severity: finding.Low},
			{name: "no limit", edit: d("bad"), want: na},
			{name: "by chance", edit: d("chance"), want: open},
		},
		"FW-18": {
			{name: "trusts a source", edit: edits(secondNetwork, d("trusts")), want: fails, severity: finding.High, subject: onEth0},
			{name: "open to all", edit: edits(secondNetwork, d("bad")), want: fails, severity: finding.Low},
			{name: "verifies it", edit: edits(secondNetwork, d("rpf")), want: passes},
			{name: "one network", edit: d("good"), want: na},
			{name: "by chance", edit: edits(secondNetwork, d("chance")), want: open},
		},
		"FW-20": {
			{name: "name server", edit: edits(d("udp"), sockets("/usr/sbin/named", "udp [::]:53")), want: fails, severity: finding.High},
			{name: "no service", edit: d("bad"), want: fails, severity: finding.Low},
			{name: "dropped", edit: d("guard"), want: passes},
			{name: "by chance", edit: d("chance"), want: open},
		},
		"FW-22": {{name: "forwards all", edit: edits(forwarding, d("bad")), role: RoleRouter, want: fails}, {name: "refuses", edit: edits(forwarding, d("router")), role: RoleRouter, want: passes}, {name: "server", edit: d("good"), want: na}, {name: "by chance", edit: edits(forwarding, d("chance")), role: RoleRouter, want: open}},
		"FW-23": {{name: "forwards all", edit: edits(forwarding, d("bad")), role: RoleRouter, want: fails}, {name: "refuses", edit: edits(forwarding, d("router")), role: RoleRouter, want: passes}, {name: "server", edit: d("good"), want: na}, {name: "by chance", edit: edits(forwarding, d("chance")), role: RoleRouter, want: open}},
		"FW-24": {
			{name: "kernel takes them", edit: edits(d("bad"), confs("eth0", "suppress_frag_ndisc", "0")), want: fails, severity: finding.High},
			{name: "kernel refuses", edit: d("bad"), want: passes},
			{name: "rules refuse", edit: edits(d("guard"), confs("eth0", "suppress_frag_ndisc", "0")), want: passes},
			{name: "by chance", edit: edits(d("chance"), confs("eth0", "suppress_frag_ndisc", "0")), want: open},
		},
		"FW-27": {{name: "dropped", edit: edits(leased, d("good")), want: fails, severity: finding.High}, {name: "accepted", edit: edits(leased, d("guard")), want: passes}, {name: "static", edit: d("good"), want: na}, {name: "by chance", edit: edits(leased, d("chance")), want: open}},
		"FW-40": {{name: "past the rules", edit: edits(twoPorts("0"), d("noforward")), want: fails}, {name: "through them", edit: edits(twoPorts("1"), d("noforward")), want: passes}, {name: "no forward rules", edit: edits(twoPorts("0"), d("good")), want: na}},
		"FW-41": {{name: "mDNS", edit: d("discovery"), role: RoleServer, want: fails}, {name: "none", edit: d("good"), role: RoleServer, want: passes}, {name: "by chance", edit: d("chance"), role: RoleServer, want: open}},
		"FW-36": {{name: "anything", edit: d("good"), want: fails, severity: finding.Info}, {name: "listed", edit: d("egress"), want: passes}, {name: "by chance", edit: d("chance"), want: open}},
		"TUN-06": {
			{name: "anything", edit: d("good"), want: fails, severity: finding.Info},
			{name: "listed otherwise", edit: d("leak"), want: fails, severity: finding.Medium},
			{name: "none", edit: d("egress"), want: passes},
			{name: "by chance", edit: d("chance"), want: open},
		},
		"TUN-07": {
			{name: "any sender", edit: d("bad"), want: fails, severity: finding.Low},
			{name: "any sender, opened", edit: edits(d("bad"), tunnel("six", "sit", fact.Tunnel{Complete: true})), want: fails, severity: finding.Medium, subject: finding.Subject{Family: "ipv4", Key: "protocol-41"}},
			{name: "dropped", edit: d("good"), want: passes},
			{name: "by chance", edit: d("chance"), want: open},
		},
		"FW-34": {{name: "every packet", edit: d("bad"), want: fails, severity: finding.Low}, {name: "limited", edit: d("guard"), want: passes}},
		"FW-04": st{{name: "one kind", edit: d("good"), want: passes}, {name: "both", edit: edits(d("good"), legacyRules), want: fails}},
		"FW-05": st{{name: "one", edit: d("good"), want: passes}, {name: "two", edit: d("managers"), want: fails}},
	}
	for _, id := range []string{"FW-06", "FW-07", "FW-08", "FW-09", "FW-28"} {
		out[id] = st{{name: "bad", edit: d("bad"), want: fails}, {name: "good", edit: d("good"), want: passes}}
	}
	for id := range out {
		if id != "RA-14" {
			// What the client's rules are does not matter while it is not known that it runs.
			out[id] = append(out[id], state{name: "rules unread", edit: edits(forwarding, unreadRules), want: open})
		}
	}
	return out
}

// TestExposures: what one family is wider open for comes first, with both families'
// rules and a packet.
func TestExposures(t *testing.T) {
	r := Evaluate(with(edits(nftDump("v4only"), sockets("/usr/lib/postgresql/15/bin/postgres", "tcp [::]:5432"), sockets("/usr/sbin/named", "tcp 127.0.0.1:953"))), Options{})
	if len(r.Exposures) != 2 {
		t.Fatalf("%d exposures: %+v", len(r.Exposures), r.Exposures)
	}
	x := r.Exposures[1]
	if x.Port != 5432 || x.Differs != "ipv6" || x.IPv4.State != finding.AccessClosed || x.IPv6.State != finding.AccessOpen || x.IPv6.Sources != "anywhere" {
		t.Errorf("%+v", x)
	}
	if len(x.IPv4.DecidedBy) == 0 || x.IPv4.DecidedBy[0].Table != "ip filter" || x.IPv6.Witness == "" {
		t.Errorf("%+v", x)
	}
	if r := Evaluate(with(nftDump("closed")), Options{}); len(r.Exposures) != 0 {
		t.Errorf("closed: %+v", r.Exposures)
	}
	if r := Evaluate(with(nil), Options{}); len(r.Exposures) != 1 || r.Exposures[0].Differs != "" || r.Exposures[0].Port != 22 {
		t.Errorf("no rules: %+v", r.Exposures)
	}
}

// TestStrictHost: a correct dual-stack firewall leaves nothing above low, whatever the
// kernel would take.
func TestStrictHost(t *testing.T) {
	for _, f := range Evaluate(with(nftDump("guard")), Options{Role: RoleServer}).Findings {
		if f.Status == finding.Fail && f.Severity.AtLeast(finding.Medium) || f.Status == finding.Unknown {
			t.Errorf("%s %s %s: %s: %s", f.Control, f.Status, f.Severity, f.Subject, f.Message)
		}
	}
}

// TestNothingIsLeftUnanalysed: what the rules say is never a reason not to know.
func TestNothingIsLeftUnanalysed(t *testing.T) {
	for _, rules := range []string{"good", "bad", "closed", "guard", "udp", "router", "egress"} {
		s := with(edits(raOn, forwarding, guests(false), tunnel("vx0", "vxlan", fact.Tunnel{Port: 4789, VNI: 1, Complete: true}), nftDump(rules)))
		for _, g := range Evaluate(s, Options{Role: RoleServer}).Gaps {
			if strings.Contains(g.What, filtered) || strings.Contains(g.What, "not yet") {
				t.Errorf("%s: %v: %s", rules, g.Controls, g.What)
			}
		}
	}
}

// TestRulesSettlePorts: a listener that the rules surely close is no finding.
func TestRulesSettlePorts(t *testing.T) {
	split := func(s *fact.Snapshot) {
		must(s.Namespaces[0].Sockets)[0].V6Only = fact.Value(true)
		k := must(s.Namespaces[0].Sockets)[0]
		k.Family, k.Local, k.Inode, k.V6Only = "ipv4", mustAddr("127.0.0.1"), 4712, fact.Absent[bool]()
		addSocket(s, k)
	}
	ctl, _ := Find("LISTEN-02")
	for name, want := range map[string]finding.Status{"closed": finding.Pass, "good": finding.Fail, "v4only": finding.Fail} {
		st := state{name: name, edit: edits(split, nftDump(name)), want: want}
		if err := st.verify(ctl); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

// legacyRules adds an ip6_tables filter table as a kernel dumped it.
func legacyRules(s *fact.Snapshot) {
	b, err := os.ReadFile("testdata/nft/legacy.json")
	if err != nil {
		panic(err)
	}
	var l []fact.LegacyTable
	if err := json.Unmarshal(b, &l); err != nil {
		panic(err)
	}
	s.Namespaces[0].PacketFilter.Legacy = fact.Value(l)
}
