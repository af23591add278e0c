package draft

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

const (
	iffLoopback = 0x8
	unicast     = 1
	localTable  = 255
	fromRA      = 2 // IFAPROT_KERNEL_RA
)

// uplinks are the interfaces with a default route, by name, sorted.
func (d *drafting) uplinks() []string {
	var out []string
	for i := range d.links {
		if d.defaultRoute(d.links[i].Index, "ipv4") != nil || d.defaultRoute(d.links[i].Index, "ipv6") != nil {
			out = append(out, d.links[i].Name)
		}
	}
	slices.Sort(out)
	return out
}

// defaultRoute is a default route of a family by an interface; one that was configured
// before one that a router announced.
func (d *drafting) defaultRoute(index int, family string) *fact.Route {
	var found *fact.Route
	for i := range d.routes {
		r := &d.routes[i]
		if r.Family != family || r.Dst.Bits() != 0 || r.Type != unicast || r.Table == localTable {
			continue
		}
		if !slices.ContainsFunc(r.NextHops, func(h fact.NextHop) bool { return h.Index == index }) {
			continue
		}
		if found == nil || found.Protocol == fact.ProtoRA {
			found = r
		}
	}
	return found
}

// of are the addresses of an interface that are more than link-local.
func (d *drafting) of(index int) (four, six []fact.Address) {
	for _, a := range d.addrs {
		switch ip := a.Prefix.Addr(); {
		case a.Index != index || ip.IsLoopback() || ip.IsLinkLocalUnicast():
		case ip.Is4():
			four = append(four, a)
		default:
			six = append(six, a)
		}
	}
	return four, six
}

func (d *drafting) interfaces() {
	d.Intent.Interfaces = map[string]intent.Interface{}
	var left []string
	for i := range d.links {
		l := &d.links[i]
		if l.Flags&iffLoopback != 0 {
			continue
		}
		four, six := d.of(l.Index)
		bare := len(four) == 0 && len(six) == 0 && d.defaultRoute(l.Index, "ipv4") == nil && d.defaultRoute(l.Index, "ipv6") == nil
		if bare || !writable(l.Name) {
			left = append(left, l.Name)
			continue
		}
		d.Intent.Interfaces[l.Name] = d.iface(l, four, six)
	}
	d.above("interfaces", "A key is a name or a glob (en*); with match: {driver: virtio_net} or match: {role: default-route} one file serves many hosts.")
	if len(left) > 0 {
		slices.Sort(left)
		more := ""
		if len(left) > 8 {
			more = fmt.Sprintf(" and %d more", len(left)-8)
			left = left[:8]
		}
		d.above("interfaces", "Not listed, because without an address of their own: %s%s. No router advertisement is believed on an interface that is not listed.", strings.Join(left, ", "), more)
	}
}

// writable tells that a name can be a key of the file.
func writable(name string) bool {
	return name != "" && name != "lo" && name != "." && name != ".." && len(name) <= 15 && !strings.ContainsAny(name, `*?[]\/: `) && strings.IndexFunc(name, func(r rune) bool { return r < '!' || r > '~' }) < 0
}

// path of an entry of interfaces.
func path(name string) string {
	if strings.Contains(name, ".") {
		return "interfaces[" + name + "]"
	}
	return "interfaces." + name
}

