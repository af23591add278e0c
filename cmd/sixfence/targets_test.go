package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/testlab"
)

// TestTargets gives a real scanner what targets prints, and asks it what it read.
func TestTargets(t *testing.T) {
	t.Parallel()
	nmap := testlab.RequireTool(t, "nmap")
	host, other := testlab.NewNS(t, "tgh"), testlab.NewNS(t, "tgo")
	for _, n := range []*testlab.NS{host, other} {
		n.Sysctl("net/ipv6/conf/default/router_solicitations", "0")
		n.Sysctl("net/ipv6/conf/default/accept_dad", "0")
	}
	testlab.Link(host, "e0", other, "e0")
	other.AddAddr("e0", "2001:db8:9::9/64")
	host.AddAddr("e0", "2001:db8::1/64")
	host.AddAddr("e0", "fd00::1/64")
	host.IP("addr", "add", "2001:db8::d/64", "dev", "e0", "valid_lft", "90000", "preferred_lft", "0", "nodad")
	host.IP("addr", "add", "192.0.2.1/24", "dev", "e0")
	host.IP("addr", "add", "192.0.2.7/24", "dev", "e0")
	host.IP("link", "add", "down0", "type", "veth", "peer", "name", "down1")
	host.IP("addr", "add", "2001:db8:5::5/64", "dev", "down0", "nodad")
	host.IP("addr", "add", "::ffff:192.0.2.33/128", "dev", "e0", "nodad")
	host.IP("-6", "route", "add", "local", "2001:db8:a11::/64", "dev", "lo")
	// Its neighbour has the same address: it is a duplicate. Where there is nobody to ask,
	// it stays tentative.
	host.IP("link", "add", "dup0", "type", "veth", "peer", "name", "dup1", "netns", other.Name)
	other.IP("link", "set", "dup1", "up")
	other.AddAddr("dup1", "2001:db8:7::7/64")
	host.Sysctl("net/ipv6/conf/dup0/accept_dad", "1")
	host.IP("link", "set", "dup0", "up")
	host.IP("addr", "add", "2001:db8:7::7/64", "dev", "dup0")
	host.IP("link", "add", "ten0", "type", "veth", "peer", "name", "ten1")
	host.Sysctl("net/ipv6/conf/ten0/accept_dad", "1")
	host.IP("link", "set", "ten0", "up")
	host.IP("addr", "add", "2001:db8:6::6/64", "dev", "ten0")
	testlab.Eventually(t, 30*time.Second, "the kernel to find the duplicate", func() bool {
		return strings.Contains(host.IP("-6", "addr", "show", "dev", "dup0"), "dadfailed")
	})

	snap := filepath.Join(t.TempDir(), "s.json")
	_ = host.Command(binary, "snapshot", "-o", snap).Run() // gaps are no matter
	run := func(args ...string) (string, string, int) {
		t.Helper()
		c := host.Command(binary, append([]string{"targets"}, args...)...)
		var complaint strings.Builder
		c.Stderr = &complaint
		out, err := c.Output()
		code := 0
		if e := (*exec.ExitError)(nil); errors.As(err, &e) {
			code = e.ExitCode()
		}
		return string(out), complaint.String(), code
	}
	// What nmap makes of the list.
	reads := func(list string, six bool) []string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "list")
		if err := os.WriteFile(file, []byte(list), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"-n", "-sL", "-iL", file}
		if six {
			args = append(args, "-6")
		}
		out, err := host.Command(nmap, args...).CombinedOutput()
		if err != nil || strings.Contains(string(out), "Failed") {
			t.Errorf("nmap: %v\n%s", err, out)
		}
		var got []string
		for line := range strings.Lines(string(out)) {
			if a, ok := strings.CutPrefix(strings.TrimSpace(line), "Nmap scan report for "); ok {
				got = append(got, a)
			}
		}
		return got
	}
	six := []string{"2001:db8::1", "2001:db8::d", "fd00::1"}
	four := []string{"192.0.2.1", "192.0.2.7"}
	for name, from := range map[string][]string{"live": nil, "snapshot": {"--snapshot", snap}} {
		list, said, code := run(append(from, "--format", "nmap")...)
		if got := reads(list, true); !slices.Equal(got, six) || code != 0 {
			t.Errorf("%s: exit %d, nmap reads %v, want %v\n%s", name, code, got, six, list)
		}
		for _, w := range []string{"other network namespaces", "link-local", "tentative", "duplicates", "down", "IPv4-mapped", "2001:db8:a11::/64"} {
			if !strings.Contains(said, w) {
				t.Errorf("%s: nothing is said about %s: %s", name, w, said)
			}
		}
		if list, _, _ = run(append(from, "--format", "nmap", "--family", "ipv4")...); !slices.Equal(reads(list, false), four) {
			t.Errorf("%s: %q", name, list)
		}
	}
	list, _, _ := run("--format", "nmap", "--zone", "e0")
	if got := reads(list, true); len(got) <= len(six) || strings.Count(list, "fe80::") != strings.Count(list, "%e0\n") {
		t.Errorf("with a zone: %v\n%s", got, list)
	}
	if list, _, _ = run("--format", "gvm", "--family", "both"); list != strings.Join(append(slices.Clone(four), six...), ",")+"\n" {
		t.Errorf("gvm: %q", list)
	}
	list, _, _ = run("--format", "gvm-xml")
	var target struct {
		XMLName xml.Name `xml:"create_target"`
		Name    string   `xml:"name"`
		Hosts   string   `xml:"hosts"`
		Ports   string   `xml:"port_range"`
	}
	if err := xml.Unmarshal([]byte(list), &target); err != nil || target.Hosts != strings.Join(six, ",") || target.Name == "" || target.Ports == "" {
		t.Errorf("gvm-xml: %v %+v", err, target)
	}
	list, _, _ = run("--format", "nuclei")
	for i, line := range strings.Split(strings.TrimSpace(list), "\n") {
		if h, _, err := net.SplitHostPort(line + ":443"); err != nil || h != six[i] {
			t.Errorf("nuclei: %q %v", line, err)
		}
	}

	list, _, code := run("--format", "json", "--family", "both", "--netns", "all")
	var doc struct {
		Targets []struct {
			Address, Scope, NetNS, Interface, Excluded string
			Labels                                     []string
			ValidSeconds                               int
		}
		Prefixes []string
	}
	if err := json.Unmarshal([]byte(list), &doc); err != nil || code != 0 {
		t.Fatalf("exit %d %v", code, err)
	}
	keepsSchema(t, "targets", []byte(list))
	want := map[string]string{
		"2001:db8::1 self": "", "2001:db8::d self": "", "2001:db8:5::5 self": "interface-down", "2001:db8:7::7 self": "duplicate", "2001:db8:6::6 self": "tentative",
		"::ffff:192.0.2.33 self": "mapped", "::1 self": "loopback", "127.0.0.1 self": "loopback", "2001:db8:9::9 " + other.Name: "", "192.0.2.7 self": "",
	}
	for _, x := range doc.Targets {
		k := x.Address + " " + x.NetNS
		if w, ok := want[k]; ok && w == x.Excluded {
			delete(want, k)
		}
		if x.Address == "2001:db8::d" && x.NetNS == "self" && (!slices.Equal(x.Labels, []string{"deprecated"}) || x.ValidSeconds == 0) {
			t.Errorf("%+v", x)
		}
	}
	if !slices.Equal(doc.Prefixes, []string{"2001:db8:a11::/64"}) {
		t.Errorf("prefixes %v", doc.Prefixes)
	}
	if len(want) > 0 {
		t.Errorf("not so: %v\n%.3000s", want, list)
	}
	for _, args := range [][]string{{"--format", "nmap", "--family", "both"}, {"--netns", "nowhere"}, {"--zone", "a b"}, {"--format", "gvm", "--zone", "e0"}, {"--format", "xml"}, {"--snapshot", "/nonexistent"}} {
		if _, said, code := run(args...); code != 2 || !strings.Contains(said, "hint: ") {
			t.Errorf("%v: exit %d\n%s", args, code, said)
		}
	}
	// An empty list looks like a host without addresses.
	empty := testlab.NewNS(t, "tge")
	c := empty.Command(binary, "targets", "--format", "nmap")
	if err := c.Run(); c.ProcessState.ExitCode() != 3 {
		t.Errorf("no address: %v", err)
	}
}
