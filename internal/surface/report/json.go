package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// JSON writes a Report in the machine interface's own format (schemas/report.schema.json).
func JSON(w io.Writer, r finding.Report) error {
	r = Neutralise(r)
	if r.Exposures == nil {
		r.Exposures = []finding.Exposure{}
	}
	if r.Findings == nil {
		r.Findings = []finding.Finding{}
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Evidence == nil {
			f.Evidence = []finding.Evidence{}
		}
		if f.Remediation == nil {
			f.Remediation = []finding.Remediation{}
		}
		if f.References == nil {
			f.References = []finding.Reference{}
		}
	}
	if r.Gaps == nil {
		r.Gaps = []finding.Gap{}
	}
	for i := range r.Gaps {
		if r.Gaps[i].Controls == nil {
			r.Gaps[i].Controls = []string{}
		}
	}
	if r.Summary.ByStatus == nil {
		r.Summary.ByStatus = map[finding.Status]int{}
	}
	if r.Summary.BySeverity == nil {
		r.Summary.BySeverity = map[finding.Severity]int{}
	}
	return stream(w, r)
}

// stream writes the document finding by finding: all of them at once would cost
// several times the document in memory.
func stream(w io.Writer, r finding.Report) error {
	findings := r.Findings
	r.Findings = []finding.Finding{}
	var frame bytes.Buffer
	if err := encode(&frame, r); err != nil {
		return err
	}
	// A quote inside a string is escaped, so this is the member itself.
	head, tail, ok := bytes.Cut(frame.Bytes(), []byte(`"findings": []`))
	if !ok || len(findings) == 0 {
		_, err := w.Write(frame.Bytes())
		return err
	}
	out := bufio.NewWriterSize(w, 64<<10)
	put := func(b []byte) { _, _ = out.Write(b) } // Flush reports the first error of all
	put(head)
	put([]byte(`"findings": [`))
	var one bytes.Buffer
	e := json.NewEncoder(&one)
	e.SetEscapeHTML(false)
	e.SetIndent("    ", "  ")
	for i := range findings {
		if i > 0 {
			put([]byte(","))
		}
		one.Reset()
		if err := e.Encode(&findings[i]); err != nil {
			return err
		}
		put([]byte("\n    "))
		put(bytes.TrimRight(one.Bytes(), "\n"))
	}
	put([]byte("\n  ]"))
	put(tail)
	return out.Flush()
}

// encode writes indented JSON that ends with a newline.
func encode(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// reason keeps the closed set of Gap reasons closed: a Snapshot may claim anything.
func reason(r fact.Reason) fact.Reason {
	switch r {
	case fact.Permission, fact.UnsupportedGap, fact.Truncated, fact.NotCollected, fact.ParseGap:
		return r
	}
	return fact.ParseGap
}
