// Package kmod (stub).
package kmod

import (
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Dump is what was read, not yet interpreted.
type Dump struct{}

// Read reads module state, boot parameters and limits on user namespaces. live
// is false for a directory tree.
func Read(t *tree.Tree) *Dump { return &Dump{} }

// Present tells whether a subsystem is loaded or built in (see ask.Asker.Present).
func (d *Dump) Present(subsystem string) bool { return false }

// Decode interprets it.
func (d *Dump) Decode(h *fact.Host) {}
