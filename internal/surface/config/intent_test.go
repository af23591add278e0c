package config

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sixfence/sixfence/internal/model/intent"
)

const published = `apiVersion: sixfence/v1
role: server                     # server | router | kubernetes-node | hypervisor | workstation; never opens a port
families: dual-stack             # dual-stack | ipv6-only | disabled | disabled-keep-loopback
firewall: {manage: both}         # both | ipv6 (writes no rule that matches an IPv4 packet) | none
interfaces:
  eth0:
    addressing: static           # static | slaac | dhcpv6
    routers: [{address: "fe80::1", mac: "52:54:00:00:00:01", prefixes: ["2001:db8:1::/64"]}]
    dhcpv6Servers: [{address: "fe80::1"}]
services:                        # not listed = not accepted
  - {name: ssh, ports: [tcp/22], from: ["2001:db8:aa::/48", "192.0.2.0/24"]}   # a family without a prefix here is closed
  - {name: web, ports: [tcp/80, tcp/443, udp/443]}                             # from absent: any, both families
tunnels: deny                    # or a list of {mechanism, peer}
checks: ["tcp://[2001:db8:1::53]:53"]
waivers: [{control: LISTEN-07, reason: "…", until: 2027-01-31}]
`

func load(t testing.TB, texts ...string) (*LoadedIntent, error) {
	t.Helper()
	var files []IntentFile
	for i, s := range texts {
		files = append(files, IntentFile{Path: fmt.Sprintf("f%d", i), Text: []byte(s)})
	}
	return LoadIntent(files, func(id string) bool { return id == "LISTEN-07" || id == "SYSCTL-RA-01" })
}

