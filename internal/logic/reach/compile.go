package reach

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// A program is a ruleset made ready for many questions of one family. Most rules are
// a few tests of loaded values against constants, and then a verdict. Of a concrete
// packet all loads but the source address are constants as well, so that such a rule
// costs a few comparisons of numbers, and what it asks of the source is a Region that
// was computed once. Everything else is left to the interpreter in rule.go, which
// also gives the loads their values: what a load means is said in one place only.
type program struct {
	m      *Model
	is4    bool
	space  *packetset.Space
	chains map[*rs.Chain]*cchain
	names  map[*rs.Table]map[string]*cchain
	loads  []loadKey
	source []source // by load: what it gives of a packet whose source is open
	byLoad map[loadKey]uint16
	sets   map[*rs.Set]*setIndex
	// specific are rules whose boundaries depend on the question.
	specific []*rs.Rule
	cuts     []packetset.Interval
	tests    []*sourceTest
	slab     slabs
	last     [8]uint16 // loads that were asked for last, by turns
	lastUsed int
	// pure: no rule needs the interpreter for what it does. Then the values of loads
	// are all that an answer depends on.
	pure    bool
	edges   [][]number // by load: where the answer of some test may change, sorted
	raw     []bool     // by load: looked up in a set
	isPort  []bool     // by load: made of the destination port
	answers recent

	layerMu sync.Mutex
	layers  map[string]*layer // by values of loads; nil when asked for once
	held    int               // rules in layers
	// tooDeep is what deep says.
	depthKnown, tooDeep bool
}

// loadKey is what is loaded: an expression without its register, or a mask or a change
// of byte order over another load.
type loadKey struct {
	expr       rs.Expr
	parent     uint16
	kind       uint8 // loadPlain, loadMask, loadSwap
	op, n      uint8
	mask, flip [16]byte
}

const (
	loadPlain uint8 = iota
	loadMask
	loadSwap
)

// source is what a load gives of a packet of which only the source is open; ok when it
// is made of the source address alone.
type source struct {
	ok  bool
	val [16]abyte
}

// sourceTest is for which sources a test holds.
type sourceTest struct {
	set    packetset.Set
	region *packetset.Region
}

type cchain struct {
	chain *rs.Chain
	rules []crule
	num   int
	leaf  bool // no rule changes packets or jumps
}

// crule is a rule: all steps hold, then its end. Of a slow one the steps only tell
// whether the interpreter has to look at all.
type crule struct {
	rule    *rs.Rule
	steps   []step
	slow    bool
	reject  bool
	verdict rs.Verdict
	to      *cchain // of jump and goto
	name    string  // of that chain
	vmap    *lookupStep
}

// step is one test. a and b are the first n bytes of a value or of the ends of a range,
// as numbers.
type step struct {
	load uint16
	op   uint8
	n    uint8
	a, b number
	src  *sourceTest
	set  *lookupStep
	any  *anyStep
}

// number is up to 16 bytes in network order, left-aligned.
type number struct{ hi, lo uint64 }

func numberOf(b []byte) number {
	var p [16]byte
	copy(p[:], b)
	return number{binary.BigEndian.Uint64(p[:8]), binary.BigEndian.Uint64(p[8:])}
}

func (a number) less(b number) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

// first cuts a number to its first n bytes.
func (a number) first(n uint8) number {
	switch {
	case n >= 16:
		return a
	case n > 8:
		return number{a.hi, a.lo >> (128 - 8*n) << (128 - 8*n)}
	case n == 0:
		return number{}
	}
	return number{hi: a.hi >> (64 - 8*n) << (64 - 8*n)}
}

// Kinds of step.
const (
	stepEq uint8 = iota
	stepNeq
	stepIn  // a <= value <= b
	stepOut // not so
	stepSet
	stepAny
	stepLoad // it does not break the rule
)

// anyStep holds when one of some lists of steps does.
type anyStep struct {
	of     [][]step
	invert bool
}

