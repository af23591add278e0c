package ruleset

import "strings"

// xtables writes the expressions that only x_tables has. nft has no words for them.
func (w *renderer) xtables(e Expr) bool {
	switch x := e.(type) {
	case Any:
		var alternatives []string
		for _, prog := range x.Of {
			sub := renderer{order: w.order, ifs: w.ifs, rule: w.rule, regs: map[Reg]term{}}
			for _, p := range prog {
				sub.expr(p)
			}
			alternatives = append(alternatives, strings.Join(sub.out, " "))
		}
		not := ""
		if x.Invert {
			not = "not "
		}
		w.add("%s( %s )", not, strings.Join(alternatives, " or "))
	case HotDrop: // what attackers send, and nobody looks for
	case ExtHeaders:
		names := []string{"prot", "none", "esp", "ah", "frag", "rt", "dst", "hbh"}
		var in []string
		for i, n := range names {
			if x.Match>>i&1 != 0 {
				in = append(in, n)
			}
		}
		word := "ipv6header "
		if x.Invert != 0 {
			word = "not " + word
		}
		if x.Soft {
			word += "soft "
		}
		w.add("%s", word+strings.Join(in, ","))
	case BridgePort:
		for i, word := range []string{"physdev-in " + x.In, "physdev-out " + x.Out, "physdev-is-bridged", "physdev-is-in", "physdev-is-out"} {
			if x.Match>>i&1 != 0 {
				not := ""
				if x.Invert>>i&1 != 0 {
					not = "not "
				}
				w.add("%s%s", not, word)
			}
		}
	default:
		return false
	}
	return true
}
