//go:build packets

package plan_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/testlab"
)

// note says what was done, in the log and in the page that HARDEN_PACKETS_REPORT names.
func note(t *testing.T, format string, a ...any) {
	t.Helper()
	text := fmt.Sprintf(format, a...)
	t.Log(text)
	t.Cleanup(func() {
		path := os.Getenv("HARDEN_PACKETS_REPORT")
		if path == "" {
			return
		}
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		verdict := "as it ought to be"
		if t.Failed() {
			verdict = "**FAILED**"
		}
		_, _ = fmt.Fprintf(f, "| %s | %s | %s |\n", strings.TrimPrefix(t.Name(), "TestPackets"), text, verdict)
	})
}

// segment is a link made of a switch: a host under test, its router, a client and an
// attacker, each at eth0.
type segment struct {
	t                                       *testing.T
	sw, host, router, client, attacker, far *testlab.NS
	wire                                    *testlab.Wire // of the attacker
	hostMAC                                 ndisc.MAC
}

// newSegment makes one; bridge are further words for the switch. The host has no
// address but what it takes from RAs, and far is behind the router at 2600:1::1.
func newSegment(t *testing.T, hint string, bridge ...string) *segment {
	t.Helper()
	s := &segment{t: t, sw: testlab.NewNS(t, hint+"s"), host: testlab.NewNS(t, hint+"h"), router: testlab.NewNS(t, hint+"r"), client: testlab.NewNS(t, hint+"c"), attacker: testlab.NewNS(t, hint+"a"), far: testlab.NewNS(t, hint+"f")}
	s.sw.IP(append([]string{"link", "add", "br0", "type", "bridge"}, bridge...)...)
	s.sw.IP("link", "set", "br0", "up")
	for i, n := range []*testlab.NS{s.host, s.router, s.client, s.attacker} {
		for _, k := range []string{"accept_dad", "router_solicitations"} {
			n.Sysctl("net/ipv6/conf/default/"+k, "0")
			n.Sysctl("net/ipv6/conf/all/"+k, "0")
		}
		if n != s.host {
			n.Sysctl("net/ipv6/conf/default/accept_ra", "0")
		}
		p := fmt.Sprintf("p%d", i)
		s.sw.IP("link", "add", p, "type", "veth", "peer", "name", "eth0", "netns", n.Name)
		s.sw.IP("link", "set", p, "master", "br0", "up")
		if n == s.router {
			n.IP("link", "set", "eth0", "address", routerMAC.String(), "addrgenmode", "none")
		}
		n.IP("link", "set", "eth0", "up")
	}
	s.router.AddAddr("eth0", "fe80::1/64")
	s.router.AddAddr("eth0", "2001:db8:1::1/64")
	s.router.IP("addr", "add", "192.0.2.1/24", "dev", "eth0")
	s.client.AddAddr("eth0", "2001:db8:1::7/64")
	s.client.IP("addr", "add", "192.0.2.7/24", "dev", "eth0")
	testlab.Link(s.router, "eth1", s.far, "eth0")
	s.router.AddAddr("eth1", "2600:1::ff/64")
	s.far.AddAddr("eth0", "2600:1::1/64")
	s.far.IP("-6", "route", "add", "default", "via", "2600:1::ff")
	s.router.Sysctl("net/ipv6/conf/all/forwarding", "1")
	s.wire = s.attacker.Wire("eth0")
	s.hostMAC = mac(t, s.host, "eth0")
	testlab.Eventually(t, 20*time.Second, "the host's link-local address", func() bool { return s.host.HasAddr(testlab.LinkLocal(s.hostMAC)) })
	return s
}

