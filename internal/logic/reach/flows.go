package reach

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// maxFlows bounds the ports that are asked about: a set of a map may hold many.
const maxFlows = 1024

// NATPorts are the ports that the rules of tables with destination NAT name: what may be
// led elsewhere is among them, unless every port is.
func (sp *Space) NATPorts() []uint16 {
	var nat []*rs.Table
	for _, t := range sp.Model.Set.Tables {
		if !t.Dormant && slices.ContainsFunc(t.Chains, func(c *rs.Chain) bool {
			return c.Base != nil && c.Base.Hook == rs.Prerouting && c.Base.Type == "nat"
		}) {
			nat = append(nat, t)
		}
	}
	return portsIn(nat)
}

// portsIn are the ports that rules name: single ones, and both ends of ranges.
func portsIn(tables []*rs.Table) []uint16 {
	var out []uint16
	ranges, _ := portRanges(tables, maxFlows)
	for _, r := range ranges {
		for _, p := range []uint16{r.From, r.To} {
			if p != 0 && p != 65535 {
				out = append(out, p)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// portRanges are the ports and ranges of ports that rules name, at most limit; whole
// tells that no rule tells ports apart in another way.
func portRanges(tables []*rs.Table, limit int) (out []Range, whole bool) {
	whole = true
	seen := map[Range]bool{}
	add := func(from, to []byte) {
		if len(from) < 2 || len(to) < 2 {
			whole = false
			return
		}
		if len(out) >= limit {
			whole = false
			return
		}
		if r := (Range{binary.BigEndian.Uint16(from), binary.BigEndian.Uint16(to)}); !seen[r] {
			seen[r] = true
			out = append(out, r)
		}
	}
	for _, t := range tables {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				ports, last := false, false // a port was read: at all, by the expression before
				alone, before := false, 0   // without the source port, after so many bytes
				for _, e := range flat(r.Exprs) {
					read := last
					last = false
					switch e := e.(type) {
					case rs.Payload:
						last = e.Base == rs.TransportHeader && e.Offset < 4 && e.Offset+e.Len > 2
						whole = whole && (!last || e.Offset <= 2 && e.Offset+e.Len >= 4)
						before = 2 - int(min(e.Offset, 2))
						alone = e.Offset == 2 && e.Len == 2
						ports = ports || e.Base == rs.TransportHeader && e.Offset <= 2 && e.Offset+e.Len >= 4
					case rs.Bitwise, rs.Byteorder, rs.MetaSet:
						whole = whole && !read // a mask, or the port goes elsewhere
					case rs.Cmp:
						if read && !alone { // together with the source port
							if e.Op != rs.Eq && e.Op != rs.Neq || len(e.Data) < before+2 {
								whole = false
								continue
							}
							add(e.Data[before:before+2], e.Data[before:before+2])
							continue
						}
						if !ports || len(e.Data) != 2 {
							whole = whole && !read
							continue
						}
						switch e.Op {
						case rs.Lt, rs.Gte:
							add(e.Data, []byte{0xff, 0xff})
						case rs.Lte, rs.Gt:
							add([]byte{0, 0}, e.Data)
						default:
							add(e.Data, e.Data)
						}
					case rs.Range:
						if ports && len(e.From) == 2 {
							add(e.From, e.To)
						} else if read {
							whole = false
						}
					case rs.Lookup:
						s := t.Sets[e.Set]
						switch {
						case s == nil:
						case len(s.Concat) > 1 && ports:
							whole = setPorts(s, add) && whole
						case len(s.Concat) < 2 && read:
							whole = setPorts(s, add) && alone && whole
						}
					}
				}
			}
		}
	}
	return out, whole
}

// setPorts finds the first field of two bytes in the keys of a set: whole tells that
// it is the only one.
func setPorts(s *rs.Set, add func(from, to []byte)) (whole bool) {
	off, fields := 0, 0
	for _, f := range s.Concat {
		if f == 2 {
			fields++
		}
		if fields == 0 {
			off += (f + 3) &^ 3
		}
	}
	for i := range s.Elements {
		if e := &s.Elements[i]; len(e.From) >= off+2 && len(e.To) >= off+2 {
			add(e.From[off:off+2], e.To[off:off+2])
		}
	}
	return fields < 2
}

// otherPort stands for all ports that no rule names.
const otherPort = 49151

// Flows are the ports that rules pass on (to another port here, to a container, to
// another host), and those of containers to which this namespace routes.
func (sp *Space) Flows() []Flow {
	by := map[string]*Flow{}
	var order []string
	put := func(f rs.Family, x Flow, v V) {
		key := fmt.Sprint(x.Kind, x.Proto, x.Port, x.Target, x.Process)
		if by[key] == nil {
			x.NetNS, x.IPv4, x.IPv6 = sp.Name, []V{}, []V{}
			by[key], order = &x, append(order, key)
		}
		if f == rs.IPv4 {
			by[key].IPv4 = merge(by[key].IPv4, v)
		} else {
			by[key].IPv6 = merge(by[key].IPv6, v)
		}
	}
	ports := sp.NATPorts()
	if sp.translates() && !slices.Contains(ports, otherPort) {
		ports = append(ports, otherPort)
	}
	for _, port := range ports {
		for _, proto := range []string{"tcp", "udp"} {
			for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
				sp.translated(proto, port, f, put)
			}
		}
	}
	sp.routed(put)
	out := []Flow{}
	for _, k := range order {
		out = append(out, *by[k])
	}
	slices.SortStableFunc(out, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Target, b.Target))
	})
	return out
}

