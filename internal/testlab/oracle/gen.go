package oracle

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

// Generator makes rulesets and packets for them from one seed.
type Generator struct {
	r    *rand.Rand
	seed uint64
	cov  *Coverage
	raw  bool // fields that only the packet's bytes hold

	base4, base6 []netip.Addr
	ports        []uint16
	src          [2][]netip.Addr // boundaries of rules, IPv4 and IPv6
	dst          [2][]netip.Addr
	values       map[string][]uint64

	table  []string // sets of the table being written
	family string
	hook   string
	nsets  int

	callable []*chainText
	cells    []int
	goal     *goal
	goals    []*goal
}

// goal is a packet that one rule is about.
type goal struct {
	hook   string
	cells  []int
	v6     int8
	proto  uint8
	values map[string][]uint64
	words  map[string][]string
	src    []netip.Addr
	dst    []netip.Addr
	sample *Shape // whose bytes the rule was made of
}

// NewGenerator seeds one.
func NewGenerator(seed uint64, cov *Coverage) *Generator {
	return &Generator{seed: seed, r: rand.New(rand.NewPCG(seed, 6)), cov: cov}
}

func pick[T any](g *Generator, s []T) T { return s[g.r.IntN(len(s))] }

func (g *Generator) chance(percent int) bool { return g.r.IntN(100) < percent }

func (g *Generator) reset() {
	g.base4, g.base6, g.ports = nil, nil, nil
	g.src, g.dst = [2][]netip.Addr{}, [2][]netip.Addr{}
	g.values = map[string][]uint64{}
	g.goals = nil
	for range 5 {
		g.base4 = append(g.base4, g.source(false))
		g.base6 = append(g.base6, g.source(true))
	}
	for range 6 {
		g.ports = append(g.ports, uint16(g.r.IntN(65536)))
	}
	g.ports = append(g.ports, 22, 53, 0, 65535)
	g.raw = g.chance(35)
}

// source is an address that the kernel takes packets from.
func (g *Generator) source(v6 bool) netip.Addr {
	for {
		var a netip.Addr
		if v6 {
			var b [16]byte
			for i := range b {
				b[i] = byte(g.r.Uint32())
			}
			b[0] = pick(g, []byte{0x20, 0x20, 0x2a, 0x30, 0xfc, 0x3f})
			if g.chance(60) {
				for i := 6 + g.r.IntN(6); i < 14; i++ {
					b[i] = 0
				}
			}
			a = netip.AddrFrom16(b)
		} else {
			a = netip.AddrFrom4([4]byte{byte(g.r.IntN(224)), byte(g.r.Uint32()), byte(g.r.Uint32()), byte(g.r.Uint32())})
		}
		if validSource(a) {
			return a
		}
	}
}

// validSource tells whether a packet from there reaches the last hook: no martian
// (ip_route_input_slow, ipv6_rcv), and none of the host's own.
func validSource(a netip.Addr) bool {
	if !a.IsValid() || a.IsMulticast() || a.IsLoopback() || a.IsUnspecified() || a.Is4In6() {
		return false
	}
	if a.Is4() {
		b := a.As4()
		if b[0] == 0 || b[0] == 127 || b[0] >= 224 {
			return false
		}
	} else if b := a.As16(); b[0] == 0xff || b[0] == 0 || b[0] == 0xfe {
		return false
	}
	for _, p := range append(append([]string{forward4, forward6}, local4...), local6...) {
		if netip.MustParsePrefix(p).Masked().Contains(a) {
			return false
		}
	}
	return true
}

