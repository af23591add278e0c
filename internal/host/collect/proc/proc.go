// Package proc makes one pass over /proc: which process holds which socket, in
// which namespaces its threads live, and who it is.
//
// Any user may own a process, so nothing is read that its owner can make block.
// Links (exe, root, ns/*, fd/*) are only read as text (readlink: the kernel
// prints a path it already holds and never asks the filesystem behind it),
// never followed; fd/ and task/ are listings of kernel tables; status and cgroup
// print kernel fields under kernel locks. /proc/PID/cmdline is different: it
// reads the memory of the process, whose pages may be served by userfaultfd or
// FUSE, and stops for as long as their owner likes. It is read only for daemons
// on a short list that real root runs, for a few flags on an allow-list, on a
// goroutine of its own that is abandoned when it does not return (cmdline.go).
// No arguments and no environment are kept.
package proc

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/run"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Bounds of what one user (uid 1000 and above) may cost; the processes of the
// system are read first. dup(2) makes a million descriptors for the price of
// one, so a number per user is the only bound that keeps the others' turn.
const (
	maxPerUser    = 1_000_000 // descriptors and threads
	maxPerProcess = 1 << 20   // descriptors of one table
	firstUser     = 1000      // SYS_UID_MAX + 1 (login.defs)
	handlesKept   = 8         // ways into a namespace that are remembered
)

// Holding is one descriptor that refers to a socket.
type Holding struct {
	Inode uint64
	PID   int32 // thread group
	Task  int32 // the thread whose table it is; PID unless that thread unshared its table
	FD    int32
}

// Handle is a way into a namespace: a task that lives in it or, when FD is not
// negative, a descriptor that refers to it.
type Handle struct {
	PID, Task, FD int
}

// Network is a network namespace as seen from the processes.
type Network struct {
	Inode   uint64
	Users   int      // processes with at least one thread inside
	Handles []Handle // a few of them, tasks first
	// Container is the container id in the cgroup of a process inside, if any.
	Container string
}

// Mount is a mount namespace and a process in it.
type Mount struct {
	Inode uint64
	PIDs  []int // a few of them
}

// process is what is known about one thread group.
type process struct {
	pid        int
	uid        uint32 // real
	comm       string
	exe        fact.Known[string]
	cgroup     []byte
	net        fact.Known[uint64]
	mnt        uint64
	ownRoot    bool
	sockets    int
	daemon     string // base name, when it is one of interest
	initialUsr bool   // its user namespace is the initial one
	flags      map[string]string
}

// Table is one pass over all processes. After Scan (and Again) it is read-only.
type Table struct {
	procs    []process // by pid
	held     []Holding // by inode, pid
	pids     []int     // held[i].PID: Owners returns parts of it
	networks map[uint64]*Network
	mounts   map[uint64]*Mount
	gaps     []fact.Gap
	dev      uint64       // device of nsfs
	extra    map[int]bool // processes to list whatever they hold
	listed   bool         // /proc could be listed
	// unseen says why an inode without an owner here may have one all the same;
	// nil: every process was read.
	unseen *fact.Gap
	// missing: processes may be absent from the table, not only parts of them.
	missing bool
}

// self is what our own process looks like, to compare with.
type self struct {
	mnt, user uint64
}

// Scan makes the pass.
func Scan(a *ask.Asker, b *ask.Budget) *Table {
	t := &Table{networks: map[uint64]*Network{}, mounts: map[uint64]*Mount{}}
	dir, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.hidden(reason(err), "processes: open /proc: "+err.Error())
		return t
	}
	defer unix.Close(dir)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(dir, &fs); err != nil || fs.Type != unix.PROC_SUPER_MAGIC {
		t.hidden(fact.NotCollected, "processes: /proc is not procfs")
		return t
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, "self/ns/net", &st, 0); err == nil {
		t.dev = uint64(st.Dev)
	}
	t.scan(dir, b)
	before := len(t.gaps)
	t.visibility(dir)
	t.missing = t.missing || len(t.gaps) > before
	t.finish()
	return t
}

func (t *Table) hidden(r fact.Reason, what string) {
	g := fact.Gap{Reason: r, What: what}
	t.gaps = append(t.gaps, g)
	if t.unseen == nil {
		t.unseen = &g
	}
}

