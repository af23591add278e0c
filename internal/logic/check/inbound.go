package check

import (
	"encoding/binary"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// filtered is the Gap that says only that something filters on the way in: the rules
// are asked then, and no verdict shows it.
const filtered = "a packet filter on the way in"

// inboundFilter is what stands between the interfaces of a namespace and its
// local stack, for one family. The kernel asks in this order, and each may drop:
//
//	XDP → TC ingress, TCX → netdev and inet ingress chains    per device, from the
//	                                                          lowest of a stack up
//	bridge prerouting, input; ebtables                        where a bridge is in the stack
//	prerouting, input: ip, ip6, inet chains of every type,    once per family
//	x_tables, BPF links
//
// Forward, output and postrouting hooks, arp chains and flowtables never see a
// packet on its way to a local socket; bridge-nf-call-* only moves the third line
// to an earlier moment.
type inboundFilter struct {
	present  bool             // something on the third line
	ingress  []pfdecode.Chain // chains bound to devices
	bridge   bool             // bridge chains, or ebtables tables that may exist
	broken   *fact.Gap        // what could not be read of them, whatever the interface
	brBroken *fact.Gap        // what could not be read that matters on bridges only

	byName map[string]*fact.Link
	ports  map[int][]*fact.Link // by master
	memo   map[string]*fact.Gap // answers by interface
}

// Inbound says what keeps us from claiming that a packet of this family that
// arrives on ifname reaches the local stack: nil when the namespace surely has
// no base chain, legacy table, XDP, TC or BPF netfilter program on that path.
//
// An empty ifname asks for every interface. A name that no interface has stands
// for one that is yet to come: whatever is bound to no single device counts. For a
// tunnel, what can stop the packets around it counts too.
func (s *Space) Inbound(family, ifname string) *fact.Gap {
	f := s.filter(family)
	g, ok := f.memo[ifname]
	if !ok {
		g = s.onPath(family, ifname)
		f.memo[ifname] = g
	}
	if g == nil {
		return nil
	}
	c := *g // callers may keep and change it
	return &c
}

// filter reads what stands in the way of a family once.
func (s *Space) filter(family string) inboundFilter {
	if s.inbound == nil {
		s.inbound = map[string]inboundFilter{}
	}
	f, ok := s.inbound[family]
	if !ok {
		f = s.readInbound(family)
		s.inbound[family] = f
	}
	return f
}

// onPath looks at one interface.
func (s *Space) onPath(family, ifname string) *fact.Gap {
	f := s.filter(family)
	path, future := s.path(&f, ifname)
	g := s.passes(&f, path, future)
	if g != nil && g.What == filtered {
		return g
	}
	// Frames for a tap on a device go to the program that holds its file, if one
	// does (tap_handle_frame, drivers/net/tap.c), and to the stack else.
	if top := f.byName[ifname]; g == nil && top != nil && (top.Kind == "macvtap" || top.Kind == "ipvtap") {
		return &fact.Gap{Reason: fact.NotCollected, What: "whether a program (a virtual machine's) holds " + top.Name + " and takes its frames"}
	}
	if !slices.ContainsFunc(path, func(l *fact.Link) bool { return l.Tunnel != nil || tunnelKinds[l.Kind] }) {
		return g
	}
	// What is in a tunnel came in other packets, of either family and anywhere.
	all, _ := s.path(&f, "")
	for _, outer := range []string{"ipv4", "ipv6"} {
		o := s.filter(outer)
		if og := s.passes(&o, all, false); og != nil && (g == nil || og.What == filtered) {
			g = og
		}
	}
	return g
}

// passes looks at a stack of devices and what is behind it. future stands for
// devices that are not there yet.
func (s *Space) passes(f *inboundFilter, path []*fact.Link, future bool) *fact.Gap {
	present := &fact.Gap{Reason: fact.NotCollected, What: filtered}
	if f.present {
		return present
	}
	broken := f.broken
	note := func(g *fact.Gap) {
		if broken == nil {
			broken = g
		}
	}
	// Without the list of interfaces nothing is known about the devices on the path.
	if g, gap := s.Links.Gap(); gap {
		if len(f.ingress) > 0 || f.bridge {
			return present
		}
		note(&fact.Gap{Reason: g.Reason, What: "interfaces, and the XDP and TC programs on them"})
		return broken
	}
	if future && slices.ContainsFunc(f.ingress, func(c pfdecode.Chain) bool { return c.AnyDevice || len(c.Devices) == 0 || len(c.DevicePrefixes) > 0 }) {
		return present
	}
	for _, l := range path {
		if slices.ContainsFunc(f.ingress, func(c pfdecode.Chain) bool { return c.OnDevice(l.Name) }) {
			return present
		}
		if l.Kind == "openvswitch" {
			return present // its flow table decides what arrives
		}
		if l.Kind == "bridge" || l.SlaveKind == "bridge" {
			if f.bridge {
				return present
			}
			if f.brBroken != nil {
				note(f.brBroken)
			}
		}
		if x, ok := l.XDP.Get(); ok && x != 0 {
			return present
		} else if g, gap := l.XDP.Gap(); gap {
			note(&fact.Gap{Reason: g.Reason, What: "XDP programs of " + l.Name})
		}
		if t, ok := l.TCIngress.Get(); ok && t {
			return present
		} else if g, gap := l.TCIngress.Gap(); gap {
			note(&fact.Gap{Reason: g.Reason, What: "TC programs of " + l.Name})
		}
	}
	return broken
}

// path returns the devices whose ingress a packet for ifname passes: itself, the
// ports of a master, the device it is stacked on, and so on down. future is true
// when there is no such interface.
func (s *Space) path(f *inboundFilter, ifname string) (out []*fact.Link, future bool) {
	if ifname == "" {
		all := make([]*fact.Link, len(s.links))
		for i := range s.links {
			all[i] = &s.links[i]
		}
		return all, false
	}
	top := f.byName[ifname]
	if top == nil {
		return nil, true
	}
	seen := map[int]bool{}
	for todo := []*fact.Link{top}; len(todo) > 0; todo = todo[1:] {
		l := todo[0]
		if seen[l.Index] {
			continue
		}
		seen[l.Index] = true
		out = append(out, l)
		todo = append(todo, f.ports[l.Index]...)
		// The other end of a pair sends to us; it is not below us.
		if l.Parent != 0 && l.PeerNS == nil && !pairKinds[l.Kind] {
			if p := s.byIndex[l.Parent]; p != nil {
				todo = append(todo, p)
			}
		}
	}
	return out, false
}

// pairKinds are two interfaces back to back: IFLA_LINK names the other one.
var pairKinds = map[string]bool{"veth": true, "netkit": true, "vxcan": true}

// tunnelKinds take packets out of IP packets that the kernel delivers locally.
var tunnelKinds = map[string]bool{
	"sit": true, "ipip": true, "gre": true, "gretap": true, "erspan": true, "ip6tnl": true, "ip6gre": true,
	"ip6gretap": true, "ip6erspan": true, "vti": true, "vti6": true, "xfrm": true, "vxlan": true, "geneve": true,
	"bareudp": true, "amt": true, "gtp": true, "wireguard": true, "ovpn": true, "l2tpeth": true, "ppp": true,
	"batadv": true,
}

func (s *Space) readInbound(family string) inboundFilter {
	f := inboundFilter{byName: map[string]*fact.Link{}, ports: map[int][]*fact.Link{}, memo: map[string]*fact.Gap{}}
	for i := range s.links {
		l := &s.links[i]
		f.byName[l.Name] = l
		for _, n := range l.AltNames {
			if f.byName[n] == nil {
				f.byName[n] = l
			}
		}
		if l.Master != 0 {
			f.ports[l.Master] = append(f.ports[l.Master], l)
		}
	}
	s.readChains(&f, family)
	s.readTables(&f, family)
	if links, ok := s.ctx.Snap.Host.BPF.NetfilterLinks.Get(); ok {
		for _, l := range links {
			// The kernel does not say which namespace a link belongs to: 0 is any.
			if l.NetNS != 0 && l.NetNS != s.ID.Inode {
				continue
			}
			other := l.Family == pfdecode.FamilyIPv4 && family == "ipv6" || l.Family == pfdecode.FamilyIPv6 && family == "ipv4"
			if !other && (l.Hook <= pfdecode.HookInput || l.Hook > pfdecode.HookPostrouting) {
				f.present = true
			}
		}
	} else if g, gap := s.ctx.Snap.Host.BPF.NetfilterLinks.Gap(); gap {
		f.missing(g, "BPF netfilter links")
	}
	return f
}

// missing notes what could not be read; the first such thing is reported.
func (f *inboundFilter) missing(g fact.Gap, what string) {
	if f.broken == nil {
		f.broken = &fact.Gap{Reason: g.Reason, What: what}
	}
}

func (s *Space) readChains(f *inboundFilter, family string) {
	nft, ok := s.PacketFilter.NFTables.Get()
	if !ok {
		if g, gap := s.PacketFilter.NFTables.Gap(); gap {
			f.missing(g, "nf_tables ruleset")
		}
		return
	}
	var order binary.ByteOrder = binary.LittleEndian
	if s.ctx.Snap.Host.ByteOrder == "big" {
		order = binary.BigEndian
	}
	cs, err := pfdecode.ActiveChains(nft.Tables, nft.Chains, order)
	if err != nil {
		f.missing(fact.Gap{Reason: fact.ParseGap}, "nf_tables chains: "+err.Error())
	}
	// Chains are read before sets, rules and objects.
	if nft.Truncated != nil && len(nft.Sets)+len(nft.Rules)+len(nft.Objects) == 0 {
		f.missing(*nft.Truncated, "nf_tables chains")
	}
	for _, c := range cs {
		switch at, bridge := inboundHook(&c, family); {
		case at == hookElsewhere:
		case at == hookDevice:
			f.ingress = append(f.ingress, c)
		case bridge:
			f.bridge = true
		default:
			f.present = true
		}
	}
}

func (s *Space) readTables(f *inboundFilter, family string) {
	if lt, ok := s.PacketFilter.Legacy.Get(); ok {
		for _, t := range lt {
			other := t.Family == "arp" || t.Family == "ipv4" && family == "ipv6" || t.Family == "ipv6" && family == "ipv4"
			// PRE_ROUTING or LOCAL_IN; a table whose hooks are unknown counts.
			if !other && (t.Hooks == 0 || t.Hooks&(1<<pfdecode.HookPrerouting|1<<pfdecode.HookInput) != 0) {
				f.present = true
			}
		}
	} else if g, gap := s.PacketFilter.Legacy.Gap(); gap {
		f.missing(g, "x_tables")
	}
	if eb, ok := s.PacketFilter.EBTables.Get(); ok && eb {
		f.bridge = true
	} else if g, gap := s.PacketFilter.EBTables.Gap(); gap {
		f.brBroken = &fact.Gap{Reason: g.Reason, What: "ebtables"}
	}
}

// Where a chain meets packets that come in for a local socket.
const (
	hookElsewhere = iota // it does not
	hookDevice           // on its devices
	hookNamespace        // always, or on bridges
)

// inboundHook tells where a chain stands. What is not understood counts as on
// every path.
func inboundHook(c *pfdecode.Chain, family string) (at int, bridge bool) {
	if !c.Base {
		return hookElsewhere, false
	}
	stack := hookElsewhere
	if c.Hook <= pfdecode.HookInput || c.Hook > pfdecode.HookPostrouting {
		stack = hookNamespace
	}
	switch c.Family {
	case pfdecode.FamilyInet:
		if c.Hook == pfdecode.HookInetIngress {
			return hookDevice, false
		}
		return stack, false
	case pfdecode.FamilyIPv4:
		if family == "ipv6" {
			return hookElsewhere, false
		}
		return stack, false
	case pfdecode.FamilyIPv6:
		if family == "ipv4" {
			return hookElsewhere, false
		}
		return stack, false
	case pfdecode.FamilyNetdev:
		if c.Hook == pfdecode.HookNetdevEgress {
			return hookElsewhere, false
		}
		return hookDevice, false
	case pfdecode.FamilyBridge:
		return stack, true
	case pfdecode.FamilyARP:
		return hookElsewhere, false
	}
	return hookNamespace, false
}
