package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

func isOurs(t *rs.Table) bool {
	return t.Family == rs.Inet && t.Name == "sixfence" && t.Source == rs.NFTables
}

// ours is our table as it is loaded, or nil.
func (b *builder) ours() *rs.Table {
	for _, t := range reach.NewSpace(b.snap, b.ns, nil, false).Model.Set.Tables {
		if isOurs(t) {
			return t
		}
	}
	return nil
}

// canonical writes a table so that two are equal when they do the same: without
// handles, and without what senders put into sets.
func canonical(t *rs.Table) string {
	var out strings.Builder
	names := map[string]string{} // anonymous sets by their content
	content := func(s *rs.Set) string {
		var b strings.Builder
		fmt.Fprintf(&b, "interval=%t map=%t timeout=%t dynamic=%t concat=%v key=%d/%d size=%d", s.Interval, s.Map, s.Timeout, s.Dynamic, s.Concat, s.KeyType, s.KeyLen, s.Size)
		if !s.Dynamic && !s.Timeout {
			var el []string
			for _, e := range s.Elements {
				el = append(el, fmt.Sprintf("%x-%x:%x:%d:%s:%t", e.From, e.To, e.Data, e.Verdict, e.Chain, e.CatchAll))
			}
			slices.Sort(el)
			b.WriteString(" {" + strings.Join(el, ",") + "}")
		}
		return b.String()
	}
	var sets []string
	for n, s := range t.Sets {
		if s.Anonymous {
			names[n] = content(s)
			continue
		}
		sets = append(sets, "set "+n+" "+content(s))
	}
	slices.Sort(sets)
	fmt.Fprintf(&out, "table %s %s dormant=%t\n%s\n", t.Family, t.Name, t.Dormant, strings.Join(sets, "\n"))
	chains := slices.Clone(t.Chains)
	slices.SortFunc(chains, func(a, b *rs.Chain) int { return strings.Compare(a.Name, b.Name) })
	for _, c := range chains {
		fmt.Fprintf(&out, "chain %s", c.Name)
		if c.Base != nil {
			fmt.Fprintf(&out, " %+v", *c.Base)
		}
		out.WriteByte('\n')
		for _, r := range c.Rules {
			for _, e := range r.Exprs {
				switch e := e.(type) {
				case rs.Lookup:
					name := e.Set
					if c, ok := names[name]; ok {
						name = c
					}
					e.Set, e.SetID = name, 0
					fmt.Fprintf(&out, "%#v;", e)
				case rs.Dynset:
					e.SetID = 0
					fmt.Fprintf(&out, "%#v;", e)
				default:
					fmt.Fprintf(&out, "%#v;", e)
				}
			}
			fmt.Fprintf(&out, " # %s\n", r.Comment)
		}
	}
	return out.String()
}

// after is the host with the planned table beside all others.
func (b *builder) after() *reach.Space {
	sp := reach.NewSpace(b.snap, b.ns, nil, false)
	set := sp.Model.Set
	set.Tables = append(slices.DeleteFunc(set.Tables, isOurs), b.planned...)
	return sp
}

// prove asks what gets through before and after, and refuses what must not be lost.
func (b *builder) prove(text string) {
	if !b.decoded {
		if len(b.o.Administered) > 0 && text != "" {
			b.refuse("unproven", "That the administrator's connection survives could not be proven", "install nftables here, and run as root", "")
		}
		return
	}
	before, after := reach.NewSpace(b.snap, b.ns, nil, false), b.after()
	alone := reach.WithRules(b.snap, b.ns, b.planned, reach.OrderOf(b.snap.Host.ByteOrder))
	for _, w := range b.o.Administered {
		b.session(after, w)
	}
	for _, c := range b.in.Checks {
		b.check(before, after, c)
	}
	b.foreign(after, alone)
	b.exposure(before, after)
}