// translates tells whether any chain may change destinations.
func (sp *Space) translates() bool {
	for _, t := range sp.Model.Set.Tables {
		for _, c := range t.Chains {
			if !t.Dormant && c.Base != nil && c.Base.Hook == rs.Prerouting && c.Base.Type == "nat" {
				return true
			}
		}
	}
	return false
}

func freshFlow(proto string, port uint16, f rs.Family, door *fact.Link, daddr netip.Addr) Packet {
	p := Packet{
		Family: f, IIF: Some(door.Name), Daddr: Some(daddr), Proto: Some(protoNumbers[proto]), Sport: Range{1024, 65535}, Dport: Some(port),
		Ct: Some(uint32(CtNew)), Mark: Some(uint32(0)),
	}
	if proto == "tcp" {
		p.TCPFlags = Some(uint8(2))
	}
	return p
}

// translated asks what destination NAT makes of a port, by every interface.
func (sp *Space) translated(proto string, port uint16, f rs.Family, put func(rs.Family, Flow, V)) {
	for _, door := range sp.doors(FamilyWord(f)) {
		if loopback(door) {
			continue
		}
		for i, d := range sp.destinations(&Listener{Proto: "tcp"}, f, door) {
			if i > 0 && !sp.readsDaddr(f) || i == maxDestinations {
				break
			}
			p := freshFlow(proto, port, f, door, d)
			pre := sp.Model.Ask(p, rs.Prerouting, true)
			for _, t := range pre.Translated {
				to, dport, x := d, port, Flow{Kind: FlowNAT, Proto: proto, Port: port}
				if t.Daddr.IsValid() {
					to = t.Daddr
				}
				if t.Dport >= 0 {
					dport = uint16(t.Dport)
				}
				x.Target = netip.AddrPortFrom(to, dport).String()
				if port == otherPort {
					if t.Dport == -1 {
						x.Target = to.String()
					}
					x.Port = 0
				}
				if t.Lost || t.Dport == -2 {
					x.Target = "chosen by the rules"
				}
				v, ok := sp.pass(p, pre, &t, d, dport, door)
				if ok {
					put(f, x, v)
				}
			}
		}
	}
}

// pass asks where a translated packet may go on to.
func (sp *Space) pass(p Packet, pre *Answer, t *Translation, d netip.Addr, dport uint16, door *fact.Link) (V, bool) {
	cells := t.Cells.Set(pre.Space)
	if !t.Daddr.IsValid() || !sp.foreign(t.Daddr) {
		ok, maybe := sp.letIn(p.Family == rs.IPv4, "", door)
		return sp.verdictOf(p, rs.Input, cells.Intersect(ok), cells.Intersect(maybe), d, door, nil)
	}
	return sp.forwardTo(p, t.Daddr, dport, cells, d, door)
}

