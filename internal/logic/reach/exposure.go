package reach

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// V is what a class of ingress interfaces and destination addresses that answer
// alike lets in of a fresh flow: any source port from 1024, no extension headers,
// ct state new.
type V struct {
	Interfaces []string       `json:"interfaces"`
	Daddr      []netip.Prefix `json:"daddr"`
	Must       []netip.Prefix `json:"must"` // surely accepted sources
	May        []netip.Prefix `json:"may"`  // possibly accepted; all others are surely blocked
	Sources    string         `json:"sources"`
	Limited    bool           `json:"limited"` // accepted up to a rate only
	DecidedBy  []RuleRef      `json:"decidedBy"`
	Witness    *Witness       `json:"witness"`
	Assumes    []string       `json:"assumes"` // gaps, as text; ids in a document
}

// Witness is one packet that shows the answer: the first surely accepted, else a
// possibly accepted, else a blocked one.
type Witness struct {
	Interface string     `json:"interface"`
	Saddr     netip.Addr `json:"saddr"`
	Sport     uint16     `json:"sport"`
	Daddr     netip.Addr `json:"daddr"`
	Dport     uint16     `json:"dport"`
	Verdict   string     `json:"verdict"`
}

// String is the packet as people write it.
func (w *Witness) String() string {
	return fmt.Sprintf("%s → %s", netip.AddrPortFrom(w.Saddr, w.Sport), netip.AddrPortFrom(w.Daddr, w.Dport))
}

// Listener is a receiving socket, or several that differ in nothing that matters.
type Listener struct {
	NetNS   string     `json:"netns"`
	Proto   string     `json:"proto"`
	Port    uint16     `json:"port"`
	Address string     `json:"address"`
	Device  string     `json:"device,omitempty"` // of SO_BINDTODEVICE
	Process string     `json:"process"`
	Unit    string     `json:"unit,omitempty"`
	PID     int        `json:"pid,omitempty"`
	IPv4    []V        `json:"ipv4"`
	IPv6    []V        `json:"ipv6"`
	local   netip.Addr // invalid: any
	takes   [2]bool    // IPv4, IPv6
	ifindex int
	unsure  []fact.Gap
}

// Flow is a port that rules pass on to another address or port (DNAT, published
// container ports).
type Flow struct {
	NetNS  string `json:"netns"`
	Proto  string `json:"proto"`
	Port   uint16 `json:"port"`
	Target string `json:"target"`
	IPv4   []V    `json:"ipv4"`
	IPv6   []V    `json:"ipv6"`
}

var protoNumbers = map[string]uint8{"tcp": 6, "udp": 17, "sctp": 132, "udplite": 136}

// Listeners are the sockets of the namespace that take packets, without their
// answers.
func (sp *Space) Listeners() ([]Listener, *fact.Gap) {
	socks, ok := sp.Sockets.Get()
	if !ok {
		if g, gap := sp.Sockets.Gap(); gap {
			return nil, &g
		}
		return nil, nil
	}
	procs := map[int]*fact.Process{}
	if ps, ok := sp.host.Processes.Get(); ok {
		for i := range ps {
			procs[ps[i].PID] = &ps[i]
		}
	}
	var out []Listener
	seen := map[string]bool{}
	for i := range socks {
		k := &socks[i]
		if _, known := protoNumbers[k.Protocol]; !known || k.State == "connected" || k.Port == 0 {
			continue
		}
		l := Listener{NetNS: sp.Name, Proto: k.Protocol, Port: k.Port, IPv4: []V{}, IPv6: []V{}, ifindex: k.Index}
		local := k.Local.WithZone("")
		switch {
		case !local.IsValid() && k.Family == "ipv4":
			local = netip.IPv4Unspecified()
		case !local.IsValid():
			local = netip.IPv6Unspecified()
		}
		l.Address = local.String()
		four := local.Unmap()
		switch only, known := k.V6Only.Get(); {
		case four.Is4():
			l.takes[0] = true
			if !four.IsUnspecified() {
				l.local = four
			}
		case local.IsUnspecified():
			l.takes = [2]bool{!only, true}
			if !known {
				l.unsure = append(l.unsure, fact.Gap{Reason: fact.UnsupportedGap, What: "whether the socket takes IPv4 (IPV6_V6ONLY)"})
			}
		default:
			l.takes[1], l.local = true, local
		}
		if k.Index != 0 {
			l.Device = sp.Model.Set.Interfaces[uint32(k.Index)]
		}
		if k.IndexUnknown {
			l.unsure = append(l.unsure, fact.Gap{Reason: fact.UnsupportedGap, What: "whether the socket is bound to an interface"})
		}
		pids, _ := k.Owners.Get()
		for _, pid := range pids {
			if p := procs[pid]; p != nil && (l.PID == 0 || pid > 1 && pid < l.PID || l.PID == 1) {
				l.Process, l.Unit, l.PID = p.Exe.Or(""), p.Unit, pid
			}
		}
		key := fmt.Sprint(l.Proto, l.Port, l.Address, k.Index, l.Process, l.takes)
		if !seen[key] {
			seen[key] = true
			out = append(out, l)
		}
	}
	slices.SortStableFunc(out, func(a, b Listener) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Process, b.Process))
	})
	return out, nil
}

