package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/testlab"
)

type verifyDocument struct {
	Complete  bool
	Addresses []struct{ Address, Life string }
	Results   []struct {
		Target, Address, Family, Proto, State, Expected, Predicted, Verdict string
		Port                                                                int
	}
}

func nftIn(t *testing.T, n *testlab.NS, text string) {
	t.Helper()
	c := n.Command(testlab.RequireTool(t, "nft"), "-f", "-")
	c.Stdin = strings.NewReader(text)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
}

// TestVerify runs the binary against a host whose IPv6 rules were forgotten, and counts
// every packet that leaves for anybody else.
func TestVerify(t *testing.T) {
	t.Parallel()
	target, client := testlab.NewNS(t, "vt"), testlab.NewNS(t, "vc")
	for _, n := range []*testlab.NS{target, client} {
		for _, k := range []string{"all", "default"} {
			n.Sysctl("net/ipv6/conf/"+k+"/accept_dad", "0")
			n.Sysctl("net/ipv6/conf/"+k+"/router_solicitations", "0")
		}
	}
	testlab.Link(target, "t0", client, "c0")
	target.IP("addr", "add", "192.0.2.2/24", "dev", "t0")
	client.IP("addr", "add", "192.0.2.1/24", "dev", "c0")
	target.AddAddr("t0", "2001:db8::2/64")
	client.AddAddr("c0", "2001:db8::1/64")
	target.Do(func() {
		for _, p := range []string{":22", ":5432"} {
			l, err := net.Listen("tcp", p)
			if err != nil {
				t.Errorf("listen: %v", err)
				return
			}
			t.Cleanup(func() { _ = l.Close() })
		}
	})
	nftIn(t, target, "table ip f {\nchain i {\ntype filter hook input priority 0; policy drop;\ntcp dport 22 accept\nmeta l4proto icmp accept\n}\n}\n")
	dir := t.TempDir()
	snap, want := filepath.Join(dir, "t.json"), filepath.Join(dir, "e.yaml")
	// All namespaces of this machine are in it, so it may end with a gap; not without a file.
	_ = target.Command(binary, "snapshot", "-o", snap).Run()
	if _, err := os.Stat(snap); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(want, []byte("expect:\n  tcp/22: open\n  \"*\": filtered\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	nftIn(t, client, "table inet watch {\ncounter other {\n}\nchain o {\ntype filter hook output priority 0;\noifname lo accept\n"+
		"icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept\nip daddr 192.0.2.2 accept\nip6 daddr 2001:db8::2 accept\ncounter name other\n}\n}\n")

	run := func(n *testlab.NS, args ...string) (verifyDocument, int) {
		t.Helper()
		c := n.Command(binary, append([]string{"verify", "--format", "json"}, args...)...)
		var complaint strings.Builder
		c.Stderr = &complaint
		out, err := c.Output()
		code := 0
		var e *exec.ExitError
		if errors.As(err, &e) {
			code = e.ExitCode()
		}
		var d verifyDocument
		if err := json.Unmarshal(out, &d); err != nil {
			t.Fatalf("%v: %v\n%s%s", args, err, out, complaint.String())
		}
		keepsSchema(t, "verify", out)
		return d, code
	}
	show := func(d verifyDocument) (out []string) {
		for _, r := range d.Results {
			out = append(out, fmt.Sprintf("%s %s/%d %s expected %s predicted %s: %s", r.Family, r.Proto, r.Port, r.State, r.Expected, r.Predicted, r.Verdict))
		}
		return out
	}
	ports := "tcp/22,tcp/80,tcp/5432"
	d, code := run(client, "192.0.2.2", "2001:db8::2", "--ports", ports, "--expect", want, "--snapshot", snap)
	wanted := []string{
		"ipv4 tcp/22 open expected open predicted open: match",
		"ipv4 tcp/80 filtered expected filtered predicted filtered: match",
		"ipv4 tcp/5432 filtered expected filtered predicted filtered: match",
		"ipv6 tcp/22 open expected open predicted open: match",
		"ipv6 tcp/80 closed expected filtered predicted closed: policy",
		"ipv6 tcp/5432 open expected filtered predicted open: policy",
	}
	if got := show(d); !slices.Equal(got, wanted) || code != 1 || !d.Complete {
		t.Errorf("exit %d:\n%s\nwant exit 1:\n%s", code, strings.Join(got, "\n"), strings.Join(wanted, "\n"))
	}

	// Something between drops SSH: the rules and the wish agree, the wire does not.
	nftIn(t, client, "table netdev mid {\nchain i {\ntype filter hook egress device c0 priority 0;\nip daddr 192.0.2.2 tcp dport 22 drop\n}\n}\n")
	d, _ = run(client, "192.0.2.2", "--ports", "tcp/22,tcp/80", "--expect", want, "--snapshot", snap)
	if got := show(d); len(got) != 2 || got[0] != "ipv4 tcp/22 filtered expected open predicted open: between" {
		t.Errorf("%v", got)
	}
	client.Run("nft", "delete", "table", "netdev", "mid")

	// The rules are mended, and the Snapshot is old.
	nftIn(t, target, "table ip6 g {\nchain i {\ntype filter hook input priority 0; policy drop;\ntcp dport 22 accept\nmeta l4proto icmpv6 accept\n}\n}\n")
	d, code = run(client, "2001:db8::2", "--ports", ports, "--expect", want, "--snapshot", snap)
	if got := show(d); len(got) != 3 || got[2] != "ipv6 tcp/5432 filtered expected filtered predicted open: model" {
		t.Errorf("exit %d: %v", code, got)
	}
	d, code = run(client, "192.0.2.2", "2001:db8::2", "--ports", ports, "--expect", want)
	if slices.ContainsFunc(d.Results, func(r struct {
		Target, Address, Family, Proto, State, Expected, Predicted, Verdict string
		Port                                                                int
	},
	) bool {
		return r.Verdict != "match"
	}) || code != 0 {
		t.Errorf("exit %d: %v", code, show(d))
	}

	// Its rules for ICMPv6 let Packet Too Big in; those that come now do not.
	path := func(want string, exit int) {
		t.Helper()
		c := client.Command(binary, "verify", "2001:db8::2", "--ports", "tcp/22", "--path", "--format", "json")
		out, _ := c.Output()
		keepsSchema(t, "verify", out)
		if !strings.Contains(string(out), want) || c.ProcessState.ExitCode() != exit {
			t.Errorf("--path: exit %d, want %d and %s\n%s", c.ProcessState.ExitCode(), exit, want, out)
		}
	}
	path(`"path":{"verdict":"honoured","linkMTU":1500,"mtu":1500}`, 0)
	nftIn(t, target, "table ip6 p {\nchain i {\ntype filter hook input priority -1;\nicmpv6 type packet-too-big drop\n}\n}\n")
	target.IP("-6", "route", "flush", "cache")
	path(`"control":"VERIFY-05"`, 1)
	target.Run("nft", "delete", "table", "ip6", "p")

	// Found for two seconds, and nobody here would make anything forgotten: no pass.
	c := client.Command(binary, "verify", "2001:db8::2", "--ports", "tcp/22", "--soak=2s", "--format", "json")
	out, _ := c.Output()
	keepsSchema(t, "verify", out)
	if !strings.Contains(string(out), `"soak":{"verdict":"unknown","why":"no MLD querier`) || !strings.Contains(string(out), `"control":"VERIFY-06"`) || c.ProcessState.ExitCode() != 3 {
		t.Errorf("--soak: exit %d\n%s", c.ProcessState.ExitCode(), out)
	}

	// From the target itself everything is loopback: nothing passes.
	d, code = run(target, "2001:db8::2", "--ports", "tcp/22", "--expect", want)
	if len(d.Results) != 1 || d.Results[0].Verdict != "unknown" || code != 3 {
		t.Errorf("exit %d: %v", code, show(d))
	}
	// An ordinary user connects, and sees the same.
	var who strings.Builder
	c = client.Command("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", binary, "verify", "192.0.2.2", "2001:db8::2", "--ports", ports, "--format", "json")
	c.Stdout = &who
	_ = c.Run()
	if err := json.Unmarshal([]byte(who.String()), &d); err != nil || len(d.Results) != 6 || d.Results[0].State != "open" || d.Results[5].State != "filtered" {
		t.Errorf("unprivileged: %v %v", err, show(d))
	}
	if out := client.Run("nft", "list", "counter", "inet", "watch", "other"); !strings.Contains(out, "packets 0 ") {
		t.Errorf("something was sent to others:\n%s", out)
	}

	// Interrupted, it says what is known; with a state file the next run goes on.
	state := filepath.Join(dir, "state.json")
	var half strings.Builder
	c = client.Command(binary, "verify", "192.0.2.2", "--ports", "tcp/1-20000", "--rate", "300", "--state", state, "--format", "json")
	c.Stdout = &half
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	testlab.Eventually(t, 60*time.Second, "the state file", func() bool {
		b, err := os.ReadFile(state)
		return err == nil && strings.Contains(string(b), `"tcp"`)
	})
	_ = c.Process.Signal(os.Interrupt)
	_ = c.Wait()
	if err := json.Unmarshal([]byte(half.String()), &d); err != nil || d.Complete {
		t.Errorf("interrupted: %v, complete %v", err, d.Complete)
	}
	// A terminal that is gone takes the answer to its file no less.
	lost := filepath.Join(dir, "lost.json")
	c = client.Command(binary, "verify", "192.0.2.2", "--ports", "tcp/1-20000", "--rate", "300", "--state", state, "--format", "json", "-o", lost)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(state)
	if err != nil {
		t.Fatal(err)
	}
	testlab.Eventually(t, 60*time.Second, "the state file again", func() bool {
		now, err := os.Stat(state)
		return err == nil && now.ModTime().After(before.ModTime())
	})
	_ = c.Process.Signal(syscall.SIGHUP)
	_ = c.Wait()
	if b, err := os.ReadFile(lost); err != nil || !strings.Contains(string(b), `"complete":false`) || c.ProcessState.ExitCode() != 3 {
		t.Errorf("hang-up: %v, exit %d", err, c.ProcessState.ExitCode())
	}
	d, _ = run(client, "192.0.2.2", "--ports", "tcp/22,tcp/80", "--state", state)
	if len(d.Results) != 2 || !d.Complete {
		t.Errorf("resumed: %v", show(d))
	}
}

// TestVerifyAsksEveryAddressOfAName: a real DNS server has A and AAAA records of a host, and
// of one that has the one family only. Besides the addresses of the name, the resolver alone
// is asked.
func TestVerifyAsksEveryAddressOfAName(t *testing.T) {
	t.Parallel()
	target, client := testlab.NewNS(t, "vnt"), testlab.NewNS(t, "vnc")
	for _, n := range []*testlab.NS{target, client} {
		for _, k := range []string{"all", "default"} {
			n.Sysctl("net/ipv6/conf/"+k+"/accept_dad", "0")
			n.Sysctl("net/ipv6/conf/"+k+"/router_solicitations", "0")
		}
	}
	testlab.Link(target, "t0", client, "c0")
	for _, a := range []string{"192.0.2.2/24", "192.0.2.3/24", "192.0.2.53/24"} {
		target.IP("addr", "add", a, "dev", "t0")
	}
	client.IP("addr", "add", "192.0.2.1/24", "dev", "c0")
	for _, a := range []string{"2001:db8::2/64", "2001:db8::3/64"} {
		target.AddAddr("t0", a)
	}
	client.AddAddr("c0", "2001:db8::1/64")
	target.Do(func() {
		l, err := net.Listen("tcp", ":22")
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = l.Close() })
	})
	nftIn(t, target, "table ip6 f {\nchain i {\ntype filter hook input priority 0;\nip6 daddr 2001:db8::3 tcp dport 22 drop\n}\n}\n")
	dir := t.TempDir()
	target.Start(testlab.RequireTool(t, "dnsmasq"), "--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address=192.0.2.53", "--conf-file=/dev/null",
		"--pid-file="+filepath.Join(dir, "dnsmasq.pid"), "--user=root", "--local=/example/",
		"--host-record=web.example,192.0.2.2,2001:db8::2", "--host-record=web.example,192.0.2.3,2001:db8::3", "--host-record=old.example,192.0.2.3")
	testlab.Eventually(t, 30*time.Second, "dnsmasq to listen", func() bool { return strings.Contains(target.Run("ss", "-Hnul"), "192.0.2.53:53") })
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 192.0.2.53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	nftIn(t, client, "table inet watch {\ncounter other {\n}\nchain o {\ntype filter hook output priority 0;\noifname lo accept\n"+
		"icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept\nip daddr { 192.0.2.2, 192.0.2.3 } accept\nip6 daddr { 2001:db8::2, 2001:db8::3 } accept\n"+
		"ip daddr 192.0.2.53 udp dport 53 accept\ncounter name other\n}\n}\n")
	run := func(name string) (verifyDocument, string) {
		t.Helper()
		c := client.Command("unshare", "-m", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"", resolv, binary, "verify", "--format", "json", "--ports", "tcp/22", name)
		var complaint strings.Builder
		c.Stderr = &complaint
		out, _ := c.Output() // a family that differs is a finding, and so its status
		var d verifyDocument
		if err := json.Unmarshal(out, &d); err != nil {
			t.Fatalf("%s: %v\n%s%s", name, err, out, complaint.String())
		}
		return d, complaint.String()
	}
	d, _ := run("web.example")
	var got []string
	for _, r := range d.Results {
		got = append(got, r.Target+" "+r.Address+" "+r.State)
	}
	want := []string{"web.example 192.0.2.2 open", "web.example 192.0.2.3 open", "web.example 2001:db8::2 open", "web.example 2001:db8::3 filtered"}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	d, said := run("old.example")
	if len(d.Results) != 1 || d.Results[0].Address != "192.0.2.3" || !strings.Contains(said, "only ipv4 addresses") {
		t.Errorf("%+v\n%s", d.Results, said)
	}
	if out := client.Run("nft", "list", "counter", "inet", "watch", "other"); !strings.Contains(out, "packets 0 ") {
		t.Errorf("something was sent to others:\n%s", out)
	}
}
