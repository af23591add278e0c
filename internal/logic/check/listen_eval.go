package check

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	rules "github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// eachEars runs f for every namespace whose sockets could be read.
func (c *Context) eachEars(f func(*Space, *ears) []Result) []Result {
	return c.eachSpace(func(s *Space) []Result {
		e := s.listening()
		if e.gap != nil {
			return []Result{unknown(s.Subject(), *e.gap)}
		}
		return f(s, e)
	})
}

// fold keeps one result a subject, so that ports that change at every boot do
// not multiply entries.
func fold(rs []Result) []Result { return dedupe(rs) }

func socketInventory(c *Context) []Result {
	out := c.eachEars(func(s *Space, e *ears) []Result {
		out := make([]Result, 0, len(e.list))
		for i := range e.list {
			a := &e.list[i]
			sub := s.socketSubject(a)
			if a.gap4 != nil || a.gap6 != nil {
				var gaps []fact.Gap
				for _, g := range []*fact.Gap{a.gap4, a.gap6} {
					if g != nil && !slices.Contains(gaps, *g) {
						gaps = append(gaps, *g)
					}
				}
				out = append(out, unknown(sub, gaps...))
				continue
			}
			out = append(out, pass(sub, endpoint(a)+" takes "+takes(a)+".", s.socketEvidence(a)))
		}
		if len(out) == 0 {
			return []Result{notApplicable(s.Subject(), "No socket waits for packets in this network namespace.")}
		}
		return fold(out)
	})
	orphans, ok := c.Snap.Host.Orphans.Get()
	if !ok {
		if g := gapOf(c.Snap.Host.Orphans); g != nil {
			out = append(out, unknown(finding.Subject{Key: "sockets in no visible namespace"}, *g))
		}
		return out
	}
	var lost []Result
	for _, o := range orphans {
		exe := ""
		if p := c.procs[o.PID]; p != nil {
			exe = p.Exe.Or("")
		}
		sub := finding.Subject{Proto: o.Protocol, Process: exe, Key: "sockets in no visible namespace"}
		r := fail(sub, fmt.Sprintf("A process (%s) holds a %s socket that is in none of the network namespaces this audit could enter: what it listens on is not audited.", cmp.Or(exe, "executable unknown"), o.Protocol),
			c.passing("/proc/PID/fd", "pid", strconv.Itoa(o.PID)), c.observed("/proc/PID/exe", "executable", cmp.Or(exe, "unknown")))
		r.Title = "Socket held by a process in a namespace that nobody audits"
		r.Severity = finding.Medium
		if l, known := o.Listening.Get(); known && !l {
			r.Severity = finding.Low
		}
		lost = append(lost, r)
	}
	return append(out, fold(lost)...)
}

// portGroup is everything bound to one port.
type portGroup struct {
	proto string
	port  uint16
	ears  []*ear
}

// byPort groups the sockets of a namespace, in the order of protocol and port.
func (e *ears) byPort() []portGroup {
	type key struct {
		proto string
		port  uint16
	}
	at := map[key]int{}
	var out []portGroup
	for i := range e.list {
		a := &e.list[i]
		if a.Protocol == "raw" {
			continue
		}
		k := key{a.Protocol, a.Port}
		j, ok := at[k]
		if !ok {
			j = len(out)
			at[k] = j
			out = append(out, portGroup{proto: a.Protocol, port: a.Port})
		}
		out[j].ears = append(out[j].ears, a)
	}
	slices.SortFunc(out, func(x, y portGroup) int {
		return cmp.Or(strings.Compare(x.proto, y.proto), cmp.Compare(x.port, y.port))
	})
	for i := range out {
		slices.SortStableFunc(out[i].ears, func(x, y *ear) int {
			return cmp.Or(x.Local.Compare(y.Local), strings.Compare(x.exe, y.exe), cmp.Compare(x.Inode, y.Inode))
		})
	}
	return out
}

func splitExposure(c *Context) []Result {
	return c.eachEars(func(s *Space, e *ears) []Result {
		var out []Result
		for _, g := range e.byPort() {
			if r, ok := s.judgePort(&e.way, g); ok {
				out = append(out, r)
			}
		}
		return fold(out)
	})
}

