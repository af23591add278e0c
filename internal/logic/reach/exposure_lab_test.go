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

	"github.com/sixfence/sixfence/internal/host/collect"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/testlab"
)

// spaceOf collects the machine as an audit does and returns one namespace.
func spaceOf(t *testing.T, ns *testlab.NS) *reach.Space {
	t.Helper()
	c, err := collect.Run(collect.Options{Elements: true})
	if err != nil {
		t.Fatal(err)
	}
	s := c.Snapshot()
	for i := range s.Namespaces {
		if s.Namespaces[i].ID.Inode == ns.Inode() {
			return reach.NewSpace(s, &s.Namespaces[i], nil, false)
		}
	}
	t.Fatal("the namespace was not collected")
	return nil
}

var labRules = map[string]string{
	"plain": `table inet f {
 set ok { type ipv6_addr; flags interval; elements = { 2001:db8:1::/48, 2001:db8:5::1-2001:db8:5::9 } }
 chain input { type filter hook input priority 0; policy drop;
  udp dport 7 accept
  icmpv6 type { 133, 134, 135, 136 } accept
  iif lo accept
  ip6 saddr @ok udp dport 53 accept
  ip saddr { 192.0.2.0/24, 198.51.100.7 } udp dport { 53, 80-90 } accept
  ip6 daddr fe80::/10 udp dport 85 accept
  udp dport vmap { 443 : accept, 444 : jump web }
 }
 chain web { ip6 saddr 2001:db8:9::/48 drop
  ip saddr 10.0.0.0/8 return
  accept
 }
}`,
	"fib": `table inet f {
 chain pre { type filter hook prerouting priority -300; policy accept;
  udp dport 7 accept
  icmpv6 type { 133, 134, 135, 136 } accept
  fib saddr . iif oif missing drop
 }
 chain input { type filter hook input priority 0; policy accept;
  udp dport 80 fib daddr type local drop
  udp dport 53 fib saddr oif exists accept
  udp dport 53 drop
 }
}`,
	"nat": `table inet n {
 chain pre { type nat hook prerouting priority -100; policy accept;
  udp dport 81 redirect to :443
  ip saddr 198.51.100.7 udp dport 53 dnat ip to 203.0.113.80:53
 }
 chain input { type filter hook input priority 0; policy accept;
  udp dport 444 drop
 }
}`,
}

// TestExposureIsWhatPacketsFind sends a datagram from every source to every
// listener: who is surely let in arrives, who is surely blocked does not.
func TestExposureIsWhatPacketsFind(t *testing.T) {
	for name, script := range labRules {
		t.Run(name, func(t *testing.T) { exposureLab(t, script) })
	}
}

