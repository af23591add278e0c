package apps

import (
	"strings"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// readFail2ban reads the files of fail2ban in the order in which it merges them.
func (d *Dump) readFail2ban(t *tree.Tree, b *confd.Budget) {
	for _, base := range []string{"fail2ban", "jail"} {
		var files []confd.File
		add := func(p string) {
			if f := b.Read(t, p); f.Content.State() != fact.StateAbsent {
				files = append(files, f)
			}
		}
		add("/etc/fail2ban/" + base + ".conf")
		for _, p := range expand(t, "/etc/fail2ban/"+base+".d/*.conf", &d.gaps) {
			add(p)
		}
		add("/etc/fail2ban/" + base + ".local")
		for _, p := range expand(t, "/etc/fail2ban/"+base+".d/*.local", &d.gaps) {
			add(p)
		}
		if base == "fail2ban" {
			d.fail2ban = files
		} else {
			d.jails = files
		}
	}
}

func (d *Dump) decodeFail2ban() fact.Known[fact.Fail2ban] {
	if len(d.fail2ban)+len(d.jails) == 0 {
		return fact.Absent[fact.Fail2ban]()
	}
	f := fact.Fail2ban{AllowIPv6: fact.Absent[string](), Action: fact.Absent[string]()}
	f.AllowIPv6, f.Origin = d.lastKey(d.fail2ban, "allowipv6")
	action, at := d.lastKey(d.jails, "banaction")
	f.Action = action
	if f.Origin.Line == 0 && (at.Line > 0 || f.Origin.File == "") {
		f.Origin = at
	}
	return fact.Value(f)
}

// lastKey finds a key of the default section over several files: the last wins.
func (d *Dump) lastKey(files []confd.File, key string) (fact.Known[string], fact.Origin) {
	out := fact.Absent[string]()
	var at fact.Origin
	for _, f := range files {
		b, ok := f.Content.Get()
		if g, gap := f.Content.Gap(); gap {
			d.gap(g)
			out = fact.Missing[string](g)
		}
		if !ok {
			continue
		}
		if at.File == "" {
			at.File = f.Path
		}
		section := ""
		for _, l := range confd.Lines(b, false) {
			s := strings.TrimSpace(l.Text)
			if s == "" || s[0] == '#' || s[0] == ';' {
				continue
			}
			if s[0] == '[' {
				section = strings.ToLower(strings.Trim(s, "[]"))
				continue
			}
			k, v, ok := strings.Cut(s, "=")
			if !ok || strings.TrimSpace(strings.ToLower(k)) != key || section != "default" && section != "definition" {
				continue
			}
			v, _, _ = strings.Cut(strings.TrimSpace(v), " ")
			if v == "" || len(v) > 64 || strings.Trim(strings.ToLower(v), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
				if i := strings.IndexByte(v, '['); i > 0 && i <= 64 && strings.Trim(strings.ToLower(v[:i]), "abcdefghijklmnopqrstuvwxyz0123456789-_") == "" {
					v = v[:i] // parameters are not kept
				} else {
					d.gap(confd.ParseGap(f.Path, l.Number))
					continue
				}
			}
			out, at = fact.Value(v), fact.Origin{File: f.Path, Line: l.Number}
		}
	}
	return out, at
}

// readLists reads the files that usually hold access lists by source address.
func (d *Dump) readLists(t *tree.Tree, b *confd.Budget) {
	for _, x := range []struct{ app, pattern string }{
		{"hosts.allow", "/etc/hosts.allow"},
		{"hosts.deny", "/etc/hosts.deny"},
		{"nginx", "/etc/nginx/nginx.conf"},
		{"nginx", "/etc/nginx/conf.d/*.conf"},
		{"nginx", "/etc/nginx/sites-enabled/*"},
		{"apache", "/etc/apache2/apache2.conf"},
		{"apache", "/etc/apache2/conf-enabled/*.conf"},
		{"apache", "/etc/apache2/mods-enabled/*.conf"},
		{"apache", "/etc/apache2/sites-enabled/*.conf"},
		{"apache", "/etc/httpd/conf/httpd.conf"},
		{"apache", "/etc/httpd/conf.d/*.conf"},
		{"redis", "/etc/redis/redis.conf"},
		{"redis", "/etc/redis.conf"},
		{"postfix", "/etc/postfix/main.cf"},
	} {
		for _, p := range expand(t, x.pattern, &d.gaps) {
			d.lists = append(d.lists, list{x.app, b.Read(t, p)})
		}
	}
}

// decodeLists keeps the sources of allow and deny lines, one entry a file.
func (d *Dump) decodeLists() fact.Known[[]fact.SourceACL] {
	out := []fact.SourceACL{}
	total := 0
	for _, l := range d.lists {
		b, ok := l.file.Content.Get()
		if g, gap := l.file.Content.Gap(); gap {
			d.gap(g)
		}
		if !ok {
			continue
		}
		acl := fact.SourceACL{App: l.app}
		key := "" // of postfix, whose lines go on below when indented
		for _, n := range confd.Lines(b, l.app != "nginx") {
			text := strings.TrimSpace(strings.ToValidUTF8(n.Text, "?"))
			if text == "" || text[0] == '#' {
				continue
			}
			if l.app == "postfix" {
				if c := n.Text[0]; c == ' ' || c == '\t' {
					text = key + "=" + text
				}
				key, _, _ = strings.Cut(text, "=")
			}
			for _, p := range sources(l.app, text) {
				if total++; total > maxPatterns {
					d.gap(fact.Gap{Reason: fact.Truncated, What: l.file.Path + " has too many access rules"})
					return fact.Value(append(out, acl))
				}
				p.Origin = fact.Origin{File: l.file.Path, Line: n.Number}
				acl.Patterns = append(acl.Patterns, p)
			}
		}
		if len(acl.Patterns) > 0 {
			out = append(out, acl)
		}
	}
	return fact.Value(out)
}

// sources reads one line of an application's configuration.
func sources(app, text string) []fact.SourcePattern {
	var out []fact.SourcePattern
	keep := func(keyword, pattern, action string) {
		if p, ok := source(pattern); ok {
			out = append(out, fact.SourcePattern{Keyword: keyword, Pattern: p, Action: action})
		}
	}
	f := strings.Fields(text)
	switch app {
	case "hosts.allow", "hosts.deny":
		// daemons : clients [: options]; IPv6 addresses are in brackets.
		daemons, rest, ok := strings.Cut(text, ":")
		if !ok {
			return nil
		}
		daemon := strings.TrimSpace(daemons)
		if len(daemon) > 64 || strings.Trim(strings.ToLower(daemon), "abcdefghijklmnopqrstuvwxyz0123456789-_., ") != "" {
			daemon = "daemon"
		}
		for _, c := range strings.FieldsFunc(clients(rest), func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
			keep(daemon, unbracket(c), strings.TrimPrefix(app, "hosts."))
		}
	case "nginx":
		for _, s := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '{' || r == '}' }) {
			w := strings.Fields(s)
			if len(w) == 2 && (w[0] == "allow" || w[0] == "deny") {
				keep(w[0], w[1], w[0])
			}
			if len(w) >= 2 && w[0] == "listen" {
				if a := strings.TrimPrefix(w[1], "default_server"); len(a) <= 64 && strings.Trim(a, "0123456789abcdefABCDEF.:*[]") == "" {
					action := ""
					for _, o := range w[2:] {
						if o == "ipv6only=off" || o == "ipv6only=on" {
							action = o
						}
					}
					out = append(out, fact.SourcePattern{Keyword: "listen", Pattern: a, Action: action})
				}
			}
		}
	case "apache":
		low := strings.ToLower(text)
		w := strings.Fields(low)
		switch {
		case len(w) >= 3 && w[0] == "require" && (w[1] == "ip" || w[1] == "host" || w[1] == "local"):
			for _, p := range f[2:] {
				keep("Require "+w[1], p, "allow")
			}
		case len(w) >= 4 && w[0] == "require" && w[1] == "not" && w[2] == "ip":
			for _, p := range f[3:] {
				keep("Require not ip", p, "deny")
			}
		case len(w) >= 3 && (w[0] == "allow" || w[0] == "deny") && w[1] == "from":
			for _, p := range f[2:] {
				keep(f[0]+" from", p, w[0])
			}
		case len(w) >= 2 && w[0] == "listen":
			if a := f[1]; len(a) <= 64 && strings.Trim(a, "0123456789abcdefABCDEF.:*[]") == "" {
				out = append(out, fact.SourcePattern{Keyword: "Listen", Pattern: a})
			}
		}
	case "redis":
		if len(f) >= 2 && f[0] == "bind" {
			for _, p := range f[1:] {
				keep("bind", strings.TrimPrefix(p, "-"), "")
			}
		}
	case "postfix":
		k, v, ok := strings.Cut(text, "=")
		k = strings.TrimSpace(k)
		if !ok || k != "mynetworks" && k != "inet_protocols" && k != "inet_interfaces" {
			return nil
		}
		for _, p := range strings.FieldsFunc(v, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
			switch {
			case k == "inet_protocols" && (p == "ipv4" || p == "ipv6" || p == "all"), k == "inet_interfaces" && p == "loopback-only":
				out = append(out, fact.SourcePattern{Keyword: k, Pattern: p})
			default:
				keep(k, unbracket(p), map[bool]string{true: "allow"}[k == "mynetworks"])
			}
		}
	}
	return out
}

// clients cuts the options off a client list: a colon outside brackets.
func clients(s string) string {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '[':
			depth++
		case ']':
			depth--
		case ':':
			if depth <= 0 {
				return s[:i]
			}
		}
	}
	return s
}

// unbracket turns [2001:db8::]/32 into 2001:db8::/32.
func unbracket(s string) string {
	return strings.NewReplacer("[", "", "]", "").Replace(s)
}
