package oracle

import (
	"fmt"
	"slices"
	"strings"
)

// chainText is a chain as it is being written.
type chainText struct {
	name, hook, kind string
	head             string
	rules            []string
}

// Ruleset writes one, and remembers its boundaries for Probes. Every rule is a line of
// its own, so that one that nft refuses can be left out.
func (g *Generator) Ruleset() string {
	g.reset()
	g.nsets = 0
	var b strings.Builder
	for i := range 1 + g.r.IntN(3) {
		g.writeTable(&b, i)
	}
	return b.String()
}

func (g *Generator) writeTable(b *strings.Builder, n int) {
	// The family and hooks that are known least come first.
	ctx := g.context()
	g.family = ctx[0]
	g.table = nil
	var chains []*chainText
	hooks := []string{ctx[1]}
	for _, c := range contexts {
		if c[0] == g.family && g.chance(35) {
			hooks = append(hooks, c[1])
		}
	}
	for _, h := range hooks {
		chains = append(chains, g.base(h, len(chains), slices.ContainsFunc(chains, func(c *chainText) bool { return c.hook == h })))
		if slices.Contains([]string{"prerouting", "output", "input", "postrouting"}, h) && g.family != "netdev" && g.chance(20) {
			chains = append(chains, g.natBase(h, len(chains)))
		}
	}
	for i := range chains[:len(chains):len(chains)] {
		c := chains[i]
		sub := []*chainText{}
		for k := range g.r.IntN(3) {
			if c.kind == "nat" {
				break
			}
			sub = append(sub, &chainText{name: fmt.Sprintf("%s_%d", c.name, k), hook: c.hook, kind: c.kind})
		}
		// Chains may call only those after them: the kernel refuses loops.
		all := append([]*chainText{c}, sub...)
		for k := len(all) - 1; k >= 0; k-- {
			g.fill(all[k], all[k+1:])
		}
		chains = append(chains, sub...)
	}
	flags := ""
	if g.chance(6) {
		flags = " flags dormant;\n"
	}
	fmt.Fprintf(b, "table %s t%d {\n%s", g.family, n, flags)
	for _, s := range g.table {
		b.WriteString(s + "\n")
	}
	for _, o := range objects(g.family) {
		b.WriteString(o + "\n")
	}
	// What is called is written first: nft wants to know it.
	for _, c := range slices.Backward(chains) {
		fmt.Fprintf(b, " chain %s {\n%s", c.name, c.head)
		for _, r := range c.rules {
			b.WriteString("  " + r + "\n")
		}
		b.WriteString(" }\n")
	}
	b.WriteString("}\n")
}

func (g *Generator) context() [2]string {
	best, least := pick(g, contexts), 1e9
	for range 3 {
		c := pick(g, contexts)
		n := 0
		for _, x := range g.cov.of[c] {
			n += min(g.cov.count(x), 12)
		}
		if v := float64(n) / float64(len(g.cov.of[c])); v < least {
			best, least = c, v
		}
	}
	return best
}

func (g *Generator) base(hook string, n int, second bool) *chainText {
	prio := pick(g, []int{0, 0, -150, -300, -450, 10, -100, 100, 300, -201, -199, -399, -401})
	device := ""
	if hook == "ingress" {
		device = pick(g, []string{`devices = { "eth0", "wlan1" }`, `device "eth0"`, `device "wlan1"`}) + " "
	}
	// What is dropped early tells nothing about later hooks.
	policy := "accept"
	if g.chance(map[bool]int{false: 25, true: 8}[hook == "ingress" || hook == "prerouting"]) {
		policy = "drop"
	}
	return &chainText{
		name: fmt.Sprintf("c%d", n), hook: hook, kind: "filter",
		head: fmt.Sprintf("  type filter hook %s %spriority %d; policy %s;\n", hook, device, prio, policy),
	}
}

func (g *Generator) natBase(hook string, n int) *chainText {
	prio := pick(g, []int{-100, -150, 50, -90})
	if slices.Contains(snats, hook) {
		prio = pick(g, []int{100, 50, 150, 300})
	}
	return &chainText{
		name: fmt.Sprintf("c%d", n), hook: hook, kind: "nat",
		head: fmt.Sprintf("  type nat hook %s priority %d; policy accept;\n", hook, prio),
	}
}

