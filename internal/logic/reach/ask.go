package reach

import (
	"slices"
	"sync"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Ask puts a packet to a ruleset of a host about whose routes nothing is known.
func Ask(set *rs.Ruleset, order appendOrder, p Packet, h rs.Hook, only bool) *Answer {
	return (&Model{Set: set, Order: order}).Ask(p, h, only)
}

// Model is a ruleset with what it asks its host about.
type Model struct {
	Set   *rs.Ruleset
	Order appendOrder // of the host the rules run on
	World World       // nil: nothing is known
	// Trace keeps the path of every question.
	Trace bool

	mu       sync.Mutex
	uses     map[rs.Family]*uses
	programs map[rs.Family]*program
	plain    bool // rule by rule, as the interpreter in rule.go says: what tests compare with
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

// onePoint is the space of a question whose source is fixed.
var onePoint = map[bool]*packetset.Space{
	true: {Is4: true, Start: make([]packetset.Addr, 1)}, false: {Start: make([]packetset.Addr, 1)},
}

// maxCells bounds the space of a family.
const maxCells = 1 << 23

// fit returns a program whose space is also cut where only this question cuts it.
func (m *Model) fit(q *question, p *program) *program {
	if len(p.specific) == 0 || p.space.Len() > maxCells {
		return p
	}
	var more []packetset.Interval
	l, at := q.l, q.at
	q.at = place{any: true}
	for _, r := range p.specific {
		more = append(more, q.boundaries(r)...)
	}
	q.l, q.at, q.needs = l, at, 0
	clear(q.opaque)
	if more = uncut(p.space, more); len(more) == 0 {
		return p
	}
	return m.refined(q.p.Family, p, more)
}

// Ask puts a packet to the ruleset.
func (m *Model) Ask(p Packet, h rs.Hook, only bool) *Answer {
	return m.ask(p, h, only, m.Trace)
}

// Walk is Ask rule by rule, with the path of the packet.
func (m *Model) Walk(p Packet, h rs.Hook, only bool) *Answer {
	return m.ask(p, h, only, true)
}

func (m *Model) ask(p Packet, h rs.Hook, only, trace bool) *Answer {
	types := m.daddrTypes(&p, h, only)
	a := m.askAs(p, h, only, trace, types[0])
	for _, t := range types[1:] {
		b := m.askAs(p, h, only, trace, t)
		if b.Space.Len() != a.Space.Len() {
			return m.askAs(p, h, only, trace, 0)
		}
		a.join(b)
	}
	if len(types) > 1 && !a.settled() {
		any := m.askAs(p, h, only, trace, 0)
		a.Path, a.Opaque = any.Path, any.Opaque
	}
	return a
}

// settled tells that one end is possible for every source.
func (a *Answer) settled() bool {
	for i := range a.Space.Len() {
		if e := a.End(i); e&(e-1) != 0 {
			return false
		}
	}
	return true
}

// daddrTypes are the types that the destination can have for a packet that goes that
// way, of a host about whose routes nothing is known; 0 is any. A rule that tells them
// apart is asked once for each: what comes out every time is sure.
func (m *Model) daddrTypes(p *Packet, h rs.Hook, only bool) []uint32 {
	u := m.usesOf(p.Family)
	if m.World != nil || !u.daddrType || p.Local {
		return []uint32{0}
	}
	if a := p.Daddr; a.Set && a.V.IsMulticast() {
		return []uint32{rtnMulticast}
	}
	var out []uint32
	switch h {
	case rs.Input:
		out = []uint32{rtnLocal, rtnAnycast}
		if p.Family == rs.IPv4 {
			out[1] = rtnBroadcast
		}
		if !p.Daddr.Set {
			out = append(out, rtnMulticast)
		}
		if u.dnat && !only { // it may have been for somebody else
			out = append(out, rtnUnicast)
		}
	case rs.Forward:
		out = []uint32{rtnUnicast}
		if u.dnat || u.snat {
			out = append(out, rtnLocal)
		}
	default:
		return []uint32{0}
	}
	return out
}

// join adds what another answer over the same sources says is possible.
func (a *Answer) join(b *Answer) {
	for k, c := range b.ends {
		switch {
		case c == nil:
		case a.ends[k] == nil:
			a.ends[k] = c
		default:
			a.ends[k].Add(c)
		}
	}
	a.Limited.Add(b.Limited)
	a.Translated = append(a.Translated, b.Translated...)
	a.Needs = append(a.Needs, b.Needs...)
	a.Opaque = append(a.Opaque, b.Opaque...)
	slices.Sort(a.Needs)
	slices.Sort(a.Opaque)
	a.Needs, a.Opaque = slices.Compact(a.Needs), slices.Compact(a.Opaque)
}

func (m *Model) askAs(p Packet, h rs.Hook, only, trace bool, daddrType uint32) *Answer {
	set, order := m.Set, m.Order
	q := &question{p: &p, l: p.layout(), set: set, order: order, world: m.World, opaque: map[string]bool{}, uses: m.usesOf(p.Family)}
	q.defrag = p.reassembled()
	q.ports()
	ways, why := q.ways(h, only)
	prog := m.program(p.Family)
	if !p.Saddr.Set {
		prog = m.fit(q, prog)
	}
	q.daddrType = daddrType
	key := ""
	if !p.Saddr.Set && !trace && !m.plain && daddrType == 0 { // others are joined
		if key = q.class(prog, ways); key != "" {
			if a := prog.answers.get(key); a != nil {
				return a
			}
		}
	}
	a := &Answer{Space: prog.space}
	if p.Saddr.Set {
		a.Space = onePoint[q.is4()]
	}
	a.Limited = packetset.NewCells(a.Space.Len())
	w := &walker{q: q, asked: h, ans: a, prog: prog, trace: trace, plain: trace || m.plain}
	for _, way := range ways {
		w.hooks(way, []group{{env: w.q.fresh(), cells: packetset.All(a.Space.Len())}})
	}
	if why != "" {
		q.opaque[why] = true
	}
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
	a.Needs, a.Opaque = slices.Clip(a.Needs), slices.Clip(a.Opaque)
	if key != "" {
		prog.answers.put(key, a)
	}
	return a
}
