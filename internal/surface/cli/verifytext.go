package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
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
		out = append(out, expect.Seen{
			Target: report.Clean(a.Target), Via: a.Via, Address: a.Addr, Family: a.Family(), Source: v.Source, Interface: report.Clean(v.Interface), Gateway: v.Gateway, OnLink: v.OnLink, Self: v.Self,
			Life: a.Life, Problem: report.Clean(a.Problem), Sent: a.Sent, Controls: a.Controls, Lost: a.Lost, Complete: a.Complete, Path: a.Path, Notes: cleanEach(a.Notes),
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
		{"findings", r.Findings},
		{"gaps", r.Gaps},
	} {
		if err := member(m.name, m.v); err != nil {
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
		out = append(out, expect.Lost{Via: l.Via, Why: report.Clean(l.Why)})
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
	failed, unknown := 0, 0
	for _, f := range r.Findings {
		switch f.Status {
		case finding.Fail:
			failed++
		case finding.Unknown:
			unknown++
		}
	}
	if !o.quiet {
		verifyTables(b, j)
		verifyAcross(b, j)
		verifyFindings(b, "What is wrong", r.Findings, finding.Fail)
		verifyFindings(b, "What could not be told", r.Findings, finding.Unknown)
		verifyNotes(b, j, guessed)
	}
	line := "Nothing is wrong."
	if j.Expected == nil && j.Predicted == nil {
		line = "Nothing to compare with was given: this is what the wire shows."
	}
	switch {
	case failed > 0 && unknown > 0:
		line = plural(failed, "finding", "findings") + ", and " + plural(unknown, "question", "questions") + " without an answer."
	case failed > 0:
		line = plural(failed, "finding", "findings") + "."
	case unknown > 0:
		line = plural(unknown, "question", "questions") + " without an answer."
	}
	if failed+unknown > 0 && failOn == "" {
		line += " (--fail-on never)"
	}
	fmt.Fprintln(b, line)
	return b.Flush()
}

// portCell is how wide the list of ports may be.
const portCell = 26

func verifyTables(b *bufio.Writer, j *expect.Judge) {
	rows := j.Parity()
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
	begins := func(i int) bool {
		return i == 0 || rows[i-1].Target != rows[i].Target || rows[i-1].Via != rows[i].Via
	}
	for i, p := range rows {
		if several && (i == 0 || rows[i-1].Via != p.Via) {
			if p.Via == "" {
				fmt.Fprintln(b, "Seen from here")
			} else {
				fmt.Fprintf(b, "Seen from %s: it says so, and nothing here checks it\n", p.Via)
			}
		}
		if begins(i) {
			fmt.Fprintln(b, report.Clean(p.Target))
			names := columns(p.Addresses)
			for k, x := range p.Addresses {
				fmt.Fprintf(b, "  %-8s %s%s\n", names[k], x, way(about[place{p.Via, x}]))
			}
			line := fmt.Sprintf("  %-*s", portCell+6, "PORT")
			for _, n := range names {
				line += fmt.Sprintf("  %-11s", n)
			}
			fmt.Fprintln(b, "\n"+strings.TrimRight(line, " "))
		}
		mark := "  "
		if p.Differ {
			mark = "! "
		}
		name := portName(p.Proto, p.Variant, p.Ports, p.Count)
		// A cell counts letters, not bytes.
		fmt.Fprint(b, mark+name+strings.Repeat(" ", max(0, portCell+6-len([]rune(name)))))
		for k, s := range p.States {
			word := string(s)
			if s == "" {
				word = "-"
			}
			if s == expect.Word(probe.Filtered) && p.Proto == "udp" {
				word = "silent"
			}
			if k+1 < len(p.States) {
				fmt.Fprintf(b, "  %-11s", word)
			} else {
				fmt.Fprint(b, "  "+word)
			}
		}
		fmt.Fprintln(b)
		if i+1 == len(rows) || begins(i+1) {
			fmt.Fprintln(b)
		}
	}
}

// verifyAcross lays the vantages side by side.
func verifyAcross(b *bufio.Writer, j *expect.Judge) {
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
		for n, l := range wrapText(line+strings.Join(parts, ", "), 76) {
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

// columns names addresses: IPv4, IPv6, IPv6 #2.
func columns(as []netip.Addr) []string {
	var out []string
	n := map[bool]int{}
	for _, a := range as {
		name := "IPv6"
		if a.Is4() {
			name = "IPv4"
		}
		n[a.Is4()]++
		if k := n[a.Is4()]; k > 1 {
			name += " #" + strconv.Itoa(k)
		}
		out = append(out, name)
	}
	return out
}

// way says how the probes went.
func way(a *probe.Address) string {
	v := a.Vantage
	var parts []string
	switch {
	case a.Problem != "":
		parts = append(parts, "no way there")
	case v.Self:
		parts = append(parts, "the host that asks: what follows is loopback, not what others see")
	case v.OnLink:
		parts = append(parts, "on the link of "+report.Clean(v.Interface)+", so nothing is between")
	default:
		parts = append(parts, "by the router "+v.Gateway.String())
		if a.SameSite() {
			parts = append(parts, "from its own site, so what guards the border is not between")
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

func verifyFindings(b *bufio.Writer, title string, fs []finding.Finding, status finding.Status) {
	if !slices.ContainsFunc(fs, func(f finding.Finding) bool { return f.Status == status }) {
		return
	}
	fmt.Fprintln(b, title)
	for _, f := range fs {
		if f.Status != status {
			continue
		}
		for i, line := range wrapText(fmt.Sprintf("%-8s %s  %s", f.Severity, f.Control, f.Message), 76) {
			if i > 0 {
				line = "           " + line
			}
			fmt.Fprintln(b, "  "+line)
		}
	}
	fmt.Fprintln(b)
}

func verifyNotes(b *bufio.Writer, j *expect.Judge, guessed bool) {
	var notes []string
	for _, a := range j.Addresses {
		if m := a.Path; m != nil && m.Verdict == probe.PathHonoured {
			n := fmt.Sprintf("%s: path-MTU discovery works, packets of %d bytes come through", a.Addr, m.MTU)
			if m.Hop.IsValid() {
				n += fmt.Sprintf("; %s says %s above %d", m.Hop, map[bool]string{true: "Fragmentation Needed", false: "Packet Too Big"}[a.Addr.Is4()], m.HopMTU)
			}
			notes = append(notes, n)
		}
		for _, n := range a.Notes {
			lead := a.Addr.String()
			if a.Via != "" {
				lead = a.Via + " says of " + lead
			}
			notes = append(notes, lead+": "+report.Clean(n))
		}
	}
	why := map[string]string{
		"own-rules": "this host's own rules refuse to send to some ports: their state is not known", "no-rights": "some probes need root (CAP_NET_RAW; for echo net.ipv4.ping_group_range)",
	}
	icmp := map[string]bool{}
	for r := range j.Results {
		if n := why[r.Why]; n != "" && r.Via == "" && !slices.Contains(notes, n) {
			notes = append(notes, n)
		}
		if r.ICMP != nil && r.State == probe.Rejected && len(icmp) < 8 {
			icmp[fmt.Sprintf("%s: rejected by %s with %s", r.Address, r.ICMP.From, probe.ICMPWords(r.Address.Is4(), r.ICMP.Type, r.ICMP.Code))] = true
		}
	}
	for n := range icmp {
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
		for i, line := range wrapText(n, 76) {
			if i == 0 {
				fmt.Fprintln(b, "  - "+line)
			} else {
				fmt.Fprintln(b, "    "+line)
			}
		}
	}
	fmt.Fprintln(b)
}
