// Package attack is what a hardened host is fired at: frames on one of its links, each
// with what ought to become of it. What ought to is worked out from the intent in the
// plainest way, and from nothing that writes rules.
//
// It is pure: who fires, and how it is seen what came through, is for others. Every
// frame carries the number of its shot, in the flow label or the IPv4 identification.
package attack

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// Peer is a machine on the link.
type Peer struct {
	MAC     ndisc.MAC
	LL      netip.Addr // link-local
	Global  netip.Addr
	Address netip.Addr // IPv4
}

// Range is where the shots are fired.
type Range struct {
	Interface string // of the host, on the link
	// Key is that of Intent.Interfaces that selects it; the name itself, when empty.
	Key string
	// Effective: the settings that the intent asks for hold as well as its rules. What is
	// for neither to decide is then not fired.
	Effective bool
	// Named are prefixes that the host or its intent speaks of: an address in them is not
	// nobody's.
	Named []netip.Prefix
	// Back tells whether what the host sends to an address goes out by this interface.
	// Nil: not known, and only Far and what is on the link are fired from.
	Back func(netip.Addr) bool
	// ElsewhereInterface is the interface behind which Elsewhere is, ElsewhereKey its key
	// of Intent.Interfaces, when it has one.
	ElsewhereInterface, ElsewhereKey string
	// Plain: packets come in without frames, as by a tunnel. What only a link has is not
	// fired.
	Plain bool
	// Led are ports that rules of others may lead elsewhere, to a container or another
	// host: the services are about what the sender asked for.
	Led []uint16
	// More are those of them that are fired at besides the services.
	More []uint16
	// Theirs: what comes in here and is led elsewhere is not for the intent to decide.
	Theirs bool
	// Transit4 and Transit6: the host passes packets on ("on"), or is to pass none
	// ("off"). Empty: that is not for the intent to decide.
	Transit4, Transit6 string
	Host               Peer
	Router             Peer // as the intent declares it, when it declares one
	Neighbour          Peer // an honest one
	Rogue              Peer
	// Far and Far4 are behind the router; Elsewhere and Elsewhere4 are behind another
	// interface of the host.
	Far, Far4, Elsewhere, Elsewhere4 netip.Addr
	// Open is a UDP flow to Far that the host has just begun, for errors about it.
	Open struct{ Local, Remote netip.AddrPort }
}

// Shot is frames that belong together, and what ought to become of them.
type Shot struct {
	ID     uint32 // from 1: flow label, or IPv4 identification
	IPv4   bool
	Group  string // what sort of shot it is, a word or two
	Name   string
	Frames [][]byte
	// Pass: it ought to come through to the host's sockets.
	Pass bool
	// Refused: the kernel itself does not take it, with rules or without.
	Refused bool
	// Led: its port is one that others may lead elsewhere.
	Led bool
}

// Corpus are the shots for an intent.
func Corpus(in *intent.Intent, r Range) []Shot {
	if r.Key == "" {
		r.Key = r.Interface
	}
	c := &corpus{in: in, r: r}
	c.v4 = in.Firewall.Manage == "" || in.Firewall.Manage == intent.ManageBoth
	c.v6 = in.Firewall.Manage != intent.ManageNone
	c.off = in.Families == intent.Disabled || in.Families == intent.DisabledKeepLoopback
	if r.Effective {
		c.off = c.off || in.Interfaces[r.Key].Addressing == intent.NoIPv6
	}
	for _, g := range []struct {
		name string
		link bool // only a link has it
		add  func()
	}{
		{"router advertisements", true, c.advertisements},
		{"neighbour discovery", true, c.neighbours},
		{"ICMPv6", false, c.icmpv6},
		{"MLD", true, c.membership},
		{"flows", false, c.flows},
		{"routing headers", false, c.headers},
		{"forged sources", false, c.sources},
		{"tunnels", false, c.tunnels},
		{"DHCP", true, c.dhcp},
		{"services", false, c.ports},
		{"transit", false, c.transit},
	} {
		if g.link && r.Plain {
			continue
		}
		c.group, c.led = g.name, false
		g.add()
	}
	return c.shots
}

