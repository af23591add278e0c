package packetfilter_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/packetfilter"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

func everything(string) bool { return true }

func budget() *ask.Budget { return ask.NewBudget("test", 10*time.Second, 1<<20, 1<<28) }

// read reads the packet filter of a namespace and returns the request log too.
func read(n *testlab.NS, present func(string) bool, b *ask.Budget) (fact.PacketFilter, []ask.Entry) {
	a := ask.New(present, true)
	var ns fact.Namespace
	n.Do(func() { packetfilter.Read(a, b, packetfilter.Options{Elements: true}).Decode(&ns) })
	return ns.PacketFilter, a.Log()
}

// nft loads a ruleset in a namespace.
func nft(t testing.TB, n *testlab.NS, rules string) {
	t.Helper()
	c := n.Command(testlab.RequireTool(t, "nft"), "-f", "-")
	c.Stdin = strings.NewReader(rules)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
}

// counts asks nft what the kernel holds, as an independent witness.
func counts(t testing.TB, n *testlab.NS) map[string]int {
	t.Helper()
	var doc struct {
		NFTables []map[string]json.RawMessage `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(n.Run(testlab.RequireTool(t, "nft"), "-j", "list", "ruleset")), &doc); err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, o := range doc.NFTables {
		for k := range o {
			out[k]++
		}
	}
	return out
}

const ruleset = `
table inet a {
	set s {
		type ipv6_addr; flags interval
		elements = { 2001:db8::/32, fe80::1 }
	}
	counter c { }
	chain in {
		type filter hook input priority 0; policy drop;
		ct state established,related accept comment "a comment"
		ip6 saddr @s tcp dport 22 counter name c accept
		socket transparent 1 accept
	}
	chain side {
		icmpv6 type echo-request limit rate 5/second accept
	}
}
table ip6 b {
	chain pre {
		type nat hook prerouting priority -100;
		tcp dport 80 redirect to :8080
	}
}
table netdev d {
	chain ing {
		type filter hook ingress device lo priority 0;
		udp dport 53 drop
	}
}
table bridge e {
	chain f {
		type filter hook forward priority 0;
		ether type ip6 accept
	}
}
table arp g {
	chain h {
		type filter hook input priority 0;
	}
}
`

func TestReadNFTables(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "pf")
	nft(t, n, ruleset)
	pf, _ := read(n, everything, budget())
	got, ok := pf.NFTables.Get()
	if !ok {
		t.Fatalf("no ruleset: %+v", pf.NFTables)
	}
	want := counts(t, n)
	have := map[string]int{"table": len(got.Tables), "chain": len(got.Chains), "rule": len(got.Rules), "set": len(got.Sets), "counter": len(got.Objects)}
	for k, v := range have {
		if v != want[k] {
			t.Errorf("%ss: read %d, nft lists %d", k, v, want[k])
		}
	}
	if got.Generation == 0 || got.Truncated != nil {
		t.Errorf("generation %d, truncated %v", got.Generation, got.Truncated)
	}
	// The bytes are the kernel's: an expression libraries drop is still there.
	all := bytes.Join(got.Rules, nil)
	for _, s := range []string{"socket\x00", "a comment", "limit\x00", "redir\x00"} {
		if !bytes.Contains(all, []byte(s)) {
			t.Errorf("the rules lack %q", s)
		}
	}
	for i, m := range got.Chains {
		if len(m) < 8 || m[0] == 0 {
			t.Errorf("chain %d is no nfgenmsg: % x", i, m)
		}
	}
}

func TestNoTableIsAbsent(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "pf")
	pf, _ := read(n, everything, budget())
	if pf.NFTables.State() != fact.StateAbsent || pf.Legacy.State() != fact.StateAbsent {
		t.Errorf("an empty namespace: nf_tables %v, legacy %v; want absent", pf.NFTables.State(), pf.Legacy.State())
	}
}

func TestNothingLoadedAsksNothing(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "pf")
	nft(t, n, ruleset)
	pf, log := read(n, func(string) bool { return false }, budget())
	if pf.NFTables.State() != fact.StateAbsent {
		t.Errorf("nf_tables: %v", pf.NFTables.State())
	}
	for _, e := range log {
		if e.Op != "present" && e.Op != "open" {
			t.Errorf("asked %s %s although nothing is loaded", e.Op, e.What)
		}
	}
	// When "not loaded" is no proof, the ruleset is unknown, not absent.
	a := ask.New(func(string) bool { return false }, true)
	a.SetDoubt(func(s string) *fact.Gap { return &fact.Gap{Reason: fact.Permission, What: s} })
	var ns fact.Namespace
	n.Do(func() { packetfilter.Read(a, budget(), packetfilter.Options{Elements: true}).Decode(&ns) })
	if g, gap := ns.PacketFilter.NFTables.Gap(); !gap || g.Reason != fact.Permission {
		t.Errorf("doubtful absence: %+v", ns.PacketFilter.NFTables)
	}
	if _, gap := ns.PacketFilter.EBTables.Gap(); !gap {
		t.Errorf("doubtful ebtables: %+v", ns.PacketFilter.EBTables)
	}
}

func TestPresentComesFirst(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "pf")
	nft(t, n, ruleset)
	n.Run(testlab.RequireTool(t, "ip6tables-legacy"), "-A", "INPUT", "-j", "ACCEPT")
	_, log := read(n, everything, budget())
	asked := map[string]bool{}
	needs := func(e ask.Entry) []string {
		switch {
		case e.Op == "netlink":
			return []string{"nfnetlink", "nf_tables"}
		case e.Op == "getsockopt":
			return []string{strings.Fields(e.What)[1]}
		}
		return nil
	}
	requests := 0
	for _, e := range log {
		if e.Op == "present" {
			asked[e.What] = true
		}
		for _, m := range needs(e) {
			requests++
			if !asked[m] {
				t.Errorf("%s %s before asking for %s", e.Op, e.What, m)
			}
		}
	}
	if requests == 0 {
		t.Error("no request was logged")
	}
}

// TestLegacyTables compares with iptables-legacy-save, and proves that a table
// that was not there is not created by looking.
func TestLegacyTables(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "pf")
	names := func(f string) string {
		var out []byte
		n.Do(func() { out, _ = os.ReadFile("/proc/thread-self/net/" + f) })
		f2 := strings.Fields(string(out))
		slices.Sort(f2)
		return strings.Join(f2, ",")
	}
	all := func() string {
		return names("ip_tables_names") + "|" + names("ip6_tables_names") + "|" + names("arp_tables_names")
	}
	if all() != "||" {
		t.Fatalf("a new namespace has tables: %s", all())
	}
	pf, _ := read(n, everything, budget())
	if all() != "||" {
		t.Fatalf("reading created tables: %s", all())
	}
	if pf.Legacy.State() != fact.StateAbsent {
		t.Errorf("legacy: %v", pf.Legacy.State())
	}

	n.Run(testlab.RequireTool(t, "ip6tables-legacy"), "-A", "INPUT", "-p", "tcp", "--dport", "23", "-j", "DROP")
	before := all()
	if before != "|filter|" {
		t.Fatalf("tables %s; want filter of ip6 only", before)
	}
	pf, log := read(n, everything, budget())
	if after := all(); after != before {
		t.Errorf("reading changed the tables: %s, then %s", before, after)
	}
	for _, e := range log {
		if e.Op == "getsockopt" && !strings.HasSuffix(e.What, "ip6_tables filter") {
			t.Errorf("asked for %s, which is not listed", e.What)
		}
	}
	lt, _ := pf.Legacy.Get()
	if len(lt) != 1 {
		t.Fatalf("%d tables: %+v", len(lt), pf.Legacy)
	}
	blob, ok := lt[0].Blob.Get()
	// INPUT, FORWARD, OUTPUT; three policies, one rule and the error node.
	if lt[0].Family != "ipv6" || lt[0].Name != "filter" || lt[0].Hooks != 1<<1|1<<2|1<<3 || lt[0].Entries != 5 || !ok {
		t.Errorf("filter: %+v", lt[0])
	}
	if !bytes.Contains(blob, []byte("tcp\x00")) {
		t.Error("the blob lacks the tcp match")
	}

	// The control of this test: the bare question does create a table.
	n.Do(func() {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		buf := make([]byte, 84)
		copy(buf, "mangle")
		_ = packetfilter.Getsockopt(fd, unix.IPPROTO_IPV6, 64, buf)
	})
	if names("ip6_tables_names") != "filter,mangle" {
		t.Errorf("a bare getsockopt made %s: this test cannot see a created table", names("ip6_tables_names"))
	}
}

func TestLegacyOfEveryFamily(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "pf")
	n.Run(testlab.RequireTool(t, "iptables-legacy"), "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "80", "-j", "REDIRECT", "--to-ports", "81")
	n.Run(testlab.RequireTool(t, "iptables-legacy"), "-t", "raw", "-A", "PREROUTING", "-j", "ACCEPT")
	n.Do(func() { // there is no arptables-legacy here; the bare question makes the table
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		buf := make([]byte, 68)
		copy(buf, "filter")
		if err := packetfilter.Getsockopt(fd, unix.IPPROTO_IP, 96, buf); err != nil {
			t.Error(err)
		}
	})
	pf, _ := read(n, everything, budget())
	lt, ok := pf.Legacy.Get()
	if !ok {
		t.Fatalf("%+v", pf.Legacy)
	}
	got := map[string]uint32{}
	for _, x := range lt {
		if _, ok := x.Blob.Get(); !ok {
			t.Errorf("%s %s: %+v", x.Family, x.Name, x.Blob)
		}
		got[x.Family+" "+x.Name] = x.Hooks
	}
	want := map[string]uint32{"ipv4 nat": 0b11011, "ipv4 raw": 0b01001, "arp filter": 0b011}
	for k, v := range want {
		if got[k]&^(1<<2) != v&^(1<<2) { // ARP forward came and went
			t.Errorf("%s hooks %05b, want %05b", k, got[k], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("tables %v", got)
	}
}

// TestUnprivileged drops every capability in a thread of its own.
func TestUnprivileged(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "pf")
	nft(t, n, ruleset)
	n.Run(testlab.RequireTool(t, "ip6tables-legacy"), "-A", "INPUT", "-j", "ACCEPT")
	a := ask.New(everything, true)
	var ns fact.Namespace
	var h fact.Host
	n.Do(func() {
		if err := dropThread(); err != nil {
			t.Error(err)
			return
		}
		packetfilter.Read(a, budget(), packetfilter.Options{Elements: true}).Decode(&ns)
		packetfilter.ReadBPF(a).Decode(&h)
	})
	reason := func(what string, g fact.Gap, gap bool) {
		if !gap || g.Reason != fact.Permission {
			t.Errorf("%s: gap %v %+v, want permission", what, gap, g)
		}
	}
	g, gap := ns.PacketFilter.NFTables.Gap()
	reason("nf_tables", g, gap)
	g, gap = ns.PacketFilter.Legacy.Gap()
	reason("legacy", g, gap)
	g, gap = h.BPF.NetfilterLinks.Gap()
	reason("bpf", g, gap)
}

func dropThread() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, 65534, 65534, 65534); e != 0 {
		return fmt.Errorf("setresgid: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); e != 0 {
		return fmt.Errorf("setresuid: %w", e)
	}
	return unix.Capset(&hdr, &none[0])
}

func manyRules(rules int) string {
	var s strings.Builder
	s.WriteString("table inet big {\n chain in { type filter hook input priority 0;\n")
	for i := range rules {
		fmt.Fprintf(&s, "  ip6 saddr 2001:db8:%x::/48 tcp dport %d counter accept\n", i&0xffff, 1+i%65535)
	}
	s.WriteString(" }\n}\n")
	return s.String()
}

func TestBudgetEndsADump(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "pf")
	nft(t, n, manyRules(2000))
	for name, b := range map[string]*ask.Budget{
		"objects": ask.NewBudget("test", 10*time.Second, 50, 1<<28),
		"bytes":   ask.NewBudget("test", 10*time.Second, 1<<20, 20_000),
		"time":    ask.NewBudget("test", -time.Second, 1<<20, 1<<28),
	} {
		pf, _ := read(n, everything, b)
		if v, ok := pf.NFTables.Get(); ok {
			if v.Truncated == nil || v.Truncated.Reason != fact.Truncated || len(v.Rules) > 2000/2 {
				t.Errorf("%s: %d rules, truncated %v", name, len(v.Rules), v.Truncated)
			}
		} else if g, gap := pf.NFTables.Gap(); !gap || g.Reason != fact.Truncated {
			t.Errorf("%s: %+v", name, pf.NFTables)
		}
	}
}

// TestMovingRuleset reads while another process changes the ruleset without end:
// what is read is one generation or a Gap, never a mixture.
func TestMovingRuleset(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "pf")
	tool := testlab.RequireTool(t, "nft")
	even := "flush ruleset; table inet x { chain a { type filter hook input priority 0; }; chain b { type filter hook forward priority 0; }; }"
	odd := "flush ruleset; table ip y { }; table ip6 y { }; table bridge y { };"
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			for _, r := range []string{even, odd} {
				select {
				case <-stop:
					return
				default:
					_ = n.Command(tool, r).Run()
				}
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	whole := 0
	for range 100 {
		pf, _ := read(n, everything, budget())
		v, ok := pf.NFTables.Get()
		if !ok {
			continue
		}
		whole++
		if s := [2]int{len(v.Tables), len(v.Chains)}; s != [2]int{1, 2} && s != [2]int{3, 0} {
			t.Fatalf("a mixture: %d tables, %d chains, generation %d\n%q\n%q", s[0], s[1], v.Generation, v.Tables, v.Chains)
		}
	}
	if whole == 0 {
		t.Error("never read a whole generation")
	}
}

func TestWithoutBPF(t *testing.T) {
	var h fact.Host
	packetfilter.ReadBPF(ask.New(func(string) bool { return false }, false)).Decode(&h)
	if h.BPF.NetfilterLinks.State() != fact.StateAbsent {
		t.Errorf("without bpf: %v", h.BPF.NetfilterLinks.State())
	}
}

func BenchmarkDumpRules(b *testing.B) {
	n := testlab.NewNS(b, "pf")
	for _, rules := range []int{1000, 10000} {
		nft(b, n, "flush ruleset\n"+manyRules(rules))
		b.Run(fmt.Sprintf("sixfence-%d", rules), func(b *testing.B) {
			n.Do(func() {
				for b.Loop() {
					var ns fact.Namespace
					packetfilter.Read(ask.New(everything, false), budget(), packetfilter.Options{}).Decode(&ns)
					if v, _ := ns.PacketFilter.NFTables.Get(); len(v.Rules) != rules {
						b.Fatalf("%d rules", len(v.Rules))
					}
				}
			})
		})
		b.Run(fmt.Sprintf("nft-list-ruleset-%d", rules), func(b *testing.B) {
			tool := testlab.RequireTool(b, "nft")
			for b.Loop() {
				n.Do(func() {
					if out, err := exec.Command(tool, "list", "ruleset").Output(); err != nil || len(out) == 0 {
						b.Fatal(err)
					}
				})
			}
		})
	}
}

// Reading chain by chain gives the messages of one dump of all rules, in its order: also
// for chains of one name in several tables and families, and for those without a rule.
func TestRulesByChain(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "pf")
	var b strings.Builder
	for _, table := range []string{"ip a", "ip6 a", "inet a", "inet b"} {
		fmt.Fprintf(&b, "table %s {\n chain empty { }\n", table)
		for c := range 4 {
			fmt.Fprintf(&b, " chain c%d {\n", c)
			for i := range 400 {
				fmt.Fprintf(&b, "  tcp dport %d counter accept\n", 1+c*400+i)
			}
			b.WriteString(" }\n")
		}
		b.WriteString("}\n")
	}
	nft(t, n, b.String())
	var whole, byChain, chosen [][]byte
	var err error
	a := ask.New(everything, true)
	n.Do(func() { whole, byChain, chosen, err = packetfilter.RulesBothWays(a, budget()) })
	if err != nil {
		t.Fatal(err)
	}
	if len(whole) != 4*4*400 {
		t.Errorf("%d rules", len(whole))
	}
	if !slices.EqualFunc(whole, byChain, bytes.Equal) {
		t.Errorf("one dump has %d rules, chain by chain there are %d, or others", len(whole), len(byChain))
	}
	if !slices.EqualFunc(whole, chosen, bytes.Equal) {
		t.Errorf("one dump has %d rules, the product reads %d, or others", len(whole), len(chosen))
	}
	requests := 0
	for _, e := range a.Log() {
		if e.What == "NFT_MSG_GETRULE" {
			requests++
		}
	}
	if want := 1 + 20 + 20; requests != want {
		t.Errorf("%d requests for rules, want %d: the product reads so many chain by chain", requests, want)
	}
}

// A budget that ends while chains are read says so.
func TestBudgetEndsChains(t *testing.T) {
	t.Parallel()
	n := testlab.NewNS(t, "pf")
	var b strings.Builder
	b.WriteString("table ip6 a {\n")
	for c := range 4 {
		fmt.Fprintf(&b, " chain c%d {\n%s }\n", c, strings.Repeat("  tcp dport 22 accept\n", 1200))
	}
	b.WriteString("}\n")
	nft(t, n, b.String())
	pf, _ := read(n, everything, ask.NewBudget("test", 10*time.Second, 2000, 1<<28))
	got, ok := pf.NFTables.Get()
	if !ok || got.Truncated == nil || len(got.Rules) == 0 || len(got.Rules) > 2000 {
		t.Errorf("%d rules, truncated %v, %v", len(got.Rules), got.Truncated, ok)
	}
}
