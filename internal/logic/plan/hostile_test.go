package plan_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/logic/attack"
	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/testlab"
)

// flood sends what next makes, some thousands a second and at most 60,000, until the
// returned function is called.
func flood(w *testlab.Wire, next func(i int) []byte) (stop func()) {
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; i < 60000; i += 20 {
			select {
			case <-end:
				return
			case <-time.After(4 * time.Millisecond):
			}
			for j := range 20 {
				w.Send(next(i + j))
			}
		}
	})
	return sync.OnceFunc(func() { close(end); wg.Wait() })
}

// pings tells whether one ping of three is answered.
func pings(from *testlab.NS, to string) bool {
	for range 3 {
		if from.Command("ping", "-n", "-c", "1", "-W", "1", to).Run() == nil {
			return true
		}
	}
	return false
}

// neighbours counts the neighbour entries of an interface.
func neighbours(n *testlab.NS, dev string) int {
	return strings.Count(n.IP("-6", "neigh", "show", "dev", dev), "\n")
}

// TestNeighboursInFloods: whom the host talks to stays in reach while somebody floods it
// with solicitations in other names, and the table of neighbours does not fill up.
func TestNeighboursInFloods(t *testing.T) {
	f := newFiring(t, "nbf")
	// The other end of the link is an honest neighbour, and the default router of a host
	// whose intent names no router.
	far := f.Attacker
	for _, a := range []string{"2001:db8:1::7/64", "2001:db8:1::1/64", "fe80::1/64"} {
		far.AddAddr("a0", a)
	}
	f.Victim.IP("-6", "neigh", "del", "fe80::1", "dev", "v0")
	in := intent.Intent{Role: intent.RoleServer, Interfaces: one(intent.Static), Services: []intent.Service{ssh()}}
	load(t, f.Victim, rulesOf(t, in))
	if !pings(f.Victim, "2001:db8:1::7") || !pings(far, "2001:db8:1::10") {
		t.Fatal("the lab is broken")
	}
	solicit := func(m ndisc.MAC, src netip.Addr) []byte {
		return ndisc.Frame{SrcMAC: m, DstMAC: f.r.Host.MAC, Src: src, Dst: f.r.Host.LL}.NS(f.r.Host.LL, m).Bytes()
	}
	for _, c := range []struct {
		name string
		next func(i int) []byte
	}{
		{"in the neighbour's MAC address", func(i int) []byte {
			return solicit(f.Wire.MAC, addr(fmt.Sprintf("fe80::bad:%x", i%0xffff)))
		}},
		{"in 10,000 MAC addresses", func(i int) []byte {
			m := ndisc.MAC{0x02, 0xee, 0, 0, byte(i % 10000 >> 8), byte(i % 10000)}
			return solicit(m, testlab.LinkLocal(m))
		}},
	} {
		stop := flood(f.Wire, c.next)
		time.Sleep(700 * time.Millisecond)
		for _, a := range []string{"2001:db8:1::7", "2001:db8:1::1", "fe80::1%v0"} {
			f.Victim.IP("-6", "neigh", "flush", "to", strings.TrimSuffix(a, "%v0"), "dev", "v0")
			if !pings(f.Victim, a) {
				t.Errorf("flooded %s: %s does not answer", c.name, a)
			}
		}
		far.IP("-6", "neigh", "flush", "dev", "a0")
		if !pings(far, "2001:db8:1::10") {
			t.Errorf("flooded %s: the neighbour does not reach the host", c.name)
		}
		n := neighbours(f.Victim, "v0")
		t.Logf("flooded %s: %d neighbours", c.name, n)
		if n > 900 {
			t.Errorf("flooded %s: %d neighbour entries", c.name, n)
		}
		stop()
		f.Victim.IP("-6", "neigh", "flush", "dev", "v0")
	}
}

// TestOwnAddresses: nobody else sends in the name of this host, nor in nobody's.
func TestOwnAddresses(t *testing.T) {
	f := newFiring(t, "own")
	for _, asym := range []bool{false, true} {
		in := intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"v0": {Addressing: intent.Static, AsymmetricRouting: asym}}, Services: []intent.Service{{Name: "any", Ports: []string{"udp/9000"}}}}
		load(t, f.Victim, rulesOf(t, in))
		for src, pass := range map[string]bool{"2001:db8:1::10": false, "2001:db8:2::10": false, "::": false, "2600:1::1": true, "fe80::7": true, "2001:db8:2::5": asym} {
			g := ndisc.Frame{SrcMAC: f.r.Rogue.MAC, DstMAC: f.r.Host.MAC, Src: addr(src), Dst: f.r.Host.Global, FlowLabel: 5}
			if got := f.fire(t, []attack.Shot{{ID: 5, Frames: [][]byte{g.UDP(9, 9000, nil).Bytes()}}})[5]; got != pass {
				t.Errorf("asymmetric %t: from %s: came through: %t, want %t", asym, src, got, pass)
			}
		}
	}
}

