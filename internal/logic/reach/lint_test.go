package reach_test

import (
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/testlab/corpus"
)

func lintOf(t *testing.T, script string) []reach.Lint {
	t.Helper()
	return reach.FromRuleset(load(t, script), binary.LittleEndian).Lint()
}

func show(ls []reach.Lint) string {
	var b strings.Builder
	for _, l := range ls {
		b.WriteString(l.Severity + " " + l.ID + " " + l.Table + " " + l.Chain + " [" + l.Rule + "] " + l.Message + " (" + strings.Join(l.Evidence, "; ") + ") -> " + l.Remedy + "\n")
	}
	return b.String()
}

// TestLintOfArticle: every defect of a published ruleset that can be seen in the
// rules themselves is reported.
func TestLintOfArticle(t *testing.T) {
	b, err := os.ReadFile("testdata/article.nft")
	if err != nil {
		t.Fatal(err)
	}
	ls := lintOf(t, string(b))
	for _, want := range []struct{ id, in string }{
		{reach.LintShadowedLimit, "icmp type echo-request"},    // the ICMPv4 limit is dead
		{reach.LintUnusedSet, "icmpv6_meter"},                  // the set against floods is used by nothing
		{reach.LintUnhookedChain, "ra_guard"},                  // the RA guard has no hook
		{reach.LintRAFromAnyone, "fe80::/10"},                  // "only from link-local" keeps nobody out
		{reach.LintICMPv6Blocked, "membership"},                // MLD is dropped
		{reach.LintNextHeader, "nd-neighbor-solicit"},          // the first header only
		{reach.LintNextHeader, "nd-router-advert"},             //
		{reach.LintNDUnguarded, "hop limit 254"},               // no 255, no limit per sender
		{reach.LintNDUnguarded, "at any rate"},                 //
		{reach.LintLateLimit, "echo-request"},                  // behind established
		{reach.LintSharedLimit, "echo-request"},                // one bucket for all
		{reach.LintSharedLimit, "log"},                         //
		{reach.LintDHCPv6Blocked, "[fe80::1]:547"},             // the DHCPv6 client is cut off
		{reach.LintRSAccepted, "only routers"},                 // RS on a host
		{reach.LintForwardsNothing, "IPv6"},                    // containers are cut off
		{reach.LintNoAntiSpoof, "fib saddr"},                   // no reverse path check
		{reach.LintRedundantErrors, "destination-unreachable"}, // errors are related or invalid
		{reach.LintEmptyBase, "output"},                        // nothing is filtered on output
	} {
		if !slices.ContainsFunc(ls, func(l reach.Lint) bool {
			return l.ID == want.id && strings.Contains(strings.ReplaceAll(l.Message, "ipv6", "IPv6")+l.Rule+l.Remedy+l.Chain+strings.Join(l.Evidence, " "), want.in)
		}) {
			t.Errorf("no %s about %q", want.id, want.in)
		}
	}
	if t.Failed() {
		t.Log(show(ls))
	}
}

