package sysctl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

const (
	// bufferSize is that of a directory read.
	bufferSize = 32 << 10
	// valueSize is more than any setting read here can hold. The kernel clears as
	// many bytes as it is offered for each read, so offering much is slow.
	valueSize = 511
	// maxDepth is that of net/ipv6/conf/IF.
	maxDepth = 3
)

// reader reads with openat below directories it holds open, into one buffer.
type reader struct {
	dump   *Dump
	budget *ask.Budget
	buf    []byte
	names  map[string]string // interned file names: the same sixty in every directory
	// crossing is true where the kernel lacks openat2 (before 5.6, or a seccomp
	// filter without it), so that what is mounted over single files goes unseen.
	crossing bool
}

func (r *reader) run() {
	fd, errno := open(unix.AT_FDCWD, root, unix.O_RDONLY|unix.O_DIRECTORY)
	if errno != 0 {
		r.dump.gap = dirGap("net", errno)
		return
	}
	defer unix.Close(fd)
	if !isProc(fd) {
		r.dump.gap = &fact.Gap{Reason: fact.NotCollected, What: root + ": something else is mounted over it"}
		return
	}
	r.keys(fd)
	if r.dump.gap != nil {
		return
	}
	switch six, errno := r.openDir(fd, "ipv6"); errno {
	case 0:
		r.walk(six, dir{path: "net/ipv6"}, maxDepth-1)
	case unix.ENOENT:
		r.dump.noIPv6 = true
	default:
		r.add(dir{path: "net/ipv6", gap: dirGap("net/ipv6", errno)})
	}
}

func (r *reader) add(d dir) { r.dump.dirs = append(r.dump.dirs, d) }

// keys reads the keys that are known by name.
func (r *reader) keys(fd int) {
	for _, s := range single {
		d := dir{path: "net/" + s.dir}
		sub, errno := r.openDir(fd, s.dir)
		switch {
		case errno == unix.ENOENT:
			for _, k := range s.keys {
				d.files = append(d.files, file{name: k, state: missing})
			}
			r.add(d)
			continue
		case errno != 0:
			d.gap = dirGap(d.path, errno)
			r.add(d)
			continue
		}
		r.named(sub, &d, s.keys)
		r.add(d)
		if s.dir == "ipv4" && r.dump.gap == nil {
			r.ipv4Conf(sub)
		}
		unix.Close(sub)
		if r.dump.gap != nil {
			return
		}
	}
}

func (r *reader) named(fd int, d *dir, keys []string) {
	if !isProc(fd) {
		d.gap = maskedGap(d.path)
		return
	}
	for _, k := range keys {
		f, gone := r.file(fd, k)
		if gone {
			f = file{name: k, state: missing}
		}
		d.files = append(d.files, f)
	}
}

// ipv4Conf reads a few keys of each interface below net/ipv4/conf.
func (r *reader) ipv4Conf(ipv4 int) {
	fd, errno := r.openDir(ipv4, "conf")
	if errno != 0 {
		r.add(dir{path: "net/ipv4/conf", gap: dirGap("net/ipv4/conf", errno)})
		return
	}
	defer unix.Close(fd)
	subdirs, _, gap := r.list(fd, "net/ipv4/conf")
	if gap != nil {
		r.add(dir{path: "net/ipv4/conf", gap: gap})
		return
	}
	for _, name := range subdirs {
		d := dir{path: "net/ipv4/conf", name: name}
		sub, errno := r.openDir(fd, string(name))
		switch {
		case errno == unix.ENOENT:
			continue // the interface is gone
		case errno != 0:
			d.gap = dirGap(d.path, errno)
		default:
			r.named(sub, &d, ipv4PerInterface)
			unix.Close(sub)
		}
		r.add(d)
		if r.dump.gap != nil {
			return
		}
	}
}

