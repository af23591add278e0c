package ndisc

import (
	"encoding/binary"
	"net/netip"
)

// Frame4 is one Ethernet frame with an IPv4 packet.
type Frame4 struct {
	SrcMAC, DstMAC MAC
	Src, Dst       netip.Addr
	ID             uint16
	Proto          uint8
	Payload        []byte
}

// Bytes is the frame as it goes on the wire.
func (f Frame4) Bytes() []byte {
	b := make([]byte, 0, 34+len(f.Payload))
	b = append(b, f.DstMAC[:]...)
	b = append(b, f.SrcMAC[:]...)
	b = append(b, 0x08, 0x00, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(20+len(f.Payload)))
	b = binary.BigEndian.AppendUint16(b, f.ID)
	b = append(b, 0, 0, 64, f.Proto, 0, 0)
	s, d := f.Src.As4(), f.Dst.As4()
	b = append(append(b, s[:]...), d[:]...)
	binary.BigEndian.PutUint16(b[24:], internetChecksum(b[14:34], nil))
	return append(b, f.Payload...)
}

// internetChecksum is the Internet checksum (RFC 1071) of two pieces, the first of even length.
func internetChecksum(a, p []byte) uint16 {
	h := append(append([]byte{}, a...), p...)
	if len(h)%2 == 1 {
		h = append(h, 0)
	}
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(h[i])<<8 | uint32(h[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func (f Frame4) pseudo(proto uint8, n int) []byte {
	s, d := f.Src.As4(), f.Dst.As4()
	h := append(append([]byte{}, s[:]...), d[:]...)
	return binary.BigEndian.AppendUint16(append(h, 0, proto), uint16(n))
}

// UDP fills the frame with a UDP datagram.
func (f Frame4) UDP(sport, dport uint16, data []byte) Frame4 {
	var m []byte
	m = binary.BigEndian.AppendUint16(m, sport)
	m = binary.BigEndian.AppendUint16(m, dport)
	m = binary.BigEndian.AppendUint16(m, uint16(8+len(data)))
	m = append(append(m, 0, 0), data...)
	binary.BigEndian.PutUint16(m[6:], internetChecksum(f.pseudo(ProtoUDP, len(m)), m))
	f.Proto, f.Payload = ProtoUDP, m
	return f
}

// TCP fills the frame with a TCP segment without data.
func (f Frame4) TCP(sport, dport uint16, flags uint8) Frame4 {
	m := tcp(sport, dport, flags)
	binary.BigEndian.PutUint16(m[16:], internetChecksum(f.pseudo(ProtoTCP, len(m)), m))
	f.Proto, f.Payload = ProtoTCP, m
	return f
}

// Echo fills the frame with an echo request.
func (f Frame4) Echo(id, seq uint16) Frame4 {
	m := []byte{8, 0, 0, 0}
	m = binary.BigEndian.AppendUint16(m, id)
	m = binary.BigEndian.AppendUint16(m, seq)
	binary.BigEndian.PutUint16(m[2:], internetChecksum(nil, m))
	f.Proto, f.Payload = ProtoICMP, m
	return f
}

// Raw fills the frame with a payload as it is.
func (f Frame4) Raw(proto uint8, payload []byte) Frame4 {
	f.Proto, f.Payload = proto, payload
	return f
}
