package attack

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/model/intent"
)

func num(n int) string { return strconv.Itoa(n) }

const syn = 2

// headers are routing headers and fragments.
func (c *corpus) headers() {
	n := c.r.Neighbour
	for _, left := range []byte{0, 1} {
		c.six("routing header 0, "+num(int(left))+" left", false, false, func(f ndisc.Frame) [][]byte {
			f.SrcMAC, f.Src, f.Dst = n.MAC, n.Global, c.r.Host.Global
			via := c.r.Far.As16()
			f.Ext = []ndisc.Ext{{Type: ndisc.HdrRouting, Body: append([]byte{2, 0, left, 0, 0, 0, 0}, via[:]...)}}
			return one(f.Echo(3, 1))
		})
	}
}

// sources are addresses that no packet from this link has.
func (c *corpus) sources() {
	h := c.r.Host
	port := c.open(false)
	for _, s := range []struct {
		addr    string
		refused bool
		block   string // nobody's, unless somebody speaks of a part of it
	}{
		{"::1", true, ""},
		{"::ffff:127.0.0.1", false, ""},
		{"::ffff:192.0.2.1", false, ""},
		{"::192.0.2.1", false, ""},
		{"fec0::1", false, "fec0::/10"},
		{"100::1", false, "100::/64"},
		{"2002:a00:1::1", false, "2002:a00::/24"},
		{"2002:7f00::1", false, "2002:7f00::/24"},
		{"ff02::1", true, ""},
		{"5f00::1", false, "5f00::/16"},
	} {
		if s.block != "" && slices.ContainsFunc(c.r.Named, func(p netip.Prefix) bool { return p.Bits() > 0 && p.Overlaps(netip.MustParsePrefix(s.block)) }) {
			continue
		}
		c.six("source "+s.addr, false, s.refused, func(f ndisc.Frame) [][]byte {
			f.Src, f.Dst, f.HopLimit = netip.MustParseAddr(s.addr), h.Global, 64
			return one(f.TCP(c.sport(), port, syn))
		})
	}
	if c.in.Interfaces[c.r.Key].AsymmetricRouting {
		return // sources are not held to the routes here
	}
	for _, s := range []struct {
		name string
		addr netip.Addr
	}{{"of this host", h.Global}, {"behind another interface", c.r.Elsewhere}} {
		c.six("source "+s.name, false, false, func(f ndisc.Frame) [][]byte {
			f.Src, f.Dst, f.HopLimit = s.addr, h.Global, 64
			return one(f.TCP(c.sport(), port, syn))
		})
	}
	port = c.open(true)
	c.four("source behind another interface (IPv4)", false, false, func(f ndisc.Frame4) ndisc.Frame4 {
		f.Src = c.r.Elsewhere4
		return f.TCP(c.sport(), port, syn)
	})
	c.four("source 240.0.0.1", false, false, func(f ndisc.Frame4) ndisc.Frame4 {
		f.Src = netip.MustParseAddr("240.0.0.1")
		return f.TCP(c.sport(), port, syn)
	})
}

// open is a port that the host accepts from everywhere, or 22: so that a source is all
// that is wrong.
func (c *corpus) open(v4 bool) uint16 {
	for _, v := range c.in.Services {
		if v.From != nil || v.Interfaces != nil || v.Families != nil && !slices.Contains(v.Families, word(v4)) || v.To != nil {
			continue
		}
		for _, p := range v.Ports {
			if x, err := intent.ParsePort(p); err == nil && x.Proto == ndisc.ProtoTCP {
				return x.From
			}
		}
	}
	return 22
}

func word(v4 bool) string {
	if v4 {
		return "ipv4"
	}
	return "ipv6"
}

// tunnels are packets in packets.
func (c *corpus) tunnels() {
	n := c.r.Neighbour
	inner := ndisc.Frame{Src: c.r.Far, Dst: c.r.Host.Global}.TCP(40000, 22, syn).Bytes()[14:]
	for _, p := range []uint8{4, 41, 47, 94, 97, 98, 115, 137} {
		c.four("protocol "+num(int(p))+" in IPv4", c.tunnel(p, n.Address), false, func(f ndisc.Frame4) ndisc.Frame4 { return f.Raw(p, inner) })
		c.six("protocol "+num(int(p))+" in IPv6", c.tunnel(p, n.Global), false, func(f ndisc.Frame) [][]byte {
			f.SrcMAC, f.Src, f.Dst, f.HopLimit = n.MAC, n.Global, c.r.Host.Global, 64
			return one(f.Raw(p, inner))
		})
	}
	for _, p := range []uint16{3544, 3653, 5072} {
		c.four("tunnel by udp/"+num(int(p)), c.accepts("udp", p, n.Address), false, func(f ndisc.Frame4) ndisc.Frame4 { return f.UDP(p, p, []byte("x")) })
	}
}

