// Package testlab is test support: real network namespaces, real packets, the
// kernel as oracle. Nothing in it is linked into a product binary.
//
// Everything it makes is inside namespaces of its own and is gone when the test
// ends. It needs root: without it a test is skipped, and fails in CI.
package testlab

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// InCI tells whether a test that cannot run must fail.
func InCI() bool { return os.Getenv("CI") != "" || os.Getenv("SIXFENCE_REQUIRE") != "" }

// CannotRun skips the test with its reason, or fails it in CI.
func CannotRun(t testing.TB, format string, a ...any) {
	t.Helper()
	if InCI() {
		t.Fatalf("cannot run, and CI skips nothing: "+format, a...)
	}
	t.Skipf(format, a...)
}

// RequireRoot ends the test when it does not run as root.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		CannotRun(t, "needs root (namespaces)")
	}
}

// RequireTool returns the path of a program the test needs.
func RequireTool(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin", "/lib/systemd") {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode()&0o111 != 0 && !st.IsDir() {
			return p
		}
	}
	CannotRun(t, "needs the program %s (make test installs it)", name)
	return ""
}

// NS is a named network namespace under /run/netns.
type NS struct {
	Name string
	t    testing.TB
	fd   int
}

// NewNS makes a namespace with a unique name, loopback up, and removes it when
// the test ends.
func NewNS(t testing.TB, hint string) *NS {
	t.Helper()
	RequireRoot(t)
	shareHost(t)
	var r [4]byte
	_, _ = rand.Read(r[:])
	n := &NS{Name: "sf-" + hint + "-" + hex.EncodeToString(r[:]), t: t}
	run(t, "ip", "netns", "add", n.Name)
	t.Cleanup(func() {
		unix.Close(n.fd)
		_ = exec.Command("ip", "netns", "del", n.Name).Run()
	})
	fd, err := unix.Open("/run/netns/"+n.Name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open namespace %s: %v", n.Name, err)
	}
	n.fd = fd
	n.IP("link", "set", "lo", "up")
	return n
}

// Inode is the namespace's inode on nsfs.
func (n *NS) Inode() uint64 {
	var st unix.Stat_t
	if err := unix.Fstat(n.fd, &st); err != nil {
		n.t.Fatalf("stat namespace: %v", err)
	}
	return st.Ino
}

// Do runs f on a thread inside the namespace; the thread is thrown away. f must
// not start goroutines that open sockets.
func (n *NS) Do(f func()) {
	n.t.Helper()
	if err := n.enter(f); err != nil {
		n.t.Fatalf("enter namespace %s: %v", n.Name, err)
	}
}

func (n *NS) enter(f func()) error {
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end, and the whole test would seem to live in
			// the namespace. Held here, it leaves the work to another.
			errc <- n.enter(f)
			runtime.UnlockOSThread()
			return
		}
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			errc <- err
			return
		}
		f()
		errc <- nil
	}()
	return <-errc
}

// Command prepares a command that runs inside the namespace.
func (n *NS) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.Name, name}, args...)...)
}

// Run runs a command inside the namespace and returns its output; failure ends the test.
func (n *NS) Run(name string, args ...string) string {
	n.t.Helper()
	return run(n.t, "ip", append([]string{"netns", "exec", n.Name, name}, args...)...)
}

// Start starts a command inside the namespace and ends it, by pid, with the test.
func (n *NS) Start(name string, args ...string) *exec.Cmd {
	n.t.Helper()
	c := n.Command(name, args...)
	if err := c.Start(); err != nil {
		n.t.Fatalf("start %s: %v", name, err)
	}
	n.t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return c
}

// IP runs ip(8) on the namespace.
func (n *NS) IP(args ...string) string {
	n.t.Helper()
	return run(n.t, "ip", append([]string{"-n", n.Name}, args...)...)
}

// Sysctl writes below /proc/sys, e.g. ("net/ipv6/conf/eth0/accept_ra", "0").
func (n *NS) Sysctl(path, value string) {
	n.t.Helper()
	n.Do(func() {
		if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
			n.t.Errorf("write %s: %v", path, err)
		}
	})
}

// ReadSysctl reads below /proc/sys.
func (n *NS) ReadSysctl(path string) string {
	n.t.Helper()
	var out string
	n.Do(func() {
		b, err := os.ReadFile("/proc/sys/" + path)
		if err != nil {
			n.t.Errorf("read %s: %v", path, err)
		}
		out = strings.TrimSpace(string(b))
	})
	return out
}

// Link joins two namespaces with a veth pair and sets both ends up.
func Link(a *NS, aIf string, b *NS, bIf string) {
	a.t.Helper()
	a.IP("link", "add", aIf, "type", "veth", "peer", "name", bIf, "netns", b.Name)
	a.IP("link", "set", aIf, "up")
	b.IP("link", "set", bIf, "up")
}

// Eventually waits for a condition, at most d.
func Eventually(t testing.TB, d time.Duration, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(d)
	for !cond() {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain: %s", d, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	// Standard error stays apart: ip(8) complains there about other tests'
	// namespaces that are just being removed.
	var complaint strings.Builder
	c := exec.Command(name, args...)
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", fmt.Sprint(append([]string{name}, args...)), err, out, complaint.String())
	}
	return string(out)
}
