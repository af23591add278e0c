package space

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/proc"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Bounds of reading mount tables.
const (
	maxMountinfo = 16 << 20 // bytes of one table; fs.mount-max is 100,000 mounts
	// maxForeignMounts is how many mount namespaces of strangers are looked at.
	maxForeignMounts = 64
	maxEntries       = 65536 // names in /run/netns
)

// nsMount is one mount of a network namespace.
type nsMount struct {
	inode  uint64
	point  string
	served bool // the way to it leads through a filesystem that somebody serves
}

// parseMountinfo returns the mounts of network namespaces
// (proc_pid_mountinfo(5): id parent maj:min root point options … - type source super).
func parseMountinfo(raw []byte) []nsMount {
	var out []nsMount
	var served []string
	for line := range bytes.Lines(raw) {
		head, tail, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" - "))
		if !ok {
			continue
		}
		f := bytes.Fields(head)
		typ, _, _ := bytes.Cut(tail, []byte(" "))
		if len(f) < 5 {
			continue
		}
		point := unescape(string(f[4]))
		if mayStall(string(typ)) {
			served = append(served, point)
			continue
		}
		if string(typ) != "nsfs" {
			continue
		}
		text, ok := strings.CutPrefix(string(f[3]), "net:[")
		if !ok {
			continue
		}
		inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
		if err != nil || inode == 0 {
			continue
		}
		out = append(out, nsMount{inode: inode, point: point})
	}
	for i := range out {
		for _, p := range served {
			if p == "/" || out[i].point == p || strings.HasPrefix(out[i].point, p+"/") {
				out[i].served = true
			}
		}
	}
	return out
}

// mayStall lists filesystems where walking a path asks somebody who may not
// answer, or mounts something (autofs).
func mayStall(typ string) bool {
	typ, _, _ = strings.Cut(typ, ".")
	switch typ {
	case "fuse", "fuseblk", "fusectl", "nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "coda", "orangefs", "lustre", "autofs", "gfs2", "ocfs2":
		return true
	}
	return false
}

// unescape undoes the octal escapes of mountinfo (\040 space, \011, \012, \134).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mounts looks for nsfs mounts in every mount namespace a process lives in.
func (d *discovery) mounts(t *proc.Table) {
	var own unix.Stat_t
	_ = unix.Stat("/proc/thread-self/ns/mnt", &own)
	d.mountTable("/proc/thread-self/mountinfo", "/", true)
	foreign, left, denied := 0, 0, 0
	for _, m := range t.Mounts() {
		if d.over(1) {
			return
		}
		if m.Inode == own.Ino {
			continue
		}
		switch stranger, err := d.mountOwner(m); {
		case err != nil:
			denied++
		case stranger:
			if foreign++; foreign > maxForeignMounts {
				left++
				continue
			}
			d.mountNamespace(m, false)
		default:
			d.mountNamespace(m, true)
		}
	}
	if left > 0 {
		d.gap(fact.Truncated, "mounts of network namespaces in %d more mount namespaces made by users (of %d)", left, foreign)
	}
	if denied > 0 {
		d.gap(fact.Permission, "mounts of network namespaces in %d mount namespaces", denied)
	}
}

// mountOwner tells whether a mount namespace belongs to a stranger.
func (d *discovery) mountOwner(m proc.Mount) (stranger bool, err error) {
	for _, pid := range m.PIDs {
		var fd int
		if fd, err = unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			continue
		}
		k := d.owner(fd)
		unix.Close(fd)
		if o, ok := k.Get(); ok {
			return !o.Initial && o.Inode != d.user, nil
		}
		return true, nil // not ours, and not below us
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	return false, err
}

func (d *discovery) mountNamespace(m proc.Mount, walk bool) {
	for _, pid := range m.PIDs {
		if d.mountTable(fmt.Sprintf("/proc/%d/mountinfo", pid), fmt.Sprintf("/proc/%d/root", pid), walk) {
			return
		}
	}
}

