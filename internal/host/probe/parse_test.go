package probe

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

func testFlow(four bool, proto uint8) *flow {
	f := &flow{src: netip.MustParseAddr("2001:db8::1"), dst: netip.MustParseAddr("2001:db8::2"), proto: proto, secret: newSecret()}
	if four {
		f.src, f.dst = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	}
	for i := range f.sports {
		f.sports[i] = uint16(40000 + i)
	}
	return f
}

// quote is an ICMP error of a sender about a packet.
func quote(f *flow, from netip.Addr, typ, code uint8, packet []byte) []byte {
	e := *f
	e.src, e.dst, e.variant = from, f.src, model.Plain
	e.proto = protoICMP
	if !f.is4() {
		e.proto = protoICMPv6
	}
	return e.packets(append([]byte{typ, code, 0, 0, 0, 0, 0, 0}, packet...), 1)[0]
}

// TestOnlyOurOwnPacketsAreBelieved: an error that quotes a packet which we did not send
// is nobody's answer, whichever bit is wrong.
func TestOnlyOurOwnPacketsAreBelieved(t *testing.T) {
	t.Parallel()
	for _, four := range []bool{true, false} {
		for _, proto := range []uint8{protoTCP, protoUDP} {
			f := testFlow(four, proto)
			router := netip.MustParseAddr("2001:db8::ffff")
			typ, code := uint8(1), uint8(1)
			if four {
				router, typ, code = netip.MustParseAddr("192.0.2.254"), 3, 13
			}
			for _, v := range model.Variants() {
				if four && v != model.Plain && v != model.Fragments {
					continue
				}
				f.variant = v
				k := key{53, 3}
				sent := f.packets(f.segment(k), 7)[0]
				got := f.parse(quote(f, router, typ, code, sent))
				want := answer{key: k, kind: icmpError, icmp: typ, code: code, from: router, hops: 64}
				if got != want {
					t.Fatalf("%v %d %q: %+v, want %+v", four, proto, v, got, want)
				}
				// The transport header's first eight bytes carry the cookie.
				at := len(sent) - len(f.segment(k))
				if v == model.Fragments {
					at = len(sent) - split(f.segment(k))
				}
				for bit := range 64 {
					forged := slices.Clone(sent)
					forged[at+bit/8] ^= 1 << (bit % 8)
					if a := f.parse(quote(f, router, typ, code, forged)); a.kind != noAnswer {
						t.Fatalf("%v %d %q: bit %d: %+v", four, proto, v, bit, a)
					}
				}
				other := *f
				other.dst = netip.MustParseAddr("2001:db8::3")
				if four {
					other.dst = netip.MustParseAddr("192.0.2.3")
				}
				if a := f.parse(quote(f, router, typ, code, other.packets(f.segment(k), 7)[0])); a.kind != noAnswer {
					t.Fatalf("an error about another host was believed: %+v", a)
				}
			}
		}
	}
}

func TestOnlyTheRightAcknowledgementIsBelieved(t *testing.T) {
	t.Parallel()
	for _, four := range []bool{true, false} {
		f := testFlow(four, protoTCP)
		k := key{22, 5}
		from := *f
		from.src, from.dst = f.dst, f.src
		reply := func(flags uint8, ack uint32) []byte {
			b := make([]byte, 20)
			binary.BigEndian.PutUint16(b, k.port)
			binary.BigEndian.PutUint16(b[2:], f.sports[k.try])
			binary.BigEndian.PutUint32(b[8:], ack)
			b[12], b[13] = 5<<4, flags
			return from.packets(b, 1)[0]
		}
		good := uint32(f.token(k)) + 1
		for flags, want := range map[uint8]answerKind{tcpSYN | tcpACK: synAck, tcpRST | tcpACK: reset, tcpRST: reset, tcpACK: noAnswer, tcpSYN: noAnswer, tcpFIN | tcpACK: noAnswer} {
			if a := f.parse(reply(flags, good)); a.kind != want || want != noAnswer && a.key != k {
				t.Errorf("flags %#x: %+v, want %d", flags, a, want)
			}
			for _, bad := range []uint32{good - 1, good + 1, 0, good ^ 1<<31} {
				if a := f.parse(reply(flags, bad)); a.kind != noAnswer {
					t.Errorf("flags %#x, wrong number: %+v", flags, a)
				}
			}
		}
	}
}

// FuzzParse: strangers choose these bytes.
func FuzzParse(f *testing.F) {
	for _, four := range []bool{true, false} {
		for _, proto := range []uint8{protoTCP, protoUDP, protoICMP, protoICMPv6} {
			x := testFlow(four, proto)
			p := x.packets(x.segment(key{53, 1}), 1)[0]
			f.Add(four, proto, p)
			f.Add(four, proto, quote(x, x.dst, 3, 3, p))
			for _, c := range model.Chains() {
				if c.Of(x.dst) {
					f.Add(four, proto, quote(x, x.dst, 4, 3, x.chain(c.Name, x.segment(key{53, 1}), 7)[0]))
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, four bool, proto uint8, b []byte) {
		x := testFlow(four, proto)
		if a := x.parse(b); a.kind != noAnswer && (a.try >= tries || !a.from.IsValid()) {
			t.Fatalf("%+v", a)
		}
		if len(b) >= 20 {
			_ = segmentSize(b)
		}
		c := testFlow(four, proto)
		c.chained, c.ids = true, map[uint32]key{7: {22, 3}}
		if a := c.parse(b); a.kind != noAnswer && (a.try >= tries || !a.from.IsValid()) {
			t.Fatalf("%+v", a)
		}
		e := &echoes{f: x, sent: x.segment(key{128, 1})}
		got := came{}
		if e.heard(b, key{128, 1}, &got); got.mtu < 0 || got.mtu > 65535 {
			t.Fatalf("%+v", got)
		}
		d := &datagrams{flow: x}
		q := queued{data: b, dst: netip.AddrPortFrom(x.dst, 53)}
		q.extended(b)
		_ = d.refused(q, 1)
		q.icmp = true
		_ = d.refused(q, 1)
		_ = d.read(b, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 2}, Port: 53}, 1)
	})
}