func reason(err error) fact.Reason {
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fact.Permission
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOPROTOOPT):
		return fact.UnsupportedGap
	}
	return fact.NotCollected
}

// gone tells that a process ended while it was read.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

// candidate is a process before its descriptors are read.
type candidate struct {
	pid     int32
	parent  int32
	threads int32
	uid     uint32
	comm    string
}

func (t *Table) scan(dir int, b *ask.Budget) {
	var l listing
	pids, _, err := l.numbers(dir, nil, 1<<22) // PID_MAX_LIMIT
	if err != nil {
		t.hidden(reason(err), "processes: list /proc: "+err.Error())
	}
	me := self{}
	var buf [64]byte
	me.mnt, _ = linkInode(dir, "self/ns/mnt", "mnt:[", buf[:])
	me.user, _ = linkInode(dir, "self/ns/user", "user:[", buf[:])

	t.listed = err == nil
	cands := survey(dir, pids, t, b)
	// The system's processes first, then each user's in turn: a user who fills the
	// budget can only hide what comes after, which is at worst other users'.
	slices.SortFunc(cands, func(x, y candidate) int {
		return cmp.Or(cmp.Compare(class(x.uid), class(y.uid)), cmp.Compare(x.pid, y.pid))
	})
	s := &scanner{dir: dir, me: me, b: b, t: t, spent: map[uint32]int{}}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(max(1, runtime.NumCPU()), 8) {
		wg.Go(func() {
			w := worker{s: s}
			for {
				i := int(next.Add(1)) - 1
				if i >= len(cands) || s.over.Load() {
					break
				}
				w.process(cands[i])
			}
			w.merge()
		})
	}
	wg.Wait()
	if s.over.Load() {
		t.hidden(fact.Truncated, s.overGap.What)
	}
	t.missing = t.unseen != nil
	if n := s.denied.Load(); n > 0 {
		t.hidden(fact.Permission, fmt.Sprintf("namespaces and descriptors of %d processes", n))
	}
	if n := s.cut.Load(); n > 0 {
		t.hidden(fact.Truncated, fmt.Sprintf("descriptors of %d processes: their user holds too many", n))
	}
	if n := s.stuck.Load(); n > 0 {
		t.gaps = append(t.gaps, fact.Gap{Reason: fact.Truncated, What: fmt.Sprintf("command line flags of %d daemons: reading them did not return", n)})
	}
}

func class(uid uint32) int {
	switch {
	case uid == 0:
		return 0
	case !isUser(uid):
		return 1
	}
	return 2
}

// isUser tells whether uid is a person's, a subordinate id's or nobody's rather
// than the system's: 61184–65519 are systemd's dynamic service users.
func isUser(uid uint32) bool {
	return uid >= firstUser && (uid < 61184 || uid > 65519)
}

// survey reads status of every process: it says who really runs it, which the
// owner of /proc/PID does not (a process that is not dumpable shows as root's).
func survey(dir int, pids []int32, t *Table, b *ask.Budget) []candidate {
	out := make([]candidate, len(pids))
	workers := min(max(1, runtime.NumCPU()), 8)
	var next atomic.Int64
	var over atomic.Bool
	var denied atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			buf := make([]byte, 4096)
			for {
				i := int(next.Add(1)) - 1
				if i >= len(pids) {
					return
				}
				if b.Take("processes", 1, 0) != nil {
					over.Store(true)
					return
				}
				raw, err := readSmall(dir, itoa(int(pids[i]))+"/status", buf)
				if err != nil {
					if !gone(err) {
						denied.Add(1)
					}
					continue
				}
				out[i] = parseStatus(pids[i], raw)
			}
		})
	}
	wg.Wait()
	if over.Load() {
		t.hidden(fact.Truncated, "processes: too many, or out of time")
	}
	if n := denied.Load(); n > 0 {
		t.hidden(fact.Permission, fmt.Sprintf("status of %d processes", n))
	}
	return slices.DeleteFunc(withoutHelpers(dir, out), func(c candidate) bool { return c.pid == 0 })
}

