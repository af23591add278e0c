package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/intent"
)

// NetplanFile is merged after the files of others: netplan goes by name.
const NetplanFile = "/etc/netplan/zz-sixfence.yaml"

// netplan adds to the definitions that others wrote. What netplan has no word for
// (allowed routers) its renderer is told.
func (s *site) netplan(_ []setting, _ reader) []file {
	type entry struct{ section, id, text string }
	var list []entry
	var why []string
	for _, t := range s.tell() {
		mi, doubt := s.toldBy("netplan", &t.link)
		if mi == nil {
			continue
		}
		section, id, ok := strings.Cut(mi.Definition, "/")
		if doubt != nil || !ok {
			s.undone(t.link.Name, "netplan", "Which definition is its is not sure.", "netplan set ethernets.ID.accept-ra=false (of "+t.link.Name+")")
			continue
		}
		if fault := netplanIDFault(id); fault != "" {
			s.fault(t.path, "rename the definition in "+mi.File, "netplan's name %q %s", id, fault)
			continue
		}
		var b strings.Builder
		word := func(key string, on bool) { fmt.Fprintf(&b, "      %s: %t\n", key, on) }
		word("accept-ra", t.believes())
		if !t.believes() {
			word("dhcp6", false) // NetworkManager as a renderer believes RAs with it
		}
		if s.in.Role != intent.RoleWorkstation {
			word("ipv6-privacy", false)
		}
		if t.f.Addressing == intent.NoIPv6 {
			b.WriteString("      link-local: " + map[bool]string{true: "[\"ipv4\"]", false: "[]"}[mi.LinkLocal4] + "\n")
		}
		e := entry{section, id, b.String()}
		if i := slices.IndexFunc(list, func(x entry) bool { return x.section == section && x.id == id }); i >= 0 {
			if list[i] != e {
				s.fault(t.path, "give each interface a definition of its own in netplan", "%s and another interface share %s of %s, and want different things", t.link.Name, mi.Definition, mi.File)
			}
			continue
		}
		list = append(list, e)
		why = append(why, whyRA(t, "RA-03")...)
	}
	if len(list) == 0 {
		return gone(nil, NetplanFile)
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.section+"/"+a.id, b.section+"/"+b.id) })
	var b strings.Builder
	b.WriteString("# Written by sixfence from its intent; do not edit. It adds to what other files define.\nnetwork:\n  version: 2\n")
	for i, e := range list {
		if i == 0 || list[i-1].section != e.section {
			b.WriteString("  " + e.section + ":\n")
		}
		b.WriteString("    \"" + e.id + "\":\n" + e.text)
	}
	return []file{{path: NetplanFile, text: b.String(), mode: 0o600, why: sortedUnique(why)}}
}

// netplanIDFault says why a name of netplan's cannot be written.
func netplanIDFault(id string) string {
	switch {
	case id == "":
		return "is empty"
	case len(id) >= 64:
		return "is too long"
	case strings.ContainsAny(id, "\"\\") || strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' }):
		return "has a character that is not written between quotes"
	}
	return ""
}
