package manager

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// star is a namespace with one interface per case, each joined to the attacker.
type star struct {
	victim, attacker *testlab.NS
	wires            map[string]*testlab.Wire
}

// newStar joins the interfaces and switches the kernel's own handling of router
// advertisements off, as hardening guides do: what happens is the manager's doing.
func newStar(t *testing.T, hint string, ifaces []string) *star {
	t.Helper()
	s := &star{victim: testlab.NewNS(t, hint+"v"), attacker: testlab.NewNS(t, hint+"a"), wires: map[string]*testlab.Wire{}}
	for _, k := range []string{"all", "default"} {
		s.victim.Sysctl("net/ipv6/conf/"+k+"/accept_ra", "0")
		s.victim.Sysctl("net/ipv6/conf/"+k+"/accept_dad", "0")
		s.attacker.Sysctl("net/ipv6/conf/"+k+"/accept_ra", "0")
		s.attacker.Sysctl("net/ipv6/conf/"+k+"/accept_dad", "0")
	}
	for _, name := range ifaces {
		testlab.Link(s.victim, name, s.attacker, "a-"+name)
		s.wires[name] = s.attacker.Wire("a-" + name)
	}
	return s
}

// advertise sends an RA on each interface; the prefix tells the round.
func (s *star) advertise(round int) {
	prefix := netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::", 0x100+round)), 64)
	for _, w := range s.wires {
		w.SendRA(testlab.RA{Lifetime: 1800, Options: [][]byte{testlab.PrefixInfo(prefix, 3600, 1800)}})
	}
}

// taken lists the interfaces that took an RA: a default route, or an address
// from one of the rounds.
func (s *star) taken() map[string]bool {
	out := map[string]bool{}
	for _, l := range strings.Split(s.victim.IP("-6", "-o", "route", "show", "default"), "\n") {
		if _, dev, ok := strings.Cut(l, " dev "); ok {
			out[strings.Fields(dev)[0]] = true
		}
	}
	for _, l := range strings.Split(s.victim.IP("-6", "-o", "addr", "show", "scope", "global"), "\n") {
		if f := strings.Fields(l); len(f) > 3 && strings.HasPrefix(f[3], "2001:db8:1") {
			out[f[1]] = true
		}
	}
	return out
}

// compare sends until every interface that should take an RA has, then once more
// to all, and reports the differences.
func (s *star) compare(t *testing.T, want map[string]bool) {
	t.Helper()
	round := 0
	missing := func() []string {
		got := s.taken()
		var out []string
		for name, w := range want {
			if w && !got[name] {
				out = append(out, name)
			}
		}
		return out
	}
	for end := time.Now().Add(60 * time.Second); len(missing()) > 0 && time.Now().Before(end); round++ {
		s.advertise(round % 200)
		time.Sleep(150 * time.Millisecond)
	}
	for range 3 { // those that should not take it get as many chances again
		s.advertise(200)
		time.Sleep(150 * time.Millisecond)
	}
	got := s.taken()
	for name, w := range want {
		if got[name] != w {
			t.Errorf("%s: predicted that RAs are taken: %v; they are: %v", name, w, got[name])
		}
	}
}

// decodeProcess reads one kind of manager through the roots of its processes.
func decodeProcess(t *testing.T, ns *testlab.NS, name string) fact.Manager {
	t.Helper()
	empty, err := tree.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	out, err := exec.Command("ip", "netns", "pids", ns.Name).Output()
	if err != nil {
		t.Fatal(err)
	}
	var ps []Process
	for _, f := range strings.Fields(string(out)) {
		pid, _ := strconv.Atoi(f)
		if exe, err := os.Readlink("/proc/" + f + "/exe"); err == nil && filepath.Base(exe) == name {
			ps = append(ps, Process{PID: pid, Name: name, OwnRoot: true})
		}
	}
	var h fact.Host
	Read(empty, ps, fact.NamespaceID{}).Decode(&h)
	for _, m := range h.Managers.Or(nil) {
		if m.Name == name && m.PID != 0 {
			return m
		}
	}
	t.Fatalf("no manager %s among %+v", name, h.Managers.Or(nil))
	return fact.Manager{}
}

