package report

import (
	"encoding/xml"
	"fmt"
	"io"

	"github.com/sixfence/sixfence/internal/model/finding"
)

// The part of JUnit's XML that continuous integration reads.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string       `xml:"classname,attr"`
		Name    string       `xml:"name,attr"`
		Failure *junitReason `xml:"failure,omitempty"`
		Error   *junitReason `xml:"error,omitempty"`
	}
	junitReason struct {
		Type    string `xml:"type,attr"`
		Message string `xml:"message,attr"`
	}
)

// JUnit writes findings as test cases. A failed one is a failure from minimum on; an
// unknown one is an error, because nothing was tested. subjects names what passed, which
// a Report without findings does not say.
func JUnit(w io.Writer, r finding.Report, suite string, minimum finding.Severity, subjects []string) error {
	r = Neutralise(r)
	s := junitSuite{Name: Clean(suite)}
	for _, f := range r.Findings {
		c := junitCase{Class: f.Control, Name: orText(f.Message, f.Title)}
		reason := &junitReason{Type: string(f.Severity), Message: f.Title + ": " + f.Message}
		switch {
		case f.Status == finding.Unknown:
			c.Error = reason
			s.Errors++
		case f.Status == finding.Fail && minimum != "" && f.Severity.AtLeast(minimum):
			c.Failure = reason
			s.Failures++
		}
		s.Cases = append(s.Cases, c)
	}
	for _, name := range subjects {
		s.Cases = append(s.Cases, junitCase{Class: suite, Name: Clean(name)})
	}
	s.Tests = len(s.Cases)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(junitSuites{Suites: []junitSuite{s}}); err != nil {
		return fmt.Errorf("encode JUnit: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}
