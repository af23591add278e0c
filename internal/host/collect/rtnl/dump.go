package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/model/fact"
)

const (
	// receiveBuffer holds the largest dump datagram: the kernel makes them no
	// larger than 32 KiB (netlink_dump, net/netlink/af_netlink.c).
	receiveBuffer = 64 << 10
	// maxTries bounds how often a dump is repeated because something changed
	// while it was read.
	maxTries = 5
	// headerSize is sizeof(struct nlmsghdr).
	headerSize = unix.SizeofNlMsghdr
)

// Sizes of request headers that golang.org/x/sys/unix does not name.
const (
	sizeofNdtMsg = 4  // struct ndtmsg
	sizeofNhMsg  = 8  // struct nhmsg
	sizeofTcMsg  = 20 // struct tcmsg
)

// request is one dump.
type request struct {
	what  string // for people, in a Gap
	name  string // for the request log
	typ   uint16
	body  []byte
	first bool // stop after the first datagram
}

// answer is what the kernel sent: the datagrams of one consistent dump, or why
// there are none.
type answer struct {
	what      string
	datagrams [][]byte
	errno     unix.Errno // the kernel's refusal
	gap       *fact.Gap  // ours: budget, time, a dump that kept changing
}

// conn asks one namespace. Its socket is opened when first needed, and again
// after an answer was left unread.
type conn struct {
	ask    *ask.Asker
	budget *ask.Budget
	nl     *netlink.Conn
	buf    []byte
}

func (c *conn) close() {
	if c.nl != nil {
		c.nl.Close()
		c.nl = nil
	}
}

func (c *conn) open() error {
	if c.nl != nil {
		return nil
	}
	nl, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	// Strict checking (kernel 4.20) makes the kernel read our filters as meant;
	// without it a route dump also holds cached exceptions, which Decode skips.
	_ = nl.SetOption(netlink.GetStrictCheck, true)
	if err := nl.SetReadDeadline(c.budget.Deadline()); err != nil {
		nl.Close()
		return err
	}
	c.nl = nl
	return nil
}

// dump asks until it gets a consistent answer, at most maxTries times.
func (c *conn) dump(r request) answer {
	for range maxTries {
		ans, again := c.once(r)
		if !again {
			return ans
		}
	}
	return answer{what: r.what, gap: &fact.Gap{Reason: fact.Truncated, What: r.what + ": changed while they were read"}}
}

func (c *conn) once(r request) (ans answer, changed bool) {
	ans.what = r.what
	if ans.gap = c.budget.Take(r.what, 0, 0); ans.gap != nil {
		return ans, false
	}
	c.ask.Note("netlink", r.name)
	fail := func(err error) (answer, bool) {
		c.close()
		ans.datagrams = nil
		var errno unix.Errno
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			ans.gap = &fact.Gap{Reason: fact.Truncated, What: r.what + ": out of time"}
		case errors.As(err, &errno):
			ans.errno = errno
		default:
			ans.gap = &fact.Gap{Reason: fact.NotCollected, What: fmt.Sprintf("%s: %v", r.what, err)}
		}
		return ans, false
	}
	if err := c.open(); err != nil {
		return fail(err)
	}
	req, err := c.nl.Send(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(r.typ), Flags: netlink.Request | netlink.Dump},
		Data:   r.body,
	})
	if err != nil {
		return fail(err)
	}
	raw, err := c.nl.SyscallConn()
	if err != nil {
		return fail(err)
	}
	for {
		n, err := c.receive(raw.Read)
		if err != nil {
			return fail(err)
		}
		if n == 0 {
			continue // not from the kernel
		}
		s := scan(c.buf[:n], req.Header.Sequence, req.Header.PID)
		if s.err != nil {
			return fail(s.err)
		}
		changed = changed || s.changed
		if s.messages > 0 {
			if ans.gap = c.budget.Take(r.what, s.messages, n); ans.gap != nil {
				// Closing ends the dump in the kernel too.
				c.close()
				ans.datagrams = nil
				return ans, false
			}
			ans.datagrams = append(ans.datagrams, append([]byte(nil), c.buf[:n]...))
			if r.first {
				c.close()
				return ans, false
			}
		}
		switch {
		case s.errno != 0:
			ans.datagrams, ans.errno = nil, s.errno
			return ans, false
		case s.done && changed:
			return answer{what: r.what}, true
		case s.done:
			return ans, false
		}
	}
}

// receive reads one datagram; n is 0 when it was not the kernel that sent it:
// root of the user namespace that owns a network namespace may send to our port.
func (c *conn) receive(read func(func(fd uintptr) bool) error) (n int, err error) {
	var from unix.Sockaddr
	rerr := read(func(fd uintptr) bool {
		for {
			n, from, err = unix.Recvfrom(int(fd), c.buf, unix.MSG_TRUNC)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	switch sa, ok := from.(*unix.SockaddrNetlink); {
	case rerr != nil:
		return 0, rerr
	case err != nil:
		return 0, err
	case !ok || sa.Pid != 0:
		return 0, nil
	case n > len(c.buf):
		return 0, errors.New("datagram larger than the receive buffer")
	}
	return n, nil
}

// scanned is what the message headers of a datagram say.
type scanned struct {
	messages int // of the dump
	done     bool
	changed  bool       // NLM_F_DUMP_INTR, also on the closing NLMSG_DONE
	errno    unix.Errno // NLMSG_ERROR, or the error that NLMSG_DONE carries
	err      error
}

// scan walks the headers of a datagram without looking into any message but
// the kernel's own control messages.
func scan(b []byte, seq, port uint32) (s scanned) {
	for len(b) >= headerSize {
		size := int(binary.NativeEndian.Uint32(b))
		if size < headerSize || size > len(b) {
			s.err = errors.New("broken netlink message")
			return s
		}
		typ := binary.NativeEndian.Uint16(b[4:])
		flags := binary.NativeEndian.Uint16(b[6:])
		ours := binary.NativeEndian.Uint32(b[8:]) == seq && binary.NativeEndian.Uint32(b[12:]) == port
		body := b[headerSize:size]
		b = b[min(align(size), len(b)):]
		if !ours {
			continue // a left-over of an earlier request
		}
		s.changed = s.changed || flags&unix.NLM_F_DUMP_INTR != 0
		switch typ {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			s.done = true
			if len(body) >= 4 {
				if e := int32(binary.NativeEndian.Uint32(body)); e < 0 {
					s.errno = unix.Errno(-e)
				}
			}
			return s
		case unix.NLMSG_NOOP, unix.NLMSG_OVERRUN:
		default:
			s.messages++
		}
	}
	return s
}

func align(n int) int { return (n + 3) &^ 3 }

// all walks the payloads of every message of the dump, with their type.
func (a *answer) all() iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for _, b := range a.datagrams {
			for len(b) >= headerSize {
				size := int(binary.NativeEndian.Uint32(b))
				if size < headerSize || size > len(b) {
					break
				}
				if typ := binary.NativeEndian.Uint16(b[4:]); typ >= unix.NLMSG_MIN_TYPE && !yield(typ, b[headerSize:size]) {
					return
				}
				b = b[min(align(size), len(b)):]
			}
		}
	}
}

// messages are the payloads of one type.
func (a *answer) messages(typ uint16) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		n := 0
		for t, b := range a.all() {
			if t != typ {
				continue
			}
			if !yield(n, b) {
				return
			}
			n++
		}
	}
}