func exposureLab(t *testing.T, script string) {
	victim, attacker := testlab.NewNS(t, "ev"), testlab.NewNS(t, "ea")
	testlab.Link(victim, "v0", attacker, "a0")
	for _, n := range []*testlab.NS{victim, attacker} {
		n.Sysctl("net/ipv4/conf/all/rp_filter", "0")
	}
	victim.Sysctl("net/ipv4/conf/v0/rp_filter", "0")
	victim.Sysctl("net/ipv6/conf/v0/accept_dad", "0")
	attacker.Sysctl("net/ipv6/conf/a0/accept_dad", "0")
	victim.IP("link", "set", "v0", "up")
	attacker.IP("link", "set", "a0", "up")
	victim.IP("addr", "add", "192.0.2.10/24", "dev", "v0")
	victim.IP("addr", "add", "2001:db8:77::10/64", "dev", "v0", "nodad")
	victim.IP("addr", "add", "fe80::10/64", "dev", "v0", "nodad")
	victim.IP("route", "add", "198.51.100.0/24", "dev", "v0")
	victim.IP("route", "add", "unreachable", "203.0.113.0/28")
	victim.IP("-6", "route", "add", "2001:db8:1::/48", "dev", "v0")
	victim.IP("-6", "route", "add", "unreachable", "2001:db8:1:2::/64")
	sources := strings.Fields(`192.0.2.1 192.0.2.77 198.51.100.7 198.51.100.8 203.0.113.9 10.9.9.9
		2001:db8:77::1 2001:db8:1::5 2001:db8:1:2::5 2001:db8:5::3 2001:db8:5::a 2001:db8:9::1 fe80::1`)
	for _, s := range sources {
		a := netip.MustParseAddr(s)
		switch {
		case a.Is4():
			attacker.IP("addr", "add", s+"/32", "dev", "a0")
		case a.IsLinkLocalUnicast():
			attacker.IP("addr", "add", s+"/64", "dev", "a0", "nodad")
		default:
			attacker.IP("addr", "add", s+"/128", "dev", "a0", "nodad")
		}
	}
	attacker.IP("route", "add", "192.0.2.10/32", "dev", "a0")
	attacker.IP("-6", "route", "add", "2001:db8:77::10/128", "dev", "a0")
	mac := linkMAC(t, victim, "v0")
	for _, d := range []string{"192.0.2.10", "2001:db8:77::10", "fe80::10"} {
		attacker.IP("neigh", "replace", d, "lladdr", mac, "dev", "a0", "nud", "permanent")
	}

	ports := []int{7, 53, 80, 85, 443, 444, 9000}
	has := hearUDP(t, victim, ports)
	f := filepath.Join(t.TempDir(), "r.nft")
	if err := os.WriteFile(f, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	victim.Run(testlab.RequireTool(t, "nft"), "-f", f)
	sp := spaceOf(t, victim)
	ls, gap := sp.Listeners()
	if gap != nil || len(ls) != 2*len(ports) {
		t.Fatalf("listeners: %v %v", ls, gap)
	}

	type shot struct {
		id   string
		want string // accept, drop, ""
	}
	var shots []shot
	sure := 0
	send := func(src, dst netip.Addr, port uint16, id string) {
		la := &net.UDPAddr{IP: src.AsSlice()}
		ra := &net.UDPAddr{IP: dst.AsSlice(), Port: int(port)}
		if src.IsLinkLocalUnicast() || dst.IsLinkLocalUnicast() {
			ra.Zone = "a0"
			if src.IsLinkLocalUnicast() {
				la.Zone = "a0"
			}
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
	attacker.Do(func() {
		for i := range ls {
			l := &ls[i]
			sp.Expose(l)
			for _, vs := range [][]reach.V{l.IPv4, l.IPv6} {
				for _, v := range vs {
					if v.Interfaces[0] != "v0" {
						continue
					}
					for _, d := range v.Daddr {
						if d.Addr().IsMulticast() {
							continue
						}
						for _, s := range sources {
							src := netip.MustParseAddr(s)
							if src.Is4() != d.Addr().Is4() {
								continue
							}
							id := fmt.Sprintf("%s>%s:%d %s", src, d.Addr(), l.Port, l.Address)
							want := ""
							switch {
							case contains(v.Must, src):
								want = "accept"
							case !contains(v.May, src):
								want = "drop"
							}
							if want != "" {
								sure++
							}
							shots = append(shots, shot{id, want})
							send(src, d.Addr(), l.Port, id)
						}
					}
				}
			}
		}
		send(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.10"), 7, "barrier")
	})
	testlab.Eventually(t, 5*time.Second, "the last datagram", func() bool { return has("barrier") })
	time.Sleep(50 * time.Millisecond) // other sockets' readers
	for _, s := range shots {
		if s.want == "accept" && !has(s.id) {
			t.Errorf("%s: surely accepted, and did not arrive", s.id)
		}
		if s.want == "drop" && has(s.id) {
			t.Errorf("%s: surely dropped, and arrived", s.id)
		}
	}
	if sure != len(shots) || len(shots) == 0 {
		t.Errorf("%d of %d answers are sure", sure, len(shots))
	}
}

func contains(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func linkMAC(t *testing.T, n *testlab.NS, name string) string {
	t.Helper()
	var mac string
	n.Do(func() {
		i, err := net.InterfaceByName(name)
		if err == nil {
			mac = i.HardwareAddr.String()
		}
	})
	if mac == "" {
		t.Fatal("no hardware address")
	}
	return mac
}
