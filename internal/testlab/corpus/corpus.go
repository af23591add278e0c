// Package corpus holds real rulesets, made by the real tools, with the hosts they
// were made on. Test support: never linked into a product binary.
//
// make.sh makes them again (make corpus); lab.sh is the host, recipes say what is
// done on it.
package corpus

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Entry is one host with its rules.
type Entry struct {
	Name    string `json:"name"`
	What    string `json:"what"`
	Tool    string `json:"tool"`    // "hand-written" when no tool made the rules
	Version string `json:"version"` // as the tool says it
	// Snapshot is the one namespace, with what its analysis asks the host.
	Snapshot *fact.Snapshot `json:"snapshot"`
}

//go:embed testdata/*.json.gz
var files embed.FS

// Names lists the entries.
func Names() []string {
	list, err := files.ReadDir("testdata")
	if err != nil {
		return nil
	}
	var out []string
	for _, f := range list {
		out = append(out, strings.TrimSuffix(f.Name(), ".json.gz"))
	}
	return out
}

// Read reads an entry.
func Read(name string) (*Entry, error) {
	b, err := files.ReadFile("testdata/" + name + ".json.gz")
	if err != nil {
		return nil, fmt.Errorf("read corpus: %w", err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("read corpus %s: %w", name, err)
	}
	if b, err = io.ReadAll(z); err != nil {
		return nil, fmt.Errorf("read corpus %s: %w", name, err)
	}
	var e struct {
		Entry
		Snapshot json.RawMessage `json:"snapshot"`
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("read corpus %s: %w", name, err)
	}
	if e.Entry.Snapshot, err = store.ReadSnapshot(bytes.NewReader(e.Snapshot), name, 0); err != nil {
		return nil, err
	}
	return &e.Entry, nil
}
