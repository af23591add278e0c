package manager_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/sixfence/sixfence/internal/host/collect/apps"
	"github.com/sixfence/sixfence/internal/host/collect/files"
	"github.com/sixfence/sixfence/internal/host/collect/manager"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

var update = flag.Bool("update", false, "write the golden files anew")

// readRoot writes a tree and reads it as --root does. "-> X" as a whole file is a link.
func readRoot(t testing.TB, archive []byte) fact.Host {
	t.Helper()
	dir := t.TempDir()
	for _, f := range txtar.Parse(archive).Files {
		p := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		text := string(f.Data)
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.Symlink(strings.TrimSpace(target), p); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := tree.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	h := fact.Host{Mode: fact.ModeRoot}
	files.Read(tr).Decode(&h)
	apps.Read(tr).Decode(&h)
	manager.Read(tr, nil, fact.NamespaceID{}).Decode(&h)
	return h
}

// TestRootTrees reads trees like those of the three families as a whole.
func TestRootTrees(t *testing.T) {
	t.Parallel()
	trees, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(trees) < 3 {
		t.Fatalf("trees: %v %v", trees, err)
	}
	for _, name := range trees {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			h := readRoot(t, b)
			got, err := json.MarshalIndent(map[string]any{"files": h.Files, "managers": h.Managers, "runtimes": h.Runtimes, "apps": h.Apps}, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(name, ".txtar") + ".golden.json"
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.Split(strings.TrimSpace(string(want)), "\n"), strings.Split(string(got), "\n")); d != "" {
				t.Errorf("%s (-want +got):\n%s", name, d)
			}
		})
	}
}
