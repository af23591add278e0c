package reach

import (
	"net/netip"
	"sync"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// told remembers what was worked out about sets of sources. Ports that a ruleset
// treats alike have equal answers, which for long rulesets are as long as those.
type told struct {
	mu    sync.Mutex
	sets  map[uint64][]toldSet
	facts map[toldKey]any
	doors map[doorKey][2]packetset.Set
	held  int // intervals and prefixes remembered
}

type toldSet struct {
	space *packetset.Space
	cells *packetset.Cells
	set   packetset.Set
}

// toldKey is a question about sets, which are the same when they are the same memory:
// nobody changes a set.
type toldKey struct {
	what  uint8
	is4   bool
	set   [3]*packetset.Interval
	n     [3]int
	space *packetset.Space
}

const (
	toldIntersect uint8 = iota
	toldMust
	toldMay
	toldWords
	toldTouching
)

const (
	smallSet = 16      // intervals: not worth remembering
	maxHeld  = 8 << 20 // intervals and prefixes
)

func keyOf(what uint8, is4 bool, sets ...packetset.Set) toldKey {
	k := toldKey{what: what, is4: is4}
	for i, s := range sets {
		if len(s) > 0 {
			k.set[i], k.n[i] = &s[0], len(s)
		}
	}
	return k
}

// remember returns what f worked out before for the same key. Sizes are what it costs
// to keep.
func remember[T any](t *told, k toldKey, f func() (T, int)) T {
	if k.n[0]+k.n[1]+k.n[2] < smallSet {
		v, _ := f()
		return v
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if v, ok := t.facts[k].(T); ok {
		return v
	}
	v, size := f()
	t.grow(size)
	if t.facts == nil {
		t.facts = map[toldKey]any{}
	}
	t.facts[k] = v
	return v
}

// grow forgets everything before too much is remembered. The keys are pointers into
// sets, so that sets and facts go together.
func (t *told) grow(n int) {
	if t.held += n + 1; t.held > maxHeld {
		t.sets, t.facts, t.held = nil, nil, n+1
	}
}

// of is the addresses of cells; the same memory for equal ones.
func (t *told) of(sp *packetset.Space, c *packetset.Cells) packetset.Set {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := c.Hash()
	for _, x := range t.sets[h] {
		if x.space == sp && x.cells.Equal(c) {
			return x.set
		}
	}
	s := c.Set(sp)
	t.grow(len(s))
	if t.sets == nil {
		t.sets = map[uint64][]toldSet{}
	}
	t.sets[h] = append(t.sets[h], toldSet{sp, c, s})
	return s
}

func (t *told) intersect(a, b packetset.Set) packetset.Set {
	return remember(t, keyOf(toldIntersect, false, a, b), func() (packetset.Set, int) {
		s := a.Intersect(b)
		if s.Same(a) {
			s = a // what is known of a is known of it
		}
		return s, len(s)
	})
}

// maxListed is how many prefixes of sources an answer lists.
const maxListed = 1 << 16

// list is the prefixes of an answer, and whether there are more.
type list struct {
	prefixes []netip.Prefix
	cut      bool
}

// must lists surely accepted sources; of too many prefixes the largest.
func (t *told) must(s packetset.Set, is4 bool) list {
	return remember(t, keyOf(toldMust, is4, s), func() (list, int) { return t.write(s, is4, packetset.Set.Inside) })
}

// may lists possibly accepted sources; too many prefixes are joined to larger ones.
func (t *told) may(s packetset.Set, is4 bool) list {
	return remember(t, keyOf(toldMay, is4, s), func() (list, int) { return t.write(s, is4, packetset.Set.Around) })
}

func (t *told) write(s packetset.Set, is4 bool, fewer func(packetset.Set, bool, int) packetset.Set) (list, int) {
	l := list{}
	n := s.CountPrefixes(is4)
	if l.cut = n > maxListed; l.cut {
		s = fewer(s, is4, maxListed)
		n = s.CountPrefixes(is4)
	}
	l.prefixes = s.AppendPrefixes(make([]netip.Prefix, 0, n), is4)
	return l, n
}

// lists are both; the same memory where they are the same.
func (t *told) lists(must, may packetset.Set, is4 bool) (a, b list) {
	a = t.must(must, is4)
	if must.Same(may) && !a.cut {
		return a, a
	}
	return a, t.may(may, is4)
}

func (t *told) touching(sp *packetset.Space, s packetset.Set) *packetset.Cells {
	k := keyOf(toldTouching, sp.Is4, s)
	k.space = sp
	return remember(t, k, func() (*packetset.Cells, int) { return sp.Touching(s), sp.Len() / 64 })
}

type doorKey struct {
	is4, tcp bool
	door     int
}

// letIn is what kernel says, worked out once.
func (sp *Space) letIn(is4 bool, proto string, door *fact.Link) (ok, maybe packetset.Set) {
	t := &sp.told
	t.mu.Lock()
	defer t.mu.Unlock()
	k := doorKey{is4, proto == "tcp", door.Index}
	if x, found := t.doors[k]; found {
		return x[0], x[1]
	}
	ok, maybe = sp.kernel(is4, proto, door)
	if maybe.Same(ok) {
		maybe = ok
	}
	if t.doors == nil {
		t.doors = map[doorKey][2]packetset.Set{}
	}
	t.doors[k] = [2]packetset.Set{ok, maybe}
	return ok, maybe
}
