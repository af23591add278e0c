package oracle

import (
	"fmt"
	"net/netip"
	"strings"
)

// addrMatch writes the operators that only addresses have; "" for others.
func (g *Generator) addrMatch(f *field, op string) string {
	dst := strings.HasSuffix(f.name, "daddr")
	switch op {
	case "prefix", "nprefix":
		for range 20 {
			a, b, text, n := g.interval(f.v6 == 6, dst)
			if n > 0 {
				g.interestingAddr(f, a, b)
				if op == "nprefix" {
					text = "!= " + text
				}
				return f.name + " " + text
			}
		}
		return f.name + " " + g.singles(f, 1)[0]
	case "mergedintervals":
		return f.name + " " + g.named("set", "typeof "+f.name+"; flags interval; auto-merge; elements = "+braces(g.spans(f, 5, true))+";")
	case "maskodd":
		b := make([]byte, 4)
		if f.v6 == 6 {
			b = make([]byte, 16)
		}
		for i := range b {
			b[i] = byte(g.r.Uint32() & g.r.Uint32())
		}
		m, _ := netip.AddrFromSlice(b)
		return g.masked(f, m, pick(g, []string{"==", "!="})+" ")
	}
	return ""
}

// addrMask is a mask that is no prefix: low bits, or a byte in the middle.
func (g *Generator) addrMask(f *field, sign string) string {
	b := make([]byte, 4)
	if f.v6 == 6 {
		b = make([]byte, 16)
	}
	for i := range b {
		if g.chance(30) {
			b[i] = pick(g, []byte{0xff, 0xf0, 0x0f, 0x01, 0x80})
		}
	}
	b[len(b)-1] |= 1
	m, _ := netip.AddrFromSlice(b)
	return g.masked(f, m, sign)
}

func (g *Generator) masked(f *field, m netip.Addr, sign string) string {
	a, e, _, _ := g.interval(f.v6 == 6, strings.HasSuffix(f.name, "daddr"))
	x := g.between(a, e)
	g.interestingAddr(f, x, x)
	v, mb := x.AsSlice(), m.AsSlice()
	for i := range v {
		v[i] &= mb[i]
	}
	w, _ := netip.AddrFromSlice(v)
	return fmt.Sprintf("%s & %s %s%s", f.name, m, sign, w)
}
