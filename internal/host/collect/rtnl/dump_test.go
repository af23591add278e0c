package rtnl

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	vnetlink "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// message assembles a netlink message.
func message(typ, flags uint16, seq, port uint32, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(headerSize+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, port)
	b = append(b, body...)
	return append(b, make([]byte, align(len(b))-len(b))...)
}

func TestScan(t *testing.T) {
	t.Parallel()
	const seq, port = 7, 99
	code := func(e int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(e)) }
	link := message(unix.RTM_NEWLINK, unix.NLM_F_MULTI, seq, port, make([]byte, 16))
	for name, c := range map[string]struct {
		in   []byte
		want scanned
	}{
		"part":              {slices.Concat(link, link), scanned{messages: 2}},
		"end":               {slices.Concat(link, message(unix.NLMSG_DONE, 0, seq, port, code(0))), scanned{messages: 1, done: true}},
		"changed":           {message(unix.RTM_NEWLINK, unix.NLM_F_DUMP_INTR, seq, port, nil), scanned{messages: 1, changed: true}},
		"changed at end":    {slices.Concat(link, message(unix.NLMSG_DONE, unix.NLM_F_DUMP_INTR, seq, port, code(0))), scanned{messages: 1, done: true, changed: true}},
		"refused":           {message(unix.NLMSG_ERROR, 0, seq, port, code(-int32(unix.EPERM))), scanned{done: true, errno: unix.EPERM}},
		"failed at end":     {message(unix.NLMSG_DONE, 0, seq, port, code(-int32(unix.EOPNOTSUPP))), scanned{done: true, errno: unix.EOPNOTSUPP}},
		"of an old request": {message(unix.NLMSG_ERROR, 0, seq-1, port, code(-1)), scanned{}},
		"for another port":  {message(unix.NLMSG_DONE, 0, seq, port+1, code(0)), scanned{}},
		"empty":             {nil, scanned{}},
	} {
		if got := scan(c.in, seq, port); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	for name, b := range map[string][]byte{
		"too long":  append(binary.NativeEndian.AppendUint32(nil, 4096), make([]byte, 12)...),
		"too short": append(binary.NativeEndian.AppendUint32(nil, 3), make([]byte, 12)...),
	} {
		if got := scan(b, seq, port); got.err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestForgedMessage lets another socket of the namespace send to ours, as the
// owner of a user namespace may.
func TestForgedMessage(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "forged")
	n.Do(func() {
		c := &conn{ask: asker(), budget: budget(), buf: make([]byte, receiveBuffer)}
		defer c.close()
		if err := c.open(); err != nil {
			t.Error(err)
			return
		}
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		body := make([]byte, unix.SizeofIfInfomsg)
		body[4] = 66
		body = append(body, 8, 0, unix.IFLA_IFNAME, 0, 'e', 'v', 'l', 0)
		// The first request of a connection has a sequence number the sender
		// cannot know; forge a range of them.
		forged := 0
		for seq := range uint32(8) {
			for _, m := range [][]byte{message(unix.RTM_NEWLINK, unix.NLM_F_MULTI, seq, c.nl.PID(), body), message(unix.NLMSG_DONE, unix.NLM_F_MULTI, seq, c.nl.PID(), make([]byte, 4))} {
				if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: c.nl.PID()}); err != nil {
					t.Errorf("send: %v", err)
				} else {
					forged++
				}
			}
		}
		raw, err := c.nl.SyscallConn()
		if err != nil {
			t.Error(err)
			return
		}
		for range forged / 2 {
			if got, err := c.receive(raw.Read); got != 0 || err != nil {
				t.Errorf("a forged datagram was taken: %d, %v", got, err)
			}
		}
		ans := c.dump(request{what: "links", name: "RTM_GETLINK", typ: unix.RTM_GETLINK, body: linkRequest()})
		count := 0
		for range ans.messages(unix.RTM_NEWLINK) {
			count++
		}
		if count != 1 || ans.gap != nil || ans.errno != 0 {
			t.Errorf("%d links (want lo), %v %v", count, ans.gap, ans.errno)
		}
	})
}

