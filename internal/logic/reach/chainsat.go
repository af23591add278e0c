package reach

import (
	"cmp"
	"slices"
	"strings"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Hooks are the hooks that a packet of each verb passes, in order.
func hooksOf(h rs.Hook) []rs.Hook {
	switch h {
	case rs.Input:
		return []rs.Hook{rs.Ingress, rs.Prerouting, rs.Input}
	case rs.Forward:
		return []rs.Hook{rs.Ingress, rs.Prerouting, rs.Forward, rs.Postrouting, rs.Egress}
	case rs.Output:
		return []rs.Hook{rs.Output, rs.Postrouting, rs.Egress}
	}
	return []rs.Hook{h}
}

// chainsAt lists the base chains of a hook that see a packet, in the order the
// kernel runs them.
func chainsAt(set *rs.Ruleset, s stop, p *Packet) []*rs.Chain {
	var out []*rs.Chain
	h := s.hook
	for _, t := range set.Tables {
		if t.Dormant || (t.Family == rs.Bridge) != s.bridge {
			continue
		}
		switch t.Family {
		case rs.Bridge:
		case rs.Inet:
		case rs.IPv4, rs.IPv6:
			if t.Family != p.Family {
				continue
			}
		case rs.Netdev:
			if h != rs.Ingress && h != rs.Egress {
				continue
			}
		default:
			continue
		}
		for _, c := range t.Chains {
			if c.Base == nil || c.Base.Hook != h {
				continue
			}
			if c.Base.Priority < s.from || c.Base.Priority > s.to || hooked(c, s.device()) == no {
				continue
			}
			// NAT is for packets of connections.
			if c.Base.Type == "nat" && p.Ct.Set && p.Ct.V&(CtNew|CtEstablished|CtRelated) == 0 {
				continue
			}
			out = append(out, c)
		}
	}
	// Among equals the one that was hooked last runs first (nf_hook_entries_grow).
	slices.Reverse(out)
	slices.SortStableFunc(out, func(a, b *rs.Chain) int {
		return cmp.Or(cmp.Compare(priority(a), priority(b)), cmp.Compare(a.Base.Priority, b.Base.Priority))
	})
	return out
}

// priority is when a base chain runs. Chains of type nat are called by the kernel's
// own hooks, whatever priority they have among themselves (nf_nat_core.c).
func priority(c *rs.Chain) int32 {
	if c.Base.Type != "nat" {
		return c.Base.Priority
	}
	return natPriority(c.Base.Hook)
}

// natPriority is the one of the kernel's own NAT at a hook.
func natPriority(h rs.Hook) int32 {
	if h == rs.Prerouting || h == rs.Output {
		return prioDNAT
	}
	return prioSNAT
}

func deviceField(h rs.Hook) field {
	if h == rs.Egress {
		return fieldOIF
	}
	return fieldIIF
}

// device is the one whose ingress or egress chains see the packet.
func (s *stop) device() Opt[string] {
	if s.hook == rs.Egress {
		return s.out
	}
	return s.in
}

// placeOf is where a base chain runs.
func placeOf(c *rs.Chain) place {
	return place{hook: c.Base.Hook, prio: priority(c), device: c.Table.Family == rs.Netdev}
}

// hooked tells whether a base chain sees packets of a device: ingress and egress chains
// belong to some.
func hooked(c *rs.Chain, dev Opt[string]) tri {
	switch {
	case c.Base.Hook != rs.Ingress && c.Base.Hook != rs.Egress:
		return yes
	case !dev.Set:
		return maybe
	case slices.ContainsFunc(c.Base.Devices, func(d string) bool { return device(d, dev.V) }):
		return yes
	}
	return no
}

func device(pattern, name string) bool {
	if p, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, p)
	}
	return pattern == name
}
