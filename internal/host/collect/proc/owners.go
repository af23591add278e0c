package proc

import (
	"slices"
	"sort"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// Owners tells which processes hold a socket inode. Absent means that every
// process of the machine was read and none does: a socket of the kernel itself
// (vxlan, WireGuard, l2tp …). When some could not be read, nobody seen is a Gap.
func (t *Table) Owners(inode uint64) fact.Known[[]int] {
	i := sort.Search(len(t.held), func(i int) bool { return t.held[i].Inode >= inode })
	j := i
	for j < len(t.held) && t.held[j].Inode == inode {
		j++
	}
	switch {
	case i < j:
		return fact.Value(t.pids[i:j:j])
	case t.unseen != nil:
		return fact.Missing[[]int](*t.unseen)
	}
	return fact.Absent[[]int]()
}

// Holder returns a descriptor that refers to the socket.
func (t *Table) Holder(inode uint64) (Holding, bool) {
	i := sort.Search(len(t.held), func(i int) bool { return t.held[i].Inode >= inode })
	if i == len(t.held) || t.held[i].Inode != inode {
		return Holding{}, false
	}
	return t.held[i], true
}

// NotIn returns one descriptor for each socket that is not known, sockets of the
// system's processes first.
func (t *Table) NotIn(known func(inode uint64) bool) []Holding {
	var system, users []Holding
	uid := t.uids()
	for i, h := range t.held {
		if i > 0 && t.held[i-1].Inode == h.Inode || known(h.Inode) {
			continue
		}
		if isUser(uid[int(h.PID)]) {
			users = append(users, h)
		} else {
			system = append(system, h)
		}
	}
	return append(system, users...)
}

func (t *Table) uids() map[int]uint32 {
	m := make(map[int]uint32, len(t.procs))
	for _, p := range t.procs {
		m[p.pid] = p.uid
	}
	return m
}

// UID returns the real user of a process that is in the table.
func (t *Table) UID(pid int) (uint32, bool) {
	i, ok := slices.BinarySearchFunc(t.procs, pid, func(p process, pid int) int { return p.pid - pid })
	if !ok {
		return 0, false
	}
	return t.procs[i].uid, true
}

// Held is how many descriptors refer to sockets.
func (t *Table) Held() int { return len(t.held) }

// Doubt records why a socket without an owner here may have one all the same.
func (t *Table) Doubt(g fact.Gap) {
	if t.unseen == nil {
		t.unseen = &g
	}
}

// Keep lists a process in Processes whatever it holds.
func (t *Table) Keep(pid int) {
	if t.extra == nil {
		t.extra = map[int]bool{}
	}
	t.extra[pid] = true
}

// Daemon is a running process of interest.
type Daemon struct {
	PID     int
	Name    string // base name of its executable
	NetNS   fact.Known[fact.NamespaceID]
	OwnRoot bool
}

// Daemons returns the running network managers, RA and DHCP software and
// runtimes: system users' processes in our own or the initial user namespace. A
// user who names a program "dockerd" is none.
func (t *Table) Daemons() []Daemon {
	var out []Daemon
	for i := range t.procs {
		if p := &t.procs[i]; p.daemon != "" {
			out = append(out, Daemon{PID: p.pid, Name: p.daemon, NetNS: t.netNS(p), OwnRoot: p.ownRoot})
		}
	}
	return out
}

// AllDaemons tells whether Daemons is complete: no process is out of sight, and
// none of the system's whose executable could not be read has a daemon's name.
func (t *Table) AllDaemons() bool {
	if !t.listed || t.missing {
		return false
	}
	for i := range t.procs {
		p := &t.procs[i]
		if _, gap := p.exe.Gap(); gap && !isUser(p.uid) && maybeDaemon(p.comm) {
			return false
		}
	}
	return true
}

// maybeDaemon tells whether a process of this name (TASK_COMM_LEN cuts it to 15
// bytes) could run one of the executables of interest.
func maybeDaemon(comm string) bool {
	if comm == "" || strings.HasPrefix(comm, "qemu-system-") {
		return true
	}
	for name := range daemons {
		if comm == name[:min(len(name), 15)] {
			return true
		}
	}
	return false
}

func (t *Table) netNS(p *process) fact.Known[fact.NamespaceID] {
	inode, ok := p.net.Get()
	if !ok {
		g, _ := p.net.Gap()
		return fact.Missing[fact.NamespaceID](g)
	}
	return fact.Value(fact.NamespaceID{Dev: t.dev, Inode: inode})
}

// Processes returns the processes that hold one of the sockets listed in the
// namespaces, or are a daemon of interest, and what could not be seen.
func (t *Table) Processes(ns []fact.Namespace) (fact.Known[[]fact.Process], []fact.Gap) {
	listed := map[int]bool{}
	for i := range ns {
		socks, _ := ns[i].Sockets.Get()
		last := -1
		for j := range socks {
			owners, _ := socks[j].Owners.Get()
			for _, pid := range owners {
				if pid != last {
					listed[pid] = true
					last = pid
				}
			}
		}
	}
	if !t.listed {
		return fact.Missing[[]fact.Process](*t.unseen), t.gaps
	}
	out := []fact.Process{}
	for i := range t.procs {
		p := &t.procs[i]
		if !listed[p.pid] && p.daemon == "" && !t.extra[p.pid] {
			continue
		}
		f := fact.Process{PID: p.pid, Exe: text(p.exe), Comm: strings.ToValidUTF8(p.comm, "?"), UID: p.uid, NetNS: t.netNS(p), Root: p.ownRoot, Flags: p.flags}
		f.Cgroup, f.Unit, f.Container = splitCgroup(p.cgroup)
		out = append(out, f)
	}
	return fact.Value(out), t.gaps
}

// text makes a path that is no UTF-8 a Gap: JSON could not carry it unchanged,
// and two different files must not get the same name.
func text(k fact.Known[string]) fact.Known[string] {
	if s, ok := k.Get(); ok && strings.ToValidUTF8(s, "") != s {
		return fact.Missing[string](fact.Gap{Reason: fact.ParseGap, What: "executable path is not UTF-8"})
	}
	return k
}
