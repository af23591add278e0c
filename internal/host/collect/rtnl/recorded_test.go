package rtnl

import (
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// recorded returns the messages of testdata/links.txt, with their nlmsghdr.
func recorded(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "links.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		raw, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, raw...)
	}
	return out
}

func recordedLinks(t testing.TB) map[string]fact.Link {
	t.Helper()
	d := &Dump{links: answer{what: "links", datagrams: [][]byte{recorded(t)}}}
	ns := fact.Namespace{Name: "lab"}
	d.Decode(&ns)
	out := map[string]fact.Link{}
	for _, l := range must(t, "links", ns.Links) {
		out[l.Name] = l
	}
	return out
}

// TestRecordedLinks decodes links of kinds that the test kernel lacks.
func TestRecordedLinks(t *testing.T) {
	t.Parallel()
	a, p := netip.MustParseAddr, netip.MustParsePrefix
	to6to4, noRelay := p("2002::/16"), p("0.0.0.0/0")
	want := map[string]*fact.Tunnel{
		"sit1":     {Local: a("192.0.2.1"), Remote: a("0.0.0.0"), TTL: 64, Proto: 41, SixRD: to6to4, SixRDRelay: noRelay, Complete: true},
		"is0":      {Local: a("192.0.2.1"), Remote: a("0.0.0.0"), TTL: 64, Proto: 41, ISATAP: true, SixRD: to6to4, SixRDRelay: noRelay, Complete: true},
		"rd6":      {Local: a("10.1.2.3"), Remote: a("0.0.0.0"), TTL: 64, Proto: 41, SixRD: p("2001:db8::/32"), SixRDRelay: p("10.0.0.0/8"), Complete: true},
		"he6":      {Local: a("192.0.2.1"), Remote: a("198.51.100.7"), TTL: 64, Proto: 41, SixRD: to6to4, SixRDRelay: noRelay, Complete: true},
		"sit0":     {Local: a("0.0.0.0"), Remote: a("0.0.0.0"), TTL: 64, Proto: 41, SixRD: to6to4, SixRDRelay: noRelay, Fallback: true, Complete: true},
		"tn6":      {Local: a("2001:db8::1"), Remote: a("2001:db8::2"), TTL: 64, Complete: true},
		"tn6x":     {Local: a("::"), Remote: a("::"), TTL: 64, Proto: 41, CollectMetadata: true, Complete: true},
		"fou0":     {Local: a("192.0.2.1"), Remote: a("198.51.100.7"), Proto: 4, Port: 5555, Complete: true},
		"gre1":     {Local: a("192.0.2.1"), Remote: a("198.51.100.7"), TTL: 255, Complete: true},
		"gretap0":  {Local: a("0.0.0.0"), Remote: a("0.0.0.0"), TTL: 255, Fallback: true, Complete: true},
		"g6":       {Local: a("2001:db8::1"), Remote: a("2001:db8::2"), TTL: 64, Complete: true},
		"vt6":      {Local: a("2001:db8::1"), Remote: a("2001:db8::2"), Complete: true},
		"eth0.100": nil,
		"wg0":      {},
		"gnv0":     {Remote: a("2001:db8::2"), Port: 6081, VNI: 77, Complete: true},
		"odd6":     {Local: a("192.0.2.1")},
	}
	got := recordedLinks(t)
	for name, w := range want {
		l, ok := got[name]
		if !ok {
			t.Errorf("%s is missing", name)
			continue
		}
		if name == "odd6" { // only that it says it was not understood
			if l.Tunnel == nil || l.Tunnel.Complete {
				t.Errorf("odd6: %+v", l.Tunnel)
			}
			continue
		}
		if !reflect.DeepEqual(l.Tunnel, w) {
			t.Errorf("%s: %+v, want %+v", name, l.Tunnel, w)
		}
		if l.MTU != 1480 || l.Flags != unix.IFF_UP|unix.IFF_NOARP {
			t.Errorf("%s: %+v", name, l)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d links, want %d", len(got), len(want))
	}
	if l := got["eth0.100"]; l.Kind != "vlan" || l.VLAN == nil || *l.VLAN != (fact.VLAN{ID: 100, Protocol: 0x8100}) || l.Parent != 2 {
		t.Errorf("eth0.100: %+v", l)
	}
	if l := got["wg0"]; l.Kind != "wireguard" || l.Inet6.State() != fact.StateAbsent {
		t.Errorf("wg0: %+v", l)
	}
}

// TestRecordedLinksAgainstIP gives the same bytes to ip(8): what it reads out of
// them must be what they were meant to say.
func TestRecordedLinksAgainstIP(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "recorded") // ip(8) looks up parents: here nobody else has interface 2
	file := filepath.Join(t.TempDir(), "links")
	if err := os.WriteFile(file, recorded(t), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := n.Command("ip", "-d", "monitor", "link", "file", file).CombinedOutput()
	if err != nil {
		t.Fatalf("ip monitor: %v\n%s", err, out)
	}
	text := regexp.MustCompile(`\s+`).ReplaceAllString(string(out), " ")
	for _, want := range []string{
		"10: sit1: .* sit ip6ip remote any local 192.0.2.1 ttl 64 .* 6rd-prefix 2002::/16",
		"11: is0: .* sit ip6ip remote any local 192.0.2.1 .* isatap",
		"12: rd6: .* sit ip6ip remote any local 10.1.2.3 .* 6rd-prefix 2001:db8::/32 6rd-relay_prefix 10.0.0.0/8",
		"13: he6: .* sit ip6ip remote 198.51.100.7 local 192.0.2.1",
		"14: sit0: .* sit ip6ip remote any local any",
		"15: tn6: .* ip6tnl any remote 2001:db8::2 local 2001:db8::1",
		"16: tn6x: .* ip6tnl external",
		"17: fou0: .* ipip ipip remote 198.51.100.7 local 192.0.2.1 .* encap fou encap-sport 1111 encap-dport 5555",
		"18: gre1: .* gre remote 198.51.100.7 local 192.0.2.1",
		"19: gretap0: .* gretap remote any local any",
		"20: g6: .* ip6gre remote 2001:db8::2 local 2001:db8::1",
		"21: vt6: .* vti6 remote 2001:db8::2 local 2001:db8::1",
		`22: eth0\.100@if2: .* vlan protocol 802.1Q id 100`,
		"23: wg0: .* wireguard",
		"24: gnv0: .* geneve id 77 remote 2001:db8::2 .* dstport 6081",
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("ip(8) does not read %q\n%s", want, out)
		}
	}
}
