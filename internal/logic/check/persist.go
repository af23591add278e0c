package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/bootconf"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

func persistControls() []Control {
	return []Control{
		{
			ID: "INV-08", Title: "Running settings and boot files differ", Severity: finding.High,
			Reason:    "The next boot undoes the hardening, without anything on the host being changed.",
			Positions: []finding.Position{finding.FromLink},
			Source:    "sysctl.d of /usr/lib, /run and /etc, /etc/sysctl.conf, ufw's own sysctl file, ifupdown's and other managers' settings; the running values",
			Rule:      "Files of one name hide each other (/etc before /run before /usr/lib); the last line for a key wins, an explicit line beats a glob; ufw applies its file after systemd-sysctl; network managers write accept_ra of what they manage last.",
			What:      "For each IPv6 setting that protects this host: what it is now, and what the boot files will make of it.",
			Why:       "sysctl -w lasts until the next boot, and a package's drop-in or ufw's file may quietly win over the administrator's.",
			Attack:    "The attacker waits for the next reboot, or causes one.",
			Check:     "We predict every key by the precedence of systemd-sysctl and ufw, and compare. A weaker value after boot is high or medium, a stronger one low. Keys that a running network manager, Docker, libvirt or a kubelet sets are left to them.",
			Fix:       []finding.Remediation{command("sysctl --system"), advice("Put each setting into one drop-in of your own, and remove it from the others.")},
			TradeOff:  "None.",
			Refs:      []finding.Reference{cis("3.3.11", "3.3.2.7"), {Source: "sysctl.d(5)"}, {Source: "ufw-framework(8)", ID: "IPT_SYSCTL"}},
			Live:      true, Eval: evalINV08,
		},
		{
			ID: "INV-09", Title: "Boot files do not reach every interface", Severity: finding.High,
			Reason:    "The file looks like protection and protects nothing, or only what appears after it was applied.",
			Positions: []finding.Position{finding.FromLink},
			Source:    "sysctl.d and the files it reads; the interfaces of the running host when there is one",
			Rule:      "conf/all reaches no interface for these keys. conf/default reaches interfaces created later; at boot a NIC is often there first. net.ipv6.conf.*.KEY reaches existing ones, and udev applies it to each new one.",
			What:      "Whether files that close accept_ra, accept_redirects and autoconf reach the interfaces that exist at boot and those that come later.",
			Why:       "The lines that benchmarks ask for, all and default, leave a NIC that exists before systemd-sysctl runs with the kernel's defaults.",
			Attack:    "After the next boot the first router advertisement is believed.",
			Check:     "For each of the keys that some file closes we ask what existing and future interfaces get. Interfaces whose manager sets the key are covered by it. This works on a directory tree too.",
			Fix:       []finding.Remediation{command("echo 'net.ipv6.conf.*.accept_ra = 0' >> %s", dropIn), command("systemctl restart systemd-sysctl")},
			TradeOff:  "The pattern also covers interfaces that need the setting on: give those a line of their own, which wins over the pattern.",
			Refs:      []finding.Reference{{Source: "sysctl.d(5)", ID: "CONFIGURATION FORMAT"}, cis("3.3.11", "3.3.2.7, 3.3.2.8"), kernelDoc("conf/default, conf/all")},
			Eval:      evalINV09,
		},
		{
			ID: "INV-10", Title: "Boot file names a dotted interface in a way that reaches none", Severity: finding.Medium,
			Reason:   "The line does nothing, and the error is lost in the boot log.",
			Source:   "sysctl.d, /etc/sysctl.conf, ufw's sysctl file",
			Rule:     "A dot in a key is a path separator: net.ipv6.conf.eth0.100.accept_ra is conf/eth0/100/accept_ra, which does not exist. With a slash for the dot in the name, conf.eth0/100, it works.",
			What:     "Lines meant for VLAN interfaces such as eth0.100.",
			Why:      "VLANs carry the networks that need hardening most, and their usual names break the usual syntax.",
			Attack:   "A neighbour in that VLAN sends a router advertisement.",
			Check:    "We look for keys below net.ipv6.conf with a component too many.",
			Fix:      []finding.Remediation{command("sysctl -w net/ipv6/conf/eth0.100/accept_ra=0"), advice("Write the line with slashes: net/ipv6/conf/eth0.100/accept_ra = 0")},
			TradeOff: "None.",
			Refs:     []finding.Reference{{Source: "sysctl.d(5)", ID: "CONFIGURATION FORMAT"}, {Source: "sysctl(8)", ID: "-w"}},
			Eval:     evalINV10,
		},
	}
}

