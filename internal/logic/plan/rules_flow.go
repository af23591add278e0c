package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/intent"
)

// How the open flows are matched, by what they are seen as.
const (
	liveIn6  = "meta l4proto . ip6 saddr . th sport . ip6 daddr . th dport @live6"
	liveIn4  = "meta l4proto . ip saddr . th sport . ip daddr . th dport @live4"
	liveOut6 = "meta l4proto . ip6 daddr . th dport . ip6 saddr . th sport @live6"
	liveOut4 = "meta l4proto . ip daddr . th dport . ip saddr . th sport @live4"
	liveSize = 65536
)

// services are what is accepted: as the packet has it, and as its sender had it.
func (g *generator) services() {
	c := g.chain("services", "")
	p := g.chain("published", "", "Ports that NAT leads elsewhere (containers, NodePorts): services are about what the sender asked for.")
	for i, v := range g.in.Services {
		path := "services." + v.Name
		if v.Name == "" {
			path = fmt.Sprintf("services[%d]", i)
		}
		in := g.interfaces(path, v.Interfaces)
		for _, m := range g.matches(path, v.From, v.To, v.Families, "@saddr", "@daddr") {
			for _, iif := range in {
				for _, port := range g.ports(path, v.Ports, false) {
					c.rule(path, iif, m, port, "counter accept")
				}
			}
		}
		for _, m := range g.matches(path, v.From, v.To, v.Families, "@saddr", "ct original @daddr") {
			for _, iif := range in {
				for _, port := range g.ports(path, v.Ports, true) {
					p.rule(path, iif, m, port, "counter accept")
				}
			}
		}
	}
	g.logDropped(p, "published")
	p.rule("not among services", "counter drop")
	if len(c.lines) == 0 {
		g.chains = slices.DeleteFunc(g.chains, func(x *chain) bool { return x == c })
	}
}

func (g *generator) has(name string) bool {
	return slices.ContainsFunc(g.chains, func(c *chain) bool { return c.name == name })
}

func (g *generator) interfaces(path string, keys []string) []string {
	if keys == nil {
		return []string{""}
	}
	var out []string
	for _, k := range keys {
		out = append(out, g.tests("iifname", path+".interfaces", k)...)
	}
	return out
}

// matches writes what addresses and families say, one entry for each rule that is needed.
func (g *generator) matches(path string, from, to []netip.Prefix, families []string, src, dst string) []string {
	for _, f := range families {
		if f != "ipv4" && f != "ipv6" {
			g.fault(path+".families", "ipv4 or ipv6", "%q is no family", f)
		}
	}
	var out []string
	want := map[bool]bool{}
	for _, v4 := range []bool{false, true} {
		switch {
		case v4 && (!g.v4 || g.in.Families == intent.IPv6Only), !v4 && (!g.v6 || g.no6):
			continue
		case families != nil && !slices.Contains(families, family(v4)):
			continue
		}
		f, t := g.split(path+".from", from, v4), g.split(path+".to", to, v4)
		if from != nil && len(f) == 0 || to != nil && len(t) == 0 {
			continue
		}
		want[v4] = true
		m := strings.TrimSpace(addresses(v4, src, f) + " " + addresses(v4, dst, t))
		if m == "" {
			m = "meta nfproto " + family(v4)
		}
		out = append(out, m)
	}
	if want[true] && want[false] && !strings.Contains(strings.Join(out, " "), "addr") {
		return []string{""}
	}
	if !g.v4 && len(out) == 1 && out[0] == "meta nfproto ipv6" {
		return []string{""} // nothing else comes here
	}
	return out
}

func family(v4 bool) string {
	if v4 {
		return "ipv4"
	}
	return "ipv6"
}

// ports writes one entry for each protocol. original asks for the port that the sender
// wrote.
func (g *generator) ports(path string, list []string, original bool) []string {
	if list == nil {
		return []string{""}
	}
	by := map[string][]span{}
	var order []string
	for _, s := range list {
		p, err := intent.ParsePort(s)
		if err != nil {
			g.fault(path+".ports", "write tcp/22, udp/1000-2000, esp or proto/112", "%v", err)
			continue
		}
		key := p.Name
		if p.Whole() {
			key = fmt.Sprintf("meta l4proto %d", p.Proto)
		}
		if _, ok := by[key]; !ok {
			order = append(order, key)
		}
		by[key] = append(by[key], span{p.From, p.To})
	}
	var out []string
	for _, k := range order {
		ss := spans(by[k])
		switch {
		case strings.HasPrefix(k, "meta"):
			out = append(out, k)
		case len(ss) == 1 && ss[0].from <= 1 && ss[0].to == 65535:
			out = append(out, "meta l4proto "+k)
		case original:
			for _, x := range ss { // nft cannot name the type of a list here
				out = append(out, "meta l4proto "+k+" ct original proto-dst "+x.String())
			}
		default:
			out = append(out, k+" dport "+portList(ss))
		}
	}
	return out
}