func (d *drafting) iface(l *fact.Link, four, six []fact.Address) intent.Interface {
	p := path(l.Name)
	var has []string
	for _, a := range slices.Concat(four, six) {
		has = append(has, a.Prefix.Addr().String()+lifetime(&a))
	}
	for _, f := range []string{"ipv4", "ipv6"} {
		if r := d.defaultRoute(l.Index, f); r != nil {
			via := "on-link"
			if len(r.NextHops) > 0 && r.NextHops[0].Via.IsValid() {
				via = r.NextHops[0].Via.String()
			}
			has = append(has, fmt.Sprintf("default route by %s (%s)", via, protocol(r.Protocol)))
		}
	}
	d.above(p, "%s", strings.Join(has, "; "))
	i := intent.Interface{Addressing: intent.Addressing(cmp.Or(d.role.Addressing[l.Name], "none"))}
	route := d.defaultRoute(l.Index, "ipv6")
	announced := route != nil && route.Protocol == fact.ProtoRA
	var why string
	switch {
	case d.disabled():
		i.Addressing, why = intent.NoIPv6, "families says that there is no IPv6"
	case d.profile.Name == StaticServer:
		i.Addressing, why = intent.Static, "profile static-server"
		if announced {
			d.Open = append(d.Open, l.Name+" gets its default route by router advertisements: configure it before you apply, or plan refuses")
		}
	case d.profile.Name == CloudVM && i.Addressing != intent.DHCPv6 && (announced || slices.Equal(d.uplinks(), []string{l.Name})):
		i.Addressing, why = intent.SLAAC, "profile slaac-vm"
	case i.Addressing == intent.Static && announced:
		i.Addressing, why = intent.SLAAC, "the address is configured, but the default route comes by router advertisements alone: static would lose it"
	case i.Addressing == intent.Static:
		why = "an IPv6 address of it is permanent: no router advertisement is needed"
	case i.Addressing == intent.SLAAC:
		why = "its IPv6 address is made from a router advertisement, and has a lifetime"
	case i.Addressing == intent.DHCPv6:
		why = "its IPv6 address is a /128 with a lifetime, as DHCPv6 gives them"
	case announced:
		i.Addressing, why = intent.SLAAC, "its default route comes by router advertisements"
	default:
		i.Addressing, why = intent.Static, "no IPv6 address but link-local: none is taken from strangers either"
	}
	d.Beside[p+".addressing"] = why
	if i.Addressing == intent.SLAAC || i.Addressing == intent.DHCPv6 {
		d.routers(&i, l, p)
	} else {
		for _, r := range d.candidates(l) {
			d.above(p+".addressing", "%s (MAC %s) says that it is a router, and is not believed here.", r.Address, cmp.Or(r.MAC, "not known"))
		}
	}
	d.others(l, &i, six, p)
	if i.Addressing == intent.DHCPv6 {
		d.above(p+".addressing", "Any DHCPv6 server of the link is believed until you list yours: dhcpv6Servers: [{address: \"fe80::1\"}]")
	}
	return i
}

// others says what is not told by how an interface gets its addresses: a DHCPv6 client
// that asks for other things, and addresses that a program of this host gives it.
func (d *drafting) others(l *fact.Link, i *intent.Interface, six []fact.Address, p string) {
	if i.Addressing == intent.SLAAC && d.dhcpv6Client(l.Index) {
		i.DHCPv6Servers = []intent.DHCPv6Server{}
		d.above(p+".dhcpv6Servers", "A DHCPv6 client listens here (udp/546), for name servers or a delegated prefix: any server of the link is believed until you list yours: [{address: \"fe80::1\"}]")
	}
	if i.Addressing != intent.Static {
		return
	}
	for _, a := range six {
		// The kernel says of its own addresses what they are from, where it can.
		if a.Valid != fact.Forever && a.Protocol != fromRA {
			d.above(p+".addressing", "%s has a lifetime. A router that announced it would not be believed any more; a program of this host that renews it (prefix delegation, as a rule) goes on to.", a.Prefix.Addr())
		} else if a.Valid != fact.Forever {
			d.above(p+".addressing", "%s was announced by a router, and ends: addressing: slaac keeps it.", a.Prefix.Addr())
		}
	}
}

// dhcpv6Client tells that a program waits for answers of DHCPv6 on an interface.
func (d *drafting) dhcpv6Client(index int) bool {
	ss, _ := d.ns.Sockets.Get()
	return slices.ContainsFunc(ss, func(s fact.Socket) bool {
		if s.Protocol != "udp" || s.Port != 546 || s.Family != "ipv6" || s.Index != 0 && s.Index != index {
			return false
		}
		here := slices.ContainsFunc(d.addrs, func(a fact.Address) bool { return a.Index == index && a.Prefix.Addr() == s.Local.WithZone("") })
		return s.Local.IsUnspecified() || here
	})
}

func lifetime(a *fact.Address) string {
	if a.Valid == fact.Forever {
		return ""
	}
	return fmt.Sprintf(" (for %d s)", a.Valid)
}

func protocol(p uint8) string {
	switch p {
	case fact.ProtoRA:
		return "announced by a router"
	case fact.ProtoDHCP:
		return "DHCP"
	case fact.ProtoStatic, fact.ProtoBoot:
		return "configured"
	}
	return fmt.Sprintf("protocol %d", p)
}

