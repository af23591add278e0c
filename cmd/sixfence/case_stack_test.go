package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/testlab"
)

// stackLab is one setting of one control, and the packet that shows what the
// kernel makes of it.
type stackLab struct {
	control string
	set     []string // path below net/ipv6, value …
	subject func(netns string) finding.Subject
	before  func(*testlab.Pair)      // before the audit
	did     func(*testlab.Pair) bool // after it
	p       *testlab.Pair
}

func (l *stackLab) name() string { return l.control + " " + strings.Join(l.set, " ") }

var trueSource = netip.MustParseAddr("2001:db8:1::a")

// answers sends frames and tells whether the victim sent an echo reply.
func answers(p *testlab.Pair, id uint16, frames ...[]byte) bool {
	p.Wire.Send(frames...)
	return p.Wire.Receive(400*time.Millisecond, testlab.IsEchoReply(id)) != nil
}

// toVictim starts a frame from an on-link neighbour to the victim's address.
func toVictim(p *testlab.Pair) testlab.Frame {
	return testlab.Frame{SrcMAC: p.Wire.MAC, DstMAC: p.VictimMAC, HopLimit: 64, Src: trueSource, Dst: netip.MustParseAddr(victim6)}
}

// TestStackVerdictsAreWhatTheKernelDoes compares verdicts about single settings
// with the kernel's answer to a packet: the interface's value against all's, the
// smaller of both, either of them.
func TestStackVerdictsAreWhatTheKernelDoes(t *testing.T) {
	t.Parallel()
	var labs []*stackLab
	add := func(control string, did func(*testlab.Pair) bool, before func(*testlab.Pair), set ...string) {
		labs = append(labs, &stackLab{control: control, set: set, did: did, before: before})
	}

	// A type 4 routing header with no segment left: processed, the echo in it is answered.
	srh := func(p *testlab.Pair) bool {
		f := toVictim(p)
		body := append([]byte{2, 4, 0, 0, 0, 0, 0}, f.Dst.AsSlice()...)
		f.Ext = []testlab.Ext{{Type: 43, Body: body}}
		return answers(p, 40, f.Echo(40, 1).Bytes())
	}
	for _, v := range [][2]string{{"0", "0"}, {"1", "0"}, {"0", "1"}, {"1", "1"}, {"-1", "0"}, {"0", "-1"}} {
		add("SYSCTL-SR-02", srh, nil, "conf/all/seg6_enabled", v[0], "conf/v0/seg6_enabled", v[1])
	}
	for _, v := range [][2]string{{"1", "0"}, {"0", "1"}, {"1", "1"}} {
		add("SYSCTL-ND-04", func(p *testlab.Pair) bool {
			f := toVictim(p)
			f.DstMAC = testlab.MAC{0x33, 0x33, 0, 0, 0, 1}
			return answers(p, 41, f.Echo(41, 1).Bytes())
		}, nil, "conf/all/drop_unicast_in_l2_multicast", v[0], "conf/v0/drop_unicast_in_l2_multicast", v[1])
	}
	for _, v := range [][3]string{{"0", "0", "1"}, {"0", "1", "1"}, {"1", "0", "1"}, {"1", "1", "1"}} {
		add("SYSCTL-ICMP-02", func(p *testlab.Pair) bool {
			f := toVictim(p)
			f.DstMAC, f.Dst = testlab.MAC{0x33, 0x33, 0, 0, 0, 1}, netip.IPv6LinkLocalAllNodes()
			return answers(p, 42, f.Echo(42, 1).Bytes())
		}, nil, "icmp/echo_ignore_all", v[0], "icmp/echo_ignore_multicast", v[1], "icmp/echo_ignore_anycast", v[2])
	}
	// An entry for exactly the address, (all or interface), and forwarding.
	proxied := netip.MustParseAddr("2001:db8:1::99")
	for _, v := range [][4]string{{"1", "0", "1", "y"}, {"0", "1", "1", "y"}, {"1", "1", "0", "y"}, {"1", "1", "1", "n"}} {
		entry := v[3] == "y"
		add("SYSCTL-FWD-05", func(p *testlab.Pair) bool {
			f := p.Wire.Frame()
			f.DstMAC, f.Dst = p.VictimMAC, netip.MustParseAddr("ff02::1:ff00:99")
			p.Wire.Send(f.NS(proxied, p.Wire.MAC).Bytes())
			return p.Wire.Receive(500*time.Millisecond, func(b []byte) bool {
				typ, _, target, ok := testlab.ND(b)
				return ok && typ == 136 && target == proxied
			}) != nil
		}, func(p *testlab.Pair) {
			p.Victim.Sysctl("net/ipv6/neigh/v0/proxy_delay", "0")
			if entry {
				p.Victim.IP("-6", "neigh", "add", "proxy", proxied.String(), "dev", "v0")
			}
		}, "conf/all/proxy_ndp", v[0], "conf/v0/proxy_ndp", v[1], "conf/v0/forwarding", v[2])
	}
	// An advertisement that nobody asked for.
	stranger := netip.MustParseAddr("2001:db8:1::77")
	na := func(p *testlab.Pair) {
		f := p.Wire.Frame()
		f.Src = stranger
		p.Wire.Send(f.NA(stranger, 0x20, p.Wire.MAC).Bytes())
		p.Barrier()
	}
	for _, v := range [][2]string{{"1", "0"}, {"1", "1"}, {"2", "1"}, {"0", "1"}} {
		add("SYSCTL-ND-03", func(p *testlab.Pair) bool {
			na(p)
			return strings.Contains(p.Victim.IP("-6", "neigh", "show", "dev", "v0"), stranger.String()+" ")
		}, nil, "conf/v0/accept_untracked_na", v[0], "conf/v0/forwarding", v[1])
	}
	for _, v := range [][2]string{{"0", "0"}, {"1", "0"}, {"0", "1"}} {
		add("SYSCTL-ND-02", func(p *testlab.Pair) bool {
			na(p)
			return strings.Contains(p.Victim.IP("-6", "neigh", "show", stranger.String(), "dev", "v0"), p.Wire.MAC.String())
		}, func(p *testlab.Pair) {
			p.Victim.IP("-6", "neigh", "add", stranger.String(), "lladdr", "02:00:00:00:00:0c", "nud", "reachable", "dev", "v0")
		}, "conf/all/drop_unsolicited_na", v[0], "conf/v0/drop_unsolicited_na", v[1])
	}
	// Does the interface ask for routers when it comes up?
	for _, v := range [][2]string{{"0", "-1"}, {"1", "0"}, {"1", "-1"}, {"1", "3"}} {
		add("SYSCTL-RA-13", func(p *testlab.Pair) bool {
			p.Victim.Sysctl("net/ipv6/conf/v0/router_solicitation_delay", "0")
			p.Victim.IP("link", "set", "v0", "down")
			p.Victim.IP("link", "set", "v0", "up")
			testlab.Eventually(t, 10*time.Second, "the interface to be up again", func() bool { return p.Victim.HasAddr(p.VictimLL) })
			return p.Wire.Receive(3*time.Second, func(b []byte) bool { return len(b) > 54 && b[20] == testlab.ProtoICMPv6 && b[54] == 133 }) != nil
		}, nil, "conf/v0/accept_ra", v[0], "conf/v0/router_solicitations", v[1])
	}
	// Forty prefixes in advertisements: more addresses than the default of 16?
	for _, v := range []string{"0", "16"} {
		add("SYSCTL-RA-14", func(p *testlab.Pair) bool {
			for i := range 40 {
				p.Wire.SendRA(testlab.RA{Options: [][]byte{testlab.PrefixInfo(netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::/64", 0x1000+i)), 3600, 1800)}})
			}
			p.Barrier()
			return strings.Count(p.Victim.IP("-6", "-o", "addr", "show", "dev", "v0"), " inet6 2001:db8:10") > 16
		}, nil, "conf/all/max_addresses", "1", "conf/v0/max_addresses", v, "conf/v0/accept_ra", "1")
	}
	// What a router may claim.
	for _, v := range []string{"0", "180"} {
		add("SYSCTL-RA-11", func(p *testlab.Pair) bool {
			p.Wire.SendRA(testlab.RA{Lifetime: 60})
			p.Barrier()
			return p.Victim.DefaultRoute() != ""
		}, nil, "conf/v0/accept_ra_min_lft", v, "conf/v0/accept_ra", "1")
	}
	for _, v := range []string{"0", "1"} {
		add("SYSCTL-RA-07", func(p *testlab.Pair) bool {
			p.Wire.SendRA(testlab.RA{Lifetime: 1800, Preference: 1})
			p.Barrier()
			return strings.Contains(p.Victim.DefaultRoute(), "pref high")
		}, nil, "conf/v0/accept_ra_rtr_pref", v, "conf/v0/accept_ra", "1")
	}
	// A second interface on the link, with settings of its own.
	for _, v := range []string{"0", "1"} {
		labs = append(labs, &stackLab{
			control: "SYSCTL-RA-01", set: []string{"conf/v0/accept_ra", "0", "conf/all/accept_ra", "0"},
			subject: func(ns string) finding.Subject { return finding.Subject{NetNS: ns, Interface: "m0.7"} },
			before: func(p *testlab.Pair) {
				p.Victim.IP("link", "add", "m0.7", "link", "v0", "type", "macvlan", "mode", "bridge")
				p.Victim.Sysctl("net/ipv6/conf/m0.7/accept_ra", v)
				p.Victim.Sysctl("net/ipv6/conf/m0.7/accept_dad", "0")
				p.Victim.IP("link", "set", "m0.7", "up")
			},
			did: func(p *testlab.Pair) bool {
				p.Wire.SendRA(rogueRA(1800))
				p.Barrier()
				until := time.Now().Add(2 * time.Second) // macvlan delivers multicast from a work queue
				for !strings.Contains(p.Victim.DefaultRoute(), "dev m0.7") && time.Now().Before(until) && v == "1" {
					time.Sleep(10 * time.Millisecond)
				}
				return strings.Contains(p.Victim.DefaultRoute(), "dev m0.7")
			},
		})
		// An interface that appears after the audit.
		labs = append(labs, &stackLab{
			control: "SYSCTL-RA-02", set: []string{"conf/all/accept_ra", "0", "conf/default/accept_ra", v},
			subject: func(ns string) finding.Subject {
				return finding.Subject{NetNS: ns, Key: "net.ipv6.conf.default.accept_ra"}
			},
			did: func(p *testlab.Pair) bool {
				testlab.Link(p.Attacker, "late1", p.Victim, "late0")
				w := p.Attacker.Wire("late1")
				until := time.Now().Add(2 * time.Second)
				for time.Now().Before(until) {
					w.SendRA(rogueRA(1800))
					if strings.Contains(p.Victim.DefaultRoute(), "dev late0") {
						return true
					}
					if v == "0" && time.Until(until) < 1500*time.Millisecond {
						return false
					}
					time.Sleep(50 * time.Millisecond)
				}
				return false
			},
		})
	}
	// No link-local address of its own: multicast reaches it all the same.
	add("SYSCTL-RA-01", func(p *testlab.Pair) bool {
		p.Wire.SendRA(rogueRA(1800))
		testlab.Eventually(t, 5*time.Second, "a default route", func() bool { return p.Victim.DefaultRoute() != "" })
		return true
	}, func(p *testlab.Pair) { p.Victim.IP("-6", "addr", "flush", "dev", "v0", "scope", "link") },
		"conf/v0/addr_gen_mode", "1", "conf/v0/accept_ra", "1")

	for _, l := range labs {
		l.p = testlab.NewPair(t, "stk")
		l.p.Victim.AddAddr("v0", victim6+"/64")
		l.p.Victim.IP("-6", "neigh", "add", trueSource.String(), "lladdr", l.p.Wire.MAC.String(), "nud", "permanent", "dev", "v0")
		l.p.Attacker.AddAddr("a0", trueSource.String()+"/64")
		if !strings.HasPrefix(l.control, "SYSCTL-RA-") {
			l.p.Victim.Sysctl("net/ipv6/conf/v0/accept_ra", "0")
		}
		for i := 0; i+1 < len(l.set); i += 2 {
			l.p.Victim.Sysctl("net/ipv6/"+l.set[i], l.set[i+1])
		}
		if l.before != nil {
			l.before(l.p)
		}
	}
	r := outside(t, labs[0].p.Victim)
	decided := map[string]int{}
	for _, l := range labs {
		r.netns = l.p.Victim.Name
		sub := on("v0")
		if l.subject != nil {
			sub = l.subject(r.netns)
		} else if l.control == "SYSCTL-ICMP-02" {
			sub = finding.Subject{NetNS: r.netns}
		}
		v := r.one(t, l.control, sub)
		did := l.did(l.p)
		if v.Effective != verdict(did) {
			t.Errorf("%s: verdict %s, the kernel did it: %v\n  %s", l.name(), v.Effective, did, v.Message)
		}
		decided[fmt.Sprint(l.control, did)]++
	}
	for _, l := range labs {
		if decided[l.control+"true"] == 0 || decided[l.control+"false"] == 0 {
			t.Errorf("%s: %d times yes and %d times no: nothing was compared", l.control, decided[l.control+"true"], decided[l.control+"false"])
		}
	}
}

// accept_dad=2 hands a neighbour the switch of the interface, when the address
// is made from the MAC; 1 costs the address only.
func TestAcceptDADIsASwitch(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		all, v0 string
	}{{"0", "1"}, {"0", "2"}, {"2", "1"}, {"1", "0"}} {
		p := testlab.NewPair(t, "dad")
		p.Victim.Sysctl("net/ipv6/conf/all/accept_dad", x.all)
		p.Victim.Sysctl("net/ipv6/conf/v0/accept_dad", x.v0)
		v := outside(t, p.Victim).one(t, "SYSCTL-ND-05", on("v0"))
		p.Attacker.AnswerDAD("a0")
		p.Victim.IP("link", "set", "v0", "down")
		p.Victim.IP("link", "set", "v0", "up")
		off := false
		until := time.Now().Add(4 * time.Second)
		for !off && time.Now().Before(until) {
			p.Victim.Do(func() {
				b, err := os.ReadFile("/proc/sys/net/ipv6/conf/v0/disable_ipv6")
				off = err == nil && strings.TrimSpace(string(b)) == "1"
			})
			if strings.Contains(p.Victim.IP("-6", "addr", "show", "dev", "v0"), "dadfailed") {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if v.Effective != verdict(off) {
			t.Errorf("accept_dad all=%s v0=%s: verdict %s, the kernel switched the interface off: %v\n  %s", x.all, x.v0, v.Effective, off, v.Message)
		}
	}
}
