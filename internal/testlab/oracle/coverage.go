package oracle

import (
	"fmt"
	"slices"
	"strings"
)

// Cell is one thing that the model has to know: an operator on a field (or a
// statement) in a family at a hook.
type Cell struct{ Family, Hook, Field, Op string }

func (c Cell) String() string {
	return c.Family + "/" + c.Hook + "/" + c.Field + "/" + c.Op
}

// contexts are the base chains of nf_tables that the lab's packets pass.
var contexts = [][2]string{
	{"inet", "ingress"},
	{"inet", "prerouting"},
	{"inet", "input"},
	{"inet", "forward"},
	{"inet", "postrouting"},
	{"ip", "prerouting"},
	{"ip", "input"},
	{"ip", "forward"},
	{"ip", "postrouting"},
	{"ip6", "prerouting"},
	{"ip6", "input"},
	{"ip6", "forward"},
	{"ip6", "postrouting"},
	{"netdev", "ingress"},
	{"inet", "output"},
	{"ip", "output"},
	{"ip6", "output"},
}

// Coverage counts what rulesets held and packets met.
type Coverage struct {
	loaded  map[Cell]int // rules that the kernel took
	yes, no map[Cell]int // packets for which a rule with this cell matched, or did not
	refused map[Cell]int // rules that nft or the kernel refused
	all     []Cell
}

// NewCoverage lists every cell.
func NewCoverage() *Coverage {
	c := &Coverage{loaded: map[Cell]int{}, yes: map[Cell]int{}, no: map[Cell]int{}, refused: map[Cell]int{}}
	for _, x := range contexts {
		for i := range fields {
			f := &fields[i]
			if !f.fits(x[0], x[1]) {
				continue
			}
			for _, op := range f.ops() {
				c.all = append(c.all, Cell{x[0], x[1], f.name, op})
			}
		}
		for _, s := range statements {
			if s.fits(x[0], x[1]) {
				c.all = append(c.all, Cell{x[0], x[1], s.name, "statement"})
			}
		}
	}
	return c
}

// covered tells whether packets met the cell.
func (c *Coverage) covered(x Cell) bool { return c.yes[x]+c.no[x] > 0 }

// count is how well a cell is known, for the generator to prefer the least.
func (c *Coverage) count(x Cell) int {
	n := c.loaded[x] + 3*c.refused[x]
	if c.yes[x] > 0 {
		n += 4
	}
	if c.no[x] > 0 {
		n += 8
	}
	return n
}

// Report is the share of covered cells in per cent, and the uncovered ones.
func (c *Coverage) Report() (percent, both float64, uncovered []string) {
	n, m := 0, 0
	for _, x := range c.all {
		if c.covered(x) {
			n++
		} else {
			uncovered = append(uncovered, x.String())
		}
		if c.yes[x] > 0 && c.no[x] > 0 {
			m++
		}
	}
	slices.Sort(uncovered)
	t := float64(len(c.all))
	return 100 * float64(n) / t, 100 * float64(m) / t, uncovered
}

// comment is how a rule names its cells in the ruleset, so that a trace can be
// counted: "c12 c7".
func (c *Coverage) comment(cells []Cell) string {
	var out []string
	for _, x := range cells {
		if i := slices.Index(c.all, x); i >= 0 {
			out = append(out, fmt.Sprintf("c%d", i))
		}
	}
	return strings.Join(out, " ")
}

// cells reads a comment.
func (c *Coverage) cells(comment string) []Cell {
	var out []Cell
	for _, f := range strings.Fields(comment) {
		var i int
		if _, err := fmt.Sscanf(f, "c%d", &i); err == nil && i < len(c.all) {
			out = append(out, c.all[i])
		}
	}
	return out
}
