package ruleset

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

var metaNames = map[uint32]string{
	0: "length", 1: "protocol", 2: "priority", 3: "mark", 4: "iif", 5: "oif", 6: "iifname", 7: "oifname", 8: "iiftype", 9: "oiftype",
	10: "skuid", 11: "skgid", 12: "nftrace", 14: "secmark", 15: "nfproto", 16: "l4proto", 17: "ibrname", 18: "obrname", 19: "pkttype",
	20: "cpu", 21: "iifgroup", 22: "oifgroup", 23: "cgroup", 24: "random", 25: "ipsec", 26: "iifkind", 27: "oifkind",
}

func (w *renderer) meta(key uint32) term {
	n := metaNames[key]
	if n == "" {
		n = fmt.Sprintf("key%d", key)
	}
	t := term{words: "meta " + n, show: w.host}
	switch key {
	case 4, 5:
		t.words = n
		t.show = func(b []byte) string {
			if len(b) == 4 {
				i := w.order.Uint32(b)
				if name := w.ifs[i]; name != "" {
					return strconv.Quote(name)
				}
				return strconv.FormatUint(uint64(i), 10)
			}
			return w.host(b)
		}
	case 6, 7:
		t.words, t.show = n, ifNameText
	case 15:
		t.show = func(b []byte) string {
			switch {
			case len(b) == 1 && b[0] == byte(IPv4):
				return "ipv4"
			case len(b) == 1 && b[0] == byte(IPv6):
				return "ipv6"
			}
			return w.host(b)
		}
	case 16:
		t.show = protocol
	case 1:
		t.show = func(b []byte) string {
			switch string(b) {
			case "\x08\x00":
				return "ip"
			case "\x86\xdd":
				return "ip6"
			}
			return hexOf(b)
		}
	case 3:
		t.show = w.hostHex
	}
	return t
}

var ctNames = map[uint32]string{
	0: "state", 1: "direction", 2: "status", 3: "mark", 4: "secmark", 5: "expiration", 6: "helper", 7: "l3proto", 8: "saddr", 9: "daddr",
	10: "protocol", 11: "proto-src", 12: "proto-dst", 13: "label", 14: "packets", 15: "bytes", 16: "avgpkt", 17: "zone", 18: "event",
	19: "ip saddr", 20: "ip daddr", 21: "ip6 saddr", 22: "ip6 daddr", 23: "id",
}

func (w *renderer) ct(key uint32, dir int8) term {
	t := term{words: "ct ", show: w.host}
	switch dir {
	case 0:
		t.words += "original "
	case 1:
		t.words += "reply "
	}
	n := ctNames[key]
	if n == "" {
		n = fmt.Sprintf("key%d", key)
	}
	t.words += n
	switch key {
	case 0:
		t.show = w.ctStates
	case 3:
		t.show = w.hostHex
	case 1:
		t.show = named(map[byte]string{0: "original", 1: "reply"})
	case 7:
		t.show = named(map[byte]string{byte(IPv4): "ipv4", byte(IPv6): "ipv6"})
	case 8, 9:
		t.show = address
	case 10:
		t.show = protocol
	case 11, 12:
		t.show = number
	case 19, 20:
		t.show = shortAddress(4)
	case 21, 22:
		t.show = shortAddress(16)
	}
	return t
}

// shortAddress writes an address, or the leading bytes of one as a prefix.
func shortAddress(size int) func([]byte) string {
	return func(b []byte) string {
		if len(b) < size {
			return prefixText(size)(b)
		}
		return address(b)
	}
}

type fieldKey struct {
	base     Header
	family   uint8 // 4, 6 or the transport protocol; 0 any
	off, len uint32
}

var fields = map[fieldKey]string{
	{NetworkHeader, 4, 12, 4}: "ip saddr", {NetworkHeader, 4, 16, 4}: "ip daddr", {NetworkHeader, 4, 9, 1}: "ip protocol",
	{NetworkHeader, 4, 8, 1}: "ip ttl", {NetworkHeader, 4, 6, 2}: "ip frag-off", {NetworkHeader, 4, 2, 2}: "ip length",
	{NetworkHeader, 6, 8, 16}: "ip6 saddr", {NetworkHeader, 6, 24, 16}: "ip6 daddr", {NetworkHeader, 6, 6, 1}: "ip6 nexthdr",
	{NetworkHeader, 6, 7, 1}: "ip6 hoplimit", {NetworkHeader, 6, 4, 2}: "ip6 length",
	{LinkHeader, 0, 6, 6}: "ether saddr", {LinkHeader, 0, 0, 6}: "ether daddr", {LinkHeader, 0, 12, 2}: "ether type",
}

