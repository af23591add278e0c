package oracle

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/reach"
)

// Matches that lie within each other, apart, and across: rules made of them shadow
// each other often.
var lintMatches = []string{
	"tcp dport 22", "tcp dport 1-100", "tcp dport { 22, 80 }", "tcp dport != 22", "udp dport 53", "meta l4proto tcp", "meta l4proto { tcp, udp }", "th dport 22",
	"ip saddr 10.0.0.0/8", "ip saddr 10.1.0.0/16", "ip saddr 10.1.2.3", "ip saddr != 10.1.0.0/16", "ip saddr & 255.0.255.0 == 10.0.2.0",
	"ip6 saddr 2a00::/16", "ip6 saddr 2a00:1::/32", "ip6 saddr { 2a00:1::/32, 2a00:2::/33 }", "ip6 saddr 2a00:1::-2a00:1::ffff",
	`iifname "eth0"`, `iifname "eth*"`, `iifname != "wlan1"`, `iif "eth0"`, "ct state new", "ct state established,related", "ct state invalid", "ct state { new, untracked }", "ct state != new",
	"meta nfproto ipv6", "meta nfproto ipv4", "icmpv6 type echo-request", "ip6 nexthdr icmpv6 icmpv6 type { 1, 2, 3, 4 }", "icmpv6 type { 133, 135, 136 }", "ip6 nexthdr ipv6-icmp icmpv6 type 135",
	"ip protocol icmp icmp type echo-request", "ip protocol icmp icmp type { 3, 11 }", "tcp flags syn", "tcp flags & (syn | ack) == syn", "tcp flags != syn",
	"meta mark 0", "meta mark 1", "meta mark & 0xf == 1", "exthdr frag exists", "exthdr hbh missing", "fib daddr type local", "ip6 hoplimit 64", "ip6 hoplimit != 64", "ip ttl < 65",
	"ip saddr . tcp dport { 10.1.2.3 . 22, 10.1.2.3 . 80 }", "tcp dport @ports", `oifname "eth0"`, "ip6 nexthdr tcp",
}

var lintEnds = []string{
	"accept", "drop", "accept", "drop", "accept", "drop", "accept", "drop", "return", "reject", "counter accept", "limit rate 1/hour burst 2 packets accept", "counter", "meta mark set 1",
	"ct mark set 1", "jump one", "jump two", "goto two", "tcp dport vmap { 22 : accept, 23-80 : drop, 443 : jump one }", "ct state vmap { established : accept, invalid : drop, new : continue }",
	"meta nfproto vmap { ipv4 : jump one, ipv6 : goto two }",
}

func lintRules(r *rand.Rand, chain string, n int) string {
	var b strings.Builder
	pick := func(s []string) string { return s[r.IntN(len(s))] }
	var earlier [][]string
	for range n {
		var w []string
		if len(earlier) > 0 && r.IntN(3) == 0 { // a narrower rule than one before
			w = slices.Clone(earlier[r.IntN(len(earlier))])
		}
		some := 1 + r.IntN(2)
		if len(w) > 0 {
			some = r.IntN(2)
		} else if r.IntN(25) == 0 {
			some = 0
		}
		for range some {
			w = append(w, pick(lintMatches))
		}
		earlier = append(earlier, w)
		end := pick(lintEnds)
		if chain == "one" && strings.Contains(end, "one") || chain == "two" && (strings.Contains(end, "two") || strings.Contains(end, "one")) {
			end = "accept"
		}
		if strings.Contains(strings.Join(w, " "), "fib") && chain == "forward" {
			continue
		}
		fmt.Fprintf(&b, "  %s comment \"x\"\n", strings.Join(append(w, end), " "))
	}
	return b.String()
}

// lintScript keeps connection tracking on whatever is deleted: a rule that never
// matches may still be the only one that asks for it.
func lintScript(r *rand.Rand) string {
	policy := []string{"accept", "drop"}[r.IntN(2)]
	return fmt.Sprintf(`table inet f {
 set ports { type inet_service; elements = { 22, 80 }; }
 chain keep { ct state new; }
 chain two {
%s }
 chain one {
%s }
 chain input {
  type filter hook input priority 0; policy %s;
%s }
 chain forward {
  type filter hook forward priority 0; policy %s;
%s }
}
`, lintRules(r, "two", 4), lintRules(r, "one", 5), policy, lintRules(r, "input", 14), policy, lintRules(r, "forward", 6))
}

