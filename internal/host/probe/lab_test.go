package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	model "github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/testlab"
)

// lab is a target and a vantage, dual stack, on one link or with a router between.
type lab struct {
	t              testing.TB
	target, client *testlab.NS
	router         *testlab.NS // r0 to the client, r1 to the target
	v4, v6, ll     netip.Addr
	addrs          map[string]netip.Addr // others, by what a lab calls them
}

// newRoutedLab is newLab with a router between.
func newRoutedLab(t testing.TB, hint string) *lab {
	t.Helper()
	l := &lab{
		t: t, target: newHost(t, hint+"t"), client: newHost(t, hint+"c"), router: newHost(t, hint+"r"),
		v4: netip.MustParseAddr("192.0.2.2"), v6: netip.MustParseAddr("2001:db8::2"), addrs: map[string]netip.Addr{},
	}
	l.router.Sysctl("net/ipv4/ip_forward", "1")
	l.router.Sysctl("net/ipv6/conf/all/forwarding", "1")
	testlab.Link(l.client, "c0", l.router, "r0")
	testlab.Link(l.router, "r1", l.target, "t0")
	l.client.IP("addr", "add", "198.51.100.1/24", "dev", "c0")
	l.router.IP("addr", "add", "198.51.100.254/24", "dev", "r0")
	l.router.IP("addr", "add", "192.0.2.254/24", "dev", "r1")
	l.target.IP("addr", "add", "192.0.2.2/24", "dev", "t0")
	l.client.AddAddr("c0", "2001:db8:c::1/64")
	l.router.AddAddr("r0", "2001:db8:c::fe/64")
	l.router.AddAddr("r1", "2001:db8::fe/64")
	l.target.AddAddr("t0", "2001:db8::2/64")
	l.client.IP("route", "add", "default", "via", "198.51.100.254")
	l.client.IP("-6", "route", "add", "default", "via", "2001:db8:c::fe")
	l.target.IP("route", "add", "default", "via", "192.0.2.254")
	l.target.IP("-6", "route", "add", "default", "via", "2001:db8::fe")
	return l
}

// newHost is a namespace that waits for nothing.
func newHost(t testing.TB, hint string) *testlab.NS {
	n := testlab.NewNS(t, hint)
	for _, k := range []string{"default", "all"} {
		n.Sysctl("net/ipv6/conf/"+k+"/accept_dad", "0")
		n.Sysctl("net/ipv6/conf/"+k+"/router_solicitations", "0")
	}
	return n
}

func newLab(t testing.TB, hint string) *lab {
	t.Helper()
	l := &lab{
		t: t, target: newHost(t, hint+"t"), client: newHost(t, hint+"c"),
		v4: netip.MustParseAddr("192.0.2.2"), v6: netip.MustParseAddr("2001:db8::2"), addrs: map[string]netip.Addr{},
	}
	testlab.Link(l.target, "t0", l.client, "c0")
	l.number()
	return l
}

// number gives both ends of one link their addresses.
func (l *lab) number() {
	l.t.Helper()
	l.target.IP("addr", "add", "192.0.2.2/24", "dev", "t0")
	l.client.IP("addr", "add", "192.0.2.1/24", "dev", "c0")
	l.target.AddAddr("t0", "2001:db8::2/64")
	l.client.AddAddr("c0", "2001:db8::1/64")
	testlab.Eventually(l.t, 20*time.Second, "link-local addresses", func() bool {
		l.target.Do(func() {
			i, err := net.InterfaceByName("t0")
			if err != nil {
				return
			}
			as, _ := i.Addrs()
			for _, a := range as {
				if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsLinkLocalUnicast() {
					l.ll = p.Addr().WithZone("c0")
				}
			}
		})
		return l.ll.IsValid() && strings.Contains(l.client.IP("-6", "addr", "show", "dev", "c0"), "fe80::")
	})
}

// listen opens TCP ports in the target, on every address unless one is given.
func (l *lab) listen(host string, ports ...int) {
	l.t.Helper()
	l.target.Do(func() {
		for _, p := range ports {
			x, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(p)))
			if err != nil {
				l.t.Errorf("listen: %v", err)
				continue
			}
			l.t.Cleanup(func() { _ = x.Close() })
		}
	})
}

// listenFew opens TCP ports whose connections nobody takes, with room for so many.
func (l *lab) listenFew(room int, ports ...int) {
	l.t.Helper()
	l.target.Do(func() {
		for _, p := range ports {
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				l.t.Fatal(err)
			}
			l.t.Cleanup(func() { unix.Close(fd) })
			err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0), unix.Bind(fd, &unix.SockaddrInet6{Port: p}), unix.Listen(fd, room))
			if err != nil {
				l.t.Errorf("listen: %v", err)
			}
		}
	})
}

// rules loads an nft script into a namespace.
func rules(n *testlab.NS, t testing.TB, text string) {
	t.Helper()
	c := n.Command(testlab.RequireTool(t, "nft"), "-f", "-")
	c.Stdin = strings.NewReader(text)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s\n%s", err, out, text)
	}
}

// serve answers every datagram to these ports.
func (l *lab) serve(ports ...int) {
	l.t.Helper()
	l.target.Do(func() {
		for _, p := range ports {
			for _, network := range []string{"udp4", "udp6"} {
				// On each address, so that the answer comes from the one that was asked.
				for _, host := range []string{l.v4.String(), l.v6.String()} {
					if strings.Contains(host, ":") != (network == "udp6") {
						continue
					}
					c, err := net.ListenPacket(network, net.JoinHostPort(host, fmt.Sprint(p)))
					if err != nil {
						l.t.Errorf("listen: %v", err)
						continue
					}
					l.t.Cleanup(func() { _ = c.Close() })
					go func() {
						buf := make([]byte, 2048)
						for {
							_, from, err := c.ReadFrom(buf)
							if err != nil {
								return
							}
							_, _ = c.WriteTo([]byte("hello"), from)
						}
					}()
				}
			}
		}
	})
}

// probe asks an address from the client.
func (l *lab) probe(o Options) *model.Address {
	l.t.Helper()
	found := &model.Address{}
	l.client.Do(func() {
		p, err := Open(o)
		if err != nil {
			l.t.Errorf("open %s: %v", o.Addr, err)
			return
		}
		defer p.Close()
		if err := p.Run(context.Background()); err != nil {
			l.t.Errorf("probe %s: %v", o.Addr, err)
		}
		found = p.Found
	})
	return found
}

func spec(t testing.TB, words ...string) *model.Spec {
	t.Helper()
	s := &model.Spec{}
	for _, w := range words {
		if err := s.Parse(w); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// states writes the table in words: "22,80 open; 1-21,23-79 filtered".
func states(t *model.Table) string {
	var out []string
	for _, st := range append(model.States(), "") {
		var parts []string
		for p := 0; p < 65536; {
			if !t.Want.Has(uint16(p)) || t.At(uint16(p)).State != st {
				p++
				continue
			}
			from := p
			for p < 65536 && t.Want.Has(uint16(p)) && t.At(uint16(p)).State == st {
				p++
			}
			if from == p-1 {
				parts = append(parts, fmt.Sprint(from))
			} else {
				parts = append(parts, fmt.Sprintf("%d-%d", from, p-1))
			}
		}
		if parts != nil {
			out = append(out, strings.Join(parts, ",")+" "+string(st))
		}
	}
	return strings.Join(out, "; ")
}
