// Package apps reads the few settings of applications that decide which address
// family they serve or which sources they let in: sshd, PostgreSQL, fail2ban, and
// the source lists of hosts.allow, nginx, Apache, Redis and Postfix.
//
// An IPv4 access list that has no IPv6 twin is the classic dual-stack hole, and
// it is invisible to a port scan. Only addresses, ports and policy words are kept;
// passwords, options and names that could be secrets are not.
package apps

import (
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Dump is what was read, not yet interpreted.
type Dump struct {
	sshd     *includes
	postgres []cluster
	fail2ban []confd.File
	jails    []confd.File
	lists    []list
	gaps     []fact.Gap
}

// list is a file that may hold an access list.
type list struct {
	app  string
	file confd.File
}

// Bounds.
const (
	maxPatterns = 4096
	maxGaps     = 128
	maxWord     = 128
)

// Read reads files below t.
func Read(t *tree.Tree) *Dump {
	d := &Dump{}
	var b confd.Budget
	d.sshd = readIncludes(t, &b, "/etc/ssh/sshd_config", "/etc/ssh", sshdIncludes)
	d.readPostgres(t, &b)
	if _, ok := t.Stat("/etc/fail2ban").Get(); ok {
		d.readFail2ban(t, &b)
	}
	d.readLists(t, &b)
	return d
}

// Decode interprets it.
func (d *Dump) Decode(h *fact.Host) {
	a := &h.Apps
	a.SSHD = d.decodeSSHD()
	a.Postgres = d.decodePostgres()
	a.Fail2ban = d.decodeFail2ban()
	a.SourceACLs = d.decodeLists()
	a.Gaps = append(a.Gaps, d.gaps...)
}

func (d *Dump) gap(g fact.Gap) {
	if len(d.gaps) < maxGaps && !slices.Contains(d.gaps, g) {
		d.gaps = append(d.gaps, g)
	}
}

// piece is a run of lines of one file: a file with includes comes in several.
type piece struct {
	file  confd.File
	first int  // number of the first line
	depth int  // 0 for the main file
	start bool // the first piece of its file
}

// includes is a configuration whose files include others in place.
type includes struct {
	pieces  []piece
	missing bool // the main file is not there
	gaps    []fact.Gap
}

const (
	maxIncludes = 256
	maxDepth    = 16
)

// readIncludes reads a file and, in place, what it includes. split returns the
// patterns of an include line, nil for any other; relative ones are below dir.
func readIncludes(t *tree.Tree, b *confd.Budget, name, dir string, split func(line string) []string) *includes {
	in := &includes{}
	in.read(t, b, name, dir, split, 0)
	in.missing = len(in.pieces) == 1 && in.pieces[0].file.Content.State() == fact.StateAbsent
	return in
}

func (in *includes) read(t *tree.Tree, b *confd.Budget, name, dir string, split func(string) []string, depth int) {
	f := b.Read(t, name)
	c, ok := f.Content.Get()
	if !ok {
		if g, gap := f.Content.Gap(); gap {
			in.gaps = append(in.gaps, g)
		}
		in.pieces = append(in.pieces, piece{f, 1, depth, true})
		return
	}
	first, n := 1, 0
	var text strings.Builder
	start := true
	flush := func(next int) {
		in.pieces = append(in.pieces, piece{confd.File{Name: f.Name, Path: f.Path, Content: fact.Value([]byte(text.String()))}, first, depth, start})
		start = false
		text.Reset()
		first = next
	}
	for line := range strings.SplitSeq(string(c), "\n") {
		n++
		pats := split(line)
		if pats == nil {
			text.WriteString(line + "\n")
			continue
		}
		flush(n + 1)
		for _, p := range pats {
			if !path.IsAbs(p) {
				p = path.Join(dir, p)
			}
			for _, m := range expand(t, p, &in.gaps) {
				if depth >= maxDepth || len(in.pieces) >= maxIncludes {
					in.gaps = append(in.gaps, fact.Gap{Reason: fact.Truncated, What: f.Path + " includes too many files"})
					return
				}
				in.read(t, b, m, dir, split, depth+1)
			}
		}
	}
	flush(n + 1)
}

// expand finds the files that a shell pattern names, in order.
func expand(t *tree.Tree, pattern string, gaps *[]fact.Gap) []string {
	found := []string{"/"}
	for _, part := range strings.Split(strings.Trim(path.Clean(pattern), "/"), "/") {
		var next []string
		for _, dir := range found {
			if !strings.ContainsAny(part, "*?[") {
				next = append(next, path.Join(dir, part))
				continue
			}
			k := t.List(dir)
			if g, ok := k.Gap(); ok {
				*gaps = append(*gaps, g)
			}
			for _, name := range k.Or(nil) {
				if ok, err := path.Match(part, name); err == nil && ok && (name[0] != '.' || part[0] == '.') && len(next) < maxIncludes {
					next = append(next, path.Join(dir, name))
				}
			}
		}
		found = next
	}
	var out []string
	for _, p := range found {
		k := t.Stat(p)
		if g, ok := k.Gap(); ok {
			*gaps = append(*gaps, g)
		}
		if i, ok := k.Get(); ok && !i.IsDir() {
			out = append(out, p)
		}
	}
	return out
}

// line is a logical line with where it stands.
type line struct {
	text  string
	at    fact.Origin
	depth int  // of the file, 0 for the main one
	start bool // the first line of its file
}

func (in *includes) lines() []line {
	var out []line
	for _, p := range in.pieces {
		c, ok := p.file.Content.Get()
		if !ok {
			continue
		}
		for i, l := range confd.Lines(c, false) {
			out = append(out, line{strings.ToValidUTF8(l.Text, "?"), fact.Origin{File: p.file.Path, Line: l.Number + p.first - 1}, p.depth, p.start && i == 0})
		}
	}
	return out
}

// source keeps an address pattern: an address, a prefix, or a word of address
// characters with wildcards, and words that mean a set of sources.
func source(s string) (string, bool) {
	s = strings.Trim(s, "[]")
	if s == "" || len(s) > maxWord {
		return "", false
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return s, true
	}
	if _, err := netip.ParsePrefix(s); err == nil {
		return s, true
	}
	switch strings.ToLower(s) {
	case "all", "localhost", "samehost", "samenet", "local", "known", "unknown", "paranoid", "any", "*":
		return s, true
	}
	if strings.ContainsAny(s, ".:*?") && strings.Trim(s, "0123456789abcdefABCDEF.:*?/![]%") == "" {
		return s, true
	}
	return "", false
}

// hostish keeps a source that may be a host name too.
func hostish(s string) (string, bool) {
	if p, ok := source(s); ok {
		return p, true
	}
	if s == "" || len(s) > maxWord || strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789.-*?_") != "" {
		return "", false
	}
	return s, true
}
