package report

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// TextOptions of the terminal report.
type TextOptions struct {
	Width   int              // cells; 0 is 80
	Color   bool             // SGR sequences
	Verbose bool             // evidence, remediation, references, and what passed
	Quiet   bool             // the verdict only
	Short   bool             // the first screen only
	Root    bool             // root did the reading: rights are not what was missing
	FailOn  finding.Severity // from here on a finding counts; empty: nothing counts
	Allow   []string         // reasons of Gaps that were accepted
}

// MaxActions is how many actions the first screen names.
const MaxActions = 5

// The lines of the first screen: header and verdict, a blank and five at the end, three
// an action after a blank.
const (
	screenLines = 24
	headLines   = 2
	footLines   = 7
	actionLines = 3
)

// Text writes a Report for a person. Its first screen, at most 24 lines, says
// what is wrong and what to do next; the rest follows below.
//
// The few SGR codes are written by hand: five styles on a line-oriented report do
// not pay for a terminal library and its dependencies.
func Text(w io.Writer, r finding.Report, o TextOptions) error {
	r = Neutralise(r)
	var b bytes.Buffer
	p := &page{w: &b, o: o}
	if p.o.Width <= 0 {
		p.o.Width = 80
	}
	p.o.Width = min(max(p.o.Width, 40), 160)
	switch {
	case o.Quiet:
		p.verdict(r)
	case o.Short:
		p.firstScreen(r)
	default:
		p.firstScreen(r)
		p.failed(r)
		p.undecided(r)
		p.waived(r)
		if o.Verbose {
			p.rest(r)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

type page struct {
	w *bytes.Buffer
	o TextOptions
}

type style string

const (
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	cyan   style = "36"
	alarm  style = "1;31"
)

func severityStyle(s finding.Severity) style {
	switch s {
	case finding.Critical:
		return alarm
	case finding.High:
		return red
	case finding.Medium:
		return yellow
	case finding.Low:
		return cyan
	}
	return dim
}

// paint styles a text; it is a no-op off a terminal.
func (p *page) paint(s style, text string) string {
	if !p.o.Color || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// line writes one line, cut to the width. lead is styled, text is not.
func (p *page) line(s style, lead, text string) {
	lead = Cut(lead, p.o.Width)
	text = Cut(text, p.o.Width-Width(lead))
	p.w.WriteString(p.paint(s, lead) + text + "\n")
}

func (p *page) blank() { p.w.WriteByte('\n') }

// wrap writes a paragraph, broken at spaces, every line indented.
func (p *page) wrap(indent, text string) {
	width := max(p.o.Width-Width(indent), 20)
	for _, para := range strings.Split(text, "\n") {
		cur := ""
		for _, word := range strings.Fields(para) {
			for Width(word) > width { // a word longer than a line is broken
				if cur != "" {
					p.w.WriteString(indent + cur + "\n")
					cur = ""
				}
				head := strings.TrimSuffix(Cut(word, width), "…")
				if head == "" {
					break
				}
				p.w.WriteString(indent + head + "\n")
				word = word[len(head):]
			}
			switch {
			case cur == "":
				cur = word
			case Width(cur)+1+Width(word) <= width:
				cur += " " + word
			default:
				p.w.WriteString(indent + cur + "\n")
				cur = word
			}
		}
		if cur != "" {
			p.w.WriteString(indent + cur + "\n")
		}
	}
}

// hang writes a paragraph whose first line follows lead and whose others are
// indented as deep.
func (p *page) hang(s style, lead, text string) {
	var b bytes.Buffer
	q := &page{w: &b, o: p.o}
	q.wrap(strings.Repeat(" ", Width(lead)), text)
	out := b.String()
	if len(out) < Width(lead) {
		out = strings.Repeat(" ", Width(lead)) + "\n"
	}
	p.w.WriteString(p.paint(s, lead) + out[Width(lead):])
}

// firstScreen is at most 24 lines: a header, the verdict, the exposures, up to five
// actions of three lines, and what was and was not looked at.
func (p *page) firstScreen(r finding.Report) {
	host := []string{}
	for _, v := range []string{r.Host.Name, r.Host.OS} {
		if v != "" {
			host = append(host, v)
		}
	}
	if r.Host.Mode == string(fact.ModeRoot) {
		host = append(host, "a directory tree")
	} else if r.Host.Kernel != "" {
		host = append(host, "Linux "+r.Host.Kernel)
	}
	p.line(bold, "sixfence audit", "  "+strings.Join(host, ", "))
	p.verdict(r)
	used := p.exposures(r.Exposures)

	failed := groups(r.Findings, func(f finding.Finding) bool { return f.Status == finding.Fail && own(f) })
	// Whatever else there is to say, the screen has 24 lines.
	most := min(MaxActions, (screenLines-headLines-footLines-used)/actionLines)
	for i, g := range failed[:min(len(failed), most)] {
		if i == 0 {
			p.blank()
		}
		p.action(i+1, g)
	}
	p.blank()
	role := r.Role.Name
	if r.Role.Inferred {
		role += " (inferred, else give --role)"
		if len(r.Role.Because) > 0 {
			role += ": " + r.Role.Because[0]
		}
	}
	p.line(dim, "Role     ", role)
	p.line(dim, "Looked   ", fmt.Sprintf("%s, %s, %s; %s passed, %s n/a",
		plural(r.Summary.Namespaces, "namespace", "namespaces"),
		plural(r.Summary.Interfaces, "interface", "interfaces"),
		plural(r.Summary.Listeners, "listener", "listeners"),
		plural(r.Summary.ByStatus[finding.Pass], "check", "checks"), thousands(r.Summary.ByStatus[finding.NotApplicable])))
	p.gapLine(r)
	p.alsoLine(r)
	next := "sixfence explain CONTROL teaches; audit --verbose shows all evidence"
	if n := len(failed) - most; n > 0 {
		next = plural(n, "further cause", "further causes") + ": sixfence audit | less; explain CONTROL teaches"
	}
	p.line(dim, "Next     ", next)
}

// verdict is the one line that answers.
func (p *page) verdict(r finding.Report) {
	count := map[finding.Severity]int{}
	worst := finding.Severity("")
	var from []finding.Position
	strangers := 0 // findings in namespaces that users made, which count all the same
	undecided := Undecided(r, p.o.FailOn, p.o.Allow)
	for _, f := range r.Findings {
		if f.Status != finding.Fail {
			continue
		}
		if !own(f) {
			if p.o.FailOn != "" && f.Severity.AtLeast(p.o.FailOn) {
				strangers++
			}
			continue
		}
		count[f.Severity]++
		if worst == "" || f.Severity.Rank() > worst.Rank() || f.Severity == worst && reachRank(f.Positions) < reachRank(from) {
			worst, from = f.Severity, f.Positions
		}
	}
	var parts []string
	for _, s := range finding.Severities() {
		if count[s] > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", thousands(count[s]), s))
		}
	}
	counts := strings.Join(parts, ", ")
	switch {
	case worst != "" && p.o.FailOn != "" && worst.AtLeast(p.o.FailOn):
		// What matters least is left out first when the line is full.
		tail := ""
		if worst.AtLeast(finding.High) && len(from) > 0 {
			tail = "; worst usable from: " + positionsText(from)
		}
		for len(parts) > 1 && Width("FAIL "+strings.Join(parts, ", ")+tail) > p.o.Width {
			parts = parts[:len(parts)-1]
		}
		p.line(alarm, "FAIL", " "+strings.Join(parts, ", ")+tail)
	case strangers > 0:
		p.line(alarm, "FAIL", " "+plural(strangers, "finding", "findings")+" in namespaces that users made; nothing in the host's own")
	case len(undecided) > 0:
		if counts == "" {
			counts = "nothing failed"
		}
		p.line(yellow, "UNDECIDED", fmt.Sprintf(" %s, but %s at or over %s could not be decided",
			counts, plural(len(undecided), "control", "controls"), p.o.FailOn))
	case worst != "":
		p.line(yellow, "FINDINGS", " "+counts+"; none counts as a failure"+p.limit())
	default:
		p.line(green, "PASS", " nothing failed"+p.decided(r))
	}
}

func (p *page) limit() string {
	if p.o.FailOn == "" {
		return " (--fail-on never)"
	}
	return " (--fail-on " + string(p.o.FailOn) + ")"
}

func (p *page) decided(r finding.Report) string {
	if r.Summary.ByStatus[finding.Pass] == 0 {
		return ", and nothing could be shown to be right either"
	}
	return fmt.Sprintf(", %s passed", plural(r.Summary.ByStatus[finding.Pass], "check", "checks"))
}

// action is three lines: what, where and for whom, what to do.
func (p *page) action(n int, g group) {
	lead := fmt.Sprintf("%d. %-8s ", n, strings.ToUpper(string(g.severity)))
	count := ""
	switch worst := g.atWorst(); {
	case worst < len(g.findings):
		count = fmt.Sprintf(" ×%s +%s milder", thousands(worst), thousands(len(g.findings)-worst))
	case worst > 1:
		count = " ×" + thousands(worst)
	}
	p.line(severityStyle(g.severity), lead, Cut(g.title, p.o.Width-Width(lead)-Width(count))+count)
	where, tail := "   "+g.control+" on ", ""
	if g.severity.AtLeast(finding.High) && len(g.positions) > 0 {
		tail = "; attacker: " + positionsText(g.positions)
	}
	p.line("", "", where+list(g.places(), p.o.Width-Width(where)-Width(tail))+tail)
	if cmd, more := g.command(); cmd != "" && !strings.Contains(cmd, "\n") {
		tail := ""
		if more > 0 {
			tail = fmt.Sprintf("   (+%d alike, below)", more)
		}
		if Width("   fix: "+cmd+tail) <= p.o.Width {
			p.line(bold, "   fix: "+cmd, tail)
			return
		}
	}
	p.line(bold, "   next: sixfence explain "+g.control, "")
}

// gapLine says in one line what stayed unknown and how to close it.
func (p *page) gapLine(r finding.Report) {
	if len(r.Gaps) == 0 {
		return
	}
	controls := map[string]bool{}
	byReason := map[fact.Reason]int{}
	for _, g := range r.Gaps {
		byReason[g.Reason]++
		for _, c := range g.Controls {
			controls[c] = true
		}
	}
	text := plural(len(controls), "control", "controls") + " left open by " + plural(len(r.Gaps), "gap", "gaps")
	switch n := byReason[fact.Permission]; {
	case n > 0 && !p.o.Root:
		text += fmt.Sprintf("; root could close %d: sudo sixfence audit", n)
	case len(controls) > 0:
		text += "; see NOT DECIDED below"
	}
	p.line(yellow, "Unknown  ", text)
}

// expired names the waivers that hold no more: what they accepted counts again.
func expired(r finding.Report) string {
	var which []string
	n := 0
	for _, f := range r.Findings {
		if w := f.Waiver; w != nil && w.State == finding.WaiverExpired {
			n++
			if text := f.Control + " " + w.Until; !slices.Contains(which, text) {
				which = append(which, text)
			}
		}
	}
	if n == 0 {
		return ""
	}
	if more := len(which) - 4; more > 0 {
		which = append(which[:4], fmt.Sprintf("and %d more", more))
	}
	return plural(n, "finding counts", "findings count") + " again, whose waiver is over: " + strings.Join(which, ", ")
}

// place is where a waiver is written.
func place(w *finding.WaiverNote) string {
	switch {
	case w.File == "":
		return ""
	case w.Line == 0:
		return ", " + w.File
	}
	return fmt.Sprintf(", %s:%d", w.File, w.Line)
}

// alsoLine folds waivers, those that are over first and in colour, and what was found in namespaces that any user could
// have made, into one line.
func (p *page) alsoLine(r finding.Report) {
	var parts []string
	waivers := map[string]int{}
	spaces, failed := map[string]bool{}, 0
	for _, f := range r.Findings {
		if f.Waiver != nil {
			waivers[f.Waiver.State]++
		}
		if f.Foreign {
			spaces[f.Subject.NetNS] = true
			if f.Status == finding.Fail {
				failed++
			}
		}
	}
	if len(spaces) > 0 {
		parts = append(parts, fmt.Sprintf("%s in %s", plural(failed, "finding", "findings"), plural(len(spaces), "user-made namespace", "user-made namespaces")))
	}
	for _, s := range []string{finding.WaiverActive, finding.WaiverReopened} {
		if waivers[s] > 0 {
			parts = append(parts, plural(waivers[s], "waiver ", "waivers ")+s)
		}
	}
	if u := len(r.UnusedWaivers); u > 0 {
		parts = append(parts, plural(u, "waiver", "waivers")+" unused")
	}
	switch over := expired(r); {
	case over != "":
		p.line(yellow, "Expired  ", strings.Join(append([]string{over}, parts...), "; "))
	case len(parts) > 0:
		p.line(dim, "Also     ", strings.Join(parts, "; "))
	}
}
