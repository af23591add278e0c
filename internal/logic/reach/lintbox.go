package reach

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// A rule as lint sees it is a box: for every field that it tests the values that it
// lets through. Packets are points; a rule is dead when the boxes of earlier rules
// that end a packet's way cover its own. A box that stands for a rule which may be
// dead is never too small, one that covers is never too large.

// boxField is a field of packets, or a property of them, as rules load it.
type boxField struct {
	name  string
	width int // bytes
	// total: it can always be loaded. A field that cannot (no such header) is not
	// covered by all of its values together.
	total bool
	// lasting: no rule can change it.
	lasting bool
	kind    string // what may change it: mark, ct or payload
	all     packetset.Set
}

// boxSide is one field's part of a box.
type boxSide struct {
	field int
	in    packetset.Set
}

// box is sorted by field; a field that is missing may have any value or none.
type box []boxSide

func (b box) get(f int) (packetset.Set, bool) {
	for _, s := range b {
		if s.field == f {
			return s.in, true
		}
	}
	return nil, false
}

// with is the box cut down to some values of a field.
func (b box) with(f int, in packetset.Set) box {
	for i, s := range b {
		switch {
		case s.field == f:
			out := slices.Clone(b)
			out[i].in = s.in.Intersect(in)
			return out
		case s.field > f:
			return slices.Insert(slices.Clone(b), i, boxSide{f, in})
		}
	}
	return append(slices.Clone(b), boxSide{f, in})
}

func (b box) empty() bool {
	return slices.ContainsFunc(b, func(s boxSide) bool { return len(s.in) == 0 })
}

// boxFields gives fields numbers.
type boxFields struct {
	order appendOrder
	ids   map[string]int
	metas map[uint32]int
	loads map[rs.Payload]int // without their register
	list  []boxField
	regs  map[rs.Reg]loaded // of the rule that is being read
}

func newBoxFields(order appendOrder) *boxFields {
	return &boxFields{order: order, ids: map[string]int{}, metas: map[uint32]int{}, loads: map[rs.Payload]int{}, regs: map[rs.Reg]loaded{}}
}

func (x *boxFields) id(name string, width int) int {
	if i, ok := x.ids[name]; ok {
		return i
	}
	x.ids[name] = len(x.list)
	x.list = append(x.list, boxField{name: name, width: width, all: wholeField(width)})
	return len(x.list) - 1
}

func wholeField(width int) packetset.Set {
	return packetset.Set{{To: packetset.FromBytes(bytes.Repeat([]byte{0xff}, min(width, 16)))}}
}

// meta is the field of a meta key; ok is false for those that are not tested here.
func (x *boxFields) meta(key uint32) (int, bool) {
	if i, ok := x.metas[key]; ok {
		return i, true
	}
	width := map[uint32]int{
		metaProtocol: 2, metaMark: 4, metaIIF: 4, metaOIF: 4, metaIIFName: 16, metaOIFName: 16, metaIIFType: 2, metaOIFType: 2,
		metaNFProto: 1, metaL4Proto: 1, metaPktType: 1, metaSKUID: 4, metaSKGID: 4, metaLen: 4,
	}[key]
	if width == 0 {
		return 0, false
	}
	i := x.id(fmt.Sprintf("meta %d", key), width)
	x.metas[key] = i
	f := &x.list[i]
	switch key {
	case metaNFProto:
		f.total, f.lasting = true, true
		f.all = points(uint64(rs.IPv4), uint64(rs.IPv6))
	case metaIIF, metaOIF, metaIIFName, metaOIFName:
		f.total, f.lasting = true, true
	case metaProtocol, metaL4Proto, metaIIFType, metaOIFType, metaSKUID, metaSKGID:
		f.lasting = true
	case metaMark:
		f.total, f.kind = true, "mark"
	case metaPktType:
		f.total, f.kind = true, "mark" // meta pkttype set
	case metaLen:
		f.total, f.kind = true, "payload"
	}
	return i, true
}

func (x *boxFields) ctState() int {
	i, ok := x.ids["ct state"]
	if ok {
		return i
	}
	i = x.id("ct state", 4)
	f := &x.list[i]
	f.total, f.kind = true, "ct"
	f.all = points(CtInvalid, CtEstablished, CtRelated, CtNew, CtUntracked)
	return i
}

// points is a set of single numbers.
func points(ns ...uint64) packetset.Set {
	var ivs []packetset.Interval
	for _, n := range ns {
		a := packetset.Addr{Lo: n}
		ivs = append(ivs, packetset.Interval{From: a, To: a})
	}
	return packetset.Normalise(ivs)
}

func (x *boxFields) not(f int, s packetset.Set) packetset.Set {
	return s.Complement(false).Intersect(x.list[f].all)
}

// loaded is what a register holds: the leading bytes of a field, perhaps masked.
type loaded struct {
	field int
	n     int // bytes
	mask  []byte
	ct    bool
}

// maxPieces bounds what is left of a box while others are cut out of it.
const maxPieces = 48

// minus is what of b is not in e. whole is true when nothing can be cut out.
func (x *boxFields) minus(b, e box) (left []box, touched bool) {
	type cut struct {
		field    int
		in, rest packetset.Set
	}
	var cuts []cut
	i := 0
	for _, side := range e {
		for i < len(b) && b[i].field < side.field {
			i++
		}
		var have packetset.Set
		if i < len(b) && b[i].field == side.field {
			have = b[i].in
		} else {
			f := &x.list[side.field]
			if !f.total {
				return []box{b}, false // it may not be there at all
			}
			have = f.all
		}
		if !have.Meets(side.in) {
			return []box{b}, false
		}
		if in := have.Intersect(side.in); !slices.Equal(in, have) {
			cuts = append(cuts, cut{side.field, in, x.not(side.field, in).Intersect(have)})
		}
	}
	rest := b
	for _, c := range cuts {
		left = append(left, rest.with(c.field, c.rest))
		rest = rest.with(c.field, c.in)
	}
	return left, true
}

// inside tells that every packet of b is in e.
func (x *boxFields) inside(b, e box) bool {
	left, touched := x.minus(b, e)
	return touched && len(left) == 0
}
