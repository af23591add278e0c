package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/intent"
)

// ndTypes are the messages of neighbour discovery (RFC 4861).
const ndTypes = "{ nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect }"

// generator writes the rules of a site.
type generator struct {
	*site
	*script
	v4, v6  bool   // families that rules are written for
	no6     bool   // the host has no IPv6: all of it is dropped
	only6   string // a test where IPv4 is left alone
	only    string // a test of the family, where rules are about one
	prefix  string // of log lines
	tunnels tunnelRules
}

// rules writes the table, or nothing where the firewall is not ours.
func (s *site) rules() string {
	v4, v6 := manages(s.in)
	if !v4 && !v6 {
		return ""
	}
	g := &generator{site: s, script: &script{site: s}, v4: v4, v6: v6, no6: disabled(s.in), prefix: cmp.Or(s.in.Logging.Prefix, "sixfence")}
	if !v4 {
		g.only6 = "meta nfproto ipv6"
	}
	g.only = g.only6
	if g.no6 {
		g.only = "meta nfproto ipv4"
	}
	if why := commentFault(g.prefix); why != "" || len(g.prefix) > 64 {
		s.fault("logging.prefix", "use a short word", "the prefix %s", cmp.Or(why, "is too long: 64 bytes are the most"))
	}
	g.tunnels = s.tunnelRules()
	g.seeds()
	g.tunnelChains()
	if !g.no6 {
		g.advertisements()
		g.discovery()
	}
	if !g.no6 || g.v4 {
		g.spoofing()
		g.early()
		g.limits()
	}
	g.services()
	g.input()
	g.forward()
	g.output()
	return g.String()
}

// seeds are the flows that are open when the rules are loaded.
func (g *generator) seeds() {
	about := "\t# Connections that were open when this was loaded, which conntrack learns of only when\n\t# somebody speaks: protocol . remote address . remote port . local address . local port\n"
	for _, f := range []struct {
		on           bool
		name, family string
	}{{g.v6 && !g.no6, "live6", "ipv6_addr"}, {g.v4, "live4", "ipv4_addr"}} {
		if f.on {
			g.sets = append(g.sets, fmt.Sprintf("%s\tset %s {\n\t\ttype inet_proto . %s . inet_service . %s . inet_service\n\t\tsize %d\n\t\tflags timeout\n\t}\n", about, f.name, f.family, f.family, liveSize))
			about = ""
		}
	}
}

func dynset(name, typ string, size int, timeout string) string {
	return fmt.Sprintf("\tset %s {\n\t\ttype %s\n\t\tsize %d\n\t\tflags dynamic,timeout\n\t\ttimeout %s\n\t}\n", name, typ, size, timeout)
}

// log writes what a drop says in the kernel log; empty when guards are to be silent.
func (g *generator) log(what string) string {
	if g.in.Logging.Guards != nil && !*g.in.Logging.Guards {
		return ""
	}
	return "limit rate 6/minute burst 5 packets log prefix " + quote(g.prefix+" "+what+": ") + " level warn"
}

// advertisements are the routers that are believed, by interface.
func (g *generator) advertisements() {
	c := g.chain("ra", "", "Router Advertisements: who is not listed is a rogue.")
	for i, f := range g.ifaces {
		for j, r := range f.Routers {
			path := fmt.Sprintf("interfaces.%s.routers[%d]", f.key, j)
			// A static address has a router to pin it, and believes none.
			if f.Addressing == intent.Static || !f.believes(r) {
				continue
			}
			who := g.router(path, r)
			for _, in := range ifTests("iifname", f.names) {
				c.rule(path, in, who, "counter return")
			}
		}
		// A less specific entry must not believe its routers here.
		if later := slices.ContainsFunc(g.ifaces[i+1:], func(o iface) bool { return len(o.Routers) > 0 && overlap(f.names, o.names) }); later {
			for _, in := range ifTests("iifname", f.names) {
				c.rule("interfaces."+f.key, in, "goto rogue")
			}
		}
	}
	c.rule("", "goto rogue")
	rogue := &chain{name: "rogue", s: g.script}
	// It is jumped to, and so stands in front.
	g.chains = append([]*chain{rogue}, g.chains...)
	if l := g.log("rogue-ra"); l != "" {
		rogue.rule("", l)
	}
	rogue.rule("rogue Router Advertisement", "counter drop")
}

