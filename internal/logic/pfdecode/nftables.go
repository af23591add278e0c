package pfdecode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Dump is one generation of nf_tables as messages (nfgenmsg and attributes).
type Dump struct {
	Tables, Chains, Rules, Sets, Elements, Objects [][]byte
	// Incomplete are the sets whose elements were not all read, and why.
	Incomplete map[SetID]string
	Order      binary.ByteOrder // of the host that dumped: attribute headers, meta values
	// IPSets are the sets that "match set" and "target SET" name by number; nil when
	// they were not read.
	IPSets *IPSets
}

// SetID names a set.
type SetID struct {
	Family      rs.Family
	Table, Name string
}

// NFTables decodes a dump. An expression that is not understood becomes Opaque;
// a message that cannot be decoded at all is an error, since what it said is lost.
func NFTables(d Dump) ([]*rs.Table, error) {
	dec := decoder{order: d.Order, ipsets: d.IPSets, tables: map[tableKey]*rs.Table{}, chains: map[chainKey]*rs.Chain{}, lower: &sync.Mutex{}}
	steps := []struct {
		what string
		msgs [][]byte
		f    func(family uint8, a attrs) error
	}{
		{"table", d.Tables, dec.table},
		{"chain", d.Chains, dec.chain},
		{"set", d.Sets, dec.set},
		{"elements", d.Elements, dec.elements},
		{"object", d.Objects, dec.object},
	}
	for _, s := range steps {
		if s.what == "elements" {
			dec.room(s.msgs)
		}
		for i, m := range s.msgs {
			if len(m) < 4 {
				return nil, fmt.Errorf("decode nf_tables %s %d: message of %d bytes", s.what, i, len(m))
			}
			a, err := parse(m[4:], d.Order)
			if err == nil {
				err = s.f(m[0], a)
			}
			a.free()
			if err != nil {
				return nil, fmt.Errorf("decode nf_tables %s %d: %w", s.what, i, err)
			}
		}
	}
	if err := dec.rules(d.Rules); err != nil {
		return nil, err
	}
	for id, why := range d.Incomplete {
		if t := dec.tables[tableKey{id.Family, id.Table}]; t != nil {
			if s := t.Sets[id.Name]; s != nil {
				s.Complete, s.Why = false, why
			}
		}
	}
	// A set without a name always holds something: a dump in which one is empty, such
	// as one from before elements were read, holds the elements of no set.
	read := len(d.Elements) > 0
	for _, t := range dec.list {
		for _, s := range t.Sets {
			if s.Anonymous && len(s.Elements) == 0 {
				s.Complete = false
			}
			if !read && hasAnonymous(dec.list) {
				s.Complete = false
			}
			if !dec.joined(s) {
				finishSet(s)
			}
		}
	}
	return dec.list, nil
}

func hasAnonymous(ts []*rs.Table) bool {
	for _, t := range ts {
		for _, s := range t.Sets {
			if s.Anonymous {
				return true
			}
		}
	}
	return false
}

type tableKey struct {
	family rs.Family
	name   string
}

type chainKey struct {
	tableKey
	chain string
}

type decoder struct {
	order  binary.ByteOrder
	tables map[tableKey]*rs.Table
	chains map[chainKey]*rs.Chain
	list   []*rs.Table
	joins  map[*rs.Set]*join // of interval sets
	// current is the table of the rule that is decoded; nil outside rules.
	current *rs.Table
	comment string // of a "match comment" in that rule
	ipsets  *IPSets

	// Of rules, see there.
	last   lastChain
	cache  []cached
	exprs  []rs.Expr // of the rule that is decoded
	chunk  []rs.Expr // where those of rules are kept
	compat bool      // the last expression was one of x_tables
	lower  *sync.Mutex
	keeper keeper
	read   reader
}

func (d *decoder) find(family uint8, name string) (*rs.Table, error) {
	t := d.tables[tableKey{rs.Family(family), name}]
	if t == nil {
		return nil, fmt.Errorf("no table %s %q", rs.Family(family), name)
	}
	return t, nil
}

func (d *decoder) table(family uint8, a attrs) error {
	flags, err := a.u32(2)
	if err != nil {
		return err
	}
	t := &rs.Table{
		Family: rs.Family(family), Name: a.str(1), Dormant: flags&1 != 0, Owner: flags&2 != 0,
		Sets: map[string]*rs.Set{}, Objects: map[string]*rs.Object{},
	}
	d.tables[tableKey{t.Family, t.Name}] = t
	d.list = append(d.list, t)
	return nil
}