// Expose answers for a listener over both families.
func (sp *Space) Expose(l *Listener) {
	if l.takes[0] {
		l.IPv4 = sp.expose(l, rs.IPv4)
	}
	if l.takes[1] {
		l.IPv6 = sp.expose(l, rs.IPv6)
	}
}

// doors are the interfaces by which packets of a family come in: what a bridge or
// bond takes from its ports comes in by the bridge.
func (sp *Space) doors(family string) []*fact.Link {
	var out []*fact.Link
	for i := range sp.links {
		l := &sp.links[i]
		if l.Flags&1 == 0 { // IFF_UP
			continue
		}
		switch l.SlaveKind {
		case "bridge", "bond", "team", "openvswitch", "hsr":
			continue
		}
		if l.Kind == "vrf" {
			continue
		}
		if family == "ipv6" && !sp.hears6(l) {
			continue
		}
		out = append(out, l)
	}
	return out
}

// hears6 tells whether the kernel may take IPv6 on an interface.
func (sp *Space) hears6(l *fact.Link) bool {
	if on, ok := sp.IPv6.Get(); ok && !on {
		return false
	}
	if l.Inet6.State() == fact.StateAbsent {
		return false
	}
	if m, ok := l.Inet6.Get(); ok {
		if v, ok := m["disable_ipv6"]; ok {
			return v == 0
		}
	}
	return true
}

func loopback(l *fact.Link) bool { return l.Flags&8 != 0 }

// addresses are the host's own of a family, with the interface where that matters.
func (sp *Space) destinations(l *Listener, f rs.Family, door *fact.Link) []netip.Addr {
	var out []netip.Addr
	add := func(a netip.Addr) {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	addrs, _ := sp.Addresses.Get()
	for _, a := range addrs {
		ip := a.Prefix.Addr()
		switch {
		case ip.Is4() != (f == rs.IPv4):
		case a.Flags&(fact.AddrDADFailed|fact.AddrTentative) != 0 && a.Flags&fact.AddrOptimistic == 0:
		case ip.IsLinkLocalUnicast() && ip.Is6() && a.Index != door.Index && !loopback(door):
		case ip.IsLoopback() && !loopback(door):
			// From outside the kernel drops packets to 127.0.0.0/8 and ::1.
		case l.local.IsValid() && l.local != ip:
		default:
			add(ip)
		}
	}
	if l.local.IsValid() && len(out) == 0 && !l.local.IsMulticast() && l.local.IsLoopback() && loopback(door) {
		add(l.local) // all of 127.0.0.0/8 is local
	}
	if (l.Proto == "udp" || l.Proto == "udplite") && !loopback(door) {
		switch {
		case l.local.IsMulticast():
			add(l.local)
		case !l.local.IsValid() && f == rs.IPv6:
			add(netip.MustParseAddr("ff02::1"))
		case !l.local.IsValid():
			add(netip.MustParseAddr("224.0.0.1"))
		}
	}
	return out
}

// maxDestinations is how many addresses of an interface are asked about one by one;
// the others are asked about together, as an address that is not known.
const maxDestinations = 32

func (sp *Space) expose(l *Listener, f rs.Family) []V {
	out := []V{}
	word := FamilyWord(f)
	for _, door := range sp.doors(word) {
		if l.ifindex != 0 && l.ifindex != door.Index {
			continue
		}
		dst := sp.destinations(l, f, door)
		if len(dst) == 0 {
			continue
		}
		if !sp.readsDaddr(f) {
			out = merge(out, sp.ask(l.Proto, l.Port, f, door, Some(dst[0]), dst, l.unsure))
			continue
		}
		var here []V
		for i, d := range dst {
			daddr := Some(d)
			group := dst[i : i+1]
			if i == maxDestinations {
				daddr, group = Opt[netip.Addr]{}, dst[i:]
			}
			here = merge(here, sp.ask(l.Proto, l.Port, f, door, daddr, group, l.unsure))
			if i == maxDestinations {
				break
			}
		}
		for _, v := range here {
			out = merge(out, v)
		}
	}
	return out
}

// readsDaddr tells whether any rule may look at the destination of a family's
// packets: without, all addresses answer alike.
func (sp *Space) readsDaddr(f rs.Family) bool {
	if sp.daddrRead == nil {
		sp.daddrRead = map[rs.Family]bool{}
		for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
			sp.daddrRead[f] = looksAtDaddr(sp.Model.Set, f)
		}
	}
	return sp.daddrRead[f]
}

