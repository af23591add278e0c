// Package reach says what a ruleset does with packets: for one packet (trace), and
// for every source address at once (reach).
//
// Both are one interpreter. A packet is bytes of which some are known, some are
// the source address that the question leaves open, and some are unknown. Rules
// run over it as in the kernel, register by register; a condition answers for
// which sources it surely holds and for which it may. What is not understood may
// hold and may not, so that the answer brackets the kernel's: surely accepted is a
// subset, possibly accepted a superset.
package reach

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// kind is what is known of one byte.
type kind uint8

const (
	kUnknown kind = iota // where mask is not 0, only its bits: val has the others
	kConst               // val
	kSaddr               // (byte idx of the source address & mask) ^ val
	kSport               // byte idx of the source port, which lies in Packet.Sport
	kChoice              // byte idx of question.choices[val]: the source decides which value
)

// abyte is one byte of a packet or a register. Of an unknown byte idx is the
// field of the question that would have said it.
type abyte struct {
	kind      kind
	val, mask byte
	idx       uint8
}

// field is what a question leaves open, by the names of the trace flags.
type field = uint8

// The fields; 0 is none of them.
const (
	fieldNone field = iota
	fieldIIF
	fieldOIF
	fieldSaddr
	fieldDaddr
	fieldProto
	fieldSport
	fieldDport
	fieldICMPType
	fieldICMPCode
	fieldTCPFlags
	fieldCt
	fieldHopLimit
	fieldMAC
	fieldMark
	fieldUID
	fieldCount
)

var fieldNames = [fieldCount]string{
	"", "iif", "oif", "saddr", "daddr", "proto", "sport", "dport", "icmpType", "icmpCode", "tcpFlags",
	"ct", "hoplimit", "etherSaddr", "mark", "uid",
}

func known(b byte) abyte { return abyte{kind: kConst, val: b} }

func knownBytes(b []byte) []abyte {
	out := make([]abyte, len(b))
	for i, c := range b {
		out[i] = known(c)
	}
	return out
}

// Range is an inclusive range of a 16-bit number.
type Range struct{ From, To uint16 }

// Opt is a value that a question may leave open.
type Opt[T any] struct {
	Set bool
	V   T
}

// Some is a fixed value.
func Some[T any](v T) Opt[T] { return Opt[T]{true, v} }

// Conntrack states as ct state bits (NF_CT_STATE_BIT: 1 << (ctinfo % 3 + 1); invalid 1, untracked 64).
const (
	CtInvalid     = 1
	CtEstablished = 2
	CtRelated     = 4
	CtNew         = 8
	CtUntracked   = 64
)

// Packet is a question: what of this packet is fixed, and what is open.
type Packet struct {
	Family rs.Family // IPv4 or IPv6
	IIF    Opt[string]
	OIF    Opt[string]
	// Saddr is fixed for a trace; open, it ranges over Sources.
	Saddr Opt[netip.Addr]
	Daddr Opt[netip.Addr]
	// Proto is the transport protocol after extension headers.
	Proto    Opt[uint8]
	Sport    Range // of TCP, UDP, SCTP: From == To fixes it
	Dport    Opt[uint16]
	ICMPType Opt[uint8]
	ICMPCode Opt[uint8]
	TCPFlags Opt[uint8]
	Ct       Opt[uint32] // one of the Ct bits
	// Exthdr are the extension headers, outermost first (IANA protocol numbers).
	Exthdr   []Ext
	HopLimit Opt[uint8]
	SrcMAC   Opt[[6]byte]
	Mark     Opt[uint32]
	UID      Opt[uint32]
	Local    bool // made by this host (output)
	// Raw is the whole packet from the network header on, where the question has
	// it. It must agree with the other fields, the source must be fixed, and
	// extension headers of 8 bytes each.
	Raw []byte
}

// Ext is an IPv6 extension header. Frag matters for number 44.
type Ext struct {
	Number uint8
	Frag   Frag
	Data   string // what follows the next-header byte, as far as the question says it
}

// Frag tells the kind of fragment.
type Frag uint8

// The kinds of fragment.
const (
	Atomic Frag = iota
	First
	Later
)

// layout is a Packet as bytes.
type layout struct {
	link, net, trans []abyte
	hasTrans         bool
	l4proto          abyte
	exact            bool // nothing follows trans
	fragOffset       bool // a later fragment: nf_tables sees no transport header
	ext              []extBytes
}

type extBytes struct {
	number uint8
	bytes  []abyte
}

func open(n int) []abyte { return make([]abyte, n) }

// lacking are bytes that a field left out of the question would have said.
func lacking(n int, f field) []abyte {
	out := make([]abyte, n)
	for i := range out {
		out[i].idx = f
	}
	return out
}

func saddrBytes(p *Packet, n int) []abyte {
	if p.Saddr.Set {
		return knownBytes(p.Saddr.V.AsSlice())
	}
	out := make([]abyte, n)
	for i := range out {
		out[i] = abyte{kind: kSaddr, mask: 0xff, idx: uint8(16 - n + i)}
	}
	return out
}

func addrBytes(o Opt[netip.Addr], n int) []abyte {
	if o.Set {
		return knownBytes(o.V.AsSlice())
	}
	return lacking(n, fieldDaddr)
}

func optByte(o Opt[uint8], f field) abyte {
	if o.Set {
		return known(o.V)
	}
	return abyte{idx: f}
}

