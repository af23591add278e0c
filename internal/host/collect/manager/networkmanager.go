package manager

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// nmFiles are NetworkManager's keyfiles, RHEL's ifcfg files and NetworkManager.conf.
type nmFiles struct {
	profiles []confd.File
	ifcfg    []confd.File
	conf     []confd.File // in order, later overrides
	gaps     []fact.Gap
}

func readNM(t *tree.Tree, b *confd.Budget) source {
	n := &nmFiles{}
	// Keyfiles in /etc may have any name.
	for _, q := range []confd.Query{
		{Dirs: []string{"/etc/NetworkManager/system-connections"}},
		{Dirs: []string{"/run/NetworkManager/system-connections", "/usr/lib/NetworkManager/system-connections"}, Suffix: ".nmconnection"},
	} {
		files, gaps := b.Gather(t, q)
		n.profiles, n.gaps = append(n.profiles, files...), append(n.gaps, gaps...)
	}
	names, gaps := confd.Names(t, confd.Query{Dirs: []string{"/etc/sysconfig/network-scripts"}})
	n.gaps = append(n.gaps, gaps...)
	for _, f := range names {
		if strings.HasPrefix(f.Name, "ifcfg-") && f.Name != "ifcfg-lo" && !strings.HasSuffix(f.Name, "~") {
			n.ifcfg = append(n.ifcfg, b.Read(t, f.Path))
		}
	}
	vendor, gaps := b.Gather(t, confd.Query{Dirs: []string{"/etc/NetworkManager/conf.d", "/run/NetworkManager/conf.d", "/usr/lib/NetworkManager/conf.d"}, Suffix: ".conf"})
	n.gaps = append(n.gaps, gaps...)
	var etc []confd.File
	for _, f := range vendor {
		if strings.HasPrefix(f.Path, "/etc/") {
			etc = append(etc, f)
		} else {
			n.conf = append(n.conf, f)
		}
	}
	n.conf = append(append(n.conf, b.Read(t, "/etc/NetworkManager/NetworkManager.conf")), etc...)
	return n
}

func (n *nmFiles) present() bool {
	return len(n.profiles)+len(n.ifcfg) > 0 || n.conf[len(n.conf)-1].Content.State() == fact.StateValue
}

// nmDefaults are the global defaults of NetworkManager.conf.
type nmDefaults struct {
	privacy, addrGen string
	unmanaged        []string
	unmanagedAt      fact.Origin
	noAutoDefault    bool
}

func (n *nmFiles) decode(m *fact.Manager) {
	m.Gaps = append(m.Gaps, n.gaps...)
	for _, list := range [][]confd.File{n.profiles, n.ifcfg, n.conf} {
		m.Gaps = append(m.Gaps, confd.Gaps(list)...)
	}
	note := func(path string, line int) { m.Gaps = append(m.Gaps, confd.ParseGap(path, line)) }
	d := n.defaults(note)
	d.unmanagedEntries(m)
	for _, f := range n.profiles {
		if _, ok := f.Content.Get(); ok && len(m.Interfaces) < maxInterfaces {
			if mi, ok := nmProfile(f, d, note); ok {
				m.Interfaces = append(m.Interfaces, mi)
			}
		}
	}
	for _, f := range n.ifcfg {
		if _, ok := f.Content.Get(); ok && len(m.Interfaces) < maxInterfaces {
			if mi, ok := ifcfg(f, d); ok {
				m.Interfaces = append(m.Interfaces, mi)
			}
		}
	}
	if !d.noAutoDefault {
		// "Wired connection N": every Ethernet device without a profile gets one.
		mi := nmMethod("auto", d)
		mi.Match = []string{"type=ethernet"}
		mi.Origin = fact.Origin{File: n.conf[len(n.conf)-1].Path}
		m.Interfaces = append(m.Interfaces, mi)
	}
}

func (n *nmFiles) defaults(note func(string, int)) nmDefaults {
	var d nmDefaults
	for _, f := range n.conf {
		for _, s := range parseFile(f, note) {
			for _, e := range s.entries {
				switch {
				case s.name == "main" && e.key == "no-auto-default":
					d.noAutoDefault = strings.Contains(e.value, "*")
				case s.name == "keyfile" && e.key == "unmanaged-devices":
					d.unmanaged = strings.FieldsFunc(e.value, func(r rune) bool { return r == ';' || r == ',' })
					d.unmanagedAt = fact.Origin{File: e.file, Line: e.line}
				case strings.HasPrefix(s.name, "connection") && e.key == "ipv6.ip6-privacy":
					d.privacy = nmPrivacy(e.value)
				case strings.HasPrefix(s.name, "connection") && e.key == "ipv6.addr-gen-mode":
					d.addrGen = nmAddrGen(e.value)
				}
			}
		}
	}
	return d
}

