package probe

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// transport sends the probes of one flow and hears the answers.
type transport interface {
	send(k key) error
	receive(d time.Duration, f func(answer)) error
	// patience is how long a probe may wait for its answer, for transports that hold
	// something for each.
	patience(d time.Duration)
	overruns() int
	// room tells whether one more probe can be on its way.
	room() bool
}

// loss is what is known about the way to an address and back.
type loss struct {
	sent, lost   int
	srtt, rttvar time.Duration
}

func (l *loss) sample(rtt time.Duration) {
	if l.srtt == 0 {
		l.srtt, l.rttvar = rtt, rtt/2
		return
	}
	l.rttvar += ((l.srtt - rtt).Abs() - l.rttvar) / 4
	l.srtt += (rtt - l.srtt) / 8
}

// timeout is how long an answer may take.
func (l *loss) timeout() time.Duration {
	if l.srtt == 0 {
		return time.Second
	}
	return min(max(2*l.srtt+4*l.rttvar, 200*time.Millisecond), 3*time.Second)
}

// rate is the probability that a probe or its answer is lost, on the careful side.
func (l *loss) rate() float64 {
	if l.sent == 0 {
		return 0.2
	}
	return min(0.9, float64(l.lost+1)/float64(l.sent+1))
}

// since is what part was lost since that many were sent and lost.
func (l *loss) since(sent, lost int) float64 {
	if l.sent == sent {
		return 0
	}
	return float64(l.lost-lost) / float64(l.sent-sent)
}

// The number of tries that a silent port gets.
const (
	minTries = 2
	maxTries = 64
	// shutTries without an answer show that a port is neither open nor closed where
	// nothing measures the loss: at three lost of ten, one such port of 15,000 would be.
	shutTries = 8
	// maxWrong is the chance, over a whole table, that an answer was lost every time;
	// maxDoubt for one port, when there are no more tries.
	maxWrong = 1e-6
	maxDoubt = 1e-4
)

// triesFor says how often a silent port is asked, when that many ports answer.
func (l *loss) triesFor(answering int) int {
	switch {
	case l.sent == 0 && l.srtt == 0:
		return 5 // nothing answers: nobody knows, and each try takes a second
	case l.sent == 0:
		return shutTries
	case l.lost == 0 && l.sent >= 200:
		return minTries
	case l.lost == 0 && l.sent >= 30:
		return minTries + 1
	}
	n := math.Log(maxWrong/float64(answering+1)) / math.Log(l.rate())
	return min(max(minTries+1, int(math.Ceil(n))), maxTries)
}

// scan finds the state of every port of a table.
type scan struct {
	t     transport
	out   *model.Table
	pend  *model.Ports // without a final answer
	proto uint8
	dst   netip.Addr
	src   netip.Addr
	lim   *Limiter
	loss  *loss
	// controls are ports of which an answer is sure.
	controls []uint16
	refused  []uint16 // ports that an ICMP error answers: such answers are rationed
	suspects []uint16 // ports whose other answers look rationed
	late     []uint16 // ports that answered in this round, and not before
	tried    int      // rounds
	strolled bool     // rationed has been asked
	alone    *Turns
	checks   [tries]check
	turn     int
	slower   float64
	alive    func()               // the target itself has answered
	note     func(string)         // something a person should know
	progress func(sent, left int) // after every few packets
	sent     int
	selfDown int  // errors that this host itself made: nobody answers for the address
	elsewise bool // something was heard that is no router's word about the whole address
	patience time.Duration
	got      func(answer) // of the paced phase
}

// check is a control on its way.
type check struct {
	port uint16
	at   time.Time // zero: none
}

