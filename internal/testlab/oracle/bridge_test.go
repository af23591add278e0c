package oracle

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/packetfilter"
	"github.com/sixfence/sixfence/internal/host/collect/rtnl"
	"github.com/sixfence/sixfence/internal/host/collect/sysctl"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// The host of this lab has a bridge br0 with the ports p0 and p1, and an interface e2 of
// its own. Packets are known by their IPv4 identification and IPv6 flow label: they are
// seen where they leave, after every hook, and where they are delivered.
const bridgeRecorder = `table netdev ` + recorderTable + ` {
 set in4 { typeof ip id; size 65535; flags dynamic; }
 set in6 { typeof ip6 flowlabel; size 65535; flags dynamic; }
 counter got { }
 chain first { type filter hook ingress devices = { p0, p1, e2 } priority -2147483648; counter name got; }
 chain last {
  type filter hook egress devices = { p0, p1, e2 } priority 2147483647
  add @in4 { ip id } drop
  add @in6 { ip6 flowlabel } drop
 }
}
table inet ` + recorderTable + ` {
 set in4 { typeof ip id; size 65535; flags dynamic; }
 set in6 { typeof ip6 flowlabel; size 65535; flags dynamic; }
 chain input {
  type filter hook input priority 2147483645
  iifname "lo" accept
  add @in4 { ip id } drop
  add @in6 { ip6 flowlabel } drop
 }
}
`

const neighbourMAC = "02:ff:00:00:00:09" // no packet is from it

type bridgeLab struct {
	Lab
	space *reach.Space
	macs  map[string][6]byte
}

