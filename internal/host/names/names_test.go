package names

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

func TestSystemIsReadAsTheCLibraryReadsIt(t *testing.T) {
	t.Parallel()
	s := &System{Ndots: 1, hosts: map[string][]netip.Addr{}}
	s.resolvConf(strings.NewReader("# nameserver 192.0.2.1\n;nameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver nonsense\nnameserver fe80::1%eth0 trailing\nnameserver\n" +
		"domain old.example\nsearch a.example b.example.\noptions timeout:1 ndots:2 ndots:x rotate\nnameserver 2001:db8::53\nnameserver 192.0.2.4\n"))
	want := []string{"192.0.2.3:53", "[fe80::1%eth0]:53", "[2001:db8::53]:53"} // three, and no more
	var got []string
	for _, x := range s.Servers {
		got = append(got, x.String())
	}
	if !slices.Equal(got, want) || s.Ndots != 2 {
		t.Errorf("%v, ndots %d", got, s.Ndots)
	}
	for name, want := range map[string][]string{
		"web":           {"web.a.example.", "web.b.example.", "web."},
		"web.lan":       {"web.lan.a.example.", "web.lan.b.example.", "web.lan."},
		"www.web.lan":   {"www.web.lan.", "www.web.lan.a.example.", "www.web.lan.b.example."},
		"absolute.lan.": {"absolute.lan."},
	} {
		if got := s.candidates(name); !slices.Equal(got, want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	s.hostsFile(strings.NewReader("192.0.2.9 Web.Example web # www\nnonsense x\n2001:db8::9\tweb.example\n192.0.2.8\n"))
	for name, want := range map[string]bool{"WEB.example.": true, "web": true, "www": false, "x": false, "example": false} {
		if s.InHosts(name) != want {
			t.Errorf("%s: in hosts %v", name, !want)
		}
	}
}

// TestPrefixOfDNS64 over the lengths of RFC 6052 §2.4.
func TestPrefixOfDNS64(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"64:ff9b::c000:aa":             "64:ff9b::/96",
		"2001:db8:122:344::c000:ab":    "2001:db8:122:344::/96",
		"2001:db8:122:344:c0:0:aa00:0": "2001:db8:122:344::/64",
		"2001:db8:122:3c0:0:aa::":      "2001:db8:122:300::/56",
		"2001:db8:122:c000:0:aa00::":   "2001:db8:122::/48",
		"2001:db8:1c0:0:aa::":          "2001:db8:100::/40",
		"2001:db8:c000:aa::":           "2001:db8::/32",
		"2001:db8::1":                  "",
		"2001:db8:122:344::c000:201":   "",
		"2001:db8:122:344:c0:0:ac00:1": "",
	} {
		p, ok := prefixOf(netip.MustParseAddr(in))
		if ok != (want != "") || ok && p.String() != want {
			t.Errorf("%s: %s %v", in, p, ok)
		}
	}
}

// FuzzRead: a resolver may answer anything.
func FuzzRead(f *testing.F) {
	q := dnsmessage.MustNewName("www.example.")
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{Response: true},
		Questions: []dnsmessage.Question{{Name: q, Type: dnsmessage.TypeAAAA, Class: dnsmessage.ClassINET}},
		Answers: []dnsmessage.Resource{
			{Header: dnsmessage.ResourceHeader{Name: q, Class: dnsmessage.ClassINET}, Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("b.example.")}},
			{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("b.example."), Class: dnsmessage.ClassINET}, Body: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::2").As16()}},
		},
	}
	b, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var l model.Lookup
		if err := read(b, q, dnsmessage.TypeAAAA, &l); err != nil {
			return
		}
		if len(l.Addresses) > maxAnswers || len(l.Chain) > maxChain || !slices.Contains(model.Outcomes(), l.Outcome) || (l.Outcome == model.Answer) != (len(l.Addresses) > 0) && l.Outcome != model.NXDomain &&
			l.Outcome != model.ServFail && l.Outcome != model.Refused {
			t.Errorf("%+v", l)
		}
		for _, a := range l.Addresses {
			if !a.Is6() {
				t.Errorf("%s is no answer", a)
			}
		}
	})
}
