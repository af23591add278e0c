package cli

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/surface/report"
)

// inside tells that a class has loopback interfaces only.
func (v *reachView) inside(netns string, x *reach.V) bool {
	return len(x.Interfaces) > 0 && !slices.ContainsFunc(x.Interfaces, func(n string) bool { return !v.loopbacks[netns+" "+n] })
}

// cell is who gets in over one family, in words.
func (v *reachView) cell(netns string, vs []reach.V, is4 bool) (string, reach.Class) {
	if len(vs) == 0 {
		return "-", reach.Closed
	}
	must, may, local, limited := reach.Union(vs, func(i string) bool { return v.loopbacks[netns+" "+i] })
	if local {
		return "this host", reach.Closed
	}
	words, same := "", true
	for _, x := range vs {
		if v.inside(netns, &x) {
			continue
		}
		if words == "" {
			words = x.Sources
		}
		same = same && x.Sources == words
	}
	if !same {
		all := packetset.Set{{To: packetset.Last(is4)}}
		for _, bad := range []string{"::1/128", "ff00::/8", "127.0.0.0/8", "224.0.0.0/4"} {
			if p := netip.MustParsePrefix(bad); p.Addr().Is4() == is4 {
				all = all.Intersect(packetset.Set{packetset.PrefixInterval(p)}.Complement(is4))
			}
		}
		switch {
		case len(may) == 0:
			words = "nobody"
		case slices.Equal(must, may):
			words = reach.Describe(must, all, is4)
		case len(must) == 0:
			words = "perhaps " + reach.Describe(may, all, is4)
		default:
			words = reach.Describe(must, all, is4) + ", perhaps " + reach.Describe(may, all, is4)
		}
	}
	if limited {
		words += " (rate-limited)"
	}
	return words, reach.ClassOf(must, may, is4)
}

// row is one line of the matrix.
type row struct {
	netns, proto, name, four, six string
	ports                         []reach.Range
	mark                          bool
	listener                      reach.Listener
}

// rows are the listeners as people count them: the sockets of a program that serves
// one family each are one, and so are ports that answer alike.
func (v *reachView) rows(ls []reach.Listener) []row {
	var merged []reach.Listener
	for _, l := range ls {
		i := slices.IndexFunc(merged, func(m reach.Listener) bool {
			return m.NetNS == l.NetNS && m.Proto == l.Proto && m.Port == l.Port && m.Process == l.Process && m.Device == l.Device &&
				(len(m.IPv4) == 0 && len(l.IPv6) == 0 || len(m.IPv6) == 0 && len(l.IPv4) == 0) && bothFamilies(m.Address, l.Address)
		})
		if i < 0 {
			merged = append(merged, l)
			continue
		}
		m := &merged[i]
		m.IPv4, m.IPv6 = append(slices.Clone(m.IPv4), l.IPv4...), append(slices.Clone(m.IPv6), l.IPv6...)
	}
	var out []row
	for _, l := range merged {
		four, c4 := v.cell(l.NetNS, l.IPv4, true)
		six, c6 := v.cell(l.NetNS, l.IPv6, false)
		r := row{l.NetNS, l.Proto, listenerName(&l), four, six, []reach.Range{{From: l.Port, To: max(l.Port, l.PortTo)}}, c6.Wider(c4) || c4.Wider(c6), l}
		i := slices.IndexFunc(out, func(o row) bool {
			return o.netns == r.netns && o.proto == r.proto && o.name == r.name && o.four == r.four && o.six == r.six && !slices.Contains(o.ports, r.ports[0])
		})
		if i >= 0 && (l.Process != "" || l.Address == "any") {
			out[i].ports = append(out[i].ports, r.ports[0])
			continue
		}
		out = append(out, r)
	}
	return out
}

// bothFamilies tells that two addresses are the same place in either family.
func bothFamilies(a, b string) bool {
	pairs := [][2]string{{"0.0.0.0", "::"}, {"127.0.0.1", "::1"}}
	return slices.ContainsFunc(pairs, func(p [2]string) bool { return a == p[0] && b == p[1] || a == p[1] && b == p[0] })
}

// portText is a list of ports: tcp/80, 443, 8000-8010.
func portText(proto string, ports []reach.Range) string {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b reach.Range) int { return cmp.Compare(a.From, b.From) })
	var joined []reach.Range
	for _, p := range ports {
		if n := len(joined); n > 0 && int(p.From) <= int(joined[n-1].To)+1 {
			joined[n-1].To = max(joined[n-1].To, p.To)
			continue
		}
		joined = append(joined, p)
	}
	if len(joined) == 1 && joined[0] == (reach.Range{From: 1, To: 65535}) {
		return proto + ", all"
	}
	var parts []string
	for _, r := range joined {
		switch {
		case r.From == r.To:
			parts = append(parts, strconv.Itoa(int(r.From)))
		case r.From+1 == r.To:
			parts = append(parts, strconv.Itoa(int(r.From)), strconv.Itoa(int(r.To)))
		default:
			parts = append(parts, fmt.Sprintf("%d-%d", r.From, r.To))
		}
	}
	return proto + "/" + strings.Join(parts, ", ")
}

