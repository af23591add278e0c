package ruleset

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

func hexOf(b []byte) string { return fmt.Sprintf("0x%x", b) }

func number(b []byte) string {
	if len(b) > 8 {
		return hexOf(b)
	}
	var n uint64
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return strconv.FormatUint(n, 10)
}

func (w *renderer) host(b []byte) string {
	switch len(b) {
	case 1:
		return strconv.Itoa(int(b[0]))
	case 2:
		return strconv.Itoa(int(w.order.Uint16(b)))
	case 4:
		return strconv.FormatUint(uint64(w.order.Uint32(b)), 10)
	}
	return hexOf(b)
}

func (w *renderer) hostHex(b []byte) string {
	if len(b) == 4 {
		return fmt.Sprintf("0x%x", w.order.Uint32(b))
	}
	return hexOf(b)
}

func address(b []byte) string {
	if a, ok := netip.AddrFromSlice(b); ok {
		return a.String()
	}
	return hexOf(b)
}

func ifNameText(b []byte) string {
	s, _, cut := strings.Cut(string(b), "\x00")
	if !cut && len(b) < 16 {
		s += "*"
	}
	return strconv.Quote(s)
}

var protocols = map[byte]string{1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 58: "icmpv6", 132: "sctp", 136: "udplite"}

func protocol(b []byte) string {
	if len(b) == 1 {
		if n := protocols[b[0]]; n != "" {
			return n
		}
	}
	return number(b)
}

var icmp6Types = map[byte]string{
	1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded", 4: "parameter-problem", 128: "echo-request", 129: "echo-reply",
	130: "mld-listener-query", 131: "mld-listener-report", 132: "mld-listener-done", 133: "nd-router-solicit", 134: "nd-router-advert",
	135: "nd-neighbor-solicit", 136: "nd-neighbor-advert", 137: "nd-redirect", 143: "mld2-listener-report",
}

var icmpTypes = map[byte]string{0: "echo-reply", 3: "destination-unreachable", 5: "redirect", 8: "echo-request", 11: "time-exceeded", 12: "parameter-problem"}

func named(names map[byte]string) func([]byte) string {
	return func(b []byte) string {
		if len(b) == 1 {
			if n := names[b[0]]; n != "" {
				return n
			}
		}
		return number(b)
	}
}

// ctBits are the words of ct state.
func (w *renderer) ctStates(b []byte) string {
	if len(b) != 4 {
		return hexOf(b)
	}
	v := w.order.Uint32(b)
	var p []string
	for _, s := range []struct {
		bit  uint32
		word string
	}{{1, "invalid"}, {2, "established"}, {4, "related"}, {8, "new"}, {64, "untracked"}} {
		if v&s.bit != 0 {
			p = append(p, s.word)
			v &^= s.bit
		}
	}
	if v != 0 {
		p = append(p, fmt.Sprintf("0x%x", v))
	}
	return strings.Join(p, ",")
}

var tcpFlagBits = []string{"fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"}

func tcpFlagText(b []byte) string {
	if len(b) != 1 {
		return number(b)
	}
	var p []string
	for i, n := range tcpFlagBits {
		if b[0]>>i&1 != 0 {
			p = append(p, n)
		}
	}
	if p == nil {
		return "0x0"
	}
	return strings.Join(p, ",")
}

// prefixText writes the leading bytes of an address as a prefix.
func prefixText(size int) func([]byte) string {
	return func(b []byte) string {
		full := make([]byte, size)
		copy(full, b)
		return fmt.Sprintf("%s/%d", address(full), 8*min(len(b), size))
	}
}

func immediateText(b []byte) string {
	switch len(b) {
	case 4, 16:
		return address(b)
	case 2:
		return number(b)
	}
	return hexOf(b)
}

// prefixBits is how many leading ones a mask has, if it has nothing else.
func prefixBits(mask string) (int, bool) {
	n, ended := 0, false
	for _, b := range []byte(mask) {
		for i := 7; i >= 0; i-- {
			set := b>>i&1 != 0
			if set && ended {
				return 0, false
			}
			if set {
				n++
			} else {
				ended = true
			}
		}
	}
	return n, true
}

func verdictText(v Verdict, chain string) string {
	switch v {
	case Accept:
		return "accept"
	case Drop:
		return "drop"
	case Jump:
		return "jump " + chain
	case Goto:
		return "goto " + chain
	case Return:
		return "return"
	case Continue:
		return "continue"
	case Queue:
		return "queue"
	}
	return fmt.Sprintf("verdict %d", v)
}
