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
	ID       string   `json:"id"`       // its kind
	Severity string   `json:"severity"` // high | medium | low | info
	NetNS    string   `json:"netns"`
	Table    string   `json:"table"` // family and name; empty when it is about several
	Chain    string   `json:"chain,omitempty"`
	Handle   uint64   `json:"handle,omitempty"`
	Rule     string   `json:"rule,omitempty"`
	Message  string   `json:"message"`  // what is wrong, and why
	Evidence []string `json:"evidence"` // the rules, packets or facts that show it
	Remedy   string   `json:"remedy"`   // what to do
}

// Severities of lint.
const (
	High   = "high"   // something is open, or cut off, against what the rules say
	Medium = "medium" // a rule does not do what it says
	Low    = "low"    // clutter
	Info   = "info"   // a habit worth knowing of
)

// The kinds of lint.
const (
	LintDeadRule        = "dead-rule"
	LintUnfinished      = "unfinished"
	LintUnreachable     = "unreachable-rule"
	LintDuplicate       = "duplicate-rule"
	LintNeverMatches    = "never-matches"
	LintShadowedLimit   = "shadowed-limit"
	LintShadowedDrop    = "shadowed-drop"
	LintRedundantErrors = "redundant-icmp-errors"
	LintUnhookedChain   = "unhooked-chain"
	LintEmptyJump       = "jump-to-empty"
	LintEmptyBase       = "empty-base-chain"
	LintAcceptsAll      = "accepts-everything"
	LintUnusedSet       = "unused-set"
	LintUnusedObject    = "unused-object"
	LintNextHeader      = "ip6-nexthdr"
	LintFailClosed      = "dynset-fail-closed"
	LintFailOpen        = "dynset-fail-open"
	LintStaleInterface  = "stale-iif"
	LintAbsentInterface = "absent-interface"
	LintDormantTable    = "dormant-table"
	LintNFTAndLegacy    = "nft-and-legacy"
	LintTwoManagers     = "two-managers"
	LintSeveralDrops    = "several-drop-policies"
	LintLogUnlimited    = "log-unlimited"
	LintSharedLimit     = "shared-limit"
	LintLateLimit       = "limit-after-established"
	LintNoEstablished   = "established-missing"
	LintLateEstablished = "established-late"
	LintICMPv6Blocked   = "icmpv6-blocked"
	LintNDUnguarded     = "nd-unguarded"
	LintRAFromAnyone    = "ra-from-anyone"
	LintRSAccepted      = "rs-on-host"
	LintDHCPv6Blocked   = "dhcpv6-blocked"
	LintForwardsNothing = "forwards-nothing"
	LintNoAntiSpoof     = "no-antispoof"
	LintOneFamily       = "one-family-filtered"
)

// Lint looks at the rules. What it says is proven by them: a rule is called dead
// only where no packet can come to it.
func (sp *Space) Lint() []Lint {
	l := linter{sp: sp, out: []Lint{}, x: newBoxFields(sp.Model.Order), shapes: map[*rs.Rule]*shape{}, managers: map[*rs.Table]string{}}
	for _, t := range sp.Model.Set.Tables {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				for _, e := range flat(r.Exprs) {
					switch e.(type) {
					case rs.Notrack, rs.Opaque:
						l.untracks = true
					}
				}
			}
		}
	}
	for _, t := range sp.Model.Set.Tables {
		l.table(t)
	}
	l.across()
	l.packets()
	if l.pairs > maxPairs {
		l.add(LintUnfinished, Info, nil, nil, nil, fmt.Sprintf("So many rules are here that not all were compared with those before them (%d comparisons were made): there may be more dead rules than are listed.", maxPairs), "none; join rules that differ in one field into one with a set")
	}
	order := []string{High, Medium, Low, Info}
	slices.SortStableFunc(l.out, func(a, b Lint) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Severity), slices.Index(order, b.Severity)), cmp.Compare(a.ID, b.ID))
	})
	return l.out
}

type linter struct {
	sp       *Space
	out      []Lint
	pairs    int  // comparisons done
	untracks bool // a rule may keep packets out of connection tracking
	x        *boxFields
	shapes   map[*rs.Rule]*shape
	trackers map[*rs.Rule]bool    // rules without which nothing switches connection tracking on
	managers map[*rs.Table]string // by manager
	callers  map[*rs.Table]map[string][]*rs.Chain
}

// manager is managerOf, worked out once.
func (l *linter) manager(t *rs.Table) string {
	m, ok := l.managers[t]
	if !ok {
		m = managerOf(t)
		l.managers[t] = m
	}
	return m
}

