package packetfilter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
)

const (
	// answerMax is more than the kernel puts into one part of a dump (32 KiB), in bytes:
	// it sizes them by what recvmsg offers.
	answerMax = 64 << 10
	// minArena and maxArena are how much memory is reserved for answers at a time.
	minArena, maxArena = 2 * answerMax, 1 << 20
)

// wire is a socket that dumps are read from. The answers stay where they were received:
// a large ruleset would otherwise be copied, and held twice.
type wire struct {
	c     *netlink.Conn
	raw   syscall.RawConn
	arena []byte
	size  int
}

func dialWire(b *ask.Budget) (*wire, error) {
	c, err := dial(b)
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	return &wire{c: c, raw: raw}, nil
}

// abandon leaves the rest of a dump unread: a deadline in the past ends what follows.
func (w *wire) abandon() { _ = w.c.SetDeadline(time.Unix(1, 0)) }

// dump sends a request and calls f with every object of the answer, until it returns
// false; the socket is of no use then. moved tells that the kernel saw a change.
func (w *wire) dump(req netlink.Message, f func(data []byte) bool) (moved bool, err error) {
	sent, err := w.c.Send(req)
	if err != nil {
		return false, err
	}
	for {
		b, err := w.receive()
		if err != nil {
			return moved, err
		}
		for len(b) > 0 {
			m, rest, err := cut(b)
			if err != nil {
				return moved, err
			}
			b = rest
			if m.seq != sent.Header.Sequence {
				continue
			}
			if m.flags&netlink.DumpInterrupted != 0 {
				moved = true
			}
			switch m.kind {
			case netlink.Done, netlink.Error:
				return moved, failureOf(m.data)
			}
			if !f(m.data) {
				return moved, nil
			}
		}
	}
}

// receive reads the next part of an answer.
func (w *wire) receive() ([]byte, error) {
	if len(w.arena) < answerMax {
		w.size = min(max(minArena, 2*w.size), maxArena)
		w.arena = make([]byte, w.size)
	}
	var n int
	var err error
	if e := w.raw.Read(func(fd uintptr) bool {
		for {
			n, err = unix.Read(int(fd), w.arena[:answerMax])
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	}); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	out := w.arena[:n:n]
	w.arena = w.arena[min((n+7)&^7, len(w.arena)):]
	return out, nil
}

// answer is one message of an answer.
type answer struct {
	kind  netlink.HeaderType
	flags netlink.HeaderFlags
	seq   uint32
	data  []byte
}

var errAnswer = errors.New("an answer that is no netlink message")

// cut takes the first message off a part of an answer (struct nlmsghdr).
func cut(b []byte) (m answer, rest []byte, err error) {
	const header = 16
	if len(b) < header {
		return m, nil, errAnswer
	}
	n := binary.NativeEndian.Uint32(b)
	if n < header || n > uint32(min(len(b), math.MaxInt32)) {
		return m, nil, errAnswer
	}
	m = answer{
		kind: netlink.HeaderType(binary.NativeEndian.Uint16(b[4:])), flags: netlink.HeaderFlags(binary.NativeEndian.Uint16(b[6:])),
		seq: binary.NativeEndian.Uint32(b[8:]), data: b[header:n:n],
	}
	return m, b[min(int(n+3)&^3, len(b)):], nil
}

// failureOf reads the error number that ends an answer, or 0.
func failureOf(b []byte) error {
	if len(b) < 4 {
		return nil
	}
	if n := int32(binary.NativeEndian.Uint32(b)); n != 0 {
		return unix.Errno(-n)
	}
	return nil
}

// attributes calls f with the attributes of a message after its nfgenmsg, until it returns
// false or they end. Where they cannot be read, they end.
func attributes(m []byte, f func(t uint16, v []byte) bool) {
	if len(m) < 4 {
		return
	}
	for b := m[4:]; len(b) >= 4; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) || !f(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[4:n]) {
			return
		}
		b = b[min((n+3)&^3, len(b)):]
	}
}
