package draft

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// access is who reaches a port over one family today.
type access struct {
	takes   bool // it takes packets of this family
	any     bool // everybody whom the kernel lets in
	from    []netip.Prefix
	kept    []netip.Prefix // single senders amid these, whom other rules keep out
	words   string
	maybe   bool
	long    bool
	limited bool
	set     packetset.Set // of all of them
	but     string        // whom other rules keep out of everybody
}

func (a access) closed() bool { return !a.takes || !a.any && len(a.from) == 0 }

// takesOrNot tells that b lets in everybody, or somebody where a lets in nobody.
func (a access) takesOrNot(b access) bool {
	return b.any && !a.any || a.closed() && !b.closed()
}

// same tells that two let in the same.
func (a access) same(b access) bool {
	return a.closed() && b.closed() || a.any == b.any && slices.Equal(a.from, b.from)
}

// way is by which interfaces a port is reached alike; no interfaces are all.
type way struct {
	interfaces []string
	a4, a6     access
}

// ways sorts the interfaces by who gets in by them. shut are those by which nobody does,
// when there are others.
func (d *drafting) ways(v4, v6 []reach.V, loops map[string]bool) (out []way, shut []string) {
	type door struct {
		name     string
		has4     bool
		has6     bool
		a4, a6   access
		assigned bool
	}
	var doors []door
	for _, v := range slices.Concat(v4, v6) {
		for _, n := range v.Interfaces {
			if !loops[n] && !slices.ContainsFunc(doors, func(x door) bool { return x.name == n }) {
				doors = append(doors, door{name: n})
			}
		}
	}
	slices.SortFunc(doors, func(a, b door) int { return strings.Compare(a.name, b.name) })
	by := func(vs []reach.V, n string) (here []reach.V) {
		for _, v := range vs {
			if len(v.Interfaces) == 0 || slices.Contains(v.Interfaces, n) {
				v.Interfaces = []string{n}
				here = append(here, v)
			}
		}
		return here
	}
	for i := range doors {
		x := &doors[i]
		w4, w6 := by(v4, x.name), by(v6, x.name)
		x.has4, x.has6 = len(w4) > 0, len(w6) > 0
		x.a4, x.a6 = d.access(w4, true, loops), d.access(w6, false, loops)
	}
	any4 := slices.ContainsFunc(doors, func(x door) bool { return x.a4.any })
	any6 := slices.ContainsFunc(doors, func(x door) bool { return x.a6.any })
	for i := range doors {
		x := &doors[i]
		x.a4, x.a6 = d.comingBy(x.name, x.a4, true, any4), d.comingBy(x.name, x.a6, false, any6)
	}
	for i := range doors {
		x := &doors[i]
		if x.assigned {
			continue
		}
		w := way{a4: x.a4, a6: x.a6}
		has4, has6 := x.has4, x.has6
		for j := i; j < len(doors); j++ {
			y := &doors[j]
			// What has no address of a family answers nobody over it, and like any other.
			if y.assigned || has4 && y.has4 && !w.a4.same(y.a4) || has6 && y.has6 && !w.a6.same(y.a6) {
				continue
			}
			if !has4 && y.has4 {
				w.a4, has4 = y.a4, true
			}
			if !has6 && y.has6 {
				w.a6, has6 = y.a6, true
			}
			y.assigned = true
			w.interfaces = append(w.interfaces, y.name)
		}
		out = append(out, w)
	}
	if len(out) == 1 {
		out[0].interfaces, out[0].a4, out[0].a6 = nil, d.access(v4, true, loops), d.access(v6, false, loops)
		return out, nil
	}
	for _, w := range out {
		if w.a4.closed() && w.a6.closed() {
			shut = append(shut, w.interfaces...)
		}
	}
	out = slices.DeleteFunc(out, func(w way) bool { return w.a4.closed() && w.a6.closed() })
	for i := range out {
		// A service names interfaces that the file has; the others have no address.
		out[i].interfaces = slices.DeleteFunc(out[i].interfaces, func(n string) bool { _, ok := d.Intent.Interfaces[n]; return !ok })
	}
	out = slices.DeleteFunc(out, func(w way) bool { return len(w.interfaces) == 0 })
	return out, shut
}

// comingBy is an access for those who can come by an interface: those to whom the routes
// lead by it. Where the kernel holds sources to the routes nobody else does, and what it
// leaves of everybody is no rule; nor is it one that only others than they are let in.
func (d *drafting) comingBy(iface string, a access, is4, anyElsewhere bool) access {
	can := d.routed(iface, is4)
	if a.closed() || len(can) == 0 {
		return a
	}
	in := can.Intersect(a.set)
	out := can.Intersect(packetset.Normalise(append(d.own(is4), a.set...)).Complement(is4)) // its own senders are no strangers
	switch {
	case len(in) == 0:
		a.any, a.from, a.kept, a.words = false, nil, nil, "nobody who can come by it"
	case anyElsewhere && !a.any && !slices.ContainsFunc(out, func(i packetset.Interval) bool { return i.From != i.To }) && len(out) <= 2*len(can): // network and broadcast addresses
		a.any, a.from, a.kept = true, nil, nil
	}
	return a
}

// own are the addresses of this host.
func (d *drafting) own(is4 bool) (out []packetset.Interval) {
	for _, x := range d.addrs {
		if ip := x.Prefix.Addr(); ip.Is4() == is4 {
			out = append(out, packetset.PrefixInterval(netip.PrefixFrom(ip, ip.BitLen())))
		}
	}
	return out
}

