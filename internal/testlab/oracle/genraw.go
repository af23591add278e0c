package oracle

import (
	"fmt"
	"slices"
	"strings"
)

// rawMatch loads bits of a header at any offset.
func (g *Generator) rawMatch(f *field, op string) string {
	base, off, n := "@nh", 0, 0
	lens := []int{8, 16, 24, 32, 4, 12, 48, 64, 13, 1, 3}
	switch f.name {
	case "@nh":
		n, off = pick(g, lens), g.r.IntN(40*8)
		if g.chance(60) {
			off &^= 7
		}
	case "@th":
		base, n, off = "@th", pick(g, lens), g.r.IntN(20*8)
		if g.chance(60) {
			off &^= 7
		}
	default: // inside the source address
		n, off = pick(g, []int{8, 16, 24, 32}), 8*(8+g.r.IntN(12))
	}
	n = min(n, 64)
	top := uint64(1)<<n - 1
	if n == 64 {
		top = ^uint64(0)
	}
	v := g.r.Uint64() & top
	if g.chance(60) {
		v &= g.r.Uint64() & g.r.Uint64()
	}
	if g.chance(15) {
		v = 0
	}
	if g.chance(60) {
		v = g.sampled(base, off, n, v)
	}
	ref := fmt.Sprintf("%s,%d,%d", base, off, n)
	g.values[ref] = append(g.values[ref], v)
	switch op {
	case "neq":
		return fmt.Sprintf("%s != 0x%x", ref, v)
	case "lt":
		return fmt.Sprintf("%s < 0x%x", ref, max(v, 1))
	case "ge":
		return fmt.Sprintf("%s >= 0x%x", ref, max(v, 1))
	case "mask", "nmask":
		m := g.r.Uint64() & top
		if m == 0 {
			m = 1
		}
		sign := "=="
		if op == "nmask" {
			sign = "!="
		}
		return fmt.Sprintf("%s & 0x%x %s 0x%x", ref, m, sign, v&m)
	case "range", "nrange":
		w := g.r.Uint64() & top
		lo, hi := min(v, w), max(v, w)
		if lo == hi {
			lo, hi = 0, max(hi, 1)
		}
		sign := ""
		if op == "nrange" {
			sign = "!= "
		}
		return fmt.Sprintf("%s %s0x%x-0x%x", ref, sign, lo, hi)
	}
	return fmt.Sprintf("%s 0x%x", ref, v)
}

// sampled are the bits of a packet that could come.
func (g *Generator) sampled(base string, off, n int, v uint64) uint64 {
	own := g.goal
	g.goal = nil
	s := g.shape()
	g.goal = own
	src := g.source(s.IPv6)
	b := s.packet(src, 0)
	if base == "@th" {
		b = s.transport(src)
	}
	if (off+n+7)/8 > len(b) {
		return v
	}
	v = 0
	for i := off; i < off+n; i++ {
		v = v<<1 | uint64(b[i/8]>>(7-i%8)&1)
	}
	g.goal.sample, g.goal.src = &s, append(g.goal.src, src)
	return v
}

// concat joins the field with another one.
func (g *Generator) concat(f *field, op, neg string) (string, bool) {
	var with []*field
	for i := range fields {
		o := &fields[i]
		if o == f || o.plain || o.free || o.few || o.rare || o.name == f.name || o.bits != 0 && o.bits < 8 || o.raw && !g.raw || !o.fits(g.family, g.hook) {
			continue
		}
		if o.v6 != 0 && f.v6 != 0 && o.v6 != f.v6 || o.proto != 0 && f.proto != 0 && o.proto != f.proto {
			continue
		}
		if o.bits == 13 || strings.HasPrefix(o.name, "ct status") || o.name == "ip frag-off" || o.name == "ip6 flowlabel" || o.name == "ip6 dscp" || o.name == "ip dscp" || o.name == "tcp flags" {
			continue
		}
		if slices.Contains([]string{"ip saddr", "ip daddr", "ip6 saddr", "ip6 daddr", "tcp dport", "udp dport", "th dport", "meta l4proto", "meta iifname", "ct state", "meta mark", "icmpv6 type", "ip6 nexthdr", "ip protocol"}, o.name) {
			with = append(with, o, o, o)
		}
		with = append(with, o)
	}
	o := pick(g, with)
	parts := []*field{f, o}
	if g.chance(50) {
		parts = []*field{o, f}
	}
	key := parts[0].name + " . " + parts[1].name
	var elems []string
	for range 1 + g.r.IntN(4) {
		var e []string
		for _, p := range parts {
			if (op == "concatintervals" || op == "concatnamedvmap") && p.words == nil && g.chance(70) {
				e = append(e, g.spans(p, 1, false)[0])
			} else {
				e = append(e, g.singles(p, 1)[0])
			}
		}
		if s := strings.Join(e, " . "); !slices.Contains(elems, s) {
			elems = append(elems, s)
		}
	}
	if op == "concatintervals" || op == "concatnamedvmap" { // overlapping elements are refused: keep one or two
		elems = elems[:1+g.r.IntN(min(2, len(elems)))]
	}
	switch op {
	case "concatvmap":
		return key + " vmap " + g.mapped(elems, g.verdict), true
	case "concatnamedvmap":
		return key + " vmap " + g.named("map", "typeof "+key+" : verdict; flags interval; elements = "+g.mapped(elems, g.verdict)+";"), true
	case "concatmap":
		return "meta mark set " + key + " map " + g.mapped(elems, func() string { return pick(g, []string{"1", "2", "256"}) }), false
	}
	if g.chance(40) && op == "concatintervals" {
		return key + " " + neg + g.named("set", "typeof "+key+"; flags interval; elements = "+braces(elems)+";"), false
	}
	return key + " " + neg + braces(elems), false
}
