package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/bootconf"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

func inventoryControls() []Control {
	return slices.Concat([]Control{
		{
			ID: "INV-01", Title: "IPv6 is on although the boot parameters switch it off", Severity: finding.Info,
			Reason:   "It says what every other control is about; what is open is judged there.",
			Source:   "/proc/sys/net/ipv6, /sys/module/ipv6/parameters, the kernel command line, net.ipv6.conf.IF.disable_ipv6",
			Rule:     "ipv6.disable=1 removes the stack from every namespace. ipv6.disable_ipv6=1 only sets the start value of conf/all and conf/default, which anybody may change later.",
			What:     "The state of the IPv6 stack of each namespace: absent, switched off, mixed or on.",
			Why:      "Without a stack the other controls do not apply, which is not the same as passing. A boot parameter that no longer describes the host misleads whoever reads it.",
			Attack:   "None by itself.",
			Check:    "We look for the stack, count the interfaces that speak IPv6, and compare with what the boot parameters ask for.",
			Fix:      []finding.Remediation{advice("Remove ipv6.disable_ipv6=1 from the kernel command line, or switch IPv6 off on each interface.")},
			TradeOff: "With ipv6.disable=1 socket(AF_INET6) fails, which some programs do not survive.",
			Refs:     []finding.Reference{cis("3.1.1", ""), {Source: "Linux Documentation/networking/ipv6", ID: "disable, disable_ipv6"}},
			Live:     true, Eval: evalINV01,
		},
		{
			ID: "INV-02", Title: "The role of this host is not declared", Severity: finding.Info,
			Reason:   "The role is inferred, and said to be; a declared one makes verdicts about forwarding and router advertisements exact.",
			Source:   "--role; else what runs here: kubelet, libvirt guests, routing daemons",
			Rule:     "A declared role wins. Forwarding alone makes no router: a host that forwards by mistake would excuse itself.",
			What:     "Whether somebody said what the host is for.",
			Why:      "No control can be right for servers, routers, Kubernetes nodes and workstations at once.",
			Attack:   "None by itself.",
			Check:    "We report the role in use and how it came about.",
			Fix:      []finding.Remediation{command("sixfence audit --role server"), intent("role: server   # server | router | kubernetes-node | hypervisor | workstation")},
			TradeOff: "None.",
			Refs:     []finding.Reference{rfc("9099", "§1.1")},
			Eval:     evalINV02,
		},
		{
			ID: "INV-03", Title: "Interface has IPv6 addresses although IPv6 is meant to be off", Severity: finding.High,
			Reason:    "Nobody filters or watches a protocol that is believed to be off, and every neighbour can use it.",
			Positions: []finding.Position{finding.FromLink},
			Source:    "ipv6.disable_ipv6 on the kernel command line, disable_ipv6 in sysctl.d and conf/default, RTM_GETADDR, net.ipv6.conf.IF.disable_ipv6",
			Rule:      "Only the interface's own disable_ipv6 is read. conf/default reaches interfaces created later, a write to conf/all reaches all that exist at that moment.",
			What:      "Interfaces with an IPv6 address on a host whose boot parameters or files switch IPv6 off.",
			Why:       "A network manager, Docker or a hot-plugged interface turns IPv6 on again, and the IPv4-only firewall does not cover it.",
			Attack:    "A neighbour reaches listeners on the link-local address at once, and gives the host a global address and route by one router advertisement.",
			Check:     "Where a boot parameter, a sysctl file or conf/default says that IPv6 should be off, every interface but loopback must have it off. Without such a sign the control does not apply.",
			Fix:       []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.disable_ipv6=1"), intent("families: disabled-keep-loopback")},
			TradeOff:  "Switching IPv6 off deletes addresses, routes and neighbours, which do not come back by themselves. Keep ::1: many programs use it.",
			Refs:      []finding.Reference{rfc("7123", "§2"), anssi("R13"), cis("3.1.1", ""), kernelDoc("disable_ipv6")},
			Live:      true, Eval: evalINV03,
		},
		{
			ID: "INV-04", Title: "all.disable_ipv6 is 1, but this interface still speaks IPv6", Severity: finding.High,
			Reason:    "The value that people and benchmarks read says off; the interface is on and unwatched.",
			Positions: []finding.Position{finding.FromLink},
			Source:    "net.ipv6.conf.all.disable_ipv6 and net.ipv6.conf.IF.disable_ipv6",
			Rule:      "Reading conf/all tells what was last written to it, nothing else. The interface's own value decides.",
			What:      "Interfaces whose disable_ipv6 is 0 while conf/all says 1.",
			Why:       "Network managers write the interface's value when they bring it up, after sysctl.d was applied.",
			Attack:    "As with any host that is believed to have no IPv6: a neighbour uses the link-local address, or sends a router advertisement.",
			Check:     "We compare conf/all with each interface. Loopback is left out: keeping ::1 is reasonable.",
			Fix:       []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.disable_ipv6=1"), advice("Tell the network manager too, or it turns IPv6 on again.")},
			TradeOff:  "Switching IPv6 off deletes the interface's IPv6 addresses and routes.",
			Refs:      []finding.Reference{kernelDoc("disable_ipv6"), cis("3.1.1", ""), anssi("R13")},
			Live:      true, Eval: evalINV04,
		},
		{
			ID: "INV-05", Title: "localhost resolves to ::1, which does not exist here", Severity: finding.Medium,
			Reason:   "Programs that connect to localhost fail or wait, with an error that nobody expects.",
			Source:   "/etc/hosts; RTM_GETADDR for ::1; on a directory tree the sysctl files for lo",
			Rule:     "getaddrinfo returns ::1 first when /etc/hosts has it. Connecting fails with EADDRNOTAVAIL or ENETUNREACH when lo has no ::1, and socket() with EAFNOSUPPORT without a stack.",
			What:     "Whether the name localhost leads to an address that is configured.",
			Why:      "Switching IPv6 off on all interfaces takes ::1 from loopback, and the hosts file stays.",
			Attack:   "None; a monitoring or database connection that silently falls back or fails is enough.",
			Check:    "We compare the hosts file with the addresses of the host's own namespace. On a directory tree we predict from the boot files whether lo will have IPv6.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.conf.lo.disable_ipv6=0"), advice("Or remove localhost from the ::1 line of /etc/hosts.")},
			TradeOff: "None: ::1 is reachable from the host itself only.",
			Refs:     []finding.Reference{rfc("6761", "§6.3"), rfc("6724", "§2.1")},
			Eval:     evalINV05,
		},
		{
			ID: "INV-06", Title: "Interface with static addresses took one from a router advertisement", Severity: finding.Medium,
			Reason:    "It proves that an advertisement was believed; SYSCTL-RA-01 judges whether the next one will be.",
			Positions: []finding.Position{finding.FromLink},
			Source:    "RTM_GETADDR: flags, lifetimes and IFA_PROTO (kernel 5.18)",
			Rule:      "An address with protocol kernel_ra was made by the kernel from a prefix option.",
			What:      "Autoconfigured global addresses beside static ones.",
			Why:       "The extra address is in no firewall rule, no DNS record and no documentation, and a rogue router may have chosen its prefix.",
			Attack:    "A rogue advertisement gives every server of a link an address in the attacker's prefix; services bound to [::] answer on it.",
			Check:     "On interfaces with a permanent global address we look for addresses that came from an advertisement. Kernels before 5.18 do not tell, and leave it unknown.",
			Fix:       []finding.Remediation{command("ip -6 addr del ADDRESS dev IFACE"), advice("Then close SYSCTL-RA-01, or it comes back.")},
			TradeOff:  "Sessions on that address break.",
			Refs:      []finding.Reference{rfc("4862", "§5.5.3"), rfc("6104", "§2")},
			Live:      true, Eval: evalINV06,
		},
		{
			ID: "INV-07", Title: "New network namespaces do not inherit the host's hardening", Severity: finding.Medium,
			Reason:    "Containers start with the kernel's defaults whatever the host's sysctl.d says; what is open in each is judged there.",
			Positions: []finding.Position{finding.FromPod},
			Source:    "net.core.devconf_inherit_init_net; conf/default of every namespace",
			Rule:      "0 and 2: a new namespace starts with the compiled-in IPv6 values (accept_ra=1, accept_redirects=1, disable_ipv6=0). 1: with the initial namespace's. 3: with its creator's.",
			What:      "Whether the initial namespace's defaults reach the namespaces of containers and pods.",
			Why:       "A host with IPv6 switched off everywhere still gives every container a working IPv6 stack.",
			Attack:    "A pod sends router advertisements to its neighbours on the same bridge.",
			Check:     "Where the host's own conf/default is stricter than the kernel's and other namespaces exist, we compare theirs. Namespaces that were hardened in another way pass.",
			Fix:       []finding.Remediation{command("sysctl -w net.core.devconf_inherit_init_net=1"), advice("Or set the sysctls where containers are made: docker --sysctl, the pod's securityContext, the CNI tuning plugin.")},
			TradeOff:  "With 1 every new namespace gets the host's values, IPv4's too: containers that need forwarding or SLAAC must set it themselves.",
			Refs:      []finding.Reference{{Source: "Linux Documentation/admin-guide/sysctl/net", ID: "devconf_inherit_init_net"}},
			Live:      true, Eval: evalINV07,
		},
		{
			ID: "INV-11", Title: "Two network managers claim one interface", Severity: finding.Medium,
			Reason:   "Which settings hold depends on who came last, and changes at the next start of either.",
			Source:   "Configuration and processes of systemd-networkd, NetworkManager, ifupdown, dhcpcd and connman",
			Rule:     "Each manager writes addresses, routes, accept_ra and disable_ipv6 of the interfaces that its configuration covers.",
			What:     "Interfaces that more than one running or enabled manager is told to configure.",
			Why:      "One turns router advertisements off, the other takes them in userspace.",
			Attack:   "None by itself; hardening one manager does nothing while the other is in charge.",
			Check:    "We match the configuration of each manager that runs or is enabled against the interfaces of the host. netplan only writes for others, and a DHCP client that ifupdown starts counts as its own.",
			Fix:      []finding.Remediation{command("systemctl disable --now dhcpcd.service"), advice("Choose one manager for the interface and take it out of the other's configuration.")},
			TradeOff: "Changing the manager of the interface you are logged in by may cut the connection.",
			Refs:     []finding.Reference{{Source: "systemd.network(5)", ID: "[Match], Unmanaged="}, {Source: "NetworkManager.conf(5)", ID: "unmanaged-devices"}},
			Live:     true, Eval: evalINV11,
		},
	}, persistControls())
}

