package reach

import (
	"net/netip"
	"slices"

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
	r.Flows = sp.Flows()
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

// Any answers for a port over every interface and destination: must holds for all of
// them, may for one at least. It is what can be said of a ruleset without a host.
func (sp *Space) Any(proto string, port uint16, f rs.Family) V {
	is4 := f == rs.IPv4
	p := Packet{
		Family: f, Proto: Some(protoNumbers[proto]), Sport: Range{1024, 65535}, Dport: Some(port), Ct: Some(uint32(CtNew)), Mark: Some(uint32(0)),
		// An interface that no rule names.
		IIF: Some("some interface"),
	}
	if proto == "tcp" {
		p.TCPFlags = Some(uint8(2))
	}
	a := sp.unnamed().Ask(p, rs.Input, false)
	bogus := bogus6
	if is4 {
		bogus = bogus4
	}
	all := bogus.Complement(is4)
	must, may := a.Must().Intersect(all), a.May().Intersect(all)
	lacks := sp.Obstacles(FamilyWord(f), "")
	if len(lacks) > 0 { // rules of which nothing is known
		must, may = nil, all
	}
	v := V{Interfaces: []string{}, Daddr: []netip.Prefix{}, Must: prefixes(must, is4), May: prefixes(may, is4), Assumes: []string{}}
	v.Limited = len(a.Limited.Set(a.Space).Intersect(may)) > 0
	v.Sources = sp.describe(must, may, all, is4)
	v.DecidedBy = sp.deciders(a, must, may)
	if !equalSets(must, may) {
		v.Assumes = append(v.Assumes, a.Opaque...)
		v.Assumes = append(v.Assumes, a.Needs...)
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
	for p := uint16(49151); ; p-- {
		if !slices.Contains(out, p) {
			return append(out, p)
		}
	}
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
