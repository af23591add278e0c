package reach

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// writer makes random rulesets as expressions: what is compiled and what only the
// interpreter runs, mixed.
type writer struct {
	r     *rand.Rand
	is4   bool
	table *rs.Table
}

func (w *writer) pick(n int) int { return w.r.IntN(n) }

// address is one of few, so that tests meet.
func (w *writer) address() []byte {
	n := 16
	if w.is4 {
		n = 4
	}
	b := make([]byte, n)
	b[0], b[n-2], b[n-1] = 0x20, byte(w.pick(3)), byte(w.pick(6)*50)
	return b
}

var testPorts = []uint16{22, 80, 443, 1024, 5000}

func (w *writer) port() []byte {
	return binary.BigEndian.AppendUint16(nil, testPorts[w.pick(len(testPorts))]+uint16(w.pick(2)))
}

func (w *writer) span(f func() []byte) (from, to []byte) {
	a, b := f(), f()
	if string(a) > string(b) {
		a, b = b, a
	}
	return a, b
}

func (w *writer) saddr(reg rs.Reg) rs.Expr {
	if w.is4 {
		return rs.Payload{Dreg: reg, Base: rs.NetworkHeader, Offset: 12, Len: 4}
	}
	return rs.Payload{Dreg: reg, Base: rs.NetworkHeader, Offset: 8, Len: 16}
}

func (w *writer) set(name string, s *rs.Set, n int, el func() rs.Element) string {
	s.Name, s.Complete, s.Constant = name, true, true
	seen := map[string]bool{}
	for range n {
		e := el()
		if k := string(e.From); !seen[k] {
			seen[k] = true
			s.Elements = append(s.Elements, e)
		}
	}
	w.table.Sets[name] = s
	return name
}

func pad(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
		for len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	return out
}

// test is one match.
func (w *writer) test(at string) []rs.Expr {
	size := len(w.address())
	op := rs.Op(w.pick(6))
	switch w.pick(17) {
	case 0, 1:
		return []rs.Expr{w.saddr(0), rs.Cmp{Op: op, Data: w.address()}}
	case 2:
		from, to := w.span(w.address)
		return []rs.Expr{w.saddr(0), rs.Range{From: from, To: to, Invert: w.pick(3) == 0}}
	case 3: // a prefix, loaded as such
		x := w.saddr(0).(rs.Payload)
		x.Len = uint32(size - 1)
		return []rs.Expr{x, rs.Cmp{Op: rs.Op(w.pick(2)), Data: w.address()[:size-1]}}
	case 4: // a prefix, or bits from the middle, by a mask
		mask := make([]byte, size)
		for i := range size - w.pick(3) {
			mask[i] = 0xff
		}
		if w.pick(3) == 0 {
			mask[size-2] = 0xfd
		}
		data := w.address()
		for i := range data {
			data[i] &= mask[i]
		}
		return []rs.Expr{w.saddr(0), rs.Bitwise{Len: uint32(size), Mask: mask, Xor: make([]byte, size)}, rs.Cmp{Op: op, Data: data}}
	case 5:
		return []rs.Expr{rs.Meta{Key: metaL4Proto}, rs.Cmp{Op: rs.Op(w.pick(2)), Data: []byte{[]byte{6, 17}[w.pick(2)]}}}
	case 6, 7:
		return []rs.Expr{rs.Payload{Base: rs.TransportHeader, Offset: 2, Len: 2}, rs.Cmp{Op: op, Data: w.port()}}
	case 8:
		return []rs.Expr{rs.Payload{Base: rs.TransportHeader, Len: 2}, rs.Cmp{Op: op, Data: w.port()}}
	case 9:
		name := w.set("p"+at, &rs.Set{KeyLen: 2}, 3, func() rs.Element { p := w.port(); return rs.Element{From: p, To: p} })
		return []rs.Expr{rs.Payload{Base: rs.TransportHeader, Offset: 2, Len: 2}, rs.Lookup{Set: name, Invert: w.pick(3) == 0}}
	case 10, 11:
		name := w.set("s"+at, &rs.Set{KeyLen: size, Interval: true}, 5, func() rs.Element {
			from := w.address()
			to := append([]byte{}, from...)
			to[size-1] = byte(min(255, int(to[size-1])+w.pick(49)))
			return rs.Element{From: from, To: to, Expires: w.pick(60) == 0}
		})
		return []rs.Expr{w.saddr(0), rs.Lookup{Set: name, Invert: w.pick(3) == 0}}
	case 12: // source . protocol . port, of which some are ranges
		name := w.set("c"+at, &rs.Set{KeyLen: size + 8, Concat: []int{size, 1, 2}, Interval: true}, 8, func() rs.Element {
			from, to := w.span(w.address)
			p, q := w.span(w.port)
			if w.pick(2) == 0 {
				q = p
			}
			proto := []byte{[]byte{6, 17}[w.pick(2)]}
			return rs.Element{From: pad(from, proto, p), To: pad(to, proto, q)}
		})
		reg := rs.Reg(size / 4)
		return []rs.Expr{
			w.saddr(0),
			rs.Meta{Dreg: reg, Key: metaL4Proto},
			rs.Payload{Dreg: reg + 1, Base: rs.TransportHeader, Offset: 2, Len: 2},
			rs.Lookup{Set: name, Invert: w.pick(3) == 0},
		}
	case 13:
		return []rs.Expr{
			rs.Ct{Key: ctState, Dir: -1},
			rs.Bitwise{Len: 4, Mask: []byte{byte(2 << w.pick(3)), 0, 0, 0}, Xor: make([]byte, 4)},
			rs.Cmp{Op: rs.Neq, Data: make([]byte, 4)},
		}
	case 14:
		return []rs.Expr{rs.Meta{Key: metaMark}, rs.Cmp{Op: op, Data: []byte{byte(w.pick(3)), 0, 0, 0}}}
	case 15:
		p := func() []rs.Expr {
			from, to := w.span(w.port)
			return []rs.Expr{rs.Payload{Base: rs.TransportHeader, Offset: uint32(2 * w.pick(2)), Len: 2}, rs.Range{From: from, To: to}}
		}
		return []rs.Expr{rs.Any{Of: [][]rs.Expr{p(), p()}, Invert: w.pick(3) == 0}}
	default:
		name := fmt.Sprintf("eth%d", w.pick(2))
		data := append([]byte(name), make([]byte, 16-len(name))...)
		if w.pick(2) == 0 {
			data = data[:3]
		}
		return []rs.Expr{rs.Meta{Key: metaIIFName}, rs.Cmp{Op: rs.Op(w.pick(2)), Data: data}}
	}
}

