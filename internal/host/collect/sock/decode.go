package sock

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// Attributes of an answer (include/uapi/linux/inet_diag.h, packet_diag.h).
const (
	attrV6Only    = 11 // INET_DIAG_SKV6ONLY, u8
	attrLocals    = 15 // INET_DIAG_LOCALS, array of sockaddr_storage: addresses of an SCTP endpoint
	attrPktInfo   = 0  // PACKET_DIAG_INFO: index, version, …
	attrPktUID    = 5  // PACKET_DIAG_UID, u32
	inetMsgSize   = 72 // struct inet_diag_msg
	packetMsgSize = 16 // struct packet_diag_msg
	storageSize   = 128
)

// messages calls f with the payload of every SOCK_DIAG_BY_FAMILY message.
func messages(b []byte, f func(payload []byte) bool) (bad bool) {
	for len(b) >= 16 {
		l := int(binary.NativeEndian.Uint32(b))
		if l < 16 || l > len(b) {
			return true
		}
		if binary.NativeEndian.Uint16(b[4:]) == sockDiagByFamily && !f(b[16:l]) {
			return true
		}
		b = b[min((l+3)&^3, len(b)):]
	}
	return len(b) != 0
}

// attributes calls f for every netlink attribute; false when they are malformed.
func attributes(b []byte, f func(typ uint16, v []byte)) bool {
	for len(b) >= 4 {
		l := int(binary.NativeEndian.Uint16(b))
		if l < 4 || l > len(b) {
			return false
		}
		f(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[4:l])
		b = b[min((l+3)&^3, len(b)):]
	}
	return true
}

// eachInet decodes struct inet_diag_msg (include/uapi/linux/inet_diag.h).
func eachInet(b []byte, t *table, f func(*fact.Socket)) (bad bool) {
	var s fact.Socket // one for all: f keeps a copy
	return messages(b, func(p []byte) bool {
		if len(p) < inetMsgSize {
			return false
		}
		s = fact.Socket{Protocol: t.protocol, Family: t.family, Source: t.source}
		var local, remote netip.Addr
		switch {
		case p[0] == unix.AF_INET && t.family == "ipv4":
			local, remote = netip.AddrFrom4([4]byte(p[8:12])), netip.AddrFrom4([4]byte(p[24:28]))
		case p[0] == unix.AF_INET6 && t.family == "ipv6":
			local, remote = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
		default:
			return false
		}
		s.Index = int(int32(binary.NativeEndian.Uint32(p[40:])))
		s.UID = binary.NativeEndian.Uint32(p[64:])
		s.Inode = uint64(binary.NativeEndian.Uint32(p[68:]))
		port := binary.BigEndian.Uint16(p[4:])
		if !fill(&s, p[1], local, remote, port, binary.BigEndian.Uint16(p[6:])) {
			return true
		}
		var locals []byte
		ok := attributes(p[inetMsgSize:], func(typ uint16, v []byte) {
			switch {
			case typ == attrV6Only && len(v) >= 1 && t.family == "ipv6":
				s.V6Only = fact.Value(v[0] != 0)
			case typ == attrLocals:
				locals = v
			}
		})
		if !ok {
			return false
		}
		if t.protocol == "sctp" && eachLocal(locals, &s, f) {
			return true
		}
		f(&s)
		return true
	})
}

// eachLocal gives an SCTP endpoint that is bound to several addresses one entry
// each; false when there is no list.
func eachLocal(b []byte, s *fact.Socket, f func(*fact.Socket)) bool {
	found := false
	for ; len(b) >= storageSize; b = b[storageSize:] {
		one := *s
		switch binary.NativeEndian.Uint16(b) {
		case unix.AF_INET:
			one.Local = netip.AddrFrom4([4]byte(b[4:8]))
			if s.Family == "ipv6" {
				one.Local = netip.AddrFrom16(one.Local.As16())
			}
		case unix.AF_INET6:
			one.Local = netip.AddrFrom16([16]byte(b[8:24]))
		default:
			continue
		}
		found = true
		f(&one)
	}
	return found
}

// fill sets what both sources tell alike; false for a socket that does not
// receive from strangers: a connection, or a TCP socket that does not listen.
func fill(s *fact.Socket, state uint8, local, remote netip.Addr, port, rport uint16) bool {
	s.Local = local
	switch s.Protocol {
	case "tcp", "sctp":
		if state != stListen {
			return false
		}
		s.State, s.Port = "listen", port
	case "raw": // the port column is the protocol
		s.Number = port
		s.State = "unconnected"
		if remote.IsValid() && !remote.IsUnspecified() || state == stEstablished {
			s.State = "connected"
			s.Remote = netip.AddrPortFrom(remote, 0)
		}
	default:
		s.Port = port
		s.State = "unconnected"
		if state == stEstablished || rport != 0 {
			s.State = "connected"
			s.Remote = netip.AddrPortFrom(remote, rport)
		}
	}
	if s.Family != "ipv6" {
		s.V6Only = fact.Absent[bool]()
	} else if local.Is4In6() {
		// A socket with IPV6_V6ONLY cannot bind a mapped address, and the option
		// is fixed by bind (net/ipv6/af_inet6.c, ipv6_sockglue.c).
		s.V6Only = fact.Value(false)
	}
	return true
}

// eachPacket decodes struct packet_diag_msg.
func eachPacket(b []byte, f func(*fact.Socket)) (bad bool) {
	return messages(b, func(p []byte) bool {
		if len(p) < packetMsgSize || p[0] != unix.AF_PACKET {
			return false
		}
		s := fact.Socket{
			Protocol: "packet", Family: "packet", State: "unconnected", Source: sourcePacket, V6Only: fact.Absent[bool](),
			Number: binary.NativeEndian.Uint16(p[2:]), Inode: uint64(binary.NativeEndian.Uint32(p[4:])),
		}
		info := false
		ok := attributes(p[packetMsgSize:], func(typ uint16, v []byte) {
			switch {
			case typ == attrPktInfo && len(v) >= 4:
				s.Index = int(int32(binary.NativeEndian.Uint32(v)))
				info = true
			case typ == attrPktUID && len(v) >= 4:
				s.UID = binary.NativeEndian.Uint32(v)
			}
		})
		if !ok || !info {
			return false
		}
		f(&s)
		return true
	})
}
