package prove_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/testlab/hostview"
)

// rules changes the text of the planned table; old has to be in it.
func rules(old, new string) func(t *testing.T, p *change.Plan) {
	return func(t *testing.T, p *change.Plan) {
		t.Helper()
		for i := range p.Steps {
			if s := &p.Steps[i]; s.Kind == change.Table {
				if !strings.Contains(s.After.Text, old) {
					t.Fatalf("the rules have no %q:\n%s", old, s.After.Text)
				}
				s.After.Text = strings.Replace(s.After.Text, old, new, 1)
			}
		}
	}
}

// minus takes the first rule with a comment away.
func minus(comment string) func(t *testing.T, p *change.Plan) {
	return func(t *testing.T, p *change.Plan) {
		t.Helper()
		for i := range p.Steps {
			if s := &p.Steps[i]; s.Kind == change.Table {
				before, after, ok := strings.Cut(s.After.Text, `comment "`+comment+"\"\n")
				if !ok {
					t.Fatalf("no rule is about %q:\n%s", comment, s.After.Text)
				}
				s.After.Text = before[:strings.LastIndexByte(before, '\n')+1] + after
			}
		}
	}
}

// without takes the steps about a setting away.
func without(suffix string) func(t *testing.T, p *change.Plan) {
	return func(t *testing.T, p *change.Plan) {
		t.Helper()
		n := len(p.Steps)
		p.Steps = slices.DeleteFunc(p.Steps, func(s change.Step) bool {
			return s.Kind == change.Sysctl && strings.HasSuffix(s.Target, suffix)
		})
		if len(p.Steps) == n {
			t.Fatalf("no step sets %s", suffix)
		}
	}
}

func line(s string) string { return "\t\t" + s + "\n" }

