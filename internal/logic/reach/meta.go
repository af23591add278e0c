package reach

import (
	"net/netip"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// NFT_META_*.
const (
	metaLen      = 0
	metaProtocol = 1
	metaMark     = 3
	metaIIF      = 4
	metaOIF      = 5
	metaIIFName  = 6
	metaOIFName  = 7
	metaIIFType  = 8
	metaOIFType  = 9
	metaSKUID    = 10
	metaSKGID    = 11
	metaNFProto  = 15
	metaL4Proto  = 16
	metaPktType  = 19
	metaIIFGroup = 21
	metaOIFGroup = 22
	metaIIFKind  = 26
	metaOIFKind  = 27

	metaBridgeIn  = 17
	metaBridgeOut = 18
)

// device returns the interface that a hook shows: nothing of the way out before
// routing, nothing of the way in for a packet that was made here.
func (q *question) device(out bool, e *env) Opt[string] {
	o := q.p.IIF
	none := q.p.Local
	switch {
	case q.at.any:
	case q.way.bridge && out:
		return q.way.out
	case q.way.bridge:
		return q.way.in
	default:
		o = q.way.in
	}
	if out {
		if o = q.p.OIF; !q.at.any {
			o = q.way.out
		}
		none = q.at.hook == rs.Ingress || q.at.hook == rs.Prerouting || q.at.hook == rs.Input
	}
	if none && !q.at.any {
		return Some("")
	}
	// What a hook is told of the way out stays as it is until the next hook.
	if out && e.rerouted && q.at.hook != rs.Output {
		// Routed again by its new destination (ip_route_input after DNAT in
		// prerouting, nf_ip_route and nf_ip6_route_me_harder after that in output).
		if e.daddr.IsValid() && !e.daddr.IsLinkLocalUnicast() && q.world != nil {
			if dev, local, ok := q.world.To(e.daddr); ok && local {
				return Some("lo")
			} else if name := q.set.Interfaces[dev]; ok && name != "" {
				return Some(name)
			}
		}
		q.opaque["route after NAT"] = true
		return Opt[string]{}
	}
	return o
}

// noSuchIndex is an ifindex that the kernel never gives.
const noSuchIndex = 1<<32 - 1

// meta loads a property of the packet (nft_meta_get_eval).
func (q *question) meta(reg *regs, x rs.Meta, e *env) cond {
	var b []abyte
	c := always
	out := x.Key == metaOIF || x.Key == metaOIFName || x.Key == metaOIFType || x.Key == metaOIFKind || x.Key == metaOIFGroup
	f := fieldIIF
	if out {
		f = fieldOIF
	}
	switch x.Key {
	case metaLen:
		b = open(4)
		if n, ok := q.frameLen(); ok {
			b = q.u32(uint32(n))
		} else {
			q.opaque["packet length"] = true
		}
	case metaProtocol: // network order
		b = q.l.link[12:14]
	case metaMark:
		b = open(4)
		if e.mark.known {
			b = q.u32(e.mark.v)
		} else {
			if !q.p.Mark.Set {
				b = lacking(4, fieldMark)
			}
		}
	case metaIIF, metaOIF:
		b = open(4)
		name := q.device(out, e)
		switch {
		case !name.Set:
			b = lacking(4, f)
		case name.V == "":
			b = q.u32(0)
		default:
			if len(q.set.Interfaces) > 0 {
				b = q.u32(noSuchIndex) // of an interface that is not there: no rule names it by number
			}
			for i, n := range q.set.Interfaces {
				if n == name.V {
					b = q.u32(i)
				}
			}
		}
	case metaIIFName, metaOIFName:
		if name := q.device(out, e); name.Set {
			b = ifname(name.V)
		} else {
			b = lacking(16, f)
		}
	case metaIIFType, metaOIFType:
		name := q.device(out, e)
		t, ok := q.set.Types[name.V]
		if !out {
			t, ok = q.ifType(name)
		}
		if !out && (q.p.Local || q.at.hook == rs.Postrouting || q.at.hook == rs.Egress || q.way.bridge && q.way.in == nowhere) && !q.at.any {
			// Linux 6.18 looks at skb->dev, which may be the way out already; others at the
			// way in.
			o := q.device(true, e)
			if u, okOut := q.set.Types[o.V]; q.p.Local || !o.Set || !okOut || !name.Set || !ok || t != u {
				q.opaque["interface type"] = true
				reg.put(x.Dreg, open(2))
				return perhaps
			}
		}
		switch {
		case name.Set && name.V == "":
			return never // no such device: the rule breaks
		case name.Set && ok:
			b = knownBytes(q.order.AppendUint16(nil, t))
		default:
			b = lacking(2, f)
			q.opaque["interface type"] = true
		}
	case metaIIFGroup, metaOIFGroup:
		name := q.device(out, e)
		group, ok := q.set.Groups[name.V]
		late := !out && (q.at.hook == rs.Postrouting || q.at.hook == rs.Egress) // kernels differ in what they are told there
		switch {
		case name.Set && !late && name.V == "":
			return never
		case name.Set && !late && ok:
			b = q.u32(group)
		default:
			b, c = lacking(4, f), perhaps
			q.opaque["interface group"] = true
		}
	case metaIIFKind, metaOIFKind:
		name := q.device(out, e)
		kind, ok := q.set.Kinds[name.V]
		late := !out && (q.at.hook == rs.Postrouting || q.at.hook == rs.Egress) // kernels differ in what they are told there
		switch {
		case name.Set && !late && (name.V == "" || ok && kind == ""):
			// No device, or hardware and lo, which have no rtnl_link_ops: the rule breaks
			// (nft_meta_store_ifkind), also one that asks for another kind.
			return never
		case name.Set && !late && ok:
			b = ifname(kind)
		default:
			b = lacking(16, f)
			c = perhaps
			q.opaque["interface kind"] = true
		}
	case metaSKUID, metaSKGID:
		switch {
		case q.p.Local && x.Key == metaSKUID && q.p.UID.Set:
			b = q.u32(q.p.UID.V)
		case !q.p.Local && q.p.Ct.Set && q.p.Ct.V != CtEstablished && !(q.at.hook == rs.Input && q.p.Daddr.V.IsMulticast()): // udp_v4_early_demux finds the receiver of a group
			return never // no socket owns it yet: the rule breaks
		case x.Key == metaSKGID:
			b = open(4)
			c = perhaps
			q.opaque["the group of the sending socket"] = true
		default:
			b = lacking(4, fieldUID)
			c = perhaps
		}
	case metaNFProto:
		n := byte(rs.IPv6)
		switch {
		case q.at.any:
		case q.way.bridge:
			n = byte(rs.Bridge)
		case q.at.device:
			n = byte(rs.Netdev)
		case q.is4():
			n = byte(rs.IPv4)
		}
		b = []abyte{known(n)}
		if q.at.any {
			b = open(1)
		}
	case metaBridgeIn, metaBridgeOut:
		name := q.bridgeName(x.Key == metaBridgeOut)
		if !name.Set {
			b = lacking(16, f)
		} else {
			b = ifname(name.V)
		}
	case metaL4Proto:
		b = []abyte{q.l.l4proto}
		if at := map[bool]int{true: 9, false: 6}[q.is4()]; e.netLost>>at&1 != 0 {
			q.opaque["a field that a rule rewrote"] = true
			b = open(1)
		}
	case metaPktType:
		b = open(1)
		if e.pktType != 0 && !q.at.any {
			b = []abyte{known(e.pktType - 1)}
		} else if t, ok := q.pktType(); ok {
			b = []abyte{known(t)}
		} else {
			q.opaque["meta pkttype"] = true
		}
	default:
		b = open(16)
		c = perhaps
		q.opaque["meta key"] = true
	}
	reg.put(x.Dreg, b)
	return c
}

// metaSet writes a property of the packet.
func (x *run) metaSet(e rs.MetaSet) {
	switch e.Key {
	case metaMark:
		x.env.mark, x.changed = number32(x.reg.at(e.Sreg, 4), x.q.order), true
	case metaPktType:
		c, ok := constantBytes(x.reg.at(e.Sreg, 1))
		if !ok || c[0] > 3 {
			x.q.opaque["meta pkttype"], x.mayEnd = true, true
			return
		}
		x.env.pktType, x.changed = c[0]+1, true
	}
}

// pktType is PACKET_HOST, PACKET_BROADCAST, PACKET_MULTICAST or PACKET_OTHERHOST, as the
// link-layer address has it that belongs to the destination (RFC 894, 1112, 2464).
func (q *question) pktType() (t byte, ok bool) {
	const host, broadcast, multicast, otherHost = 0, 1, 2, 3
	if !q.p.Daddr.Set {
		return 0, false
	}
	to, ok := q.addressed(q.p.Daddr.V)
	switch {
	case !ok:
		return 0, false
	case to == rtnUnicast && q.at.any:
		return host, !q.p.Local
	case to == rtnUnicast && q.p.Local: // a new buffer has it, and eth_header leaves it alone
		return host, true
	case to == rtnUnicast && q.way.other:
		return otherHost, true
	case to == rtnUnicast:
		// A port may have another address than its bridge.
		return host, q.way.hook != rs.Ingress || q.way.in == q.p.IIF
	}
	wire := !q.p.Local && q.p.IIF.Set && q.p.IIF.V != "lo" // looped back it would be PACKET_LOOPBACK
	if to == rtnMulticast {
		return multicast, wire && q.ethernet()
	}
	return broadcast, wire && q.ethernet()
}

// addressed tells whether an address is one host's, a group's, or everybody's on a link.
func (q *question) addressed(a netip.Addr) (uint32, bool) {
	switch {
	case a.IsMulticast():
		return rtnMulticast, true
	case a.Is6():
		return rtnUnicast, true
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return rtnBroadcast, true
	case q.world != nil:
		if t, ok := q.world.FibType(a, ""); !ok || t != rtnBroadcast {
			return rtnUnicast, ok
		}
		return rtnBroadcast, true
	}
	const bits = 3 // that every subnet with a broadcast address has for hosts
	last := a.As4()[3] & bits
	return rtnUnicast, last != 0 && last != bits
}
