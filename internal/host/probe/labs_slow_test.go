package probe

import (
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/testlab"
)

// slowLink puts a link between target and client that takes its time, by a program that hands
// the frames on. It has addresses of its own, l.v4 and l.v6 from then on.
func (l *lab) slowLink(delay time.Duration) {
	l.t.Helper()
	tap := func(n *testlab.NS, name string) *os.File {
		var f *os.File
		n.Do(func() {
			fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			if err != nil {
				l.t.Errorf("open tun: %v", err)
				return
			}
			r, err := unix.NewIfreq(name)
			if err == nil {
				r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
				err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
			}
			if err != nil {
				l.t.Errorf("make %s: %v", name, err)
			}
			f = os.NewFile(uintptr(fd), name)
		})
		if f == nil {
			l.t.FailNow()
		}
		l.t.Cleanup(func() { _ = f.Close() })
		n.IP("link", "set", name, "up")
		return f
	}
	a, b := tap(l.target, "slow0"), tap(l.client, "slow1")
	l.target.IP("addr", "add", "203.0.113.2/24", "dev", "slow0")
	l.client.IP("addr", "add", "203.0.113.1/24", "dev", "slow1")
	l.target.AddAddr("slow0", "2001:db8:5::2/64")
	l.client.AddAddr("slow1", "2001:db8:5::1/64")
	l.v4, l.v6 = netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("2001:db8:5::2")
	hand := func(from, to *os.File) {
		buf := make([]byte, 2048)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			frame := append([]byte(nil), buf[:n]...)
			time.AfterFunc(delay, func() { _, _ = to.Write(frame) })
		}
	}
	go hand(a, b)
	go hand(b, a)
}

// orError lets a port be unknown.
func orError(ws []wanted) []wanted {
	for i := range ws {
		ws[i].orUnknown = true
	}
	return ws
}

// slowCases are targets that are far away, and limits that only few packets meet.
func slowCases() []labCase {
	return []labCase{
		{
			name: "far away", what: "an answer takes 1.6 seconds", ports: "tcp/1-40", slow: true,
			build: func(l *lab) {
				l.slowLink(800 * time.Millisecond)
				threeOpen(l)
				rules(l.target, l.t, input("tcp dport { 22, 30-35 } accept"))
			},
			want: orError(both("tcp: 22 open; 30-35 closed; 1-21,23-29,36-40 filtered")),
			nmap: "it waits for ten seconds at most, and for an answer a second",
		},
		{
			name: "one reset a second", what: "every port but one is rejected by a rule that does so once a second", ports: "tcp/1-12", slow: true,
			build: func(l *lab) {
				rules(l.target, l.t, input("tcp dport 7 drop", "meta nfproto ipv4 meta l4proto tcp limit rate 1/second burst 3 packets reject with tcp reset",
					"meta nfproto ipv6 meta l4proto tcp limit rate 1/second burst 3 packets reject with tcp reset"))
			},
			want: both("tcp: 1-6,8-12 closed; 7 filtered"),
			nmap: "a reset that the limit kept back is a filtered port to it",
		},
		{
			name: "half of the source ports", what: "a rule that drops every other source port", ports: "tcp/20-30",
			build: func(l *lab) {
				l.listen("", 22)
				rules(l.target, l.t, input("tcp sport & 1 == 1 drop", "meta l4proto tcp accept"))
			},
			want: both("tcp: 22 open; 20-21,23-30 closed"),
			nmap: "it sends from one source port",
		},
		{
			name: "half of the resets", what: "half of all resets are lost, and of nothing else", ports: "tcp/1-60", slow: true,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("tcp dport { 22, 30-40 } accept")+"table inet loss {\nchain o {\ntype filter hook output priority 0;\ntcp flags & rst == rst numgen random mod 2 0 drop\n}\n}\n")
			},
			want: orError(both("tcp: 22 open; 30-40 closed; 1-21,23-29,41-60 filtered")),
			nmap: "what was lost with every try is filtered to it",
		},
	}
}
