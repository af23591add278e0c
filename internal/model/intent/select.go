package intent

import (
	"cmp"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// Unselected is what holds for an interface that no entry selects: no Router
// Advertisement is believed there, as with static addressing and no routers. An
// interface that is plugged in later is then not a way in.
func Unselected() Interface { return Interface{Addressing: Static} }

// Selection says which entry of Intent.Interfaces holds for which interface.
type Selection struct {
	// Keys are the entries by interface name. An interface that none selects is
	// missing here and listed in Unselected; loopback interfaces are in neither.
	Keys       map[string]string
	Unselected []string
	// Unused are keys that select no interface that is there now.
	Unused    []string
	Conflicts []Conflict
	// Undecided are entries that could not be compared with an interface, because
	// what they select by is not known of it.
	Undecided []Undecided
}

// Conflict is an interface that two entries select equally well, with different
// content.
type Conflict struct {
	Interface string
	Keys      [2]string
}

// Undecided is an entry and an interface that may or may not match.
type Undecided struct {
	Interface, Key, What string
}

// Of returns the content that holds for an interface.
func (in Intent) Of(s Selection, name string) Interface {
	if k, ok := s.Keys[name]; ok {
		return in.Interfaces[k]
	}
	return Unselected()
}

// Effective is the Match of an entry with the key in place of a name left out.
func (i Interface) Effective(key string) Match {
	if i.Match == (Match{}) {
		return Match{Name: key}
	}
	return i.Match
}

// Specificity compares two matches: positive when a says more than b. A MAC address
// says more than a name, a name more than a role, a role more than a glob, a glob with
// more letters more than one with fewer, and that more than a driver. What two have in
// common decides nothing.
func Specificity(a, b Match) int {
	x, y := rank(a), rank(b)
	return slices.Compare(x[:], y[:])
}

func rank(m Match) [5]int {
	var r [5]int
	if m.MAC != "" {
		r[0] = 1
	}
	if m.Name != "" {
		if !strings.ContainsAny(m.Name, globs) {
			r[1] = 1
		}
		r[3] = literals(m.Name)
	}
	if m.Role != "" {
		r[2] = 1
	}
	if m.Driver != "" {
		r[4] = 1 + literals(m.Driver)
	}
	return r
}

// globs are the characters that make a name a glob.
const globs = `*?[\`

// literals counts the characters of a glob that stand for themselves.
func literals(glob string) int {
	n, class := 0, false
	for i := 0; i < len(glob); i++ {
		switch c := glob[i]; {
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '*' || c == '?':
		case c == '\\':
			i++
			n++
		default:
			n++
		}
	}
	return n
}

const iffLoopback = 0x8

// Select says which entry holds for which interface of a namespace: the most specific
// that matches. It is a Gap when the interfaces are not known, or when an entry selects
// by the default route and the routes are not.
func (in Intent) Select(n *fact.Namespace) (Selection, *fact.Gap) {
	s := Selection{Keys: map[string]string{}}
	links, ok := n.Links.Get()
	if !ok {
		return s, gap(n.Links, "interfaces of "+n.Name)
	}
	keys := slices.Sorted(maps.Keys(in.Interfaces))
	byRole := false
	for _, k := range keys {
		byRole = byRole || in.Interfaces[k].Match.Role != ""
	}
	var uplinks map[int]bool
	if byRole {
		routes, ok := n.Routes.Get()
		if !ok {
			return s, gap(n.Routes, "routes of "+n.Name)
		}
		uplinks = defaultRouted(routes)
	}
	used := map[string]bool{}
	for i := range links {
		l := &links[i]
		if l.Flags&iffLoopback != 0 {
			continue
		}
		best, tied := "", ""
		for _, k := range keys {
			m := in.Interfaces[k].Effective(k)
			yes, unknown := m.covers(l, uplinks)
			if unknown != "" {
				s.Undecided = append(s.Undecided, Undecided{Interface: l.Name, Key: k, What: unknown})
			}
			if !yes {
				continue
			}
			used[k] = true
			if best == "" {
				best = k
				continue
			}
			switch c := Specificity(m, in.Interfaces[best].Effective(best)); {
			case c > 0:
				best, tied = k, ""
			case c == 0 && tied == "" && !sameContent(in.Interfaces[best], in.Interfaces[k]):
				tied = k
			}
		}
		switch {
		case best == "":
			s.Unselected = append(s.Unselected, l.Name)
			continue
		case tied != "":
			s.Conflicts = append(s.Conflicts, Conflict{Interface: l.Name, Keys: [2]string{best, tied}})
		}
		s.Keys[l.Name] = best
	}
	for _, k := range keys {
		if !used[k] {
			s.Unused = append(s.Unused, k)
		}
	}
	slices.Sort(s.Unselected)
	slices.SortFunc(s.Conflicts, func(a, b Conflict) int { return cmp.Compare(a.Interface, b.Interface) })
	return s, nil
}

func gap[T any](k fact.Known[T], what string) *fact.Gap {
	if g, ok := k.Gap(); ok {
		return &g
	}
	return &fact.Gap{Reason: fact.NotCollected, What: what}
}

func sameContent(a, b Interface) bool {
	a.Match, b.Match = Match{}, Match{}
	return reflect.DeepEqual(a, b)
}

// defaultRouted are the interfaces (by index) that carry a default route of either
// family, in any table but the local one.
func defaultRouted(routes []fact.Route) map[int]bool {
	const unicast, local = 1, 255
	out := map[int]bool{}
	for _, r := range routes {
		if r.Dst.Bits() != 0 || r.Type != unicast || r.Table == local {
			continue
		}
		for _, h := range r.NextHops {
			out[h.Index] = true
		}
	}
	return out
}

// covers tells whether a match takes an interface; unknown names the fact that is
// missing to tell.
func (m Match) covers(l *fact.Link, uplinks map[int]bool) (yes bool, unknown string) {
	if m.Name != "" && !glob(m.Name, l.Name) && !slices.ContainsFunc(l.AltNames, func(a string) bool { return glob(m.Name, a) }) {
		return false, ""
	}
	if m.MAC != "" && !strings.EqualFold(m.MAC, l.MAC) {
		return false, ""
	}
	if m.Role == DefaultRoute && !uplinks[l.Index] {
		return false, ""
	}
	if m.Driver != "" {
		d, ok := l.Driver.Get()
		switch {
		case ok:
		case l.Kind != "":
			d = l.Kind // the driver of a virtual interface is its kind
		case l.Driver.State() == fact.StateGap:
			return false, "driver of " + l.Name
		default:
			return false, ""
		}
		if !glob(m.Driver, d) {
			return false, ""
		}
	}
	return m != Match{}, ""
}

func glob(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}
