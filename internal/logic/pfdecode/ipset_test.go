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

const saved = `create bad hash:net family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x1
add bad 10.0.0.0/8
add bad 10.1.0.0/16 nomatch
create p hash:ip,port family inet6 hashsize 1024 maxelem 65536 timeout 600
add p 2001:db8::1,tcp:22 timeout 59
add p 2001:db8::1,icmpv6:128/0 timeout 0
add p 2001:db8::1,tcp:25 timeout 599
create l list:set size 8
add l bad comment "a b"
create odd hash:mac hashsize 1024
add odd 02:00:00:00:00:01
`

func TestIPSetSave(t *testing.T) {
	s, err := pfdecode.ParseIPSets(saved)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.ByName("bad").Set.Elements; len(got) != 2 || got[0].To[1] != 0 || got[1].From[1] != 2 {
		t.Errorf("bad: %v", got)
	}
	if p := s.ByName("p"); len(p.Set.Elements) != 3 || !p.Set.Elements[0].Expires || p.Set.Elements[1].Expires || p.Set.Elements[2].Expires || len(p.Protos) != 2 {
		t.Errorf("p: %+v", p.Set)
	}
	if l := s.ByName("l"); len(l.Members) != 1 || l.Members[0].Name != "bad" {
		t.Errorf("l: %+v", l)
	}
	if o := s.ByName("odd"); o == nil || o.Set != nil {
		t.Errorf("odd: %+v", o)
	}
	for _, bad := range []string{"destroy x", "add nosuch 1.2.3.4", "create x hash:ip shiny", "create a hash:ip\ncreate a hash:ip"} {
		if _, err := pfdecode.ParseIPSets(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func FuzzIPSetSave(f *testing.F) {
	f.Add(saved)
	f.Add("create i hash:net,iface family inet6\nadd i fd00::/8,physdev:eth0\nadd i fd00::/8,eth wildcard")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = pfdecode.ParseIPSets(text)
	})
}