// session proves that a connection like this one can be made again.
func (b *builder) session(after *reach.Space, w change.Way) {
	iif := b.ingress(w)
	p := reach.Packet{
		Family: ruleFamily(w.Family), Saddr: reach.Some(w.Remote.Addr().Unmap().WithZone("")), Daddr: reach.Some(w.Local.Addr().Unmap().WithZone("")), Proto: reach.Some(uint8(6)), Sport: reach.Range{From: 1024, To: 65535},
		Dport: reach.Some(w.Local.Port()), Ct: reach.Some(uint32(reach.CtNew)), TCPFlags: reach.Some(uint8(2)), Mark: reach.Some(uint32(0)),
	}
	if iif != "" {
		p.IIF = reach.Some(iif)
	}
	t := after.Trace(p, rs.Input, false)
	if disabled(b.in) && w.Family == "ipv6" && !w.Local.Addr().Unmap().Is4() {
		t.Verdict = reach.WordDrop
	}
	if t.Verdict == reach.WordAccept {
		return
	}
	way := fmt.Sprintf("add a service with ports [tcp/%d] from [%s], or come in by another way", w.Local.Port(), prefixAround(w.Remote.Addr()))
	title := "The administrator's way in would be closed"
	if t.Verdict == reach.WordUnknown {
		title = "Whether the administrator's way in stays open cannot be proven"
	}
	b.refuse("session-lost", title, way, fmt.Sprintf("%s from %s to %s by %s: %s%s", w.Process, w.Remote, w.Local, orUnknown(iif), t.Verdict, decided(t)))
}

func prefixAround(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits)
	return p.String()
}

func decided(t reach.Trace) string {
	for _, v := range slices.Backward(t.Path) {
		if strings.Contains(v.Result, "drop") || strings.Contains(v.Result, "reject") {
			return ", by " + v.RuleRef.String()
		}
	}
	if len(t.Unclear)+len(t.Needs) > 0 {
		return " (" + strings.Join(append(t.Unclear, t.Needs...), ", ") + ")"
	}
	return ""
}

func ruleFamily(word string) rs.Family {
	if word == "ipv4" {
		return rs.IPv4
	}
	return rs.IPv6
}

// ingress is the interface by which a peer comes in: that of the local address when the
// zone or the routes do not say another.
func (b *builder) ingress(w change.Way) string {
	if z := w.Remote.Addr().Zone(); z != "" {
		return z
	}
	remote, local := w.Remote.Addr().Unmap(), w.Local.Addr().Unmap()
	if remote.IsLoopback() || remote == local {
		return "lo"
	}
	best, name := -1, ""
	routes, _ := b.ns.Routes.Get()
	for _, r := range routes {
		if r.Type != 1 || r.Table == 255 || !r.Dst.Contains(remote) || r.Dst.Bits() <= best || len(r.NextHops) == 0 {
			continue
		}
		if n := b.linkName(r.NextHops[0].Index); n != "" {
			best, name = r.Dst.Bits(), n
		}
	}
	if name != "" {
		return name
	}
	as, _ := b.ns.Addresses.Get()
	for _, a := range as {
		if a.Prefix.Addr() == local {
			return b.linkName(a.Index)
		}
	}
	return ""
}

