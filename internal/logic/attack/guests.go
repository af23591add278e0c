package attack

import (
	"slices"

	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// Guests are frames that only pass the host: to a guest on a bridge of its, or from it
// (from). They are the guest's own, whatever they are, unless the intent puts the guards
// before guests as well.
func Guests(in *intent.Intent, r Range, guest Peer, from bool) []Shot {
	if r.Key == "" {
		r.Key = r.Interface
	}
	c := &corpus{in: in, r: r}
	a, b, way := r.Neighbour, guest, "to a guest"
	rogue := r.Rogue
	if from {
		a, b, way = guest, r.Neighbour, "of a guest"
		rogue = guest
	}
	guarded := in.Interfaces[r.Key].GuardBridged && in.Firewall.Manage != intent.ManageNone
	var out []Shot
	shot := func(name string, v4, pass bool) *Shot {
		out = append(out, Shot{ID: uint32(len(out) + 1), Group: "guests", Name: name + " " + way, IPv4: v4, Pass: pass})
		return &out[len(out)-1]
	}
	six := func(name string, pass bool, make func(f ndisc.Frame) ndisc.Frame) {
		s := shot(name, false, pass)
		s.Frames = one(make(ndisc.Frame{SrcMAC: a.MAC, DstMAC: b.MAC, Src: a.Global, Dst: b.Global, HopLimit: 64, FlowLabel: s.ID}))
	}
	four := func(name string, make func(f ndisc.Frame4) ndisc.Frame4) {
		s := shot(name+" (IPv4)", true, true)
		s.Frames = [][]byte{make(ndisc.Frame4{SrcMAC: a.MAC, DstMAC: b.MAC, Src: a.Address, Dst: b.Address, ID: uint16(s.ID)}).Bytes()}
	}
	ports := []uint16{22, 23, 445}
	if p := c.open(false); !slices.Contains(ports, p) {
		ports = append(ports, p)
	}
	for i, port := range ports {
		n := uint16(41000 + 10*i)
		six("tcp/"+num(int(port)), true, func(f ndisc.Frame) ndisc.Frame { return f.TCP(n, port, syn) })
		four("tcp/"+num(int(port)), func(f ndisc.Frame4) ndisc.Frame4 { return f.TCP(n, port, syn) })
	}
	six("udp/1900", true, func(f ndisc.Frame) ndisc.Frame { return f.UDP(42000, 1900, []byte("x")) })
	four("udp/1900", func(f ndisc.Frame4) ndisc.Frame4 { return f.UDP(42000, 1900, []byte("x")) })
	six("echo request", true, func(f ndisc.Frame) ndisc.Frame { return f.Echo(9, 1) })
	ll := func(f ndisc.Frame, p Peer) ndisc.Frame {
		f.SrcMAC, f.Src, f.Dst, f.HopLimit = p.MAC, p.LL, b.LL, 0
		return f
	}
	six("NS", true, func(f ndisc.Frame) ndisc.Frame { return ll(f, a).NS(b.LL, a.MAC) })
	six("NA", true, func(f ndisc.Frame) ndisc.Frame { return ll(f, a).NA(a.LL, ndisc.NASolicited, a.MAC) })
	ra := ndisc.RA{HopLimit: 64, Lifetime: 1800}
	six("rogue RA", !guarded, func(f ndisc.Frame) ndisc.Frame { return toAll(ll(f, rogue)).RA(ra) })
	six("rogue RA behind destination options", !guarded, func(f ndisc.Frame) ndisc.Frame {
		f = toAll(ll(f, rogue))
		f.Ext = []ndisc.Ext{{Type: ndisc.HdrDestOpts}}
		return f.RA(ra)
	})
	six("redirect", !guarded, func(f ndisc.Frame) ndisc.Frame { return ll(f, rogue).Redirect(rogue.LL, r.Far, rogue.MAC) })
	if !from {
		six("RA of the router", !guarded || c.declared(), func(f ndisc.Frame) ndisc.Frame { return toAll(ll(f, r.Router)).RA(ra) })
	}
	return out
}
