package prove

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sixfence/sixfence/internal/host/arena"
	"github.com/sixfence/sixfence/internal/logic/attack"
	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// guardTimeout bounds a test of guards. The places of it live for a minute.
const guardTimeout = 50 * time.Second

// Guards fires forged messages of neighbour discovery at a host as it is, made again in
// namespaces of its own: once with its settings alone, and once with all of its rules. What
// the kernel took is what it changed: routes, addresses, neighbours, the MTU. Once a Prover.
func (p *Prover) Guards(ctx context.Context, snap *fact.Snapshot, ns *fact.Namespace) *probe.Guards {
	ctx, cancel := context.WithTimeout(ctx, guardTimeout)
	defer cancel()
	g := &probe.Guards{Kernel: release(), Interfaces: []probe.Guard{}, Loaded: []string{}, NotLoaded: []string{}, Limits: []string{}}
	err := p.err
	if err == nil {
		err = p.guards(ctx, g, snap, ns)
	}
	if err != nil {
		g.Reason = err.Error()
		var u *arena.UnavailableError
		switch {
		case errors.As(err, &u):
			g.WayOut = u.Hint
		case errors.Is(err, context.DeadlineExceeded):
			g.Reason = fmt.Sprintf("it took longer than the %s it may", guardTimeout)
		}
	}
	return g
}

// guarding is a test of guards in the making.
type guarding struct {
	*proof
	g *probe.Guards
	// fib: rules look at routes, so that routes that are not there may matter.
	fib bool
	// netdev: there are rules on devices, which the frames of a VLAN meet with their tag.
	netdev bool
}

func (p *Prover) guards(ctx context.Context, g *probe.Guards, snap *fact.Snapshot, ns *fact.Namespace) error {
	if ns == nil {
		return errors.New("the network namespace is not in the Snapshot")
	}
	s := &site{in: &intent.Intent{}, snap: snap, ns: ns, plan: &change.Plan{}, guards: true}
	links, ok := ns.Links.Get()
	if !ok {
		return errors.New("the interfaces of the host are not known")
	}
	if _, ok := ns.Routes.Get(); !ok {
		return errors.New("the routes of the host are not known, so neither is its router")
	}
	if _, ok := ns.Sysctls.Get(); !ok {
		return errors.New("the settings of the host are not known, and they decide what is taken: take the Snapshot as root")
	}
	x := &guarding{proof: &proof{site: s, p: &change.Proof{}, say: p.Progress}, g: g}
	var use []fact.Link
	for _, l := range links {
		switch {
		case l.Flags&iffLoopback != 0, l.Master != 0 && l.SlaveKind != "vrf", l.Flags&iffUp == 0:
		case l.Type != arphrdEther:
			s.limit("%s is no Ethernet, and not fired at", l.Name)
		case len(l.Name) > 15 || strings.ContainsAny(l.Name, `\/"`):
			g.Interfaces = append(g.Interfaces, probe.Guard{Interface: l.Name, Unknown: "it has a name that cannot be made again", Attacks: []probe.GuardAttempt{}})
		default:
			use = append(use, l)
		}
	}
	slices.SortStableFunc(use, func(a, b fact.Link) int { return s.rank(a) - s.rank(b) })
	for n, l := range use {
		if n >= maxGuarded {
			g.Interfaces = append(g.Interfaces, probe.Guard{Interface: l.Name, Unknown: fmt.Sprintf("a test has room for %d interfaces", maxGuarded), Attacks: []probe.GuardAttempt{}})
			continue
		}
		s.link(n, l)
	}
	use = use[:min(len(use), maxGuarded)]
	if len(use) == 0 {
		return errors.New("the host has no Ethernet interface that is up: nothing could send to it what is tried")
	}
	s.routes()
	s.settings()
	s.neighboursAsTheyAre()
	if k, ok := snap.Host.Kernel.Get(); ok && k.Release != g.Kernel {
		s.limit("the host has kernel %s, and it was tried on %s", k.Release, g.Kernel)
	}
	rules, _ := ns.Rules.Get()
	policy := slices.ContainsFunc(rules, func(r fact.Rule) bool { return r.Priority != 0 && r.Priority != 32766 && r.Priority != 32767 })
	if policy {
		s.limit("rules of policy routing are not made again")
	}
	if err := x.places(ctx, p, use); err != nil {
		return err
	}
	if x.fib && (policy || s.lost > 0) {
		g.NotLoaded = append(g.NotLoaded, "routes: rules ask for them (fib), and not all of them are made again")
	}
	// end is a wire that was fired at, and what is left to do.
	type end struct {
		one    *probe.Guard
		finish func() error
		err    error
	}
	var ends []end
	for n, l := range use {
		ports := s.setup.Links[n].Ports
		if len(ports) == 0 {
			ports = []arena.Port{{Name: l.Name}}
		}
		for k, port := range ports {
			x.progress("firing at %s", port.Name)
			one := x.aim(n, l)
			one.Attacks = []probe.GuardAttempt{}
			if port.Name != l.Name {
				one.Port = port.Name
			}
			finish, err := x.fireAt(ctx, p, n, l, port.Name, uint32(k)*perWire+1, one)
			ends = append(ends, end{one, finish, err})
		}
	}
	// What the rules stopped may have been stopped by a limit.
	x.progress("waiting for limits to recover")
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(1100 * time.Millisecond):
	}
	for _, e := range ends {
		if e.err == nil && e.finish != nil {
			e.err = e.finish()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if e.err != nil {
			e.one.Unknown = cmp.Or(e.one.Unknown, e.err.Error())
		}
		g.Interfaces = append(g.Interfaces, *e.one)
	}
	slices.Sort(s.limits)
	g.Limits = append(g.Limits, s.limits...)
	return nil
}

