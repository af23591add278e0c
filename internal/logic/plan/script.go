package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// script writes an nft table.
type script struct {
	site   *site
	chains []*chain
	sets   []string
}

// chain collects rules.
type chain struct {
	name, base string // base: the line of a base chain
	about      []string
	lines      []string
	s          *script
}

// chain adds a chain; nft needs one that is jumped to before the jump.
func (w *script) chain(name, base string, about ...string) *chain {
	c := &chain{name: name, base: base, about: about, s: w}
	w.chains = append(w.chains, c)
	return c
}

// rule adds a rule made of the parts that are not empty; path leads back to the intent.
func (c *chain) rule(path string, parts ...string) {
	parts = slices.DeleteFunc(slices.Clone(parts), func(p string) bool { return p == "" })
	line := strings.Join(parts, " ")
	if path != "" {
		if why := commentFault(path); why != "" {
			c.s.site.fault(path, "rename it", "the name %s", why)
			path = "?"
		}
		line += ` comment "` + path + `"`
	}
	c.lines = append(c.lines, line)
}

// maxComment is the longest comment that nft takes, in bytes.
const maxComment = 128

// commentFault says why a text can be no comment of a rule: nft knows no escapes.
func commentFault(t string) string {
	switch {
	case len(t) > maxComment:
		return fmt.Sprintf("is too long for the comment of a rule: %d bytes are the most", maxComment)
	case strings.ContainsAny(t, "\"\\") || strings.ContainsFunc(t, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0xfffd }):
		return "has a character that the comment of a rule cannot carry"
	}
	return ""
}

func (w *script) String() string {
	var b strings.Builder
	b.WriteString("table " + Table + "\ndelete table " + Table + "\ntable " + Table + " {\n")
	for i, set := range w.sets {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(set)
	}
	for _, c := range w.chains {
		b.WriteByte('\n')
		for _, a := range c.about {
			b.WriteString("\t# " + a + "\n")
		}
		b.WriteString("\tchain " + c.name + " {\n")
		if c.base != "" {
			b.WriteString("\t\t" + c.base + "\n")
		}
		for _, l := range c.lines {
			b.WriteString("\t\t" + l + "\n")
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func quote(s string) string { return `"` + s + `"` }

// iif writes one test per pattern, since sets of names know no wildcards everywhere.
func ifTests(dir string, names []string) []string {
	if names == nil {
		return []string{""}
	}
	var exact, out []string
	for _, n := range names {
		switch {
		case n == "*":
			return []string{""}
		case strings.HasSuffix(n, "*"):
			out = append(out, dir+" "+quote(n))
		default:
			exact = append(exact, quote(n))
		}
	}
	slices.Sort(exact)
	exact = slices.Compact(exact)
	if len(exact) > 0 {
		out = append([]string{dir + " " + braces(exact)}, out...)
	}
	return out
}

func braces(items []string) string {
	if len(items) == 1 {
		return items[0]
	}
	return "{ " + strings.Join(items, ", ") + " }"
}

// addresses writes a test of addresses; nil: none. field is "saddr" or "daddr", with
// "ct original" in front where what the sender wrote is meant.
func addresses(v4 bool, field string, ps []netip.Prefix) string {
	if ps == nil {
		return ""
	}
	items := make([]string, 0, len(ps))
	for _, p := range ps {
		if p.Bits() == 0 {
			return ""
		}
		items = append(items, prefixText(p))
	}
	fam := "ip6 "
	if v4 {
		fam = "ip "
	}
	return strings.Replace(field, "@", fam, 1) + " " + braces(items)
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// span is a range of ports.
type span struct{ from, to uint16 }

// spans joins ranges that touch: nft refuses lists that overlap.
func spans(list []span) []span {
	slices.SortFunc(list, func(a, b span) int { return int(a.from) - int(b.from) })
	var out []span
	for _, x := range list {
		if n := len(out); n > 0 && int(x.from) <= int(out[n-1].to)+1 {
			out[n-1].to = max(out[n-1].to, x.to)
			continue
		}
		out = append(out, x)
	}
	return out
}

func (x span) String() string {
	if x.from == x.to {
		return strconv.Itoa(int(x.from))
	}
	return fmt.Sprintf("%d-%d", x.from, x.to)
}

func portList(list []span) string {
	var items []string
	for _, x := range list {
		items = append(items, x.String())
	}
	return braces(items)
}