func overlap(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			px, py := strings.TrimSuffix(x, "*"), strings.TrimSuffix(y, "*")
			if x == y || x != px && strings.HasPrefix(py, px) || y != py && strings.HasPrefix(px, py) {
				return true
			}
		}
	}
	return false
}

// router matches what a declared router sends.
func (g *generator) router(path string, r intent.Router) string {
	if !r.Address.Is6() || !r.Address.IsLinkLocalUnicast() || r.Address.Zone() != "" {
		g.fault(path+".address", "routers speak from their link-local address, fe80::…, without %eth0", "%s is no link-local address", r.Address)
		return "ip6 saddr ::"
	}
	out := "ip6 saddr " + r.Address.String()
	if r.MAC != "" {
		if !isMAC(r.MAC) {
			g.fault(path+".mac", "write it as 52:54:00:00:00:01", "%q is no MAC address", r.MAC)
			return "ip6 saddr ::"
		}
		out += " ether saddr " + strings.ToLower(r.MAC)
	}
	return out
}

func isMAC(s string) bool {
	if len(s) != 17 {
		return false
	}
	for i, c := range strings.ToLower(s) {
		if i%3 == 2 && c != ':' || i%3 != 2 && !strings.ContainsRune("0123456789abcdef", c) {
			return false
		}
	}
	return true
}

// discovery is what every message of neighbour discovery must be.
func (g *generator) discovery() {
	c := g.chain("nd", "", "Neighbour discovery as RFC 4861 and RFC 6980 have it: from this link, whole, bare.")
	c.rule("not from this link", "ip6 hoplimit != 255 counter drop")
	// The number: nft asks /etc/protocols for the name, which a small host does not have.
	c.rule("behind an extension or fragment header", "ip6 nexthdr != 58 counter drop")
	c.rule("", "icmpv6 code != 0 counter drop")
	c.rule("redirect", "icmpv6 type nd-redirect counter drop")
	if !g.sendsAdvertisements() {
		c.rule("role", "icmpv6 type nd-router-solicit counter drop")
	}
	c.rule("", "icmpv6 type nd-router-advert goto ra")
}

// sendsAdvertisements tells whether neighbours may ask this host for a router.
func (g *generator) sendsAdvertisements() bool {
	return g.in.Role == intent.RoleRouter || g.in.Role == intent.RoleHypervisor || g.in.Role == intent.RoleKubernetesNode
}

// spoofing drops sources that cannot be.
func (g *generator) spoofing() {
	c := g.chain("spoofed", "", "Sources that nobody can have, and those that come in by the wrong interface (BCP 38).")
	if !g.no6 {
		c.rule("", "rt type 0 counter drop")
		c.rule("no sender's address", "ip6 saddr "+braces(g.bogons6()), "counter drop")
		c.rule("", "ip6 daddr ::1 counter drop")
	}
	if g.v4 {
		c.rule("no sender's address", "ip saddr { 0.0.0.1-0.255.255.255, 127.0.0.0/8, 224.0.0.0/3 } counter drop")
		c.rule("DHCPv4", "meta nfproto ipv4 udp sport 67 udp dport 68 return")
		c.rule("", "ip saddr 0.0.0.0 return")
	}
	if !g.no6 {
		c.rule("nobody's address", "ip6 saddr :: meta l4proto != 58 counter drop")
		c.rule("", "ip6 saddr :: return")
	}
	for _, f := range g.ifaces {
		if f.AsymmetricRouting {
			for _, in := range f.tests("iifname") {
				path := "interfaces." + f.key + ".asymmetricRouting"
				c.rule("this host's own address", g.only, in, "fib saddr type local counter drop")
				c.rule(path, in, "return")
			}
		}
	}
	if !g.no6 {
		c.rule("", "ip6 saddr fe80::/10 return")
	}
	c.rule("no route back by this interface", g.only, "fib saddr . iif oif missing counter drop")
}

