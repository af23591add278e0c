package probe

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// ownCases are labs in which the host that asks has rules of its own.
func ownCases() []labCase {
	return []labCase{
		{
			name: "own rules", what: "the host that asks drops, and rejects, some of what it sends", ports: "tcp/20-28 echo", both: true,
			build: func(l *lab) {
				l.listen("", 22)
				l.client.Sysctl("net/ipv4/ping_group_range", "0 2147483647")
				rules(l.client, l.t, "table inet own {\nchain o {\ntype filter hook output priority 0;\ntcp dport 26 drop\ntcp dport 27 reject with icmpx admin-prohibited\ntcp dport 28 reject\n"+
					"icmpv6 type echo-request drop\n}\n}\n")
			},
			want: []wanted{
				{addr: v4, states: "icmp: 8 open | tcp: 22 open; 20-21,23-25 closed; 26-28 error", life: model.Answered},
				{addr: v6, states: "icmpv6: 128 error | tcp: 22 open; 20-21,23-25 closed; 26-28 error", life: model.Answered},
			},
			nmap: "what its own host drops is filtered to it",
		},
		{
			name: "own rules, nothing leaves", what: "the host that asks drops all it would send", ports: "tcp/1-50 udp/5000 echo", both: true,
			build: func(l *lab) {
				l.client.Sysctl("net/ipv4/ping_group_range", "0 2147483647")
				rules(l.client, l.t, "table inet own {\nchain o {\ntype filter hook output priority 0;\nmeta l4proto { tcp, udp } drop\nicmp type echo-request drop\nicmpv6 type echo-request drop\n}\n}\n")
			},
			want: []wanted{
				{addr: v4, states: "icmp: 8 error | tcp: 1-50 error | udp: 5000 error"},
				{addr: v6, states: "icmpv6: 128 error | tcp: 1-50 error | udp: 5000 error"},
			},
			nmap: "what its own host drops is filtered to it",
		},
		{
			name: "own address rewritten", what: "the host that asks sends under another of its addresses, by a rule", ports: "tcp/20-30 udp/5000-5001", both: true,
			build: func(l *lab) {
				l.listen("", 22)
				l.serve(5000)
				l.client.IP("addr", "add", "192.0.2.7/24", "dev", "c0")
				l.client.IP("-6", "addr", "add", "2001:db8::7/64", "dev", "c0", "nodad", "preferred_lft", "0", "valid_lft", "forever")
				rules(l.client, l.t, "table inet own {\nchain p {\ntype nat hook postrouting priority srcnat;\nip saddr 192.0.2.1 snat ip to 192.0.2.7\nip6 saddr 2001:db8::1 snat ip6 to 2001:db8::7\n}\n}\n")
			},
			want: both("tcp: 22 open; 20-21,23-30 closed | udp: 5000 open; 5001 closed"),
			nmap: "with -sS it hears only what comes to the address that it sends from",
		},
		{
			name: "reset behind the handshake", what: "a service that accepts, and resets the connection at once", ports: "tcp/20-30", both: true,
			build: func(l *lab) {
				l.target.Do(func() {
					x, err := net.Listen("tcp", ":22")
					if err != nil {
						l.t.Errorf("listen: %v", err)
						return
					}
					l.t.Cleanup(func() { _ = x.Close() })
					go func() {
						for {
							c, err := x.Accept()
							if err != nil {
								return
							}
							_ = c.(*net.TCPConn).SetLinger(0)
							_ = c.Close()
						}
					}()
				})
			},
			want: both("tcp: 22 open; 20-21,23-30 closed"),
		},
	}
}

// TestDeaf: the answers come, and this host lets none in. To connections that is silence; it is
// not the target's.
func TestDeaf(t *testing.T) {
	t.Parallel()
	l := newLab(t, "vfyd")
	l.listen("", 22)
	rules(l.client, t, "table inet own {\nchain i {\ntype filter hook input priority 0; policy drop;\nicmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n}\n}\n")
	var all sync.WaitGroup
	for _, w := range []wanted{
		{addr: v4, states: "tcp: 20-24 error", life: model.Neighbour},
		{addr: v6, states: "tcp: 20-24 error", life: model.Neighbour},
	} {
		all.Go(func() {
			f := l.probe(Options{Addr: w.addr(l), Spec: spec(t, "tcp/20-24"), Connect: true})
			if complaint := w.wrong(t, f); complaint != "" {
				t.Errorf("connect: %s\n%v", complaint, f.Notes)
			}
			// A packet socket hears before the rules do.
			w.states, w.life = "tcp: 22 open; 20-21,23-24 closed", model.Answered
			if complaint := w.wrong(t, l.probe(Options{Addr: w.addr(l), Spec: spec(t, "tcp/20-24")})); complaint != "" {
				t.Errorf("raw: %s", complaint)
			}
		})
	}
	all.Wait()
}

// TestTooBigRefusesNothing: a datagram of QUIC's size does not fit in one packet on the way. The
// router's word about that is no answer of the port.
func TestTooBigRefusesNothing(t *testing.T) {
	t.Parallel()
	l := newRoutedLab(t, "vfyb")
	l.client.Sysctl("net/ipv4/ping_group_range", "0 2147483647") // or the first question is learnt from
	l.router.IP("link", "set", "r1", "mtu", "1000")
	l.target.IP("link", "set", "t0", "mtu", "1000")
	f := l.probe(Options{Addr: l.v4, Spec: spec(t, "udp/443-444"), Connect: true})
	if complaint := (wanted{states: "udp: 443-444 closed", life: model.Answered}).wrong(t, f); complaint != "" {
		t.Errorf("%s\n%v", complaint, f.Notes)
	}
}

// TestGoesAway: the target answers for its address when the probes begin, and its link goes down
// under them. That is not filtered.
func TestGoesAway(t *testing.T) {
	t.Parallel()
	l := newLab(t, "vfyg")
	rules(l.target, t, input())
	var all sync.WaitGroup
	for _, addr := range []netip.Addr{l.v4, l.v6} {
		for _, connect := range []bool{false, true} {
			all.Go(func() {
				f := l.probe(Options{Addr: addr, Spec: spec(t, "tcp/1-50"), Connect: connect})
				for _, table := range f.Tables {
					if n := table.Count(model.Filtered); n > 0 {
						t.Errorf("%s, connect %v: %d ports filtered, life %q, %v", addr, connect, n, f.Life, f.Notes)
					}
				}
			})
		}
	}
	time.Sleep(500 * time.Millisecond) // while they are asked; sooner or later is the same to them
	l.target.IP("link", "set", "t0", "down")
	all.Wait()
}
