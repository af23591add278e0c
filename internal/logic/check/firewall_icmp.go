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

// message is one row of RFC 4890: a message that rules must let pass on one hook, or
// should not.
type message struct {
	kinds    []rules.Kind // all of them must pass (wanted), or none may
	hook     rs.Hook
	wanted   bool
	severity finding.Severity // of a failure; empty: the control's
	harm     string           // of a failure, one sentence
	// fix is the rule that mends it: for nft, for ip6tables.
	fix [2]string
	// only says for which interfaces a message matters; nil: all.
	only func(*Space, string) bool
}

// eachKind are the messages of one control.
func eachKind(hook rs.Hook, wanted bool, harm string, fix [2]string, kinds ...rules.Kind) []message {
	var out []message
	for _, k := range kinds {
		out = append(out, message{kinds: []rules.Kind{k}, hook: hook, wanted: wanted, harm: harm, fix: fix})
	}
	return out
}

func related(typ, code uint8, name string) rules.Kind {
	k := icmp6(typ, name, rules.CtRelated)
	k.ICMPCode = rules.Some(code)
	return k
}

// Rules that mend what a control finds.
var (
	acceptRelated = [2]string{"ct state established,related accept", "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"}
	acceptND      = [2]string{"icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept", "-p icmpv6 -m hl --hl-eq 255 -j ACCEPT"}
	acceptMLD     = [2]string{"icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept", "-p icmpv6 --icmpv6-type 130 -j ACCEPT"}
	dropRedirect  = [2]string{"icmpv6 type nd-redirect drop", "-p icmpv6 --icmpv6-type redirect -j DROP"}
	acceptErrors  = [2]string{"icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept", "-p icmpv6 --icmpv6-type packet-too-big -j ACCEPT"}
	acceptRAs     = [2]string{"icmpv6 type nd-router-advert ip6 hoplimit 255 accept", "-p icmpv6 --icmpv6-type router-advertisement -m hl --hl-eq 255 -j ACCEPT"}
)

var (
	allMLDv2    = netip.MustParseAddr("ff02::16")
	solicitedOf = netip.MustParseAddr("ff02::1:ff00:1")
)

func mld(typ uint8, name string, dst netip.Addr) rules.Kind {
	k := to(from(icmp6(typ, name, rules.CtUntracked), linkLocal), dst)
	k.HopLimit = rules.Some(uint8(1))
	k.Exthdr = []rules.Ext{{Number: protoHopByHop}} // router alert
	return k
}

func neighbourMessages() []message {
	const harm = "the host and its neighbours, the gateway first, do not find each other."
	ns, na := onLink(typeNS, "a neighbour solicitation"), onLink(typeNA, "a neighbour advertisement")
	ns.SrcMAC, na.SrcMAC = rules.Opt[[6]byte]{}, rules.Opt[[6]byte]{}
	out := eachKind(rs.Input, true, harm, acceptND, from(to(ns, solicitedOf), linkLocal), from(ns, linkLocal), from(na, linkLocal))
	out = append(out, eachKind(rs.Output, true, harm, acceptND, to(ns, solicitedOf), na)...)
	ra := routerAdvert()
	ra.SrcMAC = rules.Opt[[6]byte]{}
	return append(out, message{
		kinds: []rules.Kind{to(ra, allNodes)}, hook: rs.Input, wanted: true, fix: acceptRAs,
		harm: "the interface lives by router advertisements: its route and addresses end with their lifetimes.",
		only: func(s *Space, ifname string) bool {
			l := s.linkNamed(ifname)
			return l != nil && s.raOf(l).wanted()
		},
	})
}

func mldMessages() []message {
	const harm = "a switch with MLD snooping takes the host off its solicited-node groups, and after minutes nobody finds it."
	out := eachKind(rs.Input, true, harm, acceptMLD, mld(typeMLDQuery, "an MLD query", allNodes))
	return append(out, eachKind(rs.Output, true, harm, acceptMLD, mld(143, "an MLDv2 report", allMLDv2))...)
}

