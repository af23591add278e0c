package probe

import (
	"fmt"
	"strconv"
	"strings"
)

// Spec is which ports are asked about, by protocol.
type Spec struct {
	TCP, UDP, ICMP4, ICMP6 Ports
}

// SpecError is a mistake in a list of ports, with its remedy.
type SpecError struct{ Why, Hint string }

// Error implements error.
func (e *SpecError) Error() string { return e.Why }

// Answers are the ICMP types that can be asked, with the type of the answer.
var (
	Answers4 = map[uint8]uint8{8: 0, 13: 14}
	Answers6 = map[uint8]uint8{128: 129}
)

// Parse adds one word to the spec: tcp/22, tcp/1-1000, udp/53, icmp/8, icmpv6/128, echo.
func (s *Spec) Parse(word string) error {
	if word == "echo" {
		s.ICMP4.Add(8)
		s.ICMP6.Add(128)
		return nil
	}
	proto, rest, ok := strings.Cut(word, "/")
	hint := "write tcp/22, tcp/1-1000, udp/53, icmp/8, icmpv6/128 or echo"
	if !ok {
		if _, err := strconv.Atoi(word); err == nil {
			hint = "say which protocol: tcp/" + word + " or udp/" + word
		}
		return &SpecError{fmt.Sprintf("%q is no port", word), hint}
	}
	a, b, err := span(rest)
	if err != nil {
		return &SpecError{fmt.Sprintf("%q is no port", word), hint}
	}
	if b < a {
		return &SpecError{fmt.Sprintf("%q ends before it begins", word), fmt.Sprintf("write %s/%d-%d", proto, b, a)}
	}
	set := map[string]*Ports{"tcp": &s.TCP, "udp": &s.UDP, "icmp": &s.ICMP4, "icmpv6": &s.ICMP6}[proto]
	switch {
	case set == nil:
		return &SpecError{fmt.Sprintf("%q: %q is no protocol that can be probed", word, proto), hint}
	case proto == "icmp" || proto == "icmpv6":
		known := Answers4
		if proto == "icmpv6" {
			known = Answers6
		}
		for t := a; t <= b; t++ {
			if _, ok := known[uint8(t)]; !ok || t > 255 {
				return &SpecError{fmt.Sprintf("%q: nobody answers type %d", word, t), "icmp/8 (echo), icmp/13 (timestamp) or icmpv6/128 (echo)"}
			}
		}
	case a == 0:
		return &SpecError{fmt.Sprintf("%q: port 0 is not probed", word), "ports are 1 to 65535"}
	}
	set.addSpan(a, b)
	return nil
}

// span reads 22 or 1-1000: where it begins and where it ends, which may be before that.
func span(s string) (a, b uint16, err error) {
	from, to, isRange := strings.Cut(s, "-")
	a, err = number(from)
	if err != nil || !isRange {
		return a, a, err
	}
	b, err = number(to)
	return a, b, err
}

func number(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err == nil && strconv.FormatUint(n, 10) != s {
		err = strconv.ErrSyntax
	}
	return uint16(n), err
}

// Of is the set for a protocol's word.
func (s *Spec) Of(proto string) *Ports {
	switch proto {
	case "tcp":
		return &s.TCP
	case "udp":
		return &s.UDP
	case "icmp":
		return &s.ICMP4
	}
	return &s.ICMP6
}
