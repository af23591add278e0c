package ruleset

import (
	"encoding/binary"
	"testing"
)

func TestRender(t *testing.T) {
	tab := &Table{Family: Inet, Name: "f", Sets: map[string]*Set{
		"__set0": {Name: "__set0", Anonymous: true, KeyLen: 2, Elements: []Element{{From: []byte{0, 22}, To: []byte{0, 22}}, {From: []byte{0, 80}, To: []byte{0, 90}}}},
	}}
	c := &Chain{Table: tab, Name: "input"}
	l4 := []Expr{Meta{Dreg: 0, Key: 16}, Cmp{Sreg: 0, Data: []byte{6}}}
	for want, exprs := range map[string][]Expr{
		"tcp dport 22 accept": append(l4, Payload{Base: TransportHeader, Offset: 2, Len: 2}, Cmp{Data: []byte{0, 22}}, Conclude{Verdict: Accept}),
		"tcp dport != { 22, 80-90 } drop": append(l4, Payload{Base: TransportHeader, Offset: 2, Len: 2},
			Lookup{Set: "__set0", Invert: true}, Conclude{Verdict: Drop}),
		"tcp dport 1-2000 accept": append(l4, Payload{Base: TransportHeader, Offset: 2, Len: 2},
			Cmp{Op: Gte, Data: []byte{0, 1}}, Cmp{Op: Lte, Data: []byte{7, 208}}, Conclude{Verdict: Accept}),
		"ip6 saddr 2001:db8::/32 drop": {
			Meta{Key: 15}, Cmp{Data: []byte{10}}, Payload{Base: NetworkHeader, Offset: 8, Len: 4}, Cmp{Data: []byte{0x20, 1, 0xd, 0xb8}}, Conclude{Verdict: Drop},
		},
		"ct state established,related accept": {
			Ct{Dir: -1}, Bitwise{Len: 4, Mask: []byte{6, 0, 0, 0}, Xor: make([]byte, 4)}, Cmp{Op: Neq, Data: make([]byte, 4)}, Conclude{Verdict: Accept},
		},
		`iif "eth0" iifname "veth*" counter jump web`: {
			Meta{Key: 4}, Cmp{Data: []byte{2, 0, 0, 0}}, Meta{Key: 6}, Cmp{Data: []byte("veth")}, Nothing{Name: "counter"}, Conclude{Verdict: Jump, Chain: "web"},
		},
		"fib saddr . iif oif missing drop":       {Fib{Result: 1, Flags: 1 | 8 | 32}, Cmp{Data: []byte{0}}, Conclude{Verdict: Drop}},
		"fib saddr . iif oif exists accept":      {Fib{Result: 1, Flags: 1 | 8 | 32}, Cmp{Data: []byte{0, 0, 0, 1}}, Conclude{Verdict: Accept}},
		"fib saddr . mark . iif oif exists drop": {Fib{Result: 1, Flags: 1 | 4 | 8 | 32}, Cmp{Data: []byte{1, 0, 0, 0}}, Conclude{Verdict: Drop}},
		`fib saddr oif "eth0" accept`:            {Fib{Result: 1, Flags: 1}, Cmp{Data: []byte{2, 0, 0, 0}}, Conclude{Verdict: Accept}},
		"meta mark set 0x1000000":                {Immediate{Data: []byte{0, 0, 0, 1}}, MetaSet{Key: 3}},
		"meta mark set meta mark | 0x4000":       {Meta{Key: 3}, Bitwise{Len: 4, Mask: []byte{0xff, 0xbf, 0xff, 0xff}, Xor: []byte{0, 0x40, 0, 0}}, MetaSet{Key: 3}},
		"ct mark set meta mark & 0xff ^ 0x100":   {Meta{Key: 3}, Bitwise{Len: 4, Mask: []byte{0xff, 0, 0, 0}, Xor: []byte{0, 1, 0, 0}}, CtSet{Key: 3, Dir: -1}},
		"meta mark set ct mark << 8":             {Ct{Dir: -1, Key: 3}, Bitwise{Len: 4, Op: 1, Shift: 8}, MetaSet{Key: 3}},
		"[tunnel, not understood] accept":        {Opaque{Name: "tunnel"}, Conclude{Verdict: Accept}},
	} {
		r := &Rule{Chain: c, Exprs: exprs}
		if got := r.Render(binary.LittleEndian, map[uint32]string{2: "eth0"}); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// FuzzRender: whatever a decoder hands over is shown without a panic.
func FuzzRender(f *testing.F) {
	f.Add(uint8(0), uint8(8), uint8(16), []byte{0x20, 1, 0xd, 0xb8}, []byte{0xff})
	f.Add(uint8(2), uint8(0), uint8(1), []byte{128}, []byte{})
	f.Fuzz(func(t *testing.T, base, off, n uint8, data, mask []byte) {
		tab := &Table{Family: Inet, Sets: map[string]*Set{"s": {Anonymous: true, Map: true, Concat: []int{int(n), int(off)}, Elements: []Element{{From: data, To: mask}}}}}
		r := &Rule{Chain: &Chain{Table: tab}, Exprs: []Expr{
			Payload{Base: Header(base), Offset: uint32(off), Len: uint32(n)},
			Meta{Dreg: 1, Key: uint32(off)},
			Ct{Dreg: 2, Key: uint32(n), Dir: int8(off)},
			Fib{Dreg: 3, Result: uint32(base), Flags: uint32(n)},
			Bitwise{Op: uint32(base % 7), Mask: mask, Xor: data},
			MetaSet{Key: uint32(n)},
			Immediate{Dreg: 4, Data: data},
			MetaSet{Key: uint32(n), Sreg: 4},
			CtSet{Key: uint32(n), Dir: int8(off), Sreg: 4},
			PayloadSet{Base: Header(base), Offset: uint32(off), Len: uint32(n), Sreg: 4},
			Cmp{Data: data, Op: Op(base % 6)},
			Cmp{Sreg: 1, Data: data},
			Cmp{Sreg: 2, Data: data},
			Cmp{Sreg: 3, Data: data},
			Range{From: data, To: mask},
			Lookup{Set: "s"},
			Lookup{Set: "s", Sreg: 1, Verdict: true},
			Dynset{Set: "s", Exprs: []Expr{Limit{Name: "limit"}}},
			Nat{HasAddr: true, HasProto: true},
			Reject{},
			Opaque{},
		}}
		_ = r.Render(binary.LittleEndian, nil)
	})
}
