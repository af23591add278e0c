package oracle

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Cell is one thing that the model has to know: an operator on a field (or a
// statement) in a family at a hook.
type Cell struct {
	Family, Hook, Field, Op string

	field     *field
	statement *statement
}

func (c *Cell) String() string {
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

// Coverage counts what rulesets held and packets met. Cells are known by number.
type Coverage struct {
	all []Cell
	of  map[[2]string][]int // by context

	loaded  []int // rules that the kernel took
	refused []int // rules that nft or the kernel refused
	// packets for which a rule with this cell matched, did not, or may have
	yes, no, open []int

	comments sync.Map // comment → cells
}

// NewCoverage lists every cell.
func NewCoverage() *Coverage {
	c := &Coverage{of: map[[2]string][]int{}}
	add := func(x Cell) {
		c.of[[2]string{x.Family, x.Hook}] = append(c.of[[2]string{x.Family, x.Hook}], len(c.all))
		c.all = append(c.all, x)
	}
	for _, x := range contexts {
		for i := range fields {
			f := &fields[i]
			if !f.fits(x[0], x[1]) {
				continue
			}
			for _, op := range f.ops() {
				add(Cell{x[0], x[1], f.name, op, f, nil})
			}
		}
		for i := range statements {
			if s := &statements[i]; s.fits(x[0], x[1]) {
				add(Cell{x[0], x[1], s.name, "statement", nil, s})
			}
		}
	}
	n := len(c.all)
	c.loaded, c.refused, c.yes, c.no, c.open = make([]int, n), make([]int, n), make([]int, n), make([]int, n), make([]int, n)
	return c
}

// met tells whether packets met the cell.
func (c *Coverage) met(x int) bool { return c.yes[x]+c.no[x]+c.open[x] > 0 }

// count is how well a cell is known, for the generator to prefer the least.
func (c *Coverage) count(x int) int {
	n := c.loaded[x] + 3*c.refused[x]
	if c.yes[x] > 0 || c.oneWay(x) != "" {
		n += 4
	}
	if c.no[x] > 0 {
		n += 8
	}
	return n
}

// oneWay is why packets cannot both match and miss a cell; "" when they can.
func (c *Coverage) oneWay(x int) string {
	cell := &c.all[x]
	switch {
	case cell.field != nil && cell.field.vague != "":
		return "not known beforehand: " + cell.field.vague
	case cell.field != nil:
		return cell.field.never(cell.Family, cell.Hook)
	case cell.statement.vague != "":
		return "not known beforehand: " + cell.statement.vague
	}
	return ""
}

// Share is a part of the cells.
type Share struct {
	Cells, Met, Both int
	Unmet            []string
	Single           map[string][]string // met one way only: why → cells
}

// Report counts the cells. Only those that can be seen both ways count as such.
func (c *Coverage) Report() (s Share, can int) {
	s.Single = map[string][]string{}
	for x := range c.all {
		name := c.all[x].String()
		s.Cells++
		why := c.oneWay(x)
		if why == "" {
			can++
		}
		switch {
		case !c.met(x):
			s.Unmet = append(s.Unmet, name)
		case c.yes[x] > 0 && c.no[x] > 0:
			s.Met++
			if why == "" {
				s.Both++
			}
		default:
			s.Met++
			if why == "" {
				switch {
				case c.yes[x] > 0:
					why = "only seen matching"
				case c.no[x] > 0:
					why = "only seen not matching"
				default:
					why = "only seen undecided"
				}
			}
			s.Single[why] = append(s.Single[why], name)
		}
	}
	slices.Sort(s.Unmet)
	return s, can
}

// Undecided lists the fields whose rules the model most often could not decide.
func (c *Coverage) Undecided() []string {
	n := map[string]int{}
	for x, k := range c.open {
		n[c.all[x].Field] += k
	}
	names := slices.Collect(maps.Keys(n))
	slices.SortFunc(names, func(a, b string) int { return n[b] - n[a] })
	for i := range names {
		names[i] = fmt.Sprintf("%s %d", names[i], n[names[i]])
	}
	return names[:min(len(names), 40)]
}

// comment is how a rule names its cells in the ruleset, so that a trace can be
// counted: "c12 c7".
func (c *Coverage) comment(cells []int) string {
	var out []string
	for _, x := range cells {
		out = append(out, fmt.Sprintf("c%d", x))
	}
	return strings.Join(out, " ")
}

// cells reads a comment.
func (c *Coverage) cells(comment string) []int {
	if v, ok := c.comments.Load(comment); ok {
		return v.([]int)
	}
	var out []int
	for _, f := range strings.Fields(comment) {
		if i, err := strconv.Atoi(strings.TrimPrefix(f, "c")); err == nil && i >= 0 && i < len(c.all) {
			out = append(out, i)
		}
	}
	c.comments.Store(comment, out)
	return out
}
