package prove_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sixfence/sixfence/internal/engine/prove"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/testlab"
	"github.com/sixfence/sixfence/internal/testlab/hostview"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

const routerMAC = "52:54:00:00:00:01"

var router = intent.Router{Address: addr("fe80::1"), MAC: routerMAC}

// host is a namespace like a server's: a link with a default route, and another.
func host(t testing.TB, hint string) *testlab.NS {
	t.Helper()
	v, far := testlab.NewNS(t, hint+"v"), testlab.NewNS(t, hint+"a")
	testlab.Link(v, "v0", far, "a0")
	testlab.Link(v, "v1", far, "a1")
	v.AddAddr("v0", "2001:db8:1::10/64")
	v.AddAddr("v1", "2001:db8:2::10/64")
	v.IP("addr", "add", "192.0.2.10/24", "dev", "v0")
	v.IP("addr", "add", "198.51.100.10/24", "dev", "v1")
	v.IP("-6", "route", "add", "default", "via", "fe80::1", "dev", "v0")
	v.IP("route", "add", "default", "via", "192.0.2.1", "dev", "v0")
	v.IP("-6", "neigh", "add", "fe80::1", "lladdr", routerMAC, "dev", "v0", "nud", "permanent")
	return v
}

func planFor(t testing.TB, in intent.Intent, s *fact.Snapshot, ways ...change.Way) *change.Plan {
	t.Helper()
	p := plan.New(in, s, plan.Options{Namespace: s.Namespaces[0].Name, Decode: hostview.Decode, Administered: ways})
	if len(p.Refusals) > 0 {
		t.Fatalf("the plan is refused: %+v", p.Refusals)
	}
	return &p
}

// proof fires at a plan.
func proof(t testing.TB, p *change.Plan, s *fact.Snapshot) *change.Proof {
	t.Helper()
	pr := prove.Start(nil)
	defer pr.Close()
	return pr.Prove(context.Background(), p, s, &s.Namespaces[0])
}

func ssh() intent.Service {
	return intent.Service{Name: "ssh", Ports: []string{"tcp/22"}, From: prefixes("2001:db8:1::/64", "203.0.113.0/24", "2001:db8:aa::/48")}
}

func web() intent.Service {
	return intent.Service{Name: "web", Ports: []string{"tcp/80", "tcp/443", "udp/443", "tcp/8000-8010"}}
}

func one(a intent.Addressing, routers ...intent.Router) map[string]intent.Interface {
	return map[string]intent.Interface{"v0": {Addressing: a, Routers: routers}}
}

// profiles are what `harden init` knows hosts to be, and more.
func profiles() map[string]intent.Intent {
	yes := true
	dhcp := one(intent.DHCPv6, router)
	d := dhcp["v0"]
	d.DHCPv6Servers = []intent.DHCPv6Server{{Address: addr("fe80::1")}}
	dhcp["v0"] = d
	return map[string]intent.Intent{
		"static-server": {Role: intent.RoleServer, Interfaces: one(intent.Static), Services: []intent.Service{ssh(), web()}, Logging: intent.Logging{Dropped: true}},
		"slaac-vm":      {Role: intent.RoleServer, Interfaces: one(intent.SLAAC, router), Services: []intent.Service{ssh(), {Name: "dns", Ports: []string{"udp/53", "tcp/53"}, Families: []string{"ipv6"}}}},
		"router": {
			Role: intent.RoleRouter, Interfaces: map[string]intent.Interface{"v0": {Addressing: intent.Static}, "v1": {Addressing: intent.Static}}, Services: []intent.Service{ssh()},
			Forwarding: intent.Forwarding{Allow: []intent.Flow{{InInterface: "v0", OutInterface: "v1", Ports: []string{"tcp/25"}}}},
		},
		"kubernetes-node": {Role: intent.RoleKubernetesNode, Interfaces: one(intent.SLAAC, router), Forwarding: intent.Forwarding{IPv4: &yes, IPv6: &yes, Unmanaged: true}, Services: []intent.Service{ssh(), {Name: "kubelet", Ports: []string{"tcp/10250"}, From: prefixes("2001:db8:1::/64")}}},
		"hypervisor":      {Role: intent.RoleHypervisor, Interfaces: one(intent.Static), Forwarding: intent.Forwarding{Unmanaged: true}, Services: []intent.Service{ssh()}},
		"container-host": {Role: intent.RoleServer, Interfaces: one(intent.Static), Forwarding: intent.Forwarding{IPv4: &yes, IPv6: &yes, Unmanaged: true}, Services: []intent.Service{
			web(), {Name: "here", Ports: []string{"tcp/9000"}, To: prefixes("2001:db8:1::10/128"), Interfaces: []string{"v0"}},
		}},
		"ipv4-only":    {Role: intent.RoleServer, Families: intent.DisabledKeepLoopback, Services: []intent.Service{web(), ssh()}},
		"dhcpv6":       {Role: intent.RoleServer, Interfaces: dhcp, Services: []intent.Service{web()}},
		"ipv6 managed": {Role: intent.RoleServer, Firewall: intent.Firewall{Manage: intent.ManageIPv6}, Interfaces: one(intent.SLAAC, router), Services: []intent.Service{web()}},
		"ipv6 only":    {Role: intent.RoleServer, Families: intent.IPv6Only, Interfaces: one(intent.Static), Services: []intent.Service{web()}},
		"everybody, by name": {Role: intent.RoleServer, Interfaces: one(intent.Static), Services: []intent.Service{
			{Name: "wide", Ports: []string{"tcp/5432"}, From: prefixes("192.0.2.30/31", "::/0")}, {Name: "web", Ports: []string{"tcp/80"}, From: prefixes("0.0.0.0/0", "2001:db8:1::/64")},
		}},
		"workstation": {Role: intent.RoleWorkstation, Interfaces: one(intent.SLAAC, intent.Router{Address: addr("fe80::1")}), Services: []intent.Service{{Name: "x", Ports: []string{"proto/47", "tcp/22"}}}},
		"egress deny": {Role: intent.RoleServer, Interfaces: one(intent.Static), Services: []intent.Service{ssh()}, Egress: intent.Egress{
			Metadata: "deny",
			IPv6:     intent.EgressFamily{Default: "deny", Allow: []intent.Destination{{To: prefixes("2600:1::/64"), Ports: []string{"udp/4433"}}}}, IPv4: intent.EgressFamily{Default: "deny"},
		}},
	}
}

