package reach

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Fate is what becomes of the packets of one kind, over the sources that matter.
type Fate struct {
	Interface string
	// Must and May are the accepted ones among the sources that were asked about.
	Must, May packetset.Set
	Asked     packetset.Set
	Limited   bool // some only up to a rate
	DecidedBy []RuleRef
	Unclear   []fact.Gap
}

// Accepted tells that every source that matters surely gets in.
func (f *Fate) Accepted() bool { return len(f.Unclear) == 0 && equalSets(f.Must, f.Asked) }

// Dropped tells that none gets in.
func (f *Fate) Dropped() bool { return len(f.Unclear) == 0 && len(f.May) == 0 }

// Sure tells that the answer is known for every source.
func (f *Fate) Sure() bool { return len(f.Unclear) == 0 && equalSets(f.Must, f.May) }

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

// doorsOutside are the interfaces by which others send.
func (sp *Space) doorsOutside(family, only string) []*fact.Link {
	var out []*fact.Link
	for _, l := range sp.doors(family) {
		if !loopback(l) && (only == "" || l.Name == only) {
			out = append(out, l)
		}
	}
	return out
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

// Protocol answers for packets of a transport protocol from anybody.
func (sp *Space) Protocol(f rs.Family, proto uint8, iface string) []Fate {
	var out []Fate
	from := netip.MustParsePrefix("::/0")
	if f == rs.IPv4 {
		from = netip.MustParsePrefix("0.0.0.0/0")
	}
	for _, door := range sp.doorsOutside(FamilyWord(f), iface) {
		p := Packet{Family: f, IIF: Some(door.Name), Proto: Some(proto), Sport: Range{1024, 65535}, Ct: Some(uint32(CtNew)), Mark: Some(uint32(0))}
		if d := sp.destinations(&Listener{Proto: "tcp"}, f, door); len(d) > 0 {
			p.Daddr = Some(d[0])
		}
		out = append(out, sp.fate(p, door, from))
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
		for _, w := range append(a.Opaque, a.Needs...) {
			f.Unclear = append(f.Unclear, fact.Gap{Reason: fact.UnsupportedGap, What: w})
		}
		if len(f.Unclear) == 0 {
			f.Unclear = append(f.Unclear, fact.Gap{Reason: fact.UnsupportedGap, What: "a rule that depends on more than the packet"})
		}
	}
	return f
}

// Port answers for a port from outside, by every interface ("" = all), at an address
// of the host (invalid or unspecified = all).
func (sp *Space) Port(f rs.Family, proto string, port uint16, iface string, at netip.Addr) []V {
	l := &Listener{Proto: proto, Port: port}
	if at.IsValid() && !at.IsUnspecified() {
		l.local = at
	}
	var out []V
	for _, v := range sp.expose(l, f) {
		outside := false
		for _, n := range v.Interfaces {
			for _, d := range sp.doorsOutside(FamilyWord(f), iface) {
				outside = outside || d.Name == n
			}
		}
		if outside {
			out = append(out, v)
		}
	}
	return out
}

// Loopback tells whether an interface is a loopback one.
func (sp *Space) Loopback(name string) bool {
	for i := range sp.links {
		if sp.links[i].Name == name {
			return loopback(&sp.links[i])
		}
	}
	return false
}
