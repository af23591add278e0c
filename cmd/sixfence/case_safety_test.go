package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/testlab"
)

// state is everything of a namespace and of the kernel that an audit might change.
func state(t testing.TB, ns *testlab.NS) string {
	t.Helper()
	var b strings.Builder
	for _, args := range [][]string{{"-d", "link"}, {"addr"}, {"-6", "route", "show", "table", "all"}, {"-4", "route", "show", "table", "all"}, {"-6", "rule"}, {"-6", "neigh", "show", "nud", "all"}} {
		for _, l := range strings.Split(ns.IP(args...), "\n") {
			if !strings.Contains(l, "valid_lft") { // lifetimes tick
				b.WriteString(l + "\n")
			}
		}
	}
	b.WriteString(ns.Run(testlab.RequireTool(t, "nft"), "list", "ruleset"))
	ns.Do(func() {
		for _, f := range []string{"ip_tables_names", "ip6_tables_names", "arp_tables_names", "protocols"} {
			x, err := os.ReadFile("/proc/thread-self/net/" + f)
			if f == "protocols" { // name and module only: the counters move
				x = []byte(fmt.Sprint(len(bytes.Split(x, []byte("\n")))))
			}
			fmt.Fprintf(&b, "%s: %s %v\n", f, x, err != nil)
		}
		_ = filepath.WalkDir("/proc/sys/net", func(p string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if x, err := os.ReadFile(p); err == nil && !strings.Contains(p, "netfilter/nf_conntrack_count") && !strings.Contains(p, "sockstat") {
					fmt.Fprintf(&b, "%s=%s", p, x)
				}
			}
			return nil
		})
	})
	for _, f := range []string{"/proc/modules", "/proc/sys/kernel/tainted"} {
		x, err := os.ReadFile(f)
		fmt.Fprintf(&b, "%s: %s %v\n", f, x, err != nil)
	}
	return b.String()
}

// A read-only audit changes nothing: no table appears, no module, no setting.
func TestAuditChangesNothing(t *testing.T) {
	t.Parallel()
	p, s := listenLab(t)
	s.tcp("tcp6", "[::]:8080", 0)
	before := state(t, p.Victim)
	both(t, p.Victim)
	if after := state(t, p.Victim); after != before {
		t.Errorf("the audit changed the namespace:\n%s", firstDifference(before, after))
	}
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range x {
		if i >= len(y) || x[i] != y[i] {
			return fmt.Sprintf("before: %s\nafter:  %s", x[i], strings.Join(y[min(i, len(y)-1):min(i+1, len(y))], ""))
		}
	}
	return fmt.Sprintf("%d lines more", len(y)-len(x))
}

// From outside and from inside a namespace the kernel is the same, so the effective
// verdicts are.
func TestVantagePointsAgree(t *testing.T) {
	t.Parallel()
	p, s := listenLab(t)
	s.tcp("tcp4", "127.0.0.1:5432", -1)
	s.tcp("tcp6", "[::]:5432", 1)
	s.udp("udp6", "[::]:5353", 0)
	takesRA(p)
	p.Victim.Sysctl("net/ipv6/conf/v0/accept_redirects", "0")
	p.Victim.Sysctl("net/ipv6/conf/all/forwarding", "1")
	verdicts := func(v view) map[string]finding.Status {
		out := map[string]finding.Status{}
		for _, f := range v.Findings {
			if f.Subject.NetNS == v.netns {
				f.Subject.NetNS = ""
				f.Subject.Process = "" // paths are seen through mount namespaces
				out[f.Control+" "+fmt.Sprintf("%+v", f.Subject)] = f.Effective
			}
		}
		return out
	}
	out, in := verdicts(outside(t, p.Victim)), verdicts(inside(t, p.Victim))
	if len(out) < 20 {
		t.Fatalf("only %d verdicts about the namespace: nothing to compare", len(out))
	}
	for k, o := range out {
		i, ok := in[k]
		// LISTEN-08 is about namespaces other than one's own, by definition; LISTEN-04
		// compares with files, which ip netns exec shows through another mount namespace.
		if strings.HasPrefix(k, "LISTEN-08") || strings.HasPrefix(k, "LISTEN-04") {
			continue
		}
		if ok && i != o {
			t.Errorf("%s: %s from outside, %s from inside", k, o, i)
		}
		if !ok && o == finding.Fail {
			t.Errorf("%s: fails from outside, not mentioned from inside", k)
		}
	}
}

