package reach

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/packetset"
)

func equalSets(a, b packetset.Set) bool { return a.Same(b) }

// maxDeciders is how many rules an answer names.
const maxDeciders = 8

// deciders are the rules that decide about the sources that matter: those that
// accept, or those that block when nothing is accepted.
func (sp *Space) deciders(a *Answer, must, may packetset.Set) []RuleRef {
	about := packetset.All(a.Space.Len())
	if len(may) > 0 {
		about = sp.told.touching(a.Space, may)
	}
	out := []RuleRef{}
	ds := a.deciders(about, 2*maxDeciders) // some may be nobody
	if len(must) == 0 && len(may) > 0 {
		ds = a.contenders(about)
	}
	for _, d := range ds {
		if len(out) == maxDeciders {
			break
		}
		if d.Chain != nil || d.Rule != nil {
			out = append(out, sp.Model.Ref(d.Chain, d.Rule))
		}
	}
	return out
}

// witness picks an ordinary source: one that could be somebody.
func witness(a *Answer, must, may, kernel packetset.Set, iface string, daddr netip.Addr, port uint16, is4 bool) *Witness {
	w := &Witness{Interface: iface, Sport: 49152, Daddr: daddr, Dport: port}
	from, verdict := must, WordAccept
	switch {
	case len(must) > 0:
	case len(may) > 0:
		from, verdict = may, WordUnknown
	default:
		from, verdict = kernel, WordDrop
	}
	src, ok := pick(from, is4)
	if !ok {
		return nil
	}
	w.Saddr, w.Verdict = src, verdict
	if verdict == WordDrop && a.End(a.Space.Cell(packetset.FromIP(src))) == Rejected {
		w.Verdict = WordReject
	}
	return w
}

func pick(s packetset.Set, is4 bool) (netip.Addr, bool) {
	liked := []string{"2001:db8::1", "2606:4700::1111", "fe80::1234"}
	if is4 {
		liked = []string{"198.51.100.1", "192.0.2.1", "8.8.8.8"}
	}
	for _, l := range liked {
		if a := netip.MustParseAddr(l); s.Contains(packetset.FromIP(a)) {
			return a, true
		}
	}
	if len(s) == 0 {
		return netip.Addr{}, false
	}
	// Not the network address of a prefix.
	iv := s[len(s)-1]
	if next, ok := iv.From.Next(); ok && next.Compare(iv.To) < 0 {
		return next.IP(is4), true
	}
	return iv.From.IP(is4), true
}

// describe says in words who gets in.
func (sp *Space) describe(must, may, kernel packetset.Set, is4 bool) string {
	return remember(&sp.told, keyOf(toldWords, is4, must, may, kernel), func() (string, int) { return describe(must, may, kernel, is4), 0 })
}

func describe(must, may, kernel packetset.Set, is4 bool) string {
	if len(may) == 0 {
		return "nobody"
	}
	if equalSets(must, may) {
		return Describe(must, kernel, is4)
	}
	if len(must) == 0 {
		return "perhaps " + Describe(may, kernel, is4)
	}
	return Describe(must, kernel, is4) + ", perhaps " + Describe(may, kernel, is4)
}

var linkLocal6 = netip.MustParsePrefix("fe80::/10")

// maxWords is how many prefixes a description lists.
const maxWords = 4

// Describe writes a set of sources for people: by exclusion when that is shorter.
// all is what the kernel itself would take.
func Describe(s, all packetset.Set, is4 bool) string {
	s = s.Intersect(all)
	if len(s) == 0 {
		return "nobody"
	}
	if equalSets(s, all) {
		return "anywhere"
	}
	if !is4 && equalSets(s, llSet.Intersect(all)) {
		return "link-local only"
	}
	in, nIn := cover(s, all, is4)
	out, nOut := cover(all.Intersect(s.Complement(is4)), all, is4)
	list := func(ps []netip.Prefix, n int) string {
		var w []string
		for i, p := range ps {
			if i == maxWords {
				break
			}
			t := p.String()
			switch {
			case p.IsSingleIP():
				t = p.Addr().String()
			case p == linkLocal6:
				t = "link-local"
			}
			w = append(w, t)
		}
		if n > maxWords {
			w = append(w, fmt.Sprintf("%d more prefixes", n-maxWords))
		}
		return strings.Join(w, ", ")
	}
	if min(nIn, nOut) > 2 && len(s) <= manyIntervals {
		// Holes in prefixes: what is around them is shorter.
		if in, out := carve(s, all, is4); len(out) > 0 && len(in)+len(out) < min(nIn, nOut) {
			where := list(in, len(in))
			if in[0].Bits() == 0 {
				where = "anywhere"
			}
			return where + " except " + list(out, len(out))
		}
	}
	if nOut < nIn {
		return "anywhere except " + list(out, nOut)
	}
	return list(in, nIn)
}

// manyIntervals is from how many on a description does not try to join prefixes.
const manyIntervals = 64

// cover is the start of the shortest readable list for a set, and how long that is:
// sources that the kernel takes from nobody may be in it or not, and are where that
// joins prefixes.
func cover(s, all packetset.Set, is4 bool) (first []netip.Prefix, n int) {
	if len(s) > manyIntervals {
		return s.FirstPrefixes(is4, maxWords), s.CountPrefixes(is4)
	}
	exact := s.Prefixes(is4)
	ivs := append(slices.Clone([]packetset.Interval(s)), all.Complement(is4)...)
	wide := slices.DeleteFunc(packetset.Normalise(ivs).Prefixes(is4), func(p netip.Prefix) bool {
		return !s.Overlaps(packetset.PrefixInterval(p))
	})
	if len(wide) < len(exact) {
		return wide, len(wide)
	}
	return exact, len(exact)
}
