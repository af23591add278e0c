package attack

import (
	"net/netip"
	"path"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// maxAround bounds how many prefixes of one list are fired from.
const maxAround = 8

// around are addresses in prefixes, and just beside them, that packets by this interface
// can have.
func (c *corpus) around(list []netip.Prefix) []netip.Addr {
	if c.r.Back == nil {
		return nil
	}
	var out []netip.Addr
	for _, p := range list[:min(len(list), maxAround)] {
		for _, a := range []netip.Addr{c.inside(p), beside(p)} {
			own := a == c.r.Host.Global || a == c.r.Host.Address
			if a.IsValid() && !own && a.IsGlobalUnicast() && c.r.Back(a) && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// inside is an address of a prefix that somebody may have: the first ones of a prefix
// that everybody is in are nobody's.
func (c *corpus) inside(p netip.Prefix) netip.Addr {
	for _, a := range []netip.Addr{c.r.Far, c.r.Far4} {
		if p.Bits() < 8 && p.Contains(a) {
			return a
		}
	}
	return sample(p)
}

// sample is an address of a prefix.
func sample(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr()
	for range 5 {
		if n := a.Next(); n.IsValid() && p.Contains(n) {
			a = n
		}
	}
	return a
}

// beside is the first address after a prefix, a few further; invalid when there is none.
func beside(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	for range 6 {
		if a.IsValid() {
			a = a.Next()
		}
	}
	return a
}

// transit are packets that the host would pass on to Elsewhere.
func (c *corpus) transit() {
	for _, f := range []struct {
		v4  bool
		on  string
		dst netip.Addr
		src netip.Addr
	}{{false, c.r.Transit6, c.r.Elsewhere, c.r.Neighbour.Global}, {true, c.r.Transit4, c.r.Elsewhere4, c.r.Neighbour.Address}} {
		if f.on == "" || !f.dst.IsValid() || !f.src.IsValid() {
			continue
		}
		type port struct {
			proto string
			n     uint16
		}
		list := []port{{"tcp", 22}, {"udp", 53}}
		for _, a := range c.in.Forwarding.Allow {
			for _, t := range a.Ports {
				if x, err := intent.ParsePort(t); err == nil && (x.Name == "tcp" || x.Name == "udp") && x.From > 0 && !slices.Contains(list, port{x.Name, x.From}) {
					list = append(list, port{x.Name, x.From})
				}
			}
		}
		for _, p := range list {
			pass := f.on == "on" && c.forwards(p.proto, p.n, f.src, f.dst)
			name := p.proto + "/" + num(int(p.n)) + " through this host to " + f.dst.String()
			if f.v4 {
				c.four(name, pass, false, func(g ndisc.Frame4) ndisc.Frame4 {
					g.Dst = f.dst
					if p.proto == "tcp" {
						return g.TCP(c.sport(), p.n, syn)
					}
					return g.UDP(c.sport(), p.n, []byte("x"))
				})
				continue
			}
			c.six(name, pass, false, func(g ndisc.Frame) [][]byte {
				g.SrcMAC, g.Src, g.Dst, g.HopLimit = c.r.Neighbour.MAC, f.src, f.dst, 64
				if p.proto == "tcp" {
					return one(g.TCP(c.sport(), p.n, syn))
				}
				return one(g.UDP(c.sport(), p.n, []byte("x")))
			})
		}
	}
}

// forwards tells whether the intent lists a flow through the host.
func (c *corpus) forwards(proto string, n uint16, src, dst netip.Addr) bool {
	is := func(word, key, name string) bool { return word == "" || c.means(word, key, name) }
	return slices.ContainsFunc(c.in.Forwarding.Allow, func(a intent.Flow) bool {
		return is(a.InInterface, c.r.Key, c.r.Interface) && is(a.OutInterface, c.r.ElsewhereKey, c.r.ElsewhereInterface) &&
			(a.Families == nil || slices.Contains(a.Families, word(src.Is4()))) &&
			(a.From == nil || within(a.From, src)) && (a.To == nil || within(a.To, dst)) && (a.Ports == nil || contains(a.Ports, proto, n))
	})
}

// means tells whether a word of the intent is an interface: a key of its interfaces, else
// a name or a glob.
func (c *corpus) means(word, key, name string) bool {
	if _, ok := c.in.Interfaces[word]; ok {
		return word == key
	}
	ok, _ := path.Match(word, name)
	return ok
}

func contains(ports []string, proto string, n uint16) bool {
	return slices.ContainsFunc(ports, func(t string) bool {
		x, err := intent.ParsePort(t)
		return err == nil && x.Name == proto && x.From <= n && n <= x.To
	})
}

// Sending is a packet that the host itself sends by the interface, and whether the intent
// lets it.
type Sending struct {
	Name  string
	Proto uint8
	Dst   netip.AddrPort
	Pass  bool
}

// metadata are the addresses at which clouds tell a machine its secrets.
var metadata = []string{"fd00:ec2::254", "169.254.169.254"}

// Sendings are what a host is made to send.
func Sendings(in *intent.Intent, r Range) []Sending {
	if r.Key == "" {
		r.Key = r.Interface
	}
	c := &corpus{in: in, r: r}
	v4 := (in.Firewall.Manage == "" || in.Firewall.Manage == intent.ManageBoth) && in.Families != intent.IPv6Only
	v6 := in.Firewall.Manage != intent.ManageNone && in.Families != intent.Disabled && in.Families != intent.DisabledKeepLoopback && in.Interfaces[r.Key].Addressing != intent.NoIPv6
	var out []Sending
	add := func(name string, proto uint8, dst netip.Addr, port uint16, pass bool) {
		d4 := dst.Is4()
		if !dst.IsGlobalUnicast() && name[0] != 'm' || d4 && !v4 || !d4 && !v6 || r.Back == nil || !r.Back(dst) {
			return
		}
		out = append(out, Sending{name, proto, netip.AddrPortFrom(dst, port), pass && c.egress(proto, port, dst)})
	}
	for _, far := range []netip.Addr{r.Far, r.Far4} {
		for _, p := range []uint16{53, 4433} {
			add("udp/"+num(int(p))+" to "+far.String(), ndisc.ProtoUDP, far, p, true)
		}
		e := in.Egress.IPv6
		if far.Is4() {
			e = in.Egress.IPv4
		}
		for _, d := range e.Allow {
			for _, p := range d.To[:min(len(d.To), maxAround)] {
				for _, t := range d.Ports {
					if x, err := intent.ParsePort(t); err == nil && x.Proto == ndisc.ProtoUDP {
						add("udp/"+num(int(x.From))+" to "+sample(p).String(), ndisc.ProtoUDP, sample(p), x.From, true)
					}
				}
			}
		}
		for _, p := range []uint8{41, 47} {
			add("protocol "+num(int(p))+" to "+far.String(), p, far, 0, in.Tunnels.Policy == intent.TunnelsAllow || c.listed(far, carriers[p]...) || c.lists(p, 0))
		}
		add("Teredo to "+far.String(), ndisc.ProtoUDP, far, 3544, in.Tunnels.Policy == intent.TunnelsAllow || c.listed(far, "teredo") || c.lists(ndisc.ProtoUDP, 3544))
	}
	for _, m := range metadata {
		a := netip.MustParseAddr(m)
		add("metadata of the cloud at "+m, ndisc.ProtoUDP, a, 80, in.Egress.Metadata != "deny")
	}
	return out
}

// lists tells whether the intent names a protocol as a whole anywhere, or the one port of
// it that is asked for: what it names is no tunnel that it did not think of.
func (c *corpus) lists(proto uint8, port uint16) bool {
	return slices.ContainsFunc(c.in.ListedPorts(), func(x intent.Port) bool {
		return x.Proto == proto && x.From == port && x.To == port // 0: as a whole
	})
}

// egress tells whether the intent lets something be sent, tunnels aside.
func (c *corpus) egress(proto uint8, port uint16, dst netip.Addr) bool {
	e := c.in.Egress.IPv6
	if dst.Is4() {
		e = c.in.Egress.IPv4
	}
	if e.Default != "deny" || c.listed(dst, carriers[proto]...) || proto == ndisc.ProtoUDP && port == 3544 && c.listed(dst, "teredo") {
		return true
	}
	return slices.ContainsFunc(e.Allow, func(d intent.Destination) bool {
		return (d.To == nil || within(d.To, dst)) && (d.Ports == nil || slices.ContainsFunc(d.Ports, func(t string) bool {
			x, err := intent.ParsePort(t)
			return err == nil && x.Proto == proto && (x.Whole() || x.From <= port && port <= x.To)
		}))
	})
}
