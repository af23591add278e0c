package reach_test

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/packetfilter"
	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/testlab"
)

func load(t *testing.T, script string) *rs.Ruleset {
	t.Helper()
	ns := testlab.NewNS(t, "rl")
	f := filepath.Join(t.TempDir(), "r.nft")
	if err := os.WriteFile(f, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	ns.Run(testlab.RequireTool(t, "nft"), "-f", f)
	return read(t, ns, packetfilter.Options{Elements: true})
}

func read(t *testing.T, ns *testlab.NS, o packetfilter.Options) *rs.Ruleset {
	t.Helper()
	var n fact.Namespace
	ns.Do(func() {
		a := ask.New(func(string) bool { return true }, false)
		packetfilter.Read(a, ask.NewBudget("t", time.Minute, 1e9, 1e9), o).Decode(&n)
	})
	nft, ok := n.PacketFilter.NFTables.Get()
	if !ok {
		t.Fatalf("no ruleset: %v", n.PacketFilter.NFTables)
	}
	ts, err := pfdecode.FromFact(nft, binary.LittleEndian)
	if err != nil {
		t.Fatal(err)
	}
	return &rs.Ruleset{Tables: ts, Interfaces: map[uint32]string{1: "lo", 2: "eth0"}}
}

func TestSmoke(t *testing.T) {
	set := load(t, `table inet f {
 set ok { type ipv6_addr; flags interval; elements = { 2001:db8:1::/48, 2001:db8:5::1-2001:db8:5::9 } }
 chain input { type filter hook input priority 0; policy drop;
  ct state established,related accept
  iif lo accept
  ip6 saddr @ok tcp dport 22 accept
  ip saddr { 192.0.2.0/24, 198.51.100.7 } tcp dport { 22, 80-90 } accept
  tcp dport vmap { 443 : accept, 444 : jump web }
  udp dport 53 limit rate 5/second accept
 }
 chain web { ip6 saddr 2001:db8:9::/48 drop
  accept
 }
}`)
	for _, c := range []struct {
		fam  rs.Family
		port uint16
		prot uint8
	}{{rs.IPv6, 22, 6}, {rs.IPv4, 22, 6}, {rs.IPv4, 85, 6}, {rs.IPv6, 443, 6}, {rs.IPv6, 444, 6}, {rs.IPv6, 53, 17}, {rs.IPv6, 99, 6}} {
		d := netip.MustParseAddr("2001:db8::1")
		if c.fam == rs.IPv4 {
			d = netip.MustParseAddr("192.0.2.1")
		}
		a := reach.Ask(set, binary.LittleEndian, reach.Packet{
			Family: c.fam, IIF: reach.Some("eth0"), Daddr: reach.Some(d), Proto: reach.Some(c.prot),
			Sport: reach.Range{From: 1024, To: 65535}, Dport: reach.Some(c.port), Ct: reach.Some(uint32(reach.CtNew)),
		}, rs.Input, false)
		is4 := c.fam == rs.IPv4
		t.Logf("%v %d: must %v may %v limited %v opaque %v", c.fam, c.port, a.Must().Prefixes(is4), a.May().Prefixes(is4), !a.Limited.Empty(), a.Opaque)
	}
}
