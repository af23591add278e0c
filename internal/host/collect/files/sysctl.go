package files

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// maxSettings bounds the assignments that are kept.
const maxSettings = 20000

// maxKey bounds the length of a key and of a value.
const maxKey = 512

// readSysctl reads sysctl.d in the order of application and, where nothing links
// to it, /etc/sysctl.conf.
func (d *Dump) readSysctl(t *tree.Tree, b *confd.Budget) {
	d.sysctlBy = whoAppliesSysctl(t)
	var gaps []fact.Gap
	d.sysctl, gaps = b.Gather(t, confd.Standard("sysctl.d"))
	d.sysctlGaps = append(gaps, confd.Gaps(d.sysctl)...)
	d.sysctlConf = confd.File{Content: fact.Absent[[]byte]()}
	if conf, ok := t.Stat("/etc/sysctl.conf").Get(); ok && !leadsTo(t, d.sysctl, conf) {
		// systemd-sysctl does not know this file; distributions link it into sysctl.d.
		d.sysctlConf = b.Read(t, "/etc/sysctl.conf")
		d.sysctlGaps = append(d.sysctlGaps, confd.Gaps([]confd.File{d.sysctlConf})...)
	}
	d.ufwDefault = b.Read(t, "/etc/default/ufw")
	d.ufwConf = b.Read(t, "/etc/ufw/ufw.conf")
	d.ufwSysctl = confd.File{Content: fact.Absent[[]byte]()}
	if p, _ := ufwVar(d.ufwDefault, "IPT_SYSCTL"); p != "" && path.IsAbs(p) {
		d.ufwSysctl = b.Read(t, p)
		d.sysctlGaps = append(d.sysctlGaps, confd.Gaps([]confd.File{d.ufwSysctl})...)
	}
	d.sysctlGaps = append(d.sysctlGaps, confd.Gaps([]confd.File{d.ufwDefault, d.ufwConf})...)
}

// leadsTo tells whether one of the fragments is the file.
func leadsTo(t *tree.Tree, files []confd.File, file tree.Info) bool {
	for _, f := range files {
		if i, ok := t.Stat(f.Path).Get(); ok && i.Inode == file.Inode && i.Dev == file.Dev {
			return true
		}
	}
	return false
}

// Who applies settings, see fact.SysctlSetting.By.
const (
	bySystemd = "systemd-sysctl"
	byProcps  = "procps"
	byUFW     = "ufw"
	byNobody  = "nobody"
)

// whoAppliesSysctl looks for the program that reads sysctl.d at boot.
func whoAppliesSysctl(t *tree.Tree) string {
	for _, p := range []string{"/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl"} {
		if _, ok := t.Stat(p).Get(); !ok {
			continue
		}
		for _, dir := range []string{"/etc", "/run"} {
			if confd.Masked(t, dir+"/systemd/system/systemd-sysctl.service") {
				return byNobody
			}
		}
		return bySystemd
	}
	// sysvinit (Debian, Devuan) and OpenRC (Alpine, Gentoo) run `sysctl --system`.
	for _, p := range []string{"/etc/init.d/procps", "/etc/init.d/sysctl", "/etc/runlevels/boot/sysctl"} {
		if i, ok := t.Stat(p).Get(); ok && i.Mode&unix.S_IFMT == unix.S_IFREG {
			return byProcps
		}
	}
	return byNobody
}

// decodeSysctl lists the assignments in the order in which boot applies them.
func (d *Dump) decodeSysctl(f *fact.Files) {
	f.SysctlGaps = append(f.SysctlGaps, d.sysctlGaps...)
	p := &sysctlParser{settings: []fact.SysctlSetting{}}
	for _, file := range d.sysctl {
		p.file(file, d.sysctlBy)
	}
	by := byNobody
	if d.sysctlBy == byProcps { // `sysctl --system` reads it last
		by = byProcps
	}
	p.file(d.sysctlConf, by)
	if u, ok := f.UFW.Get(); ok {
		switch on, known := u.Enabled.Get(); {
		case known && on:
			p.file(d.ufwSysctl, byUFW)
		case !known && u.Enabled.State() == fact.StateGap:
			if _, there := d.ufwSysctl.Content.Get(); there {
				p.gap(fact.Gap{Reason: fact.NotCollected, What: "whether ufw applies " + d.ufwSysctl.Path})
			}
		}
	}
	f.SysctlGaps = append(f.SysctlGaps, p.gaps...)
	f.Sysctl = fact.Value(p.settings)
}

type sysctlParser struct {
	settings []fact.SysctlSetting
	gaps     []fact.Gap
}

func (p *sysctlParser) gap(g fact.Gap) {
	if len(p.gaps) < maxGaps {
		p.gaps = append(p.gaps, g)
	}
}

var lineEnds = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\x00", "\n")

// file parses as systemd's parse_file (src/sysctl/sysctl.c) and procps agree to.
func (p *sysctlParser) file(f confd.File, by string) {
	b, ok := f.Content.Get()
	if !ok {
		return
	}
	// systemd's read_line ends a line at CR and NUL too.
	text := lineEnds.Replace(strings.ToValidUTF8(string(b), "?"))
	for n, line := range strings.Split(text, "\n") {
		s, bad := parseSysctlLine(line)
		if bad {
			p.gap(confd.ParseGap(f.Path, n+1))
		}
		if s == nil {
			continue
		}
		if len(p.settings) >= maxSettings {
			p.gap(fact.Gap{Reason: fact.Truncated, What: f.Path + ": too many settings"})
			return
		}
		s.By, s.Origin = by, fact.Origin{File: f.Path, Line: n + 1}
		p.settings = append(p.settings, *s)
	}
}