// forwardTo asks for a packet that goes on to an address elsewhere, and whether a
// namespace of this host that has it lets the packet in.
func (sp *Space) forwardTo(p Packet, to netip.Addr, dport uint16, cells packetset.Set, d netip.Addr, door *fact.Link) (V, bool) {
	is4 := p.Family == rs.IPv4
	dev, local, known := sp.Routes.To(to)
	if known && (dev == 0 || local) {
		return V{}, false // no way there
	}
	if n := sp.Model.Set.Interfaces[dev]; known && n != "" {
		p.OIF = Some(n)
	}
	ok, maybe := sp.forwardable(is4, "", door)
	must, may := cells.Intersect(ok), cells.Intersect(maybe)
	var gaps []fact.Gap
	switch on, sure := sp.forwards(is4, door); {
	case sure && !on:
		return V{}, false
	case !sure:
		gaps = append(gaps, fact.Gap{Reason: fact.NotCollected, What: "whether the kernel forwards " + FamilyWord(p.Family)})
	}
	if o, there := sp.holder(to); there != nil {
		q := o.ask(protoWord(p.Proto.V), dport, p.Family, there, Some(to), []netip.Addr{to}, nil)
		oMust, oMay := setOf(q.Must), setOf(q.May)
		if sp.hides(p.Family) {
			// The source that arrives there is another one.
			if okThere, _ := o.letIn(is4, "", there); len(okThere.Intersect(oMust.Complement(is4))) > 0 {
				oMust = nil
			}
			if len(oMay) > 0 {
				oMay = sources(is4)
			}
		}
		must, may = must.Intersect(oMust), may.Intersect(oMay)
		if len(oMust) == 0 && len(oMay) > 0 {
			for _, w := range q.Assumes {
				gaps = append(gaps, fact.Gap{Reason: fact.UnsupportedGap, What: w + " (in " + o.Name + ")"})
			}
		}
	}
	return sp.verdictOf(p, rs.Forward, must, may, d, door, gaps)
}

func protoWord(n uint8) string {
	for w, v := range protoNumbers {
		if v == n {
			return w
		}
	}
	return ""
}

// holder is the other namespace that has an address, and the interface by which it
// hears; nil when there is none, several, or no single interface.
func (sp *Space) holder(a netip.Addr) (*Space, *fact.Link) {
	var out *Space
	for _, o := range sp.Others {
		if o != sp && !o.foreign(a) {
			if out != nil {
				return nil, nil
			}
			out = o
		}
	}
	if out == nil {
		return nil, nil
	}
	var door *fact.Link
	for _, d := range out.doors(FamilyWord(familyOfAddr(a))) {
		if loopback(d) {
			continue
		}
		if door != nil {
			return nil, nil
		}
		door = d
	}
	return out, door
}

func familyOfAddr(a netip.Addr) rs.Family {
	if a.Is4() {
		return rs.IPv4
	}
	return rs.IPv6
}

// hides tells whether any rule may change a family's sources on the way out.
func (sp *Space) hides(f rs.Family) bool {
	for _, t := range sp.Model.Set.Tables {
		if t.Family != rs.Inet && t.Family != f {
			continue
		}
		for _, c := range t.Chains {
			if !t.Dormant && c.Base != nil && c.Base.Hook == rs.Postrouting && c.Base.Type == "nat" && len(c.Rules) > 0 {
				return true
			}
		}
	}
	return false
}

