package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// minMTU is what every link of IPv6 carries (RFC 8200 §5).
const minMTU = 1280

// Sizes of headers.
const (
	sizeIPv6 = 40
	sizeICMP = 8
	sizeFrag = 8
)

// Kinds of ICMPv6.
const (
	icmp6TooBig    = 2
	icmp6Echo      = 128
	icmp6EchoReply = 129
)

// pathTries is how often a large packet is sent before it is taken for lost, when little
// is lost of small ones.
const pathTries = 4

// came is what came back for an echo.
type came struct {
	whole, part bool // a reply in one packet; in fragments
	packet      []byte
	hop         netip.Addr // somebody on the way said Packet Too Big
	mtu         int
}

// path finds out whether large packets get to the address and back, and whether the other
// side listens when it is told that they do not. The telling is ours: a Packet Too Big
// from the address that the large packet was sent to is as good as a router's (RFC 8201
// §4), and it makes the target send us small packets for ten minutes, and nobody else.
func (p *Prober) path(ctx context.Context) error {
	if p.o.Addr.Is4() {
		return nil
	}
	m := &model.Path{Verdict: model.PathUnknown}
	p.Found.Path = m
	defer func() {
		if m.Verdict == model.PathUnknown && m.Why == "" {
			m.Why = "the run was cut short"
		}
	}()
	if p.raw == nil {
		m.Why = "bare packets need root (CAP_NET_RAW)"
		return nil
	}
	if p.Found.Vantage.Self {
		m.Why = "the probes do not leave this host"
		return nil
	}
	i, err := net.InterfaceByIndex(p.index)
	if err != nil || i.MTU < minMTU {
		m.Why = "the interface has no MTU for IPv6"
		return nil
	}
	m.LinkMTU = i.MTU
	e := &echoes{p: p, f: p.flows[protoICMPv6]}
	p.raw.use(e.f)
	size := min(i.MTU, 65535)
	if got, err := e.ask(ctx, sizeIPv6+sizeICMP+16, false); err != nil {
		return err
	} else if !got.whole {
		m.Why = "it does not answer an echo"
		return nil
	}
	var got came
	for range 8 { // each hop may have a smaller link than the one before
		if got, err = e.ask(ctx, size, false); err != nil {
			return err
		}
		if got.mtu == 0 || got.whole || got.part {
			break
		}
		m.Hop, m.HopMTU = got.hop, got.mtu
		size = min(size-1, max(minMTU, got.mtu))
	}
	if got.part { // the way back is narrower, and a router there was heard
		m.MTU, m.Verdict = size, model.PathHonoured
		return nil
	}
	if !got.whole {
		return e.hole(ctx, m, size)
	}
	m.MTU = size
	if size < minMTU+2*sizeFrag {
		m.Why = "the path carries no packet that could be too big"
		return nil
	}
	// It may be busy, or the telling lost: it is told each time.
	silent := 0
	for range pathTries {
		errno := unix.Errno(0)
		if err := e.tell(ctx, got.packet, minMTU); errors.As(err, &errno) {
			m.Why = "this host does not send Packet Too Big (its own rules?): " + errno.Error()
			return nil
		} else if err != nil {
			return err
		}
		again, err := e.ask(ctx, size, false)
		switch {
		case err != nil:
			return err
		case again.part:
			m.Verdict = model.PathHonoured
			return nil
		case again.whole:
			got = again
		default:
			silent++
		}
	}
	if silent == pathTries {
		m.Why = "after Packet Too Big, nothing was heard of large packets any more"
		return nil
	}
	m.Verdict = model.PathIgnored
	return nil
}

// hole looks for the size above which packets are lost, and on which way.
func (e *echoes) hole(ctx context.Context, m *model.Path, size int) error {
	low, high := minMTU, size // the low is answered, the high is not
	got, err := e.ask(ctx, low, false)
	if err != nil {
		return err
	}
	if !got.whole && !got.part {
		m.Why = "it answers small echoes only"
		return nil
	}
	for high-low > 4 {
		mid := (low + high) / 2
		if got, err = e.ask(ctx, mid, false); err != nil {
			return err
		}
		if got.whole || got.part {
			low = mid
		} else {
			high = mid
		}
	}
	m.MTU, m.Verdict = low, model.PathHole
	// The question in small fragments, the answer as large as before.
	if got, err = e.ask(ctx, size, true); err != nil {
		return err
	}
	switch {
	case got.whole, got.part:
		m.Way = "there"
	default:
		// Back, unless it is fragments that do not get there.
		if got, err = e.ask(ctx, low, true); err != nil {
			return err
		}
		if got.whole || got.part {
			m.Way = "back"
		}
	}
	return nil
}

// echoes asks for echoes of one address.
type echoes struct {
	p *Prober
	f *flow
	n uint8
}

