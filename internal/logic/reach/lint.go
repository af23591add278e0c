package reach

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Lint is something in a ruleset that does not do what it looks like.
type Lint struct {
	ID       string   `json:"id"`
	NetNS    string   `json:"netns"`
	Table    string   `json:"table"`
	Chain    string   `json:"chain,omitempty"`
	Handle   uint64   `json:"handle,omitempty"`
	Rule     string   `json:"rule,omitempty"`
	Message  string   `json:"message"`
	Evidence []string `json:"evidence"`
}

// The kinds of lint.
const (
	LintDeadRule       = "dead-rule"
	LintShadowedLimit  = "shadowed-limit"
	LintShadowedDrop   = "shadowed-drop"
	LintUnhookedChain  = "unhooked-chain"
	LintUnusedSet      = "unused-set"
	LintUnusedObject   = "unused-object"
	LintNextHeader     = "ip6-nexthdr"
	LintFailClosed     = "dynset-fail-closed"
	LintStaleInterface = "stale-iif"
	LintDormantTable   = "dormant-table"
	LintNFTAndLegacy   = "nft-and-legacy"
	LintTwoManagers    = "two-managers"
	LintSeveralDrops   = "several-drop-policies"
)

// Lint looks at the rules. What it says is proven by them: a rule is called dead
// only where nothing can come to it.
func (sp *Space) Lint() []Lint {
	l := linter{sp: sp, out: []Lint{}}
	for _, t := range sp.Model.Set.Tables {
		l.table(t)
	}
	l.across()
	return l.out
}

type linter struct {
	sp  *Space
	out []Lint
}

func (l *linter) add(id string, t *rs.Table, c *rs.Chain, r *rs.Rule, msg string, ev ...string) {
	x := Lint{ID: id, NetNS: l.sp.Name, Message: msg, Evidence: append([]string{}, ev...)}
	if t != nil {
		x.Table = t.Family.String() + " " + t.Name
	}
	if c != nil {
		x.Chain = c.Name
	}
	if r != nil {
		x.Handle, x.Rule = r.Handle, l.text(r)
	}
	l.out = append(l.out, x)
}

func (l *linter) text(r *rs.Rule) string {
	return r.Render(l.sp.Model.Order, l.sp.Model.Set.Interfaces)
}

func (l *linter) table(t *rs.Table) {
	if t.Dormant {
		l.add(LintDormantTable, t, nil, nil, "The table is dormant: none of its rules sees a packet.")
		return
	}
	reached := reachedChains(t)
	used, objects := map[string]bool{}, map[string]bool{}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, e := range r.Exprs {
				switch e := e.(type) {
				case rs.Lookup:
					used[e.Set] = true
				case rs.Dynset:
					used[e.Set] = true
				case rs.Objref:
					used[e.Set] = true
					objects[e.Name] = true
				}
			}
		}
	}
	// Tables that a manager owns hold empty chains and sets to be filled later.
	if t.Source == rs.NFTables {
		for _, c := range t.Chains {
			if c.Base == nil && !reached[c] && len(c.Rules) > 0 {
				l.add(LintUnhookedChain, t, c, nil, fmt.Sprintf("Chain %s has no hook and no rule that is reached jumps to it: its %d rules never run.", c.Name, len(c.Rules)), l.first(c)...)
			}
		}
		for _, n := range sortedKeys(t.Sets) {
			if s := t.Sets[n]; !s.Anonymous && !used[n] {
				l.add(LintUnusedSet, t, nil, nil, fmt.Sprintf("No rule uses the set %s.", n), fmt.Sprintf("%d elements; rules using it: 0", len(s.Elements)))
			}
		}
		for _, n := range sortedKeys(t.Objects) {
			if o := t.Objects[n]; !objects[o.Name] {
				l.add(LintUnusedObject, t, nil, nil, fmt.Sprintf("No rule uses the object %s.", o.Name))
			}
		}
	}
	for _, c := range t.Chains {
		l.chain(c)
	}
}