// threeWay is a router, or a host with containers, between two links: v0 (outside) and
// v1 (inside).
type threeWay struct{ outside, host, inside *testlab.NS }

func newThreeWay(t *testing.T, hint string, bridge bool) *threeWay {
	t.Helper()
	w := &threeWay{testlab.NewNS(t, hint+"o"), testlab.NewNS(t, hint+"h"), testlab.NewNS(t, hint+"i")}
	testlab.Link(w.host, "v0", w.outside, "a0")
	in := "v1"
	if bridge {
		in = "p0"
	}
	testlab.Link(w.host, in, w.inside, "c0")
	if bridge {
		w.host.IP("link", "add", "v1", "type", "bridge", "mcast_snooping", "0")
		w.host.IP("link", "set", "p0", "master", "v1")
		w.host.IP("link", "set", "v1", "up")
	}
	for _, x := range []struct {
		ns       *testlab.NS
		dev, net string
		last     string
	}{{w.host, "v0", "1", "1"}, {w.outside, "a0", "1", "7"}, {w.host, "v1", "2", "1"}, {w.inside, "c0", "2", "7"}} {
		x.ns.AddAddr(x.dev, "2001:db8:"+x.net+"::"+x.last+"/64")
		x.ns.IP("addr", "add", "192.0."+x.net+"."+x.last+"/24", "dev", x.dev)
		if x.last == "7" {
			x.ns.IP("-6", "route", "add", "default", "via", "2001:db8:"+x.net+"::1")
			x.ns.IP("route", "add", "default", "via", "192.0."+x.net+".1")
		}
	}
	w.host.Sysctl("net/ipv6/conf/all/forwarding", "1")
	w.host.Sysctl("net/ipv4/ip_forward", "1")
	testlab.Eventually(t, 10*time.Second, "the way through", func() bool { return pings(w.outside, "2001:db8:2::7") && pings(w.outside, "192.0.2.7") })
	return w
}

// mac is the MAC address of an interface.
func mac(t *testing.T, n *testlab.NS, ifname string) (m ndisc.MAC) {
	t.Helper()
	n.Do(func() {
		i, err := net.InterfaceByName(ifname)
		if err != nil {
			t.Errorf("find %s: %v", ifname, err)
			return
		}
		copy(m[:], i.HardwareAddr)
	})
	return m
}

// passed fires one frame at a router and tells whether it comes out on the other side.
func (w *threeWay) passed(t *testing.T, frame func(ndisc.Frame) ndisc.Frame, back bool) bool {
	t.Helper()
	from, dev, to := w.outside, "a0", w.inside
	src, dst := "2001:db8:1::7", "2001:db8:2::7"
	if back {
		from, dev, to, src, dst = w.inside, "c0", w.outside, dst, src
	}
	load(t, to, "table inet seen\ndelete table inet seen\ntable inet seen { chain i { type filter hook prerouting priority -500; policy accept; ip6 flowlabel 0x5 counter; }; chain z { type filter hook prerouting priority -499; policy accept; ip6 flowlabel 0x6 counter; }; }")
	wire := from.Wire(dev)
	at := "v0"
	if back {
		at = "v1"
	}
	f := ndisc.Frame{SrcMAC: wire.MAC, DstMAC: mac(t, w.host, at), Src: addr(src), Dst: addr(dst), HopLimit: 64, FlowLabel: 5}
	wire.Send(frame(f).Bytes())
	// An error that every policy lets pass comes out behind it.
	f.FlowLabel = 6
	testlab.Eventually(t, 5*time.Second, "what comes behind", func() bool {
		wire.Send(f.ICMPv6(1, 0, make([]byte, 44)).Bytes())
		return !strings.Contains(to.Run("nft", "list", "chain", "inet", "seen", "z"), "packets 0 ")
	})
	return !strings.Contains(to.Run("nft", "list", "chain", "inet", "seen", "i"), "packets 0 ")
}

