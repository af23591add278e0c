package reach

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// maxElements bounds the elements of an anonymous set that are spelled out.
const maxElements = 4096

func (w *shaper) lookup(e rs.Lookup) {
	s := w.r.Chain.Table.Sets[e.Set]
	if e.HasDreg && !e.Verdict || s == nil || w.dynamic[s] || s.Dynamic {
		w.clear(e.Dreg, 16)
		w.unknown()
		if e.Verdict {
			w.opaqueMap(s)
		}
		return
	}
	if !s.Anonymous || !s.Complete || len(s.Elements) > maxElements || slices.ContainsFunc(s.Elements, func(el rs.Element) bool { return el.Expires || len(el.Exprs) > 0 }) || len(s.Exprs) > 0 {
		w.s.named = true
		if e.Verdict {
			w.unknown()
			w.opaqueMap(s)
			return
		}
		w.membership(e, s)
		return
	}
	if e.Verdict {
		w.vmap(e, s)
		return
	}
	if len(s.Concat) > 1 {
		w.membership(e, s)
		return
	}
	w.values(e.Sreg, func(l loaded) (packetset.Set, bool) {
		in, ok := w.elements(l, s)
		if ok && e.Invert {
			in = w.x.not(l.field, in)
		}
		return in, ok
	})
}

func (w *shaper) elements(l loaded, s *rs.Set) (packetset.Set, bool) {
	var ivs []packetset.Interval
	for i := range s.Elements {
		el := &s.Elements[i]
		if el.CatchAll {
			return w.x.list[l.field].all, true
		}
		in, ok := w.span(l, el.From, el.To)
		if !ok {
			return nil, false
		}
		ivs = append(ivs, in...)
	}
	return packetset.Normalise(ivs), true
}

// membership is a field of its own: in the set, or not.
func (w *shaper) membership(e rs.Lookup, s *rs.Set) {
	var keys []string
	r := e.Sreg
	lens := s.Concat
	if len(lens) < 2 {
		lens = []int{s.KeyLen}
	}
	kind, lasting := "", true
	for _, n := range lens {
		l, ok := w.regs[r]
		if !ok || l.mask != nil {
			w.unknown()
			return
		}
		f := &w.x.list[l.field]
		keys = append(keys, fmt.Sprintf("%s:%d", f.name, l.n))
		if !f.lasting {
			kind, lasting = "payload", false
			if f.kind != "payload" {
				kind = f.kind
			}
		}
		r += rs.Reg((n + 3) / 4)
	}
	name := "@" + s.Name
	if s.Anonymous {
		name = elementsText(s)
	}
	f := w.x.id(strings.Join(keys, " . ")+" in "+name, 1)
	w.x.list[f].kind, w.x.list[f].lasting = kind, lasting
	v := uint64(1)
	if e.Invert {
		v = 0
	}
	w.test(f, points(v))
}

func elementsText(s *rs.Set) string {
	var b strings.Builder
	for _, e := range s.Elements {
		fmt.Fprintf(&b, "%x-%x ", e.From, e.To)
	}
	return b.String()
}

// vmap ends the rule by the values of a field.
func (w *shaper) vmap(e rs.Lookup, s *rs.Set) {
	l, ok := w.regs[e.Sreg]
	if !ok || len(s.Concat) > 1 {
		w.unknown()
		w.opaqueMap(s)
		w.done = true
		return
	}
	var all, rest []packetset.Interval
	var catch *rs.Element
	for i := range s.Elements {
		el := &s.Elements[i]
		if el.CatchAll {
			catch = el
			continue
		}
		in, ok := w.span(l, el.From, el.To)
		if !ok {
			w.unknown()
			w.opaqueMap(s)
			w.done = true
			return
		}
		all = append(all, in...)
		if el.Verdict == rs.Continue || el.Verdict == rs.Break {
			rest = append(rest, in...)
			continue
		}
		w.end(w.box.with(l.field, in), el.Verdict, el.Chain)
	}
	if catch != nil {
		other := w.x.not(l.field, packetset.Normalise(all))
		if catch.Verdict != rs.Continue && catch.Verdict != rs.Break {
			w.end(w.box.with(l.field, other), catch.Verdict, catch.Chain)
		}
	} else {
		w.test(l.field, packetset.Normalise(all))
	}
	w.done = len(rest) == 0
	if !w.done {
		w.unknown()
	}
}

// opaqueMap ends the rule in ways that may change.
func (w *shaper) opaqueMap(s *rs.Set) {
	if s == nil {
		return
	}
	for i := range s.Elements {
		if el := &s.Elements[i]; el.Verdict != rs.Continue && el.Verdict != rs.Break {
			w.end(w.box, el.Verdict, el.Chain)
		}
	}
}

// derive adds what connection tracking says of ICMP: an error is related to a flow or
// invalid, neighbour discovery and MLD are never tracked (nf_conntrack_icmpv6_error,
// nf_conntrack_icmpv4_error).
func (w *shaper) derive() {
	types, ok := w.box.get(w.x.id("payload 2 0 1", 1))
	if !ok || w.s.effects {
		return
	}
	l4, _ := w.x.meta(metaL4Proto)
	next, proto := w.x.id("payload 1 6 1", 1), w.x.id("payload 1 9 1", 1)
	nf, _ := w.x.meta(metaNFProto)
	within := func(in ...uint64) bool { return len(types) > 0 && slices.Equal(types.Intersect(points(in...)), types) }
	if _, post := w.box.get(w.x.id("after conntrack", 1)); !post {
		return
	}
	ct := w.x.ctState()
	switch {
	case w.only(nf, uint64(rs.IPv6)) && (w.only(l4, 58) || w.only(next, 58)):
		switch {
		case within(1, 2, 3, 4):
			w.box = w.box.with(ct, points(CtRelated, CtInvalid))
		case within(130, 131, 132, 133, 134, 135, 136, 143):
			w.box = w.box.with(ct, points(CtUntracked))
		}
	case w.only(nf, uint64(rs.IPv4)) && (w.only(l4, 1) || w.only(proto, 1)):
		if within(3, 11, 12) {
			w.box = w.box.with(ct, points(CtRelated, CtInvalid))
		}
	}
}
