package packetset

// Region is which cells a condition selects: all of them, a few ranges, or a bitset.
// It is not changed once made, and may be shared.
type Region struct {
	all    bool
	ranges []cellRange
	mask   *Cells
}

type cellRange struct{ from, to int32 } // to is exclusive

// Everywhere selects every cell.
var Everywhere = &Region{all: true}

// maxRanges is up to how many ranges are kept as such.
const maxRanges = 4

// Region selects the cells that touch a set of addresses. They are exactly those that
// lie in it when the space was cut at its boundaries, as Cuts tells.
func (s *Space) Region(set Set) *Region {
	r := &Region{}
	if len(set) > maxRanges {
		r.mask = s.Touching(set)
		return r
	}
	for _, iv := range set {
		r.ranges = append(r.ranges, cellRange{int32(s.Cell(iv.From)), int32(s.Cell(iv.To) + 1)})
	}
	return r
}

// Touching is the cells that hold any address of a set.
func (s *Space) Touching(set Set) *Cells {
	out := NewCells(s.Len())
	next := 0
	for _, iv := range set {
		from := s.cellFrom(next, iv.From)
		next = s.cellFrom(from, iv.To)
		out.AddRange(from, next+1)
	}
	return out
}

// cellFrom is Cell for an address that does not lie before a cell: it looks near that
// first.
func (s *Space) cellFrom(i int, a Addr) int {
	step := 1
	for i+step < len(s.Start) && s.Start[i+step].Compare(a) <= 0 {
		i += step
		step *= 2
	}
	for end := min(i+step, len(s.Start)); i+1 < end; { // Start[i] <= a < Start[end]
		if m := (i + end) / 2; s.Start[m].Compare(a) <= 0 {
			i = m
		} else {
			end = m
		}
	}
	return i
}

// All tells that the region selects every cell.
func (r *Region) All() bool { return r.all }

// Wide tells that the region is kept as a bitset.
func (r *Region) Wide() bool { return r.mask != nil }

// None tells that the region selects no cell.
func (r *Region) None() bool {
	return !r.all && len(r.ranges) == 0 && (r.mask == nil || r.mask.Empty())
}

// And is what two regions of n cells both select.
func (r *Region) And(o *Region, n int) *Region {
	switch {
	case r.all:
		return o
	case o.all:
		return r
	}
	c := r.cells(n)
	c.Keep(o.cells(n))
	return &Region{mask: c}
}

func (r *Region) cells(n int) *Cells {
	switch {
	case r.all:
		return All(n)
	case r.mask != nil:
		return r.mask.Clone()
	}
	c := NewCells(n)
	for _, x := range r.ranges {
		c.AddRange(int(x.from), int(x.to))
	}
	return c
}

// Bits are some of the 64 cells of a word.
type Bits struct {
	Word  int32
	Cells uint64
}

// Take moves the selected cells out of a set and appends them to a list.
func (c *Cells) Take(r *Region, to []Bits) []Bits {
	switch {
	case r.all:
		for k, w := range c.word {
			if w != 0 {
				to = append(to, Bits{int32(c.off + k), w})
			}
		}
		c.word = nil
		return to
	case r.mask != nil:
		a, b := shared(c, r.mask)
		first := max(c.off, r.mask.off)
		for i, w := range b {
			if got := a[i] & w; got != 0 {
				a[i] &^= got
				to = append(to, Bits{int32(first + i), got})
			}
		}
	default:
		for _, x := range r.ranges {
			from, end := max(int(x.from)>>6, c.off), min((int(x.to)-1)>>6+1, c.off+len(c.word))
			for w := from; w < end; w++ {
				m := ^uint64(0)
				if lo := int(x.from) - w<<6; lo > 0 {
					m <<= lo
				}
				if hi := (w+1)<<6 - int(x.to); hi > 0 {
					m = m << hi >> hi
				}
				if got := c.word[w-c.off] & m; got != 0 {
					c.word[w-c.off] &^= got
					to = append(to, Bits{int32(w), got})
				}
			}
		}
	}
	if len(c.word) > 0 && c.word[0] == 0 {
		c.trim()
	}
	return to
}

// Cut moves the selected cells out of a set into a new one.
func (c *Cells) Cut(r *Region) *Cells {
	out := &Cells{n: c.n}
	if r.all {
		out.off, out.word = c.off, c.word
		c.word = nil
		return out
	}
	for _, b := range c.Take(r, nil) {
		out.AddBits(int(b.Word), b.Cells)
	}
	return out
}

// TakeBits takes cells of one word out, and tells whether any was there.
func (c *Cells) TakeBits(word int, b uint64) bool {
	k := word - c.off
	if k < 0 || k >= len(c.word) || c.word[k]&b == 0 {
		return false
	}
	c.word[k] &^= b
	if k == 0 && c.word[0] == 0 {
		c.trim()
	}
	return true
}
