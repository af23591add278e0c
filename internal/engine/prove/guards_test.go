package prove_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/engine/prove"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/testlab"
	"github.com/sixfence/sixfence/internal/testlab/hostview"
)

// listener is a host that listens to its router: the default route is one that an
// advertisement made.
func listener(t testing.TB, hint string) *testlab.NS {
	t.Helper()
	v, far := testlab.NewNS(t, hint+"v"), testlab.NewNS(t, hint+"a")
	v.Sysctl("net/ipv6/conf/default/router_solicitations", "0")
	v.Sysctl("net/ipv6/conf/all/accept_dad", "0") // nothing is to change by itself
	v.Sysctl("net/ipv6/conf/default/accept_dad", "0")
	far.Sysctl("net/ipv6/conf/all/disable_ipv6", "1") // and nobody is to say anything
	far.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")
	testlab.Link(v, "v0", far, "a0")
	v.AddAddr("v0", "2001:db8:1::10/64")
	v.IP("-6", "route", "add", "default", "via", "fe80::1", "dev", "v0", "proto", "ra")
	v.IP("-6", "neigh", "replace", "fe80::1", "lladdr", routerMAC, "dev", "v0", "nud", "stale")
	return v
}

func guards(t testing.TB, s *fact.Snapshot) *probe.Guards {
	t.Helper()
	pr := prove.Start(nil)
	defer pr.Close()
	return pr.Guards(context.Background(), s, &s.Namespaces[0])
}

func nftRun(t testing.TB, n *testlab.NS, text string) {
	t.Helper()
	c := n.Command(testlab.RequireTool(t, "nft"), "-f", "-")
	c.Stdin = strings.NewReader(text)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
}

// taken are the ways that were taken, by sort.
func taken(i probe.Guard, g probe.GuardGroup) string {
	var out []probe.GuardAttempt
	for _, a := range i.Attacks {
		if a.Group == g && a.Verdict == probe.GuardTaken {
			out = append(out, a)
		}
	}
	return strings.Join(probe.Names(out), "; ")
}

// What a kernel takes that nothing stops, as fired at it by an independent program
// (RFC 7113 §2 describes the ways).
const (
	ways       = "plain, hop-by-hop, destination options, hop-by-hop and destination options, five destination options"
	fragmented = "atomic fragment, hop-by-hop and atomic fragment, two fragments, two fragments, reversed, hop-by-hop and two fragments, ICMPv6 header split"
	wrapped    = "hop-by-hop, destination options, hop-by-hop and destination options, five destination options"
	more       = ", to this host alone, without its MAC address"
	ended      = ", it is no router any more"
	everything = "of a rogue: " + ways + more + "; in the router's name: " + ways + ended
	redirected = "in the router's name: " + ways + ", routing header 0"
)

const head = "table inet g {\nset r {\ntype ipv6_addr\nelements = { fe80::1 }\n}\nchain i {\n"

