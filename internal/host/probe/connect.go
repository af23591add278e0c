package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// connects is the TCP transport that needs no privilege: one connection a probe. The
// kernel tells apart what a connect(2) does not: ICMP errors are read, with their sender,
// from the error queue (Linux 5.8).
type connects struct {
	flow  *flow
	index int
	ep    int
	open  map[int32]*conn
	queue []*conn // in the order of their start
	life  time.Duration
	share *sockets
	own   *own
	kept  int // what own.read said last
}

type conn struct {
	key
	fd    int32
	start time.Time
	done  bool
	own   bool // rules of this host seem to keep it here
}

func newConnects(f *flow, index int, own *own) (*connects, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open epoll: %w", err)
	}
	c := &connects{flow: f, index: index, ep: ep, open: map[int32]*conn{}, life: time.Second, share: allSockets(), own: own}
	c.kept, _, _ = own.read()
	return c, nil
}

func (c *connects) patience(d time.Duration) { c.life = d }
func (c *connects) overruns() int            { return 0 }

// expire gives up on what has waited long enough.
func (c *connects) expire() {
	for len(c.queue) > 0 && (c.queue[0].done || time.Since(c.queue[0].start) > c.life) {
		c.finish(c.queue[0])
		c.queue = c.queue[1:]
	}
}

func (c *connects) finish(x *conn) {
	if !x.done {
		x.done = true
		delete(c.open, x.fd)
		// A process that is being started may still hold the socket, and then closing it
		// alone ends no watch: its events would be taken for those of the next with its number.
		_ = unix.EpollCtl(c.ep, unix.EPOLL_CTL_DEL, int(x.fd), nil)
		unix.Close(int(x.fd))
		c.share.give()
	}
}

func (c *connects) send(k key) (err error) {
	if !c.share.take(len(c.open)) {
		return errFull
	}
	started := false
	defer func() {
		if !started {
			c.share.give()
		}
	}()
	fd, err := unix.Socket(domain(c.flow.dst), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	switch err {
	case nil:
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM: // others have them
		return errFull
	default:
		return fmt.Errorf("open socket: %w", err)
	}
	// Closed by a reset: nothing of ours stays in TIME_WAIT, here or there.
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	wantErrors(fd, c.flow.is4())
	x := &conn{key: k, fd: int32(fd), start: time.Now()}
	switch err := unix.Connect(fd, sockaddr(c.flow.dst, k.port, c.index)); err {
	case nil, unix.EINPROGRESS:
	case unix.ECONNREFUSED: // loopback answers at once
	default:
		unix.Close(fd)
		return err
	}
	if err := unix.EpollCtl(c.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(fd)}); err != nil {
		unix.Close(fd)
		return fmt.Errorf("watch socket: %w", err)
	}
	c.open[x.fd] = x
	c.queue = append(c.queue, x)
	started = true
	kept, _, ok := c.own.read()
	if ok && kept > c.kept && c.own.kept(func() { c.once(k) }) {
		x.own = true
	}
	c.kept = kept
	if x.own {
		return unix.EPERM
	}
	return nil
}

