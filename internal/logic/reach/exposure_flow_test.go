package reach_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/testlab"
)

// spacesOf collects the machine as an audit does and returns some namespaces, which
// know each other.
func spacesOf(t *testing.T, ns ...*testlab.NS) []*reach.Space {
	t.Helper()
	c, err := collect.Run(collect.Options{Elements: true})
	if err != nil {
		t.Fatal(err)
	}
	s := c.Snapshot()
	var out []*reach.Space
	for _, n := range ns {
		for i := range s.Namespaces {
			if s.Namespaces[i].ID.Inode == n.Inode() {
				out = append(out, reach.NewSpace(s, &s.Namespaces[i], nil, false))
			}
		}
	}
	if len(out) != len(ns) {
		t.Fatal("not every namespace was collected")
	}
	for _, sp := range out {
		sp.Others = out
	}
	return out
}

// arrivals are the datagrams and connections that came in.
type arrivals struct {
	mu  sync.Mutex
	got map[string]bool
}

func (a *arrivals) note(s string)     { a.mu.Lock(); defer a.mu.Unlock(); a.got[s] = true }
func (a *arrivals) has(s string) bool { a.mu.Lock(); defer a.mu.Unlock(); return a.got[s] }

// udp listens in a namespace; device binds the socket to an interface.
func (a *arrivals) udp(t *testing.T, ns *testlab.NS, network, address, device string) {
	t.Helper()
	ns.Do(func() {
		lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
			var err error
			if device != "" {
				_ = rc.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) })
			}
			return err
		}}
		c, err := lc.ListenPacket(t.Context(), network, address)
		if err != nil {
			t.Errorf("listen %s %s: %v", network, address, err)
			return
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 512)
			for {
				n, _, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				a.note(string(b[:n]))
			}
		}()
	})
}

// sendUDP sends one datagram that says what it is.
func sendUDP(t *testing.T, src, dst netip.Addr, port uint16, zone, id string) {
	la, ra := &net.UDPAddr{IP: src.AsSlice()}, &net.UDPAddr{IP: dst.AsSlice(), Port: int(port)}
	if src.IsLinkLocalUnicast() && src.Is6() {
		la.Zone = zone
	}
	if dst.Is6() && (dst.IsLinkLocalUnicast() || dst.IsMulticast()) {
		ra.Zone = zone
	}
	c, err := net.DialUDP("udp", la, ra)
	if err != nil {
		t.Errorf("%s: %v", id, err)
		return
	}
	defer c.Close()
	if _, err := c.Write([]byte(id)); err != nil {
		t.Errorf("%s: %v", id, err)
	}
}

