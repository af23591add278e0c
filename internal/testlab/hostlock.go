package testlab

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Namespaces keep tests apart, except for what the kernel holds once for the whole
// host: a BPF link is seen by every audit on the machine, and the kernel does not
// say to which namespace it belongs. Tests that make such a thing own the host;
// every test with a namespace shares it.

var (
	owned   atomic.Bool // a test of this process owns the host
	mu      sync.Mutex
	sharers = map[string]int{} // namespaces of this process, by top-level test
)

// maxWait is how long a test waits for the host.
const maxWait = 6 * time.Minute

// OwnHost waits until no other test, of any package, has a namespace, and keeps them
// from making one until this test ends. Call it before NewNS, in a test that is not
// parallel; its subtests share what it owns.
func OwnHost(t testing.TB) {
	t.Helper()
	RequireRoot(t)
	lock(t, "gate", unix.LOCK_EX) // newcomers wait behind us
	lock(t, "host", unix.LOCK_EX)
	owned.Store(true)
	t.Cleanup(func() { owned.Store(false) })
}

func shareHost(t testing.TB) {
	t.Helper()
	if owned.Load() {
		return
	}
	top, _, _ := strings.Cut(t.Name(), "/")
	count := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		sharers[top] += n
		return sharers[top]
	}
	if count(0) == 0 {
		unlock := lock(t, "gate", unix.LOCK_SH)
		defer unlock()
	} // else an owner waits for this very test, which must not wait for the owner
	lock(t, "host", unix.LOCK_SH)
	count(1)
	t.Cleanup(func() { count(-1) })
}

// lock holds a lock file until the test ends or the returned function is called.
func lock(t testing.TB, name string, how int) (unlock func()) {
	t.Helper()
	file := filepath.Join(os.TempDir(), "sixfence-testlab."+name)
	fd, err := unix.Open(file, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		t.Fatalf("open lock file: %v", err)
	}
	unlock = sync.OnceFunc(func() { unix.Close(fd) })
	t.Cleanup(unlock)
	for end := time.Now().Add(maxWait); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(fd, how|unix.LOCK_NB)
		if err == nil {
			return unlock
		}
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s: another test keeps it (%v)", maxWait, file, err)
		}
	}
}