func (s *segment) static() {
	s.host.Sysctl("net/ipv6/conf/eth0/accept_ra", "0")
	s.host.AddAddr("eth0", "2001:db8:1::10/64")
	s.host.IP("addr", "add", "192.0.2.10/24", "dev", "eth0")
	s.host.IP("-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
	s.host.IP("route", "add", "default", "via", "192.0.2.1")
}

// harden applies what export writes: the rules by nft, the settings by systemd-sysctl.
func harden(t *testing.T, n *testlab.NS, in intent.Intent) {
	t.Helper()
	files, err := plan.Export(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		switch f.Name {
		case "nftables.conf":
			load(t, n, f.Text)
		case "sysctl.conf":
			p := filepath.Join(t.TempDir(), "sysctl.conf")
			if err := os.WriteFile(p, []byte(f.Text), 0o644); err != nil {
				t.Fatal(err)
			}
			n.Run(testlab.RequireTool(t, "systemd-sysctl"), p)
		}
	}
}

var volatile = regexp.MustCompile(` (expires|valid_lft|preferred_lft) \S+|hoplimit \d+ `)

// state is what a router advertisement changes.
func (s *segment) state() string {
	out := s.host.IP("-6", "route", "show", "table", "all", "dev", "eth0") + s.host.IP("-6", "addr", "show", "dev", "eth0")
	for _, k := range []string{"mtu", "hop_limit"} {
		out += k + " " + s.host.ReadSysctl("net/ipv6/conf/eth0/"+k) + "\n"
	}
	var keep []string
	for _, l := range strings.Split(out, "\n") {
		if !strings.Contains(l, "valid_lft") {
			keep = append(keep, strings.TrimSpace(volatile.ReplaceAllString(l, "")))
		}
	}
	return strings.Join(keep, "\n")
}

// barrier returns when the host has handled what was sent before.
func (s *segment) barrier() {
	s.t.Helper()
	ll := testlab.LinkLocal(s.hostMAC)
	f := ndisc.Frame{SrcMAC: s.wire.MAC, DstMAC: s.hostMAC, Src: s.wire.Addr, Dst: ll}
	for i := range 50 {
		s.wire.Send(f.Echo(0x5f5f, uint16(i)).Bytes())
		if s.wire.Receive(400*time.Millisecond, testlab.IsEchoReply(0x5f5f)) != nil {
			return
		}
	}
	s.t.Fatal("the host does not answer the attacker's echo requests")
}

const radvd = `interface eth0 {
  AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; AdvCurHopLimit 99; AdvLinkMTU 1420; AdvDefaultLifetime 1800; UnicastOnly off;
  prefix 2001:db8:1::/64 { AdvOnLink on; AdvAutonomous on; };
  RDNSS 2001:db8:1::53 { };
};
`

func (s *segment) radvd() {
	s.t.Helper()
	conf := filepath.Join(s.t.TempDir(), "radvd.conf")
	if err := os.WriteFile(conf, []byte(radvd), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.router.Start(testlab.RequireTool(s.t, "radvd"), "-n", "-C", conf, "-p", filepath.Join(s.t.TempDir(), "pid"), "-m", "stderr")
}

// rogue are the ways to send an advertisement that must change nothing.
func rogue(f ndisc.Frame, life uint16) map[string][][]byte {
	ra := ndisc.RA{HopLimit: 255, Lifetime: life, Preference: 1, Reachable: 1000, Retrans: 8, Options: [][]byte{
		ndisc.PrefixInfo(netip.MustParsePrefix("2001:db8:bad::/64"), 86400, 14400), ndisc.MTUOption(1280),
		ndisc.RouteInfo(netip.MustParsePrefix("2001:db8:bbbb::/48"), 1, 1800), ndisc.RDNSS(1800, addr("2001:db8:bad::53")),
	}}
	do := ndisc.Ext{Type: ndisc.HdrDestOpts}
	long := ndisc.Ext{Type: ndisc.HdrDestOpts, Body: append([]byte{31, 1, 252}, make([]byte, 252)...)}
	with := func(ext ...ndisc.Ext) ndisc.Frame { g := f; g.Ext = ext; return g.RA(ra) }
	one := func(g ndisc.Frame) [][]byte { return [][]byte{g.Bytes()} }
	flip := func(x [][]byte) [][]byte { return [][]byte{x[1], x[0]} }
	out := map[string][][]byte{
		"plain":                              one(f.RA(ra)),
		"two fragments":                      f.RA(ra).Fragments(7, 16),
		"two fragments, reversed":            flip(f.RA(ra).Fragments(8, 16)),
		"header split":                       f.RA(ra).Fragments(9, 8),
		"atomic fragment":                    one(with(ndisc.Ext{Type: ndisc.HdrFragment, Body: []byte{0, 0, 0, 0, 0, 0, 9}})),
		"hop-by-hop":                         one(with(ndisc.Ext{Type: ndisc.HdrHopByHop})),
		"destination options":                one(with(do)),
		"five destination options":           one(with(do, do, do, do, do)),
		"hop-by-hop and destination options": one(with(ndisc.Ext{Type: ndisc.HdrHopByHop}, do)),
		"routing header 0":                   one(with(ndisc.Ext{Type: ndisc.HdrRouting, Body: []byte{0, 0, 0, 0, 0, 0, 0}})),
		"routing header 2":                   one(with(ndisc.Ext{Type: ndisc.HdrRouting, Body: []byte{2, 2, 0, 0, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10}})),
		"header chain of 1,280 octets":       f.Raw(ndisc.HdrDestOpts, with(long, long, long, long, long).Bytes()[54:]).Fragments(10, 1232),
		"ICMPv6 in the second fragment":      f.Raw(ndisc.HdrDestOpts, with(long).Bytes()[54:]).Fragments(11, 256),
		"hop-by-hop, then fragments":         with(ndisc.Ext{Type: ndisc.HdrHopByHop}).Fragments(12, 24),
	}
	for _, h := range []uint8{254, 64, 1} {
		g := f
		g.HopLimit = h
		out[fmt.Sprintf("hop limit %d", h)] = one(g.RA(ra))
	}
	g := f
	g.Src = addr("2001:db8:1::666")
	out["from a global address"] = one(g.RA(ra))
	only := ra
	only.Lifetime = 0
	out["prefix only"] = one(f.RA(only))
	bare := ndisc.RA{Lifetime: life}
	out["without options"] = one(f.RA(bare))
	c := f.RA(ra)
	c.Payload = append([]byte(nil), c.Payload...)
	out["code 1"] = one(f.ICMPv6(134, 1, c.Payload[4:]))
	return out
}

// TestPacketsAdvertisements: a real router's advertisements are taken, by server and by
// node that forwards, before and after the plan, and nobody else's.
func TestPacketsAdvertisements(t *testing.T) {
	for _, role := range []intent.Role{intent.RoleServer, intent.RoleKubernetesNode} {
		t.Run(string(role), func(t *testing.T) {
			s := newSegment(t, "ra", "mcast_snooping", "0")
			s.radvd()
			taken := func() bool {
				x := s.state()
				return strings.Contains(x, "default via fe80::1") && strings.Contains(x, "2001:db8:1:") && strings.Contains(x, "mtu 1420") && strings.Contains(x, "hop_limit 99")
			}
			testlab.Eventually(t, 30*time.Second, "the true advertisement before", taken)
			in := intent.Intent{Role: role, Interfaces: map[string]intent.Interface{"eth0": {Addressing: intent.SLAAC, Routers: []intent.Router{router}}}, Services: []intent.Service{ssh()}}
			harden(t, s.host, in)
			if x := s.state(); !strings.Contains(x, "default via fe80::1") {
				t.Errorf("applying took the default route away:\n%s", x)
			}
			// Gone, and taken again: the rules let the true one in.
			s.host.IP("-6", "route", "flush", "table", "main", "proto", "ra")
			s.host.IP("-6", "addr", "flush", "dev", "eth0", "scope", "global")
			testlab.Eventually(t, 30*time.Second, "the true advertisement after", taken)
			before := s.state()
			n := 0
			true1 := func(f ndisc.Frame) ndisc.Frame { f.Src = addr("fe80::1"); return f }
			all := ndisc.Frame{SrcMAC: s.wire.MAC, Src: s.wire.Addr, Dst: ndisc.AllNodes}
			uni := all
			uni.Dst, uni.DstMAC = testlab.LinkLocal(s.hostMAC), s.hostMAC
			wrong := map[string]bool{}
			for who, f := range map[string]ndisc.Frame{"rogue": all, "rogue, unicast": uni, "router's address": true1(all), "router's address, unicast": true1(uni)} {
				for _, life := range []uint16{1800, 0} {
					for name, frames := range rogue(f, life) {
						n++
						s.wire.Send(frames...)
						s.barrier()
						if x := s.state(); x != before {
							wrong[name] = true
							t.Errorf("%s, lifetime %d, %s:\n%s\nbefore:\n%s", who, life, name, x, before)
							before = x
						}
					}
				}
			}
			for _, tool := range [][]string{
				{"atk6-fake_router26", "-A", "2001:db8:bad::/64", "-E", "H", "eth0"}, {"atk6-fake_router26", "-A", "2001:db8:bad::/64", "-E", "1", "eth0"}, {"atk6-fake_router26", "-A", "2001:db8:bad::/64", "-E", "D", "eth0"},
				{"atk6-fake_router26", "-A", "2001:db8:bad::/64", "-E", "O", "eth0"}, {"atk6-fake_router26", "-A", "2001:db8:bad::/64", "-E", "o", "eth0"}, {"atk6-fake_router6", "eth0", "2001:db8:bad::/64"},
				{"atk6-kill_router6", "-H", "eth0", "fe80::1"}, {"atk6-kill_router6", "-F", "eth0", "fe80::1"}, {"atk6-kill_router6", "-D", "eth0", "fe80::1"},
				{"atk6-flood_router26", "eth0"}, {"atk6-flood_router26", "-H", "eth0"}, {"atk6-flood_router26", "-F", "eth0"}, {"atk6-flood_router26", "-D", "eth0"}, {"atk6-flood_redir6", "eth0"}, {"ra6", "-i", "eth0", "-d", "ff02::1", "-P", "2001:db8:bad::/64#LA#86400#14400", "-t", "1800", "-l"},
			} {
				n++
				_ = s.attacker.Command("timeout", append([]string{"-s", "KILL", "1", testlab.RequireTool(t, tool[0])}, tool[1:]...)...).Run()
				s.barrier()
				if x := s.state(); x != before {
					t.Errorf("%v:\n%s\nbefore:\n%s", tool, x, before)
					before = x
				}
			}
			note(t, "%d ways to advertise, tools among them; %d changed a route, an address, the MTU or the hop limit; the true router's were taken before and after", n, len(wrong))
			// The shots are real.
			s.host.Run("nft", "delete", "table", "inet", "sixfence")
			s.wire.Send(rogue(all, 1800)["plain"]...)
			s.barrier()
			testlab.Eventually(t, 10*time.Second, "the rogue without rules", func() bool { return strings.Contains(s.state(), "2001:db8:bad") })
		})
	}
}

// TestPacketsMLD: behind a snooping switch with a querier the host stays in its groups,
// and so in reach of those who do not know it yet. SIXFENCE_MLD is for how long.
func TestPacketsMLD(t *testing.T) {
	t.Parallel()
	long, _ := time.ParseDuration(os.Getenv("SIXFENCE_MLD"))
	if long == 0 {
		long = 40 * time.Second
	}
	// Centiseconds: a query every second, later every 3 s; members for 8 s.
	s := newSegment(t, "mld", "mcast_snooping", "1", "mcast_querier", "1", "mcast_startup_query_interval", "100", "mcast_query_interval", "300", "mcast_membership_interval", "800", "mcast_query_response_interval", "100", "mcast_querier_interval", "800", "mcast_mld_version", "2")
	s.static()
	harden(t, s.host, intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"eth0": {Addressing: intent.Static}}, Services: []intent.Service{ssh()}})
	start, rounds, lost := time.Now(), 0, 0
	for time.Since(start) < long {
		time.Sleep(4 * time.Second)
		s.client.IP("-6", "neigh", "flush", "dev", "eth0")
		// Forged queries, reports and leaves. A query from a lower link-local address would not
		// ask the host's rules but make the switch fall silent, which is the switch's to know.
		for _, src := range []string{"2001:db8:1::666", "fe80::666"} {
			for _, typ := range []uint8{130, 131, 132} {
				if typ == 130 && src == "fe80::666" {
					continue
				}
				f := ndisc.Frame{SrcMAC: s.wire.MAC, Src: addr(src), Dst: addr("ff02::1"), HopLimit: 1, Ext: []ndisc.Ext{{Type: ndisc.HdrHopByHop, Body: []byte{0, 5, 2, 0, 0, 1, 0}}}}
				s.wire.Send(f.ICMPv6(typ, 0, make([]byte, 20)).Bytes())
			}
		}
		rounds++
		if !pings(s.client, "2001:db8:1::10") {
			lost++
		}
	}
	mdb := s.sw.Run("bridge", "mdb", "show", "dev", "br0")
	if lost > 0 || !strings.Contains(mdb, "port p0 grp ff02::1:ff00:10") {
		t.Errorf("%d of %d first contacts failed; the switch knows\n%s", lost, rounds, mdb)
	}
	note(t, "%s behind a snooping querier: %d first contacts, %d failed", long, rounds, lost)
	// Without MLD it would be lost: the switch is real.
	load(t, s.host, "table inet mute { chain i { type filter hook input priority -450; icmpv6 type mld-listener-query drop; }; chain o { type filter hook output priority -450; icmpv6 type { mld-listener-report, mld2-listener-report } drop; }; }")
	testlab.Eventually(t, 60*time.Second, "the switch to forget a mute host", func() bool {
		s.client.IP("-6", "neigh", "flush", "dev", "eth0")
		return !pings(s.client, "2001:db8:1::10")
	})
}

