package check

import (
	"fmt"
	"slices"

	rules "github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

func forwardControls() []Control {
	return []Control{
		{
			ID: "SYSCTL-FWD-01", Title: "Host would forward IPv6 between its networks", Severity: finding.High,
			Reason:    "A neighbour on one network, or a container, gets a path to every network this host reaches, behind its firewalls.",
			Positions: []finding.Position{finding.FromLink, finding.FromPod},
			Source:    "net.ipv6.conf.all.forwarding of every namespace; the role",
			Rule:      "ip6_forward() reads conf/all/forwarding and, since 6.17, the ingress interface's force_forwarding. conf/IF/forwarding decides about the host or router role of an interface only.",
			What:      "Whether the kernel routes IPv6 packets that are not for this host.",
			Why:       "Container engines, VPNs and libvirt turn forwarding on for all interfaces. A server that does not route by purpose then connects its management network with its public one.",
			Attack:    "A neighbour adds a route to an internal prefix through this host's link-local address; the host forwards.",
			Check:     "We read conf/all/forwarding and compare it with the role (router, kubernetes-node and hypervisor forward by purpose). Where a packet filter hooks the forward path the answer is unknown until it is analysed.",
			Fix: []finding.Remediation{
				command("sysctl -w net.ipv6.conf.all.forwarding=0"),
				intent("role: router   # if it is one: router, kubernetes-node or hypervisor"),
			},
			TradeOff: "Kubernetes, Docker with IPv6, libvirt networks and VPN gateways need forwarding. Turning it off does not bring a deleted RA default route back.",
			Refs:     []finding.Reference{rfc("4861", "§6.2.2"), cis("3.3.1", "3.3.2.1"), stig("RHEL-09-254025"), stig("RHEL-08-040260"), stig("RHEL-10-800250"), kernelDoc("forwarding")},
			Live:     true, Eval: evalFWD01,
		},
		{
			ID: "SYSCTL-FWD-02", Title: "Per-interface forwarding does not do what it seems to say", Severity: finding.Medium,
			Reason:   "Somebody may rely on a block that does not exist; nothing more is opened by it.",
			Source:   "net.ipv6.conf.all.forwarding and net.ipv6.conf.IF.forwarding",
			Rule:     "conf/IF/forwarding is not read by the forward path. It makes the interface host (0) or router (1): whether RAs and redirects are taken, solicitations sent, and the router flag set in advertisements.",
			What:     "Interfaces whose forwarding differs from conf/all.",
			Why:      "eth1.forwarding=0 looks like an access list and blocks nothing while all.forwarding is 1; it makes eth1 take router advertisements and redirects again.",
			Attack:   "A neighbour on the interface that was meant to be closed sends packets through this host, or a rogue RA that the router role would have ignored.",
			Check:    "We compare each interface with conf/all. An interface with forwarding=0 on a forwarding host that takes RAs on purpose (it has an RA default route) passes.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.forwarding=1"), advice("Block forwarding on one interface in the packet filter's forward chain.")},
			TradeOff: "With forwarding=1 the interface no longer takes RAs unless accept_ra is 2.",
			Refs:     []finding.Reference{kernelDoc("forwarding"), rfc("4861", "§6.2.2")},
			Live:     true, Eval: evalFWD02,
		},
		{
			ID: "SYSCTL-FWD-03", Title: "force_forwarding: interface would forward although all.forwarding is 0", Severity: finding.High,
			Reason:    "The host routes for every neighbour on that interface while every benchmark reads 0.",
			Positions: []finding.Position{finding.FromLink, finding.FromPod},
			Source:    "net.ipv6.conf.IF.force_forwarding (kernel 6.17 and later) and net.ipv6.conf.all.forwarding",
			Rule:      "Forwarded if all.forwarding or the ingress interface's force_forwarding is set. A write to conf/all reaches the interfaces that exist, not default.",
			What:      "The per-interface switch that forwards without the global one.",
			Why:       "It is new: benchmarks and other scanners do not know it. The interface also keeps its host role, so it forwards and takes router advertisements at once.",
			Attack:    "As with forwarding: a neighbour routes through this host into its other networks.",
			Check:     "We read the interface's own value. On a kernel without the key the control does not apply; where all.forwarding is on it adds nothing (SYSCTL-FWD-01).",
			Fix:       []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.force_forwarding=0")},
			TradeOff:  "Routers that forward on some interfaces only lose that; use a forward chain instead.",
			Refs:      []finding.Reference{kernelDoc("force_forwarding"), rfc("4861", "§6.2.2")},
			Live:      true, Eval: evalFWD03,
		},
		{
			ID: "SYSCTL-FWD-04", Title: "New interfaces start in another role than this host's", Severity: finding.Low,
			Reason:   "It changes how a future interface treats RAs and redirects, not whether packets are forwarded.",
			Source:   "net.ipv6.conf.default.forwarding and net.ipv6.conf.all.forwarding",
			Rule:     "An interface starts with conf/default. A write to all.forwarding also sets default, so a difference was made on purpose or by a file that sets one of them.",
			What:     "Whether conf/default/forwarding agrees with conf/all/forwarding.",
			Why:      "On a router, default.forwarding=0 makes every new interface a host that takes RAs and redirects. On a host, 1 makes it advertise itself as a router in its neighbour advertisements.",
			Attack:   "A pod's or VPN's new interface on a router accepts the first rogue RA.",
			Check:    "We compare the two values. The compliance verdict is what CIS reads: 0 in conf/all and conf/default.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.conf.default.forwarding=0")},
			TradeOff: "None.",
			Refs:     []finding.Reference{cis("3.3.1", "3.3.2.2"), kernelDoc("forwarding")},
			Live:     true, Eval: evalFWD04,
		},
		{
			ID: "SYSCTL-FWD-05", Title: "Host answers neighbour solicitations for other addresses", Severity: finding.Medium,
			Reason:    "It stands in the path of those addresses; on a host that is not meant to, that is a man in the middle at work.",
			Positions: []finding.Position{finding.FromLocal},
			Source:    "RTM_GETNEIGH with NTF_PROXY; net.ipv6.conf.{all,IF}.proxy_ndp and net.ipv6.conf.IF.forwarding",
			Rule:      "(all.proxy_ndp or IF.proxy_ndp) and IF.forwarding, and an entry for exactly that address in the proxy table.",
			What:      "Proxy neighbour entries that the kernel answers for.",
			Why:       "ndppd and some CNIs use proxy NDP; anywhere else an entry draws a neighbour's traffic to this host.",
			Attack:    "Somebody with root on this host adds an entry for the gateway's or a peer's address and reads its traffic.",
			Check:     "We list the proxy table per interface and apply the kernel's condition. Entries that the kernel ignores, and the switch without entries, pass.",
			Fix:       []finding.Remediation{command("ip -6 neigh show proxy"), command("ip -6 neigh del proxy ADDRESS dev IFACE")},
			TradeOff:  "Virtual machines or pods that are reached by proxy NDP lose connectivity.",
			Refs:      []finding.Reference{rfc("4861", "§7.2.8"), rfc("4389", "§4"), kernelDoc("proxy_ndp")},
			Live:      true, Eval: evalFWD05,
		},
		{
			ID: "SYSCTL-FWD-06", Title: "Host forwards IPv6 multicast", Severity: finding.Low,
			Reason:   "Only a multicast routing daemon turns it on; it is unusual, and seldom dangerous.",
			Source:   "net.ipv6.conf.all.mc_forwarding and net.ipv6.conf.IF.mc_forwarding (read-only)",
			Rule:     "Set by the kernel while a socket holds MRT6_INIT (all) and for each multicast interface it adds.",
			What:     "Whether a multicast routing daemon is active.",
			Why:      "Multicast routing carries discovery protocols (mDNS, SSDP with wide scope) between networks.",
			Attack:   "A neighbour discovers or floods services on another network.",
			Check:    "We read the flag; it cannot be set by sysctl.",
			Fix:      []finding.Remediation{advice("Stop the multicast routing daemon (smcroute, pimd, mrd6).")},
			TradeOff: "Multicast across networks ends.",
			Refs:     []finding.Reference{kernelDoc("mc_forwarding")},
			Live:     true, Eval: evalFWD06,
		},
	}
}

