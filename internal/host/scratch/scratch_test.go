package scratch_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/scratch"
	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/testlab"
)

func load(t testing.TB, scripts ...string) *scratch.Loaded {
	t.Helper()
	var o scratch.Options
	for i, s := range scripts {
		o.Scripts = append(o.Scripts, scratch.Script{Name: fmt.Sprint("script", i), Text: []byte(s)})
	}
	l, err := scratch.Load(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func refused(t testing.TB, err error) *scratch.RefusedError {
	t.Helper()
	var r *scratch.RefusedError
	if err != nil && !errors.As(err, &r) {
		t.Errorf("%T: %v, want a refusal", err, err)
	}
	return r
}

// script is a file in a directory of its own, with others beside it.
func script(t testing.TB, text string, others map[string]string) scratch.Script {
	t.Helper()
	dir := t.TempDir()
	p := filepath.Join(dir, "fw", "main.nft")
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range others {
		q := filepath.Join(dir, "fw", name)
		if err := os.MkdirAll(filepath.Dir(q), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(q, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return scratch.Script{Name: p, Path: p, Text: []byte(text)}
}

const filter = "table inet f {\n chain i {\n  type filter hook input priority 0; policy drop\n  %s\n }\n}\n"

func TestInterfacesThatScriptsName(t *testing.T) {
	testlab.RequireRoot(t)
	for name, text := range map[string]string{
		"by number":            fmt.Sprintf(filter, `iif eth7 accept`),
		"not equal":            fmt.Sprintf(filter, `iif != "eth7" accept`),
		"a set":                fmt.Sprintf(filter, `iif { lo, eth6, "eth7" } accept`),
		"a definition":         "define wan = eth7\n" + fmt.Sprintf(filter, `iif $wan accept`),
		"a list of them":       "define a = eth6\ndefine wan = { $a, eth7 }\n" + fmt.Sprintf(filter, `iif $wan accept`),
		"a map":                fmt.Sprintf(filter, `iif vmap { eth7 : accept }`),
		"a concatenation":      fmt.Sprintf(filter, `meta iif . tcp dport { eth7 . 22 } accept`),
		"a named set":          "table inet f {\n set s { type iface_index; elements = { eth7 } }\n}\n",
		"typeof":               "table inet f {\n set s { typeof iif; elements = { eth7 } }\n}\n",
		"an element":           "table inet f {\n set s { type iface_index . inet_service; }\n}\nadd element inet f s { eth7 . 22 }\n",
		"ingress":              "table netdev f {\n chain i {\n type filter hook ingress device eth7 priority 0\n }\n}\n",
		"ingress of several":   "define d = { eth6, eth7 }\ntable netdev f {\n chain i {\n type filter hook ingress devices = $d priority 0\n }\n}\n",
		"ingress of inet":      "table inet f {\n chain i {\n type filter hook ingress device \"eth7\" priority 0\n }\n}\n",
		"a name with a dot":    fmt.Sprintf(filter, `iif eth7 accept; iif "eth7.100" accept; iif br-0a1b2c3d4e5f accept`),
		"a rule on its own":    "table inet f { chain i { }; }\nadd rule inet f i oif eth7 accept\n",
		"in a comment as well": "# iif \"no}thing\n" + fmt.Sprintf(filter, `iif eth7 accept # oif {`),
	} {
		l, err := scratch.Load(t.Context(), scratch.Options{Scripts: []scratch.Script{{Name: "x", Text: []byte(text)}}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		found := false
		for _, n := range l.Interfaces {
			found = found || n == "eth7"
		}
		if !found || l.Interfaces[1] != "lo" {
			t.Errorf("%s: interfaces %v", name, l.Interfaces)
		}
	}
	// Only names by number need one.
	if l := load(t, fmt.Sprintf(filter, `iifname eth7 accept`)); len(l.Interfaces) != 1 {
		t.Errorf("iifname makes %v", l.Interfaces)
	}
}

func TestNumbersOfTheHost(t *testing.T) {
	testlab.RequireRoot(t)
	l, err := scratch.Load(t.Context(), scratch.Options{
		Scripts:    []scratch.Script{{Name: "x", Text: []byte(fmt.Sprintf(filter, `iif { eth0, gone0 } accept`))}},
		Interfaces: []scratch.Interface{{Name: "lo", Index: 1}, {Name: "eth0", Index: 4711}, {Name: "eth1", Index: 2}, {Name: "eth2", Index: 3}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if l.Interfaces[4711] != "eth0" || !slices.Equal(l.Made, []string{"gone0"}) {
		t.Errorf("interfaces %v, made %v", l.Interfaces, l.Made)
	}
	for i, n := range l.Interfaces {
		if n == "gone0" && i < 1<<20 {
			t.Errorf("gone0 has number %d, which an interface of the host may have", i)
		}
	}
}

// TestScratchIsWhatALiveDumpIs compares with the same rules in an ordinary namespace,
// whose interfaces have other numbers.
func TestScratchIsWhatALiveDumpIs(t *testing.T) {
	testlab.RequireRoot(t)
	text := zoo(rules(t))
	a, b := meaning(t, load(t, text)), meaning(t, load(t, "flush ruleset\n", "table inet f\ndelete table inet f\n"+text))
	if !slices.Equal(a, b) {
		t.Error("a second script that replaces the first gives something else")
	}
	twice := load(t, "table inet f { chain i { }; }", "table inet f { chain i { tcp dport 1 drop; }; }\ntable ip6 g { }")
	ts, err := pfdecode.FromFact(twice.NFTables, order())
	if err != nil || len(ts) != 2 || len(ts[0].Chains) != 1 || len(ts[0].Chains[0].Rules) != 1 {
		t.Errorf("two scripts are one ruleset: %+v, %v", ts, err)
	}
	if l := load(t, "flush ruleset\n"); len(l.NFTables.Tables) != 0 || !l.NFTables.ElementsRead {
		t.Errorf("an empty ruleset: %+v", l.NFTables)
	}
}

func TestIncludes(t *testing.T) {
	testlab.RequireRoot(t)
	s := script(t, `include "x.d/*.nft"
include "./vars.nft"
include "nothing.d/*"
table inet f { chain i { type filter hook input priority 0; tcp dport $ports accept; }; }
`, map[string]string{
		"vars.nft": "define ports = { 22, 80 }\n", "x.d/a.nft": "table inet a { }\n", "x.d/b.nft": "include \"./x.d/deep/c.inc\"\n", "x.d/deep/c.inc": "table inet c { }\n", "x.d/not": "nonsense",
	})
	s.Text = append(s.Text, fmt.Sprintf("include %q\n", filepath.Join(filepath.Dir(s.Path), "x.d/deep/c.inc"))...)
	l, err := scratch.Load(t.Context(), scratch.Options{Scripts: []scratch.Script{s}})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.NFTables.Tables) != 3 || len(l.NFTables.Rules) != 1 {
		t.Errorf("%d tables, %d rules", len(l.NFTables.Tables), len(l.NFTables.Rules))
	}
	// An error in an included file names that file.
	s = script(t, "include \"./sub/bad.nft\"\n", map[string]string{"sub/bad.nft": "\ntable inet x { chian y { }; }\n"})
	_, err = scratch.Load(t.Context(), scratch.Options{Scripts: []scratch.Script{s}})
	if r := refused(t, err); r == nil || !strings.HasSuffix(r.Problems[0].File, "/sub/bad.nft") || r.Problems[0].Line != 2 || !strings.Contains(r.Problems[0].Text, "chian") {
		t.Errorf("%v", err)
	}
}

// TestConfined shows that a script reads nothing but its own directory.
func TestConfined(t *testing.T) {
	testlab.RequireRoot(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hunter2 is secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		make func(dir string) error
		want string
	}{
		"an absolute path":      {`include "/etc/shadow"`, nil, "outside"},
		"a readable file":       {`include "` + secret + `"`, nil, "outside"},
		"all files of a folder": {`include "` + filepath.Dir(secret) + `/*"`, nil, "outside"},
		"a way up":              {`include "../` + "outside.nft" + `"`, func(d string) error { return os.WriteFile(d+"/../outside.nft", []byte("hunter2"), 0o644) }, "outside"},
		"a way up from inside":  {`include "./a/../../outside.nft"`, func(d string) error { return os.WriteFile(d+"/../outside.nft", []byte("hunter2"), 0o644) }, "outside"},
		"a link out":            {`include "./l"`, func(d string) error { return os.Symlink(secret, d+"/l") }, "link that leads out"},
		"a link out by ..":      {`include "./l"`, func(d string) error { return os.Symlink("../outside.nft", d+"/l") }, "link that leads out"},
		"a folder that is one":  {`include "./l/*"`, func(d string) error { return os.Symlink(filepath.Dir(secret), d+"/l") }, ""},
		"a link among many":     {`include "./*.inc"`, func(d string) error { return os.Symlink(secret, d+"/l.inc") }, "link that leads out"},
		"a FIFO":                {`include "./p"`, func(d string) error { return unix.Mkfifo(d+"/p", 0o644) }, "not a regular file"},
		"a device":              {`include "./p"`, func(d string) error { return unix.Mknod(d+"/p", unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))) }, "not a regular file"},
		"proc":                  {`include "/proc/self/environ"`, nil, "outside"},
		"itself without end":    {`include "./main.nft"`, func(d string) error { return os.WriteFile(d+"/main.nft", []byte(`include "./main.nft"`), 0o644) }, "nested too deeply"},
		"names of hosts":        {fmt.Sprintf(filter, "ip saddr example.org accept"), nil, "resolve hostname"},
		"a control group":       {fmt.Sprintf(filter, `socket cgroupv2 level 1 "system.slice" accept`), nil, "cgroup"},
		"other wildcards":       {`include "./{a,b}*"`, nil, "wildcards"},
		"what old nft left out": {"table ip f {\n chain i {\n  tcp dport 22 # xt_recent counter drop\n }\n}\n", nil, "left a match out"},
	} {
		s := script(t, c.text+"\n", nil)
		if c.make != nil {
			if err := c.make(filepath.Dir(s.Path)); err != nil {
				t.Fatal(err)
			}
		}
		l, err := scratch.Load(t.Context(), scratch.Options{Scripts: []scratch.Script{s}})
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows what was read: %v", name, err)
		}
		if c.want == "" { // a folder that nft may not look into holds nothing for it
			if err == nil && len(l.NFTables.Tables) != 0 {
				t.Errorf("%s: loaded %+v", name, l)
			}
			continue
		}
		if r := refused(t, err); r == nil || !strings.Contains(r.Error(), c.want) {
			t.Errorf("%s: %v, want a refusal that says %q", name, err, c.want)
		}
	}
	s := scratch.Script{Name: "standard input", Text: []byte("include \"./x.nft\"\n")}
	_, err := scratch.Load(t.Context(), scratch.Options{Scripts: []scratch.Script{s}})
	if r := refused(t, err); r == nil || r.Problems[0].File != "standard input" || r.Problems[0].Line != 1 || !strings.Contains(r.Problems[0].Advice, "standard input") {
		t.Errorf("include from standard input: %v", err)
	}
}

// TestRefusalsNameTheLine shows the errors that people see most.
func TestRefusalsNameTheLine(t *testing.T) {
	testlab.RequireRoot(t)
	for name, c := range map[string]struct {
		text         string
		line         int
		reason, tell string
	}{
		"syntax":                     {fmt.Sprintf(filter, "tcp dprt 22 accept"), 4, "syntax error", ""},
		"no such chain":              {fmt.Sprintf(filter, "jump gone"), 4, "No such file", "kernel"},
		"no such set":                {fmt.Sprintf(filter, "ip saddr @gone accept"), 4, "No such file", ""},
		"no such user":               {fmt.Sprintf(filter, "meta skuid nosuchuser accept"), 4, "User does not exist", "write the number"},
		"no such service":            {fmt.Sprintf(filter, "tcp dport nosuchport accept"), 4, "resolve service", "write the number"},
		"of the kernel":              {fmt.Sprintf(filter, "queue num 3\n  tcp dport 22 accept"), 4, "No such file", "`queue`"},
		"the text before the kernel": {fmt.Sprintf(filter, "queue num 3\n  tcp dprt 22 accept"), 5, "syntax error", ""},
		"a loop":                     {"table inet f {\n chain a { jump b; }\n chain b { jump a; }\n chain i {\n type filter hook input priority 0\n jump a\n }\n}\n", 0, "Could not process rule", ""},
		"overlaps":                   {"table inet f {\n set s {\n  type ipv4_addr; flags interval\n  elements = { 10.0.0.0/8, 10.1.0.0/16 }\n }\n}\n", 4, "conflicting intervals", ""},
	} {
		_, err := scratch.Load(t.Context(), scratch.Options{Scripts: []scratch.Script{{Name: "rules.nft", Text: []byte(c.text)}}})
		r := refused(t, err)
		if r == nil {
			t.Errorf("%s: loaded", name)
			continue
		}
		p := r.Problems[0]
		if p.File != "rules.nft" || c.line != 0 && p.Line != c.line || !strings.Contains(p.Reason, c.reason) || !strings.Contains(p.Advice, c.tell) {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// TestNothingIsBeyondItsBounds gives nft more than it may take.
func TestNothingIsBeyondItsBounds(t *testing.T) {
	testlab.RequireRoot(t)
	s := script(t, "include \"./*\"\n", nil)
	for i := range 5000 {
		if err := os.WriteFile(fmt.Sprintf("%s/%d", filepath.Dir(s.Path), i), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, err := scratch.Load(t.Context(), scratch.Options{Scripts: []scratch.Script{s}})
	if r := refused(t, err); r == nil || !strings.Contains(r.Error(), "more than 4096 files") {
		t.Errorf("5000 files: %v", err)
	}
}

func TestNotes(t *testing.T) {
	testlab.RequireRoot(t)
	l := load(t, fmt.Sprintf(filter, "meta skuid { root, daemon } accept\n  meta skgid 0 drop"))
	if len(l.Notes) != 1 || !strings.Contains(l.Notes[0], "daemon") || strings.Contains(l.Notes[0], "root") {
		t.Errorf("notes %q", l.Notes)
	}
}
