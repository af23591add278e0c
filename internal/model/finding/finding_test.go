package finding

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestFingerprintIsStable: baselines and waivers of released versions hold
// these values. It covers the control and the subject, field by field.
func TestFingerprintIsStable(t *testing.T) {
	if got := FingerprintOf("SYSCTL-RA-01", Subject{NetNS: "init", Interface: "eth0"}); got != "37b63d0d50fd6d26cb457ec6c8221b45" {
		t.Errorf("fingerprint changed: %s", got)
	}
	subjects := []Subject{
		{},
		{NetNS: "a"},
		{Interface: "a"},
		{Family: "a"},
		{Proto: "a"},
		{Port: 1},
		{Address: "a"},
		{Process: "a"},
		{File: "a"},
		{Key: "a"},
		{NetNS: "a", Interface: "b"},
		{NetNS: "ab"},
		{Interface: "ab"},
		{NetNS: "1:b;"},
	}
	seen := map[string]int{}
	for i, s := range subjects {
		fp := FingerprintOf("X-01", s)
		if j, twice := seen[fp]; twice {
			t.Errorf("subjects %d and %d have one fingerprint", i, j)
		}
		seen[fp] = i
	}
	if FingerprintOf("X-01", Subject{Interface: "a\xff"}) != FingerprintOf("X-01", Subject{Interface: "a\uFFFD"}) {
		t.Error("a name that is not UTF-8 has another fingerprint after a Snapshot file")
	}
}

// TestSort: worst first, the host's own before strangers', and the same order
// however the findings came.
func TestSort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 40).Draw(t, "n")
		f := make([]Finding, n)
		for i := range f {
			f[i] = Finding{
				Control:  rapid.SampledFrom([]string{"A-01", "B-02", "C-03"}).Draw(t, "control"),
				Status:   rapid.SampledFrom([]Status{Fail, Unknown, Waived, Pass, NotApplicable}).Draw(t, "status"),
				Severity: rapid.SampledFrom(Severities()).Draw(t, "severity"),
				Subject:  Subject{NetNS: rapid.SampledFrom([]string{"init", "lab"}).Draw(t, "netns"), Interface: rapid.SampledFrom([]string{"eth0", "eth1"}).Draw(t, "if")},
				Foreign:  rapid.Bool().Draw(t, "foreign"),
			}
			f[i].Fingerprint = FingerprintOf(f[i].Control, f[i].Subject)
		}
		a, b := slices.Clone(f), slices.Clone(f)
		rand.Shuffle(n, func(i, j int) { b[i], b[j] = b[j], b[i] })
		Sort(a)
		Sort(b)
		for i := range a {
			if a[i].Control != b[i].Control || a[i].Fingerprint != b[i].Fingerprint || a[i].Status != b[i].Status || a[i].Severity != b[i].Severity {
				t.Fatalf("order depends on the input at %d", i)
			}
			if i == 0 {
				continue
			}
			p, q := a[i-1], a[i]
			if p.Foreign && !q.Foreign {
				t.Fatal("a stranger's namespace before the host's")
			}
			if p.Foreign == q.Foreign && p.Status != Fail && q.Status == Fail {
				t.Fatal("something before a failure")
			}
			if p.Foreign == q.Foreign && p.Status == q.Status && p.Severity.Rank() < q.Severity.Rank() {
				t.Fatal("a milder finding before a worse one")
			}
		}
	})
}
