package oracle

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/sixfence/sixfence/internal/logic/reach"
)

// Flows that are really established: their packets are what later tests call
// established. One TCP, one UDP and one echo flow from each of these addresses to
// the first address of the host.
const (
	flowSources    = 8
	flowSport      = 40000
	flowTCP        = 7777
	flowUDP        = 7778
	replyPort      = 7779
	flowTimeout    = "100000"
	establishTable = `table inet ` + recorderTable + `_flows {
 chain any {
  ct state new accept
 }
}
`
)

func flowSource(v6 bool, i int) netip.Addr {
	if v6 {
		return netip.MustParseAddr(fmt.Sprintf("2a00:77:7::%x", 16+i))
	}
	return netip.MustParseAddr(fmt.Sprintf("24.7.9.%d", 16+i))
}

// establish opens the flows. Connection tracking keeps them when the ruleset goes.
func (l *Lab) establish() error {
	for _, k := range []string{"udp_timeout", "udp_timeout_stream", "icmp_timeout", "icmpv6_timeout", "tcp_timeout_syn_recv", "tcp_timeout_max_retrans", "tcp_timeout_unacknowledged", "tcp_timeout_syn_sent", "tcp_timeout_close", "tcp_timeout_close_wait", "tcp_timeout_fin_wait", "tcp_timeout_last_ack", "tcp_timeout_time_wait"} {
		l.host.Sysctl("net/netfilter/nf_conntrack_"+k, flowTimeout)
	}
	l.host.Sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "1")
	var err error
	l.host.Do(func() { err = l.serve() })
	if err != nil {
		return err
	}
	if err := l.loadText(establishTable); err != nil {
		return err
	}
	// A SYN that was answered is a flow that has seen both directions. An ACK that
	// the host did not expect would be answered with a reset.
	var frames [][]byte
	for _, s := range establishedShapes() {
		if s.Proto == protoTCP {
			s.Flags = 0x02
		}
		for i := range flowSources {
			frames = append(frames, s.frame(flowSource(s.IPv6, i), uint32(len(frames)), l.macs[0]))
		}
	}
	if err := l.send(0, frames); err != nil {
		return err
	}
	l.host.Do(func() { err = l.begin() })
	time.Sleep(300 * time.Millisecond) // the host answers
	return err
}

// serve answers the flows: TCP by the kernel's own handshake, UDP with an echo.
func (l *Lab) serve() error {
	tcp, err := net.Listen("tcp", fmt.Sprintf("[::]:%d", flowTCP))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	l.t.Cleanup(func() { _ = tcp.Close() })
	for _, network := range []string{"udp4", "udp6"} {
		c, err := net.ListenPacket(network, fmt.Sprintf(":%d", flowUDP))
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		l.t.Cleanup(func() { _ = c.Close() })
		go func() {
			b := make([]byte, 2048)
			for {
				n, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = c.WriteTo(b[:n], from)
			}
		}()
	}
	return nil
}

// establishedShapes are packets of the established flows.
func establishedShapes() []Shape {
	var out []Shape
	for _, v6 := range []bool{false, true} {
		dst := netip.MustParsePrefix(local4[0]).Addr()
		icmp, echo := uint8(protoICMP), uint8(8)
		if v6 {
			dst = netip.MustParsePrefix(local6[0]).Addr()
			icmp, echo = protoICMPv6, 128
		}
		base := Shape{IPv6: v6, Dst: dst, Sport: flowSport, HopLimit: 64, Window: 1024, Body: 4, MAC: [2]byte{2, 0}, Ct: reach.CtEstablished, Flow: true}
		t, u, e := base, base, base
		t.Proto, t.Dport, t.Flags = protoTCP, flowTCP, 0x10
		u.Proto, u.Dport = protoUDP, flowUDP
		e.Proto, e.Type = icmp, echo
		out = append(out, t, u, e)
	}
	return out
}

// established makes a shape of an established flow.
func (g *Generator) established() Shape {
	list := append(establishedShapes(), replyShapes()...)
	if g.goal != nil && g.goal.v6 != 0 {
		list = slices.DeleteFunc(list, func(s Shape) bool { return s.IPv6 != (g.goal.v6 == 6) })
	}
	s := pick(g, list)
	s.Iface = g.r.IntN(2)
	s.HopLimit = uint8(max(g.known(64, 8, map[bool]string{false: "ip ttl", true: "ip6 hoplimit"}[s.IPv6]), 2))
	if s.Proto == protoTCP && g.chance(30) {
		s.Flags = 0x18
	}
	return s
}

// replyShapes are answers to flows that the host began.
func replyShapes() []Shape {
	var out []Shape
	for _, v6 := range []bool{false, true} {
		out = append(out, Shape{
			IPv6: v6, Dst: localAddrs[idx(v6)*2], Proto: protoUDP, Sport: replyPort, Dport: flowSport, HopLimit: 64, Body: 4,
			MAC: [2]byte{2, 0}, Ct: reach.CtEstablished, Flow: true, Reply: true,
		})
	}
	return out
}

// peer is the other end of an established flow.
func (s *Shape) peer(i int) netip.Addr {
	if s.Reply {
		return replySource(s.IPv6, i)
	}
	return flowSource(s.IPv6, i)
}

func replySource(v6 bool, i int) netip.Addr {
	if v6 {
		return netip.MustParseAddr(fmt.Sprintf("2a00:77:8::%x", 16+i))
	}
	return netip.MustParseAddr(fmt.Sprintf("24.7.10.%d", 16+i))
}

// begin sends the first packet of the flows that the host begins: all of a family from
// one socket. A port that was closed is not free at once while another goroutine starts
// a program: the child holds a copy until it executes.
func (l *Lab) begin() error {
	for _, v6 := range []bool{false, true} {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(localAddrs[idx(v6)*2], flowSport)))
		if err != nil {
			return fmt.Errorf("begin a flow: %w", err)
		}
		for i := range flowSources {
			_, e := c.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(replySource(v6, i), replyPort))
			err = errors.Join(err, e)
		}
		if err = errors.Join(err, c.Close()); err != nil {
			return fmt.Errorf("begin a flow: %w", err)
		}
	}
	return nil
}
