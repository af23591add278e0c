package apply

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/rtnl"
	"github.com/sixfence/sixfence/internal/host/mutate"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// lab is a host: a network namespace, and a tree of files.
type lab struct {
	t    testing.TB
	ns   *testlab.NS
	dir  string
	host *mutate.Host
	boot string
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, ns: testlab.NewNS(t, "apply"), dir: t.TempDir(), boot: "first-boot"}
	for _, k := range []string{"all", "default"} {
		l.ns.Sysctl("net/ipv6/conf/"+k+"/accept_dad", "0")
	}
	l.ns.Sysctl("net/ipv6/conf/default/router_solicitations", "0")
	l.ns.Sysctl("net/ipv6/conf/default/mldv2_unsolicited_report_interval", "10")
	script := "link add eth0 address 02:00:00:00:01:00 type veth peer name p0 address 02:00:00:00:01:01\nlink add eth1 address 02:00:00:00:02:00 type veth peer name p1 address 02:00:00:00:02:01\n"
	for _, i := range []string{"eth0", "p0", "eth1", "p1"} {
		script += "link set " + i + " up\n"
	}
	script += `address add 2001:db8:1::10/64 dev eth0
address add 2001:db8:1::11/64 dev eth0 nodad noprefixroute
address add 2001:db8:1::12/64 dev eth0 valid_lft 9000 preferred_lft 9000
address add 2001:db8:2::10/64 dev eth1
neigh add fe80::99 lladdr 02:00:00:00:00:99 dev eth0 nud permanent
neigh add proxy 2001:db8:1::77 dev eth0
route add 2001:db8:77::/48 via fe80::99 dev eth0 proto static metric 77 src 2001:db8:1::11
route add default via fe80::99 dev eth0 proto ra metric 1024 expires 1700
route add default via fe80::98 dev eth1 proto static metric 2048
route add 2001:db8:78::/48 dev eth0 table 100 mtu 1400
rule add from 2001:db8:1::/64 table 100 priority 500
`
	c := exec.Command("ip", "-6", "-n", l.ns.Name, "-batch", "-")
	c.Stdin = strings.NewReader(script)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("ip: %v\n%s", err, out)
	}
	l.nft("table ip6 other { chain in { type filter hook input priority 0; ip6 saddr 2001:db8:bad::/48 drop; }; }")
	l.host = &mutate.Host{Root: l.dir + "/root", Layer: &store.Layer{}}
	for name, text := range map[string]string{
		"/etc/sysctl.d/99-admin.conf": "net.ipv6.conf.all.use_tempaddr = 0\n",
		"/etc/modprobe.d/old.conf":    "# to be removed\n",
		"/etc/sixfence/nftables.nft":  "# former\n",
	} {
		p := l.host.Root + name
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(l.host.Root+unitDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(l.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.end)
	// The kernel's own addresses come a moment after the link.
	testlab.Eventually(t, patience, "link-local addresses", func() bool {
		n := 0
		for _, line := range l.projection(&change.Plan{}) {
			if strings.HasPrefix(line, "route fe80::ff:fe00:") && strings.Contains(line, "table 255 type 2") {
				n++
			}
		}
		return n == 4
	})
	return l
}

// end waits for the process that waits: it must not outlive its namespace.
func (l *lab) end() {
	for range 200 {
		out, _ := exec.Command("ip", "netns", "pids", l.ns.Name).Output()
		pids := strings.Fields(string(out))
		if len(pids) == 0 {
			return
		}
		for _, p := range pids {
			var pid int
			if _, err := fmt.Sscan(p, &pid); err == nil && pid > 1 && pid != os.Getpid() {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (l *lab) nft(script string) {
	l.t.Helper()
	c := exec.Command("ip", "netns", "exec", l.ns.Name, "nft", "-f", "-")
	c.Stdin = strings.NewReader(script)
	if out, err := c.CombinedOutput(); err != nil {
		l.t.Fatalf("nft: %v\n%s", err, out)
	}
}

func (l *lab) state() string { return l.dir + "/state" }

// engine works in this process; call it inside l.ns.Do where the kernel is concerned.
func (l *lab) engine() *Engine { return &Engine{StateDir: l.state(), Host: l.host, BootID: l.boot} }

// command prepares a process of the lab.
func (l *lab) command(role string, env ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	c := exec.Command("nsenter", "--net=/run/netns/"+l.ns.Name, self)
	c.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "SIXFENCE_TEST_ROLE=" + role, "SIXFENCE_TEST_ROOT=" + l.host.Root, "SIXFENCE_TEST_STATE=" + l.state(),
		"SIXFENCE_TEST_BOOT=" + l.boot, "SIXFENCE_TEST_PLAN=" + l.dir + "/plan.json", "SIXFENCE_TEST_LOG=" + l.dir + "/undo.log",
		"SIXFENCE_TEST_DISK=" + os.Getenv("SIXFENCE_TEST_DISK"),
	}, env...)
	return c
}

func (l *lab) play(role string, env ...string) (string, error) {
	c := l.command(role, env...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.String(), err
}

func (l *lab) write(p *change.Plan) {
	l.t.Helper()
	p.ID = p.Sum()
	b, err := json.Marshal(p)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(l.dir+"/plan.json", b, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

const (
	ruleset = `table inet sixfence {
	counter seen { }
	set admins { type ipv6_addr; flags interval; elements = { 2001:db8:aa::/48, 2001:db8:ab::1 }; }
	set echo { type ipv6_addr; size 64; flags dynamic,timeout; timeout 1m; }
	chain guard { type filter hook input priority -10; policy accept;
		icmpv6 type nd-router-advert iifname "eth0" ip6 saddr != fe80::1 counter drop comment "intent"
		ip6 saddr @admins tcp dport { 22, 443 } counter name seen accept
		icmpv6 type echo-request update @echo { ip6 saddr limit rate over 10/second } drop
	}
}`
	unitText = "[Unit]\nDescription=x\n[Service]\nType=oneshot\nExecStart=/bin/true\n[Install]\nWantedBy=sysinit.target\n"
	former   = `table inet sixfence {
	chain guard { type filter hook input priority -10; policy accept; tcp dport 23 drop; };
}`
)

// all are the steps that a plan may have.
func (l *lab) all(withFormer bool) []change.Step {
	sysctl := func(target, before, after string) change.Step {
		return change.Step{ID: "sysctl:" + target, Kind: change.Sysctl, Phase: change.Runtime, Target: target, Before: change.Image{Text: before}, After: change.Image{Text: after}}
	}
	before := change.Image{Absent: true}
	if withFormer {
		before = change.Image{Text: former}
	}
	none := change.Image{Absent: true}
	return []change.Step{
		{ID: "table", Kind: change.Table, Phase: change.Runtime, Target: "inet sixfence", Before: before, After: change.Image{Text: ruleset}},
		sysctl("net/ipv6/conf/eth0/accept_redirects", "1", "0"),
		sysctl("net/ipv6/conf/eth1/accept_ra", "1", "0"),
		sysctl("net/ipv6/conf/eth1/max_addresses", "16", "8"),
		{ID: "neighbour", Kind: change.Neighbour, Phase: change.Runtime, Target: "eth1 fe80::98", Before: none, After: change.Image{Text: "02:00:00:00:00:98"}},
		{ID: "address", Kind: change.AddressObj, Phase: change.Runtime, Target: "eth1 2001:db8:2::53/64", Before: none, After: change.Image{}},
		{ID: "route", Kind: change.RouteObj, Phase: change.Runtime, Target: "blackhole 2001:db8:dead::/48 metric 512", Before: none, After: change.Image{}},
		sysctl("net/ipv6/conf/all/forwarding", "0", "1"),
		sysctl("net/ipv6/conf/eth0/disable_ipv6", "0", "1"),
		{ID: "file:new", Kind: change.File, Phase: change.Persist, Target: "/etc/sysctl.d/90-sixfence.conf", Before: none, After: change.Image{Text: "net.ipv6.conf.eth0.accept_ra = 0\n", Mode: 0o644}},
		{ID: "file:deep", Kind: change.File, Phase: change.Persist, Target: "/etc/systemd/network/eth0.network.d/90-sixfence.conf", Before: none, After: change.Image{Text: "[Network]\nIPv6AcceptRA=no\n", Mode: 0o644}},
		{ID: "file:changed", Kind: change.File, Phase: change.Persist, Target: "/etc/sixfence/nftables.nft", Before: change.Image{Text: "# former\n", Mode: 0o640}, After: change.Image{Text: ruleset, Mode: 0o600}},
		{ID: "file:unit", Kind: change.File, Phase: change.Persist, Target: unitDir + "/sixfence-firewall.service", Before: none, After: change.Image{Text: unitText, Mode: 0o644}},
		{ID: "file:gone", Kind: change.File, Phase: change.Persist, Target: "/etc/modprobe.d/old.conf", Before: change.Image{Text: "# to be removed\n", Mode: 0o640}, After: none},
		{ID: "unit", Kind: change.Unit, Phase: change.AfterConfirm, Target: "sixfence-firewall.service", Before: change.Image{Text: "disabled"}, After: change.Image{Text: "enabled"}},
	}
}

// random is a plan of some of them.
func (l *lab) random(r *rand.Rand) *change.Plan {
	withFormer := r.IntN(3) == 0
	if withFormer {
		l.nft(former)
	}
	p := &change.Plan{SchemaVersion: change.Version, IntentHash: "i", Namespace: "self"}
	steps := l.all(withFormer)
	if r.IntN(3) == 0 {
		steps = append(steps[:8:8], steps[9:]...) // no disable_ipv6
		steps = append(steps, change.Step{ID: "all-off", Kind: change.Sysctl, Phase: change.Runtime, Target: "net/ipv6/conf/all/disable_ipv6", Before: change.Image{Text: "0"}, After: change.Image{Text: "1"}})
		steps = slices.DeleteFunc(steps, func(s change.Step) bool {
			return s.Kind == change.AddressObj || s.Kind == change.Neighbour || s.Kind == change.RouteObj
		})
	}
	unit := r.IntN(4) > 0 // to enable one that is not there is an error
	for _, s := range steps {
		if s.ID == "unit" || s.ID == "file:unit" {
			if unit {
				p.Steps = append(p.Steps, s)
			}
		} else if r.IntN(4) > 0 {
			p.Steps = append(p.Steps, s)
		}
	}
	if len(p.Steps) == 0 {
		p.Steps = steps[:1]
	}
	return p
}

// projection is all that is managed, and all that a change of ours may destroy: one
// line for each object.
func (l *lab) projection(p *change.Plan) []string {
	l.t.Helper()
	var out []string
	l.ns.Do(func() {
		for _, s := range p.Steps {
			now, err := l.host.State(s.Kind, s.Target)
			if err != nil {
				now = err.Error()
			}
			out = append(out, s.ID+" "+now)
		}
		var ns fact.Namespace
		rtnl.Read(ask.New(func(string) bool { return true }, false), ask.NewBudget("lab", patience, 100000, 1<<26)).Decode(&ns)
		names := map[int]string{0: "-"}
		links, _ := ns.Links.Get()
		for _, x := range links {
			names[x.Index] = x.Name
		}
		as, ok := ns.Addresses.Get()
		if !ok {
			out = append(out, "addresses unknown")
		}
		for _, a := range as {
			if a.Prefix.Addr().Is6() && !foreignAddress(a.Prefix.Addr().String()) && !foreignLink(names[a.Index]) {
				out = append(out, fmt.Sprintf("address %s %s flags %#x scope %d proto %d", names[a.Index], a.Prefix, a.Flags&^(unix.IFA_F_TENTATIVE|unix.IFA_F_OPTIMISTIC), a.Scope, a.Protocol))
			}
		}
		rs, ok := ns.Routes.Get()
		if !ok {
			out = append(out, "routes unknown")
		}
		for _, r := range rs {
			if r.Family != "ipv6" || foreignAddress(r.Dst.Addr().String()) || slices.ContainsFunc(r.NextHops, func(h fact.NextHop) bool { return foreignLink(names[h.Index]) }) {
				continue
			}
			_, finite := r.Expires.Get()
			s := fmt.Sprintf("route %s table %d type %d proto %d metric %d flags %#x finite %v src %v", r.Dst, r.Table, r.Type, r.Protocol, r.Priority, r.Flags, finite, r.PrefSrc)
			for _, h := range r.NextHops {
				s += fmt.Sprintf(" via %v dev %s", h.Via, names[h.Index])
			}
			out = append(out, s)
		}
		nb, _ := ns.Neighbours.Get()
		for _, n := range nb {
			if n.State&unix.NUD_PERMANENT != 0 && !foreignLink(names[n.Index]) {
				out = append(out, fmt.Sprintf("neighbour %s %s %s", names[n.Index], n.Address, n.MAC))
			}
		}
		pn, _ := ns.ProxyNeighbours.Get()
		for _, n := range pn {
			out = append(out, fmt.Sprintf("proxy %s %s", names[n.Index], n.Address))
		}
		ru, _ := ns.Rules.Get()
		for _, x := range ru {
			if x.Family == "ipv6" {
				out = append(out, fmt.Sprintf("rule %d %v table %d", x.Priority, x.Src, x.Table))
			}
		}
		for _, i := range []string{"all", "default", "eth0", "eth1", "p0", "p1", "lo"} {
			for _, k := range []string{"disable_ipv6", "forwarding", "accept_ra", "accept_redirects", "accept_dad", "addr_gen_mode"} {
				b, _ := os.ReadFile("/proc/sys/net/ipv6/conf/" + i + "/" + k)
				out = append(out, i+"/"+k+" "+strings.TrimSpace(string(b)))
			}
		}
	})
	slices.Sort(out)
	return append(out, l.tree()...)
}

// tree is every file and directory below the root, with what it is.
func (l *lab) tree() []string {
	var out []string
	_ = filepath.WalkDir(l.host.Root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			out = append(out, err.Error())
			return nil
		}
		st, err := d.Info()
		if err != nil {
			out = append(out, err.Error())
			return nil
		}
		s := fmt.Sprintf("%s %v", strings.TrimPrefix(path, l.host.Root), st.Mode())
		if st.Mode().IsRegular() {
			b, _ := os.ReadFile(path)
			s += fmt.Sprintf(" %q", b)
		}
		out = append(out, s)
		return nil
	})
	return out
}

func diff(want, got []string) string {
	var b strings.Builder
	for _, w := range want {
		if !slices.Contains(got, w) {
			fmt.Fprintf(&b, "  - %.200s\n", w)
		}
	}
	for _, g := range got {
		if !slices.Contains(want, g) {
			fmt.Fprintf(&b, "  + %.200s\n", g)
		}
	}
	return b.String()
}

// intended is the projection that a plan leads to, found by doing it step by step
// without this package, in a lab of its own.
func intended(t testing.TB, p *change.Plan) []string {
	l := newLab(t)
	for _, s := range p.Steps {
		if s.Kind == change.Table && !s.Before.Absent {
			l.nft(former)
		}
	}
	l.ns.Do(func() {
		for _, s := range p.Steps {
			if s.Phase != change.Runtime {
				continue
			}
			if err := l.host.Set(s.Kind, s.Target, s.After); err != nil {
				t.Errorf("intended: %v", err)
			}
		}
	})
	for _, s := range p.Steps {
		if s.Phase == change.Runtime {
			continue
		}
		if s.Kind == change.Unit {
			if err := l.host.Set(s.Kind, s.Target, s.After); err != nil {
				t.Errorf("intended: %v", err)
			}
			continue
		}
		path := l.host.Root + s.Target
		if s.After.Absent {
			_ = os.Remove(path)
			continue
		}
		_ = os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(s.After.Text), 0o600); err != nil {
			t.Error(err)
		}
		_ = os.Chmod(path, os.FileMode(s.After.Mode))
	}
	return l.projection(p)
}