// heard takes an answer.
func (s *scan) heard(a answer) {
	r := s.reason(a)
	if a.kind != icmpError || a.from == s.dst.WithZone("") {
		s.alive()
	}
	if a.try >= firstCheck {
		if c := &s.checks[a.try%tries]; !c.at.IsZero() && c.port == a.port {
			s.loss.sample(time.Since(c.at))
			s.loss.sent++
			c.at = time.Time{}
		}
	}
	if r.Why == "no-neighbour" { // perhaps it comes back; if not, all ports are unreachable
		s.selfDown++
		return
	}
	if s.out.Set(a.port, r) {
		switch {
		case a.kind == icmpError:
			if len(s.refused) < 8 {
				s.refused = append(s.refused, a.port)
			}
		default:
			s.late = append(s.late, a.port)
			if len(s.controls) < 4 {
				s.controls = append(s.controls, a.port)
			}
		}
		s.elsewise = s.elsewise || r.State != model.Unreachable || !aboutHost(a)
	}
	s.pend.Del(a.port)
	if s.got != nil {
		s.got(a)
	}
}

// reason puts an answer into words.
func (s *scan) reason(a answer) model.Reason {
	switch a.kind {
	case synAck:
		return model.Reason{State: model.Open, Why: "syn-ack"}
	case reset:
		return model.Reason{State: model.Closed, Why: "rst"}
	case replied:
		why := "answer"
		if s.proto == protoICMP || s.proto == protoICMPv6 {
			why = "reply"
		}
		return model.Reason{State: model.Open, Why: why}
	}
	return s.refusal(a)
}

// refusal judges an ICMP error by its code and its sender. What the target itself says is
// an answer; of a router, "there is no way" and "you must not" are different things.
func (s *scan) refusal(a answer) model.Reason {
	r := model.Reason{State: model.Rejected, Why: "icmp", ICMP: true, ICMPType: a.icmp, ICMPCode: a.code, From: a.from}
	target := a.from == s.dst.WithZone("")
	v4 := s.dst.Is4()
	port := v4 && a.icmp == 3 && a.code == 3 || !v4 && a.icmp == 1 && a.code == 4
	var lostOnTheWay bool
	if v4 {
		switch {
		case a.icmp == 11:
			lostOnTheWay = true
		case a.icmp == 3:
			switch a.code {
			case 0, 1, 5, 6, 7, 8, 11, 12:
				lostOnTheWay = true
			}
		}
	} else {
		lostOnTheWay = a.icmp == 3 || a.icmp == 1 && (a.code == 0 || a.code == 2 || a.code == 3)
	}
	switch {
	case port && target && s.proto == protoUDP:
		r.State = model.Closed
	case a.from == s.src.WithZone("") && !target:
		r = model.Reason{State: model.Unreachable, Why: "no-neighbour"}
	case lostOnTheWay && !target:
		r.State = model.Unreachable
	}
	return r
}

// aboutHost tells whether an ICMP error speaks of an address or a network as a whole, not
// of one port.
func aboutHost(a answer) bool {
	if a.from.Is4() {
		return a.icmp == 3 && (a.code == 0 || a.code == 1 || a.code == 6 || a.code == 7)
	}
	return a.icmp == 1 && (a.code == 0 || a.code == 3)
}

// send sends one probe in its time, and listens while it waits.
func (s *scan) send(ctx context.Context, k key) error {
	d := s.lim.take(time.Now(), s.slower)
	for end := time.Now().Add(d); d > 0; d = time.Until(end) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.t.receive(min(d, 100*time.Millisecond), s.heard); err != nil {
			return err
		}
	}
	for !s.t.room() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.t.receive(5*time.Millisecond, s.heard); err != nil {
			return err
		}
	}
	s.sent++
	if s.sent%32 == 0 {
		if err := s.t.receive(0, s.heard); err != nil {
			return err
		}
		if s.progress != nil && s.sent%1024 == 0 {
			s.progress(s.sent, s.pend.Len())
		}
	}
	err := s.t.send(k)
	for n := 0; (errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)) && n < 2000; n++ { // others have the sockets
		if err := s.t.receive(5*time.Millisecond, s.heard); err != nil {
			return err
		}
		err = s.t.send(k)
	}
	return s.failed(k, err)
}