func looksAtDaddr(set *rs.Ruleset, f rs.Family) bool {
	from, to := uint32(24), uint32(40)
	if f == rs.IPv4 {
		from, to = 16, 20
	}
	for _, t := range set.Tables {
		if t.Family == rs.IPv4 && f == rs.IPv6 || t.Family == rs.IPv6 && f == rs.IPv4 {
			continue
		}
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				for _, e := range r.Exprs {
					switch e := e.(type) {
					case rs.Payload:
						if e.Base == rs.NetworkHeader && e.Offset < to && e.Offset+e.Len > from {
							return true
						}
					case rs.Meta, rs.Cmp, rs.Bitwise, rs.Range, rs.Lookup, rs.Conclude, rs.Nothing, rs.Limit, rs.Immediate, rs.Exthdr, rs.Reject, rs.MetaSet, rs.Byteorder:
						if m, ok := e.(rs.Meta); ok && m.Key == metaPktType {
							return true
						}
					case rs.Ct:
						if e.Key != ctState && e.Key != ctMark && e.Key != ctDirection && e.Key != ctStatus {
							return true
						}
					default:
						return true
					}
				}
			}
		}
	}
	return false
}

// ask puts one question and turns the answer into a V.
func (sp *Space) ask(proto string, port uint16, f rs.Family, door *fact.Link, daddr Opt[netip.Addr], group []netip.Addr, unsure []fact.Gap) V {
	is4 := f == rs.IPv4
	p := Packet{
		Family: f, IIF: Some(door.Name), Daddr: daddr, Proto: Some(protoNumbers[proto]), Sport: Range{1024, 65535}, Dport: Some(port),
		Ct: Some(uint32(CtNew)), Mark: Some(uint32(0)),
	}
	if proto == "tcp" {
		p.TCPFlags = Some(uint8(2)) // SYN
	}
	if loopback(door) {
		p.Mark = Opt[uint32]{}
	}
	a := sp.Model.Ask(p, rs.Input, false)
	must, may := a.Must(), a.May()
	assumes := sp.Obstacles(FamilyWord(f), door.Name)
	assumes = append(assumes, unsure...)
	for _, w := range a.Opaque {
		if !equalSets(must, may) {
			assumes = append(assumes, fact.Gap{Reason: fact.UnsupportedGap, What: w})
		}
	}
	// What NAT sends elsewhere does not reach the listener.
	for _, t := range a.Translated {
		cells := t.Cells.Set(a.Space)
		switch {
		case t.Dport >= 0 && t.Dport != int32(port), t.Daddr.IsValid() && sp.foreign(t.Daddr):
			must = must.Intersect(cells.Complement(is4))
			may = may.Intersect(cells.Complement(is4))
		case t.Dport == -2 || t.Lost && t.Dport == -1:
			must = must.Intersect(cells.Complement(is4))
		}
	}
	ok, maybe := sp.kernel(is4, proto, door)
	must, may = must.Intersect(ok), may.Intersect(maybe)
	if loopback(door) {
		// A local packet passed output first.
		p.Local, p.OIF, p.IIF = true, Some(door.Name), Opt[string]{}
		out := sp.Model.Ask(p, rs.Output, false)
		must, may = must.Intersect(out.Must()), may.Intersect(out.May())
	}
	if len(sp.Obstacles(FamilyWord(f), door.Name)) > 0 {
		must, may = nil, maybe
	}
	if len(unsure) > 0 {
		must = nil
	}
	v := V{
		Interfaces: []string{door.Name}, Daddr: []netip.Prefix{}, Must: prefixes(must, is4), May: prefixes(may, is4),
		Limited: !a.Limited.Empty() && len(a.Limited.Set(a.Space).Intersect(may)) > 0, DecidedBy: []RuleRef{}, Assumes: []string{},
	}
	for _, d := range group {
		v.Daddr = append(v.Daddr, netip.PrefixFrom(d, d.BitLen()))
	}
	for _, g := range assumes {
		if !slices.Contains(v.Assumes, g.What) {
			v.Assumes = append(v.Assumes, g.What)
		}
	}
	v.Sources = sp.describe(must, may, ok, is4)
	if loopback(door) {
		switch {
		case len(must) > 0:
			v.Sources = "this host"
		case len(may) > 0:
			v.Sources = "perhaps this host"
		}
	}
	v.DecidedBy = sp.deciders(a, must, may)
	v.Witness = witness(a, must, may, maybe, door.Name, group[0], port, is4)
	return v
}

