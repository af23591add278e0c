package probe

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	model "github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/testlab"
)

// each repeats a text for the variants of IPv6.
func each(s string) string {
	var b strings.Builder
	for _, v := range model.Variants()[1:] {
		b.WriteString(strings.ReplaceAll(s, "%", string(v)))
	}
	return b.String()
}

// otherCases are services, addresses and packets of other kinds.
func otherCases() []labCase {
	return []labCase{
		{
			name: "wrapped", what: "no firewall: extension headers and fragments change nothing", ports: "tcp/20-30 udp/5000-5001", slow: true,
			variants: model.Variants(),
			build: func(l *lab) {
				threeOpen(l)
				l.serve(5000)
				limited(l, "0")
			},
			want: []wanted{
				{addr: v4, states: "tcp: 22 open; 20-21,23-30 closed | tcp+frag: 22 open; 20-21,23-30 closed | udp: 5000 open; 5001 closed | udp+frag: 5000 open; 5001 closed", life: model.Answered},
				{addr: v6, states: "tcp: 22 open; 20-21,23-30 closed" + each(" | tcp+%: 22 open; 20-21,23-30 closed") + " | udp: 5000 open; 5001 closed" + each(" | udp+%: 5000 open; 5001 closed"), life: model.Answered},
			},
		},
		{
			name: "wrapped, rules read one header", what: "rules that ask for `ip6 nexthdr tcp` see no TCP behind another header", ports: "tcp/22 tcp/80-81", slow: true,
			variants: model.Variants(),
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, "table ip6 f {\nchain i {\ntype filter hook input priority 0;\nip6 nexthdr tcp tcp dport { 80, 81 } drop\n}\n}\n")
			},
			want: []wanted{{addr: v6, states: "tcp: 22 open; 80-81 filtered" + each(" | tcp+%: 22,80 open; 81 closed"), life: model.Answered}},
		},
		{
			name: "resets", what: "everything is rejected with a reset", ports: "tcp/1-300",
			build: func(l *lab) {
				threeOpen(l)
				rules(l.target, l.t, input("tcp dport 22 accept", "meta l4proto tcp reject with tcp reset"))
			},
			want: both("tcp: 22 open; 1-21,23-300 closed"),
		},
		{
			name: "many addresses", what: "a unique local, a temporary and a second IPv4 address, each with rules of its own", ports: "tcp/20-30", slow: true,
			build: func(l *lab) {
				threeOpen(l)
				l.client.Sysctl("net/ipv4/ping_group_range", "0 2147483647")
				l.target.Sysctl("net/ipv6/conf/t0/use_tempaddr", "2")
				l.target.IP("-6", "addr", "add", "2001:db8:0:0::7/64", "dev", "t0", "mngtmpaddr", "nodad")
				l.target.IP("addr", "add", "192.0.2.3/24", "dev", "t0")
				l.target.AddAddr("t0", "fd00:6::2/64")
				l.client.AddAddr("c0", "fd00:6::1/64")
				l.addrs["temporary"] = l.temporary()
				rules(l.target, l.t, input("ip daddr 192.0.2.3 tcp dport 22 accept", "ip6 daddr fd00:6::2 tcp dport 25 accept", "ip6 daddr "+l.addrs["temporary"].String()+" tcp dport 22-25 accept"))
			},
			want: []wanted{
				{addr: v4, states: "tcp: 20-30 filtered", life: model.Answered},
				{addr: at("192.0.2.3"), states: "tcp: 22 open; 20-21,23-30 filtered", life: model.Answered},
				{addr: v6, states: "tcp: 20-30 filtered", life: model.Answered},
				{addr: at("fd00:6::2"), states: "tcp: 25 closed; 20-24,26-30 filtered", life: model.Answered},
				{addr: func(l *lab) netip.Addr { return l.addrs["temporary"] }, states: "tcp: 22 open; 23-25 closed; 20-21,26-30 filtered", life: model.Answered},
			},
		},
		{
			name: "anycast", what: "the subnet-router anycast address: Linux takes no TCP there", ports: "tcp/20-30", slow: true,
			build: func(l *lab) {
				threeOpen(l)
				l.target.Sysctl("net/ipv6/conf/all/forwarding", "1")
			},
			want: []wanted{{addr: at("2001:db8::"), states: "tcp: 20-30 filtered", life: model.Neighbour}, {addr: v6, states: "tcp: 22 open; 20-21,23-30 closed", life: model.Answered}},
		},
		{
			name: "services", what: "dnsmasq, chronyd, snmpd and a QUIC server, beside closed and dropped ports", ports: "udp/53 udp/123 udp/161 udp/443 udp/1900 udp/5353", slow: true,
			build: func(l *lab) {
				l.daemons()
				rules(l.target, l.t, input("udp dport { 53, 123, 161, 443, 1900 } accept"))
			},
			want: both("udp: 53,123,161,443 open; 1900 closed; 5353 filtered"),
			nmap: "it has no question that a QUIC server answers",
		},
	}
}

