package probe

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestSpecParse(t *testing.T) {
	t.Parallel()
	var s Spec
	for _, w := range []string{"tcp/22", "tcp/20-25", "tcp/65535", "udp/53", "echo", "icmp/13"} {
		if err := s.Parse(w); err != nil {
			t.Errorf("%s: %v", w, err)
		}
	}
	if s.TCP.Len() != 7 || !s.TCP.Has(65535) || s.UDP.Len() != 1 || !s.ICMP4.Has(8) || !s.ICMP4.Has(13) || !s.ICMP6.Has(128) {
		t.Errorf("%d %d %v %v", s.TCP.Len(), s.UDP.Len(), slices.Collect(s.ICMP4.All), slices.Collect(s.ICMP6.All))
	}
	for _, w := range []string{"", "22", "tcp", "tcp/", "tcp/0", "tcp/022", "tcp/9-3", "tcp/65536", "sctp/1", "icmp/3", "icmp/8-300", "tcp/1-2-3"} {
		err := s.Parse(w)
		if e, ok := err.(*SpecError); !ok || e.Hint == "" {
			t.Errorf("%q: %v, want an error with a hint", w, err)
		}
	}
}

// TestPortsIsASet against the set of the language.
func TestPortsIsASet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var p Ports
		want := map[uint16]bool{}
		for _, n := range rapid.SliceOf(rapid.Int32Range(0, 131071)).Draw(t, "n") {
			if port := uint16(n); n > 65535 {
				p.Del(port)
				delete(want, port)
			} else {
				p.Add(port)
				want[port] = true
			}
		}
		got := slices.Collect(p.All)
		if p.Len() != len(want) || len(got) != len(want) || !slices.IsSorted(got) {
			t.Fatalf("%v, want %v", got, want)
		}
		for _, g := range got {
			if !want[g] || !p.Has(g) {
				t.Fatalf("%d", g)
			}
		}
	})
}

// TestTableKeepsTheBestAnswer: a stranger can neither hide an open port nor fill the
// memory with senders.
func TestTableKeepsTheBestAnswer(t *testing.T) {
	t.Parallel()
	var tb Table
	for p := range 2000 {
		tb.Want.Add(uint16(p))
	}
	open := Reason{State: Open, Why: "syn-ack"}
	if !tb.Set(1, open) || tb.Set(1, Reason{State: Rejected, Why: "icmp"}) || tb.At(1) != open {
		t.Errorf("%+v", tb.At(1))
	}
	if tb.Set(5000, open) {
		t.Error("a port was answered that nobody asked about")
	}
	for i := range 1500 {
		tb.Set(uint16(i+2), Reason{State: Rejected, Why: "icmp", ICMP: true, From: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})})
	}
	if len(tb.reasons) > 255 || tb.Count(Rejected) != 1500 || tb.At(1400).State != Rejected || tb.Open() != 2000-1501 {
		t.Errorf("%d reasons, %d rejected, %d open", len(tb.reasons), tb.Count(Rejected), tb.Open())
	}
}

func TestSavedIsReadBack(t *testing.T) {
	t.Parallel()
	addr, src := netip.MustParseAddr("fe80::2%eth0"), netip.MustParseAddr("fe80::1%eth0")
	tb := &Table{Proto: "tcp", Variant: DestOpts}
	for p := range 100 {
		tb.Want.Add(uint16(p + 1))
	}
	tb.Put(22, Reason{State: Open, Why: "syn-ack"})
	tb.Put(5, Reason{State: Errored, Why: "rationed"})
	for p := range 20 {
		tb.Put(uint16(30+p), Reason{State: Rejected, ICMP: true, ICMPType: 1, ICMPCode: 4, From: addr.WithZone("")})
	}
	b, err := json.Marshal(Save([]*Address{{Addr: addr, Vantage: Vantage{Source: src}, Tables: []*Table{tb}}}))
	if err != nil {
		t.Fatal(err)
	}
	var s Saved
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	got, err := s.Of(addr, src)
	if err != nil || len(got) != 1 {
		t.Fatalf("%v %v\n%s", got, err, b)
	}
	for p := range tb.Want.All {
		want := tb.At(p)
		if want.State == Errored {
			want = Reason{} // asked again
		}
		if got[0].At(p) != want {
			t.Errorf("%d: %+v, want %+v", p, got[0].At(p), want)
		}
	}
	if other, _ := s.Of(addr, addr); other != nil {
		t.Error("what was seen from elsewhere was taken over")
	}
}

// FuzzSaved: a state file may be anybody's.
func FuzzSaved(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":"1.0","addresses":[{"address":"::1","tables":[{"proto":"tcp","states":[{"ports":"1-3","state":"open"}]}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Saved
		if json.Unmarshal(b, &s) == nil {
			_, _ = s.Of(netip.IPv6Loopback(), netip.Addr{})
		}
	})
}

func TestSameSite(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		src, dst string
		want     Site
	}{
		{"10.1.2.3", "192.168.7.8", SitePrivate},
		{"10.1.2.3", "192.0.2.8", SiteUnknown},
		{"192.0.2.77", "192.0.2.8", SitePrefix},
		{"192.0.3.77", "192.0.2.8", SiteUnknown},
		{"2001:db8:7:1::1", "2001:db8:7:2::1", SitePrefix},
		{"2001:db8:7:1::1", "2001:db8:8::1", SiteUnknown},
		{"fd00:1:1:1::1", "fd00:1:1:2::1", SitePrefix},
		{"fd00:1:1:1::1", "2001:db8::1", SiteUnknown},
	} {
		a := &Address{Addr: netip.MustParseAddr(c.dst), Vantage: Vantage{Source: netip.MustParseAddr(c.src)}}
		if got := a.SameSite(); got != c.want {
			t.Errorf("%s to %s: %q", c.src, c.dst, got)
		}
		if a.Vantage.Near = true; a.SameSite() != SiteNear {
			t.Errorf("%s to %s: one router is between", c.src, c.dst)
		}
		if a.Vantage.OnLink = true; a.SameSite() != SiteUnknown {
			t.Errorf("%s to %s: no router is between", c.src, c.dst)
		}
	}
}

// TestManySendersKeepTheReason: who answers chooses the sender, not how much is remembered;
// that it was an ICMP error stays known.
func TestManySendersKeepTheReason(t *testing.T) {
	t.Parallel()
	var tab Table
	for p := uint16(1); p <= 3000; p++ {
		tab.Want.Add(p)
		tab.Set(p, Reason{State: Rejected, Why: "icmp", ICMP: true, From: netip.AddrFrom4([4]byte{10, 0, byte(p >> 8), byte(p)})})
	}
	for p := uint16(1); p <= 3000; p++ {
		if r := tab.At(p); r.State != Rejected || r.Why != "icmp" {
			t.Fatalf("%d: %+v", p, r)
		}
	}
}
