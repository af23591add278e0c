package reach

import (
	"encoding/hex"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Space is one network namespace with the rules that its packets meet.
type Space struct {
	*fact.Namespace
	Model  *Model
	Routes *Routes
	// Others are the other namespaces of the host: containers to which this one
	// forwards. They may be added later.
	Others []*Space

	host  *fact.Host
	links []fact.Link
	// gaps are what could not be read of the rules, or is not understood as a whole.
	gaps []pathGap
	// opaque are programs and tables that see packets and that nobody models, by
	// interface ("" = every one).
	obstacles []pathGap
	daddrRead map[rs.Family]bool // by readsDaddr
	noHost    *Model             // by unnamed
	mirrors   map[rs.Family]*mirror
	told      told
	// Filled by answer and Kin.
	asked  map[string]*Answer
	kinOf  map[string]string
	tests  []interfaceTest
	unlike bool
}

// pathGap is a Gap of some families and interfaces.
type pathGap struct {
	fact.Gap
	family string // "" = both
	iface  string // "" = every interface
	in     bool   // it concerns what comes in only
}

// NewSpace joins a namespace's rules with its interfaces and routes. tables are rules
// lowered from elsewhere (legacy x_tables), which this package does not decode;
// with legacy set they stand for all of them.
func NewSpace(s *fact.Snapshot, n *fact.Namespace, tables []*rs.Table, legacy bool) *Space {
	sp := bare(s, n)
	sp.readTables(tables, legacy)
	sp.readObstacles()
	return sp
}

// WithRules joins a namespace's interfaces and routes with rules from elsewhere, in
// the place of its own, which are not looked at. order is that of the rules.
func WithRules(s *fact.Snapshot, n *fact.Namespace, tables []*rs.Table, order ByteOrder) *Space {
	sp := bare(s, n)
	sp.Model.Set.Tables, sp.Model.Order = tables, order
	sp.readObstacles()
	return sp
}

func bare(s *fact.Snapshot, n *fact.Namespace) *Space {
	sp := &Space{Namespace: n, host: &s.Host, Routes: NewRoutes(n)}
	set := &rs.Ruleset{Interfaces: map[uint32]string{}, Types: map[string]uint16{}, Kinds: map[string]string{}, Groups: map[string]uint32{}, MACs: map[string][6]byte{}}
	sp.links, _ = n.Links.Get()
	for _, l := range sp.links {
		set.Interfaces[uint32(l.Index)] = l.Name
		set.Types[l.Name] = l.Type
		set.Kinds[l.Name] = l.Kind
		if l.Group != nil {
			set.Groups[l.Name] = *l.Group
		}
		if mac, err := hex.DecodeString(strings.ReplaceAll(l.MAC, ":", "")); err == nil && len(mac) == 6 && l.Type == arphrdEther {
			set.MACs[l.Name] = [6]byte(mac)
		}
	}
	readBridges(n, set, sp.links)
	sp.Model = &Model{Set: set, Order: OrderOf(s.Host.ByteOrder), World: sp.Routes}
	return sp
}

// FromRuleset is a namespace of which nothing but its rules is known.
func FromRuleset(set *rs.Ruleset, order ByteOrder) *Space {
	n := &fact.Namespace{Name: "ruleset"}
	return &Space{Namespace: n, host: &fact.Host{}, Model: &Model{Set: set, Order: order}, Routes: NewRoutes(n)}
}

// Lack notes rules of a family that are not among those of the space: nothing about
// that family is sure.
func (sp *Space) Lack(f rs.Family, what string) {
	sp.gap(fact.Gap{Reason: fact.NotCollected}, FamilyWord(f), what)
}

func (sp *Space) gap(g fact.Gap, family, what string) {
	if what != "" {
		g.What = what
	}
	sp.gaps = append(sp.gaps, pathGap{Gap: g, family: family})
}

func (sp *Space) readTables(lowered []*rs.Table, legacy bool) {
	pf := &sp.PacketFilter
	set := sp.Model.Set
	sets, err := pfdecode.IPSetsOf(pf, sp.Model.Order)
	if err != nil {
		sp.gap(fact.Gap{Reason: fact.ParseGap}, "", "ipsets: "+err.Error())
	}
	if nft, ok := pf.NFTables.Get(); ok {
		ts, err := pfdecode.FromFactWithSets(nft, sets, sp.Model.Order)
		if err != nil {
			sp.gap(fact.Gap{Reason: fact.ParseGap}, "", "nf_tables ruleset: "+err.Error())
		}
		set.Tables = append(set.Tables, ts...)
		if nft.Truncated != nil {
			sp.gap(*nft.Truncated, "", "nf_tables ruleset, of which a part was read")
		}
	} else if g, gap := pf.NFTables.Gap(); gap {
		sp.gap(g, "", "nf_tables ruleset")
	}
	set.Tables = append(set.Tables, lowered...)
	if lt, ok := pf.Legacy.Get(); ok && !legacy {
		for _, t := range lt {
			if g, missing := t.Blob.Gap(); missing && t.Family != "arp" {
				sp.gap(g, t.Family, "the rules of the legacy table "+t.Name+" ("+t.Family+")")
			}
		}
		for _, f := range []string{"ipv4", "ipv6"} {
			ts, err := pfdecode.LegacyOf(pf, f, sets, sp.Model.Order)
			if err != nil {
				sp.gap(fact.Gap{Reason: fact.ParseGap}, f, "legacy x_tables: "+err.Error())
			}
			set.Tables = append(set.Tables, ts...)
		}
	} else if g, gap := pf.Legacy.Gap(); gap {
		sp.gap(g, "", "legacy x_tables")
	}
}

// tunnelKinds take packets out of IP packets: what stops the outer ones counts, too.
// Those are delivered to the host itself, and are answered as packets of their own.
func (sp *Space) readObstacles() {
	block := func(reason fact.Reason, family, iface, what string) {
		sp.obstacles = append(sp.obstacles, pathGap{Gap: fact.Gap{Reason: reason, What: what}, family: family, iface: iface, in: true})
	}
	for i, family := range []string{"ipv4", "ipv6"} {
		if sp.Routes.late[i] {
			block(fact.UnsupportedGap, family, "", "routing rules that come before the table of local addresses")
		}
	}
	if g, gap := sp.Links.Gap(); gap {
		block(g.Reason, "", "", "interfaces, and the XDP and TC programs on them")
	}
	for i := range sp.links {
		l := &sp.links[i]
		for _, below := range sp.stack(l) {
			if x, ok := below.XDP.Get(); ok && x != 0 {
				block(fact.UnsupportedGap, "", l.Name, "an XDP program on "+below.Name+" sees packets before the rules do")
			} else if g, gap := below.XDP.Gap(); gap {
				block(g.Reason, "", l.Name, "XDP programs on "+below.Name)
			}
			if t, ok := below.TCIngress.Get(); ok && t {
				block(fact.UnsupportedGap, "", l.Name, "a TC program on "+below.Name+" sees packets before the rules do")
			} else if g, gap := below.TCIngress.Gap(); gap {
				block(g.Reason, "", l.Name, "TC programs on "+below.Name)
			}
			switch {
			case below.Kind == "openvswitch":
				block(fact.UnsupportedGap, "", l.Name, "the flow table of Open vSwitch decides what arrives on "+l.Name)
			case below.Kind == "vrf":
				block(fact.UnsupportedGap, "", l.Name, "packets of the VRF "+below.Name+" meet the rules twice, by two interfaces")
			case below.Index != l.Index && !portOf(below, l) && sp.filtersDevice(below.Name):
				block(fact.UnsupportedGap, "", l.Name, "an ingress chain on "+below.Name+", below "+l.Name)
			case below.Index != l.Index && !portOf(below, l) && (below.Kind == "bridge" || below.SlaveKind == "bridge") && sp.filtersBridge():
				block(fact.UnsupportedGap, "", l.Name, "chains of family bridge see frames before "+l.Name+" does")
			}
		}
	}
	if eb, ok := sp.PacketFilter.EBTables.Get(); ok && eb {
		for _, l := range sp.links {
			if l.Kind == "bridge" {
				block(fact.UnsupportedGap, "", l.Name, "ebtables may hold rules")
			}
		}
	}
	onlyIn := len(sp.obstacles)
	defer func() {
		for i := onlyIn; i < len(sp.obstacles); i++ {
			sp.obstacles[i].in = false // a program may be on any hook
		}
	}()
	links, ok := sp.host.BPF.NetfilterLinks.Get()
	if !ok {
		if g, gap := sp.host.BPF.NetfilterLinks.Gap(); gap {
			block(g.Reason, "", "", "BPF netfilter links")
		}
	}
	for _, b := range links {
		if b.NetNS != 0 && b.NetNS != sp.ID.Inode {
			continue
		}
		family := map[uint8]string{uint8(rs.IPv4): "ipv4", uint8(rs.IPv6): "ipv6"}[b.Family]
		block(fact.UnsupportedGap, family, "", "a BPF program on a netfilter hook decides beside the rules")
	}
}

// portOf tells that an interface is a port of a bridge: what happens between them is
// followed.
func portOf(port, bridge *fact.Link) bool {
	return bridge.Kind == "bridge" && port.Master == bridge.Index
}

// readBridges says which interfaces are bridges, and what those hand to the hooks of IP.
func readBridges(n *fact.Namespace, set *rs.Ruleset, links []fact.Link) {
	set.Bridges, set.BridgeCalls = map[string][]string{}, map[rs.Family]bool{}
	own := map[rs.Family]bool{}
	known := true
	for i := range links {
		b := &links[i]
		if b.Kind != "bridge" {
			continue
		}
		set.Bridges[b.Name] = []string{}
		for j := range links {
			if portOf(&links[j], b) {
				set.Bridges[b.Name] = append(set.Bridges[b.Name], links[j].Name)
			}
		}
		if b.Bridge == nil {
			known = false
			continue
		}
		own[rs.IPv4], own[rs.IPv6] = own[rs.IPv4] || b.Bridge.CallIPTables, own[rs.IPv6] || b.Bridge.CallIP6Tables
	}
	t, _ := n.Sysctls.Get()
	for f, key := range map[rs.Family]string{rs.IPv4: "net/bridge/bridge-nf-call-iptables", rs.IPv6: "net/bridge/bridge-nf-call-ip6tables"} {
		v := t.Get(key)
		word, has := v.Get()
		switch {
		case has && word != "0":
			set.BridgeCalls[f] = true
		case known && !own[f] && (has || v.State() == fact.StateUnsupported):
			set.BridgeCalls[f] = false
		}
	}
}

// stack lists the interfaces whose ingress a packet for l passes: itself, the
// ports of a master, the device it is stacked on, and so on down; and the VRF above.
func (sp *Space) stack(l *fact.Link) []*fact.Link {
	var out []*fact.Link
	seen := map[int]bool{}
	for todo := []*fact.Link{l}; len(todo) > 0; todo = todo[1:] {
		x := todo[0]
		if seen[x.Index] {
			continue
		}
		seen[x.Index] = true
		out = append(out, x)
		for i := range sp.links {
			y := &sp.links[i]
			switch {
			case y.Master == x.Index && x.Kind != "vrf" && y.Master != 0,
				x.Parent == y.Index && x.Parent != 0 && x.PeerNS == nil && x.Kind != "veth" && x.Kind != "netkit" && x.Kind != "vxcan",
				x.Master == y.Index && y.Kind == "vrf":
				todo = append(todo, y)
			}
		}
	}
	return out
}

func (sp *Space) filtersDevice(name string) bool {
	for _, t := range sp.Model.Set.Tables {
		for _, c := range t.Chains {
			if c.Base == nil || c.Base.Hook != rs.Ingress || t.Dormant {
				continue
			}
			for _, d := range c.Base.Devices {
				if device(d, name) {
					return true
				}
			}
		}
	}
	return false
}

func (sp *Space) filtersBridge() bool {
	for _, t := range sp.Model.Set.Tables {
		if t.Family != rs.Bridge || t.Dormant {
			continue
		}
		for _, c := range t.Chains {
			if c.Base != nil && c.Base.Hook <= rs.Input {
				return true
			}
		}
	}
	return false
}

// Obstacles says what on the way of a family's packets in by an interface is not in
// the rules: while there is any, nothing is sure. Without an interface it is what
// concerns all of them.
func (sp *Space) Obstacles(family, iface string) []fact.Gap {
	var out []fact.Gap
	for _, list := range [][]pathGap{sp.gaps, sp.obstacles} {
		for _, g := range list {
			if (g.family == "" || g.family == family) && (g.iface == "" || g.iface == iface || iface == anyInterface) {
				out = append(out, g.Gap)
			}
		}
	}
	return out
}

// FamilyOf is the rule family of "ipv4" and "ipv6"; "ip" and "ip6" are accepted.
func FamilyOf(word string) (rs.Family, bool) {
	switch strings.ToLower(word) {
	case "ipv4", "ip", "4":
		return rs.IPv4, true
	case "ipv6", "ip6", "6":
		return rs.IPv6, true
	}
	return 0, false
}

// FamilyWord is how outputs name a family.
func FamilyWord(f rs.Family) string {
	if f == rs.IPv4 {
		return "ipv4"
	}
	return "ipv6"
}

// Trace follows one packet and says what every rule did. What no rule knows of (a
// program before the rules, a table that could not be read) leaves it unknown.
func (sp *Space) Trace(p Packet, h rs.Hook, only bool) Trace {
	p = sp.fromWire(p)
	return sp.beyond(sp.martian(sp.Model.Explain(p, h, only), p, h, only), p, h)
}

// Verdict is Trace without the path.
func (sp *Space) Verdict(p Packet, h rs.Hook, only bool) Trace {
	p = sp.fromWire(p)
	return sp.beyond(sp.martian(sp.Model.Ask(p, h, only).Summary(), p, h, only), p, h)
}

// anyInterface asks for the obstacles of them all: no interface has such a name.
const anyInterface = "*/"

func (sp *Space) beyond(t Trace, p Packet, h rs.Hook) Trace {
	if len(sp.gaps)+len(sp.obstacles) == 0 {
		return t
	}
	var gaps []fact.Gap
	if h == rs.Input || h == rs.Forward || h == rs.Prerouting {
		iface := anyInterface
		if p.IIF.Set {
			iface = p.IIF.V
		}
		gaps = sp.Obstacles(FamilyWord(p.Family), iface)
	} else {
		for _, g := range sp.gaps {
			if g.family == "" || g.family == FamilyWord(p.Family) {
				gaps = append(gaps, g.Gap)
			}
		}
	}
	if len(gaps) == 0 {
		return t
	}
	for _, g := range gaps {
		t.Unclear = append(t.Unclear, g.What)
	}
	// A program may also rewrite what it passes on: nothing is sure any more.
	t.Verdict, t.May = WordUnknown, []string{WordAccept, WordDrop, WordReject}
	return t
}
