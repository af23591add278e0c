package plan

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// Where the files are.
const (
	RulesFile    = "/etc/sixfence/firewall.nft"
	ModprobeFile = "/etc/modprobe.d/sixfence.conf"
	UnitFile     = "/etc/systemd/system/" + UnitName
	UnitName     = "sixfence-firewall.service"
	LateFile     = "/etc/systemd/system/" + LateName
	LateName     = "sixfence-sysctl.service"
	IfupFile     = "/etc/network/if-up.d/zz-sixfence"
)

// file is a file to be written.
type file struct {
	path, text string
	mode       uint32
	why        []string
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
# systemd-sysctl: this is after them.
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

// files are those of a site: text is the table's, "" without one.
func (s *site) files(rules string, settings []setting) []file {
	var out []file
	if rules != "" {
		out = append(out, file{RulesFile, rules, 0o600, []string{"firewall"}}, file{UnitFile, unitText, 0o644, []string{"firewall", "FW-32"}})
	}
	if len(settings) > 0 {
		out = append(out, file{SysctlFile, sysctlText(settings), 0o644, []string{"role", "INV-09"}})
		if s.written(settings) {
			out = append(out, file{LateFile, lateText, 0o644, []string{"INV-08"}})
		}
	}
	if m := s.blocked(); len(m) > 0 {
		out = append(out, file{ModprobeFile, modprobeText(m), 0o644, []string{"tunnels", "TUN-03"}})
	}
	if s.ns != nil {
		out = append(out, s.networkd()...)
		out = append(out, s.ifupdown(settings)...)
	}
	return out
}

// written tells whether somebody writes our keys after systemd-sysctl.
func (s *site) written(settings []setting) bool {
	if s.snap == nil {
		return false
	}
	list, _ := s.snap.Host.Files.Sysctl.Get()
	for _, x := range list {
		if x.By != "ufw" && x.By != "procps" {
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

// networkd are drop-ins of the files that own an interface.
func (s *site) networkd() []file {
	want, why := map[string]string{}, map[string][]string{}
	var order []string
	for _, f := range s.ifaces {
		for _, n := range s.present(f) {
			for _, m := range s.managers() {
				if m.Name != "systemd-networkd" {
					continue
				}
				for _, i := range m.Interfaces {
					if !s.covers(i, n) || !strings.HasSuffix(i.Origin.File, ".network") {
						continue
					}
					p := "/etc/systemd/network/" + path.Base(i.Origin.File) + ".d/60-sixfence.conf"
					text := s.networkdText(f)
					if old, ok := want[p]; ok && old != text {
						s.fault("interfaces."+f.key, "give each interface a .network file of its own", "%s and another interface share %s, and want different things", n, i.Origin.File)
						continue
					} else if !ok {
						order = append(order, p)
					}
					want[p] = text
					why[p] = []string{"interfaces." + f.key, "RA-02"}
				}
			}
		}
	}
	var out []file
	for _, p := range order {
		out = append(out, file{p, want[p], 0o644, why[p]})
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

func (s *site) networkdText(f iface) string {
	var b strings.Builder
	b.WriteString("# Written by sixfence from its intent; do not edit.\n[Network]\n")
	believes := f.Addressing == intent.SLAAC || f.Addressing == intent.DHCPv6
	if !believes || disabled(s.in) {
		b.WriteString("IPv6AcceptRA=no\n")
		if f.Addressing == intent.NoIPv6 || disabled(s.in) {
			b.WriteString("LinkLocalAddressing=no\n")
		}
	} else {
		b.WriteString("IPv6AcceptRA=yes\n\n[IPv6AcceptRA]\n")
		var routers []string
		var prefixes []netip.Prefix
		every := true
		for _, r := range f.Routers {
			routers = append(routers, r.Address.String())
			prefixes = append(prefixes, r.Prefixes...)
			every = every && len(r.Prefixes) > 0
		}
		if len(routers) > 0 {
			b.WriteString("RouterAllowList=" + strings.Join(routers, " ") + "\n")
		}
		if every && len(prefixes) > 0 {
			var list []string
			for _, p := range minimal(slices.Clone(prefixes)) {
				list = append(list, p.String())
			}
			b.WriteString("PrefixAllowList=" + strings.Join(list, " ") + "\n")
		}
	}
	if f.PinGateway {
		for _, r := range f.Routers {
			if isMAC(r.MAC) {
				b.WriteString("\n[Neighbor]\nAddress=" + r.Address.String() + "\nLinkLayerAddress=" + strings.ToLower(r.MAC) + "\n")
			}
		}
	}
	return b.String()
}

// ifupdown writes accept_ra and its kin when it brings an interface up: a script that
// runs after it sets ours again, and pins gateways.
func (s *site) ifupdown(settings []setting) []file {
	var body strings.Builder
	var why []string
	for _, f := range s.ifaces {
		for _, n := range s.present(f) {
			owned := slices.ContainsFunc(s.managers(), func(m fact.Manager) bool {
				return m.Name == "ifupdown" && slices.ContainsFunc(m.Interfaces, func(i fact.ManagedInterface) bool { return s.covers(i, n) })
			})
			if !owned || ifNameFault(n) != "" || strings.ContainsAny(n, "'|;&$`()<> ") {
				continue
			}
			why = append(why, "interfaces."+f.key)
			fmt.Fprintf(&body, "'%s')\n", n)
			for _, name := range []string{"accept_ra", "autoconf", "accept_ra_pinfo", "accept_ra_defrtr", "use_tempaddr", "disable_ipv6"} {
				if v := valueFor(settings, conf6+n+"/"+name); v != "" {
					fmt.Fprintf(&body, "\tset_key %s %s\n", name, v)
				}
			}
			if f.PinGateway {
				for _, r := range f.Routers {
					if isMAC(r.MAC) {
						fmt.Fprintf(&body, "\tip -6 neigh replace %s lladdr %s dev \"$IFACE\" nud permanent || :\n", r.Address, strings.ToLower(r.MAC))
					}
				}
			}
			body.WriteString("\t;;\n")
		}
	}
	if why == nil {
		return nil
	}
	slices.Sort(why)
	return []file{{IfupFile, "#!/bin/sh\n# Written by sixfence from its intent; do not edit. ifupdown writes these keys by itself.\nset_key() {\n\t[ ! -w \"/proc/sys/net/ipv6/conf/$IFACE/$1\" ] || echo \"$2\" >\"/proc/sys/net/ipv6/conf/$IFACE/$1\" || :\n}\ncase \"$IFACE\" in\n" + body.String() + "esac\nexit 0\n", 0o755, slices.Compact(why)}}
}
