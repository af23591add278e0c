package expect

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// TestChainFindings: what gets further and what must not be answered is wrong; what gets
// less far, or is refused, is not; what could not be told is no pass.
func TestChainFindings(t *testing.T) {
	t.Parallel()
	a := &probe.Address{Target: "x", Addr: netip.MustParseAddr("2001:db8::2"), Life: probe.Answered, Complete: true}
	add := func(chain probe.Variant, fate probe.Fate, ports string, plain probe.State, why string) {
		a.Chains = append(a.Chains, probe.Chained{Chain: chain, Proto: "tcp", Ports: ports, Fate: fate, Plain: plain, Reason: probe.Reason{State: probe.Open, Why: why}})
	}
	add("dst-3", probe.FateFurther, "5432", probe.Filtered, "")
	add("rh0", probe.FateFurther, "5432", probe.Filtered, "")
	add(probe.Near, probe.FateFurther, "179", probe.Filtered, "")
	add("frag-overlap", probe.FateTaken, "22", probe.Open, "")
	add("none", probe.FateTaken, "22", probe.Open, "")
	add("rh4", probe.FateLess, "22", probe.Open, "")
	add("rh0-1", probe.FateRefused, "22", probe.Open, "")
	add("frag-rev", probe.FateUnknown, "22", probe.Open, "changed")
	add("frag", probe.FateSame, "22", probe.Open, "")
	fs, gaps := (&Judge{Addresses: []*probe.Address{a}}).Findings()
	var got []string
	for _, f := range fs {
		got = append(got, strings.Join([]string{string(f.Severity), string(f.Status), f.Control, f.Message}, " "))
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{
		"high fail VERIFY-08 tcp/5432 of 2001:db8::2 gets an answer in the chains dst-3, rh0, and is filtered without",
		"high fail VERIFY-08 tcp/22 of 2001:db8::2 answers behind overlapping fragments (frag-overlap), which RFC 5722 forbids",
		"medium fail VERIFY-08 tcp/22 of 2001:db8::2 answers behind a header that says that nothing follows (none), which RFC 8200 §4.7 forbids",
		"medium unknown VERIFY-08 what becomes of the chains frag-rev",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is missing in\n%s", want, all)
		}
	}
	if len(fs) != 4 || len(gaps) != 1 || gaps[0].Controls[0] != Wrapped || fs[0].Status != finding.Fail {
		t.Errorf("%d findings, %d gaps:\n%s", len(fs), len(gaps), all)
	}
}
