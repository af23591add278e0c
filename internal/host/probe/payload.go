package probe

import "encoding/binary"

// payload is what a UDP probe says: a question that a service of that port answers, where
// there is one; else nothing, which the services that answer anything still answer. The
// token is where the protocol has room for it.
func payload(port uint16, token uint64) []byte {
	t := make([]byte, 8)
	binary.BigEndian.PutUint64(t, token)
	switch port {
	case 53:
		return dnsQuery(t[:2], 1, "version", "bind") // answered, or refused, without recursion
	case 123:
		b := make([]byte, 48) // NTPv4 client, RFC 5905: the server returns our transmit time
		b[0] = 4<<3 | 3
		copy(b[40:], t)
		return b
	case 161:
		return snmpGet(t[:4])
	case 443, 853:
		return quicProbe(t)
	case 1900:
		return []byte("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: ssdp:all\r\n\r\n")
	case 5353:
		return dnsQuery(t[:2], 12, "_services", "_dns-sd", "_udp", "local")
	case 51820:
		return wireguardInitiation(t)
	}
	return nil
}

// dnsQuery is a query of one question; version.bind is of class CHAOS.
func dnsQuery(id []byte, typ uint16, labels ...string) []byte {
	class := uint16(1)
	if labels[0] == "version" {
		class, typ = 3, 16
	}
	b := append([]byte{id[0], id[1], 0, 0, 0, 1}, 0, 0, 0, 0, 0, 0)
	for _, l := range labels {
		b = append(append(b, byte(len(l))), l...)
	}
	b = binary.BigEndian.AppendUint16(append(b, 0), typ)
	return binary.BigEndian.AppendUint16(b, class)
}

// snmpGet asks sysDescr of SNMPv1 with the community public (RFC 1157).
func snmpGet(id []byte) []byte {
	tlv := func(tag byte, parts ...[]byte) []byte {
		out := []byte{tag, 0}
		for _, p := range parts {
			out = append(out, p...)
		}
		out[1] = byte(len(out) - 2)
		return out
	}
	number := func(b ...byte) []byte { return tlv(2, b) }
	oid := tlv(6, []byte{0x2b, 6, 1, 2, 1, 1, 1, 0})
	pdu := tlv(0xa0, number(id[0]&0x7f, id[1], id[2], id[3]), number(0), number(0), tlv(0x30, tlv(0x30, oid, []byte{5, 0})))
	return tlv(0x30, number(0), tlv(4, []byte("public")), pdu)
}

// quicProbe is a long header of a version that nobody speaks: a server answers with the
// versions it does (RFC 9000 §6), but only to a datagram of 1,200 bytes.
func quicProbe(t []byte) []byte {
	b := make([]byte, 1200)
	b[0] = 0xc0
	binary.BigEndian.PutUint32(b[1:], 0x1a2a3a4a)
	b[5] = 8
	copy(b[6:], t)
	b[14] = 8
	copy(b[15:], t)
	return b
}

// wireguardInitiation has the shape of a handshake. A server answers only to keys it
// knows, so silence says nothing; a refusal does.
func wireguardInitiation(t []byte) []byte {
	b := make([]byte, 148)
	b[0] = 1
	for i := 4; i < len(b); i++ {
		b[i] = t[i%8] ^ byte(i)
	}
	return b
}
