package bootconf

import (
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// conf reads settings from "by key=value" words; -key excludes.
func conf(lines ...string) []fact.SysctlSetting {
	var out []fact.SysctlSetting
	for i, l := range lines {
		by, rest, _ := strings.Cut(l, " ")
		key, value, ok := strings.Cut(rest, "=")
		s := fact.SysctlSetting{Key: strings.TrimPrefix(key, "-"), Value: value, By: map[string]string{"s": BySystemd, "p": ByProcps, "u": ByUFW, "n": ByNobody}[by], Exclude: !ok, Origin: fact.Origin{File: "/f", Line: i + 1}}
		s.Glob = IsGlob(s.Key)
		out = append(out, s)
	}
	return out
}

const c6 = "net/ipv6/conf/"

// TestSysctl covers what the oracle cannot: several programs, races with the
// appearance of interfaces, and the wording of the answer. That systemd-sysctl
// itself behaves as the first stage is shown in host/collect/files.
func TestSysctl(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		conf []string
		key  string
		want string
	}{
		"nothing":                    {nil, c6 + "e0/accept_ra", "none"},
		"key":                        {[]string{"s " + c6 + "e0/accept_ra=0"}, c6 + "e0/accept_ra", "0 key :1 certain rivals[] lost[]"},
		"key beats later glob":       {[]string{"s " + c6 + "e0/accept_ra=0", "s " + c6 + "*/accept_ra=1"}, c6 + "e0/accept_ra", "0 key :1 certain rivals[] lost[2]"},
		"excluded from the glob":     {[]string{"s " + c6 + "*/accept_ra=1", "s -" + c6 + "e0/accept_ra"}, c6 + "e0/accept_ra", "1 default :1 unsure rivals[] lost[]"},
		"later glob wins":            {[]string{"s " + c6 + "*/accept_ra=1", "s " + c6 + "e*/accept_ra=0"}, c6 + "e0/accept_ra", "0 glob :2 certain rivals[] lost[1]"},
		"equal line keeps its place": {[]string{"s " + c6 + "*/accept_ra=1", "s " + c6 + "e*/accept_ra=0", "s " + c6 + "*/accept_ra=1"}, c6 + "e0/accept_ra", "0 glob :2 certain rivals[] lost[1 3]"},
		"ufw comes last":             {[]string{"u " + c6 + "e0/accept_ra=1", "s " + c6 + "e0/accept_ra=0"}, c6 + "e0/accept_ra", "1 key :1 certain rivals[] lost[2]"},
		"nobody applies it":          {[]string{"n " + c6 + "e0/accept_ra=0"}, c6 + "e0/accept_ra", "none"},
		"all is not copied":          {[]string{"s " + c6 + "all/accept_ra=0"}, c6 + "e0/accept_ra", "none"},
		"all is copied":              {[]string{"s " + c6 + "all/forwarding=1"}, c6 + "e0/forwarding", "1 all :1 certain rivals[] lost[]"},
		"all after the key":          {[]string{"s " + c6 + "e0/disable_ipv6=0", "s " + c6 + "all/disable_ipv6=1"}, c6 + "e0/disable_ipv6", "1 all :2 unsure rivals[1] lost[1]"},
		"all after the key, lo":      {[]string{"s " + c6 + "lo/disable_ipv6=0", "s " + c6 + "all/disable_ipv6=1"}, c6 + "lo/disable_ipv6", "1 all :2 certain rivals[] lost[1]"},
		"key after all":              {[]string{"s " + c6 + "all/disable_ipv6=1", "s " + c6 + "lo/disable_ipv6=0"}, c6 + "lo/disable_ipv6", "0 key :2 certain rivals[] lost[]"},
		"redundant all":              {[]string{"s " + c6 + "e0/forwarding=1", "s " + c6 + "all/forwarding=0"}, c6 + "e0/forwarding", "1 key :1 unsure rivals[2] lost[]"},
		"redundant all by ufw":       {[]string{"s " + c6 + "e0/forwarding=1", "u " + c6 + "all/forwarding=0"}, c6 + "e0/forwarding", "0 all :2 unsure rivals[1] lost[1]"},
		"default":                    {[]string{"s " + c6 + "default/accept_ra=0"}, c6 + "e0/accept_ra", "0 default :1 unsure rivals[] lost[]"},
		"default itself":             {[]string{"s " + c6 + "default/accept_ra=0"}, c6 + "default/accept_ra", "0 key :1 certain rivals[] lost[]"},
		"default after all":          {[]string{"s " + c6 + "all/forwarding=1", "s " + c6 + "default/forwarding=0"}, c6 + "e0/forwarding", "1 all :1 unsure rivals[2] lost[]"},
		"force_forwarding":           {[]string{"s " + c6 + "all/force_forwarding=1"}, c6 + "e0/force_forwarding", "1 all :1 unsure rivals[] lost[]"},
		"force_forwarding default":   {[]string{"s " + c6 + "all/force_forwarding=1"}, c6 + "default/force_forwarding", "none"},
		"alias":                      {[]string{"s net/ipv4/conf/all/forwarding=0", "s net/ipv4/ip_forward=1"}, "net/ipv4/conf/all/forwarding", "1 key :2 certain rivals[] lost[1]"},
		"no interface key":           {[]string{"s net/ipv6/neigh/default/gc_thresh3=9"}, "net/ipv6/neigh/default/gc_thresh3", "9 key :1 certain rivals[] lost[]"},
	} {
		o, ok := New(conf(c.conf...)).Sysctl(c.key)
		got := "none"
		if ok {
			lines := func(list []fact.SysctlSetting) string {
				var n []string
				for _, s := range list {
					n = append(n, fmt.Sprint(s.Origin.Line))
				}
				return "[" + strings.Join(n, " ") + "]"
			}
			got = fmt.Sprintf("%s %s :%d %s rivals%s lost%s", o.Value, o.Via, o.Setting.Origin.Line, map[bool]string{true: "certain", false: "unsure"}[o.Certain], lines(o.Rivals), lines(o.Lost))
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestFuture(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		conf []string
		want string
	}{
		"default":              {[]string{"s " + c6 + "default/accept_ra=0"}, "0 default"},
		"glob beats default":   {[]string{"s " + c6 + "*/accept_ra=0", "s " + c6 + "default/accept_ra=1"}, "0 glob"},
		"some names only":      {[]string{"s " + c6 + "e*/accept_ra=0"}, "none"},
		"all alone":            {[]string{"s " + c6 + "all/accept_ra=0"}, "none"},
		"ufw is not run again": {[]string{"u " + c6 + "*/accept_ra=0"}, "0 default"},
	} {
		got := "none"
		if o, ok := New(conf(c.conf...)).Future("ipv6", "accept_ra"); ok {
			got = o.Value + " " + string(o.Via)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestDottedName(t *testing.T) {
	t.Parallel()
	if iface, ok := DottedName(fact.SysctlSetting{Key: "net/ipv6/conf/eth0/100/accept_ra"}); !ok || iface != "eth0.100" {
		t.Errorf("%q %v", iface, ok)
	}
	for _, key := range []string{"net/ipv6/conf/eth0.100/accept_ra", "net/ipv6/conf/all/accept_ra", "net/ipv4/tcp_x", "vm/a/b/c/d/e"} {
		if iface, ok := DottedName(fact.SysctlSetting{Key: key}); ok {
			t.Errorf("%s is said to mean %q", key, iface)
		}
	}
}

func TestInstallKind(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]Blocking{
		"/bin/false": InstallFalse, "/usr/bin/false": InstallFalse, "/bin/true": InstallTrue, ":": InstallTrue, "true": InstallTrue,
		"/bin/false # why": InstallFalse, "exit 1": InstallFalse, "exit 0": InstallTrue,
		"/bin/true; modprobe x": InstallCommand, "modprobe --ignore-install sit": InstallCommand, "/sbin/false": InstallCommand, "": InstallCommand, "/bin/false …": InstallCommand,
	} {
		if got := installKind(args); got != want {
			t.Errorf("install x %s is %s, want %s", args, got, want)
		}
	}
}

// FuzzMatch compares the matcher with path.Match on patterns that both know, and
// asks every question of a configuration made of the input.
func FuzzMatch(f *testing.F) {
	for _, s := range [][2]string{{"net/*/x", "net/a/x"}, {"{a,b{c,d}}*", "bd1"}, {"[!a-c]?", "dx"}, {"***a*b", "xxaxxb"}, {"[", "["}, {"{{{{", "x"}, {`\*`, "*"}, {"[]a]", "]"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 512 || len(name) > 512 {
			return
		}
		got := Match(pattern, name)
		// Where both agree on the grammar: no braces, negation, classes, hidden names, non-ASCII.
		if !strings.ContainsAny(pattern, "{}[]\\") && !strings.Contains("/"+name, "/.") && ascii(pattern) && ascii(name) {
			if want, err := path.Match(pattern, name); err == nil && got != want {
				t.Errorf("Match(%q, %q) = %v, path.Match says %v", pattern, name, got, want)
			}
		}
		s := conf("s "+pattern+"="+name, "s "+name+"=1", "u "+pattern+"=2", "s -"+pattern)
		c := New(s)
		c.Sysctl(name)
		c.Sysctl(c6 + name + "/accept_ra")
		c.Future("ipv6", name)
		DottedName(s[0])
		Module([]fact.ModprobeDirective{{Verb: "install", Module: pattern, Args: name}, {Verb: "alias", Module: pattern, Args: name}, {Verb: "blacklist", Module: name}}, name)
	})
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 126 || r < 32 }) < 0
}
