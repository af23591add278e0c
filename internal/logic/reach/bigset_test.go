package reach_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/host/collect/packetfilter"
	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/logic/reach"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/testlab"
)

// A set that is too large is not guessed at: the answer says which one it is and how to
// read it. Read whole, it is exact. What does not depend on it is the same both ways.
func TestLargeSets(t *testing.T) {
	t.Parallel()
	const blocks = 32_800 // of which the kernel lists the ends, too
	var b strings.Builder
	b.WriteString("table inet t {\nset big { type ipv6_addr; flags interval; elements = { ")
	for i := range blocks {
		fmt.Fprintf(&b, "2001:db8:%x:%x::/64,", i>>8, 2*(i&0xff))
	}
	b.WriteString(`} }
set late { type ipv6_addr; flags interval; elements = { 2001:db8:2::/48, 2001:db8:ffff:1::7-2001:db8:ffff:1::9 } }
chain input { type filter hook input priority 0; policy drop;
 ip6 saddr @late tcp dport 23 accept
 ip6 saddr @big drop
 tcp dport 22 accept
}
}
`)
	ns := testlab.NewNS(t, "bs")
	f := filepath.Join(t.TempDir(), "r.nft")
	if err := os.WriteFile(f, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	ns.Run(testlab.RequireTool(t, "nft"), "-f", f)
	ask := func(o packetfilter.Options, port uint16) *reach.Answer {
		set := read(t, ns, o)
		return reach.Ask(set, binary.LittleEndian, reach.Packet{
			Family: rs.IPv6, IIF: reach.Some("eth0"), Daddr: reach.Some(netip.MustParseAddr("2001:db8:ffff::1")), Proto: reach.Some[uint8](6),
			Sport: reach.Range{From: 1024, To: 65535}, Dport: reach.Some(port), Ct: reach.Some(uint32(reach.CtNew)),
		}, rs.Input, false)
	}
	cut, whole := packetfilter.Options{Elements: true}, packetfilter.Options{Elements: true, Expand: true}
	has := func(s packetset.Set, a string) bool { return s.Contains(packetset.FromIP(netip.MustParseAddr(a))) }

	a := ask(cut, 22)
	if len(a.Must()) > 0 || !has(a.May(), "2001:db8:2::1") || !has(a.May(), "2001:db8:2:1::1") {
		t.Errorf("set cut: must %d, may %d intervals", len(a.Must()), len(a.May()))
	}
	if i := slices.IndexFunc(a.Opaque, func(s string) bool { return strings.Contains(s, "set big") }); i < 0 ||
		!strings.Contains(a.Opaque[i], "more than 65536") || !strings.Contains(a.Opaque[i], "--expand-sets") {
		t.Errorf("set cut, why: %q", a.Opaque)
	}
	foreign := ask(packetfilter.Options{Elements: true, Expand: true, Foreign: true}, 22)
	if len(foreign.Must()) > 0 || strings.Contains(strings.Join(foreign.Opaque, ""), "--expand-sets") {
		t.Errorf("a stranger's set: must %d, %q", len(foreign.Must()), foreign.Opaque)
	}

	a = ask(whole, 22)
	for addr, in := range map[string]bool{
		"2001:db8::": false, "2001:db8::ffff:ffff:ffff:ffff": false, "2001:db8:0:1::": true, "2001:db8:1:1::": true, "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff": true,
		"2001:db8:2::": false, fmt.Sprintf("2001:db8:%x:%x::9", (blocks-1)>>8, 2*((blocks-1)&0xff)): false,
	} {
		if has(a.Must(), addr) != in || has(a.May(), addr) != in {
			t.Errorf("set whole, %s: must %v, may %v; want %v", addr, has(a.Must(), addr), has(a.May(), addr), in)
		}
	}
	if len(a.Opaque) > 0 {
		t.Errorf("set whole, but not known: %q", a.Opaque)
	}

	small, same := ask(cut, 23), ask(whole, 23)
	if len(small.Must()) != 2 || !slices.Equal(small.Must(), same.Must()) || !slices.Equal(small.May(), same.May()) {
		t.Errorf("the small set: %v, and beside the large one read whole %v", small.May(), same.May())
	}
}
