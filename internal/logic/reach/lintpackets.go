package reach

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// anyLink stands for an interface that no rule names, where no host is known.
var anyLink = &fact.Link{Name: "some interface"}

// asked are the interfaces that questions about a ruleset are put on.
func (l *linter) asked() []*fact.Link {
	if l.sp.Links.State() != fact.StateValue {
		return []*fact.Link{anyLink}
	}
	return l.sp.doorsOutside("ipv6", "")
}

// filters tells whether any chain may drop what a family sends to this host.
func (l *linter) filters(f rs.Family) bool {
	for _, t := range l.sp.Model.Set.Tables {
		if t.Dormant || t.Family != rs.Inet && t.Family != f {
			continue
		}
		for _, c := range t.Chains {
			if c.Base != nil && c.Base.Type == "filter" && c.Base.Hook == rs.Input && (c.Base.Policy == rs.Drop || len(c.Rules) > 0) {
				return true
			}
		}
	}
	return false
}

// packets puts packets to the rules that every IPv6 host depends on, and some that
// it should not take.
func (l *linter) packets() {
	l.oneFamily()
	if on, ok := l.sp.IPv6.Get(); ok && !on {
		return
	}
	for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
		if l.filters(f) {
			l.established(f)
			l.late(f)
		}
	}
	l.forwarding()
	if !l.filters(rs.IPv6) {
		return
	}
	l.icmpv6()
	l.neighbours()
	l.limits()
	l.antispoof()
}

// oneFamily finds a ruleset that closes ports over IPv4 and leaves IPv6 alone.
func (l *linter) oneFamily() {
	if on, ok := l.sp.IPv6.Get(); ok && !on || !l.filters(rs.IPv4) && !l.filters(rs.IPv6) {
		return
	}
	four, six := l.sp.Any("tcp", 49151, rs.IPv4), l.sp.Any("tcp", 49151, rs.IPv6)
	say := func(closed, open string, v V) {
		ev := []string{"tcp/49151, which no rule is about, over " + open + " from anywhere: accept"}
		for _, r := range v.DecidedBy {
			ev = append(ev, "decided by "+r.String())
		}
		l.add(LintOneFamily, High, nil, nil, nil, fmt.Sprintf("What no rule names is dropped over %s and accepted over %s.", closed, open), "give "+open+" the same rules: a table of family inet sees both", ev...)
	}
	far4, far6 := setOf(four.Must).Contains(internet4), setOf(six.Must).Contains(internet6)
	switch {
	case len(four.May) == 0 && far6:
		say("IPv4", "IPv6", six)
	case len(six.May) == 0 && far4:
		say("IPv6", "IPv4", four)
	}
}

func setOf(ps []netip.Prefix) packetset.Set {
	var ivs []packetset.Interval
	for _, p := range ps {
		ivs = append(ivs, packetset.PrefixInterval(p))
	}
	return packetset.Normalise(ivs)
}

// established asks about the answer to a connection that this host made.
func (l *linter) established(f rs.Family) {
	for _, door := range l.asked() {
		p := Packet{
			Family: f, IIF: Some(door.Name), Proto: Some(uint8(6)), Sport: Range{443, 443}, Dport: Some(uint16(49151)), TCPFlags: Some(uint8(0x10)),
			Ct: Some(uint32(CtEstablished)), Mark: Some(uint32(0)),
		}
		a := l.sp.unnamed().Ask(p, rs.Input, false)
		if len(a.May()) > 0 {
			continue
		}
		l.add(LintNoEstablished, High, nil, nil, nil, "Answers to the connections that this host makes over "+FamilyWord(f)+" are dropped.", "accept `ct state established,related` early in the input chain",
			"packet: tcp from port 443 to port 49151, ct state established", l.decided(a))
		return
	}
}

func (l *linter) decided(a *Answer) string {
	for _, r := range l.sp.deciders(a, nil, nil) {
		return "decided by " + r.String()
	}
	return "no rule decides"
}

// maxBeforeEstablished is how many rules may stand in front of the accept that most
// packets take.
const maxBeforeEstablished = 30

