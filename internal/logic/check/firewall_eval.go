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

// eachFilter runs f for every namespace that has rules. Where the rules could not be
// read it is unknown, where there are none not-applicable.
func (c *Context) eachFilter(f func(*Space, *reachable) []Result) []Result {
	return c.eachSpace(func(s *Space) []Result {
		r := s.reach()
		if g := r.RuleGaps(); len(g) > 0 {
			return one(unknown(s.Subject(), g...))
		}
		if len(r.Model.Set.Tables) == 0 {
			return one(notApplicable(s.Subject(), "There are no rules in this namespace."))
		}
		return f(s, r)
	})
}

// maxLintEvidence bounds the evidence of one chain.
const maxLintEvidence = 12

// lintControl makes a control of kinds of lint.
func lintControl(c Control, kinds ...string) Control {
	c.Eval = func(ctx *Context) []Result {
		return ctx.eachFilter(func(s *Space, r *reachable) []Result {
			if g := firstGap(gapOf(s.Links)); g != nil {
				return one(unknown(s.Subject(), *g))
			}
			byKey, more := map[string]*Result{}, map[string]int{}
			var order []string
			for _, l := range r.lints() {
				if !slices.Contains(kinds, l.ID) {
					continue
				}
				sub := s.Subject()
				where := strings.TrimSpace(l.Table + " " + l.Chain)
				sub.Key = plainKey(where)
				ev := []finding.Evidence{{Source: "packet filter", Key: where, Value: l.Rule, At: s.ctx.At(), Volatile: true}}
				if l.Handle != 0 {
					ev[0].Key += fmt.Sprintf(" handle %d", l.Handle)
				}
				if l.Rule == "" {
					ev[0].Value = l.Message
				}
				for _, e := range l.Evidence[:min(len(l.Evidence), 3)] {
					ev = append(ev, finding.Evidence{Source: "packet filter", Key: "shown by", Value: e, At: s.ctx.At(), Volatile: true})
				}
				if x := byKey[sub.Key]; x != nil {
					if len(x.Evidence) < maxLintEvidence {
						x.Evidence = append(x.Evidence, ev...)
					}
					more[sub.Key]++
					continue
				}
				res := fail(sub, l.Message, ev...)
				// What is open or cut off for it others weigh: nothing here is above the control.
				if sev := finding.Severity(l.Severity); sev.Rank() >= 0 && c.Severity.AtLeast(sev) {
					res.Severity = sev
				}
				if l.Remedy != "" {
					res.Remediation = append([]finding.Remediation{advice("%s", l.Remedy)}, c.Fix...)
				}
				byKey[sub.Key], order = &res, append(order, sub.Key)
			}
			var out []Result
			for _, k := range order {
				if n := more[k]; n > 0 {
					byKey[k].Message += fmt.Sprintf(" So it is with %s more in this chain.", count(n, "rule"))
				}
				out = append(out, *byKey[k])
			}
			if out == nil {
				out = one(pass(s.Subject(), "No rule, chain or set of this kind."))
			}
			return out
		})
	}
	return c
}

// outside is who gets to a port from other hosts, over one family, in words.
func (s *Space) outside(f rs.Family, proto string, port uint16) (c rules.Class, words string, vs []rules.V) {
	vs = s.reach().port(f, proto, port, "", netip.Addr{})
	must, may, _, _ := rules.Union(vs, s.reach().Loopback)
	c = rules.ClassOf(must, may, f == rs.IPv4)
	if words = vsWords(vs, s); words == "" {
		words = "nobody"
	}
	return c, words, vs
}

func (s *Space) portEvidence(vs []rules.V) (ev []finding.Evidence) {
	for _, v := range vs {
		if len(ev) > 6 {
			break
		}
		ev = append(ev, s.ruleEvidence(v.DecidedBy)...)
		if v.Witness != nil {
			ev = append(ev, finding.Evidence{Source: "packet filter", Key: "witness on " + v.Witness.Interface, Value: v.Witness.String() + ": " + v.Witness.Verdict, At: s.ctx.At()})
		}
	}
	return ev
}