// verdictOf asks a hook about the sources that come so far, and makes a V of it.
func (sp *Space) verdictOf(p Packet, h rs.Hook, ok, maybe packetset.Set, d netip.Addr, door *fact.Link, gaps []fact.Gap) (V, bool) {
	is4 := p.Family == rs.IPv4
	a := sp.Model.Ask(p, h, false)
	must, may := a.Must().Intersect(ok), a.May().Intersect(maybe)
	blocked := sp.Obstacles(FamilyWord(p.Family), door.Name)
	if len(blocked) > 0 {
		may = maybe
	}
	gaps = append(blocked, gaps...)
	if len(gaps) > 0 {
		must = nil
	}
	if len(may) == 0 {
		return V{}, false
	}
	v := V{Interfaces: []string{door.Name}, Daddr: []netip.Prefix{netip.PrefixFrom(d, d.BitLen())}, DecidedBy: []RuleRef{}, Assumes: []string{}}
	for _, g := range gaps {
		v.Assumes = append(v.Assumes, g.What)
	}
	if !equalSets(must, may) {
		v.Assumes = append(v.Assumes, sp.open(a, may.Intersect(must.Complement(is4)))...)
	}
	sp.list(&v, must, may, is4)
	v.Limited = len(a.Limited.Set(a.Space).Intersect(may)) > 0
	all, _ := sp.letIn(is4, "", door)
	if h == rs.Forward {
		all, _ = sp.forwardable(is4, "", door)
	}
	v.Sources = sp.describe(must, may, all, is4)
	v.DecidedBy = sp.deciders(a, must, may)
	v.Witness = witness(a, must, may, maybe, door.Name, d, p.Dport.V, is4)
	return v, true
}

// maxRouted bounds the questions about containers that are routed to.
const maxRouted = 2048

// routed asks who reaches the listeners of other namespaces by routes through this one.
func (sp *Space) routed(put func(rs.Family, Flow, V)) {
	asked := 0
	for _, o := range sp.Others {
		if o == sp {
			continue
		}
		addrs, _ := o.Addresses.Get()
		var here []netip.Addr
		for _, a := range addrs {
			ip := a.Prefix.Addr()
			dev, local, known := sp.Routes.To(ip)
			if !known || local || dev == 0 || ip.IsLoopback() || ip.IsLinkLocalUnicast() || !sp.leads(dev) || !slices.Contains(here, ip) && !sp.only(o, ip) {
				continue
			}
			here = append(here, ip)
		}
		if len(here) == 0 {
			continue
		}
		ls, _ := o.Listeners()
		for i := range ls {
			l := &ls[i]
			for _, ip := range here {
				f := familyOfAddr(ip)
				if !l.takes[map[rs.Family]int{rs.IPv4: 0, rs.IPv6: 1}[f]] || l.local.IsValid() && l.local != ip {
					continue
				}
				target := o.Name
				if !l.local.IsValid() && len(here) > 1 || l.local.IsValid() {
					target += " " + ip.String()
				}
				dev, _, _ := sp.Routes.To(ip)
				for _, door := range sp.doors(FamilyWord(f)) {
					if asked++; asked > maxRouted {
						return
					}
					if loopback(door) || uint32(door.Index) == dev {
						continue
					}
					p := freshFlow(l.Proto, l.Port, f, door, ip)
					if v, ok := sp.forwardTo(p, ip, l.Port, sources(f == rs.IPv4), ip, door); ok {
						put(f, Flow{Kind: FlowRouted, Proto: l.Proto, Port: l.Port, Target: target, Process: l.Process}, v)
					}
				}
			}
		}
	}
}

// leads tells whether an interface ends in another namespace, or has a port that does.
func (sp *Space) leads(dev uint32) bool {
	return slices.ContainsFunc(sp.links, func(l fact.Link) bool {
		return l.PeerNS != nil && (uint32(l.Index) == dev || l.Master != 0 && uint32(l.Master) == dev)
	})
}

// only tells that no third namespace has the same address.
func (sp *Space) only(o *Space, a netip.Addr) bool {
	for _, x := range sp.Others {
		if x != sp && x != o && !x.foreign(a) {
			return false
		}
	}
	return true
}

// forwards tells whether the kernel forwards what comes in by an interface: IPv4 by
// the interface's own switch, IPv6 by that for all (or force_forwarding). sure is
// false when they could not be read.
func (sp *Space) forwards(is4 bool, door *fact.Link) (on, sure bool) {
	t, ok := sp.Sysctls.Get()
	if !ok {
		return false, false
	}
	is := func(key string) (bool, bool) {
		v, ok := t.Get(key).Get()
		return ok && v != "0", ok
	}
	if is4 {
		return is("net/ipv4/conf/" + door.Name + "/forwarding")
	}
	on, sure = is("net/ipv6/conf/all/forwarding")
	force, _ := is("net/ipv6/conf/" + door.Name + "/force_forwarding")
	return on || force, sure || force
}
