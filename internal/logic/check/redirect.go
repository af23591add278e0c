package check

import (
	"fmt"
	"slices"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

func redirectControls() []Control {
	return []Control{{
		ID: "SYSCTL-RED-01", Title: "Interface would accept ICMPv6 redirects", Severity: finding.High,
		Reason:    "A neighbour that forges the gateway's address diverts single destinations to itself; it has to know or guess the gateway and send one packet.",
		Positions: []finding.Position{finding.FromLink},
		Source:    "net.ipv6.conf.IF.accept_redirects and net.ipv6.conf.IF.forwarding; the route list",
		Rule:      "accept_redirects of the interface, and not forwarding on it (rt6_do_redirect). conf/all/accept_redirects is never read. The message must come from the present next hop's link-local address, which a neighbour can forge.",
		What:      "Whether the kernel changes the next hop of a destination because an ICMPv6 redirect says so.",
		Why:       "A redirect is not authenticated. Hosts with one gateway never need one. Benchmarks read conf/all, which has no effect.",
		Attack:    "redir6 from THC-IPv6 sends a redirect from the gateway's fe80 address: traffic to the chosen destination goes to the attacker for as long as the exception lives.",
		Check:     "We apply the kernel's rule to each interface, and to conf/default for interfaces to come. An interface without a route through a gateway cannot be redirected yet and weighs less. A packet filter on the inbound path is asked whether it lets such a packet in.",
		Fix:       []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.accept_redirects=0"), command("echo 'net.ipv6.conf.default.accept_redirects = 0' >> %s", dropIn)},
		TradeOff:  "On a link with several routers some destinations take one hop more.",
		Refs:      []finding.Reference{rfc("4861", "§8.3"), cis("3.3.5", "3.3.2.3, 3.3.2.4"), stig("RHEL-09-254015"), stig("RHEL-09-254035"), anssi("R13"), kernelDoc("accept_redirects")},
		Live:      true, Eval: evalRED01,
	}}
}

func evalRED01(c *Context) []Result {
	out := c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		x := s.read(on, setting{l.Name, "accept_redirects"}, setting{l.Name, "forwarding"})
		a, haveA := s.ConfInt(l.Name, "accept_redirects").Get()
		f, haveF := s.ConfInt(l.Name, "forwarding").Get()
		var r Result
		switch {
		case haveA && a == 0:
			r = pass(on, l.Name+" ignores redirects: accept_redirects=0.", x.ev...)
		case haveF && f != 0:
			r = pass(on, fmt.Sprintf("%s ignores redirects: it forwards (forwarding=%d), and routers do not take them.", l.Name, f), x.ev...)
		case x.bad != nil:
			r = *x.bad
		default:
			r = fail(on, fmt.Sprintf("%s would accept a redirect that claims to come from the gateway (accept_redirects=%d).", l.Name, a), x.ev...)
			r.Remediation = []finding.Remediation{
				s.SetNow("net/ipv6/conf/"+l.Name+"/accept_redirects", "0"),
				s.Persist("net/ipv6/conf/default/accept_redirects", "0", "net/ipv6/conf/"+l.Name+"/accept_redirects", "0"),
			}
			switch {
			case l.Flags&iffUp == 0:
				r.Severity = finding.Low
				r.Message += " The interface is down; this counts from the moment it comes up."
			case !s.on(l.Index).redirect && gapOf(s.Routes) == nil:
				r.Severity = finding.Low
				r.Message += " No IPv6 route leads through a gateway's link-local address on it now, and the kernel takes redirects from no other: there is nothing to redirect yet."
			case !s.home():
				r.Severity = finding.Medium
			}
			r = s.behind(anyRedirect(), l.Name, r)
		}
		r.Compliance = s.benchmark("accept_redirects", "0")
		return one(r)
	})
	return append(out, c.eachSpace(func(s *Space) []Result {
		on := s.Subject()
		on.Key = "net.ipv6.conf.default.accept_redirects"
		x := s.read(on, setting{"default", "accept_redirects"}, setting{"default", "forwarding"})
		var r Result
		switch {
		case x.bad != nil:
			r = *x.bad
		case x.v[0] == 0 || x.v[1] != 0:
			r = pass(on, "A new interface starts without accepting redirects.", x.ev...)
		default:
			r = fail(on, fmt.Sprintf("A new interface starts with accept_redirects=%d.", x.v[0]), x.ev...)
			r.Severity, r.Remediation = finding.Low, s.SetConf("default", "accept_redirects", "0")
			r = s.behind(anyRedirect(), futureInterface, r)
		}
		r.Compliance = s.benchmark("accept_redirects", "0")
		return one(r)
	})...)
}

