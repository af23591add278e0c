package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/testlab"
)

// Rules of every make, a listener on every address, and connections over both
// families: an exposure is what packets show, and a filter for both ends it.
func TestOpenOverIPv6OnlyIsAnExposure(t *testing.T) {
	t.Parallel()
	ports := func(tool string) string {
		return tool + " -A INPUT -i lo -j ACCEPT && " + tool + " -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT && " + tool + " -A INPUT -p tcp --dport 22 -j ACCEPT && " + tool + " -P INPUT DROP"
	}
	both6 := func(tool string) string {
		return tool + " -A INPUT -p icmpv6 -j ACCEPT && " + ports(tool)
	}
	const chain = "chain input { type filter hook input priority 0; policy drop; iifname lo accept; ct state established,related accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query } accept; tcp dport 22 accept; };"
	for name, c := range map[string]struct {
		rules   string
		exposed bool
	}{
		"iptables-nft for IPv4 only":    {ports("iptables-nft"), true},
		"iptables-legacy for IPv4 only": {ports("iptables-legacy"), true},
		"nft table ip":                  {"nft 'table ip t { " + chain6less + " }'", true},
		"nft for both, IPv6 opened":     {"nft 'table inet t { " + strings.Replace(chain, "tcp dport 22 accept;", "tcp dport 22 accept; meta nfproto ipv6 tcp dport 5432 accept;", 1) + " }'", true},
		"iptables-nft for both":         {ports("iptables-nft") + " && " + both6("ip6tables-nft"), false},
		"iptables-legacy for both":      {ports("iptables-legacy") + " && " + both6("ip6tables-legacy"), false},
		"nft table inet":                {"nft 'table inet t { " + chain + " }'", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, s := listenLab(t)
			for _, tool := range []string{"nft", "iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"} {
				testlab.RequireTool(t, tool)
			}
			s.tcp("tcp6", "[::]:5432", 0)
			p.Victim.Run("sh", "-c", c.rules)
			v := alone(t, p.Victim)
			want := finding.Pass
			if c.exposed {
				want = finding.Fail
			}
			f := v.effective(t, "LISTEN-03", finding.Subject{Proto: "tcp", Port: 5432}, want)
			if c.exposed && f.Severity != finding.Critical {
				t.Errorf("severity %s, want critical", f.Severity)
			}
			v.Exposures = slices.DeleteFunc(v.Exposures, func(x finding.Exposure) bool { return x.NetNS != v.netns })
			i := slices.IndexFunc(v.Exposures, func(x finding.Exposure) bool { return x.Port == 5432 && x.Differs == "ipv6" })
			switch {
			case (i >= 0) != c.exposed:
				t.Errorf("exposures: %+v", v.Exposures)
			case i == 0 && (v.Exposures[0].IPv4.State != finding.AccessClosed || v.Exposures[0].IPv6.State != finding.AccessOpen || v.Exposures[0].IPv6.Witness == "" || len(v.Exposures[0].IPv4.DecidedBy) == 0):
				t.Errorf("exposure: %+v", v.Exposures[0])
			case i > 0:
				t.Error("it is not the first exposure")
			}
			if got := reaches(t, p.Attacker, victim6, 5432); got != c.exposed {
				t.Errorf("over IPv6 a connection succeeds: %v", got)
			}
			if reaches(t, p.Attacker, victim4, 5432) {
				t.Error("over IPv4 a connection succeeds")
			}
		})
	}
}

const chain6less = "chain input { type filter hook input priority 0; policy drop; iifname lo accept; ct state established,related accept; tcp dport 22 accept; };"