// temporary waits for the temporary address that the kernel makes (RFC 8981).
func (l *lab) temporary() (out netip.Addr) {
	l.t.Helper()
	testlab.Eventually(l.t, 10*time.Second, "a temporary address", func() bool {
		for line := range strings.Lines(l.target.IP("-6", "-o", "addr", "show", "dev", "t0", "temporary")) {
			if f := strings.Fields(line); len(f) > 3 && !strings.Contains(line, "tentative") {
				if p, err := netip.ParsePrefix(f[3]); err == nil {
					out = p.Addr()
				}
			}
		}
		return out.IsValid()
	})
	return out
}

// daemons starts what Debian ships for DNS, NTP, SNMP and QUIC.
func (l *lab) daemons() {
	l.t.Helper()
	dir, err := os.MkdirTemp("", "sf-daemons") // without a comma in its name, which snmpd would cut at
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			l.t.Fatal(err)
		}
		return p
	}
	l.target.Start(testlab.RequireTool(l.t, "dnsmasq"), "--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address=192.0.2.2,2001:db8::2", "--conf-file=/dev/null",
		"--pid-file="+filepath.Join(dir, "dnsmasq.pid"), "--user=root")
	l.target.Start(testlab.RequireTool(l.t, "chronyd"), "-x", "-d", "-u", "root", "-f",
		write("chrony.conf", "local stratum 8\nallow all\ncmdport 0\npidfile "+filepath.Join(dir, "chrony.pid")+"\nbindcmdaddress /\n"))
	l.target.Start(testlab.RequireTool(l.t, "snmpd"), "-f", "-C", "-c", write("snmpd.conf", "rocommunity public\nrocommunity6 public\n"), "-Ln", "-p", filepath.Join(dir, "snmpd.pid"), "udp:192.0.2.2:161", "udp6:[2001:db8::2]:161")
	key, cert := selfSigned(l.t)
	for _, a := range []string{"192.0.2.2", "2001:db8::2"} {
		l.target.Start(testlab.RequireTool(l.t, "gtlsserver"), "-q", a, "443", write("key.pem", key), write("cert.pem", cert))
	}
	want := []string{":53 ", ":123 ", ":161 ", ":443 "}
	testlab.Eventually(l.t, 30*time.Second, "the daemons to listen over both families", func() bool {
		out := l.target.Run("ss", "-Hnul")
		return !slices.ContainsFunc(want, func(p string) bool { return strings.Count(out, p) < 2 })
	})
	// snmpd listens long before it answers.
	testlab.Eventually(l.t, 60*time.Second, "an answer of snmpd", func() (yes bool) {
		l.target.Do(func() {
			c, err := net.Dial("udp", "192.0.2.2:161")
			if err != nil {
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(time.Second))
			_, _ = c.Write(payload(161, 1))
			n, err := c.Read(make([]byte, 2048))
			yes = err == nil && n > 0
		})
		return yes
	})
}

// selfSigned makes a key and a certificate as PEM.
func selfSigned(t testing.TB) (key, cert string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"lab"}}
	der, err := x509.CreateCertificate(rand.Reader, x, x, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
