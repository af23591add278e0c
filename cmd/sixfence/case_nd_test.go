package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/testlab"
)

// A neighbour that answers every DAD probe keeps an address from ever being used.
func TestDADFailed(t *testing.T) {
	t.Parallel()
	p := testlab.NewPair(t, "dad")
	p.Victim.AddAddr("v0", "2001:db8:1::b/64")
	for _, v := range both(t, p.Victim) {
		v.effective(t, "NDP-10", on("v0"), finding.Pass)
	}
	p.Victim.Sysctl("net/ipv6/conf/v0/accept_dad", "1")
	p.Attacker.AnswerDAD("a0")
	p.Victim.IP("-6", "addr", "add", "2001:db8:1::99/64", "dev", "v0")
	testlab.Eventually(t, 10*time.Second, "dadfailed", func() bool {
		return strings.Contains(p.Victim.IP("-6", "addr", "show", "dev", "v0"), "dadfailed")
	})
	for _, v := range both(t, p.Victim) {
		f := v.effective(t, "NDP-10", on("v0"), finding.Fail)
		if !strings.Contains(f.Message+fmt.Sprint(f.Evidence, f.Subject), "2001:db8:1::99") {
			t.Errorf("from %s: the address is not named: %s", v.from, f.Message)
		}
	}
	// The kernel refuses to use it.
	p.Victim.Do(func() {
		if l, err := net.Listen("tcp6", "[2001:db8:1::99]:0"); err == nil {
			l.Close()
			t.Error("the address can be bound although DAD failed")
		}
		if l, err := net.Listen("tcp6", "[2001:db8:1::b]:0"); err != nil {
			t.Errorf("the other address cannot be bound either: %v", err)
		} else {
			l.Close()
		}
	})
}

// An unpinned gateway moves to whoever says so; a permanent entry does not.
func TestUnpinnedGateway(t *testing.T) {
	t.Parallel()
	gw := netip.MustParseAddr("fe80::1")
	good := testlab.MAC{2, 0, 0, 0, 0, 1}
	for _, state := range []string{"reachable", "stale", "permanent"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			p := testlab.NewPair(t, "gw", "net/ipv6/conf/default/accept_ra=0")
			p.Victim.AddAddr("v0", "2001:db8:1::b/64")
			p.Victim.IP("-6", "route", "add", "default", "via", gw.String(), "dev", "v0")
			p.Victim.IP("-6", "neigh", "replace", gw.String(), "lladdr", good.String(), "dev", "v0", "nud", state)
			views := both(t, p.Victim)
			entry := func() string { return p.Victim.IP("-6", "neigh", "show", gw.String(), "dev", "v0") }
			moved := map[string]bool{}
			for name, f := range map[string]testlab.Frame{
				"NS": testlab.Frame{SrcMAC: p.Wire.MAC, Src: gw, Dst: testlab.AllNodes}.NS(p.VictimLL, testlab.MAC{2, 0, 0, 0, 0xbb, 1}),
				"NA": testlab.Frame{SrcMAC: p.Wire.MAC, Src: gw, Dst: testlab.AllNodes}.NA(gw, testlab.NAOverride, testlab.MAC{2, 0, 0, 0, 0xbb, 2}),
				"RA": testlab.Frame{SrcMAC: testlab.MAC{2, 0, 0, 0, 0xbb, 3}, Src: gw, Dst: testlab.AllNodes}.RA(rogueRA(1800)),
			} {
				p.Victim.IP("-6", "neigh", "replace", gw.String(), "lladdr", good.String(), "dev", "v0", "nud", state)
				p.Wire.Send(f.Bytes())
				p.Barrier()
				moved[name] = !strings.Contains(entry(), good.String())
			}
			anyMoved := moved["NS"] || moved["NA"] || moved["RA"]
			if anyMoved != (state != "permanent") {
				t.Fatalf("state %s: poisoned by %v", state, moved)
			}
			for _, v := range views {
				f := v.one(t, "NDP-06", on("v0"))
				if f.Effective != verdict(anyMoved) {
					t.Errorf("from %s: NDP-06 is %s with a %s entry, the kernel moved it: %v", v.from, f.Effective, state, moved)
				}
			}
		})
	}
}

// The neighbour table is one for the whole kernel: while it is full, nobody in any
// namespace learns a new neighbour, and every namespace can see it.
//
// It owns the host: for a moment other labs could not resolve anything either.
func TestNeighbourTablePressureSeenFromInside(t *testing.T) {
	testlab.OwnHost(t)
	ns, limit := testlab.NewPair(t, "press"), 0
	if b, err := os.ReadFile("/proc/sys/net/ipv6/neigh/default/gc_thresh3"); err == nil {
		limit, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	if limit == 0 || limit > 8192 {
		testlab.CannotRun(t, "gc_thresh3 is %d: filling the table would take too long", limit)
	}
	fulls := func() int { return tableFulls(t, ns.Victim) }
	before := fulls()
	ns.Victim.AddAddr("v0", "2001:db8:1::b/64")
	for i := 0; i < limit+300; i++ {
		src := netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 0, 1, 14: byte(0x10 + i>>8), 15: byte(i)})
		f := testlab.Frame{SrcMAC: ns.Wire.MAC, Src: src, Dst: testlab.AllNodes}
		ns.Wire.Send(f.NS(ns.VictimLL, testlab.MAC{2, 0, 0, 1, byte(i >> 8), byte(i)}).Bytes())
	}
	testlab.Eventually(t, 5*time.Second, "the table to overflow", func() bool { return fulls() > before })
	// A namespace that nobody floods sees it from inside, by netlink alone.
	other := testlab.NewNS(t, "calm")
	for _, v := range both(t, other) {
		f := v.effective(t, "NDP-02", finding.Subject{Key: "ndisc_cache"}, finding.Fail)
		if !f.Severity.AtLeast(finding.High) {
			t.Errorf("from %s: severity %s while the table is full, want high", v.from, f.Severity)
		}
		if !strings.Contains(f.Message+fmt.Sprint(f.Evidence), "table_fulls") {
			t.Errorf("from %s: table_fulls is not among the evidence: %v", v.from, f.Evidence)
		}
	}
	ns.Victim.IP("link", "del", "v0") // frees the entries at once
}

// tableFulls is the kernel's own count, as ip(8) shows it inside the namespace.
func tableFulls(t testing.TB, ns *testlab.NS) int {
	t.Helper()
	out := ns.IP("-s", "ntable", "show", "name", "ndisc_cache")
	f := strings.Fields(out)
	for i, w := range f {
		if w == "table_fulls" && i+1 < len(f) {
			n, _ := strconv.Atoi(f[i+1])
			return n
		}
	}
	// iproute2 before 6.x does not print it; /proc shows it in the initial namespace.
	b, err := exec.Command("cat", "/proc/net/stat/ndisc_cache").Output()
	if err != nil {
		t.Fatalf("read neighbour statistics: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	col := -1
	for i, h := range strings.Fields(lines[0]) {
		if h == "table_fulls" {
			col = i
		}
	}
	sum := 0
	for _, l := range lines[1:] {
		v, _ := strconv.ParseUint(strings.Fields(l)[col], 16, 64)
		sum += int(v)
	}
	return sum
}
