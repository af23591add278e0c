package report

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// group is one cause: a control that failed, on however many subjects.
type group struct {
	control   string
	title     string
	severity  finding.Severity // the worst
	positions []finding.Position
	findings  []finding.Finding
}

// groups collects the findings that keep accepts by control, worst cause first.
func groups(fs []finding.Finding, keep func(finding.Finding) bool) []group {
	at := map[string]int{}
	var out []group
	for _, f := range fs {
		if !keep(f) {
			continue
		}
		i, ok := at[f.Control]
		if !ok {
			i = len(out)
			at[f.Control] = i
			out = append(out, group{control: f.Control, title: f.Title, severity: f.Severity, positions: f.Positions})
		}
		g := &out[i]
		if f.Severity.Rank() > g.severity.Rank() {
			g.severity, g.title, g.positions = f.Severity, f.Title, f.Positions
		}
		g.findings = append(g.findings, f)
	}
	slices.SortStableFunc(out, func(a, b group) int {
		return cmp.Or(
			cmp.Compare(b.severity.Rank(), a.severity.Rank()),
			cmp.Compare(reachRank(a.positions), reachRank(b.positions)),
			cmp.Compare(a.control, b.control),
		)
	})
	return out
}

// reachRank orders attacker positions: who needs least comes first.
func reachRank(ps []finding.Position) int {
	order := []finding.Position{finding.FromInternet, finding.FromLink, finding.FromPod, finding.FromLocal}
	best := len(order)
	for _, p := range ps {
		if i := slices.Index(order, p); i >= 0 {
			best = min(best, i)
		}
	}
	return best
}

func positionsText(ps []finding.Position) string {
	s := make([]string, len(ps))
	for i, p := range ps {
		s[i] = Clean(string(p))
	}
	return strings.Join(s, ", ")
}

// atWorst is how many of the group's findings have its severity.
func (g group) atWorst() int {
	n := 0
	for _, f := range g.findings {
		if f.Severity == g.severity {
			n++
		}
	}
	return n
}

// subjects are the distinct subjects of a group, in order.
// places names the subjects shortly, for one line: an executable without its folder.
func (g group) places() []string {
	var out []string
	seen := map[string]bool{}
	for _, f := range g.findings {
		f.Subject.Process = path.Base("/" + f.Subject.Process)
		if f.Subject.Process == "/" {
			f.Subject.Process = ""
		}
		if s := subjectText(f.Subject); !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

func subjectText(s finding.Subject) string {
	if t := s.String(); t != "" {
		return t
	}
	return "this host"
}

// command is the one-line shell command that closes the group's first finding;
// more is how many further ones its other findings need.
func (g group) command() (text string, more int) {
	seen := map[string]bool{}
	for _, f := range g.findings {
		for _, m := range f.Remediation {
			if m.Kind == finding.Command && !seen[m.Text] {
				seen[m.Text] = true
				if text == "" {
					text = m.Text
				}
				break
			}
		}
	}
	return strings.TrimSpace(text), max(0, len(seen)-1)
}

// list joins names until they no longer fit w cells, and counts the rest.
func list(names []string, w int) string {
	if len(names) == 0 {
		return ""
	}
	out := ""
	for i, n := range names {
		next := n
		if i > 0 {
			next = out + ", " + n
		}
		rest := ""
		if i < len(names)-1 {
			rest = fmt.Sprintf(" +%d more", len(names)-i-1)
		}
		if Width(next+rest) > w {
			if i == 0 {
				return Cut(next, w-Width(rest)) + rest
			}
			return out + fmt.Sprintf(" +%d more", len(names)-i)
		}
		out = next
	}
	return out
}

// gapUse is a Gap with what it keeps from being decided.
type gapUse struct {
	finding.Gap
	severity finding.Severity // the worst of the findings it leaves unknown
	findings int
}

// gapUses are the Gaps of a Report, the one that hides most first.
func gapUses(r finding.Report) []gapUse {
	out := make([]gapUse, len(r.Gaps))
	at := map[string]int{}
	for i, g := range r.Gaps {
		out[i] = gapUse{Gap: g, severity: finding.Info}
		at[g.ID] = i
	}
	for _, f := range r.Findings {
		if f.Status != finding.Unknown {
			continue
		}
		for _, id := range f.Gaps {
			if i, ok := at[id]; ok {
				out[i].findings++
				if f.Severity.Rank() > out[i].severity.Rank() {
					out[i].severity = f.Severity
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b gapUse) int {
		return cmp.Or(
			cmp.Compare(b.severity.Rank(), a.severity.Rank()),
			cmp.Compare(len(b.Controls), len(a.Controls)),
			cmp.Compare(a.What, b.What),
			cmp.Compare(a.ID, b.ID),
		)
	})
	return out
}

// closeHint says what a person can do about a kind of Gap.
func closeHint(r fact.Reason, root bool) string {
	switch {
	case r == fact.Permission && !root:
		return "run as root: sudo sixfence audit"
	case r == fact.Permission:
		return "refused even to root (container or security module?)"
	case r == fact.UnsupportedGap:
		return "this kernel cannot tell"
	case r == fact.Truncated:
		return "a safety limit was reached"
	case r == fact.ParseGap:
		return "not understood; please report it"
	}
	return "not looked at in this run"
}

// Undecided are the controls of this severity or worse that a Gap left unknown. A
// Gap does not count when its reason is allowed, or when it is the one that all
// controls of a directory tree share.
func Undecided(r finding.Report, failOn finding.Severity, allow []string) map[string]bool {
	out := map[string]bool{}
	if failOn == "" {
		return out
	}
	gaps := map[string]finding.Gap{}
	for _, g := range r.Gaps {
		gaps[g.ID] = g
	}
	for _, f := range r.Findings {
		if f.Status != finding.Unknown || !f.Severity.AtLeast(failOn) {
			continue
		}
		for _, id := range f.Gaps {
			if g, ok := gaps[id]; !ok || !g.Shared && !slices.Contains(allow, string(g.Reason)) {
				out[f.Control] = true
			}
		}
	}
	return out
}

// own tells whether a finding is about the host itself, not about a namespace
// that any user could have made.
func own(f finding.Finding) bool { return !f.Foreign }

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

// thousands writes 5000 as 5,000.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
