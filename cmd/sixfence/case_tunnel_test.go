package main

import (
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/testlab"
)

// received is the packet counter of an interface.
func received(t testing.TB, ns *testlab.NS, ifname string) string {
	t.Helper()
	f := strings.Fields(ns.Run("cat", "/proc/net/dev"))
	for i, w := range f {
		if w == ifname+":" && i+2 < len(f) {
			return f[i+2]
		}
	}
	t.Fatalf("no interface %s", ifname)
	return ""
}

// A VXLAN endpoint takes frames from whoever sends them, also when it has one remote.
func TestOverlayTakesFramesFromAnySender(t *testing.T) {
	t.Parallel()
	p, _ := listenLab(t)
	p.Victim.IP("link", "add", "vx0", "type", "vxlan", "id", "42", "dstport", "4789", "local", victim4, "remote", "192.0.2.99", "dev", "v0")
	inner := p.Wire.Frame().NS(p.VictimLL, p.Wire.MAC).Bytes()
	datagram := append([]byte{0x08, 0, 0, 0, 0, 0, 42, 0}, inner...)
	send := func() {
		p.Attacker.Do(func() {
			c, err := net.Dial("udp4", victim4+":4789")
			if err != nil {
				t.Errorf("dial: %v", err)
				return
			}
			defer c.Close()
			_, _ = c.Write(datagram)
		})
	}
	for _, up := range []bool{false, true} {
		if up {
			p.Victim.IP("link", "set", "vx0", "up")
		}
		before := received(t, p.Victim, "vx0")
		views := both(t, p.Victim)
		taken := func() bool { send(); return received(t, p.Victim, "vx0") != before }
		if up {
			testlab.Eventually(t, 5*time.Second, "a frame from a stranger on vx0", taken)
		} else if taken() {
			t.Fatal("a device that is down took a frame")
		}
		for _, v := range views {
			v.effective(t, "TUN-14", on("vx0"), verdict(up))
		}
	}
}

// With SO_REUSEPORT a dual-stack [::] stands beside 127.0.0.1: then IPv4 to every
// other address is served as well, and the report says so.
func TestDualStackBesideLoopback(t *testing.T) {
	t.Parallel()
	p, s := listenLab(t)
	share := func(family int, sa unix.Sockaddr) {
		s.ns.Do(func() {
			fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Errorf("socket: %v", err)
				return
			}
			t.Cleanup(func() { unix.Close(fd) })
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			if family == unix.AF_INET6 {
				_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
			}
			if err := unix.Bind(fd, sa); err != nil {
				t.Errorf("bind: %v", err)
			} else if err := unix.Listen(fd, 8); err != nil {
				t.Errorf("listen: %v", err)
			}
		})
	}
	share(unix.AF_INET, &unix.SockaddrInet4{Port: 5432, Addr: [4]byte{127, 0, 0, 1}})
	share(unix.AF_INET6, &unix.SockaddrInet6{Port: 5432})
	if !reaches(t, p.Attacker, victim4, 5432) || !reaches(t, p.Attacker, victim6, 5432) {
		t.Fatal("the lab is not what it says: the dual-stack socket serves both families")
	}
	for _, v := range both(t, p.Victim) {
		f := v.effective(t, "LISTEN-02", finding.Subject{Proto: "tcp", Port: 5432}, finding.Fail)
		if f.Severity != finding.Critical || !strings.Contains(f.Message, "IPv4 to every other address") {
			t.Errorf("from %s: %s: %s", v.from, f.Severity, f.Message)
		}
	}
}