// input is what is for this host.
func (g *generator) input() {
	base, c := g.base("input")
	base.rule("", g.only6, `iifname "lo" accept`)
	if c != base {
		base.rule("", g.only6, "goto "+c.name)
	}
	if g.no6 {
		c.rule("families", "meta nfproto ipv6 counter drop")
	} else {
		c.rule("also what came by a bridge", "icmpv6 type", ndTypes, "jump nd")
	}
	if !g.no6 || g.v4 {
		c.rule("", `meta iifkind "bridge" jump spoofed`)
	}
	if g.v4 {
		// The host's own flows to published ports come back to loopback addresses.
		c.rule("this host's loopback", `meta iifkind "bridge" ct state new ct original ip daddr 127.0.0.0/8 counter drop`)
	}
	if len(g.tunnels.inDrop) > 0 {
		c.rule("", g.tunnels.guard, "jump tunnels_in")
	}
	if !g.no6 {
		c.rule("", "icmpv6 type echo-request jump echo6")
		c.rule("", "icmpv6 type echo-request counter accept")
	}
	if g.v4 {
		c.rule("", "icmp type echo-request jump echo4")
		c.rule("", "icmp type echo-request counter accept")
	}
	c.rule("", "ct state established,related counter accept")
	if !g.no6 {
		c.rule("open before this was loaded", liveIn6, "counter accept")
	}
	if g.v4 {
		c.rule("open before this was loaded", liveIn4, "counter accept")
	}
	if !g.no6 {
		types := "{ nd-neighbor-solicit, nd-neighbor-advert }"
		if g.sendsAdvertisements() {
			types = "{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }"
		}
		c.rule("", "icmpv6 type", types, "jump nd_limit")
		c.rule("", "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } counter accept")
		c.rule("MLD, also before an address is there", "ip6 saddr { ::, fe80::/10 } ip6 hoplimit 1 icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } counter accept")
		c.rule("inverse ND, SEND (RFC 4890 4.4.1)", "ip6 hoplimit 255 icmpv6 type { 141, 142, 148, 149 } accept")
		c.rule("multicast routers (RFC 4286)", "ip6 saddr fe80::/10 ip6 hoplimit 1 icmpv6 type { 151, 152, 153 } accept")
	}
	c.rule("", "ct state invalid counter drop")
	g.clients(c)
	c.rule("", "ct status dnat goto published")
	if g.has("services") {
		c.rule("", "jump services")
	}
	g.logDropped(c, "input")
	c.rule("not among services", "counter drop")
}

// base makes a base chain, and the chain for its rules: another one where IPv4 passes
// untouched.
func (g *generator) base(hook string) (base, rules *chain) {
	if g.v4 {
		c := g.chain(hook, "type filter hook "+hook+" priority filter; policy drop;")
		return c, c
	}
	r := g.chain(hook+"6", "")
	return g.chain(hook, "type filter hook "+hook+" priority filter; policy accept;"), r
}

// clients are the answers that conntrack does not know to be some.
func (g *generator) clients(c *chain) {
	if g.v4 {
		c.rule("IGMP", "ip daddr 224.0.0.0/4 meta l4proto igmp accept")
		if g.in.Families != intent.IPv6Only {
			c.rule("DHCPv4", "meta nfproto ipv4 udp sport 67 udp dport 68 counter accept")
		}
	}
	if g.no6 {
		return
	}
	for _, f := range g.ifaces {
		if f.Addressing == intent.NoIPv6 || f.Addressing != intent.DHCPv6 && f.DHCPv6Servers == nil {
			continue
		}
		path := "interfaces." + f.key + ".dhcpv6Servers"
		from := "fe80::/10"
		if len(f.DHCPv6Servers) > 0 {
			var list []string
			for _, d := range f.DHCPv6Servers {
				if !d.Address.Is6() || d.Address.Zone() != "" || d.Address.Is4In6() {
					g.fault(path, "write the link-local address of the server or relay, fe80::…", "%s is no such address", d.Address)
					continue
				}
				list = append(list, d.Address.String())
			}
			slices.Sort(list)
			if list = slices.Compact(list); len(list) == 0 {
				continue
			}
			from = braces(list)
		}
		for _, in := range f.tests("iifname") {
			c.rule(path, in, "ip6 saddr", from, "ip6 daddr fe80::/10 udp sport 547 udp dport 546 counter accept")
		}
	}
}