// Bounds of a test.
const (
	maxGuarded = 40
	maxPorts   = 6
	// perWire is more than there are forgeries for one: every number is used once.
	perWire = 200
)

// places makes the host twice: without rules, and with all of them.
func (x *guarding) places(ctx context.Context, p *Prover, use []fact.Link) error {
	if err := x.make(ctx, p.alone, true); err != nil {
		return err
	}
	if err := x.make(ctx, p.together, false); err != nil {
		return err
	}
	// The routes that advertisements have made are there before the rules are, as on the
	// host itself: rules that keep the next one out do not take them away.
	for _, l := range use {
		gw, learned := x.router(l)
		if !learned || !x.takes(l.Name) {
			continue
		}
		f := attack.RouterAdvertisement(attack.Range{Router: gw}, maxPorts*perWire+1)
		for _, a := range []*arena.Arena{p.alone, p.together} {
			if _, err := a.Try(ctx, l.Name, l.Name, []arena.Trial{{ID: f.ID, Frames: f.Frames}}); err != nil {
				return err
			}
		}
	}
	// A setting that does not hold here is none that was tried.
	for _, f := range x.p.Failures {
		x.limit("not made again: %s", f.Shot)
	}
	all, _ := x.ns.PacketFilter.NFTables.Get() // absent: there are none
	if gap, is := x.ns.PacketFilter.NFTables.Gap(); is {
		x.g.NotLoaded = append(x.g.NotLoaded, "nftables: not known: "+cmp.Or(gap.What, "nobody asked"))
	}
	for _, m := range all.Rules {
		x.fib = x.fib || bytes.Contains(m, []byte("fib\x00")) || bytes.Contains(m, []byte("rpfilter\x00"))
	}
	f, names, refused := x.foreign(&all)
	x.netdev = slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "table netdev ") })
	more, err := p.together.Replay(ctx, f)
	if err != nil {
		return err
	}
	bad := func(n string) bool {
		return slices.ContainsFunc(more, func(r arena.Refused) bool { return r.What == n })
	}
	if slices.ContainsFunc(names, bad) { // what no table needs is no loss
		refused = append(refused, more...)
	}
	for _, r := range refused {
		x.g.NotLoaded = append(x.g.NotLoaded, r.What+": "+r.Why)
	}
	x.g.Loaded = append(x.g.Loaded, slices.DeleteFunc(names, bad)...)
	return nil
}

