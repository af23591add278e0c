package target

import (
	"net/netip"
	"testing"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// TestNothingElseIsATarget reads what no kernel says, and a damaged or hostile Snapshot may:
// what is not the address of one host is not handed to a scanner.
func TestNothingElseIsATarget(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"0.0.0.0/0": "no-address", "224.0.0.1/4": "no-address", "255.255.255.255/32": "no-address", "::/0": "no-address", "ff02::1/128": "no-address",
		"::ffff:192.0.2.33/128": "mapped", "127.0.0.2/8": "loopback", "::1/128": "loopback", "fe80::1/64": "link-local", "169.254.1.1/16": "link-local",
		"2001:db8::1/64": "", "64:ff9b::1/96": "", "fd00::1/64": "", "192.0.2.1/24": "", "10.0.0.1/8": "",
	}
	as := []fact.Address{{}} // without a prefix
	for p := range want {
		as = append(as, fact.Address{Prefix: netip.MustParsePrefix(p), Valid: fact.Forever})
	}
	ns := fact.Namespace{Name: "self", IsSelf: true, Addresses: fact.Value(as)}
	ts, gaps, found := Of(&fact.Snapshot{Namespaces: []fact.Namespace{ns}}, Options{})
	if len(ts) != len(as) || len(gaps) > 0 || !found {
		t.Fatalf("%+v, %v, %v", ts, gaps, found)
	}
	for _, x := range ts {
		if !x.Address.IsValid() {
			if x.Excluded != "no-address" {
				t.Errorf("nothing at all: %+v", x)
			}
			continue
		}
		for p, w := range want {
			if netip.MustParsePrefix(p).Addr() == x.Address && x.Excluded != w {
				t.Errorf("%s: left out for %q, want %q", p, x.Excluded, w)
			}
		}
	}
}
