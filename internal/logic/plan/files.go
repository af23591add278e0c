package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/bootconf"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// Where the files are.
const (
	RulesFile    = "/etc/sixfence/firewall.nft"
	ModprobeFile = "/etc/modprobe.d/00-sixfence.conf" // the first install line of a module counts
	UnitFile     = "/etc/systemd/system/" + UnitName
	UnitName     = "sixfence-firewall.service"
	LateFile     = "/etc/systemd/system/" + LateName
	LateName     = "sixfence-sysctl.service"
	KeepFile     = "/etc/systemd/system/" + KeepName
	KeepName     = "sixfence-keep.service"
)

// file is a file to be written.
type file struct {
	path, text string
	mode       uint32
	why        []string
	edit       bool // somebody else's, which keeps its mode and owner
	gone       bool // it must not be there
}

// tunnelModules are the modules that a mechanism needs. tunnel6 and xfrm are left
// alone: IPsec needs them.
var tunnelModules = map[string][]string{
	"sit": {"6in4", "6to4", "6rd", "isatap"}, "ipip": {"ipip"}, "ip_gre": {"gre"}, "ip6_gre": {"ip6gre"}, "ip6_tunnel": {"ip6tnl", "ip6gre", "vti6"},
	"ip_vti": {"vti"}, "ip6_vti": {"vti6"}, "fou": {"fou", "gue"}, "fou6": {"fou", "gue"}, "l2tp_ip": {"l2tp"}, "l2tp_ip6": {"l2tp"},
	"vxlan": {"vxlan"}, "geneve": {"geneve"}, "bareudp": nil, "amt": nil, "gtp": nil,
}

// blocked are the modules that must not load, sorted.
func (s *site) blocked() []string {
	if s.in.Tunnels.Policy == intent.TunnelsAllow {
		return nil
	}
	used := map[string]bool{}
	for _, t := range s.in.Tunnels.List {
		used[t.Mechanism] = true
	}
	if s.in.Role == intent.RoleKubernetesNode || s.in.Role == intent.RoleHypervisor || s.containers() {
		used["vxlan"], used["geneve"], used["ipip"] = true, true, true // what overlay networks are made of
	}
	var out []string
	for m, by := range tunnelModules {
		if !slices.ContainsFunc(by, func(t string) bool { return used[t] }) {
			out = append(out, m)
		}
	}
	slices.Sort(out)
	return out
}

func modprobeText(modules []string) string {
	var b strings.Builder
	b.WriteString("# Written by sixfence from its intent (tunnels); do not edit. blacklist stops loading by\n# alias, install by name and as a dependency, with an error instead of silence.\n")
	for _, m := range modules {
		fmt.Fprintf(&b, "install %s /bin/false\nblacklist %s\n", m, m)
	}
	return b.String()
}

const unitText = `# Written by sixfence; do not edit.
[Unit]
Description=sixfence packet filter
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
# nftables.service flushes every table when it starts or reloads: be later, and with it
# again.
After=local-fs.target systemd-modules-load.service nftables.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service

[Service]
Type=oneshot
RemainAfterExit=yes
# Rules that are in force stay: they know the connections that were open before them.
ExecStart=/bin/sh -c '/usr/sbin/nft list table ` + Table + ` >/dev/null 2>&1 || exec /usr/sbin/nft -f ` + RulesFile + `'
ExecReload=/usr/sbin/nft -f ` + RulesFile + `

[Install]
WantedBy=sysinit.target
`

const lateText = `# Written by sixfence; do not edit. ufw and procps write settings of their own after
# systemd-sysctl, and a file may come after ours: this is after them.
[Unit]
Description=sixfence kernel settings, after others have written theirs
After=systemd-sysctl.service procps.service ufw.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/systemd/systemd-sysctl ` + SysctlFile + `

[Install]
WantedBy=multi-user.target
`

// keepText is the unit that restores what others undo. It has no mount namespace of its
// own: it would not be the host's.
const keepText = `# Written by sixfence from its intent (drift: restore); do not edit.
[Unit]
Description=sixfence: restore what others undo
After=sixfence-firewall.service systemd-sysctl.service sixfence-sysctl.service network.target
ConditionFileIsExecutable=%[1]s
StartLimitIntervalSec=0

[Service]
ExecStart=%[1]s harden keep
Restart=always
RestartSec=1
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes

[Install]
WantedBy=multi-user.target
`

