package probe

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// spend lets somebody else use up what a limit has left: connections to all these ports, of
// both families, at once and more than once.
func (l *lab) spend(ports ...int) {
	l.t.Helper()
	var all sync.WaitGroup
	for range 3 {
		for _, p := range ports {
			for _, a := range []netip.Addr{l.v4, l.v6} {
				// A namespace is that of one thread, and a dialer would start others.
				all.Go(func() {
					l.client.Do(func() {
						d := net.Dialer{Timeout: 100 * time.Millisecond}
						if c, err := d.Dial("tcp", netip.AddrPortFrom(a, uint16(p)).String()); err == nil {
							_ = c.Close()
						}
					})
				})
			}
		}
	}
	all.Wait()
}

func span(from, to int) (out []int) {
	for p := from; p <= to; p++ {
		out = append(out, p)
	}
	return out
}

// perFamily is a rule for each family, with a limit of its own.
func perFamily(rule string) string {
	return "meta nfproto ipv4 " + rule + "\nmeta nfproto ipv6 " + rule
}

// restCases are limits that show in some rounds only: what decides when the last one comes.
func restCases() []labCase {
	var even []string
	for p := 2; p <= 400; p += 2 {
		even = append(even, fmt.Sprint(p))
	}
	return []labCase{
		{
			name: "spent by others", what: "a rule that rejects one a second, right after somebody else has spent that", ports: "tcp/22 tcp/80 tcp/443 tcp/100-102", rate: 400_000,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("tcp dport { 22, 80, 443 } accept", perFamily("tcp dport 100-101 limit rate 1/second burst 1 packets reject with tcp reset")))
			},
			before: func(l *lab) { l.spend(span(100, 101)...) },
			want:   []wanted{{addr: v4, states: "tcp: 22,80,443 open; 100-101 closed; 102 filtered", life: model.Answered}},
			nmap:   "a reset that the limit kept back is a filtered port to it",
		},
		{
			name: "refusals spent by others", what: "reject by default, drop for some, and the errors of this second are spent", ports: "tcp/1-8", slow: true,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("tcp dport { 5, 7 } drop", "meta l4proto tcp reject"))
			},
			before: func(l *lab) { l.spend(span(1, 8)...) },
			want:   both("tcp: 1-4,6,8 rejected; 5,7 filtered"),
			nmap:   "with -sT a port unreachable is a refused connection to it, so a rejected port is closed",
		},
		{
			name: "one limit for both", what: "a rule that rejects one a second, of IPv4 and IPv6 together", ports: "tcp/22 tcp/80 tcp/100-110", slow: true, rate: 400_000,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("tcp dport { 22, 80 } accept", "tcp dport 100-105 limit rate 1/second burst 3 packets reject with tcp reset"))
			},
			want: both("tcp: 22,80 open; 100-105 closed; 106-110 filtered"),
			nmap: "a reset that the limit kept back is a filtered port to it",
		},
		{
			name: "one limit for both, one is deaf", what: "the same, accepting, and what IPv6 answers is lost", ports: "tcp/22 tcp/80 tcp/100-110", slow: true, rate: 400_000,
			build: func(l *lab) {
				threeOpen(l)
				l.client.Sysctl("net/ipv4/ping_group_range", "0 2147483647")
				rules(l.target, l.t, input("tcp dport { 22, 80 } accept", "tcp dport 100-103 limit rate 1/second burst 2 packets accept")+
					"table ip6 out {\nchain o {\ntype filter hook output priority 0;\nmeta l4proto tcp drop\n}\n}\n")
			},
			want: []wanted{
				{addr: v4, states: "tcp: 22,80 open; 100-103 closed; 104-110 filtered", life: model.Answered},
				{addr: v6, states: "tcp: 22,80,100-110 filtered", life: model.Answered},
			},
			nmap: "a reset that the limit kept back is a filtered port to it",
		},
		{
			name: "few among many", what: "two hundred ports answer, every other one; ten more answer twice a second", ports: "tcp/1-440", slow: true, rate: 400_000, patience: 10 * time.Minute,
			build: func(l *lab) {
				rules(l.target, l.t, input("tcp dport { "+strings.Join(even, ", ")+" } accept", perFamily("tcp dport 401-410 limit rate 2/second burst 1 packets reject with tcp reset")))
			},
			want: func() []wanted {
				var closed, filtered []string
				for p := 1; p < 400; p += 2 {
					filtered, closed = append(filtered, fmt.Sprint(p)), append(closed, fmt.Sprint(p+1))
				}
				return both("tcp: " + strings.Join(closed[:199], ",") + ",400-410 closed; " + strings.Join(filtered, ",") + ",411-440 filtered")
			}(),
			nmap: "a reset that the limit kept back is a filtered port to it",
		},
		{
			name: "quick limit", what: "a rule that rejects a thousand a second, of two thousand ports", ports: "tcp/22 tcp/1001-3500", slow: true, rate: 400_000, patience: 10 * time.Minute,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("tcp dport 22 accept", perFamily("tcp dport 1001-3000 limit rate 1000/second burst 1000 packets reject with tcp reset")))
			},
			want: both("tcp: 22 open; 1001-3000 closed; 3001-3500 filtered"),
			nmap: "a reset that the limit kept back is a filtered port to it",
		},
		{
			name: "meter", what: "each source is rejected twice a second", ports: "tcp/22 tcp/80 tcp/100-110", slow: true, rate: 400_000,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, "table inet m {\nset four {\ntype ipv4_addr\nflags dynamic\ntimeout 1h\n}\nset six {\ntype ipv6_addr\nflags dynamic\ntimeout 1h\n}\n"+
					"chain i {\ntype filter hook input priority 0; policy drop;\nmeta l4proto { icmp, icmpv6 } accept\ntcp dport { 22, 80 } accept\n"+
					"tcp dport 100-105 add @four { ip saddr limit rate 2/second burst 2 packets } reject with tcp reset\n"+
					"tcp dport 100-105 add @six { ip6 saddr limit rate 2/second burst 2 packets } reject with tcp reset\n}\n}\n")
			},
			want: both("tcp: 22,80 open; 100-105 closed; 106-110 filtered"),
			nmap: "a reset that the limit kept back is a filtered port to it",
		},
		{
			name: "limit for all, few open", what: "ten SYNs a second are looked at, and three of five hundred ports are open", ports: "tcp/1-500", slow: true, rate: 400_000,
			patience: 6 * time.Second,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input(perFamily("tcp flags & (syn|ack) == syn limit rate over 10/second burst 5 packets drop"), "tcp dport { 22, 80, 443 } accept"))
			},
			want: []wanted{
				{addr: v4, states: "tcp: 22,80,443 open; 1-21,23-79,81-442,444-500 filtered", life: model.Answered, orUnknown: true},
				{addr: v6, states: "tcp: 22,80,443 open; 1-21,23-79,81-442,444-500 filtered", life: model.Answered, orUnknown: true},
			},
			nmap: "a SYN that the limit dropped is a filtered port to it, after a second try",
		},
	}
}
