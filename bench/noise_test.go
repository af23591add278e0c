package bench

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sixfence/sixfence/internal/testlab"
	"github.com/sixfence/sixfence/internal/testlab/corpus"
)

var update = flag.Bool("update", false, "rewrite docs/reference/noise.md")

// provedBy names, for every control that is high or critical on a stock system,
// the lab test that fires the packet which justifies it (package cmd/sixfence).
var provedBy = map[string]string{
	"SYSCTL-RA-01":  "TestRAVerdictIsWhatTheKernelDoes",
	"SYSCTL-RED-01": "TestRedirectVerdictIsWhatTheKernelDoes",
	"LISTEN-02":     "TestLoopbackOnIPv4WorldOnIPv6",
	"LISTEN-08":     "TestListenerInANamespaceNobodyAudits",
	"LISTEN-12":     "TestForgedMappedLoopbackReachesUDP",
	"SYSCTL-FWD-01": "TestStackVerdictsAreWhatTheKernelDoes",
	"SYSCTL-RA-15":  "TestForwardingLetsTheRAsDefaultRouteExpire",
	"FW-01":         "TestOpenOverIPv6OnlyIsAnExposure",
	"FW-03":         "TestOpenOverIPv6OnlyIsAnExposure",
	"LISTEN-03":     "TestOpenOverIPv6OnlyIsAnExposure",
	"FW-11":         "TestFilterLosesWhatItSays",
	"FW-13":         "TestFilterLosesWhatItSays",
	"FW-18":         "TestFilterLosesWhatItSays",
	"FW-24":         "TestFilterLosesWhatItSays",
	"FW-27":         "TestFilterLosesWhatItSays",
	"FW-43":         "TestFilterLosesWhatItSays",
	"RA-14":         "TestManagerTakesFragmentedRAs",
	"RA-01":         "TestRAGuardIsWhatItDrops",
	"FW-20":         "TestMappedSourcesAndRules",
}

// stock is a system as its maker ships it, with a static address and one service.
type stock struct {
	name, how string
	args      []string
	make      func(t *testing.T, host, peer *testlab.NS)
}

func set(ns *testlab.NS, kv ...string) {
	for i := 0; i < len(kv); i += 2 {
		ns.Sysctl(kv[i], kv[i+1])
	}
}

// pods adds a bridge with n namespaces behind it.
func pods(t *testing.T, host *testlab.NS, bridge string, n int) {
	t.Helper()
	host.IP("link", "add", bridge, "type", "bridge")
	host.IP("link", "set", bridge, "up")
	for i := range n {
		pod := testlab.NewNS(t, "pod")
		testlab.Link(host, fmt.Sprintf("veth%d", i), pod, "eth0")
		host.IP("link", "set", fmt.Sprintf("veth%d", i), "master", bridge)
	}
}

func stocks() []stock {
	return []stock{
		{name: "Debian 12", how: "kernel defaults, static address, sshd on [::]:22", make: func(t *testing.T, host, _ *testlab.NS) {}},
		{name: "Ubuntu 24.04", how: "as its sysctl.d sets it (use_tempaddr=2) and as networkd leaves accept_ra (0)", make: func(t *testing.T, host, _ *testlab.NS) {
			set(host, "net/ipv6/conf/all/use_tempaddr", "2", "net/ipv6/conf/default/use_tempaddr", "2", "net/ipv6/conf/eth0/accept_ra", "0")
		}},
		{name: "RHEL family 9", how: "as NetworkManager leaves a manual profile (accept_ra=0)", make: func(t *testing.T, host, _ *testlab.NS) {
			set(host, "net/ipv6/conf/eth0/accept_ra", "0")
		}},
		{name: "Debian 12 with nftables.service", how: "the same, and /etc/nftables.conf as the package has it: three chains that accept", make: func(t *testing.T, host, _ *testlab.NS) {
			host.Run(testlab.RequireTool(t, "nft"), debianRules)
		}},
		{name: "host with Docker's settings", how: "Debian 12, forwarding on, a bridge with three containers, Docker's IPv4 rules only", make: func(t *testing.T, host, _ *testlab.NS) {
			set(host, "net/ipv4/ip_forward", "1", "net/ipv6/conf/all/forwarding", "1")
			pods(t, host, "docker0", 3)
			host.Run("nft", "add table ip nat; add chain ip nat DOCKER; add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }")
		}},
		{name: "kube node's settings", how: "Debian 12, --role kubernetes-node, forwarding on, accept_ra=2 on the uplink, five pods on cni0, kubelet ports on [::]", args: []string{"--role", "kubernetes-node"}, make: func(t *testing.T, host, _ *testlab.NS) {
			set(host, "net/ipv4/ip_forward", "1", "net/ipv6/conf/all/forwarding", "1", "net/ipv6/conf/eth0/accept_ra", "2")
			pods(t, host, "cni0", 5)
			hold(t, host, "10250+1@::")
			hold(t, host, "10256+1@::")
		}},
	}
}

// recorded are hosts of the corpus with the firewall of a stock system on them: two
// networks, a listener on every port that its services may have (internal/testlab/corpus).
var recorded = []struct{ name, corpus string }{
	{"ufw", "ufw-default"},
	{"firewalld", "firewalld-public"},
	{"Docker", "docker-default"},
	{"Docker with ufw", "docker-legacy-ufw"},
}