// TestChangeWhileReading keeps changing a namespace that is larger than one
// datagram. Every reading must be whole or a Gap.
func TestChangeWhileReading(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "change")
	const bridges = 80
	var batch strings.Builder
	for i := range bridges {
		fmt.Fprintf(&batch, "link add br%d type bridge\n", i)
	}
	file := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	n.IP("-batch", file)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = n.Command("sh", "-c", "ip link add flip type bridge; ip link del flip").Run()
			}
		}
	}()
	whole, repeated := 0, 0
	for start := time.Now(); whole < 20 || repeated == 0 && time.Since(start) < 20*time.Second; {
		a := ask.New(nil, true)
		var ans answer
		n.Do(func() {
			c := &conn{ask: a, budget: budget(), buf: make([]byte, receiveBuffer)}
			defer c.close()
			ans = c.dump(request{what: "links", name: "RTM_GETLINK", typ: unix.RTM_GETLINK, body: linkRequest()})
		})
		repeated += len(a.Log()) - 1
		ns := fact.Namespace{Name: "lab"}
		(&Dump{links: ans}).Decode(&ns)
		links, ok := ns.Links.Get()
		if !ok {
			if g, _ := ns.Links.Gap(); g.Reason != fact.Truncated {
				t.Errorf("gap: %v", g)
			}
			continue
		}
		whole++
		names := map[string]bool{}
		for _, l := range links {
			names[l.Name] = true
		}
		for i := range bridges {
			if !names[fmt.Sprintf("br%d", i)] {
				t.Errorf("br%d is missing from a reading that claims to be whole", i)
			}
		}
	}
	close(stop)
	<-stopped
	if repeated == 0 {
		t.Error("no dump was interrupted: nothing was tested")
	}
}

// TestKeepsChanging changes a long list as fast as it can: sooner or later
// maxTries dumps in a row are interrupted, and the fact is a Gap.
func TestKeepsChanging(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "change")
	const addresses = 3000
	var batch strings.Builder
	for i := range addresses {
		fmt.Fprintf(&batch, "addr add 10.0.%d.%d/32 dev lo\n", i>>8, i&255)
	}
	file := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	n.IP("-batch", file)
	stop, stopped := make(chan struct{}), make(chan struct{})
	defer func() { close(stop); <-stopped }()
	go func() {
		defer close(stopped)
		n.Do(func() {
			h, err := vnetlink.NewHandle()
			if err != nil {
				t.Error(err)
				return
			}
			defer h.Close()
			lo, err := h.LinkByName("lo")
			if err != nil {
				t.Error(err)
				return
			}
			flip, _ := vnetlink.ParseAddr("192.0.2.1/32")
			for {
				select {
				case <-stop:
					return
				default:
					_ = h.AddrAdd(lo, flip)
					_ = h.AddrDel(lo, flip)
				}
			}
		})
	}()
	testlab.Eventually(t, 30*time.Second, "a list that never stood still", func() bool {
		ns := collect(n)
		list, ok := ns.Addresses.Get()
		if ok {
			if len(list) < addresses {
				t.Errorf("%d addresses in a reading that claims to be whole", len(list))
			}
			return false
		}
		g, _ := ns.Addresses.Gap()
		if g.Reason != fact.Truncated || !strings.Contains(g.What, "changed while") {
			t.Errorf("gap: %v", g)
		}
		if ns.Links.State() != fact.StateValue {
			t.Errorf("the links were not read: %v", ns.Links.State())
		}
		return true
	})
}

