package probe

import (
	"encoding/binary"
	"net/netip"
	"slices"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// Protocol numbers.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	hdrHop      = 0
	hdrRouting  = 43
	hdrFragment = 44
	hdrDst      = 60
)

// key says which probe a packet is: the port (or ICMP type), and which try.
type key struct {
	port uint16
	try  uint8
}

// tries is the number of source ports of a flow: the first half are tries of a port, the
// others are controls.
const (
	tries      = 32
	firstCheck = 16
)

// flow is what all probes of one address have in common.
type flow struct {
	src, dst netip.Addr
	proto    uint8
	variant  model.Variant
	sports   [tries]uint16
	secret   *secret
	// chained: the try of a key is which chain it is in. Segments are as long as fragments
	// have to be, and its cookies are not those of plain probes.
	chained bool
	salt    uint8          // 0 to 15, of chained: cookies of one use are none of another
	ids     map[uint32]key // of fragments whose first has no transport header
	hops    uint8          // how many routers and hosts a packet may pass; 0: as any client's
}

func (f *flow) is4() bool { return f.dst.Is4() }

// token is what a probe carries and an answer must bring back.
func (f *flow) token(k key) uint64 {
	v := uint8(slices.Index(model.Variants(), f.variant))
	if f.chained {
		v |= 0x80 | f.salt<<3
	}
	return f.secret.of(f.dst, f.proto, v, k)
}

// segment is the transport header and what follows, with its checksum.
func (f *flow) segment(k key) []byte {
	t := f.token(k)
	sport := f.sports[k.try%tries]
	switch f.proto {
	case protoTCP:
		b := make([]byte, 24, 32)
		if f.variant == model.Fragments || f.chained {
			b = append(b, 1, 1, 1, 1, 1, 1, 1, 1) // no-ops: a first fragment without the whole header is dropped everywhere
		}
		binary.BigEndian.PutUint16(b[0:], sport)
		binary.BigEndian.PutUint16(b[2:], k.port)
		binary.BigEndian.PutUint32(b[4:], uint32(t))
		b[12], b[13] = uint8(len(b)/4)<<4, tcpSYN
		binary.BigEndian.PutUint16(b[14:], 64240)
		mss := uint16(1460)
		if !f.is4() {
			mss = 1440
		}
		b[20], b[21] = 2, 4
		binary.BigEndian.PutUint16(b[22:], mss)
		f.sum(b, 16)
		return b
	case protoUDP:
		data := payload(k.port, t)
		if (f.variant == model.Fragments || f.chained) && len(data) == 0 {
			data = make([]byte, 16) // for the second fragment
		}
		b := make([]byte, 8, 8+len(data))
		binary.BigEndian.PutUint16(b[0:], sport)
		binary.BigEndian.PutUint16(b[2:], k.port)
		binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
		b = append(b, data...)
		f.sum(b, 6)
		return b
	}
	b := make([]byte, 24)
	b[0] = uint8(k.port)
	binary.BigEndian.PutUint16(b[4:], sport)
	binary.BigEndian.PutUint16(b[6:], uint16(t))
	binary.BigEndian.PutUint64(b[8:], t)
	f.sum(b, 2)
	return b
}

const (
	tcpFIN = 1
	tcpSYN = 2
	tcpRST = 4
	tcpACK = 16
)

// reset ends the half-open connection that a SYN/ACK shows: the kernel does so as well,
// unless the rules of this host keep the SYN/ACK from it.
func (f *flow) reset(k key) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b[0:], f.sports[k.try%tries])
	binary.BigEndian.PutUint16(b[2:], k.port)
	binary.BigEndian.PutUint32(b[4:], uint32(f.token(k))+1)
	b[12], b[13] = 5<<4, tcpRST
	f.sum(b, 16)
	return b
}

// sum writes the checksum of a segment.
func (f *flow) sum(b []byte, at int) {
	s := uint32(0)
	if f.proto != protoICMP {
		s = add(add(uint32(f.proto)+uint32(len(b)), f.src.AsSlice()), f.dst.AsSlice())
	}
	c := ^fold(add(s, b))
	if c == 0 && f.proto == protoUDP {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(b[at:], c)
}

func add(s uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// packets puts a segment into one IP packet, or into two fragments.
func (f *flow) packets(seg []byte, id uint32) [][]byte {
	if f.is4() {
		return f.packets4(seg, uint16(id))
	}
	pad := []byte{0, 0, 1, 4, 0, 0, 0, 0} // next header and length, then PadN of four
	switch f.variant {
	case model.HopByHop:
		return [][]byte{f.header6(hdrHop, pad, f.proto, seg)}
	case model.DestOpts:
		return [][]byte{f.header6(hdrDst, pad, f.proto, seg)}
	case model.Atomic:
		h := make([]byte, 8)
		binary.BigEndian.PutUint32(h[4:], id)
		return [][]byte{f.header6(hdrFragment, h, f.proto, seg)}
	case model.Fragments:
		cut := split(seg)
		a, b := make([]byte, 8), make([]byte, 8)
		binary.BigEndian.PutUint16(a[2:], 1)
		binary.BigEndian.PutUint16(b[2:], uint16(cut))
		binary.BigEndian.PutUint32(a[4:], id)
		binary.BigEndian.PutUint32(b[4:], id)
		return [][]byte{f.header6(hdrFragment, a, f.proto, seg[:cut]), f.header6(hdrFragment, b, f.proto, seg[cut:])}
	}
	return [][]byte{f.header6(f.proto, nil, 0, seg)}
}

// split is where a segment is cut: as late as can be, so that the first fragment has
// every field that a rule asks for (RFC 7112).
func split(seg []byte) int { return max(8, (len(seg)-1)&^7) }

// reach is the hop limit.
func (f *flow) reach() uint8 {
	if f.hops != 0 {
		return f.hops
	}
	return 64
}

func (f *flow) header6(first uint8, ext []byte, proto uint8, seg []byte) []byte {
	b := make([]byte, 40, 40+len(ext)+len(seg))
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(ext)+len(seg)))
	b[6], b[7] = first, f.reach()
	src, dst := f.src.As16(), f.dst.As16()
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	b = append(b, ext...)
	if len(ext) > 0 {
		b[40] = proto
	}
	return append(b, seg...)
}

func (f *flow) packets4(seg []byte, id uint16) [][]byte {
	if f.variant == model.Fragments {
		cut := split(seg)
		return [][]byte{f.header4(nil, seg[:cut], moreFragments, id), f.header4(nil, seg[cut:], uint16(cut/8), id)}
	}
	return [][]byte{f.header4(nil, seg, dontFragment, id)}
}

// Flags of an IPv4 header, beside the offset.
const (
	dontFragment  = 0x4000
	moreFragments = 0x2000
)

// header4 puts a header before a part of a packet, with options if there are any.
func (f *flow) header4(options, part []byte, frag, id uint16) []byte {
	n := 20 + len(options)
	b := make([]byte, n, n+len(part))
	b[0] = 0x40 | uint8(n/4)
	binary.BigEndian.PutUint16(b[2:], uint16(n+len(part)))
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], frag)
	b[8], b[9] = f.reach(), f.proto
	src, dst := f.src.As4(), f.dst.As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	copy(b[20:], options)
	binary.BigEndian.PutUint16(b[10:], ^fold(add(0, b)))
	return append(b, part...)
}
