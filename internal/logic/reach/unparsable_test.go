package reach_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/reach"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// TestHeadersThatTheHostLosesItsPlaceIn: measured with a raw socket, Linux 6.18 discards
// what the rules accept when connection tracking took away a fragment header that stood
// behind a routing or destination header, and a routing header on multicast.
func TestHeadersThatTheHostLosesItsPlaceIn(t *testing.T) {
	const hop, routing, fragment, options = 0, 43, 44, 60
	unicast, many := "2001:db8::1", "ff02::fb"
	tracking := &rs.Ruleset{Tables: []*rs.Table{{Family: rs.IPv6, Name: "t"}}, Interfaces: map[uint32]string{2: "eth0"}}
	c := &rs.Chain{Table: tracking.Tables[0], Name: "c"} // not hooked
	c.Rules = []*rs.Rule{{Chain: c, Exprs: []rs.Expr{rs.Ct{Dreg: 8}}}}
	tracking.Tables[0].Chains = []*rs.Chain{c}
	for _, x := range []struct {
		set    *rs.Ruleset
		dst    string
		chain  []uint8
		proved bool
	}{
		{tracking, unicast, []uint8{fragment}, true},
		{tracking, unicast, []uint8{hop, fragment}, true},
		{tracking, unicast, []uint8{fragment, options}, true},
		{tracking, unicast, []uint8{options, routing}, true},
		{tracking, unicast, []uint8{options, fragment}, false},
		{tracking, unicast, []uint8{hop, routing, fragment}, false},
		{&rs.Ruleset{}, unicast, []uint8{options, fragment}, true},
		{&rs.Ruleset{}, many, []uint8{options}, true},
		{&rs.Ruleset{}, many, []uint8{routing}, false},
	} {
		p := reach.Packet{
			Family: rs.IPv6, IIF: reach.Some("eth0"), Saddr: reach.Some(netip.MustParseAddr("2001:db8:5::5")), Daddr: reach.Some(netip.MustParseAddr(x.dst)),
			Proto: reach.Some(uint8(17)), Sport: reach.Range{From: 4000, To: 4000}, Dport: reach.Some(uint16(53)), Ct: reach.Some(uint32(reach.CtNew)),
		}
		for _, n := range x.chain {
			p.Exthdr = append(p.Exthdr, reach.Ext{Number: n})
		}
		a := reach.Ask(x.set, binary.LittleEndian, p, rs.Input, false)
		if proved := len(a.Must()) > 0; proved != x.proved || len(a.May()) == 0 {
			t.Errorf("to %s, headers %v: must %v, want %v; may %v", x.dst, x.chain, proved, x.proved, len(a.May()) > 0)
		}
	}
}
