package rtnl

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// userHZ is the unit of clock_t at the system call boundary (USER_HZ,
// include/asm-generic/param.h): the same on every architecture Go runs on.
const userHZ = 100

const (
	rtmFCloned = 0x200 // RTM_F_CLONED: a cached exception, not a route
	rtaNHID    = 30    // RTA_NH_ID
)

// decodeRoute decodes struct rtmsg.
func decodeRoute(b []byte, family byte, hops *nexthops) (fact.Route, verdict) {
	if len(b) < unix.SizeofRtMsg {
		return fact.Route{}, malformed
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	if b[0] != family || flags&rtmFCloned != 0 {
		return fact.Route{}, skip
	}
	dstLen, srcLen := b[1], b[2]
	out := fact.Route{
		Family: familyName(family), Table: uint32(b[4]), Protocol: b[5], Scope: b[6], Type: b[7], Flags: flags,
		Expires: fact.Absent[int64](),
	}
	dst := netip.IPv6Unspecified()
	if family == unix.AF_INET {
		dst = netip.IPv4Unspecified()
	}
	var src netip.Addr
	var hop fact.NextHop
	single, ok := false, true
	a := attrs{rest: b[unix.SizeofRtMsg:]}
	for a.next() {
		switch a.typ {
		case unix.RTA_DST:
			dst = a.addr()
		case unix.RTA_SRC:
			src = a.addr()
		case unix.RTA_PREFSRC:
			out.PrefSrc = a.addr()
		case unix.RTA_TABLE:
			out.Table = a.u32()
		case unix.RTA_PRIORITY:
			out.Priority = a.u32()
		case unix.RTA_PREF: // ICMPV6_ROUTER_PREF_*
			out.Pref = a.u8()
		case unix.RTA_CACHEINFO: // struct rta_cacheinfo: u32 clntref, lastuse; s32 expires …
			if len(a.v) < 12 {
				ok = false
				break
			}
			// 0 is "never"; a route past its time stays until the next collection
			// and has a negative value.
			if ticks := int32(binary.NativeEndian.Uint32(a.v[8:])); ticks != 0 {
				out.Expires = fact.Value(int64(ticks) / userHZ)
			}
		case rtaNHID:
			out.NextHopID = a.u32()
		case unix.RTA_MULTIPATH:
			out.NextHops, ok = decodeMultipath(a.v)
			if !ok {
				return fact.Route{}, malformed
			}
		default:
			single = hopAttribute(&a, &hop) || single
		}
	}
	if single {
		hop.Flags = uint8(flags) // RTNH_F_* are the low bits of rtm_flags
		out.NextHops = append(out.NextHops, hop)
	}
	if out.NextHopID != 0 && len(out.NextHops) == 0 {
		out.NextHops = hops.resolve(out.NextHopID)
	}
	var fits bool
	if out.Dst, fits = prefix(dst, dstLen); !fits || dst.Is4() != (family == unix.AF_INET) {
		ok = false
	}
	out.Dst = out.Dst.Masked()
	if src.IsValid() {
		if out.Src, fits = prefix(src, srcLen); !fits {
			ok = false
		}
		out.Src = out.Src.Masked()
	}
	if a.bad || !ok {
		return fact.Route{}, malformed
	}
	return out, keep
}

// hopAttribute reads an attribute that a route and a member of RTA_MULTIPATH
// have in common, and tells whether it says where the route leads.
func hopAttribute(a *attrs, h *fact.NextHop) bool {
	switch a.typ {
	case unix.RTA_OIF:
		h.Index = int(int32(a.u32()))
	case unix.RTA_GATEWAY:
		h.Via = a.addr()
	case unix.RTA_VIA: // struct rtvia: u16 family, then the address
		if len(a.v) < 2 {
			a.bad = true
			return false
		}
		if via, ok := netip.AddrFromSlice(a.v[2:]); ok {
			h.Via = via
		}
	case unix.RTA_ENCAP_TYPE:
		h.Encap = a.u16()
		return false
	default:
		return false
	}
	return true
}

// decodeMultipath decodes an array of struct rtnexthop: u16 len, u8 flags,
// u8 hops, s32 ifindex, then attributes.
func decodeMultipath(b []byte) ([]fact.NextHop, bool) {
	const size = 8
	var out []fact.NextHop
	for len(b) >= size {
		n := int(binary.NativeEndian.Uint16(b))
		if n < size || n > len(b) {
			return nil, false
		}
		h := fact.NextHop{Flags: b[2], Index: int(int32(binary.NativeEndian.Uint32(b[4:])))}
		a := attrs{rest: b[size:n]}
		for a.next() {
			hopAttribute(&a, &h)
		}
		if a.bad {
			return nil, false
		}
		out = append(out, h)
		b = b[min(align(n), len(b)):]
	}
	return out, len(b) == 0
}

// nexthops resolves nexthop objects (kernel 5.3). The kernel resolves them
// itself unless net.ipv4.nexthop_compat_mode is 0.
type nexthops struct {
	single map[uint32]fact.NextHop
	groups map[uint32][]uint32
	// left bounds what resolving adds: one large group that a hundred thousand
	// routes refer to is small in the kernel and huge when written out.
	left int
}

// NHA_* (include/uapi/linux/nexthop.h).
const (
	nhaID        = 1
	nhaGroup     = 2
	nhaOIF       = 5
	nhaGateway   = 6
	nhaEncapType = 7
)

const maxResolved = 1 << 16

func decodeNexthops(ans *answer) *nexthops {
	n := &nexthops{single: map[uint32]fact.NextHop{}, groups: map[uint32][]uint32{}, left: maxResolved}
	for _, b := range ans.messages(unix.RTM_NEWNEXTHOP) {
		if len(b) < sizeofNhMsg {
			continue // left unresolved, which the route shows
		}
		var id uint32
		var group []uint32
		var h fact.NextHop
		hasHop := false
		a := attrs{rest: b[sizeofNhMsg:]}
		for a.next() {
			switch a.typ {
			case nhaID:
				id = a.u32()
			case nhaGroup: // struct nexthop_grp: u32 id, u8 weight, u8, u16
				for v := a.v; len(v) >= 8; v = v[8:] {
					group = append(group, binary.NativeEndian.Uint32(v))
				}
			case nhaOIF:
				h.Index, hasHop = int(int32(a.u32())), true
			case nhaGateway:
				h.Via, hasHop = a.addr(), true
			case nhaEncapType:
				h.Encap = a.u16()
			}
		}
		switch {
		case a.bad || id == 0:
		case group != nil:
			n.groups[id] = group
		case hasHop:
			h.Flags = uint8(binary.NativeEndian.Uint32(b[4:]))
			n.single[id] = h
		}
	}
	return n
}

// resolve returns where an object leads, nil when it is unknown or too much.
// Groups hold no groups (nh_check_attr_group).
func (n *nexthops) resolve(id uint32) []fact.NextHop {
	ids := n.groups[id]
	if ids == nil {
		ids = []uint32{id}
	}
	if n.left < len(ids) {
		return nil
	}
	var out []fact.NextHop
	for _, id := range ids {
		h, ok := n.single[id]
		if !ok {
			return nil
		}
		out = append(out, h)
	}
	n.left -= len(ids)
	return out
}
