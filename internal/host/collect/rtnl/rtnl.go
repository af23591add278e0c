// Package rtnl reads what rtnetlink knows of one network namespace: links,
// addresses, routes, rules, neighbours and multicast memberships.
//
// It exists apart from the general netlink libraries because an audit needs
// three things they do not give: whether a dump was consistent to its very end,
// bytes that are kept uninterpreted until the process has dropped its
// privileges, and a hard bound on what a namespace made by a stranger may cost.
package rtnl

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Traffic control handles of the ingress side (include/uapi/linux/pkt_sched.h).
const (
	tcIngressParent = 0xfffffff1 // TC_H_INGRESS = TC_H_CLSACT: parent of the ingress and clsact qdiscs
	tcIngressFilter = 0xfffffff2 // TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)
)

// Dump is what was read, not yet interpreted.
type Dump struct {
	links     answer
	addresses answer
	routes4   answer
	routes6   answer
	nexthops  answer
	rules4    answer
	rules6    answer
	neigh     answer
	arp       answer
	clock     time.Duration // CLOCK_MONOTONIC when the addresses were read
	proxy     answer
	table     answer
	multicast answer
	igmp6     fileAnswer
	qdiscs    answer
	filters   map[int]*answer // by ifindex: ingress filters
	tcx       map[int]tcxAnswer
	drivers   map[int]driverAnswer // of interfaces without a kind
}

// Read reads in the network namespace of the calling thread.
func Read(a *ask.Asker, b *ask.Budget) *Dump {
	d := &Dump{filters: map[int]*answer{}, tcx: map[int]tcxAnswer{}}
	c := &conn{ask: a, budget: b, buf: make([]byte, receiveBuffer)}
	defer c.close()

	family := func(f byte, size int) []byte { h := make([]byte, size); h[0] = f; return h }
	// What is small and decides most comes first: a namespace that is full of
	// routes then loses its routes, not its links.
	d.links = c.dump(request{what: "links", name: "RTM_GETLINK", typ: unix.RTM_GETLINK, body: linkRequest()})
	if now := (unix.Timespec{}); unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) == nil {
		d.clock = time.Duration(now.Nano())
	}
	d.addresses = c.dump(request{what: "addresses", name: "RTM_GETADDR", typ: unix.RTM_GETADDR, body: family(unix.AF_UNSPEC, unix.SizeofIfAddrmsg)})
	d.rules4 = c.dump(request{what: "IPv4 rules", name: "RTM_GETRULE ipv4", typ: unix.RTM_GETRULE, body: family(unix.AF_INET, unix.SizeofRtMsg)})
	d.rules6 = c.dump(request{what: "IPv6 rules", name: "RTM_GETRULE ipv6", typ: unix.RTM_GETRULE, body: family(unix.AF_INET6, unix.SizeofRtMsg)})
	d.table = c.dump(request{what: "neighbour table", name: "RTM_GETNEIGHTBL", typ: unix.RTM_GETNEIGHTBL, body: family(unix.AF_INET6, sizeofNdtMsg)})
	d.multicast = c.dump(request{what: "multicast memberships", name: "RTM_GETMULTICAST", typ: unix.RTM_GETMULTICAST, body: family(unix.AF_INET6, unix.SizeofIfAddrmsg)})
	if d.multicast.errno != 0 {
		d.igmp6 = readIGMP6(a, b)
	}
	d.readIngress(c)
	d.readDrivers(a, b)
	d.proxy = c.dump(request{what: "proxy neighbours", name: "RTM_GETNEIGH proxy", typ: unix.RTM_GETNEIGH, body: neighRequest(unix.AF_INET6, unix.NTF_PROXY)})
	d.neigh = c.dump(request{what: "neighbours", name: "RTM_GETNEIGH", typ: unix.RTM_GETNEIGH, body: neighRequest(unix.AF_INET6, 0)})
	d.nexthops = c.dump(request{what: "nexthop objects", name: "RTM_GETNEXTHOP", typ: unix.RTM_GETNEXTHOP, body: family(unix.AF_UNSPEC, sizeofNhMsg)})
	d.routes6 = c.dump(request{what: "IPv6 routes", name: "RTM_GETROUTE ipv6", typ: unix.RTM_GETROUTE, body: family(unix.AF_INET6, unix.SizeofRtMsg)})
	d.routes4 = c.dump(request{what: "IPv4 routes", name: "RTM_GETROUTE ipv4", typ: unix.RTM_GETROUTE, body: family(unix.AF_INET, unix.SizeofRtMsg)})
	d.arp = c.dump(request{what: "IPv4 neighbours", name: "RTM_GETNEIGH ipv4", typ: unix.RTM_GETNEIGH, body: neighRequest(unix.AF_INET, 0)})
	return d
}

