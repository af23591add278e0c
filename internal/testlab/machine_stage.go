package testlab

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	stageEnv     = "SIXFENCE_TESTLAB_MACHINE"
	machineTmpfs = "sixfence-machine"
)

// A test binary that is started with this variable becomes the systemd of a Machine: it
// has to be this very process, and before any test runs.
func init() {
	told := os.Getenv(stageEnv)
	if told == "" {
		return
	}
	runtime.LockOSThread()
	err := enterMachine(told)
	fmt.Fprintln(os.Stderr, "machine:", err)
	os.Exit(1)
}

// enterMachine makes the mounts, waits for the word of the test, and executes systemd.
func enterMachine(told string) error {
	var s stage
	if err := json.Unmarshal([]byte(told), &s); err != nil {
		return err
	}
	if now, err := os.Readlink("/proc/self/ns/mnt"); err != nil || now == s.MountNS || os.Getpid() != 1 {
		return fmt.Errorf("not in namespaces of its own (%s, pid %d, %w)", now, os.Getpid(), err)
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare cgroup: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	b := &mounts{root: s.Dir + "/root-of-machine"}
	b.build(&s)
	if b.err != nil {
		return b.err
	}
	ready, word := os.NewFile(4, "ready"), os.NewFile(3, "go")
	if _, err := ready.Write([]byte("r")); err != nil {
		return err
	}
	ready.Close()
	if n, err := word.Read(make([]byte, 1)); n != 1 {
		return fmt.Errorf("the test gave no word to go on (%w)", err)
	}
	word.Close()
	_ = unix.Sethostname([]byte("machine"))
	if s.Init != "" {
		return unix.Exec("/bin/sh", []string{"init", s.Init}, []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"})
	}
	return unix.Exec("/usr/lib/systemd/systemd", []string{"/usr/lib/systemd/systemd", "--system", "--show-status=0", "--log-target=journal"},
		[]string{"container=sixfence", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"})
}

// mounts builds the tree of a Machine; the first error stays.
type mounts struct {
	root string
	err  error
}

func (b *mounts) do(what string, f func() error) {
	if b.err != nil {
		return
	}
	if err := f(); err != nil {
		b.err = fmt.Errorf("%s: %w", what, err)
	}
}

func (b *mounts) dir(names ...string) {
	for _, n := range names {
		b.do("mkdir "+n, func() error { return os.MkdirAll(b.root+n, 0o755) })
	}
}

func (b *mounts) mount(source, at, typ string, flags uintptr, data string) {
	b.do("mount "+at, func() error { return unix.Mount(source, b.root+at, typ, flags, data) })
}

// bind shows a file or directory of now in the tree.
func (b *mounts) bind(from, at string, readonly bool) {
	b.mount(from, at, "", unix.MS_BIND, "")
	if readonly {
		b.do("make "+at+" read-only", func() error {
			var st unix.Statfs_t
			if err := unix.Statfs(b.root+at, &st); err != nil {
				return err
			}
			// What is locked, as by whoever mounted it, has to stay.
			keep := uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME)
			if st.Flags&unix.ST_RELATIME != 0 {
				keep |= unix.MS_RELATIME
			}
			return unix.Mount("", b.root+at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|keep, "")
		})
	}
}

func (b *mounts) file(name string) {
	b.do("make "+name, func() error { return os.WriteFile(b.root+name, nil, 0o644) })
}

func (b *mounts) build(s *stage) {
	b.do("make the root", func() error { return os.MkdirAll(b.root, 0o755) })
	b.mount(machineTmpfs, "", "tmpfs", unix.MS_NODEV, "mode=755,size=16m")
	b.dir("/usr", "/proc", "/sys", "/dev", "/run", "/tmp", "/etc", "/var", "/root", "/mnt", "/old")
	for _, n := range []string{"bin", "sbin", "lib", "lib64", "lib32", "libx32"} {
		to, err := os.Readlink("/" + n)
		if err != nil {
			continue
		}
		b.do("link "+n, func() error { return os.Symlink(to, b.root+"/"+n) })
	}
	b.bind("/usr", "/usr", true)
	for _, h := range s.Hide {
		b.bind("/dev/null", h, true)
	}
	for _, d := range kept {
		b.bind(s.Dir+d, d, false)
	}
	for _, d := range []string{"/run", "/tmp", "/dev"} {
		b.mount(machineTmpfs, d, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=64m")
	}
	for _, d := range s.Devices {
		b.file("/dev/" + d)
		b.bind("/dev/"+d, "/dev/"+d, false)
	}
	b.dir("/dev/pts", "/dev/shm", "/dev/mqueue", "/run/lock")
	b.mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
	for from, to := range map[string]string{"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		b.do("link /dev/"+from, func() error { return os.Symlink(to, b.root+"/dev/"+from) })
	}
	b.mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV|unix.MS_RDONLY, "")
	b.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, "")
	b.mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, "")
	b.proc()
	if s.Leak != "" {
		b.bind(s.Leak, "/mnt", false)
	}
	b.do("enter the tree", func() error {
		if err := unix.PivotRoot(b.root, b.root+"/old"); err != nil {
			return err
		}
		if err := unix.Chdir("/"); err != nil {
			return err
		}
		if err := unix.Unmount("/old", unix.MNT_DETACH); err != nil {
			return err
		}
		return os.Remove("/old")
	})
}

// proc leaves of /proc the processes and the sysctls of the network namespace; the rest
// is the host's, and read-only.
func (b *mounts) proc() {
	if b.err != nil {
		return
	}
	// Beside the rest while that is made read-only, since a second look at it would be too.
	b.bind(b.root+"/proc/sys/net", "/mnt", false)
	es, err := os.ReadDir(b.root + "/proc")
	if err != nil {
		b.err = err
		return
	}
	for _, e := range es {
		n := e.Name()
		if n[0] >= '0' && n[0] <= '9' || slices.Contains([]string{"self", "thread-self", "net", "mounts", "kcore", "kmsg"}, n) || e.Type()&os.ModeSymlink != 0 {
			continue
		}
		at := filepath.Join("/proc", n)
		b.bind(b.root+at, at, true)
	}
	for _, n := range []string{"kcore", "kmsg"} {
		if _, err := os.Lstat(b.root + "/proc/" + n); err == nil {
			b.bind("/dev/null", "/proc/"+n, true)
		}
	}
	b.mount(b.root+"/mnt", "/proc/sys/net", "", unix.MS_MOVE, "")
	// Each boot has an id of its own.
	b.do("write the boot id", func() error {
		id := make([]byte, 16)
		if _, err := rand.Read(id); err != nil {
			return err
		}
		id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
		return os.WriteFile(b.root+"/run/boot-id", fmt.Appendf(nil, "%x-%x-%x-%x-%x\n", id[:4], id[4:6], id[6:8], id[8:10], id[10:]), 0o444)
	})
	b.bind(b.root+"/run/boot-id", "/proc/sys/kernel/random/boot_id", true)
}
