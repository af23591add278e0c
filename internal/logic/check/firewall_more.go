package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	rules "github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// forwardDefault judges new packets for others, by role.
func forwardDefault(c *Context) []Result {
	return c.eachFilter(func(s *Space, r *reachable) []Result {
		sub := s.Subject()
		if g := s.placeGap(); g != nil {
			return one(unknown(sub, *g))
		}
		f := s.forwards()
		if g := gapOf(f); g != nil {
			return one(unknown(sub, *g))
		}
		ins, outs := s.transitWays()
		if on, _ := f.Get(); !on || len(ins) == 0 {
			return one(notApplicable(sub, "This namespace does not forward IPv6 between interfaces."))
		}
		answer := question{what: "the answer to somebody else's connection", narrow: true, kinds: some(rs.IPv6)[:1]}
		a, _ := s.through(transit(), ins, outs)
		ev := s.fateEvidence(&a.by)
		switch {
		case a.fateKind == unclear:
			return one(s.doubtful(sub, a))
		case s.routes() && a.fateKind == in:
			return one(pass(sub, "Packets are forwarded, as the role "+c.Role.Name+" needs.", ev...))
		case s.routes():
			b, _ := s.through(answer, ins, outs)
			if b.fateKind != out {
				return one(pass(sub, "Established connections are forwarded, new ones only as the rules list them.", ev...))
			}
			res := fail(sub, fmt.Sprintf("The role is %s, and the rules drop every packet that this namespace would forward. A drop in any base chain is final: an accept in another table does not help.", c.Role.Name), ev...)
			res.Title = "The packet filter stops what the role is there to forward"
			res.Remediation = []finding.Remediation{s.put(rs.Forward, decided(a), "ct state established,related accept", "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"), advice("Then accept what is meant to pass, in the table that drops it.")}
			return one(res)
		case a.fateKind == in:
			res := fail(sub, fmt.Sprintf("This namespace forwards, and the rules let new connections pass: %s from %s to %s.", a.by.Kind.Name, a.by.Interface, a.by.Kind.OIF.V), ev...)
			res.Remediation = []finding.Remediation{
				command("%s", s.Run(nft("add table ip6 nofwd; add chain ip6 nofwd forward { type filter hook forward priority 10; policy drop; }; add rule ip6 nofwd forward ct state established,related accept"))),
				advice("Accept what is meant to pass before the policy applies."), s.lasts(),
			}
			return one(res)
		}
		return one(pass(sub, "New packets for others are dropped.", ev...))
	})
}

