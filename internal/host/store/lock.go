package store

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock takes the lock that a file of this directory is, until the returned function
// is called or the process ends. Without wait a lock that is held is ErrLocked. Only
// who may enter the directory can hold it.
func (d *Dir) Lock(name string, wait bool) (unlock func(), err error) {
	fd, err := unix.Openat(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d.in(name), err)
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		err = unix.Flock(fd, how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", d.in(name), err)
	}
	return func() { unix.Close(fd) }, nil
}

// LockHolder is the process that holds the lock, as far as this one may see it; 0 when
// nobody does, or it cannot be told.
func (d *Dir) LockHolder(name string) int {
	var want unix.Stat_t
	if unix.Fstatat(d.fd, name, &want, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return 0
	}
	b, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		// "4: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF"; who waits has "->" before FLOCK.
		w := strings.Fields(line)
		if len(w) < 6 || w[1] != "FLOCK" || !strings.HasSuffix(w[5], ":"+strconv.FormatUint(want.Ino, 10)) {
			continue
		}
		pid, err := strconv.Atoi(w[4])
		if err != nil || pid <= 0 {
			continue
		}
		// The device that the kernel prints is not always the one that stat says.
		dir := "/proc/" + w[4] + "/fd/"
		fds, _ := os.ReadDir(dir)
		for _, f := range fds {
			var st unix.Stat_t
			if unix.Stat(dir+f.Name(), &st) == nil && st.Dev == want.Dev && st.Ino == want.Ino {
				return pid
			}
		}
	}
	return 0
}
