package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// minMTU is what every link of IPv6 carries (RFC 8200 §5), minMTU4 what every host of IPv4
// puts together (RFC 791).
const (
	minMTU  = 1280
	minMTU4 = 576
)

// Sizes of headers.
const (
	sizeIPv4 = 20
	sizeIPv6 = 40
	sizeICMP = 8
	sizeFrag = 8
)

// Kinds of ICMP and ICMPv6.
const (
	icmp6TooBig    = 2
	icmp6Echo      = 128
	icmp6EchoReply = 129
	icmpEchoReply  = 0
	icmpUnreach    = 3
	icmpTooBig     = 4 // a code of icmpUnreach
	icmpEcho       = 8
)

// told are the sizes that a target of IPv4 is told, of which no link is and whose fragments
// have just that size: who sends such fragments still heeds what it was told in an earlier
// run. Routers cut the answers of IPv4, and a first fragment of any other size is theirs.
var told = []int{1284, 588}

// came is what came back for an echo.
type came struct {
	whole, part bool // a reply in one packet; in fragments
	first       int  // size of the first fragment
	packet      []byte
	hop         netip.Addr // somebody on the way said that it is too big
	mtu         int
	left        bool // the question was seen leaving this host
}

func (c *came) answered() bool { return c.whole || c.part }

// errNotSent says that this host itself does not let a packet out.
type errNotSent struct{ errno unix.Errno }

func (e errNotSent) Error() string {
	return "this host does not send it (its own rules?): " + e.errno.Error()
}

// path finds out whether large packets get to the address and back, and whether the other
// side listens when it is told that they do not. The telling is ours: a Packet Too Big (IPv4:
// Fragmentation Needed) from the address that the large packet was sent to is as good as a
// router's (RFC 8201 §4), and it makes the target send us small packets for ten minutes, and
// nobody else.
func (p *Prober) path(ctx context.Context) error {
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
	e := &echoes{p: p, f: p.flows[p.icmp()], tries: p.loss.pathTries()}
	i, err := net.InterfaceByIndex(p.index)
	if err != nil || i.MTU < e.least() {
		m.Why = "the interface has no MTU for " + map[bool]string{true: "IPv4", false: "IPv6"}[e.f.is4()]
		return nil
	}
	m.LinkMTU = i.MTU
	p.raw.use(e.f)
	err = e.path(ctx, m)
	refused := errNotSent{}
	if errors.As(err, &refused) {
		*m = model.Path{Verdict: model.PathUnknown, LinkMTU: m.LinkMTU, Why: refused.Error()}
		return nil
	}
	return err
}

// path fills m.
func (e *echoes) path(ctx context.Context, m *model.Path) error {
	size := min(m.LinkMTU, 65535)
	got, err := e.ask(ctx, e.ip()+sizeICMP+16, false)
	if err != nil {
		return err
	}
	if !got.answered() {
		m.Why = "it does not answer an echo"
		return nil
	}
	for range 8 { // each hop may have a smaller link than the one before
		if got, err = e.ask(ctx, size, false); err != nil {
			return err
		}
		if got.mtu == 0 || got.answered() {
			break
		}
		m.Hop, m.HopMTU = got.hop, got.mtu
		size = min(size-1, max(e.least(), got.mtu))
	}
	if !got.answered() {
		return e.hole(ctx, m, size, got)
	}
	m.MTU = size
	if got.part && (!e.f.is4() || got.first == told[0] || got.first == told[1]) {
		m.Verdict = model.PathHonoured // a router told it, or we did not long ago
		return nil
	}
	for got.part { // IPv4: a router on the way back cuts. The next is asked for no more than it carries.
		if size, got, err = e.smaller(ctx, size, got.first); err != nil {
			return err
		}
		if !got.answered() {
			m.Why = "answers come in fragments, and smaller ones do not come"
			return nil
		}
	}
	return e.listens(ctx, m, size, got)
}

// smaller asks for an answer that no router cuts.
func (e *echoes) smaller(ctx context.Context, size, first int) (int, came, error) {
	size = min(size-1, max(first, e.least()))
	got, err := e.ask(ctx, size, false)
	return size, got, err
}