// parseSysctlLine returns nil for what is no assignment to a key of interest.
func parseSysctlLine(line string) (s *fact.SysctlSetting, bad bool) {
	line = strings.Trim(line, " \t\r\n")
	if line == "" || line[0] == '#' || line[0] == ';' {
		return nil, false
	}
	s = &fact.SysctlSetting{}
	key, value, assigned := strings.Cut(line, "=")
	minus := strings.HasPrefix(key, "-")
	key = strings.TrimPrefix(key, "-")
	switch {
	case assigned:
		s.Ignore = minus
	case minus:
		s.Exclude = true
	default:
		return nil, true
	}
	s.Key = NormalKey(strings.Trim(key, " \t\r\n"))
	if !wantedSysctl(s.Key) {
		return nil, false
	}
	// No interface and no key has white space in its name: what has is no key.
	if len(s.Key) > maxKey || strings.ContainsAny(s.Key, " \t\"'$`") {
		return nil, true
	}
	s.Glob = strings.ContainsAny(s.Key, "*?[")
	s.Value = keepValue(s.Key, strings.Trim(value, " \t\r\n"))
	return s, false
}

// NormalKey turns a key into a path below /proc/sys as sysctl.d(5) says: when the
// first separator is a dot, dots and slashes change places; when it is a slash
// everything stays (as systemd does).
func NormalKey(key string) string {
	if i := strings.IndexAny(key, "/."); i >= 0 && key[i] == '.' {
		key = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, key)
	}
	// path_simplify: no empty and no "." components; the leading slash goes too.
	parts := strings.Split(key, "/")
	out := parts[:0]
	for _, p := range parts {
		if p != "" && p != "." {
			out = append(out, p)
		}
	}
	return strings.Join(out, "/")
}

// wantedSysctl is the allow-list. A pattern counts when it may match a wanted key.
func wantedSysctl(key string) bool {
	first, rest, deeper := strings.Cut(key, "/")
	may := func(pattern, name string) bool {
		if strings.Contains(pattern, "{") {
			return true
		}
		ok, err := path.Match(pattern, name)
		return ok || err != nil || pattern == name
	}
	if !deeper {
		return false
	}
	if may(first, "net") {
		return true
	}
	if may(first, "kernel") {
		for _, k := range []string{"modules_disabled", "unprivileged_userns_clone", "apparmor_restrict_unprivileged_userns"} {
			if may(rest, k) {
				return true
			}
		}
	}
	return may(first, "user") && (strings.HasPrefix(rest, "max_") || strings.ContainsAny(rest, "*?[{"))
}

// secretSysctl are the last components of keys whose value is a secret.
var secretSysctl = []string{"stable_secret", "tcp_fastopen_key"}

// keepValue keeps numbers and short words. The value of a key that is, or may
// match, a secret one is replaced.
func keepValue(key, value string) string {
	if value == "" {
		return ""
	}
	last := key[strings.LastIndexByte(key, '/')+1:]
	pattern := strings.ContainsAny(last, "*?[{\\")
	for _, s := range secretSysctl {
		if last == s || pattern && !plainNumbers(value) {
			return "set"
		}
	}
	if strings.Contains(last, "secret") || strings.Contains(last, "passw") || strings.Contains(last, "_key") {
		return "set"
	}
	if plainNumbers(value) || len(value) <= 32 && isLowerWord(value) {
		return value
	}
	return "(text)"
}

// plainNumbers accepts decimal and hexadecimal numbers of ordinary size and lists
// of them.
func plainNumbers(s string) bool {
	if len(s) > maxKey {
		return false
	}
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' || r == '-' }) {
		f = strings.TrimPrefix(f, "0x")
		if len(f) > 20 {
			return false
		}
		for i := range len(f) {
			if f[i] < '0' || f[i] > '9' {
				return len(f) <= 8 && strings.Trim(f, "0123456789abcdefABCDEF") == ""
			}
		}
	}
	return true
}

func isLowerWord(s string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == "" || s == "fq_codel"
}

// ufwVar finds a variable of a shell file, and its line. The last one counts.
func ufwVar(f confd.File, name string) (string, int) {
	b, ok := f.Content.Get()
	value, at := "", 0
	if !ok {
		return "", 0
	}
	for _, l := range confd.Lines(b, false) {
		if n, v, ok := shellAssign(l.Text); ok && n == name {
			value, at = v, l.Number
		}
	}
	return value, at
}

// decodeUFW reads the three settings of ufw that decide about IPv6.
func (d *Dump) decodeUFW() fact.Known[fact.UFW] {
	if d.ufwDefault.Content.State() == fact.StateAbsent && d.ufwConf.Content.State() == fact.StateAbsent {
		return fact.Absent[fact.UFW]()
	}
	var u fact.UFW
	yes := func(f confd.File, name string) (fact.Known[bool], int) {
		if _, ok := f.Content.Get(); !ok {
			return lost[bool](f), 0
		}
		v, line := ufwVar(f, name)
		if line == 0 {
			return fact.Absent[bool](), 0
		}
		return fact.Value(strings.EqualFold(v, "yes")), line
	}
	var line int
	u.Enabled, line = yes(d.ufwConf, "ENABLED")
	u.Origin = fact.Origin{File: d.ufwConf.Path, Line: line}
	u.IPv6, line = yes(d.ufwDefault, "IPV6")
	if line > 0 {
		u.Origin = fact.Origin{File: d.ufwDefault.Path, Line: line}
	}
	switch p, line := ufwVar(d.ufwDefault, "IPT_SYSCTL"); {
	case line == 0:
		u.SysctlFile = lost[string](d.ufwDefault)
	case path.IsAbs(p) && word(p):
		u.SysctlFile = fact.Value(p)
	default:
		u.SysctlFile = fact.Absent[string]()
	}
	return fact.Value(u)
}