// protected are the settings whose loss at boot matters.
var protected = []struct {
	key  string
	boot int64                       // the kernel's own default
	weak func(now, then int64) bool  // then is weaker than now
	sev  finding.Severity            // when the boot value is weaker
	of   []string                    // nil: every interface and conf/default; else these
	by   func(*Context, *Space) bool // something that sets it at its start
}{
	{"accept_ra", 1, closes, finding.High, nil, nil},
	{"accept_redirects", 1, closes, finding.Medium, nil, nil},
	{"disable_ipv6", 0, opens, finding.High, nil, nil},
	{"autoconf", 1, closes, finding.Medium, nil, nil},
	{"accept_ra_defrtr", 1, closes, finding.Medium, nil, nil},
	{"accept_ra_pinfo", 1, closes, finding.Medium, nil, nil},
	{"suppress_frag_ndisc", 1, opens, finding.Medium, nil, nil},
	{"accept_source_route", 0, func(now, then int64) bool { return now <= 0 && then > 0 }, finding.Low, nil, nil},
	{"forwarding", 0, closes, finding.High, []string{"all"}, routesAtStart},
}

func closes(now, then int64) bool { return now == 0 && then != 0 }

func opens(now, then int64) bool { return now != 0 && then == 0 }

// routesAtStart tells whether a program that turns forwarding on runs here.
func routesAtStart(c *Context, _ *Space) bool {
	rt := &c.Snap.Host.Runtimes
	d, _ := rt.Docker.Get()
	k, _ := rt.Kubelet.Get()
	l, _ := rt.Libvirt.Get()
	return d.Running || k.Running || l.Running
}

// managerValue is what a network manager makes of a key of an interface when
// it brings it up.
type managerValue struct {
	name  string // the manager; empty: none touches the key
	value int64
	known bool      // value is what it writes
	doubt *fact.Gap // whether it touches the key is not known
}

func (s *Space) managerSets(l *fact.Link, key string) managerValue {
	ms, _ := s.ctx.Snap.Host.Managers.Get()
	var out managerValue
	for i := range ms {
		m := &ms[i]
		running, kr := m.Running.Get()
		enabled, ke := m.Enabled.Get()
		if s.ctx.managedSpace(m) != s || m.Name == "netplan" || kr && !running && ke && !enabled {
			continue
		}
		set, doubt := m.For(l)
		if set == nil && doubt == nil {
			continue
		}
		v := managerValue{name: m.Name, doubt: doubt}
		if set != nil && set.Sysctls[key] != "" {
			v.value, v.known = number(fact.Value(set.Sysctls[key]), key).Get()
		} else if m.Name == "ifupdown" || !slices.Contains([]string{"accept_ra", "disable_ipv6", "autoconf", "forwarding"}, key) {
			continue // networkd, NetworkManager and dhcpcd write these for what they manage
		}
		if doubt == nil && !(kr && running) && !(ke && enabled && m.Name == "ifupdown") {
			v.doubt = &fact.Gap{Reason: fact.NotCollected, What: "whether " + m.Name + " will set " + key + " of " + l.Name}
		}
		if out.name == "" || out.doubt != nil {
			out = v
		}
	}
	return out
}

// bootFiles is the prediction for the host's own namespace.
func (c *Context) bootFiles(on finding.Subject) (*bootconf.Config, []fact.SysctlSetting, *Result) {
	set, ok := c.Snap.Host.Files.Sysctl.Get()
	if !ok {
		if g := gapOf(c.Snap.Host.Files.Sysctl); g != nil {
			r := unknown(on, *g)
			return nil, nil, &r
		}
	}
	return bootconf.New(set), set, nil
}

