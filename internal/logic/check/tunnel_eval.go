package check

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	rules "github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Groups of tunnel kinds, by who may send through them.
var (
	// openKinds trust the outer source address, or nothing at all.
	openKinds = []string{"sit", "ipip", "gre", "gretap", "erspan", "ip6tnl", "ip6gre", "ip6gretap", "ip6erspan", "vxlan", "geneve", "bareudp", "amt", "gtp", "l2tp", "fou"}
	// vpnKinds authenticate their peers, or hand packets to a program that does.
	vpnKinds = []string{"wireguard", "tun", "xfrm", "vti", "vti6", "ovpn", "ppp", "ipsec"}
	// overlayKinds are what overlays of container networks are made of.
	overlayKinds = []string{"vxlan", "geneve"}
)

// ARPHRD_* of tunnels whose kind an old kernel does not name.
var tunnelTypes = map[uint16]string{768: "ipip", 769: "ip6tnl", 776: "sit", 778: "gre", 823: "ip6gre"}

// kindOf is the tunnelling kind of a link; "" for other links.
func kindOf(l *fact.Link) string {
	if slices.Contains(openKinds, l.Kind) || slices.Contains(vpnKinds, l.Kind) {
		return l.Kind
	}
	if l.Kind == "" {
		return tunnelTypes[l.Type]
	}
	return ""
}

// fallbackNames are the devices that modules make by themselves.
var fallbackNames = []string{"sit0", "tunl0", "gre0", "gretap0", "erspan0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0"}

func isFallback(l *fact.Link) bool {
	if l.Tunnel != nil {
		return l.Tunnel.Fallback
	}
	return slices.Contains(fallbackNames, l.Name)
}

// eachTunnel runs f for the tunnel devices of every namespace, IPv6 or not:
// what a tunnel carries is not what carries it.
func (c *Context) eachTunnel(f func(*Space, *fact.Link, string) []Result, none string) []Result {
	var out []Result
	for _, s := range c.spaces {
		if g := gapOf(s.Links); g != nil {
			out = append(out, s.mark(unknown(s.Subject(), *g))...)
			continue
		}
		var here []Result
		for i := range s.links {
			if kind := kindOf(&s.links[i]); kind != "" {
				here = append(here, f(s, &s.links[i], kind)...)
			}
		}
		if here == nil {
			here = append(here, pass(s.Subject(), none))
		}
		out = append(out, s.mark(here...)...)
	}
	return out
}

// explained says why a role expects a tunnel device; "" when it does not.
func (c *Context) explained(s *Space, l *fact.Link, kind string) string {
	tap := kind == "tun" && l.Type == 1
	switch c.Role.Name {
	case RoleKubeNode:
		if slices.Contains(overlayKinds, kind) || kind == "ipip" || kind == "wireguard" || tap {
			return "An overlay of the pod network, expected on a Kubernetes node (TUN-14 looks at who may send to it)."
		}
	case RoleHypervisor:
		if tap || slices.Contains(overlayKinds, kind) {
			return "The network of a guest, expected on a hypervisor."
		}
	}
	if tap && l.SlaveKind != "" {
		return "A tap device in a bridge: the network card of a guest."
	}
	if d, ok := c.Snap.Host.Runtimes.Docker.Get(); ok && d.Running && kind == "vxlan" && !s.IsInit && !s.IsSelf {
		return "The overlay of a container network (TUN-14 looks at who may send to it)."
	}
	return ""
}

