package packetfilter

import (
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
