package pfdecode

import (
	"fmt"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// reg maps the kernel's register numbers: 0 is the verdict, 1 to 4 the 16-byte
// registers of old, 8 to 23 the 4-byte ones.
func reg(n uint32) (rs.Reg, error) {
	switch {
	case n == 0:
		return rs.VerdictReg, nil
	case n >= 1 && n <= 4:
		return rs.Reg((n - 1) * 4), nil
	case n >= 8 && n <= 23:
		return rs.Reg(n - 8), nil
	}
	return 0, fmt.Errorf("register %d", n)
}

func (r *reader) reg(t uint16) rs.Reg {
	v, err := reg(r.u32(t))
	if err != nil && r.err == nil {
		r.err = err
	}
	return v
}

// expr decodes one expression (NFTA_EXPR_NAME, NFTA_EXPR_DATA). What it does not
// know, or a known one in a shape it does not know, becomes Opaque.
func (d *decoder) expr(b []byte) ([]rs.Expr, error) {
	a, err := parse(b, d.order)
	if err != nil {
		return nil, err
	}
	defer a.free()
	name, data := a.str(1), a[2]
	if name == "" {
		return nil, fmt.Errorf("expression without a name")
	}
	f, ok := exprs[name]
	if !ok {
		return []rs.Expr{d.opaque(name, data)}, nil
	}
	ea, err := parse(data, d.order)
	if err != nil {
		return nil, fmt.Errorf("expression %s: %w", name, err)
	}
	defer ea.free()
	outer := d.read
	defer func() { d.read = outer }()
	d.read = reader{a: ea}
	out := f(d, &d.read)
	if d.read.err != nil || out == nil {
		return []rs.Expr{d.opaque(name, data)}, nil
	}
	return out, nil
}

// opaque keeps an expression that is not understood: it may match or not, it may
// have written any register, it may end the packet's way.
func (d *decoder) opaque(name string, data []byte) rs.Opaque {
	return rs.Opaque{Name: name, Data: d.keeper.keep(data), Ends: true, Loads: true}
}

func one(e rs.Expr) []rs.Expr { return []rs.Expr{e} }

func nothing(name string) func(*decoder, *reader) []rs.Expr {
	return func(*decoder, *reader) []rs.Expr { return one(rs.Nothing{Name: name}) }
}

// exprs are the expressions of nf_tables by name (net/netfilter/nft_*.c).
var exprs map[string]func(*decoder, *reader) []rs.Expr

func init() { // a map literal would refer to itself through match → expr
	exprs = map[string]func(*decoder, *reader) []rs.Expr{
		"immediate": immediate,
		"cmp":       cmp,
		"range":     rangeExpr,
		"bitwise":   bitwise,
		"byteorder": byteorder,
		"payload":   payload,
		"exthdr":    exthdr,
		"meta":      meta,
		"ct":        ct,
		"lookup":    lookup,
		"dynset":    dynset,
		"fib":       fib,
		"rt":        rt,
		"socket":    socket,
		"numgen": func(_ *decoder, r *reader) []rs.Expr {
			return one(rs.Random{Dreg: r.reg(1), Modulus: r.u32(2), Offset: r.u32(4)})
		},
		"hash": func(_ *decoder, r *reader) []rs.Expr {
			return one(rs.Random{Dreg: r.reg(2), Modulus: r.u32(4), Offset: r.u32(6)})
		},
		"limit":     rateLimit,
		"quota":     rateQuota,
		"connlimit": rateConnections,
		"nat":       nat,
		"masq":      func(*decoder, *reader) []rs.Expr { return one(rs.Masquerade{}) },
		"redir":     redir,
		"tproxy":    tproxy,
		"reject":    func(_ *decoder, r *reader) []rs.Expr { return one(rs.Reject{Type: r.u32(1), Code: r.u8(2)}) },
		"notrack":   func(*decoder, *reader) []rs.Expr { return one(rs.Notrack{}) },
		"queue":     func(*decoder, *reader) []rs.Expr { return one(rs.ToQueue{}) },
		"fwd":       func(*decoder, *reader) []rs.Expr { return one(rs.Steal{Name: "fwd"}) },
		"synproxy":  func(*decoder, *reader) []rs.Expr { return one(rs.Steal{Name: "synproxy"}) },
		"objref":    objref,
		"counter":   nothing("counter"),
		"log":       nothing("log"),
		"last":      nothing("last"),
		"dup":       nothing("dup"),
		"match":     compat(false),
		"target":    compat(true),
	}
}

func immediate(d *decoder, r *reader) []rs.Expr {
	data, err := parse(r.a[2], d.order)
	defer data.free()
	if err != nil {
		return nil
	}
	if v := data[2]; v != nil {
		code, chain, err := d.verdict(v)
		if err != nil {
			return nil
		}
		return one(rs.Conclude{Verdict: code, Chain: chain})
	}
	if !data.has(1) {
		return nil
	}
	return one(rs.Immediate{Dreg: r.reg(1), Data: d.keeper.keep(data[1])})
}

func (d *decoder) value(r *reader, t uint16) []byte {
	v, err := d.dataValue(r.a[t])
	if err != nil && r.err == nil {
		r.err = err
	}
	if v == nil && r.err == nil {
		r.err = fmt.Errorf("attribute %d holds no value", t)
	}
	return v
}

func cmp(d *decoder, r *reader) []rs.Expr {
	op := r.u32(2)
	if op > uint32(rs.Gte) {
		return nil
	}
	return one(rs.Cmp{Sreg: r.reg(1), Op: rs.Op(op), Data: d.value(r, 3)})
}

func rangeExpr(d *decoder, r *reader) []rs.Expr {
	op := r.u32(2)
	if op > 1 {
		return nil
	}
	return one(rs.Range{Sreg: r.reg(1), Invert: op == 1, From: d.value(r, 3), To: d.value(r, 4)})
}

func bitwise(d *decoder, r *reader) []rs.Expr {
	e := rs.Bitwise{Sreg: r.reg(1), Dreg: r.reg(2), Len: r.u32(3), Op: r.u32(6)}
	switch {
	case e.Op == 0:
		e.Mask, e.Xor = d.value(r, 4), d.value(r, 5)
	case e.Op == 1 || e.Op == 2:
		v := d.value(r, 7)
		if len(v) != 4 {
			return nil
		}
		e.Shift = d.order.Uint32(v)
	case e.Op <= 5:
		if r.a.has(8) {
			e.Sreg2, e.HasSreg2 = r.reg(8), true
		} else {
			e.Mask = d.value(r, 7)
		}
	default:
		return nil
	}
	return one(e)
}

func byteorder(_ *decoder, r *reader) []rs.Expr {
	return one(rs.Byteorder{Sreg: r.reg(1), Dreg: r.reg(2), Op: r.u32(3), Len: r.u32(4), Size: r.u32(5)})
}

func payload(_ *decoder, r *reader) []rs.Expr {
	base := r.u32(2)
	if base > uint32(rs.InnerHeader) {
		return nil
	}
	if r.a.has(5) {
		return one(rs.PayloadSet{Sreg: r.reg(5), Base: rs.Header(base), Offset: r.u32(3), Len: r.u32(4)})
	}
	return one(rs.Payload{Dreg: r.reg(1), Base: rs.Header(base), Offset: r.u32(3), Len: r.u32(4)})
}

func exthdr(d *decoder, r *reader) []rs.Expr {
	if !r.a.has(1) { // a write (tcp option maxseg set …) or a reset: the packet goes on, its options changed
		return one(rs.Nothing{Name: "exthdr set"})
	}
	return one(rs.Exthdr{Dreg: r.reg(1), Type: r.u8(2), Offset: r.u32(3), Len: r.u32(4), Present: r.u32(5)&1 != 0, Op: r.u32(6)})
}

func meta(_ *decoder, r *reader) []rs.Expr {
	if r.a.has(3) {
		return one(rs.MetaSet{Sreg: r.reg(3), Key: r.u32(2)})
	}
	return one(rs.Meta{Dreg: r.reg(1), Key: r.u32(2)})
}

func ct(_ *decoder, r *reader) []rs.Expr {
	dir := int8(-1)
	if r.a.has(3) {
		dir = int8(r.u8(3))
	}
	if r.a.has(4) {
		return one(rs.CtSet{Sreg: r.reg(4), Key: r.u32(2), Dir: dir})
	}
	return one(rs.Ct{Dreg: r.reg(1), Key: r.u32(2), Dir: dir})
}

func lookup(_ *decoder, r *reader) []rs.Expr {
	e := rs.Lookup{Set: r.a.str(1), SetID: r.u32(4), Sreg: r.reg(2), Invert: r.u32(5)&1 != 0}
	if r.a.has(3) {
		e.HasDreg, e.Dreg = true, r.reg(3)
		e.Verdict = e.Dreg == rs.VerdictReg
	}
	return one(e)
}

func dynset(d *decoder, r *reader) []rs.Expr {
	e := rs.Dynset{Set: r.a.str(1), SetID: r.u32(2), Op: r.u32(3), SregKey: r.reg(4), Invert: r.u32(9)&1 != 0}
	if r.a.has(5) {
		e.HasData, e.SregData = true, r.reg(5)
	}
	var err error
	if e.Exprs, err = d.nestedExprs(r.a, 7, 10); err != nil {
		return nil
	}
	return one(e)
}

func fib(_ *decoder, r *reader) []rs.Expr {
	return one(rs.Fib{Dreg: r.reg(1), Result: r.u32(2), Flags: r.u32(3)})
}

func rt(_ *decoder, r *reader) []rs.Expr { return one(rs.Rt{Dreg: r.reg(1), Key: r.u32(2)}) }

func socket(_ *decoder, r *reader) []rs.Expr {
	return one(rs.Socket{Key: r.u32(1), Dreg: r.reg(2), Level: r.u32(3)})
}

func nat(_ *decoder, r *reader) []rs.Expr {
	e := rs.Nat{Dst: r.u32(1) == 1, Family: rs.Family(r.u32(2)), Flags: r.u32(7)}
	for _, f := range []struct {
		attr uint16
		reg  *rs.Reg
		has  *bool
	}{{3, &e.AddrMin, &e.HasAddr}, {4, &e.AddrMax, &e.HasAddrMax}, {5, &e.ProtoMin, &e.HasProto}, {6, &e.ProtoMax, &e.HasProtoMax}} {
		if r.a.has(f.attr) {
			*f.reg, *f.has = r.reg(f.attr), true
		}
	}
	return one(e)
}

func redir(_ *decoder, r *reader) []rs.Expr {
	var e rs.Redirect
	if r.a.has(1) {
		e.ProtoMin, e.HasProto = r.reg(1), true
	}
	if r.a.has(2) {
		e.ProtoMax, e.HasProtoMax = r.reg(2), true
	}
	return one(e)
}

func tproxy(_ *decoder, r *reader) []rs.Expr {
	e := rs.TProxy{Family: rs.Family(r.u32(1))}
	if r.a.has(2) {
		e.Addr, e.HasAddr = r.reg(2), true
	}
	if r.a.has(3) {
		e.Port, e.HasPort = r.reg(3), true
	}
	return one(e)
}

func objref(_ *decoder, r *reader) []rs.Expr {
	if r.a.has(3) {
		return one(rs.Objref{Set: r.a.str(4), Sreg: r.reg(3)})
	}
	return one(rs.Objref{Type: r.u32(1), Name: r.a.str(2)})
}

// rateLimit is nft_limit.c: a bucket of packets holds one at least, one of bytes what it
// gains in a unit of time and the burst.
func rateLimit(_ *decoder, r *reader) []rs.Expr {
	l := rs.Limit{Name: "limit", Over: r.u32(5)&1 != 0}
	if bytes := r.u32(4) == 1; bytes {
		rate := r.a.u64(1)
		l.HasRoom, l.Room = true, rate+uint64(r.u32(3))
		if l.Room < rate {
			l.Room = rate
		}
	}
	return one(l)
}

// rateQuota is nft_quota.c: exceeded as soon as the sum of all packets reaches it.
func rateQuota(_ *decoder, r *reader) []rs.Expr {
	l := rs.Limit{Name: "quota", Over: r.u32(2)&1 != 0, HasRoom: true}
	if all, used := r.a.u64(1), r.a.u64(4); used < all {
		l.Room = all - used - 1
	}
	return one(l)
}

// rateConnections is nft_connlimit.c: the packet's own connection counts.
func rateConnections(_ *decoder, r *reader) []rs.Expr {
	return one(rs.Limit{Name: "connlimit", Over: r.u32(2)&1 != 0, HasRoom: r.u32(1) == 0})
}
