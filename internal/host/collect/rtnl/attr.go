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

// short is what a value that ends too early reads as.
var short [8]byte

// least is the value, or zeros where it has fewer than n octets, which marks the walk
// as bad. A longer value is a newer kernel's and keeps its meaning.
func (a *attrs) least(n int) []byte {
	if len(a.v) < n {
		a.bad = true
		return short[:n]
	}
	return a.v
}

func (a *attrs) u8() uint8    { return a.least(1)[0] }
func (a *attrs) u16() uint16  { return binary.NativeEndian.Uint16(a.least(2)) }
func (a *attrs) be16() uint16 { return binary.BigEndian.Uint16(a.least(2)) }
func (a *attrs) u32() uint32  { return binary.NativeEndian.Uint32(a.least(4)) }
func (a *attrs) be32() uint32 { return binary.BigEndian.Uint32(a.least(4)) }
func (a *attrs) u64() uint64  { return binary.NativeEndian.Uint64(a.least(8)) }

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
