package pfdecode

import (
	"bytes"
	"fmt"
	"strings"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// extSyntax is how rules of text write a match or a target, and how it becomes the
// structure of one revision of it.
type extSyntax struct {
	rev     uint32
	size    int
	only    rs.Family            // of one family
	protos  []int                // -p must be one of them: the kernel refuses the rule otherwise
	needs   func(*textExt) []int // the same, where it depends on options
	tables  string               // that it may stand in; any when empty
	opts    map[string]*optSyntax
	init    func(*textExt)
	done    func(*textExt) error
	unknown bool // nobody knows its options
}

// optSyntax is an option: how many values it has, whether it can be negated.
type optSyntax struct {
	n   int
	inv bool
	set func(e *textExt, v []string, not bool) error
}

type setter = func(e *textExt, v string, not bool) error

// value is an option with one value, that cannot be negated.
func value(f func(e *textExt, v string) error) *optSyntax {
	return &optSyntax{n: 1, set: func(e *textExt, v []string, _ bool) error { return f(e, v[0]) }}
}

// negatable is an option with one value.
func negatable(f setter) *optSyntax {
	return &optSyntax{n: 1, inv: true, set: func(e *textExt, v []string, not bool) error { return f(e, v[0], not) }}
}

// flag is an option without a value.
func flag(f func(e *textExt)) *optSyntax {
	return &optSyntax{set: func(e *textExt, _ []string, _ bool) error { f(e); return nil }}
}

// ignored is an option with one value that no packet's way depends on.
var ignored = &optSyntax{n: 1}

func (e *textExt) u16(off int, v uint16)   { e.x.order.PutUint16(e.b[off:], v) }
func (e *textExt) u32(off int, v uint32)   { e.x.order.PutUint32(e.b[off:], v) }
func (e *textExt) be16(off int, v uint16)  { copy(e.b[off:], be16(v)) }
func (e *textExt) get32(off int) uint32    { return e.x.order.Uint32(e.b[off:]) }
func (e *textExt) add16(off int, v uint16) { e.u16(off, e.x.order.Uint16(e.b[off:])|v) }
func (e *textExt) add32(off int, v uint32) { e.u32(off, e.get32(off)|v) }

// bit8 sets a bit, where yes.
func (e *textExt) bit8(off int, bit uint8, yes bool) {
	if yes {
		e.b[off] |= bit
	}
}

// unmodelled are the options of an extension that nobody models, as "name:values …", all
// of which can be negated: a rule must be split into words rightly even so.
func unmodelled(options string) *extSyntax {
	s := &extSyntax{rev: unknownRevision, opts: map[string]*optSyntax{}}
	for _, o := range strings.Fields(options) {
		name, n, _ := strings.Cut(o, ":")
		s.opts["--"+name] = &optSyntax{n: int((n + "0")[0] - '0'), inv: true}
	}
	return s
}

// plain are the options of an extension that has no influence on where packets go.
func plain(options string) *extSyntax {
	s := unmodelled(options)
	s.rev = 0
	return s
}

func (s *extSyntax) in(tables string) *extSyntax { s.tables = tables; return s }
func (s *extSyntax) at(rev uint32) *extSyntax    { s.rev = rev; return s }
func (s *extSyntax) of(f rs.Family) *extSyntax   { s.only = f; return s }
func (s *extSyntax) with(protos ...int) *extSyntax {
	s.protos = protos
	return s
}

// alias gives options further names.
func alias(opts map[string]*optSyntax, pairs ...string) map[string]*optSyntax {
	for i := 0; i+1 < len(pairs); i += 2 {
		opts[pairs[i]] = opts[pairs[i+1]]
	}
	return opts
}

// ports is an option for a range of ports, with a bit for its negation.
func ports(at, invAt int, bit uint8) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		from, to, err := portRange(v, ":")
		e.u16(at, from)
		e.u16(at+2, to)
		e.bit8(invAt, bit, not)
		return err
	})
}

func anyPorts(e *textExt) {
	e.u16(2, 0xffff)
	e.u16(6, 0xffff)
}

// range32Option is an option for a range of 32-bit numbers.
func range32Option(at, flagAt int, flag uint8, invAt int, inv uint8) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		from, to, err := numberRange(v, 32)
		e.u32(at, uint32(from))
		e.u32(at+4, uint32(to))
		e.bit8(flagAt, flag, true)
		e.bit8(invAt, inv, not)
		return err
	})
}

func anyRange32(at int) func(*textExt) { return func(e *textExt) { e.u32(at+4, ^uint32(0)) } }

// markOption is "--mark VALUE[/MASK]" of mark and connmark.
var markOption = negatable(func(e *textExt, v string, not bool) error {
	value, mask, err := valueMask(v, 32, 1<<32-1)
	e.u32(0, value)
	e.u32(4, mask)
	e.bit8(8, 1, not)
	return err
})

// hop is --ttl-eq and its like.
func hop(mode uint8) *optSyntax {
	return &optSyntax{n: 1, inv: mode == 0, set: func(e *textExt, v []string, not bool) error {
		n, err := number(v[0], 8)
		e.b[0], e.b[1] = mode, byte(n)
		if not {
			e.b[0] = 1
		}
		return err
	}}
}

