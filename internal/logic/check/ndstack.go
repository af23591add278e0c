package check

import (
	"fmt"
	"net/netip"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

func ndStackControls() []Control {
	return []Control{
		{
			ID: "SYSCTL-ND-01", Title: "Interface would accept fragmented neighbour discovery", Severity: finding.High,
			Reason:    "It defeats the RA guard of switches: the guard sees a fragment, the host the reassembled advertisement.",
			Positions: []finding.Position{finding.FromLink},
			Source:    "net.ipv6.conf.IF.suppress_frag_ndisc",
			Rule:      "Interface only; anything but 0 drops ND messages that arrived in fragments, atomic fragments included.",
			What:      "Whether router advertisements, solicitations and redirects are taken when they came in fragments.",
			Why:       "RFC 6980 forbids fragmented ND because no filter on the way can judge it. The kernel's default is safe; some tuning guides switch it off.",
			Attack:    "A rogue RA behind a destination options header large enough to need a second fragment passes a switch's RA guard (the fragmentation options of fake_router26).",
			Check:     "We read the interface's own value. It protects the kernel only: programs that take RAs themselves get the reassembled packet (RA-05, RA-14).",
			Fix:       []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.suppress_frag_ndisc=1")},
			TradeOff:  "None: SEND, the only protocol that needed fragmented ND, is not in use.",
			Refs:      []finding.Reference{rfc("6980", "§5"), rfc("7113", "§2"), kernelDoc("suppress_frag_ndisc")},
			Live:      true, Eval: perInterface("suppress_frag_ndisc", "1", fragmentedND, func(s *Space, l *fact.Link, v int64) (string, finding.Severity) {
				switch ra := s.raOf(l); {
				case v != 0:
					return "", ""
				case ra.gap == nil && !ra.accepts:
					return l.Name + " would accept neighbour discovery in fragments (suppress_frag_ndisc=0). It takes no router advertisements, so solicitations and advertisements of neighbours remain, which need no fragments to deceive.", finding.Low
				}
				return l.Name + " would accept router advertisements in fragments (suppress_frag_ndisc=0), which pass the RA guard of switches.", ""
			}, "drops neighbour discovery that came in fragments"),
		},
		{
			ID: "SYSCTL-ND-02", Title: "Unsolicited neighbour advertisements may overwrite entries", Severity: finding.Info,
			Reason:   "Closing it stops the laziest forgery only: a forged answer (S=1) or any forged solicitation still overwrites the entry.",
			Source:   "net.ipv6.conf.IF.drop_unsolicited_na",
			Rule:     "Interface only; drops advertisements without the solicited flag. It does nothing about solicitations.",
			What:     "Whether a gratuitous neighbour advertisement with the override flag replaces a MAC address in the cache.",
			Why:      "It is worth setting behind a proxy that answers for everyone (wireless access points), where nobody sends them legitimately.",
			Attack:   "A neighbour multicasts an advertisement for the gateway's address with its own MAC.",
			Check:    "We read the interface's own value. A pinned gateway (NDP-06) is the remedy that works.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.drop_unsolicited_na=1"), advice("Pin the gateway's neighbour entry instead: it resists advertisements and solicitations alike (NDP-06).")},
			TradeOff: "VRRP and keepalived failover and the migration of virtual machines announce themselves this way.",
			Refs:     []finding.Reference{rfc("4861", "§7.2.6"), kernelDoc("drop_unsolicited_na")},
			Live:     true, Eval: perInterface("drop_unsolicited_na", "1", anyNA, func(_ *Space, l *fact.Link, v int64) (string, finding.Severity) {
				if v != 0 {
					return "", ""
				}
				return l.Name + " takes unsolicited neighbour advertisements (drop_unsolicited_na=0): one with the override flag replaces a known MAC address.", ""
			}, "drops unsolicited neighbour advertisements"),
		},
		{
			ID: "SYSCTL-ND-03", Title: "Unsolicited advertisements create neighbour entries", Severity: finding.Medium,
			Reason:   "A neighbour fills the table, and claims addresses that this router has not asked for yet.",
			Source:   "net.ipv6.conf.IF.accept_untracked_na and net.ipv6.conf.IF.forwarding",
			Rule:     "Acts only where the interface forwards. 1: from any source; 2: from a source in a subnet of the interface, which every link-local address is; the advertised address may be any. Interface only.",
			What:     "Whether an advertisement that nobody asked for makes a new neighbour entry.",
			Why:      "RFC 9131 recommends it for first-hop routers, so that the first packet to a new host is not lost. Anywhere else it is a free hand for neighbours.",
			Attack:   "A neighbour announces every address of the /64: the table fills, and whoever comes first owns each address.",
			Check:    "We apply the kernel's condition: the value and the interface's forwarding. On a router the finding is informational.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.accept_untracked_na=0")},
			TradeOff: "Routers lose the first packets to a host that just came up.",
			Refs:     []finding.Reference{rfc("9131", "§6.1.1"), kernelDoc("accept_untracked_na")},
			Live:     true, Eval: evalND03,
		},
		{
			ID: "SYSCTL-ND-04", Title: "Unicast packets in multicast frames are accepted", Severity: finding.Low,
			Reason:   "It helps to pass the isolation of wireless networks; on wired ones it gives nothing.",
			Source:   "net.ipv6.conf.IF.drop_unicast_in_l2_multicast",
			Rule:     "Interface only; drops packets with a unicast IPv6 destination in a link-layer multicast or broadcast frame.",
			What:     "Whether the kernel takes a unicast IPv6 packet that came in a multicast frame.",
			Why:      "Wireless clients share a group key, so any client can send such frames to the others past the access point's isolation (hole 196).",
			Attack:   "A client on an isolated WLAN sends a unicast packet in a frame encrypted with the group key.",
			Check:    "We read the interface's own value.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.drop_unicast_in_l2_multicast=1")},
			TradeOff: "Clusters that share a multicast MAC (Microsoft NLB) cannot reach this host.",
			Refs:     []finding.Reference{rfc("1122", "§3.3.6"), kernelDoc("drop_unicast_in_l2_multicast")},
			Live:     true, Eval: perInterface("drop_unicast_in_l2_multicast", "1", anyPacket6, func(_ *Space, l *fact.Link, v int64) (string, finding.Severity) {
				if v != 0 {
					return "", ""
				}
				return l.Name + " accepts unicast IPv6 packets in multicast frames (drop_unicast_in_l2_multicast=0).", ""
			}, "drops unicast packets in multicast frames"),
		},
		{
			ID: "SYSCTL-ND-05", Title: "Duplicate address detection is off, or switches the interface off", Severity: finding.Medium,
			Reason:    "Off hides duplicates; 2 lets a neighbour switch IPv6 off on the interface with one packet.",
			Positions: []finding.Position{finding.FromLink},
			Source:    "net.ipv6.conf.all.accept_dad, net.ipv6.conf.IF.accept_dad and dad_transmits; the link-local address and the MAC",
			Rule:      "max(all, interface): below 1 no detection; above 1, a failed detection of the link-local address that is made from the MAC (EUI-64) sets disable_ipv6=1. dad_transmits=0 sends no probe.",
			What:      "Whether the kernel checks that an address is free before it uses it, and what it does when it is not.",
			Why:       "accept_dad=2 was meant to stop cloned machines; it is a remote switch in a neighbour's hand.",
			Attack:    "dos-new-ip6 answers every detection probe. With 2, the interface is gone until somebody writes disable_ipv6=0; with 1, single addresses fail (NDP-10).",
			Check:     "We apply the maximum of all and the interface. 2 weighs medium where the link-local address is made from the MAC, which is the kernel's condition, else low. NOARP interfaces do no detection.",
			Fix:       []finding.Remediation{command("sysctl -w net.ipv6.conf.all.accept_dad=0"), command("sysctl -w net.ipv6.conf.IFACE.accept_dad=1"), command("sysctl -w net.ipv6.conf.IFACE.dad_transmits=1")},
			TradeOff:  "With 1, a duplicate costs the address, not the interface; with 0, both machines use it.",
			Refs:      []finding.Reference{rfc("4862", "§5.4"), rfc("4862", "§5.4.5"), kernelDoc("accept_dad")},
			Live:      true, Eval: evalND05,
		},
		{
			ID: "SYSCTL-ND-06", Title: "Looped-back address detection is not recognised", Severity: finding.Low,
			Reason:   "A loop on the link then looks like a duplicate and costs the address.",
			Source:   "net.ipv6.conf.all.enhanced_dad and net.ipv6.conf.IF.enhanced_dad",
			Rule:     "all or interface: either one adds a nonce to the probes and ignores probes with one's own nonce.",
			What:     "Whether detection probes carry a nonce (RFC 7527).",
			Why:      "Switch loops and some bonding set-ups return a host's own probe.",
			Attack:   "A neighbour reflects the host's own probes; without a nonce the host takes them for a duplicate.",
			Check:    "We read both values; either one is enough.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.enhanced_dad=1")},
			TradeOff: "None.",
			Refs:     []finding.Reference{rfc("7527", "§4"), kernelDoc("enhanced_dad")},
			Live:     true, Eval: evalND06,
		},
		{
			ID: "SYSCTL-ND-07", Title: "Neighbour discovery differs from the kernel's defaults", Severity: finding.Info,
			Reason:   "Each of these is a matter of operation; a difference is worth knowing when addresses misbehave.",
			Source:   "net.ipv6.conf.{all,IF}.ndisc_evict_nocarrier, net.ipv6.conf.IF.force_tllao and net.ipv6.conf.IF.ndisc_tclass",
			Rule:     "ndisc_evict_nocarrier: all and interface; force_tllao and ndisc_tclass: interface only.",
			What:     "Whether neighbours are forgotten when the cable is pulled (default), whether advertisements always carry the MAC (default no), and their traffic class (default 0).",
			Why:      "Entries that outlive a lost carrier point to the network the host was plugged into before.",
			Attack:   "None by itself.",
			Check:    "We compare the values with the kernel's defaults. Keys that this kernel does not have are left out.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.ndisc_evict_nocarrier=1"), command("sysctl -w net.ipv6.conf.IFACE.force_tllao=0")},
			TradeOff: "None.",
			Refs:     []finding.Reference{kernelDoc("ndisc_evict_nocarrier"), kernelDoc("force_tllao"), rfc("4861", "§7.2.4")},
			Live:     true, Eval: evalND07,
		},
	}
}

