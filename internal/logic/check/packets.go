package check

import (
	"net/netip"
	"strconv"

	rules "github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// ICMPv6 types that controls ask the rules about.
const (
	typeUnreachable  = 1
	typeTooBig       = 2
	typeTimeExceeded = 3
	typeParameter    = 4
	typeEcho         = 128
	typeEchoReply    = 129
	typeMLDQuery     = 130
	typeRS           = 133
	typeRA           = 134
	typeNS           = 135
	typeNA           = 136
	typeRedirect     = 137
)

// IANA protocol numbers.
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoIPIP     = 4
	protoTCP      = 6
	protoUDP      = 17
	protoIPv6     = 41
	protoRouting  = 43
	protoFragment = 44
	protoGRE      = 47
	protoDstOpts  = 60
)

// question is something that must get in for a result to be true: any one of its
// kinds of packets will do.
type question struct {
	what  string // "a router advertisement": also the key under which the answer is kept
	kinds []rules.Kind
	// hard packets are asked about only where none of kinds gets in; they take more
	// than one packet, all of which must.
	hard [][]rules.Kind
	// narrow sources are as good as any: what one sender does is the harm.
	narrow bool
}

var (
	linkLocal   = netip.MustParsePrefix("fe80::/10")
	mappedLocal = netip.MustParsePrefix("::ffff:127.0.0.1/128")
	// A hardware address that no rule lists: an attacker has the choice.
	attackerMAC = [6]byte{0x02, 0x00, 0x5e, 0x00, 0x53, 0x66}
)

// icmp6 is an ICMPv6 message of code 0.
func icmp6(typ uint8, name string, ct uint32) rules.Kind {
	return rules.Kind{Name: name, Packet: rules.Packet{
		Family: rs.IPv6, Proto: rules.Some(uint8(protoICMPv6)), ICMPType: rules.Some(typ), ICMPCode: rules.Some(uint8(0)),
		Ct: rules.Some(ct), Mark: rules.Some(uint32(0)),
	}}
}

// onLink is a message that a neighbour sends: hop limit 255, never tracked.
func onLink(typ uint8, name string) rules.Kind {
	k := icmp6(typ, name, rules.CtUntracked)
	k.HopLimit = rules.Some(uint8(255))
	k.SrcMAC = rules.Some(attackerMAC)
	return k
}

func to(k rules.Kind, a netip.Addr) rules.Kind {
	k.Daddr = rules.Some(a)
	return k
}

func from(k rules.Kind, p netip.Prefix) rules.Kind {
	k.From = p
	return k
}

func behindHeader(k rules.Kind, e rules.Ext, words string) rules.Kind {
	k.Exthdr = append([]rules.Ext{e}, k.Exthdr...)
	k.Name += " " + words
	return k
}

// evasive are the ways to send a message that the kernel takes as well: behind a
// Hop-by-Hop and a Destination Options header.
func evasive(k rules.Kind) []rules.Kind {
	return []rules.Kind{
		behindHeader(k, rules.Ext{Number: protoHopByHop}, "behind a Hop-by-Hop header"),
		behindHeader(k, rules.Ext{Number: protoDstOpts}, "behind a Destination Options header"),
	}
}

// fragmented is a message in two fragments; both must get in.
func fragmented(k rules.Kind) []rules.Kind {
	return []rules.Kind{
		behindHeader(k, rules.Ext{Number: protoFragment, Frag: rules.First}, "as first fragment"),
		behindHeader(k, rules.Ext{Number: protoFragment, Frag: rules.Later}, "as later fragment"),
	}
}

func atomic(k rules.Kind) rules.Kind {
	return behindHeader(k, rules.Ext{Number: protoFragment, Frag: rules.Atomic}, "as atomic fragment")
}

func routerAdvert() rules.Kind {
	return from(onLink(typeRA, "a router advertisement"), linkLocal)
}

// anyRA is any form of a router advertisement that the kernel takes.
func anyRA() question {
	k := routerAdvert()
	return question{what: "a router advertisement", kinds: append([]rules.Kind{to(k, allNodes), k}, evasive(to(k, allNodes))...)}
}

// plainRA is a router advertisement as routers send it.
func plainRA() question {
	return question{what: "a plain router advertisement", kinds: []rules.Kind{to(routerAdvert(), allNodes)}}
}

