package proc

import (
	"encoding/binary"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// listing reads the numeric names of a procfs directory (processes, tasks, file
// descriptors) with one reused buffer and no allocation a name: a host with
// 100,000 sockets has that many names in one directory.
type listing struct {
	buf [32 << 10]byte
}

// numbers appends the numeric names in the open directory to dst, at most max
// of them; more tells that there were others. The directory is read to the end
// exactly when err is nil and more is false.
func (l *listing) numbers(fd int, dst []int32, max int) (names []int32, more bool, err error) {
	start := len(dst)
	for {
		n, err := unix.Getdents(fd, l.buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return dst, false, err
		}
		dst = direntNumbers(l.buf[:n], dst)
		if len(dst)-start > max {
			return dst[:start+max], true, nil
		}
	}
}

// direntNumbers walks struct linux_dirent64 records (getdents64(2)): ino u64,
// off u64, reclen u16, type u8, name NUL-terminated.
func direntNumbers(b []byte, dst []int32) []int32 {
	const head = 19
	for len(b) >= head {
		reclen := int(binary.NativeEndian.Uint16(b[16:]))
		if reclen < head || reclen > len(b) {
			return dst
		}
		if v, ok := number(b[head:reclen]); ok {
			dst = append(dst, v)
		}
		b = b[reclen:]
	}
	return dst
}

// number reads a decimal name that ends at NUL or at the end of b.
func number(b []byte) (int32, bool) {
	var v int64
	for i, c := range b {
		if c == 0 && i > 0 {
			return int32(v), true
		}
		if c < '0' || c > '9' {
			return 0, false
		}
		if v = v*10 + int64(c-'0'); v > 1<<31-1 {
			return 0, false
		}
	}
	return int32(v), len(b) > 0
}

// readlink reads a symbolic link below the open directory into buf; name must
// end with NUL. It exists because x/sys copies the name to the heap every time.
func readlink(dir int, name, buf []byte) (int, error) {
	n, _, e := unix.Syscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
	runtime.KeepAlive(name)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// Link targets of a file descriptor that matter here (fs/nsfs.c, net/socket.c).
const (
	linkSocket = "socket:["
	linkNet    = "net:["
)

// bracketed returns the number in "prefix[number]", given the prefix with its bracket.
func bracketed(b []byte, prefix string) (uint64, bool) {
	if len(b) < len(prefix)+2 || string(b[:len(prefix)]) != prefix || b[len(b)-1] != ']' {
		return 0, false
	}
	var v uint64
	for _, c := range b[len(prefix) : len(b)-1] {
		d := uint64(c - '0')
		if d > 9 || v > (1<<64-1-d)/10 {
			return 0, false
		}
		v = v*10 + d
	}
	return v, true
}

// readSmall reads a procfs file to its end, at most len(buf) bytes.
func readSmall(dir int, name string, buf []byte) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return buf[:n], nil
}

// linkText reads a short link such as "net:[4026531840]" or "/usr/sbin/sshd".
func linkText(dir int, name string, buf []byte) (string, error) {
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// linkInode reads a namespace link and returns its inode.
func linkInode(dir int, name, prefix string, buf []byte) (uint64, error) {
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return 0, err
	}
	v, ok := bracketed(buf[:n], prefix)
	if !ok {
		return 0, unix.EINVAL
	}
	return v, nil
}

func itoa(n int) string { return strconv.Itoa(n) }

// nsfsInode follows a link to a file of nsfs (any kind of namespace). statx(2)
// with AT_STATX_DONT_SYNC takes what the kernel already holds, so that nobody
// who serves a filesystem is asked, whatever the link leads to by now.
func nsfsInode(dir int, name []byte, dev uint64) (uint64, bool) {
	var st unix.Statx_t
	err := unix.Statx(dir, string(name[:len(name)-1]), unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_INO, &st)
	if err != nil || unix.Mkdev(st.Dev_major, st.Dev_minor) != dev {
		return 0, false
	}
	return st.Ino, true
}