func inventoryDispositions() []Disposition {
	return []Disposition{{
		ID: "INV-12", Title: "Change detection source", State: "dropped",
		Because: "It is a requirement on a watcher (poll IFLA_INET6_CONF, because the kernel announces only some changes), not a fact about a host that can pass or fail.",
	}}
}

func evalINV01(c *Context) []Result {
	params, haveParams := c.Snap.Host.Boot.Parameters.Get()
	mod, haveMod := c.Snap.Host.Boot.IPv6Module.Get()
	// autoconf and disable_ipv6 may also come from modprobe.d; the module says.
	off := params["ipv6.disable_ipv6"] == "1" || mod["disable_ipv6"] == "1"
	return c.eachNetwork(func(s *Space, on finding.Subject) []Result {
		var live, dead []string
		for i := range s.links {
			l := &s.links[i]
			if l.Flags&iffLoopback != 0 {
				continue
			}
			if why, gap := s.hearsNobody(l); why == "" && gap == nil {
				live = append(live, l.Name)
			} else {
				dead = append(dead, l.Name)
			}
		}
		ev := []finding.Evidence{{Source: "/proc/sys/net/ipv6/conf", Key: "interfaces that speak IPv6", Value: listing(live, 6), At: c.At()}}
		switch {
		case off && len(live) > 0 && s.home():
			ev = append(ev, finding.Evidence{Source: "/proc/cmdline, /sys/module/ipv6/parameters/disable_ipv6", Key: "ipv6.disable_ipv6", Value: "1", At: c.At()})
			return one(fail(on, "The boot parameters switch IPv6 off (ipv6.disable_ipv6=1), but it is on again on "+listing(live, 6)+".", ev...))
		case s.home() && !off && (!haveParams || !haveMod):
			if g := firstGap(gapOf(c.Snap.Host.Boot.Parameters), gapOf(c.Snap.Host.Boot.IPv6Module)); g != nil {
				return one(unknown(on, *g))
			}
		}
		msg := "IPv6 is on: " + listing(live, 6) + " speak it."
		if len(live) == 1 {
			msg = "IPv6 is on: " + live[0] + " speaks it."
		}
		if len(dead) > 0 {
			msg += " It is off, or handed to a master, on " + listing(dead, 6) + "."
		}
		return one(pass(on, msg, ev...))
	})
}

