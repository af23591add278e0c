package reach

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// End is what may become of a packet: a set of possibilities.
type End uint8

// The ends.
const (
	Accepted End = 1 << iota
	Dropped
	Rejected
	Stolen // taken out of the stack: queue, fwd, synproxy
)

// Step is a rule that was met, for trace.
type Step struct {
	Rule   *rs.Rule // nil for a policy
	Chain  *rs.Chain
	Match  tri
	Result string
}

// Matched tells whether the rule surely matched, or was a policy.
func (s Step) Matched() bool { return s.Match == yes }

// Missed tells whether the rule surely did not match.
func (s Step) Missed() bool { return s.Match == no }

// Answer is what a ruleset does with a packet, for every source.
type Answer struct {
	Space *packetset.Space
	// Limited cells are accepted only up to a rate.
	Limited *packetset.Cells
	Path    []Step // when it was asked for
	// Translated are the accepted cells whose destination NAT may have changed.
	Translated []Translation
	Needs      []string
	Opaque     []string

	ends fates
	log  []decision
	by   []decider
}

// decider is one rule, or the rules of a swath.
type decider struct {
	Decider
	swath *swathed
}

// weight is about how many decisions are kept.
func (a *Answer) weight() int {
	n := len(a.log)
	for i := range a.by {
		if u := a.by[i].swath; u != nil {
			n += len(u.claims) + a.Space.Len()/64
		}
	}
	return n
}

// fates are the cells that may come to each end.
type fates [endKinds]*packetset.Cells

const endKinds = 4

// decision is which of 64 cells a Decider ended the way of; a later one counts.
type decision struct {
	word, by int32
	bits     uint64
}

// Translation is what destination NAT made of a packet.
type Translation struct {
	Daddr netip.Addr // invalid: unchanged, or Lost
	Lost  bool       // an address of this host's choosing (redirect, a range, a map)
	Dport int32      // -1 unchanged, -2 not known
	Cells *packetset.Cells
}

// Decider is a rule, or the policy of a chain.
type Decider struct {
	Chain *rs.Chain
	Rule  *rs.Rule
}

// End is what may become of the packets of a cell.
func (a *Answer) End(cell int) End {
	var e End
	for k, c := range a.ends {
		if c != nil && c.Has(cell) {
			e |= 1 << k
		}
	}
	return e
}

// Must is the set of sources that are surely accepted, May those that possibly are.
func (a *Answer) Must() packetset.Set { return a.must().Set(a.Space) }

// May is the set of sources that may be accepted.
func (a *Answer) May() packetset.Set { return a.may().Set(a.Space) }

func (a *Answer) must() *packetset.Cells {
	out := a.ends.of(Accepted, a.Space.Len())
	out.Remove(a.ends.of(Dropped|Rejected|Stolen, a.Space.Len()))
	return out
}

func (a *Answer) may() *packetset.Cells { return a.ends.of(Accepted|Stolen, a.Space.Len()) }

// of are the cells that may come to one of some ends.
func (f *fates) of(e End, n int) *packetset.Cells {
	out := packetset.NewCells(n)
	for k, c := range f {
		if c != nil && e>>k&1 != 0 {
			out.Add(c)
		}
	}
	return out
}

// add notes that cells of a word may come to some ends.
func (f *fates) add(e End, n, word int, b uint64) {
	for k := range f {
		if e>>k&1 != 0 {
			if f[k] == nil {
				f[k] = packetset.NewCells(n)
			}
			f[k].AddBits(word, b)
		}
	}
}

// Deciders are the rules and policies that decided about some cells, in the order they
// were met.
func (a *Answer) Deciders(about *packetset.Cells) []Decider { return a.deciders(about, -1) }

// deciders are the first of the Deciders; -1 is all.
func (a *Answer) deciders(about *packetset.Cells, most int) []Decider {
	left := about.Clone()
	used := make([]bool, len(a.by))
	swaths := map[int32][]bool{}
	for i := len(a.log) - 1; i >= 0 && !left.Empty(); i-- {
		d := &a.log[i]
		if u := a.by[d.by].swath; u != nil {
			rules := make([]bool, len(u.rules))
			u.deciders(left, rules)
			used[d.by], swaths[d.by] = true, rules
		} else if left.TakeBits(int(d.word), d.bits) {
			used[d.by] = true
		}
	}
	var out []Decider
	for i, yes := range used {
		switch u := a.by[i].swath; {
		case !yes:
		case len(out) == most:
			return out
		case u != nil:
			for k, yes := range swaths[int32(i)] {
				if yes && len(out) != most {
					out = append(out, Decider{Chain: u.c.chain, Rule: u.c.rules[u.rules[k].num].rule})
				}
			}
		default:
			out = append(out, a.by[i].Decider)
		}
	}
	return out
}