// meantLocal tells whether a socket was bound to loopback on purpose.
func (w *ways) meantLocal(a *ear) bool {
	return a.Local.IsValid() && a.Local.Unmap().IsLoopback() || a.Index != 0 && a.Index == w.loIndex
}

func (s *Space) judgePort(w *ways, g portGroup) (Result, bool) {
	var loop4, wide4, wide6, loop6, doubt []*ear
	for _, a := range g.ears {
		switch {
		case a.v4 == thisHost && !a.dual && w.meantLocal(a):
			loop4 = append(loop4, a)
		case a.v4 > thisHost && !a.dual:
			wide4 = append(wide4, a)
		}
		switch {
		case a.v6 > thisHost:
			wide6 = append(wide6, a)
		case a.v6 == thisHost && a.gap6 != nil:
			doubt = append(doubt, a)
		case a.v6 == thisHost:
			loop6 = append(loop6, a)
		}
	}
	first := func(of ...[]*ear) *ear {
		for _, l := range of {
			if len(l) > 0 {
				return l[0]
			}
		}
		return nil
	}
	a := first(wide6, doubt, loop6)
	if a == nil {
		return Result{}, false // IPv4 only
	}
	sub := s.socketSubject(a)
	if len(loop4) > 0 {
		// Two sockets on one port are no coincidence of the ephemeral range.
		sub.Port, sub.Key = a.Port, ""
	}
	evidence := func() (ev []finding.Evidence) {
		for _, a := range g.ears {
			if len(ev) == 8 {
				break
			}
			ev = append(ev, s.socketEvidence(a))
		}
		return ev
	}
	switch {
	case len(loop4) > 0 && len(wide4) == 0 && len(wide6) > 0:
		v4 := loop4[0]
		msg := fmt.Sprintf("%s is bound to %s, so IPv4 clients must be on this host; %s of the same port takes IPv6 from others", g.proto+"/"+strconv.Itoa(int(g.port)), endpoint(v4), endpoint(a))
		if a.v6 == sameLink {
			why := "takes IPv6 from neighbours"
			if !a.Local.IsValid() || a.Local.IsUnspecified() {
				why += " (no global address is configured)"
			}
			msg = strings.Replace(msg, "takes IPv6 from others", why, 1)
		}
		if a.dual && a.v4 > thisHost {
			msg += ", and IPv4 to every other address of this host as well, because it is dual-stack"
		}
		switch {
		case a.exe != "" && v4.exe != "" && a.exe != v4.exe:
			msg += fmt.Sprintf(". The IPv4 side belongs to %s, the IPv6 side to %s: a client that resolves localhost to ::1 first meets the second", v4.exe, a.exe)
		case a.exe != "":
			msg += ". Held by " + a.exe
		}
		r := fail(sub, msg+".", evidence()...)
		r.Remediation, r.port = s.closePort(a), a.Port
		if a.v6 == sameLink {
			r.Positions = []finding.Position{finding.FromLink, finding.FromPod}
		}
		if a.ephemeral && a.Protocol == "udp" && a.exe != v4.exe {
			r.Severity = finding.Medium // two clients that were given the same port
		}
		return s.behindPort("ipv6", sub.Interface, r), true
	case len(loop4) > 0 && len(wide4) == 0 && len(doubt) > 0:
		return unknown(sub, *doubt[0].gap6), true
	case a.idle != "" && len(wide6) == 0:
		return pass(sub, "Takes "+takes(a)+".", evidence()...), true
	case len(loop4) > 0 && len(wide6) == 0:
		return pass(sub, "Loopback only, in both families.", evidence()...), true
	case len(wide6) == 0 && len(doubt) == 0:
		return pass(sub, "Takes IPv6 from this host only.", evidence()...), true
	case len(wide4) > 0:
		return pass(sub, "Bound beyond loopback in both families.", evidence()...), true
	case a.dual:
		return pass(sub, "One dual-stack socket serves both families alike.", evidence()...), true
	}
	if len(doubt) > 0 && len(wide6) == 0 {
		return unknown(sub, *doubt[0].gap6), true
	}
	return pass(sub, "Bound on IPv6 and not on IPv4: there is no narrower twin.", evidence()...), true
}

