package kmod

import (
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// bootNames are the kernel parameters that are kept, as the kernel compares them
// (with underscores). Everything else on the command line may be a secret: a
// root password of an installer, a token of a cloud's agent.
var bootNames = map[string]bool{
	"module_blacklist":   true, // kernel: these are never loaded
	"modprobe.blacklist": true, // kmod: as "blacklist" in modprobe.d
	"initcall_blacklist": true, // kernel: built-in code that is not started
	"nomodule":           true, // kernel: modules_disabled from the start
	"net.ifnames":        true,
	"biosdevname":        true,
}

// bootPrefixes are the name spaces that are kept whole.
var bootPrefixes = []string{"ipv6.", "sysctl.net.ipv6.", "sysctl.net/ipv6/", "sysctl.net.ipv4.", "sysctl.net/ipv4/", "sysctl.net.core.", "sysctl.net/core/"}

func bootWanted(name string) bool {
	n := normal(name)
	if bootNames[n] {
		return true
	}
	for _, p := range bootPrefixes {
		if strings.HasPrefix(n, p) {
			return true
		}
	}
	return false
}

// readCmdline reads /proc/cmdline and forgets at once what is not wanted.
func readCmdline(t Source) fact.Known[[]byte] {
	k := t.ReadFile("proc/cmdline", 64<<10)
	b, ok := k.Get()
	if !ok {
		return k
	}
	keep := keepWanted(b)
	clear(b)
	return fact.Value(keep)
}

// keepWanted returns the arguments of the allow-list, each ended by a NUL.
func keepWanted(cmdline []byte) []byte {
	var keep []byte
	for _, arg := range kernelArgs(string(cmdline)) {
		if name, _, _ := strings.Cut(arg, "="); bootWanted(name) {
			keep = append(append(keep, arg...), 0)
		}
	}
	return keep
}

// kernelArgs splits a command line as lib/cmdline.c next_arg does: at white space
// outside double quotes; what follows "--" is for init. Quotes are taken off.
func kernelArgs(s string) []string {
	var out []string
	var cur strings.Builder
	quoted, any := false, false
	flush := func() bool {
		if !any {
			return true
		}
		arg := cur.String()
		cur.Reset()
		any = false
		if arg == "--" {
			return false
		}
		out = append(out, arg)
		return true
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"':
			quoted, any = !quoted, true
		case !quoted && (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f'):
			if !flush() {
				return out
			}
		default:
			cur.WriteByte(c)
			any = true
		}
	}
	flush()
	return out
}

// bootParameters decodes what readCmdline kept. The last of several wins, except
// that lists of modprobe.blacklist add up. A parameter without "=" is "".
func bootParameters(k fact.Known[[]byte]) fact.Known[map[string]string] {
	b, ok := k.Get()
	if !ok {
		return lost[map[string]string](k, "/proc/cmdline")
	}
	out := map[string]string{}
	for arg := range strings.SplitSeq(string(b), "\x00") {
		if arg == "" {
			continue
		}
		name, value, _ := strings.Cut(arg, "=")
		// The kernel takes - and _ for the same; interface names below sysctl. are left alone.
		if !strings.HasPrefix(name, "sysctl.") {
			name = normal(name)
		}
		if old := out[name]; old != "" && name == "modprobe.blacklist" {
			value = old + "," + value
		}
		out[name] = value
	}
	return fact.Value(out)
}

// osRelease decodes os-release(5): KEY=value, optionally in shell quotes.
func osRelease(k fact.Known[[]byte]) fact.Known[fact.OSRelease] {
	b, ok := k.Get()
	if !ok {
		return lost[fact.OSRelease](k, "os-release")
	}
	var o fact.OSRelease
	lines(b, func(l string) {
		key, value, ok := strings.Cut(l, "=")
		if !ok || strings.HasPrefix(key, "#") {
			return
		}
		value = unquote(value)
		switch key {
		case "ID":
			o.ID = value
		case "ID_LIKE":
			o.IDLike = strings.Fields(value)
		case "VERSION_ID":
			o.VersionID = value
		case "PRETTY_NAME":
			o.Name = value
		}
	})
	if o.ID == "" {
		o.ID = "linux" // os-release(5): the default
	}
	return fact.Value(o)
}

// unquote takes off shell quotes; backslash escapes as in double quotes.
func unquote(s string) string {
	s = strings.TrimSpace(s)
	if len(s) < 2 || s[0] != '"' && s[0] != '\'' || s[len(s)-1] != s[0] {
		return s
	}
	q := s[0]
	s = s[1 : len(s)-1]
	if q == '\'' || !strings.ContainsRune(s, '\\') {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && strings.IndexByte("\"$`\\", s[i+1]) >= 0 {
			i++
		}
		out.WriteByte(s[i])
	}
	return out.String()
}
