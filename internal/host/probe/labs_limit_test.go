package probe

import (
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// limited are sysctls that let the kernel send an ICMP error every so many milliseconds.
func limited(l *lab, ms string) {
	l.target.Sysctl("net/ipv4/icmp_ratelimit", ms)
	l.target.Sysctl("net/ipv6/icmp/ratelimit", ms)
}

// limitCases are targets that do not answer all who ask.
func limitCases() []labCase {
	return []labCase{
		{
			name: "kernel limit", what: "reject by default, drop for some: the kernel sends one error a second", ports: "tcp/1-20",
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("tcp dport { 5, 17 } drop", "meta l4proto tcp reject"))
			},
			want: both("tcp: 1-4,6-16,18-20 rejected; 5,17 filtered"),
			slow: true,
			nmap: "with -sT a port unreachable is a refused connection to it, so a rejected port is closed",
		},
		{
			name: "kernel limit, quicker", what: "the same, at ten errors a second", ports: "tcp/1-20",
			build: func(l *lab) {
				l.target.Sysctl("net/ipv4/icmp_ratelimit", "100")
				l.target.Sysctl("net/ipv6/icmp/ratelimit", "100")
				rules(l.target, l.t, input("tcp dport { 5, 17 } drop", "meta l4proto tcp reject"))
			},
			want: both("tcp: 1-4,6-16,18-20 rejected; 5,17 filtered"),
			nmap: "with -sT a port unreachable is a refused connection to it, so a rejected port is closed",
		},
		{
			name: "nft limit", what: "a rule that rejects ten a second, then policy drop", ports: "tcp/1-30",
			slow: true,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("tcp dport 22 accept", "tcp dport 1-25 limit rate 10/second burst 1 packets reject with tcp reset"))
			},
			want: both("tcp: 22 open; 1-21,23-25 closed; 26-30 filtered"),
			nmap: "an answer that the limit kept back is a filtered port to it, after a second try",
		},
		{
			name: "udp limit", what: "closed UDP ports, of which the kernel reports ten a second", ports: "udp/5000-5020",
			slow: true,
			build: func(l *lab) {
				l.target.Sysctl("net/ipv4/icmp_ratelimit", "100")
				l.target.Sysctl("net/ipv6/icmp/ratelimit", "100")
				l.serve(5000)
				rules(l.target, l.t, input("udp dport 5000-5015 accept"))
			},
			want: both("udp: 5000 open; 5001-5015 closed; 5016-5020 filtered"),
			nmap: "an answer that the limit kept back is a filtered port to it, after a second try",
		},
		{
			name: "lossy and rejecting", what: "a tenth is lost, and the kernel limits its errors to ten a second", ports: "tcp/1-20",
			slow: true,
			build: func(l *lab) {
				threeOpen(l)
				l.target.Sysctl("net/ipv4/icmp_ratelimit", "100")
				l.target.Sysctl("net/ipv6/icmp/ratelimit", "100")
				rules(l.target, l.t, input("tcp dport { 5, 17 } drop", "meta l4proto tcp reject")+lossy)
			},
			want: both("tcp: 1-4,6-16,18-20 rejected; 5,17 filtered"),
			nmap: "with -sT a port unreachable is a refused connection to it, so a rejected port is closed, or what was lost is filtered",
		},
		{
			name: "SYN limit", what: "twenty SYNs a second are looked at, the others dropped", ports: "tcp/22 tcp/80 tcp/100-125", slow: true,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("tcp flags & (syn|ack) == syn limit rate over 20/second burst 5 packets drop", "tcp dport { 22, 80, 100-119 } accept"))
			},
			want: both("tcp: 22,80 open; 100-119 closed; 120-125 filtered"),
			nmap: "a SYN that the limit dropped is a filtered port to it, after a second try",
		},
		{
			name: "own limit", what: "one rule rejects five a second and drops the rest, beside ports without a limit", ports: "tcp/22 tcp/100-125 tcp/200-299", slow: true,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("tcp dport { 22, 200-299 } accept", "meta nfproto ipv4 tcp dport 100-119 limit rate 5/second burst 3 packets reject with tcp reset",
					"meta nfproto ipv6 tcp dport 100-119 limit rate 5/second burst 3 packets reject with tcp reset"))
			},
			want: both("tcp: 22 open; 100-119,200-299 closed; 120-125 filtered"),
			nmap: "a reset that the limit kept back is a filtered port to it",
		},
		{
			name: "slow limit", what: "a rule that rejects thirty a minute", ports: "tcp/22 tcp/100-107", slow: true,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("tcp dport 22 accept", "meta nfproto ipv4 tcp dport 100-105 limit rate 30/minute burst 2 packets reject with tcp reset",
					"meta nfproto ipv6 tcp dport 100-105 limit rate 30/minute burst 2 packets reject with tcp reset"))
			},
			want: both("tcp: 22 open; 100-105 closed; 106-107 filtered"),
			nmap: "a reset that the limit kept back is a filtered port to it",
		},
		{
			name: "many rejected", what: "three hundred rejected ports, three dropped among them, fifty errors a second", ports: "tcp/1-300", slow: true,
			build: func(l *lab) {
				threeOpen(l)
				limited(l, "20")
				rules(l.target, l.t, input("tcp dport 22 accept", "tcp dport { 5, 17, 200 } drop", "meta l4proto tcp reject"))
			},
			want: both("tcp: 22 open; 1-4,6-16,18-21,23-199,201-300 rejected; 5,17,200 filtered"),
			nmap: "with -sT a port unreachable is a refused connection to it, so a rejected port is closed",
		},
		{
			name: "too many rejected", what: "two hundred rejected ports, two dropped among them, one error a second and four seconds of patience", ports: "tcp/1-200",
			patience: 4 * time.Second,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("tcp dport 22 accept", "tcp dport { 5, 17 } drop", "meta l4proto tcp reject"))
			},
			want: []wanted{
				{addr: v4, states: "tcp: 22 open; 1-4,6-16,18-21,23-200 rejected; 5,17 filtered", life: model.Answered, orUnknown: true},
				{addr: v6, states: "tcp: 22 open; 1-4,6-16,18-21,23-200 rejected; 5,17 filtered", life: model.Answered, orUnknown: true},
			},
			nmap: "with -sT a port unreachable is a refused connection to it, so a rejected port is closed",
		},
		{
			name: "ban", what: "who sends more than forty SYNs is dropped from then on", ports: "tcp/1-100", slow: true,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, "table inet ban {\nset four {\ntype ipv4_addr\ntimeout 1h\n}\nset six {\ntype ipv6_addr\ntimeout 1h\n}\nchain i {\ntype filter hook input priority -10;\n"+
					"ip saddr @four drop\nip6 saddr @six meta l4proto != icmpv6 drop\n"+
					"meta nfproto ipv4 tcp flags & (syn|ack) == syn limit rate over 1/hour burst 40 packets add @four { ip saddr } drop\n"+
					"meta nfproto ipv6 tcp flags & (syn|ack) == syn limit rate over 1/hour burst 40 packets add @six { ip6 saddr } drop\n}\n}\n"+
					input("tcp dport { 22, 80, 90-100 } accept"))
			},
			want: []wanted{
				{addr: v4, states: "tcp: 22,80 open; 90-100 closed; 1-21,23-79,81-89 filtered", life: model.Answered, orUnknown: true},
				{addr: v6, states: "tcp: 22,80 open; 90-100 closed; 1-21,23-79,81-89 filtered", life: model.Answered, orUnknown: true},
			},
			nmap: "what is asked after the ban is filtered to it, open ports too",
		},
		// Where nothing but open ports answers, connections wait in the queues of their
		// programs, and cannot be repeated for free.
		{
			name: "no accept", what: "programs that take no connection, with room for five", ports: "tcp/1-1000", both: true,
			build: func(l *lab) {
				l.listenFew(5, 22, 80, 443)
				rules(l.target, l.t, input("tcp dport { 22, 80, 443 } accept"))
			},
			want: both("tcp: 22,80,443 open; 1-21,23-79,81-442,444-1000 filtered"),
		},
		{
			name: "one open, lossy", what: "one port answers, and a tenth is lost both ways", ports: "tcp/1-300", slow: true,
			build: func(l *lab) {
				l.listen("", 217)
				rules(l.target, l.t, input("tcp dport 217 accept")+lossy)
			},
			want: both("tcp: 217 open; 1-216,218-300 filtered"),
			nmap: "what was lost with every try is filtered to it",
		},
		{
			name: "SYN limit, open ports alone", what: "twenty SYNs a second are looked at, and open ports alone answer", ports: "tcp/1-100", slow: true, patience: 20 * time.Second,
			build: func(l *lab) {
				l.listen("", 22, 80, 77)
				rules(l.target, l.t, input(perFamily("tcp flags & (syn|ack) == syn limit rate over 20/second burst 5 packets drop"), "tcp dport { 22, 80, 77 } accept"))
			},
			want: []wanted{
				{addr: v4, states: "tcp: 22,77,80 open; 1-21,23-76,78-79,81-100 filtered", life: model.Answered, orUnknown: true},
				{addr: v6, states: "tcp: 22,77,80 open; 1-21,23-76,78-79,81-100 filtered", life: model.Answered, orUnknown: true},
			},
			nmap: "a SYN that the limit dropped is a filtered port to it, after a second try",
		},
		{
			name: "ufw limit", what: "who asks for a new connection to SSH six times in half a minute is dropped there until he rests as long", ports: "tcp/1-100", slow: true,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("tcp dport { 22, 80 } accept"))
				for _, w := range []string{"iptables", "ip6tables"} {
					new := []string{"-A", "INPUT", "-p", "tcp", "--dport", "22", "-m", "conntrack", "--ctstate", "NEW", "-m", "recent"}
					l.target.Run(w, append(new, "--set")...)
					l.target.Run(w, append(new, "--update", "--seconds", "30", "--hitcount", "6", "-j", "DROP")...)
				}
			},
			want: both("tcp: 22,80 open; 1-21,23-79,81-100 filtered"),
			nmap: "what it asks again after the limit is silent",
		},
	}
}
