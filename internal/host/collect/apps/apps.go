// Package apps (stub).
package apps

import (
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Dump is what was read, not yet interpreted.
type Dump struct{}

// Read reads files below t.
func Read(t *tree.Tree) *Dump { return &Dump{} }

// Decode interprets it.
func (d *Dump) Decode(h *fact.Host) {}
