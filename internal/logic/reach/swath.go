package reach

import (
	"cmp"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// swath is a run of rules that only accept, drop or return, painted once: which of them
// the sources meet first, of those that match every port.
type swath struct {
	rules []runRule
	last  int32 // of the painted rules
	// bits are, by word, the cells that each rule gets.
	first int
	start []int32 // by word, from first on
	bits  []painted
	all   *packetset.Cells
	took  [swathKinds]*packetset.Cells // by verdict
	ports map[uint16][]int32           // rules that match a port, in order
	other []int32                      // rules that look at the port in another way, in order
	c     *cchain
}

type painted struct {
	bits uint64
	rule int32 // in rules
	word int32
}

const (
	swathAccept = iota
	swathDrop
	swathReject
	swathReturn
	swathKinds
)

func swathKind(r *crule) int {
	switch {
	case r.verdict == rs.Accept:
		return swathAccept
	case r.verdict == rs.Return:
		return swathReturn
	case r.reject:
		return swathReject
	}
	return swathDrop
}

// paint makes a swath of the rules of a run.
func (b *residuals) paint(run []runRule) *swath {
	n := b.p.space.Len()
	sp := &swath{c: b.c, all: packetset.NewCells(n), rules: slices.Clone(run), ports: map[uint16][]int32{}}
	left := packetset.All(n)
	var taken []packetset.Bits
	for i := range sp.rules {
		r := &sp.rules[i]
		if left.Empty() {
			break // nothing comes here
		}
		if r.kind != matchesAll {
			for _, port := range r.ports {
				sp.ports[port] = append(sp.ports[port], int32(i))
			}
			if r.ports == nil {
				sp.other = append(sp.other, int32(i))
			}
			continue
		}
		k := swathKind(&b.c.rules[r.num])
		if sp.took[k] == nil {
			sp.took[k] = packetset.NewCells(n)
		}
		taken = left.Take(r.reg, taken[:0])
		for _, x := range taken {
			sp.bits = append(sp.bits, painted{x.Cells, int32(i), x.Word})
			sp.took[k].AddBits(int(x.Word), x.Cells)
			sp.all.AddBits(int(x.Word), x.Cells)
			sp.last = int32(i)
		}
	}
	slices.SortStableFunc(sp.bits, func(a, b painted) int { return cmp.Compare(a.word, b.word) })
	sp.bits = slices.Clip(sp.bits)
	if len(sp.bits) > 0 {
		sp.first = int(sp.bits[0].word)
		sp.start = make([]int32, int(sp.bits[len(sp.bits)-1].word)-sp.first+2)
		for _, x := range sp.bits {
			sp.start[int(x.word)-sp.first+1]++
		}
		for i := 1; i < len(sp.start); i++ {
			sp.start[i] += sp.start[i-1]
		}
	}
	return sp
}

// in are the cells of a word that the rules painted, in order.
func (sp *swath) in(word int) []painted {
	k := word - sp.first
	if k < 0 || k+1 >= len(sp.start) {
		return nil
	}
	return sp.bits[sp.start[k]:sp.start[k+1]]
}

// before are the cells of a word that rules before one get.
func (sp *swath) before(word int, rule int32) uint64 {
	if rule > sp.last {
		return sp.all.Word(word)
	}
	var out uint64
	for _, x := range sp.in(word) {
		if x.rule >= rule {
			break
		}
		out |= x.bits
	}
	return out
}

// swathed is what a swath did to the sources of one question.
type swathed struct {
	*swath
	cells  *packetset.Cells // that came to it, and that no rule for the port took
	claims []decision       // of rules for the port, by number in rules
}

// deciders finds the rules that decided about some cells, and takes those out.
func (u *swathed) deciders(left *packetset.Cells, used []bool) {
	for i := range u.claims {
		if d := &u.claims[i]; left.TakeBits(int(d.word), d.bits) {
			used[d.by] = true
		}
	}
	mine := left.Clone()
	mine.Keep(u.cells)
	mine.Words(func(word int, b uint64) {
		left.TakeBits(word, b)
		for _, x := range u.in(word) {
			if x.bits&b != 0 {
				used[x.rule] = true
			}
		}
	})
}

// cover runs a swath over a group, whose cells are used up as far as it decides.
func (w *walker) cover(sp *swath, g *group, returned []group) []group {
	n := w.ans.Space.Len()
	u := swathed{swath: sp}
	back := packetset.NewCells(n)
	put := func(k int, word int, b uint64) {
		switch k {
		case swathAccept:
			w.passing(&g.env).AddBits(word, b)
		case swathDrop:
			w.fates(&g.env).add(Dropped, n, word, b)
		case swathReject:
			w.fates(&g.env).add(Rejected, n, word, b)
		default:
			back.AddBits(word, b)
		}
	}
	claim := func(i int32) {
		r := &sp.c.rules[sp.rules[i].num]
		h, reg := g.view.match(r)
		if h == slow { // the layer tells that it cannot be
			w.q.opaque["a rule that looks at the port"] = true
			w.reach(*g, Accepted|Dropped)
			return
		}
		if h == missed {
			return
		}
		w.taken = g.cells.Take(reg, w.taken[:0])
		k := swathKind(r)
		for _, x := range w.taken {
			if early := sp.before(int(x.Word), i) & x.Cells; early != 0 {
				g.cells.AddBits(int(x.Word), early)
				x.Cells &^= early
			}
			if x.Cells != 0 {
				put(k, int(x.Word), x.Cells)
				if k != swathReturn {
					u.claims = append(u.claims, decision{x.Word, i, x.Cells})
				}
			}
		}
	}
	named, other := sp.ports[g.view.port], sp.other
	for len(named)+len(other) > 0 && !g.cells.Empty() {
		if len(other) == 0 || len(named) > 0 && named[0] < other[0] {
			claim(named[0])
			named = named[1:]
		} else {
			claim(other[0])
			other = other[1:]
		}
	}
	u.cells = g.cells.Clone()
	u.cells.Keep(sp.all)
	if !u.cells.Empty() {
		for k, c := range sp.took {
			if c != nil {
				x := u.cells.Clone()
				x.Keep(c)
				x.Words(func(word int, b uint64) { put(k, word, b) })
			}
		}
		if sp.took[swathReturn] != nil {
			u.cells.Remove(sp.took[swathReturn])
		}
		g.cells.Remove(sp.all)
	}
	if !g.env.over && (len(u.claims) > 0 || !u.cells.Empty()) {
		w.ans.log = append(w.ans.log, decision{-1, int32(len(w.ans.by)), 0})
		w.ans.by = append(w.ans.by, decider{swath: &u})
	}
	return join(returned, group{env: g.env, cells: back})
}
