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

// eachDoor runs f for every interface that hears others over IPv6 in a namespace with
// rules, and says so when there is none.
func (c *Context) eachDoor(f func(*Space, *fact.Link) []Result) []Result {
	return c.eachFilter(func(s *Space, r *reachable) []Result {
		if g := s.placeGap(); g != nil {
			return one(unknown(s.Subject(), *g))
		}
		var out []Result
		for _, n := range r.Interfaces("ipv6") {
			if l := s.linkNamed(n); l != nil {
				out = append(out, f(s, l)...)
			}
		}
		if out == nil {
			out = one(notApplicable(s.Subject(), "No interface of this namespace hears others over IPv6."))
		}
		return out
	})
}

// doubtful is an unknown that an open answer leaves.
func (s *Space) doubtful(sub finding.Subject, a answered) Result {
	gaps := a.gaps
	if len(gaps) == 0 {
		gaps = []fact.Gap{{Reason: fact.UnsupportedGap, What: because(nil)}}
	}
	r := unknown(sub, gaps...)
	r.Evidence = s.fateEvidence(&a.by)
	return r
}

// takesRAs says who acts on router advertisements of an interface: the kernel, or a
// program.
func (s *Space) takesRAs(l *fact.Link) (who string, gap *fact.Gap) {
	ra := s.raOf(l)
	switch {
	case ra.accepts:
		return "the kernel", nil
	case ra.client != "":
		return ra.client, nil
	case ra.gap != nil:
		return "", ra.gap
	}
	return "", ra.clientGap
}

func evalRAGuard(c *Context) []Result {
	return c.eachDoor(func(s *Space, l *fact.Link) []Result {
		sub := s.On(l.Name)
		who, gap := s.takesRAs(l)
		q := anyRA()
		if who != "" && who != "the kernel" {
			q = rawRA()
		}
		a := s.ask(q, l.Name)
		ev := s.fateEvidence(&a.by)
		switch {
		case a.fateKind == out:
			return one(pass(sub, "Every router advertisement is dropped on "+l.Name+".", ev...))
		case a.fateKind == pinned:
			return one(pass(sub, fmt.Sprintf("Router advertisements get in by %s from %s only. A neighbour that forges that source is still heard.", l.Name, a.by.Sources()), ev...))
		case who == "" && gap == nil:
			return one(notApplicable(sub, "Neither the kernel nor a program takes router advertisements on "+l.Name+"."))
		case a.fateKind == unclear:
			return one(s.doubtful(sub, a))
		case who == "":
			return one(unknown(sub, *gap))
		}
		plain := s.ask(plainRA(), l.Name)
		msg := fmt.Sprintf("The rules let any neighbour's router advertisement in by %s, and %s takes it.", l.Name, who)
		if plain.fateKind == out || plain.fateKind == pinned {
			msg = fmt.Sprintf("The rules drop a plain router advertisement of a stranger on %s, and let %s in, which %s takes as well.", l.Name, a.by.Kind.Name, who)
			ev = append(ev, s.ruleEvidence(plain.by.DecidedBy)...)
		}
		guard := s.defeated()
		if guard != nil {
			msg += " There is a rule that looks like a guard and does not stop it: " + guard[0].Key + "."
			ev = append(ev, guard...)
		}
		r := fail(sub, msg, ev...)
		if ra := s.raOf(l); !ra.wanted() {
			r.Remediation = append(r.Remediation, s.put(rs.Input, decided(a), "iifname "+quotedNames([]string{l.Name})+" icmpv6 type nd-router-advert drop", "-i "+shellWord(l.Name)+" -p icmpv6 --icmpv6-type router-advertisement -j DROP"))
		} else {
			router := "fe80::1"
			for _, g := range s.gateways() {
				if g.index == l.Index {
					router = g.via.String()
				}
			}
			r.Remediation = append(r.Remediation, s.put(rs.Input, decided(a), "iifname "+quotedNames([]string{l.Name})+" icmpv6 type nd-router-advert ip6 saddr != "+router+" drop", "-i "+shellWord(l.Name)+" -p icmpv6 --icmpv6-type router-advertisement ! -s "+router+" -j DROP"))
		}
		r.Remediation = append(r.Remediation, s.lasts())
		return one(r)
	})
}

