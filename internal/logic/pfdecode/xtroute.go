package pfdecode

import (
	"slices"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// NFTA_FIB_F_* and NFT_FIB_RESULT_* (include/uapi/linux/netfilter/nf_tables.h).
const (
	fibSaddr = 1
	fibDaddr = 2
	fibMark  = 4
	fibIIF   = 8
	fibOIF   = 16

	fibResultOIF  = 1
	fibResultType = 3

	rtnUnicast = 1 // RTN_UNICAST
)

// XT_ADDRTYPE_* are 1 << RTN_*.
const (
	typeUnspec    = 1 << 0
	typeUnicast   = 1 << 1
	typeLocal     = 1 << 2
	typeAnycast   = 1 << 4
	typeMulticast = 1 << 5

	rtnMax = 11
)

// matchAddrType is xt_addrtype.c: struct xt_addrtype_info and _v1.
func matchAddrType(rev int) lower {
	return func(x *xtable, i *blob) []rs.Expr {
		if !x.inet() {
			return nil
		}
		var invert [2]bool
		dev := uint32(0)
		if rev == 0 {
			invert = [2]bool{i.u32(4) != 0, i.u32(8) != 0}
		} else {
			f := i.u32(4)
			if f&^15 != 0 {
				return nil
			}
			invert = [2]bool{f&1 != 0, f&2 != 0}
			switch {
			case f&4 != 0:
				dev = fibIIF
			case f&8 != 0:
				dev = fibOIF
			}
		}
		var out []rs.Expr
		for dst := range 2 {
			mask := uint32(i.u16(2 * dst))
			if mask == 0 {
				continue
			}
			c := x.addrTypes(dst == 1, mask, dev)
			if c == nil {
				return nil
			}
			if invert[dst] || len(c) > 1 {
				c = one(rs.Any{Name: "addrtype", Of: [][]rs.Expr{c}, Invert: invert[dst]})
			}
			out = append(out, c...)
		}
		return matched("addrtype", out)
	}
}

func (x *xtable) addrTypes(dst bool, mask, dev uint32) []rs.Expr {
	flags := fibSaddr | dev
	if dst {
		flags = fibDaddr | dev
	}
	oneOf := func(mask uint32) rs.Expr {
		any := rs.Any{Name: "addrtype"}
		for t := range uint32(rtnMax + 1) {
			if mask>>t&1 != 0 {
				any.Of = append(any.Of, []rs.Expr{
					rs.Fib{Dreg: scratch, Result: fibResultType, Flags: flags}, is(x.host32(t), false),
				})
			}
		}
		return any
	}
	if x.is4() {
		if mask>>(rtnMax+1) != 0 {
			return nil
		}
		return one(oneOf(mask))
	}
	// match_type6: the classes of address are conditions beside each other, and only
	// local and anycast ask the routing table.
	if mask&^(typeUnspec|typeUnicast|typeLocal|typeAnycast|typeMulticast) != 0 {
		return nil
	}
	load, first := x.addr(dst), net(8, 1)
	if dst {
		first = net(24, 1)
	}
	var out []rs.Expr
	if mask&typeMulticast != 0 {
		out = append(out, first, is([]byte{0xff}, false))
	}
	if mask&typeUnicast != 0 { // ipv6_addr_type: all but unspecified, multicast and IPv4-mapped
		mapped := make([]byte, 12)
		mapped[10], mapped[11] = 0xff, 0xff
		out = append(out, load, is(make([]byte, 16), true), is([]byte{0xff}, true), is(mapped, true))
	}
	if mask&typeUnspec != 0 {
		out = append(out, load, is(make([]byte, 16), false))
	}
	if m := mask & (typeLocal | typeAnycast); m != 0 {
		out = append(out, oneOf(m))
	}
	return out
}

// matchRPFilter is ipt_rpfilter.c and ip6t_rpfilter.c: is the source reached through
// the interface the packet came in by? --loose and --accept-local ask otherwise than fib.
func matchRPFilter(x *xtable, i *blob) []rs.Expr {
	const loose, validMark, acceptLocal, invert = 1, 2, 4, 8
	f := i.u8(0)
	if !x.inet() || f&(loose|acceptLocal) != 0 {
		return nil
	}
	fib := rs.Fib{Dreg: scratch, Result: fibResultOIF, Flags: fibSaddr | fibIIF}
	if f&validMark != 0 {
		fib.Flags |= fibMark
	}
	any := rs.Any{Name: "rpfilter", Invert: f&invert != 0}
	any.Of = append(any.Of, []rs.Expr{meta32(metaIIFName), is([]byte("lo\x00"), false)})
	if x.is4() {
		// From 0.0.0.0 to everybody on the link it does not ask (ipv4_is_zeronet). Unlike
		// the fib of nf_tables it takes no route but a unicast one: a broadcast address has
		// an interface, too.
		zero := []rs.Expr{net(12, 4), is(make([]byte, 4), false)}
		any.Of = append(any.Of,
			append(slices.Clone(zero), net(16, 4), is([]byte{255, 255, 255, 255}, false)),
			append(slices.Clone(zero), net(16, 3), is([]byte{224, 0, 0}, false)),
			[]rs.Expr{
				fib, is(x.host32(0), true),
				rs.Fib{Dreg: scratch, Result: fibResultType, Flags: fibSaddr},
				is(x.host32(rtnUnicast), false),
			})
		return one(any)
	}
	any.Of = append(any.Of, []rs.Expr{x.addr(false), is(make([]byte, 16), false)}, []rs.Expr{fib, is(x.host32(0), true)})
	return one(any)
}

// exthdr loads a byte of an extension header; without the header the rule breaks.
func exthdr8(typ uint8, off int) rs.Expr {
	return rs.Exthdr{Dreg: scratch, Type: typ, Offset: uint32(off), Len: 1}
}

// matchFrag is ip6t_frag.c: struct ip6t_frag.
func matchFrag(x *xtable, i *blob) []rs.Expr {
	const res, first, more, last = 4, 8, 16, 32
	if x.family != rs.IPv6 {
		return nil
	}
	f, inv := i.u8(12), i.u8(13)&1 != 0
	load := func(off, n int) rs.Expr {
		return rs.Exthdr{Dreg: scratch, Type: 44, Offset: uint32(off), Len: uint32(n)}
	}
	out := append([]rs.Expr{load(4, 4)}, range32(i.u32(0), i.u32(4), inv)...)
	if f&res != 0 {
		out = append(out, load(1, 1), is([]byte{0}, false), load(2, 2), and([]byte{0, 6}), is([]byte{0, 0}, false))
	}
	if f&first != 0 {
		out = append(out, load(2, 2), and([]byte{0xff, 0xf8}), is([]byte{0, 0}, false))
	}
	if f&more != 0 {
		out = append(out, load(2, 2), and([]byte{0, 1}), is([]byte{0, 1}, false))
	}
	if f&last != 0 {
		out = append(out, load(2, 2), and([]byte{0, 1}), is([]byte{0, 0}, false))
	}
	return out
}

// headerLen compares the length of an extension header in octets with its length field.
func headerLen(typ uint8, octets uint32, inv bool) []rs.Expr {
	if octets%8 != 0 || octets == 0 || octets > 256*8 {
		if inv {
			return one(exthdr8(typ, 1))
		}
		return one(broken)
	}
	return []rs.Expr{exthdr8(typ, 1), is([]byte{byte(octets/8 - 1)}, inv)}
}

// matchRT is ip6t_rt.c without address lists: struct ip6t_rt.
func matchRT(x *xtable, i *blob) []rs.Expr {
	const typ, length, header = 1, 4, 43
	f, inv := i.u8(16), i.u8(17)
	if x.family != rs.IPv6 || f&^7 != 0 {
		return nil
	}
	out := one(exthdr8(header, 3))
	switch from, to := i.u32(4), i.u32(8); {
	case from > to || from > 255:
		if inv&2 == 0 {
			out = append(out, broken)
		}
	case from == 0 && to >= 255:
		if inv&2 != 0 {
			out = append(out, broken)
		}
	default:
		out = append(out, between([]byte{byte(from)}, []byte{byte(min(to, 255))}, inv&2 != 0))
	}
	if f&length != 0 {
		out = append(out, headerLen(header, i.u32(12), inv&4 != 0)...)
	}
	if f&typ != 0 {
		if i.u32(0) > 255 {
			return nil
		}
		out = append(out, exthdr8(header, 2), is([]byte{byte(i.u32(0))}, inv&1 != 0))
	}
	return out
}

// matchOpts is ip6t_hbh.c without option lists: struct ip6t_opts.
func matchOpts(header uint8) lower {
	return func(x *xtable, i *blob) []rs.Expr {
		const length, opts = 1, 2
		f := i.u8(4)
		if x.family != rs.IPv6 || f&opts != 0 {
			return nil
		}
		out := one(exthdr8(header, 1))
		if f&length != 0 {
			out = append(out, headerLen(header, i.u32(0), i.u8(5)&1 != 0)...)
		}
		return out
	}
}

func matchIPv6Header(x *xtable, i *blob) []rs.Expr {
	if x.family != rs.IPv6 {
		return nil
	}
	return one(rs.ExtHeaders{Match: i.u8(0), Invert: i.u8(1), Soft: i.u8(2) != 0})
}