// unsure turns a result into unknown while boot files could not be read or
// understood: another line may decide. A fail that one line proves is kept.
func (c *Context) unsure(r Result, proved bool) Result {
	gaps := c.Snap.Host.Files.SysctlGaps
	if len(gaps) == 0 || r.Effective == finding.Unknown || r.Effective == finding.Fail && proved {
		return r
	}
	u := unknown(r.Subject, gaps[:min(len(gaps), 3)]...)
	u.Evidence = r.Evidence
	return u
}

func evalINV08(c *Context) []Result {
	s := c.primary()
	if s == nil {
		return nil
	}
	if !s.IsInit {
		return one(notApplicable(s.Subject(), "Boot files are for the host's initial network namespace, which is out of sight."))
	}
	up, ok := s.IPv6.Get()
	switch {
	case !ok && gapOf(s.IPv6) != nil:
		return one(unknown(s.Subject(), *gapOf(s.IPv6)))
	case !ok || !up:
		return one(notApplicable(s.Subject(), "There is no IPv6 stack in this network namespace."))
	}
	conf, _, bad := c.bootFiles(s.Subject())
	if bad != nil {
		return one(*bad)
	}
	if g := firstGap(gapOf(s.Links), gapOf(c.Snap.Host.Managers)); g != nil {
		return one(unknown(s.Subject(), *g))
	}
	var out []Result
	for i := range protected {
		out = append(out, c.unsure(s.drift(conf, i), false))
	}
	return out
}

// drift compares one protected setting on everything it is read from.
func (s *Space) drift(conf *bootconf.Config, i int) Result {
	p := &protected[i]
	on := s.Subject()
	on.Key = "net.ipv6.conf.*." + p.key
	if len(p.of) == 1 {
		on.Key = "net.ipv6.conf." + p.of[0] + "." + p.key
	}
	type target struct {
		name string
		l    *fact.Link
	}
	var targets []target
	if p.of != nil {
		for _, n := range p.of {
			targets = append(targets, target{n, nil})
		}
	} else {
		targets = append(targets, target{"default", nil})
		for j := range s.links {
			l := &s.links[j]
			if l.Flags&iffLoopback != 0 || l.Kind == "veth" && l.PeerNS != nil { // made by a runtime, after boot
				continue
			}
			targets = append(targets, target{l.Name, l})
		}
	}
	var gap *fact.Gap
	var weaker, stronger []string
	var ev []finding.Evidence
	var keep, left []string
	compared := 0
	for _, t := range targets {
		k := s.ConfInt(t.name, p.key)
		now, ok := k.Get()
		if !ok {
			gap = firstGap(gap, gapOf(k))
			continue
		}
		path := "net/ipv6/conf/" + t.name + "/" + p.key
		then, from, sure := p.boot, "no file sets it", true
		setting := fact.SysctlSetting{}
		if o, ok := conf.Sysctl(path); ok {
			n, isNumber := number(fact.Value(o.Value), path).Get()
			if !isNumber {
				gap = firstGap(gap, &fact.Gap{Reason: fact.ParseGap, What: fmt.Sprintf("the value of %s in %s", sysctlName(path), o.Setting.Origin.File)})
				continue
			}
			then, from, sure, setting = n, o.Setting.Origin.File, o.Certain, o.Setting
		}
		compared++
		if t.l != nil {
			switch m := s.managerSets(t.l, p.key); {
			case m.name == "":
			case m.known && m.doubt == nil:
				then, from, sure = m.value, m.name+" sets it", true
			case p.weak(now, then) && m.doubt != nil:
				gap = firstGap(gap, m.doubt)
				continue
			case p.weak(now, then):
				left = append(left, m.name+" on "+t.name)
				continue
			}
		}
		if now == then || p.by != nil && now != 0 && p.by(s.ctx, s) {
			continue
		}
		if !sure && !p.weak(now, then) {
			continue // INV-09 says that the moment decides
		}
		words := fmt.Sprintf("%s (now %d, after boot %d: %s)", t.name, now, then, from)
		switch {
		case p.weak(now, then):
			weaker = append(weaker, words)
			keep = append(keep, path, itoa(now))
		case p.weak(then, now):
			stronger = append(stronger, words)
		default:
			continue
		}
		if len(ev) < 8 {
			ev = append(ev, s.confEvidence(t.name, p.key))
			if setting.Key != "" {
				ev = append(ev, written(setting.Origin, sysctlName(setting.Key), setting.Value))
			}
		}
	}
	switch {
	case len(weaker) > 0:
		r := fail(on, fmt.Sprintf("The next boot undoes %s on %s.", p.key, listing(weaker, 3)), ev...)
		r.Severity, r.Remediation = p.sev, []finding.Remediation{s.Persist(keep...)}
		if r.Severity == finding.High && p.key == "accept_ra" && len(weaker) == 1 && strings.HasPrefix(weaker[0], "default ") {
			r.Severity = finding.Medium
		}
		return r
	case gap != nil:
		return unknown(on, *gap)
	case len(stronger) > 0:
		r := fail(on, fmt.Sprintf("The boot files close %s, but something opened it since, or they were not applied: %s.", p.key, listing(stronger, 3)), ev...)
		r.Severity = finding.Low
		r.Title = "Boot files close a setting that is open now"
		r.Remediation = []finding.Remediation{command("sysctl --system"), advice("If the value returns, a network manager or container runtime writes it: configure it there.")}
		return r
	case compared == 0:
		return notApplicable(on, "This kernel has no "+p.key+".")
	case len(left) > 0:
		return notApplicable(on, "No boot file keeps "+p.key+", but a network manager sets it when it starts: "+listing(left, 4)+".")
	}
	return pass(on, "The next boot leaves "+p.key+" as it is, or as strict.")
}

