package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Bounds of one file. The parser takes time that grows with the square of what a file
// nests or lists, so these are looked at before it runs.
const (
	MaxIntentFile = 128 << 10 // bytes
	maxDepth      = 24
	maxEntries    = 8192 // keys and items together
)

// kind is what a node of a file is.
type kind uint8

const (
	scalarKind kind = iota
	mapKind
	listKind
	nullKind
)

// node is a value of a file with the place where it is written.
type node struct {
	kind   kind
	file   *source
	line   int
	text   string // of a scalar, as it is meant
	word   string // what a scalar is: text, number, true or false
	fields []field
	items  []*node
}

// field is a key of a mapping, and its value.
type field struct {
	key   string
	line  int
	file  *source
	value *node
}

func (n *node) get(key string) *node {
	for i := range n.fields {
		if n.fields[i].key == key {
			return n.fields[i].value
		}
	}
	return nil
}

// what a node is, for people.
func (n *node) what() string {
	switch n.kind {
	case mapKind:
		return "a mapping"
	case listKind:
		return "a list"
	case nullKind:
		return "nothing"
	}
	return n.word
}

// source is a file that is being read, and what is wrong with it.
type source struct {
	name   string
	lines  []string
	errors *Errors
}

func (s *source) fail(line int, hint, why string, a ...any) {
	if len(*s.errors) >= maxErrors {
		return
	}
	*s.errors = append(*s.errors, &Error{File: s.name, Line: line, Text: textOf(s.lines, line), Why: cut(fmt.Sprintf(why, a...), 2*maxText), Hint: cut(hint, 3*maxText)})
}

// maxErrors is how many mistakes are shown at once.
const maxErrors = 50

// Errors are all mistakes found in configuration files.
type Errors []*Error

// Error implements error.
func (e Errors) Error() string {
	var b strings.Builder
	for i, x := range e {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(x.Error())
	}
	if len(e) >= maxErrors {
		b.WriteString("\nand perhaps more")
	}
	return b.String()
}

// Unwrap gives the single mistakes.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, x := range e {
		out[i] = x
	}
	return out
}

// parseTree reads one file of YAML without anchors, aliases and tags. What is wrong is
// in s.errors; the tree holds what could be read.
func parseTree(s *source, text []byte) *node {
	if len(text) > MaxIntentFile {
		s.fail(0, "long lists of prefixes belong into a set of the packet filter; check that this is an intent file", "larger than %d bytes", MaxIntentFile)
		return nil
	}
	s.lines = strings.Split(string(text), "\n")
	if !s.readable() || !s.bounded() {
		return nil
	}
	doc, err := parse(text)
	if err != nil {
		s.syntax(err)
		return nil
	}
	var body ast.Node
	for _, d := range doc.Docs {
		if d.Body == nil {
			continue
		}
		if _, directive := d.Body.(*ast.DirectiveNode); directive {
			s.fail(lineOfNode(d.Body), "leave it out", "YAML directives are not accepted")
			continue
		}
		if body != nil {
			s.fail(lineOfNode(d.Body), "put everything into one document, or into files of sixfence.d/", "more than one YAML document")
			return nil
		}
		body = d.Body
	}
	if body == nil {
		return &node{kind: mapKind, file: s}
	}
	c := converter{s: s}
	return c.node(body, 0)
}

// parse runs the parser; what it makes of hostile bytes is an error at worst.
func parse(text []byte) (f *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			f, err = nil, fmt.Errorf("the YAML parser gave up: %v", r)
		}
	}()
	return parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
}

func (s *source) readable() bool {
	for i, l := range s.lines {
		if !utf8.ValidString(l) {
			s.lines[i] = strings.ToValidUTF8(l, "�")
			s.fail(i+1, "save the file as UTF-8", "not UTF-8")
			return false
		}
		for _, r := range l {
			switch {
			case r == '\t', r == '\r' && strings.HasSuffix(l, "\r"):
			case unicode.IsControl(r), invisible(r):
				s.fail(i+1, "an invisible character hides what the file says: delete it", "the character %U", r)
				return false
			}
		}
	}
	return true
}

// invisible characters could make a file read differently from what it says.
func invisible(r rune) bool {
	return unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' || r == '\u0085'
}