func tunnelDevices(c *Context) []Result {
	return c.eachTunnel(func(s *Space, l *fact.Link, kind string) []Result {
		if isFallback(l) {
			return nil
		}
		sub := s.On(l.Name)
		sub.Key = kind
		desc := kind + ", any peer"
		any := l.Tunnel == nil || !l.Tunnel.Remote.IsValid() || l.Tunnel.Remote.IsUnspecified()
		if t := l.Tunnel; t != nil {
			switch {
			case t.ISATAP:
				desc = "sit in ISATAP mode"
			case t.SixRD.IsValid() && t.SixRD.Bits() == 16 && t.SixRD.Addr() == netip.MustParseAddr("2002::"), !t.SixRD.IsValid() && kind == "sit" && any && s.hasSixToFour(l):
				desc = "sit for 6to4"
			case t.SixRD.IsValid():
				desc = "sit for 6rd with prefix " + t.SixRD.String()
			case t.CollectMetadata:
				desc = kind + ", peers chosen per packet"
			case !any:
				desc = kind + ", peer " + t.Remote.String()
			}
		}
		ev := c.observed("RTM_GETLINK", "kind", desc)
		if why := c.explained(s, l, kind); why != "" {
			return []Result{pass(sub, why, ev)}
		}
		r := fail(sub, fmt.Sprintf("%s is a tunnel device (%s).", l.Name, desc), ev)
		r.Remediation = []finding.Remediation{
			command("%s", s.Run("ip link del "+shellWord(l.Name))),
			intent("tunnels:\n  - {mechanism: %s}   # or: tunnels: deny", yamlWord(kind)),
		}
		switch {
		case slices.Contains(vpnKinds, kind):
			r.Severity = finding.Info
			r.Message += " Its peers are authenticated, or a program decides what it carries."
		case l.Flags&iffUp == 0:
			r.Severity = finding.Low
			r.Message += " It is down and takes nothing now."
		case l.Tunnel != nil && !l.Tunnel.Complete:
			r.Severity = finding.Medium
			r.Message += " Its peer could not be read."
		case any && slices.Contains(overlayKinds, kind):
			r.Severity = finding.Medium
			r.Message += " TUN-14 looks at who may send to it."
		case any:
			r.Message += " The kernel would decapsulate packets of this protocol from any sender."
		default:
			r.Severity = finding.Medium
			r.Message += " The outer source address is all that tells its peer from others."
		}
		if r.Severity == "" {
			r = s.behindTunnel(l, kind, r)
		}
		return []Result{r}
	}, "No tunnel device is present.")
}

// behindTunnel settles a failed result about a tunnel that opens packets.
func (s *Space) behindTunnel(l *fact.Link, kind string, r Result) Result {
	q, known := intoTunnel(l, kind)
	if known {
		return s.behind(q, "", r)
	}
	for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
		if g := s.Inbound(rules.FamilyWord(f), ""); g != nil {
			if g.What == filtered {
				g = &fact.Gap{Reason: fact.UnsupportedGap, What: "which packets " + l.Name + " (" + kind + ") opens"}
			}
			return s.open(r, *g)
		}
	}
	return r
}

// behindUnderlay settles a failed result about a UDP port that takes frames over
// either family: one family that is open is enough.
func (s *Space) behindUnderlay(l *fact.Link, r Result) Result {
	if r.Subject.Port == 0 {
		for _, f := range []string{"ipv4", "ipv6"} {
			if g := s.Inbound(f, ""); g != nil {
				if g.What == filtered {
					g = &fact.Gap{Reason: fact.UnsupportedGap, What: "the UDP port of " + r.Subject.Interface}
				}
				return s.open(r, *g)
			}
		}
		return r
	}
	// vxlan_sock_add and geneve_open bind one family, but for devices whose peers are
	// chosen by packet.
	if t := l.Tunnel; t != nil && t.Complete && !t.CollectMetadata && slices.Contains(overlayKinds, kindOf(l)) {
		if t.Remote.Is6() || t.Local.Is6() {
			return s.behindPort("ipv6", "", r)
		}
		return s.behindPort("ipv4", "", r)
	}
	four, six := s.behindPort("ipv4", "", r), s.behindPort("ipv6", "", r)
	switch {
	case four.Effective == finding.Fail:
		return four
	case six.Effective == finding.Fail:
		return six
	case four.Effective == finding.Unknown:
		return four
	case six.Effective == finding.Unknown:
		return six
	}
	four.Evidence = append(four.Evidence, six.Evidence[len(r.Evidence):]...)
	four.Message += " So it does over IPv6."
	return four
}

// hasSixToFour tells whether a device has an address in 2002::/16.
func (s *Space) hasSixToFour(l *fact.Link) bool {
	return slices.ContainsFunc(s.Addrs(l.Index, "ipv6"), func(a fact.Address) bool { return sixToFour.Contains(a.Prefix.Addr()) })
}

// carrier is the family of the outer packet.
func carrier(kind string) string {
	if strings.HasPrefix(kind, "ip6") {
		return "ipv6"
	}
	return "ipv4"
}