// lookupStep looks a key up that is put together from loads.
type lookupStep struct {
	set    *setIndex
	parts  []keyPart
	invert bool
	src    *sourceTest // the key is the source address and nothing else
}

type keyPart struct {
	load   uint16
	off, n int
}

// program returns the rules ready for a family, made at the first question.
func (m *Model) program(f rs.Family) *program {
	u := m.usesOf(f)
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.programs[f]; p != nil {
		return p
	}
	p := compile(m, f, u)
	if m.programs == nil {
		m.programs = map[rs.Family]*program{}
	}
	m.programs[f] = p
	return p
}

// compile must not ask m for what its lock guards.
func compile(m *Model, f rs.Family, u *uses) *program {
	p := &program{
		m: m, is4: f == rs.IPv4, chains: map[*rs.Chain]*cchain{}, names: map[*rs.Table]map[string]*cchain{}, byLoad: map[loadKey]uint16{}, sets: map[*rs.Set]*setIndex{},
	}
	pkt := &Packet{Family: f, Sport: Range{0, 65535}}
	q := &question{p: pkt, l: pkt.layout(), set: m.Set, order: m.Order, opaque: map[string]bool{}, uses: u, at: place{any: true}}
	for _, t := range m.Set.Tables {
		switch t.Family {
		case f, rs.Inet, rs.Netdev, rs.Bridge:
		default:
			continue
		}
		for _, c := range t.Chains {
			p.chains[c] = &cchain{chain: c, num: len(p.chains)}
		}
	}
	for _, t := range m.Set.Tables {
		by := map[string]*cchain{}
		p.names[t] = by
		for _, c := range t.Chains {
			if x := p.chains[c]; x != nil && by[c.Name] == nil {
				by[c.Name] = x
			}
		}
		for _, c := range t.Chains {
			if x := p.chains[c]; x != nil {
				cc := compiler{p: p, q: q, by: by}
				x.rules = cc.chain(c)
				x.leaf = !slices.ContainsFunc(x.rules, func(r crule) bool {
					return r.slow || r.vmap != nil || r.verdict == rs.Jump || r.verdict == rs.Goto
				})
			}
		}
	}
	p.cut(p.cuts)
	p.classify()
	p.findPorts()
	return p
}

// blank is an environment of which nothing is known.
var blank = env{dport: -2, daddrLost: true, untracked: maybe}

// cut makes the space and what depends on it.
func (p *program) cut(cuts []packetset.Interval) {
	p.cuts = cuts
	p.space = packetset.NewSpace(p.is4, cuts)
	for _, t := range p.tests {
		t.region = p.space.Region(t.set)
	}
}

// refined returns a program whose space is also cut at other intervals.
func (m *Model) refined(f rs.Family, old *program, more []packetset.Interval) *program {
	m.mu.Lock()
	p := m.programs[f]
	m.mu.Unlock()
	if p != old {
		if missing := uncut(p.space, more); len(missing) == 0 {
			return p
		}
	}
	n := compile(m, f, m.usesOf(f))
	n.cut(append(append(n.cuts, p.cuts...), more...))
	m.mu.Lock()
	m.programs[f] = n
	m.mu.Unlock()
	return n
}

func uncut(s *packetset.Space, ivs []packetset.Interval) []packetset.Interval {
	var out []packetset.Interval
	for _, iv := range ivs {
		if !s.Cuts(iv) {
			out = append(out, iv)
		}
	}
	return out
}

// compiler turns one rule into a crule.
type compiler struct {
	p  *program
	q  *question
	r  *rs.Rule
	by map[string]*cchain
	// regs are the loads that registers hold.
	regs []held
	// untested are loads that no step has looked at yet: they may still break the rule.
	untested []uint16
	scratch  []step
}

type held struct {
	reg  rs.Reg
	n    int // bytes
	load uint16
}

