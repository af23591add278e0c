package probe

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Turns lets the addresses of one host be asked one after the other, round by round. A limit
// there may be one for all of them, and an answer that one gets is missing to the others.
type Turns struct {
	sync.Mutex
	last    *scan
	scans   []*scan
	limited bool // one of them has met a limit
}

// begin gives s its turn. It tells whether somebody else had one since its last.
func (t *Turns) begin(s *scan) (others bool) {
	others = t.last != nil && t.last != s
	t.last = s
	if !slices.Contains(t.scans, s) {
		t.scans = append(t.scans, s)
	}
	return others
}

// show lets the others know which ports answer. They look at it in their turn, while s may
// hear more.
func (s *scan) show() {
	for p := range s.out.Want.All {
		if answers(s.out.At(p).State) {
			s.shown.Add(p)
		}
	}
}

// unlike tells whether a port answers to s and not to another scan, or the other way round.
func (t *Turns) unlike(s *scan) bool {
	s.show()
	for _, o := range t.scans {
		if o.proto != s.proto {
			continue
		}
		for p := range s.out.Want.All {
			if o.out.Want.Has(p) && o.shown.Has(p) != s.shown.Has(p) {
				return true
			}
		}
	}
	return false
}

// lastRest is how long a rule that answers one packet a second needs for the next one.
const lastRest = 1100 * time.Millisecond

// rest lets others have their turn, and waits before the next round.
//
// A limit hides a port in a round when its ration is spent by then. The last round comes so
// long after the first that what was spent before us is there again. What we spend ourselves
// goes to ports that answer, and they show the limit: all of them are asked again, several
// times, which is more than the ration that was missing to others. So where all of them
// answered every time there is nothing else to wait for. Otherwise, and where others had
// their turn and met a limit, or heard of ports that are silent here, the last two rounds
// are as far apart.
func (s *scan) rest(ctx context.Context, last bool, begun, ended time.Time) error {
	s.show()
	s.alone.Unlock()
	var err error
	if last { // others need not wait for this
		err = s.idle(ctx, lastRest-time.Since(begun))
	}
	s.alone.Lock()
	if s.alone.begin(s) {
		ended = time.Now()
		s.sure = s.sure && s.out.Want.Len() > s.pend.Len() && !s.alone.limited && !s.alone.unlike(s)
	}
	// Rejections are rationed, and each port will have its own turn.
	if err == nil && last && len(s.refused) == 0 && (!s.sure || s.loss.lost > 0) {
		err = s.idle(ctx, lastRest-time.Since(ended))
	}
	return err
}