// drowned judges ports that one base chain accepts and another one drops.
func drowned(c *Context) []Result {
	return c.eachFilter(func(s *Space, r *reachable) []Result {
		sub := s.Subject()
		if g := s.placeGap(); g != nil {
			return one(unknown(sub, *g))
		}
		bases := 0
		for _, t := range r.Model.Set.Tables {
			for _, ch := range t.Chains {
				if ch.Base != nil && ch.Base.Hook == rs.Input && !t.Dormant {
					bases++
				}
			}
		}
		if bases < 2 {
			return one(pass(sub, "One base chain alone decides about input."))
		}
		var out []Result
		classes, gap := s.portClasses(func(p portClass) bool { return p.from == p.to })
		var gaps []fact.Gap
		if gap != nil {
			gaps = append(gaps, *gap)
		}
		for _, f := range []rs.Family{rs.IPv6, rs.IPv4} {
			doors := r.Interfaces(rules.FamilyWord(f))
			if len(doors) == 0 {
				continue
			}
			for _, class := range classes {
				port := class.from
				for _, proto := range []string{"tcp", "udp"} {
					k := toPort(f, proto, port)
					k.IIF = rules.Some(doors[0])
					if at := s.addressOn(f, doors[0]); at.IsValid() {
						k.Daddr = rules.Some(at)
					}
					k.Saddr = rules.Some(netip.MustParseAddr(map[rs.Family]string{rs.IPv6: "2606:4700::1111", rs.IPv4: "8.8.8.8"}[f]))
					t := r.Trace(k.Packet, rs.Input, false)
					named := func(v rules.Visited) bool { return v.Handle != 0 && strings.Contains(v.Rule, strconv.Itoa(int(port))) }
					if t.Verdict == rules.WordUnknown && slices.ContainsFunc(t.Path, func(v rules.Visited) bool { return strings.HasSuffix(v.Result, "accept") && named(v) }) {
						// Whether what it accepts is dropped later depends on what is left open.
						for _, w := range append(slices.Clone(t.Unclear), t.Needs...) {
							gaps = append(gaps, fact.Gap{Reason: fact.UnsupportedGap, What: fmt.Sprintf("rules for %s/%d over %s that depend on %s", proto, port, rules.FamilyWord(f), rules.CauseWords(w))})
						}
						continue
					}
					if t.Verdict != rules.WordDrop && t.Verdict != rules.WordReject {
						continue
					}
					accepted := slices.IndexFunc(t.Path, func(v rules.Visited) bool { return v.Result == "accept" && v.Handle != 0 })
					dropped := slices.IndexFunc(t.Path, func(v rules.Visited) bool {
						return strings.HasSuffix(v.Result, "drop") || strings.HasPrefix(v.Result, "reject") || v.Rule == "policy drop"
					})
					if accepted < 0 || dropped < accepted || t.Path[accepted].Table == t.Path[dropped].Table || !named(t.Path[accepted]) {
						continue
					}
					x := s.Subject()
					x.Family, x.Proto, x.Port = rules.FamilyWord(f), proto, port
					res := fail(x, fmt.Sprintf("%s %s accepts %s/%d over %s, and %s %s drops it all the same: an accept is final for its own chain only.",
						t.Path[accepted].Table, t.Path[accepted].Chain, proto, port, rules.FamilyWord(f), t.Path[dropped].Table, t.Path[dropped].Chain),
						s.ruleEvidence([]rules.RuleRef{t.Path[accepted].RuleRef, t.Path[dropped].RuleRef})...)
					res.Remediation = []finding.Remediation{advice("Accept the port in %s %s as well, or keep one table only.", t.Path[dropped].Table, t.Path[dropped].Chain)}
					out = append(out, res)
				}
			}
		}
		switch {
		case len(gaps) > 0:
			out = append(out, unknown(sub, dedupeGaps(gaps)...))
		case out == nil:
			out = one(pass(sub, "What one base chain accepts by port no other one drops."))
		}
		return out
	})
}

// addressOn is an address of an interface, a global one where it has one; invalid when
// it has none.
func (s *Space) addressOn(f rs.Family, ifname string) (out netip.Addr) {
	if l := s.linkNamed(ifname); l != nil {
		for _, a := range s.Addrs(l.Index, rules.FamilyWord(f)) {
			if !out.IsValid() || out.IsLinkLocalUnicast() {
				out = a.Prefix.Addr()
			}
		}
	}
	return out
}

// replies are the source ports that stateless rules let back in.
var replyPorts = map[string][]uint16{"tcp": {20, 53, 80, 443}, "udp": {53, 67, 123, 443}}

// stateless judges rules that take a packet for an answer by its source port or flags.
func stateless(c *Context) []Result {
	return c.eachFilter(func(s *Space, r *reachable) []Result {
		sub := s.Subject()
		if g := s.placeGap(); g != nil {
			return one(unknown(sub, *g))
		}
		if len(r.Interfaces("ipv6")) == 0 {
			return one(notApplicable(sub, "No interface of this namespace hears others over IPv6."))
		}
		named := r.NamedPorts()
		free := named[len(named)-1]
		var doubt answered
		for _, proto := range []string{"tcp", "udp"} {
			plain := toPort(rs.IPv6, proto, free)
			if a := s.ask(question{what: "an unasked packet to an unnamed " + proto + " port", kinds: []rules.Kind{plain}}, ""); a.fateKind != out {
				if a.fateKind == unclear {
					doubt = a
				}
				continue // FW-01 says so
			}
			for _, sp := range replyPorts[proto] {
				k := plain
				k.Sport = rules.Range{From: sp, To: sp}
				k.Name = fmt.Sprintf("a new %s packet from port %d to port %d", proto, sp, free)
				switch a := s.ask(question{what: k.Name, kinds: []rules.Kind{k}}, ""); a.fateKind {
				case in:
					sub.Proto = proto
					res := fail(sub, fmt.Sprintf("A new %s packet gets in to any port when it comes from port %d: the rules take it for an answer, and conntrack is not asked.", proto, sp), s.fateEvidence(&a.by)...)
					res.Remediation = []finding.Remediation{s.put(rs.Input, decided(a), acceptRelated[0], acceptRelated[1]), advice("Then delete the rule that the evidence names."), s.lasts()}
					return one(res)
				case unclear:
					doubt = a
				}
			}
		}
		if doubt.fateKind == unclear {
			return one(s.doubtful(sub, doubt))
		}
		return one(pass(sub, "No source port makes the rules take a new packet for an answer."))
	})
}

