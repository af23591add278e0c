package scratch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nft sends a script as one message. Its size is bounded by the socket's send buffer,
// which only root of the initial user namespace may raise (SO_SNDBUFFORCE): in a user
// namespace about a thousand rules are too many. So nft's sendmsg is intercepted
// (seccomp user notification), and a transaction that is too large is sent, on nft's
// own socket, as several smaller ones. Answers and errors reach nft as ever, with its
// own sequence numbers, so that it names the line. The intermediate states that this
// makes have no packet to meet; a refusal throws the whole namespace away.

// Layouts of linux/seccomp.h.
type seccompData struct {
	Nr   int32
	Arch uint32
	IP   uint64
	Args [6]uint64
}

type seccompNotif struct {
	ID    uint64
	Pid   uint32
	Flags uint32
	Data  seccompData
}

type seccompResp struct {
	ID    uint64
	Val   int64
	Error int32
	Flags uint32
}

// denied are system calls that nft has no use for and that are doors into the kernel.
var denied = []uint32{
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_IO_URING_SETUP, unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_PIDFD_GETFD, unix.SYS_MEMFD_CREATE,
}

// intercept puts the filter on the calling thread and the programs that it starts. The
// thread must be locked to its goroutine and thrown away afterwards.
func intercept() (listener int, err error) {
	ret := func(v uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v} }
	equal := func(nr uint32, jt uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: jt, K: nr}
	}
	f := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // seccomp_data.nr
	n := len(denied)
	f = append(f, equal(unix.SYS_SENDMSG, uint8(n+1)))
	for i, nr := range denied {
		f = append(f, equal(nr, uint8(n-i+1)))
	}
	f = append(f, ret(unix.SECCOMP_RET_ALLOW), ret(unix.SECCOMP_RET_USER_NOTIF), ret(unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM)))
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	fd, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return -1, fmt.Errorf("set seccomp filter: %w", e)
	}
	unix.CloseOnExec(int(fd))
	return int(fd), nil
}

// attend answers notifications until stop is closed.
func attend(listener int, stop <-chan struct{}, wg *sync.WaitGroup) {
	defer wg.Done()
	for {
		select {
		case <-stop:
			return
		default:
		}
		p := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 20); n <= 0 || p[0].Revents&unix.POLLIN == 0 {
			if err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
			continue
		}
		var q seccompNotif
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&q))); e != 0 {
			continue // it died meanwhile
		}
		a := seccompResp{ID: q.ID}
		sent, err := relay(&q)
		var e unix.Errno
		switch {
		case errors.As(err, &e):
			a.Error = -int32(e)
		case err != nil || sent < 0:
			a.Flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
		default:
			a.Val = int64(sent)
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&a)))
	}
}

// relay sends a large message in pieces. -1: nft shall send it by itself.
func relay(q *seccompNotif) (int, error) {
	msg, err := message(int(q.Pid), uintptr(q.Data.Args[1]))
	if err != nil || msg == nil {
		return -1, err
	}
	pidfd, err := unix.PidfdOpen(int(q.Pid), 0)
	if err != nil {
		return -1, nil
	}
	defer unix.Close(pidfd)
	sock, err := unix.PidfdGetfd(pidfd, int(q.Data.Args[0]), 0)
	if err != nil {
		return -1, nil
	}
	defer unix.Close(sock)
	// As large as anybody may have it (net.core.wmem_max).
	_ = unix.SetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_SNDBUF, maxPiece)
	limit, err := unix.GetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		return -1, nil
	}
	if limit = min(limit-4096, maxPiece); len(msg) <= limit {
		return -1, nil
	}
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	for _, p := range pieces(msg, limit) {
		if err := unix.Sendto(sock, p, 0, to); err != nil {
			return 0, err
		}
		if failed(sock) {
			break
		}
	}
	return len(msg), nil
}

// maxPiece bounds a piece where the send buffer is larger, in bytes.
var maxPiece = 8 << 20

// maxMessage bounds what nft may send at once, in bytes.
const maxMessage = 1 << 30

