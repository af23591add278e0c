package reach

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// branch is one way in which a rule ends: a verdict for the packets of a box.
type branch struct {
	box     box
	verdict rs.Verdict
	chain   string // of jump and goto
}

// shape is a rule as boxes.
type shape struct {
	// seen holds every packet for which the rule does anything: matches, or comes to
	// a statement with an effect.
	seen     box
	branches []branch
	exact    bool // branches are no larger than what the rule really does
	limited  bool // it may also not match
	reject   bool
	nat      bool
	effects  bool // it writes something
	log      bool
	hot      []hotDrop
	fields   []int // what it tests
	named    bool  // it asks a set that has a name
}

// hotDrop is a drop in the middle of a rule, and for which packets it is asked.
type hotDrop struct {
	text string
	box  box
}

func (s *shape) ends(v rs.Verdict) bool {
	return slices.ContainsFunc(s.branches, func(b branch) bool { return b.verdict == v })
}

func (s *shape) tests(f int) bool { return slices.Contains(s.fields, f) }

// shaper reads one rule.
type shaper struct {
	x       *boxFields
	r       *rs.Rule
	dynamic map[*rs.Set]bool
	s       *shape
	box     box
	regs    map[rs.Reg]loaded
	done    bool
}

// shapeOf reads a rule within a context that holds for all packets of its chain.
func (x *boxFields) shapeOf(r *rs.Rule, context box, dynamic map[*rs.Set]bool) shape {
	out := shape{exact: true}
	clear(x.regs)
	w := shaper{x: x, r: r, dynamic: dynamic, s: &out, box: context, regs: x.regs}
	for _, e := range r.Exprs {
		if w.done {
			break
		}
		w.expr(e)
	}
	w.derive()
	if out.seen == nil {
		out.seen = w.box
		if out.seen == nil {
			out.seen = box{}
		}
	}
	for i := range out.branches {
		out.branches[i].box = w.meet(out.branches[i].box)
	}
	return out
}

// meet is a branch's box with what was derived after it was written down.
func (w *shaper) meet(b box) box {
	for _, s := range w.box {
		if f := &w.x.list[s.field]; f.name == "ct state" {
			b = b.with(s.field, s.in)
		}
	}
	return b
}

func (w *shaper) test(f int, in packetset.Set) {
	w.box = w.box.with(f, in)
	if !w.s.tests(f) {
		w.s.fields = append(w.s.fields, f)
	}
}

// effect notes that the rule does something here, whatever comes after.
func (w *shaper) effect() {
	if w.s.seen == nil {
		w.s.seen = w.box
		if w.s.seen == nil {
			w.s.seen = box{}
		}
	}
	w.s.effects = true
}

// unknown is a test that is not understood: the rule may match less.
func (w *shaper) unknown() { w.s.exact = false }

func (w *shaper) put(r rs.Reg, l loaded) {
	w.clear(r, l.n)
	w.regs[r] = l
}

// clear forgets what a load of n bytes overwrites.
func (w *shaper) clear(r rs.Reg, n int) {
	from, to := int(r)*4, int(r)*4+max(n, 4)
	for o, l := range w.regs {
		if a := int(o) * 4; a < to && a+max(l.n, 1) > from {
			delete(w.regs, o)
		}
	}
}

// load puts a field into a register; whoever comes past it has the field.
func (w *shaper) load(r rs.Reg, field, n int) {
	w.put(r, loaded{field: field, n: n})
	if f := &w.x.list[field]; !f.total {
		w.box = w.box.with(field, f.all)
	}
}

func (w *shaper) only(field int, value uint64) bool {
	s, ok := w.box.get(field)
	return ok && slices.Equal(s, points(value))
}

