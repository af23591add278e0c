package packetset

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// addr draws addresses that often lie at borders and beside each other.
func addr(t *rapid.T, is4 bool) Addr {
	lo := rapid.OneOf(rapid.Uint64Range(0, 300), rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1, 255, 256, 1<<31 - 1, 1 << 31, 1<<32 - 1, ^uint64(0)})).Draw(t, "lo")
	if is4 {
		return Addr{Lo: lo & (1<<32 - 1)}
	}
	return Addr{Hi: rapid.SampledFrom([]uint64{0, 1, 0x20010db8 << 32, ^uint64(0)}).Draw(t, "hi"), Lo: lo}
}

func intervals(t *rapid.T, is4 bool) []Interval {
	var out []Interval
	for range rapid.IntRange(0, 6).Draw(t, "n") {
		out = append(out, Interval{addr(t, is4), addr(t, is4)}) // an interval that ends before it begins is empty
	}
	return out
}

// borders are addresses at which membership may change.
func borders(sets ...[]Interval) []Addr {
	var out []Addr
	for _, s := range sets {
		for _, i := range s {
			for _, a := range []Addr{i.From, i.To} {
				out = append(out, a)
				if p, ok := a.Prev(); ok {
					out = append(out, p)
				}
				if n, ok := a.Next(); ok {
					out = append(out, n)
				}
			}
		}
	}
	return append(out, Addr{}, Last(true), Last(false))
}

func in(l []Interval, a Addr) bool {
	return slices.ContainsFunc(l, func(i Interval) bool { return i.From.Compare(a) <= 0 && a.Compare(i.To) <= 0 })
}

// TestSetAlgebra compares with membership, one address at a time.
func TestSetAlgebra(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		is4 := rapid.Bool().Draw(t, "ipv4")
		a, b := intervals(t, is4), intervals(t, is4)
		x, y := Normalise(a), Normalise(b)
		for i := 1; i < len(x); i++ {
			if next, ok := x[i-1].To.Next(); !ok || next.Compare(x[i].From) >= 0 {
				t.Fatalf("not normal: %v", x)
			}
		}
		both, not := x.Intersect(y), x.Complement(is4)
		for _, p := range borders(a, b) {
			if is4 && p.Compare(Last(true)) > 0 {
				continue
			}
			if x.Contains(p) != in(a, p) || both.Contains(p) != (in(a, p) && in(b, p)) || not.Contains(p) == in(a, p) {
				t.Fatalf("%v: of %v and %v", p, a, b)
			}
		}
		if !slices.Equal(not.Complement(is4), x) {
			t.Fatalf("the complement of the complement of %v is %v", x, not.Complement(is4))
		}
	})
}

// TestPrefixesAreExactAndFewest: the list covers the set and nothing else, and no
// shorter list does.
func TestPrefixesAreExactAndFewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		is4 := rapid.Bool().Draw(t, "ipv4")
		s := Normalise(intervals(t, is4))
		ps := s.Prefixes(is4)
		var back []Interval
		for i, p := range ps {
			if p != p.Masked() || p.Addr().Is4() != is4 {
				t.Fatalf("%v is no prefix of the family", p)
			}
			back = append(back, PrefixInterval(p))
			// Two halves of one prefix would be one: in a sorted list of disjoint prefixes
			// that have none, every prefix is as large as the set lets it be.
			if i > 0 && ps[i-1].Bits() == p.Bits() && p.Bits() > 0 && parent(ps[i-1]) == parent(p) {
				t.Fatalf("%v and %v are one", ps[i-1], p)
			}
			if p.Bits() > 0 && len(Set{PrefixInterval(parent(p))}.Intersect(s.Complement(is4))) == 0 {
				t.Fatalf("%v lies in %v, which is in the set", p, parent(p))
			}
		}
		if !slices.Equal(Normalise(back), s) {
			t.Fatalf("%v covers %v, not %v", ps, Normalise(back), s)
		}
		n := 0
		for _, i := range Normalise(back) {
			n += len(Set{i}.Prefixes(is4))
		}
		if n != len(ps) {
			t.Fatalf("%v overlap", ps)
		}
	})
}

func parent(p netip.Prefix) netip.Prefix { return netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked() }

// TestPiecesOfASpace: a set cut into cells and put together again is the same.
func TestPiecesOfASpace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		is4 := rapid.Bool().Draw(t, "ipv4")
		a, b := Normalise(intervals(t, is4)), Normalise(intervals(t, is4))
		sp := NewSpace(is4, append(slices.Clone([]Interval(a)), b...))
		c := NewCells(sp.Len())
		for i := range sp.Len() {
			iv := sp.Interval(i)
			if sp.Cell(iv.From) != i || sp.Cell(iv.To) != i {
				t.Fatalf("cell %d is %v", i, iv)
			}
			if a.Contains(iv.From) {
				c.AddRange(i, i+1)
			}
		}
		if got := c.Set(sp); !slices.Equal(got, a) {
			t.Fatalf("got %v, want %v", got, a)
		}
		all := All(sp.Len())
		all.Remove(c)
		if got := all.Set(sp); !slices.Equal(got, a.Complement(is4)) {
			t.Fatalf("got %v, want the complement of %v", got, a)
		}
	})
}
