package packetset

import (
	"math/bits"
	"net/netip"
)

// blocks calls f with the aligned blocks that an interval consists of, in order, as
// their first address and the number of free bits.
func (i Interval) blocks(width int, f func(from Addr, n int)) {
	if i.From == i.To {
		f(i.From, 0)
		return
	}
	for from := i.From; ; {
		// The largest aligned block at from that does not pass the end.
		n := min(trailingZeros(from), width)
		if blockEnd(from, n).Compare(i.To) > 0 {
			n = min(n, sizeBits(from, i.To))
		}
		f(from, n)
		end := blockEnd(from, n)
		next, ok := end.Next()
		if !ok || end.Compare(i.To) >= 0 {
			return
		}
		from = next
	}
}

// sizeBits is the largest n with 2^n addresses between from and to.
func sizeBits(from, to Addr) int {
	lo, b := bits.Sub64(to.Lo, from.Lo, 0)
	hi, _ := bits.Sub64(to.Hi, from.Hi, b)
	lo, c := bits.Add64(lo, 1, 0)
	hi, _ = bits.Add64(hi, 0, c)
	switch {
	case hi != 0:
		return 127 - bits.LeadingZeros64(hi)
	case lo != 0:
		return 63 - bits.LeadingZeros64(lo)
	}
	return 128
}

func width(is4 bool) int {
	if is4 {
		return 32
	}
	return 128
}

// CountPrefixes is how many prefixes cover the set exactly.
func (s Set) CountPrefixes(is4 bool) int {
	n := 0
	for _, i := range s {
		i.blocks(width(is4), func(Addr, int) { n++ })
	}
	return n
}

// Prefixes is the minimal list of prefixes that covers the set exactly.
func (s Set) Prefixes(is4 bool) []netip.Prefix { return s.FirstPrefixes(is4, -1) }

// AppendPrefixes appends Prefixes to a list.
func (s Set) AppendPrefixes(to []netip.Prefix, is4 bool) []netip.Prefix {
	w := width(is4)
	for _, i := range s {
		i.blocks(w, func(from Addr, n int) { to = append(to, netip.PrefixFrom(from.IP(is4), w-n)) })
	}
	return to
}

// FirstPrefixes is Prefixes up to a number of them; -1 is all.
func (s Set) FirstPrefixes(is4 bool, most int) []netip.Prefix {
	w := width(is4)
	var out []netip.Prefix
	for _, i := range s {
		if len(out) == most {
			break
		}
		i.blocks(w, func(from Addr, n int) {
			if len(out) != most {
				out = append(out, netip.PrefixFrom(from.IP(is4), w-n))
			}
		})
	}
	return out
}

// Inside is a subset of at most that many prefixes: the largest ones. It is the set
// itself where that has no more.
func (s Set) Inside(is4 bool, most int) Set {
	var count [129]int
	for _, i := range s {
		i.blocks(width(is4), func(_ Addr, n int) { count[n]++ })
	}
	total, least := 0, 129
	for n := 128; n >= 0 && total+count[n] <= most; n-- {
		total, least = total+count[n], n
	}
	if least == 0 {
		return s
	}
	var out []Interval
	for _, i := range s {
		i.blocks(width(is4), func(from Addr, n int) {
			if n >= least {
				out = append(out, Interval{from, blockEnd(from, n)})
			}
		})
	}
	return Normalise(out)
}

// Around is a superset of at most that many prefixes: its intervals reach to the next
// boundary of blocks as small as possible. It is the set itself where that has no more.
func (s Set) Around(is4 bool, most int) Set {
	for n := 0; n <= width(is4); n += 4 {
		wide := s
		if n > 0 {
			wide = nil
			for _, i := range s {
				from, to := blockStart(i.From, n), blockEnd(i.To, n)
				if k := len(wide); k > 0 {
					if next, ok := wide[k-1].To.Next(); !ok || from.Compare(next) <= 0 {
						wide[k-1].To = to
						continue
					}
				}
				wide = append(wide, Interval{from, to})
			}
		}
		if len(wide) <= most && wide.CountPrefixes(is4) <= most {
			return wide
		}
	}
	return Set{{To: Last(is4)}}
}

func blockStart(a Addr, n int) Addr {
	switch {
	case n >= 128:
		return Addr{}
	case n >= 64:
		return Addr{a.Hi &^ (1<<(n-64) - 1), 0}
	}
	return Addr{a.Hi, a.Lo &^ (1<<n - 1)}
}

// Overlaps tells whether the set holds any address of an interval.
func (s Set) Overlaps(i Interval) bool {
	lo, hi := 0, len(s) // the first interval that ends at or after i starts
	for lo < hi {
		m := (lo + hi) / 2
		if s[m].To.Compare(i.From) < 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo < len(s) && s[lo].From.Compare(i.To) <= 0
}

// Same tells whether two sets hold the same addresses.
func (s Set) Same(o Set) bool {
	if len(s) != len(o) {
		return false
	}
	if len(s) == 0 || &s[0] == &o[0] {
		return true
	}
	for i := range s {
		if s[i] != o[i] {
			return false
		}
	}
	return true
}