func (w *renderer) payload(x Payload) term {
	fam := w.fam
	switch w.rule.Chain.Table.Family {
	case IPv4:
		fam = 4
	case IPv6:
		fam = 6
	}
	switch x.Base {
	case NetworkHeader:
		fams := []uint8{4, 6}
		if fam != 0 {
			fams = []uint8{fam}
		}
		for _, f := range fams {
			if n := fields[fieldKey{x.Base, f, x.Offset, x.Len}]; n != "" {
				t := term{words: n, show: number, size: int(x.Len)}
				switch {
				case strings.HasSuffix(n, "addr"):
					t.show = address
				case strings.HasSuffix(n, "protocol"), strings.HasSuffix(n, "nexthdr"):
					t.show = protocol
				}
				return t
			}
		}
		for _, a := range []struct {
			off, len uint32
			words    string
		}{{8, 16, "ip6 saddr"}, {24, 16, "ip6 daddr"}} {
			// A shorter load is a prefix of whole bytes.
			if fam != 4 && x.Offset == a.off && x.Len < a.len {
				return term{words: a.words, show: prefixText(16)}
			}
		}
		if fam == 4 && x.Len < 4 && (x.Offset == 12 || x.Offset == 16) {
			return term{words: map[uint32]string{12: "ip saddr", 16: "ip daddr"}[x.Offset], show: prefixText(4)}
		}
	case LinkHeader:
		if n := fields[fieldKey{x.Base, 0, x.Offset, x.Len}]; n != "" {
			return term{words: n, show: func(b []byte) string {
				if len(b) != 6 {
					return hexOf(b)
				}
				return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5])
			}}
		}
	case TransportHeader:
		p := "th"
		if w.have {
			p = protocol([]byte{w.proto})
		}
		t := term{show: number, proto: p}
		icmp := p == "icmp" || p == "icmpv6"
		switch {
		case icmp && x.Offset == 0 && x.Len == 1:
			t.words, t.show = p+" type", named(icmpTypes)
			if p == "icmpv6" {
				t.show = named(icmp6Types)
			}
		case icmp && x.Offset == 1 && x.Len == 1:
			t.words = p + " code"
		case x.Offset == 0 && x.Len == 2 && !icmp:
			t.words = p + " sport"
		case x.Offset == 2 && x.Len == 2 && !icmp:
			t.words = p + " dport"
		case p == "tcp" && x.Offset == 13 && x.Len == 1:
			t.words, t.show = "tcp flags", tcpFlagText
		}
		if t.words != "" {
			return t
		}
	}
	base := [...]string{"@ll", "@nh", "@th", "@ih"}[min(int(x.Base), 3)]
	return term{words: fmt.Sprintf("%s,%d,%d", base, x.Offset*8, x.Len*8), show: hexOf}
}

var exthdrNames = map[uint8]string{0: "hbh", 43: "rt", 44: "frag", 60: "dst", 135: "mh", 50: "esp", 51: "ah"}

func (w *renderer) fib(x Fib) term {
	var keys []string
	for _, k := range []struct {
		bit  uint32
		word string
	}{{1, "saddr"}, {2, "daddr"}, {4, "mark"}, {8, "iif"}, {16, "oif"}} {
		if x.Flags&k.bit != 0 {
			keys = append(keys, k.word)
		}
	}
	t := term{words: "fib " + strings.Join(keys, " . ") + " ", show: w.host}
	switch x.Result {
	case 1:
		t.words += "oif"
	case 2:
		t.words, t.show = t.words+"oifname", ifNameText
	case 3:
		t.words += "type"
		t.show = func(b []byte) string {
			if len(b) == 4 {
				if n := map[uint32]string{1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}[w.order.Uint32(b)]; n != "" {
					return n
				}
			}
			return w.host(b)
		}
	}
	if x.Flags&32 != 0 {
		// The kernel stores one byte, nft compares one to four, in either order.
		t.show = func(b []byte) string {
			if len(bytes.Trim(b, "\x00")) == 0 {
				return "missing"
			}
			return "exists"
		}
	} else if x.Result == 1 {
		t.show = func(b []byte) string {
			if len(b) != 4 {
				return w.host(b)
			}
			i := w.order.Uint32(b)
			switch name := w.ifs[i]; {
			case i == 0:
				return "missing"
			case name != "":
				return strconv.Quote(name)
			}
			return w.host(b)
		}
	}
	return t
}
