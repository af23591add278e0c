package prove

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"github.com/sixfence/sixfence/internal/host/arena"
	"github.com/sixfence/sixfence/internal/logic/attack"
	"github.com/sixfence/sixfence/internal/logic/ndisc"
)

// Prefixes that advertisements announce: a rogue's, and the router's.
var (
	rogues  = netip.MustParsePrefix("2001:db8:51fe:bad::/64")
	routers = netip.MustParsePrefix("2001:db8:51fe:600d::/64")
)

func (t target) ra(p attack.Peer, prefix netip.Prefix, lifetime uint16, id uint32) []byte {
	ra := ndisc.RA{HopLimit: 64, Lifetime: lifetime, Options: [][]byte{ndisc.PrefixInfo(prefix, 86400, 14400)}}
	return ndisc.Frame{SrcMAC: p.MAC, Src: p.LL, Dst: ndisc.AllNodes, FlowLabel: id}.RA(ra).Bytes()
}

// took tells whether an interface has an address of a prefix.
func took(ctx context.Context, a *arena.Arena, link string, p netip.Prefix) (bool, error) {
	list, err := a.Addresses(ctx)
	return slices.ContainsFunc(list, func(x arena.Address) bool { return x.Link == link && p.Contains(x.Prefix.Addr()) }), err
}

// settingsAlone looks at what the settings do by themselves, before there are rules: they
// are what is left where rules do not reach.
func (r *proof) settingsAlone(ctx context.Context, a *arena.Arena) error {
	r.progress("firing at the settings")
	one := func(t target, shot, expected, observed string, ok bool, frames ...[]byte) {
		v := verdict{t.name, attack.Shot{Group: "settings", Name: shot, Frames: frames}, false}
		r.count(v)
		if !ok {
			m := v.misfire(observed)
			m.Expected = expected
			r.fail(m)
		}
	}
	for _, t := range r.targets {
		g := t.shots
		if t.off {
			list, err := a.Addresses(ctx)
			if err != nil {
				return err
			}
			on := slices.ContainsFunc(list, func(x arena.Address) bool { return x.Link == t.name && x.Prefix.Addr().Is6() })
			one(t, "IPv6 is off", "no IPv6 address is left", "there is one", !on)
			continue
		}
		if g.Plain {
			continue // what follows is about a link
		}
		if t.still {
			for _, x := range []struct {
				who    string
				peer   attack.Peer
				prefix netip.Prefix
			}{{"a rogue", g.Rogue, rogues}, {"the router", g.Router, routers}} {
				f := t.ra(x.peer, x.prefix, 1800, 1)
				if _, _, err := a.Fire(ctx, t.name, [][]byte{f}); err != nil {
					return err
				}
				bad, err := took(ctx, a, t.name, x.prefix)
				if err != nil {
					return err
				}
				ways, err := a.Lookup(ctx, netip.MustParseAddr("2600:51fe::1"))
				if err != nil {
					return err
				}
				bad = bad || ways[0].Via == g.Rogue.LL
				one(t, "advertisement of "+x.who+", without rules", "the kernel takes none", "the kernel took it", !bad, f)
			}
		}
		// A redirect from the gateway itself, to the rogue.
		before, err := a.Lookup(ctx, g.Far)
		if err != nil {
			return err
		}
		if before[0].Link != t.name || before[0].Via != g.Router.LL || r.by("accept_redirects") {
			continue
		}
		f := ndisc.Frame{SrcMAC: g.Router.MAC, DstMAC: g.Host.MAC, Src: g.Router.LL, Dst: g.Host.LL, FlowLabel: 2}.Redirect(g.Rogue.LL, g.Far, g.Rogue.MAC).Bytes()
		if _, _, err := a.Fire(ctx, t.name, [][]byte{f}); err != nil {
			return err
		}
		after, err := a.Lookup(ctx, g.Far)
		if err != nil {
			return err
		}
		one(t, "redirect from the gateway, without rules", "the kernel takes none", "the kernel now sends to "+after[0].Via.String(), after[0] == before[0], f)
	}
	return nil
}

