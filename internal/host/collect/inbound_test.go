package collect_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/packetfilter"
	"github.com/sixfence/sixfence/internal/host/collect/rtnl"
	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// pathLab is a victim and a neighbour on one wire, both families, without
// neighbour discovery: every filter may drop everything.
type pathLab struct {
	t            *testing.T
	victim, peer *testlab.NS
}

const labPort = 9999

// Hardware addresses are fixed, so that each side can be told the other's.
const (
	macEth0 = "02:00:00:00:00:01"
	macWire = "02:00:00:00:00:02"
	macMV   = "02:00:00:00:00:03"
	macBr   = "02:00:00:00:00:04"
	macVX   = "02:00:00:00:00:05"
)

func newPathLab(t *testing.T) *pathLab {
	l := &pathLab{t, testlab.NewNS(t, "victim"), testlab.NewNS(t, "peer")}
	l.batch(l.victim,
		"link add eth0 address "+macEth0+" type veth peer name wire address "+macWire+" netns "+l.peer.Name,
		"addr add fd00::1/64 dev eth0 nodad", "addr add 10.9.0.1/24 dev eth0", "link set eth0 up",
		"neigh add 10.9.0.2 lladdr "+macWire+" dev eth0 nud permanent")
	l.batch(l.peer, "addr add fd00::2/64 dev wire nodad", "addr add 10.9.0.2/24 dev wire", "link set wire up")
	l.tell("wire", macEth0, "fd00::1", "10.9.0.1")
	return l
}

// batch runs many commands of ip(8) at once.
func (l *pathLab) batch(n *testlab.NS, lines ...string) {
	l.t.Helper()
	c := exec.Command("ip", "-n", n.Name, "-batch", "-")
	c.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := c.CombinedOutput(); err != nil {
		l.t.Fatalf("ip -batch: %v\n%s", err, out)
	}
}

// tell gives the peer a permanent neighbour entry for the victim's addresses.
func (l *pathLab) tell(dev, mac string, addrs ...string) {
	l.t.Helper()
	var lines []string
	for _, a := range addrs {
		lines = append(lines, "neigh replace "+a+" lladdr "+mac+" dev "+dev+" nud permanent")
	}
	l.batch(l.peer, lines...)
}

// nft loads a table that consists of one chain.
func (l *pathLab) nft(family, chain string) {
	l.t.Helper()
	c := l.victim.Command(testlab.RequireTool(l.t, "nft"), "-f", "-")
	c.Stdin = strings.NewReader("table " + family + " t {\n chain c {\n" + chain + "\n }\n}\n")
	if out, err := c.CombinedOutput(); err != nil {
		l.t.Fatalf("nft %s %s: %v\n%s", family, chain, err, out)
	}
}

// arrives tells whether datagrams from the peer reach a socket of the victim.
func (l *pathLab) arrives(addr string) bool {
	l.t.Helper()
	network := "udp6"
	if netip.MustParseAddr(addr).Is4() {
		network = "udp4"
	}
	var in net.PacketConn
	var out net.Conn
	l.victim.Do(func() {
		var err error
		if in, err = net.ListenPacket(network, fmt.Sprintf(":%d", labPort)); err != nil {
			l.t.Fatal(err)
		}
	})
	defer in.Close()
	l.peer.Do(func() {
		var err error
		if out, err = net.Dial(network, netip.AddrPortFrom(netip.MustParseAddr(addr), labPort).String()); err != nil {
			l.t.Fatal(err)
		}
	})
	defer out.Close()
	buf := make([]byte, 64)
	for range 3 {
		if _, err := out.Write([]byte("knock")); err != nil {
			l.t.Logf("send: %v", err)
		}
		_ = in.SetReadDeadline(time.Now().Add(40 * time.Millisecond))
		if n, _, err := in.ReadFrom(buf); err == nil && string(buf[:n]) == "knock" {
			return true
		}
	}
	return false
}

