package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sixfence/sixfence/internal/host/collect"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/testlab"
)

// recordedHost makes the router on which the packets of testdata/recorded were sent: an
// uplink, a network behind it, and a bridge for containers.
func recordedHost(t *testing.T) *testlab.NS {
	t.Helper()
	host, far := testlab.NewNS(t, "rh"), testlab.NewNS(t, "rf")
	for _, k := range []string{"all", "default"} {
		host.Sysctl("net/ipv6/conf/"+k+"/accept_dad", "0")
		host.Sysctl("net/ipv6/conf/"+k+"/accept_ra", "0")
		host.Sysctl("net/ipv6/conf/"+k+"/forwarding", "1")
		host.Sysctl("net/ipv4/conf/"+k+"/rp_filter", "0")
	}
	host.Sysctl("net/ipv4/ip_forward", "1")
	host.IP("link", "set", "lo", "up")
	testlab.Link(host, "wan0", far, "a0")
	testlab.Link(host, "lan0", far, "i0")
	testlab.Link(host, "vbr0", far, "c0")
	host.IP("link", "add", "br0", "type", "bridge")
	host.IP("link", "set", "vbr0", "master", "br0", "up")
	for dev, addrs := range map[string][]string{
		"wan0": {"203.0.113.1/24", "203.0.113.10/24", "2001:db8:1::1/64", "fe80::1:1/64"},
		"lan0": {"192.168.1.1/24", "2001:db8:2::1/64", "fe80::1:1/64"},
		"br0":  {"172.17.0.1/16", "2001:db8:3::1/64", "fe80::1:1/64"},
	} {
		host.IP("link", "set", dev, "up")
		for _, a := range addrs {
			args := []string{"addr", "add", a, "dev", dev}
			if strings.Contains(a, ":") {
				args = append(args, "nodad")
			} else {
				args = append(args, "brd", "+")
			}
			host.IP(args...)
		}
	}
	host.IP("route", "add", "default", "via", "203.0.113.2")
	host.IP("-6", "route", "add", "default", "via", "2001:db8:1::2")
	host.IP("route", "add", "10.8.0.0/24", "via", "192.168.1.2")
	host.IP("-6", "route", "add", "2001:db8:8::/64", "via", "2001:db8:2::2")
	return host
}

// TestRecordedPackets asks about packets that were really sent, at rulesets as people
// write them, and of which the kernel's verdict is known. No answer may contradict it,
// and none that was sure may become unknown.
func TestRecordedPackets(t *testing.T) {
	nft := testlab.RequireTool(t, "nft")
	files, err := filepath.Glob("testdata/recorded/*.txtar")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d recorded rulesets: %v", len(files), err)
	}
	host := recordedHost(t)
	script := filepath.Join(t.TempDir(), "ruleset.nft")
	asked := 0
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		part := map[string]string{}
		for _, f := range a.Files {
			part[f.Name] = string(f.Data)
		}
		if err := os.WriteFile(script, []byte("flush ruleset\n"+part["ruleset.nft"]), 0o600); err != nil {
			t.Fatal(err)
		}
		host.Run(nft, "-f", script)
		sp := recordedSpace(t, host)
		unknown, allowed := 0, 0
		if allowed, err = strconv.Atoi(strings.TrimSpace(part["unknown"])); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for line := range strings.Lines(part["packets"]) {
			kernel, text, _ := strings.Cut(strings.TrimSpace(line), " ")
			var q question
			if err := json.Unmarshal([]byte(text), &q); err != nil {
				t.Fatalf("%s: %s: %v", file, text, err)
			}
			p, h, err := q.packet()
			if err != nil {
				t.Fatalf("%s: %s: %v", file, text, err)
			}
			asked++
			switch got := sp.Verdict(p, h, q.OnlyHook); {
			case got.Verdict == reach.WordUnknown && slices.Contains(got.May, kernel):
				unknown++
			case got.Verdict != kernel:
				t.Errorf("%s: %s: %s %v, and the kernel said %s", filepath.Base(file), text, got.Verdict, got.May, kernel)
			}
		}
		if unknown > allowed {
			t.Errorf("%s: %d unknown, and there were %d", filepath.Base(file), unknown, allowed)
		}
	}
	if asked < 1000 {
		t.Errorf("only %d packets", asked)
	}
}

func recordedSpace(t *testing.T, ns *testlab.NS) *reach.Space {
	t.Helper()
	c, err := collect.Run(collect.Options{Elements: true})
	if err != nil {
		t.Fatal(err)
	}
	s := c.Snapshot()
	for i := range s.Namespaces {
		if s.Namespaces[i].ID.Inode == ns.Inode() {
			return reach.NewSpace(s, &s.Namespaces[i], nil, false)
		}
	}
	t.Fatal("the namespace was not collected")
	return nil
}