// linkRequest is struct ifinfomsg and an IFLA_EXT_MASK of nothing: the kernel
// then leaves out SR-IOV details. RTEXT_FILTER_SKIP_STATS would be cheaper, but
// it also drops IFLA_INET6_ADDR_GEN_MODE (inet6_fill_ifla6_attrs).
func linkRequest() []byte {
	b := make([]byte, unix.SizeofIfInfomsg, unix.SizeofIfInfomsg+8)
	b = binary.NativeEndian.AppendUint16(b, 8)
	b = binary.NativeEndian.AppendUint16(b, unix.IFLA_EXT_MASK)
	return binary.NativeEndian.AppendUint32(b, 0)
}

// neighRequest is struct ndmsg. With NTF_PROXY the kernel dumps proxy entries
// only, without it all others.
func neighRequest(family, flags byte) []byte {
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = family
	b[10] = flags // ndm_flags
	return b
}

// readIngress asks what sits on the ingress side of each interface: filters of a
// clsact or ingress qdisc, and TCX programs. A dump of filters names no
// classifier, so it cannot load one.
//
// Two fixed offsets of kernel structs are read here, before the process is
// sealed, because the next question depends on them.
func (d *Dump) readIngress(c *conn) {
	d.qdiscs = c.dump(request{what: "qdiscs", name: "RTM_GETQDISC", typ: unix.RTM_GETQDISC, body: make([]byte, sizeofTcMsg)})
	for _, b := range d.qdiscs.messages(unix.RTM_NEWQDISC) {
		if len(b) < sizeofTcMsg || binary.NativeEndian.Uint32(b[12:]) != tcIngressParent {
			continue
		}
		index := binary.NativeEndian.Uint32(b[4:])
		body := make([]byte, sizeofTcMsg)
		binary.NativeEndian.PutUint32(body[4:], index)
		binary.NativeEndian.PutUint32(body[12:], tcIngressFilter)
		// One filter is as good as a thousand here.
		ans := c.dump(request{what: "ingress filters", name: "RTM_GETTFILTER", typ: unix.RTM_GETTFILTER, body: body, first: true})
		d.filters[int(int32(index))] = &ans
	}
	for _, b := range d.links.messages(unix.RTM_NEWLINK) {
		if len(b) < unix.SizeofIfInfomsg {
			continue
		}
		index := int(int32(binary.NativeEndian.Uint32(b[4:])))
		d.tcx[index] = queryTCX(c.ask, c.budget, index)
	}
}

// Decode interprets the dump and fills its part of the namespace.
func (d *Dump) Decode(ns *fact.Namespace) {
	at := " of netns " + ns.Name
	ns.Links = decodeAll(&d.links, at, d.link, unix.RTM_NEWLINK)
	ns.Addresses = decodeAll(&d.addresses, at, func(b []byte) (fact.Address, verdict) { return decodeAddress(b, d.clock) }, unix.RTM_NEWADDR)
	ns.Rules = both(
		decodeAll(&d.rules4, at, func(b []byte) (fact.Rule, verdict) { return decodeRule(b, unix.AF_INET) }, unix.RTM_NEWRULE),
		decodeAll(&d.rules6, at, func(b []byte) (fact.Rule, verdict) { return decodeRule(b, unix.AF_INET6) }, unix.RTM_NEWRULE))
	hops := decodeNexthops(&d.nexthops)
	ns.Routes = both(
		decodeAll(&d.routes4, at, func(b []byte) (fact.Route, verdict) { return decodeRoute(b, unix.AF_INET, hops) }, unix.RTM_NEWROUTE),
		decodeAll(&d.routes6, at, func(b []byte) (fact.Route, verdict) { return decodeRoute(b, unix.AF_INET6, hops) }, unix.RTM_NEWROUTE))
	ns.Neighbours = decodeAll(&d.neigh, at, neighbour6, unix.RTM_NEWNEIGH)
	ns.ProxyNeighbours = decodeAll(&d.proxy, at, neighbour6, unix.RTM_NEWNEIGH)
	ns.Gateways4 = d.gateways(at, ns.Routes)
	ns.NeighbourTable = d.neighbourTable(at)
	if d.multicast.errno != 0 {
		ns.Multicast = d.igmp6.decode(at)
	} else {
		// Most kernels answer with the type of the request (inet6_fill_ifmcaddr).
		ns.Multicast = decodeAll(&d.multicast, at, decodeMembership, unix.RTM_NEWMULTICAST, unix.RTM_GETMULTICAST)
	}
}

