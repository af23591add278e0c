package plan_test

import (
	"encoding/json"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/logic/attack"
	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/testlab"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

var (
	routerMAC = ndisc.MAC{0x52, 0x54, 0, 0, 0, 1}
	router    = intent.Router{Address: addr("fe80::1"), MAC: "52:54:00:00:00:01"}
)

// firing is a host with a link to attackers and another to somewhere else.
type firing struct {
	*testlab.Pair
	r attack.Range
}

// witness sees what comes through to the host, whatever our rules say before.
const witness = `table inet witness {
	set seen6 { typeof ip6 flowlabel; size 65535; flags dynamic; }
	set seen4 { typeof ip id; size 65535; flags dynamic; }
	chain input { type filter hook input priority 300; policy accept; iifname "lo" accept; meta nfproto ipv6 add @seen6 { ip6 flowlabel }; meta nfproto ipv4 add @seen4 { ip id }; }
}
`

func newFiring(t *testing.T, hint string) *firing {
	t.Helper()
	f := &firing{Pair: testlab.NewPair(t, hint, "net/ipv6/conf/default/accept_ra=0", "net/ipv4/conf/default/rp_filter=0", "net/ipv4/conf/all/rp_filter=0")}
	v := f.Victim
	testlab.Link(v, "v1", f.Attacker, "a1")
	v.AddAddr("v0", "2001:db8:1::10/64")
	v.AddAddr("v1", "2001:db8:2::10/64")
	v.IP("addr", "add", "192.0.2.10/24", "dev", "v0")
	v.IP("addr", "add", "198.51.100.10/24", "dev", "v1")
	v.IP("-6", "route", "add", "default", "via", "fe80::1", "dev", "v0")
	v.IP("route", "add", "default", "via", "192.0.2.1", "dev", "v0")
	// What the host sends must find its router, or it answers itself that it cannot.
	v.IP("-6", "neigh", "add", "fe80::1", "lladdr", routerMAC.String(), "dev", "v0", "nud", "permanent")
	v.IP("neigh", "add", "192.0.2.1", "lladdr", routerMAC.String(), "dev", "v0", "nud", "permanent")
	neighbour := ndisc.MAC{0x52, 0x54, 0, 0, 0, 7}
	f.r = attack.Range{
		Interface: "v0",
		Host:      attack.Peer{MAC: f.VictimMAC, LL: f.VictimLL, Global: addr("2001:db8:1::10"), Address: addr("192.0.2.10")},
		Router:    attack.Peer{MAC: routerMAC, LL: addr("fe80::1"), Global: addr("2001:db8:1::1"), Address: addr("192.0.2.1")},
		Neighbour: attack.Peer{MAC: neighbour, LL: testlab.LinkLocal(neighbour), Global: addr("2001:db8:1::7"), Address: addr("192.0.2.7")},
		Rogue:     attack.Peer{MAC: f.Wire.MAC, LL: addr("fe80::666"), Global: addr("2001:db8:1::666"), Address: addr("192.0.2.66")},
		Far:       addr("2600:1::1"), Far4: addr("203.0.113.9"), Elsewhere: addr("2001:db8:2::5"), Elsewhere4: addr("198.51.100.5"),
	}
	load(t, v, witness)
	return f
}

// load loads an nft script.
func load(t *testing.T, n *testlab.NS, script string) {
	t.Helper()
	c := n.Command(testlab.RequireTool(t, "nft"), "-f", "-")
	c.Stdin = strings.NewReader(script)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s\n%s", err, out, script)
	}
}

// begin starts a UDP flow to Far, so that errors about it are real.
func (f *firing) begin(t *testing.T) {
	t.Helper()
	f.Victim.Do(func() {
		c, err := net.Dial("udp", netip.AddrPortFrom(f.r.Far, 4433).String())
		if err != nil {
			t.Errorf("dial: %v", err)
			return
		}
		t.Cleanup(func() { _ = c.Close() })
		_, _ = c.Write([]byte("x"))
		f.r.Open.Local, f.r.Open.Remote = netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(c.RemoteAddr().String())
	})
}