// bridged are the ports of a bridge.
func (s *site) bridged(bridge int) (out []arena.Port) {
	links, _ := s.ns.Links.Get()
	for _, l := range links {
		if l.Master != bridge || l.Flags&iffUp == 0 || len(l.Name) > 15 {
			continue
		}
		if len(out) == maxPorts {
			s.limit("of the ports of %s, %s and what follows are not fired at", s.name(bridge), l.Name)
			break
		}
		out = append(out, arena.Port{Name: l.Name, Index: uint32(l.Index), MAC: mac(l.MAC, ndisc.MAC{0x02, 0x51, 0xfe, 0, 2, byte(l.Index)})})
	}
	return out
}

// neighboursAsTheyAre keeps permanent entries only of those that are permanent.
func (s *site) neighboursAsTheyAre() {
	s.setup.Neighbours = nil
	list, _ := s.ns.Neighbours.Get()
	for _, n := range list {
		if l := s.name(n.Index); n.State&fact.NUDPermanent != 0 && s.made(l) != nil && n.Address.IsValid() && !n.Address.IsMulticast() {
			s.know(l, n.Address.WithZone(""), mac(n.MAC, routerMAC))
		}
	}
}

// aim says who is who at an interface.
func (x *guarding) aim(n int, l fact.Link) *probe.Guard {
	g := &probe.Guard{Interface: l.Name}
	switch {
	case len(x.g.NotLoaded) > 0:
		g.Unknown = "not all of this host's rules were there: " + strings.Join(x.g.NotLoaded, "; ")
	case x.netdev && l.Kind == "vlan":
		g.Unknown = "its frames come with a VLAN tag by another device, on which there are rules"
	case l.Kind == "bond" || l.Kind == "team":
		if x.netdev {
			g.Unknown = "its frames come in by other devices, and there are rules on devices"
		}
	}
	if who := x.program(l); who != "" {
		g.Unknown = cmp.Or(g.Unknown, "a program of "+who+" sees every packet first, and is not there")
	}
	ms, _ := x.snap.Host.Managers.Get()
	if gap, is := x.snap.Host.Managers.Gap(); is {
		g.Unknown = cmp.Or(g.Unknown, "which programs take advertisements is not known: "+cmp.Or(gap.What, "nobody asked"))
	}
	for _, m := range ms {
		if on, known := m.Running.Get(); known && !on || m.NetNS != (fact.NamespaceID{}) && m.NetNS != x.ns.ID {
			continue
		}
		for _, i := range m.Interfaces {
			takes, known := i.AcceptRA.Get()
			if !i.InUserspace || known && !takes {
				continue
			}
			if i.Index == l.Index || i.Index == 0 && (len(i.Names) == 0 || slices.ContainsFunc(i.Names, func(glob string) bool { ok, _ := path.Match(glob, l.Name); return ok })) {
				g.Client = m.Name
			}
		}
	}
	return g
}

// program tells whether XDP or tc decides about the packets of an interface, or of a port of
// it, before any rule does.
func (x *guarding) program(l fact.Link) string {
	links, _ := x.ns.Links.Get()
	for _, o := range links {
		below := l.PeerNS == nil && o.Index == l.Parent // of a VLAN
		if o.Index != l.Index && o.Master != l.Index && !below {
			continue
		}
		if n, _ := o.XDP.Get(); n != 0 {
			return "XDP at " + o.Name
		}
		if on, _ := o.TCIngress.Get(); on {
			return "tc at " + o.Name
		}
	}
	return ""
}

// router is the IPv6 gateway of an interface, and whether it was learned from an
// advertisement.
func (x *guarding) router(l fact.Link) (peer attack.Peer, learned bool) {
	routes, _ := x.ns.Routes.Get()
	for _, r := range routes {
		if r.Family != "ipv6" || r.Dst.Bits() != 0 || r.Type != 1 {
			continue
		}
		for _, h := range r.NextHops {
			if h.Index != l.Index || !h.Via.Is6() || peer.LL.IsValid() && r.Protocol != fact.ProtoRA {
				continue
			}
			peer.LL, learned = h.Via.WithZone(""), r.Protocol == fact.ProtoRA
			peer.MAC = mac(x.neighbour(l.Index, h.Via), routerMAC)
		}
	}
	return peer, learned
}

