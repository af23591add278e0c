package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// futureInterface stands for an interface that does not exist yet; no
// interface can have this name.
const futureInterface = "a future interface"

func raControls() []Control {
	return slices.Concat([]Control{
		{
			ID: "SYSCTL-RA-01", Title: "Interface would accept rogue router advertisements", Severity: finding.Critical,
			Reason:    "Whoever can send one packet on the link becomes this host's default router and reads or changes all its off-link IPv6 traffic.",
			Positions: []finding.Position{finding.FromLink},
			Source:    "net.ipv6.conf.IF.accept_ra and net.ipv6.conf.IF.forwarding of every interface, by /proc/sys or IFLA_INET6_CONF; the address and route lists for what depends on them",
			Rule:      "accept_ra == 2 where the interface forwards, else accept_ra != 0 (-1 and 3 accept too). Only the interface's own values count; conf/all/accept_ra is never read.",
			What:      "Whether the kernel would act on a router advertisement that arrives on this interface.",
			Why:       "A router advertisement sets the default route, on-link prefixes, addresses, MTU and hop limit, and carries no authentication. A host with static addresses and routes needs none. Benchmarks read conf/all/accept_ra, which the kernel ignores: a host can comply and still take every advertisement.",
			Attack:    "A neighbour multicasts one advertisement with a router lifetime (for instance with fake_router6 from THC-IPv6). The host adds a default route through it at once, on IPv4-only networks too, and prefers IPv6 for every dual-stack name.",
			Check:     "We apply the kernel's own rule, ipv6_accept_ra(), to each interface. Loopback, bridge and bond ports, VRF devices and interfaces with IPv6 switched off hear no advertisements. Where a packet filter stands on the inbound path the answer stays unknown until it is analysed.",
			Fix: []finding.Remediation{
				command("sysctl -w net.ipv6.conf.IFACE.accept_ra=0"),
				intent("interfaces:\n  IFACE: {addressing: static}"),
			},
			TradeOff: "An interface that gets its default route or its addresses by router advertisements loses them when their lifetimes end. Give it a static route and address first, or keep accept_ra and pin the routers in a packet filter.",
			Refs:     []finding.Reference{rfc("6104", "§2"), rfc("4861", "§6.3.4"), cis("3.3.11", "3.3.2.7"), stig("RHEL-09-254010"), stig("RHEL-08-040261"), stig("RHEL-10-800220"), kernelDoc("accept_ra")},
			Live:     true, Eval: evalRA01,
		},
		{
			ID: "SYSCTL-RA-02", Title: "New interfaces would accept router advertisements", Severity: finding.Medium,
			Reason:    "Nothing is exposed until an interface appears; then a VPN, a hot-plugged NIC or a container's veth takes advertisements from its first second.",
			Positions: []finding.Position{finding.FromLink, finding.FromPod},
			Source:    "net.ipv6.conf.default.accept_ra and net.ipv6.conf.default.forwarding",
			Rule:      "An interface starts with a copy of conf/default. default.accept_ra == 2 where default.forwarding is set, else default.accept_ra != 0.",
			What:      "The value of accept_ra that an interface gets when it is created.",
			Why:       "Writing the existing interfaces leaves the next one open. conf/all does not reach it either: only conf/default is copied.",
			Attack:    "The administrator hardens eth0; later a second NIC, a bridge or a VPN comes up and the first advertisement on its link installs a default route.",
			Check:     "We apply the kernel's rule to conf/default of every namespace. A drop-in for net.ipv6.conf.*.accept_ra that udev re-applies is checked by INV-09.",
			Fix:       []finding.Remediation{command("sysctl -w net.ipv6.conf.default.accept_ra=0"), command("echo 'net.ipv6.conf.default.accept_ra = 0' >> %s", dropIn)},
			TradeOff:  "Interfaces that are plugged in later need accept_ra=1 of their own when they live by SLAAC.",
			Refs:      []finding.Reference{rfc("6104", "§2"), cis("3.3.11", "3.3.2.8"), stig("RHEL-09-254030"), stig("RHEL-08-040262"), stig("RHEL-10-800260"), kernelDoc("accept_ra")},
			Live:      true, Eval: evalRA02,
		},
		{
			ID: "SYSCTL-RA-03", Title: "Benchmarks read conf/all/accept_ra, which is not 0", Severity: finding.Info,
			Reason:   "The kernel never reads this value; only an auditor does.",
			Source:   "net.ipv6.conf.all.accept_ra",
			Rule:     "None: conf/all/accept_ra changes no existing and no future interface, and no code path reads it.",
			What:     "The value that CIS and STIG checks look at.",
			Why:      "An audit may demand it. It is neither protection (0 stops nothing) nor danger (1 opens nothing).",
			Attack:   "None by itself. The danger is to believe it: a host with all.accept_ra=0 and eth0.accept_ra=1 passes the benchmark and takes rogue advertisements.",
			Check:    "We read the value for the compliance verdict only. SYSCTL-RA-01 and SYSCTL-RA-02 say what the kernel does.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.conf.all.accept_ra=0"), command("echo 'net.ipv6.conf.all.accept_ra = 0' >> %s", dropIn)},
			TradeOff: "None.",
			Refs:     []finding.Reference{cis("3.3.11", "3.3.2.7"), stig("RHEL-09-254010"), stig("RHEL-08-040261"), stig("RHEL-10-800220"), kernelDoc("accept_ra")},
			Live:     true, Eval: evalRA03,
		},
		{
			ID: "SYSCTL-RA-04", Title: "Routes or addresses of a router advertisement outlived accept_ra=0", Severity: finding.High,
			Reason:    "Traffic still leaves through the router that was advertised, although the setting looks closed.",
			Positions: []finding.Position{finding.FromLink},
			Source:    "RTM_GETROUTE with protocol ra, RTM_GETADDR with IFAPROT_KERNEL_RA or a lifetime, net.ipv6.conf.IF.accept_ra and forwarding, running network managers",
			Rule:      "Setting accept_ra to 0 removes nothing. RA routes and addresses stay until their own lifetimes end.",
			What:      "Routes and addresses that only a router advertisement can have made, on an interface where the kernel no longer takes any.",
			Why:       "After an incident, or after hardening a running host, the rogue router's default route stays in force for up to 18 hours and its addresses for ever if it said so.",
			Attack:    "The attacker sends one advertisement with the longest lifetimes before the host is hardened. Every check of accept_ra passes afterwards while the traffic still goes through the attacker.",
			Check:     "On each interface whose kernel takes no RA we look for routes with protocol ra and for addresses that came from one. systemd-networkd, dhcpcd and NetworkManager install such routes themselves: where one of them runs and takes RAs on that interface, it explains them and RA-02 to RA-05 judge it.",
			Fix: []finding.Remediation{
				command("ip -6 route flush proto ra dev IFACE"),
				advice("Add a static default route first if this is the only one."),
			},
			TradeOff: "Sessions that use the removed route or address break.",
			Refs:     []finding.Reference{rfc("4861", "§6.3.4"), rfc("6104", "§2"), kernelDoc("accept_ra")},
			Live:     true, Eval: evalRA04,
		},
		{
			ID: "SYSCTL-RA-13", Title: "Interface asks for routers although nothing here needs one", Severity: finding.Low,
			Reason:   "A router solicitation tells the link that a host came up and that it will believe the answer; it gives no access by itself.",
			Source:   "net.ipv6.conf.IF.router_solicitations, accept_ra and forwarding; address and route lists",
			Rule:     "The kernel solicits when an interface gets its link-local address, if router_solicitations != 0 (-1 = without end) and ipv6_accept_ra() holds. With accept_ra off it is silent whatever router_solicitations says.",
			What:     "Whether the kernel multicasts router solicitations on an interface that has static addresses and routes.",
			Why:      "A solicitation invites an immediate answer and so removes the attacker's need to guess when to send one. ANSSI asks for router_solicitations=0, which is only needed where accept_ra is on.",
			Attack:   "A rogue router waits for solicitations and answers each within milliseconds, before a slower legitimate router.",
			Check:    "We combine router_solicitations with the kernel's accept_ra rule, per interface. The compliance verdict is what ANSSI-BP-028 R13 reads: 0 in conf/all and conf/default.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.router_solicitations=0")},
			TradeOff: "A host that lives by SLAAC waits for the next periodic advertisement, up to 30 minutes.",
			Refs:     []finding.Reference{rfc("4861", "§6.3.7"), rfc("7559", "§2"), anssi("R13"), kernelDoc("router_solicitations")},
			Live:     true, Eval: evalRA13,
		},
		{
			ID: "SYSCTL-RA-15", Title: "The only IPv6 default route ends, because RAs are no longer taken", Severity: finding.High,
			Reason:    "At a known moment the host loses all off-link IPv6, without anything being changed again.",
			Positions: []finding.Position{finding.FromLink},
			Source:    "RTM_GETROUTE: default routes with protocol ra and their RTA_EXPIRES; net.ipv6.conf.IF.accept_ra and forwarding",
			Rule:      "With forwarding on, accept_ra=1 means no. Turning forwarding on deletes RA default routes at once unless accept_ra is 2; later advertisements are ignored, and what is left runs out.",
			What:      "Interfaces whose RA default route is the only one while the kernel ignores the advertisements that would renew it.",
			Why:       "Docker, Kubernetes, libvirt and VPN software turn forwarding on. A cloud host that got its route by RA then works until the route's lifetime ends, and IPv6 fails hours after the change.",
			Attack:    "None is needed: the outage comes by itself. A neighbour can hasten it with one forged advertisement of lifetime 0 while RAs are still taken.",
			Check:     "We look for IPv6 default routes: when all came by RA, their interface must still take RAs (in the kernel, or by a network manager that runs). A host that forwards, has an RA address and no default route left has already lost it.",
			Fix: []finding.Remediation{
				command("ip -6 route replace default via ROUTER dev IFACE"),
				advice("Or set accept_ra=2 on the uplink, and pin its routers in a packet filter."),
			},
			TradeOff: "accept_ra=2 opens SYSCTL-RA-01 again; a static route does not follow a renumbering.",
			Refs:     []finding.Reference{rfc("4861", "§6.3.4"), kernelDoc("accept_ra"), kernelDoc("forwarding")},
			Live:     true, Eval: evalRA15,
		},
		{
			ID: "SYSCTL-RA-16", Title: "More RA default routers than a network has", Severity: finding.Medium,
			Reason:    "Each is a neighbour that carries this host's traffic for some destinations; many are a flood.",
			Positions: []finding.Position{finding.FromLink},
			Source:    "RTM_GETROUTE: IPv6 default routes with protocol ra, by next hop",
			Rule:      "The kernel keeps every router it hears, without limit (route.max_size is INT_MAX), and chooses among those of equal preference.",
			What:      "How many different routers advertised a default route on one interface.",
			Why:       "One or two routers per link are normal. A third is often somebody's laptop with connection sharing, or an attacker who need not remove the real one.",
			Attack:    "A rogue router advertises itself beside the real one and gets a share of the traffic; a flood of advertisements (3,000 made 3,000 routes here) fills the table.",
			Check:     "We count distinct next hops of RA default routes per interface: more than two fail, more than eight are a flood (high).",
			Fix:       []finding.Remediation{command("ip -6 route show proto ra"), advice("Delete the routes through routers that are not yours, and pin the others.")},
			TradeOff:  "Networks with three or more real routers on one link need a waiver.",
			Refs:      []finding.Reference{rfc("6104", "§2"), rfc("4311", "§3")},
			Live:      true, Eval: evalRA16,
		},
	}, raParameterControls())
}

