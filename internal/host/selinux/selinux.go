// Package selinux tells which label the policy of a host wants a file to have, as
// restorecon and matchpathcon do: from the policy's file_contexts. A file that is made
// takes its label from the directory, which is wrong wherever the policy names it by
// itself: a script of if-up.d that cannot run, a program that systemd may not start.
package selinux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// Policy is a file_contexts that was read.
type Policy struct {
	specs []spec // the last that matches counts
	subs  [][2]string
}

// spec is a line of file_contexts.
type spec struct {
	pattern, label string
	kind           uint32 // S_IFMT of the files that are meant; 0: all
}

// Read reads the policy of the host below root. It is nil where SELinux is not on, and
// no label means anything.
func Read(root string) (*Policy, error) {
	if _, err := os.Stat(root + "/sys/fs/selinux/enforce"); err != nil {
		return nil, nil //nolint:nilnil // no policy is an answer
	}
	b, err := os.ReadFile(root + "/etc/selinux/config")
	if err != nil {
		return nil, fmt.Errorf("read SELinux configuration: %w", err)
	}
	name := "targeted"
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "SELINUXTYPE="); ok {
			name = strings.TrimSpace(v)
		}
	}
	if name == "" || strings.ContainsAny(name, "/\x00") {
		return nil, fmt.Errorf("read SELinux configuration: no policy is named %q", name)
	}
	return ReadFiles(filepath.Join(root, "/etc/selinux", name, "contexts/files/file_contexts"))
}

// ReadFiles reads a file_contexts and those beside it: .homedirs and .local, which count
// more, .subs_dist and .subs.
func ReadFiles(file string) (*Policy, error) {
	p := &Policy{}
	var exact []spec
	for _, suffix := range []string{"", ".homedirs", ".local"} {
		b, err := os.ReadFile(file + suffix)
		if err != nil && (suffix == "" || !errors.Is(err, fs.ErrNotExist)) {
			return nil, fmt.Errorf("read SELinux policy: %w", err)
		}
		for line := range strings.Lines(string(b)) {
			s, ok := parse(line)
			switch {
			case !ok:
			case strings.ContainsAny(strings.ReplaceAll(s.pattern, `\.`, ""), `.^$?*+|[({`):
				p.specs = append(p.specs, s)
			default:
				exact = append(exact, s) // libselinux looks at those first
			}
		}
	}
	p.specs = append(p.specs, exact...)
	for _, suffix := range []string{".subs_dist", ".subs"} {
		b, err := os.ReadFile(file + suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read SELinux policy: %w", err)
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 2 && f[0][0] == '/' {
				p.subs = append(p.subs, [2]string{f[0], f[1]})
			}
		}
	}
	return p, nil
}

var kinds = map[string]uint32{"--": unix.S_IFREG, "-d": unix.S_IFDIR, "-l": unix.S_IFLNK, "-b": unix.S_IFBLK, "-c": unix.S_IFCHR, "-p": unix.S_IFIFO, "-s": unix.S_IFSOCK}

func parse(line string) (spec, bool) {
	f := strings.Fields(line)
	switch {
	case len(f) < 2 || f[0][0] != '/':
		return spec{}, false
	case len(f) == 2:
		return spec{pattern: f[0], label: f[1]}, true
	}
	k, ok := kinds[f[1]]
	return spec{pattern: f[0], label: f[2], kind: k}, ok && len(f) == 3
}

// Label is the label of a file of that kind (S_IFREG, S_IFDIR); empty when the policy
// wants none, or says it in a way that is not understood here.
func (p *Policy) Label(path string, kind uint32) string {
	if p == nil {
		return ""
	}
	for _, s := range p.subs {
		if rest, ok := strings.CutPrefix(path, s[0]); ok && (rest == "" || rest[0] == '/') {
			path = s[1] + rest
			break
		}
	}
	for i := len(p.specs) - 1; i >= 0; i-- {
		s := p.specs[i]
		if s.kind != 0 && s.kind != kind || !strings.HasPrefix(path, stem(s.pattern)) {
			continue
		}
		re, err := regexp.Compile(`\A(?s:` + s.pattern + `)\z`)
		switch {
		case err != nil:
			return "" // PCRE that Go lacks: it may be the one
		case !re.MatchString(path):
		case s.label == "<<none>>":
			return ""
		default:
			return s.label
		}
	}
	return ""
}

// stem is the first directory of a pattern, if it is written plainly.
func stem(pattern string) string {
	if i := strings.IndexByte(pattern[1:], '/'); i >= 0 && !strings.ContainsAny(pattern[:i+1], `.^$?*+|[({\`) {
		return pattern[:i+2]
	}
	return ""
}
