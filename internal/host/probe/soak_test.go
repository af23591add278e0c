package probe

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/testlab"
)

// snooper is a switch that snoops and queries: the kernel's own bridge. A group is gone three
// seconds after its last report.
const snooper = "mcast_snooping 1 mcast_query_interval 100 mcast_query_response_interval 50 mcast_membership_interval 300 " +
	"mcast_startup_query_interval 100 mcast_startup_query_count 1 mcast_querier_interval 300 mcast_mld_version "

// switched is a target and a vantage behind a bridge, which is in a namespace of its own.
func switched(t *testing.T, bridge string, before func(target *testlab.NS)) *lab {
	t.Helper()
	l := &lab{t: t, target: newHost(t, "skt"), client: newHost(t, "skc"), v4: netip.MustParseAddr("192.0.2.2"), v6: netip.MustParseAddr("2001:db8::2")}
	b := newHost(t, "skb")
	b.IP(append([]string{"link", "add", "br0", "type", "bridge"}, strings.Fields(bridge)...)...)
	// It floods for as long as an answer may take at the time when it becomes a querier.
	if strings.Contains(bridge, "mcast_mld_version") {
		b.IP("link", "set", "br0", "type", "bridge", "mcast_querier", "1")
	}
	for n, i := range map[*testlab.NS]string{l.target: "t0", l.client: "c0"} {
		testlab.Link(n, i, b, "p"+i)
		b.IP("link", "set", "p"+i, "master", "br0")
	}
	b.IP("link", "set", "br0", "up")
	// A querier has no say before it has an address.
	testlab.Eventually(t, 20*time.Second, "the link-local address of the bridge", func() bool {
		return strings.Contains(b.IP("-6", "addr", "show", "dev", "br0"), "fe80::")
	})
	if before != nil {
		before(l.target)
	}
	l.number()
	return l
}

// soak soaks an address, and goes on with an earlier soak.
func (l *lab) soak(a netip.Addr, d time.Duration, ctx context.Context, known *model.SavedSoak) (got *model.Soak, saved *model.SavedSoak) {
	l.t.Helper()
	l.client.Do(func() {
		p, err := Open(Options{Addr: a, Spec: &model.Spec{}})
		if err != nil {
			l.t.Error(err)
			return
		}
		defer p.Close()
		k, none, err := p.Soak(d)
		if err != nil || none != nil {
			got = none
			if err != nil {
				l.t.Error(err)
			}
			return
		}
		defer k.Close()
		k.Know(known)
		if got, err = k.Run(ctx, nil); err != nil {
			l.t.Error(err)
		}
		saved = k.Saved(time.Now())
	})
	if got == nil {
		l.t.Error("nothing is known")
		got = &model.Soak{}
	}
	return got, saved
}

const mldIn = "table inet f {\nchain i {\ntype filter hook input priority 0; policy drop;\nicmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, echo-request } accept\n"

