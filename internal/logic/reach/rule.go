package reach

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// question is one Packet put to one Ruleset.
type question struct {
	p       *Packet
	l       *layout
	set     *rs.Ruleset
	order   appendOrder // of the host the rules run on
	world   World
	sets    map[*rs.Set]*index
	choices [][]alternative
	// needs collects the open fields that an answer depended on.
	needs uint32 // bits by field
	// opaque is set when an Opaque expression or a state that the packet does not
	// fix made an answer uncertain.
	opaque map[string]bool
}

// World is what rules ask about besides the packet; nil knows nothing.
type World interface {
	// FibOIF tells by which interface the host would send to each destination:
	// disjoint sets of addresses and the ifindex, 0 for those without a usable
	// route. ok is false when the routes are not known, or rules choose tables.
	FibOIF(is4 bool) (by map[uint32]packetset.Set, ok bool)
	// FibType is the RTN_* type of an address (1 unicast, 2 local, 3 broadcast,
	// 5 multicast …), asked for on an interface ("" = any).
	FibType(a netip.Addr, iface string) (uint32, bool)
}

func (q *question) is4() bool { return q.p.Family == rs.IPv4 }

// firstByte is where the address starts in 16 bytes.
func (q *question) firstByte() int {
	if q.is4() {
		return 12
	}
	return 0
}

// env is what earlier rules did to the packet, as later ones see it.
type env struct {
	mark      abyte32
	ctmark    abyte32
	daddr     netip.Addr // after dnat; invalid: unchanged
	dport     int32      // after dnat; -1 unchanged, -2 unknown
	daddrLost bool       // dnat to an address that is not known
	untracked tri
	limited   bool
	trace     bool
}

type tri int8

const (
	no tri = iota
	maybe
	yes
)

// abyte32 is a 32-bit number that may be unknown.
type abyte32 struct {
	known bool
	v     uint32
}

func (q *question) fresh() env {
	e := env{dport: -1, ctmark: abyte32{known: true}}
	if q.p.Mark.Set {
		e.mark = abyte32{true, q.p.Mark.V}
	}
	if q.p.Ct.Set && q.p.Ct.V == CtUntracked {
		e.untracked = yes
	}
	return e
}

// regs are the 16 4-byte registers.
type regs [80]abyte

func (r *regs) at(n rs.Reg, size int) []abyte {
	i := int(n) * 4
	if n == rs.VerdictReg || size < 0 || i+size > len(r) {
		return make([]abyte, max(size, 0))
	}
	return r[i : i+size]
}

func (r *regs) put(n rs.Reg, b []abyte) {
	i := int(n) * 4
	if n == rs.VerdictReg || i+len(b) > len(r) {
		return
	}
	copy(r[i:], b)
	// The rest of the last 4-byte register is zero.
	for j := i + len(b); j%4 != 0; j++ {
		r[j] = known(0)
	}
}

// outcome is what a rule does for the sources it matches.
type outcome struct {
	cond    cond
	verdict rs.Verdict // Continue, Accept, Drop, Jump, Goto, Return …
	reject  bool
	chain   string
	env     env
	changed bool // env differs
	// extra are verdicts of other branches (verdict maps): each with its own condition.
	extra []outcome
	// mayEnd: an opaque statement may have ended the packet's way with any verdict.
	mayEnd bool
}

