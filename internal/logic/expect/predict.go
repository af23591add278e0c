package expect

import (
	"net/netip"
	"slices"
	"sort"

	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/probe"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Rules expects what the rules and the sockets of a host say, as reach reads them.
type Rules struct {
	sp     *reach.Space
	starts []uint16 // ports from which on another rule may decide
	whole  bool
	said   map[asked]string
}

type asked struct {
	source, addr netip.Addr
	proto        string
	port         uint16
}

// FromSpace reads the rules of a namespace.
func FromSpace(sp *reach.Space) *Rules {
	r := &Rules{sp: sp, said: map[asked]string{}}
	r.starts, r.whole = sp.PortStarts()
	return r
}

// Expect implements Source.
func (r *Rules) Expect(q Question) Word {
	fate, ok := r.fate(q)
	if !ok {
		return Unknown
	}
	switch fate {
	case reach.WordDrop:
		return Word(probe.Filtered)
	case reach.WordReject:
		return Word(probe.Rejected)
	case reach.WordAccept:
		if q.Proto == "icmp" || q.Proto == "icmpv6" {
			return Word(probe.Open)
		}
		return r.listens(q)
	}
	return Unknown
}

// fate is what becomes of the first packet of a flow.
func (r *Rules) fate(q Question) (verdict string, ok bool) {
	link := r.linkOf(q.Addr)
	if link == "" {
		return "", false // not an address of this namespace
	}
	k := asked{q.Source, q.Addr, q.Proto, q.Port}
	if r.whole && (q.Proto == "tcp" || q.Proto == "udp") {
		i := sort.Search(len(r.starts), func(i int) bool { return r.starts[i] > q.Port })
		if i > 0 {
			k.port = r.starts[i-1]
		}
	}
	if e, ok := r.said[k]; ok {
		return e, true
	}
	p := reach.Packet{
		Family: rs.IPv4, IIF: reach.Some(link), Saddr: reach.Some(q.Source.WithZone("")), Daddr: reach.Some(q.Addr.WithZone("")),
		Sport: reach.Range{From: 1024, To: 65535}, Ct: reach.Some[uint32](reach.CtNew),
	}
	if q.Family() == "ipv6" {
		p.Family = rs.IPv6
	}
	switch q.Proto {
	case "tcp":
		p.Proto, p.Dport, p.TCPFlags = reach.Some[uint8](6), reach.Some(q.Port), reach.Some[uint8](2)
	case "udp":
		p.Proto, p.Dport = reach.Some[uint8](17), reach.Some(q.Port)
	case "icmp":
		p.Proto, p.ICMPType, p.ICMPCode = reach.Some[uint8](1), reach.Some(uint8(q.Port)), reach.Some[uint8](0)
	default:
		p.Proto, p.ICMPType, p.ICMPCode = reach.Some[uint8](58), reach.Some(uint8(q.Port)), reach.Some[uint8](0)
	}
	verdict = r.sp.Trace(p, rs.Input, false).Verdict
	if len(r.sp.Model.Ask(p, rs.Input, false).Translated) > 0 {
		verdict = reach.WordUnknown // it goes on somewhere else
	}
	r.said[k] = verdict
	return verdict, true
}

// linkOf is the interface that has an address: packets to it are taken to come in there.
func (r *Rules) linkOf(a netip.Addr) string {
	as, _ := r.sp.Addresses.Get()
	for i := range as {
		if as[i].Prefix.Addr() == a.WithZone("") {
			return r.sp.Model.Set.Interfaces[uint32(as[i].Index)]
		}
	}
	return ""
}

// listens tells whether a socket takes what was accepted.
func (r *Rules) listens(q Question) Word {
	socks, ok := r.sp.Sockets.Get()
	if !ok {
		return Unknown
	}
	unsure := false
	at := slices.ContainsFunc(socks, func(k fact.Socket) bool {
		if k.Protocol != q.Proto || k.Port != q.Port || k.State == "connected" {
			return false
		}
		local, addr := k.Local.WithZone("").Unmap(), q.Addr.WithZone("")
		switch {
		case local.IsValid() && !local.IsUnspecified():
			return local == addr
		case k.Family == "ipv4" || local.Is4():
			return addr.Is4()
		case addr.Is6():
			return true
		}
		only, known := k.V6Only.Get()
		unsure = unsure || !known
		return known && !only
	})
	switch {
	case at:
		return Word(probe.Open)
	case unsure:
		return Unknown
	}
	return Word(probe.Closed)
}
