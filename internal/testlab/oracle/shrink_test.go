package oracle

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// TestShrink plants a bug, so that the program has a mismatch to make small: one rule
// and one packet are left, and what is kept of them shows the bug again.
func TestShrink(t *testing.T) {
	l := NewLab(t)
	bug := func(set *rs.Ruleset) { // != is ==
		for _, table := range set.Tables {
			for _, c := range table.Chains {
				for _, r := range c.Rules {
					for i, e := range r.Exprs {
						if x, ok := e.(rs.Cmp); ok && x.Op == rs.Neq {
							x.Op = rs.Eq
							r.Exprs[i] = x
						}
					}
				}
			}
		}
	}
	script := `table inet other {
 set s0 { typeof ip saddr; elements = { 24.1.1.1, 24.1.1.2 }; }
 chain c1 {
  type filter hook prerouting priority -300; policy accept;
  ip saddr @s0 drop comment "c1"
  udp dport 53 accept comment "c2"
 }
}
table inet mine {
 set s1 { typeof tcp dport; elements = { 22, 80 }; }
 chain c0_1 {
  meta mark 1 drop comment "c3"
  tcp dport @s1 accept comment "c4"
 }
 chain c0_0 {
  tcp dport 22 jump c0_1 comment "c5"
  tcp dport != 443 drop comment "c6"
 }
 chain c0 {
  type filter hook input priority 0; policy accept;
  ip protocol icmp accept comment "c7"
  ip saddr 24.0.0.0/8 jump c0_0 comment "c8"
  meta l4proto udp drop comment "c9"
 }
}
`
	c := &Case{Script: script, Interfaces: l.names, Host: l.facts, bug: bug}
	for i, port := range []uint16{22, 443, 8080, 9} {
		c.Shapes = append(c.Shapes, Shape{Dst: localAddrs[0], Proto: protoTCP, Sport: 4000, Dport: port, Flags: 2, HopLimit: 64, MAC: [2]byte{2, 0}, Ct: 8})
		c.Probes = append(c.Probes, Probe{i, netip.MustParseAddr("24.9.9.9")})
	}
	if err := l.Load(script); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.NFT, err = l.Dump(); err != nil {
		t.Fatal(err)
	}
	if c.Accepted, err = l.Fire(c.Shapes, c.Probes); err != nil {
		t.Fatal(err)
	}
	out, err := c.Compare(nil, 5)
	if err != nil || len(out.Mismatches) == 0 {
		t.Fatalf("the planted bug shows no mismatch: %v", err)
	}
	small := l.Shrink(c, out.Mismatches[0])
	if small == nil {
		t.Fatal("the mismatch does not show with its packet alone")
	}
	if n := strings.Count(small.Script, "comment"); n > 2 || !strings.Contains(small.Script, "!= 443") || strings.Contains(small.Script, "other") || strings.Contains(small.Script, " set ") {
		t.Errorf("%d rules are left:\n%s", n, small.Script)
	}
	name := filepath.Join(t.TempDir(), "kept.txtar")
	if err := os.WriteFile(name, small.Format(), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := ParseCase(b)
	if err != nil {
		t.Fatal(err)
	}
	kept.bug = bug
	if out, err = l.Replay(kept); err != nil || len(out.Mismatches) == 0 {
		t.Errorf("what was kept does not show the bug: %v", err)
	}
	kept.bug = nil
	if out, err = l.Replay(kept); err != nil || len(out.Mismatches) > 0 {
		t.Errorf("what was kept shows a mismatch without the bug: %v %v", err, out)
	}
}
