package reach

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// hostile makes a ruleset with one base chain "c0".
func hostile(source rs.Source, chains int, rules func(c *rs.Chain, i int) []*rs.Rule) *rs.Ruleset {
	t := &rs.Table{Family: rs.Inet, Name: "t", Source: source, Sets: map[string]*rs.Set{}}
	for i := range chains {
		c := &rs.Chain{Table: t, Name: fmt.Sprint("c", i)}
		if i == 0 {
			c.Base = &rs.Base{Type: "filter", Hook: rs.Input, Policy: rs.Drop}
		}
		t.Chains = append(t.Chains, c)
	}
	for i, c := range t.Chains {
		c.Rules = rules(c, i)
	}
	return &rs.Ruleset{Tables: []*rs.Table{t}}
}

func jump(c *rs.Chain, to int, tests ...rs.Expr) *rs.Rule {
	return &rs.Rule{Chain: c, Exprs: append(tests, rs.Conclude{Verdict: rs.Jump, Chain: fmt.Sprint("c", to)})}
}

func accept(c *rs.Chain) *rs.Rule {
	return &rs.Rule{Chain: c, Exprs: []rs.Expr{rs.Conclude{Verdict: rs.Accept}}}
}

// ways asks by each of the ways an answer is found: with an open source, one source,
// and one source with its path.
func ways(t *testing.T, set *rs.Ruleset) map[string]*Answer {
	t.Helper()
	m := &Model{Set: set, Order: binary.LittleEndian}
	p := Packet{Family: rs.IPv6, IIF: Some("eth0"), Proto: Some(uint8(6)), Sport: Range{1024, 65535}, Dport: Some(uint16(22)), Ct: Some(uint32(CtNew)), Mark: Some(uint32(0))}
	out := map[string]*Answer{"open": m.Ask(p, rs.Input, false)}
	p.Saddr = Some(netip.MustParseAddr("2001:db8::1"))
	out["one"], out["path"] = m.ask(p, rs.Input, false, false), m.ask(p, rs.Input, false, true)
	return out
}

func wants(t *testing.T, set *rs.Ruleset, want End, opaque string) {
	t.Helper()
	for how, a := range ways(t, set) {
		if a.All() != want {
			t.Errorf("%s: %v, want %v", how, a.All().Words(), want.Words())
		}
		if (opaque == "") != (len(a.Opaque) == 0) || opaque != "" && !slices.Contains(a.Opaque, opaque) {
			t.Errorf("%s: %q, want %q", how, a.Opaque, opaque)
		}
	}
}

const tooDeep = "jumps deeper than the kernel allows"

// The kernel refuses cycles; a Snapshot may hold anything.
func TestCycleEnds(t *testing.T) {
	for _, source := range []rs.Source{rs.NFTables, rs.XTables} {
		wants(t, hostile(source, 2, func(c *rs.Chain, i int) []*rs.Rule { return []*rs.Rule{jump(c, 1-i), jump(c, 1-i)} }), Accepted|Dropped, tooDeep)
	}
}

func TestDeepJumpsEnd(t *testing.T) {
	const n = 10_000
	down := func(c *rs.Chain, i int) []*rs.Rule {
		if i == n-1 {
			return []*rs.Rule{accept(c)}
		}
		return []*rs.Rule{jump(c, i+1)}
	}
	wants(t, hostile(rs.NFTables, n, down), Accepted|Dropped, tooDeep)
	wants(t, hostile(rs.XTables, n, down), Accepted|Dropped, tooDeep)
	// x_tables allows what nf_tables refuses.
	last := func(c *rs.Chain, i int) []*rs.Rule {
		if i == 99 {
			return []*rs.Rule{accept(c)}
		}
		return []*rs.Rule{jump(c, i+1)}
	}
	wants(t, hostile(rs.XTables, 100, last), Accepted, "")
}