func fallbackDevices(c *Context) []Result {
	return c.eachTunnel(func(s *Space, l *fact.Link, kind string) []Result {
		if !isFallback(l) {
			return []Result{notApplicable(s.On(l.Name), "Not a fallback device.")}
		}
		sub := s.On(l.Name)
		ev := c.observed("RTM_GETLINK", "flags", map[bool]string{true: "up", false: "down"}[l.Flags&iffUp != 0])
		switch {
		case l.Flags&iffUp == 0:
			return []Result{pass(sub, l.Name+" is down: it takes nothing.", ev)}
		case l.Name == "tunl0" && c.Role.Name == RoleKubeNode:
			return []Result{pass(sub, "tunl0 is the IPIP device of the pod network, expected on a Kubernetes node.", ev)}
		}
		r := fail(sub, fmt.Sprintf("%s is up: the kernel would decapsulate every %s packet that no configured tunnel claims.", l.Name, kind), ev)
		r.Remediation = []finding.Remediation{
			command("%s", s.Run("ip link set "+shellWord(l.Name)+" down")),
			command("sysctl -w net.core.fb_tunnels_only_for_init_net=1"),
			intent("tunnels: deny"),
		}
		return []Result{s.behindTunnel(l, kind, r)}
	}, "No fallback tunnel device is present.")
}

// Prefixes of transition mechanisms.
var (
	sixToFour = netip.MustParsePrefix("2002::/16")
	teredo    = netip.MustParsePrefix("2001::/32")
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	nat64Own  = netip.MustParsePrefix("64:ff9b:1::/48")
)

// mechanism names the transition mechanism of an address; "" for others.
func mechanism(a netip.Addr) string {
	a = a.WithZone("")
	if !a.Is6() || a.Is4In6() {
		return ""
	}
	switch {
	case sixToFour.Contains(a):
		return "6to4"
	case teredo.Contains(a):
		return "Teredo"
	case nat64.Contains(a), nat64Own.Contains(a):
		return "NAT64"
	}
	b := a.As16()
	// fe80::ffff:a.b.c.d and fe80::8000:… are what Teredo clients use; the first is distinctive.
	if a.IsLinkLocalUnicast() && b[8] == 0 && b[9] == 0 && b[10] == 0xff && b[11] == 0xff {
		return "Teredo"
	}
	if (b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
		return "ISATAP"
	}
	return ""
}

func transitionAddresses(c *Context) []Result {
	return c.eachSpace(func(s *Space) []Result {
		var out []Result
		for _, g := range []*fact.Gap{gapOf(s.Addresses), gapOf(s.Routes), gapOf(s.Neighbours)} {
			if g != nil {
				out = append(out, unknown(s.Subject(), *g))
			}
		}
		add := func(index int, what, address, mech string, sev finding.Severity, src string) {
			sub := s.On(s.IfName(index))
			sub.Address = address
			r := fail(sub, fmt.Sprintf("%s %s belongs to %s.", what, address, mech), c.observed(src, mech, address))
			if mech == "NAT64" {
				sev = finding.Info
			}
			r.Severity = sev
			out = append(out, r)
		}
		for _, a := range s.Addrs(0, "ipv6") {
			if m := mechanism(a.Prefix.Addr()); m != "" {
				add(a.Index, "The address", a.Prefix.Addr().String(), m, "", "RTM_GETADDR")
			}
		}
		rs, _ := s.Routes.Get()
		for _, r := range rs {
			if r.Family != "ipv6" || r.Type != routeUnicast || r.Table == tableLocal || r.Dst.Bits() < 16 {
				continue
			}
			if m := mechanism(r.Dst.Addr()); m != "" {
				index := 0
				if len(r.NextHops) > 0 {
					index = r.NextHops[0].Index
				}
				add(index, "The route", r.Dst.String(), m, "", "RTM_GETROUTE")
			}
		}
		ns, _ := s.Neighbours.Get()
		seen := map[string]bool{}
		for _, n := range ns {
			m := mechanism(n.Address)
			k := fmt.Sprint(n.Index, m)
			if m == "" || seen[k] {
				continue
			}
			seen[k] = true
			add(n.Index, "The neighbour", n.Address.WithZone("").String(), m, finding.Low, "RTM_GETNEIGH")
		}
		if out == nil {
			out = append(out, pass(s.Subject(), "No address, route or neighbour of a transition mechanism."))
		}
		return fold(out)
	})
}

