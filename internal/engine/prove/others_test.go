package prove_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/engine/prove"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
	"github.com/sixfence/sixfence/internal/testlab/hostview"
)

func load(t *testing.T, ns *testlab.NS, script string) {
	t.Helper()
	c := ns.Command(testlab.RequireTool(t, "nft"), "-f", "-")
	c.Stdin = strings.NewReader(script)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
}

// TestTablesOfOthers: what other tables of the host do is fired at as well.
func TestTablesOfOthers(t *testing.T) {
	const rich = `table ip other {
	counter c { }
	set blocked { type ipv4_addr; flags interval; elements = { 198.18.0.0/15, 203.0.113.200 }; }
	set seen { type ipv4_addr; flags dynamic,timeout; timeout 1m; size 100; }
	map ports { type inet_service : verdict; elements = { 9999 : drop, 9998 : jump sub }; }
	chain sub { counter name c; }
	chain pre { type nat hook prerouting priority dstnat; tcp dport 8888 dnat to 192.0.2.7:80; }
	chain in { type filter hook input priority 10; policy accept; iifname { "v0", "v1" } tcp dport { 1, 2 } drop; ip saddr @blocked drop; tcp dport vmap @ports; update @seen { ip saddr }; }
}
table netdev dev { chain i { type filter hook ingress device "v0" priority 0; policy accept; meta protocol 0x1234 drop; }; }
table inet asleep { flags dormant; chain in { type filter hook input priority 0; policy drop; }; }
`
	for _, c := range []struct {
		name, script string
		status       change.ProofStatus
		check        func(p *change.Proof) bool
	}{
		{"harmless", rich, change.Proven, func(p *change.Proof) bool {
			return slices.Equal(p.Together, []string{"table ip other", "table netdev dev", "table inet asleep"}) && len(p.Held) == 0
		}},
		{"all is dropped", "table inet other { chain in { type filter hook input priority 10; policy drop; }; }", change.Failed, func(p *change.Proof) bool {
			return slices.ContainsFunc(p.Failures, func(m change.Misfire) bool {
				return m.Group == "services" && m.Observed == "is stopped by another table" && m.Packet != ""
			})
		}},
		{"one service is dropped, of IPv4", "table ip other { chain in { type filter hook input priority 10; policy accept; tcp dport 443 drop; }; }", change.Failed, func(p *change.Proof) bool {
			return !slices.ContainsFunc(p.Failures, func(m change.Misfire) bool {
				return !strings.Contains(m.Shot, "tcp/443") || !strings.Contains(m.Shot, "IPv4")
			})
		}},
		{"what is no service is dropped", "table ip6 other { chain in { type filter hook input priority 10; policy accept; icmpv6 type mld2-listener-report drop; }; }", change.Proven, func(p *change.Proof) bool {
			return len(p.Held) == 4 && strings.HasPrefix(p.Held[0].Shot, "MLD")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := host(t, "oth")
			load(t, v, c.script)
			s := hostview.Snapshot(t, v)
			p := plan.New(profiles()["static-server"], s, plan.Options{Namespace: s.Namespaces[0].Name, Decode: hostview.Decode})
			p.Refusals = nil // the model has its own opinion of them
			got := proof(t, &p, s)
			if got.Status != c.status || len(got.NotTogether) != 0 || len(got.Together) == 0 || !c.check(got) {
				t.Errorf("want %s", c.status)
				report(t, got)
			}
			if c.name != "harmless" {
				return
			}
			// Of a host that is elsewhere nothing is loaded, and that is said.
			pr := prove.Start(nil)
			defer pr.Close()
			pr.Elsewhere = true
			if got := pr.Prove(t.Context(), &p, s, &s.Namespaces[0]); len(got.NotTogether) == 0 || len(got.Together) != 0 {
				t.Errorf("elsewhere: together %q, not %q", got.Together, got.NotTogether)
			}
		})
	}
}