// discoveryGroups are the groups of services that servers have no use for.
var discoveryGroups = []struct {
	name, group string
	port        uint16
}{{"mDNS", "ff02::fb", 5353}, {"LLMNR", "ff02::1:3", 5355}, {"SSDP", "ff02::c", 1900}}

// discoveryRules judges rules that let discovery in on a server that denies by default.
func discoveryRules(c *Context) []Result {
	return c.eachFilter(func(s *Space, r *reachable) []Result {
		sub := s.Subject()
		if g := s.placeGap(); g != nil {
			return one(unknown(sub, *g))
		}
		if c.Role.Name == RoleWorkstation {
			return one(notApplicable(sub, "A workstation finds printers and names that way."))
		}
		named := r.NamedPorts()
		plain := toPort(rs.IPv6, "udp", named[len(named)-1])
		if a := s.ask(question{what: "a datagram to a port that no rule names", kinds: []rules.Kind{plain}}, ""); a.fateKind == in {
			return one(notApplicable(sub, "The rules do not deny by default (FW-01): whether something listens decides (LISTEN-16)."))
		}
		var bad []string
		var worst answered
		for _, d := range discoveryGroups {
			k := to(from(toPort(rs.IPv6, "udp", d.port), linkLocal), netip.MustParseAddr(d.group))
			k.Sport, k.Name = rules.Range{From: d.port, To: d.port}, "a multicast "+d.name+" query"
			a := s.ask(question{what: k.Name, kinds: []rules.Kind{k}}, "")
			if a.fateKind == in {
				bad = append(bad, d.name)
			}
			worst = worst.better(a)
		}
		switch worst.fateKind {
		case in:
			res := fail(sub, "The rules let multicast discovery in: "+strings.Join(bad, ", ")+".", s.fateEvidence(&worst.by)...)
			res.Remediation = []finding.Remediation{s.put(rs.Input, decided(worst), "ip6 daddr { ff02::fb, ff02::1:3, ff02::c } udp dport { 5353, 5355, 1900 } drop", "-d ff02::fb -p udp --dport 5353 -j DROP"), s.lasts()}
			return one(res)
		case unclear:
			return one(s.doubtful(sub, worst))
		}
		return one(pass(sub, "The rules keep multicast discovery out.", s.fateEvidence(&worst.by)...))
	})
}

