package reach

import (
	"encoding/binary"
	"net/netip"
	"testing"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// TestInterfaceKind: `meta iifkind` is known of a host whose interfaces are, and breaks
// the rule on hardware and lo, whichever way it is compared.
func TestInterfaceKind(t *testing.T) {
	bridge := make([]byte, 16)
	copy(bridge, "bridge")
	for _, c := range []struct {
		iif  string
		op   rs.Op
		want string
	}{
		{"br0", rs.Eq, WordDrop},
		{"br0", rs.Neq, WordAccept},
		{"v0", rs.Eq, WordAccept},
		{"v0", rs.Neq, WordDrop},
		{"eth0", rs.Eq, WordAccept},
		{"eth0", rs.Neq, WordAccept},
		{"new0", rs.Eq, WordUnknown},
		{"new0", rs.Neq, WordUnknown},
	} {
		tab := &rs.Table{Family: rs.Inet, Name: "t"}
		ch := &rs.Chain{Table: tab, Name: "input", Base: &rs.Base{Type: "filter", Hook: rs.Input, Policy: rs.Accept}}
		ch.Rules = []*rs.Rule{{Chain: ch, Index: 1, Exprs: []rs.Expr{rs.Meta{Dreg: 0, Key: metaIIFKind}, rs.Cmp{Sreg: 0, Op: c.op, Data: bridge}, rs.Conclude{Verdict: rs.Drop}}}}
		tab.Chains = []*rs.Chain{ch}
		set := &rs.Ruleset{Tables: []*rs.Table{tab}, Interfaces: map[uint32]string{1: "lo", 2: "br0", 3: "v0", 4: "eth0"}, Kinds: map[string]string{"br0": "bridge", "v0": "veth", "eth0": "", "lo": ""}}
		p := Packet{Family: rs.IPv6, IIF: Some(c.iif), Saddr: Some(netip.MustParseAddr("2001:db8::1")), Daddr: Some(netip.MustParseAddr("2001:db8::2")), Proto: Some(uint8(6)), Sport: Range{40000, 40000}, Dport: Some(uint16(22)), Ct: Some(uint32(CtNew))}
		if got := Ask(set, binary.LittleEndian, p, rs.Input, true).Summary().Verdict; got != c.want {
			t.Errorf("iif %s, op %d: %s, want %s", c.iif, c.op, got, c.want)
		}
	}
}
