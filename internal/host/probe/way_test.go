package probe

import (
	"reflect"
	"testing"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// TestWay: what the answers show of the way. The router answers for one port, and changes
// what another says of the size of its segments.
func TestWay(t *testing.T) {
	t.Parallel()
	l := newRoutedLab(t, "way")
	l.listen("", 22, 80, 443)
	rules(l.router, t, "table inet f {\nchain c {\ntype filter hook forward priority 0;\ntcp dport 81 reject with tcp reset\ntcp sport 80 tcp flags syn tcp option maxseg size set 1220\ntcp sport 443 tcp flags syn reset tcp option maxseg\n}\n}\n")
	for _, four := range []bool{true, false} {
		a, icmp, full := l.v6, "icmpv6", uint16(1440)
		if four {
			a, icmp, full = l.v4, "icmp", 1460
		}
		f := l.probe(Options{Addr: a, Spec: spec(t, "tcp/22", "tcp/80-82", "tcp/443", "echo")})
		echo := map[string]string{"icmp": "8", "icmpv6": "128"}[icmp]
		want := []model.Distant{{Hops: 0, HopLimit: 64, Ports: map[string]string{"tcp": "81"}}, {Hops: 1, HopLimit: 63, Ports: map[string]string{"tcp": "22,80,82,443", icmp: echo}}}
		if got := f.Distances(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v\nwant %+v", a, got, want)
		}
		for port, mss := range map[uint16]uint16{22: full, 80: 1220, 443: 0} {
			if s := f.Segments()[mss]; s == nil || !s.Has(port) {
				t.Errorf("%s: tcp/%d does not offer %d: %+v", a, port, mss, f.Tables)
			}
		}
	}
}

func TestSegmentSize(t *testing.T) {
	t.Parallel()
	for want, options := range map[uint16][]byte{
		1460: {2, 4, 0x05, 0xb4}, 1220: {1, 3, 3, 7, 2, 4, 0x04, 0xc4}, 0: {0, 2, 4, 1},
	} {
		h := append(make([]byte, 20), options...)
		h[12] = uint8(len(h)/4) << 4
		if got := segmentSize(h); got != want {
			t.Errorf("%v: %d, want %d", options, got, want)
		}
	}
	for _, bad := range [][]byte{{2, 0, 0, 0}, {2, 9, 0, 0}, {5}, {8, 1, 0, 0}} {
		h := append(make([]byte, 20), bad...)
		h[12] = 6 << 4
		if got := segmentSize(h); got != 0 {
			t.Errorf("%v: %d", bad, got)
		}
	}
}