func raDispositions() []Disposition {
	return []Disposition{{
		ID: "SYSCTL-RA-12", Title: "accept_ra_from_local", State: "dropped",
		Because: "It opens nothing: the value only lets an advertisement from the host's own address reach the route code, which refuses a gateway that is a local address. Measured on 6.18: with 1 such an advertisement is given up whole, with 0 its prefix and MTU are still taken.",
	}}
}

func evalRA01(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		ra, on := s.raOf(l), s.On(l.Name)
		comp := s.benchmark("accept_ra", "0")
		ev := append(slices.Clone(ra.evidence), s.confEvidence("all", "accept_ra"))
		if ra.gap != nil {
			r := unknown(on, *ra.gap)
			r.Compliance = comp
			return []Result{r}
		}
		if !ra.accepts {
			r := pass(on, fmt.Sprintf("The kernel ignores router advertisements on %s: accept_ra=%d%s.", l.Name, ra.acceptRA, forwardsToo(ra)), ev...)
			r.Compliance = comp
			return []Result{r}
		}
		r := fail(on, fmt.Sprintf("%s would accept any neighbour's router advertisement: accept_ra=%d%s.", l.Name, ra.acceptRA, forwardsToo(ra)), ev...)
		r.Compliance = comp
		if comp == finding.Pass {
			r.Message += " Benchmarks pass here, because they read conf/all, which the kernel does not."
		}
		r.Severity, r.Remediation = s.raSeverity(l, ra), s.raRemedy(l, ra)
		switch {
		case l.Flags&iffUp == 0:
			r.Message += " The interface is down; this counts from the moment it comes up."
		case ra.routes:
			r.Message += " " + s.livesByRA(l) + " Do not just set accept_ra=0: the default route would vanish when it expires."
		case ra.addrs:
			r.Message += " Its global address comes from router advertisements and would vanish when its lifetime ends."
		}
		if l.Kind == "veth" && l.PeerNS != nil && (s.IsInit || s.IsSelf) {
			r.Positions = []finding.Position{finding.FromPod}
		}
		return []Result{s.behind(anyRA(), l.Name, r)}
	})
}