func lintProbes(r *rand.Rand) (shapes []Shape, probes []Probe) {
	src := map[bool][]string{
		false: {"10.1.2.3", "10.1.9.9", "10.9.9.9", "9.9.9.9", "10.0.2.7", "10.2.2.1"},
		true:  {"2a00:1::1", "2a00:1:ffff::1", "2a00:2::1", "2a00:2:8000::1", "2a00:3::1", "2b00::1"},
	}
	for len(shapes) < 140 {
		s := Shape{IPv6: r.IntN(2) == 0, Iface: r.IntN(2), Forward: r.IntN(3) == 0, MAC: [2]byte{2, 0}, HopLimit: []uint8{64, 65, 255}[r.IntN(3)], Sport: 40000, Window: 1024, Body: 8}
		switch {
		case s.Forward && s.IPv6:
			s.Dst = netip.MustParseAddr("2001:db8:f::2")
		case s.Forward:
			s.Dst = netip.MustParseAddr("203.0.113.2")
		case s.IPv6:
			s.Dst = netip.MustParsePrefix(local6[s.Iface]).Addr()
		default:
			s.Dst = netip.MustParsePrefix(local4[s.Iface]).Addr()
		}
		switch r.IntN(4) {
		case 0, 1:
			s.Proto, s.Dport, s.Flags = protoTCP, []uint16{22, 80, 23, 99, 443, 101}[r.IntN(6)], []uint8{2, 2, 16, 18}[r.IntN(4)]
		case 2:
			s.Proto, s.Dport = protoUDP, []uint16{53, 22, 54}[r.IntN(3)]
		default:
			s.Proto, s.Type = protoICMP, []uint8{8, 3, 11, 0}[r.IntN(4)]
			if s.IPv6 {
				s.Proto, s.Type = protoICMPv6, []uint8{128, 1, 2, 3, 135, 136, 133, 129}[r.IntN(8)]
			}
		}
		if s.IPv6 && r.IntN(4) == 0 {
			s.Ext = append(s.Ext, reach.Ext{Number: []uint8{hopByHop, destOpts}[r.IntN(2)]})
			if r.IntN(2) == 0 {
				s.Ext = append(s.Ext, reach.Ext{Number: fragment, Frag: reach.Atomic})
			}
		}
		s.Ct = ctState(&s)
		for _, a := range src[s.IPv6] {
			probes = append(probes, Probe{len(shapes), netip.MustParseAddr(a)})
		}
		shapes = append(shapes, s)
	}
	return shapes, probes
}

// TestLintCallsNoLivingRuleDead deletes the rules that lint calls dead, and the
// kernel decides about every packet as before.
func TestLintCallsNoLivingRuleDead(t *testing.T) {
	rulesets := 25
	if n, err := strconv.Atoi(os.Getenv("ORACLE_LINT")); err == nil {
		rulesets = n
	}
	dead := []string{
		reach.LintDeadRule, reach.LintUnreachable, reach.LintDuplicate, reach.LintNeverMatches, reach.LintShadowedDrop, reach.LintShadowedLimit, reach.LintRedundantErrors,
	}
	l := NewLab(t)
	report := &Report{Coverage: NewCoverage(), Why: map[string]int{}}
	called, rules, verdicts, lossy := 0, 0, 0, 0
	kinds := map[string]int{}
	for seed := range rulesets {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		c := &Case{Seed: uint64(seed), Script: lintScript(r)}
		if err := l.load(c, report); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		set, err := c.Ruleset()
		if err != nil {
			t.Fatal(err)
		}
		var gone []reach.Lint
		for _, x := range reach.FromRuleset(set, binary.LittleEndian).Lint() {
			if slices.Contains(dead, x.ID) {
				gone = append(gone, x)
				kinds[x.ID]++
			}
		}
		for _, tab := range set.Tables {
			for _, ch := range tab.Chains {
				rules += len(ch.Rules)
			}
		}
		if len(gone) == 0 {
			continue
		}
		shapes, probes := lintProbes(r)
		before, err := l.Fire(shapes, probes)
		if err == nil {
			err = l.Load(c.Script)
		}
		if err != nil {
			t.Logf("seed %d: %v", seed, err)
			lossy++
			continue
		}
		// Handles count anew after a load: the first difference is found by place.
		for _, x := range gone {
			if out, err := l.host.Command(l.nft, "delete", "rule", "inet", "f", x.Chain, "handle", fmt.Sprint(x.Handle)).CombinedOutput(); err != nil {
				t.Fatalf("seed %d: delete %v: %s", seed, x, out)
			}
		}
		after, err := l.Fire(shapes, probes)
		if err != nil {
			t.Logf("seed %d: %v", seed, err)
			lossy++
			continue
		}
		called += len(gone)
		verdicts += len(probes)
		bad := 0
		for i := range probes {
			if before[i] != after[i] {
				if bad++; bad <= 3 {
					t.Errorf("seed %d: %+v from %v: %v with the rules that are called dead, %v without", seed, shapes[probes[i].Shape], probes[i].Src, before[i], after[i])
				}
			}
		}
		if bad > 0 {
			for _, x := range gone {
				t.Logf("%s %s %s: %s %v", x.ID, x.Chain, x.Rule, x.Message, x.Evidence)
			}
			t.Log(c.Script)
		}
	}
	t.Logf("%d of %d rules called dead in %d rulesets, %d verdicts compared, %d rounds lost: %v", called, rules, rulesets, verdicts, lossy, kinds)
	if called < rulesets || lossy > rulesets/4 {
		t.Errorf("%d rules called dead, %d rounds lost: that proves nothing", called, lossy)
	}
}
