package bench

import (
	"fmt"
	"strings"
)

// ports are what the 50 listeners of a fixture listen on.
const (
	listeners = 50
	firstPort = 1000
)

// shapes are rulesets of about n rules (or elements), half for IPv4 and half for IPv6.
var shapes = map[string]func(n int) string{
	// A prefix and a port each.
	"srcport": func(n int) string {
		return chainOf(n, func(b *strings.Builder, i int, six bool) {
			verdict := "accept"
			if i%4 == 3 {
				verdict = "drop"
			}
			fmt.Fprintf(b, "%s/%d tcp dport %d %s\n", saddr(i, six, 1), map[bool]int{false: 24, true: 64}[six], firstPort+i%200, verdict)
		})
	},
	// A list of hosts that are blocked, then the ports that are open.
	"block": func(n int) string {
		return chainOf(n-listeners, func(b *strings.Builder, i int, six bool) { fmt.Fprintf(b, "%s drop\n", saddr(i, six, 2)) })
	},
	// Neighbours that alternate: the answer is as large as the ruleset.
	"mixed": func(n int) string {
		return chainOf(n, func(b *strings.Builder, i int, six bool) {
			fmt.Fprintf(b, "%s %s\n", saddr(i, six, 1), map[bool]string{true: "accept", false: "drop"}[i%2 == 0])
		})
	},
	// Chains of 20 rules, one for a prefix each.
	"chains": func(n int) string {
		var b, jumps strings.Builder
		b.WriteString("table inet t {\n")
		for c := range max(n/21, 1) {
			fmt.Fprintf(&b, "chain c%d {\n", c)
			six := c%2 == 1
			for i := range 20 {
				fmt.Fprintf(&b, "%s tcp dport %d %s\n", saddr(c*256+i, six, 1), firstPort+i*3%listeners, map[bool]string{true: "accept", false: "drop"}[i%2 == 0])
			}
			b.WriteString("}\n")
			fmt.Fprintf(&jumps, "%s/%d jump c%d\n", saddr(c*256, six, 1), map[bool]int{false: 24, true: 112}[six], c)
		}
		fmt.Fprintf(&b, "chain input { type filter hook input priority 0; policy drop;\nct state established,related accept\n%s%s}\n}\n", jumps.String(), open())
		return b.String()
	},
	// Two interval sets of hosts that are blocked.
	"set": func(n int) string {
		var four, six strings.Builder
		for i := range n / 2 {
			fmt.Fprintf(&four, "%s,", addr(i, false, 2))
			fmt.Fprintf(&six, "%s,", addr(i, true, 2))
		}
		return fmt.Sprintf("table inet t {\nset b4 { type ipv4_addr; flags interval; elements = { %s } }\nset b6 { type ipv6_addr; flags interval; elements = { %s } }\n"+
			"chain input { type filter hook input priority 0; policy drop;\nip saddr @b4 drop\nip6 saddr @b6 drop\n%s}\n}\n", four.String(), six.String(), open())
	},
	// Two sets of source, protocol and port.
	"concset": func(n int) string {
		var four, six strings.Builder
		for i := range n / 2 {
			fmt.Fprintf(&four, "%s . tcp . %d,", addr(i, false, 1), firstPort+i%listeners)
			fmt.Fprintf(&six, "%s . tcp . %d,", addr(i, true, 1), firstPort+i%listeners)
		}
		return fmt.Sprintf("table inet t {\nset a4 { type ipv4_addr . inet_proto . inet_service; flags interval; elements = { %s } }\n"+
			"set a6 { type ipv6_addr . inet_proto . inet_service; flags interval; elements = { %s } }\n"+
			"chain input { type filter hook input priority 0; policy drop;\nip saddr . meta l4proto . th dport @a4 accept\nip6 saddr . meta l4proto . th dport @a6 accept\n}\n}\n", four.String(), six.String())
	},
}

// chainOf is one chain of n rules and the ports that are open.
func chainOf(n int, rule func(b *strings.Builder, i int, six bool)) string {
	var b strings.Builder
	b.WriteString("table inet t {\nchain input { type filter hook input priority 0; policy drop;\nct state established,related accept\n")
	for i := range max(n, 0) {
		rule(&b, i/2, i%2 == 1)
	}
	b.WriteString(open())
	b.WriteString("}\n}\n")
	return b.String()
}

// open accepts the ports of the listeners.
func open() string {
	var b strings.Builder
	for i := range listeners {
		fmt.Fprintf(&b, "tcp dport %d accept\n", firstPort+i)
	}
	return b.String()
}

// addr is the i-th address, step apart.
func addr(i int, six bool, step int) string {
	i *= step
	if six {
		return fmt.Sprintf("2001:db8:%x:%x::%x", i>>24&0xffff, i>>8&0xffff, 1+i&0xff)
	}
	return fmt.Sprintf("%d.%d.%d.%d", 20+i>>24, i>>16&0xff, i>>8&0xff, i&0xff)
}

func saddr(i int, six bool, step int) string {
	if six {
		return "ip6 saddr " + addr(i, true, step)
	}
	return "ip saddr " + addr(i, false, step)
}
