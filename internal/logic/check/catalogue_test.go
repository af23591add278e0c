package check

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// rows are the catalogue's rows of these families: every one is implemented or
// has a reason why it is not.
const rows = `
INV-01 INV-02 INV-03 INV-04 INV-05 INV-06 INV-07 INV-08 INV-09 INV-10 INV-11 INV-12
SYSCTL-RA-01 SYSCTL-RA-02 SYSCTL-RA-03 SYSCTL-RA-04 SYSCTL-RA-05 SYSCTL-RA-06 SYSCTL-RA-07 SYSCTL-RA-08
SYSCTL-RA-09 SYSCTL-RA-10 SYSCTL-RA-11 SYSCTL-RA-12 SYSCTL-RA-13 SYSCTL-RA-14 SYSCTL-RA-15 SYSCTL-RA-16
SYSCTL-FWD-01 SYSCTL-FWD-02 SYSCTL-FWD-03 SYSCTL-FWD-04 SYSCTL-FWD-05 SYSCTL-FWD-06
SYSCTL-RED-01 SYSCTL-SR-01 SYSCTL-SR-02 SYSCTL-SR-03
SYSCTL-ND-01 SYSCTL-ND-02 SYSCTL-ND-03 SYSCTL-ND-04 SYSCTL-ND-05 SYSCTL-ND-06 SYSCTL-ND-07
SYSCTL-ADDR-01 SYSCTL-ADDR-02 SYSCTL-ADDR-03 SYSCTL-ICMP-01 SYSCTL-ICMP-02 SYSCTL-EXT-01 SYSCTL-FRAG-01
SYSCTL-TCP-01 SYSCTL-LOG-01 SYSCTL-MISC-01 SYSCTL-MISC-02
NDP-01 NDP-02 NDP-03 NDP-04 NDP-05 NDP-06 NDP-07 NDP-08 NDP-09 NDP-10 NDP-11 NDP-12 NDP-13 NDP-14 NDP-15 NDP-16
RA-01 RA-02 RA-03 RA-04 RA-05 RA-06 RA-07 RA-08 RA-09 RA-10 RA-11 RA-12 RA-13 RA-14
LISTEN-01 LISTEN-02 LISTEN-03 LISTEN-04 LISTEN-05 LISTEN-06 LISTEN-07 LISTEN-08
LISTEN-09 LISTEN-10 LISTEN-11 LISTEN-12 LISTEN-13 LISTEN-14 LISTEN-15 LISTEN-16
TUN-01 TUN-02 TUN-03 TUN-04 TUN-05 TUN-06 TUN-07 TUN-08 TUN-09 TUN-10 TUN-11 TUN-12 TUN-13 TUN-14 TUN-15
FW-01 FW-02 FW-03 FW-04 FW-05 FW-06 FW-07 FW-08 FW-09 FW-10 FW-11 FW-12 FW-13 FW-14 FW-15 FW-16 FW-17 FW-18 FW-19 FW-20 FW-21 FW-22 FW-23 FW-24 FW-25 FW-26 FW-27 FW-28 FW-29 FW-30 FW-31 FW-32 FW-33 FW-34 FW-35 FW-36 FW-37 FW-38 FW-39 FW-40 FW-41 FW-42 FW-43`

