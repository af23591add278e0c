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

// maxParity bounds the ports that controls ask about one by one.
const maxParity = 32

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
		heard := map[string]bool{}
		for _, a := range s.listening().list {
			heard[fmt.Sprint(a.Protocol, a.Port)] = true
		}
		named := r.NamedPorts()
		var out []Result
		var doubt []rules.V
		ports := named[:len(named)-1]
		// Where something listens comes first.
		slices.SortStableFunc(ports, func(a, b uint16) int {
			on := func(p uint16) int { return -bit(heard[fmt.Sprint("tcp", p)] || heard[fmt.Sprint("udp", p)]) }
			return on(a) - on(b)
		})
		for _, port := range ports[:min(len(ports), maxParity)] {
			for _, proto := range []string{"tcp", "udp"} {
				six, words6, vs := s.outside(rs.IPv6, proto, port)
				four, words4, vs4 := s.outside(rs.IPv4, proto, port)
				if six == rules.Unclear {
					doubt = append(doubt, vs...)
				}
				if four == rules.Unclear {
					doubt = append(doubt, vs4...)
				}
				if len(vs) == 0 || len(vs4) == 0 || !six.Wider(four) && !four.Wider(six) {
					continue
				}
				sub := s.Subject()
				sub.Proto, sub.Port, sub.Family = proto, port, "ipv6"
				x := fail(sub, fmt.Sprintf("%s/%d lets in over IPv6: %s; over IPv4: %s.", proto, port, words6, words4), append(s.portEvidence(vs), s.portEvidence(vs4)...)...)
				switch {
				case four.Wider(six):
					x.Subject.Family, x.Severity = "ipv4", finding.Info
				case !heard[fmt.Sprint(proto, port)]:
					x.Severity = finding.Low
					x.Message += " Nothing listens on it now."
				}
				out = append(out, x)
			}
		}
		switch {
		case out != nil:
			return out
		case doubt != nil:
			return one(unknown(s.Subject(), assumed(doubt)...))
		case len(ports) > maxParity:
			return one(pass(s.Subject(), fmt.Sprintf("%d of the %d ports that rules name were asked about, those first on which something listens: they are open to the same in both families.", maxParity, len(ports))))
		}
		return one(pass(s.Subject(), "The ports that rules name are open to the same in both families."))
	})
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
			case six.Wider(four):
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
