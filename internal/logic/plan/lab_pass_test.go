package plan_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/testlab"
)

// label is the flow label of a frame.
func label(frame []byte) uint32 { return binary.BigEndian.Uint32(frame[14:]) & 0xfffff }

// heard sends frames on one wire and says which labels come out by another within a
// moment after the last one, which surely comes.
func heard(in, out *testlab.Wire, frames [][]byte, last []byte) map[uint32]bool {
	got := map[uint32]bool{}
	in.Send(frames...)
	in.Send(last)
	end := label(last)
	out.Receive(3*time.Second, func(f []byte) bool {
		got[label(f)] = true
		return label(f) == end
	})
	return got
}

// bridgeLab is a host with a bridge of two guests, br_netfilter on.
func TestBridgedGuests(t *testing.T) {
	for _, guard := range []bool{false, true} {
		host, a, b := testlab.NewNS(t, "brh"), testlab.NewNS(t, "bra"), testlab.NewNS(t, "brb")
		host.Sysctl("net/ipv6/conf/default/accept_dad", "0")
		host.IP("link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
		for _, g := range []struct {
			ns   *testlab.NS
			port string
		}{{a, "p0"}, {b, "p1"}} {
			for _, k := range []string{"accept_ra", "accept_dad", "router_solicitations"} {
				g.ns.Sysctl("net/ipv6/conf/default/"+k, "0")
			}
			testlab.Link(host, g.port, g.ns, "eth0")
			host.IP("link", "set", g.port, "master", "br0")
		}
		host.IP("link", "set", "br0", "up")
		host.Sysctl("net/bridge/bridge-nf-call-ip6tables", "1")
		wa, wb := a.Wire("eth0"), b.Wire("eth0")
		testlab.Eventually(t, 5*time.Second, "the bridge to forward", func() bool {
			f := wa.Frame()
			f.FlowLabel = 77
			return heard(wa, wb, nil, f.ICMPv6(143, 0, make([]byte, 4)).Bytes())[77]
		})
		in := intent.Intent{Role: intent.RoleHypervisor, Interfaces: map[string]intent.Interface{"br0": {Addressing: intent.Static, GuardBridged: guard}}, Services: []intent.Service{web()}}
		load(t, host, rulesOf(t, in)+witness)
		ra := ndisc.RA{HopLimit: 64, Lifetime: 1800}
		f := wa.Frame()
		f.SrcMAC, f.Src = wa.MAC, testlab.LinkLocal(wa.MAC)
		var frames [][]byte
		f.FlowLabel = 1
		frames = append(frames, f.RA(ra).Bytes())
		f.FlowLabel = 2
		frames = append(frames, f.RA(ra).Fragments(2, 16)...)
		f.FlowLabel = 3
		g := f
		g.Ext = []ndisc.Ext{{Type: ndisc.HdrHopByHop}}
		frames = append(frames, g.RA(ra).Bytes())
		f.FlowLabel = 4
		frames = append(frames, f.NS(testlab.LinkLocal(wb.MAC), wa.MAC).Bytes())
		// What guests send each other is theirs.
		theirs := map[uint32]string{6: "GRE", 7: "VXLAN", 8: "to 6to4", 9: "IPv6 in IPv6", 10: "in a source of nobody's"}
		f.Dst, f.DstMAC = testlab.LinkLocal(wb.MAC), wb.MAC
		f.FlowLabel = 6
		frames = append(frames, f.Raw(47, make([]byte, 40)).Bytes())
		f.FlowLabel = 7
		frames = append(frames, f.UDP(4789, 4789, make([]byte, 40)).Bytes())
		f.FlowLabel, f.Dst = 8, addr("2002:c000:204::1")
		frames = append(frames, f.UDP(7, 8, nil).Bytes())
		f.FlowLabel, f.Dst = 9, testlab.LinkLocal(wb.MAC)
		frames = append(frames, f.Raw(41, make([]byte, 40)).Bytes())
		if !guard {
			f.FlowLabel, f.Src = 10, addr("3fff::1")
			frames = append(frames, f.UDP(9, 10, nil).Bytes())
		} else {
			delete(theirs, 10)
		}
		f.Dst, f.DstMAC, f.Src = ndisc.AllNodes, ndisc.MAC{}, testlab.LinkLocal(wa.MAC)
		f.FlowLabel, f.HopLimit = 5, 1
		last := f.ICMPv6(143, 0, make([]byte, 4)).Bytes()
		got := heard(wa, wb, frames, last)
		for id, name := range map[uint32]string{1: "RA", 2: "RA in fragments", 3: "RA behind hop-by-hop"} {
			if got[id] == guard {
				t.Errorf("guardBridged %t: %s between guests came through: %t", guard, name, got[id])
			}
		}
		if !got[4] {
			t.Errorf("guardBridged %t: a solicitation between guests was dropped", guard)
		}
		for id, name := range theirs {
			if !got[id] {
				t.Errorf("guardBridged %t: %s between guests was dropped", guard, name)
			}
		}
		// The host itself takes none of them, in either case.
		time.Sleep(50 * time.Millisecond)
		seen := host.Run("nft", "list", "set", "inet", "witness", "seen6")
		for _, id := range []string{" 1,", " 2,", " 3,", " 1 ", " 2 ", " 3 "} {
			if _, list, ok := strings.Cut(seen, "elements"); ok && strings.Contains(strings.ReplaceAll(list, "{", " "), id) {
				t.Errorf("guardBridged %t: the host took shot%s: %s", guard, id, list)
			}
		}
	}
}

// TestForwardAndPublished: a router forwards what is listed, and ports that NAT leads to
// containers obey the services by what their clients asked for, over both families.
func TestForwardAndPublished(t *testing.T) {
	outside, host, inside := testlab.NewNS(t, "fwo"), testlab.NewNS(t, "fwh"), testlab.NewNS(t, "fwi")
	testlab.Link(host, "v0", outside, "a0")
	testlab.Link(host, "v1", inside, "c0")
	for _, x := range []struct {
		ns       *testlab.NS
		dev, net string
		host     bool
	}{{host, "v0", "1", true}, {outside, "a0", "1", false}, {host, "v1", "2", true}, {inside, "c0", "2", false}} {
		last := "7"
		if x.host {
			last = "1"
		}
		x.ns.AddAddr(x.dev, "2001:db8:"+x.net+"::"+last+"/64")
		x.ns.IP("addr", "add", "192.0."+x.net+"."+last+"/24", "dev", x.dev)
		if !x.host {
			x.ns.IP("-6", "route", "add", "default", "via", "2001:db8:"+x.net+"::1")
			x.ns.IP("route", "add", "default", "via", "192.0."+x.net+".1")
		}
	}
	host.Sysctl("net/ipv6/conf/all/forwarding", "1")
	host.Sysctl("net/ipv4/ip_forward", "1")
	load(t, host, `table inet docker-like { chain pre { type nat hook prerouting priority dstnat; policy accept;
	tcp dport 8080 dnat ip6 to [2001:db8:2::7]:80
	tcp dport 8443 dnat ip6 to [2001:db8:2::7]:80
	tcp dport 8080 dnat ip to 192.0.2.7:80
	tcp dport 8443 dnat ip to 192.0.2.7:80
	}; }`)
	for _, p := range []string{":80", ":25", ":443"} {
		var l net.Listener
		var err error
		inside.Do(func() { l, err = net.Listen("tcp", p) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	reach := func(from *testlab.NS, at string) bool {
		var err error
		var c net.Conn
		from.Do(func() { c, err = net.DialTimeout("tcp", at, 250*time.Millisecond) })
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}
	all := []string{"[2001:db8:1::1]:8080", "192.0.1.1:8080", "[2001:db8:1::1]:8443", "192.0.1.1:8443", "[2001:db8:2::7]:80", "192.0.2.7:80", "[2001:db8:2::7]:25", "192.0.2.7:25"}
	for _, a := range all {
		testlab.Eventually(t, 5*time.Second, a+" without rules", func() bool { return reach(outside, a) })
	}
	yes := true
	published := intent.Service{Name: "published", Ports: []string{"tcp/8080"}}
	only4 := intent.Service{Name: "published", Ports: []string{"tcp/8080"}, From: prefixes("192.0.1.0/24")}
	for name, c := range map[string]struct {
		in   intent.Intent
		open string
	}{
		"container host": {
			intent.Intent{Role: intent.RoleServer, Interfaces: one(intent.Static), Forwarding: intent.Forwarding{IPv4: &yes, IPv6: &yes, Unmanaged: true}, Services: []intent.Service{published}},
			"[2001:db8:1::1]:8080 192.0.1.1:8080 [2001:db8:2::7]:80 192.0.2.7:80 [2001:db8:2::7]:25 192.0.2.7:25",
		},
		"container host, IPv4 sources": {
			intent.Intent{Role: intent.RoleServer, Interfaces: one(intent.Static), Forwarding: intent.Forwarding{Unmanaged: true}, Services: []intent.Service{only4}},
			"192.0.1.1:8080 [2001:db8:2::7]:80 192.0.2.7:80 [2001:db8:2::7]:25 192.0.2.7:25",
		},
		"container host, ipv6 managed": {
			intent.Intent{Role: intent.RoleServer, Firewall: intent.Firewall{Manage: intent.ManageIPv6}, Interfaces: one(intent.Static)},
			"192.0.1.1:8080 192.0.1.1:8443 [2001:db8:2::7]:80 192.0.2.7:80 [2001:db8:2::7]:25 192.0.2.7:25",
		},
		"router": {
			intent.Intent{
				Role: intent.RoleRouter, Interfaces: map[string]intent.Interface{"v0": {Addressing: intent.Static}, "v1": {Addressing: intent.Static}}, Services: []intent.Service{published},
				Forwarding: intent.Forwarding{Allow: []intent.Flow{{InInterface: "v0", OutInterface: "v1", Ports: []string{"tcp/25"}, To: prefixes("2001:db8:2::/64", "192.0.2.0/24")}}},
			},
			"[2001:db8:1::1]:8080 192.0.1.1:8080 [2001:db8:2::7]:25 192.0.2.7:25",
		},
	} {
		load(t, host, rulesOf(t, c.in))
		for _, a := range all {
			if got, want := reach(outside, a), strings.Contains(" "+c.open+" ", " "+a+" "); got != want {
				t.Errorf("%s: %s is open: %t, want %t", name, a, got, want)
			}
		}
	}
}

// TestEgress: what a host with a list may send, and what nobody may.
func TestEgress(t *testing.T) {
	f := newFiring(t, "egr")
	in := intents()["egress deny"]
	load(t, f.Victim, rulesOf(t, in))
	send := func(network, at string) error {
		var err error
		f.Victim.Do(func() {
			var c net.Conn
			if c, err = net.DialTimeout(network, at, 200*time.Millisecond); err == nil {
				_, err = c.Write([]byte("x"))
				_ = c.Close()
			}
		})
		return err
	}
	if err := send("udp", "[2600:1::1]:4433"); err != nil {
		t.Errorf("what is listed: %v", err)
	}
	for _, at := range []string{"[2600:1::1]:53", "[2600:2::1]:4433", "203.0.113.9:53"} {
		if err := send("udp", at); err == nil {
			t.Errorf("%s was sent, and is not listed", at)
		}
	}
	// Tunnels, of a host that may send everything else.
	in = intents()["static server"]
	load(t, f.Victim, rulesOf(t, in))
	raw := func(family, proto int, to netip.Addr) (err error) {
		f.Victim.Do(func() {
			var fd int
			if fd, err = unix.Socket(family, unix.SOCK_RAW, proto); err != nil {
				return
			}
			defer unix.Close(fd)
			var sa unix.Sockaddr = &unix.SockaddrInet4{Addr: to.Unmap().As4()}
			if family == unix.AF_INET6 {
				sa = &unix.SockaddrInet6{Addr: to.As16()}
			}
			err = unix.Sendto(fd, make([]byte, 40), 0, sa)
		})
		return err
	}
	for _, p := range []int{4, 41, 47, 94, 97, 98, 115, 137} {
		if err := raw(unix.AF_INET, p, addr("203.0.113.9")); err == nil {
			t.Errorf("protocol %d left over IPv4", p)
		}
	}
	if err := raw(unix.AF_INET, 50, addr("203.0.113.9")); err != nil {
		t.Errorf("ESP: %v", err)
	}
	for _, at := range []string{"203.0.113.9:3544", "[2600:1::1]:3653", "[2002:c000:204::1]:53", "[2001:0:1::1]:53", "192.88.99.1:53", "203.0.113.9:1701", "[2600:1::1]:2152", "203.0.113.9:2268", "[2600:1::1]:4754", "203.0.113.9:6080", "[2600:1::1]:6635"} {
		if err := send("udp", at); err == nil {
			t.Errorf("%s: a tunnel left", at)
		}
	}
	if err := send("udp", "203.0.113.9:53"); err != nil {
		t.Errorf("what is no tunnel: %v", err)
	}
	// What is carried by a family that is not ours is for the tunnel that is listed, too.
	in.Firewall.Manage, in.Tunnels = intent.ManageIPv6, intent.Tunnels{Policy: intent.TunnelsList, List: []intent.Tunnel{{Mechanism: "6to4"}}}
	load(t, f.Victim, rulesOf(t, in))
	if err := send("udp", "[2002:c000:204::1]:53"); err != nil {
		t.Errorf("6to4 is listed: %v", err)
	}
}