// defeated are rules on router advertisements that drop, as evidence: some stand in
// chains that nothing reaches, or behind an accept.
func (s *Space) defeated() []finding.Evidence {
	r := s.reach()
	var out []finding.Evidence
	for _, t := range r.Model.Set.Tables {
		if t.Dormant || t.Family != rs.Inet && t.Family != rs.IPv6 && t.Family != rs.Netdev {
			continue
		}
		for _, c := range t.Chains {
			for _, x := range c.Rules {
				if len(out) == 3 {
					return out
				}
				if !dropsType(x, typeRA) {
					continue
				}
				out = append(out, s.ruleEvidence([]rules.RuleRef{r.Model.Ref(c, x)})...)
			}
		}
		// A chain that is called a guard and that no packet comes to.
		for _, l := range r.lints() {
			name := strings.ToLower(l.Chain)
			if l.ID == rules.LintUnhookedChain && l.Table == t.Family.String()+" "+t.Name && (strings.Contains(name, "ra") && strings.Contains(name, "guard")) && len(out) < 3 {
				out = append(out, finding.Evidence{Source: "packet filter", Key: l.Table + " " + l.Chain, Value: l.Message, At: s.ctx.At(), Volatile: true})
			}
		}
	}
	return out
}

// dropsType tells whether a rule compares the ICMPv6 type with typ and drops.
func dropsType(x *rs.Rule, typ byte) bool {
	named, drops := false, false
	loaded := false
	for _, e := range x.Exprs {
		switch e := e.(type) {
		case rs.Payload:
			loaded = e.Base == rs.TransportHeader && e.Offset == 0
		case rs.Cmp:
			named = named || loaded && len(e.Data) > 0 && e.Data[0] == typ
		case rs.Range:
			named = named || loaded && len(e.From) > 0 && len(e.To) > 0 && e.From[0] <= typ && typ <= e.To[0]
		case rs.Lookup:
			if set := x.Chain.Table.Sets[e.Set]; loaded && set != nil {
				for _, el := range set.Elements {
					named = named || len(el.From) > 0 && el.From[0] == typ
				}
			}
		case rs.Conclude:
			drops = drops || e.Verdict == rs.Drop
		case rs.Reject:
			drops = true
		}
	}
	return named && drops
}

// evalHiddenRA is about programs that act on advertisements the kernel refuses.
func evalHiddenRA(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		sub := s.On(l.Name)
		ra := s.raOf(l)
		switch {
		case ra.client == "" && ra.clientGap != nil:
			return one(unknown(sub, *ra.clientGap))
		case ra.client == "":
			return one(notApplicable(sub, "No program takes router advertisements on "+l.Name+"; the kernel refuses fragments of them itself (SYSCTL-ND-01)."))
		}
		if !s.reach().filters() {
			r := fail(sub, fmt.Sprintf("%s acts on router advertisements that are fragmented or behind another header: no rule drops them, and the kernel's own check does not cover it. Switches that look for advertisements miss these forms.", ra.client))
			r.Severity = finding.Medium // the plain ones get in, too
			r.Evidence = s.raClientEvidence(ra)
			r.Remediation = s.dropHidden(answered{})
			return one(r)
		}
		a := s.ask(hiddenRA(), l.Name)
		ev := append(s.raClientEvidence(ra), s.fateEvidence(&a.by)...)
		switch a.fateKind {
		case out, pinned:
			return one(pass(sub, "Fragmented and hidden router advertisements of strangers are dropped on "+l.Name+".", ev...))
		case unclear:
			return one(s.doubtful(sub, a))
		}
		r := fail(sub, fmt.Sprintf("%s acts on what it is handed, and the rules let %s in by %s.", ra.client, a.by.Kind.Name, l.Name), ev...)
		if plain := s.ask(plainRA(), l.Name); plain.fateKind == in {
			r.Severity = finding.Medium
			r.Message += " Plain ones get in as well (RA-01)."
		}
		r.Remediation = s.dropHidden(a)
		return one(r)
	})
}

