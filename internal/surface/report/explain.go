package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// Explanation is what `sixfence explain --format json` says of a control.
type Explanation struct {
	ID          string                `json:"id"`
	Title       string                `json:"title"`
	Severity    finding.Severity      `json:"severity"`
	Reason      string                `json:"severityReason"`
	Positions   []finding.Position    `json:"positions"`
	What        string                `json:"what"`
	Why         string                `json:"why"`
	Attack      string                `json:"attack"`
	Check       string                `json:"check"`
	Source      string                `json:"source"`
	Rule        string                `json:"rule"`
	Remediation []finding.Remediation `json:"remediation"`
	TradeOff    string                `json:"tradeOff"`
	References  []finding.Reference   `json:"references"`
	Live        bool                  `json:"needsRunningKernel"`
}

// ExplanationOf is the part of a control that teaches.
func ExplanationOf(c check.Control) Explanation {
	e := Explanation{
		ID: c.ID, Title: c.Title, Severity: c.Severity, Reason: c.Reason, Positions: c.Positions,
		What: c.What, Why: c.Why, Attack: c.Attack, Check: c.Check, Source: c.Source, Rule: c.Rule,
		Remediation: c.Fix, TradeOff: c.TradeOff, References: c.Refs, Live: c.Live,
	}
	if e.Positions == nil {
		e.Positions = []finding.Position{}
	}
	if e.Remediation == nil {
		e.Remediation = []finding.Remediation{}
	}
	if e.References == nil {
		e.References = []finding.Reference{}
	}
	return e
}

// ExplainJSON writes explanations: one object for one control, an array for a list.
func ExplainJSON(w io.Writer, cs []check.Control, list bool) error {
	es := make([]Explanation, len(cs))
	for i, c := range cs {
		es[i] = ExplanationOf(c)
	}
	if !list && len(es) == 1 {
		return encode(w, es[0])
	}
	return encode(w, es)
}

// Explain renders one control for a person.
func Explain(c check.Control, o TextOptions) string {
	var b bytes.Buffer
	if o.Width <= 0 {
		o.Width = 80
	}
	o.Width = min(max(o.Width, 40), 100) // long lines are hard to read
	p := &page{w: &b, o: o}
	p.line(bold, c.ID+"  ", "")
	p.wrap("", c.Title)
	sev := strings.ToUpper(string(c.Severity))
	if c.Reason != "" {
		sev += ": " + c.Reason
	}
	p.wrap("", sev)
	if len(c.Positions) > 0 {
		p.line(dim, "Attacker at: ", positionsText(c.Positions))
	}
	section := func(head, text string) {
		if text == "" {
			return
		}
		p.blank()
		p.line(bold, head, "")
		p.wrap("  ", text)
	}
	section("What is looked at", c.What)
	section("Why it matters", c.Why)
	section("How it is attacked", c.Attack)
	if len(c.Fix) > 0 {
		p.blank()
		p.line(bold, "How to fix it", "")
		for _, m := range c.Fix {
			switch m.Kind {
			case finding.Command:
				p.line(dim, "  as root:", "")
				p.command("    ", m.Text)
			case finding.Intent:
				p.line(dim, "  in sixfence.yaml:", "")
				p.command("    ", m.Text)
			default:
				p.wrap("  ", m.Text)
			}
		}
	}
	section("What it costs", c.TradeOff)
	section("How sixfence checks it", c.Check)
	section("Facts come from", c.Source)
	section("How the kernel combines them", c.Rule)
	if c.Live {
		p.wrap("  ", "Needs a running kernel: unknown for a directory tree (--root).")
	}
	if len(c.Refs) > 0 {
		p.blank()
		p.line(bold, "References", "")
		for _, r := range c.Refs {
			p.wrap("  ", r.String())
		}
	}
	return b.String()
}