// tunnelPrograms are daemons that carry packets inside others, by the base name
// of their executable or unit. Value: what it is.
var (
	covertPrograms = map[string]string{
		"miredo": "Teredo client", "miredo-server": "Teredo server", "teredo-relay": "Teredo relay", "aiccu": "tunnel broker client", "gogoc": "tunnel broker client",
		"gw6c": "tunnel broker client", "isatapd": "ISATAP client", "iodine": "DNS tunnel", "iodined": "DNS tunnel", "dns2tcpd": "DNS tunnel", "dns2tcpc": "DNS tunnel",
		"dnscat": "DNS tunnel", "chisel": "TCP tunnel over HTTP", "ptunnel": "ICMP tunnel", "hans": "ICMP tunnel",
	}
	vpnPrograms = map[string]string{
		"openvpn": "VPN", "tailscaled": "VPN", "zerotier-one": "VPN", "nebula": "VPN", "tincd": "VPN", "cloudflared": "tunnel to a provider", "vtund": "VPN",
		"charon": "IPsec", "pluto": "IPsec", "openconnect": "VPN", "vpnc": "VPN", "tayga": "NAT64 translator", "jool": "NAT64 translator", "n2n": "VPN", "edge": "VPN", "netbird": "VPN",
	}
)

func tunnelDaemons(c *Context) []Result {
	h := &c.Snap.Host
	var out []Result
	judge := func(sub finding.Subject, name, state string, ev finding.Evidence) {
		what, covert := covertPrograms[name]
		if !covert {
			if what = vpnPrograms[name]; what == "" {
				return
			}
		}
		r := fail(sub, fmt.Sprintf("%s (%s) is %s.", name, what, state), ev)
		if !covert {
			r.Severity = finding.Info
		}
		out = append(out, r)
	}
	ps, procsKnown := h.Processes.Get()
	for i := range ps {
		exe := ps[i].Exe.Or("")
		if exe == "" {
			continue
		}
		sub := finding.Subject{Process: exe}
		if id, ok := ps[i].NetNS.Get(); ok {
			if s := c.spaceByID(id); s != nil {
				sub.NetNS = s.Name
			}
		}
		judge(sub, baseName(exe), "running", c.observed("/proc/PID/exe", "executable", exe))
	}
	us, unitsKnown := h.Files.Units.Get()
	for _, u := range us {
		name := strings.TrimSuffix(u.Name, ".service")
		name, _, _ = strings.Cut(name, "@")
		if u.Enabled && !u.Masked {
			judge(finding.Subject{File: u.Path, Key: u.Name}, name, "enabled", written(u.Origin, "unit", u.Name))
		}
	}
	var gaps []fact.Gap
	if g := gapOf(h.Processes); !procsKnown && g != nil && h.Mode != fact.ModeRoot {
		gaps = append(gaps, *g)
	}
	if g := gapOf(h.Files.Units); !unitsKnown && g != nil {
		gaps = append(gaps, *g)
	}
	if len(gaps) > 0 {
		out = append(out, unknown(finding.Subject{Key: "daemons"}, gaps...))
	}
	if out == nil {
		out = append(out, pass(finding.Subject{Key: "daemons"}, "No known tunnel daemon runs or is enabled."))
	}
	return fold(out)
}

// greEndpoints are programs that terminate GRE in user space.
var greEndpoints = []string{"pptpd", "pptp", "pptpctrl", "accel-pppd"}

func tunnelRawSockets(c *Context) []Result {
	var out []Result
	for _, s := range c.spaces {
		if g := gapOf(s.Sockets); g != nil {
			out = append(out, s.mark(unknown(s.Subject(), *g))...)
			continue
		}
		var here []Result
		socks, _ := s.Sockets.Get()
		for i := range socks {
			k := &socks[i]
			word := tunnelProtocols[k.Number]
			if k.Protocol != "raw" || word == "" {
				continue
			}
			exe := c.holder(k)
			sub := s.Subject()
			sub.Family, sub.Proto, sub.Process = k.Family, "raw", exe
			sub.Key = fmt.Sprintf("protocol %d", k.Number)
			who := exe
			if who == "" {
				who = "A program"
			}
			r := fail(sub, fmt.Sprintf("%s holds a raw %s socket for protocol %d (%s).", who, k.Family, k.Number, word),
				c.observed(cmp.Or(k.Source, "raw sockets"), sub.Key, cmp.Or(exe, "holder not visible")))
			if k.Number == 47 && slices.Contains(greEndpoints, baseName(exe)) {
				r.Severity = finding.Medium
			}
			f, _ := rules.FamilyOf(k.Family)
			here = append(here, s.behind(protocol(f, uint8(k.Number), fmt.Sprintf("a packet of protocol %d", k.Number)), "", r))
		}
		if here == nil {
			here = append(here, pass(s.Subject(), "No raw socket takes tunnel packets."))
		}
		out = append(out, s.mark(fold(here)...)...)
	}
	return out
}