func TestCatalogueComplete(t *testing.T) {
	where := map[string]string{}
	claim := func(id, by string) {
		if was, twice := where[id]; twice {
			t.Errorf("%s is %s and %s", id, was, by)
		}
		where[id] = by
	}
	for _, c := range Catalogue() {
		claim(c.ID, "implemented")
		for name, v := range map[string]string{
			"Title": c.Title, "Reason": c.Reason, "Source": c.Source, "Rule": c.Rule, "What": c.What,
			"Why": c.Why, "Attack": c.Attack, "Check": c.Check, "TradeOff": c.TradeOff,
		} {
			if strings.TrimSpace(v) == "" {
				t.Errorf("%s: %s is empty", c.ID, name)
			}
			if strings.HasPrefix(v, " ") || strings.HasSuffix(v, " ") || strings.Contains(v, "  ") || strings.Contains(v, "\n") {
				t.Errorf("%s: %s has stray space: %q", c.ID, name, v)
			}
		}
		if c.Severity.Rank() < 0 {
			t.Errorf("%s: severity %q", c.ID, c.Severity)
		}
		if c.Severity.AtLeast(finding.High) && len(c.Positions) == 0 {
			t.Errorf("%s is %s and says for no attacker position", c.ID, c.Severity)
		}
		if len(c.Fix) == 0 || len(c.Refs) == 0 || c.Eval == nil {
			t.Errorf("%s: Fix, Refs or Eval is missing", c.ID)
		}
		if len(c.Title) > 78 || strings.HasSuffix(c.Title, ".") {
			t.Errorf("%s: title %q is too long or a sentence", c.ID, c.Title)
		}
		if strings.Contains(strings.ToLower(c.Title), "reachable") {
			t.Errorf("%s: no title says reachable before packet filters are analysed: %q", c.ID, c.Title)
		}
	}
	for _, d := range Dispositions() {
		claim(d.ID, d.State)
		if !slices.Contains([]string{"needs wire", "dropped"}, d.State) || strings.TrimSpace(d.Because) == "" || d.Title == "" {
			t.Errorf("%s: disposition %q because %q", d.ID, d.State, d.Because)
		}
	}
	all := strings.Fields(rows)
	for _, id := range all {
		if where[id] == "" {
			t.Errorf("%s is neither implemented nor has a disposition", id)
		}
	}
	for id := range where {
		if !slices.Contains(all, id) {
			t.Errorf("%s is no row of the catalogue", id)
		}
	}
	for _, id := range []string{"LISTEN-03", "LISTEN-06", "RA-01", "FW-01", "FW-03"} {
		if where[id] != "implemented" {
			t.Errorf("%s is %q", id, where[id])
		}
	}
	if n := len(Catalogue()); n < 80 {
		t.Errorf("%d controls are implemented", n)
	}
}

// matches tells whether every non-empty field of want equals that of s.
func matches(s, want finding.Subject) bool {
	for _, p := range [][2]string{
		{s.NetNS, want.NetNS},
		{s.Interface, want.Interface},
		{s.Family, want.Family},
		{s.Proto, want.Proto},
		{s.Address, want.Address},
		{s.Process, want.Process},
		{s.File, want.File},
		{s.Key, want.Key},
	} {
		if p[1] != "" && p[0] != p[1] {
			return false
		}
	}
	return want.Port == 0 || s.Port == want.Port
}

// answers are one control's results, completed as a report completes them.
func answers(s *fact.Snapshot, role string, ctl Control) []Result {
	rs := ask(NewContext(s, role), ctl)
	for i := range rs {
		if rs[i].Compliance == "" {
			rs[i].Compliance = rs[i].Effective
		}
		if rs[i].Status == "" {
			rs[i].Status = rs[i].Effective
		}
		if rs[i].Severity == "" {
			rs[i].Severity = ctl.Severity
		}
	}
	return rs
}

func (st state) verify(ctl Control) error {
	rs := slices.DeleteFunc(answers(with(st.edit), st.role, ctl), func(r Result) bool { return !matches(r.Subject, st.subject) })
	var got []string
	n := map[finding.Status]int{}
	for _, r := range rs {
		n[r.Status]++
		got = append(got, fmt.Sprintf("\n\t%s (compliance %s) %s: %s: %s", r.Status, r.Compliance, r.Severity, r.Subject, r.Message))
	}
	ok := n[st.want] > 0
	switch st.want {
	case finding.Pass:
		ok = ok && n[finding.Fail] == 0 && n[finding.Unknown] == 0
	case finding.Unknown:
		ok = ok && n[finding.Fail] == 0
	case finding.NotApplicable:
		ok = ok && n[finding.NotApplicable] == len(rs)
	}
	if !ok {
		return fmt.Errorf("want %s, got %s", st.want, strings.Join(got, ""))
	}
	for _, r := range rs {
		if r.Status != st.want {
			continue
		}
		if st.compliance != "" && r.Compliance != st.compliance {
			return fmt.Errorf("want compliance %s, got %s", st.compliance, strings.Join(got, ""))
		}
		if st.severity != "" && r.Severity != st.severity {
			return fmt.Errorf("want severity %s, got %s", st.severity, strings.Join(got, ""))
		}
	}
	return nil
}