// dnsmasq serves DHCPv6 on a namespace's eth0.
func dnsmasq(t *testing.T, n *testlab.NS, from, to string) {
	t.Helper()
	n.Start(testlab.RequireTool(t, "dnsmasq"), "-k", "-C", "/dev/null", "-u", "root", "-p", "0", "-i", "eth0", "--bind-interfaces", "--dhcp-range="+from+","+to+",64,2m", "--leasefile-ro", "--pid-file", "--log-facility="+filepath.Join(t.TempDir(), "log"))
}

// TestPacketsDHCPv6: a real client gets its address from the server that is listed, keeps
// it past its renewal, and takes none of another server's.
func TestPacketsDHCPv6(t *testing.T) {
	t.Parallel()
	note(t, "dhcpcd and dnsmasq: an address, its renewal after three minutes, none of a server that is not listed; with egress denied as well")
	for _, deny := range []bool{false, true} {
		s := newSegment(t, "dh", "mcast_snooping", "0")
		in := intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"eth0": {Addressing: intent.DHCPv6, Routers: []intent.Router{router}, DHCPv6Servers: []intent.DHCPv6Server{{Address: addr("fe80::1")}}}}}
		if deny {
			in.Egress = intent.Egress{IPv6: intent.EgressFamily{Default: "deny"}, IPv4: intent.EgressFamily{Default: "deny"}}
		}
		harden(t, s.host, in)
		s.attacker.AddAddr("eth0", "2001:db8:bad::1/64")
		dnsmasq(t, s.attacker, "2001:db8:bad::100", "2001:db8:bad::1ff")
		d := s.host.DHCPCD("eth0", "noipv6rs\nduid\nscript /bin/true\ninterface eth0\nipv6only\nia_na 1\n")
		has := func() string { return s.host.IP("-6", "addr", "show", "dev", "eth0", "scope", "global") }
		time.Sleep(6 * time.Second)
		if x := has(); strings.Contains(x, "2001:db8:") {
			t.Errorf("a rogue server's address was taken:\n%s", x)
		}
		dnsmasq(t, s.router, "2001:db8:1::100", "2001:db8:1::1ff")
		testlab.Eventually(t, 90*time.Second, "an address of the true server", func() bool { return strings.Contains(has(), "2001:db8:1::1") })
		if deny {
			continue
		}
		// The lease is of two minutes: after three it has been renewed.
		end := time.Now().Add(185 * time.Second)
		for time.Now().Before(end) {
			time.Sleep(5 * time.Second)
			if x := has(); !strings.Contains(x, "2001:db8:1::1") || strings.Contains(x, "bad") {
				t.Fatalf("after %v: %s\n%s", time.Until(end), x, d.Log())
			}
		}
	}
}

