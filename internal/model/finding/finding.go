// Package finding holds the nouns of an answer: a Finding with its status,
// severity, subject and evidence, and the Report that collects them.
//
// The JSON shape is part of the machine interface and stable from the first
// release.
package finding

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// SchemaVersion of the Report.
const SchemaVersion = "1.0"

// Status is the answer of one control for one subject.
type Status string

// The statuses. Unknown always carries its Gap; not-applicable says why.
const (
	Pass          Status = "pass"
	Fail          Status = "fail"
	Unknown       Status = "unknown"
	NotApplicable Status = "not-applicable"
	Waived        Status = "waived"
)

// Severity of a finding, by what an attacker gets.
type Severity string

// The severities, highest first.
const (
	Critical Severity = "critical"
	High     Severity = "high"
	Medium   Severity = "medium"
	Low      Severity = "low"
	Info     Severity = "info"
)

// Severities lists all severities, highest first.
func Severities() []Severity { return []Severity{Critical, High, Medium, Low, Info} }

// Rank orders severities: 4 critical … 0 info, -1 when it is none of them.
func (s Severity) Rank() int {
	if i := slices.Index(Severities(), s); i >= 0 {
		return 4 - i
	}
	return -1
}

// AtLeast tells whether s is as severe as min or worse.
func (s Severity) AtLeast(min Severity) bool { return s.Rank() >= min.Rank() }

// ParseSeverity reads a severity's word.
func ParseSeverity(s string) (Severity, error) {
	v := Severity(strings.ToLower(s))
	if v.Rank() < 0 {
		return "", fmt.Errorf("unknown severity %q: use critical, high, medium, low or info", s)
	}
	return v, nil
}

// Position is where an attacker must stand to use a finding.
type Position string

// The attacker positions.
const (
	FromInternet Position = "internet"
	FromLink     Position = "same link"
	FromPod      Position = "pod"
	FromLocal    Position = "local user"
)

// Subject is the thing a finding is about. Empty fields do not apply. It holds
// nothing that changes at reboot (no pid, inode, handle, ifindex or ephemeral port).
type Subject struct {
	NetNS     string `json:"netns,omitempty"`
	Interface string `json:"interface,omitempty"`
	Family    string `json:"family,omitempty"` // ipv4 | ipv6
	Proto     string `json:"proto,omitempty"`  // tcp | udp | …
	Port      uint16 `json:"port,omitempty"`
	Address   string `json:"address,omitempty"`
	Process   string `json:"process,omitempty"` // executable inode path
	File      string `json:"file,omitempty"`
	Key       string `json:"key,omitempty"`
	// UID (decimal, so that 0 differs from "none") and Cgroup belong to the owner of
	// Process. They let a waiver name the service it accepts; they are not part of
	// the fingerprint, because session scopes change with every login.
	UID    string `json:"uid,omitempty"`
	Cgroup string `json:"cgroup,omitempty"`
}

// String renders a subject for people: "eth0 (netns lab)", "tcp/5432 /usr/…".
func (s Subject) String() string {
	var p []string
	if s.Proto != "" && s.Port != 0 {
		p = append(p, fmt.Sprintf("%s/%d", s.Proto, s.Port))
	} else if s.Proto != "" {
		p = append(p, s.Proto)
	}
	for _, v := range []string{s.Interface, s.Address, s.Process, s.File, s.Key} {
		if v != "" {
			p = append(p, v)
		}
	}
	if s.NetNS != "" && s.NetNS != "init" {
		p = append(p, "netns "+s.NetNS)
	}
	return strings.Join(p, " ")
}

// Evidence is one observed fact: where it was read, what it said and when.
type Evidence struct {
	Source string `json:"source"`        // "/proc/sys/net/ipv6/conf/eth0/accept_ra", "RTM_GETROUTE", "inet_diag" …
	Key    string `json:"key,omitempty"` // what was looked at
	Value  string `json:"value"`         // what it said
	At     string `json:"at,omitempty"`  // file:line, or RFC 3339 time of a live fact
	// Volatile evidence (pids, ages, counters) is shown, and does not reopen a waiver.
	Volatile bool `json:"volatile,omitempty"`
}

// RemediationKind tells how a remediation is applied.
type RemediationKind string

// The kinds of remediation.
const (
	Command RemediationKind = "command" // for a shell, as root
	Intent  RemediationKind = "intent"  // fragment of sixfence.yaml
	Note    RemediationKind = "note"    // for a person
)

// Remediation is one way to close a finding.
type Remediation struct {
	Kind RemediationKind `json:"kind"`
	Text string          `json:"text"`
}

// Reference points to where a requirement comes from.
type Reference struct {
	Source string `json:"source"` // RFC 4890 §4.4.1, CIS Debian 12, STIG RHEL 9 …
	ID     string `json:"id,omitempty"`
}

// String is the reference as people cite it.
func (r Reference) String() string { return strings.TrimSpace(r.Source + " " + r.ID) }

