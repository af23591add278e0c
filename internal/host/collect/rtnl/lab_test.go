package rtnl

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

func asker() *ask.Asker { return ask.New(func(string) bool { return true }, false) }

func budget() *ask.Budget { return ask.NewBudget("lab", 20*time.Second, 1<<20, 1<<28) }

// collect reads and decodes a namespace.
func collect(n *testlab.NS) fact.Namespace {
	ns := fact.Namespace{Name: "lab"}
	var d *Dump
	n.Do(func() { d = Read(asker(), budget()) })
	d.Decode(&ns)
	return ns
}

// must returns the value of a fact.
func must[T any](t testing.TB, what string, k fact.Known[T]) T {
	t.Helper()
	v, ok := k.Get()
	if !ok {
		g, _ := k.Gap()
		t.Fatalf("%s: %v %v", what, k.State(), g)
	}
	return v
}

// ipJSON asks ip(8) the same question; numbers instead of names.
func ipJSON(t testing.TB, n *testlab.NS, args ...string) []map[string]any {
	t.Helper()
	out := n.IP(append([]string{"-N", "-d", "-json"}, args...)...)
	if out == "" || out == "\n" {
		return nil
	}
	var rows []map[string]any
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatalf("ip %v: %v\n%s", args, err, out)
	}
	return slices.DeleteFunc(rows, func(r map[string]any) bool { return len(r) == 0 })
}

func link(t testing.TB, ns fact.Namespace, name string) fact.Link {
	t.Helper()
	for _, l := range must(t, "links", ns.Links) {
		if l.Name == name {
			return l
		}
	}
	t.Fatalf("no link %q", name)
	return fact.Link{}
}

// str and num read a JSON field that may be missing.
func str(m map[string]any, key string) string { s, _ := m[key].(string); return s }

func num(m map[string]any, key string) int { f, _ := m[key].(float64); return int(f) }

func sub(m map[string]any, key string) map[string]any {
	s, _ := m[key].(map[string]any)
	return s
}

// sameLines compares two sets of canonical lines.
func sameLines(t testing.TB, what string, got, want []string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("%s: only we see    %s", what, g)
		}
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("%s: only ip(8) sees %s", what, w)
		}
	}
	if len(got) != len(want) && !t.Failed() {
		t.Errorf("%s: %d lines, ip(8) has %d", what, len(got), len(want))
	}
	if len(want) == 0 {
		t.Errorf("%s: the oracle saw nothing", what)
	}
}
