package config

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/sixfence/sixfence/internal/model/intent"
)

// intentSchema derives the schema of one file of an intent. It takes whatever the
// loader takes; what the loader says about two values together no schema can say.
func intentSchema() (*jsonschema.Schema, error) {
	opts := &jsonschema.ForOptions{TypeSchemas: wordTypes()}
	list, err := jsonschema.ForType(reflect.TypeFor[[]intent.Tunnel](), opts)
	if err != nil {
		return nil, fmt.Errorf("derive schema of tunnels: %w", err)
	}
	notNull(list)
	bind(list.Items, reflect.TypeFor[intent.Tunnel]())
	opts.TypeSchemas[reflect.TypeFor[intent.Tunnels]()] = &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string", Enum: enum(rules["Tunnels.Policy"])}, list}}
	s, err := jsonschema.ForType(reflect.TypeFor[intent.Intent](), opts)
	if err != nil {
		return nil, fmt.Errorf("derive schema of the intent: %w", err)
	}
	s.Title, s.Description = "sixfence intent", "What "+IntentPath+" and each file of "+IntentDropIns+" hold, as YAML. role stands in one of them."
	visitSchemas(s, notNull)
	bind(s, reflect.TypeFor[intent.Intent]())
	return s, nil
}

func enum(r rule) []any {
	var out []any
	for _, w := range r.words {
		out = append(out, w)
	}
	for _, w := range slices.Sorted(maps.Keys(r.also)) {
		out = append(out, w)
	}
	return out
}

// bind adds what the rules say to the schema of a struct.
func bind(s *jsonschema.Schema, t reflect.Type) {
	if t == reflect.TypeFor[intent.Tunnels]() {
		return
	}
	s.Required = slices.Clone(required[t.Name()])
	if t == reflect.TypeFor[intent.Intent]() {
		s.Required = []string{"apiVersion"}
	}
	_, fields := keysOf(t)
	for key, sub := range s.Properties {
		f := fields[key]
		id := t.Name() + "." + f.Name
		sub.Description = about[id]
		ft := f.Type
		for ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		switch ft.Kind() {
		case reflect.Slice:
			if notEmpty[id] != "" {
				one := 1
				sub.MinItems = &one
			}
			sub, ft = sub.Items, ft.Elem()
		case reflect.Map:
			sub, ft = sub.AdditionalProperties, ft.Elem()
		}
		if ft.Kind() == reflect.Struct && !strings.HasPrefix(ft.PkgPath(), "net/") {
			bind(sub, ft)
			continue
		}
		r := rules[id]
		if r.words != nil {
			sub.Enum = enum(r)
		}
		sub.Pattern = r.pattern
		switch {
		case ft == reflect.TypeFor[netip.Prefix]():
			sub.Pattern = `^[0-9A-Fa-f:.]{2,}(/[0-9]{1,3})?$`
		case ft.Kind() == reflect.Uint32:
			least, most := 1.0, float64(maxRate)
			sub.Minimum, sub.Maximum = &least, &most
		case sub.Pattern == "" && r.check != nil && sub.Type == "string" && id != "Intent.Sysctls":
			sub.Pattern = `\S` // what is checked is never empty
		}
		if id == "Intent.Sysctls" {
			sub.Type, sub.Types = "", []string{"string", "integer"}
		}
	}
}