func TestPublishedIntentLoads(t *testing.T) {
	t.Parallel()
	l, err := load(t, published)
	if err != nil {
		t.Fatal(err)
	}
	want := intent.Intent{
		APIVersion: "sixfence/v1", Role: "server", Families: "dual-stack", Firewall: intent.Firewall{Manage: "both"},
		Interfaces: map[string]intent.Interface{"eth0": {
			Addressing:    "static",
			Routers:       []intent.Router{{Address: netip.MustParseAddr("fe80::1"), MAC: "52:54:00:00:00:01", Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64")}}},
			DHCPv6Servers: []intent.DHCPv6Server{{Address: netip.MustParseAddr("fe80::1")}},
		}},
		Services: []intent.Service{
			{Name: "ssh", Ports: []string{"tcp/22"}, From: []netip.Prefix{netip.MustParsePrefix("2001:db8:aa::/48"), netip.MustParsePrefix("192.0.2.0/24")}},
			{Name: "web", Ports: []string{"tcp/80", "tcp/443", "udp/443"}},
		},
		Tunnels: intent.Tunnels{Policy: "deny"}, Checks: []string{"tcp://[2001:db8:1::53]:53"},
		Waivers: []intent.Waiver{{Control: "LISTEN-07", Reason: "…", Until: "2027-01-31"}},
	}
	if !reflect.DeepEqual(l.Intent, want) {
		t.Errorf("got  %+v\nwant %+v", l.Intent, want)
	}
	if len(l.Warnings) != 0 || len(l.Hash) != 64 {
		t.Errorf("%v %s", l.Warnings, l.Hash)
	}
	for path, line := range map[string]int{"role": 2, "interfaces.eth0.routers[0].mac": 8, "services.ssh.from[1]": 11, "services.web.ports[2]": 12, "tunnels": 13, "interfaces.eth0": 7} {
		if o := l.Origins[path]; o != (Origin{"f0", line}) {
			t.Errorf("%s comes from %v, want line %d", path, o, line)
		}
	}
	long, err := load(t, strings.Replace(published, "tunnels: deny ", "tunnels:\n  - {mechanism: wireguard, peer: \"198.51.100.7\"}\n  - {mechanism: vxlan, peer: \"192.0.2.0/24\"} #", 1))
	if err != nil || len(long.Intent.Tunnels.List) != 2 || long.Intent.Tunnels.Policy != "list" || long.Intent.Tunnels.List[0].Peer != netip.MustParsePrefix("198.51.100.7/32") {
		t.Errorf("%v %+v", err, long)
	}
}

// TestEveryMistakeIsNamed: the line, what is wrong, and what to write instead.
func TestEveryMistakeIsNamed(t *testing.T) {
	t.Parallel()
	head := "apiVersion: sixfence/v1\nrole: server\n" // two lines
	deep := strings.Repeat("[", 30) + strings.Repeat("]", 30)
	for _, c := range []struct {
		text      string // after head; a leading ! replaces it
		line      int
		why, hint string
	}{
		{"servces: []", 3, `unknown key "servces" in the file`, "did you mean services?"},
		{"Services: []", 3, `unknown key "Services"`, "did you mean services?"},
		{"from: []", 3, `unknown key "from"`, "belongs to services"},
		{"rules: []", 3, `unknown key "rules"`, "services:"},
		{"services:\n  - {name: a, port: tcp/22}", 4, `unknown key "port" in services.a`, "ports: [tcp/22]"},
		{"services:\n  - {name: a}", 4, "services.a: ports is missing", "tcp/22"},
		{"services:\n  - {ports: [tcp/22]}", 4, "services[0]: name is missing", "name: ssh"},
		{"services:\n  - name: a\n    ports: [22]", 5, "TCP port, a UDP port", "tcp/22"},
		{"services:\n  - name: a\n    ports:\n      - tcp/22\n      - tcp/70000", 7, `"70000" is no port of tcp`, "1 to 65535"},
		{"services:\n  - name: a\n    ports: tcp/22", 5, "services.a.ports is text, not a list", "[tcp/22]"},
		{"services:\n  - name: a\n    ports: []", 5, "empty list", "tcp/22"},
		{"services:\n  - name: a\n    ports: [tcp/22, tcp/22]", 5, "tcp/22 twice", "keep one"},
		{"services:\n  - {name: a, ports: [tcp/22], from: []}", 4, "from is an empty list", "leave from out"},
		{"services:\n  - {name: a, ports: [tcp/22], from: any}", 4, "not a list", "[any]"},
		{"services:\n  - {name: a, ports: [tcp/22], from: [any]}", 4, `"any" is no prefix`, "leave the key out"},
		{"services:\n  - name: a\n    ports: [tcp/22]\n    from: [\"2001:db8::1/64\"]", 6, "bits set behind its length", "2001:db8::/64"},
		{"services:\n  - {name: a, ports: [tcp/22], from: [\"::ffff:192.0.2.1\"]}", 4, "IPv4-mapped", "192.0.2.1"},
		{"services:\n  - {name: a, ports: [tcp/22], from: [\"192.0.2.0/33\"]}", 4, "no such length", "0 to 32"},
		{"services:\n  - {name: a, ports: [tcp/22], from: [\"192.0.2.0/255.255.255.0\"]}", 4, "mask", "192.0.2.0/24"},
		{"services:\n  - {name: a, ports: [tcp/22], from: [\"10/8\"]}", 4, "is no address", "2001:db8"},
		{"services:\n  - {name: a, ports: [tcp/22], from: [\"10.0/8\"]}", 4, "is no prefix", "all four"},
		{"services:\n  - {name: a, ports: [tcp/22], from: [example.org]}", 4, "no address", "not looked up"},
		{"services:\n  - {name: a, ports: [tcp/22], from: [\"192.0.2.1\", \"192.0.2.1/32\"]}", 4, "twice", "keep one"},
		{"services:\n  - {name: a, ports: [tcp/22], families: [ipv5]}", 4, `"ipv5"`, "did you mean ipv4 or ipv6"},
		{"services:\n  - {name: a, ports: [tcp/22], families: ipv6}", 4, "not a list", "[ipv6]"},
		{"services:\n  - {name: a, ports: [tcp/22], from: [\"192.0.2.0/24\"], families: [ipv6]}", 4, "nobody would get in", "add a prefix"},
		{"services:\n  - {name: a, ports: [tcp/22], interfaces: [eth9]}", 4, `there is no "eth9"`, "add one"},
		{"interfaces:\n  eth0: {addressing: static}\nservices:\n  - {name: a, ports: [tcp/22], interfaces: [eth9]}", 6, `there is no "eth9"`, "did you mean eth0"},
		{"services:\n  - {name: a, ports: [tcp/1]}\n  - {name: a, ports: [tcp/2]}", 5, `two services named "a"`, "line 4"},
		{"services:\n  - {name: \"a b\", ports: [tcp/22]}", 4, "is no name", "letters"},
		{"services:\n  - {name: 5, ports: [tcp/22]}", 4, "a number, not text", `"5"`},
		{"services:\n  - ssh", 4, "services[0] is text, not a mapping", "name, ports"},
		{"services:\n  ssh: {ports: [tcp/22]}", 4, "a mapping, not a list", "write a list"},
		{"services:", 3, "services has no value", "take the key out"},
		{"services: []\nservices: []", 4, `"services" is there twice`, "line 3"},
		{"families: dualstack", 3, `families is "dualstack"`, "did you mean dual-stack"},
		{"families: ipv4-only", 3, `families is "ipv4-only"`, "disabled-keep-loopback"},
		{"firewall: both", 3, "firewall is text, not a mapping", "manage"},
		{"firewall: {manage: yes}", 3, `firewall.manage is "yes"`, "one of: both, ipv6, none"},
		{"interfaces:\n  eth0: {}", 4, "addressing is missing", "slaac"},
		{"interfaces:\n  eth0: static", 4, "interfaces.eth0 is text", "addressing"},
		{"interfaces:\n  eth0: {addressing: auto}", 4, `"auto"`, "slaac"},
		{"interfaces:\n  \"a b\": {addressing: static}", 4, "cannot be the name", "eth0"},
		{"interfaces:\n  lo: {addressing: static}", 4, "loopback", "take it out"},
		{"interfaces:\n  averylonginterfacename: {addressing: static}", 4, "15 characters", "ip link"},
		{"interfaces:\n  \"eth[\": {addressing: static}", 4, "is no glob", "bracket"},
		{"interfaces:\n  eth0: {addressing: static, match: {name: \"eth[\"}}", 4, "is no glob", "bracket"},
		{"interfaces:\n  eth0: {addressing: static, match: {role: uplink}}", 4, `"uplink"`, "default-route"},
		{"interfaces:\n  eth0: {addressing: static, match: {mac: \"52-54-00-00-00-01\"}}", 4, "dashes", "52:54:00:00:00:01"},
		{"interfaces:\n  eth0: {addressing: static, match: {mac: \"5254.0000.0001\"}}", 4, "dots", "52:54:00:00:00:01"},
		{"interfaces:\n  eth0: {addressing: static, match: {mac: \"52:54:00:00:00\"}}", 4, "no MAC", "six pairs"},
		{"interfaces:\n  eth0: {addressing: static, match: {mac: \"01:00:5e:00:00:01\"}}", 4, "multicast", "ip -6 neigh"},
		{"interfaces:\n  eth0: {addressing: static, match: {mac: \"00:00:00:00:00:00\"}}", 4, "nobody's", "six pairs"},
		{"interfaces:\n  eth0: {addressing: static, match: {driver: \"a b\"}}", 4, "cannot be a driver", "ethtool"},
		{"interfaces:\n  eth0: {addressing: static, mac: \"52:54:00:00:00:01\"}", 4, `unknown key "mac"`, "match: {mac"},
		{"interfaces:\n  eth0:\n    addressing: slaac\n    routers: [{address: \"2001:db8::1\"}]", 6, "not link-local", "fe80::/10"},
		{"interfaces:\n  eth0:\n    addressing: slaac\n    routers: [{address: \"fe80::1%eth0\"}]", 6, "has a zone", "%eth0"},
		{"interfaces:\n  eth0:\n    addressing: slaac\n    routers: [{address: \"fe80::1/64\"}]", 6, "a prefix, not an address", "fe80::1"},
		{"interfaces:\n  eth0:\n    addressing: slaac\n    routers: [{mac: \"52:54:00:00:00:01\"}]", 6, "address is missing", "fe80::1"},
		{"interfaces:\n  eth0:\n    addressing: slaac\n    routers: [{address: \"fe80::1\", prefixes: [\"192.0.2.0/24\"]}]", 6, "IPv4", "2001:db8:1::/64"},
		{"interfaces:\n  eth0:\n    addressing: slaac\n    routers: [{address: \"fe80::1\", prefixes: [\"fe80::/64\"]}]", 6, "no prefix that a router", "2001:db8:1::/64"},
		{"interfaces:\n  eth0:\n    addressing: slaac\n    routers: [{address: \"fe80::1\", accepted: yes}]", 6, "not true or false", "true or false"},
		{"interfaces:\n  eth0:\n    addressing: slaac\n    routers: [{address: \"fe80::1\"}, {address: \"fe80::1\"}]", 6, "the router of item 1", "keep one"},
		{"interfaces:\n  eth0:\n    addressing: slaac\n    dhcpv6Servers: [{address: \"2001:db8::1\"}]", 6, "not link-local", "fe80::/10"},
		{"interfaces:\n  eth0:\n    addressing: slaac\n    pinGateway: true", 6, "no MAC address to pin", "mac:"},
		{"interfaces:\n  eth0:\n    addressing: static\n    learnOnce: true", 6, "nothing to learn", "take it out"},
		{"interfaces:\n  eth0:\n    addressing: none\n    learnOnce: true", 5, "addressing is none", "another addressing"},
		{"forwarding: {allow: [{}]}", 3, "everything pass", "narrow"},
		{"forwarding: {allow: [{inInterface: \"a/b\"}]}", 3, "cannot be the name", "eth0"},
		{"forwarding: {ipv6: 1}", 3, "not true or false", "true or false"},
		{"egress: {default: deny}", 3, `unknown key "default"`, "per family"},
		{"egress: {ipv6: {default: drop}}", 3, `"drop"`, "deny"},
		{"egress: {ipv6: {allow: [{ports: [tcp/443]}]}}", 3, "means nothing", "default: deny"},
		{"egress: {ipv6: {default: deny, allow: [{}]}}", 3, "allow everything", "name addresses"},
		{"egress: {ipv6: {default: deny, allow: [{to: [\"192.0.2.1\"]}]}}", 3, "is not ipv6", "other family"},
		{"egress: {metadata: none}", 3, `"none"`, "allow, root, deny"},
		{"tunnels: drop", 3, `"drop"`, "deny"},
		{"tunnels: {mechanism: gre}", 3, "a mapping, not deny or a list", "tunnels: deny"},
		{"tunnels: [{mechanism: wireguad}]", 3, `"wireguad"`, "did you mean wireguard"},
		{"tunnels: [{peer: \"192.0.2.1\"}]", 3, "mechanism is missing", "wireguard"},
		{"limits: {echoPerSecond: 0}", 3, "is no rate", "1 to 1000000"},
		{"limits: {echoPerSecond: many}", 3, "not a whole number", "whole number"},
		{"limits: {echoPerSecond: -5}", 3, "not a whole number", "whole number"},
		{"limits: {ndPerSecond: 5000000000}", 3, "not a whole number", "whole number"},
		{"logging: {prefix: \"a\\\"b\"}", 3, "no prefix of log lines", "letters"},
		{"logging: {dropped: \"true\"}", 3, "not true or false", "without quotes"},
		{"checks: [\"2001:db8::1\"]", 3, "is no check", "tcp://"},
		{"checks: [\"tcp://2001:db8::1:53\"]", 3, "is no check", "brackets"},
		{"checks: [\"tcp://192.0.2.1\"]", 3, "names no port", ":53"},
		{"checks: [\"udp://192.0.2.1:53\"]", 3, `"udp" is no kind`, "tcp://"},
		{"checks: [\"icmp://192.0.2.1:7\"]", 3, "no ports", "icmp://192.0.2.1"},
		{"checks: [\"https://a:b@host/\"]", 3, "no password", "secrets"},
		{"checks: [\"tcp://192.0.2.1:0\"]", 3, "is no port", "1 to 65535"},
		{"checks: [\"tcp://[::]:53\"]", 3, "does not answer", "address of a host"},
		{"checks: [\"tcp6://192.0.2.1:53\"]", 3, "for an ipv4 address", "write tcp://"},
		{"checks: [\"dns://192.0.2.53\"]", 3, "which name", "dns://192.0.2.53/example.org"},
		{"checks: [\"tcp:x\"]", 3, "names no host", "tcp://"},
		{"checks: [{}]", 3, "a mapping, not text", "one value"},
		{"waivers: [{control: NOPE-1, reason: x, until: 2027-01-31}]", 3, `no control "NOPE-1"`, "explain"},
		{"waivers: [{control: nope, reason: x, until: 2027-01-31}]", 3, "is no control", "LISTEN-07"},
		{"waivers: [{control: LISTEN-07, reason: x, until: 2027-02-30}]", 3, "is no date", "YYYY-MM-DD"},
		{"waivers: [{control: LISTEN-07, until: 2027-01-31}]", 3, "reason is missing", "why"},
		{"waivers: [{control: LISTEN-07, reason: \" \", until: 2027-01-31}]", 3, "empty", "few words"},
		{"decision: {until: soon}", 3, "is no date", "YYYY-MM-DD"},
		{"sysctls: {kernel.core_pattern: x}", 3, "not below net", "sysctl.d"},
		{"sysctls: {net.ipv6.conf.*.accept_ra: 0}", 3, "wildcard", "name the interface"},
		{"sysctls: {net/ipv6/../../kernel/x: 1}", 3, "cannot be a sysctl", "hop_limit"},
		{"sysctls: {net.ipv4.ip_forward: \"1; rm\"}", 3, "no value of a sysctl", "number"},
		{"sysctls: {net.ipv4.ip_forward: 1, net/ipv4/ip_forward: 0}", 3, "twice, written differently", "keep one"},
		{"sysctls: {net.ipv4.ip_forward: [1]}", 3, "a list, not text", "one value"},
		{"!role: server", 0, "apiVersion is missing", "apiVersion: sixfence/v1"},
		{"!apiVersion: sixfence/v1", 0, "role is missing", "role: server"},
		{"!apiVersion: sixfence/v2\nrole: server", 1, "reads sixfence/v1", "upgrade"},
		{"!apiVersion: v1\nrole: server", 1, "no version", "sixfence/v1"},
		{"!apiVersion: 1\nrole: server", 1, "a number, not text", `"1"`},
		{"!version: sixfence/v1\nrole: server", 1, `unknown key "version"`, "apiVersion"},
		{"!apiVersion: sixfence/v1\nrole: sever", 2, `role is "sever"`, "did you mean server"},
		{"!- a", 1, "the file is a list", "key: value"},
		{"!a", 1, "the file is text", "key: value"},
		{"!", 0, "apiVersion is missing", "apiVersion"},
		{"checks: &a [x]", 3, "anchors", "write the value out"},
		{"checks: [*a]", 3, "anchors", "write the value out"},
		{"<<: {role: router}", 3, "merge keys", "write the value out"},
		{"families: !!str dual-stack", 3, "tags", "write the value out"},
		{"1: 2", 3, `the key "1" is not text`, "quotes"},
		{"services: " + deep, 3, "nested too deeply", "short"},
		{"services: [a", 3, "not YAML", "quote"},
		{"services:\n\t- a", 4, "not YAML", "spaces"},
		{"---\nfamilies: disabled", 4, "more than one YAML document", "one document"},
		{"families: \"a\x00\"", 3, "U+0000", "delete it"},
		{"families: a\u202eb", 3, "U+202E", "delete it"},
		{"families: \"\xff\"", 3, "not UTF-8", "UTF-8"},
	} {
		text := head + c.text
		if strings.HasPrefix(c.text, "!") {
			text = c.text[1:]
		}
		_, err := load(t, text)
		var es Errors
		if !errors.As(err, &es) {
			t.Errorf("%q: %v, want a mistake", c.text, err)
			continue
		}
		found := false
		for _, e := range es {
			found = found || e.Line == c.line && e.File == "f0" && strings.Contains(e.Why, c.why) && strings.Contains(e.Hint, c.hint) && (e.Line == 0 || e.Text == strings.TrimSpace(strings.ToValidUTF8(strings.Split(text, "\n")[e.Line-1], "�")))
		}
		if !found {
			for _, e := range es {
				t.Errorf("%q: line %d: %s (hint: %s) [%s]\n want line %d: …%s… (…%s…)", c.text, e.Line, e.Why, e.Hint, e.Text, c.line, c.why, c.hint)
			}
		}
		for _, e := range es {
			if e.Hint == "" || strings.Contains(e.Why, "%!") || strings.Contains(e.Hint, "%!") {
				t.Errorf("%q: no remedy: %+v", c.text, e)
			}
		}
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	t.Parallel()
	_, err := load(t, "apiVersion: sixfence/v1\nrole: sever\nservces: []\nservices:\n  - {name: a, ports: [22]}\n", "apiVersion: sixfence/v1\nfamilies: x\n")
	var es Errors
	if !errors.As(err, &es) || len(es) != 4 {
		t.Fatalf("%v", err)
	}
	var at []string
	for _, e := range es {
		at = append(at, fmt.Sprintf("%s:%d", e.File, e.Line))
	}
	if got := strings.Join(at, " "); got != "f0:2 f0:3 f0:5 f1:2" {
		t.Errorf("in the order %s", got)
	}
	if text := err.Error(); !strings.Contains(text, "f0:2: role is \"sever\"") || !strings.Contains(text, "    role: sever") {
		t.Errorf("%s", text)
	}
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	base := "apiVersion: sixfence/v1\nrole: server\ninterfaces:\n  eth0:\n    addressing: slaac\n    routers: [{address: \"fe80::1\"}]\n  eth1: {addressing: static}\n" +
		"services:\n  - {name: ssh, ports: [tcp/22]}\n  - {name: web, ports: [tcp/80]}\ntunnels: [{mechanism: gre}]\nchecks: [\"icmp://192.0.2.1\"]\nlimits: {echoPerSecond: 5, ndPerSecond: 6}\n"
	l, err := load(t, base,
		"apiVersion: sixfence/v1\ninterfaces:\n  eth0: {routers: [{address: \"fe80::2\"}]}\n  eth2: {addressing: none}\nservices:\n  - {name: ssh, ports: [tcp/2222]}\n  - {name: dns, ports: [udp/53]}\n",
		"apiVersion: sixfence/v1\ntunnels: deny\nrole: router\nchecks: [\"icmp://192.0.2.2\", \"icmp://192.0.2.1\"]\nlimits: {ndPerSecond: 9}\n")
	if err != nil {
		t.Fatal(err)
	}
	in := l.Intent
	var names []string
	for _, s := range in.Services {
		names = append(names, s.Name+s.Ports[0])
	}
	if got := strings.Join(names, " "); got != "sshtcp/2222 webtcp/80 dnsudp/53" {
		t.Errorf("services: %s", got)
	}
	if in.Role != "router" || in.Tunnels.Policy != "deny" || len(in.Interfaces) != 3 || in.Interfaces["eth0"].Addressing != "slaac" || len(in.Interfaces["eth0"].Routers) != 1 ||
		in.Interfaces["eth0"].Routers[0].Address != netip.MustParseAddr("fe80::2") || len(in.Checks) != 2 || !reflect.DeepEqual(in.Limits, intent.Limits{EchoPerSecond: 5, NDPerSecond: 9}) {
		t.Errorf("%+v", in)
	}
	for path, want := range map[string]string{"role": "f2:3", "services.ssh": "f1:6", "services.web": "f0:10", "interfaces.eth0.addressing": "f0:5", "interfaces.eth0.routers[0].address": "f1:3", "limits.echoPerSecond": "f0:13", "limits.ndPerSecond": "f2:5", "checks[0]": "f2:4"} {
		if got := l.Origins[path].String(); got != want {
			t.Errorf("%s comes from %s, want %s", path, got, want)
		}
	}
	// A mistake that a later file covers is still one.
	if _, err := load(t, strings.Replace(base, "role: server", "role: sever", 1), "apiVersion: sixfence/v1\nrole: router\n"); err == nil {
		t.Error("a covered mistake is accepted")
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"families: disabled\ninterfaces: {eth0: {addressing: slaac}}":                "it will have no IPv6",
		"families: disabled\nservices: [{name: a, ports: [tcp/1], families: [ip6]}]": "nobody will reach it",
		"firewall: {manage: none}\nservices: [{name: a, ports: [tcp/1]}]":            "no rule is written",
		"services: [{name: a, ports: [tcp/1-9, tcp/5]}]":                             "tcp/5 is in tcp/1-9",
		"forwarding: {allow: [{inInterface: eth0}]}":                                 "does not forward",
	} {
		l, err := load(t, "apiVersion: sixfence/v1\nrole: server\n"+text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0].Why, want) || l.Warnings[0].Hint == "" || l.Warnings[0].Line < 3 {
			t.Errorf("%s: %+v", text, l.Warnings)
		}
	}
}

// TestBombs: what would keep the parser busy for minutes is refused at once.
func TestBombs(t *testing.T) {
	t.Parallel()
	head := "apiVersion: sixfence/v1\nrole: server\nservices: "
	for name, text := range map[string]string{
		"brackets": strings.Repeat("[", 100000), "braces": strings.Repeat("{a: ", 25000), "dashes": "\n" + strings.Repeat("- ", 50000), "keys": "[]\n" + strings.Repeat("a:\n", 30000), "questions": "\n" + strings.Repeat("? ", 50000),
		"commas": "[" + strings.Repeat("a,", 60000) + "]", "quotes": strings.Repeat("\"", 100000), "large": strings.Repeat(" ", 1<<18), "anchors": strings.Repeat("&a ", 30000), "pipes": strings.Repeat("|\n", 60000),
		"nul": "[\x00]", "ten megabytes in a line": strings.Repeat("a", 10<<20), "a long line": "[" + strings.Repeat("x", 100000) + "]", "a long key": "[]\n" + strings.Repeat("k", 100000) + ": 1",
		"laughs": "[]\na: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c,*c]", "twice": "[]\nrole: router", "merge": "[]\nlimits: {<<: {echoPerSecond: 1}}",
		"a list in a list in lines": "\n" + func() string {
			var b strings.Builder
			for i := range 400 {
				b.WriteString(strings.Repeat(" ", i) + "-\n")
			}
			return b.String()
		}(),
	} {
		done := make(chan error, 1)
		go func() { _, err := LoadIntent([]IntentFile{{Path: "f", Text: []byte(head + text)}}, nil); done <- err }()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%s: accepted", name)
			} else if n := len(err.Error()); n > 64<<10 {
				t.Errorf("%s: an error of %d bytes", name, n)
			}
		case <-time.After(60 * time.Second):
			t.Fatalf("%s: still busy", name)
		}
	}
}

