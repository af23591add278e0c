package scratch_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sixfence/sixfence/internal/host/scratch"
	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/testlab"
)

func order() binary.ByteOrder {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// meaning is a ruleset as text, without handles, names that the kernel made up and the
// order of elements.
func meaning(t testing.TB, l *scratch.Loaded) []string {
	t.Helper()
	ts, err := pfdecode.FromFact(l.NFTables, order())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, x := range ts {
		out = append(out, fmt.Sprintf("table %s %s dormant %v", x.Family, x.Name, x.Dormant))
		for _, n := range slices.Sorted(maps.Keys(x.Sets)) {
			if !x.Sets[n].Anonymous {
				out = append(out, "set "+n+" "+elementsOf(x.Sets[n]))
			}
		}
		for _, c := range x.Chains {
			out = append(out, fmt.Sprintf("chain %s %s %+v", x.Name, c.Name, base(c)))
			for _, r := range c.Rules {
				s := ""
				for _, e := range r.Exprs {
					if k, ok := e.(rs.Lookup); ok && x.Sets[k.Set] != nil && x.Sets[k.Set].Anonymous {
						s += elementsOf(x.Sets[k.Set])
						k.Set = ""
						e = k
					}
					s += fmt.Sprintf(" %T%+v", e, e)
				}
				out = append(out, s+" "+r.Comment)
			}
		}
	}
	return out
}

func base(c *rs.Chain) rs.Base {
	if c.Base == nil {
		return rs.Base{Type: "regular"}
	}
	return *c.Base
}

func elementsOf(s *rs.Set) string {
	x := *s
	x.Name, x.ID, x.Elements = "", 0, nil
	x.Dynamic = false // nft 1.0.6 does not print it, and the kernel needs it not
	var list []string
	for _, e := range s.Elements {
		list = append(list, fmt.Sprintf("%+v", e))
	}
	slices.Sort(list)
	return fmt.Sprintf("%+v %s", x, list)
}

// rules are one rule of each kind that nft 1.0.6 and the test kernel know.
func rules(t testing.TB) []string {
	b, err := os.ReadFile("testdata/rules.txt")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

const around = `table inet f {
 counter c1 { }
 quota q1 { over 10 mbytes }
 limit l1 { rate 3/second }
 ct helper h1 { type "ftp" protocol tcp; }
 set s4 { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.1 } }
 set s6 { type ipv6_addr; elements = { ::1, ::2 } }
 set sc { type ipv6_addr . inet_service; flags interval; elements = { ::1 . 22-23 } }
 set dyn { type ipv4_addr; size 100; flags dynamic,timeout; }
 set dyn6 { type ipv6_addr . inet_service; size 100; flags dynamic,timeout; timeout 1m; }
 map vm { type inet_service : verdict; elements = { 22 : accept, 23 : jump other } }
 map vm4 { type ipv4_addr : verdict; flags interval; elements = { 10.0.0.0/8 : accept, 192.0.2.1 : drop } }
 map mm { type inet_service : mark; elements = { 22 : 3 } }
 chain other { tcp dport 9 drop; }
`

// zoo is all rules in one script, each in a chain of its own, on the hook that it needs.
func zoo(rules []string) string {
	var b strings.Builder
	b.WriteString(around)
	for i, r := range rules {
		hook := "type filter hook prerouting priority mangle"
		switch {
		case strings.Contains(r, "reject"):
			hook = "type filter hook input priority 0"
		case strings.Contains(r, "redirect"):
			hook = "type nat hook prerouting priority dstnat"
		}
		fmt.Fprintf(&b, " chain c%d { %s; policy drop\n  %s\n }\n", i, hook, r)
	}
	return b.String() + "}\n"
}

// listed is what nft -j list ruleset prints of a script.
func listed(t testing.TB, script string) []byte {
	t.Helper()
	n := testlab.NewNS(t, "json")
	c := n.Command("sh", "-c", "ip link add d0 type veth peer name d1 && nft -f - && nft -j list ruleset")
	c.Stdin = strings.NewReader(script)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestJSONSaysWhatTheScriptSays(t *testing.T) {
	testlab.RequireRoot(t)
	testlab.RequireTool(t, "nft")
	list := rules(t)
	script := zoo(list)
	direct := load(t, script)
	fromJSON, err := scratch.Load(t.Context(), scratch.Options{Scripts: []scratch.Script{{Name: "list", Text: listed(t, script), JSON: true}}})
	if err != nil {
		t.Fatal(err)
	}
	a, b := meaning(t, direct), meaning(t, fromJSON)
	if len(a) < 2*len(list) {
		t.Fatalf("%d lines of %d rules", len(a), len(list))
	}
	// nft folds this mask into a prefix when it prints.
	a = slices.DeleteFunc(a, func(s string) bool {
		return strings.Contains(s, "Base:1 Offset:12") && strings.Contains(s, "Mask:[255 0 0 0]")
	})
	b = slices.DeleteFunc(b, func(s string) bool {
		return strings.Contains(s, "Base:1 Offset:12 Len:1") && strings.Contains(s, "Data:[10]} ruleset.Conclude{Verdict:1")
	})
	if d := cmp.Diff(a, b); d != "" {
		t.Error(d)
	}
}

func TestJSONNeverLoadsWeaker(t *testing.T) {
	testlab.RequireRoot(t)
	const head = `{"nftables":[{"metainfo":{"version":"1.0.6"}},{"table":{"family":"ip","name":"filter"}},` +
		`{"chain":{"family":"ip","table":"filter","name":"INPUT","type":"filter","hook":"input","prio":0,"policy":"drop"}},`
	rule := func(expr string) string {
		return head + `{"rule":{"family":"ip","table":"filter","chain":"INPUT","expr":[` + expr + `]}}]}`
	}
	for name, c := range map[string]struct {
		text string
		want []string // kinds of expressions of the rule
		lost string
	}{
		"match of iptables":        {rule(`{"xt":{"type":"match","name":"tcp"}},{"counter":{"packets":0,"bytes":0}},{"accept":null}`), []string{"Opaque", "Nothing", "Conclude"}, `{"xt"`},
		"target of iptables":       {rule(`{"counter":{"packets":1,"bytes":2}},{"xt":{"type":"target","name":"REJECT"}}`), []string{"Nothing", "Opaque"}, `{"xt"`},
		"older":                    {rule(`{"xt":null}`), []string{"Opaque"}, `{"xt"`},
		"text in place of JSON":    {rule(`"goto {\n drop\n}"`), []string{"Opaque"}, "goto"},
		"statement of a newer nft": {rule(`{"teleport":{"to":"moon"}},{"accept":null}`), []string{"Opaque", "Conclude"}, "teleport"},
		"two keys":                 {rule(`{"accept":null,"counter":null}`), []string{"Opaque"}, "accept"},
	} {
		l, err := scratch.Load(t.Context(), scratch.Options{Scripts: []scratch.Script{{Name: "list", Text: []byte(c.text), JSON: true}}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ts, err := pfdecode.FromFact(l.NFTables, order())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range ts[0].Chains[0].Rules[0].Exprs {
			got = append(got, strings.TrimPrefix(fmt.Sprintf("%T", e), "ruleset."))
			if o, ok := e.(rs.Opaque); ok && !o.Ends {
				t.Errorf("%s: what was lost may have been a verdict", name)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if len(l.Opaque) != 1 || !strings.Contains(l.Opaque[0], c.lost) {
			t.Errorf("%s: lost %q, want %q", name, l.Opaque, c.lost)
		}
	}
	for name, c := range map[string][2]string{
		"a table that may be dormant": {`{"nftables":[{"table":{"family":"ip","name":"f","flags":"ether_addr"}}]}`, "dormant"},
		"a chain without its devices": {`{"nftables":[{"table":{"family":"netdev","name":"f"}},{"chain":{"family":"netdev","table":"f","name":"i","type":"filter","hook":"ingress","prio":0,"policy":"drop"}}]}`, "devices"},
		"a type nft cannot read back": {head + `{"map":{"family":"ip","name":"d","table":"filter","type":"inet_service","map":"ipv4_addr . inet_service","elem":[[1,{"concat":["10.0.0.1",3]}]]}}]}`, `"map": {"family":"ip","name":"d"`},
		"a chain that is not there":   {head + `{"rule":{"family":"ip","table":"filter","chain":"INPUT","expr":[{"jump":{"target":"gone"}}]}}]}`, `"gone"`},
		"commands":                    {`{"nftables":[{"add":{"table":{"family":"ip","name":"f"}}}]}`, `"add"`},
		"an object of a newer nft":    {`{"nftables":[{"hyperchain":{"family":"ip","name":"f"}}]}`, "hyperchain"},
		"broken":                      {`{"nftables":[{"table":`, "broken JSON"},
		"twice":                       {`{"nftables":[]} {"nftables":[]}`, "more than one"},
	} {
		_, err := scratch.Load(t.Context(), scratch.Options{Scripts: []scratch.Script{{Name: "list.json", Text: []byte(c[0]), JSON: true}}})
		r := refused(t, err)
		if r == nil || !strings.Contains(r.Error(), c[1]) || !strings.Contains(r.Error(), "list.json") {
			t.Errorf("%s: %v, want a refusal that says %q", name, err, c[1])
		}
	}
}