// rawRA is any form that a program with a raw socket is handed; the kernel would refuse
// the fragments.
func rawRA() question {
	q := anyRA()
	k := to(routerAdvert(), allNodes)
	q.what = "a router advertisement in any form"
	q.kinds = append(q.kinds, atomic(k))
	q.hard = [][]rules.Kind{fragmented(k)}
	return q
}

// hiddenRA are the forms that a guard which looks at the first header only misses.
func hiddenRA() question {
	k := to(routerAdvert(), allNodes)
	return question{what: "a router advertisement that hides behind another header", kinds: append(evasive(k), atomic(k)), hard: [][]rules.Kind{fragmented(k)}}
}

func anyRedirect() question {
	k := from(onLink(typeRedirect, "a redirect"), linkLocal)
	k.Ct = rules.Some(uint32(rules.CtInvalid))
	return question{what: "a redirect", narrow: true, kinds: append([]rules.Kind{k}, evasive(k)...)}
}

// solicitation and advertisement change neighbour entries.
func anyNS() question {
	k := onLink(typeNS, "a neighbour solicitation")
	return question{what: "a neighbour solicitation", narrow: true, kinds: append([]rules.Kind{k, to(k, netip.MustParseAddr("ff02::1:ff00:1"))}, evasive(k)...)}
}

func anyNA() question {
	k := onLink(typeNA, "a neighbour advertisement")
	return question{what: "a neighbour advertisement", narrow: true, kinds: append([]rules.Kind{to(k, allNodes), k}, evasive(k)...)}
}

// poison is any message that gives a neighbour another hardware address.
func poison() question {
	q := question{what: "a message that changes a neighbour entry", narrow: true}
	for _, x := range []question{anyNA(), anyNS(), anyRA()} {
		q.kinds = append(q.kinds, x.kinds...)
	}
	return q
}

// fragmentedND is a neighbour discovery message in fragments.
func fragmentedND() question {
	q := question{what: "neighbour discovery in fragments", narrow: true}
	for _, k := range []rules.Kind{to(routerAdvert(), allNodes), onLink(typeNA, "a neighbour advertisement"), onLink(typeNS, "a neighbour solicitation")} {
		q.kinds = append(q.kinds, atomic(k))
		q.hard = append(q.hard, fragmented(k))
	}
	return q
}

func echoTo(group netip.Addr, what string) question {
	k := to(icmp6(typeEcho, "an echo request", rules.CtNew), group)
	return question{what: what, narrow: true, kinds: append([]rules.Kind{k}, evasive(k)...)}
}

// routingHeader is a packet with a routing header of one type that has one segment left.
func routingHeader(typ uint8) question {
	var kinds []rules.Kind
	for _, k := range some(rs.IPv6) {
		kinds = append(kinds, behindHeader(k, rules.Ext{Number: protoRouting, Data: string([]byte{2, typ, 1})}, "with a routing header"))
	}
	return question{what: "a packet with a routing header of type " + strconv.Itoa(int(typ)), narrow: true, kinds: kinds}
}

// some are packets of which an ordinary ruleset accepts one: the answer to a connection
// of this host, a ping, a new connection.
func some(f rs.Family) []rules.Kind {
	p := rules.Packet{Family: f, Proto: rules.Some(uint8(protoTCP)), Sport: rules.Range{From: 443, To: 443}, Dport: rules.Some(uint16(50000)), TCPFlags: rules.Some(uint8(0x10)), Mark: rules.Some(uint32(0))}
	answer := rules.Kind{Name: "an answer to a connection of this host", Packet: p}
	answer.Ct = rules.Some(uint32(rules.CtEstablished))
	fresh := rules.Kind{Name: "a new connection", Packet: p}
	fresh.Ct, fresh.TCPFlags, fresh.Sport = rules.Some(uint32(rules.CtNew)), rules.Some(uint8(2)), rules.Range{From: 1024, To: 65535}
	out := []rules.Kind{answer, fresh}
	if f == rs.IPv6 {
		out = append(out, icmp6(typeEcho, "an echo request", rules.CtNew))
	}
	return out
}

// anyPacket is any packet at all.
func anyPacket(f rs.Family) question {
	return question{what: "an " + rules.FamilyWord(f) + " packet", narrow: true, kinds: some(f)}
}

