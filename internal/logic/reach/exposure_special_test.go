package reach_test

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/testlab"
)

// tcp listens in a namespace and closes what comes.
func listenTCP(t *testing.T, ns *testlab.NS, network, address, device string) {
	t.Helper()
	ns.Do(func() {
		lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
			var err error
			_ = rc.Control(func(fd uintptr) {
				if device != "" {
					err = unix.BindToDevice(int(fd), device)
				}
			})
			return err
		}}
		l, err := lc.Listen(t.Context(), network, address)
		if err != nil {
			t.Errorf("listen %s %s: %v", network, address, err)
			return
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
	})
}

// connects tells whether a TCP connection comes about: a refusal is none, silence
// is none either.
func connects(src, dst netip.Addr, port uint16, zone string, wait time.Duration) bool {
	z := func(a netip.Addr) string {
		if a.Is6() && a.IsLinkLocalUnicast() {
			return zone
		}
		return ""
	}
	d := net.Dialer{Timeout: wait, LocalAddr: &net.TCPAddr{IP: src.AsSlice(), Zone: z(src)}}
	c, err := d.Dial("tcp", (&net.TCPAddr{IP: dst.AsSlice(), Port: int(port), Zone: z(dst)}).String())
	if err == nil {
		c.Close()
	}
	return err == nil
}

