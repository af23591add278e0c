package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

func bridgeGuard(c *Context) []Result {
	return c.eachSpace(func(s *Space) []Result {
		if g := gapOf(s.Links); g != nil {
			return []Result{unknown(s.Subject(), *g)}
		}
		var out []Result
		for i := range s.links {
			b := &s.links[i]
			if b.Kind != "bridge" {
				continue
			}
			out = append(out, s.judgeBridge(b))
		}
		return out
	})
}

func (s *Space) judgeBridge(b *fact.Link) Result {
	sub := s.On(b.Name)
	var open, all []string
	var gap *fact.Gap
	for i := range s.links {
		p := &s.links[i]
		if p.Master != b.Index || p.Flags&iffUp == 0 {
			continue
		}
		all = append(all, p.Name)
		if p.Kind != "veth" && p.Kind != "tun" && p.Kind != "macvtap" {
			continue
		}
		switch {
		case p.BridgePort == nil:
			gap = &fact.Gap{Reason: fact.NotCollected, What: "whether bridge port " + p.Name + " is isolated"}
			open = append(open, p.Name)
		case !p.BridgePort.Isolated:
			open = append(open, p.Name)
		}
	}
	if len(all) < 2 {
		return notApplicable(sub, "Fewer than two ports: no frame is forwarded between neighbours here.")
	}
	if len(open) == 0 {
		return pass(sub, fmt.Sprintf("The guest ports of %s are isolated from each other, or there are none.", b.Name), s.ctx.observed("RTM_GETLINK", "ports", count(len(all), "port")))
	}
	if gap != nil {
		return unknown(sub, *gap)
	}
	if g := s.bridgeFilter(all); g != nil {
		return unknown(sub, *g)
	}
	r := fail(sub, fmt.Sprintf("%s of %s can send router advertisements to the other %s: no filter sees bridged frames and the ports are not isolated.", count(len(open), "guest port"), b.Name, count(len(all)-1, "port")),
		s.ctx.passing("RTM_GETLINK", "guest ports that are not isolated", listing(open, 10)),
		s.ctx.observed("packet filter", "bridge chains, ebtables, bridge-nf-call-ip6tables", "none that sees bridged frames"))
	r.Remediation = []finding.Remediation{
		command("%s", s.Run(nft("add table bridge guard; add chain bridge guard forward { type filter hook forward priority 0; }; add rule bridge guard forward iifname { "+quotedNames(open)+" } icmpv6 type nd-router-advert drop"))),
		intent("role: hypervisor"),
	}
	if s.ctx.Role.Name == RoleHypervisor {
		r.Severity = finding.High
	}
	return r
}

// quotedNames lists interfaces for nft; names that it could misread are left out.
func quotedNames(names []string) string {
	var out []string
	for _, n := range names {
		if !strings.ContainsAny(n, "\"\\*\n") {
			out = append(out, `"`+n+`"`)
		}
	}
	return strings.Join(out, ", ")
}

// bridgeFilter says what may stand between the ports of a bridge.
func (s *Space) bridgeFilter(ports []string) *fact.Gap {
	present := &fact.Gap{Reason: fact.NotCollected, What: filtered}
	var gap *fact.Gap
	lacks := func(g *fact.Gap) {
		if gap == nil {
			gap = g
		}
	}
	chains, _ := s.nftChains()
	ip6 := false
	for _, ch := range chains {
		if !ch.Base {
			continue
		}
		switch ch.Family {
		case pfdecode.FamilyBridge:
			return present
		case pfdecode.FamilyNetdev:
			if len(ch.Devices) == 0 || slices.ContainsFunc(ch.Devices, func(d string) bool { return slices.Contains(ports, d) }) {
				return present
			}
		case pfdecode.FamilyInet, pfdecode.FamilyIPv6:
			ip6 = true
		}
	}
	if g := gapOf(s.PacketFilter.NFTables); g != nil {
		lacks(g)
	}
	if nft, ok := s.PacketFilter.NFTables.Get(); ok && len(nft.Chains) > 0 && len(chains) < len(nft.Chains) {
		lacks(&fact.Gap{Reason: fact.ParseGap, What: "nf_tables chains"})
	}
	if on, ok := s.PacketFilter.EBTables.Get(); ok && on {
		return present
	} else if g := gapOf(s.PacketFilter.EBTables); !ok && g != nil {
		lacks(g)
	}
	lt, _ := s.PacketFilter.Legacy.Get()
	ip6 = ip6 || slices.ContainsFunc(lt, func(t fact.LegacyTable) bool { return t.Family == "ipv6" })
	if g := gapOf(s.PacketFilter.Legacy); g != nil {
		lacks(g)
	}
	if v, ok := s.PacketFilter.BridgeNFCall.Get(); ok && v != "0" && ip6 {
		return present
	} else if g := gapOf(s.PacketFilter.BridgeNFCall); g != nil && ip6 {
		lacks(g)
	}
	for i := range s.links {
		l := &s.links[i]
		if !slices.Contains(ports, l.Name) {
			continue
		}
		if x, ok := l.XDP.Get(); ok && x != 0 {
			return present
		} else if g := gapOf(l.XDP); !ok && g != nil {
			lacks(g)
		}
		if t, ok := l.TCIngress.Get(); ok && t {
			return present
		} else if g := gapOf(l.TCIngress); !ok && g != nil {
			lacks(g)
		}
	}
	return gap
}