func (w *writer) rule(c *rs.Chain, i, chains int) *rs.Rule {
	at := fmt.Sprintf("%s-%d", c.Name, i)
	r := &rs.Rule{Chain: c, Index: i + 1, Handle: uint64(i + 1)}
	for range w.pick(3) {
		r.Exprs = append(r.Exprs, w.test(at+fmt.Sprint(len(r.Exprs)))...)
	}
	level := int(c.Name[1] - '0')
	target := func() (rs.Verdict, string) {
		if level+1 < chains && w.pick(2) == 0 {
			return []rs.Verdict{rs.Jump, rs.Goto}[w.pick(2)], fmt.Sprintf("c%d", level+1+w.pick(chains-level-1))
		}
		return []rs.Verdict{rs.Accept, rs.Drop, rs.Return}[w.pick(3)], ""
	}
	switch w.pick(14) {
	case 0:
		r.Exprs = append(r.Exprs, rs.Limit{Name: "limit", Over: w.pick(2) == 0})
	case 1:
		r.Exprs = append(r.Exprs, rs.Immediate{Data: []byte{byte(w.pick(3)), 0, 0, 0}}, rs.MetaSet{Key: metaMark})
	case 2:
		r.Exprs = append(r.Exprs, rs.Reject{})
		return r
	case 3, 4:
		name := w.set("v"+at, &rs.Set{KeyLen: 2, Map: true, Verdict: true}, 4, func() rs.Element {
			p := w.port()
			v, to := target()
			return rs.Element{From: p, To: p, Verdict: v, Chain: to, HasVerdict: true}
		})
		r.Exprs = append(r.Exprs, rs.Payload{Base: rs.TransportHeader, Offset: 2, Len: 2}, rs.Lookup{Set: name, HasDreg: true, Dreg: rs.VerdictReg, Verdict: true})
		return r
	case 5:
		size := len(w.address())
		name := w.set("w"+at, &rs.Set{KeyLen: size, Map: true, Verdict: true}, 4, func() rs.Element {
			a := w.address()
			v, to := target()
			return rs.Element{From: a, To: a, Verdict: v, Chain: to, HasVerdict: true}
		})
		r.Exprs = append(r.Exprs, w.saddr(0), rs.Lookup{Set: name, HasDreg: true, Dreg: rs.VerdictReg, Verdict: true})
		return r
	case 6:
		r.Exprs = append(r.Exprs, rs.Nothing{Name: "counter"})
		return r
	case 7:
		if w.pick(8) == 0 {
			r.Exprs = append(r.Exprs, rs.Opaque{Name: "strange", Ends: w.pick(2) == 0})
		}
	}
	v, to := target()
	r.Exprs = append(r.Exprs, rs.Conclude{Verdict: v, Chain: to})
	return r
}

