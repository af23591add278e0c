package testlab

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Wire is an AF_PACKET socket on one interface of a namespace: what an attacker
// with CAP_NET_RAW has. It sends frames as they are and hears every IPv6 frame.
type Wire struct {
	MAC  MAC        // of the interface
	Addr netip.Addr // the interface's EUI-64 link-local address, whether or not it is configured
	t    testing.TB
	fd   int
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// Wire opens an AF_PACKET socket on an interface of the namespace; it is closed
// with the test.
func (n *NS) Wire(ifname string) *Wire {
	n.t.Helper()
	w := &Wire{t: n.t, fd: -1}
	n.Do(func() {
		i, err := net.InterfaceByName(ifname)
		if err != nil {
			n.t.Errorf("find interface %s: %v", ifname, err)
			return
		}
		copy(w.MAC[:], i.HardwareAddr)
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_IPV6)))
		if err != nil {
			n.t.Errorf("open packet socket: %v", err)
			return
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IPV6), Ifindex: i.Index}); err != nil {
			n.t.Errorf("bind packet socket to %s: %v", ifname, err)
		}
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
		w.fd = fd
	})
	if w.fd < 0 {
		n.t.FailNow()
	}
	w.Addr = LinkLocal(w.MAC)
	n.t.Cleanup(func() { unix.Close(w.fd) })
	return w
}

// LinkLocal is the EUI-64 link-local address of a MAC (RFC 4291 appendix A).
func LinkLocal(m MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// Frame starts a frame from this interface to all nodes on the link.
func (w *Wire) Frame() Frame { return Frame{SrcMAC: w.MAC, Src: w.Addr, Dst: AllNodes} }

// Send puts frames on the wire. A full queue is waited out, so a flood is sent whole.
func (w *Wire) Send(frames ...[]byte) {
	w.t.Helper()
	for _, f := range frames {
		for {
			_, err := unix.Write(w.fd, f)
			if err == unix.ENOBUFS || err == unix.EAGAIN || err == unix.EINTR {
				time.Sleep(time.Millisecond)
				continue
			}
			if err != nil {
				w.t.Fatalf("send frame: %v", err)
			}
			break
		}
	}
}

// SendRA sends a router advertisement from the interface's link-local address.
func (w *Wire) SendRA(r RA) {
	w.t.Helper()
	w.Send(w.Frame().RA(r).Bytes())
}

// Receive returns the first IPv6 frame that match accepts; after d it returns nil.
func (w *Wire) Receive(d time.Duration, match func(frame []byte) bool) []byte {
	buf := make([]byte, 65536)
	for end := time.Now().Add(d); time.Now().Before(end); {
		n, err := unix.Read(w.fd, buf)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil
		}
		if n >= 54 && match(buf[:n]) {
			return append([]byte(nil), buf[:n]...)
		}
	}
	return nil
}

// ND returns the ICMPv6 type and target address of a plain neighbour discovery
// frame.
func ND(frame []byte) (typ uint8, src, target netip.Addr, ok bool) {
	if len(frame) < 54+24 || frame[20] != ProtoICMPv6 {
		return 0, src, target, false
	}
	return frame[54], netip.AddrFrom16([16]byte(frame[22:38])), netip.AddrFrom16([16]byte(frame[62:78])), true
}

// IsEchoReply matches an echo reply with this identifier.
func IsEchoReply(id uint16) func([]byte) bool {
	return func(f []byte) bool {
		return len(f) >= 62 && f[20] == ProtoICMPv6 && f[54] == 129 && binary.BigEndian.Uint16(f[58:]) == id
	}
}

// AnswerDAD claims every address that a neighbour tries to take (RFC 4862 §5.4), until
// the test ends. It uses a socket of its own.
func (n *NS) AnswerDAD(ifname string) {
	n.t.Helper()
	w := n.Wire(ifname)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			select {
			case <-stop:
				return
			default:
			}
			f := w.Receive(100*time.Millisecond, func(f []byte) bool {
				typ, src, _, ok := ND(f)
				return ok && typ == TypeNS && src.IsUnspecified() && MAC(f[6:12]) != w.MAC
			})
			if f == nil {
				continue
			}
			_, _, target, _ := ND(f)
			a := Frame{SrcMAC: w.MAC, Src: target, Dst: AllNodes}.NA(target, NAOverride, w.MAC)
			if _, err := unix.Write(w.fd, a.Bytes()); err != nil {
				return
			}
		}
	}()
	n.t.Cleanup(func() { close(stop); wg.Wait() })
}

