package expect

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/probe"
)

// TestFindingsNameTheWay: a port that is not what it should be is told with where its answer
// came from, and where its packets end.
func TestFindingsNameTheWay(t *testing.T) {
	t.Parallel()
	a := netip.MustParseAddr("192.0.2.2")
	tb := &probe.Table{Proto: "tcp"}
	for _, p := range []uint16{22, 81, 5432} {
		tb.Want.Add(p)
	}
	tb.Put(22, probe.Reason{State: probe.Open, Why: "syn-ack", HopLimit: 62, MSS: 1360})
	tb.Put(81, probe.Reason{State: probe.Closed, Why: "rst", HopLimit: 254})
	tb.Put(5432, probe.Reason{State: probe.Filtered, Why: "silence"})
	x := &probe.Address{
		Target: "x", Addr: a, Life: probe.Answered, Complete: true, Tables: []*probe.Table{tb},
		Path:   &probe.Path{Verdict: probe.PathHole, LinkMTU: 1500, MTU: 1400, Way: "there"},
		Traces: []probe.Trace{{Proto: "tcp", Port: 5432, State: probe.Filtered, Hops: []probe.Hop{{Hop: 1, From: netip.MustParseAddr("198.51.100.254")}, {Hop: 2}}}},
	}
	if ds := x.Distances(); len(ds) != 2 || ds[0].Hops != 1 || ds[0].Ports["tcp"] != "81" || ds[1].Hops != 2 {
		t.Fatalf("%+v", ds)
	}
	before := Before{}
	for _, p := range []uint16{22, 81, 5432} {
		before[Key{Addr: a, Proto: "tcp", Port: p}] = Word(probe.Open)
	}
	fs, _ := (&Judge{Addresses: []*probe.Address{x}, Expected: before}).Findings()
	var all []string
	for _, f := range fs {
		all = append(all, f.Message)
	}
	text := strings.Join(all, "\n")
	for _, want := range []string{
		"that answer came from 1 hop away, and others of this address from 2",
		"packets to tcp/5432 end at hop 1 (198.51.100.254), or right behind it",
		"segments that fit (MSS), so TCP gets through to it",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}
