package probe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/testlab"
)

// row is three routers in a row, with the rates for errors that Linux has.
func row(t *testing.T, four bool, r1, r2, r3, host string) (us, target *testlab.NS, addr netip.Addr) {
	ns := []*testlab.NS{newHost(t, "trc"), newHost(t, "tr1"), newHost(t, "tr2"), newHost(t, "tr3"), newHost(t, "trt")}
	ip := []string{"-6"}
	pre := func(link, n int) string { return fmt.Sprintf("2001:db8:%d::%d", link, n) }
	size, all := "/64", "2001:db8::/32"
	if four {
		ip = []string{"-4"}
		pre = func(link, n int) string { return fmt.Sprintf("10.0.%d.%d", link, n) }
		size, all = "/24", "10.0.0.0/8"
	}
	for i := range 4 { // link i+1 is between i and i+1
		testlab.Link(ns[i], "down0", ns[i+1], "up0")
		if four {
			ns[i].IP("addr", "add", pre(i+1, 1)+size, "dev", "down0")
			ns[i+1].IP("addr", "add", pre(i+1, 2)+size, "dev", "up0")
		} else {
			ns[i].AddAddr("down0", pre(i+1, 1)+size)
			ns[i+1].AddAddr("up0", pre(i+1, 2)+size)
		}
	}
	for i := range 4 {
		ns[i].IP(append(ip, "route", "add", all, "via", pre(i+1, 2))...)
		if i > 0 {
			ns[i].Sysctl("net/ipv4/ip_forward", "1")
			ns[i].Sysctl("net/ipv6/conf/all/forwarding", "1")
			for link := 1; link < i; link++ {
				ns[i].IP(append(ip, "route", "add", strings.Replace(pre(link, 0), "::0", "::", 1)+size, "via", pre(i, 1))...)
			}
		}
	}
	ns[4].IP(append(ip, "route", "add", all, "via", pre(4, 1))...)
	for i, text := range []string{r1, r2, r3, host} {
		if text != "" {
			rules(ns[i+1], t, text)
		}
	}
	ns[4].Do(func() {
		for _, p := range []string{"22", "5432"} {
			l, err := net.Listen("tcp", net.JoinHostPort("", p))
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = l.Close() })
		}
	})
	return ns[0], ns[4], netip.MustParseAddr(pre(4, 2))
}

func (r rowRun) from(t *testing.T) *model.Address {
	found := &model.Address{}
	r.us.Do(func() {
		p, err := Open(Options{Addr: r.addr, Spec: spec(t, r.ports...), Hops: &model.Spec{}, Chains: r.chains})
		if err != nil {
			t.Error(err)
			return
		}
		defer p.Close()
		ctx, stop := context.WithTimeout(context.Background(), 3*time.Minute)
		defer stop()
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
		found = p.Found
	})
	return found
}

type rowRun struct {
	us     *testlab.NS
	addr   netip.Addr
	ports  []string
	chains []model.Variant
}

// TestHops: the kernel of each router says when a hop limit is spent; the rules say where a
// packet dies.
func TestHops(t *testing.T) {
	t.Parallel()
	run, wait := beside(t)
	defer wait()
	lossy := "table inet l {\nchain c {\ntype filter hook forward priority -10;\nnumgen random mod 10 == 0 drop\n}\n}\n"
	frag := "ip6 nexthdr 44"
	for name, c := range map[string]struct {
		r1, r2, r3, host string
		chains           []model.Variant
		want             string // port: hops as links, R where it is reached, X refused; and where chains are eaten
	}{
		"all open":                    {want: "22 1 2 3 R4"},
		"dropped by the second":       {r2: drops("forward", "tcp dport 5432"), want: "22 1 2 3 R4, 5432 1 2"},
		"dropped before the second":   {r2: drops("prerouting", "tcp dport 5432"), want: "22 1 2 3 R4, 5432 1"},
		"dropped by the target":       {host: drops("input", "tcp dport 5432"), want: "22 1 2 3 R4, 5432 1 2 3"},
		"refused by the second":       {r2: "table inet f {\nchain c {\ntype filter hook forward priority 0;\ntcp dport 5432 reject with icmpx admin-prohibited\n}\n}\n", want: "22 1 2 3 R4, 5432 1 2 X3"},
		"reset by the third":          {r3: "table inet f {\nchain c {\ntype filter hook forward priority 0;\ntcp dport 22 reject with tcp reset\n}\n}\n", want: "5432 1 2 3 R4"},
		"a router that keeps silent":  {r1: "table inet f {\nchain c {\ntype filter hook output priority 0;\nicmp type time-exceeded drop\nicmpv6 type time-exceeded drop\n}\n}\n", want: "22 - 2 3 R4"},
		"lossy":                       {r2: lossy, r3: drops("forward", "tcp dport 5432"), want: "22 1 2 3 R4, 5432 1 2 3"},
		"a chain lost at the second":  {r2: drops("forward", frag), chains: []model.Variant{"frag", "dst"}, want: "22 1 2 3 R4, frag 2>3"},
		"a chain lost at the target":  {host: drops("prerouting", "exthdr dst exists"), chains: []model.Variant{"frag", "dst"}, want: "22 1 2 3 R4, dst 3>T"},
		"a chain lost before the 1st": {r1: drops("prerouting", "exthdr dst exists"), chains: []model.Variant{"dst"}, want: "22 1 2 3 R4, dst 0>1"},
	} {
		for _, four := range []bool{true, false} {
			if four && c.chains != nil {
				continue
			}
			run(name+map[bool]string{true: ", IPv4", false: ", IPv6"}[four], func(t *testing.T) {
				us, _, addr := row(t, four, c.r1, c.r2, c.r3, c.host)
				r := rowRun{us, addr, []string{"tcp/22", "tcp/5432"}, c.chains}
				f := r.from(t)
				link := func(a netip.Addr) string { // the second address of a link is its router's
					for n := 1; n < 5; n++ {
						if a == netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::2", n)) || a == netip.MustParseAddr(fmt.Sprintf("10.0.%d.2", n)) {
							return fmt.Sprint(n)
						}
					}
					return "-"
				}
				var got []string
				for _, x := range f.Traces {
					s := fmt.Sprint(x.Port)
					for _, h := range x.Hops {
						s += " " + link(h.From)
					}
					if x.Reached > 0 {
						s += fmt.Sprintf(" R%d", x.Reached)
					}
					if x.Refused > 0 {
						s += fmt.Sprintf(" X%d", x.Refused)
						if link(x.RefusedBy) != "2" {
							t.Errorf("refused by %s", x.RefusedBy)
						}
					}
					got = append(got, s)
				}
				for _, x := range f.Chains {
					if x.Eaten == nil {
						continue
					}
					next := link(x.Eaten.Next)
					if x.Eaten.Target {
						next = "T"
					}
					got = append(got, fmt.Sprintf("%s %d>%s", x.Chain, x.Eaten.Hop, next))
				}
				if s := strings.Join(got, ", "); s != c.want {
					t.Errorf("%s\nwant %s\n%s %v", s, c.want, tables(f), f.Chains)
				}
			})
		}
	}
}