func evalINV02(c *Context) []Result {
	on := finding.Subject{Key: "role"}
	ev := finding.Evidence{Source: "sixfence", Key: "role", Value: c.Role.Name}
	if !c.Role.Inferred {
		return one(pass(on, "The role is "+c.Role.Name+", as declared.", ev))
	}
	r := fail(on, "The role is taken to be "+c.Role.Name+", because "+strings.Join(c.Role.Because, ", ")+". Say --role if that is wrong.", ev)
	r.Remediation = []finding.Remediation{command("sixfence audit --role %s", c.Role.Name), intent("role: %s", c.Role.Name)}
	return one(r)
}

// ipv6MeantOff says by what sign IPv6 should be off on this host; empty: by none.
func (c *Context) ipv6MeantOff(s *Space) (sign string, ev []finding.Evidence, gap *fact.Gap) {
	if p, ok := c.Snap.Host.Boot.Parameters.Get(); ok && p["ipv6.disable_ipv6"] == "1" {
		return "the kernel command line (ipv6.disable_ipv6=1)", []finding.Evidence{{Source: "/proc/cmdline", Key: "ipv6.disable_ipv6", Value: "1"}}, nil
	}
	gap = gapOf(c.Snap.Host.Boot.Parameters)
	if v, ok := s.ConfInt("default", "disable_ipv6").Get(); ok && v != 0 {
		return "net.ipv6.conf.default.disable_ipv6", []finding.Evidence{s.confEvidence("default", "disable_ipv6")}, nil
	}
	gap = firstGap(gap, gapOf(s.ConfInt("default", "disable_ipv6")))
	if set, ok := c.Snap.Host.Files.Sysctl.Get(); ok {
		conf := bootconf.New(set)
		for _, f := range []string{"all", "default"} {
			if o, ok := conf.Sysctl("net/ipv6/conf/" + f + "/disable_ipv6"); ok && strings.TrimSpace(o.Value) == "1" {
				return o.Setting.Origin.File, []finding.Evidence{written(o.Setting.Origin, "net.ipv6.conf."+f+".disable_ipv6", o.Value)}, nil
			}
		}
	} else {
		gap = firstGap(gap, gapOf(c.Snap.Host.Files.Sysctl))
	}
	if gs := c.Snap.Host.Files.SysctlGaps; len(gs) > 0 {
		gap = firstGap(gap, &gs[0])
	}
	return "", nil, gap
}