// unmanagedEntries puts devices that NetworkManager leaves alone first.
func (d nmDefaults) unmanagedEntries(m *fact.Manager) {
	none := func(names, match []string) {
		m.Interfaces = append(m.Interfaces, fact.ManagedInterface{Names: names, Match: match, AcceptRA: fact.Value(false), AcceptRASet: true, Origin: d.unmanagedAt})
	}
	var names []string
	for _, u := range d.unmanaged {
		key, value, ok := strings.Cut(strings.TrimSpace(u), ":")
		if len(names) > maxList {
			return
		}
		switch {
		case key == "except":
			none(nil, []string{"unmanaged-devices=except…"}) // everything but: cannot be told by one name
			return
		case !ok && key == "*":
			names = append(names, "*")
		case !ok && strings.Count(key, "-") == 5, key == "mac":
			if v, _, _ := strings.Cut(value, " "); len(v) <= 64 {
				none(nil, []string{"MACAddress=" + strings.ToLower(v)})
			}
		case key == "interface-name":
			names = append(names, strings.TrimPrefix(value, "="))
		case key == "type" || key == "driver":
			if len(value) <= 64 {
				none(nil, []string{key + "=" + value})
			}
		default:
			none(nil, []string{"unmanaged-devices"})
		}
	}
	if len(names) > 0 {
		none(names, nil)
	}
}

func nmPrivacy(v string) string {
	switch v {
	case "0", "disabled":
		return "no"
	case "1":
		return "prefer-public"
	case "2":
		return "yes"
	}
	return ""
}

func nmAddrGen(v string) string {
	switch v {
	case "0", "eui64":
		return "eui64"
	case "1", "stable-privacy":
		return "stable-privacy"
	case "2", "default-or-eui64", "3", "default":
		return v
	}
	return ""
}

// nmMethod gives what ipv6.method means.
func nmMethod(method string, d nmDefaults) fact.ManagedInterface {
	yes, no := fact.Value(true), fact.Value(false)
	mi := fact.ManagedInterface{InUserspace: true, AcceptRA: no, UseDNS: yes, UseGateway: yes, UseAutonomousPrefix: yes, SendRA: no, DHCPv6: no, Use6RD: no, LinkLocal: yes}
	switch method {
	case "auto", "": // DHCPv6 when the advertisement says so
		mi.AcceptRA, mi.DHCPv6 = yes, yes
	case "dhcp":
		mi.DHCPv6 = yes
	case "disabled":
		mi.IPv6Disabled, mi.LinkLocal = true, no
	case "ignore":
		mi.InUserspace, mi.AcceptRA = false, fact.Absent[bool]() // the kernel decides
	case "shared":
		mi.SendRA = yes
	case "manual", "link-local":
	default:
		mi.AcceptRA = fact.Missing[bool](fact.Gap{Reason: fact.ParseGap, What: "ipv6.method of a NetworkManager profile"})
	}
	mi.PrivacyExtensions, mi.AddrGen = fact.Absent[string](), fact.Absent[string]()
	if d.privacy != "" {
		mi.PrivacyExtensions = fact.Value(d.privacy)
	}
	if d.addrGen != "" {
		mi.AddrGen = fact.Value(d.addrGen)
	}
	return mi
}

// nmProfile reads one keyfile. Sections with secrets (802-1x, wifi-security, vpn,
// wireguard, ppp …) are not looked at.
func nmProfile(f confd.File, d nmDefaults, note func(string, int)) (fact.ManagedInterface, bool) {
	var method, kind, iface, mac, privacy, addrGen, port string
	var match []string
	var methodAt fact.Origin
	neverDefault, ignoreDNS := false, false
	var addresses []netip.Prefix
	var gateways []netip.Addr
	for _, s := range parseFile(f, note) {
		for _, e := range s.entries {
			switch s.name + "." + e.key {
			case "connection.type":
				kind = e.value
			case "connection.interface-name":
				iface = e.value
			case "connection.master", "connection.controller":
				port = e.value
			case "match.interface-name":
				match = append(match, strings.FieldsFunc(e.value, func(r rune) bool { return r == ';' || r == ',' || r == ' ' })...)
			case "ethernet.mac-address", "802-3-ethernet.mac-address", "wifi.mac-address":
				mac = strings.ToLower(e.value)
			case "ipv6.method":
				method, methodAt = e.value, fact.Origin{File: e.file, Line: e.line}
			case "ipv6.ip6-privacy":
				privacy = nmPrivacy(e.value)
			case "ipv6.addr-gen-mode":
				addrGen = nmAddrGen(e.value)
			case "ipv6.never-default":
				neverDefault, _ = parseBool(e.value)
			case "ipv6.ignore-auto-dns":
				ignoreDNS, _ = parseBool(e.value)
			case "ipv6.gateway":
				if a, err := netip.ParseAddr(e.value); err == nil {
					gateways = append(gateways, a)
				}
			default:
				if s.name == "ipv6" && strings.HasPrefix(e.key, "address") && strings.Trim(e.key[len("address"):], "es0123456789") == "" {
					addr, gw, _ := strings.Cut(e.value, ",")
					if p, err := netip.ParsePrefix(strings.TrimSpace(addr)); err == nil && p.Addr().Is6() && len(addresses) < maxList {
						addresses = append(addresses, p)
					}
					if a, err := netip.ParseAddr(strings.TrimSpace(gw)); err == nil && len(gateways) < maxList {
						gateways = append(gateways, a)
					}
				}
			}
		}
	}
	if kind == "loopback" {
		return fact.ManagedInterface{}, false
	}
	if port != "" && method == "" {
		method = "disabled" // a port of a bond or bridge has no addresses of its own
	}
	mi := nmMethod(method, d)
	mi.AcceptRASet, mi.File, mi.Origin = method != "", f.Path, fact.Origin{File: f.Path}
	if methodAt.Line > 0 {
		mi.Origin = methodAt
	}
	mi.Addresses, mi.Gateways = addresses, gateways
	if privacy != "" {
		mi.PrivacyExtensions = fact.Value(privacy)
	}
	if addrGen != "" {
		mi.AddrGen = fact.Value(addrGen)
	}
	if mi.AcceptRA.Or(false) {
		mi.UseGateway, mi.UseDNS = fact.Value(!neverDefault), fact.Value(!ignoreDNS)
	}
	if iface != "" && len(iface) < 64 {
		mi.Names = []string{iface}
	}
	for _, w := range match {
		if len(w) <= 64 && len(mi.Match) < maxList {
			mi.Match = append(mi.Match, "interface-name="+w)
		}
	}
	if len(mac) == 17 {
		mi.Match = append(mi.Match, "MACAddress="+mac)
	}
	if len(mi.Names) == 0 && len(kind) <= 32 && kind != "" {
		mi.Match = append(mi.Match, "type="+kind)
	}
	return mi, true
}