// rule runs one rule.
func (q *question) rule(r *rs.Rule, e env) outcome {
	var reg regs
	out := outcome{cond: always, verdict: rs.Continue, env: e}
	for _, x := range r.Exprs {
		c := always
		switch x := x.(type) {
		case rs.Nothing, rs.Objref:
		case rs.Payload:
			c = q.payload(&reg, x, &out.env)
		case rs.Meta:
			c = q.meta(&reg, x, &out.env)
		case rs.Ct:
			c = q.ct(&reg, x, &out.env)
		case rs.Exthdr:
			c = q.exthdr(&reg, x)
		case rs.Immediate:
			reg.put(x.Dreg, knownBytes(x.Data))
		case rs.Cmp:
			c = q.note(compare(reg.at(x.Sreg, len(x.Data)), x.Op, x.Data, q), "field")
		case rs.Range:
			c = within(reg.at(x.Sreg, len(x.From)), x.From, x.To, q)
			if x.Invert {
				c = c.not(q.is4())
			}
		case rs.Bitwise:
			q.bitwise(&reg, x)
		case rs.Byteorder:
			q.byteorder(&reg, x)
		case rs.Lookup:
			branches := q.lookup(&reg, x, r)
			if len(branches) == 1 && !x.Verdict {
				c = branches[0].cond
				break
			}
			for _, b := range branches {
				b.cond = b.cond.and(out.cond)
				b.env, b.changed = out.env, out.changed
				out.extra = append(out.extra, b)
			}
			// What no branch took goes on with the rule.
			rest := always
			for _, b := range branches {
				rest = rest.and(b.cond.not(q.is4()))
			}
			c = rest
			if x.Verdict {
				// A verdict map without a match breaks the rule.
				c = never
				if !x.Invert {
					out.cond = out.cond.and(c)
					return out
				}
			}
		case rs.Limit:
			out.env.limited = true
			out.changed = true
			c = constant(!x.Over)
		case rs.Dynset:
			c = q.dynset(x, &out)
		case rs.MetaSet:
			if x.Key == 3 {
				out.env.mark = number32(reg.at(x.Sreg, 4), q.order)
				out.changed = true
			}
		case rs.CtSet:
			if x.Key == 3 {
				out.env.ctmark = number32(reg.at(x.Sreg, 4), q.order)
				out.changed = true
			}
		case rs.Notrack:
			out.env.untracked, out.changed = yes, true
		case rs.Conclude:
			out.verdict, out.chain = x.Verdict, x.Chain
			return out
		case rs.Reject:
			out.verdict, out.reject = rs.Drop, true
			return out
		case rs.ToQueue:
			out.mayEnd = true
			q.opaque["queue"] = true
			return out
		case rs.Steal:
			out.verdict = rs.Stolen
			return out
		case rs.Masquerade:
			out.verdict = rs.Accept
			return out
		case rs.Redirect:
			q.redirect(&reg, x, &out)
			return out
		case rs.Nat:
			q.nat(&reg, x, &out)
			return out
		case rs.TProxy:
			// The packet goes to a local socket; the rule goes on.
			out.env.dport, out.changed = -2, true
		case rs.Random:
			reg.put(x.Dreg, open(4))
		case rs.Fib:
			c = q.fib(&reg, x)
		case rs.Rt:
			reg.put(x.Dreg, open(16))
			q.opaque["rt"] = true
		case rs.Socket:
			reg.put(x.Dreg, open(16))
			q.opaque["socket"] = true
			c = perhaps
		case rs.PayloadSet:
			q.opaque["payload set"] = true
			out.env.daddrLost, out.changed = true, true
		case rs.Opaque:
			q.opaque[x.Name] = true
			c = perhaps
			for i := range reg {
				reg[i] = abyte{}
			}
			if x.Ends {
				out.mayEnd = true
			}
		default:
			c = perhaps
			out.mayEnd = true
		}
		out.cond = out.cond.and(c)
		if out.cond.impossible() {
			return out
		}
	}
	return out
}

func (q *question) note(c cond, _ string) cond { return c }

func number32(b []abyte, order binary.ByteOrder) abyte32 {
	c, ok := constantBytes(b)
	if !ok || len(c) < 4 {
		return abyte32{}
	}
	return abyte32{true, order.Uint32(c)}
}

func (q *question) payload(reg *regs, x rs.Payload, e *env) cond {
	var src []abyte
	off := int(x.Offset)
	switch x.Base {
	case rs.LinkHeader:
		src = q.l.link
	case rs.NetworkHeader:
		src = q.net(e)
	case rs.TransportHeader:
		if !q.l.hasTrans {
			return never // nft_payload: a later fragment has no transport header
		}
		src = q.trans(e)
	default:
		reg.put(x.Dreg, open(int(min(x.Len, 64))))
		return perhaps
	}
	n := int(min(x.Len, 64))
	b := open(n)
	for i := range n {
		if off+i < len(src) {
			b[i] = src[off+i]
		}
	}
	reg.put(x.Dreg, b)
	return always
}

// net is the network header after NAT.
func (q *question) net(e *env) []abyte {
	if !e.daddr.IsValid() && !e.daddrLost {
		return q.l.net
	}
	b := append([]abyte(nil), q.l.net...)
	off, n := 24, 16
	if q.is4() {
		off, n = 16, 4
	}
	if e.daddrLost {
		copy(b[off:], open(n))
	} else {
		copy(b[off:], knownBytes(e.daddr.AsSlice()))
	}
	return b
}

func (q *question) trans(e *env) []abyte {
	if e.dport == -1 {
		return q.l.trans
	}
	b := append([]abyte(nil), q.l.trans...)
	if e.dport == -2 {
		copy(b[2:], open(2))
	} else {
		copy(b[2:], knownBytes(binary.BigEndian.AppendUint16(nil, uint16(e.dport))))
	}
	return b
}