// debianRules are /etc/nftables.conf as Debian's package nftables installs it.
const debianRules = `flush ruleset

table inet filter {
	chain input {
		type filter hook input priority filter;
	}
	chain forward {
		type filter hook forward priority filter;
	}
	chain output {
		type filter hook output priority filter;
	}
}`

type entry struct {
	Control, Status, Severity, Title string
	Subject                          struct{ NetNS string }
}

// TestNoise counts what an audit says of stock systems, and holds that every
// high among it has a lab test that fires the packet.
func TestNoise(t *testing.T) {
	testlab.RequireRoot(t)
	bin := build(t)
	severities := []string{"critical", "high", "medium", "low", "info"}
	var table strings.Builder
	labs := labTests(t)
	for _, s := range stocks() {
		host, peer := testlab.NewNS(t, "stock"), testlab.NewNS(t, "gw")
		testlab.Link(host, "eth0", peer, "eth0")
		host.IP("addr", "add", "2001:db8:1::10/64", "dev", "eth0", "nodad")
		host.IP("addr", "add", "192.0.2.10/24", "dev", "eth0")
		host.IP("-6", "route", "add", "default", "via", "2001:db8:1::1", "dev", "eth0")
		hold(t, host, "22+1@::")
		s.make(t, host, peer)
		out, _ := exec.Command("ip", append([]string{"netns", "exec", host.Name, bin, "audit", "--format", "json"}, s.args...)...).Output()
		n := count(t, s.name, out, "self", labs)
		row(&table, "running: "+s.name, s.how, n, severities)
	}
	for _, r := range recorded {
		e, err := corpus.Read(r.corpus)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(e.Snapshot)
		if err != nil {
			t.Fatal(err)
		}
		c := exec.Command(bin, "audit", "--format", "json", "--snapshot", "-")
		c.Stdin = bytes.NewReader(b)
		out, _ := c.Output()
		row(&table, "recorded: "+r.name, e.What+" ("+e.Version+")", count(t, r.name, out, e.Snapshot.Namespaces[0].Name, labs), severities)
	}
	for _, tree := range []string{"debian", "ubuntu", "rhel"} {
		dir := t.TempDir()
		unpack(t, "../internal/host/collect/manager/testdata/"+tree+".txtar", dir)
		out, _ := exec.Command(bin, "audit", "--format", "json", "--root", dir).Output()
		row(&table, "root tree: "+tree+"-like", "the tree of internal/host/collect/manager/testdata/"+tree+".txtar", count(t, tree, out, "", labs), severities)
	}
	doc := `# Noise

What an audit says of systems nobody has hardened or broken yet: one static address, sshd on every address, and the packet filter that the system brings, or none. Written by
` + "`go test ./bench -run Noise -update`" + `; CI holds that every high and critical among them has a lab test that fires the packet.

The running systems are network namespaces of the test kernel with the settings that the distribution's own files and managers leave behind, not
installed machines. The recorded ones are hosts of the [corpus](corpus.md), on which the firewalls' own tools made the rules, with eleven listeners. The trees
are small ones. Counts are failed findings of the host's own namespace.

| system | what it is | critical | high | medium | low | info |
|---|---|---|---|---|---|---|
` + table.String()
	// The counts are of one machine: the kernel's global tables and its /etc are in
	// them too, so the page is written on purpose and not compared.
	if *update {
		if err := os.WriteFile("../docs/reference/noise.md", []byte(doc), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// machineWide are controls about what namespaces share; the tests that ran before
// decide them, not the stock system.
var machineWide = map[string]bool{"NDP-01": true, "NDP-02": true, "NDP-03": true}

func row(w *strings.Builder, name, how string, n map[string]int, severities []string) {
	fmt.Fprintf(w, "| %s | %s |", name, how)
	for _, s := range severities {
		fmt.Fprintf(w, " %d |", n[s])
	}
	w.WriteString("\n")
}

// count counts failed findings by severity and checks that the serious ones are proved.
func count(t *testing.T, name string, doc []byte, netns string, labs map[string]bool) map[string]int {
	t.Helper()
	var r struct{ Findings []entry }
	if err := json.Unmarshal(doc, &r); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	n := map[string]int{}
	for _, f := range r.Findings {
		if f.Status != "fail" || machineWide[f.Control] || netns != "" && f.Subject.NetNS != netns {
			continue
		}
		n[f.Severity]++
		if f.Severity == "critical" || f.Severity == "high" {
			if lab := provedBy[f.Control]; !labs[lab] {
				t.Errorf("%s: %s is %s (%s), and no lab test fires its packet", name, f.Control, f.Severity, f.Title)
			}
		}
	}
	return n
}

// labTests are the names of the lab tests that exist.
func labTests(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("../cmd/sixfence/case_*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no lab tests: %v", err)
	}
	names := map[string]bool{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if name, ok := strings.CutPrefix(line, "func "); ok {
				name, _, _ = strings.Cut(name, "(")
				names[name] = true
			}
		}
	}
	return names
}

func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	a, err := txtar.ParseFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(a.Files, func(x, y txtar.File) int { return strings.Compare(x.Name, y.Name) })
	for _, f := range a.Files {
		p := filepath.Join(dir, filepath.Clean("/"+f.Name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