// advertised: where addresses come from the router, they still do.
func (r *proof) advertised(ctx context.Context, a *arena.Arena) error {
	for _, t := range r.targets {
		if t.off || t.shots.Plain {
			continue
		}
		// No lifetime as a router: where the host has the same route from elsewhere, the
		// kernel would take nothing else of the message.
		bad, good := t.ra(t.shots.Rogue, rogues, 1800, 1), t.ra(t.shots.Router, routers, 0, 2)
		if _, _, err := a.Fire(ctx, t.name, [][]byte{bad, good}); err != nil {
			return err
		}
		v := verdict{t.name, attack.Shot{Group: "addresses", Name: "rogue advertisement of a prefix", Frames: [][]byte{bad}}, false}
		var err error
		if _, v6 := r.manages(); v6 {
			if v.seen, err = took(ctx, a, t.name, rogues); err != nil {
				return err
			}
			if r.count(v); v.seen {
				m := v.misfire("the host has an address of it")
				m.Expected = "the host takes no address of it"
				r.fail(m)
			}
		}
		if !t.slaac {
			continue
		}
		v = verdict{t.name, attack.Shot{Group: "addresses", Name: "the router's advertisement of a prefix", Frames: [][]byte{good}, Pass: true}, false}
		for end := time.Now().Add(2 * time.Second); !v.seen && time.Now().Before(end) && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
			if v.seen, err = took(ctx, a, t.name, routers); err != nil {
				return err
			}
		}
		if r.count(v); !v.seen {
			m := v.misfire("the host has no address of it")
			m.Expected = "the host takes an address of it"
			r.fail(m)
		}
	}
	return nil
}

func (r *proof) manages() (v4, v6 bool) {
	m := r.in.Firewall.Manage
	return m == "" || m == "both", m != "none"
}

// sendings are what the host itself sends.
func (r *proof) sendings(ctx context.Context, a *arena.Arena) error {
	for _, t := range r.targets {
		list := attack.Sendings(r.in, t.shots)
		if len(list) == 0 {
			continue
		}
		r.progress("sending %d packets from %s", len(list), t.name)
		var ps []arena.Packet
		for _, x := range list {
			ps = append(ps, arena.Packet{Proto: x.Proto, Dst: x.Dst, Body: make([]byte, 24)})
		}
		got, err := a.Send(ctx, ps)
		if err != nil {
			return fmt.Errorf("send from %s: %w", t.name, err)
		}
		for i, x := range list {
			v := verdict{t.name, attack.Shot{Group: "egress", Name: x.Name, Pass: x.Pass}, got[i].Link == t.name}
			if r.count(v); v.seen != x.Pass {
				observed := word(v.seen)
				if got[i].Refused != "" {
					observed += " (" + got[i].Refused + ")"
				}
				m := v.misfire(observed)
				m.Packet = fmt.Sprintf("protocol %d to %s", x.Proto, x.Dst)
				r.fail(m)
			}
		}
	}
	return nil
}

