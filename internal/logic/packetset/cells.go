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
	for _, i := range ivs {
		if i.From.Compare(last) <= 0 {
			starts = append(starts, i.From)
		}
		if n, ok := i.To.Next(); ok && n.Compare(last) <= 0 {
			starts = append(starts, n)
		}
	}
	slices.SortFunc(starts, Addr.Compare)
	return &Space{Is4: is4, Start: slices.Compact(starts)}
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

// Interval is the range of a cell.
func (s *Space) Interval(cell int) Interval {
	if cell+1 < len(s.Start) {
		to, _ := s.Start[cell+1].Prev()
		return Interval{s.Start[cell], to}
	}
	return Interval{s.Start[cell], Last(s.Is4)}
}

// Cells is the set of cells of a Space: a bitset.
type Cells struct {
	n    int
	word []uint64
}

// NewCells returns an empty set for n cells.
func NewCells(n int) *Cells { return &Cells{n: n, word: make([]uint64, (n+63)/64)} }

// All returns the full set for n cells.
func All(n int) *Cells {
	c := NewCells(n)
	c.AddRange(0, n)
	return c
}

// Clone copies the set.
func (c *Cells) Clone() *Cells { return &Cells{n: c.n, word: slices.Clone(c.word)} }

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
func (c *Cells) Has(i int) bool { return c.word[i>>6]>>(i&63)&1 != 0 }

// AddRange adds the cells from i to j-1.
func (c *Cells) AddRange(i, j int) {
	for i < j {
		w, lo := i>>6, i&63
		n := min(64-lo, j-i)
		c.word[w] |= (^uint64(0) >> (64 - n)) << lo
		i += n
	}
}

// Add joins another set into this one.
func (c *Cells) Add(o *Cells) {
	for i, w := range o.word {
		c.word[i] |= w
	}
}

// Remove takes another set out of this one.
func (c *Cells) Remove(o *Cells) {
	for i, w := range o.word {
		c.word[i] &^= w
	}
}

// Keep leaves only what is also in another set.
func (c *Cells) Keep(o *Cells) {
	for i, w := range o.word {
		c.word[i] &= w
	}
}

// Each calls f for every cell, in order.
func (c *Cells) Each(f func(i int)) {
	for k, w := range c.word {
		for w != 0 {
			f(k<<6 + bits.TrailingZeros64(w))
			w &= w - 1
		}
	}
}

// Set is the addresses of the cells.
func (c *Cells) Set(s *Space) Set {
	var out Set
	run := -2
	c.Each(func(i int) {
		iv := s.Interval(i)
		if i == run+1 {
			out[len(out)-1].To = iv.To
		} else {
			out = append(out, iv)
		}
		run = i
	})
	return out
}
