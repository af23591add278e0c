package probe

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// full sends connections to a port that drops them until no more may be on their way.
func full(t *testing.T, c *connects) int {
	t.Helper()
	for n := 0; ; n++ {
		switch err := c.send(key{uint16(1 + n), 0}); {
		case errors.Is(err, errFull):
			return n
		case err != nil:
			t.Fatal(err)
		case n > 60_000:
			t.Fatal("there is no end")
		}
	}
}

// TestSockets: who is alone may hold many sockets, who comes later still gets some, and
// what is given back is everybody's.
func TestSockets(t *testing.T) {
	t.Parallel()
	l := newLab(t, "vfs")
	rules(l.target, t, input())
	l.client.Do(func() {
		open := func(share *sockets, to netip.Addr) *connects {
			c, err := newConnects(&flow{dst: to, proto: protoTCP}, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			c.share, c.life = share, time.Hour
			return c
		}
		// Most systems allow 1,024 descriptors or more.
		var was unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Fatal(err)
		}
		share := newSockets()
		if share.left != int(min(was.Cur, 1<<20)/2) {
			t.Errorf("%d sockets of %d descriptors", share.left, was.Cur)
		}
		share.left = 512
		one, two, three := open(share, l.v4), open(share, l.v6), open(share, l.v4)
		defer two.close()
		defer three.close()
		for i, c := range []*connects{one, two, three} {
			if n, want := full(t, c), []int{512, leastSockets, leastSockets}[i]; n != want {
				t.Errorf("address %d has %d sockets of 512, want %d", i, n, want)
			}
		}
		one.close()
		if n := full(t, two); n != 512-2*leastSockets {
			t.Errorf("after one has ended another gets %d more", n)
		}
		// The time of an answer is over: there is room again.
		two.life = 0
		if err := two.receive(0, func(answer) {}); err != nil {
			t.Fatal(err)
		}
		if len(two.open) != 0 || share.left != 512-leastSockets {
			t.Errorf("%d are open, %d are left", len(two.open), share.left)
		}
	})
}