func ifindex(ns *testlab.NS, name string) int {
	f := strings.SplitN(ns.IP("-o", "link", "show", "dev", name), ":", 2)
	n, _ := strconv.Atoi(f[0])
	return n
}

// TestNetworkdAsItIs runs the real systemd-networkd over one interface per
// configuration and compares which of them takes router advertisements.
func TestNetworkdAsItIs(t *testing.T) {
	t.Parallel()
	cases := map[string]map[string]string{
		"on":      {"10.network": "[Match]\nName=IF\n[Network]\nIPv6AcceptRA=yes\n"},
		"off":     {"10.network": "[Match]\nName=IF\n[Network]\nIPv6AcceptRA=no\n"},
		"dflt":    {"10.network": "[Match]\nName=IF\n[Network]\nDHCP=no\n"},
		"static":  {"10.network": "[Match]\nName=IF\n[Network]\nAddress=2001:db8:aa::1/64\nGateway=fe80::1\n"},
		"old":     {"10.network": "[Match]\nName=IF\n[Network]\nIPv6AcceptRouterAdvertisements=off\n"},
		"noll":    {"10.network": "[Match]\nName=IF\n[Network]\nIPv6AcceptRA=yes\nLinkLocalAddressing=no\n"},
		"ll4":     {"10.network": "[Match]\nName=IF\n[Network]\nLinkLocalAddressing=ipv4\n"},
		"ll6":     {"10.network": "[Match]\nName=IF\n[Network]\nLinkLocalAddressing=ipv6\n"},
		"fwd":     {"10.network": "[Match]\nName=IF\n[Network]\nIPForward=ipv6\n"},
		"fwdon":   {"10.network": "[Match]\nName=IF\n[Network]\nIPForward=yes\nIPv6AcceptRA=yes\n"},
		"fwd4":    {"10.network": "[Match]\nName=IF\n[Network]\nIPForward=ipv4\n"},
		"masq":    {"10.network": "[Match]\nName=IF\n[Network]\nIPMasquerade=both\n"},
		"first":   {"10.network": "[Match]\nName=IF\n[Network]\nIPv6AcceptRA=no\n", "20.network": "[Match]\nName=IF\n[Network]\nIPv6AcceptRA=yes\n"},
		"dropin":  {"10.network": "[Match]\nName=IF\n[Network]\nIPv6AcceptRA=yes\n", "10.network.d/x.conf": "[Network]\nIPv6AcceptRA=no\n"},
		"reset":   {"10.network": "[Match]\nName=IF\n[Network]\nIPv6AcceptRA=no\n", "10.network.d/x.conf": "[Network]\nIPv6AcceptRA=\n"},
		"bad":     {"10.network": "[Match]\nName=IF\n[Network]\nIPv6AcceptRA=maybe\n"},
		"unman":   {"10.network": "[Match]\nName=IF\n[Link]\nUnmanaged=yes\n[Network]\nIPv6AcceptRA=yes\n"},
		"globq":   {"10.network": "[Match]\nName=glob?\n[Network]\nIPv6AcceptRA=yes\n"},
		"nomatch": {"10.network": "[Match]\nName=else\n[Network]\nIPv6AcceptRA=yes\n"},
		"empty":   {"10.network": "[Match]\n[Network]\nIPv6AcceptRA=yes\n"},
		"masked":  {"10.network": "", "20.network": "[Match]\nName=IF\n[Network]\nIPv6AcceptRA=yes\n"},
		"twice":   {"10.network": "[Match]\nName=IF\n[Network]\nIPv6AcceptRA=no\n[Network]\nIPv6AcceptRA=yes\n"},
		"join":    {"10.network": "[Match]\nName=IF\n[Network]\nIPv6AcceptRA=\\\n# comment\nno\n"},
		"kind":    {"10.network": "[Match]\nName=IF\nKind=veth\n[Network]\nIPv6AcceptRA=yes\n"},
		"kindno":  {"10.network": "[Match]\nName=IF\nKind=bridge\n[Network]\nIPv6AcceptRA=yes\n"},
		"notme":   {"10.network": "[Match]\nName=!IF\nKind=nothing\n[Network]\nIPv6AcceptRA=yes\n"},
		"allow":   {"10.network": "[Match]\nName=IF\n[Network]\nIPv6AcceptRA=yes\n[IPv6AcceptRA]\nRouterAllowList=fe80::dead\n"},
		"llmode":  {"10.network": "[Match]\nName=IF\n[Network]\nIPv6LinkLocalAddressGenerationMode=none\n"},
		"nobr":    {"10.network": "[Match]\nName=IF\n[Network]\nBridge=brnot\n"},
		"port":    {"10.network": "[Match]\nName=IF\n[Network]\nBridge=brx\n", "10.netdev": "[NetDev]\nName=brx\nKind=bridge\n"},
		"keepm":   {"10.network": "[Match]\nName=IF\n[Network]\nKeepMaster=yes\n"},
	}
	files := map[string]string{}
	var ifaces []string
	for name, fs := range cases {
		ifaces = append(ifaces, name)
		for f, text := range fs {
			number, rest, _ := strings.Cut(f, ".")
			files[number+"-"+name+"."+rest] = strings.ReplaceAll(text, "IF", name)
		}
	}
	s := newStar(t, "nwd", ifaces)
	daemon := s.victim.Networkd(files)
	// Ready when it has decided about every interface.
	links := fmt.Sprintf("/proc/%d/root/run/systemd/netif/links/", daemon.PID)
	for _, name := range ifaces {
		i := ifindex(s.victim, name)
		testlab.Eventually(t, 60*time.Second, "networkd to decide about "+name, func() bool {
			b, _ := os.ReadFile(links + strconv.Itoa(i))
			return strings.Contains(string(b), "ADMIN_STATE=configur") || strings.Contains(string(b), "ADMIN_STATE=unmanaged")
		})
	}
	m := decodeProcess(t, s.victim, "systemd-networkd")
	if on, ok := m.Running.Get(); !ok || !on {
		t.Error("it runs, and the fact says it does not")
	}
	want := map[string]bool{}
	accepted := 0
	for _, name := range ifaces {
		i := ifindex(s.victim, name)
		found := false
		for _, mi := range m.Interfaces {
			if mi.Index != i {
				continue
			}
			found = true
			accept, ok := mi.AcceptRA.Get()
			if !ok {
				t.Errorf("%s: AcceptRA is unknown", name)
			}
			want[name] = accept && mi.InUserspace && len(mi.RouterAllowList) == 0
			if want[name] {
				accepted++
			}
			// Without the running daemon's word the files alone must say the same.
			for _, byName := range m.Interfaces {
				if byName.Index == 0 && len(byName.Names) == 1 && glob(byName.Names[0], name) && len(byName.Match) == 0 {
					if got := byName.AcceptRA.Or(!accept); got != accept {
						t.Errorf("%s: by name %v (%s), by the daemon's state %v (%s)", name, got, byName.Origin.File, accept, mi.Origin.File)
					}
					break
				}
			}
		}
		if !found {
			t.Errorf("%s: networkd's word about it was not found", name)
		}
	}
	if accepted < 5 || accepted > len(ifaces)-5 {
		t.Fatalf("%d of %d accept: the table shows little", accepted, len(ifaces))
	}
	s.compare(t, want)
	parse := 0
	for _, g := range m.Gaps {
		if g.Reason == fact.ParseGap {
			parse++
			if !strings.Contains(g.What, "bad.network:4") {
				t.Errorf("gap %v", g)
			}
		}
	}
	if parse == 0 {
		t.Error("IPv6AcceptRA=maybe left no gap")
	}
}

func writeTree(t testing.TB, files map[string]string) *tree.Tree {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.Symlink(target, p); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return openTree(t, dir)
}

func openTree(t testing.TB, dir string) *tree.Tree {
	t.Helper()
	tr, err := tree.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}