// listens tells the target that a large answer was too big.
func (e *echoes) listens(ctx context.Context, m *model.Path, size int, got came) error {
	tell := minMTU
	if e.f.is4() {
		tell = told[0]
		if size < tell+2*sizeFrag {
			tell = told[1]
		}
	}
	if size < tell+2*sizeFrag {
		m.Why = "the path carries no packet that could be too big"
		return nil
	}
	// It may be busy, or the telling lost: it is told each time.
	silent := 0
	for range e.tries {
		errno := unix.Errno(0)
		if err := e.tell(ctx, got.packet, tell); errors.As(err, &errno) {
			m.Why = "this host does not send " + e.tooBig() + " (its own rules?): " + errno.Error()
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
	if silent == e.tries {
		m.Why = "after " + e.tooBig() + ", large answers no longer come: it listens, and its fragments are lost on the way, or something else is"
		return nil
	}
	m.Verdict = model.PathIgnored
	return nil
}

// hole looks for the size above which packets are lost, and on which way.
func (e *echoes) hole(ctx context.Context, m *model.Path, size int, large came) error {
	low, high := e.least(), size // the low is answered, the high is not
	got, err := e.ask(ctx, low, false)
	if err != nil {
		return err
	}
	if !got.answered() {
		m.Why = "it answers small echoes only"
		return nil
	}
	if !large.left {
		m.Why = "packets of that size do not leave this host (its own rules?)"
		return nil
	}
	for high-low > 4 {
		mid := (low + high) / 2
		if got, err = e.ask(ctx, mid, false); err != nil {
			return err
		}
		if got.answered() {
			low = mid
		} else {
			high = mid
		}
	}
	m.MTU, m.Verdict = low, model.PathHole
	// The question in small fragments, the answer as large as before.
	if got, err = e.ask(ctx, size, true); err != nil {
		return ignoreOwn(err)
	}
	switch {
	case got.answered():
		m.Way = "there"
	default:
		// Back, unless it is fragments that do not get there.
		if got, err = e.ask(ctx, low, true); err != nil {
			return ignoreOwn(err)
		}
		if got.answered() {
			m.Way = "back"
		}
	}
	return nil
}

// ignoreOwn forgets that this host does not send fragments: then the way is not known.
func ignoreOwn(err error) error {
	if errors.As(err, &errNotSent{}) {
		return nil
	}
	return err
}

// pathTries is how often a packet is sent before it is taken for lost.
func (l *loss) pathTries() int {
	return min(max(4, int(math.Ceil(math.Log(maxWrong)/math.Log(l.rate())))), 16)
}

// echoes asks for echoes of one address.
type echoes struct {
	p     *Prober
	f     *flow
	tries int
	n     uint8
	sent  []byte // the segment on its way
}

func (e *echoes) least() int {
	if e.f.is4() {
		return minMTU4
	}
	return minMTU
}

func (e *echoes) ip() int {
	if e.f.is4() {
		return sizeIPv4
	}
	return sizeIPv6
}

func (e *echoes) tooBig() string {
	if e.f.is4() {
		return "Fragmentation Needed"
	}
	return "Packet Too Big"
}

// ask sends an echo of that many bytes, headers and all, until there is an answer.
func (e *echoes) ask(ctx context.Context, size int, fragments bool) (came, error) {
	var got came
	e.p.raw.leaving(func(int) {})
	for range e.tries {
		e.n++
		k := key{uint16(size), e.n}
		seg := make([]byte, size-e.ip())
		seg[0] = icmp6Echo
		if e.f.is4() {
			seg[0] = icmpEcho
		}
		binary.BigEndian.PutUint16(seg[4:], e.f.sports[0])
		binary.BigEndian.PutUint16(seg[6:], uint16(e.n))
		binary.BigEndian.PutUint64(seg[8:], e.f.token(k))
		e.f.sum(seg, 2)
		e.sent = seg
		for _, b := range e.packets(seg, fragments) {
			errno := unix.Errno(0)
			if err := e.send(ctx, b); errors.As(err, &errno) {
				return came{}, errNotSent{errno}
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
			if got.answered() || got.mtu > 0 && got.mtu < size {
				return got, nil
			}
		}
		e.p.raw.leaving(func(n int) { got.left = got.left || n == size || fragments })
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

// packets puts a segment into one packet that nobody may cut, or into fragments that every
// link carries.
func (e *echoes) packets(seg []byte, fragments bool) (out [][]byte) {
	e.p.raw.id++
	id := e.p.raw.id
	if !fragments {
		if e.f.is4() {
			return [][]byte{e.f.header4(nil, seg, dontFragment, uint16(id))}
		}
		return [][]byte{e.f.header6(protoICMPv6, nil, 0, seg)}
	}
	most := (e.least() - e.ip() - sizeFrag) &^ 7
	for at := 0; at < len(seg); at += most {
		part := seg[at:min(len(seg), at+most)]
		if e.f.is4() {
			off := uint16(at / 8)
			if at+most < len(seg) {
				off |= moreFragments
			}
			out = append(out, e.f.header4(nil, part, off, uint16(id)))
			continue
		}
		h := make([]byte, sizeFrag)
		off := uint16(at)
		if at+most < len(seg) {
			off |= 1
		}
		binary.BigEndian.PutUint16(h[2:], off)
		binary.BigEndian.PutUint32(h[4:], id)
		out = append(out, e.f.header6(hdrFragment, h, protoICMPv6, part))
	}
	return out
}

// tell says that a packet of the target was too big.
func (e *echoes) tell(ctx context.Context, about []byte, mtu int) error {
	about = about[:min(len(about), e.least()-e.ip()-sizeICMP)]
	seg := make([]byte, sizeICMP, sizeICMP+len(about))
	if e.f.is4() {
		seg[0], seg[1] = icmpUnreach, icmpTooBig
		binary.BigEndian.PutUint16(seg[6:], uint16(mtu))
	} else {
		seg[0] = icmp6TooBig
		binary.BigEndian.PutUint32(seg[4:], uint32(mtu))
	}
	seg = append(seg, about...)
	e.f.sum(seg, 2)
	e.p.raw.id++
	if e.f.is4() {
		return e.send(ctx, e.f.header4(nil, seg, 0, uint16(e.p.raw.id)))
	}
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
	switch {
	case len(b) == 0:
	case e.f.is4():
		e.heard4(b, k, got)
	default:
		e.heard6(b, k, got)
	}
}

// mine tells whether a message is our echo, or the answer to it.
func (e *echoes) mine(icmp []byte, typ byte, k key) bool {
	return len(icmp) >= sizeICMP+8 && icmp[0] == typ && binary.BigEndian.Uint16(icmp[4:]) == e.f.sports[0] && binary.BigEndian.Uint64(icmp[8:]) == e.f.token(k)
}

func (e *echoes) heard4(b []byte, k key, got *came) {
	body, proto, from, to, ok := header4(b)
	if !ok || proto != protoICMP || to != e.f.src || len(body) < sizeICMP {
		return
	}
	more := binary.BigEndian.Uint16(b[6:])&moreFragments != 0
	switch {
	case from == e.f.dst && e.mine(body, icmpEchoReply, k) && !more:
		got.whole, got.packet = true, bytes.Clone(b)
	case from == e.f.dst && e.mine(body, icmpEchoReply, k):
		got.part, got.first = true, int(binary.BigEndian.Uint16(b[2:]))
	case body[0] == icmpUnreach && body[1] == icmpTooBig && !more:
		// A router may quote no more than eight bytes (RFC 792); the checksum is of the token.
		q, proto, src, dst, ok := header4(body[sizeICMP:])
		if !ok || src != e.f.src || dst != e.f.dst || proto != protoICMP || len(q) < 8 || !bytes.Equal(q[:8], e.sent[:8]) {
			return
		}
		got.hop, got.mtu = from, int(binary.BigEndian.Uint16(body[6:]))
		if got.mtu == 0 { // older than RFC 1191, whose table is meant (§7)
			got.mtu = plateau(len(e.sent) + sizeIPv4)
		}
	}
}

// plateau is the next smaller size of RFC 1191 §7.1.
func plateau(size int) int {
	for _, n := range []int{32000, 17914, 8166, 4352, 2002, 1492, 1006} {
		if n < size {
			return n
		}
	}
	return minMTU4
}

func (e *echoes) heard6(b []byte, k key, got *came) {
	if len(b) < sizeIPv6+sizeICMP || b[0]>>4 != 6 {
		return
	}
	from, _ := netip.AddrFromSlice(b[8:24])
	next, body := b[6], b[sizeIPv6:]
	target := from == e.f.dst.WithZone("")
	switch {
	case next == protoICMPv6 && target && e.mine(body, icmp6EchoReply, k):
		got.whole, got.packet = true, bytes.Clone(b)
	case next == hdrFragment && target && len(body) > sizeFrag && body[0] == protoICMPv6 && binary.BigEndian.Uint16(body[2:]) == 1 && e.mine(body[sizeFrag:], icmp6EchoReply, k):
		got.part, got.first = true, len(b) // the first, and more follow
	case next == protoICMPv6 && body[0] == icmp6TooBig && len(body) > sizeICMP+sizeIPv6:
		q := body[sizeICMP:]
		src, _ := netip.AddrFromSlice(q[8:24])
		dst, _ := netip.AddrFromSlice(q[24:40])
		if src == e.f.src.WithZone("") && dst == e.f.dst.WithZone("") && q[6] == protoICMPv6 && e.mine(q[sizeIPv6:], icmp6Echo, k) {
			got.hop, got.mtu = from, int(min(binary.BigEndian.Uint32(body[4:]), 65535))
		}
	}
}
