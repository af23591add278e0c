package reach

import (
	"fmt"
	"slices"
	"strings"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// ender is a branch that ends the way of a box of packets.
type ender struct {
	rule    *rs.Rule
	verdict rs.Verdict
	box     box
}

// maxPairs bounds the comparisons of rules with earlier ones, over a namespace.
const maxPairs = 250_000

// deadWalk follows the chains of a table with what is known of the packets that come.
type deadWalk struct {
	l       *linter
	t       *rs.Table
	x       *boxFields
	by      map[string]*rs.Chain
	callers map[*rs.Chain]int
	hooks   map[*rs.Chain]map[rs.Hook]bool
	written map[string]bool
	dynamic map[*rs.Set]bool
	done    map[*rs.Chain]bool
	post    bool // nothing is kept out of connection tracking
}

// dead looks for rules that no packet comes to, or that none can match.
func (l *linter) dead(t *rs.Table) {
	w := &deadWalk{
		l: l, t: t, x: l.x, callers: map[*rs.Chain]int{}, hooks: map[*rs.Chain]map[rs.Hook]bool{},
		written: writtenBy(t), dynamic: map[*rs.Set]bool{}, done: map[*rs.Chain]bool{}, post: !l.untracks,
	}
	by := map[string]*rs.Chain{}
	w.by = by
	for _, c := range t.Chains {
		if by[c.Name] == nil {
			by[c.Name] = c
		}
		for _, r := range c.Rules {
			for _, e := range flat(r.Exprs) {
				if d, ok := e.(rs.Dynset); ok && t.Sets[d.Set] != nil {
					w.dynamic[t.Sets[d.Set]] = true
				}
			}
		}
	}
	for _, c := range t.Chains {
		for _, n := range calls(c) {
			if to := by[n]; to != nil {
				w.callers[to]++
			}
		}
	}
	var mark func(c *rs.Chain, h rs.Hook)
	mark = func(c *rs.Chain, h rs.Hook) {
		if w.hooks[c] == nil {
			w.hooks[c] = map[rs.Hook]bool{}
		}
		if w.hooks[c][h] {
			return
		}
		w.hooks[c][h] = true
		for _, n := range calls(c) {
			if to := by[n]; to != nil {
				mark(to, h)
			}
		}
	}
	for _, c := range t.Chains {
		if c.Base != nil {
			mark(c, c.Base.Hook)
		}
	}
	for _, c := range t.Chains {
		if c.Base != nil {
			w.chain(c, w.context(c), nil, 0)
		}
	}
	for _, c := range t.Chains {
		if w.hooks[c] != nil && !w.done[c] && w.callers[c] > 1 {
			w.chain(c, w.context(c), nil, 0)
		}
	}
}

// calls are the chains that a chain's rules lead to, once for each way.
func calls(c *rs.Chain) []string {
	var out []string
	for _, r := range c.Rules {
		for _, e := range r.Exprs {
			switch e := e.(type) {
			case rs.Conclude:
				if e.Chain != "" {
					out = append(out, e.Chain)
				}
			case rs.Lookup:
				if s := c.Table.Sets[e.Set]; s != nil && e.Verdict {
					for i := range s.Elements {
						if n := s.Elements[i].Chain; n != "" {
							out = append(out, n)
						}
					}
				}
			}
		}
	}
	return out
}

// writtenBy tells what the rules of a table may change about packets.
func writtenBy(t *rs.Table) map[string]bool {
	out := map[string]bool{}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, e := range flat(r.Exprs) {
				switch e := e.(type) {
				case rs.MetaSet:
					out["mark"] = true
				case rs.CtSet, rs.Notrack:
					out["ct"] = true
				case rs.PayloadSet:
					out["payload"] = true
				case rs.Nothing:
					if e.Name == "exthdr set" {
						out["payload"] = true
					}
				case rs.Objref:
					out["ct"] = out["ct"] || e.Type != 1 || e.Set != ""
				case rs.Opaque, rs.TProxy:
					out["any"] = true
				}
			}
		}
	}
	return out
}

// keeps tells that a field has the same value at the next rule.
func (w *deadWalk) keeps(field int) bool {
	f := &w.x.list[field]
	switch {
	case f.lasting:
		return true
	case w.written["any"] || f.kind == "" && len(w.written) > 0:
		return false
	}
	return !w.written[f.kind]
}

func (w *deadWalk) lasting(b box) bool {
	return !slices.ContainsFunc(b, func(s boxSide) bool { return !w.keeps(s.field) })
}

