package probe

import (
	"strings"

	model "github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/testlab"
)

// forward is a chain of the router that drops by default; answers pass.
func forward(lines ...string) string {
	return "table inet r {\nchain f {\ntype filter hook forward priority 0; policy drop;\niifname r1 accept\nmeta l4proto { icmp, icmpv6 } accept\n" + strings.Join(lines, "\n") + "\n}\n}\n"
}

// early drops extension headers and fragments before anybody puts them together.
const early = "table inet early {\nchain p {\ntype filter hook prerouting priority -450;\n" +
	"exthdr hbh exists drop\nexthdr dst exists drop\nexthdr frag exists drop\nip frag-off & 0x3fff != 0 drop\n}\n}\n"

// routedCases are targets behind a router.
func routedCases() []labCase {
	elsewhere := func(four, six, s string) []wanted {
		return []wanted{{addr: at(four), states: s, life: model.Elsewhere}, {addr: at(six), states: s, life: model.Elsewhere}}
	}
	return []labCase{
		{
			name: "behind a router", what: "a stateful router in front of a host without rules", ports: "tcp/1-200", routed: true,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.router, l.t, forward("ct state established,related accept", "tcp dport { 22, 80, 100-110 } accept"))
			},
			want: both("tcp: 22,80 open; 100-110 closed; 1-21,23-79,81-99,111-200 filtered"),
		},
		{
			name: "router rejects", what: "a router rejects by port, with every ICMP code", ports: "tcp/22 tcp/998-1008", routed: true, slow: true,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.router, l.t, strings.NewReplacer("table inet f", "table inet r", "chain i", "chain f", "hook input", "hook forward", "policy drop;", "policy drop;\niifname r1 accept").Replace(codes()))
			},
			want: []wanted{
				{addr: v4, states: "tcp: 22 open; 1002-1006 rejected; 998-999,1007-1008 filtered; 1000-1001 unreachable", life: model.Answered},
				{addr: v6, states: "tcp: 22 open; 1001,1003-1005 rejected; 998-999,1006-1008 filtered; 1000,1002 unreachable", life: model.Answered},
			},
			nmap: "with -sT a port unreachable is a refused connection to it, so a rejected port is closed",
		},
		{
			name: "no way", what: "a router with an unreachable route", ports: "tcp/1-60", routed: true, slow: true,
			build: func(l *lab) {
				l.router.IP("route", "add", "unreachable", "192.0.2.101")
				l.router.IP("-6", "route", "add", "unreachable", "2001:db8::101")
			},
			want: elsewhere("192.0.2.101", "2001:db8::101", "tcp: 1-60 unreachable"),
		},
		{
			name: "prohibited", what: "a router with a prohibiting route", ports: "tcp/1-8", routed: true, slow: true,
			build: func(l *lab) {
				l.router.IP("route", "add", "prohibit", "192.0.2.102")
				l.router.IP("-6", "route", "add", "prohibit", "2001:db8::102")
			},
			want: elsewhere("192.0.2.102", "2001:db8::102", "tcp: 1-8 rejected"),
		},
		{
			name: "black hole", what: "a router that swallows", ports: "tcp/1-60", routed: true, slow: true,
			build: func(l *lab) {
				l.router.IP("route", "add", "blackhole", "192.0.2.103")
				l.router.IP("-6", "route", "add", "blackhole", "2001:db8::103")
			},
			want: []wanted{{addr: at("192.0.2.103"), states: "tcp: 1-60 filtered", life: model.NoLife}, {addr: at("2001:db8::103"), states: "tcp: 1-60 filtered", life: model.NoLife}},
		},
		{
			name: "down behind a router", what: "nobody has the address, and the router says so after three seconds", ports: "tcp/1-60", routed: true, slow: true,
			build: func(*lab) {},
			want:  elsewhere("192.0.2.77", "2001:db8::77", "tcp: 1-60 unreachable"),
			nmap:  "the router rations what it says of the address; of the ports for which it said nothing nmap makes filtered ones",
		},
		{
			name: "path MTU eaten", what: "a link of 1,280 octets, and a router whose Packet Too Big is eaten", ports: "tcp/1-100 udp/5000-5001", routed: true, slow: true,
			build: func(l *lab) {
				threeOpen(l)
				l.serve(5000)
				l.router.IP("link", "set", "r1", "mtu", "1280")
				l.target.IP("link", "set", "t0", "mtu", "1280")
				rules(l.router, l.t, "table inet e {\nchain o {\ntype filter hook output priority 0;\nicmpv6 type packet-too-big drop\nicmp type destination-unreachable icmp code frag-needed drop\n}\n}\n")
				rules(l.target, l.t, input("ct state established accept", "tcp dport { 22, 80, 81 } accept", "udp dport 5000 accept"))
			},
			want: both("tcp: 22,80 open; 81 closed; 1-21,23-79,82-100 filtered | udp: 5000 open; 5001 filtered"),
		},
		{
			name: "two routers", what: "answers come back by another router", ports: "tcp/1-100", routed: true, slow: true,
			build: func(l *lab) {
				threeOpen(l)
				second := newHost(l.t, "vfyq")
				second.Sysctl("net/ipv4/ip_forward", "1")
				second.Sysctl("net/ipv6/conf/all/forwarding", "1")
				testlab.Link(l.target, "t1", second, "q1")
				testlab.Link(second, "q0", l.client, "c1")
				l.target.IP("addr", "add", "203.0.113.2/25", "dev", "t1")
				second.IP("addr", "add", "203.0.113.1/25", "dev", "q1")
				second.IP("addr", "add", "203.0.113.129/25", "dev", "q0")
				l.client.IP("addr", "add", "203.0.113.130/25", "dev", "c1")
				l.target.AddAddr("t1", "2001:db8:1::2/64")
				second.AddAddr("q1", "2001:db8:1::1/64")
				second.AddAddr("q0", "2001:db8:2::1/64")
				l.client.AddAddr("c1", "2001:db8:2::2/64")
				for _, k := range []string{"all", "c0", "c1"} {
					l.client.Sysctl("net/ipv4/conf/"+k+"/rp_filter", "0")
				}
				l.target.IP("route", "add", "198.51.100.0/24", "via", "203.0.113.1")
				second.IP("route", "add", "198.51.100.1/32", "via", "203.0.113.130")
				l.target.IP("-6", "route", "add", "2001:db8:c::/64", "via", "2001:db8:1::1")
				second.IP("-6", "route", "add", "2001:db8:c::1/128", "via", "2001:db8:2::2")
				// The first sees one half of each connection, and asks for no more.
				rules(l.router, l.t, forward("tcp dport { 22, 80, 50 } accept"))
			},
			want: both("tcp: 22,80 open; 50 closed; 1-21,23-49,51-79,81-100 filtered"),
			nmap: "with -sS it hears only by the interface that it sends by",
		},
		{
			name: "wrapped, router drops", what: "a router that drops extension headers and fragments", ports: "tcp/20-30", routed: true, slow: true,
			variants: model.Variants(),
			build: func(l *lab) {
				threeOpen(l)
				rules(l.router, l.t, early+forward("tcp dport { 22, 25 } accept"))
			},
			want: []wanted{
				{addr: v4, states: "tcp: 22 open; 25 closed; 20-21,23-24,26-30 filtered | tcp+frag: 20-30 filtered", life: model.Answered},
				{addr: v6, states: "tcp: 22 open; 25 closed; 20-21,23-24,26-30 filtered" + each(" | tcp+%: 20-30 filtered"), life: model.Answered},
			},
		},
	}
}