// fire sends shots and says which came through.
func (f *firing) fire(t *testing.T, shots []attack.Shot) map[uint32]bool {
	t.Helper()
	for _, set := range []string{"seen6", "seen4"} {
		f.Victim.Run("nft", "flush", "set", "inet", "witness", set)
	}
	for _, s := range shots {
		f.Wire.Send(s.Frames...)
	}
	// What comes last has found everything before it handled: one queue, one CPU at a time.
	last := ndisc.Frame{SrcMAC: f.r.Neighbour.MAC, DstMAC: f.r.Host.MAC, Src: f.r.Neighbour.LL, Dst: f.r.Host.LL, FlowLabel: 0xfffff}.UDP(9, 9, nil)
	deadline := time.Now().Add(10 * time.Second)
	load(t, f.Victim, "table inet sentinel { chain i { type filter hook prerouting priority -500; policy accept; ip6 flowlabel 0xfffff counter; }; }")
	for {
		f.Wire.Send(last.Bytes())
		if !strings.Contains(f.Victim.Run("nft", "list", "table", "inet", "sentinel"), "packets 0 ") || time.Now().After(deadline) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	f.Victim.Run("nft", "delete", "table", "inet", "sentinel")
	time.Sleep(20 * time.Millisecond)
	seen := map[uint32]bool{}
	six, four := f.seen(t, "seen6"), f.seen(t, "seen4")
	for _, s := range shots {
		seen[s.ID] = !s.IPv4 && six[s.ID] || s.IPv4 && four[s.ID]
	}
	return seen
}

func (f *firing) seen(t *testing.T, set string) map[uint32]bool {
	t.Helper()
	var doc struct {
		NFTables []struct {
			Set struct{ Elem []json.RawMessage }
		}
	}
	if err := json.Unmarshal([]byte(f.Victim.Run("nft", "-j", "list", "set", "inet", "witness", set)), &doc); err != nil {
		t.Fatal(err)
	}
	out := map[uint32]bool{}
	for _, x := range doc.NFTables {
		for _, e := range x.Set.Elem {
			n, err := strconv.ParseUint(string(e), 10, 32)
			if err != nil {
				t.Fatalf("element %s", e)
			}
			out[uint32(n)] = true
		}
	}
	return out
}

// rulesOf are the rules that export writes for an intent.
func rulesOf(t *testing.T, in intent.Intent) string {
	t.Helper()
	files, err := plan.Export(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name == "nftables.conf" {
			return f.Text
		}
	}
	return ""
}

func ssh() intent.Service {
	return intent.Service{Name: "ssh", Ports: []string{"tcp/22"}, From: prefixes("2001:db8:1::/64", "203.0.113.0/24")}
}

func web() intent.Service {
	return intent.Service{Name: "web", Ports: []string{"tcp/80", "tcp/443", "udp/443", "tcp/8000-8010"}}
}

func one(a intent.Addressing, routers ...intent.Router) map[string]intent.Interface {
	return map[string]intent.Interface{"v0": {Addressing: a, Routers: routers}}
}

// intents are the hosts that are fired at.
func intents() map[string]intent.Intent {
	yes := true
	dhcp := one(intent.DHCPv6, router)
	d := dhcp["v0"]
	d.DHCPv6Servers = []intent.DHCPv6Server{{Address: addr("fe80::1")}}
	dhcp["v0"] = d
	return map[string]intent.Intent{
		"static server":  {Role: intent.RoleServer, Interfaces: one(intent.Static), Services: []intent.Service{ssh(), web()}, Logging: intent.Logging{Dropped: true}},
		"slaac":          {Role: intent.RoleServer, Interfaces: one(intent.SLAAC, router), Services: []intent.Service{ssh(), {Name: "dns", Ports: []string{"udp/53", "tcp/53"}, Families: []string{"ipv6"}}}},
		"slaac, any MAC": {Role: intent.RoleWorkstation, Interfaces: one(intent.SLAAC, intent.Router{Address: addr("fe80::1")}), Services: []intent.Service{{Name: "x", Ports: []string{"proto/47", "tcp/22"}}}},
		"dhcpv6":         {Role: intent.RoleServer, Interfaces: dhcp, Services: []intent.Service{web()}},
		"router": {
			Role: intent.RoleRouter, Interfaces: map[string]intent.Interface{"v0": {Addressing: intent.Static}, "v1": {Addressing: intent.Static}}, Services: []intent.Service{ssh()},
			Forwarding: intent.Forwarding{Allow: []intent.Flow{{InInterface: "v0", OutInterface: "v1", Ports: []string{"tcp/25"}}}},
		},
		"ipv4 only":             {Role: intent.RoleServer, Families: intent.Disabled, Services: []intent.Service{web(), ssh()}},
		"ipv4 only, but for lo": {Role: intent.RoleServer, Families: intent.DisabledKeepLoopback, Firewall: intent.Firewall{Manage: intent.ManageIPv6}},
		"ipv6 managed":          {Role: intent.RoleServer, Firewall: intent.Firewall{Manage: intent.ManageIPv6}, Interfaces: one(intent.SLAAC, router), Services: []intent.Service{web()}},
		"ipv6 only":             {Role: intent.RoleServer, Families: intent.IPv6Only, Interfaces: one(intent.Static), Services: []intent.Service{web()}},
		"tunnels of one family": {Role: intent.RoleServer, Interfaces: one(intent.Static), Tunnels: intent.Tunnels{Policy: intent.TunnelsList, List: []intent.Tunnel{{Mechanism: "ip6tnl"}, {Mechanism: "gre"}}}},
		"6in4 with anybody":     {Role: intent.RoleServer, Interfaces: one(intent.Static), Tunnels: intent.Tunnels{Policy: intent.TunnelsList, List: []intent.Tunnel{{Mechanism: "6in4"}}}},
		"a pinned gateway":      {Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"v0": {Addressing: intent.Static, Routers: []intent.Router{router}, PinGateway: true}}, Services: []intent.Service{web()}},
		"one name of a glob": {
			Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"v*": {Addressing: intent.DHCPv6, Routers: []intent.Router{router}, AsymmetricRouting: true}, "v0": {Addressing: intent.Static}},
			Services: []intent.Service{{Name: "there", Ports: []string{"tcp/9100"}, Interfaces: []string{"v*"}}, {Name: "here", Ports: []string{"tcp/443"}, Interfaces: []string{"v0"}}},
		},
		"container host": {Role: intent.RoleServer, Interfaces: one(intent.Static), Forwarding: intent.Forwarding{IPv4: &yes, IPv6: &yes, Unmanaged: true}, Services: []intent.Service{
			web(),
			{Name: "here", Ports: []string{"tcp/9000"}, To: prefixes("2001:db8:1::10/128"), Interfaces: []string{"v0"}},
		}},
		"egress deny": {Role: intent.RoleServer, Interfaces: one(intent.Static), Services: []intent.Service{ssh()}, Egress: intent.Egress{
			Metadata: "root",
			IPv6:     intent.EgressFamily{Default: "deny", Allow: []intent.Destination{{To: prefixes("2600:1::/64"), Ports: []string{"udp/4433"}}}}, IPv4: intent.EgressFamily{Default: "deny"},
		}},
	}
}