// A guard against router advertisements is one when it drops them, wherever it stands.
func TestRAGuardIsWhatItDrops(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rules  string
		guards bool
		names  string // in the evidence or message of a defeated guard
		hidden bool   // the advertisement goes behind a Hop-by-Hop header
	}{
		"netdev ingress":     {rules: "table netdev g { chain in { type filter hook ingress device v0 priority 0; icmpv6 type nd-router-advert drop; }; }", guards: true},
		"prerouting":         {rules: "table inet g { chain pre { type filter hook prerouting priority -450; icmpv6 type nd-router-advert drop; }; }", guards: true},
		"input":              {rules: "table ip6 g { chain in { type filter hook input priority 0; icmpv6 type nd-router-advert drop; }; }", guards: true},
		"one router":         {rules: "table ip6 g { chain in { type filter hook input priority 0; ip6 saddr != fe80::1234 icmpv6 type nd-router-advert drop; }; }", guards: true},
		"behind an accept":   {rules: "table ip6 g { chain in { type filter hook input priority 0; ip6 saddr fe80::/10 accept; icmpv6 type nd-router-advert drop; }; }", names: "ip6 g in"},
		"in no hook":         {rules: "table ip6 g { chain ra_guard { icmpv6 type nd-router-advert drop; }; chain in { type filter hook input priority 0; }; }", names: "ip6 g ra_guard"},
		"first header alone": {rules: "table ip6 g { chain in { type filter hook input priority 0; ip6 nexthdr icmpv6 icmpv6 type nd-router-advert drop; }; }", names: "Hop-by-Hop", hidden: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := testlab.NewPair(t, "guard")
			p.Victim.Run(testlab.RequireTool(t, "nft"), c.rules)
			want := finding.Fail
			if c.guards {
				want = finding.Pass
			}
			v := alone(t, p.Victim)
			f := v.effective(t, "RA-01", on("v0"), want)
			v.effective(t, "SYSCTL-RA-01", on("v0"), want)
			all := f.Message
			for _, e := range f.Evidence {
				all += "\n" + e.Key + ": " + e.Value
			}
			if !strings.Contains(all, c.names) {
				t.Errorf("nothing names %q:\n%s", c.names, all)
			}
			if c.hidden {
				f := p.Wire.Frame().RA(rogueRA(1800))
				f.Ext = []testlab.Ext{{Type: testlab.HdrHopByHop}}
				p.Wire.Send(f.Bytes())
				p.Barrier()
				if d := p.Victim.DefaultRoute(); !strings.Contains(d, "proto ra") {
					t.Errorf("the kernel did not take the hidden advertisement: %q", d)
				}
				return
			}
			if takesRA(p) == c.guards {
				t.Errorf("the kernel takes it: %v", !c.guards)
			}
		})
	}
}

// Errors that a filter drops never reach the connection they are about, and a datagram
// from ::ffff:127.0.0.1 does where no rule refuses it.
func TestMappedSourcesAndRules(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rules string
		open  bool
	}{
		"accepted": {"table inet t { chain in { type filter hook input priority 0; policy drop; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; udp dport 53 accept; }; }", true},
		"refused":  {"table inet t { chain pre { type filter hook prerouting priority -300; ip6 saddr ::ffff:0:0/96 drop; }; chain in { type filter hook input priority 0; policy drop; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; udp dport 53 accept; }; }", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, s := listenLab(t)
			k := s.udp("udp6", "[::]:53", 0)
			p.Victim.Run(testlab.RequireTool(t, "nft"), c.rules)
			v := alone(t, p.Victim)
			want := finding.Pass
			if c.open {
				want = finding.Fail
			}
			f := v.effective(t, "FW-20", finding.Subject{Address: "::ffff:0:0/96"}, want)
			if c.open && f.Severity != finding.High {
				t.Errorf("severity %s, want high", f.Severity)
			}
			forged := testlab.Frame{SrcMAC: p.Wire.MAC, DstMAC: p.VictimMAC, HopLimit: 64, Src: netip.MustParseAddr("::ffff:127.0.0.1"), Dst: netip.MustParseAddr(victim6)}
			p.Wire.Send(forged.UDP(4000, 53, []byte("?")).Bytes())
			_ = k.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			_, from, err := k.ReadFromUDPAddrPort(make([]byte, 16))
			if got := err == nil; got != c.open {
				t.Errorf("delivered %v (from %v)", got, from)
			}
		})
	}
}
