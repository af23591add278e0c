package pfdecode

import (
	"encoding/binary"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// LowerForTest lowers one extension.
func LowerForTest(f rs.Family, target bool, name string, rev uint32, info []byte) []rs.Expr {
	x := &xtable{order: binary.LittleEndian, family: f, table: &rs.Table{Family: f, Sets: map[string]*rs.Set{}}, sets: NoIPSets()}
	if target {
		return x.target(name, rev, info)
	}
	return x.match(name, rev, info)
}

// Extensions lists what is understood, by kind.
func Extensions() (m, t []struct {
	Name string
	Rev  uint32
}) {
	for e := range matches {
		m = append(m, struct {
			Name string
			Rev  uint32
		}{e.name, e.revision})
	}
	for e := range targets {
		t = append(t, struct {
			Name string
			Rev  uint32
		}{e.name, e.revision})
	}
	return m, t
}