// ExplainList lists controls, one line each, family by family.
func ExplainList(w io.Writer, cs []check.Control, o TextOptions) error {
	var b bytes.Buffer
	if o.Width <= 0 {
		o.Width = 80
	}
	p := &page{w: &b, o: o}
	wid := 0
	for _, c := range cs {
		wid = max(wid, Width(c.ID))
	}
	for _, c := range cs {
		p.line(severityStyle(c.Severity), fmt.Sprintf("%-8s ", c.Severity), fmt.Sprintf("%-*s  %s", wid, c.ID, c.Title))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// ControlMarkdown renders one control as Markdown, its heading at the given level.
func ControlMarkdown(c check.Control, level int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n\n%s\n\n", strings.Repeat("#", level), c.ID, md(c.Title))
	fmt.Fprintf(&b, "**Severity:** %s", c.Severity)
	if c.Reason != "" {
		fmt.Fprintf(&b, ": %s", md(c.Reason))
	}
	b.WriteString("\n\n")
	if len(c.Positions) > 0 {
		fmt.Fprintf(&b, "**Attacker at:** %s\n\n", positionsText(c.Positions))
	}
	for _, s := range []struct{ head, text string }{
		{"What", c.What}, {"Why", c.Why}, {"Attack", c.Attack},
	} {
		if s.text != "" {
			fmt.Fprintf(&b, "**%s.** %s\n\n", s.head, md(s.text))
		}
	}
	for _, m := range c.Fix {
		switch m.Kind {
		case finding.Command:
			fmt.Fprintf(&b, "**Fix**, as root:\n\n```sh\n%s\n```\n\n", strings.TrimSpace(m.Text))
		case finding.Intent:
			fmt.Fprintf(&b, "**Intent**, in `sixfence.yaml`:\n\n```yaml\n%s\n```\n\n", strings.TrimSpace(m.Text))
		default:
			fmt.Fprintf(&b, "**Fix.** %s\n\n", md(m.Text))
		}
	}
	for _, s := range []struct{ head, text string }{
		{"Trade-off", c.TradeOff}, {"How we check", c.Check}, {"Data source", c.Source}, {"The kernel's rule", c.Rule},
	} {
		if s.text != "" {
			fmt.Fprintf(&b, "**%s.** %s\n\n", s.head, md(s.text))
		}
	}
	if len(c.Refs) > 0 {
		refs := make([]string, len(c.Refs))
		for i, r := range c.Refs {
			refs[i] = md(r.String())
		}
		fmt.Fprintf(&b, "**References:** %s\n\n", strings.Join(refs, "; "))
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// md escapes the characters that would be markup in a sentence.
func md(s string) string {
	return strings.NewReplacer("<", "&lt;", ">", "&gt;", "|", `\|`, "*", `\*`, "_", `\_`).Replace(strings.TrimSpace(s))
}

// ControlsMarkdown is docs/reference/controls.md: a table that accounts for every
// row of the catalogue, and a section for each implemented control.
func ControlsMarkdown(cs []check.Control, ds []check.Disposition) string {
	var b strings.Builder
	b.WriteString("# Controls\n\n")
	b.WriteString("<!-- Generated by `go generate ./...` from the catalogue. Do not edit. -->\n\n")
	count := map[string]int{}
	for _, d := range ds {
		count[d.State]++
	}
	fmt.Fprintf(&b, "%d controls are implemented; %d wait for the packet-filter analysis (*needs reach*), %d for the wire watcher\n", len(cs), count["needs reach"], count["needs wire"])
	fmt.Fprintf(&b, "(*needs wire*), and %d were dropped, each with its reason. `sixfence explain CONTROL` shows the same text in a terminal.\n\n", count["dropped"])
	b.WriteString("| Control | Severity | State | Title |\n|---|---|---|---|\n")
	for _, c := range cs {
		fmt.Fprintf(&b, "| [%s](#%s) | %s | implemented | %s |\n", c.ID, strings.ToLower(c.ID), c.Severity, md(c.Title))
	}
	for _, d := range ds {
		state := d.State
		if d.Because != "" {
			state += ", because " + d.Because
		}
		fmt.Fprintf(&b, "| %s | | %s | %s |\n", d.ID, md(state), md(d.Title))
	}
	b.WriteString("\n")
	for i, c := range cs {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(ControlMarkdown(c, 2))
	}
	return b.String()
}
