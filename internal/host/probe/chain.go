package probe

import (
	"encoding/binary"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// Numbers of headers that only chains have, and of options: those for experiments (RFC 4727,
// RFC 3692), of which the first two bits say what is to be done by who does not know them.
const (
	hdrNone    = 59
	hdrUnknown = 253
	optSkip    = 0x1e // pass over it
	optRefuse  = 0x9e // drop, and say so
)

// header is an extension header. Its first byte is written when it is known what follows.
type header struct {
	kind uint8
	body []byte
}

// options is a header of options, of that many bytes in all.
func options(kind uint8, size int, option uint8) header {
	b := make([]byte, size)
	b[1] = uint8(size/8 - 1)
	for at := 2; at < size; {
		n := min(size-at-2, 255)
		if rest := size - at - 2 - n; rest == 1 { // one byte is no option
			n--
		}
		b[at], b[at+1] = option, uint8(n)
		at += 2 + n
	}
	return header{kind, b}
}

// padding is the smallest header of options.
func padding(kind uint8) header { return header{kind, []byte{0, 0, 1, 4, 0, 0, 0, 0}} }

// fragment is a fragment header.
func fragment(offset int, more bool, id uint32) header {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b[2:], uint16(offset))
	if more {
		b[3] |= 1
	}
	binary.BigEndian.PutUint32(b[4:], id)
	return header{hdrFragment, b}
}

// routing is a routing header whose one segment is the target: who goes the way that it asks
// for does not leave it.
func (f *flow) routing(kind, left uint8) header {
	b := make([]byte, 24)
	b[1], b[2], b[3] = 2, kind, left
	dst := f.dst.As16()
	copy(b[8:], dst[:])
	return header{hdrRouting, b}
}

// join puts headers before what follows, and says how it begins.
func join(hs []header, proto uint8, seg []byte) (first uint8, out []byte) {
	for i, h := range hs {
		next := proto
		if i+1 < len(hs) {
			next = hs[i+1].kind
		}
		at := len(out)
		out = append(out, h.body...)
		out[at] = next
	}
	out = append(out, seg...)
	if len(hs) == 0 {
		return proto, out
	}
	return hs[0].kind, out
}

func (f *flow) stack(proto uint8, seg []byte, hs ...header) []byte {
	first, body := join(hs, proto, seg)
	return f.header6(first, nil, 0, body)
}

// piece is a part of something that is cut: from, to.
type piece [2]int

// cuts are the fragments of so many bytes.
func cuts(n, at int) []piece { return []piece{{0, at}, {at, n}} }

