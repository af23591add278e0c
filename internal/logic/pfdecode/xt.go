package pfdecode

import (
	"encoding/binary"
	"slices"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Extensions of x_tables (matches and targets) are C structures, told apart by
// name and revision. They come as "match" and "target" expressions of nf_tables
// (iptables-nft) or within legacy tables. One that can be said exactly in the
// expressions of the IR is lowered to them; every other becomes Opaque.

// extension is a match or a target.
type extension struct {
	name     string
	revision uint32
}

// xtable is what lowering depends on besides the structure itself.
type xtable struct {
	order  binary.ByteOrder
	family rs.Family
	table  *rs.Table
	sets   *IPSets
}

// blob reads a structure of the host's byte order. A read beyond its end makes it bad.
type blob struct {
	b     []byte
	order binary.ByteOrder
	bad   bool
}

func (i *blob) bytes(off, n int) []byte {
	if off+n > len(i.b) {
		i.bad = true
		return make([]byte, n)
	}
	return i.b[off : off+n]
}

func (i *blob) u8(off int) uint8   { return i.bytes(off, 1)[0] }
func (i *blob) u16(off int) uint16 { return i.order.Uint16(i.bytes(off, 2)) }
func (i *blob) u32(off int) uint32 { return i.order.Uint32(i.bytes(off, 4)) }

// lower says a match or target in expressions of the IR.
type lower func(x *xtable, i *blob) []rs.Expr

func (x *xtable) match(name string, rev uint32, info []byte) []rs.Expr {
	if e := x.apply(matches, name, rev, info); e != nil {
		return e
	}
	// A match never ends the packet's way, but it may have changed the mark
	// (socket --restore-skmark).
	return append([]rs.Expr{rs.Opaque{Name: "match " + name, Data: info}}, x.marked(name == "socket")...)
}

func (x *xtable) target(name string, rev uint32, info []byte) []rs.Expr {
	if e := x.apply(targets, name, rev, info); e != nil {
		return e
	}
	return append([]rs.Expr{rs.Opaque{Name: "target " + name, Data: info, Ends: true}}, x.marked(true)...)
}

// marked is a mark that is not known any more. It follows an Opaque, which leaves
// nothing known in the registers.
func (x *xtable) marked(yes bool) []rs.Expr {
	if !yes {
		return nil
	}
	return []rs.Expr{rs.MetaSet{Sreg: scratch, Key: metaMark}}
}

func (x *xtable) apply(list map[extension]lower, name string, rev uint32, info []byte) []rs.Expr {
	f := list[extension{name, rev}]
	if f == nil || !x.inet() && !anyFamily[name] {
		return nil
	}
	i := &blob{b: info, order: x.order}
	e := f(x, i)
	if i.bad {
		return nil
	}
	return e
}

// anyFamily are the extensions that mean the same wherever they are. Bridges have
// extensions of their own, some under the same names.
var anyFamily = map[string]bool{"comment": true, "MARK": true, "CLASSIFY": true}

func (x *xtable) is4() bool { return x.family == rs.IPv4 }

// inet says that the packets of the table are IPv4 or IPv6 and which of them.
func (x *xtable) inet() bool { return x.family == rs.IPv4 || x.family == rs.IPv6 }

// scratch is a register that no rule of nf_tables can name: what a native
// expression loaded before a match is still there after it.
const scratch rs.Reg = 16

// NFT_META_* and NFT_CT_* (include/uapi/linux/netfilter/nf_tables.h).
const (
	metaMark     = 3
	metaIIFName  = 6
	metaOIFName  = 7
	metaIIFType  = 8
	metaSKUID    = 10
	metaSKGID    = 11
	metaL4Proto  = 16
	metaPktType  = 19
	metaIIFGroup = 21
	metaOIFGroup = 22

	ctState     = 0
	ctDirection = 1
	ctStatus    = 2
	ctMark      = 3
	ctProtocol  = 10
	ctProtoSrc  = 11
	ctProtoDst  = 12
	ctSrcIP     = 19
	ctDstIP     = 20
	ctSrcIP6    = 21
	ctDstIP6    = 22
)

func net(off, n int) rs.Expr {
	return rs.Payload{Dreg: scratch, Base: rs.NetworkHeader, Offset: uint32(off), Len: uint32(n)}
}

func trans(off, n int) rs.Expr {
	return rs.Payload{Dreg: scratch, Base: rs.TransportHeader, Offset: uint32(off), Len: uint32(n), Checked: true}
}

func meta32(key uint32) rs.Expr { return rs.Meta{Dreg: scratch, Key: key} }

func op(invert bool) rs.Op {
	if invert {
		return rs.Neq
	}
	return rs.Eq
}

func is(data []byte, invert bool) rs.Expr { return rs.Cmp{Sreg: scratch, Op: op(invert), Data: data} }

func and(mask []byte) rs.Expr {
	return rs.Bitwise{Sreg: scratch, Dreg: scratch, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func (x *xtable) host32(v uint32) []byte {
	b := make([]byte, 4)
	x.order.PutUint32(b, v)
	return b
}

func (x *xtable) host16(v uint16) []byte {
	b := make([]byte, 2)
	x.order.PutUint16(b, v)
	return b
}

func between(from, to []byte, invert bool) rs.Expr {
	return rs.Range{Sreg: scratch, From: from, To: to, Invert: invert}
}

// ports16 is from <= port <= to, which matches nothing when from > to.
func ports16(from, to uint16, invert bool) []rs.Expr {
	switch {
	case from > to && invert, from == 0 && to == 0xffff && !invert:
		return nil
	case from > to, from == 0 && to == 0xffff:
		return []rs.Expr{broken}
	case from == to:
		return []rs.Expr{is(be16(from), invert)}
	}
	return []rs.Expr{between(be16(from), be16(to), invert)}
}

// broken matches nothing.
var broken = rs.Conclude{Verdict: rs.Break}

// always is a match that is always true; an empty list would mean "not understood".
func always(name string) []rs.Expr { return []rs.Expr{rs.Nothing{Name: name}} }

// matched makes a list of conditions a result, also when it is empty.
func matched(name string, e []rs.Expr) []rs.Expr {
	if len(e) == 0 {
		return always(name)
	}
	return e
}

// masked is (value & mask) == want for a value in the scratch register.
func masked(load rs.Expr, want, mask []byte, invert bool) []rs.Expr {
	if slices.ContainsFunc(mask, func(b byte) bool { return b != 0xff }) {
		return []rs.Expr{load, and(mask), is(want, invert)}
	}
	return []rs.Expr{load, is(want, invert)}
}

// addr loads the source or destination address.
func (x *xtable) addr(dst bool) rs.Expr {
	switch {
	case x.is4() && dst:
		return net(16, 4)
	case x.is4():
		return net(12, 4)
	case dst:
		return net(24, 16)
	}
	return net(8, 16)
}

func (x *xtable) addrLen() int {
	if x.is4() {
		return 4
	}
	return 16
}

// compat lowers a "match" or "target" expression of nf_tables.
func compat(target bool) func(*decoder, *reader) []rs.Expr {
	return func(d *decoder, r *reader) []rs.Expr {
		name, rev := r.a.str(1), r.u32(2)
		d.compat = true
		if name == "" || r.err != nil || d.current == nil {
			return nil
		}
		x := &xtable{order: d.order, family: d.current.Family, table: d.current, sets: d.ipsets}
		info := d.keeper.keep(r.a[3])
		d.lower.Lock() // a match of a set adds it to the table
		defer d.lower.Unlock()
		if target {
			return x.target(name, rev, info)
		}
		if name == "comment" {
			d.comment = cstring(info)
		}
		return x.match(name, rev, info)
	}
}