func errorMessages() []message {
	const ptb = "path MTU discovery breaks: connections over smaller links stall (RFC 8201)."
	const lost = "connections wait for a time-out instead of the error."
	high, low := finding.High, finding.Low
	var out []message
	add := func(h rs.Hook, sev finding.Severity, harm string, k rules.Kind) {
		out = append(out, message{kinds: []rules.Kind{k}, hook: h, wanted: true, severity: sev, harm: harm, fix: acceptRelated})
	}
	add(rs.Input, high, ptb, related(typeTooBig, 0, "a packet-too-big error"))
	for _, h := range []rs.Hook{rs.Input, rs.Output} {
		add(h, low, lost, related(typeUnreachable, 4, "a destination-unreachable error"))
		add(h, low, lost, related(typeTimeExceeded, 0, "a time-exceeded error"))
		add(h, low, lost, related(typeParameter, 1, "a parameter-problem error"))
	}
	out = append(out, message{
		kinds: []rules.Kind{related(typeTooBig, 0, "a packet-too-big error")}, hook: rs.Output, wanted: true, severity: high, fix: acceptErrors,
		harm: "others cannot find the path MTU through this router.",
		only: func(s *Space, _ string) bool { f, _ := s.forwards().Get(); return f },
	})
	reply := icmp6(typeEchoReply, "the answer to this host's ping", rules.CtEstablished)
	out = append(out, message{kinds: []rules.Kind{reply}, hook: rs.Input, wanted: true, severity: low, harm: "this host cannot ping anybody.", fix: acceptRelated})
	return out
}

// needless are types that no ordinary host has a use for: router renumbering, node
// information, mobile IPv6, experiments, the unallocated (RFC 4890 §4.4.5).
var needless = []uint8{100, 101, 127, 138, 139, 140, 144, 145, 146, 147, 150, 160, 200, 201, 255}

func needlessMessages() []message {
	var out []message
	for _, t := range needless {
		ct := uint32(rules.CtInvalid)
		if t == 139 {
			ct = rules.CtNew // conntrack knows node information queries
		}
		out = append(out, message{
			kinds: []rules.Kind{icmp6(t, fmt.Sprintf("an ICMPv6 message of type %d", t), ct)}, hook: rs.Input,
			harm: "no program of an ordinary host needs it.", fix: [2]string{"icmpv6 type { 100, 101, 127, 138-140, 144-147, 150, 154-255 } drop", "-p icmpv6 --icmpv6-type 139 -j DROP"},
		})
	}
	return out
}

func redirectMessages() []message {
	q := anyRedirect()
	var out []message
	for _, k := range q.kinds {
		out = append(out, message{kinds: []rules.Kind{k}, hook: rs.Input, harm: "where the kernel accepts redirects, a neighbour turns the way of packets.", fix: dropRedirect})
	}
	return out[:1]
}

// passing is what becomes of a message on its hook, by interface.
func (s *Space) messageFates(m message, k rules.Kind) []rules.Fate {
	r := s.reach()
	if m.hook == rs.Input {
		return r.Incoming(k, "")
	}
	var out []rules.Fate
	for _, n := range r.Interfaces("ipv6") {
		f := r.Outgoing(k, n)
		f.Interface = n
		out = append(out, f)
	}
	return out
}

// verdicts collects what becomes of the messages of one control.
type verdicts struct {
	s   *Space
	out []*verdict
}

// verdict is one result in the making: messages of one hook that fare alike.
type verdict struct {
	m          message
	doubt      bool
	names, ifs []string
	first      rules.Fate
	gaps       []fact.Gap
}

