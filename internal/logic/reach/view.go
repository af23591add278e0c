package reach

import (
	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// view is a packet as rules see it at one place, after what earlier rules did: the
// values of loads, as far as they were asked for.
type view struct {
	p    *program
	q    *question
	env  env
	at   place
	vals []value
	// found are the sources that lookups of mixed keys gave.
	found map[*lookupStep]*packetset.Region
	// element is what the rule that matched last found in its verdict map.
	element *rs.Element
	// in is the layer of these values, once it was looked for, and port the destination.
	in      *layer
	port    uint16
	layered bool
}

type value struct {
	number
	state valueState
}

type valueState uint8

const (
	unread   valueState = iota
	isConst             // the number
	breaks              // the load breaks the rule
	isSource            // made of the source address, which is open
	isOpen              // loaded, but what is not known
	unclear             // the interpreter must look
)

// hit is what the steps of a rule say about a packet.
type hit uint8

const (
	missed  hit = iota // the rule does nothing
	matched            // for the region
	slow               // the interpreter must look
)

// match runs the steps of a rule. A test that cannot be settled here does not hide a
// later one that fails.
func (v *view) match(r *crule) (hit, *packetset.Region) {
	out, reg := matched, packetset.Everywhere
	for i := range r.steps {
		s := &r.steps[i]
		var h hit
		var in *packetset.Region
		switch s.op {
		case stepSet:
			h, in = v.lookup(s.set)
		case stepAny:
			h = v.any(s.any)
		case stepLoad:
			switch v.value(s.load).state {
			case breaks:
				return missed, nil
			case unclear:
				h = slow
			default:
				continue
			}
		default:
			x := &v.vals[s.load]
			if x.state == unread {
				v.read(s.load)
			}
			switch x.state {
			case isConst:
				if !s.holds(x.number) {
					return missed, nil
				}
				continue
			case breaks:
				return missed, nil
			case isSource:
				h = slow
				if s.src != nil {
					h, in = matched, s.src.region
				}
			default:
				h = slow
			}
		}
		switch {
		case h == missed:
			return missed, nil
		case h == slow:
			out = slow
		case in != nil:
			reg = reg.And(in, v.p.space.Len())
		}
	}
	if r.vmap != nil {
		el, ok := v.verdict(r.vmap)
		switch {
		case !ok:
			out = slow
		case el == nil:
			return missed, nil
		}
		v.element = el
	}
	if r.slow {
		out = slow
	}
	if out == matched && reg.None() {
		return missed, nil
	}
	return out, reg
}

// holds compares the first bytes of a value.
func (s *step) holds(x number) bool {
	x = x.first(s.n)
	switch s.op {
	case stepEq:
		return x == s.a
	case stepNeq:
		return x != s.a
	case stepIn:
		return !x.less(s.a) && !s.b.less(x)
	default:
		return x.less(s.a) || s.b.less(x)
	}
}

func (v *view) any(a *anyStep) hit {
	clear := true
	for _, prog := range a.of {
		all, settled := true, true
		for i := range prog {
			s := &prog[i]
			if s.op == stepAny || s.op == stepSet {
				settled = false
				continue
			}
			x := v.value(s.load)
			switch {
			case s.op == stepLoad && x.state != breaks:
				settled = settled && x.state != unclear
			case x.state == breaks, x.state == isConst && !s.holds(x.number):
				all = false
			case x.state != isConst:
				settled = false
			}
		}
		switch {
		case !all:
		case settled:
			if a.invert {
				return missed
			}
			return matched
		default:
			clear = false
		}
	}
	switch {
	case !clear:
		return slow
	case a.invert:
		return matched
	}
	return missed
}

func (v *view) value(load uint16) *value {
	x := &v.vals[load]
	if x.state == unread {
		v.read(load)
	}
	return x
}

// read asks the interpreter for the value of a load.
func (v *view) read(load uint16) {
	x := &v.vals[load]
	reg, c := v.q.loadOf(v.p, load, &v.env, v.at)
	switch {
	case c.impossible():
		x.state = breaks
		return
	case !c.certain():
		x.state = unclear
		return
	}
	n := int(v.p.loads[load].n)
	b := reg.at(0, min(16, (n+3)&^3))
	if c, ok := constantBytes(b); ok {
		x.number, x.state = numberOf(c), isConst
		return
	}
	x.state = isOpen
	if src := &v.p.source[load]; src.ok {
		x.state = isSource
		for i := range b {
			if b[i] != src.val[i] {
				x.state = isOpen
			}
		}
	}
}

// loadOf runs a load, and the ones it is made from, into register 0.
func (q *question) loadOf(p *program, load uint16, e *env, at place) (reg *regs, c cond) {
	k := p.loads[load]
	l, here := q.l, q.at
	if e.whole && q.defrag != nil {
		q.l = q.defrag
	}
	q.at = at
	defer func() { q.l, q.at = l, here }()
	switch k.kind {
	case loadMask, loadSwap:
		reg, c = q.loadOf(p, k.parent, e, at)
		if c.impossible() {
			return reg, c
		}
		if k.kind == loadMask {
			q.bitwise(reg, rs.Bitwise{Len: uint32(k.n), Mask: k.mask[:], Xor: k.flip[:]})
		} else {
			q.byteorder(reg, rs.Byteorder{Len: uint32(k.n), Size: uint32(k.op)})
		}
		return reg, c
	}
	reg, c = &regs{}, always
	switch x := k.expr.(type) {
	case rs.Payload:
		c = q.payload(reg, x, e)
	case rs.Meta:
		c = q.meta(reg, x, e)
	case rs.Ct:
		c = q.ct(reg, x, e)
	case rs.Exthdr:
		c = q.exthdr(reg, x)
	}
	return reg, c
}

// sourceOf tells whether a load is made of nothing but the source address.
func sourceOf(p *program, q *question, load uint16) source {
	var out source
	e := env{dport: -1}
	reg, c := q.loadOf(p, load, &e, place{any: true})
	if !c.certain() {
		return out
	}
	n := int(p.loads[load].n)
	b := reg.at(0, min(16, (n+3)&^3))
	some := false
	for i, x := range b {
		switch x.kind {
		case kSaddr:
			some = true
		case kConst:
		default:
			return out
		}
		out.val[i] = x
	}
	out.ok = some
	return out
}

// lookup answers for a set.
func (v *view) lookup(l *lookupStep) (hit, *packetset.Region) {
	if l.src != nil {
		if x := v.value(l.parts[0].load); x.state == isSource {
			return matched, l.src.region
		}
	}
	var key [64]byte
	vars := uint32(0)
	for i, part := range l.parts {
		x := v.value(part.load)
		switch x.state {
		case breaks:
			return missed, nil
		case isConst:
			x.put(key[part.off : part.off+part.n])
		case isSource:
			vars |= 1 << i
		default:
			return slow, nil
		}
	}
	if vars == 0 {
		if l.set.has(key[:l.set.set.KeyLen]) != l.invert {
			return matched, nil
		}
		return missed, nil
	}
	if vars != l.set.vars {
		return slow, nil
	}
	reg := v.found[l]
	if reg == nil {
		set := l.set.sources(key[:l.set.set.KeyLen])
		if l.invert {
			set = set.Complement(v.p.is4)
		}
		reg = v.p.space.Region(set)
		if v.found == nil {
			v.found = map[*lookupStep]*packetset.Region{}
		}
		v.found[l] = reg
	}
	return matched, reg
}

// verdict looks a verdict map up; ok is false for the interpreter.
func (v *view) verdict(l *lookupStep) (el *rs.Element, ok bool) {
	var key [64]byte
	for _, part := range l.parts {
		x := v.value(part.load)
		switch x.state {
		case breaks:
			return nil, true
		case isConst:
			x.put(key[part.off : part.off+part.n])
		default:
			return nil, false
		}
	}
	return l.set.find(key[:l.set.set.KeyLen]), true
}

// put writes the first bytes of a number.
func (a number) put(b []byte) {
	for i := range b {
		if i < 8 {
			b[i] = byte(a.hi >> (56 - 8*i))
		} else {
			b[i] = byte(a.lo >> (120 - 8*i))
		}
	}
}
