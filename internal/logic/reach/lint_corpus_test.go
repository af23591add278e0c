package reach_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/testlab/corpus"
)

// TestLintOfRealRulesets: about rules that real tools made lint says what is true and
// worth saying, and nothing else.
func TestLintOfRealRulesets(t *testing.T) {
	want := map[string]string{
		"arno":              "icmpv6-blocked jump-to-empty no-antispoof",
		"calico-iptables":   "icmpv6-blocked",
		"calico-nftables":   "icmpv6-blocked",
		"docker-legacy-ufw": "no-antispoof",
		"fail2ban-ipset":    "no-antispoof",
		"fail2ban-nftables": "no-antispoof",
		"ferm":              "icmpv6-blocked no-antispoof",
		"firehol":           "icmpv6-blocked no-antispoof",
		"libvirt":           "no-antispoof",
		"lxc-net":           "no-antispoof",
		"nft-examples":      "no-antispoof unused-object",
		"sshguard":          "no-antispoof",
		"ufw-default":       "no-antispoof",
		"ufw-gateway":       "no-antispoof",
		"ufw-ipv4only":      "established-missing icmpv6-blocked no-antispoof",
		"ufw-legacy":        "no-antispoof",
		"uruk":              "log-unlimited no-antispoof",
	}
	for _, n := range corpus.Names() {
		e, err := corpus.Read(n)
		if err != nil {
			t.Fatal(err)
		}
		if _, known := want[n]; !known && e.Tool == "hand-written" {
			continue // those have what lint is for
		}
		var got []string
		for _, l := range reach.NewSpace(e.Snapshot, &e.Snapshot.Namespaces[0], nil, false).Lint() {
			if l.Severity != reach.Info && !slices.Contains(got, l.ID) {
				got = append(got, l.ID)
			}
		}
		slices.Sort(got)
		if s := strings.Join(got, " "); s != want[n] {
			t.Errorf("%s: got %q, want %q", n, s, want[n])
		}
	}
}