// TestGuards: hosts of many kinds, and the kernel's word for each.
func TestGuards(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rules   string
		sysctls []string
		pinned  bool
		ra      string // what is taken
		moved   int    // how many messages move the router
		led     string // redirects
		control probe.GuardVerdict
	}{
		"no rules": {ra: everything, moved: 18, led: redirected, control: probe.GuardTaken},
		"first header only": {
			rules: head + "type filter hook input priority 0;\nip6 nexthdr icmpv6 icmpv6 type { nd-router-advert, nd-redirect, nd-neighbor-advert, nd-neighbor-solicit } drop\n}\n}\n",
			ra:    "of a rogue: " + wrapped + "; in the router's name: " + wrapped, moved: 15, led: "in the router's name: " + wrapped + ", routing header 0", control: probe.GuardStopped,
		},
		"last header, no list": {
			rules: head + "type filter hook input priority 0;\nicmpv6 type { nd-router-advert, nd-redirect } drop\n}\n}\n", moved: 18, control: probe.GuardStopped,
		},
		"a list at the device": {
			rules: strings.Replace(head, "inet", "netdev", 1) + "type filter hook ingress device v0 priority 0;\nicmpv6 type nd-router-advert ip6 saddr != @r drop\nicmpv6 type nd-router-advert ether saddr != " + routerMAC + " drop\nicmpv6 type nd-redirect drop\n}\n}\n",
			moved: 18, control: probe.GuardTaken,
		},
		"a list of addresses alone": {
			rules: head + "type filter hook prerouting priority -450;\nicmpv6 type nd-router-advert ip6 saddr != @r drop\nicmpv6 type nd-redirect drop\n}\n}\n",
			ra:    "in the router's name: " + ways + ended, moved: 18, control: probe.GuardTaken,
		},
		"listens to nobody": {sysctls: []string{"accept_ra=0", "accept_redirects=0"}, moved: 23, control: probe.GuardStopped},
		"pinned":            {pinned: true, ra: everything, led: redirected, control: probe.GuardTaken},
		"fragments": {
			sysctls: []string{"suppress_frag_ndisc=0"}, moved: 36, control: probe.GuardTaken,
			ra:  "of a rogue: " + ways + ", " + fragmented + more + "; in the router's name: " + ways + ", " + fragmented + ended,
			led: "in the router's name: " + ways + ", routing header 0, " + fragmented,
		},
		"a router": {sysctls: []string{"forwarding=1"}, moved: 29, control: probe.GuardStopped},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := listener(t, "gd")
			for _, s := range c.sysctls {
				k, x, _ := strings.Cut(s, "=")
				v.Sysctl("net/ipv6/conf/v0/"+k, x)
			}
			if c.pinned {
				v.IP("-6", "neigh", "replace", "fe80::1", "lladdr", routerMAC, "dev", "v0", "nud", "permanent")
			}
			if c.rules != "" {
				nftRun(t, v, c.rules)
			}
			look := func() string {
				return v.Run("nft", "list", "ruleset") + v.Run("sysctl", "net.ipv6.conf") + v.Run("ip", "-6", "route") + v.Run("ip", "-6", "addr") + v.Run("ip", "-6", "neigh")
			}
			s := hostview.Snapshot(t, v)
			before := look()
			g := guards(t, s)
			if after := look(); after != before {
				was := strings.Split(before, "\n")
				t.Errorf("the host was touched: %q", slices.DeleteFunc(strings.Split(after, "\n"), func(l string) bool { return slices.Contains(was, l) }))
			}
			if g.Reason != "" || len(g.Interfaces) != 1 || len(g.NotLoaded) != 0 || g.Interfaces[0].Unknown != "" {
				t.Fatalf("%+v", g)
			}
			i := g.Interfaces[0]
			if got := taken(i, probe.GuardRA); got != c.ra {
				t.Errorf("advertisements: %s\nwant: %s", got, c.ra)
			}
			if got := taken(i, probe.GuardRedirect); got != c.led {
				t.Errorf("redirects: %s\nwant: %s", got, c.led)
			}
			// Whoever is believed names the DNS servers, too.
			named := slices.IndexFunc(i.Attacks, func(a probe.GuardAttempt) bool {
				return a.Name == "of a rogue: hop-by-hop" && slices.Contains(a.Changed, "its DNS servers for whoever resolves names here")
			})
			if strings.Contains(c.ra, "of a rogue") != (named >= 0) {
				t.Errorf("DNS servers: %d", named)
			}
			moved := 0
			for _, a := range i.Attacks {
				if a.Group == probe.GuardNeighbour && a.Verdict == probe.GuardTaken {
					moved++
				}
				if (a.Verdict == probe.GuardTaken) != (len(a.Changed) > 0) || a.Verdict == probe.GuardTaken && len(a.Packet) == 0 || a.Verdict == probe.GuardUnknown {
					t.Errorf("%+v", a)
				}
			}
			if moved != c.moved {
				t.Errorf("the router is moved %d times, not %d: %s", moved, c.moved, taken(i, probe.GuardNeighbour))
			}
			if i.Control == nil || i.Control.Verdict != c.control {
				t.Errorf("the router's own: %+v", i.Control)
			}
		})
	}
}

