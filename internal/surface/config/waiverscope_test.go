package config

import (
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/finding"
)

// TestIntentWaiversKeepToTheirSubject: what is written about one interface, port or
// address accepts nothing elsewhere, and nothing after its last day.
func TestIntentWaiversKeepToTheirSubject(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: sixfence/v1\nrole: server\nwaivers:\n"
	read := func(entry string) ([]finding.Waiver, error) {
		l, err := LoadIntent([]IntentFile{{Path: "site.yaml", Text: []byte(head + "  - {control: LISTEN-07, " + entry + "reason: r, owner: o, until: \"2027-01-31\"}\n")}}, nil)
		if err != nil {
			return nil, err
		}
		return l.Waivers(), nil
	}
	day := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	for entry, want := range map[string]string{
		"":                                 "eth0 tcp/443, eth0 tcp/80, eth1 tcp/443, eth1 udp/443",
		"interface: eth0, ":                "eth0 tcp/443, eth0 tcp/80",
		"port: tcp/443, ":                  "eth0 tcp/443, eth1 tcp/443",
		"interface: eth1, port: udp/443, ": "eth1 udp/443",
		"address: \"2001:db8::1\", ":       "eth0 tcp/80",
		"interface: eth9, ":                "",
	} {
		ws, err := read(entry)
		if err != nil {
			t.Fatalf("%s: %v", entry, err)
		}
		for _, now := range []time.Time{day, day.AddDate(0, 0, 1)} {
			r := finding.Report{}
			for _, s := range []finding.Subject{{Interface: "eth0", Proto: "tcp", Port: 443}, {Interface: "eth0", Proto: "tcp", Port: 80, Address: "2001:db8::1"}, {Interface: "eth1", Proto: "tcp", Port: 443}, {Interface: "eth1", Proto: "udp", Port: 443}} {
				r.Findings = append(r.Findings, finding.Finding{Control: "LISTEN-07", Status: finding.Fail, Subject: s}, finding.Finding{Control: "LISTEN-06", Status: finding.Fail, Subject: s})
			}
			finding.ApplyWaivers(&r, ws, now)
			var got []string
			expired := 0
			for _, f := range r.Findings {
				if f.Waiver != nil && f.Waiver.State == finding.WaiverExpired && f.Status == finding.Fail {
					expired++
				}
				if f.Status == finding.Waived || f.Waiver != nil && f.Waiver.State == finding.WaiverExpired {
					got = append(got, f.Subject.Interface+" "+f.Subject.Proto+"/"+map[uint16]string{80: "80", 443: "443"}[f.Subject.Port])
				}
				if f.Status == finding.Waived && (f.Control != "LISTEN-07" || now != day) {
					t.Errorf("%s: %s is waived on %s", entry, f.Control, now)
				}
			}
			have := map[string]bool{}
			for _, g := range got {
				have[g] = true
			}
			wanted := strings.Split(want, ", ")
			if want == "" {
				wanted = nil
			}
			for _, w := range wanted {
				if !have[w] {
					t.Errorf("%s at %s: %s is not covered", entry, now.Format("2006-01-02"), w)
				}
			}
			if len(have) != len(wanted) || now != day && expired != len(wanted) {
				t.Errorf("%s at %s: %v, want %v (%d expired)", entry, now.Format("2006-01-02"), got, wanted, expired)
			}
			if want == "" && len(r.UnusedWaivers) != 1 {
				t.Errorf("%s: that it matches nothing is not said", entry)
			}
		}
	}
	for entry, want := range map[string]string{
		"port: tcp/80-90, ": "more than one port", "port: esp, ": "more than one port", "interface: \"e*\", ": "is a glob", "address: fe80, ": "address",
	} {
		if _, err := read(entry); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "site.yaml:4") {
			t.Errorf("%s: %v, want line 4 and %q", entry, err, want)
		}
	}
}
