package reach

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// outgoing moves a random ruleset to the way out; some of its addresses become
// destinations, with only all of them.
func (w *writer) outgoing(set *rs.Ruleset, only bool) {
	move := func(list []rs.Expr) {
		for i, e := range list {
			switch e := e.(type) {
			case rs.Payload:
				size := uint32(len(w.address()))
				if e.Base == rs.NetworkHeader && (only || w.pick(4) > 0) {
					e.Offset += size
					if w.pick(6) == 0 && !only && e.Len == size && w.is4 {
						e.Offset, e.Len = 12, 8
					}
				}
				list[i] = e
			case rs.Meta:
				if e.Key == metaIIFName {
					e.Key = metaOIFName
				}
				list[i] = e
			}
		}
	}
	for _, t := range set.Tables {
		for _, c := range t.Chains {
			if c.Base != nil {
				c.Base.Hook = []rs.Hook{rs.Output, rs.Postrouting}[w.pick(2)]
			}
			for _, r := range c.Rules {
				move(r.Exprs)
			}
		}
	}
}

// TestMirrorAgainstDestinations compares what mirrored rules say of all destinations with
// what the rules themselves say of each.
func TestMirrorAgainstDestinations(t *testing.T) {
	exact, sure := 0, 0
	for seed := range uint64(300) {
		w := &writer{r: rand.New(rand.NewPCG(seed, 19)), is4: seed%2 == 0}
		set := w.ruleset()
		only := seed%3 > 0
		w.outgoing(set, only)
		f := rs.IPv6
		if w.is4 {
			f = rs.IPv4
		}
		sp := FromRuleset(set, binary.LittleEndian)
		m := sp.mirrored(f)
		for range 6 {
			p := Packet{Family: f, Local: true, OIF: Some(fmt.Sprintf("eth%d", w.pick(2))), Proto: Some([]uint8{6, 17}[w.pick(2)]), Sport: Range{1024, 65535}, Ct: Some(uint32(CtNew))}
			if w.pick(4) > 0 {
				p.Mark = Some(uint32(w.pick(3)))
			}
			p.Dport = Some(binary.BigEndian.Uint16(w.port()))
			a := m.model.Ask(p, rs.Output, false)
			for range 6 {
				dst, _ := netip.AddrFromSlice(w.address())
				q := p
				q.Daddr = Some(dst)
				b := sp.Model.Ask(q, rs.Output, false)
				got, want := a.End(a.Space.Cell(packetset.FromIP(dst))), b.All()
				if got&want != want {
					t.Fatalf("seed %d, to %s port %d: mirrored %v, direct %v\n%s", seed, dst, p.Dport.V, got.Words(), want.Words(), listing(set))
				}
				if got&(got-1) == 0 {
					sure++
				}
				if only && len(a.Opaque) == 0 {
					if exact++; got != want {
						t.Fatalf("seed %d, to %s port %d: mirrored %v, direct %v, though nothing but the destination is open\n%s", seed, dst, p.Dport.V, got.Words(), want.Words(), listing(set))
					}
				}
			}
		}
	}
	if exact < 1000 || sure < 1000 {
		t.Errorf("%d exact and %d sure answers", exact, sure)
	}
}

// TestPortClasses asks about each of the ports that random rules name, and those beside
// them: a class answers as all of its ports do.
func TestPortClasses(t *testing.T) {
	for seed := range uint64(200) {
		w := &writer{r: rand.New(rand.NewPCG(seed, 23)), is4: seed%2 == 0}
		set := w.ruleset()
		w.outgoing(set, true)
		f := rs.IPv6
		if w.is4 {
			f = rs.IPv4
		}
		sp := FromRuleset(set, binary.LittleEndian)
		m := sp.mirrored(f)
		if m.cuts.rough {
			continue
		}
		ask := func(port uint16) *Answer {
			return m.model.Ask(Packet{Family: f, Local: true, OIF: Some("eth0"), Proto: Some(uint8(17)), Sport: Range{1024, 65535}, Dport: Some(port), Ct: Some(uint32(CtNew))}, rs.Output, false)
		}
		for _, r := range m.cuts.classes() {
			first := ask(r.From)
			for _, p := range []uint16{r.To, r.From + (r.To-r.From)/2, r.From + uint16(w.pick(int(r.To-r.From)+1))} {
				if x := ask(p); !x.Must().Same(first.Must()) || !x.May().Same(first.May()) {
					t.Fatalf("seed %d: port %d answers otherwise than %d, of one class\n%s", seed, p, r.From, listing(set))
				}
			}
		}
	}
}

func TestRoughPorts(t *testing.T) {
	dport := rs.Payload{Base: rs.TransportHeader, Offset: 2, Len: 2}
	for name, exprs := range map[string][]rs.Expr{
		"mask":   {dport, rs.Bitwise{Len: 2, Mask: []byte{0, 1}, Xor: []byte{0, 0}}, rs.Cmp{Data: []byte{0, 1}}},
		"half":   {rs.Payload{Base: rs.TransportHeader, Offset: 3, Len: 1}, rs.Cmp{Data: []byte{1}}},
		"both":   {rs.Payload{Base: rs.TransportHeader, Len: 4}, rs.Cmp{Data: []byte{4, 0, 0, 1}}},
		"first":  {dport, rs.Cmp{Data: []byte{1}}},
		"header": {rs.Payload{Base: rs.NetworkHeader, Offset: 22, Len: 2}, rs.Cmp{Data: []byte{0, 80}}},
	} {
		t.Run(name, func(t *testing.T) {
			tab := &rs.Table{Family: rs.IPv4, Name: "t"}
			c := &rs.Chain{Table: tab, Name: "o", Base: &rs.Base{Type: "filter", Hook: rs.Output, Policy: rs.Accept}}
			c.Rules = []*rs.Rule{{Chain: c, Exprs: append(exprs, rs.Conclude{Verdict: rs.Drop})}}
			tab.Chains = []*rs.Chain{c}
			for _, f := range FromRuleset(&rs.Ruleset{Tables: []*rs.Table{tab}}, binary.LittleEndian).Outbound() {
				for _, v := range f.IPv4 {
					if f.Proto != "icmp" && len(v.Must) > 0 {
						t.Errorf("%s/%d-%d is sure: %v", f.Proto, f.Port, f.PortTo, v.Must)
					}
				}
			}
		})
	}
}
