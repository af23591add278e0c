package rtnl

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

const ifaProto = 11 // IFA_PROTO, kernel 5.18

// decodeAddress decodes struct ifaddrmsg of an IPv4 or IPv6 address.
func decodeAddress(b []byte, read time.Duration) (fact.Address, verdict) {
	if len(b) < unix.SizeofIfAddrmsg {
		return fact.Address{}, malformed
	}
	if b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return fact.Address{}, skip
	}
	out := fact.Address{Index: int(int32(binary.NativeEndian.Uint32(b[4:]))), Flags: uint32(b[2]), Scope: b[3]}
	var address, local netip.Addr
	lifetimes := false
	a := attrs{rest: b[unix.SizeofIfAddrmsg:]}
	for a.next() {
		switch a.typ {
		case unix.IFA_ADDRESS:
			address = a.addr()
		case unix.IFA_LOCAL:
			local = a.addr()
		case unix.IFA_FLAGS: // the 32 bits of which ifa_flags holds eight
			out.Flags = a.u32()
		case ifaProto:
			out.Protocol = a.u8()
		case unix.IFA_CACHEINFO: // struct ifa_cacheinfo: preferred, valid, created, updated
			if len(a.v) < 8 {
				return fact.Address{}, malformed
			}
			out.Preferred = binary.NativeEndian.Uint32(a.v)
			out.Valid = binary.NativeEndian.Uint32(a.v[4:])
			if len(a.v) >= 12 && read > 0 {
				// Hundredths of seconds that wrap, as the clock of 32 bits does.
				age := uint32(read.Milliseconds()/10) - binary.NativeEndian.Uint32(a.v[8:])
				if age > 1<<31 { // made after the clock was read
					age = 0
				}
				out.Age = fact.Value(int64(age / 100))
			}
			lifetimes = true
		}
	}
	// On a point-to-point link IFA_LOCAL is ours and IFA_ADDRESS the peer's;
	// elsewhere IPv4 sends both alike and IPv6 only IFA_ADDRESS.
	switch {
	case !local.IsValid():
		local = address
	case address.IsValid() && address != local:
		out.Peer = address
	}
	ok := false
	if out.Prefix, ok = prefix(local, b[1]); !ok || !lifetimes || a.bad || local.Is4() != (b[0] == unix.AF_INET) {
		return fact.Address{}, malformed
	}
	return out, keep
}
