package cli

import (
	"bytes"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/logic/draft"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/surface/config"
)

// TestIntentFragmentsLoad: what the catalogue tells people to write is accepted.
func TestIntentFragmentsLoad(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: sixfence/v1\n"
	base := head + "role: server\ninterfaces: {eth0: {addressing: static}}\n"
	n := 0
	for _, c := range check.Catalogue() {
		for _, f := range c.Fix {
			if f.Kind != finding.Intent {
				continue
			}
			n++
			text := strings.NewReplacer("IFACE", "eth0", "NAME", "web", "PORT", "443", "GATEWAY", "fe80::1", "\"MAC\"", "\"52:54:00:00:00:01\"").Replace(f.Text)
			_, err := config.LoadIntent([]config.IntentFile{{Path: "base", Text: []byte(base)}, {Path: c.ID, Text: []byte(head + text + "\n")}}, nil)
			if err != nil {
				t.Errorf("%v", err)
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d fragments", n)
	}
}

func value[T any](k fact.Known[T]) T { v, _ := k.Get(); return v }

// vm is a host with one interface, sshd, and a web server.
func vm(edit ...func(*fact.Snapshot, *fact.Namespace)) *fact.Snapshot {
	addr := func(s string, proto uint8) fact.Address {
		return fact.Address{Index: 2, Prefix: netip.MustParsePrefix(s), Valid: fact.Forever, Flags: fact.AddrPermanent, Protocol: proto}
	}
	sock := func(proto, local string, port uint16, pid int) fact.Socket {
		return fact.Socket{Family: "ipv6", Protocol: proto, State: "listen", Local: netip.MustParseAddr(local), Port: port, V6Only: fact.Value(false), Owners: fact.Value([]int{pid}), Source: "inet_diag"}
	}
	route := func(dst, via string, proto uint8) fact.Route {
		p := netip.MustParsePrefix(dst)
		r := fact.Route{Family: "ipv6", Dst: p, Type: 1, Table: 254, Protocol: proto, NextHops: []fact.NextHop{{Index: 2}}}
		if p.Addr().Is4() {
			r.Family = "ipv4"
		}
		if via != "" {
			r.NextHops[0].Via = netip.MustParseAddr(via)
		}
		return r
	}
	n := fact.Namespace{
		Name: "init", IsInit: true, IsSelf: true, IPv6: fact.Value(true),
		Links: fact.Value([]fact.Link{{Index: 1, Name: "lo", Flags: 0x9, Type: 772}, {Index: 2, Name: "eth0", Flags: 0x1003, Type: 1, MAC: "52:54:00:00:00:10"}}),
		Addresses: fact.Value([]fact.Address{
			{Index: 1, Prefix: netip.MustParsePrefix("::1/128"), Valid: fact.Forever, Flags: fact.AddrPermanent},
			addr("192.0.2.10/24", 0), addr("2001:db8:1::10/64", 0), addr("fe80::10/64", 3),
		}),
		Routes: fact.Value([]fact.Route{
			route("0.0.0.0/0", "192.0.2.1", fact.ProtoStatic), route("::/0", "fe80::1", fact.ProtoStatic), route("192.0.2.0/24", "", fact.ProtoKernel), route("2001:db8:1::/64", "", fact.ProtoKernel),
		}),
		Rules: fact.Value([]fact.Rule{}), Neighbours: fact.Value([]fact.Neighbour{{Index: 2, Address: netip.MustParseAddr("fe80::1"), MAC: "52:54:00:00:00:01", State: fact.NUDReachable, Flags: fact.NeighRouter}}),
		Sysctls:      fact.Value(fact.Sysctls{Values: map[string]string{"net/ipv4/ip_forward": "0", "net/ipv6/conf/all/forwarding": "0"}, Complete: []string{"net"}}),
		Sockets:      fact.Value([]fact.Socket{sock("tcp", "::", 22, 7), sock("tcp", "::", 80, 8), sock("tcp", "::", 443, 8), sock("tcp", "::1", 631, 9), sock("udp", "::", 5353, 9), sock("udp", "::", 40000, 9)}),
		PacketFilter: fact.PacketFilter{NFTables: fact.Absent[fact.NFTables](), Legacy: fact.Absent[[]fact.LegacyTable](), IPSets: fact.Absent[[][]byte](), EBTables: fact.Value(false)},
	}
	s := &fact.Snapshot{SchemaVersion: fact.SchemaVersion, Host: fact.Host{
		Mode: fact.ModeLive, Hostname: fact.Value("vm"), CollectedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), ByteOrder: "little", WordSize: 64,
		Processes: fact.Value([]fact.Process{{PID: 7, Exe: fact.Value("/usr/sbin/sshd")}, {PID: 8, Exe: fact.Value("/usr/sbin/nginx")}, {PID: 9, Exe: fact.Value("/usr/bin/other")}}),
	}}
	for _, e := range edit {
		e(s, &n)
	}
	s.Namespaces = []fact.Namespace{n}
	return s
}

// slaac makes the default route and the address come from a router advertisement.
func slaac(_ *fact.Snapshot, n *fact.Namespace) {
	a := &value(n.Addresses)[2]
	a.Valid, a.Flags, a.Protocol, a.Age = 86400, 0, 2, fact.Value(int64(3*86400+5))
	r := &value(n.Routes)[1]
	r.Protocol, r.Expires = fact.ProtoRA, fact.Value(int64(1700))
}

// arp is the MAC address of the IPv4 gateway.
func arp(mac string) func(*fact.Snapshot, *fact.Namespace) {
	return func(_ *fact.Snapshot, n *fact.Namespace) {
		n.Gateways4 = fact.Value([]fact.Neighbour{{Index: 2, Address: netip.MustParseAddr("192.0.2.1"), MAC: mac}})
	}
}

func link(l fact.Link, prefix string) func(*fact.Snapshot, *fact.Namespace) {
	return func(_ *fact.Snapshot, n *fact.Namespace) {
		l.Index = 3
		n.Links = fact.Value(append(value(n.Links), l))
		if prefix != "" {
			n.Addresses = fact.Value(append(value(n.Addresses), fact.Address{Index: 3, Prefix: netip.MustParsePrefix(prefix), Valid: fact.Forever, Flags: fact.AddrPermanent}))
		}
	}
}

// folded is where a comment goes on in the next line.
var folded = regexp.MustCompile(`\n *# `)

func TestDraft(t *testing.T) {
	t.Parallel()
	type edit = func(*fact.Snapshot, *fact.Namespace)
	for name, c := range map[string]struct {
		edits []edit
		o     draft.Options
		want  []string // in the text, with comments unfolded or not
		not   []string
	}{
		"static server": {nil, draft.Options{}, []string{
			"role: server\n", "families: dual-stack\n", "    addressing: static ", "fe80::1 (MAC 52:54:00:00:00:01) says that it is a router, and is not believed",
			"# sshd listens on every address (::). Today IPv4: perhaps anybody; IPv6: perhaps anybody.\n", "  - name: ssh\n    ports: [tcp/22]\n    administers: true", "- {name: web, ports: [tcp/80, tcp/443]}",
			"- udp/5353 (other): discovery", "- udp/40000 (other): a port that nobody chose", "tunnels: deny",
		}, []string{"631", "accepted: false", "forwarding:\n"}},
		"slaac": {[]edit{slaac}, draft.Options{}, []string{
			"    addressing: slaac ", "NOT ACCEPTED YET", "address: \"fe80::1\"", "mac: \"52:54:00:00:00:01\"", "accepted: false", "prefixes: [\"2001:db8:1::/64\"]", "its default route ends in 1700 s", "ip neigh show 192.0.2.1", "2001:db8:1::/64 has been announced for 3 days at least",
		}, []string{"FOR it", "AGAINST it"}},
		"slaac, the gateway of IPv4": {[]edit{slaac, arp("52:54:00:00:00:01")}, draft.Options{}, []string{"FOR it: the IPv4 gateway 192.0.2.1 has the same MAC address", "accepted: false"}, []string{"AGAINST"}},
		"slaac, another machine":     {[]edit{slaac, arp("52:54:00:00:00:99")}, draft.Options{}, []string{"AGAINST it: the IPv4 gateway 192.0.2.1 is another machine (MAC 52:54:00:00:00:99)", "accepted: false"}, []string{"FOR it"}},
		"learn once":                 {[]edit{slaac}, draft.Options{LearnOnce: true}, []string{"learnOnce: true", "A rogue that is there at that moment"}, []string{"accepted: ", "routers:"}},
		"profile static on slaac":    {[]edit{slaac}, draft.Options{Profile: draft.StaticServer}, []string{"addressing: static "}, []string{"accepted: false"}},
		"static address, route by RA": {[]edit{slaac, func(_ *fact.Snapshot, n *fact.Namespace) {
			a := &value(n.Addresses)[2]
			a.Valid, a.Flags = fact.Forever, fact.AddrPermanent
		}}, draft.Options{}, []string{"addressing: slaac ", "static would lose it"}, nil},
		"router that a file names": {[]edit{slaac, func(s *fact.Snapshot, _ *fact.Namespace) {
			s.Host.Managers = fact.Value([]fact.Manager{{Name: "systemd-networkd", Interfaces: []fact.ManagedInterface{{Names: []string{"eth0"}, RouterAllowList: []netip.Prefix{netip.MustParsePrefix("fe80::1/128")}, Origin: fact.Origin{File: "/etc/systemd/network/eth0.network"}}}}})
		}}, draft.Options{}, []string{"Accepted, because /etc/systemd/network/eth0.network names it."}, []string{"accepted: false"}},
		"two routers": {[]edit{slaac, func(_ *fact.Snapshot, n *fact.Namespace) {
			n.Neighbours = fact.Value(append(value(n.Neighbours), fact.Neighbour{Index: 2, Address: netip.MustParseAddr("fe80::666"), MAC: "52:54:00:06:06:06", Flags: fact.NeighRouter}))
		}}, draft.Options{}, []string{"fe80::666", "it is one of 2 that claim to be routers", "no default route leads to it"}, nil},
		"one address": {[]edit{func(_ *fact.Snapshot, n *fact.Namespace) {
			ss := value(n.Sockets)
			ss[1].Local, ss[2].Local = netip.MustParseAddr("2001:db8:1::10"), netip.MustParseAddr("2001:db8:1::10")
		}}, draft.Options{}, []string{"to: [\"2001:db8:1::10/128\"]", "It listens on no other address", "families: [ipv6]"}, []string{"interfaces: ["}},
		"one address that changes": {[]edit{slaac, func(_ *fact.Snapshot, n *fact.Namespace) {
			ss := value(n.Sockets)
			ss[1].Local, ss[2].Local = netip.MustParseAddr("2001:db8:1::10"), netip.MustParseAddr("2001:db8:1::10")
		}}, draft.Options{}, []string{"interfaces: [eth0]", "that one may change"}, []string{"to: ["}},
		"egress and metadata": {nil, draft.Options{}, []string{"# egress: {ipv6: {default: deny", "fd00:ec2::254", "dns://[2001:db8::53]/example.org"}, []string{"\negress:"}},
		"ipv4-only":           {nil, draft.Options{Profile: draft.IPv4Only}, []string{"families: disabled-keep-loopback", "addressing: none"}, nil},
		"kubernetes":          {nil, draft.Options{Profile: draft.KubernetesNode}, []string{"role: kubernetes-node", "unmanaged: true"}, nil},
		"containers":          {nil, draft.Options{Profile: draft.ContainerHost}, []string{"role: server", "unmanaged: true"}, nil},
		"hypervisor":          {nil, draft.Options{Profile: draft.Hypervisor}, []string{"role: hypervisor", "unmanaged: true"}, nil},
		"router":              {[]edit{link(fact.Link{Name: "lan0", Flags: 0x1003, Type: 1}, "2001:db8:2::1/64")}, draft.Options{Profile: draft.Router}, []string{"role: router", "ipv6: true", "{inInterface: lan0, outInterface: eth0}"}, nil},
		"tunnels":             {[]edit{link(fact.Link{Name: "he6", Kind: "sit", Flags: 1, Tunnel: &fact.Tunnel{Remote: netip.MustParseAddr("198.51.100.7"), Complete: true}}, "")}, draft.Options{}, []string{"{mechanism: \"6in4\", peer: \"198.51.100.7/32\"}"}, nil},
		"nothing is known":    {[]edit{func(_ *fact.Snapshot, n *fact.Namespace) { n.Sockets = fact.Known[[]fact.Socket]{} }}, draft.Options{}, []string{"are not known", "services: []"}, nil},
		"the session's port": {[]edit{func(s *fact.Snapshot, n *fact.Namespace) {
			s.Host.Processes = fact.Value([]fact.Process{})
			value(n.Sockets)[0].Port = 2222
		}}, draft.Options{Session: netip.MustParseAddrPort("192.0.2.10:2222")}, []string{"ports: [tcp/2222]", "your session of now"}, nil},
		"mirror": {[]edit{func(_ *fact.Snapshot, n *fact.Namespace) {
			ss := value(n.Sockets)
			ss[1].V6Only, ss[2].V6Only = fact.Value(true), fact.Value(true) // IPv4 does not get there
		}}, draft.Options{MirrorIPv4: true}, []string{"name: ssh", "- tcp/80 (nginx): IPv4 is closed to it"}, []string{"name: web"}},
	} {
		s := vm(c.edits...)
		d, err := draft.New(s, &s.Namespaces[0], c.o)
		if err != nil {
			t.Fatal(err)
		}
		b, err := draftText(d)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		for _, w := range c.want {
			if !strings.Contains(folded.ReplaceAllString(text, " "), w) && !strings.Contains(text, w) {
				t.Errorf("%s: no %q in\n%s", name, w, text)
			}
		}
		for _, w := range c.not {
			if strings.Contains(text, w) {
				t.Errorf("%s: %q in\n%s", name, w, text)
			}
		}
	}
	if _, err := draft.New(vm(), &fact.Namespace{}, draft.Options{}); err == nil {
		t.Error("drafted without interfaces")
	}
	s := vm()
	if _, err := draft.New(s, &s.Namespaces[0], draft.Options{Profile: "x"}); err == nil {
		t.Error("drafted an unknown profile")
	}
}

// TestEveryDraftLoads: whatever the host is called and holds, its draft is an intent, and
// what nobody has accepted stops the plan.
func TestEveryDraftLoads(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := vm()
		n := &s.Namespaces[0]
		if rapid.Bool().Draw(t, "slaac") {
			slaac(s, n)
		}
		one := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
		word := rapid.OneOf(rapid.StringMatching(`[a-z]{1,8}[0-9.@:-]{0,4}`), rapid.String())
		s.Host.Hostname = fact.Value(word.Draw(t, "host"))
		ls, as, rs, ns := value(n.Links), value(n.Addresses), value(n.Routes), value(n.Neighbours)
		var ss []fact.Socket
		var ps []fact.Process
		for i := range rapid.IntRange(0, 3).Draw(t, "links") {
			at := 10 + i
			ls = append(ls, fact.Link{Index: at, Name: word.Draw(t, "name"), Flags: 1, Kind: one("kind", "", "sit", "gre", "vxlan", "bridge", "\x1b[31m"), Tunnel: rapid.SampledFrom([]*fact.Tunnel{nil, {Remote: netip.MustParseAddr("ff02::1")}, {Remote: netip.MustParseAddr("fe80::1%eth0")}, {ISATAP: true}}).Draw(t, "tunnel")})
			as = append(as, fact.Address{Index: at, Prefix: netip.MustParsePrefix(one("address", "10.0.0.1/8", "fd00::1/64", "2001:db8::5/128", "fe80::5/64", "::ffff:1.2.3.4/128")), Valid: rapid.SampledFrom([]uint32{5, fact.Forever}).Draw(t, "valid")})
			ns = append(ns, fact.Neighbour{Index: at, Address: netip.MustParseAddr(one("neighbour", "fe80::9", "2001:db8::9", "10.0.0.9")), MAC: one("mac", "", "01:00:00:00:00:01", "aa:BB:cc:dd:ee:0f", "x", "aa:bb:ccdd:ee:::1"), Flags: 0x80})
			rs = append(rs, fact.Route{Family: "ipv6", Dst: netip.MustParsePrefix("::/0"), Type: 1, Table: 254, Protocol: rapid.SampledFrom([]uint8{4, 9, 16, 77}).Draw(t, "proto"), NextHops: []fact.NextHop{{Via: netip.MustParseAddr(one("via", "fe80::9", "2001:db8::9")), Index: at}}})
		}
		for i := range rapid.IntRange(0, 5).Draw(t, "sockets") {
			ps = append(ps, fact.Process{PID: 100 + i, Exe: fact.Value("/usr/bin/" + word.Draw(t, "exe"))})
			ss = append(ss, fact.Socket{Family: "ipv6", Protocol: one("transport", "tcp", "udp", "sctp", "raw", "udplite"), State: "listen", Local: netip.MustParseAddr(one("local", "::", "::1", "2001:db8:1::10", "::ffff:192.0.2.10")), Port: rapid.Uint16().Draw(t, "port"), V6Only: fact.Value(rapid.Bool().Draw(t, "v6only")), Owners: fact.Value([]int{100 + i})})
		}
		n.Links, n.Addresses, n.Routes, n.Neighbours, n.Sockets, s.Host.Processes = fact.Value(ls), fact.Value(as), fact.Value(rs), fact.Value(ns), fact.Value(ss), fact.Value(ps)
		profiles := []string{""}
		for _, p := range draft.Profiles() {
			profiles = append(profiles, p.Name)
		}
		d, err := draft.New(s, n, draft.Options{Profile: one("profile", profiles...), MirrorIPv4: rapid.Bool().Draw(t, "mirror"), LearnOnce: rapid.Bool().Draw(t, "once")})
		if err != nil {
			t.Fatal(err)
		}
		text, err := draftText(d)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsRune(text, '\x1b') {
			t.Fatal("an escape sequence came through")
		}
		unaccepted := false
		for _, i := range d.Intent.Interfaces {
			for _, r := range i.Routers {
				unaccepted = unaccepted || r.Accepted != nil && !*r.Accepted
			}
		}
		if p := plan.New(d.Intent, s, plan.Options{}); unaccepted && len(p.Refusals) == 0 {
			t.Fatalf("planned with a router that nobody accepted:\n%s", text)
		}
	})
}

