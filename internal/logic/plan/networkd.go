package plan

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// networkdDropin is where drop-ins of a .network file are; the name makes ours the last.
func networkdDropin(networkFile string) string {
	return "/etc/systemd/network/" + base(networkFile) + ".d/zz-sixfence.conf"
}

// networkd are drop-ins of the .network files that own an interface. systemd-networkd
// sets accept_ra=0 by itself and takes RAs from a socket.
func (s *site) networkd(_ []setting, _ reader) []file {
	var d dropins
	d.s = s
	for _, t := range s.tell() {
		mi, doubt := s.toldBy("systemd-networkd", &t.link)
		if mi == nil || !strings.HasSuffix(mi.File, ".network") {
			continue
		}
		if doubt != nil {
			s.undone(t.link.Name, "systemd-networkd", "It may be told by "+mi.File+"; that is not sure: "+doubt.What+".", "run the plan while systemd-networkd runs, or match the interface by name in its .network file")
			continue
		}
		d.add(t, networkdDropin(mi.File), mi.File, s.networkdText(t, mi), whyRA(t, "RA-02"))
	}
	out := d.list()
	var old []string
	for _, m := range s.managers() {
		if m.Name != "systemd-networkd" {
			continue
		}
		for _, i := range m.Interfaces {
			if strings.HasSuffix(i.File, ".network") {
				old = append(old, networkdDropin(i.File))
			}
		}
	}
	return append(out, gone(out, old...)...)
}

func (s *site) networkdText(t told, mi *fact.ManagedInterface) string {
	var b strings.Builder
	b.WriteString("# Written by sixfence from its intent; do not edit.\n[Network]\n")
	if !t.believes() {
		b.WriteString("IPv6AcceptRA=no\n")
		if t.f.Addressing == intent.NoIPv6 {
			b.WriteString("LinkLocalAddressing=" + map[bool]string{true: "ipv4", false: "no"}[mi.LinkLocal4] + "\n")
		}
	} else {
		b.WriteString("IPv6AcceptRA=yes\n")
	}
	if s.in.Role != intent.RoleWorkstation && t.f.Addressing != intent.NoIPv6 {
		b.WriteString("IPv6PrivacyExtensions=no\n")
	}
	if t.believes() {
		b.WriteString("\n[IPv6AcceptRA]\n")
		if t.f.Addressing == intent.DHCPv6 {
			b.WriteString("UseAutonomousPrefix=no\n")
		}
		var routers []string
		var prefixes []netip.Prefix
		every := true
		for _, r := range t.f.Routers {
			if !t.f.believes(r) {
				continue
			}
			routers = append(routers, r.Address.String())
			prefixes = append(prefixes, r.Prefixes...)
			every = every && len(r.Prefixes) > 0
		}
		// An empty line first: lists of other files would be added to.
		if len(routers) > 0 {
			b.WriteString("RouterAllowList=\nRouterAllowList=" + strings.Join(routers, " ") + "\n")
		}
		if every && len(prefixes) > 0 {
			var list []string
			for _, p := range minimal(slices.Clone(prefixes)) {
				list = append(list, p.String())
			}
			b.WriteString("PrefixAllowList=\nPrefixAllowList=" + strings.Join(list, " ") + "\n")
		}
	}
	if t.f.PinGateway && t.f.Addressing != intent.NoIPv6 {
		for _, r := range t.f.Routers {
			if isMAC(r.MAC) {
				b.WriteString("\n[Neighbor]\nAddress=" + r.Address.String() + "\nLinkLayerAddress=" + strings.ToLower(r.MAC) + "\n")
			}
		}
	}
	return b.String()
}
