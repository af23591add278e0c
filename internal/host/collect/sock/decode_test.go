package sock

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/fact"
)

func decode(t table) ([]fact.Socket, bool) {
	var out []fact.Socket
	bad := t.each(func(s *fact.Socket) { out = append(out, *s) })
	return out, bad
}

// message builds one answer of inet_diag.
func message(family, state uint8, sport uint16, src netip.Addr, inode uint32, attrs ...[]byte) []byte {
	b := make([]byte, 16+inetMsgSize)
	binary.NativeEndian.PutUint16(b[4:], sockDiagByFamily)
	b[16], b[17] = family, state
	binary.BigEndian.PutUint16(b[20:], sport)
	copy(b[24:], src.AsSlice())
	binary.NativeEndian.PutUint32(b[16+68:], inode)
	for _, a := range attrs {
		b = append(b, a...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

func attr(typ uint16, v []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(v)))
	return append(binary.NativeEndian.AppendUint16(b, typ), v...)
}

// The kernel here has no SCTP: an endpoint bound to two addresses is one message
// with a list.
func TestSCTPEndpointWithSeveralAddresses(t *testing.T) {
	storage := make([]byte, 2*storageSize)
	binary.NativeEndian.PutUint16(storage, 2)
	copy(storage[4:], []byte{192, 0, 2, 1})
	binary.NativeEndian.PutUint16(storage[storageSize:], 10)
	a6 := netip.MustParseAddr("2001:db8::1")
	copy(storage[storageSize+8:], a6.AsSlice())
	b := message(10, stListen, 3868, a6, 7, attr(attrLocals, storage), attr(attrV6Only, []byte{0}))
	got, bad := decode(table{protocol: "sctp", family: "ipv6", source: sourceInet, chunks: [][]byte{b}})
	if bad || len(got) != 2 || got[0].Local != netip.MustParseAddr("::ffff:192.0.2.1") || got[1].Local != a6 || got[1].Port != 3868 {
		t.Fatalf("%v %+v", bad, got)
	}
}

func TestSCTPEndpointsFromProc(t *testing.T) {
	text := " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n" +
		"0000000000000000 0000000000000000 2   10  7    3868    0 4711 192.0.2.1 2001:0db8:0000:0000:0000:0000:0000:0001 \n" +
		"0000000000000000 0000000000000000 2   10  8    3869 1000 4712 0.0.0.0 \n" +
		"0000000000000000 0000000000000000 2   7   9    3870 1000 4713 0.0.0.0 \n"
	got, bad := decode(table{protocol: "sctp", family: "ipv4", source: sourceProc, chunks: [][]byte{[]byte(text)}})
	if bad || len(got) != 3 || got[0].Family != "ipv6" || got[1].Local != netip.MustParseAddr("2001:db8::1") || got[2].Family != "ipv4" || got[2].UID != 1000 {
		t.Fatalf("%v %+v", bad, got)
	}
}

// What is cut or not understood is never a shorter list.
func TestMalformedIsUnknown(t *testing.T) {
	good := message(10, stListen, 80, netip.IPv6Unspecified(), 1, attr(attrV6Only, []byte{1}))
	for name, tab := range map[string]table{
		"cut message":        {protocol: "tcp", family: "ipv6", source: sourceInet, chunks: [][]byte{good[:len(good)-3]}},
		"cut header":         {protocol: "tcp", family: "ipv6", source: sourceInet, chunks: [][]byte{append(slices.Clone(good), 1, 2, 3)}},
		"other family":       {protocol: "tcp", family: "ipv4", source: sourceInet, chunks: [][]byte{good}},
		"short payload":      {protocol: "tcp", family: "ipv6", source: sourceInet, chunks: [][]byte{{20, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0}}},
		"packet without if":  {protocol: "packet", family: "packet", source: sourcePacket, chunks: [][]byte{{32, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 17, 3, 0, 3, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}},
		"text without end":   {protocol: "tcp", family: "ipv4", source: sourceProc, chunks: [][]byte{[]byte("head\n 0: 0100007F:0035 00000000:0000 0A 0:0 0:0 0 0 0 17")}},
		"text without head":  {protocol: "tcp", family: "ipv4", source: sourceProc, chunks: [][]byte{nil}},
		"text, wrong length": {protocol: "tcp", family: "ipv6", source: sourceProc, chunks: [][]byte{[]byte("head\n 0: 0100007F:0035 00000000:0000 0A 0:0 0:0 0 0 0 17\n")}},
		"text, few columns":  {protocol: "udp", family: "ipv4", source: sourceProc, chunks: [][]byte{[]byte("head\n 0: 0100007F:0035\n")}},
	} {
		var ns fact.Namespace
		(&Dump{tables: []table{tab}}).Decode(&ns, noOwners)
		if g, ok := ns.Sockets.Gap(); !ok || g.Reason != fact.ParseGap {
			t.Errorf("%s: %v", name, ns.Sockets.State())
		}
	}
	var ns fact.Namespace
	(&Dump{tables: []table{{protocol: "tcp", family: "ipv6", source: sourceInet, chunks: [][]byte{good}}}}).Decode(&ns, noOwners)
	if s, ok := ns.Sockets.Get(); !ok || len(s) != 1 || !s[0].V6Only.Or(false) {
		t.Errorf("the good one: %+v", s)
	}
}

func FuzzDiag(f *testing.F) {
	f.Add([]byte{}, uint8(0))
	f.Add(message(10, stListen, 80, netip.IPv6Unspecified(), 1, attr(attrV6Only, []byte{1})), uint8(1))
	f.Add(message(2, 7, 53, netip.MustParseAddr("127.0.0.1"), 2), uint8(2))
	f.Add(message(10, stListen, 80, netip.IPv6Unspecified(), 1, attr(attrLocals, make([]byte, 300))), uint8(3))
	f.Add([]byte{40, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 17, 3, 0, 3, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0}, uint8(4))
	f.Fuzz(func(t *testing.T, b []byte, kind uint8) {
		tabs := []table{{protocol: "tcp", family: "ipv4", source: sourceInet}, {protocol: "tcp", family: "ipv6", source: sourceInet}, {protocol: "udp", family: "ipv4", source: sourceInet}, {protocol: "sctp", family: "ipv6", source: sourceInet}, {protocol: "packet", family: "packet", source: sourcePacket}}
		tab := tabs[int(kind)%len(tabs)]
		tab.chunks = [][]byte{b}
		got, _ := decode(tab)
		if len(got) > len(b)/16 && tab.protocol != "sctp" {
			t.Fatalf("%d sockets in %d bytes", len(got), len(b))
		}
		_, _ = ended(b)
		for _, s := range got {
			if s.State == "" || s.Local.IsValid() && s.Local.Is4() != (s.Family == "ipv4") {
				t.Fatalf("%+v", s)
			}
		}
	})
}

func FuzzText(f *testing.F) {
	head := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	f.Add(head+"   0: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 17612 1 0 100 0 0 10 0\n", uint8(0))
	f.Add(head+" 114: 00000000000000000000000000000000:003A 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 406779 2 0 0\n", uint8(3))
	f.Add("sk RefCnt Type Proto  Iface R Rmem   User   Inode\n0000000000000000 3      3    0003   0     1 0      0      406\n", uint8(4))
	f.Add("h\n0 0 2 10 7 3868 0 4711 192.0.2.1 2001:db8::1 \n", uint8(5))
	f.Fuzz(func(t *testing.T, text string, kind uint8) {
		tabs := []table{{protocol: "tcp", family: "ipv4"}, {protocol: "tcp", family: "ipv6"}, {protocol: "udp", family: "ipv4"}, {protocol: "raw", family: "ipv6"}, {protocol: "packet", family: "packet"}, {protocol: "sctp", family: "ipv4"}}
		tab := tabs[int(kind)%len(tabs)]
		tab.source, tab.chunks = sourceProc, [][]byte{[]byte(text)}
		got, bad := decode(tab)
		if !bad && len(got) > 8*strings.Count(text, "\n") && tab.protocol != "sctp" {
			t.Fatalf("%d sockets in %q", len(got), text)
		}
		for _, s := range got {
			if s.State == "" || s.Local.IsValid() && s.Local.Is4() != (s.Family == "ipv4") {
				t.Fatalf("%+v", s)
			}
		}
	})
}