func equalSets(a, b packetset.Set) bool { return slices.Equal(a, b) }

func prefixes(s packetset.Set, is4 bool) []netip.Prefix {
	if p := s.Prefixes(is4); p != nil {
		return p
	}
	return []netip.Prefix{}
}

// foreign tells that an address is not the host's own.
func (sp *Space) foreign(a netip.Addr) bool {
	addrs, ok := sp.Addresses.Get()
	return ok && !a.IsLoopback() && !slices.ContainsFunc(addrs, func(x fact.Address) bool { return x.Prefix.Addr() == a })
}

func set(ps ...string) packetset.Set {
	var ivs []packetset.Interval
	for _, p := range ps {
		ivs = append(ivs, packetset.PrefixInterval(netip.MustParsePrefix(p)))
	}
	return packetset.Normalise(ivs)
}

var (
	bogus4 = set("127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "0.0.0.0/32")
	bogus6 = set("::1/128", "ff00::/8")
	mapped = set("::ffff:0:0/96")
	local4 = set("127.0.0.0/8")
	local6 = set("::1/128")
)

// kernel is the sources that the kernel itself lets in by an interface, whatever the
// rules say: surely, and possibly. (ip_rcv_finish and fib_validate_source;
// ip6_rcv_core; tcp_v6_conn_request for mapped sources.)
func (sp *Space) kernel(is4 bool, proto string, door *fact.Link) (ok, maybe packetset.Set) {
	addrs, _ := sp.Addresses.Get()
	var own []packetset.Interval
	for _, a := range addrs {
		if ip := a.Prefix.Addr(); ip.Is4() == is4 {
			own = append(own, packetset.PrefixInterval(netip.PrefixFrom(ip, ip.BitLen())))
		}
	}
	mine := packetset.Normalise(own)
	if loopback(door) {
		base := local6
		if is4 {
			base = local4
		}
		mine = packetset.Normalise(append(slices.Clone([]packetset.Interval(mine)), base...))
		return mine, sources(is4) // a raw socket may forge others
	}
	if !is4 {
		bad := bogus6
		if proto == "tcp" {
			bad = packetset.Normalise(append(slices.Clone([]packetset.Interval(bad)), mapped...))
		}
		all := bad.Complement(false)
		return all, all
	}
	all := packetset.Normalise(append(slices.Clone([]packetset.Interval(bogus4)), mine...)).Complement(true)
	return sp.reversePath(all, door)
}

// reversePath applies rp_filter (RFC 3704), the larger of all and the interface's.
func (sp *Space) reversePath(all packetset.Set, door *fact.Link) (ok, maybe packetset.Set) {
	t, known := sp.Sysctls.Get()
	mode := 0
	if known {
		for _, name := range []string{"all", door.Name} {
			v, has := t.Get("net/ipv4/conf/" + name + "/rp_filter").Get()
			switch {
			case !has:
				known = false
			case v == "1":
				mode = max(mode, 1)
			case v == "2":
				mode = max(mode, 2)
			}
		}
	}
	if known && mode == 0 {
		return all, all
	}
	by, routes := sp.Routes.FibOIF(true, door.Name, mode != 2)
	if !routes {
		if known {
			return nil, all
		}
		return all, all
	}
	pass := packetset.Set{}
	for dev, s := range by {
		if dev != 0 {
			pass = packetset.Normalise(append(slices.Clone([]packetset.Interval(pass)), s...))
		}
	}
	pass = pass.Intersect(all)
	if known {
		return pass, pass
	}
	return pass, all
}

// deciders are the rules that decide about the sources that matter: those that
// accept, or those that block when nothing is accepted.
func (sp *Space) deciders(a *Answer, must, may packetset.Set) []RuleRef {
	const most = 8
	out := []RuleRef{}
	seen := map[Decider]bool{}
	open := len(may) > 0
	for i, d := range a.Decider {
		iv := packetset.Set{a.Space.Interval(i)}
		if open != (len(iv.Intersect(may)) > 0) || seen[d] {
			continue
		}
		seen[d] = true
		if d.Chain == nil && d.Rule == nil {
			continue
		}
		if len(out) < most {
			out = append(out, sp.Model.Ref(d.Chain, d.Rule))
		}
	}
	return out
}

// witness picks an ordinary source: one that could be somebody.
func witness(a *Answer, must, may, kernel packetset.Set, iface string, daddr netip.Addr, port uint16, is4 bool) *Witness {
	w := &Witness{Interface: iface, Sport: 49152, Daddr: daddr, Dport: port}
	from, verdict := must, WordAccept
	switch {
	case len(must) > 0:
	case len(may) > 0:
		from, verdict = may, WordUnknown
	default:
		from, verdict = kernel, WordDrop
	}
	src, ok := pick(from, is4)
	if !ok {
		return nil
	}
	w.Saddr, w.Verdict = src, verdict
	if verdict == WordDrop && a.Ends[a.Space.Cell(packetset.FromIP(src))] == Rejected {
		w.Verdict = WordReject
	}
	return w
}

func pick(s packetset.Set, is4 bool) (netip.Addr, bool) {
	liked := []string{"2001:db8::1", "2606:4700::1111", "fe80::1234"}
	if is4 {
		liked = []string{"198.51.100.1", "192.0.2.1", "8.8.8.8"}
	}
	for _, l := range liked {
		if a := netip.MustParseAddr(l); s.Contains(packetset.FromIP(a)) {
			return a, true
		}
	}
	if len(s) == 0 {
		return netip.Addr{}, false
	}
	// Not the network address of a prefix.
	iv := s[len(s)-1]
	if next, ok := iv.From.Next(); ok && next.Compare(iv.To) < 0 {
		return next.IP(is4), true
	}
	return iv.From.IP(is4), true
}

// merge puts classes together that answer alike.
func merge(list []V, v V) []V {
	for i := range list {
		x := &list[i]
		if x.Limited != v.Limited || !slices.Equal(x.Must, v.Must) || !slices.Equal(x.May, v.May) || !slices.Equal(x.DecidedBy, v.DecidedBy) || !slices.Equal(x.Assumes, v.Assumes) {
			continue
		}
		switch {
		case slices.Equal(x.Interfaces, v.Interfaces):
			for _, d := range v.Daddr {
				if !slices.Contains(x.Daddr, d) {
					x.Daddr = append(x.Daddr, d)
				}
			}
			return list
		case slices.Equal(x.Daddr, v.Daddr):
			x.Interfaces = append(x.Interfaces, v.Interfaces...)
			return list
		}
	}
	return append(list, v)
}

// describe says in words who gets in.
func (sp *Space) describe(must, may, kernel packetset.Set, is4 bool) string {
	if len(may) == 0 {
		return "nobody"
	}
	if equalSets(must, may) {
		return Describe(must, kernel, is4)
	}
	if len(must) == 0 {
		return "perhaps " + Describe(may, kernel, is4)
	}
	return Describe(must, kernel, is4) + ", perhaps " + Describe(may, kernel, is4)
}

// maxWords is how many prefixes a description lists.
const maxWords = 4

// Describe writes a set of sources for people: by exclusion when that is shorter.
// all is what the kernel itself would take.
func Describe(s, all packetset.Set, is4 bool) string {
	s = s.Intersect(all)
	if len(s) == 0 {
		return "nobody"
	}
	if equalSets(s, all) {
		return "anywhere"
	}
	in, out := cover(s, all, is4), cover(all.Intersect(s.Complement(is4)), all, is4)
	list := func(ps []netip.Prefix) string {
		var w []string
		for i, p := range ps {
			if i == maxWords {
				w = append(w, fmt.Sprintf("%d more prefixes", len(ps)-i))
				break
			}
			t := p.String()
			if p.IsSingleIP() {
				t = p.Addr().String()
			}
			w = append(w, t)
		}
		return strings.Join(w, ", ")
	}
	if len(out) < len(in) {
		return "anywhere except " + list(out)
	}
	return list(in)
}

// cover is the shortest readable list for a set: sources that the kernel takes from
// nobody may be in it or not, and are where that joins prefixes.
func cover(s, all packetset.Set, is4 bool) []netip.Prefix {
	exact := s.Prefixes(is4)
	ivs := append(slices.Clone([]packetset.Interval(s)), all.Complement(is4)...)
	wide := slices.DeleteFunc(packetset.Normalise(ivs).Prefixes(is4), func(p netip.Prefix) bool {
		return len(packetset.Set{packetset.PrefixInterval(p)}.Intersect(s)) == 0
	})
	if len(wide) < len(exact) {
		return wide
	}
	return exact
}
