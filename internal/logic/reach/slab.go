package reach

import (
	"encoding/binary"
	"math/bits"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// slabs hold the small parts of many rules together.
type slabs struct {
	steps []step
	tests []sourceTest
	sets  []packetset.Interval
}

const slabSize = 1024

// keep copies steps.
func (s *slabs) keep(list []step) []step {
	if len(list) == 0 {
		return nil
	}
	if cap(s.steps)-len(s.steps) < len(list) {
		s.steps = make([]step, 0, max(slabSize, len(list)))
	}
	n := len(s.steps)
	s.steps = append(s.steps, list...)
	return s.steps[n:len(s.steps):len(s.steps)]
}

// test is a test that holds for one interval of sources.
func (s *slabs) test(iv packetset.Interval) *sourceTest {
	if cap(s.tests) == len(s.tests) {
		s.tests, s.sets = make([]sourceTest, 0, slabSize), make([]packetset.Interval, 0, slabSize)
	}
	n := len(s.tests)
	s.sets = append(s.sets, iv)
	s.tests = append(s.tests, sourceTest{set: s.sets[n : n+1 : n+1]})
	return &s.tests[n]
}

// own tells that a load is the family of the packet.
func (k *loadKey) own() bool {
	m, ok := k.expr.(rs.Meta)
	return ok && k.kind == loadPlain && m.Key == metaNFProto
}

// find returns the number of a load. Rules ask for the same few again and again.
func (p *program) find(k *loadKey) (uint16, bool) {
	for _, id := range p.last {
		if int(id) < len(p.loads) && p.loads[id] == *k {
			return id, true
		}
	}
	id, ok := p.byLoad[*k]
	if ok {
		p.last[p.lastUsed&7] = id
		p.lastUsed++
	}
	return id, ok
}

// prefix is the sources whose value is that of some bytes, where they are a prefix; ok
// is false where the interpreter has to tell.
func (s *source) prefix(data []byte, first int) (iv packetset.Interval, ok bool) {
	var mask, want [16]byte
	if len(data) > 16-first {
		return iv, false
	}
	for i, d := range data {
		b := s.val[i]
		switch {
		case b.kind == kConst && b.val == d:
		case b.kind == kSaddr && int(b.idx) == first+i && (d^b.val)&^b.mask == 0:
			mask[b.idx], want[b.idx] = b.mask, d^b.val
		default:
			return iv, false
		}
	}
	for i := range first {
		mask[i] = 0xff
	}
	hi, lo := binary.BigEndian.Uint64(mask[:8]), binary.BigEndian.Uint64(mask[8:])
	n := bits.LeadingZeros64(^hi)
	if n == 64 {
		n += bits.LeadingZeros64(^lo)
	} else if lo != 0 {
		return iv, false
	}
	if bits.OnesCount64(hi)+bits.OnesCount64(lo) != n || n == 0 {
		return iv, false
	}
	iv.From = packetset.Addr{Hi: binary.BigEndian.Uint64(want[:8]), Lo: binary.BigEndian.Uint64(want[8:])}
	iv.To = packetset.Addr{Hi: iv.From.Hi | ^hi, Lo: iv.From.Lo | ^lo}
	return iv, true
}
