package reach_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/logic/reach"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/testlab"
)

const natFlows = `table inet n {
 chain pre {
  type nat hook prerouting priority -100
  iifname "r0" udp dport 80 dnat ip to 10.0.0.2:8080
  iifname "r0" udp dport 80 dnat ip6 to [fd00:5::2]:8080
  udp dport 81 redirect to :7
 }
 chain post {
  type nat hook postrouting priority 100
  oifname "r0" masquerade
 }
}
`

// natFilters are rules that look at addresses before and after they are rewritten.
var natFilters = []string{
	"forward priority 0 ; ip daddr 10.0.0.2 accept ; ip6 daddr fd00:5::2 accept",
	"forward priority 0 ; ip saddr 10.0.0.0/8 accept ; ip6 saddr fd00:5::/64 accept",
	"forward priority 0 ; udp dport 8080 accept",
	"forward priority 0 ; udp dport { 80, 40002 } accept",
	"prerouting priority -150 ; ip daddr 192.0.2.1 accept ; ip6 daddr 2001:db8:7::1 accept",
	"prerouting priority -50 ; ip daddr 192.0.2.1 accept ; ip6 daddr 2001:db8:7::1 accept",
	"prerouting priority -50 ; ip daddr { 10.0.0.2, 192.0.2.9 } accept ; ip6 daddr { fd00:5::2, 2001:db8:7::9 } accept",
	"postrouting priority 50 ; ip saddr 10.0.0.2 accept ; ip6 saddr fd00:5::2 accept",
	"postrouting priority 150 ; ip saddr 10.0.0.2 accept ; ip6 saddr fd00:5::2 accept",
	"postrouting priority 150 ; ip saddr 192.0.2.9 accept ; ip6 saddr 2001:db8:7::9 accept",
	"input priority 0 ; udp dport 7 accept",
	"input priority 0 ; udp dport 81 accept",
	"input priority 0 ; ip daddr 192.0.2.1 udp dport 7 accept ; ip6 daddr 2001:db8:7::1 accept",
	"output priority 0 ; udp sport 7 accept",
	"output priority 0 ; udp sport 81 accept",
}

