package pfdecode

import (
	"bytes"
	"slices"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// matches are the matches that are understood, of net/netfilter/xt_*.c,
// net/ipv4/netfilter/ipt_*.c and net/ipv6/netfilter/ip6t_*.c. Structures are from
// include/uapi/linux/netfilter*/.
var matches map[extension]lower

func init() { // set refers to itself through list:set
	matches = map[extension]lower{
		{"comment", 0}:    nothingElse("comment"),
		{"tcp", 0}:        matchTCP,
		{"udp", 0}:        matchUDP,
		{"udplite", 0}:    matchUDP,
		{"sctp", 0}:       matchSCTP,
		{"dccp", 0}:       matchDCCP,
		{"multiport", 1}:  matchMultiport,
		{"icmp", 0}:       matchICMP,
		{"icmp6", 0}:      matchICMP6,
		{"conntrack", 1}:  matchConntrack(1),
		{"conntrack", 2}:  matchConntrack(2),
		{"conntrack", 3}:  matchConntrack(3),
		{"state", 0}:      matchState,
		{"connmark", 1}:   matchConnmark,
		{"connlimit", 1}:  matchConnlimit,
		{"mark", 1}:       matchMark,
		{"limit", 0}:      func(*xtable, *blob) []rs.Expr { return one(rs.Limit{Name: "limit"}) },
		{"hashlimit", 1}:  matchHashlimit(16),
		{"hashlimit", 2}:  matchHashlimit(272),
		{"hashlimit", 3}:  matchHashlimit(272),
		{"nfacct", 0}:     matchAccounting,
		{"nfacct", 1}:     matchAccounting,
		{"quota", 0}:      func(_ *xtable, i *blob) []rs.Expr { return one(rs.Limit{Name: "quota", Over: i.u32(0)&1 != 0}) },
		{"recent", 0}:     matchRecent,
		{"recent", 1}:     matchRecent,
		{"ttl", 0}:        matchHopLimit(rs.IPv4, 8),
		{"hl", 0}:         matchHopLimit(rs.IPv6, 7),
		{"mac", 0}:        matchMAC,
		{"iprange", 1}:    matchIPRange,
		{"length", 0}:     matchLength,
		{"tos", 1}:        matchTOS,
		{"dscp", 0}:       matchDSCP,
		{"pkttype", 0}:    matchPktType,
		{"owner", 1}:      matchOwner,
		{"devgroup", 0}:   matchDevGroup,
		{"physdev", 0}:    matchPhysDev,
		{"addrtype", 0}:   matchAddrType(0),
		{"addrtype", 1}:   matchAddrType(1),
		{"rpfilter", 0}:   matchRPFilter,
		{"esp", 0}:        matchESP,
		{"ah", 0}:         matchAH,
		{"frag", 0}:       matchFrag,
		{"rt", 0}:         matchRT,
		{"hbh", 0}:        matchOpts(0),
		{"dst", 0}:        matchOpts(60),
		{"ipv6header", 0}: matchIPv6Header,
		{"set", 1}:        matchSet,
		{"set", 2}:        matchSet,
		{"set", 3}:        matchSet,
		{"set", 4}:        matchSet,
	}
}

func nothingElse(name string) lower {
	return func(*xtable, *blob) []rs.Expr { return always(name) }
}

// matchTCP is tcp_mt of xt_tcpudp.c. The hot drop of a TCP fragment 8 bytes in
// exists for IPv4 only, where the offset counts units of 8 bytes.
func matchTCP(x *xtable, i *blob) []rs.Expr {
	if !x.inet() {
		return nil
	}
	inv := i.u8(11)
	var out []rs.Expr
	if x.is4() {
		out = append(out, rs.HotDrop{Name: "tcp", When: []rs.Expr{net(6, 2), and([]byte{0x1f, 0xff}), is([]byte{0, 1}, false)}})
	}
	out = append(out, x.ports(i, inv)...)
	if mask := i.u8(9); mask != 0 || i.u8(10) != 0 || inv&4 != 0 {
		out = append(out, trans(13, 1), and([]byte{mask}), is([]byte{i.u8(10)}, inv&4 != 0))
	}
	if i.u8(8) != 0 { // --tcp-option
		out = append(out, rs.Exthdr{Dreg: scratch, Op: 1, Type: i.u8(8), Len: 1, Present: true}, is([]byte{1}, inv&8 != 0))
	}
	return out
}

// ports is the common start of xt_tcp and xt_udp: two ranges in host byte order. A
// later fragment breaks the load, before inversions count.
func (x *xtable) ports(i *blob, inv uint8) []rs.Expr {
	out := []rs.Expr{trans(0, 2)}
	out = append(out, ports16(i.u16(0), i.u16(2), inv&1 != 0)...)
	if dst := ports16(i.u16(4), i.u16(6), inv&2 != 0); dst != nil {
		out = append(append(out, trans(2, 2)), dst...)
	}
	return out
}

func matchUDP(x *xtable, i *blob) []rs.Expr {
	if !x.inet() {
		return nil
	}
	return x.ports(i, i.u8(8))
}

// matchSCTP is xt_sctp.c without chunk types: struct xt_sctp_info.
func matchSCTP(x *xtable, i *blob) []rs.Expr {
	// dpts, spts, chunkmap (256 bytes), chunk_match_type, four flag_info of 3 bytes,
	// flag_count, flags, invflags.
	const flags = 4 + 4 + 256 + 4 + 12 + 4
	f, inv := i.u32(flags), i.u32(flags+4)
	if !x.inet() || f&4 != 0 {
		return nil
	}
	return x.portPairs(i, uint8(f), uint8(inv))
}

// matchDCCP is xt_dccp.c without types and options: struct xt_dccp_info.
func matchDCCP(x *xtable, i *blob) []rs.Expr {
	f, inv := i.u16(8), i.u16(10)
	if !x.inet() || f&(4|8) != 0 {
		return nil
	}
	return x.portPairs(i, uint8(f), uint8(inv))
}

// portPairs reads dpts and spts of SCTP and DCCP.
func (x *xtable) portPairs(i *blob, flags, inv uint8) []rs.Expr {
	out := []rs.Expr{trans(0, 2)}
	if flags&1 != 0 {
		out = append(out, ports16(i.u16(4), i.u16(6), inv&1 != 0)...)
	}
	if flags&2 != 0 {
		out = append(append(out, trans(2, 2)), ports16(i.u16(0), i.u16(2), inv&2 != 0)...)
	}
	return out
}

// matchMultiport is xt_multiport.c: struct xt_multiport_v1.
func matchMultiport(x *xtable, i *blob) []rs.Expr {
	flags, n := i.u8(0), int(i.u8(1))
	if !x.inet() || n > 15 || flags > 2 {
		return nil
	}
	var any rs.Any
	any.Name, any.Invert = "multiport", i.u8(2+30+15) != 0
	for k := 0; k < n; k++ {
		from := i.u16(2 + 2*k)
		to := from
		if i.u8(2+30+k) != 0 {
			if k++; k >= n {
				return nil
			}
			to = i.u16(2 + 2*k)
		}
		for dir := range 2 {
			if int(flags) != dir && flags != 2 {
				continue
			}
			any.Of = append(any.Of, append([]rs.Expr{trans(2*dir, 2)}, ports16(from, to, false)...))
		}
	}
	return []rs.Expr{trans(0, 4), any}
}

// matchICMP is icmp_match of xt_tcpudp.c; type 255 is any.
func matchICMP(x *xtable, i *blob) []rs.Expr {
	if !x.is4() {
		return nil
	}
	typ, inv := i.u8(0), i.u8(3)&1 != 0
	if typ == 0xff {
		if inv {
			return one(broken)
		}
		return one(trans(0, 2))
	}
	return icmpTypes(typ, i.u8(1), i.u8(2), inv)
}

// matchICMP6 is icmp6_match; here type 255 is a type.
func matchICMP6(x *xtable, i *blob) []rs.Expr {
	if x.family != rs.IPv6 {
		return nil
	}
	return icmpTypes(i.u8(0), i.u8(1), i.u8(2), i.u8(3)&1 != 0)
}

func icmpTypes(typ, from, to uint8, inv bool) []rs.Expr {
	if from > to {
		if inv {
			return one(trans(0, 2))
		}
		return one(broken)
	}
	return []rs.Expr{trans(0, 2), between([]byte{typ, from}, []byte{typ, to}, inv)}
}

func matchMark(x *xtable, i *blob) []rs.Expr {
	return masked(meta32(metaMark), x.host32(i.u32(0)), x.host32(i.u32(4)), i.u8(8) != 0)
}

func matchConnmark(x *xtable, i *blob) []rs.Expr {
	return masked(rs.Ct{Dreg: scratch, Key: ctMark, Dir: -1}, x.host32(i.u32(0)), x.host32(i.u32(4)), i.u8(8) != 0)
}

// matchConnlimit: more connections than limit. The packet itself is one.
func matchConnlimit(_ *xtable, i *blob) []rs.Expr {
	upto := i.u32(20)&1 != 0
	if i.u32(16) == 0 {
		if upto {
			return one(broken)
		}
		return one(ctLoad(ctState, -1)) // always, and connection tracking is on
	}
	return one(rs.Limit{Name: "connlimit", Over: !upto})
}

// matchHashlimit reads the mode word of struct hashlimit_cfg{1,2,3}.
func matchHashlimit(mode int) lower {
	return func(_ *xtable, i *blob) []rs.Expr {
		m := i.u32(mode)
		if m&(1<<5|1<<6) != 0 { // by bytes, or by a measured rate: the first packet may already exceed it
			return nil
		}
		return one(rs.Limit{Name: "hashlimit", Over: m&(1<<4) != 0})
	}
}

// matchRecent is recent_mt of xt_recent.c. --set always matches; the others depend on
// a list that packets (and /proc/net/xt_recent) write. With a hit count above one
// the first packets do not match: a rate.
func matchRecent(_ *xtable, i *blob) []rs.Expr {
	const check, set, update = 1, 2, 4
	hits, mode, inv := i.u32(4), i.u8(8), i.u8(9) != 0
	switch {
	case mode&set != 0 && inv:
		return one(broken)
	case mode&set != 0:
		return always("recent")
	case mode&(check|update) != 0 && hits > 1:
		return one(rs.Limit{Name: "recent", Over: !inv})
	}
	return nil
}

func matchHopLimit(f rs.Family, off int) lower {
	return func(x *xtable, i *blob) []rs.Expr {
		if x.family != f {
			return nil
		}
		ops := []rs.Op{rs.Eq, rs.Neq, rs.Lt, rs.Gt}
		mode := int(i.u8(0))
		if mode >= len(ops) {
			return nil
		}
		return []rs.Expr{net(off, 1), rs.Cmp{Sreg: scratch, Op: ops[mode], Data: []byte{i.u8(1)}}}
	}
}

// matchMAC: a device that is not Ethernet never matches, inverted or not.
func matchMAC(x *xtable, i *blob) []rs.Expr {
	if !x.inet() {
		return nil
	}
	return []rs.Expr{
		meta32(metaIIFType), is(x.host16(1), false), // ARPHRD_ETHER
		rs.Payload{Dreg: scratch, Base: rs.LinkHeader, Offset: 6, Len: 6}, is(bytes.Clone(i.bytes(0, 6)), i.u32(8) != 0),
	}
}

// matchIPRange is struct xt_iprange_mtinfo.
func matchIPRange(x *xtable, i *blob) []rs.Expr {
	if !x.inet() {
		return nil
	}
	flags, n := i.u8(64), x.addrLen()
	var out []rs.Expr
	for dst := range 2 {
		if flags>>dst&1 == 0 {
			continue
		}
		from, to := bytes.Clone(i.bytes(32*dst, n)), bytes.Clone(i.bytes(32*dst+16, n))
		inv := flags>>(4+dst)&1 != 0
		switch {
		case bytes.Compare(from, to) <= 0:
			out = append(out, x.addr(dst == 1), between(from, to, inv))
		case !inv:
			out = append(out, broken)
		}
	}
	return matched("iprange", out)
}

// matchLength compares the length of the packet from the network header on.
func matchLength(x *xtable, i *blob) []rs.Expr {
	from, to, inv := int(i.u16(0)), int(i.u16(2)), i.u8(4) != 0
	switch x.family {
	case rs.IPv4:
		return matched("length", append([]rs.Expr{net(2, 2)}, ports16(uint16(from), uint16(to), inv)...))
	case rs.IPv6:
		if from > to || to < 40 {
			if inv {
				return always("length")
			}
			return one(broken)
		}
		return append([]rs.Expr{net(4, 2)}, ports16(uint16(max(from-40, 0)), uint16(to-40), inv)...)
	}
	return nil
}

func (x *xtable) dsfield(mask, want uint8, inv bool) []rs.Expr {
	if x.is4() {
		return []rs.Expr{net(1, 1), and([]byte{mask}), is([]byte{want}, inv)}
	}
	return []rs.Expr{net(0, 2), and([]byte{mask >> 4, mask << 4}), is([]byte{want >> 4, want << 4}, inv)}
}

func matchTOS(x *xtable, i *blob) []rs.Expr {
	if !x.inet() {
		return nil
	}
	return x.dsfield(i.u8(0), i.u8(1), i.u8(2) != 0)
}

func matchDSCP(x *xtable, i *blob) []rs.Expr {
	if !x.inet() || i.u8(0) > 63 {
		return nil
	}
	return x.dsfield(0xfc, i.u8(0)<<2, i.u8(1) != 0)
}

func matchPktType(x *xtable, i *blob) []rs.Expr {
	if i.u32(0) > 255 {
		return nil
	}
	return []rs.Expr{meta32(metaPktType), is([]byte{uint8(i.u32(0))}, i.u32(4) != 0)}
}

// matchOwner is struct xt_owner_match_info. Without a socket an inverted condition is true.
func matchOwner(x *xtable, i *blob) []rs.Expr {
	match, inv := i.u8(16), i.u8(17)
	if match&^3 != 0 { // --socket-exists, --suppl-groups
		return nil
	}
	var out []rs.Expr
	for k, key := range []uint32{metaSKUID, metaSKGID} {
		if match>>k&1 == 0 {
			continue
		}
		from, to := i.u32(8*k), i.u32(8*k+4)
		c := []rs.Expr{meta32(key)}
		if from == to {
			c = append(c, is(x.host32(from), false))
		} else {
			c = append(c, rs.Byteorder{Sreg: scratch, Dreg: scratch, Op: 1, Len: 4, Size: 4}, between(be32(from), be32(to), false))
		}
		if inv>>k&1 != 0 {
			c = one(rs.Any{Name: "owner", Of: [][]rs.Expr{c}, Invert: true})
		}
		out = append(out, c...)
	}
	return matched("owner", out)
}

func matchDevGroup(x *xtable, i *blob) []rs.Expr {
	flags := i.u32(0)
	var out []rs.Expr
	for k, key := range []uint32{metaIIFGroup, metaOIFGroup} {
		if flags>>(2*k)&1 != 0 {
			out = append(out, masked(meta32(key), x.host32(i.u32(4+8*k)), x.host32(i.u32(8+8*k)), flags>>(2*k+1)&1 != 0)...)
		}
	}
	return matched("devgroup", out)
}

// matchPhysDev is struct xt_physdev_info.
func matchPhysDev(_ *xtable, i *blob) []rs.Expr {
	in, ok := maskedName(i.bytes(0, 16), i.bytes(16, 16))
	out, ok2 := maskedName(i.bytes(32, 16), i.bytes(48, 16))
	if !ok || !ok2 || i.u8(65)&^31 != 0 {
		return nil
	}
	return one(rs.BridgePort{In: in, Out: out, Match: i.u8(65), Invert: i.u8(64)})
}

// maskedName is a name of an interface of which the mask covers the whole, or a prefix.
func maskedName(name, mask []byte) (string, bool) {
	n := 0
	for n < 16 && mask[n] == 0xff {
		n++
	}
	if slices.ContainsFunc(mask[n:], func(b byte) bool { return b != 0 }) {
		return "", false
	}
	if k := bytes.IndexByte(name[:n], 0); k >= 0 {
		return string(name[:k]), true
	}
	return string(name[:n]) + "*", n < 16
}

func matchESP(x *xtable, i *blob) []rs.Expr {
	if !x.inet() {
		return nil
	}
	return spi(trans(0, 4), i, i.u8(8)&1 != 0)
}

// matchAH reads struct ipt_ah and struct ip6t_ah.
func matchAH(x *xtable, i *blob) []rs.Expr {
	if x.is4() {
		return spi(trans(4, 4), i, i.u8(8)&1 != 0)
	}
	if x.family != rs.IPv6 || i.u32(8) != 0 || i.u8(12) != 0 { // --ahlen, --ahres
		return nil
	}
	return spi(rs.Exthdr{Dreg: scratch, Type: 51, Offset: 4, Len: 4}, i, i.u8(13)&1 != 0)
}

func spi(load rs.Expr, i *blob, inv bool) []rs.Expr {
	return append([]rs.Expr{load}, range32(i.u32(0), i.u32(4), inv)...)
}

// range32 is a range of a 4-byte number in network order.
func range32(from, to uint32, inv bool) []rs.Expr {
	switch {
	case from > to && inv, from == 0 && to == ^uint32(0) && !inv:
		return nil
	case from > to, from == 0 && to == ^uint32(0):
		return one(broken)
	}
	return one(between(be32(from), be32(to), inv))
}

// concat joins lists of expressions.
func concat(l ...[]rs.Expr) []rs.Expr { return slices.Concat(l...) }
