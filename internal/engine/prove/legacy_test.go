package prove_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/testlab"
	"github.com/sixfence/sixfence/internal/testlab/hostview"
)

// TestXTables: what iptables has loaded on the host, of either back-end, is fired at as
// well, with the sets that it names.
func TestXTables(t *testing.T) {
	stopped := func(want ...string) func(p *change.Proof) bool {
		return func(p *change.Proof) bool {
			for _, w := range want {
				if !slices.ContainsFunc(p.Failures, func(m change.Misfire) bool {
					return m.Observed == "is stopped by another table" && strings.Contains(m.Shot, w) && m.Packet != ""
				}) {
					return false
				}
			}
			return !slices.ContainsFunc(p.Failures, func(m change.Misfire) bool {
				return !slices.ContainsFunc(want, func(w string) bool { return strings.Contains(m.Shot, w) })
			})
		}
	}
	together := func(n int) func(p *change.Proof) bool {
		return func(p *change.Proof) bool { return len(p.Together) == n && len(p.Held) == 0 }
	}
	not := func(what, why string) func(p *change.Proof) bool {
		return func(p *change.Proof) bool {
			return len(p.NotTogether) == 1 && strings.HasPrefix(p.NotTogether[0], what+": ") && strings.Contains(p.NotTogether[0], why)
		}
	}
	for _, c := range []struct {
		name, script string
		status       change.ProofStatus
		check        func(p *change.Proof) bool
	}{
		{"rules that stop no service, with extensions of many revisions", `
for t in iptables-legacy ip6tables-legacy; do
	$t -N USER
	$t -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
	$t -A INPUT -p tcp -m tcp --dport 25 -m limit --limit 3/min -j LOG --log-prefix "smtp "
	$t -A INPUT -p tcp -m multiport --dports 25,110,143 -m comment --comment "no mail" -j USER
	$t -A USER -p tcp -m hashlimit --hashlimit-above 5/sec --hashlimit-mode srcip --hashlimit-name a -j DROP
	$t -A USER -m recent --name bad --rcheck --seconds 60 -j DROP
	$t -A USER -m statistic --mode nth --every 3 --packet 0 -j REJECT
	$t -A OUTPUT -m owner --uid-owner 1000-2000 -p tcp --dport 25 -j REJECT
	$t -A OUTPUT -m owner ! --gid-owner 0 -j DROP
	$t -t mangle -A PREROUTING -j MARK --set-xmark 0x10/0xff
	$t -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
	$t -t raw -A PREROUTING -p udp --dport 5353 -j CT --notrack
done
iptables-legacy -t nat -A PREROUTING -d 203.0.113.77 -p tcp --dport 8080 -j DNAT --to-destination 192.0.2.80:80
iptables-legacy -t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE`, change.Proven, together(7)},
		{"a service is stopped, of IPv6", `ip6tables-legacy -A INPUT -p tcp --dport 443 -j REJECT --reject-with tcp-reset`, change.Failed, stopped("tcp/443 from")},
		{"a service is stopped where nothing is sent", `ip6tables-legacy -P OUTPUT DROP; ip6tables-legacy -A INPUT -p tcp --dport 443 -j DROP`, change.Failed, stopped("tcp/443 from")},
		{"a policy without a rule", `iptables-legacy -P INPUT DROP`, change.Failed, func(p *change.Proof) bool {
			return len(p.Failures) > 3 && !slices.ContainsFunc(p.Failures, func(m change.Misfire) bool { return strings.Contains(m.Packet, "::") })
		}},
		{"tables that do nothing", `iptables-legacy -L -n; ip6tables-legacy -t nat -L -n`, change.Proven, together(0)},
		{"a set stops a service", `
for n in a b c; do ipset create $n hash:net family inet; done
ipset create six hash:net family inet6
ipset create ports bitmap:port range 0-1000
ipset create all list:set size 4
ipset destroy a; ipset destroy b
ipset add c 203.0.113.0/26; ipset add c 203.0.113.9 nomatch; ipset add six 2001:db8:aa::/64; ipset add ports 22; ipset add all c
iptables-legacy -A INPUT -m set --match-set all src -m set --match-set ports dst -j DROP
ip6tables-legacy -A INPUT -m set --match-set six src -j DROP`, change.Failed, stopped("tcp/22 from 2001:db8:aa::5", "tcp/22 from 203.0.113.5")},
		{"a set of iptables-nft stops a service", `
ipset create gone hash:ip; ipset create some hash:ip timeout 600; ipset destroy gone
ipset add some 203.0.113.5
iptables-nft -A INPUT -p tcp -m tcp --dport 22 -m set --match-set some src -j DROP`, change.Failed, stopped("tcp/22 from 203.0.113.5")},
		{"iptables-nft stops a service, by a protocol's own match", `ip6tables-nft -A INPUT -p tcp -m tcp --dport 443 -m multiport --sports 1024:65535 -j REJECT --reject-with tcp-reset`, change.Failed, stopped("tcp/443 from")},
		{"a program decides", `iptables-legacy -A INPUT -p tcp -j NFQUEUE --queue-num 3`, change.Partial, not("iptables (legacy) table filter", "NFQUEUE")},
		{"a program decides, of iptables-nft", `ip6tables-nft -A INPUT -p tcp -j NFQUEUE --queue-num 3`, change.Partial, not("table ip6 filter", "NFQUEUE")},
		{"what reaches out of the namespace", `iptables-legacy -A INPUT -j AUDIT --type accept`, change.Partial, not("iptables (legacy) table filter", "AUDIT")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, tool := range []string{"iptables-legacy", "ip6tables-legacy", "iptables-nft", "ipset"} {
				testlab.RequireTool(t, tool)
			}
			v := host(t, "xt")
			v.Run("sh", "-ec", c.script)
			s := hostview.Snapshot(t, v)
			p := plan.New(profiles()["static-server"], s, plan.Options{Namespace: s.Namespaces[0].Name, Decode: hostview.Decode})
			p.Refusals = nil // the model has its own opinion of them
			got := proof(t, &p, s)
			if got.Status != c.status || !c.check(got) {
				t.Errorf("want %s", c.status)
				report(t, got)
			}
		})
	}
}