// ask sends an echo of that many bytes, headers and all, until there is an answer.
func (e *echoes) ask(ctx context.Context, size int, fragments bool) (came, error) {
	var got came
	for range pathTries {
		e.n++
		k := key{uint16(size), e.n}
		seg := make([]byte, size-sizeIPv6)
		seg[0] = icmp6Echo
		binary.BigEndian.PutUint16(seg[4:], e.f.sports[0])
		binary.BigEndian.PutUint16(seg[6:], uint16(e.n))
		binary.BigEndian.PutUint64(seg[8:], e.f.token(k))
		e.f.sum(seg, 2)
		packets := [][]byte{e.f.header6(protoICMPv6, nil, 0, seg)}
		if fragments {
			packets = e.cut(seg)
		}
		for _, b := range packets {
			errno := unix.Errno(0)
			if err := e.send(ctx, b); errors.As(err, &errno) {
				return came{}, nil // this host's own rules refuse it, or its interface has changed
			} else if err != nil {
				return came{}, err
			}
		}
		for end := time.Now().Add(e.p.loss.timeout()); time.Now().Before(end); {
			if ctx.Err() != nil {
				return came{}, context.Cause(ctx)
			}
			if err := wait(e.p.raw.in, 10*time.Millisecond); err != nil {
				return came{}, err
			}
			if err := e.read(k, &got); err != nil {
				return came{}, err
			}
			if got.whole || got.part || got.mtu > 0 && got.mtu < size {
				return got, nil
			}
		}
	}
	return got, nil
}

// send sends one packet at the rate of all.
func (e *echoes) send(ctx context.Context, b []byte) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(e.p.lim.take(time.Now(), 1)):
	}
	e.p.sent++
	e.p.Found.Sent = e.p.sent
	_, err := unix.Write(e.p.raw.out, b)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) {
		return nil // as good as lost
	}
	return err
}

// cut puts a segment into fragments that every link carries.
func (e *echoes) cut(seg []byte) (out [][]byte) {
	const most = (minMTU - sizeIPv6 - sizeFrag) &^ 7
	e.p.raw.id++
	for at := 0; at < len(seg); at += most {
		part := seg[at:min(len(seg), at+most)]
		h := make([]byte, sizeFrag)
		off := uint16(at)
		if at+most < len(seg) {
			off |= 1
		}
		binary.BigEndian.PutUint16(h[2:], off)
		binary.BigEndian.PutUint32(h[4:], e.p.raw.id)
		out = append(out, e.f.header6(hdrFragment, h, protoICMPv6, part))
	}
	return out
}

// tell sends Packet Too Big about a packet of the target.
func (e *echoes) tell(ctx context.Context, about []byte, mtu uint32) error {
	about = about[:min(len(about), minMTU-sizeIPv6-sizeICMP)]
	seg := make([]byte, sizeICMP, sizeICMP+len(about))
	seg[0] = icmp6TooBig
	binary.BigEndian.PutUint32(seg[4:], mtu)
	seg = append(seg, about...)
	e.f.sum(seg, 2)
	return e.send(ctx, e.f.header6(protoICMPv6, nil, 0, seg))
}

// read takes everything that has come.
func (e *echoes) read(k key, got *came) error {
	r := e.p.raw
	for {
		n, err := unix.Read(r.in, r.buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN):
			continue
		case err != nil:
			return err
		}
		e.heard(r.buf[:n], k, got)
	}
}

// heard judges one packet. Only one that brings our token back says anything.
func (e *echoes) heard(b []byte, k key, got *came) {
	if len(b) < sizeIPv6+sizeICMP || b[0]>>4 != 6 {
		return
	}
	from, _ := netip.AddrFromSlice(b[8:24])
	next, body := b[6], b[sizeIPv6:]
	target := from == e.f.dst.WithZone("")
	mine := func(icmp []byte, typ byte) bool {
		return len(icmp) >= sizeICMP+8 && icmp[0] == typ && binary.BigEndian.Uint16(icmp[4:]) == e.f.sports[0] && binary.BigEndian.Uint64(icmp[8:]) == e.f.token(k)
	}
	switch {
	case next == protoICMPv6 && target && mine(body, icmp6EchoReply):
		got.whole, got.packet = true, append([]byte(nil), b...)
	case next == hdrFragment && target && len(body) > sizeFrag && body[0] == protoICMPv6 && binary.BigEndian.Uint16(body[2:]) == 1 && mine(body[sizeFrag:], icmp6EchoReply):
		got.part = true // the first, and more follow
	case next == protoICMPv6 && body[0] == icmp6TooBig && len(body) > sizeICMP+sizeIPv6:
		q := body[sizeICMP:]
		src, _ := netip.AddrFromSlice(q[8:24])
		dst, _ := netip.AddrFromSlice(q[24:40])
		if src == e.f.src.WithZone("") && dst == e.f.dst.WithZone("") && q[6] == protoICMPv6 && mine(q[sizeIPv6:], icmp6Echo) {
			got.hop, got.mtu = from, int(min(binary.BigEndian.Uint32(body[4:]), 65535))
		}
	}
}
