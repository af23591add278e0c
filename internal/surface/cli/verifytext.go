package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sixfence/sixfence/internal/logic/expect"
	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/surface/report"
)

func verifyAddresses(j *expect.Judge) []expect.Seen {
	out := []expect.Seen{}
	for _, a := range j.Addresses {
		v := a.Vantage
		if a.Path != nil {
			m := *a.Path
			m.Why = report.Clean(m.Why)
			a.Path = &m
		}
		if a.Soak != nil {
			m := *a.Soak
			m.Why = report.Clean(m.Why)
			a.Soak = &m
		}
		out = append(out, expect.Seen{
			Target: report.Clean(a.Target), Via: a.Via, Address: a.Addr, Family: a.Family(), Source: v.Source, Interface: report.Clean(v.Interface), Gateway: v.Gateway, OnLink: v.OnLink, Self: v.Self, SameSite: a.SameSite(),
			Life: a.Life, Problem: report.Clean(a.Problem), Sent: a.Sent, Controls: a.Controls, Lost: a.Lost, Complete: a.Complete, Path: a.Path, Traces: a.Traces, Chains: a.Chains, Distances: a.Distances(), Soak: a.Soak, Notes: cleanEach(a.Notes),
		})
	}
	return out
}

// writeVerifyJSON writes the results one by one: there may be hundreds of thousands.
func writeVerifyJSON(w io.Writer, j *expect.Judge, r finding.Report, took time.Duration, complete bool) error {
	r = report.Neutralise(r)
	b := bufio.NewWriterSize(w, 64<<10)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	member := func(name string, v any) error {
		var one bytes.Buffer
		e := json.NewEncoder(&one)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return err
		}
		fmt.Fprintf(b, ",\n%q:%s", name, bytes.TrimSpace(one.Bytes()))
		return nil
	}
	fmt.Fprintf(b, "{%q:%q", "schemaVersion", expect.DocumentVersion)
	if r.Findings == nil {
		r.Findings = []finding.Finding{}
	}
	if r.Gaps == nil {
		r.Gaps = []finding.Gap{}
	}
	for _, m := range []struct {
		name string
		v    any
	}{
		{"tool", r.Tool},
		{"at", r.At},
		{"seconds", took.Seconds()},
		{"complete", complete},
		{"addresses", verifyAddresses(j)},
		{"parity", j.Parity()},
		{"across", j.Across()},
		{"lost", cleanLost(j.Lost)},
		{"names", cleanNames(j.Names)},
		{"findings", r.Findings},
		{"gaps", r.Gaps},
	} {
		if err := member(m.name, m.v); err != nil {
			return err
		}
	}
	if j.Guards != nil {
		if err := member("guards", j.Guards); err != nil {
			return err
		}
	}
	_, _ = b.WriteString(",\n\"results\":[") // Flush reports the first error of all
	first := true
	for x := range j.Results {
		if !first {
			_ = b.WriteByte(',')
		}
		first = false
		x.Target = report.Clean(x.Target)
		if err := e.Encode(x); err != nil {
			return err
		}
	}
	_, _ = b.WriteString("]}\n")
	return b.Flush()
}

func cleanLost(ls []expect.Lost) []expect.Lost {
	out := []expect.Lost{}
	for _, l := range ls {
		out = append(out, expect.Lost{Via: l.Via, Why: report.Clean(l.Why), Partly: l.Partly})
	}
	return out
}

// passed are names for what was compared and agrees.
func passed(j *expect.Judge) []string {
	type row struct {
		via               string
		addr              netip.Addr
		proto             string
		expected, predict expect.Word
	}
	var rows []row
	sets := map[row]*probe.Ports{}
	for r := range j.Results {
		if r.Verdict != expect.Match || r.Variant != probe.Plain {
			continue
		}
		k := row{r.Via, r.Address, r.Proto, r.Expected, r.Predicted}
		if sets[k] == nil {
			sets[k] = &probe.Ports{}
			rows = append(rows, k)
		}
		sets[k].Add(r.Port)
	}
	var out []string
	for _, k := range rows {
		want := k.expected
		if want == "" {
			want = k.predict
		}
		name := fmt.Sprintf("%s/%s of %s is %s, as expected", k.proto, sets[k].List(), k.addr, want)
		if k.via != "" {
			name = k.via + " claims: " + name
		}
		out = append(out, name)
	}
	return out
}