type corpus struct {
	in          *intent.Intent
	r           Range
	v4, v6, off bool
	group       string
	led         bool // the port of the next shots is one of Range.Led
	shots       []Shot
}

// sport is a source port of the next shot alone: no shot goes along in the flow of another.
func (c *corpus) sport() uint16 { return uint16(40000 + len(c.shots)) }

// six adds a shot of IPv6 frames. pass is what rules that are ours ought to let through.
func (c *corpus) six(name string, pass, refused bool, make func(f ndisc.Frame) [][]byte) {
	if c.off {
		pass = false
	}
	if !c.v6 && c.r.Effective {
		return
	}
	if !c.v6 {
		pass = true
	}
	s := Shot{ID: uint32(len(c.shots) + 1), Group: c.group, Name: name, Pass: pass && !refused, Refused: refused, Led: c.led}
	f := ndisc.Frame{SrcMAC: c.r.Rogue.MAC, DstMAC: c.r.Host.MAC, Src: c.r.Rogue.LL, Dst: c.r.Host.LL, FlowLabel: s.ID}
	s.Frames = make(f)
	c.shots = append(c.shots, s)
}

func (c *corpus) four(name string, pass, refused bool, make func(f ndisc.Frame4) ndisc.Frame4) {
	if !c.v4 && c.r.Effective {
		return
	}
	if !c.v4 {
		pass = true
	}
	s := Shot{ID: uint32(len(c.shots) + 1), IPv4: true, Group: c.group, Name: name, Pass: pass && !refused, Refused: refused, Led: c.led}
	f := make(ndisc.Frame4{SrcMAC: c.r.Neighbour.MAC, DstMAC: c.r.Host.MAC, Src: c.r.Neighbour.Address, Dst: c.r.Host.Address, ID: uint16(s.ID)})
	s.Frames = [][]byte{f.Bytes()}
	c.shots = append(c.shots, s)
}

func one(f ndisc.Frame) [][]byte { return [][]byte{f.Bytes()} }

func from(f ndisc.Frame, p Peer) ndisc.Frame {
	f.SrcMAC, f.Src = p.MAC, p.LL
	return f
}

func toAll(f ndisc.Frame) ndisc.Frame {
	f.Dst, f.DstMAC = ndisc.AllNodes, ndisc.MAC{}
	return f
}

// declared tells whether the intent believes this router on this interface.
func (c *corpus) declared() bool {
	for key, i := range c.in.Interfaces {
		if key != c.r.Key {
			continue
		}
		for _, r := range i.Routers {
			if r.Address == c.r.Router.LL && i.Addressing != intent.NoIPv6 && i.Addressing != intent.Static {
				return true
			}
		}
	}
	return false
}