// An ordinary user gets an answer, and every blind spot as a gap, never as a pass.
func TestOrdinaryUser(t *testing.T) {
	t.Parallel()
	p, s := listenLab(t)
	s.tcp("tcp4", "127.0.0.1:5432", -1)
	s.tcp("tcp6", "[::]:5432", 1)
	p.Victim.Run(testlab.RequireTool(t, "nft"), "add table inet lab; add chain inet lab in { type filter hook input priority 0; policy drop; }")

	// Somewhere an ordinary user may execute it.
	dir, err := os.MkdirTemp("", "sixfence-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	exe := filepath.Join(dir, "sixfence")
	b, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	c := p.Victim.Command(testlab.RequireTool(t, "setpriv"), append([]string{"--reuid", fmt.Sprint(nobody), "--regid", fmt.Sprint(nobody), "--clear-groups", "--inh-caps=-all", exe}, auditArgs(nil)...)...)
	v := view{run(t, c), "an ordinary user", "self"}
	permission := 0
	for _, g := range v.Gaps {
		if g.Reason == fact.Permission {
			permission++
		}
	}
	if permission == 0 {
		t.Error("no permission gap: an ordinary user cannot have seen everything")
	}
	for _, f := range v.Findings {
		if f.Effective == finding.Unknown && len(f.Gaps) == 0 {
			t.Errorf("%s about %v is unknown without a gap", f.Control, f.Subject)
		}
	}
	// A user cannot read the packet filter, so what it could change is unknown.
	v.effective(t, "SYSCTL-RA-01", on("v0"), finding.Unknown)
	v.effective(t, "LISTEN-02", finding.Subject{Proto: "tcp", Port: 5432}, finding.Unknown)
}

// Any user can make namespaces. They cannot push the host's findings aside, and the
// audit still ends.
func TestNamespacesOfStrangers(t *testing.T) {
	if testing.Short() {
		t.Skip("makes many namespaces")
	}
	t.Parallel()
	const many = 120
	p := testlab.NewPair(t, "host")
	before := outside(t, p.Victim)
	unshare := testlab.RequireTool(t, "unshare")
	for range many {
		c := exec.Command(unshare, "--user", "--map-root-user", "--net", "sleep", "120")
		if err := c.Start(); err != nil {
			testlab.CannotRun(t, "user namespaces: %v", err)
		}
		t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	}
	var after view
	testlab.Eventually(t, 20*time.Second, "a gap that says that most of them were not entered", func() bool {
		after = outside(t, p.Victim)
		return hasGap(after, "made by users")
	})
	own := func(v view) string {
		var out []string
		for _, f := range v.Findings {
			if f.Subject.NetNS == v.netns {
				out = append(out, f.Control+" "+f.Subject.String()+" "+string(f.Effective))
			}
		}
		sort.Strings(out)
		return strings.Join(out, "\n")
	}
	if a, b := own(before), own(after); a != b {
		t.Errorf("strangers changed the verdicts about our own namespace:\n%s", firstDifference(a, b))
	}
	for i, f := range after.Findings {
		if f.Foreign {
			for _, later := range after.Findings[i:] {
				if !later.Foreign && later.Status == finding.Fail {
					t.Fatalf("a stranger's finding (%s) stands before the host's own %s", f.Control, later.Control)
				}
			}
			break
		}
	}
}

func hasGap(v view, what string) bool {
	for _, g := range v.Gaps {
		if strings.Contains(g.What, what) {
			return true
		}
	}
	return false
}

// A program that only root may execute reads nft scripts all the same, as nobody.
func TestPrivateProgramReadsScripts(t *testing.T) {
	t.Parallel()
	testlab.RequireRoot(t)
	testlab.RequireTool(t, "nft")
	dir := filepath.Join(t.TempDir(), "private")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	own, script := filepath.Join(dir, "sixfence"), filepath.Join(dir, "rules.nft")
	if out, err := exec.Command("cp", binary, own).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v %s", err, out)
	}
	if err := os.WriteFile(script, []byte("table ip6 t { chain in { type filter hook input priority 0; tcp dport 22 reject; }; }"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o700, 0o755} {
		if err := os.Chmod(own, mode); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(own, "trace", "--ruleset", script, "--family", "ipv6", "--iif", "eth0", "--proto", "tcp", "--dport", "22", "--quiet").CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "reject" {
			t.Errorf("mode %o: %v %s", mode, err, out)
		}
	}
}