// verifyText writes the answer for a person: the families side by side first.
func (a *app) verifyText(w io.Writer, j *expect.Judge, r finding.Report, o verifyOptions, failOn finding.Severity, guessed bool) error {
	r = report.Neutralise(r)
	b := bufio.NewWriter(w)
	style := a.styled(o.noColor)
	if o.output != "" && o.output != "-" {
		style = report.TextOptions{}
	}
	if style.Width == 0 {
		style.Width = 80
	}
	style.Width = min(max(style.Width, 40), 120)
	failed, unknown := report.Entries(r.Findings, finding.Fail), report.Entries(r.Findings, finding.Unknown)
	if !o.quiet {
		verifyTables(b, j, style.Width)
		verifyAcross(b, j, style.Width)
		verifyHops(b, j, style.Width)
		verifyChains(b, j, style.Width)
		verifyGuards(b, j.Guards, style.Width)
		verifyNames(b, j, style.Width)
		if err := errors.Join(report.List(b, "What is wrong, worst first", failed, style), report.List(b, "What could not be told", unknown, style)); err != nil {
			return err
		}
		verifyNotes(b, j, guessed, style.Width)
		if len(failed)+len(unknown) > 0 {
			for _, l := range wrapText(fmt.Sprintf("sixfence explain %s teaches what a finding is about.", append(slices.Clone(failed), unknown...)[0].Control), style.Width) {
				fmt.Fprintln(b, l)
			}
			fmt.Fprintln(b)
		}
	}
	word, worst, why := verifyVerdict(j, r, failed, unknown, failOn, o.allowGaps)
	if err := report.Verdict(b, word, worst, why, style); err != nil {
		return err
	}
	return b.Flush()
}

// verifyVerdict is the last line, which says what the exit status says.
func verifyVerdict(j *expect.Judge, r finding.Report, failed, unknown []report.Entry, failOn finding.Severity, allow []string) (word string, worst finding.Severity, why string) {
	var parts []string
	if n := len(failed); n > 0 {
		worst = failed[0].Severity
		parts = append(parts, plural(n, "finding", "findings"))
	}
	if n := len(unknown); n > 0 {
		parts = append(parts, plural(n, "question", "questions")+" without an answer")
	}
	why = strings.Join(parts, ", and ")
	switch code := exitCode(r, failOn, allow); {
	case code == exitFindings:
		return "FAIL", worst, why + "."
	case code == exitUnknown:
		return "UNDECIDED", finding.Medium, why + "."
	case why != "" && failOn == "":
		return "FINDINGS", finding.Medium, why + "; nothing counts as a failure (--fail-on never)."
	case why != "":
		return "FINDINGS", finding.Medium, why + "; nothing that counts as a failure (--fail-on " + string(failOn) + ")."
	case j.Guards != nil:
		return "PASS", "", guardsLine(j.Guards)
	case j.Expected == nil && j.Predicted == nil:
		return "", "", "Nothing to compare with was given: this is what the wire shows."
	}
	n := 0
	for x := range j.Results {
		if x.Verdict == expect.Match {
			n++
		}
	}
	return "PASS", "", plural(n, "answer is", "answers are") + " as expected, and nothing is wrong."
}

// portCell is how wide the list of ports may be, without its protocol.
const portCell = 26

// stateCell is a column of states.
const stateCell = 13

// column is addresses of one family that answer alike everywhere.
type column struct {
	name  string
	addrs []netip.Addr
	words []string // one a row
}

// block is hosts that look alike from one place.
type block struct {
	via     string
	targets []string
	names   []string
	cols    []column
}

