package plan

import (
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/sixfence/sixfence/internal/logic/bootconf"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// SysctlFile is read after every other file of sysctl.d.
const SysctlFile = "/etc/sysctl.d/99-zz-sixfence.conf"

const conf6 = "net/ipv6/conf/"

// setting is a line of the sysctl file: for every key that matches, the last one counts.
type setting struct {
	key, value string
	why        []string
}

// all but "all" and "lo", in patterns that know no exception: where what is written to
// "all" is copied to every interface, it must not be written in passing (RB-05).
var othersThanAllAndLo = []string{"[!al]*", "[a]", "a[!l]*", "a[l]", "al[!l]*", "all?*", "[l]", "l[!o]*", "lo?*"}

// settings are the lines, the general ones first: an explicit line beats a pattern where
// systemd-sysctl reads them, the later line where procps does.
func (s *site) settings() []setting {
	var out []setting
	every := func(name, value string, why ...string) {
		// For systemd-sysctl a line that names a key beats every pattern: ours for the
		// default stands against those of others.
		out = append(out, setting{conf6 + "*/" + name, value, why}, setting{conf6 + "default/" + name, value, why})
	}
	if disabled(s.in) {
		for _, p := range othersThanAllAndLo {
			out = append(out, setting{conf6 + p + "/disable_ipv6", "1", []string{"families", "INV-03"}})
		}
		if s.in.Families == intent.Disabled {
			out = append(out, setting{conf6 + "lo/disable_ipv6", "1", []string{"families", "INV-03"}})
		}
		every("accept_ra", "0", "families", "SYSCTL-RA-01")
		return s.further(out)
	}
	every("accept_ra", "0", "interfaces", "SYSCTL-RA-01")
	every("accept_ra_defrtr", "0", "interfaces", "SYSCTL-RA-05")
	every("accept_ra_pinfo", "0", "interfaces", "SYSCTL-RA-06")
	every("accept_ra_rtr_pref", "0", "interfaces", "SYSCTL-RA-07")
	every("accept_ra_rt_info_max_plen", "0", "interfaces", "SYSCTL-RA-08")
	every("accept_ra_min_hop_limit", "64", "interfaces", "SYSCTL-RA-10")
	every("autoconf", "0", "interfaces", "SYSCTL-RA-06")
	every("router_solicitations", "0", "interfaces", "SYSCTL-RA-13")
	every("max_addresses", "16", "role", "SYSCTL-RA-14")
	every("accept_redirects", "0", "role", "SYSCTL-RED-01")
	every("accept_source_route", "0", "role", "SYSCTL-SR-01")
	every("seg6_enabled", "0", "role", "SYSCTL-SR-02")
	every("suppress_frag_ndisc", "1", "role", "SYSCTL-ND-01")
	every("drop_unicast_in_l2_multicast", "1", "role", "SYSCTL-ND-04")
	if s.in.Role != intent.RoleRouter {
		every("accept_untracked_na", "0", "role", "SYSCTL-ND-03")
	}
	if s.in.Role != intent.RoleWorkstation {
		every("use_tempaddr", "0", "role", "SYSCTL-ADDR-01")
		out = append(out, setting{"net/ipv6/icmp/echo_ignore_multicast", "1", []string{"role", "SYSCTL-ICMP-02"}},
			setting{"net/ipv6/icmp/echo_ignore_anycast", "1", []string{"role", "SYSCTL-ICMP-02"}})
	}
	if v, why := s.forwards(false); v != "" {
		out = append(out, setting{conf6 + "all/forwarding", v, why})
		if v == "0" {
			every("force_forwarding", "0", append(why, "SYSCTL-FWD-03")...)
		}
	}
	if v, why := s.forwards(true); v != "" {
		out = append(out, setting{"net/ipv4/ip_forward", v, why})
	}
	// The more specific entries come later, and win.
	for _, f := range slices.Backward(s.ifaces) {
		why := []string{"interfaces." + f.key + ".addressing"}
		for _, n := range f.names {
			one := func(name, value string) { out = append(out, setting{conf6 + n + "/" + name, value, why}) }
			if f.Addressing != intent.NoIPv6 {
				one("disable_ipv6", "0")
			}
			switch f.Addressing {
			case intent.NoIPv6:
				one("disable_ipv6", "1")
			case intent.SLAAC, intent.DHCPv6:
				accept := "1"
				switch {
				case s.userspace(n):
					accept = "0" // who manages it listens by itself, and switches the kernel off
				case s.mayForward():
					accept = "2"
				}
				one("accept_ra", accept)
				one("accept_ra_defrtr", "1")
				one("accept_ra_pinfo", "1")
				one("autoconf", map[bool]string{true: "1", false: "0"}[f.Addressing == intent.SLAAC])
				one("router_solicitations", "-1")
				if len(f.Routers) > 1 {
					one("accept_ra_rtr_pref", "1")
				}
			default:
				if len(s.ifaces) > 1 { // a less specific entry may say otherwise
					for _, x := range [][2]string{{"accept_ra", "0"}, {"accept_ra_defrtr", "0"}, {"accept_ra_pinfo", "0"}, {"autoconf", "0"}, {"router_solicitations", "0"}} {
						one(x[0], x[1])
					}
				}
			}
		}
	}
	return s.further(out)
}

// further adds what the intent names by key.
func (s *site) further(out []setting) []setting {
	for _, k := range slices.Sorted(maps.Keys(s.in.Sysctls)) {
		v := s.in.Sysctls[k]
		key := sysctlPath(k)
		if why := sysctlFault(key, v); why != "" {
			s.fault("sysctls."+k, "write net/ipv6/conf/eth0/accept_ra: 0", "the setting %s", why)
			continue
		}
		out = append(out, setting{key, v, []string{"sysctls." + k}})
	}
	return s.against(out)
}

// against adds lines that name a key where another file names it, with another value:
// for systemd-sysctl a line that names a key beats every pattern.
func (s *site) against(out []setting) []setting {
	if s.snap == nil {
		return out
	}
	named := map[string]bool{}
	for _, x := range out {
		named[x.key] = true
	}
	list, _ := s.snap.Host.Files.Sysctl.Get()
	for _, x := range list {
		v := valueFor(out, x.Key)
		if x.By != bootconf.BySystemd || x.Glob || v == "" || v == x.Value || named[x.Key] || x.Origin.File == SysctlFile || sysctlFault(x.Key, v) != "" {
			continue
		}
		named[x.Key] = true
		out = append(out, setting{x.Key, v, []string{"INV-08", x.Origin.File}})
	}
	return out
}

// sysctlPath is a key as a path: systemd-sysctl's rule about the first separator.
func sysctlPath(k string) string {
	if i := strings.IndexAny(k, "./"); i >= 0 && k[i] == '.' {
		return strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, k)
	}
	return k
}