func sixRDByDHCP(c *Context) []Result {
	ms, ok := c.Snap.Host.Managers.Get()
	if !ok {
		if g := gapOf(c.Snap.Host.Managers); g != nil {
			return []Result{unknown(finding.Subject{}, *g)}
		}
	}
	var out []Result
	for i := range ms {
		m := &ms[i]
		if m.Name != "systemd-networkd" || !m.Running.Or(true) && !m.Enabled.Or(true) {
			continue
		}
		for j := range m.Interfaces {
			mi := &m.Interfaces[j]
			sub := finding.Subject{Process: m.Name, File: mi.Origin.File, Key: strings.Join(mi.Names, " ")}
			on, known := mi.Use6RD.Get()
			switch {
			case known && on:
				out = append(out, fail(sub, fmt.Sprintf("%s lets a DHCPv4 server set up a 6rd tunnel (Use6RD=yes).", mi.Origin.File), written(mi.Origin, "Use6RD", "yes")))
			case known:
				out = append(out, pass(sub, "No 6rd tunnel is taken from DHCPv4.", written(mi.Origin, "Use6RD", "no")))
			default:
				if g := gapOf(mi.Use6RD); g != nil {
					out = append(out, unknown(sub, *g))
				}
			}
		}
		for _, g := range m.Gaps {
			out = append(out, unknown(finding.Subject{Process: m.Name}, g))
		}
	}
	return fold(out)
}

func overlayEndpoints(c *Context) []Result {
	return c.eachTunnel(func(s *Space, l *fact.Link, kind string) []Result {
		if !slices.Contains(overlayKinds, kind) && kind != "bareudp" {
			return nil
		}
		sub := s.On(l.Name)
		sub.Proto = "udp"
		desc := kind
		if t := l.Tunnel; t != nil {
			sub.Port = t.Port
			desc = fmt.Sprintf("%s VNI %d, UDP port %d", kind, t.VNI, t.Port)
		}
		ev := c.observed("RTM_GETLINK", "overlay", desc)
		if l.Flags&iffUp == 0 {
			return []Result{pass(sub, l.Name+" is down: its UDP port is closed.", ev)}
		}
		r := fail(sub, fmt.Sprintf("%s (%s) would take frames from any sender that can reach its UDP port: the kernel does not compare the sender with the device's peers.", l.Name, desc), ev)
		if t := l.Tunnel; t != nil && t.Port != 0 {
			r.Remediation = []finding.Remediation{
				command("%s", s.Run(nft(fmt.Sprintf("add table inet guard; add chain inet guard input { type filter hook input priority 0; }; add rule inet guard input udp dport %d ip saddr != { PEER1, PEER2 } drop; add rule inet guard input meta nfproto ipv6 udp dport %d drop", t.Port, t.Port)))),
				advice("PEER1, PEER2 are the underlay addresses of the other endpoints."),
				intent("tunnels:\n  - {mechanism: %s, peer: \"192.0.2.0/24\"}", yamlWord(kind)),
			}
		}
		if s.lonelyOverlay(l) {
			r.Severity = finding.Medium
		}
		return []Result{s.behindUnderlay(l, r)}
	}, "No VXLAN, Geneve or bareudp device is present.")
}

// lonelyOverlay tells whether nothing but loopback carries the underlay.
func (s *Space) lonelyOverlay(l *fact.Link) bool {
	return !slices.ContainsFunc(s.links, func(o fact.Link) bool {
		return o.Index != l.Index && o.Flags&iffUp != 0 && o.Flags&iffLoopback == 0 && kindOf(&o) == "" && o.Master != l.Index && o.Kind != "bridge"
	})
}
