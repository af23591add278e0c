package packetset

import (
	"math/bits"
	"slices"
)

// Space cuts the addresses of a family into cells at the given starts: cell i
// runs from Start[i] to the address before Start[i+1].
type Space struct {
	Is4   bool
	Start []Addr // sorted, unique, the first is zero
}

// NewSpace cuts at both ends of every interval.
func NewSpace(is4 bool, ivs []Interval) *Space {
	starts := make([]Addr, 1, 2*len(ivs)+1)
	last := Last(is4)
	sorted := true
	add := func(a Addr) {
		if n := len(starts); a.Compare(last) <= 0 && a != starts[n-1] {
			sorted = sorted && starts[n-1].Compare(a) < 0
			starts = append(starts, a)
		}
	}
	for _, i := range ivs {
		add(i.From)
		if n, ok := i.To.Next(); ok {
			add(n)
		}
	}
	if !sorted {
		slices.SortFunc(starts, Addr.Compare)
	}
	return &Space{Is4: is4, Start: slices.Clip(slices.Compact(starts))}
}

// Len is the number of cells.
func (s *Space) Len() int { return len(s.Start) }

// Cell is the cell that holds a.
func (s *Space) Cell(a Addr) int {
	i, found := slices.BinarySearchFunc(s.Start, a, Addr.Compare)
	if found {
		return i
	}
	return i - 1
}

// Cuts tells whether the space is cut at both ends of an interval.
func (s *Space) Cuts(i Interval) bool {
	if _, ok := slices.BinarySearchFunc(s.Start, i.From, Addr.Compare); !ok {
		return false
	}
	n, ok := i.To.Next()
	if !ok || i.To == Last(s.Is4) {
		return true
	}
	_, ok = slices.BinarySearchFunc(s.Start, n, Addr.Compare)
	return ok
}

// Interval is the range of a cell.
func (s *Space) Interval(cell int) Interval {
	if cell+1 < len(s.Start) {
		to, _ := s.Start[cell+1].Prev()
		return Interval{s.Start[cell], to}
	}
	return Interval{s.Start[cell], Last(s.Is4)}
}

// Cells is a set of cells of a Space: a bitset over a window of them, so that a few
// cells of a large Space cost little.
type Cells struct {
	n    int
	off  int // number of the first word
	word []uint64
}

// NewCells returns an empty set for n cells.
func NewCells(n int) *Cells { return &Cells{n: n} }

// All returns the full set for n cells.
func All(n int) *Cells {
	c := NewCells(n)
	c.AddRange(0, n)
	return c
}

// Clone copies the set.
func (c *Cells) Clone() *Cells { return &Cells{n: c.n, off: c.off, word: slices.Clone(c.word)} }

// Empty tells whether no cell is in the set.
func (c *Cells) Empty() bool {
	for _, w := range c.word {
		if w != 0 {
			return false
		}
	}
	return true
}

// Has tells whether cell i is in the set.
func (c *Cells) Has(i int) bool {
	k := i>>6 - c.off
	return k >= 0 && k < len(c.word) && c.word[k]>>(i&63)&1 != 0
}

// cover widens the window to the words from a to b-1.
func (c *Cells) cover(a, b int) {
	if len(c.word) == 0 {
		c.off, c.word = a, make([]uint64, b-a)
		return
	}
	if a >= c.off && b <= c.off+len(c.word) {
		return
	}
	lo, hi := min(a, c.off), max(b, c.off+len(c.word))
	if lo == c.off { // growing upwards, as lists of intervals do
		c.word = append(c.word, make([]uint64, hi-lo-len(c.word))...)
		return
	}
	lo = max(0, lo-len(c.word)) // amortise growing downwards, too
	w := make([]uint64, hi-lo)
	copy(w[c.off-lo:], c.word)
	c.off, c.word = lo, w
}

// trim moves the window's start to the first cell, so that Empty is cheap.
func (c *Cells) trim() {
	k := 0
	for k < len(c.word) && c.word[k] == 0 {
		k++
	}
	c.off, c.word = c.off+k, c.word[k:]
}

// AddRange adds the cells from i to j-1.
func (c *Cells) AddRange(i, j int) {
	if i >= j {
		return
	}
	c.cover(i>>6, (j-1)>>6+1)
	for i < j {
		w, lo := i>>6, i&63
		n := min(64-lo, j-i)
		c.word[w-c.off] |= (^uint64(0) >> (64 - n)) << lo
		i += n
	}
}

// AddBits adds the cells of one word.
func (c *Cells) AddBits(word int, b uint64) {
	c.cover(word, word+1)
	c.word[word-c.off] |= b
}

// Add joins another set into this one.
func (c *Cells) Add(o *Cells) {
	if len(o.word) == 0 {
		return
	}
	c.cover(o.off, o.off+len(o.word))
	to := c.word[o.off-c.off:]
	for i, w := range o.word {
		to[i] |= w
	}
}

// shared returns the parts of two windows that overlap.
func shared(c, o *Cells) (a, b []uint64) {
	lo, hi := max(c.off, o.off), min(c.off+len(c.word), o.off+len(o.word))
	if lo >= hi {
		return nil, nil
	}
	return c.word[lo-c.off : hi-c.off], o.word[lo-o.off : hi-o.off]
}

// Remove takes another set out of this one.
func (c *Cells) Remove(o *Cells) {
	a, b := shared(c, o)
	for i, w := range b {
		a[i] &^= w
	}
	c.trim()
}

// Keep leaves only what is also in another set.
func (c *Cells) Keep(o *Cells) {
	lo, hi := max(c.off, o.off), min(c.off+len(c.word), o.off+len(o.word))
	if lo >= hi {
		c.word = nil
		return
	}
	a, b := shared(c, o)
	for i, w := range b {
		a[i] &= w
	}
	c.off, c.word = lo, a
	c.trim()
}

// Equal tells whether two sets hold the same cells.
func (c *Cells) Equal(o *Cells) bool {
	for len(c.word) > 0 && len(o.word) > 0 && c.off == o.off && len(c.word) == len(o.word) {
		return slices.Equal(c.word, o.word)
	}
	lo, hi := min(c.off, o.off), max(c.off+len(c.word), o.off+len(o.word))
	for w := lo; w < hi; w++ {
		if c.Word(w) != o.Word(w) {
			return false
		}
	}
	return true
}

// Word returns 64 cells at once.
func (c *Cells) Word(w int) uint64 {
	if k := w - c.off; k >= 0 && k < len(c.word) {
		return c.word[k]
	}
	return 0
}

// Hash is the same for equal sets.
func (c *Cells) Hash() uint64 {
	const prime = 0x9e3779b97f4a7c15
	h := uint64(prime)
	for i, w := range c.word {
		if w != 0 {
			h = bits.RotateLeft64(h^w*prime, 29)*prime ^ uint64(c.off+i)
		}
	}
	return h
}

// Each calls f for every cell, in order.
func (c *Cells) Each(f func(i int)) {
	for k, w := range c.word {
		for w != 0 {
			f((c.off+k)<<6 + bits.TrailingZeros64(w))
			w &= w - 1
		}
	}
}

// Words calls f for every word that is not empty, in order.
func (c *Cells) Words(f func(word int, b uint64)) {
	for k, w := range c.word {
		if w != 0 {
			f(c.off+k, w)
		}
	}
}

// Set is the addresses of the cells.
func (c *Cells) Set(s *Space) Set {
	var out Set
	run := -2
	c.Each(func(i int) {
		if i == run+1 {
			out[len(out)-1].To = s.Interval(i).To
		} else {
			out = append(out, s.Interval(i))
		}
		run = i
	})
	return out
}