func TestLint(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		want   []string // kinds above info, sorted
	}{
		"good": {`table inet f {
 chain input { type filter hook input priority 0; policy drop;
  iif lo accept
  ct state vmap { established : accept, related : accept, invalid : drop }
  icmpv6 type { echo-request, destination-unreachable, packet-too-big, time-exceeded, parameter-problem, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept
  icmp type echo-request accept
  ip saddr 192.0.2.0/24 tcp dport 22 accept
  ip6 saddr 2001:db8::/32 tcp dport 22 accept
  tcp dport { 80, 443 } accept
  tcp dport 113 reject with tcp reset
  limit rate 5/minute log prefix "drop: "
 }
}`, nil},
		"dead by order": {guarded(`tcp dport 22 accept
  ip6 saddr 2001:db8:bad::/48 tcp dport 22 drop
  tcp dport { 22, 80 } accept
  tcp dport 80 accept
  tcp dport 22 accept`), []string{"dead-rule", "duplicate-rule", "shadowed-drop"}},
		"prefix over address": {guarded(`ip saddr 10.0.0.0/8 accept
  ip saddr 10.1.2.3 drop
  ip6 saddr 2001:db8::/33 drop
  ip6 saddr 2001:db8:7fff::/48 tcp dport 22 accept`), []string{"dead-rule", "shadowed-drop"}},
		"several rules cover one": {guarded(`tcp dport 1-1000 accept
  tcp dport 1001-2000 accept
  tcp dport 900-1100 drop
  tcp dport 1900-2001 drop`), []string{"shadowed-drop"}},
		"after an unconditional verdict": {guarded("counter accept"), []string{"unreachable-rule"}},
		"contradictions": {guarded(`ip saddr 192.0.2.1 ip saddr 192.0.2.2 accept
  ct state new icmpv6 type nd-neighbor-solicit ip6 saddr fe80::/10 accept
  meta l4proto udp th dport 22 meta l4proto tcp accept
  oifname "eth0" accept`), []string{"never-matches", "never-matches", "never-matches", "never-matches"}},
		"not dead": {guarded(`tcp dport 22 limit rate 5/second accept
  tcp dport 22 drop
  meta mark set 1
  meta mark 1 accept
  meta mark 1 drop
  th dport 0-65535 accept
  tcp dport 80 accept
  udp dport 53 accept`), nil},
		"next header": {guarded("ip6 nexthdr tcp tcp dport 22 drop\n  ip6 nexthdr icmpv6 accept\n  ip6 nexthdr { 43, 60 } drop"), []string{"ip6-nexthdr", "ip6-nexthdr"}},
		"filled sets": {`table inet f {
 set s { type ipv6_addr; size 128; flags dynamic,timeout; timeout 1m; }
 set o { type ipv6_addr; size 128; flags dynamic; }
 chain input { type filter hook input priority 0; policy accept;
  tcp dport 22 add @o { ip6 saddr limit rate over 5/second } drop
  icmpv6 type echo-request update @s { ip6 saddr limit rate 5/second } accept
  icmpv6 type echo-request drop
 }
}`, []string{"dynset-fail-closed", "dynset-fail-open"}},
		"unused and unhooked": {`table inet f {
 set s { type ipv6_addr; }
 map m { type ipv6_addr : verdict; }
 counter c { }
 chain lost { tcp dport 22 drop
 }
 chain nothing { }
 chain input { type filter hook input priority 0; policy accept;
  tcp dport 23 drop
  jump nothing
 }
}`, []string{"jump-to-empty", "unhooked-chain", "unused-object", "unused-set", "unused-set"}},
		"accepts everything": {`table inet f { chain input { type filter hook input priority 0; policy accept;
  tcp dport 22 accept
  ct state established accept
 }
}`, []string{"accepts-everything"}},
		"IPv6 forgotten": {`table ip f { chain input { type filter hook input priority 0; policy drop;
  ct state established,related accept
  tcp dport 22 accept
 }
}`, []string{"one-family-filtered"}},
		"answers dropped, essentials dropped": {`table inet f { chain input { type filter hook input priority 0; policy drop;
  tcp dport 22 accept
 }
}`, []string{"established-missing", "established-missing", "icmpv6-blocked"}},
		"several chains drop": {`table inet a { chain input { type filter hook input priority 0; policy drop; accept; }; }
table ip6 b { chain input { type filter hook input priority 10; policy drop; accept; }; }`, []string{"several-drop-policies"}},
		"asleep": {`table inet f { flags dormant; chain input { type filter hook input priority 0; policy drop; }; }`, []string{"dormant-table"}},
		"logs without limit": {guarded(`tcp dport 23 log prefix "telnet " drop
  limit rate 1/second jump logged`, ` chain logged { log
  drop
 }`), []string{"log-unlimited"}},
		"dead in a chain that one rule calls": {guarded(`tcp dport 22 ip6 saddr 2001:db8::/32 accept
  tcp dport 22 jump ssh
  jump twice
  udp dport 22 jump twice`, ` chain ssh { ip6 saddr 2001:db8:1::/48 drop
  udp dport 22 accept
  tcp dport 22 drop
 }
 chain twice { ip6 saddr 2001:db8:2::/48 drop
 }`), []string{"never-matches", "shadowed-drop"}},
	} {
		t.Run(name, func(t *testing.T) {
			ls := lintOf(t, c.script)
			var got []string
			for _, l := range ls {
				if l.Severity != reach.Info {
					got = append(got, l.ID)
				}
				if l.Message == "" || l.Remedy == "" || l.Severity == "" || l.Evidence == nil {
					t.Errorf("%s is not complete", l.ID)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v\n%s", got, c.want, show(ls))
			}
		})
	}
}

