// Package eyeballs says how a client gets to a name that has addresses of both families:
// which it tries first (RFC 6724), and how long it takes with and without Happy Eyeballs
// (RFC 8305).
package eyeballs

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"
)

// Destination is an address, and the source that the kernel takes for it; none where there
// is no way.
type Destination struct{ Addr, Source netip.Addr }

// policy is the table of RFC 6724 §2.1, as the C library has it.
var policy = []struct {
	prefix            netip.Prefix
	precedence, label int
}{
	{netip.MustParsePrefix("::1/128"), 50, 0},
	{netip.MustParsePrefix("::ffff:0:0/96"), 35, 4},
	{netip.MustParsePrefix("::/96"), 1, 3},
	{netip.MustParsePrefix("2001::/32"), 5, 5},
	{netip.MustParsePrefix("2002::/16"), 30, 2},
	{netip.MustParsePrefix("3ffe::/16"), 1, 12},
	{netip.MustParsePrefix("fec0::/10"), 1, 11},
	{netip.MustParsePrefix("fc00::/7"), 3, 13},
	{netip.MustParsePrefix("::/0"), 40, 1},
}

func classify(a netip.Addr) (precedence, label int) {
	six := netip.AddrFrom16(a.As16())
	for _, p := range policy {
		if p.prefix.Contains(six) {
			return p.precedence, p.label
		}
	}
	return 0, 0
}

// Scopes of an address (RFC 4291 §2.7).
const (
	linkLocal = 2
	siteLocal = 5
	global    = 14
)

var oldSite = netip.MustParsePrefix("fec0::/10")

func scope(a netip.Addr) int {
	switch {
	case a.IsLoopback(), a.IsLinkLocalUnicast():
		return linkLocal
	case oldSite.Contains(a.WithZone("")):
		return siteLocal
	}
	return global
}

// Order sorts destinations as getaddrinfo does (RFC 6724 §6), without the rules about
// deprecated, home and tunnelled addresses: the kernel has chosen the sources.
func Order(ds []Destination) {
	slices.SortStableFunc(ds, compare)
}

func compare(a, b Destination) int {
	first := func(x, y bool) int { // what has it comes first
		switch {
		case x == y:
			return 0
		case x:
			return -1
		}
		return 1
	}
	if c := first(a.Source.IsValid(), b.Source.IsValid()); c != 0 || !a.Source.IsValid() {
		return c // rule 1
	}
	pa, la := classify(a.Addr)
	pb, lb := classify(b.Addr)
	_, lsa := classify(a.Source)
	_, lsb := classify(b.Source)
	sa, sb := scope(a.Addr), scope(b.Addr)
	if c := cmp.Or(
		first(sa == scope(a.Source), sb == scope(b.Source)), // rule 2
		first(la == lsa, lb == lsb),                         // rule 5
		cmp.Compare(pb, pa),                                 // rule 6
		cmp.Compare(sa, sb),                                 // rule 8
	); c != 0 || a.Addr.Is4() || b.Addr.Is4() {
		return c
	}
	return cmp.Compare(common(b), common(a)) // rule 9
}

// common is how many bits of the prefix a destination shares with its source.
func common(d Destination) int {
	x, y := d.Addr.As16(), d.Source.As16()
	for i := range 8 {
		if z := x[i] ^ y[i]; z != 0 {
			return i*8 + bits.LeadingZeros8(z)
		}
	}
	return 64
}