// verifyBlocks are the hosts in their order, each with those that look the same.
func verifyBlocks(rows []expect.Parity) []*block {
	var out []*block
	index := map[string]*block{}
	for i := 0; i < len(rows); {
		n := i
		for n < len(rows) && rows[n].Target == rows[i].Target && rows[n].Via == rows[i].Via {
			n++
		}
		x := &block{via: rows[i].Via, targets: []string{report.Clean(rows[i].Target)}}
		x.names, x.cols = verifyColumns(rows[i:n])
		key := fmt.Sprintf("%q %q", x.via, x.names)
		for _, c := range x.cols {
			key += fmt.Sprintf(" %q %q", c.name, c.words)
		}
		if like := index[key]; like == nil {
			index[key] = x
			out = append(out, x)
		} else {
			like.targets = append(like.targets, x.targets...)
			for k := range x.cols {
				like.cols[k].addrs = append(like.cols[k].addrs, x.cols[k].addrs...)
			}
		}
		i = n
	}
	return out
}

func verifyTables(b *bufio.Writer, j *expect.Judge, width int) {
	type place struct {
		via  string
		addr netip.Addr
	}
	about := map[place]*probe.Address{}
	several := false
	for _, x := range j.Addresses {
		about[place{x.Via, x.Addr}] = x
		several = several || x.Via != ""
	}
	para := func(lead, text string) {
		for l, text := range wrapText(text, width-len(lead)-2) {
			if l > 0 {
				lead, text = strings.Repeat(" ", len(lead)), "  "+text
			}
			fmt.Fprintln(b, lead+text)
		}
	}
	blocks := verifyBlocks(j.Parity())
	for i, x := range blocks {
		if several && (i == 0 || blocks[i-1].via != x.via) {
			if x.via == "" {
				fmt.Fprintln(b, "Seen from here")
			} else {
				fmt.Fprintf(b, "Seen from %s: it says so, and nothing here checks it\n", x.via)
			}
		}
		head := strings.Join(x.targets, ", ")
		if n := len(x.targets); n > 1 {
			head += fmt.Sprintf(": %d hosts, all alike", n)
			if !slices.ContainsFunc(x.targets, func(s string) bool { _, err := netip.ParseAddr(s); return err != nil }) {
				head = fmt.Sprintf("%d hosts, all alike", n) // their addresses follow
			}
		}
		para("", head)
		for _, c := range x.cols {
			name := c.name
			for k := 0; k < len(c.addrs); {
				how := way(about[place{x.via, c.addrs[k]}])
				n := k
				var same []string
				for n < len(c.addrs) && way(about[place{x.via, c.addrs[n]}]) == how {
					same = append(same, c.addrs[n].String())
					n++
				}
				para(fmt.Sprintf("  %-8s ", name), strings.Join(same, ", ")+how)
				name, k = "", n
			}
		}
		fmt.Fprintln(b)
		verifyRows(b, x.names, x.cols, width)
	}
}

// verifyColumns are the rows of one host by column, with what is common in one.
func verifyColumns(rows []expect.Parity) (names []string, cols []column) {
	all := make([]column, len(rows[0].Addresses))
	for k, x := range rows[0].Addresses {
		all[k].addrs = []netip.Addr{x}
	}
	for i, p := range rows {
		name := "  "
		if p.Differ {
			name = "! "
		}
		echo := p.Variant == probe.Plain && p.Proto == "icmp" && (p.Ports == "8" || p.Ports == "128")
		if echo {
			name += "echo"
		} else {
			name += portName(p.Proto, p.Variant, p.Ports, p.Count)
		}
		// The types of an echo differ between the families, and the question does not.
		same := echo && len(names) > 0 && strings.HasSuffix(names[len(names)-1], " echo") && rows[i-1].Ports != p.Ports
		if !same {
			names = append(names, name)
		}
		for k, s := range p.States {
			word := string(s)
			switch {
			case s == "":
				word = "-"
			case s == expect.Word(probe.Filtered) && p.Proto == "udp":
				word = "silent"
			}
			switch last := len(all[k].words) - 1; {
			case !same:
				all[k].words = append(all[k].words, word)
			case word != "-":
				all[k].words[last] = word
			}
		}
	}
	n := map[string]int{}
	for _, c := range all {
		family := "IPv6"
		if c.addrs[0].Is4() {
			family = "IPv4"
		}
		at := slices.IndexFunc(cols, func(x column) bool {
			return x.addrs[0].Is4() == c.addrs[0].Is4() && slices.Equal(x.words, c.words)
		})
		if at >= 0 {
			cols[at].addrs = append(cols[at].addrs, c.addrs...)
			continue
		}
		c.name = family
		if n[family]++; n[family] > 1 {
			c.name += " #" + strconv.Itoa(n[family])
		}
		cols = append(cols, c)
	}
	return names, cols
}