func forwardsToo(r raState) string {
	if r.forwards == 0 {
		return ""
	}
	return fmt.Sprintf(" with forwarding=%d", r.forwards)
}

// livesByRA says by which routes an interface lives.
func (s *Space) livesByRA(l *fact.Link) string {
	var out []string
	for _, d := range s.on(l.Index).defaults {
		if d.Protocol == fact.ProtoRA && len(out) < 3 {
			out = append(out, viaOf(d, l.Index)+" ("+s.ctx.expiry(d)+")")
		}
	}
	return "The only IPv6 default route came by one, via " + strings.Join(out, " and ") + "."
}

func viaOf(r *fact.Route, ifindex int) string {
	for _, h := range r.NextHops {
		if h.Index == ifindex && h.Via.IsValid() {
			return h.Via.String()
		}
	}
	return "the link"
}

// raSeverity weighs what an accepted RA could do here.
func (s *Space) raSeverity(l *fact.Link, ra raState) finding.Severity {
	num := func(key string, def int64) int64 { return s.ConfInt(l.Name, key).Or(def) }
	routes := num("accept_ra_defrtr", 1) != 0 || num("accept_ra_rt_info_max_plen", 0) > 0 && num("accept_ra_rtr_pref", 1) != 0
	onlink := num("accept_ra_pinfo", 1) != 0
	switch {
	case l.Flags&iffUp == 0, !routes && !onlink:
		return finding.Medium
	case s.ctx.Role.Name == RoleWorkstation && ra.wanted():
		return finding.Medium
	case ra.wanted(), !routes, l.Flags&iffNoARP != 0, !s.IsInit && !s.IsSelf:
		return finding.High
	}
	return finding.Critical
}

