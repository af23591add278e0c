package probe

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
)

// question is what a UDP probe asks of a port that is known for a protocol: the smallest
// request that a server answers to anybody, and that changes nothing there.
type question struct {
	// ask makes the request. t are eight bytes that nobody can guess; they are where the
	// protocol has room for them.
	ask func(t []byte) []byte
	// answers tells whether a datagram is an answer of the protocol to that very request.
	answers func(t, b []byte) bool
}

// questions are the ports whose protocol is known. The page docs/reference/verify-udp.md
// has one row for each.
var questions = map[uint16]question{
	53:    {dnsVersion, dnsAnswers}, // answered, or refused, without recursion
	69:    {tftpRead, tftpAnswers},
	88:    {kerberosRequest, kerberosAnswers},
	111:   {rpcNull, rpcAnswers},
	123:   {ntpClient, ntpAnswers},
	137:   {netbiosStatus, netbiosAnswers},
	161:   {snmpGet, snmpAnswers},
	443:   {quicProbe, quicAnswers},
	500:   {ikeProbe, ikeAnswers},
	623:   {rmcpPing, rmcpAnswers},
	853:   {quicProbe, quicAnswers},
	1194:  {openvpnReset, openvpnAnswers},
	1701:  {l2tpRequest, l2tpAnswers},
	1900:  {ssdpSearch, ssdpAnswers},
	3478:  {stunBinding, stunAnswers},
	4500:  {natIKEProbe, natIKEAnswers},
	5060:  {sipOptions, sipAnswers},
	5349:  {dtlsHello, dtlsAnswers},
	5351:  {pcpAnnounce, pcpAnswers},
	5353:  {mdnsServices, dnsAnswers},
	5683:  {coapGet, coapAnswers},
	5684:  {dtlsHello, dtlsAnswers},
	11211: {memcachedVersion, memcachedAnswers},
	51820: {wireguardInitiation, wireguardAnswers},
}

const tftpPort = 69

// payload is what a UDP probe says: the question of its port where there is one, else
// nothing, which the services that answer anything still answer.
func payload(port uint16, token uint64) []byte {
	q, ok := questions[port]
	if !ok {
		return nil
	}
	return q.ask(binary.BigEndian.AppendUint64(nil, token))
}

// said reads a datagram that came from k.port of the target to the port of ours that try
// k.try leaves from.
func (f *flow) said(k key, data []byte) answer {
	q, ok := questions[k.port]
	switch {
	case ok && q.answers(binary.BigEndian.AppendUint64(nil, f.token(k)), data):
	case ok:
		// It is no proof of who sent it. But whoever can send from there to here may as well
		// speak another protocol, and a port that answers is not silent.
		return answer{key: k, kind: repliedOther}
	case tftpAnswers(nil, data): // comes from a new port, as RFC 1350 §4 wants
		k.port = tftpPort
	}
	return answer{key: k, kind: replied}
}

// dnsVersion asks version.bind of class CHAOS (RFC 4892).
func dnsVersion(t []byte) []byte { return dnsQuery(t[:2], 3, 16, "version", "bind") }

// mdnsServices asks which services there are, as a legacy unicast query (RFC 6762 §6.7;
// RFC 6763 §9).
func mdnsServices(t []byte) []byte {
	return dnsQuery(t[:2], 1, 12, "_services", "_dns-sd", "_udp", "local")
}

// dnsQuery is a query of one question (RFC 1035 §4).
func dnsQuery(id []byte, class, typ uint16, labels ...string) []byte {
	b := append([]byte{id[0], id[1], 0, 0, 0, 1}, 0, 0, 0, 0, 0, 0)
	for _, l := range labels {
		b = append(append(b, byte(len(l))), l...)
	}
	b = binary.BigEndian.AppendUint16(append(b, 0), typ)
	return binary.BigEndian.AppendUint16(b, class)
}

func dnsAnswers(t, b []byte) bool {
	return len(b) >= 12 && bytes.Equal(b[:2], t[:2]) && b[2]&0xf8 == 0x80 // an answer to a query
}

