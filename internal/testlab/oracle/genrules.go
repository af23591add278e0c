package oracle

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/reach"
)

// chainText is a chain as it is being written.
type chainText struct {
	name, hook, kind string
	head             string
	rules            []string
}

// Ruleset writes one, and remembers its boundaries for Probes. Every rule is a line of
// its own, so that one that nft refuses can be left out.
func (g *Generator) Ruleset() string {
	g.reset()
	g.nsets = 0
	var b strings.Builder
	for i := range 1 + g.r.IntN(3) {
		g.writeTable(&b, i)
	}
	return b.String()
}

func (g *Generator) writeTable(b *strings.Builder, n int) {
	// The family and hooks that are known least come first.
	ctx := g.context()
	g.family = ctx[0]
	g.table = nil
	var chains []*chainText
	hooks := []string{ctx[1]}
	for _, c := range contexts {
		if c[0] == g.family && g.chance(35) {
			hooks = append(hooks, c[1])
		}
	}
	for _, h := range hooks {
		chains = append(chains, g.base(h, len(chains), slices.ContainsFunc(chains, func(c *chainText) bool { return c.hook == h })))
		if h == "prerouting" && g.family != "netdev" && g.chance(20) {
			chains = append(chains, g.natBase(len(chains)))
		}
	}
	for i := range chains[:len(chains):len(chains)] {
		c := chains[i]
		sub := []*chainText{}
		for k := range g.r.IntN(3) {
			if c.kind == "nat" {
				break
			}
			sub = append(sub, &chainText{name: fmt.Sprintf("%s_%d", c.name, k), hook: c.hook, kind: c.kind})
		}
		// Chains may call only those after them: the kernel refuses loops.
		all := append([]*chainText{c}, sub...)
		for k := len(all) - 1; k >= 0; k-- {
			g.fill(all[k], all[k+1:])
		}
		chains = append(chains, sub...)
	}
	flags := ""
	if g.chance(6) {
		flags = " flags dormant;\n"
	}
	fmt.Fprintf(b, "table %s t%d {\n%s", g.family, n, flags)
	for _, s := range g.table {
		b.WriteString(s + "\n")
	}
	// What is called is written first: nft wants to know it.
	for _, c := range slices.Backward(chains) {
		fmt.Fprintf(b, " chain %s {\n%s", c.name, c.head)
		for _, r := range c.rules {
			b.WriteString("  " + r + "\n")
		}
		b.WriteString(" }\n")
	}
	b.WriteString("}\n")
}

func (g *Generator) context() [2]string {
	best, count := pick(g, contexts), 1<<30
	for range 3 {
		c := pick(g, contexts)
		n := 0
		for _, x := range g.cov.all {
			if x.Family == c[0] && x.Hook == c[1] {
				n += min(g.cov.count(x), 3)
			}
		}
		if n < count {
			best, count = c, n
		}
	}
	return best
}

func (g *Generator) base(hook string, n int, second bool) *chainText {
	prio := pick(g, []int{0, 0, -150, -300, -450, 10, -100, 100, 300, -201, -199, -399, -401})
	device := ""
	if hook == "ingress" {
		device = pick(g, []string{`devices = { "eth0", "wlan1" }`, `device "eth0"`, `device "wlan1"`}) + " "
	}
	// What is dropped early tells nothing about later hooks.
	policy := "accept"
	if g.chance(map[bool]int{false: 25, true: 8}[hook == "ingress" || hook == "prerouting"]) {
		policy = "drop"
	}
	return &chainText{
		name: fmt.Sprintf("c%d", n), hook: hook, kind: "filter",
		head: fmt.Sprintf("  type filter hook %s %spriority %d; policy %s;\n", hook, device, prio, policy),
	}
}

func (g *Generator) natBase(n int) *chainText {
	return &chainText{
		name: fmt.Sprintf("c%d", n), hook: "prerouting", kind: "nat",
		head: fmt.Sprintf("  type nat hook prerouting priority %d; policy accept;\n", pick(g, []int{-100, -150, 50, -90})),
	}
}

func (g *Generator) fill(c *chainText, below []*chainText) {
	g.hook = c.hook
	for range 4 + g.r.IntN(12) {
		g.cells = nil
		if r := g.rule(c, below); r != "" {
			c.rules = append(c.rules, r+` comment "`+g.cov.comment(g.cells)+`"`)
		}
	}
}

// next is the least known cell of the context that a rule may hold.
func (g *Generator) next(ok func(Cell) bool) (Cell, bool) {
	var best Cell
	count, found := 1<<30, false
	off := g.r.IntN(len(g.cov.all))
	for i := range g.cov.all {
		x := g.cov.all[(i+off)%len(g.cov.all)]
		if x.Family != g.family || x.Hook != g.hook || !ok(x) {
			continue
		}
		if n := g.cov.count(x); n < count {
			best, count, found = x, n, true
		}
	}
	if found {
		g.cov.loaded[best]++ // taken back by Refused
	}
	return best, found
}

