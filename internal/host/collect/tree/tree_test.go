package tree

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/testlab"
)

// both runs a test with openat2 and with the walk of older kernels.
func both(t *testing.T, dir string, f func(t *testing.T, tr *Tree)) {
	t.Helper()
	for _, walk := range []bool{false, true} {
		t.Run(fmt.Sprintf("walk=%v", walk), func(t *testing.T) {
			tr, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer tr.Close()
			tr.walk = walk
			f(t, tr)
		})
	}
}

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t testing.TB, dir, name, target string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, p); err != nil {
		t.Fatal(err)
	}
}

func describe(k fact.Known[[]byte]) string {
	if b, ok := k.Get(); ok {
		return "value " + string(b)
	}
	if g, ok := k.Gap(); ok {
		return "gap " + string(g.Reason)
	}
	return k.State().String()
}

// TestHostileTree reads a tree that its owner made to lead elsewhere.
func TestHostileTree(t *testing.T) {
	t.Parallel()
	outer := t.TempDir()
	dir := filepath.Join(outer, "root")
	write(t, outer, "secret", "OUTSIDE")
	write(t, dir, "etc/plain", "inside")
	write(t, dir, "secret", "root's own")
	write(t, dir, "real/deep/file", "deep")
	link(t, dir, "abs", "/etc/plain")
	link(t, dir, "rel", "etc/plain")
	link(t, dir, "up", "../../../../../../secret")
	link(t, dir, "etc/up", "../../secret")
	link(t, dir, "absup", "/../secret")
	link(t, dir, "outside", outer+"/secret")
	link(t, dir, "dirlink", "/real")
	link(t, dir, "dotdot", "dirlink/deep/../../etc/plain")
	link(t, dir, "loop", "loop")
	link(t, dir, "a", "b")
	link(t, dir, "b", "a")
	link(t, dir, "null", "/dev/null")
	link(t, dir, "slash", "etc/plain/")
	link(t, dir, "self", "/proc/self/fd/0")
	for i := range 60 {
		link(t, dir, fmt.Sprintf("chain%d", i), fmt.Sprintf("chain%d", i+1))
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if f, err := os.Create(filepath.Join(dir, "huge")); err != nil {
		t.Fatal(err)
	} else if err := errors.Join(f.Truncate(1<<40), f.Close()); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "exact", strings.Repeat("x", 100))

	cases := map[string]string{
		"etc/plain":              "value inside",
		"/etc/plain":             "value inside",
		"../../etc/plain":        "value inside",
		"abs":                    "value inside",
		"rel":                    "value inside",
		"up":                     "value root's own",
		"etc/up":                 "value root's own",
		"absup":                  "value root's own",
		"outside":                "absent",
		"dirlink/deep/file":      "value deep",
		"dirlink/../etc/plain":   "value inside",
		"dotdot":                 "value inside",
		"loop":                   "gap not-collected",
		"a":                      "gap not-collected",
		"chain0":                 "gap not-collected",
		"null":                   "absent",
		"slash":                  "absent", // ENOTDIR
		"self":                   "absent",
		"fifo":                   "gap unsupported",
		"etc":                    "gap unsupported",
		"huge":                   "gap truncated",
		"exact":                  "value " + strings.Repeat("x", 100),
		"etc/plain/x":            "absent",
		"nothing":                "absent",
		strings.Repeat("n", 300): "gap not-collected",
	}
	both(t, dir, func(t *testing.T, tr *Tree) {
		for name, want := range cases {
			if got := describe(tr.ReadFile(name, 100)); got != want {
				t.Errorf("ReadFile(%q) = %.60s, want %.60s", name, got, want)
			}
		}
		if got := describe(tr.ReadFile("exact", 99)); got != "gap truncated" {
			t.Errorf("a file one byte too long: %s", got)
		}
		if got, ok := tr.Readlink("abs").Get(); !ok || got != "/etc/plain" {
			t.Errorf("Readlink(abs) = %q, %v", got, ok)
		}
		if s := tr.Readlink("etc/plain").State(); s != fact.StateAbsent {
			t.Errorf("Readlink of a file is %v, want absent", s)
		}
		if i, ok := tr.Lstat("abs").Get(); !ok || i.Mode&unix.S_IFMT != unix.S_IFLNK {
			t.Errorf("Lstat(abs) = %+v", i)
		}
		if i, ok := tr.Stat("dirlink").Get(); !ok || !i.IsDir() {
			t.Errorf("Stat(dirlink) = %+v", i)
		}
		if l, ok := tr.List("dirlink").Get(); !ok || len(l) != 1 || l[0] != "deep" {
			t.Errorf("List(dirlink) = %v", l)
		}
		if s := tr.List("etc/plain").State(); s != fact.StateAbsent {
			t.Errorf("List of a file is %v, want absent", s)
		}
		if _, ok := tr.List("fifo").Get(); ok {
			t.Error("List of a fifo is a value")
		}
	})
}

