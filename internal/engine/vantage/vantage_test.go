package vantage

import (
	"bytes"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/model/probe"
)

func TestParsePlace(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]struct {
		p   Place
		out string
	}{
		"ssh://web1":                            {Place{Host: "web1"}, ""},
		"ssh://admin@probe.example.net:2222":    {Place{"admin", "probe.example.net", 2222}, ""},
		"ssh://a-b_c.d@h_1":                     {Place{User: "a-b_c.d", Host: "h_1"}, ""},
		"ssh://192.0.2.2":                       {Place{Host: "192.0.2.2"}, ""},
		"ssh://[2001:DB8::1]":                   {Place{Host: "2001:db8::1"}, "ssh://[2001:db8::1]"},
		"ssh://root@[fe80::1%eth0]:22":          {Place{"root", "fe80::1%eth0", 22}, ""},
		"ssh://root@[fe80::1%25br-lan]":         {Place{User: "root", Host: "fe80::1%br-lan"}, "ssh://root@[fe80::1%br-lan]"},
		"ssh://[fe80::1%25]":                    {},
		"ssh://":                                {},
		"ssh://@host":                           {},
		"ssh://host:":                           {},
		"ssh://host:0":                          {},
		"ssh://host:022":                        {},
		"ssh://host:65536":                      {},
		"ssh://host:22:22":                      {},
		"ssh://2001:db8::1":                     {},
		"ssh://[2001:db8::1":                    {},
		"ssh://[2001:db8::1]22":                 {},
		"ssh://[2001:db8::1%eth0]":              {},
		"ssh://[fe80::1]":                       {},
		"ssh://[fe80::1%-oProxyCommand]":        {},
		"ssh://[fe80::1%eth0;id]":               {},
		"ssh://[192.0.2.2]":                     {},
		"ssh://[::ffff:192.0.2.2]":              {},
		"ssh://-oProxyCommand=id":               {},
		"ssh://-l":                              {},
		"ssh://-oProxyCommand=id@host":          {},
		"ssh://root@-oProxyCommand":             {},
		"ssh://$(id)":                           {},
		"ssh://a b":                             {},
		"ssh://a;id":                            {},
		"ssh://a`id`":                           {},
		"ssh://a'b":                             {},
		"ssh://a\\b":                            {},
		"ssh://a\nb":                            {},
		"ssh://a\x00b":                          {},
		"ssh://a/b":                             {},
		"ssh://a%h":                             {},
		"ssh://é":                               {},
		"ssh://user:password@host":              {},
		"ssh://" + strings.Repeat("a", 254):     {},
		"ftp://host":                            {},
		"host":                                  {},
		"SSH://host":                            {},
		"ssh://~root":                           {},
		"ssh://host*":                           {},
		"ssh://root@host@other":                 {},
		"ssh://[fe80::1%" + "abcdefghijklmnop]": {},
	} {
		p, err := ParsePlace(in)
		if want.p == (Place{}) {
			if e, ok := err.(*Error); !ok || e.Hint == "" {
				t.Errorf("%q: %+v %v, want an error with a hint", in, p, err)
			}
			continue
		}
		if want.out == "" {
			want.out = in
		}
		if err != nil || p != want.p || p.String() != want.out {
			t.Errorf("%q: %+v %q %v", in, p, p, err)
		}
	}
}

// FuzzPlace: whatever is taken ends as one word behind --, and as words that mean nothing
// to a shell.
func FuzzPlace(f *testing.F) {
	f.Add("ssh://root@[fe80::1%eth0]:22")
	f.Add("ssh://a.b-c:1")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePlace(s)
		if err != nil {
			return
		}
		for _, w := range []string{p.User, p.Host} {
			if strings.HasPrefix(w, "-") || strings.ContainsAny(w, " \t\n\r\x00\"'`$\\;&|<>(){}*?[]!#~^/@") {
				t.Errorf("%q: %q", s, w)
			}
		}
		args := p.arguments()
		if i := slices.Index(args, "--"); i < 0 || len(args) != i+3 || args[i+1] != p.Host {
			t.Errorf("%q", args)
		}
		if again, err := ParsePlace(p.String()); err != nil || again != p {
			t.Errorf("%q became %q: %v", s, p, err)
		}
	})
}

