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
},
) {
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

// CarveForTest cuts prefixes of 10.0.0.0/24 into disjoint intervals of the last byte
// and says which of them match.
func CarveForTest(bits []int, at []byte, noMatch []bool) (hit [256]bool) {
	var es []entry
	for i := range bits {
		from, to := prefixRange([]byte{10, 0, 0, at[i]}, bits[i])
		es = append(es, entry{Element: rs.Element{From: from, To: to}, bits: bits[i], noMatch: noMatch[i]})
	}
	for _, e := range carve(es) {
		for v := int(e.From[3]); v <= int(e.To[3]); v++ {
			hit[v] = true
		}
	}
	return hit
}
