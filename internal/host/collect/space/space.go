// Package space finds the network namespaces of a host and opens them.
//
// A namespace lives as long as anything refers to it: a task (/proc/PID/task/TID/ns/net),
// a descriptor (net:[inode] in /proc/PID/fd), a mount of nsfs in any mount
// namespace, or a socket. All four are looked at, so that a listener cannot
// hide by closing the door behind it (sockets.go has the last one). What none of
// them shows can still be the peer of a link (peers.go), and is then a Gap.
//
// Any user may make namespaces, thousands of them, and may put what he likes
// where we look. So a thing is opened with O_PATH and proved to be on nsfs before
// it is opened for real, and no path is walked through a filesystem that somebody
// may serve (FUSE, network filesystems, autofs).
package space

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/proc"
	"github.com/sixfence/sixfence/internal/host/netns"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Space is a network namespace that can be entered.
type Space struct {
	Namespace fact.Namespace // ID, Name, IsInit, IsSelf, Paths, Users, Owner, Foreign are set
	FD        int            // for setns; -1 when it cannot be entered, and Gap says why
	Gap       *fact.Gap
}

// Limits of what is kept open and looked at.
const (
	// maxForeign is how many namespaces of other user namespaces are opened; the
	// caller enters fewer. The rest are counted.
	maxForeign = 256
	// maxPerUser is how many of one creator are opened while all are looked at.
	maxPerUser = 64
)

// Discover finds every network namespace the caller can see: our own and the
// initial one first, then those owned by the initial user namespace (or the
// caller's own), then strangers', one of each creator in turn, so that nobody
// can push another's out by making many. Gaps name what was seen and could not
// be identified.
func Discover(a *ask.Asker, b *ask.Budget, t *proc.Table) ([]Space, []fact.Gap) {
	d := newDiscovery(a, b)
	d.ourOwn()
	for _, n := range t.Networks() {
		if d.over(1) {
			break
		}
		d.fromTable(n)
	}
	d.mounts(t)
	d.directory("/run/netns")
	d.directory("/run/docker/netns")
	if !sameDirectory("/run", "/var/run") {
		d.directory("/var/run/netns")
	}
	return d.result(), d.gaps
}

func sameDirectory(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// found is a namespace under construction.
type found struct {
	Space
	container string
	names     []string // base names below /run/netns
}

type discovery struct {
	a       *ask.Asker
	b       *ask.Budget
	dev     uint64 // of nsfs
	user    uint64 // inode of our user namespace
	byNode  map[uint64]*found
	opened  map[uint32]int // strangers' namespaces by creator
	foreign int            // descriptors kept for strangers' namespaces
	own     int            // and for the host's
	limit   int            // of descriptors
	gaps    []fact.Gap
	stopped bool
}

func newDiscovery(a *ask.Asker, b *ask.Budget) *discovery {
	d := &discovery{a: a, b: b, byNode: map[uint64]*found{}, opened: map[uint32]int{}, limit: 1024}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err == nil {
		d.limit = int(min(lim.Cur, 1<<20))
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/user", &st); err == nil {
		d.user = st.Ino
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err == nil {
		d.dev = uint64(st.Dev)
	}
	return d
}

func (d *discovery) gap(r fact.Reason, format string, args ...any) {
	d.gaps = append(d.gaps, fact.Gap{Reason: r, What: fmt.Sprintf(format, args...)})
}

// over spends from the budget and tells whether it is used up.
func (d *discovery) over(n int) bool {
	if d.stopped {
		return true
	}
	if g := d.b.Take("network namespaces", n, 0); g != nil {
		d.stopped = true
		d.gaps = append(d.gaps, *g)
	}
	return d.stopped
}

func reason(err error) fact.Reason {
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fact.Permission
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return fact.Truncated
	}
	return fact.NotCollected
}

// ourOwn is the namespace we run in.
func (d *discovery) ourOwn() {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		d.gap(reason(err), "our own network namespace: %v", err)
		return
	}
	if f := d.add(fd); f != nil {
		f.Namespace.IsSelf = true
		f.Namespace.Foreign = false
	}
}

// fromTable opens a namespace that a task or a descriptor refers to.
func (d *discovery) fromTable(n proc.Network) {
	f := d.byNode[n.Inode]
	if f == nil {
		var last error = unix.ENOENT
		for _, h := range n.Handles {
			fd, err := d.open(h)
			if err != nil {
				last = err
				continue
			}
			if f = d.add(fd); f != nil && f.Namespace.ID.Inode == n.Inode {
				break
			}
			f = nil // the number of an ended process was used again
		}
		if f == nil {
			if !errors.Is(last, unix.ENOENT) && !errors.Is(last, unix.ESRCH) {
				d.unopened(n.Inode, last)
				f = d.byNode[n.Inode]
			} else {
				return // gone
			}
		}
	}
	f.Namespace.Users = n.Users
	if f.container == "" {
		f.container = n.Container
	}
}

