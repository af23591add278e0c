package apply

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestSeeded: what is open is listed, UDP that is connected and TCP that was closed from
// one side too, and nothing else.
func TestSeeded(t *testing.T) {
	n := testlab.NewNS(t, "seed")
	n.IP("link", "add", "v0", "type", "veth", "peer", "name", "v1")
	n.IP("link", "set", "v0", "up")
	n.IP("link", "set", "v1", "up")
	n.AddAddr("v0", "2001:db8:1::10/64")
	n.IP("addr", "add", "192.0.2.10/24", "dev", "v0")
	const rules = "table inet sixfence {\n\tset live6 {\n\t}\n\tset live4 {\n\t}\n}\n"
	n.Do(func() {
		for set, a := range map[string]string{"live6 {": "[2001:db8:1::10]:0", "live4 {": "192.0.2.10:0"} {
			l, err := net.Listen("tcp", a)
			if err != nil {
				t.Error(err)
				return
			}
			u, err := net.ListenPacket("udp", a)
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			defer u.Close()
			var open []net.Conn
			for range 2 {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				s, err := l.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				defer s.Close()
				open = append(open, c)
			}
			_ = open[1].(*net.TCPConn).CloseWrite()
			d, err := net.Dial("udp", u.LocalAddr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer d.Close()
			open = append(open, d)
			got, err := seeded(change.Image{Text: rules})
			if err != nil {
				t.Error(err)
				return
			}
			for i, c := range open {
				ours, far := netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(c.RemoteAddr().String())
				want := fmt.Sprintf("%d . %s . %d . %s . %d ", []int{6, 6, 17}[i], far.Addr(), far.Port(), ours.Addr(), ours.Port())
				if !strings.Contains(got.Text, want) {
					t.Errorf("%s is not listed:\n%s", want, got.Text)
				}
			}
			// Both ends of the two TCP connections, and one of UDP: the other is not connected.
			_, list, _ := strings.Cut(got.Text, "inet sixfence "+set)
			list, _, _ = strings.Cut(list, "}")
			if n := strings.Count(list, " timeout "); n != 5 {
				t.Errorf("%d flows are listed, want 5:\n%s", n, got.Text)
			}
			for _, c := range open {
				_ = c.Close()
			}
		}
	})
}
