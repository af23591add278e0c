package cli

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/logic/reach"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

type portKey struct {
	netns, proto string
	port         uint16
}

// side is who reaches a port in one of two states.
type side struct {
	process string
	vs      [2][]reach.V
}

func portsOf(d reach.Document) map[portKey]*side {
	out := map[portKey]*side{}
	for _, l := range d.Listeners {
		k := portKey{l.NetNS, l.Proto, l.Port}
		if out[k] == nil {
			out[k] = &side{process: l.Process}
		}
		out[k].vs[0] = append(out[k].vs[0], l.IPv4...)
		out[k].vs[1] = append(out[k].vs[1], l.IPv6...)
	}
	return out
}

// compare says what the second state opens and closes against the first. Something
// is opened when a source that surely stayed outside surely gets in now, and unclear
// when one may.
func compare(docs [2]reach.Document, views [2]reachView) []reach.Difference {
	a, b := portsOf(docs[0]), portsOf(docs[1])
	var keys []portKey
	for k := range a {
		keys = append(keys, k)
	}
	for k := range b {
		if a[k] == nil {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(x, y portKey) int {
		return cmp.Or(cmp.Compare(x.netns, y.netns), cmp.Compare(x.proto, y.proto), cmp.Compare(x.port, y.port))
	})
	var out []reach.Difference
	for _, k := range keys {
		for i, family := range []string{"ipv4", "ipv6"} {
			is4 := i == 0
			var must, may [2]packetset.Set
			var limited [2]bool
			var words [2]string
			var vs [2][]reach.V
			process := ""
			for j, m := range []map[portKey]*side{a, b} {
				words[j] = "-"
				if s := m[k]; s != nil {
					vs[j], process = s.vs[i], s.process
					view := views[j]
					words[j], _ = view.cell(k.netns, vs[j], is4)
					var local bool
					must[j], may[j], local, limited[j] = reach.Union(vs[j], func(n string) bool { return view.loopbacks[k.netns+" "+n] })
					if local {
						must[j], may[j] = nil, nil
					}
				}
			}
			change, ok := changed(must, may, limited, is4)
			if !ok {
				continue
			}
			d := reach.Difference{NetNS: k.netns, Hook: "input", Proto: k.proto, Port: k.port, Process: process, Family: family, Before: words[0], After: words[1], Change: change, DecidedBy: []reach.RuleRef{}}
			evidence(&d, vs[1])
			out = append(out, d)
		}
	}
	return out
}

// maxCompared bounds the questions to two rulesets.
const maxCompared = 60_000

var (
	icmp6Compared = []uint16{1, 2, 3, 4, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 143}
	icmpCompared  = []uint16{0, 3, 5, 8, 11, 12, 13}
)

// compareRules asks two rulesets without hosts about all that tells ports, protocols
// and incoming interfaces apart in either.
func compareRules(a, b *reach.Space, flt reachFilter) []reach.Difference {
	starts, wholeA := a.PortStarts()
	more, wholeB := b.PortStarts()
	starts = append(starts, more...)
	slices.Sort(starts)
	starts = slices.Compact(starts)
	ifaces := append([]string{""}, append(a.NamedInterfaces(), b.NamedInterfaces()...)...)
	slices.Sort(ifaces)
	ifaces = slices.Compact(ifaces)
	var out []reach.Difference
	if n := 8 * len(starts) * len(ifaces); n > maxCompared {
		// What is not asked may have been opened.
		keep := max(1, maxCompared/(8*len(starts)))
		left := fmt.Sprintf("%s and %d more", ifaces[keep], len(ifaces)-keep-1)
		for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
			out = append(out, reach.Difference{
				NetNS: "ruleset", Hook: rs.Input.String(), Proto: "any", Interface: left, Family: reach.FamilyWord(f), Change: reach.Unsure,
				Before: "not compared", After: "not compared: too many interfaces and ports", DecidedBy: []reach.RuleRef{},
			})
		}
		ifaces = ifaces[:keep]
	}
	type subject struct {
		word     string
		proto    uint8
		port, to uint16
	}
	var list []subject
	for _, p := range []subject{{word: "tcp", proto: 6}, {word: "udp", proto: 17}} {
		if flt.proto != "" && flt.proto != p.word {
			continue
		}
		if flt.port != 0 {
			list = append(list, subject{p.word, p.proto, flt.port, flt.port})
			continue
		}
		for i, s := range starts {
			to := s
			switch {
			case !wholeA || !wholeB:
			case i+1 < len(starts):
				to = starts[i+1] - 1
			default:
				to = 65535
			}
			list = append(list, subject{p.word, p.proto, s, to})
		}
	}
	if flt.port == 0 && flt.proto == "" {
		for _, n := range icmp6Compared {
			list = append(list, subject{"icmpv6", 58, n, 0})
		}
		for _, n := range icmpCompared {
			list = append(list, subject{"icmp", 1, n, 0})
		}
		for _, n := range []uint8{4, 41, 47, 50, 51, 132} {
			list = append(list, subject{strconv.Itoa(int(n)), n, 0, 0})
		}
	}
	for _, h := range []rs.Hook{rs.Input, rs.Forward} {
		for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
			for _, x := range list {
				if x.proto == 58 && f == rs.IPv4 || x.proto == 1 && f == rs.IPv6 {
					continue
				}
				unnamed := (*reach.Difference)(nil)
				for _, dev := range ifaces {
					q := reach.Probe{Hook: h, Family: f, Proto: x.proto, Port: x.port, IIF: dev}
					d := changeOf(a.At(q), b.At(q), f == rs.IPv4, flt)
					if dev == "" {
						unnamed = d
					} else if d != nil && unnamed != nil && d.Change == unnamed.Change && d.Before == unnamed.Before && d.After == unnamed.After {
						continue // as on all others
					}
					if d == nil {
						continue
					}
					d.NetNS, d.Hook, d.Proto, d.Port, d.Interface, d.Family = "ruleset", h.String(), x.word, x.port, dev, reach.FamilyWord(f)
					if x.to > x.port {
						d.PortTo = x.to
					}
					out = join(out, *d)
				}
			}
		}
	}
	if (!wholeA || !wholeB) && flt.port == 0 && !sameRules(a.Model.Set, b.Model.Set) {
		for _, proto := range []string{"tcp", "udp"} {
			for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
				if flt.proto == "" || flt.proto == proto {
					out = append(out, reach.Difference{
						NetNS: "ruleset", Hook: rs.Input.String(), Proto: proto, Port: 1, PortTo: 65535, Family: reach.FamilyWord(f), Change: reach.Unsure,
						Before: fmt.Sprintf("compared at %d ports: the others are told apart by a mask, or beside another field", len(starts)),
						After:  "not compared at the others (--port asks about one)", DecidedBy: []reach.RuleRef{},
					})
				}
			}
		}
	}
	return out
}