// failed turns what the kernel says about a packet into a state of its port.
func (s *scan) failed(k key, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		s.out.Set(k.port, model.Reason{State: model.Errored, Why: "own-rules"})
		return nil
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETDOWN):
		s.out.Set(k.port, model.Reason{State: model.Unreachable, Why: "no-route"})
		return nil
	}
	return err
}

// check sends a control, and counts those that are overdue.
func (s *scan) check(ctx context.Context, port uint16) error {
	s.overdue(s.loss.timeout())
	slot := uint8(firstCheck + s.turn%(tries-firstCheck))
	s.turn++
	c := &s.checks[slot]
	if !c.at.IsZero() {
		return nil // it still waits
	}
	c.port = port
	if err := s.send(ctx, key{port, slot}); err != nil {
		return err
	}
	c.at = time.Now()
	return nil
}

func (s *scan) overdue(after time.Duration) {
	for i := range s.checks {
		if c := &s.checks[i]; !c.at.IsZero() && time.Since(c.at) > after {
			c.at = time.Time{}
			s.loss.sent++
			s.loss.lost++
		}
	}
}

func (s *scan) waiting() bool {
	for i := range s.checks {
		if !s.checks[i].at.IsZero() {
			return true
		}
	}
	return false
}

// shuffled goes through the set in an order that spreads neighbours: rules and rate
// limits see no sweep.
func shuffled(p *model.Ports, salt uint16, yield func(uint16) bool) {
	for i := range 65536 {
		port := uint16(i)*40503 + salt // odd: every number once
		if p.Has(port) && !yield(port) {
			return
		}
	}
}

