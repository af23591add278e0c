package probe

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// transport sends the probes of one flow and hears the answers.
type transport interface {
	// send sends one probe. errFull: not now, too many wait for their answers.
	send(k key) error
	receive(d time.Duration, f func(answer)) error
	// patience is how long a probe may wait for its answer, for transports that hold
	// something for each.
	patience(d time.Duration)
	overruns() int
}

var errFull = errors.New("too many probes are on their way")

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
	opens    []uint16 // where programs see the probes, the open ones: see sparing
	refused  []uint16 // ports that an ICMP error answers: such answers are rationed
	connects bool     // programs see the probes
	suspects []uint16 // ports whose other answers look rationed
	late     []uint16 // ports that answered in this round, and not before
	tried    int      // rounds
	strolled bool     // rationed has been asked
	since    time.Time
	shown    model.Ports // that answer, as the others know
	sure     bool        // every port that has answered did so again, as often as it was asked
	alone    *Turns
	checks   [tries]check
	turn     int
	slower   float64
	alive    func()               // the target itself has answered
	note     func(string)         // something a person should know
	progress func(sent, left int) // every few moments: packets that were sent, and are to be
	told     time.Time            // when it was
	ahead    int                  // ports that this round has not asked yet
	sent     int
	try      uint8                 // of this round
	asked    [firstCheck]time.Time // when the last probe of that try was sent
	known    bool                  // what answers was asked again
	away     bool                  // something left this host in this round
	own      *own
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
	if !s.out.Want.Has(a.port) { // a service that answers from another port
		return
	}
	if r.Why == "no-neighbour" { // perhaps it comes back; if not, all ports are unreachable
		s.selfDown++
		return
	}
	if s.out.Set(a.port, r) {
		switch {
		case r.State == model.Errored: // own rules: nothing was sent
		case a.kind == icmpError:
			if len(s.refused) < 8 {
				s.refused = append(s.refused, a.port)
			}
		default:
			if old := a.try < firstCheck && a.try != s.try; !old {
				s.late = append(s.late, a.port)
			} else if at := s.asked[a.try]; !at.IsZero() { // the way is slower than it seemed
				s.loss.sample(time.Since(at))
			}
			list, most := &s.controls, 4
			if s.connects && r.State == model.Open {
				list, most = &s.opens, 16
			}
			if len(*list) < most {
				*list = append(*list, a.port)
			}
		}
		s.elsewise = s.elsewise || r.State != model.Errored && (r.State != model.Unreachable || !aboutHost(a))
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
		return model.Reason{State: model.Open, Why: "syn-ack", HopLimit: a.hops, MSS: a.mss}
	case reset:
		return model.Reason{State: model.Closed, Why: "rst", HopLimit: a.hops}
	case replied:
		why := "answer"
		if s.proto == protoICMP || s.proto == protoICMPv6 {
			why = "reply"
		}
		return model.Reason{State: model.Open, Why: why, HopLimit: a.hops}
	case repliedOther:
		return model.Reason{State: model.Open, Why: model.OtherAnswer, HopLimit: a.hops}
	}
	return s.refusal(a)
}

