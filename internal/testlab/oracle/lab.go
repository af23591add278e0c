package oracle

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/packetfilter"
	"github.com/sixfence/sixfence/internal/host/collect/rtnl"
	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// Interfaces of the host under test. Packets come in by either; what it forwards
// leaves by the second.
var Interfaces = []string{"eth0", "wlan1"}

// Addresses of the host under test, and prefixes that it forwards to.
var (
	local4   = []string{"192.0.2.1/24", "198.51.100.129/25"}
	local6   = []string{"2001:db8::1/64", "2001:db8:5::80/64"}
	forward4 = "203.0.113.0/24"
	forward6 = "2001:db8:f::/48"
)

// localAddrs are the addresses themselves: two of IPv4, two of IPv6.
var localAddrs = []netip.Addr{
	netip.MustParsePrefix(local4[0]).Addr(), netip.MustParsePrefix(local4[1]).Addr(),
	netip.MustParsePrefix(local6[0]).Addr(), netip.MustParsePrefix(local6[1]).Addr(),
}

// forwarded tells whether the host forwards packets there.
func forwarded(a netip.Addr) bool {
	return netip.MustParsePrefix(forward4).Contains(a) || netip.MustParsePrefix(forward6).Contains(a)
}

// labGroups are the groups of the host's interfaces (ip link set … group).
var labGroups = map[string]uint32{"lo": 0, "eth0": 0, "wlan1": 5}

// labKinds are their kinds (IFLA_INFO_KIND).
var labKinds = map[string]string{"lo": "", "eth0": "veth", "wlan1": "veth"}

// recorderTable names the oracle's own tables, which are no part of the ruleset
// under test.
const recorderTable = "zz_recorder"

// Lab is a host under test and a sender with a wire to each of its interfaces.
type Lab struct {
	t      testing.TB
	host   *testlab.NS
	sender *testlab.NS
	nft    string
	dir    string
	macs   [][6]byte
	fds    []int
	names  map[uint32]string
	sets   *pfdecode.IPSets // of the rules read last
	facts  []byte
	chatty bool   // the host's own packets may come back
	frags  uint32 // identifications used up: an unfinished datagram waits for a minute
}