// advertisements are 13 ways to send one (RFC 6104, RFC 7113), forged in the name of the
// router and in the rogue's own.
func (c *corpus) advertisements() {
	ra := ndisc.RA{HopLimit: 64, Lifetime: 1800, Options: [][]byte{ndisc.PrefixInfo(netip.MustParsePrefix("2001:db8:bad::/64"), 86400, 14400)}}
	long := ndisc.Ext{Type: ndisc.HdrDestOpts, Body: append([]byte{3, 1, 28}, make([]byte, 28)...)}
	variants := []struct {
		name    string
		refused bool
		frames  func(f ndisc.Frame) [][]byte
	}{
		{"plain", false, func(f ndisc.Frame) [][]byte { return one(f.RA(ra)) }},
		{"hop-by-hop", false, ext(ra, ndisc.HdrHopByHop)},
		{"destination options", false, ext(ra, ndisc.HdrDestOpts)},
		{"hop-by-hop and destination options", false, ext(ra, ndisc.HdrHopByHop, ndisc.HdrDestOpts)},
		{"five destination options", false, ext(ra, ndisc.HdrDestOpts, ndisc.HdrDestOpts, ndisc.HdrDestOpts, ndisc.HdrDestOpts, ndisc.HdrDestOpts)},
		{"routing header 0", false, func(f ndisc.Frame) [][]byte {
			f.Ext = []ndisc.Ext{{Type: ndisc.HdrRouting, Body: []byte{0, 0, 0, 0, 0, 0, 0}}}
			return one(f.RA(ra))
		}},
		{"atomic fragment", false, func(f ndisc.Frame) [][]byte {
			f.Ext = []ndisc.Ext{{Type: ndisc.HdrFragment, Body: []byte{0, 0, 0, 0, 0, 0, 9}}}
			return one(f.RA(ra))
		}},
		{"two fragments", false, func(f ndisc.Frame) [][]byte { return f.RA(ra).Fragments(f.FlowLabel, 16) }},
		{"two fragments, reversed", false, func(f ndisc.Frame) [][]byte {
			p := f.RA(ra).Fragments(f.FlowLabel, 16)
			return [][]byte{p[1], p[0]}
		}},
		{"hop-by-hop and fragments", false, func(f ndisc.Frame) [][]byte {
			f.Ext = []ndisc.Ext{{Type: ndisc.HdrHopByHop}}
			return f.RA(ra).Fragments(f.FlowLabel, 16)
		}},
		{"ICMPv6 in the second fragment", false, func(f ndisc.Frame) [][]byte {
			g := f.RA(ra)
			body := append([]byte{ndisc.ProtoICMPv6}, long.Body...)
			g = g.Raw(ndisc.HdrDestOpts, append(body, g.Payload...))
			return g.Fragments(f.FlowLabel, 32)
		}},
		{"ICMPv6 header split", false, func(f ndisc.Frame) [][]byte { return f.RA(ra).Fragments(f.FlowLabel, 8) }},
		{"hop limit 254", false, func(f ndisc.Frame) [][]byte {
			f.HopLimit = 254
			return one(f.RA(ra))
		}},
	}
	for _, v := range variants {
		c.six("rogue RA: "+v.name, false, false, func(f ndisc.Frame) [][]byte { return v.frames(toAll(f)) })
	}
	for _, v := range variants[1:] {
		c.six("RA in the router's name: "+v.name, false, false, func(f ndisc.Frame) [][]byte { return v.frames(toAll(from(f, c.r.Router))) })
	}
	c.six("RA of the router", c.declared(), false, func(f ndisc.Frame) [][]byte {
		return one(toAll(from(f, c.r.Router)).RA(ndisc.RA{HopLimit: 64}))
	})
	mac := false
	for key, i := range c.in.Interfaces {
		for _, r := range i.Routers {
			mac = mac || key == c.r.Key && r.Address == c.r.Router.LL && r.MAC != ""
		}
	}
	c.six("RA with the router's address from another MAC", c.declared() && !mac, false, func(f ndisc.Frame) [][]byte {
		f.Src = c.r.Router.LL
		return one(toAll(f).RA(ndisc.RA{HopLimit: 64}))
	})
	c.six("RA with code 1", false, false, func(f ndisc.Frame) [][]byte {
		return one(toAll(from(f, c.r.Router)).ICMPv6(ndisc.TypeRA, 1, make([]byte, 12)))
	})
	c.six("RA from a global address", false, false, func(f ndisc.Frame) [][]byte {
		f.Src = c.r.Neighbour.Global
		return one(toAll(f).RA(ra))
	})
}

func ext(ra ndisc.RA, types ...uint8) func(ndisc.Frame) [][]byte {
	return func(f ndisc.Frame) [][]byte {
		for _, t := range types {
			f.Ext = append(f.Ext, ndisc.Ext{Type: t})
		}
		return one(f.RA(ra))
	}
}

