package collect_test

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/packetfilter"
	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

var update = flag.Bool("update", false, "rewrite the rulesets of package check's tests")

// TestRuleFixtures holds that the rulesets of package check's tests are what this
// kernel makes of the scripts beside them.
func TestRuleFixtures(t *testing.T) {
	scripts, err := filepath.Glob("../../logic/check/testdata/nft/*.nft")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	ns := testlab.NewNS(t, "rules")
	for _, script := range scripts {
		b, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		c := ns.Command(testlab.RequireTool(t, "nft"), "-f", "-")
		c.Stdin = strings.NewReader("flush ruleset\n" + string(b))
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		var space fact.Namespace
		ns.Do(func() {
			a := ask.New(func(s string) bool { return !strings.HasPrefix(s, "ebtable") }, false)
			packetfilter.Read(a, ask.NewBudget("test", 10*time.Second, 1<<20, 1<<28), packetfilter.Options{Elements: true}).Decode(&space)
		})
		got, ok := space.PacketFilter.NFTables.Get()
		if !ok {
			t.Fatalf("%s: no ruleset", script)
		}
		file := strings.TrimSuffix(script, ".nft") + ".json"
		if *update {
			b, err := json.MarshalIndent(got, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		b, err = os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v: run this test with -update", err)
		}
		var want fact.NFTables
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if g, w := text(t, got), text(t, want); g != w {
			t.Errorf("%s is stale: run this test with -update\nkernel:\n%s\nfile:\n%s", file, g, w)
		}
	}
}

// text is a ruleset as people read it: handles and generations differ.
func text(t *testing.T, n fact.NFTables) string {
	t.Helper()
	var order binary.ByteOrder = binary.LittleEndian
	tables, err := pfdecode.FromFactWithSets(n, nil, order)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, tb := range tables {
		b.WriteString(tb.Family.String() + " " + tb.Name + "\n")
		for _, c := range tb.Chains {
			b.WriteString(" " + c.Name + "\n")
			for _, r := range c.Rules {
				b.WriteString("  " + r.Render(order, nil) + "\n")
			}
		}
	}
	return b.String()
}