func (q *question) u32(v uint32) []abyte { return knownBytes(q.order.AppendUint32(nil, v)) }

type appendOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

func ifname(s string) []abyte {
	var b [16]byte
	copy(b[:], s)
	return knownBytes(b[:])
}

func (q *question) exthdr(reg *regs, x rs.Exthdr) cond {
	if x.Op != 0 { // TCP and IPv4 options, SCTP chunks: not in the question
		reg.put(x.Dreg, open(int(min(x.Len, 64))))
		if x.Present {
			return always
		}
		return perhaps
	}
	if q.is4() {
		if x.Present {
			reg.put(x.Dreg, []abyte{known(0)})
			return always
		}
		return never
	}
	for _, e := range q.l.ext {
		if e.number != x.Type {
			continue
		}
		if x.Present {
			reg.put(x.Dreg, []abyte{known(1)})
			return always
		}
		b := open(int(min(x.Len, 64)))
		for i := range b {
			if j := int(x.Offset) + i; j < len(e.bytes) {
				b[i] = e.bytes[j]
			}
		}
		reg.put(x.Dreg, b)
		return always
	}
	if x.Present {
		reg.put(x.Dreg, []abyte{known(0)})
		return always
	}
	return never
}

func (q *question) bitwise(reg *regs, x rs.Bitwise) {
	n := int(min(x.Len, 64))
	src := append([]abyte(nil), reg.at(x.Sreg, n)...)
	switch {
	case x.Op == 0 && len(x.Mask) >= n && len(x.Xor) >= n:
		for i := range src {
			src[i] = maskXor(src[i], x.Mask[i], x.Xor[i])
		}
	case x.Op >= 3 && !x.HasSreg2 && len(x.Mask) >= n:
		for i := range src {
			switch x.Op {
			case 3:
				src[i] = maskXor(src[i], x.Mask[i], 0)
			case 4:
				src[i] = maskXor(src[i], ^x.Mask[i], x.Mask[i])
			case 5:
				src[i] = maskXor(src[i], 0xff, x.Mask[i])
			}
		}
	default:
		c, ok := constantBytes(src)
		src = open(n)
		if ok && n == 4 && (x.Op == 1 || x.Op == 2) && x.Shift < 32 {
			v := q.order.Uint32(c)
			if x.Op == 1 {
				v <<= x.Shift
			} else {
				v >>= x.Shift
			}
			src = q.u32(v)
		}
	}
	reg.put(x.Dreg, src)
}

func maskXor(b abyte, mask, xor byte) abyte {
	switch b.kind {
	case kConst:
		return known(b.val&mask ^ xor)
	case kUnknown, kChoice:
		if mask == 0 {
			return known(xor)
		}
		if b.kind == kChoice {
			if mask == 0xff && xor == 0 {
				return b
			}
			return abyte{}
		}
		return abyte{idx: b.idx}
	default:
		if b.mask&mask == 0 {
			return known(b.val&mask ^ xor)
		}
		return abyte{kind: b.kind, idx: b.idx, mask: b.mask & mask, val: b.val&mask ^ xor}
	}
}

func (q *question) byteorder(reg *regs, x rs.Byteorder) {
	n, size := int(min(x.Len, 64)), int(x.Size)
	src := append([]abyte(nil), reg.at(x.Sreg, n)...)
	if q.order == binary.ByteOrder(binary.LittleEndian) && (size == 2 || size == 4 || size == 8) {
		for i := 0; i+size <= n; i += size {
			for a, b := i, i+size-1; a < b; a, b = a+1, b-1 {
				src[a], src[b] = src[b], src[a]
			}
		}
	}
	reg.put(x.Dreg, src)
}

func (q *question) redirect(reg *regs, x rs.Redirect, out *outcome) {
	out.verdict, out.changed = rs.Accept, true
	if x.HasProto {
		out.env.dport = port(reg.at(x.ProtoMin, 2))
		if x.HasProtoMax && port(reg.at(x.ProtoMax, 2)) != out.env.dport {
			out.env.dport = -2
		}
	}
	out.env.daddrLost = true // the primary address of the interface it came in by
}

func port(b []abyte) int32 {
	if c, ok := constantBytes(b); ok {
		return int32(binary.BigEndian.Uint16(c))
	}
	return -2
}