// TestGuardsOfAPlan: what is planned for a host that listens to its router takes nothing
// from others, and all of it from him.
func TestGuardsOfAPlan(t *testing.T) {
	t.Parallel()
	v := listener(t, "gp")
	p := planFor(t, intent.Intent{Role: intent.RoleServer, Interfaces: one(intent.SLAAC, router), Services: []intent.Service{web()}}, hostview.Snapshot(t, v))
	for _, st := range p.Steps {
		switch {
		case st.Phase != change.Runtime || st.After.Absent:
		case st.Kind == change.Table:
			nftRun(t, v, st.After.Text)
		case st.Kind == change.Sysctl:
			if strings.HasPrefix(st.Target, "net/ipv6/") {
				v.Sysctl(st.Target, st.After.Text)
			}
		case st.Kind == change.Neighbour:
			dev, a, _ := strings.Cut(st.Target, " ")
			v.IP("-6", "neigh", "replace", a, "lladdr", st.After.Text, "dev", dev, "nud", "permanent")
		}
	}
	g := guards(t, hostview.Snapshot(t, v))
	if g.Reason != "" || len(g.Interfaces) != 1 || g.Interfaces[0].Unknown != "" || len(g.Interfaces[0].Attacks) < 130 {
		t.Fatalf("%+v", g)
	}
	for _, a := range g.Interfaces[0].Attacks {
		if a.Verdict != probe.GuardStopped && a.Group != probe.GuardNeighbour {
			t.Errorf("%+v", a)
		}
	}
	// It does not pin the router, whose MAC address anybody can claim then.
	if got := taken(g.Interfaces[0], probe.GuardNeighbour); got != "unsolicited advertisement: plain; advertisement as if asked for: plain; solicitation: plain" {
		t.Error(got)
	}
	if c := g.Interfaces[0].Control; c == nil || c.Verdict != probe.GuardTaken {
		t.Errorf("the router's own: %+v", c)
	}
}

