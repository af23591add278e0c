package report

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	validator "github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/surface/config"
)

func schema(t testing.TB, name string, text []byte) *validator.Schema {
	t.Helper()
	doc, err := validator.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("mem:///"+name, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("mem:///" + name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sarifSchemaFile(t testing.TB) *validator.Schema {
	t.Helper()
	b, err := os.ReadFile("testdata/sarif-schema-2.1.0.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema(t, "sarif", b)
}

func reportSchema(t testing.TB) *validator.Schema {
	t.Helper()
	b, err := config.Schema(config.ReportDocument)
	if err != nil {
		t.Fatal(err)
	}
	return schema(t, "report", b)
}

func valid(s *validator.Schema, doc []byte) error {
	v, err := validator.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

func TestSARIFIsValid(t *testing.T) {
	t.Parallel()
	s := sarifSchemaFile(t)
	for name, r := range map[string]finding.Report{"sample": sampleReport(), "empty": {}, "many": manyCauses()} {
		var b bytes.Buffer
		if err := SARIF(&b, r, sampleControls()); err != nil {
			t.Fatal(err)
		}
		if err := valid(s, b.Bytes()); err != nil {
			t.Errorf("%s: %v\n%s", name, err, b.String())
		}
	}
	var b bytes.Buffer
	if err := SARIF(&b, finding.Report{}, check.Catalogue()); err != nil {
		t.Fatal(err)
	}
	if err := valid(s, b.Bytes()); err != nil {
		t.Errorf("the catalogue's rules: %v", err)
	}
	if err := valid(s, []byte(`{"version":"2.1.0","runs":[{}]}`)); err == nil {
		t.Error("the schema takes anything")
	}
}

func TestSARIFSays(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := SARIF(&b, sampleReport(), sampleControls()); err != nil {
		t.Fatal(err)
	}
	var log sarifLog
	if err := json.Unmarshal(b.Bytes(), &log); err != nil {
		t.Fatal(err)
	}
	run := log.Runs[0]
	kinds, suppressed := map[string]int{}, map[string]int{}
	for _, res := range run.Results {
		kinds[res.Kind+"/"+res.Level]++
		for _, s := range res.Suppressions {
			suppressed[s.Status]++
		}
		if run.Tool.Driver.Rules[res.RuleIndex].ID != res.RuleID {
			t.Errorf("ruleIndex %d is not %s", res.RuleIndex, res.RuleID)
		}
		if len(res.Fingerprints["sixfence/v1"]) != 32 {
			t.Errorf("no fingerprint: %+v", res)
		}
		if len(res.Locations) == 0 {
			t.Errorf("no location: %+v", res)
		}
	}
	if kinds["fail/error"] != 5 || kinds["fail/note"] != 1 || kinds["open/none"] != 1 || len(kinds) != 3 {
		t.Errorf("kinds and levels: %v", kinds)
	}
	if suppressed["accepted"] != 1 || len(suppressed) != 1 {
		t.Errorf("suppressions: %v", suppressed)
	}
	for _, want := range []string{
		`"uri": "etc/postgresql/15/main/postgresql.conf"`, `"startLine": 60`, `"fullyQualifiedName": "netns/init/interface/eth0"`,
		`"semanticVersion": "1.2.3"`, `"security-severity": "9.5"`, `"markdown": "### SYSCTL-RA-01`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}

// TestReopenedWaiverIsNoSuppression: a viewer must not hide what a person has to look at again.
func TestReopenedWaiverIsNoSuppression(t *testing.T) {
	t.Parallel()
	r := sampleReport()
	r.Findings = r.Findings[:1]
	r.Findings[0].Waiver = &finding.WaiverNote{Reason: "r", Owner: "o", Until: "2026-01-01", State: finding.WaiverReopened, Detail: "more"}
	var b bytes.Buffer
	if err := SARIF(&b, r, nil); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), `"accepted"`) || !strings.Contains(b.String(), `"rejected"`) {
		t.Error(b.String())
	}
}

func TestJSONIsValid(t *testing.T) {
	t.Parallel()
	s := reportSchema(t)
	for name, r := range map[string]finding.Report{"sample": sampleReport(), "many": manyCauses(), "evaluated": check.Evaluate(emptySnapshot(), check.Options{Tool: "sixfence test"})} {
		var b bytes.Buffer
		if err := JSON(&b, r); err != nil {
			t.Fatal(err)
		}
		if err := valid(s, b.Bytes()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestJSONShape checks the machine interface key by key: what was promised stays.
func TestJSONShape(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := JSON(&b, sampleReport()); err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	keys := func(what string, v any, want ...string) map[string]any {
		t.Helper()
		m, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("%s is %T", what, v)
		}
		for _, k := range want {
			if _, ok := m[k]; !ok {
				t.Errorf("%s has no %q", what, k)
			}
		}
		return m
	}
	keys("report", doc, "schemaVersion", "host", "role", "findings", "gaps", "summary")
	var listener map[string]any
	for _, f := range doc["findings"].([]any) {
		m := keys("finding", f, "control", "fingerprint", "status", "effective", "compliance", "severity", "title", "message", "subject", "evidence", "remediation", "references")
		keys("subject", m["subject"], "netns")
		for _, e := range m["evidence"].([]any) {
			keys("evidence", e, "source", "value")
		}
		if m["control"] == "LISTEN-02" {
			listener = m
		}
	}
	keys("subject of a listener", listener["subject"], "netns", "proto", "port", "process")
	for _, g := range doc["gaps"].([]any) {
		keys("gap", g, "id", "reason", "what", "controls")
	}
	if len(doc["findings"].([]any)) != len(sampleReport().Findings) {
		t.Error("not one entry a finding")
	}
}

// TestMachineFormatsSurviveAnything: whatever a Report holds, the machine formats are
// valid and hold no control character, not even after decoding.
func TestMachineFormatsSurviveAnything(t *testing.T) {
	t.Parallel()
	sarif, rep := sarifSchemaFile(t), reportSchema(t)
	rapid.Check(t, func(t *rapid.T) {
		r := anyReport(t)
		var b, c bytes.Buffer
		if err := SARIF(&b, r, sampleControls()); err != nil {
			t.Fatal(err)
		}
		if err := valid(sarif, b.Bytes()); err != nil {
			t.Fatalf("SARIF: %v\n%s", err, b.String())
		}
		if err := JSON(&c, r); err != nil {
			t.Fatal(err)
		}
		if err := valid(rep, c.Bytes()); err != nil {
			t.Fatalf("JSON: %v\n%s", err, c.String())
		}
		for _, doc := range [][]byte{b.Bytes(), c.Bytes()} {
			var v any
			if err := json.Unmarshal(doc, &v); err != nil {
				t.Fatal(err)
			}
			everyString(v, func(s string) {
				if CleanText(s) != s && len(s) < maxText {
					t.Fatalf("not neutralised: %q", s)
				}
			})
		}
	})
}

func everyString(v any, f func(string)) {
	switch v := v.(type) {
	case string:
		f(v)
	case []any:
		for _, x := range v {
			everyString(x, f)
		}
	case map[string]any:
		for k, x := range v {
			f(k)
			everyString(x, f)
		}
	}
}

func TestControlsMarkdownAccountsForEveryRow(t *testing.T) {
	t.Parallel()
	out := ControlsMarkdown(check.Catalogue(), check.Dispositions())
	for _, c := range check.Catalogue() {
		if !strings.Contains(out, "\n## "+c.ID+"\n") || !strings.Contains(out, "| ["+c.ID+"](#") {
			t.Errorf("%s has no section or no row", c.ID)
		}
	}
	for _, d := range check.Dispositions() {
		if !strings.Contains(out, "\n| "+d.ID+" | ") {
			t.Errorf("%s has no row", d.ID)
		}
	}
}

func TestExplainTeaches(t *testing.T) {
	t.Parallel()
	c := sampleControls()[0]
	out := Explain(c, TextOptions{})
	for _, want := range []string{c.What, c.Why, c.Attack, c.Check, c.TradeOff, c.Source, c.Rule, c.Fix[0].Text, "RFC 6104", "CRITICAL", "same link"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), strings.Join(strings.Fields(want), " ")) {
			t.Errorf("explain does not say %q:\n%s", want, out)
		}
	}
}