func evalINV03(c *Context) []Result {
	s := c.primary()
	if s == nil {
		return nil
	}
	on, ok := s.IPv6.Get()
	switch {
	case !ok && gapOf(s.IPv6) != nil:
		return one(unknown(s.Subject(), *gapOf(s.IPv6)))
	case !ok || !on:
		return one(notApplicable(s.Subject(), "There is no IPv6 stack in this network namespace."))
	}
	sign, ev, gap := c.ipv6MeantOff(s)
	if sign == "" {
		if gap != nil {
			return one(unknown(s.Subject(), *gap))
		}
		return one(notApplicable(s.Subject(), "Nothing says that IPv6 should be off on this host."))
	}
	if g := firstGap(gapOf(s.Links), gapOf(s.Addresses)); g != nil {
		return one(unknown(s.Subject(), *g))
	}
	var out []Result
	for i := range s.links {
		l := &s.links[i]
		if l.Flags&iffLoopback != 0 {
			continue
		}
		sub := s.On(l.Name)
		addrs := s.Addrs(l.Index, "ipv6")
		if len(addrs) == 0 {
			out = append(out, pass(sub, l.Name+" has no IPv6 address.", ev...))
			continue
		}
		e := slices.Clone(ev)
		for _, a := range addrs[:min(len(addrs), 6)] {
			e = append(e, s.addressEvidence(a))
		}
		r := fail(sub, fmt.Sprintf("%s has %d IPv6 addresses, although %s says that IPv6 is off.", l.Name, len(addrs), sign), e...)
		r.Remediation = append(s.SetConf(l.Name, "disable_ipv6", "1"), intent("families: disabled-keep-loopback"))
		out = append(out, r)
	}
	return out
}

