package reach

import (
	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// flowing tells that the packet belongs to a flow whose addresses were chosen when its
// first packet came: chains of type nat do not see it, and it is rewritten all the same
// (nf_nat_inet_fn, nf_nat_packet).
func (q *question) flowing() bool {
	return q.uses.nat && q.p.Ct.Set && (q.p.Ct.V == CtEstablished || q.p.Ct.V == CtRelated)
}

// forth tells that a packet of a flow is taken for one of the side that opened it: it
// goes from a port that clients use to one that servers do.
func (q *question) forth() bool {
	return q.p.Ct.V == CtEstablished && q.p.Proto.Set && (q.p.Proto.V == 6 || q.p.Proto.V == 17) &&
		q.p.Sport.From >= 1024 && q.p.Dport.Set && q.p.Dport.V < 1024
}

// translate rewrites the packets of a flow at the kernel's own NAT hook. The side that
// opened it is translated as the rules would do with its first packet; the answers of
// the other side get back the address that source NAT took, which the question does not
// say.
func (w *walker) translate(h rs.Hook, groups []group) []group {
	q := w.q
	q.at = place{hook: h, prio: natPriority(h)}
	var out []group
	for _, g := range groups {
		if _, conn := q.state(&g.env); conn == no {
			out = add(out, g)
			continue
		}
		if h == rs.Input || h == rs.Postrouting {
			lost := q.uses.dnat && !q.forth()
			new, _ := w.asNew(h, g)
			for _, t := range new {
				lost = lost || t.env.snat
			}
			if lost {
				g.env.saddrLost, g.env.snat = true, true
				g.env.transLost |= 3
			}
			out = add(out, g)
			continue
		}
		plain := g.cells.Clone()
		new, dropped := w.asNew(h, g)
		if q.p.Ct.V == CtRelated { // of ICMP no chain sees them, of what a helper expects some do
			q.opaque["the flow that a packet is related to"] = true
			w.reach(group{env: g.env, cells: dropped}, Dropped)
		}
		for _, t := range new {
			if !t.env.dnat {
				continue
			}
			e := g.env
			e.daddr, e.dport, e.daddrLost, e.dnat = t.env.daddr, t.env.dport, t.env.daddrLost, true
			e.toLocal, e.rerouted = t.env.toLocal, t.env.rerouted
			out = add(out, group{env: e, cells: t.cells})
			switch {
			case !q.forth() || !t.sure:
				q.opaque["which side opened the flow"] = true
			case w.asked == rs.Forward && q.forUs():
				plain.Remove(t.cells) // only translated it is forwarded
			default:
				q.opaque["whether the flow is older than the NAT rules"] = true
			}
		}
		as, back := w.answered(h)
		if as {
			out = add(out, group{env: g.env, cells: plain})
		}
		if back {
			q.opaque["what address source NAT took"] = true
			g.env.daddrLost, g.env.placed = true, true
			out = add(out, group{env: g.env, cells: plain})
		}
	}
	return out
}

// forUs tells that the packet is for an address of this host.
func (q *question) forUs() bool {
	if !q.p.Daddr.Set || q.world == nil {
		return false
	}
	t, ok := q.world.FibType(q.p.Daddr.V, "")
	return ok && t == routeLocal
}

// answered tells whether a packet that the rules would not translate may keep its
// destination, and whether it may get back the one that source NAT took.
func (w *walker) answered(h rs.Hook) (as, back bool) {
	q := w.q
	if !q.uses.snat || q.forth() {
		return true, false
	}
	if h == rs.Output {
		return true, hasNAT(q.set, rs.Input)
	}
	if w.asked != rs.Forward || !q.p.Daddr.Set || q.world == nil {
		return true, true
	}
	// What is forwarded although it is for this host was taken back.
	t, ok := q.world.FibType(q.p.Daddr.V, "")
	return !ok || t != routeLocal, !ok || t == routeLocal || q.uses.snatTo
}

// hasConn tells whether NAT hangs on a hook.
func hasConn(h rs.Hook) bool {
	return h == rs.Prerouting || h == rs.Input || h == rs.Output || h == rs.Postrouting
}

const routeLocal = 2 // RTN_LOCAL

func hasNAT(set *rs.Ruleset, h rs.Hook) bool {
	for _, t := range set.Tables {
		for _, c := range t.Chains {
			if c.Base != nil && c.Base.Type == "nat" && c.Base.Hook == h {
				return true
			}
		}
	}
	return false
}

// trial is what the rules would do with the first packet of a flow.
type trial struct {
	group
	sure bool
}

// asNew runs the chains of type nat over a packet as if it were the first of its flow.
func (w *walker) asNew(h rs.Hook, g group) (new []trial, dropped *packetset.Cells) {
	q := w.q
	n := w.ans.Space.Len()
	if q.p.Ct.V == CtRelated && q.p.Proto.Set && (q.p.Proto.V == 1 || q.p.Proto.V == 58) {
		return nil, packetset.NewCells(n)
	}
	ct, at := q.p.Ct, q.at
	defer func() { q.p.Ct, q.at = ct, at }()
	q.p.Ct = Some(uint32(CtNew))
	t := &walker{q: q, ans: &Answer{Space: w.ans.Space}, prog: w.prog, plain: true}
	groups := []group{{env: g.env, cells: g.cells.Clone()}}
	for _, c := range chainsAt(q.set, q.way, q.p) {
		if c.Base.Type != "nat" {
			continue
		}
		q.at = placeOf(c)
		t.accepted, t.views, t.seen = nil, nil, nil
		through := t.passNAT(c, &groups)
		for _, f := range t.chain(c, groups) {
			t.accepted = add(t.accepted, f)
		}
		groups = t.accepted
		for _, f := range through {
			groups = add(groups, f)
		}
	}
	for i, x := range groups {
		alone := true
		for j, y := range groups {
			if i != j && meet(x.cells, y.cells) {
				alone = false
			}
		}
		new = append(new, trial{x, alone})
	}
	return new, t.ans.ends.of(Dropped|Rejected|Stolen, n)
}

func meet(a, b *packetset.Cells) bool {
	c := a.Clone()
	c.Keep(b)
	return !c.Empty()
}