// TestLoopbackFromTheLink: where route_localnet is set, as kube-proxy and Docker do, nobody
// reaches what listens on loopback, and what the host itself publishes there still works.
func TestLoopbackFromTheLink(t *testing.T) {
	f := newFiring(t, "lfl")
	v := f.Victim
	v.Sysctl("net/ipv4/conf/all/route_localnet", "1")
	v.IP("link", "add", "docker0", "type", "bridge")
	guest := testlab.NewNS(t, "lflg")
	testlab.Link(v, "p0", guest, "eth0")
	v.IP("link", "set", "p0", "master", "docker0")
	v.IP("link", "set", "docker0", "up")
	v.IP("addr", "add", "172.30.0.1/24", "dev", "docker0")
	guest.IP("addr", "add", "172.30.0.2/24", "dev", "eth0")
	guest.IP("route", "add", "127.7.7.0/24", "via", "172.30.0.1")
	in := intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"v0": {Addressing: intent.Static}}, Forwarding: intent.Forwarding{Unmanaged: true}, Services: []intent.Service{{Name: "any", Ports: []string{"udp/1-65535"}}}}
	var shots []attack.Shot
	for i, dst := range []string{"127.0.0.1", "127.5.5.5", "192.0.2.10"} {
		g := ndisc.Frame4{SrcMAC: f.r.Neighbour.MAC, DstMAC: f.r.Host.MAC, Src: f.r.Neighbour.Address, Dst: addr(dst), ID: uint16(i + 1)}
		shots = append(shots, attack.Shot{ID: uint32(i + 1), IPv4: true, Frames: [][]byte{g.UDP(40000, 53, []byte("x")).Bytes()}})
	}
	for _, hardened := range []bool{false, true} {
		if hardened {
			load(t, v, rulesOf(t, in))
		}
		seen := f.fire(t, shots)
		for i, want := range []bool{!hardened, !hardened, true} {
			if seen[uint32(i+1)] != want {
				t.Errorf("hardened %t, shot %d: came through: %t, want %t", hardened, i, seen[uint32(i+1)], want)
			}
		}
	}
	// A port that is published on loopback, as Docker does without its proxy.
	load(t, v, `table ip docker {
	chain out { type nat hook output priority -100; ip daddr 127.0.0.1 udp dport 8053 dnat to 172.30.0.2:53; }
	chain post { type nat hook postrouting priority 100; ip saddr 127.0.0.0/8 oifname "docker0" masquerade; }
}`)
	var echo net.PacketConn
	guest.Do(func() {
		var err error
		if echo, err = net.ListenPacket("udp4", "172.30.0.2:53"); err != nil {
			t.Fatal(err)
		}
	})
	defer echo.Close()
	go func() {
		buf := make([]byte, 16)
		for {
			n, from, err := echo.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = echo.WriteTo(buf[:n], from)
		}
	}()
	testlab.Eventually(t, 10*time.Second, "the published port to answer over loopback", func() (ok bool) {
		v.Do(func() {
			c, err := net.Dial("udp4", "127.0.0.1:8053")
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = c.Write([]byte("x"))
			_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			_, err = c.Read(make([]byte, 4))
			ok = err == nil
		})
		return ok
	})
	// The guest itself gets nothing there.
	var lo net.PacketConn
	v.Do(func() {
		var err error
		if lo, err = net.ListenPacket("udp4", "127.7.7.7:54"); err != nil {
			t.Fatal(err)
		}
	})
	defer lo.Close()
	ask := func() bool {
		guest.Do(func() {
			if c, err := net.Dial("udp4", "127.7.7.7:54"); err == nil {
				_, _ = c.Write([]byte("x"))
				_ = c.Close()
			}
		})
		_ = lo.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		_, _, err := lo.ReadFrom(make([]byte, 4))
		return err == nil
	}
	if guest.Sysctl("net/ipv4/conf/all/route_localnet", "1"); ask() {
		t.Error("a guest reaches loopback")
	}
	load(t, v, "delete table inet sixfence")
	testlab.Eventually(t, 10*time.Second, "the guest to get there without rules", ask)
}

