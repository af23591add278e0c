package check

import (
	"cmp"
	"slices"

	rules "github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// maxExposures bounds the list of a report.
const maxExposures = 1000

// exposures lists the services of all namespaces but strangers' that one family is
// wider open for, or that are open to anywhere.
func exposures(c *Context) []finding.Exposure {
	out := []finding.Exposure{}
	for _, s := range c.spaces {
		if s.Foreign {
			continue
		}
		ls, gap := s.exposedPorts()
		if gap != nil {
			continue // LISTEN-06 says so
		}
		low, high := s.ephemeralPorts()
		for i := range ls {
			l := &ls[i]
			if l.Port >= low && l.Port <= high && l.Proto != "tcp" {
				continue // a client's
			}
			x := finding.Exposure{NetNS: s.Name, Proto: l.Proto, Port: l.Port, Process: l.Process, PID: l.PID, Unit: l.Unit}
			four, six, w4, w6 := s.classes(l)
			x.IPv4, x.IPv6 = s.access(l.IPv4, four, w4), s.access(l.IPv6, six, w6)
			switch {
			case len(l.IPv6) == 0 && four != rules.Open, len(l.IPv4) == 0 && six != rules.Open:
				continue // one family, and not everybody
			case len(l.IPv6) == 0 || len(l.IPv4) == 0:
			case wider(six, four, w6, w4):
				x.Differs = "ipv6"
			case wider(four, six, w4, w6):
				x.Differs = "ipv4"
			case four != rules.Open && six != rules.Open:
				continue
			}
			out = append(out, x)
		}
	}
	rank := map[string]int{"ipv6": 0, "ipv4": 1, "": 2}
	slices.SortStableFunc(out, func(a, b finding.Exposure) int { return cmp.Compare(rank[a.Differs], rank[b.Differs]) })
	return out[:min(len(out), maxExposures)]
}

// access is one family of an exposure.
func (s *Space) access(vs []rules.V, class rules.Class, words string) finding.Access {
	a := finding.Access{State: string(class), DecidedBy: []finding.RuleRef{}}
	if len(vs) == 0 {
		a.State = finding.AccessNone
		return a
	}
	if class == rules.Some4 || class == rules.Open {
		a.Sources = words
		// Where every interface lets the same in, they need no names.
		var alike []string
		for _, v := range vs {
			if len(v.Must) > 0 && !(len(v.Interfaces) > 0 && s.reach().Loopback(v.Interfaces[0])) {
				alike = append(alike, v.Sources)
			}
		}
		if alike = sortedUnique(alike); len(alike) == 1 {
			a.Sources = alike[0]
		}
	}
	for _, v := range vs {
		if len(v.Interfaces) > 0 && s.reach().Loopback(v.Interfaces[0]) || class != rules.Closed && class != rules.Unclear && len(v.Must) == 0 {
			continue
		}
		for _, d := range v.DecidedBy {
			r := finding.RuleRef{Table: d.Table, Chain: d.Chain, Handle: d.Handle, Rule: d.Rule}
			if len(a.DecidedBy) < 3 && d.Chain != "" && !slices.Contains(a.DecidedBy, r) {
				a.DecidedBy = append(a.DecidedBy, r)
			}
		}
		if v.Witness != nil && a.Witness == "" {
			a.Witness = v.Witness.String()
		}
	}
	return a
}
