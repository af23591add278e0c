package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/testlab"
)

// Namespaces nobody designed: settings drawn at random (from a fixed seed), one
// audit of all of them, then the same packets to each. No pass may be followed by
// the kernel doing it, no fail by the kernel refusing.
func TestRandomSettingsAgainstTheKernel(t *testing.T) {
	t.Parallel()
	pick := map[string][]string{
		"conf/all/forwarding":                {"0", "0", "1"},
		"conf/v0/forwarding":                 {"0", "1"},
		"conf/v0/accept_ra":                  {"-1", "0", "1", "1", "2"},
		"conf/all/accept_ra":                 {"0", "1", "2"},
		"conf/v0/accept_ra_defrtr":           {"0", "1"},
		"conf/v0/accept_ra_pinfo":            {"0", "1"},
		"conf/v0/autoconf":                   {"0", "1"},
		"conf/all/autoconf":                  {"0", "1"},
		"conf/v0/accept_ra_mtu":              {"0", "1"},
		"conf/v0/accept_ra_min_hop_limit":    {"1", "64"},
		"conf/v0/accept_ra_rt_info_max_plen": {"0", "64"},
		"conf/v0/accept_ra_rtr_pref":         {"0", "1", "1"},
		"conf/v0/max_addresses":              {"0", "4", "16"},
		"conf/v0/suppress_frag_ndisc":        {"0", "1"},
		"conf/all/suppress_frag_ndisc":       {"0", "1"},
		"conf/all/disable_ipv6":              {"0"},
	}
	order := []string{"conf/all/disable_ipv6", "conf/all/forwarding"}
	for k := range pick {
		if k != order[0] && k != order[1] {
			order = append(order, k)
		}
	}
	// all.forwarding first, because it overwrites every interface; the rest sorted,
	// so that the seed gives the same settings every time.
	slices.Sort(order[2:])

	const labs = 24
	rnd := rand.New(rand.NewPCG(66, 2026))
	type lab struct {
		p    *testlab.Pair
		desc string
	}
	var all []lab
	for range labs {
		p := testlab.NewPair(t, "rnd")
		var desc []string
		for _, k := range order {
			v := pick[k][rnd.IntN(len(pick[k]))]
			p.Victim.Sysctl("net/ipv6/"+k, v)
			desc = append(desc, strings.TrimPrefix(k, "conf/")+"="+v)
		}
		p.Victim.AddAddr("v0", victim6+"/64")
		all = append(all, lab{p, strings.Join(desc, " ")})
	}
	r := outside(t, all[0].p.Victim)
	decided := map[string]int{}
	for _, l := range all {
		r.netns = l.p.Victim.Name
		mtu, hops := l.p.Victim.ReadSysctl("net/ipv6/conf/v0/mtu"), l.p.Victim.ReadSysctl("net/ipv6/conf/v0/hop_limit")
		ra := rogueRA(1800)
		ra.HopLimit = 3
		ra.Options = append(ra.Options, testlab.MTUOption(1280), testlab.RouteInfo(netip.MustParsePrefix("2001:db8:77::/48"), 1, 600))
		l.p.Wire.SendRA(ra)
		l.p.Barrier()
		did := map[string]bool{
			"SYSCTL-RA-05": strings.Contains(l.p.Victim.DefaultRoute(), "proto ra"),
			"SYSCTL-RA-06": strings.Contains(l.p.Victim.IP("-6", "addr", "show", "dev", "v0")+l.p.Victim.IP("-6", "route", "show", "dev", "v0"), "2001:db8:bad:"),
			"SYSCTL-RA-08": strings.Contains(l.p.Victim.IP("-6", "route", "show"), "2001:db8:77::/48"),
			"SYSCTL-RA-09": l.p.Victim.ReadSysctl("net/ipv6/conf/v0/mtu") != mtu,
			"SYSCTL-RA-10": l.p.Victim.ReadSysctl("net/ipv6/conf/v0/hop_limit") != hops,
		}
		any := false
		for _, d := range did {
			any = any || d
		}
		did["SYSCTL-RA-01"] = any
		// A second router, in fragments.
		f := l.p.Wire.Frame()
		f.Src = testlab.LinkLocal(testlab.MAC{2, 0, 0, 0, 0, 77})
		l.p.Wire.Send(f.RA(rogueRA(1800)).Fragments(9, 24)...)
		l.p.Barrier()
		fragments := strings.Contains(l.p.Victim.DefaultRoute(), f.Src.String())
		for control, done := range did {
			v := r.one(t, control, on("v0"))
			switch {
			case v.Effective == finding.Pass && done:
				t.Errorf("%s passes, and the kernel did it: %s\n  %s", control, v.Message, l.desc)
			case v.Effective == finding.NotApplicable && done && control == "SYSCTL-RA-01":
				t.Errorf("%s is not applicable, and the kernel did it: %s\n  %s", control, v.Message, l.desc)
			// RA-01 covers everything an RA may carry; this one may have carried nothing that counts.
			case v.Effective == finding.Fail && !done && control != "SYSCTL-RA-01":
				t.Errorf("%s fails, and the kernel refused: %s\n  %s", control, v.Message, l.desc)
			}
			decided[fmt.Sprint(control, v.Effective)]++
		}
		v := r.one(t, "SYSCTL-ND-01", on("v0"))
		if v.Effective == finding.Pass && fragments {
			t.Errorf("SYSCTL-ND-01 passes, and a fragmented RA was taken: %s\n  %s", v.Message, l.desc)
		}
		if v.Effective == finding.Fail && !fragments && did["SYSCTL-RA-05"] {
			t.Errorf("SYSCTL-ND-01 fails, and the fragmented RA was refused: %s\n  %s", v.Message, l.desc)
		}
	}
	for _, c := range []string{"SYSCTL-RA-01", "SYSCTL-RA-05", "SYSCTL-RA-06", "SYSCTL-RA-08", "SYSCTL-RA-09", "SYSCTL-RA-10"} {
		if decided[c+"pass"] == 0 || decided[c+"fail"] == 0 {
			t.Errorf("%s: %d passes and %d fails in %d labs: nothing was compared", c, decided[c+"pass"], decided[c+"fail"], labs)
		}
	}
}