// optioned is a packet with destination options.
func optioned() question {
	q := question{what: "a packet with destination options", narrow: true}
	for _, k := range some(rs.IPv6) {
		q.kinds = append(q.kinds, behindHeader(k, rules.Ext{Number: protoDstOpts}, "with destination options"))
	}
	return q
}

// hopOptioned is a packet with a Hop-by-Hop header, which the kernel reads before the
// hooks of IP.
func hopOptioned() question {
	k := behindHeader(rules.Kind{Name: "a packet", Packet: rules.Packet{Family: rs.IPv6, Mark: rules.Some(uint32(0))}}, rules.Ext{Number: protoHopByHop}, "with a Hop-by-Hop header")
	k.Early = true
	return question{what: "a packet with a Hop-by-Hop header", narrow: true, kinds: []rules.Kind{k}}
}

// protocol is a packet of a transport protocol without ports.
func protocol(f rs.Family, proto uint8, name string) question {
	k := rules.Kind{Name: name, Packet: rules.Packet{Family: f, Proto: rules.Some(proto), Ct: rules.Some(uint32(rules.CtNew)), Mark: rules.Some(uint32(0))}}
	return question{what: name + " over " + rules.FamilyWord(f), kinds: []rules.Kind{k}}
}

var transports = map[string]uint8{"tcp": protoTCP, "udp": protoUDP, "sctp": 132, "udplite": 136}

// toPort is a fresh packet for a port.
func toPort(f rs.Family, proto string, port uint16) rules.Kind {
	k := rules.Kind{Name: "a packet to " + proto + "/" + strconv.Itoa(int(port)), Packet: rules.Packet{
		Family: f, Proto: rules.Some(transports[proto]), Sport: rules.Range{From: 1024, To: 65535}, Dport: rules.Some(port),
		Ct: rules.Some(uint32(rules.CtNew)), Mark: rules.Some(uint32(0)),
	}}
	if proto == "tcp" {
		k.TCPFlags = rules.Some(uint8(2)) // SYN
	}
	return k
}

func anyPacket6() question { return anyPacket(rs.IPv6) }

func anyEcho() question {
	k := icmp6(typeEcho, "an echo request", rules.CtNew)
	return question{what: "an echo request", narrow: true, kinds: append([]rules.Kind{k}, evasive(k)...)}
}

// dadAnswer is what makes an address a duplicate.
func dadAnswer() question {
	q := anyNA()
	ns := onLink(typeNS, "a neighbour solicitation")
	q.what = "an answer to duplicate address detection"
	q.kinds = append(q.kinds, from(to(ns, netip.MustParseAddr("ff02::1:ff00:1")), netip.MustParsePrefix("::/128")))
	return q
}

// mappedTo is a datagram for a socket from ::ffff:127.0.0.1.
func mappedTo(a *ear) question {
	k := from(toPort(rs.IPv6, a.Protocol, a.Port), mappedLocal)
	k.Name += " from ::ffff:127.0.0.1"
	if l := a.Local.WithZone(""); l.IsValid() && !l.IsUnspecified() {
		k.Daddr = rules.Some(l)
		k.Name += " at " + l.String()
	}
	return question{what: k.Name, narrow: true, kinds: []rules.Kind{k}}
}

// intoTunnel is a packet that a tunnel of a kind would open.
func intoTunnel(l *fact.Link, kind string) (question, bool) {
	return outer(&fact.Link{Kind: kind, Tunnel: l.Tunnel})
}

// transit is a packet that this host would pass on for others.
func transit() question {
	tcp, udp, echo := toPort(rs.IPv6, "tcp", 443), toPort(rs.IPv6, "udp", 443), icmp6(typeEcho, "an echo request", rules.CtNew)
	for _, k := range []*rules.Kind{&tcp, &udp, &echo} {
		k.HopLimit = rules.Some(uint8(63))
	}
	tcp.Name, udp.Name = "a new connection to tcp/443", "a datagram to udp/443"
	return question{what: "a packet for somebody else", narrow: true, kinds: []rules.Kind{tcp, udp, echo}}
}

// absent is a packet to an address of a prefix where nobody is.
func absent(p netip.Prefix) question {
	q := transit()
	b := p.Masked().Addr().As16()
	b[15] |= 0xee & byte(1<<min(8, 128-p.Bits())-1)
	for i := range q.kinds {
		q.kinds[i] = to(q.kinds[i], netip.AddrFrom16(b))
	}
	q.what += " on " + p.String()
	return q
}