// chain compiles the rules of a chain that are not about the other family.
func (c *compiler) chain(chain *rs.Chain) []crule {
	n := 0
	for _, r := range chain.Rules {
		if !c.foreign(r) {
			n++
		}
	}
	out := make([]crule, 0, n)
	for _, r := range chain.Rules {
		if !c.foreign(r) {
			c.r, c.regs, c.untested = r, c.regs[:0], c.untested[:0]
			out = append(out, c.rule())
		}
	}
	return out
}

// foreign tells that a rule starts with a test for the other family, as nft writes them
// in tables for both.
func (c *compiler) foreign(r *rs.Rule) bool {
	if len(r.Exprs) < 2 || !toldFamily(r.Chain) {
		return false
	}
	m, ok := r.Exprs[0].(rs.Meta)
	if !ok || m.Key != metaNFProto || m.Dreg == rs.VerdictReg {
		return false
	}
	x, ok := r.Exprs[1].(rs.Cmp)
	return ok && x.Op == rs.Eq && x.Sreg == m.Dreg && len(x.Data) == 1 && x.Data[0] != c.own()
}

// toldFamily tells that a chain is told the family of IP of its packets: those of bridges and
// devices are told that they are of a bridge or of a device.
func toldFamily(c *rs.Chain) bool {
	return c.Table.Family != rs.Bridge && c.Table.Family != rs.Netdev
}

// own is the number of the family (NFPROTO_*).
func (c *compiler) own() byte {
	if c.p.is4 {
		return byte(rs.IPv4)
	}
	return byte(rs.IPv6)
}

func (c *compiler) rule() crule {
	out := crule{rule: c.r, verdict: rs.Continue}
	steps, rest, ok := c.steps(c.r.Exprs, c.scratch[:0])
	c.scratch = steps[:0]
	out.steps = c.p.slab.keep(steps)
	if !ok {
		out.slow = true
	} else {
		c.end(&out, rest)
	}
	if out.slow {
		c.boundaries()
	}
	return out
}

// end compiles the expression that ends a rule.
func (c *compiler) end(out *crule, e rs.Expr) {
	switch e := e.(type) {
	case nil:
	case rs.Reject:
		out.verdict, out.reject = rs.Drop, true
	case rs.Conclude:
		out.verdict, out.name = e.Verdict, e.Chain
		switch e.Verdict {
		case rs.Accept, rs.Drop, rs.Return:
		case rs.Jump, rs.Goto:
			out.to = c.by[e.Chain]
		default:
			out.slow = true
		}
	case rs.Lookup: // a verdict map
		l := c.lookup(e)
		out.slow = l == nil || l.src != nil || l.set.set.Object != 0 || rated(l.set.set)
		for _, part := range out.vmapParts(l) {
			out.slow = out.slow || c.p.source[part.load].ok
		}
		out.vmap = l
	default:
		out.slow = true
	}
}

func (r *crule) vmapParts(l *lookupStep) []keyPart {
	if l == nil {
		return nil
	}
	return l.parts
}

// steps compiles tests up to the expression that ends the rule; ok is false where
// something else comes before.
func (c *compiler) steps(exprs []rs.Expr, to []step) (out []step, end rs.Expr, ok bool) {
	out, end, ok = c.tests(exprs, to)
	for _, id := range c.untested {
		out = append(out, step{op: stepLoad, load: id})
	}
	c.untested = c.untested[:0]
	return out, end, ok
}

