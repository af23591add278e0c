package reach

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

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

// Hooks are the hooks that a packet of each verb passes, in order.
func hooksOf(h rs.Hook) []rs.Hook {
	switch h {
	case rs.Input:
		return []rs.Hook{rs.Ingress, rs.Prerouting, rs.Input}
	case rs.Forward:
		return []rs.Hook{rs.Ingress, rs.Prerouting, rs.Forward, rs.Postrouting, rs.Egress}
	case rs.Output:
		return []rs.Hook{rs.Output, rs.Postrouting, rs.Egress}
	}
	return []rs.Hook{h}
}

// chainsAt lists the base chains of a hook that see a packet, in the order the
// kernel runs them.
func chainsAt(set *rs.Ruleset, s stop, p *Packet) []*rs.Chain {
	var out []*rs.Chain
	h := s.hook
	for _, t := range set.Tables {
		if t.Dormant || (t.Family == rs.Bridge) != s.bridge {
			continue
		}
		switch t.Family {
		case rs.Bridge:
		case rs.Inet:
		case rs.IPv4, rs.IPv6:
			if t.Family != p.Family {
				continue
			}
		case rs.Netdev:
			if h != rs.Ingress && h != rs.Egress {
				continue
			}
		default:
			continue
		}
		for _, c := range t.Chains {
			if c.Base == nil || c.Base.Hook != h {
				continue
			}
			if c.Base.Priority < s.from || c.Base.Priority > s.to || hooked(c, s.device()) == no {
				continue
			}
			// NAT is for packets of connections.
			if c.Base.Type == "nat" && p.Ct.Set && p.Ct.V&(CtNew|CtEstablished|CtRelated) == 0 {
				continue
			}
			out = append(out, c)
		}
	}
	// Among equals the one that was hooked last runs first (nf_hook_entries_grow).
	slices.Reverse(out)
	slices.SortStableFunc(out, func(a, b *rs.Chain) int {
		return cmp.Or(cmp.Compare(priority(a), priority(b)), cmp.Compare(a.Base.Priority, b.Base.Priority))
	})
	return out
}

// priority is when a base chain runs. Chains of type nat are called by the kernel's
// own hooks, whatever priority they have among themselves (nf_nat_core.c).
func priority(c *rs.Chain) int32 {
	if c.Base.Type != "nat" {
		return c.Base.Priority
	}
	return natPriority(c.Base.Hook)
}

// natPriority is the one of the kernel's own NAT at a hook.
func natPriority(h rs.Hook) int32 {
	if h == rs.Prerouting || h == rs.Output {
		return prioDNAT
	}
	return prioSNAT
}

func deviceField(h rs.Hook) field {
	if h == rs.Egress {
		return fieldOIF
	}
	return fieldIIF
}

// device is the one whose ingress or egress chains see the packet.
func (s *stop) device() Opt[string] {
	if s.hook == rs.Egress {
		return s.out
	}
	return s.in
}

// placeOf is where a base chain runs.
func placeOf(c *rs.Chain) place {
	return place{hook: c.Base.Hook, prio: priority(c), device: c.Table.Family == rs.Netdev}
}

// hooked tells whether a base chain sees packets of a device: ingress and egress chains
// belong to some.
func hooked(c *rs.Chain, dev Opt[string]) tri {
	switch {
	case c.Base.Hook != rs.Ingress && c.Base.Hook != rs.Egress:
		return yes
	case !dev.Set:
		return maybe
	case slices.ContainsFunc(c.Base.Devices, func(d string) bool { return device(d, dev.V) }):
		return yes
	}
	return no
}

func device(pattern, name string) bool {
	if p, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, p)
	}
	return pattern == name
}

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