func (q *question) nat(reg *regs, x rs.Nat, out *outcome) {
	out.verdict = rs.Accept
	if !x.Dst {
		return
	}
	out.changed = true
	if x.HasAddr {
		n := 16
		if q.is4() {
			n = 4
		}
		out.env.daddrLost = true
		if c, ok := constantBytes(reg.at(x.AddrMin, n)); ok && !x.HasAddrMax {
			out.env.daddr, _ = netip.AddrFromSlice(c)
			out.env.daddrLost = false
		}
	}
	if x.HasProto {
		out.env.dport = port(reg.at(x.ProtoMin, 2))
		if x.HasProtoMax && port(reg.at(x.ProtoMax, 2)) != out.env.dport {
			out.env.dport = -2
		}
	}
}

func (q *question) dynset(x rs.Dynset, out *outcome) cond {
	c := always
	for _, e := range x.Exprs {
		switch e := e.(type) {
		case rs.Limit:
			out.env.limited, out.changed = true, true
			c = c.and(constant(!e.Over))
		case rs.Nothing:
		default:
			c = c.and(perhaps)
		}
	}
	// A full set, or one of the wrong shape, breaks the rule: the first packet of an
	// empty set does not meet that, a full one does.
	if x.Invert {
		return c.not(q.is4())
	}
	return c
}

// meta loads a property of the packet.
func (q *question) meta(reg *regs, x rs.Meta, e *env) cond {
	var b []abyte
	switch x.Key {
	case 1: // protocol, network order
		b = q.l.link[12:14]
	case 3:
		b = open(4)
		if !q.p.Mark.Set {
			b = lacking(4, fieldMark)
		}
		if e.mark.known {
			b = q.u32(e.mark.v)
		}
	case 4, 5:
		name, f := q.p.IIF, fieldIIF
		if x.Key == 5 {
			name, f = q.p.OIF, fieldOIF
		}
		b = lacking(4, f)
		if name.Set {
			for i, n := range q.set.Interfaces {
				if n == name.V {
					b = q.u32(i)
				}
			}
			if name.V == "" {
				b = q.u32(0)
			}
		}
	case 6, 7:
		name, f := q.p.IIF, fieldIIF
		if x.Key == 7 {
			name, f = q.p.OIF, fieldOIF
		}
		b = lacking(16, f)
		if name.Set {
			b = ifname(name.V)
		}
	case 10, 11:
		b = lacking(4, fieldUID)
		if !q.p.Local {
			return never // no local socket: nft_meta breaks
		}
		if x.Key == 10 && q.p.UID.Set {
			b = q.u32(q.p.UID.V)
		}
	case 15:
		n := byte(rs.IPv6)
		if q.is4() {
			n = byte(rs.IPv4)
		}
		b = []abyte{known(n)}
	case 16:
		b = []abyte{q.l.l4proto}
	default:
		b = open(16)
		q.opaque["meta key"] = true
	}
	reg.put(x.Dreg, b)
	return always
}

// ct loads a property of the connection.
func (q *question) ct(reg *regs, x rs.Ct, e *env) cond {
	switch x.Key {
	case 0: // state
		switch {
		case e.untracked == yes:
			reg.put(x.Dreg, q.u32(CtUntracked))
		case q.p.Ct.Set && e.untracked == no:
			reg.put(x.Dreg, q.u32(q.p.Ct.V))
		default:
			reg.put(x.Dreg, lacking(4, fieldCt))
		}
		return always
	}
	if e.untracked == yes || q.p.Ct.Set && q.p.Ct.V == CtInvalid {
		return never // nft_ct: no connection, the rule breaks
	}
	switch x.Key {
	case 1: // direction: a new flow is in the original one
		if q.p.Ct.Set && q.p.Ct.V == CtNew {
			reg.put(x.Dreg, []abyte{known(0)})
			return always
		}
		reg.put(x.Dreg, open(1))
		return always
	case 3:
		if e.ctmark.known && q.p.Ct.Set && q.p.Ct.V == CtNew {
			reg.put(x.Dreg, q.u32(e.ctmark.v))
			return always
		}
	}
	reg.put(x.Dreg, open(16))
	q.opaque["ct key"] = true
	return perhaps
}

// NFTA_FIB_F_* and NFT_FIB_RESULT_* (include/uapi/linux/netfilter/nf_tables.h).
const (
	fibSaddr   = 1
	fibDaddr   = 2
	fibMark    = 4
	fibIIF     = 8
	fibOIF     = 16
	fibPresent = 32

	fibResultOIF      = 1
	fibResultOIFName  = 2
	fibResultAddrType = 3
)