// context is what holds for all packets of a chain, by its table and hooks.
func (w *deadWalk) context(c *rs.Chain) box {
	nf, _ := w.x.meta(metaNFProto)
	b := box{}
	switch w.t.Family {
	case rs.IPv4, rs.IPv6:
		b = b.with(nf, points(uint64(w.t.Family)))
	case rs.Inet:
		b = b.with(nf, w.x.list[nf].all)
	default:
		return b
	}
	only := func(hs ...rs.Hook) bool {
		for h := range w.hooks[c] {
			if !slices.Contains(hs, h) {
				return false
			}
		}
		return len(w.hooks[c]) > 0
	}
	if only(rs.Prerouting, rs.Input, rs.Ingress) {
		for _, key := range []uint32{metaOIF, metaOIFName} {
			f, _ := w.x.meta(key)
			b = b.with(f, points(0))
		}
	}
	if only(rs.Output) {
		for _, key := range []uint32{metaIIF, metaIIFName} {
			f, _ := w.x.meta(key)
			b = b.with(f, points(0))
		}
	}
	if w.post && only(rs.Input, rs.Forward, rs.Postrouting) {
		b = b.with(w.x.id("after conntrack", 1), points(1))
	}
	return b
}

const maxLintDepth = 16

// chain looks at the rules in order. before ended the way of packets on their way here.
func (w *deadWalk) chain(c *rs.Chain, context box, before []ender, depth int) {
	w.done[c] = true
	enders := slices.Clone(before)
	hots := []hotDrop{}
	for _, r := range c.Rules {
		s := w.x.shapeOf(r, context, w.dynamic)
		w.l.rule(c, r, &s, w.x)
		if w.judge(c, r, &s, enders, hots, context) {
			continue
		}
		hots = append(hots, s.hot...)
		for _, b := range s.branches {
			if to := w.by[b.chain]; to != nil && w.callers[to] == 1 && depth < maxLintDepth && !w.done[to] {
				in := slices.DeleteFunc(slices.Clone(b.box), func(x boxSide) bool { return !w.keeps(x.field) })
				if s.effects {
					in = context
				}
				w.chain(to, in, enders, depth+1)
			}
		}
		if !s.exact || s.limited || s.nat || s.effects && !w.lasting(s.seen) {
			continue
		}
		for _, b := range s.branches {
			switch b.verdict {
			case rs.Accept, rs.Drop, rs.Return, rs.Goto:
				if w.lasting(b.box) {
					enders = append(enders, ender{r, b.verdict, b.box})
				}
			}
		}
	}
}

// judge reports a rule that never does anything.
func (w *deadWalk) judge(c *rs.Chain, r *rs.Rule, s *shape, enders []ender, hots []hotDrop, context box) bool {
	if s.seen.empty() {
		if len(s.hot) > 0 {
			return true
		}
		alone := w.x.shapeOf(r, nil, w.dynamic)
		msg := "The rule matches nothing: two of its tests exclude each other."
		if !alone.seen.empty() {
			msg = "The rule matches nothing here: no packet of this chain has what it asks for."
		}
		if why := w.contradiction(s.seen); why != "" {
			msg += " " + why
		}
		if w.l.owned(c) {
			return true
		}
		w.l.add(LintNeverMatches, Medium, c.Table, c, r, msg, "correct the match, or delete the rule")
		return true
	}
	left := []box{s.seen}
	var by []ender
	for _, e := range enders {
		if w.l.pairs++; w.l.pairs > maxPairs {
			return false
		}
		var next []box
		cut := false
		for _, b := range left {
			rest, touched := w.x.minus(b, e.box)
			cut = cut || touched
			next = append(next, rest...)
		}
		if !cut || len(next) > maxPieces {
			continue
		}
		left = next
		by = append(by, e)
		if len(left) == 0 {
			break
		}
	}
	if len(left) > 0 {
		return false
	}
	for _, h := range s.hot {
		same := func(o hotDrop) bool { return o.text == h.text && w.x.inside(h.box, o.box) }
		if !slices.ContainsFunc(hots, same) && !slices.ContainsFunc(by, func(e ender) bool { return w.x.inside(h.box, e.box) }) {
			return false
		}
	}
	w.report(c, r, s, needed(w.x, s.seen, by))
	return true
}

// needed leaves out the rules whose share others have, too.
func needed(x *boxFields, b box, by []ender) []ender {
	if n := len(by); n > 0 && x.inside(b, by[n-1].box) {
		return by[n-1:]
	}
	return by
}

