package probe

import (
	"sync"
	"time"
)

// Limiter bounds the packets of a whole run, whatever number of addresses it has.
type Limiter struct {
	mu   sync.Mutex
	rate float64 // packets a second
	next time.Time
}

// NewLimiter lets that many packets through in a second.
func NewLimiter(rate int) *Limiter { return &Limiter{rate: float64(max(1, rate))} }

// burst is how far ahead of its time a packet may be sent: timers are no finer.
const burst = 2 * time.Millisecond

// take books one packet and says how long to wait before it is sent. slower divides the
// rate for this one.
func (l *Limiter) take(now time.Time, slower float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next.Before(now.Add(-burst)) {
		l.next = now.Add(-burst)
	}
	l.next = l.next.Add(time.Duration(slower * float64(time.Second) / l.rate))
	return l.next.Sub(now)
}

// per is how many packets may be sent in a time.
func (l *Limiter) per(d time.Duration) float64 { return l.rate * d.Seconds() }