func (w *writer) ruleset() *rs.Ruleset {
	set := &rs.Ruleset{Interfaces: map[uint32]string{1: "lo", 2: "eth0", 3: "eth1"}, Types: map[string]uint16{"lo": 772, "eth0": 1, "eth1": 1}}
	for t := range 1 + w.pick(2) {
		w.table = &rs.Table{Family: rs.Inet, Name: fmt.Sprint("t", t), Sets: map[string]*rs.Set{}, Objects: map[string]*rs.Object{}}
		chains := 1 + w.pick(4)
		for i := range chains {
			c := &rs.Chain{Table: w.table, Name: fmt.Sprintf("c%d", i)}
			if i == 0 {
				c.Base = &rs.Base{Type: "filter", Hook: []rs.Hook{rs.Input, rs.Prerouting}[w.pick(2)], Priority: int32(w.pick(3) * 10), Policy: rs.Verdict(w.pick(2))}
			}
			for k := range w.pick(8) * (1 + w.pick(4)) {
				c.Rules = append(c.Rules, w.rule(c, k, chains))
			}
			w.table.Chains = append(w.table.Chains, c)
		}
		set.Tables = append(set.Tables, w.table)
	}
	return set
}

// TestCompiledAgainstInterpreter compares the compiled rules with the interpreter that
// runs rule by rule: for all sources at once, and for single ones.
func TestCompiledAgainstInterpreter(t *testing.T) {
	seeds := uint64(600)
	if testing.Short() {
		seeds = 200
	}
	for seed := range seeds {
		w := &writer{r: rand.New(rand.NewPCG(seed, 7)), is4: seed%2 == 0}
		set := w.ruleset()
		quick := &Model{Set: set, Order: binary.LittleEndian}
		slow := &Model{Set: set, Order: binary.LittleEndian, plain: true}
		// Several ports of one packet each: what does not look at the port is done once.
		var packets []Packet
		for range 3 {
			p := Packet{Family: rs.IPv6, IIF: Some(fmt.Sprintf("eth%d", w.pick(2))), Proto: Some([]uint8{6, 17}[w.pick(2)]), Sport: Range{1024, 65535}, Ct: Some(uint32(CtNew)), Mark: Some(uint32(w.pick(3)))}
			if w.is4 {
				p.Family = rs.IPv4
			}
			for range 6 {
				p.Dport = Opt[uint16]{}
				if w.pick(8) > 0 {
					p.Dport = Some(binary.BigEndian.Uint16(w.port()))
				}
				packets = append(packets, p)
			}
		}
		for i, p := range packets {
			a, b := quick.Ask(p, rs.Input, false), slow.Ask(p, rs.Input, false)
			for _, x := range []struct {
				what string
				a, b packetset.Set
			}{{"must", a.Must(), b.Must()}, {"may", a.May(), b.May()}, {"limited", a.Limited.Set(a.Space), b.Limited.Set(b.Space)}} {
				if !x.a.Same(x.b) {
					t.Fatalf("seed %d, %+v: %s is %v compiled, %v interpreted\n%s", seed, p, x.what, x.a, x.b, listing(set))
				}
			}
			if len(b.Opaque) == 0 && len(b.Needs) == 0 {
				for _, d := range b.Deciders(packetset.All(b.Space.Len())) {
					if x := a.Deciders(packetset.All(a.Space.Len())); !slices.Contains(x, d) {
						t.Fatalf("seed %d, %+v: %v decides, but not compiled: %v\n%s", seed, p, d, x, listing(set))
					}
				}
				for _, d := range a.Deciders(packetset.All(a.Space.Len())) {
					if x := b.Deciders(packetset.All(b.Space.Len())); !slices.Contains(x, d) {
						t.Fatalf("seed %d, %+v: %v decides only compiled, not %v\n%s", seed, p, d, x, listing(set))
					}
				}
			}
			if i%3 > 0 {
				continue
			}
			for range 4 {
				src, _ := netip.AddrFromSlice(w.address())
				p.Saddr = Some(src)
				c, d := quick.ask(p, rs.Input, false, false), slow.Ask(p, rs.Input, false)
				if c.All() != d.All() || c.Limited.Empty() != d.Limited.Empty() {
					t.Fatalf("seed %d, %+v: %v compiled, %v interpreted\n%s", seed, p, c.All().Words(), d.All().Words(), listing(set))
				}
				// A single source is one of all, and the answers are exact: only a mask that is
				// no prefix may leave more possible when all are asked about.
				if cell := a.Space.Cell(packetset.FromIP(src)); a.End(cell)&d.All() != d.All() || len(a.Opaque) == 0 && a.End(cell) != d.All() {
					t.Fatalf("seed %d, %+v: %v of all sources, %v alone, opaque %v\n%s", seed, p, a.End(cell).Words(), d.All().Words(), a.Opaque, listing(set))
				}
				p.Saddr = Opt[netip.Addr]{}
			}
		}
	}
}

