package fact

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden Snapshot (before the release of its version only)")

const golden = "testdata/golden-1.0.json"

// TestGoldenSnapshotKeepsEveryKey: a Snapshot of schema 1.0 with every key that it
// may have decodes and encodes to itself. A key that is renamed, removed or changes
// its type breaks Snapshots that people have.
func TestGoldenSnapshotKeepsEveryKey(t *testing.T) {
	t.Parallel()
	if *update {
		b, err := json.MarshalIndent(everyKey(reflect.TypeFor[Snapshot]()), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	var s Snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var want, got any
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	compare(t, "snapshot", want, got)
}

func compare(t *testing.T, path string, want, got any) {
	t.Helper()
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			t.Errorf("%s: %T", path, got)
			return
		}
		for k, v := range w {
			if _, ok := g[k]; !ok {
				t.Errorf("%s: the key %q of schema 1.0 is lost", path, k)
				continue
			}
			compare(t, path+"."+k, v, g[k])
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			t.Errorf("%s: %v became %v", path, want, got)
			return
		}
		for i := range w {
			compare(t, path, w[i], g[i])
		}
	default:
		if want != got {
			t.Errorf("%s: %v became %v", path, want, got)
		}
	}
}

// everyKey is a JSON value of a type in which every field is set.
func everyKey(t reflect.Type) any {
	switch t {
	case reflect.TypeFor[time.Time]():
		return "2026-01-02T03:04:05Z"
	case reflect.TypeFor[netip.Addr]():
		return "2001:db8::1"
	case reflect.TypeFor[netip.Prefix]():
		return "2001:db8::/64"
	case reflect.TypeFor[netip.AddrPort]():
		return "[2001:db8::1]:53"
	case reflect.TypeFor[[]byte]():
		return "AQAAAA=="
	case reflect.TypeFor[Mode]():
		return string(ModeLive)
	case reflect.TypeFor[Reason]():
		return string(Truncated)
	}
	if strings.HasPrefix(t.Name(), "Known[") {
		f, _ := t.FieldByName("value")
		return map[string]any{"value": everyKey(f.Type)}
	}
	switch t.Kind() {
	case reflect.Bool:
		return true
	case reflect.String:
		return "eth0"
	case reflect.Slice, reflect.Array:
		return []any{everyKey(t.Elem())}
	case reflect.Map:
		return map[string]any{"net/ipv6/conf/eth0/accept_ra": everyKey(t.Elem())}
	case reflect.Pointer:
		return everyKey(t.Elem())
	case reflect.Struct:
		out := map[string]any{}
		for _, f := range reflect.VisibleFields(t) {
			tag := f.Tag.Get("json")
			name, _, _ := strings.Cut(tag, ",")
			if !f.IsExported() || name == "-" {
				continue
			}
			if name == "" {
				name = f.Name
			}
			v := everyKey(f.Type)
			if name == "schemaVersion" {
				v = SchemaVersion
			}
			out[name] = v
		}
		return out
	}
	return 1
}

// TestGoldenSnapshotIsComplete: before a version is released every new key goes
// into its golden.
func TestGoldenSnapshotIsComplete(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	var have any
	if err := json.Unmarshal(b, &have); err != nil {
		t.Fatal(err)
	}
	var missing []string
	var walk func(path string, want, got any)
	walk = func(path string, want, got any) {
		switch w := want.(type) {
		case map[string]any:
			g, _ := got.(map[string]any)
			for k, v := range w {
				if g[k] == nil {
					missing = append(missing, path+"."+k)
					continue
				}
				walk(path+"."+k, v, g[k])
			}
		case []any:
			if g, _ := got.([]any); len(g) > 0 {
				walk(path, w[0], g[0])
			}
		}
	}
	walk("snapshot", everyKey(reflect.TypeFor[Snapshot]()), have)
	slices.Sort(missing)
	if len(missing) > 0 {
		t.Errorf("%s lacks keys that this build writes (go test -update, or a new minor version): %s", golden, strings.Join(missing, " "))
	}
}