// walk reads a directory and what is below it. It closes fd.
func (r *reader) walk(fd int, d dir, depth int) {
	defer unix.Close(fd)
	if !isProc(fd) {
		d.gap = maskedGap(d.path)
		r.add(d)
		return
	}
	subdirs, names, gap := r.list(fd, d.path)
	if gap != nil {
		d.gap = gap
		r.add(d)
		return
	}
	d.listed = true
	d.files = make([]file, 0, len(names))
	for _, n := range names {
		if writeOnly[n] {
			continue
		}
		f, gone := r.file(fd, n)
		if gone {
			d.listed = false // an interface that goes takes its keys along
			continue
		}
		d.files = append(d.files, f)
	}
	if !d.listed && d.name != nil {
		return
	}
	r.add(d)
	perIface := d.path == "net/ipv6" // its directories conf and neigh
	for _, name := range subdirs {
		if r.dump.gap != nil {
			return
		}
		sub := dir{path: d.path + "/" + string(name)}
		if d.perIface {
			sub = dir{path: d.path, name: name}
		} else if perIface {
			sub.perIface = string(name) == "conf" || string(name) == "neigh"
		}
		if depth == 0 {
			sub.gap = &fact.Gap{Reason: fact.Truncated, What: "/proc/sys/" + sub.path + ": deeper than expected"}
			r.add(sub)
			continue
		}
		next, errno := r.openDir(fd, string(name))
		switch {
		case errno == unix.ENOENT:
		case errno != 0:
			sub.gap = dirGap(sub.path, errno)
			r.add(sub)
		default:
			r.walk(next, sub, depth-1)
		}
	}
}

// file reads one key; gone says that it no longer exists.
func (r *reader) file(fd int, name string) (f file, gone bool) {
	f.name = name
	if secret(name) && name != stableSecret {
		f.state, f.reason, f.detail = failed, fact.NotCollected, "held back: it may be a secret"
		return f, false
	}
	h, errno := r.open(fd, name, unix.O_RDONLY)
	if errno == 0 {
		defer unix.Close(h)
		if name == stableSecret {
			f.state, errno = probeSecret(h)
		} else {
			errno = r.value(h, &f)
		}
	}
	switch errno {
	case 0:
	case unix.ENOENT:
		return f, true
	case unix.EACCES, unix.EPERM:
		f.state, f.reason = failed, fact.Permission
	case unix.EXDEV:
		f.state, f.reason, f.detail = failed, fact.NotCollected, "something else is mounted over it"
	default:
		f.state, f.reason, f.detail = failed, fact.NotCollected, errno.Error()
	}
	return f, false
}

func (r *reader) value(h int, f *file) unix.Errno {
	n, errno := readFD(h, r.buf[:valueSize])
	if errno != 0 {
		return errno
	}
	if n == valueSize {
		f.state, f.reason, f.detail = failed, fact.Truncated, "longer than expected"
		return 0
	}
	if gap := r.budget.Take("settings", 1, n); gap != nil {
		r.dump.gap = gap
	}
	if n == 0 {
		// The kernel ends every setting with a newline; nothing at all is what
		// a masked file (/dev/null mounted over it) reads like.
		f.state, f.reason, f.detail = failed, fact.NotCollected, "empty"
		return 0
	}
	f.start = len(r.dump.values)
	r.dump.values = append(r.dump.values, r.buf[:n]...)
	f.end = len(r.dump.values)
	return 0
}

// probeSecret tells whether a stable secret was set by reading nothing: the
// kernel answers EIO while it is unset (addrconf_sysctl_stable_secret,
// net/ipv6/addrconf.c) and no byte of it ever enters this process.
func probeSecret(h int) (state, unix.Errno) {
	switch _, errno := readFD(h, nil); errno {
	case 0:
		return isSet, 0
	case unix.EIO:
		return isUnset, 0
	default:
		return failed, errno
	}
}

