package scratch

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/testlab"
)

// TestStubsLoadNothing: an interface that stands in for another is of a kind that is there
// already, and where none is, that is said and none is asked for.
func TestStubsLoadNothing(t *testing.T) {
	testlab.RequireTool(t, "nft")
	loaded := func(list ...string) func(string) bool {
		return func(m string) bool { return slices.Contains(list, m) }
	}
	if got := presentOf(loaded("veth", "bridge", "nf_tables")); !slices.Equal(got, []string{"bridge", "veth"}) {
		t.Errorf("of bridge and veth: %q", got)
	}
	load := func(kinds []string) (*Loaded, error) {
		s, err := Start()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.kinds = kinds
		return s.Load(t.Context(), Options{Scripts: []Script{{Name: "a", Text: []byte("table ip a { chain i { type filter hook input priority 0; iif eth7 accept; }; }")}}})
	}
	if l, err := load(presentOf(loaded("veth"))); err != nil || !slices.Equal(l.Made, []string{"eth7"}) {
		t.Errorf("by veth: %v", err)
	}
	var u *UnavailableError
	if _, err := load(presentOf(loaded())); !errors.As(err, &u) || !strings.Contains(u.Why, "not loaded (modprobe veth)") {
		t.Errorf("without any: %v", err)
	}
}

// BenchmarkStart has what it costs to look which modules are there.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		if _, err := present(); err != nil {
			b.Fatal(err)
		}
	}
}
