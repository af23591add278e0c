package report

import (
	"fmt"
	"time"

	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// sampleControls stand in for the catalogue, so that these tests do not change
// when a control's wording does.
func sampleControls() []check.Control {
	return []check.Control{
		{
			ID: "SYSCTL-RA-01", Title: "Interface would accept rogue router advertisements", Severity: finding.Critical,
			Reason: "anyone on the link becomes the router", Positions: []finding.Position{finding.FromLink},
			What: "Whether the kernel acts on router advertisements.", Why: "The sender of one packet becomes the default gateway.",
			Attack: "An attacker multicasts one ICMPv6 packet.", Check: "accept_ra is read per interface.",
			Source: "/proc/sys/net/ipv6/conf/IF/{accept_ra,forwarding}", Rule: "accept_ra == 2 if forwarding else accept_ra != 0",
			Fix: []finding.Remediation{
				{Kind: finding.Command, Text: "sysctl -w net.ipv6.conf.IF.accept_ra=0"},
				{Kind: finding.Intent, Text: "interfaces:\n  IF:\n    addressing: static"},
				{Kind: finding.Note, Text: "Set a static default route first."},
			},
			TradeOff: "A host that gets its route by RA loses it.",
			Refs:     []finding.Reference{{Source: "RFC 6104"}, {Source: "CIS Debian 12", ID: "3.3.11"}}, Live: true,
		},
		{ID: "LISTEN-02", Title: "Listener bound to every address <of both> families", Severity: finding.High, Positions: []finding.Position{finding.FromInternet}},
	}
}

func sampleReport() finding.Report {
	ra := func(ifname, netns string, sev finding.Severity, foreign bool) finding.Finding {
		s := finding.Subject{NetNS: netns, Interface: ifname}
		return finding.Finding{
			Control: "SYSCTL-RA-01", Fingerprint: finding.FingerprintOf("SYSCTL-RA-01", s), Status: finding.Fail, Effective: finding.Fail, Compliance: finding.Pass,
			Severity: sev, Title: "Interface would accept rogue router advertisements",
			Message: "The kernel would accept router advertisements here: accept_ra is 1 and forwarding is 0.",
			Subject: s, Positions: []finding.Position{finding.FromLink}, Foreign: foreign,
			Evidence:    []finding.Evidence{{Source: "/proc/sys/net/ipv6/conf/" + ifname + "/accept_ra", Key: "accept_ra", Value: "1", At: "2026-01-02T03:04:05Z"}},
			Remediation: []finding.Remediation{{Kind: finding.Command, Text: "sysctl -w net.ipv6.conf." + ifname + ".accept_ra=0"}, {Kind: finding.Intent, Text: "interfaces:\n  " + ifname + ": {addressing: static}"}},
			References:  []finding.Reference{{Source: "RFC 6104"}},
		}
	}
	db := finding.Finding{
		Control: "LISTEN-02", Status: finding.Fail, Effective: finding.Fail, Compliance: finding.Fail, Severity: finding.High,
		Title: "Listener bound to every address of both families", Message: "postgres is bound to [::]:5432 and accepts IPv4 too.",
		Subject:     finding.Subject{NetNS: "init", Proto: "tcp", Port: 5432, Process: "/usr/lib/postgresql/15/bin/postgres", UID: "105", Cgroup: "/system.slice/postgresql.service"},
		Positions:   []finding.Position{finding.FromInternet, finding.FromLink},
		Evidence:    []finding.Evidence{{Source: "inet_diag", Key: "local", Value: "[::]:5432"}, {Source: "config", Key: "listen_addresses", Value: "*", At: "/etc/postgresql/15/main/postgresql.conf:60"}},
		Remediation: []finding.Remediation{{Kind: finding.Note, Text: "Bind the database to the addresses that need it."}}, References: []finding.Reference{},
	}
	db.Fingerprint = finding.FingerprintOf(db.Control, db.Subject)
	waived := db
	waived.Status, waived.Subject.Port = finding.Waived, 443
	waived.Fingerprint = finding.FingerprintOf(waived.Control, waived.Subject)
	waived.Waiver = &finding.WaiverNote{Reason: "public", Owner: "web", Until: "2026-12-31", State: finding.WaiverActive}
	open := db
	open.Status, open.Effective, open.Compliance, open.Subject.Port, open.Gaps = finding.Unknown, finding.Unknown, finding.Unknown, 80, []string{"gap-1"}
	open.Fingerprint = finding.FingerprintOf(open.Control, open.Subject)
	ok := ra("eth9", "init", finding.Critical, false)
	ok.Status, ok.Effective, ok.Message = finding.Pass, finding.Pass, "accept_ra is 0."
	na := ra("lo", "init", finding.Critical, false)
	na.Status, na.Effective, na.Compliance, na.Message = finding.NotApplicable, finding.NotApplicable, finding.NotApplicable, "A loopback interface has no neighbours."
	r := finding.Report{
		SchemaVersion: finding.SchemaVersion, Tool: "sixfence 1.2.3", At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Host: finding.Host{Name: "web-01", OS: "Debian GNU/Linux 12 (bookworm)", Kernel: "6.1.0-18-amd64", Mode: "live"},
		Role: finding.Role{Name: "server", Inferred: true, Because: []string{"nothing says that this host routes"}, Addressing: map[string]string{"eth0": "static"}},
		Findings: []finding.Finding{
			ra("eth0", "init", finding.Critical, false), ra("eth1", "init", finding.Critical, false), ra("eth0", "lab", finding.Critical, false),
			ra("veth0", "net:[4026532000]", finding.Low, true), db, waived, open, ok, na,
		},
		Gaps: []finding.Gap{
			{ID: "gap-1", Reason: fact.NotCollected, What: "rules that depend on random (inet filter input handle 4)", NetNS: "init", Controls: []string{"LISTEN-02"}},
			{ID: "gap-2", Reason: fact.Permission, What: "owners of sockets", Controls: []string{}},
		},
		UnusedWaivers: []finding.UnusedWaiver{{Control: "LISTEN-02", Subject: "tcp/22 /usr/sbin/sshd", File: "waivers.yaml", Line: 12, Owner: "ops", Until: "2026-12-31", Detail: "the control found no such subject"}},
	}
	r.Summary = finding.Summary{ByStatus: map[finding.Status]int{}, BySeverity: map[finding.Severity]int{}, Namespaces: 3, Interfaces: 12, Listeners: 45, Gaps: 2}
	for _, f := range r.Findings {
		r.Summary.ByStatus[f.Status]++
	}
	finding.Sort(r.Findings)
	return r
}

// exposed is a host whose IPv6 is wider open than its IPv4.
func exposed() finding.Report {
	r := manyCauses()
	rule := func(table, chain string, handle uint64, rule string) []finding.RuleRef {
		return []finding.RuleRef{{Table: table, Chain: chain, Handle: handle, Rule: rule}}
	}
	r.Exposures = []finding.Exposure{
		{
			NetNS: "init", Proto: "tcp", Port: 5432, Process: "/usr/lib/postgresql/15/bin/postgres", PID: 812, Unit: "postgresql.service", Differs: "ipv6",
			IPv4: finding.Access{State: finding.AccessClosed, DecidedBy: rule("ip filter (legacy)", "INPUT", 0, "rule 3: drop"), Witness: "198.51.100.1:49152 → 192.0.2.10:5432"},
			IPv6: finding.Access{State: finding.AccessOpen, Sources: "anywhere", DecidedBy: rule("inet filter", "input", 14, "tcp dport 5432 accept"), Witness: "[2001:db8::1]:49152 → [2001:db8:1::10]:5432"},
		},
		{
			NetNS: "lab", Proto: "udp", Port: 53, Differs: "ipv4",
			IPv4: finding.Access{State: finding.AccessSome, Sources: "10.0.0.0/8", DecidedBy: rule("inet filter", "input", 7, "ip saddr 10.0.0.0/8 accept")},
			IPv6: finding.Access{State: finding.AccessClosed, DecidedBy: rule("inet filter", "input", 0, "policy drop")},
		},
		{NetNS: "init", Proto: "tcp", Port: 8443, Process: "/opt/app", Differs: "ipv6", IPv4: finding.Access{State: finding.AccessClosed}, IPv6: finding.Access{State: finding.AccessOpen, Sources: "anywhere"}},
		{NetNS: "init", Proto: "tcp", Port: 22, Process: "/usr/sbin/sshd", IPv4: finding.Access{State: finding.AccessOpen, Sources: "anywhere"}, IPv6: finding.Access{State: finding.AccessOpen, Sources: "anywhere"}},
	}
	return r
}

// manyCauses is a host on which everything is wrong.
func manyCauses() finding.Report {
	r := sampleReport()
	for i := range 12 {
		f := r.Findings[0]
		f.Control = fmt.Sprintf("NDP-%02d", i)
		f.Subject.Interface = fmt.Sprintf("enp%ds0f0np0", i)
		r.Findings = append(r.Findings, f)
	}
	finding.Sort(r.Findings)
	return r
}

func emptySnapshot() *fact.Snapshot {
	s := &fact.Snapshot{SchemaVersion: fact.SchemaVersion}
	s.Host.Mode = fact.ModeLive
	return s
}