func listing(set *rs.Ruleset) string {
	out := ""
	for _, t := range set.Tables {
		for _, c := range t.Chains {
			out += fmt.Sprintf("%s %s %+v\n", t.Name, c.Name, c.Base)
			for _, r := range c.Rules {
				out += "  " + r.Render(binary.LittleEndian, set.Interfaces) + fmt.Sprintf("   %+v\n", r.Exprs)
			}
		}
	}
	return out
}

// TestFamilyOfDevices compares what rules of every family make of the family of IP, which
// those of bridges and devices are not told.
func TestFamilyOfDevices(t *testing.T) {
	for _, family := range []rs.Family{rs.Inet, rs.IPv4, rs.IPv6, rs.Netdev, rs.Bridge} {
		for _, ask := range []rs.Family{rs.IPv4, rs.IPv6, rs.Netdev, rs.Bridge} {
			hook := rs.Input
			if family == rs.Netdev {
				hook = rs.Ingress
			}
			table := &rs.Table{Family: family, Name: "t", Sets: map[string]*rs.Set{}, Objects: map[string]*rs.Object{}}
			c := &rs.Chain{Table: table, Name: "c", Base: &rs.Base{Type: "filter", Hook: hook, Devices: []string{"eth0"}, Policy: rs.Drop}}
			c.Rules = []*rs.Rule{{Chain: c, Index: 1, Exprs: []rs.Expr{rs.Meta{Key: metaNFProto}, rs.Cmp{Data: []byte{byte(ask)}}, rs.Conclude{Verdict: rs.Accept}}}}
			table.Chains = []*rs.Chain{c}
			set := &rs.Ruleset{Tables: []*rs.Table{table}, Interfaces: map[uint32]string{2: "eth0"}, Types: map[string]uint16{"eth0": 1}}
			for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
				p := Packet{Family: f, IIF: Some("eth0"), Proto: Some(uint8(6)), Sport: Range{1024, 65535}, Dport: Some(uint16(80)), Ct: Some(uint32(CtNew))}
				a := (&Model{Set: set, Order: binary.LittleEndian}).Ask(p, rs.Input, false)
				b := (&Model{Set: set, Order: binary.LittleEndian, plain: true}).Ask(p, rs.Input, false)
				if a.All() != b.All() || !a.Must().Same(b.Must()) {
					t.Errorf("%s, meta nfproto %d, %s: %v compiled, %v interpreted", family, ask, f, a.All().Words(), b.All().Words())
				}
				if family == rs.Netdev && ask == f && a.All() != Dropped {
					t.Errorf("netdev, meta nfproto %d: %v", ask, a.All().Words())
				}
			}
		}
	}
}