func (g *Generator) fill(c *chainText, below []*chainText) {
	g.hook = c.hook
	g.callable = below
	for range 4 + g.r.IntN(12) {
		g.cells = nil
		g.goal = &goal{hook: c.hook, values: map[string][]uint64{}, words: map[string][]string{}}
		switch g.family {
		case "ip":
			g.goal.v6 = 4
		case "ip6":
			g.goal.v6 = 6
		}
		if r := g.rule(c, below); r != "" {
			c.rules = append(c.rules, r+` comment "`+g.cov.comment(g.cells)+`"`)
			g.goal.cells = g.cells
			g.goals = append(g.goals, g.goal)
		}
	}
	g.goal = nil
}

// next is the least known cell of the context that a rule may hold.
func (g *Generator) next(ok func(*Cell) bool) (int, bool) {
	best, count := -1, 1<<30
	list := g.cov.of[[2]string{g.family, g.hook}]
	off := g.r.IntN(len(list))
	for i := range list {
		x := list[(i+off)%len(list)]
		if n := g.cov.count(x); n < count && ok(&g.cov.all[x]) {
			best, count = x, n
		}
	}
	if best >= 0 {
		g.cov.loaded[best]++ // taken back by Refused
	}
	return best, best >= 0
}

func (g *Generator) rule(c *chainText, below []*chainText) string {
	var words []string
	v6, proto := int8(0), uint8(0)
	tail := false
	matches := 1 + g.r.IntN(2)
	if g.chance(20) {
		matches = 1
	}
	for range matches {
		cell, ok := g.next(func(x *Cell) bool {
			f := x.field
			return f != nil && (!f.raw || g.raw) && (f.v6 == 0 || v6 == 0 || f.v6 == v6) && (f.proto == 0 || proto == 0 || f.proto == proto) &&
				!(f.proto == protoICMP && v6 == 6) && !(f.proto == protoICMPv6 && v6 == 4) &&
				!(tail && strings.Contains(x.Op, "map")) && (c.kind != "nat" || !strings.Contains(x.Op, "vmap"))
		})
		if !ok {
			break
		}
		x := &g.cov.all[cell]
		f := x.field
		if f.v6 != 0 {
			v6, g.goal.v6 = f.v6, f.v6
		}
		if f.proto != 0 {
			proto, g.goal.proto = f.proto, f.proto
		}
		text, last := g.match(f, x.Op)
		g.cells = append(g.cells, cell)
		words = append(words, text)
		if last {
			tail = true
			break
		}
	}
	if tail {
		return strings.Join(words, " ")
	}
	st, ok := g.next(func(x *Cell) bool {
		s := x.statement
		return s != nil && (s.nat == (c.kind == "nat") || c.kind == "nat" && g.chance(10) && s.name == "accept")
	})
	// Verdicts are what most rules are for.
	if c.kind != "nat" && g.chance(70) || !ok {
		if ok {
			g.cov.loaded[st]--
		}
		verdicts := []string{"accept", "drop", "accept", "jump", "goto", "return"}
		if (c.hook == "ingress" || c.hook == "prerouting") && g.chance(60) {
			verdicts = []string{"accept", "jump", "continue"}
		}
		if name := pick(g, verdicts); len(below) > 0 || name != "jump" && name != "goto" {
			return strings.TrimSpace(strings.Join(append(words, g.statement(name, below)), " "))
		}
		return strings.Join(append(words, "accept"), " ")
	}
	g.cells = append(g.cells, st)
	name := g.cov.all[st].Field
	text := g.statement(name, below)
	if (strings.HasPrefix(name, "mark") || name == "ct mark set") && g.chance(40) {
		// A statement before the match is done whether or not that holds.
		return strings.Join(append([]string{text}, append(words, pick(g, []string{"accept", "drop", ""}))...), " ")
	}
	return strings.TrimSpace(strings.Join(append(words, text), " "))
}

func (g *Generator) port() uint16 {
	p := pick(g, g.ports)
	if p == 0 {
		return 80
	}
	return p
}

func (g *Generator) inetNat(kind, family string) string {
	if g.family == "inet" {
		return kind + " " + family
	}
	return kind
}
