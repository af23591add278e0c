package prove

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/logic/attack"
	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// back is the interface by which the host sends to an address.
func (s *site) back(a netip.Addr) string {
	best, bits := "", -1
	for _, l := range s.setup.Links {
		for _, p := range l.Addresses {
			if p.Addr() == a {
				return "" // its own
			}
			if p.Masked().Contains(a) && p.Bits() > bits && !p.Addr().IsLinkLocalUnicast() {
				best, bits = l.Name, p.Bits()
			}
		}
	}
	metric := uint32(0)
	for _, r := range s.setup.Routes {
		if r.Dst.Contains(a) && (r.Dst.Bits() > bits || r.Dst.Bits() == bits && best != "" && r.Metric < metric) {
			best, bits, metric = r.Link, r.Dst.Bits(), r.Metric
		}
	}
	return best
}

// beside is an address in a prefix, so many after its own.
func beside(p netip.Prefix, n int) netip.Addr {
	a := p.Masked().Addr()
	b := a.AsSlice()
	if a.Is4() {
		b[3] += byte(n%13 + 1)
	} else {
		b[14], b[15] = b[14]|byte(n>>8), b[15]+byte(n)
	}
	out, _ := netip.AddrFromSlice(b)
	if out == p.Addr() {
		return beside(p, n+1)
	}
	return out
}

// aim says where to fire at an interface, and what ought to happen there.
func (s *site) aim(n int, l fact.Link) {
	made := s.setup.Links[n]
	key := s.sel.Keys[l.Name]
	i := s.in.Of(s.sel, l.Name)
	t := target{name: l.Name, off: s.in.Families == intent.Disabled || s.in.Families == intent.DisabledKeepLoopback || i.Addressing == intent.NoIPv6}
	r := attack.Range{Interface: l.Name, Key: key, Effective: true, Plain: made.Plain, Host: attack.Peer{MAC: made.MAC}}
	if r.Led, r.More = s.ports, s.more; key == "" {
		// No entry selects it. By its kind it is a container's here, whatever it is there.
		r.Key, r.Theirs = "\x00", !made.Plain
		if r.Theirs && len(s.ports) > 0 && l.Kind != "veth" && l.Kind != "bridge" {
			s.limit("ports that NAT leads elsewhere are not fired at %s, which the intent does not name", l.Name)
		}
	}
	var p4, p6 netip.Prefix
	for _, p := range made.Addresses {
		switch a := p.Addr(); {
		case a.Is4() && p.Bits() <= room4 && !p4.IsValid():
			p4 = p
		case a.Is6() && a.IsLinkLocalUnicast() && !r.Host.LL.IsValid():
			r.Host.LL = a
		case a.Is6() && !a.IsLinkLocalUnicast() && p.Bits() <= room6 && !p6.IsValid():
			p6 = p
		}
	}
	r.Host.Global, r.Host.Address = p6.Addr(), p4.Addr()
	peer := func(m ndisc.MAC, n int) attack.Peer {
		return attack.Peer{MAC: m, LL: linkLocal(m), Global: beside(p6, n), Address: beside(p4, n)}
	}
	r.Neighbour, r.Rogue, r.Router = peer(neighbourMAC, 7), peer(rogueMAC, 0x66), peer(routerMAC, 1)
	gw6, gw4 := s.gateway(l.Index, false), s.gateway(l.Index, true)
	switch {
	case len(i.Routers) > 0:
		r.Router.LL = i.Routers[0].Address
		r.Router.MAC = mac(i.Routers[0].MAC, mac(s.neighbour(l.Index, r.Router.LL), routerMAC))
	case gw6.IsLinkLocalUnicast():
		r.Router.LL, r.Router.MAC = gw6, mac(s.neighbour(l.Index, gw6), routerMAC)
	}
	if gw4.IsValid() {
		r.Router.Address = gw4
	}
	s.know(l.Name, r.Router.LL, r.Router.MAC)
	for _, p := range []attack.Peer{r.Neighbour, r.Rogue} {
		for _, a := range []netip.Addr{p.LL, p.Global, p.Address} {
			s.know(l.Name, a, p.MAC)
		}
	}
	r.Back = func(a netip.Addr) bool { return s.back(a) == l.Name }
	// Addresses of somebody: what nobody has is dropped on many hosts.
	r.Far, r.Far4 = netip.MustParseAddr("2600:1::1"), netip.MustParseAddr("198.41.0.9")
	if !r.Back(r.Far) {
		r.Far = beside(p6, 9)
		s.know(l.Name, r.Far, r.Router.MAC)
	}
	if !r.Back(r.Far4) {
		r.Far4 = beside(p4, 9)
		s.know(l.Name, r.Far4, r.Router.MAC)
	}
	r.Elsewhere, r.Elsewhere4, r.ElsewhereInterface, r.ElsewhereKey = netip.MustParseAddr("2001:db8:51fe::5"), netip.MustParseAddr("198.19.254.5"), elsewhere, "\x00"
	for k, o := range s.setup.Links {
		if o.Name == l.Name || k >= len(s.setup.Links)-1 || s.in.Interfaces[s.sel.Keys[o.Name]].Addressing == intent.NoIPv6 {
			continue // without IPv6 no route leads there
		}
		var o4, o6 netip.Addr
		for _, p := range o.Addresses {
			if p.Addr().Is4() && p.Bits() <= room4 {
				o4 = beside(p, 5)
			} else if p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() && p.Bits() <= room6 {
				o6 = beside(p, 5)
			}
		}
		if s.back(o4) == o.Name && s.back(o6) == o.Name {
			r.Elsewhere, r.Elsewhere4, r.ElsewhereInterface, r.ElsewhereKey = o6, o4, o.Name, s.sel.Keys[o.Name]
			break
		}
	}
	r.Named = s.named()
	r.Transit4, r.Transit6 = s.transit(s.in.Forwarding.IPv4, true), s.transit(s.in.Forwarding.IPv6, false)
	if t.off {
		r.Transit6 = ""
	}
	for _, x := range attack.Sendings(s.in, r) {
		s.know(l.Name, x.Dst.Addr(), r.Router.MAC)
	}
	t.still = !t.off && !s.by("accept_ra", "autoconf") && i.Addressing != intent.SLAAC && i.Addressing != intent.DHCPv6
	t.slaac = !s.by("accept_ra", "autoconf") && i.Addressing == intent.SLAAC && len(i.Routers) > 0 && !s.userspace(l)
	t.shots = r
	if l.Kind == "bridge" {
		t.guest = peer(guestMAC, 0x99)
	}
	s.targets = append(s.targets, t)
}
