package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/finding"
)

// TestListSaysTheSameOnce: ports of which the same is said are one line, their remedy stands
// once behind the last of them, and no line is wider than the terminal.
func TestListSaysTheSameOnce(t *testing.T) {
	t.Parallel()
	fix := []finding.Remediation{{Kind: finding.Note, Text: "close it, or say that it is meant to be open: this is a remedy that does not fit one line"}}
	of := func(port uint16, message string, fix []finding.Remediation) finding.Finding {
		return finding.Finding{Control: "VERIFY-02", Status: finding.Fail, Severity: finding.High, Message: message, Subject: finding.Subject{Proto: "tcp", Port: port}, Remediation: fix}
	}
	es := Entries([]finding.Finding{
		of(80, "tcp/80 of 2001:db8::2 is open, and should be filtered", fix),
		of(5432, "tcp/5432 of 2001:db8::2 is open, and should be filtered", fix),
		of(80, "tcp/80 of 192.0.2.2 is open, and should be filtered", fix),
		of(0, "a thing of its own \x1b[31m", nil),
		{Control: "VERIFY-02", Status: finding.Unknown, Severity: finding.High, Message: "another section"},
	}, finding.Fail)
	var b bytes.Buffer
	for _, width := range []int{40, 61, 80, 200} {
		b.Reset()
		if err := List(&b, "What is wrong", es, TextOptions{Width: width}); err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(b.String()) {
			if Width(strings.TrimSuffix(l, "\n")) > min(width, 160) {
				t.Errorf("wider than %d: %q", width, l)
			}
		}
		out := strings.Join(strings.Fields(b.String()), " ")
		for want, n := range map[string]int{
			"tcp/80,5432 of 2001:db8::2 is open": 1, "tcp/80 of 192.0.2.2 is open": 1, "fix: close it": 1, "another section": 0, `own \x1b[31m`: 1, "\x1b": 0,
		} {
			if strings.Count(out, want) != n {
				t.Errorf("width %d: %q stands %d times, not %d:\n%s", width, want, strings.Count(out, want), n, b.String())
			}
		}
	}
}