func evalINV04(c *Context) []Result {
	return c.eachSpace(func(s *Space) []Result {
		all := s.ConfInt("all", "disable_ipv6")
		v, ok := all.Get()
		switch {
		case !ok:
			return one(unknown(s.Subject(), *notRead(all, "net.ipv6.conf.all.disable_ipv6")))
		case gapOf(s.Links) != nil:
			return one(unknown(s.Subject(), *gapOf(s.Links)))
		}
		var out []Result
		for i := range s.links {
			l := &s.links[i]
			if l.Flags&iffLoopback != 0 {
				continue
			}
			on := s.On(l.Name)
			if v == 0 {
				out = append(out, pass(on, "all.disable_ipv6=0 promises nothing.", s.confEvidence("all", "disable_ipv6")))
				continue
			}
			k := s.ConfInt(l.Name, "disable_ipv6")
			mine, ok := k.Get()
			ev := []finding.Evidence{s.confEvidence("all", "disable_ipv6"), s.confEvidence(l.Name, "disable_ipv6")}
			switch {
			case ok && mine != 0:
				out = append(out, pass(on, "IPv6 is off on "+l.Name+" too.", ev...))
			case ok:
				r := fail(on, fmt.Sprintf("all.disable_ipv6=%d, but %s speaks IPv6: its own value is 0, and that is the one the kernel reads.", v, l.Name), ev...)
				r.Remediation = s.SetConf(l.Name, "disable_ipv6", "1")
				if l.Flags&iffUp == 0 {
					r.Severity = finding.Medium
					r.Message += " The interface is down; this counts from the moment it comes up."
				}
				out = append(out, r)
			case gapOf(k) != nil:
				out = append(out, unknown(on, *gapOf(k)))
			default:
				out = append(out, notApplicable(on, "The interface has no IPv6."))
			}
		}
		return out
	})
}

func evalINV05(c *Context) []Result {
	on := finding.Subject{File: "/etc/hosts"}
	hosts, ok := c.Snap.Host.Files.Hosts.Get()
	if !ok {
		if g := gapOf(c.Snap.Host.Files.Hosts); g != nil {
			return one(unknown(on, *g))
		}
		return one(notApplicable(on, "There is no hosts file."))
	}
	var line *fact.HostsEntry
	for i := range hosts {
		if hosts[i].Address == "::1" && slices.Contains(hosts[i].Names, "localhost") {
			line = &hosts[i]
			break
		}
	}
	if line == nil {
		return one(pass(on, "The hosts file does not lead localhost to ::1."))
	}
	ev := []finding.Evidence{written(line.Origin, "::1", strings.Join(line.Names, " "))}
	if c.Snap.Host.Mode == fact.ModeRoot {
		set, ok := c.Snap.Host.Files.Sysctl.Get()
		if !ok {
			if g := gapOf(c.Snap.Host.Files.Sysctl); g != nil {
				return one(unknown(on, *g))
			}
			set = nil
		}
		if o, ok := bootconf.New(set).Sysctl("net/ipv6/conf/lo/disable_ipv6"); ok && strings.TrimSpace(o.Value) == "1" {
			r := fail(on, "localhost leads to ::1, and "+o.Setting.Origin.File+" takes IPv6 from lo at boot.", append(ev, written(o.Setting.Origin, sysctlName(o.Setting.Key), o.Value))...)
			r.Severity = finding.Low
			return one(r)
		}
		return one(c.unsure(pass(on, "localhost leads to ::1, and no file takes IPv6 from lo at boot.", ev...), true))
	}
	s := c.primary()
	if s == nil {
		return one(unknown(on, fact.Gap{Reason: fact.NotCollected, What: "the host's own network namespace"}))
	}
	if g := gapOf(s.Addresses); g != nil {
		return one(unknown(on, *g))
	}
	for _, a := range s.Addrs(0, "ipv6") {
		if a.Prefix.Addr().IsLoopback() {
			return one(pass(on, "localhost leads to ::1, which is configured.", append(ev, s.addressEvidence(a))...))
		}
	}
	r := fail(on, "localhost leads to ::1, and no interface has that address: connections to localhost fail before they try 127.0.0.1.", ev...)
	if v, ok := s.IPv6.Get(); ok && !v {
		r.Severity = finding.Low
		r.Message = "localhost leads to ::1, and this kernel has no IPv6: programs that try the first address only fail."
		r.Remediation = []finding.Remediation{advice("Remove localhost from line %d of %s.", line.Origin.Line, line.Origin.File)}
	} else {
		r.Remediation = append(s.SetConf("lo", "disable_ipv6", "0"), advice("Or remove localhost from line %d of %s.", line.Origin.Line, line.Origin.File))
	}
	return one(r)
}