// keep is the unit that restores, where the intent wants that.
func (s *site) keep(program string) []file {
	if s.in.Drift != intent.DriftRestore {
		return nil
	}
	if program == "" {
		program = "/usr/bin/sixfence"
	}
	if !path.IsAbs(program) || strings.ContainsFunc(program, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("%\"'\\$;", r) }) {
		s.fault("drift", "install sixfence in /usr/local/bin", "the path of this program, %q, has a character that a unit cannot name", program)
		return nil
	}
	return []file{{path: KeepFile, text: fmt.Sprintf(keepText, program), mode: 0o644, why: []string{"drift"}}}
}

// files are those of a site: text is the table's, "" without one.
func (s *site) files(rules string, settings []setting, read reader) []file {
	var out []file
	if rules != "" {
		out = append(out, file{path: RulesFile, text: rules, mode: 0o600, why: []string{"firewall"}}, file{path: UnitFile, text: unitText, mode: 0o644, why: []string{"firewall", "FW-32"}})
	}
	if len(settings) > 0 {
		out = append(out, file{path: SysctlFile, text: sysctlText(settings), mode: 0o644, why: []string{"role", "INV-09"}})
		if s.written(settings) {
			out = append(out, file{path: LateFile, text: lateText, mode: 0o644, why: []string{"INV-08"}})
		}
	}
	if m := s.blocked(); len(m) > 0 {
		out = append(out, file{path: ModprobeFile, text: modprobeText(m), mode: 0o644, why: []string{"tunnels", "TUN-03"}})
	}
	if s.ns != nil {
		out = append(out, s.byManagers(settings, read)...)
	}
	return out
}

// written tells whether somebody writes our keys after systemd-sysctl has read our file.
func (s *site) written(settings []setting) bool {
	if s.snap == nil {
		return false
	}
	if len(s.readLater(settings)) > 0 {
		return true
	}
	list, _ := s.snap.Host.Files.Sysctl.Get()
	for _, x := range list {
		if x.By != bootconf.ByUFW && x.By != bootconf.ByProcps {
			continue
		}
		for _, o := range settings {
			_, mine, _ := strings.Cut(o.key, conf6)
			_, theirs, _ := strings.Cut(x.Key, conf6)
			if path.Base(mine) == path.Base(theirs) && o.value != x.Value && mine != "" && theirs != "" {
				return true
			}
		}
	}
	return false
}

// contradicts tells whether a line of another's wants another value than ours.
func contradicts(settings []setting, x fact.SysctlSetting) bool {
	v := valueFor(settings, x.Key)
	return v != "" && v != x.Value && !x.Exclude
}

// readLater are the lines of files that systemd-sysctl reads after ours, and that want
// something else.
func (s *site) readLater(settings []setting) (out []fact.SysctlSetting) {
	list, _ := s.snap.Host.Files.Sysctl.Get()
	for _, x := range list {
		if x.By == bootconf.BySystemd && path.Base(x.Origin.File) > path.Base(SysctlFile) && contradicts(settings, x) {
			out = append(out, x)
		}
	}
	return out
}

// readByHand are the lines of /etc/sysctl.conf, which sysctl(8) --system reads last, that
// want something else.
func (s *site) readByHand(settings []setting) (out []fact.SysctlSetting) {
	list, _ := s.snap.Host.Files.Sysctl.Get()
	for _, x := range list {
		if (x.Origin.File == "/etc/sysctl.conf" || x.Origin.File == "/etc/sysctl.d/99-sysctl.conf") && contradicts(settings, x) {
			out = append(out, x)
		}
	}
	return out
}

// present are the interfaces that are there and that an entry selects.
func (s *site) present(f iface) []string {
	var out []string
	links, _ := s.ns.Links.Get()
	for _, l := range links {
		if s.sel.Keys[l.Name] == f.key {
			out = append(out, l.Name)
		}
	}
	return out
}