func sourceRouteControls() []Control {
	return []Control{
		{
			ID: "SYSCTL-SR-01", Title: "Interface would accept type 2 routing headers by an explicit setting", Severity: finding.Low,
			Reason:   "The kernel refuses routing header type 0 whatever this says; type 2 only leads to a mobile node's own home address.",
			Source:   "net.ipv6.conf.all.accept_source_route and net.ipv6.conf.IF.accept_source_route",
			Rule:     "min(all, interface). Below 0: type 2 is refused. 0 and above: type 2 is processed if the kernel has Mobile IPv6. Types 3 and 4 have their own switches (SYSCTL-SR-02, SYSCTL-SR-03).",
			What:     "accept_source_route, as the kernel combines it.",
			Why:      "A value above 0 shows that somebody wanted source routing, which IPv6 abolished in 2007; 0, the default, and 1 do the same in today's kernel.",
			Attack:   "With the type 0 header of old kernels packets bounced between two hosts and filters were passed; today a scan for it only shows a host's age.",
			Check:    "We take the smaller of conf/all and the interface's value: above 0 fails; 0 passes and is what CIS asks for; -1 refuses type 2 as well.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.conf.all.accept_source_route=0"), command("sysctl -w net.ipv6.conf.IFACE.accept_source_route=0")},
			TradeOff: "-1 ends Mobile IPv6.",
			Refs:     []finding.Reference{rfc("5095", "§3"), cis("3.3.8", "3.3.2.5, 3.3.2.6"), stig("RHEL-09-254020"), stig("RHEL-09-254040"), stig("RHEL-10-800240"), stig("RHEL-10-800280"), kernelDoc("accept_source_route")},
			Live:     true, Eval: evalSR01,
		},
		{
			ID: "SYSCTL-SR-02", Title: "Interface would process segment routing headers", Severity: finding.Medium,
			Reason:    "A sender outside chooses the path of packets inside; without HMAC nothing limits who.",
			Positions: []finding.Position{finding.FromInternet, finding.FromLink},
			Source:    "net.ipv6.conf.all.seg6_enabled, net.ipv6.conf.IF.seg6_enabled and net.ipv6.conf.IF.seg6_require_hmac",
			Rule:      "min(all, interface) != 0. With seg6_require_hmac=1 only headers with a valid HMAC are processed.",
			What:      "Whether a packet with a type 4 routing header (SRv6) for this host is sent on to the next segment.",
			Why:       "accept_source_route does not cover type 4. Outside an SRv6 domain no host needs it.",
			Attack:    "A packet addressed to this host carries an internal address as next segment: the host sends it on, from inside.",
			Check:     "We take the smaller of the two values per interface, as ipv6_srh_rcv() does. A packet filter on the inbound path is asked whether it lets such a packet in.",
			Fix:       []finding.Remediation{command("sysctl -w net.ipv6.conf.all.seg6_enabled=0"), command("sysctl -w net.ipv6.conf.IFACE.seg6_enabled=0")},
			TradeOff:  "SRv6 through this host ends; in an SRv6 domain set seg6_require_hmac=1 instead.",
			Refs:      []finding.Reference{rfc("8754", "§5.1"), rfc("8754", "§7"), kernelDoc("seg6_enabled")},
			Live:      true, Eval: evalSR02,
		},
		{
			ID: "SYSCTL-SR-03", Title: "Interface would process RPL or IOAM headers", Severity: finding.Low,
			Reason:   "Both are rare protocols that no ordinary host speaks.",
			Source:   "net.ipv6.conf.{all,IF}.rpl_seg_enabled and net.ipv6.conf.IF.ioam6_enabled",
			Rule:     "rpl_seg_enabled: min(all, interface) != 0. ioam6_enabled: the interface only.",
			What:     "Whether type 3 routing headers (RPL source routes) and IOAM trace options are acted on.",
			Why:      "RPL headers are source routing again; IOAM writes this host's identifiers and queue data into packets.",
			Attack:   "A neighbour steers packets by a type 3 header, or reads the host's interface ids from a returned trace.",
			Check:    "We combine the values as the kernel does, per interface. Keys that this kernel does not have are left out.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.rpl_seg_enabled=0"), command("sysctl -w net.ipv6.conf.IFACE.ioam6_enabled=0")},
			TradeOff: "Low-power mesh (RPL) and in-situ measurements end.",
			Refs:     []finding.Reference{rfc("6554", "§5"), rfc("9486", "§6"), kernelDoc("ioam6_enabled")},
			Live:     true, Eval: evalSR03,
		},
	}
}

