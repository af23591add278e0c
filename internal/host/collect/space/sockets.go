package space

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/proc"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Bounds of looking at sockets one by one: a few microseconds each. What
// exceeds them is a Gap. The sockets of one user share userChecks, so that
// nobody's crowd hides another's single one.
const (
	maxChecks  = 65536
	userChecks = 8192
	checkTime  = 2 * time.Second
)

// Hidden is what the sockets in nobody's list say.
type Hidden struct {
	Spaces  []Space             // namespaces that only sockets keep alive, opened
	Orphans []fact.OrphanSocket // sockets in a namespace that could not be opened, or not be told
	Gaps    []fact.Gap
	// Unknown says why Orphans may be incomplete; nil when it is not.
	Unknown *fact.Gap
}

// FromSockets looks at the sockets that processes hold and no namespace's list
// shows. Most are of families that do not matter here, or TCP connections in a
// known namespace; but a process may make a namespace, listen there, leave, and
// keep only the socket. The kernel tells the namespace of a socket (SIOCGSKNS),
// so that such a one is opened and audited like any other.
//
// known are the namespaces found so far; listed are the inodes in their lists, sorted.
func FromSockets(a *ask.Asker, b *ask.Budget, t *proc.Table, known []Space, listed []uint64) Hidden {
	h := hunt{d: newDiscovery(a, b), t: t, known: map[uint64]*fact.Namespace{}, users: map[uint32]int{}, end: time.Now().Add(checkTime)}
	for i := range known {
		h.known[known[i].Namespace.ID.Inode] = &known[i].Namespace
	}
	if b.Deadline().Before(h.end) {
		h.end = b.Deadline()
	}
	held := t.NotIn(func(inode uint64) bool {
		_, ok := slices.BinarySearch(listed, inode)
		return ok
	})
	for _, s := range held {
		h.look(s)
	}
	return h.result()
}

type hunt struct {
	d       *discovery
	t       *proc.Table
	known   map[uint64]*fact.Namespace // by inode
	end     time.Time
	checks  int
	users   map[uint32]int
	left    int // not looked at
	denied  int // could not be looked at
	swapped int
	orphans []fact.OrphanSocket
}

// receiver tells whether a protocol (sk->sk_prot->name) is one that this
// package's namespaces are read for.
func receiver(protocol string) bool {
	switch p := strings.TrimSuffix(protocol, "v6"); p {
	case "TCP", "UDP", "UDP-Lite", "UDPLITE", "RAW", "SCTP", "MPTCP", "PACKET", "DCCP", "SMC", "SMC6", "L2TP/IP", "L2TP/IPv6":
		return true
	}
	return false
}

func (h *hunt) look(s proc.Holding) {
	uid, _ := h.t.UID(int(s.PID))
	if h.checks++; h.checks > maxChecks || uid >= 1000 && h.users[uid] >= userChecks || h.checks%64 == 0 && time.Now().After(h.end) {
		h.left++
		return
	}
	h.users[uid]++
	h.d.a.Note("getxattr", "system.sockprotoname")
	protocol, err := s.Protocol()
	switch {
	case errors.Is(err, proc.ErrSwapped):
		h.swapped++
		return
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH):
		return // closed meanwhile
	case err != nil:
		h.denied++
		return
	}
	if !receiver(protocol) {
		return
	}
	o := fact.OrphanSocket{Inode: s.Inode, PID: int(s.PID), Protocol: protocol, Listening: fact.Missing[bool](fact.Gap{Reason: fact.Permission, What: "whether the socket listens"})}
	h.d.a.Note("pidfd_getfd", "SIOCGSKNS")
	dup, err := s.Duplicate()
	if err != nil {
		switch {
		case errors.Is(err, proc.ErrSwapped), errors.Is(err, unix.EBADF), errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOENT):
			h.swapped++
		default: // old kernel, or not ours to trace
			h.denied++
		}
		return
	}
	defer dup.Close()
	o.Listening = dup.Listening()
	fd, err := dup.NetNS()
	if err != nil {
		h.denied++
		return
	}
	f := h.d.add(fd) // takes fd over
	if f == nil {
		h.denied++
		return
	}
	inode := f.Namespace.ID.Inode
	if _, ok := h.known[inode]; ok {
		return
	}
	o.NetNS = inode
	h.orphans = append(h.orphans, o)
	h.t.Keep(o.PID)
}

func (h *hunt) result() Hidden {
	var out Hidden
	for inode, f := range h.d.byNode {
		if _, ok := h.known[inode]; ok { // ours already
			if f.FD >= 0 {
				unix.Close(f.FD)
			}
			delete(h.d.byNode, inode)
		}
	}
	out.Spaces = h.d.result()
	names := map[string]bool{}
	for _, ns := range h.known {
		names[ns.Name] = true
	}
	opened := map[uint64]bool{}
	for i := range out.Spaces {
		s := &out.Spaces[i]
		s.Namespace.IsSelf = false
		if names[s.Namespace.Name] {
			s.Namespace.Name = fmt.Sprintf("%s#%d", s.Namespace.Name, s.Namespace.ID.Inode)
		}
		opened[s.Namespace.ID.Inode] = s.FD >= 0
	}
	for _, o := range h.orphans {
		if !opened[o.NetNS] {
			out.Orphans = append(out.Orphans, o)
		}
	}
	out.Gaps = h.d.gaps
	if h.left > 0 {
		out.Unknown = &fact.Gap{Reason: fact.Truncated, What: fmt.Sprintf("network namespace of %d more sockets: too many to look at one by one", h.left)}
	} else if h.denied > 0 {
		out.Unknown = &fact.Gap{Reason: fact.Permission, What: fmt.Sprintf("network namespace of %d sockets that processes hold", h.denied)}
	} else if h.swapped > 8 {
		out.Unknown = &fact.Gap{Reason: fact.NotCollected, What: fmt.Sprintf("network namespace of %d sockets: their descriptors changed under the reader", h.swapped)}
	} else if g := h.t.Unseen(); g != nil {
		out.Unknown = g
	}
	return out
}