// text writes the matrix at 80 columns: IPv4 beside IPv6.
func (v *reachView) text(w io.Writer, d reach.Document, quiet bool) error {
	var b strings.Builder
	const wPort, wName, wCell = 14, 14, 23
	line := func(mark, port, name, four, six string) {
		cols := [][]string{split(port, wPort), split(name, wName), split(four, wCell), split(six, wCell)}
		for i := 0; ; i++ {
			line := mark
			any := false
			for j, c := range cols {
				t := ""
				if i < len(c) {
					t, any = c[i], true
				}
				line += t
				if j < 3 {
					line += strings.Repeat(" ", []int{wPort, wName, wCell}[j]-report.Width(t)+1)
				}
			}
			if !any {
				return
			}
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			mark = strings.Repeat(" ", len(mark))
		}
	}
	netns := ""
	var differ []row
	rows := v.rows(d.Listeners)
	for i, r := range rows {
		if i == 0 || r.netns != netns {
			netns = r.netns
			if v.many || i > 0 {
				fmt.Fprintf(&b, "%snetns %s\n", map[bool]string{true: "\n"}[i > 0], netns)
			}
			line("  ", "PORT", "LISTENER", "IPv4 FROM", "IPv6 FROM")
		}
		mark := "  "
		if r.mark {
			mark = "! "
			differ = append(differ, r)
		}
		line(mark, portText(r.proto, r.ports), r.name, r.four, r.six)
	}
	if len(rows) == 0 {
		b.WriteString("No listener" + map[bool]string{true: " in this namespace"}[!v.many] + ".\n")
	}
	if !quiet {
		v.details(&b, d, differ)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// alike joins classes that let in the same sources by the same rules.
func alike(vs []reach.V) []reach.V {
	var out []reach.V
	for _, x := range vs {
		i := slices.IndexFunc(out, func(o reach.V) bool {
			return o.Sources == x.Sources && o.Limited == x.Limited && slices.Equal(o.DecidedBy, x.DecidedBy)
		})
		if i < 0 {
			x.Interfaces = slices.Clone(x.Interfaces)
			out = append(out, x)
			continue
		}
		o := &out[i]
		for _, n := range x.Interfaces {
			if !slices.Contains(o.Interfaces, n) {
				o.Interfaces = append(o.Interfaces, n)
			}
		}
		// A packet to a global address is the better example.
		if x.Witness != nil && (o.Witness == nil || o.Witness.Daddr.IsLinkLocalUnicast() || o.Witness.Daddr.IsMulticast()) {
			o.Witness = x.Witness
		}
	}
	return out
}

// maxInterfaces is how many interfaces a line names.
const maxInterfaces = 6

func interfaceList(names []string) string {
	if len(names) > maxInterfaces {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxInterfaces], ", "), len(names)-maxInterfaces)
	}
	return strings.Join(names, ", ")
}

func (v *reachView) details(b *strings.Builder, d reach.Document, differ []row) {
	for _, r := range differ {
		l := r.listener
		fmt.Fprintf(b, "\n! %s %s: IPv4 and IPv6 differ\n", portText(r.proto, r.ports), r.name)
		for _, f := range []struct {
			word string
			vs   []reach.V
		}{{"IPv4", l.IPv4}, {"IPv6", l.IPv6}} {
			if len(f.vs) == 0 {
				fmt.Fprintf(b, "  %s: nothing listens\n", f.word)
			}
			for _, x := range alike(f.vs) {
				if v.inside(l.NetNS, &x) {
					continue
				}
				x.Interfaces = slices.DeleteFunc(x.Interfaces, func(n string) bool { return v.loopbacks[l.NetNS+" "+n] })
				by := ""
				if len(x.Interfaces) > 0 {
					by = " by " + interfaceList(x.Interfaces)
				}
				fmt.Fprintf(b, "  %s%s: %s\n", f.word, by, x.Sources)
				for i, r := range x.DecidedBy {
					if i == 3 {
						fmt.Fprintf(b, "    and %d more rules\n", len(x.DecidedBy)-i)
						break
					}
					fmt.Fprintf(b, "    %s\n", r)
				}
				if len(x.DecidedBy) == 0 && len(x.Must) > 0 {
					b.WriteString("    no rule decides\n")
				}
				if x.Witness != nil {
					fmt.Fprintf(b, "    packet %s: %s\n", x.Witness, x.Witness.Verdict)
				}
			}
		}
	}
	v.flowText(b, d.Flows)
	v.outboundText(b, d.Flows)
	lintText(b, d.Lint, v.many)
	for i, g := range d.Gaps {
		if i == 0 {
			b.WriteString("\nNot known\n")
		}
		if i == 8 {
			fmt.Fprintf(b, "  and %d more (--format json has them)\n", len(d.Gaps)-i)
			break
		}
		what := g.What
		if v.many {
			what += " (" + g.NetNS + ")"
		}
		fmt.Fprintf(b, "  %s\n", what)
	}
}

