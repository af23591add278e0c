package plan

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// Files of ours for NetworkManager. Sections of a file that is read later go before.
const (
	NMConfFile = "/etc/NetworkManager/conf.d/zz-sixfence.conf"
	nmProfiles = "/etc/NetworkManager/system-connections/"
	nmOwn      = nmProfiles + "sixfence-"
)

// nmProfile is where the profile of ours for an interface is that nobody else has one for.
func nmProfile(iface string) string { return nmOwn + iface + ".nmconnection" }

// networkManager has three forms: defaults in a file of ours; a profile of ours where
// NetworkManager would make one up; and, since no file overrides ipv6.method, a block in
// the profile of others. It takes RAs by itself (libndp) and knows no list of routers.
func (s *site) networkManager(_ []setting, read reader) []file {
	var out []file
	var sections, own []string
	var whyConf []string
	edits := map[string]*nmEdit{}
	for _, m := range s.managers() {
		for _, i := range m.Interfaces {
			if m.Name == "NetworkManager" && nmEditable(i.File) {
				edits[i.File] = &nmEdit{} // whose block may have to go
			}
		}
	}
	links, _ := s.ns.Links.Get()
	for _, l := range links {
		if ifNameFault(l.Name) == "" {
			own = append(own, nmProfile(l.Name))
		}
	}
	for _, t := range s.tell() {
		mi, doubt := s.toldBy("NetworkManager", &t.link)
		invented := mi != nil && mi.File == "" && slices.Equal(mi.Match, []string{"type=ethernet"})
		if mi == nil || mi.File == "" && !invented || t.link.Master != 0 {
			continue // left alone by it, or a port without addresses
		}
		n := t.link.Name
		switch {
		case strings.HasPrefix(base(mi.File), "netplan-"):
			s.pending(n, "NetworkManager by netplan", "netplan apply")
			continue // netplan writes it again and again, and has been told
		case invented && (t.believes() || !ethernet(t.link)):
			continue // the default believes, and takes addresses of all kinds
		case invented && !s.plainName(t):
			continue
		case invented, mi.File == nmProfile(n):
			out = append(out, file{path: nmProfile(n), text: nmProfileText(n, t.f.Addressing), mode: 0o600, why: whyRA(t, "RA-03")})
			s.pending(n, "NetworkManager", "nmcli connection up sixfence-"+n)
			continue
		}
		if !s.plainName(t) {
			continue
		}
		if s.in.Role != intent.RoleWorkstation && t.f.Addressing != intent.NoIPv6 {
			sections = append(sections, fmt.Sprintf("[connection-sixfence-%s]\nmatch-device=interface-name:=%s\nipv6.ip6-privacy=0\n", n, n))
			whyConf = append(whyConf, whyRA(t, "SYSCTL-ADDR-01")...)
		}
		now := read(mi.File)
		remedy := fmt.Sprintf("nmcli connection modify CONNECTION ipv6.method %s (of %s)", nmMethodFor(t.f.Addressing, hasAddress(mi)), n)
		e := edits[mi.File]
		why := ""
		switch {
		case doubt != nil:
			why = "Whether " + mi.File + " is its profile is not sure."
		case strings.HasPrefix(base(mi.File), "ifcfg-"):
			why = mi.File + " is an ifcfg file: sixfence writes none, and nmcli does."
		case e == nil:
			why = mi.File + " is written by something else, which would write it again."
		case now.Absent || now.Mode == 0o777:
			why = mi.File + " could not be read."
		default:
			why = nmFault(now.Text)
		}
		if why != "" {
			if mi.AcceptRA.Or(false) && !t.believes() {
				s.undone(n, "NetworkManager", why, remedy)
			}
			continue
		}
		e.add(t, s.in.Role != intent.RoleWorkstation)
		if len(e.wants) > 1 {
			s.fault(t.path, "give each interface a profile of its own", "%s and another interface share %s, and want different things", n, mi.File)
		}
	}
	for _, p := range sortedKeys(edits) {
		e, now := edits[p], read(p)
		if strings.HasPrefix(p, nmOwn) {
			continue
		}
		list := s.edited(p, now.Text, now.Absent || now.Mode == 0o777, sortedUnique(e.why), func(text string) string { return e.apply(text) })
		for _, f := range list {
			for _, n := range e.ifaces {
				if f.text != now.Text {
					s.pending(n, "NetworkManager", "nmcli device reapply "+n)
				}
			}
		}
		out = append(out, list...)
	}
	if len(sections) > 0 {
		out = append(out, file{path: NMConfFile, text: "# Written by sixfence from its intent; do not edit.\n" + strings.Join(sections, "\n"), mode: 0o644, why: sortedUnique(whyConf)})
	}
	return append(out, gone(out, append(own, NMConfFile)...)...)
}

// nmEditable tells whether a profile is one that stays as it is written.
func nmEditable(p string) bool { return strings.HasPrefix(p, nmProfiles) }