func hopOptions(name string) map[string]*optSyntax {
	return map[string]*optSyntax{"--" + name: hop(0), "--" + name + "-eq": hop(0), "--" + name + "-lt": hop(2), "--" + name + "-gt": hop(3)}
}

// portList is an option of multiport.
func portList(kind uint8) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		e.b[0] = kind
		e.bit8(47, 1, not)
		n := 0
		for _, w := range strings.Split(v, ",") {
			from, to, err := portRange(w, ":")
			if err != nil {
				return err
			}
			slots := 1
			if from != to {
				slots = 2
			}
			if n+slots > 15 {
				return fmt.Errorf("more than 15 ports: split the rule, or use an ipset")
			}
			e.u16(2+2*n, from)
			if slots == 2 {
				e.b[32+n] = 1
				e.u16(4+2*n, to)
			}
			n += slots
		}
		e.b[1] = byte(n)
		return nil
	})
}

// addrRange is an option of iprange.
func addrRange(dst int) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		a, b, ok := strings.Cut(v, "-")
		if !ok {
			b = a
		}
		from, err := e.x.host(a, false)
		if err != nil {
			return err
		}
		to, err := e.x.host(b, false)
		if err == nil && bytes.Compare(from, to) > 0 {
			err = fmt.Errorf("the range ends before it begins")
		}
		copy(e.b[32*dst:], from)
		copy(e.b[32*dst+16:], to)
		e.b[64] |= 1 << dst
		e.bit8(64, 1<<(4+dst), not)
		return err
	})
}

// owner is an option for users or groups.
func owner(k int, root string) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		a, b, ok := strings.Cut(v, "-")
		if !ok {
			b = a
		}
		from, err1 := number(a, 32)
		to, err2 := number(b, 32)
		switch {
		case v == root:
			from, to = 0, 0
		case err1 != nil || err2 != nil:
			e.opaque = "the number of " + v
		case from > to:
			return fmt.Errorf("the range ends before it begins")
		}
		e.u32(8*k, uint32(from))
		e.u32(8*k+4, uint32(to))
		e.b[16] |= 1 << k
		e.bit8(17, 1<<k, not)
		return nil
	})
}

// ctAddr is an option for an address of the connection.
func ctAddr(k int) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		a, err := e.x.address(v)
		if _, mask, _ := strings.Cut(v, "/"); strings.ContainsAny(mask, ":.") {
			e.opaque = "mask " + mask // iptables makes another one of it
		}
		copy(e.b[32*k:], a.addr)
		copy(e.b[32*k+16:], a.mask)
		e.ctFlag(xtctOrigSrc<<k, not)
		return err
	})
}

func ctPort(k int) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		from, to, err := portRange(v, ":")
		e.u16(138+2*k, from)
		e.u16(154+2*k, to)
		e.ctFlag(xtctPorts<<k, not)
		return err
	})
}

func (e *textExt) ctFlag(bit uint16, not bool) {
	e.add16(146, bit)
	if not {
		e.add16(148, bit)
	}
}

var ctStateOption = negatable(func(e *textExt, v string, not bool) error {
	m, err := bitsOf(ctStates, v)
	e.u16(150, m)
	e.ctFlag(xtctState, not)
	return err
})

// addrTypeOption is an option of addrtype.
func addrTypeOption(dst int) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		m, err := bitsOf(addrTypes, v)
		e.u16(2*dst, m)
		if not {
			e.add32(4, 1<<dst)
		}
		return err
	})
}

// headerLength is --hbh-len and its like.
func headerLength(at, flagAt int, flag uint8, invAt int, inv uint8) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		n, err := number(v, 32)
		e.u32(at, uint32(n))
		e.bit8(flagAt, flag, true)
		e.bit8(invAt, inv, not)
		return err
	})
}

// beyond is an option that makes the whole match not understood.
func beyond(n int, why string) *optSyntax {
	return &optSyntax{n: n, inv: true, set: func(e *textExt, _ []string, _ bool) error { e.opaque = why; return nil }}
}

// rate reads "10/minute", "5/s", and with bytes "512kb/s".
func rate(v string) (byBytes bool, err error) {
	n, unit, has := strings.Cut(v, "/")
	if i := strings.IndexFunc(n, func(c rune) bool { return c < '0' || c > '9' }); i > 0 {
		switch n[i:] {
		case "b", "kb", "mb":
			byBytes, n = true, n[:i]
		}
	}
	if x, err := number(n, 32); err != nil || x == 0 && !byBytes {
		return false, fmt.Errorf("%q is no rate", v)
	}
	ok := !has
	for _, u := range []string{"second", "minute", "hour", "day"} {
		ok = ok || unit != "" && strings.HasPrefix(u, strings.ToLower(unit))
	}
	if !ok && unit != "sec" && unit != "min" {
		return false, fmt.Errorf("%q is no rate", v)
	}
	return byBytes, nil
}

func hashRate(over bool) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		byBytes, err := rate(v)
		if over != not {
			e.add32(272, 1<<4)
		}
		if byBytes {
			e.add32(272, 1<<5)
		}
		return err
	})
}
