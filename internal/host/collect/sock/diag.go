package sock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
)

// sockDiagByFamily is SOCK_DIAG_BY_FAMILY (include/uapi/linux/sock_diag.h).
const sockDiagByFamily = 20

// inetRequest is struct inet_diag_req_v2 behind a netlink header: every socket of
// a family and protocol in one of the states. No extension is asked for:
// SKV6ONLY always comes.
func inetRequest(family, protocol uint8, states uint32) []byte {
	b := make([]byte, 16+56)
	header(b)
	b[16], b[17] = family, protocol
	binary.NativeEndian.PutUint32(b[20:], states)
	for i := range 8 { // INET_DIAG_NOCOOKIE
		b[16+8+40+i] = 0xff
	}
	return b
}

// packetRequest is struct packet_diag_req with PACKET_SHOW_INFO.
func packetRequest() []byte {
	b := make([]byte, 16+20)
	header(b)
	b[16] = unix.AF_PACKET
	binary.NativeEndian.PutUint32(b[24:], 1)
	return b
}

func header(b []byte) {
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(b[8:], 1)
}

// Sizes of a dump: the kernel answers with datagrams of at most 32 KiB once it
// has seen a reader with room for that (netlink_dump, net/netlink/af_netlink.c).
const (
	datagram = 32 << 10
	chunk    = 512 << 10
)

// dump asks and returns the answer as it came, datagram after datagram, without
// the end marker's meaning left to be checked: an error in it is returned.
func dump(request []byte, b *ask.Budget) ([][]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	defer unix.Close(fd)
	// The kernel answers while recvmsg runs; the timeout is for a kernel that does not.
	tv := unix.NsecToTimeval(int64(min(max(time.Until(b.Deadline()), time.Millisecond), 10*time.Second)))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return nil, fmt.Errorf("set timeout: %w", err)
	}
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	var chunks [][]byte
	size := datagram + 4096 // most namespaces have few sockets
	cur := make([]byte, 0, size)
	for {
		if cap(cur)-len(cur) < datagram {
			chunks = append(chunks, cur)
			size = min(4*size, chunk)
			cur = make([]byte, 0, size)
		}
		room := cur[len(cur):cap(cur)]
		n, _, flags, from, err := unix.Recvmsg(fd, room, nil, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			if g := b.Take("sockets", 0, 0); g != nil {
				return nil, g
			}
			return nil, fmt.Errorf("receive: %w", err)
		}
		if flags&unix.MSG_TRUNC != 0 {
			return nil, fmt.Errorf("receive: a datagram is larger than %d bytes", len(room))
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue // not from the kernel
		}
		if g := b.Take("sockets", n/112+1, n); g != nil {
			return nil, g
		}
		done, err := ended(room[:n])
		if err != nil {
			return nil, err
		}
		cur = cur[:len(cur)+n]
		if done {
			return append(chunks, cur), nil
		}
	}
}

// ended looks for the end of a dump, or its error, in a datagram.
func ended(b []byte) (bool, error) {
	for len(b) >= 16 {
		l := int(binary.NativeEndian.Uint32(b))
		if l < 16 || l > len(b) {
			return false, fmt.Errorf("receive: malformed netlink message")
		}
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			if l >= 20 {
				if e := int32(binary.NativeEndian.Uint32(b[16:])); e < 0 {
					return false, fmt.Errorf("dump: %w", unix.Errno(-e))
				}
			}
			return true, nil
		}
		b = b[min((l+3)&^3, len(b)):]
	}
	return false, nil
}
