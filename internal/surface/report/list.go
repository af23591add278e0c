package report

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// Entry is a finding as a list shows it, or several that say the same of other ports.
type Entry struct {
	finding.Finding
	Text string // the message, with all ports
}

// Entries are the findings of a status in their order. What is said of several ports of one
// address in the same words is one entry.
func Entries(fs []finding.Finding, status finding.Status) []Entry {
	var out []Entry
	type kin struct {
		at            int
		before, after string
		ports         probe.Ports
	}
	index := map[string]*kin{}
	for _, f := range fs {
		if f.Status != status {
			continue
		}
		name := fmt.Sprintf("%s/%d ", f.Subject.Proto, f.Subject.Port)
		before, after, found := strings.Cut(f.Message, name)
		if f.Subject.Port == 0 || !found {
			out = append(out, Entry{f, f.Message})
			continue
		}
		key := fmt.Sprint(f.Control, "\x00", f.Severity, "\x00", f.Subject.Proto, "\x00", before, "\x00", after)
		k := index[key]
		if k == nil {
			k = &kin{at: len(out), before: before, after: after}
			index[key] = k
			out = append(out, Entry{Finding: f})
		}
		k.ports.Add(f.Subject.Port)
	}
	for _, k := range index {
		e := &out[k.at]
		e.Text = k.before + e.Subject.Proto + "/" + k.ports.Short() + " " + k.after
	}
	return out
}

// List writes entries below a title, each with what to do about it; a remedy that the next
// entry has as well is said once, behind the last of them.
func List(w io.Writer, title string, es []Entry, o TextOptions) error {
	if len(es) == 0 {
		return nil
	}
	var b bytes.Buffer
	p := &page{w: &b, o: o}
	if p.o.Width <= 0 {
		p.o.Width = 80
	}
	p.o.Width = min(max(p.o.Width, 40), 160)
	p.line(bold, title, "")
	for i, e := range es {
		p.hang(severityStyle(e.Severity), fmt.Sprintf("  %-8s ", e.Severity), Clean(e.Control)+"  "+Clean(e.Text))
		if i+1 < len(es) && es[i+1].Control == e.Control && slices.Equal(es[i+1].Remediation, e.Remediation) {
			continue
		}
		for _, r := range e.Remediation {
			p.hang(bold, "           fix: ", CleanText(r.Text))
		}
	}
	p.blank()
	_, err := w.Write(b.Bytes())
	return err
}

// Verdict writes the line that answers: a word in the colour of how bad it is, and why.
func Verdict(w io.Writer, word string, s finding.Severity, why string, o TextOptions) error {
	var b bytes.Buffer
	p := &page{w: &b, o: o}
	p.o.Width = max(p.o.Width, 40)
	st := severityStyle(s)
	if s == "" {
		st = green
	}
	if word == "" {
		p.wrap("", Clean(why))
	} else {
		p.hang(st, word+"  ", Clean(why))
	}
	_, err := w.Write(b.Bytes())
	return err
}
