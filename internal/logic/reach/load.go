package reach

import (
	"encoding/binary"
	"net/netip"
	"slices"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// payload loads bytes of a header. A load past the packet's end breaks the rule
// (nft_payload_eval).
func (q *question) payload(reg *regs, x rs.Payload, e *env) cond {
	var src []abyte
	exact, c := q.l.exact, always
	switch x.Base {
	case rs.LinkHeader:
		if src, c = q.linkHeader(e); c.impossible() {
			return never
		}
		exact = false
	case rs.NetworkHeader:
		src = q.net(e)
		if !q.l.fragOffset {
			src = slices.Concat(src, q.trans(e))
		}
	case rs.TransportHeader:
		src = q.trans(e)
		if !q.l.hasTrans {
			if !fast(x) {
				return never // a later fragment has no transport header
			}
			// The fast path does not look whether there is one and reads at the
			// transport offset, which is zero then: it finds the network header. Seen
			// in Linux 6.18; a kernel that breaks the rule is as possible.
			src, c = q.net(e), perhaps
			q.opaque["transport header of a later fragment"] = true
		}
		if !q.p.Proto.Set {
			c = perhaps
		}
	default:
		reg.put(x.Dreg, open(int(min(x.Len, 64))))
		q.opaque["inner header"] = true
		return perhaps
	}
	off, n := int(min(x.Offset, 1<<16)), int(min(x.Len, 64))
	if off+n > len(src) {
		if exact {
			return never
		}
		c = perhaps // how long the packet is, is not in the question
		q.opaque["packet length"] = true
	}
	b := open(n)
	for i := range n {
		if off+i < len(src) {
			b[i] = src[off+i]
		}
	}
	if x.Base == rs.LinkHeader && hasUnknown(b) {
		q.opaque["link header"] = true
	} else if q.wrote(e) && hasUnknown(b) {
		q.opaque["a field that a rule rewrote"] = true
	}
	reg.put(x.Dreg, b)
	return c
}

// linkHeader is the link header at this place; never where there is none.
func (q *question) linkHeader(e *env) ([]abyte, cond) {
	switch q.way.link {
	case noHeader:
		if !q.at.any {
			return nil, never // made here: it has no link header yet
		}
	case cameWith:
		switch {
		case q.at.any:
		case q.ethernet():
			return q.l.link, always
		default:
			q.opaque["interface type"] = true
			if !q.p.IIF.Set {
				q.needs |= 1 << fieldIIF
			}
			return q.l.link, perhaps
		}
	case leavesBy: // the neighbour's address is not in the question
		out := append(open(12), q.l.link[12:]...)
		if mac, ok := q.set.MACs[q.p.OIF.V]; ok && !e.rerouted {
			copy(out[6:], knownBytes(mac[:]))
		}
		if t, ok := q.set.Types[q.way.out.V]; ok && t == arphrdEther && !q.at.any {
			return out, always
		}
		q.opaque["interface type"] = true
		return out, perhaps
	}
	q.opaque["link header"] = true
	return q.l.link, perhaps
}

// wrote tells whether rules changed the packet into something that is not known.
func (q *question) wrote(e *env) bool {
	return !q.at.any && (e.netLost|e.transLost != 0 || e.saddrLost || e.daddrLost || e.daddr.IsValid() || e.dport != -1)
}

// rewritten tells whether NAT or rules wrote the addresses, so that they are not known
// any more.
func (q *question) rewritten(e *env) (src, dst bool) {
	src, dst = q.written(e)
	return src || e.saddrLost, dst || e.daddrLost
}

// written tells whether rules wrote into the addresses.
func (q *question) written(e *env) (src, dst bool) {
	const addr4, addr6 = 0xf, 0xffff
	s, d := uint64(addr6)<<8, uint64(addr6)<<24
	if q.is4() {
		s, d = addr4<<12, addr4<<16
	}
	return e.netLost&s != 0, e.netLost&d != 0
}

// fast tells whether the kernel loads in its fast path (nft_payload_select_ops).
func fast(x rs.Payload) bool {
	return !x.Checked && (x.Len == 1 || x.Len == 2 || x.Len == 4) && x.Offset%x.Len == 0
}

// ethernet tells whether the packet came in by an Ethernet interface.
func (q *question) ethernet() bool {
	t, ok := q.ifType(q.p.IIF)
	return q.p.IIF.Set && ok && t == arphrdEther
}

// ifType is the ARPHRD_* of the interface that a packet came in by. Of a host that is
// not known, a packet with an Ethernet address came by Ethernet.
func (q *question) ifType(name Opt[string]) (uint16, bool) {
	t, ok := q.set.Types[name.V]
	if !ok && len(q.set.Types) == 0 && q.p.SrcMAC.Set && !q.p.Local {
		return arphrdEther, name.V != "" && name.V != "lo"
	}
	return t, ok
}

const arphrdEther = 1

// net is the network header after NAT and after what rules wrote.
func (q *question) net(e *env) []abyte {
	hop := q.way.routed && !q.at.any
	if !e.daddr.IsValid() && !e.daddrLost && !e.saddrLost && e.netLost == 0 && !hop {
		return q.l.net
	}
	b := slices.Clone(q.l.net)
	src, dst, n, limit := 8, 24, 16, 7
	if q.is4() {
		src, dst, n, limit = 12, 16, 4, 8
		b[10], b[11] = abyte{}, abyte{} // checksum
	}
	if hop && b[limit].kind == kConst {
		b[limit].val-- // ip_forward and ip6_forward count it down before their hook
	}
	switch {
	case e.daddrLost:
		copy(b[dst:dst+n], open(n))
	case e.daddr.IsValid():
		copy(b[dst:dst+n], knownBytes(e.daddr.AsSlice()))
	}
	if e.saddrLost {
		copy(b[src:src+n], open(n))
	}
	lose(b, e.netLost)
	q.sum4(b)
	return b
}

// sum4 is the checksum of an IPv4 header that is known otherwise.
func (q *question) sum4(b []abyte) {
	if !q.is4() || len(b) != 20 || b[10].kind == kConst {
		return
	}
	b[10], b[11] = known(0), known(0)
	c, ok := constantBytes(b)
	if !ok {
		b[10], b[11] = abyte{}, abyte{}
		return
	}
	var s uint32
	for i := 0; i < len(c); i += 2 {
		s += uint32(binary.BigEndian.Uint16(c[i:]))
	}
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	b[10], b[11] = known(^byte(s>>8)), known(^byte(s))
}

func lose(b []abyte, mask uint64) {
	for i := 0; mask != 0 && i < len(b); i++ {
		if mask&1 != 0 {
			b[i] = abyte{}
		}
		mask >>= 1
	}
}

// trans is the transport header after NAT and after what rules wrote.
func (q *question) trans(e *env) []abyte {
	nat := e.daddr.IsValid() || e.daddrLost || e.saddrLost
	if e.dport == -1 && e.transLost == 0 && !nat {
		return q.l.trans
	}
	b := slices.Clone(q.l.trans)
	switch {
	case e.dport == -2 && len(b) >= 4:
		copy(b[2:4], open(2))
	case e.dport >= 0 && len(b) >= 4:
		copy(b[2:4], knownBytes(binary.BigEndian.AppendUint16(nil, uint16(e.dport))))
	}
	lost := e.transLost
	if q.p.Proto.Set { // the checksum
		lost |= map[uint8]uint64{6: 3 << 16, 17: 3 << 6, 1: 3 << 2, 58: 3 << 2}[q.p.Proto.V]
	}
	lose(b, lost)
	return b
}

// payloadSet forgets the bytes that a rule writes, and checksums.
func (x *run) payloadSet(e rs.PayloadSet) {
	var m uint64
	for i := e.Offset; i < e.Offset+min(e.Len, 64) && i < 64; i++ {
		m |= 1 << i
	}
	x.remake(e, m)
	switch e.Base {
	case rs.NetworkHeader:
		if x.q.is4() {
			m |= 3 << 10
		}
		x.env.netLost |= m
		x.env.transLost |= x.q.checksum()
	case rs.TransportHeader:
		x.env.transLost |= m | x.q.checksum()
	default:
		x.q.opaque["payload set"] = true
	}
	x.changed = true
}

// remake notes that connection tracking will see another flow than the one asked about,
// or none: a rule before it wrote what flows are known by, or a checksum with it.
func (x *run) remake(e rs.PayloadSet, m uint64) {
	const flow4, flow6 = 0xff<<12 | 1<<9 | 0xf, 0xffffffff<<8 | 1<<6 | 0x30
	flow := uint64(flow6)
	if x.q.is4() {
		flow = flow4
	}
	if x.q.tracked() != yes && (e.Base != rs.NetworkHeader || m&flow != 0) {
		x.env.remade = true
	}
}

// checksum is where the checksum of the transport header is, as bits by byte; of an
// unknown protocol where any may be.
func (q *question) checksum() uint64 {
	if !q.p.Proto.Set {
		return 3<<16 | 3<<6 | 3<<2
	}
	return map[uint8]uint64{6: 3 << 16, 17: 3 << 6, 1: 3 << 2, 58: 3 << 2}[q.p.Proto.V]
}

func ifname(s string) []abyte {
	var b [16]byte
	copy(b[:], s)
	return knownBytes(b[:])
}

// exthdr loads an IPv6 extension header (nft_exthdr_ipv6_eval).
func (q *question) exthdr(reg *regs, x rs.Exthdr) cond {
	if x.Op != 0 { // TCP and IPv4 options, SCTP chunks: not in the question
		q.opaque["header options"] = true
		reg.put(x.Dreg, open(int(min(x.Len, 64))))
		if x.Present {
			reg.put(x.Dreg, open(1))
			return always
		}
		return perhaps
	}
	if q.is4() {
		return never // it breaks for any other protocol than IPv6
	}
	for _, e := range q.l.ext {
		if e.number != x.Type {
			if e.number == 44 && q.l.fragOffset {
				break // what follows is in the first fragment
			}
			continue
		}
		if x.Present {
			reg.put(x.Dreg, []abyte{known(1)})
			return always
		}
		c, b := always, open(int(min(x.Len, 64)))
		for i := range b {
			if j := int(x.Offset) + i; j < len(e.bytes) {
				b[i] = e.bytes[j]
			} else {
				c = perhaps
				q.opaque["packet length"] = true
			}
		}
		reg.put(x.Dreg, b)
		return c
	}
	if x.Present {
		reg.put(x.Dreg, []abyte{known(0)})
		return always
	}
	return never
}

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
