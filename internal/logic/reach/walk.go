package reach

import (
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// group is a set of sources that share what earlier rules did to the packet.
type group struct {
	env   env
	cells *packetset.Cells
	view  *view // of this environment at the present place, once it is needed
}

type walker struct {
	q     *question
	asked rs.Hook
	ans   *Answer
	prog  *program
	depth int
	// over is what may become of packets that exceeded a rate.
	over  fates
	steps int // rules that the interpreter ran, bounded
	quick int // rules that were looked at, bounded
	trace bool
	plain bool
	views []*view
	seen  map[*rs.Chain]*visits
	taken []packetset.Bits
	// accepted collects what a base chain lets pass.
	accepted []group
}

// Limits of the kernel and of our patience.
const (
	maxDepth  = 16          // NFT_JUMP_STACK_SIZE
	maxSteps  = 1_000_000   // rules times groups that the interpreter runs for one question
	maxQuick  = 100_000_000 // rules times groups that are looked at
	maxPath   = 100_000     // steps of a path
	maxGroups = 64
)

// elsewhere tells that a packet with the type of destination that is assumed would not
// have come here without destination NAT.
func (w *walker) elsewhere(e *env, h rs.Hook) bool {
	if e.dnat || e.daddrLost || e.daddr.IsValid() || e.placed {
		return false
	}
	return h == rs.Input && w.q.daddrType == rtnUnicast || h == rs.Forward && w.q.daddrType == rtnLocal && !w.q.uses.snat
}

// bridges is a World that knows which interfaces are bridges.
type bridges interface {
	// Bridged tells that an interface is a bridge (or may be one), and that the host would
	// send to an address by it.
	Bridged(iface string, a netip.Addr) bool
}

// route takes out the groups that destination NAT sends to the other of input and forward.
func (w *walker) route(groups *[]group, h rs.Hook) (other []group) {
	var stay []group
	for _, g := range *groups {
		if w.elsewhere(&g.env, h) {
			continue
		}
		if _, dst := w.q.written(&g.env); dst && !g.env.placed {
			w.q.opaque["route of a rewritten address"] = true
			w.reach(g, Accepted|Dropped)
			stay, other = add(stay, g), add(other, g)
			continue
		}
		local, known := g.env.toLocal, g.env.toLocal
		if g.env.placed || !g.env.dnat && !g.env.daddrLost || g.env.dnat && !g.env.daddr.IsValid() && !g.env.daddrLost {
			stay = add(stay, g)
			continue
		}
		if g.env.daddr.IsValid() && w.q.world != nil {
			var t uint32
			t, known = w.q.world.FibType(g.env.daddr, "")
			local = t == 2 // RTN_LOCAL
		}
		g.env.rerouted = true
		if b, ok := w.q.world.(bridges); ok && known && !local && g.env.daddr.IsValid() && b.Bridged(w.q.p.IIF.V, g.env.daddr) {
			// The bridge may send it on by itself, to no port when it came in by the one that
			// it should leave by (br_nf_pre_routing_finish).
			w.q.opaque["what the bridge does with a packet that NAT sends back"] = true
			w.reach(g, Dropped)
		}
		if t, ok := w.q.pktType(); known && !local && g.env.pktType == 0 && (!ok || t != 0) {
			// Frames for many are not forwarded, whatever address they bear by now (ip_forward).
			w.q.opaque["meta pkttype"] = true
			w.reach(g, Dropped)
		}
		if known && !local {
			w.turnsBack(g)
		}
		switch {
		case !known:
			w.q.opaque["route after NAT"] = true
			w.reach(g, Accepted|Dropped)
			stay = add(stay, g)
		case local == (h == rs.Input):
			stay = add(stay, g)
		default:
			if h == rs.Input && !w.q.is4() {
				w.refuseLinkLocal(g)
			}
			other = add(other, g)
		}
	}
	*groups = stay
	return other
}

// turnsBack is fib_validate_source for IPv4 packets that leave by the interface they came in
// by: of a host that sends redirects it looks the source up, and refuses one that is not
// one host's.
func (w *walker) turnsBack(g group) {
	q := w.q
	if q.world == nil || !q.is4() || !g.env.daddr.IsValid() {
		return
	}
	dev, _, known := q.world.To(g.env.daddr)
	by, listed := q.world.FibTypes4("")
	if known && q.set.Interfaces[dev] != q.p.IIF.V || !listed {
		return
	}
	odd := unite(by[rtnUnicast], by[rtnLocal]).Complement(true)
	refused := w.pick(odd, false, g.cells, false)
	if a := q.p.Saddr; a.Set {
		if !odd.Contains(packetset.FromIP(a.V)) {
			return
		}
		refused = g.cells
	}
	if !refused.Empty() {
		q.opaque["route after NAT"] = true
		w.reach(group{env: g.env, cells: refused}, Dropped)
	}
}

// refuseLinkLocal is ip6_forward: a packet from a link-local or the unspecified address
// goes back by the interface it came in by, or not at all.
func (w *walker) refuseLinkLocal(g group) {
	if a := w.q.p.Saddr; a.Set {
		if !a.V.IsLinkLocalUnicast() && !a.V.IsUnspecified() {
			return
		}
		w.q.opaque["route after NAT"] = true
		w.reach(g, Dropped)
		return
	}
	w.reach(group{env: g.env, cells: w.pick(llSet, false, g.cells, false)}, Dropped)
	w.reach(group{env: g.env, cells: w.pick(anySet, false, g.cells, false)}, Dropped)
	w.q.opaque["route after NAT"] = true
}

var anySet = packetset.Set{{}}

// delivered drops the groups whose packet type, as a rule set it, keeps the stack from
// passing them on: ip_rcv and ipv6_rcv want none for another host, ip_forward and
// ip6_forward only those for this one.
func (w *walker) delivered(groups []group, from, to *stop) []group {
	const host, otherHost = 0, 3
	var out []group
	for _, g := range groups {
		t := int(g.env.pktType) - 1
		if t >= 0 && (from.bridge || to.bridge || to.called) {
			w.q.opaque["meta pkttype"] = true
			w.reach(g, Accepted|Dropped)
			out = append(out, g)
			continue
		}
		if from.hook == rs.Ingress && t == otherHost || to.hook == rs.Forward && t > host {
			w.end(g, Dropped, Decider{})
			continue
		}
		out = append(out, g)
	}
	return out
}

// tied returns the chains in the other order that they may have, when a chain has the
// priority of the kernel's own NAT at the hook: what was registered last runs first, and
// which that was cannot be read.
func (q *question) tied(chains []*rs.Chain) []*rs.Chain {
	if q.flowing() {
		return nil
	}
	var out, late []*rs.Chain
	tie := false
	for _, c := range chains {
		nat := c.Base.Type == "nat"
		tie = tie || !nat && slices.ContainsFunc(chains, func(o *rs.Chain) bool { return o.Base.Type == "nat" && priority(o) == priority(c) })
	}
	if !tie {
		return nil
	}
	for i, c := range chains { // chains of one priority lie together
		if i > 0 && priority(chains[i-1]) != priority(c) {
			out, late = append(out, late...), nil
		}
		first := chains[slices.IndexFunc(chains, func(o *rs.Chain) bool { return priority(o) == priority(c) })]
		if (c.Base.Type == "nat") == (first.Base.Type == "nat") {
			late = append(late, c)
		} else {
			out = append(out, c)
		}
	}
	return append(out, late...)
}

// pass runs groups through the chains of a hook, and returns what they let pass.
func (w *walker) pass(s *stop, chains []*rs.Chain, groups []group) []group {
	h := s.hook
	translated := !w.q.flowing() || !hasConn(h) || s.bridge
	for _, c := range chains {
		if !translated && (c.Base.Type == "nat" || priority(c) >= natPriority(h)) {
			translated = true
			groups = w.translate(h, groups)
		}
		if c.Base.Type == "nat" && w.q.flowing() {
			continue // it sees the first packet of a flow only
		}
		w.q.at = placeOf(c)
		groups = w.reassemble(groups)
		w.accepted, w.views, w.seen = nil, nil, nil
		through := w.passNAT(c, &groups)
		if hooked(c, s.device()) == maybe {
			w.q.needs |= 1 << deviceField(h)
			through = cloneGroups(groups) // a chain uses its groups up
		}
		fall := w.chain(c, groups)
		for _, g := range fall {
			if w.trace && !g.cells.Empty() {
				w.ans.Path = append(w.ans.Path, Step{Chain: c, Match: yes, Result: "policy " + verdictWord(c.Base.Policy)})
			}
			if c.Base.Policy == rs.Accept {
				w.accepted = add(w.accepted, g)
				w.decide(g.cells, Decider{Chain: c})
			} else {
				w.end(g, Dropped, Decider{Chain: c})
			}
		}
		groups = w.accepted
		if c.Base.Type == "route" { // a packet whose mark changed is routed again
			for i := range groups {
				e := &groups[i].env
				e.rerouted = e.rerouted || e.mark != w.q.fresh().mark || e.netLost != 0
			}
		}
		for _, g := range through {
			groups = add(groups, g)
		}
		if len(groups) == 0 {
			return nil
		}
	}
	if !translated {
		groups = w.translate(h, groups)
	}
	return groups
}

// hooks runs groups along a way; those that pass its last hook are accepted.
func (w *walker) hooks(way []stop, groups []group) {
	for i := range way {
		s := &way[i]
		w.q.way = *s
		if s.decides {
			if there := w.route(&groups, s.hook); len(there) > 0 {
				// Destination NAT sent these the other way.
				other := rs.Forward
				if s.hook == rs.Forward {
					other = rs.Input
				}
				w.strays(there, rs.Forward == other)
				on := w.q.direct(other, false)[2:]
				on[0].decides = false
				w.hooks(on, w.delivered(there, &way[i-1], &on[0]))
				w.q.way = *s
			}
		}
		if i > 0 {
			groups = w.delivered(groups, &way[i-1], s)
		}
		if len(groups) == 0 {
			return
		}
		if s.bridge && s.link == leavesBy {
			w.strays(slices.DeleteFunc(slices.Clone(groups), func(g group) bool { return !g.env.rerouted }), true)
		}
		chains := chainsAt(w.q.set, *s, w.q.p)
		if other := w.q.tied(chains); other != nil {
			w.q.opaque["order of NAT and chain"] = true
			again := cloneGroups(groups)
			groups = w.pass(s, chains, groups)
			for _, g := range w.pass(s, other, again) {
				groups = add(groups, g)
			}
		} else {
			groups = w.pass(s, chains, groups)
		}
		if s.called && s.hook == rs.Prerouting {
			w.switchedNAT(groups)
		}
		if len(groups) == 0 {
			return
		}
		w.q.at = place{hook: s.hook, prio: 1<<31 - 1}
		groups = w.reassemble(groups)
	}
	for _, g := range groups {
		w.reach(g, Accepted)
		if way[len(way)-1].hook == rs.Input && w.q.unparsable(&g.env) {
			w.q.opaque["a header that the host loses its place in"] = true
			w.reach(g, Dropped)
		}
		if g.env.daddrLost || g.env.daddr.IsValid() || g.env.dport != -1 {
			w.ans.Translated = append(w.ans.Translated, Translation{g.env.daddr, g.env.daddrLost, g.env.dport, g.cells})
		}
	}
}

// finish joins what becomes of packets beyond a rate. A cell whose first packet
// passes is accepted, limited; one whose first packet is dropped may be
// accepted later.
func (w *walker) finish() {
	n := w.ans.Space.Len()
	limited := w.ans.must()
	limited.Keep(w.over.of(Dropped|Rejected|Stolen, n))
	w.ans.Limited = limited
	late := w.over.of(Accepted, n)
	late.Remove(w.ans.ends.of(Accepted, n))
	if !late.Empty() {
		w.q.opaque["limit"] = true
		late.Words(func(word int, b uint64) { w.ans.ends.add(Accepted, n, word, b) })
	}
}

// passNAT takes the groups out that a chain of type nat does not see: without a
// connection, and whose address translation is set up already.
func (w *walker) passNAT(c *rs.Chain, groups *[]group) (through []group) {
	if c.Base.Type != "nat" {
		return nil
	}
	dst := c.Base.Hook == rs.Prerouting || c.Base.Hook == rs.Output
	var in []group
	for _, g := range *groups {
		st, conn := w.q.state(&g.env)
		if st == CtRelated && !w.q.p.Proto.Set {
			w.q.needs |= 1 << fieldProto
			conn = maybe
		}
		switch {
		case conn == no, dst && g.env.dnat, !dst && g.env.snat, w.q.looped() && (c.Base.Hook == rs.Prerouting || c.Base.Hook == rs.Input):
			through = add(through, g)
		case conn == maybe:
			if !w.q.p.Ct.Set {
				w.q.needs |= 1 << fieldCt
			}
			through, in = add(through, g), add(in, g)
		default:
			in = add(in, g)
		}
	}
	*groups = in
	return through
}

// reassemble is the kernel's defragmentation before connection tracking (priority
// -400): later chains see the whole packet. Until the other fragments come it
// waits, and may be dropped.
func (w *walker) reassemble(groups []group) []group {
	q := w.q
	if q.defrag == nil || q.uses.track == no && !q.uses.defrag || q.way.bridge || q.way.bare || q.at.hook == rs.Ingress || (q.at.hook == rs.Prerouting || q.at.hook == rs.Output) && q.at.prio <= prioDefrag {
		return groups
	}
	var out []group
	for _, g := range groups {
		if !g.env.whole && !g.env.misfit && g.env.untracked != yes {
			m := q.misfit()
			if q.uses.track == maybe && !q.uses.defrag {
				q.opaque["whether connection tracking is on"] = true
				m = max(m, maybe)
			}
			if m != no {
				left := g
				left.env.misfit = true
				out = add(out, left)
			}
			if m == yes {
				continue
			}
			if g.env.untracked == maybe || !q.atomic() {
				q.opaque["the other fragments"] = true
				w.end(g, Dropped, Decider{})
			}
			g.env.whole = true
		}
		out = add(out, g)
	}
	return out
}

// unparsable tells that what the rules accept may be lost on its way to a socket.
// Reassembly for connection tracking leaves the stack behind a routing or destination
// header that came before the fragment's, and the stack takes what follows for that header
// (nf_ct_frag6_gather, ip6_protocol_deliver_rcu). A routing header on a packet for many is
// refused (ipv6_rthdr_rcv).
func (q *question) unparsable(e *env) bool {
	const routing, fragment, options = 43, 44, 60
	frag := slices.IndexFunc(q.p.Exthdr, func(x Ext) bool { return x.Number == fragment })
	for i, x := range q.p.Exthdr {
		if e.whole && i < frag && (x.Number == routing || x.Number == options) {
			return true
		}
		if x.Number == routing && (!q.p.Daddr.Set || q.p.Daddr.V.IsMulticast()) {
			return true
		}
	}
	return false
}

// misfit tells that a first fragment does not carry units of 8 bytes: reassembly passes
// it on as if it were none (nf_ct_frag6_gather, EPROTO), and connection tracking
// finds the transport header in it.
func (q *question) misfit() tri {
	for i, e := range q.p.Exthdr {
		if e.Number != 44 || e.Frag != First {
			continue
		}
		if !q.l.exact {
			return maybe
		}
		if (len(q.p.Raw)-40-8*(i+1))%8 != 0 {
			return yes
		}
	}
	return no
}

// fates are where the ends of packets go: those beyond a rate are told apart.
func (w *walker) fates(e *env) *fates {
	if e.over {
		return &w.over
	}
	return &w.ans.ends
}

// reach records an end of a group, beside what else may become of it.
func (w *walker) reach(g group, e End) {
	to, n := w.fates(&g.env), w.ans.Space.Len()
	g.cells.Words(func(word int, b uint64) { to.add(e, n, word, b) })
}

func (w *walker) end(g group, e End, d Decider) {
	w.reach(g, e)
	if !g.env.over {
		w.decide(g.cells, d)
	}
}

func (w *walker) decide(c *packetset.Cells, d Decider) {
	by := w.decider(d)
	c.Words(func(word int, b uint64) { w.ans.log = append(w.ans.log, decision{int32(word), by, b}) })
}

func (w *walker) decider(d Decider) int32 {
	if n := len(w.ans.by); n == 0 || w.ans.by[n-1].Decider != d {
		w.ans.by = append(w.ans.by, decider{Decider: d})
	}
	return int32(len(w.ans.by) - 1)
}