// refusal judges an ICMP error by its code and its sender. What the target itself says is
// an answer; of a router, "there is no way" and "you must not" are different things.
func (s *scan) refusal(a answer) model.Reason {
	r := model.Reason{State: model.Rejected, Why: "icmp", ICMP: true, ICMPType: a.icmp, ICMPCode: a.code, From: a.from, HopLimit: a.hops}
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
	case a.from == s.src.WithZone("") && !target && (v4 && a.icmp == 3 && a.code == 1 || !v4 && a.icmp == 1 && a.code == 3):
		r = model.Reason{State: model.Unreachable, Why: "no-neighbour"}
	case a.from == s.src.WithZone("") && !target:
		r = model.Reason{State: model.Errored, Why: "own-rules"}
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

// tellEvery is how often the progress is told.
const tellEvery = 100 * time.Millisecond

// send sends one probe in its time, and listens while it waits.
func (s *scan) send(ctx context.Context, k key) error {
	now := time.Now()
	if s.progress != nil && s.got == nil && now.Sub(s.told) > tellEvery {
		s.told = now
		s.progress(s.sent, max(0, s.ahead)+s.pend.Len()*max(0, s.tries()-s.tried-1))
	}
	d := s.lim.take(now, s.slower)
	for end := time.Now().Add(d); d > 0; d = time.Until(end) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.t.receive(min(d, 100*time.Millisecond), s.heard); err != nil {
			return err
		}
	}
	s.sent++
	if s.sent%32 == 0 {
		if err := s.t.receive(0, s.heard); err != nil {
			return err
		}
	}
	err := s.t.send(k)
	for begin := time.Now(); errors.Is(err, errFull); err = s.t.send(k) {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Since(begin) > 30*time.Second:
			return err
		}
		if err := s.t.receive(5*time.Millisecond, s.heard); err != nil {
			return err
		}
		s.t.patience(s.hold()) // perhaps the way is known better by now
	}
	s.away = s.away || err == nil
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

// usual are ports behind which there often is something, the likeliest first.
var usual = []uint16{
	22, 443, 80, 25, 53, 445, 8080, 21, 3389, 3306, 5432, 8443, 993, 110, 143, 111, 139, 587, 995, 5900, 23, 135, 6443, 2222, 8000, 9090, 631, 1723, 389, 636,
}

// usualFirst asks the ports that most probably answer before the others, and hears them. A
// limit for all ports would have nothing left for them behind the others, and nothing would
// show it; and with their answers, loss is measured from the beginning.
func (s *scan) usualFirst(ctx context.Context) (asked model.Ports, err error) {
	if s.proto != protoTCP || s.pend.Len() <= 2*len(usual) {
		return asked, nil
	}
	for _, port := range usual {
		if s.pend.Has(port) {
			asked.Add(port)
			if err := s.send(ctx, key{port, 0}); err != nil {
				return asked, err
			}
		}
	}
	for end := time.Now().Add(s.loss.short()); asked.Len() > 0 && len(s.sureOf()) == 0 && time.Now().Before(end); {
		if err := s.idle(ctx, 2*time.Millisecond); err != nil {
			return asked, err
		}
	}
	return asked, nil
}

// round asks every port without an answer once.
func (s *scan) round(ctx context.Context, try uint8) (err error) {
	// Where nothing reaches a program, measuring the loss well saves a whole round.
	every := max(8, s.pend.Len()/200)
	if s.connects {
		every = max(32, every)
	}
	s.try, s.asked[try] = try, time.Time{}
	var asked model.Ports
	if s.tried == 0 {
		if asked, err = s.usualFirst(ctx); err != nil {
			return err
		}
	}
	n := 0
	s.ahead = s.pend.Len()
	defer func() { s.ahead = 0 }()
	shuffled(s.pend, uint16(try)*7919, func(port uint16) bool {
		if asked.Has(port) {
			return true
		}
		s.ahead = min(s.ahead, s.pend.Len()) - 1
		if err = s.send(ctx, key{port, try}); err != nil {
			return false
		}
		if n++; n%every == 0 && len(s.controls) > 0 {
			err = s.check(ctx, s.controls[n/every%len(s.controls)])
		}
		return err == nil
	})
	if err == nil && s.sparing() && (s.tried == 0 || s.loss.lost > 0 || s.tried+1 >= s.tries()) {
		err = s.check(ctx, s.opens[s.turn%len(s.opens)])
	}
	if err != nil {
		return err
	}
	s.asked[try] = time.Now()
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
	ports := s.sureOf()
	for i := range n {
		if err := s.check(ctx, ports[i%len(ports)]); err != nil {
			return err
		}
		if err := s.idle(ctx, gap); err != nil {
			return err
		}
	}
	return s.settle(ctx)
}

