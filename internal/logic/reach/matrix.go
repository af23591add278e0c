package reach

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Result is everything that is reachable in some namespaces.
type Result struct {
	Listeners []Listener
	Flows     []Flow
	Lint      []Lint
	// Gaps are what could not be read, by namespace.
	Gaps map[string][]fact.Gap
}

// Analyse answers for every listener and flow of a namespace, and looks at its rules.
func (sp *Space) Analyse(keep func(*Listener) bool) Result {
	r := Result{Gaps: map[string][]fact.Gap{}}
	ls, gap := sp.Listeners()
	if gap != nil {
		r.Gaps[sp.Name] = append(r.Gaps[sp.Name], fact.Gap{Reason: gap.Reason, What: "listeners"})
	}
	for i := range ls {
		if keep == nil || keep(&ls[i]) {
			sp.Expose(&ls[i])
			r.Listeners = append(r.Listeners, ls[i])
		}
	}
	r.Flows = append(sp.Flows(), sp.Outbound()...)
	r.Lint = sp.Lint()
	r.Gaps[sp.Name] = append(r.Gaps[sp.Name], sp.Gaps()...)
	return r
}

// Gaps are what could not be read of the rules or is not modelled, once each.
func (sp *Space) Gaps() []fact.Gap {
	var out []fact.Gap
	for _, list := range [][]pathGap{sp.gaps, sp.obstacles} {
		for _, g := range list {
			if !slices.Contains(out, g.Gap) {
				out = append(out, g.Gap)
			}
		}
	}
	return out
}

// Probe is a fresh packet from anywhere to anywhere, of which a ruleset without a host
// can be asked.
type Probe struct {
	Hook   rs.Hook // Input or Forward
	Family rs.Family
	Proto  uint8
	Port   uint16 // destination port, or the type of ICMP and ICMPv6
	IIF    string // empty: an interface that no rule names
}

// Any answers for a port over every interface and destination: must holds for all of
// them, may for one at least. It is what can be said of a ruleset without a host.
func (sp *Space) Any(proto string, port uint16, f rs.Family) V {
	return sp.At(Probe{Hook: rs.Input, Family: f, Proto: protoNumbers[proto], Port: port})
}

// At answers for a Probe.
func (sp *Space) At(q Probe) V {
	is4 := q.Family == rs.IPv4
	p := Packet{Family: q.Family, Proto: Some(q.Proto), Ct: Some(uint32(CtNew)), Mark: Some(uint32(0)), IIF: Some("some interface")}
	if q.IIF != "" {
		p.IIF = Some(q.IIF)
	}
	if q.Hook == rs.Forward {
		p.OIF = Some("another interface")
	}
	switch q.Proto {
	case 1, 58:
		p.ICMPType, p.ICMPCode = Some(uint8(q.Port)), Some(uint8(0))
		switch {
		case q.Proto == 58 && q.Port < 128, q.Proto == 1 && (q.Port == 3 || q.Port == 11 || q.Port == 12):
			p.Ct = Some(uint32(CtRelated))
		case untrackable(&p) == yes:
			p.Ct = Some(uint32(CtUntracked))
		}
	default:
		p.Sport, p.Dport = Range{1024, 65535}, Some(q.Port)
	}
	if q.Proto == 6 {
		p.TCPFlags = Some(uint8(2))
	}
	a := sp.unnamed().Ask(p, q.Hook, false)
	bogus := bogus6
	if is4 {
		bogus = bogus4
	}
	all := bogus.Complement(is4)
	must, may := sp.told.intersect(sp.told.of(a.Space, a.must()), all), sp.told.intersect(sp.told.of(a.Space, a.may()), all)
	lacks := sp.Obstacles(FamilyWord(q.Family), "")
	if len(lacks) > 0 { // rules of which nothing is known
		must, may = nil, all
	}
	v := V{Interfaces: []string{}, Daddr: []netip.Prefix{}, Assumes: []string{}}
	sp.list(&v, must, may, is4)
	v.Limited = sp.limited(a, may)
	v.Sources = sp.describe(must, may, all, is4)
	v.DecidedBy = sp.deciders(a, must, may)
	if !equalSets(must, may) {
		v.Assumes = append(v.Assumes, sp.open(a, may.Intersect(must.Complement(is4)))...)
	}
	for _, g := range lacks {
		v.Assumes = append(v.Assumes, g.What)
	}
	return v
}

