package manager

import (
	"net/netip"
	"sort"
	"strings"

	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// netplanFiles are netplan's yaml files, in the order in which they are merged.
type netplanFiles struct {
	files []confd.File
	gaps  []fact.Gap
}

func readNetplan(t *tree.Tree, b *confd.Budget) source {
	n := &netplanFiles{}
	// netplan(5): /run hides /etc hides /lib, then all by name.
	n.files, n.gaps = b.Gather(t, confd.Query{Dirs: []string{"/run/netplan", "/etc/netplan", "/usr/lib/netplan", "/lib/netplan"}, Suffix: ".yaml"})
	return n
}

func (n *netplanFiles) present() bool { return len(n.files) > 0 }

// The allow-list: what is not a field here is never decoded (auth, access-points,
// keys, tunnels, modems).
type netplanFile struct {
	Network struct {
		Renderer  string                  `yaml:"renderer"`
		Ethernets map[string]*netplanLink `yaml:"ethernets"`
		Wifis     map[string]*netplanLink `yaml:"wifis"`
		Bonds     map[string]*netplanLink `yaml:"bonds"`
		Bridges   map[string]*netplanLink `yaml:"bridges"`
		Vlans     map[string]*netplanLink `yaml:"vlans"`
		Vrfs      map[string]*netplanLink `yaml:"vrfs"`
		Dummies   map[string]*netplanLink `yaml:"dummy-devices"`
		Veths     map[string]*netplanLink `yaml:"virtual-ethernets"`
	} `yaml:"network"`
}

type netplanLink struct {
	Renderer string `yaml:"renderer"`
	Match    *struct {
		Name   any    `yaml:"name"`
		MAC    string `yaml:"macaddress"`
		Driver any    `yaml:"driver"`
	} `yaml:"match"`
	SetName   string `yaml:"set-name"`
	AcceptRA  *bool  `yaml:"accept-ra"`
	DHCP6     *bool  `yaml:"dhcp6"`
	LinkLocal *[]any `yaml:"link-local"`
	Privacy   *bool  `yaml:"ipv6-privacy"`
	AddrGen   string `yaml:"ipv6-address-generation"`
	Token     string `yaml:"ipv6-address-token"`
	Gateway6  string `yaml:"gateway6"`
	Addresses []any  `yaml:"addresses"`
	Routes    []struct {
		To  string `yaml:"to"`
		Via string `yaml:"via"`
	} `yaml:"routes"`
	RA *struct {
		UseDNS *bool `yaml:"use-dns"`
	} `yaml:"ra-overrides"`
	Interfaces []string `yaml:"interfaces"` // of bonds and bridges
}

func (n *netplanFiles) decode(m *fact.Manager) {
	m.Gaps = append(m.Gaps, n.gaps...)
	m.Gaps = append(m.Gaps, confd.Gaps(n.files)...)
	merged := map[string]*merging{}
	renderer := "networkd"
	ports := map[string]bool{}
	for _, f := range n.files {
		b, ok := f.Content.Get()
		if !ok {
			continue
		}
		doc, ok := decodeNetplan(b)
		if !ok {
			m.Gaps = append(m.Gaps, fact.Gap{Reason: fact.ParseGap, What: f.Path})
			continue
		}
		if doc.Network.Renderer != "" {
			renderer = doc.Network.Renderer
		}
		lines := keyLines(b)
		n := &doc.Network
		for i, group := range []map[string]*netplanLink{n.Ethernets, n.Wifis, n.Bonds, n.Bridges, n.Vlans, n.Vrfs, n.Dummies, n.Veths} {
			for id, l := range group {
				if l == nil {
					l = &netplanLink{}
				}
				x := merged[id]
				if x == nil {
					x = &merging{section: netplanSections[i]}
					merged[id] = x
				}
				x.merge(l, fact.Origin{File: f.Path, Line: lines[id]})
				for _, p := range l.Interfaces {
					ports[p] = true
				}
			}
		}
	}
	ids := make([]string, 0, len(merged))
	for id := range merged {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	for _, id := range ids {
		if len(m.Interfaces) >= maxInterfaces {
			m.Gaps = append(m.Gaps, fact.Gap{Reason: fact.Truncated, What: "more interfaces of netplan"})
			return
		}
		m.Interfaces = append(m.Interfaces, merged[id].managed(id, renderer, ports[id]))
	}
}

// netplanSections are the names of the groups that are decoded, in their order.
var netplanSections = []string{"ethernets", "wifis", "bonds", "bridges", "vlans", "vrfs", "dummy-devices", "virtual-ethernets"}

type merging struct {
	netplanLink
	section string
	origin  fact.Origin
}

// merge lets a later file override what it names and add to lists.
func (x *merging) merge(l *netplanLink, at fact.Origin) {
	x.origin = at
	over := func(to *string, v string) {
		if v != "" {
			*to = v
		}
	}
	over(&x.Renderer, l.Renderer)
	over(&x.SetName, l.SetName)
	over(&x.AddrGen, l.AddrGen)
	over(&x.Token, l.Token)
	over(&x.Gateway6, l.Gateway6)
	if l.Match != nil {
		x.Match = l.Match
	}
	if l.AcceptRA != nil {
		x.AcceptRA = l.AcceptRA
	}
	if l.DHCP6 != nil {
		x.DHCP6 = l.DHCP6
	}
	if l.LinkLocal != nil {
		x.LinkLocal = l.LinkLocal
	}
	if l.Privacy != nil {
		x.Privacy = l.Privacy
	}
	if l.RA != nil {
		x.RA = l.RA
	}
	x.Addresses = append(x.Addresses, l.Addresses...)
	x.Routes = append(x.Routes, l.Routes...)
}

func (x *merging) managed(id, renderer string, port bool) fact.ManagedInterface {
	mi := fact.ManagedInterface{InUserspace: true, File: x.origin.File, Definition: x.section + "/" + bound(id), Origin: x.origin, Use6RD: fact.Value(false), SendRA: fact.Value(false), UseGateway: fact.Value(true), UseAutonomousPrefix: fact.Value(true), UseDNS: fact.Value(true)}
	if x.Renderer != "" {
		renderer = x.Renderer
	}
	// Without link-local: netplan writes LinkLocalAddressing=ipv6, for ports of
	// bonds and bridges "no".
	ll := !port
	if x.LinkLocal != nil {
		ll = false
		for _, v := range *x.LinkLocal {
			s, _ := v.(string)
			ll = ll || s == "ipv6"
			mi.LinkLocal4 = mi.LinkLocal4 || s == "ipv4"
		}
	}
	accept := true
	if x.AcceptRA != nil {
		accept, mi.AcceptRASet = *x.AcceptRA, true
	}
	if renderer == "NetworkManager" {
		// method=auto with dhcp6, else manual with addresses, whatever accept-ra says.
		accept = x.DHCP6 != nil && *x.DHCP6
	}
	mi.AcceptRA = fact.Value(accept && ll)
	mi.LinkLocal = fact.Value(ll)
	mi.DHCPv6 = fact.Value(x.DHCP6 != nil && *x.DHCP6 || accept && ll)
	if x.RA != nil && x.RA.UseDNS != nil {
		mi.UseDNS = fact.Value(*x.RA.UseDNS)
	}
	mi.PrivacyExtensions = fact.Value("no")
	if x.Privacy != nil && *x.Privacy {
		mi.PrivacyExtensions = fact.Value("yes")
	}
	switch x.AddrGen {
	case "eui64", "stable-privacy":
		mi.AddrGen = fact.Value(x.AddrGen)
	default:
		mi.AddrGen = fact.Absent[string]()
	}
	for _, a := range x.Addresses {
		text, ok := a.(string)
		if o, isMap := a.(map[string]any); isMap { // {"addr/64": {lifetime: 0}}
			for k := range o {
				text, ok = k, true
			}
		}
		if p, err := netip.ParsePrefix(text); ok && err == nil && p.Addr().Is6() && len(mi.Addresses) < maxList {
			mi.Addresses = append(mi.Addresses, p)
		}
	}
	addGateway := func(s string) {
		if a, err := netip.ParseAddr(s); err == nil && a.Is6() && len(mi.Gateways) < maxList {
			mi.Gateways = append(mi.Gateways, a)
		}
	}
	addGateway(x.Gateway6)
	for _, r := range x.Routes {
		if r.To == "default" || r.To == "::/0" {
			addGateway(r.Via)
		}
	}
	mi.IPv6Disabled = !ll && len(mi.Addresses) == 0
	if renderer == "NetworkManager" && !accept && len(mi.Addresses) == 0 {
		// method=ignore: the kernel decides.
		mi.InUserspace, mi.IPv6Disabled, mi.AcceptRA, mi.AcceptRASet = false, false, fact.Absent[bool](), false
	}
	switch {
	case x.Match == nil:
		mi.Names = []string{bound(id)}
	default:
		for _, n := range stringList(x.Match.Name) {
			mi.Names = append(mi.Names, bound(n))
		}
		if len(x.Match.MAC) == 17 {
			mi.Match = append(mi.Match, "MACAddress="+strings.ToLower(x.Match.MAC))
		}
		for _, d := range stringList(x.Match.Driver) {
			mi.Match = append(mi.Match, "Driver="+bound(d))
		}
		if x.SetName != "" && len(mi.Match) > 0 {
			mi.Names = []string{bound(x.SetName)}
		}
		if len(mi.Names)+len(mi.Match) == 0 {
			mi.Match = []string{"match"}
		}
	}
	return mi
}

// stringList is a string or a list of strings.
func stringList(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, e := range v {
			if s, ok := e.(string); ok && len(out) < maxList {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}

func bound(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}

// maxYAML bounds a netplan file, maxNesting its depth: a parser recurses.
const (
	maxYAML    = 256 << 10
	maxNesting = 32
)

// decodeNetplan decodes the allow-listed fields. Aliases are refused: netplan
// files have no use for them and ten of them can make a gigabyte.
func decodeNetplan(b []byte) (doc netplanFile, ok bool) {
	if !decodeYAML(b, &doc) {
		return netplanFile{}, false
	}
	return doc, true
}

func hasAlias(b []byte) (found bool) {
	defer func() {
		if recover() != nil { // a lexer that fails on hostile text must not end the audit
			found = true
		}
	}()
	for _, t := range lexer.Tokenize(string(b)) {
		if t.Type == token.AliasType || t.Type == token.AnchorType || t.Type == token.MergeKeyType {
			return true
		}
	}
	return false
}

// shallow bounds nesting before a parser sees the text.
func shallow(b []byte) bool {
	flow, indent := 0, 0
	lineStart := true
	markers := 0
	for _, c := range b {
		switch {
		case c == '\n':
			lineStart, indent, markers = true, 0, 0
			continue
		case lineStart && c == ' ':
			if indent++; indent > 8*maxNesting {
				return false
			}
			continue
		case c == '[' || c == '{':
			if flow++; flow > maxNesting {
				return false
			}
		case c == ']' || c == '}':
			flow = max(0, flow-1)
		case c == '-' || c == '?' || c == ':' || c == '!' || c == '|' || c == '>':
			if markers++; markers > 8*maxNesting {
				return false
			}
		}
		lineStart = false
	}
	return true
}

// keyLines finds the line of each key at the depth of interface names.
func keyLines(b []byte) map[string]int {
	out := map[string]int{}
	for _, l := range confd.Lines(b, false) {
		trimmed := strings.TrimLeft(l.Text, " ")
		if len(trimmed) == len(l.Text) || len(out) > maxInterfaces {
			continue
		}
		if key, _, ok := strings.Cut(trimmed, ":"); ok {
			key = strings.Trim(key, `"' `)
			if _, seen := out[key]; !seen {
				out[key] = l.Number
			}
		}
	}
	return out
}