// reachKeys are the settings that no write to conf/all reaches, with the value
// that closes them.
var reachKeys = []string{"accept_ra", "accept_redirects", "autoconf", "accept_ra_defrtr", "accept_ra_pinfo"}

func evalINV09(c *Context) []Result {
	conf, set, bad := c.bootFiles(finding.Subject{})
	if bad != nil {
		return one(*bad)
	}
	var out []Result
	for _, key := range reachKeys {
		if r := c.reachOf(conf, set, key); r != nil {
			out = append(out, c.unsure(*r, false))
		}
	}
	if len(out) == 0 {
		return one(c.unsure(notApplicable(finding.Subject{}, "No boot file closes accept_ra, accept_redirects or autoconf: there is nothing to reach interfaces with."), false))
	}
	return out
}

// reachOf follows one key's lines; nil when no file closes it.
func (c *Context) reachOf(conf *bootconf.Config, set []fact.SysctlSetting, key string) *Result {
	on := finding.Subject{Key: "net.ipv6.conf.*." + key}
	var lines []fact.SysctlSetting
	for _, x := range set {
		if x.By != bootconf.ByNobody && !x.Exclude && strings.HasPrefix(x.Key, "net/ipv6/conf/") && strings.HasSuffix(x.Key, "/"+key) && strings.TrimSpace(x.Value) == "0" {
			lines = append(lines, x)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	var ev []finding.Evidence
	for _, x := range lines[:min(len(lines), 6)] {
		ev = append(ev, written(x.Origin, sysctlName(x.Key), x.Value))
	}
	fix := []finding.Remediation{
		command("echo 'net.ipv6.conf.*.%s = 0' >> %s", key, dropIn),
		advice("Give an interface that needs %s=1 a line of its own: it wins over the pattern.", key),
	}
	closed := func(o bootconf.Outcome, ok bool) bool { return ok && strings.TrimSpace(o.Value) == "0" }
	// Which interfaces exist at boot: the host's own, else those that files name.
	var names []string
	s := c.primary()
	live := c.Snap.Host.Mode != fact.ModeRoot && s != nil
	if live {
		if g := firstGap(gapOf(s.Links), gapOf(c.Snap.Host.Managers)); g != nil {
			r := unknown(on, *g)
			return &r
		}
		for i := range s.links {
			l := &s.links[i]
			if why, _ := s.hearsNobody(l); why != "" && l.Flags&iffLoopback != 0 || l.Kind != "" { // stacked ones are made later
				continue
			}
			if m := s.managerSets(l, key); m.name != "" && m.doubt == nil {
				continue
			}
			names = append(names, l.Name)
		}
	} else {
		for _, x := range lines {
			n := strings.TrimSuffix(strings.TrimPrefix(x.Key, "net/ipv6/conf/"), "/"+key)
			if n != "all" && n != "default" && n != "lo" && !x.Glob && !strings.Contains(n, "/") {
				names = append(names, n)
			}
		}
		names = sortedUnique(names)
		if len(names) == 0 {
			names = []string{"eth0"}
		}
	}
	var open, late []string
	for _, n := range names {
		o, ok := conf.Sysctl("net/ipv6/conf/" + n + "/" + key)
		switch {
		case closed(o, ok) && o.Certain:
		case closed(o, ok):
			late = append(late, n)
		case ok && o.Via == bootconf.ViaKey && o.Setting.Key == "net/ipv6/conf/"+n+"/"+key:
			// A line of its own says otherwise: meant so.
		default:
			open = append(open, n)
		}
	}
	future := closed(conf.Future("ipv6", key))
	onlyAll := !slices.ContainsFunc(lines, func(x fact.SysctlSetting) bool { return x.Key != "net/ipv6/conf/all/"+key })
	var r Result
	switch {
	case onlyAll:
		r = fail(on, fmt.Sprintf("Boot files set only all.%s, which reaches no interface, existing or new.", key), ev...)
		r.Severity = finding.High
	case len(open) > 0:
		r = fail(on, fmt.Sprintf("No line for %s reaches %s at boot.", key, listing(open, 4)), ev...)
		r.Severity = finding.Medium
	case len(late) > 0 && live:
		r = fail(on, fmt.Sprintf("Only default.%s covers %s, and an interface that exists before systemd-sysctl runs keeps the kernel's own value.", key, listing(late, 4)), ev...)
		r.Severity = finding.Medium
	case len(late) > 0:
		r = fail(on, fmt.Sprintf("Only default.%s is set: an interface that exists before systemd-sysctl runs keeps the kernel's own value.", key), ev...)
		r.Severity = finding.Medium
	case !future:
		r = fail(on, fmt.Sprintf("Existing interfaces are covered, but a new one starts with the kernel's own %s.", key), ev...)
		r.Severity = finding.Low
	default:
		r = pass(on, "Boot files close "+key+" on existing and on new interfaces.", ev...)
		return &r
	}
	if key != "accept_ra" && r.Severity == finding.High {
		r.Severity = finding.Medium
	}
	r.Remediation = fix
	return &r
}

func evalINV10(c *Context) []Result {
	_, set, bad := c.bootFiles(finding.Subject{})
	if bad != nil {
		return one(*bad)
	}
	var out []Result
	for _, x := range set {
		name, ok := bootconf.DottedName(x)
		if !ok || x.By == bootconf.ByNobody {
			continue
		}
		on := finding.Subject{File: x.Origin.File, Key: sysctlName(x.Key), Interface: name}
		if slices.ContainsFunc(out, func(r Result) bool { return r.Subject == on }) {
			continue
		}
		last := x.Key[strings.LastIndexByte(x.Key, '/')+1:]
		r := fail(on, fmt.Sprintf("Line %d was meant for %s and reaches no interface: the dot in the name is read as a separator.", x.Origin.Line, name), written(x.Origin, strings.ReplaceAll(x.Key, "/", "."), x.Value))
		r.Remediation = []finding.Remediation{
			advice("Write it as: net/ipv6/conf/%s/%s = %s", name, last, x.Value),
			command("sysctl -w %s", shellWord("net/ipv6/conf/"+name+"/"+last+"="+x.Value)),
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return one(c.unsure(pass(finding.Subject{}, fmt.Sprintf("Each of the %d lines for network settings names a setting that exists; whether boot applies it is judged by INV-08 and INV-09.", len(set))), true))
	}
	return out
}
