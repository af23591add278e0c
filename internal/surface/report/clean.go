package report

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"

	"github.com/sixfence/sixfence/internal/model/finding"
)

// maxText is how many runes of one string any output shows. Longer ones are cut
// with "…": no kernel name is this long, and evidence beyond it helps nobody.
const maxText = 2048

// maxMarks is how many combining marks may follow one another: real scripts need
// two, more is a way to paint over the neighbouring lines.
const maxMarks = 2

// Clean makes a string safe to show on one line. Whatever does not print by
// itself (C0 and C1 controls, bidirectional controls, zero-width and other
// invisible characters, private use, line separators) becomes a visible escape
// such as \u202e; invalid UTF-8 becomes U+FFFD, as in JSON; a very long string is
// cut with "…". The result is the same when cleaned again.
func Clean(s string) string { return clean(s, false) }

// CleanText is Clean for texts of more than one line: it keeps "\n".
func CleanText(s string) string { return clean(s, true) }

func clean(s string, lines bool) string {
	if len(s) <= maxText && plain(s) {
		return s
	}
	var b strings.Builder
	marks, n := 0, 0
	put := func(s string, runes int) bool {
		if n+runes > maxText {
			b.WriteString("…")
			return false
		}
		n += runes
		b.WriteString(s)
		return true
	}
	for _, r := range s {
		mark := unicode.In(r, unicode.M)
		if mark {
			marks++
		} else {
			marks = 0
		}
		// A mark with nothing before it would paint on whatever is printed before us.
		bare := mark && (n == 0 || strings.HasSuffix(b.String(), "\n"))
		var ok bool
		switch {
		case lines && r == '\n':
			ok = put("\n", 1)
		case hidden(r) || marks > maxMarks || bare:
			if mark {
				marks = maxMarks // the next mark would sit on our escape
			}
			esc := escape(r)
			ok = put(esc, len(esc))
		default:
			ok = put(string(r), 1)
		}
		if !ok {
			break
		}
	}
	return b.String()
}

// plain tells whether a string is printable ASCII: most are.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// invisible are the runes that unicode.IsPrint accepts and nobody can see.
var invisible = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x034f, Hi: 0x034f, Stride: 1}, // combining grapheme joiner
		{Lo: 0x115f, Hi: 0x1160, Stride: 1}, // Hangul fillers
		{Lo: 0x17b4, Hi: 0x17b5, Stride: 1}, // Khmer inherent vowels
		{Lo: 0x180b, Hi: 0x180f, Stride: 1}, // Mongolian variation selectors
		{Lo: 0x2800, Hi: 0x2800, Stride: 1}, // braille blank
		{Lo: 0x3164, Hi: 0x3164, Stride: 1}, // Hangul filler
		{Lo: 0xfe00, Hi: 0xfe0f, Stride: 1}, // variation selectors
		{Lo: 0xffa0, Hi: 0xffa0, Stride: 1}, // halfwidth Hangul filler
	},
	R32: []unicode.Range32{
		{Lo: 0x1d173, Hi: 0x1d17a, Stride: 1},
		{Lo: 0xe0000, Hi: 0xe0fff, Stride: 1}, // tags, variation selectors supplement
	},
}

func hidden(r rune) bool { return !unicode.IsPrint(r) || unicode.Is(invisible, r) }

func escape(r rune) string {
	switch {
	case r == '\n':
		return `\n`
	case r == '\t':
		return `\t`
	case r == '\r':
		return `\r`
	case r < 0x100:
		return fmt.Sprintf(`\x%02x`, r)
	case r < 0x10000:
		return fmt.Sprintf(`\u%04x`, r)
	default:
		return fmt.Sprintf(`\U%08x`, r)
	}
}

