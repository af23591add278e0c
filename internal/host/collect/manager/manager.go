// Package manager (stub).
package manager

import (
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Process is a running manager or runtime daemon.
type Process struct {
	PID     int
	Name    string // base name of the executable
	NetNS   fact.NamespaceID
	OwnRoot bool // read its files through /proc/PID/root
}

// Dump is what was read, not yet interpreted.
type Dump struct{}

// Read reads the managers' files below t, and those of running managers with
// a root of their own. init is the namespace that managers without a process
// would manage.
func Read(t *tree.Tree, running []Process, init fact.NamespaceID) *Dump { return &Dump{} }

// Decode interprets it and sets Host.Managers and Host.Runtimes.
func (d *Dump) Decode(h *fact.Host) {}