// TestPacketsPathMTU: transfers complete over a path with a small MTU, both ways, and what
// nobody asked for does not make the path smaller.
func TestPacketsPathMTU(t *testing.T) {
	note(t, "3 MB each way over a path of 1,300 octets; 4 forged Packet Too Big, none taken")
	s := newSegment(t, "mtu", "mcast_snooping", "0")
	s.static()
	s.router.IP("link", "set", "eth1", "mtu", "1300")
	s.far.IP("link", "set", "eth0", "mtu", "1300")
	// The ends do not know: the small link is in the middle.
	end := testlab.NewNS(t, "mtue")
	testlab.Link(s.far, "eth1", end, "eth0")
	s.far.AddAddr("eth1", "2600:2::ff/64")
	s.far.Sysctl("net/ipv6/conf/all/forwarding", "1")
	end.AddAddr("eth0", "2600:2::1/64")
	end.IP("-6", "route", "add", "default", "via", "2600:2::ff")
	s.router.IP("-6", "route", "add", "2600:2::/64", "via", "2600:1::1")
	harden(t, s.host, intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"eth0": {Addressing: intent.Static}}, Services: []intent.Service{{Name: "iperf", Ports: []string{"tcp/5201"}}}})
	// Forged, about flows that are not there.
	for _, dst := range []string{"2600:2::1", "2001:db8:1::7"} {
		inner := ndisc.Frame{SrcMAC: s.wire.MAC, DstMAC: s.hostMAC, Src: addr("2001:db8:1::10"), Dst: addr(dst), HopLimit: 64}.TCP(5201, 40000, 0x10).Bytes()[14:]
		inner2 := ndisc.Frame{SrcMAC: s.wire.MAC, DstMAC: s.hostMAC, Src: addr("2001:db8:1::10"), Dst: addr(dst), HopLimit: 64}.Echo(5, 5).Bytes()[14:]
		for _, x := range [][]byte{inner, inner2} {
			f := ndisc.Frame{SrcMAC: s.wire.MAC, DstMAC: s.hostMAC, Src: addr("2001:db8:1::1"), Dst: addr("2001:db8:1::10"), HopLimit: 64}
			s.wire.Send(f.ICMPv6(2, 0, append([]byte{0, 0, 5, 0}, x...)).Bytes())
		}
	}
	s.barrier()
	for _, dst := range []string{"2600:2::1", "2001:db8:1::7"} {
		if r := s.host.IP("-6", "route", "get", dst); strings.Contains(r, "mtu") {
			t.Errorf("a forged error was taken: %s", r)
		}
	}
	s.host.Start(testlab.RequireTool(t, "iperf3"), "-s", "-6")
	for _, reverse := range []string{"-R", ""} { // first the host, which is then the one to learn
		args := []string{"30", "iperf3", "-6", "-c", "2001:db8:1::10", "-n", "3M"}
		if reverse != "" {
			args = append(args, reverse)
		}
		testlab.Eventually(t, 60*time.Second, "a transfer "+reverse, func() bool {
			out, err := end.Command("timeout", args...).CombinedOutput()
			if err != nil {
				t.Logf("%s %v", out, err)
			}
			return err == nil
		})
	}
	if r := s.host.IP("-6", "route", "get", "2600:2::1"); !strings.Contains(r, "mtu 1300") {
		t.Errorf("the path was not learned: %s", r)
	}
}