// full: an attacker has filled every set that packets add to. Who comes then is not kept
// out.
func (r *proof) full(ctx context.Context, a *arena.Arena, ours table) error {
	if ours.text == "" && ours.raw == nil {
		return nil
	}
	if err := r.floods(ctx, a); err != nil {
		return err
	}
	r.progress("filling the sets of the limits")
	if ours.text != "" {
		// What is full is full at any size, and a hundred thousand elements take a second.
		ours.text = sizes.ReplaceAllString(ours.text, "${1}1000${2}")
		if err := r.load(ctx, a, ours); err != nil {
			return err
		}
	}
	if _, err := a.Fill(ctx, "sixfence"); err != nil {
		return fmt.Errorf("fill the sets: %w", err)
	}
	t := r.first()
	g := t.shots
	v4, v6 := r.manages()
	fresh := ndisc.MAC{0x02, 0x51, 0xfe, 7, 7, 7}
	var shots []attack.Shot
	add := func(name string, four bool, make func(id uint32) []byte) {
		id := uint32(len(shots) + 1)
		shots = append(shots, attack.Shot{ID: id, Group: "full sets", Name: name, Pass: true, IPv4: four, Frames: [][]byte{make(id)}})
	}
	if v6 && !t.off {
		far := stranger(g, g.Neighbour.Global, "2600:77::7", "2a00:77::7")
		add("echo request of a newcomer", false, func(id uint32) []byte {
			return ndisc.Frame{SrcMAC: g.Router.MAC, DstMAC: g.Host.MAC, Src: far, Dst: g.Host.Global, FlowLabel: id}.Echo(77, 1).Bytes()
		})
		if !g.Plain {
			add("neighbour solicitation of a newcomer", false, func(id uint32) []byte {
				return ndisc.Frame{SrcMAC: fresh, DstMAC: g.Host.MAC, Src: linkLocal(fresh), Dst: g.Host.LL, FlowLabel: id}.NS(g.Host.LL, fresh).Bytes()
			})
			add("neighbour solicitation of the router", false, func(id uint32) []byte {
				return ndisc.Frame{SrcMAC: g.Router.MAC, DstMAC: g.Host.MAC, Src: g.Router.LL, Dst: g.Host.LL, FlowLabel: id}.NS(g.Host.LL, g.Router.MAC).Bytes()
			})
		}
	}
	if v4 {
		far := stranger(g, g.Neighbour.Address, "203.0.113.77", "192.88.98.7")
		add("echo request of a newcomer (IPv4)", true, func(id uint32) []byte {
			return ndisc.Frame4{SrcMAC: g.Router.MAC, DstMAC: g.Host.MAC, Src: far, Dst: g.Host.Address, ID: uint16(id)}.Echo(77, 1).Bytes()
		})
	}
	seen, err := r.fire(ctx, a, t.name, shots)
	if err != nil {
		return err
	}
	for _, s := range shots {
		v := verdict{t.name, s, seen[s.ID]}
		if r.count(v); !v.seen {
			r.fail(v.misfire("is stopped when the sets of the limits are full"))
		}
	}
	return nil
}

// sizes are those of the sets that packets add to.
var sizes = regexp.MustCompile(`(\bsize )\d+(\s+flags dynamic)`)

// first is the target at which limits are tried: a link, if there is one.
func (r *proof) first() target {
	for _, t := range r.targets {
		if !t.shots.Plain {
			return t
		}
	}
	return r.targets[0]
}

// stranger is an address that nobody names, and that is answered by this interface.
func stranger(g attack.Range, def netip.Addr, list ...string) netip.Addr {
	for _, t := range list {
		a := netip.MustParseAddr(t)
		if g.Back(a) && !slices.ContainsFunc(g.Named, func(p netip.Prefix) bool { return p.Bits() > 0 && p.Contains(a) }) {
			return a
		}
	}
	return def
}

// Packets a second that an intent which says nothing lets one sender have, at the most.
const (
	echoRate = 10
	ndRate   = 50
	maxRate  = 200 // above it nobody means a limit
)

