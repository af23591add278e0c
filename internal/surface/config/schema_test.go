package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
)

// compile compiles the schema of a document with a second implementation.
func compile(t *testing.T, d Document) *validator.Schema {
	t.Helper()
	b, err := Schema(d)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := validator.UnmarshalJSON(strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("mem:///s.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("mem:///s.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPublishedSchemasAreFresh(t *testing.T) {
	t.Parallel()
	for _, d := range Documents() {
		want, err := Schema(d)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join("../../../schemas", string(d)+".schema.json")
		if got, err := os.ReadFile(name); err != nil || string(got) != string(want) {
			t.Errorf("%s is stale (%v): run go generate ./...", name, err)
		}
	}
}

func TestWaiverSchemaAgreesWithTheLoader(t *testing.T) {
	t.Parallel()
	s := compile(t, WaiversDocument)
	valid := func(text string) error {
		j, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			return err
		}
		v, err := validator.UnmarshalJSON(strings.NewReader(string(j)))
		if err != nil {
			return err
		}
		return s.Validate(v)
	}
	if err := valid(good); err != nil {
		t.Errorf("the schema refuses what the loader takes: %v", err)
	}
	for _, edit := range [][2]string{
		{"process: /usr/sbin/nginx", "comm: nginx"},
		{"{interface: eth0, netns: init}", "{family: ipv6}"},
		{"{interface: eth0, netns: init}", "{}"},
		{"    owner: net\n", ""},
		{"    accepted: []\n", ""},
		{"/usr/sbin/nginx", "nginx"},
		{"port: 443", "port: 70000"},
		{"sixfence/v1", "sixfence/v2"},
		{"2026-12-31", "soon"},
	} {
		text := strings.Replace(good, edit[0], edit[1], 1)
		if text == good {
			t.Fatalf("no %q", edit[0])
		}
		if _, err := Waivers("w", []byte(text), nil); err == nil {
			t.Errorf("the loader takes %q", edit[1])
		}
		if err := valid(text); err == nil {
			t.Errorf("the schema takes %q", edit[1])
		}
	}
}

func TestSchemasRefuseNonsense(t *testing.T) {
	t.Parallel()
	for d, docs := range map[Document][]string{
		SnapshotDocument: {`{}`, `[]`, `{"schemaVersion":"2.0"}`, `{"schemaVersion":"1.0","host":{"mode":"live","hostname":{"state":"value"}}}`},
		ReportDocument:   {`{}`, `{"schemaVersion":"1.0","findings":null}`},
	} {
		s := compile(t, d)
		for _, text := range docs {
			var v any
			if err := json.Unmarshal([]byte(text), &v); err != nil {
				t.Fatal(err)
			}
			if s.Validate(v) == nil {
				t.Errorf("%s: the schema takes %s", d, text)
			}
		}
	}
}
