package check

import (
	"cmp"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// sourceOf tells the family of an address pattern; "" when it is for both or is
// none, "loopback" for the host itself.
func sourceOf(pattern string) string {
	p := strings.TrimPrefix(pattern, "!")
	if i := strings.LastIndexByte(p, '@'); i >= 0 {
		p = p[i+1:]
	}
	p = strings.Trim(p, "[]")
	if pre, err := netip.ParsePrefix(p); err == nil {
		return familyWord(pre.Addr(), pre.Bits())
	}
	if a, err := netip.ParseAddr(p); err == nil {
		return familyWord(a, a.BitLen())
	}
	if strings.Contains(p, ":") {
		return "ipv6"
	}
	// 192.0.2.* , 10. , 10.0.0.0/255.0.0.0
	if p != "" && p[0] >= '0' && p[0] <= '9' && strings.Contains(p, ".") && strings.Trim(p, "0123456789.*?/") == "" {
		if strings.HasPrefix(p, "127.") {
			return "loopback"
		}
		return "ipv4"
	}
	return ""
}

func familyWord(a netip.Addr, bits int) string {
	switch {
	case a.IsLoopback() && bits > 0:
		return "loopback"
	case a.Is4() || a.Is4In6():
		return "ipv4"
	}
	return "ipv6"
}

// catchAll tells whether a pattern is everybody.
func catchAll(p string) bool {
	switch strings.ToLower(p) {
	case "all", "*", "any", "0.0.0.0/0 ::/0":
		return true
	}
	return false
}

// sourceList is the patterns of one list in one file that act alike.
type sourceList struct {
	app, keyword, action string
	origin               fact.Origin
	v4, v6               []string
	closed               bool // a catch-all denies the rest
}

// sourceLists groups patterns by keyword and action.
func sourceLists(app string, ps []fact.SourcePattern) []*sourceList {
	var out []*sourceList
	at := map[string]*sourceList{}
	closed := slices.ContainsFunc(ps, func(p fact.SourcePattern) bool { return p.Action == "deny" && catchAll(p.Pattern) })
	for _, p := range ps {
		if p.Action != "allow" && p.Action != "deny" && !strings.HasPrefix(p.Keyword, "Match") {
			continue // where to listen, not whom to let in
		}
		k := p.Origin.File + "\x00" + p.Keyword + "\x00" + p.Action
		if strings.HasPrefix(p.Keyword, "Match") {
			k += strconv.Itoa(p.Origin.Line) // each block is a list of its own
		}
		l := at[k]
		if l == nil {
			l = &sourceList{app: app, keyword: p.Keyword, action: p.Action, origin: p.Origin, closed: closed}
			at[k] = l
			out = append(out, l)
		}
		for _, word := range strings.FieldsFunc(p.Pattern, func(r rune) bool { return r == ',' || r == ' ' }) {
			switch fam := sourceOf(word); {
			case strings.HasPrefix(word, "!"): // an exception from another pattern
			case catchAll(word):
				l.v6 = append(l.v6, word)
			case fam == "ipv4":
				l.v4 = append(l.v4, word)
			case fam == "ipv6":
				l.v6 = append(l.v6, word)
			}
		}
	}
	return out
}

func aclParity(c *Context) []Result {
	apps := &c.Snap.Host.Apps
	var out []Result
	about := func(app string, g *fact.Gap) {
		if g != nil {
			out = append(out, unknown(finding.Subject{Key: app}, *g))
		}
	}
	if d, ok := apps.SSHD.Get(); ok {
		for _, l := range sourceLists("sshd", d.MatchAddresses) {
			out = append(out, l.judge(d.AddressFamily == "inet" || onlyIPv4(d.Listen)))
		}
	} else {
		about("sshd", gapAs(apps.SSHD, "sshd_config"))
	}
	if acls, ok := apps.SourceACLs.Get(); ok {
		for _, a := range acls {
			for _, l := range sourceLists(a.App, a.Patterns) {
				out = append(out, l.judge(false))
			}
		}
	} else {
		about("access lists", gapAs(apps.SourceACLs, "access lists of applications"))
	}
	if ps, ok := apps.Postgres.Get(); ok {
		for _, p := range ps {
			if len(p.HBA) > 0 {
				out = append(out, judgeHBA(p))
			}
		}
	} else {
		about("PostgreSQL", gapAs(apps.Postgres, "pg_hba.conf"))
	}
	if len(apps.Gaps) > 0 {
		out = append(out, unknown(finding.Subject{Key: "access lists"}, apps.Gaps...))
	}
	return dedupe(out)
}

func (l *sourceList) judge(noIPv6 bool) Result {
	sub := finding.Subject{File: l.origin.File, Key: strings.TrimSpace(l.app + " " + l.keyword + " " + l.action)}
	ev := written(l.origin, l.keyword, listing(l.v4, 5))
	switch {
	case len(l.v4) == 0:
		return pass(sub, "Names no IPv4 network.", written(l.origin, l.keyword, cmp.Or(listing(l.v6, 5), "no address")))
	case len(l.v6) > 0:
		return pass(sub, "Names networks of both families.", ev)
	case noIPv6:
		return pass(sub, "Names IPv4 networks only, and the program is configured for IPv4 only.", ev)
	case l.closed && l.action != "deny":
		return pass(sub, "IPv6 clients meet the catch-all that denies the rest.", ev)
	case l.closed:
		return pass(sub, "The rest, IPv6 included, is denied too.", ev)
	case strings.HasPrefix(l.keyword, "Match"):
		r := fail(sub, fmt.Sprintf("%s at %s:%d applies to %s and to no IPv6 client: they get the settings outside the block.", l.keyword, l.origin.File, l.origin.Line, listing(l.v4, 3)), ev)
		r.Severity = finding.Medium
		return r
	case l.action == "deny" || strings.HasPrefix(l.keyword, "Deny"):
		return fail(sub, fmt.Sprintf("%s denies %s and says nothing about IPv6: the same clients come in over IPv6.", l.app, listing(l.v4, 3)), ev)
	}
	return pass(sub, "Allows IPv4 networks; IPv6 clients are not on the list.", ev)
}

// prefixOf reads the address column of pg_hba.conf: a prefix, an address, or an
// address and a mask.
func prefixOf(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p, true
	}
	addr, mask, masked := strings.Cut(s, "/")
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.Prefix{}, false
	}
	if !masked {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	m, err := netip.ParseAddr(mask)
	if err != nil || m.BitLen() != a.BitLen() {
		return netip.Prefix{}, false
	}
	n := 0
	for _, b := range m.AsSlice() {
		n += bits.OnesCount8(b)
	}
	return netip.PrefixFrom(a, n), true
}