// note adds a message that fares badly, or of which that is not known, on some
// interfaces.
func (v *verdicts) note(m message, k rules.Kind, fs []rules.Fate, doubt bool) {
	if len(fs) == 0 {
		return
	}
	i := slices.IndexFunc(v.out, func(x *verdict) bool {
		return x.m.hook == m.hook && x.m.wanted == m.wanted && x.m.severity == m.severity && x.m.harm == m.harm && x.doubt == doubt
	})
	if i < 0 {
		i = len(v.out)
		v.out = append(v.out, &verdict{m: m, doubt: doubt, first: fs[0]})
	}
	x := v.out[i]
	if name := strings.TrimPrefix(strings.TrimPrefix(k.Name, "an "), "a "); !slices.Contains(x.names, name) {
		x.names = append(x.names, name)
	}
	for _, f := range fs {
		n := f.Interface
		if f.Kind.OIF.Set && m.hook == rs.Forward {
			n += " to " + f.Kind.OIF.V
		}
		if !slices.Contains(x.ifs, n) {
			x.ifs = append(x.ifs, n)
		}
		x.gaps = append(x.gaps, f.Unclear...)
	}
}

// results are what a control says: nothing when nothing is bad.
func (v *verdicts) results() []Result {
	var out []Result
	for _, x := range v.out {
		sub := v.s.Subject()
		sub.Key = plainKey(x.m.hook.String() + "/" + strings.Join(x.names, ","))
		if len(x.ifs) == 1 && x.m.hook != rs.Forward {
			sub.Interface = x.ifs[0]
		}
		if x.doubt {
			r := unknown(sub, dedupeGaps(x.gaps)...)
			r.Severity, r.Evidence = x.m.severity, v.s.fateEvidence(&x.first)
			out = append(out, r)
			continue
		}
		what := map[rs.Hook]string{rs.Input: "comes in by", rs.Output: "leaves by", rs.Forward: "passes from"}[x.m.hook]
		fate := map[bool]string{true: "Dropped", false: "Let through"}[x.m.wanted]
		r := fail(sub, fmt.Sprintf("%s by the packet filter when it %s %s: %s. The effect: %s", fate, what, listing(x.ifs, 4), listing(x.names, 16), x.m.harm), v.s.fateEvidence(&x.first)...)
		r.Severity = x.m.severity
		r.Remediation = []finding.Remediation{v.s.put(x.m.hook, decided(answered{by: x.first}), x.m.fix[0], x.m.fix[1]), v.s.lasts()}
		out = append(out, r)
	}
	return out
}

