package sock

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// eachLine decodes a table below /proc/net. The first line is its heading. A
// last line without an end was cut and counts as not understood.
func eachLine(b []byte, t *table, f func(*fact.Socket)) (bad bool) {
	first := true
	var s fact.Socket // one for all: f keeps a copy
	var fields [16][]byte
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return true
		}
		line := b[:i]
		b = b[i+1:]
		if first {
			first = false
			continue
		}
		n := split(line, fields[:])
		if n == 0 {
			continue
		}
		s = fact.Socket{Protocol: t.protocol, Family: t.family, Source: sourceProc}
		ok := false
		switch t.protocol {
		case "packet":
			ok = packetLine(fields[:n], &s, f)
		case "sctp":
			ok = sctpLine(bytes.Fields(line), &s, f)
		default:
			ok = inetLine(fields[:n], &s, f)
		}
		bad = bad || !ok
	}
	return bad || first
}

// split is bytes.Fields for spaces, into a given array.
func split(line []byte, out [][]byte) int {
	n := 0
	for i := 0; i < len(line) && n < len(out); {
		if line[i] == ' ' {
			i++
			continue
		}
		j := i
		for j < len(line) && line[j] != ' ' {
			j++
		}
		out[n] = line[i:j]
		n++
		i = j
	}
	return n
}

// inetLine decodes a line of tcp, udp, udplite, raw and their IPv6 twins
// (get_tcp4_sock and friends): sl local rem st tx:rx tr:when retrnsmt uid timeout
// inode … Addresses are 32-bit words of network-order bytes printed in host order.
func inetLine(f [][]byte, s *fact.Socket, emit func(*fact.Socket)) bool {
	if len(f) < 10 {
		return false
	}
	st, ok0 := hexNumber(f[3], 8)
	if ok0 && s.Protocol == "tcp" && st != stListen {
		return true
	}
	local, port, ok1 := hexAddrPort(f[1], s.Family)
	remote, rport, ok2 := hexAddrPort(f[2], s.Family)
	uid, ok3 := decimal(f[7])
	inode, ok4 := decimal(f[9])
	if !ok0 || !ok1 || !ok2 || !ok3 || !ok4 || uid > 1<<32-1 {
		return false
	}
	s.UID, s.Inode, s.IndexUnknown = uint32(uid), inode, true
	if fill(s, uint8(st), local, remote, port, rport) {
		emit(s)
	}
	return true
}

// packetLine decodes: sk RefCnt Type Proto Iface R Rmem User Inode (packet_seq_show).
func packetLine(f [][]byte, s *fact.Socket, emit func(*fact.Socket)) bool {
	if len(f) < 9 {
		return false
	}
	proto, ok1 := hexNumber(f[3], 16)
	index, ok2 := decimal(f[4])
	uid, ok3 := decimal(f[7])
	inode, ok4 := decimal(f[8])
	if !ok1 || !ok2 || !ok3 || !ok4 || uid > 1<<32-1 || index > 1<<31-1 {
		return false
	}
	s.State, s.V6Only = "unconnected", fact.Absent[bool]()
	s.Number, s.Index, s.UID, s.Inode = uint16(proto), int(index), uint32(uid), inode
	emit(s)
	return true
}

// sctpLine decodes: ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS…
// (sctp_eps_seq_show). The family of the socket is not shown; one with an IPv6
// address is IPv6.
func sctpLine(f [][]byte, s *fact.Socket, emit func(*fact.Socket)) bool {
	if len(f) < 8 {
		return false
	}
	st, ok1 := decimal(f[3])
	port, ok2 := decimal(f[5])
	uid, ok3 := decimal(f[6])
	inode, ok4 := decimal(f[7])
	if !ok1 || !ok2 || !ok3 || !ok4 || port > 65535 || uid > 1<<32-1 || st > 255 {
		return false
	}
	if st != stListen {
		return true
	}
	addrs := make([]netip.Addr, 0, len(f)-8)
	family := "ipv4"
	for _, a := range f[8:] {
		addr, err := netip.ParseAddr(string(bytes.TrimPrefix(a, []byte("*"))))
		if err != nil {
			return false
		}
		if addr.Is6() {
			family = "ipv6"
		}
		addrs = append(addrs, addr)
	}
	if len(addrs) == 0 {
		return false
	}
	for _, addr := range addrs {
		one := *s
		one.Family = family
		if family == "ipv6" && addr.Is4() {
			addr = netip.AddrFrom16(addr.As16())
		}
		one.UID, one.Inode, one.IndexUnknown = uint32(uid), inode, true
		if fill(&one, uint8(st), addr, netip.Addr{}, uint16(port), 0) {
			emit(&one)
		}
	}
	return true
}

// hexAddrPort reads "0100007F:0035" or 32 digits and a port.
func hexAddrPort(b []byte, family string) (netip.Addr, uint16, bool) {
	i := bytes.IndexByte(b, ':')
	if i < 0 {
		return netip.Addr{}, 0, false
	}
	port, ok := hexNumber(b[i+1:], 16)
	if !ok {
		return netip.Addr{}, 0, false
	}
	var a [16]byte
	want := 4
	if family == "ipv6" {
		want = 16
	}
	if i != 2*want {
		return netip.Addr{}, 0, false
	}
	if _, err := hex.Decode(a[:want], b[:i]); err != nil {
		return netip.Addr{}, 0, false
	}
	for w := 0; w < want; w += 4 {
		// The digits are the word's value; its bytes in memory are the address.
		binary.NativeEndian.PutUint32(a[w:], binary.BigEndian.Uint32(a[w:]))
	}
	if want == 4 {
		return netip.AddrFrom4([4]byte(a[:4])), uint16(port), true
	}
	return netip.AddrFrom16(a), uint16(port), true
}

func hexNumber(b []byte, bits int) (uint64, bool) {
	v, err := strconv.ParseUint(string(b), 16, bits)
	return v, err == nil
}

func decimal(b []byte) (uint64, bool) {
	v, err := strconv.ParseUint(string(b), 10, 64)
	return v, err == nil
}
