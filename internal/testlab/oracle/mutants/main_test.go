package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMutantsApply keeps the list of bugs in step with the model.
func TestMutantsApply(t *testing.T) {
	ms, err := parse(list)
	if err != nil {
		t.Fatal(err)
	}
	if len(ms) < 40 {
		t.Errorf("%d mutants, want 40 at least", len(ms))
	}
	names := map[string]bool{}
	for _, m := range ms {
		b, err := os.ReadFile(filepath.Join("..", "..", "..", "..", m.file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), m.old) || m.old == m.new {
			t.Errorf("%s: %s does not hold %q", m.name, m.file, m.old)
		}
		if names[m.name] {
			t.Errorf("two mutants %q", m.name)
		}
		names[m.name] = true
	}
}