func (l *linter) late(f rs.Family) {
	for _, t := range l.sp.Model.Set.Tables {
		if t.Dormant || t.Family != f && (t.Family != rs.Inet || f != rs.IPv6) || l.manager(t) != "" {
			continue
		}
		for _, c := range t.Chains {
			if c.Base == nil || c.Base.Hook != rs.Input && c.Base.Hook != rs.Forward || c.Base.Type != "filter" {
				continue
			}
			if i := l.acceptsEstablished(c); i > maxBeforeEstablished {
				l.add(LintLateEstablished, Low, t, c, c.Rules[i], fmt.Sprintf("Every packet of every connection passes %d rules before this one accepts it.", i), "move it to the front of the chain, behind limits that are meant for established flows, too")
			}
		}
	}
}

// acceptsEstablished is the place of the rule that accepts all established flows, or -1.
func (l *linter) acceptsEstablished(c *rs.Chain) int {
	ct := l.x.ctState()
	for i, r := range c.Rules {
		if !slices.ContainsFunc(r.Exprs, func(e rs.Expr) bool { x, ok := e.(rs.Ct); return ok && x.Key == ctState }) {
			continue // a rule without it may be about less, never about that alone
		}
		s := l.shape(r)
		if !s.exact || s.limited || len(s.fields) > 1 {
			continue
		}
		for _, b := range s.branches {
			if in, ok := b.box.get(ct); ok && b.verdict == rs.Accept && len(b.box) == 1 && in.Contains(packetset.Addr{Lo: CtEstablished}) {
				return i
			}
		}
	}
	return -1
}

// icmpv6 asks about the messages of RFC 4890 §4.4.
func (l *linter) icmpv6() {
	essential := map[uint8]string{
		1: "errors of connections", 2: "path MTU discovery", 3: "errors of connections", 4: "errors of connections", 130: "membership behind switches that snoop MLD",
		135: "neighbour discovery", 136: "neighbour discovery",
	}
	var high, low []string
	need := map[string]bool{}
	for _, m := range ICMPv6Local() {
		switch m.Type {
		case 133, 134, 137:
			continue // whether a host takes them is policy
		}
		if !l.sample(m, true) {
			continue
		}
		var on []string
		by := ""
		for _, fate := range l.fates(m) {
			if fate.Dropped() {
				on = append(on, fate.Interface)
				if len(fate.DecidedBy) > 0 {
					by = ", by " + fate.DecidedBy[0].String()
				}
			}
		}
		if len(on) == 0 {
			continue
		}
		text := fmt.Sprintf("%s (type %d) by %s: drop%s", m.Name, m.Type, strings.Join(on, ", "), by)
		if why, ok := essential[m.Type]; ok {
			need[why] = true
			high = append(high, text)
		} else {
			low = append(low, text)
		}
	}
	const remedy = "accept it with `icmpv6 type { … } accept`, without ip6 nexthdr in front; RFC 4890 §4.4 has the list"
	if len(high) > 0 {
		l.add(LintICMPv6Blocked, High, nil, nil, nil, "ICMPv6 that this host cannot do without is dropped: "+strings.Join(sortedKeys(need), "; ")+".", remedy, high...)
	}
	if len(low) > 0 {
		l.add(LintICMPv6Blocked, Info, nil, nil, nil, "ICMPv6 that RFC 4890 wants accepted is dropped.", remedy, low...)
	}
}

// sample asks about one source, which is much faster than about all of them: what
// one packet shows need not be asked.
func (l *linter) sample(m ICMPv6, dropped bool) bool {
	for _, door := range l.asked() {
		p := m.packet(door.Name)
		p.Saddr = Some(netip.MustParseAddr("2001:db8::1"))
		if m.From != "::/0" {
			p.Saddr = Some(netip.MustParseAddr("fe80::1234"))
		}
		e := l.sp.unnamed().Ask(p, rs.Input, false).All()
		if dropped && e&Accepted == 0 || !dropped && e&Accepted != 0 {
			return true
		}
	}
	return false
}

// fates asks about a message on every interface, or on one that no rule names.
func (l *linter) fates(m ICMPv6) []Fate {
	if l.sp.Links.State() == fact.StateValue {
		return l.sp.Message(m, "")
	}
	return []Fate{l.sp.fate(m.packet("some interface"), anyLink, netip.MustParsePrefix(m.From))}
}

