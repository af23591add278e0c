package manager

import (
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// ifupdownFiles are /etc/network/interfaces and what it sources, in the order in
// which ifupdown reads them: a source line is replaced by the files it names.
type ifupdownFiles struct {
	files []confd.File // pieces in order; a file with source lines comes in several
	start []int        // number of the first line of each piece
	gaps  []fact.Gap
}

const maxSources = 256

func readIfupdown(t *tree.Tree, b *confd.Budget) source {
	d := &ifupdownFiles{}
	d.include(t, b, "/etc/network/interfaces", 0)
	return d
}

var directoryName = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

// include reads a file and, in place, those it sources.
func (d *ifupdownFiles) include(t *tree.Tree, b *confd.Budget, name string, depth int) {
	f := b.Read(t, name)
	c, ok := f.Content.Get()
	if !ok {
		d.files, d.start = append(d.files, f), append(d.start, 1)
		return
	}
	text := string(c)
	first, n := 1, 0
	var piece strings.Builder
	flush := func(next int) {
		d.files = append(d.files, confd.File{Name: f.Name, Path: f.Path, Content: fact.Value([]byte(piece.String()))})
		d.start = append(d.start, first)
		piece.Reset()
		first = next
	}
	for line := range strings.SplitSeq(text, "\n") {
		n++
		w := strings.Fields(line)
		if len(w) < 2 || w[0] != "source" && w[0] != "source-directory" {
			piece.WriteString(line + "\n")
			continue
		}
		flush(n + 1)
		if depth >= 5 || len(d.files) > maxSources {
			d.gaps = append(d.gaps, fact.Gap{Reason: fact.Truncated, What: f.Path + ":" + strconv.Itoa(n) + ": sources too many files"})
			continue
		}
		for _, p := range w[1:] {
			for _, s := range d.expand(t, f.Path, n, p, w[0] == "source-directory") {
				d.include(t, b, s, depth+1)
			}
		}
	}
	flush(n + 1)
}

// expand finds the files of a source or source-directory line. A relative path is
// relative to the file that holds it.
func (d *ifupdownFiles) expand(t *tree.Tree, file string, line int, p string, directory bool) []string {
	if strings.ContainsAny(p, "$`~\"'\\") {
		d.gaps = append(d.gaps, confd.ParseGap(file, line)) // wordexp: more than a shell pattern
		return nil
	}
	if !path.IsAbs(p) {
		p = path.Join(path.Dir(file), p)
	}
	found := []string{"/"}
	for _, part := range strings.Split(strings.Trim(path.Clean(p), "/"), "/") {
		var next []string
		for _, dir := range found {
			if !strings.ContainsAny(part, "*?[") {
				next = append(next, path.Join(dir, part))
				continue
			}
			k := t.List(dir)
			if g, ok := k.Gap(); ok {
				d.gaps = append(d.gaps, g)
			}
			for _, name := range k.Or(nil) {
				if (name[0] != '.' || part[0] == '.') && glob(part, name) && len(next) < maxSources {
					next = append(next, path.Join(dir, name))
				}
			}
		}
		found = next
	}
	var out []string
	for _, p := range found {
		i, ok := t.Stat(p).Get()
		if !ok {
			if g, gap := t.Stat(p).Gap(); gap {
				d.gaps = append(d.gaps, g)
			}
			continue
		}
		if !directory {
			if !i.IsDir() {
				out = append(out, p)
			}
			continue
		}
		if !i.IsDir() {
			continue
		}
		k := t.List(p)
		if g, ok := k.Gap(); ok {
			d.gaps = append(d.gaps, g)
		}
		for _, name := range k.Or(nil) {
			if st, ok := t.Stat(p + "/" + name).Get(); ok && directoryName.MatchString(name) && st.Mode&unix.S_IFMT == unix.S_IFREG && len(out) < maxSources {
				out = append(out, p+"/"+name)
			}
		}
	}
	return out
}

func (d *ifupdownFiles) present() bool {
	return len(d.files) > 0 && d.files[0].Content.State() != fact.StateAbsent
}

// stanza is one "iface NAME inet6 METHOD".
type stanza struct {
	name, family, method string
	inherits             []string
	options              []entry
	origin               fact.Origin
}

func (d *ifupdownFiles) decode(m *fact.Manager) {
	m.Gaps = append(m.Gaps, d.gaps...)
	m.Gaps = append(m.Gaps, confd.Gaps(d.files)...)
	stanzas := d.stanzas(m)
	at := map[string]int{}
	for i := range stanzas {
		s := &stanzas[i]
		if s.family != "inet6" || s.method == "loopback" {
			continue
		}
		s.options = inherited(stanzas, s, 0)
		mi := s.managed(m)
		// Several stanzas of one interface are applied one after the other.
		if j, ok := at[s.name]; ok {
			old := &m.Interfaces[j]
			for k, v := range mi.Sysctls {
				if old.Sysctls == nil {
					old.Sysctls = map[string]string{}
				}
				old.Sysctls[k] = v
			}
			if mi.AcceptRA.State() == fact.StateValue {
				old.AcceptRA, old.AcceptRASet, old.Origin = mi.AcceptRA, mi.AcceptRASet, mi.Origin
			}
			old.Addresses = append(old.Addresses, mi.Addresses...)
			old.Gateways = append(old.Gateways, mi.Gateways...)
			if mi.DHCPv6.Or(false) {
				old.DHCPv6 = mi.DHCPv6
			}
			continue
		}
		if len(m.Interfaces) >= maxInterfaces {
			m.Gaps = append(m.Gaps, fact.Gap{Reason: fact.Truncated, What: "more interfaces of ifupdown"})
			return
		}
		at[s.name] = len(m.Interfaces)
		m.Interfaces = append(m.Interfaces, mi)
	}
}

// stanzas reads all iface stanzas in order.
func (d *ifupdownFiles) stanzas(m *fact.Manager) []stanza {
	var out []stanza
	var cur *stanza
	for i, f := range d.files {
		c, ok := f.Content.Get()
		if !ok {
			continue
		}
		for _, l := range confd.Lines(c, true) {
			w := strings.Fields(l.Text)
			if len(w) == 0 || w[0][0] == '#' {
				continue
			}
			number := l.Number + d.start[i] - 1
			switch {
			case w[0] == "iface":
				if len(out) >= maxEntries || len(w) < 2 {
					m.Gaps = append(m.Gaps, confd.ParseGap(f.Path, number))
					cur = nil
					continue
				}
				s := stanza{name: w[1], origin: fact.Origin{File: f.Path, Line: number}}
				rest := w[2:]
				if len(rest) >= 2 && rest[0] != "inherits" {
					s.family, s.method, rest = rest[0], rest[1], rest[2:]
				}
				for len(rest) >= 2 && rest[0] == "inherits" {
					s.inherits = append(s.inherits, rest[1])
					rest = rest[2:]
				}
				if len(rest) > 0 {
					m.Gaps = append(m.Gaps, confd.ParseGap(f.Path, number))
				}
				out = append(out, s)
				cur = &out[len(out)-1]
			case w[0] == "auto", strings.HasPrefix(w[0], "allow-"), w[0] == "mapping", w[0] == "no-auto-down", w[0] == "no-scripts", w[0] == "rename", w[0] == "template":
				cur = nil
			case cur == nil: // below mapping, or before any iface
			default:
				cur.options = append(cur.options, entry{w[0], strings.Join(w[1:], " "), f.Path, number})
			}
		}
	}
	return out
}

// inherited puts the options of templates before a stanza's own.
func inherited(all []stanza, s *stanza, depth int) []entry {
	var out []entry
	if depth < 8 {
		for _, name := range s.inherits {
			for i := range all {
				if all[i].name == name && &all[i] != s && (all[i].family == s.family || all[i].family == "") && len(out) < maxEntries {
					out = append(out, inherited(all, &all[i], depth+1)...)
				}
			}
		}
	}
	return append(out, s.options...)
}

// managed gives what `ifup` writes for a stanza (inet6.defn of ifupdown 0.8).
func (s *stanza) managed(m *fact.Manager) fact.ManagedInterface {
	opt := map[string]entry{}
	mi := fact.ManagedInterface{Names: []string{s.name}, Sysctls: map[string]string{}, Origin: s.origin}
	for _, e := range s.options {
		switch e.key {
		case "accept_ra", "autoconf", "privext", "dhcp", "address", "netmask", "gateway":
			if _, ok := opt[e.key]; !ok { // the first one counts: a template's before the stanza's own
				opt[e.key] = e
			}
		case "up", "pre-up", "post-up", "down", "pre-down", "post-down":
			if strings.Contains(e.value, "ipv6") || strings.Contains(e.value, "sysctl") {
				m.Gaps = append(m.Gaps, fact.Gap{Reason: fact.UnsupportedGap, What: "shell command at " + e.file + ":" + strconv.Itoa(e.line)})
			}
		}
	}
	number := func(name string) (string, bool) {
		e, ok := opt[name]
		if !ok {
			return "", false
		}
		if len(e.value) == 0 || len(e.value) > 4 || strings.Trim(e.value, "-0123456789") != "" {
			m.Gaps = append(m.Gaps, confd.ParseGap(e.file, e.line))
			return "", false
		}
		return e.value, true
	}
	write := func(key, value string) { mi.Sysctls[key] = value }
	def := ""
	switch s.method {
	case "auto":
		def = "2"
		write("autoconf", "1")
	case "static":
		if _, ok := opt["gateway"]; ok {
			def = "0"
		}
		write("autoconf", "0")
		if v, ok := number("autoconf"); ok {
			write("autoconf", v)
		}
	case "dhcp":
		def = "1"
		if v, ok := number("autoconf"); ok {
			write("autoconf", v)
		}
	}
	mi.AcceptRA = fact.Absent[bool]()
	v, set := number("accept_ra")
	e, there := opt["accept_ra"]
	if s.method == "auto" || s.method == "static" || s.method == "dhcp" {
		switch {
		case there && !set:
			mi.AcceptRA = fact.Missing[bool](confd.ParseGap(e.file, e.line))
		case set || def != "":
			if !set {
				v = def
			} else {
				mi.Origin = fact.Origin{File: e.file, Line: e.line}
			}
			write("accept_ra", v)
			mi.AcceptRA, mi.AcceptRASet = fact.Value(v != "0"), set
		}
		if p, ok := number("privext"); ok {
			write("use_tempaddr", p)
			mi.PrivacyExtensions = fact.Value(p)
		}
	}
	_, autoDHCP := opt["dhcp"]
	mi.DHCPv6 = fact.Value(s.method == "dhcp" || s.method == "auto" && autoDHCP && opt["dhcp"].value != "0")
	if s.method == "static" || s.method == "v4tunnel" {
		bits := "64"
		if e, ok := opt["netmask"]; ok {
			bits = e.value
		}
		a := opt["address"].value
		if !strings.Contains(a, "/") {
			a += "/" + bits
		}
		if p, err := netip.ParsePrefix(a); err == nil && p.Addr().Is6() {
			mi.Addresses = append(mi.Addresses, p)
		}
		if g, err := netip.ParseAddr(opt["gateway"].value); err == nil && g.Is6() {
			mi.Gateways = append(mi.Gateways, g)
		}
	}
	if len(mi.Sysctls) == 0 {
		mi.Sysctls = nil
	}
	return mi
}
