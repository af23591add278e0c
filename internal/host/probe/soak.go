package probe

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/logic/ndisc"
	model "github.com/sixfence/sixfence/internal/model/probe"
)

// A Soaker is a neighbour that has never heard of an address, and asks for it now, again
// and again, and when whatever keeps the address findable had the time to expire.
//
// A switch that snoops sends a solicitation to those ports only from which somebody has
// reported the solicited-node group. A host whose rules drop MLD reports nothing any more:
// a membership interval later nobody who does not know it finds it, while those who do
// solicit its MAC address and notice nothing.
//
// What is sent: neighbour solicitations for the one address, in the name of this host and
// by its own socket, so that what the kernel has in its table of neighbours is neither
// used nor changed. What is not sent, although it would show more: no MLD query, because
// one from a lower address takes the role of querier over, and one from any address makes
// switches take this port for a router's; no solicitation in the shape of duplicate
// address detection, because a host that is about to take the address would give it up.
type Soaker struct {
	addr     netip.Addr // without a zone
	src      netip.Addr
	mac, his ndisc.MAC // his is zero until he has answered
	index    int
	fd       int
	time     time.Duration
	known    bool // he answered to his MAC address
	buf      []byte
	// direct is when somebody here last asked his MAC address, and has no answer yet.
	direct time.Time
	// queries
	last           time.Time // when the last general query came
	longest        time.Duration
	robust         int
	query, respond time.Duration

	mu    sync.Mutex
	begin time.Time
	found model.Soak
}

// The questions of one look.
const (
	soakWait  = 1200 * time.Millisecond // an answer for somebody else may take a second (RFC 4861 §7.2.7)
	soakTries = 3                       // as the kernel asks (RFC 4861 §10)
	soakPause = 250 * time.Millisecond  // between questions that are answered
	soakSure  = 8                       // before an address is called lost
	soakMost  = 24
	soakSteps = 12
	soakLeast = 2 * time.Second // between two looks
	// soakQuiet is when an answer to an earlier question does not come any more.
	soakQuiet = 3 * time.Second
)

// Numbers of RFC 3810 §9, where a querier does not say its own.
const (
	defaultRobustness = 2
	defaultQuery      = 125 * time.Second
)

// Soak opens what a look at the address for that long needs. It returns a Soak instead
// when there can be none.
func (p *Prober) Soak(d time.Duration) (*Soaker, *model.Soak, error) {
	v := p.Found.Vantage
	cannot := func(why string) (*Soaker, *model.Soak, error) {
		return nil, &model.Soak{Verdict: model.SoakUnknown, Why: why}, nil
	}
	switch {
	case p.Found.Problem != "":
		return cannot("there is no way to it")
	case v.Self:
		return cannot("the probes do not leave this host")
	case !v.OnLink:
		return cannot("a router is between, and only neighbours ask for it: run it on its link")
	}
	i, err := net.InterfaceByIndex(p.index)
	if err != nil {
		return cannot(err.Error())
	}
	if len(i.HardwareAddr) != 6 || i.Flags&net.FlagBroadcast == 0 {
		return cannot(i.Name + " is no Ethernet")
	}
	s := &Soaker{addr: p.o.Addr.WithZone(""), src: v.Source.WithZone(""), mac: ndisc.MAC(i.HardwareAddr), index: p.index, time: d, buf: make([]byte, 2048), robust: defaultRobustness, query: defaultQuery}
	s.found.Verdict = model.SoakUnknown
	if s.addr.Is6() { // what a kernel asks with (RFC 4861 §7.2.2), where there is one
		list, _ := i.Addrs()
		for _, x := range list {
			if p, err := netip.ParsePrefix(x.String()); err == nil && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
				s.src = p.Addr()
			}
		}
	}
	err = s.open()
	if errors.Is(err, unix.EPERM) {
		return cannot("bare packets need root (CAP_NET_RAW)")
	}
	if err != nil {
		return nil, nil, err
	}
	return s, nil, nil
}

func (s *Soaker) open() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	s.fd = fd
	prog := soakFilter()
	if err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}); err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8, Ifindex: s.index})
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("bind packet socket: %w", err)
	}
	// The card is to let reports in. This host itself joins nothing, and reports nothing.
	for _, m := range []ndisc.MAC{{0x33, 0x33, 0, 0, 0, 0x16}, groupMAC(s.addr)} {
		mr := unix.PacketMreq{Ifindex: int32(s.index), Type: unix.PACKET_MR_MULTICAST, Alen: 6}
		copy(mr.Address[:], m[:])
		_ = unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mr)
	}
	return nil
}

