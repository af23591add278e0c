package reach_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/testlab"
)

var outboundRules = map[string]string{
	"destinations": `table inet f {
 set no6 { type ipv6_addr; flags interval; elements = { 2001:db8:1::/48, 2001:db8:5::1-2001:db8:5::9 } }
 chain output { type filter hook output priority 0; policy accept;
  oif lo accept
  ip daddr 198.51.100.0/24 ip daddr != 198.51.100.8 drop
  ip6 daddr @no6 udp dport { 53, 80-90 } reject
 }
}`,
	"policy drop": `table inet f {
 set to { type ipv4_addr . inet_service; flags interval; elements = { 192.0.2.0/26 . 80-90, 198.51.100.7 . 443 } }
 chain output { type filter hook output priority 0; policy drop;
  oifname "lo" accept
  ct state established,related accept
  udp dport 53 accept
  ip daddr . udp dport @to accept
  ip6 daddr 2001:db8::/33 udp dport vmap { 443 : accept, 444 : jump web }
 }
 chain web { ip6 daddr 2001:db8:5::/48 return
  accept
 }
}`,
	"postrouting": `table inet f {
 chain output { type filter hook output priority 0; policy accept;
  udp dport 444 drop
 }
 chain post { type filter hook postrouting priority 0; policy accept;
  oifname "v0" ip6 daddr 2001:db8:9::/48 drop
  oifname "other" drop
  ip daddr & 255.255.255.1 == 192.0.2.1 udp dport < 81 drop
 }
}`,
	"IPv4 only": `table ip f {
 chain output { type filter hook output priority 0; policy drop;
  oifname "lo" accept
  udp dport { 53, 443 } accept
 }
}`,
	"types and NAT": `table inet n {
 chain out { type nat hook output priority -100; policy accept;
  fib daddr type local udp dport 80 redirect to :443
  ip daddr 198.51.100.7 udp dport 53 dnat ip to 192.0.2.77:53
 }
 chain post { type nat hook postrouting priority 100; policy accept;
  udp dport 85 oifname "v0" masquerade
 }
 chain output { type filter hook output priority 0; policy accept;
  fib daddr type local drop
  meta skuid 4242 udp dport 444 drop
  udp dport 443 drop
 }
}`,
}

// TestOutboundIsWhatLeaves sends a datagram to every destination and port: where this
// host surely may send it arrives, where it surely may not it does not.
func TestOutboundIsWhatLeaves(t *testing.T) {
	host, peer := testlab.NewNS(t, "oh"), testlab.NewNS(t, "op")
	testlab.Link(host, "v0", peer, "a0")
	for _, n := range []struct {
		ns  *testlab.NS
		dev string
	}{{host, "v0"}, {peer, "a0"}} {
		n.ns.Sysctl("net/ipv4/conf/all/rp_filter", "0")
		n.ns.Sysctl("net/ipv4/conf/"+n.dev+"/rp_filter", "0")
		n.ns.Sysctl("net/ipv6/conf/"+n.dev+"/accept_dad", "0")
		n.ns.IP("link", "set", n.dev, "up")
	}
	host.IP("addr", "add", "192.0.2.10/24", "dev", "v0")
	host.IP("addr", "add", "2001:db8:77::10/64", "dev", "v0", "nodad")
	host.IP("route", "add", "default", "dev", "v0")
	host.IP("-6", "route", "add", "default", "dev", "v0")
	peer.IP("route", "add", "192.0.2.10/32", "dev", "a0")
	peer.IP("-6", "route", "add", "2001:db8:77::10/128", "dev", "a0")
	mac := linkMAC(t, peer, "a0")
	var dsts []netip.Addr
	for _, s := range strings.Fields(`192.0.2.1 192.0.2.77 192.0.2.78 198.51.100.7 198.51.100.8 203.0.113.9
		2001:db8:77::1 2001:db8:1::5 2001:db8:1:2::5 2001:db8:5::3 2001:db8:5::a 2001:db8:9::1 2001:db8:8001::1`) {
		a := netip.MustParseAddr(s)
		dsts = append(dsts, a)
		if a.Is4() {
			peer.IP("addr", "add", s+"/32", "dev", "a0")
		} else {
			peer.IP("addr", "add", s+"/128", "dev", "a0", "nodad")
		}
		host.IP("neigh", "replace", s, "lladdr", mac, "dev", "v0", "nud", "permanent")
	}
	ports := []uint16{7, 53, 80, 81, 85, 443, 444, 9000}
	has := hearUDP(t, peer, ports)
	for name, script := range outboundRules {
		t.Run(name, func(t *testing.T) { outboundLab(t, host, name, script, dsts, ports, has) })
	}
}

func outboundLab(t *testing.T, host *testlab.NS, name, script string, dsts []netip.Addr, ports []uint16, has func(string) bool) {
	f := filepath.Join(t.TempDir(), "r.nft")
	if err := os.WriteFile(f, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	nft := testlab.RequireTool(t, "nft")
	host.Run(nft, "-f", f)
	flows := spaceOf(t, host).Outbound()
	send := func(dst netip.Addr, port uint16, id string) {
		c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: dst.AsSlice(), Port: int(port)})
		if err != nil {
			t.Errorf("%s: %v", id, err)
			return
		}
		defer c.Close()
		_, _ = c.Write([]byte(id)) // what a rule drops is EPERM
	}
	want := map[string]string{}
	sure := 0
	host.Do(func() {
		for _, port := range ports {
			flow := outboundFlow(flows, "udp", port)
			if flow == nil {
				t.Errorf("nothing is said of port %d", port)
				return
			}
			for _, d := range dsts {
				vs := flow.IPv6
				if d.Is4() {
					vs = flow.IPv4
				}
				if len(vs) != 1 {
					t.Errorf("%d answers for port %d", len(vs), port)
					return
				}
				id := fmt.Sprintf("%s: %s port %d", name, d, port)
				want[id] = ""
				switch {
				case contains(vs[0].Must, d):
					want[id] = "accept"
					sure++
				case !contains(vs[0].May, d):
					want[id] = "drop"
					sure++
				}
				send(d, port, id)
			}
		}
	})
	host.Run(nft, "flush", "ruleset")
	host.Do(func() { send(dsts[0], 7, name+" barrier") })
	testlab.Eventually(t, 5*time.Second, "the last datagram", func() bool { return has(name + " barrier") })
	time.Sleep(50 * time.Millisecond) // other sockets' readers
	accepted := 0
	for id, w := range want {
		if has(id) {
			accepted++
		}
		if w == "accept" && !has(id) {
			t.Errorf("%s: surely sent, and did not arrive", id)
		}
		if w == "drop" && has(id) {
			t.Errorf("%s: surely stopped, and arrived", id)
		}
	}
	if name != "types and NAT" && sure != len(want) || sure < len(want)/2 || accepted == 0 || accepted == len(want) {
		t.Errorf("%d of %d answers are sure, %d arrived", sure, len(want), accepted)
	}
}

// outboundFlow is what is said of a port.
func outboundFlow(flows []reach.Flow, proto string, port uint16) *reach.Flow {
	var others *reach.Flow
	for i := range flows {
		f := &flows[i]
		switch {
		case f.Kind != reach.FlowOutbound || f.Proto != proto:
		case f.Port == 0:
			others = f
		case f.Port <= port && port <= max(f.Port, f.PortTo):
			return f
		}
	}
	return others
}