// behindForward settles a failed result that packets cause which pass through: in by
// one of ins and out by one of outs (nil: any that hears others).
func (s *Space) behindForward(r Result, ins, outs []string) Result {
	if r.Effective != finding.Fail {
		return r
	}
	a, asked := s.through(transit(), ins, outs)
	if !asked {
		return r
	}
	r.Evidence = append(slices.Clone(r.Evidence), s.fateEvidence(&a.by)...)
	switch a.fateKind {
	case in, pinned:
		r.Message += fmt.Sprintf(" The packet filter lets %s pass from %s to %s.", a.by.Kind.Name, a.by.Interface, a.by.Kind.OIF.V)
	case out:
		r.Effective = finding.Pass
		r.Message += " The packet filter surely lets no new connection pass."
	default:
		r.Effective = finding.Unknown
		r.Gaps = append(r.Gaps, a.gaps...)
		r.Message += " Whether packets get through is not known: " + because(a.gaps) + "."
	}
	return r
}

// maxPaths bounds the pairs of interfaces that are asked about.
const maxPaths = 64

// through asks about packets that pass from one interface to another; asked is false
// where there is no rule to ask.
func (s *Space) through(q question, ins, outs []string) (best answered, asked bool) {
	r := s.reach()
	if !r.filters() {
		return answered{fateKind: in}, false
	}
	all := r.Interfaces(rules.FamilyWord(q.kinds[0].Family))
	if ins == nil {
		ins = all
	}
	if outs == nil {
		outs = all
	}
	n := 0
	for _, i := range ins {
		for _, o := range outs {
			if i == o && len(all) > 1 {
				continue
			}
			if n++; n > maxPaths {
				return best.better(answered{fateKind: unclear, gaps: []fact.Gap{{Reason: fact.Truncated, What: "more than " + itoa(maxPaths) + " pairs of interfaces"}}}), true
			}
			a := s.each(q, func(k rules.Kind) []rules.Fate { return []rules.Fate{r.Through(k, i, o)} })
			if best = best.better(a); n == 1 {
				best = a
			}
			if best.fateKind == in {
				return best, true
			}
		}
	}
	return best, true
}