// sysctlFault says why a setting cannot be a line of the file.
func sysctlFault(key, value string) string {
	bad := func(t string) bool {
		return strings.ContainsFunc(t, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd })
	}
	switch {
	case !strings.Contains(key, "/") || strings.HasPrefix(key, "/") || strings.Contains(key, "..") || strings.ContainsAny(key, "=#;") || strings.ContainsFunc(key, unicode.IsSpace) || strings.HasPrefix(key, "-") || bad(key):
		return "has a name that is no path below /proc/sys"
	case value == "" || value != strings.TrimSpace(value) || bad(value):
		return "has a value that a line cannot carry"
	}
	return ""
}

// forwards is what the forwarding switch of a family is to be; "" leaves it.
func (s *site) forwards(v4 bool) (string, []string) {
	want, name := s.in.Forwarding.IPv6, "forwarding.ipv6"
	if v4 {
		want, name = s.in.Forwarding.IPv4, "forwarding.ipv4"
		if on, _ := manages(s.in); !on {
			return "", nil
		}
	}
	switch {
	case want != nil && *want:
		return "1", []string{name}
	case want != nil:
		return "0", []string{name}
	case s.in.Role == intent.RoleRouter:
		return "1", []string{"role", "SYSCTL-FWD-01"}
	case s.in.Role == intent.RoleServer && !s.containers():
		return "0", []string{"role", "SYSCTL-FWD-01"}
	}
	return "", nil
}

