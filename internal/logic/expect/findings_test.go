package expect

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// address is an address with the states of its TCP ports, by list.
func address(addr string, states map[string]probe.State) *probe.Address {
	a := &probe.Address{Target: addr, Addr: netip.MustParseAddr(addr), Life: probe.Answered, Complete: true}
	t := &probe.Table{Proto: "tcp"}
	for _, list := range slices.Sorted(maps.Keys(states)) {
		var ps probe.Ports
		if err := ps.AddList(list); err != nil {
			panic(err)
		}
		for p := range ps.All {
			t.Want.Add(p)
			t.Set(p, probe.Reason{State: states[list]})
		}
	}
	a.Tables = []*probe.Table{t}
	return a
}

func prints(fs []finding.Finding) (out []string) {
	for _, f := range fs {
		out = append(out, f.Fingerprint)
	}
	slices.Sort(out)
	return out
}

// TestFingerprintsDoNotFlap: the order of the targets and a port more or less in a long list
// make no other findings; a port that is open where none should be is one of its own.
func TestFingerprintsDoNotFlap(t *testing.T) {
	t.Parallel()
	want := List{{IPv4: "filtered", IPv6: "filtered"}, {Proto: "tcp", From: 22, To: 22, IPv4: "open", IPv6: "open"}}
	four := func(closed string) *probe.Address {
		return address("192.0.2.2", map[string]probe.State{"22": probe.Open, closed: probe.Closed, "5432,6379": probe.Filtered})
	}
	six := func(open, closed string) *probe.Address {
		return address("2001:db8::2", map[string]probe.State{"22," + open: probe.Open, closed: probe.Closed})
	}
	find := func(expected Source, as ...*probe.Address) []finding.Finding {
		j := &Judge{Addresses: as, Expected: expected, Together: true}
		fs, _ := j.Findings()
		if len(slices.Compact(prints(fs))) != len(fs) {
			t.Errorf("two findings have one fingerprint: %q", prints(fs))
		}
		return fs
	}
	for name, expected := range map[string]Source{"wanted": want, "families": nil} {
		first := find(expected, four("1-21,23-100"), six("5432", "1-21,23-100"))
		for _, again := range [][]finding.Finding{
			find(expected, six("5432", "1-21,23-100"), four("1-21,23-100")),
			find(expected, four("1-21,23-99"), six("5432", "1-21,23-99,443")),
			find(expected, four("80"), six("5432", "1-21,80")),
		} {
			if got := prints(again); name == "wanted" && !slices.Equal(got, prints(first)) {
				t.Errorf("%s: %q, and before %q", name, got, prints(first))
			}
		}
		if got := find(expected, six("5432", "1-21,23-100"), four("1-21,23-100")); !slices.Equal(prints(got), prints(first)) {
			t.Errorf("%s, other order: %q, and before %q", name, prints(got), prints(first))
		}
		more := prints(find(expected, four("1-21,23-100"), six("5432,6379", "1-21,23-100")))
		for _, p := range prints(first) {
			if !slices.Contains(more, p) {
				t.Errorf("%s: %s is gone because another port is open", name, p)
			}
		}
		if len(first) == 0 || len(more) != len(first)+1 {
			t.Errorf("%s: %d findings where one more than %d is open", name, len(more), len(first))
		}
	}
}

// TestWorstStandsFirst: an open database before a thousand closed ports.
func TestWorstStandsFirst(t *testing.T) {
	t.Parallel()
	want := List{{IPv4: "filtered", IPv6: "filtered"}, {Proto: "tcp", From: 22, To: 22, IPv4: "open", IPv6: "open"}}
	j := &Judge{Expected: want, Together: true, Addresses: []*probe.Address{
		address("192.0.2.2", map[string]probe.State{"22": probe.Filtered, "1-21,23-1100": probe.Closed}),
		address("2001:db8::2", map[string]probe.State{"22,5432": probe.Open, "1-21,23-1100": probe.Closed}),
	}}
	fs, _ := j.Findings()
	var got []string
	for _, f := range fs {
		got = append(got, strings.Fields(f.Message)[0])
		if len(f.Remediation) == 0 {
			t.Errorf("no remedy: %s", f.Message)
		}
	}
	if len(got) < 4 || got[0] != "tcp/5432" || got[1] != "tcp/22" || !strings.Contains(got[2], "1-21") {
		t.Errorf("%q", got)
	}
}

// TestEveryDifferenceHasARemedy: whatever is expected and whatever is seen.
func TestEveryDifferenceHasARemedy(t *testing.T) {
	t.Parallel()
	words := append(Words(), Silent, Unknown, "")
	for _, state := range probe.States() {
		for _, w := range words {
			for _, rules := range words {
				r := Result{State: state, Expected: w, Predicted: rules}
				r.Verdict = Compare(w, rules, Observed{Reason: probe.Reason{State: state}, Proven: true})
				if r.Verdict.Agree() {
					continue
				}
				b := &builder{gaps: map[string]int{}, ranks: map[string]int{}}
				var one probe.Ports
				one.Add(22)
				b.result(&r, &one, true)
				if len(b.findings) != 1 || len(b.findings[0].Remediation) == 0 || strings.Contains(b.findings[0].Message, "  ") {
					t.Errorf("wanted %q, rules %q, seen %s: %+v", w, rules, state, b.findings)
				}
			}
		}
	}
}