// bogons6 are sources that no packet from outside has. What the intent or the host
// names is none.
func (g *generator) bogons6() []string {
	var named []netip.Prefix
	for _, v := range g.in.Services {
		named = append(append(named, v.From...), v.To...)
	}
	for _, f := range g.in.Forwarding.Allow {
		named = append(append(named, f.From...), f.To...)
	}
	for _, f := range g.in.Interfaces {
		for _, r := range f.Routers {
			named = append(named, r.Prefixes...)
		}
	}
	for _, d := range slices.Concat(g.in.Egress.IPv6.Allow, g.in.Egress.IPv4.Allow) {
		named = append(named, d.To...)
	}
	named = append(named, g.in.Limits.Exempt...)
	if g.ns != nil {
		as, _ := g.ns.Addresses.Get()
		for _, a := range as {
			named = append(named, a.Prefix)
		}
		rs, _ := g.ns.Routes.Get()
		for _, r := range rs {
			if r.Type == 1 {
				named = append(named, r.Dst)
			}
		}
	}
	out := []string{"::1-::ffff:ffff", "::ffff:0.0.0.0/96"}
	for _, b := range []string{
		"100::/64", "2001:10::/28", "2002:a00::/24", "2002:7f00::/24", "2002:a9fe::/32", "2002:ac10::/28", "2002:c0a8::/32", "2002:e000::/19",
		"3fff::/20", "5f00::/16", "fec0::/10", "ff00::/8",
	} {
		p := netip.MustParsePrefix(b)
		// ::/0 names nothing.
		if !slices.ContainsFunc(named, func(n netip.Prefix) bool { return n.Bits() >= p.Bits() && p.Contains(n.Addr()) }) {
			out = append(out, b)
		}
	}
	return out
}

// early is where fragments are still seen, before conntrack puts them together.
func (g *generator) early() {
	bridged := "accept"
	if !g.no6 {
		b := g.chain("bridged", "", "What comes by a bridge may be for a guest behind it: the input hook looks at what is for",
			"this host. Fragments of neighbour discovery stay fragments until then.")
		b.rule("", "icmpv6 type", ndTypes, "exthdr frag exists notrack")
		bridged = "goto bridged"
	}
	c := g.chain("early", "type filter hook prerouting priority -450; policy accept;")
	c.rule("", g.only, `iifname "lo" accept`)
	for _, f := range g.ifaces {
		if f.GuardBridged {
			for _, in := range f.tests("iifname") {
				c.rule("interfaces."+f.key+".guardBridged", g.only, in, "goto early_all")
			}
		}
	}
	c.rule("", g.only, `meta iifkind "bridge"`, bridged)
	c.rule("", g.only, "goto early_all")
	all := &chain{name: "early_all", s: g.script}
	g.chains = slices.Insert(g.chains, len(g.chains)-1, all)
	if g.v4 {
		// Where route_localnet is set (kube-proxy, Docker) the kernel would take it.
		all.rule("this host's loopback", "ip daddr 127.0.0.0/8 counter drop")
	}
	if !g.no6 {
		all.rule("", "icmpv6 type", ndTypes, "jump nd")
	}
	all.rule("", "goto spoofed")
}

// limits bound what one sender makes this host do. A sender that is known is counted by
// itself; when no more senders fit into a set, the others share one limit. Declared
// routers and administrators are not counted at all.
func (g *generator) limits() {
	nd := cmp.Or(g.in.Limits.NDPerSecond, ndPerSecond)
	echo := cmp.Or(g.in.Limits.EchoPerSecond, echoPerSecond)
	if !g.no6 {
		g.discoveryLimits(nd)
	}
	exempt := g.exempt()
	for _, f := range []struct {
		on                   bool
		v4                   bool
		name, set, typ, what string
	}{
		{!g.no6, false, "echo6", "echo6_senders", "ipv6_addr", "ip6 saddr & ffff:ffff:ffff:ffff::"},
		{g.v4, true, "echo4", "echo4_senders", "ipv4_addr", "ip saddr"},
	} {
		if !f.on {
			continue
		}
		c := g.chain(f.name, "", "Echo requests, before the rule for established flows: one ping is one flow.")
		if ps := g.split("limits.exempt", exempt, f.v4); len(ps) > 0 {
			c.rule("limits.exempt", addresses(f.v4, "@saddr", ps), "return")
		}
		if !f.v4 {
			for _, r := range g.routerAddresses() {
				c.rule("declared router", "ip6 saddr", r, "return")
			}
		}
		g.sets = append(g.sets, dynset(f.set, f.typ, echoSenders, "1m"), dynset(f.set+"_known", f.typ, echoSenders, "1m"))
		per(c, "limits.echoPerSecond", f.set, f.what, echo)
	}
}

