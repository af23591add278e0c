package pfdecode

import (
	"bytes"
	"slices"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// targets are the targets that are understood.
var targets = map[extension]lower{
	// They return XT_CONTINUE and change nothing that a rule can ask about.
	{"LOG", 0}: nothingElse("LOG"), {"NFLOG", 0}: nothingElse("NFLOG"), {"ULOG", 0}: nothingElse("ULOG"),
	{"AUDIT", 0}: nothingElse("AUDIT"), {"TRACE", 0}: nothingElse("TRACE"), {"LED", 0}: nothingElse("LED"),
	{"CHECKSUM", 0}: nothingElse("CHECKSUM"), {"CLASSIFY", 0}: nothingElse("CLASSIFY"), {"RATEEST", 0}: nothingElse("RATEEST"),
	{"IDLETIMER", 0}: nothingElse("IDLETIMER"), {"IDLETIMER", 1}: nothingElse("IDLETIMER"),
	{"TEE", 0}: nothingElse("TEE"), {"TEE", 1}: nothingElse("TEE"),
	{"SECMARK", 0}: nothingElse("SECMARK"), {"SECMARK", 1}: nothingElse("SECMARK"), {"CONNSECMARK", 0}: nothingElse("CONNSECMARK"),

	{"REJECT", 0}:     targetReject,
	{"MARK", 2}:       targetMark,
	{"CONNMARK", 1}:   targetConnmark(12, false),
	{"CONNMARK", 2}:   targetConnmark(14, true),
	{"NOTRACK", 0}:    func(*xtable, *blob) []rs.Expr { return one(rs.Notrack{}) },
	{"CT", 0}:         targetCT,
	{"CT", 1}:         targetCT,
	{"CT", 2}:         targetCT,
	{"DNAT", 0}:       targetNAT4(true),
	{"SNAT", 0}:       targetNAT4(false),
	{"DNAT", 1}:       targetNAT(true, 40),
	{"SNAT", 1}:       targetNAT(false, 40),
	{"DNAT", 2}:       targetNAT(true, 44),
	{"SNAT", 2}:       targetNAT(false, 44),
	{"MASQUERADE", 0}: func(*xtable, *blob) []rs.Expr { return one(rs.Masquerade{}) },
	{"REDIRECT", 0}:   targetRedirect,
	{"NETMAP", 0}:     targetNetmap,
	{"NFQUEUE", 0}:    func(*xtable, *blob) []rs.Expr { return one(rs.ToQueue{}) },
	{"NFQUEUE", 1}:    func(*xtable, *blob) []rs.Expr { return one(rs.ToQueue{}) },
	{"NFQUEUE", 2}:    func(*xtable, *blob) []rs.Expr { return one(rs.ToQueue{}) },
	{"NFQUEUE", 3}:    func(*xtable, *blob) []rs.Expr { return one(rs.ToQueue{}) },
	// They rewrite a part of the packet and let it go on.
	{"TTL", 0}:         rewrite(rs.IPv4, rs.NetworkHeader, 8, 1),
	{"HL", 0}:          rewrite(rs.IPv6, rs.NetworkHeader, 7, 1),
	{"DSCP", 0}:        rewriteDS,
	{"TOS", 1}:         rewriteDS,
	{"ECN", 0}:         targetECN,
	{"TCPMSS", 0}:      rewrite(0, rs.TransportHeader, 20, 40),
	{"TCPOPTSTRIP", 0}: rewrite(0, rs.TransportHeader, 20, 40),
	{"DNPT", 0}:        rewrite(rs.IPv6, rs.NetworkHeader, 24, 16),
	{"SNPT", 0}:        rewrite(rs.IPv6, rs.NetworkHeader, 8, 16),
	{"HMARK", 0}:       func(x *xtable, _ *blob) []rs.Expr { return append(one(unknown4), x.marked(true)...) },
	{"SET", 1}:         targetSet(false),
	{"SET", 2}:         targetSet(false),
	{"SET", 3}:         targetSet(true),
}

// unknown4 loads a number that nobody can know.
var unknown4 = rs.Random{Dreg: scratch}

// rewrite is a target that writes bytes that are not known beforehand.
func rewrite(f rs.Family, base rs.Header, off, n uint32) lower {
	return func(x *xtable, _ *blob) []rs.Expr {
		if !x.inet() || f != 0 && f != x.family {
			return nil
		}
		var out []rs.Expr
		for k := uint32(0); k < n; k += 16 {
			out = append(out, rs.PayloadSet{Sreg: scratch, Base: base, Offset: off + k, Len: min(16, n-k)})
		}
		return out
	}
}

func rewriteDS(x *xtable, i *blob) []rs.Expr {
	if x.is4() {
		return rewrite(rs.IPv4, rs.NetworkHeader, 1, 1)(x, i)
	}
	return rewrite(rs.IPv6, rs.NetworkHeader, 0, 2)(x, i)
}

// targetECN clears ECN bits: of IPv4's TOS, and of TCP's flags.
func targetECN(x *xtable, i *blob) []rs.Expr {
	if !x.is4() {
		return nil
	}
	return concat(rewrite(rs.IPv4, rs.NetworkHeader, 1, 1)(x, i), rewrite(rs.IPv4, rs.TransportHeader, 12, 2)(x, i))
}

// targetReject is struct ipt_reject_info and struct ip6t_reject_info.
func targetReject(x *xtable, i *blob) []rs.Expr {
	// enum ipt_reject_with and enum ip6t_reject_with as ICMP codes; -1 is a TCP reset.
	codes := []int{0, 1, 2, 3, -2, 9, 10, -1, 13}
	if x.family == rs.IPv6 {
		codes = []int{0, 1, 2, 3, 4, -2, -1, 5, 6}
	}
	with := i.u32(0)
	if !x.inet() || with >= uint32(len(codes)) {
		return nil
	}
	switch c := codes[with]; c {
	case -2: // echo reply: does nothing, and drops
		return one(rs.Conclude{Verdict: rs.Drop})
	case -1:
		return one(rs.Reject{Type: 1})
	default:
		return one(rs.Reject{Code: uint8(c)})
	}
}

// targetMark is struct xt_mark_tginfo2: mark = (mark & ^mask) ^ value.
func targetMark(x *xtable, i *blob) []rs.Expr {
	return x.setMark(meta32(metaMark), i.u32(0), i.u32(4), rs.MetaSet{Sreg: scratch, Key: metaMark})
}

func (x *xtable) setMark(load rs.Expr, value, mask uint32, store rs.Expr) []rs.Expr {
	if mask == ^uint32(0) {
		return []rs.Expr{rs.Immediate{Dreg: scratch, Data: x.host32(value)}, store}
	}
	return []rs.Expr{load, rs.Bitwise{Sreg: scratch, Dreg: scratch, Len: 4, Mask: x.host32(^mask), Xor: x.host32(value)}, store}
}

// targetConnmark is connmark_tg_shift of xt_connmark.c. Without a connection it does
// nothing, as a load of the connection's mark breaks the rule, whose last expression it is.
func targetConnmark(modeAt int, shifts bool) lower {
	return func(x *xtable, i *blob) []rs.Expr {
		const set, save, restore = 0, 1, 2
		value, ctmask, nfmask := i.u32(0), i.u32(4), i.u32(8)
		mode := i.u8(modeAt)
		load, store := ctLoad(ctMark, -1), rs.CtSet{Sreg: scratch, Key: ctMark, Dir: -1}
		if shifts && i.u8(13) != 0 {
			if mode == restore {
				return append([]rs.Expr{load, unknown4}, x.marked(true)...)
			}
			return []rs.Expr{load, unknown4, store}
		}
		const other = scratch + 1
		mix := func(keep rs.Expr, keepMask uint32, from rs.Expr, fromMask uint32, store rs.Expr) []rs.Expr {
			return []rs.Expr{
				from,
				rs.Bitwise{Sreg: scratch, Dreg: other, Len: 4, Mask: x.host32(fromMask), Xor: make([]byte, 4)},
				keep,
				rs.Bitwise{Sreg: scratch, Dreg: scratch, Len: 4, Mask: x.host32(keepMask), Xor: make([]byte, 4)},
				rs.Bitwise{Sreg: scratch, Dreg: scratch, Sreg2: other, HasSreg2: true, Len: 4, Op: 5},
				store,
			}
		}
		switch mode {
		case set:
			return append([]rs.Expr{load}, x.setMark(load, value, ctmask, store)...)
		case save:
			return mix(load, ^ctmask, meta32(metaMark), nfmask, store)
		case restore:
			return append([]rs.Expr{load}, mix(meta32(metaMark), ^nfmask, load, ctmask, rs.MetaSet{Sreg: scratch, Key: metaMark})...)
		}
		return nil
	}
}

// targetCT is struct xt_ct_target_info: notrack, or a template (zone, helper, events).
func targetCT(_ *xtable, i *blob) []rs.Expr {
	flags, zone := i.u16(0), i.u16(2)
	switch {
	case flags&1 != 0:
		return one(rs.Notrack{})
	case flags&^2 != 0 || zone != 0:
		// Another zone: what connection tracking says is about other connections.
		return one(rs.CtSet{Sreg: scratch, Key: 17, Dir: -1})
	}
	return always("CT")
}

// NF_NAT_RANGE_* (include/uapi/linux/netfilter/nf_nat.h).
const (
	natMapIPs     = 1
	natProto      = 2
	natRandom     = 4 | 16
	natOffset     = 32
	natNetmap     = 64
	natKnownFlags = 1 | 2 | 4 | 8 | 16 | 32
)

// natRange is a range in any of its layouts.
type natRange struct {
	flags            uint32
	min, max         []byte
	minPort, maxPort []byte
}

func (x *xtable) nat(dst bool, r natRange) []rs.Expr {
	if r.flags&^natKnownFlags != 0 {
		return nil
	}
	const addrMin, addrMax, portMin, portMax rs.Reg = 0, 4, 8, 9
	e := rs.Nat{Dst: dst, Family: x.family, Flags: r.flags}
	var out []rs.Expr
	if r.flags&natMapIPs != 0 {
		out = append(out, rs.Immediate{Dreg: addrMin, Data: r.min})
		e.HasAddr, e.AddrMin = true, addrMin
		if !bytes.Equal(r.min, r.max) {
			out = append(out, rs.Immediate{Dreg: addrMax, Data: r.max})
			e.HasAddrMax, e.AddrMax = true, addrMax
		}
	}
	if r.flags&natProto != 0 {
		out = append(out, rs.Immediate{Dreg: portMin, Data: r.minPort})
		e.HasProto, e.ProtoMin = true, portMin
		switch {
		case r.flags&(natOffset|natRandom) != 0: // any port of the range, or beyond
			out = append(out, rs.Immediate{Dreg: portMin, Data: []byte{0, 1}}, rs.Immediate{Dreg: portMax, Data: []byte{0xff, 0xff}})
			e.HasProtoMax, e.ProtoMax = true, portMax
			if r.flags&natOffset == 0 && bytes.Equal(r.minPort, r.maxPort) {
				out = append(out, rs.Immediate{Dreg: portMin, Data: r.minPort}, rs.Immediate{Dreg: portMax, Data: r.minPort})
			}
		case !bytes.Equal(r.minPort, r.maxPort):
			out = append(out, rs.Immediate{Dreg: portMax, Data: r.maxPort})
			e.HasProtoMax, e.ProtoMax = true, portMax
		}
	}
	return append(out, e)
}

// nat4Range reads struct nf_nat_ipv4_multi_range_compat with its one range.
func nat4Range(i *blob) natRange {
	r := natRange{flags: i.u32(4), min: i.bytes(8, 4), max: i.bytes(12, 4), minPort: i.bytes(16, 2), maxPort: i.bytes(18, 2)}
	i.bad = i.bad || i.u32(0) != 1
	return r
}

// natRangeOf reads struct nf_nat_range and nf_nat_range2.
func (x *xtable) natRangeOf(i *blob) natRange {
	n := x.addrLen()
	return natRange{flags: i.u32(0), min: i.bytes(4, n), max: i.bytes(20, n), minPort: i.bytes(36, 2), maxPort: i.bytes(38, 2)}
}

// targetNetmap maps prefixes onto each other (net/netfilter/xt_NETMAP.c).
func targetNetmap(x *xtable, i *blob) []rs.Expr {
	if !x.inet() {
		return nil
	}
	r := x.natRangeOf
	if x.is4() {
		r = nat4Range
	}
	v := r(i)
	return []rs.Expr{
		rs.Immediate{Dreg: 0, Data: v.min},
		rs.Immediate{Dreg: 4, Data: v.max},
		rs.Nat{Dst: true, ByHook: true, Family: x.family, HasAddr: true, AddrMin: 0, HasAddrMax: true, AddrMax: 4, Flags: natNetmap},
	}
}

func targetNAT4(dst bool) lower {
	return func(x *xtable, i *blob) []rs.Expr {
		if !x.is4() {
			return nil
		}
		return x.nat(dst, nat4Range(i))
	}
}

func targetNAT(dst bool, size int) lower {
	return func(x *xtable, i *blob) []rs.Expr {
		if !x.inet() || len(i.b) < size {
			return nil
		}
		return x.nat(dst, x.natRangeOf(i))
	}
}

func targetRedirect(x *xtable, i *blob) []rs.Expr {
	var r natRange
	switch x.family {
	case rs.IPv4:
		r = nat4Range(i)
	case rs.IPv6:
		r = x.natRangeOf(i)
	default:
		return nil
	}
	var e rs.Redirect
	var out []rs.Expr
	if r.flags&natProto != 0 {
		out = append(out, rs.Immediate{Dreg: 0, Data: r.minPort})
		e.HasProto = true
		if !slices.Equal(r.minPort, r.maxPort) {
			out = append(out, rs.Immediate{Dreg: 1, Data: r.maxPort})
			e.HasProtoMax, e.ProtoMax = true, 1
		}
	}
	return append(out, e)
}
