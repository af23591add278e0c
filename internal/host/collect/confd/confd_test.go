package confd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

func newTree(t *testing.T, files map[string]string) *tree.Tree {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(p), 0o755)
		if target, ok := strings.CutPrefix(text, "-> "); ok && err == nil {
			err = os.Symlink(target, p)
		} else if err == nil {
			err = os.WriteFile(p, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tr, err := tree.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}

func TestGather(t *testing.T) {
	t.Parallel()
	tr := newTree(t, map[string]string{
		"etc/x.d/50-a.conf": "etc", "run/x.d/50-a.conf": "run", "usr/lib/x.d/50-a.conf": "lib",
		"run/x.d/10-b.conf": "run", "usr/lib/x.d/10-b.conf": "lib",
		"etc/x.d/60-masked.conf": "-> /dev/null", "usr/lib/x.d/60-masked.conf": "lib",
		"etc/x.d/61-masked.conf": "-> ../../dev/null", "usr/lib/x.d/61-masked.conf": "lib",
		"etc/x.d/70-dangling.conf": "-> nowhere", "usr/lib/x.d/70-dangling.conf": "lib",
		"etc/x.d/80-empty.conf": "", "usr/lib/x.d/80-empty.conf": "lib",
		"etc/x.d/90-dir.conf/y": "", "usr/lib/x.d/90-dir.conf": "lib",
		"etc/x.d/.hidden.conf": "no", "etc/x.d/readme": "no", "etc/x.d/.conf": "no",
		"usr/lib/x.d/99-last.conf": "-> /etc/x.d/50-a.conf",
		"lib":                      "-> usr/lib",
	})
	show := func(q Query) string {
		var b Budget
		files, gaps := b.Gather(tr, q)
		if len(gaps) > 0 {
			t.Errorf("gaps %v", gaps)
		}
		var out []string
		for _, f := range files {
			c, ok := f.Content.Get()
			out = append(out, fmt.Sprintf("%s=%s,%v", strings.TrimSuffix(f.Name, ".conf"), c, ok))
		}
		return strings.Join(out, " ")
	}
	want := "10-b=run,true 50-a=etc,true 60-masked=,false 61-masked=,false 70-dangling=,false 80-empty=,true 90-dir=,false 99-last=etc,true"
	if got := show(Standard("x.d")); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	q := Standard("x.d")
	q.DirsHide = false
	if got := show(q); got != strings.Replace(want, "90-dir=,false", "90-dir=lib,true", 1) {
		t.Errorf("got %s", got)
	}
}

// TestBudget ends reading at the bound and says so.
func TestBudget(t *testing.T) {
	t.Parallel()
	files := map[string]string{}
	big := strings.Repeat("x", 1<<20)
	for i := range 20 {
		files[fmt.Sprintf("etc/x.d/%02d.conf", i)] = big
	}
	tr := newTree(t, files)
	var b Budget
	list, _ := b.Gather(tr, Standard("x.d"))
	read, cut := 0, 0
	for _, f := range list {
		if _, ok := f.Content.Get(); ok {
			read++
		} else if g, _ := f.Content.Gap(); g.Reason == fact.Truncated {
			cut++
		}
	}
	if read != MaxBytes>>20 || read+cut != 20 || len(Gaps(list)) != cut {
		t.Errorf("%d were read, %d cut off, %d gaps", read, cut, len(Gaps(list)))
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	show := func(s string, join bool) []string {
		var out []string
		for _, l := range Lines([]byte(s), join) {
			out = append(out, fmt.Sprintf("%d:%s", l.Number, l.Text))
		}
		return out
	}
	if got, want := show("a\r\nb\\\nc\\\nd\ne", true), []string{"1:a", "2:bcd", "5:e"}; !slices.Equal(got, want) {
		t.Errorf("joined %q, want %q", got, want)
	}
	if got, want := show("a\\\nb\n", false), []string{`1:a\`, "2:b", "3:"}; !slices.Equal(got, want) {
		t.Errorf("plain %q, want %q", got, want)
	}
	if got := ParseGap("/f", 3); got.What != "/f:3" || got.Reason != fact.ParseGap {
		t.Errorf("%v", got)
	}
}