func newBridgeLab(t *testing.T) *bridgeLab {
	l := &bridgeLab{Lab: Lab{t: t, nft: testlab.RequireTool(t, "nft"), dir: t.TempDir(), names: map[uint32]string{}}, macs: map[string][6]byte{}}
	l.host, l.sender = testlab.NewNS(t, "bh"), testlab.NewNS(t, "bs")
	for _, k := range []string{"all", "default"} {
		l.sender.Sysctl("net/ipv6/conf/"+k+"/disable_ipv6", "1")
		for _, s := range []string{"accept_dad=0", "accept_ra=0", "router_solicitations=0", "mldv2_unsolicited_report_interval=0", "forwarding=1"} {
			n, v, _ := strings.Cut(s, "=")
			l.host.Sysctl("net/ipv6/conf/"+k+"/"+n, v)
		}
		l.host.Sysctl("net/ipv4/conf/"+k+"/rp_filter", "0")
		l.host.Sysctl("net/ipv4/conf/"+k+"/accept_local", "1")
	}
	l.host.Sysctl("net/ipv4/ip_forward", "1")
	l.host.IP("link", "add", "br0", "address", "02:00:00:00:00:b0", "type", "bridge", "mcast_snooping", "0")
	for i, name := range []string{"p0", "p1", "e2"} {
		testlab.Link(l.host, name, l.sender, fmt.Sprintf("s%d", i))
		l.sender.IP("link", "set", fmt.Sprintf("s%d", i), "arp", "off")
	}
	var batch strings.Builder
	for _, c := range []string{
		"link set p0 addrgenmode none", "link set p1 addrgenmode none",
		"link set p1 group 3", "link set p0 master br0", "link set p1 master br0", "link set br0 up",
		"addr add 192.0.2.1/24 dev br0", "addr add 2001:db8::1/64 dev br0 nodad",
		"addr add 198.51.100.129/25 dev e2", "addr add 2001:db8:5::80/64 dev e2 nodad",
		"neigh add 192.0.2.2 lladdr " + neighbourMAC + " dev br0 nud permanent", "neigh add 2001:db8::2 lladdr " + neighbourMAC + " dev br0 nud permanent",
		"neigh add 198.51.100.130 lladdr " + neighbourMAC + " dev e2 nud permanent", "neigh add 2001:db8:5::2 lladdr " + neighbourMAC + " dev e2 nud permanent",
		"route add 203.0.113.0/25 via 198.51.100.130", "route add 2001:db8:f::/64 via 2001:db8:5::2",
		"route add 203.0.113.128/25 via 192.0.2.2", "route add 2001:db8:f:1::/64 via 2001:db8::2",
		"route add default via 198.51.100.130", "route add default via 2001:db8:5::2",
	} {
		fmt.Fprintln(&batch, c)
	}
	c := l.host.Command("ip", "-batch", "-")
	c.Stdin = strings.NewReader(batch.String())
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("ip: %v\n%s", err, out)
	}
	settle(t, l.host, "2001:db8::1/64", "2001:db8:5::80/64")
	l.host.Run("bridge", "fdb", "add", neighbourMAC, "dev", "p1", "master", "static")
	l.host.Do(func() {
		is, err := net.Interfaces()
		if err != nil {
			t.Errorf("list interfaces: %v", err)
		}
		for _, i := range is {
			l.names[uint32(i.Index)] = i.Name
			if len(i.HardwareAddr) == 6 {
				l.macs[i.Name] = [6]byte(i.HardwareAddr)
			}
		}
	})
	l.sender.Do(func() {
		for i := range 3 {
			ifi, err := net.InterfaceByName(fmt.Sprintf("s%d", i))
			if err != nil {
				t.Errorf("find sender interface: %v", err)
				return
			}
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
			}
			if err != nil {
				t.Errorf("open packet socket: %v", err)
				return
			}
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
	return l
}

// learnAll reads the host as the product does.
func (l *bridgeLab) learnAll() error {
	n := &fact.Namespace{}
	l.host.Do(func() {
		a, b := ask.New(func(string) bool { return true }, false), ask.NewBudget("oracle", time.Minute, 1e9, 1e9)
		rtnl.Read(a, b).Decode(n)
		sysctl.Read(a, b).Decode(n)
		packetfilter.Read(a, b, packetfilter.Options{Elements: true}).Decode(n)
	})
	nft, err := l.Dump()
	if err != nil {
		return err
	}
	n.PacketFilter.NFTables = fact.Value(nft)
	n.PacketFilter.Legacy, n.PacketFilter.EBTables = fact.Value([]fact.LegacyTable{}), fact.Value(false)
	s := &fact.Snapshot{Host: fact.Host{ByteOrder: "little"}}
	s.Host.BPF.NetfilterLinks = fact.Value([]fact.NetfilterLink{})
	l.space = reach.NewSpace(s, n, nil, false)
	if gaps := l.space.Obstacles("ipv4", "br0"); len(gaps) > 0 {
		return fmt.Errorf("obstacles: %v", gaps)
	}
	return nil
}

// crossing is a packet with the way that it takes.
type crossing struct {
	Shape
	in, out string // "" for none
	mac     [6]byte
	named   [2]string // what the question calls them
	src     netip.Addr
}

// ways of packets: in, out (as IP or the bridge knows them), destinations of IPv4 and IPv6.
var crossings = []struct{ in, out, dst4, dst6 string }{
	{"p0", "", "192.0.2.1", "2001:db8::1"},
	{"p1", "", "192.0.2.1", "2001:db8:5::80"},
	{"e2", "", "198.51.100.129", "2001:db8:5::80"},
	{"p0", "p1", "192.0.2.2", "2001:db8::2"},
	{"p1", "p0", "192.0.2.77", "2001:db8::77"},
	{"p0", "p1", "203.0.113.9", "2001:db8:f::9"},
	{"p0", "e2", "203.0.113.9", "2001:db8:f::9"},
	{"e2", "br0", "203.0.113.200", "2001:db8:f:1::9"},
	{"", "e2", "203.0.113.9", "2001:db8:f::9"},
	{"", "br0", "203.0.113.200", "2001:db8:f:1::9"},
}

// cross makes n packets.
func (l *bridgeLab) cross(r *rand.Rand, n int) []crossing {
	var out []crossing
	for i := range n {
		w := crossings[r.IntN(len(crossings))]
		c := crossing{in: w.in, out: w.out}
		c.IPv6 = r.IntN(2) == 0
		to, from := w.dst4, fmt.Sprintf("10.%d.2.%d", r.IntN(2), 1+r.IntN(200))
		c.ID, c.Label = uint16(i+1), uint32(i+1)
		if c.IPv6 {
			to, from = w.dst6, fmt.Sprintf("2001:db8:%d::%x", 1+r.IntN(2), 1+r.IntN(200))
		}
		if c.in == "" {
			c.Output, from = true, map[bool]string{false: "198.51.100.129", true: "2001:db8:5::80"}[c.IPv6]
		}
		c.Dst, c.src = netip.MustParseAddr(to), netip.MustParseAddr(from)
		c.Forward = c.in != "" && c.out != ""
		c.HopLimit, c.Body = uint8(60+r.IntN(6)), r.IntN(30)
		c.MAC = [2]byte{2, byte(r.IntN(3))}
		switch r.IntN(4) {
		case 0, 1:
			c.Proto, c.Dport, c.Sport, c.Flags = protoTCP, uint16(20+r.IntN(5)), uint16(1024+i), 2
		case 2:
			c.Proto, c.Dport, c.Sport = protoUDP, uint16(20+r.IntN(5)), uint16(1024+i)
		default:
			c.Proto, c.Type, c.Sport = protoICMP, 8, uint16(i)
			if c.IPv6 {
				c.Proto, c.Type = protoICMPv6, 128
			}
		}
		c.Ct = ctState(&c.Shape)
		switch c.mac = l.macs["br0"]; {
		case c.in == "e2":
			c.mac = l.macs["e2"]
		case strings.HasPrefix(c.in, "p") && strings.HasPrefix(c.out, "p"):
			c.mac = [6]byte{2, 0xaa, 0, 0, 0, 1} // nobody's: to every other port
		}
		c.named = [2]string{c.in, c.out}
		if strings.HasPrefix(c.in, "p") && !strings.HasPrefix(c.out, "p") && r.IntN(4) == 0 {
			c.named[0] = "br0"
		}
		if strings.HasPrefix(c.in, "p") && strings.HasPrefix(c.out, "p") {
			if i := r.IntN(8); i < 2 { // only one of its ports
				c.named[i] = "br0"
			}
		}
		if c.out == "br0" && r.IntN(4) > 0 {
			c.named[1] = "p1" // where the neighbour is
		}
		out = append(out, c)
	}
	return out
}

func (c *crossing) question(raw bool, id uint32) reach.Packet {
	p := c.Shape.question(c.src, id, raw)
	p.IIF, p.OIF = reach.Opt[string]{}, reach.Opt[string]{}
	if c.named[0] != "" {
		p.IIF = reach.Some(c.named[0])
	}
	if c.named[1] != "" {
		p.OIF = reach.Some(c.named[1])
	}
	return p
}

// fire sends the packets and tells which ones came through.
func (l *bridgeLab) fire(cs []crossing) ([]bool, error) {
	frames := map[int][][]byte{}
	var shapes []Shape
	var probes []Probe
	n := 0
	for i := range cs {
		shapes, probes = append(shapes, cs[i].Shape), append(probes, Probe{i, cs[i].src})
		if k := slices.Index([]string{"p0", "p1", "e2"}, cs[i].in); k >= 0 {
			frames[k] = append(frames[k], cs[i].frame(cs[i].src, uint32(i), cs[i].mac))
			n++
		}
	}
	accepted := make([]bool, len(cs))
	var err error
	l.host.Do(func() {
		var c *netlink.Conn
		if c, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
			return
		}
		defer c.Close()
		for k, f := range frames {
			if err = l.send(k, f); err != nil {
				return
			}
		}
		if err = l.made(shapes, probes); err != nil {
			return
		}
		var got uint64
		for try := 0; try < 5000 && got < uint64(n); try++ {
			if got, err = l.got(c); err != nil {
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
		if got < uint64(n) {
			err = fmt.Errorf("%w: %d of %d came", errLossy, got, n)
			return
		}
		for _, family := range []string{"netdev", "inet"} {
			for k, set := range []string{"in4", "in6"} {
				var out []byte
				if out, err = l.host.Command(l.nft, "-nn", "list", "set", family, recorderTable, set).CombinedOutput(); err != nil {
					err = fmt.Errorf("read recorder: %w\n%s", err, out)
					return
				}
				_, elements, _ := strings.Cut(string(out), "elements = {")
				for _, f := range strings.FieldsFunc(elements, func(r rune) bool { return strings.ContainsRune("{}, \t\n", r) }) {
					if v, e := strconv.ParseUint(f, 0, 32); e == nil && v > 0 && int(v) <= len(cs) && cs[v-1].IPv6 == (k == 1) {
						accepted[v-1] = true
					}
				}
			}
		}
	})
	return accepted, err
}

// made sends what the host sends itself.
func (l *bridgeLab) made(shapes []Shape, probes []Probe) error {
	for _, v6 := range []bool{false, true} {
		domain, level, opt := unix.AF_INET, unix.IPPROTO_IP, unix.IP_HDRINCL
		if v6 {
			domain, level, opt = unix.AF_INET6, unix.IPPROTO_IPV6, ipv6HdrIncl
		}
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err == nil {
			err = unix.SetsockoptInt(fd, level, opt, 1)
		}
		if err != nil {
			return fmt.Errorf("open raw socket: %w", err)
		}
		defer unix.Close(fd)
		for id, p := range probes {
			s := &shapes[p.Shape]
			if !s.Output || s.IPv6 != v6 {
				continue
			}
			var to unix.Sockaddr = &unix.SockaddrInet6{Addr: s.Dst.As16()}
			if !v6 {
				to = &unix.SockaddrInet4{Addr: s.Dst.As4()}
			}
			if err := unix.Sendto(fd, s.packet(p.Src, uint32(id)), 0, to); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOBUFS) {
				return fmt.Errorf("send from the host: %w", err)
			}
		}
	}
	return nil
}

// places are where chains of this test stand.
var places = []struct{ family, hook, device string }{
	{"bridge", "prerouting", ""},
	{"bridge", "prerouting", ""},
	{"bridge", "input", ""},
	{"bridge", "forward", ""},
	{"bridge", "forward", ""},
	{"bridge", "output", ""},
	{"bridge", "postrouting", ""},
	{"inet", "prerouting", ""},
	{"inet", "input", ""},
	{"inet", "forward", ""},
	{"inet", "postrouting", ""},
	{"inet", "output", ""},
	{"netdev", "ingress", "p0"},
	{"netdev", "ingress", "br0"},
	{"netdev", "ingress", "e2"},
	{"netdev", "egress", "e2"},
	{"netdev", "egress", "p1"},
	{"netdev", "egress", "br0"},
}

// match is a random condition that a chain of a place can have.
func match(r *rand.Rand, family, hook string) string {
	in := hook != "output" && !(family == "bridge" && hook == "postrouting") || family == "inet" && hook == "postrouting"
	out := hook == "forward" || hook == "output" || hook == "postrouting" || hook == "egress"
	list := []string{
		"ip saddr 10.0.0.0/16", "ip daddr 203.0.113.0/24", "ip saddr != 10.1.0.0/16", "ip6 saddr 2001:db8:1::/48", "ip6 daddr 2001:db8::/64",
		"tcp dport 22", "tcp dport != 22", "udp dport { 21, 23 }", "th dport 20-22", "meta l4proto tcp", "meta l4proto { icmp, ipv6-icmp }",
		"ip protocol udp", "ip6 nexthdr tcp", "icmp type echo-request", "icmpv6 type echo-request", "ip ttl < 63", "ip6 hoplimit { 61, 63 }",
		"meta length < 60", "meta length 74", "meta mark 1", "meta mark != 0", "meta protocol ip", "meta pkttype host", "meta pkttype other",
		"@nh,0,4 4", "tcp flags syn", "ip dscp 0",
	}
	link := []string{"ether type ip6", "ether daddr & ff:ff:00:00:00:00 == 02:aa:00:00:00:00", "ether saddr 02:00:00:00:00:b0", "ether saddr & ff:ff:00:00:00:00 == 02:01:00:00:00:00", "@ll,96,16 0x0800", "ether saddr != 02:00:00:00:00:07", "ether saddr & ff:00:00:00:00:00 == 02:00:00:00:00:00"}
	if family != "inet" || hook == "input" || hook == "forward" || hook == "prerouting" || hook == "postrouting" {
		list = append(list, link...)
	}
	if family == "inet" {
		list = append(list, "ct state new", "ct state invalid", "meta nfproto ipv4")
	}
	if in {
		list = append(list, `iifname "p0"`, `iifname "br0"`, `iifname { "p1", "e2" }`, `iifname != "p*"`, "meta iiftype ether", "meta iifgroup 0", "meta iifgroup 3", `meta iifkind "bridge"`)
	}
	if out {
		list = append(list, `oifname "p1"`, `oifname "br0"`, `oifname { "p0", "e2" }`, `oif != "e2"`, "meta oifgroup 3", `meta oifkind "veth"`)
	}
	return list[r.IntN(len(list))]
}

// bridgeRules is a random ruleset over all places.
func bridgeRules(r *rand.Rand) string {
	var b strings.Builder
	for i, p := range places {
		if r.IntN(3) == 0 {
			continue
		}
		policy, dev := "accept", ""
		if r.IntN(12) == 0 {
			policy = "drop"
		}
		if p.device != "" {
			dev = " device " + p.device
		}
		prio := []int{-250, -10, -2, -1, 0, 1, 10, 250}[r.IntN(8)]
		fmt.Fprintf(&b, "table %s t%d {\n chain sub {\n  %s drop\n  meta mark set 1\n }\n chain c {\n  type filter hook %s%s priority %d; policy %s;\n", p.family, i, match(r, p.family, ""), p.hook, dev, prio, policy)
		for range 1 + r.IntN(4) {
			fmt.Fprintf(&b, "  %s ", match(r, p.family, p.hook))
			if r.IntN(3) == 0 {
				b.WriteString(match(r, p.family, p.hook) + " ")
			}
			b.WriteString([]string{"accept", "drop", "drop", "meta mark set 1", "meta mark set 2 accept", "jump sub", "goto sub", "return"}[r.IntN(8)] + "\n")
		}
		b.WriteString(" }\n}\n")
	}
	return b.String()
}

// loadTolerant leaves out what nft refuses.
func (l *bridgeLab) loadTolerant(script string) (string, error) {
	for {
		err := l.loadText(script + bridgeRecorder)
		if err == nil {
			return script, nil
		}
		lines := strings.Split(script, "\n")
		drop := map[int]bool{}
		for _, m := range lineOf.FindAllStringSubmatch(err.Error(), -1) {
			n, _ := strconv.Atoi(m[1])
			if n -= 2; n >= 0 && n < len(lines) && strings.HasPrefix(lines[n], "  ") && !strings.Contains(lines[n], "hook") {
				drop[n] = true
			}
		}
		if len(drop) == 0 {
			return "", err
		}
		var kept []string
		for i, line := range lines {
			if !drop[i] {
				kept = append(kept, line)
			}
		}
		script = strings.Join(kept, "\n")
	}
}

// portRules are rules of x_tables that ask for the ports of bridges.
func portRules(r *rand.Rand) string {
	in := []string{"--physdev-in p0", "! --physdev-in p1", "--physdev-in p+", "--physdev-is-in", "! --physdev-is-in"}
	both := append([]string{"--physdev-is-bridged", "! --physdev-is-bridged", "--physdev-out p1", "! --physdev-out p0", "--physdev-is-out"}, in...)
	var b strings.Builder
	add := func(chain string, list []string) {
		for range r.IntN(3) {
			fmt.Fprintf(&b, "-A %s -m physdev %s %s-j %s\n", chain, list[r.IntN(len(list))], []string{"", "-p tcp ", "-p udp "}[r.IntN(3)], []string{"ACCEPT", "DROP"}[r.IntN(2)])
		}
	}
	b.WriteString("*mangle\n")
	add("PREROUTING", in)
	add("POSTROUTING", both)
	b.WriteString("COMMIT\n*filter\n")
	add("INPUT", in)
	add("FORWARD", both)
	b.WriteString("COMMIT\n")
	return b.String()
}

// bridgeExcuses are what may leave an answer open here: the port of a bridge that the
// question did not name, the order of chains and br_netfilter, a neighbour's address, and
// what only a question with all bytes says.
var (
	bridgeExcuses = append([]string{"iif", "oif", "what comes first on a bridge", "interface type", "interface kind", "interface group", "meta pkttype", "link header", "the port of a bridge"}, bytesOpen...)
	bytesOpen     = []string{"the question does not have", "packet length"}
)

// crossed counts what a round of packets gave.
type crossed struct{ verdicts, accepted, unknown int }

// round loads the rules of a seed, sends packets and lists those of which the model says
// otherwise.
func (l *bridgeLab) round(t *testing.T, seed uint64, round int) (n crossed, wrong []string) {
	r := rand.New(rand.NewPCG(seed, uint64(round)))
	calls := [2]int{r.IntN(2), r.IntN(2)}
	for i, key := range []string{"iptables", "ip6tables"} {
		l.host.Sysctl("net/bridge/bridge-nf-call-"+key, strconv.Itoa(calls[i]))
	}
	script, err := l.loadTolerant(bridgeRules(r))
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	for _, tool := range []string{"iptables-nft-restore", "ip6tables-nft-restore"} {
		if round%2 == 0 {
			break
		}
		text := portRules(r)
		c := l.host.Command(tool, "-n")
		c.Stdin = strings.NewReader(text)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s%s", tool, err, out, text)
		}
		script += "# " + text
	}
	if err := l.learnAll(); err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	cs := l.cross(r, 600)
	seen, err := l.fire(cs)
	if err != nil {
		return n, []string{err.Error()}
	}
packets:
	for i := range cs {
		c := &cs[i]
		q := c.question(r.IntN(2) == 0, uint32(i))
		v := l.space.Verdict(q, c.hook(), false)
		n.verdicts++
		if seen[i] {
			n.accepted++
		}
		why := strings.Join(append(slices.Clone(v.Needs), v.Unclear...), ", ")
		for _, e := range bridgeExcuses {
			if v.Verdict == reach.WordUnknown && strings.Contains(why, e) && (q.Raw == nil || !slices.Contains(bytesOpen, e)) {
				n.unknown++
				continue packets
			}
		}
		if v.Verdict != reach.WordUnknown && (v.Verdict == reach.WordAccept) == seen[i] {
			continue
		}
		var path strings.Builder
		for _, s := range l.space.Trace(q, c.hook(), false).Path {
			fmt.Fprintf(&path, "  %s %s %s: %s\n", s.Table, s.Hook, s.Rule, s.Result)
		}
		wrong = append(wrong, fmt.Sprintf("packet %d in %q out %q named %q ipv6 %v to %v, calls %v: kernel %v, model %s (%s)\n%s", i, c.in, c.out, c.named, c.IPv6, c.Dst, calls, seen[i], v.Verdict, why, path.String()))
	}
	if len(wrong) > 0 && os.Getenv("BRIDGE_SCRIPT") != "" {
		t.Log(script)
	}
	return n, wrong
}

