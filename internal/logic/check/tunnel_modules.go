package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/bootconf"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

func tunnelModuleControls() []Control {
	local := []finding.Position{finding.FromLocal}
	return []Control{
		{
			ID: "TUN-03", Title: "Tunnel module can be loaded on demand",
			Severity: finding.Low, Reason: "loading needs CAP_NET_ADMIN; medium where every user gets that in a namespace of his own",
			Positions: local,
			Source:    "modules present for the running kernel, modprobe.d, kernel.modules_disabled, the role",
			Rule:      "Asking for a link kind or a protocol that is not there makes the kernel run modprobe on an alias (rtnl-link-sit). A blacklist line stops aliases only; install MODULE /bin/false stops every load through modprobe, dependencies included.",
			What:      "Each tunnel module that exists on disk and that nothing keeps from being loaded.",
			Why:       "A tunnel that cannot be loaded cannot be opened by accident, by a script or by an attacker with some rights.",
			Attack:    "ip link add type sit … by a process with CAP_NET_ADMIN, in a user namespace by anybody.",
			Check:     "One entry a module. Passing: not on disk, blocked by install to a command that fails, or loading switched off for good. Modules that the role needs are not applicable. Built-in and loaded ones are TUN-05.",
			Fix: []finding.Remediation{
				command("printf 'install %%s /bin/false\\nblacklist %%s\\n' MODULE MODULE >>/etc/modprobe.d/tunnels.conf"),
				intent("tunnels: deny"),
			},
			TradeOff: "A VPN, overlay or container network that needs the module stops working. insmod and an old initramfs are not stopped.",
			Refs:     cite("RFC 7123 §3", "CIS Distribution Independent Linux 3.5", "modprobe.d(5)"),
			Eval:     loadableModules,
		},
		{
			ID: "TUN-04", Title: "Module block that does not do what it says",
			Severity: finding.Medium, Reason: "the block reports success or hits the wrong module",
			Source: "modprobe.d",
			Rule:   "install MODULE /bin/true makes modprobe report success for a module that is not there. tunnel6 is a helper of ip6_tunnel, ip6_gre, ip6_vti, xfrm6_tunnel, ipcomp6 and fou6: blocking it breaks IPsec and leaves ISATAP, 6to4 and 6rd, which are all in sit, untouched.",
			What:   "Lines of modprobe.d about tunnel modules that mislead.",
			Why:    "Hardening guides copy these lines; scripts then believe that the module is present, or that ISATAP is off.",
			Attack: "The mechanism that was meant to be blocked stays open.",
			Check:  "install … /bin/true for a tunnel module, any block of tunnel4 or tunnel6, and an alias away where no install line stops the load.",
			Fix: []finding.Remediation{
				command("printf 'install sit /bin/false\\nblacklist sit\\n' >/etc/modprobe.d/tunnels.conf"),
				intent("tunnels: deny"),
			},
			TradeOff: "Programs that ignored the missing module now see the error.",
			Refs:     cite("modprobe.d(5)", "RFC 5214", "RFC 7123 §3"),
			Eval:     wrongBlocks,
		},
		{
			ID: "TUN-05", Title: "Tunnel code is loaded or built in, whatever modprobe.d says",
			Severity: finding.Low, Reason: "present code is one command away from use; medium where a block suggests otherwise",
			Positions: local,
			Source:    "/proc/modules, modules.builtin, modprobe.d, the tunnel devices of all namespaces, the role",
			Rule:      "modprobe.d acts when a module is about to be loaded. It does not unload one, and what is built into the kernel has no module to block.",
			What:      "Tunnel modules that are in the running kernel.",
			Why:       "A block that came too late, or that cannot work on this kernel, looks the same in every file review.",
			Attack:    "As TUN-03, without the load.",
			Check:     "In the kernel and blocked in modprobe.d: medium, the block is without effect. Loaded and not blocked: low; built in and not blocked: informational, nothing here can change it. Modules that a device of this host or its role uses are not applicable: TUN-01 is about the device.",
			Fix: []finding.Remediation{
				command("modprobe -r MODULE   # then, when nothing else is to be loaded: sysctl -w kernel.modules_disabled=1"),
				advice("Built-in code cannot be removed: use a kernel without it, or keep users from making devices (TUN-11) and filter the protocols."),
				intent("tunnels: deny"),
			},
			TradeOff: "kernel.modules_disabled=1 holds until the next boot, for every module.",
			Refs:     cite("modprobe.d(5)", "kernel sysctl kernel.modules_disabled"),
			Eval:     presentModules,
		},
	}
}

// tunnelModule is a module that carries packets inside packets.
type tunnelModule struct {
	name  string
	kinds []string // link kinds it provides
	roles []string // roles that need it by purpose
}