// NewLab makes the namespaces.
func NewLab(t testing.TB) *Lab {
	t.Helper()
	l := &Lab{t: t, nft: testlab.RequireTool(t, "nft"), dir: t.TempDir(), names: map[uint32]string{}}
	l.host, l.sender = testlab.NewNS(t, "oh"), testlab.NewNS(t, "os")
	for _, k := range []string{"all", "default"} {
		l.sender.Sysctl("net/ipv6/conf/"+k+"/disable_ipv6", "1")
		for _, s := range []string{"accept_dad=0", "accept_ra=0", "router_solicitations=0", "mldv2_unsolicited_report_interval=0"} {
			n, v, _ := strings.Cut(s, "=")
			l.host.Sysctl("net/ipv6/conf/"+k+"/"+n, v)
		}
		l.host.Sysctl("net/ipv6/conf/"+k+"/forwarding", "1")
		l.host.Sysctl("net/ipv4/conf/"+k+"/rp_filter", "0")
		l.host.Sysctl("net/ipv4/conf/"+k+"/accept_local", "1")
	}
	l.host.Sysctl("net/ipv4/ip_forward", "1")
	// First fragments whose rest never comes would fill the queue of later tests.
	l.host.Sysctl("net/netfilter/nf_conntrack_frag6_high_thresh", "1000000000")
	l.host.Sysctl("net/netfilter/nf_conntrack_frag6_timeout", "2")
	for i, name := range Interfaces {
		testlab.Link(l.host, name, l.sender, fmt.Sprintf("s%d", i))
		l.sender.IP("link", "set", fmt.Sprintf("s%d", i), "arp", "off")
	}
	for i, name := range Interfaces {
		l.host.IP("link", "set", name, "group", fmt.Sprint(labGroups[name]))
		l.host.Sysctl("net/ipv4/conf/"+name+"/rp_filter", "0")
		l.host.IP("addr", "add", local4[i], "dev", name)
		l.host.IP("addr", "add", local6[i], "dev", name, "nodad")
	}
	// Everything goes back over the first interface to a neighbour that does not listen.
	for _, c := range [][]string{
		{"neigh", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:02", "dev", Interfaces[0], "nud", "permanent"},
		{"neigh", "add", "198.51.100.130", "lladdr", "02:00:00:00:00:03", "dev", Interfaces[1], "nud", "permanent"},
		{"-6", "neigh", "add", "2001:db8::2", "lladdr", "02:00:00:00:00:02", "dev", Interfaces[0], "nud", "permanent"},
		{"-6", "neigh", "add", "2001:db8:5::2", "lladdr", "02:00:00:00:00:03", "dev", Interfaces[1], "nud", "permanent"},
		{"route", "add", "default", "via", "192.0.2.2"},
		{"-6", "route", "add", "default", "via", "2001:db8::2"},
		{"route", "add", forward4, "via", "198.51.100.130"},
		{"-6", "route", "add", forward6, "via", "2001:db8:5::2"},
	} {
		l.host.IP(c...)
	}
	l.host.Do(func() {
		is, err := net.Interfaces()
		if err != nil {
			t.Errorf("list interfaces: %v", err)
		}
		for _, i := range is {
			l.names[uint32(i.Index)] = i.Name
		}
		for _, name := range Interfaces {
			i, err := net.InterfaceByName(name)
			if err != nil {
				t.Errorf("find %s: %v", name, err)
				return
			}
			l.macs = append(l.macs, [6]byte(i.HardwareAddr))
		}
	})
	l.sender.Do(func() {
		for i := range Interfaces {
			ifi, err := net.InterfaceByName(fmt.Sprintf("s%d", i))
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
	if len(l.fds) != len(Interfaces) || len(l.macs) != len(Interfaces) {
		t.FailNow()
	}
	t.Cleanup(func() {
		for _, fd := range l.fds {
			unix.Close(fd)
		}
	})
	settle(t, l.host, local6...)
	if err := l.learn(); err != nil {
		t.Fatal(err)
	}
	if err := l.establish(); err != nil {
		t.Fatalf("establish flows: %v", err)
	}
	return l
}

// settle waits until the host has the local routes of its addresses: a worker of the kernel
// makes them, later than the addresses (addrconf_dad_work).
func settle(t testing.TB, n *testlab.NS, addrs ...string) {
	t.Helper()
	for range 500 {
		out := n.IP("-6", "route", "show", "table", "local")
		if !slices.ContainsFunc(addrs, func(a string) bool {
			return !strings.Contains(out, "local "+netip.MustParsePrefix(a).Addr().String()+" ")
		}) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no local routes to %v", addrs)
}

// learn reads the host's routes and addresses as the product does.
func (l *Lab) learn() error {
	var n fact.Namespace
	l.host.Do(func() {
		a := ask.New(func(string) bool { return true }, false)
		rtnl.Read(a, ask.NewBudget("oracle", time.Minute, 1e9, 1e9)).Decode(&n)
	})
	var err error
	l.facts, err = json.Marshal(n)
	return err
}

// recorder is the oracle's own table. It sees what every other chain let pass, writes
// down its source MAC, and drops it before connection tracking confirms the
// flow (priority INT_MAX, for IPv6 input one less), so that every packet of a flow
// is its first.
const recorder = `table netdev ` + recorderTable + ` {
 counter got { }
 chain first {
  type filter hook ingress devices = { "eth0", "wlan1" } priority -2147483648
  counter name got
 }
}
table inet ` + recorderTable + ` {
 set seen { typeof ether saddr; size 1000000; flags dynamic; }
 chain input {
  type filter hook input priority 2147483645
  iifname "lo" accept
  add @seen { ether saddr } drop
 }
 set made4 { typeof ip id; size 100000; flags dynamic; }
 set made6 { typeof ip6 flowlabel; size 100000; flags dynamic; }
 chain postrouting {
  type filter hook postrouting priority 2147483646
  meta priority 0:4d add @made4 { ip id } drop
  meta priority 0:4d add @made6 { ip6 flowlabel } drop
  add @seen { ether saddr } drop
 }
}
`

// Load replaces the ruleset. The error holds what nft said.
func (l *Lab) Load(script string) error { return l.loadText(script + recorder) }

func (l *Lab) loadText(script string) error {
	f := filepath.Join(l.dir, "ruleset.nft")
	if err := os.WriteFile(f, []byte("flush ruleset\n"+script), 0o600); err != nil {
		return err
	}
	out, err := l.host.Command(l.nft, "-f", f).CombinedOutput()
	if err != nil {
		return fmt.Errorf("load ruleset: %w\n%s", err, out)
	}
	return nil
}

// Dump reads the ruleset as the product does, without the oracle's own tables.
func (l *Lab) Dump() (fact.NFTables, error) {
	var n fact.Namespace
	l.host.Do(func() {
		a := ask.New(func(string) bool { return true }, false)
		packetfilter.Read(a, ask.NewBudget("oracle", time.Minute, 1e9, 1e9), packetfilter.Options{Elements: true}).Decode(&n)
	})
	nft, ok := n.PacketFilter.NFTables.Get()
	if !ok {
		return nft, fmt.Errorf("dump: %v", n.PacketFilter.NFTables)
	}
	own := func(m []byte) bool { return strings.Contains(string(m), recorderTable) }
	for _, msgs := range []*[][]byte{&nft.Tables, &nft.Chains, &nft.Rules, &nft.Sets, &nft.Elements, &nft.Objects} {
		kept := (*msgs)[:0]
		for _, m := range *msgs {
			if !own(m) {
				kept = append(kept, m)
			}
		}
		*msgs = kept
	}
	return nft, nil
}

const sendBatch = 64

type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// send puts frames on the wire of an interface.
func (l *Lab) send(iface int, frames [][]byte) error {
	var msgs [sendBatch]mmsghdr
	var iovs [sendBatch]unix.Iovec
	for len(frames) > 0 {
		n := min(len(frames), sendBatch)
		for i := range n {
			iovs[i].Base = &frames[i][0]
			iovs[i].SetLen(len(frames[i]))
			msgs[i].hdr.Iov = &iovs[i]
			msgs[i].hdr.SetIovlen(1)
		}
		sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(l.fds[iface]), uintptr(unsafe.Pointer(&msgs[0])), uintptr(n), 0, 0, 0)
		switch errno {
		case 0:
			frames = frames[sent:]
		case unix.EINTR, unix.EAGAIN, unix.ENOBUFS:
			time.Sleep(200 * time.Microsecond)
		default:
			return fmt.Errorf("send frames: %w", errno)
		}
	}
	return nil
}

// got is how many packets came in since Load.
func (l *Lab) got(c *netlink.Conn) (uint64, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.String(unix.NFTA_OBJ_TABLE, recorderTable)
	ae.String(unix.NFTA_OBJ_NAME, "got")
	ae.Uint32(unix.NFTA_OBJ_TYPE, 1)
	attrs, err := ae.Encode()
	if err != nil {
		return 0, err
	}
	msgs, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETOBJ), Flags: netlink.Request},
		Data:   append([]byte{unix.NFPROTO_NETDEV, 0, 0, 0}, attrs...),
	})
	if err != nil {
		return 0, fmt.Errorf("read counter: %w", err)
	}
	if len(msgs) == 0 {
		return 0, fmt.Errorf("read counter: no answer")
	}
	ad, err := netlink.NewAttributeDecoder(msgs[0].Data[4:])
	if err != nil {
		return 0, err
	}
	ad.ByteOrder = binary.BigEndian
	var v uint64
	for ad.Next() {
		if ad.Type() == unix.NFTA_OBJ_DATA {
			ad.Nested(func(n *netlink.AttributeDecoder) error {
				n.ByteOrder = binary.BigEndian
				for n.Next() {
					if n.Type() == 2 { // NFTA_COUNTER_PACKETS
						v = n.Uint64()
					}
				}
				return nil
			})
		}
	}
	return v, ad.Err()
}

