// Package netns runs code inside another network namespace.
package netns

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs f on a fresh OS thread inside the namespace that fd refers to, and
// throws the thread away. f must not start goroutines that open sockets or read
// /proc/thread-self: they would run on other threads.
func Do(fd int, f func()) error {
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end: it would stay in the namespace, and the whole
			// process would seem to be there. Held here, it leaves the work to another.
			errc <- Do(fd, f)
			runtime.UnlockOSThread()
			return
		}
		// Entering needs CAP_SYS_ADMIN even when we are inside already, which
		// would blind an ordinary user to his own namespace.
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil && !inside(fd) {
			errc <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		f()
		errc <- nil
	}()
	return <-errc
}

// inside tells whether the calling thread is in the namespace that fd refers to.
func inside(fd int) bool {
	var there, here unix.Stat_t
	return unix.Fstat(fd, &there) == nil &&
		unix.Stat("/proc/thread-self/ns/net", &here) == nil &&
		there.Dev == here.Dev && there.Ino == here.Ino
}