// Pair is the smallest lab: a victim and an attacker on one link, v0 and a0.
type Pair struct {
	Victim, Attacker *NS
	Wire             *Wire // on a0
	VictimMAC        MAC
	VictimLL         netip.Addr
}

// NewPair makes the lab. Both ends are up with their link-local addresses; DAD and
// the attacker's own RA processing are off, so that nothing waits. before
// holds sysctls of the victim ("net/ipv6/conf/default/accept_ra=0") that are written before v0 exists.
func NewPair(t testing.TB, hint string, before ...string) *Pair {
	t.Helper()
	p := &Pair{Victim: NewNS(t, hint+"v"), Attacker: NewNS(t, hint+"a")}
	p.Victim.Sysctl("net/ipv6/conf/default/accept_dad", "0")
	p.Victim.Sysctl("net/ipv6/conf/all/accept_dad", "0")
	p.Victim.Sysctl("net/ipv6/conf/default/router_solicitations", "0")
	for _, s := range before {
		for i := range s {
			if s[i] == '=' {
				p.Victim.Sysctl(s[:i], s[i+1:])
				break
			}
		}
	}
	for _, k := range []string{"accept_dad", "accept_ra", "router_solicitations"} {
		p.Attacker.Sysctl("net/ipv6/conf/default/"+k, "0")
	}
	p.Attacker.Sysctl("net/ipv6/conf/all/accept_dad", "0")
	Link(p.Victim, "v0", p.Attacker, "a0")
	p.Wire = p.Attacker.Wire("a0")
	p.Victim.Do(func() {
		i, err := net.InterfaceByName("v0")
		if err != nil {
			t.Errorf("find v0: %v", err)
			return
		}
		copy(p.VictimMAC[:], i.HardwareAddr)
	})
	p.VictimLL = LinkLocal(p.VictimMAC)
	// The kernel assigns the link-local address when the carrier comes up, and drops
	// what is sent on a0 before it has noticed that carrier.
	Eventually(t, 10*time.Second, "link-local address of v0 and carrier of a0", func() bool {
		return p.Victim.HasAddr(p.VictimLL) && p.Attacker.running("a0")
	})
	return p
}

// AddAddr gives an interface an IPv6 address without duplicate address detection, and
// waits until packets to it are delivered: the kernel installs the local route
// from a work queue.
func (n *NS) AddAddr(ifname, prefix string) {
	n.t.Helper()
	n.IP("-6", "addr", "add", prefix, "dev", ifname, "nodad")
	addr, _, _ := strings.Cut(prefix, "/")
	Eventually(n.t, 10*time.Second, "local route of "+prefix, func() bool {
		return strings.Contains(n.IP("-6", "route", "show", "table", "local", addr), "local "+addr)
	})
}

func (n *NS) running(ifname string) (yes bool) {
	n.Do(func() {
		i, err := net.InterfaceByName(ifname)
		yes = err == nil && i.Flags&net.FlagRunning != 0
	})
	return yes
}

// HasAddr tells whether an IPv6 address is configured in the namespace.
func (n *NS) HasAddr(a netip.Addr) bool {
	found := false
	n.Do(func() {
		as, _ := net.InterfaceAddrs()
		for _, x := range as {
			if p, err := netip.ParsePrefix(x.String()); err == nil && p.Addr() == a {
				found = true
			}
		}
	})
	return found
}

// Barrier returns once the victim has handled every frame sent so far: it
// answers an echo that was queued behind them. It leaves a permanent
// neighbour entry for the attacker's link-local address.
func (p *Pair) Barrier() {
	p.Wire.t.Helper()
	p.Victim.IP("-6", "neigh", "replace", p.Wire.Addr.String(), "lladdr", p.Wire.MAC.String(), "dev", "v0", "nud", "permanent")
	f := p.Wire.Frame()
	f.Dst, f.DstMAC = p.VictimLL, p.VictimMAC
	p.Wire.Send(f.Echo(0x5f5f, 1).Bytes())
	if p.Wire.Receive(5*time.Second, IsEchoReply(0x5f5f)) == nil {
		p.Wire.t.Fatal("no echo reply: the victim does not hear the attacker")
	}
}

// DefaultRoute is what ip(8) prints for the IPv6 default route; empty when
// there is none.
func (n *NS) DefaultRoute() string {
	n.t.Helper()
	return strings.TrimSpace(n.IP("-6", "route", "show", "default"))
}
