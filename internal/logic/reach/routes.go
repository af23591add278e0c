package reach

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Tables and route types (include/uapi/linux/rtnetlink.h).
const (
	tableDefault = 253
	tableMain    = 254
	tableLocal   = 255

	rtnUnicast     = 1
	rtnLocal       = 2
	rtnBroadcast   = 3
	rtnAnycast     = 4
	rtnMulticast   = 5
	rtnUnreachable = 7
	rtnThrow       = 9

	nexthopDead = 1 // RTNH_F_DEAD
)

// Routes answers for a namespace what fib expressions and rp_filter ask. It
// follows the three tables of the default rules; with others, source routes or
// choices among equals it says that it does not know.
type Routes struct {
	names  map[string]uint32
	bridge map[string]bool
	addrs  map[string][]fact.Address // by interface, in the kernel's order; nil when they are not known
	family [2]routeFamily            // IPv4, IPv6
	// custom4: somebody else than the kernel made a local IPv4 route.
	custom4 bool
	// late tells by family that rules come before the table of local addresses.
	late [2]bool
}

type routeFamily struct {
	ok     bool
	tables [3][]span // local, main, default: disjoint, sorted
	local  map[netip.Addr][]uint32
}

// span is where one route wins within its table.
type span struct {
	iv  packetset.Interval
	alt []best // by device for link-local destinations; usually one
}

// best is what a prefix leads to.
type best struct {
	typ  uint8
	devs []uint32
}

func (b best) dev() (uint32, bool) {
	if len(b.devs) != 1 {
		return 0, false
	}
	return b.devs[0], true
}

// NewRoutes indexes the routes of a namespace.
func NewRoutes(n *fact.Namespace) *Routes {
	r := &Routes{names: map[string]uint32{}, bridge: map[string]bool{}}
	links, _ := n.Links.Get()
	for _, l := range links {
		r.names[l.Name] = uint32(l.Index)
		r.bridge[l.Name] = l.Kind == "bridge"
	}
	if addrs, ok := n.Addresses.Get(); ok && len(links) > 0 {
		r.addrs = map[string][]fact.Address{}
		for _, l := range links {
			r.addrs[l.Name] = nil
			for _, a := range addrs {
				if a.Index == l.Index {
					r.addrs[l.Name] = append(r.addrs[l.Name], a)
				}
			}
		}
	}
	rules, okRules := n.Rules.Get()
	routes, okRoutes := n.Routes.Get()
	for _, x := range routes {
		if x.Family == "ipv4" && x.Table == tableLocal && x.Type == rtnLocal && x.Protocol != fact.ProtoKernel {
			r.custom4 = true
		}
	}
	for i, name := range []string{"ipv4", "ipv6"} {
		f := &r.family[i]
		f.local = map[netip.Addr][]uint32{}
		addrs, _ := n.Addresses.Get()
		for _, a := range addrs {
			if ip := a.Prefix.Addr(); ip.Is4() == (i == 0) {
				f.local[ip] = append(f.local[ip], uint32(a.Index))
			}
		}
		f.ok = okRules && okRoutes && defaultRules(rules, name)
		r.late[i] = okRules && !localFirst(rules, name)
		if f.ok {
			f.index(routes, name, i == 0)
		}
	}
	return r
}

// localFirst tells whether the first rule of a family leads every packet to the table
// of local addresses.
func localFirst(rules []fact.Rule, family string) bool {
	var first *fact.Rule
	for i := range rules {
		if r := &rules[i]; r.Family == family && (first == nil || r.Priority < first.Priority) {
			first = r
		}
	}
	any := func(p netip.Prefix) bool { return !p.IsValid() || p.Bits() == 0 }
	return first == nil || first.Table == tableLocal && first.Action == 1 && any(first.Src) && any(first.Dst) && first.IIF == "" && first.OIF == "" &&
		first.Mark == 0 && first.Mask == 0 && !first.Invert && len(first.Conditions) == 0
}