// bridgedPackets judges whether forward rules see what a bridge passes between its ports.
func bridgedPackets(c *Context) []Result {
	return c.eachFilter(func(s *Space, r *reachable) []Result {
		if g := gapOf(s.Links); g != nil {
			return one(unknown(s.Subject(), *g))
		}
		filters := false
		for _, t := range r.Model.Set.Tables {
			if t.Family == rs.Bridge && !t.Dormant {
				return one(notApplicable(s.Subject(), "Chains of family bridge filter here."))
			}
			for _, ch := range t.Chains {
				filters = filters || !t.Dormant && (t.Family == rs.Inet || t.Family == rs.IPv6) && ch.Base != nil && ch.Base.Hook == rs.Forward && (len(ch.Rules) > 0 || ch.Base.Policy == rs.Drop)
			}
		}
		if !filters {
			return one(notApplicable(s.Subject(), "No rule filters forwarded IPv6 packets."))
		}
		var out []Result
		for i := range s.links {
			b := &s.links[i]
			ports := 0
			for j := range s.links {
				if s.links[j].Master == b.Index && s.links[j].Flags&iffUp != 0 {
					ports++
				}
			}
			if b.Kind != "bridge" || ports < 2 {
				continue
			}
			sub := s.On(b.Name)
			call := s.PacketFilter.BridgeNFCall
			v, known := call.Get()
			ev := c.observed("/proc/sys/net/bridge", "bridge-nf-call-ip6tables", call.Or("absent"))
			switch {
			case known && v != "0":
				out = append(out, pass(sub, "Bridged IPv6 packets pass the forward rules.", ev))
			case gapOf(call) != nil:
				out = append(out, unknown(sub, *gapOf(call)))
			default:
				res := fail(sub, fmt.Sprintf("%s of %s send IPv6 to each other past every forward rule: bridged packets do not meet the chains of IP.", count(ports, "port"), b.Name), ev)
				if c.Role.Name == RoleKubeNode {
					res.Severity = finding.Medium
					res.Message += " Network policies between pods of this node do not hold."
				}
				out = append(out, res)
			}
		}
		if out == nil {
			out = one(notApplicable(s.Subject(), "No bridge here has two ports that are up."))
		}
		return out
	})
}

// encapsulations are what carries IPv6 out past a filter that does not look into it.
func encapsulations() []rules.Kind {
	var out []rules.Kind
	add := func(f rs.Family, proto uint8, name string) {
		k := protocol(f, proto, name).kinds[0]
		k.Name += " over " + rules.FamilyWord(f)
		out = append(out, k)
	}
	add(rs.IPv4, protoIPv6, "protocol 41 (6in4, 6to4, ISATAP)")
	add(rs.IPv4, 97, "protocol 97 (EtherIP)")
	add(rs.IPv6, protoIPv6, "protocol 41 (IPv6 in IPv6)")
	add(rs.IPv6, protoIPIP, "protocol 4 (IPv4 in IPv6)")
	for _, p := range []uint16{3544, 3653, 5072} {
		k := toPort(rs.IPv4, "udp", p)
		k.Name = map[uint16]string{3544: "Teredo (udp/3544)", 3653: "TSP (udp/3653)", 5072: "AYIYA (udp/5072)"}[p]
		out = append(out, k)
	}
	relay := protocol(rs.IPv4, protoIPv6, "the 6to4 relay 192.88.99.1").kinds[0]
	return append(out, to(relay, netip.MustParseAddr("192.88.99.1")))
}

// escapes asks about packets that this host sends, by the interfaces of its routes.
func (s *Space) escapes(k rules.Kind) answered {
	r := s.reach()
	var best answered
	for i, n := range r.Interfaces(rules.FamilyWord(k.Family)) {
		f := r.Outgoing(k, n)
		f.Interface = n
		a := judge(f, true)
		if a.fateKind == unclear {
			// A rule about the user: what an ordinary one may do counts.
			k := k
			k.UID = rules.Some(uint32(1000))
			f = r.Outgoing(k, n)
			f.Interface = n
			a = judge(f, true)
		}
		if best = best.better(a); i == 0 {
			best = a
		}
		if best.fateKind == in {
			break
		}
	}
	return best
}

func egressDefault(c *Context) []Result {
	return c.eachFilter(func(s *Space, r *reachable) []Result {
		sub := s.Subject()
		if g := s.placeGap(); g != nil {
			return one(unknown(sub, *g))
		}
		if len(r.Interfaces("ipv6")) == 0 {
			return one(notApplicable(sub, "No interface of this namespace leads out."))
		}
		named := r.NamedPorts()
		k := to(toPort(rs.IPv6, "tcp", named[len(named)-1]), netip.MustParseAddr("2606:4700::1111"))
		a := s.escapes(k)
		switch a.fateKind {
		case in:
			return one(fail(sub, "Any program here may connect to any host over IPv6.", s.fateEvidence(&a.by)...))
		case unclear:
			return one(s.doubtful(sub, a))
		}
		return one(pass(sub, "New connections leave only where a rule lets them.", s.fateEvidence(&a.by)...))
	})
}