// TestEveryControl puts every control before hosts on which it must fail and
// hosts on which it must pass.
func TestEveryControl(t *testing.T) {
	states := allStates()
	for _, ctl := range Catalogue() {
		t.Run(ctl.ID, func(t *testing.T) {
			have := map[finding.Status]bool{}
			for _, st := range states[ctl.ID] {
				have[st.want] = true
				if err := st.verify(ctl); err != nil {
					t.Errorf("%s: %v", st.name, err)
				}
			}
			if !have[finding.Fail] || !have[finding.Pass] {
				t.Errorf("needs a failing and a passing state")
			}
			for _, st := range states[ctl.ID] {
				seen := map[finding.Subject]bool{}
				for _, r := range answers(with(st.edit), st.role, ctl) {
					checkResult(t, st.name, ctl, r)
					if seen[r.Subject] {
						t.Errorf("%s: two answers about %+v: one waiver would cover both", st.name, r.Subject)
					}
					seen[r.Subject] = true
				}
			}
		})
	}
	for id := range states {
		if _, ok := Find(id); !ok {
			t.Errorf("states for %s, which is no control", id)
		}
	}
}

// checkResult holds every single answer to the house rules.
func checkResult(t *testing.T, name string, ctl Control, r Result) {
	t.Helper()
	if !slices.Contains([]finding.Status{finding.Pass, finding.Fail, finding.Unknown, finding.NotApplicable}, r.Effective) {
		t.Errorf("%s: effective %q", name, r.Effective)
	}
	if strings.TrimSpace(r.Message) == "" {
		t.Errorf("%s: %s without a message: %s", name, r.Effective, r.Subject)
	}
	if r.Effective == finding.Unknown && len(r.Gaps) == 0 {
		t.Errorf("%s: unknown without a Gap: %s", name, r.Subject)
	}
	if r.Effective == finding.Fail && len(r.Evidence) == 0 {
		t.Errorf("%s: fail without evidence: %s", name, r.Subject)
	}
	if (r.Severity.AtLeast(finding.High) || ctl.Severity.AtLeast(finding.High)) && len(ctl.Positions) == 0 {
		t.Errorf("%s: %s for no attacker position", name, r.Severity)
	}
	if len(r.Title) > 100 {
		t.Errorf("%s: title of %d bytes: %q", name, len(r.Title), r.Title)
	}
}

// TestHardenedHost: the fixture is clean, so that every state's edit is what
// makes a control fail.
func TestHardenedHost(t *testing.T) {
	for _, f := range Evaluate(host(), Options{Role: RoleServer}).Findings {
		if f.Control == "FW-01" {
			continue // the fixture has no packet filter: TestStrictHost has one
		}
		if f.Status == finding.Fail && f.Severity.AtLeast(finding.Low) || f.Status == finding.Unknown {
			t.Errorf("%s %s %s: %s: %s", f.Control, f.Status, f.Severity, f.Subject, f.Message)
		}
	}
}

func TestNoIPv6IsNotApplicable(t *testing.T) {
	// These look at the disk, at IPv4, or at the state of the stack itself.
	other := []string{"INV-01", "INV-02", "INV-05", "INV-08", "INV-09", "INV-10", "INV-11", "SYSCTL-TCP-01", "SYSCTL-LOG-01"}
	for _, ctl := range Catalogue() {
		if slices.Contains(other, ctl.ID) || strings.HasPrefix(ctl.ID, "TUN-") || strings.HasPrefix(ctl.ID, "LISTEN-") || strings.HasPrefix(ctl.ID, "RA-") {
			for _, r := range answers(with(noIPv6), RoleServer, ctl) {
				if r.Effective == finding.Unknown || r.Effective == finding.Fail && r.Severity.AtLeast(finding.Medium) {
					t.Errorf("%s: %s: %s", ctl.ID, r.Effective, r.Message)
				}
			}
			continue
		}
		for _, r := range answers(with(noIPv6), RoleServer, ctl) {
			if r.Effective != finding.NotApplicable {
				t.Errorf("%s: %s without an IPv6 stack: %s", ctl.ID, r.Effective, r.Message)
			}
		}
	}
}

