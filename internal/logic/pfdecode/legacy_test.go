package pfdecode_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// ip6Entry is a struct ip6t_entry with a target and no matches, of a host whose
// header has that size.
func ip6Entry(order binary.ByteOrder, size int, name string, data []byte, edit func([]byte)) []byte {
	target := make([]byte, 32+len(data))
	order.PutUint16(target, uint16(len(target)))
	copy(target[2:], name)
	copy(target[32:], data)
	e := append(make([]byte, size), target...)
	order.PutUint16(e[140:], uint16(size))
	order.PutUint16(e[142:], uint16(len(e)))
	if edit != nil {
		edit(e)
	}
	return e
}

// ip6Filter is a filter table: INPUT jumps for eth0 to a chain that goes to another one.
func ip6Filter(order binary.ByteOrder, size int) fact.LegacyTable {
	word := func(v int32) []byte {
		b := make([]byte, 8)
		order.PutUint32(b, uint32(v))
		return b
	}
	n := size + 40
	errorAt := size + 32 + 32
	var b []byte
	chainA := 4*n + errorAt // behind a rule, three policies and the first ERROR
	chainB := chainA + 2*n + errorAt
	b = append(b, ip6Entry(order, size, "", word(int32(chainA)), func(e []byte) { copy(e[64:], "eth0"); copy(e[96:], "\xff\xff\xff\xff\xff") })...)
	for _, v := range []int32{-1, -2, -2} { // policies: drop, accept, accept
		b = append(b, ip6Entry(order, size, "", word(v), nil)...)
	}
	text := func(s string) []byte { return append([]byte(s), make([]byte, 32-len(s))...) }
	b = append(b, ip6Entry(order, size, "ERROR", text("a"), nil)...)
	b = append(b, ip6Entry(order, size, "", word(int32(chainB)), func(e []byte) { e[131] = 4 })...) // goto
	b = append(b, ip6Entry(order, size, "", word(-5), nil)...)
	b = append(b, ip6Entry(order, size, "ERROR", text("b"), nil)...)
	b = append(b, ip6Entry(order, size, "", word(-2), func(e []byte) { order.PutUint16(e[128:], 6); e[131] = 1; e[132] = 64 })...)
	b = append(b, ip6Entry(order, size, "", word(-5), nil)...)
	b = append(b, ip6Entry(order, size, "ERROR", text("ERROR"), nil)...)
	return fact.LegacyTable{
		Family: "ipv6", Name: "filter", Hooks: 1<<1 | 1<<2 | 1<<3, Blob: fact.Value(b),
		HookEntry: []uint32{0, 0, uint32(2 * n), uint32(3 * n), 0}, Underflow: []uint32{0, uint32(n), uint32(2 * n), uint32(3 * n), 0},
	}
}

// TestLegacyLayouts decodes the layouts of hosts that are not ours: other byte order,
// 64-bit numbers aligned to 4.
func TestLegacyLayouts(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, size := range []int{164, 168} {
			x, err := pfdecode.Legacy(ip6Filter(order, size), order, nil)
			if err != nil {
				t.Fatalf("%v %d: %v", order, size, err)
			}
			in, a, b := x.Chain("INPUT"), x.Chain("a"), x.Chain("b")
			if in == nil || a == nil || b == nil || len(in.Rules) != 1 || len(a.Rules) != 1 || len(b.Rules) != 1 {
				t.Fatalf("%v %d: chains %+v", order, size, x.Chains)
			}
			if in.Base.Policy != rs.Drop || x.Chain("FORWARD").Base.Policy != rs.Accept || in.Base.Priority != 0 || a.Base != nil {
				t.Errorf("%v %d: %+v", order, size, in.Base)
			}
			last := func(c *rs.Chain) rs.Conclude { e := c.Rules[0].Exprs; return e[len(e)-1].(rs.Conclude) }
			if v := last(in); v.Verdict != rs.Jump || v.Chain != "a" {
				t.Errorf("%v %d: %+v", order, size, v)
			}
			if v := last(a); v.Verdict != rs.Goto || v.Chain != "b" {
				t.Errorf("%v %d: %+v", order, size, v)
			}
			if !slices.ContainsFunc(b.Rules[0].Exprs, func(e rs.Expr) bool {
				c, ok := e.(rs.Cmp)
				return ok && c.Op == rs.Neq && bytes.Equal(c.Data, []byte{6})
			}) {
				t.Errorf("%v %d: %+v", order, size, b.Rules[0].Exprs)
			}
		}
	}
}

