package probe

import (
	"bytes"
	"encoding/binary"
)

// What begins a session of a secure protocol is asked in a way that begins none: with a
// version that nobody speaks, or by a first message that a server answers before it
// remembers anything.

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

func quicAnswers(t, b []byte) bool {
	return len(b) >= 15 && b[0]&0x80 != 0 && binary.BigEndian.Uint32(b[1:]) == 0 && bytes.Contains(b, t)
}

// ikeProbe is the header of an IKE_SA_INIT of version 3, which is refused with
// INVALID_MAJOR_VERSION (RFC 7296 §2.5, §3.1).
func ikeProbe(t []byte) []byte {
	b := make([]byte, 28)
	copy(b, t)
	b[17], b[18], b[19], b[27] = 0x30, 34, 8, 28
	return b
}

func ikeAnswers(t, b []byte) bool { return len(b) >= 28 && bytes.Equal(b[:8], t) }

// natIKEProbe is the same behind the marker that says that it is no ESP (RFC 3948 §2.2).
func natIKEProbe(t []byte) []byte { return append(make([]byte, 4), ikeProbe(t)...) }

func natIKEAnswers(t, b []byte) bool {
	return len(b) >= 4 && binary.BigEndian.Uint32(b) == 0 && ikeAnswers(t, b[4:])
}

// openvpnReset is P_CONTROL_HARD_RESET_CLIENT_V2 (openvpn(8), "ssl_pkt.h"): a session id,
// nothing acknowledged, packet 0. With tls-auth or tls-crypt nobody answers it.
func openvpnReset(t []byte) []byte {
	return append(append([]byte{7 << 3}, t...), 0, 0, 0, 0, 0)
}

func openvpnAnswers(t, b []byte) bool {
	return len(b) >= 14 && b[0]>>3 == 8 && bytes.Contains(b, t)
}

// l2tpRequest is an SCCRQ without what it must have: it is refused with a StopCCN (RFC
// 2661 §6.1, §4.4.2).
func l2tpRequest(t []byte) []byte {
	return []byte{0xc8, 2, 0, 28, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 8, 0, 0, 0, 0, 0, 1, 0x80, 8, 0, 0, 0, 9, t[0] | 1, t[1]}
}

func l2tpAnswers(t, b []byte) bool {
	return len(b) >= 12 && b[0]&0x80 != 0 && b[1]&15 == 2 && b[4] == t[0]|1 && b[5] == t[1]
}

// dtlsHello is a ClientHello of DTLS 1.2 without a cookie (RFC 6347 §4.2.1): a server asks
// for one, and remembers nothing.
func dtlsHello(t []byte) []byte {
	body := append([]byte{0xfe, 0xfd}, bytes.Repeat(t, 4)...)
	body = append(body, 0, 0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0) // no session, no cookie, two suites, no compression
	body = append(body, 0, 26,
		0, 10, 0, 4, 0, 2, 0, 23, // groups: secp256r1
		0, 11, 0, 2, 1, 0, // uncompressed points
		0, 13, 0, 8, 0, 6, 4, 3, 5, 3, 4, 1) // signatures
	n := byte(len(body))
	hello := append([]byte{1, 0, 0, n, 0, 0, 0, 0, 0, 0, 0, n}, body...)
	return append([]byte{22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(hello))}, hello...)
}

// dtlsAnswers knows a handshake message or an alert. Neither has room for our token.
func dtlsAnswers(_, b []byte) bool {
	return len(b) >= 13 && (b[0] == 22 || b[0] == 21) && b[1] == 0xfe
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

func wireguardAnswers(_, b []byte) bool {
	return len(b) >= 4 && (b[0] == 2 || b[0] == 3) && b[1] == 0 && b[2] == 0 && b[3] == 0
}