func idx(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

// interesting remembers the boundaries of an interval.
func (g *Generator) interesting(list *[2][]netip.Addr, v6 bool, a, b netip.Addr) {
	for _, x := range []netip.Addr{a.Prev(), a, b, b.Next(), g.between(a, b)} {
		if x.IsValid() {
			list[idx(v6)] = append(list[idx(v6)], x)
		}
	}
}

func (g *Generator) between(a, b netip.Addr) netip.Addr {
	x, y := a.AsSlice(), b.AsSlice()
	for i := range x {
		if x[i] != y[i] {
			x[i] = x[i] + byte(g.r.IntN(int(y[i]-x[i])+1))
			if x[i] != y[i] {
				for j := i + 1; j < len(x); j++ {
					x[j] = byte(g.r.Uint32())
				}
			}
			break
		}
	}
	out, _ := netip.AddrFromSlice(x)
	return out
}

// interval is a random interval of addresses: first, last, and how nft writes it.
func (g *Generator) interval(v6, dst bool) (a, b netip.Addr, text string, prefix int) {
	width := 32
	if v6 {
		width = 128
	}
	var base netip.Addr
	switch {
	case dst:
		base = g.destination(v6, g.chance(30))
	case v6:
		base = pick(g, g.base6)
	default:
		base = pick(g, g.base4)
	}
	if g.chance(30) && !dst {
		base = g.source(v6)
	}
	n := width - g.r.IntN(width/2+1)
	if g.chance(15) {
		n = g.r.IntN(width + 1)
	}
	p := netip.PrefixFrom(base, n).Masked()
	last := lastOf(p)
	if g.chance(25) { // a range that is no prefix
		x, y := g.between(p.Addr(), last), g.between(p.Addr(), last)
		if y.Less(x) {
			x, y = y, x
		}
		if x != y {
			return x, y, x.String() + "-" + y.String(), -1
		}
	}
	text = p.String()
	if n == width {
		text = p.Addr().String()
	}
	return p.Addr(), last, text, n
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (g *Generator) destination(v6, forward bool) netip.Addr {
	own := local4
	if v6 {
		own = local6
	}
	if !forward {
		return netip.MustParsePrefix(pick(g, own)).Addr()
	}
	if v6 {
		b := netip.MustParsePrefix(forward6).Addr().As16()
		b[15], b[7] = byte(1+g.r.IntN(4)), byte(g.r.IntN(3))
		return netip.AddrFrom16(b)
	}
	b := netip.MustParsePrefix(forward4).Addr().As4()
	b[3] = byte(2 + g.r.IntN(4))
	return netip.AddrFrom4(b)
}

// number is a random value of a field.
func (g *Generator) number(f *field) uint64 {
	top := uint64(1)<<f.bits - 1
	var v uint64
	switch {
	case strings.HasSuffix(f.name, "port") || strings.HasSuffix(f.name, "proto-dst"):
		v = uint64(pick(g, g.ports))
	case f.name == "meta l4proto" || f.name == "ip protocol" || strings.HasSuffix(f.name, "nexthdr"):
		v = pick(g, []uint64{1, 6, 17, 58, 6, 17, 0, 43, 44, 60, 99, 132, 136, 255})
	case f.name == "ip ttl" || f.name == "ip6 hoplimit":
		v = pick(g, []uint64{1, 63, 64, 128, 255, 2})
	case f.name == "icmp type":
		v = pick(g, []uint64{0, 3, 8, 13, 11})
	case f.name == "icmpv6 type":
		v = pick(g, []uint64{1, 2, 128, 129, 133, 134, 135, 136, 143})
	case f.name == "tcp flags":
		v = pick(g, []uint64{2, 16, 18, 4, 1, 0x18})
	case f.name == "meta mark" || f.name == "ct mark":
		v = pick(g, []uint64{0, 1, 2, 0x100, 0xff00, 0xffffffff})
	case f.name == "meta skuid":
		v = pick(g, []uint64{0, 0, 1, 65534})
	case f.name == "frag frag-off":
		v = pick(g, []uint64{0, 2})
	case f.name == "rt type":
		v = pick(g, []uint64{0, 0, 2, 4})
	case f.name == "tcp sequence":
		v = pick(g, []uint64{tcpSequence, uint64(g.r.Uint32())})
	case f.name == "ip frag-off":
		v = pick(g, []uint64{0x4000, 0, 0x2000, 1})
	case strings.HasSuffix(f.name, "hdrlength") && f.name != "ip hdrlength", f.name == "rt seg-left", f.name == "tcp urgptr", f.name == "icmp sequence",
		f.name == "icmpv6 max-delay", f.name == "ct zone", f.name == "meta cpu", f.name == "icmp mtu", f.name == "icmpv6 mtu", f.name == "sctp vtag":
		v = pick(g, []uint64{0, 0, 1, 2})
	case f.name == "meta length" || f.name == "ip length":
		v = uint64(28 + g.r.IntN(64))
	case f.name == "udp length" || f.name == "ip6 length":
		v = uint64(8 + g.r.IntN(40))
	case f.name == "tcp doff":
		v = pick(g, []uint64{5, 4, 6})
	case f.name == "ip hdrlength":
		v = pick(g, []uint64{5, 6})
	case strings.HasSuffix(f.name, "version"):
		v = pick(g, []uint64{4, 6})
	case f.name == "tcp window":
		v = pick(g, []uint64{0, 1024, 0x7fff, 65535})
	default:
		v = g.r.Uint64() & top
	}
	if g.chance(15) {
		v += g.r.Uint64()%3 - 1
	}
	if g.chance(5) {
		v = g.r.Uint64()
	}
	v &= top
	return v
}

func (g *Generator) note(f *field, vs ...uint64) {
	g.goal.values[f.name] = append(g.goal.values[f.name], vs...)
	for _, v := range vs {
		g.values[f.name] = append(g.values[f.name], v-1, v, v+1)
	}
}

// numbers are n different values in order.
func (g *Generator) numbers(f *field, n int) []uint64 {
	seen := map[uint64]bool{}
	var out []uint64
	for try := 0; len(out) < n && try < 50; try++ {
		v := g.number(f)
		if try > 10 {
			v = g.r.Uint64() & (uint64(1)<<f.bits - 1)
		}
		if !seen[v] {
			seen[v] = true
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}

// values of a set: single ones.
func (g *Generator) singles(f *field, n int) []string {
	var out []string
	if f.addr {
		v6, dst := f.v6 == 6, strings.HasSuffix(f.name, "daddr")
		for range n {
			a, b, _, _ := g.interval(v6, dst)
			x := g.between(a, b)
			if g.chance(50) {
				x = a
			}
			g.interestingAddr(f, x, x)
			if s := x.String(); !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
		return out
	}
	if f.words != nil {
		for _, w := range f.words {
			if len(out) < n && g.chance(50) && !strings.HasSuffix(w, "*") {
				out = append(out, g.word(f, w))
			}
		}
		if len(out) == 0 {
			out = append(out, g.word(f, pick(g, f.words)))
			if strings.HasSuffix(f.name, "name") {
				out[0] = g.word(f, f.words[len(f.words)-1])
			}
		}
		return out
	}
	for _, v := range g.numbers(f, n) {
		g.note(f, v)
		out = append(out, g.num(f, v))
	}
	return out
}

func (g *Generator) word(f *field, w string) string {
	g.goal.words[f.name] = append(g.goal.words[f.name], w)
	if f.vague == "" && !f.rare && (strings.HasPrefix(f.name, "meta ii") || strings.HasPrefix(f.name, "meta oi")) {
		return `"` + w + `"`
	}
	return w
}

func (g *Generator) num(f *field, v uint64) string {
	if f.bits > 16 || f.name == "tcp flags" {
		return fmt.Sprintf("0x%x", v)
	}
	return fmt.Sprint(v)
}

func (g *Generator) interestingAddr(f *field, a, b netip.Addr) {
	if strings.HasSuffix(f.name, "daddr") {
		g.goal.dst = append(g.goal.dst, a)
		g.interesting(&g.dst, f.v6 == 6, a, b)
	} else {
		g.goal.src = append(g.goal.src, g.between(a, b))
		g.interesting(&g.src, f.v6 == 6, a, b)
	}
}

// spans are disjoint intervals in order, sometimes adjacent, sometimes open to the end.
func (g *Generator) spans(f *field, n int, overlap bool) []string {
	var out []string
	if f.addr {
		type span struct {
			a, b netip.Addr
			text string
		}
		var all []span
		for range n {
			a, b, text, _ := g.interval(f.v6 == 6, strings.HasSuffix(f.name, "daddr"))
			if next := b.Next(); g.chance(20) && next.IsValid() && len(all) > 0 { // adjacent to the one before
				a = all[len(all)-1].b.Next()
				if !a.IsValid() {
					continue
				}
				b = a
				text = a.String()
			}
			if !overlap && slices.ContainsFunc(all, func(s span) bool { return !b.Less(s.a) && !s.b.Less(a) }) {
				continue
			}
			all = append(all, span{a, b, text})
			g.interestingAddr(f, a, b)
		}
		for _, s := range all {
			out = append(out, s.text)
		}
		return out
	}
	top := uint64(1)<<f.bits - 1
	vs := g.numbers(f, 2*n)
	for i := 0; i+1 < len(vs); i += 2 {
		a, b := vs[i], vs[i+1]
		if i+2 >= len(vs) && g.chance(30) {
			b = top
		}
		g.note(f, a, b)
		switch {
		case g.chance(25):
			out = append(out, g.num(f, a))
			if a+1 < b && g.chance(50) { // adjacent
				out = append(out, g.num(f, a+1)+"-"+g.num(f, b))
			}
		case a < b:
			out = append(out, g.num(f, a)+"-"+g.num(f, b))
		}
	}
	if len(out) == 0 {
		out = append(out, g.num(f, vs[0]))
	}
	return out
}

func (g *Generator) named(kind, def string) string {
	name := fmt.Sprintf("s%d", g.nsets)
	g.nsets++
	g.table = append(g.table, fmt.Sprintf(" %s %s { %s }", kind, name, def))
	return "@" + name
}

func braces(s []string) string { return "{ " + strings.Join(s, ", ") + " }" }

// below lists jumps and gotos to the chains that the chain being written may call.
func (g *Generator) below() []string {
	out := []string{"accept"}
	for _, c := range g.callable {
		out = append(out, "jump "+c.name, "goto "+c.name)
	}
	return out
}

// verdict of a map.
func (g *Generator) verdict() string {
	return pick(g, []string{"accept", "accept", "drop", "return", "continue"})
}

func (g *Generator) mapped(keys []string, val func() string) string {
	for i := range keys {
		keys[i] += " : " + val()
	}
	return braces(keys)
}

// match writes one match with an operator; tail is true when it ends the rule.
func (g *Generator) match(f *field, op string) (text string, tail bool) {
	if f.free {
		return g.rawMatch(f, op), false
	}
	if f.addr {
		if text := g.addrMatch(f, op); text != "" {
			return text, false
		}
	}
	one := func() string { return g.singles(f, 1)[0] }
	neg := ""
	if strings.HasPrefix(op, "n") && op != "named" && op != "namedintervals" && op != "namedvmap" {
		neg = "!= "
		op = op[1:]
	}
	n := 2 + g.r.IntN(4)
	switch f.name {
	case "@ih":
		return "udp dport 53 @ih,0,8 " + fmt.Sprint(g.r.IntN(256)), false
	case "@ll":
		return fmt.Sprintf("@ll,%d,16 0x%x", 48, 0x0200), false
	case "ct id":
		return fmt.Sprintf("ct id %d", g.r.Uint32()), false
	}
	mark := func() string { return fmt.Sprintf("0x%x", pick(g, []uint64{1, 2, 0x100})) }
	switch op {
	case "eq":
		if f.name == "ether saddr" {
			return fmt.Sprintf("ether saddr & ff:ff:00:00:00:00 %s %s%02x:00:00:00:00", pick(g, []string{"==", "!="}), pick(g, f.words), g.r.IntN(3)), false
		}
		if f.words != nil {
			return f.name + " " + g.word(f, pick(g, f.words)), false
		}
		return f.name + " " + one(), false
	case "set":
		return f.name + " " + neg + braces(g.singles(f, n)), false
	case "intervals":
		return f.name + " " + neg + braces(g.spans(f, n, false)), false
	case "named":
		return f.name + " " + neg + g.named("set", "typeof "+f.name+"; elements = "+braces(g.singles(f, n))+";"), false
	case "namedintervals":
		return f.name + " " + neg + g.named("set", "typeof "+f.name+"; flags interval; elements = "+braces(g.spans(f, n, false))+";"), false
	case "namedtimeout":
		return f.name + " " + g.named("set", "typeof "+f.name+"; flags timeout; timeout 1h; elements = "+braces(g.singles(f, n))+";"), false
	case "namedcounter":
		return f.name + " " + g.named("set", "typeof "+f.name+"; counter; elements = "+braces(g.singles(f, n))+";"), false
	case "setcatchall":
		return f.name + " " + g.named("set", "typeof "+f.name+"; elements = "+braces(append(g.singles(f, n), "*"))+";"), false
	case "vmapjump":
		to := g.below()
		return f.name + " vmap " + g.mapped(g.singles(f, n), func() string { return pick(g, to) }), true
	case "lt", "le", "gt", "ge":
		sign := map[string]string{"lt": "<", "le": "<=", "gt": ">", "ge": ">="}[op]
		if !f.addr && (op == "lt" || op == "gt") { // nft refuses comparisons that are always false
			v := g.number(f)
			if v == 0 || v == uint64(1)<<f.bits-1 {
				v = 1
			}
			g.note(f, v)
			return fmt.Sprintf("%s %s %s", f.name, sign, g.num(f, v)), false
		}
		return f.name + " " + sign + " " + one(), false
	case "range":
		if f.addr {
			for range 20 {
				a, b, _, _ := g.interval(f.v6 == 6, strings.HasSuffix(f.name, "daddr"))
				if a != b {
					g.interestingAddr(f, a, b)
					return fmt.Sprintf("%s %s%s-%s", f.name, neg, a, b), false
				}
			}
		}
		vs := g.numbers(f, 2)
		if len(vs) < 2 {
			vs = []uint64{0, 1}
		}
		g.note(f, vs...)
		return fmt.Sprintf("%s %s%s-%s", f.name, neg, g.num(f, vs[0]), g.num(f, vs[1])), false
	case "mask":
		if neg == "" {
			neg = "== "
		}
		if f.addr {
			return g.addrMask(f, neg), false
		}
		m := g.r.Uint64()&(uint64(1)<<f.bits-1) | 1
		v := g.number(f)
		g.note(f, v)
		return fmt.Sprintf("%s & 0x%x %s0x%x", f.name, m, neg, v&m), false
	case "mask0":
		ws := g.singles(f, 2)
		sign := "=="
		if neg != "" {
			sign = "!="
		}
		return fmt.Sprintf("%s & (%s) %s 0", f.name, strings.Join(ws, " | "), sign), false
	case "vmap":
		return f.name + " vmap " + g.mapped(g.singles(f, n), g.verdict), true
	case "vmapintervals":
		return f.name + " vmap " + g.mapped(g.spans(f, n, false), g.verdict), true
	case "vmapcatchall":
		return f.name + " vmap " + g.mapped(append(g.singles(f, n), "*"), g.verdict), true
	case "namedvmap":
		flags, keys := "", g.singles(f, n)
		if g.chance(50) {
			flags, keys = " flags interval;", g.spans(f, n, false)
		}
		return f.name + " vmap " + g.named("map", "typeof "+f.name+" : verdict;"+flags+" elements = "+g.mapped(keys, g.verdict)+";"), true
	case "map":
		return "meta mark set " + f.name + " map " + g.mapped(g.singles(f, n), mark), false
	case "mapintervals":
		return "meta mark set " + f.name + " map " + g.mapped(g.spans(f, n, false), mark), false
	case "concat", "concatintervals", "concatvmap", "concatnamedvmap", "concatmap":
		return g.concat(f, op, neg)
	}
	if f.words != nil {
		return f.name + " " + neg + g.word(f, pick(g, f.words)), false
	}
	return f.name + " " + neg + one(), false
}