// sameRules tells that two rulesets are the same, but for handles and comments.
func sameRules(a, b *rs.Ruleset) bool {
	return slices.EqualFunc(a.Tables, b.Tables, func(x, y *rs.Table) bool {
		return x.Family == y.Family && x.Name == y.Name && x.Dormant == y.Dormant && x.Source == y.Source &&
			reflect.DeepEqual(x.Sets, y.Sets) && reflect.DeepEqual(x.Objects, y.Objects) &&
			slices.EqualFunc(x.Chains, y.Chains, func(c, d *rs.Chain) bool {
				return c.Name == d.Name && reflect.DeepEqual(c.Base, d.Base) && slices.EqualFunc(c.Rules, d.Rules, func(r, s *rs.Rule) bool {
					return reflect.DeepEqual(r.Exprs, s.Exprs)
				})
			})
	})
}

// join adds a difference; one that goes on where another ended is part of it.
func join(list []reach.Difference, d reach.Difference) []reach.Difference {
	for i := range list {
		x := &list[i]
		end := max(x.Port, x.PortTo)
		if (d.Proto == "tcp" || d.Proto == "udp") && x.Proto == d.Proto && x.Hook == d.Hook && x.Family == d.Family && x.Interface == d.Interface && x.Change == d.Change &&
			x.Before == d.Before && x.After == d.After && end+1 == d.Port && slices.Equal(x.DecidedBy, d.DecidedBy) {
			x.PortTo = max(d.Port, d.PortTo)
			return list
		}
	}
	return append(list, d)
}

// changed compares who gets in before and after, surely and possibly, and whether only up
// to a rate; false when it is the same. Who gets in without a rate that had one counts
// as opened.
func changed(must, may [2]packetset.Set, limited [2]bool, is4 bool) (reach.Change, bool) {
	minus := func(x, y packetset.Set) bool { return len(x.Intersect(y.Complement(is4))) > 0 }
	switch {
	case slices.Equal(must[0], must[1]) && slices.Equal(may[0], may[1]) && limited[0] == limited[1]:
		return "", false
	case minus(must[1], may[0]), limited[0] && !limited[1] && len(must[1].Intersect(may[0])) > 0:
		return reach.Opened, true
	case minus(may[1], may[0]), minus(must[1], must[0]):
		return reach.Unsure, true
	}
	return reach.Shut, true
}

// changeOf is what changed for one question; nil when nothing did.
func changeOf(before, after reach.V, is4 bool, flt reachFilter) *reach.Difference {
	vs := [2][]reach.V{flt.narrow([]reach.V{before}, is4), flt.narrow([]reach.V{after}, is4)}
	if len(vs[0]) == 0 || len(vs[1]) == 0 {
		return nil
	}
	var must, may [2]packetset.Set
	var limited [2]bool
	for i, v := range vs {
		must[i], may[i], _, limited[i] = reach.Union(v, func(string) bool { return false })
	}
	change, ok := changed(must, may, limited, is4)
	if !ok {
		return nil
	}
	d := &reach.Difference{Before: sourcesOf(vs[0][0]), After: sourcesOf(vs[1][0]), Change: change, DecidedBy: []reach.RuleRef{}}
	evidence(d, vs[1])
	return d
}

func sourcesOf(v reach.V) string {
	if v.Limited {
		return v.Sources + " (rate-limited)"
	}
	return v.Sources
}
