package check

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// managedLink is what a manager does with one interface.
type managedLink struct {
	m *fact.Manager
	s *Space
	l *fact.Link
	// set is nil when the manager leaves the interface alone.
	set *fact.ManagedInterface
	// doubt is what keeps us from knowing which settings apply.
	doubt *fact.Gap
}

// space is the namespace a manager works in.
func (c *Context) managedSpace(m *fact.Manager) *Space {
	if m.NetNS == (fact.NamespaceID{}) {
		return c.primary()
	}
	for _, s := range c.spaces {
		if s.ID == m.NetNS {
			return s
		}
	}
	return nil
}

// settingsFor finds the settings that apply to an interface: what the running
// manager itself said, else the first whose match covers it.
func settingsFor(m *fact.Manager, l *fact.Link) (set *fact.ManagedInterface, doubt *fact.Gap) {
	for i := range m.Interfaces {
		if m.Interfaces[i].Index != 0 && m.Interfaces[i].Index == l.Index {
			return &m.Interfaces[i], nil
		}
	}
	for i := range m.Interfaces {
		mi := &m.Interfaces[i]
		if mi.Index != 0 {
			continue
		}
		switch covers(mi, l) {
		case yes:
			if doubt != nil {
				return mi, doubt
			}
			return mi, nil
		case maybe:
			if doubt == nil {
				doubt = &fact.Gap{Reason: fact.NotCollected, What: fmt.Sprintf("whether %s applies to %s (%s)", mi.Origin.File, l.Name, listing(mi.Match, 3))}
			}
			if set == nil {
				set = mi
			}
		}
	}
	return set, doubt
}

type answer int

const (
	no answer = iota
	maybe
	yes
)

// covers tells whether a match is for this interface, by name, MAC and kind.
func covers(mi *fact.ManagedInterface, l *fact.Link) answer {
	a := yes
	if len(mi.Names) == 0 && len(mi.Match) == 0 {
		return maybe
	}
	if len(mi.Names) > 0 {
		names := append([]string{l.Name}, l.AltNames...)
		if !slices.ContainsFunc(mi.Names, func(g string) bool {
			inverted := strings.HasPrefix(g, "!")
			g = strings.TrimPrefix(g, "!")
			hit := slices.ContainsFunc(names, func(n string) bool { ok, err := path.Match(g, n); return err == nil && ok })
			return hit != inverted
		}) {
			return no
		}
	}
	// Conditions of one key are alternatives, those of different keys must all hold.
	hit := map[string]bool{}
	for _, cond := range mi.Match {
		key, value, _ := strings.Cut(cond, "=")
		of := ""
		switch key {
		case "MACAddress":
			of, value = strings.ToLower(l.MAC), strings.ToLower(value)
		case "Kind":
			of = l.Kind
		case "interface-name":
			if strings.ContainsAny(value, "!|&") {
				a = maybe
				continue
			}
			of = l.Name
		default:
			a = maybe
			continue
		}
		hit[key] = hit[key] || slices.ContainsFunc(strings.Fields(value), func(w string) bool { ok, err := path.Match(w, of); return err == nil && ok })
	}
	for _, ok := range hit {
		if !ok {
			return no
		}
	}
	return a
}

// managedLinks pairs a manager with the interfaces of its namespace.
func (c *Context) managedLinks(m *fact.Manager) (links []managedLink, gap *fact.Gap) {
	s := c.managedSpace(m)
	if s == nil {
		return nil, &fact.Gap{Reason: fact.NotCollected, What: "the network namespace that " + m.Name + " manages"}
	}
	if g := gapOf(s.Links); g != nil {
		return nil, g
	}
	for i := range s.links {
		l := &s.links[i]
		if l.Flags&iffLoopback != 0 {
			continue
		}
		set, doubt := settingsFor(m, l)
		links = append(links, managedLink{m: m, s: s, l: l, set: set, doubt: doubt})
	}
	return links, nil
}