// judged is one kind of trial.
type judged struct {
	f   attack.Forgery
	t   arena.Trial
	bad func(o arena.Outcome) []string // what it has changed that it must not
}

// fireAt tries everything at one wire, in both places.
func (x *guarding) fireAt(ctx context.Context, p *Prover, n int, l fact.Link, wire string, id uint32, g *probe.Guard) (finish func() error, err error) {
	made := x.setup.Links[n]
	r := attack.Range{Interface: l.Name, Host: attack.Peer{MAC: made.MAC}}
	for _, a := range made.Addresses {
		if a.Addr().Is6() && a.Addr().IsLinkLocalUnicast() {
			r.Host.LL = a.Addr()
		}
	}
	all, _ := x.ns.Sysctls.Get()
	if all.Values["net/ipv6/conf/"+l.Name+"/disable_ipv6"] == "1" {
		return nil, x.off(ctx, p, l, g)
	}
	gw, learned := x.router(l)
	r.Router = gw
	if gw.LL.IsValid() {
		g.Router = gw.LL.String()
		if x.neighbour(l.Index, gw.LL) != "" {
			g.Router += " " + gw.MAC.String()
		}
	}
	entry := func(state uint16) []arena.Neighbour {
		if !gw.LL.IsValid() || slices.ContainsFunc(x.setup.Neighbours, func(k arena.Neighbour) bool { return k.Link == l.Name && k.Address == gw.LL }) {
			return nil // none, or a permanent one that is there already
		}
		return []arena.Neighbour{{Link: l.Name, Address: gw.LL, MAC: gw.MAC, State: state}}
	}
	var list []judged
	add := func(fs []attack.Forgery, state uint16, bad func(attack.Forgery, arena.Outcome) []string) {
		for _, f := range fs {
			t := arena.Trial{ID: f.ID, Frames: f.Frames, Neighbours: entry(state)}
			if f.Far.IsValid() {
				t.Look = []netip.Addr{f.Far}
			}
			list = append(list, judged{f, t, func(o arena.Outcome) []string { return bad(f, o) }})
		}
	}
	last := id + perWire - 1
	next := func(k int) uint32 { id += uint32(k); return id - uint32(k) }
	// The router's own first: where it is taken, it makes the routes of which others lead away.
	if gw.LL.IsValid() {
		add([]attack.Forgery{attack.RouterAdvertisement(r, next(1))}, fact.NUDReachable, func(f attack.Forgery, o arena.Outcome) []string { return changes(l.Name, o, f, gw) })
		add(attack.Entries(r, next(64)), fact.NUDStale, func(f attack.Forgery, o arena.Outcome) []string { return gateway(l.Name, o, gw) })
		add(attack.Redirects(r, next(32)), fact.NUDReachable, func(f attack.Forgery, o arena.Outcome) []string { return led(o) })
	}
	add(attack.Advertisements(r, next(0)), fact.NUDReachable, func(f attack.Forgery, o arena.Outcome) []string { return changes(l.Name, o, f, gw) })

	trials := make([]arena.Trial, len(list))
	for i, j := range list {
		trials[i] = j.t
	}
	bare, err := p.alone.Try(ctx, wire, l.Name, trials)
	if err != nil {
		return nil, fmt.Errorf("without rules: %w", err)
	}
	ruled, err := p.together.Try(ctx, wire, l.Name, trials)
	if err != nil {
		return nil, err
	}
	if err := x.control(ctx, p, l, wire, g, last); err != nil {
		return nil, err
	}
	return func() error {
		limited, err := x.limits(ctx, p, wire, l, list, bare, ruled)
		if err == nil {
			x.judge(l, gw, learned, limited, list, bare, ruled, g)
		}
		return err
	}, nil
}

