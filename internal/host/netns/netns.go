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
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			errc <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		f()
		errc <- nil
	}()
	return <-errc
}