// groupMAC is that of the solicited-node group of an address.
func groupMAC(a netip.Addr) ndisc.MAC {
	b := a.As16()
	return ndisc.MAC{0x33, 0x33, 0xff, b[13], b[14], b[15]}
}

// Close gives the socket back.
func (s *Soaker) Close() { unix.Close(s.fd) }

// Know goes on with a soak that was cut short.
func (s *Soaker) Know(x *model.SavedSoak) {
	if x == nil {
		return
	}
	s.begin, s.found = x.Begin, x.Found
	s.found.Verdict, s.found.Why, s.found.LostAfter = model.SoakUnknown, "", nil
	if m, err := net.ParseMAC(x.Found.MAC); err == nil && len(m) == 6 {
		s.his = ndisc.MAC(m)
	}
}

// Saved is what is known so far.
func (s *Soaker) Saved(now time.Time) *model.SavedSoak {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begin.IsZero() {
		return nil
	}
	return &model.SavedSoak{Begin: s.begin, Last: now, Found: s.found}
}

// Run soaks. told hears now and then how much time is left; what is known when ctx ends is
// in the Soak.
func (s *Soaker) Run(ctx context.Context, told func(left time.Duration)) (*model.Soak, error) {
	s.mu.Lock()
	if s.begin.IsZero() {
		s.begin = time.Now()
	}
	s.mu.Unlock()
	err := s.run(ctx, told)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found.Seconds = math.Round(time.Since(s.begin).Seconds()*10) / 10
	if ctx.Err() != nil && s.found.Verdict == model.SoakUnknown {
		s.found.Why, err = "the run was cut short", nil
	}
	out := s.found
	return &out, err
}

func (s *Soaker) run(ctx context.Context, told func(left time.Duration)) error {
	end := s.begin.Add(s.time)
	step := max(soakLeast, s.time/soakSteps)
	for {
		at := time.Since(s.begin)
		last := time.Until(end) <= 0
		met, err := s.look(ctx)
		if err != nil {
			return err
		}
		switch met {
		case lostIt:
			after := math.Round(at.Seconds()*10) / 10
			if s.found.Group.Answered == 0 {
				after = 0
			}
			s.set(func(f *model.Soak) { f.Verdict, f.LostAfter = model.SoakLost, &after })
			return nil
		case nobody:
			s.why("nobody answers for it on this link")
			return nil
		case unsure:
			s.why("too much is lost on the way to tell")
			return nil
		}
		if last {
			s.judge(time.Now())
			return nil
		}
		for next := time.Now().Add(min(step, time.Until(end))); time.Now().Before(next); {
			if told != nil {
				told(time.Until(end))
			}
			if err := s.listen(ctx, min(time.Until(next), 200*time.Millisecond), nil); err != nil {
				return err
			}
		}
	}
}

func (s *Soaker) set(f func(*model.Soak)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.found)
}

func (s *Soaker) why(w string) { s.set(func(f *model.Soak) { f.Why = w }) }

// judge gives the verdict about an address that was found to the end.
func (s *Soaker) judge(now time.Time) {
	switch i, took := time.Duration(s.found.Interval*float64(time.Second)), now.Sub(s.begin); {
	case s.addr.Is4(): // a broadcast: nothing expires
	case s.found.Queries == 0:
		s.why("no MLD querier was heard on this link, so nothing expired: it is found today, and nothing shows that it would be with a querier")
		return
	case took < i:
		s.why(fmt.Sprintf("by what the querier says a group lives for %s, and it was looked at for %s: --soak=%s", i.Round(time.Second), took.Round(time.Second), (i + 10*time.Second).Round(time.Second)))
		return
	case !s.last.IsZero() && now.Sub(s.last) > i: // a switch without a querier forgets nothing
		s.why(fmt.Sprintf("the MLD querier fell silent %s ago, and without one nothing expires", now.Sub(s.last).Round(time.Second)))
		return
	}
	s.set(func(f *model.Soak) { f.Verdict = model.SoakKept })
}

// met is what a look showed.
type met int

const (
	foundIt met = iota
	lostIt
	nobody
	unsure
)

