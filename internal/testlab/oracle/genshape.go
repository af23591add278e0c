package oracle

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/reach"
)

// candidates is how many packets are thought of for one that is sent.
const candidates = 3

// Probes makes packets for the last ruleset: shapes, and for every shape sources.
// fresh tells whether a packet would meet a cell in a way that none has yet.
func (g *Generator) Probes(shapes, sources int, fresh func(*Shape, netip.Addr) bool) ([]Shape, []Probe) {
	var ss []Shape
	var ps []Probe
	for tries := shapes * candidates; len(ss) < shapes; tries-- {
		s, from := g.candidate()
		src := g.from(&s, from)
		// What teaches nothing new comes only when there is room left.
		if tries > shapes-len(ss) && !g.chance(20) && !fresh(&s, src) {
			continue
		}
		n := len(ss)
		ss = append(ss, s)
		ps = append(ps, Probe{n, src})
		limit := sources
		if s.Flow {
			limit = min(sources, flowSources)
		}
		for i := 1; i < limit; i++ {
			switch {
			case s.Flow:
				src = s.peer(i)
			default:
				src = g.from(&s, from)
			}
			ps = append(ps, Probe{n, src})
		}
	}
	return ss, ps
}

// candidate is a packet, and the sources that its rule is about.
func (g *Generator) candidate() (Shape, []netip.Addr) {
	g.goal = nil
	if len(g.goals) > 0 && g.chance(75) {
		g.goal = pick(g, g.goals)
		for range 3 { // rather one that no packet matched yet
			if slices.ContainsFunc(g.goal.cells, func(x int) bool { return g.cov.yes[x] == 0 }) {
				break
			}
			g.goal = pick(g, g.goals)
		}
	}
	defer func() { g.goal = nil }()
	flow := 8
	if g.goal != nil && slices.ContainsFunc(append(g.goal.words["ct state"], g.goal.words["ct status"]...), func(w string) bool {
		return w == "established" || w == "seen-reply" || w == "assured" || w == "confirmed"
	}) {
		flow = 60
	}
	if g.chance(flow) {
		return g.established(), nil
	}
	if g.goal != nil {
		if s := g.goal.sample; s != nil && g.chance(60) {
			return *s, g.goal.src
		}
		return g.shape(), g.goal.src
	}
	return g.shape(), nil
}

// from is a source for a shape: one that its rule is about, or a boundary of any rule.
func (g *Generator) from(s *Shape, goal []netip.Addr) netip.Addr {
	if s.Flow {
		return s.peer(0)
	}
	var a netip.Addr
	list := g.src[idx(s.IPv6)]
	switch {
	case len(goal) > 0 && g.chance(50):
		a = pick(g, goal)
	case s.IPv6 && !s.Forward && !s.Output && !s.Related && g.chance(8):
		return netip.MustParseAddr(pick(g, []string{"fe80::1", "fe80::2:3", "::"}))
	case len(list) > 0 && g.chance(70):
		a = pick(g, list)
	case g.chance(50):
		a = pick(g, g.bases(s.IPv6))
	default:
		a = g.source(s.IPv6)
	}
	if !validSource(a) || a.Is6() != s.IPv6 {
		a = g.source(s.IPv6)
	}
	return a
}

func (g *Generator) bases(v6 bool) []netip.Addr {
	if v6 {
		return g.base6
	}
	return g.base4
}

// known is a value of a field that the goal, or another rule, is about.
func (g *Generator) known(def uint64, bits int, names ...string) uint64 {
	mask := uint64(1)<<bits - 1
	if g.goal != nil {
		for _, n := range names {
			if vs := g.goal.values[n]; len(vs) > 0 && g.chance(85) {
				return pick(g, vs) & mask
			}
		}
	}
	if vs := g.values[pick(g, names)]; len(vs) > 0 && g.chance(50) {
		return pick(g, vs) & mask
	}
	return def
}

// wants tells whether the goal is about a word of a field.
func (g *Generator) wants(field string, words ...string) bool {
	return g.goal != nil && slices.ContainsFunc(g.goal.words[field], func(w string) bool { return slices.Contains(words, w) })
}

func (g *Generator) way(s *Shape) {
	s.Forward = g.chance(40)
	output := !s.Forward && g.chance(25)
	if g.goal != nil {
		switch g.goal.hook {
		case "input":
			s.Forward, output = false, false
		case "forward":
			s.Forward, output = true, false
		case "output":
			s.Forward, output = false, true
		case "postrouting":
			s.Forward = g.chance(70)
			output = !s.Forward
		default:
			output = output && g.chance(30)
		}
	}
	s.Output = output
	s.Iface = g.r.IntN(2)
	for _, f := range []string{"meta iif", "meta iifname"} {
		if g.chance(80) {
			switch {
			case g.wants(f, Interfaces[0], "eth*", "e*") && !g.wants(f, Interfaces[1], "wl*", "wlan*"):
				s.Iface = 0
			case g.wants(f, Interfaces[1], "wl*", "wlan*") && !g.wants(f, Interfaces[0], "eth*", "e*"):
				s.Iface = 1
			}
		}
	}
}