func (g *Generator) rule(c *chainText, below []*chainText) string {
	var words []string
	v6, proto := int8(0), uint8(0)
	tail := false
	for range 1 + g.r.IntN(2) {
		cell, ok := g.next(func(x Cell) bool {
			i := slices.IndexFunc(fields, func(f field) bool { return f.name == x.Field })
			if i < 0 {
				return false
			}
			f := &fields[i]
			return (!f.raw || g.raw) && (f.v6 == 0 || v6 == 0 || f.v6 == v6) && (f.proto == 0 || proto == 0 || f.proto == proto) &&
				!(f.proto == protoICMP && v6 == 6) && !(f.proto == protoICMPv6 && v6 == 4) &&
				!(tail && strings.Contains(x.Op, "map")) && (c.kind != "nat" || !strings.Contains(x.Op, "vmap"))
		})
		if !ok {
			break
		}
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == cell.Field })
		f := &fields[i]
		if f.v6 != 0 {
			v6 = f.v6
		}
		if f.proto != 0 {
			proto = f.proto
		}
		text, last := g.match(f, cell.Op)
		g.cells = append(g.cells, cell)
		words = append(words, text)
		if last {
			tail = true
			break
		}
	}
	if tail {
		return strings.Join(words, " ")
	}
	st, ok := g.next(func(x Cell) bool {
		if x.Op != "statement" {
			return false
		}
		i := slices.IndexFunc(statements, func(s statement) bool { return s.name == x.Field })
		return statements[i].nat == (c.kind == "nat") || c.kind == "nat" && g.chance(10) && x.Field == "accept"
	})
	// Verdicts are what most rules are for.
	if c.kind != "nat" && g.chance(70) || !ok {
		if ok {
			g.cov.loaded[st]--
		}
		verdicts := []string{"accept", "drop", "accept", "jump", "goto", "return"}
		if (c.hook == "ingress" || c.hook == "prerouting") && g.chance(60) {
			verdicts = []string{"accept", "jump", "continue"}
		}
		if name := pick(g, verdicts); len(below) > 0 || name != "jump" && name != "goto" {
			return strings.TrimSpace(strings.Join(append(words, g.statement(name, below)), " "))
		}
		return strings.Join(append(words, "accept"), " ")
	}
	g.cells = append(g.cells, st)
	text := g.statement(st.Field, below)
	if (strings.HasPrefix(st.Field, "mark") || st.Field == "ct mark set") && g.chance(40) {
		// A statement before the match is done whether or not that holds.
		return strings.Join(append([]string{text}, append(words, pick(g, []string{"accept", "drop", ""}))...), " ")
	}
	return strings.TrimSpace(strings.Join(append(words, text), " "))
}

func (g *Generator) statement(name string, below []*chainText) string {
	v6 := g.family == "ip6" || g.family != "ip" && g.chance(50)
	switch name {
	case "jump", "goto":
		if len(below) == 0 {
			return "accept"
		}
		return name + " " + pick(g, below).name
	case "reject tcp":
		return "meta l4proto tcp reject with tcp reset"
	case "mark set":
		return fmt.Sprintf("meta mark set 0x%x", pick(g, []uint64{1, 2, 0x100, 0xff00}))
	case "mark or":
		return fmt.Sprintf("meta mark set meta mark %s 0x%x", pick(g, []string{"|", "&", "^"}), pick(g, []uint64{1, 2, 0x1ff}))
	case "mark map":
		return "meta mark set meta mark map { 0 : 1, 1 : 2, 2 : 256 }"
	case "ct mark set":
		return pick(g, []string{"ct mark set 1", "ct mark set meta mark", "ct mark set ct mark or 2", "meta mark set ct mark"})
	case "limit":
		return "limit rate 1/hour burst 1 packets " + pick(g, []string{"accept", "drop"})
	case "limit over":
		return "limit rate over 1/hour burst 1 packets " + pick(g, []string{"accept", "drop"})
	case "quota":
		return pick(g, []string{"quota over 1 kbytes ", "quota until 1 kbytes "}) + pick(g, []string{"accept", "drop"})
	case "dynset add", "dynset lookup":
		addr, typ := "ip saddr", "ipv4_addr"
		if v6 {
			addr, typ = "ip6 saddr", "ipv6_addr"
		}
		set := g.named("set", "type "+typ+"; flags dynamic; size 100000;")
		if name == "dynset add" {
			return "add " + set + " { " + addr + " } " + pick(g, []string{"accept", "drop", ""})
		}
		return addr + " " + set + " " + pick(g, []string{"accept", "drop"})
	case "redirect":
		return fmt.Sprintf("meta l4proto tcp redirect to :%d", g.port())
	case "dnat", "dnat port":
		what, word := g.destination(v6, false), "ip"
		if v6 {
			word = "ip6"
		}
		if name == "dnat" {
			return g.inetNat(word) + " to " + what.String()
		}
		if v6 {
			return fmt.Sprintf("meta l4proto tcp %s to [%s]:%d", g.inetNat(word), what, g.port())
		}
		return fmt.Sprintf("meta l4proto tcp %s to %s:%d", g.inetNat(word), what, g.port())
	}
	return name
}

func (g *Generator) port() uint16 {
	p := pick(g, g.ports)
	if p == 0 {
		return 80
	}
	return p
}

