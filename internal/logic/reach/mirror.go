package reach

import (
	"slices"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// mirror are the rules that see what this host sends in one family, with source and
// destination exchanged: what a question leaves open is the source, so that an answer
// about mirrored rules has destinations where others have sources. What has no mirror
// image is a leaf that nobody understands: it leaves answers open and never sure.
type mirror struct {
	model  *Model
	rules  map[*rs.Rule]*rs.Rule   // the mirrored rule to the real one
	chains map[*rs.Chain]*rs.Chain // likewise
	hooked bool                    // any chain sees the family's packets
	byOIF  bool                    // rules may tell outgoing interfaces apart
	fib    bool                    // rules ask for the type of the destination
	cuts   portCuts
}

// What leaves the host passes these.
func outward(h rs.Hook) bool { return h == rs.Output || h == rs.Postrouting || h == rs.Egress }

// mirrored is the mirror of a family, made at the first question.
func (sp *Space) mirrored(f rs.Family) *mirror {
	if m := sp.mirrors[f]; m != nil {
		return m
	}
	base := sp.unnamed()
	set := &rs.Ruleset{Interfaces: base.Set.Interfaces, Types: base.Set.Types, Kinds: base.Set.Kinds, Groups: base.Set.Groups, MACs: base.Set.MACs, Bridges: base.Set.Bridges, BridgeCalls: base.Set.BridgeCalls}
	m := &mirror{rules: map[*rs.Rule]*rs.Rule{}, chains: map[*rs.Chain]*rs.Chain{}}
	g := glass{m: m, is4: f == rs.IPv4, order: base.Order, typed: base.World != nil && sp.Routes.of(f == rs.IPv4).ok}
	for _, t := range base.Set.Tables {
		if t.Family == f || t.Family == rs.Inet || t.Family == rs.Netdev || t.Family == rs.Bridge {
			set.Tables = append(set.Tables, g.table(t))
		}
	}
	// What rules elsewhere do to sets and connections counts, too.
	m.model = &Model{Set: set, Order: base.Order, World: base.World, uses: map[rs.Family]*uses{f: base.usesOf(f)}}
	if sp.mirrors == nil {
		sp.mirrors = map[rs.Family]*mirror{}
	}
	sp.mirrors[f] = m
	return m
}

// glass makes the image of rules.
type glass struct {
	m     *mirror
	is4   bool
	order appendOrder
	typed bool      // the type of destinations is known: those that leave are unicast
	of    *rs.Table // the one at work
}

// table copies the chains of a table that packets from here may pass.
func (g *glass) table(t *rs.Table) *rs.Table {
	c := *t
	c.Chains = nil
	g.of = t
	for _, x := range seenOutward(t) {
		n := &rs.Chain{Table: &c, Name: x.Name, Handle: x.Handle, Base: x.Base}
		g.m.chains[n] = x
		if x.Base != nil && !t.Dormant {
			g.m.hooked = true
			g.m.byOIF = g.m.byOIF || x.Base.Hook == rs.Egress
		}
		for _, r := range x.Rules {
			y := *r
			y.Chain, y.Exprs = n, g.exprs(r.Exprs)
			g.m.rules[&y] = r
			n.Rules = append(n.Rules, &y)
			g.m.cuts.rule(t, r)
		}
		c.Chains = append(c.Chains, n)
	}
	return &c
}

// seenOutward are the base chains of the way out and those that they jump to, in the
// order of the table.
func seenOutward(t *rs.Table) []*rs.Chain {
	seen := map[*rs.Chain]bool{}
	var todo []*rs.Chain
	for _, c := range t.Chains {
		if c.Base != nil && outward(c.Base.Hook) {
			seen[c] = true
			todo = append(todo, c)
		}
	}
	byName := map[string]*rs.Chain{}
	for _, c := range t.Chains {
		if byName[c.Name] == nil {
			byName[c.Name] = c
		}
	}
	add := func(name string) {
		if c := byName[name]; c != nil && !seen[c] {
			seen[c] = true
			todo = append(todo, c)
		}
	}
	for ; len(todo) > 0; todo = todo[1:] {
		for _, r := range todo[0].Rules {
			for _, e := range flat(r.Exprs) {
				switch e := e.(type) {
				case rs.Conclude:
					add(e.Chain)
				case rs.Lookup:
					if s := t.Sets[e.Set]; s != nil && e.Verdict {
						for i := range s.Elements {
							add(s.Elements[i].Chain)
						}
					}
				}
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(t.Chains), func(c *rs.Chain) bool { return !seen[c] })
}

func (g *glass) exprs(list []rs.Expr) []rs.Expr {
	out := make([]rs.Expr, 0, len(list))
	for _, e := range list {
		out = append(out, g.expr(e)...)
	}
	return out
}

func (g *glass) expr(e rs.Expr) []rs.Expr {
	switch e := e.(type) {
	case rs.Payload:
		return g.payload(e)
	case rs.PayloadSet:
		var out []rs.Expr
		for _, p := range g.parts(e.Base, e.Offset, e.Len) {
			x := e
			x.Offset, x.Len = p.to, p.n
			out = append(out, x)
		}
		return out
	case rs.Ct:
		e.Key = otherCt(e.Key)
		return []rs.Expr{e}
	case rs.CtSet:
		e.Key = otherCt(e.Key)
		return []rs.Expr{e}
	case rs.Meta:
		switch e.Key {
		case metaLen, metaProtocol, metaMark, metaIIF, metaIIFName, metaSKUID, metaSKGID, metaNFProto, metaL4Proto, metaPktType:
		default:
			g.m.byOIF = true
		}
		return []rs.Expr{e}
	case rs.Fib:
		if e.Result == fibResultAddrType && e.Flags&^fibMark == fibDaddr {
			g.m.fib = true
			if g.typed {
				return []rs.Expr{rs.Immediate{Dreg: e.Dreg, Data: g.order.AppendUint32(nil, rtnUnicast)}}
			}
		}
		flags := e.Flags &^ (fibSaddr | fibDaddr)
		if e.Flags&fibSaddr != 0 {
			flags |= fibDaddr
		}
		if e.Flags&fibDaddr != 0 {
			flags |= fibSaddr
		}
		e.Flags = flags
		return []rs.Expr{e}
	case rs.Nat:
		mine := e.Family == rs.Inet || e.Family == 0 || (e.Family == rs.IPv4) == g.is4
		if !e.Dst && !e.ByHook || !mine {
			return []rs.Expr{e} // the address that it loses is then the destination: later rules are not sure
		}
		return []rs.Expr{elsewhereLeaf}
	case rs.Redirect:
		return []rs.Expr{elsewhereLeaf}
	case rs.Any:
		of := make([][]rs.Expr, len(e.Of))
		for i, p := range e.Of {
			of[i] = g.exprs(p)
		}
		e.Of = of
		return []rs.Expr{e}
	case rs.HotDrop:
		e.When = g.exprs(e.When)
		return []rs.Expr{e}
	}
	return []rs.Expr{e}
}

// elsewhereLeaf stands for destination NAT: where its packets go is not followed.
var elsewhereLeaf = rs.Opaque{Name: "where NAT sends packets of this host", Ends: true}

// otherCt is the key of the other address of a connection.
func otherCt(key uint32) uint32 {
	switch key {
	case ctSrc, ctSrcIP, ctSrcIP6:
		return key + 1
	case ctDst, ctDstIP, ctDstIP6:
		return key - 1
	}
	return key
}

// part is a run of bytes and where its image is.
type part struct{ from, to, n uint32 }

// parts cuts bytes of a header where an address starts or ends.
func (g *glass) parts(base rs.Header, off, n uint32) []part {
	src, dst, size := uint32(8), uint32(24), uint32(16)
	if g.is4 {
		src, dst, size = 12, 16, 4
	}
	if base != rs.NetworkHeader || off+n <= src || off >= dst+size {
		return []part{{off, off, n}}
	}
	var out []part
	for end := off + n; off < end; {
		to, stop := off, end
		switch {
		case off < src:
			stop = min(end, src)
		case off < dst:
			to, stop = off+size, min(end, dst)
		case off < dst+size:
			to, stop = off-size, min(end, dst+size)
		}
		out = append(out, part{off, to, stop - off})
		off = stop
	}
	return out
}

func (g *glass) payload(e rs.Payload) []rs.Expr {
	unknown := rs.Opaque{Name: "a field that is half an address", Dreg: e.Dreg, Loads: true, Len: e.Len}
	if (g.of.Family == rs.Netdev || g.of.Family == rs.Bridge) && e.Base == rs.LinkHeader {
		unknown.Name = "the link header of a packet that leaves"
		return []rs.Expr{unknown}
	}
	if e.Offset > 1<<16 || e.Len > 64 {
		return []rs.Expr{e}
	}
	var out []rs.Expr
	for _, p := range g.parts(e.Base, e.Offset, e.Len) {
		at := p.from - e.Offset
		if at%4 != 0 {
			return []rs.Expr{unknown}
		}
		x := e
		x.Dreg, x.Offset, x.Len = e.Dreg+rs.Reg(at/4), p.to, p.n
		out = append(out, x)
	}
	return out
}