// perInterface evaluates a setting that the kernel reads from the interface
// only and that an inbound packet (q) needs. judge returns no message for a pass.
func perInterface(key, want string, q func() question, judge func(*Space, *fact.Link, int64) (string, finding.Severity), ok string) func(*Context) []Result {
	return func(c *Context) []Result {
		return c.eachInterface(func(s *Space, l *fact.Link) []Result {
			on := s.On(l.Name)
			x := s.read(on, setting{l.Name, key})
			if x.bad != nil {
				return one(*x.bad)
			}
			msg, sev := judge(s, l, x.v[0])
			if msg == "" {
				return one(pass(on, fmt.Sprintf("%s %s (%s=%d).", l.Name, ok, key, x.v[0]), x.ev...))
			}
			r := fail(on, msg, x.ev...)
			r.Severity, r.Remediation = sev, s.SetConf(l.Name, key, want)
			return one(s.behind(q(), l.Name, r))
		})
	}
}

func evalND03(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		x := s.read(on, setting{l.Name, "accept_untracked_na"}, setting{l.Name, "forwarding"})
		f, okF := s.ConfInt(l.Name, "forwarding").Get()
		v, okV := s.ConfInt(l.Name, "accept_untracked_na").Get()
		switch {
		case okV && v == 0:
			return one(pass(on, l.Name+" makes no entry for an advertisement it did not ask for (accept_untracked_na=0).", x.ev...))
		case okF && f == 0 && okV:
			return one(pass(on, fmt.Sprintf("accept_untracked_na=%d has no effect on %s: it acts on forwarding interfaces only.", v, l.Name), x.ev...))
		case x.bad != nil:
			return one(*x.bad)
		}
		r := fail(on, fmt.Sprintf("%s makes a neighbour entry for any advertisement (accept_untracked_na=%d on a forwarding interface).", l.Name, v), x.ev...)
		if v == 2 { // accept_untracked_na in net/ipv6/ndisc.c looks at the source, not at the target
			r.Message = l.Name + " makes a neighbour entry for any advertisement that claims to come from its subnets, link-local addresses included (accept_untracked_na=2 on a forwarding interface)."
		}
		r.Remediation = s.SetConf(l.Name, "accept_untracked_na", "0")
		if s.routes() {
			r.Severity = finding.Info
			r.Message += " RFC 9131 recommends that for routers."
		}
		return one(s.behind(anyNA(), l.Name, r))
	})
}