// look asks the group as a kernel would, and when nobody answers often enough to be sure.
func (s *Soaker) look(ctx context.Context) (met, error) {
	if !s.direct.IsZero() { // an answer to his MAC address is none to his group
		if err := s.listen(ctx, soakQuiet-time.Since(s.direct), nil); err != nil {
			return unsure, err
		}
		s.direct = time.Time{}
	}
	for range soakTries {
		if ok, err := s.ask(ctx, true, ndisc.MAC{}); ok || err != nil {
			return foundIt, err
		}
	}
	group, direct, answered := soakTries, 0, 0
	for group < soakMost {
		for range soakSure - min(group, soakSure)%soakSure {
			group++
			if ok, err := s.ask(ctx, true, ndisc.MAC{}); ok || err != nil {
				return foundIt, err
			}
		}
		for n := range soakSure {
			direct++
			ok, err := s.ask(ctx, false, s.to(n))
			if err != nil {
				return unsure, err
			}
			if ok { // and not faster than a host answers any one neighbour
				answered++
				if err := s.listen(ctx, soakPause, nil); err != nil {
					return unsure, err
				}
			}
		}
		// The chance that as many questions to the group were lost as those to him are.
		lost := 1 - float64(answered)/float64(direct+1)
		if answered > 0 && math.Pow(lost, float64(group)) < maxDoubt {
			return lostIt, nil
		}
		if answered == 0 && s.his == (ndisc.MAC{}) {
			return nobody, nil // and nobody ever did
		}
		if err := s.listen(ctx, soakQuiet, nil); err != nil {
			return unsure, err
		}
		s.direct = time.Time{}
	}
	if answered == 0 {
		return nobody, nil
	}
	return unsure, nil
}

// to is the MAC address to ask him at: his, or the one the kernel has, or everybody's. He
// takes a packet to his own address from a broadcast, which no switch keeps from him.
func (s *Soaker) to(n int) ndisc.MAC {
	all := ndisc.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if s.known {
		return s.his
	}
	if n%2 == 1 {
		return all
	}
	if s.his == (ndisc.MAC{}) {
		if m, ok := hardware(s.addr, s.index); ok {
			return m
		}
		return all
	}
	return s.his
}

// ask asks once, and waits.
func (s *Soaker) ask(ctx context.Context, group bool, to ndisc.MAC) (bool, error) {
	var f []byte
	switch {
	case s.addr.Is4():
		f = s.arp(group, to)
	case group:
		f = ndisc.Frame{SrcMAC: s.mac, Src: s.src, Dst: solicitedNode(s.addr)}.NS(s.addr, s.mac).Bytes()
	default:
		f = ndisc.Frame{SrcMAC: s.mac, DstMAC: to, Src: s.src, Dst: s.addr}.NS(s.addr, s.mac).Bytes()
	}
	if _, err := unix.Write(s.fd, f); err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENETDOWN) {
		return false, fmt.Errorf("ask for %s: %w", s.addr, err)
	}
	if !group {
		s.direct = time.Now()
	}
	s.set(func(x *model.Soak) {
		if group {
			x.Group.Sent++
		} else {
			x.Direct.Sent++
		}
	})
	got := false
	err := s.listen(ctx, soakWait, func(direct bool) bool {
		got = got || direct != group
		return got
	})
	if got {
		s.set(func(x *model.Soak) {
			x.MAC = s.his.String()
			if group {
				x.Group.Answered++
			} else {
				x.Direct.Answered++
			}
		})
		s.known = s.known || !group
		return true, nil
	}
	return false, err
}

// listen hears for that long, or until f, which is told of the answers of the address, has
// heard enough. A direct answer is one to a question that went to his MAC address.
func (s *Soaker) listen(ctx context.Context, d time.Duration, f func(direct bool) (enough bool)) error {
	end := time.Now().Add(d)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		left := time.Until(end)
		if left > 0 {
			if err := wait(s.fd, min(left, 100*time.Millisecond)); err != nil {
				return err
			}
		}
		for { // what came while this process had no turn, too
			n, from, err := unix.Recvfrom(s.fd, s.buf, 0)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) {
				continue
			}
			if err != nil {
				return fmt.Errorf("read packet socket: %w", err)
			}
			ll, ok := from.(*unix.SockaddrLinklayer)
			if a, answer := s.hear(s.buf[:n], ok && ll.Pkttype == unix.PACKET_OUTGOING); answer && f != nil && f(a) {
				return nil
			}
		}
		if left <= 0 {
			return nil
		}
	}
}
