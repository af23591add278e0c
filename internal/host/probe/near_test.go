package probe

import (
	"net"
	"net/netip"
	"testing"

	model "github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestNear: one router between is told from two, and from a gateway that refuses in the name
// of the target.
func TestNear(t *testing.T) {
	t.Parallel()
	// client - r1 - r2 - target, with the addresses of r2's link to r1 as targets, too
	names := []string{"nrc", "nra", "nrb", "nrt"}
	var ns []*testlab.NS
	for _, n := range names {
		x := testlab.NewNS(t, n)
		for _, k := range []string{"all", "default"} {
			x.Sysctl("net/ipv6/conf/"+k+"/accept_dad", "0")
			x.Sysctl("net/ipv6/conf/"+k+"/router_solicitations", "0")
		}
		x.Sysctl("net/ipv4/ip_forward", "1")
		x.Sysctl("net/ipv6/conf/all/forwarding", "1")
		ns = append(ns, x)
	}
	for i, link := range []struct{ a, b, four, six string }{{"x0", "y0", "192.0.2.", "2001:db8:1::"}, {"x1", "y1", "198.51.100.", "2001:db8:2::"}, {"x2", "y2", "203.0.113.", "2001:db8:3::"}} {
		testlab.Link(ns[i], link.a, ns[i+1], link.b)
		ns[i].IP("addr", "add", link.four+"1/24", "dev", link.a)
		ns[i+1].IP("addr", "add", link.four+"2/24", "dev", link.b)
		ns[i].AddAddr(link.a, link.six+"1/64")
		ns[i+1].AddAddr(link.b, link.six+"2/64")
	}
	route := func(n *testlab.NS, four, six string) {
		n.IP("route", "add", "default", "via", four)
		n.IP("-6", "route", "add", "default", "via", six)
	}
	route(ns[0], "192.0.2.2", "2001:db8:1::2")
	route(ns[1], "198.51.100.2", "2001:db8:2::2")
	route(ns[2], "198.51.100.1", "2001:db8:2::1")
	route(ns[3], "203.0.113.1", "2001:db8:3::1")
	for _, n := range ns[2:] {
		n.Do(func() {
			l, err := net.Listen("tcp", ":22")
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = l.Close() })
		})
	}
	// Of the far target, the gateway refuses what is for port 23, in its name.
	ns[1].Run("nft", "table inet f { chain f { type filter hook forward priority 0; tcp dport 23 reject with tcp reset; }; }")
	for _, c := range []struct {
		addr, ports string
		want        bool
	}{
		{"198.51.100.2", "tcp/22", true},
		{"2001:db8:2::2", "tcp/22", true},
		{"198.51.100.2", "echo", true},
		{"2001:db8:2::2", "echo", true},
		{"203.0.113.2", "tcp/22", false},
		{"2001:db8:3::2", "tcp/22", false},
		{"203.0.113.2", "echo", false},
		{"2001:db8:3::2", "echo", false},
		{"203.0.113.2", "tcp/23", false},
		{"2001:db8:3::2", "tcp/23", false},
		{"192.0.2.2", "tcp/22", false}, // on the link: no router is between
	} {
		var s model.Spec
		if err := s.Parse(c.ports); err != nil {
			t.Fatal(err)
		}
		ns[0].Do(func() {
			p, err := Open(Options{Target: c.addr, Addr: netip.MustParseAddr(c.addr), Spec: &s})
			if err != nil {
				t.Error(err)
				return
			}
			defer p.Close()
			if err := p.Run(t.Context()); err != nil || p.Found.Vantage.Near != c.want || !p.Found.Complete {
				t.Errorf("%s %s: near %v, %v", c.addr, c.ports, p.Found.Vantage.Near, err)
			}
		})
	}
}