// TestServe: the far end looks once, and ends with its input; a line that is cut without
// a word ends it as well.
func TestServe(t *testing.T) {
	old := quietTime
	t.Cleanup(func() { quietTime = old })
	quietTime = 100 * time.Millisecond
	serve := func(f func(in io.Writer, out *json.Decoder)) error {
		t.Helper()
		in, theirs := io.Pipe()
		ours, out := io.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- Serve(in, out, Far{Seal: func(bool) {}, Snapshot: func() ([]byte, error) { return []byte("{}"), nil }})
			_ = out.Close()
		}()
		f(theirs, json.NewDecoder(ours))
		select {
		case err := <-done:
			return err
		case <-time.After(time.Minute):
			t.Fatal("it does not end")
		}
		return nil
	}
	ready := func(out *json.Decoder) {
		t.Helper()
		var f frame
		if err := out.Decode(&f); err != nil || f.Ready == nil || *f.Ready != protocol {
			t.Errorf("%+v %v", f, err)
		}
	}
	var s probe.Spec
	if err := s.Parse("tcp/9"); err != nil {
		t.Fatal(err)
	}
	errand, err := json.Marshal(probe.NewErrand([]netip.Addr{netip.MustParseAddr("127.0.0.1")}, &s, []probe.Variant{probe.Plain}))
	if err != nil {
		t.Fatal(err)
	}
	if err := serve(func(_ io.Writer, out *json.Decoder) { ready(out) }); err != nil {
		t.Errorf("nobody is there: %v", err)
	}
	// Nobody reads what it writes, and nobody says anything.
	if err := serve(func(in io.Writer, out *json.Decoder) {
		ready(out)
		_, _ = in.Write(append(errand, '\n'))
	}); err != nil {
		t.Errorf("cut: %v", err)
	}
	quietTime = time.Minute
	if err := serve(func(in io.Writer, out *json.Decoder) {
		ready(out)
		_ = in.(io.Closer).Close()
	}); err != nil {
		t.Errorf("closed: %v", err)
	}
	for text, want := range map[string]string{"{}": "schemaVersion", "nonsense": "JSON"} {
		_ = serve(func(in io.Writer, out *json.Decoder) {
			ready(out)
			_, _ = io.WriteString(in, text+"\n")
			var f frame
			if err := out.Decode(&f); err != nil || !strings.Contains(f.Problem, want) {
				t.Errorf("%s: %+v %v", text, f, err)
			}
		})
	}
	if err := serve(func(in io.Writer, out *json.Decoder) {
		ready(out)
		go func() { _, _ = in.Write(bytes.Repeat([]byte("x"), maxErrand*2)) }()
	}); err != nil {
		t.Errorf("a long line: %v", err)
	}
	_ = serve(func(in io.Writer, out *json.Decoder) {
		ready(out)
		_, _ = in.Write(append(errand, '\n'))
		for {
			var f frame
			if err := out.Decode(&f); err != nil {
				t.Errorf("no claim: %v", err)
				return
			}
			if f.Claim == nil {
				continue
			}
			e, err := probe.DecodeErrand(errand)
			if err != nil {
				t.Error(err)
				return
			}
			if as, _, err := probe.DecodeClaim(f.Claim, e); err != nil || len(as) != 1 || !as[0].Complete || !as[0].Vantage.Self {
				t.Errorf("%v %s", err, f.Claim)
			}
			go func() { _ = out.Decode(&f) }() // takes the end of the line, too
			return
		}
	})
}

// TestRemoveTakesOwnDirectoriesOnly: a path on the command line is no order to delete it.
func TestRemoveTakesOwnDirectoriesOnly(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp(t.TempDir(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, "/", ".", ""} {
		if err := Remove(d); err == nil {
			t.Errorf("%q was removed", d)
		}
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}

func TestProgram(t *testing.T) {
	t.Parallel()
	p, err := OpenProgram("")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.runs("Linux", p.machine); err != nil {
		t.Error(err)
	}
	if p.runs("Linux", "mips") == nil || p.runs("FreeBSD", p.machine) == nil {
		t.Error("it runs everywhere")
	}
	if text := scriptFor("n", p); strings.Contains(text, "@") || !strings.Contains(text, p.hash) {
		t.Error(text)
	}
	if _, err := OpenProgram("vantage_test.go"); err == nil {
		t.Error("a text is a program")
	}
}