func (s *Space) raClientEvidence(ra raState) []finding.Evidence {
	return []finding.Evidence{s.ctx.observed("network manager, raw sockets", "takes router advertisements", ra.client)}
}

// dropHidden drops neighbour discovery that is not plain, before reassembly.
func (s *Space) dropHidden(answered) []finding.Remediation {
	return []finding.Remediation{
		command("%s", s.Run(nft("add table inet ndsane; add chain inet ndsane raw { type filter hook prerouting priority -450; }; add rule inet ndsane raw icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect } exthdr frag exists drop; add rule inet ndsane raw icmpv6 type nd-router-advert exthdr hbh exists drop; add rule inet ndsane raw icmpv6 type nd-router-advert exthdr dst exists drop"))),
		s.lasts(),
	}
}

// senderLimit judges whether a flood of solicitations is limited by its sender.
func senderLimit(c *Context) []Result {
	return c.eachDoor(func(s *Space, l *fact.Link) []Result {
		if l.Flags&(iffNoARP|iffPointToPoint) != 0 {
			return one(notApplicable(s.On(l.Name), "Nothing is resolved on this interface."))
		}
		a := s.ask(question{what: "a solicitation from a stranger", narrow: true, kinds: []rules.Kind{from(to(onLink(typeNS, "a neighbour solicitation"), solicitedOf), linkLocal)}}, l.Name)
		sub, ev := s.On(l.Name), s.fateEvidence(&a.by)
		switch {
		case a.fateKind == out:
			return one(pass(sub, "Neighbour solicitations are dropped on "+l.Name+".", ev...))
		case a.fateKind == unclear:
			return one(s.doubtful(sub, a))
		case a.by.Limited:
			return one(pass(sub, "Neighbour solicitations are limited on "+l.Name+".", ev...))
		}
		r := fail(sub, "A neighbour on "+l.Name+" may send any number of solicitations with made-up sources; each makes an entry in the neighbour table.", ev...)
		r.Remediation = []finding.Remediation{
			command("%s", s.Run(nft("add table inet ndlimit; add set inet ndlimit rate { type ether_addr; size 4096; flags dynamic,timeout; timeout 30s; }; add chain inet ndlimit raw { type filter hook prerouting priority -450; }; add rule inet ndlimit raw icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } update @rate { ether saddr limit rate over 50/second burst 100 packets } drop"))),
			s.lasts(),
		}
		return one(r)
	})
}

// echoLimit judges a limit of pings, where there is one.
func echoLimit(c *Context) []Result {
	return c.eachFilter(func(s *Space, r *reachable) []Result {
		if g := s.placeGap(); g != nil {
			return one(unknown(s.Subject(), *g))
		}
		fresh, next := icmp6(typeEcho, "an echo request", rules.CtNew), icmp6(typeEcho, "the second echo request of a ping", rules.CtEstablished)
		sub := s.Subject()
		sub.Key = "icmpv6-echo"
		first := s.ask(question{what: "the first echo request", narrow: true, kinds: []rules.Kind{fresh}}, "")
		if first.by.Interface == "" {
			return one(notApplicable(sub, "No interface of this namespace hears others over IPv6."))
		}
		var out []Result
		for _, l := range r.lints() {
			if l.ID != rules.LintFailClosed || !strings.Contains(l.Rule, "echo") {
				continue
			}
			x := fail(sub, "The limit of echo requests shuts everybody out once somebody has filled its set with made-up senders.", finding.Evidence{Source: "packet filter", Key: l.Table + " " + l.Chain, Value: l.Rule, At: s.ctx.At(), Volatile: true})
			x.Subject.Key = "icmpv6-echo-set"
			x.Severity = finding.Low
			x.Remediation = []finding.Remediation{advice("Turn the rule round: `update @SET { ip6 saddr limit rate over 10/second } drop` refuses only who is too fast, and lets through when the set is full.")}
			out = append(out, x)
			break
		}
		switch {
		case first.fateKind == unclear:
			return append(out, s.doubtful(sub, first))
		case !first.by.Limited:
			return append(out, notApplicable(sub, "No rule limits echo requests."))
		}
		second := s.ask(question{what: "the next echo request", narrow: true, kinds: []rules.Kind{next}}, first.by.Interface)
		ev := append(s.fateEvidence(&first.by), s.fateEvidence(&second.by)...)
		switch {
		case second.fateKind == in && !second.by.Limited:
			x := fail(sub, "Only the first echo request of a ping meets the limit: the others are accepted as established before it.", ev...)
			x.Remediation = []finding.Remediation{advice("Move the rule that limits echo requests in front of the one that accepts established packets."), s.lasts()}
			out = append(out, x)
		case s.globalLimit(first.by):
			x := fail(sub, "The limit of echo requests is one for all senders: who uses it up keeps everybody's monitoring out.", ev...)
			x.Severity = finding.Low
			x.Remediation = []finding.Remediation{advice("Limit by sender: `update @echo6 { ip6 saddr limit rate over 10/second burst 20 packets } drop`, with `set echo6 { type ipv6_addr; size 65536; flags dynamic,timeout; timeout 30s; }`."), s.lasts()}
			out = append(out, x)
		default:
			out = append(out, pass(sub, "Echo requests are limited by sender, the later ones of a ping as well.", ev...))
		}
		return out
	})
}