// message copies what a msghdr of another process gathers; nil is nothing to relay.
func message(pid int, at uintptr) ([]byte, error) {
	// Read as numbers: an address of another process must never be a Go pointer.
	word := func(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }
	var h [32]byte // msg_name, msg_namelen, msg_iov, msg_iovlen
	if unsafe.Sizeof(uintptr(0)) != 8 || peek(pid, at, h[:]) != nil {
		return nil, nil
	}
	n := word(h[24:])
	if n == 0 || n > 1024 {
		return nil, nil
	}
	iov := make([]byte, 16*n)
	if err := peek(pid, uintptr(word(h[16:])), iov); err != nil {
		return nil, nil
	}
	total := uint64(0)
	for v := iov; len(v) > 0; v = v[16:] {
		if total += min(word(v[8:]), maxMessage+1); total > maxMessage {
			return nil, unix.EMSGSIZE
		}
	}
	out := make([]byte, total)
	done := 0
	for v := iov; len(v) > 0; v = v[16:] {
		n := int(word(v[8:]))
		if err := peek(pid, uintptr(word(v)), out[done:done+n]); err != nil {
			return nil, nil
		}
		done += n
	}
	return out, nil
}

// peek reads the memory of another process.
func peek(pid int, at uintptr, to []byte) error {
	for len(to) > 0 {
		n := min(len(to), 1<<20)
		local := []unix.Iovec{{Base: &to[0]}}
		local[0].SetLen(n)
		got, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: at, Len: n}}, 0)
		if err != nil {
			return fmt.Errorf("read memory: %w", err)
		}
		if got <= 0 {
			return errFrame
		}
		to, at = to[got:], at+uintptr(got)
	}
	return nil
}

// failed tells whether an error waits in the socket.
func failed(sock int) bool {
	var b [unix.NLMSG_HDRLEN + 4]byte
	n, _, err := unix.Recvfrom(sock, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == nil && n >= len(b) && binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR && binary.NativeEndian.Uint32(b[16:]) != 0
}

// pieces cuts a transaction of nf_tables into several of at most limit bytes. What
// belongs together stays so: an anonymous set or chain lives only within the
// transaction of the rule that uses it.
func pieces(msg []byte, limit int) [][]byte {
	var first, last []byte
	var out [][]byte
	var body []byte
	cut := 0 // body may be cut here
	flush := func(n int) {
		if n > 0 {
			p := append(append([]byte(nil), first...), body[:n]...)
			out = append(out, append(p, last...))
			body = append([]byte(nil), body[n:]...)
		}
		cut = 0
	}
	open := false
	for b := msg; len(b) >= unix.NLMSG_HDRLEN; {
		n := int(binary.NativeEndian.Uint32(b))
		whole := (n + 3) &^ 3
		if n < unix.NLMSG_HDRLEN || n > len(b) {
			return [][]byte{msg} // not what we think it is
		}
		m := b[:min(whole, len(b))]
		b = b[len(m):]
		switch typ := binary.NativeEndian.Uint16(m[4:]); typ {
		case unix.NFNL_MSG_BATCH_BEGIN:
			// Without the generation that nft saw: it moves with every piece.
			if len(m) < unix.NLMSG_HDRLEN+4 {
				return [][]byte{msg}
			}
			first = append([]byte(nil), m[:unix.NLMSG_HDRLEN+4]...)
			binary.NativeEndian.PutUint32(first, uint32(len(first)))
			last = append([]byte(nil), first...)
			binary.NativeEndian.PutUint16(last[4:], unix.NFNL_MSG_BATCH_END)
			continue
		case unix.NFNL_MSG_BATCH_END:
			continue
		default:
			if first == nil || typ>>8 != unix.NFNL_SUBSYS_NFTABLES {
				return [][]byte{msg}
			}
			if len(first)+len(body)+len(m)+len(last) > limit {
				flush(cut)
			}
			body = append(body, m...)
			switch typ & 0xff {
			case unix.NFT_MSG_NEWSET:
				open = open || anonymousSet(m)
			case unix.NFT_MSG_NEWCHAIN:
				open = open || attribute(m, unix.NFTA_CHAIN_NAME) == nil
			case unix.NFT_MSG_NEWRULE:
				open = open && attribute(m, nftaRuleChainID) != nil
			}
			if !open {
				cut = len(body)
			}
		}
	}
	if first == nil {
		return [][]byte{msg}
	}
	flush(len(body))
	return out
}

const nftaRuleChainID = 11 // NFTA_RULE_CHAIN_ID: a rule of an anonymous chain

func anonymousSet(m []byte) bool {
	f := attribute(m, unix.NFTA_SET_FLAGS)
	return len(f) < 4 || binary.BigEndian.Uint32(f)&unix.NFT_SET_ANONYMOUS != 0
}

// attribute returns a top-level attribute of an nfnetlink message.
func attribute(m []byte, typ uint16) []byte {
	if len(m) < unix.NLMSG_HDRLEN+4 {
		return nil
	}
	for b := m[unix.NLMSG_HDRLEN+4:]; len(b) >= 4; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == typ {
			return b[4:n]
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}
