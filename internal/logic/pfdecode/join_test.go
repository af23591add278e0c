package pfdecode

import (
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

func netlinkAttr(t uint16, v []byte) []byte {
	b := binary.LittleEndian.AppendUint16(nil, uint16(4+len(v)))
	b = append(binary.LittleEndian.AppendUint16(b, t), v...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

type edge struct {
	key uint16
	end bool
}

func (e edge) element() []byte {
	v := netlinkAttr(1, netlinkAttr(1, binary.BigEndian.AppendUint16(nil, e.key)))
	if e.end {
		v = append(v, netlinkAttr(3, []byte{0, 0, 0, elemIntervalEnd})...)
	}
	return netlinkAttr(1, v)
}

// Intervals that are joined while they come in are those that sorting all starts and
// ends gives, for every order and however they are cut into messages.
func TestJoin(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	joined := 0
	for range 3000 {
		var edges []edge
		for key := uint16(0); key < 40; key++ {
			// In the kernel's order, from the last key: a start before an end at its key.
			if rnd.IntN(3) == 0 {
				edges = append(edges, edge{key, true})
			}
			if rnd.IntN(3) == 0 {
				edges = append(edges, edge{key, false})
			}
		}
		slices.Reverse(edges)
		sorted := &rs.Set{Interval: true}
		var d decoder
		d.order = binary.LittleEndian
		for _, e := range edges {
			el, err := d.element(e.element()[4:])
			if err != nil {
				t.Fatal(err)
			}
			sorted.Elements = append(sorted.Elements, el)
		}
		finishSet(sorted)

		shuffled := rnd.IntN(4) == 0
		if shuffled {
			rnd.Shuffle(len(edges), func(i, j int) { edges[i], edges[j] = edges[j], edges[i] })
		}
		s := &rs.Set{Interval: true}
		for rest := edges; len(rest) > 0; {
			n := 1 + rnd.IntN(len(rest))
			var list []byte
			for _, e := range rest[:n] {
				list = append(list, e.element()...)
			}
			rest = rest[n:]
			if err := d.elementsOf(s, list); err != nil {
				t.Fatal(err)
			}
		}
		if d.joined(s) {
			joined++
		} else {
			finishSet(s)
		}
		if len(s.Elements)+len(sorted.Elements) > 0 && !reflect.DeepEqual(s.Elements, sorted.Elements) {
			t.Fatalf("edges %v (shuffled %v): %v, sorted first %v", edges, shuffled, s.Elements, sorted.Elements)
		}
	}
	if joined < 2000 || joined > 2500 {
		t.Errorf("%d of 3000 sets were joined as they came in", joined)
	}
}