func (s *Space) raRemedy(l *fact.Link, ra raState) []finding.Remediation {
	p := "net/ipv6/conf/" + l.Name + "/accept_ra"
	if !ra.wanted() {
		return []finding.Remediation{
			s.SetNow(p, "0"),
			s.Persist("net/ipv6/conf/default/accept_ra", "0", p, "0"),
			intent("interfaces:\n  %s: {addressing: static}", yamlWord(l.Name)),
		}
	}
	out := []finding.Remediation{
		advice("Pin the routers of %s: let a packet filter drop router advertisements (ICMPv6 type 134, at prerouting) from any other source address and MAC. Where a static address and route are possible, set those first and then accept_ra=0.", l.Name),
	}
	var routers []string
	for _, d := range s.on(l.Index).defaults {
		if via := viaOf(d, l.Index); d.Protocol == fact.ProtoRA && via != "the link" && len(routers) < 4 {
			routers = append(routers, fmt.Sprintf("{address: %q%s}", via, s.macOf(l.Index, via)))
		}
	}
	text := "interfaces:\n  " + yamlWord(l.Name) + ":\n    addressing: slaac"
	if len(routers) > 0 {
		text += "\n    routers: [" + strings.Join(routers, ", ") + "]   # as seen now: verify each before you pin it"
	}
	return append(out, intent("%s", text))
}

func (s *Space) macOf(ifindex int, addr string) string {
	ns, _ := s.Neighbours.Get()
	for _, n := range ns {
		if n.Index == ifindex && n.MAC != "" && n.Address.String() == addr {
			return fmt.Sprintf(", mac: %q", n.MAC)
		}
	}
	return ""
}

