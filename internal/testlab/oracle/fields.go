package oracle

import (
	"slices"
	"strings"
)

// field is something a rule can ask about.
type field struct {
	name   string
	v6     int8     // 0 both families, 4 or 6 one of them
	proto  uint8    // only of this transport protocol
	bits   int      // of a number
	addr   bool     // an address of the family
	words  []string // of a field that is a choice
	raw    bool     // exact only for a question that holds the packet's bytes
	hooks  []string // nil: every one
	not    []string // hooks or families without it
	few    bool     // equality only
	plain  bool     // no sets
	free   bool     // raw payload: no name for a set
	rare   bool     // the plainest operators only
	unsent bool     // of a protocol that the lab does not send
	vague  string   // why no question can answer it: an Opaque leaf, or a state that no packet fixes
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
	{name: "meta nfproto", words: []string{"ipv4", "ipv6"}, not: []string{"netdev"}},
	{name: "meta protocol", words: []string{"ip", "ip6"}},
	{name: "meta mark", bits: 32},
	{name: "meta iif", words: Interfaces},
	{name: "meta iifname", words: append([]string{"eth*", "wl*", "e*", "eth1", "wlan*"}, Interfaces...)},
	{name: "meta oif", words: Interfaces, hooks: []string{"forward", "postrouting", "output"}},
	{name: "meta oifname", words: append([]string{"eth*", "wl*", "e*", "eth1", "wlan*"}, Interfaces...), hooks: []string{"forward", "postrouting", "output"}},
	{name: "meta skuid", bits: 32, plain: true, hooks: []string{"output"}},
	{name: "meta skgid", bits: 32, plain: true, hooks: []string{"output"}, vague: "socket owner"},
	{name: "meta iiftype", words: []string{"ether", "loopback"}, rare: true},
	{name: "meta oiftype", words: []string{"ether", "loopback"}, rare: true, hooks: []string{"forward", "postrouting", "output"}},
	{name: "meta priority", words: []string{"none", "root", "0:1"}, rare: true, vague: "meta priority"},
	{name: "meta cpu", bits: 16, rare: true, vague: "meta cpu"},
	{name: "meta iifgroup", words: []string{"0", "5", "7"}, rare: true},
	{name: "meta oifgroup", words: []string{"0", "5", "7"}, rare: true, hooks: []string{"forward", "postrouting", "output"}},
	{name: "meta rtclassid", bits: 32, rare: true, vague: "meta rtclassid"},
	{name: "meta cgroup", bits: 32, rare: true, vague: "meta cgroup"},
	{name: "meta iifkind", words: []string{`"veth"`, `"bridge"`}, rare: true},
	{name: "meta sdifname", words: []string{`"eth0"`}, rare: true, vague: "meta sdifname", not: []string{"ingress", "prerouting", "postrouting", "output"}},
	{name: "meta day", words: []string{`"Sunday"`, `"Monday"`}, rare: true, vague: "meta day"},
	{name: "meta hour", words: []string{`"00:00"-"12:00"`}, few: true, vague: "meta hour"},
	{name: "meta ipsec", words: []string{"exists", "missing"}, few: true, not: []string{"inet ingress", "output", "postrouting"}, vague: "meta secpath"},
	{name: "numgen random mod 2", words: []string{"0", "1"}, rare: true, vague: "numgen"},
	{name: "numgen inc mod 2", words: []string{"0", "1"}, rare: true, vague: "numgen"},
	{name: "jhash ip saddr mod 2", v6: 4, words: []string{"0", "1"}, rare: true, vague: "hash"},
	{name: "jhash ip6 saddr mod 2", v6: 6, words: []string{"0", "1"}, rare: true, vague: "hash"},
	{name: "symhash mod 2", words: []string{"0", "1"}, rare: true, vague: "hash"},
	{name: "rt classid", words: []string{"1"}, rare: true, vague: "rt", not: []string{"netdev"}},
	{name: "rt ip nexthop", v6: 4, words: []string{"192.0.2.2"}, rare: true, vague: "rt", not: []string{"netdev"}},
	{name: "rt ip6 nexthop", v6: 6, words: []string{"2001:db8::2"}, rare: true, vague: "rt", not: []string{"netdev"}},
	{name: "rt mtu", words: []string{"1500"}, rare: true, vague: "rt", not: []string{"ingress", "prerouting", "input"}},
	{name: "socket transparent", words: []string{"0", "1"}, rare: true, vague: "socket", not: []string{"ingress", "forward", "postrouting", "output"}},
	{name: "socket wildcard", words: []string{"0", "1"}, rare: true, vague: "socket", not: []string{"ingress", "forward", "postrouting", "output"}},
	{name: "socket mark", bits: 32, rare: true, vague: "socket", not: []string{"ingress", "forward", "postrouting", "output"}},
	{name: "fib saddr type", words: fibTypes, rare: true, not: []string{"inet ingress"}},
	{name: "fib daddr type", words: fibTypes, rare: true, not: []string{"inet ingress"}},
	{name: "fib daddr . iif type", words: fibTypes, rare: true, not: []string{"inet ingress", "output", "postrouting"}},
	{name: "fib saddr . iif type", words: fibTypes, rare: true, not: []string{"inet ingress", "output", "postrouting"}},
	{name: "fib saddr . mark type", words: fibTypes, rare: true, not: []string{"inet ingress"}},
	{name: "fib saddr . iif oif", words: []string{"exists", "missing"}, few: true, not: []string{"inet ingress", "output", "postrouting"}},
	{name: "fib saddr oif", words: []string{"exists", "missing", "eth0", "wlan1", "lo"}, rare: true, not: []string{"inet ingress", "output", "postrouting"}},
	{name: "fib saddr oifname", words: []string{`"eth0"`, `"wlan1"`, `"lo"`}, rare: true, not: []string{"inet ingress", "output", "postrouting"}},
	{name: "fib daddr oif", words: []string{"exists", "missing", "eth0", "wlan1", "lo"}, rare: true, not: []string{"inet ingress", "output", "postrouting"}},
	{name: "meta length", bits: 16, raw: true},
	{name: "meta pkttype", words: []string{"host", "broadcast", "multicast", "other"}, raw: true},
	{name: "ct state", words: []string{"new", "established", "related", "invalid", "untracked"}, not: []string{"netdev"}},
	{name: "ct direction", words: []string{"original", "reply"}, not: []string{"netdev"}},
	{name: "ct mark", bits: 32, not: []string{"netdev"}},
	{name: "ct status", words: []string{"expected", "seen-reply", "assured", "confirmed", "snat", "dnat", "dying"}, not: []string{"netdev"}},
	{name: "ct zone", bits: 16, rare: true, not: []string{"netdev"}},
	{name: "ct label", words: []string{"1", "5"}, rare: true, not: []string{"netdev"}},
	{name: "ct helper", words: []string{`"ftp"`}, rare: true, not: []string{"netdev"}},
	{name: "ct id", bits: 32, rare: true, not: []string{"netdev"}, vague: "ct id"},
	{name: "ct expiration", words: []string{"10s"}, rare: true, not: []string{"netdev"}, vague: "ct expiration"},
	{name: "ct bytes", words: []string{"100"}, rare: true, not: []string{"netdev"}, vague: "ct bytes"},
	{name: "ct original packets", words: []string{"1"}, rare: true, not: []string{"netdev"}, vague: "ct packets"},
	{name: "ct reply packets", words: []string{"1"}, rare: true, not: []string{"netdev"}, vague: "ct packets"},
	{name: "ct avgpkt", words: []string{"40"}, rare: true, not: []string{"netdev"}, vague: "ct avgpkt"},
	{name: "ct original ip saddr", v6: 4, addr: true, plain: true, not: []string{"netdev"}},
	{name: "ct original ip daddr", v6: 4, addr: true, plain: true, not: []string{"netdev"}},
	{name: "ct original ip6 saddr", v6: 6, addr: true, plain: true, not: []string{"netdev"}},
	{name: "ct original ip6 daddr", v6: 6, addr: true, plain: true, not: []string{"netdev"}},
	{name: "ct reply ip saddr", v6: 4, addr: true, plain: true, not: []string{"netdev"}},
	{name: "ct reply ip6 daddr", v6: 6, addr: true, plain: true, not: []string{"netdev"}},
	{name: "meta l4proto tcp ct reply proto-src", proto: protoTCP, bits: 16, not: []string{"netdev"}, plain: true},
	{name: "meta l4proto udp ct original proto-src", proto: protoUDP, bits: 16, not: []string{"netdev"}, plain: true},
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
	{name: "hbh hdrlength", v6: 6, bits: 8, rare: true},
	{name: "dst hdrlength", v6: 6, bits: 8, rare: true},
	{name: "rt nexthdr", v6: 6, bits: 8, rare: true},
	{name: "rt hdrlength", v6: 6, bits: 8, rare: true},
	{name: "rt seg-left", v6: 6, bits: 8, rare: true, raw: true},
	{name: "frag id", v6: 6, bits: 32, rare: true, raw: true},
	{name: "frag reserved2", v6: 6, bits: 2, rare: true, raw: true},
	{name: "mh type", v6: 6, bits: 8, rare: true, unsent: true},
	{name: "exthdr mh", v6: 6, words: []string{"exists", "missing"}, few: true, unsent: true},
	{name: "icmp id", v6: 4, proto: protoICMP, bits: 16, rare: true, raw: true},
	{name: "icmp sequence", v6: 4, proto: protoICMP, bits: 16, rare: true, raw: true},
	{name: "icmp mtu", v6: 4, proto: protoICMP, bits: 16, rare: true, raw: true},
	{name: "icmpv6 id", v6: 6, proto: protoICMPv6, bits: 16, rare: true, raw: true},
	{name: "icmpv6 mtu", v6: 6, proto: protoICMPv6, bits: 32, rare: true, raw: true},
	{name: "icmpv6 max-delay", v6: 6, proto: protoICMPv6, bits: 16, rare: true, raw: true},
	{name: "sctp sport", proto: protoSCTP, bits: 16},
	{name: "sctp dport", proto: protoSCTP, bits: 16},
	{name: "sctp vtag", proto: protoSCTP, bits: 32, rare: true, raw: true},
	{name: "udplite sport", proto: protoUDPLite, bits: 16, rare: true, unsent: true},
	{name: "udplite dport", proto: protoUDPLite, bits: 16, rare: true, unsent: true},
	{name: "dccp dport", proto: 33, bits: 16, rare: true, unsent: true},
	{name: "ah spi", proto: 51, bits: 32, rare: true, unsent: true},
	{name: "esp spi", proto: 50, bits: 32, rare: true, unsent: true},
	{name: "comp cpi", proto: 108, bits: 16, rare: true, unsent: true},
	{name: "igmp type", v6: 4, proto: 2, words: []string{"membership-query"}, rare: true, unsent: true},
	{name: "tcp sequence", proto: protoTCP, bits: 32, rare: true, raw: true},
	{name: "tcp urgptr", proto: protoTCP, bits: 16, rare: true, raw: true},
	{name: "tcp option maxseg", proto: protoTCP, words: []string{"exists", "missing"}, few: true, vague: "header options"},
	{name: "tcp option sack-perm", proto: protoTCP, words: []string{"exists", "missing"}, few: true, vague: "header options"},
	{name: "tcp option maxseg size", proto: protoTCP, bits: 16, rare: true, vague: "header options"},
	{name: "ip option ra", v6: 4, words: []string{"exists", "missing"}, few: true, vague: "header options"},
	{name: "ip option lsrr", v6: 4, words: []string{"exists", "missing"}, few: true, vague: "header options"},
	{name: "sctp chunk init", proto: protoSCTP, words: []string{"exists", "missing"}, few: true, vague: "header options"},
	{name: "vlan id", bits: 12, rare: true, not: []string{"postrouting", "output"}, unsent: true},
	{name: "ether daddr", words: []string{"33:33:00:00:00:01", "ff:ff:ff:ff:ff:ff"}, rare: true, not: []string{"postrouting", "output"}, vague: "ether daddr"},
	{name: "arp operation", words: []string{"request"}, rare: true, not: []string{"ip", "ip6", "inet"}, unsent: true},
	{name: "@ih", words: []string{""}, few: true, vague: "inner header"},
	{name: "@ll", words: []string{""}, few: true, not: []string{"postrouting", "output"}},
	{name: "ether type", words: []string{"ip", "ip6"}, not: []string{"postrouting", "output"}},
	{name: "ether saddr", words: []string{"02:", "04:", "06:"}, not: []string{"postrouting", "output"}, few: true},
	{name: "@nh", bits: -1, raw: true, free: true},
	{name: "@th", bits: -1, raw: true, free: true},
	{name: "@nh saddr", bits: -1, free: true},
}

