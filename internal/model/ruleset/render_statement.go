package ruleset

import (
	"strconv"
	"strings"
)

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
		w.set(w.meta(x.Key), x.Sreg)
	case CtSet:
		w.set(w.ct(x.Key, x.Dir), x.Sreg)
	case PayloadSet:
		w.set(w.payload(Payload{Base: x.Base, Offset: x.Offset, Len: x.Len}), x.Sreg)
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
		if x.ByHook {
			word = "netmap"
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
