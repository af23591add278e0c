package probe

import (
	"sync"

	"golang.org/x/sys/unix"
)

// sockets shares the descriptors that a process may have among its connections, of all
// addresses that are asked at the same time. Half of them are for everything else.
type sockets struct {
	mu   sync.Mutex
	left int
}

const (
	// leastSockets is what the connections to an address may hold whatever others hold.
	leastSockets = 16
	// mostSockets is what they may hold at most: so many can wait for an answer at once.
	mostSockets = 4096
)

// newSockets counts what the limit of this process allows. The runtime has raised it as far
// as it goes.
func newSockets() *sockets {
	l := unix.Rlimit{Cur: 1024}
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
	return &sockets{left: int(min(l.Cur, 1<<20) / 2)}
}

// allSockets is for all connections of this process.
var allSockets = sync.OnceValue(newSockets)

// take books one more for who holds some.
func (s *sockets) take(held int) bool {
	if held >= mostSockets {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if held >= leastSockets && s.left <= 0 {
		return false
	}
	s.left--
	return true
}

func (s *sockets) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left++
}