// Operators, as nft writes them.
var (
	numberOps = []string{
		"namedtimeout", "namedcounter", "setcatchall", "concatnamedvmap", "concatmap", "vmapjump",
		"eq", "neq", "lt", "le", "gt", "ge", "range", "nrange", "set", "nset", "intervals", "nintervals",
		"named", "nnamed", "namedintervals", "nnamedintervals", "mask", "nmask", "vmap", "vmapintervals", "vmapcatchall",
		"namedvmap", "map", "mapintervals", "concat", "nconcat", "concatintervals", "nconcatintervals", "concatvmap",
	}
	addrOps = append([]string{"prefix", "nprefix", "mergedintervals", "maskodd"}, numberOps...)
	wordOps = []string{"eq", "neq", "set", "nset", "vmap", "concat"}
	rareOps = []string{"eq", "neq", "set"}
	rawOps  = []string{"eq", "neq", "lt", "ge", "mask", "nmask", "range", "nrange"}
)

func (f *field) ops() []string {
	switch {
	case f.few:
		return []string{"eq"}
	case f.free:
		return rawOps
	case f.rare:
		return rareOps
	case f.plain && f.addr:
		return []string{"eq", "neq", "prefix", "nprefix", "range"}
	case f.plain:
		return []string{"eq", "neq", "lt", "ge", "range", "nrange"}
	case f.addr:
		return addrOps
	case f.name == "ct state" || f.name == "ct status":
		return append([]string{"mask0", "nmask0"}, wordOps...)
	case f.words != nil:
		return wordOps
	case slices.Contains([]string{"frag", "hbh", "dst", "rt"}, strings.Fields(f.name)[0]):
		// nft 1.0.6 cannot parse these as the key of a map that gives data.
		return slices.DeleteFunc(slices.Clone(numberOps), func(op string) bool { return op == "map" || op == "mapintervals" || op == "concatmap" })
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
	case slices.Contains(f.not, hook) || slices.Contains(f.not, family) || slices.Contains(f.not, family+" "+hook):
		return false
	case (family == "ip" || family == "ip6") && f.name == "meta nfproto":
		return false // always true: nft refuses it
	}
	return true
}

