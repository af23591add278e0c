package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/sixfence/sixfence/internal/model/finding"
)

// maxPerGroup is how many subjects of one cause are listed without --verbose.
const maxPerGroup = 8

func (p *page) heading(text string) {
	p.blank()
	p.line(bold, text, "")
}

// failed lists every cause with its subjects.
func (p *page) failed(r finding.Report) {
	gs := groups(r.Findings, func(f finding.Finding) bool {
		return f.Status == finding.Fail && (own(f) || p.o.Verbose)
	})
	if len(gs) == 0 {
		return
	}
	p.heading("FAILED, worst first")
	for _, g := range gs {
		p.blank()
		lead := fmt.Sprintf("%-8s ", strings.ToUpper(string(g.severity)))
		p.line(severityStyle(g.severity), lead, g.title)
		about := "         " + g.control
		if len(g.positions) > 0 {
			about += "; attacker: " + positionsText(g.positions)
		}
		p.line("", "", about)
		if p.o.Verbose {
			p.references(g.findings[0].References)
		}
		entries := merge(g.findings, p.o.Verbose)
		for i, m := range entries {
			if i == maxPerGroup && !p.o.Verbose {
				p.line(dim, "  ", fmt.Sprintf("… and %d more; --verbose lists them", len(entries)-i))
				break
			}
			p.entry(m, g.severity, r.At.UTC().Format(time.RFC3339))
		}
	}
}

// same is a set of findings that say the same of several subjects.
type same struct {
	finding.Finding
	subjects []string
}

// merge joins findings whose text is the same but for the subject; with apart it
// keeps each on its own, because evidence and fingerprints are shown.
func merge(fs []finding.Finding, apart bool) []same {
	at := map[string]int{}
	var out []same
	for _, f := range fs {
		key := string(f.Severity) + "\x00" + f.Message + "\x00" + string(f.Compliance)
		if apart {
			key += "\x00" + f.Fingerprint
		}
		if f.Waiver != nil {
			key += "\x00" + f.Waiver.State + f.Waiver.Detail
		}
		for _, m := range f.Remediation {
			key += "\x00" + m.Text
		}
		i, ok := at[key]
		if !ok {
			i = len(out)
			at[key] = i
			out = append(out, same{Finding: f})
		}
		out[i].subjects = append(out[i].subjects, subjectText(f.Subject))
	}
	return out
}

// entry writes one finding of a cause; worst is the severity of the whole cause.
func (p *page) entry(m same, worst finding.Severity, now string) {
	tail := ""
	if m.Severity != worst {
		tail = "  (" + string(m.Severity) + ")"
	}
	p.line(bold, "  "+list(m.subjects, p.o.Width-2-Width(tail)), tail)
	p.wrap("    ", m.Message)
	if m.Compliance != m.Effective && m.Compliance != "" {
		p.line(dim, "    benchmark: ", "a check of the value alone says "+string(m.Compliance)+", the kernel "+string(m.Effective))
	}
	if w := m.Waiver; w != nil && w.State != finding.WaiverActive {
		p.wrap("    ", "Waiver of "+w.Owner+" ("+w.Reason+place(w)+") "+w.State+": "+w.Detail)
	}
	if p.o.Verbose {
		p.all(m.Finding, now)
		return
	}
	for _, r := range m.Remediation {
		if r.Kind == finding.Command {
			p.command("    fix: ", r.Text)
			return
		}
	}
	for _, r := range m.Remediation {
		if r.Kind == finding.Note {
			p.wrap("    ", "fix: "+r.Text)
			return
		}
	}
}

// command writes a command whole: a cut or wrapped command cannot be pasted.
func (p *page) command(lead, text string) {
	pad := strings.Repeat(" ", Width(lead))
	for i, l := range strings.Split(strings.TrimSpace(text), "\n") {
		if i == 0 {
			p.w.WriteString(p.paint(dim, lead) + l + "\n")
			continue
		}
		p.w.WriteString(pad + l + "\n")
	}
}