// madeFromMAC tells whether the link-local address is the EUI-64 one, which
// is what lets accept_dad=2 switch the interface off.
func (s *Space) madeFromMAC(l *fact.Link) (yes bool, gap *fact.Gap) {
	if g := gapOf(s.Addresses); g != nil {
		return false, g
	}
	for _, a := range s.Addrs(l.Index, "ipv6") {
		if ip := a.Prefix.Addr(); ip.IsLinkLocalUnicast() && isEUI64(ip) && carries(ip, l.MAC) {
			return true, nil
		}
	}
	return false, nil
}

// carries tells whether the interface identifier of an EUI-64 address is this
// MAC; where the MAC is not an Ethernet one, that it may be.
func carries(ip netip.Addr, mac string) bool {
	var m [6]byte
	if n, err := fmt.Sscanf(mac, "%02x:%02x:%02x:%02x:%02x:%02x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]); err != nil || n != 6 || len(mac) != 17 {
		return true
	}
	b := ip.As16()
	return b[8] == m[0]^2 && b[9] == m[1] && b[10] == m[2] && b[13] == m[3] && b[14] == m[4] && b[15] == m[5]
}

func evalND05(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		if l.Flags&iffNoARP != 0 {
			return one(notApplicable(on, "The kernel does no duplicate address detection on a NOARP interface."))
		}
		x := s.read(on, setting{"all", "accept_dad"}, setting{l.Name, "accept_dad"}, setting{l.Name, "dad_transmits"})
		all, okAll := s.ConfInt("all", "accept_dad").Get()
		mine, okMine := s.ConfInt(l.Name, "accept_dad").Get()
		if okAll && all > 1 || okMine && mine > 1 {
			r := fail(on, fmt.Sprintf("A neighbour that answers the detection of the link-local address would switch IPv6 off on %s (accept_dad: all=%d, %s=%d).", l.Name, all, l.Name, mine), x.ev...)
			r.Remediation = append(s.SetConf(l.Name, "accept_dad", "1"), s.SetConf("all", "accept_dad", "0")...)
			if len(x.v) > 2 && x.bad == nil && x.v[2] < 1 {
				r.Remediation = append(r.Remediation, s.SetConf(l.Name, "dad_transmits", "1")...)
				r.Message += " That it sends no probe (dad_transmits=0) does not help: an advertisement during the delay before the address is used does the same."
			}
			if eui, gap := s.madeFromMAC(l); gap == nil && !eui {
				r.Severity = finding.Low
				r.Message += " The kernel does that only when the address is made from the MAC, which it is not now."
			}
			return one(s.behind(dadAnswer(), l.Name, r))
		}
		if x.bad != nil {
			return one(*x.bad)
		}
		switch {
		case max(all, mine) < 1:
			r := fail(on, fmt.Sprintf("%s uses addresses without asking whether they are taken (accept_dad: all=%d, %s=%d).", l.Name, all, l.Name, mine), x.ev...)
			r.Severity, r.Remediation = finding.Low, s.SetConf(l.Name, "accept_dad", "1")
			return one(r)
		case x.v[2] < 1:
			r := fail(on, fmt.Sprintf("%s sends no detection probe (dad_transmits=%d).", l.Name, x.v[2]), x.ev...)
			r.Severity, r.Remediation = finding.Low, s.SetConf(l.Name, "dad_transmits", "1")
			return one(r)
		}
		return one(pass(on, l.Name+" detects duplicates and keeps the interface when it finds one.", x.ev...))
	})
}

