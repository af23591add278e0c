package prove

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/host/arena"
	"github.com/sixfence/sixfence/internal/logic/attack"
	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// elsewhere is an interface that the host does not have: behind it are the addresses that
// no packet from another link may claim.
const elsewhere = "sixfence-else"

// target is an interface that is fired at.
type target struct {
	name  string
	shots attack.Range
	// slaac: the kernel itself takes the router's advertisements, as the intent wants;
	// still: it is to take none. Neither: somebody else takes them.
	slaac, still bool
	off          bool // no IPv6 here
	// guest is somebody on a bridge.
	guest attack.Peer
}

// site is a host as it is made again elsewhere.
type site struct {
	in      *intent.Intent
	snap    *fact.Snapshot
	ns      *fact.Namespace
	plan    *change.Plan
	setup   arena.Setup
	targets []target
	limits  []string
	ports   []uint16 // that others may lead elsewhere
	more    []uint16 // those of them that are fired at in any case
	lost    int      // routes that are not made again
	// guards: it is made for Guards. Bridges then have the ports of the host.
	guards bool
	// notFired are interfaces that nothing is fired at, and why.
	notFired []string
	sel      intent.Selection
}

func (s *site) limit(f string, a ...any) { s.limits = append(s.limits, fmt.Sprintf(f, a...)) }

const (
	iffUp       = 1
	iffLoopback = 8
	arphrdEther = 1
)

// newSite reads what matters of a host.
func newSite(p *change.Plan, in intent.Intent, snap *fact.Snapshot, ns *fact.Namespace, noTun bool) (*site, error) {
	s := &site{in: &in, snap: snap, ns: ns, plan: p}
	links, ok := ns.Links.Get()
	if !ok {
		return nil, fmt.Errorf("the interfaces of the host are not known")
	}
	sel, gap := in.Select(ns)
	if gap != nil {
		return nil, fmt.Errorf("which interfaces the intent means is not known: %s", gap.What)
	}
	s.sel = sel
	s.learned()
	var use []fact.Link
	for _, l := range links {
		switch {
		case l.Flags&iffLoopback != 0:
		case l.Master != 0 && l.SlaveKind != "vrf": // its frames come in by the bridge or bond
		case l.Flags&iffUp == 0 && sel.Keys[l.Name] == "":
		case len(l.Name) > 15 || strings.ContainsAny(l.Name, `\/"`):
			s.notFired = append(s.notFired, l.Name+": it has a name that cannot be made again")
		case l.Type != arphrdEther && noTun:
			s.notFired = append(s.notFired, l.Name+": it is no Ethernet, and the module tun, by which it would be made again, is not loaded (modprobe tun)")
		default:
			use = append(use, l)
		}
	}
	slices.SortStableFunc(use, func(a, b fact.Link) int { return s.rank(a) - s.rank(b) })
	// One rule is for all interfaces that lead to containers and that the intent does not
	// name: at the first of them is fired, the others are there.
	aims := len(use)
	for aims > 1 && s.rank(use[aims-2]) == anyContainer {
		aims--
	}
	if more := len(use) - aims; more > 0 {
		s.limit("%s is fired at for %d more of its kind", use[aims-1].Name, more)
	}
	if n := arena.MaxLinks - 1; len(use) > n {
		for _, l := range use[n:max(aims, n)] {
			s.notFired = append(s.notFired, fmt.Sprintf("%s: a proof has room for %d interfaces", l.Name, n))
		}
		use, aims = use[:n], min(aims, n)
	}
	if len(use) == 0 {
		return nil, fmt.Errorf("the host has no interface that could be fired at")
	}
	for n, l := range use {
		s.link(n, l)
	}
	s.setup.Links = append(s.setup.Links, arena.Link{Name: elsewhere, Addresses: []netip.Prefix{netip.MustParsePrefix("2001:db8:51fe::1/64"), netip.MustParsePrefix("198.19.254.1/24")}})
	s.routes()
	s.settings()
	s.led()
	for n := range use[:aims] {
		s.aim(n, use[n])
	}
	rules, _ := ns.Rules.Get()
	if slices.ContainsFunc(rules, func(r fact.Rule) bool { return r.Priority != 0 && r.Priority != 32766 && r.Priority != 32767 }) {
		s.limit("rules of policy routing are not made again")
	}
	slices.Sort(s.limits)
	return s, nil
}

