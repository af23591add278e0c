// Package ndisc builds neighbour discovery messages and other IPv6 frames byte by byte:
// also what no well-behaved stack would send (forged sources, wrong hop limits,
// fragments, extension headers), for those who prove that a host stands it.
package ndisc

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// MAC is an Ethernet address.
type MAC [6]byte

// AllNodes is ff02::1, the group every IPv6 node hears.
var AllNodes = netip.MustParseAddr("ff02::1")

// IP protocol and extension header numbers.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
	HdrHopByHop = 0
	HdrRouting  = 43
	HdrFragment = 44
	HdrDestOpts = 60
)

// Frame is one Ethernet frame with an IPv6 packet. Zero DstMAC means: derive it
// from a multicast Dst, else broadcast.
type Frame struct {
	SrcMAC, DstMAC MAC
	Src, Dst       netip.Addr
	HopLimit       uint8  // 0 means 255, what neighbour discovery demands (RFC 4861 §6.1.2)
	FlowLabel      uint32 // 20 bits
	Ext            []Ext  // extension headers before the payload
	Proto          uint8
	Payload        []byte // checksum already filled in
}

// Ext is an extension header that precedes the payload.
type Ext struct {
	Type uint8  // HdrHopByHop, HdrDestOpts …
	Body []byte // what follows the next-header octet; empty: eight octets with one PadN
}

// String is the usual colon notation.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// IsZero tells whether the address was left out.
func (m MAC) IsZero() bool { return m == MAC{} }

// multicastMAC is RFC 2464 §7: 33:33 and the last four octets of the group.
func multicastMAC(a netip.Addr) MAC {
	b := a.As16()
	return MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

func (f Frame) header(next uint8, payload []byte) []byte {
	dst := f.DstMAC
	if dst.IsZero() {
		dst = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		if f.Dst.IsMulticast() {
			dst = multicastMAC(f.Dst)
		}
	}
	hop := f.HopLimit
	if hop == 0 {
		hop = 255
	}
	b := make([]byte, 0, 54+len(payload))
	b = append(b, dst[:]...)
	b = append(b, f.SrcMAC[:]...)
	b = append(b, 0x86, 0xdd, 0x60, byte(f.FlowLabel>>16)&0xf, byte(f.FlowLabel>>8), byte(f.FlowLabel))
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, next, hop)
	s, d := f.Src.As16(), f.Dst.As16()
	b = append(b, s[:]...)
	b = append(b, d[:]...)
	return append(b, payload...)
}

// chain renders the extension headers in front of rest.
func chain(ext []Ext, next uint8, rest []byte) (uint8, []byte) {
	for i := len(ext) - 1; i >= 0; i-- {
		body := ext[i].Body
		if len(body) == 0 {
			body = []byte{0, 1, 4, 0, 0, 0, 0} // length 0 (= 8 octets), PadN of 6
		}
		h := append([]byte{next}, body...)
		rest = append(h, rest...)
		next = ext[i].Type
	}
	return next, rest
}

// Bytes is the frame as it goes on the wire.
func (f Frame) Bytes() []byte {
	next, p := chain(f.Ext, f.Proto, f.Payload)
	return f.header(next, p)
}

// Fragments splits the payload after the first `at` octets (a multiple of 8)
// and returns both fragments, first one first (RFC 8200 §4.5). Extension
// headers stay in front of the fragment header.
func (f Frame) Fragments(id uint32, at int) [][]byte {
	part := func(off int, more uint16, data []byte) []byte {
		h := []byte{f.Proto, 0}
		h = binary.BigEndian.AppendUint16(h, uint16(off)|more)
		h = binary.BigEndian.AppendUint32(h, id)
		next, p := chain(f.Ext, HdrFragment, append(h, data...))
		return f.header(next, p)
	}
	return [][]byte{part(0, 1, f.Payload[:at]), part(at, 0, f.Payload[at:])}
}

// checksum is RFC 8200 §8.1 over the pseudo-header and the payload.
func checksum(src, dst netip.Addr, proto uint8, p []byte) uint16 {
	s, d := src.As16(), dst.As16()
	h := append(append([]byte{}, s[:]...), d[:]...)
	h = binary.BigEndian.AppendUint32(h, uint32(len(p)))
	h = append(h, 0, 0, 0, proto)
	return internetChecksum(h, p)
}

// ICMPv6 fills the frame with an ICMPv6 message: type, code and what follows the
// checksum.
func (f Frame) ICMPv6(typ, code uint8, body []byte) Frame {
	m := append([]byte{typ, code, 0, 0}, body...)
	binary.BigEndian.PutUint16(m[2:], checksum(f.Src, f.Dst, ProtoICMPv6, m))
	f.Proto, f.Payload = ProtoICMPv6, m
	return f
}

// UDP fills the frame with a UDP datagram.
func (f Frame) UDP(sport, dport uint16, data []byte) Frame {
	var m []byte
	m = binary.BigEndian.AppendUint16(m, sport)
	m = binary.BigEndian.AppendUint16(m, dport)
	m = binary.BigEndian.AppendUint16(m, uint16(8+len(data)))
	m = append(m, 0, 0)
	m = append(m, data...)
	sum := checksum(f.Src, f.Dst, ProtoUDP, m)
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(m[6:], sum)
	f.Proto, f.Payload = ProtoUDP, m
	return f
}

// TCP fills the frame with a TCP segment without data.
func (f Frame) TCP(sport, dport uint16, flags uint8) Frame {
	m := tcp(sport, dport, flags)
	binary.BigEndian.PutUint16(m[16:], checksum(f.Src, f.Dst, ProtoTCP, m))
	f.Proto, f.Payload = ProtoTCP, m
	return f
}

func tcp(sport, dport uint16, flags uint8) []byte {
	var m []byte
	m = binary.BigEndian.AppendUint16(m, sport)
	m = binary.BigEndian.AppendUint16(m, dport)
	m = append(m, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0)
	return m
}

// Raw fills the frame with a payload as it is.
func (f Frame) Raw(proto uint8, payload []byte) Frame {
	f.Proto, f.Payload = proto, payload
	return f
}