func (g *Generator) shape() Shape {
	s := Shape{IPv6: g.chance(55), MAC: [2]byte{pick(g, []byte{2, 6}), byte(g.r.IntN(3))}}
	if g.goal != nil {
		switch {
		case g.goal.v6 != 0:
			s.IPv6 = g.goal.v6 == 6
		case g.wants("meta nfproto", "ipv4") || g.wants("meta protocol", "ip") || g.wants("ct l3proto", "ipv4") || g.wants("ether type", "ip"):
			s.IPv6 = g.chance(30)
		}
		if s.IPv6 && g.chance(2) {
			s.IPv6 = g.goal.v6 == 6
		}
	}
	g.way(&s)
	g.target(&s)
	v := func(four, six string) string {
		if s.IPv6 {
			return six
		}
		return four
	}
	s.HopLimit = uint8(max(g.known(64, 8, v("ip ttl", "ip6 hoplimit")), 2))
	s.TOS = uint8(g.known(g.r.Uint64N(64), 6, v("ip dscp", "ip6 dscp")) << 2)
	s.ID = uint16(g.known(g.r.Uint64(), 16, "ip id"))
	s.Label = uint32(g.known(0, 20, "ip6 flowlabel"))
	s.NoDF = g.chance(20)
	s.Body = g.r.IntN(8)
	g.transport(&s)
	if s.IPv6 && !s.Related {
		g.extensions(&s)
	}
	g.size(&s)
	for _, e := range s.Ext { // all but the last fragment carry units of 8 bytes
		for e.Frag == reach.First && len(s.transport(s.Dst))%8 != 0 {
			s.Body++
		}
	}
	s.Ct = ctState(&s)
	return s
}

// target chooses the destination: the host, one behind it, or a group.
func (g *Generator) target(s *Shape) {
	if s.Output {
		s.Iface = 0
		s.Dst = netip.MustParseAddr(map[bool]string{false: "198.18.0.7", true: "2a0f:1::7"}[s.IPv6])
		if g.chance(50) {
			s.Iface = 1
			s.Dst = g.destination(s.IPv6, true)
		}
		return
	}
	s.Dst = g.destination(s.IPv6, s.Forward)
	if g.goal != nil && g.chance(70) {
		for _, a := range g.goal.dst {
			if a.Is6() != s.IPv6 {
				continue
			}
			if local := slices.Contains(localAddrs, a); local && !s.Forward || forwarded(a) && s.Forward {
				s.Dst = a
			}
		}
	}
	group := 6
	if g.wants("fib daddr type", "multicast", "broadcast") || g.wants("fib daddr . iif type", "multicast", "broadcast") || g.wants("meta pkttype", "multicast", "broadcast") {
		group = 60
	}
	if !s.Forward && g.chance(group) {
		groups := []string{"224.0.0.1", "255.255.255.255", "192.0.2.255", "198.51.100.255"}
		if s.IPv6 {
			groups = []string{"ff02::1", "ff02::2", "ff02::1:ff00:1"}
		}
		i := g.r.IntN(len(groups))
		s.Dst = netip.MustParseAddr(groups[i])
		switch {
		case !s.IPv6 && i >= 2:
			s.Iface = i - 2
		case i == 2:
			s.Iface = 0 // the group of an address there
		}
	}
}

func (g *Generator) protocol(s *Shape) uint8 {
	if g.goal == nil {
		return pick(g, []uint8{protoTCP, protoTCP, protoTCP, protoUDP, protoUDP, protoICMP, protoICMPv6, protoSCTP, 99})
	}
	if slices.Contains([]uint8{protoTCP, protoUDP, protoICMP, protoICMPv6, protoSCTP}, g.goal.proto) && g.chance(92) {
		return g.goal.proto
	}
	names := []string{"meta l4proto", "ct protocol", "ip protocol", "ip6 nexthdr", "frag nexthdr", "hbh nexthdr", "dst nexthdr", "rt nexthdr"}
	for _, n := range names {
		vs := slices.DeleteFunc(slices.Clone(g.goal.values[n]), func(v uint64) bool {
			return !slices.Contains([]uint64{protoTCP, protoUDP, protoICMP, protoICMPv6, protoSCTP, 99, 255}, v)
		})
		if len(vs) > 0 && g.chance(85) {
			return uint8(pick(g, vs))
		}
	}
	if g.wants("ct state", "related") && g.chance(60) {
		return protoICMP
	}
	return pick(g, []uint8{protoTCP, protoTCP, protoTCP, protoUDP, protoUDP, protoICMP, protoICMPv6, protoSCTP, 99})
}