func evalFWD01(c *Context) []Result {
	return c.eachNetwork(func(s *Space, on finding.Subject) []Result {
		on.Key = "net.ipv6.conf.all.forwarding"
		x := s.read(on, setting{"all", "forwarding"})
		comp := s.benchmark("forwarding", "0")
		if x.bad != nil {
			x.bad.Compliance = comp
			return one(*x.bad)
		}
		var r Result
		switch {
		case x.v[0] == 0:
			r = pass(on, "all.forwarding=0: the kernel forwards nothing (unless force_forwarding says so, SYSCTL-FWD-03).", x.ev...)
		case s.routes():
			r = pass(on, fmt.Sprintf("The kernel forwards IPv6 (all.forwarding=%d), as the role %s needs.", x.v[0], c.Role.Name), x.ev...)
		default:
			r = fail(on, fmt.Sprintf("The kernel would forward IPv6 between all interfaces (all.forwarding=%d), and the role %s does not need it.", x.v[0], c.Role.Name), x.ev...)
			r.Remediation = append(s.Set("net/ipv6/conf/all/forwarding", "0"), intent("role: router   # if it is one: router, kubernetes-node or hypervisor; or audit with --role"))
			if !s.home() {
				r.Severity = finding.Medium
				r.Message = fmt.Sprintf("This namespace would forward IPv6 between all its interfaces (all.forwarding=%d).", x.v[0])
			} else if d, ok := c.Snap.Host.Runtimes.Docker.Get(); ok && d.Running {
				r.Message += " Docker runs here and turns it on for networks with IPv6."
				r.Remediation = append(r.Remediation, advice("If containers use IPv6, keep forwarding and let a forward chain drop everything but the containers' traffic."))
			}
			r = s.behindForward(r, nil, nil)
		}
		r.Compliance = comp
		return one(r)
	})
}

