package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/logic/reach"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// outbound keeps what --port and --to ask about; what this host sends comes from no
// source that --from could name.
func (f *reachFilter) outbound(flows []reach.Flow) []reach.Flow {
	out := []reach.Flow{}
	if f.from.IsValid() {
		return out
	}
	found := map[string]bool{} // protocols of which a flow has the port
	for _, x := range flows {
		found[x.Proto] = found[x.Proto] || f.port != 0 && x.Port != 0 && x.Port <= f.port && f.port <= max(x.Port, x.PortTo)
	}
	for _, x := range flows {
		switch {
		case x.Kind != reach.FlowOutbound, f.proto != "" && x.Proto != f.proto, f.port != 0 && x.Proto == "icmp":
			continue
		case f.port == 0:
		case x.Port == 0 && found[x.Proto], x.Port != 0 && (x.Port > f.port || f.port > max(x.Port, x.PortTo)):
			continue
		}
		x.IPv4, x.IPv6 = f.towards(x.IPv4, true), f.towards(x.IPv6, false)
		out = append(out, x)
	}
	return out
}

// towards keeps the destinations that --to asks about.
func (f *reachFilter) towards(vs []reach.V, is4 bool) []reach.V {
	if !f.to.IsValid() {
		return vs
	}
	out := []reach.V{}
	if f.to.Addr().Is4() != is4 {
		return out
	}
	only := packetset.Set{packetset.PrefixInterval(f.to)}
	for _, v := range vs {
		must, may := setOf(v.Must).Intersect(only), setOf(v.May).Intersect(only)
		v.Must, v.May = nonNil(must.Prefixes(is4)), nonNil(may.Prefixes(is4))
		v.Sources = outWords(must, may, only, is4)
		out = append(out, v)
	}
	return out
}

func outWords(must, may, all packetset.Set, is4 bool) string {
	switch {
	case len(may) == 0:
		return "nobody"
	case must.Same(may):
		return reach.Describe(must, all, is4)
	case len(must) == 0:
		return "perhaps " + reach.Describe(may, all, is4)
	}
	return reach.Describe(must, all, is4) + ", perhaps " + reach.Describe(may, all, is4)
}

// outCell says where to packets may go over one family, and how wide that is.
func outCell(vs []reach.V, is4 bool) (string, reach.Class) {
	if len(vs) == 0 {
		return "-", reach.Closed
	}
	var words []string
	must, may, _, limited := reach.Union(vs, func(string) bool { return false })
	for _, v := range vs {
		w := v.Sources
		if len(vs) > 1 && len(v.Interfaces) > 0 {
			w += " by " + interfaceList(v.Interfaces)
		}
		if !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	text := strings.Join(words, ", ")
	if limited {
		text += " (rate-limited)"
	}
	return text, reach.ClassOf(must, may, is4)
}

// maxOutLines is how many lines the text spends on what leaves.
const maxOutLines = 12

// outboundText says what this host may send: nothing where no rule sees it.
func (v *reachView) outboundText(b *strings.Builder, flows []reach.Flow) {
	type line struct {
		netns, four, six string
		mark             bool
		what             []string
		ports            map[string][]reach.Range
	}
	var lines []line
	for _, f := range flows {
		if f.Kind != reach.FlowOutbound {
			continue
		}
		four, c4 := outCell(f.IPv4, true)
		six, c6 := outCell(f.IPv6, false)
		i := slices.IndexFunc(lines, func(l line) bool { return l.netns == f.NetNS && l.four == four && l.six == six })
		if i < 0 {
			i = len(lines)
			lines = append(lines, line{netns: f.NetNS, four: four, six: six, mark: c4.Wider(c6) || c6.Wider(c4), ports: map[string][]reach.Range{}})
		}
		l := &lines[i]
		switch {
		case f.Port != 0:
			l.ports[f.Proto] = append(l.ports[f.Proto], reach.Range{From: f.Port, To: max(f.Port, f.PortTo)})
		case f.Proto == "icmp":
			l.what = append(l.what, "ping")
		default:
			others := f.Proto
			if slices.ContainsFunc(flows, func(o reach.Flow) bool {
				return o.Kind == f.Kind && o.NetNS == f.NetNS && o.Proto == f.Proto && o.Port != 0
			}) {
				others += ", every other port"
			}
			l.what = append(l.what, others)
		}
	}
	for i, l := range lines {
		if i == 0 {
			b.WriteString("\nWhat this host may send, and where to\n")
		}
		if i == maxOutLines {
			fmt.Fprintf(b, "  and %d more (--format json has them)\n", len(lines)-i)
			break
		}
		if v.many && (i == 0 || lines[i-1].netns != l.netns) {
			fmt.Fprintf(b, "  netns %s\n", l.netns)
		}
		var what []string
		for _, proto := range []string{"tcp", "udp"} {
			if len(l.ports[proto]) > 0 {
				what = append(what, portText(proto, l.ports[proto]))
			}
		}
		what = append(what, l.what...)
		text := strings.Join(what, "; ")
		if text == "tcp; udp; ping" {
			text = "everything"
		}
		mark := "  "
		if l.mark {
			mark = "! "
		}
		where := "IPv4 " + l.four + " | IPv6 " + l.six
		if l.four == l.six {
			where = l.four + ", over both families"
		}
		for j, t := range wrapText(text+": "+where, 76) {
			if j > 0 {
				mark = "    "
			}
			b.WriteString(mark + t + "\n")
		}
	}
}

// outboundFamilies compares where to the two families may send.
func outboundFamilies(doc *reach.Document) []reach.Difference {
	var out []reach.Difference
	for _, f := range doc.Flows {
		if f.Kind != reach.FlowOutbound || len(f.IPv4) == 0 || len(f.IPv6) == 0 {
			continue
		}
		four, c4 := outCell(f.IPv4, true)
		six, c6 := outCell(f.IPv6, false)
		d := reach.Difference{NetNS: f.NetNS, Hook: rs.Output.String(), Proto: f.Proto, Port: f.Port, PortTo: f.PortTo, Before: four, After: six, DecidedBy: []reach.RuleRef{}}
		if wider(&d, c4, c6, f.IPv4, f.IPv6) {
			out = append(out, d)
		}
	}
	return out
}
