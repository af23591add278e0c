// Package draft writes the first intent of a host from the host as it is: what holds
// today, each value with the evidence it was inferred from, for a person to read and
// correct. It decides nothing that a person has to decide: routers that only announced
// themselves are written as not accepted.
package draft

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// Options of New.
type Options struct {
	// Profile is one of Profiles, or empty: what the host looks like decides.
	Profile string
	// MirrorIPv4 lets IPv6 in where IPv4 is let in today, and nowhere else.
	MirrorIPv4 bool
	// LearnOnce accepts the routers that are there when the plan is first applied.
	LearnOnce bool
	// Session is this host's end of the connection by which the caller administers it;
	// zero when it is not known.
	Session netip.AddrPort
}

// Profile is a kind of host that somebody says this is.
type Profile struct {
	Name, What string
	role       intent.Role
}

// The names of the profiles.
const (
	StaticServer   = "static-server"
	CloudVM        = "slaac-vm"
	Router         = "router"
	KubernetesNode = "kubernetes-node"
	Hypervisor     = "hypervisor"
	ContainerHost  = "container-host"
	IPv4Only       = "ipv4-only"
)

// Profiles are what New knows.
func Profiles() []Profile {
	return []Profile{
		{StaticServer, "a server with configured addresses and routes: it believes no RA", intent.RoleServer},
		{CloudVM, "a virtual machine whose default route comes by RAs", intent.RoleServer},
		{Router, "forwards between its interfaces", intent.RoleRouter},
		{KubernetesNode, "runs pods; kube-proxy and the CNI decide what is forwarded", intent.RoleKubernetesNode},
		{Hypervisor, "runs virtual machines; their manager decides what is forwarded", intent.RoleHypervisor},
		{ContainerHost, "a server with Docker or Podman, which decide what is forwarded", intent.RoleServer},
		{IPv4Only, "a host that is to have no IPv6 but ::1", intent.RoleServer},
	}
}

// Draft is an intent and what is said about its values, by path.
type Draft struct {
	Intent intent.Intent
	Above  map[string][]string // lines of comment before a value; "" stands at the top
	Beside map[string]string   // comment at the end of its line
	// Open are the things that a person has to decide before plan goes on.
	Open []string
}

// New drafts an intent for one namespace of a host.
func New(s *fact.Snapshot, n *fact.Namespace, o Options) (*Draft, error) {
	d := &drafting{snap: s, ns: n, o: o, Draft: Draft{Above: map[string][]string{}, Beside: map[string]string{}}}
	if o.Profile != "" {
		i := slices.IndexFunc(Profiles(), func(p Profile) bool { return p.Name == o.Profile })
		if i < 0 {
			return nil, fmt.Errorf("there is no profile %q", o.Profile)
		}
		d.profile = Profiles()[i]
	}
	links, ok := n.Links.Get()
	if !ok {
		return nil, fmt.Errorf("the interfaces of %s are not known", cmp.Or(n.Name, "this host"))
	}
	d.links = links
	d.addrs, _ = n.Addresses.Get()
	d.routes, _ = n.Routes.Get()
	d.neighbours, _ = n.Neighbours.Get()
	d.role = check.NewContext(s, string(d.profile.role)).Role
	d.top()
	d.families()
	d.interfaces()
	d.services()
	d.forwarding()
	d.tunnels()
	d.rest()
	return &d.Draft, nil
}

type drafting struct {
	Draft
	snap       *fact.Snapshot
	ns         *fact.Namespace
	o          Options
	profile    Profile
	role       finding.Role
	links      []fact.Link
	addrs      []fact.Address
	routes     []fact.Route
	neighbours []fact.Neighbour
}

func (d *drafting) above(path, f string, a ...any) {
	d.Above[path] = append(d.Above[path], wrap(fmt.Sprintf(f, a...), 88)...)
}

func wrap(s string, width int) []string {
	var out []string
	cur := ""
	for _, w := range strings.Fields(s) {
		if cur != "" && len(cur)+1+len(w) > width {
			out = append(out, cur)
			cur = ""
		}
		if cur != "" {
			cur += " "
		}
		cur += w
	}
	return append(out, cur)
}