// TestSpecialListeners connects to listeners of every make: both families on one
// socket, IPv6 only, bound to an interface, to a link-local address, to 127.0.0.1
// where the kernel takes that from outside, behind rules for each address, and where
// the way back does not fit.
func TestSpecialListeners(t *testing.T) {
	victim, attacker := testlab.NewNS(t, "xv"), testlab.NewNS(t, "xa")
	quiet(victim, attacker)
	for _, w := range [][2]string{{"v0", "a0"}, {"v1", "a1"}} {
		testlab.Link(victim, w[0], attacker, w[1])
	}
	victim.Sysctl("net/ipv4/conf/v1/rp_filter", "1")
	victim.Sysctl("net/ipv4/conf/v0/route_localnet", "1")
	attacker.Sysctl("net/ipv4/conf/a0/route_localnet", "1")
	victim.IP("addr", "add", "192.0.2.10/24", "dev", "v0")
	victim.IP("addr", "add", "192.0.2.11/24", "dev", "v0")
	victim.IP("addr", "add", "198.51.100.10/24", "dev", "v1")
	victim.IP("addr", "add", "2001:db8:77::10/64", "dev", "v0", "nodad")
	victim.IP("addr", "add", "2001:db8:77::11/64", "dev", "v0", "nodad", "preferred_lft", "0") // deprecated
	victim.IP("addr", "add", "2001:db8:88::10/64", "dev", "v1", "nodad")
	victim.IP("addr", "add", "fe80::10/64", "dev", "v0", "nodad")
	victim.IP("route", "add", "203.0.113.0/24", "dev", "v0")
	victim.IP("-6", "route", "add", "2001:db8:99::/64", "dev", "v0")
	routes := map[string][2]string{}
	for _, s := range []string{"192.0.2.1", "203.0.113.5", "2001:db8:77::1", "2001:db8:99::5", "fe80::1"} {
		a := netip.MustParseAddr(s)
		bits := "/128"
		switch {
		case a.Is4():
			bits = "/32"
		case a.IsLinkLocalUnicast():
			bits = "/64"
		}
		args := []string{"addr", "add", s + bits, "dev", "a0"}
		if a.Is6() {
			args = append(args, "nodad")
		}
		attacker.IP(args...)
	}
	attacker.IP("addr", "add", "198.51.100.1/32", "dev", "a1")
	attacker.IP("addr", "add", "2001:db8:88::1/128", "dev", "a1", "nodad")
	// 127.0.0.1 is the attacker's neighbour, too.
	attacker.IP("addr", "del", "127.0.0.1/8", "dev", "lo")
	for d, dev := range map[string]string{
		"192.0.2.10": "a0", "192.0.2.11": "a0", "127.0.0.1": "a0", "198.51.100.10": "a1", "2001:db8:77::10": "a0", "2001:db8:77::11": "a0", "2001:db8:88::10": "a1", "fe80::10": "a0",
	} {
		fam, bits := "-4", "/32"
		if strings.Contains(d, ":") {
			fam, bits = "-6", "/128"
		}
		if !strings.HasPrefix(d, "fe80") {
			attacker.IP(fam, "route", "replace", d+bits, "dev", dev)
		}
		attacker.IP(fam, "neigh", "replace", d, "lladdr", linkMAC(t, victim, "v"+dev[1:]), "dev", dev, "nud", "permanent")
		routes[d] = [2]string{dev, "v" + dev[1:]}
	}
	for _, s := range [][2]string{{"192.0.2.1", "a0"}, {"203.0.113.5", "a0"}, {"198.51.100.1", "a1"}} {
		victim.IP("neigh", "replace", s[0], "lladdr", linkMAC(t, attacker, s[1]), "dev", "v"+s[1][1:], "nud", "permanent")
	}
	nft(t, victim, `table inet f { chain input { type filter hook input priority 0; policy drop;
  ct state established,related accept
  icmpv6 type { 133, 134, 135, 136 } accept
  iif lo accept
  ip daddr 192.0.2.11 tcp dport 1000-2000 drop
  ip6 daddr 2001:db8:77::11 tcp dport 22 reject with tcp reset
  ip6 saddr 2001:db8:99::/64 tcp dport 1003 drop
  tcp dport { 22, 1000-2000 } accept
 }
}`)
	listenTCP(t, victim, "tcp", ":22", "")                 // both families on one socket
	listenTCP(t, victim, "tcp6", "[::]:1001", "")          // IPv6 only
	listenTCP(t, victim, "tcp4", "0.0.0.0:1002", "")       // IPv4 only
	listenTCP(t, victim, "tcp", ":1003", "v1")             // bound to an interface
	listenTCP(t, victim, "tcp6", "[fe80::10%v0]:1004", "") // a zone
	listenTCP(t, victim, "tcp4", "127.0.0.1:1005", "")     // route_localnet
	listenTCP(t, victim, "tcp4", "192.0.2.10:1006", "")
	listenTCP(t, victim, "tcp4", "192.0.2.10:9", "") // nobody gets in

	sp := spacesOf(t, victim)[0]
	ls, gap := sp.Listeners()
	if gap != nil || len(ls) != 8 {
		t.Fatalf("listeners: %v %v", ls, gap)
	}
	sources := strings.Fields("192.0.2.1 203.0.113.5 198.51.100.1 2001:db8:77::1 2001:db8:99::5 2001:db8:88::1 fe80::1")
	on := map[string]string{"198.51.100.1": "a1", "2001:db8:88::1": "a1"}
	open, closed := 0, 0
	seen := map[string]bool{}
	for i := range ls {
		l := &ls[i]
		sp.Expose(l)
		for _, vs := range [][]reach.V{l.IPv4, l.IPv6} {
			for _, v := range vs {
				for _, d := range v.Daddr {
					way := routes[d.Addr().String()]
					for _, s := range sources {
						src := netip.MustParseAddr(s)
						if way[0] == "" || src.Is4() != d.Addr().Is4() || src.IsLinkLocalUnicast() && !d.Addr().IsLinkLocalUnicast() {
							continue
						}
						if dev := on[s]; dev == "" && way[0] != "a0" || dev != "" && dev != way[0] {
							// The answer would go the other way, and find nobody there.
							continue
						}
						inside := false
						for _, n := range v.Interfaces {
							inside = inside || n == way[1]
						}
						if !inside {
							continue
						}
						want := wanted(&v, src)
						id := fmt.Sprintf("%s > %s port %d on %s", s, d.Addr(), l.Port, way[1])
						seen[d.Addr().String()+" "+strconv.Itoa(int(l.Port))] = true
						wait := 5 * time.Second
						if want == "drop" {
							wait = 100 * time.Millisecond // silence
						}
						var is bool
						attacker.Do(func() { is = connects(src, d.Addr(), l.Port, "a0", wait) })
						switch {
						case want == "accept" && !is:
							t.Errorf("%s: surely accepted, and no connection", id)
						case want == "drop" && is:
							t.Errorf("%s: surely dropped, and connected", id)
						case want == "":
							t.Errorf("%s: not known: %+v", id, v)
						}
						if is {
							open++
						} else {
							closed++
						}
					}
				}
			}
		}
	}
	for _, must := range []string{"127.0.0.1 1005", "127.0.0.1 22", "fe80::10 1004", "2001:db8:77::11 22", "192.0.2.11 22", "2001:db8:88::10 1003", "192.0.2.10 1006"} {
		if !seen[must] {
			t.Errorf("nobody was asked about %s", must)
		}
	}
	for _, never := range []string{"192.0.2.10 1003", "192.0.2.10 1001", "2001:db8:77::10 1002", "192.0.2.11 1006", "2001:db8:77::10 1004"} {
		if seen[never] {
			t.Errorf("%s was asked about, and nothing listens there", never)
		}
	}
	t.Logf("%d connections, %d none", open, closed)
	// What comes in by the wrong interface is refused by rp_filter, for IPv4.
	for i := range ls {
		if ls[i].Port != 22 {
			continue
		}
		for _, v := range ls[i].IPv4 {
			if v.Interfaces[0] == "v1" && (contains(v.May, netip.MustParseAddr("203.0.113.5")) || contains(v.May, netip.MustParseAddr("198.51.100.255")) || !contains(v.Must, netip.MustParseAddr("198.51.100.77"))) {
				t.Errorf("rp_filter: %+v", v)
			}
		}
	}
}