func evalINV06(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		if g := gapOf(s.Addresses); g != nil {
			return one(unknown(on, *g))
		}
		if s.Addressing(l) != addrStatic {
			return one(notApplicable(on, l.Name+" has no static global address."))
		}
		var ev []finding.Evidence
		var fix []finding.Remediation
		unsure := false
		for _, a := range s.Addrs(l.Index, "ipv6") {
			yes, maybe := s.learnedAddress(a)
			unsure = unsure || maybe
			if yes && len(ev) < 8 {
				ev = append(ev, s.addressEvidence(a))
				fix = append(fix, command("%s", s.Run("ip -6 addr del "+a.Prefix.String()+" dev "+shellWord(l.Name))))
			}
		}
		switch {
		case len(ev) > 0:
			r := fail(on, fmt.Sprintf("%s has static addresses and %s that a router advertisement made.", l.Name, countOf(len(ev), "one", "%d")), ev...)
			r.Remediation = append(fix, advice("Close SYSCTL-RA-01 for %s, or the address comes back.", l.Name))
			return one(r)
		case unsure:
			return one(unknown(on, fact.Gap{Reason: fact.UnsupportedGap, What: "who made the dynamic addresses of " + l.Name + " (this kernel reports no IFA_PROTO)"}))
		}
		return one(pass(on, "No router advertisement gave "+l.Name+" an address."))
	})
}

// countOf is a word for one and a format for more.
func countOf(n int, single, more string) string {
	if n == 1 {
		return single
	}
	return fmt.Sprintf(more, n)
}

func evalINV07(c *Context) []Result {
	var init *Space
	for _, s := range c.spaces {
		if s.IsInit {
			init = s
		}
	}
	if init == nil {
		return one(notApplicable(finding.Subject{}, "The initial network namespace, which has this setting, is out of sight."))
	}
	on := init.Subject()
	on.Key = "net.core.devconf_inherit_init_net"
	if up, ok := init.IPv6.Get(); ok && !up || init.IPv6.State() == fact.StateUnsupported || init.IPv6.State() == fact.StateAbsent {
		return one(notApplicable(on, "There is no IPv6 stack."))
	} else if g := gapOf(init.IPv6); g != nil {
		return one(unknown(on, *g))
	}
	k := init.SysctlInt("net/core/devconf_inherit_init_net")
	v, ok := k.Get()
	if g := gapOf(k); g != nil {
		return one(unknown(on, *g))
	}
	ev := []finding.Evidence{init.sysctlEvidence("net/core/devconf_inherit_init_net", k0(v, ok))}
	if ok && (v == 1 || v == 3) {
		return one(pass(on, fmt.Sprintf("New namespaces start with the values of the initial one or of their creator (devconf_inherit_init_net=%d).", v), ev...))
	}
	strict, gap := looser(nil, init)
	if gap != nil {
		return one(unknown(on, *gap))
	}
	if len(strict) == 0 {
		return one(notApplicable(on, "The host's own defaults are the kernel's: there is nothing to inherit."))
	}
	var weak []string
	n := 0
	for _, s := range c.spaces {
		if up, ok := s.IPv6.Get(); s == init || s.Foreign || ok && !up {
			continue
		}
		n++
		keys, g := looser(init, s)
		gap = firstGap(gap, g)
		if len(keys) > 0 {
			weak = append(weak, s.Name)
			for _, key := range keys[:1] {
				ev = append(ev, s.confEvidence("default", key))
				ev[len(ev)-1].Source = "netns " + s.Name + ": " + ev[len(ev)-1].Source
			}
		}
	}
	switch {
	case len(weak) > 0:
		ev = append(ev, init.confEvidence("default", strict[0]))
		r := fail(on, fmt.Sprintf("%d of %d other namespaces start with weaker IPv6 defaults than the host's (%s): they get the kernel's own.", len(weak), n, listing(strict, 3)), ev[:min(len(ev), 8)]...)
		if ok {
			r.Remediation = append(init.Set("net/core/devconf_inherit_init_net", "1"), advice("Or set the sysctls where the containers are made: docker --sysctl, the pod's securityContext, the CNI tuning plugin."))
		} else {
			r.Remediation = []finding.Remediation{advice("This kernel has no devconf_inherit_init_net: set the sysctls where the containers are made.")}
		}
		return one(r)
	case gap != nil:
		return one(unknown(on, *gap))
	case n == 0:
		return one(notApplicable(on, "There is no other network namespace."))
	}
	return one(pass(on, fmt.Sprintf("The %d other namespaces have defaults as strict as the host's, by other means.", n), ev...))
}