func (w *deadWalk) contradiction(b box) string {
	for _, s := range b {
		if len(s.in) > 0 {
			continue
		}
		switch w.x.list[s.field].name {
		case fmt.Sprintf("meta %d", metaNFProto):
			return "It asks for IPv4 and IPv6 at once, or for the family that its table does not see."
		case fmt.Sprintf("meta %d", metaL4Proto):
			return "It asks for two transport protocols at once."
		case fmt.Sprintf("meta %d", metaOIF), fmt.Sprintf("meta %d", metaOIFName):
			return "On this hook the outgoing interface is not known yet."
		case fmt.Sprintf("meta %d", metaIIF), fmt.Sprintf("meta %d", metaIIFName):
			return "Packets made here have no incoming interface."
		case "ct state":
			return "Connection tracking never gives these packets that state: neighbour discovery and MLD are untracked, ICMP errors related or invalid."
		case "ip saddr", "ip daddr", "ip6 saddr", "ip6 daddr":
			return "It asks for two different addresses at once."
		}
	}
	return ""
}

func (w *deadWalk) report(c *rs.Chain, r *rs.Rule, s *shape, by []ender) {
	if w.l.owned(c) {
		return
	}
	var ev []string
	for i, e := range by {
		if i == 3 {
			ev = append(ev, fmt.Sprintf("and %d more", len(by)-i))
			break
		}
		ev = append(ev, "decided before by "+w.l.sp.Model.Ref(e.rule.Chain, e.rule).String())
	}
	accepts := !slices.ContainsFunc(by, func(e ender) bool { return e.verdict != rs.Accept })
	drops := !slices.ContainsFunc(by, func(e ender) bool { return e.verdict != rs.Drop })
	one := len(by) == 1
	switch {
	case one && len(by[0].box) == len(w.context(c)) && len(s.seen) > 0 && unconditional(by[0].rule):
		w.l.add(LintUnreachable, Medium, c.Table, c, r, "The rule is never reached: an earlier rule ends the way of every packet.", "move it up, or delete it", ev...)
	case w.redundantErrors(s, by):
		w.l.add(LintRedundantErrors, Info, c.Table, c, r, "Connection tracking calls ICMP errors related or invalid, and earlier rules decide about both: this rule decides nothing.", "leave it, or delete it; do not move it up: in front, it would let forged errors in", ev...)
	case s.limited && accepts && !s.ends(rs.Drop):
		w.l.add(LintShadowedLimit, Medium, c.Table, c, r, "The limit never applies: an earlier rule accepts every packet that could come to it.", "move the limit in front of that rule, or take its packets out of that rule", ev...)
	case s.ends(rs.Drop) && accepts:
		w.l.add(LintShadowedDrop, High, c.Table, c, r, "The rule never drops anything: an earlier rule accepts every packet that it would match.", "move it in front of that rule", ev...)
	case one && w.same(r, by[0].rule):
		w.l.add(LintDuplicate, Low, c.Table, c, r, "The same rule stands earlier in the chain.", "delete one of them", ev...)
	case s.ends(rs.Accept) && drops:
		w.l.add(LintDeadRule, Medium, c.Table, c, r, "The rule opens nothing: an earlier rule drops every packet that it would match.", "move it in front of that rule, or delete it", ev...)
	default:
		w.l.add(LintDeadRule, Low, c.Table, c, r, "The rule is never reached: earlier rules end the way of every packet that it would match.", "delete it, or move it up", ev...)
	}
}

func (w *deadWalk) same(a, b *rs.Rule) bool {
	x, y := *a, *b
	x.Comment, y.Comment, x.Text, y.Text = "", "", "", ""
	return x.Render(w.l.sp.Model.Order, nil) == y.Render(w.l.sp.Model.Order, nil)
}

// unconditional tells that a rule tests nothing.
func unconditional(r *rs.Rule) bool {
	return !slices.ContainsFunc(r.Exprs, func(e rs.Expr) bool {
		switch e.(type) {
		case rs.Nothing, rs.Conclude, rs.Reject, rs.Objref:
			return false
		}
		return true
	})
}

// redundantErrors tells that a rule for ICMP errors stands behind the rules for both
// states that they may have.
func (w *deadWalk) redundantErrors(s *shape, by []ender) bool {
	ct := w.x.ctState()
	have, ok := s.seen.get(ct)
	if !ok || s.tests(ct) || !slices.Equal(have, points(CtRelated, CtInvalid)) {
		return false
	}
	return len(by) > 1 && !slices.ContainsFunc(by, func(e ender) bool { _, ok := e.box.get(ct); return !ok })
}

// owned tells that a manager keeps a chain: whatever is odd there is its business.
func (l *linter) owned(c *rs.Chain) bool {
	switch l.manager(c.Table) {
	case "":
		return false
	case "firewalld", "fail2ban", "kube-proxy", "calico", "netavark", "lxc", "a generator":
		return true
	}
	for _, p := range []string{"ufw-", "ufw6-", "DOCKER", "KUBE-", "cali-", "LIBVIRT_", "guest_", "CNI-"} {
		if strings.HasPrefix(c.Name, p) {
			return true
		}
	}
	return c.Table.Name == "libvirt_network"
}