// TestRouterHolds: what a router lets pass is its forwarding.allow, whatever else its
// intent lists.
func TestRouterHolds(t *testing.T) {
	for _, bridge := range []bool{false, true} {
		w := newThreeWay(t, "rth", bridge)
		in := intent.Intent{Role: intent.RoleRouter, Interfaces: map[string]intent.Interface{"v0": {Addressing: intent.Static}, "v1": {Addressing: intent.Static}}, Services: []intent.Service{ssh()}}
		in.Tunnels.List = []intent.Tunnel{{Mechanism: "ip6gre"}, {Mechanism: "vxlan"}, {Mechanism: "6in4"}}
		in.Forwarding.Allow = []intent.Flow{{InInterface: "v1", OutInterface: "v0"}, {InInterface: "v0", OutInterface: "v1", Ports: []string{"tcp/25"}}}
		load(t, w.host, rulesOf(t, in))
		for _, c := range []struct {
			name  string
			back  bool
			pass  bool
			frame func(ndisc.Frame) ndisc.Frame
		}{
			{"GRE from outside", false, false, func(f ndisc.Frame) ndisc.Frame { return f.Raw(47, make([]byte, 40)) }},
			{"VXLAN from outside", false, false, func(f ndisc.Frame) ndisc.Frame { return f.UDP(4789, 4789, make([]byte, 40)) }},
			{"IPv6 in IPv6 from outside", false, false, func(f ndisc.Frame) ndisc.Frame { return f.Raw(41, make([]byte, 40)) }},
			{"GRE from inside", true, true, func(f ndisc.Frame) ndisc.Frame { return f.Raw(47, make([]byte, 40)) }},
			{"UDP from inside", true, true, func(f ndisc.Frame) ndisc.Frame { return f.UDP(1, 2, nil) }},
			{"a source from elsewhere, from inside", true, false, func(f ndisc.Frame) ndisc.Frame { f.Src = addr("2001:db8:1::99"); return f.UDP(3, 4, nil) }},
			{"the router's own source, from inside", true, false, func(f ndisc.Frame) ndisc.Frame { f.Src = addr("2001:db8:2::1"); return f.UDP(5, 6, nil) }},
			{"IPv4 in IPv6 as a source, from inside", true, false, func(f ndisc.Frame) ndisc.Frame { f.Src = addr("::ffff:192.0.2.9"); return f.UDP(7, 8, nil) }},
			{"UDP from outside", false, false, func(f ndisc.Frame) ndisc.Frame { return f.UDP(1, 2, nil) }},
			{"an error", false, true, func(f ndisc.Frame) ndisc.Frame { return f.ICMPv6(2, 0, make([]byte, 44)) }},
		} {
			if got := w.passed(t, c.frame, c.back); got != c.pass {
				t.Errorf("bridge %t: %s: came through: %t, want %t", bridge, c.name, got, c.pass)
			}
		}
		// A monitor inside that asks many is not held to what one sender may ask this host.
		wire := w.inside.Wire("c0")
		load(t, w.outside, "table inet many { chain i { type filter hook prerouting priority -500; policy accept; ip6 flowlabel 0x7 counter; }; }")
		for i := range 60 {
			f := ndisc.Frame{SrcMAC: wire.MAC, DstMAC: mac(t, w.host, "v1"), Src: addr("2001:db8:2::7"), Dst: addr("2001:db8:1::7"), HopLimit: 64, FlowLabel: 7}
			wire.Send(f.Echo(uint16(100+i), 1).Bytes())
		}
		w.passed(t, func(f ndisc.Frame) ndisc.Frame { return f.UDP(11, 12, nil) }, true)
		n := 0
		_, count, _ := strings.Cut(w.outside.Run("nft", "list", "chain", "inet", "many", "i"), "packets ")
		_, _ = fmt.Sscan(count, &n)
		if n < 60 {
			t.Errorf("bridge %t: %d of a monitor's 60 pings passed", bridge, n)
		}
	}
}

// TestScansThroughRouter: who sends to every address behind a router, in as many names as
// he likes, does not fill its table of neighbours.
func TestScansThroughRouter(t *testing.T) {
	w := newThreeWay(t, "scan", false)
	load(t, w.host, rulesOf(t, intent.Intent{Role: intent.RoleRouter, Interfaces: map[string]intent.Interface{"v0": {Addressing: intent.Static}, "v1": {Addressing: intent.Static}}}))
	w.host.IP("-6", "route", "add", "default", "via", "2001:db8:1::7")
	wire := w.outside.Wire("a0")
	to := mac(t, w.host, "v0")
	for i := range 3000 {
		f := ndisc.Frame{SrcMAC: wire.MAC, DstMAC: to, Src: addr(fmt.Sprintf("2600:%x::1", i+1)), Dst: addr(fmt.Sprintf("2001:db8:2::5:%x", i+1)), HopLimit: 64}
		wire.Send(f.Echo(uint16(i), 1).Bytes())
		f.Dst = addr(fmt.Sprintf("2001:db8:2::6:%x", i+1))
		wire.Send(f.ICMPv6(uint8(1+i%4), 0, make([]byte, 44)).Bytes())
		f.Dst = addr(fmt.Sprintf("2001:db8:2::7:%x", i+1))
		wire.Send(f.ICMPv6(129, 0, make([]byte, 8)).Bytes())
	}
	n := neighbours(w.host, "v1")
	t.Logf("%d neighbours", n)
	if n > 700 {
		t.Errorf("%d neighbour entries", n)
	}
	testlab.Eventually(t, 10*time.Second, "a ping through the router", func() bool { return pings(w.outside, "2001:db8:2::7") })
}