// ethernet tells whether NetworkManager makes up a profile for an interface.
func ethernet(l fact.Link) bool {
	return l.Type == 1 && (l.Kind == "" || l.Kind == "veth")
}

func nmMethodFor(a intent.Addressing, addresses bool) string {
	switch {
	case a == intent.NoIPv6:
		return "disabled"
	case addresses:
		return "manual"
	}
	return "link-local" // it takes no profile that is manual and has no address
}

// nmProfileText is the profile that NetworkManager would make up ("Wired connection 1"),
// but for IPv6. Any profile of somebody's goes before it.
func nmProfileText(iface string, a intent.Addressing) string {
	sum := sha256.Sum256([]byte("sixfence " + iface))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	return fmt.Sprintf("# Written by sixfence from its intent; do not edit.\n[connection]\nid=sixfence-%s\nuuid=%x-%x-%x-%x-%x\ntype=ethernet\nautoconnect-priority=-999\ninterface-name=%s\n\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=%s\n",
		iface, sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16], iface, nmMethodFor(a, false))
}

// nmPlain are the sections of a profile that hold no secret: the plan shows files whole.
var nmPlain = []string{"connection", "ethernet", "802-3-ethernet", "ipv4", "ipv6", "proxy", "match", "bond", "bridge", "bridge-port", "vlan", "ethtool", "user", "link", "vrf", "dcb", "sriov", "tc", "macvlan", "dummy", "veth"}

// nmFault says why a profile is not edited.
func nmFault(text string) string {
	seen := map[string]bool{}
	for _, line := range linesOf(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "[") {
			continue
		}
		name := strings.TrimSuffix(line[1:], "]")
		switch {
		case !slices.Contains(nmPlain, name):
			return "Its profile has a section that may hold secrets, and a plan shows files whole."
		case seen[name]:
			return "Its profile has the section " + name + " twice."
		}
		seen[name] = true
	}
	return ""
}

// nmEdit is what a profile is to say.
type nmEdit struct {
	wants  []nmWant
	ifaces []string
	why    []string
}

type nmWant struct {
	addressing intent.Addressing
	plain      bool // no temporary addresses
}

func (e *nmEdit) add(t told, plain bool) {
	w := nmWant{t.f.Addressing, plain}
	if t.believes() {
		w.addressing = intent.SLAAC // alike, for NetworkManager
	}
	if !slices.Contains(e.wants, w) {
		e.wants = append(e.wants, w)
	}
	e.ifaces = append(e.ifaces, t.link.Name)
	e.why = append(e.why, whyRA(t, "RA-03")...)
}

// apply puts our block into the section ipv6, in place of the lines it overrides.
func (e *nmEdit) apply(text string) string {
	if len(e.wants) == 0 {
		return text
	}
	w := e.wants[0]
	lines := linesOf(text)
	section, head := "", -1
	keys := map[string]int{}
	address := false
	for i, line := range lines {
		line = strings.TrimSpace(line)
		switch k, _, ok := strings.Cut(line, "="); {
		case strings.HasPrefix(line, "["):
			if section = strings.Trim(line, "[]"); section == "ipv6" {
				head = i
			}
		case section == "ipv6" && ok && line[0] != '#':
			k = strings.TrimSpace(k)
			if _, there := keys[k]; !there || k != "method" {
				keys[k] = i
			}
			address = address || strings.HasPrefix(k, "address") && !strings.HasPrefix(k, "addr-gen")
		}
	}
	value := func(key string) string {
		if i, ok := keys[key]; ok {
			_, v, _ := strings.Cut(lines[i], "=")
			return strings.TrimSpace(v)
		}
		return ""
	}
	set := map[string]string{}
	if m := value("method"); w.addressing != intent.SLAAC && (m == "" || m == "auto" || m == "dhcp") || w.addressing == intent.NoIPv6 && m != "disabled" && m != "ignore" {
		set["method"] = nmMethodFor(w.addressing, address)
	}
	if p := value("ip6-privacy"); w.plain && w.addressing != intent.NoIPv6 && p != "" && p != "0" && p != "-1" {
		set["ip6-privacy"] = "0"
	}
	if len(set) == 0 {
		return text
	}
	var replaced, ours []string
	drop := map[int]bool{}
	at := head + 1
	for _, k := range sortedKeys(set) {
		ours = append(ours, k+"="+set[k])
		if i, ok := keys[k]; ok {
			drop[i] = true
		}
	}
	if head < 0 {
		return marked(text, nil, "", append([]string{"[ipv6]"}, ours...)...)
	}
	// The block stands where the first of the lines stood; the others must follow it
	// without a gap, or it takes what is between with it.
	last := at
	first := true
	for i := range lines {
		if drop[i] {
			if first {
				at, first = i, false
			}
			last = i + 1
		}
	}
	for i := at; i < last; i++ {
		replaced = append(replaced, lines[i])
		if !drop[i] {
			ours = append(ours, strings.TrimRight(lines[i], "\r\n"))
		}
	}
	return marked(strings.Join(lines[:at], ""), replaced, strings.Join(lines[last:], ""), ours...)
}
