// Package sock reads the sockets of a network namespace that receive: TCP and
// SCTP listeners, UDP and UDPLite, raw and packet sockets.
//
// There are two sources. inet_diag and packet_diag tell everything, also whether
// a socket on [::] takes IPv4 (INET_DIAG_SKV6ONLY) and the interface it is bound
// to; but on many distributions they are modules, which a request would load, so
// they are asked only when they are already there. Otherwise the same sockets
// are read from /proc/thread-self/net, which does not show those two; they are
// then asked of the sockets themselves, where that is permitted (Learn).
//
// Read keeps bytes. The one thing taken out of them before Decode is the inode
// of each socket (Inodes): a number at a fixed place in a message of the kernel,
// needed to find holders while the process may still look for them.
package sock

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Sources of a socket, as fact.Socket.Source names them.
const (
	sourceInet   = "inet_diag"
	sourcePacket = "packet_diag"
	sourceProc   = "proc"
)

// table is one answer: the sockets of one protocol and family.
type table struct {
	protocol string // as in fact.Socket
	family   string
	source   string
	chunks   [][]byte // datagrams of netlink messages, or text in one piece
}

// Dump is what was read, not yet interpreted.
type Dump struct {
	tables  []table
	gap     *fact.Gap // something is missing: the whole list is unknown
	options map[uint64]Options
}

// kind is a protocol and the ways to ask for it.
type kind struct {
	protocol string
	number   uint8  // IPPROTO_*
	module   string // the diag module that answers
	states   uint32 // bit mask of TCP_* states
	files    [2]string
}

// TCP_* states (include/net/tcp_states.h) that the kernel also uses for others.
const (
	stEstablished = 1
	stClose       = 7
	stListen      = 10
)

const anyState = 1<<32 - 1

func kinds() []kind {
	return []kind{
		{"tcp", unix.IPPROTO_TCP, "tcp_diag", 1 << stListen, [2]string{"tcp", "tcp6"}},
		{"udp", unix.IPPROTO_UDP, "udp_diag", anyState, [2]string{"udp", "udp6"}},
		{"udplite", unix.IPPROTO_UDPLITE, "udp_diag", anyState, [2]string{"udplite", "udplite6"}},
		{"sctp", unix.IPPROTO_SCTP, "sctp_diag", 1 << stListen, [2]string{"sctp/eps", ""}},
		{"raw", unix.IPPROTO_RAW, "raw_diag", anyState, [2]string{"raw", "raw6"}},
	}
}

var families = [2]struct {
	name   string
	number uint8
}{{"ipv4", unix.AF_INET}, {"ipv6", unix.AF_INET6}}

// Read reads the sockets of the calling thread's network namespace.
func Read(a *ask.Asker, b *ask.Budget) *Dump {
	d := &Dump{}
	// sock_diag itself, which these stand on, is part of every kernel with
	// networking (net/core/Makefile, obj-y): opening its socket loads nothing.
	inet := a.Present("inet_diag")
	for _, k := range kinds() {
		if d.gap != nil {
			return d
		}
		if inet && a.Present(k.module) && d.readDiag(a, b, k) {
			continue
		}
		for i, name := range k.files {
			if name != "" {
				d.readText(a, b, table{protocol: k.protocol, family: families[i].name, source: sourceProc}, name)
			}
		}
	}
	if d.gap == nil && a.Present("packet_diag") && d.readPacketDiag(a, b) {
		return d
	}
	d.readText(a, b, table{protocol: "packet", family: "packet", source: sourceProc}, "packet")
	return d
}

// readDiag asks inet_diag; false when it has to be read another way.
func (d *Dump) readDiag(a *ask.Asker, b *ask.Budget, k kind) bool {
	var got []table
	for _, f := range families {
		t := table{protocol: k.protocol, family: f.name, source: sourceInet}
		a.Note("netlink", fmt.Sprintf("SOCK_DIAG_BY_FAMILY %s %s", k.protocol, f.name))
		var err error
		t.chunks, err = dump(inetRequest(f.number, k.number, k.states), b)
		switch {
		case err == nil:
			got = append(got, t)
		case f.number == unix.AF_INET6 && errors.Is(err, unix.ENOENT): // no IPv6 stack
		case d.over(err):
			return true
		default:
			return false
		}
	}
	d.tables = append(d.tables, got...)
	return true
}

