package manager

import (
	"strings"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
)

// section is one section of an INI-like file; a name may come several times.
type section struct {
	name    string
	file    string
	line    int
	entries []entry
}

type entry struct {
	key, value string
	file       string
	line       int
}

// maxEntries bounds the lines of one file that are looked at.
const maxEntries = 20000

// parseINI splits a file of sections as systemd's config_parse does: comments
// start with # or ;, a backslash joins lines (also over comments), white space
// around keys and values does not count. It returns the numbers of lines it did
// not understand.
func parseINI(path string, b []byte) (sections []section, bad []int) {
	n := 0
	joined, first := "", 0
	for s := range strings.SplitSeq(strings.ToValidUTF8(string(b), "?"), "\n") {
		n++
		if n > maxEntries {
			return sections, append(bad, n)
		}
		trimmed := strings.Trim(s, " \t\r")
		if trimmed != "" && (trimmed[0] == '#' || trimmed[0] == ';') {
			continue // also between joined lines
		}
		if joined == "" {
			first = n
		}
		if strings.HasSuffix(trimmed, `\`) {
			joined += trimmed[:len(trimmed)-1] + " "
			continue
		}
		text := strings.Trim(joined+trimmed, " \t\r")
		joined = ""
		switch {
		case text == "":
		case text[0] == '[':
			if text[len(text)-1] != ']' {
				bad = append(bad, first)
				sections = append(sections, section{file: path, line: first}) // what follows belongs to nothing
				continue
			}
			sections = append(sections, section{name: text[1 : len(text)-1], file: path, line: first})
		default:
			key, value, ok := strings.Cut(text, "=")
			if !ok || len(sections) == 0 {
				bad = append(bad, first)
				continue
			}
			last := &sections[len(sections)-1]
			last.entries = append(last.entries, entry{strings.TrimSpace(key), strings.TrimSpace(value), path, first})
		}
	}
	return sections, bad
}

// parseFile is parseINI of a file that was read; bad lines are noted by number.
func parseFile(f confd.File, note func(path string, line int)) []section {
	b, ok := f.Content.Get()
	if !ok {
		return nil
	}
	sections, bad := parseINI(f.Path, b)
	for _, n := range bad {
		note(f.Path, n)
	}
	return sections
}

// parseBool is systemd's parse_boolean.
func parseBool(s string) (v, ok bool) {
	switch strings.ToLower(s) {
	case "1", "yes", "y", "true", "t", "on":
		return true, true
	case "0", "no", "n", "false", "f", "off":
		return false, true
	}
	return false, false
}
