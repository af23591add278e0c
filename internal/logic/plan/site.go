package plan

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// site is an intent on a host, or on one that is not known (export).
type site struct {
	in      *intent.Intent
	snap    *fact.Snapshot
	ns      *fact.Namespace // nil: not known
	ifaces  []iface         // the more specific ones first
	bridges []string        // names of those that are there
	uplinks []string        // patterns of interfaces by which strangers come in
	sel     intent.Selection
	faults  []*Problem
	learned []string // routers that nobody looked at
	once    []string // keys of interfaces whose routers were learned now
	// What is known once managers have been told (byManagers).
	later   []string      // what takes effect after the file is written, and how
	touched []string      // files of others with a block of ours
	byHand  []change.Risk // what no file of ours can say
}

// iface is an entry of Intent.Interfaces with the names that it stands for.
type iface struct {
	intent.Interface
	key   string
	names []string // as nft writes them: exact, or a prefix and '*'
	not   []string // names and prefixes of more specific entries among them
}

// tests are what rules ask of a packet's interface so that this entry holds.
func (f iface) tests(dir string) []string {
	out := ifTests(dir, slices.DeleteFunc(slices.Clone(f.names), func(n string) bool { return slices.Contains(f.not, n) }))
	if len(f.not) == 0 {
		return out
	}
	for i, t := range out {
		if t != "" && !strings.HasSuffix(t, `*"`) {
			continue // exact names
		}
		for _, n := range f.not {
			t = strings.TrimSpace(dir + " != " + quote(n) + " " + t)
		}
		out[i] = t
	}
	return out
}

// believes tells whether a router's advertisements are taken.
func (f iface) believes(r intent.Router) bool {
	return f.Addressing != intent.NoIPv6 && (f.LearnOnce || r.Accepted == nil || *r.Accepted)
}

// learn lists the routers that interfaces have now, where the intent has nobody look at
// them and names none.
func (s *site) learn() {
	routes, _ := s.ns.Routes.Get()
	ns, _ := s.ns.Neighbours.Get()
	for i := range s.ifaces {
		f := &s.ifaces[i]
		if !f.LearnOnce || len(f.Routers) > 0 {
			continue
		}
		for _, r := range routes {
			if r.Family != "ipv6" || r.Dst.Bits() != 0 || r.Type != 1 || r.Protocol != fact.ProtoRA {
				continue
			}
			for _, h := range r.NextHops {
				if s.sel.Keys[s.linkName(h.Index)] != f.key || !h.Via.IsLinkLocalUnicast() || slices.ContainsFunc(f.Routers, func(x intent.Router) bool { return x.Address == h.Via.WithZone("") }) {
					continue
				}
				x := intent.Router{Address: h.Via.WithZone("")}
				for _, n := range ns {
					if n.Index == h.Index && n.Address == h.Via && isMAC(n.MAC) {
						x.MAC = n.MAC
					}
				}
				if f.PinGateway && x.MAC == "" {
					continue // there is nothing to pin
				}
				f.Routers = append(f.Routers, x)
				s.once = append(s.once, f.key)
				s.learned = append(s.learned, fmt.Sprintf("%s on %s, MAC address %s", x.Address, s.linkName(h.Index), orUnknown(x.MAC)))
			}
		}
		slices.SortFunc(f.Routers, func(a, b intent.Router) int { return a.Address.Compare(b.Address) })
	}
}

func (s *site) fault(path, hint, why string, a ...any) {
	s.faults = append(s.faults, &Problem{Path: path, Why: fmt.Sprintf(why, a...), Hint: hint})
}

// newSite joins an intent with a host; ns is nil for an export.
func newSite(in *intent.Intent, snap *fact.Snapshot, ns *fact.Namespace) *site {
	s := &site{in: in, snap: snap, ns: ns}
	var there map[string][]string
	if ns != nil {
		sel, gap := in.Select(ns)
		if gap != nil && len(in.Interfaces) > 0 {
			s.fault("interfaces", "read the host with the rights to do so, or name the interfaces", "which interfaces are meant is not known: %s", gap.What)
		}
		for _, c := range sel.Conflicts {
			s.fault("interfaces."+c.Keys[0], "make one of them say more (a name, a MAC address), or both the same", "%s and %s both select %s, and want different things", c.Keys[0], c.Keys[1], c.Interface)
		}
		for _, u := range sel.Undecided {
			s.fault("interfaces."+u.Key, "select by name", "whether %s is meant cannot be told: %s is not known", u.Interface, u.What)
		}
		s.sel = sel
		there = map[string][]string{}
		for _, n := range slices.Sorted(maps.Keys(sel.Keys)) {
			there[sel.Keys[n]] = append(there[sel.Keys[n]], n)
		}
		links, _ := ns.Links.Get()
		for _, l := range links {
			if l.Kind == "bridge" {
				s.bridges = append(s.bridges, l.Name)
			}
		}
	}
	keys := slices.Sorted(maps.Keys(in.Interfaces))
	slices.SortStableFunc(keys, func(a, b string) int {
		return -intent.Specificity(in.Interfaces[a].Effective(a), in.Interfaces[b].Effective(b))
	})
	for _, k := range keys {
		f := iface{Interface: in.Interfaces[k], key: k}
		m := f.Effective(k)
		pattern, exact := ifPattern(m.Name)
		byName := m.Name != "" && m.MAC == "" && m.Driver == "" && m.Role == ""
		switch {
		case byName && exact:
			f.names = []string{pattern}
			// An interface that is known by an alternative name.
			for _, n := range there[k] {
				if !matchesPattern(pattern, n) {
					f.names = append(f.names, n)
				}
			}
		case ns != nil:
			f.names = there[k]
		default:
			s.fault("interfaces."+k, "select it by name, or by a name that ends in *; or make the files on the host itself", "what it selects is known on a host only, not in a file that is written for any")
		}
		for _, n := range f.names {
			if err := ifNameFault(strings.TrimSuffix(n, "*")); err != "" {
				s.fault("interfaces."+k, "rename the interface", "the name %q %s", n, err)
			}
		}
		s.ifaces = append(s.ifaces, f)
	}
	for i := range s.ifaces {
		for _, o := range s.ifaces[:i] {
			for _, n := range o.names {
				if overlap(s.ifaces[i].names, []string{n}) && !slices.Contains(s.ifaces[i].not, n) {
					s.ifaces[i].not = append(s.ifaces[i].not, n)
				}
			}
		}
		slices.Sort(s.ifaces[i].not)
	}
	if ns != nil {
		s.learn()
	}
	s.readUplinks()
	return s
}

