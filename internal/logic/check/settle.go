package check

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rules "github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// reachable is a namespace with its rules decoded.
type reachable struct {
	*rules.Space
	exposed []rules.Listener
	gap     *fact.Gap
	done    bool
	lint    []rules.Lint
	linted  bool
	answers map[string]answered
	ports   map[string][]rules.V
}

// reach decodes the rules of a namespace once.
func (s *Space) reach() *reachable {
	if s.rules == nil {
		s.rules = &reachable{
			Space:   rules.NewSpace(s.ctx.Snap, s.Namespace, nil, false),
			answers: map[string]answered{}, ports: map[string][]rules.V{},
		}
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

// filters tells whether anything may stand in the way of packets: rules, or something
// that could not be read or is not understood.
func (r *reachable) filters() bool {
	return len(r.Model.Set.Tables) > 0 || len(r.Gaps()) > 0
}

// port is Space.Port, asked once.
func (r *reachable) port(f rs.Family, proto string, port uint16, iface string, at netip.Addr) []rules.V {
	key := fmt.Sprint(f, proto, port, iface, at)
	vs, ok := r.ports[key]
	if !ok {
		vs = r.Port(f, proto, port, iface, at)
		r.ports[key] = vs
	}
	return vs
}

// fate is what the rules do with the packets of a question.
type fateKind int

const (
	out     fateKind = iota // none gets in
	pinned                  // only from single, listed senders
	unclear                 // it depends
	in                      // one gets in
)

// answered is the answer to a question, with the packet that shows it.
type answered struct {
	fateKind
	by   rules.Fate
	gaps []fact.Gap
}

// better is the answer that says more for the sender.
func (a answered) better(b answered) answered {
	if b.fateKind > a.fateKind {
		return b
	}
	return a
}

// judge sorts one fate.
func judge(f rules.Fate, narrow bool) answered {
	a := answered{by: f}
	single := func(s packetset.Set) bool {
		return !slices.ContainsFunc(s.Prefixes(f.Kind.Family == rs.IPv4), func(p netip.Prefix) bool { return !p.IsSingleIP() })
	}
	switch {
	case len(f.May) == 0 && len(f.Unclear) == 0:
		a.fateKind = out
	case len(f.Must) > 0 && (narrow || f.Kind.From.IsSingleIP() || !single(f.Must)):
		a.fateKind = in
	case len(f.Unclear) == 0 && single(f.May):
		a.fateKind = pinned
	default:
		a.fateKind, a.gaps = unclear, f.Unclear
	}
	return a
}

// all is the answer for packets of which each must get in.
func all(as []answered) answered {
	worst := as[0]
	for _, a := range as[1:] {
		if a.fateKind < worst.fateKind {
			worst = a
		}
	}
	return worst
}

// ask answers a question for an interface ("" = all; futureInterface = one that is to
// come), once.
func (s *Space) ask(q question, ifname string) answered {
	r := s.reach()
	key := q.what + "|" + ifname
	a, ok := r.answers[key]
	if !ok {
		a = s.answer(q, ifname)
		r.answers[key] = a
	}
	return a
}

func (s *Space) answer(q question, ifname string) answered {
	r := s.reach()
	if ifname == futureInterface || ifname != "" && !slices.ContainsFunc(s.links, func(l fact.Link) bool { return l.Name == ifname }) {
		return s.each(q, func(k rules.Kind) []rules.Fate { return []rules.Fate{r.Stranger(k)} })
	}
	ifs := []string{ifname}
	if ifname == "" {
		ifs = r.Interfaces(rules.FamilyWord(q.kinds[0].Family))
	}
	var best answered
	for i, name := range ifs {
		a := s.each(q, func(k rules.Kind) []rules.Fate { return r.Incoming(k, name) })
		if best = best.better(a); i == 0 {
			best = a
		}
		if best.fateKind == in {
			break
		}
	}
	return best
}

// each takes the kinds in turn until one surely gets in.
func (s *Space) each(q question, ask func(rules.Kind) []rules.Fate) answered {
	var best answered
	one := func(k rules.Kind) (a answered) {
		for _, f := range ask(k) {
			a = a.better(judge(f, q.narrow))
			if a.by.Kind.Name == "" {
				a.by = f
			}
		}
		return a
	}
	for i, k := range q.kinds {
		a := one(k)
		if best = best.better(a); i == 0 && best.fateKind == out {
			best = a
		}
		if best.fateKind == in {
			return best
		}
	}
	for _, group := range q.hard {
		var as []answered
		for _, k := range group {
			as = append(as, one(k))
		}
		if best = best.better(all(as)); best.fateKind == in {
			return best
		}
	}
	return best
}

// tell adds an answer to a failed result.
func (s *Space) tell(r Result, q question, a answered, ifname string) Result {
	where := ""
	switch {
	case ifname == futureInterface:
		where = " by a new interface"
	case ifname != "":
		where = " by " + ifname
	case a.fateKind == in && a.by.Interface != "":
		where = " by " + a.by.Interface
	}
	r.Evidence = append(slices.Clone(r.Evidence), s.fateEvidence(&a.by)...)
	switch a.fateKind {
	case out:
		r.Effective = finding.Pass
		r.Message += fmt.Sprintf(" The packet filter surely drops %s%s, whoever sends it.", q.what, where)
	case pinned:
		r.Effective = finding.Pass
		r.Message += fmt.Sprintf(" The packet filter lets %s in%s from %s only; a neighbour that forges such a source is still heard.", q.what, where, a.by.Sources())
	case in:
		name := a.by.Kind.Name
		r.Message += fmt.Sprintf(" The packet filter lets %s in%s%s.", name, where, limited(&a.by))
	default:
		r.Effective = finding.Unknown
		r.Gaps = append(r.Gaps, a.gaps...)
		r.Message += fmt.Sprintf(" Whether the packet filter lets %s in%s is not known: %s.", q.what, where, because(a.gaps))
	}
	return r
}

func limited(f *rules.Fate) string {
	if f.Limited {
		return ", up to a rate"
	}
	return ""
}

func because(gaps []fact.Gap) string {
	if len(gaps) == 0 {
		return "the rules depend on more than the packet"
	}
	return gaps[0].What
}

// behind settles a failed result that one of a question's packets causes: it stays
// where one surely gets in, passes where none can, and is unknown else.
func (s *Space) behind(q question, ifname string, r Result) Result {
	if r.Effective != finding.Fail {
		return r
	}
	g := s.Inbound(rules.FamilyWord(q.kinds[0].Family), ifname)
	if g == nil {
		return r
	}
	if g.What != filtered {
		return s.open(r, *g)
	}
	a := s.ask(q, ifname)
	if a.fateKind > out {
		for _, l := range s.carriers(ifname) {
			o, known := outer(l)
			if !known {
				a = answered{fateKind: unclear, gaps: []fact.Gap{{Reason: fact.UnsupportedGap, What: "which packets carry what comes in by the tunnel " + l.Name}}}
				break
			}
			if x := s.ask(o, ""); x.fateKind < a.fateKind {
				if x.fateKind == pinned {
					continue // its peers, and they may send
				}
				q, a = o, x
			}
		}
	}
	return s.tell(r, q, a, ifname)
}

// open leaves a result unknown.
func (s *Space) open(r Result, g fact.Gap) Result {
	r.Effective = finding.Unknown
	r.Gaps = append(r.Gaps, g)
	r.Message += " Whether a packet gets that far is not known: " + g.What + "."
	return r
}

// carriers are the tunnels on the way in by an interface.
func (s *Space) carriers(ifname string) []*fact.Link {
	if ifname == "" || ifname == futureInterface {
		return nil
	}
	f := s.filter("ipv6")
	path, _ := s.path(&f, ifname)
	return slices.DeleteFunc(slices.Clone(path), func(l *fact.Link) bool { return l.Tunnel == nil && !tunnelKinds[l.Kind] })
}

// outer is what carries the packets of a tunnel.
func outer(l *fact.Link) (question, bool) {
	six := rs.IPv4
	if carrier(l.Kind) == "ipv6" || l.Tunnel != nil && (l.Tunnel.Remote.Is6() || l.Tunnel.Local.Is6()) {
		six = rs.IPv6
	}
	of := func(proto uint8, name string) (question, bool) {
		q := protocol(six, proto, name)
		if l.Tunnel != nil && l.Tunnel.Remote.IsValid() && !l.Tunnel.Remote.IsUnspecified() && !l.Tunnel.Remote.IsMulticast() {
			p := netip.PrefixFrom(l.Tunnel.Remote, l.Tunnel.Remote.BitLen())
			q.kinds[0].From, q.what = p, q.what+" from "+l.Tunnel.Remote.String()
		}
		return q, true
	}
	switch kindOf(l) {
	case "sit":
		return of(protoIPv6, "a packet in IPv4")
	case "ipip":
		return of(protoIPIP, "an IPv4 packet in IPv4")
	case "gre", "gretap", "erspan", "ip6gre", "ip6gretap", "ip6erspan":
		return of(protoGRE, "a GRE packet")
	case "ip6tnl":
		return of(protoIPv6, "a packet in IPv6")
	case "vxlan", "geneve", "bareudp":
		// Without a port, or with an underlay of both families, it is not one packet.
		if l.Tunnel == nil || l.Tunnel.Port == 0 || six == rs.IPv4 && !l.Tunnel.Remote.Is4() && !l.Tunnel.Local.Is4() {
			return question{}, false
		}
		k := toPort(six, "udp", l.Tunnel.Port)
		return question{what: k.Name + " over " + rules.FamilyWord(six), kinds: []rules.Kind{k}}, true
	}
	return question{}, false
}

// settle asks the rules about a failed result whose subject is a port: ok is false
// where it is none, or something besides the rules is in the way.
func (s *Space) settle(family, ifname string, r Result, g *fact.Gap) (Result, bool) {
	sub := r.Subject
	port := cmp.Or(sub.Port, r.port)
	if g.What != filtered || port == 0 || transports[sub.Proto] == 0 {
		return r, false
	}
	f, _ := rules.FamilyOf(family)
	at, _ := netip.ParseAddr(sub.Address)
	vs := s.reach().port(f, sub.Proto, port, ifname, at)
	if len(vs) == 0 {
		return r, false
	}
	return s.bySources(r, vs, f), true
}

// bySources settles a failed result by who gets in.
func (s *Space) bySources(r Result, vs []rules.V, f rs.Family) Result {
	must, may, _, _ := rules.Union(vs, s.reach().Loopback)
	r.Evidence = append(slices.Clone(r.Evidence), s.portEvidence(vs)...)
	switch {
	case len(must) > 0:
		r.Message += " The packet filter lets it in: " + rules.FamilyWord(f) + " from " + vsWords(vs, s) + "."
		if rules.ClassOf(must, may, f == rs.IPv4) == rules.Some4 && r.Severity == "" {
			r.Positions = []finding.Position{finding.FromLink, finding.FromPod}
		}
	case len(may) == 0:
		r.Effective = finding.Pass
		r.Message += " The packet filter surely drops it, whoever sends it."
	default:
		gaps := assumed(vs)
		r.Effective = finding.Unknown
		r.Gaps = append(r.Gaps, gaps...)
		r.Message += " Whether the packet filter lets it in is not known: " + gaps[0].What + "."
	}
	return r
}

// portFate is what the rules do with fresh packets for a port over one family.
func (s *Space) portFate(f rs.Family, proto string, port uint16, ifname string, at netip.Addr) (fateKind, []rules.V) {
	if s.Inbound(rules.FamilyWord(f), ifname) == nil {
		return in, nil
	}
	vs := s.reach().port(f, proto, port, ifname, at)
	must, may, _, _ := rules.Union(vs, s.reach().Loopback)
	switch {
	case len(must) > 0:
		return in, vs
	case len(may) == 0 && len(vs) > 0:
		return out, vs
	}
	return unclear, vs
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

// fateEvidence is a fate with its rules and its packet.
func (s *Space) fateEvidence(f *rules.Fate) []finding.Evidence {
	out := s.ruleEvidence(f.DecidedBy)
	if w := f.Witness(); w != "" {
		key := "witness"
		if f.Interface != "" {
			key += " on " + f.Interface
		}
		out = append(out, finding.Evidence{Source: "packet filter", Key: key, Value: w, At: s.ctx.At(), Volatile: true})
	}
	return out
}
