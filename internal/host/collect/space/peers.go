package space

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
)

// Netns id messages (include/uapi/linux/rtnetlink.h, net_namespace.h).
const (
	rtmNewNSID = 88
	rtmGetNSID = 90
	nsaNSID    = 1 // NETNSA_NSID
	nsaFD      = 3 // NETNSA_FD
	maxIDs     = 4096
)

// Peers returns the netns ids that the calling thread's namespace has given to
// others (a link there has its peer in one of them) and that belong to none of
// the found ones: namespaces that exist and were not found. fds are descriptors
// of the found ones, the likeliest first.
func Peers(a *ask.Asker, b *ask.Budget, fds []int) ([]int32, error) {
	a.Note("netlink", "RTM_GETNSID")
	c, err := newNSIDs()
	if err != nil {
		return nil, err
	}
	defer unix.Close(c.fd)
	ids, err := c.list()
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	for _, fd := range fds {
		if g := b.Take("peer namespaces", 1, 0); g != nil {
			return nil, g
		}
		id, err := c.of(fd)
		if err != nil {
			return nil, err
		}
		if i := slices.Index(ids, id); i >= 0 {
			if ids = slices.Delete(ids, i, i+1); len(ids) == 0 {
				return nil, nil
			}
		}
	}
	return ids, nil
}

type nsIDs struct {
	fd  int
	seq uint32
	buf []byte
}

func newNSIDs() (*nsIDs, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	tv := unix.NsecToTimeval(int64(2 * time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set timeout: %w", err)
	}
	return &nsIDs{fd: fd, buf: make([]byte, 32<<10)}, nil
}

func (c *nsIDs) send(flags uint16, attr uint16, value int32) error {
	c.seq++
	b := make([]byte, 0, 28)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint16(b, rtmGetNSID)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, c.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, unix.AF_UNSPEC, 0, 0, 0) // struct rtgenmsg, aligned
	if attr != 0 {
		b = binary.NativeEndian.AppendUint16(b, 8)
		b = binary.NativeEndian.AppendUint16(b, attr)
		b = binary.NativeEndian.AppendUint32(b, uint32(value))
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive reads one datagram; done tells that nothing more follows.
func (c *nsIDs) receive() (ids []int32, done bool, err error) {
	n, from, err := unix.Recvfrom(c.fd, c.buf, 0)
	if err != nil {
		return nil, false, fmt.Errorf("receive: %w", err)
	}
	if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
		return nil, false, nil
	}
	return parseNSIDs(c.buf[:n])
}

var errNSID = errors.New("malformed netns id message")

func parseNSIDs(b []byte) (ids []int32, done bool, err error) {
	for len(b) >= 16 {
		l := int(binary.NativeEndian.Uint32(b))
		if l < 16 || l > len(b) {
			return nil, false, errNSID
		}
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return ids, true, nil
		case unix.NLMSG_ERROR:
			if l >= 20 {
				if e := int32(binary.NativeEndian.Uint32(b[16:])); e < 0 {
					return ids, true, fmt.Errorf("get netns id: %w", unix.Errno(-e))
				}
			}
			return ids, true, nil
		case rtmNewNSID:
			if l < 20 {
				return nil, false, errNSID
			}
			p := b[20:l]
			for len(p) >= 4 {
				al := int(binary.NativeEndian.Uint16(p))
				if al < 4 || al > len(p) {
					return nil, false, errNSID
				}
				if binary.NativeEndian.Uint16(p[2:]) == nsaNSID && al >= 8 {
					ids = append(ids, int32(binary.NativeEndian.Uint32(p[4:])))
				}
				p = p[min((al+3)&^3, len(p)):]
			}
		}
		b = b[min((l+3)&^3, len(b)):]
	}
	return ids, false, nil
}

// list returns every id in use.
func (c *nsIDs) list() ([]int32, error) {
	if err := c.send(unix.NLM_F_DUMP, 0, 0); err != nil {
		return nil, fmt.Errorf("list netns ids: %w", err)
	}
	var all []int32
	for {
		ids, done, err := c.receive()
		if err != nil {
			return nil, fmt.Errorf("list netns ids: %w", err)
		}
		if all = append(all, ids...); len(all) > maxIDs {
			return nil, errors.New("too many netns ids")
		}
		if done {
			return all, nil
		}
	}
}

// of returns the id of a namespace here; -1: it has none.
func (c *nsIDs) of(fd int) (int32, error) {
	if err := c.send(0, nsaFD, int32(fd)); err != nil {
		return -1, fmt.Errorf("get netns id: %w", err)
	}
	ids, _, err := c.receive()
	if err != nil || len(ids) == 0 {
		return -1, err
	}
	return ids[0], nil
}