// judge says what became of every message.
func (x *guarding) judge(l fact.Link, gw attack.Peer, learned, limited bool, list []judged, bare, ruled []arena.Outcome, g *probe.Guard) {
	for i, j := range list {
		a := probe.GuardAttempt{Group: probe.GuardGroup(j.f.Group), Name: j.f.Name, Bare: len(j.bad(bare[i])) > 0, Through: ruled[i].Through, Changed: j.bad(ruled[i])}
		if only(a.Changed, gateway(l.Name, ruled[i], gw)) && a.Group == probe.GuardRA {
			// It made no router, and moved one: the host need not listen to routers for that.
			a.Group, a.Name = probe.GuardNeighbour, "router advertisement "+a.Name
		}
		switch {
		case len(a.Changed) > 0:
			a.Verdict = probe.GuardTaken
			for _, b := range j.f.Frames {
				a.Packet = append(a.Packet, hex.EncodeToString(b))
			}
		case !a.Through && a.Bare:
			a.Verdict, a.By = probe.GuardStopped, "rules"
		default:
			a.Verdict, a.By = probe.GuardStopped, "kernel"
			if !a.Through && bare[i].Through {
				a.By = "both"
			}
		}
		if w := ruled[i].Before.Ways; j.f.Far.IsValid() && (len(w) != 1 || w[0].Via != gw.LL) && a.Verdict == probe.GuardStopped {
			a.Verdict, a.By, a.Why = probe.GuardUnknown, "", "nothing goes by the router here, so nothing could be led away"
		}
		if limited && a.Verdict == probe.GuardStopped && a.Bare && !a.Through {
			a.Verdict, a.By, a.Why = probe.GuardUnknown, "", "a limit of the rules lets some of its kind through"
		}
		if x.neighbour(l.Index, gw.LL) == "" { // the one that it has here is made up
			for k := range a.Changed {
				a.Changed[k] = strings.ReplaceAll(a.Changed[k], gw.MAC.String(), "its own")
			}
		}
		own := i == 0 && gw.LL.IsValid()
		if own && a.By == "rules" && x.neighbour(l.Index, gw.LL) == "" {
			a.Verdict, a.By, a.Why = probe.GuardUnknown, "", "the MAC address of the router is not known here, and rules may ask for it"
		}
		if a.Verdict == probe.GuardStopped && a.Group == probe.GuardRA && g.Client != "" && a.Through {
			a.Verdict, a.By, a.Why = probe.GuardUnknown, "", "it comes through to "+g.Client+", which takes advertisements here and is not tried"
		}
		switch {
		case !own:
			g.Attacks = append(g.Attacks, a)
		case learned || a.Bare || g.Client != "":
			if a.Packet == nil {
				a.Packet = []string{hex.EncodeToString(j.f.Frames[0])}
			}
			g.Control = &a
		}
	}
}

// limits fires some of what the rules stopped once more, one of each kind, after a rest: a
// limit that was used up by the first of many is no guard against the first of a few. It
// tells whether there is one.
func (x *guarding) limits(ctx context.Context, p *Prover, wire string, l fact.Link, list []judged, bare, ruled []arena.Outcome) (bool, error) {
	var again []arena.Trial
	var at []int
	kinds := map[string]bool{}
	for i, j := range list {
		lead, _, _ := strings.Cut(j.f.Name, ": ")
		if kind := j.f.Group + lead; !ruled[i].Through && len(j.bad(ruled[i])) == 0 && len(j.bad(bare[i])) > 0 && !kinds[kind] {
			kinds[kind] = true
			again, at = append(again, j.t), append(at, i)
		}
	}
	if len(again) == 0 {
		return false, nil
	}
	out, err := p.together.Try(ctx, wire, l.Name, again)
	limited := false
	for k := range out {
		if out[k].Through {
			limited = true
			ruled[at[k]] = out[k]
		}
	}
	return limited, err
}

// control shows that this place would have taken what nothing stops: without rules, and
// with the settings of a host that believes everybody, it does.
func (x *guarding) control(ctx context.Context, p *Prover, l fact.Link, wire string, g *probe.Guard, id uint32) error {
	var set []arena.Setting
	for _, k := range []string{"accept_ra=2", "accept_ra_defrtr=1", "accept_ra_pinfo=1", "autoconf=1", "accept_ra_min_lft=0", "accept_ra_min_hop_limit=1"} {
		key, value, _ := strings.Cut(k, "=")
		set = append(set, arena.Setting{Path: "net/ipv6/conf/" + l.Name + "/" + key, Value: value})
	}
	if _, err := p.alone.Set(ctx, set); err != nil {
		return fmt.Errorf("believe everybody: %w", err)
	}
	f := attack.Advertisements(attack.Range{}, id)[0]
	o, err := p.alone.Try(ctx, wire, l.Name, []arena.Trial{{ID: f.ID, Frames: f.Frames}})
	if err != nil {
		return err
	}
	if len(changes(l.Name, o[0], f, attack.Peer{})) == 0 {
		g.Unknown = cmp.Or(g.Unknown, "even without rules and with accept_ra=2 no advertisement is taken here, so nothing is shown")
	}
	return nil
}

