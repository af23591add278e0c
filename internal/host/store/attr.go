package store

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Attr are the attributes of a file; the zero Attr is root's own, 0600.
type Attr struct {
	Mode     uint32
	UID, GID uint32
	Label    string // security.selinux; empty: what the kernel gives
}

// Relabel sets the security.selinux of a file or directory; what file systems without
// labels say to that is no error.
func (d *Dir) Relabel(name, label string) error {
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", d.in(name), err)
	}
	defer unix.Close(fd)
	return setLabel(fd, d.in(name), label)
}

func setLabel(fd int, path, label string) error {
	if err := unix.Fsetxattr(fd, "security.selinux", append([]byte(label), 0), 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("label %s: %w", path, err)
	}
	return nil
}

// Inherit gives a file the access control list and the attributes of users that another
// one has: content of ours in the place of somebody's file is still his file.
func (d *Dir) Inherit(name, from string) error {
	open := func(n string) (int, error) {
		return unix.Openat(d.fd, n, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	src, err := open(from)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", d.in(from), err)
	}
	defer unix.Close(src)
	dst, err := open(name)
	if err != nil {
		return fmt.Errorf("open %s: %w", d.in(name), err)
	}
	defer unix.Close(dst)
	list := make([]byte, 64<<10)
	n, err := unix.Flistxattr(src, list)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list attributes of %s: %w", d.in(from), err)
	}
	for _, attr := range strings.Split(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if attr != "system.posix_acl_access" && !strings.HasPrefix(attr, "user.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(src, attr, value)
		if err == nil {
			err = unix.Fsetxattr(dst, attr, value[:n], 0)
		}
		if err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("copy %s of %s: %w", attr, d.in(from), err)
		}
	}
	return nil
}
