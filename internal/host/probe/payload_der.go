package probe

import (
	"bytes"
	"encoding/hex"
)

// tlv is an element of BER with a definite length below 256.
func tlv(tag byte, parts ...[]byte) []byte {
	v := bytes.Join(parts, nil)
	out := []byte{tag, byte(len(v))}
	if len(v) > 127 {
		out = []byte{tag, 0x81, byte(len(v))}
	}
	return append(out, v...)
}

func integer(b ...byte) []byte { return tlv(2, b) }

// snmpGet asks sysDescr of SNMPv1 with the community public (RFC 1157).
func snmpGet(t []byte) []byte {
	oid := tlv(6, []byte{0x2b, 6, 1, 2, 1, 1, 1, 0})
	pdu := tlv(0xa0, integer(t[0]&0x7f, t[1], t[2], t[3]), integer(0), integer(0), tlv(0x30, tlv(0x30, oid, []byte{5, 0})))
	return tlv(0x30, integer(0), tlv(4, []byte("public")), pdu)
}

// snmpAnswers looks for the last bytes of our number: leading zeros are not sent back.
func snmpAnswers(t, b []byte) bool {
	return len(b) > 2 && b[0] == 0x30 && bytes.IndexByte(b, 0xa2) > 0 && bytes.Contains(b, t[2:4])
}

// kerberosRequest is an AS-REQ for nobody of a realm that is not there (RFC 4120 §5.4.1):
// it is refused, and no password is tried.
func kerberosRequest(t []byte) []byte {
	id := []byte(hex.EncodeToString(t))
	text := func(b []byte) []byte { return tlv(0x1b, b) }
	name := func(kind byte, parts ...[]byte) []byte {
		return tlv(0x30, tlv(0xa0, integer(kind)), tlv(0xa1, tlv(0x30, parts...)))
	}
	body := tlv(0x30,
		tlv(0xa0, tlv(3, make([]byte, 5))), // options: none
		tlv(0xa1, name(1, text(id))),
		tlv(0xa2, text(id)),
		tlv(0xa3, name(2, text([]byte("krbtgt")), text(id))),
		tlv(0xa5, tlv(0x18, []byte("19700101000000Z"))),
		tlv(0xa7, integer(t[0]&0x7f|1, t[1], t[2], t[3])),
		tlv(0xa8, tlv(0x30, integer(18)))) // aes256-cts-hmac-sha1-96
	return tlv(0x6a, tlv(0x30, tlv(0xa1, integer(5)), tlv(0xa2, integer(10)), tlv(0xa4, body)))
}

// kerberosAnswers knows KRB-ERROR.
func kerberosAnswers(_, b []byte) bool {
	return len(b) > 2 && b[0] == 0x7e && bytes.Contains(b, []byte{0xa1, 3, 2, 1, 30})
}
