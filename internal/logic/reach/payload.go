package reach

import (
	"encoding/binary"
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