func evalRA02(c *Context) []Result {
	return c.eachSpace(func(s *Space) []Result {
		on := s.Subject()
		on.Key = "net.ipv6.conf.default.accept_ra"
		a, f := s.ConfInt("default", "accept_ra"), s.ConfInt("default", "forwarding")
		comp := s.benchmark("accept_ra", "0")
		av, haveA := a.Get()
		fv, haveF := f.Get()
		ev := []finding.Evidence{s.confEvidence("default", "accept_ra"), s.confEvidence("default", "forwarding")}
		switch {
		case !haveA:
			r := unknown(on, *notRead(a, "net.ipv6.conf.default.accept_ra"))
			r.Compliance = comp
			return []Result{r}
		case !haveF && av != 0 && av != 2:
			r := unknown(on, *notRead(f, "net.ipv6.conf.default.forwarding"))
			r.Compliance = comp
			return []Result{r}
		case !acceptsRA(av, fv):
			r := pass(on, fmt.Sprintf("A new interface starts with accept_ra=%d and takes no router advertisements.", av), ev...)
			r.Compliance = comp
			return []Result{r}
		}
		r := fail(on, fmt.Sprintf("A new interface starts with accept_ra=%d and would take any neighbour's router advertisement.", av), ev...)
		r.Compliance, r.Remediation = comp, s.SetConf("default", "accept_ra", "0")
		if !s.IsInit && !s.IsSelf {
			r.Severity = finding.Low // containers rarely get a second interface
		}
		return []Result{s.behind(anyRA(), futureInterface, r)}
	})
}

func evalRA03(c *Context) []Result {
	return c.eachSpace(func(s *Space) []Result {
		on := s.Subject()
		on.Key = "net.ipv6.conf.all.accept_ra"
		k := s.ConfInt("all", "accept_ra")
		v, ok := k.Get()
		if !ok {
			return []Result{unknown(on, *notRead(k, on.Key))}
		}
		r := notApplicable(on, fmt.Sprintf("all.accept_ra=%d has no effect: the kernel never reads it.", v))
		r.Evidence = []finding.Evidence{s.confEvidence("all", "accept_ra")}
		r.Compliance, r.Status = finding.Pass, finding.Pass
		if v != 0 {
			r.Compliance, r.Status = finding.Fail, finding.Fail
			r.Message += " A benchmark that reads it reports this host all the same."
			r.Remediation = s.SetConf("all", "accept_ra", "0")
		}
		return []Result{r}
	})
}

// learnedAddress tells whether only a router advertisement can have made an
// address; maybe is true where an old kernel does not say.
func (s *Space) learnedAddress(a fact.Address) (yes, maybe bool) {
	ip := a.Prefix.Addr()
	if !ip.Is6() || !ip.IsGlobalUnicast() || a.Flags&fact.AddrPermanent != 0 {
		return false, false
	}
	if a.Protocol == ifaprotRA {
		return true, false
	}
	if s.tellsProtocol() {
		return false, false
	}
	return false, a.Prefix.Bits() == 64
}

// tellsProtocol is true on kernels that report IFA_PROTO (5.18): lo and
// link-local addresses always carry one there.
func (s *Space) tellsProtocol() bool {
	all, _ := s.Addresses.Get()
	return slices.ContainsFunc(all, func(a fact.Address) bool { return a.Protocol != 0 })
}

