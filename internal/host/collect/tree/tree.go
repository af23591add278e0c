// Package tree reads files below a root directory as if it were chrooted there:
// the host's own "/", a container's /proc/PID/root, or an image given with --root.
//
// The directory may belong to somebody hostile. Symbolic links, also absolute
// ones, resolve inside the root (RESOLVE_IN_ROOT); only regular files are opened,
// after a look that has no side effect (O_PATH); every read has a size bound.
package tree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// MaxFile is the size bound of a configuration file, in bytes.
const MaxFile = 1 << 20

// maxEntries bounds a directory listing.
const maxEntries = 65536

// Tree is an open root directory.
type Tree struct {
	fd   int
	name string // what people called it
	live bool   // it is the "/" of this process
	walk bool   // resolve step by step although the kernel could (tests)
}

// Host opens the "/" of this process.
func Host() (*Tree, error) { return open("/", true) }

// Open opens another root directory.
func Open(dir string) (*Tree, error) { return open(dir, false) }

func open(dir string, live bool) (*Tree, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root %s: %w", dir, err)
	}
	return &Tree{fd: fd, name: dir, live: live}, nil
}

// Close releases the root.
func (t *Tree) Close() error { return unix.Close(t.fd) }

// Live tells whether this is the "/" of this process, so that what its files
// say can be compared with the running kernel.
func (t *Tree) Live() bool { return t.live }

// state turns an error into the state of a fact.
func state[T any](err error, what string) fact.Known[T] {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return fact.Absent[T]()
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fact.Missing[T](fact.Gap{Reason: fact.Permission, What: what})
	default:
		return fact.Missing[T](fact.Gap{Reason: fact.NotCollected, What: what + ": " + err.Error()})
	}
}

// noOpenat2 remembers that the kernel (before Linux 5.6) or a seccomp filter
// refuses openat2.
var noOpenat2 atomic.Bool

// look opens name without opening it: O_PATH has no side effect on devices and fifos.
func (t *Tree) look(name string, nofollow bool) (int, error) {
	flags := unix.O_PATH | unix.O_CLOEXEC
	if nofollow {
		flags |= unix.O_NOFOLLOW
	}
	if strings.IndexByte(name, 0) >= 0 {
		return -1, unix.EINVAL
	}
	if len(clean(name)) >= unix.PathMax {
		return -1, unix.ENAMETOOLONG
	}
	if t.walk || noOpenat2.Load() {
		return t.lookOld(name, flags)
	}
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for range 8 {
		fd, err := unix.Openat2(t.fd, clean(name), &how)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR): // a rename raced with the resolution
			continue
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM) && t.refused():
			noOpenat2.Store(true)
			return t.lookOld(name, flags)
		}
		return fd, err
	}
	return -1, unix.EAGAIN
}

// refused tells whether EPERM came from a seccomp filter that does not know
// openat2 (Docker before 20.10), not from the file.
func (t *Tree) refused() bool {
	fd, err := unix.Openat2(t.fd, ".", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC})
	if err == nil {
		unix.Close(fd)
	}
	return errors.Is(err, unix.EPERM)
}

// lookOld serves kernels without openat2: the host's own root needs no
// confinement, any other is walked step by step.
func (t *Tree) lookOld(name string, flags int) (int, error) {
	if t.live && !t.walk {
		return unix.Openat(t.fd, clean(name), flags, 0)
	}
	return walk(t.fd, clean(name), flags&unix.O_NOFOLLOW != 0)
}

func clean(name string) string {
	p := path.Clean("/" + name)
	if p == "/" {
		return "."
	}
	return p[1:]
}

// ReadFile reads a regular file of at most max bytes. A longer one, or what is
// no regular file, is a Gap; a missing one is absent.
func (t *Tree) ReadFile(name string, max int64) fact.Known[[]byte] {
	fd, err := t.look(name, false)
	if err != nil {
		return state[[]byte](err, name)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return state[[]byte](err, name)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fact.Missing[[]byte](fact.Gap{Reason: fact.UnsupportedGap, What: name + " is not a regular file"})
	}
	// The look was at this very inode: opening it by its descriptor cannot be
	// diverted to a device or a fifo that took its place.
	r, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		// It is there: only /proc is not.
		return fact.Missing[[]byte](fact.Gap{Reason: fact.NotCollected, What: name + ": needs /proc to be mounted"})
	}
	if err != nil {
		return state[[]byte](err, name)
	}
	f := os.NewFile(uintptr(r), name)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if errors.Is(err, unix.EAGAIN) {
		return fact.Missing[[]byte](fact.Gap{Reason: fact.NotCollected, What: name + ": a read would wait"})
	}
	if err != nil {
		return state[[]byte](unwrapPath(err), name)
	}
	if int64(len(b)) > max {
		return fact.Missing[[]byte](fact.Gap{Reason: fact.Truncated, What: fmt.Sprintf("%s is larger than %d bytes", name, max)})
	}
	return fact.Value(b)
}

// unwrapPath takes the descriptor's name out of an error: the caller names the file.
func unwrapPath(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// List returns the names in a directory, sorted.
func (t *Tree) List(dir string) fact.Known[[]string] {
	fd, err := t.look(dir, false)
	if err != nil {
		return state[[]string](err, dir)
	}
	defer unix.Close(fd)
	r, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return state[[]string](err, dir)
	}
	f := os.NewFile(uintptr(r), dir)
	defer f.Close()
	names, err := f.Readdirnames(maxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return state[[]string](unwrapPath(err), dir)
	}
	if len(names) > maxEntries {
		return fact.Missing[[]string](fact.Gap{Reason: fact.Truncated, What: dir + " has too many entries"})
	}
	slices.Sort(names)
	return fact.Value(names)
}

// Readlink returns the target of a symbolic link; absent when name is none.
func (t *Tree) Readlink(name string) fact.Known[string] {
	fd, err := t.look(name, true)
	if err != nil {
		return state[string](err, name)
	}
	defer unix.Close(fd)
	buf := make([]byte, 4096)
	n, err := unix.Readlinkat(fd, "", buf)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return fact.Absent[string]()
	}
	if err != nil {
		return state[string](err, name)
	}
	return fact.Value(string(buf[:n]))
}

// Info is the type and permission of a file, as in struct stat.
type Info struct {
	Mode  uint32 // S_IFMT and permission bits
	UID   uint32
	GID   uint32
	Size  int64
	Inode uint64
	Dev   uint64
}

// IsDir tells whether it is a directory.
func (i Info) IsDir() bool { return i.Mode&unix.S_IFMT == unix.S_IFDIR }

// Stat looks at a file, following links inside the root.
func (t *Tree) Stat(name string) fact.Known[Info] {
	return t.info(name, false)
}

// Lstat looks at a file; of a symbolic link at the link itself.
func (t *Tree) Lstat(name string) fact.Known[Info] { return t.info(name, true) }

func (t *Tree) info(name string, nofollow bool) fact.Known[Info] {
	fd, err := t.look(name, nofollow)
	if err != nil {
		return state[Info](err, name)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return state[Info](err, name)
	}
	return fact.Value(Info{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size, Inode: st.Ino, Dev: uint64(st.Dev)})
}