// judgeHBA compares the widest networks that pg_hba.conf lets in.
func judgeHBA(p fact.Postgres) Result {
	widest := map[string]int{} // family → shortest prefix that is let in
	line := map[string]fact.SourcePattern{}
	origin := p.Origin
	closed := map[string]bool{} // the first line that matches decides
	for _, h := range p.HBA {
		origin = h.Origin
		fams := []string{"ipv4", "ipv6"}
		width := 0
		if !catchAll(h.Pattern) {
			pre, ok := prefixOf(h.Pattern)
			if !ok || pre.Addr().IsLoopback() && pre.Bits() > 0 {
				continue
			}
			fams, width = []string{FamilyOf(pre.Addr())}, pre.Bits()
		}
		for _, f := range fams {
			if h.Action == "reject" {
				closed[f] = closed[f] || width == 0
				continue
			}
			if closed[f] {
				continue
			}
			if b, ok := widest[f]; !ok || width < b {
				widest[f], line[f] = width, h
			}
		}
	}
	sub := finding.Subject{File: origin.File, Key: "pg_hba"}
	b4, has4 := widest["ipv4"]
	b6, has6 := widest["ipv6"]
	if has6 && b6 == 0 && (!has4 || b4 > 0) {
		l := line["ipv6"]
		msg := fmt.Sprintf("pg_hba.conf line %d lets every IPv6 client try to log in (%s, %s)", l.Origin.Line, l.Pattern, l.Action)
		if has4 {
			msg += fmt.Sprintf(", while IPv4 clients must come from %s", line["ipv4"].Pattern)
		} else {
			msg += ", while no IPv4 client but loopback may"
		}
		return fail(sub, msg+".", written(l.Origin, l.Keyword, l.Pattern+" "+l.Action))
	}
	return pass(sub, "IPv6 clients are let in no wider than IPv4 clients.", written(origin, "pg_hba", count(len(p.HBA), "line")))
}