// withoutHelpers leaves out the processes that this program itself has put into namespaces
// of their own, to try something there, and what they started: nobody asked about them.
func withoutHelpers(dir int, list []candidate) []candidate {
	helpers := run.Aparts()
	if len(helpers) == 0 {
		return list
	}
	var me [32]byte
	if n, err := readlink(dir, []byte("self\x00"), me[:]); err != nil || string(me[:n]) != strconv.Itoa(os.Getpid()) {
		return list // a /proc of another PID namespace: its numbers mean other processes
	}
	parents := make(map[int32]int32, len(list))
	for _, c := range list {
		parents[c.pid] = c.parent
	}
	return slices.DeleteFunc(list, func(c candidate) bool {
		// A process that changed its parent meanwhile could make a circle.
		for pid, steps := c.pid, 0; pid > 1 && steps < 64; pid, steps = parents[pid], steps+1 {
			if slices.Contains(helpers, int(pid)) {
				return true
			}
		}
		return false
	})
}

// visibility says whether the /proc we read lists every process of the machine.
//
// A socket of this machine may belong to a process in another PID namespace, so
// "no process holds it" is only true when /proc shows the initial one. Its inode
// is fixed (PROC_PID_INIT_INO, include/linux/proc_ns.h): either PID 1 of this /proc lives
// in it, or we do, and then a /proc that shows us is the initial one's.
func (t *Table) visibility(dir int) {
	if !initialPIDNS(dir) {
		t.hidden(fact.Permission, "processes outside this PID namespace")
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, "1", &st, 0); err != nil {
		t.hidden(fact.Permission, "processes of other users (/proc is mounted with hidepid)")
	}
}

const pidInitInode = 0xEFFFFFFC

func initialPIDNS(dir int) bool {
	var buf [64]byte
	for _, name := range []string{"1/ns/pid", "self/ns/pid"} {
		if v, err := linkInode(dir, name, "pid:[", buf[:]); err == nil && v == pidInitInode {
			return true
		}
	}
	return false
}

// InitialPIDNamespace tells whether /proc lists the processes of the whole machine.
func InitialPIDNamespace() bool {
	dir, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	return initialPIDNS(dir)
}

// Again looks a second time, for sockets that were opened, or handed to another
// process, after the first look: what it finds is added.
func (t *Table) Again(a *ask.Asker, b *ask.Budget) {
	n := Scan(a, b)
	t.held = append(t.held, n.held...)
	known := map[int]int{}
	for i, p := range t.procs {
		known[p.pid] = i
	}
	for _, p := range n.procs {
		if i, ok := known[p.pid]; ok {
			t.procs[i] = p
		} else {
			t.procs = append(t.procs, p)
		}
	}
	if t.unseen == nil {
		t.unseen = n.unseen
	}
	t.missing = t.missing || n.missing
	t.finish()
}

func (t *Table) finish() {
	slices.SortFunc(t.procs, func(x, y process) int { return cmp.Compare(x.pid, y.pid) })
	slices.SortFunc(t.held, func(x, y Holding) int {
		return cmp.Or(cmp.Compare(x.Inode, y.Inode), cmp.Compare(x.PID, y.PID))
	})
	t.held = slices.CompactFunc(t.held, func(x, y Holding) bool { return x.Inode == y.Inode && x.PID == y.PID })
	t.pids = make([]int, len(t.held))
	for i := range t.held {
		t.pids[i] = int(t.held[i].PID)
	}
}

// Networks returns the network namespaces that a task lives in or a descriptor
// refers to, by inode.
func (t *Table) Networks() []Network {
	out := make([]Network, 0, len(t.networks))
	for _, n := range t.networks {
		out = append(out, *n)
	}
	slices.SortFunc(out, func(x, y Network) int { return cmp.Compare(x.Inode, y.Inode) })
	return out
}

// Mounts returns the mount namespaces that processes live in, by inode.
func (t *Table) Mounts() []Mount {
	out := make([]Mount, 0, len(t.mounts))
	for _, m := range t.mounts {
		out = append(out, *m)
	}
	slices.SortFunc(out, func(x, y Mount) int { return cmp.Compare(x.Inode, y.Inode) })
	return out
}

// Unseen says why processes may be missing from the table; nil when none is.
func (t *Table) Unseen() *fact.Gap { return t.unseen }

// Path is the magic link through which the handle is opened.
func (h Handle) Path() string {
	if h.FD >= 0 {
		return fmt.Sprintf("/proc/%d/task/%d/fd/%d", h.PID, h.Task, h.FD)
	}
	return fmt.Sprintf("/proc/%d/task/%d/ns/net", h.PID, h.Task)
}