// round asks every port without an answer once.
func (s *scan) round(ctx context.Context, try uint8) (err error) {
	every := max(32, s.pend.Len()/200)
	n := 0
	shuffled(s.pend, uint16(try)*7919, func(port uint16) bool {
		if err = s.send(ctx, key{port, try}); err != nil {
			return false
		}
		if n++; n%every == 0 && len(s.controls) > 0 {
			if err = s.check(ctx, s.controls[n/every%len(s.controls)]); err != nil {
				return false
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	return s.settle(ctx)
}

// settle waits for the answers that are still on their way.
func (s *scan) settle(ctx context.Context) error {
	start := time.Now()
	for s.pend.Len() > 0 || s.waiting() {
		left := s.loss.timeout() - time.Since(start)
		if left <= 0 {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.t.receive(min(left, 20*time.Millisecond), s.heard); err != nil {
			return err
		}
	}
	if err := s.t.receive(0, s.heard); err != nil {
		return err
	}
	s.overdue(0)
	if n := s.t.overruns(); n > 0 { // answers that came and that we were too slow for
		s.loss.sent += n
		s.loss.lost += n
		s.slower *= 2
	}
	return nil
}

// calibrate measures the loss with ports that surely answer.
func (s *scan) calibrate(ctx context.Context, n int, gap time.Duration) error {
	for i := range n {
		if err := s.check(ctx, s.controls[i%len(s.controls)]); err != nil {
			return err
		}
		if err := s.idle(ctx, gap); err != nil {
			return err
		}
	}
	return s.settle(ctx)
}

// Turns lets the addresses of one host be asked one after the other, round by round. A limit
// there may be one for all of them, and an answer that one gets is missing to the others.
type Turns struct {
	sync.Mutex
	last *scan
}

// used tells whether somebody else had a turn since s had its last.
func (t *Turns) used(s *scan) bool {
	was := t.last
	t.last = s
	return was != s && was != nil
}

// lastRest is the least time between the last two rounds. A rule that answers one packet a
// second and drops the others has one more answer by then.
const lastRest = 1100 * time.Millisecond

// run finds the states. Everything that is known stands in the table when it returns,
// with an error too.
func (s *scan) run(ctx context.Context) error {
	if s.slower == 0 {
		s.slower = 1
	}
	slowed, before, ended := false, 0.0, time.Time{}
	s.alone.Lock()
	defer s.alone.Unlock()
	for s.pend.Len() > 0 && s.tried < maxTries {
		last := s.tried+1 >= s.tries()
		if s.tried > 0 {
			// Others may have their turn; what they spend is missing here.
			s.alone.Unlock()
			s.alone.Lock()
			if s.alone.used(s) {
				ended = time.Now()
			}
			if last {
				if err := s.idle(ctx, lastRest-time.Since(ended)); err != nil {
					return err
				}
			}
		}
		sent0, lost0 := s.loss.sent, s.loss.lost
		s.t.patience(s.hold())
		s.late = s.late[:0]
		if err := s.round(ctx, uint8(s.tried%firstCheck)); err != nil {
			return err
		}
		s.tried++
		ended = time.Now()
		if s.pend.Len() == 0 {
			return nil
		}
		if s.tried == 1 {
			if err := s.again(ctx); err != nil {
				return err
			}
		} else {
			s.latecomers()
		}
		if missing := 50 - s.loss.sent; missing > 0 && len(s.controls) > 0 && len(s.suspects) == 0 {
			if err := s.calibrate(ctx, missing, 2*time.Millisecond); err != nil {
				return err
			}
		}
		p := s.loss.since(sent0, lost0)
		if p > 0.4 && s.loss.sent-sent0 < 20 && len(s.controls) > 0 { // of few samples
			if err := s.calibrate(ctx, 30, 2*time.Millisecond); err != nil {
				return err
			}
			p = s.loss.since(sent0, lost0)
		}
		switch {
		case slowed && p > before*2/3: // it was not the rate
			s.slower = 1
		case p > 0.05 && !slowed:
			slowed, before, s.slower = true, p, s.slower*2
		}
		if p > 0.4 && len(s.suspects) == 0 && s.rationed(ctx) {
			s.suspects = s.controls
		}
		if len(s.suspects) > 0 { // what is missing was not lost
			s.loss.sent, s.loss.lost = sent0, lost0
		}
		rationed := len(s.suspects) > 0 || len(s.refused) > 0 && len(s.controls) == 0
		if rationed && s.tried >= minTries || last && s.tried >= s.tries() && len(s.late) == 0 {
			break
		}
	}
	switch {
	case s.pend.Len() == 0:
		return nil
	case len(s.suspects) > 0 || len(s.refused) > 0:
		return s.paced(ctx)
	case s.loss.sent > 0 && math.Pow(s.loss.rate(), float64(s.tried)) > maxDoubt:
		s.undecided(model.Reason{State: model.Errored, Why: "lossy"})
		s.note("too much is lost on the way, or the target stopped to answer: silence means nothing")
		return nil
	}
	s.silent(s.pend)
	return nil
}

// tries is how many rounds a silent port needs.
func (s *scan) tries() int { return s.loss.triesFor(s.out.Want.Len() - s.pend.Len()) }

// hold is how long a transport has to keep what it holds for a probe. A router says that
// nobody is there only after it has asked three times, a second apart.
func (s *scan) hold() time.Duration {
	if !s.elsewise && (s.loss.srtt == 0 || len(s.refused) > 0) {
		return 3500 * time.Millisecond
	}
	// The kernel asks again after a second, which would cost a ration.
	if s.loss.srtt < 400*time.Millisecond {
		return min(s.loss.timeout(), 950*time.Millisecond)
	}
	return s.loss.timeout()
}

// again asks ports that have answered once more, and at once. Those that are silent now do
// not answer all who ask: their answers are rationed, and others may be silent for that.
func (s *scan) again(ctx context.Context) error {
	sample := s.sample(64)
	heard := map[uint16]int{}
	s.got = func(a answer) {
		if a.try >= firstCheck {
			heard[a.port]++
		}
	}
	defer func() { s.got = nil }()
	ask := func(ports []uint16, slot, n uint8) error {
		for i := range n {
			for _, p := range ports {
				if err := s.send(ctx, key{p, firstCheck + slot + i}); err != nil {
					return err
				}
			}
		}
		for end := time.Now().Add(s.loss.timeout()); time.Now().Before(end); {
			if !slices.ContainsFunc(ports, func(p uint16) bool { return heard[p] < int(n) }) {
				break
			}
			if err := s.idle(ctx, 5*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}
	if err := ask(sample, 0, 2); err != nil {
		return err
	}
	got := 0
	for _, n := range heard {
		got += n
	}
	suspects := slices.Clone(sample)
	if len(sample) > 8 { // few would hide among them
		suspects = slices.DeleteFunc(suspects, func(p uint16) bool { return heard[p] > 0 })
		suspects = suspects[:min(len(suspects), 8)]
	}
	clear(heard)
	if err := ask(suspects, 2, 14); err != nil {
		return err
	}
	// More than two of three are lost.
	suspects = slices.DeleteFunc(suspects, func(p uint16) bool { return heard[p] > 4 })
	switch {
	case len(suspects) == 0:
		s.loss.sent += 2 * len(sample)
		s.loss.lost += max(0, 2*len(sample)-got)
	case len(suspects) < len(sample) || s.rationed(ctx):
		s.suspects = suspects
	}
	return nil
}

// sample are some of the ports that answered, first those that have a silent one beside
// them: a rule that answers some packets only answers a few ports of many.
func (s *scan) sample(most int) []uint16 {
	var edge, other []uint16
	prev, have := uint16(0), false
	for p := range s.out.Want.All {
		r := s.out.At(p)
		answered := (r.State == model.Open || r.State == model.Closed) && !r.ICMP
		if have && s.pend.Has(p) && len(other) > 0 && other[len(other)-1] == prev {
			edge, other = append(edge, prev), other[:len(other)-1]
		}
		switch {
		case answered && have && s.pend.Has(prev):
			edge = append(edge, p)
		case answered:
			other = append(other, p)
		}
		prev, have = p, true
	}
	spread := func(ps []uint16, n int) (out []uint16) {
		for i := range min(n, len(ps)) {
			out = append(out, ps[i*len(ps)/min(n, len(ps))])
		}
		return out
	}
	out := spread(edge, most)
	return append(out, spread(other, most-len(out))...)
}

// latecomers judges the ports that answered in a later round. When there are more than the
// loss explains, answers are rationed.
func (s *scan) latecomers() {
	n := len(s.late)
	if n == 0 {
		return
	}
	answering := s.out.Want.Len() - s.pend.Len() - n
	q := s.loss.rate()
	if explained := float64(answering) * math.Pow(q, float64(s.tried-1)); explained < 0.002*float64(n) {
		s.suspects = slices.Clone(s.late[:min(n, 8)])
		return
	}
	s.loss.sent += n
	s.loss.lost += n
}

// silent gives up on ports: nothing came back.
func (s *scan) silent(p *model.Ports) {
	for port := range p.All {
		s.out.Set(port, s.silence())
	}
}

func (s *scan) silence() model.Reason {
	return model.Reason{State: model.Filtered, Why: "silence", MayBeOpen: s.proto == protoUDP}
}

// undecided gives one reason to all that is left.
func (s *scan) undecided(r model.Reason) {
	for p := range s.pend.All {
		s.out.Set(p, r)
	}
	*s.pend = model.Ports{}
}

// rationed tells whether what looks like loss is a limit: asked slowly, the controls
// answer every time. It takes its time, and is asked once.
func (s *scan) rationed(ctx context.Context) bool {
	if s.strolled {
		return false
	}
	s.strolled = true
	save := *s.loss
	defer func() { s.loss.sent, s.loss.lost = save.sent, save.lost }()
	for _, test := range []struct {
		n   int
		gap time.Duration
	}{{6, time.Second}, {4, 7 * time.Second}} {
		s.loss.sent, s.loss.lost = 0, 0
		if err := s.calibrate(ctx, test.n, test.gap); err != nil {
			return false
		}
		if s.loss.lost == 0 && s.loss.sent > 0 {
			return true
		}
		if s.loss.lost*3 < s.loss.sent*2 { // a third answers: it is loss
			return false
		}
	}
	return false
}
