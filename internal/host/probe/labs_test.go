package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/testlab"
)

// labCase is a target whose states are known, because the kernel and nft say so.
type labCase struct {
	name, what string
	build      func(l *lab)
	ports      string
	want       []wanted
	routed     bool            // a router is between
	slow       bool            // not in the slice that every test run takes
	both       bool            // of the slice with connections, too
	variants   []model.Variant // with bare packets only
	patience   time.Duration
	rate       int          // packets a second; 0: as many as by default
	before     func(l *lab) // right before the probes begin
	nmap       string       // why nmap says something else
}

// wanted are the states of one address, as the function tables writes them.
type wanted struct {
	addr   func(l *lab) netip.Addr
	states string
	life   model.Life
	// orUnknown: time or answers do not suffice for every port. It may be unknown, and must
	// not be wrong.
	orUnknown bool
}

func v4(l *lab) netip.Addr { return l.v4 }
func v6(l *lab) netip.Addr { return l.v6 }
func ll(l *lab) netip.Addr { return l.ll }

func at(a string) func(*lab) netip.Addr {
	return func(*lab) netip.Addr { return netip.MustParseAddr(a) }
}

func both(s string) []wanted {
	return []wanted{{addr: v4, states: s, life: model.Answered}, {addr: v6, states: s, life: model.Answered}}
}

// input is an input chain that drops by default.
func input(lines ...string) string {
	return "table inet f {\nchain i {\ntype filter hook input priority 0; policy drop;\nmeta l4proto { icmp, icmpv6 } accept\n" + strings.Join(lines, "\n") + "\n}\n}\n"
}

// lossy drops a tenth of all IP packets in both directions, neighbour discovery too.
const lossy = "table inet loss {\nchain a {\ntype filter hook prerouting priority raw;\nnumgen random mod 10 0 drop\n}\nchain b {\ntype filter hook output priority raw;\nnumgen random mod 10 0 drop\n}\n}\n"

// codes rejects tcp/1000… with every code that nft has, tcp/1010 with a reset, and drops
// the others.
func codes() string {
	var b []string
	for i, w := range []string{"net-unreachable", "host-unreachable", "prot-unreachable", "port-unreachable", "net-prohibited", "host-prohibited", "admin-prohibited"} {
		b = append(b, fmt.Sprintf("meta nfproto ipv4 tcp dport %d reject with icmp type %s", 1000+i, w))
	}
	for i, w := range []string{"no-route", "admin-prohibited", "addr-unreachable", "port-unreachable", "policy-fail", "reject-route"} {
		b = append(b, fmt.Sprintf("meta nfproto ipv6 tcp dport %d reject with icmpv6 type %s", 1000+i, w))
	}
	return input(append(b, "tcp dport 1010 reject with tcp reset", "tcp dport 22 accept")...)
}

func threeOpen(l *lab) { l.listen("", 22, 80, 443) }

func labCases() []labCase {
	return slices.Concat(linkCases(), limitCases(), restCases(), routedCases(), ownCases(), slowCases(), otherCases(), serviceCases())
}

