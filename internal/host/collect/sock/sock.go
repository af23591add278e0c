// Package sock (stub).
package sock

import (
	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Dump is what was read, not yet interpreted.
type Dump struct{}

// Read reads the sockets of the calling thread's network namespace.
func Read(a *ask.Asker, b *ask.Budget) *Dump { return &Dump{} }

// Decode interprets the dump; owners tells which processes hold a socket inode.
func (d *Dump) Decode(ns *fact.Namespace, owners func(inode uint64) fact.Known[[]int]) {}
