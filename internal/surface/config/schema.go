package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/sixfence/sixfence/internal/logic/expect"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/logic/target"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// Document is something sixfence reads or writes whose shape is published.
type Document string

// The published documents.
const (
	ReportDocument   Document = "report"
	SnapshotDocument Document = "snapshot"
	WaiversDocument  Document = "waivers"
	IntentDocument   Document = "intent"
	PlanDocument     Document = "plan"
	ReachDocument    Document = "reach"
	DiffDocument     Document = "reach-diff"
	TraceDocument    Document = "trace"
	VerifyDocument   Document = "verify"
	ExpectDocument   Document = "expect"
	TargetsDocument  Document = "targets"
)

// Documents lists the published documents.
func Documents() []Document {
	return []Document{ReportDocument, SnapshotDocument, WaiversDocument, ReachDocument, DiffDocument, TraceDocument, IntentDocument, PlanDocument, VerifyDocument, ExpectDocument, TargetsDocument}
}

// draft is the JSON Schema dialect of every schema.
const draft = "https://json-schema.org/draft/2020-12/schema"

// Schema returns the JSON Schema of a document, derived from the Go types.
// Documents that sixfence writes may gain keys in a minor version, so their
// schemas accept unknown ones; a file that an operator writes may not have any.
func Schema(d Document) ([]byte, error) {
	var (
		s   *jsonschema.Schema
		err error
	)
	switch d {
	case ReportDocument:
		s, err = generate(reflect.TypeFor[finding.Report]())
		if err == nil {
			s.Title, s.Description = "sixfence report", "What `sixfence audit --format json` prints. Schema "+finding.SchemaVersion+"."
			visitSchemas(s, func(x *jsonschema.Schema) { open(x); notNull(x) })
			s.Properties["schemaVersion"] = version(finding.SchemaVersion)
		}
	case SnapshotDocument:
		s, err = generate(reflect.TypeFor[fact.Snapshot]())
		if err == nil {
			s.Title, s.Description = "sixfence snapshot", "What `sixfence snapshot` writes: the facts of one host. A fact that is missing was not collected. Schema "+fact.SchemaVersion+"."
			visitSchemas(s, open)
			s.Properties["schemaVersion"] = version(fact.SchemaVersion)
		}
	case WaiversDocument:
		s, err = generate(reflect.TypeFor[WaiverFile]())
		if err == nil {
			s.Title, s.Description = "sixfence waivers", "What `sixfence audit --waivers FILE` reads, as YAML."
			visitSchemas(s, notNull)
			waiverRules(s)
		}
	case ReachDocument:
		s, err = written(reflect.TypeFor[reach.Document](), "sixfence reach", "What `sixfence reach --format json` prints: who gets in, by family. Schema "+reach.DocumentVersion+".")
		if err == nil {
			s.Properties["schemaVersion"] = version(reach.DocumentVersion)
		}
	case DiffDocument:
		s, err = written(reflect.TypeFor[reach.DiffDocument](), "sixfence reach diff", "What `sixfence reach diff --format json` prints. Schema "+reach.DocumentVersion+".")
		if err == nil {
			s.Properties["schemaVersion"] = version(reach.DocumentVersion)
		}
	case IntentDocument:
		s, err = intentSchema()
	case PlanDocument:
		s, err = written(reflect.TypeFor[change.Plan](), "sixfence plan", "What `sixfence harden plan --format json` prints and `harden apply FILE` performs. Schema "+change.Version+".")
		if err == nil {
			s.Properties["schemaVersion"] = version(change.Version)
		}
	case TraceDocument:
		s, err = written(reflect.TypeFor[reach.Trace](), "sixfence trace", "What `sixfence trace --format json` prints: what becomes of one packet, and why.")
	case VerifyDocument:
		s, err = written(reflect.TypeFor[expect.Document](), "sixfence verify", "What `sixfence verify --format json` prints: what the wire shows, over each family. Schema "+expect.DocumentVersion+".")
		if err == nil {
			s.Properties["schemaVersion"] = version(expect.DocumentVersion)
		}
	case ExpectDocument:
		s = expectSchema()
	case TargetsDocument:
		s, err = written(reflect.TypeFor[target.Document](), "sixfence targets", "What `sixfence targets --format json` prints: the addresses of a host. Schema "+target.Version+".")
		if err == nil {
			s.Properties["schemaVersion"] = version(target.Version)
		}
	default:
		return nil, fmt.Errorf("unknown document %q", d)
	}
	if err != nil {
		return nil, fmt.Errorf("derive schema of %s: %w", d, err)
	}
	s.Schema = draft
	s.ID = "https://github.com/sixfence/sixfence/schemas/" + string(d) + ".schema.json"
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		return nil, fmt.Errorf("encode schema of %s: %w", d, err)
	}
	return b.Bytes(), nil
}