// isKnown tells whether a JSON value is a fact.Known.
func isKnown(v any) bool {
	m, ok := v.(map[string]any)
	if !ok || len(m) != 1 {
		return false
	}
	for _, k := range []string{"value", "state", "gap"} {
		if _, ok := m[k]; ok {
			return true
		}
	}
	return false
}

// cut walks a Snapshot as JSON and turns the facts that pick chooses into Gaps:
// half of them by leaving the key out.
func cut(v any, path string, pick func(path string) bool) {
	switch x := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(x)) {
			p := path + "/" + k
			switch {
			case isKnown(x[k]) && pick(p):
				if len(p)%2 == 0 {
					delete(x, k)
				} else {
					x[k] = map[string]any{"gap": map[string]any{"reason": "truncated", "what": p}}
				}
			case k == "complete" && pick(p):
				delete(x, k)
			case k == "values" && strings.HasSuffix(path, "/sysctls/value"):
				for _, key := range slices.Sorted(maps.Keys(x[k].(map[string]any))) {
					if !pick(p + "/" + key) {
						continue
					}
					delete(x[k].(map[string]any), key)
					g, _ := x["gaps"].(map[string]any)
					if g == nil {
						g = map[string]any{}
						x["gaps"] = g
					}
					g[key] = map[string]any{"reason": "permission", "what": key}
				}
			default:
				cut(x[k], p, pick)
			}
		}
	case []any:
		for i := range x {
			cut(x[i], fmt.Sprintf("%s/%d", path, i), pick)
		}
	}
}

// TestUnknownIsNeverPass: nothing passes because something is missing.
func TestUnknownIsNeverPass(t *testing.T) {
	t.Run("nothing known", func(t *testing.T) {
		m := asJSON(t, host())
		cut(m, "", func(string) bool { return true })
		s := fromJSON(t, m)
		for _, role := range append(Roles(), "") {
			for _, ctl := range Catalogue() {
				for _, r := range answers(s, role, ctl) {
					if r.Effective != finding.Unknown && ctl.ID != "INV-02" {
						t.Errorf("%s is %s with every fact a Gap: %s", ctl.ID, r.Effective, r.Message)
					}
				}
			}
		}
	})
	t.Run("empty snapshot", func(t *testing.T) {
		for _, ctl := range Catalogue() {
			for _, r := range answers(&fact.Snapshot{}, "", ctl) {
				if r.Effective != finding.Unknown && ctl.ID != "INV-02" {
					t.Errorf("%s is %s on an empty Snapshot: %s", ctl.ID, r.Effective, r.Message)
				}
			}
		}
	})
	// Whatever is cut from a Snapshot in which a control fails, it does not pass.
	type failing struct {
		id string
		st state
	}
	var all []failing
	states := allStates()
	for _, id := range slices.Sorted(maps.Keys(states)) {
		for _, st := range states[id] {
			if st.want == finding.Fail || st.want == finding.Unknown {
				all = append(all, failing{id, st})
			}
		}
	}
	if len(all) == 0 {
		t.Skip("no states yet")
	}
	trees := map[string][]byte{}
	check := func(t interface {
		Errorf(string, ...any)
	}, f failing, pick func(string) bool,
	) {
		ctl, ok := Find(f.id)
		if !ok {
			return
		}
		full := with(f.st.edit)
		role := NewContext(full, f.st.role).Role.Name // a cut may change what is inferred
		was := map[string]finding.Status{}
		for _, r := range answers(full, role, ctl) {
			was[finding.FingerprintOf(f.id, r.Subject)] = r.Effective
		}
		key := f.id + "|" + f.st.name
		if trees[key] == nil {
			b, err := json.Marshal(full)
			if err != nil {
				t.Errorf("%v", err)
				return
			}
			trees[key] = b
		}
		var m map[string]any
		if err := json.Unmarshal(trees[key], &m); err != nil {
			t.Errorf("%v", err)
			return
		}
		cut(m, "", pick)
		b, _ := json.Marshal(m)
		var s fact.Snapshot
		if err := json.Unmarshal(b, &s); err != nil {
			t.Errorf("%v", err)
			return
		}
		for _, r := range answers(&s, role, ctl) {
			if w := was[finding.FingerprintOf(f.id, r.Subject)]; (r.Effective == finding.Pass || r.Effective == finding.NotApplicable) && (w == finding.Fail || w == finding.Unknown) {
				t.Errorf("%s: %q: %s is %s, and %s with facts missing: %s", f.id, f.st.name, r.Subject, w, r.Effective, r.Message)
			}
		}
	}
	t.Run("field by field", func(t *testing.T) {
		for _, group := range []string{
			"/host/files", "/host/modules", "/host/boot", "/host/managers", "/host/processes", "/host/runtimes", "/host/apps", "/host/bpf",
			"/host/orphanSockets", "/host/userNamespaces", "/links", "/addresses", "/sysctls", "/routes", "/rules", "/neighbours",
			"/proxyNeighbours", "/neighbourTable", "/multicast", "/sockets", "/packetFilter", "/ipv6", "/complete", "/values/",
		} {
			for i, f := range all {
				if i > 0 && all[i-1].id == f.id {
					continue // one state of each control; the rest at random
				}
				check(t, f, func(p string) bool { return strings.Contains(p, group) })
			}
		}
	})
	t.Run("at random", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			f := all[rapid.IntRange(0, len(all)-1).Draw(t, "state")]
			seed := rapid.Uint64().Draw(t, "seed")
			share := rapid.Uint64Range(1, 60).Draw(t, "percent")
			check(t, f, func(p string) bool {
				h := seed
				for _, b := range []byte(p) {
					h = (h ^ uint64(b)) * 0x100000001b3
				}
				return h>>17%100 < share
			})
		})
	})
}

