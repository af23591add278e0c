package plan

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/sixfence/sixfence/internal/model/intent"
)

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