// TestSoak: the kernel's bridge is the switch, and its querier the querier.
func TestSoak(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	for name, c := range map[string]struct {
		bridge, rules string
		sysctl        string // of the target
		ll, v4        bool
		late          bool // the rules have been there for longer than a membership interval
		time          time.Duration
		verdict       model.SoakVerdict
		why           string
		version       int
		always        bool // lost from the beginning
		talks         bool // the kernel of the vantage talks to it all the time
	}{
		"no rules":                {bridge: snooper + "2", time: 5 * time.Second, verdict: model.SoakKept, version: 2},
		"good rules":              {bridge: snooper + "2", rules: mldIn + "ip6 saddr { ::, fe80::/10 } icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept\n}\n}\n", time: 5 * time.Second, verdict: model.SoakKept, version: 2},
		"queries dropped":         {bridge: snooper + "2", rules: mldIn + "}\n}\n", time: time.Minute, verdict: model.SoakLost, version: 2},
		"beside a conversation":   {bridge: snooper + "2", rules: mldIn + "}\n}\n", talks: true, time: time.Minute, verdict: model.SoakLost, version: 2},
		"queries by first header": {bridge: snooper + "2", rules: mldIn + "ip6 nexthdr icmpv6 icmpv6 type mld-listener-query accept\n}\n}\n", time: time.Minute, verdict: model.SoakLost, version: 2},
		"reports dropped":         {bridge: snooper + "2", rules: "table inet f {\nchain o {\ntype filter hook output priority 0;\nicmpv6 type { mld-listener-report, mld2-listener-report } drop\n}\n}\n", time: time.Minute, verdict: model.SoakLost, version: 2},
		"lost for long":           {bridge: snooper + "2", rules: mldIn + "}\n}\n", late: true, time: time.Minute, verdict: model.SoakLost, always: true},
		"link-local":              {bridge: snooper + "2", rules: mldIn + "}\n}\n", ll: true, time: time.Minute, verdict: model.SoakLost, version: 2},
		"version 1 of the host":   {bridge: snooper + "2", sysctl: "net/ipv6/conf/t0/force_mld_version", time: 5 * time.Second, verdict: model.SoakKept, version: 2},
		"version 1 of the link":   {bridge: snooper + "1", time: 8 * time.Second, verdict: model.SoakKept, version: 1},
		"no snooping":             {bridge: "mcast_snooping 0", rules: mldIn + "}\n}\n", time: 4 * time.Second, verdict: model.SoakUnknown, why: "no MLD querier was heard"},
		"no querier":              {bridge: "mcast_snooping 1", rules: mldIn + "}\n}\n", time: 4 * time.Second, verdict: model.SoakUnknown, why: "no MLD querier was heard"},
		"too short":               {bridge: "mcast_snooping 1 mcast_startup_query_interval 100 mcast_startup_query_count 60 mcast_mld_version 2", time: 4 * time.Second, verdict: model.SoakUnknown, why: "--soak=4m30s", version: 2},
		"IPv4":                    {bridge: snooper + "2", v4: true, time: 4 * time.Second, verdict: model.SoakKept},
		"IPv4, broadcasts dropped": {
			bridge: snooper + "2", v4: true, time: 4 * time.Second, verdict: model.SoakLost, always: true,
			rules: "table netdev f {\nchain i {\ntype filter hook ingress device t0 priority 0;\nether daddr ff:ff:ff:ff:ff:ff drop\n}\n}\n",
		},
	} {
		l := switched(t, c.bridge, func(target *testlab.NS) {
			if c.sysctl != "" {
				target.Sysctl(c.sysctl, "1")
			}
			if c.late {
				rules(target, t, c.rules)
			}
		})
		a := l.v6
		switch {
		case c.ll:
			a = l.ll
		case c.v4:
			a = l.v4
		}
		if c.v4 && c.always { // who has it in its table finds it, and notices nothing
			l.client.IP("neigh", "replace", a.String(), "lladdr", hardwareOf(t, l.target, "t0"), "dev", "c0", "nud", "stale")
		}
		if c.rules != "" && !c.late {
			rules(l.target, t, c.rules)
		}
		if c.talks { // and asks at the MAC address again and again, from the address that asks here
			l.client.Sysctl("net/ipv6/neigh/c0/base_reachable_time_ms", "600")
			l.client.Sysctl("net/ipv6/neigh/c0/delay_first_probe_time", "1")
			l.client.Start("ping", "-6", "-i0.3", a.String())
		}
		// All at the same time: they wait more than they work.
		all.Go(func() {
			ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
			defer stop()
			for end := time.Now().Add(time.Minute); c.late && time.Now().Before(end); {
				_ = l.client.Command("ip", "-6", "neigh", "flush", "dev", "c0").Run()
				if l.client.Command("ping", "-6", "-c1", "-W1", a.String()).Run() != nil {
					break // a cold neighbour of another make does not find it
				}
			}
			got, _ := l.soak(a, c.time, ctx, nil)
			if got.Verdict != c.verdict || !strings.Contains(got.Why, c.why) || c.why == "" && got.Why != "" || c.version != 0 && got.QuerierVersion != c.version {
				t.Errorf("%s: %+v\nwant %+v", name, got, c)
			}
			if (got.LostAfter != nil) != (c.verdict == model.SoakLost) || got.LostAfter != nil && (*got.LostAfter == 0) != c.always {
				t.Errorf("%s: lost after %v, always %v", name, got.LostAfter, c.always)
			}
			if got.Group.Sent+got.Direct.Sent > int(c.time/time.Second)+60 {
				t.Errorf("%s: %d and %d questions in %s", name, got.Group.Sent, got.Direct.Sent, c.time)
			}
			if c.talks && l.client.Command("ping", "-6", "-c1", "-W9", a.String()).Run() != nil {
				t.Errorf("%s: who knows it lost it too: nothing is shown", name)
			}
			if c.verdict == model.SoakLost && got.Direct.Answered == 0 {
				t.Errorf("%s: nothing shows that the target is there", name)
			}
		})
	}
	all.Wait()
}

