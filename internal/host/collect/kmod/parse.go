package kmod

import (
	"bytes"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// normal writes a module name as the kernel does: with underscores.
func normal(name string) string { return strings.ReplaceAll(name, "-", "_") }

// moduleName is the module of a path such as kernel/net/ipv6/sit.ko.xz; empty
// when the path is none.
func moduleName(p string) string {
	name, ok := "", false
	base := path.Base(p)
	for _, ext := range []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"} {
		if name, ok = strings.CutSuffix(base, ext); ok {
			return normal(name)
		}
	}
	return ""
}

// lines calls f for every line; it does not copy.
func lines(b []byte, f func(line string)) {
	for l := range bytes.Lines(b) {
		f(string(bytes.TrimSpace(l)))
	}
}

// loadedNames reads /proc/modules: "name size refcount users state address".
func loadedNames(b []byte) map[string]bool {
	out := map[string]bool{}
	lines(b, func(l string) {
		f := strings.Fields(l)
		// A module that is going away ("Unloading") is as good as gone, and one
		// that is "Loading" is there already.
		if len(f) == 0 || len(f) > 4 && f[4] == "Unloading" {
			return
		}
		out[normal(f[0])] = true
	})
	return out
}

// builtinNames reads modules.builtin: one path a line.
func builtinNames(b []byte) map[string]bool {
	out := map[string]bool{}
	lines(b, func(l string) {
		if n := moduleName(l); n != "" {
			out[n] = true
		}
	})
	return out
}

// builtinByConfig tells which modules of interest a kernel configuration builds in.
func builtinByConfig(b []byte) map[string]bool {
	yes := map[string]bool{}
	lines(b, func(l string) {
		if k, ok := strings.CutSuffix(l, "=y"); ok {
			yes[strings.TrimPrefix(k, "CONFIG_")] = true
		}
	})
	out := map[string]bool{}
	for m, symbol := range interest {
		if symbol != "" && yes[symbol] {
			out[m] = true
		}
	}
	return out
}

// dependencies reads modules.dep ("path: path path …") for the modules of
// interest: where each is, and everything it needs, nearest first.
func dependencies(b []byte) (paths map[string]string, needs map[string][]string) {
	direct := map[string][]string{}
	where := map[string]string{}
	lines(b, func(l string) {
		p, rest, ok := strings.Cut(l, ":")
		name := moduleName(p)
		if !ok || name == "" {
			return
		}
		where[name] = p
		for _, q := range strings.Fields(rest) {
			if n := moduleName(q); n != "" {
				direct[name] = append(direct[name], n)
			}
		}
	})
	paths, needs = map[string]string{}, map[string][]string{}
	for name := range interest {
		p, ok := where[name]
		if !ok {
			continue
		}
		paths[name] = p
		if all := closure(name, direct); len(all) > 0 {
			needs[name] = all
		}
	}
	return paths, needs
}

// closure is everything name needs; a cycle (there is none in a sound file) ends.
func closure(name string, direct map[string][]string) []string {
	seen := map[string]bool{name: true}
	var out []string
	for queue := slices.Clone(direct[name]); len(queue) > 0; queue = queue[1:] {
		n := queue[0]
		if seen[n] {
			continue
		}
		seen[n] = true
		out = append(out, n)
		queue = append(queue, direct[n]...)
	}
	return out
}

// aliases reads modules.alias ("alias NAME MODULE") for the modules of interest.
func aliases(b []byte) map[string][]string {
	out := map[string][]string{}
	lines(b, func(l string) {
		f := strings.Fields(l)
		if len(f) != 3 || f[0] != "alias" {
			return
		}
		m := normal(f[2])
		if _, ok := interest[m]; ok {
			out[m] = append(out[m], f[1])
		}
	})
	for m, a := range out {
		slices.Sort(a)
		out[m] = slices.Compact(a)
	}
	return out
}

// compareRelease orders kernel releases by their numbers: 6.1.9 < 6.1.10.
func compareRelease(a, b string) int {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			x, y := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
			if len(x) != len(y) {
				return len(x) - len(y)
			}
			if c := strings.Compare(x, y); c != 0 {
				return c
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

func integer(k fact.Known[[]byte], what string) fact.Known[int64] {
	b, ok := k.Get()
	if !ok {
		return lost[int64](k, what)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return fact.Missing[int64](fact.Gap{Reason: fact.ParseGap, What: what})
	}
	return fact.Value(n)
}

func boolean(k fact.Known[[]byte], what string) fact.Known[bool] {
	n := integer(k, what)
	v, ok := n.Get()
	if !ok {
		return lost[bool](n, what)
	}
	return fact.Value(v != 0)
}
