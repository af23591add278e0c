package reach

import (
	"bytes"
	"cmp"
	"slices"
	"sort"
	"sync"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// setIndex finds the elements of a set that hold a key without looking at all of them.
type setIndex struct {
	set    *rs.Set
	fields []int // byte lengths
	// plain: every element is there for sure and as long as the key. Only then the
	// index answers.
	plain bool

	// For lookups by the source address; kept by compile.
	vars            uint32 // the field that is the source address, as a bit
	source, outside *sourceTest
	cut             bool

	mu    sync.Mutex
	order []int32                 // of a set with one field: by key
	by    map[uint32][]indexGroup // of a concatenation, by the fields that are open
}

// indexGroup are the elements that name the same fields by one value, sorted by those.
type indexGroup struct {
	exact uint32
	order []int32
}

func newSetIndex(s *rs.Set) *setIndex {
	x := &setIndex{set: s, fields: s.Concat, plain: true}
	if len(s.Concat) < 2 {
		x.fields = []int{s.KeyLen}
	}
	total := 0
	for _, n := range x.fields {
		total += (n + 3) &^ 3
	}
	if len(x.fields) > 1 && total != s.KeyLen || len(x.fields) > 16 {
		x.plain = false
	}
	for i := range s.Elements {
		if !x.plain {
			break
		}
		e := &s.Elements[i]
		x.plain = !e.CatchAll && !e.Expires && len(e.From) == s.KeyLen && len(e.To) == s.KeyLen && x.ordered(e)
	}
	if x.plain && len(x.fields) == 1 {
		x.sort()
	}
	return x
}

// ordered tells that no field of an element ends before it starts, and that nothing is
// written between the fields.
func (x *setIndex) ordered(e *rs.Element) bool {
	off := 0
	for _, n := range x.fields {
		if bytes.Compare(e.From[off:off+n], e.To[off:off+n]) > 0 {
			return false
		}
		end := off + n
		for off = off + (n+3)&^3; end < off && end < len(e.From); end++ {
			if e.From[end] != 0 || e.To[end] != 0 {
				return false
			}
		}
	}
	return true
}

// sort orders a set of one field; elements that overlap are left to the interpreter.
func (x *setIndex) sort() {
	es := x.set.Elements
	byFrom := func(a, b int32) int { return bytes.Compare(es[a].From, es[b].From) }
	x.order = make([]int32, len(es))
	for i := range x.order {
		x.order[i] = int32(i)
	}
	if !slices.IsSortedFunc(x.order, byFrom) {
		slices.SortFunc(x.order, byFrom)
	}
	for i := 1; i < len(x.order); i++ {
		if bytes.Compare(es[x.order[i]].From, es[x.order[i-1]].To) <= 0 {
			x.plain = false
			return
		}
	}
}

func (x *setIndex) has(key []byte) bool { return x.find(key) != nil }

// find returns the element that holds a key; nil when there is none.
func (x *setIndex) find(key []byte) *rs.Element {
	es := x.set.Elements
	if len(x.fields) == 1 {
		i := sort.Search(len(x.order), func(i int) bool { return bytes.Compare(es[x.order[i]].From, key) > 0 })
		if i == 0 {
			return nil
		}
		if e := &es[x.order[i-1]]; bytes.Compare(key, e.To) <= 0 {
			return e
		}
		return nil
	}
	var found *rs.Element
	x.matching(0, key, func(e *rs.Element) bool { found = e; return false })
	return found
}

// sources are the values of the open field with which an element holds a key.
func (x *setIndex) sources(key []byte) packetset.Set {
	var ivs []packetset.Interval
	off, n := x.field(bitIndex(x.vars))
	x.matching(x.vars, key, func(e *rs.Element) bool {
		ivs = append(ivs, packetset.Interval{From: packetset.FromBytes(e.From[off : off+n]), To: packetset.FromBytes(e.To[off : off+n])})
		return true
	})
	return packetset.Normalise(ivs)
}

// all are the values of a field in any element.
func (x *setIndex) all(field int) packetset.Set {
	ivs := make([]packetset.Interval, 0, len(x.set.Elements))
	off, n := x.field(field)
	for i := range x.set.Elements {
		e := &x.set.Elements[i]
		ivs = append(ivs, packetset.Interval{From: packetset.FromBytes(e.From[off : off+n]), To: packetset.FromBytes(e.To[off : off+n])})
	}
	if len(x.fields) > 1 {
		return ivs // only where to cut
	}
	return packetset.Normalise(ivs)
}

func (x *setIndex) field(i int) (off, n int) {
	for _, f := range x.fields[:i] {
		off += (f + 3) &^ 3
	}
	return off, x.fields[i]
}

// matching calls f with the elements of a concatenation that hold a key, but for open
// fields, until it returns false.
func (x *setIndex) matching(open uint32, key []byte, f func(*rs.Element) bool) {
	for _, g := range x.groups(open) {
		lo := sort.Search(len(g.order), func(i int) bool { return x.compare(g.exact, x.set.Elements[g.order[i]].From, key) >= 0 })
		for _, i := range g.order[lo:] {
			e := &x.set.Elements[i]
			if x.compare(g.exact, e.From, key) != 0 {
				break
			}
			if x.within(^(g.exact|open), e, key) && !f(e) {
				return
			}
		}
	}
}

// compare orders keys by some of their fields.
func (x *setIndex) compare(fields uint32, a, b []byte) int {
	off := 0
	for i, n := range x.fields {
		if fields>>i&1 != 0 {
			if c := bytes.Compare(a[off:off+n], b[off:off+n]); c != 0 {
				return c
			}
		}
		off += (n + 3) &^ 3
	}
	return 0
}

func (x *setIndex) within(fields uint32, e *rs.Element, key []byte) bool {
	off := 0
	for i, n := range x.fields {
		if fields>>i&1 != 0 && (bytes.Compare(key[off:off+n], e.From[off:off+n]) < 0 || bytes.Compare(key[off:off+n], e.To[off:off+n]) > 0) {
			return false
		}
		off += (n + 3) &^ 3
	}
	return true
}

// sortBy sorts a group by what it names by one value.
func (x *setIndex) sortBy(g indexGroup) {
	size, off := 0, 0
	for i, n := range x.fields {
		if g.exact>>i&1 != 0 {
			size += n
		}
	}
	if size > 8 {
		slices.SortFunc(g.order, func(a, b int32) int { return x.compare(g.exact, x.set.Elements[a].From, x.set.Elements[b].From) })
		return
	}
	// Short keys are sorted as numbers.
	type keyed struct {
		key uint64
		num int32
	}
	list := make([]keyed, len(g.order))
	for k, num := range g.order {
		list[k].num = num
	}
	for i, n := range x.fields {
		if g.exact>>i&1 != 0 {
			for k := range list {
				for _, b := range x.set.Elements[list[k].num].From[off : off+n] {
					list[k].key = list[k].key<<8 | uint64(b)
				}
			}
		}
		off += (n + 3) &^ 3
	}
	slices.SortFunc(list, func(a, b keyed) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.num, b.num)) })
	for k := range list {
		g.order[k] = list[k].num
	}
}

// groups indexes a concatenation for keys of which some fields are open.
func (x *setIndex) groups(open uint32) []indexGroup {
	x.mu.Lock()
	defer x.mu.Unlock()
	if g, ok := x.by[open]; ok {
		return g
	}
	at := map[uint32]int{}
	var out []indexGroup
	for i := range x.set.Elements {
		e := &x.set.Elements[i]
		exact, off := uint32(0), 0
		for k, n := range x.fields {
			if open>>k&1 == 0 && bytes.Equal(e.From[off:off+n], e.To[off:off+n]) {
				exact |= 1 << k
			}
			off += (n + 3) &^ 3
		}
		k, ok := at[exact]
		if !ok {
			k = len(out)
			at[exact] = k
			out = append(out, indexGroup{exact: exact})
		}
		out[k].order = append(out[k].order, int32(i))
	}
	for _, g := range out {
		x.sortBy(g)
	}
	if x.by == nil {
		x.by = map[uint32][]indexGroup{}
	}
	x.by[open] = out
	return out
}
