package cli

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/logic/draft"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/testlab"
	"github.com/sixfence/sixfence/internal/testlab/hostview"
)

// listen opens TCP sockets in a namespace: ports on every address of both families, and
// ports6 on those of IPv6 alone.
func listen(t *testing.T, ns *testlab.NS, ports, ports6 []uint16) {
	t.Helper()
	ns.Do(func() {
		for i, p := range slices.Concat(ports, ports6) {
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = unix.Close(fd) })
			only := 0
			if i >= len(ports) {
				only = 1
			}
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
			if err := unix.Bind(fd, &unix.SockaddrInet6{Port: int(p)}); err != nil {
				t.Errorf("port %d: %v", p, err)
			}
			if err := unix.Listen(fd, 64); err != nil {
				t.Error(err)
			}
		}
	})
}

// gets tells whether a connection from an address of a namespace comes about.
func gets(t *testing.T, ns *testlab.NS, from, to string, port uint16) (ok bool) {
	t.Helper()
	ns.Do(func() {
		d := net.Dialer{Timeout: 3 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, FallbackDelay: -1}
		c, err := d.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr(to), port).String())
		if ok = err == nil; ok {
			_ = c.Close()
		}
	})
	return ok
}

// attempt is a connection that may come about.
type attempt struct {
	ns       *testlab.NS
	from, to string
	port     uint16
}

// all makes attempts, all at once: what is dropped takes its time.
func all(t *testing.T, list []attempt) map[attempt]bool {
	t.Helper()
	got := make([]bool, len(list))
	var g sync.WaitGroup
	for i, a := range list {
		g.Go(func() { got[i] = gets(t, a.ns, a.from, a.to, a.port) })
	}
	g.Wait()
	out := map[attempt]bool{}
	for i, a := range list {
		out[a] = got[i]
	}
	return out
}