// candidates are the routers of an interface that announced themselves.
func (d *drafting) candidates(l *fact.Link) []intent.Router {
	var out []intent.Router
	add := func(a netip.Addr) {
		a = a.WithZone("")
		if a.Is6() && a.IsLinkLocalUnicast() && !slices.ContainsFunc(out, func(r intent.Router) bool { return r.Address == a }) {
			out = append(out, intent.Router{Address: a})
		}
	}
	for _, r := range d.routes {
		if r.Family == "ipv6" && r.Dst.Bits() == 0 && r.Protocol == fact.ProtoRA {
			for _, h := range r.NextHops {
				if h.Index == l.Index {
					add(h.Via)
				}
			}
		}
	}
	for _, n := range d.neighbours {
		if n.Index == l.Index && n.Flags&fact.NeighRouter != 0 {
			add(n.Address)
		}
	}
	for i := range out {
		for _, n := range d.neighbours {
			if n.Index == l.Index && n.Address.WithZone("") == out[i].Address {
				out[i].MAC = unicastMAC(n.MAC)
			}
		}
	}
	slices.SortFunc(out, func(a, b intent.Router) int { return a.Address.Compare(b.Address) })
	return out
}

// unicastMAC is a MAC address in the form of the file, or nothing.
func unicastMAC(s string) string {
	s = strings.ToLower(s)
	if len(s) != 17 || strings.Trim(s, "0123456789abcdef:") != "" || s == "00:00:00:00:00:00" || strings.IndexByte("13579bdf", s[1]) >= 0 {
		return ""
	}
	for i := 2; i < 17; i += 3 {
		if s[i] != ':' || strings.Count(s, ":") != 5 {
			return ""
		}
	}
	return s
}

