package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/testlab"
)

// server opens sockets inside a namespace, held by the test process.
type server struct {
	t  testing.TB
	ns *testlab.NS
}

func (s server) control(v6only int) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		_ = c.Control(func(fd uintptr) {
			if v6only >= 0 {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v6only)
			}
		})
		return err
	}
}

// tcp listens and answers every client with one byte; v6only -1 keeps the default.
func (s server) tcp(network, addr string, v6only int) {
	s.t.Helper()
	var l net.Listener
	s.ns.Do(func() {
		var err error
		lc := net.ListenConfig{Control: s.control(v6only)}
		lc.SetMultipathTCP(false)
		if l, err = lc.Listen(context.Background(), network, addr); err != nil {
			s.t.Errorf("listen %s %s: %v", network, addr, err)
		}
	})
	if l == nil {
		s.t.FailNow()
	}
	s.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte{'!'})
			c.Close()
		}
	}()
}

// raw6 listens on an AF_INET6 socket bound to exactly this address, which the net
// package would turn into an IPv4 socket when it is a mapped one.
func (s server) raw6(typ int, addr string, port int) int {
	s.t.Helper()
	fd := -1
	s.ns.Do(func() {
		var err error
		if fd, err = unix.Socket(unix.AF_INET6, typ|unix.SOCK_CLOEXEC, 0); err != nil {
			s.t.Errorf("socket: %v", err)
			return
		}
		sa := &unix.SockaddrInet6{Port: port, Addr: netip.MustParseAddr(addr).As16()}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
		if err = unix.Bind(fd, sa); err == nil && typ == unix.SOCK_STREAM {
			err = unix.Listen(fd, 8)
		}
		if err != nil {
			s.t.Errorf("bind [%s]:%d: %v", addr, port, err)
		}
	})
	s.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// udp binds a UDP socket and counts what arrives, by source as the program sees it.
func (s server) udp(network, addr string, v6only int) *net.UDPConn {
	s.t.Helper()
	var c net.PacketConn
	s.ns.Do(func() {
		var err error
		lc := net.ListenConfig{Control: s.control(v6only)}
		if c, err = lc.ListenPacket(context.Background(), network, addr); err != nil {
			s.t.Errorf("listen %s %s: %v", network, addr, err)
		}
	})
	if c == nil {
		s.t.FailNow()
	}
	s.t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// reaches tells whether a TCP client in the namespace gets through to an address.
func reaches(t testing.TB, from *testlab.NS, addr string, port uint16) bool {
	t.Helper()
	ok := false
	from.Do(func() {
		a := netip.MustParseAddr(addr)
		fam, sa := unix.AF_INET, unix.Sockaddr(nil)
		if a.Is4() {
			sa = &unix.SockaddrInet4{Port: int(port), Addr: a.As4()}
		} else {
			fam, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(port), Addr: a.As16()}
		}
		fd, err := unix.Socket(fam, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Errorf("socket: %v", err)
			return
		}
		defer unix.Close(fd)
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 3})
		ok = unix.Connect(fd, sa) == nil
	})
	return ok
}

const (
	victim4 = "192.0.2.2"
	victim6 = "2001:db8:1::b"
)

// listenLab is a pair in which both ends have both families.
func listenLab(t testing.TB) (*testlab.Pair, server) {
	t.Helper()
	p := testlab.NewPair(t, "lis")
	p.Victim.IP("addr", "add", victim4+"/24", "dev", "v0")
	p.Attacker.IP("addr", "add", "192.0.2.1/24", "dev", "a0")
	p.Victim.AddAddr("v0", victim6+"/64")
	p.Attacker.AddAddr("a0", "2001:db8:1::a/64")
	return p, server{t, p.Victim}
}