// learned lists the routers that an interface with learnOnce has now, as the plan does.
func (s *site) learned() {
	ifaces := maps.Clone(s.in.Interfaces)
	routes, _ := s.ns.Routes.Get()
	for key, i := range ifaces {
		if !i.LearnOnce || len(i.Routers) > 0 {
			continue
		}
		for _, r := range routes {
			for _, h := range r.NextHops {
				if r.Family == "ipv6" && r.Dst.Bits() == 0 && r.Protocol == fact.ProtoRA && s.sel.Keys[s.name(h.Index)] == key && h.Via.IsLinkLocalUnicast() {
					i.Routers = append(i.Routers, intent.Router{Address: h.Via.WithZone(""), MAC: s.neighbour(h.Index, h.Via)})
				}
			}
		}
		ifaces[key] = i
	}
	in := *s.in
	in.Interfaces = ifaces
	s.in = &in
}

func (s *site) name(index int) string {
	links, _ := s.ns.Links.Get()
	for _, l := range links {
		if l.Index == index {
			return l.Name
		}
	}
	return ""
}

// neighbour is the MAC address that the host knows of a neighbour; empty: none.
func (s *site) neighbour(index int, a netip.Addr) string {
	list, _ := s.ns.Neighbours.Get()
	for _, n := range list {
		if n.Index == index && n.Address.WithZone("") == a.WithZone("") {
			return n.MAC
		}
	}
	return ""
}

// anyContainer is the last rank: an interface to a container that the intent does not name.
const anyContainer = 3

// rank sorts interfaces: those of default routes, those that the intent names, others.
func (s *site) rank(l fact.Link) int {
	switch {
	case s.gateway(l.Index, true).IsValid() || s.gateway(l.Index, false).IsValid():
		return 0
	case s.sel.Keys[l.Name] != "":
		return 1
	case l.Kind == "veth":
		return anyContainer
	}
	return 2
}

// maxLed is how many ports are fired at because rules of others name them.
const maxLed = 16

// led finds the ports that others may lead elsewhere. Which of them they do lead the kernel
// decides.
func (s *site) led() {
	s.ports = reach.NewSpace(s.snap, s.ns, nil, false).NATPorts()
	s.more = s.ports
	if n := len(s.ports); n > maxLed {
		s.limit("of %d ports that NAT of others names %d are fired at", n, maxLed)
		s.more = nil
		for i := range maxLed {
			s.more = append(s.more, s.ports[i*n/maxLed])
		}
	}
}

// gateway is that of the default route of a family by an interface.
func (s *site) gateway(index int, v4 bool) netip.Addr {
	routes, _ := s.ns.Routes.Get()
	for _, r := range routes {
		if r.Dst.IsValid() && r.Dst.Bits() == 0 && r.Dst.Addr().Is4() == v4 && r.Type == 1 {
			for _, h := range r.NextHops {
				if h.Index == index && h.Via.IsValid() {
					return h.Via.WithZone("")
				}
			}
		}
	}
	return netip.Addr{}
}

func mac(text string, def ndisc.MAC) ndisc.MAC {
	m, err := net.ParseMAC(text)
	if err != nil || len(m) != 6 {
		return def
	}
	return ndisc.MAC(m)
}

// linkLocal is the EUI-64 link-local address of a MAC address (RFC 4291 appendix A).
func linkLocal(m ndisc.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// Prefixes that neighbours find room in.
const (
	room4 = 28
	room6 = 112
)

// link makes an interface again, with addresses of both families that neighbours have
// room beside: what the host lacks is made up.
func (s *site) link(n int, l fact.Link) {
	m := mac(l.MAC, ndisc.MAC{0x02, 0x51, 0xfe, 0, 1, byte(n)})
	a := arena.Link{Name: l.Name, Index: uint32(l.Index), MAC: m, MTU: l.MTU, Bridge: l.Kind == "bridge", Plain: l.Type != arphrdEther}
	if a.Bridge && s.guards {
		a.Ports = s.bridged(l.Index)
	}
	list, _ := s.ns.Addresses.Get()
	var six, four, ll bool
	for _, x := range list {
		if x.Index != l.Index || !x.Prefix.IsValid() || x.Flags&(fact.AddrDADFailed|fact.AddrTentative) != 0 || len(a.Addresses) >= 16 {
			continue
		}
		p := netip.PrefixFrom(x.Prefix.Addr().WithZone(""), x.Prefix.Bits())
		if x.Flags&fact.AddrNoPrefixRoute != 0 { // its prefix is among the routes, or nowhere
			p = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		}
		a.Addresses = append(a.Addresses, p)
		six = six || p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() && p.Bits() <= room6
		four = four || p.Addr().Is4() && p.Bits() <= room4
		ll = ll || p.Addr().Is6() && p.Addr().IsLinkLocalUnicast()
	}
	if !ll {
		a.Addresses = append(a.Addresses, netip.PrefixFrom(linkLocal(m), 64))
	}
	if !six {
		a.Addresses = append(a.Addresses, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x51, 0xfe, 1, byte(n), 15: 0x10}), 64))
	}
	if !four {
		a.Addresses = append(a.Addresses, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 19, byte(n), 10}), 24))
	}
	s.setup.Links = append(s.setup.Links, a)
}

