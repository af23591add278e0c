package cli

import (
	"fmt"
	"os"
	"time"
)

// verifyProgress tells a person at a terminal how far the run is.
func (a *app) verifyProgress(quiet bool) func(sent, left int) {
	width, _, tty := terminal(a.stderr)
	if !tty || quiet || os.Getenv("TERM") == "dumb" {
		return nil
	}
	begin, last := time.Now(), time.Now()
	var s speed
	return func(sent, left int) {
		now := time.Now()
		more, known := s.more(now, sent, left)
		if now.Sub(last) < 500*time.Millisecond {
			return
		}
		last = now
		a.told = last
		line := fmt.Sprintf("sixfence: %d packets in %s", sent, now.Sub(begin).Round(time.Second))
		if known {
			line += ", about " + more.String() + " more"
		}
		if len(line) < width {
			fmt.Fprint(a.stderr, "\r\x1b[K"+line)
		}
	}
}

// speed guesses how long something takes from how what is left grows less.
type speed struct {
	since     time.Time
	sent, had int
	rate      float64 // a second; of the last seconds: a target that rations its answers is a thousand times slower
}

// more is how long the rest takes, if that can be told.
func (s *speed) more(now time.Time, sent, left int) (time.Duration, bool) {
	if s.since.IsZero() || left > s.had { // it is more than was thought
		s.since, s.sent, s.had = now, sent, left
	}
	// What need not be sent after all was not sent quickly.
	done, d := min(s.had-left, sent-s.sent), now.Sub(s.since).Seconds()
	if done > 0 && (s.rate == 0 && d > 1 || d > 5) {
		s.rate, s.since, s.sent, s.had = float64(done)/d, now, sent, left
	}
	if s.rate == 0 || left == 0 {
		return 0, false
	}
	return time.Duration(float64(left)/s.rate+1) * time.Second, true
}

func (a *app) clearProgress() {
	if _, _, tty := terminal(a.stderr); tty && os.Getenv("TERM") != "dumb" {
		fmt.Fprint(a.stderr, "\r\x1b[K")
	}
}
