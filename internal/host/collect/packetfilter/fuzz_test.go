package packetfilter

import (
	"encoding/binary"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// FuzzMessages: what is looked at while still privileged is the kernel's, and yet
// no message may do harm.
func FuzzMessages(f *testing.F) {
	b, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_CHAIN_TABLE, Data: []byte("t\x00")}, {Type: unix.NFTA_CHAIN_NAME, Data: []byte("c\x00")}, {Type: unix.NFTA_CHAIN_COUNTERS, Data: make([]byte, 8)}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append([]byte{1, 0, 0, 0}, b...), append([]byte{2, 0, 0, 0}, b...))
	f.Add([]byte{1, 0, 0}, []byte{1, 0, 0, 0, 3, 0, 4, 0})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		for _, p := range []part{partTables, partChains, partSets, partRules, partObjects} {
			if len(a) > 4 && repeats([][]byte{a, b}, p.key) != repeats([][]byte{b, a}, p.key) {
				t.Errorf("%s: order matters", p.name)
			}
		}
		if !same([][]byte{a, b}, [][]byte{a, b}) {
			t.Error("a dump differs from itself")
		}
		if len(a) != len(b) && len(withoutCounters(a)) == len(a) && len(withoutCounters(b)) == len(b) && same([][]byte{a}, [][]byte{b}) {
			t.Error("different messages are the same")
		}
	})
}

func TestSameButForCounters(t *testing.T) {
	msg := func(name string, packets byte) []byte {
		b, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_CHAIN_NAME, Data: []byte(name)}, {Type: unix.NFTA_CHAIN_COUNTERS, Data: []byte{packets}}})
		if err != nil {
			t.Fatal(err)
		}
		return append([]byte{1, 0, 0, 0}, b...)
	}
	if !same([][]byte{msg("a", 1)}, [][]byte{msg("a", 2)}) {
		t.Error("a packet was counted, and the chain is another")
	}
	if same([][]byte{msg("a", 1)}, [][]byte{msg("b", 1)}) || same([][]byte{msg("a", 1)}, nil) {
		t.Error("another chain is the same")
	}
}

// FuzzAnswer: whatever is received is cut into messages that lie within it, and ends.
func FuzzAnswer(f *testing.F) {
	msg := func(kind, flags uint16, data ...byte) []byte {
		b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(data)))
		b = binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(b, kind), flags)
		b = append(binary.NativeEndian.AppendUint32(b, 7), 0, 0, 0, 0)
		b = append(b, data...)
		return append(b, make([]byte, -len(b)&3)...)
	}
	f.Add(append(msg(0xa06, 2, 1, 0, 0, 0, 5, 0, 1, 0, 't'), msg(3, 2, 0, 0, 0, 0)...))
	f.Add(msg(2, 0, 0xfe, 0xff, 0xff, 0xff))
	f.Add([]byte{15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for rest := b; len(rest) > 0; {
			m, after, err := cut(rest)
			if err != nil {
				break
			}
			total += 16 + len(m.data)
			if len(after) >= len(rest) {
				t.Fatalf("%d bytes are left of %d", len(after), len(rest))
			}
			rest = after
			_ = failureOf(m.data)
			_, _ = nameOf(m.data)
			if n := countElements(m.data); n > len(m.data)/4 {
				t.Errorf("%d elements in %d bytes", n, len(m.data))
			}
		}
		if total > len(b) {
			t.Errorf("%d bytes of messages in %d", total, len(b))
		}
	})
}