// defaultRules tells whether lookups go through local, main and default, in this
// order and for every packet.
func defaultRules(rules []fact.Rule, family string) bool {
	var order []uint32
	var mine []fact.Rule
	for _, r := range rules {
		if r.Family == family {
			mine = append(mine, r)
		}
	}
	slices.SortStableFunc(mine, func(a, b fact.Rule) int { return cmp.Compare(a.Priority, b.Priority) })
	any := func(p netip.Prefix) bool { return !p.IsValid() || p.Bits() == 0 }
	for _, r := range mine {
		if r.Action != 1 || !any(r.Src) || !any(r.Dst) || r.IIF != "" || r.OIF != "" || r.Mark != 0 || r.Mask != 0 || r.Invert || len(r.Conditions) > 0 {
			return false
		}
		order = append(order, r.Table)
	}
	for i, t := range order {
		if i > 2 || t != [3]uint32{tableLocal, tableMain, tableDefault}[i] {
			return false
		}
	}
	return len(order) >= 2
}

func (f *routeFamily) index(routes []fact.Route, family string, is4 bool) {
	tables := map[uint32]int{tableLocal: 0, tableMain: 1, tableDefault: 2}
	var by [3][]fact.Route
	for _, r := range routes {
		i, mine := tables[r.Table]
		if r.Family != family || !mine {
			continue
		}
		if r.Type == rtnThrow || r.Src.IsValid() && r.Src.Bits() > 0 || r.NextHopID != 0 && len(r.NextHops) == 0 || !r.Dst.IsValid() {
			f.ok = false
			return
		}
		by[i] = append(by[i], r)
	}
	for i := range by {
		f.tables[i] = sweep(by[i], is4)
	}
}

// sweep cuts the destinations of a table into spans by longest prefix.
func sweep(routes []fact.Route, is4 bool) []span {
	slices.SortStableFunc(routes, func(a, b fact.Route) int {
		return cmp.Or(a.Dst.Addr().Compare(b.Dst.Addr()), cmp.Compare(a.Dst.Bits(), b.Dst.Bits()), cmp.Compare(a.Priority, b.Priority))
	})
	var out []span
	type open struct {
		iv  packetset.Interval
		alt []best
	}
	var stack []open
	at := packetset.Addr{}
	done := false
	emit := func(to packetset.Addr) { // [at, to] belongs to the top of the stack
		if done || at.Compare(to) > 0 {
			return
		}
		if n := len(stack); n > 0 {
			out = append(out, span{packetset.Interval{From: at, To: to}, stack[n-1].alt})
		}
		next, ok := to.Next()
		at, done = next, !ok
	}
	pop := func() {
		emit(stack[len(stack)-1].iv.To)
		stack = stack[:len(stack)-1]
	}
	for i := 0; i < len(routes); {
		j := i
		var alt []best
		for ; j < len(routes) && routes[j].Dst == routes[i].Dst; j++ {
			b := best{typ: routes[j].Type}
			for _, h := range routes[j].NextHops {
				if h.Flags&nexthopDead == 0 && !slices.Contains(b.devs, uint32(h.Index)) {
					b.devs = append(b.devs, uint32(h.Index))
				}
			}
			if b.typ == rtnUnicast && len(b.devs) == 0 {
				continue
			}
			if len(alt) > 0 && routes[j].Priority == routes[i].Priority && alt[0].typ == b.typ && b.typ == rtnUnicast && !linkLocal(routes[i].Dst) {
				// Equal routes: whichever the kernel picks.
				for _, d := range b.devs {
					if !slices.Contains(alt[0].devs, d) {
						alt[0].devs = append(alt[0].devs, d)
					}
				}
				continue
			}
			alt = append(alt, b)
		}
		iv := packetset.PrefixInterval(routes[i].Dst)
		i = j
		if len(alt) == 0 {
			continue
		}
		for len(stack) > 0 && stack[len(stack)-1].iv.To.Compare(iv.From) < 0 {
			pop()
		}
		if prev, ok := iv.From.Prev(); ok {
			emit(prev)
		}
		if at.Compare(iv.From) < 0 {
			at = iv.From
		}
		stack = append(stack, open{iv, alt})
	}
	for len(stack) > 0 {
		pop()
	}
	return out
}

func linkLocal(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() && p.Addr().Is6() }

// in is the span of a table that holds an address.
func in(spans []span, a packetset.Addr) *span {
	i, found := slices.BinarySearchFunc(spans, a, func(s span, a packetset.Addr) int { return s.iv.From.Compare(a) })
	if !found {
		i--
	}
	if i >= 0 && spans[i].iv.To.Compare(a) >= 0 {
		return &spans[i]
	}
	return nil
}

func (r *Routes) of(is4 bool) *routeFamily {
	if is4 {
		return &r.family[0]
	}
	return &r.family[1]
}

