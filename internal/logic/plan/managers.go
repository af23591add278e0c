package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// Network managers take Router Advertisements in userspace, whatever accept_ra says, and
// write sysctls of their own: each is told in its own language, in a file of our own
// that is read after the others. Where there is no such place, see marked.

// told is an interface that is there, and what the intent wants of it.
type told struct {
	link fact.Link
	f    iface
	path string // into the intent
}

// tell are the interfaces that managers are to be told about.
func (s *site) tell() []told {
	var out []told
	links, _ := s.ns.Links.Get()
	for _, l := range links {
		if l.Flags&iffLoopback != 0 {
			continue
		}
		i := slices.IndexFunc(s.ifaces, func(f iface) bool { return f.key == s.sel.Keys[l.Name] })
		t := told{link: l}
		switch {
		case s.sel.Keys[l.Name] != "" && i >= 0:
			t.f, t.path = s.ifaces[i], "interfaces."+s.ifaces[i].key
		case !disabled(s.in):
			continue
		}
		if disabled(s.in) {
			t.f.Addressing, t.path = intent.NoIPv6, "families"
		}
		out = append(out, t)
	}
	return out
}

const iffLoopback = 8

// believes tells whether Router Advertisements are to be taken.
func (t told) believes() bool {
	return t.f.Addressing == intent.SLAAC || t.f.Addressing == intent.DHCPv6
}

// settings of a manager of that name for an interface; doubt: they may be those.
func (s *site) toldBy(manager string, l *fact.Link) (mi *fact.ManagedInterface, doubt *fact.Gap) {
	for _, m := range s.managers() {
		if m.Name == manager && works(&m) {
			return m.For(l)
		}
	}
	return nil, nil
}

// works tells whether a manager does anything, or will after a boot.
func works(m *fact.Manager) bool {
	running, kr := m.Running.Get()
	enabled, ke := m.Enabled.Get()
	return !kr || running || !ke || enabled || m.Name == "netplan"
}

// reader gives a file as it is now.
type reader func(path string) change.Image

// byManagers are the files for network managers, and what remains for a person to do.
func (s *site) byManagers(settings []setting, read reader) []file {
	var out []file
	for _, write := range []func([]setting, reader) []file{s.networkd, s.netplan, s.networkManager, s.dhcpcd, s.ifupdown} {
		out = append(out, write(settings, read)...)
	}
	return out
}

// pending notes what takes effect later than the file is written.
func (s *site) pending(iface, manager, command string) {
	s.later = append(s.later, fmt.Sprintf("%s: %s: %s", iface, manager, command))
}

// undone notes what is not done, with the exact lines for a person.
func (s *site) undone(iface, manager, detail, remedy string) {
	s.byHand = append(s.byHand, change.Risk{
		ID: "manager-takes-ra", Severity: "medium", Title: manager + " listens to Router Advertisements on " + iface + " by itself, and is not told otherwise",
		Detail: detail + " " + s.guarded(), Remedy: remedy,
	})
}

// guarded says what else stands against rogue advertisements.
func (s *site) guarded() string {
	if _, v6 := manages(s.in); v6 {
		return "The rules keep rogue ones away."
	}
	return "No rule of ours keeps rogue ones away, as firewall.manage says."
}

// plainName tells whether a name can stand in the files of managers without quoting; if
// not, that is a fault.
func (s *site) plainName(t told) bool {
	n := t.link.Name
	if ifNameFault(n) == "" && !strings.ContainsFunc(n, func(r rune) bool {
		return r > '~' || !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-:@", r))
	}) && n[0] != '-' && n[0] != '.' {
		return true
	}
	s.fault(t.path, "rename the interface", "the name %q has a character that the files of network managers cannot carry", n)
	return false
}

// whyRA are the reasons of a step that tells a manager.
func whyRA(t told, control string) []string { return []string{t.path, control} }

// hasAddress tells whether a manager gives an interface addresses of its own.
func hasAddress(mi *fact.ManagedInterface) bool { return len(mi.Addresses) > 0 }

// dropins collects one text per path; interfaces that share one must want the same.
type dropins struct {
	s     *site
	order []string
	files map[string]file
}

func (d *dropins) add(t told, p, source, text string, why []string) {
	if d.files == nil {
		d.files = map[string]file{}
	}
	old, ok := d.files[p]
	if ok && old.text != text {
		d.s.fault(t.path, "give each interface a file of its own", "%s and another interface share %s, and want different things", t.link.Name, source)
		return
	}
	if !ok {
		d.order = append(d.order, p)
	}
	old.path, old.text, old.mode = p, text, 0o644
	for _, w := range why {
		if !slices.Contains(old.why, w) {
			old.why = append(old.why, w)
		}
	}
	d.files[p] = old
}

func (d *dropins) list() (out []file) {
	for _, p := range d.order {
		out = append(out, d.files[p])
	}
	return out
}

// gone are files of ours that nothing asks for any more.
func gone(wanted []file, paths ...string) (out []file) {
	for _, p := range sortedUnique(paths) {
		if !slices.ContainsFunc(wanted, func(f file) bool { return f.path == p }) {
			out = append(out, file{path: p, gone: true, why: []string{"intent"}})
		}
	}
	return out
}

// base is the name of a file, for messages.
func base(p string) string { return path.Base(p) }