// TestSessions: connections by which people administer the host are fired at too.
func TestSessions(t *testing.T) {
	t.Parallel()
	v := host(t, "ses")
	s := hostview.Snapshot(t, v)
	way := func(fam, local, remote string) change.Way {
		return change.Way{Family: fam, Local: addrPort(local), Remote: addrPort(remote)}
	}
	p := planFor(t, profiles()["static-server"], s, way("ipv6", "[2001:db8:1::10]:22", "[2001:db8:aa::9]:50000"), way("ipv4", "192.0.2.10:22", "203.0.113.50:50001"))
	sessions := func(got *change.Proof) change.Group {
		i := slices.IndexFunc(got.Groups, func(g change.Group) bool { return g.Name == "sessions" })
		if i < 0 {
			return change.Group{}
		}
		return got.Groups[i]
	}
	got := proof(t, p, s)
	if g := sessions(got); got.Status != change.Proven || g.Shots != 4 || g.Through != 4 {
		t.Errorf("sessions: %+v", g)
		report(t, got)
	}
	// The open one stays by its entry among the open flows, a new one does not.
	rules("ip6 saddr { 2001:db8:1::/64, 2001:db8:aa::/48 } tcp dport 22", "ip6 saddr 2001:db8:1::/64 tcp dport 22")(t, p)
	got = proof(t, p, s)
	if g := sessions(got); got.Status != change.Failed || g.Through != 3 || !slices.ContainsFunc(got.Failures, func(m change.Misfire) bool { return strings.HasPrefix(m.Shot, "a new connection from 2001:db8:aa::9") }) {
		t.Errorf("sessions: %+v", g)
		report(t, got)
	}
}

// TestUnknown: what could not be tried is never proven.
func TestUnknown(t *testing.T) {
	t.Parallel()
	v := host(t, "unk")
	s := hostview.Snapshot(t, v)
	try := func(name string, missing []string, change1 func(p *change.Plan, s *fact.Snapshot)) {
		t.Helper()
		p := planFor(t, profiles()["static-server"], s)
		x := *s
		x.Namespaces = slices.Clone(s.Namespaces)
		change1(p, &x)
		pr := prove.Start(missing)
		defer pr.Close()
		got := pr.Prove(t.Context(), p, &x, &x.Namespaces[0])
		if got.Status != change.Unproven || got.Reason == "" || !strings.Contains(got.WayOut, "--unproven") {
			t.Errorf("%s: %s %q %q", name, got.Status, got.Reason, got.WayOut)
		}
	}
	try("modules that are not loaded", []string{"veth"}, func(*change.Plan, *fact.Snapshot) {})
	try("no intent", nil, func(p *change.Plan, _ *fact.Snapshot) { p.Intent = nil })
	try("interfaces are not known", nil, func(_ *change.Plan, s *fact.Snapshot) { s.Namespaces[0].Links = fact.Known[[]fact.Link]{} })
	try("other tables are not known", nil, func(_ *change.Plan, s *fact.Snapshot) {
		s.Namespaces[0].PacketFilter.NFTables = fact.Missing[fact.NFTables](fact.Gap{Reason: fact.Permission, What: "nf_tables"})
	})
	try("no interface", nil, func(_ *change.Plan, s *fact.Snapshot) { s.Namespaces[0].Links = fact.Value([]fact.Link{}) })
	try("rules that this kernel does not take", nil, func(p *change.Plan, _ *fact.Snapshot) {
		for i := range p.Steps {
			if p.Steps[i].Kind == change.Table {
				p.Steps[i].After.Text += "add rule inet sixfence nowhere drop\n"
			}
		}
	})
	// Time is up.
	p := planFor(t, profiles()["static-server"], s)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	pr := prove.Start(nil)
	defer pr.Close()
	if got := pr.Prove(ctx, p, s, &s.Namespaces[0]); got.Status != change.Unproven {
		t.Errorf("without time: %s", got.Status)
	}
}