func fail2banCovers(c *Context) []Result {
	f, ok := c.Snap.Host.Apps.Fail2ban.Get()
	sub := finding.Subject{Key: "fail2ban"}
	if !ok {
		if g := gapAs(c.Snap.Host.Apps.Fail2ban, "fail2ban's configuration"); g != nil {
			return []Result{unknown(sub, *g)}
		}
		return []Result{notApplicable(sub, "fail2ban is not installed.")}
	}
	sub.File = f.Origin.File
	allow, known := f.AllowIPv6.Get()
	if g := gapOf(f.AllowIPv6); !known && g != nil {
		return []Result{unknown(sub, *g)}
	}
	ev := written(f.Origin, "allowipv6", cmp.Or(allow, "auto (default)"))
	switch strings.ToLower(allow) {
	case "no", "0", "false", "off":
		return []Result{fail(sub, "allowipv6 = "+allow+": fail2ban ignores IPv6 clients.", ev)}
	}
	if g := gapOf(f.Action); g != nil {
		return []Result{unknown(sub, *g)}
	}
	if a := f.Action.Or(""); strings.Contains(a, "proto4") || strings.HasSuffix(a, "-ipv4") {
		return []Result{fail(sub, "banaction = "+a+" bans in IPv4 only.", written(f.Origin, "banaction", a))}
	}
	return []Result{pass(sub, "IPv6 clients are banned too, each address by itself: an attacker has as many as his prefix.", ev)}
}

func socketUnits(c *Context) []Result {
	us, ok := c.Snap.Host.Files.Units.Get()
	if !ok {
		if g := gapAs(c.Snap.Host.Files.Units, "systemd units"); g != nil {
			return []Result{unknown(finding.Subject{}, *g)}
		}
		return nil
	}
	only := fact.Unsupported[int64]()
	if p := c.primary(); p != nil {
		only = p.SysctlInt("net/ipv6/bindv6only")
	}
	var out []Result
	for _, u := range us {
		if !strings.HasSuffix(u.Name, ".socket") || !u.Enabled || u.Masked {
			continue
		}
		var both, inet []string
		for _, l := range u.Listen {
			host, port, isInet := socketAddress(l)
			if !isInet {
				continue
			}
			inet = append(inet, l)
			if host == "" || host == "::" {
				both = append(both, cmp.Or(port, l))
			}
		}
		if len(inet) == 0 {
			continue
		}
		sub := finding.Subject{File: u.Path, Key: u.Name}
		mode := cmp.Or(u.BindIPv6Only, "default")
		ev := written(u.Origin, "Listen, BindIPv6Only", strings.Join(inet, " ")+", "+mode)
		v6, _ := only.Get()
		switch {
		case len(both) == 0 || mode == "ipv6-only":
			out = append(out, pass(sub, u.Name+" says for which family each address is.", ev))
		case mode == "default" && gapOf(only) != nil:
			out = append(out, unknown(sub, *gapOf(only)))
		case mode == "default" && v6 == 1:
			out = append(out, pass(sub, u.Name+" listens on IPv6 alone, because net.ipv6.bindv6only is 1.", ev))
		default:
			out = append(out, fail(sub, fmt.Sprintf("%s listens on port %s without naming an address: one socket for both families (BindIPv6Only=%s).", u.Name, strings.Join(both, ", "), mode), ev))
		}
	}
	return out
}

// socketAddress reads ListenStream= and its like: "22", "[::]:22", "192.0.2.1:22".
func socketAddress(l string) (host, port string, inet bool) {
	if _, err := strconv.ParseUint(l, 10, 16); err == nil {
		return "", l, true
	}
	if ap, err := netip.ParseAddrPort(l); err == nil {
		return ap.Addr().WithZone("").String(), strconv.Itoa(int(ap.Port())), true
	}
	return "", "", false
}

