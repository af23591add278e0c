package reach

import (
	"slices"
	"testing"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// TestPortStarts: ports beside their source ports cut, and a mask leaves the classes open.
func TestPortStarts(t *testing.T) {
	load := func(off, n uint32) rs.Expr { return rs.Payload{Base: rs.TransportHeader, Offset: off, Len: n} }
	for name, tc := range map[string]struct {
		rule  []rs.Expr
		want  []uint16
		whole bool
	}{
		"port":             {[]rs.Expr{load(2, 2), rs.Cmp{Data: []byte{0, 22}}}, []uint16{1, 22, 23}, true},
		"with source port": {[]rs.Expr{load(0, 4), rs.Cmp{Data: []byte{2, 35, 2, 34}}}, []uint16{1, 546, 547}, true},
		"source port":      {[]rs.Expr{load(0, 2), rs.Cmp{Data: []byte{0, 53}}}, []uint16{1}, true},
		"masked":           {[]rs.Expr{load(2, 2), rs.Bitwise{}, rs.Cmp{Data: []byte{0, 16}}}, []uint16{1, 16, 17}, false},
	} {
		set := &rs.Ruleset{Tables: []*rs.Table{{Chains: []*rs.Chain{{Rules: []*rs.Rule{{Exprs: tc.rule}}}}}}}
		got, whole := (&Space{Model: &Model{Set: set}}).PortStarts()
		if !slices.Equal(got, tc.want) || whole != tc.whole {
			t.Errorf("%s: %v %v, want %v %v", name, got, whole, tc.want, tc.whole)
		}
	}
}
