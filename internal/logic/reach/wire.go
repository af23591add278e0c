package reach

import (
	"slices"

	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// fromWire says of a packet what the kernel gives to every one that comes in by an
// interface: it has no mark yet (build_skb; skb_scrub_packet where it crosses
// namespaces).
func (sp *Space) fromWire(p Packet) Packet {
	if !p.Mark.Set && !p.Local && p.IIF.Set && sp.unmarked(p.IIF.V) {
		p.Mark = Some(uint32(0))
	}
	return p
}

// unmarked tells that nothing can have marked what comes in by an interface. Loopback
// hands packets on with their marks, and so do tunnels and pairs within a namespace: there
// it holds where no rule sets one, which leaves SO_MARK out for tunnels only.
func (sp *Space) unmarked(iface string) bool {
	if iface == "" || iface == "lo" {
		return false
	}
	if len(sp.links) == 0 {
		return true // nothing is known but its name
	}
	i := slices.IndexFunc(sp.links, func(l fact.Link) bool { return l.Name == iface })
	if i < 0 {
		return true
	}
	l := &sp.links[i]
	switch {
	case loopback(l):
		return false
	case l.Kind == "veth":
		return l.PeerNS != nil
	case l.Tunnel != nil:
		return !sp.marks()
	}
	return true
}

// marks tells whether any rule sets a mark.
func (sp *Space) marks() bool {
	for _, t := range sp.Model.Set.Tables {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				for _, e := range flat(r.Exprs) {
					if m, ok := e.(rs.MetaSet); ok && m.Key == metaMark {
						return true
					}
				}
			}
		}
	}
	return false
}
