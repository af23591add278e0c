package proc

import (
	"bytes"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// scanner is what the workers of one pass share.
type scanner struct {
	dir int
	me  self
	b   *ask.Budget
	t   *Table

	over   atomic.Bool
	denied atomic.Int64
	cut    atomic.Int64
	stuck  atomic.Int64
	lines  atomic.Int64 // command lines asked for

	mu      sync.Mutex
	overGap fact.Gap
	spent   map[uint32]int // objects by user
}

// take spends n objects of the budget and of the user's part.
func (s *scanner) take(uid uint32, n int) bool {
	if g := s.b.Take("descriptors", n, 0); g != nil {
		s.mu.Lock()
		s.overGap = *g
		s.mu.Unlock()
		s.over.Store(true)
		return false
	}
	if !isUser(uid) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spent[uid] += n
	return s.spent[uid] <= maxPerUser
}

// worker reads processes with buffers of its own.
type worker struct {
	s        *scanner
	l        listing
	names    []int32
	tasks    []int32
	link     [4096]byte
	file     [16 << 10]byte
	held     []Holding
	procs    []process
	networks map[uint64]*Network
	mounts   map[uint64]*Mount
}

func (w *worker) merge() {
	t := w.s.t
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	t.held = append(t.held, w.held...)
	t.procs = append(t.procs, w.procs...)
	for k, n := range w.networks {
		o := t.networks[k]
		if o == nil {
			t.networks[k] = n
			continue
		}
		o.Users += n.Users
		for _, h := range n.Handles {
			o.add(h)
		}
		if o.Container == "" {
			o.Container = n.Container
		}
	}
	for k, m := range w.mounts {
		o := t.mounts[k]
		if o == nil {
			t.mounts[k] = m
			continue
		}
		for _, pid := range m.PIDs {
			o.add(pid)
		}
	}
}

// add remembers a handle; tasks are surer than descriptors, which come and go.
func (n *Network) add(h Handle) {
	switch {
	case len(n.Handles) < handlesKept:
		n.Handles = append(n.Handles, h)
	case h.FD < 0:
		for i := range n.Handles {
			if n.Handles[i].FD >= 0 {
				n.Handles[i] = h
				return
			}
		}
	}
}

func (m *Mount) add(pid int) {
	if len(m.PIDs) < handlesKept {
		m.PIDs = append(m.PIDs, pid)
	}
}

func (w *worker) network(inode uint64) *Network {
	if w.networks == nil {
		w.networks = map[uint64]*Network{}
	}
	n := w.networks[inode]
	if n == nil {
		n = &Network{Inode: inode}
		w.networks[inode] = n
	}
	return n
}

// process reads one process. What it may not read counts as denied once; what
// has ended is forgotten.
func (w *worker) process(c candidate) {
	s := w.s
	fd, err := unix.Openat(s.dir, itoa(int(c.pid)), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return // ended
	}
	defer unix.Close(fd)
	p := process{pid: int(c.pid), uid: c.uid, comm: c.comm}
	denied := false

	inside := map[uint64]bool(nil)
	switch net, err := linkInode(fd, "ns/net", linkNet, w.link[:]); {
	case err == nil:
		p.net = fact.Value(net)
		n := w.network(net)
		n.Users++
		n.add(Handle{PID: p.pid, Task: p.pid, FD: -1})
		inside = map[uint64]bool{net: true}
	case gone(err): // ended, or its first thread has: the others are looked at below
		p.net = fact.Missing[uint64](fact.Gap{Reason: fact.NotCollected, What: "its first thread has ended"})
	default:
		denied = true
		p.net = fact.Missing[uint64](fact.Gap{Reason: reason(err), What: "network namespace of process " + itoa(p.pid)})
	}
	if mnt, err := linkInode(fd, "ns/mnt", "mnt:[", w.link[:]); err == nil {
		p.mnt = mnt
		if w.mounts == nil {
			w.mounts = map[uint64]*Mount{}
		}
		m := w.mounts[mnt]
		if m == nil {
			m = &Mount{Inode: mnt}
			w.mounts[mnt] = m
		}
		m.add(p.pid)
		root, err := linkText(fd, "root", w.link[:])
		p.ownRoot = mnt != s.me.mnt || err == nil && root != "/"
	}

	before := len(w.held)
	ok, err := w.table(fd, "fd", c, c.pid)
	denied = denied || err != nil
	if ok && c.threads > 1 {
		denied = w.threads(fd, c, inside) || denied
	}
	p.sockets = len(w.held) - before
	if denied && alive(fd, "status") {
		s.denied.Add(1)
	}
	w.identify(fd, &p)
	if p.sockets > 0 || p.daemon != "" {
		w.procs = append(w.procs, p)
	}
}

// alive tells a process that may not be read from one that has just ended: the
// kernel says EACCES for the links of both (proc_ns_readlink, fs/proc/namespaces.c).
func alive(dir int, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dir, name, &st, 0) == nil
}

