package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

func write(t *testing.T, path, text string) error {
	t.Helper()
	o, err := Create(path)
	if err != nil {
		return err
	}
	if _, err := o.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return o.Commit()
}

func onlyFile(t *testing.T, path, want string) {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode() != 0o600 {
		t.Errorf("mode %v, want a regular file 0600", st.Mode())
	}
	if b, _ := os.ReadFile(path); string(b) != want {
		t.Errorf("content %q, want %q", b, want)
	}
	es, _ := os.ReadDir(filepath.Dir(path))
	for _, e := range es {
		if strings.HasSuffix(e.Name(), ".tmp") {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

func TestOutputReplacesARegularFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "report.json")
	for _, text := range []string{"first", "second"} {
		if err := write(t, path, text); err != nil {
			t.Fatal(err)
		}
		onlyFile(t, path, text)
	}
	// An old file that everybody may read does not lend its mode.
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := write(t, path, "third"); err != nil {
		t.Fatal(err)
	}
	onlyFile(t, path, "third")
}

func TestOutputKeepsTheOldFileUntilCommit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "report.json")
	if err := write(t, path, "old"); err != nil {
		t.Fatal(err)
	}
	o, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "old" {
		t.Errorf("the target changed before Commit: %q", b)
	}
	o.Abort()
	onlyFile(t, path, "old")
}

func TestOutputRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link, dangling, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "dangling"), filepath.Join(dir, "fifo")
	for _, err := range []error{os.Symlink(victim, link), os.Symlink(filepath.Join(dir, "nowhere"), dangling), unix.Mkfifo(fifo, 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{link, dangling, fifo, dir, dir + "/", "", "/", filepath.Join(dir, "no", "such", "dir"), filepath.Join(victim, "x")} {
		var refused *RefusedError
		if err := write(t, path, "overwritten"); !errors.As(err, &refused) {
			t.Errorf("write %q: %v, want a refusal", path, err)
		}
	}
	if b, _ := os.ReadFile(victim); string(b) != "precious" {
		t.Errorf("written through a link: %q", b)
	}
	if _, err := os.Lstat(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a dangling link was followed")
	}
}

// TestOutputLinkPlantedLate plants a link between Create and Commit.
func TestOutputLinkPlantedLate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim, path := filepath.Join(dir, "victim"), filepath.Join(dir, "out")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	if err := o.Commit(); err == nil {
		t.Error("committed over a link")
	}
	if b, _ := os.ReadFile(victim); string(b) != "precious" {
		t.Errorf("written through a link: %q", b)
	}
}

// TestOutputInSomebodyElsesDirectory is `sudo sixfence audit -o report` in a home
// directory: the name must be taken while root still has its capabilities.
func TestOutputInSomebodyElsesDirectory(t *testing.T) {
	t.Parallel()
	testlab.RequireRoot(t)
	dir := t.TempDir()
	if err := os.Chown(dir, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "report")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	o, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if o.Dir() != "" {
		t.Error("it would rename later, without capabilities")
	}
	if _, err := o.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if err := o.Commit(); err != nil {
		t.Fatal(err)
	}
	onlyFile(t, path, "new")
}

func sample() *fact.Snapshot {
	s := &fact.Snapshot{SchemaVersion: fact.SchemaVersion}
	s.Host.Mode = fact.ModeLive
	s.Host.Hostname = fact.Value("web\u202e<01>\x1b\u200b\U000e0041")
	s.Host.Privilege.Capabilities = []string{"cap_net_admin"}
	s.Namespaces = []fact.Namespace{{Name: "init", IsInit: true, IPv6: fact.Value(true), Links: fact.Value([]fact.Link{{Index: 1, Name: "lo"}})}}
	s.Namespaces[0].PacketFilter.NFTables = fact.Absent[fact.NFTables]()
	return s
}

func TestSnapshotRoundTrip(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := WriteSnapshot(&b, sample()); err != nil {
		t.Fatal(err)
	}
	for _, r := range strings.TrimSuffix(b.String(), "\n") {
		if odd(r) || r < 0x20 {
			t.Errorf("U+%04X is written as it is", r)
		}
	}
	got, err := ReadSnapshot(&b, "test", 0)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, sample()) {
		t.Errorf("a Snapshot changed on its way through a file:\n got %+v\nwant %+v", got, sample())
	}
}

