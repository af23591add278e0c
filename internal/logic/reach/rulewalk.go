package reach

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// add joins a group into a list; groups with the same environment are one.
func add(list []group, g group) []group {
	if g.cells.Empty() {
		return list
	}
	for i := range list {
		if list[i].env == g.env {
			list[i].cells.Add(g.cells)
			return list
		}
	}
	return append(list, group{env: g.env, cells: g.cells.Clone()})
}

// chain runs a chain over groups and returns what falls off its end.
func (w *walker) chain(c *rs.Chain, in []group) []group {
	if w.depth > deepest(c) {
		w.q.opaque["jumps deeper than the kernel allows"] = true
		for _, g := range in {
			w.end(g, Accepted|Dropped, Decider{Chain: c})
		}
		return nil
	}
	w.depth++
	defer func() { w.depth-- }()
	return w.again(c, in, func(in []group) []group {
		if cc := w.prog.chains[c]; cc != nil && !w.plain {
			return w.quickly(cc, in)
		}
		return w.slowly(c, in)
	})
}

// slowly runs a chain rule by rule.
func (w *walker) slowly(c *rs.Chain, in []group) []group {
	var groups, returned []group
	for _, g := range in {
		groups = add(groups, g)
	}
	for _, r := range c.Rules {
		if len(groups) == 0 {
			break
		}
		var next []group
		for _, g := range groups {
			if w.steps++; w.steps > maxSteps {
				w.q.opaque["ruleset too large to follow"] = true
				w.end(g, Accepted|Dropped, Decider{Chain: c, Rule: r})
				continue
			}
			kept, ret := w.rule(r, g)
			for _, k := range kept {
				next = add(next, k)
			}
			for _, k := range ret {
				returned = add(returned, k)
			}
		}
		groups = next
		if len(groups) > maxGroups {
			groups = w.collapse(groups)
		}
	}
	for _, g := range groups {
		returned = add(returned, g)
	}
	return returned
}

// collapse forgets what told too many groups apart.
func (w *walker) collapse(gs []group) []group {
	w.q.opaque["too many packet marks to keep apart"] = true
	out := group{env: gs[0].env, cells: gs[0].cells.Clone()}
	for _, g := range gs[1:] {
		out.cells.Add(g.cells)
		out.env.over = out.env.over && g.env.over
		out.env.whole = out.env.whole && g.env.whole
		out.env.misfit = out.env.misfit || g.env.misfit
		out.env.netLost |= g.env.netLost
		out.env.transLost |= g.env.transLost
		out.env.remade = out.env.remade || g.env.remade
		out.env.zonedLate = out.env.zonedLate || g.env.zonedLate || g.env.zoned != out.env.zoned
		if g.env.pktType != out.env.pktType {
			w.reach(g, Accepted|Dropped)
		}
		out.env.saddrLost = out.env.saddrLost || g.env.saddrLost
		out.env.snat = out.env.snat || g.env.snat
		out.env.dnat = out.env.dnat || g.env.dnat
		out.env.daddrLost = out.env.daddrLost || g.env.daddrLost
		if g.env.daddr != out.env.daddr {
			out.env.daddr, out.env.daddrLost = netip.Addr{}, true
		}
		out.env.toLocal = out.env.toLocal && g.env.toLocal
		out.env.placed = out.env.placed && g.env.placed
		out.env.rerouted = out.env.rerouted || g.env.rerouted
		if g.env.dport != out.env.dport {
			out.env.dport = -2
		}
		if g.env.untracked != out.env.untracked {
			out.env.untracked = maybe
		}
	}
	out.env.mark, out.env.ctmark, out.env.zone = abyte32{}, abyte32{}, abyte32{}
	return []group{out}
}

// rule runs one rule over one group: what stays in the chain, and what returns.
func (w *walker) rule(r *rs.Rule, g group) (kept, ret []group) {
	rest := g.cells
	taken, result := false, "continue"
	at := len(w.ans.Path)
	if w.trace { // before the rules of a chain that it jumps to
		w.ans.Path = append(w.ans.Path, Step{Rule: r, Chain: r.Chain})
	}
	for _, b := range w.q.rule(r, g.env) {
		if b.cond.impossible() {
			continue
		}
		from := rest
		if b.beside {
			from = g.cells
		}
		sure, may := w.split(b.cond, from)
		if may.Empty() {
			continue
		}
		if !b.beside {
			taken, result = true, verdictWord(b.verdict)
		}
		k, re := w.apply(r, b, may)
		kept, ret = append(kept, k...), append(ret, re...)
		if !b.beside {
			rest = rest.Clone()
			rest.Remove(sure)
		}
	}
	if w.trace && len(w.ans.Path) < maxPath {
		m := no
		switch {
		case taken && rest.Empty():
			m = yes
		case taken:
			m = maybe
		}
		w.ans.Path[at].Match, w.ans.Path[at].Result = m, result
	}
	return append(kept, group{env: g.env, cells: rest}), ret
}

// split returns the cells for which a condition surely and possibly holds.
func (w *walker) split(c cond, in *packetset.Cells) (sure, may *packetset.Cells) {
	return w.pick(c.yes, c.yesAll, in, true), w.pick(c.may, c.mayAll, in, false)
}

// pick returns the cells of a set: those that lie in it, or those that touch it. They
// are the same when the space was cut at its boundaries.
func (w *walker) pick(s packetset.Set, all bool, in *packetset.Cells, inside bool) *packetset.Cells {
	if all {
		return in.Clone()
	}
	sp := w.ans.Space
	out := packetset.NewCells(sp.Len())
	for _, iv := range s {
		i, j := sp.Cell(iv.From), sp.Cell(iv.To)
		if inside {
			if sp.Start[i] != iv.From {
				i++
			}
			if sp.Interval(j).To != iv.To {
				j--
			}
		}
		out.AddRange(i, j+1)
	}
	out.Keep(in)
	return out
}

// apply does what a rule concludes to the cells it may match.
func (w *walker) apply(r *rs.Rule, o outcome, cells *packetset.Cells) (kept, ret []group) {
	g := group{env: o.env, cells: cells}
	d := Decider{Chain: r.Chain, Rule: r}
	if o.mayEnd {
		w.end(g, Accepted|Dropped|Stolen, d)
		if o.verdict == rs.Continue {
			return []group{g}, nil
		}
	}
	switch o.verdict {
	case rs.Continue, rs.Break:
		return []group{g}, nil
	case rs.Accept:
		w.accepted = add(w.accepted, g)
		if !g.env.over {
			w.decide(cells, d)
		}
	case rs.Drop:
		e := Dropped
		if o.reject {
			e = Rejected
		}
		w.end(g, e, d)
	case rs.Return:
		return nil, []group{g}
	case rs.Jump, rs.Goto:
		t := w.prog.names[r.Chain.Table][o.chain]
		if t == nil {
			w.q.opaque["chain "+o.chain] = true
			w.end(g, Accepted|Dropped, d)
			return []group{g}, nil
		}
		back := w.chain(t.chain, []group{g})
		if o.verdict == rs.Jump {
			return back, nil
		}
		return nil, back
	default:
		w.end(g, Stolen, d)
	}
	return nil, nil
}

func verdictWord(v rs.Verdict) string {
	switch v {
	case rs.Accept:
		return "accept"
	case rs.Drop:
		return "drop"
	case rs.Jump:
		return "jump"
	case rs.Goto:
		return "goto"
	case rs.Return:
		return "return"
	}
	return "continue"
}
