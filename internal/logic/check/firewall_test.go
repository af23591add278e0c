package check

import (
	"encoding/json"
	"net/netip"
	"os"
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

func firewallStates() map[string][]state {
	type st = []state
	out := map[string][]state{
		"FW-01": {
			{name: "only IPv4 is filtered", edit: nftDump("v4only"), want: finding.Fail, severity: finding.Critical},
			{name: "accept by policy", edit: nftDump("bad"), want: finding.Fail, severity: finding.Medium},
			{name: "drop by policy", edit: nftDump("good"), want: finding.Pass},
			{name: "legacy rules unread", edit: legacyToo, want: finding.Unknown},
			{name: "no rules", want: finding.NotApplicable},
		},
		"FW-03":     st{{name: "one table for both", edit: nftDump("good"), want: finding.Pass}, {name: "ssh named for IPv6 only", edit: nftDump("six"), want: finding.Fail}},
		"LISTEN-03": st{{name: "only IPv4 is filtered", edit: nftDump("v4only"), want: finding.Fail, severity: finding.Critical}, {name: "both", edit: nftDump("good"), want: finding.Pass}, {name: "legacy rules unread", edit: legacyToo, want: finding.Unknown}},
		"LISTEN-06": st{{name: "open", edit: nftDump("good"), want: finding.Fail}, {name: "closed", edit: nftDump("closed"), want: finding.Pass}},
		"FW-10":     st{{name: "dropped", edit: nftDump("closed"), want: finding.Fail}, {name: "accepted", edit: nftDump("good"), want: finding.Pass}},
		"FW-11":     st{{name: "dropped", edit: nftDump("closed"), want: finding.Fail}, {name: "accepted", edit: nftDump("good"), want: finding.Pass}},
		"FW-13":     st{{name: "dropped", edit: nftDump("closed"), want: finding.Fail}, {name: "related", edit: nftDump("good"), want: finding.Pass}},
		"FW-15":     st{{name: "accepted", edit: nftDump("bad"), want: finding.Fail}, {name: "dropped", edit: nftDump("good"), want: finding.Pass}},
		"RA-01": st{
			{name: "no guard", edit: edits(nftDump("bad"), confs("eth0", "accept_ra", "1")), want: finding.Fail},
			{name: "one router", edit: edits(nftDump("good"), confs("eth0", "accept_ra", "1")), want: finding.Pass},
		},
		"FW-04": st{{name: "one kind", edit: nftDump("good"), want: finding.Pass}, {name: "both", edit: edits(nftDump("good"), legacyRules), want: finding.Fail}},
		"FW-05": st{{name: "one", edit: nftDump("good"), want: finding.Pass}, {name: "two", edit: nftDump("managers"), want: finding.Fail}},
	}
	for _, id := range []string{"FW-06", "FW-07", "FW-08", "FW-09", "FW-28"} {
		out[id] = st{{name: "bad", edit: nftDump("bad"), want: finding.Fail}, {name: "good", edit: nftDump("good"), want: finding.Pass}}
	}
	return out
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
