package probe

import (
	"context"
	"math"
	"slices"
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

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

// sureOf are the ports of which an answer is sure.
func (s *scan) sureOf() []uint16 {
	if s.sparing() {
		return s.opens
	}
	return s.controls
}

// sparing tells that nothing can be asked again for free. A connection waits in the queue of
// its listener until the program takes it, and a full queue is as silent as a filter: five
// have room by default in some languages, and another run comes tomorrow. So where nothing
// but open ports answers a client, a check in the first round and one in the last are all,
// unless one is missing. What they do not tell about the loss more rounds make up for.
func (s *scan) sparing() bool { return len(s.controls) == 0 && len(s.opens) > 0 }

// spare looks whether the checks of the first round came back, and if not why: asked all at
// once, few answers are a limit's.
func (s *scan) spare(ctx context.Context) error {
	s.known = true
	if s.loss.lost == 0 {
		return nil
	}
	return s.calibrate(ctx, tries-firstCheck, 0)
}

// again asks ports that have answered once more, and at once. Those that are silent now do
// not answer all who ask: their answers are rationed, and others may be silent for that.
func (s *scan) again(ctx context.Context) error {
	sample, all := s.sample(min(max(64, s.pend.Len()), 2048))
	s.known = len(sample) > 0
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
	asked, got := 2*len(sample), 0
	for _, n := range heard {
		got += min(n, 2)
	}
	suspects := slices.Clone(sample)
	if len(sample) > 8 { // few would hide among them
		suspects = slices.DeleteFunc(suspects, func(p uint16) bool { return heard[p] > 1 })
		slices.SortStableFunc(suspects, func(a, b uint16) int { return heard[a] - heard[b] })
		suspects = suspects[:min(len(suspects), 8)]
	}
	// More than two of three are lost, every time: where one of two is lost by chance, that
	// happens once in a thousand times.
	for range 3 {
		clear(heard)
		if err := ask(suspects, 2, 14); err != nil {
			return err
		}
		for _, p := range suspects {
			asked, got = asked+14, got+min(heard[p], 14)
		}
		suspects = slices.DeleteFunc(suspects, func(p uint16) bool { return heard[p] > 4 })
	}
	switch {
	case len(suspects) == 0:
		s.loss.sent += asked
		s.loss.lost += max(0, asked-got)
		s.sure = all && got >= asked
	case len(suspects) < len(sample) || s.rationed(ctx, 0.6):
		s.suspects = suspects
	}
	return nil
}

// sample are some of the ports that answered, first those that have a silent one beside
// them: a rule that answers some packets only answers a few ports of many. It tells whether
// these are all.
func (s *scan) sample(most int) (_ []uint16, all bool) {
	var edge, other []uint16
	prev, have := uint16(0), false
	for p := range s.out.Want.All {
		r := s.out.At(p)
		answered := (r.State == model.Open && !s.connects || r.State == model.Closed) && !r.ICMP
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
	return append(out, spread(other, most-len(out))...), len(edge)+len(other) <= most
}

// latecomers judges the ports that answered in a later round. When there are more than the
// loss explains, answers are rationed.
func (s *scan) latecomers() {
	n := len(s.late)
	if n == 0 {
		return
	}
	answering := s.out.Want.Len() - s.pend.Len() - n
	if s.loss.lost > 0 { // one of them may be the one that was lost
		answering = max(answering, 1)
	}
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

// rationed tells whether what looks like loss is a limit: asked slowly, the controls answer
// every time, and more often in a row than one in a thousand times by chance where that part
// is lost. It takes its time, and is asked once.
func (s *scan) rationed(ctx context.Context, lost float64) bool {
	if s.strolled {
		return false
	}
	s.strolled = true
	save := *s.loss
	defer func() { s.loss.sent, s.loss.lost = save.sent, save.lost }()
	n := int(math.Ceil(math.Log(0.001) / math.Log(1-min(lost, 0.9))))
	for _, test := range []struct {
		n   int
		gap time.Duration
	}{{n, lastRest}, {min(n, 4), 7 * time.Second}} {
		if s.idle(ctx, test.gap) != nil { // what was spent before
			return false
		}
		s.loss.sent, s.loss.lost = 0, 0
		for i := 0; i < test.n && s.loss.lost < 2; i += 2 {
			if s.calibrate(ctx, 2, test.gap) != nil {
				return false
			}
		}
		if s.loss.lost == 0 && s.loss.sent > 0 {
			return true
		}
		if s.loss.lost*2 < s.loss.sent { // most answer: it is loss
			return false
		}
	}
	return false
}
