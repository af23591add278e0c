package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// MaxSnapshot is the size bound of a Snapshot file, in bytes: a host with 100,000
// listeners takes about a sixth of it.
const MaxSnapshot = 256 << 20

// SnapshotError says why a file is no usable Snapshot, where, and what to do.
type SnapshotError struct {
	Name string
	Line int   // 0: not known
	At   int64 // byte offset, -1: not known
	Why  string
	Hint string
}

// Error implements error.
func (e *SnapshotError) Error() string {
	at := ""
	if e.Line > 0 {
		at = fmt.Sprintf(":%d (byte %d)", e.Line, e.At)
	}
	return fmt.Sprintf("read snapshot %s%s: %s", e.Name, at, e.Why)
}

// maxNamespaces bounds the network namespaces of a Snapshot. Three bytes of a file
// ask for one, and the answers of all controls about it take 200 kB of memory. A
// part of them would be a report that looks whole, so a larger Snapshot is refused.
const maxNamespaces = 4096

var schemaVersion = regexp.MustCompile(`^(\d{1,4})\.(\d{1,4})$`)

// remake is the remedy for a damaged file.
const remake = "make it again with: sixfence snapshot -o FILE"

// ReadSnapshot decodes a Snapshot from r, of at most limit bytes (0 is MaxSnapshot).
// The file may come from a stranger: size, nesting and numbers are bounded, a
// repeated key is refused because two readers could see two different hosts.
func ReadSnapshot(r io.Reader, name string, limit int64) (*fact.Snapshot, error) {
	if limit <= 0 {
		limit = MaxSnapshot
	}
	bad := func(why, hint string) error { return &SnapshotError{Name: name, At: -1, Why: why, Hint: hint} }
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, bad(err.Error(), "check the path and its permissions")
	}
	if int64(len(b)) > limit {
		return nil, bad(fmt.Sprintf("larger than %d bytes", limit), remake)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, bad("the file is empty", remake)
	}
	var head struct {
		SchemaVersion json.RawMessage `json:"schemaVersion"`
		Findings      json.RawMessage `json:"findings"`
		Namespaces    []struct{}      `json:"namespaces"` // counted before each takes its memory
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, locate(name, b, err)
	}
	if head.Findings != nil {
		return nil, bad("this is a report, not a snapshot", remake)
	}
	var version string
	if head.SchemaVersion == nil || json.Unmarshal(head.SchemaVersion, &version) != nil {
		return nil, bad("it has no schemaVersion: not a sixfence snapshot", remake)
	}
	m := schemaVersion.FindStringSubmatch(version)
	if m == nil {
		return nil, bad(fmt.Sprintf("schemaVersion %.20q is not a version", version), remake)
	}
	if ours, _, _ := strings.Cut(fact.SchemaVersion, "."); m[1] != ours {
		return nil, bad("snapshot schema "+version+" is not known to this build (it reads "+ours+".x)", "use the sixfence that wrote it, or a newer one")
	}
	if n := len(head.Namespaces); n > maxNamespaces {
		return nil, bad(fmt.Sprintf("%d network namespaces: this build judges at most %d", n, maxNamespaces), "audit that host where it is")
	}
	if key, at := duplicateKey(b); at >= 0 {
		return nil, &SnapshotError{Name: name, Line: lineOf(b, at), At: int64(at), Why: fmt.Sprintf("the key %.60q appears twice in one object", key), Hint: remake}
	}
	if at := nullElement(b); at >= 0 {
		return nil, &SnapshotError{Name: name, Line: lineOf(b, at), At: int64(at), Why: "a list holds null, which is nothing that was read", Hint: remake}
	}
	s := new(fact.Snapshot)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, locate(name, b, err)
	}
	switch s.Host.Mode {
	case fact.ModeLive, fact.ModeRoot:
	case "":
		s.Host.Mode = fact.ModeLive
	default:
		return nil, bad(fmt.Sprintf("host.mode %.20q is neither live nor root", s.Host.Mode), remake)
	}
	return s, nil
}

func locate(name string, b []byte, err error) error {
	e := &SnapshotError{Name: name, At: -1, Why: err.Error(), Hint: remake}
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		e.At = syntax.Offset
		e.Line = lineOf(b, int(syntax.Offset)-1)
		if len(bytes.TrimSpace(b[min(max(syntax.Offset, 0), int64(len(b))):])) == 0 {
			e.Why = "the file ends in the middle (truncated?)"
		}
	case errors.As(err, &typ):
		e.Why = fmt.Sprintf("%s does not fit the schema: %s cannot be %s", orWord(typ.Field, "a value"), typ.Value, typ.Type)
	}
	return e
}

func orWord(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

func lineOf(b []byte, at int) int {
	return 1 + bytes.Count(b[:min(max(at, 0), len(b))], []byte("\n"))
}

// duplicateKey finds a key that one object of a valid JSON document has twice: its
// name and where it is, or -1.
func duplicateKey(b []byte) (string, int) {
	type object struct {
		keys  map[string]struct{}
		array bool
		key   bool // the next string is a key
	}
	var stack []object
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{':
			stack = append(stack, object{keys: map[string]struct{}{}, key: true})
		case '[':
			stack = append(stack, object{array: true})
		case '}', ']':
			if len(stack) == 0 {
				return "", -1
			}
			stack = stack[:len(stack)-1]
		case ',':
			if n := len(stack); n > 0 && !stack[n-1].array {
				stack[n-1].key = true
			}
		case '"':
			end := i + 1
			escaped := false
			for end < len(b) && b[end] != '"' {
				if b[end] == '\\' {
					escaped = true
					end++
				}
				end++
			}
			if end >= len(b) {
				return "", -1
			}
			if n := len(stack); n > 0 && stack[n-1].key {
				stack[n-1].key = false
				key := string(b[i+1 : end])
				if escaped {
					_ = json.Unmarshal(b[i:end+1], &key)
				}
				if _, twice := stack[n-1].keys[key]; twice {
					return key, i
				}
				stack[n-1].keys[key] = struct{}{}
			}
			i = end
		}
	}
	return "", -1
}

// nullElement finds a null that is an element of a list in a valid JSON document, or
// returns -1. It would decode to a link, an address or a number of nothing but zeros.
func nullElement(b []byte) int {
	inString, list := false, []bool{}
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			list = append(list, c == '[')
		case (c == '}' || c == ']') && len(list) > 0:
			list = list[:len(list)-1]
		case c == 'n' && len(list) > 0 && list[len(list)-1]:
			return i // outside of strings only null has this letter
		}
	}
	return -1
}

// WriteSnapshot encodes a Snapshot as one line of JSON. Runes that do not print by
// themselves are written as JSON escapes: the file can be shown in a terminal and
// decodes to the same Snapshot.
func WriteSnapshot(w io.Writer, s *fact.Snapshot) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	if _, err := w.Write(visible(b.Bytes())); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// visible escapes what does not print, inside the strings of a JSON document.
func visible(b []byte) []byte {
	i := bytes.IndexFunc(b, odd)
	if i < 0 {
		return b
	}
	out := append(make([]byte, 0, len(b)+len(b)/8), b[:i]...)
	for i < len(b) {
		r, n := utf8.DecodeRune(b[i:])
		switch {
		case !odd(r):
			out = append(out, b[i:i+n]...)
		case r < 0x10000:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			hi, lo := 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		}
		i += n
	}
	return out
}

func odd(r rune) bool {
	return r == 0x7f || r >= 0x80 && !unicode.IsPrint(r)
}