// Width is how many terminal cells a cleaned string takes.
func Width(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	if r < 0x300 {
		return 1
	}
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// Cut shortens a cleaned string to at most w cells, with "…" where something is missing.
func Cut(s string, w int) string {
	if Width(s) <= w {
		return s
	}
	if w < 1 {
		return ""
	}
	n := 0
	for i, r := range s {
		if n+runeWidth(r) > w-1 {
			return s[:i] + "…"
		}
		n += runeWidth(r)
	}
	return s
}

// Neutralise returns a copy of a Report in which every string is safe to show.
// Fingerprints are not touched: they were made from the true names.
func Neutralise(r finding.Report) finding.Report {
	r.Tool = Clean(r.Tool)
	r.Host.Name, r.Host.OS = Clean(r.Host.Name), Clean(r.Host.OS)
	r.Host.Kernel, r.Host.Mode = Clean(r.Host.Kernel), Clean(r.Host.Mode)
	r.Role.Name = Clean(r.Role.Name)
	r.Role.Because = each(r.Role.Because, Clean)
	if r.Role.Addressing != nil {
		m := make(map[string]string, len(r.Role.Addressing))
		for k, v := range r.Role.Addressing {
			m[Clean(k)] = Clean(v)
		}
		r.Role.Addressing = m
	}
	r.Exposures = slices.Clone(r.Exposures)
	for i := range r.Exposures {
		x := &r.Exposures[i]
		x.NetNS, x.Proto, x.Process, x.Unit, x.Differs = Clean(x.NetNS), Clean(x.Proto), Clean(x.Process), Clean(x.Unit), Clean(x.Differs)
		x.IPv4, x.IPv6 = cleanAccess(x.IPv4), cleanAccess(x.IPv6)
	}
	r.Findings = slices.Clone(r.Findings)
	for i := range r.Findings {
		neutraliseFinding(&r.Findings[i])
	}
	r.Gaps = slices.Clone(r.Gaps)
	for i := range r.Gaps {
		g := &r.Gaps[i]
		g.What, g.NetNS, g.Reason = Clean(g.What), Clean(g.NetNS), reason(g.Reason)
	}
	r.UnusedWaivers = slices.Clone(r.UnusedWaivers)
	for i := range r.UnusedWaivers {
		u := &r.UnusedWaivers[i]
		u.Control, u.Subject, u.File = Clean(u.Control), Clean(u.Subject), Clean(u.File)
		u.Owner, u.Until, u.Detail = Clean(u.Owner), Clean(u.Until), Clean(u.Detail)
	}
	return r
}

func cleanAccess(a finding.Access) finding.Access {
	a.State, a.Sources, a.Witness = Clean(a.State), Clean(a.Sources), Clean(a.Witness)
	a.DecidedBy = slices.Clone(a.DecidedBy)
	if a.DecidedBy == nil {
		a.DecidedBy = []finding.RuleRef{}
	}
	for i := range a.DecidedBy {
		d := &a.DecidedBy[i]
		d.Table, d.Chain, d.Rule = Clean(d.Table), Clean(d.Chain), Clean(d.Rule)
	}
	return a
}

func neutraliseFinding(f *finding.Finding) {
	unsafe := !shellSafe(f.Subject)
	f.Title, f.Message = Clean(f.Title), Clean(f.Message)
	f.Subject = cleanSubject(f.Subject)
	f.Evidence = slices.Clone(f.Evidence)
	for i := range f.Evidence {
		e := &f.Evidence[i]
		e.Source, e.Key, e.Value, e.At = Clean(e.Source), Clean(e.Key), Clean(e.Value), Clean(e.At)
	}
	f.Remediation = slices.Clone(f.Remediation)
	for i := range f.Remediation {
		m := &f.Remediation[i]
		m.Text = CleanText(m.Text)
		if unsafe && m.Kind != finding.Note {
			// Nobody may paste a name that somebody else chose to be a command.
			m.Kind = finding.Note
			m.Text = "A name in this finding is not safe to paste into a shell; write this by hand: " + Clean(strings.ReplaceAll(m.Text, "\n", "; "))
		}
	}
	if f.Waiver != nil {
		w := *f.Waiver
		w.Reason, w.Owner, w.Until = Clean(w.Reason), Clean(w.Owner), Clean(w.Until)
		w.State, w.Detail, w.File = Clean(w.State), Clean(w.Detail), Clean(w.File)
		f.Waiver = &w
	}
}

func cleanSubject(s finding.Subject) finding.Subject {
	s.NetNS, s.Interface, s.Family, s.Proto = Clean(s.NetNS), Clean(s.Interface), Clean(s.Family), Clean(s.Proto)
	s.Address, s.Process, s.File, s.Key = Clean(s.Address), Clean(s.Process), Clean(s.File), Clean(s.Key)
	s.UID, s.Cgroup = Clean(s.UID), Clean(s.Cgroup)
	return s
}

// shellSafe tells whether the names a command may contain are made of characters
// that no shell interprets. The exception is " (deleted)", which the kernel adds.
func shellSafe(s finding.Subject) bool {
	for _, v := range []string{s.NetNS, s.Interface, s.Address, s.Process, s.File, s.Key, s.Cgroup, s.Proto, s.UID} {
		for _, r := range strings.TrimSuffix(v, " (deleted)") {
			if r >= utf8.RuneSelf || !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._-+:/@%,=[]*", r)) {
				return false
			}
		}
	}
	return true
}

func each(in []string, f func(string) string) []string {
	out := slices.Clone(in)
	for i := range out {
		out[i] = f(out[i])
	}
	return out
}