// rawUsers are programs known to use packet or raw sockets.
var rawUsers = []string{
	"systemd-networkd", "NetworkManager", "dhclient", "dhcpcd", "udhcpc", "connmand", "nm-dhcp-helper", "dhcpd", "kea-dhcp4", "dnsmasq", "lldpd", "lldpad", "ladvd",
	"wpa_supplicant", "hostapd", "iwd", "pppd", "pppoe", "keepalived", "bird", "bird6", "zebra", "ospfd", "ospf6d", "isisd", "bfdd", "pimd", "vrrpd", "babeld", "bgpd", "eigrpd", "ldpd", "gobgpd",
	"tcpdump", "dumpcap", "tshark", "wireshark", "arpwatch", "addrwatch", "ndpmon", "suricata", "snort", "zeek", "ntopng", "softflowd", "pmacctd", "fprobe", "darkstat", "iftop", "nethogs", "vnstatd",
	"ping", "ping6", "fping", "arping", "traceroute", "mtr-packet", "nmap", "avahi-autoipd", "ptp4l", "openvswitch", "ovs-vswitchd", "qemu-system-x86_64", "cilium-agent", "calico-node", "cloud-init", "radvd", "sixfence",
	"arp-scan", "rarpd", "irqbalance", "conntrackd", "corosync", "charon", "pluto",
}

func rawAndPacket(c *Context) []Result {
	return c.eachSpace(func(s *Space) []Result {
		if g := gapOf(s.Sockets); g != nil {
			return []Result{unknown(s.Subject(), *g)}
		}
		var out []Result
		socks, _ := s.Sockets.Get()
		for i := range socks {
			k := &socks[i]
			if k.Protocol != "raw" && k.Protocol != "packet" || k.Protocol == "raw" && (k.Number == protoICMPv6 || tunnelProtocols[k.Number] != "") {
				continue
			}
			sub := s.Subject()
			sub.Proto = k.Protocol
			sub.Key = fmt.Sprintf("protocol %d", k.Number)
			if k.Protocol == "packet" {
				sub.Key = fmt.Sprintf("ethertype 0x%04x", k.Number)
			}
			exe := c.holder(k)
			if exe == "" {
				g := gapOf(k.Owners)
				if g == nil {
					g = &fact.Gap{Reason: fact.NotCollected, What: "holder of a " + k.Protocol + " socket (none is visible from here)"}
				}
				out = append(out, unknown(sub, *g))
				continue
			}
			sub.Process = exe
			ev := c.observed(cmp.Or(k.Source, "packet_diag"), k.Protocol, sub.Key+" "+exe)
			if slices.Contains(rawUsers, baseName(exe)) {
				out = append(out, pass(sub, exe+" is known to need such a socket.", ev))
				continue
			}
			r := fail(sub, fmt.Sprintf("%s holds a %s socket (%s).", exe, k.Protocol, sub.Key), ev)
			if k.Protocol == "packet" {
				r.Message += " It would be given frames before any nftables, iptables or TC rule sees them."
			} else {
				f, _ := rules.FamilyOf(k.Family)
				r = s.behind(protocol(f, uint8(k.Number), fmt.Sprintf("a packet of protocol %d", k.Number)), "", r)
			}
			out = append(out, r)
		}
		if out == nil {
			out = append(out, pass(s.Subject(), "No raw or packet socket is open (ICMPv6 and tunnels aside)."))
		}
		return fold(out)
	})
}

