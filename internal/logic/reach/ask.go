package reach

import (
	"slices"
	"sync"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// boundaries collects where the sources are cut, by running every rule that
// the packet could meet without knowing what earlier rules did.
func (q *question) boundaries(hooks []rs.Hook) []packetset.Interval {
	var out []packetset.Interval
	seen := map[*rs.Chain]bool{}
	blank := env{dport: -2, daddrLost: true, untracked: maybe}
	q.at = place{any: true}
	var visit func(c *rs.Chain)
	collect := func(o outcome) {
		out = append(out, o.cond.yes...)
		out = append(out, o.cond.may...)
	}
	visit = func(c *rs.Chain) {
		if c == nil || seen[c] {
			return
		}
		seen[c] = true
		for _, r := range c.Rules {
			for _, b := range q.rule(r, blank) {
				if b.cond.impossible() {
					continue
				}
				collect(b)
				if b.verdict == rs.Jump || b.verdict == rs.Goto {
					visit(c.Table.Chain(b.chain))
				}
			}
		}
	}
	for _, h := range hooks {
		for _, c := range chainsAt(q.set, h, q.p) {
			visit(c)
		}
	}
	return out
}

// Ask puts a packet to a ruleset of a host about whose routes nothing is known.
func Ask(set *rs.Ruleset, order appendOrder, p Packet, h rs.Hook, only bool) *Answer {
	return (&Model{Set: set, Order: order}).Ask(p, h, only)
}

// Model is a ruleset with what it asks its host about.
type Model struct {
	Set   *rs.Ruleset
	Order appendOrder // of the host the rules run on
	World World       // nil: nothing is known
	// Trace keeps the path of questions whose source is open, too.
	Trace bool

	mu   sync.Mutex
	uses map[rs.Family]*uses
}

// usesOf remembers what a family makes the kernel do: the Set must not change.
func (m *Model) usesOf(f rs.Family) *uses {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.uses == nil {
		m.uses = map[rs.Family]*uses{}
	}
	if m.uses[f] == nil {
		m.uses[f] = usesOf(m.Set, f)
	}
	return m.uses[f]
}

// Ask puts a packet to the ruleset.
func (m *Model) Ask(p Packet, h rs.Hook, only bool) *Answer { return m.ask(p, h, only, m.Trace) }

func (m *Model) ask(p Packet, h rs.Hook, only, trace bool) *Answer {
	set, order := m.Set, m.Order
	q := &question{p: &p, l: p.layout(), set: set, order: order, world: m.World, opaque: map[string]bool{}, uses: m.usesOf(p.Family)}
	q.defrag = p.reassembled()
	hooks := hooksOf(h)
	if only {
		hooks = []rs.Hook{h}
	}
	var cuts []packetset.Interval
	if !p.Saddr.Set {
		if q.uses.nat && !only { // destination NAT may send packets the other way
			hooks = slices.Concat(hooksOf(rs.Forward), hooksOf(rs.Input), hooks)
		}
		cuts = q.boundaries(hooks)
	}
	a := &Answer{Space: packetset.NewSpace(q.is4(), cuts)}
	if p.Saddr.Set {
		a.Space = &packetset.Space{Is4: q.is4(), Start: make([]packetset.Addr, 1)}
	}
	n := a.Space.Len()
	a.Ends, a.Decider, a.Limited = make([]End, n), make([]Decider, n), packetset.NewCells(n)
	w := &walker{q: q, ans: a, trace: p.Saddr.Set || trace}
	w.over = make([]End, n)
	w.run(h, only)
	w.finish()
	for f := fieldIIF; f < fieldCount; f++ {
		if q.needs>>f&1 != 0 {
			a.Needs = append(a.Needs, fieldNames[f])
		}
	}
	for k := range q.opaque {
		a.Opaque = append(a.Opaque, k)
	}
	slices.Sort(a.Needs)
	slices.Sort(a.Opaque)
	return a
}