var overlayRoles = []string{RoleKubeNode, RoleHypervisor}

// tunnelModules are the modules that TUN-03 and TUN-05 are about.
var tunnelModules = []tunnelModule{
	{"sit", []string{"sit"}, nil},
	{"ipip", []string{"ipip"}, []string{RoleKubeNode}},
	{"ip_gre", []string{"gre", "gretap", "erspan"}, nil},
	{"ip6_gre", []string{"ip6gre", "ip6gretap", "ip6erspan"}, nil},
	{"ip6_tunnel", []string{"ip6tnl"}, nil},
	{"ip_vti", []string{"vti"}, nil},
	{"ip6_vti", []string{"vti6"}, nil},
	{"fou", nil, nil},
	{"fou6", nil, nil},
	{"vxlan", []string{"vxlan"}, overlayRoles},
	{"geneve", []string{"geneve"}, overlayRoles},
	{"bareudp", []string{"bareudp"}, nil},
	{"amt", []string{"amt"}, nil},
	{"gtp", []string{"gtp"}, nil},
	{"l2tp_eth", []string{"l2tp"}, nil},
	{"l2tp_ip", nil, nil},
	{"l2tp_ip6", nil, nil},
	{"l2tp_ppp", nil, nil},
	{"wireguard", []string{"wireguard"}, []string{RoleKubeNode, RoleRouter}},
	{"tun", []string{"tun", "tap"}, append(slices.Clone(overlayRoles), RoleWorkstation)},
}

// needed says why a module is expected here; empty when nothing explains it.
func (c *Context) needed(m tunnelModule) string {
	if slices.Contains(m.roles, c.Role.Name) {
		return "The role " + c.Role.Name + " uses " + m.name + "."
	}
	for _, s := range c.spaces {
		for i := range s.links {
			l := &s.links[i]
			if slices.Contains(m.kinds, l.Kind) && (l.Tunnel == nil || !l.Tunnel.Fallback) {
				return l.Name + " uses " + m.name + " (TUN-01)."
			}
		}
	}
	return ""
}

// moduleState is where a module is.
type moduleState struct {
	builtin, loaded, onDisk bool
	gaps                    []fact.Gap
	block                   bootconf.Block
}

func (c *Context) moduleOf(name string) moduleState {
	h := &c.Snap.Host
	var st moduleState
	note := func(g *fact.Gap) {
		if g != nil && !slices.Contains(st.gaps, *g) {
			st.gaps = append(st.gaps, *g)
		}
	}
	b, _ := h.Modules.Builtin.Get()
	st.builtin = slices.Contains(b, name)
	l, _ := h.Modules.Loaded.Get()
	st.loaded = slices.Contains(l, name)
	d, _ := h.Modules.Loadable.Get()
	_, st.onDisk = d[name]
	note(gapOf(h.Modules.Builtin))
	if h.Mode != fact.ModeRoot {
		note(gapOf(h.Modules.Loaded))
	}
	if supported, ok := h.Modules.Supported.Get(); !ok || supported {
		note(gapOf(h.Modules.Loadable))
	}
	lines, ok := h.Files.Modprobe.Get()
	if !ok {
		note(gapOf(h.Files.Modprobe))
	}
	st.block = bootconf.Module(lines, name)
	return st
}

func moduleSubject(name string) finding.Subject { return finding.Subject{Key: "module " + name} }

func loadableModules(c *Context) []Result {
	h := &c.Snap.Host
	if supported, ok := h.Modules.Supported.Get(); ok && !supported {
		return []Result{pass(finding.Subject{}, "This kernel has no loadable modules: what is not built in does not exist (TUN-05).", c.observed("kernel configuration", "CONFIG_MODULES", "not set"))}
	} else if g := gapOf(h.Modules.Supported); g != nil && h.Mode != fact.ModeRoot {
		return []Result{unknown(finding.Subject{}, *g)}
	}
	if off, ok := h.Boot.ModulesDisabled.Get(); ok && off {
		return []Result{pass(finding.Subject{}, "kernel.modules_disabled is 1: nothing can be loaded until the next boot.", c.observed("/proc/sys/kernel/modules_disabled", "modules_disabled", "1"))}
	}
	open, doubt := c.usersMakeNamespaces()
	var out []Result
	for _, m := range tunnelModules {
		sub := moduleSubject(m.name)
		st := c.moduleOf(m.name)
		switch {
		case st.builtin || st.loaded:
			out = append(out, notApplicable(sub, m.name+" is in the kernel already (TUN-05)."))
			continue
		case len(st.gaps) > 0:
			out = append(out, unknown(sub, st.gaps...))
			continue
		case !st.onDisk:
			out = append(out, pass(sub, m.name+" does not exist for this kernel.", c.observed("/lib/modules", m.name, "not there")))
			continue
		case st.block.Effective():
			out = append(out, pass(sub, m.name+" is kept from loading.", written(st.block.By.Origin, "install", m.name)))
			continue
		}
		if why := c.needed(m); why != "" {
			out = append(out, notApplicable(sub, why))
			continue
		}
		how := "nothing keeps it from being loaded"
		if st.block.How == bootconf.BlacklistOnly {
			how = "it is only blacklisted, which stops loading by alias and not by name or as a dependency"
		}
		r := fail(sub, fmt.Sprintf("%s exists on disk and %s.", m.name, how), c.observed("/lib/modules", m.name, "loadable"))
		r.Remediation = []finding.Remediation{
			command("printf 'install %s /bin/false\\nblacklist %s\\n' >>/etc/modprobe.d/tunnels.conf", m.name, m.name),
			intent("tunnels: deny"),
		}
		if open && doubt == nil && len(m.kinds) > 0 && st.block.How != bootconf.BlacklistOnly {
			r.Severity = finding.Medium
			r.Message += " Every local user can ask for it from a namespace of his own."
		}
		out = append(out, r)
	}
	return out
}

