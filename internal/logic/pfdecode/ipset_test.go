package pfdecode_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/sixfence/sixfence/internal/logic/pfdecode"
)

// TestExceptions compares the intervals of a hash:net with what the kernel does: the
// longest prefix that holds an address decides (hash:net, nomatch).
func TestExceptions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "n")
		seen := map[[2]int]bool{}
		var bits []int
		var at []byte
		var no []bool
		for range n {
			b := rapid.IntRange(24, 32).Draw(t, "bits")
			a := rapid.Byte().Draw(t, "at") & byte(0xff<<(32-b))
			if seen[[2]int{b, int(a)}] {
				continue // a set holds a prefix once
			}
			seen[[2]int{b, int(a)}] = true
			bits, at, no = append(bits, b), append(at, a), append(no, rapid.Bool().Draw(t, "nomatch"))
		}
		hit := pfdecode.CarveForTest(bits, at, no)
		for v := range 256 {
			want, longest := false, -1
			for i := range bits {
				if byte(v)&byte(0xff<<(32-bits[i])) == at[i] && bits[i] > longest {
					want, longest = !no[i], bits[i]
				}
			}
			if hit[v] != want {
				t.Fatalf("%v %v %v: .%d: %v, want %v", bits, at, no, v, hit[v], want)
			}
		}
	})
}
