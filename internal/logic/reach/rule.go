package reach

import (
	"encoding/binary"
	"net/netip"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// question is one Packet put to one Ruleset.
type question struct {
	p      *Packet
	l      *layout
	defrag *layout // after reassembly; nil where the packet is no fragment
	set    *rs.Ruleset
	order  appendOrder // of the host the rules run on
	world  World
	// daddrType is the RTN_* type that the destination is taken to have; 0 is any.
	daddrType uint32
	choices   [][]alternative
	cuts      *[]packetset.Interval // where conditions part the sources, while they are collected
	uses      *uses
	at        place
	way       stop // where on its way the packet is
	// port and outPort are the ports of bridges that the question named as interfaces.
	port, outPort string
	// needs collects the open fields that an answer depended on.
	needs uint32 // bits by field
	// opaque is set when an Opaque expression or a state that the packet does not
	// fix made an answer uncertain.
	opaque map[string]bool
}

// place is where the packet is on its way.
type place struct {
	hook rs.Hook
	prio int32
	any  bool // any place: the boundaries of a ruleset are being collected
	// device: a chain of family netdev, which is told of no family of IP
	device bool
}

// World is what rules ask about besides the packet; nil knows nothing.
type World interface {
	// FibOIF tells by which interface the host would send to each address, asked on
	// behalf of a packet that came in by iif: disjoint sets that cover the family, by
	// ifindex, 0 for those without a usable route. strict allows iif itself only. ok
	// is false when the routes are not known, or rules choose tables.
	FibOIF(is4 bool, iif string, strict bool) (by map[uint32]packetset.Set, ok bool)
	// FibType is the RTN_* type of an address (1 unicast, 2 local, 3 broadcast,
	// 5 multicast …), asked for on an interface ("" = any).
	FibType(a netip.Addr, iface string) (uint32, bool)
	// FibTypes4 is FibType of every IPv4 address: the addresses of each type.
	FibTypes4(iface string) (map[uint32]packetset.Set, bool)
	// To is the interface by which the host sends to an address; local when it keeps
	// it. ok is false when the routes are not known, or name several.
	To(a netip.Addr) (ifindex uint32, local, ok bool)
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
	zone      abyte32    // of connection tracking
	daddr     netip.Addr // after dnat; invalid: unchanged
	dport     int32      // after dnat; -1 unchanged, -2 unknown
	daddrLost bool       // dnat to an address that is not known
	saddrLost bool       // snat, masquerade
	dnat      bool       // destination NAT was set up
	snat      bool
	toLocal   bool  // the new destination is this host
	placed    bool  // the question says whether the new destination is this host
	pktType   uint8 // one more than what a rule set; 0: unchanged
	rerouted  bool  // by destination NAT: the way out is not the one asked about
	untracked tri
	remade    bool // before connection tracking saw it
	// zoned: a template of connection tracking hangs on the packet, since before it was
	// tracked or since late, when it had no connection.
	zoned, zonedLate bool
	whole            bool // reassembled
	misfit           bool // a fragment that reassembly leaves as it is
	// netLost and transLost are the bytes of the headers that a rule wrote.
	netLost, transLost uint64
	// over: a rate was exceeded on the way. What becomes of such packets is told
	// apart, since the first one passes.
	over bool
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
	e := env{dport: -1, ctmark: abyte32{known: true}, zone: abyte32{known: true}}
	if q.looped() && q.uses.marks {
		e.ctmark = abyte32{} // output may have marked it
	}
	if q.p.Mark.Set {
		e.mark = abyte32{true, q.p.Mark.V}
	}
	return e
}

// regs are the 16 4-byte registers.
type regs [80]abyte

func (r *regs) at(n rs.Reg, size int) []abyte {
	i := int(n) * 4
	if n == rs.VerdictReg || size < 0 || i+size > len(r) {
		return make([]abyte, min(max(size, 0), len(r)))
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
	// mayEnd: an opaque statement may have ended the packet's way with any verdict.
	mayEnd bool
	// beside the other outcomes, not instead of them: a rate was exceeded.
	beside bool
}

// run is a rule on its way: register values, and for which sources it got so far.
type run struct {
	q       *question
	r       *rs.Rule
	reg     regs
	cond    cond
	env     env
	changed bool // env differs from the one the rule started with
	beside  bool
	mayEnd  bool
	out     *[]outcome
}

// maxForks bounds the alternatives of one map that are followed one by one.
const maxForks = 32

// rule runs one rule. Sources for which no outcome holds go on unchanged.
func (q *question) rule(r *rs.Rule, e env) []outcome {
	l := q.l
	if e.whole && q.defrag != nil {
		q.l = q.defrag
	}
	var out []outcome
	x := run{q: q, r: r, cond: always, env: e, out: &out}
	x.exec(r.Exprs)
	q.l = l
	return out
}

// conclude ends the run.
func (x *run) conclude(v rs.Verdict, chain string, reject bool) {
	*x.out = append(*x.out, outcome{cond: x.cond, verdict: v, chain: chain, reject: reject, env: x.env, mayEnd: x.mayEnd, beside: x.beside})
}

// require goes on only where c holds; elsewhere the rule breaks, and what it did so
// far stays done.
func (x *run) require(c cond) bool {
	x.q.cut(c)
	if c.certain() {
		return true
	}
	if x.changed || x.mayEnd {
		broken := *x
		broken.cond = x.cond.and(c.not(x.q.is4()))
		if !broken.cond.impossible() {
			broken.conclude(rs.Continue, "", false)
		}
	}
	x.cond = x.cond.and(c)
	return !x.cond.impossible()
}

// cut notes where a condition parts the sources. What it is combined with may hide that.
func (q *question) cut(c cond) {
	if q.cuts != nil {
		*q.cuts = append(append(*q.cuts, c.yes...), c.may...)
	}
}

// exec runs expressions until one concludes or breaks.
func (x *run) exec(exprs []rs.Expr) {
	q := x.q
	for i, ex := range exprs {
		c := always
		switch e := ex.(type) {
		case rs.Nothing:
		case rs.Objref:
			c = x.objref(e, exprs[i+1:])
		case rs.Payload:
			c = q.payload(&x.reg, e, &x.env)
		case rs.Meta:
			c = q.meta(&x.reg, e, &x.env)
		case rs.Ct:
			c = q.ct(&x.reg, e, &x.env)
		case rs.Exthdr:
			c = q.exthdr(&x.reg, e)
		case rs.Immediate:
			x.reg.put(e.Dreg, knownBytes(e.Data))
		case rs.Cmp:
			c = compare(x.reg.at(e.Sreg, len(e.Data)), e.Op, e.Data, q)
		case rs.Range:
			c = within(x.reg.at(e.Sreg, len(e.From)), e.From, e.To, q)
			if e.Invert {
				c = c.not(q.is4())
			}
		case rs.Bitwise:
			q.bitwise(&x.reg, e)
		case rs.Byteorder:
			q.byteorder(&x.reg, e)
		case rs.Lookup:
			if x.lookup(e, exprs[i+1:]) {
				return // the branches went on by themselves
			}
			c = q.member(&x.reg, e, x.r)
			if !e.Invert {
				c = c.and(x.setRates(x.r.Chain.Table.Sets[e.Set], exprs[i+1:]))
			}
		case rs.Limit:
			c = x.rate(e, exprs[i+1:])
		case rs.Dynset:
			c = x.dynset(e, exprs[i+1:])
		case rs.MetaSet:
			x.metaSet(e)
		case rs.CtSet:
			switch e.Key {
			case ctMark:
				x.setCtMark(number32(x.reg.at(e.Sreg, 4), q.order))
			case ctZone:
				x.setZone(e)
			}
		case rs.Notrack:
			x.notrack()
		case rs.Conclude:
			if e.Verdict == rs.Continue {
				break
			}
			if e.Verdict == rs.Break {
				c = never
				break
			}
			x.conclude(e.Verdict, e.Chain, false)
			return
		case rs.Reject:
			x.conclude(rs.Drop, "", true)
			return
		case rs.ToQueue:
			x.mayEnd = true
			q.opaque["queue"] = true
			x.conclude(rs.Continue, "", false)
			return
		case rs.Steal:
			if e.Name == "synproxy" {
				c = x.synproxy()
				break
			}
			x.conclude(rs.Drop, "", false) // sent out by another interface: nobody here sees it
			return
		case rs.Masquerade:
			x.env.saddrLost, x.env.snat, x.changed = true, true, true
			x.env.transLost |= 3
			x.conclude(rs.Accept, "", false)
			return
		case rs.Redirect:
			x.redirect(e)
			return
		case rs.Nat:
			if x.nat(e) {
				return
			}
		case rs.TProxy:
			// The packet goes to a local socket, where one listens; else the rule breaks.
			q.opaque["tproxy"] = true
			c = perhaps
		case rs.Random:
			x.reg.put(e.Dreg, open(4))
			q.opaque["random"] = true
		case rs.Fib:
			c = q.fib(&x.reg, e, &x.env)
		case rs.Rt:
			x.reg.put(e.Dreg, open(16))
			q.opaque["rt"] = true
			c = perhaps
		case rs.Socket:
			x.reg.put(e.Dreg, open(16))
			q.opaque["socket"] = true
			c = perhaps
		case rs.PayloadSet:
			x.payloadSet(e)
		case rs.Opaque:
			q.opaque[e.Name] = true
			c = perhaps
			for i := range x.reg {
				x.reg[i] = abyte{}
			}
			x.mayEnd = x.mayEnd || e.Ends
		case rs.Any:
			c = x.any(e)
		case rs.HotDrop:
			c = x.hotDrop(e)
		case rs.ExtHeaders:
			c = q.extHeaders(e)
		case rs.BridgePort:
			c = q.bridgePort(e)
		default:
			c = perhaps
			x.mayEnd = true
		}
		if !x.require(c) {
			return
		}
	}
	x.conclude(rs.Continue, "", false)
}

// rate answers for a packet that comes when nothing has used the rate up, and follows
// those that exceed it.
func (x *run) rate(l rs.Limit, rest []rs.Expr) cond {
	switch x.q.within(l) {
	case yes:
		x.exceed(rest, l.Over)
		return constant(!l.Over)
	case no:
		return constant(l.Over)
	}
	x.q.opaque["packet length"] = true
	return perhaps
}

// rates is rate for stateful expressions of which each may break the rule.
func (x *run) rates(list []rs.Expr, rest []rs.Expr) cond {
	c := always
	for _, e := range list {
		switch e := e.(type) {
		case rs.Limit:
			c = c.and(x.rate(e, rest))
		case rs.Nothing:
		default:
			x.q.opaque["dynset"] = true
			c = c.and(perhaps)
		}
	}
	return c
}

// maxLength is that of the longest packet, with its headers, in bytes.
const maxLength = 1<<16 + 40 + 18

// within tells whether the packet is short enough for a rate.
func (q *question) within(l rs.Limit) tri {
	least, most := uint64(len(q.l.net)), uint64(maxLength)
	if n, ok := q.frameLen(); ok {
		least, most = n, n
	}
	switch {
	case !l.HasRoom || most <= l.Room:
		return yes
	case least > l.Room:
		return no
	}
	return maybe
}

// frameLen is the length of the packet in bytes; where it leaves, its link header counts.
func (q *question) frameLen() (uint64, bool) {
	n := uint64(len(q.l.net) + len(q.l.trans))
	if q.at.hook == rs.Egress && !q.at.any {
		if t, ok := q.set.Types[q.way.out.V]; !ok || t != arphrdEther {
			return 0, false
		}
		n += 14
	}
	return n, q.l.exact
}

// exceed follows the packets for which a rate is exceeded: with over they go on in the
// rule, else they break it.
func (x *run) exceed(rest []rs.Expr, over bool) {
	y := *x
	y.env.over, y.changed, y.beside = true, true, true
	if over {
		y.exec(rest)
	} else {
		y.conclude(rs.Continue, "", false)
	}
}

func number32(b []abyte, order binary.ByteOrder) abyte32 {
	c, ok := constantBytes(b)
	if !ok || len(c) < 4 {
		return abyte32{}
	}
	return abyte32{true, order.Uint32(c)}
}

func (q *question) u32(v uint32) []abyte { return knownBytes(q.order.AppendUint32(nil, v)) }

type appendOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

func (q *question) bitwise(reg *regs, x rs.Bitwise) {
	n := int(min(x.Len, 64))
	src := append([]abyte(nil), reg.at(x.Sreg, n)...)
	switch {
	case x.Op == 0 && len(x.Mask) >= n && len(x.Xor) >= n:
		for i := range src {
			src[i] = maskXor(src[i], x.Mask[i], x.Xor[i])
		}
	case x.Op >= 3:
		mask := x.Mask
		if x.HasSreg2 {
			mask, _ = constantBytes(reg.at(x.Sreg2, n))
		}
		if len(mask) < n {
			src = open(n)
			break
		}
		for i := range src {
			switch x.Op {
			case 3:
				src[i] = maskXor(src[i], mask[i], 0)
			case 4:
				src[i] = maskXor(src[i], ^mask[i], mask[i])
			case 5:
				src[i] = maskXor(src[i], 0xff, mask[i])
			}
		}
	default:
		src = q.shift(reg.at(x.Sreg, (n+3)&^3), x)[:n]
	}
	reg.put(x.Dreg, src)
}

// shift moves bits across 4-byte words in host order (nft_bitwise_eval_lshift).
func (q *question) shift(b []abyte, x rs.Bitwise) []abyte {
	c, ok := constantBytes(b)
	if !ok || x.Shift >= 32 {
		return open(len(b))
	}
	out, carry := make([]byte, len(c)), uint32(0)
	for i := range len(c) / 4 {
		j := i
		if x.Op == 1 {
			j = len(c)/4 - 1 - i // lshift carries to the word before
		}
		v := q.order.Uint32(c[4*j:])
		w := v>>x.Shift | carry
		next := v << (32 - x.Shift)
		if x.Op == 1 {
			w, next = v<<x.Shift|carry, v>>(32-x.Shift)
		}
		q.order.PutUint32(out[4*j:], w)
		carry = next
	}
	return knownBytes(out)
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
		return partly(b, mask, xor)
	default:
		if b.mask&mask == 0 {
			return known(b.val&mask ^ xor)
		}
		return abyte{kind: b.kind, idx: b.idx, mask: b.mask & mask, val: b.val&mask ^ xor}
	}
}

// partly masks a byte that is unknown, or known in part.
func partly(b abyte, mask, xor byte) abyte {
	open := b.mask
	if open == 0 {
		open = 0xff
	}
	out := abyte{idx: b.idx, mask: open & mask}
	out.val = (b.val&mask ^ xor) &^ out.mask
	if out.mask == 0 {
		return known(out.val)
	}
	return out
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
