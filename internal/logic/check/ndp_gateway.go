package check

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// gatewayOf is a next hop of a default route.
type gatewayOf struct {
	index int
	via   netip.Addr
}

// gateways lists the IPv6 next hops of default routes, also those that IPv4
// default routes use (RTA_VIA), each once.
func (s *Space) gateways() []gatewayOf {
	rs, _ := s.Routes.Get()
	var out []gatewayOf
	for _, r := range rs {
		if r.Dst.Bits() != 0 || r.Type != routeUnicast || r.Table == tableLocal {
			continue
		}
		for _, h := range r.NextHops {
			g := gatewayOf{h.Index, h.Via.WithZone("")}
			if h.Via.Is6() && !h.Via.Is4In6() && !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
	}
	slices.SortFunc(out, func(a, b gatewayOf) int {
		if a.index != b.index {
			return a.index - b.index
		}
		return a.via.Compare(b.via)
	})
	return out
}

func gatewayPinned(c *Context) []Result {
	return c.eachSpace(func(s *Space) []Result {
		if g := gapOf(s.Routes); g != nil {
			return []Result{unknown(s.Subject(), *g)}
		}
		gs := s.gateways()
		if rs, _ := s.Routes.Get(); slices.ContainsFunc(rs, func(r fact.Route) bool {
			return r.Dst.Bits() == 0 && r.Type == routeUnicast && r.NextHopID != 0 && len(r.NextHops) == 0
		}) {
			return []Result{unknown(s.Subject(), fact.Gap{Reason: fact.NotCollected, What: "next hops of a default route that refers to a nexthop object"})}
		}
		if len(gs) == 0 {
			return []Result{notApplicable(s.Subject(), "No default route leads through an IPv6 gateway.")}
		}
		if g := gapOf(s.Links); g != nil {
			return []Result{unknown(s.Subject(), *g)}
		}
		entries := map[gatewayOf]fact.Neighbour{}
		ns, _ := s.Neighbours.Get()
		for _, n := range ns {
			entries[gatewayOf{n.Index, n.Address.WithZone("")}] = n
		}
		var out []Result
		for _, g := range gs {
			sub := s.On(s.IfName(g.index))
			sub.Address = g.via.String()
			l := s.Link(g.index)
			if l != nil && l.Flags&(iffPointToPoint|iffNoARP|iffLoopback) != 0 {
				out = append(out, notApplicable(sub, "On a point-to-point or NOARP link no neighbour is resolved."))
				continue
			}
			if gap := gapOf(s.Neighbours); gap != nil {
				out = append(out, unknown(sub, *gap))
				continue
			}
			n, have := entries[g]
			ev := []finding.Evidence{c.observed("RTM_GETROUTE", "default route via", g.via.String()+" dev "+sub.Interface)}
			state := "there is no entry for it at this moment, and a solicitation or an RA makes one"
			if have {
				state = "its entry is " + nudState(n.State)
				ev = append(ev, c.observed("RTM_GETNEIGH", "lladdr", n.MAC), c.passing("RTM_GETNEIGH", "state", nudState(n.State)))
			}
			if have && n.State&(fact.NUDPermanent|fact.NUDNoARP) != 0 {
				out = append(out, pass(sub, "The entry of gateway "+g.via.String()+" is "+nudState(n.State)+": no message changes it.", ev...))
				continue
			}
			r := fail(sub, fmt.Sprintf("Default gateway %s on %s is not pinned: %s. The kernel would accept a solicitation, an advertisement or an RA from any neighbour that gives it another MAC address.", g.via, sub.Interface, state), ev...)
			if have && n.MAC != "" {
				r.Remediation = []finding.Remediation{
					command("%s", s.Run(fmt.Sprintf("ip -6 neigh replace %s lladdr %s dev %s nud permanent", g.via, shellWord(n.MAC), shellWord(sub.Interface)))),
					advice("First make sure that this MAC is the router's. Repeat the command in the network manager's up hook."),
					intent("interfaces:\n  %s:\n    routers: [{address: %q, mac: %q}]", yamlWord(sub.Interface), g.via.String(), n.MAC),
				}
			} else {
				show := s.Run(fmt.Sprintf("ip -6 neigh show %s dev %s", g.via, shellWord(sub.Interface)))
				r.Remediation = []finding.Remediation{
					advice("No MAC is known for %s at this moment. Reach it once, compare what `%s` says with the router's real MAC, and audit again: the command that pins it is then printed here.", g.via, show),
					intent("interfaces:\n  %s:\n    routers: [{address: %q}]", yamlWord(sub.Interface), g.via.String()),
				}
			}
			out = append(out, s.behind(poison(), sub.Interface, r))
		}
		return out
	})
}

// nudState is the word ip(8) uses.
func nudState(v uint16) string {
	for _, n := range []struct {
		bit  uint16
		word string
	}{
		{fact.NUDPermanent, "PERMANENT"},
		{fact.NUDNoARP, "NOARP"},
		{fact.NUDReachable, "REACHABLE"},
		{fact.NUDStale, "STALE"},
		{fact.NUDDelay, "DELAY"},
		{fact.NUDProbe, "PROBE"},
		{fact.NUDIncomplete, "INCOMPLETE"},
		{fact.NUDFailed, "FAILED"},
	} {
		if v&n.bit != 0 {
			return n.word
		}
	}
	return "NONE"
}
