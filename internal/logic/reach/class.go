package reach

import (
	"encoding/binary"
	"slices"
	"sync"
)

// classify finds for every load which values no test tells apart.
func (p *program) classify() {
	p.pure = true
	p.edges, p.raw = make([][]number, len(p.loads)), make([]bool, len(p.loads))
	var steps func(list []step)
	steps = func(list []step) {
		for i := range list {
			s := &list[i]
			switch s.op {
			case stepSet:
				for _, part := range s.set.parts {
					p.raw[part.load] = true
				}
			case stepAny:
				for _, of := range s.any.of {
					steps(of)
				}
			case stepLoad:
			default:
				if p.source[s.load].ok {
					p.raw[s.load] = true // hardly ever known
					continue
				}
				b := s.b
				if s.op == stepEq || s.op == stepNeq {
					b = s.a
				}
				e := append(p.edges[s.load], s.a)
				if next, ok := b.after(s.n); ok {
					e = append(e, next)
				}
				p.edges[s.load] = e
			}
		}
	}
	for _, c := range p.chains {
		for i := range c.rules {
			r := &c.rules[i]
			p.pure = p.pure && !r.slow
			steps(r.steps)
			if r.vmap != nil {
				for _, part := range r.vmap.parts {
					p.raw[part.load] = true
				}
			}
		}
	}
	for i, e := range p.edges {
		slices.SortFunc(e, func(a, b number) int {
			switch {
			case a.less(b):
				return -1
			case b.less(a):
				return 1
			}
			return 0
		})
		p.edges[i] = slices.Compact(e)
	}
}

// after is the first number whose first n bytes are larger.
func (a number) after(n uint8) (number, bool) {
	a = a.first(n)
	switch {
	case n > 8:
		if a.lo += 1 << (128 - 8*uint(n)); a.lo == 0 {
			a.hi++
		}
	case n == 8:
		a.hi++
	default:
		a.hi += 1 << (64 - 8*uint(n))
	}
	return a, a != (number{})
}

// class names the questions that a pure program answers alike: those whose loads have,
// at every base chain, values that no test tells apart. "" is a class of its own.
func (q *question) class(p *program, ways [][]stop) string {
	if !p.pure || q.uses.nat || q.defrag != nil || len(p.loads) > 64 || len(ways) > 1 {
		return ""
	}
	// What is loaded here only to compare it is not what the rules looked at.
	at, needs, opaque := q.at, q.needs, q.opaque
	q.opaque = map[string]bool{}
	defer func() { q.at, q.needs, q.opaque = at, needs, opaque }()
	var key []byte
	e := q.fresh()
	for _, s := range ways[0] {
		if s.bridge {
			return ""
		}
		key = append(key, '|', byte(s.hook))
		q.way = s
		for _, c := range chainsAt(q.set, s, q.p) {
			cc := p.chains[c]
			if cc == nil {
				return ""
			}
			key = binary.LittleEndian.AppendUint32(append(key, '/'), uint32(cc.num))
			v := view{p: p, q: q, env: e, at: placeOf(c), vals: make([]value, len(p.loads))}
			for i := range p.loads {
				x := v.value(uint16(i))
				key = append(key, byte(x.state))
				switch {
				case x.state == isConst:
					key = p.appendClass(key, i, x)
				case x.state == isOpen, x.state == unclear:
					reg, _ := q.loadOf(p, uint16(i), &e, v.at)
					for _, b := range reg.at(0, min(16, int(p.loads[i].n+3)&^3)) {
						key = append(key, byte(b.kind), b.val, b.mask, b.idx)
					}
				}
			}
		}
	}
	s := &q.p.Sport
	key = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(key, s.From), s.To)
	return string(key)
}

// recent keeps the last few answers: one port is asked about over several interfaces,
// and the ports that no rule names are one class.
type recent struct {
	mu   sync.Mutex
	list []answered // the last one is the latest
	held int
}

type answered struct {
	key string
	a   *Answer
}

const (
	maxRecent     = 64
	maxRecentHeld = 1 << 19 // decisions
)

func (r *recent) get(key string) *Answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.list) - 1; i >= 0; i-- {
		if x := r.list[i]; x.key == key {
			r.list = append(slices.Delete(r.list, i, i+1), x)
			return x.a
		}
	}
	return nil
}

func (r *recent) put(key string, a *Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, answered{key, a})
	r.held += a.weight()
	for len(r.list) > 1 && (len(r.list) > maxRecent || r.held > maxRecentHeld) {
		r.held -= r.list[0].a.weight()
		r.list = slices.Delete(r.list, 0, 1)
	}
}
