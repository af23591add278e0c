package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/sixfence/sixfence/internal/testlab"
)

// namesDocument is the part of the document that is about names.
type namesDocument struct {
	Names []struct {
		Name, Asked, From string
		Lookups           []struct {
			Resolver, Type, Outcome string
			Chain, Addresses        []string
			Truncated               bool
			Milliseconds            float64
		}
		DNS64   []string
		Special []struct {
			Address, Class string
			Unfit          bool
		}
		Order []string
		Races []struct {
			Port              int
			Winner            string
			Milliseconds      float64
			BestMilliseconds  float64
			PlainMilliseconds float64
			Attempts          []struct{ Address, State string }
		}
	}
	Findings []struct{ Control, Severity, Status, Message string }
}

// TestNames: what DNS says about a name over each family and by each resolver, and what its
// clients wait for. Two real resolvers disagree, the kernel is a box that eats questions for
// AAAA, and a server of ours fails in the ways of RFC 4074 in which no real one does.
func TestNames(t *testing.T) {
	t.Parallel()
	target, client := testlab.NewNS(t, "nmt"), testlab.NewNS(t, "nmc")
	for _, n := range []*testlab.NS{target, client} {
		for _, k := range []string{"all", "default"} {
			n.Sysctl("net/ipv6/conf/"+k+"/accept_dad", "0")
			n.Sysctl("net/ipv6/conf/"+k+"/router_solicitations", "0")
		}
	}
	testlab.Link(target, "t0", client, "c0")
	for _, a := range []string{"192.0.2.2/24", "192.0.2.53/24", "192.0.2.54/24"} {
		target.IP("addr", "add", a, "dev", "t0")
	}
	client.IP("addr", "add", "192.0.2.1/24", "dev", "c0")
	for _, a := range []string{"2001:db8::2/64", "2001:db8::8/64", "2001:db8::9/64", "2001:db8::53/64"} {
		target.AddAddr("t0", a)
	}
	client.AddAddr("c0", "2001:db8::1/64")
	client.IP("-6", "route", "add", "fd00::/64", "dev", "c0")
	target.Do(func() {
		l, err := net.Listen("tcp", ":443")
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = l.Close() })
	})
	// The last rule is a box on the way that eats questions for AAAA of eaten.example: the
	// type stands behind the headers of UDP (8) and DNS (12) and the name (15).
	nftIn(t, target, "table inet f {\nchain i {\ntype filter hook input priority 0;\nip6 daddr 2001:db8::9 tcp dport 443 drop\nip6 daddr 2001:db8::8 tcp dport 443 reject with tcp reset\n"+
		"udp dport 53 @th,160,48 0x05656174656e @th,280,16 28 drop\n}\n}\n")
	dnsmasq := testlab.RequireTool(t, "dnsmasq")
	dir := t.TempDir()
	records := []string{
		"--host-record=both.example,192.0.2.2,2001:db8::2", "--host-record=dead.example,192.0.2.2,2001:db8::9", "--host-record=reset.example,192.0.2.2,2001:db8::8",
		"--host-record=eaten.example,192.0.2.2,2001:db8::2", "--host-record=ula.example,192.0.2.2,fd00::5", "--host-record=four.example,192.0.2.2", "--host-record=six.example,2001:db8::2",
		"--host-record=target.example,192.0.2.2,2001:db8::2", "--cname=alias.example,target.example",
	}
	for addr, more := range map[string][]string{
		"192.0.2.53":   {"--host-record=split.example,192.0.2.2,2001:db8::2"},
		"2001:db8::53": {"--host-record=split.example,192.0.2.2"},
	} {
		args := []string{
			"--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address=" + addr, "--conf-file=/dev/null",
			"--pid-file=" + filepath.Join(dir, "pid"+addr), "--user=root", "--local=/example/", "--local=/arpa/",
		}
		target.Start(dnsmasq, slices.Concat(args, records, more)...)
	}
	target.Do(func() { brokenDNS(t, "192.0.2.54:53") })
	testlab.Eventually(t, 30*time.Second, "the servers to listen", func() bool {
		out := target.Run("ss", "-Hnul")
		return strings.Contains(out, "192.0.2.53:53") && strings.Contains(out, "[2001:db8::53]:53") && strings.Contains(out, "192.0.2.54:53")
	})
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	one := write("one", "nameserver 192.0.2.53\nsearch nothing.example example\noptions timeout:1 attempts:1\n")
	two := write("two", "nameserver 192.0.2.53\nnameserver 2001:db8::53\noptions timeout:1 attempts:1\n")
	broken := write("broken", "nameserver 192.0.2.54\noptions timeout:1 attempts:1\n")
	hosts := write("hosts", "127.0.0.1 localhost\n192.0.2.2 here.example here\n")
	within := func(resolv string, argv ...string) (string, string) {
		t.Helper()
		c := client.Command("unshare", append([]string{"-m", "sh", "-e", "-c", `mount --bind "$0" /etc/resolv.conf; mount --bind "$1" /etc/hosts; shift; exec "$@"`, resolv, hosts}, argv...)...)
		var complaint strings.Builder
		c.Stderr = &complaint
		out, _ := c.Output() // a finding is an exit status
		return string(out), complaint.String()
	}

	for name, c := range map[string]struct {
		resolv string
		arg    string
		// findings that are to be there, each a part of a message, and no other of 11 to 13.
		findings []string
		check    func(t *testing.T, d namesDocument)
	}{
		"both": {resolv: two, arg: "both.example", check: func(t *testing.T, d namesDocument) {
			n := d.Names[0]
			if len(n.Lookups) != 4 || len(n.Races) != 1 || n.Races[0].Winner != "2001:db8::2" || n.Races[0].PlainMilliseconds > 5000 || n.From != "dns" || len(n.Special) != 2 {
				t.Errorf("%+v", n)
			}
		}},
		"by the search list": {resolv: one, arg: "both", check: func(t *testing.T, d namesDocument) {
			if n := d.Names[0]; n.Asked != "both.example" || len(n.Lookups) != 2 || n.Lookups[1].Outcome != "answer" {
				t.Errorf("%+v", n)
			}
		}},
		"an alias": {resolv: one, arg: "alias.example", check: func(t *testing.T, d namesDocument) {
			if n := d.Names[0]; !slices.Equal(n.Lookups[0].Chain, []string{"target.example"}) || !slices.Equal(n.Lookups[1].Addresses, []string{"2001:db8::2"}) {
				t.Errorf("%+v", n)
			}
		}},
		"A only": {resolv: one, arg: "four.example", check: func(t *testing.T, d namesDocument) {
			if n := d.Names[0]; n.Lookups[1].Outcome != "no-data" || len(n.Races) != 0 {
				t.Errorf("%+v", n)
			}
		}},
		"AAAA only": {resolv: one, arg: "six.example", check: func(t *testing.T, d namesDocument) {
			if n := d.Names[0]; n.Lookups[0].Outcome != "no-data" {
				t.Errorf("%+v", n)
			}
		}},
		"in hosts": {resolv: one, arg: "here.example", check: func(t *testing.T, d namesDocument) {
			if n := d.Names[0]; n.From != "hosts" || len(n.Lookups) != 0 {
				t.Errorf("%+v", n)
			}
		}},
		"a dead AAAA": {resolv: one, arg: "dead.example", findings: []string{"2001:db8::9 is filtered. With Happy Eyeballs"}, check: func(t *testing.T, d namesDocument) {
			if r := d.Names[0].Races[0]; r.Winner != "192.0.2.2" || r.Milliseconds < 250 || r.PlainMilliseconds < 131_000 || r.BestMilliseconds > r.Milliseconds-200 {
				t.Errorf("%+v", r)
			}
		}},
		"a refusing AAAA": {resolv: one, arg: "reset.example", findings: []string{"2001:db8::8 is closed. With Happy Eyeballs"}, check: func(t *testing.T, d namesDocument) {
			if r := d.Names[0].Races[0]; r.Winner != "192.0.2.2" || r.PlainMilliseconds > 100_000 {
				t.Errorf("%+v", r)
			}
		}},
		"resolvers that disagree": {resolv: two, arg: "split.example", findings: []string{"do not agree about AAAA of split.example: 192.0.2.53 says 2001:db8::2, 2001:db8::53 says none; it depends on the family"}},
		"a box eats AAAA":         {resolv: one, arg: "eaten.example", findings: []string{"192.0.2.53 is silent when it is asked for AAAA of eaten.example"}},
		"unique local":            {resolv: one, arg: "ula.example", findings: []string{"fd00::5 (unique local), which nothing answers for"}},
		"SERVFAIL":                {resolv: broken, arg: "servfail.test", findings: []string{"fails when it is asked for AAAA"}},
		"NXDOMAIN":                {resolv: broken, arg: "nxdomain.test", findings: []string{"no such name when it is asked for AAAA"}},
		"refused":                 {resolv: broken, arg: "refused.test", findings: []string{"fails when it is asked for AAAA"}},
		"nonsense":                {resolv: broken, arg: "nonsense.test", findings: []string{"fails when it is asked for AAAA"}},
		"mapped":                  {resolv: broken, arg: "mapped.test", findings: []string{"::ffff:192.0.2.2 (IPv4-mapped), which is of no use"}},
		"link-local":              {resolv: broken, arg: "linklocal.test", findings: []string{"fe80::2 (link-local), which is of no use"}},
		"loopback":                {resolv: broken, arg: "loopback.test", findings: []string{"::1 (loopback): everybody", "::1 is closed. With Happy Eyeballs"}},
		"aliases that differ":     {resolv: broken, arg: "chains.test", findings: []string{"over a.test, and AAAA over aaaa.test"}},
		"aliases in circles":      {resolv: broken, arg: "circles.test", findings: []string{"fails when it is asked for AAAA"}},
		"AAAA is late": {resolv: broken, arg: "late.test", check: func(t *testing.T, d namesDocument) {
			if n := d.Names[0]; n.Lookups[1].Milliseconds < 300 || n.Races[0].Winner != "192.0.2.2" || n.Races[0].PlainMilliseconds < 300 {
				t.Errorf("%+v", n)
			}
		}, findings: []string{"it is slow, and 192.0.2.2 wins"}},
		"too large for a packet": {resolv: broken, arg: "large.test", findings: []string{"2001:db8::4001"}, check: func(t *testing.T, d namesDocument) {
			if l := d.Names[0].Lookups[1]; !l.Truncated || l.Outcome != "answer" || len(l.Addresses) != 3 {
				t.Errorf("%+v", l)
			}
		}},
		"DNS64": {resolv: broken, arg: "nat64.test", check: func(t *testing.T, d namesDocument) {
			n := d.Names[0]
			if !slices.Equal(n.DNS64, []string{"2001:db8:0:0:64::/96"}) && !slices.Equal(n.DNS64, []string{"2001:db8::64:0:0/96"}) || len(n.Special) == 0 {
				t.Errorf("%+v", n)
			}
		}, findings: []string{"(DNS64)", "2001:db8::64:c000:202 is unreachable"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, complaint := within(c.resolv, binary, "verify", "--format", "json", "--ports", "tcp/443", c.arg)
			var d namesDocument
			if err := json.Unmarshal([]byte(out), &d); err != nil || len(d.Names) != 1 || d.Names[0].Name != c.arg {
				t.Fatalf("%v\n%s%s", err, out, complaint)
			}
			keepsSchema(t, "verify", []byte(out))
			if c.check != nil {
				c.check(t, d)
			}
			left := slices.Clone(c.findings)
			for _, f := range d.Findings {
				if f.Control < "VERIFY-11" {
					continue
				}
				i := slices.IndexFunc(left, func(w string) bool { return strings.Contains(f.Message, w) })
				if i < 0 {
					t.Errorf("not called for: %s %s", f.Control, f.Message)
					continue
				}
				left = slices.Delete(left, i, i+1)
			}
			if len(left) > 0 {
				t.Errorf("nobody says %q: %+v\n%s", left, d.Findings, complaint)
			}
		})
	}

	// One of two resolvers is dead: that is said, and the name is found through the search list.
	half := write("half", "nameserver 192.0.2.53\nnameserver 192.0.2.99\nsearch a.example b.example example\noptions timeout:1 attempts:1\n")
	out, complaint := within(half, binary, "verify", "--format", "json", "--ports", "tcp/443", "both")
	var d namesDocument
	if err := json.Unmarshal([]byte(out), &d); err != nil || len(d.Names) != 1 || d.Names[0].Asked != "both.example" ||
		!slices.ContainsFunc(d.Findings, func(f struct{ Control, Severity, Status, Message string }) bool {
			return f.Control == "VERIFY-11" && strings.Contains(f.Message, "192.0.2.99 does not answer for both.example")
		}) {
		t.Errorf("%v %+v\n%s", err, d, complaint)
	}

	// The order of addresses is that of the C library.
	for _, name := range []string{"both.example", "ula.example", "dead.example"} {
		out, _ := within(one, "getent", "ahosts", name)
		var want []string
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 1 && f[1] == "STREAM" {
				want = append(want, f[0])
			}
		}
		doc, complaint := within(one, binary, "verify", "--format", "json", "--ports", "tcp/443", name)
		var d namesDocument
		if err := json.Unmarshal([]byte(doc), &d); err != nil || len(want) != 2 || !slices.Equal(d.Names[0].Order, want) {
			t.Errorf("%s: %v, %v, and getaddrinfo says %v\n%s", name, err, d.Names, want, complaint)
		}
	}
	out, complaint = within(one, binary, "verify", "--ports", "tcp/443", "dead.example")
	for _, want := range []string{"Name dead.example: what DNS says about dead.example", "AAAA from 192.0.2.53: 2001:db8::9", "HAPPY EYEBALLS", "131 s"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s%s", want, out, complaint)
		}
	}
}