func wrongBlocks(c *Context) []Result {
	lines, ok := c.Snap.Host.Files.Modprobe.Get()
	if !ok {
		if g := gapOf(c.Snap.Host.Files.Modprobe); g != nil {
			return []Result{unknown(finding.Subject{}, *g)}
		}
		lines = nil
	}
	var out []Result
	names := []string{"tunnel4", "tunnel6"}
	for _, m := range tunnelModules {
		names = append(names, m.name)
	}
	for _, name := range names {
		b := bootconf.Module(lines, name)
		if b.How == bootconf.NotBlocked {
			continue
		}
		sub := finding.Subject{File: b.By.Origin.File, Key: "module " + name}
		ev := written(b.By.Origin, string(b.How), name)
		helper := name == "tunnel4" || name == "tunnel6"
		switch {
		case helper && (b.How == bootconf.InstallTrue || b.How == bootconf.InstallFalse || b.How == bootconf.InstallCommand):
			msg := fmt.Sprintf("%s blocks %s, a helper of other tunnels and of IPsec: it breaks them and does not stop", b.By.Origin.File, name)
			if name == "tunnel6" {
				msg += " ISATAP, 6to4 or 6rd, which are in sit."
			} else {
				msg += " GRE or UDP tunnels. Block sit and ipip by name."
			}
			out = append(out, fail(sub, msg, ev))
		case b.How == bootconf.InstallTrue:
			r := fail(sub, fmt.Sprintf("install %s /bin/true: modprobe reports success for a module that is not there. Use /bin/false.", name), ev)
			r.Severity = finding.Low
			out = append(out, r)
		case b.How == bootconf.AliasedAway:
			out = append(out, fail(sub, fmt.Sprintf("alias %s only renames it: as a dependency, and by its rtnl-link alias, it still loads.", name), ev))
		case b.How == bootconf.InstallCommand:
			r := fail(sub, fmt.Sprintf("install %s runs a command that may still load the module.", name), ev)
			r.Severity = finding.Low
			out = append(out, r)
		default:
			out = append(out, pass(sub, "The block of "+name+" does what it says ("+string(b.How)+").", ev))
		}
	}
	if len(c.Snap.Host.Files.Gaps) > 0 && !slices.ContainsFunc(out, func(r Result) bool { return r.Effective == finding.Fail }) {
		for _, g := range c.Snap.Host.Files.Gaps {
			if strings.Contains(g.What, "modprobe") {
				out = append(out, unknown(finding.Subject{}, g))
			}
		}
	}
	if out == nil && ok {
		out = append(out, notApplicable(finding.Subject{}, "modprobe.d says nothing about tunnel modules."))
	}
	return out
}

