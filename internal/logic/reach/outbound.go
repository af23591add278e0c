package reach

import (
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Bounds of the questions about what leaves.
const (
	maxWaysOut   = 16   // interfaces that are asked about one by one
	maxOutbound  = 8192 // questions
	maxOutFlows  = 256  // of a protocol
	roughPorts   = "rules that look at ports in more ways than are followed"
	outFlowsLeft = "more classes of ports than are listed"
)

// Outbound says what this host may send, by protocol and port: nil when no rule sees
// what leaves, so that all of it does.
func (sp *Space) Outbound() []Flow {
	families := [2]rs.Family{rs.IPv4, rs.IPv6}
	any := false
	var cuts portCuts
	for _, f := range families {
		m := sp.mirrored(f)
		any = any || m.hooked || len(sp.outGaps(f)) > 0
		cuts.join(&m.cuts)
	}
	if !any {
		return nil
	}
	out := []Flow{}
	for _, proto := range []string{"tcp", "udp"} {
		out = append(out, sp.outboundPorts(proto, &cuts)...)
	}
	icmp := Flow{NetNS: sp.Name, Kind: FlowOutbound, Proto: "icmp"}
	icmp.IPv4, icmp.IPv6 = sp.sends(rs.IPv4, "icmp", Range{}, 1, false), sp.sends(rs.IPv6, "icmp", Range{}, 1, false)
	return append(out, icmp)
}

// outboundPorts are the ports of a protocol; those that answer alike as most ports do
// are one flow without a port.
func (sp *Space) outboundPorts(proto string, cuts *portCuts) []Flow {
	classes := cuts.classes()
	var flows []Flow
	var kinds []int // by class: the first flow that answers alike
	var ports []int // by flow: how many ports answer as it does
	for _, r := range classes {
		f := Flow{NetNS: sp.Name, Kind: FlowOutbound, Proto: proto, Port: r.From}
		if r.To > r.From {
			f.PortTo = r.To
		}
		f.IPv4, f.IPv6 = sp.sends(rs.IPv4, proto, r, len(classes), cuts.rough), sp.sends(rs.IPv6, proto, r, len(classes), cuts.rough)
		k := slices.IndexFunc(flows, func(o Flow) bool { return sameVs(o.IPv4, f.IPv4) && sameVs(o.IPv6, f.IPv6) })
		if k < 0 {
			k = len(flows)
		}
		kinds, ports, flows = append(kinds, k), append(ports, 0), append(flows, f)
		ports[k] += int(r.To) - int(r.From) + 1
	}
	most := slices.Index(ports, slices.Max(ports))
	others := flows[most]
	others.Port, others.PortTo = 0, 0
	var out []Flow
	for i := 0; i < len(flows); {
		f, j := flows[i], i+1
		for ; j < len(flows) && kinds[j] == kinds[i]; j++ {
			f.PortTo = classes[j].To
		}
		switch {
		case kinds[i] == most:
		case len(out) < maxOutFlows:
			out = append(out, f)
		default:
			others.IPv4, others.IPv6 = sp.either(others.IPv4, f.IPv4, rs.IPv4), sp.either(others.IPv6, f.IPv6, rs.IPv6)
		}
		i = j
	}
	return append(out, others)
}

func sameVs(a, b []V) bool {
	return slices.EqualFunc(a, b, func(x, y V) bool {
		return x.Limited == y.Limited && samePrefixes(x.Must, y.Must) && samePrefixes(x.May, y.May) &&
			slices.Equal(x.Interfaces, y.Interfaces) && slices.Equal(x.DecidedBy, y.DecidedBy) && slices.Equal(x.Assumes, y.Assumes)
	})
}

// either is what is said of ports that answer in one of two ways.
func (sp *Space) either(a, b []V, f rs.Family) []V {
	is4 := f == rs.IPv4
	must, may := sendable(is4), packetset.Set(nil)
	v := V{Interfaces: []string{}, Daddr: []netip.Prefix{}, DecidedBy: []RuleRef{}, Assumes: []string{outFlowsLeft}}
	for _, x := range append(slices.Clone(a), b...) {
		must, may = must.Intersect(setOf(x.Must)), unite(may, setOf(x.May))
		v.Limited = v.Limited || x.Limited
		for _, n := range x.Interfaces {
			if !slices.Contains(v.Interfaces, n) {
				v.Interfaces = append(v.Interfaces, n)
			}
		}
	}
	sp.list(&v, must, may, is4)
	v.Sources = sp.describe(must, may, sendable(is4), is4)
	return []V{v}
}

var (
	unsent4 = set("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32")
	unsent6 = set("::/128", "::1/128", "::ffff:0:0/96", "ff00::/8")
)

// sendable are the destinations of packets that are for one host elsewhere.
func sendable(is4 bool) packetset.Set {
	if is4 {
		return unsent4.Complement(true)
	}
	return unsent6.Complement(false)
}

// destinable is sendable where it matters what type the routing table says that a
// destination is: without those of another type than unicast.
func (sp *Space) destinable(f rs.Family) packetset.Set {
	is4 := f == rs.IPv4
	all := sendable(is4)
	if !sp.mirrored(f).fib {
		return all
	}
	var odd []packetset.Interval
	addrs, _ := sp.Addresses.Get()
	for _, a := range addrs {
		if ip := a.Prefix.Addr(); ip.Is4() == is4 {
			odd = append(odd, packetset.PrefixInterval(netip.PrefixFrom(ip, ip.BitLen())))
		}
	}
	for _, t := range sp.Routes.of(is4).tables {
		for _, s := range t {
			if s.alt[0].typ != rtnUnicast {
				odd = append(odd, s.iv)
			}
		}
	}
	if !is4 {
		odd = append(odd, llSet...) // looked up without an interface
	}
	return all.Intersect(packetset.Normalise(odd).Complement(is4))
}

// outGaps are the gaps that concern what leaves.
func (sp *Space) outGaps(f rs.Family) []fact.Gap {
	var out []fact.Gap
	for _, list := range [][]pathGap{sp.gaps, sp.obstacles} {
		for _, g := range list {
			if !g.in && (g.family == "" || g.family == FamilyWord(f)) {
				out = append(out, g.Gap)
			}
		}
	}
	return out
}

// waysOut are the interfaces by which packets leave: all of them, and those to ask
// about one by one; an empty name asks for any.
func (sp *Space) waysOut(m *mirror, classes int) (all, asked []string) {
	all = []string{}
	for i := range sp.links {
		l := &sp.links[i]
		if !loopback(l) && l.Flags&1 != 0 && (l.Master == 0 || l.SlaveKind == "vrf") {
			all = append(all, l.Name)
		}
	}
	switch {
	case len(all) == 0 && len(sp.links) == 0:
		return all, []string{anyLink.Name} // that no rule names
	case len(all) == 0:
		return all, nil
	case !m.byOIF:
		return all, all[:1]
	case len(all) > maxWaysOut || classes*len(all)*4 > maxOutbound:
		return all, []string{""}
	}
	return all, all
}

// sends answers for a class of ports.
func (sp *Space) sends(f rs.Family, proto string, ports Range, classes int, rough bool) []V {
	m := sp.mirrored(f)
	out := []V{}
	all, asked := sp.waysOut(m, classes)
	for _, name := range asked {
		v := sp.sent(m, f, proto, ports, name, rough)
		if v.Interfaces = []string{name}; len(asked) == 1 {
			v.Interfaces = all
		}
		if v.Witness != nil && v.Witness.Interface == "" && len(all) > 0 {
			v.Witness.Interface = all[0]
		}
		out = merge(out, v)
	}
	return out
}

// sent answers for packets of a class that leave by one interface.
func (sp *Space) sent(m *mirror, f rs.Family, proto string, ports Range, oif string, rough bool) V {
	is4 := f == rs.IPv4
	p := Packet{Family: f, Local: true, Ct: Some(uint32(CtNew))}
	if oif != "" {
		p.OIF = Some(oif)
	}
	switch {
	case proto != "icmp":
		p.Proto, p.Sport, p.Dport = Some(protoNumbers[proto]), Range{1024, 65535}, Some(ports.From)
	case is4:
		p.Proto, p.ICMPType, p.ICMPCode = Some(uint8(1)), Some(uint8(8)), Some(uint8(0))
	default:
		p.Proto, p.ICMPType, p.ICMPCode = Some(uint8(58)), Some(uint8(128)), Some(uint8(0))
	}
	if proto == "tcp" {
		p.TCPFlags = Some(uint8(2)) // SYN
	}
	a := m.model.Ask(p, rs.Output, false)
	all := sp.destinable(f)
	must, may := sp.told.intersect(sp.told.of(a.Space, a.must()), all), sp.told.intersect(sp.told.of(a.Space, a.may()), all)
	assumes := []string{}
	note := func(what string) {
		if !slices.Contains(assumes, what) {
			assumes = append(assumes, what)
		}
	}
	if !equalSets(must, may) {
		for _, w := range a.Opaque {
			note(CauseWords(w))
		}
		for _, n := range a.Needs {
			note("rules for what leaves depend on " + ownWords[n])
		}
	}
	gaps := sp.outGaps(f)
	for _, g := range gaps {
		note(g.What)
	}
	if rough && ports.To > ports.From {
		note(roughPorts)
		gaps = append(gaps, fact.Gap{})
	}
	if len(gaps) > 0 {
		must, may = nil, all
	}
	v := V{Daddr: []netip.Prefix{}, Limited: sp.limited(a, may), DecidedBy: sp.decidersOf(m, a, may), Assumes: assumes}
	sp.list(&v, must, may, is4)
	v.Sources = sp.describe(must, may, all, is4)
	if w := witness(a, must, may, all, oif, netip.Addr{}, ports.From, is4); w != nil {
		w.Saddr, w.Daddr = sp.ownAddress(is4, oif), w.Saddr
		if proto == "icmp" {
			w.Sport = 0
		}
		v.Witness = w
	}
	return v
}

// ownWords are what a question about outgoing packets leaves open; the mirror exchanges
// the addresses.
var ownWords = map[string]string{
	"daddr": "the address that this host sends from", "saddr": "the destination", "uid": "the user that sends", "mark": "the mark of the packet",
	"sport": "the source port", "oif": "the outgoing interface", "iif": "the incoming interface", "hoplimit": "the hop limit", "ct": "the connection",
	"proto": "the protocol", "dport": "the port", "icmpType": "the type", "icmpCode": "the code", "tcpFlags": "the flags", "etherSaddr": "the link address",
}

// ownAddress is one that the host would send from by an interface; unspecified where
// none is known.
func (sp *Space) ownAddress(is4 bool, oif string) netip.Addr {
	best := netip.IPv6Unspecified()
	if is4 {
		best = netip.IPv4Unspecified()
	}
	addrs, _ := sp.Addresses.Get()
	for _, a := range addrs {
		ip := a.Prefix.Addr()
		if ip.Is4() != is4 || ip.IsLoopback() || oif != "" && sp.Model.Set.Interfaces[uint32(a.Index)] != oif {
			continue
		}
		if best.IsUnspecified() || best.IsLinkLocalUnicast() {
			best = ip
		}
	}
	return best
}

// decidersOf is deciders for the real rules of mirrored ones.
func (sp *Space) decidersOf(m *mirror, a *Answer, may packetset.Set) []RuleRef {
	const most = 8
	about := packetset.All(a.Space.Len())
	if len(may) > 0 {
		about = sp.told.touching(a.Space, may)
	}
	out := []RuleRef{}
	for _, d := range a.Deciders(about) {
		if len(out) == most {
			break
		}
		if d.Chain == nil && d.Rule == nil {
			continue
		}
		rule := m.rules[d.Rule]
		out = append(out, sp.Model.Ref(m.chains[d.Chain], rule))
	}
	return out
}