func TestPlanText(t *testing.T) {
	t.Parallel()
	text1 := func(s string) change.Image { return change.Image{Text: s} }
	p := change.Plan{
		Steps: []change.Step{
			{Kind: change.Sysctl, Phase: change.Runtime, Target: "net/ipv6/conf/eth0/accept_ra", Before: text1("1"), After: text1("0"), Why: []string{"SYSCTL-RA-01"}},
			{Kind: change.Sysctl, Phase: change.Runtime, Target: "net/ipv6/conf/eth1/accept_ra", Before: text1("1"), After: text1("0"), Why: []string{"SYSCTL-RA-01"}, Destroys: []change.Object{{Kind: change.RouteObj, Target: "default via fe80::1"}}},
			{Kind: change.File, Phase: change.Persist, Target: "/etc/a", Before: change.Image{Text: "x = 1\ny = 2\n", Mode: 0o600}, After: change.Image{Text: "x = 1\ny = 3\n", Mode: 0o644}},
			{Kind: change.File, Phase: change.Persist, Target: "/etc/b", Before: change.Image{Absent: true}, After: change.Image{Text: "one\n\x1b[31mtwo\n", Mode: 0o644}},
			{Kind: change.File, Phase: change.Persist, Target: "/etc/c", Before: text1("gone\n"), After: change.Image{Absent: true}},
			{Kind: change.Table, Phase: change.Runtime, Target: "inet t", Before: text1("table inet t { # as nft says it\n}\n"), After: text1("table inet t {\n\tchain new {}\n}\n")},
			{Kind: change.File, Phase: change.Persist, Target: "/etc/rules", Before: text1("table inet t {\n}\n"), After: text1("table inet t {\n\tchain new {}\n}\n")},
			{Kind: change.Unit, Phase: change.AfterConfirm, Target: "u.service", Before: text1("disabled"), After: text1("enabled")},
		},
		Exposure: []change.Exposure{{Proto: "tcp", Port: 22, Process: "/usr/sbin/sshd", IPv4: change.BeforeAfter{
			BeforeMust: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, BeforeMay: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")},
			AfterMust: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, AfterMay: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		}}},
		Risks:        []change.Risk{{ID: "r", Severity: "high", Title: "Something stops", Detail: "It does.", Evidence: []string{"this", "that"}, Remedy: "do so"}},
		Gaps:         []fact.Gap{{What: "the moon"}},
		Administered: []change.Way{{Family: "ipv6", Local: netip.MustParseAddrPort("[2001:db8::1]:22"), Remote: netip.MustParseAddrPort("[2001:db8::2]:5")}},
	}
	show := func(o planOptions) string {
		var b bytes.Buffer
		x := planText{Options: o, width: 80}
		if err := x.write(&b, &p); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	text := show(planOptions{})
	for _, want := range []string{
		"8 changes would make this host what its intent says. Nothing was changed yet.", "net/ipv6/conf/{eth0,eth1}/accept_ra: 1 → 0   because of SYSCTL-RA-01", "takes away route default via fe80::1",
		"-y = 2", "+y = 3", "+    chain new {}", "/etc/rules: changed as the table above", "mode 0600 → 0644", "file /etc/b: new, 2 lines, mode 0644", "+one", "file /etc/c: deleted", "u.service: disabled → enabled", "tcp/22 sshd", "→ 192.0.2.0/24",
		"high    Something stops", "seen: this; that", "remedy: do so", "the moon", "ipv6 to [2001:db8::1]:22", "harden apply plan.json",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "as nft says it") || strings.Contains(text, `\t`) {
		t.Errorf("the words of nft, or tabs, are shown:\n%s", text)
	}
	if strings.Contains(text, "\x1b") {
		t.Error("an escape sequence came through")
	}
	p.Refusals = []change.Refusal{{ID: "x", Title: "You would be locked out", Detail: "d", WayOut: "add a service"}}
	if text = show(planOptions{}); !strings.HasPrefix(text, "REFUSED: 1 thing stands") || !strings.Contains(text, "Way out: add a service") || strings.Contains(text, "NEXT") {
		t.Error(text)
	}
	if text = show(planOptions{quiet: true}); strings.Contains(text, "CHANGES") || !strings.Contains(text, "Way out") {
		t.Error(text)
	}
	p = change.Plan{}
	if text = show(planOptions{}); text != "Nothing to do: this host is as its intent says.\n" {
		t.Error(text)
	}
}

// TestProvenanceOfDropIns: of every kind of value the file is named that had the last
// word, and none of those that had not.
func TestProvenanceOfDropIns(t *testing.T) {
	t.Parallel()
	file := func(path string, lines ...string) config.IntentFile {
		return config.IntentFile{Path: path, Text: []byte("apiVersion: sixfence/v1\n" + strings.Join(lines, "\n") + "\n")}
	}
	l, err := config.LoadIntent([]config.IntentFile{
		file("main", "role: server", "families: dual-stack", "interfaces:", "  eth0:", "    addressing: slaac", "    routers: [{address: \"fe80::1\"}]", "services:", "  - {name: ssh, ports: [tcp/22]}", "  - {name: web, ports: [tcp/80]}",
			"limits: {echoPerSecond: 5, exempt: [\"192.0.2.1\"]}", "sysctls: {net.ipv4.tcp_syncookies: \"1\"}", "tunnels: deny", "egress: {ipv4: {default: deny, allow: [{ports: [udp/53]}]}, metadata: root}"),
		file("10", "families: ipv6-only", "interfaces: {eth0: {routers: [{address: \"fe80::2\"}], pinGateway: false}}", "limits: {ndPerSecond: 60}", "egress: {ipv4: {allow: [{ports: [udp/123]}]}}"),
		file("20", "families: dual-stack", "services:", "  - {name: web, ports: [tcp/443]}", "  - {name: dns, ports: [udp/53]}", "limits: {exempt: [\"192.0.2.2\"]}", "sysctls: {net.ipv4.tcp_syncookies: \"2\", net.ipv6.conf.all.mtu: \"1280\"}", "tunnels: [{mechanism: gre}]", "interfaces: {eth0: {addressing: static, routers: []}}"),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	in := l.Intent
	if in.Families != intent.DualStack || len(in.Interfaces["eth0"].Routers) != 0 || in.Interfaces["eth0"].Addressing != intent.Static || len(in.Services) != 3 || !slices.Equal(in.Services[1].Ports, []string{"tcp/443"}) ||
		in.Limits.EchoPerSecond != 5 || in.Limits.NDPerSecond != 60 || len(in.Limits.Exempt) != 1 || in.Sysctls["net/ipv4/tcp_syncookies"] != "2" || len(in.Tunnels.List) != 1 || in.Egress.IPv4.Default != "deny" || !slices.Equal(in.Egress.IPv4.Allow[0].Ports, []string{"udp/123"}) || in.Egress.Metadata != "root" {
		t.Errorf("merged: %+v", in)
	}
	n := provenance(l)
	text := string(config.WriteIntent(in, n))
	for line, want := range map[string]string{
		"role: server": "main:2", "families: dual-stack": "20:2", "addressing: static": "20:9", "routers: []": "20:9", "- {name: ssh": "main:9", "- {name: web": "20:4", "- {name: dns": "20:5", "echoPerSecond: 5": "main:11", "ndPerSecond: 60": "10:4",
		"exempt: [": "20:6", "net/ipv4/tcp_syncookies: \"2\"": "20:7", "net/ipv6/conf/all/mtu:": "20:7", "default: deny": "main:14", "allow: [": "10:5", "metadata: root": "main:14", "tunnels:": "20:8",
	} {
		found := false
		for got := range strings.Lines(text) {
			if strings.HasPrefix(strings.TrimSpace(got), line) {
				found = found || strings.HasSuffix(strings.TrimSpace(got), "# "+want)
			}
		}
		if !found {
			t.Errorf("no %q with %s in\n%s", line, want, text)
		}
	}
	// What is written is the same intent.
	back, err := config.LoadIntent([]config.IntentFile{{Path: "merged", Text: []byte(text)}}, nil)
	if err != nil || back.Hash != l.Hash {
		t.Errorf("the merged text is another intent: %v", err)
	}
}

func TestProvenanceNamesEveryValueOnce(t *testing.T) {
	t.Parallel()
	l, err := config.LoadIntent([]config.IntentFile{
		{Path: "a", Text: []byte("apiVersion: sixfence/v1\nrole: server\ninterfaces:\n  eth0:\n    addressing: slaac\n    routers: [{address: \"fe80::1\"}]\n")},
		{Path: "b", Text: []byte("apiVersion: sixfence/v1\ninterfaces:\n  eth0:\n    pinGateway: false\n  eth1: {addressing: none}\n")},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := provenance(l)
	for p, want := range map[string]string{"role": "a:2", "interfaces.eth0.addressing": "a:5", "interfaces.eth0.routers": "a:6", "interfaces.eth1": "b:5", "interfaces": "", "interfaces.eth0": ""} {
		if n[p].Beside != want {
			t.Errorf("%s: %q, want %q", p, n[p].Beside, want)
		}
	}
}
