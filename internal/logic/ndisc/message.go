package ndisc

import (
	"encoding/binary"
	"net/netip"
)

// Neighbour discovery messages (RFC 4861 §4), as an attacker builds them.

// ICMPv6 types.
const (
	TypeEcho     = 128
	TypeRA       = 134
	TypeNS       = 135
	TypeNA       = 136
	TypeRedirect = 137
)

// RA is a router advertisement.
type RA struct {
	HopLimit        uint8 // Cur Hop Limit the victim is told to use
	Managed, Other  bool
	Preference      uint8  // RFC 4191: 0 medium, 1 high, 3 low
	Lifetime        uint16 // seconds
	Reachable       uint32 // ms
	Retrans         uint32 // ms
	Options         [][]byte
	WithoutSourceLL bool
}

// body of the message after the checksum.
func (r RA) body() []byte {
	flags := r.Preference & 3 << 3
	if r.Managed {
		flags |= 0x80
	}
	if r.Other {
		flags |= 0x40
	}
	b := []byte{r.HopLimit, flags}
	b = binary.BigEndian.AppendUint16(b, r.Lifetime)
	b = binary.BigEndian.AppendUint32(b, r.Reachable)
	b = binary.BigEndian.AppendUint32(b, r.Retrans)
	for _, o := range r.Options {
		b = append(b, o...)
	}
	return b
}

// RA fills the frame with a router advertisement.
func (f Frame) RA(r RA) Frame {
	if !r.WithoutSourceLL {
		r.Options = append([][]byte{SourceLinkLayer(f.SrcMAC)}, r.Options...)
	}
	return f.ICMPv6(TypeRA, 0, r.body())
}

// NS fills the frame with a neighbour solicitation. A zero MAC leaves the
// source link-layer option out, as duplicate address detection does.
func (f Frame) NS(target netip.Addr, source MAC) Frame {
	t := target.As16()
	b := append([]byte{0, 0, 0, 0}, t[:]...)
	if !source.IsZero() {
		b = append(b, SourceLinkLayer(source)...)
	}
	return f.ICMPv6(TypeNS, 0, b)
}

// NA flags (RFC 4861 §4.4).
const (
	NARouter    = 0x80
	NASolicited = 0x40
	NAOverride  = 0x20
)

// NA fills the frame with a neighbour advertisement.
func (f Frame) NA(target netip.Addr, flags uint8, link MAC) Frame {
	t := target.As16()
	b := append([]byte{flags, 0, 0, 0}, t[:]...)
	if !link.IsZero() {
		b = append(b, TargetLinkLayer(link)...)
	}
	return f.ICMPv6(TypeNA, 0, b)
}

// Redirect fills the frame with a redirect: reach dst through target (RFC 4861 §4.5).
func (f Frame) Redirect(target, dst netip.Addr, link MAC) Frame {
	t, d := target.As16(), dst.As16()
	b := append([]byte{0, 0, 0, 0}, t[:]...)
	b = append(b, d[:]...)
	if !link.IsZero() {
		b = append(b, TargetLinkLayer(link)...)
	}
	return f.ICMPv6(TypeRedirect, 0, b)
}

// Echo fills the frame with an echo request.
func (f Frame) Echo(id, seq uint16) Frame {
	var b []byte
	b = binary.BigEndian.AppendUint16(b, id)
	b = binary.BigEndian.AppendUint16(b, seq)
	return f.ICMPv6(TypeEcho, 0, b)
}

// SourceLinkLayer is option 1.
func SourceLinkLayer(m MAC) []byte { return append([]byte{1, 1}, m[:]...) }

// TargetLinkLayer is option 2.
func TargetLinkLayer(m MAC) []byte { return append([]byte{2, 1}, m[:]...) }

// PrefixInfo is option 3 with the on-link and autonomous flags set.
func PrefixInfo(p netip.Prefix, valid, preferred uint32) []byte {
	b := []byte{3, 4, uint8(p.Bits()), 0xc0}
	b = binary.BigEndian.AppendUint32(b, valid)
	b = binary.BigEndian.AppendUint32(b, preferred)
	b = append(b, 0, 0, 0, 0)
	a := p.Masked().Addr().As16()
	return append(b, a[:]...)
}

// MTUOption is option 5.
func MTUOption(mtu uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{5, 1, 0, 0}, mtu)
}

// RouteInfo is option 24 (RFC 4191 §2.3), always with a full prefix.
func RouteInfo(p netip.Prefix, preference uint8, lifetime uint32) []byte {
	b := []byte{24, 3, uint8(p.Bits()), preference & 3 << 3}
	b = binary.BigEndian.AppendUint32(b, lifetime)
	a := p.Masked().Addr().As16()
	return append(b, a[:]...)
}

// RDNSS is option 25 (RFC 8106 §5.1).
func RDNSS(lifetime uint32, servers ...netip.Addr) []byte {
	b := []byte{25, uint8(1 + 2*len(servers)), 0, 0}
	b = binary.BigEndian.AppendUint32(b, lifetime)
	for _, s := range servers {
		a := s.As16()
		b = append(b, a[:]...)
	}
	return b
}