func (l *linter) message(typ, hop uint8) []Fate {
	for _, m := range ICMPv6Local() {
		if m.Type == typ {
			if hop != 0 {
				m.Hop = hop
			}
			if !l.sample(m, false) {
				return nil
			}
			return l.fates(m)
		}
	}
	return nil
}

func accepted(fs []Fate) bool {
	return slices.ContainsFunc(fs, func(f Fate) bool { return f.Accepted() })
}

// neighbours asks what somebody on the link may do.
func (l *linter) neighbours() {
	var ev []string
	if accepted(l.message(135, 254)) {
		ev = append(ev, "a neighbour solicitation with hop limit 254 is accepted; the kernel refuses it, a program with a raw socket may not")
	}
	unlimited := false
	for _, f := range l.message(135, 0) {
		unlimited = unlimited || f.Accepted() && !f.Limited
	}
	if unlimited {
		ev = append(ev, "neighbour solicitations from one sender are accepted at any rate: each makes a neighbour entry")
	}
	if len(ev) > 0 {
		l.add(LintNDUnguarded, Info, nil, nil, nil, "Neighbour discovery is accepted unchecked.", "before conntrack, drop ND with `ip6 hoplimit != 255` and what is over a rate for each `ether saddr`", ev...)
	}
	ra := accepted(l.message(134, 0))
	if ra {
		l.routers()
	}
	router := l.sp.Links.State() == fact.StateValue
	if router {
		router = false
		for _, d := range l.sp.doorsOutside("ipv6", "") {
			on, _ := l.sp.forwards(false, d)
			router = router || on
		}
	}
	if !router && accepted(l.message(133, 0)) {
		l.add(LintRSAccepted, Info, nil, nil, nil, "Router solicitations are accepted: only routers need them.", "leave nd-router-solicit out on a host")
	}
	if ra {
		for _, door := range l.asked() {
			p := Packet{
				Family: rs.IPv6, IIF: Some(door.Name), Saddr: Some(netip.MustParseAddr("fe80::1")), Daddr: Some(netip.MustParseAddr("fe80::2")), Proto: Some(uint8(17)),
				Sport: Range{547, 547}, Dport: Some(uint16(546)), Ct: Some(uint32(CtNew)), Mark: Some(uint32(0)),
			}
			if a := l.sp.unnamed().Ask(p, rs.Input, false); len(a.May()) == 0 {
				l.add(LintDHCPv6Blocked, Info, nil, nil, nil, "Routers may send this host to DHCPv6, and the answers of the server are dropped: its request went to a multicast address, so that they are new to connection tracking.",
					"if addresses come by DHCPv6: `ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept`", "packet: udp from [fe80::1]:547 to port 546, ct state new", l.decided(a))
				break
			}
		}
	}
}

// routers finds rules that take router advertisements from every link-local address
// for a protection.
func (l *linter) routers() {
	typ, saddr := l.x.id("payload 2 0 1", 1), l.x.id("ip6 saddr", 16)
	for _, t := range l.sp.Model.Set.Tables {
		for _, c := range t.Chains {
			if t.Dormant || l.owned(c) {
				continue
			}
			for _, r := range c.Rules {
				if !slices.ContainsFunc(r.Exprs, func(e rs.Expr) bool { x, ok := e.(rs.Payload); return ok && x.Base == rs.TransportHeader && x.Len == 1 }) {
					continue // it does not look at the type
				}
				s := l.shape(r)
				types, ok := s.seen.get(typ)
				from, ok2 := s.seen.get(saddr)
				if !ok || !ok2 || !types.Contains(packetset.Addr{Lo: 134}) || len(types.Prefixes(true)) > 1 || !slices.Equal(from, llSet) || !s.ends(rs.Accept) {
					continue
				}
				l.add(LintRAFromAnyone, Info, t, c, r, "The rule keeps no rogue router out: everybody on the link has an address in fe80::/10, and the kernel refuses advertisements from elsewhere by itself.",
					"name the routers: `ip6 saddr { fe80::1 }`, best with `ether saddr`")
			}
		}
	}
}