// unnamed is the model for questions about an interface that no rule names: where
// the numbers of interfaces are not known, only that 1 is the loopback interface.
func (sp *Space) unnamed() *Model {
	if len(sp.Model.Set.Interfaces) > 0 {
		return sp.Model
	}
	if sp.noHost == nil {
		set := *sp.Model.Set
		set.Interfaces = map[uint32]string{1: "lo"}
		sp.noHost = &Model{Set: &set, Order: sp.Model.Order, World: sp.Model.World}
	}
	return sp.noHost
}

// NamedPorts are the destination ports that any rule names, and one that none does.
func (sp *Space) NamedPorts() []uint16 {
	out := portsIn(sp.Model.Set.Tables)
	for p := uint16(otherPort); ; p-- {
		if !slices.Contains(out, p) {
			return append(out, p)
		}
	}
}

// PortStarts cuts the ports at every boundary that a rule has: from each start to the
// one before the next all ports are treated alike where whole is true; rules that mask
// ports cut them in more ways.
func (sp *Space) PortStarts() (out []uint16, whole bool) {
	ranges, whole := portRanges(sp.Model.Set.Tables, 1<<16)
	out = []uint16{1}
	for _, r := range ranges {
		if r.From > 0 {
			out = append(out, r.From)
		}
		if r.To < 65535 {
			out = append(out, r.To+1)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), whole
}

// NamedInterfaces are the incoming interfaces that rules name; of names with a wildcard
// one that fits.
func (sp *Space) NamedInterfaces() []string {
	var out []string
	add := func(b []byte) {
		n, _, whole := strings.Cut(string(b), "\x00")
		if !whole && len(b) < 16 {
			n += "0"
		}
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	for _, t := range sp.Model.Set.Tables {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				key := uint32(0)
				for _, e := range flat(r.Exprs) {
					switch e := e.(type) {
					case rs.Meta:
						key = e.Key
					case rs.Payload, rs.Ct, rs.Exthdr, rs.Fib:
						key = 0
					case rs.Cmp:
						if key == metaIIFName {
							add(e.Data)
						}
						if key == metaIIF && len(e.Data) == 4 {
							if n := sp.Model.Set.Interfaces[sp.Model.Order.Uint32(e.Data)]; n != "" {
								add(append([]byte(n), 0))
							}
						}
					case rs.Lookup:
						if s := t.Sets[e.Set]; s != nil && key == metaIIFName && len(s.Concat) < 2 {
							for i := range s.Elements {
								add(s.Elements[i].From)
							}
						}
					}
				}
			}
		}
	}
	slices.Sort(out)
	return slices.DeleteFunc(out, func(n string) bool { return n == "lo" })
}

// Union is who gets in from outside, over several classes: surely by one of them,
// and possibly. local is true when only the host itself can.
func Union(vs []V, lo func(string) bool) (must, may packetset.Set, local, limited bool) {
	local = true
	var a, b []packetset.Interval
	for _, v := range vs {
		if len(v.Interfaces) > 0 && !slices.ContainsFunc(v.Interfaces, func(i string) bool { return !lo(i) }) {
			continue
		}
		local = false
		limited = limited || v.Limited
		for _, p := range v.Must {
			a = append(a, packetset.PrefixInterval(p))
		}
		for _, p := range v.May {
			b = append(b, packetset.PrefixInterval(p))
		}
	}
	return packetset.Normalise(a), packetset.Normalise(b), local, limited
}

// Class is how wide a port is open: closed, some, open or unknown.
type Class string

// The classes.
const (
	Closed  Class = "closed"  // nobody from outside
	Some4   Class = "some"    // some sources
	Open    Class = "open"    // from the internet
	Unclear Class = "unknown" // it may be open
)

var (
	internet4 = packetset.FromIP(netip.MustParseAddr("8.8.8.8"))
	internet6 = packetset.FromIP(netip.MustParseAddr("2606:4700::1111"))
)

// ClassOf sorts who gets in into a class.
func ClassOf(must, may packetset.Set, is4 bool) Class {
	far := internet6
	if is4 {
		far = internet4
	}
	switch {
	case len(may) == 0:
		return Closed
	case must.Contains(far):
		return Open
	case may.Contains(far) || len(must) == 0:
		return Unclear
	}
	return Some4
}

// Wider tells whether one class lets more in than another for sure.
func (c Class) Wider(than Class) bool {
	rank := map[Class]int{Closed: 0, Some4: 1, Open: 2}
	a, ok1 := rank[c]
	b, ok2 := rank[than]
	return ok1 && ok2 && a > b
}

// RuleGaps are what could not be read of the rules themselves.
func (sp *Space) RuleGaps() []fact.Gap {
	var out []fact.Gap
	for _, g := range sp.gaps {
		if !slices.Contains(out, g.Gap) {
			out = append(out, g.Gap)
		}
	}
	return out
}