// TestFlowsThroughNAT opens flows through address translation, then filters them: the
// kernel rewrites the later packets, too.
func TestFlowsThroughNAT(t *testing.T) {
	nft := testlab.RequireTool(t, "nft")
	router, client, inner := testlab.NewNS(t, "nr"), testlab.NewNS(t, "nc"), testlab.NewNS(t, "ni")
	testlab.Link(router, "r0", client, "c0")
	testlab.Link(router, "r1", inner, "i0")
	for _, x := range []struct {
		ns     *testlab.NS
		dev    string
		v4, v6 string
	}{{router, "r0", "192.0.2.1/24", "2001:db8:7::1/64"}, {router, "r1", "10.0.0.1/24", "fd00:5::1/64"}, {client, "c0", "192.0.2.9/24", "2001:db8:7::9/64"}, {inner, "i0", "10.0.0.2/24", "fd00:5::2/64"}} {
		x.ns.Sysctl("net/ipv6/conf/"+x.dev+"/accept_dad", "0")
		x.ns.IP("link", "set", x.dev, "up")
		x.ns.IP("addr", "add", x.v4, "dev", x.dev)
		x.ns.IP("addr", "add", x.v6, "dev", x.dev, "nodad")
	}
	inner.IP("route", "add", "default", "via", "10.0.0.1")
	inner.IP("-6", "route", "add", "default", "via", "fd00:5::1")
	router.Sysctl("net/ipv4/ip_forward", "1")
	router.Sysctl("net/ipv6/conf/all/forwarding", "1")
	script := filepath.Join(t.TempDir(), "r.nft")
	load := func(text string) {
		if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		router.Run(nft, "-f", script)
	}
	load(natFlows)

	var mu sync.Mutex
	got := map[string]*net.UDPAddr{}
	socks := map[string]*net.UDPConn{}
	open := func(ns *testlab.NS, name, network, addr string) {
		ns.Do(func() {
			a, err := net.ResolveUDPAddr(network, addr)
			if err != nil {
				t.Error(err)
				return
			}
			c, err := net.ListenUDP(network, a)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { c.Close() })
			socks[name] = c
			go func() {
				b := make([]byte, 512)
				for {
					n, from, err := c.ReadFromUDP(b)
					if err != nil {
						return
					}
					mu.Lock()
					got[name+" "+string(b[:n])] = from
					mu.Unlock()
				}
			}()
		})
	}
	has := func(k string) *net.UDPAddr { mu.Lock(); defer mu.Unlock(); return got[k] }
	type side struct{ public, inner, client string }
	sides := map[rs.Family]side{rs.IPv4: {"192.0.2.1", "10.0.0.2", "192.0.2.9"}, rs.IPv6: {"2001:db8:7::1", "fd00:5::2", "2001:db8:7::9"}}
	type flow struct {
		from, to string
		dst      *net.UDPAddr
		hook     rs.Hook
		p        reach.Packet
	}
	var flows []flow
	at := func(a string, port int) *net.UDPAddr { return &net.UDPAddr{IP: net.ParseIP(a), Port: port} }
	for f, s := range sides {
		network := map[rs.Family]string{rs.IPv4: "udp4", rs.IPv6: "udp6"}[f]
		n := network + " "
		for port, ns := range map[int]*testlab.NS{40001: client, 40003: client, 53: client, 8080: inner, 40002: inner, 7: router} {
			a := map[*testlab.NS]string{client: s.client, inner: s.inner, router: s.public}[ns]
			open(ns, fmt.Sprint(n, port), network, net.JoinHostPort(a, fmt.Sprint(port)))
		}
		// Both sides speak once.
		exchange := func(from, to int, dst *net.UDPAddr) *net.UDPAddr {
			k := fmt.Sprint(n, to, " hello ", from)
			testlab.Eventually(t, 5*time.Second, "a flow", func() bool {
				_, _ = socks[fmt.Sprint(n, from)].WriteToUDP(fmt.Appendf(nil, "hello %d", from), dst)
				return has(k) != nil
			})
			back := has(k)
			testlab.Eventually(t, 5*time.Second, "an answer", func() bool {
				_, _ = socks[fmt.Sprint(n, to)].WriteToUDP(fmt.Appendf(nil, "hello %d", to), back)
				return has(fmt.Sprint(n, from, " hello ", to)) != nil
			})
			return back
		}
		exchange(40001, 8080, at(s.public, 80))
		back := exchange(40002, 53, at(s.client, 53))
		exchange(40001, 7, at(s.public, 7))
		exchange(40003, 7, at(s.public, 81))
		q := func(h rs.Hook, in, out, src string, sport uint16, dst *net.UDPAddr) reach.Packet {
			p := reach.Packet{
				Family: f, Proto: reach.Some(uint8(17)), Saddr: reach.Some(netip.MustParseAddr(src)), Daddr: reach.Some(netip.MustParseAddr(dst.IP.String())),
				Sport: reach.Range{From: sport, To: sport}, Dport: reach.Some(uint16(dst.Port)), Ct: reach.Some(uint32(reach.CtEstablished)), Mark: reach.Some(uint32(0)), Local: h == rs.Output,
			}
			if in != "" {
				p.IIF = reach.Some(in)
			}
			if out != "" {
				p.OIF = reach.Some(out)
			}
			return p
		}
		add := func(from, to int, dst *net.UDPAddr, h rs.Hook, in, out, src string) {
			flows = append(flows, flow{fmt.Sprint(n, from), fmt.Sprint(n, to), dst, h, q(h, in, out, src, uint16(from), dst)})
		}
		add(40001, 8080, at(s.public, 80), rs.Forward, "r0", "r1", s.client)
		add(8080, 40001, at(s.client, 40001), rs.Forward, "r1", "r0", s.inner)
		add(40002, 53, at(s.client, 53), rs.Forward, "r1", "r0", s.inner)
		add(53, 40002, at(s.public, back.Port), rs.Forward, "r0", "r1", s.client)
		add(40001, 7, at(s.public, 7), rs.Input, "r0", "", s.client)
		add(40003, 7, at(s.public, 81), rs.Input, "r0", "", s.client)
		add(7, 40001, at(s.client, 40001), rs.Output, "", "r0", s.public)
		add(7, 40003, at(s.client, 40003), rs.Output, "", "r0", s.public)
	}

	sure, all := 0, 0
	for i, filter := range natFilters {
		load("table inet flt\ndelete table inet flt\ntable inet flt { chain c { type filter hook " + filter + " ; meta l4proto 58 accept ; drop ; } ; }")
		sp := spaceOf(t, router)
		for _, f := range flows {
			_, _ = socks[f.from].WriteToUDP(fmt.Appendf(nil, "%d %s", i, f.from), f.dst)
		}
		arrived := func(f flow) bool { return has(fmt.Sprintf("%s %d %s", f.to, i, f.from)) != nil }
		time.Sleep(100 * time.Millisecond)
		for _, f := range flows {
			all++
			a := sp.Model.Ask(f.p, f.hook, false)
			switch e := a.End(0); {
			case e == reach.Accepted:
				sure++
				testlab.Eventually(t, 2*time.Second, fmt.Sprintf("%s: %s to %s: surely accepted, and did not arrive", filter, f.from, f.dst), func() bool { return arrived(f) })
			case e&reach.Accepted == 0:
				sure++
				if arrived(f) {
					t.Errorf("%s: %s to %s: surely dropped, and arrived", filter, f.from, f.dst)
				}
			}
		}
	}
	t.Logf("%d of %d sure", sure, all)
	if sure*4 < all*3 {
		t.Errorf("%d of %d answers are sure", sure, all)
	}
}