// linkCases are targets on the same link.
func linkCases() []labCase {
	return []labCase{
		{
			name: "closed", what: "no firewall, two services", ports: "tcp/1-1000 udp/5000-5003 echo",
			build: func(l *lab) {
				l.listen("", 22, 80)
				l.serve(5000)
				l.client.Sysctl("net/ipv4/ping_group_range", "0 2147483647")
			},
			both: true,
			want: []wanted{
				{addr: v4, states: "icmp: 8 open | tcp: 22,80 open; 1-21,23-79,81-1000 closed | udp: 5000 open; 5001-5003 closed", life: model.Answered},
				{addr: v6, states: "icmpv6: 128 open | tcp: 22,80 open; 1-21,23-79,81-1000 closed | udp: 5000 open; 5001-5003 closed", life: model.Answered},
			},
		},
		{
			name: "stateful", what: "policy drop, established accepted, three services and one port without any", ports: "tcp/1-1000",
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("ct state established,related accept", "tcp dport { 22, 80, 443, 444 } accept"))
			},
			want: both("tcp: 22,80,443 open; 444 closed; 1-21,23-79,81-442,445-1000 filtered"),
		},
		{
			name: "stateless", what: "policy drop without connection tracking", ports: "tcp/1-1000",
			slow: true,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("tcp dport { 22, 80 } accept"))
			},
			want: both("tcp: 22,80 open; 1-21,23-79,81-1000 filtered"),
		},
		{
			name: "rejecting", what: "every ICMP code, and a reset, beside drop", ports: "tcp/22 tcp/990-1012",
			slow:  true,
			build: func(l *lab) { threeOpen(l); rules(l.target, l.t, codes()) },
			want: []wanted{
				{addr: v4, states: "tcp: 22 open; 1010 closed; 1000-1006 rejected; 990-999,1007-1009,1011-1012 filtered", life: model.Answered},
				{addr: v6, states: "tcp: 22 open; 1010 closed; 1000-1005 rejected; 990-999,1006-1009,1011-1012 filtered", life: model.Answered},
			},
			nmap: "with -sT a port unreachable is a refused connection to it, so a rejected port is closed",
		},
		{
			name: "lossy", what: "a tenth of all packets is lost, both ways", ports: "tcp/1-120",
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("tcp dport { 22, 80, 443 } accept", "tcp dport 100-109 accept")+lossy)
			},
			want: both("tcp: 22,80 open; 100-109 closed; 1-21,23-79,81-99,110-120 filtered"),
			nmap: "what was lost with every try is filtered to it",
		},
		{
			name: "asymmetric", what: "answers come back by another link", ports: "tcp/1-100",
			build: func(l *lab) {
				threeOpen(l)
				testlab.Link(l.target, "t1", l.client, "c1")
				l.client.Sysctl("net/ipv4/conf/all/rp_filter", "0")
				l.client.Sysctl("net/ipv4/conf/c1/rp_filter", "0")
				l.client.AddAddr("c1", "fe80::c/64")
				l.client.IP("addr", "add", "198.51.100.1/24", "dev", "c1")
				l.target.IP("addr", "add", "198.51.100.2/24", "dev", "t1")
				l.target.IP("route", "add", "192.0.2.1/32", "via", "198.51.100.1", "dev", "t1")
				l.target.IP("-6", "route", "add", "2001:db8::1/128", "via", "fe80::c", "dev", "t1")
				rules(l.target, l.t, input("tcp dport { 22, 80 } accept", "tcp dport 50 accept"))
			},
			want: both("tcp: 22,80 open; 50 closed; 1-21,23-49,51-79,81-100 filtered"),
			nmap: "with -sS it hears only by the interface that it sends by",
		},
		{
			name: "half broken", what: "IPv4 filtered, IPv6 forgotten", ports: "tcp/1-100",
			both: true,
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, "table ip f {\nchain i {\ntype filter hook input priority 0; policy drop;\ntcp dport 22 accept\nmeta l4proto icmp accept\n}\n}\n")
			},
			want: []wanted{
				{addr: v4, states: "tcp: 22 open; 1-21,23-100 filtered", life: model.Answered},
				{addr: v6, states: "tcp: 22,80 open; 1-21,23-79,81-100 closed", life: model.Answered},
			},
		},
		{
			name: "dark", what: "everything dropped, the neighbour answers", ports: "tcp/1-100",
			slow: true,
			build: func(l *lab) {
				rules(l.target, l.t, "table inet f {\nchain i {\ntype filter hook input priority 0; policy drop;\nicmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n}\n}\n")
			},
			want: []wanted{{addr: v4, states: "tcp: 1-100 filtered", life: model.Neighbour}, {addr: v6, states: "tcp: 1-100 filtered", life: model.Neighbour}},
		},
		{
			name: "down", what: "nobody has the address", ports: "tcp/1-100",
			build: func(*lab) {},
			want: []wanted{
				{addr: at("192.0.2.77"), states: "tcp: 1-100 unreachable", life: model.NoLife},
				{addr: at("2001:db8::77"), states: "tcp: 1-100 unreachable", life: model.NoLife},
			},
		},
		{
			name: "link-local", what: "a service on the link-local address alone", ports: "tcp/20-30",
			build: func(l *lab) { l.listen(l.ll.WithZone("t0").String(), 22) },
			want: []wanted{
				{addr: v6, states: "tcp: 20-30 closed", life: model.Answered},
				{addr: ll, states: "tcp: 22 open; 20-21,23-30 closed", life: model.Answered},
				{addr: v4, states: "tcp: 20-30 closed", life: model.Answered},
			},
		},
	}
}