// TestPackets fires at every kind of host and compares with what its intent says.
func TestPackets(t *testing.T) {
	f := newFiring(t, "fire")
	for name, in := range intents() {
		t.Run(name, func(t *testing.T) {
			rules := rulesOf(t, in)
			load(t, f.Victim, rules)
			if in.Families != intent.Disabled && in.Families != intent.DisabledKeepLoopback {
				f.begin(t)
			} else {
				f.r.Open.Local, f.r.Open.Remote = netip.AddrPort{}, netip.AddrPort{}
			}
			shots := attack.Corpus(&in, f.r)
			seen := f.fire(t, shots)
			passed := 0
			for _, s := range shots {
				if seen[s.ID] {
					passed++
				}
				if seen[s.ID] != s.Pass {
					t.Errorf("%s (%d): came through: %t, want %t", s.Name, s.ID, seen[s.ID], s.Pass)
				}
			}
			t.Logf("%d shots, %d came through", len(shots), passed)
			if t.Failed() {
				t.Log(f.Victim.Run("nft", "list", "table", "inet", "sixfence"))
			}
			load(t, f.Victim, "delete table inet sixfence")
			// Without rules all of them come through, but for what the kernel refuses:
			// the shots are real.
			seen = f.fire(t, shots)
			for _, s := range shots {
				if seen[s.ID] == s.Refused {
					t.Errorf("without rules: %s: came through: %t, the kernel refuses it: %t", s.Name, seen[s.ID], s.Refused)
				}
			}
		})
	}
}
