package cli

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/logic/expect"
	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/surface/report"
)

// looked is an address of web1 with its states by list.
func looked(addr string, states map[probe.State]string) *probe.Address {
	a := &probe.Address{Target: "web1", Addr: netip.MustParseAddr(addr), Life: probe.Answered, Complete: true, Vantage: probe.Vantage{OnLink: true, Interface: "eth0"}}
	t := &probe.Table{Proto: "tcp"}
	for s, list := range states {
		var ps probe.Ports
		if err := ps.AddList(list); err != nil {
			panic(err)
		}
		for p := range ps.All {
			t.Want.Add(p)
			t.Set(p, probe.Reason{State: s})
		}
	}
	e := &probe.Table{Proto: "icmpv6"}
	n := uint16(128)
	if a.Addr.Is4() {
		e.Proto, n = "icmp", 8
	}
	e.Want.Add(n)
	e.Set(n, probe.Reason{State: probe.Open})
	a.Tables = []*probe.Table{t, e}
	return a
}

func verifyShown(t *testing.T, j *expect.Judge, o verifyOptions, failOn finding.Severity) string {
	t.Helper()
	fs, gaps := j.Findings()
	var b bytes.Buffer
	a := &app{stdout: &b}
	if err := a.verifyText(&b, j, finding.Report{Findings: fs, Gaps: gaps}, o, failOn, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestVerifyTextFits: what ten addresses have in common is one column, an echo is one line,
// and nothing is wider than 80 cells in a pipe.
func TestVerifyTextFits(t *testing.T) {
	t.Parallel()
	j := &expect.Judge{}
	alike := map[probe.State]string{probe.Open: "22", probe.Filtered: "1-21,23-1024"}
	j.Addresses = append(j.Addresses, looked("192.0.2.2", alike))
	for i := range 9 {
		j.Addresses = append(j.Addresses, looked(fmt.Sprintf("2001:db8:1234:5678:9abc:def0:1234:567%d", i), alike))
	}
	j.Addresses = append(j.Addresses, looked("2001:db8::f", map[probe.State]string{probe.Open: "22,873", probe.Filtered: "1-21,23-872,874-1024"}))
	for _, n := range []int{11, 64} {
		for len(j.Addresses) < n {
			i := len(j.Addresses)
			j.Addresses = append(j.Addresses, looked(fmt.Sprintf("2001:db8:1234:5678:9abc:def0:ffff:%d", i), map[probe.State]string{
				probe.Open: fmt.Sprintf("22,%d", 100+i), probe.Filtered: fmt.Sprintf("1-21,23-%d,%d-1024", 99+i, 101+i),
			}))
		}
		out := verifyShown(t, j, verifyOptions{}, finding.High)
		for l := range strings.Lines(out) {
			if report.Width(strings.TrimSuffix(l, "\n")) > 80 {
				t.Errorf("%d addresses: wider than 80: %q", n, l)
			}
		}
		for _, want := range []string{"IPv4         IPv6         IPv6 #2", "! tcp/873", "  echo                              open         open"} {
			if !strings.Contains(out, want) {
				t.Errorf("%d addresses: no %q:\n%s", n, want, out)
			}
		}
		if strings.Contains(out, "icmp/") {
			t.Errorf("an echo is shown by its types:\n%s", out)
		}
	}
}

// TestVerifyTextFoldsWhatIsAlike: many hosts that look the same are one table, and the finding
// about one host of many addresses does not name them all.
func TestVerifyTextFoldsWhatIsAlike(t *testing.T) {
	t.Parallel()
	shown := func(together bool) string {
		j := &expect.Judge{Together: together}
		for i := range 64 {
			addr, states := fmt.Sprintf("192.0.2.%d", i+1), map[probe.State]string{probe.Open: "22", probe.Filtered: "5432"}
			if i%2 == 1 {
				addr, states = fmt.Sprintf("2001:db8::%x", i+1), map[probe.State]string{probe.Open: "22,5432"}
			}
			a := looked(addr, states)
			a.Target = addr
			j.Addresses = append(j.Addresses, a)
		}
		out := verifyShown(t, j, verifyOptions{}, finding.High)
		for l := range strings.Lines(out) {
			if report.Width(strings.TrimSuffix(l, "\n")) > 80 {
				t.Errorf("wider than 80: %q", l)
			}
		}
		for _, a := range j.Addresses {
			if !strings.Contains(out, a.Addr.String()) {
				t.Errorf("%s is not shown", a.Addr)
			}
		}
		return out
	}
	if out := shown(false); strings.Count(out, "32 hosts, all alike") != 2 || strings.Count(out, "  PORT") != 2 {
		t.Errorf("hosts that are alike are not one table:\n%s", out)
	}
	if out := shown(true); !strings.Contains(strings.Join(strings.Fields(out), " "), "and 61 more is open over IPv6 (2001:db8::2, 2001:db8::4, 2001:db8::6 and 29 more), filtered over IPv4") {
		t.Errorf("the finding names every address, or not what is open first:\n%s", out)
	}
}

// TestVerifyVerdictIsTheExitStatus: the last line says what the status says.
func TestVerifyVerdictIsTheExitStatus(t *testing.T) {
	t.Parallel()
	all := func(w expect.Word) expect.Source { return expect.List{{IPv4: w, IPv6: w}} }
	open := looked("192.0.2.2", map[probe.State]string{probe.Open: "80"})
	dark := looked("192.0.2.2", map[probe.State]string{probe.Filtered: "80"})
	dark.Tables, dark.Life = dark.Tables[:1], probe.NoLife
	for _, c := range []struct {
		at     *probe.Address
		want   expect.Source
		failOn finding.Severity
		allow  []string
		line   string
		code   int
	}{
		{open, nil, finding.High, nil, "Nothing to compare with", exitClean},
		{open, all("open"), finding.High, nil, "PASS  1 answer is as expected", exitClean},
		{open, expect.List{{Proto: "udp", IPv4: "open"}}, finding.High, nil, "UNDECIDED  1 question", exitUnknown},
		{open, all("filtered"), finding.High, nil, "FAIL  1 finding.", exitFindings},
		{open, all("filtered"), "", nil, "FINDINGS  1 finding; nothing counts", exitClean},
		{open, all("filtered"), finding.Critical, nil, "FINDINGS  1 finding; nothing that counts as a failure (--fail-on critical)", exitClean},
		{dark, all("filtered"), finding.High, nil, "UNDECIDED  2 questions", exitUnknown},
		{dark, all("filtered"), finding.High, []string{"not-collected"}, "FINDINGS  2 questions", exitClean},
	} {
		j := &expect.Judge{Addresses: []*probe.Address{c.at}, Expected: c.want}
		fs, gaps := j.Findings()
		if code := exitCode(finding.Report{Findings: fs, Gaps: gaps}, c.failOn, c.allow); code != c.code {
			t.Errorf("%s: exit %d, want %d", c.line, code, c.code)
		}
		for _, quiet := range []bool{false, true} {
			out := verifyShown(t, j, verifyOptions{quiet: quiet, allowGaps: c.allow}, c.failOn)
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if !strings.Contains(strings.Join(lines[max(0, len(lines)-2):], " "), c.line) || quiet && len(lines) > 2 {
				t.Errorf("want %q at the end:\n%s", c.line, out)
			}
		}
	}
}

// TestSpeedIsThatOfWhatIsSent: a round that is not needed after all is no speed, and a target
// that rations its answers is waited for at its own pace.
func TestSpeedIsThatOfWhatIsSent(t *testing.T) {
	t.Parallel()
	begin := time.Unix(1_000_000, 0)
	tell := func(s *speed, ms, sent, left int) (time.Duration, bool) {
		return s.more(begin.Add(time.Duration(ms)*time.Millisecond), sent, left)
	}
	var s speed
	for ms := 0; ms < 40_000; ms += 100 { // two thousand a second; from 20 s on 20,000 need not be sent
		left := 100_000 - ms*2
		if ms >= 20_000 {
			left -= 20_000
		}
		more, known := tell(&s, ms, ms*2, left)
		if truth := time.Duration(left/2) * time.Millisecond; known != (ms > 1000) || known && (more < truth-2*time.Second || more > truth+2*time.Second) {
			t.Fatalf("after %d ms: %s, %v; it takes %s", ms, more, known, truth)
		}
	}
	s = speed{}
	for ms := 0; ms <= 60_000; ms += 1000 { // ten packets a second, and an answer
		if more, known := tell(&s, ms, ms/100, 600-ms/1000); known && (more < 500*time.Second || more > 700*time.Second) {
			t.Fatalf("after %d ms: %s", ms, more)
		}
	}
}