// gateways are the ARP entries of next hops of IPv4 routes.
func (d *Dump) gateways(at string, routes fact.Known[[]fact.Route]) fact.Known[[]fact.Neighbour] {
	rs, ok := routes.Get()
	if !ok {
		g, _ := routes.Gap()
		return fact.Missing[[]fact.Neighbour](g)
	}
	type hop struct {
		index int
		via   netip.Addr
	}
	hops := map[hop]bool{}
	for _, r := range rs {
		for _, h := range r.NextHops {
			if h.Via.Is4() {
				hops[hop{h.Index, h.Via}] = true
			}
		}
	}
	return decodeAll(&d.arp, at, func(b []byte) (fact.Neighbour, verdict) {
		n, how := decodeNeighbour(b, unix.AF_INET)
		if how == keep && !hops[hop{n.Index, n.Address}] {
			how = skip
		}
		return n, how
	}, unix.RTM_NEWNEIGH)
}

// verdict is what a decoder made of one message.
type verdict uint8

const (
	keep      verdict = iota
	skip              // well formed, and not ours (another family, a cached clone)
	malformed         // not understood
)

// decodeAll decodes every message of the given types. One message that is not
// understood makes the whole fact a Gap: a list with a hole looks complete.
func decodeAll[T any](ans *answer, at string, decode func([]byte) (T, verdict), types ...uint16) fact.Known[[]T] {
	if k, ok := refused[[]T](ans, at); ok {
		return k
	}
	out := []T{}
	for t, b := range ans.all() {
		if !slices.Contains(types, t) {
			continue
		}
		switch v, how := decode(b); how {
		case keep:
			out = append(out, v)
		case malformed:
			return fact.Missing[[]T](fact.Gap{Reason: fact.ParseGap, What: ans.what + at})
		}
	}
	return fact.Value(out)
}

// refused returns the fact that an unanswered request leaves.
func refused[T any](ans *answer, at string) (fact.Known[T], bool) {
	switch {
	case ans.gap != nil:
		return fact.Missing[T](*ans.gap), true
	case ans.errno == 0:
		return fact.Known[T]{}, false
	case ans.errno == unix.EPERM || ans.errno == unix.EACCES:
		return fact.Missing[T](fact.Gap{Reason: fact.Permission, What: ans.what + at}), true
	case ans.errno == unix.EOPNOTSUPP || ans.errno == unix.EAFNOSUPPORT || ans.errno == unix.EPROTONOSUPPORT:
		return fact.Unsupported[T](), true
	default:
		return fact.Missing[T](fact.Gap{Reason: fact.NotCollected, What: ans.what + at + ": " + ans.errno.Error()}), true
	}
}

// both joins the two families. A family that the kernel does not have adds
// nothing; one that could not be read makes the whole fact unknown.
func both[T any](v4, v6 fact.Known[[]T]) fact.Known[[]T] {
	for _, k := range []fact.Known[[]T]{v4, v6} {
		if _, gap := k.Gap(); gap {
			return k
		}
	}
	a, ok4 := v4.Get()
	b, ok6 := v6.Get()
	if !ok4 && !ok6 {
		return fact.Unsupported[[]T]()
	}
	return fact.Value(slices.Concat(a, b))
}
