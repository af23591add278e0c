package eyeballs

import (
	"math"
	"net/netip"
	"testing"

	"github.com/sixfence/sixfence/internal/model/probe"
)

func at(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestOrder over the examples of RFC 6724 §10.2, and the pairs that people meet. The names
// lab of cmd/sixfence holds it against the C library.
func TestOrder(t *testing.T) {
	t.Parallel()
	for name, ds := range map[string][]Destination{ // in the order that is to come out
		"IPv6 first":             {{at("2001:db8:1::1"), at("2001:db8:1::2")}, {at("198.51.100.121"), at("169.254.13.78")}},
		"scope":                  {{at("198.51.100.121"), at("198.51.100.117")}, {at("2001:db8:1::1"), at("fe80::1")}},
		"precedence":             {{at("2001:db8:1::1"), at("2001:db8:1::2")}, {at("10.1.2.3"), at("10.1.2.4")}},
		"the smaller scope":      {{at("fe80::1"), at("fe80::2")}, {at("2001:db8:1::1"), at("2001:db8:1::2")}},
		"6to4 after plain":       {{at("2001:db8:1::1"), at("2001:db8:1::2")}, {at("2002:c633:6401::1"), at("2002:c633:6401::2")}},
		"ULA after IPv4":         {{at("192.0.2.1"), at("192.0.2.2")}, {at("fd00::1"), at("fd00::2")}},
		"labels":                 {{at("192.0.2.1"), at("192.0.2.2")}, {at("2001:db8::1"), at("fd00::2")}},
		"no way":                 {{at("192.0.2.1"), at("192.0.2.2")}, {at("2001:db8::1"), netip.Addr{}}},
		"the longer prefix":      {{at("2001:db8:1::1"), at("2001:db8:1::2")}, {at("2001:db8:ffff::1"), at("2001:db8:1::2")}},
		"as they came":           {{at("192.0.2.9"), at("192.0.2.2")}, {at("192.0.2.1"), at("192.0.2.2")}},
		"IPv4 has no rule 9":     {{at("203.0.113.9"), at("192.0.2.2")}, {at("192.0.2.1"), at("192.0.2.2")}},
		"Teredo after IPv4":      {{at("192.0.2.1"), at("192.0.2.2")}, {at("2001::1"), at("2001::2")}},
		"nothing can be reached": {{at("192.0.2.1"), netip.Addr{}}, {at("2001:db8::1"), netip.Addr{}}},
	} {
		x := []Destination{ds[1], ds[0]}
		if name == "as they came" || name == "IPv4 has no rule 9" || name == "nothing can be reached" {
			x = []Destination{ds[0], ds[1]}
		}
		Order(x)
		if x[0] != ds[0] {
			t.Errorf("%s: %s first", name, x[0].Addr)
		}
	}
}

func TestRace(t *testing.T) {
	t.Parallel()
	a := func(s string, st probe.State, ms float64) probe.Attempt {
		return probe.Attempt{Address: at(s), State: st, Milliseconds: ms}
	}
	six, four := "2001:db8::1", "192.0.2.1"
	for name, c := range map[string]struct {
		as                 []probe.Attempt
		l                  Lookup
		winner             string
		happy, best, plain float64
	}{
		"all is well":         {[]probe.Attempt{a(six, probe.Open, 10), a(four, probe.Open, 12)}, Lookup{1, 2}, six, 12, 12, 12},
		"a dead address":      {[]probe.Attempt{a(six, probe.Filtered, 0), a(four, probe.Open, 12)}, Lookup{1, 1}, four, 263, 13, 131013},
		"two dead addresses":  {[]probe.Attempt{a(six, probe.Filtered, 0), a("2001:db8::2", probe.Filtered, 0), a(four, probe.Open, 12)}, Lookup{}, four, 262, 12, 262012},
		"IPv4 is dead":        {[]probe.Attempt{a(four, probe.Filtered, 0), a(six, probe.Open, 5)}, Lookup{}, six, 255, 5, 131005},
		"one that refuses":    {[]probe.Attempt{a(six, probe.Closed, 20), a(four, probe.Open, 12)}, Lookup{}, four, 32, 12, 32},
		"it refuses late":     {[]probe.Attempt{a(six, probe.Rejected, 900), a(four, probe.Open, 12)}, Lookup{}, four, 262, 12, 912},
		"no way":              {[]probe.Attempt{a(four, probe.Open, 12), a(six, probe.Unreachable, 0)}, Lookup{}, four, 12, 12, 12},
		"IPv6 is slow":        {[]probe.Attempt{a(six, probe.Open, 400), a(four, probe.Open, 10)}, Lookup{}, four, 260, 10, 400},
		"a little slow":       {[]probe.Attempt{a(six, probe.Open, 255), a(four, probe.Open, 10)}, Lookup{}, six, 255, 10, 255},
		"AAAA is a bit late":  {[]probe.Attempt{a(six, probe.Open, 10), a(four, probe.Open, 10)}, Lookup{1, 40}, six, 50, 11, 50},
		"AAAA is late":        {[]probe.Attempt{a(six, probe.Open, 10), a(four, probe.Open, 10)}, Lookup{1, 200}, four, 61, 11, 210},
		"AAAA never comes":    {[]probe.Attempt{a(four, probe.Open, 10)}, Lookup{1, Never}, four, 61, 11, 10010},
		"there is no AAAA":    {[]probe.Attempt{a(four, probe.Open, 10)}, Lookup{1, 3}, four, 13, 11, 13},
		"A is late":           {[]probe.Attempt{a(six, probe.Open, 10), a(four, probe.Open, 10)}, Lookup{500, 1}, six, 11, 11, 510},
		"A is late, six dead": {[]probe.Attempt{a(six, probe.Filtered, 0), a(four, probe.Open, 10)}, Lookup{500, 1}, four, 510, 510, 131510},
		"A never comes":       {[]probe.Attempt{a(six, probe.Filtered, 0), a(four, probe.Open, 10)}, Lookup{Never, 1}, "", Never, Never, 141010},
	} {
		r := probe.Race{Attempts: c.as}
		Race(&r, c.l)
		same := func(x, y float64) bool { return x == y || math.Abs(x-y) < 1e-6 }
		if want, _ := netip.ParseAddr(c.winner); r.Winner != want || !same(r.Milliseconds, c.happy) || !same(r.Best, c.best) || !same(r.Plain, c.plain) {
			t.Errorf("%s: %s after %v, best %v, plain %v", name, r.Winner, r.Milliseconds, r.Best, r.Plain)
		}
	}
}