// check asks whether a declared check can still be sent.
func (b *builder) check(before, after *reach.Space, text string) {
	c, err := intent.ParseCheck(text)
	if err != nil {
		b.refuse("check-unreadable", "The check "+text+" is not understood", "write tcp://[2001:db8::53]:53, icmp://192.0.2.1, https://host/path or dns://192.0.2.53/name", err.Error())
		return
	}
	addr := c.Addr
	if !addr.IsValid() {
		b.gap(fact.UnsupportedGap, "whether the check "+text+" survives: its name is asked for when it runs")
		return
	}
	p := reach.Packet{Local: true, Daddr: reach.Some(addr.WithZone("")), Family: ruleFamily(c.Family), Ct: reach.Some(uint32(reach.CtNew)), Mark: reach.Some(uint32(0)), UID: reach.Some(uint32(0)), Sport: reach.Range{From: 1024, To: 65535}}
	switch c.Kind {
	case "icmp":
		p.Proto, p.ICMPType, p.ICMPCode = reach.Some(uint8(58)), reach.Some(uint8(128)), reach.Some(uint8(0))
		if p.Family == rs.IPv4 {
			p.Proto, p.ICMPType = reach.Some(uint8(1)), reach.Some(uint8(8))
		}
	case "dns":
		p.Proto, p.Dport = reach.Some(uint8(17)), reach.Some(c.Port)
	default:
		p.Proto, p.Dport, p.TCPFlags = reach.Some(uint8(6)), reach.Some(c.Port), reach.Some(uint8(2))
	}
	w := change.Way{Local: netip.AddrPortFrom(addr, 0), Remote: netip.AddrPortFrom(addr, 0)}
	if a := addr.Unmap(); !a.IsLoopback() {
		w.Local = netip.AddrPort{}
	}
	if out := b.ingress(w); out != "" {
		p.OIF = reach.Some(out)
		if src := b.source(out, p.Family); src.IsValid() {
			p.Saddr = reach.Some(src)
		}
	}
	was, is := before.Verdict(p, rs.Output, false), after.Verdict(p, rs.Output, false)
	if is.Verdict == reach.WordAccept && !(disabled(b.in) && p.Family == rs.IPv6 && !addr.IsLoopback()) || is.Verdict == reach.WordUnknown && was.Verdict == reach.WordUnknown {
		return
	}
	b.refuse("check-lost", "The check "+text+" would no longer be answered", "allow it under egress."+reach.FamilyWord(p.Family)+".allow, or take it out of checks", "what this host sends there: "+is.Verdict+decided(after.Trace(p, rs.Output, false)))
}

// source is an address that the host would send with.
func (b *builder) source(iface string, f rs.Family) netip.Addr {
	as, _ := b.ns.Addresses.Get()
	for _, a := range as {
		if b.linkName(a.Index) == iface && a.Prefix.Addr().Is4() == (f == rs.IPv4) && !a.Prefix.Addr().IsLinkLocalUnicast() && a.Flags&(fact.AddrTentative|fact.AddrDADFailed) == 0 {
			return a.Prefix.Addr()
		}
	}
	return netip.Addr{}
}

// foreign refuses services that are opened here and that another table still drops.
func (b *builder) foreign(after, alone *reach.Space) {
	if text := len(b.planned); text == 0 {
		return
	}
	others := after.Model.Set.Tables
	if len(others) == len(b.planned) {
		return
	}
	for _, v := range b.in.Services {
		for _, s := range v.Ports {
			port, err := intent.ParsePort(s)
			if err != nil || port.Whole() {
				continue
			}
			for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
				for _, p := range b.samples(v, port, f) {
					if alone.Verdict(p, rs.Input, false).Verdict != reach.WordAccept {
						continue
					}
					t := after.Verdict(p, rs.Input, false)
					if t.Verdict != reach.WordDrop && t.Verdict != reach.WordReject {
						continue
					}
					t = after.Trace(p, rs.Input, false)
					b.refuse("foreign-drop", fmt.Sprintf("%s (%s, %s) stays closed: another table drops it", v.Name, s, reach.FamilyWord(f)), b.agree(t, port, v), fmt.Sprintf("from %s by %s%s", p.Saddr.V, p.IIF.V, decided(t)))
					break
				}
			}
		}
	}
}

// samples are packets for a service, by every interface that strangers come in by.
func (b *builder) samples(v intent.Service, port intent.Port, f rs.Family) []reach.Packet {
	src := netip.MustParseAddr("2a00:1450:4001::1")
	if f == rs.IPv4 {
		src = netip.MustParseAddr("8.8.8.8")
	}
	for _, p := range v.From {
		if p.Addr().Is4() == (f == rs.IPv4) {
			src = p.Addr().Next()
			if p.IsSingleIP() {
				src = p.Addr()
			}
			break
		}
	}
	var out []reach.Packet
	links, _ := b.ns.Links.Get()
	for _, l := range links {
		if l.Flags&8 != 0 || l.Flags&1 == 0 {
			continue
		}
		dst := b.source(l.Name, f)
		if !dst.IsValid() || b.ingress(change.Way{Remote: netip.AddrPortFrom(src, 1024), Local: netip.AddrPortFrom(dst, port.From)}) != l.Name {
			continue
		}
		p := reach.Packet{Family: f, IIF: reach.Some(l.Name), Saddr: reach.Some(src), Daddr: reach.Some(dst), Proto: reach.Some(port.Proto), Sport: reach.Range{From: 1024, To: 65535}, Dport: reach.Some(port.From), Ct: reach.Some(uint32(reach.CtNew)), Mark: reach.Some(uint32(0))}
		if port.Proto == 6 {
			p.TCPFlags = reach.Some(uint8(2))
		}
		out = append(out, p)
	}
	return out
}