// neighbours are solicitations, advertisements and redirects, honest and not.
func (c *corpus) neighbours() {
	host, n := c.r.Host, c.r.Neighbour
	c.six("NS for this host", true, false, func(f ndisc.Frame) [][]byte { return one(from(f, n).NS(host.LL, n.MAC)) })
	c.six("NS from a global address on the link", true, false, func(f ndisc.Frame) [][]byte {
		f.SrcMAC, f.Src = n.MAC, n.Global
		return one(f.NS(host.LL, n.MAC))
	})
	c.six("NS of duplicate address detection", true, false, func(f ndisc.Frame) [][]byte {
		f.SrcMAC, f.Src, f.DstMAC = n.MAC, netip.IPv6Unspecified(), ndisc.MAC{}
		f.Dst = solicited(host.LL)
		return one(f.NS(host.LL, ndisc.MAC{}))
	})
	c.six("NA of a neighbour", true, false, func(f ndisc.Frame) [][]byte { return one(from(f, n).NA(n.LL, ndisc.NASolicited, n.MAC)) })
	for _, v := range []struct {
		name string
		f    func(ndisc.Frame) [][]byte
	}{
		{"hop limit 254", func(f ndisc.Frame) [][]byte { f.HopLimit = 254; return one(f.NS(host.LL, f.SrcMAC)) }},
		{"code 1", func(f ndisc.Frame) [][]byte {
			t := host.LL.As16()
			return one(f.ICMPv6(ndisc.TypeNS, 1, append([]byte{0, 0, 0, 0}, t[:]...)))
		}},
		{"two fragments", func(f ndisc.Frame) [][]byte { return f.NS(host.LL, f.SrcMAC).Fragments(f.FlowLabel, 16) }},
		{"hop-by-hop", func(f ndisc.Frame) [][]byte {
			f.Ext = []ndisc.Ext{{Type: ndisc.HdrHopByHop}}
			return one(f.NS(host.LL, f.SrcMAC))
		}},
	} {
		c.six("NS: "+v.name, false, false, v.f)
	}
	c.six("NA in two fragments", false, false, func(f ndisc.Frame) [][]byte {
		return f.NA(c.r.Router.LL, ndisc.NAOverride, f.SrcMAC).Fragments(f.FlowLabel, 16)
	})
	c.six("redirect of a rogue", false, false, func(f ndisc.Frame) [][]byte { return one(f.Redirect(f.Src, c.r.Far, f.SrcMAC)) })
	c.six("redirect in the router's name", false, false, func(f ndisc.Frame) [][]byte {
		return one(from(f, c.r.Router).Redirect(c.r.Rogue.LL, c.r.Far, c.r.Rogue.MAC))
	})
	rs := c.in.Role == intent.RoleRouter || c.in.Role == intent.RoleHypervisor || c.in.Role == intent.RoleKubernetesNode
	c.six("RS", rs, false, func(f ndisc.Frame) [][]byte { return one(toAll(from(f, n)).ICMPv6(133, 0, []byte{0, 0, 0, 0})) })
}

// flows are packets of flows that the host has begun, and such as only look like it.
func (c *corpus) flows() {
	o := c.r.Open
	if !o.Local.IsValid() {
		return
	}
	for _, v := range []struct {
		name string
		port uint16
		pass bool
	}{{"answer of an open flow", o.Remote.Port(), true}, {"answer that nobody asked for", o.Remote.Port() ^ 1, c.accepts("udp", o.Local.Port(), o.Remote.Addr())}} {
		c.six(v.name, v.pass, false, func(f ndisc.Frame) [][]byte {
			f.SrcMAC, f.Src, f.Dst, f.HopLimit = c.r.Router.MAC, o.Remote.Addr(), o.Local.Addr(), 60
			return one(f.UDP(v.port, o.Local.Port(), []byte("x")))
		})
	}
}

