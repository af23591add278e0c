package probe

import (
	"math"
	"time"
)

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
	// fewTries are for few controls, of which none was lost. Where a tenth is lost each way
	// one port of 20,000 would be missed, if none of the others were found later for it.
	fewTries = 6
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
	n := int(math.Ceil(math.Log(maxWrong/float64(answering+1)) / math.Log(l.rate())))
	if l.lost == 0 {
		n = min(n, fewTries)
	}
	return min(max(minTries+1, n), maxTries)
}
