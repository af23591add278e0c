package reach

import (
	"bytes"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// cond is for which sources a condition holds: surely in yes, possibly in may.
// may always contains yes. nil means every source, an empty non-nil set none.
type cond struct {
	yes, may packetset.Set
	yesAll   bool
	mayAll   bool
}

var (
	always  = cond{yesAll: true, mayAll: true}
	never   = cond{}
	perhaps = cond{mayAll: true}
)

func constant(b bool) cond {
	if b {
		return always
	}
	return never
}

func (c cond) impossible() bool { return !c.mayAll && len(c.may) == 0 }

func (c cond) certain() bool { return c.yesAll }

// not is the condition's negation.
func (c cond) not(is4 bool) cond {
	yes, yesAll := complement(c.may, c.mayAll, is4)
	may, mayAll := complement(c.yes, c.yesAll, is4)
	return cond{yes: yes, yesAll: yesAll, may: may, mayAll: mayAll}
}

func complement(s packetset.Set, all, is4 bool) (packetset.Set, bool) {
	switch {
	case all:
		return nil, false
	case len(s) == 0:
		return nil, true
	}
	return s.Complement(is4), false
}

// and is both conditions.
func (c cond) and(o cond) cond {
	var out cond
	out.yes, out.yesAll = intersect(c.yes, c.yesAll, o.yes, o.yesAll)
	out.may, out.mayAll = intersect(c.may, c.mayAll, o.may, o.mayAll)
	return out
}

func intersect(a packetset.Set, aAll bool, b packetset.Set, bAll bool) (packetset.Set, bool) {
	switch {
	case aAll && bAll:
		return nil, true
	case aAll:
		return b, false
	case bAll:
		return a, false
	}
	return a.Intersect(b), false
}

// or is either condition.
func (c cond) or(o cond) cond {
	var out cond
	out.yes, out.yesAll = joined(c.yes, c.yesAll, o.yes, o.yesAll)
	out.may, out.mayAll = joined(c.may, c.mayAll, o.may, o.mayAll)
	return out
}

func joined(a packetset.Set, aAll bool, b packetset.Set, bAll bool) (packetset.Set, bool) {
	if aAll || bAll {
		return nil, true
	}
	if len(a) == 0 {
		return b, false
	}
	if len(b) == 0 {
		return a, false
	}
	return packetset.Normalise(append(append([]packetset.Interval(nil), a...), b...)), false
}

// within answers from <= value <= to for bytes in network order.
func within(v []abyte, from, to []byte, q *question) cond {
	n := min(len(v), len(from), len(to))
	if n == 0 {
		return perhaps
	}
	v, from, to = v[:n], from[:n], to[:n]
	// A common prefix of the bounds is an equality; what is left decides.
	k := 0
	for k < n && from[k] == to[k] {
		k++
	}
	out := always
	if k > 0 {
		out = equal(v[:k], from[:k], q)
	}
	if k == n || out.impossible() {
		return out
	}
	v, from, to = v[k:], from[k:], to[k:]
	if allZero(from) && allOnes(to) {
		return out
	}
	if c, ok := constantBytes(v); ok {
		return out.and(constant(bytes.Compare(c, from) >= 0 && bytes.Compare(c, to) <= 0))
	}
	switch v[0].kind {
	case kSaddr:
		// Contiguous whole bytes of the address, from some byte on: with the bytes
		// before it fixed by an equality this is one interval per fixed prefix;
		// alone it is one only from the first byte.
		first := q.firstByte()
		if whole(v, kSaddr) && int(v[0].idx) == first {
			return out.and(interval(from, to, first, q))
		}
		if whole(v, kSaddr) && k > 0 && int(v[0].idx)-k == first && len(out.yes) == 1 && !out.mayAll {
			lo := append(append([]byte(nil), prefixBytes(out.yes[0].From, first, k)...), from...)
			hi := append(append([]byte(nil), prefixBytes(out.yes[0].From, first, k)...), to...)
			return interval(lo, hi, first, q)
		}
	case kSport:
		if whole(v, kSport) && v[0].idx == 0 && len(v) == 2 {
			lo, hi := int(from[0])<<8|int(from[1]), int(to[0])<<8|int(to[1])
			a, b := int(q.p.Sport.From), int(q.p.Sport.To)
			switch {
			case lo <= a && b <= hi:
				return out
			case b < lo || hi < a:
				return never
			}
		}
	}
	q.lack(v)
	// A known first byte outside the bounds decides.
	if v[0].kind == kConst && (v[0].val < from[0] || v[0].val > to[0]) {
		return never
	}
	if v[0].kind == kConst && v[0].val > from[0] && v[0].val < to[0] {
		return out
	}
	return out.and(perhaps)
}

func prefixBytes(a packetset.Addr, first, k int) []byte {
	ip := a.IP(first == 12).AsSlice()
	return ip[:k]
}

func interval(from, to []byte, first int, q *question) cond {
	size := 16 - first
	lo, hi := make([]byte, size), bytes.Repeat([]byte{0xff}, size)
	copy(lo, from)
	copy(hi, to)
	s := packetset.Normalise([]packetset.Interval{{From: packetset.FromBytes(lo), To: packetset.FromBytes(hi)}})
	return cond{yes: s, may: s}
}

func whole(v []abyte, k kind) bool {
	for i, b := range v {
		if b.kind != k || b.mask != 0xff || b.val != 0 || int(b.idx) != int(v[0].idx)+i {
			return false
		}
	}
	return true
}

func allZero(b []byte) bool { return bytes.Count(b, []byte{0}) == len(b) }
func allOnes(b []byte) bool { return bytes.Count(b, []byte{0xff}) == len(b) }

func constantBytes(v []abyte) ([]byte, bool) {
	out := make([]byte, len(v))
	for i, b := range v {
		if b.kind != kConst {
			return nil, false
		}
		out[i] = b.val
	}
	return out, true
}

// equal answers value == data.
func equal(v []abyte, data []byte, q *question) cond {
	n := min(len(v), len(data))
	var mask, want [16]byte
	saddr, unknown := false, false
	sport, choice := 0, -1
	for i := range n {
		b := v[i]
		switch b.kind {
		case kConst:
			if b.val != data[i] {
				return never
			}
		case kSaddr:
			w := data[i] ^ b.val
			if w&^b.mask != 0 {
				return never // a bit that the mask clears cannot be set
			}
			if (want[b.idx]^w)&mask[b.idx]&b.mask != 0 {
				return never
			}
			mask[b.idx] |= b.mask
			want[b.idx] |= w
			saddr = true
		case kSport:
			sport++
			unknown = true
		case kChoice:
			choice = int(b.val)
		default:
			if b.mask != 0 && (b.val^data[i])&^b.mask != 0 {
				return never // a bit that is known
			}
			unknown = true
		}
	}
	out := always
	if choice >= 0 {
		out = q.chosen(choice, v[:n], func(c []abyte) cond { return equal(c, data, q) })
	}
	if saddr {
		out = out.and(masked(mask, want, q))
	}
	if sport == 2 {
		if c, ok := sportEquals(v[:n], data[:n], q); ok {
			unknown = hasUnknown(v[:n])
			if !c.certain() && !c.impossible() {
				q.needs |= 1 << fieldSport
			}
			out = out.and(c)
		}
	}
	if unknown {
		q.lack(v[:n])
		out = out.and(perhaps)
	}
	return out
}

// lack notes the open fields that an answer would have needed.
func (q *question) lack(v []abyte) {
	for _, b := range v {
		switch b.kind {
		case kUnknown:
			q.needs |= 1 << b.idx
			if b.idx == fieldNone {
				q.opaque[unfixedField] = true
			}
		case kSport:
			q.needs |= 1 << fieldSport
		case kSaddr:
			q.opaque["a part of the source address"] = true
		}
	}
}

func hasUnknown(v []abyte) bool {
	for _, b := range v {
		if b.kind == kUnknown {
			return true
		}
	}
	return false
}

// sportEquals answers for an unmasked source port.
func sportEquals(v []abyte, data []byte, q *question) (cond, bool) {
	var port, seen int
	for i, b := range v {
		if b.kind == kSport {
			if b.mask != 0xff || b.val != 0 {
				return cond{}, false
			}
			port |= int(data[i]) << (8 * (1 - int(b.idx)))
			seen |= 1 << b.idx
		}
	}
	if seen != 3 {
		return cond{}, false
	}
	a, b := int(q.p.Sport.From), int(q.p.Sport.To)
	switch {
	case port < a || port > b:
		return never, true
	case a == b:
		return always, true
	}
	q.needs |= 1 << fieldSport
	return perhaps, true
}

// maxMaskIntervals bounds the intervals that a mask which is no prefix is spelled out as.
const maxMaskIntervals = 256

// masked is the set of sources with (saddr & mask) == want. A mask that is a
// prefix is one interval; others are a power of two of them, or bounded by their
// leading bits.
func masked(mask, want [16]byte, q *question) cond {
	first := q.firstByte()
	// Free bits above the lowest fixed one tell the number of intervals.
	lowest, total := -1, (16-first)*8
	fixed := func(bit int) bool { return mask[first+bit/8]>>(7-bit%8)&1 != 0 }
	for bit := range total {
		if fixed(bit) {
			lowest = bit
		}
	}
	var free []int
	for bit := range lowest + 1 {
		if !fixed(bit) {
			free = append(free, bit)
		}
	}
	spelled, exact := free, true
	for len(spelled) > 0 && 1<<min(len(spelled), 30) > maxMaskIntervals {
		spelled, exact = spelled[:0], false // only the bits before the first free one
	}
	last := lowest
	if !exact {
		last = free[0] - 1
		q.opaque["mask over the source address that is no prefix"] = true
	}
	var ivs []packetset.Interval
	for v := range 1 << len(spelled) {
		lo, hi := make([]byte, total/8), make([]byte, total/8)
		for i := range lo {
			lo[i] = want[first+i] & mask[first+i]
			hi[i] = lo[i]
		}
		for i, bit := range spelled {
			if v>>i&1 != 0 {
				lo[bit/8] |= 0x80 >> (bit % 8)
				hi[bit/8] |= 0x80 >> (bit % 8)
			}
		}
		for bit := last + 1; bit < total; bit++ {
			lo[bit/8] &^= 0x80 >> (bit % 8)
			hi[bit/8] |= 0x80 >> (bit % 8)
		}
		ivs = append(ivs, packetset.Interval{From: packetset.FromBytes(lo), To: packetset.FromBytes(hi)})
	}
	s := packetset.Normalise(ivs)
	if exact {
		return cond{yes: s, may: s}
	}
	return cond{may: s}
}

// compare answers value OP data.
func compare(v []abyte, op rs.Op, data []byte, q *question) cond {
	is4 := q.is4()
	switch op {
	case rs.Eq:
		return equal(v, data, q)
	case rs.Neq:
		return equal(v, data, q).not(is4)
	}
	zero, ones := make([]byte, len(data)), bytes.Repeat([]byte{0xff}, len(data))
	switch op {
	case rs.Lte:
		return within(v, zero, data, q)
	case rs.Gte:
		return within(v, data, ones, q)
	case rs.Gt:
		return within(v, zero, data, q).not(is4)
	default:
		return within(v, data, ones, q).not(is4)
	}
}

// alternative is one value that a load may have given, and for which sources.
type alternative struct {
	cond cond
	data []byte
}

// chosen asks f about every alternative of a choice: bytes of other choices are unknown.
func (q *question) chosen(id int, v []abyte, f func([]abyte) cond) cond {
	out := never
	for _, alt := range q.choices[id] {
		c := make([]abyte, len(v))
		for i, b := range v {
			switch {
			case b.kind == kChoice && int(b.val) == id && int(b.idx) < len(alt.data):
				c[i] = known(alt.data[b.idx])
			case b.kind == kChoice:
				// another choice, or past its end: unknown
			default:
				c[i] = b
			}
		}
		out = out.or(alt.cond.and(f(c)))
	}
	return out
}

// choose stores a choice and returns its bytes.
func (q *question) choose(alts []alternative) []abyte {
	if len(alts) == 0 || len(q.choices) > 250 {
		return open(16)
	}
	n := len(alts[0].data)
	id := len(q.choices)
	q.choices = append(q.choices, alts)
	out := make([]abyte, n)
	for i := range out {
		out[i] = abyte{kind: kChoice, val: uint8(id), idx: uint8(i)}
	}
	return out
}

// union collects conditions of which one is enough, to join them once: a set may have
// a million elements.
type union struct {
	yes, may       []packetset.Interval
	yesAll, mayAll bool
}

func (u *union) add(c cond) {
	u.yesAll, u.mayAll = u.yesAll || c.yesAll, u.mayAll || c.mayAll
	u.yes, u.may = append(u.yes, c.yes...), append(u.may, c.may...)
}

func (u *union) cond() cond {
	out := cond{yesAll: u.yesAll, mayAll: u.mayAll}
	if !u.yesAll {
		out.yes = packetset.Normalise(u.yes)
	}
	if !u.mayAll {
		out.may = packetset.Normalise(u.may)
	}
	return out
}