func (l *linter) first(c *rs.Chain) []string {
	var out []string
	for i, r := range c.Rules {
		if i == 3 {
			break
		}
		out = append(out, l.text(r))
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// reachedChains are those that a base chain, or a jump from one that is reached, leads to.
func reachedChains(t *rs.Table) map[*rs.Chain]bool {
	by := map[string]*rs.Chain{}
	for _, c := range t.Chains {
		by[c.Name] = c
	}
	seen := map[*rs.Chain]bool{}
	var todo []*rs.Chain
	visit := func(c *rs.Chain) {
		if c != nil && !seen[c] {
			seen[c] = true
			todo = append(todo, c)
		}
	}
	for _, c := range t.Chains {
		if c.Base != nil {
			visit(c)
		}
	}
	for len(todo) > 0 {
		c := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, r := range c.Rules {
			for _, e := range r.Exprs {
				switch e := e.(type) {
				case rs.Conclude:
					visit(by[e.Chain])
				case rs.Lookup:
					if s := t.Sets[e.Set]; s != nil && s.Verdict {
						for i := range s.Elements {
							visit(by[s.Elements[i].Chain])
						}
					}
				case rs.Opaque: // it may jump anywhere
					for _, c := range t.Chains {
						visit(c)
					}
				}
			}
		}
	}
	return seen
}

// shape is a rule as a list of tests and an end.
type shape struct {
	tests   []string // each a fact about the packet, canonical
	limited bool
	opaque  bool
	verdict rs.Verdict
	ends    bool // it has a verdict
}

// shapeOf splits a rule into its tests. Two tests that read the same register the
// same way and compare with the same value are the same test.
func shapeOf(r *rs.Rule) shape {
	s := shape{verdict: rs.Continue}
	loads := map[rs.Reg]string{}
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case rs.Payload:
			loads[e.Dreg] = fmt.Sprintf("payload %d %d %d", e.Base, e.Offset, e.Len)
		case rs.Meta:
			loads[e.Dreg] = fmt.Sprintf("meta %d", e.Key)
		case rs.Ct:
			loads[e.Dreg] = fmt.Sprintf("ct %d %d", e.Key, e.Dir)
		case rs.Exthdr:
			loads[e.Dreg] = fmt.Sprintf("exthdr %d %d %d %d %t", e.Op, e.Type, e.Offset, e.Len, e.Present)
		case rs.Fib:
			loads[e.Dreg] = fmt.Sprintf("fib %d %d", e.Result, e.Flags)
		case rs.Bitwise:
			loads[e.Dreg] = fmt.Sprintf("(%s) bits %d %x %x %d", loads[e.Sreg], e.Op, e.Mask, e.Xor, e.Shift)
			s.opaque = s.opaque || e.HasSreg2
		case rs.Cmp:
			s.tests = append(s.tests, fmt.Sprintf("%s cmp %d %x", loads[e.Sreg], e.Op, e.Data))
		case rs.Range:
			s.tests = append(s.tests, fmt.Sprintf("%s range %t %x %x", loads[e.Sreg], e.Invert, e.From, e.To))
		case rs.Lookup:
			set := r.Chain.Table.Sets[e.Set]
			if e.Verdict || e.HasDreg || set == nil || !set.Anonymous || len(set.Concat) > 1 {
				s.opaque = true
				continue
			}
			s.tests = append(s.tests, fmt.Sprintf("%s in %t %s", loads[e.Sreg], e.Invert, elementsText(set)))
		case rs.Nothing:
		case rs.Limit, rs.Dynset:
			s.limited = true
		case rs.Conclude:
			s.verdict, s.ends = e.Verdict, true
		case rs.Reject:
			s.verdict, s.ends = rs.Drop, true
		default:
			s.opaque = true
		}
	}
	return s
}

func elementsText(s *rs.Set) string {
	var b strings.Builder
	for _, e := range s.Elements {
		fmt.Fprintf(&b, "%x-%x ", e.From, e.To)
	}
	return b.String()
}

// member tells whether a test is one element of another test on the same load.
func implies(a, b string) bool {
	if a == b {
		return true
	}
	load, data, ok := strings.Cut(a, " cmp 0 ")
	if !ok {
		return false
	}
	rest, ok := strings.CutPrefix(b, load+" in false ")
	if !ok {
		return false
	}
	for _, el := range strings.Fields(rest) {
		from, to, _ := strings.Cut(el, "-")
		if len(from) == len(data) && len(to) == len(data) && from <= data && data <= to {
			return true
		}
	}
	return false
}

// covers tells that whatever matches b matched a before: every test of a follows
// from one of b. written is true when rules of the table change what packets say.
func (a *shape) covers(b *shape, written bool) bool {
	if a.opaque || a.limited || !a.ends {
		return false
	}
	for _, x := range a.tests {
		if written && !lasting(x) || strings.Contains(x, "meta 24 ") {
			return false // meta random, or what a rule between them may have changed
		}
		if !slices.ContainsFunc(b.tests, func(y string) bool { return implies(y, x) }) {
			return false
		}
	}
	return true
}

