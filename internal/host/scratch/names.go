package scratch

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// validName tells whether the kernel takes a name for an interface (dev_valid_name).
func validName(s string) bool {
	return s != "" && len(s) < 16 && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n\v\f\r%*$@{}\"")
}

const nameToken = `"[^"\n]*"|[\w.\-]+`

var (
	// What follows a word that takes an interface: a name, a variable or a list.
	named = regexp.MustCompile(`\b(?:iif|oif|devices?|ibriport|obriport)\b(?:\s*(?:==|!=|=))?\s*(\{[^}]*\}|\$\w+|` + nameToken + `)`)
	word  = regexp.MustCompile(nameToken)
	// define NAME = VALUE, and elements of sets of interfaces.
	definition = regexp.MustCompile(`(?m)\b(?:define|redefine)\s+\w+\s*=\s*(\{[^}]*\}|[^\n;]*)`)
	elements   = regexp.MustCompile(`(?:elements\s*=|add\s+element[^{]*|vmap|map)\s*(\{[^}]*\})`)
)

// namesInScript lists what is likely the name of an interface that must exist. It may
// list too much, which makes one stand-in more, or too little, which nft then says.
func namesInScript(text []byte) []string {
	if !strings.Contains(string(text), "if") && !strings.Contains(string(text), "device") {
		return nil
	}
	text = uncomment(text)
	var out []string
	variables := false
	for _, m := range named.FindAllSubmatch(text, -1) {
		if m[1][0] == '$' {
			variables = true
			continue
		}
		variables = variables || strings.Contains(string(m[1]), "$")
		out = append(out, names(m[1])...)
	}
	if variables {
		out = append(out, definedNames(text)...)
	}
	if strings.Contains(string(text), "iface_index") || len(out) > 0 && strings.Contains(string(text), "typeof") {
		for _, m := range elements.FindAllSubmatch(text, -1) {
			out = append(out, names(m[1])...)
		}
	}
	return unique(out)
}

// definedNames are the words in definitions.
func definedNames(text []byte) []string {
	var out []string
	for _, m := range definition.FindAllSubmatch(uncomment(text), -1) {
		out = append(out, names(m[1])...)
	}
	return unique(out)
}

// allNames are all words of a text.
func allNames(text []byte) []string { return unique(names(uncomment(text))) }

func names(b []byte) []string {
	var out []string
	for _, w := range word.FindAll(b, maxStubs) {
		if s := strings.Trim(string(w), `"`); validName(s) && !digits(s) {
			out = append(out, s)
		}
	}
	return out
}

func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

func unique(s []string) []string {
	slices.Sort(s)
	s = slices.Compact(s)
	return s[:min(len(s), maxStubs)]
}

// namesInJSON lists the devices of chains and flowtables, and every string that is
// compared with an interface or is in a set.
func namesInJSON(text []byte) []string {
	var doc any
	if json.Unmarshal(text, &doc) != nil {
		return nil // nft will say
	}
	var out []string
	take := func(v any) {
		var all func(v any)
		all = func(v any) {
			switch x := v.(type) {
			case string:
				if validName(x) {
					out = append(out, x)
				}
			case []any:
				for _, y := range x {
					all(y)
				}
			case map[string]any:
				for _, y := range x {
					all(y)
				}
			}
		}
		all(v)
	}
	index := strings.Contains(string(text), `"iface_index"`)
	var walk func(v any)
	walk = func(v any) {
		switch x := v.(type) {
		case []any:
			for _, y := range x {
				walk(y)
			}
		case map[string]any:
			for k, y := range x {
				if k == "dev" || k == "elem" && index {
					take(y)
				}
				if k == "match" || k == "vmap" || k == "map" || k == "set" && index {
					if b, err := json.Marshal(y); err == nil && index || strings.Contains(string(b), `"key":"iif"`) || strings.Contains(string(b), `"key":"oif"`) {
						take(y)
					}
				}
				walk(y)
			}
		}
	}
	walk(doc)
	return unique(out)
}

// owner finds users and groups by name: root is 0 everywhere.
var owner = regexp.MustCompile(`\bsk[ug]id\b\s*(?:==|!=|=)?\s*(\{[^}]*\}|` + nameToken + `)`)

// notes tells which names of the script nft looked up on this machine.
func (s *Script) notes() []string {
	var found, out []string
	if s.bare != "" {
		out = append(out, s.bare)
	}
	for _, text := range append([][]byte{s.Text}, textsOf(s.files)...) {
		for _, m := range owner.FindAllSubmatch(uncomment(text), -1) {
			for _, n := range names(m[1]) {
				if n != "root" && !strings.ContainsAny(n[:1], "0123456789") && !slices.Contains(found, n) && n != "accept" && n != "drop" {
					found = append(found, n)
				}
			}
		}
	}
	if len(found) == 0 {
		return out
	}
	return append(out, s.Name+": users and groups are looked up on this machine: "+strings.Join(found[:min(len(found), 16)], ", "))
}

func textsOf(files []file) [][]byte {
	var out [][]byte
	for _, f := range files {
		out = append(out, f.text)
	}
	return out
}
