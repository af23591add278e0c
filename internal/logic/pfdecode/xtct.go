package pfdecode

import (
	"bytes"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// XT_CONNTRACK_* (include/uapi/linux/netfilter/xt_conntrack.h).
const (
	xtctState     = 1 << 0
	xtctProto     = 1 << 1
	xtctOrigSrc   = 1 << 2
	xtctStatus    = 1 << 6
	xtctExpires   = 1 << 7
	xtctPorts     = 1 << 8
	xtctDirection = 1 << 12

	xtctSNAT      = 1 << 6
	xtctDNAT      = 1 << 7
	xtctUntracked = 1 << 8
)

// State bits of nf_tables, and IPS_* of ct status.
const (
	nftInvalid   = 1
	nftTracked   = 2 | 4 | 8 // established, related, new
	nftUntracked = 64

	ipsSrcNAT = 1 << 4
	ipsDstNAT = 1 << 5
)

func ctLoad(key uint32, dir int8) rs.Expr { return rs.Ct{Dreg: scratch, Key: key, Dir: dir} }

// under clears the bits that a mask does not have.
func under(b, mask []byte) {
	for i := range b {
		b[i] &= mask[i]
	}
}

// anyBit is (value & mask) != 0 for a 32-bit value in host order.
func (x *xtable) anyBit(load rs.Expr, mask uint32, invert bool) []rs.Expr {
	return []rs.Expr{load, and(x.host32(mask)), is(x.host32(0), !invert)}
}

// matchState is xt_state.c: the bits of nf_tables, but its own for untracked.
func matchState(x *xtable, i *blob) []rs.Expr {
	const untracked = 1 << 6
	m := i.u32(0)
	if m&^uint32(15|untracked) != 0 {
		return nil
	}
	return x.anyBit(ctLoad(ctState, -1), m, false) // 1<<6 is nft's bit too
}

// ctState is the state condition of xt_conntrack.c.
func (x *xtable) ctStates(m uint32, invert bool) []rs.Expr {
	states, nat := m&15, uint32(0)
	if m&xtctUntracked != 0 {
		states |= nftUntracked
	}
	if m&xtctSNAT != 0 {
		nat |= ipsSrcNAT
	}
	if m&xtctDNAT != 0 {
		nat |= ipsDstNAT
	}
	state := x.anyBit(ctLoad(ctState, -1), states, false)
	if nat == 0 {
		return x.anyBit(ctLoad(ctState, -1), states, invert)
	}
	return one(rs.Any{Name: "ctstate", Invert: invert, Of: [][]rs.Expr{state, x.anyBit(ctLoad(ctStatus, -1), nat, false)}})
}

// matchConntrack is conntrack_mt of xt_conntrack.c: struct xt_conntrack_mtinfo{1,2,3}.
func matchConntrack(rev int) lower {
	return func(x *xtable, i *blob) []rs.Expr {
		const (
			l4proto = 8*16 + 8
			ports   = l4proto + 2
			flagsAt = ports + 8
		)
		if !x.inet() {
			return nil
		}
		flags, inv := i.u16(flagsAt), i.u16(flagsAt+2)
		state, status := uint32(i.u16(flagsAt+4)), uint32(i.u16(flagsAt+6))
		if rev == 1 {
			i.bad = len(i.b) < flagsAt+6
			state, status = uint32(i.u8(flagsAt+4)), uint32(i.u8(flagsAt+5))
		}
		if flags&xtctExpires != 0 || flags>>14 != 0 || state&^0x1cf != 0 {
			return nil
		}
		not := func(bit uint16) bool { return inv&bit != 0 }

		// What needs a connection. A packet without one fails it, unless its state was
		// asked for as well: then nothing else is looked at.
		var rest []rs.Expr
		if flags&xtctDirection != 0 {
			dir := byte(0)
			if not(xtctDirection) {
				dir = 1
			}
			rest = append(rest, ctLoad(ctDirection, -1), is([]byte{dir}, false))
		}
		for k := range 4 { // origsrc, origdst, replsrc, repldst
			if bit := uint16(xtctOrigSrc << k); flags&bit != 0 {
				key := uint32(ctSrcIP6 + k%2)
				if x.is4() {
					key = uint32(ctSrcIP + k%2)
				}
				n := x.addrLen()
				want, mask := bytes.Clone(i.bytes(32*k, n)), bytes.Clone(i.bytes(32*k+16, n))
				under(want, mask) // conntrack_addrcmp compares under the mask
				rest = append(rest, masked(ctLoad(key, int8(k/2)), want, mask, not(bit))...)
			}
		}
		if flags&xtctProto != 0 {
			rest = append(rest, ctLoad(ctProtocol, -1), is([]byte{byte(i.u16(l4proto))}, not(xtctProto)))
		}
		for k := range 4 {
			bit := uint16(xtctPorts << k)
			if flags&bit == 0 {
				continue
			}
			rest = append(rest, ctLoad(uint32(ctProtoSrc+k%2), int8(k/2)))
			if rev == 3 {
				rest = append(rest, ports16(i.u16(ports+2*k), i.u16(flagsAt+8+2*k), not(bit))...)
			} else { // network order, one port
				rest = append(rest, is(bytes.Clone(i.bytes(ports+2*k, 2)), not(bit)))
			}
		}
		if flags&xtctStatus != 0 {
			rest = append(rest, x.anyBit(ctLoad(ctStatus, -1), status, not(xtctStatus))...)
		}

		tracked := x.anyBit(ctLoad(ctState, -1), nftTracked, false)
		if flags&xtctState == 0 {
			return concat(tracked, rest)
		}
		out := x.ctStates(state, not(xtctState))
		if len(rest) > 0 {
			none := x.anyBit(ctLoad(ctState, -1), nftTracked, true)
			out = append(out, rs.Any{Name: "conntrack", Of: [][]rs.Expr{none, rest}})
		}
		return out
	}
}
