package manager

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sixfence/sixfence/internal/host/collect/confd"
	"github.com/sixfence/sixfence/internal/host/collect/tree"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// foreignTime is how long the files of a process with a root of its own may take.
const foreignTime = 2 * time.Second

// readForeign reads through /proc/PID/root. The file systems there are somebody
// else's: one that is served by a process (FUSE) or over a network may answer
// never, and a lookup that waits for it may not even end with the audit. So mounts
// of such kinds are not entered, and whoever takes too long all the same is left
// behind.
func readForeign(k *kind, pid int) (source, *fact.Gap) {
	what := fmt.Sprintf("files of %s (process %d) in its own root", k.name, pid)
	if g := waitingMounts(pid, what); g != nil {
		return nil, g
	}
	return within(foreignTime, what, func() (source, *fact.Gap) {
		t, err := tree.Open(fmt.Sprintf("/proc/%d/root", pid))
		if err != nil {
			return nil, &fact.Gap{Reason: fact.Permission, What: what}
		}
		defer t.Close()
		var b confd.Budget
		return k.read(t, &b), nil
	})
}

// within runs f, and gives up on it after d.
func within(d time.Duration, what string, f func() (source, *fact.Gap)) (source, *fact.Gap) {
	type result struct {
		src source
		gap *fact.Gap
	}
	done := make(chan result, 1)
	go func() {
		src, gap := f()
		done <- result{src, gap}
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.src, r.gap
	case <-timer.C:
		return nil, &fact.Gap{Reason: fact.Truncated, What: what + ": its file system does not answer"}
	}
}

// local are file systems that answer by themselves.
var local = []string{"ext2", "ext3", "ext4", "xfs", "btrfs", "overlay", "tmpfs", "ramfs", "rootfs", "squashfs", "erofs", "f2fs", "zfs", "bcachefs", "vfat", "iso9660", "aufs"}

// kernelFS are served by the kernel itself. autofs is not: it mounts what is looked at.
var kernelFS = []string{"proc", "sysfs", "cgroup", "cgroup2", "devtmpfs", "devpts", "mqueue", "securityfs", "debugfs", "tracefs", "nsfs", "bpf", "hugetlbfs", "binfmt_misc", "configfs", "pstore", "efivarfs", "fusectl"}

// readPaths are where managers' files are read.
var readPaths = []string{
	"/etc/systemd", "/etc/network", "/etc/netplan", "/etc/NetworkManager", "/etc/sysconfig", "/etc/dhcpcd.conf",
	"/run/systemd", "/run/netplan", "/run/NetworkManager",
	"/usr/lib/systemd", "/usr/lib/netplan", "/usr/lib/NetworkManager", "/usr/local/lib/systemd", "/lib/systemd", "/lib/netplan",
}

// touches tells whether a mount at point is on the way to one of readPaths, or below.
func touches(point string) bool {
	if point == "/" {
		return true
	}
	return slices.ContainsFunc(readPaths, func(p string) bool {
		return p == point || strings.HasPrefix(p, point+"/") || strings.HasPrefix(point, p+"/")
	})
}

// waitingMounts looks, without touching them, for mounts in a process's tree that
// could make a reader wait.
func waitingMounts(pid int, what string) *fact.Gap {
	t, err := tree.Host()
	if err != nil {
		return &fact.Gap{Reason: fact.NotCollected, What: what}
	}
	defer t.Close()
	k := t.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid), 8<<20)
	b, ok := k.Get()
	if g, gap := k.Gap(); gap {
		return &fact.Gap{Reason: g.Reason, What: what}
	}
	if !ok {
		return &fact.Gap{Reason: fact.NotCollected, What: what + ": the process is gone"}
	}
	if kind := waiting(string(b)); kind != "" {
		return &fact.Gap{Reason: fact.UnsupportedGap, What: what + ": on a file system that may never answer"}
	}
	return nil
}

// waiting returns the type of the first mount, at "/" or where files are read, that
// is not local; "unknown" for a line that it cannot read.
func waiting(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		dash := slices.Index(f, "-")
		if dash < 6 || len(f) < dash+2 {
			return "unknown"
		}
		point, fstype := f[4], f[dash+1]
		if slices.Contains(local, fstype) || slices.Contains(kernelFS, fstype) {
			continue
		}
		if touches(point) {
			return fstype
		}
	}
	return ""
}