// unopened records a namespace that is known by its number only.
func (d *discovery) unopened(inode uint64, err error) {
	name := fmt.Sprintf("net:[%d]", inode)
	f := &found{Space: Space{FD: -1, Gap: &fact.Gap{Reason: reason(err), What: "network namespace " + name + ": " + err.Error()}}}
	f.Namespace.ID = fact.NamespaceID{Dev: d.dev, Inode: inode}
	f.Namespace.Owner = fact.Missing[fact.UserNS](*f.Gap)
	d.byNode[inode] = f
}

// open opens a handle. A task's ns/net is always nsfs; a descriptor may have
// been replaced by anything since, so it is pinned and looked at first.
func (d *discovery) open(h proc.Handle) (int, error) {
	if h.FD < 0 {
		return unix.Open(h.Path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	p, err := unix.Open(h.Path(), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(p)
	return d.reopen(p)
}

// reopen turns an O_PATH descriptor into one for setns, if it is on nsfs. It
// cannot change any more, and statx(2) with AT_STATX_DONT_SYNC asks no
// filesystem what it is, unlike fstat or fstatfs.
func (d *discovery) reopen(p int) (int, error) {
	var st unix.Statx_t
	if err := unix.Statx(p, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st); err != nil {
		return -1, err
	}
	if unix.Mkdev(st.Dev_major, st.Dev_minor) != d.dev {
		return -1, unix.ENOENT
	}
	return unix.Open(fmt.Sprintf("/proc/self/fd/%d", p), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

// ioctls on nsfs descriptors (include/uapi/linux/nsfs.h; Linux 4.9 and 4.11).
const (
	nsGetUserNS   = 0xb701
	nsGetNSType   = 0xb703
	nsGetOwnerUID = 0xb704
)

// add takes over fd. It returns the namespace, new or seen before, or nil when
// fd refers to none.
func (d *discovery) add(fd int) *found {
	var st unix.Stat_t
	typ, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nsGetNSType, 0)
	if err := unix.Fstat(fd, &st); err != nil || e != 0 && e != unix.ENOTTY && e != unix.EINVAL || e == 0 && typ != unix.CLONE_NEWNET {
		unix.Close(fd)
		return nil
	}
	if f := d.byNode[st.Ino]; f != nil {
		if f.FD >= 0 || f.Gap == nil {
			unix.Close(fd)
			return f
		}
	}
	f := &found{Space: Space{FD: fd}}
	f.Namespace.ID = fact.NamespaceID{Dev: uint64(st.Dev), Inode: st.Ino}
	f.Namespace.Owner = d.owner(fd)
	if o, ok := f.Namespace.Owner.Get(); ok {
		f.Namespace.Foreign = !o.Initial && o.Inode != d.user
	}
	o, _ := f.Namespace.Owner.Get()
	d.opened[o.UID]++
	switch {
	case !f.Namespace.Foreign && d.own >= d.limit/2:
		unix.Close(fd)
		f.FD = -1
		f.Gap = &fact.Gap{Reason: fact.Truncated, What: fmt.Sprintf("network namespace net:[%d]: too many are open", st.Ino)}
	case !f.Namespace.Foreign:
		d.own++
	case d.opened[o.UID] > maxPerUser || d.foreign >= min(d.limit/4, 8*maxForeign):
		// Far beyond what is entered: known and counted, not kept open, so that
		// strangers cannot use up the descriptors that the host's need.
		unix.Close(fd)
		f.FD = -1
	default:
		d.foreign++
	}
	d.byNode[st.Ino] = f
	return f
}

// userInitInode is PROC_USER_INIT_INO. Numbers in this range are never given to
// a namespace that is made later (proc_alloc_inum starts at 0xF0000000), so a
// user namespace with this one is the initial one, wherever we run. The other
// signs are weaker: an identity uid_map (0 0 4294967295) can be written for a nested
// one too, and NS_GET_PARENT fails with EPERM at the top of what we may see,
// which inside a container is not the top.
const userInitInode = 0xEFFFFFFD

// owner asks which user namespace owns a network namespace. EPERM means that it
// is none of ours or below: from inside a container the host's are such.
func (d *discovery) owner(fd int) fact.Known[fact.UserNS] {
	d.a.Note("ioctl", "NS_GET_USERNS")
	u, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nsGetUserNS, 0)
	if e != 0 {
		return fact.Missing[fact.UserNS](fact.Gap{Reason: reason(e), What: "owner of a network namespace: " + e.Error()})
	}
	defer unix.Close(int(u))
	var st unix.Stat_t
	if err := unix.Fstat(int(u), &st); err != nil {
		return fact.Missing[fact.UserNS](fact.Gap{Reason: reason(err), What: "owner of a network namespace: " + err.Error()})
	}
	o := fact.UserNS{Inode: st.Ino, Initial: st.Ino == userInitInode}
	uid, err := ownerUID(int(u))
	if err != nil {
		return fact.Missing[fact.UserNS](fact.Gap{Reason: reason(err), What: "creator of a user namespace: " + err.Error()})
	}
	o.UID = uid
	return fact.Value(o)
}

// result names and orders what was found.
func (d *discovery) result() []Space {
	all := make([]*found, 0, len(d.byNode))
	for _, f := range d.byNode {
		all = append(all, f)
	}
	slices.SortFunc(all, func(x, y *found) int { return cmp.Compare(x.Namespace.ID.Inode, y.Namespace.ID.Inode) })
	findInit(all)
	order(all)
	name(all)
	out := make([]Space, len(all))
	kept := 0
	for i, f := range all {
		if f.Namespace.Foreign && f.FD >= 0 {
			if kept++; kept > maxForeign {
				unix.Close(f.FD)
				f.FD = -1
			}
		}
		out[i] = f.Space
	}
	return out
}

// findInit marks the initial network namespace, if we see it. What tells it is a
// setting that the kernel registers for it alone: net.core.netdev_max_backlog
// (net/core/sysctl_net_core.c, net_core_table on init_net). /proc/sys/net shows the
// namespace of the thread that looks, so each candidate is entered.
func findInit(all []*found) {
	for _, f := range all {
		if f.Namespace.IsSelf {
			if isInit() {
				f.Namespace.IsInit = true
				return
			}
		}
	}
	for _, f := range all {
		o, ok := f.Namespace.Owner.Get()
		if f.FD < 0 || f.Namespace.IsSelf || ok && !o.Initial {
			continue
		}
		yes := false
		if err := netns.Do(f.FD, func() { yes = isInit() }); err != nil {
			continue
		}
		if yes {
			f.Namespace.IsInit = true
			return
		}
	}
}

func isInit() bool {
	var st unix.Stat_t
	return unix.Stat("/proc/sys/net/core/netdev_max_backlog", &st) == nil
}

// order puts our own and the initial one first, then those of the host, then
// strangers' in turns.
func order(all []*found) {
	turn := map[*found]int{}
	seen := map[uint32]int{}
	for _, f := range all { // by inode here: older first
		if f.Namespace.Foreign {
			o, _ := f.Namespace.Owner.Get()
			seen[o.UID]++
			turn[f] = seen[o.UID]
			if f.FD < 0 { // counted only: after all that can be entered
				turn[f] += len(all)
			}
		}
	}
	rank := func(f *found) int {
		switch {
		case f.Namespace.IsInit:
			return 0
		case f.Namespace.IsSelf:
			return 1
		case !f.Namespace.Foreign:
			return 2
		}
		return 3
	}
	slices.SortStableFunc(all, func(x, y *found) int {
		return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(turn[x], turn[y]))
	})
}

// name gives each its label, unique: the host's come first and keep theirs.
func name(all []*found) {
	used := map[string]bool{}
	for _, f := range all {
		ns := &f.Namespace
		slices.Sort(ns.Paths)
		slices.Sort(f.names)
		var want string
		switch {
		case ns.IsInit:
			want = "init"
		case ns.IsSelf:
			want = "self"
		case len(f.names) > 0:
			want = f.names[0]
		case len(f.container) >= 12:
			want = "container:" + f.container[:12]
		default:
			want = fmt.Sprintf("net:[%d]", ns.ID.Inode)
		}
		if used[want] || want == "init" && !ns.IsInit || want == "self" && !ns.IsSelf {
			want = fmt.Sprintf("%s#%d", want, ns.ID.Inode)
		}
		used[want] = true
		ns.Name = want
		if f.Gap != nil {
			f.Gap.What = "netns " + want + ": " + strings.TrimPrefix(f.Gap.What, fmt.Sprintf("network namespace net:[%d]: ", ns.ID.Inode))
		}
	}
}
