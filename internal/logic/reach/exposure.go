package reach

import (
	"fmt"
	"net/netip"
	"slices"

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

// Flow is a port that goes on to another address or port, or one that this host may
// send to.
//
// Of an outbound flow the interfaces of a V are outgoing ones (none: any that no rule
// names), must, may and sources are destinations instead of sources: what the rules
// accept of fresh flows from this host by those interfaces, whether or not a route
// leads there. Which of its addresses, users and marks it sends with is left open: what
// rules make of them is possible and not sure. Groups, broadcasts and what the host sends
// to itself are in no list. There is no outbound flow where no rule sees what leaves.
type Flow struct {
	NetNS   string `json:"netns"`
	Kind    string `json:"kind"`              // nat: rules change the destination (published container ports) | routed: to a listener of another namespace | outbound: what this host may send
	Proto   string `json:"proto"`             // outbound, icmp: echo requests of either family
	Port    uint16 `json:"port"`              // 0: every port that no rule names; outbound: every port that no other flow has
	PortTo  uint16 `json:"portTo,omitempty"`  // outbound: the last of a range of ports that answer alike
	Target  string `json:"target"`            // where it leads: address and port, or a namespace; empty of outbound
	Process string `json:"process,omitempty"` // that listens there, where it is known
	IPv4    []V    `json:"ipv4"`
	IPv6    []V    `json:"ipv6"`
}

// The kinds of Flow.
const (
	FlowNAT      = "nat"
	FlowRouted   = "routed"
	FlowOutbound = "outbound"
)

// Expose answers for a listener over both families.
func (sp *Space) Expose(l *Listener) {
	if l.takes[0] {
		l.IPv4 = sp.expose(l, rs.IPv4)
	}
	if l.takes[1] {
		l.IPv6 = sp.expose(l, rs.IPv6)
	}
}

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
	must, may := sp.told.of(a.Space, a.must()), sp.told.of(a.Space, a.may())
	assumes := sp.Obstacles(FamilyWord(f), door.Name)
	assumes = append(assumes, unsure...)
	if !equalSets(must, may) {
		for _, w := range sp.open(a, may.Intersect(must.Complement(is4))) {
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
	ok, maybe := sp.letIn(is4, proto, door)
	if daddr.Set && linkGroups4.Contains(daddr.V) {
		ok, maybe = unite(ok, anySet), unite(maybe, anySet) // from 0.0.0.0, too (ip_mc_validate_source)
	}
	must, may = sp.told.intersect(must, ok), sp.told.intersect(may, maybe)
	if loopback(door) {
		// A local packet passed output first.
		p.Local, p.OIF, p.IIF = true, Some(door.Name), Opt[string]{}
		out := sp.Model.Ask(p, rs.Output, false)
		must = sp.told.intersect(must, sp.told.of(out.Space, out.must()))
		may = sp.told.intersect(may, sp.told.of(out.Space, out.may()))
	}
	if len(sp.Obstacles(FamilyWord(f), door.Name)) > 0 {
		must, may = nil, maybe
	}
	if len(unsure) > 0 {
		must = nil
	}
	v := V{
		Interfaces: []string{door.Name}, Daddr: []netip.Prefix{}, Limited: sp.limited(a, may), DecidedBy: []RuleRef{}, Assumes: []string{},
	}
	sp.list(&v, must, may, is4)
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

// merge puts classes together that answer alike.
func merge(list []V, v V) []V {
	for i := range list {
		x := &list[i]
		if x.Limited != v.Limited || !samePrefixes(x.Must, v.Must) || !samePrefixes(x.May, v.May) || !slices.Equal(x.DecidedBy, v.DecidedBy) || !slices.Equal(x.Assumes, v.Assumes) {
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

func samePrefixes(a, b []netip.Prefix) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// limited tells whether any source that may get in does so up to a rate only.
func (sp *Space) limited(a *Answer, may packetset.Set) bool {
	return !a.Limited.Empty() && len(a.Limited.Set(a.Space).Intersect(may)) > 0
}

// list writes who gets in, and what was left out of a list that is too long.
func (sp *Space) list(v *V, must, may packetset.Set, is4 bool) {
	in, around := sp.told.lists(must, may, is4)
	v.Must, v.May = in.prefixes, around.prefixes
	if in.cut || around.cut {
		v.Assumes = append(v.Assumes, fmt.Sprintf("the sources are more than %d prefixes: the largest are listed as must, and what covers all of them as may", maxListed))
	}
}