func TestReadSnapshotErrors(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := WriteSnapshot(&b, sample()); err != nil {
		t.Fatal(err)
	}
	good := strings.TrimSpace(b.String())
	for _, c := range []struct{ name, text, want string }{
		{"empty", " \n", "empty"},
		{"truncated", good[:len(good)/2], ":1 (byte "},
		{"truncated says so", good[:len(good)-1], "truncated?"},
		{"line", "{\n\"schemaVersion\": \"1.0\",\n oops}", ":3 (byte "},
		{"not JSON", "hello", ":1 (byte 1)"},
		{"array", "[]", "schema"},
		{"no version", `{"host":{}}`, "no schemaVersion"},
		{"version of the wrong type", `{"schemaVersion":1}`, "no schemaVersion"},
		{"odd version", `{"schemaVersion":"latest"}`, "not a version"},
		{"future major", `{"schemaVersion":"2.0"}`, "not known to this build"},
		{"report", `{"schemaVersion":"1.0","findings":[]}`, "a report, not a snapshot"},
		{"mode", `{"schemaVersion":"1.0","host":{"mode":"cloud"}}`, "neither live nor root"},
		{"twice", `{"schemaVersion":"1.0","namespaces":[],"namespaces":[]}`, "appears twice"},
		{"twice, escaped", "{\"schemaVersion\":\"1.0\",\n\"a\":1,\"\\u0061\":2}", ":2 (byte "},
		{"null in a list", `{"schemaVersion":"1.0","host":{"hostname":{"value":null}},"namespaces":[{"links":{"value":[null]}}]}`, "a list holds null"},
		{"too many namespaces", `{"schemaVersion":"1.0","namespaces":[{}` + strings.Repeat(",{}", maxNamespaces) + `]}`, "network namespaces"},
		{"number too large", `{"schemaVersion":"1.0","namespaces":[{"id":{"dev":1e999}}]}`, "does not fit"},
		{"deep", `{"schemaVersion":"1.0","x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "depth"},
		{"deep in a fact", `{"schemaVersion":"1.0","host":{"hostname":{"value":` + strings.Repeat(`{"value":`, 9000) + "1" + strings.Repeat("}", 9000) + `}}}`, "does not fit"},
	} {
		_, err := ReadSnapshot(strings.NewReader(c.text), "F", 0)
		var se *SnapshotError
		if !errors.As(err, &se) {
			t.Errorf("%s: %v, want a SnapshotError", c.name, err)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "F") || se.Hint == "" {
			t.Errorf("%s: %q (hint %q), want %q", c.name, err, se.Hint, c.want)
		}
	}
	if _, err := ReadSnapshot(strings.NewReader(good), "F", 100); err == nil || !strings.Contains(err.Error(), "larger than 100 bytes") {
		t.Errorf("size bound: %v", err)
	}
	minor := strings.Replace(good, `"1.0"`, `"1.9"`, 1)
	if s, err := ReadSnapshot(strings.NewReader(minor), "F", 0); err != nil || s.SchemaVersion != "1.9" {
		t.Errorf("a newer minor version must be evaluated: %v", err)
	}
}

func FuzzReadSnapshot(f *testing.F) {
	var b bytes.Buffer
	if err := WriteSnapshot(&b, sample()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"schemaVersion":"1.0","host":{"hostname":{"gap":{"reason":"x","what":"y"}}}}`))
	f.Add([]byte(`{"schemaVersion":"1.0","a":{"b":1,"b":2}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := ReadSnapshot(bytes.NewReader(in), "fuzz", 1<<20)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := WriteSnapshot(&out, s); err != nil {
			t.Fatalf("read and cannot be written: %v", err)
		}
		again, err := ReadSnapshot(bytes.NewReader(out.Bytes()), "again", 0)
		if err != nil {
			t.Fatalf("written and cannot be read: %v", err)
		}
		a, _ := json.Marshal(s)
		c, _ := json.Marshal(again)
		if !bytes.Equal(a, c) {
			t.Fatalf("changed on its way through a file:\n%s\n%s", a, c)
		}
	})
}
