package check

import (
	"slices"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

func stackControls() []Control {
	return slices.Concat(forwardControls(), redirectControls(), sourceRouteControls(), ndStackControls(), addressControls(), icmpControls(), miscControls())
}

func stackDispositions() []Disposition { return nil }

// setting names net.ipv6.conf.IF.KEY; IF may be all or default.
type setting struct{ ifname, key string }

// values are settings that were read, with their evidence. bad is set, with
// the answer to give, when one of them was not: a key that this kernel does not
// have makes the control not apply.
type values struct {
	v   []int64
	ev  []finding.Evidence
	bad *Result
}

// read reads settings for a control's subject.
func (s *Space) read(on finding.Subject, settings ...setting) values {
	var out values
	for _, x := range settings {
		k := s.ConfInt(x.ifname, x.key)
		v, ok := k.Get()
		if !ok && out.bad == nil {
			r := notApplicable(on, "This kernel has no "+x.key+".")
			if g := gapOf(k); g != nil {
				r = unknown(on, *g)
			}
			out.bad = &r
		}
		out.v = append(out.v, v)
		out.ev = append(out.ev, s.confEvidence(x.ifname, x.key))
	}
	return out
}

// readNet reads settings outside conf/, by path below /proc/sys.
func (s *Space) readNet(on finding.Subject, paths ...string) values {
	var out values
	for _, p := range paths {
		k := s.SysctlInt(p)
		v, ok := k.Get()
		if !ok && out.bad == nil {
			r := notApplicable(on, "This kernel, or this namespace, has no "+p+".")
			if g := gapOf(k); g != nil {
				r = unknown(on, *g)
			}
			out.bad = &r
		}
		out.v = append(out.v, v)
		out.ev = append(out.ev, s.sysctlEvidence(p, s.Sysctl(p).Or("")))
	}
	return out
}

// talks tells whether any interface of the namespace hears neighbours. A gap
// means that it is not known.
func (s *Space) talks() (bool, *fact.Gap) {
	if g := gapOf(s.Links); g != nil {
		return false, g
	}
	var gap *fact.Gap
	for i := range s.links {
		why, g := s.hearsNobody(&s.links[i])
		if why == "" && g == nil {
			return true, nil
		}
		gap = firstGap(gap, g)
	}
	return false, gap
}

// eachNetwork runs f for every namespace that has an interface with neighbours.
func (c *Context) eachNetwork(f func(*Space, finding.Subject) []Result) []Result {
	return c.eachSpace(func(s *Space) []Result {
		switch yes, gap := s.talks(); {
		case gap != nil:
			return []Result{unknown(s.Subject(), *gap)}
		case !yes:
			return []Result{notApplicable(s.Subject(), "No interface of this namespace speaks IPv6 to a neighbour.")}
		}
		return f(s, s.Subject())
	})
}

// home tells whether the host's role is about this namespace.
func (s *Space) home() bool { return s == s.ctx.primary() }

// routes tells whether this namespace forwards by purpose.
func (s *Space) routes() bool { return s.home() && s.ctx.IsRouter() }

func one(r Result) []Result { return []Result{r} }