// mountTable reads one table and opens the namespaces in it that are new. In a
// stranger's mount namespace no path is walked: he decides what stands there.
func (d *discovery) mountTable(table, root string, walk bool) bool {
	raw, err := readBounded(table, maxMountinfo)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return false // ended
	}
	if err != nil {
		d.gap(reason(err), "mounts of network namespaces: %v", err)
		return true
	}
	if d.b.Take("mounts", 1, len(raw)) != nil {
		d.over(1)
		return true
	}
	for _, m := range parseMountinfo(raw) {
		f := d.byNode[m.inode]
		if f == nil || f.FD < 0 && f.Gap != nil {
			switch {
			case !walk:
				if f == nil {
					d.unopened(m.inode, errStranger)
				}
			case m.served:
				if f == nil {
					d.unopened(m.inode, errServed)
				}
			default:
				if err := d.openMount(root, m); err != nil && f == nil {
					d.unopened(m.inode, err)
				}
			}
			if f = d.byNode[m.inode]; f == nil {
				continue
			}
			if !walk {
				f.Namespace.Foreign = true // only its maker can have mounted it there
			}
		}
		if root == "/" {
			d.named(f, m.point)
		}
	}
	return true
}

var (
	errStranger = errors.New("it is mounted in a mount namespace made by a user")
	errServed   = errors.New("it is mounted on a filesystem that may not answer")
)

func (d *discovery) openMount(root string, m nsMount) error {
	r, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(r)
	p, err := unix.Openat2(r, "."+m.point, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS})
	if errors.Is(err, unix.ENOSYS) && root == "/" { // before Linux 5.6
		p, err = unix.Open(m.point, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return err
	}
	defer unix.Close(p)
	fd, err := d.reopen(p)
	if err != nil {
		return err
	}
	if f := d.add(fd); f == nil || f.Namespace.ID.Inode != m.inode {
		return unix.ENOENT // covered by another mount
	}
	return nil
}

// named adds a path by which people know a namespace.
func (d *discovery) named(f *found, p string) {
	for _, have := range f.Namespace.Paths {
		if have == p {
			return
		}
	}
	if len(f.Namespace.Paths) < 16 {
		f.Namespace.Paths = append(f.Namespace.Paths, p)
	}
	if dir := path.Dir(p); dir == "/run/netns" || dir == "/var/run/netns" {
		f.names = append(f.names, path.Base(p))
	}
}

// directory looks at a directory of names, in our own mount namespace. Files
// there that are no namespaces (what a crash left, a FIFO, a link elsewhere) mean
// nothing; a link into /proc/PID/ns is a common way to name a container's.
func (d *discovery) directory(dir string) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		if !errors.Is(err, unix.ENOENT) {
			d.gap(reason(err), "names in %s: %v", dir, err)
		}
		return
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	names, _ := f.Readdirnames(maxEntries + 1)
	if len(names) > maxEntries {
		d.gap(fact.Truncated, "names in %s: too many", dir)
		names = names[:maxEntries]
	}
	for _, name := range names {
		if d.over(1) {
			return
		}
		full := dir + "/" + name
		p, err := unix.Openat(fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var buf [256]byte
		if n, err := unix.Readlinkat(p, "", buf[:]); err == nil && n > 0 {
			unix.Close(p)
			if !procLink(string(buf[:n])) {
				continue
			}
			if p, err = unix.Open(string(buf[:n]), unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
				continue
			}
		}
		ns, err := d.reopen(p)
		unix.Close(p)
		if err != nil {
			if r := reason(err); r == fact.Permission {
				d.gap(r, "network namespace %s: %v", full, err)
			}
			continue
		}
		if f := d.add(ns); f != nil {
			d.named(f, full)
		}
	}
}

// procLink tells whether a link points to a namespace of a process.
func procLink(s string) bool {
	f := strings.Split(s, "/")
	numeric := func(s string) bool { _, err := strconv.ParseUint(s, 10, 31); return err == nil }
	switch {
	case len(f) == 5 && f[0] == "" && f[1] == "proc" && numeric(f[2]) && f[3] == "ns" && f[4] == "net":
		return true
	case len(f) == 7 && f[0] == "" && f[1] == "proc" && numeric(f[2]) && f[3] == "task" && numeric(f[4]) && f[5] == "ns" && f[6] == "net":
		return true
	}
	return false
}

func readBounded(name string, max int) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	out := make([]byte, 0, 16<<10)
	for {
		if len(out) == cap(out) {
			out = append(out, 0)[:len(out)]
		}
		n, err := unix.Read(fd, out[len(out):cap(out)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return out, nil
		}
		if out = out[:len(out)+n]; len(out) > max {
			return nil, fmt.Errorf("%s is larger than %d bytes", name, max)
		}
	}
}
