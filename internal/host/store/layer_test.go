package store

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCopyUnderAnyUmask: a copy of a program that may not be executed undoes nothing.
func TestCopyUnderAnyUmask(t *testing.T) {
	l := &Layer{}
	d, err := l.OpenPrivate(t.TempDir() + "/d")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	was := unix.Umask(0o777)
	err = d.Copy("program", strings.NewReader("x"), false)
	unix.Umask(was)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(d.Path() + "/program"); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}