func (w *shaper) expr(e rs.Expr) {
	if w.s.effects {
		switch e.(type) {
		case rs.Payload, rs.Meta, rs.Ct, rs.Exthdr, rs.Fib, rs.Cmp, rs.Range, rs.Lookup, rs.Bitwise:
			w.unknown() // what was written may be read now
		}
	}
	switch e := e.(type) {
	case rs.Payload:
		w.payload(e)
	case rs.Meta:
		if f, ok := w.x.meta(e.Key); ok {
			w.load(e.Dreg, f, w.x.list[f].width)
		} else {
			w.clear(e.Dreg, 16)
			w.unknown()
		}
	case rs.Ct:
		if e.Key == ctState {
			w.put(e.Dreg, loaded{field: w.x.ctState(), n: 4, ct: true})
		} else {
			f := w.x.id(fmt.Sprintf("ct %d %d", e.Key, e.Dir), 16)
			w.x.list[f].kind = "ct"
			w.load(e.Dreg, f, 16)
		}
	case rs.Exthdr:
		n := int(min(max(e.Len, 1), 16))
		f := w.x.id(fmt.Sprintf("exthdr %d %d %d %d %t", e.Op, e.Type, e.Offset, e.Len, e.Present), n)
		w.x.list[f].kind = "payload"
		w.load(e.Dreg, f, n)
	case rs.Fib:
		f := w.x.id(fmt.Sprintf("fib %d %d", e.Result, e.Flags), 16)
		w.load(e.Dreg, f, 16)
	case rs.Bitwise:
		w.bitwise(e)
	case rs.Byteorder:
		if l, ok := w.regs[e.Sreg]; ok && l.mask == nil && !l.ct {
			w.derived(e.Dreg, l, "swapped")
		} else {
			w.clear(e.Dreg, 16)
		}
	case rs.Immediate:
		w.clear(e.Dreg, len(e.Data))
	case rs.Cmp:
		w.cmp(e)
	case rs.Range:
		w.values(e.Sreg, func(l loaded) (packetset.Set, bool) {
			s, ok := w.span(l, e.From, e.To)
			if ok && e.Invert {
				s = w.x.not(l.field, s)
			}
			return s, ok
		})
	case rs.Lookup:
		w.lookup(e)
	case rs.Any, rs.ExtHeaders:
		w.whole(e)
	case rs.HotDrop:
		w.s.hot = append(w.s.hot, hotDrop{fmt.Sprintf("%#v", e.When), w.box})
	case rs.Nothing:
		if e.Name == "exthdr set" {
			w.effect()
		}
		w.s.log = w.s.log || e.Name == "log" || strings.Contains(e.Name, "LOG")
	case rs.Objref:
		if e.Type != 1 || e.Set != "" { // all but counters
			w.effect()
			w.s.limited = true
		}
	case rs.Limit:
		w.s.limited = true
	case rs.Dynset:
		w.effect()
		w.s.limited = true
	case rs.MetaSet, rs.CtSet, rs.PayloadSet, rs.Notrack:
		w.effect()
	case rs.Conclude:
		switch e.Verdict {
		case rs.Continue:
		case rs.Break:
			w.done = true
		default:
			w.end(w.box, e.Verdict, e.Chain)
			w.done = true
		}
	case rs.Reject:
		w.s.reject = true
		w.end(w.box, rs.Drop, "")
		w.done = true
	case rs.Nat, rs.Redirect, rs.Masquerade:
		w.s.nat = true
		w.effect()
		w.unknown()
		w.end(w.box, rs.Accept, "")
		w.done = true
	default: // Opaque, TProxy, queues, fwd, random numbers …
		w.effect()
		w.unknown()
		clear(w.regs)
	}
}

func (w *shaper) end(b box, v rs.Verdict, chain string) {
	w.s.branches = append(w.s.branches, branch{b, v, chain})
}

func (w *shaper) payload(e rs.Payload) {
	type address struct {
		name     string
		off, len uint32
	}
	var known []address
	if e.Base == rs.NetworkHeader {
		nf, _ := w.x.meta(metaNFProto)
		switch {
		case w.only(nf, uint64(rs.IPv6)):
			known = []address{{"ip6 saddr", 8, 16}, {"ip6 daddr", 24, 16}}
		case w.only(nf, uint64(rs.IPv4)):
			known = []address{{"ip saddr", 12, 4}, {"ip daddr", 16, 4}}
		}
	}
	n := int(e.Len)
	for _, a := range known {
		if e.Offset == a.off && e.Len <= a.len && e.Len > 0 {
			f := w.x.id(a.name, int(a.len))
			w.x.list[f].kind = "payload"
			w.load(e.Dreg, f, n)
			return
		}
	}
	if n == 0 || n > 16 {
		w.clear(e.Dreg, n)
		w.unknown()
		return
	}
	key := e
	key.Dreg = 0
	if f, ok := w.x.loads[key]; ok {
		w.load(e.Dreg, f, n)
		return
	}
	name := fmt.Sprintf("payload %d %d %d", e.Base, e.Offset, n)
	if e.Checked {
		name += " checked"
	}
	f := w.x.id(name, n)
	w.x.loads[key] = f
	w.x.list[f].kind = "payload"
	w.load(e.Dreg, f, n)
}

// derived puts what an operation makes of a field into a register: a field of its own.
func (w *shaper) derived(r rs.Reg, l loaded, how string) {
	from := w.x.list[l.field]
	f := w.x.id(fmt.Sprintf("(%s:%d) %s", from.name, l.n, how), l.n)
	t := &w.x.list[f]
	t.kind, t.lasting = from.kind, from.lasting
	w.load(r, f, l.n)
}