func presentModules(c *Context) []Result {
	h := &c.Snap.Host
	var out []Result
	for _, m := range tunnelModules {
		sub := moduleSubject(m.name)
		st := c.moduleOf(m.name)
		if !st.builtin && !st.loaded {
			var gaps []fact.Gap
			for i, g := range []*fact.Gap{gapOf(h.Modules.Builtin), gapOf(h.Modules.Loaded)} {
				if g != nil && !slices.Contains(gaps, *g) && (i == 0 || h.Mode != fact.ModeRoot) {
					gaps = append(gaps, *g)
				}
			}
			if len(gaps) > 0 {
				out = append(out, unknown(sub, gaps...))
			} else {
				out = append(out, pass(sub, m.name+" is not in the kernel."))
			}
			continue
		}
		src, where := "/proc/modules", "loaded"
		if st.builtin {
			src, where = "modules.builtin", "built into the kernel"
		}
		ev := c.observed(src, m.name, where)
		if g := gapOf(h.Files.Modprobe); g != nil {
			out = append(out, unknown(sub, *g))
			continue
		}
		if st.block.How != bootconf.NotBlocked {
			r := fail(sub, fmt.Sprintf("%s is %s; the block in %s has no effect on it.", m.name, where, st.block.By.Origin.File), ev, written(st.block.By.Origin, string(st.block.How), m.name))
			r.Severity = finding.Medium
			if st.builtin {
				r.Remediation = []finding.Remediation{advice("No line of modprobe.d can block what is built in. Use a kernel without it, or keep users from making devices (TUN-11) and filter the protocol.")}
			} else {
				r.Remediation = []finding.Remediation{command("modprobe -r %s", m.name)}
			}
			out = append(out, r)
			continue
		}
		if why := c.needed(m); why != "" {
			out = append(out, notApplicable(sub, why))
			continue
		}
		r := fail(sub, fmt.Sprintf("%s is %s and no device of this host needs it.", m.name, where), ev)
		if st.builtin {
			r.Severity = finding.Info // nothing on this host can change it
			r.Message += " It cannot be unloaded or blocked."
			r.Remediation = []finding.Remediation{advice("Use a kernel without it, or keep users from making devices (TUN-11) and filter the protocol.")}
		} else {
			r.Message += " It can be unloaded."
			r.Remediation = []finding.Remediation{command("modprobe -r %s && printf 'install %s /bin/false\\nblacklist %s\\n' >>/etc/modprobe.d/tunnels.conf", m.name, m.name, m.name), intent("tunnels: deny")}
		}
		out = append(out, r)
	}
	return out
}

// usersMakeNamespaces tells whether unprivileged users may create user
// namespaces, and so network namespaces.
func (c *Context) usersMakeNamespaces() (open bool, gap *fact.Gap) {
	u := &c.Snap.Host.UserNS
	if v, ok := u.Unprivileged.Get(); ok && !v {
		return false, nil
	}
	if v, ok := u.Max.Get(); ok && v == 0 {
		return false, nil
	}
	if v, ok := u.AppArmor.Get(); ok && v {
		return false, nil
	}
	for _, g := range []*fact.Gap{gapOf(u.Unprivileged), gapOf(u.Max), gapOf(u.AppArmor)} {
		if g != nil {
			return true, g
		}
	}
	return true, nil
}

func unprivilegedNamespaces(c *Context) []Result {
	u := &c.Snap.Host.UserNS
	open, gap := c.usersMakeNamespaces()
	sub := finding.Subject{Key: "user namespaces"}
	ev := []finding.Evidence{c.observed("/proc/sys/user/max_user_namespaces", "max_user_namespaces", known(u.Max))}
	if v, ok := u.Unprivileged.Get(); ok {
		ev = append(ev, c.observed("/proc/sys/kernel/unprivileged_userns_clone", "unprivileged_userns_clone", fmt.Sprint(v)))
	}
	if v, ok := u.AppArmor.Get(); ok {
		ev = append(ev, c.observed("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "apparmor_restrict_unprivileged_userns", fmt.Sprint(v)))
	}
	if v, ok := u.TunMode.Get(); ok {
		ev = append(ev, c.observed("/dev/net/tun", "mode", fmt.Sprintf("%04o", v)))
	}
	switch {
	case !open:
		return []Result{pass(sub, "Unprivileged users cannot create user namespaces, so they cannot make tunnel devices.", ev...)}
	case gap != nil:
		return []Result{unknown(sub, *gap)}
	}
	r := fail(sub, "Every user can create a user namespace and make tunnel devices in a network namespace of his own.", ev...)
	supported, ok := c.Snap.Host.Modules.Supported.Get()
	off := c.Snap.Host.Boot.ModulesDisabled.Or(false)
	if ok && supported && !off {
		if c.loadableByUsers() {
			r.Severity = finding.Medium
			r.Message += " Asking for one loads its module."
		}
	}
	return []Result{r}
}

// loadableByUsers tells whether a tunnel module is on disk, unblocked.
func (c *Context) loadableByUsers() bool {
	return slices.ContainsFunc(tunnelModules, func(m tunnelModule) bool {
		st := c.moduleOf(m.name)
		return len(m.kinds) > 0 && st.onDisk && !st.loaded && !st.builtin && st.block.How == bootconf.NotBlocked
	})
}

// known renders a number that may be missing.
func known(k fact.Known[int64]) string {
	if v, ok := k.Get(); ok {
		return itoa(v)
	}
	return k.State().String()
}