// chain puts a segment into the packets of a chain.
func (f *flow) chain(v model.Variant, seg []byte, id uint32) [][]byte {
	if f.is4() {
		return f.chain4(v, seg, uint16(id))
	}
	one := func(p []byte) [][]byte { return [][]byte{p} }
	whole := cuts(len(seg), split(seg))
	switch v {
	case model.HopByHop:
		return one(f.stack(f.proto, seg, padding(hdrHop)))
	case "hop-256":
		return one(f.stack(f.proto, seg, options(hdrHop, 256, optSkip)))
	case model.DestOpts:
		return one(f.stack(f.proto, seg, padding(hdrDst)))
	case "dst-256":
		return one(f.stack(f.proto, seg, options(hdrDst, 256, optSkip)))
	case "dst-512":
		return one(f.stack(f.proto, seg, options(hdrDst, 512, optSkip)))
	case "dst-3":
		return one(f.stack(f.proto, seg, padding(hdrDst), padding(hdrDst), padding(hdrDst)))
	case "dst-frag":
		return f.fragments(f.proto, seg, whole, id, padding(hdrDst))
	case "frag-dst":
		first, inner := join([]header{padding(hdrDst)}, f.proto, seg)
		return f.fragments(first, inner, cuts(len(inner), split(inner)), id)
	case model.Fragments:
		return f.fragments(f.proto, seg, whole, id)
	case "frag-rev":
		return f.fragments(f.proto, seg, []piece{whole[1], whole[0]}, id)
	case model.Atomic:
		return one(f.stack(f.proto, seg, fragment(0, false, id)))
	case "frag-atomic-2":
		return one(f.stack(f.proto, seg, fragment(0, false, id), fragment(0, false, id+1)))
	case "frag-tiny":
		return f.fragments(f.proto, seg, cuts(len(seg), 8), id)
	case "frag-late":
		first, inner := join([]header{padding(hdrDst)}, f.proto, seg)
		return f.fragments(first, inner, cuts(len(inner), 8), id)
	case "frag-overlap":
		return f.fragments(f.proto, seg, []piece{whole[0], {whole[1][0] - 8, len(seg)}}, id)
	case "rh0":
		return one(f.stack(f.proto, seg, f.routing(0, 0)))
	case "rh0-1":
		return one(f.stack(f.proto, seg, f.routing(0, 1)))
	case "rh4":
		return one(f.stack(f.proto, seg, f.routing(4, 0)))
	case "rh4-1":
		return one(f.stack(f.proto, seg, f.routing(4, 1)))
	case "none":
		return one(f.stack(hdrNone, seg))
	case "unknown":
		return one(f.stack(hdrUnknown, seg))
	case "opt-unknown":
		return one(f.stack(f.proto, seg, options(hdrDst, 8, optRefuse)))
	}
	return f.near(v, f.stack(f.proto, seg))
}

// near gives a packet the hop limit that its chain calls for.
func (f *flow) near(v model.Variant, p []byte) [][]byte {
	if v == model.Near {
		limit(p, 255)
	}
	return [][]byte{p}
}

// fragments cuts what can be cut, behind headers that stand in each fragment.
func (f *flow) fragments(first uint8, inner []byte, parts []piece, id uint32, outer ...header) (out [][]byte) {
	for _, p := range parts {
		hs := append(outer[:len(outer):len(outer)], fragment(p[0], p[1] < len(inner), id))
		out = append(out, f.stack(first, inner[p[0]:p[1]], hs...))
	}
	return out
}

// Options of IPv4, each filled up to words of four bytes.
func (f *flow) chain4(v model.Variant, seg []byte, id uint16) (out [][]byte) {
	whole := cuts(len(seg), split(seg))
	pieces := func(parts ...piece) [][]byte {
		for _, p := range parts {
			off := uint16(p[0] / 8)
			if p[1] < len(seg) {
				off |= moreFragments
			}
			out = append(out, f.header4(nil, seg[p[0]:p[1]], off, id))
		}
		return out
	}
	with := func(options ...byte) [][]byte {
		for len(options)%4 != 0 {
			options = append(options, 0)
		}
		return [][]byte{f.header4(options, seg, dontFragment, id)}
	}
	switch v {
	case model.Fragments:
		return pieces(whole...)
	case "frag-rev":
		return pieces(whole[1], whole[0])
	case "frag-tiny":
		return pieces(cuts(len(seg), 8)...)
	case "frag-overlap":
		return pieces(whole[0], piece{whole[1][0] - 8, len(seg)})
	case "opt-nop":
		return with(1, 1, 1, 1)
	case "opt-rr":
		return with(append([]byte{7, 15, 4}, make([]byte, 12)...)...)
	case "opt-ts":
		return with(append([]byte{68, 12, 5, 0}, make([]byte, 8)...)...)
	case "opt-lsrr": // the next, and last, is the target itself
		dst := f.dst.As4()
		return with(append([]byte{131, 7, 4}, dst[:]...)...)
	}
	return f.near(v, f.header4(nil, seg, dontFragment, id))
}

// limit sets the hop limit of a packet.
func limit(p []byte, n uint8) {
	if p[0]>>4 == 6 {
		p[7] = n
		return
	}
	p[8] = n
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], ^fold(add(0, p[:int(p[0]&15)*4])))
}
