package probe

import (
	"context"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/testlab"
)

// pathLab is a router whose links are as wide as it says, and who drops what.
type pathLab struct {
	there, back        int // MTU of the router's link to the target, and of its route to us; 0: 1500
	us, router, target string
}

// drops is a table that drops in one hook what a line matches.
func drops(hook, match string) string {
	return "table inet e {\nchain c {\ntype filter hook " + hook + " priority 0;\n" + match + " drop\n}\n}\n"
}

// build makes it, of one family.
func (c *pathLab) build(t *testing.T, four bool) (us *testlab.NS, target netip.Addr) {
	us, router, host := newHost(t, "mtc"), newHost(t, "mtr"), newHost(t, "mtt")
	testlab.Link(us, "c0", router, "r0")
	testlab.Link(router, "r1", host, "t0")
	router.Sysctl("net/ipv4/ip_forward", "1")
	router.Sysctl("net/ipv4/icmp_ratelimit", "0")
	router.Sysctl("net/ipv6/conf/all/forwarding", "1")
	router.Sysctl("net/ipv6/icmp/ratelimit", "0")
	if four {
		us.IP("addr", "add", "198.51.100.1/24", "dev", "c0")
		router.IP("addr", "add", "198.51.100.15/24", "dev", "r0")
		router.IP("addr", "add", "192.0.2.15/24", "dev", "r1")
		host.IP("addr", "add", "192.0.2.2/24", "dev", "t0")
		us.IP("route", "add", "default", "via", "198.51.100.15")
		host.IP("route", "add", "default", "via", "192.0.2.15")
		target = netip.MustParseAddr("192.0.2.2")
	} else {
		us.AddAddr("c0", "2001:db8:1::1/64")
		router.AddAddr("r0", "2001:db8:1::f/64")
		router.AddAddr("r1", "2001:db8:2::f/64")
		host.AddAddr("t0", "2001:db8:2::2/64")
		us.IP("-6", "route", "add", "default", "via", "2001:db8:1::f")
		host.IP("-6", "route", "add", "default", "via", "2001:db8:2::f")
		target = netip.MustParseAddr("2001:db8:2::2")
	}
	if c.there > 0 {
		router.IP("link", "set", "r1", "mtu", strconv.Itoa(c.there))
		host.IP("link", "set", "t0", "mtu", strconv.Itoa(c.there))
	}
	if c.back > 0 && four { // of the route, for a link would take no larger ones either
		router.IP("route", "replace", "198.51.100.0/24", "dev", "r0", "mtu", "lock", strconv.Itoa(c.back))
	} else if c.back > 0 {
		router.IP("-6", "route", "replace", "2001:db8:1::/64", "dev", "r0", "metric", "1", "mtu", "lock", strconv.Itoa(c.back))
	}
	for n, text := range map[*testlab.NS]string{us: c.us, router: c.router, host: c.target} {
		if text != "" {
			rules(n, t, text)
		}
	}
	return us, target
}

func lookAtPath(t *testing.T, us *testlab.NS, target netip.Addr) model.Path {
	t.Helper()
	var got *model.Path
	us.Do(func() {
		p, err := Open(Options{Addr: target, Spec: spec(t, "tcp/9"), Path: true})
		if err != nil {
			t.Error(err)
			return
		}
		defer p.Close()
		ctx, stop := context.WithTimeout(context.Background(), 4*time.Minute)
		defer stop()
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
		got = p.Found.Path
	})
	if got == nil {
		t.Fatal("nothing is known")
	}
	return *got
}

// near takes a size that was found to within four bytes for the right one.
func near(got, want model.Path) model.Path {
	if d := want.MTU - got.MTU; want.Verdict == model.PathHole && d >= 0 && d <= 4 {
		got.MTU = want.MTU
	}
	return got
}