// floods: one sender alone does not make the host do more than the intent says.
func (r *proof) floods(ctx context.Context, a *arena.Arena) error {
	t := r.first()
	g := t.shots
	v4, v6 := r.manages()
	l := r.in.Limits
	fresh := ndisc.MAC{0x02, 0x51, 0xfe, 8, 8, 8}
	far6, far4 := stranger(g, g.Rogue.Global, "2600:78::7", "2a00:78::7"), stranger(g, g.Rogue.Address, "203.0.113.78", "192.88.98.8")
	for _, x := range []struct {
		name string
		on   bool
		v4   bool
		rate uint32
		make func(id uint32) []byte
	}{
		{"echo requests of one sender", v6 && !t.off, false, cmp.Or(l.EchoPerSecond, echoRate), func(id uint32) []byte {
			return ndisc.Frame{SrcMAC: g.Router.MAC, DstMAC: g.Host.MAC, Src: far6, Dst: g.Host.Global, FlowLabel: id}.Echo(78, uint16(id)).Bytes()
		}},
		{"neighbour solicitations of one sender", v6 && !t.off && !g.Plain, false, cmp.Or(l.NDPerSecond, ndRate), func(id uint32) []byte {
			return ndisc.Frame{SrcMAC: fresh, DstMAC: g.Host.MAC, Src: linkLocal(fresh), Dst: g.Host.LL, FlowLabel: id}.NS(g.Host.LL, fresh).Bytes()
		}},
		{"echo requests of one sender (IPv4)", v4, true, cmp.Or(l.EchoPerSecond, echoRate), func(id uint32) []byte {
			return ndisc.Frame4{SrcMAC: g.Router.MAC, DstMAC: g.Host.MAC, Src: far4, Dst: g.Host.Address, ID: uint16(id)}.Echo(78, uint16(id)).Bytes()
		}},
	} {
		from := far6
		if x.v4 {
			from = far4
		}
		// Who administers the host is not counted; here every source of a service may do so.
		exempt := slices.Clone(l.Exempt)
		for _, v := range r.in.Services {
			exempt = append(exempt, v.From...)
		}
		if !x.on || x.rate > maxRate || slices.ContainsFunc(exempt, func(p netip.Prefix) bool { return p.Contains(from) }) {
			continue
		}
		n := 10 * x.rate
		var frames [][]byte
		for i := range n {
			frames = append(frames, x.make(i+1))
		}
		// On a machine that is too busy to send them at once more may rightly come through.
		got, slow := 0, true
		for try := 0; slow && try < 3; try++ {
			begun := time.Now()
			six, four, err := a.Fire(ctx, t.name, frames)
			if err != nil {
				return err
			}
			got = len(six)
			if x.v4 {
				got = len(four)
			}
			slow = got > int(n)/2 && float64(got) <= float64(x.rate)*(time.Since(begun).Seconds()+2)
		}
		if slow {
			r.limit("the limit of %s was not tried: this machine is too busy to send %d of them at once", x.name, n)
			continue
		}
		v := verdict{t.name, attack.Shot{Group: "floods", Name: fmt.Sprintf("%d %s at once", n, x.name), Frames: frames[:1]}, got > int(n)/2}
		if r.count(v); v.seen {
			m := v.misfire(fmt.Sprintf("%d come through", got))
			m.Expected = fmt.Sprintf("about %d come through", 2*x.rate)
			r.fail(m)
		}
	}
	return nil
}

// session is a TCP segment of a connection by which somebody administers the host.
func (r *proof) session(t target, local, remote netip.Addr, sport, dport uint16, flags uint8, id uint32) []byte {
	from := t.shots.Router.MAC
	if local.Is4() {
		return ndisc.Frame4{SrcMAC: from, DstMAC: t.shots.Host.MAC, Src: remote, Dst: local, ID: uint16(id)}.TCP(sport, dport, flags).Bytes()
	}
	return ndisc.Frame{SrcMAC: from, DstMAC: t.shots.Host.MAC, Src: remote, Dst: local, HopLimit: 64, FlowLabel: id}.TCP(sport, dport, flags).Bytes()
}

// describe is a frame in a line.
func describe(f []byte) string {
	if len(f) >= 34 && f[12] == 8 {
		return fmt.Sprintf("%s > %s, IPv4 protocol %d%s, from MAC %s", netip.AddrFrom4([4]byte(f[26:30])), netip.AddrFrom4([4]byte(f[30:34])), f[23], ports(f[23], f[34:]), ndisc.MAC(f[6:12]))
	}
	if len(f) < 54 {
		return ""
	}
	next, b := f[20], f[54:]
	head := ""
	for range 16 {
		name := map[uint8]string{ndisc.HdrHopByHop: "hop-by-hop", ndisc.HdrDestOpts: "destination options", ndisc.HdrRouting: "routing", ndisc.HdrFragment: "fragment"}[next]
		n := 8
		if name == "" || len(b) < 8 {
			break
		}
		if next != ndisc.HdrFragment {
			n = 8 + int(b[1])*8
		}
		head += name + " header, "
		if len(b) < n {
			break
		}
		next, b = b[0], b[n:]
	}
	what := fmt.Sprintf("protocol %d", next)
	if next == ndisc.ProtoICMPv6 && len(b) > 1 {
		what = fmt.Sprintf("ICMPv6 type %d code %d", b[0], b[1])
	}
	return fmt.Sprintf("%s > %s, %s%s%s, hop limit %d, from MAC %s", netip.AddrFrom16([16]byte(f[22:38])), netip.AddrFrom16([16]byte(f[38:54])), head, what, ports(next, b), f[21], ndisc.MAC(f[6:12]))
}

func ports(proto uint8, b []byte) string {
	if proto != ndisc.ProtoTCP && proto != ndisc.ProtoUDP || len(b) < 4 {
		return ""
	}
	return fmt.Sprintf(" port %d > %d", binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]))
}