// off: an interface without IPv6 takes nothing, and that is looked at as well.
func (x *guarding) off(ctx context.Context, p *Prover, l fact.Link, g *probe.Guard) error {
	f := attack.Advertisements(attack.Range{}, 1)[0]
	o, err := p.together.Try(ctx, cmp.Or(g.Port, l.Name), l.Name, []arena.Trial{{ID: f.ID, Frames: f.Frames}})
	if err != nil {
		return err
	}
	a := probe.GuardAttempt{Group: probe.GuardRA, Name: f.Name + " (IPv6 is off here)", Verdict: probe.GuardStopped, By: "kernel", Through: o[0].Through}
	if a.Changed = changes(l.Name, o[0], f, attack.Peer{}); len(a.Changed) > 0 {
		a.Verdict, a.By = probe.GuardTaken, ""
	}
	g.Attacks = append(g.Attacks, a)
	return nil
}

// optionRDNSS names DNS servers (RFC 8106).
const optionRDNSS = 25

// changes are what an advertisement has changed: what bears its number, and what of the
// router's is gone. An entry for who sent it is no harm.
func changes(link string, o arena.Outcome, f attack.Forgery, gw attack.Peer) (out []string) {
	var routes []string
	for _, r := range o.After.Routes {
		if r.Link != link || slices.Contains(o.Before.Routes, r) {
			continue
		}
		if r.Dst.Bits() == 0 {
			out = append(out, "a default route by "+r.Via.String())
		} else if r.Dst == f.Prefix {
			routes = append(routes, "a route to "+r.Dst.String())
		}
	}
	for _, r := range o.Before.Routes {
		if r.Link == link && r.Dst.Bits() == 0 && !slices.Contains(o.After.Routes, r) {
			out = append(out, "the end of the default route by "+r.Via.String())
		}
	}
	for _, a := range o.After.Addresses {
		if a.Link == link && f.Prefix.Contains(a.Prefix.Addr()) {
			out = append(out, "the address "+a.Prefix.Addr().String())
		}
	}
	out = append(out, routes...)
	if slices.Contains(o.Options, optionRDNSS) {
		out = append(out, "its DNS servers for whoever resolves names here")
	}
	for i, s := range o.After.Settings {
		if i < len(o.Before.Settings) && o.Before.Settings[i].Value != s.Value {
			w := strings.Split(s.Path, "/")
			out = append(out, fmt.Sprintf("%s %s instead of %s", w[len(w)-1], s.Value, o.Before.Settings[i].Value))
		}
	}
	return append(out, gateway(link, o, gw)...)
}

// only tells that nothing but one thing has changed.
func only(changed, one []string) bool { return len(changed) == 1 && slices.Equal(changed, one) }

// gateway tells whether the router has another MAC address.
func gateway(link string, o arena.Outcome, gw attack.Peer) []string {
	for _, n := range o.After.Neighbours {
		if n.Link == link && gw.LL.IsValid() && n.Address == gw.LL && ndisc.MAC(n.MAC) != gw.MAC {
			return []string{fmt.Sprintf("%s at %s instead of %s", n.Address, ndisc.MAC(n.MAC), gw.MAC)}
		}
	}
	return nil
}

// led tells whether a destination is somewhere else now.
func led(o arena.Outcome) []string {
	if len(o.Before.Ways) == 1 && len(o.After.Ways) == 1 && o.Before.Ways[0] != o.After.Ways[0] {
		return []string{fmt.Sprintf("a way by %s instead of %s", o.After.Ways[0].Via, o.Before.Ways[0].Via)}
	}
	return nil
}
