package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sixfence/sixfence/internal/model/intent"
)

// Note is what a written intent says about one value.
type Note struct {
	Above  []string // lines of comment before it
	Beside string   // at the end of its line
}

// Notes are the comments of a written intent, by path. The path "" stands at the top.
type Notes map[string]Note

// wide is where a line of a written intent is folded.
const wide = 96

// WriteIntent writes an intent as YAML with comments, in the order of the type.
// LoadIntent reads it back as the same intent.
func WriteIntent(in intent.Intent, notes Notes) []byte {
	w := &writer{notes: notes}
	w.above("", "")
	v := reflect.ValueOf(in)
	keys, fields := keysOf(v.Type())
	for _, k := range keys {
		f := v.FieldByIndex(fields[k].Index)
		if left(f) && k != "apiVersion" && k != "role" {
			if n, ok := notes[k]; ok && len(n.Above) > 0 {
				w.b.WriteByte('\n')
				w.above(k, "")
			}
			continue
		}
		if multi(f) || len(notes[k].Above) > 0 {
			w.b.WriteByte('\n')
		}
		w.entry(k, f, k, "")
	}
	return w.b.Bytes()
}

type writer struct {
	b     bytes.Buffer
	notes Notes
}

// left tells that a value is left out of the file.
func left(v reflect.Value) bool {
	if v.Kind() == reflect.Slice {
		return v.IsNil()
	}
	return v.IsZero() || v.Kind() == reflect.Map && v.Len() == 0
}

// multi tells that a value of the top level takes lines of its own.
func multi(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Map, reflect.Slice, reflect.Struct:
		return true
	}
	return false
}

func (w *writer) above(path, indent string) {
	for _, l := range w.notes[path].Above {
		w.b.WriteString(strings.TrimRight(indent+"# "+comment(l), " ") + "\n")
	}
}

// comment keeps what facts of a host say inside the comment.
func comment(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u2028' || r == '\u2029' || r == utf8.RuneError || invisible(r) {
			return '?'
		}
		return r
	}, s)
}

// end finishes a line with what stands beside the value.
func (w *writer) end(path string) {
	if n := w.notes[path].Beside; n != "" {
		line := w.b.Bytes()[bytes.LastIndexByte(w.b.Bytes(), '\n')+1:]
		w.b.WriteString(strings.Repeat(" ", max(1, 40-utf8.RuneCount(line))) + "# " + comment(n))
	}
	w.b.WriteByte('\n')
}

// entry writes "key: value".
func (w *writer) entry(key string, v reflect.Value, path, indent string) {
	w.above(path, indent)
	w.b.WriteString(indent + quoted(key) + ":")
	w.value(v, path, indent)
}

// value writes what follows a key, from the space on.
func (w *writer) value(v reflect.Value, path, indent string) {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if t, ok := v.Interface().(intent.Tunnels); ok {
		if t.Policy != intent.TunnelsList {
			w.b.WriteString(" " + t.Policy)
			w.end(path)
			return
		}
		v = reflect.ValueOf(t.List)
		if t.List == nil {
			v = reflect.ValueOf([]intent.Tunnel{})
		}
	}
	if s, ok := w.flow(v, path); ok && utf8.RuneCountInString(indent+s) <= wide-12 || v.Kind() == reflect.Slice && v.Len() == 0 {
		w.b.WriteString(" " + s)
		w.end(path)
		return
	}
	w.end(path)
	switch v.Kind() {
	case reflect.Map:
		for _, k := range slices.Sorted(maps.Keys(asMap(v))) {
			w.entry(k, v.MapIndex(reflect.ValueOf(k)), join(path, k), indent+"  ")
		}
	case reflect.Struct:
		w.block(v, path, indent+"  ", indent+"  ")
	case reflect.Slice:
		for i := range v.Len() {
			w.item(v.Index(i), listPath(path, v.Index(i), i), indent+"  ")
		}
	}
}

// item writes one "- " entry of a list.
func (w *writer) item(v reflect.Value, path, indent string) {
	w.above(path, indent)
	if s, ok := w.flow(v, path); ok && utf8.RuneCountInString(indent+s) <= wide {
		w.b.WriteString(indent + "- " + s)
		w.end(path)
		return
	}
	w.block(v, path, indent+"- ", indent+"  ")
}

// block writes the keys of a struct, one a line.
func (w *writer) block(v reflect.Value, path, first, indent string) {
	keys, fields := keysOf(v.Type())
	lead := first
	for _, k := range keys {
		f := v.FieldByIndex(fields[k].Index)
		if left(f) {
			continue
		}
		p := join(path, k)
		if lead == indent {
			w.above(p, indent)
		}
		w.b.WriteString(lead + k + ":")
		w.value(f, p, indent)
		lead = indent
	}
}

func listPath(path string, v reflect.Value, i int) string {
	if s, ok := v.Interface().(intent.Service); ok {
		return join(path, s.Name)
	}
	return fmt.Sprintf("%s[%d]", path, i)
}

func asMap(v reflect.Value) map[string]bool {
	out := map[string]bool{}
	for _, k := range v.MapKeys() {
		out[k.String()] = true
	}
	return out
}

// flow is a value on one line. It is refused for what has comments inside, and for
// mappings of the outer levels, which read better on lines of their own.
func (w *writer) flow(v reflect.Value, path string) (string, bool) {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if s, ok := v.Interface().(fmt.Stringer); ok && v.Kind() == reflect.Struct {
		return quoted(s.String()), true
	}
	switch v.Kind() {
	case reflect.String:
		return quoted(v.String()), true
	case reflect.Bool, reflect.Uint32:
		return fmt.Sprint(v.Interface()), true
	case reflect.Slice:
		var parts []string
		for i := range v.Len() {
			p := listPath(path, v.Index(i), i)
			if w.noted(p) || v.Index(i).Kind() == reflect.Struct && !scalar(v.Index(i)) && v.Len() > 1 {
				return "", false
			}
			s, ok := w.flow(v.Index(i), p)
			if !ok {
				return "", false
			}
			parts = append(parts, s)
		}
		return "[" + strings.Join(parts, ", ") + "]", path != "services" && path != "waivers"
	case reflect.Struct:
		keys, fields := keysOf(v.Type())
		var parts []string
		for _, k := range keys {
			f := v.FieldByIndex(fields[k].Index)
			if left(f) {
				continue
			}
			p := join(path, k)
			if w.noted(p) {
				return "", false
			}
			s, ok := w.flow(f, p)
			if !ok {
				return "", false
			}
			parts = append(parts, k+": "+s)
		}
		return "{" + strings.Join(parts, ", ") + "}", !strings.HasPrefix(path, "interfaces.") || strings.Count(path, ".") > 1 || strings.HasSuffix(path, "]")
	}
	return "", false
}

// noted tells that a path or one below it has a comment.
func (w *writer) noted(path string) bool {
	for p, n := range w.notes {
		if (n.Beside != "" || len(n.Above) > 0) && (p == path || strings.HasPrefix(p, path+".") || strings.HasPrefix(p, path+"[")) {
			return true
		}
	}
	return false
}

func scalar(v reflect.Value) bool {
	_, ok := v.Interface().(fmt.Stringer)
	return ok
}

var (
	bare  = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9/_.*-]*( [A-Za-z0-9/_.-]+)*$`)
	words = []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
)

// quoted is a text as YAML takes it for text, with quotes where it needs them.
func quoted(s string) string {
	if bare.MatchString(s) && !slices.Contains(words, strings.ToLower(s)) {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(s) != nil {
		return `""`
	}
	return strings.TrimRight(b.String(), "\n")
}