func (g *generator) logDropped(c *chain, what string) {
	if g.in.Logging.Dropped {
		c.rule("logging.dropped", "limit rate 10/minute burst 10 packets log prefix", quote(g.prefix+" drop-"+what+": "))
	}
}

// forward is what passes through.
func (g *generator) forward() {
	g.strangers()
	if !routes(g.in) {
		g.passing()
		return
	}
	if !g.no6 {
		echo := cmp.Or(g.in.Limits.EchoPerSecond, echoPerSecond)
		g.chain("transit", "", "ICMPv6 of no known flow may be for an address that nobody has: each makes a neighbour entry.").
			rule("limits.echoPerSecond", fmt.Sprintf("limit rate over %d/second burst %d packets counter drop", 10*echo, 20*echo))
	}
	base, c := g.base("forward")
	if c != base {
		base.rule("", g.only6, "goto "+c.name)
	}
	c.rule("", "ct state established,related counter accept")
	g.bridging(c)
	c.rule("routed for them", `meta iifkind "bridge" jump spoofed`)
	if g.no6 {
		c.rule("families", "meta nfproto ipv6 counter drop")
	} else {
		c.rule("", "rt type 0 counter drop")
	}
	g.away(c)
	if !g.no6 {
		const types = "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-reply }"
		c.rule("", types, "jump transit")
		c.rule("RFC 4890 4.3.1", types, "counter accept")
	}
	c.rule("", "ct state invalid counter drop")
	c.rule("", "ct status dnat jump strangers")
	for i, f := range g.in.Forwarding.Allow {
		path := fmt.Sprintf("forwarding.allow[%d]", i)
		ins, outs := []string{""}, []string{""}
		if f.InInterface != "" {
			ins = g.tests("iifname", path+".inInterface", f.InInterface)
		}
		if f.OutInterface != "" {
			outs = g.tests("oifname", path+".outInterface", f.OutInterface)
		}
		for _, m := range g.matches(path, f.From, f.To, f.Families, "@saddr", "@daddr") {
			for _, in := range ins {
				for _, out := range outs {
					for _, port := range g.ports(path, f.Ports, false) {
						c.rule(path, in, out, m, port, "counter accept")
					}
				}
			}
		}
	}
	if !g.no6 {
		c.rule("", "icmpv6 type echo-request jump echo6")
		c.rule("", "icmpv6 type echo-request jump transit")
		c.rule("RFC 4890 4.3.1", "icmpv6 type echo-request counter accept")
	}
	g.logDropped(c, "forward")
	c.rule("not among forwarding.allow", "counter drop")
}

// containerKinds are the interfaces that lead to containers and guests. What they ask
// each other is theirs, by published ports too, unless the intent names the interface.
const containerKinds = `meta iifkind { "bridge", "netkit", "openvswitch", "veth" }`

// strangers tells those who come in from outside from containers and guests.
func (g *generator) strangers() {
	c := g.chain("strangers", "")
	if len(g.uplinks) > 0 {
		for _, in := range ifTests("iifname", g.uplinks) {
			c.rule("", in, "goto published")
		}
	}
	c.rule("", containerKinds, "return")
	c.rule("", "goto published")
}

// bridging lets through what never leaves its bridge: with br_netfilter it comes here.
func (g *generator) bridging(c *chain) {
	for _, b := range g.bridges {
		if ifNameFault(b) == "" {
			c.rule("bridged guests", "iifname", quote(b), "oifname", quote(b), "accept")
		}
	}
	for _, f := range g.ifaces {
		for _, n := range f.names {
			if !strings.HasSuffix(n, "*") && !slices.Contains(g.bridges, n) {
				c.rule("bridged guests", "iifname", quote(n), `meta iifkind "bridge"`, "oifname", quote(n), "accept")
			}
		}
	}
}