// callersOf are the chains of a table with rules that lead to one.
func (l *linter) callersOf(c *rs.Chain) []*rs.Chain {
	by := l.callers[c.Table]
	if by == nil {
		by = map[string][]*rs.Chain{}
		for _, o := range c.Table.Chains {
			for _, n := range calls(o) {
				if list := by[n]; len(list) == 0 || list[len(list)-1] != o {
					by[n] = append(list, o)
				}
			}
		}
		if l.callers == nil {
			l.callers = map[*rs.Table]map[string][]*rs.Chain{}
		}
		l.callers[c.Table] = by
	}
	return by[c.Name]
}

// shape is a rule by itself, whatever its chain is called for.
func (l *linter) shape(r *rs.Rule) *shape {
	s := l.shapes[r]
	if s == nil {
		v := l.x.shapeOf(r, nil, nil)
		s = &v
		l.shapes[r] = s
	}
	return s
}

func (l *linter) add(id, severity string, t *rs.Table, c *rs.Chain, r *rs.Rule, msg, remedy string, ev ...string) {
	x := Lint{ID: id, Severity: severity, NetNS: l.sp.Name, Message: msg, Remedy: remedy, Evidence: append([]string{}, ev...)}
	if t != nil {
		x.Table = tableName(t)
	}
	if c != nil {
		x.Chain = c.Name
	}
	if r != nil {
		x.Handle, x.Rule = r.Handle, l.text(r)
		if strings.Contains(remedy, "delete") && l.alone(r) {
			x.Remedy = "leave it: the rules before it decide about every packet, but it is the only one that switches connection tracking on, which also puts fragments together before the rules; or make another rule ask for ct state, then " + remedy
		}
	}
	l.out = append(l.out, x)
}

// alone tells that nothing but a rule switches connection tracking on, for some family:
// what stands in a rule counts even where no packet comes to it.
func (l *linter) alone(r *rs.Rule) bool {
	tracks := func(t *rs.Table, x *rs.Rule, f rs.Family) bool {
		one := &rs.Table{Family: t.Family, Name: t.Name, Sets: t.Sets, Chains: []*rs.Chain{{Rules: []*rs.Rule{x}}}}
		return usesOf(&rs.Ruleset{Tables: []*rs.Table{one}}, f).track != no
	}
	if !tracks(r.Chain.Table, r, rs.IPv4) && !tracks(r.Chain.Table, r, rs.IPv6) {
		return false
	}
	if l.trackers == nil {
		l.trackers = map[*rs.Rule]bool{}
		for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
			var bare []*rs.Table
			var found []*rs.Rule
			for _, t := range l.sp.Model.Set.Tables {
				c := &rs.Table{Family: t.Family, Name: t.Name, Sets: t.Sets, Objects: t.Objects}
				for _, ch := range t.Chains {
					c.Chains = append(c.Chains, &rs.Chain{Table: c, Name: ch.Name, Base: ch.Base})
					for _, x := range ch.Rules {
						if len(found) < 2 && tracks(t, x, f) {
							found = append(found, x)
						}
					}
				}
				bare = append(bare, c)
			}
			if len(found) == 1 && usesOf(&rs.Ruleset{Tables: bare}, f).track == no {
				l.trackers[found[0]] = true
			}
		}
	}
	return l.trackers[r]
}

func tableName(t *rs.Table) string {
	s := t.Family.String() + " " + t.Name
	if t.Source == rs.XTables {
		s += " (legacy)"
	}
	return s
}

func (l *linter) text(r *rs.Rule) string {
	return r.Render(l.sp.Model.Order, l.sp.Model.Set.Interfaces)
}

func (l *linter) table(t *rs.Table) {
	if t.Dormant {
		l.add(LintDormantTable, Medium, t, nil, nil, "The table is dormant: none of its rules sees a packet.", "wake it (`nft add table "+tableName(t)+"` without flags), or delete it")
		return
	}
	l.structure(t)
	l.dead(t)
	for _, c := range t.Chains {
		if !l.owned(c) {
			l.chain(c)
		}
	}
}

