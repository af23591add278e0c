package reach

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/logic/packetset"
)

// carve writes a set as the fewest prefixes, and the fewest prefixes that are excepted
// from them. Sources outside all may be in it or not.
func carve(s, all packetset.Set, is4 bool) (in, out []netip.Prefix) {
	c := carver{is4: is4, in: s.Intersect(all), out: all.Intersect(s.Complement(is4)), cost: map[carveKey]int{}}
	root := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	if is4 {
		root = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	c.write(root, carveOutside)
	return c.wrote[0], c.wrote[1]
}

// What the prefixes around one say of it.
const (
	carveOutside  = iota // nothing
	carveIncluded        // it is listed
	carveExcepted        // it is listed, and excepted
)

type carveKey struct {
	p     netip.Prefix
	state int
}

type carver struct {
	is4     bool
	in, out packetset.Set
	cost    map[carveKey]int
	wrote   [2][]netip.Prefix
}

// noWay is more than any list is long.
const noWay = 1 << 20

func halves(p netip.Prefix) (a, b netip.Prefix) {
	a = netip.PrefixFrom(p.Addr(), p.Bits()+1)
	bytes := p.Addr().As16()
	bit := p.Bits()
	if p.Addr().Is4() {
		bit += 96
	}
	bytes[bit/8] |= 0x80 >> (bit % 8)
	high := netip.AddrFrom16(bytes)
	if p.Addr().Is4() {
		high = high.Unmap()
	}
	return a, netip.PrefixFrom(high, p.Bits()+1)
}

// least is how many prefixes it takes to say what is in p, and whether the first of
// them is p itself.
func (c *carver) least(p netip.Prefix, state int) (n int, here bool) {
	iv := packetset.PrefixInterval(p)
	in, out := c.in.Overlaps(iv), c.out.Overlaps(iv)
	switch state {
	case carveOutside:
		if !in {
			return 0, false
		}
		if !out {
			return 1, true
		}
	case carveIncluded:
		if !out {
			return 0, false
		}
		if !in {
			return 1, true
		}
	case carveExcepted:
		if in {
			return noWay, false
		}
		return 0, false
	}
	if n, ok := c.cost[carveKey{p, state}]; ok {
		return n >> 1, n&1 == 1
	}
	// Both are in it, so that it is no single address.
	a, b := halves(p)
	na, _ := c.least(a, state)
	nb, _ := c.least(b, state)
	n = na + nb
	if state == carveOutside { // an exception of p itself would leave nothing of it
		inside, _ := c.least(p, carveIncluded)
		if 1+inside < n {
			n, here = 1+inside, true
		}
	}
	v := n << 1
	if here {
		v |= 1
	}
	c.cost[carveKey{p, state}] = v
	return n, here
}

func (c *carver) write(p netip.Prefix, state int) {
	n, here := c.least(p, state)
	if n == 0 {
		return
	}
	if here {
		c.wrote[state] = append(c.wrote[state], p)
		c.write(p, state+1)
		return
	}
	a, b := halves(p)
	c.write(a, state)
	c.write(b, state)
}
