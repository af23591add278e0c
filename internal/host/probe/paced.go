package probe

import (
	"context"
	"fmt"
	"math"
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// A target that rations its answers (Linux: one ICMP error a second to the same host, after
// a burst of six; a rule with a limit) answers few of many probes. Silence then says
// nothing, unless there was an answer left to be sent. So a port is asked together with one
// that is known to answer in that way, right behind it: when that one is answered, there
// was a ration when the port was asked, and its silence counts. When neither is, the ration
// was spent, and nothing counts.
//
// Silent ports are asked in groups, at first all at once: one ration decides a group that
// is silent as a whole. A group that takes a while to send is sent after a rest at least
// as long, so that there was a ration from its beginning on; only its own members could
// have spent it. A group of which some answer is tried again in smaller ones. Each port
// that answers costs one ration. What the patience does not pay for stays undecided: no
// port gets the state of its neighbours.

const (
	firstGap = 20 * time.Millisecond
	maxGap   = 10 * time.Second
	// firstRest is more than what Linux needs for one ration.
	firstRest = 1100 * time.Millisecond
	maxRest   = 15 * time.Second
	// minQuiet is how often a port must keep silent beside controls that answer.
	minQuiet = 4
	maxQuiet = 40
	// hostPatience is for routers that say of the whole address that there is no way.
	hostPatience = 20 * time.Second
	// onset is how far apart a port and its control may be sent, in parts of a ration: one
	// that came in between would be the control's alone.
	onset = 10
)

// A pace that follows the ration comes, again and again, upon the moment in which the next
// answer is due: the port is asked before it, the control behind it. So silence beside a
// control that answers makes the next turn wait longer, and counts only in such a turn.

// turn is one group with its controls.
type turn struct {
	scan     *scan
	batch    []uint16
	slots    map[uint8]bool // of the controls; true: answered
	answered map[uint16]bool
}

func (t *turn) heard(a answer) {
	if _, ok := t.slots[a.try]; ok {
		t.slots[a.try] = true
	} else {
		t.answered[a.port] = true
	}
}

// ok tells that all controls have answered.
func (t *turn) ok() bool {
	for _, yes := range t.slots {
		if !yes {
			return false
		}
	}
	return true
}

// ask sends the group and then a control of each class. It returns how long that took.
func (t *turn) ask(ctx context.Context, n int, gap time.Duration, classes [][]uint16) (time.Duration, error) {
	s := t.scan
	begin := time.Now()
	for _, p := range t.batch {
		if err := s.send(ctx, key{p, uint8(n % firstCheck)}); err != nil {
			return 0, err
		}
	}
	// Packets of one moment may overtake each other, on the way or in the target.
	if err := s.idle(ctx, min(gap/200, 500*time.Microsecond)); err != nil {
		return 0, err
	}
	for i, c := range classes {
		slot := uint8(firstCheck + (n*len(classes)+i)%(tries-firstCheck))
		s.checks[slot%tries].at = time.Time{}
		t.slots[slot] = false
		if err := s.send(ctx, key{c[n%len(c)], slot}); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}

// hear waits for answers, not longer than needed.
func (t *turn) hear(ctx context.Context, w time.Duration) error {
	s := t.scan
	for start := time.Now(); time.Since(start) < w; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if t.ok() && len(t.answered) >= len(t.batch) {
			w = min(w, s.loss.short())
		}
		if err := s.t.receive(min(max(w-time.Since(start), time.Microsecond), 20*time.Millisecond), s.heard); err != nil {
			return err
		}
	}
	return nil
}

// paced decides ports of a target that rations its answers.
func (s *scan) paced(ctx context.Context) error {
	var classes [][]uint16
	for _, c := range [][]uint16{s.refused, s.suspects} {
		if len(c) > 0 {
			classes = append(classes, c)
		}
	}
	s.t.patience(s.hold())
	quiet := make([]uint8, 65536)
	need := uint8(min(max(minQuiet, s.loss.triesFor(8)), maxQuiet))
	gap, rest, group := firstGap, firstRest, s.pend.Len()
	started := false                // the ration has been met: from here on the gap moves gently
	sure := false                   // this turn waits longer
	dry := 0                        // turns in a row in which nobody answered
	streak := 0                     // and in which somebody did
	missed := firstGap * 4 / 5      // a gap that was too short
	vain := 0                       // turns in a row that waited longer, and nobody answered
	fits, most, full := 0, group, 0 // full: turns in a row in which most of them fitted
	// Where packets are lost, one turn without an answer does not say that the pace is too
	// quick, so the pace may be: a turn that counts waits all the longer.
	margin, patient := time.Duration(1), 1
	if s.loss.lost > 0 && s.loss.rate() > 0.05 {
		margin, patient = 3, 2
	}
	patience := s.patience
	if len(s.suspects) == 0 && !s.elsewise {
		patience = min(patience, hostPatience)
	}
	begin, had := time.Now(), s.pend.Len()
	if err := s.patient(ctx, begin.Add(patience)); err != nil {
		return err
	}
	defer func() { s.got = nil }()
	for n := 1; s.pend.Len() > 0 && time.Since(begin) < patience; n++ {
		if s.progress != nil {
			// Some will have to wait for ever, when the patience is not for all of them.
			left := s.pend.Len()
			if decided := had - left; decided > 0 {
				left = min(left, int(float64(decided)*(patience.Seconds()/time.Since(begin).Seconds()-1)))
			}
			s.progress(s.sent, left)
		}
		group = min(group, max(1, s.pend.Len()), max(1, int(s.lim.per(rest)/s.slower)))
		// A small group is out at once: a ration at its end was one at its beginning.
		big := float64(group) > s.lim.per(min(gap/onset, 10*time.Millisecond))/s.slower
		pause := time.Duration(0)
		if big {
			pause = rest
		}
		if sure {
			pause += margin * max(gap, pause) / 2
		}
		if err := s.idle(ctx, pause); err != nil {
			return err
		}
		t := &turn{scan: s, slots: map[uint8]bool{}, answered: map[uint16]bool{}}
		shuffled(s.pend, uint16(n)*15107, func(p uint16) bool {
			t.batch = append(t.batch, p)
			return len(t.batch) < group
		})
		s.got = t.heard
		took, err := t.ask(ctx, n, gap, classes)
		if err != nil {
			return err
		}
		quick := took < min(max(gap/onset, 2*time.Millisecond), 10*time.Millisecond)
		w := max(s.loss.short(), gap)
		if big {
			w = max(s.loss.short(), 50*time.Millisecond)
		}
		if err := t.hear(ctx, w); err != nil {
			return err
		}
		ok, hits := t.ok(), len(t.answered)
		for _, p := range t.batch {
			if sure && ok && !t.answered[p] && (quick || big && hits == 0) {
				if quiet[p]++; quiet[p] >= need {
					s.pend.Del(p)
					s.out.Set(p, s.silence())
					s.elsewise = true
				}
			}
		}
		// A turn that waits longer, and in vain, twice in a row: the pace comes upon each
		// ration a little too early, and the turn in between gets it.
		early := false
		if sure && !ok && hits == 0 {
			vain++
			early = vain >= 2
		} else if sure {
			vain = 0
		}
		sure = ok && hits == 0
		if dry++; ok || hits > 0 {
			dry = 0
		} else if dry%3 == 0 { // perhaps silent ports cost a ration, too
			group = max(1, group/4)
		}
		if ok && hits == 0 {
			fits = len(t.batch)
		}
		// Perhaps it was not their number: the pace may have been too quick as well.
		if full++; !ok || hits > 0 || len(t.batch) < most {
			full = 0
		} else if full == 6 {
			full, most = 0, most*2
		}
		if streak++; !ok && hits == 0 {
			streak = 0
			if margin == 1 && len(t.batch) <= fits {
				missed = max(missed, gap)
			}
		}
		switch {
		case group > 1 && hits > 0:
			group = max(1, group/8)
		case big && !ok && dry < patient:
		case big && !ok:
			rest = min(rest*3/2, maxRest)
		case hits == 0 && ok && !big && !quick: // it is not sent as quickly as it might be
			group = max(1, len(t.batch)*2/3)
		case hits == 0 && ok:
			group = min(group*2, most)
		case hits == 0 && fits > 0 && len(t.batch) > fits: // more than the target answers at once
			most, group = fits, fits
		case hits == 0 && dry < patient:
		case hits == 0 && !started:
			gap = min(gap*2, maxGap)
		case hits == 0:
			gap = min(gap*5/4, maxGap)
		case gap > firstGap:
			started = true
			gap = max(gap*31/32, firstGap)
		}
		switch { // a pace that loss has slowed down
		case early:
			gap = min(gap*5/4, maxGap)
		case streak >= 8:
			gap, rest = min(gap, max(gap/2, missed*5/4)), max(rest/2, firstRest)
		case streak >= 4:
			gap, rest = min(gap, max(gap*7/8, missed*5/4)), max(rest*7/8, firstRest)
		}
	}
	if s.pend.Len() == 0 {
		return nil
	}
	return s.giveUp(ctx, had, time.Since(begin))
}

// giveUp says of the ports that the patience did not pay for what is known of them.
func (s *scan) giveUp(ctx context.Context, had int, took time.Duration) error {
	left := s.pend.Len()
	if len(s.suspects) == 0 && !s.elsewise && len(s.sureOf()) == 0 {
		// A router that has no way, or no neighbour, has it for no port.
		s.undecided(s.out.At(s.refused[0]))
		s.note("a router says that there is no way to the address; it rations its answers, so " + plural(left, "port", "ports") + " got none of their own")
		return nil
	}
	r := model.Reason{State: model.Errored, Why: "rationed"}
	what := "undecided"
	if s.proto == protoTCP && len(s.suspects) == 0 {
		// Neither SYN/ACK nor reset is an ICMP error, and they are not rationed.
		for ; s.tried < shutTries || math.Pow(s.loss.rate(), float64(s.tried)) > maxDoubt; s.tried++ {
			if s.tried >= maxTries {
				break
			}
			if err := s.round(ctx, uint8(s.tried%firstCheck)); err != nil {
				return err
			}
		}
		if left = s.pend.Len(); left == 0 {
			return nil
		}
		r.Blocked, what = true, "either filtered or rejected"
	}
	more := "--patience"
	if done := had - left; done > 0 {
		more = fmt.Sprintf("about %s more, see --patience", (took * time.Duration(left) / time.Duration(done)).Round(time.Second))
	}
	s.undecided(r)
	s.note("the target rations its refusals: " + plural(left, "port is", "ports are") + " " + what + "; asking one by one takes " + more)
	return nil
}

// idle only listens.
func (s *scan) idle(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.t.receive(min(time.Until(end), 50*time.Millisecond), s.heard); err != nil {
			return err
		}
	}
	return nil
}

// short is how long an answer takes at most when nothing goes wrong.
func (l *loss) short() time.Duration {
	if l.srtt == 0 {
		return 200 * time.Millisecond
	}
	return min(max(2*l.srtt+4*l.rttvar, 20*time.Millisecond), time.Second)
}