func (g *Generator) inetNat(word string) string {
	if g.family == "inet" {
		return "dnat " + word
	}
	return "dnat"
}

// Probes makes packets for the last ruleset: shapes, and for every shape sources.
func (g *Generator) Probes(shapes, sources int) ([]Shape, []Probe) {
	var ss []Shape
	var ps []Probe
	for len(ss) < shapes {
		s := g.shape()
		if g.chance(8) {
			s = g.established()
			for i := range min(sources, flowSources) {
				ps = append(ps, Probe{len(ss), flowSource(s.IPv6, i)})
			}
			ss = append(ss, s)
			continue
		}
		ss = append(ss, s)
		for range sources {
			var a netip.Addr
			if list := g.src[idx(s.IPv6)]; len(list) > 0 && g.chance(70) {
				a = pick(g, list)
			} else {
				a = g.source(s.IPv6)
				if g.chance(50) {
					a = pick(g, g.bases(s.IPv6))
				}
			}
			if !validSource(a) {
				a = g.source(s.IPv6)
			}
			ps = append(ps, Probe{len(ss) - 1, a})
		}
	}
	return ss, ps
}

func (g *Generator) bases(v6 bool) []netip.Addr {
	if v6 {
		return g.base6
	}
	return g.base4
}

func (g *Generator) known(name string, def uint64, bits int) uint64 {
	if vs := g.values[name]; len(vs) > 0 && g.chance(65) {
		return pick(g, vs) & (1<<bits - 1)
	}
	return def
}

func (g *Generator) shape() Shape {
	s := Shape{IPv6: g.chance(55), Iface: g.r.IntN(2), Forward: g.chance(40), MAC: [2]byte{pick(g, []byte{2, 6}), byte(g.r.IntN(3))}}
	s.Dst = g.destination(s.IPv6, s.Forward)
	if !s.Forward && g.chance(25) {
		s.Output, s.Iface = true, 0
		s.Dst = netip.MustParseAddr(map[bool]string{false: "198.18.0.7", true: "2a0f:1::7"}[s.IPv6])
		if g.chance(50) {
			s.Iface = 1
			s.Dst = g.destination(s.IPv6, true)
		}
	}
	ttl, tos, length := "ip ttl", "ip dscp", "ip length"
	if s.IPv6 {
		ttl, tos, length = "ip6 hoplimit", "ip6 dscp", "ip6 length"
	}
	s.HopLimit = uint8(max(g.known(ttl, 64, 8), 2))
	s.TOS = uint8(g.known(tos, g.r.Uint64N(64), 6) << 2)
	s.Body = g.r.IntN(8)
	_ = length
	switch s.Proto = pick(g, []uint8{protoTCP, protoTCP, protoTCP, protoUDP, protoUDP, protoICMP, protoICMPv6, 0}); s.Proto {
	case protoICMP, protoICMPv6:
		if s.IPv6 {
			s.Proto = protoICMPv6
			s.Type = uint8(g.known("icmpv6 type", pick(g, []uint64{128, 128, 129, 1, 133, 135, 136, 143, 200}), 8))
			s.Code = uint8(g.known("icmpv6 code", 0, 8))
		} else {
			s.Proto = protoICMP
			s.Type = uint8(g.known("icmp type", pick(g, []uint64{8, 8, 0, 13, 3, 11}), 8))
			s.Code = uint8(g.known("icmp code", 0, 8))
		}
		s.Sport = uint16(g.r.Uint32())
	case 0:
		s.Proto = 99
	default:
		name := map[uint8]string{protoTCP: "tcp", protoUDP: "udp"}[s.Proto]
		s.Dport = uint16(g.known(pick(g, []string{name + " dport", "th dport"}), uint64(pick(g, g.ports)), 16))
		s.Sport = uint16(g.known(pick(g, []string{name + " sport", "th sport"}), 1024+g.r.Uint64N(60000), 16))
		s.Window = uint16(g.known("tcp window", 1024, 16))
		s.Flags = 2
		if s.Proto == protoTCP && g.chance(30) {
			s.Flags = uint8(g.known("tcp flags", pick(g, []uint64{16, 18, 4, 1, 0}), 8))
		}
	}
	if s.IPv6 && g.chance(25) {
		g.extensions(&s)
	}
	for _, e := range s.Ext { // all but the last fragment carry units of 8 bytes
		for e.Frag == reach.First && len(s.transport(s.Dst))%8 != 0 {
			s.Body++
		}
	}
	s.Ct = ctState(&s)
	return s
}

func (g *Generator) extensions(s *Shape) {
	if g.chance(50) {
		s.Ext = append(s.Ext, reach.Ext{Number: hopByHop})
	}
	if g.chance(40) {
		s.Ext = append(s.Ext, reach.Ext{Number: destOpts})
	}
	if g.chance(30) {
		s.Ext = append(s.Ext, reach.Ext{Number: routing})
	}
	if g.chance(30) {
		s.Ext = append(s.Ext, reach.Ext{Number: fragment, Frag: pick(g, []reach.Frag{reach.Atomic, reach.First, reach.Later})})
	}
}
