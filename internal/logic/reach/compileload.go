package reach

import (
	"slices"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// loadSize is how many bytes a load writes; 0 is not for us.
func loadSize(e rs.Expr) int {
	switch e := e.(type) {
	case rs.Payload:
		if e.Base != rs.InnerHeader && e.Len <= 16 {
			return int(e.Len)
		}
	case rs.Exthdr:
		if e.Present {
			return 1
		}
		if e.Len <= 16 {
			return int(e.Len)
		}
	case rs.Ct:
		switch e.Key {
		case ctState, ctMark, ctStatus:
			return 4
		case ctDirection, ctL3Proto, ctProtocol:
			return 1
		}
	case rs.Meta:
		switch e.Key {
		case metaLen, metaMark, metaIIF, metaOIF, metaSKUID, metaSKGID:
			return 4
		case metaProtocol, metaIIFType, metaOIFType:
			return 2
		case metaIIFName, metaOIFName:
			return 16
		case metaNFProto, metaL4Proto, metaPktType:
			return 1
		}
	}
	return 0
}

func (c *compiler) load(e rs.Expr) bool {
	n := loadSize(e)
	if n == 0 {
		return false
	}
	var dreg rs.Reg
	switch x := e.(type) {
	case rs.Payload:
		dreg, x.Dreg = x.Dreg, 0
		e = x
	case rs.Meta:
		dreg, x.Dreg = x.Dreg, 0
		e = x
	case rs.Ct:
		dreg, x.Dreg = x.Dreg, 0
		e = x
	case rs.Exthdr:
		dreg, x.Dreg = x.Dreg, 0
		e = x
	}
	return c.hold(dreg, n, loadKey{expr: e, n: uint8(n)})
}

// hold notes that a register holds a load from here on.
func (c *compiler) hold(r rs.Reg, n int, k loadKey) bool {
	if r == rs.VerdictReg || int(r)*4+n > len(regs{}) || n > 16 {
		return false
	}
	id, ok := c.p.find(&k)
	if !ok {
		if len(c.p.loads) > 4096 {
			return false // nobody writes such rules
		}
		id = uint16(len(c.p.loads))
		c.p.byLoad[k] = id
		c.p.loads = append(c.p.loads, k)
		c.p.source = append(c.p.source, source{})
		c.p.source[id] = sourceOf(c.p, c.q, id)
	}
	from, to := int(r)*4, int(r)*4+(n+3)&^3
	kept := c.regs[:0]
	for _, h := range c.regs {
		if int(h.reg)*4 >= to || int(h.reg)*4+(h.n+3)&^3 <= from {
			kept = append(kept, h)
		}
	}
	c.regs = append(kept, held{r, n, id})
	c.untested = append(c.untested, id)
	return true
}

// at returns the load that a register holds, of which n bytes are wanted. What is
// behind a load up to the end of its register is zero.
func (c *compiler) at(r rs.Reg, n int) (uint16, bool) {
	for _, h := range c.regs {
		if h.reg == r && n <= (h.n+3)&^3 && n > 0 && n <= 16 {
			c.tested(h.load)
			return h.load, true
		}
	}
	return 0, false
}

// tested notes that a step, or a load that is tested itself, depends on a load.
func (c *compiler) tested(load uint16) {
	c.untested = slices.DeleteFunc(c.untested, func(x uint16) bool { return x == load })
}

func (c *compiler) heldAt(r rs.Reg) (held, bool) {
	for _, h := range c.regs {
		if h.reg == r {
			c.tested(h.load)
			return h, true
		}
	}
	return held{}, false
}

func (c *compiler) mask(e rs.Bitwise) bool {
	h, ok := c.heldAt(e.Sreg)
	n := int(e.Len)
	if !ok || e.Op != 0 || e.Len > 16 || n > (h.n+3)&^3 || n == 0 || len(e.Mask) < n || len(e.Xor) < n {
		return false
	}
	k := loadKey{parent: h.load, kind: loadMask, n: uint8(n)}
	copy(k.mask[:], e.Mask[:n])
	copy(k.flip[:], e.Xor[:n])
	return c.hold(e.Dreg, n, k)
}

func (c *compiler) swap(e rs.Byteorder) bool {
	h, ok := c.heldAt(e.Sreg)
	n := int(e.Len)
	if !ok || e.Len > 16 || n > (h.n+3)&^3 || n == 0 || e.Size > 8 {
		return false
	}
	return c.hold(e.Dreg, n, loadKey{parent: h.load, kind: loadSwap, n: uint8(n), op: uint8(e.Size)})
}

func (c *compiler) compare(e rs.Cmp) (step, bool) {
	h, ok := c.at(e.Sreg, len(e.Data))
	if !ok {
		return step{}, false
	}
	s := step{load: h, n: uint8(len(e.Data))}
	d := numberOf(e.Data)
	ones := number{^uint64(0), ^uint64(0)}.first(uint8(len(e.Data)))
	switch e.Op {
	case rs.Eq:
		s.op, s.a = stepEq, d
	case rs.Neq:
		s.op, s.a = stepNeq, d
	case rs.Lte:
		s.op, s.b = stepIn, d
	case rs.Gte:
		s.op, s.a, s.b = stepIn, d, ones
	case rs.Gt:
		s.op, s.b = stepOut, d
	case rs.Lt:
		s.op, s.a, s.b = stepOut, d, ones
	default:
		return step{}, false
	}
	if src := &c.p.source[h]; src.ok {
		if iv, ok := src.prefix(e.Data, c.q.firstByte()); ok && e.Op == rs.Eq {
			s.src = c.p.slab.test(iv)
			c.p.cuts = append(c.p.cuts, iv)
			c.p.tests = append(c.p.tests, s.src)
		} else {
			s.src = c.sourceTest(compare(src.val[:s.n], e.Op, e.Data, c.q))
		}
	}
	return s, true
}

// source computes for which sources a test of a load holds; nil when that is not exact,
// or the load is no part of the source.
func (c *compiler) source(load uint16, test func([]abyte) cond) *sourceTest {
	src := &c.p.source[load]
	if !src.ok {
		return nil
	}
	return c.sourceTest(test(src.val[:]))
}

func (c *compiler) sourceTest(x cond) *sourceTest {
	if x.yesAll != x.mayAll || len(x.yes) != len(x.may) || len(x.yes) > 0 && &x.yes[0] != &x.may[0] && !equalSets(x.yes, x.may) {
		return nil
	}
	set := x.yes
	if x.yesAll {
		set = sources(c.p.is4)
	}
	c.p.cuts = append(c.p.cuts, set...)
	t := &sourceTest{set: set}
	c.p.tests = append(c.p.tests, t)
	return t
}

// lookup compiles the key of a lookup; nil leaves it to the interpreter.
func (c *compiler) lookup(e rs.Lookup) *lookupStep {
	s := c.r.Chain.Table.Sets[e.Set]
	if s == nil || !s.Complete || c.q.dynamic(s) || s.KeyLen <= 0 || s.KeyLen > 64 {
		return nil
	}
	x := c.p.sets[s]
	if x == nil {
		x = newSetIndex(s)
		c.p.sets[s] = x
	}
	if !x.plain {
		return nil
	}
	l := &lookupStep{set: x, invert: e.Invert}
	sourced := false
	off := 0
	for _, n := range x.fields {
		h, ok := c.at(e.Sreg+rs.Reg(off/4), n)
		if !ok || int(e.Sreg)*4+off+n > len(regs{}) {
			return nil
		}
		l.parts = append(l.parts, keyPart{h, off, n})
		sourced = sourced || c.p.source[h].ok
		off += (n + 3) &^ 3
	}
	if !sourced {
		return l
	}
	whole4 := func(n int) bool { return n == 4 && c.p.is4 || n == 16 && !c.p.is4 }
	for i, part := range l.parts {
		if src := &c.p.source[part.load]; src.ok {
			first := c.q.firstByte()
			if x.vars != 0 && x.vars != 1<<i || !whole4(part.n) || !whole(src.val[:part.n], kSaddr) || int(src.val[0].idx) != first {
				return nil
			}
			x.vars = 1 << i
		}
	}
	if len(l.parts) == 1 {
		if x.source == nil {
			x.source = c.sourceTest(cond{yes: x.all(0), may: x.all(0)})
		}
		l.src = x.source
		if e.Invert {
			if x.outside == nil {
				set := x.source.set.Complement(c.p.is4)
				x.outside = c.sourceTest(cond{yes: set, may: set})
			}
			l.src = x.outside
		}
		return l
	}
	if !x.cut {
		x.cut = true
		c.p.cuts = append(c.p.cuts, x.all(bitIndex(x.vars))...)
	}
	return l
}
