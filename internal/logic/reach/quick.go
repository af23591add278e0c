package reach

import (
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

// quickly runs a chain of a program. The groups are used up.
func (w *walker) quickly(c *cchain, in []group) (returned []group) {
	var groups []group
	for _, g := range in {
		groups = join(groups, g)
	}
	for i := range c.rules {
		if len(groups) == 0 {
			break
		}
		r := &c.rules[i]
		n, gone := len(groups), false
		for k := 0; k < n; k++ {
			g := groups[k]
			if w.quick++; w.quick > maxQuick {
				w.q.opaque["ruleset too large to follow"] = true
				w.end(g, Accepted|Dropped, Decider{Chain: c.chain, Rule: r.rule})
				groups[k].cells, gone = packetset.NewCells(w.ans.Space.Len()), true
				continue
			}
			if g.view == nil {
				g.view = w.view(&g.env)
				groups[k].view = g.view
			}
			h, reg := g.view.match(r)
			switch h {
			case missed:
				continue
			case matched:
				groups, returned = w.take(r, groups, k, reg, returned)
			case slow:
				groups[k].cells = packetset.NewCells(w.ans.Space.Len())
				if w.steps++; w.steps > maxSteps {
					w.q.opaque["ruleset too large to follow"] = true
					w.end(g, Accepted|Dropped, Decider{Chain: c.chain, Rule: r.rule})
					break
				}
				kept, ret := w.rule(r.rule, g)
				for _, x := range kept {
					groups = join(groups, x)
				}
				for _, x := range ret {
					returned = join(returned, x)
				}
			}
			gone = gone || groups[k].cells.Empty()
		}
		if gone {
			kept := groups[:0]
			for _, g := range groups {
				if !g.cells.Empty() {
					kept = append(kept, g)
				}
			}
			groups = kept
		}
		if len(groups) > maxGroups {
			groups = w.collapse(groups)
		}
	}
	for _, g := range groups {
		returned = join(returned, g)
	}
	return returned
}

// take does what a rule concludes to the sources of a group that it surely matches.
func (w *walker) take(r *crule, groups []group, k int, reg *packetset.Region, returned []group) (left, ret []group) {
	g := groups[k]
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
		returned = join(returned, group{env: g.env, cells: g.cells.Cut(reg)})
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
		for _, x := range back {
			if verdict == rs.Jump {
				groups = join(groups, x)
			} else {
				returned = join(returned, x)
			}
		}
	default:
		w.end(group{env: g.env, cells: g.cells.Cut(reg)}, Stolen, d)
	}
	return groups, returned
}

// settle takes the selected cells out of a group, whose way d ends. The list is
// valid until the next call.
func (w *walker) settle(g group, reg *packetset.Region, d Decider) []packetset.Bits {
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
)

// again runs a chain, unless it ran over the same packets before: what it did to them
// then stays done. Without this, chains that jump twice each take exponential time.
func (w *walker) again(c *rs.Chain, in []group, run func([]group) []group) []group {
	if w.depth < 2 {
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