func k0(v int64, ok bool) string {
	if !ok {
		return "not there"
	}
	return itoa(v)
}

// looser lists the keys of conf/default in which s is weaker than base, or, with
// no base, in which s is stricter than the kernel's own defaults.
func looser(base, s *Space) (keys []string, gap *fact.Gap) {
	for _, x := range []struct {
		key  string
		weak int64 // the kernel's own default, which is the weak one
	}{{"accept_ra", 1}, {"accept_redirects", 1}, {"disable_ipv6", 0}} {
		k := s.ConfInt("default", x.key)
		v, ok := k.Get()
		if !ok {
			gap = firstGap(gap, notRead(k, "net.ipv6.conf.default."+x.key+" of "+s.Name))
			continue
		}
		if base == nil {
			if v != x.weak && (x.key == "disable_ipv6" || v == 0) {
				keys = append(keys, x.key)
			}
			continue
		}
		b, ok := base.ConfInt("default", x.key).Get()
		if ok && b != x.weak && (v == x.weak || x.key == "accept_ra" && v != 0 && b == 0) {
			keys = append(keys, x.key)
		}
	}
	return keys, gap
}

func evalINV11(c *Context) []Result {
	s := c.primary()
	if s == nil {
		return nil
	}
	ms, ok := c.Snap.Host.Managers.Get()
	if g := gapOf(c.Snap.Host.Managers); !ok && g != nil {
		return one(unknown(s.Subject(), *g))
	}
	if g := gapOf(s.Links); g != nil {
		return one(unknown(s.Subject(), *g))
	}
	var out []Result
	for i := range s.links {
		l := &s.links[i]
		if l.Flags&iffLoopback != 0 {
			continue
		}
		on := s.On(l.Name)
		var claims, doubts []string
		var ev []finding.Evidence
		dhcp := false // ifupdown starts a DHCP client of its own
		for j := range ms {
			m := &ms[j]
			if m.Name == "netplan" || m.Name == "dhclient" || c.managedSpace(m) != s {
				continue
			}
			running, kr := m.Running.Get()
			enabled, ke := m.Enabled.Get()
			if kr && !running && ke && !enabled {
				continue
			}
			set, doubt := m.For(l)
			if set == nil && doubt == nil || set != nil && set.Index == 0 && len(set.Names) == 0 && doubt == nil {
				continue
			}
			if !(kr && running || ke && enabled) || doubt != nil {
				doubts = append(doubts, m.Name)
				continue
			}
			if v, ok := set.DHCPv6.Get(); m.Name == "ifupdown" && ok && v {
				dhcp = true
			}
			claims = append(claims, m.Name)
			ev = append(ev, written(set.Origin, m.Name, "configures "+l.Name))
		}
		claims, doubts = sortedUnique(claims), sortedUnique(doubts)
		if dhcp {
			claims = slices.DeleteFunc(claims, func(n string) bool { return n == "dhcpcd" })
		}
		switch {
		case len(claims) > 1:
			out = append(out, fail(on, strings.Join(claims, " and ")+" are both told to configure "+l.Name+".", ev...))
		case len(claims)+len(doubts) > 1:
			out = append(out, unknown(on, fact.Gap{Reason: fact.NotCollected, What: "whether " + listing(append(claims, doubts...), 4) + " all manage " + l.Name}))
		case len(claims) == 1:
			out = append(out, pass(on, claims[0]+" alone configures "+l.Name+".", ev...))
		default:
			out = append(out, pass(on, "No manager that we know is told to configure "+l.Name+"."))
		}
	}
	return out
}