// TestBridge compares packets that cross a bridge, or leave by egress chains.
func TestBridge(t *testing.T) {
	for _, p := range []string{"iptables-nft-restore", "ip6tables-nft-restore"} {
		testlab.RequireTool(t, p)
	}
	l := newBridgeLab(t)
	rounds := 60 // a fixed slice; make oracle asks for more
	if n, err := strconv.Atoi(os.Getenv("BRIDGE_ROUNDS")); err == nil {
		rounds = n
	}
	seed, _ := strconv.ParseUint(os.Getenv("ORACLE_SEED"), 10, 64)
	first, _ := strconv.Atoi(os.Getenv("BRIDGE_FIRST"))
	var all crossed
	for round := first; round < first+rounds && !t.Failed(); round++ {
		n, wrong := l.round(t, seed, round)
		if len(wrong) > 0 { // packets that were late the first time are no mismatch
			n, wrong = l.round(t, seed, round)
		}
		all = crossed{all.verdicts + n.verdicts, all.accepted + n.accepted, all.unknown + n.unknown}
		for _, w := range wrong[:min(len(wrong), 3)] {
			t.Errorf("round %d, %d wrong: %s", round, len(wrong), w)
		}
	}
	t.Logf("%d verdicts, %d accepted, %d unknown", all.verdicts, all.accepted, all.unknown)
	if all.accepted == 0 || all.accepted == all.verdicts {
		t.Error("that proves nothing")
	}
}