// FibOIF implements World.
func (r *Routes) FibOIF(is4 bool, iif string, strict bool) (map[uint32]packetset.Set, bool) {
	f := r.of(is4)
	if !f.ok {
		return nil, false
	}
	in := r.names[iif]
	if strict && in == 0 {
		return nil, false
	}
	parts := map[uint32][]packetset.Interval{}
	rest := []packetset.Interval{{To: packetset.Last(is4)}}
	for _, t := range f.tables {
		var covered []packetset.Interval
		for _, s := range t {
			for _, left := range packetset.Set([]packetset.Interval{s.iv}).Intersect(rest) {
				ok := f.place(parts, left, s.alt, is4, in, strict, &covered)
				if !ok {
					return nil, false
				}
			}
		}
		rest = packetset.Set(rest).Intersect(packetset.Normalise(covered).Complement(is4))
	}
	parts[0] = append(parts[0], rest...)
	out := map[uint32]packetset.Set{}
	for dev, ivs := range parts {
		out[dev] = packetset.Normalise(ivs)
	}
	return out, true
}

var (
	llSet = packetset.Set{packetset.PrefixInterval(netip.MustParsePrefix("fe80::/10"))}
	mcSet = packetset.Set{packetset.PrefixInterval(netip.MustParsePrefix("ff00::/8"))}
)

// place puts a span of destinations to the interface that a route gives them.
func (f *routeFamily) place(parts map[uint32][]packetset.Interval, iv packetset.Interval, alt []best, is4 bool, in uint32, strict bool, covered *[]packetset.Interval) bool {
	one := packetset.Set{iv}
	if !is4 {
		// A multicast source is dropped before any rule sees it.
		if m := one.Intersect(mcSet); len(m) > 0 {
			parts[0] = append(parts[0], m...)
			*covered = append(*covered, m...)
			one = one.Intersect(mcSet.Complement(false))
		}
		// Link-local destinations are looked up on the interface the packet came in by
		// (RT6_LOOKUP_F_IFACE, nft_fib_ipv6.c).
		if l := one.Intersect(llSet); len(l) > 0 {
			if in == 0 {
				return false
			}
			for _, b := range alt {
				if !slices.Contains(b.devs, in) {
					continue
				}
				dev := uint32(0)
				if b.typ == rtnUnicast {
					dev = in
				}
				parts[dev] = append(parts[dev], l...)
				*covered = append(*covered, l...)
				break
			}
			one = one.Intersect(llSet.Complement(false))
		}
	}
	if len(one) == 0 {
		return true
	}
	b := alt[0]
	dev := uint32(0)
	switch {
	case b.typ == rtnUnicast || is4 && (b.typ == rtnBroadcast || b.typ == rtnMulticast):
		d, single := b.dev()
		switch {
		case single && (!strict || d == in):
			dev = d
		case single:
		case strict && (is4 || !slices.Contains(b.devs, in)):
			if slices.Contains(b.devs, in) {
				dev = in
			}
		default:
			return false // whichever of them the kernel picks
		}
	}
	parts[dev] = append(parts[dev], one...)
	*covered = append(*covered, one...)
	return true
}

// FibType implements World.
func (r *Routes) FibType(a netip.Addr, iface string) (uint32, bool) {
	is4 := a.Is4()
	f := r.of(is4)
	if !f.ok {
		return 0, false
	}
	want := uint32(0)
	if iface != "" {
		if want = r.names[iface]; want == 0 {
			return 0, false
		}
	}
	if is4 {
		switch {
		case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || a == netip.IPv4Unspecified():
			return rtnBroadcast, true
		case a.IsMulticast():
			return rtnMulticast, true
		}
		if s := in(f.tables[0], packetset.FromIP(a)); s != nil && (want == 0 || slices.Contains(s.alt[0].devs, want)) {
			return uint32(s.alt[0].typ), true
		}
		return rtnUnicast, true
	}
	switch {
	case a.IsMulticast():
		return rtnMulticast, true
	case a.IsUnspecified():
		return 0, false // no address to look up
	}
	if want != 0 && slices.Contains(f.local[a], want) {
		return rtnLocal, true
	}
	for _, t := range f.tables {
		s := in(t, packetset.FromIP(a))
		if s == nil {
			continue
		}
		switch s.alt[0].typ {
		case rtnLocal:
			if want == 0 {
				return rtnLocal, true
			}
			return rtnUnicast, true
		case rtnUnicast:
			return rtnUnicast, true
		case rtnAnycast:
			return rtnAnycast, true
		}
		return 0, false
	}
	return rtnUnreachable, true
}