// limits finds limits that one sender uses up for all, and those that come too late.
func (l *linter) limits() {
	for _, t := range l.sp.Model.Set.Tables {
		if t.Dormant {
			continue
		}
		for _, c := range t.Chains {
			if l.owned(c) || l.manager(t) != "" {
				continue
			}
			est := l.acceptsEstablished(c)
			typ := l.x.id("payload 2 0 1", 1)
			for i, r := range c.Rules {
				if !slices.ContainsFunc(r.Exprs, limits) {
					continue
				}
				s := l.shape(r)
				if !s.limited {
					continue
				}
				in, ok := s.seen.get(typ)
				echo := ok && s.tests(typ) && (in.Contains(packetset.Addr{Lo: 8}) || in.Contains(packetset.Addr{Lo: 128}))
				if est >= 0 && i > est && echo {
					l.add(LintLateLimit, Low, t, c, r, "The limit counts the first packet of a flow only: an earlier rule accepts all others as established. One ping at any rate passes.", "move it in front of the rule for established connections",
						"decided before by "+l.sp.Model.Ref(c, c.Rules[est]).String())
				}
				shared := slices.ContainsFunc(r.Exprs, func(e rs.Expr) bool { n, ok := e.(rs.Limit); return ok && n.Name == "limit" && !n.Over })
				switch {
				case shared && s.ends(rs.Accept):
					l.add(LintSharedLimit, Info, t, c, r, "All senders share one limit: one of them uses it up, and the others are dropped.", "count per sender: `update @set { ip6 saddr limit rate over … } drop`")
				case shared && s.log:
					l.add(LintSharedLimit, Info, t, c, r, "All packets share one limit for the log: harmless noise hides what matters.", "log what matters by a rule of its own")
				}
			}
		}
	}
}

// limits tells that a rule with an expression may match some of the packets only.
func limits(e rs.Expr) bool {
	switch e.(type) {
	case rs.Limit, rs.Dynset, rs.Objref:
		return true
	}
	return false
}

// forwarding finds a forward chain that drops all that is new.
func (l *linter) forwarding() {
	for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
		sev := Info
		if l.sp.Links.State() == fact.StateValue {
			on := false
			for _, d := range l.sp.doorsOutside(FamilyWord(f), "") {
				fwd, _ := l.sp.forwards(f == rs.IPv4, d)
				on = on || fwd
			}
			if !on {
				continue
			}
			sev = Medium
		}
		p := Packet{Family: f, IIF: Some("some interface"), OIF: Some("another interface"), Ct: Some(uint32(CtNew)), Mark: Some(uint32(0)), Sport: Range{0, 65535}}
		a := l.sp.unnamed().Ask(p, rs.Forward, false)
		if len(a.May()) > 0 || l.names(rs.Forward) {
			continue
		}
		l.add(LintForwardsNothing, sev, nil, nil, nil, "Nothing new is forwarded over "+FamilyWord(f)+": containers and virtual machines behind this host are cut off, whatever other tables accept.",
			"leave the forward hook to those who own the traffic, or accept it here by interface", "packet: new, from some interface to another", l.decided(a))
	}
}

// names tells that a rule at a hook accepts by interface or address: it forwards something.
func (l *linter) names(h rs.Hook) bool {
	ct := l.x.ctState()
	for _, t := range l.sp.Model.Set.Tables {
		for _, c := range t.Chains {
			if c.Base == nil || c.Base.Hook != h {
				continue
			}
			for _, r := range c.Rules {
				s := l.shape(r)
				for _, b := range s.branches {
					in, ok := b.box.get(ct)
					if b.verdict != rs.Drop && b.verdict != rs.Return && (!ok || in.Contains(packetset.Addr{Lo: CtNew})) {
						return true
					}
				}
			}
		}
	}
	return false
}

// antispoof looks for a check of the source's way back: IPv6 has no rp_filter.
func (l *linter) antispoof() {
	for _, t := range l.sp.Model.Set.Tables {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				for _, e := range flat(r.Exprs) {
					if f, ok := e.(rs.Fib); ok && f.Flags&fibSaddr != 0 {
						return
					}
				}
			}
		}
	}
	sev := Info
	if l.sp.Links.State() == fact.StateValue {
		if len(l.sp.doorsOutside("ipv6", "")) < 2 {
			return
		}
		sev = Low
	}
	l.add(LintNoAntiSpoof, sev, nil, nil, nil, "No rule checks that IPv6 sources come in by the interface that leads to them, and the kernel has no rp_filter for IPv6.", "`fib saddr . iif oif missing drop` in a prerouting chain")
}