// Chains that jump twice each would take 2^15 runs of the last one here, and as many of
// the ones beside it: what a chain does to the same packets is worked out once.
func TestForkingJumpsAreFollowed(t *testing.T) {
	const deep, wide = 15, 6000
	wants(t, hostile(rs.NFTables, deep*wide+1, func(c *rs.Chain, i int) []*rs.Rule {
		level := (i + wide - 1) / wide
		switch {
		case i == 0:
			var all []*rs.Rule
			for k := range wide {
				all = append(all, jump(c, 1+k))
			}
			return append(all, accept(c))
		case level == deep:
			return nil
		}
		next := 1 + level*wide
		return []*rs.Rule{jump(c, next+i*7919%wide), jump(c, next+i*104729%wide)}
	}), Accepted, "")
	// The same where only some packets come along.
	wants(t, hostile(rs.NFTables, 16, func(c *rs.Chain, i int) []*rs.Rule {
		if i == 15 {
			return []*rs.Rule{{Chain: c, Exprs: []rs.Expr{rs.Meta{Key: metaIIFName}, rs.Cmp{Data: []byte("wan")}, rs.Conclude{Verdict: rs.Accept}}}}
		}
		var all []*rs.Rule
		for k := range 40 {
			src := []rs.Expr{rs.Payload{Base: rs.NetworkHeader, Offset: 8, Len: 16}, rs.Cmp{Op: rs.Gte, Data: append([]byte{byte(k)}, make([]byte, 15)...)}}
			all = append(all, jump(c, i+1, src...))
		}
		return all
	}), Dropped, "")
}

func TestManyRulesEnd(t *testing.T) {
	const n = 300_000
	set := hostile(rs.NFTables, 1, func(c *rs.Chain, _ int) []*rs.Rule {
		all := make([]*rs.Rule, n, n+1)
		for i := range all {
			all[i] = &rs.Rule{Chain: c, Exprs: []rs.Expr{rs.Conclude{Verdict: rs.Continue}}}
		}
		return append(all, accept(c))
	})
	wants(t, set, Accepted, "")
}

// Rules that only the interpreter runs, more than it follows.
func TestManySlowRulesEnd(t *testing.T) {
	const n = 2000
	set := hostile(rs.NFTables, 16, func(c *rs.Chain, i int) []*rs.Rule {
		var all []*rs.Rule
		for k := range n {
			all = append(all, &rs.Rule{Chain: c, Exprs: []rs.Expr{
				rs.Immediate{Data: []byte{byte(i), byte(k), byte(k >> 8), 1}}, rs.MetaSet{Key: metaMark}, rs.Conclude{Verdict: rs.Continue},
			}})
			if i < 15 && k%2 == 0 {
				all = append(all, jump(c, i+1))
			}
		}
		return all
	})
	wants(t, set, Accepted|Dropped, "ruleset too large to follow")
}

func TestHugeMapsEnd(t *testing.T) {
	const n = 100_000
	for _, verdict := range []bool{false, true} {
		set := hostile(rs.NFTables, 2, func(c *rs.Chain, i int) []*rs.Rule {
			if i == 1 {
				return nil
			}
			s := &rs.Set{Name: "m", KeyLen: 16, DataLen: 4, Map: true, Verdict: verdict, Interval: true, Complete: true}
			for k := range n {
				key := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 0x20010db8<<32), uint64(2*k))
				e := rs.Element{From: key, To: key, Data: binary.LittleEndian.AppendUint32(nil, uint32(k))}
				if verdict {
					e.HasVerdict, e.Verdict, e.Chain = true, rs.Jump, fmt.Sprint("c", 1)
				}
				s.Elements = append(s.Elements, e)
			}
			c.Table.Sets["m"] = s
			src := rs.Payload{Base: rs.NetworkHeader, Offset: 8, Len: 16}
			look := rs.Lookup{Set: "m", HasDreg: true, Verdict: verdict, Dreg: 8}
			if verdict {
				look.Dreg = rs.VerdictReg
				return []*rs.Rule{{Chain: c, Exprs: []rs.Expr{src, look}}}
			}
			return []*rs.Rule{{Chain: c, Exprs: []rs.Expr{src, look, rs.MetaSet{Key: metaMark, Sreg: 8}}}, accept(c)}
		})
		want := Accepted
		if verdict {
			want = Dropped
		}
		wants(t, set, want, "")
	}
}