func evalSR01(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		x := s.read(on, setting{"all", "accept_source_route"}, setting{l.Name, "accept_source_route"})
		all, okAll := s.ConfInt("all", "accept_source_route").Get()
		mine, okMine := s.ConfInt(l.Name, "accept_source_route").Get()
		var r Result
		switch {
		case okAll && all <= 0 || okMine && mine <= 0: // the smaller one is not above 0
			low := "0"
			if okAll && all < 0 || okMine && mine < 0 {
				low = "below 0, so type 2 headers are refused too"
			}
			r = pass(on, l.Name+": the smaller of all.accept_source_route and the interface's is "+low+".", x.ev...)
		case x.bad != nil:
			r = *x.bad
		default:
			r = fail(on, fmt.Sprintf("accept_source_route is %d for all and %d on %s: source routing was asked for.", all, mine, l.Name), x.ev...)
			r.Remediation = append(s.SetConf("all", "accept_source_route", "0"), s.SetConf(l.Name, "accept_source_route", "0")...)
			r = s.behind(routingHeader(2), l.Name, r)
		}
		r.Compliance = s.benchmark("accept_source_route", "0")
		return one(r)
	})
}

func evalSR02(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		x := s.read(on, setting{"all", "seg6_enabled"}, setting{l.Name, "seg6_enabled"})
		if x.bad != nil {
			return one(*x.bad)
		}
		if min(x.v[0], x.v[1]) == 0 {
			return one(pass(on, l.Name+" drops segment routing headers: seg6_enabled is 0 in all or on the interface.", x.ev...))
		}
		r := fail(on, fmt.Sprintf("A segment routing header of a packet for this host would be followed to its next segment (seg6_enabled: all=%d, %s=%d).", x.v[0], l.Name, x.v[1]), x.ev...)
		r.Remediation = s.SetConf(l.Name, "seg6_enabled", "0")
		if h, ok := s.ConfInt(l.Name, "seg6_require_hmac").Get(); ok && h > 0 {
			r.Severity = finding.Low
			r.Evidence = append(slices.Clone(r.Evidence), s.confEvidence(l.Name, "seg6_require_hmac"))
			r.Message += " A valid HMAC is required."
		}
		s.segmentsStay(l, &r)
		return one(s.behind(routingHeader(4), l.Name, r))
	})
}

// segmentsStay says how far a routing header leads on a host that does not
// forward: the next segment goes the way of a forwarded packet (ip6_forward).
func (s *Space) segmentsStay(l *fact.Link, r *Result) {
	all, okAll := s.ConfInt("all", "forwarding").Get()
	force, okForce := s.ConfInt(l.Name, "force_forwarding").Get()
	if okAll && all == 0 && (!okForce || force == 0) {
		r.Severity = finding.Low
		r.Message += " As nothing is forwarded here, the next segment has to be another address of this host."
	}
}

func evalSR03(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		rpl := s.read(on, setting{"all", "rpl_seg_enabled"}, setting{l.Name, "rpl_seg_enabled"})
		ioam := s.read(on, setting{l.Name, "ioam6_enabled"})
		q := routingHeader(3)
		var r Result
		switch {
		case rpl.bad == nil && min(rpl.v[0], rpl.v[1]) != 0:
			r = fail(on, fmt.Sprintf("%s would act on type 3 routing headers (rpl_seg_enabled: all=%d, %s=%d).", l.Name, rpl.v[0], l.Name, rpl.v[1]), rpl.ev...)
			r.Remediation = s.SetConf(l.Name, "rpl_seg_enabled", "0")
			s.segmentsStay(l, &r)
		case ioam.bad == nil && ioam.v[0] != 0:
			r = fail(on, fmt.Sprintf("%s would fill in IOAM trace options (ioam6_enabled=%d).", l.Name, ioam.v[0]), ioam.ev...)
			r.Remediation = s.SetConf(l.Name, "ioam6_enabled", "0")
			q = hopOptioned()
		case rpl.bad != nil && rpl.bad.Effective == finding.Unknown:
			return one(*rpl.bad)
		case ioam.bad != nil && ioam.bad.Effective == finding.Unknown:
			return one(*ioam.bad)
		case rpl.bad != nil && ioam.bad != nil:
			return one(notApplicable(on, "This kernel has neither rpl_seg_enabled nor ioam6_enabled."))
		default:
			return one(pass(on, l.Name+" ignores RPL routing headers and IOAM options.", append(rpl.ev, ioam.ev...)...))
		}
		return one(s.behind(q, l.Name, r))
	})
}