// seen lists the source MACs of accepted packets: the probe ids in their last 4 bytes.
func (l *Lab) seen(c *netlink.Conn, mark []bool) error {
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.NFTA_SET_ELEM_LIST_TABLE, recorderTable)
	ae.String(unix.NFTA_SET_ELEM_LIST_SET, "seen")
	attrs, err := ae.Encode()
	if err != nil {
		return err
	}
	msgs, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM), Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{unix.NFPROTO_INET, 0, 0, 0}, attrs...),
	})
	if err != nil {
		return fmt.Errorf("read recorder: %w", err)
	}
	for _, m := range msgs {
		b := m.Data[4:]
		for len(b) >= 4 { // the attributes by hand: a million elements
			n, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED
			if n < 4 || n > len(b) {
				break
			}
			if typ == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				marks(b[4:n], mark)
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
	return nil
}

// marks reads a list of elements: element { key { value } }.
func marks(b []byte, mark []bool) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		// NFTA_LIST_ELEM { NFTA_SET_ELEM_KEY { NFTA_DATA_VALUE 6 bytes } … }
		if n >= 4+4+4+6 && binary.NativeEndian.Uint16(b[6:])&^unix.NLA_F_NESTED == unix.NFTA_SET_ELEM_KEY {
			id := binary.BigEndian.Uint32(b[4+4+4+2:])
			if int(id) < len(mark) {
				mark[id] = true
			}
		}
		b = b[min((n+3)&^3, len(b)):]
	}
}

