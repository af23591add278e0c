package oracle

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"net/netip"

	"github.com/sixfence/sixfence/internal/logic/reach"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Transport protocols and extension headers (IANA protocol numbers).
const (
	protoICMP    = 1
	protoTCP     = 6
	protoUDP     = 17
	protoICMPv6  = 58
	protoSCTP    = 132
	protoUDPLite = 136

	hopByHop = 0
	routing  = 43
	fragment = 44
	destOpts = 60
)

// Shape is a packet without its source address: what the question about every
// source at once has in common.
type Shape struct {
	IPv6  bool
	Iface int // index of the lab's interfaces
	// Forward packets are for a host behind the lab's second interface, the others
	// for the lab itself.
	Forward bool
	// Output packets are made by the host itself.
	Output       bool
	Dst          netip.Addr
	Proto        uint8
	Sport, Dport uint16
	Flags        uint8 // of TCP
	Type, Code   uint8 // of ICMP
	HopLimit     uint8
	TOS          uint8 // IPv4 TOS, IPv6 traffic class
	Window       uint16
	Ext          []reach.Ext
	Body         int // bytes after the transport header
	MAC          [2]byte
	FragID       uint32
	ID           uint16 // IPv4 identification
	Label        uint32 // IPv6 flow label
	NoDF         bool
	Options      int    // bytes of options of TCP
	Flow         bool   // of an established flow
	Reply        bool   // which the host began
	Related      bool   // an ICMP error about an established flow
	Ct           uint32 // what connection tracking will say, where it is in use
}

// Probe is one packet that is sent.
type Probe struct {
	Shape int
	Src   netip.Addr
}

func (s *Shape) family() rs.Family {
	if s.IPv6 {
		return rs.IPv6
	}
	return rs.IPv4
}

func (s *Shape) hook() rs.Hook {
	switch {
	case s.Output:
		return rs.Output
	case s.Forward:
		return rs.Forward
	}
	return rs.Input
}

// mac is the source MAC of probe number id: the recorder knows packets by it.
func (s *Shape) mac(id uint32) [6]byte {
	m := [6]byte{s.MAC[0], s.MAC[1]}
	binary.BigEndian.PutUint32(m[2:], id)
	return m
}

// frame is the packet on the wire.
func (s *Shape) frame(src netip.Addr, id uint32, dstMAC [6]byte) []byte {
	m := s.mac(id)
	b := make([]byte, 14, 160)
	copy(b, dstMAC[:])
	switch {
	case s.Dst.Is6() && s.Dst.IsMulticast():
		d := s.Dst.As16()
		copy(b, []byte{0x33, 0x33, d[12], d[13], d[14], d[15]})
	case s.Dst.IsMulticast():
		d := s.Dst.As4()
		copy(b, []byte{1, 0, 0x5e, d[1] & 0x7f, d[2], d[3]})
	case s.Dst.Is4() && s.Dst.As4()[3] == 255:
		copy(b, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	}
	copy(b[6:], m[:])
	if s.IPv6 {
		b[12], b[13] = 0x86, 0xdd
	} else {
		b[12], b[13] = 0x08, 0x00
	}
	return append(b, s.packet(src, id)...)
}

// packet is the packet from the network header on.
func (s *Shape) packet(src netip.Addr, id uint32) []byte {
	t := s.transport(src)
	if !s.IPv6 {
		b := make([]byte, 20, 128)
		b[0], b[1] = 0x45, s.TOS
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(t)))
		ident := s.ID
		if s.Output { // the recorder knows it by its identification
			ident = uint16(id) + 1
		}
		binary.BigEndian.PutUint16(b[4:], ident)
		if !s.NoDF {
			b[6] = 0x40
		}
		b[8], b[9] = s.HopLimit, s.Proto
		a, d := src.As4(), s.Dst.As4()
		copy(b[12:], a[:])
		copy(b[16:], d[:])
		binary.BigEndian.PutUint16(b[10:], ^fold(sum(b, 0)))
		return append(b, t...)
	}
	b := make([]byte, 40, 160)
	b[0], b[1] = 0x60|s.TOS>>4, s.TOS<<4
	b[1], b[2], b[3] = b[1]|byte(s.Label>>16)&0xf, byte(s.Label>>8), byte(s.Label)
	if s.Output { // the recorder knows it by its flow label
		b[1], b[2], b[3] = b[1]&0xf0|byte((id+1)>>16)&0xf, byte((id+1)>>8), byte(id+1)
	}
	b[7] = s.HopLimit
	a, d := src.As16(), s.Dst.As16()
	copy(b[8:], a[:])
	copy(b[24:], d[:])
	next := 6
	for _, e := range s.Ext {
		b[next] = e.Number
		next = len(b)
		b = append(b, s.extBody(e)...)
		if e.Number == fragment && e.Frag == reach.Later {
			b[next] = s.Proto
			binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40+16))
			return append(b, make([]byte, 16)...)
		}
	}
	b[next] = s.Proto
	b = append(b, t...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	return b
}