// written is the schema of a document that sixfence writes: it may gain keys.
func written(t reflect.Type, title, description string) (*jsonschema.Schema, error) {
	s, err := generate(t)
	if err != nil {
		return nil, err
	}
	s.Title, s.Description = title, description
	visitSchemas(s, func(x *jsonschema.Schema) {
		open(x)
		if x.Items != nil { // lists are empty, never null
			notNull(x)
		}
	})
	return s, nil
}

func version(v string) *jsonschema.Schema {
	major, _, _ := strings.Cut(v, ".")
	return &jsonschema.Schema{Type: "string", Pattern: `^` + major + `\.[0-9]+$`}
}

// waiverRules adds what the loader checks and a type cannot say.
func waiverRules(s *jsonschema.Schema) {
	api := any(APIVersion)
	s.Properties["apiVersion"].Const = &api
	w := s.Properties["waivers"].Items
	one := 1
	for _, k := range []string{"control", "reason", "owner"} {
		w.Properties[k].MinLength = &one
	}
	w.Properties["until"].Pattern = `^\d{4}-\d{2}-\d{2}$`
	sub := w.Properties["subject"]
	sub.Properties["family"].Enum = []any{"ipv4", "ipv6"}
	sub.Properties["process"].Pattern = "^/"
	for _, k := range []string{"netns", "interface", "port", "address", "process", "uid", "cgroup", "file", "key", "host"} {
		sub.AnyOf = append(sub.AnyOf, &jsonschema.Schema{Required: []string{k}})
	}
}

// words are the types with a closed set of values.
func wordTypes() map[reflect.Type]*jsonschema.Schema {
	enum := func(vs ...any) *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Enum: vs} }
	return map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[finding.Status]():          enum(finding.Pass, finding.Fail, finding.Unknown, finding.NotApplicable, finding.Waived),
		reflect.TypeFor[finding.Severity]():        enum(finding.Critical, finding.High, finding.Medium, finding.Low, finding.Info),
		reflect.TypeFor[finding.Position]():        enum(finding.FromInternet, finding.FromLink, finding.FromPod, finding.FromLocal),
		reflect.TypeFor[finding.RemediationKind](): enum(finding.Command, finding.Intent, finding.Note),
		reflect.TypeFor[fact.Reason]():             enum(fact.Permission, fact.UnsupportedGap, fact.Truncated, fact.NotCollected, fact.ParseGap),
		reflect.TypeFor[change.ProofStatus]():      enum(change.Proven, change.Failed, change.Unproven, change.Partial),
		reflect.TypeFor[change.Phase]():            enum(change.Runtime, change.Persist, change.AfterConfirm),
		reflect.TypeFor[fact.Mode]():               enum(fact.ModeLive, fact.ModeRoot),
		reflect.TypeFor[probe.Life]():              enum(probe.Answered, probe.Neighbour, probe.Elsewhere, probe.NoLife),
		reflect.TypeFor[probe.PathVerdict]():       enum(values(probe.PathVerdicts())...),
		reflect.TypeFor[probe.Variant]():           enum(values(chainNames())...), // a plain probe has none
		reflect.TypeFor[probe.Fate]():              enum(values(probe.Fates())...),
		reflect.TypeFor[probe.Outcome]():           enum(values(probe.Outcomes())...),
		reflect.TypeFor[probe.NameSource]():        enum(probe.FromHosts, probe.FromDNS),
		reflect.TypeFor[probe.Site]():              enum(values(probe.Sites())...),
		reflect.TypeFor[probe.State]():             enum(values(probe.States())...),
		reflect.TypeFor[expect.Word]():             enum(append(values(expect.Words()), probe.Errored, expect.Silent, expect.Unknown, "")...),
		reflect.TypeFor[expect.Verdict]():          enum(values(expect.Verdicts())...),
		reflect.TypeFor[time.Time]():               {Type: "string", Format: "date-time"},
		reflect.TypeFor[netip.Addr]():              {Type: "string", Description: "an IP address, or empty"},
		reflect.TypeFor[netip.Prefix]():            {Type: "string", Description: "an IP prefix, or empty"},
		reflect.TypeFor[netip.AddrPort]():          {Type: "string", Description: "an IP address and port, or empty"},
		reflect.TypeFor[[]byte]():                  {Types: []string{"string", "null"}, ContentEncoding: "base64"},
	}
}