func evalFWD02(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		x := s.read(on, setting{l.Name, "forwarding"}, setting{"all", "forwarding"})
		if x.bad != nil {
			return one(*x.bad)
		}
		mine, all := x.v[0] != 0, x.v[1] != 0
		switch {
		case mine == all:
			return one(pass(on, fmt.Sprintf("%s.forwarding=%d agrees with all.forwarding=%d.", l.Name, x.v[0], x.v[1]), x.ev...))
		case mine:
			why := "forwards nothing, because all.forwarding=0; it makes"
			if v, ok := s.ConfInt(l.Name, "force_forwarding").Get(); ok && v != 0 {
				why = "is not what forwards here, force_forwarding is (SYSCTL-FWD-03); it makes"
			}
			r := fail(on, fmt.Sprintf("%s.forwarding=%d %s %s play the router: no RAs, no redirects, the router flag in its advertisements.", l.Name, x.v[0], why, l.Name), x.ev...)
			r.Severity, r.Remediation = finding.Low, s.SetConf(l.Name, "forwarding", "0")
			return one(r)
		}
		ra := s.raOf(l)
		if g := firstGap(gapOf(s.Routes), gapOf(s.Addresses)); g != nil && ra.accepts {
			return one(unknown(on, *g))
		}
		if ra.accepts && ra.wanted() {
			return one(pass(on, l.Name+".forwarding=0 lets this interface take router advertisements, and it lives by them. Packets that arrive on it are forwarded all the same.", x.ev...))
		}
		r := fail(on, fmt.Sprintf("%s.forwarding=0 blocks nothing: all.forwarding=%d forwards what arrives on %s too. It only makes the interface a host again, which takes router advertisements and redirects.", l.Name, x.v[1], l.Name), x.ev...)
		r.Remediation = append(s.SetConf(l.Name, "forwarding", "1"), advice("To keep %s out of forwarding, drop its packets in a forward chain: nft add rule inet FILTER forward iifname %s drop", l.Name, shellWord(l.Name)))
		return one(r)
	})
}

func evalFWD03(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		x := s.read(on, setting{l.Name, "force_forwarding"})
		if x.bad != nil {
			return one(*x.bad)
		}
		if x.v[0] == 0 {
			return one(pass(on, l.Name+": force_forwarding=0.", x.ev...))
		}
		if all, ok := s.ConfInt("all", "forwarding").Get(); ok && all != 0 {
			return one(notApplicable(on, fmt.Sprintf("all.forwarding=%d forwards everything already (SYSCTL-FWD-01); force_forwarding=%d adds nothing.", all, x.v[0])))
		}
		r := fail(on, fmt.Sprintf("What arrives on %s would be forwarded (force_forwarding=%d), although all.forwarding is 0.", l.Name, x.v[0]), append(x.ev, s.confEvidence("all", "forwarding"))...)
		r.Remediation = s.SetConf(l.Name, "force_forwarding", "0")
		if s.routes() && !c.Role.Inferred {
			r.Severity = finding.Medium
			r.Message += " The role " + c.Role.Name + " explains forwarding; benchmarks and other tools do not see this switch."
		}
		return one(s.behindForward(r, []string{l.Name}, nil))
	})
}