func hardwareOf(t *testing.T, n *testlab.NS, name string) (mac string) {
	t.Helper()
	n.Do(func() {
		i, err := net.InterfaceByName(name)
		if err != nil {
			t.Error(err)
			return
		}
		mac = i.HardwareAddr.String()
	})
	return mac
}

// TestSoakGoesOn: what was cut short is gone on with, and nothing that is not there is
// called found.
func TestSoakGoesOn(t *testing.T) {
	t.Parallel()
	l := switched(t, snooper+"2", nil)
	var beside sync.WaitGroup
	beside.Go(func() {
		got, _ := l.soak(netip.MustParseAddr("2001:db8::77"), 5*time.Second, context.Background(), nil)
		if got.Verdict != model.SoakUnknown || got.Why != "nobody answers for it on this link" {
			t.Errorf("nobody: %+v", got)
		}
	})
	defer beside.Wait()
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Second)
	defer stop()
	got, saved := l.soak(l.v6, time.Hour, ctx, nil)
	if got.Verdict != model.SoakUnknown || got.Why != "the run was cut short" || got.Group.Answered == 0 || saved == nil {
		t.Fatalf("%+v, %+v", got, saved)
	}
	s := model.Saved{Addresses: []model.SavedAddress{{Address: l.v6, Soak: saved}}}
	if x := s.SoakOf(l.v6, netip.Addr{}, saved.Last.Add(time.Hour)); x != nil {
		t.Errorf("after an hour it goes on: %+v", x)
	}
	known := s.SoakOf(l.v6, netip.Addr{}, time.Now())
	ctx, stop = context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	again, _ := l.soak(l.v6, 8*time.Second, ctx, known)
	if again.Verdict != model.SoakKept || again.Group.Sent <= got.Group.Sent || again.Seconds < 8 || again.Seconds > 90 {
		t.Errorf("%+v", again)
	}
	got, _ = l.soak(netip.MustParseAddr("2001:db8::1"), 5*time.Second, ctx, nil)
	if got.Verdict != model.SoakUnknown || got.Why != "the probes do not leave this host" {
		t.Errorf("itself: %+v", got)
	}
	l.client.IP("-6", "route", "add", "2001:db8:5::/64", "via", "2001:db8::2")
	got, _ = l.soak(netip.MustParseAddr("2001:db8:5::1"), 5*time.Second, ctx, nil)
	if got.Verdict != model.SoakUnknown || !strings.Contains(got.Why, "a router is between") {
		t.Errorf("routed: %+v", got)
	}
}

// TestSoakForReal: the intervals are those that a switch has out of the box. It takes five
// minutes, and so runs when it is asked for (make verify-soak).
func TestSoakForReal(t *testing.T) {
	if os.Getenv("VERIFY_SOAK") == "" {
		t.Skip("make verify-soak")
	}
	var all sync.WaitGroup
	for name, c := range map[string]struct {
		rules   string
		verdict model.SoakVerdict
	}{
		"no rules":        {"", model.SoakKept},
		"queries dropped": {mldIn + "}\n}\n", model.SoakLost},
		"reports dropped": {"table inet f {\nchain o {\ntype filter hook output priority 0;\nicmpv6 type { mld-listener-report, mld2-listener-report } drop\n}\n}\n", model.SoakLost},
	} {
		l := switched(t, "mcast_snooping 1 mcast_mld_version 2", nil)
		if c.rules != "" {
			rules(l.target, t, c.rules)
		}
		all.Go(func() {
			got, _ := l.soak(l.v6, model.SoakTime, context.Background(), nil)
			t.Logf("%s: %+v", name, *got)
			if got.LostAfter != nil {
				t.Logf("%s: lost after %v s", name, *got.LostAfter)
			}
			if got.Verdict != c.verdict || got.Interval != 260 {
				t.Errorf("%s: %+v", name, got)
			}
		})
	}
	all.Wait()
}