// TestDevice proves that a device is neither opened nor read.
func TestDevice(t *testing.T) {
	t.Parallel()
	testlab.RequireRoot(t)
	dir := t.TempDir()
	// 1:5 is /dev/zero: reading it would never end.
	if err := unix.Mknod(filepath.Join(dir, "zero"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
		testlab.CannotRun(t, "mknod: %v", err)
	}
	both(t, dir, func(t *testing.T, tr *Tree) {
		if got := describe(tr.ReadFile("zero", 100)); got != "gap unsupported" {
			t.Errorf("a device reads as %s", got)
		}
	})
}

// TestPermission reads as an ordinary user: unreadable is a Gap, never absent.
func TestPermission(t *testing.T) {
	t.Parallel()
	testlab.RequireRoot(t)
	dir, err := os.MkdirTemp("/tmp", "sf-tree-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "closed", "secret")
	write(t, dir, "shut/file", "secret")
	for name, mode := range map[string]os.FileMode{"closed": 0o600, "shut": 0o700} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	type result struct{ file, below, list string }
	results := make(chan result, 2)
	for _, walk := range []bool{false, true} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // the thread keeps the other identity and dies with the goroutine
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); e != 0 {
				t.Errorf("setresuid: %v", e)
				return
			}
			tr, err := Open(dir)
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			defer tr.Close()
			tr.walk = walk
			g, _ := tr.List("shut").Gap()
			results <- result{describe(tr.ReadFile("closed", 100)), describe(tr.ReadFile("shut/file", 100)), string(g.Reason)}
		}()
		<-done
	}
	close(results)
	n := 0
	for r := range results {
		n++
		if want := (result{"gap permission", "gap permission", "permission"}); r != want {
			t.Errorf("got %+v, want %+v", r, want)
		}
	}
	if n != 2 {
		t.Fatalf("%d of 2 results", n)
	}
}

// TestReplacedWhileReading races a reader with somebody who keeps swapping the
// file with a link to outside, a fifo and another file.
func TestReplacedWhileReading(t *testing.T) {
	t.Parallel()
	outer := t.TempDir()
	dir := filepath.Join(outer, "root")
	write(t, outer, "secret", "OUTSIDE")
	write(t, dir, "dir/file", "inside")
	both(t, dir, func(t *testing.T, tr *Tree) {
		var stop atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			p := filepath.Join(dir, "dir/file")
			for i := 0; !stop.Load(); i++ {
				tmp := filepath.Join(dir, "tmp")
				switch i % 4 {
				case 0:
					_ = os.Symlink(outer+"/secret", tmp)
				case 1:
					_ = unix.Mkfifo(tmp, 0o644)
				case 2:
					_ = os.WriteFile(tmp, []byte("inside"), 0o644)
				case 3: // move the directory out of the root and back
					_ = os.Rename(filepath.Join(dir, "dir"), filepath.Join(outer, "moved"))
					_ = os.Rename(filepath.Join(outer, "moved"), filepath.Join(dir, "dir"))
					continue
				}
				_ = os.Rename(tmp, p)
			}
		}()
		read := 0
		for range 3000 {
			if b, ok := tr.ReadFile("dir/../dir/../dir/file", 100).Get(); ok {
				read++
				if len(b) > 0 && !bytes.Equal(b, []byte("inside")) {
					t.Errorf("read %q", b)
					break
				}
			}
		}
		stop.Store(true)
		<-done
		if read == 0 {
			t.Error("the file was never read: this shows nothing")
		}
	})
}