// globalLimit tells whether a rule that decides has a limit without a set of senders.
func (s *Space) globalLimit(f rules.Fate) bool {
	for _, t := range s.reach().Model.Set.Tables {
		for _, c := range t.Chains {
			for _, x := range c.Rules {
				limit, dynamic := false, false
				for _, e := range x.Exprs {
					switch e.(type) {
					case rs.Limit:
						limit = true
					case rs.Dynset:
						dynamic = true
					}
				}
				if limit && !dynamic && slices.ContainsFunc(f.DecidedBy, func(d rules.RuleRef) bool { return d == s.reach().Model.Ref(c, x) }) {
					return true
				}
			}
		}
	}
	return false
}

// fragments judges neighbour discovery in fragments, where something would act on it.
func fragments(c *Context) []Result {
	return c.eachDoor(func(s *Space, l *fact.Link) []Result {
		sub := s.On(l.Name)
		a := s.ask(fragmentedND(), l.Name)
		ev := s.fateEvidence(&a.by)
		if a.fateKind == out {
			return one(pass(sub, "The rules drop neighbour discovery in fragments on "+l.Name+".", ev...))
		}
		k := s.ConfInt(l.Name, "suppress_frag_ndisc")
		v, known := k.Get()
		switch {
		case !known && gapOf(k) != nil:
			return one(unknown(sub, *gapOf(k)))
		case known && v != 0:
			return one(pass(sub, fmt.Sprintf("The rules may let neighbour discovery in fragments in; the kernel refuses it on %s (suppress_frag_ndisc=%d). RA-14 looks at programs.", l.Name, v), append(ev, s.confEvidence(l.Name, "suppress_frag_ndisc"))...))
		case a.fateKind == unclear:
			return one(s.doubtful(sub, a))
		}
		r := fail(sub, fmt.Sprintf("The rules let neighbour discovery in fragments in by %s, and the kernel takes it.", l.Name), append(ev, s.confEvidence(l.Name, "suppress_frag_ndisc"))...)
		r.Remediation = append(s.dropHidden(a), s.SetConf(l.Name, "suppress_frag_ndisc", "1")...)
		return one(r)
	})
}