// brokenDNS answers as broken servers do; the first label says how. A is always fine.
func brokenDNS(t *testing.T, at string) {
	t.Helper()
	udp, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Error(err)
		return
	}
	tcp, err := net.Listen("tcp", at)
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { _ = udp.Close(); _ = tcp.Close() })
	go func() {
		for b := make([]byte, 1500); ; {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			q := slices.Clone(b[:n])
			go func() {
				if answer := brokenAnswer(q, true); answer != nil {
					_, _ = udp.WriteTo(answer, from)
				}
			}()
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				var size [2]byte
				if _, err := io.ReadFull(c, size[:]); err != nil {
					return
				}
				q := make([]byte, int(size[0])<<8|int(size[1]))
				if _, err := io.ReadFull(c, q); err != nil {
					return
				}
				answer := brokenAnswer(q, false)
				_, _ = c.Write(append([]byte{byte(len(answer) >> 8), byte(len(answer))}, answer...))
			}()
		}
	}()
}

func brokenAnswer(q []byte, packet bool) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(q); err != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	name, typ := m.Questions[0].Name, m.Questions[0].Type
	how, _, _ := strings.Cut(name.String(), ".")
	add := func(owner string, body dnsmessage.ResourceBody) {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(owner), Class: dnsmessage.ClassINET, TTL: 60}, Body: body})
	}
	aaaa := func(owner string, as ...string) {
		for _, a := range as {
			add(owner, &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(a).As16()})
		}
	}
	alias := func(owner, to string) {
		add(owner, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(to)})
	}
	self := name.String()
	switch {
	case typ == dnsmessage.TypeA && how == "chains":
		alias(self, "a.test.")
		add("a.test.", &dnsmessage.AResource{A: [4]byte{192, 0, 2, 2}})
	case typ == dnsmessage.TypeA && how != "ipv4only":
		add(self, &dnsmessage.AResource{A: [4]byte{192, 0, 2, 2}})
	case typ != dnsmessage.TypeAAAA:
	case how == "servfail":
		m.RCode = dnsmessage.RCodeServerFailure
	case how == "nxdomain":
		m.RCode = dnsmessage.RCodeNameError
	case how == "refused":
		m.RCode = dnsmessage.RCodeRefused
	case how == "nonsense":
		b, _ := m.Pack()
		return append(b[:12], 0xff, 0xff, 0xff)
	case how == "mapped":
		aaaa(self, "::ffff:192.0.2.2")
	case how == "loopback":
		aaaa(self, "::1")
	case how == "linklocal":
		aaaa(self, "fe80::2")
	case how == "late":
		time.Sleep(400 * time.Millisecond)
		aaaa(self, "2001:db8::2")
	case how == "chains":
		alias(self, "aaaa.test.")
		aaaa("aaaa.test.", "2001:db8::2")
	case how == "circles":
		alias(self, "round.test.")
		alias("round.test.", self)
	case how == "large" && packet:
		m.Truncated = true
	case how == "large":
		aaaa(self, "2001:db8::2", "2001:db8::4001", "2001:db8::8")
	case how == "nat64":
		aaaa(self, "2001:db8::64:c000:202")
	case how == "ipv4only":
		aaaa(self, "2001:db8::64:c000:aa", "2001:db8::64:c000:ab")
	}
	b, _ := m.Pack()
	return b
}