func linkLocalServices(c *Context) []Result {
	return c.eachEars(func(s *Space, e *ears) []Result {
		bound := map[int][]string{} // by device; 0: any
		var doubt *fact.Gap
		for i := range e.list {
			a := &e.list[i]
			switch {
			case a.Family != "ipv6" || a.Protocol == "raw" || a.ephemeral || a.Local.IsValid() && !a.Local.IsUnspecified():
			case a.v6 > thisHost:
				bound[a.Index] = append(bound[a.Index], a.Protocol+"/"+strconv.Itoa(int(a.Port)))
			case a.gap6 != nil:
				doubt = a.gap6
			}
		}
		bound[0] = sortedUnique(bound[0])
		var out []Result
		for _, i := range e.way.v6 {
			sub := s.On(s.IfName(i))
			names := bound[0]
			for _, device := range []int{i, s.Link(i).Master} { // a VRF is a master, too
				if device != 0 && len(bound[device]) > 0 {
					names = sortedUnique(append(slices.Clone(names), bound[device]...))
				}
			}
			switch {
			case !e.way.ll[i] && e.way.addrGap != nil:
				out = append(out, unknown(sub, *e.way.addrGap))
			case !e.way.ll[i]:
				out = append(out, pass(sub, "No link-local address is configured here."))
			case len(names) > 0:
				out = append(out, s.servedOn(sub, names))
			case doubt != nil:
				out = append(out, unknown(sub, *doubt))
			default:
				out = append(out, pass(sub, "No service is bound to all addresses."))
			}
		}
		if g := e.way.gap; g != nil {
			out = append(out, unknown(s.Subject(), *g))
		}
		return out
	})
}

// servedOn judges services that are bound to all addresses, for neighbours on one
// interface.
func (s *Space) servedOn(sub finding.Subject, names []string) Result {
	var open, closed, doubt []string
	var ev []finding.Evidence
	var gaps []fact.Gap
	at := netip.Addr{}
	if l := s.linkNamed(sub.Interface); l != nil {
		for _, a := range s.Addrs(l.Index, "ipv6") {
			if a.Prefix.Addr().IsLinkLocalUnicast() {
				at = a.Prefix.Addr()
			}
		}
	}
	for _, n := range names {
		proto, number, _ := strings.Cut(n, "/")
		port, err := strconv.ParseUint(number, 10, 16)
		if err != nil || transports[proto] == 0 {
			open = append(open, n)
			continue
		}
		switch f, vs := s.portFate(rs.IPv6, proto, uint16(port), sub.Interface, at); f {
		case in:
			open = append(open, n)
			if len(ev) < 4 {
				ev = append(ev, s.portEvidence(vs)...)
			}
		case out:
			closed = append(closed, n)
			if len(ev) < 4 && len(open) == 0 {
				ev = append(ev, s.portEvidence(vs)...)
			}
		default:
			doubt = append(doubt, n)
			gaps = append(gaps, assumed(vs)...)
		}
	}
	ev = append([]finding.Evidence{s.ctx.observed("inet_diag", "wildcard IPv6 sockets", listing(names, 30))}, ev...)
	switch {
	case len(open) > 0:
		return fail(sub, fmt.Sprintf("Neighbours on %s would be served on its link-local address by %s.", sub.Interface, listing(open, 8)), ev...)
	case len(doubt) > 0:
		r := unknown(sub, dedupeGaps(gaps)...)
		r.Evidence = ev
		return r
	}
	return pass(sub, fmt.Sprintf("The packet filter keeps neighbours on %s from %s, which %s bound to all addresses.", sub.Interface, listing(closed, 8), map[bool]string{true: "is", false: "are"}[len(closed) == 1]), ev...)
}

// linkNamed is the interface with this name, or nil.
func (s *Space) linkNamed(name string) *fact.Link {
	for i := range s.links {
		if s.links[i].Name == name {
			return &s.links[i]
		}
	}
	return nil
}

