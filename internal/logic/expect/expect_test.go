package expect

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/model/probe"
)

func seen(s probe.State) Observed { return Observed{Reason: probe.Reason{State: s}, Proven: true} }

// TestCompareNamesTheOddOneOut over the cases that a person would argue about.
func TestCompareNamesTheOddOneOut(t *testing.T) {
	t.Parallel()
	silentUDP := Observed{Reason: probe.Reason{State: probe.Filtered, MayBeOpen: true}, Proven: true}
	dark := Observed{Reason: probe.Reason{State: probe.Filtered}}
	shut := Observed{Reason: probe.Reason{State: probe.Errored, Blocked: true}, Proven: true}
	self := Observed{Reason: probe.Reason{State: probe.Open}, Proven: true, Self: true}
	for _, c := range []struct {
		expected, predicted Word
		seen                Observed
		want                Verdict
	}{
		{"", "", seen(probe.Open), None},
		{"open", "", seen(probe.Open), Match},
		{"open", "", seen(probe.Filtered), Differs},
		{"blocked", "", seen(probe.Rejected), Match},
		{"blocked", "", seen(probe.Closed), Differs}, // closed is not blocked
		{"filtered", "", seen(probe.Rejected), Differs},
		{"", "filtered", seen(probe.Open), Differs},
		{"", "rejected", seen(probe.Closed), Match}, // by a reset
		{"blocked", "rejected", seen(probe.Closed), Match},
		{"filtered", "rejected", seen(probe.Closed), PolicyWrong},
		{"open", "open", seen(probe.Open), Match},
		{"open", "open", seen(probe.Filtered), Between},
		{"open", "open", seen(probe.Unreachable), Between},
		{"closed", "closed", seen(probe.Filtered), Between},
		{"blocked", "filtered", seen(probe.Open), ModelWrong},
		{"blocked", "open", seen(probe.Open), PolicyWrong},
		{"open", "filtered", seen(probe.Filtered), PolicyWrong},
		{"open", "filtered", seen(probe.Open), ModelWrong},
		{"blocked", "open", seen(probe.Closed), AllDiffer},
		{"open", "closed", seen(probe.Filtered), AllDiffer},
		{"open", Unknown, seen(probe.Open), Match},
		{"", Unknown, seen(probe.Open), Undecided},
		// A host that is down is no firewall.
		{"blocked", "", dark, Undecided},
		{"filtered", "filtered", dark, Undecided},
		{"open", "", dark, Differs},
		{"blocked", "", seen(probe.Unreachable), Undecided},
		{"unreachable", "", seen(probe.Unreachable), Match},
		// Silence of UDP proves nothing, unless the rules say why it is silent.
		{"open", "", silentUDP, Undecided},
		{"blocked", "", silentUDP, Undecided},
		{"blocked", "filtered", silentUDP, Match},
		{"closed", "", silentUDP, Differs},
		// Filtered or rejected, and nobody knows which.
		{"blocked", "", shut, Match},
		{"blocked", "rejected", shut, Match},
		{"blocked", "open", shut, ModelWrong},
		{"filtered", "", shut, Undecided},
		{"filtered", "filtered", shut, Undecided},
		{"rejected", "", shut, Undecided},
		{"open", "", shut, Differs},
		{"closed", "", shut, Differs},
		{"open", "open", self, Undecided},
		{"open", "", seen(probe.Errored), Undecided},
	} {
		if got := Compare(c.expected, c.predicted, c.seen); got != c.want {
			t.Errorf("wanted %q, rules %q, seen %+v: %s, want %s", c.expected, c.predicted, c.seen, got, c.want)
		}
	}
}

// TestUnknownNeverPasses: whatever is expected, what proves nothing is no match.
func TestUnknownNeverPasses(t *testing.T) {
	t.Parallel()
	for _, e := range append(Words(), Unknown) {
		for _, p := range append(Words(), Unknown, "") {
			for _, o := range []Observed{seen(probe.Errored), seen(""), {Reason: probe.Reason{State: probe.Open}, Self: true, Proven: true}} {
				if v := Compare(e, p, o); v.Agree() {
					t.Errorf("%q %q %+v: %s", e, p, o, v)
				}
			}
		}
	}
}

func TestIntentExpects(t *testing.T) {
	t.Parallel()
	in := Intent{intent.Intent{Services: []intent.Service{
		{Name: "ssh", Ports: []string{"tcp/22"}, From: []netip.Prefix{netip.MustParsePrefix("2001:db8:aa::/48")}},
		{Name: "web", Ports: []string{"tcp/80", "tcp/8000-8010"}},
		{Name: "six", Ports: []string{"udp/53"}, Families: []string{"ipv6"}},
	}}}
	from4, from6, near6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:bb::1"), netip.MustParseAddr("2001:db8:aa::1")
	to4, to6 := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")
	for _, c := range []struct {
		q    Question
		want Word
	}{
		{Question{Addr: to6, Source: near6, Proto: "tcp", Port: 22}, "open"},
		{Question{Addr: to6, Source: from6, Proto: "tcp", Port: 22}, Blocked},
		{Question{Addr: to4, Source: from4, Proto: "tcp", Port: 22}, Blocked}, // a family without a prefix is closed
		{Question{Addr: to4, Source: from4, Proto: "tcp", Port: 8005}, "open"},
		{Question{Addr: to4, Source: from4, Proto: "udp", Port: 80}, Blocked},
		{Question{Addr: to4, Source: from4, Proto: "udp", Port: 53}, Blocked},
		{Question{Addr: to6, Source: from6, Proto: "udp", Port: 53}, "open"},
		{Question{Addr: to6, Source: from6, Proto: "icmpv6", Port: 128}, "open"},
	} {
		if got := in.Expect(c.q); got != c.want {
			t.Errorf("%+v: %q, want %q", c.q, got, c.want)
		}
	}
}

