package reach_test

import (
	"net"
	"sync"
	"testing"

	"github.com/sixfence/sixfence/internal/testlab"
)

// hearUDP listens on UDP ports of both families until the test ends. What it returns
// tells whether a datagram with that text has arrived.
func hearUDP[P ~int | ~uint16](t *testing.T, ns *testlab.NS, ports []P) (has func(text string) bool) {
	var mu sync.Mutex
	got := map[string]bool{}
	ns.Do(func() {
		for _, p := range ports {
			for _, network := range []string{"udp4", "udp6"} {
				c, err := net.ListenUDP(network, &net.UDPAddr{Port: int(p)})
				if err != nil {
					t.Errorf("listen: %v", err)
					return
				}
				t.Cleanup(func() { c.Close() })
				go func() {
					b := make([]byte, 512)
					for {
						n, _, err := c.ReadFromUDP(b)
						if err != nil {
							return
						}
						mu.Lock()
						got[string(b[:n])] = true
						mu.Unlock()
					}
				}()
			}
		}
	})
	return func(text string) bool { mu.Lock(); defer mu.Unlock(); return got[text] }
}