// messageControl makes a control of messages that must pass, or must not. Those that
// fare alike share a result.
func messageControl(c Control, of func() []message) Control {
	c.Eval = func(ctx *Context) []Result {
		return ctx.eachFilter(func(s *Space, r *reachable) []Result {
			if g := s.placeGap(); g != nil {
				return one(unknown(s.Subject(), *g))
			}
			v, asked := verdicts{s: s}, 0
			for _, m := range of() {
				for _, k := range m.kinds {
					var bad, doubt []rules.Fate
					for _, f := range s.messageFates(m, k) {
						if m.only != nil && !m.only(s, f.Interface) {
							continue
						}
						asked++
						switch {
						case m.wanted && f.Dropped(), !m.wanted && len(f.Must) > 0:
							bad = append(bad, f)
						case m.wanted && len(f.Must) > 0, !m.wanted && f.Dropped():
						default:
							doubt = append(doubt, f)
						}
					}
					v.note(m, k, bad, false)
					v.note(m, k, doubt, true)
				}
			}
			if asked == 0 {
				return one(notApplicable(s.Subject(), "No interface of this namespace hears others over IPv6."))
			}
			out := v.results()
			if out == nil {
				word := map[bool]string{true: "lets every such message pass", false: "drops every such message"}[of()[0].wanted]
				out = one(pass(s.Subject(), "The packet filter "+word+", on every interface."))
			}
			return out
		})
	}
	return c
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// transitMessages are RFC 4890 §4.3: what a router passes on for others.
func transitMessages() []message {
	const lost = "hosts behind this router wait for a time-out instead of the error."
	var out []message
	add := func(k rules.Kind, wanted bool, sev finding.Severity, harm string, fix [2]string) {
		k.HopLimit = rules.Some(uint8(63))
		out = append(out, message{kinds: []rules.Kind{k}, hook: rs.Forward, wanted: wanted, severity: sev, harm: harm, fix: fix})
	}
	add(related(typeTooBig, 0, "a packet-too-big error"), true, finding.High, "hosts behind this router cannot find the path MTU: their connections stall.", acceptRelated)
	add(related(typeUnreachable, 4, "a destination-unreachable error"), true, finding.Low, lost, acceptRelated)
	add(related(typeTimeExceeded, 0, "a time-exceeded error"), true, finding.Low, lost, acceptRelated)
	add(related(typeParameter, 1, "a parameter-problem error"), true, finding.Low, lost, acceptRelated)
	for _, t := range []uint8{100, 101, 127, 138, 139, 140, 200, 201, 255} {
		ct := uint32(rules.CtInvalid)
		if t == 139 {
			ct = rules.CtNew
		}
		add(icmp6(t, fmt.Sprintf("an ICMPv6 message of type %d", t), ct), false, finding.Info, "nobody behind this router needs it.", [2]string{"icmpv6 type { 100, 101, 127, 138-140, 200, 201, 255 } drop", "-p icmpv6 --icmpv6-type 138 -j DROP"})
	}
	return out
}

// evalTransit judges what a forwarding namespace passes on between its interfaces.
func evalTransit(ctx *Context) []Result {
	return ctx.eachFilter(func(s *Space, r *reachable) []Result {
		if g := s.placeGap(); g != nil {
			return one(unknown(s.Subject(), *g))
		}
		f := s.forwards()
		if g := gapOf(f); g != nil {
			return one(unknown(s.Subject(), *g))
		}
		if on, _ := f.Get(); !on {
			return one(notApplicable(s.Subject(), "This namespace does not forward IPv6."))
		}
		ins, outs := s.transitWays()
		if len(ins) == 0 {
			return one(notApplicable(s.Subject(), "There are no two interfaces to forward between."))
		}
		// A namespace that passes on nothing at all has no connections to break.
		answer := some(rs.IPv6)[0]
		if a, _ := s.through(question{what: "transit", narrow: true, kinds: []rules.Kind{answer}}, ins, outs); a.fateKind == out {
			return one(notApplicable(s.Subject(), "The packet filter forwards nothing."))
		}
		v := verdicts{s: s}
		for _, m := range transitMessages() {
			var bad, doubt []rules.Fate
			good := 0
			for _, i := range ins {
				for _, o := range outs {
					if i == o {
						continue
					}
					switch f := r.Through(m.kinds[0], i, o); {
					case m.wanted && f.Dropped(), !m.wanted && len(f.Must) > 0:
						bad = append(bad, f)
					case m.wanted && len(f.Must) > 0, !m.wanted && f.Dropped():
						good++
					default:
						doubt = append(doubt, f)
					}
				}
			}
			if m.wanted && good > 0 {
				bad = nil // some ways are closed to everything on purpose
			}
			v.note(m, m.kinds[0], bad, false)
			v.note(m, m.kinds[0], doubt, true)
		}
		res := v.results()
		if res == nil {
			res = one(pass(s.Subject(), "The packet filter passes on the errors that RFC 4890 asks for, and none of what it says to drop."))
		}
		return res
	})
}

// transitWays are the interfaces that packets pass between, a few of many.
func (s *Space) transitWays() (ins, outs []string) {
	all := s.reach().Interfaces("ipv6")
	if len(all) < 2 {
		return nil, nil
	}
	if len(all) > 6 {
		// Interfaces that no rule tells apart fare alike.
		var few []string
		seen := map[string]bool{}
		for _, n := range all {
			if k := s.reach().Kin(n); !seen[k] || len(few) < 2 {
				seen[k] = true
				few = append(few, n)
			}
		}
		all = few[:min(len(few), 6)]
	}
	return all, slices.Clone(all)
}