// agree is the command that makes another manager agree.
func (b *builder) agree(t reach.Trace, port intent.Port, v intent.Service) string {
	num := strconv.Itoa(int(port.From))
	if port.To != port.From {
		num += "-" + strconv.Itoa(int(port.To))
	}
	by := decided(t)
	switch {
	case strings.Contains(by, "firewalld"):
		return fmt.Sprintf("firewall-cmd --permanent --add-port=%s/%s && firewall-cmd --reload", num, port.Name)
	case strings.Contains(by, "ufw"), b.ufw():
		return fmt.Sprintf("ufw allow %s/%s", strings.Replace(num, "-", ":", 1), port.Name)
	}
	return "accept it there too, or take that table away, or take the service out of the intent"
}

func (b *builder) ufw() bool {
	u, ok := b.snap.Host.Files.UFW.Get()
	return ok && u.Enabled.Or(false)
}

// exposure says for every listener who gets in before and after.
func (b *builder) exposure(before, after *reach.Space) {
	was, gap := before.Listeners()
	if gap != nil {
		b.gap(gap.Reason, "listeners")
		return
	}
	is, _ := after.Listeners()
	seen := map[string]int{}
	for i := range was {
		before.Expose(&was[i])
		after.Expose(&is[i])
		l := &was[i]
		e := change.Exposure{Proto: l.Proto, Port: l.Port, Process: l.Process}
		if a, err := netip.ParseAddr(l.Address); err == nil && !a.IsUnspecified() {
			e.Address = []netip.Addr{a}
		}
		e.IPv4, e.IPv6 = beforeAfter(before, after, l.IPv4, is[i].IPv4, true), beforeAfter(before, after, l.IPv6, is[i].IPv6, false)
		key := fmt.Sprint(e)
		if _, ok := seen[key]; !ok {
			seen[key] = len(b.p.Exposure)
			b.p.Exposure = append(b.p.Exposure, e)
		}
	}
	b.publishedPorts(before, after)
}

// publishedPorts are the ports that rules pass on to somebody else, before and after.
func (b *builder) publishedPorts(before, after *reach.Space) {
	type key struct {
		proto, target string
		port          uint16
	}
	var order []key
	was, is := map[key]reach.Flow{}, map[key]reach.Flow{}
	for _, x := range []struct {
		flows []reach.Flow
		by    map[key]reach.Flow
	}{{before.Flows(), was}, {after.Flows(), is}} {
		for _, f := range x.flows {
			k := key{f.Proto, f.Target, f.Port}
			if f.Kind != reach.FlowNAT || f.Port == 0 {
				continue
			}
			if !slices.Contains(order, k) {
				order = append(order, k)
			}
			x.by[k] = f
		}
	}
	for _, k := range order {
		e := change.Exposure{Proto: k.proto, Port: k.port, Published: k.target}
		e.IPv4, e.IPv6 = beforeAfter(before, after, was[k].IPv4, is[k].IPv4, true), beforeAfter(before, after, was[k].IPv6, is[k].IPv6, false)
		b.p.Exposure = append(b.p.Exposure, e)
	}
}

func beforeAfter(before, after *reach.Space, was, is []reach.V, is4 bool) change.BeforeAfter {
	must, may, _, _ := reach.Union(was, before.Loopback)
	out := change.BeforeAfter{BeforeMust: nonNilPrefixes(must.Prefixes(is4)), BeforeMay: nonNilPrefixes(may.Prefixes(is4))}
	must, may, _, _ = reach.Union(is, after.Loopback)
	out.AfterMust, out.AfterMay = nonNilPrefixes(must.Prefixes(is4)), nonNilPrefixes(may.Prefixes(is4))
	return out
}

func nonNilPrefixes(p []netip.Prefix) []netip.Prefix {
	if p == nil {
		return []netip.Prefix{}
	}
	return p
}
