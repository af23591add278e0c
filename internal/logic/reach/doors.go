package reach

import (
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// doors are the interfaces by which packets of a family come in: what a bridge or
// bond takes from its ports comes in by the bridge. Loopback is the last.
func (sp *Space) doors(family string) []*fact.Link {
	var out []*fact.Link
	for i := range sp.links {
		l := &sp.links[i]
		if l.Flags&1 == 0 { // IFF_UP
			continue
		}
		switch l.SlaveKind {
		case "bridge", "bond", "team", "openvswitch", "hsr":
			continue
		}
		if l.Kind == "vrf" {
			continue
		}
		if family == "ipv6" && !sp.hears6(l) {
			continue
		}
		out = append(out, l)
	}
	slices.SortStableFunc(out, func(a, b *fact.Link) int {
		if loopback(a) == loopback(b) {
			return 0
		}
		if loopback(b) {
			return -1
		}
		return 1
	})
	return out
}

// hears6 tells whether the kernel may take IPv6 on an interface.
func (sp *Space) hears6(l *fact.Link) bool {
	if on, ok := sp.IPv6.Get(); ok && !on {
		return false
	}
	if l.Inet6.State() == fact.StateAbsent {
		return false
	}
	if m, ok := l.Inet6.Get(); ok {
		if v, ok := m["disable_ipv6"]; ok {
			return v == 0
		}
	}
	return true
}

func loopback(l *fact.Link) bool { return l.Flags&8 != 0 }

// addresses are the host's own of a family, with the interface where that matters.
func (sp *Space) destinations(l *Listener, f rs.Family, door *fact.Link) []netip.Addr {
	var out []netip.Addr
	add := func(a netip.Addr) {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	addrs, _ := sp.Addresses.Get()
	for _, a := range addrs {
		ip := a.Prefix.Addr()
		switch {
		case ip.Is4() != (f == rs.IPv4):
		case a.Flags&(fact.AddrDADFailed|fact.AddrTentative) != 0 && a.Flags&fact.AddrOptimistic == 0:
		case ip.IsLinkLocalUnicast() && ip.Is6() && a.Index != door.Index && !loopback(door):
		case ip.IsLoopback() && !loopback(door):
			// From outside the kernel drops packets to 127.0.0.0/8 and ::1.
		case l.local.IsValid() && l.local != ip:
		default:
			add(ip)
		}
	}
	if l.local.IsValid() && len(out) == 0 && !l.local.IsMulticast() && l.local.IsLoopback() && loopback(door) {
		add(l.local) // all of 127.0.0.0/8 is local
	}
	if f == rs.IPv4 && !loopback(door) && sp.conf4("route_localnet", door) {
		// The kernel takes packets to 127.0.0.0/8 from outside here.
		switch {
		case !l.local.IsValid():
			add(netip.MustParseAddr("127.0.0.1"))
		case l.local.IsLoopback():
			add(l.local)
		}
	}
	if (l.Proto == "udp" || l.Proto == "udplite") && !loopback(door) {
		switch {
		case l.local.IsMulticast():
			if sp.joined(l.local, door) {
				add(l.local)
			}
		case !l.local.IsValid() && f == rs.IPv6:
			add(netip.MustParseAddr("ff02::1"))
			for _, g := range sp.groups(door) {
				add(g)
			}
		case !l.local.IsValid() && !l.takes[1]:
			// A socket of both families takes groups of IPv4 that it joined itself only:
			// IP_MULTICAST_ALL is off there (inet6_create).
			add(netip.MustParseAddr("224.0.0.1"))
		}
	}
	return out
}

// maxGroups6 is how many groups of an interface are asked about.
const maxGroups6 = 8

var solicited = netip.MustParsePrefix("ff02::1:ff00:0/104")

// groups are the multicast groups that the host has joined on an interface, without
// those of neighbour discovery.
func (sp *Space) groups(door *fact.Link) []netip.Addr {
	var out []netip.Addr
	all, _ := sp.Multicast.Get()
	for _, m := range all {
		if m.Index == door.Index && m.Group.Is6() && !solicited.Contains(m.Group) && m.Group.As16()[1]&0xf > 1 && len(out) < maxGroups6 {
			out = append(out, m.Group)
		}
	}
	return out
}

// joined tells whether the host may have joined a group on an interface.
func (sp *Space) joined(g netip.Addr, door *fact.Link) bool {
	all, known := sp.Multicast.Get()
	return !known || g.Is4() || slices.ContainsFunc(all, func(m fact.Membership) bool { return m.Index == door.Index && m.Group == g })
}

// maxDestinations is how many addresses of an interface are asked about one by one;
// the others are asked about together, as an address that is not known.
const maxDestinations = 32

// readsDaddr tells whether any rule may look at the destination of a family's
// packets: without, all addresses answer alike.
func (sp *Space) readsDaddr(f rs.Family) bool {
	if sp.daddrRead == nil {
		sp.daddrRead = map[rs.Family]bool{}
		for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
			sp.daddrRead[f] = looksAtDaddr(sp.Model.Set, f)
		}
	}
	return sp.daddrRead[f]
}

func looksAtDaddr(set *rs.Ruleset, f rs.Family) bool {
	from, to := uint32(24), uint32(40)
	if f == rs.IPv4 {
		from, to = 16, 20
	}
	for _, t := range set.Tables {
		if t.Family == rs.IPv4 && f == rs.IPv6 || t.Family == rs.IPv6 && f == rs.IPv4 {
			continue
		}
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				for _, e := range r.Exprs {
					switch e := e.(type) {
					case rs.Payload:
						if e.Base == rs.NetworkHeader && e.Offset < to && e.Offset+e.Len > from {
							return true
						}
					case rs.Meta, rs.Cmp, rs.Bitwise, rs.Range, rs.Lookup, rs.Conclude, rs.Nothing, rs.Limit, rs.Immediate, rs.Exthdr, rs.Reject, rs.MetaSet, rs.Byteorder:
						if m, ok := e.(rs.Meta); ok && m.Key == metaPktType {
							return true
						}
					case rs.Ct:
						if e.Key != ctState && e.Key != ctMark && e.Key != ctDirection && e.Key != ctStatus {
							return true
						}
					default:
						return true
					}
				}
			}
		}
	}
	return false
}

// foreign tells that an address is not the host's own.
func (sp *Space) foreign(a netip.Addr) bool {
	addrs, ok := sp.Addresses.Get()
	return ok && !a.IsLoopback() && !slices.ContainsFunc(addrs, func(x fact.Address) bool { return x.Prefix.Addr() == a })
}