// fib asks the routing table (net/ipv6/netfilter/nft_fib_ipv6.c).
func (q *question) fib(reg *regs, x rs.Fib) cond {
	load := func(b []abyte) cond { reg.put(x.Dreg, b); return always }
	lost := func() cond { q.opaque["fib"] = true; return load(open(16)) }
	if q.world == nil || x.Flags&fibMark != 0 {
		return lost()
	}
	if x.Result == fibResultAddrType && x.Flags&fibDaddr != 0 && q.p.Daddr.Set {
		iface := ""
		if x.Flags&fibIIF != 0 {
			iface = q.p.IIF.V
		}
		t, ok := q.world.FibType(q.p.Daddr.V, iface)
		if !ok {
			return lost()
		}
		return load(q.u32(t))
	}
	if x.Result != fibResultOIF && x.Result != fibResultOIFName || x.Flags&fibSaddr == 0 || q.p.Local {
		return lost()
	}
	if q.p.IIF.Set && q.p.IIF.V == "lo" {
		return lost() // loopback packets skip the lookup
	}
	by, ok := q.world.FibOIF(q.is4())
	if !ok || x.Flags&fibIIF != 0 && !q.p.IIF.Set {
		return lost()
	}
	var alts []alternative
	for ifindex, set := range by {
		out := ifindex
		if x.Flags&fibIIF != 0 && q.set.Interfaces[ifindex] != q.p.IIF.V {
			out = 0
		}
		var data []byte
		switch {
		case x.Flags&fibPresent != 0:
			data = []byte{0}
			if out != 0 {
				data[0] = 1
			}
		case x.Result == fibResultOIF:
			data = q.order.AppendUint32(nil, out)
		default:
			data = make([]byte, 16)
			copy(data, q.set.Interfaces[out])
		}
		c := cond{yes: set, may: set}
		if q.p.Saddr.Set {
			c = constant(set.Contains(packetset.FromIP(q.p.Saddr.V)))
		}
		alts = append(alts, alternative{c, data})
	}
	return load(q.choose(alts))
}

// index is a set prepared for lookups.
type index struct {
	sources packetset.Set // of a set keyed by the whole address
	ready   bool
}

// lookup tests membership. Maps give one branch per verdict.
func (q *question) lookup(reg *regs, x rs.Lookup, r *rs.Rule) []outcome {
	s := r.Chain.Table.Sets[x.Set]
	if s == nil {
		return []outcome{{cond: perhaps, verdict: rs.Continue, mayEnd: x.Verdict}}
	}
	key := reg.at(x.Sreg, s.KeyLen)
	if x.HasDreg && !x.Verdict {
		reg.put(x.Dreg, open(min(s.DataLen, 64)))
	}
	hit := never
	var out []outcome
	var catchAll *rs.Element
	for i := range s.Elements {
		e := &s.Elements[i]
		if e.CatchAll {
			catchAll = e
			continue
		}
		c := q.element(s, e, key)
		if e.Expires {
			c = cond{may: c.may, mayAll: c.mayAll}
		}
		if c.impossible() {
			continue
		}
		hit = hit.or(c)
		if x.Verdict {
			out = append(out, outcome{cond: c, verdict: e.Verdict, chain: e.Chain})
		} else if x.HasDreg && c.certain() {
			reg.put(x.Dreg, knownBytes(e.Data))
		}
	}
	if catchAll != nil {
		rest := hit.not(q.is4())
		if x.Verdict {
			out = append(out, outcome{cond: rest, verdict: catchAll.Verdict, chain: catchAll.Chain})
		}
		hit = always
	}
	if !s.Complete || s.Dynamic {
		hit = hit.or(perhaps)
		if x.Verdict {
			out = append(out, outcome{cond: perhaps, verdict: rs.Continue, mayEnd: true})
		}
		q.opaque["set "+s.Name] = true
	}
	if x.Verdict {
		return out
	}
	if x.Invert {
		hit = hit.not(q.is4())
	}
	return []outcome{{cond: hit}}
}

// element answers whether a key is within one element.
func (q *question) element(s *rs.Set, e *rs.Element, key []abyte) cond {
	if len(s.Concat) < 2 {
		if strings.Compare(string(e.From), string(e.To)) == 0 {
			return equal(key, e.From, q)
		}
		return within(key, e.From, e.To, q)
	}
	c, off := always, 0
	for _, n := range s.Concat {
		if off+n > len(key) || off+n > len(e.From) || off+n > len(e.To) {
			return perhaps
		}
		c = c.and(within(key[off:off+n], e.From[off:off+n], e.To[off:off+n], q))
		if c.impossible() {
			return c
		}
		off += (n + 3) &^ 3
	}
	return c
}