// TestWalkLikeOpenat2 compares the two resolvers on random trees: the same file,
// or both an error.
func TestWalkLikeOpenat2(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(6, 4))
	names := []string{"a", "b", "c", "d"}
	parts := append([]string{"..", ".", ""}, names...)
	path := func() string {
		var p []string
		for range 1 + r.IntN(5) {
			p = append(p, parts[r.IntN(len(parts))])
		}
		s := strings.Join(p, "/")
		if r.IntN(3) == 0 {
			s = "/" + s
		}
		if s == "" {
			s = "."
		}
		return s
	}
	found, links := 0, 0
	for range 60 {
		dir := t.TempDir()
		dirs := []string{""}
		for range 20 {
			p := filepath.Join(dirs[r.IntN(len(dirs))], names[r.IntN(len(names))])
			full := filepath.Join(dir, p)
			switch r.IntN(3) {
			case 0:
				if os.Mkdir(full, 0o755) == nil {
					dirs = append(dirs, p)
				}
			case 1:
				if _, err := os.Lstat(full); err != nil {
					_ = os.WriteFile(full, nil, 0o644)
				}
			case 2:
				if os.Symlink(path(), full) == nil {
					links++
				}
			}
		}
		kernel, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		steps, _ := Open(dir)
		steps.walk = true
		for range 200 {
			p := path()
			a, b := kernel.Stat(p), steps.Stat(p)
			x, okA := a.Get()
			y, okB := b.Get()
			x.Size, y.Size = 0, 0
			if okA != okB || x != y {
				t.Errorf("%s in %s: openat2 %+v %v, walk %+v %v", p, dir, x, okA, y, okB)
			}
			if okA {
				found++
			}
		}
		kernel.Close()
		steps.Close()
		if t.Failed() {
			return
		}
	}
	if found < 1000 || links < 100 {
		t.Fatalf("only %d names resolved over %d links: this shows little", found, links)
	}
}

// TestNoDescriptorLeak walks into every kind of error and counts descriptors.
func TestNoDescriptorLeak(t *testing.T) {
	// Not parallel: it counts the descriptors of the process.
	dir := t.TempDir()
	write(t, dir, "d/f", "x")
	link(t, dir, "loop", "loop")
	link(t, dir, "d/l", "/d/f")
	count := func() int { l, _ := os.ReadDir("/proc/self/fd"); return len(l) }
	both(t, dir, func(t *testing.T, tr *Tree) {
		before := count()
		for range 50 {
			for _, n := range []string{"d/f", "loop", "d/l", "d/f/x", "none", "d", "../d/../d/l", ""} {
				tr.ReadFile(n, 10)
				tr.List(n)
				tr.Readlink(n)
				tr.Stat(n)
				tr.Lstat(n)
			}
		}
		if after := count(); after > before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}

// TestHostRoot reads the host's own root without openat2, as Linux 4.18 would.
func TestHostRoot(t *testing.T) {
	t.Parallel()
	tr, err := Host()
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	fd, err := tr.lookOld("/proc/self/status", unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		t.Fatalf("look without openat2: %v", err)
	}
	unix.Close(fd)
	if b, ok := tr.ReadFile("/proc/self/status", MaxFile).Get(); !ok || !bytes.Contains(b, []byte("Name:")) {
		t.Errorf("/proc/self/status is %.40q", b)
	}
	if !tr.Live() {
		t.Error("the host's root is not live")
	}
}

// FuzzName asks for any name: inside the root it is either found there or not.
func FuzzName(f *testing.F) {
	outer := f.TempDir()
	dir := filepath.Join(outer, "root")
	write(f, outer, "secret", "OUTSIDE")
	write(f, dir, "etc/x", "inside")
	link(f, dir, "l", "../../etc/x")
	for _, s := range []string{"etc/x", "../secret", "l", "/../../secret", "l/../../secret", "\x00", "etc/\x00", strings.Repeat("../", 5000)} {
		f.Add(s)
	}
	tr, err := Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	old, _ := Open(dir)
	old.walk = true
	f.Fuzz(func(t *testing.T, name string) {
		a, b := tr.ReadFile(name, 100), old.ReadFile(name, 100)
		for _, k := range []fact.Known[[]byte]{a, b} {
			if v, ok := k.Get(); ok && string(v) != "inside" {
				t.Errorf("%q reads %q", name, v)
			}
		}
		if describe(a) != describe(b) {
			t.Errorf("%q: openat2 %s, walk %s", name, describe(a), describe(b))
		}
	})
}
