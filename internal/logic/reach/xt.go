package reach

import (
	"slices"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// any answers an rs.Any: each program runs by itself on what the rule knows so far.
func (x *run) any(e rs.Any) cond {
	hit := never
	for _, prog := range e.Of {
		hit = hit.or(x.alone(prog))
		if hit.certain() {
			break
		}
	}
	if e.Invert {
		return hit.not(x.q.is4())
	}
	return hit
}

// alone runs a program without effects and answers where it comes to its end.
func (x *run) alone(prog []rs.Expr) cond {
	var out []outcome
	y := run{q: x.q, r: x.r, cond: always, env: x.env, out: &out}
	y.exec(prog)
	hit := never
	for _, o := range out {
		hit = hit.or(o.cond)
	}
	return hit
}

// hotDrop drops where the program matches.
func (x *run) hotDrop(e rs.HotDrop) cond {
	c := x.alone(e.When)
	if c.impossible() {
		return always
	}
	y := *x
	y.cond = x.cond.and(c)
	if !y.cond.impossible() {
		y.conclude(rs.Drop, "", false)
	}
	return c.not(x.q.is4())
}

// flat lists expressions and those within them.
func flat(l []rs.Expr) []rs.Expr {
	if !slices.ContainsFunc(l, func(e rs.Expr) bool {
		switch e.(type) {
		case rs.Any, rs.HotDrop:
			return true
		}
		return false
	}) {
		return l
	}
	var out []rs.Expr
	for _, e := range l {
		out = append(out, e)
		switch e := e.(type) {
		case rs.Any:
			for _, p := range e.Of {
				out = append(out, flat(p)...)
			}
		case rs.HotDrop:
			out = append(out, flat(e.When)...)
		}
	}
	return out
}

// extHeaders is ipv6header_mt6 (net/ipv6/netfilter/ip6t_ipv6header.c).
func (q *question) extHeaders(e rs.ExtHeaders) cond {
	if q.is4() {
		return never
	}
	bits := map[uint8]uint8{
		0: rs.HeaderHopByHop, 43: rs.HeaderRouting, 44: rs.HeaderFragment, 60: rs.HeaderDestOpts, 51: rs.HeaderAH,
		50: rs.HeaderESP, 59: rs.HeaderNone,
	}
	var have uint8
	end := false
	for _, h := range q.l.ext {
		b, ok := bits[h.number]
		if !ok {
			return perhaps
		}
		have |= b
		end = end || h.number == 50 || h.number == 59
	}
	c, ok := constantBytes([]abyte{q.l.l4proto})
	if !ok {
		q.needs |= 1 << fieldProto
		return perhaps
	}
	switch {
	case end:
	case bits[c[0]] == rs.HeaderESP || bits[c[0]] == rs.HeaderNone:
		have |= bits[c[0]]
	case bits[c[0]] != 0:
		return perhaps // the headers go on behind what the question says
	default:
		have |= rs.HeaderProto
	}
	if e.Soft {
		return constant((have^e.Match^e.Invert)&e.Match == 0)
	}
	return constant((have == e.Match) != (e.Invert != 0))
}