// routed are the addresses that the routes lead to by an interface.
func (d *drafting) routed(iface string, is4 bool) packetset.Set {
	index := 0
	for i := range d.links {
		if d.links[i].Name == iface {
			index = d.links[i].Index
		}
	}
	var here, there []packetset.Interval
	least := 128
	for _, r := range d.routes {
		if r.Dst.Addr().Is4() != is4 || r.Type != unicast || r.Table == localTable || r.Dst.Addr().IsMulticast() {
			continue
		}
		if slices.ContainsFunc(r.NextHops, func(h fact.NextHop) bool { return h.Index == index }) {
			here, least = append(here, packetset.PrefixInterval(r.Dst)), min(least, r.Dst.Bits())
		}
	}
	for _, r := range d.routes {
		if r.Dst.Addr().Is4() == is4 && r.Type == unicast && r.Table != localTable && r.Dst.Bits() > least && !slices.ContainsFunc(r.NextHops, func(h fact.NextHop) bool { return h.Index == index }) && !r.Dst.Addr().IsLinkLocalUnicast() {
			there = append(there, packetset.PrefixInterval(r.Dst))
		}
	}
	return packetset.Normalise(here).Intersect(packetset.Normalise(there).Complement(is4))
}

// anybody are the addresses that somebody may have.
func anybody(is4 bool) packetset.Set {
	out := packetset.Set{{To: packetset.Last(is4)}}
	for _, text := range []string{"::1/128", "::/128", "ff00::/8", "::ffff:0.0.0.0/96", "127.0.0.0/8", "224.0.0.0/4", "0.0.0.0/8", "240.0.0.0/4"} {
		p := netip.MustParsePrefix(text)
		if p.Addr().Is4() == is4 {
			out = out.Intersect(packetset.Set{packetset.PrefixInterval(p)}.Complement(is4))
		}
	}
	return out
}

// access reads what reach says of a family.
func (d *drafting) access(vs []reach.V, is4 bool, loops map[string]bool) access {
	a := access{words: "it does not listen"}
	if len(vs) == 0 {
		return a
	}
	must, may, local, limited := reach.Union(vs, func(i string) bool { return loops[i] })
	if local {
		a.words = "this host alone"
		return a
	}
	a.takes, a.limited = true, limited
	use := must
	if len(must) == 0 && len(may) > 0 {
		use, a.maybe = may, true
	}
	all := true
	for _, v := range vs {
		if len(v.Interfaces) == 0 || slices.ContainsFunc(v.Interfaces, func(i string) bool { return !loops[i] }) {
			all = all && (v.Sources == "anywhere" || v.Sources == "perhaps anywhere")
		}
	}
	if a.from, a.kept = d.sources(use, is4); len(a.from) > maxSources && reach.ClassOf(may, may, is4) == reach.Open {
		use, a.maybe = may, true // surely some, by chance: balanced over several
		a.from, a.kept = d.sources(use, is4)
	}
	a.set = use
	a.any = len(use) > 0 && (all || reach.ClassOf(use, use, is4) == reach.Open)
	switch {
	case len(use) == 0:
		a.words = "nobody"
	case a.any:
		a.from, a.kept, a.words = nil, nil, "anybody"
		if w := reach.Describe(packetset.Normalise(append(d.own(is4), use...)), anybody(is4), is4); !all && w != "anywhere" {
			a.words = "almost anybody (" + w + ")"
			a.but = strings.TrimPrefix(w, "anywhere except ")
		}
	default:
		if len(a.from) > maxSources {
			a.from, a.long = a.from[:maxSources], true
		}
		a.words = brief(a.from)
	}
	if a.maybe {
		a.words = "perhaps " + a.words
	}
	if limited {
		a.words += ", up to a rate"
	}
	return a
}

// sources are the prefixes of a set, without the holes that this host's own addresses
// make in it, and without those that single senders do: bans end, and go on to be made by
// those who make them.
func (d *drafting) sources(s packetset.Set, is4 bool) (from, kept []netip.Prefix) {
	ivs := slices.Clone([]packetset.Interval(s))
	own := map[netip.Prefix]bool{}
	for _, a := range d.addrs {
		if ip := a.Prefix.Addr(); ip.Is4() == is4 && !s.Contains(packetset.FromIP(ip)) {
			p := netip.PrefixFrom(ip, ip.BitLen())
			own[p] = true
			ivs = append(ivs, packetset.PrefixInterval(p))
		}
	}
	set := packetset.Normalise(ivs)
	filled := slices.Clone([]packetset.Interval(set))
	gaps := set.Complement(is4)
	for i, gap := range gaps {
		p, ok := sender(gap, is4)
		if !ok {
			continue
		}
		// Amid many others of whom at most one more is left out.
		around := packetset.PrefixInterval(netip.PrefixFrom(p.Addr(), p.Bits()-5).Masked())
		left := 0
		for _, g := range gaps[max(0, i-2):min(len(gaps), i+3)] {
			if around.To.Compare(g.From) < 0 || around.From.Compare(g.To) > 0 {
				continue
			}
			left++
			if _, ok := sender(g, is4); !ok {
				left = 3
			}
		}
		if left <= 2 {
			filled, kept = append(filled, gap), append(kept, p)
		}
	}
	return slices.DeleteFunc(packetset.Normalise(filled).Prefixes(is4), func(p netip.Prefix) bool { return own[p] || p.Addr().Is4In6() }), kept
}

// sender is an interval that is one IPv4 address, or one IPv6 address or /64.
func sender(i packetset.Interval, is4 bool) (netip.Prefix, bool) {
	from := i.From.IP(is4)
	for _, bits := range []int{from.BitLen(), 64} {
		if p := netip.PrefixFrom(from, bits); bits <= from.BitLen() && p.Masked() == p && packetset.PrefixInterval(p) == i {
			return p, true
		}
	}
	return netip.Prefix{}, false
}
