package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/testlab"
)

var roguePrefix = netip.MustParsePrefix("2001:db8:bad::/64")

func rogueRA(lifetime uint16) testlab.RA {
	return testlab.RA{Lifetime: lifetime, Options: [][]byte{testlab.PrefixInfo(roguePrefix, 3600, 1800)}}
}

// takesRA sends one rogue RA and tells whether the kernel acted on it.
func takesRA(p *testlab.Pair) bool {
	p.Wire.SendRA(rogueRA(1800))
	p.Barrier()
	return strings.Contains(p.Victim.DefaultRoute(), "proto ra")
}

// The value that benchmarks read is one that the kernel never consults: they pass
// a host on which one packet installs a default route.
func TestAllAcceptRAZeroStopsNothing(t *testing.T) {
	t.Parallel()
	p := testlab.NewPair(t, "all0")
	p.Victim.Sysctl("net/ipv6/conf/all/accept_ra", "0")
	p.Victim.Sysctl("net/ipv6/conf/default/accept_ra", "0") // v0 is there already: it keeps its 1
	for _, v := range both(t, p.Victim) {
		f := v.effective(t, "SYSCTL-RA-01", on("v0"), finding.Fail)
		if f.Compliance != finding.Pass {
			t.Errorf("from %s: compliance %s, want pass: all and default are 0", v.from, f.Compliance)
		}
		if f.Status != finding.Fail || !f.Severity.AtLeast(finding.High) {
			t.Errorf("from %s: counts as %s %s, want a fail, high or critical", v.from, f.Status, f.Severity)
		}
	}
	if !takesRA(p) {
		t.Fatal("the kernel refused the RA: the verdict was wrong")
	}
}

// Every combination of accept_ra and forwarding: one audit of all of them, then
// one RA to each, and the two must agree.
func TestRAVerdictIsWhatTheKernelDoes(t *testing.T) {
	t.Parallel()
	type lab struct {
		name string
		p    *testlab.Pair
	}
	var labs []lab
	for _, all := range []string{"0", "1"} {
		for _, fwd := range []string{"0", "1"} {
			for _, ra := range []string{"-1", "0", "1", "2", "3"} {
				p := testlab.NewPair(t, "m")
				p.Victim.Sysctl("net/ipv6/conf/all/forwarding", all)
				p.Victim.Sysctl("net/ipv6/conf/v0/forwarding", fwd)
				p.Victim.Sysctl("net/ipv6/conf/v0/accept_ra", ra)
				labs = append(labs, lab{fmt.Sprintf("all.forwarding=%s v0.forwarding=%s v0.accept_ra=%s", all, fwd, ra), p})
			}
		}
	}
	r := outside(t, labs[0].p.Victim)
	for _, l := range labs {
		r.netns = l.p.Victim.Name
		f := r.one(t, "SYSCTL-RA-01", on("v0"))
		if took := takesRA(l.p); f.Effective != verdict(took) {
			t.Errorf("%s: verdict %s, the kernel took the RA: %v\n  %s", l.name, f.Effective, took, f.Message)
		}
	}
}

// Managers read RAs themselves. Every sysctl is 0 and the host follows a stranger.
func TestManagerTakesRAsWithEverySysctlAtZero(t *testing.T) {
	t.Parallel()
	off := []string{"net/ipv6/conf/all/accept_ra=0", "net/ipv6/conf/default/accept_ra=0"}
	for name, start := range map[string]func(*testlab.NS) *testlab.Daemon{
		"systemd-networkd": func(n *testlab.NS) *testlab.Daemon {
			return n.Networkd(map[string]string{"10-lab.network": "[Match]\nName=v0\n\n[Network]\nIPv6AcceptRA=yes\n"})
		},
		"systemd-networkd by default": func(n *testlab.NS) *testlab.Daemon {
			return n.Networkd(map[string]string{"10-lab.network": "[Match]\nName=v0\n\n[Network]\nDHCP=no\n"})
		},
		"dhcpcd": func(n *testlab.NS) *testlab.Daemon { return n.DHCPCD("v0", "") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := testlab.NewPair(t, "mgr", off...)
			d := start(p.Victim)
			in := view{run(t, d.Inside(binary, auditArgs(nil)...)), "inside", "self"}
			for _, v := range []view{outside(t, p.Victim), in} {
				v.effective(t, "SYSCTL-RA-01", on("v0"), finding.Pass) // the kernel itself does not
				got := v.find("RA-05", finding.Subject{})
				if len(got) == 0 || got[0].Effective != finding.Fail {
					t.Errorf("from %s: RA-05 = %+v, want a fail that names the client", v.from, got)
				} else if !strings.Contains(got[0].Subject.Process, strings.Fields(name)[0]) {
					t.Errorf("from %s: RA-05 names process %q, want %s", v.from, got[0].Subject.Process, name)
				}
			}
			control := "RA-02"
			if name == "dhcpcd" {
				control = "RA-04"
			}
			if got := in.find(control, on("v0")); len(got) != 1 || got[0].Effective != finding.Fail {
				t.Errorf("%s = %+v, want a fail about v0", control, got)
			}
			testlab.Eventually(t, 10*time.Second, "default route from the rogue RA", func() bool {
				p.Wire.SendRA(rogueRA(1800))
				time.Sleep(100 * time.Millisecond)
				return strings.Contains(p.Victim.DefaultRoute(), "proto ra")
			})
		})
	}
}

