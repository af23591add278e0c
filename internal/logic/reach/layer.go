package reach

import (
	"encoding/binary"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// A layer is a program for packets whose loads have certain values, all but the
// destination port: the questions about the ports of a host. Of its chains are left
// the rules that can match such packets. Those that look at the port are found by it,
// and runs of those that do not were painted once, for all ports.
type layer struct {
	vals   []value
	chains map[*cchain]*residual
}

// residual is what a chain is for the packets of a layer.
type residual struct {
	always []item            // looked at whatever the port, in order
	byPort map[uint16][]item // looked at for a port besides, in order
}

// item is a rule that has to be looked at, or the rules of a swath.
type item struct {
	from, to int32 // to is exclusive
	swath    *swath
}

const (
	maxLayers     = 1024    // values of loads that are told apart
	maxLayerLoads = 256     // of a program that has layers
	maxLayerRules = 400_000 // that the layers of a program hold
	maxNamedPorts = 1024    // for which a jump is looked at
)

// findPorts finds the loads that are the destination port, or made of it.
func (p *program) findPorts() {
	p.isPort = make([]bool, len(p.loads))
	for i, k := range p.loads {
		if k.kind != loadPlain {
			p.isPort[i] = p.isPort[k.parent]
			continue
		}
		x, ok := k.expr.(rs.Payload)
		p.isPort[i] = ok && x.Base == rs.TransportHeader && x.Offset == 2 && x.Len == 2
	}
}

// plainPort tells that a load is the destination port itself.
func (p *program) plainPort(load uint16) bool {
	return p.isPort[load] && p.loads[load].kind == loadPlain
}

// layer returns the layer of a packet as rules see it; nil where there is none (yet).
func (v *view) layer() *layer {
	if v.layered {
		return v.in
	}
	v.layered = true
	p, q := v.p, v.q
	if len(p.loads) > maxLayerLoads || q.p.Saddr.Set {
		return nil
	}
	// What is loaded here only to compare it is not what the rules looked at.
	at, needs, opaque := q.at, q.needs, q.opaque
	q.opaque = map[string]bool{}
	defer func() { q.at, q.needs, q.opaque = at, needs, opaque }()
	w := view{p: p, q: q, env: v.env, at: v.at, vals: make([]value, len(p.loads))}
	var key []byte
	ported := false
	for i := range p.loads {
		x := w.value(uint16(i))
		if p.isPort[i] {
			if x.state != isConst {
				return nil
			}
			if port := uint16(x.hi >> 48); p.plainPort(uint16(i)) {
				if ported && port != v.port {
					return nil
				}
				v.port, ported = port, true
			}
			continue
		}
		key = p.appendClass(append(key, byte(x.state)), i, x)
	}
	v.in = p.layer(string(key), w.vals)
	return v.in
}

// appendClass writes what tests tell apart of a load.
func (p *program) appendClass(key []byte, load int, x *value) []byte {
	switch {
	case x.state != isConst:
		return key
	case p.raw[load]:
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(key, x.hi), x.lo)
	}
	n, _ := slices.BinarySearchFunc(p.edges[load], x.number, func(e, x number) int {
		if x.less(e) {
			return 1
		}
		return -1 // also for the edge itself: it starts a new class
	})
	return binary.LittleEndian.AppendUint32(key, uint32(n))
}

// layer returns the layer of a key. Only what is asked for again is worth one.
func (p *program) layer(key string, vals []value) *layer {
	p.layerMu.Lock()
	defer p.layerMu.Unlock()
	l, again := p.layers[key]
	switch {
	case l != nil:
		return l
	case !again && len(p.layers) < maxLayers:
		if p.layers == nil {
			p.layers = map[string]*layer{}
		}
		p.layers[key] = nil
		return nil
	case !again || p.held > maxLayerRules || p.deep():
		return nil
	}
	l = &layer{vals: vals, chains: map[*cchain]*residual{}}
	p.layers[key] = l
	return l
}

// residual returns a chain as it is for a layer; nil when there are too many.
func (p *program) residual(l *layer, c *cchain) *residual {
	p.layerMu.Lock()
	defer p.layerMu.Unlock()
	return p.residue(l, c)
}

func (p *program) residue(l *layer, c *cchain) *residual {
	if r, ok := l.chains[c]; ok {
		return r
	}
	if p.held > maxLayerRules {
		return nil
	}
	l.chains[c] = nil
	b := residuals{p: p, l: l, c: c, out: &residual{}, v: view{p: p, vals: l.vals}}
	for i := range c.rules {
		b.rule(int32(i), &c.rules[i])
	}
	b.flush()
	l.chains[c] = b.out
	p.held += b.held
	return b.out
}

