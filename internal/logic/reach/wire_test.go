package reach_test

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/logic/reach"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestWhatTheWireFixes asks about marks and packet types that nobody gave: the
// kernel gives them, and datagrams show it.
func TestWhatTheWireFixes(t *testing.T) {
	host, peer := testlab.NewNS(t, "wh"), testlab.NewNS(t, "wp")
	testlab.Link(host, "w0", peer, "p0")
	host.IP("link", "set", "w0", "up")
	host.IP("addr", "add", "192.0.2.1/26", "dev", "w0")
	peer.IP("link", "set", "p0", "up")
	peer.IP("addr", "add", "192.0.2.9/26", "brd", "192.0.2.63", "dev", "p0")
	peer.IP("route", "add", "224.0.0.0/4", "dev", "p0")
	peer.IP("route", "add", "255.255.255.255", "dev", "p0")
	script := filepath.Join(t.TempDir(), "r.nft")
	if err := os.WriteFile(script, []byte(`
table inet f {
 chain in {
  type filter hook input priority 0; policy drop;
  udp dport 1 meta mark 0 accept
  udp dport 2 meta pkttype host accept
  udp dport 3 meta pkttype broadcast accept
  udp dport 4 meta pkttype multicast accept
 }
 chain out {
  type filter hook output priority 0; policy accept;
  udp dport 1 meta mark 0 drop
 }
}`), 0o600); err != nil {
		t.Fatal(err)
	}
	host.Run(testlab.RequireTool(t, "nft"), "-f", script)
	got := make(chan string, 64)
	host.Do(func() {
		i, err := net.InterfaceByName("w0")
		if err != nil {
			t.Error(err)
			return
		}
		for port := 1; port <= 4; port++ {
			var c *net.UDPConn
			if port < 4 {
				c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
			} else {
				c, err = net.ListenMulticastUDP("udp4", i, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: port})
			}
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { c.Close() })
			go func() {
				b := make([]byte, 64)
				for {
					n, _, err := c.ReadFromUDP(b)
					if err != nil {
						return
					}
					got <- string(b[:n])
				}
			}()
		}
	})
	arrives := func(dst string, port uint16) bool {
		peer.Do(func() {
			c, err := net.ListenUDP("udp4", nil) // sends to broadcast addresses, too
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for _, x := range []struct {
				dst  string
				port uint16
				say  string
			}{{dst, port, "question"}, {"192.0.2.1", 1, "barrier"}} {
				if _, err := c.WriteToUDP([]byte(x.say), &net.UDPAddr{IP: net.ParseIP(x.dst), Port: int(x.port)}); err != nil {
					t.Error(err)
				}
			}
		})
		seen, wait := false, 5*time.Second
		for {
			select {
			case s := <-got:
				if seen = seen || s == "question"; s == "barrier" {
					wait = 100 * time.Millisecond // for the readers of other sockets
				}
			case <-time.After(wait):
				if wait == 5*time.Second {
					t.Fatal("no datagram arrives")
				}
				return seen
			}
		}
	}
	sp := spaceOf(t, host)
	ask := func(h rs.Hook, iif, src, dst string, port uint16) string {
		p := reach.Packet{
			Family: rs.IPv4, Saddr: reach.Some(netip.MustParseAddr(src)), Daddr: reach.Some(netip.MustParseAddr(dst)), Proto: reach.Some(uint8(17)),
			Sport: reach.Range{From: 40000, To: 40000}, Dport: reach.Some(port), Ct: reach.Some(uint32(reach.CtNew)), Local: h == rs.Output,
		}
		if iif != "" {
			p.IIF = reach.Some(iif)
		}
		return sp.Verdict(p, h, false).Verdict
	}
	for _, x := range []struct {
		hook     rs.Hook
		iif, dst string
		port     uint16
		want     string
	}{
		{rs.Input, "w0", "192.0.2.1", 1, "accept"},
		{rs.Input, "lo", "192.0.2.1", 1, "unknown"},
		{rs.Output, "", "192.0.2.9", 1, "unknown"},
		{rs.Input, "w0", "192.0.2.1", 2, "accept"},
		{rs.Input, "w0", "192.0.2.63", 2, "drop"},
		{rs.Input, "w0", "192.0.2.63", 3, "accept"},
		{rs.Input, "w0", "255.255.255.255", 3, "accept"},
		{rs.Input, "w0", "192.0.2.1", 3, "drop"},
		{rs.Input, "w0", "224.0.0.251", 4, "accept"},
	} {
		if got := ask(x.hook, x.iif, "192.0.2.9", x.dst, x.port); got != x.want {
			t.Errorf("%v %s %s port %d: %s, want %s", x.hook, x.iif, x.dst, x.port, got, x.want)
		}
		if x.want != "unknown" && arrives(x.dst, x.port) != (x.want == "accept") {
			t.Errorf("%s port %d: the kernel does not %s it", x.dst, x.port, x.want)
		}
	}
}