func (d *decoder) chain(family uint8, a attrs) error {
	t, err := d.find(family, a.str(1))
	if err != nil {
		return err
	}
	c := &rs.Chain{Table: t, Name: a.str(3), Handle: a.u64(2)}
	if nest := a[4]; nest != nil {
		h, err := parse(nest, d.order)
		if err != nil {
			return err
		}
		if !h.has(1) {
			return fmt.Errorf("hook of chain %q without a number", c.Name)
		}
		num, err := h.u32(1)
		if err != nil {
			return err
		}
		prio, err := h.u32(2)
		if err != nil {
			return err
		}
		policy := uint32(rs.Accept)
		if a.has(5) {
			if policy, err = a.u32(5); err != nil {
				return err
			}
		}
		b := &rs.Base{Type: a.str(7), Hook: hookOf(t.Family, num), Priority: int32(prio), Policy: rs.Verdict(policy)}
		if h.has(3) {
			b.Devices = append(b.Devices, h.str(3))
		}
		if err := walk(h[4], d.order, func(_ uint16, v []byte) { b.Devices = append(b.Devices, cstring(v)) }); err != nil {
			return err
		}
		c.Base = b
	}
	d.chains[chainKey{tableKey{t.Family, t.Name}, c.Name}] = c
	t.Chains = append(t.Chains, c)
	return nil
}

// hookOf maps the kernel's hook numbers: netdev counts its own, inet has
// ingress as 5.
func hookOf(f rs.Family, n uint32) rs.Hook {
	switch {
	case f == rs.Netdev && n == 0, f == rs.Inet && n == 5:
		return rs.Ingress
	case f == rs.Netdev && n == 1:
		return rs.Egress
	}
	return rs.Hook(min(n, 255))
}

func (d *decoder) set(family uint8, a attrs) error {
	t, err := d.find(family, a.str(1))
	if err != nil {
		return err
	}
	r := reader{a: a}
	flags := r.u32(3)
	s := &rs.Set{
		Name: a.str(2), ID: r.u32(10),
		Anonymous: flags&1 != 0, Constant: flags&2 != 0, Interval: flags&4 != 0, Map: flags&8 != 0,
		Timeout: flags&0x10 != 0, Dynamic: flags&0x20 != 0, Object: r.u32(15),
		KeyType: r.u32(4), KeyLen: int(r.u32(5)), DataType: r.u32(6), DataLen: int(r.u32(7)),
		Complete: true,
	}
	s.Verdict = s.Map && s.DataType == 0xffffff00
	if r.err != nil {
		return r.err
	}
	if desc := a[9]; desc != nil {
		da, err := parse(desc, d.order)
		if err != nil {
			return err
		}
		if s.Size, err = da.u32(1); err != nil {
			return err
		}
		var bad error
		err = walk(da[2], d.order, func(_ uint16, v []byte) {
			f, err := parse(v, d.order)
			n, err2 := f.u32(1)
			if err != nil || err2 != nil || n == 0 || n > 64 {
				bad = fmt.Errorf("field length of set %q", s.Name)
				return
			}
			s.Concat = append(s.Concat, int(n))
		})
		if err != nil || bad != nil {
			return fmt.Errorf("set %q: %w", s.Name, firstErr(err, bad))
		}
	}
	if s.Exprs, err = d.nestedExprs(a, 17, 18); err != nil {
		return err
	}
	t.Sets[s.Name] = s
	return nil
}

func firstErr(errs ...error) error {
	for _, e := range errs {
		if e != nil {
			return e
		}
	}
	return nil
}

// nestedExprs reads the stateful expressions of a set, element or dynset: one
// (attribute single) or a list (attribute many).
func (d *decoder) nestedExprs(a attrs, single, many uint16) ([]rs.Expr, error) {
	var out []rs.Expr
	add := func(v []byte) error {
		e, err := d.expr(v)
		if err == nil {
			out = append(out, e...)
		}
		return err
	}
	if v := a[single]; v != nil {
		if err := add(v); err != nil {
			return nil, err
		}
	}
	var bad error
	err := walk(a[many], d.order, func(_ uint16, v []byte) {
		if err := add(v); err != nil {
			bad = err
		}
	})
	return out, firstErr(err, bad)
}

// elemAttrs is above every attribute of an element that is read here.
const elemAttrs = 12

// NFT_SET_ELEM_*.
const (
	elemIntervalEnd = 1
	elemCatchAll    = 2
)

func (d *decoder) elements(family uint8, a attrs) error {
	t, err := d.find(family, a.str(1))
	if err != nil {
		return err
	}
	s := t.Sets[a.str(2)]
	if s == nil {
		return fmt.Errorf("elements of unknown set %q", a.str(2))
	}
	return d.elementsOf(s, a[3])
}