// lasting tells that no rule can change what a test reads.
func lasting(test string) bool {
	for _, p := range []string{"meta 1 ", "meta 4 ", "meta 5 ", "meta 6 ", "meta 7 ", "meta 15 ", "meta 16 "} {
		if strings.HasPrefix(strings.TrimLeft(test, "("), p) {
			return true
		}
	}
	return false
}

// writes tells whether rules of a table change packets, marks or connections.
func writes(t *rs.Table) bool {
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, e := range r.Exprs {
				switch e.(type) {
				case rs.MetaSet, rs.CtSet, rs.PayloadSet, rs.Notrack, rs.TProxy, rs.Nat, rs.Redirect, rs.Opaque:
					return true
				}
			}
		}
	}
	return false
}

// maxPairs bounds the comparison of rules with earlier ones of their chain.
const maxPairs = 2_000_000

func (l *linter) chain(c *rs.Chain) {
	shapes := make([]shape, len(c.Rules))
	for i, r := range c.Rules {
		shapes[i] = shapeOf(r)
	}
	var enders []int
	pairs, written := 0, writes(c.Table)
	for i, r := range c.Rules {
		l.rule(c, r, &shapes[i])
		dead := false
		for _, j := range enders {
			if pairs++; pairs > maxPairs {
				break
			}
			if !shapes[j].covers(&shapes[i], written) {
				continue
			}
			l.dead(c, c.Rules[j], r, &shapes[j], &shapes[i])
			dead = true
			break
		}
		s := &shapes[i]
		if !dead && s.ends && !s.opaque && !s.limited {
			switch s.verdict {
			case rs.Accept, rs.Drop, rs.Return, rs.Goto:
				enders = append(enders, i)
			}
		}
	}
	l.failClosed(c, shapes)
}

func (l *linter) dead(c *rs.Chain, by, r *rs.Rule, bs, s *shape) {
	ev := []string{"earlier: " + l.text(by)}
	switch {
	case s.limited && bs.verdict == rs.Accept:
		l.add(LintShadowedLimit, c.Table, c, r, "The limit never applies: an earlier rule accepts every packet that could come to it.", ev...)
	case s.ends && s.verdict == rs.Drop && bs.verdict == rs.Accept:
		l.add(LintShadowedDrop, c.Table, c, r, "The rule never drops anything: an earlier rule accepts every packet that it would match.", ev...)
	default:
		l.add(LintDeadRule, c.Table, c, r, "The rule is never reached: an earlier rule ends the way of every packet that it would match.", ev...)
	}
}

func (l *linter) rule(c *rs.Chain, r *rs.Rule, s *shape) {
	six := c.Table.Family == rs.Inet || c.Table.Family == rs.IPv6
	if six && s.ends {
		for _, t := range s.tests {
			if (strings.HasPrefix(t, "payload 1 6 1 cmp 0 ") || strings.HasPrefix(t, "payload 1 6 1 in false ")) && namesIPv6(c.Table, s) {
				msg := "ip6 nexthdr looks at the first header only: a packet with an extension header in front is not matched, so the rule drops less than it seems to."
				if s.verdict == rs.Accept {
					msg = "ip6 nexthdr looks at the first header only: MLD and everything else behind an extension header is not matched, so the rule accepts less than it seems to."
				}
				l.add(LintNextHeader, c.Table, c, r, msg, "use meta l4proto, or icmpv6 type, tcp dport … alone")
				break
			}
		}
	}
	var load rs.Expr
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case rs.Meta:
			load = e
		case rs.Cmp:
			m, ok := load.(rs.Meta)
			if !ok || m.Key != metaIIF && m.Key != metaOIF || len(e.Data) != 4 || len(l.sp.Model.Set.Interfaces) == 0 {
				continue
			}
			if l.sp.Links.State() != fact.StateValue {
				continue
			}
			if i := l.sp.Model.Order.Uint32(e.Data); l.sp.Model.Set.Interfaces[i] == "" {
				l.add(LintStaleInterface, c.Table, c, r, fmt.Sprintf("The rule names the interface by its number %d, and there is none: it was made anew, and the rule matches it no more. Use iifname.", i))
			}
		}
	}
}

// namesIPv6 tells that a byte at network offset 6 is IPv6's next header.
func namesIPv6(t *rs.Table, s *shape) bool {
	return t.Family == rs.IPv6 || slices.Contains(s.tests, fmt.Sprintf("meta %d cmp 0 %02x", metaNFProto, byte(rs.IPv6)))
}

