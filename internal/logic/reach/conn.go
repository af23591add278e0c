package reach

import (
	"encoding/binary"
	"fmt"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Priorities of the kernel's own hooks (include/uapi/linux/netfilter_ipv4.h).
const (
	prioDefrag = -400
	prioTrack  = -200
	prioDNAT   = -100
	prioSNAT   = 100
)

// tracked tells whether connection tracking has seen the packet at this place.
func (q *question) tracked() tri {
	switch {
	case q.at.any:
		return maybe
	case q.way.bare:
		return no
	case q.p.IIF.Set && q.p.IIF.V == "lo" && (q.at.hook == rs.Ingress || q.at.hook == rs.Prerouting):
		return yes // on its way out, already
	case q.at.hook == rs.Ingress, q.at.hook == rs.Egress && q.p.Local:
		return no
	case q.at.hook == rs.Prerouting || q.at.hook == rs.Output:
		switch {
		case q.at.prio < prioTrack:
			return no
		case q.at.prio == prioTrack:
			return maybe
		}
	}
	return yes
}

// looped tells that the packet was sent by this host to itself: what output and postrouting
// did to its connection is done, all of its address translation with it.
func (q *question) looped() bool { return !q.p.Local && q.p.IIF.Set && q.p.IIF.V == "lo" }

// untrackable are ICMPv6 messages that connection tracking leaves alone: MLD,
// neighbour and multicast router discovery (noct_valid_new, nf_conntrack_proto_icmpv6.c).
func untrackable(p *Packet) tri {
	if p.Family != rs.IPv6 || p.Proto.Set && p.Proto.V != 58 {
		return no
	}
	if !p.Proto.Set || !p.ICMPType.Set {
		return maybe
	}
	switch p.ICMPType.V {
	case 130, 131, 132, 133, 134, 135, 136, 143, 151, 152:
		return yes
	}
	return no
}

// state is the packet's ct state at this place; 0 when it is not known. conn tells
// whether it has a connection.
func (q *question) state(e *env) (state uint32, conn tri) {
	if q.way.bridge && !q.at.any { // where bridges track connections themselves
		q.opaque["connection tracking on a bridge"] = true
		return 0, maybe
	}
	if e.zonedLate || e.zoned && q.tracked() != yes {
		q.opaque["zone of conntrack"] = true
		return 0, maybe
	}
	switch e.untracked {
	case yes:
		return CtUntracked, no
	case maybe:
		return 0, maybe
	}
	switch q.tracked() {
	case no:
		return CtInvalid, no
	case maybe:
		q.opaque["order of conntrack and chain"] = true
		return 0, maybe
	}
	if e.remade {
		q.opaque["a field that a rule rewrote"] = true
		return 0, maybe
	}
	if untrackable(q.p) == yes {
		return CtUntracked, no
	}
	if !q.p.Ct.Set {
		return 0, maybe
	}
	switch q.p.Ct.V {
	case CtInvalid, CtUntracked:
		return q.p.Ct.V, no
	}
	if e.zoned && q.p.Ct.V != CtNew { // the connection may be in another zone
		q.opaque["zone of conntrack"] = true
		return 0, maybe
	}
	return q.p.Ct.V, yes
}

// NFT_CT_*.
const (
	ctState     = 0
	ctDirection = 1
	ctStatus    = 2
	ctMark      = 3
	ctHelper    = 6
	ctL3Proto   = 7
	ctSrc       = 8
	ctDst       = 9
	ctProtocol  = 10
	ctProtoSrc  = 11
	ctProtoDst  = 12
	ctLabels    = 13
	ctZone      = 17
	ctSrcIP     = 19
	ctDstIP     = 20
	ctSrcIP6    = 21
	ctDstIP6    = 22
)

// ct loads a property of the connection (nft_ct_get_eval).
func (q *question) ct(reg *regs, x rs.Ct, e *env) cond {
	st, conn := q.state(e)
	if x.Key == ctState {
		if st == 0 {
			reg.put(x.Dreg, lacking(4, fieldCt))
		} else {
			reg.put(x.Dreg, q.u32(st))
		}
		return always
	}
	if conn == no || x.Key == ctHelper && st == CtNew { // a helper belongs to what expected the connection
		return never // no connection: the rule breaks
	}
	switch x.Key { // a connection has addresses of its own family
	case ctSrcIP, ctDstIP:
		if !q.is4() {
			return never
		}
	case ctSrcIP6, ctDstIP6:
		if q.is4() {
			return never
		}
	}
	c := always
	if conn == maybe {
		c = perhaps
		q.needs |= 1 << fieldCt
	}
	b, ok := q.ctValue(x, e, st)
	if !ok {
		q.opaque["ct key"] = true
	}
	reg.put(x.Dreg, b)
	return c
}

// ctValue is what a new connection holds; of others only what the packet says.
func (q *question) ctValue(x rs.Ct, e *env, st uint32) ([]abyte, bool) {
	fresh := st == CtNew || q.at.any
	switch x.Key {
	case ctL3Proto:
		n := byte(rs.IPv6)
		if q.is4() {
			n = byte(rs.IPv4)
		}
		return []abyte{known(n)}, true
	case ctProtocol:
		if (st == CtRelated || st == 0) && q.mayBeICMP() {
			return open(1), false // an ICMP error is about a connection of any protocol
		}
		return []abyte{q.defragged().l4proto}, q.p.Proto.Set
	}
	if x.Key == ctZone && e.zone.known && (x.Dir < 0 || !q.uses.zone) {
		return knownBytes(q.order.AppendUint16(nil, uint16(e.zone.v))), true
	}
	if !fresh {
		return open(16), false
	}
	n, src, dst := 16, 8, 24
	if q.is4() {
		n, src, dst = 4, 12, 16
	}
	l := q.defragged()
	original := x.Dir <= 0
	switch x.Key {
	case ctDirection: // a new flow is in the original one
		return []abyte{known(0)}, true
	case ctMark:
		if e.ctmark.known {
			return q.u32(e.ctmark.v), true
		}
		return open(4), false
	case ctStatus:
		return q.status(e)
	case ctSrc, ctSrcIP, ctSrcIP6:
		if original && (x.Key == ctSrc || (x.Key == ctSrcIP) == q.is4()) {
			return l.net[src : src+n], true
		}
	case ctDst, ctDstIP, ctDstIP6:
		if original && (x.Key == ctDst || (x.Key == ctDstIP) == q.is4()) {
			return l.net[dst : dst+n], true
		}
	case ctProtoSrc, ctProtoDst:
		if original && q.p.Proto.Set && (q.p.Proto.V == 6 || q.p.Proto.V == 17) {
			o := 2 * int(x.Key-ctProtoSrc)
			return l.trans[o : o+2], true
		}
	case ctLabels:
		if !q.uses.labels {
			return knownBytes(make([]byte, 16)), true
		}
	}
	return open(16), false
}

func (q *question) mayBeICMP() bool {
	return !q.p.Proto.Set || q.p.Proto.V == 1 || q.p.Proto.V == 58
}

func (q *question) defragged() *layout {
	if q.defrag != nil {
		return q.defrag
	}
	return q.l
}

// status are the IPS_* bits of a connection that is not confirmed yet.
func (q *question) status(e *env) ([]abyte, bool) {
	const dstNAT, srcNATDone, dstNATDone = 1 << 5, 1 << 7, 1 << 8
	if e.snat || q.looped() {
		return open(4), false
	}
	if !q.uses.nat {
		return q.helped(q.u32(0)), true
	}
	h, p := q.at.hook, q.at.prio
	if q.at.any || e.daddrLost && !e.dnat {
		return open(4), false
	}
	var v uint32
	moved := q.moved(e)
	if moved == yes {
		v |= dstNAT
	}
	switch {
	case h == rs.Prerouting && p < prioDNAT, h == rs.Output && p < prioDNAT:
	case (h == rs.Prerouting || h == rs.Output) && p == prioDNAT:
		return open(4), false
	default:
		v |= dstNATDone
	}
	if (h == rs.Input || h == rs.Postrouting) && p >= prioSNAT {
		if p == prioSNAT {
			return open(4), false
		}
		v |= srcNATDone
		if h == rs.Postrouting {
			return open(4), false
		}
	}
	b := q.helped(q.u32(v))
	if moved == maybe {
		q.opaque["whether NAT changed anything"] = true
		for i := range b {
			bit := byte(q.order.AppendUint32(nil, dstNAT)[i])
			if bit != 0 && b[i].kind == kConst {
				b[i] = abyte{mask: bit, val: b[i].val}
			} else if bit != 0 {
				b[i] = abyte{}
			}
		}
	}
	return b, true
}

// moved tells whether destination NAT changed anything: what it sends where it went anyway
// does not count as translated (nf_nat_setup_info).
func (q *question) moved(e *env) tri {
	if !e.dnat {
		return no
	}
	p := q.p
	if e.daddr.IsValid() && p.Daddr.Set && e.daddr != p.Daddr.V || e.dport >= 0 && p.Dport.Set && int32(p.Dport.V) != e.dport {
		return yes
	}
	if !e.daddrLost && (!e.daddr.IsValid() || p.Daddr.Set) && (e.dport == -1 || e.dport >= 0 && p.Dport.Set) {
		return no
	}
	return maybe
}

// helped opens the byte of IPS_HELPER (1 << 13), the one bit that giving a connection
// a helper, a timeout or an expectation sets (nft_ct_helper_obj_eval, xt_ct_target).
func (q *question) helped(b []abyte) []abyte {
	if q.uses.helper {
		i := 1
		if q.order == binary.ByteOrder(binary.BigEndian) {
			i = 2
		}
		b[i] = partly(abyte{}, 1<<5, b[i].val&^(1<<5))
		q.opaque["ct key"] = true
	}
	return b
}

func (x *run) setCtMark(v abyte32) {
	switch _, conn := x.q.state(&x.env); conn {
	case yes:
		x.env.ctmark = v
	case maybe:
		x.env.ctmark = abyte32{}
	case no:
		return // without a connection nothing happens
	}
	x.changed = true
}

// setZone hangs a template on a packet without a connection, and undoes notrack
// (nft_ct_set_zone_eval). Connection tracking looks for the packet in its zone.
func (x *run) setZone(e rs.CtSet) {
	switch _, conn := x.q.state(&x.env); {
	case conn == yes:
		return
	case x.q.tracked() == no:
		x.env.zoned, x.env.untracked = true, no
		x.env.zone = abyte32{}
		if c, ok := constantBytes(x.reg.at(e.Sreg, 2)); ok {
			x.env.zone = abyte32{true, uint32(x.q.order.Uint16(c))}
		}
	default:
		x.env.zonedLate, x.env.zone = true, abyte32{}
	}
	x.changed = true
}

// notrack takes the packet out of connection tracking, unless it has a connection
// already (nft_notrack_eval).
func (x *run) notrack() {
	if x.env.zoned || x.env.zonedLate {
		return // the template stands for a connection
	}
	switch st, conn := x.q.state(&x.env); {
	case conn == yes, st == CtUntracked:
		return
	case conn == maybe:
		x.env.untracked = maybe
	default:
		x.env.untracked = yes
	}
	x.changed = true
}

// NFT_OBJECT_* that may break a rule.
const (
	objectQuota     = 2
	objectLimit     = 4
	objectConnlimit = 5
	objectSynproxy  = 10
)

// objref uses a stateful object: counters, helpers and the like let pass, rates may not.
// A map without the key breaks the rule.
func (x *run) objref(e rs.Objref, rest []rs.Expr) cond {
	t := x.r.Chain.Table
	typ, hit := e.Type, always
	if e.Set != "" {
		s := t.Sets[e.Set]
		if s == nil {
			x.q.opaque["object map"] = true
			return perhaps
		}
		typ, hit = s.Object, x.q.member(&x.reg, rs.Lookup{Set: e.Set, Sreg: e.Sreg}, x.r)
	}
	switch typ {
	case 0:
		x.q.opaque["object map"] = true
		return hit.and(perhaps)
	case objectQuota, objectLimit, objectConnlimit:
		o := t.Objects[fmt.Sprintf("%d/%s", typ, e.Name)]
		if e.Set != "" || o == nil || o.Rate == nil {
			x.q.opaque["object "+e.Name+e.Set] = true
			return hit.and(perhaps)
		}
		return x.rate(*o.Rate, rest)
	case objectSynproxy:
		return hit.and(x.synproxy())
	}
	return hit
}

// synproxy answers TCP segments itself, and passes on what belongs to a handshake that
// it has seen (nft_synproxy_do_eval); other packets break the rule.
func (x *run) synproxy() cond {
	if x.q.p.Proto.Set && x.q.p.Proto.V != 6 {
		return never
	}
	x.q.opaque["synproxy"] = true
	x.mayEnd = true
	return perhaps
}
