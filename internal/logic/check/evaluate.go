package check

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// Options of an evaluation.
type Options struct {
	Role string // empty: inferred
	Tool string // "sixfence VERSION"
}

// RootGap is the one Gap that all controls which need a running kernel share
// when a directory tree is audited.
const RootGap = "a directory tree has no running kernel"

// Evaluate asks every control of the catalogue about a Snapshot. The result
// depends on nothing else.
func Evaluate(s *fact.Snapshot, o Options) finding.Report {
	c := NewContext(s, o.Role)
	e := evaluation{report: finding.Report{
		SchemaVersion: finding.SchemaVersion, Tool: o.Tool, At: s.Host.CollectedAt,
		Host: finding.Host{
			Name: s.Host.Hostname.Or(""), Mode: string(s.Host.Mode),
			OS: s.Host.OS.Or(fact.OSRelease{}).Name, Kernel: s.Host.Kernel.Or(fact.Kernel{}).Release,
		},
		Role: c.Role, Findings: []finding.Finding{}, Gaps: []finding.Gap{},
	}, gaps: map[string]int{}}
	for _, g := range s.Gaps {
		e.gap(g, "", "", false)
	}
	if major, minor := version(s.SchemaVersion); major == "1" && minor != "0" {
		e.gap(fact.Gap{Reason: fact.ParseGap, What: "snapshot schema " + s.SchemaVersion + " is newer than this build (" + fact.SchemaVersion + ")"}, "", "", false)
	}
	catalogue := Catalogue()
	answered, total := make([][]Result, len(catalogue)), 0
	for i := range catalogue {
		answered[i] = ask(c, catalogue[i])
		total += len(answered[i])
	}
	e.report.Findings = make([]finding.Finding, 0, total)
	for i := range catalogue {
		for _, r := range answered[i] {
			e.add(&catalogue[i], r, s.Host.Mode == fact.ModeRoot && catalogue[i].Live)
		}
	}
	finding.Sort(e.report.Findings)
	slices.SortFunc(e.report.Gaps, func(a, b finding.Gap) int { return strings.Compare(a.ID, b.ID) })
	e.report.Exposures = listed(c)
	e.report.Summary = summarise(c, e.report)
	return e.report
}

func version(v string) (major, minor string) {
	major, minor, _ = strings.Cut(v, ".")
	return major, minor
}

// ask never lets one control take the others down: a bug in it is an unknown.
func ask(c *Context, ctl Control) (rs []Result) {
	defer func() {
		if p := recover(); p != nil {
			rs = []Result{unknown(finding.Subject{}, fact.Gap{Reason: fact.ParseGap, What: fmt.Sprintf("control %s failed: %v (please report this)", ctl.ID, p)})}
		}
	}()
	if c.Snap.Host.Mode == fact.ModeRoot && ctl.Live {
		return []Result{unknown(finding.Subject{}, fact.Gap{Reason: fact.NotCollected, What: RootGap})}
	}
	if ctl.Live && len(c.spaces) == 0 {
		return []Result{unknown(finding.Subject{}, fact.Gap{Reason: fact.NotCollected, What: "network namespaces of this host"})}
	}
	rs = ctl.Eval(c)
	if len(rs) == 0 {
		rs = []Result{notApplicable(finding.Subject{}, "Nothing on this host is subject to this control.")}
	}
	return rs
}

// listed never lets the list of exposures take a report down.
func listed(c *Context) (out []finding.Exposure) {
	defer func() {
		if recover() != nil { // LISTEN-06 asked the same and says what failed
			out = []finding.Exposure{}
		}
	}()
	if c.Snap.Host.Mode == fact.ModeRoot {
		return []finding.Exposure{}
	}
	return exposures(c)
}

type evaluation struct {
	report finding.Report
	gaps   map[string]int // id → index in report.Gaps
}

func (e *evaluation) add(ctl *Control, r Result, shared bool) {
	f := finding.Finding{
		Control: ctl.ID, Fingerprint: finding.FingerprintOf(ctl.ID, r.Subject),
		Status: r.Status, Effective: r.Effective, Compliance: r.Compliance,
		Severity: r.Severity, Title: r.Title, Message: r.Message, Subject: r.Subject,
		Positions: ctl.Positions, Evidence: r.Evidence, Remediation: r.Remediation,
		References: ctl.Refs, Foreign: r.Foreign,
	}
	if f.Compliance == "" {
		f.Compliance = f.Effective
	}
	if f.Status == "" {
		f.Status = f.Effective
	}
	if f.Severity == "" {
		f.Severity = ctl.Severity
	}
	if r.Foreign && f.Severity.AtLeast(finding.Medium) {
		// Any user can make such a namespace and break everything in it.
		f.Severity = finding.Low
	}
	if f.Title == "" {
		f.Title = ctl.Title
	}
	if len(f.Remediation) == 0 {
		f.Remediation = ctl.Fix
	}
	if r.Positions != nil {
		f.Positions = r.Positions
	}
	if f.Evidence == nil {
		f.Evidence = []finding.Evidence{}
	}
	if f.Remediation == nil {
		f.Remediation = []finding.Remediation{}
	}
	if f.References == nil {
		f.References = []finding.Reference{}
	}
	if f.Status == finding.Unknown && len(r.Gaps) == 0 {
		r.Gaps = []fact.Gap{{Reason: fact.NotCollected, What: "the facts of " + ctl.ID}}
	}
	for _, g := range r.Gaps {
		f.Gaps = append(f.Gaps, e.gap(g, r.Subject.NetNS, ctl.ID, shared))
	}
	e.report.Findings = append(e.report.Findings, f)
}

// gap registers a Gap once per namespace and returns its id.
func (e *evaluation) gap(g fact.Gap, netns, control string, shared bool) string {
	// What may hold text from a hostile file: a hash that can be collided
	// would let one Gap hide another.
	h := sha256.Sum256(fmt.Appendf(nil, "%s|%d:%s|%s", g.Reason, len(g.What), g.What, netns))
	id := "gap-" + hex.EncodeToString(h[:6])
	i, ok := e.gaps[id]
	if !ok {
		i = len(e.report.Gaps)
		e.gaps[id] = i
		e.report.Gaps = append(e.report.Gaps, finding.Gap{ID: id, Reason: g.Reason, What: g.What, NetNS: netns, Controls: []string{}, Shared: shared})
	}
	if control != "" && !slices.Contains(e.report.Gaps[i].Controls, control) {
		e.report.Gaps[i].Controls = append(e.report.Gaps[i].Controls, control)
	}
	return id
}

func summarise(c *Context, r finding.Report) finding.Summary {
	s := finding.Summary{
		ByStatus: map[finding.Status]int{}, BySeverity: map[finding.Severity]int{},
		Namespaces: len(c.spaces), Gaps: len(r.Gaps),
	}
	for _, f := range r.Findings {
		s.ByStatus[f.Status]++
		if f.Status == finding.Fail {
			s.BySeverity[f.Severity]++
		}
	}
	for _, sp := range c.spaces {
		s.Interfaces += len(sp.links)
		socks, _ := sp.Sockets.Get()
		for _, k := range socks {
			if k.State == "listen" || k.State == "unconnected" && (k.Protocol == "udp" || k.Protocol == "udplite") {
				s.Listeners++
			}
		}
	}
	return s
}
