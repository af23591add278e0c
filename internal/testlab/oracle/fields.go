package oracle

import "slices"

// field is something a rule can ask about.
type field struct {
	name  string
	v6    int8     // 0 both families, 4 or 6 one of them
	proto uint8    // only of this transport protocol
	bits  int      // of a number
	addr  bool     // an address of the family
	words []string // of a field that is a choice
	raw   bool     // exact only for a question that holds the packet's bytes
	hooks []string // nil: every one
	not   []string // hooks or families without it
	few   bool     // equality only
	plain bool     // no sets
	free  bool     // raw payload: no name for a set
}

var fields = []field{
	{name: "ip saddr", v6: 4, addr: true},
	{name: "ip daddr", v6: 4, addr: true},
	{name: "ip protocol", v6: 4, bits: 8},
	{name: "ip ttl", v6: 4, bits: 8},
	{name: "ip hdrlength", v6: 4, bits: 4},
	{name: "ip version", v6: 4, bits: 4},
	{name: "ip dscp", v6: 4, bits: 6, raw: true},
	{name: "ip id", v6: 4, bits: 16, raw: true},
	{name: "ip length", v6: 4, bits: 16, raw: true},
	{name: "ip frag-off", v6: 4, bits: 16, raw: true},
	{name: "ip6 saddr", v6: 6, addr: true},
	{name: "ip6 daddr", v6: 6, addr: true},
	{name: "ip6 nexthdr", v6: 6, bits: 8},
	{name: "ip6 hoplimit", v6: 6, bits: 8},
	{name: "ip6 version", v6: 6, bits: 4},
	{name: "ip6 dscp", v6: 6, bits: 6, raw: true},
	{name: "ip6 length", v6: 6, bits: 16, raw: true},
	{name: "ip6 flowlabel", v6: 6, bits: 20, raw: true},
	{name: "tcp sport", proto: protoTCP, bits: 16},
	{name: "tcp dport", proto: protoTCP, bits: 16},
	{name: "tcp flags", proto: protoTCP, bits: 8},
	{name: "tcp window", proto: protoTCP, bits: 16, raw: true},
	{name: "tcp doff", proto: protoTCP, bits: 4, raw: true},
	{name: "udp sport", proto: protoUDP, bits: 16},
	{name: "udp dport", proto: protoUDP, bits: 16},
	{name: "udp length", proto: protoUDP, bits: 16, raw: true},
	{name: "th sport", bits: 16},
	{name: "th dport", bits: 16},
	{name: "icmp type", v6: 4, proto: protoICMP, bits: 8},
	{name: "icmp code", v6: 4, proto: protoICMP, bits: 8},
	{name: "icmpv6 type", v6: 6, proto: protoICMPv6, bits: 8},
	{name: "icmpv6 code", v6: 6, proto: protoICMPv6, bits: 8},
	{name: "meta l4proto", bits: 8},
	{name: "meta nfproto", words: []string{"ipv4", "ipv6"}},
	{name: "meta protocol", words: []string{"ip", "ip6"}},
	{name: "meta mark", bits: 32},
	{name: "meta iif", words: Interfaces},
	{name: "meta iifname", words: append([]string{"eth*", "wl*", "e*", "eth1", "wlan*"}, Interfaces...)},
	{name: "meta oif", words: Interfaces, hooks: []string{"forward", "postrouting", "output"}},
	{name: "meta oifname", words: append([]string{"eth*", "wl*", "e*", "eth1", "wlan*"}, Interfaces...), hooks: []string{"forward", "postrouting", "output"}},
	{name: "meta skuid", bits: 32, plain: true, hooks: []string{"output"}},
	{name: "meta length", bits: 16, raw: true},
	{name: "meta pkttype", words: []string{"host", "broadcast", "multicast", "other"}, raw: true},
	{name: "ct state", words: []string{"new", "established", "related", "invalid", "untracked"}, not: []string{"netdev"}},
	{name: "ct direction", words: []string{"original", "reply"}, not: []string{"netdev"}},
	{name: "ct mark", bits: 32, not: []string{"netdev"}},
	{name: "ct status", words: []string{"expected", "seen-reply", "assured", "confirmed", "snat", "dnat", "dying"}, not: []string{"netdev"}},
	{name: "meta l4proto tcp ct original proto-dst", proto: protoTCP, bits: 16, not: []string{"netdev"}, plain: true},
	{name: "ct l3proto", words: []string{"ipv4", "ipv6"}, not: []string{"netdev"}},
	{name: "ct protocol", bits: 8, not: []string{"netdev"}},
	{name: "exthdr hbh", v6: 6, words: []string{"exists", "missing"}, few: true},
	{name: "exthdr dst", v6: 6, words: []string{"exists", "missing"}, few: true},
	{name: "exthdr rt", v6: 6, words: []string{"exists", "missing"}, few: true},
	{name: "exthdr frag", v6: 6, words: []string{"exists", "missing"}, few: true},
	{name: "frag frag-off", v6: 6, bits: 13},
	{name: "frag more-fragments", v6: 6, bits: 1},
	{name: "frag nexthdr", v6: 6, bits: 8},
	{name: "hbh nexthdr", v6: 6, bits: 8},
	{name: "dst nexthdr", v6: 6, bits: 8},
	{name: "rt type", v6: 6, bits: 8, raw: true},
	{name: "ether type", words: []string{"ip", "ip6"}, not: []string{"postrouting", "output"}},
	{name: "ether saddr", words: []string{"02:", "04:", "06:"}, not: []string{"postrouting", "output"}, few: true},
	{name: "@nh", bits: -1, raw: true, free: true},
	{name: "@th", bits: -1, raw: true, free: true},
	{name: "@nh saddr", bits: -1, free: true},
}

