package reach

import (
	"sort"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// deepest is how deep chains may jump: x_tables makes its stack as deep as its rules
// need it.
func deepest(c *rs.Chain) int {
	if c.Table.Source == rs.XTables {
		return 1000
	}
	return maxDepth
}

// lane is a group on its way through a chain.
type lane struct {
	group
	pos int // the next rule that it has to meet
	// at is that rule, or the swath that starts there.
	at    item
	res   *residual
	named []item // of the port
	// seen are how many items lie behind.
	seenAlways, seenNamed int
}

// residual is the chain as it is for a packet; nil where there is none.
func (w *walker) residual(c *cchain, v *view) *residual {
	if w.ans.Space != w.prog.space {
		return nil
	}
	in := v.layer()
	if in == nil {
		return nil
	}
	return w.prog.residual(in, c)
}

// advance finds the next rule to meet from one on.
func (l *lane) advance(from, end int) {
	l.pos, l.at = from, item{from: int32(from), to: int32(from + 1)}
	if l.res == nil || from >= end {
		return
	}
	behind := func(list []item, n int) int {
		for n < len(list) && int(list[n].to) <= from {
			n++
		}
		return n
	}
	l.seenAlways = behind(l.res.always, l.seenAlways)
	l.seenNamed = behind(l.named, l.seenNamed)
	var next *item
	if l.seenAlways < len(l.res.always) {
		next = &l.res.always[l.seenAlways]
	}
	if l.seenNamed < len(l.named) && (next == nil || l.named[l.seenNamed].from < next.from) {
		next = &l.named[l.seenNamed]
	}
	switch {
	case next == nil:
		l.pos = end
	case int(next.from) >= from: // else it comes to the middle of a swath, which it meets rule by rule
		l.pos, l.at = int(next.from), *next
	}
}

// lanes are the groups in a chain.
type lanes struct {
	w    *walker
	c    *cchain
	list []lane
	// each: every rule is looked at, since there are too many groups.
	each bool
	// apart: groups with one environment may be at different rules.
	apart bool
}

// enter puts a group, which nobody else holds, before a rule.
func (s *lanes) enter(g group, from int) {
	if g.cells.Empty() {
		return
	}
	if g.view == nil {
		g.view = s.w.view(&g.env)
	}
	l := lane{group: g}
	if !s.each {
		if l.res = s.w.residual(s.c, g.view); l.res != nil {
			l.named = l.res.byPort[g.view.port]
			if from > 0 {
				l.seenAlways = sort.Search(len(l.res.always), func(i int) bool { return int(l.res.always[i].to) > from })
				l.seenNamed = sort.Search(len(l.named), func(i int) bool { return int(l.named[i].to) > from })
			}
		}
	}
	l.advance(from, len(s.c.rules))
	for i := range s.list {
		o := &s.list[i]
		if o.env != g.env {
			continue
		}
		if o.cells.Empty() {
			*o = l
			return
		}
		if o.pos == l.pos {
			o.cells.Add(l.cells)
			return
		}
		s.apart = true
	}
	s.list = append(s.list, l)
}

// tidy drops empty lanes, and joins what met again.
func (s *lanes) tidy() {
	kept := s.list[:0]
next:
	for _, l := range s.list {
		if l.cells.Empty() {
			continue
		}
		if s.apart {
			for i := range kept {
				if kept[i].pos == l.pos && kept[i].env == l.env {
					kept[i].cells.Add(l.cells)
					continue next
				}
			}
		}
		kept = append(kept, l)
	}
	s.list = kept
}

// first is the rule that the hindmost groups are at.
func (s *lanes) first() int {
	pos := len(s.c.rules)
	for i := range s.list {
		pos = min(pos, s.list[i].pos)
	}
	return pos
}

// collapse is walker.collapse for the groups at a rule, when there are too many.
func (s *lanes) collapse(pos int) {
	if !s.each {
		s.each = true
		for i := range s.list {
			l := &s.list[i]
			l.res, l.at = nil, item{from: int32(l.pos), to: int32(l.pos + 1)}
		}
	}
	var here []group
	var rest []lane
	for _, l := range s.list {
		if l.pos == pos {
			here = append(here, l.group)
		} else {
			rest = append(rest, l)
		}
	}
	if len(here) <= maxGroups {
		return
	}
	s.list = rest
	for _, g := range s.w.collapse(here) {
		s.enter(g, pos)
	}
}

// quickly runs a chain of a program. The groups are used up.
func (w *walker) quickly(c *cchain, in []group) (returned []group) {
	if c.leaf && len(in) == 1 {
		return w.leaf(c, in[0])
	}
	s := &lanes{w: w, c: c}
	end := len(c.rules)
	for _, g := range in {
		s.enter(g, 0)
	}
	for {
		pos := s.first()
		if pos >= end {
			break
		}
		if len(s.list) > maxGroups {
			s.collapse(pos)
		}
		r := &c.rules[pos]
		n, gone := len(s.list), false
		for k := 0; k < n; k++ {
			l := &s.list[k]
			if l.pos != pos || l.cells.Empty() {
				continue
			}
			if w.quick++; w.quick > maxQuick {
				w.q.opaque["ruleset too large to follow"] = true
				w.end(l.group, Accepted|Dropped, Decider{Chain: c.chain, Rule: r.rule})
				l.cells, gone = packetset.NewCells(w.ans.Space.Len()), true
				continue
			}
			if l.at.swath != nil {
				returned = w.cover(l.at.swath, &l.group, returned)
				l.advance(int(l.at.to), end)
				gone = gone || l.cells.Empty()
				continue
			}
			h, reg := l.view.match(r)
			var stay, ret []group
			switch h {
			case matched:
				stay, ret = w.take(r, &l.group, reg)
			case slow:
				g := l.group
				l.cells = packetset.NewCells(w.ans.Space.Len())
				if w.steps++; w.steps > maxSteps {
					w.q.opaque["ruleset too large to follow"] = true
					w.end(g, Accepted|Dropped, Decider{Chain: c.chain, Rule: r.rule})
					break
				}
				stay, ret = w.rule(r.rule, g)
			}
			l.advance(pos+1, end)
			for _, x := range stay {
				if l = &s.list[k]; x.env == l.env {
					l.cells.Add(x.cells)
				} else {
					s.enter(x, pos+1)
				}
			}
			for _, x := range ret {
				returned = join(returned, x)
			}
			gone = gone || s.list[k].cells.Empty()
		}
		if gone || s.apart {
			s.tidy()
		}
	}
	for i := range s.list {
		returned = join(returned, s.list[i].group)
	}
	return returned
}

// leaf is quickly for a chain that leaves one group one group: no rule of it changes
// packets or jumps.
func (w *walker) leaf(c *cchain, g group) (returned []group) {
	if g.view == nil {
		g.view = w.view(&g.env)
	}
	l := lane{group: g, res: w.residual(c, g.view)}
	if l.res != nil {
		l.named = l.res.byPort[g.view.port]
	}
	end := len(c.rules)
	for l.advance(0, end); l.pos < end && !l.cells.Empty(); l.advance(int(l.at.to), end) {
		r := &c.rules[l.pos]
		if w.quick++; w.quick > maxQuick {
			w.q.opaque["ruleset too large to follow"] = true
			w.end(l.group, Accepted|Dropped, Decider{Chain: c.chain, Rule: r.rule})
			return returned
		}
		if l.at.swath != nil {
			returned = w.cover(l.at.swath, &l.group, returned)
			continue
		}
		h, reg := l.view.match(r)
		var stay, ret []group
		switch h {
		case matched:
			stay, ret = w.take(r, &l.group, reg)
		case slow: // what a test looks at is not known: it ends the way, or does nothing
			g := l.group
			l.cells = packetset.NewCells(w.ans.Space.Len())
			if w.steps++; w.steps > maxSteps {
				w.q.opaque["ruleset too large to follow"] = true
				w.end(g, Accepted|Dropped, Decider{Chain: c.chain, Rule: r.rule})
				return returned
			}
			stay, ret = w.rule(r.rule, g)
		}
		for _, x := range stay {
			l.cells.Add(x.cells)
		}
		for _, x := range ret {
			returned = join(returned, x)
		}
	}
	return join(returned, l.group)
}

// take does what a rule concludes to the sources of a group that it surely matches, and
// returns those that come back to the chain and those that leave it.
func (w *walker) take(r *crule, g *group, reg *packetset.Region) (stay, ret []group) {
	verdict, reject, to, name := r.verdict, r.reject, r.to, r.name
	if r.vmap != nil {
		el := g.view.element
		verdict, name = el.Verdict, el.Chain
		to = nil
		if verdict == rs.Jump || verdict == rs.Goto {
			to = w.prog.names[r.rule.Chain.Table][name]
		}
	}
	d := Decider{Chain: r.rule.Chain, Rule: r.rule}
	switch verdict {
	case rs.Continue, rs.Break:
	case rs.Accept:
		pass := w.passing(&g.env)
		for _, x := range w.settle(g, reg, d) {
			pass.AddBits(int(x.Word), x.Cells)
		}
	case rs.Drop:
		e := Dropped
		if reject {
			e = Rejected
		}
		f, n := w.fates(&g.env), w.ans.Space.Len()
		for _, x := range w.settle(g, reg, d) {
			f.add(e, n, int(x.Word), x.Cells)
		}
	case rs.Return:
		return nil, []group{{env: g.env, cells: g.cells.Cut(reg)}}
	case rs.Jump, rs.Goto:
		if to == nil {
			w.q.opaque["chain "+name] = true
			w.end(group{env: g.env, cells: g.cells.Clone().Cut(reg)}, Accepted|Dropped, d)
			break
		}
		sub := g.cells.Cut(reg)
		if sub.Empty() {
			break
		}
		back := w.chain(to.chain, []group{{env: g.env, cells: sub, view: g.view}})
		if verdict == rs.Jump {
			return back, nil
		}
		return nil, back
	default:
		w.end(group{env: g.env, cells: g.cells.Cut(reg)}, Stolen, d)
	}
	return nil, nil
}

// settle takes the selected cells out of a group, whose way d ends. The list is
// valid until the next call.
func (w *walker) settle(g *group, reg *packetset.Region, d Decider) []packetset.Bits {
	w.taken = g.cells.Take(reg, w.taken[:0])
	if !g.env.over && len(w.taken) > 0 {
		by := w.decider(d)
		for _, x := range w.taken {
			w.ans.log = append(w.ans.log, decision{x.Word, by, x.Cells})
		}
	}
	return w.taken
}

// passing are the cells that a base chain accepts with an environment.
func (w *walker) passing(e *env) *packetset.Cells {
	for i := range w.accepted {
		if w.accepted[i].env == *e {
			return w.accepted[i].cells
		}
	}
	c := packetset.NewCells(w.ans.Space.Len())
	w.accepted = append(w.accepted, group{env: *e, cells: c})
	return c
}

// join is add for a group that nobody else holds.
func join(list []group, g group) []group {
	if g.cells.Empty() {
		return list
	}
	for i := range list {
		if list[i].env == g.env {
			if list[i].cells.Empty() {
				list[i].cells = g.cells
			} else {
				list[i].cells.Add(g.cells)
			}
			return list
		}
	}
	return append(list, g)
}

// view returns the packet as rules see it with an environment.
func (w *walker) view(e *env) *view {
	for _, v := range w.views {
		if v.env == *e {
			return v
		}
	}
	v := &view{p: w.prog, q: w.q, env: *e, at: w.q.at, vals: make([]value, len(w.prog.loads))}
	if len(w.views) < 4*maxGroups {
		w.views = append(w.views, v)
	}
	return v
}

// visits remembers what a chain did to packets that came to it often.
type visits struct {
	n    int
	past []visit
}

type visit struct {
	in, out []group
}

const (
	oftenVisited = 1  // from how many visits on they are remembered
	maxVisits    = 64 // remembered of one chain
	smallLeaf    = 64 // rules of a chain that is never remembered when it jumps nowhere
)

// again runs a chain, unless it ran over the same packets before: what it did to them
// then stays done. Without this, chains that jump twice each take exponential time.
func (w *walker) again(c *rs.Chain, in []group, run func([]group) []group) []group {
	if cc := w.prog.chains[c]; w.depth < 2 || cc != nil && cc.leaf && len(cc.rules) <= smallLeaf && !w.plain {
		return run(in)
	}
	if w.seen == nil {
		w.seen = map[*rs.Chain]*visits{}
	}
	v := w.seen[c]
	if v == nil {
		v = &visits{}
		w.seen[c] = v
	}
	if v.n++; v.n <= oftenVisited {
		return run(in)
	}
	for i := range v.past {
		if sameGroups(v.past[i].in, in) {
			return cloneGroups(v.past[i].out)
		}
	}
	if len(v.past) >= maxVisits {
		return run(in)
	}
	past := visit{in: cloneGroups(in)}
	out := run(in)
	past.out = cloneGroups(out)
	v.past = append(v.past, past)
	return out
}

func sameGroups(a, b []group) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].env != b[i].env || !a[i].cells.Equal(b[i].cells) {
			return false
		}
	}
	return true
}

func cloneGroups(in []group) []group {
	out := make([]group, len(in))
	for i, g := range in {
		out[i] = group{env: g.env, cells: g.cells.Clone()}
	}
	return out
}
