package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// raw sends through an IP socket, so that the kernel finds the way and the neighbour, and
// hears through a packet socket, which sees what comes in before the rules of this host
// can drop it. What this host's own rules refuse to send is an error of the send.
type raw struct {
	out, in int
	tap     int // sees what leaves; 0: not open
	flow    *flow
	id      uint32
	buf     []byte
	keep    []int // sockets that hold our source ports
}

func openRaw(dst, src netip.Addr, index int) (*raw, error) {
	r := &raw{out: -1, in: -1, buf: make([]byte, 65536)}
	var err error
	if r.out, err = unix.Socket(domain(dst), unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW); err != nil {
		return nil, fmt.Errorf("open raw socket: %w", err)
	}
	if err := unix.Connect(r.out, sockaddr(dst, 0, index)); err != nil {
		r.close()
		return nil, fmt.Errorf("connect raw socket to %s: %w", dst, err)
	}
	if dst.Is4() { // the kernel would put our fragments together where it tracks connections
		_ = unix.SetsockoptInt(r.out, unix.SOL_IP, unix.IP_NODEFRAG, 1)
	}
	_ = unix.SetsockoptInt(r.out, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20)
	if r.in, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		r.close()
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	if err := r.listen(dst, src); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// receiveBuffer is for bursts of answers: 65,535 resets, when nobody reads for a while.
const receiveBuffer = 64 << 20

func (r *raw) listen(dst, src netip.Addr) error {
	// Before it is bound, so that nothing else is ever queued.
	// To any address: rules of this host may send under another one, and packets are seen before
	// they get their own back. The cookie says which are ours.
	prog := filter(dst, netip.Addr{})
	if dst.WithZone("") != src.WithZone("") && !dst.IsLoopback() {
		prog = append(notFromHere(dst), prog...)
	}
	if err := unix.SetsockoptSockFprog(r.in, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	if unix.SetsockoptInt(r.in, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(r.in, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	proto := uint16(unix.ETH_P_IPV6)
	if dst.Is4() {
		proto = unix.ETH_P_IP
	}
	if err := unix.Bind(r.in, &unix.SockaddrLinklayer{Protocol: proto<<8 | proto>>8}); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

// notFromHere leaves out what comes by lo: a reset there is one of this host's own rules. The
// kernel's word that there is no neighbour comes that way, too, and is ICMP.
func notFromHere(dst netip.Addr) []unix.SockFilter {
	const (
		interfaceIndex = 0xfffff000 + 8 // SKF_AD_OFF + SKF_AD_IFINDEX
		lo             = 1
	)
	protoAt, icmp := uint32(9), uint32(protoICMP)
	if !dst.Is4() {
		protoAt, icmp = 6, protoICMPv6
	}
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: interfaceIndex},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: lo, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: protoAt},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: icmp, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K},
	}
}

// filter keeps packets to our source address, where one is given, that come from the target,
// or are ICMP.
func filter(dst, src netip.Addr) []unix.SockFilter {
	const (
		ldW  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		ldB  = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		jeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K
		snap = 2048
	)
	words := func(a netip.Addr) (out []uint32) {
		for b := a.WithZone("").AsSlice(); len(b) > 0; b = b[4:] {
			out = append(out, binary.BigEndian.Uint32(b))
		}
		return out
	}
	srcAt, dstAt, protoAt, icmp := uint32(12), uint32(16), uint32(9), uint32(protoICMP)
	if !dst.Is4() {
		srcAt, dstAt, protoAt, icmp = 8, 24, 6, protoICMPv6
	}
	var p []unix.SockFilter
	match := func(at uint32, a netip.Addr) (fails []int) {
		if !a.IsValid() {
			return nil
		}
		for i, w := range words(a) {
			p = append(p, unix.SockFilter{Code: ldW, K: at + uint32(4*i)}, unix.SockFilter{Code: jeq, K: w})
			fails = append(fails, len(p)-1)
		}
		return fails
	}
	drop := match(dstAt, src)
	other := match(srcAt, dst)
	p = append(p, unix.SockFilter{Code: ret, K: snap})
	for _, i := range other {
		p[i].Jf = uint8(len(p) - i - 1)
	}
	p = append(p, unix.SockFilter{Code: ldB, K: protoAt}, unix.SockFilter{Code: jeq, K: icmp, Jf: 1}, unix.SockFilter{Code: ret, K: snap})
	for _, i := range drop {
		p[i].Jf = uint8(len(p) - i - 1)
	}
	return append(p, unix.SockFilter{Code: ret, K: 0})
}

// use sets the flow whose probes are sent from now on.
func (r *raw) use(f *flow) { r.flow = f }

// reserve takes source ports that nobody else on this host uses while we do. The sockets
// only hold them: to what comes back for a TCP one, the kernel answers with a reset.
func (r *raw) reserve(f *flow, index int) error {
	typ := unix.SOCK_STREAM
	switch f.proto {
	case protoUDP:
		typ = unix.SOCK_DGRAM // what comes back piles up unread: no port unreachable is sent
	case protoICMP, protoICMPv6:
		base := uint16(f.secret.of(f.dst, 0, 0, key{}))
		if f.chained {
			base += 1 << 15 // other ones
		}
		base &^= tries - 1
		for i := range f.sports {
			f.sports[i] = max(1, base+uint16(i))
		}
		return nil
	}
	for i := range f.sports {
		fd, err := unix.Socket(domain(f.dst), typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open socket: %w", err)
		}
		r.keep = append(r.keep, fd)
		if typ == unix.SOCK_DGRAM {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
		}
		// The kernel takes them all even, or all odd; a rule or a path may tell those apart.
		if other := f.sports[max(0, i-1)] ^ 1; i%2 == 1 && unix.Bind(fd, sockaddr(f.src, other, index)) == nil {
			f.sports[i] = other
		} else if f.sports[i], err = bindAny(fd, f.src, index); err != nil {
			return err
		}
	}
	return nil
}

func bindAny(fd int, src netip.Addr, index int) (uint16, error) {
	if err := unix.Bind(fd, sockaddr(src, 0, index)); err != nil {
		return 0, fmt.Errorf("reserve a source port on %s: %w", src, err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("reserve a source port on %s: %w", src, err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port), nil
	case *unix.SockaddrInet6:
		return uint16(sa.Port), nil
	}
	return 0, errors.New("reserve a source port: what is this?")
}

func (r *raw) send(k key) error { return r.write(r.flow.segment(k)) }

func (r *raw) write(seg []byte) error {
	r.id++
	for _, p := range r.flow.packets(seg, r.id) {
		for n := 0; ; n++ {
			_, err := unix.Write(r.out, p)
			// EINVAL is what IPv6 says when the table of neighbours is full, of all namespaces.
			if (err == unix.ENOBUFS || err == unix.EAGAIN || err == unix.EINVAL) && n < 2000 {
				time.Sleep(500 * time.Microsecond)
				continue
			}
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// receive waits for at most d, and hands over everything that has come.
func (r *raw) receive(d time.Duration, f func(answer)) error {
	if d > 0 {
		if err := wait(r.in, d); err != nil {
			return err
		}
	}
	for {
		n, err := unix.Read(r.in, r.buf)
		switch err {
		case nil:
		case unix.EAGAIN:
			return nil
		case unix.EINTR, unix.ENETDOWN: // some interface went down
			continue
		default:
			return fmt.Errorf("read packet socket: %w", err)
		}
		a := r.flow.parse(r.buf[:n])
		if a.kind == noAnswer {
			continue
		}
		if a.cleanup {
			_ = r.write(r.flow.reset(a.key))
		}
		f(a)
	}
}

// overruns is how many packets the kernel dropped because nobody read them, since the
// last call.
func (r *raw) overruns() int {
	s, err := unix.GetsockoptTpacketStats(r.in, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0
	}
	return int(s.Drops)
}

// watch looks at what really leaves for the target: what this host drops behind its rules for
// sent packets (by tc, or in a netdev chain) is no error of the send.
func (r *raw) watch(dst, src netip.Addr) (err error) {
	if r.tap, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		r.tap = 0
		return fmt.Errorf("open packet socket: %w", err)
	}
	const packetType = 0xfffff000 + 4 // SKF_AD_OFF + SKF_AD_PKTTYPE
	prog := filter(src, dst)          // the other way round
	prog = append([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: packetType},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.PACKET_OUTGOING, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K},
	}, prog...)
	if err := unix.SetsockoptSockFprog(r.tap, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	if unix.SetsockoptInt(r.tap, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer/4) != nil {
		_ = unix.SetsockoptInt(r.tap, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer/4)
	}
	// What leaves is shown to those only who look at all protocols.
	if err := unix.Bind(r.tap, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8}); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

// each hands over the packets that have left since the last call.
func (r *raw) each(f func(b []byte)) {
	for {
		n, err := unix.Read(r.tap, r.buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return
		case n >= 20 && r.buf[0]>>4 == 4 || n >= 40:
			f(r.buf[:n])
		}
	}
}

// leaving hands over their sizes.
func (r *raw) leaving(f func(size int)) {
	r.each(func(b []byte) {
		if b[0]>>4 == 4 {
			f(int(binary.BigEndian.Uint16(b[2:])))
		} else {
			f(40 + int(binary.BigEndian.Uint16(b[4:])))
		}
	})
}

func (r *raw) patience(time.Duration) {}

func (r *raw) close() {
	for _, fd := range append(r.keep, r.out, r.in) {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if r.tap > 0 {
		unix.Close(r.tap)
	}
}

// wait waits for a descriptor to become readable.
func wait(fd int, d time.Duration) error {
	ts := unix.NsecToTimespec(int64(d))
	_, err := unix.Ppoll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, &ts, nil)
	if err != nil && err != unix.EINTR {
		return fmt.Errorf("wait for packets: %w", err)
	}
	return nil
}