// Operators, as nft writes them.
var (
	numberOps = []string{
		"eq", "neq", "lt", "le", "gt", "ge", "range", "nrange", "set", "nset", "intervals", "nintervals",
		"named", "nnamed", "namedintervals", "nnamedintervals", "mask", "nmask", "vmap", "vmapintervals", "vmapcatchall",
		"namedvmap", "map", "mapintervals", "concat", "nconcat", "concatintervals", "nconcatintervals", "concatvmap",
	}
	addrOps = append([]string{"prefix", "nprefix", "mergedintervals", "maskodd"}, numberOps...)
	wordOps = []string{"eq", "neq", "set", "nset", "vmap", "concat"}
	rawOps  = []string{"eq", "neq", "lt", "ge", "mask", "nmask", "range", "nrange"}
)

func (f *field) ops() []string {
	switch {
	case f.few:
		return []string{"eq"}
	case f.free:
		return rawOps
	case f.plain:
		return []string{"eq", "neq", "lt", "ge", "range", "nrange"}
	case f.addr:
		return addrOps
	case f.name == "ct state" || f.name == "ct status":
		return append([]string{"mask0", "nmask0"}, wordOps...)
	case f.words != nil:
		return wordOps
	case f.bits < 8:
		// Masks of part of a byte are an operator of their own.
		return []string{"eq", "neq", "lt", "ge", "set", "nset", "range", "vmap"}
	}
	return numberOps
}

func (f *field) fits(family, hook string) bool {
	switch {
	case family == "ip" && f.v6 == 6, family == "ip6" && f.v6 == 4:
		return false
	case f.hooks != nil && !slices.Contains(f.hooks, hook):
		return false
	case slices.Contains(f.not, hook) || slices.Contains(f.not, family):
		return false
	case family == "ip" && (f.name == "meta nfproto" || f.name == "meta protocol"),
		family == "ip6" && (f.name == "meta nfproto" || f.name == "meta protocol"):
		return false // always true: nft drops or refuses it
	}
	return true
}

// statement is what a rule does besides its verdict.
type statement struct {
	name  string
	hooks []string
	not   []string
	nat   bool // only in chains of type nat
}

func (s *statement) fits(family, hook string) bool {
	return (s.hooks == nil || slices.Contains(s.hooks, hook)) && !slices.Contains(s.not, family) && !slices.Contains(s.not, hook)
}

var statements = []statement{
	{name: "accept"},
	{name: "drop"},
	{name: "jump"},
	{name: "goto"},
	{name: "return"},
	{name: "continue"},
	{name: "reject", hooks: []string{"input", "forward"}},
	{name: "reject tcp", hooks: []string{"input", "forward"}},
	{name: "mark set"},
	{name: "mark or"},
	{name: "ct mark set", not: []string{"netdev", "ingress"}},
	{name: "mark map"},
	{name: "notrack", hooks: []string{"prerouting"}},
	{name: "counter"},
	{name: "limit"},
	{name: "limit over"},
	{name: "quota"},
	{name: "dynset add"},
	{name: "dynset lookup"},
	{name: "redirect", hooks: []string{"prerouting"}, nat: true},
	{name: "dnat", hooks: []string{"prerouting"}, nat: true},
	{name: "dnat port", hooks: []string{"prerouting"}, nat: true},
}
