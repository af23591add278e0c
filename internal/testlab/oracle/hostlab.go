package oracle

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/testlab"
)

// HostLab is the copy of a recorded host: its interfaces (each a wire to the sender,
// whatever it was), addresses, routes and rules.
type HostLab struct {
	Lab
	ifaces []string
}

// NewHostLab makes the copy.
func NewHostLab(t testing.TB, n *fact.Namespace) *HostLab {
	t.Helper()
	l := &HostLab{Lab: Lab{t: t, nft: testlab.RequireTool(t, "nft"), dir: t.TempDir(), names: map[uint32]string{}, chatty: true}}
	l.host, l.sender = testlab.NewNS(t, "ch"), testlab.NewNS(t, "cs")
	for _, k := range []string{"all", "default"} {
		l.sender.Sysctl("net/ipv6/conf/"+k+"/disable_ipv6", "1")
		for _, s := range []string{"accept_dad=0", "accept_ra=0", "router_solicitations=0", "mldv2_unsolicited_report_interval=0"} {
			name, v, _ := strings.Cut(s, "=")
			l.host.Sysctl("net/ipv6/conf/"+k+"/"+name, v)
		}
	}
	links, _ := n.Links.Get()
	var batch strings.Builder
	name := map[int]string{}
	for i, k := range links {
		name[k.Index] = k.Name
		if k.Name == "lo" || k.SlaveKind != "" {
			continue // what a bridge takes from its ports comes in by the bridge
		}
		peer := fmt.Sprintf("s%d", i)
		l.host.IP("link", "add", "index", fmt.Sprint(k.Index), "name", k.Name, "type", "veth", "peer", "name", peer, "netns", l.sender.Name)
		l.sender.IP("link", "set", peer, "up", "arp", "off")
		if k.Flags&1 != 0 {
			fmt.Fprintf(&batch, "link set %s addrgenmode none\nlink set %s up\n", k.Name, k.Name)
			l.ifaces = append(l.ifaces, k.Name)
		}
		l.names[uint32(k.Index)] = k.Name
	}
	l.ipBatch("", batch.String())
	batch.Reset()
	addrs, _ := n.Addresses.Get()
	for _, a := range addrs {
		if l.names[uint32(a.Index)] != "" {
			nodad := ""
			if a.Prefix.Addr().Is6() {
				nodad = " nodad"
			}
			fmt.Fprintf(&batch, "addr add %s dev %s%s\n", a.Prefix, name[a.Index], nodad)
		}
	}
	l.ipBatch("", batch.String())
	routes, _ := n.Routes.Get()
	for _, flag := range []string{"-4", "-6"} {
		batch.Reset()
		for _, r := range routes {
			if (r.Family == "ipv6") != (flag == "-6") || r.Table != 254 || r.Type != 1 || len(r.NextHops) != 1 || r.Protocol == fact.ProtoKernel {
				continue
			}
			via := ""
			if r.NextHops[0].Via.IsValid() {
				via = " via " + r.NextHops[0].Via.String()
			}
			fmt.Fprintf(&batch, "route replace %s%s dev %s\n", r.Dst, via, name[r.NextHops[0].Index])
		}
		l.ipBatch(flag, batch.String())
	}
	if t, ok := n.Sysctls.Get(); ok {
		for k, v := range t.Values {
			if strings.HasSuffix(k, "/forwarding") {
				_ = l.host.Command("sh", "-c", "echo "+v+" >/proc/sys/"+k).Run()
			}
		}
	}
	for _, k := range append([]string{"all", "default"}, l.ifaces...) {
		l.host.Sysctl("net/ipv4/conf/"+k+"/rp_filter", "0")
		l.host.Sysctl("net/ipv4/conf/"+k+"/accept_local", "1")
		l.host.Sysctl("net/ipv4/conf/"+k+"/route_localnet", "1")
	}
	l.host.Do(func() {
		for _, name := range l.ifaces {
			i, err := net.InterfaceByName(name)
			if err != nil {
				t.Errorf("find %s: %v", name, err)
				return
			}
			l.macs = append(l.macs, [6]byte(i.HardwareAddr))
		}
	})
	l.sender.Do(func() {
		for _, k := range links {
			if k.Name == "lo" || k.SlaveKind != "" || k.Flags&1 == 0 {
				continue
			}
			ifi, err := net.InterfaceByName(fmt.Sprintf("s%d", indexOf(links, k.Index)))
			if err != nil {
				t.Errorf("find sender interface: %v", err)
				return
			}
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
			}
			if err == nil {
				err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
			}
			if err != nil {
				t.Errorf("open packet socket: %v", err)
				return
			}
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20)
			l.fds = append(l.fds, fd)
		}
	})
	t.Cleanup(func() {
		for _, fd := range l.fds {
			unix.Close(fd)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	var err error
	l.host.Do(func() { err = replay(&n.PacketFilter) })
	if err != nil {
		t.Fatal(err)
	}
	quoted := `"` + strings.Join(l.ifaces, `", "`) + `"`
	rec := strings.Replace(recorder, `"eth0", "wlan1"`, quoted, 1)
	c := l.host.Command(l.nft, "-f", "-")
	c.Stdin = strings.NewReader(rec)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("load recorder: %v\n%s", err, out)
	}
	return l
}

func indexOf(links []fact.Link, index int) int {
	for i := range links {
		if links[i].Index == index {
			return i
		}
	}
	return -1
}

// ipBatch runs commands of ip(8) on the host.
func (l *HostLab) ipBatch(flag, commands string) {
	l.t.Helper()
	args := []string{"-n", l.host.Name}
	if flag != "" {
		args = append(args, flag)
	}
	c := exec.Command("ip", append(args, "-batch", "-")...)
	c.Stdin = strings.NewReader(commands)
	if out, err := c.CombinedOutput(); err != nil {
		l.t.Fatalf("ip -batch: %v\n%s%s", err, out, commands)
	}
}

// shapeOf is a question of the model as a packet that can be sent; false when the
// lab cannot send it, or conntrack would not see in it what the question says.
func (l *HostLab) shapeOf(p *reach.Packet, hook rs.Hook) (Shape, bool) {
	s := Shape{
		IPv6: p.Family == rs.IPv6, Forward: hook == rs.Forward, Dst: p.Daddr.V, Proto: p.Proto.V, Sport: p.Sport.From, Dport: p.Dport.V,
		Flags: p.TCPFlags.V, Type: p.ICMPType.V, Code: p.ICMPCode.V, HopLimit: 64, Window: 1024, Body: 4, MAC: [2]byte{2, 0}, Iface: -1,
	}
	if p.HopLimit.Set {
		s.HopLimit = p.HopLimit.V
	}
	for i, n := range l.ifaces {
		if n == p.IIF.V {
			s.Iface = i
		}
	}
	s.Ct = ctState(&s)
	return s, s.Iface >= 0 && !p.Local && (hook == rs.Input || hook == rs.Forward) && s.Ct == p.Ct.V
}

// arrives tells whether the kernel itself lets a source come as far as the hook.
func arrives(src netip.Addr, hook rs.Hook) bool {
	switch {
	case src.IsMulticast(), src.IsLoopback(), src.Is4() && src.As4()[0] == 0, src == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return false
	case src.Is6() && hook == rs.Forward: // ip6_forward
		return !src.IsLinkLocalUnicast() && !src.IsUnspecified()
	}
	return true
}
