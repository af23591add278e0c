// Package store is the small file layer: how sixfence writes the files a person
// asked for, and how it reads and writes Snapshots.
//
// Every file is 0600 from the first byte, is made with O_EXCL beside its target
// and renamed over it after an fsync, and never goes through a symbolic link.
package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// RefusedError says that a path cannot be an output file, and why.
type RefusedError struct {
	Path string
	Why  string
	Hint string
}

// Error implements error.
func (e *RefusedError) Error() string { return fmt.Sprintf("write %s: %s", e.Path, e.Why) }

// Output is a file being written. Until Commit the target keeps its old content,
// or does not exist.
type Output struct {
	path  string
	dir   int // the directory, open
	name  string
	temp  string // empty once the file has its final name
	f     *os.File
	ended bool
}

// Create prepares to write path. It does everything that may need privileges: a
// process that gives up its capabilities afterwards can still write and Commit.
func Create(path string) (*Output, error) {
	clean := filepath.Clean(path)
	name := filepath.Base(clean)
	if path == "" || name == "." || name == ".." || name == "/" || os.IsPathSeparator(path[len(path)-1]) {
		return nil, &RefusedError{Path: path, Why: "not a file name", Hint: "name a file, not a directory"}
	}
	parent := filepath.Dir(clean)
	dir, err := unix.Open(parent, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		dir, err = unix.Open(parent, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, &RefusedError{Path: path, Why: "open directory " + parent + ": " + err.Error(), Hint: "create the directory first, or choose another"}
	}
	o := &Output{path: path, dir: dir, name: name}
	if err := o.begin(); err != nil {
		unix.Close(dir)
		return nil, err
	}
	return o, nil
}

func (o *Output) begin() error {
	if err := o.acceptable(); err != nil {
		return err
	}
	var r [8]byte
	if _, err := rand.Read(r[:]); err != nil {
		return fmt.Errorf("name temporary file: %w", err)
	}
	o.temp = "." + o.name + "." + hex.EncodeToString(r[:]) + ".tmp"
	if len(o.temp) > 255 {
		o.temp = "." + hex.EncodeToString(r[:]) + ".tmp"
	}
	fd, err := unix.Openat(o.dir, o.temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &RefusedError{Path: o.path, Why: err.Error(), Hint: "choose a directory you may write to, or write to standard output"}
	}
	o.f = os.NewFile(uintptr(fd), o.path)
	// The umask can only take bits away; make the mode exact.
	if err := o.f.Chmod(0o600); err != nil {
		o.Abort()
		return fmt.Errorf("set mode of %s: %w", o.path, err)
	}
	if !o.renamable() {
		// Root writes into somebody else's directory (sudo, in a home directory).
		// Without capabilities it could not rename there, so the name is taken now; a
		// run that fails leaves an empty file.
		if err := o.rename(); err != nil {
			o.Abort()
			return err
		}
	}
	return nil
}

// acceptable refuses to replace anything but a regular file.
func (o *Output) acceptable() error {
	var st unix.Stat_t
	err := unix.Fstatat(o.dir, o.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &RefusedError{Path: o.path, Why: err.Error()}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFLNK:
		return &RefusedError{Path: o.path, Why: "is a symbolic link", Hint: "remove the link, or name the file it points to"}
	case unix.S_IFDIR:
		return &RefusedError{Path: o.path, Why: "is a directory", Hint: "name a file inside it"}
	}
	return &RefusedError{Path: o.path, Why: "is not a regular file", Hint: "write to standard output and redirect it"}
}

// renamable tells whether this user could rename in the directory without any
// capability. It looks at the permission bits only: a wrong "no" costs atomicity,
// never the file.
func (o *Output) renamable() bool {
	var d unix.Stat_t
	if unix.Fstat(o.dir, &d) != nil {
		return false
	}
	uid := uint32(os.Geteuid())
	var bits uint32
	switch {
	case d.Uid == uid:
		bits = d.Mode >> 6
	case d.Gid == uint32(os.Getegid()) || inGroup(int(d.Gid)):
		bits = d.Mode >> 3
	default:
		bits = d.Mode
	}
	if bits&0o3 != 0o3 {
		return false
	}
	if d.Mode&unix.S_ISVTX != 0 && d.Uid != uid {
		var st unix.Stat_t
		if unix.Fstatat(o.dir, o.name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Uid != uid {
			return false
		}
	}
	return true
}

func inGroup(gid int) bool {
	gs, _ := os.Getgroups()
	return slices.Contains(gs, gid)
}

func (o *Output) rename() error {
	if o.temp == "" {
		return nil
	}
	if err := o.acceptable(); err != nil {
		return err
	}
	if err := unix.Renameat(o.dir, o.temp, o.dir, o.name); err != nil {
		return &RefusedError{Path: o.path, Why: "rename: " + err.Error()}
	}
	o.temp = ""
	return nil
}

// Dir is the directory that must stay writable until Commit; empty when the file
// already has its name.
func (o *Output) Dir() string {
	if o.temp == "" {
		return ""
	}
	return filepath.Dir(filepath.Clean(o.path))
}

// Write appends to the file.
func (o *Output) Write(b []byte) (int, error) { return o.f.Write(b) }

// Commit makes the content durable and gives the file its name.
func (o *Output) Commit() error {
	if err := o.f.Sync(); err != nil {
		o.Abort()
		return fmt.Errorf("sync %s: %w", o.path, err)
	}
	if err := o.rename(); err != nil {
		o.Abort()
		return err
	}
	// A directory that can be searched but not read cannot be synced; the file is there.
	if err := unix.Fsync(o.dir); err != nil && !errors.Is(err, unix.EBADF) && !errors.Is(err, unix.EINVAL) {
		_ = o.close()
		return fmt.Errorf("sync directory of %s: %w", o.path, err)
	}
	return o.close()
}

// Abort throws away what was written. After Commit it does nothing.
func (o *Output) Abort() {
	if o.ended {
		return
	}
	if o.temp != "" {
		_ = unix.Unlinkat(o.dir, o.temp, 0)
	} else if o.f != nil {
		_ = o.f.Truncate(0)
	}
	_ = o.close()
}

func (o *Output) close() error {
	if o.ended {
		return nil
	}
	o.ended = true
	defer unix.Close(o.dir)
	if o.f == nil {
		return nil
	}
	if err := o.f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", o.path, err)
	}
	return nil
}
