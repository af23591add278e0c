package apps

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// decodeTree writes files below a new root and reads it.
func decodeTree(t testing.TB, files map[string]string) (fact.Apps, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := tree.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	var h fact.Host
	Read(tr).Decode(&h)
	return h.Apps, dir
}