func genIntent(t *rapid.T) intent.Intent {
	yes, no := true, false
	flag := func(l string) *bool { return rapid.SampledFrom([]*bool{nil, &yes, &no}).Draw(t, l) }
	prefixes := func(l string, n int) []netip.Prefix {
		var out []netip.Prefix
		for _, p := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"2001:db8::/32", "192.0.2.0/24", "::/0", "0.0.0.0/0", "2001:db8::1/128", "198.51.100.7/32", "fd00::/8"}), 0, n, rapid.ID).Draw(t, l) {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	ports := func(l string) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"tcp/22", "udp/1000-2000", "esp", "proto/97", "sctp/9", "tcp/443", "tcp/8000-8100"}), 1, 5, rapid.ID).Draw(t, l)
	}
	word := rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._-]{0,12}`)
	in := intent.Intent{
		APIVersion: intent.Version, Role: intent.Role(rapid.SampledFrom(rules["Intent.Role"].words).Draw(t, "role")), Families: intent.Families(rapid.SampledFrom(append([]string{""}, rules["Intent.Families"].words...)).Draw(t, "families")),
		Firewall: intent.Firewall{Manage: intent.Manage(rapid.SampledFrom([]string{"", "both", "ipv6", "none"}).Draw(t, "manage"))},
		Limits:   intent.Limits{EchoPerSecond: rapid.Uint32Range(0, 1000000).Draw(t, "echo")},
		Logging:  intent.Logging{Dropped: rapid.Bool().Draw(t, "log"), Guards: flag("guards")},
		Decision: intent.Decision{Why: strings.Join(strings.Fields(rapid.StringMatching(`[a-zA-Z:#'"{}&*!%@\x60,|>?~\\ äöü–-]{0,40}`).Draw(t, "why")), " "), Until: rapid.SampledFrom([]string{"", "2027-01-31"}).Draw(t, "until")},
		Checks:   rapid.SampledFrom([][]string{nil, {"tcp://[2001:db8::1]:53", "icmp://192.0.2.1"}, {"https://example.org/a?b=c"}}).Draw(t, "checks"),
		Tunnels:  rapid.SampledFrom([]intent.Tunnels{{}, {Policy: "deny"}, {Policy: "allow"}, {Policy: "list", List: []intent.Tunnel{}}, {Policy: "list", List: []intent.Tunnel{{Mechanism: "gre"}, {Mechanism: "vxlan", Peer: netip.MustParsePrefix("2001:db8::/64")}}}}).Draw(t, "tunnels"),
		Sysctls:  rapid.SampledFrom([]map[string]string{nil, {"net/ipv6/conf/eth0.100/hop_limit": "64", "net/ipv4/tcp_rmem": "4096 1 2"}}).Draw(t, "sysctls"),
		Waivers:  rapid.SampledFrom([][]intent.Waiver{nil, {{Control: "LISTEN-07", Reason: "yes: # no", Until: "2027-01-31"}}}).Draw(t, "waivers"),
	}
	for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"eth0", "en*", "eth0.100", "uplink", "*", "br-lan", "true"}), 0, 4, rapid.ID).Draw(t, "keys") {
		i := intent.Interface{Addressing: intent.Addressing(rapid.SampledFrom([]string{"slaac", "dhcpv6"}).Draw(t, "addressing")), LearnOnce: rapid.Bool().Draw(t, "learn"), GuardBridged: rapid.Bool().Draw(t, "guard")}
		i.Match = rapid.SampledFrom([]intent.Match{{}, {Name: "en*"}, {Driver: "virtio_net", Role: intent.DefaultRoute}, {MAC: "52:54:00:ab:cd:ef"}}).Draw(t, "match")
		for n := range rapid.IntRange(0, 2).Draw(t, "routers") {
			i.Routers = append(i.Routers, intent.Router{Address: netip.MustParseAddr(fmt.Sprintf("fe80::%x", n+1)), MAC: rapid.SampledFrom([]string{"", "52:54:00:00:00:01"}).Draw(t, "mac"), Accepted: flag("accepted"), Prefixes: rapid.SampledFrom([][]netip.Prefix{nil, {netip.MustParsePrefix("2001:db8:1::/64")}}).Draw(t, "prefixes")})
		}
		if in.Interfaces == nil {
			in.Interfaces = map[string]intent.Interface{}
		}
		in.Interfaces[k] = i
	}
	for i, n := range rapid.SliceOfNDistinct(word, 0, 4, rapid.ID).Draw(t, "services") {
		s := intent.Service{Name: n, Ports: ports(fmt.Sprint("p", i)), From: prefixes(fmt.Sprint("from", i), 5), Administers: flag("adm"), Reason: rapid.SampledFrom([]string{"", "why not: it is ours # really", "null"}).Draw(t, "reason")}
		if s.From == nil {
			s.Families = rapid.SampledFrom([][]string{nil, {"ipv4"}, {"ipv6"}, {"ipv4", "ipv6"}}).Draw(t, "fam")
		}
		for k := range in.Interfaces {
			if rapid.Bool().Draw(t, "narrow") && s.Interfaces == nil {
				s.Interfaces = []string{k}
			}
		}
		in.Services = append(in.Services, s)
	}
	if rapid.Bool().Draw(t, "forwards") {
		in.Forwarding = intent.Forwarding{IPv6: flag("f6"), Unmanaged: rapid.Bool().Draw(t, "un"), Allow: []intent.Flow{{InInterface: "eth1", OutInterface: "en*", From: prefixes("ff", 3)}, {Ports: []string{"tcp/80"}}}}
	}
	if rapid.Bool().Draw(t, "egress") {
		in.Egress = intent.Egress{Metadata: "root", IPv6: intent.EgressFamily{Default: "deny", Allow: []intent.Destination{{To: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}}, {Ports: []string{"udp/53", "tcp/53"}}}}}
	}
	return in
}

