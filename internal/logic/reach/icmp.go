package reach

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// ICMPv6 is a message for this host: its type, how conntrack sees it, and from
// where it comes (RFC 4890 §4.4).
type ICMPv6 struct {
	Type uint8
	Name string
	Ct   uint32 // CtRelated, CtNew, CtInvalid; neighbour discovery and MLD are never tracked
	Hop  uint8  // the hop limit that the message must have; 0 any
	From string // prefix of its sources
	To   string // a destination; empty: an address of the host
}

// ICMPv6Local are the messages that a host cannot do without, and redirect.
func ICMPv6Local() []ICMPv6 {
	const any, ll = "::/0", "fe80::/10"
	return []ICMPv6{
		{1, "destination unreachable", CtRelated, 0, any, ""},
		{2, "packet too big", CtRelated, 0, any, ""},
		{3, "time exceeded", CtRelated, 0, any, ""},
		{4, "parameter problem", CtRelated, 0, any, ""},
		{128, "echo request", CtNew, 0, any, ""},
		{130, "MLD query", CtUntracked, 1, ll, "ff02::1"},
		{131, "MLD report", CtUntracked, 1, ll, "ff02::1"},
		{132, "MLD done", CtUntracked, 1, ll, "ff02::2"},
		{133, "router solicitation", CtUntracked, 255, ll, "ff02::2"},
		{134, "router advertisement", CtUntracked, 255, ll, "ff02::1"},
		{135, "neighbour solicitation", CtUntracked, 255, ll, ""},
		{136, "neighbour advertisement", CtUntracked, 255, ll, ""},
		{137, "redirect", CtInvalid, 255, ll, ""},
		{143, "MLDv2 report", CtUntracked, 1, ll, "ff02::16"},
	}
}

// packet is the message as it comes in by an interface.
func (m ICMPv6) packet(iface string) Packet {
	p := Packet{
		Family: rs.IPv6, IIF: Some(iface), Proto: Some(uint8(58)), ICMPType: Some(m.Type), ICMPCode: Some(uint8(0)),
		Ct: Some(m.Ct), Mark: Some(uint32(0)),
	}
	if m.Hop != 0 {
		p.HopLimit = Some(m.Hop)
	}
	if m.Type >= 130 && m.Type <= 132 || m.Type == 143 {
		p.Exthdr = []Ext{{Number: 0}} // router alert
	}
	if m.To != "" {
		p.Daddr = Some(netip.MustParseAddr(m.To))
	}
	return p
}

// Message answers for a message on every interface that hears others ("" = all).
func (sp *Space) Message(m ICMPv6, iface string) []Fate {
	var out []Fate
	for _, door := range sp.doorsOutside("ipv6", iface) {
		p := m.packet(door.Name)
		if d := sp.destinations(&Listener{Proto: "tcp"}, rs.IPv6, door); m.To == "" && len(d) > 0 {
			p.Daddr = Some(d[0])
		}
		out = append(out, sp.fate(p, door, netip.MustParsePrefix(m.From)))
	}
	return out
}

func (sp *Space) fate(p Packet, door *fact.Link, from netip.Prefix) Fate {
	is4 := p.Family == rs.IPv4
	m := sp.Model
	if door == anyLink {
		m = sp.unnamed()
	}
	a := m.Ask(p, rs.Input, false)
	asked := packetset.Set{packetset.PrefixInterval(from)}
	ok, maybe := sp.letIn(is4, "", door)
	f := Fate{Interface: door.Name, Asked: asked.Intersect(ok)}
	f.Must, f.May = a.Must().Intersect(f.Asked), a.May().Intersect(asked).Intersect(maybe)
	f.Limited = len(a.Limited.Set(a.Space).Intersect(f.May)) > 0
	f.DecidedBy = sp.deciders(a, f.Must, f.May)
	if f.Unclear = sp.Obstacles(FamilyWord(p.Family), door.Name); len(f.Unclear) > 0 {
		f.Must, f.May = nil, asked
	}
	if !equalSets(f.Must, f.May) {
		for _, w := range sp.open(a, f.May.Intersect(f.Must.Complement(p.Family == rs.IPv4))) {
			f.Unclear = append(f.Unclear, fact.Gap{Reason: fact.UnsupportedGap, What: w})
		}
	}
	return f
}