// Which families does a socket serve? The inventory says it, then clients of
// both families try.
func TestListenerFamilies(t *testing.T) {
	t.Parallel()
	p, s := listenLab(t)
	s.tcp("tcp6", "[::]:8080", 0)
	s.tcp("tcp6", "[::]:8081", 1)
	s.tcp("tcp4", "0.0.0.0:8082", -1)
	s.tcp("tcp", "0.0.0.0:8083", -1) // Go opens [::] for this
	s.raw6(unix.SOCK_STREAM, "::ffff:"+victim4, 8084)
	s.tcp("tcp4", "127.0.0.1:8085", -1)
	s.tcp("tcp6", "[::1]:8086", -1)
	want := map[uint16][2]bool{8080: {true, true}, 8081: {false, true}, 8082: {true, false}, 8083: {true, true}, 8084: {true, false}, 8085: {}, 8086: {}}
	views := both(t, p.Victim)
	for port, w := range want {
		got4, got6 := reaches(t, p.Attacker, victim4, port), reaches(t, p.Attacker, victim6, port)
		if got4 != w[0] || got6 != w[1] {
			t.Fatalf("port %d: the kernel serves ipv4 %v, ipv6 %v: the lab is not what it says", port, got4, got6)
		}
		for _, v := range views {
			found := v.find("LISTEN-01", finding.Subject{Proto: "tcp", Port: port})
			if len(found) == 0 {
				t.Errorf("from %s: LISTEN-01 does not list tcp/%d", v.from, port)
				continue
			}
			said4, said6 := false, false
			for _, f := range found {
				four, six := familiesSaid(f)
				said4, said6 = said4 || four, said6 || six
			}
			local := port == 8085 || port == 8086
			if !local && (said4 != got4 || said6 != got6) {
				t.Errorf("from %s: tcp/%d: report says ipv4 %v ipv6 %v, the kernel serves ipv4 %v ipv6 %v\n  %s", v.from, port, said4, said6, got4, got6, found[0].Message)
			}
		}
	}
}

// familiesSaid reads which families an inventory line claims.
func familiesSaid(f finding.Finding) (four, six bool) {
	text := f.Message + fmt.Sprint(f.Evidence)
	switch {
	case strings.Contains(text, "IPv4 and IPv6"), strings.Contains(text, "both families"), strings.Contains(text, "IPv6 and IPv4"):
		return true, true
	case strings.Contains(text, "IPv4 only"):
		return true, false
	case strings.Contains(text, "IPv6 only"):
		return false, true
	}
	return strings.Contains(f.Message, "IPv4"), strings.Contains(f.Message, "IPv6")
}

// Loopback for IPv4, the world for IPv6: comparing ports finds nothing, comparing
// scopes does. A dual-stack wildcard is no such case.
func TestLoopbackOnIPv4WorldOnIPv6(t *testing.T) {
	t.Parallel()
	p, s := listenLab(t)
	s.tcp("tcp4", "127.0.0.1:5432", -1)
	s.tcp("tcp6", "[::]:5432", 1)
	s.tcp("tcp6", "[::]:8080", 0)
	if reaches(t, p.Attacker, victim4, 5432) || !reaches(t, p.Attacker, victim6, 5432) || !reaches(t, p.Attacker, victim4, 8080) || !reaches(t, p.Attacker, victim6, 8080) {
		t.Fatal("the lab is not what it says")
	}
	for _, v := range both(t, p.Victim) {
		f := v.effective(t, "LISTEN-02", finding.Subject{Proto: "tcp", Port: 5432}, finding.Fail)
		if f.Severity != finding.Critical {
			t.Errorf("from %s: severity %s, want critical", v.from, f.Severity)
		}
		for _, f := range v.find("LISTEN-02", finding.Subject{Port: 8080}) {
			if f.Effective == finding.Fail {
				t.Errorf("from %s: the harmless dual-stack port is blamed: %s", v.from, f.Message)
			}
		}
	}
}

// A service that trusts 127.0.0.1 and a packet from the wire that says it comes
// from there: what the program sees decides.
func TestForgedMappedLoopbackReachesUDP(t *testing.T) {
	t.Parallel()
	p, s := listenLab(t)
	open := map[uint16]*net.UDPConn{
		9001: s.udp("udp6", "[::]:9001", 0),
		9002: s.udp("udp6", "[::]:9002", 1),
		9003: s.udp("udp4", "0.0.0.0:9003", -1),
		9004: s.udp("udp6", "["+victim6+"]:9004", -1),
		9005: s.udp("udp6", "[::1]:9005", -1),
	}
	views := both(t, p.Victim)
	forged := testlab.Frame{SrcMAC: p.Wire.MAC, DstMAC: p.VictimMAC, HopLimit: 64, Src: netip.MustParseAddr("::ffff:127.0.0.1"), Dst: netip.MustParseAddr(victim6)}
	for port := range open {
		p.Wire.Send(forged.UDP(4000, port, []byte("x")).Bytes())
	}
	p.Barrier()
	for port, c := range open {
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, from, err := c.ReadFromUDPAddrPort(make([]byte, 16))
		fooled := err == nil && from.Addr().Unmap() == netip.MustParseAddr("127.0.0.1")
		t.Logf("udp/%d: packet delivered %v, seen from %v", port, err == nil, from)
		for _, v := range views {
			found := v.find("LISTEN-12", finding.Subject{Proto: "udp", Port: port})
			failed := false
			for _, f := range found {
				failed = failed || f.Effective == finding.Fail
			}
			if failed != fooled {
				t.Errorf("from %s: LISTEN-12 about udp/%d fails: %v; the kernel delivered a packet from 127.0.0.1: %v\n  %+v", v.from, port, failed, fooled, found)
			}
		}
	}
}

