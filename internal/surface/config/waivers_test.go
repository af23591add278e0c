package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/finding"
)

const good = `# accepted by the web team
apiVersion: sixfence/v1
waivers:
  - control: LISTEN-07
    subject:
      process: /usr/sbin/nginx
      uid: 0
      port: 443
    reason: "public: web server"
    owner: web@example.org
    until: 2027-01-31
    accepted:
      - {source: inet_diag, key: local, value: "[::]:443"}
  # the second one
  - control: SYSCTL-RA-01
    subject: {interface: eth0, netns: init}
    reason: SLAAC uplink
    owner: net
    until: "2026-12-31"
    accepted: []
`

func TestWaivers(t *testing.T) {
	t.Parallel()
	ws, err := Waivers("w.yaml", []byte(good), nil)
	if err != nil {
		t.Fatal(err)
	}
	date := func(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }
	want := []finding.Waiver{
		{
			Control: "LISTEN-07", Subject: finding.WaiverSubject{Process: "/usr/sbin/nginx", UID: "0", Port: 443},
			Reason: "public: web server", Owner: "web@example.org", Until: date(2027, 1, 31), File: "w.yaml", Line: 4,
			Accepted: []finding.Evidence{{Source: "inet_diag", Key: "local", Value: "[::]:443"}},
		},
		{
			Control: "SYSCTL-RA-01", Subject: finding.WaiverSubject{Interface: "eth0", NetNS: "init"},
			Reason: "SLAAC uplink", Owner: "net", Until: date(2026, 12, 31), File: "w.yaml", Line: 15,
		},
	}
	if !reflect.DeepEqual(ws, want) {
		t.Errorf("got  %+v\nwant %+v", ws, want)
	}
}

func TestWaiverErrors(t *testing.T) {
	t.Parallel()
	edit := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in the good file", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for _, c := range []struct {
		name, text string
		line       int
		why, hint  string
	}{
		{"comm", edit("process: /usr/sbin/nginx", "comm: nginx"), 6, `unknown key "comm"`, "process:"},
		{"fingerprint", edit("    reason: SLAAC", "    fingerprint: abc\n    reason: SLAAC"), 17, `unknown key "fingerprint"`, "subject:"},
		{"unknown key at the top", edit("waivers:", "waiver:"), 3, `unknown key "waiver"`, "waivers"},
		{"twice", edit("owner: net", "owner: net\n    owner: web"), 19, "already defined", "schema waivers"},
		{"port of the wrong type", edit("port: 443", "port: https"), 8, "uint16", "schema waivers"},
		{"port too large", edit("port: 443", "port: 70000"), 8, "70000", "schema waivers"},
		{"no subject", edit("subject: {interface: eth0, netns: init}", "subject: {}"), 15, "names no subject", "interface"},
		{"family alone", edit("{interface: eth0, netns: init}", "{family: ipv6, proto: tcp}"), 15, "names no subject", "not enough"},
		{"bad family", edit("netns: init}", "family: inet6}"), 15, `family "inet6"`, "ipv6"},
		{"relative process", edit("/usr/sbin/nginx", "nginx"), 4, "is not a path", "/usr/sbin/nginx"},
		{"no reason", edit("    reason: SLAAC uplink\n", ""), 15, "reason is missing", "reason:"},
		{"empty reason", edit("SLAAC uplink", `" "`), 15, "reason is missing", "reason:"},
		{"no owner", edit("    owner: net\n", ""), 15, "owner is missing", "owner:"},
		{"no date", edit("    until: \"2026-12-31\"\n", ""), 15, "until is missing", "until:"},
		{"bad date", edit("2026-12-31", "31.12.2026"), 15, "is not a date", "YYYY-MM-DD"},
		{"no such day", edit("2026-12-31", "2026-02-30"), 15, "is not a date", "YYYY-MM-DD"},
		{"no accepted evidence", edit("    accepted: []\n", ""), 15, "accepted is missing", "--waiver-for"},
		{"host and more", edit("netns: init}", "host: true}"), 15, "goes with no other key", "drop"},
		{"no control", edit("control: SYSCTL-RA-01", "control: \"\""), 15, "control is missing", "control:"},
		{"unknown control", edit("SYSCTL-RA-01", "SYSCTL-RA-99"), 15, "there is no control", "explain"},
		{"version", edit("sixfence/v1", "sixfence/v9"), 2, "apiVersion", "sixfence/v1"},
		{"not YAML", "waivers: [", 1, "", "schema waivers"},
		{"a list", "- a\n", 0, "", "schema waivers"},
		{"empty", "", 0, "apiVersion", "sixfence/v1"},
		{"alias", edit("subject: {interface: eth0, netns: init}", "subject: *x"), 16, "anchors", "in full"},
		{"anchor", edit("owner: net", "owner: &x net"), 18, "anchors", "in full"},
		{"large", strings.Repeat("#", MaxWaivers+1), 0, "larger", "split"},
	} {
		known := func(id string) bool { return id != "SYSCTL-RA-99" }
		_, err := Waivers("w.yaml", []byte(c.text), known)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v, want an Error", c.name, err)
			continue
		}
		if e.Line != c.line && c.line != 0 || !strings.Contains(e.Why, c.why) || !strings.Contains(e.Hint, c.hint) || e.File != "w.yaml" {
			t.Errorf("%s: line %d (want %d): %v\nhint: %s (want %q in why, %q in hint)", c.name, e.Line, c.line, err, e.Hint, c.why, c.hint)
		}
	}
}

func TestWaiverForIsReadyButForThePerson(t *testing.T) {
	t.Parallel()
	for _, f := range []finding.Finding{
		{
			Control: "LISTEN-07", Status: finding.Fail, Subject: finding.Subject{NetNS: "init", Proto: "tcp", Port: 443, Process: "/usr/sbin/ng inx", UID: "0", Cgroup: "/a.slice"},
			Evidence: []finding.Evidence{{Source: "x: y", Key: "#k", Value: "*[::]:443\n- evil: true"}, {Source: "pid", Value: "1", Volatile: true}},
		},
		{Control: "INV-02", Status: finding.Fail},
	} {
		block, err := WaiverFor(f, time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC))
		if err != nil {
			t.Fatal(err)
		}
		var e *Error
		if _, err := Waivers("w.yaml", []byte(block), nil); !errors.As(err, &e) || !strings.Contains(e.Why, "reason is missing") {
			t.Errorf("an unfilled block: %v\n%s", err, block)
		}
		block = strings.Replace(block, `reason: ""`, "reason: r", 1)
		block = strings.Replace(block, `owner: ""`, "owner: o", 1)
		ws, err := Waivers("w.yaml", []byte(block), nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, block)
		}
		r := finding.Report{Findings: []finding.Finding{f}}
		finding.ApplyWaivers(&r, ws, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
		if r.Findings[0].Status != finding.Waived {
			t.Errorf("the block does not cover its own finding: %+v\n%s", r.Findings[0].Waiver, block)
		}
	}
}

func FuzzWaivers(f *testing.F) {
	f.Add(good)
	f.Add("apiVersion: sixfence/v1\nwaivers:\n- {control: X, subject: {uid: 0}}\n")
	f.Add("a: &a [*a, *a]\n")
	f.Fuzz(func(t *testing.T, s string) {
		ws, err := Waivers("w", []byte(s), nil)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Hint == "" {
				t.Fatalf("an error without a hint: %v", err)
			}
			return
		}
		for _, w := range ws {
			if !w.Subject.Names() || w.Reason == "" || w.Owner == "" || w.Until.IsZero() {
				t.Fatalf("an incomplete waiver got through: %+v", w)
			}
		}
	})
}