// opens tells whether a TCP connection opens.
func opens(from *testlab.NS, at string) bool {
	var err error
	var c net.Conn
	from.Do(func() { c, err = net.DialTimeout("tcp", at, 400*time.Millisecond) })
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// docker is what Docker and kube-proxy load, for a container at 172.17.0.2 and
// fd00:17::2 whose port 80 is published as 8080, 8443 and node port 30080.
func docker(t *testing.T, n *testlab.NS) {
	t.Helper()
	for _, f := range []struct{ tool, host, container, net string }{{"iptables-nft-restore", "", "172.17.0.2:80", "172.17.0.0/16"}, {"ip6tables-nft-restore", "", "[fd00:17::2]:80", "fd00:17::/64"}} {
		c := n.Command(testlab.RequireTool(t, f.tool))
		c.Stdin = strings.NewReader(`*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s ` + f.net + ` ! -o docker0 -j MASQUERADE
-A POSTROUTING -s ` + f.net + ` -d ` + f.net + ` -p tcp -m tcp --dport 80 -j MASQUERADE
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j DNAT --to-destination ` + f.container + `
-A DOCKER -p tcp -m tcp --dport 8080 -j DNAT --to-destination ` + f.container + `
-A DOCKER -p tcp -m tcp --dport 8443 -j DNAT --to-destination ` + f.container + `
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
COMMIT
`)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", f.tool, err, out)
		}
	}
}

var counters = regexp.MustCompile(` \[\d+:\d+\]`)

