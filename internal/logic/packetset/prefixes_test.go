package packetset

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func randomSet(r *rand.Rand, is4 bool, n int) Set {
	var ivs []Interval
	for range n {
		a := Addr{Lo: r.Uint64() & 0xffff}
		if !is4 && r.IntN(2) == 0 {
			a = Addr{r.Uint64() >> r.IntN(64), r.Uint64() >> r.IntN(64)}
		}
		b := a
		for range r.IntN(300) {
			if next, ok := b.Next(); ok {
				b = next
			}
		}
		if !is4 && r.IntN(4) == 0 {
			b = blockEnd(a, r.IntN(129))
		}
		ivs = append(ivs, Interval{a, b})
	}
	return Normalise(ivs)
}

func union(ps []netip.Prefix) Set {
	var ivs []Interval
	for _, p := range ps {
		ivs = append(ivs, PrefixInterval(p))
	}
	return Normalise(ivs)
}

func TestPrefixes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		is4 := i%2 == 0
		s := randomSet(r, is4, r.IntN(20))
		ps := s.Prefixes(is4)
		if got := union(ps); !got.Same(s) {
			t.Fatalf("%v: prefixes %v are %v", s, ps, got)
		}
		if s.CountPrefixes(is4) != len(ps) {
			t.Fatalf("%v: count %d, prefixes %d", s, s.CountPrefixes(is4), len(ps))
		}
		if k := r.IntN(9); !slices.Equal(s.FirstPrefixes(is4, k), ps[:min(k, len(ps))]) {
			t.Fatalf("%v: first %d of %v", s, k, ps)
		}
		most := r.IntN(40)
		in, around := s.Inside(is4, most), s.Around(is4, max(1, most))
		if in.CountPrefixes(is4) > most || len(in.Intersect(s.Complement(is4))) > 0 {
			t.Fatalf("%v: inside of %d is %v", s, most, in)
		}
		if around.CountPrefixes(is4) > max(1, most) || len(s.Intersect(around.Complement(is4))) > 0 {
			t.Fatalf("%v: around of %d is %v", s, most, around)
		}
		if len(ps) <= most && (!in.Same(s) || !around.Same(s)) {
			t.Fatalf("%v has %d prefixes, and %d would do", s, len(ps), most)
		}
		probe := randomSet(r, is4, 1)
		if len(probe) == 1 && s.Overlaps(probe[0]) != (len(s.Intersect(probe)) > 0) {
			t.Fatalf("%v overlaps %v?", s, probe)
		}
	}
	if got := (Set{{To: Last(false)}}).Prefixes(false); len(got) != 1 || got[0] != netip.MustParsePrefix("::/0") {
		t.Fatalf("everything is %v", got)
	}
}

// Cells against a plain map, and regions against cells.
func TestCells(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		n := 1 + r.IntN(400)
		c, plain := NewCells(n), map[int]bool{}
		for range r.IntN(12) {
			o := NewCells(n)
			for range r.IntN(4) {
				i := r.IntN(n)
				o.AddRange(i, min(n, i+r.IntN(150)))
			}
			switch r.IntN(5) {
			case 0, 1:
				c.Add(o)
				o.Each(func(i int) { plain[i] = true })
			case 2:
				c.Remove(o)
				o.Each(func(i int) { delete(plain, i) })
			case 3:
				c.Keep(o)
				for i := range plain {
					if !o.Has(i) {
						delete(plain, i)
					}
				}
			default:
				reg := &Region{mask: o}
				if r.IntN(2) == 0 {
					reg = &Region{}
					for i := 0; i < n; i++ {
						if o.Has(i) {
							reg.ranges = append(reg.ranges, cellRange{int32(i), int32(i + 1)})
						}
					}
				}
				got := c.Cut(reg)
				got.Each(func(i int) {
					if !plain[i] || !o.Has(i) {
						t.Fatalf("cell %d was not to be taken", i)
					}
				})
				o.Each(func(i int) {
					if plain[i] && !got.Has(i) {
						t.Fatalf("cell %d was to be taken", i)
					}
					delete(plain, i)
				})
			}
			copied := NewCells(n)
			for i := range plain {
				copied.AddRange(i, i+1)
			}
			if !c.Equal(copied) || !copied.Equal(c) || c.Hash() != copied.Hash() || c.Empty() != (len(plain) == 0) {
				t.Fatalf("cells %+v, want %v", c, plain)
			}
		}
	}
}