func TestLargeConcatenationsEnd(t *testing.T) {
	const n, fields = 20_000, 16
	set := hostile(rs.NFTables, 1, func(c *rs.Chain, _ int) []*rs.Rule {
		s := &rs.Set{Name: "s", KeyLen: 4 * fields, Interval: true, Complete: true}
		for range fields {
			s.Concat = append(s.Concat, 4)
		}
		for k := range n {
			from, to := make([]byte, s.KeyLen), make([]byte, s.KeyLen)
			for i := range from {
				from[i] = byte(k >> (i % 8))
				to[i] = 0xff
			}
			s.Elements = append(s.Elements, rs.Element{From: from, To: to})
		}
		c.Table.Sets["s"] = s
		var r []rs.Expr
		for i := range fields {
			r = append(r, rs.Payload{Dreg: rs.Reg(i), Base: rs.NetworkHeader, Offset: uint32(4 * (i % 10)), Len: 4})
		}
		return []*rs.Rule{{Chain: c, Exprs: append(r, rs.Lookup{Set: "s"}, rs.Conclude{Verdict: rs.Accept})}}
	})
	for how, a := range ways(t, set) {
		if a.All() != Accepted { // the first element holds every key
			t.Errorf("%s: %v", how, a.All().Words())
		}
	}
}

// Numbers that no kernel gives: no panic, and nothing is sure that depends on them.
func TestAbsurdRegistersEnd(t *testing.T) {
	const huge = 1<<32 - 1
	data := make([]byte, 70)
	for _, e := range [][]rs.Expr{
		{rs.Payload{Dreg: 254, Base: rs.NetworkHeader, Offset: huge, Len: huge}, rs.Cmp{Sreg: 254, Data: data}},
		{rs.Payload{Dreg: 15, Base: rs.TransportHeader, Offset: 0, Len: 64}, rs.Cmp{Sreg: 15, Data: data}},
		{rs.Meta{Dreg: 19, Key: metaIIFName}, rs.Cmp{Sreg: 19, Data: data}},
		{rs.Meta{Dreg: rs.VerdictReg, Key: metaMark}, rs.Cmp{Sreg: rs.VerdictReg, Data: data[:4]}},
		{rs.Meta{Key: metaMark}, rs.Bitwise{Len: huge, Mask: data, Xor: data}, rs.Cmp{Data: data}},
		{rs.Meta{Key: metaMark}, rs.Bitwise{Len: 4, Op: 1, Shift: huge}, rs.Cmp{Data: data[:4]}},
		{rs.Meta{Key: metaMark}, rs.Byteorder{Len: huge, Size: huge}, rs.Cmp{Data: data}},
		{rs.Exthdr{Dreg: 250, Len: huge, Offset: huge}, rs.Cmp{Sreg: 250, Data: data}},
		{rs.Lookup{Set: "s", Sreg: 250}},
		{rs.Meta{Key: metaMark}, rs.Lookup{Set: "s"}},
		{rs.Range{Sreg: 200, From: data, To: nil}},
		{rs.Cmp{Sreg: 3}},
	} {
		set := hostile(rs.NFTables, 1, func(c *rs.Chain, _ int) []*rs.Rule {
			c.Table.Sets["s"] = &rs.Set{Name: "s", KeyLen: huge, Concat: []int{64, 1 << 20, 3}, Complete: true, Interval: true, Elements: []rs.Element{{From: data[:3], To: data}, {}}}
			return []*rs.Rule{{Chain: c, Exprs: append(e, rs.Conclude{Verdict: rs.Accept})}}
		})
		for how, a := range ways(t, set) {
			if a.All() == 0 {
				t.Errorf("%T %s: no end at all", e[0], how)
			}
		}
	}
}