// deep tells that chains jump deeper than the kernel allows: then it matters how deep,
// and no jump may be left out.
func (p *program) deep() bool {
	if p.depthKnown {
		return p.tooDeep
	}
	p.depthKnown = true
	most := 1000
	for c := range p.chains {
		most = min(most, deepest(c))
	}
	memo := map[*cchain]int{}
	var depth func(c *cchain) int
	depth = func(c *cchain) int {
		if d, ok := memo[c]; ok {
			return d
		}
		memo[c] = most + 1 // while it is looked at: a cycle
		d := 0
		for i := range c.rules {
			r := &c.rules[i]
			for _, to := range p.targets(r.rule) {
				if d = max(d, 1+depth(to)); d > most {
					return d
				}
			}
		}
		memo[c] = d
		return d
	}
	for _, c := range p.chains {
		if depth(c) > most-1 {
			p.tooDeep = true
			return true
		}
	}
	return false
}

// targets are the chains that a rule may jump to.
func (p *program) targets(r *rs.Rule) []*cchain {
	var out []*cchain
	add := func(name string) {
		if c := p.names[r.Chain.Table][name]; name != "" && c != nil && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	for _, e := range flat(r.Exprs) {
		switch e := e.(type) {
		case rs.Conclude:
			add(e.Chain)
		case rs.Lookup:
			if s := r.Chain.Table.Sets[e.Set]; s != nil && s.Verdict {
				for i := range s.Elements {
					add(s.Elements[i].Chain)
				}
			}
		}
	}
	return out
}

// residuals makes the residual of one chain.
type residuals struct {
	p    *program
	l    *layer
	c    *cchain
	v    view
	out  *residual
	run  []runRule
	held int
}

// runRule is a rule that ends the way of packets without doing anything else.
type runRule struct {
	settled
	num int32
}

// settled is what can be said of a rule whatever the port.
type settled struct {
	kind  settledKind
	reg   *packetset.Region
	ports []uint16 // where no other port matches; nil: not known
}

type settledKind uint8

const (
	matchesNot  settledKind = iota
	matchesAll              // any port, for the region
	matchesSome             // some ports, for the region of a port
	notSettled              // the interpreter has to look, or a map
)

func (b *residuals) rule(i int32, r *crule) {
	s := b.v.settle(r)
	if s.kind == matchesNot {
		return
	}
	verdict := r.verdict
	if s.kind != notSettled {
		switch {
		case verdict == rs.Continue || verdict == rs.Break:
			return
		case verdict == rs.Accept || verdict == rs.Drop || verdict == rs.Return:
			b.run = append(b.run, runRule{s, i})
			return
		}
	}
	if !r.slow && r.vmap == nil && verdict == rs.Jump && r.to != nil {
		if to := b.p.residue(b.l, r.to); to != nil && len(to.always) == 0 && len(to.byPort) <= maxNamedPorts {
			// The chain does nothing to other ports.
			var ports []uint16
			for port := range to.byPort {
				if s.ports == nil || slices.Contains(s.ports, port) {
					ports = append(ports, port)
				}
			}
			if s.ports = ports; len(ports) == 0 {
				return
			}
		}
	}
	b.flush()
	b.single(i, s)
}

func (b *residuals) single(i int32, s settled) {
	it := item{from: i, to: i + 1}
	b.held++
	if s.ports == nil {
		b.out.always = append(b.out.always, it)
		return
	}
	if b.out.byPort == nil {
		b.out.byPort = map[uint16][]item{}
	}
	for _, port := range s.ports {
		b.out.byPort[port] = append(b.out.byPort[port], it)
	}
	b.held += len(s.ports) - 1
}

// leastSwath is how many rules have to match every port for a swath to be worth it.
const leastSwath = 4

// flush writes the rules of a run.
func (b *residuals) flush() {
	run := b.run
	b.run = b.run[:0]
	shared := 0
	for i := range run {
		if run[i].kind == matchesAll {
			shared++
			if run[i].reg.Wide() {
				shared = leastSwath // each by itself is much to paint
			}
		}
	}
	if shared < leastSwath {
		for _, r := range run {
			b.single(r.num, r.settled)
		}
		return
	}
	sp := b.paint(run)
	b.held += len(sp.rules) + len(sp.bits)
	b.out.always = append(b.out.always, item{from: run[0].num, to: run[len(run)-1].num + 1, swath: sp})
}

// settle runs the steps of a rule as far as they do not look at the port.
func (v *view) settle(r *crule) settled {
	s := settled{kind: matchesAll, reg: packetset.Everywhere}
	worse := func(k settledKind) { s.kind = max(s.kind, k) }
	for i := range r.steps {
		st := &r.steps[i]
		switch st.op {
		case stepSet:
			if !v.settleLookup(st.set, &s) {
				return settled{}
			}
			continue
		case stepAny:
			switch {
			case v.anyPort(st.any):
				worse(matchesSome)
				if !v.anyClear(st.any) {
					worse(notSettled)
				}
			default:
				switch v.any(st.any) {
				case missed:
					return settled{}
				case slow:
					worse(notSettled)
				}
			}
			continue
		}
		if v.p.isPort[st.load] {
			if st.op != stepLoad {
				worse(matchesSome)
				v.named(st, &s)
			}
			continue
		}
		x := &v.vals[st.load]
		switch {
		case x.state == breaks, st.op != stepLoad && x.state == isConst && !st.holds(x.number):
			return settled{}
		case st.op == stepLoad:
			if x.state == unclear {
				worse(notSettled)
			}
		case x.state == isConst:
		case x.state == isSource && st.src != nil:
			s.reg = s.reg.And(st.src.region, v.p.space.Len())
		default:
			worse(notSettled)
		}
	}
	if r.vmap != nil {
		worse(notSettled)
	}
	if r.slow {
		worse(notSettled)
	}
	if s.reg.None() || s.ports != nil && len(s.ports) == 0 {
		return settled{}
	}
	return s
}

// maxPortRange is up to how many ports of a range are listed.
const maxPortRange = 16

// named limits a rule to the ports that one test of the port lets through.
func (v *view) named(st *step, s *settled) {
	if !v.p.plainPort(st.load) || st.n != 2 {
		return
	}
	a, b := uint16(st.a.hi>>48), uint16(st.b.hi>>48)
	switch {
	case st.op == stepEq:
		b = a
	case st.op != stepIn || b < a || b-a >= maxPortRange:
		return
	}
	var ports []uint16
	for port := int(a); port <= int(b); port++ {
		ports = append(ports, uint16(port))
	}
	s.limit(ports)
}

func (s *settled) limit(ports []uint16) {
	if s.ports == nil {
		s.ports = append([]uint16{}, ports...)
		return
	}
	s.ports = slices.DeleteFunc(s.ports, func(p uint16) bool { return !slices.Contains(ports, p) })
}

// maxPortSet is up to how many ports of a set are listed.
const maxPortSet = 64

// settleLookup is settle for a lookup; false when it misses.
func (v *view) settleLookup(l *lookupStep, s *settled) bool {
	if l.src != nil && v.vals[l.parts[0].load].state == isSource {
		s.reg = s.reg.And(l.src.region, v.p.space.Len())
		return true
	}
	port, vars := false, uint32(0)
	for i, part := range l.parts {
		if v.p.isPort[part.load] {
			port = true
			continue
		}
		switch v.vals[part.load].state {
		case breaks:
			return false
		case isConst:
		case isSource:
			vars |= 1 << i
		default:
			s.kind = notSettled
		}
	}
	switch {
	case vars != 0 && vars != l.set.vars:
		s.kind = notSettled
	case s.kind == notSettled:
	case port:
		s.kind = matchesSome
		if es := l.set.set.Elements; len(l.parts) == 1 && !l.invert && v.p.plainPort(l.parts[0].load) && l.parts[0].n == 2 && len(es) <= maxPortSet {
			ports := []uint16{}
			for i := range es {
				from, to := binary.BigEndian.Uint16(es[i].From), binary.BigEndian.Uint16(es[i].To)
				if to < from || to-from >= maxPortRange {
					return true
				}
				for p := int(from); p <= int(to); p++ {
					ports = append(ports, uint16(p))
				}
			}
			slices.Sort(ports)
			s.limit(slices.Compact(ports))
		}
	default:
		h, reg := v.lookup(l)
		switch {
		case h == missed:
			return false
		case h == slow:
			s.kind = notSettled
		case reg != nil:
			s.reg = s.reg.And(reg, v.p.space.Len())
		}
	}
	return true
}

// anyPort tells that alternatives look at the port.
func (v *view) anyPort(a *anyStep) bool {
	for _, list := range a.of {
		for i := range list {
			if v.p.isPort[list[i].load] {
				return true
			}
		}
	}
	return false
}

// anyClear tells that alternatives look at nothing but what is known.
func (v *view) anyClear(a *anyStep) bool {
	for _, list := range a.of {
		for i := range list {
			st := &list[i]
			if st.op == stepAny || st.op == stepSet {
				return false
			}
			if state := v.vals[st.load].state; !v.p.isPort[st.load] && state != isConst && state != breaks {
				return false
			}
		}
	}
	return true
}