// TestRefusals maps what the kernel answers to what a control may conclude.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v4, v6 answer
		state  fact.State
		reason fact.Reason
	}{
		{answer{}, answer{}, fact.StateValue, ""},
		{answer{}, answer{errno: unix.EAFNOSUPPORT}, fact.StateValue, ""}, // no IPv6: the IPv4 half is all there is
		{answer{errno: unix.EOPNOTSUPP}, answer{errno: unix.EOPNOTSUPP}, fact.StateUnsupported, ""},
		{answer{}, answer{errno: unix.EPERM}, fact.StateGap, fact.Permission},
		{answer{errno: unix.EACCES}, answer{}, fact.StateGap, fact.Permission},
		{answer{}, answer{errno: unix.ENOMEM}, fact.StateGap, fact.NotCollected},
		{answer{gap: &fact.Gap{Reason: fact.Truncated}}, answer{}, fact.StateGap, fact.Truncated},
		{answer{}, answer{datagrams: [][]byte{message(unix.RTM_NEWRULE, 0, 1, 1, []byte{unix.AF_INET6})}}, fact.StateGap, fact.ParseGap},
	} {
		ns := fact.Namespace{Name: "lab"}
		d := &Dump{rules4: c.v4, rules6: c.v6}
		d.Decode(&ns)
		g, _ := ns.Rules.Gap()
		if ns.Rules.State() != c.state || g.Reason != c.reason {
			t.Errorf("%+v: %v %v", c, ns.Rules.State(), g)
		}
	}
}

// TestRequestLog makes sure that nothing but dumps is asked: no request names a
// kind, so none can load a module.
func TestRequestLog(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "log")
	n.IP("link", "add", "v0", "type", "veth", "peer", "name", "v1")
	n.Run("tc", "qdisc", "add", "dev", "v0", "clsact")
	a := ask.New(func(string) bool { return false }, true)
	n.Do(func() { Read(a, budget()) })
	seen := map[string]int{}
	for _, e := range a.Log() {
		seen[e.Op+" "+e.What]++
	}
	want := map[string]int{
		"netlink RTM_GETLINK": 1, "netlink RTM_GETADDR": 1, "netlink RTM_GETRULE ipv4": 1, "netlink RTM_GETRULE ipv6": 1,
		"netlink RTM_GETNEIGHTBL": 1, "netlink RTM_GETMULTICAST": 1, "netlink RTM_GETQDISC": 1, "netlink RTM_GETTFILTER": 1,
		"netlink RTM_GETNEIGH": 1, "netlink RTM_GETNEIGH proxy": 1, "netlink RTM_GETNEIGH ipv4": 1, "netlink RTM_GETNEXTHOP": 1,
		"netlink RTM_GETROUTE ipv4": 1, "netlink RTM_GETROUTE ipv6": 1, "bpf BPF_PROG_QUERY tcx ingress": 3,
	}
	for k, v := range seen {
		if want[k] == 0 {
			t.Errorf("%s was asked", k)
		}
		if v != want[k] && !strings.Contains(k, "RTM_GET") { // a dump may be repeated
			t.Errorf("%s: %d times, want %d", k, v, want[k])
		}
	}
	for k := range want {
		if seen[k] == 0 {
			t.Errorf("%s was not asked", k)
		}
	}
}

// FuzzDecode feeds the same bytes to every decoder, as messages of every type.
func FuzzDecode(f *testing.F) {
	f.Add(recorded(f))
	if os.Geteuid() == 0 {
		n := testlab.NewNS(f, "fuzz")
		n.IP("link", "add", "v0", "type", "veth", "peer", "name", "v1")
		n.IP("link", "set", "v0", "up")
		n.IP("-6", "route", "add", "2001:db8::/32", "nexthop", "via", "fe80::1", "dev", "v0", "nexthop", "via", "fe80::2", "dev", "v0")
		n.IP("-6", "rule", "add", "uidrange", "1-2", "table", "7")
		n.IP("nexthop", "add", "id", "1", "blackhole")
		var d *Dump
		n.Do(func() { d = Read(asker(), budget()) })
		for _, a := range []answer{d.links, d.addresses, d.routes4, d.routes6, d.nexthops, d.rules6, d.table, d.multicast, d.qdiscs} {
			for _, b := range a.datagrams {
				f.Add(b)
			}
		}
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		ans := func() answer { return answer{what: "x", datagrams: [][]byte{b}} }
		d := &Dump{
			links: ans(), addresses: ans(), routes4: ans(), routes6: ans(), nexthops: ans(), rules4: ans(), rules6: ans(), neigh: ans(), proxy: ans(),
			table: ans(), multicast: ans(), qdiscs: ans(),
		}
		ns := fact.Namespace{Name: "lab"}
		d.Decode(&ns)
		routes, _ := ns.Routes.Get()
		hops := 0
		for _, r := range routes {
			if !r.Dst.IsValid() {
				t.Errorf("route without destination: %+v", r)
			}
			hops += len(r.NextHops)
		}
		if hops > len(b)+maxResolved {
			t.Errorf("%d bytes became %d next hops", len(b), hops)
		}
		addrs, _ := ns.Addresses.Get()
		for _, a := range addrs {
			if !a.Prefix.IsValid() {
				t.Errorf("address without prefix: %+v", a)
			}
		}
		scan(b, 1, 1)
		// The same bytes as the body of one message of each type.
		for _, f := range []func(){
			func() { d.link(b) }, func() { decodeAddress(b, 0) }, func() { decodeRoute(b, unix.AF_INET6, decodeNexthops(&answer{})) },
			func() { decodeRule(b, unix.AF_INET6) }, func() { decodeNeighbour(b, unix.AF_INET6) }, func() { decodeMembership(b) },
			func() { decodeTable(b, &fact.NeighbourTable{}) }, func() { decodeParms(b) }, func() { decodeMultipath(b) },
		} {
			f()
		}
		for _, kind := range []string{"sit", "gre", "vti", "vxlan", "geneve", "bareudp", "amt", "tun"} {
			decodeTunnel(kind, b)
		}
	})
}