func solicited(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// icmpv6 is the table of RFC 4890 §4.4.
func (c *corpus) icmpv6() {
	n := c.r.Neighbour
	quote := func(local, remote netip.AddrPort) []byte {
		inner := ndisc.Frame{Src: local.Addr(), Dst: remote.Addr()}.UDP(local.Port(), remote.Port(), []byte("x")).Bytes()[14:]
		return inner
	}
	forged := c.r.Open
	forged.Remote = netip.AddrPortFrom(forged.Remote.Addr(), forged.Remote.Port()^1)
	for _, e := range []struct {
		typ, code uint8
		name      string
		param     []byte
	}{{1, 4, "unreachable", []byte{0, 0, 0, 0}}, {2, 0, "packet too big", []byte{0, 0, 5, 0x14}}, {3, 0, "time exceeded", []byte{0, 0, 0, 0}}, {4, 1, "parameter problem", []byte{0, 0, 0, 6}}} {
		if c.r.Open.Local.IsValid() {
			c.six("real "+e.name, true, false, func(f ndisc.Frame) [][]byte {
				f.SrcMAC, f.Src, f.Dst, f.HopLimit = c.r.Router.MAC, c.r.Far, c.r.Open.Local.Addr(), 60
				return one(f.ICMPv6(e.typ, e.code, append(e.param, quote(c.r.Open.Local, c.r.Open.Remote)...)))
			})
			c.six("forged "+e.name, false, false, func(f ndisc.Frame) [][]byte {
				f.SrcMAC, f.Src, f.Dst, f.HopLimit = c.r.Router.MAC, c.r.Far, c.r.Open.Local.Addr(), 60
				return one(f.ICMPv6(e.typ, e.code, append(e.param, quote(forged.Local, forged.Remote)...)))
			})
		}
	}
	c.six("echo request", true, false, func(f ndisc.Frame) [][]byte {
		f.SrcMAC, f.Src, f.Dst = n.MAC, n.Global, c.r.Host.Global
		return one(f.Echo(1, 1))
	})
	c.six("echo request behind destination options", true, false, func(f ndisc.Frame) [][]byte {
		f.SrcMAC, f.Src, f.Dst = n.MAC, n.Global, c.r.Host.Global
		f.Ext = []ndisc.Ext{{Type: ndisc.HdrDestOpts}}
		return one(f.Echo(2, 1))
	})
	for _, t := range []uint8{100, 101, 127, 129, 138, 139, 140, 144, 145, 146, 147, 150, 154, 200, 201, 255} {
		c.six("ICMPv6 type "+num(int(t)), false, false, func(f ndisc.Frame) [][]byte {
			f.SrcMAC, f.Src, f.Dst = n.MAC, n.Global, c.r.Host.Global
			return one(f.ICMPv6(t, 0, make([]byte, 8)))
		})
	}
}

// membership is MLD (RFC 3810), which stands behind a hop-by-hop header.
func (c *corpus) membership() {
	alert := ndisc.Ext{Type: ndisc.HdrHopByHop, Body: []byte{0, 5, 2, 0, 0, 1, 0}}
	for _, m := range []struct {
		typ  uint8
		name string
		body int
	}{{130, "query", 24}, {131, "report", 20}, {132, "done", 20}, {143, "report, version 2", 4}} {
		for _, src := range []netip.Addr{c.r.Neighbour.LL, netip.IPv6Unspecified()} {
			if m.typ == 130 && src.IsUnspecified() {
				continue // no querier is without an address: a bridge that snoops stops it, other links do not
			}
			c.six("MLD "+m.name+" from "+src.String(), true, false, func(f ndisc.Frame) [][]byte {
				f = toAll(f)
				f.SrcMAC, f.Src, f.HopLimit, f.Ext = c.r.Neighbour.MAC, src, 1, []ndisc.Ext{alert}
				return one(f.ICMPv6(m.typ, 0, make([]byte, m.body)))
			})
		}
		c.six("MLD "+m.name+" from afar", false, false, func(f ndisc.Frame) [][]byte {
			f.SrcMAC, f.Src, f.HopLimit, f.Ext = c.r.Router.MAC, c.r.Far, 60, []ndisc.Ext{alert}
			f.Dst = c.r.Host.Global
			return one(f.ICMPv6(m.typ, 0, make([]byte, m.body)))
		})
	}
}