// TestGuardsOfABridge: a guard at one port of it guards that port.
func TestGuardsOfABridge(t *testing.T) {
	t.Parallel()
	v, far := testlab.NewNS(t, "gbv"), testlab.NewNS(t, "gba")
	v.IP("link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
	for _, n := range []string{"p0", "p1"} {
		testlab.Link(v, n, far, n)
		v.IP("link", "set", n, "master", "br0")
	}
	v.IP("link", "set", "br0", "up")
	v.AddAddr("br0", "2001:db8:1::10/64")
	nftRun(t, v, "table bridge g {\nchain i {\ntype filter hook prerouting priority -300;\niifname p0 icmpv6 type nd-router-advert drop\n}\n}\n")
	g := guards(t, hostview.Snapshot(t, v))
	if g.Reason != "" || len(g.Interfaces) != 2 {
		t.Fatalf("%+v", g)
	}
	for _, i := range g.Interfaces {
		want := map[string]string{"p0": "", "p1": "of a rogue: " + ways + more}[i.Port]
		if got := taken(i, probe.GuardRA); got != want || i.Unknown != "" || i.Interface != "br0" {
			t.Errorf("%s: %s\nwant: %s (%s)", i.Port, got, want, i.Unknown)
		}
	}
}

// TestGuardsUnknown: what could not be there proves nothing, whatever was stopped.
func TestGuardsUnknown(t *testing.T) {
	t.Parallel()
	v := listener(t, "gu")
	nftRun(t, v, head+"type filter hook prerouting priority -450;\nicmpv6 type nd-router-advert drop\n}\n}\n")
	s := hostview.Snapshot(t, v)
	n := &s.Namespaces[0]
	v.Run("iptables-legacy", "-A", "INPUT", "-j", "AUDIT", "--type", "drop")
	with := hostview.Snapshot(t, v)
	gap := fact.Gap{Reason: fact.NotCollected, What: "nobody asked"}
	try := func(name string, s *fact.Snapshot, want string) {
		t.Helper()
		g := guards(t, s)
		bad := g.Reason == "" && (len(g.Interfaces) != 1 || !strings.Contains(g.Interfaces[0].Unknown, want))
		if bad || g.Reason != "" && !strings.Contains(g.Reason, want) {
			t.Errorf("%s: %+v", name, g)
		}
	}
	try("a target that acts on the machine", with, "AUDIT")
	keep := *n
	n.PacketFilter.NFTables = fact.Missing[fact.NFTables](gap)
	try("rules that nobody read", s, "nobody asked")
	*n = keep
	n.Sysctls = fact.Missing[fact.Sysctls](gap)
	try("settings that nobody read", s, "settings")
	*n = keep
	s.Host.Managers = fact.Missing[[]fact.Manager](gap)
	try("programs that nobody read", s, "nobody asked")
	s.Host.Managers = fact.Absent[[]fact.Manager]()
	links, _ := n.Links.Get()
	links[slices.IndexFunc(links, func(l fact.Link) bool { return l.Name == "v0" })].TCIngress = fact.Value(true)
	try("tc", s, "tc at v0")
}

// TestGuardsLimited: a limit that the first of many messages uses up is no guard.
func TestGuardsLimited(t *testing.T) {
	t.Parallel()
	v := listener(t, "gl")
	nftRun(t, v, "table inet g {\nchain i {\ntype filter hook prerouting priority -450;\nicmpv6 type { nd-router-advert, nd-redirect, nd-neighbor-solicit, nd-neighbor-advert } limit rate over 5/second burst 3 packets drop\n}\n}\n")
	g := guards(t, hostview.Snapshot(t, v))
	if g.Reason != "" || len(g.Interfaces) != 1 {
		t.Fatalf("%+v", g)
	}
	by := map[probe.GuardVerdict]int{}
	for _, a := range g.Interfaces[0].Attacks {
		if a.Verdict == probe.GuardStopped && a.Bare {
			t.Errorf("%+v", a)
		}
		by[a.Verdict]++
	}
	if by[probe.GuardTaken] == 0 || by[probe.GuardUnknown] == 0 {
		t.Error(by)
	}
}

// TestGuardsOfAStrangeRouter: rules that ask for the MAC address of a router that this host
// has no entry of are not said to stop him.
func TestGuardsOfAStrangeRouter(t *testing.T) {
	t.Parallel()
	v := listener(t, "gs")
	v.IP("-6", "neigh", "del", "fe80::1", "dev", "v0")
	nftRun(t, v, "table inet g {\nchain i {\ntype filter hook prerouting priority -450;\nicmpv6 type nd-router-advert ether saddr != "+routerMAC+" drop\n}\n}\n")
	g := guards(t, hostview.Snapshot(t, v))
	if g.Reason != "" || len(g.Interfaces) != 1 || g.Interfaces[0].Control == nil || g.Interfaces[0].Control.Verdict != probe.GuardUnknown {
		t.Errorf("%+v", g)
	}
}

// TestGuardsOfAClient: what comes through to a program that takes advertisements itself is
// not known to be harmless; what the rules stop is.
func TestGuardsOfAClient(t *testing.T) {
	t.Parallel()
	v := listener(t, "gc")
	v.Sysctl("net/ipv6/conf/v0/accept_ra", "0")
	for _, c := range []struct {
		rules         string
		plain, router probe.GuardVerdict
		through       bool
		interfaces    []fact.ManagedInterface
		client        string
	}{
		{"", probe.GuardUnknown, probe.GuardUnknown, true, []fact.ManagedInterface{{Names: []string{"v*"}, InUserspace: true, AcceptRA: fact.Value(true)}}, "systemd-networkd"},
		{"", probe.GuardStopped, probe.GuardStopped, true, []fact.ManagedInterface{{Names: []string{"v*"}, InUserspace: true, AcceptRA: fact.Value(false)}}, ""},
		{head + "type filter hook prerouting priority -450;\nicmpv6 type nd-router-advert ip6 saddr != @r drop\n}\n}\n", probe.GuardStopped, probe.GuardUnknown, true, []fact.ManagedInterface{{Index: 2, InUserspace: true}}, "systemd-networkd"},
	} {
		if c.rules != "" {
			nftRun(t, v, c.rules)
		}
		s := hostview.Snapshot(t, v)
		links, _ := s.Namespaces[0].Links.Get()
		for i := range c.interfaces {
			if c.interfaces[i].Index != 0 {
				c.interfaces[i].Index = links[slices.IndexFunc(links, func(l fact.Link) bool { return l.Name == "v0" })].Index
			}
		}
		s.Host.Managers = fact.Value([]fact.Manager{{Name: "systemd-networkd", Running: fact.Value(true), NetNS: s.Namespaces[0].ID, Interfaces: c.interfaces}})
		g := guards(t, s)
		if g.Reason != "" || len(g.Interfaces) != 1 || g.Interfaces[0].Client != c.client {
			t.Fatalf("%+v", g)
		}
		i := g.Interfaces[0]
		at := slices.IndexFunc(i.Attacks, func(a probe.GuardAttempt) bool { return a.Name == "of a rogue: plain" && a.Group == probe.GuardRA })
		if at < 0 || i.Attacks[at].Verdict != c.plain {
			t.Errorf("%q: %+v, want %s", c.rules, i.Attacks, c.plain)
		}
		if i.Control == nil || i.Control.Through != c.through || i.Control.Verdict != c.router {
			t.Errorf("%q: the router's own: %+v", c.rules, i.Control)
		}
	}
}