// Redirect is the address that redirect gives to a packet that came in by an interface:
// the first one, of IPv6 the first usable one of the scope of the old destination. An
// invalid one says that the packet is dropped.
func (r *Routes) Redirect(iface string, daddr netip.Addr) (netip.Addr, bool) {
	addrs, known := r.addrs[iface]
	if !known {
		return netip.Addr{}, false
	}
	for _, a := range addrs {
		ip := a.Prefix.Addr()
		if ip.Is4() != daddr.Is4() {
			continue
		}
		if ip.Is4() {
			return ip, true
		}
		switch {
		case a.Flags&fact.AddrTentative != 0 && a.Flags&fact.AddrOptimistic == 0:
		case daddr.IsMulticast(), daddr.IsLoopback():
			return netip.Addr{}, false // scopes of their own
		case daddr.IsLinkLocalUnicast() && !ip.IsLinkLocalUnicast():
		default:
			return ip, true
		}
	}
	return netip.Addr{}, true
}

// Bridged tells that an interface is a bridge by which the host would send to an address.
func (r *Routes) Bridged(iface string, a netip.Addr) bool {
	if !r.bridge[iface] {
		return false
	}
	out, local, ok := r.To(a)
	return !ok || !local && out == r.names[iface]
}

// To is the interface by which the host sends to an address; local when it keeps it.
func (r *Routes) To(a netip.Addr) (ifindex uint32, local, ok bool) {
	f := r.of(a.Is4())
	if len(f.local[a]) > 0 {
		return 0, true, true
	}
	if !f.ok {
		return 0, false, false
	}
	for _, t := range f.tables {
		s := in(t, packetset.FromIP(a))
		if s == nil {
			continue
		}
		switch s.alt[0].typ {
		case rtnLocal:
			return 0, true, true
		case rtnUnicast:
			d, single := s.alt[0].dev()
			return d, false, single
		}
		return 0, false, true
	}
	return 0, false, true
}

// notUnicast4 are the IPv4 addresses that the local table has: the host's own, and
// broadcasts.
func (r *Routes) notUnicast4() packetset.Set {
	var ivs []packetset.Interval
	for _, s := range r.of(true).tables[0] {
		if s.alt[0].typ != rtnUnicast {
			ivs = append(ivs, s.iv)
		}
	}
	return packetset.Normalise(ivs)
}

// plain4 tells that only the kernel itself made local routes and that no rules choose
// tables: without rp_filter the way back is then not looked up
// (fib_validate_source, fib_has_custom_local_routes, fib4_has_custom_rules).
func (r *Routes) plain4() bool { return r.of(true).ok && !r.custom4 }

// FibTypes4 implements World.
func (r *Routes) FibTypes4(iface string) (map[uint32]packetset.Set, bool) {
	f := r.of(true)
	want := r.names[iface]
	if !f.ok || iface != "" && want == 0 {
		return nil, false
	}
	every := packetset.Set{{To: packetset.Last(true)}}
	fixed := map[uint32]packetset.Set{
		rtnBroadcast: packetset.Normalise([]packetset.Interval{{}, {From: packetset.Last(true), To: packetset.Last(true)}}),
		rtnMulticast: {packetset.PrefixInterval(netip.MustParsePrefix("224.0.0.0/4"))},
	}
	parts := map[uint32][]packetset.Interval{}
	for t, s := range fixed {
		parts[t] = append(parts[t], s...)
		every = every.Intersect(s.Complement(true))
	}
	var covered []packetset.Interval
	for _, s := range f.tables[0] {
		if want != 0 && !slices.Contains(s.alt[0].devs, want) {
			continue
		}
		t := uint32(s.alt[0].typ)
		parts[t] = append(parts[t], every.Intersect(packetset.Set{s.iv})...)
		covered = append(covered, s.iv)
	}
	parts[rtnUnicast] = append(parts[rtnUnicast], every.Intersect(packetset.Normalise(covered).Complement(true))...)
	out := map[uint32]packetset.Set{}
	for t, ivs := range parts {
		out[t] = packetset.Normalise(ivs)
	}
	return out, true
}
