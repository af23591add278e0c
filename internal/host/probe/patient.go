package probe

import (
	"context"
	"time"
)

// Some rules count what is asked too often, and each question too soon makes them count
// anew: who asks for a new SSH connection six times in half a minute is locked out until he
// has kept silent for that long (ufw limit, the recent match of iptables, sets with a
// timeout that packets update). No pace comes upon the end of that, only a rest does.

// longWaits are rests before a control is asked alone: what a rule with a slow limit needs,
// and a little more than the half minute of ufw.
var longWaits = []time.Duration{firstRest, 8 * time.Second, 32 * time.Second}

// longTurns is how often a port must keep silent after a long rest, beside a control that
// answers. It was silent in every round before.
const longTurns = 2

// patient decides ports of a target that answers only who has kept silent for long. It
// leaves the rest to whoever asks after it.
func (s *scan) patient(ctx context.Context, end time.Time) error {
	if len(s.suspects) == 0 || len(s.refused) > 0 || s.loss.lost > 0 {
		return nil
	}
	control := [][]uint16{s.suspects[:1]}
	defer func() { s.got = nil }()
	turn := func(n int, rest time.Duration, batch []uint16) (*turn, error) {
		t := &turn{scan: s, batch: batch, slots: map[uint8]bool{}, answered: map[uint16]bool{}}
		if err := s.idle(ctx, rest); err != nil {
			return nil, err
		}
		s.got = t.heard
		if _, err := t.ask(ctx, n, firstGap, control); err != nil {
			return nil, err
		}
		return t, t.hear(ctx, max(s.loss.short(), 50*time.Millisecond))
	}
	for i, rest := range longWaits {
		if time.Now().Add(rest).After(end) {
			return nil
		}
		t, err := turn(i, rest, nil)
		if err != nil {
			return err
		}
		if !t.ok() {
			continue
		}
		if rest < longWaits[len(longWaits)-1] {
			return nil // a pace is enough
		}
	}
	for n, silent := 0, 0; s.pend.Len() > 0 && silent < longTurns; n++ {
		rest := longWaits[len(longWaits)-1]
		if time.Now().Add(rest).After(end) {
			return nil
		}
		var batch []uint16
		shuffled(s.pend, uint16(n)*15107, func(p uint16) bool {
			batch = append(batch, p)
			return true
		})
		t, err := turn(n, rest, batch)
		switch {
		case err != nil:
			return err
		case !t.ok():
			return nil
		case len(t.answered) == 0:
			silent++
		default:
			silent = 0
		}
		if silent == longTurns {
			s.silent(s.pend)
			for _, p := range batch {
				s.pend.Del(p)
			}
		}
	}
	return nil
}