func chainNames() (out []probe.Variant) {
	for _, c := range probe.Chains() {
		out = append(out, c.Name)
	}
	return out
}

// values are those of an enumeration.
func values[T any](vs []T) (out []any) {
	for _, v := range vs {
		out = append(out, v)
	}
	return out
}

// generate derives a schema. Every fact (Known[T]) takes the shape that
// Known.MarshalJSON writes, which reflection cannot see.
func generate(t reflect.Type) (*jsonschema.Schema, error) {
	opts := &jsonschema.ForOptions{TypeSchemas: wordTypes()}
	if err := knowns(t, opts, map[reflect.Type]bool{}); err != nil {
		return nil, err
	}
	return jsonschema.ForType(t, opts)
}

// knowns adds the schema of every Known[T] below t, inner ones first.
func knowns(t reflect.Type, opts *jsonschema.ForOptions, seen map[reflect.Type]bool) error {
	if seen[t] || opts.TypeSchemas[t] != nil {
		return nil
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return knowns(t.Elem(), opts, seen)
	case reflect.Struct:
	default:
		return nil
	}
	for i := range t.NumField() {
		if err := knowns(t.Field(i).Type, opts, seen); err != nil {
			return err
		}
	}
	if t.PkgPath() != reflect.TypeFor[fact.Gap]().PkgPath() || !strings.HasPrefix(t.Name(), "Known[") {
		return nil
	}
	value, ok := t.FieldByName("value")
	if !ok {
		return fmt.Errorf("%s has no value", t)
	}
	inner, err := jsonschema.ForType(value.Type, opts)
	if err != nil {
		return err
	}
	gap, err := jsonschema.ForType(reflect.TypeFor[fact.Gap](), opts)
	if err != nil {
		return err
	}
	one := func(key string, s *jsonschema.Schema) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "object", Properties: map[string]*jsonschema.Schema{key: s}, Required: []string{key}}
	}
	opts.TypeSchemas[t] = &jsonschema.Schema{
		Description: "a fact: its value, absent, unsupported by this kernel, or the gap that keeps it unknown",
		OneOf: []*jsonschema.Schema{
			one("value", inner),
			one("state", &jsonschema.Schema{Type: "string", Enum: []any{fact.StateAbsent.String(), fact.StateUnsupported.String()}}),
			one("gap", gap),
		},
	}
	return nil
}

func visitSchemas(s *jsonschema.Schema, f func(*jsonschema.Schema)) {
	if s == nil {
		return
	}
	f(s)
	for _, x := range s.Properties {
		visitSchemas(x, f)
	}
	for _, x := range s.OneOf {
		visitSchemas(x, f)
	}
	visitSchemas(s.Items, f)
	if s.AdditionalProperties != nil && s.AdditionalProperties.Not == nil {
		visitSchemas(s.AdditionalProperties, f)
	}
}

// open accepts keys that a later minor version may add.
func open(s *jsonschema.Schema) {
	if s.Properties != nil {
		s.AdditionalProperties = nil
	}
}

// notNull: lists are written as [], never as null.
func notNull(s *jsonschema.Schema) {
	if len(s.Types) == 2 && s.Types[0] == "null" {
		s.Type, s.Types = s.Types[1], nil
	}
}