// containers tells whether something here needs forwarding that the intent does not
// know of.
func (s *site) containers() bool {
	if s.snap == nil {
		return false
	}
	r := s.snap.Host.Runtimes
	d, _ := r.Docker.Get()
	l, _ := r.Libvirt.Get()
	k, _ := r.Kubelet.Get()
	return d.Running || d.Containers > 0 || l.Running || l.Guests > 0 || k.Running || len(s.bridges) > 0
}

// mayForward tells whether the kernel is, or may become, a router for IPv6: it then
// believes RAs with accept_ra=2 only.
func (s *site) mayForward() bool {
	if v, _ := s.forwards(false); v != "" {
		return v == "1"
	}
	if s.in.Role != intent.RoleServer && s.in.Role != intent.RoleWorkstation {
		return true
	}
	if s.ns != nil {
		v, _ := s.ns.Sysctls.Get()
		on, _ := v.Get(conf6 + "all/forwarding").Get()
		return on == "1"
	}
	return false
}

// userspace tells whether a network manager takes the RAs of an interface by itself. One
// that is not known to run does not while the kernel does: it would have switched that off,
// and doing so for it loses the addresses and the route that are there.
func (s *site) userspace(name string) bool {
	var now fact.Sysctls
	if s.ns != nil {
		now, _ = s.ns.Sysctls.Get()
	}
	for _, m := range s.managers() {
		if !works(&m) {
			continue
		}
		runs := m.Running.Or(false)
		for _, l := range s.linksOf(name) {
			mi, _ := m.For(&l)
			if accept, known := now.Get(conf6 + l.Name + "/accept_ra").Get(); mi != nil && mi.InUserspace && (runs || !known || accept == "0") {
				return true
			}
		}
	}
	return false
}

func (s *site) managers() []fact.Manager {
	if s.snap == nil {
		return nil
	}
	var out []fact.Manager
	ms, _ := s.snap.Host.Managers.Get()
	for _, m := range ms {
		if m.NetNS == (fact.NamespaceID{}) || s.ns == nil || m.NetNS == s.ns.ID {
			out = append(out, m)
		}
	}
	return out
}

// linksOf are the interfaces that a pattern of ours means.
func (s *site) linksOf(pattern string) (out []fact.Link) {
	if s.ns == nil {
		return nil
	}
	links, _ := s.ns.Links.Get()
	for _, l := range links {
		if matchesPattern(pattern, l.Name) {
			out = append(out, l)
		}
	}
	return out
}

// sysctlText is the file.
func sysctlText(list []setting) string {
	var b strings.Builder
	b.WriteString("# Written by sixfence from its intent; do not edit. Patterns reach interfaces that come\n# later; a line for one interface stands after the pattern that it is an exception of.\n")
	last := ""
	for _, x := range list {
		if w := strings.Join(x.why, ", "); w != last {
			b.WriteString("\n# " + oneLine(w) + "\n")
			last = w
		}
		// "-": a kernel that lacks a key is no failure.
		b.WriteString("-" + x.key + " = " + x.value + "\n")
	}
	return b.String()
}

// plainSysctls is the file for a host without systemd. busybox' sysctl, and procps before
// version 4, know no patterns, and busybox takes the "-" for a part of the name: what the
// patterns mean of the interfaces that the intent names is written out.
func (b *builder) plainSysctls(text string) string {
	text = strings.ReplaceAll("\n"+text, "\n-", "\n")[1:]
	list := parseSysctls(text)
	now, _ := b.ns.Sysctls.Get()
	var more strings.Builder
	for _, k := range slices.Sorted(maps.Keys(now.Values)) {
		rest, of := strings.CutPrefix(k, conf6)
		name, _, _ := strings.Cut(rest, "/")
		if !of || name != "all" && name != "lo" && b.sel.Keys[name] == "" || slices.ContainsFunc(list, func(x setting) bool { return x.key == k }) {
			continue
		}
		if v := valueFor(list, k); v != "" {
			more.WriteString(k + " = " + v + "\n")
		}
	}
	if more.Len() > 0 {
		text += "\n# the same, for a sysctl that knows no patterns\n" + more.String()
	}
	return text
}

