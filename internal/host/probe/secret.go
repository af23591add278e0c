package probe

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
)

// secret makes the cookies of a run. Nothing about a probe is remembered: its answer is
// ours when it carries the cookie that its own ports and addresses call for.
type secret struct{ seed maphash.Seed }

func newSecret() *secret { return &secret{maphash.MakeSeed()} }

func (s *secret) of(dst netip.Addr, proto, variant uint8, k key) uint64 {
	var b [21]byte
	a := dst.As16()
	copy(b[:], a[:])
	b[16], b[17] = proto, k.try
	binary.BigEndian.PutUint16(b[18:], k.port)
	b[20] = variant
	return maphash.Bytes(s.seed, b[:])
}
