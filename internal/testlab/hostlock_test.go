package testlab

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOwnHost: nobody shares while a test owns the host, and the owner may still
// make namespaces.
func TestOwnHost(t *testing.T) {
	t.Run("owner", func(t *testing.T) {
		OwnHost(t)
		NewNS(t, "own")
		got := make(chan struct{})
		go func() {
			unlock := lock(t, "host", unix.LOCK_SH)
			unlock()
			close(got)
		}()
		select {
		case <-got:
			t.Error("shared with an owner")
		case <-time.After(50 * time.Millisecond):
		}
	})
	t.Run("after", func(t *testing.T) { NewNS(t, "own") })
}
