package report

import (
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/sixfence/sixfence/internal/model/finding"
)

func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"eth0":                         "eth0",
		"caf\u00e9":                    "café",
		"\x1b[31mred":                  `\x1b[31mred`,
		"a\x00b\x07\x7f":               `a\x00b\x07\x7f`,
		"\u009b2J":                     `\x9b2J`,
		"user\u202egpj.exe":            `user\u202egpj.exe`,
		"\u2066x\u2069":                `\u2066x\u2069`,
		"a\u200bb\u200dc\ufeff":        `a\u200bb\u200dc\ufeff`,
		"two\nlines\r\n":               `two\nlines\r\n`,
		"a\u2028b":                     `a\u2028b`,
		"\U000e0041":                   `\U000e0041`,
		"x\u3164y":                     `x\u3164y`,
		"bad\xff\xfe":                  "bad\ufffd\ufffd",
		"\xed\xa0\x80":                 "\ufffd\ufffd\ufffd", // an unpaired surrogate
		"\u0301x":                      `\u0301x`,
		"Z\u0301\u0302\u0303\u0304":    "Z\u0301\u0302" + `\u0303\u0304`,
		"日本":                           "日本",
		"\ue000":                       `\ue000`,
		strings.Repeat("a", maxText+9): strings.Repeat("a", maxText) + "…",
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got := CleanText("a\nb\u0301\x1b"); got != "a\nb\u0301"+`\x1b` {
		t.Errorf("CleanText = %q", got)
	}
}

func TestWidthAndCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   string
		w    int
		want string
	}{
		{"abc", 3, "abc"},
		{"abcd", 3, "ab…"},
		{"日本語", 6, "日本語"},
		{"日本語", 5, "日本…"},
		{"日本語", 4, "日…"},
		{"e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"},
		{"abc", 0, ""},
	} {
		got := Cut(c.in, c.w)
		if got != c.want || Width(got) > c.w {
			t.Errorf("Cut(%q, %d) = %q (%d cells), want %q", c.in, c.w, got, Width(got), c.want)
		}
	}
}

// checkSafe fails when s could do anything but be read.
func checkSafe(t *testing.T, where, s string, lines bool) {
	t.Helper()
	if !utf8.ValidString(s) {
		t.Fatalf("%s: invalid UTF-8: %q", where, s)
	}
	for _, r := range s {
		if r == '\n' && lines {
			continue
		}
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp, unicode.Cs) || unicode.Is(invisible, r) {
			t.Fatalf("%s: U+%04X got through: %q", where, r, s)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"eth0", "\x1b]0;x\x07", "\u202e", "\xff", "Z\u0301\u0302\u0303", strings.Repeat("\u200b", maxText), "a\n\u0301b", "日本\U0001f600"} {
		f.Add(s, 7)
	}
	f.Fuzz(func(t *testing.T, s string, w int) {
		for _, lines := range []bool{false, true} {
			c := clean(s, lines)
			checkSafe(t, "clean", c, lines)
			if again := clean(c, lines); again != c {
				t.Fatalf("cleaning again changes %q to %q", c, again)
			}
			if n := utf8.RuneCountInString(c); n > maxText+1 {
				t.Fatalf("%d runes", n)
			}
			if w = w % 200; Width(Cut(c, w)) > max(w, 0) {
				t.Fatalf("Cut(%q, %d) is too wide", c, w)
			}
		}
	})
}

// TestNeutraliseReachesEveryString plants one hostile string in every string field
// of a Report, by reflection, so that a new field cannot be forgotten.
func TestNeutraliseReachesEveryString(t *testing.T) {
	t.Parallel()
	const evil = "\x1b[2Jx\u202ey\u200b"
	var r finding.Report
	plant(reflect.ValueOf(&r).Elem(), evil)
	out := Neutralise(r)
	visit(t, "Report", reflect.ValueOf(out), func(path, s string) {
		for _, trusted := range []string{
			".SchemaVersion", ".Fingerprint", ".Control", ".Controls", ".Status", ".Effective", ".Compliance", ".Severity",
			".Positions", ".References", ".ID", ".Gaps", ".Kind", ".ByStatus", ".BySeverity",
		} {
			// Written by the catalogue or by Evaluate, never copied from a host.
			if last := path[strings.LastIndexByte(path, '.'):]; strings.HasPrefix(last, trusted) || strings.Contains(path, ".References[") {
				return
			}
		}
		checkSafe(t, path, s, true)
	})
	visit(t, "Report", reflect.ValueOf(r), func(path, s string) {
		if strings.Contains(path, "Message") && s != evil {
			t.Errorf("Neutralise changed its argument at %s", path)
		}
	})
}

func plant(v reflect.Value, s string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				plant(v.Field(i), s)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			plant(v.Index(i), s)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		plant(v.Elem(), s)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		plant(k, s)
		plant(e, s)
		v.SetMapIndex(k, e)
	}
}

func visit(t *testing.T, path string, v reflect.Value, f func(path, s string)) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		f(path, v.String())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				visit(t, path+"."+v.Type().Field(i).Name, v.Field(i), f)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			visit(t, path+"["+string(rune('0'+i))+"]", v.Index(i), f)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			visit(t, path, v.Elem(), f)
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			visit(t, path+"{key}", k, f)
			visit(t, path+"{value}", v.MapIndex(k), f)
		}
	}
}

func TestUnsafeNamesAreNoCommands(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]finding.RemediationKind{
		"eth0":                 finding.Command,
		"eth0.100":             finding.Command,
		"eth0;rm":              finding.Note,
		"$(reboot)":            finding.Note,
		"a`b`":                 finding.Note,
		"x\nreboot":            finding.Note,
		"/usr/bin/a b":         finding.Note,
		"/usr/bin/a (deleted)": finding.Command,
		"эth0":                 finding.Note,
	} {
		r := finding.Report{Findings: []finding.Finding{{
			Subject:     finding.Subject{Interface: name},
			Remediation: []finding.Remediation{{Kind: finding.Command, Text: "ip link set " + name + " down"}},
		}}}
		got := Neutralise(r).Findings[0].Remediation[0]
		if got.Kind != kind {
			t.Errorf("%q: kind %s, want %s (%s)", name, got.Kind, kind, got.Text)
		}
		if got.Kind == finding.Note && strings.Contains(got.Text, "\n") {
			t.Errorf("%q: a line of its own: %q", name, got.Text)
		}
	}
}
