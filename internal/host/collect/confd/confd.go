// Package confd gathers configuration fragments the way systemd, kmod and procps
// look for them: several directories of decreasing precedence, where the first
// file of a name hides the later ones, and all that are left are read in the order
// of their names.
//
// It exists once because sysctl.d, modprobe.d, modules-load.d, systemd units and
// .network files share these rules. It reads bytes and interprets none.
package confd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Bounds of one collection of fragments.
const (
	MaxFiles = 4096
	MaxBytes = 16 << 20
)

// File is one file that was read.
type File struct {
	Name    string // base name
	Path    string // as it was found, absolute
	Content fact.Known[[]byte]
}

// Budget bounds what several gatherings may read together. The zero Budget is
// full.
type Budget struct {
	files int
	bytes int64
}

// take accounts for one file and tells whether there is room for it.
func (b *Budget) take(n int) bool {
	b.files++
	b.bytes += int64(n)
	return b.files <= MaxFiles && b.bytes <= MaxBytes
}

// Read reads one file within the budget. The path is made absolute for people.
func (b *Budget) Read(t *tree.Tree, path string) File {
	path = "/" + strings.TrimLeft(path, "/")
	f := File{Name: path[strings.LastIndexByte(path, '/')+1:], Path: path}
	if b.files >= MaxFiles || b.bytes >= MaxBytes {
		f.Content = fact.Missing[[]byte](fact.Gap{Reason: fact.Truncated, What: path + ": too many configuration files"})
		return f
	}
	f.Content = t.ReadFile(path, tree.MaxFile)
	if c, ok := f.Content.Get(); ok && !b.take(len(c)) {
		f.Content = fact.Missing[[]byte](fact.Gap{Reason: fact.Truncated, What: path + ": too many configuration files"})
	}
	return f
}

// Query says which fragments are meant.
type Query struct {
	Dirs   []string // by precedence
	Suffix string
	// DirsHide: a directory of that name hides files of lower precedence, though it
	// says nothing itself (systemd; kmod skips it).
	DirsHide bool
}

// Names lists the base names with the suffix, each with the path of highest
// precedence, sorted by name. Hidden files do not count.
func Names(t *tree.Tree, q Query) ([]File, []fact.Gap) {
	suffix := q.Suffix
	seen := map[string]bool{}
	var out []File
	var gaps []fact.Gap
	for _, dir := range q.Dirs {
		k := t.List(dir)
		names, ok := k.Get()
		if g, gap := k.Gap(); gap {
			gaps = append(gaps, g)
		}
		if !ok {
			continue
		}
		for _, n := range names {
			if seen[n] || strings.HasPrefix(n, ".") || !strings.HasSuffix(n, suffix) || len(n) == len(suffix) {
				continue
			}
			path := dir + "/" + n
			if i, ok := t.Lstat(path).Get(); ok && i.IsDir() && !q.DirsHide {
				continue
			}
			if len(out) >= MaxFiles {
				return out, append(gaps, fact.Gap{Reason: fact.Truncated, What: fmt.Sprintf("%s has more than %d files", dir, MaxFiles)})
			}
			seen[n] = true
			out = append(out, File{Name: n, Path: path})
		}
	}
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return out, gaps
}

// Gather reads the fragments that Names lists. A missing content (a link into
// nowhere) and an empty one hide the files of the same name all the same; they
// come back as they are.
func (b *Budget) Gather(t *tree.Tree, q Query) ([]File, []fact.Gap) {
	files, gaps := Names(t, q)
	for i := range files {
		if info, ok := t.Stat(files[i].Path).Get(); ok && info.IsDir() || Masked(t, files[i].Path) {
			files[i].Content = fact.Absent[[]byte]()
			continue
		}
		files[i] = b.Read(t, files[i].Path)
	}
	return files, gaps
}

// Masked tells whether a file is a link to /dev/null: how an administrator takes
// a vendor's file away.
func Masked(t *tree.Tree, path string) bool {
	target, ok := t.Readlink(path).Get()
	return ok && (target == "/dev/null" || strings.HasSuffix(target, "/dev/null") && strings.HasPrefix(target, ".."))
}

// Standard are the *.conf fragments of a name in the usual directories.
func Standard(name string) Query {
	return Query{Dirs: []string{"/etc/" + name, "/run/" + name, "/usr/local/lib/" + name, "/usr/lib/" + name, "/lib/" + name}, Suffix: ".conf", DirsHide: true}
}

// Gaps returns the gaps among files.
func Gaps(files []File) []fact.Gap {
	var out []fact.Gap
	for _, f := range files {
		if g, ok := f.Content.Gap(); ok {
			out = append(out, g)
		}
	}
	return out
}

// Line is a line of a file, with its number from 1.
type Line struct {
	Number int
	Text   string
}

// Lines splits as the usual parsers do, without line ends. Joined lines (a
// backslash at the end) keep the number of the first one when join is set.
func Lines(b []byte, join bool) []Line {
	var out []Line
	n := 0
	open := false
	for s := range strings.SplitSeq(string(b), "\n") {
		n++
		s = strings.TrimSuffix(s, "\r")
		more := join && strings.HasSuffix(s, `\`)
		if more {
			s = s[:len(s)-1]
		}
		if open {
			out[len(out)-1].Text += s
		} else {
			out = append(out, Line{Number: n, Text: s})
		}
		open = more
	}
	return out
}

// ParseGap names a line that was not understood, never its content.
func ParseGap(path string, line int) fact.Gap {
	return fact.Gap{Reason: fact.ParseGap, What: fmt.Sprintf("%s:%d", path, line)}
}
