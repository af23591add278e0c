package packetfilter_test

import (
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/packetfilter"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestIPSets reads the sets of a namespace: none, one with an element, and too many bytes
// for the budget.
func TestIPSets(t *testing.T) {
	ns := testlab.NewNS(t, "is")
	read := func(bytes int64, present bool) fact.Known[[][]byte] {
		var n fact.Namespace
		ns.Do(func() {
			a := ask.New(func(m string) bool { return present || m != "ip_set" }, false)
			packetfilter.Read(a, ask.NewBudget("t", time.Minute, 1e9, bytes), packetfilter.Options{Elements: true}).Decode(&n)
		})
		return n.PacketFilter.IPSets
	}
	if got := read(1e9, true); got.State() != fact.StateAbsent {
		t.Errorf("no sets: %v", got)
	}
	ns.Do(func() {
		if err := netlink.IpsetCreate("blocked", "hash:ip", netlink.IpsetCreateOptions{}); err != nil {
			t.Errorf("create ipset: %v", err)
			return
		}
		if err := netlink.IpsetAdd("blocked", &netlink.IPSetEntry{IP: net.IPv4(192, 0, 2, 7).To4()}); err != nil {
			t.Errorf("add to ipset: %v", err)
		}
	})
	if got, ok := read(1e9, true).Get(); !ok || len(got) != 1 {
		t.Errorf("one set: %v %v", got, ok)
	}
	if got := read(1e9, false); got.State() != fact.StateAbsent {
		t.Errorf("without the module nothing is asked: %v", got)
	}
	if g, gap := read(10, true).Gap(); !gap || g.Reason != fact.Truncated {
		t.Errorf("budget: %v", g)
	}
}

// TestLegacyStarts reads where the chains of a legacy table begin.
func TestLegacyStarts(t *testing.T) {
	ns := testlab.NewNS(t, "ls")
	ns.Run(testlab.RequireTool(t, "ip6tables-legacy"), "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "DROP")
	var n fact.Namespace
	ns.Do(func() {
		a := ask.New(func(string) bool { return true }, false)
		packetfilter.Read(a, ask.NewBudget("t", time.Minute, 1e9, 1e9), packetfilter.Options{Elements: true}).Decode(&n)
	})
	ts, ok := n.PacketFilter.Legacy.Get()
	if !ok || len(ts) != 1 {
		t.Fatalf("tables: %v", ts)
	}
	x := ts[0]
	if len(x.HookEntry) != 5 || len(x.Underflow) != 5 || x.HookEntry[1] != 0 || x.Underflow[1] == 0 || x.HookEntry[2] <= x.Underflow[1] {
		t.Errorf("starts %v, ends %v", x.HookEntry, x.Underflow)
	}
}