// TestMain is also the process that TestNothingIsLeft kills.
func TestMain(m *testing.M) {
	dir := os.Getenv("SIXFENCE_PROVE_CHILD")
	if dir == "" {
		os.Exit(m.Run())
	}
	var p change.Plan
	var s fact.Snapshot
	for name, to := range map[string]any{"plan": &p, "snapshot": &s} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = json.Unmarshal(b, to)
		}
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	pr := prove.Start(nil)
	pr.Progress = func(what string) {
		fmt.Println(what)
		time.Sleep(20 * time.Millisecond) // for the killer to read it
	}
	fmt.Println("started")
	got := pr.Prove(context.Background(), &p, &s, &s.Namespaces[0])
	fmt.Println("end", got.Status, got.Reason)
	pr.Close()
	os.Exit(0)
}

// TestNothingIsLeft: however a proof ends, nothing of it is left: no process, no namespace,
// no interface, no rule, no changed setting.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	v := host(t, "left")
	load(t, v, "table inet other { chain in { type filter hook input priority 10; policy accept; }; }")
	s := hostview.Snapshot(t, v)
	p := planFor(t, profiles()["static-server"], s)
	dir := t.TempDir()
	for name, x := range map[string]any{"plan": p, "snapshot": s} {
		b, err := json.Marshal(x)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	state := func() string {
		names, err := os.ReadDir("/run/netns")
		if err != nil {
			t.Fatal(err)
		}
		var mine []string
		for _, n := range names {
			if !strings.HasPrefix(n.Name(), "sf-") { // other tests come and go
				mine = append(mine, n.Name())
			}
		}
		return strings.Join(mine, " ") + v.IP("-o", "link", "show") + v.IP("-6", "addr", "show") + v.IP("-6", "route", "show", "table", "all") + v.Run("nft", "-s", "list", "ruleset") + v.Run("sysctl", "-a", "-r", `net\.ipv6\.conf`)
	}
	testlab.Eventually(t, 30*time.Second, "the lab to settle", func() bool { return !strings.Contains(v.IP("-6", "addr", "show"), "tentative") })
	before := state()
	for at, steps := 0, 99; at < steps; at++ {
		c := v.Command(os.Args[0])
		c.Env = append(os.Environ(), "SIXFENCE_PROVE_CHILD="+dir)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var helpers []int
		lines, last := bufio.NewScanner(out), ""
		n := 0
		for lines.Scan() {
			last = lines.Text()
			if n == 0 {
				helpers = children(t, c.Process.Pid)
			}
			if n == at && !strings.HasPrefix(last, "end") {
				_ = c.Process.Signal([]os.Signal{unix.SIGKILL, unix.SIGINT, unix.SIGTERM, unix.SIGHUP}[at%4])
			}
			n++
		}
		_ = c.Wait()
		if len(helpers) != 2 {
			t.Fatalf("the proof has %d helpers, not 2 (%s)", len(helpers), last)
		}
		testlab.Eventually(t, 30*time.Second, "the helpers to end with their caller", func() bool {
			return !slices.ContainsFunc(helpers, func(pid int) bool { return unix.Kill(pid, 0) == nil })
		})
		if strings.HasPrefix(last, "end") {
			steps = at // that was the whole of it
			if last != "end proven " {
				t.Errorf("in the end: %s", last)
			}
		}
		if after := state(); after != before {
			t.Fatalf("killed after step %d (%s), it left something:\n%s\nbefore:\n%s", at, last, after, before)
		}
		if steps == at && at < 6 {
			t.Errorf("it was killed at %d steps only", at)
		}
	}
}

// children are the processes that a process has started.
func children(t *testing.T, pid int) (out []int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("process %d is gone", pid)
	}
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		w := strings.Fields(rest)
		if len(w) > 1 && w[1] == strconv.Itoa(pid) {
			n, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			out = append(out, n)
		}
	}
	return out
}
