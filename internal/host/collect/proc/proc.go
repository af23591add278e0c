// Package proc (stub).
package proc

import (
	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Table is one pass over all processes.
type Table struct{}

// Scan makes the pass.
func Scan(a *ask.Asker, b *ask.Budget) *Table { return &Table{} }

// Owners tells which processes hold a socket inode.
func (t *Table) Owners(inode uint64) fact.Known[[]int] { return fact.Known[[]int]{} }

// Processes returns the processes that hold one of the sockets listed in the
// namespaces, or are a daemon of interest, and what could not be seen.
func (t *Table) Processes(ns []fact.Namespace) (fact.Known[[]fact.Process], []fact.Gap) {
	return fact.Known[[]fact.Process]{}, nil
}
