// Package hostview looks at a test's host as the program does: what is collected of a
// namespace, and what the kernel reads from the text of rules. Test support: never linked
// into a product binary.
package hostview

import (
	"context"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/sixfence/sixfence/internal/host/collect"
	"github.com/sixfence/sixfence/internal/host/scratch"
	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/testlab"
)

// Snapshot reads a namespace as an audit does; the rest of the machine is left out.
func Snapshot(t testing.TB, ns *testlab.NS) *fact.Snapshot {
	t.Helper()
	c, err := collect.Run(collect.Options{Elements: true})
	if err != nil {
		t.Fatal(err)
	}
	s := c.Snapshot()
	s.Namespaces = slices.DeleteFunc(s.Namespaces, func(n fact.Namespace) bool { return n.ID.Inode != ns.Inode() })
	if len(s.Namespaces) != 1 {
		t.Fatal("the namespace was not collected")
	}
	s.Host.Runtimes, s.Host.Managers = fact.Runtimes{}, fact.Absent[[]fact.Manager]()
	return s
}

// Decode lets the kernel read an nft script, as plan.Options wants it.
func Decode(script string) (*rs.Ruleset, error) {
	l, err := scratch.Load(context.Background(), scratch.Options{Scripts: []scratch.Script{{Name: "plan", Text: []byte(script)}}})
	if err != nil {
		return nil, err
	}
	order := "big"
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		order = "little"
	}
	ts, err := pfdecode.FromFact(l.NFTables, reach.OrderOf(order))
	if err != nil {
		return nil, err
	}
	return &rs.Ruleset{Tables: ts, Interfaces: l.Interfaces}, nil
}
