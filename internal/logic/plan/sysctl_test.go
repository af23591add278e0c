package plan

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// TestWhoListensNow: a manager that is installed and does not run takes no RAs. The
// kernel, which does, goes on: or the host loses its route when the lifetime ends.
func TestWhoListensNow(t *testing.T) {
	t.Parallel()
	unknown := fact.Missing[bool](fact.Gap{Reason: fact.NotCollected, What: "whether dhcpcd runs"})
	for _, c := range []struct {
		running fact.Known[bool]
		live    string
		want    string
	}{
		{fact.Value(true), "0", "0"},
		{fact.Value(true), "1", "0"},
		{fact.Value(false), "1", "1"},
		{fact.Value(false), "0", "0"},
		{unknown, "1", "1"},
		{unknown, "0", "0"},
	} {
		in := &intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"eth0": {Addressing: intent.SLAAC}}}
		s := hostOf(in, "eth0", fact.Manager{Name: "dhcpcd", Running: c.running, Interfaces: []fact.ManagedInterface{{Names: []string{"*"}, InUserspace: true, AcceptRA: fact.Value(true)}}})
		s.ns.Sysctls = fact.Value(fact.Sysctls{Values: map[string]string{conf6 + "eth0/accept_ra": c.live}})
		if got := valueFor(s.settings(), conf6+"eth0/accept_ra"); got != c.want {
			t.Errorf("running %v, accept_ra=%s: %q, want %q", c.running, c.live, got, c.want)
		}
	}
}

// TestSysctlsComeBack: what is written is what systemd-sysctl reads, or it is refused.
func TestSysctlsComeBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := intent.Intent{Role: intent.RoleServer, Sysctls: rapid.MapOfN(rapid.OneOf(rapid.String(), rapid.StringMatching(`net[./]ipv6[./]conf[./][a-z0-9.*-]{1,9}[./][a-z_ =#\n-]{1,12}`)), rapid.OneOf(rapid.String(), rapid.StringMatching(`[0-9 -]{1,4}`)), 0, 3).Draw(t, "sysctls")}
		s := newSite(&in, nil, nil)
		list := s.settings()
		got := parseSysctls(sysctlText(list))
		if len(got) != len(list) {
			t.Fatalf("%d settings became %d", len(list), len(got))
		}
		for i := range list {
			if got[i].key != list[i].key || got[i].value != list[i].value {
				t.Fatalf("%q = %q became %q = %q", list[i].key, list[i].value, got[i].key, got[i].value)
			}
		}
		if len(s.faults)+len(list) < len(in.Sysctls) {
			t.Fatal("a setting is neither written nor refused")
		}
	})
}