// parseSysctls reads what sysctlText writes, as systemd-sysctl reads it.
func parseSysctls(text string) (out []setting) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		k, v, _ := strings.Cut(line, "=")
		out = append(out, setting{key: sysctlPath(strings.TrimSpace(strings.TrimPrefix(k, "-"))), value: strings.TrimSpace(v)})
	}
	return out
}

func oneLine(t string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, t)
}

// live are the steps that change keys as they are now.
func (s *site) live(list []setting) (steps []change.Step, gap *fact.Gap) {
	now, ok := s.ns.Sysctls.Get()
	if !ok {
		g, _ := s.ns.Sysctls.Gap()
		return nil, &fact.Gap{Reason: g.Reason, What: "sysctls of " + s.ns.Name}
	}
	want := map[string]setting{}
	exact := map[string]bool{}
	for _, x := range list {
		if !bootconf.IsGlob(x.key) {
			want[x.key], exact[x.key] = x, true
			continue
		}
		for k := range now.Values {
			if !exact[k] && bootconf.Match(x.key, k) {
				want[k] = x
			}
		}
	}
	keys := slices.Sorted(maps.Keys(want))
	// Forwarding after what RAs need to survive it; disabling last.
	slices.SortStableFunc(keys, func(a, b string) int { return weight(a) - weight(b) })
	for _, k := range keys {
		old, there := now.Values[k]
		if !there || old == want[k].value {
			continue
		}
		st := change.Step{ID: "sysctl:" + k, Kind: change.Sysctl, Phase: change.Runtime, Target: k, Before: change.Image{Text: old}, After: change.Image{Text: want[k].value}, Why: want[k].why}
		switch {
		case strings.HasSuffix(k, "/disable_ipv6") && want[k].value == "1":
			st.Destroys = s.destroyed(strings.TrimSuffix(strings.TrimPrefix(k, conf6), "/disable_ipv6"))
		case k == conf6+"all/forwarding":
			// The kernel copies it to every interface, and to the default.
			for _, o := range slices.Sorted(maps.Keys(now.Values)) {
				if strings.HasPrefix(o, conf6) && strings.HasSuffix(o, "/forwarding") && o != k && now.Values[o] != want[k].value {
					st.Destroys = append(st.Destroys, change.Object{Kind: change.Sysctl, Target: o, Attributes: []string{now.Values[o]}})
				}
			}
		}
		steps = append(steps, st)
	}
	return steps, nil
}

// enabled are the steps that switch IPv6 on again where an earlier intent of ours had
// it off, and this one does not say: nothing else would, before a reboot.
func (b *builder) enabled(settings []setting) (steps []change.Step) {
	old := parseSysctls(b.read(SysctlFile).Text)
	now, _ := b.ns.Sysctls.Get()
	for _, k := range slices.Sorted(maps.Keys(now.Values)) {
		if strings.HasPrefix(k, conf6) && strings.HasSuffix(k, "/disable_ipv6") && k != conf6+"all/disable_ipv6" && now.Values[k] == "1" && valueFor(old, k) == "1" && valueFor(settings, k) == "" {
			steps = append(steps, change.Step{ID: "sysctl:" + k, Kind: change.Sysctl, Phase: change.Runtime, Target: k, Before: change.Image{Text: "1"}, After: change.Image{Text: "0"}, Why: []string{"families"}})
		}
	}
	return steps
}

func weight(key string) int {
	switch {
	case strings.HasSuffix(key, "/disable_ipv6"):
		return 3
	case strings.HasSuffix(key, "forwarding"), key == "net/ipv4/ip_forward":
		return 2
	case strings.HasSuffix(key, "/accept_ra"):
		return 1
	}
	return 0
}

// valueFor is what the lines say about a key; "" when none does.
func valueFor(list []setting, key string) string {
	out, exact := "", false
	for _, x := range list {
		switch {
		case x.key == key:
			out, exact = x.value, true
		case !exact && bootconf.IsGlob(x.key) && bootconf.Match(x.key, key):
			out = x.value
		}
	}
	return out
}
