// Package internal holds no code: its tests keep the layers below it apart.
//
// The folder under internal/ is the layer. Imports point downwards only:
// surface, engine, then host and logic side by side, then model. The linter says the
// same (.golangci.yml); these tests say it without the linter.
package internal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/sixfence/sixfence/"

// pkg is the part of `go list -json` that the rules look at.
type pkg struct {
	ImportPath   string
	Dir          string
	Doc          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

// layer is "model", "logic", "host", "engine", "surface", "testlab", "cmd" or
// "" for what is not ours.
func layer(path string) string {
	rest, ours := strings.CutPrefix(path, module)
	if !ours {
		return ""
	}
	if rest, ok := strings.CutPrefix(rest, "internal/"); ok {
		if rest == "testlab/oracle" || strings.HasPrefix(rest, "testlab/oracle/") {
			return "oracle" // compares the kernel with the model, and so sees both
		}
		l, _, _ := strings.Cut(rest, "/")
		return l
	}
	l, _, _ := strings.Cut(rest, "/")
	return l
}

// below lists, per layer, the layers it may import.
var below = map[string][]string{
	"model":   {"model"},
	"logic":   {"logic", "model"},
	"host":    {"host", "model"},
	"engine":  {"engine", "host", "logic", "model"},
	"surface": {"surface", "engine", "host", "logic", "model"},
	"bench":   {"surface", "engine", "host", "logic", "model"},
	"cmd":     {"surface"},
	"testlab": {"testlab", "host", "logic", "model"},
	"oracle":  {"oracle", "testlab", "host", "logic", "model"},
}

// hostMayUse are the parts of logic that host may import: encoders, no judgement.
var hostMayUse = []string{module + "internal/logic/ndisc"}

// impure tells whether an import brings I/O, a clock or chance into model or logic.
func impure(path string) bool {
	if strings.HasPrefix(path, module) {
		return false // what our own layers may import is said above
	}
	for _, exact := range []string{"net", "log", "plugin", "syscall", "C", "math/rand", "math/rand/v2", "crypto/rand", "io/ioutil", "testing"} {
		if path == exact {
			return true
		}
	}
	if path == "net/netip" || path == "net/url" { // they read text, and nothing else
		return false
	}
	for _, prefix := range []string{"os/", "net/", "log/", "runtime/", "database/"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	first, _, _ := strings.Cut(path, "/")
	return path == "os" || strings.Contains(first, ".") // somebody's module: pure packages use the standard library alone
}

// allowed importers of what only few may touch.
var onlyFrom = map[string][]string{
	"os/exec":                       {"internal/host/run", "internal/testlab", "internal/testlab/oracle", "internal/testlab/oracle/mutants"},
	module + "internal/host/mutate": {"internal/engine/apply", "internal/engine/watch"},
	module + "internal/host/run":    {"internal/host/", "internal/engine/"},
}

// linkedNever are modules that a binary must not reach, even indirectly.
var linkedNever = map[string][]string{
	module + "cmd/sixfence": {"k8s.io/", "sigs.k8s.io/", "github.com/vishvananda/", module + "internal/testlab"},
}

// violations checks every rule on an import graph.
func violations(pkgs []pkg) []string {
	var out []string
	bad := func(p pkg, f string, a ...any) {
		out = append(out, strings.TrimPrefix(p.ImportPath, module)+": "+fmt.Sprintf(f, a...))
	}
	for _, p := range pkgs {
		from := layer(p.ImportPath)
		if _, known := below[from]; !known && len(p.GoFiles) > 0 && from != "tools" {
			bad(p, "is in no known layer")
		}
		if p.Doc == "" && len(p.GoFiles) > 0 {
			bad(p, "has no package comment")
		}
		for _, i := range p.Imports {
			to := layer(i)
			switch {
			case to == "":
			case (to == "testlab" || to == "oracle") && from != "testlab" && from != "oracle":
				bad(p, "imports testlab outside a test")
			case from == "host" && slices.Contains(hostMayUse, i):
			case !slices.Contains(below[from], to):
				bad(p, "layer %s imports %s (layer %s)", from, strings.TrimPrefix(i, module), to)
			}
			if (from == "model" || from == "logic") && impure(i) {
				bad(p, "is pure and imports %s", i)
			}
			if may, ok := onlyFrom[i]; ok && !permitted(p.ImportPath, may) {
				bad(p, "imports %s, which only %s may", i, strings.Join(may, ", "))
			}
		}
		for _, never := range linkedNever[p.ImportPath] {
			for _, d := range p.Deps {
				if strings.HasPrefix(d, never) {
					bad(p, "reaches %s", d)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func permitted(path string, may []string) bool {
	rest := strings.TrimPrefix(path, module)
	return slices.ContainsFunc(may, func(m string) bool {
		return rest == m || strings.HasSuffix(m, "/") && strings.HasPrefix(rest, m)
	})
}

// impureCalls are calls that pure packages must not make although they may
// import the package (time.Duration is fine, time.Now is not).
var impureCalls = map[string][]string{
	"time": {"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"},
	"fmt":  {"Print", "Printf", "Println"},
}

// calls lists the forbidden calls in one file of a pure package.
func calls(name string, src any) ([]string, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, 0)
	if err != nil {
		return nil, err
	}
	names := map[string]string{} // local name → import path
	for _, i := range f.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		n := p[strings.LastIndexByte(p, '/')+1:]
		if i.Name != nil {
			n = i.Name.Name
		}
		names[n] = p
	}
	var out []string
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && slices.Contains(impureCalls[names[x.Name]], s.Sel.Name) {
			out = append(out, fmt.Sprintf("%s: %s.%s in a pure package", fset.Position(s.Pos()), x.Name, s.Sel.Name))
		}
		return true
	})
	return out, nil
}

func list(t *testing.T) []pkg {
	t.Helper()
	// The result depends on every source file; looking at them tells the test cache.
	_ = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			_, _ = os.Stat(path)
		}
		return nil
	})
	c := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,GoFiles,Imports,TestImports,XTestImports,Deps", "./...")
	c.Dir = ".."
	var stderr bytes.Buffer
	c.Stderr = &stderr
	b, err := c.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var out []pkg
	for d := json.NewDecoder(bytes.NewReader(b)); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
}