// TestWrittenIntentLoads: what is written is read back as the same, with any comment.
func TestWrittenIntentLoads(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := genIntent(t)
		first := WriteIntent(in, nil)
		l, err := LoadIntent([]IntentFile{{Path: "f", Text: first}}, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, first)
		}
		same(t, in, l.Intent, first)
		notes := Notes{"": {Above: []string{"top", ""}}}
		n := 0
		for p := range l.Origins {
			if n++; rapid.Bool().Draw(t, p) {
				notes[p] = Note{Above: []string{"why: [" + p}, Beside: rapid.SampledFrom([]string{"", "beside\nrole: router", "\u202e: x"}).Draw(t, "beside")}
			}
		}
		second := WriteIntent(in, notes)
		l, err = LoadIntent([]IntentFile{{Path: "f", Text: second}}, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, second)
		}
		same(t, in, l.Intent, second)
	})
}

func same(t *rapid.T, a, b intent.Intent, text []byte) {
	x, err := a.Hash()
	y, err2 := b.Hash()
	if err != nil || err2 != nil || x != y {
		t.Fatalf("%+v\nbecame\n%+v\n%s", a, b, text)
	}
}

func FuzzLoadIntent(f *testing.F) {
	f.Add([]byte(published), []byte("apiVersion: sixfence/v1\nrole: router\n"))
	f.Add([]byte("apiVersion: sixfence/v1\nrole: server\ntunnels: [{mechanism: gre}]\n"), []byte("a: &a [*a]"))
	f.Add([]byte("? a\n: b\n"), []byte("- - - x"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		l, err := LoadIntent([]IntentFile{{Path: "a", Text: a}, {Path: "b", Text: b}}, nil)
		if err != nil {
			var es Errors
			if !errors.As(err, &es) || len(es) == 0 {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		text := WriteIntent(l.Intent, nil)
		again, err := LoadIntent([]IntentFile{{Path: "c", Text: text}}, nil)
		if err != nil {
			t.Fatalf("written and not read: %v\n%s", err, text)
		}
		if again.Hash != l.Hash {
			t.Fatalf("changed on its way through a file:\n%s", text)
		}
	})
}

// TestEveryKeyIsExplained: the schema and the reference say what each key is for.
func TestEveryKeyIsExplained(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	var walk func(reflect.Type)
	walk = func(ty reflect.Type) {
		for ty.Kind() == reflect.Slice || ty.Kind() == reflect.Map || ty.Kind() == reflect.Pointer {
			ty = ty.Elem()
		}
		if ty == reflect.TypeFor[intent.Tunnels]() {
			ty = reflect.TypeFor[intent.Tunnel]()
		}
		if ty.Kind() != reflect.Struct || ty.PkgPath() == "net/netip" || seen[ty.Name()] {
			return
		}
		seen[ty.Name()] = true
		_, fields := keysOf(ty)
		for _, f := range fields {
			id := ty.Name() + "." + f.Name
			if about[id] == "" {
				t.Errorf("about has nothing on %s", id)
			}
			seen[id] = true
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[intent.Intent]())
	for id := range about {
		if !seen[id] {
			t.Errorf("about explains %s, which is not there", id)
		}
	}
	for _, table := range []map[string]string{notEmpty, missing} {
		for id := range table {
			if _, key, _ := strings.Cut(id, "."); !seen[id] && (key == "" || key[0] < 'a') {
				t.Errorf("%s is not there", id)
			}
		}
	}
	for id := range rules {
		if id = strings.TrimSuffix(id, ".key"); !seen[id] && id != "Tunnels.Policy" {
			t.Errorf("there is a rule for %s, which is not there", id)
		}
	}
}
