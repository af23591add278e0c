package report

import (
	"fmt"
	"path"
	"strings"

	"github.com/sixfence/sixfence/internal/model/finding"
)

// maxBlocks is how many exposures the first screen shows one by one.
const maxBlocks = 2

// exposures shows first what one family lets in and the other does not, and in one line
// what is open to anywhere. It returns how many lines it took.
func (p *page) exposures(list []finding.Exposure) int {
	var differ, open []finding.Exposure
	for _, x := range list {
		if x.Differs != "" {
			differ = append(differ, x)
		} else {
			open = append(open, x)
		}
	}
	lines := 0
	if len(list) > 0 {
		p.blank()
		lines++
	}
	for _, x := range differ[:min(len(differ), maxBlocks)] {
		lines += p.exposure(x)
	}
	if n := len(differ) - maxBlocks; n > 0 {
		p.line(dim, "         ", plural(n, "more service", "more services")+" open in one family only: "+services(differ[maxBlocks:], p.o.Width-50))
		lines++
	}
	if len(open) > 0 {
		lead := "Open     "
		p.line(yellow, lead, "to anywhere: "+services(open, p.o.Width-Width(lead)-13))
		lines++
	}
	return lines
}

// exposure is one block: who gets in over each family, which rules decide, and a packet.
func (p *page) exposure(x finding.Exposure) int {
	var who []string
	if x.PID != 0 {
		who = append(who, fmt.Sprintf("pid %d", x.PID))
	}
	if x.Unit != "" {
		who = append(who, x.Unit)
	}
	text := serviceOf(x) + ": " + families(x)
	if len(who) > 0 {
		text += " (" + strings.Join(who, ", ") + ")" // cut first where the line is full
	}
	p.line(alarm, "EXPOSED  ", text)
	by, w := append(rulesOf(x.IPv6), rulesOf(x.IPv4)...), x.IPv6.Witness
	if x.Differs == "ipv4" {
		by, w = append(rulesOf(x.IPv4), rulesOf(x.IPv6)...), x.IPv4.Witness
	}
	lines := 1
	if len(by) > 0 {
		const lead = "         decided by "
		p.line("", lead, list(by, p.o.Width-Width(lead)))
		lines++
	}
	if w != "" {
		p.line("", "         ", "witness "+w)
		lines++
	}
	return lines
}

// serviceOf is "postgres tcp/5432".
func serviceOf(x finding.Exposure) string {
	s := fmt.Sprintf("%s/%d", x.Proto, x.Port)
	if x.Process != "" {
		s = path.Base(strings.TrimSuffix(x.Process, " (deleted)")) + " " + s
	}
	return s + where(x)
}

func where(x finding.Exposure) string {
	if x.NetNS == "init" || x.NetNS == "self" || x.NetNS == "" {
		return ""
	}
	return " in netns " + x.NetNS
}

// families says who gets in, the narrower family first.
func families(x finding.Exposure) string {
	four, six := state(x.IPv4, "IPv4"), state(x.IPv6, "IPv6")
	if x.Differs == "ipv4" {
		return six + ", " + four
	}
	return four + ", " + six
}

func state(a finding.Access, family string) string {
	switch a.State {
	case finding.AccessClosed:
		return "blocked on " + family
	case finding.AccessOpen, finding.AccessSome:
		return "open on " + family + " from " + a.Sources
	case finding.AccessNone:
		return "not bound on " + family
	}
	return "unknown on " + family
}

// rulesOf are the deciding rules as people cite them.
func rulesOf(a finding.Access) []string {
	var out []string
	for _, d := range a.DecidedBy {
		s := d.Table + " " + d.Chain
		switch n, _, numbered := strings.Cut(d.Rule, ":"); {
		case d.Handle != 0:
			s += fmt.Sprintf(" handle %d", d.Handle)
		case numbered && strings.HasPrefix(n, "rule "):
			s += " " + n // legacy tables number their rules
		case strings.HasPrefix(d.Rule, "policy "):
			s += " " + d.Rule
		}
		out = append(out, s)
	}
	return out
}

// services names some services in one line.
func services(xs []finding.Exposure, width int) string {
	var out []string
	for _, x := range xs {
		out = append(out, serviceOf(x))
	}
	return list(out, width)
}
