package rtnl

import (
	"encoding/binary"
	"net/netip"
)

// attrs walks the attributes of one message without copying. It stops at the
// first header that does not fit and remembers that it did.
type attrs struct {
	rest []byte
	typ  uint16
	v    []byte
	bad  bool
}

// next steps to the next attribute (struct nlattr: length, type, value, padding).
func (a *attrs) next() bool {
	if len(a.rest) == 0 || a.bad {
		return false
	}
	if len(a.rest) < 4 {
		a.bad = true
		return false
	}
	n := int(binary.NativeEndian.Uint16(a.rest))
	if n < 4 || n > len(a.rest) {
		a.bad = true
		return false
	}
	a.typ = binary.NativeEndian.Uint16(a.rest[2:]) & 0x3fff // NLA_F_NESTED and NLA_F_NET_BYTEORDER off
	a.v = a.rest[4:n]
	a.rest = a.rest[min(align(n), len(a.rest)):]
	return true
}

// The getters mark the walk as bad when the value is too short. A longer value
// is a newer kernel's and keeps its meaning.

func (a *attrs) u8() uint8 {
	if len(a.v) < 1 {
		a.bad = true
		return 0
	}
	return a.v[0]
}

func (a *attrs) u16() uint16 {
	if len(a.v) < 2 {
		a.bad = true
		return 0
	}
	return binary.NativeEndian.Uint16(a.v)
}

func (a *attrs) be16() uint16 {
	if len(a.v) < 2 {
		a.bad = true
		return 0
	}
	return binary.BigEndian.Uint16(a.v)
}

func (a *attrs) u32() uint32 {
	if len(a.v) < 4 {
		a.bad = true
		return 0
	}
	return binary.NativeEndian.Uint32(a.v)
}

func (a *attrs) be32() uint32 {
	if len(a.v) < 4 {
		a.bad = true
		return 0
	}
	return binary.BigEndian.Uint32(a.v)
}

func (a *attrs) u64() uint64 {
	if len(a.v) < 8 {
		a.bad = true
		return 0
	}
	return binary.NativeEndian.Uint64(a.v)
}

// text is a string up to its NUL, if it has one.
func (a *attrs) text() []byte {
	for i, c := range a.v {
		if c == 0 {
			return a.v[:i]
		}
	}
	return a.v
}

// addr is an address of 4 or 16 bytes.
func (a *attrs) addr() netip.Addr {
	x, ok := netip.AddrFromSlice(a.v)
	if !ok {
		a.bad = true
	}
	return x
}

// prefix is addr with a length that the message carries elsewhere. Host bits
// are kept; use Masked where the kernel means a prefix.
func prefix(a netip.Addr, bits uint8) (netip.Prefix, bool) {
	if !a.IsValid() || int(bits) > a.BitLen() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, int(bits)), true
}