func FuzzIGMP6(f *testing.F) {
	f.Add([]byte("1    lo              ff020000000000000000000000000001     1 0000000C 0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, _ := (&fileAnswer{data: b}).decode("").Get()
		for _, m := range list {
			if !m.Group.IsValid() {
				t.Errorf("%+v", m)
			}
		}
	})
}

// BenchmarkRead is a namespace of 20 interfaces with two addresses each.
func BenchmarkRead(b *testing.B) {
	n := testlab.NewNS(b, "bench")
	for i := range 10 {
		n.IP("link", "add", fmt.Sprintf("a%d", i), "type", "veth", "peer", "name", fmt.Sprintf("b%d", i))
		n.IP("link", "set", fmt.Sprintf("a%d", i), "up")
		n.IP("link", "set", fmt.Sprintf("b%d", i), "up")
		n.IP("addr", "add", fmt.Sprintf("2001:db8:%d::1/64", i), "dev", fmt.Sprintf("a%d", i))
	}
	time.Sleep(100 * time.Millisecond)
	n.Do(func() {
		b.ReportAllocs()
		for b.Loop() {
			d := Read(asker(), budget())
			ns := fact.Namespace{Name: "lab"}
			d.Decode(&ns)
			if l, _ := ns.Links.Get(); len(l) != 21 {
				b.Errorf("%d links", len(l))
			}
		}
	})
}

// BenchmarkDecodeRoutes decodes 10,000 IPv6 routes with all usual attributes.
func BenchmarkDecodeRoutes(b *testing.B) {
	attr := func(typ uint16, v []byte) netlink.Attribute { return netlink.Attribute{Type: typ, Data: v} }
	u32 := func(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		attr(unix.RTA_TABLE, u32(254)), attr(unix.RTA_DST, make([]byte, 16)), attr(unix.RTA_PRIORITY, u32(1024)), attr(unix.RTA_OIF, u32(2)),
		attr(unix.RTA_GATEWAY, make([]byte, 16)), attr(unix.RTA_CACHEINFO, make([]byte, 32)), attr(unix.RTA_PREF, []byte{0}),
	})
	if err != nil {
		b.Fatal(err)
	}
	hdr := make([]byte, unix.SizeofRtMsg)
	hdr[0], hdr[1] = unix.AF_INET6, 64
	one := message(unix.RTM_NEWROUTE, unix.NLM_F_MULTI, 1, 1, append(hdr, attrs...))
	var all []byte
	const routes = 10000
	for range routes {
		all = append(all, one...)
	}
	b.ReportAllocs()
	for b.Loop() {
		ns := fact.Namespace{}
		(&Dump{routes6: answer{datagrams: [][]byte{all}}}).Decode(&ns)
		if r, _ := ns.Routes.Get(); len(r) != routes {
			b.Fatalf("%d routes", len(r))
		}
	}
}