// structure looks at what hangs together with what.
func (l *linter) structure(t *rs.Table) {
	reached := reachedChains(t)
	used, objects, empty := map[string]bool{}, map[string]bool{}, map[string]*rs.Rule{}
	by := map[string]*rs.Chain{}
	for _, c := range t.Chains {
		by[c.Name] = c
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, e := range flat(r.Exprs) {
				switch e := e.(type) {
				case rs.Lookup:
					used[e.Set] = true
				case rs.Dynset:
					used[e.Set] = true
				case rs.Objref:
					used[e.Set] = true
					objects[e.Name] = true
				case rs.Conclude:
					if to := by[e.Chain]; to != nil && len(to.Rules) == 0 && !l.owned(c) && !l.owned(to) && reached[c] {
						empty[c.Name+" "+to.Name] = r
					}
				}
			}
		}
	}
	for _, n := range sortedKeys(empty) {
		r := empty[n]
		l.add(LintEmptyJump, Low, t, r.Chain, r, "The rule jumps to a chain without rules: nothing happens there.", "fill the chain, or delete the rule")
	}
	// The tables of managers hold empty chains and sets that are filled later, and
	// x_tables has no sets of its own.
	if t.Source != rs.NFTables {
		return
	}
	for _, c := range t.Chains {
		if c.Base == nil && !reached[c] && len(c.Rules) > 0 && !l.owned(c) {
			sev := High
			if (t.Family == rs.IPv4 || t.Family == rs.IPv6) && slices.Contains([]string{"filter", "nat", "mangle", "raw", "security"}, t.Name) {
				sev = Medium // iptables: scripts keep spare chains
			}
			l.add(LintUnhookedChain, sev, t, c, nil, fmt.Sprintf("Chain %s has no hook and no rule that is reached jumps to it: its %s never run.", c.Name, count(len(c.Rules), "rule")),
				"jump to it from a chain with a hook, in front of the rules that decide about the same packets", l.first(c)...)
		}
	}
	if l.manager(t) != "" {
		return
	}
	for _, n := range sortedKeys(t.Sets) {
		s := t.Sets[n]
		if s.Anonymous || used[n] {
			continue
		}
		word := "set"
		if s.Map {
			word = "map"
		}
		l.add(LintUnusedSet, Low, t, nil, nil, fmt.Sprintf("No rule uses the %s %s: what it is meant for does not happen.", word, n),
			"write the rule that was meant to use it, or delete it", count(len(s.Elements), "element")+"; rules using it: 0")
	}
	for _, n := range sortedKeys(t.Objects) {
		if o := t.Objects[n]; !objects[o.Name] {
			l.add(LintUnusedObject, Low, t, nil, nil, fmt.Sprintf("No rule uses the object %s.", o.Name), "write the rule that was meant to use it, or delete it")
		}
	}
}

func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
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
		for _, n := range calls(c) {
			visit(by[n])
		}
		for _, r := range c.Rules {
			for _, e := range r.Exprs {
				if o, ok := e.(rs.Opaque); ok && o.Ends { // it may jump anywhere
					for _, c := range t.Chains {
						visit(c)
					}
				}
			}
		}
	}
	return seen
}

// chain looks at a chain as a whole.
func (l *linter) chain(c *rs.Chain) {
	l.fillable(c)
	if c.Base == nil || c.Base.Type != "filter" || c.Base.Policy != rs.Accept {
		return
	}
	switch c.Base.Hook {
	case rs.Input, rs.Forward, rs.Output:
	default:
		return
	}
	if len(c.Rules) == 0 {
		if c.Table.Source == rs.NFTables && l.manager(c.Table) == "" {
			l.add(LintEmptyBase, Info, c.Table, c, nil, "The chain has no rules and accepts everything: on "+c.Base.Hook.String()+" nothing is filtered here.", "add rules, or delete the chain")
		}
		return
	}
	accepts := false
	for _, r := range c.Rules {
		s := l.shape(r)
		accepts = accepts || s.ends(rs.Accept)
		if !s.exact && !s.named && s.effects || slices.ContainsFunc(s.branches, func(b branch) bool { return b.verdict != rs.Accept && b.verdict != rs.Return }) || len(s.hot) > 0 {
			return
		}
	}
	if accepts && !l.others(c) {
		l.add(LintAcceptsAll, Medium, c.Table, c, nil, "The chain only accepts, and so does its policy: it filters nothing.", "end it with a drop, or give it `policy drop`", l.first(c)...)
	}
}

// others tells that another base chain filters the same packets.
func (l *linter) others(c *rs.Chain) bool {
	for _, t := range l.sp.Model.Set.Tables {
		for _, o := range t.Chains {
			if o != c && o.Base != nil && o.Base.Hook == c.Base.Hook && o.Base.Type == "filter" && !t.Dormant && (t.Family == c.Table.Family || t.Family == rs.Inet) && (len(o.Rules) > 0 || o.Base.Policy == rs.Drop) {
				return true
			}
		}
	}
	return false
}