func (w *shaper) bitwise(e rs.Bitwise) {
	l, ok := w.regs[e.Sreg]
	if !ok || e.HasSreg2 || l.mask != nil {
		w.clear(e.Dreg, int(e.Len))
		return
	}
	plain := (e.Op == 0 && allZero(e.Xor) || e.Op == 3) && len(e.Mask) == l.n
	if plain && (l.ct || l.n == 1 || prefixMask(e.Mask)) {
		l.mask = e.Mask
		w.put(e.Dreg, l)
		return
	}
	if l.ct {
		w.clear(e.Dreg, int(e.Len))
		return
	}
	w.derived(e.Dreg, l, fmt.Sprintf("bits %d %x %x %d", e.Op, e.Mask, e.Xor, e.Shift))
}

func prefixMask(m []byte) bool {
	ended := false
	for _, b := range m {
		for i := 7; i >= 0; i-- {
			one := b>>i&1 != 0
			if one && ended {
				return false
			}
			ended = ended || !one
		}
	}
	return true
}

// values cuts the box down to values of the field in a register.
func (w *shaper) values(r rs.Reg, f func(loaded) (packetset.Set, bool)) {
	l, ok := w.regs[r]
	if !ok {
		w.unknown()
		return
	}
	s, ok := f(l)
	if !ok {
		w.unknown()
		return
	}
	w.test(l.field, s)
}

// span is the values whose leading bytes lie between two.
func (w *shaper) span(l loaded, from, to []byte) (packetset.Set, bool) {
	if l.mask != nil || len(from) != len(to) || len(from) > l.n || len(from) == 0 {
		return nil, false
	}
	if l.ct {
		if len(from) != 4 || string(from) != string(to) {
			return nil, false
		}
		return points(uint64(w.x.order.Uint32(from))), true
	}
	width := w.x.list[l.field].width
	lo, hi := make([]byte, width), make([]byte, width)
	copy(lo, from)
	copy(hi, to)
	for i := len(to); i < width; i++ {
		hi[i] = 0xff
	}
	return packetset.Normalise([]packetset.Interval{{From: packetset.FromBytes(lo), To: packetset.FromBytes(hi)}}).Intersect(w.x.list[l.field].all), true
}

func (w *shaper) cmp(e rs.Cmp) {
	w.values(e.Sreg, func(l loaded) (packetset.Set, bool) {
		s, ok := w.equal(l, e.Data)
		switch e.Op {
		case rs.Eq:
			return s, ok
		case rs.Neq:
			return w.x.not(l.field, s), ok
		}
		if l.ct || len(e.Data) != l.n || l.n != w.x.list[l.field].width {
			return nil, false
		}
		zero := make([]byte, len(e.Data))
		ones := make([]byte, len(e.Data))
		for i := range ones {
			ones[i] = 0xff
		}
		switch e.Op {
		case rs.Lte:
			return w.span(l, zero, e.Data)
		case rs.Gte:
			return w.span(l, e.Data, ones)
		case rs.Gt:
			s, ok = w.span(l, zero, e.Data)
		default:
			s, ok = w.span(l, e.Data, ones)
		}
		return w.x.not(l.field, s), ok
	})
}

// equal is the values for which the register, masked, has these bytes.
func (w *shaper) equal(l loaded, data []byte) (packetset.Set, bool) {
	if l.mask == nil {
		return w.span(l, data, data)
	}
	if len(data) != l.n {
		return nil, false
	}
	switch {
	case l.ct:
		mask, want := w.x.order.Uint32(l.mask), w.x.order.Uint32(data)
		var in []uint64
		for _, st := range []uint32{CtInvalid, CtEstablished, CtRelated, CtNew, CtUntracked} {
			if st&mask == want {
				in = append(in, uint64(st))
			}
		}
		return points(in...), true
	case l.n == 1 && w.x.list[l.field].width == 1:
		var in []uint64
		for v := range 256 {
			if byte(v)&l.mask[0] == data[0] {
				in = append(in, uint64(v))
			}
		}
		return points(in...).Intersect(w.x.list[l.field].all), true
	case !prefixMask(l.mask):
		return nil, false
	}
	hi := slices.Clone(data)
	for i := range hi {
		if data[i]&^l.mask[i] != 0 {
			return packetset.Set{}, true // a bit that the mask clears cannot be set
		}
		hi[i] |= ^l.mask[i]
	}
	plain := l
	plain.mask = nil
	return w.span(plain, data, hi)
}

// whole is a test that is compared as a whole: the same one gives the same answer.
func (w *shaper) whole(e rs.Expr) {
	for _, in := range flat([]rs.Expr{e}) {
		switch in := in.(type) {
		case rs.Limit, rs.Opaque, rs.Random, rs.Dynset, rs.Objref, rs.Socket, rs.Rt:
			w.unknown()
			return
		case rs.Lookup:
			if s := w.r.Chain.Table.Sets[in.Set]; s == nil || w.dynamic[s] || s.Dynamic {
				w.unknown()
				return
			}
		}
	}
	f := w.x.id(fmt.Sprintf("%#v", e), 1)
	w.x.list[f].kind = "payload"
	w.test(f, points(1))
}