// TestForeign: what any user can make never weighs more than low.
func TestForeign(t *testing.T) {
	s := host()
	n := addNamespace(s, "net:[4026532001]")
	n.Foreign = true
	for _, f := range []string{"eth0", "default", "all"} {
		setSysctlIn(n, "net/ipv6/conf/"+f+"/accept_ra", "1")
		setSysctlIn(n, "net/ipv6/conf/"+f+"/forwarding", "1")
		setSysctlIn(n, "net/ipv6/conf/"+f+"/accept_redirects", "1")
	}
	fails := 0
	for _, f := range Evaluate(s, Options{Role: RoleServer}).Findings {
		if f.Subject.NetNS != n.Name {
			continue
		}
		if !f.Foreign {
			t.Errorf("%s: a subject in a stranger's namespace is not marked", f.Control)
		}
		if f.Status == finding.Fail || f.Status == finding.Unknown {
			fails++
			if f.Severity.AtLeast(finding.Medium) {
				t.Errorf("%s: %s for a stranger's namespace", f.Control, f.Severity)
			}
		}
	}
	if fails == 0 {
		t.Error("nothing failed: nothing was compared")
	}
}

// TestRootTree: on a directory tree the controls that need a kernel share one
// Gap, and the others answer.
func TestRootTree(t *testing.T) {
	s := host()
	tree(s)
	r := Evaluate(s, Options{})
	shared := map[string]bool{}
	for _, g := range r.Gaps {
		if g.Shared {
			shared[g.ID] = true
		}
	}
	if len(shared) != 1 {
		t.Errorf("%d shared gaps, want one", len(shared))
	}
	disk := 0
	for _, f := range r.Findings {
		ctl, _ := Find(f.Control)
		switch {
		case ctl.Live && (f.Status != finding.Unknown || len(f.Gaps) != 1 || !shared[f.Gaps[0]]):
			t.Errorf("%s needs a kernel and is %s", f.Control, f.Status)
		case !ctl.Live && f.Status == finding.Pass:
			disk++
		}
	}
	if disk < 3 {
		t.Errorf("%d controls pass from files alone", disk)
	}
}

func TestEvaluateDeterministic(t *testing.T) {
	s := host()
	slaac(s)
	n := addNamespace(s, "lab")
	n.Foreign = true
	a, err := json.Marshal(Evaluate(s, Options{}))
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		b, err := json.Marshal(Evaluate(fromJSON(t, asJSON(t, s)), Options{}))
		if err != nil {
			t.Fatal(err)
		}
		if string(a) != string(b) {
			t.Fatal("the same Snapshot gave two reports")
		}
	}
}