// rule looks at one rule by itself.
func (l *linter) rule(c *rs.Chain, r *rs.Rule, s *shape, x *boxFields) {
	l.nextHeader(c, r, s, x)
	if s.log && !s.limited && !l.owned(c) {
		many := !slices.ContainsFunc(s.branches, func(b branch) bool { return b.verdict == rs.Accept })
		if many && l.calledUnlimited(c) {
			l.add(LintLogUnlimited, Low, c.Table, c, r, "The rule logs every packet: whoever sends many fills the log and the disk.", "put `limit rate 10/minute` in front of log")
		}
	}
	if l.sp.Links.State() != fact.StateValue || len(l.sp.Model.Set.Interfaces) == 0 {
		return
	}
	var load rs.Expr
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case rs.Meta:
			load = e
		case rs.Cmp:
			m, ok := load.(rs.Meta)
			if ok && (m.Key == metaIIFName || m.Key == metaOIFName) && e.Op == rs.Eq {
				l.absent(c, r, e.Data)
			}
			if !ok || m.Key != metaIIF && m.Key != metaOIF || len(e.Data) != 4 || e.Op != rs.Eq && e.Op != rs.Neq {
				continue
			}
			if i := l.sp.Model.Order.Uint32(e.Data); i != 0 && l.sp.Model.Set.Interfaces[i] == "" {
				l.add(LintStaleInterface, High, c.Table, c, r, fmt.Sprintf("The rule names an interface by its number %d, and there is none with it: it was made anew, and the rule matches it no more.", i), "write iifname (or oifname) instead, and load the rules again")
			}
		case rs.Lookup:
			m, ok := load.(rs.Meta)
			if set := c.Table.Sets[e.Set]; ok && (m.Key == metaIIFName || m.Key == metaOIFName) && !e.Invert && set != nil && set.Anonymous && !set.Interval {
				for i := range set.Elements {
					l.absent(c, r, set.Elements[i].From)
				}
			}
			load = nil
		default:
			load = nil
		}
	}
}

// absent reports a rule that waits for an interface of a name (IFNAMSIZ bytes; shorter
// is the start of one) that there is none of.
func (l *linter) absent(c *rs.Chain, r *rs.Rule, data []byte) {
	name, _, whole := strings.Cut(string(data), "\x00")
	if !whole || name == "" || l.owned(c) || slices.ContainsFunc(l.sp.links, func(x fact.Link) bool { return x.Name == name }) {
		return
	}
	l.add(LintAbsentInterface, Low, c.Table, c, r, fmt.Sprintf("No interface is called %s here now: the rule matches nothing before there is one.", name), "correct the name; leave it where the interface comes and goes (VPN, PPP, containers)")
}

// calledUnlimited tells that no rule that leads to a chain has a limit.
func (l *linter) calledUnlimited(c *rs.Chain) bool {
	for _, o := range l.callersOf(c) {
		for _, r := range o.Rules {
			to, limit := false, false
			for _, e := range r.Exprs {
				switch e := e.(type) {
				case rs.Conclude:
					to = to || e.Chain == c.Name
				case rs.Limit, rs.Dynset:
					limit = true
				}
			}
			if to && limit {
				return false
			}
		}
	}
	return true
}

// nextHeader finds rules that take IPv6's next header for the transport protocol.
func (l *linter) nextHeader(c *rs.Chain, r *rs.Rule, s *shape, x *boxFields) {
	if c.Table.Family != rs.Inet && c.Table.Family != rs.IPv6 || l.owned(c) {
		return
	}
	next := x.id("payload 1 6 1", 1)
	nf, _ := x.meta(metaNFProto)
	fam, _ := s.seen.get(nf)
	in, ok := s.seen.get(next)
	if !ok || !s.tests(next) || !slices.Equal(fam, points(uint64(rs.IPv6))) || !x.inside(box{{next, in}}, box{{next, points(1, 4, 6, 17, 33, 41, 47, 50, 51, 58, 89, 112, 132, 136)}}) {
		return // a test for an extension header is what the field is good for
	}
	const remedy = "write `icmpv6 type …`, `tcp dport …` or `meta l4proto …` alone"
	packet := "packet: IPv6 with a hop-by-hop or destination options header in front"
	switch {
	case s.ends(rs.Drop):
		l.add(LintNextHeader, High, c.Table, c, r, "ip6 nexthdr looks at the first header only: a packet with an extension header in front is not matched, so the rule drops less than it seems to.", remedy, packet)
	case s.ends(rs.Accept):
		l.add(LintNextHeader, Medium, c.Table, c, r, "ip6 nexthdr looks at the first header only: what stands behind an extension header (MLD always stands behind one) is not matched, so the rule accepts less than it seems to.", remedy, packet)
	case len(s.branches) > 0:
		l.add(LintNextHeader, Medium, c.Table, c, r, "ip6 nexthdr looks at the first header only: what stands behind an extension header is not matched.", remedy, packet)
	}
}
