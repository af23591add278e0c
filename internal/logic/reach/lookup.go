package reach

import (
	"strings"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

func (q *question) dynamic(s *rs.Set) bool {
	return q.uses.dynamic[s]
}

// each calls f with every element that may hold the key, then with the catch-all
// element for what is left, and returns where the key is found.
func (q *question) each(s *rs.Set, key []abyte, f func(cond, *rs.Element)) cond {
	var either union
	var catchAll *rs.Element
	for i := range s.Elements {
		e := &s.Elements[i]
		if e.CatchAll {
			catchAll = e
			continue
		}
		c := q.element(s, e, key)
		if c.impossible() {
			continue
		}
		if e.Expires {
			q.opaque["an element that times out"] = true
			c = cond{may: c.may, mayAll: c.mayAll}
		}
		either.add(c)
		f(c, e)
	}
	hit := either.cond()
	if catchAll != nil {
		rest := hit.not(q.is4())
		if catchAll.Expires && !rest.impossible() {
			q.opaque["an element that times out"] = true
			rest = cond{may: rest.may, mayAll: rest.mayAll}
		}
		if !rest.impossible() {
			f(rest, catchAll)
		}
		hit = hit.or(rest)
	}
	return hit
}

// member answers whether a key is in a set.
func (q *question) member(reg *regs, x rs.Lookup, r *rs.Rule) cond {
	s := r.Chain.Table.Sets[x.Set]
	if s == nil {
		q.opaque["set "+x.Set] = true
		return perhaps
	}
	key := reg.at(x.Sreg, s.KeyLen)
	hit := q.each(s, key, func(cond, *rs.Element) {})
	if !s.Complete || q.dynamic(s) {
		hit = hit.or(perhaps)
		q.opaque[notSure(s)] = true
		if q.uses.deletes[s] { // elements may be gone as well
			hit = cond{may: hit.may, mayAll: hit.mayAll}
		}
	}
	if x.Invert {
		hit = hit.not(q.is4())
	}
	return hit
}

// notSure names a set of which not all is known.
func notSure(s *rs.Set) string {
	if s.Why != "" {
		return s.Why
	}
	return "set " + s.Name
}

// setRates answers the stateful expressions that a set has for each of its elements, and
// that break the rule.
func (x *run) setRates(s *rs.Set, rest []rs.Expr) cond {
	if s == nil {
		return always
	}
	for i := range s.Elements {
		for _, e := range s.Elements[i].Exprs {
			if l, ok := e.(rs.Limit); ok && l.HasRoom { // what is left differs from element to element
				x.q.opaque["what is left of the rates in set "+s.Name] = true
				return perhaps
			}
		}
	}
	return x.rates(s.Exprs, rest)
}

// lookup follows the branches of a map; false when it is a plain set.
func (x *run) lookup(e rs.Lookup, rest []rs.Expr) bool {
	if !e.HasDreg {
		return false
	}
	q := x.q
	s := x.r.Chain.Table.Sets[e.Set]
	if s == nil {
		q.opaque["set "+e.Set] = true
		x.cond, x.mayEnd = x.cond.and(perhaps), x.mayEnd || e.Verdict
		x.exec(rest)
		return true
	}
	type branch struct {
		cond    cond
		any     union
		verdict rs.Verdict
		chain   string
		data    string
	}
	type result struct {
		verdict     rs.Verdict
		chain, data string
	}
	var branches []branch
	same := map[result]int{}
	hit := q.each(s, x.reg.at(e.Sreg, s.KeyLen), func(c cond, el *rs.Element) {
		k := result{el.Verdict, el.Chain, string(el.Data)}
		i, known := same[k]
		if !known {
			i = len(branches)
			same[k] = i
			branches = append(branches, branch{verdict: k.verdict, chain: k.chain, data: k.data})
		}
		branches[i].any.add(c)
	})
	for i := range branches {
		branches[i].cond = branches[i].any.cond()
	}
	if !s.Complete || q.dynamic(s) {
		q.opaque[notSure(s)] = true
		for i := range branches {
			b := &branches[i]
			b.cond = cond{may: b.cond.may, mayAll: b.cond.mayAll}
		}
		hit = cond{may: hit.may, mayAll: hit.mayAll}
		y := *x
		y.cond, y.mayEnd = x.cond.and(perhaps), x.mayEnd || e.Verdict
		y.reg.put(e.Dreg, open(min(s.DataLen, 64)))
		y.exec(rest)
	}
	if rated(s) {
		q.opaque["rates in map "+s.Name] = true
		for i := range branches {
			b := &branches[i]
			b.cond = cond{may: b.cond.may, mayAll: b.cond.mayAll}
		}
		hit = cond{may: hit.may, mayAll: hit.mayAll}
	}
	if !e.Verdict && len(branches) > maxForks {
		var alts []alternative
		for _, b := range branches {
			alts = append(alts, alternative{b.cond, []byte(b.data)})
		}
		y := *x
		y.reg.put(e.Dreg, q.choose(alts))
		if y.require(hit) {
			y.exec(rest)
		}
		return true
	}
	for _, b := range branches {
		y := *x
		q.cut(b.cond)
		y.cond = x.cond.and(b.cond)
		if y.cond.impossible() {
			continue
		}
		switch {
		case !e.Verdict:
			y.reg.put(e.Dreg, knownBytes([]byte(b.data)))
			y.exec(rest)
		case b.verdict == rs.Continue:
			y.exec(rest)
		case b.verdict == rs.Break:
			y.conclude(rs.Continue, "", false)
		default:
			y.conclude(b.verdict, b.chain, false)
		}
	}
	// Without a match the rule breaks.
	y := *x
	y.require(hit)
	return true
}

// rated tells whether elements of a set have rates.
func rated(s *rs.Set) bool {
	if !idle(s.Exprs) {
		return true
	}
	for i := range s.Elements {
		if !idle(s.Elements[i].Exprs) {
			return true
		}
	}
	return false
}

// element answers whether a key is within one element.
func (q *question) element(s *rs.Set, e *rs.Element, key []abyte) cond {
	if len(s.Concat) < 2 {
		if strings.Compare(string(e.From), string(e.To)) == 0 {
			return equal(key, e.From, q)
		}
		return within(key, e.From, e.To, q)
	}
	c, off := always, 0
	for _, n := range s.Concat {
		if off+n > len(key) || off+n > len(e.From) || off+n > len(e.To) {
			return perhaps
		}
		c = c.and(within(key[off:off+n], e.From[off:off+n], e.To[off:off+n], q))
		if c.impossible() {
			return c
		}
		off += (n + 3) &^ 3
	}
	return c
}

const dynsetDelete = 2 // NFT_DYNSET_OP_DELETE

// dynset adds to a set. It breaks the rule when the set is full, or when a stateful
// expression of the element does: both are rates, the first packet passes.
func (x *run) dynset(e rs.Dynset, rest []rs.Expr) cond {
	if e.Op == dynsetDelete {
		return always
	}
	s := x.r.Chain.Table.Sets[e.Set]
	exprs := e.Exprs
	if s != nil && len(exprs) == 0 {
		exprs = s.Exprs
	}
	first := always
	for _, ex := range exprs {
		switch ex := ex.(type) {
		case rs.Limit:
			switch x.q.within(ex) {
			case yes:
				first = first.and(constant(!ex.Over))
			case no:
				first = first.and(constant(ex.Over))
			default:
				x.q.opaque["packet length"] = true
				first = first.and(perhaps)
			}
		case rs.Nothing:
		default:
			x.q.opaque["dynset"] = true
			first = first.and(perhaps)
		}
	}
	if s == nil || !s.Complete || s.Size > 0 && uint32(len(s.Elements)) >= s.Size {
		x.q.opaque["full set "+e.Set] = true
		first = perhaps
	}
	if e.Invert {
		first = first.not(x.q.is4())
	}
	// What happens when the rate is exceeded or the set full.
	if first.certain() {
		x.exceed(rest, false)
	} else if first.impossible() {
		x.exceed(rest, true)
	}
	return first
}
