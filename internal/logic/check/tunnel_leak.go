package check

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// Addresses of the internet that no special route is made for: root name
// servers' networks would be, so these stand for "anywhere else".
var (
	anywhere4 = []netip.Addr{netip.MustParseAddr("23.1.2.3"), netip.MustParseAddr("151.1.2.3")} // one in each half of the space
	anywhere6 = []netip.Addr{netip.MustParseAddr("2600:1::1"), netip.MustParseAddr("2a00:1::1")}
)

// exit is where the routing policy sends a packet.
type exit struct {
	route *fact.Route // nil: nowhere
	index int
	doubt *fact.Gap
}

// Actions of rules (FR_ACT_*).
const (
	ruleToTable = 1
	ruleGoto    = 2
	ruleNop     = 3
)

// leaves follows rules and tables for a packet of this host's own to dst:
// unmarked, from no particular source, by no particular interface.
func (s *Space) leaves(dst netip.Addr) exit {
	family := FamilyOf(dst)
	rules, _ := s.Rules.Get()
	mine := slices.DeleteFunc(slices.Clone(rules), func(r fact.Rule) bool { return r.Family != family })
	if len(mine) == 0 {
		mine = []fact.Rule{{Family: family, Priority: 32766, Table: 254, Action: ruleToTable}}
	}
	slices.SortStableFunc(mine, func(a, b fact.Rule) int { return int(int64(a.Priority) - int64(b.Priority)) })
	for _, r := range mine {
		match, sure := applies(r, dst)
		if !match {
			continue
		}
		suppress := -1
		for _, c := range r.Conditions {
			if _, err := fmt.Sscanf(c, "suppress_prefixlength %d", &suppress); err != nil {
				sure = false
			}
		}
		if !sure {
			return exit{doubt: &fact.Gap{Reason: fact.NotCollected, What: fmt.Sprintf("whether routing rule %d applies", r.Priority)}}
		}
		switch r.Action {
		case ruleToTable:
		case ruleGoto:
			return exit{doubt: &fact.Gap{Reason: fact.NotCollected, What: fmt.Sprintf("routing rule %d, a goto", r.Priority)}}
		case ruleNop:
			continue
		default:
			return exit{} // blackhole, unreachable, prohibit
		}
		best := s.lookup(r.Table, dst)
		if best == nil || best.Dst.Bits() <= suppress {
			continue
		}
		if best.Type != routeUnicast {
			return exit{}
		}
		if len(best.NextHops) == 0 {
			return exit{doubt: &fact.Gap{Reason: fact.NotCollected, What: "next hops of the route to " + best.Dst.String()}}
		}
		return exit{route: best, index: best.NextHops[0].Index}
	}
	return exit{}
}

// applies tells whether a rule is for such a packet.
func applies(r fact.Rule, dst netip.Addr) (match, sure bool) {
	match, sure = true, true
	if r.Src.IsValid() && r.Src.Bits() > 0 {
		match = false // the source is chosen after the route
	}
	if r.Dst.IsValid() && r.Dst.Bits() > 0 && !r.Dst.Contains(dst) {
		match = false
	}
	if r.IIF != "" && r.IIF != "lo" || r.OIF != "" {
		match = false
	}
	if r.Mark&r.Mask != 0 {
		match = false
	}
	if r.Invert {
		match = !match
	}
	return match, sure
}

// lookup is the longest prefix match of a table.
func (s *Space) lookup(table uint32, dst netip.Addr) *fact.Route {
	rs, _ := s.Routes.Get()
	var best *fact.Route
	for i := range rs {
		r := &rs[i]
		if r.Table != table || !r.Dst.IsValid() || r.Src.IsValid() && r.Src.Bits() > 0 || !r.Dst.Contains(dst) {
			continue
		}
		if best == nil || r.Dst.Bits() > best.Dst.Bits() || r.Dst.Bits() == best.Dst.Bits() && r.Priority < best.Priority {
			best = r
		}
	}
	return best
}

// viaVPN tells whether an interface is a tunnel that a VPN may use.
func (s *Space) viaVPN(index int) bool {
	l := s.Link(index)
	return l != nil && (slices.Contains(vpnKinds, l.Kind) || kindOf(l) != "" && !slices.Contains(overlayKinds, l.Kind))
}

func vpnLeak(c *Context) []Result {
	return c.eachSpace(func(s *Space) []Result {
		sub := s.Subject()
		var gaps []fact.Gap
		for _, g := range []*fact.Gap{gapOf(s.Routes), gapOf(s.Links), gapOf(s.Rules)} {
			if g != nil {
				gaps = append(gaps, *g)
			}
		}
		if len(gaps) > 0 {
			return []Result{unknown(sub, gaps...)}
		}
		var inside *exit
		for _, d := range anywhere4 {
			x := s.leaves(d)
			if x.doubt != nil {
				return []Result{unknown(sub, *x.doubt)}
			}
			if x.route == nil || !s.viaVPN(x.index) {
				return []Result{notApplicable(sub, "The IPv4 default route does not lead into a tunnel.")}
			}
			inside = &x
		}
		vpn := s.IfName(inside.index)
		sub.Interface = vpn
		v4 := c.observed("RTM_GETROUTE", "IPv4 default", fmt.Sprintf("%s dev %s table %d", inside.route.Dst, vpn, inside.route.Table))
		for _, d := range anywhere6 {
			x := s.leaves(d)
			if x.doubt != nil {
				return []Result{unknown(sub, *x.doubt)}
			}
			if x.route == nil || s.viaVPN(x.index) {
				continue
			}
			if l := s.Link(x.index); l == nil {
				return []Result{unknown(sub, fact.Gap{Reason: fact.NotCollected, What: "the interface of the IPv6 default route"})}
			} else if l.Flags&iffLoopback != 0 {
				continue
			}
			out := s.IfName(x.index)
			return []Result{fail(sub, fmt.Sprintf("IPv4 to the internet goes into %s, and IPv6 to the internet leaves by %s, past it.", vpn, out), v4,
				c.observed("RTM_GETROUTE", "IPv6 default", fmt.Sprintf("%s dev %s table %d", x.route.Dst, out, x.route.Table)))}
		}
		return []Result{pass(sub, "IPv6 to the internet goes into the tunnel as IPv4 does, or nowhere.", v4)}
	})
}