// passing is the forward hook of a host that leaves it to others: only what NAT leads
// elsewhere is held to the services, and what nobody behind the host may have.
func (g *generator) passing() {
	c := g.chain("forward", "type filter hook forward priority filter; policy accept;", "What passes through is for others to decide (Docker, kube-proxy, libvirt), but for this.")
	c.rule("", g.only6, "ct state new ct status dnat jump strangers")
	c.rule("bridged guests", g.only6, `meta iifkind "bridge" meta oifkind "bridge" accept`)
	g.away(c)
}

// away drops what may neither leave this host nor pass it.
func (g *generator) away(c *chain) {
	if len(g.tunnels.outDrop) > 0 {
		c.rule("", g.tunnels.guard, "jump tunnels_through")
	}
	if m := g.in.Egress.Metadata; m == "root" || m == "deny" {
		g.metadata(c, "")
	}
}

func (g *generator) metadata(c *chain, who string) {
	if g.v6 && !g.no6 {
		c.rule("egress.metadata", "ip6 daddr { fd00:42::42, fd00:c1::a9fe:a9fe, fd00:ec2::254, fd20:ce::254, 64:ff9b::a9fe:a9fe }", who, "counter drop")
	}
	if g.v4 {
		c.rule("egress.metadata", "ip daddr { 100.100.100.200, 169.254.169.254 }", who, "counter drop")
	}
}

// output is what this host sends.
func (g *generator) output() {
	c := g.chain("output", "type filter hook output priority filter; policy accept;")
	c.rule("", g.only6, `oifname "lo" accept`)
	if g.no6 {
		c.rule("families", "meta nfproto ipv6 counter drop")
	}
	if len(g.tunnels.outDrop) > 0 {
		c.rule("", g.tunnels.guard, "jump tunnels_out")
	}
	switch g.in.Egress.Metadata {
	case "root":
		g.metadata(c, "meta skuid != 0")
	case "deny":
		g.metadata(c, "")
	case "", "allow":
	default:
		g.fault("egress.metadata", "allow, root or deny", "%q is no choice", g.in.Egress.Metadata)
	}
	for _, f := range []struct {
		v4, on bool
		intent.EgressFamily
	}{{false, g.v6 && !g.no6, g.in.Egress.IPv6}, {true, g.v4, g.in.Egress.IPv4}} {
		path := "egress." + family(f.v4)
		switch f.Default {
		case "", "allow":
			continue
		case "deny":
		default:
			g.fault(path+".default", "allow or deny", "%q is no choice", f.Default)
			continue
		}
		if !f.on {
			continue
		}
		e := &chain{name: "egress" + strings.TrimPrefix(family(f.v4), "ipv"), s: g.script}
		g.chains = slices.Insert(g.chains, len(g.chains)-1, e)
		g.egress(e, path, f.v4, f.EgressFamily)
		c.rule(path, "meta nfproto", family(f.v4), "goto", e.name)
	}
	if len(c.lines) == 1 {
		g.chains = slices.DeleteFunc(g.chains, func(x *chain) bool { return x == c })
	}
}

func (g *generator) egress(c *chain, path string, v4 bool, f intent.EgressFamily) {
	c.rule("", "ct state established,related accept")
	if v4 {
		c.rule("open before this was loaded", liveOut4, "accept")
		c.rule("IGMP", "meta l4proto igmp accept")
		c.rule("DHCPv4", "udp sport 68 udp dport 67 accept")
	} else {
		c.rule("open before this was loaded", liveOut6, "accept")
		types := "nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert"
		if g.sendsAdvertisements() {
			types = "nd-router-advert, " + types
		}
		c.rule("ND and MLD", "icmpv6 type {", types+", mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept")
		c.rule("errors", "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept")
		c.rule("DHCPv6", "ip6 saddr fe80::/10 udp sport 546 udp dport 547 accept")
	}
	for i, d := range f.Allow {
		at := fmt.Sprintf("%s.allow[%d]", path, i)
		to := g.split(at+".to", d.To, v4)
		if d.To != nil && len(to) != len(minimal(slices.Clone(d.To))) {
			g.fault(at+".to", "list it under the other family", "it has a prefix of the other family")
		}
		if d.To != nil && len(to) == 0 {
			continue
		}
		for _, port := range g.ports(at, d.Ports, false) {
			c.rule(at, addresses(v4, "@daddr", to), port, "counter accept")
		}
	}
	c.rule(path+".default", "counter reject with icmpx admin-prohibited")
}
