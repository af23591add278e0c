package plan_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/attack"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// randomIntent is an intent that nobody wrote.
func randomIntent(r *rand.Rand) intent.Intent {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	some := func() []netip.Prefix {
		if r.IntN(2) == 0 {
			return nil
		}
		var out []netip.Prefix
		for range 1 + r.IntN(4) {
			out = append(out, netip.MustParsePrefix(pick("2001:db8:1::/64", "2001:db8:1::7/128", "fe80::/10", "2600::/16", "2600:1::/32", "::/0", "192.0.2.0/24", "192.0.2.7/32", "203.0.113.0/24", "0.0.0.0/0", "198.51.100.0/25")))
		}
		return out
	}
	in := intent.Intent{Role: intent.Role(pick("server", "router", "kubernetes-node", "hypervisor", "workstation")), Families: intent.Families(pick("", "dual-stack", "dual-stack", "ipv6-only", "disabled")), Firewall: intent.Firewall{Manage: intent.Manage(pick("", "both", "both", "ipv6"))}}
	i := intent.Interface{Addressing: intent.Addressing(pick("static", "slaac", "dhcpv6", "none"))}
	for range r.IntN(3) {
		x := intent.Router{Address: netip.MustParseAddr(pick("fe80::1", "fe80::2"))}
		if r.IntN(2) == 0 {
			x.MAC = routerMAC.String()
		}
		if len(i.Routers) == 0 || i.Routers[0].Address != x.Address {
			i.Routers = append(i.Routers, x)
		}
	}
	if r.IntN(3) == 0 {
		i.DHCPv6Servers = []intent.DHCPv6Server{{Address: netip.MustParseAddr(pick("fe80::1", "fe80::666"))}}
	}
	in.Interfaces = map[string]intent.Interface{"v0": i}
	if r.IntN(2) == 0 {
		in.Interfaces["v*"] = intent.Interface{Addressing: intent.SLAAC, Routers: []intent.Router{{Address: netip.MustParseAddr("fe80::666")}}}
	}
	for n := range r.IntN(6) {
		v := intent.Service{Name: fmt.Sprintf("s%d", n), From: some()}
		for range 1 + r.IntN(3) {
			v.Ports = append(v.Ports, pick("tcp/22", "tcp/80", "tcp/443", "udp/53", "tcp/1-1024", "udp/400-500", "tcp/9000-9010", "udp/443", "esp", "proto/112", "tcp/1-65535"))
		}
		switch r.IntN(6) {
		case 0:
			v.Families = []string{pick("ipv4", "ipv6")}
		case 1:
			v.Interfaces = []string{"v0"}
		case 2:
			v.To = []netip.Prefix{netip.MustParsePrefix(pick("2001:db8:1::10/128", "192.0.2.10/32", "fe80::/10", "2001:db8:2::/64"))}
		}
		in.Services = append(in.Services, v)
	}
	in.Logging.Dropped = r.IntN(2) == 0
	if r.IntN(3) == 0 {
		in.Egress.Metadata = pick("root", "deny", "allow")
	}
	if r.IntN(3) == 0 {
		in.Forwarding.Allow = []intent.Flow{{InInterface: "v0", From: some(), Ports: []string{pick("tcp/25", "udp/1-100")}}}
	}
	return in
}

// TestRandomIntents fires the corpus at rules of intents that nobody has looked at.
// SIXFENCE_INTENTS is how many, SIXFENCE_SEED where they begin.
func TestRandomIntents(t *testing.T) {
	n, seed := 8, 1
	if v, err := strconv.Atoi(os.Getenv("SIXFENCE_INTENTS")); err == nil {
		n = v
	}
	if v, err := strconv.Atoi(os.Getenv("SIXFENCE_SEED")); err == nil {
		seed = v
	}
	f := newFiring(t, "rnd")
	total, wrong := 0, 0
	for i := range n {
		in := randomIntent(rand.New(rand.NewPCG(uint64(seed), uint64(i))))
		load(t, f.Victim, rulesOf(t, in))
		f.r.Open.Local, f.r.Open.Remote = netip.AddrPort{}, netip.AddrPort{}
		if in.Families != intent.Disabled {
			f.begin(t)
		}
		shots := attack.Corpus(&in, f.r)
		seen := f.fire(t, shots)
		for _, s := range shots {
			total++
			if seen[s.ID] != s.Pass {
				if wrong++; wrong < 20 {
					t.Errorf("seed %d, intent %d: %s: came through: %t, want %t", seed, i, s.Name, seen[s.ID], s.Pass)
				}
			}
		}
	}
	t.Logf("%d intents, %d shots, %d wrong", n, total, wrong)
}