// TestPlantedFaults: a plan that does something else than its intent is convicted, by a
// packet that shows it.
func TestPlantedFaults(t *testing.T) {
	v := host(t, "fault")
	v.Sysctl("net/ipv6/conf/v0/forwarding", "0")
	two := hostview.Snapshot(t, v)
	v.IP("link", "set", "v1", "down")
	v.IP("-6", "addr", "flush", "dev", "v1")
	one := hostview.Snapshot(t, v)
	const nd = "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect } jump nd"
	for _, c := range []struct {
		name, profile string
		plant         func(t *testing.T, p *change.Plan)
		group, shot   string // of a failure that there has to be
	}{
		{"redirects are taken", "slaac-vm", rules(`icmpv6 type nd-redirect counter drop comment "redirect"`, "icmpv6 type nd-redirect accept"), "neighbour discovery", "redirect"},
		{"hop limit is not looked at", "slaac-vm", rules(line(`ip6 hoplimit != 255 counter drop comment "not from this link"`), ""), "neighbour discovery", "hop limit 254"},
		{"extension headers pass", "slaac-vm", minus("behind an extension or fragment header"), "", "hop-by-hop"},
		{"code is not looked at", "slaac-vm", rules(line("icmpv6 code != 0 counter drop"), ""), "", "code 1"},
		{"every router is believed", "slaac-vm", rules("\t\tgoto rogue\n\t}", "\t\treturn\n\t}"), "router advertisements", "rogue RA: plain"},
		{"the router's MAC address is not looked at", "slaac-vm", rules("ip6 saddr fe80::1 ether saddr 52:54:00:00:00:01 counter return", "ip6 saddr fe80::1 counter return"), "router advertisements", "from another MAC"},
		{"the router itself is a rogue", "slaac-vm", rules("ip6 saddr fe80::1 ether saddr 52:54:00:00:00:01 counter return", "ip6 saddr fe80::2 counter return"), "router advertisements", "RA of the router"},
		{"advertisements are believed in another order", "slaac-vm", rules("\t\ticmpv6 type nd-router-advert goto ra\n", "\t\ticmpv6 type nd-router-advert accept\n"), "router advertisements", "rogue RA: plain"},
		{"before conntrack nobody looks at neighbour discovery", "slaac-vm", rules(line(nd)+line("goto spoofed"), line("goto spoofed")), "neighbour discovery", "fragments"},
		{"nexthdr instead of meta l4proto", "slaac-vm", rules("chain tunnels_out {\n\t\tmeta l4proto {", "chain tunnels_out {\n\t\tip6 nexthdr {"), "egress", "protocol 41"},
		{"nexthdr instead of meta nfproto", "slaac-vm", rules("meta nfproto ipv6 udp dport 53 counter accept", "ip6 nexthdr udp udp dport 53 counter accept"), "services", "udp/53 from afar behind destination options"},
		{"nexthdr instead of tcp dport", "static-server", rules("tcp dport { 80, 443, 8000-8010 } counter accept", "ip6 nexthdr 6 tcp dport { 80, 443, 8000-8010 } counter accept"), "services", "tcp/443"},
		{"one service is dropped", "slaac-vm", rules(line(`meta nfproto ipv6 udp dport 53 counter accept comment "services.dns"`), ""), "services", "udp/53"},
		{"a service is open to anybody", "slaac-vm", rules("ip6 saddr { 2001:db8:1::/64, 2001:db8:aa::/48 } tcp dport 22 counter accept", "tcp dport 22 counter accept"), "services", "tcp/22"},
		{"a prefix is one bit too wide", "slaac-vm", rules("ip6 saddr { 2001:db8:1::/64, 2001:db8:aa::/48 } tcp dport 22", "ip6 saddr { 2001:db8:1::/64, 2001:db8:aa::/47 } tcp dport 22"), "services", "tcp/22 from 2001:db8:ab"},
		{"a prefix is missing", "slaac-vm", rules("ip6 saddr { 2001:db8:1::/64, 2001:db8:aa::/48 } tcp dport 22", "ip6 saddr 2001:db8:1::/64 tcp dport 22"), "services", "tcp/22 from 2001:db8:aa"},
		{"a service of one family is open to both", "slaac-vm", rules("meta nfproto ipv6 tcp dport 53 counter accept", "tcp dport 53 counter accept"), "services", "tcp/53"},
		{"a port too many", "static-server", rules("8000-8010", "8000-8011"), "services", "tcp/8011"},
		{"the last rule accepts", "slaac-vm", rules("\t\tjump services\n\t\tcounter drop comment \"not among services\"", "\t\tjump services\n\t\tcounter accept comment \"not among services\""), "services", "tcp/23"},
		{"the policy accepts, and the last rule is gone", "slaac-vm", func(t *testing.T, p *change.Plan) {
			rules("\t\tjump services\n\t\tcounter drop comment \"not among services\"\n", "\t\tjump services\n")(t, p)
			rules("hook input priority filter; policy drop;", "hook input priority filter; policy accept;")(t, p)
		}, "services", "tcp/23"},
		{"services before what is invalid, and the limit after the accept", "slaac-vm", rules("\t\ticmpv6 type echo-request jump echo6\n\t\ticmpv6 type echo-request counter accept\n", "\t\ticmpv6 type echo-request counter accept\n\t\ticmpv6 type echo-request jump echo6\n"), "floods", "echo requests"},
		{"the limit of echo requests fails closed", "static-server", rules(`limit rate 1000/second burst 1000 packets counter return comment "the set is full"`+"\n\t\t"+`counter drop comment "the set is full, and so is this"`+"\n\t}\n\n\tchain services", "counter drop\n\t}\n\n\tchain services"), "full sets", "newcomer (IPv4)"},
		{"the limit of neighbour discovery fails closed", "static-server", rules(`goto nd_new comment "the set is full"`, "counter drop"), "full sets", "solicitation of a newcomer"},
		{"senders are not limited", "static-server", rules("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } jump nd_limit", "icmpv6 type 200 jump nd_limit"), "floods", "solicitations"},
		{"MLD is forgotten", "static-server", rules("mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } counter accept", "mld-listener-query } counter accept"), "MLD", "report"},
		{"MLD is dropped before an address is there", "static-server", rules("ip6 saddr { ::, fe80::/10 } ip6 hoplimit 1", "ip6 saddr fe80::/10 ip6 hoplimit 1"), "MLD", "from ::"},
		{"duplicate address detection is dropped", "static-server", rules("ip6 saddr :: return", "ip6 saddr :: counter drop"), "neighbour discovery", "duplicate address"},
		{"flows are not known again", "static-server", rules("ct state established,related counter accept", "ct state established counter accept"), "ICMPv6", "real packet too big"},
		{"errors about nothing are taken", "static-server", rules(line("ct state invalid counter drop"), line("icmpv6 type packet-too-big accept")), "ICMPv6", "forged packet too big"},
		{"forged sources are taken", "static-server", rules(line(`fib saddr . iif oif missing counter drop comment "no route back by this interface"`), ""), "forged sources", "behind another interface"},
		{"bogons are taken", "static-server", rules("5f00::/16, ", ""), "forged sources", "5f00::1"},
		{"routing header 0 is taken", "static-server", rules(line("rt type 0 counter drop"), ""), "routing headers", "routing header 0"},
		{"tunnels come in", "static-server", rules("\t\tjump tunnels_in\n", "\t\tmeta l4proto 41 accept\n"), "tunnels", "protocol 41"},
		{"tunnels go out", "static-server", rules("meta l4proto { 4, 41, 47, 94, 97, 98, 115, 137 } counter drop comment \"tunnels\"\n\t\tudp", "meta l4proto { 4, 94, 97, 98, 115, 137 } counter drop comment \"tunnels\"\n\t\tudp"), "egress", "protocol 47"},
		{"the DHCPv6 server is not heard", "dhcpv6", rules("ip6 saddr fe80::1 ip6 daddr fe80::/10 udp sport 547", "ip6 saddr fe80::2 ip6 daddr fe80::/10 udp sport 547"), "DHCP", "of the router"},
		{"every DHCPv6 server is heard", "dhcpv6", rules("ip6 saddr fe80::1 ip6 daddr fe80::/10 udp sport 547", "udp sport 547"), "DHCP", "of a rogue"},
		{"egress is open", "egress deny", rules("counter reject with icmpx admin-prohibited", "counter accept"), "egress", "udp/53"},
		{"everything is forwarded", "router", rules(`counter drop comment "not among forwarding.allow"`, `counter accept comment "not among forwarding.allow"`), "transit", "tcp/22"},
		{"nothing is forwarded", "router", rules("tcp dport 25 counter accept", "tcp dport 26 counter accept"), "transit", "tcp/25"},
		{"IPv6 is left on", "ipv4-only", without("v0/disable_ipv6"), "settings", "IPv6 is off"},
		{"advertisements are left on", "static-server", func(t *testing.T, p *change.Plan) {
			without("v0/accept_ra")(t, p)
			without("v0/accept_ra_pinfo")(t, p)
			without("v0/autoconf")(t, p)
		}, "settings", "advertisement of"},
		{"redirects are left on", "static-server", without("v0/accept_redirects"), "settings", "redirect"},
		{"advertisements are off where addresses come from them", "slaac-vm", func(_ *testing.T, p *change.Plan) {
			p.Steps = append(p.Steps, change.Step{ID: "x", Kind: change.Sysctl, Phase: change.Runtime, Target: "net/ipv6/conf/v0/accept_ra", After: change.Image{Text: "0"}})
		}, "addresses", "router's advertisement"},
		{"a setting that does not hold", "static-server", func(_ *testing.T, p *change.Plan) {
			p.Steps = append(p.Steps, change.Step{ID: "x", Kind: change.Sysctl, Phase: change.Runtime, Target: "net/ipv6/conf/v0/mtu", After: change.Image{Text: "10"}})
		}, "settings", "mtu"},
		{"our own table is empty", "static-server", func(_ *testing.T, p *change.Plan) {
			for i := range p.Steps {
				if p.Steps[i].Kind == change.Table {
					p.Steps[i].After.Text = "table inet sixfence { }\n"
				}
			}
		}, "router advertisements", "rogue RA: plain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := one // one interface is enough for most
			if c.profile == "router" {
				s = two
			}
			p := planFor(t, profiles()[c.profile], s)
			c.plant(t, p)
			got := proof(t, p, s)
			hit := slices.ContainsFunc(got.Failures, func(m change.Misfire) bool {
				return (c.group == "" || m.Group == c.group) && strings.Contains(m.Shot, c.shot) && m.Observed != "" && m.Expected != "" && (m.Packet != "" || m.Group == "settings")
			})
			if got.Status != change.Failed || !hit {
				t.Errorf("not convicted by a shot of %q like %q", c.group, c.shot)
				report(t, got)
			}
		})
	}
}
