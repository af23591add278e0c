package files

import (
	"strings"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// maxDirectives bounds the lines of modprobe.d that are kept.
const maxDirectives = 20000

// verbs of modprobe.d(5) that decide about loading. options, config and include
// do not.
var verbs = map[string]bool{"install": true, "blacklist": true, "alias": true, "softdep": true, "weakdep": true, "remove": true}

// decodeModprobe lists the directives in the order in which modprobe reads them
// (kmod_config_parse: a line that starts with # is a comment, words are separated
// by blanks and tabs, a backslash joins lines).
func (d *Dump) decodeModprobe() fact.Known[[]fact.ModprobeDirective] {
	out := []fact.ModprobeDirective{}
	for _, f := range d.modprobe {
		b, ok := f.Content.Get()
		if !ok {
			if g, gap := f.Content.Gap(); gap {
				// One unreadable file may hold the line that blocks: the whole answer is unknown.
				return fact.Missing[[]fact.ModprobeDirective](g)
			}
			continue
		}
		for _, l := range confd.Lines(b, true) {
			if strings.HasPrefix(l.Text, "#") {
				continue
			}
			m, bad := modprobeLine(l.Text)
			if bad {
				d.gap(confd.ParseGap(f.Path, l.Number))
			}
			if m == nil {
				continue
			}
			if len(out) >= maxDirectives {
				return fact.Missing[[]fact.ModprobeDirective](fact.Gap{Reason: fact.Truncated, What: "modprobe.d has too many lines"})
			}
			m.Origin = fact.Origin{File: f.Path, Line: l.Number}
			out = append(out, *m)
		}
	}
	return fact.Value(out)
}

func modprobeLine(s string) (m *fact.ModprobeDirective, bad bool) {
	verb, rest := cutBlank(s)
	if verb == "" || verb == "options" || verb == "include" || verb == "config" {
		return nil, false
	}
	if !verbs[verb] {
		return nil, true
	}
	module, args := cutBlank(rest)
	if module == "" || len(module) > 256 || verb != "blacklist" && args == "" {
		return nil, true
	}
	m = &fact.ModprobeDirective{Verb: verb, Module: strings.ToValidUTF8(module, "?")}
	switch verb {
	case "alias", "softdep", "weakdep":
		if len(args) <= 1024 {
			m.Args = strings.ToValidUTF8(args, "?")
		}
	case "install", "remove":
		m.Args = keepCommand(args)
	}
	return m, false
}

// keepCommand keeps a command that certainly does not load anything; any other
// one is shell code, which may hold anything, and is reduced to its program.
func keepCommand(s string) string {
	f := strings.Fields(s)
	if len(f) == 0 {
		return ""
	}
	if len(f) == 1 || f[0] == "exit" && len(f) == 2 || strings.HasPrefix(f[1], "#") {
		if word(f[0]) {
			return strings.TrimSpace(f[0] + " " + exitCode(f))
		}
		return "(command)"
	}
	// Kept: it loads the module after all, which is what a reader must know.
	if strings.Contains(s, "modprobe") && strings.Contains(s, "--ignore-install") {
		return "(command with modprobe --ignore-install)"
	}
	if word(f[0]) {
		return f[0] + " …"
	}
	return "(command)"
}

func exitCode(f []string) string {
	if f[0] == "exit" && len(f) == 2 && len(f[1]) <= 3 && strings.Trim(f[1], "0123456789") == "" {
		return f[1]
	}
	return ""
}

func cutBlank(s string) (first, rest string) {
	s = strings.TrimLeft(s, " \t")
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		return s[:i], strings.Trim(s[i:], " \t")
	}
	return s, ""
}

// decodeModulesLoad lists the modules that boot loads by name.
func (d *Dump) decodeModulesLoad() fact.Known[[]fact.ModprobeDirective] {
	out := []fact.ModprobeDirective{}
	for _, f := range d.modulesLoad {
		b, ok := f.Content.Get()
		if !ok {
			if g, gap := f.Content.Gap(); gap {
				return fact.Missing[[]fact.ModprobeDirective](g)
			}
			continue
		}
		for _, l := range confd.Lines(b, false) {
			name, _ := cutBlank(l.Text)
			if name == "" || name[0] == '#' || name[0] == ';' {
				continue
			}
			if !word(name) {
				d.gap(confd.ParseGap(f.Path, l.Number))
				continue
			}
			if len(out) >= maxDirectives {
				return fact.Missing[[]fact.ModprobeDirective](fact.Gap{Reason: fact.Truncated, What: "modules-load.d has too many lines"})
			}
			out = append(out, fact.ModprobeDirective{Verb: "load", Module: name, Origin: fact.Origin{File: f.Path, Line: l.Number}})
		}
	}
	return fact.Value(out)
}