func evalRA04(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		ra, on := s.raOf(l), s.On(l.Name)
		if ra.gap != nil {
			return []Result{unknown(on, *ra.gap)}
		}
		if ra.accepts {
			return []Result{notApplicable(on, "The kernel still takes router advertisements here; SYSCTL-RA-01 judges that.")}
		}
		var left []finding.Evidence
		var defaults, via, addrs, unsure int
		when := ""
		for _, r := range s.on(l.Index).learned {
			if len(left) < 8 {
				left = append(left, s.routeEvidence(r))
			}
			if r.Dst.Bits() == 0 {
				defaults++
				when = s.ctx.expiry(r)
			} else if viaOf(r, l.Index) != "the link" {
				via++
			}
		}
		var prefixes []string
		for _, r := range s.on(l.Index).prefixes {
			prefixes = append(prefixes, r.Dst.String())
			if len(left) < 10 {
				left = append(left, s.routeEvidence(r))
			}
		}
		routes := len(s.on(l.Index).learned) + len(prefixes)
		for _, a := range s.Addrs(l.Index, "ipv6") {
			yes, maybe := s.learnedAddress(a)
			if yes {
				addrs++
			} else if maybe {
				unsure++
			}
			if (yes || maybe) && len(left) < 12 {
				left = append(left, s.addressEvidence(a))
			}
		}
		switch {
		case routes+addrs+unsure == 0:
			if g := firstGap(gapOf(s.Routes), gapOf(s.Addresses)); g != nil {
				return []Result{unknown(on, *g)}
			}
			return []Result{pass(on, "No route or address of a router advertisement is left on "+l.Name+".", ra.evidence...)}
		case ra.client != "":
			return []Result{notApplicable(on, ra.client+" takes router advertisements on "+l.Name+" itself, which explains the routes and addresses; RA-02 to RA-05 judge it.")}
		case ra.clientGap != nil:
			return []Result{unknown(on, *ra.clientGap)}
		case routes+addrs == 0:
			return []Result{unknown(on, fact.Gap{Reason: fact.UnsupportedGap, What: "who made the dynamic addresses of " + l.Name + " (this kernel reports no IFA_PROTO)"})}
		}
		r := fail(on, fmt.Sprintf("The kernel takes no router advertisements on %s any more (accept_ra=%d%s), but %d routes and %d addresses of earlier ones are still in force.", l.Name, ra.acceptRA, forwardsToo(ra), routes, addrs), append(left, ra.evidence...)...)
		r.Remediation = []finding.Remediation{command("%s", s.Run("ip -6 route flush proto ra dev "+shellWord(l.Name)))}
		for _, p := range prefixes[:min(len(prefixes), 3)] {
			r.Remediation = append(r.Remediation, command("%s", s.Run("ip -6 route del "+p+" proto kernel dev "+shellWord(l.Name))))
		}
		switch {
		case ra.routes:
			r.Message += " Among them is the only IPv6 default route, which " + when + ": it may be your own router's."
			r.Remediation = append([]finding.Remediation{advice("Check whose address the next hop is. If it is your router, add it as a static default route first (SYSCTL-RA-15).")}, r.Remediation...)
		case defaults > 0:
			r.Message += " A default route among them " + when + "."
		}
		if defaults+via == 0 {
			r.Severity = finding.Medium
		}
		for _, a := range s.Addrs(l.Index, "ipv6") {
			if yes, _ := s.learnedAddress(a); yes && len(r.Remediation) < 6 {
				r.Remediation = append(r.Remediation, command("%s", s.Run("ip -6 addr del "+a.Prefix.String()+" dev "+shellWord(l.Name))))
			}
		}
		return []Result{r}
	})
}

func firstGap(gs ...*fact.Gap) *fact.Gap {
	for _, g := range gs {
		if g != nil {
			return g
		}
	}
	return nil
}

func evalRA13(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		ra, on := s.raOf(l), s.On(l.Name)
		comp := s.benchmark("router_solicitations", "0")
		k := s.ConfInt(l.Name, "router_solicitations")
		v, ok := k.Get()
		ev := append([]finding.Evidence{s.confEvidence(l.Name, "router_solicitations")}, ra.evidence...)
		var r Result
		switch {
		case ok && v == 0:
			r = pass(on, l.Name+" sends no router solicitations: router_solicitations=0.", ev...)
		case ra.gap != nil:
			r = unknown(on, *ra.gap)
		case !ra.accepts:
			r = pass(on, l.Name+" sends no router solicitations: the kernel sends none where it takes no advertisements.", ev...)
		case !ok:
			r = unknown(on, *notRead(k, "router_solicitations of "+l.Name))
		case ra.wanted():
			r = notApplicable(on, l.Name+" lives by router advertisements and has to ask for them.")
		default:
			if g := firstGap(gapOf(s.Routes), gapOf(s.Addresses)); g != nil {
				r = unknown(on, *g)
				break
			}
			r = fail(on, fmt.Sprintf("%s asks for routers when it comes up (router_solicitations=%d), although its addresses and routes need none.", l.Name, v), ev...)
			r.Remediation = s.SetConf(l.Name, "router_solicitations", "0")
		}
		r.Compliance = comp
		return []Result{r}
	})
}

