package manager

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// dhcpcdFiles is dhcpcd's one file. Its command line can change everything and is
// not read.
type dhcpcdFiles struct{ conf confd.File }

func readDHCPCD(t *tree.Tree, b *confd.Budget) source {
	return &dhcpcdFiles{conf: b.Read(t, "/etc/dhcpcd.conf")}
}

func (d *dhcpcdFiles) present() bool { return d.conf.Content.State() != fact.StateAbsent }

// dhcpcdOptions are the options that matter, after dhcpcd's own defaults.
type dhcpcdOptions struct {
	ipv6, rs, dhcp6, autoconf, gateway, resolv bool
	set                                        bool // a line decided about RAs
	slaac                                      string
	temporary                                  bool
	addresses                                  []netip.Prefix
	origin                                     fact.Origin
}

func (d *dhcpcdFiles) decode(m *fact.Manager) {
	b, ok := d.conf.Content.Get()
	if g, gap := d.conf.Content.Gap(); gap {
		m.Gaps = append(m.Gaps, g)
		m.Interfaces = append(m.Interfaces, fact.ManagedInterface{Names: []string{"*"}, InUserspace: true, AcceptRA: fact.Missing[bool](g), Origin: fact.Origin{File: d.conf.Path}})
		return
	}
	if !ok {
		b = nil // without a file the defaults hold
	}
	type line struct {
		option, value string
		number        int
	}
	var global []line
	blocks := map[string][]line{}
	var order, allow, deny []string
	inBlock, foreign := "", false
	for _, l := range confd.Lines(b, false) {
		s := strings.Trim(l.Text, " \t")
		if s == "" || s[0] == '#' || s[0] == ';' {
			continue
		}
		option, value, _ := strings.Cut(strings.ReplaceAll(s, "\t", " "), " ")
		value = strings.Trim(value, " \t")
		switch option {
		case "interface":
			inBlock, foreign = value, false
			if _, ok := blocks[value]; !ok && len(order) < maxInterfaces {
				order = append(order, value)
				blocks[value] = []line{}
			}
			continue
		case "ssid", "profile", "arping":
			// What follows holds for one network only, which no file tells.
			foreign = option != "arping"
			continue
		case "allowinterfaces":
			allow = append(allow, patterns(value)...)
			continue
		case "denyinterfaces":
			deny = append(deny, patterns(value)...)
			continue
		}
		if !dhcpcdRelevant(option) {
			continue
		}
		switch ln := (line{option, value, l.Number}); {
		case foreign:
			m.Gaps = append(m.Gaps, fact.Gap{Reason: fact.NotCollected, What: "which profile of " + d.conf.Path + " is in use"})
		case inBlock != "":
			if len(blocks[inBlock]) < maxEntries {
				blocks[inBlock] = append(blocks[inBlock], ln)
			}
		default:
			global = append(global, ln)
		}
	}
	effective := func(lines ...[]line) dhcpcdOptions {
		o := dhcpcdOptions{ipv6: true, rs: true, dhcp6: true, autoconf: true, gateway: true, resolv: true, origin: fact.Origin{File: d.conf.Path}}
		for _, ls := range lines {
			for _, l := range ls {
				o.apply(l.option, l.value, fact.Origin{File: d.conf.Path, Line: l.number})
			}
		}
		return o
	}
	untouched := func(mi fact.ManagedInterface) {
		mi.AcceptRA, mi.AcceptRASet, mi.Origin = fact.Value(false), true, fact.Origin{File: d.conf.Path}
		m.Interfaces = append(m.Interfaces, mi)
	}
	if len(deny) > 0 {
		untouched(fact.ManagedInterface{Names: deny})
	}
	for _, name := range order {
		if name == "" {
			continue
		}
		if len(allow) > 0 && !slices.ContainsFunc(allow, func(p string) bool { return glob(p, name) }) {
			untouched(fact.ManagedInterface{Names: []string{name}})
			continue
		}
		lines := [][]line{global}
		for _, other := range order { // a later version takes patterns here
			if other == name || other != "" && glob(other, name) {
				lines = append(lines, blocks[other])
			}
		}
		m.Interfaces = append(m.Interfaces, effective(lines...).managed([]string{name}))
	}
	names := []string{"*"}
	if len(allow) > 0 {
		names = allow
	} else {
		// if_ignore of if-linux.c: virtual interfaces are left alone unless asked for.
		untouched(fact.ManagedInterface{Names: []string{"*"}, Match: []string{"Kind=bridge tun"}})
	}
	m.Interfaces = append(m.Interfaces, effective(global).managed(names))
}

// patterns splits a list of interface patterns.
func patterns(s string) []string {
	f := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' })
	if len(f) > maxList {
		f = f[:maxList]
	}
	return f
}

func dhcpcdRelevant(option string) bool {
	switch option {
	case "noipv6", "ipv6", "ipv4only", "ipv6only", "noipv6rs", "ipv6rs", "ipv6ra_autoconf", "ipv6ra_noautoconf", "nodhcp6", "dhcp6", "nogateway", "gateway", "slaac", "nohook", "static":
		return true
	}
	return false
}

func (o *dhcpcdOptions) apply(option, value string, at fact.Origin) {
	decide := func() { o.set, o.origin = true, at }
	switch option {
	case "noipv6", "ipv4only":
		o.ipv6 = false
		decide()
	case "ipv6", "ipv6only":
		o.ipv6 = true
	case "noipv6rs":
		o.rs = false
		decide()
	case "ipv6rs":
		o.rs = true
		decide()
	case "ipv6ra_autoconf":
		o.autoconf = true
	case "ipv6ra_noautoconf":
		o.autoconf = false
	case "nodhcp6":
		o.dhcp6 = false
	case "dhcp6":
		o.dhcp6 = true
	case "nogateway":
		o.gateway = false
	case "gateway":
		o.gateway = true
	case "nohook":
		if slices.ContainsFunc(patterns(value), func(h string) bool { return strings.Contains(h, "resolv.conf") }) {
			o.resolv = false
		}
	case "slaac":
		for _, w := range strings.Fields(value) {
			switch w {
			case "private", "hwaddr":
				o.slaac = w
			case "temp", "temporary":
				o.temporary = true
			}
		}
	case "static":
		if v, ok := strings.CutPrefix(value, "ip6_address="); ok && len(o.addresses) < maxList {
			if p, err := netip.ParsePrefix(strings.Trim(v, `"`)); err == nil {
				o.addresses = append(o.addresses, p)
			}
		}
	}
}

func (o dhcpcdOptions) managed(names []string) fact.ManagedInterface {
	accept := o.ipv6 && o.rs
	mi := fact.ManagedInterface{
		Names: names, AcceptRA: fact.Value(accept), AcceptRASet: o.set, InUserspace: true,
		UseDNS: fact.Value(o.resolv), UseGateway: fact.Value(o.gateway), UseAutonomousPrefix: fact.Value(o.autoconf),
		SendRA: fact.Value(false), DHCPv6: fact.Value(accept && o.dhcp6), Use6RD: fact.Value(false),
		Addresses: o.addresses, AddrGen: fact.Value("hwaddr"), PrivacyExtensions: fact.Value("no"), Origin: o.origin,
	}
	if o.slaac != "" {
		mi.AddrGen = fact.Value(o.slaac)
	}
	if o.temporary {
		mi.PrivacyExtensions = fact.Value("yes")
	}
	return mi
}