// foreign is every rule that is not ours, as nft and the old iptables print it.
func foreign(t *testing.T, n *testlab.NS) string {
	var out strings.Builder
	for _, l := range strings.Split(n.Run("nft", "list", "tables"), "\n") {
		if l != "" && l != "table inet sixfence" {
			out.WriteString(n.Run("nft", append([]string{"-s", "-a", "list"}, strings.Fields(l)...)...))
		}
	}
	for _, tool := range []string{"iptables-legacy-save", "ip6tables-legacy-save"} {
		for _, l := range strings.Split(n.Run(testlab.RequireTool(t, tool)), "\n") {
			if !strings.HasPrefix(l, "#") {
				out.WriteString(counters.ReplaceAllString(l, "") + "\n")
			}
		}
	}
	return out.String()
}

// TestPacketsPublished: ports of containers obey the services, by every interface that
// strangers come in by; containers among themselves do not notice; the rules of others
// stay as they are.
func TestPacketsPublished(t *testing.T) {
	host, outside, lan := testlab.NewNS(t, "pubh"), testlab.NewNS(t, "pubo"), testlab.NewNS(t, "publ")
	testlab.Link(host, "v0", outside, "a0")
	// An interface that the intent does not name: what is not veth, as containers have.
	testlab.Link(host, "under", lan, "l0")
	host.IP("link", "add", "m0", "link", "under", "type", "macvlan", "mode", "private")
	host.IP("link", "set", "m0", "up")
	host.Sysctl("net/ipv4/conf/under/arp_ignore", "1") // or it answers for m0's address, and packets come by the wrong one
	host.IP("link", "add", "docker0", "type", "bridge", "mcast_snooping", "0")
	host.IP("link", "set", "docker0", "up")
	for _, x := range []struct {
		ns      *testlab.NS
		dev, a6 string
		a4      string
	}{{host, "v0", "2001:db8:1::1/64", "192.0.2.1/24"}, {outside, "a0", "2001:db8:1::7/64", "192.0.2.7/24"}, {host, "m0", "2001:db8:3::1/64", "192.0.3.1/24"}, {lan, "l0", "2001:db8:3::7/64", "192.0.3.7/24"}, {host, "docker0", "fd00:17::1/64", "172.17.0.1/16"}} {
		x.ns.AddAddr(x.dev, x.a6)
		x.ns.IP("addr", "add", x.a4, "dev", x.dev)
	}
	host.Sysctl("net/ipv6/conf/all/forwarding", "1")
	host.Sysctl("net/ipv4/ip_forward", "1")
	host.Sysctl("net/bridge/bridge-nf-call-iptables", "1")
	host.Sysctl("net/bridge/bridge-nf-call-ip6tables", "1")
	var containers []*testlab.NS
	for _, i := range []string{"2", "3"} {
		c := testlab.NewNS(t, "pubc"+i)
		testlab.Link(host, "veth"+i, c, "eth0")
		host.IP("link", "set", "veth"+i, "master", "docker0")
		c.AddAddr("eth0", "fd00:17::"+i+"/64")
		c.IP("addr", "add", "172.17.0."+i+"/16", "dev", "eth0")
		c.IP("-6", "route", "add", "default", "via", "fd00:17::1")
		c.IP("route", "add", "default", "via", "172.17.0.1")
		containers = append(containers, c)
	}
	listen := func(n *testlab.NS, at string) {
		var l net.Listener
		var err error
		n.Do(func() { l, err = net.Listen("tcp", at) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	listen(containers[0], ":80")
	listen(outside, ":99")
	docker(t, host)
	for _, tool := range []string{"iptables-legacy", "ip6tables-legacy"} { // what an administrator left behind
		host.Run(testlab.RequireTool(t, tool), "-A", "INPUT", "-s", map[bool]string{true: "2001:db8:666::/48", false: "198.51.100.0/24"}[tool[2] == '6'], "-j", "DROP")
	}
	load(t, host, "table inet f2b-table { set addr-set-sshd { type ipv4_addr; elements = { 198.51.100.66 }; }; chain f2b-chain { type filter hook input priority -1; policy accept; tcp dport 22 ip saddr @addr-set-sshd reject; }; }\ntable ip kube-proxy { map service-nodeports { type inet_proto . inet_service : verdict; }; }")
	type shot struct {
		from *testlab.NS
		at   string
	}
	at := func(port string) (out []shot) {
		for _, x := range []shot{{outside, "[2001:db8:1::1]:"}, {outside, "192.0.2.1:"}, {lan, "[2001:db8:3::1]:"}, {lan, "192.0.3.1:"}} {
			out = append(out, shot{x.from, x.at + port})
		}
		return out
	}
	inner := []shot{{containers[1], "[2001:db8:1::1]:8443"}, {containers[1], "192.0.2.1:8443"}, {containers[1], "[fd00:17::2]:80"}, {containers[1], "172.17.0.2:80"}, {containers[1], "[2001:db8:1::7]:99"}, {containers[1], "192.0.2.7:99"}}
	all := append(append(append(at("8080"), at("8443")...), at("30080")...), inner...)
	for _, s := range all {
		testlab.Eventually(t, 10*time.Second, s.at+" without rules", func() bool { return opens(s.from, s.at) })
	}
	note(t, "%d ways to published ports and between containers, for 3 intents; the rules of Docker, kube-proxy, fail2ban and the old iptables byte for byte as before", len(all))
	before := foreign(t, host)
	for name, in := range map[string]intent.Intent{
		"server":          {Role: intent.RoleServer},
		"kubernetes node": {Role: intent.RoleKubernetesNode},
		"hypervisor":      {Role: intent.RoleHypervisor},
	} {
		yes := true
		in.Interfaces = map[string]intent.Interface{"v0": {Addressing: intent.Static}}
		in.Forwarding = intent.Forwarding{IPv4: &yes, IPv6: &yes, Unmanaged: true}
		in.Services = []intent.Service{{Name: "web", Ports: []string{"tcp/8080"}}, {Name: "node", Ports: []string{"tcp/30000-32767"}, From: prefixes("2001:db8:1::/64", "192.0.2.0/24")}}
		harden(t, host, in)
		if now := foreign(t, host); now != before {
			t.Errorf("%s: others' rules are not what they were:\n%s\nbefore:\n%s", name, now, before)
		}
		for _, s := range all {
			want := true
			switch {
			case strings.HasSuffix(s.at, ":8443") && s.from != containers[1]:
				want = false
			case strings.HasSuffix(s.at, ":30080"):
				want = s.from == outside
			}
			if got := opens(s.from, s.at); got != want {
				t.Errorf("%s: %s from %s is open: %t, want %t", name, s.at, s.from.Name, got, want)
			}
		}
	}
	if now := foreign(t, host); now != before {
		t.Errorf("others' rules are not what they were:\n%s\nbefore:\n%s", now, before)
	}
}

// TestPacketsAsymmetric: requests by one uplink, answers by the other; sources are held to
// the routes unless the intent says that they cannot be.
func TestPacketsAsymmetric(t *testing.T) {
	host, far := testlab.NewNS(t, "asyh"), testlab.NewNS(t, "asyf")
	testlab.Link(host, "v0", far, "a0")
	testlab.Link(host, "v1", far, "a1")
	for i, d := range []string{"0", "1"} {
		host.AddAddr("v"+d, fmt.Sprintf("2001:db8:4%d::1/64", i))
		far.AddAddr("a"+d, fmt.Sprintf("2001:db8:4%d::7/64", i))
		host.IP("addr", "add", fmt.Sprintf("192.0.%d.1/24", i), "dev", "v"+d)
		far.IP("addr", "add", fmt.Sprintf("192.0.%d.7/24", i), "dev", "a"+d)
		for _, k := range []string{"all", "v" + d} {
			host.Sysctl("net/ipv4/conf/"+k+"/rp_filter", "0")
		}
	}
	far.Sysctl("net/ipv4/conf/all/rp_filter", "0")
	far.Sysctl("net/ipv4/conf/a0/rp_filter", "0")
	far.Sysctl("net/ipv4/conf/a1/rp_filter", "0")
	far.AddAddr("lo", "2600:9::1/128")
	far.IP("addr", "add", "203.0.113.1/32", "dev", "lo")
	// The host answers by v1; what comes, comes by v0.
	host.IP("-6", "route", "add", "2600:9::/64", "via", "2001:db8:41::7")
	host.IP("route", "add", "203.0.113.0/24", "via", "192.0.1.7")
	var l net.Listener
	var err error
	host.Do(func() { l, err = net.Listen("tcp", ":80") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	try := func(from, at string) bool {
		var err error
		far.Do(func() {
			d := net.Dialer{Timeout: 500 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			var c net.Conn
			if c, err = d.Dial("tcp", at); err == nil {
				_ = c.Close()
			}
		})
		return err == nil
	}
	note(t, "requests by one uplink and answers by the other, over both families, for server and router: let in with asymmetricRouting alone")
	ways := [][2]string{{"2600:9::1", "[2001:db8:40::1]:80"}, {"203.0.113.1", "192.0.0.1:80"}}
	for _, w := range ways {
		testlab.Eventually(t, 10*time.Second, w[1]+" without rules", func() bool { return try(w[0], w[1]) })
	}
	for _, role := range []intent.Role{intent.RoleServer, intent.RoleRouter} {
		for _, asym := range []bool{false, true} {
			in := intent.Intent{Role: role, Interfaces: map[string]intent.Interface{"v0": {Addressing: intent.Static, AsymmetricRouting: asym}, "v1": {Addressing: intent.Static, AsymmetricRouting: asym}}, Services: []intent.Service{{Name: "web", Ports: []string{"tcp/80"}}}}
			harden(t, host, in)
			for _, w := range ways {
				if got := try(w[0], w[1]); got != asym {
					t.Errorf("%s, asymmetricRouting %t: %s from %s: open %t", role, asym, w[1], w[0], got)
				}
			}
		}
	}
}

// TestPacketsFloods: while the tools that people flood links with run, the host reaches
// its router and its neighbour, and the router and a declared monitor reach the host, from
// scratch each time.
func TestPacketsFloods(t *testing.T) {
	s := newSegment(t, "fl", "mcast_snooping", "0")
	s.static()
	in := intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"eth0": {Addressing: intent.Static, Routers: []intent.Router{router}}}, Services: []intent.Service{ssh()}}
	in.Limits.Exempt = prefixes("2001:db8:1::7/128", "2600:1::1/128")
	harden(t, s.host, in)
	// The others are not under test, and the kernel's table of neighbours is one for all.
	for _, n := range []*testlab.NS{s.router, s.client} {
		var macs []string
		for _, o := range []*testlab.NS{s.host, s.router, s.client} {
			macs = append(macs, strings.TrimSpace(o.Run("cat", "/sys/class/net/eth0/address")))
		}
		load(t, n, "table inet switch { chain p { type filter hook prerouting priority -500; policy accept; iifname eth0 ether saddr != { "+strings.Join(macs, ", ")+" } drop; }; }")
	}
	if !pings(s.host, "2001:db8:1::7") || !pings(s.far, "2001:db8:1::10") {
		t.Fatal("the lab is broken")
	}
	most, tries := 0, 1
	for _, tool := range [][]string{
		{"atk6-flood_advertise6", "eth0"}, {"atk6-flood_solicitate6", "eth0"}, {"atk6-flood_solicitate6", "eth0", "2001:db8:1::10"}, {"atk6-flood_rs6", "eth0"}, {"atk6-flood_router26", "eth0"}, {"atk6-flood_router6", "eth0"},
		{"atk6-flood_mld6", "eth0"}, {"atk6-flood_mld26", "eth0"}, {"atk6-flood_mldrouter6", "eth0"}, {"atk6-flood_redir6", "eth0"}, {"atk6-flood_unreach6", "eth0", "2001:db8:1::10"}, {"atk6-denial6", "eth0", "2001:db8:1::10", "3"},
		{"ns6", "-i", "eth0", "-F", "3000", "-d", "2001:db8:1::10", "-t", "2001:db8:1::10", "-l", "-z", "1"}, {"na6", "-i", "eth0", "-F", "3000", "-d", "2001:db8:1::10", "-t", "fe80::1", "-c", "-o", "-l", "-z", "1"},
	} {
		path := testlab.RequireTool(t, tool[0])
		c := s.attacker.Command("timeout", append([]string{"-s", "KILL", "90", "nice", "-n", "15", path}, tool[1:]...)...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		s.host.IP("-6", "neigh", "flush", "dev", "eth0")
		s.client.IP("-6", "neigh", "flush", "dev", "eth0")
		s.router.IP("-6", "neigh", "flush", "dev", "eth0")
		for _, x := range []struct {
			name string
			ns   *testlab.NS
			to   string
		}{{"the host its router", s.host, "fe80::1%eth0"}, {"the host what is behind the router", s.host, "2600:1::1"}, {"the host a neighbour", s.host, "2001:db8:1::7"}, {"the router the host", s.router, "2001:db8:1::10"}, {"the monitor afar the host", s.far, "2001:db8:1::10"}, {"the monitor on the link the host", s.client, "2001:db8:1::10"}} {
			// A flood also fills queues before any rule is asked: one of many pings must come through.
			ok, asked := false, 0
			for end := time.Now().Add(15 * time.Second); !ok && time.Now().Before(end); asked++ {
				ok = pings(x.ns, x.to)
			}
			if !ok {
				t.Errorf("%v: %s does not reach", tool, x.name)
			} else if asked > 1 {
				t.Logf("%v: %s reaches at attempt %d", tool, x.name, asked)
			}
			tries = max(tries, asked)
		}
		n := neighbours(s.host, "eth0")
		_ = c.Process.Signal(syscall.SIGTERM) // which timeout hands on; what a kill leaves behind floods on
		_ = c.Wait()
		most = max(most, n)
		if n > 900 {
			t.Errorf("%v: %d neighbours", tool, n)
		}
	}
	note(t, "14 floods; router, neighbour and monitors reached and were reached from scratch, at attempt %d at the latest; %d neighbour entries at most", tries, most)
}

// TestPacketsDuplicates: an address that somebody has is still found out, and one that
// nobody has is taken.
func TestPacketsDuplicates(t *testing.T) {
	note(t, "duplicate address detection finds a duplicate, and takes a free address")
	s := newSegment(t, "dup", "mcast_snooping", "0")
	s.static()
	harden(t, s.host, intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"eth0": {Addressing: intent.Static}}, Services: []intent.Service{ssh()}})
	for _, k := range []string{"all", "eth0"} {
		s.host.Sysctl("net/ipv6/conf/"+k+"/accept_dad", "1")
	}
	s.host.IP("-6", "addr", "add", "2001:db8:1::7/64", "dev", "eth0")
	s.host.IP("-6", "addr", "add", "2001:db8:1::77/64", "dev", "eth0")
	testlab.Eventually(t, 20*time.Second, "the duplicate to be found, and the other taken", func() bool {
		x := s.host.IP("-6", "addr", "show", "dev", "eth0")
		return strings.Contains(x, "2001:db8:1::7/64 scope global dadfailed") && strings.Contains(x, "2001:db8:1::77/64 scope global \n")
	})
}
