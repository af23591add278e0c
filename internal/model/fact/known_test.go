package fact

import (
	"encoding/json"
	"testing"
)

// TestKnownNullIsNoZero decodes what a damaged or a hostile file may hold instead of
// a value. Only a list and a map may be empty that way.
func TestKnownNullIsNoZero(t *testing.T) {
	t.Parallel()
	var s struct {
		Bool   Known[bool]
		Int    Known[int64]
		Text   Known[string]
		Object Known[Kernel]
		List   Known[[]string]
		Map    Known[map[string]string]
	}
	const text = `{"Bool":{"value":null},"Int":{"value":null},"Text":{"value": null },"Object":{"value":null},"List":{"value":null},"Map":{"value":null}}`
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	for name, state := range map[string]State{"Bool": s.Bool.State(), "Int": s.Int.State(), "Text": s.Text.State(), "Object": s.Object.State()} {
		if state != StateGap {
			t.Errorf("%s: null is a %v, want a gap", name, state)
		}
	}
	if g, _ := s.Int.Gap(); g.Reason != ParseGap {
		t.Errorf("null is a gap for reason %q, want parse", g.Reason)
	}
	if s.List.State() != StateValue || s.Map.State() != StateValue {
		t.Errorf("an empty list is %v, an empty map %v, want values", s.List.State(), s.Map.State())
	}
}