// TestPath asks over a router whose second link is what each case says, a target whose
// rules are. The kernel of the router sends its Packet Too Big, or its rules eat it.
func TestPath(t *testing.T) {
	t.Parallel()
	const big = "icmpv6 type packet-too-big"
	hop := netip.MustParseAddr("2001:db8:1::f")
	notSent := "this host does not send it (its own rules?): operation not permitted"
	run, wait := beside(t)
	defer wait()
	for name, c := range map[string]struct {
		pathLab
		want model.Path
	}{
		"all is well":             {pathLab{}, model.Path{Verdict: model.PathHonoured, MTU: 1500}},
		"a firewall that tracks":  {pathLab{target: input("ct state established,related accept")}, model.Path{Verdict: model.PathHonoured, MTU: 1500}},
		"the target is not told":  {pathLab{target: drops("input", big)}, model.Path{Verdict: model.PathIgnored, MTU: 1500}},
		"a way eats what we tell": {pathLab{router: drops("forward", big)}, model.Path{Verdict: model.PathIgnored, MTU: 1500}},
		"narrow, and said so":     {pathLab{there: 1400}, model.Path{Verdict: model.PathHonoured, MTU: 1400, Hop: hop, HopMTU: 1400}},
		"narrow, and not told":    {pathLab{there: 1400, target: drops("input", big)}, model.Path{Verdict: model.PathIgnored, MTU: 1400, Hop: hop, HopMTU: 1400}},
		"narrow, and eaten":       {pathLab{there: 1400, router: drops("output", big)}, model.Path{Verdict: model.PathHole, MTU: 1400, Way: "there"}},
		"the way back is narrow":  {pathLab{back: 1400}, model.Path{Verdict: model.PathHonoured, MTU: 1500}},
		"no echo":                 {pathLab{target: drops("input", "icmpv6 type echo-request")}, model.Path{Verdict: model.PathUnknown, Why: "it does not answer an echo"}},
		"small echoes only":       {pathLab{target: drops("input", "icmpv6 type echo-request meta length > 200")}, model.Path{Verdict: model.PathUnknown, Why: "it answers small echoes only"}},
		"nothing larger than minimum": {
			pathLab{there: 1280}, model.Path{Verdict: model.PathUnknown, MTU: 1280, Hop: hop, HopMTU: 1280, Why: "the path carries no packet that could be too big"},
		},
		"large answers are lost":       {pathLab{router: drops("forward", "iifname r1 meta length > 1350")}, model.Path{Verdict: model.PathHole, MTU: 1350, Way: "back"}},
		"own rules drop large ones":    {pathLab{us: drops("output", "meta length > 1300")}, model.Path{Verdict: model.PathUnknown, Why: notSent}},
		"own rules drop all":           {pathLab{us: drops("output", "icmpv6 type echo-request")}, model.Path{Verdict: model.PathUnknown, Why: notSent}},
		"own rules drop what we tell":  {pathLab{us: drops("output", big)}, model.Path{Verdict: model.PathUnknown, MTU: 1500, Why: "this host does not send Packet Too Big (its own rules?): operation not permitted"}},
		"own rules drop without a say": {pathLab{us: egress("meta length > 1350")}, model.Path{Verdict: model.PathUnknown, Why: "packets of that size do not leave this host (its own rules?)"}},
	} {
		run(name, func(t *testing.T) {
			us, target := c.build(t, false)
			c.want.LinkMTU = 1500
			if got := near(lookAtPath(t, us, target), c.want); got != c.want {
				t.Errorf("%+v\nwant %+v", got, c.want)
			}
		})
	}
}

// egress drops behind the rules for sent packets: no send fails.
func egress(match string) string {
	return "table netdev e {\nchain c {\ntype filter hook egress device c0 priority 0;\n" + match + " drop\n}\n}\n"
}

