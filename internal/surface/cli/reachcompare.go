package cli

import (
	"cmp"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/logic/reach"
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

func portsOf(d reachDocument) map[portKey]*side {
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
// is opened when a source that surely stayed outside surely gets in now.
func compare(docs [2]reachDocument, views [2]reachView) []difference {
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
	var out []difference
	for _, k := range keys {
		for i, family := range []string{"ipv4", "ipv6"} {
			is4 := i == 0
			var must, may [2]packetset.Set
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
					must[j], may[j], local, _ = reach.Union(vs[j], func(n string) bool { return view.loopbacks[k.netns+" "+n] })
					if local {
						must[j], may[j] = nil, nil
					}
				}
			}
			if slices.Equal(must[0], must[1]) && slices.Equal(may[0], may[1]) {
				continue
			}
			d := difference{NetNS: k.netns, Proto: k.proto, Port: k.port, Process: process, Family: family, Before: words[0], After: words[1], DecidedBy: []reach.RuleRef{}}
			minus := func(x, y packetset.Set) bool { return len(x.Intersect(y.Complement(is4))) > 0 }
			switch {
			case minus(must[1], may[0]):
				d.Change = "opened"
				d.evidence(vs[1])
			case minus(may[1], must[0]):
				d.Change = "unclear"
				d.evidence(vs[1])
			default:
				d.Change = "closed"
				d.evidence(vs[1])
			}
			out = append(out, d)
		}
	}
	return out
}
