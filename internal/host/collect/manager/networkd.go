package manager

import (
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

var networkdDirs = []string{"/etc/systemd/network", "/run/systemd/network", "/usr/local/lib/systemd/network", "/usr/lib/systemd/network", "/lib/systemd/network"}

// networkdFiles are systemd-networkd's files.
type networkdFiles struct {
	networks []networkFile
	netdevs  []confd.File
	global   []confd.File // networkd.conf and its fragments
	links    []linkState
	gaps     []fact.Gap
}

type networkFile struct {
	file    confd.File
	dropins []confd.File
}

// linkState is /run/systemd/netif/links/IFINDEX: what the running networkd says.
type linkState struct {
	index int
	file  confd.File
}

func readNetworkd(t *tree.Tree, b *confd.Budget) source {
	n := &networkdFiles{}
	files, gaps := b.Gather(t, confd.Query{Dirs: networkdDirs, Suffix: ".network", DirsHide: true})
	n.gaps = gaps
	for _, f := range files {
		nf := networkFile{file: f}
		var dirs []string
		for _, d := range networkdDirs {
			dirs = append(dirs, d+"/"+f.Name+".d")
		}
		nf.dropins, gaps = b.Gather(t, confd.Query{Dirs: dirs, Suffix: ".conf", DirsHide: true})
		n.gaps = append(n.gaps, gaps...)
		n.networks = append(n.networks, nf)
	}
	n.netdevs, gaps = b.Gather(t, confd.Query{Dirs: networkdDirs, Suffix: ".netdev", DirsHide: true})
	n.gaps = append(n.gaps, gaps...)
	for _, d := range []string{"/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd"} {
		if f := b.Read(t, d+"/networkd.conf"); f.Content.State() != fact.StateAbsent {
			n.global = append(n.global, f)
			break
		}
	}
	frag, gaps := b.Gather(t, confd.Query{Dirs: []string{"/etc/systemd/networkd.conf.d", "/run/systemd/networkd.conf.d", "/usr/local/lib/systemd/networkd.conf.d", "/usr/lib/systemd/networkd.conf.d"}, Suffix: ".conf", DirsHide: true})
	n.gaps = append(n.gaps, gaps...)
	n.global = append(n.global, frag...)
	const dir = "/run/systemd/netif/links"
	k := t.List(dir)
	if g, ok := k.Gap(); ok {
		n.gaps = append(n.gaps, g)
	}
	for _, name := range k.Or(nil) {
		if i, err := strconv.Atoi(name); err == nil && i > 0 && len(n.links) < maxInterfaces {
			n.links = append(n.links, linkState{i, b.Read(t, dir+"/"+name)})
		}
	}
	return n
}

func (n *networkdFiles) present() bool {
	for _, f := range n.networks {
		// systemd ships files for containers, virtual machines and Wi-Fi access points.
		if !strings.HasPrefix(f.file.Path, "/usr/lib/") && !strings.HasPrefix(f.file.Path, "/lib/") {
			return true
		}
	}
	return len(n.links) > 0
}

func (n *networkdFiles) decode(m *fact.Manager) {
	m.Gaps = append(m.Gaps, n.gaps...)
	note := func(path string, line int) { m.Gaps = append(m.Gaps, confd.ParseGap(path, line)) }
	netdevs := n.netdevKinds(note)
	global := networkdGlobal(n.global, note)
	m.Gaps = append(m.Gaps, confd.Gaps(n.global)...)
	byFile := map[string]fact.ManagedInterface{}
	var list []fact.ManagedInterface
	for _, f := range n.networks {
		if g, ok := f.file.Content.Gap(); ok {
			// It may match anything: what it says is unknown, and so is all after it.
			m.Gaps = append(m.Gaps, g)
			list = append(list, fact.ManagedInterface{Match: []string{"unreadable=" + f.file.Name}, AcceptRA: fact.Missing[bool](g), Origin: fact.Origin{File: f.file.Path}})
			continue
		}
		b, ok := f.file.Content.Get()
		if !ok || len(b) == 0 {
			continue // masked
		}
		sections := parseFile(f.file, note)
		for _, d := range f.dropins {
			sections = append(sections, parseFile(d, note)...)
		}
		m.Gaps = append(m.Gaps, confd.Gaps(f.dropins)...)
		p := network{note: note, netdevs: netdevs, global: global}
		mi, ok := p.decode(f.file.Path, sections)
		if !ok {
			continue
		}
		byFile[f.file.Path] = mi
		if len(list) < maxInterfaces {
			list = append(list, mi)
		}
	}
	links := n.links
	if !m.Running.Or(true) {
		links = nil // left over from another time
	}
	for _, l := range links {
		b, ok := l.file.Content.Get()
		if g, gap := l.file.Content.Gap(); gap {
			m.Gaps = append(m.Gaps, g)
		}
		if !ok {
			continue
		}
		used, state := "", ""
		for _, line := range confd.Lines(b, false) {
			switch key, value, _ := strings.Cut(line.Text, "="); key {
			case "NETWORK_FILE":
				used = value
			case "ADMIN_STATE":
				state = value
			}
		}
		mi, known := byFile[used]
		switch {
		case used == "" || state == "unmanaged":
			mi = fact.ManagedInterface{AcceptRA: fact.Value(false), Origin: fact.Origin{File: l.file.Path}}
		case !known:
			g := fact.Gap{Reason: fact.NotCollected, What: "the .network file that networkd uses for interface " + strconv.Itoa(l.index)}
			mi = fact.ManagedInterface{AcceptRA: fact.Missing[bool](g), InUserspace: true, Origin: fact.Origin{File: l.file.Path}}
		}
		mi.Index, mi.Names, mi.Match = l.index, nil, nil
		m.Interfaces = append(m.Interfaces, mi)
	}
	m.Interfaces = append(m.Interfaces, list...)
}

// netdevKinds maps the devices that networkd itself creates to their kind. Of a
// .netdev file nothing else is read: it holds WireGuard's keys.
func (n *networkdFiles) netdevKinds(note func(string, int)) map[string]string {
	out := map[string]string{}
	for _, f := range n.netdevs {
		name, kind := "", ""
		for _, s := range parseFile(f, note) {
			if s.name != "NetDev" {
				continue
			}
			for _, e := range s.entries {
				switch e.key {
				case "Name":
					name = e.value
				case "Kind":
					kind = e.value
				}
			}
		}
		if _, ok := out[name]; !ok && name != "" {
			out[name] = kind
		}
	}
	return out
}

// globalSettings are the defaults of networkd.conf that matter.
type globalSettings struct {
	forwarding fact.Known[bool] // IPv6Forwarding=, from v256
	privacy    string           // IPv6PrivacyExtensions=, from v254
}

func networkdGlobal(files []confd.File, note func(string, int)) globalSettings {
	var g globalSettings
	for _, f := range files {
		for _, s := range parseFile(f, note) {
			if s.name != "Network" {
				continue
			}
			for _, e := range s.entries {
				switch e.key {
				case "IPv6Forwarding":
					if v, ok := parseBool(e.value); ok {
						g.forwarding = fact.Value(v)
					}
				case "IPv6PrivacyExtensions":
					g.privacy = privacyWord(e.value)
				}
			}
		}
	}
	return g
}

// network is the state of reading one .network file with its drop-ins.
type network struct {
	note    func(path string, line int)
	netdevs map[string]string
	global  globalSettings

	names, match   []string
	hasMatch       bool
	unmanaged      bool
	acceptRA       fact.Known[bool]
	acceptLine     fact.Origin
	linkLocal      string // "" = not set
	llNone         bool   // IPv6LinkLocalAddressGenerationMode=none
	forward        fact.Known[bool]
	masquerade     bool
	bridge, bond   string
	keepMaster     bool
	dhcp           string
	dhcpRA         bool // DHCPv6Client=
	sendRA         fact.Known[bool]
	use6RD         bool
	useDNS, useGW  bool
	useAuto        bool
	privacy, token string
	routers, deny  []netip.Prefix
	prefixes       []netip.Prefix
	addresses      []netip.Prefix
	gateways       []netip.Addr
}

// decode interprets the sections; ok is false for a file that networkd ignores.
func (p *network) decode(file string, sections []section) (mi fact.ManagedInterface, ok bool) {
	p.dhcpRA, p.useDNS, p.useGW, p.useAuto = true, true, true, true
	for i := range sections {
		s := &sections[i]
		var gw, dst string
		for _, e := range s.entries {
			switch s.name {
			case "Match":
				p.matchEntry(e)
			case "Link":
				if e.key == "Unmanaged" {
					p.boolean(e, &p.unmanaged)
				}
			case "Network":
				p.networkEntry(e)
			case "IPv6AcceptRA":
				p.acceptEntry(e)
			case "DHCPv4", "DHCP":
				if e.key == "Use6RD" {
					p.boolean(e, &p.use6RD)
				}
			case "Address":
				if e.key == "Address" {
					p.address(e)
				}
			case "Route":
				switch e.key {
				case "Gateway":
					gw = e.value
				case "Destination":
					dst = e.value
				}
			}
		}
		if a, err := netip.ParseAddr(gw); err == nil && a.Is6() && (dst == "" || dst == "::/0") && len(p.gateways) < maxList {
			p.gateways = append(p.gateways, a)
		}
	}
	if !p.hasMatch {
		return mi, false // "No valid settings found in the [Match] section, ignoring file."
	}
	return p.result(file), true
}

// maxList bounds addresses, prefixes and names of one interface.
const maxList = 256

// result applies networkd's defaults (network_verify, network_adjust_ipv6_accept_ra).
func (p *network) result(file string) fact.ManagedInterface {
	mi := fact.ManagedInterface{Names: p.names, Match: p.match, File: file, Origin: fact.Origin{File: file}}
	mi.LinkLocal4 = p.linkLocal == "yes" || strings.HasPrefix(p.linkLocal, "ipv4")
	if p.unmanaged {
		mi.AcceptRA = fact.Value(false)
		return mi
	}
	mi.InUserspace = true
	bridged := p.netdevs[p.bridge] == "bridge" // networkd ignores Bridge= of a device it does not create
	bonded := p.netdevs[p.bond] == "bond"
	ll := false
	switch p.linkLocal {
	case "yes", "ipv6":
		ll = true
	case "":
		ll = !bridged && !p.keepMaster
	}
	ll = ll && !bonded && !p.llNone
	forwarding := p.forward.Or(p.global.forwarding.Or(false)) || p.masquerade
	accept, set := p.acceptRA.Get()
	if !set {
		accept = !forwarding
	}
	accept = accept && ll
	mi.AcceptRA, mi.AcceptRASet = fact.Value(accept), set
	if set {
		mi.Origin = p.acceptLine
	}
	mi.RouterAllowList, mi.PrefixAllowList = p.routers, p.prefixes
	if len(p.routers) == 0 { // an allow list makes a deny list void
		mi.RouterDenyList = p.deny
	}
	mi.UseDNS, mi.UseGateway, mi.UseAutonomousPrefix = fact.Value(p.useDNS), fact.Value(p.useGW), fact.Value(p.useAuto)
	mi.SendRA = fact.Value(p.sendRA.Or(false) && ll)
	dhcp6 := p.dhcp == "yes" || p.dhcp == "ipv6"
	mi.DHCPv6 = fact.Value(ll && dhcp6 || accept && p.dhcpRA)
	mi.Use6RD = fact.Value(p.use6RD && (p.dhcp == "yes" || p.dhcp == "ipv4"))
	mi.LinkLocal = fact.Value(ll)
	if p.forward.State() == fact.StateValue || p.masquerade || p.global.forwarding.State() == fact.StateValue {
		mi.Forwarding = fact.Value(forwarding)
	} else {
		mi.Forwarding = fact.Absent[bool]()
	}
	if !bonded {
		mi.Addresses, mi.Gateways = p.addresses, p.gateways
	}
	mi.IPv6Disabled = !ll && len(mi.Addresses) == 0
	privacy := p.privacy
	if privacy == "" {
		privacy = p.global.privacy
	}
	if privacy == "" {
		privacy = "no"
	}
	mi.PrivacyExtensions = fact.Value(privacy)
	if p.token != "" {
		mi.AddrGen = fact.Value(p.token)
	} else {
		mi.AddrGen = fact.Value("eui64")
	}
	return mi
}

func (p *network) boolean(e entry, to *bool) {
	if v, ok := parseBool(e.value); ok {
		*to = v
	} else if e.value != "" {
		p.note(e.file, e.line)
	}
}

// matchEntry reads one line of [Match]. A line may start with "!", which inverts
// all its words.
func (p *network) matchEntry(e entry) {
	switch e.key {
	case "Name", "OriginalName":
		if e.value == "" {
			p.names = nil
			return
		}
		p.hasMatch = true
		value, inverted := strings.CutPrefix(e.value, "!")
		var words []string
		for _, w := range strings.Fields(value) {
			if len(words)+len(p.names) < maxList && len(w) <= 128 {
				words = append(words, w)
			}
		}
		switch {
		case !inverted:
			p.names = append(p.names, words...)
		case len(words) == 1 && len(p.names) == 0:
			p.names = []string{"!" + words[0]}
		default: // a mixture: no list of names says it
			p.match = append(p.match, "Name=!"+strings.Join(words, " "))
		}
	case "MACAddress", "PermanentMACAddress", "Path", "Driver", "Type", "Kind":
		if e.value == "" {
			return
		}
		p.hasMatch = true
		v := strings.ToLower(e.value)
		if strings.HasSuffix(e.key, "MACAddress") {
			v = strings.NewReplacer("-", ":").Replace(v)
		}
		if len(v) <= 512 && len(p.match) < maxList {
			p.match = append(p.match, e.key+"="+v)
		}
	case "SSID", "BSSID", "WLANInterfaceType", "Property", "Host", "Virtualization", "KernelCommandLine", "KernelVersion", "Credential", "Architecture", "Firmware":
		if e.value != "" {
			p.hasMatch = true
			p.match = append(p.match, e.key+"=…")
		}
	default:
		if len(p.match) < maxList {
			p.match = append(p.match, "unknown condition in line "+strconv.Itoa(e.line))
		}
	}
}

func (p *network) networkEntry(e entry) {
	v := strings.ToLower(e.value)
	switch e.key {
	case "IPv6AcceptRA", "IPv6AcceptRouterAdvertisements":
		if b, ok := parseBool(v); ok {
			p.acceptRA, p.acceptLine = fact.Value(b), fact.Origin{File: e.file, Line: e.line}
		} else if v == "" {
			p.acceptRA = fact.Known[bool]{}
		} else {
			p.note(e.file, e.line)
		}
	case "LinkLocalAddressing":
		switch b, ok := parseBool(v); {
		case ok && b:
			p.linkLocal = "yes"
		case ok:
			p.linkLocal = "no"
		case v == "ipv6", v == "ipv4", v == "fallback", v == "ipv4-fallback":
			p.linkLocal = v
		default:
			p.note(e.file, e.line)
		}
	case "IPv6LinkLocalAddressGenerationMode":
		p.llNone = v == "none"
		switch v {
		case "none", "eui64", "stable-privacy", "random":
			p.token = v
		case "":
			p.token = ""
		}
	case "IPForward":
		switch b, ok := parseBool(v); {
		case ok:
			p.forward = fact.Value(b)
		case v == "ipv6":
			p.forward = fact.Value(true)
		case v == "ipv4":
			p.forward = fact.Value(false)
		case v == "kernel":
			p.forward = fact.Known[bool]{}
		default:
			p.note(e.file, e.line)
		}
	case "IPv6Forwarding":
		if b, ok := parseBool(v); ok {
			p.forward = fact.Value(b)
		}
	case "IPMasquerade":
		p.masquerade = v == "ipv6" || v == "both"
	case "Bridge":
		p.bridge = e.value
	case "Bond":
		p.bond = e.value
	case "KeepMaster":
		p.boolean(e, &p.keepMaster)
	case "DHCP":
		switch b, ok := parseBool(v); {
		case ok && b, v == "both":
			p.dhcp = "yes"
		case ok, v == "none":
			p.dhcp = "no"
		case v == "v6", v == "ipv6":
			p.dhcp = "ipv6"
		case v == "v4", v == "ipv4":
			p.dhcp = "ipv4"
		default:
			p.note(e.file, e.line)
		}
	case "IPv6SendRA":
		if b, ok := parseBool(v); ok {
			p.sendRA = fact.Value(b)
		}
	case "IPv6PrefixDelegation": // the name before v247
		if b, ok := parseBool(v); ok {
			p.sendRA = fact.Value(b)
		} else if v == "static" || v == "dhcpv6" {
			p.sendRA = fact.Value(true)
		}
	case "IPv6PrivacyExtensions":
		p.privacy = privacyWord(v)
	case "Address":
		p.address(e)
	case "Gateway":
		if a, err := netip.ParseAddr(e.value); err == nil && a.Is6() && len(p.gateways) < maxList {
			p.gateways = append(p.gateways, a)
		}
	}
}

func privacyWord(v string) string {
	v = strings.ToLower(v)
	if b, ok := parseBool(v); ok {
		if b {
			return "yes"
		}
		return "no"
	}
	if v == "prefer-public" || v == "kernel" {
		return v
	}
	return ""
}

func (p *network) acceptEntry(e entry) {
	switch e.key {
	case "RouterAllowList":
		p.list(e, &p.routers)
	case "RouterDenyList":
		p.list(e, &p.deny)
	case "PrefixAllowList":
		p.list(e, &p.prefixes)
	case "UseDNS":
		p.boolean(e, &p.useDNS)
	case "UseGateway":
		p.boolean(e, &p.useGW)
	case "UseAutonomousPrefix":
		p.boolean(e, &p.useAuto)
	case "DHCPv6Client":
		if strings.EqualFold(e.value, "always") {
			p.dhcpRA = true
		} else {
			p.boolean(e, &p.dhcpRA)
		}
	case "Token":
		// prefixstable, or a fixed identifier; eui64 is the default.
		if kind, _, _ := strings.Cut(e.value, ":"); kind == "prefixstable" || kind == "eui64" || kind == "static" {
			p.token = kind
		}
	}
}

// list reads prefixes; an empty value resets.
func (p *network) list(e entry, to *[]netip.Prefix) {
	if e.value == "" {
		*to = nil
		return
	}
	for _, w := range strings.Fields(e.value) {
		pre, err := netip.ParsePrefix(w)
		if err != nil {
			a, err2 := netip.ParseAddr(w)
			if err2 != nil || a.Zone() != "" {
				p.note(e.file, e.line)
				continue
			}
			pre = netip.PrefixFrom(a, a.BitLen())
		}
		if len(*to) < maxList && !slices.Contains(*to, pre) {
			*to = append(*to, pre)
		}
	}
}

func (p *network) address(e entry) {
	pre, err := netip.ParsePrefix(e.value)
	if err != nil {
		a, err := netip.ParseAddr(e.value)
		if err != nil {
			return
		}
		pre = netip.PrefixFrom(a, a.BitLen())
	}
	if pre.Addr().Is6() && len(p.addresses) < maxList {
		p.addresses = append(p.addresses, pre)
	}
}

// glob tells whether a shell pattern matches a name.
func glob(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return err == nil && ok
}