// discoveryLimits bound how fast others make neighbour entries. Who is known is counted
// by MAC address and address together, so that nobody else's packets count against it;
// who is new by its MAC address, and all that are new together, since a full table of
// neighbours keeps everybody out.
func (g *generator) discoveryLimits(rate uint32) {
	const pair = "ether saddr . ip6 saddr"
	fresh := g.chain("nd_new", "", "What all newcomers together may add to the table of neighbours, which holds 1024.")
	fresh.rule("limits.ndPerSecond", fmt.Sprintf("limit rate over %d/second burst %d packets counter drop", 2*rate, 4*rate))
	fresh.rule("", "update @nd_neighbours { "+pair+" }")
	known := g.chain("nd_known", "")
	known.rule("limits.ndPerSecond", fmt.Sprintf("update @nd_rates { %s limit rate over %d/second burst %d packets } counter drop", pair, rate, 2*rate))
	known.rule("", "update @nd_neighbours { "+pair+" }")
	heard := g.chain("nd_heard", "", "An answer makes no entry, and is never dropped; who gives one is known.")
	heard.rule("", fmt.Sprintf("limit rate %d/second burst %d packets update @nd_neighbours { %s }", 2*rate, 4*rate, pair))
	c := g.chain("nd_limit", "", "Routers make one entry each, at any rate.")
	for _, f := range g.ifaces {
		for j, r := range f.Routers {
			path := fmt.Sprintf("interfaces.%s.routers[%d]", f.key, j)
			for _, in := range f.tests("iifname") {
				c.rule(path, in, g.router(path, r), "return")
			}
		}
	}
	for _, r := range g.gateways() {
		c.rule("default router", "iifname", quote(r.dev), "ip6 saddr", r.via.String(), "return")
	}
	c.rule("solicited", "icmpv6 type nd-neighbor-advert @th,33,1 1 goto nd_heard")
	c.rule("", pair, "@nd_neighbours goto nd_known")
	g.sets = append(g.sets,
		dynset("nd_neighbours", "ether_addr . ipv6_addr", ndNeighbours, "10m"), dynset("nd_rates", "ether_addr . ipv6_addr", ndNeighbours, "30s"),
		dynset("nd_senders", "ether_addr", ndSenders, "30s"), dynset("nd_senders_known", "ether_addr", ndSenders, "30s"))
	c.rule("limits.ndPerSecond", fmt.Sprintf("update @nd_senders { ether saddr limit rate %d/second burst %d packets } update @nd_senders_known { ether saddr } goto nd_new", rate, 2*rate))
	c.rule("limits.ndPerSecond", "ether saddr @nd_senders_known counter drop")
	c.rule("the set is full", "goto nd_new")
}

func (g *generator) routerAddresses() []string {
	var out []string
	for _, f := range g.ifaces {
		for _, r := range f.Routers {
			if f.believes(r) && r.Address.Is6() && r.Address.Zone() == "" {
				out = append(out, r.Address.String())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// exempt are the sources that no limit counts: those that are declared so, and those
// that administer the host.
func (g *generator) exempt() []netip.Prefix {
	out := slices.Clone(g.in.Limits.Exempt)
	for _, v := range g.in.Services {
		if administers(v) {
			for _, p := range v.From {
				if p.Bits() > 0 {
					out = append(out, p)
				}
			}
		}
	}
	return out
}

// administers tells whether people come in by a service: ssh does, unless it is said
// otherwise.
func administers(v intent.Service) bool {
	if v.Administers != nil {
		return *v.Administers
	}
	return slices.Contains(v.Ports, "tcp/22") || v.Name == "ssh"
}

// per lets each sender have its rate, and those that do not fit into the set one
// together. Asking a set whether a sender is in it would count the packet once more
// (nft_lookup runs the expressions of an element), hence the second set, of senders
// that are surely in the first.
func per(c *chain, path, set, key string, rate uint32) {
	c.rule(path, fmt.Sprintf("update @%s { %s limit rate %d/second burst %d packets } update @%s_known { %s } return", set, key, rate, 2*rate, set, key))
	c.rule(path, fmt.Sprintf("%s @%s_known counter drop", key, set))
	c.rule("the set is full", fmt.Sprintf("limit rate %d/second burst %d packets counter return", fullPerSecond, fullPerSecond))
	c.rule("the set is full, and so is this", "counter drop")
}

// tunnelChains are what may be carried in and out inside other packets.
func (g *generator) tunnelChains() {
	for _, d := range []struct {
		name        string
		allow, drop []string
	}{{"tunnels_in", g.tunnels.inAllow, g.tunnels.inDrop}, {"tunnels_out", g.tunnels.outAllow, g.tunnels.outDrop}, {"tunnels_through", g.tunnels.through, g.tunnels.outDrop}} {
		if len(d.drop) > 0 {
			g.chain(d.name, "").lines = append(slices.Clone(d.allow), d.drop...)
		}
	}
}
