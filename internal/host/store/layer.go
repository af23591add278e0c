package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Layer is how everything that must survive a crash is written. There is one way to
// make a file (O_EXCL, all of its bytes, fsync), one to put it in its place (rename,
// fsync of the directory) and one to reach a directory (component by component,
// never through a symbolic link). Every change passes Before and After, so that a
// test can refuse it, die in front of it, or record it and cut the power behind it.
type Layer struct {
	// Before is asked before each operation; its error is what the operation returns.
	Before func(Op) error
	// After hears of each operation that succeeded.
	After func(Op)
}

// OpKind is what an Op does.
type OpKind string

// The operations. Sync is of a file's content and size, SyncDir of a directory's names.
const (
	OpMkdir    OpKind = "mkdir"
	OpCreate   OpKind = "create"
	OpWrite    OpKind = "write" // appends Data
	OpSync     OpKind = "fsync"
	OpSyncDir  OpKind = "fsync-dir"
	OpSyncAll  OpKind = "syncfs"   // of what other programs wrote
	OpRename   OpKind = "rename"   // Path to To; what is at To is gone
	OpMove     OpKind = "move"     // Path to To, where nothing is
	OpExchange OpKind = "exchange" // Path and To change places
	OpRemove   OpKind = "remove"
	OpRmdir    OpKind = "rmdir"
	OpSymlink  OpKind = "symlink" // Path leads to Data
)

// Op is one operation on absolute paths.
type Op struct {
	Kind     OpKind
	Path, To string
	Data     []byte
	Mode     uint32 // permission bits of mkdir and create
	UID, GID uint32
}

func (l *Layer) do(op Op, f func() error) error {
	if l != nil && l.Before != nil {
		if err := l.Before(op); err != nil {
			return fmt.Errorf("%s %s: %w", op.Kind, op.Path, err)
		}
	}
	if err := f(); err != nil {
		return fmt.Errorf("%s %s: %w", op.Kind, op.Path, err)
	}
	if l != nil && l.After != nil {
		l.After(op)
	}
	return nil
}

// Dir is an open directory.
type Dir struct {
	l    *Layer
	fd   int
	path string
}

// UnsafeError says why a directory or file is not to be trusted.
type UnsafeError struct{ Path, Why, Hint string }

// Error implements error.
func (e *UnsafeError) Error() string { return e.Path + ": " + e.Why }

// ErrLocked says that another process holds the lock.
var ErrLocked = errors.New("another run holds the lock")

// Open opens a directory by its absolute path. No component may be a symbolic link,
// and each must belong to root (or the caller) and be writable by nobody else: a
// sticky directory such as /tmp is safe, because others cannot rename in it what is
// root's.
func (l *Layer) Open(path string) (*Dir, error) {
	if !filepath.IsAbs(path) {
		return nil, &UnsafeError{Path: path, Why: "not an absolute path"}
	}
	path = filepath.Clean(path)
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /: %w", err)
	}
	at := "/"
	for _, name := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
		if name == "" {
			continue
		}
		at = filepath.Join(at, name)
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
				var st unix.Stat_t
				if unix.Lstat(at, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
					return nil, &UnsafeError{Path: at, Why: "is a symbolic link", Hint: "replace the link by a directory, or a bind mount"}
				}
			}
			return nil, fmt.Errorf("open %s: %w", at, err)
		}
		if err := safe(next, at); err != nil {
			unix.Close(next)
			return nil, err
		}
		fd = next
	}
	real, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	unix.Close(fd)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &Dir{l: l, fd: real, path: path}, nil
}

func safe(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	switch {
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return &UnsafeError{Path: path, Why: fmt.Sprintf("belongs to user %d, who could replace what is in it", st.Uid), Hint: "chown root " + path}
	case st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0:
		return &UnsafeError{Path: path, Why: fmt.Sprintf("is writable by others (mode %04o)", st.Mode&0o7777), Hint: "chmod go-w " + path}
	}
	return nil
}

// OpenPrivate opens a directory that only its owner may enter, and makes it, with
// its parents, when it is not there.
func (l *Layer) OpenPrivate(path string) (*Dir, error) {
	if err := l.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	d, err := l.Open(path)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		d.Close()
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode&0o077 != 0 || int(st.Uid) != os.Geteuid() {
		d.Close()
		return nil, &UnsafeError{Path: path, Why: fmt.Sprintf("is not private (mode %04o, user %d)", st.Mode&0o7777, st.Uid), Hint: "chown root " + path + "; chmod 0700 " + path}
	}
	return d, nil
}

// MkdirAll makes a directory and the parents that are missing. Parents get 0755.
func (l *Layer) MkdirAll(path string, mode uint32) error {
	d, err := l.Open(path)
	if err == nil {
		d.Close()
		return nil
	}
	if !errors.Is(err, unix.ENOENT) || path == "/" {
		return err
	}
	if err := l.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	p, err := l.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.mkdir(filepath.Base(path), mode); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return p.Sync()
}