// netbiosStatus asks the names of a node (RFC 1002 §4.2.17), which is a query for "*".
func netbiosStatus(t []byte) []byte {
	return dnsQuery(t[:2], 1, 0x21, "CKAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
}

func netbiosAnswers(t, b []byte) bool { return dnsAnswers(t, b) }

// tftpRead asks for a file that is not there (RFC 1350 §5).
func tftpRead(t []byte) []byte {
	return append([]byte{0, 1}, hex.EncodeToString(t)+"\x00octet\x00"...)
}

// tftpAnswers knows an error, and data.
func tftpAnswers(_, b []byte) bool {
	return len(b) >= 5 && b[0] == 0 && (b[1] == 5 && b[len(b)-1] == 0 || b[1] == 3 && b[2] == 0 && b[3] == 1)
}

// rpcNull calls procedure 0 of the portmapper, which does nothing (RFC 5531 §9, RFC 1833 §3).
func rpcNull(t []byte) []byte {
	b := make([]byte, 40)
	copy(b, t[:4])
	binary.BigEndian.PutUint32(b[8:], 2)       // version of RPC
	binary.BigEndian.PutUint32(b[12:], 100000) // the portmapper
	binary.BigEndian.PutUint32(b[16:], 2)
	return b
}

func rpcAnswers(t, b []byte) bool {
	return len(b) >= 12 && bytes.Equal(b[:4], t[:4]) && binary.BigEndian.Uint32(b[4:]) == 1
}

// ntpClient is a request of NTPv4 (RFC 5905): the server returns our transmit time.
func ntpClient(t []byte) []byte {
	b := make([]byte, 48)
	b[0] = 4<<3 | 3
	copy(b[40:], t)
	return b
}

func ntpAnswers(t, b []byte) bool { return len(b) >= 48 && bytes.Equal(b[24:32], t) }

// rmcpPing is the presence ping of RMCP (ASF 2.0 §3.2.4.2): a BMC says whether it speaks IPMI.
func rmcpPing(t []byte) []byte {
	return []byte{6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x80, t[0] % 255, 0, 0}
}

func rmcpAnswers(t, b []byte) bool {
	return len(b) >= 12 && b[0] == 6 && b[3]&0x1f == 6 && b[8] == 0x40 && b[9] == t[0]%255
}

// ssdpSearch asks for the root device alone, which answers once (UPnP Device Architecture
// 1.1 §1.3.2).
func ssdpSearch([]byte) []byte {
	return []byte("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: upnp:rootdevice\r\n\r\n")
}

func ssdpAnswers(_, b []byte) bool { return bytes.HasPrefix(b, []byte("HTTP/1.1 ")) }

// stunBinding asks from which address we come (RFC 8489 §5).
func stunBinding(t []byte) []byte {
	b := []byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}
	return append(append(b, t...), t[:4]...)
}

func stunAnswers(t, b []byte) bool {
	return len(b) >= 20 && b[0] == 1 && bytes.Equal(b[4:8], []byte{0x21, 0x12, 0xa4, 0x42}) && bytes.Equal(b[8:16], t)
}

// sipOptions asks what a server can do, and is not passed on (RFC 3261 §11, RFC 3581).
func sipOptions(t []byte) []byte {
	id := hex.EncodeToString(t)
	return []byte("OPTIONS sip:sixfence.invalid SIP/2.0\r\nVia: SIP/2.0/UDP sixfence.invalid;rport;branch=z9hG4bK" + id + "\r\nMax-Forwards: 0\r\n" +
		"From: <sip:sixfence.invalid>;tag=" + id + "\r\nTo: <sip:sixfence.invalid>\r\nCall-ID: " + id + "\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")
}

func sipAnswers(t, b []byte) bool {
	return bytes.HasPrefix(b, []byte("SIP/2.0 ")) && bytes.Contains(b, []byte(hex.EncodeToString(t)))
}

// pcpAnnounce asks nothing of a port mapper but to answer (RFC 6887 §14.1); one that
// speaks NAT-PMP alone says so (RFC 6886 §3.5).
func pcpAnnounce([]byte) []byte {
	b := make([]byte, 24)
	b[0] = 2
	return b
}

func pcpAnswers(_, b []byte) bool {
	return len(b) >= 4 && (b[0] == 2 && b[1] == 0x80 || b[0] == 0 && b[1] >= 0x80)
}

// coapGet asks for a resource that is not there (RFC 7252 §5.8.1). An empty message would do,
// but of two with one number the second is no longer answered.
func coapGet(t []byte) []byte {
	return append(append([]byte{0x48, 1, t[0], t[1]}, t...), 0xb1, '-')
}

func coapAnswers(t, b []byte) bool {
	return len(b) >= 12 && b[0]>>6 == 1 && b[0]&15 == 8 && bytes.Equal(b[4:12], t)
}

// memcachedVersion asks the version (memcached's protocol.txt, "UDP protocol").
func memcachedVersion(t []byte) []byte {
	return append([]byte{t[0], t[1], 0, 0, 0, 1, 0, 0}, "version\r\n"...)
}

func memcachedAnswers(t, b []byte) bool {
	return len(b) >= 8 && bytes.Equal(b[:4], []byte{t[0], t[1], 0, 0})
}