// never is why a field has only one answer at a hook; "" when packets can both match
// and miss it.
func (f *field) never(family, hook string) string {
	name := append(strings.Fields(f.name), "")
	switch {
	case f.unsent:
		return "no such packet is sent"
	case slices.Contains(name, "ct") && hook == "ingress":
		return "nothing is tracked at ingress"
	case hook == "output" && (name[1] == "iif" || name[1] == "iifname" || name[1] == "iiftype"):
		return "a packet that is made here came in by no interface"
	case hook == "output" && (f.name == "ip id" || f.name == "ip6 flowlabel"):
		return "the recorder knows packets that are made here by it"
	case family != "inet" && family != "netdev" && slices.Contains([]string{"meta protocol", "ether type", "ct l3proto"}, f.name),
		strings.HasSuffix(f.name, " version"), f.name == "ct helper":
		return "only one value comes here"
	}
	return ""
}

// fibTypes are the types of addresses that the lab's host knows.
var fibTypes = []string{"local", "unicast", "broadcast", "multicast", "anycast", "unreachable"}

// statement is what a rule does besides its verdict.
type statement struct {
	name  string
	hooks []string
	not   []string
	nat   bool   // only in chains of type nat
	vague string // see field
}

func (s *statement) fits(family, hook string) bool {
	return (s.hooks == nil || slices.Contains(s.hooks, hook)) && !slices.Contains(s.not, family) && !slices.Contains(s.not, hook) && !slices.Contains(s.not, family+" "+hook)
}

