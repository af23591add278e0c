package proc

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// ErrSwapped says that a descriptor referred to something else when it was
// looked at again: its process works with it, or plays with us.
var ErrSwapped = errors.New("the descriptor refers to something else now")

// Protocol asks what kind of socket a descriptor refers to, in the kernel's
// words ("TCPv6", "UDP", "RAWv6", "PACKET", "UNIX-STREAM"; sk->sk_prot->name).
//
// A path into /proc/PID/fd is only ever opened with O_PATH, which asks no
// filesystem, and looked at through our own descriptor, where it cannot change
// any more: a process may put a file on FUSE in its place at any moment, and any
// request to that would wait for its owner. Closing an O_PATH descriptor does not
// flush either. Nothing on the host changes.
func (h Holding) Protocol() (string, error) {
	p, err := unix.Open(Handle{PID: int(h.PID), Task: int(h.Task), FD: int(h.FD)}.Path(), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(p)
	own := "/proc/self/fd/" + itoa(p)
	var buf [64]byte
	n, err := unix.Readlink(own, buf[:])
	if err != nil {
		return "", err
	}
	if inode, ok := bracketed(buf[:n], linkSocket); !ok || inode != h.Inode {
		return "", ErrSwapped
	}
	n, err = unix.Getxattr(own, "system.sockprotoname", buf[:])
	if err != nil {
		return "", err
	}
	return string(bytes.TrimRight(buf[:n], "\x00")), nil
}

// Socket is a duplicate of another process's socket descriptor.
type Socket struct{ fd int }

// Duplicate takes a copy of the descriptor (pidfd_getfd(2), Linux 5.6; needs the
// right to trace the process).
//
// What this does to the host: for the microseconds until Close the socket has
// one more reference, so that a process that closes it at this very moment frees
// its port that much later. Nothing is sent, received, or set. The caller must
// have seen with Protocol that it is a socket: the flush at Close of anything else
// may wait for a FUSE server. What was swapped in between is left open rather
// than closed, for the same reason.
func (h Holding) Duplicate() (Socket, error) {
	flags, pid := 0, int(h.PID)
	if h.Task != h.PID {
		flags, pid = unix.O_EXCL, int(h.Task) // PIDFD_THREAD, Linux 6.9
	}
	pidfd, err := unix.PidfdOpen(pid, flags)
	if err != nil {
		return Socket{}, fmt.Errorf("open pidfd: %w", err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, int(h.FD), 0)
	if err != nil {
		return Socket{}, fmt.Errorf("get descriptor: %w", err)
	}
	if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return Socket{}, ErrSwapped
	}
	var st unix.Stat_t // of a socket: the kernel's own
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != h.Inode {
		unix.Close(fd)
		return Socket{}, ErrSwapped
	}
	return Socket{fd: fd}, nil
}

// Close gives the copy back.
func (s Socket) Close() error { return unix.Close(s.fd) }

// siocGSKNS returns a descriptor of the socket's network namespace
// (include/uapi/linux/sockios.h; Linux 4.10). It needs CAP_NET_ADMIN there.
const siocGSKNS = 0x894C

// NetNS returns a descriptor of the network namespace the socket lives in.
func (s Socket) NetNS() (int, error) {
	fd, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(s.fd), siocGSKNS, 0)
	if e != 0 {
		return -1, fmt.Errorf("get namespace of socket: %w", e)
	}
	return int(fd), nil
}

// Listening is SO_ACCEPTCONN.
func (s Socket) Listening() fact.Known[bool] { return s.flag(unix.SOL_SOCKET, unix.SO_ACCEPTCONN) }

// V6Only is IPV6_V6ONLY.
func (s Socket) V6Only() fact.Known[bool] { return s.flag(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) }

// Port is the local port (getsockname), to tell a bound socket from one that
// cannot receive; 0 when it has none.
func (s Socket) Port() int {
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return 0
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return a.Port
	case *unix.SockaddrInet6:
		return a.Port
	}
	return 0
}

func (s Socket) flag(level, opt int) fact.Known[bool] {
	v, err := unix.GetsockoptInt(s.fd, level, opt)
	if err != nil {
		return fact.Missing[bool](fact.Gap{Reason: reason(err), What: "socket option: " + err.Error()})
	}
	return fact.Value(v != 0)
}

// Options asks a socket, through a copy of its holder's descriptor, what /proc/net
// does not show: IPV6_V6ONLY, and the interface it is bound to (SO_BINDTOIFINDEX,
// Linux 5.0).
func (t *Table) Options(inode uint64) (v6only fact.Known[bool], index fact.Known[int]) {
	missing := func(err error) (fact.Known[bool], fact.Known[int]) {
		g := fact.Gap{Reason: reason(err), What: "options of a socket that /proc does not show: " + err.Error()}
		return fact.Missing[bool](g), fact.Missing[int](g)
	}
	h, ok := t.Holder(inode)
	if !ok {
		if t.unseen != nil {
			return fact.Missing[bool](*t.unseen), fact.Missing[int](*t.unseen)
		}
		return missing(errors.New("no process holds it"))
	}
	if _, err := h.Protocol(); err != nil {
		return missing(err)
	}
	s, err := h.Duplicate()
	if err != nil {
		return missing(err)
	}
	defer s.Close()
	v, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	if err != nil {
		_, index = missing(err)
	} else {
		index = fact.Value(v)
	}
	return s.V6Only(), index
}