// made is an interface that is made again.
func (s *site) made(name string) *arena.Link {
	for i := range s.setup.Links {
		if s.setup.Links[i].Name == name {
			return &s.setup.Links[i]
		}
	}
	return nil
}

// maxRoutes bounds the routes that are made again.
const maxRoutes = 500

// routes are those of the main table, and permanent neighbours for their gateways: what
// the host sends must find its router, or it answers itself that it cannot.
func (s *site) routes() {
	list, _ := s.ns.Routes.Get()
	left := 0
	for _, r := range list {
		if r.Type != 1 || r.Table != 254 || r.Protocol == fact.ProtoKernel || !r.Dst.IsValid() || r.Src.IsValid() && r.Src.Bits() > 0 || len(r.NextHops) == 0 {
			continue
		}
		h := r.NextHops[0]
		l := s.made(s.name(h.Index))
		if s.guards && r.Protocol == fact.ProtoRA && l != nil && s.takes(l.Name) {
			continue // the router's own advertisement makes it
		}
		if l == nil || h.Via.IsValid() && h.Via.Is4() != r.Dst.Addr().Is4() || h.Encap != 0 {
			left++
			continue
		}
		if len(s.setup.Routes) == maxRoutes {
			left++
			continue
		}
		s.setup.Routes = append(s.setup.Routes, arena.Route{Dst: r.Dst, Via: h.Via, Link: l.Name, Metric: r.Priority})
		if h.Via.IsValid() {
			s.know(l.Name, h.Via.WithZone(""), mac(s.neighbour(h.Index, h.Via), routerMAC))
		}
	}
	if s.lost = left; left > 0 {
		s.limit("%d routes are not made again", left)
	}
	for _, st := range s.plan.Steps {
		if st.Kind != change.Neighbour || st.After.Absent {
			continue
		}
		dev, text, _ := strings.Cut(st.Target, " ")
		if a, err := netip.ParseAddr(text); err == nil && s.made(dev) != nil {
			s.know(dev, a, mac(st.After.Text, routerMAC))
		}
	}
}

// takes tells whether the kernel takes advertisements on an interface.
func (s *site) takes(name string) bool {
	all, _ := s.ns.Sysctls.Get()
	conf := func(key string) string { return all.Values["net/ipv6/conf/"+name+"/"+key] }
	return conf("accept_ra") == "2" || conf("accept_ra") == "1" && conf("forwarding") == "0"
}

var (
	routerMAC    = ndisc.MAC{0x02, 0x51, 0xfe, 0, 0, 1}
	neighbourMAC = ndisc.MAC{0x02, 0x51, 0xfe, 0, 0, 7}
	guestMAC     = ndisc.MAC{0x02, 0x51, 0xfe, 0, 0, 9}
	rogueMAC     = ndisc.MAC{0x02, 0x51, 0xfe, 6, 6, 6}
)

func (s *site) know(link string, a netip.Addr, m ndisc.MAC) {
	if s.made(link).Plain {
		return // nobody is asked for there
	}
	for i := range s.setup.Neighbours {
		if n := &s.setup.Neighbours[i]; n.Link == link && n.Address == a {
			n.MAC = m
			return
		}
	}
	s.setup.Neighbours = append(s.setup.Neighbours, arena.Neighbour{Link: link, Address: a, MAC: m})
}

// ours are keys that this package sets itself.
var ours = []string{"addr_gen_mode", "stable_secret", "mtu"}

// settings are the sysctls of the host that a network namespace has.
func (s *site) settings() {
	all, ok := s.ns.Sysctls.Get()
	if !ok {
		s.limit("the settings of the host are not known: those of a fresh namespace hold")
		return
	}
	for _, k := range slices.Sorted(maps.Keys(all.Values)) {
		w := strings.Split(k, "/")
		if slices.Contains(ours, w[len(w)-1]) || w[len(w)-1] == "disable_ipv6" || w[0] != "net" || len(w) > 2 && w[2] == "route" {
			continue
		}
		x := arena.Setting{Path: k, Value: strings.Join(strings.Fields(all.Values[k]), " ")}
		if len(w) == 5 && (w[2] == "conf" || w[2] == "neigh") && w[3] != "all" && w[3] != "default" && w[3] != "lo" {
			if s.made(w[3]) != nil {
				s.setup.After = append(s.setup.After, x)
			}
			continue
		}
		s.setup.Before = append(s.setup.Before, x)
	}
	// What is written to "all" is copied, and so comes first.
	slices.SortStableFunc(s.setup.Before, func(a, b arena.Setting) int {
		all := func(x arena.Setting) int {
			if strings.Contains(x.Path, "/all/") || x.Path == "net/ipv4/ip_forward" {
				return 0
			}
			return 1
		}
		return cmp.Compare(all(a), all(b))
	})
}