// table reads one descriptor table. ok is false when a bound was reached; err is
// set when it may not be read.
func (w *worker) table(dir int, name string, c candidate, task int32) (ok bool, err error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		if gone(err) {
			err = nil
		}
		return true, err
	}
	defer unix.Close(fd)
	names, more, err := w.l.numbers(fd, w.names[:0], maxPerProcess)
	w.names = names
	if err != nil && !gone(err) {
		return true, err
	}
	if !w.s.take(c.uid, len(names)+1) || more {
		w.s.cut.Add(1)
		return false, nil
	}
	// Reading a link costs microseconds: a process with very many is shared
	// between the cores.
	const part = 4096
	if len(names) < 2*part {
		w.links(fd, names, c.pid, task)
		return true, nil
	}
	half := &worker{s: w.s}
	var wg sync.WaitGroup
	wg.Go(func() { half.links(fd, names[len(names)/2:], c.pid, task) })
	w.links(fd, names[:len(names)/2], c.pid, task)
	wg.Wait()
	w.held = append(w.held, half.held...)
	for k, n := range half.networks {
		o := w.network(k)
		for _, h := range n.Handles {
			o.add(h)
		}
	}
	return true, nil
}

// links reads what the descriptors refer to.
func (w *worker) links(dir int, names []int32, pid, task int32) {
	var num [16]byte
	var to [64]byte // a longer target is cut, and is neither socket nor namespace
	for i, n := range names {
		if i%1024 == 1023 && w.s.over.Load() {
			return
		}
		name := append(strconv.AppendInt(num[:0], int64(n), 10), 0)
		l, err := readlink(dir, name, to[:])
		if err != nil {
			continue // closed meanwhile
		}
		if l == len(to) {
			continue
		}
		if inode, ok := bracketed(to[:l], linkSocket); ok {
			w.held = append(w.held, Holding{Inode: inode, PID: pid, Task: task, FD: n})
		} else if inode, ok := bracketed(to[:l], linkNet); ok {
			w.network(inode).add(Handle{PID: int(pid), Task: int(task), FD: int(n)})
		} else if l == 1 && to[0] == '/' {
			// The text of a descriptor opened through a name below /run/netns whose
			// mount is gone: the namespace lives on, and nothing else shows it.
			if inode, ok := nsfsInode(dir, name, w.s.t.dev); ok {
				w.network(inode).add(Handle{PID: int(pid), Task: int(task), FD: int(n)})
			}
		}
	}
}