// Close closes the directory.
func (d *Dir) Close() { unix.Close(d.fd) }

// Path is the directory's absolute path.
func (d *Dir) Path() string { return d.path }

func (d *Dir) in(name string) string { return filepath.Join(d.path, name) }

func (d *Dir) mkdir(name string, mode uint32) error {
	return d.l.do(Op{Kind: OpMkdir, Path: d.in(name), Mode: mode}, func() error {
		if err := unix.Mkdirat(d.fd, name, mode); err != nil {
			return err
		}
		return unix.Fchmodat(d.fd, name, mode, 0) // the umask is the caller's
	})
}

// Mkdir makes a private directory, where nothing may be, and opens it.
func (d *Dir) Mkdir(name string) (*Dir, error) {
	if err := d.mkdir(name, 0o700); err != nil {
		return nil, err
	}
	return d.Sub(name)
}

// Sub opens a directory inside this one.
func (d *Dir) Sub(name string) (*Dir, error) {
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d.in(name), err)
	}
	if err := safe(fd, d.in(name)); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Dir{l: d.l, fd: fd, path: d.in(name)}, nil
}

// Write makes a file, where nothing may be, with all of its content on the disk. Its
// name is not: Sync the directory for that. A file that could not be completed is
// removed.
func (d *Dir) Write(name string, content []byte, a Attr) error {
	if a.Mode == 0 {
		a.Mode = 0o600
	}
	var fd int
	err := d.l.do(Op{Kind: OpCreate, Path: d.in(name), Mode: a.Mode, UID: a.UID, GID: a.GID}, func() (err error) {
		fd, err = unix.Openat(d.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), d.in(name))
	err = func() error {
		if a.UID != 0 || a.GID != 0 {
			if err := f.Chown(int(a.UID), int(a.GID)); err != nil {
				return fmt.Errorf("chown %s: %w", d.in(name), err)
			}
		}
		if err := unix.Fchmod(fd, a.Mode); err != nil {
			return fmt.Errorf("chmod %s: %w", d.in(name), err)
		}
		if a.Label != "" {
			if err := setLabel(fd, d.in(name), a.Label); err != nil {
				return err
			}
		}
		if err := d.l.do(Op{Kind: OpWrite, Path: d.in(name), Data: content}, func() error { _, err := f.Write(content); return err }); err != nil {
			return err
		}
		return d.l.do(Op{Kind: OpSync, Path: d.in(name)}, func() error { return f.Sync() })
	}()
	if e := f.Close(); err == nil && e != nil {
		err = fmt.Errorf("close %s: %w", d.in(name), e)
	}
	if err != nil {
		_ = d.Remove(name)
	}
	return err
}

// Replace puts a file in its place at once: whoever looks sees the old content or
// the new one, and after a power cut, too.
func (d *Dir) Replace(name string, content []byte, a Attr) error {
	temp := "." + name + ".new"
	if err := d.Remove(temp); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := d.Write(temp, content, a); err != nil {
		return err
	}
	if err := d.Rename(temp, name); err != nil {
		_ = d.Remove(temp)
		return err
	}
	return d.Sync()
}

// Append adds to a file and, if durable, waits for the disk. The file is made when it
// is not there.
func (d *Dir) Append(name string, content []byte, durable bool) error {
	fd, err := unix.Openat(d.fd, name, unix.O_WRONLY|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	made := false
	if errors.Is(err, unix.ENOENT) {
		made = true
		err = d.l.do(Op{Kind: OpCreate, Path: d.in(name), Mode: 0o600}, func() (err error) {
			fd, err = unix.Openat(d.fd, name, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", d.in(name), err)
	}
	f := os.NewFile(uintptr(fd), d.in(name))
	defer f.Close()
	if err := d.l.do(Op{Kind: OpWrite, Path: d.in(name), Data: content}, func() error { _, err := f.Write(content); return err }); err != nil {
		return err
	}
	if !durable {
		return nil
	}
	if err := d.l.do(Op{Kind: OpSync, Path: d.in(name)}, func() error { return f.Sync() }); err != nil {
		return err
	}
	if made {
		return d.Sync()
	}
	return nil
}

// Rename gives a file, or directory, of this one another name and takes that name
// from whatever had it.
func (d *Dir) Rename(from, to string) error {
	return d.l.do(Op{Kind: OpRename, Path: d.in(from), To: d.in(to)}, func() error { return unix.Renameat(d.fd, from, d.fd, to) })
}

// Move is Rename where nothing may have the new name (EEXIST).
func (d *Dir) Move(from, to string) error { return d.MoveTo(from, d, to) }

// MoveTo is Move to another directory of the same file system.
func (d *Dir) MoveTo(from string, other *Dir, to string) error {
	return d.l.do(Op{Kind: OpMove, Path: d.in(from), To: other.in(to)}, func() error {
		err := unix.Renameat2(d.fd, from, other.fd, to, unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
			return err
		}
		var st unix.Stat_t // a file system without the flag: the lock keeps us alone here
		if unix.Fstatat(other.fd, to, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			return unix.EEXIST
		}
		return unix.Renameat(d.fd, from, other.fd, to)
	})
}

// Exchange lets two names change places at once.
func (d *Dir) Exchange(a, b string) error {
	return d.l.do(Op{Kind: OpExchange, Path: d.in(a), To: d.in(b)}, func() error {
		return unix.Renameat2(d.fd, a, d.fd, b, unix.RENAME_EXCHANGE)
	})
}

// Remove removes a file.
func (d *Dir) Remove(name string) error {
	return d.l.do(Op{Kind: OpRemove, Path: d.in(name)}, func() error { return unix.Unlinkat(d.fd, name, 0) })
}

// Symlink makes a symbolic link: systemd wants one where a unit is enabled.
func (d *Dir) Symlink(target, name string) error {
	return d.l.do(Op{Kind: OpSymlink, Path: d.in(name), Data: []byte(target)}, func() error { return unix.Symlinkat(target, d.fd, name) })
}

// SyncFile makes a file durable that is there already.
func (d *Dir) SyncFile(name string) error {
	return d.l.do(Op{Kind: OpSync, Path: d.in(name)}, func() error {
		fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Fsync(fd)
	})
}

// Rmdir removes an empty directory.
func (d *Dir) Rmdir(name string) error {
	return d.l.do(Op{Kind: OpRmdir, Path: d.in(name)}, func() error { return unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR) })
}

// RemoveAll removes a directory of files and directories, as far as it can.
func (d *Dir) RemoveAll(name string) error {
	s, err := d.Sub(name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	names, err := s.List()
	for _, n := range names {
		if e := s.Remove(n); errors.Is(e, unix.EISDIR) {
			e = s.RemoveAll(n)
			err = errors.Join(err, e)
		} else {
			err = errors.Join(err, e)
		}
	}
	s.Close()
	if err != nil {
		return err
	}
	return d.Rmdir(name)
}

// Sync makes the directory's names durable.
func (d *Dir) Sync() error {
	return d.l.do(Op{Kind: OpSyncDir, Path: d.path}, func() error { return unix.Fsync(d.fd) })
}

// SyncAll makes all of the file system durable that the directory is on: for what other
// programs wrote there.
func (d *Dir) SyncAll() error {
	return d.l.do(Op{Kind: OpSyncAll, Path: d.path}, func() error { return unix.Syncfs(d.fd) })
}

// Info is what a file is.
type Info struct {
	Mode     uint32 // permission bits
	UID, GID uint32
	Size     int64
	Label    string
}

// Read reads a regular file of at most limit bytes.
func (d *Dir) Read(name string, limit int64) ([]byte, Info, error) {
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ELOOP) {
			return nil, Info{}, &UnsafeError{Path: d.in(name), Why: "is a symbolic link", Hint: "replace the link by the file it points to"}
		}
		return nil, Info{}, fmt.Errorf("open %s: %w", d.in(name), err)
	}
	f := os.NewFile(uintptr(fd), d.in(name))
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, Info{}, fmt.Errorf("stat %s: %w", d.in(name), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, Info{}, &UnsafeError{Path: d.in(name), Why: "is not a regular file"}
	}
	i := Info{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Size: st.Size}
	var label [256]byte
	if n, err := unix.Fgetxattr(fd, "security.selinux", label[:]); err == nil && n <= len(label) {
		i.Label = strings.TrimRight(string(label[:n]), "\x00")
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, i, fmt.Errorf("read %s: %w", d.in(name), err)
	}
	if int64(len(b)) > limit {
		return nil, i, fmt.Errorf("read %s: larger than %d bytes", d.in(name), limit)
	}
	return b, i, nil
}

// Has tells whether a name is there, whatever it is.
func (d *Dir) Has(name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// List returns the names in the directory.
func (d *Dir) List() ([]string, error) {
	fd, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d.path, err)
	}
	f := os.NewFile(uintptr(fd), d.path)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", d.path, err)
	}
	return names, nil
}

// Copy makes a file from a stream, executable by its owner. It is on the disk only
// if durable.
func (d *Dir) Copy(name string, from io.Reader, durable bool) error {
	fd, err := unix.Openat(d.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o700)
	if err != nil {
		return fmt.Errorf("create %s: %w", d.in(name), err)
	}
	f := os.NewFile(uintptr(fd), d.in(name))
	_, err = io.Copy(f, from)
	if err == nil {
		err = f.Chmod(0o700) // the umask is the caller's
	}
	if err == nil && durable {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = unix.Unlinkat(d.fd, name, 0)
		return fmt.Errorf("copy %s: %w", d.in(name), err)
	}
	return nil
}