func assumed(vs []rules.V) []fact.Gap {
	var out []fact.Gap
	for _, v := range vs {
		for _, a := range v.Assumes {
			if g := (fact.Gap{Reason: fact.UnsupportedGap, What: a}); !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
	}
	if out == nil {
		out = append(out, fact.Gap{Reason: fact.UnsupportedGap, What: "rules that depend on more than the packet"})
	}
	return out
}

// placeGap is what keeps a namespace's exposure from being told.
func (s *Space) placeGap() *fact.Gap {
	return firstGap(gapOf(s.Links), gapOf(s.Addresses), gapOf(s.Sysctls))
}

func evalDefaultDeny(c *Context) []Result {
	return c.eachSpace(func(s *Space) []Result {
		r := s.reach()
		if g := r.RuleGaps(); len(g) > 0 {
			return one(unknown(s.Subject(), g...))
		}
		if g := s.placeGap(); g != nil {
			return one(unknown(s.Subject(), *g))
		}
		named := r.NamedPorts()
		port := named[len(named)-1]
		six, words, vs := s.outside(rs.IPv6, "tcp", port)
		four, _, vs4 := s.outside(rs.IPv4, "tcp", port)
		sub := s.Subject()
		ev := s.portEvidence(vs)
		switch {
		case len(vs) == 0:
			return one(notApplicable(sub, "No interface of this namespace hears others over IPv6."))
		case six == rules.Closed:
			return one(pass(sub, fmt.Sprintf("A port that no rule names (%d) is closed to everybody outside over IPv6.", port), ev...))
		case six == rules.Unclear:
			x := unknown(sub, assumed(vs)...)
			x.Evidence = ev
			return one(x)
		}
		res := fail(sub, fmt.Sprintf("A port that no rule names (%d) lets in over IPv6: %s.", port, words), ev...)
		if len(r.Model.Set.Tables) == 0 {
			res.Message = "No rule filters IPv6: every port that a program opens is open to the network at once."
		}
		switch {
		case four == rules.Closed && len(vs4) > 0:
			res.Message += " Over IPv4 it is closed."
			if six != rules.Open {
				res.Severity = finding.High
			}
		case !s.home():
			res.Severity = finding.Low
		default:
			res.Severity = finding.Medium
		}
		switch {
		case len(vs4) == 0:
			res.Message += " There is no IPv4 here to compare with."
		case four != rules.Closed:
			res.Message += " IPv4 is no better."
		}
		res.Remediation = s.denyByDefault()
		return one(res)
	})
}

// denyByDefault closes IPv6 but for what it needs: a chain of its own, so that no
// other table is touched.
func (s *Space) denyByDefault() []finding.Remediation {
	var accept []string
	if e := s.listening(); e.gap == nil {
		for i := range e.list {
			a := &e.list[i]
			if a.Protocol == "tcp" && a.v6 > thisHost && baseName(a.exe) == "sshd" {
				accept = append(accept, "; add rule ip6 guard input tcp dport "+itoa(int64(a.Port))+" accept")
			}
		}
	}
	return []finding.Remediation{
		command("%s", s.Run(nft("add table ip6 guard; add chain ip6 guard input { type filter hook input priority 10; policy drop; }; add rule ip6 guard input iifname lo accept; add rule ip6 guard input ct state established,related accept; add rule ip6 guard input icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query, echo-request } accept; add rule ip6 guard input ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept"+strings.Join(sortedUnique(accept), "")))),
		advice("Keep a second session open, and add an accept for every service that is meant to be reached."), s.lasts(),
	}
}

// portWork bounds, for one namespace, the classes of ports that a control asks about,
// times the rules that each answer may look at.
const portWork = 4_000_000

// portClass are ports that the rules treat alike.
type portClass struct{ from, to uint16 }

func (p portClass) String() string {
	if p.from == p.to {
		return itoa(int64(p.from))
	}
	return fmt.Sprintf("%d-%d", p.from, p.to)
}

// portClasses cuts all ports into those that the rules treat alike, first those that
// want names; gap says that some are left out.
func (s *Space) portClasses(want func(portClass) bool) (out []portClass, gap *fact.Gap) {
	r := s.reach()
	starts, whole := r.PortStarts()
	for i, p := range starts {
		to := uint16(65535)
		if i+1 < len(starts) {
			to = starts[i+1] - 1
		}
		out = append(out, portClass{p, to})
	}
	slices.SortStableFunc(out, func(a, b portClass) int { return bit(want(b)) - bit(want(a)) })
	n := 0
	for _, t := range r.Model.Set.Tables {
		for _, c := range t.Chains {
			n += len(c.Rules)
		}
	}
	if most := max(32, portWork/(n+500)); most < len(out) {
		return out[:most], &fact.Gap{Reason: fact.Truncated, What: fmt.Sprintf("%d of the %d classes of ports that the rules tell apart", len(out)-most, len(out))}
	}
	if !whole {
		gap = &fact.Gap{Reason: fact.UnsupportedGap, What: "ports that rules tell apart by a mask or beside another field"}
	}
	return out, gap
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func evalRuleParity(c *Context) []Result {
	return c.eachFilter(func(s *Space, r *reachable) []Result {
		if g := s.placeGap(); g != nil {
			return one(unknown(s.Subject(), *g))
		}
		type ear struct {
			proto string
			port  uint16
		}
		heard := map[ear]int{} // 1 over IPv4, 2 over IPv6
		for _, a := range s.listening().list {
			heard[ear{a.Protocol, a.Port}] |= bit(a.v4 > thisHost) | bit(a.v6 > thisHost)<<1
		}
		// What serves one family alone, as DHCPv6 does, is open to that one on purpose.
		on := func(proto string, p portClass) bool {
			for k, fs := range heard {
				if fs == 3 && (proto == "" || k.proto == proto) && p.from <= k.port && k.port <= p.to {
					return true
				}
			}
			return false
		}
		named := r.NamedPorts()
		free := named[len(named)-1]
		classes, gap := s.portClasses(func(p portClass) bool { return on("", p) })
		var out []Result
		var gaps []fact.Gap
		for _, proto := range []string{"tcp", "udp"} {
			_, rest6, _ := s.outside(rs.IPv6, proto, free)
			_, rest4, _ := s.outside(rs.IPv4, proto, free)
			var rest *Result
			for _, p := range classes {
				six, words6, vs := s.outside(rs.IPv6, proto, p.from)
				four, words4, vs4 := s.outside(rs.IPv4, proto, p.from)
				if six == rules.Unclear {
					gaps = append(gaps, assumed(vs)...)
				}
				if four == rules.Unclear {
					gaps = append(gaps, assumed(vs4)...)
				}
				if len(vs) == 0 || len(vs4) == 0 || !wider(six, four, words6, words4) && !wider(four, six, words4, words6) {
					continue
				}
				sub := s.Subject()
				sub.Proto, sub.Port, sub.Family = proto, p.from, "ipv6"
				which := proto + "/" + p.String()
				if p.to > p.from {
					sub.Key = "ports " + p.String()
				}
				if words6 == rest6 && words4 == rest4 && p.to > p.from {
					if rest != nil {
						continue
					}
					sub.Port, sub.Key, which = 0, "ports that no rule names", "A "+proto+" port that no rule names"
				}
				x := fail(sub, fmt.Sprintf("%s lets in over IPv6: %s; over IPv4: %s.", which, words6, words4), append(s.portEvidence(vs), s.portEvidence(vs4)...)...)
				switch {
				case four.Wider(six):
					x.Subject.Family, x.Severity = "ipv4", finding.Info
				case sub.Key != "" && sub.Port == 0:
					x.Severity = finding.Low
					x.Message += " FW-01 weighs it, LISTEN-03 what listens there."
				case !on(proto, p):
					x.Severity = finding.Low
					x.Message += " Nothing serves it over both families now."
				}
				out = append(out, x)
				if sub.Port == 0 {
					rest = &x
				}
			}
		}
		if gap != nil {
			gaps = append(gaps, *gap)
		}
		if len(gaps) > 0 {
			slices.SortFunc(gaps, func(a, b fact.Gap) int { return strings.Compare(a.What, b.What) })
			return append(out, unknown(s.Subject(), slices.Compact(gaps)...))
		}
		if out == nil {
			out = one(pass(s.Subject(), "Every port is open to the same in both families."))
		}
		return out
	})
}

// wider tells that rules surely let more in over one family. Where both let in the same by
// the same interfaces, what is left is rp_filter: it keeps sources out of IPv4 that do
// not live behind the interface, and IPv6 has none (FW-18).
func wider(a, b rules.Class, wordsA, wordsB string) bool {
	return a.Wider(b) && wordsA != wordsB
}

// exposedPorts groups the listeners of a namespace by port.
func (s *Space) exposedPorts() (out []rules.Listener, gap *fact.Gap) {
	if g := firstGap(gapOf(s.Sockets), s.placeGap()); g != nil {
		return nil, g
	}
	ls, gap := s.reach().listeners()
	if gap != nil {
		return nil, gap
	}
	type key struct {
		proto string
		port  uint16
	}
	at := map[key]int{}
	for _, l := range ls {
		k := key{l.Proto, l.Port}
		if i, ok := at[k]; ok {
			out[i].IPv4 = append(slices.Clone(out[i].IPv4), l.IPv4...)
			out[i].IPv6 = append(slices.Clone(out[i].IPv6), l.IPv6...)
			continue
		}
		at[k] = len(out)
		out = append(out, l)
	}
	return out, nil
}

func (s *Space) listenerSubject(l *rules.Listener) finding.Subject {
	sub := s.Subject()
	sub.Proto, sub.Port, sub.Process = l.Proto, l.Port, l.Process
	if low, high := s.ephemeralPorts(); l.Port >= low && l.Port <= high {
		sub.Port, sub.Key = 0, "port chosen by the kernel"
	}
	return sub
}

func (s *Space) classes(l *rules.Listener) (four, six rules.Class, words4, words6 string) {
	lo := s.reach().Loopback
	m4, y4, _, _ := rules.Union(l.IPv4, lo)
	m6, y6, _, _ := rules.Union(l.IPv6, lo)
	words4, words6 = vsWords(l.IPv4, s), vsWords(l.IPv6, s)
	for _, w := range []*string{&words4, &words6} {
		if *w == "" {
			*w = "nobody outside"
		}
	}
	return rules.ClassOf(m4, y4, true), rules.ClassOf(m6, y6, false), words4, words6
}

func evalListenerParity(c *Context) []Result {
	return c.eachSpace(func(s *Space) []Result {
		ls, gap := s.exposedPorts()
		if gap != nil {
			return one(unknown(s.Subject(), *gap))
		}
		var out []Result
		for i := range ls {
			l := &ls[i]
			if len(l.IPv4) == 0 || len(l.IPv6) == 0 {
				continue // one family only: LISTEN-02 and LISTEN-06
			}
			four, six, w4, w6 := s.classes(l)
			sub := s.listenerSubject(l)
			switch {
			case wider(six, four, w6, w4):
				x := fail(sub, fmt.Sprintf("%s/%d lets in over IPv6: %s; over IPv4: %s.", l.Proto, l.Port, w6, w4), append(s.portEvidence(l.IPv6), s.portEvidence(l.IPv4)...)...)
				if six != rules.Open {
					x.Severity = finding.High
				}
				if sub.Port == 0 && l.Proto != "tcp" {
					x.Severity = finding.Low // a client's port
				}
				x.Remediation = s.closeSix(l)
				out = append(out, x)
			case six == rules.Unclear || four == rules.Unclear:
				out = append(out, unknown(sub, assumed(append(slices.Clone(l.IPv6), l.IPv4...))...))
			default:
				out = append(out, pass(sub, fmt.Sprintf("IPv6 (%s) is no wider than IPv4 (%s).", w6, w4)))
			}
		}
		return out
	})
}

// closeSix closes a port over IPv6, where the rules of IPv6 are.
func (s *Space) closeSix(l *rules.Listener) []finding.Remediation {
	return []finding.Remediation{
		s.put(rs.Input, "", fmt.Sprintf("iifname != lo meta nfproto ipv6 %s dport %d drop", l.Proto, l.Port), fmt.Sprintf("! -i lo -p %s --dport %d -j DROP", l.Proto, l.Port)),
		s.lasts(), intent("services: []   # a port that is not listed is closed in both families"),
	}
}

func evalExposure(c *Context) []Result {
	return c.eachSpace(func(s *Space) []Result {
		ls, gap := s.exposedPorts()
		if gap != nil {
			return one(unknown(s.Subject(), *gap))
		}
		var out []Result
		for i := range ls {
			l := &ls[i]
			four, six, w4, w6 := s.classes(l)
			sub := s.listenerSubject(l)
			ev := append(s.portEvidence(l.IPv6), s.portEvidence(l.IPv4)...)
			msg := fmt.Sprintf("%s/%d lets in over IPv4: %s; over IPv6: %s.", l.Proto, l.Port, w4, w6)
			switch {
			case four == rules.Closed && six == rules.Closed:
				out = append(out, pass(sub, fmt.Sprintf("%s/%d lets nobody in from outside.", l.Proto, l.Port), ev...))
			case four == rules.Unclear && (six == rules.Unclear || six == rules.Closed) || six == rules.Unclear && four == rules.Closed:
				out = append(out, unknown(sub, assumed(append(slices.Clone(l.IPv6), l.IPv4...))...))
			default:
				out = append(out, fail(sub, msg, ev...))
			}
		}
		return out
	})
}
