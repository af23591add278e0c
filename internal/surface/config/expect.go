package config

import (
	"slices"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/sixfence/sixfence/internal/logic/expect"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// expectKeys are those of a file of expectations.
const expectKeys = "apiVersion, expect"

// Expect reads a file of expectations for a target that does not run sixfence:
//
//	apiVersion: sixfence/v1
//	expect:
//	  tcp/22: open
//	  tcp/5432: {ipv4: open, ipv6: filtered}
//	  "*": filtered
//
// The error is of type Errors and holds every mistake.
func Expect(file string, text []byte) (expect.List, error) {
	var errs Errors
	s := &source{name: file, errors: &errs}
	tree := parseTree(s, text)
	if tree == nil {
		return nil, errs
	}
	var out expect.List
	if tree.kind != mapKind {
		s.fail(tree.line, "begin with apiVersion: "+APIVersion+" and expect:", "the file is %s, not a mapping", tree.what())
		return nil, errs
	}
	for _, f := range tree.fields {
		switch f.key {
		case "apiVersion":
			if f.value.text != APIVersion {
				s.fail(f.value.line, "write apiVersion: "+APIVersion, "apiVersion is %s", described(f.value))
			}
		case "expect":
			out = expectations(s, f.value)
		default:
			hint := "the keys are " + expectKeys
			if near := Nearest(f.key, []string{"apiVersion", "expect"}); len(near) > 0 {
				hint = "did you mean " + near[0] + "? " + hint
			}
			s.fail(f.line, hint, "unknown key %q", f.key)
		}
	}
	if tree.get("expect") == nil && len(errs) == 0 {
		s.fail(0, "write expect: with lines below it such as tcp/22: open", "expect is missing")
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return out, nil
}

func expectations(s *source, n *node) expect.List {
	if n.kind != mapKind {
		s.fail(n.line, "write lines such as tcp/22: open below it", "expect is %s, not a mapping", n.what())
		return nil
	}
	if len(n.fields) == 0 && len(*s.errors) == 0 {
		s.fail(n.line, "name a port: tcp/22: open", "expect is empty")
	}
	var out expect.List
	var at []field
	for _, f := range n.fields {
		e, ok := expectPorts(s, f)
		if !ok {
			continue
		}
		words := f.value
		if words.kind != mapKind {
			if w, ok := expectWord(s, f.key, words); ok {
				e.IPv4, e.IPv6 = w, w
				out, at = append(out, e), append(at, f)
			}
			continue
		}
		for _, g := range words.fields {
			w, ok := expectWord(s, f.key+"."+g.key, g.value)
			switch {
			case !ok:
			case (g.key == "ip" || g.key == "ipv4") && e.IPv4 != "", (g.key == "ip6" || g.key == "ipv6") && e.IPv6 != "":
				s.fail(g.line, "keep one of the two", "%s says twice what is expected over one family", f.key)
			case g.key == "ipv4" || g.key == "ip":
				e.IPv4 = w
			case g.key == "ipv6" || g.key == "ip6":
				e.IPv6 = w
			default:
				s.fail(g.line, "the families are ipv4 and ipv6", "unknown key %q in %s", g.key, f.key)
			}
		}
		out, at = append(out, e), append(at, f)
	}
	for i, e := range out {
		if k := slices.IndexFunc(out[:i], e.Contradicts); k >= 0 {
			s.fail(at[i].line, "make one of the two narrower: the narrowest line that names a port holds", "%s and %s (line %d) name the same port, are as narrow as each other, and say different things",
				at[i].key, at[k].key, at[k].line)
		}
	}
	return out
}

// expectSchema is the schema of a file of expectations. That a port is not above 65535,
// that a range does not end before it begins, and that no two lines contradict each other, is
// said by the loader alone.
func expectSchema() *jsonschema.Schema {
	word := func() *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Enum: values(expect.Words())} }
	not := &jsonschema.Schema{Not: &jsonschema.Schema{}}
	api := any(APIVersion)
	one := 1
	families := &jsonschema.Schema{Type: "object", Properties: map[string]*jsonschema.Schema{}, AdditionalProperties: not, Description: "a family that is not named has no expectation"}
	for _, f := range []string{"ipv4", "ipv6", "ip", "ip6"} {
		families.Properties[f] = word()
	}
	return &jsonschema.Schema{
		Title: "sixfence expectations", Description: "What `sixfence verify --expect FILE` reads, as YAML. The narrowest line that names a port holds.",
		Type: "object", Required: []string{"expect"}, AdditionalProperties: not,
		Properties: map[string]*jsonschema.Schema{
			"apiVersion": {Type: "string", Const: &api},
			"expect": {
				Type: "object", MinProperties: &one, AdditionalProperties: not,
				Description: "a state for tcp/22, tcp/1-1000, udp/*, icmp/8, icmpv6/128, echo, or \"*\" for every other port of TCP and UDP",
				PatternProperties: map[string]*jsonschema.Schema{
					`^(\*|echo|(tcp|udp|icmp|icmpv6)/\*|(tcp|udp)/[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?|icmp/(8(-8)?|13(-13)?)|icmpv6/128(-128)?)$`: {OneOf: []*jsonschema.Schema{word(), families}},
				},
			},
		},
	}
}

// expectPorts reads a key: tcp/22, tcp/1-1000, udp/*, echo, *.
func expectPorts(s *source, f field) (expect.Entry, bool) {
	proto, rest, _ := strings.Cut(f.key, "/")
	if f.key == "*" {
		return expect.Entry{}, true
	}
	if rest == "*" && slices.Contains([]string{"tcp", "udp", "icmp", "icmpv6"}, proto) {
		return expect.Entry{Proto: proto}, true
	}
	if f.key == expect.Echo {
		return expect.Entry{Proto: expect.Echo}, true
	}
	var spec probe.Spec
	if err := spec.Parse(f.key); err != nil {
		hint := "write tcp/22, tcp/1-1000, udp/*, icmpv6/128 or \"*\""
		if e, ok := err.(*probe.SpecError); ok { //nolint:errorlint // Parse returns it bare
			hint = e.Hint + "; or tcp/*, or \"*\""
		}
		s.fail(f.line, hint, "%v", err)
		return expect.Entry{}, false
	}
	from, to, isRange := strings.Cut(rest, "-")
	if !isRange {
		to = from
	}
	a, _ := strconv.ParseUint(from, 10, 16) // Parse has seen them
	b, _ := strconv.ParseUint(to, 10, 16)
	return expect.Entry{Proto: proto, From: uint16(a), To: uint16(b)}, true
}

func expectWord(s *source, at string, n *node) (expect.Word, bool) {
	w := expect.Word(n.text)
	if n.kind == scalarKind && slices.Contains(expect.Words(), w) {
		return w, true
	}
	var words []string
	for _, w := range expect.Words() {
		words = append(words, string(w))
	}
	hint := "one of: " + strings.Join(words, ", ")
	if near := Nearest(n.text, words); n.kind == scalarKind && len(near) > 0 {
		hint = "did you mean " + near[0] + "? " + hint
	}
	s.fail(n.line, hint, "%s is %s, which is no state", at, described(n))
	return "", false
}