// A manager that is told not to take RAs does not, and is not blamed.
func TestNetworkdToldNotToTakeRAs(t *testing.T) {
	t.Parallel()
	p := testlab.NewPair(t, "nora", "net/ipv6/conf/default/accept_ra=0")
	d := p.Victim.Networkd(map[string]string{"10-lab.network": "[Match]\nName=v0\n\n[Network]\nIPv6AcceptRA=no\n"})
	in := view{run(t, d.Inside(binary, auditArgs(nil)...)), "inside", "self"}
	if got := in.find("RA-02", on("v0")); len(got) != 1 || got[0].Effective != finding.Pass {
		t.Errorf("RA-02 = %+v, want a pass about v0", got)
	}
	for range 5 {
		p.Wire.SendRA(rogueRA(1800))
	}
	p.Barrier()
	if d := p.Victim.DefaultRoute(); d != "" {
		t.Errorf("networkd took the RA: %s", d)
	}
}

// Fragments are what a switch's RA guard misses and the kernel refuses; managers take
// them, so suppress_frag_ndisc protects nobody there.
func TestManagerTakesFragmentedRAs(t *testing.T) {
	t.Parallel()
	p := testlab.NewPair(t, "fragm", "net/ipv6/conf/default/accept_ra=0")
	p.Victim.Networkd(map[string]string{"10-lab.network": "[Match]\nName=v0\n\n[Network]\nIPv6AcceptRA=yes\n"})
	v := outside(t, p.Victim)
	got := v.find("RA-05", finding.Subject{})
	if len(got) == 0 || got[0].Effective != finding.Fail {
		t.Errorf("RA-05 = %+v, want a fail: nothing keeps fragmented RAs from the client", got)
	}
	if frag := p.Victim.ReadSysctl("net/ipv6/conf/v0/suppress_frag_ndisc"); frag != "1" {
		t.Fatalf("suppress_frag_ndisc = %s: the lab shows nothing", frag)
	}
	f := p.Wire.Frame().RA(rogueRA(1800))
	id := uint32(1)
	send := func() bool {
		id++
		p.Wire.Send(f.Fragments(id, 24)...)
		p.Barrier()
		time.Sleep(100 * time.Millisecond)
		return strings.Contains(p.Victim.DefaultRoute(), "proto ra")
	}
	testlab.Eventually(t, 10*time.Second, "default route from a fragmented RA", send)
	// A guard that looks at the first header drops the plain ones alone; one that drops
	// fragments before they are put together drops them all.
	nft := testlab.RequireTool(t, "nft")
	for _, c := range []struct {
		rules string
		bad   bool
	}{
		{"flush ruleset; table ip6 g { chain in { type filter hook prerouting priority -450; ip6 nexthdr icmpv6 icmpv6 type nd-router-advert drop; }; }", true},
		{"flush ruleset; table ip6 g { chain in { type filter hook prerouting priority -450; icmpv6 type nd-router-advert drop; }; }", false},
	} {
		p.Victim.Run(nft, c.rules)
		p.Victim.IP("-6", "route", "flush", "proto", "ra")
		x := outside(t, p.Victim).effective(t, "RA-14", on("v0"), verdict(c.bad))
		if c.bad && x.Severity != finding.High {
			t.Errorf("RA-14: severity %s, want high: plain ones are dropped", x.Severity)
		}
		p.Wire.SendRA(rogueRA(1800))
		p.Barrier()
		time.Sleep(100 * time.Millisecond)
		if d := p.Victim.DefaultRoute(); strings.Contains(d, "proto ra") {
			t.Errorf("a plain RA passes the guard: %s", d)
		}
		got := send() || c.bad && send() || c.bad && send()
		if got != c.bad {
			t.Errorf("%s: the client took a fragmented RA: %v", c.rules, got)
		}
	}
}