// threads looks at the other threads: each may live in another network
// namespace (setns, unshare) or have a descriptor table of its own
// (unshare(CLONE_FILES)), and /proc/PID speaks for the first one only.
func (w *worker) threads(dir int, c candidate, inside map[uint64]bool) (denied bool) {
	fd, err := unix.Openat(dir, "task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return !gone(err)
	}
	defer unix.Close(fd)
	tasks, more, err := w.l.numbers(fd, w.tasks[:0], maxPerProcess)
	w.tasks = tasks
	if !w.s.take(c.uid, len(tasks)) || more || err != nil && !gone(err) {
		w.s.cut.Add(1)
		return false
	}
	for _, tid := range tasks {
		if tid == c.pid || w.s.over.Load() {
			continue
		}
		name := itoa(int(tid))
		switch net, err := linkInode(fd, name+"/ns/net", linkNet, w.link[:]); {
		case err == nil:
			if !inside[net] {
				if inside == nil {
					inside = map[uint64]bool{}
				}
				inside[net] = true
				n := w.network(net)
				n.Users++
				n.add(Handle{PID: int(c.pid), Task: int(tid), FD: -1})
			}
		case !gone(err) && alive(fd, name+"/status"):
			denied = true
		}
		if sharesFiles(int(c.pid), int(tid)) {
			continue
		}
		if ok, err := w.table(fd, name+"/fd", c, tid); err != nil {
			denied = denied || alive(fd, name+"/status")
		} else if !ok {
			break
		}
	}
	return denied
}

// sharesFiles tells whether a thread uses the descriptor table of its process
// (kcmp(2), KCMP_FILES). When the kernel cannot say, the table is read.
func sharesFiles(pid, tid int) bool {
	const kcmpFiles = 2
	r, _, e := unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(tid), kcmpFiles, 0, 0, 0)
	return e == 0 && r == 0
}

// identify reads who a process is.
func (w *worker) identify(fd int, p *process) {
	exe, err := linkText(fd, "exe", w.link[:])
	switch {
	case err == nil:
		p.exe = fact.Value(exe)
	case gone(err): // kernel threads have none
		p.exe = fact.Absent[string]()
	default:
		p.exe = fact.Missing[string](fact.Gap{Reason: reason(err), What: "executable of process " + itoa(p.pid)})
	}
	base := path.Base(strings.TrimSuffix(exe, " (deleted)"))
	known := err == nil && interesting(base) && !isUser(p.uid)
	if p.sockets == 0 && !known && !p.ownRoot {
		return
	}
	if raw, err := readSmall(fd, "cgroup", w.file[:]); err == nil {
		p.cgroup = bytes.Clone(raw)
		if net, ok := p.net.Get(); ok {
			if n := w.network(net); n.Container == "" {
				_, _, n.Container = splitCgroup(p.cgroup)
			}
		}
	}
	if !known {
		return
	}
	user, err := linkInode(fd, "ns/user", "user:[", w.link[:])
	p.initialUsr = err == nil && user == userInitInode
	// In a container of its own user namespace, ours is the one that matters.
	if err != nil || user != w.s.me.user && !p.initialUsr {
		return
	}
	p.daemon = base
	if want := flagsOf(base); want != nil && p.uid == 0 && p.initialUsr {
		p.flags = w.s.commandLine(p.pid, want)
	}
}

// userInitInode is PROC_USER_INIT_INO (include/linux/proc_ns.h).
const userInitInode = 0xEFFFFFFD

// parseStatus reads Name, Uid and Threads of /proc/PID/status. The name is
// escaped by the kernel, so a line break in it cannot forge a field.
func parseStatus(pid int32, raw []byte) candidate {
	c := candidate{pid: pid, threads: 2, uid: 1<<32 - 1} // when not understood: a stranger, with threads to look at
	for line := range bytes.Lines(raw) {
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		value = bytes.TrimSpace(value)
		switch string(key) {
		case "Name":
			c.comm = string(value[:min(len(value), 64)])
		case "PPid":
			if v, err := strconv.ParseInt(string(value), 10, 32); err == nil {
				c.parent = int32(v)
			}
		case "Uid":
			if f := bytes.Fields(value); len(f) > 0 {
				if v, err := strconv.ParseUint(string(f[0]), 10, 32); err == nil {
					c.uid = uint32(v)
				}
			}
		case "Threads":
			if v, err := strconv.ParseInt(string(value), 10, 32); err == nil {
				c.threads = int32(v)
			}
			return c
		}
	}
	return c
}