// list returns the names of the directories and files in a directory.
func (r *reader) list(fd int, path string) (dirs [][]byte, files []string, gap *fact.Gap) {
	for {
		n, err := unix.Getdents(fd, r.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, nil, dirGap(path, errnoOf(err))
		}
		if n == 0 {
			return dirs, files, nil
		}
		entries := 0
		for name, isDir := range dirents(r.buf[:n]) {
			entries++
			if isDir {
				dirs = append(dirs, bytes.Clone(name))
				continue
			}
			s, ok := r.names[string(name)]
			if !ok {
				s = string(name)
				r.names[s] = s
			}
			files = append(files, s)
		}
		if gap := r.budget.Take("settings", entries, n); gap != nil {
			r.dump.gap = gap
			return nil, nil, gap
		}
	}
}

// dirents walks struct linux_dirent64: u64 inode, u64 offset, u16 length, u8
// type, name with NUL.
func dirents(b []byte) func(yield func(name []byte, isDir bool) bool) {
	const header = 19
	return func(yield func([]byte, bool) bool) {
		for len(b) > header {
			size := int(binary.NativeEndian.Uint16(b[16:]))
			if size <= header || size > len(b) {
				return
			}
			name := b[header:size]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			isDir := b[18] == unix.DT_DIR
			b = b[size:]
			if len(name) == 0 || string(name) == "." || string(name) == ".." || bytes.IndexByte(name, '/') >= 0 {
				continue
			}
			if !yield(name, isDir) {
				return
			}
		}
	}
}

// isProc tells whether a directory is procfs's own: something mounted over it
// would let its author write what the audit reads.
func isProc(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Type == unix.PROC_SUPER_MAGIC
}

func maskedGap(path string) *fact.Gap {
	return &fact.Gap{Reason: fact.NotCollected, What: "/proc/sys/" + path + ": something else is mounted over it"}
}

func dirGap(path string, errno unix.Errno) *fact.Gap {
	if errno == unix.EXDEV {
		return maskedGap(path)
	}
	g := &fact.Gap{Reason: fact.NotCollected, What: fmt.Sprintf("/proc/sys/%s: %v", path, errno)}
	if errno == unix.EACCES || errno == unix.EPERM {
		g.Reason, g.What = fact.Permission, "/proc/sys/"+path
	}
	return g
}

func (r *reader) openDir(at int, name string) (int, unix.Errno) {
	return r.open(at, name, unix.O_RDONLY|unix.O_DIRECTORY)
}

// open opens an entry of a directory, and nothing that is mounted over it: a file
// put there could say anything, another interface's setting included. That is EXDEV.
func (r *reader) open(at int, name string, flags int) (int, unix.Errno) {
	for !r.crossing {
		fd, err := unix.Openat2(at, name, &unix.OpenHow{
			Flags:   uint64(flags) | unix.O_CLOEXEC | unix.O_NOFOLLOW,
			Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
		})
		switch errno := errnoOf(err); {
		case err == nil:
			return fd, 0
		case errno == unix.ENOSYS:
			r.crossing = true
		case errno == unix.EPERM: // what old seccomp profiles say to a call they do not know
			fd, errno := open(at, name, flags)
			r.crossing = errno == 0
			return fd, errno
		case errno != unix.EINTR && errno != unix.EAGAIN:
			return -1, errno
		}
	}
	return open(at, name, flags)
}

func open(at int, name string, flags int) (int, unix.Errno) {
	for {
		fd, err := unix.Openat(at, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err == nil {
			return fd, 0
		}
		if errno := errnoOf(err); errno != unix.EINTR {
			return -1, errno
		}
	}
}

func readFD(fd int, b []byte) (int, unix.Errno) {
	for {
		n, err := unix.Read(fd, b)
		if err == nil {
			return n, 0
		}
		if errno := errnoOf(err); errno != unix.EINTR {
			return 0, errno
		}
	}
}

// errnoOf is the errno of a system call's error.
func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return unix.EIO
	}
	return errno
}
