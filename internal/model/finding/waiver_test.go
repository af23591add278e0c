package finding

import (
	"strings"
	"testing"
	"time"
)

func day(s string) time.Time {
	t, err := time.Parse(dateLayout, s)
	if err != nil {
		panic(err)
	}
	return t
}

func web() Finding {
	return Finding{
		Control: "LISTEN-01", Status: Fail, Effective: Fail, Severity: High,
		Subject: Subject{NetNS: "init", Proto: "tcp", Port: 443, Process: "/usr/sbin/nginx", UID: "33", Cgroup: "/system.slice/nginx.service"},
		Evidence: []Evidence{
			{Source: "inet_diag", Key: "local", Value: "[::]:443", At: "2026-01-01T00:00:00Z"},
			{Source: "/proc", Key: "pid", Value: "4711", Volatile: true},
		},
	}
}

func nginx() Waiver {
	return Waiver{
		Control: "LISTEN-01", Subject: WaiverSubject{Process: "/usr/sbin/nginx", Port: 443},
		Reason: "public", Owner: "web", Until: day("2026-06-30"),
		Accepted: []Evidence{{Source: "inet_diag", Key: "local", Value: "[::]:443"}},
	}
}

func TestWaivers(t *testing.T) {
	t.Parallel()
	now := day("2026-03-01")
	for _, c := range []struct {
		name   string
		change func(*Finding, *Waiver)
		now    time.Time
		status Status
		state  string
		unused bool
	}{
		{"active", func(*Finding, *Waiver) {}, now, Waived, WaiverActive, false},
		{"last day", func(*Finding, *Waiver) {}, day("2026-06-30").Add(23 * time.Hour), Waived, WaiverActive, false},
		{"day after", func(*Finding, *Waiver) {}, day("2026-07-01"), Fail, WaiverExpired, false},
		{"new evidence", func(f *Finding, _ *Waiver) {
			f.Evidence = append(f.Evidence, Evidence{Source: "inet_diag", Key: "local", Value: "[::]:8443"})
		}, now, Fail, WaiverReopened, false},
		{"less evidence", func(_ *Finding, w *Waiver) {
			w.Accepted = append(w.Accepted, Evidence{Source: "inet_diag", Key: "local", Value: "[::]:80"})
		}, now, Waived, WaiverActive, false},
		{"new pid", func(f *Finding, _ *Waiver) { f.Evidence[1].Value = "4712" }, now, Waived, WaiverActive, false},
		{"later reading", func(f *Finding, _ *Waiver) { f.Evidence[0].At = "2026-02-02T00:00:00Z" }, now, Waived, WaiverActive, false},
		{"same name, other file", func(f *Finding, _ *Waiver) { f.Subject.Process = "/tmp/nginx" }, now, Fail, "", true},
		{"other port", func(f *Finding, _ *Waiver) { f.Subject.Port = 80 }, now, Fail, "", true},
		{"other uid", func(_ *Finding, w *Waiver) { w.Subject.UID = "0" }, now, Fail, "", true},
		{"same cgroup", func(_ *Finding, w *Waiver) { w.Subject = WaiverSubject{Cgroup: "/system.slice/nginx.service"} }, now, Waived, WaiverActive, false},
		{"other control", func(_ *Finding, w *Waiver) { w.Control = "LISTEN-02" }, now, Fail, "", true},
		{"host selector, other subject", func(_ *Finding, w *Waiver) { w.Subject = WaiverSubject{Host: true} }, now, Fail, "", true},
		{"unknown stays", func(f *Finding, _ *Waiver) { f.Status = Unknown }, now, Unknown, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f, w := web(), nginx()
			c.change(&f, &w)
			r := Report{Findings: []Finding{f}}
			ApplyWaivers(&r, []Waiver{w}, c.now)
			got := r.Findings[0]
			if got.Status != c.status {
				t.Errorf("status %s, want %s", got.Status, c.status)
			}
			state := ""
			if got.Waiver != nil {
				state = got.Waiver.State
			}
			if state != c.state {
				t.Errorf("waiver %q, want %q", state, c.state)
			}
			if (len(r.UnusedWaivers) == 1) != c.unused {
				t.Errorf("unused waivers %v, want %v", r.UnusedWaivers, c.unused)
			}
			if r.Summary.ByStatus[c.status] != 1 {
				t.Errorf("summary not counted anew: %v", r.Summary)
			}
		})
	}
}

func TestReopenedSaysWhatIsNew(t *testing.T) {
	t.Parallel()
	f := web()
	f.Evidence = append(f.Evidence, Evidence{Source: "inet_diag", Key: "local", Value: "[::]:8443"})
	r := Report{Findings: []Finding{f}}
	ApplyWaivers(&r, []Waiver{nginx()}, day("2026-03-01"))
	if d := r.Findings[0].Waiver.Detail; !strings.Contains(d, "[::]:8443") || strings.Contains(d, "4711") {
		t.Errorf("detail %q does not name what is new, or names what is volatile", d)
	}
}

func TestSelectorOfMatches(t *testing.T) {
	t.Parallel()
	for _, s := range []Subject{{}, web().Subject, {NetNS: "lab", Interface: "eth0"}, {File: "/etc/hosts"}} {
		w := SelectorOf(s)
		if !w.Names() || !w.Matches(s) || w.String() == "" {
			t.Errorf("selector %+v of %+v", w, s)
		}
	}
	if (WaiverSubject{Family: "ipv6", Proto: "tcp"}).Names() {
		t.Error("a family and a protocol name no subject")
	}
}