func TestLegacyWithoutStarts(t *testing.T) {
	x := ip6Filter(binary.LittleEndian, 168)
	x.HookEntry = nil
	if _, err := pfdecode.Legacy(x, binary.LittleEndian, nil); err == nil {
		t.Error("decoded a table without knowing where its chains begin")
	}
}

func FuzzLegacy(f *testing.F) {
	for _, size := range []int{164, 168} {
		x := ip6Filter(binary.LittleEndian, size)
		b, _ := x.Blob.Get()
		f.Add(b, true, uint32(0), x.Underflow[1], x.Underflow[2], x.Underflow[3])
	}
	f.Fuzz(func(t *testing.T, b []byte, v6 bool, h, u1, u2, u3 uint32) {
		x := fact.LegacyTable{
			Family: "ipv4", Name: "filter", Hooks: 14, Blob: fact.Value(b),
			HookEntry: []uint32{0, h, u2, u3, 0}, Underflow: []uint32{0, u1, u2, u3, 0},
		}
		if v6 {
			x.Family = "ipv6"
		}
		out, err := pfdecode.Legacy(x, binary.LittleEndian, nil)
		if err != nil {
			return
		}
		for _, c := range out.Chains {
			if c.Base != nil && c.Base.Policy != rs.Accept && c.Base.Policy != rs.Drop {
				t.Errorf("chain %s has no policy", c.Name)
			}
		}
	})
}

func FuzzExtension(f *testing.F) {
	m, tg := pfdecode.Extensions()
	for i := range m {
		f.Add(uint16(i), false, true, make([]byte, 200))
	}
	for i := range tg {
		f.Add(uint16(i), true, false, bytes.Repeat([]byte{1}, 64))
	}
	f.Fuzz(func(t *testing.T, n uint16, target, v6 bool, info []byte) {
		l, fam := m, rs.IPv4
		if target {
			l = tg
		}
		if v6 {
			fam = rs.IPv6
		}
		e := l[int(n)%len(l)]
		if out := pfdecode.LowerForTest(fam, target, e.Name, e.Rev, info); len(out) == 0 {
			t.Errorf("%s revision %d disappeared", e.Name, e.Rev)
		}
	})
}

func FuzzIPSets(f *testing.F) {
	attr := func(typ uint16, v ...byte) []byte {
		b := binary.LittleEndian.AppendUint16(nil, uint16(4+len(v)))
		b = append(binary.LittleEndian.AppendUint16(b, typ), v...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		return b
	}
	ip := func(v ...byte) []byte { return attr(1, attr(1, v...)...) }
	head := slices.Concat([]byte{2, 0, 0, 0}, attr(2, 'x', 0), attr(3, []byte("hash:net\x00")...), attr(5, 2), attr(11, 0, 1), attr(7),
		attr(8, slices.Concat(attr(7, slices.Concat(ip(10, 0, 0, 0), attr(3, 8))...), attr(7, slices.Concat(ip(10, 1, 0, 0), attr(3, 16), attr(8, 0, 0, 0, 4))...))...))
	f.Add(head, []byte{})
	f.Add(slices.Concat([]byte{2, 0, 0, 0}, attr(2, 'l', 0), attr(3, []byte("list:set\x00")...), attr(11, 0, 2), attr(7), attr(8, attr(7, attr(18, 'x', 0)...)...)), head)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		sets, err := pfdecode.DecodeIPSets([][]byte{a, b}, binary.LittleEndian)
		if err != nil {
			return
		}
		if s := sets.ByName("x"); s != nil && s.Set != nil && s.Set.Concat == nil {
			for i, e := range s.Set.Elements {
				if bytes.Compare(e.From, e.To) > 0 {
					t.Errorf("element %d is from %x to %x", i, e.From, e.To)
				}
			}
		}
	})
}