func (g *Generator) transport(s *Shape) {
	s.Proto = g.protocol(s)
	switch s.Proto {
	case protoICMP, protoICMPv6:
		if s.IPv6 {
			s.Proto = protoICMPv6
			s.Type = uint8(g.known(pick(g, []uint64{128, 128, 129, 1, 133, 135, 136, 143, 200}), 8, "icmpv6 type"))
			s.Code = uint8(g.known(0, 8, "icmpv6 code"))
		} else {
			s.Proto = protoICMP
			s.Type = uint8(g.known(pick(g, []uint64{8, 8, 0, 13, 3, 11}), 8, "icmp type"))
			s.Code = uint8(g.known(0, 8, "icmp code"))
		}
		s.Sport = uint16(g.known(g.r.Uint64(), 16, "icmp id", "icmpv6 id", "icmpv6 max-delay"))
		chance := 10
		if g.wants("ct state", "related") {
			chance = 70
		}
		if !s.Output && !s.Forward && slices.Contains(localAddrs, s.Dst) && g.chance(chance) {
			s.Related = true
			s.Dst = localAddrs[idx(s.IPv6)*2]
			s.Type = pick(g, []uint8{3, 11, 12})
			if s.IPv6 {
				s.Type = pick(g, []uint8{1, 2, 3, 4})
			}
		}
	case protoTCP, protoUDP, protoSCTP:
		name := map[uint8]string{protoTCP: "tcp", protoUDP: "udp", protoSCTP: "sctp"}[s.Proto]
		s.Dport = uint16(g.known(uint64(pick(g, g.ports)), 16, name+" dport", "th dport", "meta l4proto tcp ct original proto-dst"))
		s.Sport = uint16(g.known(1024+g.r.Uint64N(60000), 16, name+" sport", "th sport"))
		if s.Proto == protoSCTP { // port 0 is no flow
			s.Sport, s.Dport = max(s.Sport, 1), max(s.Dport, 1)
		}
		s.Window = uint16(g.known(1024, 16, "tcp window"))
		s.Flags = 2
		if s.Proto == protoTCP && (g.chance(30) || g.goal != nil && g.goal.values["tcp flags"] != nil) {
			s.Flags = uint8(g.known(pick(g, []uint64{16, 18, 4, 1, 0}), 8, "tcp flags"))
		}
		if g.wants("ct state", "invalid") && g.chance(60) {
			s.Flags = pick(g, []uint8{1, 4, 18, 0})
		}
		if s.Proto == protoTCP {
			s.Options = 4 * int(pick(g, []uint8{0, 0, 1, 2}))
			if d := int(g.known(0, 4, "tcp doff")); d >= 5 {
				s.Options = 4 * (d - 5)
			}
		}
	}
}

// extensions puts headers before the transport header.
func (g *Generator) extensions(s *Shape) {
	want := func(names ...string) bool {
		if g.goal == nil {
			return false
		}
		for _, n := range names {
			if g.goal.values[n] != nil || g.wants(n, "exists") {
				return g.chance(85)
			}
		}
		return false
	}
	some := g.chance(20)
	put := func(n uint8, percent int, names ...string) {
		if want(names...) || some && g.chance(percent) {
			s.Ext = append(s.Ext, reach.Ext{Number: n})
		}
	}
	put(hopByHop, 50, "exthdr hbh", "hbh nexthdr", "hbh hdrlength")
	put(destOpts, 40, "exthdr dst", "dst nexthdr", "dst hdrlength")
	put(routing, 30, "exthdr rt", "rt type", "rt nexthdr", "rt hdrlength", "rt seg-left")
	if n := len(s.Ext); n > 0 || some || want("exthdr frag", "frag frag-off", "frag more-fragments", "frag nexthdr", "frag id", "frag reserved2") {
		if want("exthdr frag", "frag frag-off", "frag more-fragments", "frag nexthdr", "frag id", "frag reserved2") || g.chance(30) {
			s.Ext = append(s.Ext, reach.Ext{Number: fragment, Frag: pick(g, []reach.Frag{reach.Atomic, reach.First, reach.Later})})
		}
	}
}

// size fills the packet up to a length that a rule is about.
func (g *Generator) size(s *Shape) {
	if s.Related || g.goal == nil {
		return
	}
	for _, n := range []string{"meta length", "ip length", "udp length", "ip6 length"} {
		vs := g.goal.values[n]
		if len(vs) == 0 || strings.HasPrefix(n, "ip6 ") != s.IPv6 && n[:2] == "ip" {
			continue
		}
		s.Body = 0
		have := len(s.packet(s.Dst, 0))
		switch n {
		case "udp length":
			have = len(s.transport(s.Dst))
		case "ip6 length":
			have -= 40
		}
		if want := int(pick(g, vs)); want >= have && want-have < 200 {
			s.Body = want - have
		}
	}
}
