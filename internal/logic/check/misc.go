package check

import (
	"fmt"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

func miscControls() []Control {
	return []Control{
		{
			ID: "SYSCTL-TCP-01", Title: "TCP does not recover from path MTU black holes", Severity: finding.Info,
			Reason:   "It is robustness: it saves connections when somebody on the path drops Packet Too Big.",
			Source:   "net.ipv4.tcp_mtu_probing (it covers IPv6 too)",
			Rule:     "Per namespace. 0 off, 1 after a black hole was noticed, 2 always.",
			What:     "Whether TCP probes for a smaller segment size when large ones vanish.",
			Why:      "IPv6 routers do not fragment. Firewalls that drop ICMPv6 make large transfers hang while small ones work.",
			Attack:   "None by itself; it blunts the effect of filtered or withheld Packet Too Big messages.",
			Check:    "We read the value per namespace.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv4.tcp_mtu_probing=1")},
			TradeOff: "After loss for other reasons segments become smaller for a while.",
			Refs:     []finding.Reference{rfc("4821", "§7"), rfc("8201", "§4"), kernelDoc("tcp_mtu_probing")},
			Live:     true, Eval: evalTCP01,
		},
		{
			ID: "SYSCTL-LOG-01", Title: "Firewall logs of containers are thrown away", Severity: finding.Low,
			Reason:   "A container's drop rules leave no trace; nothing is opened.",
			Source:   "net.netfilter.nf_log_all_netns of the initial namespace; the packet filters of the others",
			Rule:     "nf_log_all_netns=0: LOG rules outside the initial namespace write nothing to the kernel log. NFLOG is not concerned.",
			What:     "Whether rules that log in other network namespaces are heard.",
			Why:      "Containers and pods with their own firewall log into the void by default.",
			Attack:   "An intruder in a container probes its neighbours; the drop rules see it, and nobody else.",
			Check:    "We look for a packet filter in any namespace but the initial one; without one the control does not apply.",
			Fix:      []finding.Remediation{command("sysctl -w net.netfilter.nf_log_all_netns=1"), advice("Or log with NFLOG inside the container.")},
			TradeOff: "Tenants can flood the host's kernel log.",
			Refs:     []finding.Reference{{Source: "Linux net/netfilter/nf_log.c", ID: "nf_log_all_netns"}},
			Live:     true, Eval: evalLOG01,
		},
		{
			ID: "SYSCTL-MISC-01", Title: "Wildcard IPv6 sockets are IPv6-only by default", Severity: finding.Info,
			Reason:   "It changes which family a listener serves; whether that is wanted depends on the applications.",
			Source:   "net.ipv6.bindv6only",
			Rule:     "Per namespace. The default of IPV6_V6ONLY for new sockets; an application that sets the option is not concerned, existing sockets keep theirs.",
			What:     "Whether [::] also accepts IPv4 for applications that do not say.",
			Why:      "Almost every program is tested with 0. With 1, a service on [::] silently loses IPv4, and an IPv4 twin has to be opened, which may bind wider than meant.",
			Attack:   "None by itself.",
			Check:    "We report a value other than the kernel's default of 0. LISTEN-01 shows each socket's real option.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.bindv6only=0")},
			TradeOff: "With 0, services see IPv4 clients as ::ffff:a.b.c.d.",
			Refs:     []finding.Reference{rfc("3493", "§5.3"), kernelDoc("bindv6only")},
			Live:     true, Eval: evalMISC01,
		},
		{
			ID: "SYSCTL-MISC-02", Title: "Unusual IPv6 address behaviour is switched on", Severity: finding.Info,
			Reason:   "High-availability software needs some of it; it is worth knowing on any other host.",
			Source:   "net.ipv6.{ip_nonlocal_bind,anycast_src_echo_reply,fwmark_reflect}",
			Rule:     "Per namespace; each stands alone.",
			What:     "Whether processes may bind addresses that are not the host's, replies leave from anycast addresses, or marks of incoming packets are copied to replies.",
			Why:      "ip_nonlocal_bind lets any process listen on addresses that appear later; fwmark_reflect lets incoming marks choose the route of replies.",
			Attack:   "A local user binds a port on the service address before the failover brings it here.",
			Check:    "Any of the three that is not 0 is reported.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.ip_nonlocal_bind=0 net.ipv6.anycast_src_echo_reply=0 net.ipv6.fwmark_reflect=0")},
			TradeOff: "keepalived and HAProxy pairs need ip_nonlocal_bind.",
			Refs:     []finding.Reference{kernelDoc("ip_nonlocal_bind"), kernelDoc("fwmark_reflect")},
			Live:     true, Eval: evalMISC02,
		},
	}
}

