package check

import (
	"fmt"
	"slices"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// raParameter is a setting that only matters while the kernel acts on RAs.
type raParameter struct {
	key, want string   // the value that closes it
	benchmark []string // values that ANSSI-BP-028 R13 accepts in all and default; nil: it says nothing
	// judge tells what the kernel would do with an RA; an empty message is a pass.
	// extra are further values it needs.
	extra []string
	judge func(s *Space, l *fact.Link, ra raState, v int64, extra []int64) (msg string, sev finding.Severity)
	// exempt says why the interface needs the setting as it is.
	exempt func(s *Space, ra raState) string
	ok     string // what a pass says
}

// with completes a control whose answer is one RA parameter per interface.
func (p raParameter) with(c Control) Control {
	c.Positions = []finding.Position{finding.FromLink}
	c.Source = "net.ipv6.conf.IF." + p.key + ", accept_ra and forwarding of every interface"
	c.Check = "Only where the kernel takes router advertisements on the interface (SYSCTL-RA-01) does it read this value; elsewhere the control does not apply. A packet filter on the inbound path is asked whether it lets such a packet in."
	if p.benchmark != nil {
		c.Check += " The compliance verdict is what ANSSI-BP-028 R13 reads in conf/all and conf/default."
		c.Refs = append(c.Refs, anssi("R13"))
	}
	c.Refs = append(c.Refs, kernelDoc(p.key))
	c.Fix = []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.%s=%s", p.key, p.want), advice("accept_ra=0 closes this too where router advertisements are not needed.")}
	c.Live = true
	c.Eval = func(ctx *Context) []Result {
		return ctx.eachInterface(func(s *Space, l *fact.Link) []Result {
			r := p.eval(s, l)
			if p.benchmark != nil {
				r.Compliance = s.benchmark(p.key, p.benchmark...)
			}
			return []Result{s.behind(anyRA(), l.Name, r)}
		})
	}
	return c
}

func (p raParameter) eval(s *Space, l *fact.Link) Result {
	ra, on := s.raOf(l), s.On(l.Name)
	if ra.gap != nil {
		return unknown(on, *ra.gap)
	}
	if !ra.accepts {
		return notApplicable(on, "The kernel takes no router advertisements on "+l.Name+" and reads "+p.key+" nowhere else.")
	}
	k := s.ConfInt(l.Name, p.key)
	v, ok := k.Get()
	switch {
	case k.State() == fact.StateUnsupported:
		return notApplicable(on, "This kernel has no "+p.key+".")
	case !ok:
		return unknown(on, *notRead(k, p.key+" of "+l.Name))
	}
	ev := append([]finding.Evidence{s.confEvidence(l.Name, p.key)}, ra.evidence...)
	extra := make([]int64, len(p.extra))
	var missing *fact.Gap
	for i, key := range p.extra {
		k := s.ConfInt(l.Name, key)
		x, ok := k.Get()
		if !ok && missing == nil {
			missing = notRead(k, key+" of "+l.Name)
		}
		extra[i] = x
		ev = append(ev, s.confEvidence(l.Name, key))
	}
	if missing != nil {
		return unknown(on, *missing)
	}
	msg, sev := p.judge(s, l, ra, v, extra)
	if msg == "" {
		return pass(on, fmt.Sprintf("%s: %s=%d. %s", l.Name, p.key, v, p.ok), ev...)
	}
	if p.exempt != nil {
		if g := firstGap(gapOf(s.Routes), gapOf(s.Addresses)); g != nil {
			return unknown(on, *g)
		}
		if why := p.exempt(s, ra); why != "" {
			return notApplicable(on, why)
		}
	}
	r := fail(on, msg, ev...)
	r.Severity = sev
	if l.Flags&iffUp == 0 {
		r.Severity = finding.Low
		r.Message += " The interface is down; this counts from the moment it comes up."
	}
	r.Remediation = s.SetConf(l.Name, p.key, p.want)
	if !ra.wanted() {
		r.Message += " Setting accept_ra=0 (SYSCTL-RA-01) closes this too."
	}
	return r
}

// secondary lowers a parameter's severity where SYSCTL-RA-01 is the finding to act on.
func secondary(ra raState, sev finding.Severity) finding.Severity {
	if !ra.wanted() && sev.AtLeast(finding.Medium) {
		return finding.Low
	}
	return sev
}

func raParameterControls() []Control {
	return slices.Concat([]Control{
		raParameter{
			key: "accept_ra_defrtr", want: "0", benchmark: []string{"0"},
			ok: "No router advertisement adds a default route here.",
			judge: func(_ *Space, l *fact.Link, ra raState, v int64, _ []int64) (string, finding.Severity) {
				if v == 0 {
					return "", ""
				}
				sev := finding.High
				if !ra.wanted() {
					sev = finding.Medium
				}
				return fmt.Sprintf("Any neighbour could add a default route on %s (accept_ra_defrtr=%d), although none of the default routes in use came that way.", l.Name, v), sev
			},
			exempt: func(_ *Space, ra raState) string {
				if ra.routes {
					return "The host's only IPv6 default route comes by router advertisement: this has to stay on."
				}
				return ""
			},
		}.with(Control{
			ID: "SYSCTL-RA-05", Title: "Router advertisements could add a default route that is not needed", Severity: finding.High,
			Reason:   "A second default router takes over all off-link traffic, or its share of it.",
			Rule:     "Interface only. Read when the kernel takes the RA; it also decides about a route information option for ::/0.",
			What:     "accept_ra_defrtr: whether an accepted router advertisement may install a default route.",
			Why:      "A host that takes RAs for its addresses but has a static default route needs no default route from anybody on the link.",
			Attack:   "A rogue advertisement with router preference high installs a default route that wins over the static one of equal metric.",
			TradeOff: "The default route must then be configured by hand or by the network manager.",
			Refs:     []finding.Reference{rfc("4861", "§6.3.4"), rfc("4191", "§3.1")},
		}),
		raParameter{
			key: "accept_ra_pinfo", want: "0", benchmark: []string{"0"}, extra: []string{"autoconf", "max_addresses"},
			ok: "No router advertisement adds a prefix or an address here.",
			judge: func(s *Space, l *fact.Link, ra raState, v int64, x []int64) (string, finding.Severity) {
				n := len(s.Addrs(l.Index, "ipv6"))
				switch {
				case v == 0:
					return "", ""
				case x[0] != 0 && x[1] > 0 && int64(n) >= x[1]:
					return fmt.Sprintf("Any neighbour could declare a prefix on-link on %s (accept_ra_pinfo=%d): traffic to it would be sent to neighbours. No address is added while there are %d (max_addresses=%d).", l.Name, v, n, x[1]), secondary(ra, finding.Medium)
				case x[0] == 0:
					return fmt.Sprintf("Any neighbour could declare a prefix on-link on %s (accept_ra_pinfo=%d; autoconf=0 keeps addresses away): traffic to it would be sent to neighbours.", l.Name, v), secondary(ra, finding.Medium)
				}
				return fmt.Sprintf("Any neighbour could give %s more addresses and on-link prefixes (accept_ra_pinfo=%d, autoconf=%d), although its addresses do not come that way.", l.Name, v, x[0]), secondary(ra, finding.Medium)
			},
			exempt: func(_ *Space, ra raState) string {
				if ra.addrs {
					return "The global addresses of this interface come by router advertisement: this has to stay on."
				}
				return ""
			},
		}.with(Control{
			ID: "SYSCTL-RA-06", Title: "Router advertisements could add addresses and on-link prefixes", Severity: finding.Medium,
			Reason:   "An extra address is a path that address-based filters and logs do not know; an on-link prefix diverts traffic to the link.",
			Rule:     "Interface only. accept_ra_pinfo decides whether prefix options are read at all, autoconf whether they make addresses.",
			What:     "accept_ra_pinfo and autoconf: what a prefix option of an accepted advertisement does.",
			Why:      "With static addresses no prefix has to be learned from the link.",
			Attack:   "A neighbour advertises the victim's peer's /64 as on-link; the victim then asks the link for that peer's MAC address, and the attacker answers.",
			TradeOff: "None where addresses are static.",
			Refs:     []finding.Reference{rfc("4862", "§5.5.3"), rfc("4861", "§6.3.4")},
		}),
		raParameter{
			key: "accept_ra_rtr_pref", want: "0",
			ok: "The preference that a router claims is ignored.",
			judge: func(_ *Space, l *fact.Link, ra raState, v int64, _ []int64) (string, finding.Severity) {
				if v == 0 {
					return "", ""
				}
				return fmt.Sprintf("A router that calls itself preferred wins on %s at once (accept_ra_rtr_pref=%d).", l.Name, v), secondary(ra, finding.Medium)
			},
		}.with(Control{
			ID: "SYSCTL-RA-07", Title: "A rogue router wins by claiming high preference", Severity: finding.Medium,
			Reason:   "It turns a share of the traffic into all of it; taking RAs at all is the larger problem.",
			Rule:     "Interface only (kernels with CONFIG_IPV6_ROUTER_PREF). Read when the kernel takes the RA.",
			What:     "accept_ra_rtr_pref: whether the router preference of RFC 4191 is believed.",
			Why:      "With one legitimate router the preference has no use; with a rogue one it decides.",
			Attack:   "fake_router26 and similar tools set preference high: all new flows go through the attacker while the real router stays configured.",
			TradeOff: "Links where two routers state different preferences on purpose lose that order.",
			Refs:     []finding.Reference{rfc("4191", "§3.1")},
		}),
		raParameter{
			key: "accept_ra_rt_info_max_plen", want: "0", extra: []string{"accept_ra_rt_info_min_plen", "accept_ra_rtr_pref"},
			ok: "No more specific route is learned; a route information option for ::/0 counts as a default route.",
			judge: func(_ *Space, l *fact.Link, ra raState, v int64, x []int64) (string, finding.Severity) {
				// ndisc_router_discovery looks at route information options only
				// where it believes preferences.
				if v <= 0 || x[0] > v || x[1] == 0 {
					return "", ""
				}
				return fmt.Sprintf("Any neighbour could add routes to prefixes of up to /%d on %s, which win over the default route.", v, l.Name), secondary(ra, finding.Medium)
			},
		}.with(Control{
			ID: "SYSCTL-RA-08", Title: "Router advertisements could add more specific routes", Severity: finding.Medium,
			Reason:   "One advertisement diverts exactly the traffic that interests the attacker, and a static default route does not help.",
			Rule:     "Interface only (kernels with CONFIG_IPV6_ROUTE_INFO). Prefixes from accept_ra_rt_info_min_plen to accept_ra_rt_info_max_plen are taken, ::/0 only with accept_ra_defrtr, and none at all with accept_ra_rtr_pref=0.",
			What:     "accept_ra_rt_info_max_plen: the longest prefix of a route information option that becomes a route.",
			Why:      "The kernel's default is 0. Distributions and VPN guides that raise it to 64 or 128 let the link choose routes.",
			Attack:   "A neighbour advertises 2000::/3, or just the /64 of the name server, through itself.",
			TradeOff: "Multihomed sites that announce internal prefixes by RFC 4191 lose those routes.",
			Refs:     []finding.Reference{rfc("4191", "§2.3")},
		}),
		raParameter{
			key: "accept_ra_mtu", want: "0",
			ok: "No router advertisement lowers the MTU.",
			judge: func(_ *Space, l *fact.Link, _ raState, v int64, _ []int64) (string, finding.Severity) {
				if v == 0 || l.MTU > 0 && l.MTU <= minMTU {
					return "", ""
				}
				return fmt.Sprintf("Any neighbour could lower the IPv6 MTU of %s to 1280 (accept_ra_mtu=%d).", l.Name, v), finding.Low
			},
		}.with(Control{
			ID: "SYSCTL-RA-09", Title: "Router advertisements could lower the MTU", Severity: finding.Low,
			Reason:   "It costs throughput, not confidentiality, and is small beside what else an accepted RA does.",
			Rule:     "Interface only. Values from 1280 to the device's MTU are taken.",
			What:     "accept_ra_mtu: whether the MTU option of an accepted advertisement is applied.",
			Why:      "On servers the MTU is known and configured.",
			Attack:   "One advertisement with MTU 1280 slows a storage or backup network that relies on jumbo frames.",
			TradeOff: "Links whose routers announce a smaller MTU on purpose (tunnels, some clouds) need it.",
			Refs:     []finding.Reference{rfc("4861", "§4.6.4")},
		}),
		raParameter{
			key: "accept_ra_min_hop_limit", want: "64", extra: []string{"accept_ra_defrtr"},
			ok: "A router advertisement cannot set a hop limit too small to leave the site.",
			judge: func(_ *Space, l *fact.Link, ra raState, v int64, extra []int64) (string, finding.Severity) {
				// ndisc_router_discovery (net/ipv6/ndisc.c) jumps over the hop limit, too,
				// when it takes no default routers.
				if v >= 32 || extra[0] == 0 {
					return "", ""
				}
				return fmt.Sprintf("Any neighbour could set the hop limit of %s to %d (accept_ra_min_hop_limit=%d): packets then die on the way.", l.Name, max(v, 1), v), secondary(ra, finding.Medium)
			},
		}.with(Control{
			ID: "SYSCTL-RA-10", Title: "Router advertisements could set a tiny hop limit", Severity: finding.Medium,
			Reason:   "One packet silently cuts all off-link IPv6 until the interface is reset: the value does not expire.",
			Rule:     "Interface only. A Cur Hop Limit from accept_ra_min_hop_limit to 255 is applied, unless accept_ra_defrtr is 0; 0 means unspecified.",
			What:     "accept_ra_min_hop_limit: the smallest hop limit that an accepted advertisement may set.",
			Why:      "The default of 1 lets a router advertisement limit this host to its own link. Unlike routes, the hop limit has no lifetime.",
			Attack:   "One advertisement with Cur Hop Limit 1: off-link traffic dies at the first router, on-link tests still work.",
			TradeOff: "None known: no real network sets less than 32.",
			Refs:     []finding.Reference{rfc("4861", "§6.3.4"), rfc("8504", "§5.4")},
		}),
		raParameter{
			key: "accept_ra_min_lft", want: "180",
			ok: "Routers and prefixes of a few seconds' life are ignored.",
			judge: func(_ *Space, l *fact.Link, _ raState, v int64, _ []int64) (string, finding.Severity) {
				if v >= 180 {
					return "", ""
				}
				return fmt.Sprintf("Lifetimes down to %d s are taken on %s (accept_ra_min_lft=%d).", max(v, 1), l.Name, v), finding.Low
			},
		}.with(Control{
			ID: "SYSCTL-RA-11", Title: "Router advertisements with lifetimes of seconds are taken", Severity: finding.Low,
			Reason:   "It makes state come and go quickly; a lifetime of 0, the stronger attack, is not stopped by it.",
			Rule:     "Interface only (kernel 6.6 and later). Router, prefix and route lifetimes above 0 and below the value are ignored.",
			What:     "accept_ra_min_lft: the shortest lifetime that is believed.",
			Why:      "Real routers announce half an hour; seconds are a sign of a fault or a flood.",
			Attack:   "A neighbour makes routes and addresses appear and vanish every second, to hide from inspection or to keep the host busy.",
			TradeOff: "None known; RFC 4861 routers use 1800 s.",
			Refs:     []finding.Reference{rfc("4861", "§6.2.1")},
		}),
		raParameter{
			key: "max_addresses", want: "16", benchmark: []string{"1"}, extra: []string{"accept_ra_pinfo", "autoconf"},
			ok: "Advertisements cannot add addresses without end.",
			judge: func(_ *Space, l *fact.Link, ra raState, v int64, x []int64) (string, finding.Severity) {
				switch {
				case x[0] == 0 || x[1] == 0, v >= 1 && v <= 16:
					return "", ""
				case v == 0:
					return fmt.Sprintf("Advertisements could add addresses to %s without any limit (max_addresses=0).", l.Name), secondary(ra, finding.Medium)
				}
				return fmt.Sprintf("Advertisements could add %d addresses to %s (max_addresses=%d; the kernel's default is 16).", v, l.Name, v), finding.Low
			},
		}.with(Control{
			ID: "SYSCTL-RA-14", Title: "Router advertisements could add addresses without limit", Severity: finding.Medium,
			Reason:   "Thousands of addresses cost memory and time in every source address selection, and each is a path into the host.",
			Rule:     "Interface only; 0 means unlimited. Counted over all IPv6 addresses of the interface when a prefix option would add one.",
			What:     "max_addresses: how many addresses autoconfiguration may make on an interface.",
			Why:      "A host needs one address per prefix plus temporary ones.",
			Attack:   "A flood of advertisements with random prefixes (flood_router26) adds an address for each.",
			TradeOff: "With 1 there is no room for temporary addresses or for renumbering.",
			Refs:     []finding.Reference{rfc("4862", "§5.5.3")},
		}),
	})
}

// minMTU is the smallest MTU of a link with IPv6 (RFC 8200 §5).
const minMTU = 1280