// all writes everything a finding knows. What was read when the Snapshot was taken
// needs no time of its own.
func (p *page) all(f finding.Finding, now string) {
	for _, e := range f.Evidence {
		text := e.String()
		if e.At != "" && e.At != now {
			text += "  [" + e.At + "]"
		}
		p.wrap("    | ", Cut(text, 4*p.o.Width))
	}
	for _, r := range f.Remediation {
		switch r.Kind {
		case finding.Command:
			p.command("    fix:    ", r.Text)
		case finding.Intent:
			p.command("    intent: ", r.Text)
		default:
			p.wrap("    ", "note: "+r.Text)
		}
	}
	p.line(dim, "    waive:  ", "sixfence audit --waiver-for "+f.Fingerprint)
}

func (p *page) references(rs []finding.Reference) {
	if len(rs) == 0 {
		return
	}
	refs := make([]string, len(rs))
	for i, r := range rs {
		refs[i] = Clean(r.String())
	}
	p.wrap("         ", "see: "+strings.Join(refs, "; "))
}

// undecided lists the Gaps with the controls they leave unknown.
func (p *page) undecided(r finding.Report) {
	if len(r.Gaps) == 0 {
		return
	}
	p.heading("NOT DECIDED, by what is missing")
	shown, unknown := 0, byFirstGap(r)
	for i, g := range gapUses(r) {
		if shown == 10 && !p.o.Verbose {
			p.line(dim, "  ", fmt.Sprintf("… and %d more; --verbose lists them", len(r.Gaps)-i))
			break
		}
		shown++
		what := orText(g.What, "something unnamed")
		if g.NetNS != "" && g.NetNS != "init" {
			what += " (netns " + g.NetNS + ")"
		}
		p.hang(bold, fmt.Sprintf("  %-13s ", g.Reason), what)
		text := closeHint(g.Reason, p.o.Root)
		if len(g.Controls) > 0 {
			names := strings.Join(g.Controls, ", ")
			if !p.o.Verbose {
				names = list(g.Controls, p.o.Width)
			}
			text += "; leaves open (" + string(g.severity) + " at worst): " + names
		}
		p.wrap("                ", text)
		if p.o.Verbose {
			for _, f := range unknown[g.ID] {
				p.hang("", "                - ", f.Control+" "+subjectText(f.Subject)+": "+f.Message)
			}
		}
	}
}

// byFirstGap groups unknown findings by the first Gap that left them so.
func byFirstGap(r finding.Report) map[string][]finding.Finding {
	out := map[string][]finding.Finding{}
	for _, f := range r.Findings {
		if f.Status == finding.Unknown && len(f.Gaps) > 0 && own(f) {
			out[f.Gaps[0]] = append(out[f.Gaps[0]], f)
		}
	}
	return out
}

func (p *page) waived(r finding.Report) {
	gs := groups(r.Findings, func(f finding.Finding) bool { return f.Status == finding.Waived })
	if len(gs)+len(r.UnusedWaivers) == 0 {
		return
	}
	p.heading("WAIVED")
	for _, g := range gs {
		for _, f := range g.findings {
			p.line(bold, fmt.Sprintf("  %-8s ", f.Severity), g.control+" "+subjectText(f.Subject))
			p.wrap("    ", f.Waiver.Reason+" ("+f.Waiver.Owner+", until "+f.Waiver.Until+place(f.Waiver)+")")
		}
	}
	for _, u := range r.UnusedWaivers {
		p.line(yellow, "  unused   ", u.Control+" "+u.Subject)
		at := u.File
		if u.Line > 0 {
			at += fmt.Sprintf(":%d", u.Line)
		}
		p.wrap("    ", at+": "+u.Detail+"; remove it if the cause is gone")
	}
}

// rest lists what passed and what did not apply, with the reason.
func (p *page) rest(r finding.Report) {
	for _, s := range []struct {
		status finding.Status
		head   string
	}{{finding.Pass, "PASSED"}, {finding.NotApplicable, "DOES NOT APPLY"}} {
		gs := groups(r.Findings, func(f finding.Finding) bool { return f.Status == s.status && own(f) })
		if len(gs) == 0 {
			continue
		}
		p.heading(s.head)
		for _, g := range gs {
			for _, m := range merge(g.findings, false) {
				p.line("", "", "  "+g.control+" "+list(m.subjects, p.o.Width-3-Width(g.control)))
				p.wrap("    ", m.Message)
			}
		}
	}
}
