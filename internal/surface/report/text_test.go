package report

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"pgregory.net/rapid"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

var update = flag.Bool("update", false, "rewrite the goldens")

func text(t *testing.T, r finding.Report, o TextOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := Text(&b, r, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTextGolden(t *testing.T) {
	t.Parallel()
	clean := sampleReport()
	clean.Findings = clean.Findings[len(clean.Findings)-2:] // pass and not applicable
	clean.Gaps, clean.UnusedWaivers = nil, nil
	below := sampleReport()
	for i := range below.Findings {
		below.Findings[i].Severity = finding.Low
	}
	open := clean
	for _, f := range sampleReport().Findings {
		if f.Status == finding.Unknown {
			open.Findings = append([]finding.Finding{f}, open.Findings...)
		}
	}
	open.Gaps = sampleReport().Gaps
	root := clean
	root.Host.Mode, root.Host.Kernel = "root", ""
	high := TextOptions{FailOn: finding.High}
	with := func(f func(*TextOptions)) TextOptions { o := high; f(&o); return o }
	a := &txtar.Archive{Comment: []byte("The terminal report. Rewritten by: go test ./internal/surface/report -update\n")}
	for _, c := range []struct {
		name string
		r    finding.Report
		o    TextOptions
	}{
		{"default", sampleReport(), high},
		{"verbose", sampleReport(), with(func(o *TextOptions) { o.Verbose = true })},
		{"quiet", sampleReport(), with(func(o *TextOptions) { o.Quiet = true })},
		{"many causes, first screen", manyCauses(), with(func(o *TextOptions) { o.Short = true })},
		{"exposures", exposed(), with(func(o *TextOptions) { o.Short = true })},
		{"clean", clean, high},
		{"below fail-on", below, with(func(o *TextOptions) { o.Short = true })},
		{"nothing fails", sampleReport(), TextOptions{Quiet: true}},
		{"undecided, as root", open, with(func(o *TextOptions) { o.Root = true })},
		{"directory tree", root, with(func(o *TextOptions) { o.Short = true })},
		{"narrow", sampleReport(), with(func(o *TextOptions) { o.Width, o.Short = 50, true })},
		{"explain", finding.Report{}, TextOptions{}},
	} {
		out := Explain(sampleControls()[0], TextOptions{})
		if c.name != "explain" {
			out = text(t, c.r, c.o)
		}
		a.Files = append(a.Files, txtar.File{Name: c.name, Data: []byte(out)})
	}
	golden(t, "text.txtar", txtar.Format(a))
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update rewrites it):\n%s", name, firstDifference(string(want), string(got)))
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return "want: " + w[i] + "\ngot:  " + g[i]
		}
	}
	return "one is longer"
}

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

func TestColourOnlyPaints(t *testing.T) {
	t.Parallel()
	plain := text(t, manyCauses(), TextOptions{Verbose: true, FailOn: finding.High})
	painted := text(t, manyCauses(), TextOptions{Verbose: true, FailOn: finding.High, Color: true})
	if strings.Contains(plain, "\x1b") {
		t.Error("colour without being asked")
	}
	if !strings.Contains(painted, "\x1b[1;31m") {
		t.Error("no colour when asked")
	}
	if sgr.ReplaceAllString(painted, "") != plain {
		t.Error("colour changes the text")
	}
}