// dhcpReplies judges the way of a DHCPv6 server's answer on interfaces that need it.
func dhcpReplies(c *Context) []Result {
	clients := map[int]string{}
	var doubt *fact.Gap
	ms, ok := c.Snap.Host.Managers.Get()
	if !ok {
		doubt = gapOf(c.Snap.Host.Managers)
	}
	for i := range ms {
		if runs, known := ms[i].Running.Get(); known && !runs {
			continue
		}
		links, _ := c.managedLinks(&ms[i])
		for _, ml := range links {
			if ml.set == nil || ml.s != c.primary() {
				continue
			}
			if on, known := ml.set.DHCPv6.Get(); known && on {
				clients[ml.l.Index] = ms[i].Name
			}
		}
	}
	return c.eachDoor(func(s *Space, l *fact.Link) []Result {
		sub := s.On(l.Name)
		who := ""
		if s == c.primary() {
			who = clients[l.Index]
		}
		if who == "" && s.Addressing(l) == addrDHCPv6 {
			who = "its address (a lease)"
		}
		switch {
		case who == "" && doubt != nil:
			return one(unknown(sub, *doubt))
		case who == "":
			return one(notApplicable(sub, "No DHCPv6 client is known on "+l.Name+"."))
		}
		k := from(toPort(rs.IPv6, "udp", 546), linkLocal)
		k.Sport, k.Name = rules.Range{From: 547, To: 547}, "a DHCPv6 server's reply"
		for _, a := range s.Addrs(l.Index, "ipv6") {
			if a.Prefix.Addr().IsLinkLocalUnicast() {
				k = to(k, a.Prefix.Addr())
			}
		}
		a := s.ask(question{what: "a DHCPv6 reply on " + l.Name, kinds: []rules.Kind{k}}, l.Name)
		ev := append([]finding.Evidence{c.observed("network manager, addresses", "DHCPv6 on "+l.Name, who)}, s.fateEvidence(&a.by)...)
		switch a.fateKind {
		case in, pinned:
			return one(pass(sub, "DHCPv6 replies get in by "+l.Name+".", ev...))
		case unclear:
			return one(s.doubtful(sub, a))
		}
		r := fail(sub, fmt.Sprintf("%s needs DHCPv6 on %s, and the rules drop the server's replies: they answer a multicast, so conntrack calls them new.", capital(who), l.Name), ev...)
		r.Remediation = []finding.Remediation{
			s.put(rs.Input, decided(a), "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept", "-s fe80::/10 -p udp --sport 547 --dport 546 -j ACCEPT"), s.lasts(),
		}
		return one(r)
	})
}

// mappedRule judges whether rules refuse sources that look like IPv4.
func mappedRule(c *Context) []Result {
	gap := c.mappedSources()
	return c.eachFilter(func(s *Space, r *reachable) []Result {
		if g := firstGap(s.placeGap(), gapOf(s.Sockets)); g != nil {
			return one(unknown(s.Subject(), *g))
		}
		sub := s.Subject()
		sub.Address = "::ffff:0:0/96"
		var worst answered
		var name string
		fooled := false
		e := s.listening()
		for i := range e.list {
			k := &e.list[i]
			if k.Family != "ipv6" || !k.dual || k.v6 <= thisHost || k.ephemeral || k.Protocol != "udp" && k.Protocol != "udplite" {
				continue
			}
			if a := s.ask(mappedTo(k), ""); a.fateKind > worst.fateKind {
				worst, name, fooled = a, service(k), true
			}
			if worst.fateKind == in {
				break
			}
		}
		if worst.fateKind == out {
			k := from(icmp6(typeEcho, "an echo request from ::ffff:127.0.0.1", rules.CtNew), mappedLocal)
			worst = s.ask(question{what: k.Name, narrow: true, kinds: []rules.Kind{k}}, "")
		}
		ev := s.fateEvidence(&worst.by)
		switch {
		case worst.fateKind == out || worst.fateKind == pinned:
			return one(pass(sub, "The rules drop packets with an IPv4-mapped source.", ev...))
		case gap != nil:
			return one(unknown(sub, *gap))
		case worst.fateKind == unclear:
			return one(s.doubtful(sub, worst))
		}
		res := fail(sub, "The rules let packets with the source ::ffff:127.0.0.1 in.", ev...)
		if fooled {
			res.Message = fmt.Sprintf("The rules let a datagram from ::ffff:127.0.0.1 in to %s, a dual-stack socket: the program takes its sender for this host.", name)
		} else {
			res.Severity = finding.Low
			res.Message += " No dual-stack UDP service would be fooled at this moment."
		}
		res.Remediation = []finding.Remediation{
			command("%s", s.Run(nft("add table ip6 nomapped; add chain ip6 nomapped raw { type filter hook prerouting priority -300; }; add rule ip6 nomapped raw ip6 saddr { ::ffff:0:0/96, ::/96 } ip6 saddr != { ::, ::1 } drop"))), s.lasts(),
		}
		return one(res)
	})
}