// A container's listener is nobody's business until somebody audits it.
func TestListenerInANamespaceNobodyAudits(t *testing.T) {
	t.Parallel()
	p, s := listenLab(t)
	s.tcp("tcp4", "127.0.0.1:5432", -1)
	s.tcp("tcp6", "[::]:5432", 1)
	host := testlab.NewNS(t, "host")
	for _, v := range []view{outside(t, p.Victim), {run(t, host.Command(binary, auditArgs(nil)...)), "another namespace", p.Victim.Name}} {
		v.effective(t, "LISTEN-02", finding.Subject{Proto: "tcp", Port: 5432}, finding.Fail)
		if f := v.effective(t, "LISTEN-08", finding.Subject{}, finding.Fail); !strings.Contains(f.Message, "5432") {
			t.Errorf("from %s: LISTEN-08 does not name the port: %s", v.from, f.Message)
		}
	}
	if !reaches(t, p.Attacker, victim6, 5432) {
		t.Error("the listener cannot be reached: the verdict was wrong")
	}
}

// The verdict behind a packet filter is what its rules do, and a packet agrees.
func TestPacketFilterSettlesIt(t *testing.T) {
	t.Parallel()
	const drops = "tcp dport 5432 drop; icmpv6 type nd-router-advert drop;"
	for name, c := range map[string]struct {
		filter []string
		blocks bool
	}{
		"nft input chain":             {filter: []string{"nft", "add table inet lab; add chain inet lab in { type filter hook input priority 0; policy accept; }"}},
		"nft netdev ingress":          {filter: []string{"nft", "add table netdev lab; add chain netdev lab in { type filter hook ingress device v0 priority 0; policy accept; }"}},
		"legacy ip6tables":            {filter: []string{"ip6tables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "1", "-j", "DROP"}},
		"nft input chain drops":       {filter: []string{"nft", "table inet lab { chain in { type filter hook input priority 0; " + drops + " }; }"}, blocks: true},
		"nft netdev ingress drops":    {filter: []string{"nft", "table netdev lab { chain in { type filter hook ingress device v0 priority 0; " + drops + " }; }"}, blocks: true},
		"nft drops by another accept": {filter: []string{"nft", "table ip6 a { chain in { type filter hook input priority -5; accept; }; }; table ip6 b { chain in { type filter hook prerouting priority 5; " + drops + " }; }"}, blocks: true},
		"ip6tables drops":             {filter: []string{"sh", "-c", "ip6tables-nft -A INPUT -p tcp --dport 5432 -j REJECT && ip6tables-nft -A INPUT -p icmpv6 --icmpv6-type router-advertisement -j DROP"}, blocks: true},
		"legacy ip6tables drops":      {filter: []string{"sh", "-c", "ip6tables-legacy -A INPUT -p tcp --dport 5432 -j REJECT && ip6tables-legacy -A INPUT -p icmpv6 --icmpv6-type router-advertisement -j DROP"}, blocks: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, s := listenLab(t)
			s.tcp("tcp4", "127.0.0.1:5432", -1)
			s.tcp("tcp6", "[::]:5432", 1)
			if !reaches(t, p.Attacker, victim6, 5432) {
				t.Fatal("the lab does not work without a filter")
			}
			p.Victim.Run(testlab.RequireTool(t, c.filter[0]), c.filter[1:]...)
			want := finding.Fail
			if c.blocks {
				want = finding.Pass
			}
			for _, v := range both(t, p.Victim) {
				for _, f := range []finding.Finding{
					v.effective(t, "SYSCTL-RA-01", on("v0"), want),
					v.effective(t, "LISTEN-02", finding.Subject{Proto: "tcp", Port: 5432}, want),
				} {
					if !slices.ContainsFunc(f.Evidence, func(e finding.Evidence) bool { return e.Source == "packet filter" }) {
						t.Errorf("from %s: %s does not say which rule decides: %v", v.from, f.Control, f.Evidence)
					}
				}
			}
			if reaches(t, p.Attacker, victim6, 5432) == c.blocks || takesRA(p) == c.blocks {
				t.Error("packets disagree")
			}
		})
	}
}
