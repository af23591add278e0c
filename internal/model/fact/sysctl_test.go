package fact_test

import (
	"testing"

	"github.com/sixfence/sixfence/internal/model/fact"
)

func TestSysctlsGet(t *testing.T) {
	s := fact.Sysctls{
		Values:      map[string]string{"net/ipv6/conf/eth0/accept_ra": "1"},
		Gaps:        map[string]fact.Gap{"net/ipv6/conf/late0": {Reason: fact.NotCollected, What: "late0"}, "net/ipv6/secret": {Reason: fact.Permission}},
		Complete:    []string{"net/ipv6", "net/ipv6/conf", "net/ipv6/conf/eth0"},
		Unsupported: []string{"net/core/absent", "net/bridge"},
	}
	for path, want := range map[string]fact.State{
		"net/ipv6/conf/eth0/accept_ra":          fact.StateValue,
		"net/ipv6/conf/eth0/force_forwarding":   fact.StateUnsupported,
		"net/ipv6/conf/late0/accept_ra":         fact.StateGap, // below a gap, although net/ipv6 is complete
		"net/ipv6/secret":                       fact.StateGap,
		"net/ipv6/not_there":                    fact.StateUnsupported,
		"net/core/absent":                       fact.StateUnsupported,
		"net/core/never_asked":                  fact.StateGap,
		"net/bridge/bridge-nf-call-ip6tables":   fact.StateUnsupported,
		"net/bridge-2/bridge-nf-call-ip6tables": fact.StateGap,
		"net":                                   fact.StateGap,
		"":                                      fact.StateGap,
	} {
		if got := s.Get(path).State(); got != want {
			t.Errorf("%q: %v, want %v", path, got, want)
		}
	}
}

func TestInterfaceNameKeepsNamesApart(t *testing.T) {
	names := []string{"eth0", "eth0.100", "a\xff", "a\xfe", `a\xff`, `a\\xff`, "a\\", "ü", "\xfc", "\u202e0"}
	seen := map[string]string{}
	for _, n := range names {
		got := fact.InterfaceName([]byte(n))
		if other, dup := seen[got]; dup {
			t.Errorf("%q and %q both become %q", n, other, got)
		}
		seen[got] = n
	}
	for _, n := range []string{"eth0", "eth0.100", "ü"} {
		if got := fact.InterfaceName([]byte(n)); got != n {
			t.Errorf("%q became %q", n, got)
		}
	}
}
