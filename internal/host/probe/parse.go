package probe

import (
	"bytes"
	"encoding/binary"
	"net/netip"
)

// answer is what one packet says about one of our probes.
type answer struct {
	key
	kind    answerKind
	icmp    uint8 // type and code of an error
	code    uint8
	from    netip.Addr
	hops    uint8  // the hop limit that is left
	mss     uint16 // of a SYN/ACK
	cleanup bool   // a half-open connection is left at the target
}

type answerKind uint8

const (
	noAnswer answerKind = iota
	synAck
	reset
	replied      // a datagram, or an echo reply
	repliedOther // a datagram that is no answer of the protocol that the port is known for
	icmpError
)

// parse reads a packet from the network header on. Whatever is not surely an answer to
// a probe of this flow is noAnswer: the bytes are a stranger's.
func (f *flow) parse(p []byte) answer {
	if len(p) == 0 {
		return answer{}
	}
	var a answer
	if f.is4() {
		a = f.parse4(p)
		a.hops = hopLimit(p, a)
		return a
	}
	a = f.parse6(p)
	a.hops = hopLimit(p, a)
	return a
}

// hopLimit is that of a packet which is an answer.
func hopLimit(p []byte, a answer) uint8 {
	switch {
	case a.kind == noAnswer:
		return 0
	case p[0]>>4 == 4:
		return p[8]
	}
	return p[7]
}

// segmentSize reads the maximum segment size from the options of a TCP header; 0: it is not
// there.
func segmentSize(h []byte) uint16 {
	n := int(h[12]>>4) * 4
	if n < 20 || n > len(h) {
		return 0
	}
	for b := h[20:n]; len(b) > 0; {
		switch {
		case b[0] == 0:
			return 0
		case b[0] == 1:
			b = b[1:]
			continue
		case len(b) < 2 || b[1] < 2 || int(b[1]) > len(b):
			return 0
		case b[0] == 2 && b[1] == 4:
			return binary.BigEndian.Uint16(b[2:])
		}
		b = b[b[1]:]
	}
	return 0
}

func (f *flow) parse4(p []byte) answer {
	h, proto, src, _, ok := header4(p)
	if !ok {
		return answer{}
	}
	if proto == protoICMP {
		if a := f.error4(h, src); a.kind != noAnswer {
			return a
		}
	}
	if src != f.dst || proto != f.proto {
		return answer{}
	}
	return f.reply(h, src)
}

// header4 cuts an IPv4 header off. Fragments behind the first are nothing to us.
func header4(p []byte) (rest []byte, proto uint8, src, dst netip.Addr, ok bool) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return nil, 0, src, dst, false
	}
	n := int(p[0]&15) * 4
	if n < 20 || len(p) < n || binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
		return nil, 0, src, dst, false
	}
	if total := int(binary.BigEndian.Uint16(p[2:])); total >= n && total < len(p) {
		p = p[:total] // what follows is padding of the frame
	}
	return p[n:], p[9], netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), true
}

// header6 cuts an IPv6 header and the extension headers off.
func header6(p []byte) (rest []byte, proto uint8, src, dst netip.Addr, ok bool) {
	if len(p) < 40 || p[0]>>4 != 6 {
		return nil, 0, src, dst, false
	}
	src, dst = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
	if total := 40 + int(binary.BigEndian.Uint16(p[4:])); total < len(p) {
		p = p[:total]
	}
	proto, p = p[6], p[40:]
	for range 8 {
		switch proto {
		case hdrHop, hdrDst, hdrRouting:
			if len(p) < 8 {
				return nil, 0, src, dst, false
			}
			n := 8 + int(p[1])*8
			if len(p) < n {
				return nil, 0, src, dst, false
			}
			proto, p = p[0], p[n:]
		case hdrFragment:
			if len(p) < 8 || binary.BigEndian.Uint16(p[2:])&0xfff8 != 0 {
				return nil, 0, src, dst, false
			}
			proto, p = p[0], p[8:]
		default:
			return p, proto, src, dst, true
		}
	}
	return nil, 0, src, dst, false
}

func (f *flow) parse6(p []byte) answer {
	h, proto, src, _, ok := header6(p)
	if !ok {
		return answer{}
	}
	if proto == protoICMPv6 && len(h) >= 8 && h[0] < 128 {
		return f.error6(h, src)
	}
	if src != f.dst.WithZone("") || proto != f.proto {
		return answer{}
	}
	return f.reply(h, src)
}