func (d *Dump) readPacketDiag(a *ask.Asker, b *ask.Budget) bool {
	t := table{protocol: "packet", family: "packet", source: sourcePacket}
	a.Note("netlink", "SOCK_DIAG_BY_FAMILY packet")
	var err error
	if t.chunks, err = dump(packetRequest(), b); err != nil {
		return d.over(err)
	}
	d.tables = append(d.tables, t)
	return true
}

// over records a Gap for the whole list, when that is what the error is.
func (d *Dump) over(err error) bool {
	var g *fact.Gap
	if errors.As(err, &g) {
		d.gap = g
		return true
	}
	return false
}

// readText reads a file below /proc/thread-self/net. One that is not there
// belongs to a protocol this kernel or namespace does not have.
func (d *Dump) readText(a *ask.Asker, b *ask.Budget, t table, name string) {
	if d.gap != nil {
		return
	}
	path := "/proc/thread-self/net/" + name
	a.Note("open", path)
	raw, err := readFile(path, b)
	switch {
	case err == nil:
		t.chunks = [][]byte{raw}
		d.tables = append(d.tables, t)
	case d.over(err):
	case errors.Is(err, unix.ENOENT):
		var st unix.Stat_t
		if unix.Stat("/proc/thread-self/net", &st) != nil {
			d.gap = &fact.Gap{Reason: fact.NotCollected, What: "sockets: /proc/thread-self/net is missing"}
		}
	default:
		r := fact.NotCollected
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			r = fact.Permission
		}
		d.gap = &fact.Gap{Reason: r, What: "sockets: read " + path + ": " + err.Error()}
	}
}

func readFile(path string, b *ask.Budget) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	out := make([]byte, 0, 64<<10)
	for {
		if cap(out)-len(out) < 32<<10 {
			out = slices.Grow(out, max(64<<10, len(out)))
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
		out = out[:len(out)+n]
		if g := b.Take("sockets", n/150+1, n); g != nil {
			return nil, g
		}
	}
}

// Inodes returns the inode of every socket in the dump, unsorted, zeros left out.
func (d *Dump) Inodes() []uint64 {
	var out []uint64
	for i := range d.tables {
		d.tables[i].each(func(s *fact.Socket) { out = append(out, s.Inode) })
	}
	return slices.DeleteFunc(out, func(i uint64) bool { return i == 0 })
}

// Complete tells whether every socket of the namespace is in the dump.
func (d *Dump) Complete() bool { return d.gap == nil }

// Decode interprets the dump; owners tells which processes hold a socket inode.
func (d *Dump) Decode(ns *fact.Namespace, owners func(inode uint64) fact.Known[[]int]) {
	if d.gap != nil {
		ns.Sockets = fact.Missing[[]fact.Socket](*d.gap)
		return
	}
	n := 0
	for i := range d.tables {
		n += d.tables[i].estimate()
	}
	out := make([]fact.Socket, 0, n)
	for i := range d.tables {
		bad := d.tables[i].each(func(s *fact.Socket) {
			d.complete(s)
			s.Owners = owners(s.Inode)
			out = append(out, *s)
		})
		if bad {
			ns.Sockets = fact.Missing[[]fact.Socket](fact.Gap{Reason: fact.ParseGap, What: fmt.Sprintf("%s sockets from %s", d.tables[i].protocol, d.tables[i].source)})
			return
		}
	}
	ns.Sockets = fact.Value(out)
}

// each calls f for every socket that receives; bad tells that something was
// not understood.
func (t *table) each(f func(*fact.Socket)) (bad bool) {
	for _, c := range t.chunks {
		switch t.source {
		case sourceInet:
			bad = eachInet(c, t, f) || bad
		case sourcePacket:
			bad = eachPacket(c, f) || bad
		default:
			bad = eachLine(c, t, f) || bad
		}
	}
	return bad
}

// estimate is about how many sockets the table holds, for allocation only.
func (t *table) estimate() int {
	n := 0
	for _, c := range t.chunks {
		n += len(c)
	}
	if t.source == sourceProc && t.protocol == "tcp" {
		return n / 600 // most lines are connections
	}
	return n / 112
}