// ifPattern turns a glob of path.Match into what nft understands.
func ifPattern(glob string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(glob); i++ {
		switch c := glob[i]; c {
		case '*':
			if i != len(glob)-1 {
				return "", false
			}
			b.WriteByte('*')
		case '?', '[':
			return "", false
		case '\\':
			if i++; i == len(glob) || glob[i] == '*' {
				return "", false
			}
			b.WriteByte(glob[i])
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), true
}

func matchesPattern(pattern, name string) bool {
	if p, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, p)
	}
	return pattern == name
}

// ifNameFault says why a name cannot be written into files.
func ifNameFault(n string) string {
	switch {
	case len(n) > 15:
		return "is longer than the 15 bytes of an interface name"
	case strings.ContainsAny(n, "/\"\\*?[]{}") || strings.ContainsFunc(n, func(r rune) bool { return r <= ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0xfffd }):
		return "has a character that no rule, sysctl or network file can carry"
	case n == "." || n == "..":
		return "is no interface name"
	}
	return ""
}

// readUplinks finds the interfaces by which strangers surely come in: the declared ones,
// else those of the default routes.
func (s *site) readUplinks() {
	for _, f := range s.ifaces {
		s.uplinks = append(s.uplinks, f.names...)
	}
	if len(s.uplinks) > 0 || s.ns == nil {
		return
	}
	routes, _ := s.ns.Routes.Get()
	for _, r := range routes {
		if r.Dst.Bits() != 0 || r.Type != 1 || r.Table == 255 {
			continue
		}
		for _, h := range r.NextHops {
			if n := s.linkName(h.Index); n != "" && n != "lo" && !slices.Contains(s.uplinks, n) {
				s.uplinks = append(s.uplinks, n)
			}
		}
	}
	slices.Sort(s.uplinks)
}

// gateway is a next hop of a default route.
type gateway struct {
	dev string
	via netip.Addr
}

// gateways are the IPv6 default routers that people configured; empty where the host is
// not known. Those that announced themselves are for the intent to believe.
func (s *site) gateways() []gateway {
	if s.ns == nil {
		return nil
	}
	var out []gateway
	routes, _ := s.ns.Routes.Get()
	for _, r := range routes {
		if r.Family != "ipv6" || r.Dst.Bits() != 0 || r.Type != 1 || r.Protocol != fact.ProtoStatic && r.Protocol != fact.ProtoBoot {
			continue
		}
		for _, h := range r.NextHops {
			if n := s.linkName(h.Index); n != "" && h.Via.Is6() && ifNameFault(n) == "" {
				out = append(out, gateway{n, h.Via.WithZone("")})
			}
		}
	}
	slices.SortFunc(out, func(a, b gateway) int { return cmp.Or(strings.Compare(a.dev, b.dev), a.via.Compare(b.via)) })
	return slices.Compact(out)
}

func (s *site) linkName(index int) string {
	links, _ := s.ns.Links.Get()
	for _, l := range links {
		if l.Index == index {
			return l.Name
		}
	}
	return ""
}

// tests are what rules ask of a packet's interface so that it is one of a key, or has
// the name or glob that is written instead of one; nil where there is none.
func (s *site) tests(dir, path, key string) []string {
	for _, f := range s.ifaces {
		if f.key == key {
			if len(f.names) == 0 {
				return nil
			}
			return f.tests(dir)
		}
	}
	p, ok := ifPattern(key)
	if why := ifNameFault(strings.TrimSuffix(p, "*")); !ok || why != "" {
		s.fault(path, "name a key of interfaces, an interface, or a name that ends in *", "%q is no interface that a rule can name", key)
		return nil
	}
	return ifTests(dir, []string{p})
}

// split keeps the prefixes of a family, the contained ones joined with what contains
// them: nft refuses lists that overlap.
func (s *site) split(path string, ps []netip.Prefix, v4 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range ps {
		switch {
		case !p.IsValid() || p.Addr().Is4In6():
			s.fault(path, "write 192.0.2.0/24 or 2001:db8::/32", "%s is no prefix that a rule can carry", p)
		case p.Addr().Is4() == v4:
			out = append(out, p.Masked())
		}
	}
	return minimal(out)
}

func minimal(ps []netip.Prefix) []netip.Prefix {
	slices.SortFunc(ps, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var out []netip.Prefix
	for _, p := range ps {
		if n := len(out); n > 0 && out[n-1].Bits() <= p.Bits() && out[n-1].Contains(p.Addr()) {
			continue
		}
		out = append(out, p)
	}
	return out
}