func evalRA15(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		ra, on := s.raOf(l), s.On(l.Name)
		if g := gapOf(s.Routes); g != nil {
			return []Result{unknown(on, *g)}
		}
		if ra.gap != nil {
			return []Result{unknown(on, *ra.gap)}
		}
		all := s.anywhere().defaults
		if static := slices.IndexFunc(all, func(r *fact.Route) bool { return r.Protocol != fact.ProtoRA }); static >= 0 {
			return []Result{pass(on, "There is an IPv6 default route that no router advertisement made.", s.routeEvidence(all[static]))}
		}
		mine := s.on(l.Index).defaults
		if len(mine) > 0 && ra.accepts {
			return []Result{pass(on, "The default route came by router advertisement and the kernel still takes them here.", append(ra.evidence, s.routeEvidence(mine[0]))...)}
		}
		lost := false
		if len(all) == 0 && ra.forwards != 0 && !ra.accepts && ra.acceptRA != 0 {
			for _, a := range s.Addrs(l.Index, "ipv6") {
				yes, _ := s.learnedAddress(a)
				lost = lost || yes
			}
			if g := gapOf(s.Addresses); g != nil {
				return []Result{unknown(on, *g)}
			}
		}
		if len(mine) == 0 && !lost {
			return []Result{notApplicable(on, "No default route came by router advertisement on "+l.Name+".")}
		}
		if ra.client != "" {
			return []Result{notApplicable(on, ra.client+" takes router advertisements on "+l.Name+" itself and renews the route.")}
		}
		if ra.clientGap != nil {
			return []Result{unknown(on, *ra.clientGap)}
		}
		ev := slices.Clone(ra.evidence)
		var r Result
		if lost {
			r = fail(on, fmt.Sprintf("%s has an address from a router advertisement and no IPv6 default route is left: with forwarding=%d, accept_ra=%d means that none is taken, and the kernel deleted the route when forwarding was turned on.", l.Name, ra.forwards, ra.acceptRA), ev...)
		} else {
			for _, d := range mine {
				ev = append(ev, s.routeEvidence(d))
			}
			r = fail(on, fmt.Sprintf("The only IPv6 default route, via %s on %s, %s and will not be renewed: the kernel ignores router advertisements there (accept_ra=%d%s).", viaOf(mine[0], l.Index), l.Name, s.ctx.expiry(mine[0]), ra.acceptRA, forwardsToo(ra)), ev...)
			if via := viaOf(mine[0], l.Index); via != "the link" {
				r.Remediation = append(r.Remediation, command("%s", s.Run("ip -6 route add default via "+via+" dev "+shellWord(l.Name)+" metric 512")))
			}
		}
		if ra.forwards != 0 {
			r.Remediation = append(r.Remediation, s.SetNow("net/ipv6/conf/"+l.Name+"/accept_ra", "2"), advice("accept_ra=2 takes advertisements on a router too: pin the routers of %s in a packet filter.", l.Name))
		}
		r.Remediation = append(r.Remediation, advice("Make the route part of the network configuration, so that it is there after a boot."))
		return []Result{r}
	})
}

func evalRA16(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		if g := gapOf(s.Routes); g != nil {
			return []Result{unknown(on, *g)}
		}
		routers := map[string]bool{}
		var ev []finding.Evidence
		for _, d := range s.on(l.Index).defaults {
			if via := viaOf(d, l.Index); d.Protocol == fact.ProtoRA && !routers[via] {
				routers[via] = true
				if len(ev) < 10 {
					ev = append(ev, s.routeEvidence(d))
				}
			}
		}
		n := len(routers)
		if n <= 2 {
			return []Result{pass(on, fmt.Sprintf("%d routers advertised a default route on %s.", n, l.Name), ev...)}
		}
		r := fail(on, fmt.Sprintf("%d different routers advertised a default route on %s; one or two are normal.", n, l.Name), ev...)
		if n > 8 {
			r.Severity = finding.High
			r.Message += " So many are a flood."
		}
		r.Remediation = []finding.Remediation{
			command("%s", s.Run("ip -6 route show default dev "+shellWord(l.Name))),
			advice("Delete the routes through routers that are not yours (ip -6 route del default via ADDRESS dev %s) and pin the others.", l.Name),
		}
		return []Result{r}
	})
}