// onLinkOf are the global prefixes that are on-link on an interface.
func (s *Space) onLinkOf(l *fact.Link) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range s.Addrs(l.Index, "ipv6") {
		if p := a.Prefix.Masked(); p.Addr().IsGlobalUnicast() && p.Bits() < 128 && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// maxSpoofed bounds the questions of FW-18: interfaces that claim to be others, times
// kinds of packets.
const maxSpoofed = 20_000

// spoofing judges packets that come in by one interface with a source that lives behind
// another.
func spoofing(c *Context) []Result {
	return c.eachFilter(func(s *Space, r *reachable) []Result {
		if g := s.placeGap(); g != nil {
			return one(unknown(s.Subject(), *g))
		}
		behind := map[string][]netip.Prefix{}
		var names []string
		for _, n := range r.Interfaces("ipv6") {
			if ps := s.onLinkOf(s.linkNamed(n)); len(ps) > 0 {
				behind[n] = ps[:1]
				names = append(names, n)
			}
		}
		if len(names) < 2 {
			return one(notApplicable(s.Subject(), "Fewer than two interfaces have a network of their own: there is no other side to forge."))
		}
		classes, gap := s.portClasses(func(p portClass) bool { return p.from == p.to })
		kinds := some(rs.IPv6)[1:]
		for _, p := range classes {
			kinds = append(kinds, toPort(rs.IPv6, "tcp", p.from), toPort(rs.IPv6, "udp", p.from))
		}
		if most := max(34, maxSpoofed/(len(names)*len(names))); most < len(kinds) {
			kinds, gap = kinds[:most], &fact.Gap{Reason: fact.Truncated, What: "some classes of ports that the rules tell apart"}
		}
		var res []Result
		for _, n := range names {
			res = append(res, s.spoofedOn(n, names, behind, kinds, gap))
		}
		return res
	})
}

func (s *Space) spoofedOn(n string, names []string, behind map[string][]netip.Prefix, kinds []rules.Kind, left *fact.Gap) Result {
	sub := s.On(n)
	var open, trusted, doubt answered
	for _, other := range names {
		if other == n {
			continue
		}
		p := behind[other][0]
		if slices.Contains(behind[n], p) {
			continue
		}
		for _, k := range kinds {
			spoofed := s.ask(question{what: k.Name + " from " + p.String(), narrow: true, kinds: []rules.Kind{from(k, p)}}, n)
			switch spoofed.fateKind {
			case in:
				open = spoofed
				// Does the source buy anything that a stranger has not got?
				far := s.ask(question{what: k.Name + " from afar", narrow: true, kinds: []rules.Kind{from(k, netip.MustParsePrefix("2606:4700::/32"))}}, n)
				if far.fateKind == out {
					trusted = spoofed
				}
			case unclear:
				doubt = spoofed
			}
			if trusted.fateKind == in {
				break
			}
		}
	}
	fix := []finding.Remediation{
		command("%s", s.Run(nft("add table ip6 rpf; add chain ip6 rpf raw { type filter hook prerouting priority -300; }; add rule ip6 rpf raw icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept; add rule ip6 rpf raw iifname "+quotedNames([]string{n})+" fib saddr . iif oif missing drop"))), s.lasts(),
	}
	switch {
	case trusted.fateKind == in:
		r := fail(sub, fmt.Sprintf("%s that claims to come from the network behind another interface gets in by %s, and nobody else's does: the rules trust an address that anybody can write.", capital(trusted.by.Kind.Name), n), s.fateEvidence(&trusted.by)...)
		r.Remediation = fix
		return r
	case open.fateKind == in:
		r := fail(sub, fmt.Sprintf("Packets that come in by %s with a source from behind another interface are not dropped. The rules let strangers do the same, so it opens nothing more here.", n), s.fateEvidence(&open.by)...)
		r.Severity, r.Remediation = finding.Low, fix
		if left != nil {
			r.Message += " Not asked about: " + left.What + "."
		}
		return r
	case doubt.fateKind == unclear:
		return s.doubtful(sub, doubt)
	case left != nil:
		return unknown(sub, *left)
	}
	return pass(sub, "Packets that come in by "+n+" with a source from behind another interface are dropped.")
}
