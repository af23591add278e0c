package pfdecode

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"testing"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

func be(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// table and chains of the messages below.
var (
	anyTable = slices.Concat([]byte{1, 0, 0, 0}, netlinkAttr(1, []byte("t\x00")), netlinkAttr(2, be(0)))
	anySet   = slices.Concat([]byte{1, 0, 0, 0}, netlinkAttr(1, []byte("t\x00")), netlinkAttr(2, []byte("s\x00")), netlinkAttr(3, be(4)), netlinkAttr(4, be(7)), netlinkAttr(5, be(2)))
)

func chainNamed(name string) []byte {
	return slices.Concat([]byte{1, 0, 0, 0}, netlinkAttr(1, []byte("t\x00")), netlinkAttr(3, []byte(name+"\x00")))
}

func exprNamed(name string, data ...[]byte) []byte {
	return netlinkAttr(1, slices.Concat(netlinkAttr(1, []byte(name+"\x00")), netlinkAttr(2, slices.Concat(data...))))
}

// rule is "PAYLOAD == n VERDICT" of a chain, with a comment of x_tables.
func ruleOf(chain string, handle uint64, n uint32) []byte {
	list := slices.Concat(
		exprNamed("match", netlinkAttr(1, []byte("comment\x00")), netlinkAttr(2, be(0)), netlinkAttr(3, fmt.Appendf(nil, "rule %d\x00", n))),
		exprNamed("payload", netlinkAttr(1, be(1)), netlinkAttr(2, be(1)), netlinkAttr(3, be(12)), netlinkAttr(4, be(4))),
		exprNamed("cmp", netlinkAttr(1, be(1)), netlinkAttr(2, be(0)), netlinkAttr(3, netlinkAttr(1, be(n)))),
		exprNamed("immediate", netlinkAttr(1, be(0)), netlinkAttr(2, netlinkAttr(2, netlinkAttr(1, be(n%2))))))
	return slices.Concat([]byte{1, 0, 0, 0}, netlinkAttr(1, []byte("t\x00")), netlinkAttr(2, []byte(chain+"\x00")),
		netlinkAttr(3, binary.BigEndian.AppendUint64(nil, handle)), netlinkAttr(4, list))
}

func decodeRules(rules ...[]byte) ([]*rs.Table, error) {
	return NFTables(Dump{Tables: [][]byte{anyTable}, Chains: [][]byte{chainNamed("a"), chainNamed("b")}, Rules: rules, Order: binary.LittleEndian, IPSets: NoIPSets()})
}

// Many rules are decoded in parts, and expressions that were seen before are not decoded
// again: what comes out is what each rule by itself says. The messages may be
// overwritten afterwards.
func TestManyRules(t *testing.T) {
	var msgs [][]byte
	const n = 3*ruleShare + 7
	for i := range uint32(n) {
		// Chain a, then b, then a again.
		msgs = append(msgs, ruleOf(map[bool]string{true: "b", false: "a"}[i > 1000 && i < 5000], uint64(i)+1, i%700))
	}
	ts, err := decodeRules(msgs...)
	if err != nil {
		t.Fatal(err)
	}
	alone := map[uint64]*rs.Rule{}
	for i, m := range msgs {
		one, err := decodeRules(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range one[0].Chains {
			for _, r := range c.Rules {
				alone[uint64(i)+1] = r
			}
		}
	}
	for _, m := range msgs {
		for i := range m {
			m[i] = 0xff
		}
	}
	seen := 0
	for _, c := range ts[0].Chains {
		last := uint64(0)
		for i, r := range c.Rules {
			seen++
			want := alone[r.Handle]
			if want == nil || r.Chain != c || want.Chain.Name != c.Name || r.Index != i+1 || r.Handle <= last {
				t.Fatalf("%s: rule %d is %+v, alone %+v", c.Name, i, r, want)
			}
			last = r.Handle
			if r.Comment != want.Comment || r.Comment != fmt.Sprintf("rule %d", (r.Handle-1)%700) || !reflect.DeepEqual(r.Exprs, want.Exprs) {
				t.Fatalf("%s: rule %d is %+v, alone %+v", c.Name, i, r, want)
			}
		}
	}
	if seen != n {
		t.Errorf("%d rules of %d", seen, n)
	}
}

// The first message that cannot be decoded is told, whichever part it is in.
func TestManyRulesError(t *testing.T) {
	var msgs [][]byte
	for i := range uint32(3 * ruleShare) {
		msgs = append(msgs, ruleOf("a", uint64(i)+1, i))
	}
	for _, bad := range []int{0, ruleShare - 1, 2*ruleShare + 5} {
		list := slices.Clone(msgs)
		list[bad] = ruleOf("nowhere", 1, 1)
		want := fmt.Sprintf("decode nf_tables rule %d: rule of unknown chain %q", bad, "nowhere")
		if _, err := decodeRules(list...); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// FuzzNFTables: whatever a rule and a list of elements say, they are decoded alike the
// first time and when they are known already, and nothing of the messages stays in use.
func FuzzNFTables(f *testing.F) {
	list := netlinkAttr(3, slices.Concat(edge{7, true}.element(), edge{3, false}.element()))
	elements := slices.Concat([]byte{1, 0, 0, 0}, netlinkAttr(1, []byte("t\x00")), netlinkAttr(2, []byte("s\x00")), list)
	f.Add(ruleOf("a", 1, 3), elements)
	f.Add(ruleOf("b", 2, 4), []byte{1, 0, 0, 0, 3, 0, 4, 0})
	for name := range exprs {
		f.Add(slices.Concat([]byte{1, 0, 0, 0}, netlinkAttr(1, []byte("t\x00")), netlinkAttr(2, []byte("a\x00")), netlinkAttr(4, exprNamed(name, netlinkAttr(1, be(1)), netlinkAttr(2, be(1))))), elements)
	}
	f.Fuzz(func(t *testing.T, rule, elements []byte) {
		decode := func(elements []byte, rules ...[]byte) (*rs.Table, error) {
			ts, err := NFTables(Dump{
				Tables: [][]byte{anyTable}, Chains: [][]byte{chainNamed("a"), chainNamed("b")}, Sets: [][]byte{anySet},
				Elements: [][]byte{elements}, Rules: rules, Order: binary.LittleEndian, IPSets: NoIPSets(),
			})
			if err != nil {
				return nil, err
			}
			return ts[0], nil
		}
		a, errA := decode(slices.Clone(elements), slices.Clone(rule))
		b, errB := decode(elements, rule, rule)
		if (errA == nil) != (errB == nil) {
			t.Fatalf("once: %v, twice: %v", errA, errB)
		}
		if errA != nil {
			return
		}
		clear(rule)
		clear(elements)
		if !reflect.DeepEqual(a.Sets, b.Sets) {
			t.Errorf("sets: %+v and %+v", a.Sets["s"], b.Sets["s"])
		}
		for i, c := range b.Chains {
			for _, r := range c.Rules {
				if x := a.Chains[i].Rules[0]; !reflect.DeepEqual(x.Exprs, r.Exprs) || x.Comment != r.Comment {
					t.Errorf("once: %+v, twice: %+v", x, r)
				}
			}
		}
	})
}
