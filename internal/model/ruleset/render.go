package ruleset

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Render is a rule as nft would write it, as far as that is possible: readable and
// the same for the same rule, for people who look for it in their own listing. It
// is no input for nft. What has no word there is shown as its expression.
func (r *Rule) Render(order binary.ByteOrder, interfaces map[uint32]string) string {
	if r.Text != "" {
		return r.Text
	}
	w := renderer{order: order, ifs: interfaces, rule: r, regs: map[Reg]term{}}
	for _, e := range r.Exprs {
		w.expr(e)
	}
	out := strings.Join(w.out, " ")
	if r.Comment != "" {
		out += " comment " + strconv.Quote(r.Comment)
	}
	return out
}

// term is what a register holds, in words, and how constants beside it are written.
type term struct {
	words string
	show  func([]byte) string
	mask  string
	size  int
	proto string // the header that the words already imply
}

type renderer struct {
	order binary.ByteOrder
	ifs   map[uint32]string
	rule  *Rule
	regs  map[Reg]term
	out   []string
	proto uint8 // of a "meta l4proto" that the next transport field implies
	have  bool
	fam   uint8 // 4 or 6 after "meta nfproto"
}

func (w *renderer) add(format string, a ...any) {
	s := fmt.Sprintf(format, a...)
	// What nft leaves out, because the next word says it, too.
	if n := len(w.out); n > 0 {
		six := strings.HasPrefix(s, "ip6 ") || strings.HasPrefix(s, "icmpv6 ")
		if w.out[n-1] == "meta nfproto ipv6" && six || w.out[n-1] == "meta nfproto ipv4" && (strings.HasPrefix(s, "ip ") || strings.HasPrefix(s, "icmp ")) {
			w.out = w.out[:n-1]
		}
	}
	w.out = append(w.out, s)
}

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
	case 8, 9, 19, 20, 21, 22:
		t.show = address
	}
	return t
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

// prefixText writes the leading bytes of an address as a prefix.
func prefixText(size int) func([]byte) string {
	return func(b []byte) string {
		full := make([]byte, size)
		copy(full, b)
		return fmt.Sprintf("%s/%d", address(full), 8*min(len(b), size))
	}
}

var exthdrNames = map[uint8]string{0: "hbh", 43: "rt", 44: "frag", 60: "dst", 135: "mh", 50: "esp", 51: "ah"}

func (w *renderer) expr(e Expr) {
	switch x := e.(type) {
	case Payload:
		w.regs[x.Dreg] = w.payload(x)
	case Meta:
		w.regs[x.Dreg] = w.meta(x.Key)
	case Ct:
		w.regs[x.Dreg] = w.ct(x.Key, x.Dir)
	case Exthdr:
		n := exthdrNames[x.Type]
		switch {
		case x.Op != 0:
			n = fmt.Sprintf("option %d", x.Type)
		case n == "":
			n = fmt.Sprintf("header %d", x.Type)
		}
		if x.Present {
			w.regs[x.Dreg] = term{words: "exthdr " + n, show: named(map[byte]string{0: "missing", 1: "exists"})}
		} else {
			w.regs[x.Dreg] = term{words: fmt.Sprintf("%s @%d,%d", n, x.Offset*8, x.Len*8), show: number}
		}
	case Fib:
		w.regs[x.Dreg] = w.fib(x)
	case Rt:
		w.regs[x.Dreg] = term{words: fmt.Sprintf("rt key%d", x.Key), show: w.host}
	case Socket:
		w.regs[x.Dreg] = term{words: "socket " + map[uint32]string{0: "transparent", 1: "mark", 2: "wildcard", 3: "cgroupv2"}[x.Key], show: w.host}
	case Random:
		w.regs[x.Dreg] = term{words: fmt.Sprintf("numgen mod %d", x.Modulus), show: w.host}
	case Bitwise:
		w.bitwise(x)
	case Byteorder:
		w.regs[x.Dreg] = w.regs[x.Sreg]
	case Immediate:
		d := x.Data
		w.regs[x.Dreg] = term{words: immediateText(d), show: hexOf}
	case Cmp:
		w.cmp(x)
	case Range:
		t := w.reg(x.Sreg)
		op := ""
		if x.Invert {
			op = "!= "
		}
		w.add("%s %s%s-%s", t.words, op, t.show(x.From), t.show(x.To))
	case Lookup:
		w.lookup(x)
	default:
		w.statement(e)
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
		t.show = named(map[byte]string{0: "missing", 1: "exists"})
	} else if x.Result == 1 {
		t.show = func(b []byte) string {
			if len(b) == 4 && w.order.Uint32(b) == 0 {
				return "missing"
			}
			return w.host(b)
		}
	}
	return t
}

