package cli

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/change"
)

// TestExposureText: two sockets of one program are one port, sources that nobody has are
// no news, and what really changes is.
func TestExposureText(t *testing.T) {
	t.Parallel()
	ps := func(list ...string) (out []netip.Prefix) {
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	same := func(before, after []netip.Prefix) change.BeforeAfter {
		return change.BeforeAfter{BeforeMust: before, BeforeMay: before, AfterMust: after, AfterMay: after}
	}
	var b bytes.Buffer
	p := change.Plan{Steps: []change.Step{{Kind: change.Action, Phase: change.AfterConfirm, Target: "x"}}, Exposure: []change.Exposure{
		{Proto: "tcp", Port: 80, Process: "/usr/sbin/nginx", IPv4: same(ps("0.0.0.0/0"), ps("0.0.0.0/0"))},
		{Proto: "tcp", Port: 80, Process: "/usr/sbin/nginx", IPv6: same(ps("::/0"), ps("::/1", "8000::/2", "c000::/3", "e000::/4", "f000::/5", "f800::/6", "fc00::/7", "fe00::/9", "fe80::/10", "ff00::/8"))},
		{Proto: "tcp", Port: 25, Process: "/usr/sbin/smtpd", IPv6: same(ps("2000::/3"), ps("2001:db8::/32"))},
		{Proto: "tcp", Port: 8080, Published: "172.17.0.2:80", IPv4: same(ps("0.0.0.0/0"), nil)},
	}}
	x := planText{width: 80}
	if err := x.write(&b, &p); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{"  tcp/25 smtpd\n    IPv4  nobody\n    IPv6  2000::/3 → 2001:db8::/32\n", "  tcp/8080, passed on to 172.17.0.2:80\n    IPv4  anywhere → nobody\n", "1 other is as before"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	b.Reset()
	x = planText{width: 80, Options: planOptions{verbose: true}}
	if err := x.write(&b, &p); err != nil {
		t.Fatal(err)
	}
	if text = b.String(); strings.Count(text, "tcp/80 ") != 1 || !strings.Contains(text, "tcp/80 nginx\n    IPv4  anywhere\n    IPv6  anywhere\n") {
		t.Errorf("a port in two pieces:\n%s", text)
	}
}