func report(t testing.TB, p *change.Proof) {
	t.Helper()
	t.Logf("%s: %d shots, %d through, %d stopped; %v; %s; limits %q; together %q, not %q; held %d", p.Status, p.Shots, p.Through, p.Stopped, p.Interfaces, p.Reason, p.Limits, p.Together, p.NotTogether, len(p.Held))
	for i, f := range p.Failures {
		if i < 20 {
			t.Logf("  %s %s: %s: %s, ought: %s: %s", f.Interface, f.Group, f.Shot, f.Observed, f.Expected, f.Packet)
		}
	}
}

// TestGoodPlans: what is planned for every profile does what its intent says.
func TestGoodPlans(t *testing.T) {
	v := host(t, "good")
	s := hostview.Snapshot(t, v)
	for name, in := range profiles() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := planFor(t, in, s)
			got := proof(t, p, s)
			if got.Status != change.Proven || got.Shots < 100 || got.Through == 0 || got.Stopped == 0 {
				t.Error("not proven")
			}
			report(t, got)
		})
	}
}

// TestGoodPlanOfABridge: a bridge that snoops stops some packets by itself, on every
// host with containers, and what is passed on to one is routed.
func TestGoodPlanOfABridge(t *testing.T) {
	t.Parallel()
	v, far := testlab.NewNS(t, "bridgev"), testlab.NewNS(t, "bridgea")
	testlab.Link(v, "v0", far, "a0")
	testlab.Link(v, "port0", far, "guest0")
	v.IP("link", "add", "docker0", "type", "bridge", "mcast_snooping", "1")
	v.IP("link", "set", "port0", "master", "docker0")
	v.IP("link", "set", "docker0", "up")
	v.AddAddr("v0", "2001:db8:1::10/64")
	v.AddAddr("docker0", "fd00:1::1/64")
	v.IP("addr", "add", "192.0.2.10/24", "dev", "v0")
	v.IP("addr", "add", "172.17.0.1/16", "dev", "docker0")
	v.IP("-6", "route", "add", "default", "via", "2001:db8:1::1", "dev", "v0")
	v.Sysctl("net/ipv6/conf/all/forwarding", "1")
	f := filepath.Join(t.TempDir(), "nat")
	if err := os.WriteFile(f, []byte(`table ip6 nat {
	chain pre { type nat hook prerouting priority dstnat;
		iifname != "docker0" fib daddr type local tcp dport 443 dnat to [fd00:1::2]:443
	}
}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	v.Run(testlab.RequireTool(t, "nft"), "-f", f)
	s := hostview.Snapshot(t, v)
	got := proof(t, planFor(t, intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"v0": {Addressing: intent.Static}, "docker0": {Addressing: intent.Static}}, Services: []intent.Service{web()}, Forwarding: intent.Forwarding{Unmanaged: true}}, s), s)
	if got.Status != change.Proven || !slices.Contains(got.Interfaces, "docker0") {
		t.Error("not proven")
	}
	report(t, got)
}

// BenchmarkProof is a proof of a typical server's plan, from the start of the namespaces
// to their end. docs/performance.md has its number.
func BenchmarkProof(b *testing.B) {
	v := host(b, "bench")
	s := hostview.Snapshot(b, v)
	p := planFor(b, profiles()["static-server"], s)
	for b.Loop() {
		if got := proof(b, p, s); got.Status != change.Proven {
			report(b, got)
			b.Fatal("not proven")
		}
	}
}
