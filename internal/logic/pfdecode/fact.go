package pfdecode

import (
	"encoding/binary"
	"errors"

	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// FromFact decodes the nf_tables dump of a Snapshot. order is the byte order of
// the host it was taken on. Rules that name an ipset are not understood; see
// FromFactWithSets.
func FromFact(n fact.NFTables, order binary.ByteOrder) ([]*rs.Table, error) {
	return FromFactWithSets(n, nil, order)
}

// FromFactWithSets decodes the nf_tables dump of a Snapshot whose rules may name
// ipsets. sets is nil when they are not known.
func FromFactWithSets(n fact.NFTables, sets *IPSets, order binary.ByteOrder) ([]*rs.Table, error) {
	d := Dump{
		Tables: n.Tables, Chains: n.Chains, Rules: n.Rules, Sets: n.Sets,
		Elements: n.Elements, Objects: n.Objects, Incomplete: map[SetID]bool{}, Order: order, IPSets: sets,
	}
	for _, u := range n.Unexpanded {
		d.Incomplete[SetID{rs.Family(u.Family), u.Table, u.Name}] = true
	}
	ts, err := NFTables(d)
	if !n.ElementsRead {
		for _, t := range ts {
			for _, s := range t.Sets {
				s.Complete = false
			}
		}
	}
	return ts, err
}

// IPSetsOf decodes the ipsets of a namespace. nil means that they are not known: rules
// that name one are then Opaque.
func IPSetsOf(pf *fact.PacketFilter, order binary.ByteOrder) (*IPSets, error) {
	if msgs, ok := pf.IPSets.Get(); ok {
		return DecodeIPSets(msgs, order)
	}
	if pf.IPSets.State() == fact.StateAbsent {
		return NoIPSets(), nil
	}
	return nil, nil
}

// LegacyOf decodes the legacy tables of a family ("ipv4", "ipv6") of a namespace. The
// error tells which ones could not be; the others are still there.
func LegacyOf(pf *fact.PacketFilter, family string, sets *IPSets, order binary.ByteOrder) ([]*rs.Table, error) {
	tables, _ := pf.Legacy.Get()
	var out []*rs.Table
	var errs []error
	for _, t := range tables {
		if t.Family != family {
			continue
		}
		x, err := Legacy(t, order, sets)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if x != nil {
			out = append(out, x)
		}
	}
	return out, errors.Join(errs...)
}