var (
	early  = []string{"netdev", "ingress"}
	dnats  = []string{"prerouting", "output"}
	snats  = []string{"input", "postrouting"}
	rejets = []string{"prerouting", "input", "forward", "output"}
)

var statements = []statement{
	{name: "accept"},
	{name: "drop"},
	{name: "jump"},
	{name: "goto"},
	{name: "return"},
	{name: "continue"},
	{name: "reject", hooks: rejets},
	{name: "reject tcp", hooks: rejets},
	{name: "reject icmpx", hooks: rejets, not: []string{"ip", "ip6"}},
	{name: "log"},
	{name: "nftrace"},
	{name: "mark set"},
	{name: "mark or"},
	{name: "mark shift"},
	{name: "mark random", vague: "numgen"},
	{name: "ct mark set", not: early},
	{name: "ct zone set", hooks: []string{"prerouting", "output"}, not: early},
	{name: "ct label set", not: early},
	{name: "ct event set", not: early},
	{name: "mark map"},
	{name: "notrack", hooks: []string{"prerouting", "output"}},
	{name: "counter"},
	{name: "counter object"},
	{name: "quota object", vague: "quota"},
	{name: "limit object", vague: "limit"},
	{name: "object map", vague: "limit"},
	{name: "ct timeout", hooks: []string{"prerouting", "output"}, not: early},
	{name: "ct helper", hooks: []string{"prerouting", "output"}, not: early},
	{name: "ct expectation", hooks: []string{"input", "forward"}, not: early},
	{name: "synproxy", hooks: []string{"input", "forward"}, vague: "synproxy"},
	{name: "limit", vague: "limit"},
	{name: "limit over", vague: "limit"},
	{name: "quota", vague: "quota"},
	{name: "ct count", not: early, vague: "connlimit"},
	{name: "dynset add"},
	{name: "dynset update"},
	{name: "dynset delete"},
	{name: "dynset limit", vague: "limit"},
	{name: "dynset map"},
	{name: "dynset lookup", vague: "dynamic set"},
	{name: "payload ttl"},
	{name: "payload dscp"},
	{name: "payload port"},
	{name: "payload daddr", hooks: []string{"input", "postrouting", "forward", "prerouting", "ingress"}},
	{name: "payload saddr", hooks: []string{"input", "postrouting", "forward", "prerouting", "ingress"}},
	{name: "payload mss"},
	{name: "pkttype set", hooks: []string{"prerouting", "ingress"}, not: []string{"inet ingress"}},
	{name: "priority set", not: []string{"output", "postrouting"}}, // the recorder knows packets made here by theirs
	{name: "tproxy", hooks: []string{"prerouting"}, vague: "tproxy"},
	{name: "dup", hooks: []string{"ingress"}, not: []string{"inet"}},
	{name: "fwd", hooks: []string{"ingress"}, not: []string{"inet"}},
	{name: "redirect", hooks: dnats, nat: true},
	{name: "redirect range", hooks: dnats, nat: true},
	{name: "dnat", hooks: dnats, nat: true},
	{name: "dnat port", hooks: dnats, nat: true},
	{name: "dnat range", hooks: dnats, nat: true},
	{name: "dnat map", hooks: dnats, nat: true},
	{name: "masquerade", hooks: []string{"postrouting"}, nat: true},
	{name: "snat", hooks: snats, nat: true},
	{name: "snat range", hooks: snats, nat: true},
}