func (d *drafting) top() {
	host := cmp.Or(d.snap.Host.Hostname.Or(""), "this host")
	at := ""
	if t := d.snap.Host.CollectedAt; !t.IsZero() {
		at = " on " + t.UTC().Format("2006-01-02")
	}
	d.above("", "What %s is meant to be. `sixfence harden init` wrote this%s from what it saw; each comment says why a line is as it is. Correct what is wrong: this file decides, not the host.", host, at)
	d.above("", "Then: sixfence intent check, sudo sixfence harden plan. Nothing changes before harden apply.")
	d.Intent.APIVersion = intent.Version
	d.Intent.Role = intent.Role(d.role.Name)
	if d.profile.Name != "" {
		d.Beside["role"] = "profile " + d.profile.Name
	} else {
		d.above("role", "Because %s. One of server, router, kubernetes-node, hypervisor, workstation; a role never opens a port.", strings.Join(d.role.Because, "; "))
	}
}

func (d *drafting) families() {
	six, on, four := false, false, false
	for _, a := range d.addrs {
		ip := a.Prefix.Addr()
		switch {
		case ip.IsLoopback():
		case ip.Is4():
			four = true
		default:
			on = true
			six = six || ip.IsGlobalUnicast()
		}
	}
	has, known := d.ns.IPv6.Get()
	switch {
	case d.profile.Name == IPv4Only:
		d.Intent.Families = intent.DisabledKeepLoopback
		d.above("families", "Profile ipv4-only: IPv6 goes from every interface but loopback, which services may use as ::1.")
	case known && !has:
		d.Intent.Families = intent.Disabled
		d.above("families", "This host has no IPv6 at all (ipv6.disable=1, or a kernel without it).")
	case !on && len(d.addrs) > 0:
		d.Intent.Families = intent.DisabledKeepLoopback
		d.above("families", "No interface has an IPv6 address now, not even a link-local one: IPv6 is switched off here, and this keeps it so. dual-stack switches it on.")
	case six && !four:
		d.Intent.Families = intent.IPv6Only
		d.above("families", "There are IPv6 addresses and no IPv4 address.")
	default:
		d.Intent.Families = intent.DualStack
		if six {
			d.above("families", "There are addresses of both families.")
		} else {
			d.above("families", "IPv6 is switched on, with link-local addresses only: every neighbour can reach this host over it. If it is not meant to be used, write disabled-keep-loopback.")
		}
	}
}

func (d *drafting) disabled() bool {
	return d.Intent.Families == intent.Disabled || d.Intent.Families == intent.DisabledKeepLoopback
}

func (d *drafting) forwarding() {
	f := &d.Intent.Forwarding
	yes := true
	value := func(key string) bool {
		s, _ := d.ns.Sysctls.Get()
		return s.Get(key).Or("0") == "1"
	}
	on4, on6 := value("net/ipv4/ip_forward"), value("net/ipv6/conf/all/forwarding")
	docker, _ := d.snap.Host.Runtimes.Docker.Get()
	containers := docker.Running || docker.Containers > 0
	switch {
	case d.role.Name == string(intent.RoleRouter):
		if on4 {
			f.IPv4 = &yes
		}
		if on6 || !on4 {
			f.IPv6 = &yes
		}
		up := d.uplinks()
		var names []string
		for k := range d.Intent.Interfaces {
			names = append(names, k)
		}
		slices.Sort(names)
		for _, in := range names {
			for _, out := range up {
				if !slices.Contains(up, in) && slices.Contains(names, out) {
					f.Allow = append(f.Allow, intent.Flow{InInterface: in, OutInterface: out})
				}
			}
		}
		d.above("forwarding", "A router: what is not listed under allow does not pass. Inferred: from each interface without a default route to those with one (%s). Narrow it, and add what may come in.", cmp.Or(strings.Join(up, ", "), "none"))
	case d.role.Name == string(intent.RoleKubernetesNode), d.role.Name == string(intent.RoleHypervisor), d.profile.Name == ContainerHost:
		f.Unmanaged = true
		d.above("forwarding", "Others decide what is forwarded here (kube-proxy and the CNI, the manager of the guests, Docker): their rules are left alone. Published ports obey the services above all the same.")
	case d.profile.Name == "" && (containers || on4 || on6):
		f.Unmanaged = true
		// Left out they mean "no", for a server.
		if on4 {
			f.IPv4 = &yes
		}
		if on6 {
			f.IPv6 = &yes
		}
		why := "This host forwards"
		if containers {
			why = "Docker is here"
		}
		d.above("forwarding", "%s (net.ipv4.ip_forward=%s, net.ipv6.conf.all.forwarding=%s): the switches stay, and what is forwarded is left to who set that up. Take this out if nothing is to pass.", why, bit(on4), bit(on6))
		if between := d.networks(); !containers && len(between) > 1 {
			d.above("forwarding", "Is that its job, between %s? Then it is a router, and --profile router writes what may pass.", strings.Join(between, ", "))
			d.Open = append(d.Open, fmt.Sprintf("say whether this host is a router: it forwards, and has addresses on %s (init --profile router)", strings.Join(between, ", ")))
		}
	}
}