// verifyRows writes the table, in several parts where the columns are too many.
func verifyRows(b *bufio.Writer, names []string, cols []column, width int) {
	cell := portCell + 8
	if width < cell+stateCell {
		cell = max(16, width-2*stateCell)
	}
	for len(cols) > 0 {
		part := cols[:min(len(cols), max(1, (width-cell)/stateCell))]
		cols = cols[len(part):]
		line := fmt.Sprintf("%-*s", cell, "  PORT")
		for _, c := range part {
			line += fmt.Sprintf("  %-*s", stateCell-2, c.name)
		}
		fmt.Fprintln(b, strings.TrimRight(line, " "))
		for i, name := range names {
			if report.Width(name) > cell { // a narrow terminal
				fmt.Fprintln(b, name)
				name = ""
			}
			line := name + strings.Repeat(" ", cell-report.Width(name))
			for _, c := range part {
				line += fmt.Sprintf("  %-*s", stateCell-2, c.words[i])
			}
			fmt.Fprintln(b, strings.TrimRight(line, " "))
		}
		fmt.Fprintln(b)
	}
}

// verifyAcross lays the vantages side by side.
func verifyAcross(b *bufio.Writer, j *expect.Judge, width int) {
	rows := j.Across()
	if len(rows) == 0 {
		return
	}
	fmt.Fprintln(b, "What does not look alike from everywhere")
	for i, r := range rows {
		if i == 0 || rows[i-1].Address != r.Address || rows[i-1].Target != r.Target {
			fmt.Fprintf(b, "  %s, %s\n", report.Clean(r.Target), r.Address)
		}
		line := "    " + portName(r.Proto, r.Variant, r.Ports, r.Count) + ": "
		var parts []string
		for k, v := range r.Vias {
			parts = append(parts, fmt.Sprintf("%s from %s", cmp.Or(string(r.States[k]), "not known"), cmp.Or(v, "here")))
		}
		for n, l := range wrapText(line+strings.Join(parts, ", "), width-6) {
			if n > 0 {
				l = "      " + l
			}
			fmt.Fprintln(b, l)
		}
	}
	fmt.Fprintln(b)
}

// portName is ports as a cell of a table has room for them.
func portName(proto string, v probe.Variant, ports string, count int) string {
	name := proto + "/" + ports
	if len(name) > portCell+6 {
		cut := strings.LastIndexByte(name[:portCell-4], ',')
		name = name[:max(cut, 5)] + "… (" + strconv.Itoa(count) + ")"
	}
	if v != probe.Plain {
		name += " " + string(v)
	}
	return name
}