func (p *Packet) layout() *layout {
	l := &layout{l4proto: optByte(p.Proto, fieldProto), hasTrans: true}
	l.link = open(14)
	if p.SrcMAC.Set {
		copy(l.link[6:], knownBytes(p.SrcMAC.V[:]))
	} else {
		copy(l.link[6:], lacking(6, fieldMAC))
	}
	switch p.Family {
	case rs.IPv4:
		l.link[12], l.link[13] = known(0x08), known(0x00)
		l.net = open(20)
		l.net[0] = known(0x45)
		l.net[8] = optByte(p.HopLimit, fieldHopLimit)
		l.net[9] = l.l4proto
		// No fragment: offset and MF are zero, DF may be set.
		l.net[6], l.net[7] = abyte{mask: 0xc0}, known(0)
		copy(l.net[12:], saddrBytes(p, 4))
		copy(l.net[16:], addrBytes(p.Daddr, 4))
	default:
		l.link[12], l.link[13] = known(0x86), known(0xdd)
		l.net = open(40)
		l.net[0] = abyte{kind: kUnknown}
		l.net[7] = optByte(p.HopLimit, fieldHopLimit)
		copy(l.net[8:], saddrBytes(p, 16))
		copy(l.net[24:], addrBytes(p.Daddr, 16))
		next := 6 // where the next header is to be written
		for _, e := range p.Exthdr {
			l.net[next] = known(e.Number)
			next = len(l.net)
			b := open(8)
			if e.Number == 44 {
				switch e.Frag {
				case Atomic:
					b[2], b[3] = known(0), known(0)
				case First:
					b[2], b[3] = known(0), known(1)
				case Later:
					l.fragOffset = true
				}
				b[1] = known(0)
			} else {
				b[1] = known(0)
			}
			if e.Number == 43 {
				b[2] = known(0) // type 0: no other has a word
			}
			copy(b[1:], knownBytes([]byte(e.Data)))
			l.net = append(l.net, b...)
			if l.fragOffset {
				break // what follows is in the first fragment
			}
		}
		l.net[next] = l.l4proto
		off := 40
		for _, e := range p.Exthdr {
			if off+8 > len(l.net) {
				break
			}
			l.ext = append(l.ext, extBytes{e.Number, l.net[off : off+8]})
			off += 8
		}
	}
	l.trans = transport(p)
	if n := len(l.net); p.Raw != nil && p.Saddr.Set && len(p.Raw) >= n {
		l.exact = true
		l.net, l.trans = knownBytes(p.Raw[:n]), knownBytes(p.Raw[n:])
		for i, off := 0, 40; i < len(l.ext); i, off = i+1, off+8 {
			l.ext[i].bytes = l.net[off : off+8]
		}
	}
	if l.fragOffset {
		l.hasTrans = false
	}
	return l
}

// reassembled is the layout after reassembly, without the fragment header; nil when
// the packet is no fragment.
func (p *Packet) reassembled() *layout {
	if !slices.ContainsFunc(p.Exthdr, func(e Ext) bool { return e.Number == 44 }) {
		return nil
	}
	w := *p
	w.Exthdr = slices.DeleteFunc(slices.Clone(p.Exthdr), func(e Ext) bool { return e.Number == 44 })
	w.Raw = p.unfragmented()
	return w.layout()
}

// unfragmented is Raw without the header of an atomic fragment; of other fragments
// the whole is not known.
func (p *Packet) unfragmented() []byte {
	next := 6
	for i, e := range p.Exthdr {
		at := 40 + 8*i
		if len(p.Raw) < at+8 || e.Number == 44 && e.Frag != Atomic {
			return nil
		}
		if e.Number != 44 {
			next = at
			continue
		}
		b := slices.Concat(p.Raw[:at], p.Raw[at+8:])
		b[next] = p.Raw[at]
		binary.BigEndian.PutUint16(b[4:], binary.BigEndian.Uint16(b[4:])-8)
		return b
	}
	return nil
}

// atomic tells that the packet is a fragment that is the whole.
func (q *question) atomic() bool {
	return !slices.ContainsFunc(q.p.Exthdr, func(e Ext) bool { return e.Number == 44 && e.Frag != Atomic })
}

func transport(p *Packet) []abyte {
	if !p.Proto.Set {
		return lacking(20, fieldProto)
	}
	// What follows the shortest header may not be there.
	t := open(map[uint8]int{6: 20, 17: 8, 132: 12, 136: 8, 33: 12, 1: 8, 58: 8}[p.Proto.V])
	switch p.Proto.V {
	case 6, 17, 132, 136, 33:
		if p.Sport.From == p.Sport.To {
			copy(t, knownBytes(binary.BigEndian.AppendUint16(nil, p.Sport.From)))
		} else {
			t[0] = abyte{kind: kSport, mask: 0xff, idx: 0}
			t[1] = abyte{kind: kSport, mask: 0xff, idx: 1}
		}
		if p.Dport.Set {
			copy(t[2:], knownBytes(binary.BigEndian.AppendUint16(nil, p.Dport.V)))
		} else {
			copy(t[2:], lacking(2, fieldDport))
		}
		if p.Proto.V == 6 {
			t[13] = optByte(p.TCPFlags, fieldTCPFlags)
		}
	case 1, 58:
		t[0], t[1] = optByte(p.ICMPType, fieldICMPType), optByte(p.ICMPCode, fieldICMPCode)
	}
	return t
}

// sources is the set of all addresses of a family.
func sources(is4 bool) packetset.Set {
	return packetset.Set{{To: packetset.Last(is4)}}
}
