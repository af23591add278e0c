package rtnl

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// FRA_* (include/uapi/linux/fib_rules.h).
const (
	fraDst               = 1
	fraSrc               = 2
	fraIIFName           = 3
	fraGoto              = 4
	fraPriority          = 6
	fraFWMark            = 10
	fraFlow              = 11
	fraTunID             = 12
	fraSuppressIfGroup   = 13
	fraSuppressPrefixLen = 14
	fraTable             = 15
	fraFWMask            = 16
	fraOIFName           = 17
	fraPad               = 18
	fraL3MDev            = 19
	fraUIDRange          = 20
	fraProtocol          = 21
	fraIPProto           = 22
	fraSportRange        = 23
	fraDportRange        = 24
	fraDSCP              = 25
	fraFlowLabel         = 26
	fraFlowLabelMask     = 27
	fraSportMask         = 28
	fraDportMask         = 29
	fraDSCPMask          = 30

	fibRuleInvert = 0x2 // FIB_RULE_INVERT
)

// decodeRule decodes struct fib_rule_hdr.
func decodeRule(b []byte, family byte) (fact.Rule, verdict) {
	if len(b) < unix.SizeofRtMsg { // the same shape and size
		return fact.Rule{}, malformed
	}
	if b[0] != family {
		return fact.Rule{}, skip
	}
	dstLen, srcLen, tos := b[1], b[2], b[3]
	out := fact.Rule{Family: familyName(family), Table: uint32(b[4]), Action: b[7]}
	out.Invert = binary.NativeEndian.Uint32(b[8:])&fibRuleInvert != 0
	cond := func(format string, v ...any) { out.Conditions = append(out.Conditions, fmt.Sprintf(format, v...)) }
	if tos != 0 {
		cond("tos %#x", tos)
	}
	ok := true
	pfx := func(addr netip.Addr, bits uint8) netip.Prefix {
		p, fits := prefix(addr, bits)
		ok = ok && fits
		return p
	}
	portRange := func(name string, v []byte) {
		if len(v) < 4 {
			ok = false
			return
		}
		cond("%s %d-%d", name, binary.NativeEndian.Uint16(v), binary.NativeEndian.Uint16(v[2:]))
	}
	a := attrs{rest: b[unix.SizeofRtMsg:]}
	for a.next() {
		switch a.typ {
		case fraDst:
			out.Dst = pfx(a.addr(), dstLen)
		case fraSrc:
			out.Src = pfx(a.addr(), srcLen)
		case fraIIFName:
			out.IIF = fact.InterfaceName(a.text())
		case fraOIFName:
			out.OIF = fact.InterfaceName(a.text())
		case fraPriority:
			out.Priority = a.u32()
		case fraFWMark:
			out.Mark = a.u32()
		case fraFWMask:
			out.Mask = a.u32()
		case fraTable:
			out.Table = a.u32()
		case fraGoto:
			cond("goto %d", a.u32())
		case fraFlow:
			if v := a.u32(); v != 0 {
				cond("realms %#x", v)
			}
		case fraTunID:
			if v := a.v; len(v) >= 8 && binary.BigEndian.Uint64(v) != 0 {
				cond("tun_id %d", binary.BigEndian.Uint64(v))
			}
		case fraSuppressPrefixLen: // -1: does not suppress
			if v := int32(a.u32()); v != -1 {
				cond("suppress_prefixlength %d", v)
			}
		case fraSuppressIfGroup:
			if v := int32(a.u32()); v != -1 {
				cond("suppress_ifgroup %d", v)
			}
		case fraL3MDev:
			if a.u8() != 0 {
				cond("l3mdev")
			}
		case fraUIDRange:
			if len(a.v) < 8 {
				ok = false
				break
			}
			cond("uidrange %d-%d", binary.NativeEndian.Uint32(a.v), binary.NativeEndian.Uint32(a.v[4:]))
		case fraIPProto:
			if v := a.u8(); v != 0 {
				cond("ipproto %d", v)
			}
		case fraSportRange:
			portRange("sport", a.v)
		case fraDportRange:
			portRange("dport", a.v)
		case fraDSCP:
			cond("dscp %d", a.u8())
		case fraDSCPMask:
			if v := a.u8(); v != 0x3f {
				cond("dscp mask %#x", v)
			}
		case fraFlowLabel:
			cond("flowlabel %#x", a.be32())
		case fraFlowLabelMask:
			if v := a.be32(); v != 0xfffff {
				cond("flowlabel mask %#x", v)
			}
		case fraSportMask: // of a single port; a range has none
			if v := a.u16(); v != 0xffff {
				cond("sport mask %#x", v)
			}
		case fraDportMask:
			if v := a.u16(); v != 0xffff {
				cond("dport mask %#x", v)
			}
		case fraPad, fraProtocol:
		default:
			cond("attribute %d", a.typ) // a selector of a newer kernel
		}
	}
	if a.bad || !ok || dstLen != 0 && !out.Dst.IsValid() || srcLen != 0 && !out.Src.IsValid() {
		return fact.Rule{}, malformed
	}
	return out, keep
}

func familyName(f byte) string {
	if f == unix.AF_INET {
		return "ipv4"
	}
	return "ipv6"
}
