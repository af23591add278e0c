package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"pgregory.net/rapid"
)

// onlyTheLoader are words of the refusals that a schema has no way to make: two values
// that do not go together, ranges, and what a text means. The reference lists them.
var onlyTheLoader = []string{
	"role is missing", "addressing is missing", "twice", "already", "there are two services",
	"there is no \"", "nobody would get in", "names nothing, and would", "means nothing while", "is not ipv4", "is not ipv6", "nothing to learn", "names routers or servers", "no MAC address to pin", "it is the router of",
	"is no port", "ends before it begins", "needs a port", "is no service", "is an IPv6 extension header", "is no protocol", "protocol last", "does not say whether",
	"is no date", "is no rate", "whole number", "has bits set", "has no such length", "has a mask", "is no address", "is no prefix", "has a zone", "IPv4-mapped", "which no router advertises", "that a router advertises", "not link-local", "is a prefix, not an address",
	"cannot be the name", "needs no entry", "longer than", "is too long", "is no glob", "cannot be a driver", "multicast address", "all zeros", "is no name",
	"it is empty", "is no prefix of log lines", "is no control", "cannot be a sysctl", "is not below net", "has a wildcard", "is no value of a sysctl", "written differently",
	"is no check", "is no kind", "names no host", "names no port", "no ports and no paths", "carries no password", "does not answer", "which name to ask",
	"does not fit", "an invisible character", "the character",
}

// pool are values of every sort that a mutation puts in the place of another.
var pool = []any{
	"", "x", "eth0", "tcp/22", "22", "fe80::1", "2001:db8::/32", "192.0.2.1", "2027-01-31", "deny", "ipv6", "52:54:00:00:00:01", "sixfence/v1", "slaac", "true", "tcp://[2001:db8::1]:53", "gre", "LISTEN-07",
	true, false, 0, 1, 64, -1, 1.5, nil,
	[]any{},
	[]any{"x"},
	[]any{1},
	[]any{"ipv4"},
	[]any{[]any{}},
	[]any{map[string]any{}},
	map[string]any{},
	map[string]any{"x": 1},
	map[string]any{"name": "a"},
}

// mutate changes one place of a document, and says which.
func mutate(t *rapid.T, doc map[string]any) string {
	type place struct {
		path string
		set  func(any)
		drop func()
		name func(string)
		now  any
	}
	var places []place
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			keys := make([]string, 0, len(v))
			for k := range v {
				keys = append(keys, k)
			}
			slices.Sort(keys)
			for _, k := range keys {
				places = append(places, place{path + "." + k, func(x any) { v[k] = x }, func() { delete(v, k) }, func(n string) { v[n] = v[k]; delete(v, k) }, v[k]})
				walk(path+"."+k, v[k])
			}
		case []any:
			for i := range v {
				places = append(places, place{fmt.Sprintf("%s[%d]", path, i), func(x any) { v[i] = x }, nil, nil, v[i]})
				walk(fmt.Sprintf("%s[%d]", path, i), v[i])
			}
		}
	}
	walk("", doc)
	p := places[rapid.IntRange(0, len(places)-1).Draw(t, "place")]
	switch how := rapid.IntRange(0, 5).Draw(t, "how"); {
	case how == 0 && p.drop != nil:
		p.drop()
		return p.path + " dropped"
	case how == 1 && p.name != nil:
		n := rapid.SampledFrom([]string{"x", "name", "ports", "Role", "role ", "match", "from", "until", ""}).Draw(t, "name")
		p.name(n)
		return p.path + " named " + n
	case how == 2:
		if s, ok := p.now.(string); ok && s != "" {
			i := rapid.IntRange(0, len(s)-1).Draw(t, "at")
			n := s[:i] + rapid.SampledFrom([]string{"", "x", "9", "/", ":", "-", "A", "."}).Draw(t, "letter") + s[i+1:]
			p.set(n)
			return fmt.Sprintf("%s: %q", p.path, n)
		}
	}
	x := rapid.SampledFrom(pool).Draw(t, "value")
	p.set(x)
	return fmt.Sprintf("%s: %v", p.path, x)
}

// TestSchemaAndLoaderAgree: what the schema refuses the loader refuses; what the loader
// refuses the schema refuses, or it is one of the differences that the reference lists.
func TestSchemaAndLoaderAgree(t *testing.T) {
	t.Parallel()
	s := compile(t, IntentDocument)
	used := map[string]int{}
	both, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		j, err := yaml.YAMLToJSON(WriteIntent(genIntent(t), nil))
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		if err := json.Unmarshal(j, &doc); err != nil {
			t.Fatal(err)
		}
		what := mutate(t, doc)
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		_, byLoader := LoadIntent([]IntentFile{{Path: "f", Text: text}}, nil)
		bySchema := validYAML(s, text)
		switch {
		case bySchema != nil && byLoader == nil:
			t.Fatalf("%s: only the schema refuses: %v\n%s", what, bySchema, text)
		case bySchema == nil && byLoader != nil:
			var all Errors
			if !errors.As(byLoader, &all) {
				t.Fatalf("%T", byLoader)
			}
			for _, e := range all {
				i := slices.IndexFunc(onlyTheLoader, func(w string) bool { return strings.Contains(e.Why, w) })
				if i < 0 {
					t.Fatalf("%s: only the loader refuses: %v\n%s", what, e, text)
				}
				used[onlyTheLoader[i]]++
			}
		case bySchema != nil:
			refused++
		default:
			both++
		}
	})
	if both == 0 || refused == 0 {
		t.Errorf("%d accepted by both, %d refused by both: this test shows little", both, refused)
	}
	t.Logf("%d accepted by both, %d refused by both, differences: %v", both, refused, used)
}