func dedupeGaps(gs []fact.Gap) []fact.Gap {
	var out []fact.Gap
	for _, g := range gs {
		if !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}

func otherNamespaces(c *Context) []Result {
	p := c.primary()
	contained := map[fact.NamespaceID]bool{}
	for _, pr := range c.procs {
		if id, ok := pr.NetNS.Get(); ok && pr.Container != "" {
			contained[id] = true
		}
	}
	return c.eachEars(func(s *Space, e *ears) []Result {
		if s == p {
			return []Result{notApplicable(s.Subject(), "This is the namespace that the host's own tools show.")}
		}
		far := nobody
		var names, closed []string
		var ev []finding.Evidence
		var doubt *fact.Gap
		for i := range e.list {
			a := &e.list[i]
			if a.Protocol == "raw" || a.ephemeral && a.Protocol != "tcp" {
				continue
			}
			if a.gap6 != nil {
				doubt = a.gap6
			}
			if a.v6 > thisHost {
				switch f, vs := s.portFate(rs.IPv6, a.Protocol, a.Port, "", a.Local.WithZone("")); f {
				case out:
					closed = append(closed, service(a))
					continue
				case unclear:
					g := assumed(vs)[0]
					doubt = &g
					continue
				case in:
					if len(ev) < 4 {
						ev = append(ev, s.portEvidence(vs)...)
					}
				}
				far = max(far, a.v6)
				names = append(names, service(a))
			}
		}
		if doubt != nil && len(names) == 0 {
			return []Result{unknown(s.Subject(), *doubt)}
		}
		if len(names) == 0 && len(closed) > 0 {
			return []Result{pass(s.Subject(), "The packet filter of this namespace keeps everybody from what listens here: "+listing(sortedUnique(closed), 5)+".")}
		}
		if len(names) == 0 {
			return []Result{pass(s.Subject(), "No socket in this namespace hears IPv6 from outside it.")}
		}
		names = sortedUnique(names)
		r := fail(s.Subject(), fmt.Sprintf("%s bound on IPv6 here: %s. The host's socket lists and rules do not cover them.", count(len(names), "service"), listing(names, 5)),
			append([]finding.Evidence{c.observed("inet_diag", "sockets that hear others", listing(names, 30))}, ev...)...)
		switch {
		case contained[s.ID] || strings.HasPrefix(s.Name, "container:") || c.Role.Name == RoleKubeNode:
			r.Severity = finding.Low
		case far == sameLink:
			r.Severity = finding.Medium
		}
		r.Remediation = []finding.Remediation{
			command("%s", s.Run(nft("add table inet guard; add chain inet guard input { type filter hook input priority 0; policy drop; }; add rule inet guard input ct state established,related accept; add rule inet guard input iifname lo accept; add rule inet guard input meta nfproto ipv4 accept; add rule inet guard input icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query } accept"))),
			advice("This closes IPv6 in that namespace but for neighbour discovery. Add an accept rule for what it is meant to serve, or bind the services narrower."),
			intent("services:\n  - {name: NAME, ports: [tcp/PORT]}"),
		}
		return []Result{r}
	})
}

func dockerProxy(c *Context) []Result {
	return c.eachEars(func(s *Space, e *ears) []Result {
		var out []Result
		for i := range e.list {
			a := &e.list[i]
			if baseName(a.exe) != "docker-proxy" {
				continue
			}
			sub := s.socketSubject(a)
			sub.Port, sub.Key = a.Port, "" // published, not picked
			switch {
			case a.v6 > thisHost:
				out = append(out, s.behindPort("ipv6", sub.Interface, fail(sub, fmt.Sprintf("docker-proxy holds %s for a container and would carry IPv6 clients to it over IPv4, under one address.", endpoint(a)), s.socketEvidence(a))))
			case a.gap6 != nil:
				out = append(out, unknown(sub, *a.gap6))
			default:
				out = append(out, pass(sub, "Published for "+takes(a)+" only.", s.socketEvidence(a)))
			}
		}
		return fold(out)
	})
}

func needsLoopback(c *Context) []Result {
	one := netip.IPv6Loopback()
	return c.eachEars(func(s *Space, e *ears) []Result {
		var users []string
		for i := range e.list {
			if a := &e.list[i]; a.Local.WithZone("") == one && !a.ephemeral {
				users = append(users, service(a))
			}
		}
		if r, ok := c.Snap.Host.Files.Resolver.Get(); ok && s == c.primary() && slices.Contains(r.Nameservers, "::1") {
			users = append(users, "the resolver (nameserver ::1)")
		}
		if len(users) == 0 {
			return []Result{notApplicable(s.Subject(), "Nothing here is bound to ::1.")}
		}
		users = sortedUnique(users)
		sub := s.Subject()
		sub.Address = "::1"
		if g := gapOf(s.Addresses); g != nil {
			return []Result{unknown(sub, *g)}
		}
		ev := c.observed("inet_diag", "users of ::1", listing(users, 20))
		if !slices.ContainsFunc(s.Addrs(0, "ipv6"), func(a fact.Address) bool { return a.Prefix.Addr() == one }) {
			return []Result{fail(sub, fmt.Sprintf("::1 is not configured in this namespace, and %s depends on it.", listing(users, 5)), ev)}
		}
		return []Result{pass(sub, "::1 is there. Without it these would break: "+listing(users, 5)+".", ev)}
	})
}

// mappedSources tells whether this kernel hands packets with an IPv4-mapped
// source to UDP sockets.
func (c *Context) mappedSources() *fact.Gap {
	k, ok := c.Snap.Host.Kernel.Get()
	if !ok {
		if g := gapOf(c.Snap.Host.Kernel); g != nil {
			return g
		}
		return &fact.Gap{Reason: fact.NotCollected, What: "the kernel's release"}
	}
	var major, minor int
	if _, err := fmt.Sscanf(k.Release, "%d.%d", &major, &minor); err != nil {
		return &fact.Gap{Reason: fact.ParseGap, What: "the kernel's release"}
	}
	// 6af1799aaf3f (5.4) dropped them in ip6_rcv_core, dcc32f4f183a (5.12) took that
	// back and was carried into stable and distribution kernels.
	if major == 5 && minor >= 4 && minor < 12 || strings.Contains(k.Release, ".el8") {
		return &fact.Gap{Reason: fact.UnsupportedGap, What: "whether kernel " + k.Release + " drops IPv6 packets with an IPv4-mapped source (5.4 to 5.11 did until a stable update)"}
	}
	return nil
}

func mappedSource(c *Context) []Result {
	gap := c.mappedSources()
	return c.eachEars(func(s *Space, e *ears) []Result {
		var out []Result
		for i := range e.list {
			a := &e.list[i]
			if a.Family != "ipv6" || a.Protocol != "udp" && a.Protocol != "udplite" {
				continue
			}
			sub, ev := s.socketSubject(a), s.socketEvidence(a)
			switch {
			case a.v6 == nobody:
				out = append(out, pass(sub, "Bound to an IPv4-mapped address: no IPv6 packet comes here.", ev))
				continue
			case a.v6 == thisHost && a.gap6 != nil:
				out = append(out, unknown(sub, *a.gap6))
				continue
			case a.v6 == thisHost && a.idle != "":
				out = append(out, pass(sub, "Takes "+takes(a)+".", ev))
				continue
			case a.v6 == thisHost:
				out = append(out, pass(sub, "Only packets from this host come here.", ev))
				continue
			case a.Inode == 0 && a.Owners.State() == fact.StateAbsent:
				out = append(out, pass(sub, "A socket of the kernel itself (a tunnel's), which trusts no source address as a local one.", ev))
				continue
			case gap != nil:
				out = append(out, unknown(sub, *gap))
				continue
			}
			msg := fmt.Sprintf("%s would take a datagram whose IPv6 source is ::ffff:127.0.0.1, as the kernel does not drop it.", service(a))
			sev := finding.High
			switch {
			case a.ephemeral:
				msg, sev = msg+" The port looks like a client's.", finding.Low
			case a.dual:
				msg += " The socket is dual-stack: to the program that peer looks like IPv4 from this host."
			default:
				if _, known := a.V6Only.Get(); known || !a.Local.IsUnspecified() {
					msg, sev = msg+" The program gets no real IPv4 peers on this socket, so it is less likely to take that one for local.", finding.Low
				}
			}
			r := fail(sub, msg, ev)
			r.Severity = sev
			if !s.IsInit && !s.IsSelf {
				r.Remediation = []finding.Remediation{command("%s", s.Run("ip6tables -t raw -I PREROUTING -s ::ffff:0:0/96 -j DROP")), intent("firewall: {manage: both}")}
			}
			out = append(out, s.behind(mappedTo(a), sub.Interface, r))
		}
		return fold(out)
	})
}
