package pfdecode

import (
	"encoding/binary"

	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// FromFact decodes the nf_tables dump of a Snapshot. order is the byte order of
// the host it was taken on.
func FromFact(n fact.NFTables, order binary.ByteOrder) ([]*rs.Table, error) {
	d := Dump{
		Tables: n.Tables, Chains: n.Chains, Rules: n.Rules, Sets: n.Sets,
		Elements: n.Elements, Objects: n.Objects, Incomplete: map[SetID]bool{}, Order: order,
	}
	for _, u := range n.Unexpanded {
		d.Incomplete[SetID{rs.Family(u.Family), u.Table, u.Name}] = true
	}
	return NFTables(d)
}