func (w *renderer) reg(r Reg) term {
	t, ok := w.regs[r]
	if !ok || t.show == nil {
		return term{words: fmt.Sprintf("reg%d", r), show: hexOf}
	}
	return t
}

func (w *renderer) bitwise(x Bitwise) {
	t := w.reg(x.Sreg)
	switch {
	case x.Op == 0 && !slices.ContainsFunc(x.Xor, func(b byte) bool { return b != 0 }):
		t.mask = string(x.Mask)
	default:
		t.words += fmt.Sprintf(" (%s)", map[uint32]string{0: "& ^", 1: "<<", 2: ">>", 3: "&", 4: "|", 5: "^"}[x.Op])
	}
	w.regs[x.Dreg] = t
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

func (w *renderer) cmp(x Cmp) {
	t := w.reg(x.Sreg)
	op := map[Op]string{Eq: "", Neq: "!= ", Lt: "< ", Lte: "<= ", Gt: "> ", Gte: ">= "}[x.Op]
	zero := !slices.ContainsFunc(x.Data, func(b byte) bool { return b != 0 })
	switch {
	case t.words == "meta l4proto" && x.Op == Eq && len(x.Data) == 1, strings.HasSuffix(t.words, "ip protocol") && x.Op == Eq, t.words == "ip6 nexthdr" && x.Op == Eq:
		if len(x.Data) == 1 {
			w.proto, w.have = x.Data[0], true
		}
	case t.words == "meta nfproto" && x.Op == Eq && len(x.Data) == 1:
		w.fam = map[Family]uint8{IPv4: 4, IPv6: 6}[Family(x.Data[0])]
	case t.mask != "":
		if n, ok := prefixBits(t.mask); ok && strings.HasSuffix(t.words, "addr") {
			w.add("%s %s%s/%d", t.words, op, t.show(x.Data), n)
			return
		}
		mask := t.show([]byte(t.mask))
		switch {
		case zero && x.Op == Neq:
			w.add("%s %s", t.words, mask)
		case zero && x.Op == Eq:
			w.add("%s & %s == 0", t.words, mask)
		default:
			w.add("%s & %s %s%s", t.words, mask, map[bool]string{true: "== ", false: op}[op == ""], t.show(x.Data))
		}
		return
	}
	if t.proto != "" && len(w.out) > 0 && w.out[len(w.out)-1] == "meta l4proto "+t.proto {
		w.out = w.out[:len(w.out)-1]
	}
	w.add("%s %s%s", t.words, op, t.show(x.Data))
}

// maxShown is how many elements of an anonymous set a rule shows.
const maxShown = 12

func (w *renderer) lookup(x Lookup) {
	s := w.rule.Chain.Table.Sets[x.Set]
	t := w.reg(x.Sreg)
	if s != nil && len(s.Concat) > 1 {
		t = w.concat(x.Sreg, s.Concat)
	}
	if t.proto != "" && len(w.out) > 0 && w.out[len(w.out)-1] == "meta l4proto "+t.proto {
		w.out = w.out[:len(w.out)-1]
	}
	op, kind := "", ""
	if x.Invert {
		op = "!= "
	}
	if x.Verdict {
		kind = "vmap "
	} else if x.HasDreg {
		kind = "map "
	}
	if x.HasDreg && !x.Verdict {
		w.regs[x.Dreg] = term{words: t.words + " map @" + x.Set, show: hexOf}
		return
	}
	if s == nil || !s.Anonymous {
		w.add("%s %s%s@%s", t.words, op, kind, x.Set)
		return
	}
	var el []string
	for i, e := range s.Elements {
		if i == maxShown {
			el = append(el, fmt.Sprintf("… %d more", len(s.Elements)-i))
			break
		}
		v := ""
		switch {
		case e.CatchAll:
			v = "*"
		case string(e.From) == string(e.To):
			v = t.show(e.From)
		default:
			v = span(t, e.From, e.To)
		}
		if e.HasVerdict {
			v += " : " + verdictText(e.Verdict, e.Chain)
		}
		el = append(el, v)
	}
	w.add("%s %s%s{ %s }", t.words, op, kind, strings.Join(el, ", "))
}

// span is a range, or a prefix where it is one.
func span(t term, from, to []byte) string {
	if strings.HasSuffix(t.words, "addr") && len(from) == len(to) {
		var mask strings.Builder
		for i := range from {
			mask.WriteByte(^(from[i] ^ to[i]))
		}
		if n, ok := prefixBits(mask.String()); ok {
			zero := true
			for i := range from {
				zero = zero && from[i]&^mask.String()[i] == 0 && to[i]|mask.String()[i] == 0xff
			}
			if zero {
				return fmt.Sprintf("%s/%d", t.show(from), n)
			}
		}
	}
	return t.show(from) + "-" + t.show(to)
}

// concat joins the terms of consecutive registers.
func (w *renderer) concat(first Reg, lens []int) term {
	var parts []term
	var words []string
	r := first
	for _, n := range lens {
		t := w.reg(r)
		parts, words = append(parts, t), append(words, t.words)
		r += Reg((n + 3) / 4)
	}
	return term{words: strings.Join(words, " . "), show: func(b []byte) string {
		var out []string
		off := 0
		for i, n := range lens {
			if off+n > len(b) {
				return hexOf(b)
			}
			out = append(out, parts[i].show(b[off:off+n]))
			off += (n + 3) &^ 3
		}
		return strings.Join(out, " . ")
	}}
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

func (w *renderer) statement(e Expr) {
	switch x := e.(type) {
	case Conclude:
		w.add("%s", verdictText(x.Verdict, x.Chain))
	case Limit:
		over := ""
		if x.Over {
			over = " over"
		}
		w.add("%s%s", x.Name, over)
	case Nothing:
		if x.Name == "comment" {
			break // it is the rule's
		}
		w.add("%s", x.Name)
	case Objref:
		if x.Set != "" {
			w.add("object map @%s", x.Set)
		} else {
			w.add("object %s", strconv.Quote(x.Name))
		}
	case Dynset:
		verb := map[uint32]string{0: "add", 1: "update", 2: "delete"}[x.Op]
		var in []string
		for _, s := range x.Exprs {
			sub := renderer{order: w.order, ifs: w.ifs, rule: w.rule, regs: map[Reg]term{}}
			sub.expr(s)
			in = append(in, sub.out...)
		}
		key := w.reg(x.SregKey).words
		if s := w.rule.Chain.Table.Sets[x.Set]; s != nil && len(s.Concat) > 1 {
			key = w.concat(x.SregKey, s.Concat).words
		}
		w.add("%s @%s { %s }", verb, x.Set, strings.TrimSpace(key+" "+strings.Join(in, " ")))
	case MetaSet:
		w.add("%s set %s", w.meta(x.Key).words, w.reg(x.Sreg).words)
	case CtSet:
		w.add("%s set %s", w.ct(x.Key, x.Dir).words, w.reg(x.Sreg).words)
	case PayloadSet:
		w.add("%s set %s", w.payload(Payload{Base: x.Base, Offset: x.Offset, Len: x.Len}).words, w.reg(x.Sreg).words)
	case Nat:
		word := "snat"
		if x.Dst {
			word = "dnat"
		}
		to := ""
		if x.HasAddr {
			to = " to " + w.reg(x.AddrMin).words
		}
		if x.HasProto {
			to += " port " + w.reg(x.ProtoMin).words
		}
		w.add("%s%s", word, to)
	case Redirect:
		if x.HasProto {
			w.add("redirect to :%s", w.reg(x.ProtoMin).words)
		} else {
			w.add("redirect")
		}
	case Masquerade:
		w.add("masquerade")
	case TProxy:
		w.add("tproxy")
	case Reject:
		if x.Type == 1 {
			w.add("reject with tcp reset")
		} else {
			w.add("reject")
		}
	case Notrack:
		w.add("notrack")
	case ToQueue:
		w.add("queue")
	case Steal:
		w.add("%s", x.Name)
	case Opaque:
		w.add("[%s, not understood]", x.Name)
	default:
		if !w.xtables(e) {
			w.add("[%T]", e)
		}
	}
}