// once sends one packet of a connection and forgets it.
func (c *connects) once(k key) {
	fd, err := unix.Socket(domain(c.flow.dst), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Connect(fd, sockaddr(c.flow.dst, k.port, c.index))
}

func (c *connects) receive(d time.Duration, f func(answer)) error {
	c.expire()
	return drainEpoll(c.ep, d, func(fd int32) {
		x := c.open[fd]
		if x == nil {
			return
		}
		a := answer{key: x.key, from: c.flow.dst.WithZone("")}
		e, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		q, quoted := readError(int(fd), make([]byte, 2048))
		switch {
		case err != nil:
		case quoted && q.icmp:
			a.kind, a.icmp, a.code, a.from = icmpError, q.typ, q.code, q.from
		case e == 0:
			if _, err := unix.Getpeername(int(fd)); err != nil {
				return // it still waits
			}
			a.kind = synAck
		case unix.Errno(e) == unix.ECONNREFUSED:
			a.kind = reset
		case unix.Errno(e) == unix.ECONNRESET: // there was a connection, and then a reset
			a.kind = synAck
		}
		c.finish(x)
		switch {
		case x.own && a.kind == synAck: // the counters count something else
			c.own = nil
		case x.own: // rules of this host said so
			return
		}
		if a.kind != noAnswer {
			f(a)
		}
	})
}

func (c *connects) close() {
	for _, x := range c.queue {
		c.finish(x)
	}
	unix.Close(c.ep)
}

// drainEpoll waits for at most d, and then handles everything that is ready.
func drainEpoll(ep int, d time.Duration, f func(fd int32)) error {
	if d > 0 {
		if err := wait(ep, d); err != nil {
			return err
		}
	}
	var events [128]unix.EpollEvent
	for range 64 {
		n, err := unix.EpollWait(ep, events[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for answers: %w", err)
		}
		for _, e := range events[:n] {
			f(e.Fd)
		}
		if n < len(events) {
			break
		}
	}
	return nil
}

// datagrams is the transport for UDP, and for echoes where ping_group_range allows them.
type datagrams struct {
	flow  *flow
	index int
	ep    int
	fds   []int // one a try; of ICMP one
	buf   []byte
	own   *own
}

func newDatagrams(f *flow, index int, own *own) (*datagrams, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open epoll: %w", err)
	}
	d := &datagrams{flow: f, index: index, ep: ep, own: own, buf: make([]byte, 65536)}
	proto, n := 0, tries
	if f.proto != protoUDP {
		proto, n = int(f.proto), 1
	}
	for i := range n {
		fd, err := unix.Socket(domain(f.dst), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
		if err != nil {
			d.close()
			return nil, fmt.Errorf("open socket: %w", err)
		}
		d.fds = append(d.fds, fd)
		wantErrors(fd, f.is4())
		port, err := bindAny(fd, f.src, index)
		if err == nil {
			err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
		}
		if err != nil {
			d.close()
			return nil, err
		}
		f.sports[i] = port
	}
	return d, nil
}

func (d *datagrams) patience(time.Duration) {}
func (d *datagrams) overruns() int          { return 0 }

// what is the payload of a probe as the kernel takes it.
func (d *datagrams) what(k key) []byte {
	if d.flow.proto == protoUDP {
		return payload(k.port, d.flow.token(k))
	}
	b := make([]byte, 16)
	b[0] = uint8(k.port)
	binary.BigEndian.PutUint16(b[6:], uint16(k.try))
	binary.BigEndian.PutUint64(b[8:], d.flow.token(k))
	return b
}

func (d *datagrams) send(k key) error {
	before, _, ok := d.own.read()
	if err := d.write(k); err != nil || d.flow.proto != protoICMPv6 || !ok {
		return err
	}
	// Of echoes alone the kernel does not say what it dropped.
	if after, _, _ := d.own.read(); after > before && d.own.kept(func() { _ = d.write(k) }) {
		return unix.EPERM
	}
	return nil
}

func (d *datagrams) write(k key) error {
	fd := d.fds[int(k.try)%len(d.fds)]
	to := uint16(0)
	if d.flow.proto == protoUDP {
		to = k.port
	}
	var err error
	for n := range 1000 {
		err = unix.Sendto(fd, d.what(k), 0, sockaddr(d.flow.dst, to, d.index))
		switch {
		case err == nil:
			return nil
		case err == unix.ENOBUFS, err == unix.EAGAIN:
			time.Sleep(500 * time.Microsecond)
			continue
		case n < 8:
			// Perhaps an error of an earlier probe, which is in the error queue as well: every
			// ICMP error is another one here.
			_, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			continue
		}
		break
	}
	return err
}

func (d *datagrams) receive(wait time.Duration, f func(answer)) error {
	return drainEpoll(d.ep, wait, func(fd int32) {
		try := uint8(0)
		for i, x := range d.fds {
			if int32(x) == fd {
				try = uint8(i)
			}
		}
		for {
			q, ok := readError(int(fd), d.buf)
			if !ok {
				break
			}
			if a := d.refused(q, try); a.kind != noAnswer {
				f(a)
			}
		}
		for {
			n, sa, err := unix.Recvfrom(int(fd), d.buf, 0)
			if err != nil {
				break
			}
			if a := d.read(d.buf[:n], sa, try); a.kind != noAnswer {
				f(a)
			}
		}
	})
}

// refused holds an error against the probe that it quotes: the kernel has compared the
// addresses and our port, the rest is ours.
func (d *datagrams) refused(q queued, try uint8) answer {
	if !q.icmp || q.tooBig() || q.dst.Addr().WithZone("") != d.flow.dst.WithZone("") {
		return answer{}
	}
	k := key{q.dst.Port(), try}
	data := q.data
	if d.flow.proto != protoUDP {
		if len(data) < 8 {
			return answer{}
		}
		k = key{uint16(data[0]), data[7]}
		data = data[8:]
	}
	want := d.what(k)
	if d.flow.proto != protoUDP {
		want = want[8:]
	}
	if n := min(len(want), len(data)); k.try >= tries || !bytes.Equal(want[:n], data[:n]) {
		return answer{}
	}
	return answer{key: k, kind: icmpError, icmp: q.typ, code: q.code, from: q.from}
}

func (d *datagrams) read(b []byte, sa unix.Sockaddr, try uint8) answer {
	from := addrPort(sa)
	if from.Addr().WithZone("") != d.flow.dst.WithZone("") {
		return answer{}
	}
	a := answer{from: from.Addr().WithZone("")}
	if d.flow.proto == protoUDP {
		a = d.flow.said(key{from.Port(), try}, b)
		a.from = from.Addr().WithZone("")
		return a
	}
	if len(b) < 16 {
		return answer{}
	}
	asked, ok := askedBy(d.flow.proto, b[0])
	a.key = key{uint16(asked), b[7]}
	if ok && b[7] < tries && binary.BigEndian.Uint64(b[8:]) == d.flow.token(a.key) {
		a.kind = replied
	}
	return a
}

func (d *datagrams) close() {
	for _, fd := range append(d.fds, d.ep) {
		unix.Close(fd)
	}
}

// queued is an entry of a socket's error queue.
type queued struct {
	icmp      bool
	typ, code uint8
	from      netip.Addr
	dst       netip.AddrPort
	data      []byte
}

// tooBig tells that a smaller packet would get through: that refuses nothing.
func (q *queued) tooBig() bool {
	return q.from.Is4() && q.typ == 3 && q.code == 4 || q.from.Is6() && q.typ == 2
}

func wantErrors(fd int, is4 bool) {
	level, opt := unix.SOL_IPV6, unix.IPV6_RECVERR
	if is4 {
		level, opt = unix.SOL_IP, unix.IP_RECVERR
	}
	_ = unix.SetsockoptInt(fd, level, opt, 1)
}

func readError(fd int, buf []byte) (queued, bool) {
	oob := make([]byte, 256)
	n, oobn, _, from, err := unix.Recvmsg(fd, buf, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if err != nil {
		return queued{}, false
	}
	q := queued{data: buf[:n], dst: addrPort(from)}
	ms, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return q, true
	}
	for _, m := range ms {
		four := m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR
		six := m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if four || six {
			q.extended(m.Data)
		}
	}
	return q, true
}

// extended reads a struct sock_extended_err and the sender's address behind it.
func (q *queued) extended(b []byte) {
	if len(b) < 16 {
		return
	}
	q.icmp = b[4] == unix.SO_EE_ORIGIN_ICMP || b[4] == unix.SO_EE_ORIGIN_ICMP6
	q.typ, q.code = b[5], b[6]
	switch s := b[16:]; {
	case len(s) >= 8 && binary.NativeEndian.Uint16(s) == unix.AF_INET:
		q.from = netip.AddrFrom4([4]byte(s[4:8]))
	case len(s) >= 24 && binary.NativeEndian.Uint16(s) == unix.AF_INET6:
		q.from = netip.AddrFrom16([16]byte(s[8:24]))
	}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// transport is the way to send a protocol: with bare packets, or with what anybody may
// use. close ends it.
func (p *Prober) transport(proto uint8) (t transport, closed func(), err error) {
	if p.Raw() {
		f := *p.flows[proto]
		p.raw.use(&f)
		return p.raw, func() {}, nil
	}
	f := p.flows[proto]
	if proto == protoTCP {
		c, err := newConnects(f, p.index, p.own)
		if err != nil {
			return nil, nil, err
		}
		return c, c.close, nil
	}
	d, err := newDatagrams(f, p.index, p.own)
	if err != nil {
		return nil, nil, err
	}
	return d, d.close, nil
}

// forbidden tells that a socket is for others only.
func forbidden(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EPROTONOSUPPORT)
}