// everySpace is eachSpace for what does not need an IPv6 stack.
func (c *Context) everySpace(f func(*Space) []Result) []Result {
	var out []Result
	for _, s := range c.spaces {
		out = append(out, s.mark(f(s)...)...)
	}
	return out
}

func evalTCP01(c *Context) []Result {
	return c.everySpace(func(s *Space) []Result {
		on := s.Subject()
		on.Key = "net.ipv4.tcp_mtu_probing"
		x := s.readNet(on, "net/ipv4/tcp_mtu_probing")
		switch {
		case x.bad != nil:
			return one(*x.bad)
		case x.v[0] >= 1:
			return one(pass(on, fmt.Sprintf("TCP probes for a smaller MTU (tcp_mtu_probing=%d).", x.v[0]), x.ev...))
		}
		r := fail(on, "A TCP connection whose large segments vanish hangs (tcp_mtu_probing=0).", x.ev...)
		r.Remediation = s.Set("net/ipv4/tcp_mtu_probing", "1")
		return one(r)
	})
}

func evalLOG01(c *Context) []Result {
	init := (*Space)(nil)
	filters, gap := 0, (*fact.Gap)(nil)
	for _, s := range c.spaces {
		if s.IsInit {
			init = s
			continue
		}
		if nft, ok := s.PacketFilter.NFTables.Get(); ok && len(nft.Tables) > 0 {
			filters++
		} else if lt, ok := s.PacketFilter.Legacy.Get(); ok && len(lt) > 0 {
			filters++
		} else {
			gap = firstGap(gap, gapOf(s.PacketFilter.NFTables), gapOf(s.PacketFilter.Legacy))
		}
	}
	if init == nil {
		return one(notApplicable(finding.Subject{}, "The initial network namespace, which has this setting, is out of sight."))
	}
	on := init.Subject()
	on.Key = "net.netfilter.nf_log_all_netns"
	x := init.readNet(on, "net/netfilter/nf_log_all_netns")
	switch {
	case x.bad != nil:
		return one(*x.bad)
	case x.v[0] != 0:
		return one(pass(on, "LOG rules in every namespace reach the kernel log.", x.ev...))
	case filters > 0:
		r := fail(on, fmt.Sprintf("%d other network namespaces have a packet filter, and their LOG rules write nothing (nf_log_all_netns=0).", filters), x.ev...)
		r.Remediation = init.Set("net/netfilter/nf_log_all_netns", "1")
		return one(r)
	case gap != nil:
		return one(unknown(on, *gap))
	}
	return one(notApplicable(on, "No other network namespace has a packet filter."))
}

func evalMISC01(c *Context) []Result {
	return c.eachSpace(func(s *Space) []Result {
		on := s.Subject()
		on.Key = "net.ipv6.bindv6only"
		x := s.readNet(on, "net/ipv6/bindv6only")
		switch {
		case x.bad != nil:
			return one(*x.bad)
		case x.v[0] == 0:
			return one(pass(on, "A [::] socket also accepts IPv4 unless the application says otherwise (bindv6only=0).", x.ev...))
		}
		r := fail(on, fmt.Sprintf("A [::] socket accepts IPv6 only unless the application says otherwise (bindv6only=%d).", x.v[0]), x.ev...)
		r.Remediation = s.Set("net/ipv6/bindv6only", "0")
		return one(r)
	})
}

func evalMISC02(c *Context) []Result {
	return c.eachSpace(func(s *Space) []Result {
		on := s.Subject()
		var ev []finding.Evidence
		var odd []string
		var fix []finding.Remediation
		var gap *fact.Gap
		known := false
		for _, key := range []string{"ip_nonlocal_bind", "anycast_src_echo_reply", "fwmark_reflect"} {
			p := "net/ipv6/" + key
			k := s.SysctlInt(p)
			v, ok := k.Get()
			if !ok {
				gap = firstGap(gap, gapOf(k))
				continue
			}
			known = true
			ev = append(ev, s.sysctlEvidence(p, itoa(v)))
			if v != 0 {
				odd = append(odd, fmt.Sprintf("%s=%d", key, v))
				fix = append(fix, s.Set(p, "0")...)
			}
		}
		switch {
		case len(odd) > 0:
			r := fail(on, "Switched on: "+listing(odd, 3)+".", ev...)
			r.Remediation = fix
			return one(r)
		case gap != nil:
			return one(unknown(on, *gap))
		case !known:
			return one(notApplicable(on, "This kernel has none of these settings."))
		}
		return one(pass(on, "None of these settings is switched on.", ev...))
	})
}