// flushSeen empties the recorder.
func (l *Lab) flushSeen() error {
	out, err := l.host.Command(l.nft, "flush set inet "+recorderTable+" seen").CombinedOutput()
	if err != nil {
		return fmt.Errorf("flush recorder: %w\n%s", err, out)
	}
	return nil
}

// errLossy means that packets were lost between sender and host, so that a packet
// that was not seen proves nothing.
var errLossy = fmt.Errorf("packets were lost on the way")

// Fire sends every probe and tells which ones the kernel accepted. A round in which
// the host did not count every packet is discarded and sent again.
func (l *Lab) Fire(shapes []Shape, probes []Probe) ([]bool, error) {
	for i := range shapes {
		l.frags++
		shapes[i].FragID = l.frags
	}
	frames := make([][][]byte, len(l.macs))
	var made []int
	for id, p := range probes {
		s := &shapes[p.Shape]
		if s.Output {
			made = append(made, id)
			continue
		}
		frames[s.Iface] = append(frames[s.Iface], s.frame(p.Src, uint32(id), l.macs[s.Iface]))
	}
	var out []bool
	err := errLossy
	l.host.Do(func() {
		var c *netlink.Conn
		if c, err = netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: 256 << 10}); err != nil {
			return
		}
		defer c.Close()
		err = errLossy
		for try := 0; try < 6 && errors.Is(err, errLossy); try++ {
			err = l.round(c, frames, len(probes)-len(made), len(probes), &out)
			if err == nil {
				err = l.emit(shapes, probes, made, out)
			}
			if errors.Is(err, errLossy) {
				if e := l.flushSeen(); e != nil {
					err = e
				}
			}
		}
	})
	return out, err
}

func (l *Lab) round(c *netlink.Conn, frames [][][]byte, n, all int, out *[]bool) error {
	before, err := l.got(c)
	if err != nil {
		return err
	}
	for i := range frames {
		if err := l.send(i, frames[i]); err != nil {
			return err
		}
	}
	// Packets may still be queued: wait until the count stands still.
	var after uint64
	for still := 0; still < 20; {
		now, err := l.got(c)
		if err != nil {
			return err
		}
		if now-before >= uint64(n) {
			after = now
			break
		}
		if now == after {
			still++
			time.Sleep(2 * time.Millisecond)
		} else {
			still = 0
		}
		after = now
	}
	if after-before < uint64(n) || after-before > uint64(n) && !l.chatty {
		return fmt.Errorf("%w: %d of %d came", errLossy, after-before, n)
	}
	time.Sleep(2 * time.Millisecond) // the last packets, between the first hook and the recorder
	*out = make([]bool, all)
	return l.seen(c, *out)
}
