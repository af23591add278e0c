package connect

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/sixfence/sixfence/internal/testlab"
)

// The test binary also plays the host that is asked, and the one that asks: sockets
// that goroutines open need a process that is in the namespace as a whole.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("SIXFENCE_TEST_SERVE") != "":
		serve()
	case os.Getenv("SIXFENCE_TEST_CHECKS") != "":
		for c := range strings.FieldsSeq(os.Getenv("SIXFENCE_TEST_CHECKS")) {
			err := Check(context.Background(), c)
			fmt.Printf("%s %q\n", c, fmt.Sprint(err))
		}
	default:
		os.Exit(m.Run())
	}
}

// serve answers HTTP on 8080 and DNS on 53 and 5353, over both families.
func serve() {
	for _, port := range []string{"53", "5353"} {
		c, err := net.ListenPacket("udp", ":"+port)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		go names(c)
	}
	l, err := net.Listen("tcp", ":8080")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_ = http.Serve(l, http.RedirectHandler("http://elsewhere.test/", http.StatusFound))
}

// zone has names of both families, and of one.
var zone = map[string][]string{"both.test.": {"192.0.2.2", "2001:db8::2"}, "four.test.": {"192.0.2.2"}, "six.test.": {"2001:db8::2"}}

func names(c net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		q := m.Questions[0]
		as, ok := zone[q.Name.String()]
		if !ok {
			m.RCode = dnsmessage.RCodeNameError
		}
		for _, s := range as {
			a := netip.MustParseAddr(s)
			r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}}
			switch {
			case a.Is4() && q.Type == dnsmessage.TypeA:
				r.Body = &dnsmessage.AResource{A: a.As4()}
			case a.Is6() && q.Type == dnsmessage.TypeAAAA:
				r.Body = &dnsmessage.AAAAResource{AAAA: a.As16()}
			default:
				continue
			}
			m.Answers = append(m.Answers, r)
		}
		if b, err := m.Pack(); err == nil {
			_, _ = c.WriteTo(b, from)
		}
	}
}

// TestNoFamilyStandsInForAnother: with one family broken, what is pinned to the other
// answers, what is pinned to it does not, and a name that is not pinned does not either.
func TestNoFamilyStandsInForAnother(t *testing.T) {
	nft := testlab.RequireTool(t, "nft")
	client, server := testlab.NewNS(t, "chk"), testlab.NewNS(t, "ans")
	testlab.Link(client, "c0", server, "s0")
	for _, x := range []struct {
		n     *testlab.NS
		dev   string
		host  string
		other string
	}{{client, "c0", "1", "2"}, {server, "s0", "2", "1"}} {
		x.n.IP("addr", "add", "192.0.2."+x.host+"/24", "dev", x.dev)
		x.n.IP("addr", "add", "2001:db8::"+x.host+"/64", "dev", x.dev, "nodad")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	server.Start("env", "SIXFENCE_TEST_SERVE=1", self)
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 192.0.2.2\nnameserver 2001:db8::2\noptions timeout:1 attempts:2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// ip netns exec has a mount namespace of its own.
	run := func(checks []string) map[string]string {
		t.Helper()
		out, err := client.Command("sh", "-c", `mount --bind "$1" /etc/resolv.conf && SIXFENCE_TEST_CHECKS="$2" exec "$3"`, "sh", resolv, strings.Join(checks, " "), self).Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		got := map[string]string{}
		for line := range strings.Lines(string(out)) {
			c, answer, _ := strings.Cut(strings.TrimSpace(line), " ")
			got[c] = answer
		}
		return got
	}
	good := `"<nil>"`
	testlab.Eventually(t, time.Minute, "the host answers", func() bool { return run([]string{"http4://192.0.2.2:8080/"})["http4://192.0.2.2:8080/"] == good })
	for _, broken := range []string{"", "ipv4", "ipv6"} {
		if broken != "" {
			client.Run(nft, "add table inet b; flush table inet b; add chain inet b o { type filter hook output priority 0; }; add rule inet b o meta nfproto "+broken+" tcp dport 8080 reject with tcp reset; add rule inet b o meta nfproto "+broken+" udp dport 5353 reject; add rule inet b o icmp type echo-request meta nfproto "+broken+" reject; add rule inet b o icmpv6 type echo-request meta nfproto "+broken+" reject")
		}
		want := map[string]bool{}
		for _, kind := range []struct{ before, after string }{{"tcp%s://%s:8080", ""}, {"http%s://%s:8080/x", ""}, {"icmp%s://%s", ""}, {"dns%s://%s:5353/six.test", ""}} {
			for _, pin := range []string{"", "4", "6"} {
				want[fmt.Sprintf(kind.before, pin, "both.test")] = broken == "" || pin != "" && broken != "ipv"+pin
			}
			want[fmt.Sprintf(kind.before, "", "192.0.2.2")] = broken != "ipv4"
			want[fmt.Sprintf(kind.before, "", "[2001:db8::2]")] = broken != "ipv6"
			want[fmt.Sprintf(kind.before, "", "four.test")] = broken != "ipv4"
			want[fmt.Sprintf(kind.before, "6", "four.test")] = false
			want[fmt.Sprintf(kind.before, "", "six.test")] = broken != "ipv6"
			want[fmt.Sprintf(kind.before, "4", "six.test")] = false
		}
		want["dns://192.0.2.2:53/nobody.test"], want["tcp://nobody.test:8080"] = false, false
		want["tcp://192.0.2.2:8081"] = false
		var checks []string
		for c := range want {
			checks = append(checks, c)
		}
		got := run(checks)
		for c, ok := range want {
			if got[c] == "" || (got[c] == good) != ok {
				t.Errorf("%s broken: %s: %s", orNone(broken), c, got[c])
			}
		}
		if broken == "ipv6" && !strings.Contains(got["tcp://both.test:8080"], "over IPv6: ") || broken == "ipv6" && !strings.Contains(got["tcp://both.test:8080"], "tcp4:// or tcp6:// pins one") {
			t.Errorf("the family is not named: %s", got["tcp://both.test:8080"])
		}
		if !strings.Contains(got["tcp4://six.test:8080"], "six.test has no address in IPv4") || !strings.Contains(got["dns://192.0.2.2:53/nobody.test"], "NameError") {
			t.Errorf("no word for it: %s, %s", got["tcp4://six.test:8080"], got["dns://192.0.2.2:53/nobody.test"])
		}
	}
}

func orNone(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}