func TestLayers(t *testing.T) {
	pkgs := list(t)
	for _, v := range violations(pkgs) {
		t.Error(v)
	}
	seen := map[string]int{}
	for _, p := range pkgs {
		l := layer(p.ImportPath)
		seen[l]++
		if l != "model" && l != "logic" {
			continue
		}
		for _, f := range p.GoFiles {
			bad, err := calls(filepath.Join(p.Dir, f), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range bad {
				t.Error(b)
			}
		}
	}
	// The graph really was read: an empty list would break no rule either.
	for _, l := range []string{"model", "logic", "host", "surface", "cmd", "testlab"} {
		if seen[l] == 0 {
			t.Errorf("no package of layer %s was seen", l)
		}
	}
}

// TestEveryLayerRuleFires gives the checker a graph that breaks one rule at a time.
func TestEveryLayerRuleFires(t *testing.T) {
	p := func(path string, imports ...string) pkg {
		for i, s := range imports {
			if strings.HasPrefix(s, "internal/") && layer(module+s) != "" {
				imports[i] = module + s
			}
		}
		return pkg{ImportPath: module + path, Doc: "Package x.", GoFiles: []string{"x.go"}, Imports: imports}
	}
	for name, c := range map[string]struct {
		p    pkg
		want string
	}{
		"model imports logic":         {p("internal/model/fact", "internal/logic/check"), "layer model imports internal/logic/check"},
		"model imports host":          {p("internal/model/fact", "internal/host/collect"), "layer model imports"},
		"logic imports host":          {p("internal/logic/check", "internal/host/collect"), "layer logic imports internal/host/collect"},
		"logic imports surface":       {p("internal/logic/check", "internal/surface/cli"), "layer logic imports"},
		"host imports logic":          {p("internal/host/collect", "internal/logic/check"), "layer host imports internal/logic/check"},
		"host imports engine":         {p("internal/host/collect", "internal/engine/apply"), "layer host imports"},
		"engine imports surface":      {p("internal/engine/apply", "internal/surface/cli"), "layer engine imports"},
		"cmd imports host":            {p("cmd/sixfence", "internal/host/collect"), "layer cmd imports"},
		"testlab imports surface":     {p("internal/testlab", "internal/surface/cli"), "layer testlab imports"},
		"product imports testlab":     {p("internal/host/collect", "internal/testlab"), "imports testlab outside a test"},
		"unknown layer":               {p("internal/util/strings"), "is in no known layer"},
		"no comment":                  {pkg{ImportPath: module + "internal/model/x", GoFiles: []string{"x.go"}}, "has no package comment"},
		"pure imports os":             {p("internal/logic/x", "os"), "is pure and imports os"},
		"pure imports os/signal":      {p("internal/logic/x", "os/signal"), "is pure"},
		"pure imports net":            {p("internal/logic/x", "net"), "is pure and imports net"},
		"pure imports net/http":       {p("internal/logic/x", "net/http"), "is pure"},
		"pure imports syscall":        {p("internal/logic/x", "syscall"), "is pure"},
		"pure imports math/rand/v2":   {p("internal/logic/x", "math/rand/v2"), "is pure"},
		"pure imports crypto/rand":    {p("internal/logic/x", "crypto/rand"), "is pure"},
		"pure imports log/slog":       {p("internal/model/x", "log/slog"), "is pure"},
		"pure imports x/sys":          {p("internal/model/x", "golang.org/x/sys/unix"), "is pure"},
		"pure imports a module":       {p("internal/logic/x", "github.com/mdlayher/netlink"), "is pure"},
		"exec in a collector":         {p("internal/host/collect", "os/exec"), "imports os/exec, which only internal/host/run"},
		"the oracle in the product":   {p("internal/surface/cli", module+"internal/testlab/oracle"), "imports testlab outside a test"},
		"exec in the surface":         {p("internal/surface/cli", "os/exec"), "imports os/exec"},
		"mutate from the surface":     {p("internal/surface/cli", "internal/host/mutate"), "which only internal/engine/apply, internal/engine/watch may"},
		"mutate from a collector":     {p("internal/host/collect", "internal/host/mutate"), "which only internal/engine/apply"},
		"run from the surface":        {p("internal/surface/cli", "internal/host/run"), "which only internal/host/, internal/engine/ may"},
		"the agent links Kubernetes":  {pkg{ImportPath: module + "cmd/sixfence", Doc: "x", GoFiles: []string{"x.go"}, Deps: []string{"k8s.io/api/core/v1"}}, "reaches k8s.io/api/core/v1"},
		"the agent links the testlab": {pkg{ImportPath: module + "cmd/sixfence", Doc: "x", GoFiles: []string{"x.go"}, Deps: []string{module + "internal/testlab"}}, "reaches " + module + "internal/testlab"},
	} {
		got := violations([]pkg{c.p})
		if len(got) == 0 || !strings.Contains(strings.Join(got, "\n"), c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	for name, c := range map[string]pkg{
		"host uses the encoders":  p("internal/host/probe", "internal/logic/ndisc"),
		"logic uses netip":        p("internal/logic/x", "net/netip", "internal/model/fact", "internal/logic/y"),
		"engine uses everything":  p("internal/engine/apply", "internal/host/mutate", "internal/logic/plan", "internal/model/intent"),
		"run executes":            p("internal/host/run", "os/exec", "os"),
		"surface uses everything": p("internal/surface/cli", "os", "internal/engine/apply", "internal/host/collect", "internal/logic/check"),
	} {
		if got := violations([]pkg{c}); len(got) != 0 {
			t.Errorf("%s is allowed, got %q", name, got)
		}
	}
	for name, src := range map[string]string{
		"clock":         "package x\nimport \"time\"\nvar _ = time.Now()",
		"sleep":         "package x\nimport \"time\"\nfunc f() { time.Sleep(1) }",
		"renamed clock": "package x\nimport clock \"time\"\nvar _ = clock.Now",
		"print":         "package x\nimport \"fmt\"\nfunc f() { fmt.Println() }",
	} {
		if got, err := calls("x.go", src); err != nil || len(got) != 1 {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	if got, err := calls("x.go", "package x\nimport \"time\"\nvar _ time.Duration = time.Second"); err != nil || len(got) != 0 {
		t.Errorf("time.Duration is allowed, got %q, %v", got, err)
	}
}