// failClosed finds accepts behind a set that rules fill, keyed by the sender, with
// a drop of the same packets after: once the set is full, newcomers are dropped.
func (l *linter) failClosed(c *rs.Chain, shapes []shape) {
	for i, r := range c.Rules {
		if shapes[i].verdict != rs.Accept || !shapes[i].ends {
			continue
		}
		for _, e := range r.Exprs {
			d, ok := e.(rs.Dynset)
			if !ok || d.Invert || len(d.Exprs) == 0 {
				continue
			}
			drops := c.Base != nil && c.Base.Policy == rs.Drop
			for j := i + 1; j < len(c.Rules) && !drops; j++ {
				drops = shapes[j].verdict == rs.Drop && shapes[j].ends && subset(shapes[j].tests, shapes[i].tests)
			}
			set := c.Table.Sets[d.Set]
			if !drops || set == nil {
				continue
			}
			l.add(LintFailClosed, c.Table, c, r, fmt.Sprintf("The rule accepts only what it can put into the set %s; when somebody has filled it with made-up senders, everybody else is dropped.", d.Set),
				fmt.Sprintf("size %d (0: the kernel's default of 65535)", set.Size), "limit with `limit rate over … drop` instead")
		}
	}
}

func subset(a, b []string) bool {
	return !slices.ContainsFunc(a, func(x string) bool { return !slices.Contains(b, x) })
}

// managerOf guesses who keeps a table, by the names that the managers use.
func managerOf(t *rs.Table) string {
	has := func(prefix string) bool {
		return slices.ContainsFunc(t.Chains, func(c *rs.Chain) bool { return strings.HasPrefix(c.Name, prefix) })
	}
	switch {
	case t.Name == "firewalld":
		return "firewalld"
	case has("ufw-") || has("ufw6-"):
		return "ufw"
	case has("DOCKER"):
		return "docker"
	case has("KUBE-") || strings.HasPrefix(t.Name, "kube-proxy"):
		return "kube-proxy"
	case has("cali-"):
		return "calico"
	case strings.HasPrefix(t.Name, "f2b-"):
		return "fail2ban"
	case has("LIBVIRT_") || t.Name == "libvirt_network":
		return "libvirt"
	}
	return ""
}

// across looks at all tables together.
func (l *linter) across() {
	var nft, legacy, hosts []string
	drops := map[string][]string{}
	for _, t := range l.sp.Model.Set.Tables {
		if t.Dormant {
			continue
		}
		name := t.Family.String() + " " + t.Name
		filters := false
		for _, c := range t.Chains {
			if c.Base == nil || c.Base.Hook != rs.Input && c.Base.Hook != rs.Forward && c.Base.Hook != rs.Prerouting {
				continue
			}
			filters = filters || len(c.Rules) > 0 || c.Base.Policy == rs.Drop
			if c.Base.Policy == rs.Drop && c.Base.Type == "filter" {
				for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
					if t.Family == rs.Inet || t.Family == f {
						key := FamilyWord(f) + " " + c.Base.Hook.String()
						drops[key] = append(drops[key], name+" "+c.Name)
					}
				}
			}
		}
		if !filters {
			continue
		}
		if t.Source == rs.XTables {
			legacy = append(legacy, name)
		} else {
			nft = append(nft, name)
		}
		m := managerOf(t)
		if (m == "firewalld" || m == "ufw") && !slices.Contains(hosts, m) {
			hosts = append(hosts, m)
		}
	}
	if len(nft) > 0 && len(legacy) > 0 {
		l.add(LintNFTAndLegacy, nil, nil, nil, "nf_tables and legacy x_tables both filter: a packet must pass both, and `nft list ruleset` does not show the second.",
			"nf_tables: "+strings.Join(nft, ", "), "legacy: "+strings.Join(legacy, ", "))
	}
	if len(hosts) > 1 {
		l.add(LintTwoManagers, nil, nil, nil, "Two firewall managers keep rules here: "+strings.Join(hosts, " and ")+".")
	}
	for _, k := range sortedKeys(drops) {
		if len(drops[k]) > 1 {
			l.add(LintSeveralDrops, nil, nil, nil, "Several base chains drop by policy on "+k+": what one accepts the other still drops.", drops[k]...)
		}
	}
	slices.SortStableFunc(l.out, func(a, b Lint) int { return cmp.Compare(a.ID, b.ID) })
}