// prefixes are those that addresses with a lifetime were made from.
func (d *drafting) prefixes(index int) []netip.Prefix {
	var out []netip.Prefix
	_, six := d.of(index)
	for _, a := range six {
		if p := a.Prefix.Masked(); a.Valid != fact.Forever && a.Prefix.Bits() < 128 && p.Addr().IsGlobalUnicast() && !p.Addr().Is4In6() && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

func (d *drafting) routers(i *intent.Interface, l *fact.Link, p string) {
	if d.o.LearnOnce {
		i.LearnOnce = true
		d.above(p+".learnOnce", "The routers that are there when the plan is first applied are believed for good, and written into sixfence.d: they are not learned again by themselves. A rogue that is there at that moment is one of them: for images in networks that you trust.")
		return
	}
	no := false
	list := d.candidates(l)
	prefixes := d.prefixes(l.Index)
	for n := range list {
		r := &list[n]
		if len(list) == 1 {
			r.Prefixes = prefixes
		}
		at := fmt.Sprintf("%s.routers[%d]", p, n)
		if known := d.configured(l, r.Address); known != "" {
			d.above(at, "Accepted, because %s names it.", known)
		} else {
			r.Accepted = &no
			d.Open = append(d.Open, fmt.Sprintf("make sure that %s on %s is your router, and set accepted to true", r.Address, l.Name))
			d.above(at, "NOT ACCEPTED YET. It announced itself, as any neighbour could: make sure that it is yours, then set accepted to true (or delete the entry). plan refuses until then.")
		}
		d.above(at, "%s", strings.Join(d.evidence(l, r, len(list)), "; "))
	}
	i.Routers = list
	switch {
	case len(list) == 0:
		d.Open = append(d.Open, "add the router of "+l.Name+": none was seen")
		d.above(p+".addressing", "No router was seen. Add yours, or plan refuses what would lose it: routers: [{address: \"fe80::1\", mac: \"52:54:00:00:00:01\"}]")
	case len(list) > 1 && len(prefixes) > 0:
		d.above(p+".addressing", "Which of the %d routers announced %s is not known: add prefixes to yours.", len(list), brief(prefixes))
	}
}

// evidence is what is known of a router: age, and what speaks for it or against.
func (d *drafting) evidence(l *fact.Link, r *intent.Router, many int) []string {
	var out []string
	for _, x := range d.routes {
		if x.Family != "ipv6" || x.Dst.Bits() != 0 || !slices.ContainsFunc(x.NextHops, func(h fact.NextHop) bool { return h.Index == l.Index && h.Via.WithZone("") == r.Address }) {
			continue
		}
		if left, ok := x.Expires.Get(); ok {
			out = append(out, fmt.Sprintf("its default route ends in %d s unless it announces itself again", left))
		} else {
			out = append(out, "its default route has no end")
		}
		if x.Pref == 1 {
			out = append(out, "it claims HIGH preference, which rogues do")
		}
		break
	}
	if len(out) == 0 {
		out = append(out, "no default route leads to it: it only says of itself that it is a router")
	}
	out = append(out, d.age(l, many))
	if r.MAC == "" {
		out = append(out, "its MAC address is not known: reach it once and run init again")
	} else if eui(r.Address) == r.MAC {
		out = append(out, "its address is made from its MAC address")
	}
	if four := d.defaultRoute(l.Index, "ipv4"); four != nil && len(four.NextHops) > 0 && four.NextHops[0].Via.IsValid() {
		gw := four.NextHops[0].Via
		arp, _ := d.ns.Gateways4.Get()
		i := slices.IndexFunc(arp, func(n fact.Neighbour) bool { return n.Index == l.Index && n.Address == gw && n.MAC != "" })
		switch {
		case i < 0:
			out = append(out, fmt.Sprintf("whether it is the IPv4 gateway %s is not known: compare its MAC address with ip neigh show %s", gw, gw))
		case r.MAC != "" && strings.EqualFold(arp[i].MAC, r.MAC):
			out = append(out, fmt.Sprintf("FOR it: the IPv4 gateway %s has the same MAC address", gw))
		case r.MAC != "":
			out = append(out, fmt.Sprintf("AGAINST it: the IPv4 gateway %s is another machine (MAC %s)", gw, arp[i].MAC))
		}
	}
	if _, six := d.of(l.Index); slices.ContainsFunc(six, func(a fact.Address) bool { return a.Prefix.Bits() == 128 && a.Valid != fact.Forever }) {
		out = append(out, "an address here came by DHCPv6, whose server may know which router is yours: the kernel does not")
	}
	if many > 1 {
		out = append(out, fmt.Sprintf("it is one of %d that claim to be routers here", many))
	}
	return out
}

// age is for how long somebody has announced a prefix here, as far as the kernel can
// tell: it notes when an address was made, and neither who announced its prefix nor when
// a router was first heard.
func (d *drafting) age(l *fact.Link, many int) string {
	oldest, which := int64(-1), ""
	_, six := d.of(l.Index)
	for _, a := range six {
		if age, ok := a.Age.Get(); ok && age > oldest && a.Valid != fact.Forever && a.Prefix.Bits() < 128 {
			oldest, which = age, a.Prefix.Masked().String()
		}
	}
	switch {
	case oldest < 0:
		return "how long it has been here is not known"
	case many > 1:
		return fmt.Sprintf("how long it has been here is not known; one of these routers has announced %s for %s at least", which, fact.Seconds(oldest))
	}
	return fmt.Sprintf("%s has been announced for %s at least; that it was always by this machine is not known", which, fact.Seconds(oldest))
}

// eui is the MAC address that an address with a modified EUI-64 identifier was made from.
func eui(a netip.Addr) string {
	b := a.As16()
	if b[11] != 0xff || b[12] != 0xfe {
		return ""
	}
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[8]^2, b[9], b[10], b[13], b[14], b[15])
}

// configured says which file of the host names a router, or nothing.
func (d *drafting) configured(l *fact.Link, a netip.Addr) string {
	ms, _ := d.snap.Host.Managers.Get()
	for _, m := range ms {
		for _, i := range m.Interfaces {
			if i.Index != l.Index && !slices.Contains(i.Names, l.Name) {
				continue
			}
			if slices.ContainsFunc(i.Gateways, func(g netip.Addr) bool { return g.WithZone("") == a }) ||
				slices.ContainsFunc(i.RouterAllowList, func(p netip.Prefix) bool { return p.IsSingleIP() && p.Addr() == a }) {
				return cmp.Or(i.Origin.File, m.Name)
			}
		}
	}
	for _, r := range d.routes {
		if r.Family == "ipv6" && r.Protocol == fact.ProtoStatic && slices.ContainsFunc(r.NextHops, func(h fact.NextHop) bool { return h.Index == l.Index && h.Via.WithZone("") == a }) {
			return "a configured route (" + r.Dst.String() + ")"
		}
	}
	return ""
}
