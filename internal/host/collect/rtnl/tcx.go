package rtnl

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// tcxAnswer is how many TCX programs sit on the ingress side of an interface.
type tcxAnswer struct {
	programs uint32
	errno    unix.Errno
	gap      *fact.Gap
}

// progQuery is the BPF_PROG_QUERY member of union bpf_attr
// (include/uapi/linux/bpf.h).
type progQuery struct {
	ifindex         uint32
	attachType      uint32
	queryFlags      uint32
	attachFlags     uint32
	progIDs         uint64
	count           uint32
	_               uint32
	progAttachFlags uint64
	linkIDs         uint64
	linkAttachFlags uint64
	revision        uint64
}

// queryTCX counts TCX programs by bpf(2). It asks for the number only: no
// program is opened. The interface is looked up in the namespace of the calling
// thread (tcx_prog_query, kernel/bpf/tcx.c).
func queryTCX(a *ask.Asker, b *ask.Budget, index int) (ans tcxAnswer) {
	if ans.gap = b.Take("TCX programs", 1, 0); ans.gap != nil {
		return ans
	}
	a.Note("bpf", "BPF_PROG_QUERY tcx ingress")
	q := progQuery{ifindex: uint32(index), attachType: unix.BPF_TCX_INGRESS}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&q)), unsafe.Sizeof(q))
	ans.programs, ans.errno = q.count, errno
	return ans
}

// known says whether there is a program. ENOENT: this interface has none.
// EINVAL: the kernel has no TCX (before 6.6), and ENOSYS no bpf(2) at all, so
// there can be none. ENODEV: the interface is gone.
func (t tcxAnswer) known(what string) fact.Known[bool] {
	switch {
	case t.gap != nil:
		return fact.Missing[bool](*t.gap)
	case t.errno == 0:
		return fact.Value(t.programs > 0)
	case t.errno == unix.ENOENT, t.errno == unix.EINVAL, t.errno == unix.ENOSYS, t.errno == unix.ENODEV:
		return fact.Value(false)
	case t.errno == unix.EPERM, t.errno == unix.EACCES:
		return fact.Missing[bool](fact.Gap{Reason: fact.Permission, What: what})
	default:
		return fact.Missing[bool](fact.Gap{Reason: fact.NotCollected, What: what + ": " + t.errno.Error()})
	}
}
