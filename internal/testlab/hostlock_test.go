package testlab

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLock: nobody shares what a test owns, until it ends.
func TestLock(t *testing.T) {
	RequireRoot(t)
	const name = "selftest"
	share := func() error {
		f, err := os.Open(filepath.Join(os.TempDir(), "sixfence-testlab."+name))
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	}
	t.Run("owned", func(t *testing.T) {
		lock(t, name, unix.LOCK_EX)
		if err := share(); !errors.Is(err, unix.EWOULDBLOCK) {
			t.Errorf("shared with an owner: %v", err)
		}
	})
	if err := share(); err != nil {
		t.Errorf("not given back when the test ended: %v", err)
	}
	unlock := lock(t, name, unix.LOCK_EX)
	unlock()
	if err := share(); err != nil {
		t.Errorf("not given back: %v", err)
	}
}