func socketsWithoutStack(c *Context) []Result {
	return c.eachEars(func(s *Space, e *ears) []Result {
		if g := gapOf(s.Links); g != nil {
			return []Result{unknown(s.Subject(), *g)}
		}
		off := false
		for i := range s.links {
			l := &s.links[i]
			if l.Flags&iffLoopback != 0 {
				continue
			}
			k := s.ConfInt(l.Name, "disable_ipv6")
			v, ok := k.Get()
			if g := gapOf(k); g != nil {
				return []Result{unknown(s.Subject(), *g)}
			}
			if ok && v == 0 {
				return []Result{notApplicable(s.Subject(), "IPv6 is on.")}
			}
			off = off || ok
		}
		if !off {
			return []Result{notApplicable(s.Subject(), "There is no interface on which IPv6 could be off.")}
		}
		var names []string
		for i := range e.list {
			if a := &e.list[i]; a.Family == "ipv6" && a.Protocol != "raw" && !a.ephemeral && (!a.Local.IsValid() || a.Local.IsUnspecified()) {
				word := "IPv6 only"
				if a.dual {
					word = "serves IPv4"
				}
				names = append(names, service(a)+" ("+word+")")
			}
		}
		if len(names) == 0 {
			return []Result{pass(s.Subject(), "IPv6 is off on every interface and no service holds a wildcard IPv6 socket.")}
		}
		names = sortedUnique(names)
		return []Result{fail(s.Subject(), "IPv6 is off on every interface, and these wait for it: "+listing(names, 6)+".", c.observed("inet_diag", "wildcard IPv6 sockets", listing(names, 30)))}
	})
}

// discovery are the services that are found by multicast.
var discovery = []struct {
	name  string
	port  uint16
	match func(netip.Addr) bool
}{
	{"mDNS", 5353, groupID("::fb")},
	{"LLMNR", 5355, groupID("::1:3")},
	{"SSDP", 1900, groupID("::c")},
	{"multicast NTP", 123, groupID("::101")},
}

// groupID matches a permanent multicast group of any scope.
func groupID(id string) func(netip.Addr) bool {
	want := netip.MustParseAddr(id).As16()
	return func(a netip.Addr) bool {
		if !a.IsMulticast() || !a.Is6() {
			return false
		}
		b := a.As16()
		return b[1]>>4 == 0 && string(b[2:]) == string(want[2:])
	}
}

func multicastServices(c *Context) []Result {
	return c.eachEars(func(s *Space, e *ears) []Result {
		if g := gapOf(s.Multicast); g != nil {
			return []Result{unknown(s.Subject(), *g)}
		}
		groups, _ := s.Multicast.Get()
		var out []Result
		for _, d := range discovery {
			i := slices.IndexFunc(e.list, func(a ear) bool {
				return a.Family == "ipv6" && a.Protocol == "udp" && a.Port == d.port && (a.v6 > thisHost || a.gap6 != nil)
			})
			if i < 0 {
				continue
			}
			a := &e.list[i]
			for _, m := range groups {
				l := s.Link(m.Index)
				if l == nil || l.Flags&iffLoopback != 0 || !d.match(m.Group) {
					continue
				}
				sub := s.socketSubject(a)
				sub.Interface, sub.Address = l.Name, m.Group.String()
				if a.v6 <= thisHost {
					out = append(out, unknown(sub, *a.gap6))
					continue
				}
				r := fail(sub, fmt.Sprintf("%s on %s: %s joined %s and udp/%d is bound; neighbours would be answered.", d.name, l.Name, cmp.Or(a.exe, "a program"), m.Group, d.port),
					s.socketEvidence(a), c.observed("RTM_GETMULTICAST", l.Name, m.Group.String()))
				if c.Role.Name == RoleWorkstation {
					r.Severity = finding.Info
				}
				out = append(out, s.behindPort("ipv6", l.Name, r))
			}
		}
		if out == nil {
			out = append(out, pass(s.Subject(), "No discovery service listens for IPv6 multicast here."))
		}
		return fold(out)
	})
}
