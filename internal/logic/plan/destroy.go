package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// destroyed is what the kernel takes away when an interface loses IPv6: its addresses,
// the routes by it and its permanent neighbours.
func (s *site) destroyed(iface string) []change.Object {
	index := 0
	links, _ := s.ns.Links.Get()
	for _, l := range links {
		if l.Name == iface {
			index = l.Index
		}
	}
	if index == 0 {
		return nil
	}
	var out []change.Object
	as, _ := s.ns.Addresses.Get()
	for _, a := range as {
		if a.Index != index || !a.Prefix.Addr().Is6() {
			continue
		}
		o := change.Object{Kind: change.AddressObj, Target: iface + " " + a.Prefix.String(), Interface: iface, Attributes: []string{a.Prefix.String(), "nodad"}}
		if a.Valid != fact.Forever {
			o.ValidLifetime, o.PreferredLifetime = a.Valid, a.Preferred
		}
		out = append(out, o)
	}
	ns, _ := s.ns.Neighbours.Get()
	for _, n := range ns {
		if n.Index == index && n.State&fact.NUDPermanent != 0 {
			out = append(out, change.Object{Kind: change.Neighbour, Target: iface + " " + n.Address.String(), Interface: iface, Attributes: []string{n.Address.String(), "lladdr", n.MAC, "nud", "permanent"}})
		}
	}
	rs, _ := s.ns.Routes.Get()
	for _, r := range rs {
		if r.Family != "ipv6" || r.Table == 255 || !slices.ContainsFunc(r.NextHops, func(h fact.NextHop) bool { return h.Index == index }) {
			continue
		}
		words := []string{routeDst(r.Dst)}
		for _, h := range r.NextHops {
			if h.Index == index && h.Via.IsValid() {
				words = append(words, "via", h.Via.String())
			}
		}
		words = append(words, "dev", iface, "proto", strconv.Itoa(int(r.Protocol)), "metric", strconv.FormatUint(uint64(r.Priority), 10))
		if r.Table != 254 {
			words = append(words, "table", strconv.FormatUint(uint64(r.Table), 10))
		}
		o := change.Object{Kind: change.RouteObj, Interface: iface, Attributes: words}
		for i, w := range words {
			if i > 0 {
				o.Target += " "
			}
			o.Target += w
		}
		if e, ok := r.Expires.Get(); ok && e > 0 {
			o.ValidLifetime = uint32(e)
		}
		out = append(out, o)
	}
	return out
}

func routeDst(p netip.Prefix) string {
	if p.Bits() == 0 {
		return "default"
	}
	return p.String()
}

// pins are the gateways that are to be permanent neighbours.
func (s *site) pins() []change.Step {
	var out []change.Step
	seen := map[string]bool{}
	ns, _ := s.ns.Neighbours.Get()
	for _, f := range s.ifaces {
		if !f.PinGateway || disabled(s.in) {
			continue
		}
		for j, r := range f.Routers {
			path := fmt.Sprintf("interfaces.%s.routers[%d]", f.key, j)
			if r.MAC == "" {
				s.fault(path+".mac", "write the router's MAC address, or take pinGateway away", "a gateway without a MAC address cannot be pinned")
				continue
			}
			for _, n := range s.present(f) {
				target := n + " " + r.Address.String()
				if seen[target] {
					continue
				}
				seen[target] = true
				st := change.Step{ID: "neighbour:" + target, Kind: change.Neighbour, Phase: change.Runtime, Target: target, Before: change.Image{Absent: true}, After: change.Image{Text: lower(r.MAC)}, Why: []string{"interfaces." + f.key + ".pinGateway", "NDP-06"}}
				for _, x := range ns {
					if s.linkName(x.Index) == n && x.Address == r.Address && x.State&fact.NUDPermanent != 0 {
						st.Before = change.Image{Text: lower(x.MAC)}
					}
				}
				if st.Before != st.After {
					out = append(out, st)
				}
			}
		}
	}
	return out
}
