package check

import "github.com/sixfence/sixfence/internal/model/fact"

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
		set, doubt := m.For(l)
		links = append(links, managedLink{m: m, s: s, l: l, set: set, doubt: doubt})
	}
	return links, nil
}