// bounded refuses what would keep the parser busy, by counting characters alone: those
// inside quotes and comments count too, and no real file comes near the bounds.
func (s *source) bounded() bool {
	keys, brackets, entries := 0, 0, 0
	for i, l := range s.lines {
		indent, dashes := 0, 0
		for indent < len(l) && strings.IndexByte(" -?", l[indent]) >= 0 {
			if l[indent] != ' ' {
				dashes++
			}
			indent++
		}
		if indent > 8*maxDepth && strings.IndexByte("#-", l[min(indent, len(l)-1)]) < 0 {
			s.fail(i+1, "an intent nests six levels at most", "nested too deeply")
			return false
		}
		entries += dashes
		brackets += strings.Count(l, "[") + strings.Count(l, "{")
		keys += strings.Count(l, ": ")
		if strings.HasSuffix(strings.TrimRight(l, " \r"), ":") {
			keys++
		}
		for _, c := range l {
			switch c {
			case ',', ':', '&', '*', '!', '"', '\'', '|', '>':
				entries++
			}
		}
	}
	if brackets > maxEntries/2 || keys > maxEntries/2 || entries > 8*maxEntries {
		s.fail(0, "long lists of prefixes belong into a set of the packet filter; check that this is an intent file", "too many entries")
		return false
	}
	return true
}

// syntax makes the parser's error one that a person can act on.
func (s *source) syntax(err error) {
	var y yaml.Error
	if !errors.As(err, &y) {
		s.fail(0, "check the indentation and the quotes", "%s", firstLine(err.Error()))
		return
	}
	line := 0
	if t := y.GetToken(); t != nil && t.Position != nil {
		line = t.Position.Line
	}
	hint := "indent with spaces, as the lines around it; quote a text that holds “: ”, “#”, or that begins with : [ { * & ! or %"
	if strings.Contains(textOf(s.lines, line), "::") {
		hint = "put an address that begins with “:” in quotes: \"::/0\""
	}
	s.fail(line, hint, "not YAML: %s", y.GetMessage())
}

func lineOfNode(n ast.Node) int {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 {
		n = m.Values[0].Key
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		n = m.Key
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

// converter turns the parser's nodes into ours.
type converter struct {
	s       *source
	entries int
}

const literally = "write the value out, so that the file says by itself what holds; quote a text that begins with &, * or !"

func (c *converter) node(n ast.Node, depth int) *node {
	out := &node{file: c.s, line: lineOfNode(n), kind: nullKind}
	if c.entries++; c.entries > maxEntries || depth > maxDepth {
		if c.entries == maxEntries+1 || depth > maxDepth {
			c.s.fail(out.line, "an intent is short: check what made this file", "too many entries, or nested too deeply")
		}
		return out
	}
	scalar := func(word, text string) *node {
		out.kind, out.word, out.text = scalarKind, word, text
		return out
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		out.kind = mapKind
		for _, v := range n.Values {
			c.field(out, v, depth)
		}
	case *ast.MappingValueNode:
		out.kind = mapKind
		c.field(out, n, depth)
	case *ast.SequenceNode:
		out.kind = listKind
		for _, v := range n.Values {
			out.items = append(out.items, c.node(v, depth+1))
		}
	case *ast.StringNode:
		return scalar("text", n.Value)
	case *ast.LiteralNode:
		return scalar("text", strings.TrimRight(n.Value.Value, "\n"))
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return scalar("a number", n.GetToken().Value)
	case *ast.BoolNode:
		return scalar("true or false", fmt.Sprint(n.Value))
	case *ast.NullNode, nil:
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		c.s.fail(out.line, literally, "anchors and aliases are not accepted")
	case *ast.TagNode:
		c.s.fail(out.line, literally, "tags (!) are not accepted")
	default:
		c.s.fail(out.line, "write key: value, or a list", "this kind of YAML is not accepted")
	}
	return out
}

func (c *converter) field(out *node, v *ast.MappingValueNode, depth int) {
	f := field{line: lineOfNode(v), file: c.s}
	switch k := v.Key.(type) {
	case *ast.StringNode:
		f.key = k.Value
	case *ast.MergeKeyNode:
		c.s.fail(f.line, literally, "merge keys (<<) are not accepted")
		return
	default:
		text := ""
		if t := v.Key.GetToken(); t != nil {
			text = t.Value
		}
		c.s.fail(f.line, fmt.Sprintf("put it in quotes: %q; a MAC address or an IPv6 address needs them too", text), "the key %q is not text", text)
		return
	}
	for _, have := range out.fields {
		if have.key == f.key {
			c.s.fail(f.line, fmt.Sprintf("keep one of the two; the first is on line %d", have.line), "the key %q is there twice", f.key)
			return
		}
	}
	f.value = c.node(v.Value, depth+1)
	if f.value.kind != scalarKind && f.value.line == 0 {
		f.value.line = f.line
	}
	out.fields = append(out.fields, f)
}
