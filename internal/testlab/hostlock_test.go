package testlab

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOwnHost: nobody shares while a test owns the host, and the owner may still
// make namespaces.
func TestOwnHost(t *testing.T) {
	share := func() error {
		f, err := os.Open(filepath.Join(os.TempDir(), "sixfence-testlab.host"))
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	}
	t.Run("owner", func(t *testing.T) {
		OwnHost(t)
		NewNS(t, "own")
		if err := share(); !errors.Is(err, unix.EWOULDBLOCK) {
			t.Errorf("shared with an owner: %v", err)
		}
	})
	t.Run("after", func(t *testing.T) {
		NewNS(t, "own")
		if err := share(); err != nil {
			t.Errorf("not given back: %v", err)
		}
	})
}
