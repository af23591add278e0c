package ruleset

import (
	"encoding/binary"
	"fmt"
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
	data  []byte // of a constant, whose words depend on where it goes
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
		w.regs[x.Dreg] = term{words: immediateText(d), show: hexOf, data: d}
	case Cmp:
		w.cmp(x)
	case Range:
		t := w.reg(x.Sreg)
		op := ""
		if x.Invert {
			op = "!= "
		}
		w.implied(t)
		w.add("%s %s%s-%s", t.words, op, t.show(x.From), t.show(x.To))
	case Lookup:
		w.lookup(x)
	default:
		w.statement(e)
	}
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
	case x.Op == 0:
		t.words += masked(x.Mask, x.Xor, t.show)
	case x.Op == 1 || x.Op == 2:
		t.words += fmt.Sprintf(" %s %d", map[uint32]string{1: "<<", 2: ">>"}[x.Op], x.Shift)
	default:
		t.words += fmt.Sprintf(" %s %s", map[uint32]string{3: "&", 4: "|", 5: "^"}[x.Op], w.reg(x.Sreg2).words)
	}
	w.regs[x.Dreg] = t
}

// masked is what a mask and an exclusive or do, as nft writes it: v & mask ^ xor is
// v | n where the mask spares just what xor sets.
func masked(mask, xor []byte, show func([]byte) string) string {
	all, or := true, len(mask) == len(xor)
	for i, m := range mask {
		all = all && m == 0xff
		or = or && m == ^xor[i]
	}
	switch {
	case all:
		return " ^ " + show(xor)
	case or:
		return " | " + show(xor)
	}
	return " & " + show(mask) + " ^ " + show(xor)
}

// set is a statement that writes a register to a place: a constant reads as the values
// of that place do.
func (w *renderer) set(to term, r Reg) {
	from := w.reg(r)
	if from.data != nil && to.show != nil {
		from.words = to.show(from.data)
	}
	w.add("%s set %s", to.words, from.words)
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
	w.implied(t)
	if low, ok := strings.CutPrefix(w.last(), t.words+" >= "); ok && x.Op == Lte { // a range is two comparisons
		w.out[len(w.out)-1] = fmt.Sprintf("%s %s-%s", t.words, low, t.show(x.Data))
		return
	}
	w.add("%s %s%s", t.words, op, t.show(x.Data))
}

// implied takes back the protocol that the words of a term say again.
func (w *renderer) implied(t term) {
	if t.proto != "" && w.last() == "meta l4proto "+t.proto {
		w.out = w.out[:len(w.out)-1]
	}
}

func (w *renderer) last() string {
	if len(w.out) == 0 {
		return ""
	}
	return w.out[len(w.out)-1]
}

// maxShown is how many elements of an anonymous set a rule shows.
const maxShown = 12

func (w *renderer) lookup(x Lookup) {
	s := w.rule.Chain.Table.Sets[x.Set]
	t := w.reg(x.Sreg)
	if s != nil && len(s.Concat) > 1 {
		t = w.concat(x.Sreg, s.Concat)
	}
	w.implied(t)
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