// run finds the states. Everything that is known stands in the table when it returns,
// with an error too.
func (s *scan) run(ctx context.Context) error {
	if s.slower == 0 {
		s.slower = 1
	}
	slowed, before := false, 0.0
	silence := 0 // rounds in a row in which nothing answered that had done so before
	deaf := true // for every other probe something came that nobody here was given
	var begun, ended time.Time
	s.alone.Lock()
	defer func() {
		s.show()
		s.alone.Unlock()
	}()
	if begun = s.since; s.alone.begin(s) || begun.IsZero() {
		begun = time.Now()
	}
	for s.pend.Len() > 0 && s.tried < maxTries {
		last := s.tried+1 >= s.tries()
		if s.tried > 0 {
			if err := s.rest(ctx, last, begun, ended); err != nil {
				return err
			}
		}
		sent0, lost0 := s.loss.sent, s.loss.lost
		s.t.patience(s.hold())
		s.late = s.late[:0]
		s.away = false
		asked := s.pend.Len()
		_, dropped, _ := s.own.read()
		if err := s.round(ctx, uint8(s.tried%firstCheck)); err != nil {
			return err
		}
		s.tried++
		ended = time.Now()
		if s.pend.Len() == 0 || !s.away { // or every port is refused here
			return nil
		}
		_, now, ok := s.own.read()
		deaf = deaf && ok && (now-dropped)*2 > asked
		var err error
		switch first := s.tried == 1 || !s.known && len(s.late) == 0; {
		case first && s.sparing():
			err = s.spare(ctx)
		case first:
			err = s.again(ctx)
		default:
			s.latecomers()
		}
		if err != nil {
			return err
		}
		if missing := 50 - s.loss.sent; missing > 0 && len(s.controls) > 0 && len(s.suspects) == 0 {
			if err := s.calibrate(ctx, missing, 2*time.Millisecond); err != nil {
				return err
			}
		}
		if s.loss.sent == sent0 && len(s.controls) > 0 && len(s.suspects) == 0 { // is it still there?
			if err := s.calibrate(ctx, 2, 2*time.Millisecond); err != nil {
				return err
			}
		}
		p := s.loss.since(sent0, lost0)
		if p > 0.4 && s.loss.sent-sent0 < 20 && len(s.sureOf()) > 0 { // of few samples
			if err := s.calibrate(ctx, 30, 2*time.Millisecond); err != nil {
				return err
			}
			p = s.loss.since(sent0, lost0)
		}
		if silence++; p < 0.99 || s.loss.sent-sent0 < 20 || len(s.suspects) > 0 {
			silence = 0
		}
		switch {
		case slowed && p > before*2/3: // it was not the rate
			s.slower = 1
		case p > 0.05 && !slowed:
			slowed, before, s.slower = true, p, s.slower*2
		}
		if p > 0.4 && len(s.suspects) == 0 && s.rationed(ctx, p) {
			s.suspects = s.sureOf()
		}
		if len(s.suspects) > 0 { // what is missing was not lost
			s.loss.sent, s.loss.lost = sent0, lost0
		}
		s.alone.limited = s.alone.limited || len(s.suspects) > 0 || len(s.refused) > 0
		if silence >= 5 { // what answered does so no longer: more rounds say nothing
			break
		}
		rationed := len(s.suspects) > 0 || len(s.refused) > 0 && len(s.sureOf()) == 0
		if rationed && s.tried >= minTries || last && s.tried >= s.tries() && len(s.late) == 0 {
			break
		}
	}
	switch {
	case s.pend.Len() == 0:
		return nil
	case len(s.suspects) > 0 || len(s.refused) > 0:
		return s.paced(ctx)
	case s.loss.lost > 0 && math.Pow(s.loss.rate(), float64(s.tried)) > maxDoubt:
		s.undecided(model.Reason{State: model.Errored, Why: "lossy"})
		s.note("too much is lost on the way, or the target stopped to answer: silence means nothing")
		return nil
	case deaf:
		s.undecided(model.Reason{State: model.Errored, Why: "own-rules"})
		s.note("as many packets came as were sent, and this host dropped them: its own rules let no answer in, or its reverse-path filter expects them elsewhere")
		return nil
	}
	s.silent(s.pend)
	return nil
}

// tries is how many rounds a silent port needs.
func (s *scan) tries() int { return s.loss.triesFor(s.out.Want.Len() - s.pend.Len()) }