// inbound asks the audit's question about the victim as it is now.
func (l *pathLab) inbound(family, ifname string, bpf bool) *fact.Gap {
	l.t.Helper()
	a := ask.New(func(s string) bool { return !strings.HasPrefix(s, "ebtable") }, false)
	b := ask.NewBudget("test", 10*time.Second, 1<<20, 1<<28)
	s := fact.Snapshot{SchemaVersion: fact.SchemaVersion}
	s.Host.ByteOrder = "little"
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		s.Host.ByteOrder = "big"
	}
	s.Host.BPF.NetfilterLinks = fact.Absent[[]fact.NetfilterLink]()
	if bpf {
		packetfilter.ReadBPF(a).Decode(&s.Host)
	}
	ns := fact.Namespace{Name: "victim"}
	l.victim.Do(func() {
		r, p := rtnl.Read(a, b), packetfilter.Read(a, b, packetfilter.Options{})
		r.Decode(&ns)
		p.Decode(&ns)
	})
	s.Namespaces = []fact.Namespace{ns}
	return check.NewContext(&s, check.RoleServer).Spaces()[0].Inbound(family, ifname)
}

// bridged moves the victim's end of the wire below a bridge.
func (l *pathLab) bridged() {
	l.batch(l.victim,
		"link add br0 address "+macBr+" type bridge", "addr flush dev eth0", "link set eth0 master br0",
		"addr add fd00::1/64 dev br0 nodad", "link set br0 up")
	l.tell("wire", macBr, "fd00::1")
}

// tunnelled makes a VXLAN between the two over IPv4.
func (l *pathLab) tunnelled() {
	l.batch(l.victim,
		"link add vx0 address "+macVX+" type vxlan id 7 local 10.9.0.1 remote 10.9.0.2 dev eth0 dstport 4789",
		"addr add fd01::1/64 dev vx0 nodad", "link set vx0 up")
	l.batch(l.peer,
		"link add vx0 type vxlan id 7 local 10.9.0.2 remote 10.9.0.1 dev wire dstport 4789",
		"addr add fd01::2/64 dev vx0 nodad", "link set vx0 up")
	l.tell("vx0", macVX, "fd01::1")
}

func (l *pathLab) macvlan() { l.macvlanOn("eth0") }

func (l *pathLab) macvlanOn(lower string) {
	l.batch(l.victim, "link add link "+lower+" name mv0 address "+macMV+" type macvlan mode bridge",
		"addr add fd02::1/64 dev mv0 nodad", "link set mv0 up")
	l.batch(l.peer, "addr add fd02::2/64 dev wire nodad")
	l.tell("wire", macMV, "fd02::1")
}

const dropInput = "type filter hook input priority 0; policy drop;"