// steps are the sysctls of the plan, in its order.
func (s *site) steps() (list []arena.Setting) {
	for _, st := range s.plan.Steps {
		if st.Kind != change.Sysctl || st.Phase != change.Runtime || st.After.Absent {
			continue
		}
		w := strings.Split(st.Target, "/")
		if len(w) == 5 && w[2] == "conf" && w[3] != "all" && w[3] != "default" && w[3] != "lo" && s.made(w[3]) == nil {
			continue
		}
		list = append(list, arena.Setting{Path: st.Target, Value: st.After.Text})
	}
	// Where IPv6 is off, and stays so. It was on until here, for addresses to be there
	// where it is switched on.
	all, _ := s.ns.Sysctls.Get()
	for _, l := range s.setup.Links {
		key := "net/ipv6/conf/" + l.Name + "/disable_ipv6"
		if all.Values[key] == "1" && !slices.ContainsFunc(list, func(x arena.Setting) bool { return x.Path == key }) {
			list = append(list, arena.Setting{Path: key, Value: "1"})
		}
	}
	return list
}

// by tells whether the intent sets such keys itself: then it is as its words are.
func (s *site) by(words ...string) bool {
	for k := range s.in.Sysctls {
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(k, w) }) {
			return true
		}
	}
	return false
}

// named are the prefixes that the intent and the host speak of.
func (s *site) named() (out []netip.Prefix) {
	for _, v := range s.in.Services {
		out = append(append(out, v.From...), v.To...)
	}
	for _, f := range s.in.Forwarding.Allow {
		out = append(append(out, f.From...), f.To...)
	}
	for _, d := range slices.Concat(s.in.Egress.IPv6.Allow, s.in.Egress.IPv4.Allow) {
		out = append(out, d.To...)
	}
	for _, i := range s.in.Interfaces {
		for _, r := range i.Routers {
			out = append(out, r.Prefixes...)
		}
	}
	out = append(out, s.in.Limits.Exempt...)
	as, _ := s.ns.Addresses.Get()
	for _, a := range as {
		// An address of loopback is no excuse for the same from a wire.
		if !a.Prefix.Addr().IsLoopback() {
			out = append(out, a.Prefix.Masked())
		}
	}
	rs, _ := s.ns.Routes.Get()
	for _, r := range rs {
		if r.Type == 1 && r.Dst.IsValid() {
			out = append(out, r.Dst)
		}
	}
	return out
}

// transit is what the intent says about packets through the host.
func (s *site) transit(want *bool, v4 bool) string {
	f := s.in.Forwarding
	if v4 && (s.in.Firewall.Manage != "" && s.in.Firewall.Manage != intent.ManageBoth || s.in.Families == intent.IPv6Only) {
		return ""
	}
	switch {
	case s.by("forward"):
		return ""
	case want != nil && !*want:
		return "off"
	case f.Unmanaged:
		return ""
	case s.in.Role == intent.RoleRouter || len(f.Allow) > 0 && want != nil:
		return "on"
	case want == nil && s.in.Role == intent.RoleServer && !s.guests():
		return "off"
	}
	return ""
}

// guests tells whether something here may need to have its packets passed on.
func (s *site) guests() bool {
	links, _ := s.ns.Links.Get()
	d, _ := s.snap.Host.Runtimes.Docker.Get()
	v, _ := s.snap.Host.Runtimes.Libvirt.Get()
	k, _ := s.snap.Host.Runtimes.Kubelet.Get()
	return d.Running || d.Containers > 0 || v.Running || v.Guests > 0 || k.Running || slices.ContainsFunc(links, func(l fact.Link) bool { return l.Kind == "bridge" })
}

// userspace tells whether a network manager may take the advertisements of an interface,
// so that the kernel is to take none.
func (s *site) userspace(fact.Link) bool {
	ms, _ := s.snap.Host.Managers.Get()
	return slices.ContainsFunc(ms, func(m fact.Manager) bool {
		return slices.ContainsFunc(m.Interfaces, func(i fact.ManagedInterface) bool { return i.InUserspace })
	})
}