// TestPath4 is the same over IPv4, where routers cut what may be cut.
func TestPath4(t *testing.T) {
	t.Parallel()
	const big = "icmp type destination-unreachable icmp code frag-needed"
	hop := netip.MustParseAddr("198.51.100.15")
	notSent := "this host does not send it (its own rules?): operation not permitted"
	run, wait := beside(t)
	defer wait()
	for name, c := range map[string]struct {
		pathLab
		want model.Path
	}{
		"all is well":             {pathLab{}, model.Path{Verdict: model.PathHonoured, MTU: 1500}},
		"a firewall that tracks":  {pathLab{target: input("ct state established,related accept")}, model.Path{Verdict: model.PathHonoured, MTU: 1500}},
		"the target is not told":  {pathLab{target: drops("input", big)}, model.Path{Verdict: model.PathIgnored, MTU: 1500}},
		"a way eats what we tell": {pathLab{router: drops("forward", big)}, model.Path{Verdict: model.PathIgnored, MTU: 1500}},
		"narrow, and said so":     {pathLab{there: 1400}, model.Path{Verdict: model.PathHonoured, MTU: 1400, Hop: hop, HopMTU: 1400}},
		"narrow as a tunnel":      {pathLab{there: 1280}, model.Path{Verdict: model.PathHonoured, MTU: 1280, Hop: hop, HopMTU: 1280}},
		"narrow, and not told":    {pathLab{there: 1400, target: drops("input", big)}, model.Path{Verdict: model.PathIgnored, MTU: 1400, Hop: hop, HopMTU: 1400}},
		"narrow, and eaten":       {pathLab{there: 1400, router: drops("output", big)}, model.Path{Verdict: model.PathHole, MTU: 1400, Way: "there"}},
		"the way back is narrow":  {pathLab{back: 1400}, model.Path{Verdict: model.PathHonoured, MTU: 1500}},
		"back narrow, not told":   {pathLab{back: 1400, target: drops("input", big)}, model.Path{Verdict: model.PathIgnored, MTU: 1500}},
		"no echo":                 {pathLab{target: drops("input", "icmp type echo-request")}, model.Path{Verdict: model.PathUnknown, Why: "it does not answer an echo"}},
		"small echoes only":       {pathLab{target: drops("input", "icmp type echo-request meta length > 200")}, model.Path{Verdict: model.PathUnknown, Why: "it answers small echoes only"}},
		"nothing larger than minimum": {
			pathLab{there: 590}, model.Path{Verdict: model.PathUnknown, MTU: 590, Hop: hop, HopMTU: 590, Why: "the path carries no packet that could be too big"},
		},
		"large answers are lost":       {pathLab{router: drops("forward", "iifname r1 meta length > 1350")}, model.Path{Verdict: model.PathHole, MTU: 1350, Way: "back"}},
		"own rules drop large ones":    {pathLab{us: drops("output", "meta length > 1300")}, model.Path{Verdict: model.PathUnknown, Why: notSent}},
		"own rules drop what we tell":  {pathLab{us: drops("output", big)}, model.Path{Verdict: model.PathUnknown, MTU: 1500, Why: "this host does not send Fragmentation Needed (its own rules?): operation not permitted"}},
		"own rules drop without a say": {pathLab{us: egress("meta length > 1350")}, model.Path{Verdict: model.PathUnknown, Why: "packets of that size do not leave this host (its own rules?)"}},
	} {
		run(name, func(t *testing.T) {
			us, target := c.build(t, true)
			c.want.LinkMTU = 1500
			got := near(lookAtPath(t, us, target), c.want)
			if got != c.want {
				t.Errorf("%+v\nwant %+v", got, c.want)
			}
			// The target remembers for ten minutes what it was told; who asks again must not
			// take that for a narrow router, nor run out of smaller sizes.
			if name == "all is well" {
				for range 3 {
					if got := lookAtPath(t, us, target); got != c.want {
						t.Errorf("asked again: %+v\nwant %+v", got, c.want)
					}
				}
			}
		})
	}
}

// TestPathLossy: a tenth is lost on both ways, of all packets and at random.
func TestPathLossy(t *testing.T) {
	t.Parallel()
	const loss = "table inet l {\nchain c {\ntype filter hook forward priority -10;\nnumgen random mod 10 == 0 drop\n}\n}\n"
	runs, err := strconv.Atoi(os.Getenv("VERIFY_LAB_RUNS"))
	if err != nil {
		runs = 1
	}
	run, wait := beside(t)
	defer wait()
	for _, four := range []bool{true, false} {
		big := "icmpv6 type packet-too-big"
		if four {
			big = "icmp type destination-unreachable icmp code frag-needed"
		}
		for name, c := range map[string]struct {
			pathLab
			want model.Path
		}{
			"honoured": {pathLab{router: loss}, model.Path{Verdict: model.PathHonoured, MTU: 1500}},
			"ignored":  {pathLab{router: loss, target: drops("input", big)}, model.Path{Verdict: model.PathIgnored, MTU: 1500}},
			"hole":     {pathLab{there: 1400, router: loss + drops("output", big)}, model.Path{Verdict: model.PathHole, MTU: 1400, Way: "there"}},
			"back":     {pathLab{router: loss + drops("forward", "iifname r1 meta length > 1350")}, model.Path{Verdict: model.PathHole, MTU: 1350, Way: "back"}},
		} {
			for range runs {
				run(strings.TrimSuffix(name+", IPv4", map[bool]string{false: ", IPv4"}[four]), func(t *testing.T) {
					us, target := c.build(t, four)
					want := c.want
					want.LinkMTU = 1500
					if got := near(lookAtPath(t, us, target), want); got != want {
						t.Errorf("%+v\nwant %+v", got, want)
					}
				})
			}
		}
	}
}

// beside runs labs side by side, more of them than there are processors: they wait more than
// they work.
func beside(t *testing.T) (run func(string, func(*testing.T)), wait func()) {
	var all sync.WaitGroup
	room := make(chan struct{}, 16)
	return func(name string, f func(*testing.T)) {
		all.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			t.Run(name, f)
		})
	}, all.Wait
}
