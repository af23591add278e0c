package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	rules "github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// ICMPv6 types that controls ask the rules about.
const (
	typeRA       = 134
	typeRedirect = 137
)

// reachable is a namespace with its rules decoded.
type reachable struct {
	*rules.Space
	exposed []rules.Listener
	gap     *fact.Gap
	done    bool
	lint    []rules.Lint
	linted  bool
}

// reach decodes the rules of a namespace once.
func (s *Space) reach() *reachable {
	if s.rules == nil {
		s.rules = &reachable{Space: rules.NewSpace(s.ctx.Snap, s.Namespace, nil, false)}
	}
	return s.rules
}

// listeners answers for every listener, once.
func (r *reachable) listeners() ([]rules.Listener, *fact.Gap) {
	if !r.done {
		r.done = true
		r.exposed, r.gap = r.Listeners()
		for i := range r.exposed {
			r.Expose(&r.exposed[i])
		}
	}
	return r.exposed, r.gap
}

func (r *reachable) lints() []rules.Lint {
	if !r.linted {
		r.linted, r.lint = true, r.Lint()
	}
	return r.lint
}

// settle asks the rules about a failed result whose subject is a port: ok is false
// where it is none, or something besides the rules is in the way.
func (s *Space) settle(family, ifname string, r Result, g *fact.Gap) (Result, bool) {
	sub := r.Subject
	if g.What != notAnalysed || sub.Port == 0 || !slices.Contains([]string{"tcp", "udp", "udplite", "sctp"}, sub.Proto) {
		return r, false
	}
	f, _ := rules.FamilyOf(family)
	at, _ := netip.ParseAddr(sub.Address)
	vs := s.reach().Port(f, sub.Proto, sub.Port, ifname, at)
	if len(vs) == 0 {
		return r, false
	}
	return s.bySources(r, vs, f), true
}

// bySources settles a failed result by who gets in.
func (s *Space) bySources(r Result, vs []rules.V, f rs.Family) Result {
	must, may, _, _ := rules.Union(vs, s.reach().Loopback)
	var gaps []fact.Gap
	var ev []finding.Evidence
	for _, v := range vs {
		for _, a := range v.Assumes {
			if g := (fact.Gap{Reason: fact.UnsupportedGap, What: a}); !slices.Contains(gaps, g) {
				gaps = append(gaps, g)
			}
		}
		if len(must) > 0 && len(v.Must) == 0 {
			continue
		}
		ev = append(ev, s.ruleEvidence(v.DecidedBy)...)
		if v.Witness != nil {
			ev = append(ev, finding.Evidence{Source: "packet filter", Key: "witness on " + v.Witness.Interface, Value: v.Witness.String() + ": " + v.Witness.Verdict, At: s.ctx.At()})
		}
		if len(ev) > 6 {
			break
		}
	}
	r.Evidence = append(slices.Clone(r.Evidence), ev...)
	switch {
	case len(must) > 0:
		r.Message += " The packet filter lets it in: " + rules.FamilyWord(f) + " from " + vsWords(vs, s) + "."
	case len(may) == 0:
		r.Effective = finding.Pass
		r.Message += " The packet filter surely drops it, whoever sends it."
	default:
		if len(gaps) == 0 {
			gaps = append(gaps, fact.Gap{Reason: fact.UnsupportedGap, What: "rules that depend on more than the packet"})
		}
		r.Effective = finding.Unknown
		r.Gaps = append(r.Gaps, gaps...)
		r.Message += " Whether the packet filter lets it in is not known: " + gaps[0].What + "."
	}
	return r
}

func vsWords(vs []rules.V, s *Space) string {
	var out []string
	for _, v := range vs {
		if len(v.Must) == 0 || len(v.Interfaces) > 0 && s.reach().Loopback(v.Interfaces[0]) {
			continue
		}
		if w := v.Sources + " by " + listing(v.Interfaces, 4); !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return strings.Join(out, "; ")
}

// ruleEvidence names the deciding rules. Handles change at reload, so they are shown
// and do not reopen a waiver.
func (s *Space) ruleEvidence(refs []rules.RuleRef) []finding.Evidence {
	var out []finding.Evidence
	for i, r := range refs {
		if i == 3 {
			break
		}
		key := r.Table + " " + r.Chain
		if r.Handle != 0 {
			key += fmt.Sprintf(" handle %d", r.Handle)
		}
		out = append(out, finding.Evidence{Source: "packet filter", Key: key, Value: r.Rule, At: s.ctx.At(), Volatile: true})
	}
	return out
}

// behindFilterICMP is behindFilter for a result that an ICMPv6 message from a neighbour
// causes.
func (s *Space) behindFilterICMP(typ uint8, ifname string, r Result) Result {
	if r.Effective != finding.Fail {
		return r
	}
	g := s.Inbound("ipv6", ifname)
	if g == nil || g.What != notAnalysed {
		return s.behindFilter("ipv6", ifname, r)
	}
	m := message(typ)
	fates := s.reach().Message(m, ifname)
	if len(fates) != 1 {
		return s.behindFilter("ipv6", ifname, r)
	}
	f := fates[0]
	r.Evidence = append(slices.Clone(r.Evidence), s.ruleEvidence(f.DecidedBy)...)
	switch {
	case f.Dropped():
		r.Effective = finding.Pass
		r.Message += " The packet filter surely drops every " + m.Name + " that comes in by " + ifname + "."
	case len(f.Must) > 0:
		r.Message += " The packet filter lets a " + m.Name + " in by " + ifname + "."
	default:
		r.Effective = finding.Unknown
		r.Gaps = append(r.Gaps, f.Unclear...)
		r.Message += " Whether the packet filter lets a " + m.Name + " in is not known: " + f.Unclear[0].What + "."
	}
	return r
}

func message(typ uint8) rules.ICMPv6 {
	for _, m := range rules.ICMPv6Local() {
		if m.Type == typ {
			return m
		}
	}
	return rules.ICMPv6{Type: typ, Name: fmt.Sprintf("ICMPv6 type %d", typ), Ct: rules.CtNew, From: "::/0"}
}