// reply reads an answer of the target itself.
func (f *flow) reply(h []byte, src netip.Addr) answer {
	a := answer{from: src}
	if len(h) < 8 {
		return answer{}
	}
	sport, dport := binary.BigEndian.Uint16(h), binary.BigEndian.Uint16(h[2:])
	switch f.proto {
	case protoTCP:
		if len(h) < 20 {
			return answer{}
		}
		try, ok := f.tryOf(dport)
		a.key = key{sport, try}
		ack, flags := binary.BigEndian.Uint32(h[8:]), h[13]&(tcpSYN|tcpRST|tcpACK|tcpFIN)
		if !ok || ack != uint32(f.token(a.key))+1 {
			return answer{}
		}
		switch flags {
		case tcpSYN | tcpACK:
			a.kind, a.cleanup, a.mss = synAck, true, segmentSize(h)
		case tcpRST | tcpACK, tcpRST:
			a.kind = reset
		}
	case protoUDP:
		if try, ok := f.tryOf(dport); ok {
			a = f.said(key{sport, try}, h[8:])
			a.from = src
		}
	default:
		// The type of the answer leads back to that of the question.
		asked, ok := askedBy(f.proto, h[0])
		try, known := f.tryOf(binary.BigEndian.Uint16(h[4:]))
		a.key = key{uint16(asked), try}
		t := f.token(a.key)
		if !ok || !known || binary.BigEndian.Uint16(h[6:]) != uint16(t) {
			return answer{}
		}
		a.kind = replied
	}
	return a
}

func askedBy(proto, got uint8) (uint8, bool) {
	switch {
	case proto == protoICMP && got == 0:
		return 8, true
	case proto == protoICMP && got == 14:
		return 13, true
	case proto == protoICMPv6 && got == 129:
		return 128, true
	}
	return 0, false
}

func (f *flow) tryOf(sport uint16) (uint8, bool) {
	for i, s := range f.sports {
		if s == sport && s != 0 {
			return uint8(i), true
		}
	}
	return 0, false
}

func (f *flow) error4(h []byte, from netip.Addr) answer {
	// Unreachable, time exceeded, parameter problem: others refuse nothing.
	if len(h) < 8 || h[0] != 3 && h[0] != 11 && h[0] != 12 || h[0] == 3 && h[1] == 4 {
		return answer{}
	}
	q, proto, src, dst, ok := header4(h[8:])
	if !ok || dst != f.dst || proto != f.proto {
		return answer{}
	}
	return f.from(src).quoted(q, h[0], h[1], from)
}

func (f *flow) error6(h []byte, from netip.Addr) answer {
	if h[0] == 2 { // Packet Too Big refuses nothing; kinds that nobody knows are errors (RFC 4443 §2.4)
		return answer{}
	}
	q, proto, src, dst, ok := header6(h[8:])
	if dst != f.dst.WithZone("") {
		return answer{}
	}
	if f.chained && (!ok || len(q) < 8) {
		return f.quotedID(h[8:], h[0], h[1], from)
	}
	if !ok || proto != f.proto && !(f.chained && (proto == hdrUnknown || proto == hdrNone)) {
		return answer{}
	}
	return f.from(src).quoted(q, h[0], h[1], from)
}

// from is the flow as it is on the way, where rules of this host send under another address.
func (f *flow) from(src netip.Addr) *flow {
	if src == f.src.WithZone("") {
		return f
	}
	g := *f
	g.src = src
	return &g
}

// quotedID finds the probe whose first fragment an error quotes, by its identification: that
// is part of the cookie, and there is no transport header.
func (f *flow) quotedID(p []byte, typ, code uint8, from netip.Addr) answer {
	next, p := p[6], p[40:]
	for range 4 {
		if len(p) < 8 {
			return answer{}
		}
		if next == hdrFragment {
			k, ok := f.ids[binary.BigEndian.Uint32(p[4:])]
			if !ok {
				return answer{}
			}
			return answer{key: k, kind: icmpError, icmp: typ, code: code, from: from}
		}
		n := 8 + int(p[1])*8
		if next != hdrHop && next != hdrDst && next != hdrRouting || len(p) < n {
			return answer{}
		}
		next, p = p[0], p[n:]
	}
	return answer{}
}

// quoted holds the packet that an error quotes against the one that we would have sent.
func (f *flow) quoted(q []byte, typ, code uint8, from netip.Addr) answer {
	if len(q) < 8 {
		return answer{}
	}
	var k key
	sport := binary.BigEndian.Uint16(q)
	k.port = binary.BigEndian.Uint16(q[2:])
	if f.proto == protoICMP || f.proto == protoICMPv6 {
		sport, k.port = binary.BigEndian.Uint16(q[4:]), uint16(q[0])
	}
	try, ok := f.tryOf(sport)
	k.try = try
	if !ok || !bytes.Equal(q[:8], f.segment(k)[:8]) {
		return answer{}
	}
	return answer{key: k, kind: icmpError, icmp: typ, code: code, from: from}
}