// drawn is what init writes of a namespace, and the plan of that.
func drawn(t *testing.T, ns *testlab.NS, o draft.Options) (string, *draft.Draft, change.Plan) {
	t.Helper()
	s := hostview.Snapshot(t, ns)
	n := &s.Namespaces[0]
	d, err := draft.New(s, n, o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := draftText(d)
	if err != nil {
		t.Fatal(err)
	}
	p := plan.New(d.Intent, s, plan.Options{Namespace: n.Name, Decode: hostview.Decode})
	return string(b), d, p
}

// load puts the rules of a plan into a namespace.
func load(t *testing.T, ns *testlab.NS, p *change.Plan) {
	t.Helper()
	i := slices.IndexFunc(p.Steps, func(s change.Step) bool { return s.Kind == change.Table })
	if i < 0 {
		t.Fatalf("the plan has no rules: %+v", p.Refusals)
	}
	f := filepath.Join(t.TempDir(), "rules.nft")
	if err := os.WriteFile(f, []byte(p.Steps[i].After.Text), 0o600); err != nil {
		t.Fatal(err)
	}
	ns.Run(testlab.RequireTool(t, "nft"), "-f", f)
}

func nft(t *testing.T, ns *testlab.NS, text string) {
	t.Helper()
	f := filepath.Join(t.TempDir(), "others.nft")
	if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ns.Run(testlab.RequireTool(t, "nft"), "-f", f)
}

// uplinked is a host behind a far end that also has an address from afar.
func uplinked(t *testing.T, hint string) (host, far *testlab.NS) {
	t.Helper()
	host, far = testlab.NewNS(t, hint+"h"), testlab.NewNS(t, hint+"f")
	testlab.Link(host, "eth0", far, "eth0")
	for ns, a := range map[*testlab.NS]string{host: "10", far: "20"} {
		ns.IP("address", "add", "2001:db8:1::"+a+"/64", "dev", "eth0", "nodad")
		ns.IP("address", "add", "192.0.2."+a+"/24", "dev", "eth0")
	}
	far.IP("address", "add", "198.51.100.9/32", "dev", "lo")
	far.IP("address", "add", "2001:db8:aa::9/128", "dev", "lo", "nodad")
	host.IP("route", "add", "default", "via", "192.0.2.20")
	host.IP("-6", "route", "add", "default", "via", "2001:db8:1::20")
	return host, far
}

// TestMirrorOnTheWire: a host whose filter knows IPv4 alone. With --mirror-ipv4 a
// connection over IPv6 comes about where one over IPv4 does, and nowhere else: but for an
// address of a link, of which nobody knows what it is over IPv6.
func TestMirrorOnTheWire(t *testing.T) {
	host, far := uplinked(t, "mirror")
	nft(t, host, `table ip filter {
	set banned { type ipv4_addr; elements = { 192.0.2.66 } }
	chain input { type filter hook input priority 0; policy drop;
		iif lo accept
		ct state established,related accept
		ip saddr @banned drop
		tcp dport 22 ip saddr 192.0.2.0/24 accept
		tcp dport 80 accept
		tcp dport 25 limit rate 2000/second burst 500 packets accept
		tcp dport 5432 ip saddr 192.0.2.20 accept
		tcp dport 8443 ip saddr 198.51.100.0/24 accept
		tcp dport 514 ip saddr 192.0.0.0/16 accept
	}
}
`)
	both := []uint16{22, 25, 80, 514, 5432, 8443, 9200, 11211}
	listen(t, host, both, []uint16{6379})
	const near4, near6, far4, far6, host4, host6 = "192.0.2.20", "2001:db8:1::20", "198.51.100.9", "2001:db8:aa::9", "192.0.2.10", "2001:db8:1::10"
	testlab.Eventually(t, 20*time.Second, "both families to work", func() bool {
		return gets(t, far, near4, host4, 80) && gets(t, far, far4, host4, 80) && gets(t, far, near6, host6, 9200) && gets(t, far, far6, host6, 9200)
	})
	plain, d, _ := drawn(t, host, draft.Options{})
	for _, want := range []string{"from: [\"192.0.2.0/24\", \"::/0\"]", "keep 192.0.2.66/32 out", "LOOK TWICE"} {
		if !strings.Contains(folded.ReplaceAllString(plain, " "), want) {
			t.Errorf("no %q in\n%s", want, plain)
		}
	}
	if todo := strings.Join(d.Open, "\n"); !strings.Contains(todo, "look twice: over IPv6 tcp/22, tcp/514") {
		t.Errorf("to do: %s", todo)
	}
	text, _, p := drawn(t, host, draft.Options{MirrorIPv4: true})
	if len(p.Refusals) > 0 {
		t.Fatalf("%+v\n%s", p.Refusals, text)
	}
	for _, want := range []string{"What 192.0.2.20/32 is over IPv6 is not known", "What 198.51.100.0/24 is over IPv6 is not known", "The intent has no rate for services", "- tcp/6379 (cli.test): IPv4 is closed to it"} {
		if !strings.Contains(folded.ReplaceAllString(text, " "), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	load(t, host, &p)
	var list []attempt
	for _, port := range append(both, 6379) {
		for _, from := range []string{near4, far4} {
			list = append(list, attempt{far, from, host4, port})
		}
		for _, from := range []string{near6, far6} {
			list = append(list, attempt{far, from, host6, port})
		}
	}
	got := all(t, list)
	for _, port := range append(both, 6379) {
		for _, c := range [][2]string{{near4, near6}, {far4, far6}} {
			four, six := got[attempt{far, c[0], host4, port}], got[attempt{far, c[1], host6, port}]
			known := port != 5432 && port != 8443
			if known && four != six || !known && six {
				t.Errorf("port %d: from %s %v, from %s %v", port, c[0], four, c[1], six)
			}
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestDraftOpensNoOtherWay: what is reached by one interface is opened on that one, what
// rules pass on stays published, and what forwards goes on to.
func TestDraftOpensNoOtherWay(t *testing.T) {
	host, far := uplinked(t, "ways")
	lan := testlab.NewNS(t, "waysl")
	testlab.Link(host, "lan0", lan, "eth0")
	for ns, a := range map[*testlab.NS]string{host: "1", lan: "2"} {
		ns.IP("address", "add", "2001:db8:2::"+a+"/64", "dev", map[bool]string{true: "lan0", false: "eth0"}[ns == host], "nodad")
		ns.IP("address", "add", "10.2.0."+a+"/24", "dev", map[bool]string{true: "lan0", false: "eth0"}[ns == host])
	}
	lan.IP("route", "add", "default", "via", "10.2.0.1")
	lan.IP("-6", "route", "add", "default", "via", "2001:db8:2::1")
	host.Sysctl("net/ipv4/ip_forward", "1")
	host.Sysctl("net/ipv6/conf/all/forwarding", "1")
	nft(t, host, `table inet fw {
	chain input { type filter hook input priority 0; policy drop;
		ct state established,related accept
		meta l4proto { icmp, icmpv6 } accept
		iifname "lan0" tcp dport { 22, 53 } accept
		tcp dport 443 accept
	}
}
table inet nodeports {
	chain pre { type nat hook prerouting priority dstnat;
		meta nfproto ipv4 fib daddr type local tcp dport 30080 dnat ip to 10.2.0.2:8080
		meta nfproto ipv6 fib daddr type local tcp dport 30080 dnat ip6 to [2001:db8:2::2]:8080
	}
}
`)
	listen(t, host, []uint16{22, 53, 443}, nil)
	listen(t, lan, []uint16{8080}, nil)
	var list []attempt
	for _, port := range []uint16{22, 53, 443, 30080} {
		list = append(list, attempt{far, "192.0.2.20", "192.0.2.10", port}, attempt{far, "2001:db8:1::20", "2001:db8:1::10", port}, attempt{far, "198.51.100.9", "192.0.2.10", port}, attempt{far, "2001:db8:aa::9", "2001:db8:1::10", port})
		if port != 30080 { // back to itself, by the host: whether that works is a matter of NAT
			list = append(list, attempt{lan, "10.2.0.2", "10.2.0.1", port}, attempt{lan, "2001:db8:2::2", "2001:db8:2::1", port})
		}
	}
	testlab.Eventually(t, 20*time.Second, "the ways to work", func() bool {
		return gets(t, lan, "2001:db8:2::2", "2001:db8:2::1", 22) && gets(t, far, "2001:db8:aa::9", "2001:db8:1::10", 30080) && gets(t, far, "198.51.100.9", "192.0.2.10", 30080)
	})
	was := all(t, list)
	text, d, p := drawn(t, host, draft.Options{})
	if len(p.Refusals) > 0 {
		t.Fatalf("%+v\n%s", p.Refusals, text)
	}
	on := map[string][]string{}
	for _, s := range d.Intent.Services {
		for _, x := range s.Ports {
			on[x] = append(on[x], s.Interfaces...)
		}
	}
	for _, x := range []string{"tcp/22", "tcp/53"} {
		if !slices.Equal(on[x], []string{"lan0"}) {
			t.Errorf("%s is opened on %q", x, on[x])
		}
	}
	if x, ok := on["tcp/30080"]; !ok || x != nil && !slices.Contains(x, "eth0") {
		t.Errorf("the published port is on %q", x)
	}
	if f := d.Intent.Forwarding; f.IPv4 == nil || !*f.IPv4 || f.IPv6 == nil || !*f.IPv6 || !f.Unmanaged {
		t.Errorf("forwarding: %+v", f)
	}
	for _, s := range p.Steps {
		if strings.HasSuffix(s.Target, "/ip_forward") || strings.HasSuffix(s.Target, "/forwarding") {
			t.Errorf("what forwards is switched: %s %s", s.Target, s.After.Text)
		}
	}
	if !strings.Contains(strings.Join(d.Open, "\n"), "say whether this host is a router") {
		t.Errorf("to do: %q", d.Open)
	}
	load(t, host, &p)
	now := all(t, list)
	for k, v := range was {
		if now[k] != v {
			t.Errorf("%d from %s: was %v, is %v", k.port, k.from, v, now[k])
		}
	}
	// And alone, without the filter that was there.
	host.Run(testlab.RequireTool(t, "nft"), "delete", "table", "inet", "fw")
	for k, v := range all(t, list) {
		if v && !was[k] {
			t.Errorf("%d from %s: opened, where nobody got in", k.port, k.from)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestDraftOfAnIntentThatAsksForOthers: a DHCPv6 client beside SLAAC is heard, and a
// lifetime that no router gave is said.
func TestDraftOfAnIntentThatAsksForOthers(t *testing.T) {
	t.Parallel()
	s := vm(slaac, func(_ *fact.Snapshot, n *fact.Namespace) {
		n.Sockets = fact.Value(append(value(n.Sockets), fact.Socket{Family: "ipv6", Protocol: "udp", State: "unconnected", Local: netip.MustParseAddr("::"), Port: 546, V6Only: fact.Value(true)}))
	})
	d, err := draft.New(s, &s.Namespaces[0], draft.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if f := d.Intent.Interfaces["eth0"]; f.Addressing != intent.SLAAC || f.DHCPv6Servers == nil {
		t.Errorf("%+v", f)
	}
	if b, err := draftText(d); err != nil || !strings.Contains(string(b), "dhcpv6Servers: []") {
		t.Errorf("%v\n%s", err, b)
	}
	p := plan.New(d.Intent, s, plan.Options{})
	if !slices.ContainsFunc(p.Steps, func(s change.Step) bool {
		return s.Kind == change.Table && strings.Contains(s.After.Text, "udp dport 546")
	}) {
		t.Error("its answers are dropped")
	}
}
