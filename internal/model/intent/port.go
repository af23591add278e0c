package intent

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Port is one item of a list of ports: a range of a transport protocol, or an IP
// protocol as a whole.
type Port struct {
	Proto    uint8  // IP protocol number
	Name     string // as it is written: tcp, udp, esp, or the number
	From, To uint16 // both 0: the protocol as a whole
}

// Whole tells that it is a protocol without ports.
func (p Port) Whole() bool { return p.From == 0 && p.To == 0 }

// String is the form that ParsePort reads.
func (p Port) String() string {
	switch {
	case p.Whole() && p.Name == strconv.Itoa(int(p.Proto)):
		return "proto/" + p.Name
	case p.Whole():
		return p.Name
	case p.From == p.To:
		return p.Name + "/" + strconv.Itoa(int(p.From))
	}
	return fmt.Sprintf("%s/%d-%d", p.Name, p.From, p.To)
}

// transports are the protocols that have ports.
var transports = map[string]uint8{"tcp": 6, "udp": 17, "dccp": 33, "sctp": 132, "udplite": 136}

// wholes are the protocols that a service may name without a port.
var wholes = map[string]uint8{"esp": 50, "ah": 51, "gre": 47, "vrrp": 112, "carp": 112, "ospf": 89, "pim": 103, "l2tp": 115, "ipip": 4, "eigrp": 88, "rsvp": 46, "igmp": 2}

// Transports are the names of the protocols that have ports, sorted.
func Transports() []string { return sorted(transports) }

// Protocols are the names of the protocols that may be named without a port, sorted.
func Protocols() []string { return sorted(wholes) }

func sorted(m map[string]uint8) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// PortError says why a text is no port, and what to write instead.
type PortError struct {
	Why, Hint string
}

// Error implements error.
func (e *PortError) Error() string { return e.Why }

// ParsePort reads "tcp/22", "udp/1000-2000", "esp" or "proto/112". The error is a
// *PortError.
func ParsePort(s string) (Port, error) {
	bad := func(hint, why string, a ...any) (Port, error) {
		return Port{}, &PortError{Why: fmt.Sprintf(why, a...), Hint: hint}
	}
	const form = "write tcp/22, udp/1000-2000, or a protocol without ports: esp, proto/112"
	name, num, both := strings.Cut(s, "/")
	if !both {
		if n, ok := wholes[s]; ok {
			return Port{Proto: n, Name: s}, nil
		}
		switch {
		case s != "" && strings.Trim(s, "0123456789-") == "":
			return bad(fmt.Sprintf("write tcp/%s or udp/%s (proto/%s is the IP protocol of that number)", s, s, s), "%q does not say whether it is a TCP port, a UDP port or a protocol", s)
		case s == "icmp" || s == "icmpv6" || s == "ipv6-icmp":
			return bad("leave it out: what IPv6 needs of ICMPv6 is accepted by itself, and limits: sets the rate of echo requests", "%s is no service", s)
		}
		if _, ok := transports[s]; ok {
			return bad(fmt.Sprintf("write %s/22, or %s/1-65535 for all of them", s, s), "%s needs a port", s)
		}
		return bad(form, "%q is no port", s)
	}
	if name == "proto" {
		n, err := strconv.ParseUint(num, 10, 8)
		switch {
		case err != nil || strconv.FormatUint(n, 10) != num:
			return bad("IP protocols are numbered from 0 to 255: proto/112", "%q is no protocol number", num)
		case n == 1 || n == 58:
			return bad("leave it out: what IPv6 needs of ICMPv6 is accepted by itself, and limits: sets the rate of echo requests", "ICMP is no service")
		case slices.Contains([]uint64{0, 43, 44, 59, 60, 135}, n):
			return bad("name what is inside: tcp/22, esp, proto/112", "protocol %d is an IPv6 extension header", n)
		}
		for t, p := range transports {
			if uint64(p) == n {
				return bad(fmt.Sprintf("write %s/22, or %s/1-65535 for all of them", t, t), "protocol %d is %s, which needs a port", n, t)
			}
		}
		return Port{Proto: uint8(n), Name: num}, nil
	}
	proto, ok := transports[name]
	if !ok {
		if _, both := transports[num]; both && name != "" && strings.Trim(name, "0123456789-") == "" {
			return bad("turn it round: "+num+"/"+name, "%q has the protocol last", s)
		}
		return bad("the protocols with ports are "+strings.Join(Transports(), ", "), "%q is no protocol with ports", name)
	}
	from, to, isRange := strings.Cut(num, "-")
	if !isRange {
		to = from
	}
	a, err1 := port(from)
	b, err2 := port(to)
	switch {
	case err1 != nil || err2 != nil:
		return bad("ports are numbers from 1 to 65535: "+name+"/22, "+name+"/1000-2000", "%q is no port of %s", num, name)
	case a > b:
		return bad(fmt.Sprintf("write %s/%d-%d", name, b, a), "the range %s ends before it begins", num)
	}
	return Port{Proto: proto, Name: name, From: a, To: b}, nil
}

func port(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, err
	}
	if n == 0 || strconv.FormatUint(n, 10) != s {
		return 0, strconv.ErrRange
	}
	return uint16(n), nil
}

// ListedPorts are the ports and protocols that the intent names anywhere: of services, of
// what is forwarded and of what is let out. What is no port is left out.
func (in Intent) ListedPorts() []Port {
	var out []Port
	add := func(list []string) {
		for _, w := range list {
			if p, err := ParsePort(w); err == nil {
				out = append(out, p)
			}
		}
	}
	for _, v := range in.Services {
		add(v.Ports)
	}
	for _, f := range in.Forwarding.Allow {
		add(f.Ports)
	}
	for _, d := range slices.Concat(in.Egress.IPv4.Allow, in.Egress.IPv6.Allow) {
		add(d.Ports)
	}
	return out
}