// way says how the probes went.
func way(a *probe.Address) string {
	v := a.Vantage
	var parts []string
	switch {
	case a.Problem != "":
		parts = append(parts, "no way there")
	case !v.Source.IsValid() && !a.Complete:
		return " (not looked at)"
	case v.Self:
		parts = append(parts, "the host that asks: what follows is loopback, not what others see")
	case v.OnLink:
		parts = append(parts, "on the link of "+report.Clean(v.Interface)+", so nothing is between")
	default:
		parts = append(parts, "by the router "+v.Gateway.String())
		switch a.SameSite() {
		case probe.SiteNear:
			parts = append(parts, "and by no other, so what guards the border of its site is not between")
		case probe.SitePrefix, probe.SitePrivate:
			parts = append(parts, "by their addresses of one site, and then what guards its border is not between")
		case probe.SiteUnknown:
		}
	}
	switch a.Life {
	case probe.Answered:
	case probe.Neighbour:
		parts = append(parts, "silent, but there: its neighbour entry is fresh")
	case probe.Elsewhere:
		parts = append(parts, "silent: others answer for it")
	default:
		parts = append(parts, "no sign of life")
	}
	if a.Controls > 0 && a.Lost*100 > a.Controls {
		parts = append(parts, fmt.Sprintf("%d %% of the controls lost", a.Lost*100/a.Controls))
	}
	return " (" + strings.Join(parts, "; ") + ")"
}

func verifyNotes(b *bufio.Writer, j *expect.Judge, guessed bool, width int) {
	var notes []string
	for _, a := range j.Addresses {
		lead := a.Addr.String()
		if a.Via != "" {
			lead = a.Via + " says of " + lead
		}
		notes = append(notes, wayNotes(a, lead)...)
		if m := a.Path; m != nil && m.Verdict == probe.PathHonoured {
			n := fmt.Sprintf("%s: path-MTU discovery works, packets of %d bytes come through", lead, m.MTU)
			if m.Hop.IsValid() {
				n += fmt.Sprintf("; %s says %s above %d", m.Hop, map[bool]string{true: "Fragmentation Needed", false: "Packet Too Big"}[a.Addr.Is4()], m.HopMTU)
			}
			notes = append(notes, n)
		}
		if n := soakNote(a); n != "" {
			notes = append(notes, n)
		}
		for _, n := range a.Notes {
			notes = append(notes, lead+": "+report.Clean(n))
		}
	}
	notes = append(notes, segmentNotes(j)...)
	why := map[string]string{
		"own-rules": "this host's own rules drop what is sent to some ports, or what comes back: their state is not known", "no-rights": "some probes need root (CAP_NET_RAW; for echo net.ipv4.ping_group_range)",
	}
	said := map[string]bool{}
	for r := range j.Results {
		if n := why[r.Why]; n != "" && r.Via == "" && !slices.Contains(notes, n) {
			notes = append(notes, n)
		}
		if r.ICMP != nil && r.State == probe.Rejected && len(said) < 8 {
			said[fmt.Sprintf("%s: rejected by %s with %s", r.Address, r.ICMP.From, probe.ICMPWords(r.Address.Is4(), r.ICMP.Type, r.ICMP.Code))] = true
		}
		if r.Why == probe.OtherAnswer && len(said) < 8 {
			said[fmt.Sprintf("%s: something answers on udp/%d, and not in the protocol that the port is known for", r.Address, r.Port)] = true
		}
	}
	for n := range said {
		notes = append(notes, n)
	}
	slices.Sort(notes)
	if guessed {
		notes = append(notes, "one IPv4 and some IPv6 addresses are taken for one host; --apart keeps them apart")
	}
	if len(notes) == 0 {
		return
	}
	fmt.Fprintln(b, "Worth knowing")
	for _, n := range notes {
		for i, line := range wrapText(n, width-4) {
			if i == 0 {
				fmt.Fprintln(b, "  - "+line)
			} else {
				fmt.Fprintln(b, "    "+line)
			}
		}
	}
	fmt.Fprintln(b)
}

// byAddress writes a part of the text that has something to say about some addresses.
func byAddress(b *bufio.Writer, j *expect.Judge, title string, has func(*probe.Address) bool, write func(*probe.Address)) {
	any := false
	for _, a := range j.Addresses {
		if !has(a) {
			continue
		}
		if !any {
			fmt.Fprintln(b, title)
			any = true
		}
		lead := ""
		if a.Via != "" {
			lead = ", as " + a.Via + " claims"
		}
		fmt.Fprintf(b, "  %s%s\n", a.Addr, lead)
		write(a)
	}
	if any {
		fmt.Fprintln(b)
	}
}