// TestInboundAgainstPackets: for each kind of filter a packet is sent, and the
// audit is asked. It may say "nothing can stop it" only where it arrives.
func TestInboundAgainstPackets(t *testing.T) {
	legacy := func(tool string, args ...string) func(*pathLab) {
		return func(l *pathLab) { l.victim.Run(testlab.RequireTool(l.t, tool), args...) }
	}
	nft := func(family, chain string) func(*pathLab) { return func(l *pathLab) { l.nft(family, chain) } }
	with := func(fs ...func(*pathLab)) func(*pathLab) {
		return func(l *pathLab) {
			for _, f := range fs {
				f(l)
			}
		}
	}
	second := func(l *pathLab) { l.batch(l.victim, "link add eth1 type veth peer name eth2", "link set eth1 up") }
	for _, tc := range []struct {
		name    string
		setup   func(*pathLab)
		arrives bool
		clear   bool   // the audit may, and should, say that nothing is in the way
		to      string // fd00::1
		on      string // eth0
		bpf     bool   // the host-wide list of BPF links is part of the question
	}{
		// Nothing on the path.
		{name: "nothing", setup: func(*pathLab) {}, arrives: true, clear: true},
		{name: "inet forward", setup: nft("inet", "type filter hook forward priority 0; policy drop;"), arrives: true, clear: true},
		{name: "inet output", setup: nft("inet", "type filter hook output priority 0; policy drop;"), arrives: true, clear: true},
		{name: "ip6 postrouting", setup: nft("ip6", "type filter hook postrouting priority 0; policy drop;"), arrives: true, clear: true},
		{name: "ip6 nat postrouting", setup: nft("ip6", "type nat hook postrouting priority 100; masquerade"), arrives: true, clear: true},
		{name: "ip input and IPv6", setup: nft("ip", dropInput), arrives: true, clear: true},
		{name: "ip6 input and IPv4", setup: nft("ip6", dropInput), arrives: true, clear: true, to: "10.9.0.1"},
		{name: "arp input", setup: nft("arp", dropInput), arrives: true, clear: true},
		{name: "bridge input without a bridge", setup: nft("bridge", dropInput), arrives: true, clear: true},
		{name: "bridge forward", setup: with((*pathLab).bridged, nft("bridge", "type filter hook forward priority 0; policy drop;")), arrives: true, clear: true, on: "br0"},
		{name: "br_netfilter and inet forward", setup: with((*pathLab).bridged, func(l *pathLab) { l.victim.Sysctl("net/bridge/bridge-nf-call-ip6tables", "1") },
			nft("inet", "type filter hook forward priority 0; policy drop;")), arrives: true, clear: true, on: "br0"},
		{name: "bridge", setup: (*pathLab).bridged, arrives: true, clear: true, on: "br0"},
		{name: "regular chain", setup: nft("inet", "drop"), arrives: true, clear: true},
		{name: "netdev on another device", setup: with(second, nft("netdev", "type filter hook ingress device eth1 priority 0; policy drop;")), arrives: true, clear: true},
		{name: "inet ingress on another device", setup: with(second, nft("inet", "type filter hook ingress device eth1 priority 0; policy drop;")), arrives: true, clear: true},
		{name: "netdev egress", setup: nft("netdev", "type filter hook egress device eth0 priority 0; policy drop;"), arrives: true, clear: true},
		{name: "iptables and IPv6", setup: legacy("iptables-legacy", "-P", "INPUT", "DROP"), arrives: true, clear: true},
		{name: "ip6tables and IPv4", setup: legacy("ip6tables-legacy", "-P", "INPUT", "DROP"), arrives: true, clear: true, to: "10.9.0.1"},
		{name: "XDP on another device", setup: with(second, func(l *pathLab) { l.victim.XDP("eth1", 1) }), arrives: true, clear: true},
		{name: "VXLAN", setup: (*pathLab).tunnelled, arrives: true, clear: true, to: "fd01::1", on: "vx0"},

		// Filters that drop: not to be seen through.
		{name: "inet input", setup: nft("inet", dropInput)},
		{name: "inet input and IPv4", setup: nft("inet", dropInput), to: "10.9.0.1"},
		{name: "ip6 input", setup: nft("ip6", dropInput)},
		{name: "ip6 prerouting", setup: nft("ip6", "type filter hook prerouting priority -450; policy drop;")},
		{name: "inet prerouting", setup: nft("inet", "type filter hook prerouting priority 0; policy drop;")},
		{name: "inet ingress", setup: nft("inet", "type filter hook ingress device eth0 priority 0; policy drop;")},
		{name: "netdev ingress", setup: nft("netdev", "type filter hook ingress device eth0 priority 0; policy drop;")},
		{name: "netdev ingress of eth*", setup: (*pathLab).wildcard},
		{name: "ip6 nat", setup: nft("ip6", "type nat hook prerouting priority -100; udp dport 9999 redirect to :9998")},
		{name: "ip6tables filter", setup: legacy("ip6tables-legacy", "-P", "INPUT", "DROP")},
		{name: "ip6tables mangle", setup: legacy("ip6tables-legacy", "-t", "mangle", "-A", "PREROUTING", "-j", "DROP")},
		{name: "ip6tables raw", setup: legacy("ip6tables-legacy", "-t", "raw", "-A", "PREROUTING", "-j", "DROP")},
		{name: "ip6tables nat", setup: legacy("ip6tables-legacy", "-t", "nat", "-A", "PREROUTING", "-p", "udp", "--dport", "9999", "-j", "REDIRECT", "--to-ports", "9998")},
		{name: "ip6tables security", setup: legacy("ip6tables-legacy", "-t", "security", "-A", "INPUT", "-j", "DROP")},
		{name: "XDP", setup: func(l *pathLab) { l.victim.XDP("eth0", 1) }},
		{name: "TCX", setup: func(l *pathLab) { l.victim.TCX("eth0", 2) }},
		{name: "tc filter", setup: func(l *pathLab) {
			tc := testlab.RequireTool(l.t, "tc")
			l.victim.Run(tc, "qdisc", "add", "dev", "eth0", "clsact")
			second(l) // where the packets go: this kernel has no drop action
			l.victim.Run(tc, "filter", "add", "dev", "eth0", "ingress", "protocol", "all", "u32", "match", "u32", "0", "0", "action", "mirred", "egress", "redirect", "dev", "eth1")
		}},
		{name: "br_netfilter and ip6 prerouting", setup: with((*pathLab).bridged, func(l *pathLab) { l.victim.Sysctl("net/bridge/bridge-nf-call-ip6tables", "1") },
			nft("ip6", "type filter hook prerouting priority 0; policy drop;")), on: "br0"},
		{name: "bridge input", setup: with((*pathLab).bridged, nft("bridge", dropInput)), on: "br0"},
		{name: "bridge prerouting", setup: with((*pathLab).bridged, nft("bridge", "type filter hook prerouting priority 0; policy drop;")), on: "br0"},
		{name: "XDP on a bridge port", setup: with((*pathLab).bridged, func(l *pathLab) { l.victim.XDP("eth0", 1) }), on: "br0"},
		{name: "TCX on a bridge port", setup: with((*pathLab).bridged, func(l *pathLab) { l.victim.TCX("eth0", 2) }), on: "br0"},
		{name: "netdev on a bridge port", setup: with((*pathLab).bridged, nft("netdev", "type filter hook ingress device eth0 priority 0; policy drop;")), on: "br0"},
		{name: "netdev below a macvlan", setup: with((*pathLab).macvlan, nft("netdev", "type filter hook ingress device eth0 priority 0; policy drop;")), to: "fd02::1", on: "mv0"},
		{name: "netdev below a macvlan on a bridge", setup: with((*pathLab).bridged, func(l *pathLab) { l.macvlanOn("br0") },
			nft("netdev", "type filter hook ingress device eth0 priority 0; policy drop;")), to: "fd02::1", on: "mv0"},
		{name: "bridge input below a macvlan", setup: with((*pathLab).bridged, func(l *pathLab) { l.macvlanOn("br0") },
			nft("bridge", "type filter hook prerouting priority 0; policy drop;")), to: "fd02::1", on: "mv0"},
		{name: "ip input around a VXLAN", setup: with((*pathLab).tunnelled, nft("ip", dropInput)), to: "fd01::1", on: "vx0"},
		{name: "netdev around a VXLAN", setup: with((*pathLab).tunnelled, nft("netdev", "type filter hook ingress device eth0 priority 0; policy drop;")), to: "fd01::1", on: "vx0"},

		// Filters that happen to let this packet through stand in the way all the same.
		{name: "inet input that accepts", setup: nft("inet", "type filter hook input priority 0;"), arrives: true},
		{name: "XDP that passes", setup: func(l *pathLab) { l.victim.XDP("eth0", 2) }, arrives: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := newPathLab(t)
			tc.setup(l)
			l.judge(tc.to, tc.on, tc.arrives, tc.clear, tc.bpf)
		})
	}
}