// carriers are the mechanisms that an intent may name, by the IP protocol they use.
var carriers = map[uint8][]string{
	4: {"ipip", "ip6tnl"}, 41: {"6in4", "6to4", "6rd", "isatap", "ip6tnl"}, 47: {"gre", "ip6gre"}, 115: {"l2tp"},
}

// carried are the mechanisms that an intent may name, by the port they use.
var carried = map[string][]string{
	"udp/3544": {"teredo"}, "udp/500": {"vti", "vti6", "ipsec"}, "udp/4500": {"vti", "vti6", "ipsec"}, "udp/1701": {"l2tp"}, "udp/51820": {"wireguard"},
	"udp/1194": {"openvpn"}, "tcp/1194": {"openvpn"}, "udp/4789": {"vxlan"}, "udp/8472": {"vxlan"}, "udp/6081": {"geneve"}, "udp/5555": {"fou"}, "udp/6080": {"gue"},
}

// over is the family whose packets carry a mechanism, where it is one alone.
var over = map[string]string{
	"6in4": "ipv4", "6to4": "ipv4", "6rd": "ipv4", "isatap": "ipv4", "teredo": "ipv4", "gre": "ipv4", "ipip": "ipv4", "vti": "ipv4",
	"ip6gre": "ipv6", "ip6tnl": "ipv6", "vti6": "ipv6",
}

// listed tells whether one of these tunnels is listed for a peer.
func (c *corpus) listed(peer netip.Addr, mechanisms ...string) bool {
	return c.in.Tunnels.Policy == intent.TunnelsList && slices.ContainsFunc(c.in.Tunnels.List, func(t intent.Tunnel) bool {
		if !slices.Contains(mechanisms, t.Mechanism) {
			return false
		}
		if t.Peer.IsValid() {
			return t.Peer.Contains(peer)
		}
		return over[t.Mechanism] == "" || over[t.Mechanism] == word(peer.Is4())
	})
}

// tunnel tells whether a protocol is wanted from a source, as a tunnel or as a service.
func (c *corpus) tunnel(proto uint8, src netip.Addr) bool {
	v4 := src.Is4()
	if v4 && c.in.Families == intent.IPv6Only {
		return false
	}
	if c.listed(src, carriers[proto]...) {
		return true
	}
	for _, v := range c.in.Services {
		for _, p := range v.Ports {
			if x, err := intent.ParsePort(p); err == nil && x.Whole() && x.Proto == proto && c.about(v, src) {
				return true
			}
		}
	}
	return false
}

// dhcp are answers that nobody tracked.
func (c *corpus) dhcp() {
	i := c.in.Interfaces[c.r.Key]
	client := i.Addressing != intent.NoIPv6 && (i.Addressing == intent.DHCPv6 || i.DHCPv6Servers != nil)
	listed := func(a netip.Addr) bool {
		return client && (len(i.DHCPv6Servers) == 0 || slices.ContainsFunc(i.DHCPv6Servers, func(d intent.DHCPv6Server) bool { return d.Address == a }))
	}
	c.six("DHCPv6 answer of the router", listed(c.r.Router.LL) || c.accepts("udp", 546, c.r.Router.LL), false, func(f ndisc.Frame) [][]byte {
		return one(from(f, c.r.Router).UDP(547, 546, []byte{7, 0, 0, 1}))
	})
	c.six("DHCPv6 answer of a rogue", listed(c.r.Rogue.LL) || c.accepts("udp", 546, c.r.Rogue.LL), false, func(f ndisc.Frame) [][]byte { return one(f.UDP(547, 546, []byte{7, 0, 0, 1})) })
	c.six("DHCPv6 answer from afar", c.accepts("udp", 546, c.r.Far), false, func(f ndisc.Frame) [][]byte {
		f.Src, f.Dst, f.HopLimit = c.r.Far, c.r.Host.Global, 60
		return one(f.UDP(547, 546, []byte{7, 0, 0, 1}))
	})
	c.four("DHCPv4 answer", c.in.Families != intent.IPv6Only, false, func(f ndisc.Frame4) ndisc.Frame4 { return f.UDP(67, 68, make([]byte, 240)) })
}

