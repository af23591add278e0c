package reach

import (
	"encoding/binary"
	"slices"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// maxPortCuts bounds the classes of ports.
const maxPortCuts = 1024

// portCuts are the ports where rules may begin to treat destination ports differently.
// Between two of them all ports are alike, unless rough: then a rule looks at ports in
// another way than by comparing them, or there are too many.
type portCuts struct {
	at    map[uint16]bool
	rough bool
}

func (c *portCuts) add(from, to []byte) {
	if len(from) != 2 || len(to) != 2 {
		c.rough = true
		return
	}
	if c.at == nil {
		c.at = map[uint16]bool{}
	}
	if p := binary.BigEndian.Uint16(from); p > 1 {
		c.at[p] = true
	}
	if p := binary.BigEndian.Uint16(to); p > 0 && p < 65535 {
		c.at[p+1] = true
	}
	if len(c.at) > maxPortCuts {
		c.rough = true
		clear(c.at)
	}
}

func (c *portCuts) join(o *portCuts) {
	c.rough = c.rough || o.rough
	for p := range o.at {
		c.add(binary.BigEndian.AppendUint16(nil, p), []byte{0xff, 0xff})
	}
}

// classes are all ports, cut.
func (c *portCuts) classes() []Range {
	starts := []uint16{1}
	for p := range c.at {
		starts = append(starts, p)
	}
	slices.Sort(starts)
	out := make([]Range, len(starts))
	for i, p := range starts {
		out[i] = Range{p, 65535}
		if i+1 < len(starts) {
			out[i].To = starts[i+1] - 1
		}
	}
	return out
}

// rule notes what one rule tells apart.
func (c *portCuts) rule(t *rs.Table, r *rs.Rule) { (&portReader{c: c, t: t}).run(r.Exprs) }

// portReader follows which registers hold a destination port, and nothing else.
type portReader struct {
	c     *portCuts
	t     *rs.Table
	holds [16]bool
	asked bool // the rule looked at the protocol of the network layer
}

func (x *portReader) set(r rs.Reg, n int, port bool) {
	for i := range (n + 3) / 4 {
		if k := int(r) + i; k < len(x.holds) {
			x.holds[k] = port
		}
	}
}

// reads tells whether any of some bytes are a port, and whether they are exactly that.
func (x *portReader) reads(r rs.Reg, n int) (any, exactly bool) {
	for i := range (n + 3) / 4 {
		if k := int(r) + i; k < len(x.holds) && x.holds[k] {
			any = true
		}
	}
	return any, any && n == 2
}

// other notes that a port is used otherwise than in a comparison.
func (x *portReader) other(r rs.Reg, n int) {
	if any, _ := x.reads(r, n); any {
		x.c.rough = true
	}
}

const wholeReg = 16 // bytes: of loads whose length does not matter

func (x *portReader) run(exprs []rs.Expr) {
	for _, e := range exprs {
		switch e := e.(type) {
		case rs.Payload:
			x.payload(e)
		case rs.Meta:
			x.asked = x.asked || e.Key == metaNFProto || e.Key == metaProtocol
			x.set(e.Dreg, wholeReg, false)
		case rs.Ct:
			port := e.Key == ctProtoSrc || e.Key == ctProtoDst
			x.set(e.Dreg, wholeReg, false)
			x.set(e.Dreg, 2, port)
		case rs.Exthdr:
			x.set(e.Dreg, int(min(e.Len, 64)), false)
			if e.Present {
				x.set(e.Dreg, 1, false)
			}
		case rs.Fib:
			x.set(e.Dreg, wholeReg, false)
		case rs.Rt:
			x.set(e.Dreg, wholeReg, false)
		case rs.Socket:
			x.set(e.Dreg, wholeReg, false)
		case rs.Random:
			x.set(e.Dreg, 4, false)
		case rs.Immediate:
			x.set(e.Dreg, len(e.Data), false)
		case rs.Bitwise:
			x.other(e.Sreg, int(min(e.Len, 64)))
			if e.HasSreg2 {
				x.other(e.Sreg2, int(min(e.Len, 64)))
			}
			x.set(e.Dreg, int(min(e.Len, 64)), false)
		case rs.Byteorder:
			x.other(e.Sreg, int(min(e.Len, 64)))
			x.set(e.Dreg, int(min(e.Len, 64)), false)
		case rs.Cmp:
			if any, exactly := x.reads(e.Sreg, len(e.Data)); exactly {
				x.c.add(e.Data, e.Data)
			} else if any {
				x.c.rough = true
			}
		case rs.Range:
			if any, exactly := x.reads(e.Sreg, len(e.From)); exactly {
				x.c.add(e.From, e.To)
			} else if any {
				x.c.rough = true
			}
		case rs.Lookup:
			x.lookup(e)
		case rs.MetaSet:
			x.other(e.Sreg, 4)
		case rs.CtSet:
			x.other(e.Sreg, wholeReg)
		case rs.Objref:
			if e.Set != "" {
				x.other(e.Sreg, 64)
			}
		case rs.Any:
			for _, p := range e.Of {
				(&portReader{c: x.c, t: x.t, asked: x.asked}).run(p)
			}
		case rs.HotDrop:
			(&portReader{c: x.c, t: x.t, asked: x.asked}).run(e.When)
		}
	}
}

func (x *portReader) payload(e rs.Payload) {
	x.set(e.Dreg, int(min(e.Len, 64)), false)
	end := uint64(e.Offset) + uint64(e.Len)
	switch e.Base {
	case rs.TransportHeader:
		switch {
		case e.Offset == 2 && e.Len == 2:
			x.set(e.Dreg, 2, true)
		case e.Offset < 4 && end > 2:
			x.c.rough = true
		}
	case rs.NetworkHeader: // past its end are the ports
		long := uint64(40)
		if x.t.Family == rs.IPv4 || x.t.Family != rs.IPv6 && !x.asked {
			long = 20
		}
		if end > long {
			x.c.rough = true
		}
	case rs.InnerHeader: // nobody understands what it loads
	}
}

func (x *portReader) lookup(e rs.Lookup) {
	s := x.t.Sets[e.Set]
	if s != nil {
		fields := s.Concat
		if len(fields) < 2 {
			fields = []int{s.KeyLen}
		}
		off, reg := 0, e.Sreg
		for _, n := range fields {
			any, exactly := x.reads(reg, n)
			if any && !exactly {
				x.c.rough = true
			}
			for i := range s.Elements {
				el := &s.Elements[i]
				if !exactly || el.CatchAll {
					continue
				}
				if len(el.From) < off+2 || len(el.To) < off+2 {
					x.c.rough = true
					break
				}
				x.c.add(el.From[off:off+2], el.To[off:off+2])
			}
			off, reg = off+(n+3)&^3, reg+rs.Reg((n+3)/4)
		}
	}
	if e.HasDreg && !e.Verdict {
		x.set(e.Dreg, 64, false)
	}
}