func (s *Shape) extBody(e reach.Ext) []byte {
	switch e.Number {
	case fragment:
		b := make([]byte, 8)
		switch e.Frag {
		case reach.First:
			b[3] = 1
		case reach.Later:
			b[3] = 16 // offset 2 units of 8 octets, the last fragment
		}
		binary.BigEndian.PutUint32(b[4:], s.FragID)
		return b
	case routing:
		return make([]byte, 8) // type 0, no segments left
	}
	return []byte{0, 0, 1, 4, 0, 0, 0, 0} // PadN
}

func (s *Shape) transport(src netip.Addr) []byte {
	var b []byte
	check := 0
	switch s.Proto {
	case protoTCP:
		b = make([]byte, 20+s.Options+s.Body)
		for i := range s.Options {
			b[20+i] = 1 // no operation
		}
		binary.BigEndian.PutUint16(b, s.Sport)
		binary.BigEndian.PutUint16(b[2:], s.Dport)
		binary.BigEndian.PutUint32(b[4:], tcpSequence)
		b[12], b[13] = byte(5+s.Options/4)<<4, s.Flags
		binary.BigEndian.PutUint16(b[14:], s.Window)
		check = 16
	case protoUDP:
		b = make([]byte, 8+s.Body)
		binary.BigEndian.PutUint16(b, s.Sport)
		binary.BigEndian.PutUint16(b[2:], s.Dport)
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
		check = 6
	case protoSCTP:
		return s.sctp()
	case protoICMP, protoICMPv6:
		if s.Related {
			b = s.icmpError()
			check = 2
			break
		}
		b = make([]byte, 8+s.Body)
		b[0], b[1] = s.Type, s.Code
		binary.BigEndian.PutUint16(b[4:], s.Sport)
		check = 2
	default:
		return make([]byte, 8+s.Body)
	}
	for i := len(b) - s.Body; i < len(b) && !s.Related; i++ {
		b[i] = byte(i * 7)
	}
	var init uint32
	if s.Proto != protoICMP {
		a, d := src.AsSlice(), s.Dst.AsSlice()
		init = sum(a, 0) + sum(d, 0) + uint32(len(b)) + uint32(s.Proto)
	}
	c := ^fold(sum(b, init))
	if c == 0 && s.Proto == protoUDP {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(b[check:], c)
	return b
}

// tcpSequence is the sequence number of every segment.
const tcpSequence = 0x01020304

// sctp is an INIT chunk.
func (s *Shape) sctp() []byte {
	b := make([]byte, 12+20)
	binary.BigEndian.PutUint16(b, s.Sport)
	binary.BigEndian.PutUint16(b[2:], s.Dport)
	b[12] = 1 // INIT
	binary.BigEndian.PutUint16(b[14:], 20)
	binary.BigEndian.PutUint32(b[16:], 0x1234)
	binary.BigEndian.PutUint32(b[20:], 65536)
	binary.BigEndian.PutUint16(b[24:], 1)
	binary.BigEndian.PutUint16(b[26:], 1)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// icmpError quotes a packet of the host that belongs to an established flow.
func (s *Shape) icmpError() []byte {
	inner := establishedShapes()[map[bool]int{false: 1, true: 4}[s.IPv6]] // UDP
	q := Shape{IPv6: s.IPv6, Dst: flowSource(s.IPv6, 0), Proto: protoUDP, Sport: inner.Dport, Dport: inner.Sport, HopLimit: 60}
	b := make([]byte, 8, 64)
	b[0], b[1] = s.Type, s.Code
	return append(b, q.packet(s.Dst, 0)...)
}

func sum(b []byte, s uint32) uint32 {
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// question is what reach is asked. Without a source it is open.
func (s *Shape) question(src netip.Addr, id uint32, raw bool) reach.Packet {
	p := reach.Packet{
		Family:   s.family(),
		IIF:      reach.Some(Interfaces[s.Iface]),
		Daddr:    reach.Some(s.Dst),
		Proto:    reach.Some(s.Proto),
		Sport:    reach.Range{From: s.Sport, To: s.Sport},
		HopLimit: reach.Some(s.HopLimit),
		Exthdr:   s.Ext,
		Ct:       reach.Some(s.Ct),
		Mark:     reach.Some(uint32(0)),
	}
	switch s.Proto {
	case protoTCP:
		p.Dport, p.TCPFlags = reach.Some(s.Dport), reach.Some(s.Flags)
	case protoUDP, protoSCTP:
		p.Dport = reach.Some(s.Dport)
	case protoICMP, protoICMPv6:
		p.ICMPType, p.ICMPCode = reach.Some(s.Type), reach.Some(s.Code)
	}
	if s.Forward {
		p.OIF = reach.Some(Interfaces[1])
	}
	if s.Output {
		p.Local, p.IIF, p.UID = true, reach.Opt[string]{}, reach.Some(uint32(0))
		p.OIF = reach.Some(Interfaces[s.Iface])
	}
	if src.IsValid() {
		p.Saddr = reach.Some(src)
		if !s.Output {
			p.SrcMAC = reach.Some(s.mac(id))
		}
		if raw {
			p.Raw = s.packet(src, id)
		}
	}
	return p
}

// Bits of the fields that a part of a question leaves open.
const (
	partIIF = 1 << iota
	partOIF
	partDaddr
	partDport
	partSport
	partHighSport
	partType
	partCode
	partFlags
	partCt
	partHopLimit
	partMAC
	partMark
	partUID
	partProto
	partCount = iota
)

// leave chooses the fields that the question about a packet leaves open; of most
// packets no such question is asked.
func leave(seed uint64, id uint32) uint32 {
	r := rand.New(rand.NewPCG(seed, uint64(id)))
	if r.IntN(4) > 0 {
		return 0
	}
	m := r.Uint32() & r.Uint32() & (1<<partCount - 1)
	if r.IntN(4) > 0 {
		m &^= partProto
	}
	return m
}

// part is the question with some fields left open.
func (s *Shape) part(src netip.Addr, id, leave uint32) reach.Packet {
	p := s.question(src, id, false)
	open(leave, partIIF, &p.IIF)
	if s.Output { // a packet that is made here came in by no interface
		p.IIF = reach.Opt[string]{}
	}
	open(leave, partOIF, &p.OIF)
	open(leave, partDaddr, &p.Daddr)
	open(leave, partDport, &p.Dport)
	open(leave, partType, &p.ICMPType)
	open(leave, partCode, &p.ICMPCode)
	open(leave, partFlags, &p.TCPFlags)
	open(leave, partCt, &p.Ct)
	open(leave, partHopLimit, &p.HopLimit)
	open(leave, partMAC, &p.SrcMAC)
	open(leave, partMark, &p.Mark)
	open(leave, partUID, &p.UID)
	open(leave, partProto, &p.Proto)
	switch {
	case leave&partSport != 0:
		p.Sport = reach.Range{To: 65535}
	case leave&partHighSport != 0 && s.Sport >= 1024:
		p.Sport = reach.Range{From: 1024, To: 65535}
	}
	return p
}

func open[T any](leave, bit uint32, o *reach.Opt[T]) {
	if leave&bit != 0 {
		*o = reach.Opt[T]{}
	}
}

// ctState is what connection tracking says about the first packet of a flow
// (net/netfilter/nf_conntrack_proto_*.c).
func ctState(s *Shape) uint32 {
	if s.Related {
		return reach.CtRelated
	}
	switch s.Proto {
	case protoTCP:
		// tcp_error, then tcp_conntracks for a flow not seen before: SYN opens,
		// ACK is picked up (nf_conntrack_tcp_loose), all else is invalid.
		switch s.Flags &^ 0xc8 { // without PSH, ECE and CWR
		case 0x02, 0x22, 0x10, 0x30:
			return reach.CtNew
		}
		return reach.CtInvalid
	case protoICMP:
		switch s.Type {
		case 8, 13, 15, 17:
			return reach.CtNew
		}
		return reach.CtInvalid
	case protoICMPv6:
		switch s.Type {
		case 128, 139:
			return reach.CtNew
		case 130, 131, 132, 133, 134, 135, 136, 143, 151, 152:
			return reach.CtUntracked
		}
		return reach.CtInvalid
	}
	return reach.CtNew
}