// ifcfg reads RHEL's /etc/sysconfig/network-scripts/ifcfg-NAME.
func ifcfg(f confd.File, d nmDefaults) (fact.ManagedInterface, bool) {
	b, _ := f.Content.Get()
	v := map[string]string{}
	at := map[string]int{}
	for _, l := range confd.Lines(b, false) {
		key, value, ok := strings.Cut(strings.TrimSpace(l.Text), "=")
		if !ok {
			continue
		}
		switch key {
		case "DEVICE", "HWADDR", "TYPE", "IPV6INIT", "IPV6_AUTOCONF", "IPV6ADDR", "IPV6_DEFAULTGW", "IPV6_DEFROUTE", "IPV6_PEERDNS", "IPV6_PRIVACY", "IPV6_ADDR_GEN_MODE", "IPV6_DISABLED", "DHCPV6C", "NM_CONTROLLED":
			value, _, _ = strings.Cut(value, "#")
			v[key], at[key] = strings.Trim(strings.TrimSpace(value), `"'`), l.Number
		}
	}
	is := func(key string) bool { b, _ := parseBool(v[key]); return b }
	isNot := func(key string) bool { b, ok := parseBool(v[key]); return ok && !b }
	if isNot("NM_CONTROLLED") {
		return fact.ManagedInterface{}, false
	}
	method, by := "auto", ""
	switch {
	case is("IPV6_DISABLED"):
		method, by = "disabled", "IPV6_DISABLED"
	case !is("IPV6INIT"):
		method, by = "ignore", "IPV6INIT"
	case is("DHCPV6C") && isNot("IPV6_AUTOCONF"):
		method, by = "dhcp", "DHCPV6C"
	case isNot("IPV6_AUTOCONF"):
		method, by = "manual", "IPV6_AUTOCONF"
	}
	mi := nmMethod(method, d)
	mi.AcceptRASet, mi.File, mi.Origin = by != "", f.Path, fact.Origin{File: f.Path, Line: at[by]}
	if p, err := netip.ParsePrefix(v["IPV6ADDR"]); err == nil {
		mi.Addresses = []netip.Prefix{p}
	}
	gw, _, _ := strings.Cut(v["IPV6_DEFAULTGW"], "%")
	if a, err := netip.ParseAddr(gw); err == nil {
		mi.Gateways = []netip.Addr{a}
	}
	if mi.AcceptRA.Or(false) {
		mi.UseGateway, mi.UseDNS = fact.Value(!isNot("IPV6_DEFROUTE")), fact.Value(!isNot("IPV6_PEERDNS"))
	}
	if v["IPV6_PRIVACY"] == "rfc3041" {
		mi.PrivacyExtensions = fact.Value("yes")
	}
	if g := nmAddrGen(v["IPV6_ADDR_GEN_MODE"]); g != "" {
		mi.AddrGen = fact.Value(g)
	}
	if dev := v["DEVICE"]; dev != "" && len(dev) < 64 {
		mi.Names = []string{dev}
	}
	if len(v["HWADDR"]) == 17 {
		mi.Match = append(mi.Match, "MACAddress="+strings.ToLower(v["HWADDR"]))
	}
	if len(mi.Names)+len(mi.Match) == 0 {
		mi.Match = []string{"file=" + strconv.Quote(f.Name)}
	}
	return mi, true
}