func evalFWD04(c *Context) []Result {
	return c.eachSpace(func(s *Space) []Result {
		on := s.Subject()
		on.Key = "net.ipv6.conf.default.forwarding"
		x := s.read(on, setting{"default", "forwarding"}, setting{"all", "forwarding"})
		comp := s.benchmark("forwarding", "0")
		var r Result
		switch {
		case x.bad != nil:
			r = *x.bad
		case (x.v[0] != 0) == (x.v[1] != 0):
			r = pass(on, fmt.Sprintf("A new interface starts with forwarding=%d, like the namespace.", x.v[0]), x.ev...)
		case x.v[0] == 0:
			r = fail(on, "A new interface on this forwarding host starts as a host: it takes redirects, and router advertisements unless accept_ra is 0.", x.ev...)
			r.Severity, r.Remediation = finding.Medium, s.SetConf("default", "forwarding", "1")
		default:
			r = fail(on, fmt.Sprintf("A new interface starts as a router (default.forwarding=%d), although the namespace does not forward.", x.v[0]), x.ev...)
			r.Remediation = s.SetConf("default", "forwarding", "0")
		}
		r.Compliance = comp
		return one(r)
	})
}

func evalFWD05(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		x := s.read(on, setting{l.Name, "forwarding"}, setting{l.Name, "proxy_ndp"}, setting{"all", "proxy_ndp"})
		if x.bad != nil {
			return one(*x.bad)
		}
		active := x.v[0] != 0 && (x.v[1] != 0 || x.v[2] != 0)
		if !active {
			return one(pass(on, l.Name+" answers for no other address: proxy NDP needs proxy_ndp and forwarding.", x.ev...))
		}
		ps, ok := s.ProxyNeighbours.Get()
		if g := gapOf(s.ProxyNeighbours); !ok && g != nil {
			return one(unknown(on, *g))
		}
		n := 0
		ev := x.ev
		for _, p := range ps {
			if p.Index == l.Index || p.Index == 0 {
				if n++; n <= 8 {
					ev = append(ev, finding.Evidence{Source: "RTM_GETNEIGH", Key: "proxy", Value: p.Address.String() + " dev " + l.Name, At: c.At()})
				}
			}
		}
		if n == 0 {
			return one(pass(on, "Proxy NDP is on for "+l.Name+" and its table is empty: it answers for nobody.", ev...))
		}
		r := fail(on, fmt.Sprintf("%s answers neighbour solicitations for %s that are not its own.", l.Name, count(n, "address")), ev...)
		if n > 1 {
			r.Message = fmt.Sprintf("%s answers neighbour solicitations for %d addresses that are not its own.", l.Name, n)
		}
		if s.routes() {
			r.Severity = finding.Low
			r.Message += " The role " + c.Role.Name + " may need that (a CNI, ndppd): check that each address is one of yours."
		}
		r.Remediation = []finding.Remediation{
			command("%s", s.Run("ip -6 neigh show proxy dev "+shellWord(l.Name))),
			command("%s", s.Run("ip -6 neigh del proxy ADDRESS dev "+shellWord(l.Name))),
			s.SetNow("net/ipv6/conf/"+l.Name+"/proxy_ndp", "0"),
		}
		return one(s.behind(anyNS(), l.Name, r))
	})
}

func evalFWD06(c *Context) []Result {
	return c.eachNetwork(func(s *Space, on finding.Subject) []Result {
		on.Key = "net.ipv6.conf.all.mc_forwarding"
		x := s.read(on, setting{"all", "mc_forwarding"})
		switch {
		case x.bad != nil:
			return one(*x.bad)
		case x.v[0] == 0:
			return one(pass(on, "No multicast routing daemon is active.", x.ev...))
		case s.routes():
			return one(pass(on, "Multicast routing is active, on a host whose role is "+c.Role.Name+".", x.ev...))
		}
		return one(fail(on, "A multicast routing daemon is active: the kernel forwards IPv6 multicast between interfaces.", x.ev...))
	})
}
