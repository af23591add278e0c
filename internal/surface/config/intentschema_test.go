package config

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
)

func validYAML(s *validator.Schema, text []byte) error {
	j, err := yaml.YAMLToJSON(text)
	if err != nil {
		return err
	}
	v, err := validator.UnmarshalJSON(strings.NewReader(string(j)))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// TestIntentSchemaTakesWhatTheLoaderTakes: an editor never marks a good file.
func TestIntentSchemaTakesWhatTheLoaderTakes(t *testing.T) {
	t.Parallel()
	s := compile(t, IntentDocument)
	if err := validYAML(s, []byte(published)); err != nil {
		t.Errorf("the published intent: %v", err)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := WriteIntent(genIntent(t), nil)
		if err := validYAML(s, text); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	})
}

// TestIntentSchemaRefuses what the loader refuses, where one value tells.
func TestIntentSchemaRefuses(t *testing.T) {
	t.Parallel()
	s := compile(t, IntentDocument)
	for _, edit := range [][2]string{
		{"role: server ", "role: sever "},
		{"services:", "servces:"},
		{"tcp/22", "22/tcp/x"},
		{"addressing: static", "addressing: auto"},
		{"52:54:00:00:00:01", "52-54-00-00-00-01"},
		{"tunnels: deny", "tunnels: drop"},
		{"2027-01-31", "soon"},
		{"sixfence/v1", "sixfence/v2"},
		{"\"fe80::1\", mac", "\"2001:db8::1\", mac"},
		{"manage: both", "manage: yes"},
		{"[tcp/22]", "[]"},
		{"{name: ssh,", "{"},
		{"\"tcp://", "\"udp://"},
	} {
		text := strings.Replace(published, edit[0], edit[1], 1)
		if text == published {
			t.Fatalf("no %q", edit[0])
		}
		if _, err := load(t, text); err == nil {
			t.Errorf("the loader takes %q", edit[1])
		}
		if err := validYAML(s, []byte(text)); err == nil {
			t.Errorf("the schema takes %q", edit[1])
		}
	}
}

func TestPlanSchemaTakesPlans(t *testing.T) {
	t.Parallel()
	s := compile(t, PlanDocument)
	nobody := change.BeforeAfter{BeforeMust: []netip.Prefix{}, BeforeMay: []netip.Prefix{}, AfterMust: []netip.Prefix{}, AfterMay: []netip.Prefix{netip.MustParsePrefix("::/0")}}
	for _, p := range []change.Plan{
		{SchemaVersion: change.Version, Steps: []change.Step{}},
		{
			SchemaVersion: change.Version, Namespace: "init", Steps: []change.Step{{ID: "x", Kind: change.Sysctl, Phase: change.Runtime, Target: "net/x", Before: change.Image{Absent: true}, After: change.Image{Text: "1"}, Destroys: []change.Object{{Kind: change.RouteObj, Target: "default"}}}},
			Risks: []change.Risk{{ID: "r", Severity: "low", Title: "t"}}, Refusals: []change.Refusal{{ID: "r", Title: "t", WayOut: "w"}}, Gaps: []fact.Gap{{Reason: fact.Permission, What: "w"}}, Exposure: []change.Exposure{{Proto: "tcp", Port: 22, IPv4: nobody, IPv6: nobody}}, Administered: []change.Way{{Family: "ipv6"}},
		},
	} {
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		v, err := validator.UnmarshalJSON(strings.NewReader(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(v); err != nil {
			t.Errorf("%v\n%s", err, b)
		}
	}
}
