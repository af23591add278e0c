package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/intent"
)

// mechanism is how a tunnel looks on the wire.
type mechanism struct {
	family string  // of the packets that carry it; empty: either
	protos []uint8 // IP protocols
	udp    []span
	tcp    []span
	to     []string // well-known destinations
}

// mechanisms are those that intents may name.
var mechanisms = map[string]mechanism{
	"6in4":      {family: "ipv4", protos: []uint8{41}},
	"6to4":      {family: "ipv4", protos: []uint8{41}, to: []string{"192.88.99.0/24", "2002::/16"}},
	"6rd":       {family: "ipv4", protos: []uint8{41}},
	"isatap":    {family: "ipv4", protos: []uint8{41}},
	"teredo":    {family: "ipv4", udp: []span{{3544, 3544}}, to: []string{"2001::/32"}},
	"gre":       {family: "ipv4", protos: []uint8{47}},
	"ip6gre":    {family: "ipv6", protos: []uint8{47}},
	"ipip":      {family: "ipv4", protos: []uint8{4}},
	"ip6tnl":    {family: "ipv6", protos: []uint8{4, 41}},
	"vti":       {family: "ipv4", protos: []uint8{50, 51}, udp: []span{{500, 500}, {4500, 4500}}},
	"vti6":      {family: "ipv6", protos: []uint8{50, 51}, udp: []span{{500, 500}, {4500, 4500}}},
	"ipsec":     {protos: []uint8{50, 51}, udp: []span{{500, 500}, {4500, 4500}}},
	"l2tp":      {protos: []uint8{115}, udp: []span{{1701, 1701}}},
	"wireguard": {udp: []span{{51820, 51820}}},
	"openvpn":   {udp: []span{{1194, 1194}}, tcp: []span{{1194, 1194}}},
	"vxlan":     {udp: []span{{4789, 4789}, {8472, 8472}}},
	"geneve":    {udp: []span{{6081, 6081}}},
	"fou":       {udp: []span{{5555, 5555}}},
	"gue":       {udp: []span{{6080, 6080}}},
}

// What a policy of deny keeps in and out: the encapsulations that carry packets past a
// firewall without keys, and the transition mechanisms that hosts use by themselves.
var (
	deniedProtos = []uint8{4, 41, 47, 94, 97, 98, 115, 137}
	deniedUDP    = []span{
		{1701, 1701}, {2152, 2152}, {2268, 2268}, {3544, 3544}, {3653, 3653}, {4754, 4754}, {4789, 4789}, {5072, 5072}, {6080, 6080}, {6081, 6081}, {6635, 6635}, {8472, 8472},
	}
	deniedTCP = []span{{3653, 3653}, {3874, 3874}}
	deniedTo  = []string{"192.88.99.0/24", "2001::/32", "2002::/16"}
)

// tunnelRules are the lines about tunnels.
type tunnelRules struct {
	inAllow, inDrop, outAllow, outDrop []string
	through                            []string // who may pass this host, as far as tunnels go
	guard                              string
}

func (s *site) tunnelRules() tunnelRules {
	var t tunnelRules
	v4, v6 := manages(s.in)
	if !v4 {
		t.guard = "meta nfproto ipv6"
	}
	v6 = v6 && !disabled(s.in)
	if s.in.Tunnels.Policy == intent.TunnelsAllow {
		return t
	}
	protos, udp, to := slices.Clone(deniedProtos), slices.Clone(deniedUDP), slices.Clone(deniedTo)
	for i, x := range s.in.Tunnels.List {
		path := fmt.Sprintf("tunnels[%d]", i)
		m, ok := mechanisms[x.Mechanism]
		if !ok {
			s.fault(path+".mechanism", "one of "+strings.Join(intent.Mechanisms(), ", "), "%q is no tunnel that is known", x.Mechanism)
			continue
		}
		saddr, daddr := "", ""
		if x.Peer.IsValid() {
			is4 := x.Peer.Addr().Is4()
			if is4 && !v4 || !is4 && !v6 {
				s.fault(path+".peer", "let the firewall manage both families", "no rules are written for the family of %s", x.Peer)
				continue
			}
			ps := s.split(path+".peer", []netip.Prefix{x.Peer}, is4)
			saddr, daddr = addresses(is4, "@saddr", ps), addresses(is4, "@daddr", ps)
		}
		line := func(addr, what string) string {
			return strings.TrimSpace(addr+" "+what) + ` counter accept comment "` + path + `"`
		}
		out := func(what string) {
			t.outAllow = append(t.outAllow, line(daddr, what))
			t.through = append(t.through, strings.Replace(line(daddr, what), " counter accept ", " return ", 1))
		}
		to = slices.DeleteFunc(to, func(d string) bool { return slices.Contains(m.to, d) })
		if !x.Peer.IsValid() && m.family != "" {
			if m.family == "ipv4" && !v4 || m.family == "ipv6" && !v6 {
				continue
			}
			saddr, daddr = "meta nfproto "+m.family, "meta nfproto "+m.family
		}
		if len(m.protos) > 0 {
			w := "meta l4proto " + braces(numbers(m.protos))
			t.inAllow = append(t.inAllow, line(saddr, w))
			out(w)
		}
		for _, p := range []struct {
			name string
			list []span
		}{{"udp", m.udp}, {"tcp", m.tcp}} {
			if len(p.list) > 0 {
				t.inAllow = append(t.inAllow, line(saddr, p.name+" dport "+portList(p.list)))
				out(p.name + " dport " + portList(p.list))
			}
		}
	}
	for _, p := range s.in.ListedPorts() { // who lists a protocol or a port wants it
		switch {
		case p.Whole():
			protos = slices.DeleteFunc(protos, func(n uint8) bool { return n == p.Proto })
		case p.Name == "udp" && p.From == p.To:
			udp = slices.DeleteFunc(udp, func(x span) bool { return x.from == p.From })
		}
	}
	if len(protos) > 0 {
		w := "meta l4proto " + braces(numbers(protos)) + ` counter drop comment "tunnels"`
		t.inDrop, t.outDrop = append(t.inDrop, w), append(t.outDrop, w)
	}
	if len(udp) > 0 {
		t.outDrop = append(t.outDrop, "udp dport "+portList(udp)+` counter drop comment "tunnels: Teredo, TSP, AYIYA, VXLAN, Geneve, GUE, L2TP, GTP, AMT, GRE and MPLS in UDP"`)
	}
	t.outDrop = append(t.outDrop, "tcp dport "+portList(deniedTCP)+` counter drop comment "tunnels: TSP, TIC"`)
	var four, six []string
	for _, d := range to {
		if strings.Contains(d, ":") {
			six = append(six, d)
		} else {
			four = append(four, d)
		}
	}
	if v4 && len(four) > 0 {
		t.outDrop = append(t.outDrop, "ip daddr "+braces(four)+` counter drop comment "tunnels: 6to4 relays"`)
	}
	if v6 && len(six) > 0 {
		t.outDrop = append(t.outDrop, "ip6 daddr "+braces(six)+` counter drop comment "tunnels: 6to4, Teredo"`)
	}
	return t
}

func numbers(list []uint8) []string {
	out := make([]string, len(list))
	for i, n := range list {
		out[i] = fmt.Sprint(n)
	}
	return out
}
