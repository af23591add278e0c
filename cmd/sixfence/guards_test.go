package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/testlab"
)

// TestVerifyGuards runs the binary on a host with a guard that looks at the first header
// only, and on one with a good one; live, by a Snapshot, and as somebody who may read no
// rules.
func TestVerifyGuards(t *testing.T) {
	t.Parallel()
	v, far := testlab.NewNS(t, "gcv"), testlab.NewNS(t, "gca")
	for _, k := range []string{"all", "default"} {
		v.Sysctl("net/ipv6/conf/"+k+"/accept_dad", "0")
		v.Sysctl("net/ipv6/conf/"+k+"/router_solicitations", "0")
		v.Sysctl("net/ipv6/conf/"+k+"/accept_redirects", "0")
	}
	testlab.Link(v, "v0", far, "a0")
	v.AddAddr("v0", "2001:db8:1::10/64")
	v.IP("-6", "route", "add", "default", "via", "fe80::1", "dev", "v0", "proto", "ra")
	v.IP("-6", "neigh", "replace", "fe80::1", "lladdr", "52:54:00:00:00:01", "dev", "v0", "nud", "permanent")
	type attempt struct {
		Group, Name, Verdict string
		Changed              []string
	}
	run := func(code int, args ...string) (out string, by map[string]int) {
		t.Helper()
		c := v.Command(args[0], args[1:]...)
		var complaint strings.Builder
		c.Stderr = &complaint
		b, _ := c.Output()
		var d struct {
			Guards struct {
				Interfaces []struct {
					Attacks []attempt
					Control *attempt
				}
			}
		}
		if err := json.Unmarshal(b, &d); err != nil || c.ProcessState.ExitCode() != code {
			t.Fatalf("%v: exit %d, want %d: %v\n%.3000s%s", args, c.ProcessState.ExitCode(), code, err, b, complaint.String())
		}
		keepsSchema(t, "verify", b)
		by = map[string]int{}
		for _, i := range d.Guards.Interfaces {
			for _, a := range i.Attacks {
				by[a.Verdict]++
			}
			if i.Control != nil {
				by["control "+i.Control.Verdict]++
			}
		}
		return string(b), by
	}
	live := []string{binary, "verify", "--guards", "--format", "json"}
	out, by := run(1, live...)
	if by["taken"] != 13 || by["control taken"] != 1 || !strings.Contains(out, `"control":"VERIFY-07"`) {
		t.Errorf("without rules: %v", by)
	}
	nftIn(t, v, "table inet g {\nchain i {\ntype filter hook prerouting priority -450;\nip6 nexthdr icmpv6 icmpv6 type nd-router-advert ip6 saddr != fe80::1 drop\nether saddr != 52:54:00:00:00:01 icmpv6 type nd-router-advert ip6 saddr fe80::1 drop\n}\n}\n")
	if _, by = run(1, live...); by["taken"] != 4 || by["control taken"] != 1 {
		t.Errorf("first header: %v", by)
	}
	v.Run("nft", "delete", "table", "inet", "g")
	nftIn(t, v, "table inet g {\nchain i {\ntype filter hook prerouting priority -450;\nicmpv6 type nd-router-advert ip6 saddr != fe80::1 drop\nether saddr != 52:54:00:00:00:01 icmpv6 type nd-router-advert drop\n}\n}\n")
	before := v.Run("nft", "list", "ruleset") + v.Run("ip", "-6", "route")
	if _, by = run(0, live...); by["taken"] != 0 || by["stopped"] < 100 || by["control taken"] != 1 {
		t.Errorf("last header: %v", by)
	}
	snap := filepath.Join(t.TempDir(), "v.json")
	_ = v.Command(binary, "snapshot", "-o", snap).Run()
	if st, err := os.Stat(snap); err != nil || st.Size() == 0 {
		t.Fatalf("snapshot: %v", err)
	}
	if _, by = run(0, append(live, "--snapshot", snap)...); by["taken"] != 0 || by["control taken"] != 1 {
		t.Errorf("snapshot: %v", by)
	}
	// Rules that cannot be read may do anything.
	if out, _ = run(3, append([]string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"}, live...)...); !strings.Contains(out, `"status":"unknown"`) {
		t.Errorf("unprivileged: %s", out)
	}
	if after := v.Run("nft", "list", "ruleset") + v.Run("ip", "-6", "route"); after != before {
		t.Errorf("the host was touched:\n%s\nwas:\n%s", after, before)
	}
	text, _ := v.Command(binary, "verify", "--guards").Output()
	if s := string(text); !strings.Contains(s, "\nPASS") || !strings.Contains(s, "its router is fe80::1 52:54:00:00:00:01") {
		t.Errorf("text:\n%s", s)
	}
}