func tunnelEgress(c *Context) []Result {
	return c.eachFilter(func(s *Space, r *reachable) []Result {
		sub := s.Subject()
		if g := s.placeGap(); g != nil {
			return one(unknown(sub, *g))
		}
		if len(r.Interfaces("ipv4"))+len(r.Interfaces("ipv6")) == 0 {
			return one(notApplicable(sub, "No interface of this namespace leads out."))
		}
		var bad []string
		var worst answered
		for _, k := range encapsulations() {
			if len(r.Interfaces(rules.FamilyWord(k.Family))) == 0 {
				continue
			}
			a := s.escapes(k)
			if a.fateKind == in {
				bad = append(bad, k.Name)
			}
			worst = worst.better(a)
		}
		switch worst.fateKind {
		case unclear:
			return one(s.doubtful(sub, worst))
		case out, pinned:
			return one(pass(sub, "Encapsulated packets are dropped on their way out.", s.fateEvidence(&worst.by)...))
		}
		res := fail(sub, "Programs here may send packets inside packets: "+listing(bad, 3)+". The answers come in as established, whatever the input rules say.", s.fateEvidence(&worst.by)...)
		named := r.NamedPorts()
		if a := s.escapes(toPort(rs.IPv4, "tcp", named[len(named)-1])); a.fateKind == out {
			res.Severity = finding.Medium
			res.Message += " The rules limit what leaves otherwise, so this is a way round them."
		}
		return one(res)
	})
}

func tunnelIngress(c *Context) []Result {
	return c.eachFilter(func(s *Space, r *reachable) []Result {
		if g := s.placeGap(); g != nil {
			return one(unknown(s.Subject(), *g))
		}
		var res []Result
		for _, t := range []struct {
			f     rs.Family
			proto uint8
			word  string
			kinds []string
		}{
			{rs.IPv4, protoIPv6, "IPv6 in IPv4", []string{"sit"}},
			{rs.IPv4, protoIPIP, "IPv4 in IPv4", []string{"ipip", "sit"}},
			{rs.IPv4, protoGRE, "GRE", []string{"gre", "gretap", "erspan"}},
			{rs.IPv6, protoIPv6, "IPv6 in IPv6", []string{"ip6tnl"}},
			{rs.IPv6, protoIPIP, "IPv4 in IPv6", []string{"ip6tnl"}},
			{rs.IPv6, protoGRE, "GRE", []string{"ip6gre", "ip6gretap", "ip6erspan"}},
		} {
			if len(r.Interfaces(rules.FamilyWord(t.f))) == 0 {
				continue
			}
			sub := s.Subject()
			sub.Family, sub.Key = rules.FamilyWord(t.f), fmt.Sprintf("protocol-%d", t.proto)
			a := s.ask(protocol(t.f, t.proto, fmt.Sprintf("a packet of protocol %d (%s)", t.proto, t.word)), "")
			ev := s.fateEvidence(&a.by)
			opener := slices.IndexFunc(s.links, func(l fact.Link) bool { return slices.Contains(t.kinds, kindOf(&l)) && l.Flags&iffUp != 0 })
			switch a.fateKind {
			case out, pinned:
				res = append(res, pass(sub, fmt.Sprintf("%s from strangers is dropped.", t.word), ev...))
			case unclear:
				res = append(res, s.doubtful(sub, a))
			default:
				x := fail(sub, fmt.Sprintf("Any sender's %s gets in over %s.", t.word, rules.FamilyWord(t.f)), ev...)
				if opener >= 0 {
					x.Message += fmt.Sprintf(" The device %s opens such packets, and what is inside comes in by it.", s.links[opener].Name)
					x.Severity = finding.Medium // TUN-01 weighs the device itself
				} else {
					x.Message += " No device here opens it now."
				}
				x.Remediation = []finding.Remediation{s.put(rs.Input, decided(a), fmt.Sprintf("meta nfproto %s meta l4proto %d drop", rules.FamilyWord(t.f), t.proto), ""), s.lasts()}
				res = append(res, x)
			}
		}
		if res == nil {
			res = one(notApplicable(s.Subject(), "No interface of this namespace hears others."))
		}
		return res
	})
}