// A bridge takes what its ports bring; the port's own settings have no say.
func TestRAOnABridgeVerdict(t *testing.T) {
	t.Parallel()
	for _, bridge := range []string{"0", "1"} {
		for _, port := range []string{"0", "1"} {
			p := testlab.NewPair(t, "br")
			p.Victim.IP("link", "add", "br0", "type", "bridge")
			p.Victim.IP("link", "set", "v0", "master", "br0")
			p.Victim.IP("link", "set", "br0", "up")
			p.Victim.Sysctl("net/ipv6/conf/br0/accept_ra", bridge)
			p.Victim.Sysctl("net/ipv6/conf/v0/accept_ra", port)
			v := outside(t, p.Victim)
			for range 3 { // the bridge may still be learning
				p.Wire.SendRA(rogueRA(1800))
				time.Sleep(50 * time.Millisecond)
			}
			took := func() bool { return strings.Contains(p.Victim.DefaultRoute(), "dev br0 proto ra") }
			if bridge == "1" {
				testlab.Eventually(t, 5*time.Second, "the bridge to take the RA", func() bool {
					p.Wire.SendRA(rogueRA(1800))
					return took()
				})
			}
			if f := v.one(t, "SYSCTL-RA-01", on("br0")); f.Effective != verdict(took()) {
				t.Errorf("br0.accept_ra=%s v0.accept_ra=%s: verdict about br0 is %s, the kernel took the RA: %v", bridge, port, f.Effective, took())
			}
			if f := v.one(t, "SYSCTL-RA-01", on("v0")); f.Effective == finding.Fail {
				t.Errorf("br0.accept_ra=%s v0.accept_ra=%s: the port is blamed: %s", bridge, port, f.Message)
			}
			if strings.Contains(p.Victim.DefaultRoute(), "dev v0") {
				t.Errorf("the port took the RA itself: %s", p.Victim.DefaultRoute())
			}
		}
	}
}

// IPv6 switched off on an interface: not applicable, and nothing gets in.
func TestDisabledInterface(t *testing.T) {
	t.Parallel()
	p, _ := listenLab(t)
	p.Victim.Sysctl("net/ipv6/conf/v0/disable_ipv6", "1")
	for _, v := range both(t, p.Victim) {
		v.effective(t, "SYSCTL-RA-01", on("v0"), finding.NotApplicable)
	}
	p.Wire.SendRA(rogueRA(1800))
	if reaches(t, p.Attacker, victim4, 1) { // closed; the refusal came after the RA was handled
		t.Error("tcp/1 is open?")
	}
	if d := p.Victim.DefaultRoute(); d != "" {
		t.Errorf("an interface without IPv6 took an RA: %s", d)
	}
}
