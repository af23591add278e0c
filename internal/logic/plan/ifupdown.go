package plan

import (
	"fmt"
	"slices"
	"strings"
)

// IfupFile runs after ifupdown has brought an interface up.
const IfupFile = "/etc/network/if-up.d/zz-sixfence"

// ifupdown writes accept_ra and its kin when it brings an interface up: a script that
// runs after it sets ours again, and pins gateways.
func (s *site) ifupdown(settings []setting, _ reader) []file {
	var body strings.Builder
	var why []string
	for _, t := range s.tell() {
		mi, _ := s.toldBy("ifupdown", &t.link)
		if mi == nil || !s.plainName(t) {
			continue
		}
		n := t.link.Name
		why = append(why, t.path)
		fmt.Fprintf(&body, "'%s')\n", n)
		for _, name := range []string{"accept_ra", "autoconf", "accept_ra_pinfo", "accept_ra_defrtr", "use_tempaddr", "disable_ipv6"} {
			if v := valueFor(settings, conf6+n+"/"+name); v != "" {
				fmt.Fprintf(&body, "\tset_key %s %s\n", name, v)
			}
		}
		if t.f.PinGateway {
			for _, r := range t.f.Routers {
				if isMAC(r.MAC) {
					fmt.Fprintf(&body, "\tip -6 neigh replace %s lladdr %s dev \"$IFACE\" nud permanent || :\n", r.Address, strings.ToLower(r.MAC))
				}
			}
		}
		body.WriteString("\t;;\n")
		if mi.AcceptRA.Or(false) && !t.believes() {
			// It writes accept_ra before the link is up, and our script comes after.
			s.undone(n, "ifupdown", fmt.Sprintf("%s:%d lets the kernel take them while the interface comes up, until %s has run.", mi.Origin.File, mi.Origin.Line, IfupFile),
				fmt.Sprintf("in %s, below iface %s inet6: accept_ra 0 (with method auto: change it to manual or static)", mi.Origin.File, n))
		}
	}
	if why == nil {
		return gone(nil, IfupFile)
	}
	slices.Sort(why)
	return []file{{path: IfupFile, text: "#!/bin/sh\n# Written by sixfence from its intent; do not edit. ifupdown writes these keys by itself.\nset_key() {\n\t[ ! -w \"/proc/sys/net/ipv6/conf/$IFACE/$1\" ] || echo \"$2\" >\"/proc/sys/net/ipv6/conf/$IFACE/$1\" || :\n}\ncase \"$IFACE\" in\n" + body.String() + "esac\nexit 0\n", mode: 0o755, why: slices.Compact(why)}}
}
