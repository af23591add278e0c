package probe

import (
	"context"
	"net/netip"
	"strconv"
	"testing"
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestPath asks over a router whose second link is what each case says, a target whose
// rules are. The kernel of the router sends its Packet Too Big, or its rules eat it.
func TestPath(t *testing.T) {
	t.Parallel()
	eat := "table inet e {\nchain o {\ntype filter hook output priority 0;\nicmpv6 type packet-too-big drop\n}\n}\n"
	hop := netip.MustParseAddr("2001:db8:1::f")
	for name, c := range map[string]struct {
		there, back    int // MTU of the router's link to the target, and to us
		router, target string
		want           model.Path
	}{
		"all is well":                 {1500, 1500, "", "", model.Path{Verdict: model.PathHonoured, LinkMTU: 1500, MTU: 1500}},
		"a firewall that tracks":      {1500, 1500, "", input("ct state established,related accept"), model.Path{Verdict: model.PathHonoured, LinkMTU: 1500, MTU: 1500}},
		"the target is not told":      {1500, 1500, "", "table inet e {\nchain i {\ntype filter hook input priority 0;\nicmpv6 type packet-too-big drop\n}\n}\n", model.Path{Verdict: model.PathIgnored, LinkMTU: 1500, MTU: 1500}},
		"a way eats what we tell":     {1500, 1500, "table inet e {\nchain f {\ntype filter hook forward priority 0;\nicmpv6 type packet-too-big drop\n}\n}\n", "", model.Path{Verdict: model.PathIgnored, LinkMTU: 1500, MTU: 1500}},
		"narrow, and said so":         {1400, 1500, "", "", model.Path{Verdict: model.PathHonoured, LinkMTU: 1500, MTU: 1400, Hop: hop, HopMTU: 1400}},
		"narrow, and not told":        {1400, 1500, "", "table inet e {\nchain i {\ntype filter hook input priority 0;\nicmpv6 type packet-too-big drop\n}\n}\n", model.Path{Verdict: model.PathIgnored, LinkMTU: 1500, MTU: 1400, Hop: hop, HopMTU: 1400}},
		"narrow, and eaten":           {1400, 1500, eat, "", model.Path{Verdict: model.PathHole, LinkMTU: 1500, MTU: 1400, Way: "there"}},
		"no echo":                     {1500, 1500, "", "table inet e {\nchain i {\ntype filter hook input priority 0;\nicmpv6 type echo-request drop\n}\n}\n", model.Path{Verdict: model.PathUnknown, LinkMTU: 1500, Why: "it does not answer an echo"}},
		"small echoes only":           {1500, 1500, "", "table inet e {\nchain i {\ntype filter hook input priority 0;\nicmpv6 type echo-request meta length > 200 drop\n}\n}\n", model.Path{Verdict: model.PathUnknown, LinkMTU: 1500, Why: "it answers small echoes only"}},
		"nothing larger than minimum": {1280, 1500, "", "", model.Path{Verdict: model.PathUnknown, LinkMTU: 1500, MTU: 1280, Hop: hop, HopMTU: 1280, Why: "the path carries no packet that could be too big"}},
		"large answers are lost": {
			1500, 1500, "table inet e {\nchain f {\ntype filter hook forward priority 0;\niifname r1 meta length > 1350 drop\n}\n}\n", "",
			model.Path{Verdict: model.PathHole, LinkMTU: 1500, MTU: 1350, Way: "back"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			us, router, target := testlab.NewNS(t, "mtc"), testlab.NewNS(t, "mtr"), testlab.NewNS(t, "mtt")
			for _, n := range []*testlab.NS{us, router, target} {
				for _, k := range []string{"default", "all"} {
					n.Sysctl("net/ipv6/conf/"+k+"/accept_dad", "0")
					n.Sysctl("net/ipv6/conf/"+k+"/router_solicitations", "0")
				}
			}
			testlab.Link(us, "c0", router, "r0")
			testlab.Link(router, "r1", target, "t0")
			router.Sysctl("net/ipv6/conf/all/forwarding", "1")
			router.Sysctl("net/ipv6/icmp/ratelimit", "0")
			us.AddAddr("c0", "2001:db8:1::1/64")
			router.AddAddr("r0", "2001:db8:1::f/64")
			router.AddAddr("r1", "2001:db8:2::f/64")
			target.AddAddr("t0", "2001:db8:2::2/64")
			us.IP("-6", "route", "add", "default", "via", "2001:db8:1::f")
			target.IP("-6", "route", "add", "default", "via", "2001:db8:2::f")
			router.IP("link", "set", "r1", "mtu", strconv.Itoa(c.there))
			target.IP("link", "set", "t0", "mtu", strconv.Itoa(c.there))
			router.IP("link", "set", "r0", "mtu", strconv.Itoa(c.back))
			if c.router != "" {
				rules(router, t, c.router)
			}
			if c.target != "" {
				rules(target, t, c.target)
			}
			var got *model.Path
			us.Do(func() {
				p, err := Open(Options{Addr: netip.MustParseAddr("2001:db8:2::2"), Spec: spec(t, "tcp/9"), Path: true})
				if err != nil {
					t.Error(err)
					return
				}
				defer p.Close()
				ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
				defer stop()
				if err := p.Run(ctx); err != nil {
					t.Error(err)
				}
				got = p.Found.Path
			})
			if got == nil {
				t.Fatal("nothing is known")
			}
			// Where it stops is found to within four bytes.
			if d := c.want.MTU - got.MTU; c.want.Verdict == model.PathHole && d >= 0 && d <= 4 {
				got.MTU = c.want.MTU
			}
			if *got != c.want {
				t.Errorf("%+v\nwant %+v", *got, c.want)
			}
		})
	}
}
