package check

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	rules "github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// number reads a fact as an integer.
func number(k fact.Known[string], what string) fact.Known[int64] {
	v, ok := k.Get()
	if !ok {
		switch k.State() {
		case fact.StateUnsupported:
			return fact.Unsupported[int64]()
		case fact.StateAbsent:
			return fact.Absent[int64]()
		}
		g, _ := k.Gap()
		return fact.Missing[int64](g)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
	if err != nil {
		return fact.Missing[int64](fact.Gap{Reason: fact.ParseGap, What: fmt.Sprintf("%s holds %q, not a number", what, v)})
	}
	return fact.Value(n)
}

func pass(s finding.Subject, msg string, ev ...finding.Evidence) Result {
	return Result{Subject: s, Effective: finding.Pass, Message: msg, Evidence: ev}
}

func fail(s finding.Subject, msg string, ev ...finding.Evidence) Result {
	return Result{Subject: s, Effective: finding.Fail, Message: msg, Evidence: ev}
}

func notApplicable(s finding.Subject, why string) Result {
	return Result{Subject: s, Effective: finding.NotApplicable, Message: why}
}

func unknown(s finding.Subject, gaps ...fact.Gap) Result {
	what := make([]string, len(gaps))
	for i, g := range gaps {
		what[i] = g.What + " (" + string(g.Reason) + ")"
	}
	return Result{Subject: s, Effective: finding.Unknown, Message: "Not known: " + strings.Join(what, "; ") + ".", Gaps: gaps}
}

// gapOf returns the Gap of a fact that is one; nil otherwise. It lets a control
// write: if g := gapOf(a); g != nil { return unknown(subject, *g) }.
func gapOf[T any](k fact.Known[T]) *fact.Gap {
	if g, ok := k.Gap(); ok {
		return &g
	}
	return nil
}

// behindPort settles a failed result whose subject is a port that others use over a
// family, by ifname ("" = any interface): it stays where the packet filter surely lets
// somebody in, passes where it surely lets nobody in, and is unknown else.
func (s *Space) behindPort(family, ifname string, r Result) Result {
	if r.Effective != finding.Fail {
		return r
	}
	g := s.Inbound(family, ifname)
	if g == nil {
		return r
	}
	if settled, ok := s.settle(family, ifname, r, g); ok {
		return settled
	}
	f, _ := rules.FamilyOf(family)
	if port := cmp.Or(r.Subject.Port, r.port); g.What == filtered && port != 0 && transports[r.Subject.Proto] != 0 {
		k := toPort(f, r.Subject.Proto, port)
		if at, err := netip.ParseAddr(r.Subject.Address); err == nil && !at.IsUnspecified() {
			k = to(k, at.WithZone(""))
			k.Name += " at " + at.String()
		}
		return s.behind(question{what: k.Name + " over " + family, narrow: true, kinds: []rules.Kind{k}}, ifname, r)
	}
	if g.What == filtered {
		return s.behind(anyPacket(f), ifname, r)
	}
	return s.open(r, *g)
}

// eachSpace runs f for every namespace with an IPv6 stack. A namespace without one is
// not-applicable, one where that is not known is unknown.
func (c *Context) eachSpace(f func(*Space) []Result) []Result {
	var out []Result
	for _, s := range c.spaces {
		on, ok := s.IPv6.Get()
		switch {
		case ok && !on, s.IPv6.State() == fact.StateUnsupported, s.IPv6.State() == fact.StateAbsent:
			out = append(out, s.mark(notApplicable(s.Subject(), "There is no IPv6 stack in this network namespace."))...)
		case !ok:
			out = append(out, s.mark(unknown(s.Subject(), *gapOf(s.IPv6)))...)
		default:
			out = append(out, s.mark(f(s)...)...)
		}
	}
	return out
}

func (s *Space) mark(rs ...Result) []Result {
	for i := range rs {
		rs[i].Foreign = s.Foreign
	}
	return rs
}

// eachInterface runs f for every interface of every namespace on which the
// kernel speaks IPv6 to somebody else. Others are not-applicable, with the reason.
func (c *Context) eachInterface(f func(*Space, *fact.Link) []Result) []Result {
	return c.eachSpace(func(s *Space) []Result {
		if g := gapOf(s.Links); g != nil {
			return []Result{unknown(s.Subject(), *g)}
		}
		var out []Result
		for i := range s.links {
			l := &s.links[i]
			why, g := s.hearsNobody(l)
			switch {
			case g != nil:
				out = append(out, unknown(s.On(l.Name), *g))
			case why != "":
				out = append(out, notApplicable(s.On(l.Name), why))
			default:
				out = append(out, f(s, l)...)
			}
		}
		return out
	})
}

// IFF_* and ARPHRD_* used here.
const (
	iffUp       = 0x1
	iffLoopback = 0x8
	iffNoARP    = 0x80

	arphrdEther = 1
)

// portKinds are masters that take every frame from their ports.
var portKinds = map[string]bool{"bridge": true, "bond": true, "team": true, "openvswitch": true, "hsr": true}

// hearsNobody says why the kernel takes no neighbour's IPv6 packet on an
// interface; empty when it does.
func (s *Space) hearsNobody(l *fact.Link) (why string, gap *fact.Gap) {
	if l.Flags&iffLoopback != 0 {
		return "A loopback interface has no neighbours.", nil
	}
	if portKinds[l.SlaveKind] {
		m := s.IfName(l.Master)
		if m == "" {
			m = "its master"
		}
		return "Frames that arrive here are handed to " + m + ", which is checked instead.", nil
	}
	if l.Name == "all" || l.Name == "default" {
		return "The kernel gives no interface of this name IPv6 settings (addrconf_sysctl_register).", nil
	}
	if l.Kind == "vrf" {
		return "A VRF device has no neighbours: neighbour discovery stays on its member interfaces, which are checked.", nil
	}
	switch l.Kind {
	case "dummy", "ifb", "nlmon":
		return "A " + l.Kind + " device has no other end: nobody can send to it.", nil
	}
	d := s.ConfInt(l.Name, "disable_ipv6")
	if v, ok := d.Get(); ok {
		if v != 0 {
			return "IPv6 is switched off on this interface (disable_ipv6=" + itoa(v) + "): the kernel drops every IPv6 packet on it.", nil
		}
		return "", nil
	}
	if d.State() == fact.StateUnsupported || d.State() == fact.StateAbsent || l.Inet6.State() == fact.StateAbsent {
		return "The interface has no IPv6 (MTU below 1280, or IPv6 is off in this namespace).", nil
	}
	return "", gapOf(d)
}