// networks are the listed interfaces that are no inner ones, of containers or tunnels.
func (d *drafting) networks() (out []string) {
	for i := range d.links {
		l := &d.links[i]
		_, listed := d.Intent.Interfaces[l.Name]
		if listed && mechanisms[l.Kind] == "" && !slices.Contains([]string{"bridge", "dummy", "tun"}, l.Kind) {
			out = append(out, l.Name)
		}
	}
	slices.Sort(out)
	return out
}

func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// mechanisms are the kinds of interfaces that are tunnels.
var mechanisms = map[string]string{"sit": "6in4", "gre": "gre", "gretap": "gre", "ip6gre": "ip6gre", "ip6gretap": "ip6gre", "ipip": "ipip", "ip6tnl": "ip6tnl", "vti": "vti", "vti6": "vti6", "wireguard": "wireguard", "vxlan": "vxlan", "geneve": "geneve"}

func (d *drafting) tunnels() {
	d.Intent.Tunnels.Policy = intent.TunnelsDeny
	for i := range d.links {
		l := &d.links[i]
		m := mechanisms[l.Kind]
		if m == "" || l.Flags&1 == 0 || l.Tunnel != nil && l.Tunnel.Fallback {
			continue
		}
		t := intent.Tunnel{Mechanism: m}
		if l.Tunnel != nil {
			switch r := l.Tunnel.Remote; {
			case l.Tunnel.ISATAP:
				t.Mechanism = "isatap"
			case l.Tunnel.SixRD.IsValid() && l.Kind == "sit" && !r.IsValid():
				t.Mechanism = "6to4"
			case r.IsValid() && !r.IsUnspecified() && !r.IsMulticast() && !r.Is4In6():
				t.Peer = netip.PrefixFrom(r.WithZone(""), r.BitLen())
			}
		}
		if slices.Contains(d.Intent.Tunnels.List, t) {
			continue
		}
		d.Intent.Tunnels.Policy = intent.TunnelsList
		d.Intent.Tunnels.List = append(d.Intent.Tunnels.List, t)
		d.above(fmt.Sprintf("tunnels[%d]", len(d.Intent.Tunnels.List)-1), "%s is up (kind %s).", l.Name, l.Kind)
	}
	if d.Intent.Tunnels.Policy == intent.TunnelsDeny {
		d.Beside["tunnels"] = "no tunnel interface is up; or a list: [{mechanism: wireguard, peer: \"192.0.2.1\"}]"
	}
}

// bracketed is an address as it stands in a URL.
func bracketed(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

// later is a day half a year from now.
func (d *drafting) later() string {
	if t := d.snap.Host.CollectedAt; !t.IsZero() {
		return t.UTC().AddDate(0, 6, 0).Format("2006-01-02")
	}
	return "2027-01-31"
}

// rest proposes, in comments alone, what no fact can tell.
func (d *drafting) rest() {
	var ask []string
	r, _ := d.snap.Host.Files.Resolver.Get()
	for _, s := range r.Nameservers {
		if a, err := netip.ParseAddr(s); err == nil && !a.IsLoopback() && a.Zone() == "" && len(ask) < 2 {
			ask = append(ask, fmt.Sprintf("%q", "dns://"+bracketed(a)+"/example.org"))
		}
	}
	if len(ask) == 0 {
		ask = []string{`"dns://[2001:db8::53]/example.org"`}
	}
	d.above("egress", "What this host may send: everything, as today. To close a family and open what is needed:")
	d.above("egress", "egress: {ipv6: {default: deny, allow: [{ports: [udp/53, tcp/443]}]}}")
	d.above("egress", "The addresses of a cloud's metadata (169.254.169.254, fd00:ec2::254 and their kin) stay reachable for everybody; metadata: root keeps programs that are not root from the credentials there.")
	d.above("checks", "What must answer before and after a change, or it is taken back:")
	d.above("checks", "checks: [%s]", strings.Join(ask, ", "))
	d.above("decision", "Who answers for this file, and when to look at it again:")
	d.above("decision", "decision: {who: \"…\", why: \"…\", until: \"%s\"}", d.later())
}
