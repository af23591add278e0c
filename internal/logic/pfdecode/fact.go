package pfdecode

import (
	"bytes"
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
		Elements: n.Elements, Objects: n.Objects, Incomplete: map[SetID]string{}, Order: order, IPSets: sets,
	}
	for _, u := range n.Unexpanded {
		d.Incomplete[SetID{rs.Family(u.Family), u.Table, u.Name}] = u.Gap.What
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
	var sets *IPSets
	var err error
	if msgs, ok := pf.IPSets.Get(); ok {
		sets, err = DecodeIPSets(msgs, order)
	} else if pf.IPSets.State() == fact.StateAbsent {
		sets = NoIPSets()
	}
	if msgs, ok := pf.Accounting.Get(); ok {
		if sets == nil {
			sets = &IPSets{}
		}
		sets.accounting(msgs, order)
	}
	return sets, err
}

// accounting notes which accounting objects there are.
func (s *IPSets) accounting(msgs [][]byte, order binary.ByteOrder) {
	const name, quota = 1, 6 // NFACCT_*
	s.quotas = map[string]bool{}
	for _, m := range msgs {
		if len(m) < 4 {
			continue
		}
		if a, err := parse(m[4:], order); err == nil && a.str(name) != "" {
			s.quotas[a.str(name)] = a.has(quota)
		}
	}
}

// matchAccounting is nfacct_mt of xt_nfacct.c: an object without a quota matches every
// packet, one with a quota those beyond it.
func matchAccounting(x *xtable, i *blob) []rs.Expr {
	if x.sets == nil {
		return nil
	}
	name, _, _ := bytes.Cut(i.bytes(0, 32), []byte{0})
	if limited, known := x.sets.quotas[string(name)]; !known || limited {
		return nil
	}
	return always("nfacct")
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