func (v *reachView) flowText(b *strings.Builder, flows []reach.Flow) {
	flows = slices.DeleteFunc(slices.Clone(flows), func(f reach.Flow) bool { return f.Kind == reach.FlowOutbound })
	for i, f := range flows {
		if i == 0 {
			b.WriteString("\nPassed on\n")
		}
		if i == 40 {
			fmt.Fprintf(b, "  and %d more (--format json has them)\n", len(flows)-i)
			break
		}
		port := "every other port"
		if f.Port != 0 {
			port = fmt.Sprintf("%s/%d", f.Proto, f.Port)
		} else {
			port = f.Proto + ", " + port
		}
		to := f.Target
		if f.Process != "" {
			to += " (" + path.Base(f.Process) + ")"
		}
		how := "to"
		if f.Kind == reach.FlowRouted {
			how = "routed to"
		}
		fmt.Fprintf(b, "  %s %s %s\n", port, how, to)
		for _, x := range []struct {
			word string
			vs   []reach.V
			is4  bool
		}{{"IPv4", f.IPv4, true}, {"IPv6", f.IPv6, false}} {
			if len(x.vs) > 0 {
				cell, _ := v.cell(f.NetNS, x.vs, x.is4)
				fmt.Fprintf(b, "    %s from %s\n", x.word, cell)
			}
		}
	}
}

// maxEvidence is how many lines of evidence the text shows.
const maxEvidence = 3

// lintText lists what is wrong with the rules: what is said of several, once.
func lintText(b *strings.Builder, list []reach.Lint, many bool) {
	info, shown := map[string]int{}, 0
	var kinds []string
	said := map[string]bool{}
	for i, x := range list {
		if x.Severity == reach.Info {
			if info[x.ID]++; info[x.ID] == 1 {
				kinds = append(kinds, x.ID)
			}
			continue
		}
		key := func(x reach.Lint) string { return x.ID + x.NetNS + x.Message + strings.Join(x.Evidence, "|") }
		if said[key(x)] {
			continue
		}
		said[key(x)] = true
		if shown++; shown == 1 {
			b.WriteString("\nRules that do not do what they look like\n")
		} else {
			b.WriteString("\n")
		}
		fmt.Fprintf(b, "  %s: %s", x.Severity, x.ID)
		if many && x.NetNS != "" {
			fmt.Fprintf(b, " (netns %s)", x.NetNS)
		}
		b.WriteString("\n")
		for _, l := range wrapText(x.Message, 76) {
			fmt.Fprintf(b, "  %s\n", l)
		}
		for _, y := range list[i:] {
			if key(y) != key(x) || y.Severity != x.Severity {
				continue
			}
			at := strings.TrimSpace(y.Table + " " + y.Chain)
			if y.Handle != 0 {
				at += fmt.Sprintf(" handle %d", y.Handle)
			}
			if y.Rule != "" {
				at += ": " + y.Rule
			}
			if at != "" {
				fmt.Fprintf(b, "    %s\n", at)
			}
		}
		for j, e := range x.Evidence {
			if j == maxEvidence {
				fmt.Fprintf(b, "    … %d more\n", len(x.Evidence)-j)
				break
			}
			fmt.Fprintf(b, "    %s\n", e)
		}
		for _, l := range wrapText("To do: "+x.Remedy, 76) {
			fmt.Fprintf(b, "  %s\n", l)
		}
	}
	if len(kinds) == 0 {
		return
	}
	for i, k := range kinds {
		if info[k] > 1 {
			kinds[i] = fmt.Sprintf("%s (%d)", k, info[k])
		}
	}
	b.WriteString("\nWorth knowing of the rules; --format json says more\n")
	for _, l := range wrapText(strings.Join(kinds, ", "), 76) {
		fmt.Fprintf(b, "  %s\n", l)
	}
}

// split wraps text to a width.
func split(s string, w int) []string {
	var out []string
	for _, l := range wrapText(s, w) {
		for report.Width(l) > w {
			head := report.Cut(l, w)
			head = strings.TrimSuffix(head, "…")
			out, l = append(out, head), l[len(head):]
		}
		out = append(out, l)
	}
	return out
}

// listenerName is the program, and where it listens when that is not everywhere.
func listenerName(l *reach.Listener) string {
	if l.Address == "any" {
		return "(any)"
	}
	n := path.Base(l.Process)
	if l.Process == "" {
		n = "?"
	}
	if l.Address != "0.0.0.0" && l.Address != "::" && l.Address != "127.0.0.1" && l.Address != "::1" {
		n += " " + l.Address
	}
	if l.Device != "" {
		n += " on " + l.Device
	}
	return n
}