// judge compares the kernel's answer with the audit's.
func (l *pathLab) judge(to, on string, arrives, clear, bpf bool) {
	l.t.Helper()
	if to == "" {
		to = "fd00::1"
	}
	if on == "" {
		on = "eth0"
	}
	if got := l.arrives(to); got != arrives {
		l.t.Fatalf("the packet arrives: %v; the lab is not what it should be", got)
	}
	family := check.FamilyOf(netip.MustParseAddr(to))
	g := l.inbound(family, on, bpf)
	if !arrives && g == nil {
		l.t.Errorf("a packet to %s is dropped, and the audit sees nothing in its way", to)
	}
	if clear != (g == nil) {
		l.t.Errorf("%s on %s: %+v, want clear %v", family, on, g, clear)
	}
	if !clear && g != nil && !strings.Contains(g.What, "packet filter on the way in") {
		l.t.Errorf("%s on %s: %+v", family, on, g)
	}
	if any := l.inbound(family, "", bpf); !clear && any == nil {
		l.t.Error("something is in the way on one interface, and nothing on any")
	}
}

// TestInboundBPFNetfilter is apart because every audit on the host sees the link.
func TestInboundBPFNetfilter(t *testing.T) {
	testlab.OwnHost(t)
	for _, tc := range []struct {
		name           string
		family         uint8
		hook           uint32
		arrives, clear bool
	}{
		{"ipv6 input", unix.NFPROTO_IPV6, 1, false, false},
		{"ipv6 prerouting", unix.NFPROTO_IPV6, 0, false, false},
		{"ipv6 forward", unix.NFPROTO_IPV6, 2, true, true},
		{"ipv6 output", unix.NFPROTO_IPV6, 3, true, true},
		{"ipv4 input", unix.NFPROTO_IPV4, 1, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newPathLab(t)
			l.victim.BPFNetfilter(tc.family, tc.hook, -7, 0)
			var h fact.Host
			packetfilter.ReadBPF(ask.New(func(string) bool { return true }, false)).Decode(&h)
			links, _ := h.BPF.NetfilterLinks.Get()
			if !slices.ContainsFunc(links, func(x fact.NetfilterLink) bool {
				return x.ID != 0 && x.Family == tc.family && x.Hook == tc.hook && x.Priority == -7
			}) {
				t.Errorf("links %+v", h.BPF.NetfilterLinks)
			}
			l.judge("", "", tc.arrives, tc.clear, true)
		})
	}
}