// Switching accept_ra off removes nothing that an RA has already installed.
func TestRogueRouteSurvivesAcceptRAZero(t *testing.T) {
	t.Parallel()
	p := testlab.NewPair(t, "left")
	if !takesRA(p) {
		t.Fatal("the RA was not taken")
	}
	for _, i := range []string{"all", "default", "v0"} {
		p.Victim.Sysctl("net/ipv6/conf/"+i+"/accept_ra", "0")
	}
	if !strings.Contains(p.Victim.IP("-6", "route", "get", "2606:4700::1111"), "via "+p.Wire.Addr.String()) {
		t.Fatal("the kernel dropped the route: there is no residue to find")
	}
	for _, v := range both(t, p.Victim) {
		v.effective(t, "SYSCTL-RA-01", on("v0"), finding.Pass)
		f := v.effective(t, "SYSCTL-RA-04", on("v0"), finding.Fail)
		if !strings.Contains(fmt.Sprint(f.Evidence), p.Wire.Addr.String()) && !strings.Contains(f.Message, p.Wire.Addr.String()) {
			t.Errorf("from %s: the rogue router %s is not named: %s %v", v.from, p.Wire.Addr, f.Message, f.Evidence)
		}
	}
	// The report's remedy, in its effect: delete what came by RA.
	p.Victim.IP("-6", "route", "flush", "proto", "ra")
	p.Victim.IP("-6", "addr", "flush", "dev", "v0", "scope", "global", "dynamic")
	p.Victim.IP("-6", "route", "flush", roguePrefix.String(), "dev", "v0") // on-link; the kernel calls its origin "kernel"
	for _, v := range both(t, p.Victim) {
		v.effective(t, "SYSCTL-RA-04", on("v0"), finding.Pass)
	}
}

// A router that keeps accept_ra=1 ignores every further RA: the default route
// it still has goes at a moment the report can name.
func TestForwardingLetsTheRAsDefaultRouteExpire(t *testing.T) {
	t.Parallel()
	p := testlab.NewPair(t, "exp")
	p.Victim.Sysctl("net/ipv6/conf/v0/accept_ra", "2")
	p.Victim.Sysctl("net/ipv6/conf/all/forwarding", "1")
	if !takesRA(p) {
		t.Fatal("accept_ra=2 did not take the RA")
	}
	p.Victim.Sysctl("net/ipv6/conf/v0/accept_ra", "1")
	before := time.Now()
	for _, v := range both(t, p.Victim) {
		f := v.effective(t, "SYSCTL-RA-15", on("v0"), finding.Fail)
		text := f.Message + fmt.Sprint(f.Evidence)
		if at, ok := momentIn(text); !ok {
			t.Errorf("from %s: the moment of expiry is not named: %s", v.from, text)
		} else if d := at.Sub(before); d < 1500*time.Second || d > 1900*time.Second {
			t.Errorf("from %s: expiry named as %v from now, want about 1800 s", v.from, d)
		}
	}
	// No further RA refreshes it …
	p.Wire.SendRA(rogueRA(9000))
	p.Barrier()
	if d := p.Victim.DefaultRoute(); !strings.Contains(d, "expires 1") || strings.Contains(d, "expires 8") {
		t.Errorf("the route was refreshed: %s", d)
	}
	// … and when its time is up it is gone for good.
	p.Victim.Sysctl("net/ipv6/conf/v0/accept_ra", "2")
	p.Wire.SendRA(rogueRA(1))
	p.Barrier()
	p.Victim.Sysctl("net/ipv6/conf/v0/accept_ra", "1")
	testlab.Eventually(t, 10*time.Second, "the default route to expire", func() bool {
		// The table shows an expired route until it is collected; lookups skip it at once.
		out, err := p.Victim.Command("ip", "-6", "route", "get", "2606:4700::1111").CombinedOutput()
		return err != nil || strings.Contains(string(out), "unreachable")
	})
}

// momentIn finds the first RFC 3339 time in a text.
func momentIn(s string) (time.Time, bool) {
	for i := 0; i+20 <= len(s); i++ {
		if at, err := time.Parse("2006-01-02T15:04:05Z", s[i:i+20]); err == nil && time.Until(at) > time.Minute {
			return at, true
		}
	}
	return time.Time{}, false
}

// Turning forwarding on deletes the RA's default route at that very moment.
func TestForwardingDeletesTheRAsDefaultRoute(t *testing.T) {
	t.Parallel()
	p := testlab.NewPair(t, "del")
	if !takesRA(p) {
		t.Fatal("the RA was not taken")
	}
	p.Victim.Sysctl("net/ipv6/conf/all/forwarding", "1")
	testlab.Eventually(t, 3*time.Second, "the kernel to purge the default route", func() bool { return p.Victim.DefaultRoute() == "" })
	for _, v := range both(t, p.Victim) {
		v.effective(t, "SYSCTL-RA-15", on("v0"), finding.Fail)
		v.effective(t, "SYSCTL-RA-01", on("v0"), finding.Pass)
	}
	if takesRA(p) {
		t.Error("the kernel took an RA although it forwards and accept_ra is 1")
	}
}