func (d *decoder) element(b []byte) (e rs.Element, err error) {
	var list [elemAttrs][]byte // on the stack: there may be a million of them
	a := attrs(list[:])
	err = walk(b, d.order, func(t uint16, v []byte) {
		if t < elemAttrs {
			a[t] = v
		}
	})
	if err != nil {
		return e, err
	}
	flags, err := a.u32(3)
	if err != nil {
		return e, err
	}
	e = rs.Element{CatchAll: flags&elemCatchAll != 0, Expires: aboutToGo(a)}
	if e.From, err = d.dataValue(a[1]); err != nil {
		return e, err
	}
	if v := a[10]; v != nil {
		if e.To, err = d.dataValue(v); err != nil {
			return e, err
		}
	}
	if flags&elemIntervalEnd != 0 {
		// Kept as a marker until finishSet joins it with its start.
		e.Verdict = markerEnd
	} else if v := a[2]; v != nil {
		if err := d.elementData(&e, v); err != nil {
			return e, err
		}
	}
	e.Exprs, err = d.nestedExprs(a, 7, 11)
	return e, err
}

// markerEnd marks an interval end between decoding and finishSet.
const markerEnd = rs.Verdict(-1000)

func (d *decoder) elementData(e *rs.Element, b []byte) error {
	a, err := parse(b, d.order)
	defer a.free()
	if err != nil {
		return err
	}
	if v := a[1]; v != nil {
		e.Data = d.keeper.keep(v)
		return nil
	}
	if v := a[2]; v != nil {
		e.Verdict, e.Chain, err = d.verdict(v)
		e.HasVerdict = err == nil
		return err
	}
	return fmt.Errorf("element data is neither value nor verdict")
}

func (d *decoder) dataValue(b []byte) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	var value []byte
	err := walk(b, d.order, func(t uint16, v []byte) {
		if t == 1 { // NFTA_DATA_VALUE
			value = v
		}
	})
	return d.keeper.keep(value), err
}

func (d *decoder) verdict(b []byte) (rs.Verdict, string, error) {
	a, err := parse(b, d.order)
	defer a.free()
	if err != nil {
		return 0, "", err
	}
	if !a.has(1) {
		return 0, "", fmt.Errorf("verdict without a code")
	}
	code, err := a.u32(1)
	return rs.Verdict(int32(code)), a.str(2), err
}

// finishSet turns the kernel's list of interval starts and exclusive ends into
// inclusive intervals. An interval without an end runs to the last key.
func finishSet(s *rs.Set) {
	if !s.Interval {
		for i := range s.Elements {
			if s.Elements[i].To == nil {
				s.Elements[i].To = s.Elements[i].From
			}
		}
		return
	}
	if len(s.Concat) > 1 { // pipapo: From and To are both there, inclusive
		for i := range s.Elements {
			if s.Elements[i].To == nil {
				s.Elements[i].To = s.Elements[i].From
			}
		}
		return
	}
	es := s.Elements
	slices.SortStableFunc(es, func(a, b rs.Element) int {
		if c := slices.Compare(a.From, b.From); c != 0 {
			return c
		}
		// An end at the key where the next interval starts comes first.
		return int(b2i(b.Verdict == markerEnd)) - int(b2i(a.Verdict == markerEnd))
	})
	var out []rs.Element
	open := -1
	for _, e := range es {
		if e.CatchAll {
			out = append(out, e)
			continue
		}
		if open >= 0 {
			out[open].To = before(e.From)
			open = -1
		}
		if e.Verdict == markerEnd {
			continue
		}
		if e.To == nil {
			open = len(out)
		}
		out = append(out, e)
	}
	if open >= 0 {
		out[open].To = slices.Repeat([]byte{0xff}, len(out[open].From))
	}
	s.Elements = out
}

func b2i(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// before is key-1 in big-endian arithmetic.
func before(key []byte) []byte {
	out := slices.Clone(key)
	decrement(out)
	return out
}

func decrement(out []byte) {
	for i := len(out) - 1; i >= 0; i-- {
		out[i]--
		if out[i] != 0xff {
			break
		}
	}
}

func (d *decoder) object(family uint8, a attrs) error {
	t, err := d.find(family, a.str(1))
	if err != nil {
		return err
	}
	typ, err := a.u32(3)
	if err != nil {
		return err
	}
	o := &rs.Object{Name: a.str(2), Type: typ, Data: bytes.Clone(a[4])}
	if name := map[uint32]string{2: "quota", 4: "limit", 5: "connlimit"}[typ]; name != "" {
		oa, err := parse(a[4], d.order)
		if err != nil {
			return fmt.Errorf("object %q: %w", o.Name, err)
		}
		r := &reader{a: oa}
		if l, ok := exprs[name](d, r)[0].(rs.Limit); ok && r.err == nil {
			o.Rate = &l
		}
	}
	t.Objects[fmt.Sprintf("%d/%s", typ, o.Name)] = o
	return nil
}

// aboutToGo tells whether an element may be gone soon after the dump: its expiration is
// in milliseconds.
func aboutToGo(a attrs) bool {
	const timeout, expiration = 4, 5 // NFTA_SET_ELEM_*
	if b := a[expiration]; len(b) == 8 {
		return binary.BigEndian.Uint64(b) < staysSeconds*1000
	}
	return a.has(timeout) || a.has(expiration)
}