func (c *compiler) tests(exprs []rs.Expr, out []step) (_ []step, end rs.Expr, ok bool) {
	for i, e := range exprs {
		switch e := e.(type) {
		case rs.Nothing:
		case rs.Payload, rs.Meta, rs.Ct, rs.Exthdr:
			if !c.load(e) {
				return out, nil, false
			}
		case rs.Bitwise:
			if !c.mask(e) {
				return out, nil, false
			}
		case rs.Byteorder:
			if !c.swap(e) {
				return out, nil, false
			}
		case rs.Cmp:
			s, ok := c.compare(e)
			if !ok {
				return out, nil, false
			}
			if toldFamily(c.r.Chain) && c.p.loads[s.load].own() && s.op == stepEq && s.n == 1 && s.a == numberOf([]byte{c.own()}) {
				continue // as every packet of the family
			}
			out = append(out, s)
		case rs.Range:
			h, ok := c.at(e.Sreg, len(e.From))
			if !ok || len(e.From) != len(e.To) || len(e.From) == 0 {
				return out, nil, false
			}
			s := step{load: h, op: stepIn, n: uint8(len(e.From)), a: numberOf(e.From), b: numberOf(e.To)}
			if e.Invert {
				s.op = stepOut
			}
			s.src = c.source(h, func(v []abyte) cond {
				x := within(v[:s.n], e.From, e.To, c.q)
				if e.Invert {
					return x.not(c.p.is4)
				}
				return x
			})
			out = append(out, s)
		case rs.Lookup:
			if e.Verdict {
				return out, e, idle(exprs[i+1:])
			}
			l := c.lookup(e)
			if l == nil || e.HasDreg || rated(l.set.set) {
				return out, nil, false
			}
			out = append(out, step{op: stepSet, set: l})
		case rs.Any:
			s, ok := c.any(e)
			if !ok {
				return out, nil, false
			}
			out = append(out, s)
		case rs.Conclude:
			if e.Verdict == rs.Continue {
				continue
			}
			return out, e, true
		case rs.Reject:
			return out, e, true
		default:
			return out, nil, false
		}
	}
	return out, nil, true
}

// idle tells that expressions do nothing to a packet.
func idle(exprs []rs.Expr) bool {
	for _, e := range exprs {
		if _, ok := e.(rs.Nothing); !ok {
			return false
		}
	}
	return true
}

func (c *compiler) any(e rs.Any) (step, bool) {
	a := &anyStep{invert: e.Invert}
	kept, untested := c.regs, c.untested
	defer func() { c.regs, c.untested = kept, untested }()
	for _, prog := range e.Of {
		c.regs, c.untested = nil, nil // each has registers of its own
		s, end, ok := c.steps(prog, nil)
		if !ok || end != nil {
			return step{}, false
		}
		for i := range s {
			if s[i].op == stepAny || s[i].op == stepSet || s[i].src != nil {
				return step{}, false
			}
		}
		a.of = append(a.of, s)
	}
	return step{op: stepAny, any: a}, true
}

func bitIndex(v uint32) int {
	i := 0
	for v > 1 {
		v >>= 1
		i++
	}
	return i
}

// boundaries collects where a rule that the interpreter runs cuts the sources.
func (c *compiler) boundaries() {
	if specific(c.r, c.r.Exprs) {
		c.p.specific = append(c.p.specific, c.r)
	}
	c.p.cuts = append(c.p.cuts, c.q.boundaries(c.r)...)
}

// boundaries runs a rule without knowing what earlier rules did.
func (q *question) boundaries(r *rs.Rule) []packetset.Interval {
	var out []packetset.Interval
	q.cuts = &out
	for _, b := range q.rule(r, blank) {
		q.cut(b.cond)
	}
	q.cuts = nil
	q.choices = q.choices[:0]
	return out
}

// specific tells that where a rule cuts the sources depends on the rest of the packet.
func specific(r *rs.Rule, exprs []rs.Expr) bool {
	for _, e := range flat(exprs) {
		switch e := e.(type) {
		case rs.Fib, rs.Exthdr: // a header that is not there breaks the rule
			return true
		case rs.Lookup:
			s := r.Chain.Table.Sets[e.Set]
			if e.HasDreg && !e.Verdict || s != nil && len(s.Concat) > 1 {
				return true
			}
		case rs.Bitwise:
			if e.HasSreg2 || e.Op != 0 {
				return true
			}
		}
	}
	return false
}