// ports are fresh flows to ports that are listed and to others, from the link and from
// afar, over both families, bare and behind extension headers.
func (c *corpus) ports() {
	type port struct {
		proto string
		n     uint16
	}
	list := []port{{"tcp", 22}, {"tcp", 23}, {"tcp", 443}, {"tcp", 5432}, {"udp", 53}, {"udp", 443}, {"udp", 1900}, {"tcp", 65535}}
	for _, v := range c.in.Services {
		for _, p := range v.Ports {
			if x, err := intent.ParsePort(p); err == nil && (x.Name == "tcp" || x.Name == "udp") {
				for _, n := range []uint16{x.From, x.To, x.From - 1, x.To + 1} {
					if n != 0 && !slices.Contains(list, port{x.Name, n}) {
						list = append(list, port{x.Name, n})
					}
				}
			}
		}
	}
	for _, n := range c.r.More {
		for _, proto := range []string{"tcp", "udp"} {
			if !slices.Contains(list, port{proto, n}) {
				list = append(list, port{proto, n})
			}
		}
	}
	slices.SortFunc(list, func(a, b port) int { return cmp.Or(strings.Compare(a.proto, b.proto), cmp.Compare(a.n, b.n)) })
	n := c.r.Neighbour
	for _, v := range c.in.Services {
		for _, src := range c.around(v.From) {
			for _, text := range v.Ports {
				x, err := intent.ParsePort(text)
				if err != nil || x.Name != "tcp" && x.Name != "udp" || x.From == 0 {
					continue
				}
				if c.led = slices.Contains(c.r.Led, x.From); c.led && c.r.Theirs {
					continue
				}
				name := x.Name + "/" + num(int(x.From)) + " from " + src.String()
				if src.Is4() {
					c.four(name, c.accepts(x.Name, x.From, src), false, func(f ndisc.Frame4) ndisc.Frame4 {
						f.SrcMAC, f.Src = c.r.Router.MAC, src
						if x.Name == "tcp" {
							return f.TCP(c.sport(), x.From, syn)
						}
						return f.UDP(c.sport(), x.From, []byte("x"))
					})
					continue
				}
				c.six(name, c.accepts(x.Name, x.From, src), false, func(f ndisc.Frame) [][]byte {
					f.SrcMAC, f.Src, f.Dst, f.HopLimit = c.r.Router.MAC, src, c.r.Host.Global, 60
					if x.Name == "tcp" {
						return one(f.TCP(c.sport(), x.From, syn))
					}
					return one(f.UDP(c.sport(), x.From, []byte("x")))
				})
			}
		}
	}
	for _, p := range list {
		if c.led = slices.Contains(c.r.Led, p.n); c.led && c.r.Theirs {
			continue
		}
		for _, src := range []struct {
			name string
			mac  ndisc.MAC
			addr netip.Addr
		}{{"the link", n.MAC, n.Global}, {"afar", c.r.Router.MAC, c.r.Far}, {"a link-local address", n.MAC, n.LL}} {
			if c.led && src.addr.IsLinkLocalUnicast() {
				continue // which nobody passes on
			}
			for _, e := range []string{"", " behind destination options"} {
				c.six(p.proto+"/"+num(int(p.n))+" from "+src.name+e, c.accepts(p.proto, p.n, src.addr), false, func(f ndisc.Frame) [][]byte {
					f.SrcMAC, f.Src, f.HopLimit = src.mac, src.addr, 64
					if !src.addr.IsLinkLocalUnicast() {
						f.Dst = c.r.Host.Global
					}
					if e != "" {
						f.Ext = []ndisc.Ext{{Type: ndisc.HdrDestOpts}}
					}
					if p.proto == "tcp" {
						return one(f.TCP(c.sport(), p.n, syn))
					}
					return one(f.UDP(c.sport(), p.n, []byte("x")))
				})
			}
		}
		for _, src := range []struct {
			name string
			mac  ndisc.MAC
			addr netip.Addr
		}{{"the link", n.MAC, n.Address}, {"afar", c.r.Router.MAC, c.r.Far4}} {
			c.four(p.proto+"/"+num(int(p.n))+" from "+src.name+" (IPv4)", c.accepts(p.proto, p.n, src.addr), false, func(f ndisc.Frame4) ndisc.Frame4 {
				f.SrcMAC, f.Src = src.mac, src.addr
				if p.proto == "tcp" {
					return f.TCP(c.sport(), p.n, syn)
				}
				return f.UDP(c.sport(), p.n, []byte("x"))
			})
		}
	}
}

// accepts tells whether the intent lists a port for a source, at an address of the host
// that is not narrowed.
func (c *corpus) accepts(proto string, port uint16, src netip.Addr) bool {
	v4 := src.Is4()
	if v4 && c.in.Families == intent.IPv6Only {
		return false
	}
	if c.listed(src, carried[proto+"/"+num(int(port))]...) {
		return true
	}
	for _, v := range c.in.Services {
		if !c.about(v, src) {
			continue
		}
		for _, p := range v.Ports {
			if x, err := intent.ParsePort(p); err == nil && x.Name == proto && x.From <= port && port <= x.To {
				return true
			}
		}
	}
	return false
}

// about tells whether a service is for a source on this link.
func (c *corpus) about(v intent.Service, src netip.Addr) bool {
	v4 := src.Is4()
	if v.Families != nil && !slices.Contains(v.Families, word(v4)) || v.Interfaces != nil && !slices.ContainsFunc(v.Interfaces, func(w string) bool { return c.means(w, c.r.Key, c.r.Interface) }) {
		return false
	}
	dst := c.r.Host.Global
	switch {
	case v4:
		dst = c.r.Host.Address
	case src.IsLinkLocalUnicast():
		dst = c.r.Host.LL
	}
	return (v.From == nil || within(v.From, src)) && (v.To == nil || within(v.To, dst))
}

func within(ps []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
}