func evalND06(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		x := s.read(on, setting{"all", "enhanced_dad"}, setting{l.Name, "enhanced_dad"})
		all, okAll := s.ConfInt("all", "enhanced_dad").Get()
		mine, okMine := s.ConfInt(l.Name, "enhanced_dad").Get()
		switch {
		case okAll && all != 0 || okMine && mine != 0:
			return one(pass(on, l.Name+" recognises its own probes (enhanced_dad).", x.ev...))
		case x.bad != nil:
			return one(*x.bad)
		}
		r := fail(on, "A looped-back probe on "+l.Name+" counts as a duplicate: enhanced_dad is 0 in all and on the interface.", x.ev...)
		r.Remediation = s.SetConf(l.Name, "enhanced_dad", "1")
		return one(r)
	})
}

func evalND07(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		var ev []finding.Evidence
		var odd []string
		var fix []finding.Remediation
		known := false
		var gap *fact.Gap
		for _, x := range []struct {
			key  string
			want int64
			all  bool // all and interface
		}{{"ndisc_evict_nocarrier", 1, true}, {"force_tllao", 0, false}, {"ndisc_tclass", 0, false}} {
			names := []string{l.Name}
			if x.all {
				names = append(names, "all")
			}
			for _, n := range names {
				k := s.ConfInt(n, x.key)
				v, ok := k.Get()
				if !ok {
					gap = firstGap(gap, gapOf(k))
					continue
				}
				known = true
				ev = append(ev, s.confEvidence(n, x.key))
				if v != x.want {
					odd = append(odd, fmt.Sprintf("%s.%s=%d", n, x.key, v))
					fix = append(fix, s.SetNow("net/ipv6/conf/"+n+"/"+x.key, itoa(x.want)))
				}
			}
		}
		switch {
		case len(odd) > 0:
			r := fail(on, "Not the kernel's defaults: "+listing(odd, 8)+".", ev...)
			r.Remediation = fix
			return one(r)
		case gap != nil:
			return one(unknown(on, *gap))
		case !known:
			return one(notApplicable(on, "This kernel has none of these settings."))
		}
		return one(pass(on, l.Name+" has the kernel's defaults.", ev...))
	})
}
