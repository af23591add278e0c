package probe

import (
	"context"
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// A target that rations its errors (Linux: one a second to the same host, after a burst of
// six) answers few of many probes. Silence then says nothing, unless there was an error
// left to be sent. So a port is asked together with one that is known to be refused, right
// behind it: when that one is answered, there was a ration when the port was asked, and
// its silence counts. When neither is, the ration was spent, and nothing counts.
//
// Silent ports are asked in groups, at first all at once: one ration decides a group that
// is silent as a whole. A group that takes a while to send is sent after a rest at least
// as long, so that there was a ration from its beginning on; only its own members could
// have spent it. A group of which some are refused is tried again in smaller ones. Ports
// that are refused cost one ration each, and when they are more than the patience pays
// for, those that were not asked are inferred from those that were.

const (
	firstGap = 20 * time.Millisecond
	maxGap   = 3 * time.Second
	// firstRest is more than what Linux needs for one ration.
	firstRest = 1100 * time.Millisecond
	maxRest   = 5 * time.Second
	// minSample is how many ports must have been decided alike before others are inferred.
	minSample = 30
)

// paced decides ports of a target that rations its answers.
func (s *scan) paced(ctx context.Context, controls []uint16) error {
	quiet := make([]uint8, 65536)
	need := uint8(min(max(minTries, s.loss.triesFor(8)), maxTries))
	silent := &model.Ports{}
	gap, rest, group := firstGap, firstRest, s.pend.Len()
	started := false // the ration has been met: from here on the gap moves gently
	decided, turn := 0, 0
	var alike model.Reason
	mixed := false
	end := time.Now().Add(s.patience)
	answered := map[uint16]bool{}
	var ok bool
	var slot uint8
	s.got = func(a answer) {
		if a.try == slot {
			ok = true
		} else {
			answered[a.port] = true
		}
	}
	defer func() { s.got = nil }()
	for s.pend.Len() > 0 {
		if left := s.pend.Len(); time.Now().After(end) ||
			decided >= 2*minSample && !mixed && group == 1 && time.Duration(left)*gap > time.Until(end) {
			break
		}
		if s.progress != nil {
			s.progress(s.sent, s.pend.Len())
		}
		group = min(group, max(1, s.pend.Len()), max(1, int(s.lim.per(rest)/s.slower)))
		// A small group is out at once: a ration at its end was one at its beginning.
		big := float64(group) > s.lim.per(10*time.Millisecond)/s.slower
		if big {
			if err := s.idle(ctx, rest); err != nil {
				return err
			}
		}
		batch := make([]uint16, 0, group)
		shuffled(s.pend, uint16(turn)*15107, func(p uint16) bool {
			batch = append(batch, p)
			return len(batch) < group
		})
		control := controls[turn%len(controls)]
		slot = uint8(firstCheck + turn%(tries-firstCheck))
		turn++
		clear(answered)
		ok = false
		s.checks[slot].at = time.Time{}
		begin := time.Now()
		for _, p := range batch {
			if err := s.send(ctx, key{p, uint8(turn % firstCheck)}); err != nil {
				return err
			}
		}
		if err := s.send(ctx, key{control, slot}); err != nil {
			return err
		}
		start := time.Now()
		quick := start.Sub(begin) < 10*time.Millisecond
		w := max(s.loss.short(), gap)
		if big {
			w = max(s.loss.short(), 50*time.Millisecond)
		}
		for time.Since(start) < w {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if ok && len(answered) == len(batch) && w > s.loss.short() {
				w = s.loss.short()
			}
			if err := s.t.receive(min(max(w-time.Since(start), time.Microsecond), 20*time.Millisecond), s.heard); err != nil {
				return err
			}
		}
		hits := len(answered)
		for _, p := range batch {
			switch {
			case answered[p]:
				decided++
				if r := s.out.At(p); alike == (model.Reason{}) {
					alike = r
				} else if alike != r {
					mixed = true
				}
			case ok && (quick || big && hits == 0):
				if quiet[p]++; quiet[p] >= need {
					s.pend.Del(p)
					silent.Add(p)
					decided++
					mixed = true
				}
			}
		}
		switch {
		case group > 1 && hits > 0:
			group = max(1, group/8)
		case big && !ok:
			rest = min(rest*3/2, maxRest)
		case hits == 0 && ok:
			group *= 2
		case hits == 0 && !started:
			gap = min(gap*2, maxGap)
		case hits == 0:
			gap = min(gap*5/4, maxGap)
		case gap > firstGap:
			started = true
			gap = max(gap*31/32, firstGap)
		}
	}
	s.silent(silent)
	if s.pend.Len() == 0 {
		return nil
	}
	// What is left was not decided.
	infer := !mixed && decided >= minSample && s.proto != protoUDP
	for p := range s.pend.All {
		r := model.Reason{State: model.Errored, Why: "rationed"}
		if infer {
			r = alike
			r.Inferred = true
		}
		s.out.Set(p, r)
	}
	if infer {
		s.note("the target rations its refusals: " + plural(s.pend.Len(), "port was", "ports were") + " not decided one by one, but inferred from " + plural(decided, "port", "ports") + " that were and are all alike")
	} else {
		s.note("the target rations its refusals: " + plural(s.pend.Len(), "port is", "ports are") + " undecided; give it more time with --patience")
	}
	*s.pend = model.Ports{}
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