func TestTheNarrowestEntryHolds(t *testing.T) {
	t.Parallel()
	l := List{
		{IPv4: "filtered", IPv6: "filtered"},
		{Proto: "tcp", IPv4: "rejected", IPv6: "rejected"},
		{Proto: "tcp", From: 1, To: 100, IPv4: "closed", IPv6: "closed"},
		{Proto: "tcp", From: 22, To: 22, IPv4: "open"},
		{Proto: Echo, IPv4: "open", IPv6: "open"},
		{Proto: "icmpv6", From: 128, To: 128, IPv6: "filtered"},
	}
	for _, c := range []struct {
		addr, proto string
		port        uint16
		want        Word
	}{
		{"192.0.2.2", "tcp", 22, "open"},
		{"2001:db8::2", "tcp", 22, "closed"}, // the entry says nothing about IPv6
		{"192.0.2.2", "tcp", 23, "closed"},
		{"192.0.2.2", "tcp", 200, "rejected"},
		{"192.0.2.2", "udp", 53, "filtered"},
		{"192.0.2.2", "icmp", 8, "open"},
		{"192.0.2.2", "icmp", 13, ""},
		{"2001:db8::2", "icmpv6", 128, "filtered"},
	} {
		if got := l.Expect(Question{Addr: netip.MustParseAddr(c.addr), Proto: c.proto, Port: c.port}); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// TestControlsTeach: explain has something to say under every heading.
func TestControlsTeach(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range Controls() {
		seen[c.ID] = true
		for _, v := range []string{c.Title, c.Reason, c.Source, c.Rule, c.What, c.Why, c.Attack, c.Check, c.TradeOff} {
			if v == "" || strings.TrimSpace(v) != v || strings.Contains(v, "  ") {
				t.Errorf("%s: %q", c.ID, v)
			}
		}
		if len(c.Fix) == 0 || len(c.Refs) == 0 || len(c.Positions) == 0 || len(c.Title) > 78 {
			t.Errorf("%s: %+v", c.ID, c)
		}
	}
	for _, d := range Dispositions() {
		if seen[d.ID] || d.Because == "" || d.State == "" {
			t.Errorf("%+v", d)
		}
		seen[d.ID] = true
	}
	for n := 1; n <= 10; n++ {
		if id := fmt.Sprintf("VERIFY-%02d", n); !seen[id] {
			t.Errorf("nothing is said about %s", id)
		}
	}
}

// TestWhatWasSaidAndIsNotSoFails: with --fail-on high, the default, a wish that is not
// fulfilled ends in exit 1; silence that may be a filter does not.
func TestWhatWasSaidAndIsNotSoFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		expected, predicted Word
		seen                probe.Reason
		want                finding.Severity
	}{
		{"filtered", "", probe.Reason{State: probe.Closed}, finding.High},
		{"blocked", "closed", probe.Reason{State: probe.Closed}, finding.High},
		{"open", "", probe.Reason{State: probe.Closed}, finding.High},
		{"open", "", probe.Reason{State: probe.Filtered}, finding.High},
		{"open", "", probe.Reason{State: probe.Errored}, finding.High},
		{"closed", "", probe.Reason{State: probe.Open}, finding.High},
		{"", "filtered", probe.Reason{State: probe.Open}, finding.High},
		{"", "filtered", probe.Reason{State: probe.Closed}, finding.Medium},
		{"", "open", probe.Reason{State: probe.Filtered}, finding.Medium},
		{"filtered", "", probe.Reason{State: probe.Filtered, MayBeOpen: true}, finding.Medium},
		{"open", "", probe.Reason{State: probe.Filtered, MayBeOpen: true}, finding.Medium},
		{"filtered", "", probe.Reason{State: probe.Errored, Blocked: true}, finding.Medium},
		{"filtered", "", probe.Reason{State: probe.Rejected}, finding.Low},
	} {
		r := Result{State: c.seen.State, Blocked: c.seen.Blocked, MayBeOpen: c.seen.MayBeOpen, Expected: c.expected, Predicted: c.predicted}
		r.Verdict = Compare(c.expected, c.predicted, Observed{Reason: c.seen, Proven: true})
		if got := severity(&r); got != c.want {
			t.Errorf("wanted %q, rules %q, seen %+v (%s): %s, want %s", c.expected, c.predicted, c.seen, r.Verdict, got, c.want)
		}
	}
}