// Finding is the answer of one control for one subject. Reports list every
// status; people are shown what is not pass.
type Finding struct {
	Control     string        `json:"control"`
	Fingerprint string        `json:"fingerprint"`
	Status      Status        `json:"status"`     // the one that counts
	Effective   Status        `json:"effective"`  // what the kernel does
	Compliance  Status        `json:"compliance"` // what CIS or STIG reads
	Severity    Severity      `json:"severity"`
	Title       string        `json:"title"`
	Message     string        `json:"message"`
	Subject     Subject       `json:"subject"`
	Positions   []Position    `json:"positions,omitempty"`
	Evidence    []Evidence    `json:"evidence"`
	Remediation []Remediation `json:"remediation"`
	References  []Reference   `json:"references"`
	Gaps        []string      `json:"gaps,omitempty"`   // ids of Report.Gaps that left it unknown
	Waiver      *WaiverNote   `json:"waiver,omitempty"` // who waived it, or why the waiver did not hold
	// Foreign marks a subject inside a namespace any local user could have made.
	Foreign bool `json:"foreign,omitempty"`
}

// WaiverNote says what a waiver did to a finding.
type WaiverNote struct {
	Reason string `json:"reason"`
	Owner  string `json:"owner"`
	Until  string `json:"until"`            // date, YYYY-MM-DD
	State  string `json:"state"`            // active | expired | reopened
	Detail string `json:"detail,omitempty"` // why it reopened
	File   string `json:"file,omitempty"`   // where it is written
	Line   int    `json:"line,omitempty"`
}

// Gap is a fact.Gap with its identity in a Report.
type Gap struct {
	ID       string      `json:"id"`
	Reason   fact.Reason `json:"reason"`
	What     string      `json:"what"`
	NetNS    string      `json:"netns,omitempty"`
	Controls []string    `json:"controls"` // the controls it left unknown
	// Shared marks the one Gap of `--root`: its controls do not cause exit 3.
	Shared bool `json:"shared,omitempty"`
}

// Host names the machine a Report is about.
type Host struct {
	Name   string `json:"name,omitempty"`
	OS     string `json:"os,omitempty"`
	Kernel string `json:"kernel,omitempty"`
	Mode   string `json:"mode"` // live | root
}

// Summary counts a Report.
type Summary struct {
	ByStatus   map[Status]int   `json:"byStatus"`
	BySeverity map[Severity]int `json:"bySeverity"` // of the failed ones
	Namespaces int              `json:"namespaces"`
	Interfaces int              `json:"interfaces"`
	Listeners  int              `json:"listeners"`
	Gaps       int              `json:"gaps"`
}

// Report is the answer of a verb.
type Report struct {
	SchemaVersion string    `json:"schemaVersion"`
	Tool          string    `json:"tool"` // sixfence VERSION
	At            time.Time `json:"at"`
	Host          Host      `json:"host"`
	Role          Role      `json:"role"`
	// Exposures are the services that outsiders get to, those that one family is wider
	// open for first.
	Exposures []Exposure `json:"exposures"`
	Findings  []Finding  `json:"findings"`
	Gaps      []Gap      `json:"gaps"`
	Summary   Summary    `json:"summary"`
	// UnusedWaivers matched no failed finding: the cause is gone, or the waiver
	// names the wrong subject.
	UnusedWaivers []UnusedWaiver `json:"unusedWaivers,omitempty"`
}

// Role is what the host is for, and how that is known.
type Role struct {
	Name     string   `json:"name"`     // server | router | kubernetes-node | hypervisor | workstation
	Inferred bool     `json:"inferred"` // false: the operator said so
	Because  []string `json:"because,omitempty"`
	// Addressing per interface of the initial namespace: static | slaac | dhcpv6 | none.
	Addressing map[string]string `json:"addressing,omitempty"`
}

// FingerprintOf is stable across reboots: it covers the control and the subject only.
func FingerprintOf(control string, s Subject) string {
	b := make([]byte, 0, 256)
	for _, v := range [...]string{control, s.NetNS, s.Interface, s.Family, s.Proto, strconv.Itoa(int(s.Port)), s.Address, s.Process, s.File, s.Key} {
		if !utf8.ValidString(v) {
			// A name with invalid UTF-8 must not change its fingerprint on the way
			// through a Snapshot file: JSON turns each bad byte into U+FFFD.
			v = string([]rune(v))
		}
		b = append(strconv.AppendInt(b, int64(len(v)), 10), ':')
		b = append(append(b, v...), ';')
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:16])
}

// Sort puts findings in the order people read them: the host's own before
// strangers' namespaces, failed before unknown before the rest, worst first,
// then by control and subject.
func Sort(f []Finding) {
	rank := map[Status]int{Fail: 0, Unknown: 1, Waived: 2, Pass: 3, NotApplicable: 4}
	// A host with many interfaces has thousands of findings: make each key once,
	// and compare the costly ones last.
	type keyed struct {
		at, foreign, status, sev int
		subject                  string
	}
	ks := make([]keyed, len(f))
	for i := range f {
		ks[i] = keyed{at: i, status: rank[f[i].Status], sev: f[i].Severity.Rank(), subject: f[i].Subject.String()}
		if f[i].Foreign {
			ks[i].foreign = 1
		}
	}
	slices.SortFunc(ks, func(x, y keyed) int {
		if c := cmp.Or(x.foreign-y.foreign, x.status-y.status, y.sev-x.sev); c != 0 {
			return c
		}
		a, b := &f[x.at], &f[y.at]
		if c := strings.Compare(a.Control, b.Control); c != 0 {
			return c
		}
		return cmp.Or(
			strings.Compare(a.Subject.NetNS, b.Subject.NetNS),
			strings.Compare(x.subject, y.subject),
			strings.Compare(a.Fingerprint, b.Fingerprint),
			x.at-y.at,
		)
	})
	out := make([]Finding, len(f))
	for i := range ks {
		out[i] = f[ks[i].at]
	}
	copy(f, out)
}