// anyReport draws Reports that no host would produce and a stranger's Snapshot might.
func anyReport(t *rapid.T) finding.Report {
	word := rapid.OneOf(
		rapid.SampledFrom([]string{"", "eth0", "init", "日本語のインターフェース", "a\u202eb", strings.Repeat("long ", 60), strings.Repeat("x", 300), "\x1b[2J", "e\u0301\u0301\u0301\u0301", "\n\n\n"}),
		rapid.StringN(0, 40, 120),
	)
	some := func(label string) string { return word.Draw(t, label) }
	control := rapid.SampledFrom([]string{"SYSCTL-RA-01", "LISTEN-02", "NDP-06", "TUN-01", "RA-04", "ROUTER-1", "STACK-9", "INV-08", "A-CONTROL-WITH-A-VERY-LONG-NAME-INDEED"})
	status := rapid.SampledFrom([]finding.Status{finding.Fail, finding.Fail, finding.Unknown, finding.Pass, finding.NotApplicable, finding.Waived})
	reasons := rapid.SampledFrom([]fact.Reason{fact.Permission, fact.Truncated, fact.NotCollected, fact.ParseGap, fact.UnsupportedGap})
	r := finding.Report{SchemaVersion: finding.SchemaVersion, Host: finding.Host{Name: some("host"), OS: some("os"), Kernel: some("kernel"), Mode: rapid.SampledFrom([]string{"live", "root"}).Draw(t, "mode")}}
	r.Role = finding.Role{Name: "server", Inferred: rapid.Bool().Draw(t, "inferred"), Because: []string{some("because")}}
	for range rapid.IntRange(0, 40).Draw(t, "findings") {
		f := finding.Finding{
			Control: control.Draw(t, "control"), Status: status.Draw(t, "status"), Effective: finding.Fail, Compliance: finding.Pass,
			Severity: rapid.SampledFrom(finding.Severities()).Draw(t, "severity"), Title: some("title"), Message: some("message"),
			Subject:   finding.Subject{NetNS: some("netns"), Interface: some("if"), Process: some("process"), Port: rapid.Uint16().Draw(t, "port"), Proto: "tcp"},
			Positions: rapid.SliceOfN(rapid.SampledFrom([]finding.Position{finding.FromInternet, finding.FromLink, finding.FromPod, finding.FromLocal}), 0, 4).Draw(t, "positions"),
			Foreign:   rapid.Bool().Draw(t, "foreign"), Gaps: []string{"g1"}, Fingerprint: "0123456789abcdef0123456789abcdef",
			Evidence:    []finding.Evidence{{Source: some("source"), Value: some("value")}},
			Remediation: []finding.Remediation{{Kind: finding.Command, Text: some("command")}},
		}
		if f.Status == finding.Waived || rapid.IntRange(0, 9).Draw(t, "reopened") == 0 {
			f.Waiver = &finding.WaiverNote{Reason: some("reason"), Owner: some("owner"), State: rapid.SampledFrom([]string{finding.WaiverActive, finding.WaiverExpired, finding.WaiverReopened}).Draw(t, "state"), Detail: some("detail")}
		}
		r.Findings = append(r.Findings, f)
	}
	for i := range rapid.IntRange(0, 15).Draw(t, "gaps") {
		r.Gaps = append(r.Gaps, finding.Gap{ID: "g" + string(rune('0'+i%10)), Reason: reasons.Draw(t, "reason"), What: some("what"), NetNS: some("gapns"), Controls: []string{"LISTEN-02", "NDP-06"}})
	}
	if rapid.Bool().Draw(t, "unused") {
		r.UnusedWaivers = []finding.UnusedWaiver{{Control: "LISTEN-02", Subject: some("unused"), File: some("file"), Detail: "x"}}
	}
	return r
}

// TestFirstScreenFits: whatever a host does, the first screen is at most 24 lines of
// 80 columns and names at most five actions.
func TestFirstScreenFits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := anyReport(t)
		if n := rapid.IntRange(0, 6).Draw(t, "exposures"); n > 0 {
			for i := range n {
				r.Exposures = append(r.Exposures, exposed().Exposures[i%4])
			}
		}
		width := rapid.SampledFrom([]int{0, 80, 40, 132}).Draw(t, "width")
		o := TextOptions{Width: width, FailOn: rapid.SampledFrom([]finding.Severity{finding.High, finding.Low, ""}).Draw(t, "failOn")}
		if width == 0 {
			width = 80
		}
		var b, all bytes.Buffer
		o.Short = true
		if err := Text(&b, r, o); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if len(lines) > 24 {
			t.Fatalf("%d lines:\n%s", len(lines), b.String())
		}
		actions := 0
		for _, l := range lines {
			if Width(l) > width {
				t.Fatalf("%d cells: %q", Width(l), l)
			}
			if len(l) > 2 && l[1] == '.' && l[0] >= '1' && l[0] <= '9' {
				actions++
			}
			if Clean(l) != l {
				t.Fatalf("not neutralised: %q", l)
			}
		}
		if actions > MaxActions {
			t.Fatalf("%d actions:\n%s", actions, b.String())
		}
		o.Short, o.Verbose = false, rapid.Bool().Draw(t, "verbose")
		if err := Text(&all, r, o); err != nil {
			t.Fatal(err)
		}
		if !o.Verbose && !strings.HasPrefix(all.String(), b.String()) {
			t.Fatal("the whole report does not begin with the first screen")
		}
		for i, l := range strings.Split(strings.TrimSuffix(all.String(), "\n"), "\n") {
			// Commands are the exception: a broken one cannot be pasted.
			command := strings.Contains(l, "fix:") || strings.HasPrefix(l, strings.Repeat(" ", 9))
			if Width(l) > width && !command {
				t.Fatalf("line %d has %d cells: %q", i, Width(l), l)
			}
			if Clean(l) != l && Width(l) < maxText {
				t.Fatalf("not neutralised: %q", l)
			}
		}
	})
}

func TestWorstCauseComesFirst(t *testing.T) {
	t.Parallel()
	out := text(t, manyCauses(), TextOptions{Short: true, FailOn: finding.High})
	if !strings.Contains(out, "1. CRITICAL") || strings.Contains(out, "HIGH") {
		t.Errorf("a high cause displaced a critical one:\n%s", out)
	}
	one := text(t, sampleReport(), TextOptions{Short: true, FailOn: finding.High})
	if strings.Count(one, "rogue router") != 1 || !strings.Contains(one, "×3") {
		t.Errorf("the same cause on three interfaces must be one line with a count:\n%s", one)
	}
	if strings.Contains(one, "veth0") {
		t.Errorf("a stranger's namespace displaced the host's own findings:\n%s", one)
	}
}
