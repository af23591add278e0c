package check

import (
	"encoding/binary"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// notAnalysed is the Gap of every verdict that a packet filter could change,
// until reach reads rulesets.
const notAnalysed = "packet filter present, not yet analysed"

// inboundFilter is what stands between an interface and the local stack.
type inboundFilter struct {
	chains  []pfdecode.Chain
	legacy  []string
	broken  *fact.Gap // what could not be read
	decoded bool
}

// Inbound says what keeps us from claiming that a packet of this family that
// arrives on ifname reaches the local stack: nil when the namespace surely has
// no base chain, legacy table, XDP, TC or BPF netfilter program on that path.
// An empty ifname asks for every interface.
func (s *Space) Inbound(family, ifname string) *fact.Gap {
	if s.inbound == nil {
		s.inbound = map[string]inboundFilter{}
	}
	f, ok := s.inbound[family]
	if !ok {
		f = s.readInbound(family)
		s.inbound[family] = f
	}
	if len(f.chains) > 0 && slices.ContainsFunc(f.chains, func(c pfdecode.Chain) bool { return onPath(c, s, ifname) }) {
		return &fact.Gap{Reason: fact.NotCollected, What: notAnalysed}
	}
	if len(f.legacy) > 0 {
		return &fact.Gap{Reason: fact.NotCollected, What: notAnalysed}
	}
	for i := range s.links {
		l := &s.links[i]
		if !s.carries(l, ifname) {
			continue
		}
		if x, ok := l.XDP.Get(); ok && x != 0 {
			return &fact.Gap{Reason: fact.NotCollected, What: notAnalysed}
		} else if g, gap := l.XDP.Gap(); gap && f.broken == nil {
			f.broken = &fact.Gap{Reason: g.Reason, What: "XDP programs of " + l.Name}
		}
		if t, ok := l.TCIngress.Get(); ok && t {
			return &fact.Gap{Reason: fact.NotCollected, What: notAnalysed}
		} else if g, gap := l.TCIngress.Gap(); gap && f.broken == nil {
			f.broken = &fact.Gap{Reason: g.Reason, What: "TC programs of " + l.Name}
		}
	}
	return f.broken
}

// carries tells whether packets for ifname ("" = any) can come in through l:
// l itself, a port below it, or the device it is stacked on.
func (s *Space) carries(l *fact.Link, ifname string) bool {
	if ifname == "" || l.Name == ifname {
		return true
	}
	for i := range s.links {
		if s.links[i].Name == ifname {
			t := &s.links[i]
			return l.Master == t.Index && l.Master != 0 || t.Parent == l.Index && t.Parent != 0 && t.PeerNS == nil && t.Kind != "veth"
		}
	}
	return false
}

func onPath(c pfdecode.Chain, s *Space, ifname string) bool {
	if len(c.Devices) == 0 || ifname == "" {
		return true
	}
	for i := range s.links {
		if s.carries(&s.links[i], ifname) && slices.Contains(c.Devices, s.links[i].Name) {
			return true
		}
	}
	return false
}

func (s *Space) readInbound(family string) inboundFilter {
	var f inboundFilter
	missing := func(g fact.Gap, what string) {
		if f.broken == nil {
			f.broken = &fact.Gap{Reason: g.Reason, What: what}
		}
	}
	if nft, ok := s.PacketFilter.NFTables.Get(); ok {
		var order binary.ByteOrder = binary.LittleEndian
		if s.ctx.Snap.Host.ByteOrder == "big" {
			order = binary.BigEndian
		}
		cs, err := pfdecode.Chains(nft.Chains, order)
		if err != nil {
			missing(fact.Gap{Reason: fact.ParseGap}, "nf_tables chains: "+err.Error())
		}
		if nft.Truncated != nil && len(nft.Chains) == 0 {
			missing(*nft.Truncated, "nf_tables chains")
		}
		for _, c := range cs {
			if inboundHook(c, family) {
				f.chains = append(f.chains, c)
			}
		}
	} else if g, gap := s.PacketFilter.NFTables.Gap(); gap {
		missing(g, "nf_tables ruleset")
	}
	if lt, ok := s.PacketFilter.Legacy.Get(); ok {
		for _, t := range lt {
			// PRE_ROUTING or LOCAL_IN; a table whose hooks are unknown counts.
			if t.Family == family && (t.Hooks == 0 || t.Hooks&0b11 != 0) {
				f.legacy = append(f.legacy, t.Name)
			}
		}
	} else if g, gap := s.PacketFilter.Legacy.Gap(); gap {
		missing(g, "x_tables")
	}
	if links, ok := s.ctx.Snap.Host.BPF.NetfilterLinks.Get(); ok {
		for _, l := range links {
			if l.Hook <= 1 && (l.NetNS == 0 || l.NetNS == s.ID.Inode) {
				f.legacy = append(f.legacy, "BPF netfilter link")
			}
		}
	} else if g, gap := s.ctx.Snap.Host.BPF.NetfilterLinks.Gap(); gap {
		missing(g, "BPF netfilter links")
	}
	return f
}

func inboundHook(c pfdecode.Chain, family string) bool {
	if !c.Base {
		return false
	}
	switch c.Family {
	case pfdecode.FamilyInet:
		return c.Hook == pfdecode.HookPrerouting || c.Hook == pfdecode.HookInput || c.Hook == pfdecode.HookInetIngress
	case pfdecode.FamilyIPv4:
		return family == "ipv4" && c.Hook <= pfdecode.HookInput
	case pfdecode.FamilyIPv6:
		return family == "ipv6" && c.Hook <= pfdecode.HookInput
	case pfdecode.FamilyNetdev:
		return c.Hook == pfdecode.HookNetdevIngress
	case pfdecode.FamilyBridge:
		return c.Hook <= pfdecode.HookForward
	case pfdecode.FamilyARP:
		return false
	}
	return true
}