// guarded is an input chain that has nothing wrong before the rules.
func guarded(rules string, more ...string) string {
	return `table inet f {
` + strings.Join(more, "\n") + `
 chain input { type filter hook input priority 0; policy accept;
  ` + rules + `
  tcp dport 65000 drop
 }
}`
}

// TestRemedyKeepsConnectionTracking: the only rule that asks for ct may be dead, and its
// deletion is no clean-up, because the kernel then stops to put fragments together.
func TestRemedyKeepsConnectionTracking(t *testing.T) {
	for script, keeps := range map[string]bool{
		"table ip6 t { chain in { type filter hook input priority 0; accept; ct state established accept; }; }":                                                                                       true,
		"table ip6 t { chain in { type filter hook input priority 0; accept; tcp dport 22 accept; }; }":                                                                                               false,
		"table ip6 t { chain in { type filter hook input priority 0; ct state invalid drop; accept; ct state established accept; }; }":                                                                false,
		"table ip6 t { chain in { type filter hook input priority 0; accept; ct state established accept; }; chain n { type nat hook postrouting priority 100; masquerade; }; }":                      false,
		"table ip6 t { chain in { type filter hook input priority 0; accept; ct state established accept; }; }; table ip t { chain in { type filter hook input priority 0; ct state new accept; }; }": true,
	} {
		dead := 0
		for _, l := range lintOf(t, script) {
			if l.ID != reach.LintUnreachable && l.ID != reach.LintDuplicate {
				continue
			}
			dead++
			if strings.Contains(l.Remedy, "connection tracking") != keeps {
				t.Errorf("%s: %s", script, l.Remedy)
			}
		}
		if dead != 1 {
			t.Errorf("%s: %d dead rules", script, dead)
		}
	}
}

// TestAbsentInterface: a rule that waits for an interface which the host does not have is
// named, and nothing is said of patterns, of negations and of rulesets without a host.
func TestAbsentInterface(t *testing.T) {
	e, err := corpus.Read("article")
	if err != nil {
		t.Fatal(err)
	}
	set := load(t, `table inet t { chain in { type filter hook input priority 0;
		iifname "eth0" tcp dport 1 accept
		iifname "etho" tcp dport 2 accept
		iifname { "eth0", "wan7" } tcp dport 3 accept
		iifname "tun*" tcp dport 4 accept
		iifname != "dmz0" tcp dport 5 accept
	}; }`)
	var got []string
	for _, l := range reach.WithRules(e.Snapshot, &e.Snapshot.Namespaces[0], set.Tables, binary.LittleEndian).Lint() {
		if l.ID == reach.LintAbsentInterface {
			got = append(got, strings.Fields(l.Message)[4])
		}
	}
	if !slices.Equal(got, []string{"etho", "wan7"}) {
		t.Errorf("absent: %q", got)
	}
	if ls := reach.FromRuleset(set, binary.LittleEndian).Lint(); slices.ContainsFunc(ls, func(l reach.Lint) bool { return l.ID == reach.LintAbsentInterface }) {
		t.Errorf("without a host: %s", show(ls))
	}
}