func nft(t *testing.T, ns *testlab.NS, script string) {
	t.Helper()
	f := filepath.Join(t.TempDir(), "r.nft")
	if err := os.WriteFile(f, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	ns.Run(testlab.RequireTool(t, "nft"), "-f", f)
}

func quiet(ns ...*testlab.NS) {
	for _, n := range ns {
		for _, k := range []string{"all", "default"} {
			n.Sysctl("net/ipv4/conf/"+k+"/rp_filter", "0")
			n.Sysctl("net/ipv6/conf/"+k+"/accept_dad", "0")
		}
	}
}

// shot is a datagram and what is said of it.
type shot struct{ id, want string }

func judge(t *testing.T, a *arrivals, shots []shot) {
	t.Helper()
	sure := map[string]int{}
	for _, s := range shots {
		sure[s.want]++
		switch {
		case s.want == "accept" && !a.has(s.id):
			t.Errorf("%s: surely accepted, and did not arrive", s.id)
		case s.want == "drop" && a.has(s.id):
			t.Errorf("%s: surely dropped, and arrived", s.id)
		case s.want == "":
			t.Errorf("%s: not known", s.id)
		}
	}
	if sure["accept"] < 3 || sure["drop"] < 3 {
		t.Errorf("%v: that proves nothing", sure)
	}
	t.Logf("%v", sure)
}

func wanted(v *reach.V, src netip.Addr) string {
	switch {
	case contains(v.Must, src):
		return "accept"
	case !contains(v.May, src):
		return "drop"
	}
	return ""
}

// TestFlowsAreWhatPacketsFind: ports published by nft and by iptables for containers
// that the host hides, and containers that it routes to, with rules of their own.
func TestFlowsAreWhatPacketsFind(t *testing.T) {
	host, attacker, c1, c2 := testlab.NewNS(t, "fh"), testlab.NewNS(t, "fa"), testlab.NewNS(t, "f1"), testlab.NewNS(t, "f2")
	quiet(host, attacker, c1, c2)
	testlab.Link(host, "v0", attacker, "a0")
	host.IP("link", "add", "br0", "type", "bridge")
	for i, c := range []*testlab.NS{c1, c2} {
		testlab.Link(host, fmt.Sprintf("p%d", i), c, "eth0")
		host.IP("link", "set", fmt.Sprintf("p%d", i), "master", "br0")
		c.IP("addr", "add", fmt.Sprintf("172.18.0.%d/24", i+2), "dev", "eth0")
		c.IP("addr", "add", fmt.Sprintf("2001:db8:18::%d/64", i+2), "dev", "eth0", "nodad")
		c.IP("route", "add", "default", "via", "172.18.0.1")
		c.IP("-6", "route", "add", "default", "via", "2001:db8:18::1")
	}
	host.IP("link", "set", "br0", "up")
	host.IP("addr", "add", "172.18.0.1/24", "dev", "br0")
	host.IP("addr", "add", "2001:db8:18::1/64", "dev", "br0", "nodad")
	host.IP("addr", "add", "192.0.2.10/24", "dev", "v0")
	host.IP("addr", "add", "2001:db8:77::10/64", "dev", "v0", "nodad")
	host.Sysctl("net/ipv4/ip_forward", "1")
	host.Sysctl("net/ipv6/conf/all/forwarding", "1")
	sources := strings.Fields("192.0.2.1 198.51.100.7 203.0.113.9 2001:db8:77::1 2001:db8:1::5 2001:db8:1:5::5 2001:db8:2::1")
	for _, s := range sources {
		bits := "/128"
		if netip.MustParseAddr(s).Is4() {
			bits = "/32"
		}
		attacker.IP("addr", "add", s+bits, "dev", "a0")
	}
	attacker.IP("route", "add", "192.0.2.10/32", "dev", "a0")
	attacker.IP("route", "add", "172.18.0.0/24", "via", "192.0.2.10", "dev", "a0")
	attacker.IP("-6", "route", "add", "2001:db8:77::10/128", "dev", "a0")
	attacker.IP("-6", "route", "add", "2001:db8:18::/64", "via", "2001:db8:77::10", "dev", "a0")
	host.IP("route", "add", "default", "dev", "v0")
	host.IP("-6", "route", "add", "default", "dev", "v0")
	mac := linkMAC(t, host, "v0")
	for _, d := range []string{"192.0.2.10", "2001:db8:77::10"} {
		attacker.IP("neigh", "replace", d, "lladdr", mac, "dev", "a0", "nud", "permanent")
	}
	nft(t, host, `table ip nat {
 chain pre { type nat hook prerouting priority -100;
  ip daddr 192.0.2.10 udp dport 8080 dnat to 172.18.0.2:80
 }
 chain post { type nat hook postrouting priority 100;
  ip saddr 172.18.0.0/24 oifname "v0" masquerade
 }
}
table ip6 nat { chain pre { type nat hook prerouting priority -100;
  ip6 saddr 2001:db8:1::/48 udp dport 8080 dnat to [2001:db8:18::2]:80
 }
}
table inet f { chain forward { type filter hook forward priority 0; policy drop;
  ct state established,related accept
  ip saddr 203.0.113.0/24 drop
  ct status dnat accept
  iifname "br0" accept
  ip6 saddr 2001:db8:1::/48 ip6 daddr 2001:db8:18::/64 udp dport { 80, 81 } accept
 }
}`)
	host.Run(testlab.RequireTool(t, "iptables"), "-t", "nat", "-A", "PREROUTING", "-p", "udp", "--dport", "8081", "-j", "DNAT", "--to-destination", "172.18.0.3:81")
	nft(t, c1, `table inet own { chain input { type filter hook input priority 0; policy accept;
  ip6 saddr 2001:db8:1:5::/64 drop
  udp dport 82 drop
 }
}`)
	got := &arrivals{got: map[string]bool{}}
	for _, c := range []*testlab.NS{c1, c2} {
		for _, p := range []string{":80", ":81", ":82"} {
			got.udp(t, c, "udp", p, "")
		}
	}
	sps := spacesOf(t, host, c1, c2)
	flows := sps[0].Flows()
	var shots []shot
	nat, routed := 0, 0
	attacker.Do(func() {
		for _, f := range flows {
			for _, vs := range [][]reach.V{f.IPv4, f.IPv6} {
				for _, v := range vs {
					if v.Interfaces[0] != "v0" || f.Port == 0 || f.Proto != "udp" {
						continue
					}
					for _, d := range v.Daddr {
						for _, s := range sources {
							src := netip.MustParseAddr(s)
							if src.Is4() != d.Addr().Is4() || f.Kind == reach.FlowNAT && d.Addr() != netip.MustParseAddr("192.0.2.10") && d.Addr() != netip.MustParseAddr("2001:db8:77::10") {
								continue
							}
							id := fmt.Sprintf("%s %s>%s:%d %s", f.Kind, src, d.Addr(), f.Port, f.Target)
							shots = append(shots, shot{id, wanted(&v, src)})
							sendUDP(t, src, d.Addr(), f.Port, "a0", id)
							if f.Kind == reach.FlowNAT {
								nat++
							} else {
								routed++
							}
						}
					}
				}
			}
		}
		sendUDP(t, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.10"), 8081, "a0", "barrier")
	})
	testlab.Eventually(t, 5*time.Second, "the last datagram", func() bool { return got.has("barrier") })
	time.Sleep(50 * time.Millisecond)
	judge(t, got, shots)
	if nat < 9 || routed < 8 {
		t.Errorf("%d shots at published ports, %d at routed ones: %+v", nat, routed, flows)
	}
	for _, f := range flows {
		if f.Port == 82 && strings.Contains(f.Target, c1.Name) {
			t.Errorf("the container drops port 82 itself: %+v", f)
		}
	}
}