// wildcard makes a netdev chain on every eth*, which the nft of Debian 12 cannot say.
func (l *pathLab) wildcard() {
	l.t.Helper()
	l.nft("netdev", "")
	attr := func(t uint16, b []byte) netlink.Attribute { return netlink.Attribute{Type: t, Data: b} }
	nested := func(as ...netlink.Attribute) []byte {
		b, err := netlink.MarshalAttributes(as)
		if err != nil {
			l.t.Fatal(err)
		}
		return b
	}
	be := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	chain := nested(
		attr(unix.NFTA_CHAIN_TABLE, []byte("t\x00")),
		attr(unix.NFTA_CHAIN_NAME, []byte("wild\x00")),
		attr(unix.NFTA_CHAIN_HOOK|unix.NLA_F_NESTED, nested(
			attr(unix.NFTA_HOOK_HOOKNUM, be(0)),
			attr(unix.NFTA_HOOK_PRIORITY, be(0)),
			attr(4|unix.NLA_F_NESTED, nested(attr(2, []byte("eth\x00")))), // NFTA_HOOK_DEVS, NFTA_DEVICE_PREFIX
		)),
		attr(unix.NFTA_CHAIN_POLICY, be(0)), // drop
		attr(unix.NFTA_CHAIN_TYPE, []byte("filter\x00")),
	)
	msg := func(typ uint16, flags netlink.HeaderFlags, nfgen, data []byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | flags}, Data: append(nfgen, data...)}
	}
	batch := []byte{0, 0, 0, unix.NFNL_SUBSYS_NFTABLES} // res_id, big endian
	l.victim.Do(func() {
		c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			l.t.Error(err)
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.SendMessages([]netlink.Message{
			msg(unix.NFNL_MSG_BATCH_BEGIN, 0, batch, nil),
			msg(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWCHAIN, netlink.Create|netlink.Acknowledge, []byte{unix.NFPROTO_NETDEV, 0, 0, 0}, chain),
			msg(unix.NFNL_MSG_BATCH_END, 0, batch, nil),
		}); err != nil {
			l.t.Error(err)
			return
		}
		if _, err := c.Receive(); err != nil {
			testlab.CannotRun(l.t, "netdev chain on eth* (Linux 6.17): %v", err)
		}
	})
}
