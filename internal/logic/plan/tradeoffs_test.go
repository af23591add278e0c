package plan

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// TestTradeOffs: what ends is said with when, and what does not end is not said.
func TestTradeOffs(t *testing.T) {
	t.Parallel()
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	host := func() *fact.Snapshot {
		ns := fact.Namespace{
			Name: "init", IsInit: true, IsSelf: true,
			Links: fact.Value([]fact.Link{{Index: 2, Name: "eth0", Type: 1, Flags: 1}, {Index: 3, Name: "lan0", Type: 1, Flags: 1}}),
			Addresses: fact.Value([]fact.Address{
				{Index: 2, Prefix: prefix("2001:db8:1::a/64"), Valid: 7200, Protocol: fromRA},
				{Index: 2, Prefix: prefix("2001:db8:1::7777/64"), Valid: 5000, Protocol: fromRA, Flags: fact.AddrTemporary},
				{Index: 3, Prefix: prefix("2001:db8:2::1/64"), Valid: 3600},
			}),
			Routes: fact.Value([]fact.Route{
				{Family: "ipv6", Dst: prefix("2001:db8:ff::/48"), Type: 1, Table: 254, Protocol: fact.ProtoRA, Expires: fact.Value[int64](900), NextHops: []fact.NextHop{{Index: 2, Via: addr("fe80::1")}}},
				{Family: "ipv6", Dst: prefix("2001:db8:1::/64"), Type: 1, Table: 254, Protocol: 2, Expires: fact.Value[int64](7200), NextHops: []fact.NextHop{{Index: 2}}},
			}),
			Sysctls: fact.Value(fact.Sysctls{Values: map[string]string{
				"net/ipv4/ip_forward": "1", conf6 + "all/forwarding": "1", conf6 + "eth0/use_tempaddr": "2", conf6 + "eth0/accept_ra": "1", conf6 + "lan0/accept_ra": "1",
			}}),
		}
		return &fact.Snapshot{Namespaces: []fact.Namespace{ns}}
	}
	yes := true
	for name, c := range map[string]struct {
		role intent.Role
		of   intent.Addressing
		fwd  intent.Forwarding
		want map[string]string // evidence by risk; empty: there is none
	}{
		"slaac": {intent.RoleServer, intent.SLAAC, intent.Forwarding{}, map[string]string{
			"temporary-addresses-end": "2001:db8:1::7777/64 on eth0: in 83 minutes", "ra-routes-expire": "2001:db8:ff::/48 via fe80::1 dev eth0: in 15 minutes", "program-addresses": "2001:db8:2::1/64 on lan0: in 60 minutes",
			"ra-addresses-expire": "", "forwarding-ends": "net/ipv4/ip_forward = 1; net/ipv6/conf/all/forwarding = 1",
		}},
		"static": {intent.RoleServer, intent.Static, intent.Forwarding{IPv4: &yes, IPv6: &yes, Unmanaged: true}, map[string]string{
			"ra-addresses-expire": "2001:db8:1::a/64 on eth0: in 2 hours", "ra-routes-expire": "2001:db8:ff::/48 via fe80::1 dev eth0: in 15 minutes; 2001:db8:1::/64 dev eth0: in 2 hours", "forwarding-ends": "",
		}},
		"workstation": {intent.RoleWorkstation, intent.SLAAC, intent.Forwarding{}, map[string]string{"temporary-addresses-end": "", "forwarding-ends": ""}},
	} {
		p := New(intent.Intent{Role: c.role, Interfaces: map[string]intent.Interface{
			"eth0": {Addressing: c.of, Routers: []intent.Router{{Address: addr("fe80::1")}}}, "lan0": {Addressing: intent.Static},
		}, Forwarding: c.fwd}, host(), Options{})
		for id, want := range c.want {
			i := slices.IndexFunc(p.Risks, func(r change.Risk) bool { return r.ID == id })
			switch {
			case i < 0 && want != "":
				t.Errorf("%s: nothing is said of %s", name, id)
			case i >= 0 && (want == "" || strings.Join(p.Risks[i].Evidence, "; ") != want):
				t.Errorf("%s: %s: %q, want %q", name, id, p.Risks[i].Evidence, want)
			}
		}
	}
}

// TestWhoIsBelieved: what a host cannot know of its routers depends on who listens.
func TestWhoIsBelieved(t *testing.T) {
	t.Parallel()
	r := intent.Router{Address: netip.MustParseAddr("fe80::1"), Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64")}}
	for _, c := range []struct {
		manager, mac string
		want, not    []string
	}{
		{"", "52:54:00:00:00:01", []string{"router-forged", "prefixes-not-held: eth0: the kernel takes any prefix that fe80::1 sends"}, []string{"router-without-mac"}},
		{"systemd-networkd", "52:54:00:00:00:01", []string{"router-forged"}, []string{"prefixes-not-held", "router-without-mac"}},
		{"dhcpcd", "", []string{"router-without-mac: fe80::1 on eth0", "prefixes-not-held: eth0: dhcpcd takes any"}, []string{"router-forged"}},
	} {
		x := r
		x.MAC = c.mac
		in := &intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"eth0": {Addressing: intent.SLAAC, Routers: []intent.Router{x}}}}
		s := hostOf(in, "eth0", fact.Manager{Name: c.manager, Running: fact.Value(c.manager != ""), Interfaces: []fact.ManagedInterface{{Names: []string{"*"}, InUserspace: c.manager != "", AcceptRA: fact.Value(true)}}})
		b := &builder{site: s, p: &change.Plan{}}
		b.believed()
		var got []string
		for _, x := range b.p.Risks {
			got = append(got, x.ID+": "+strings.Join(x.Evidence, "; "))
		}
		text := strings.Join(got, "\n")
		for _, w := range c.want {
			if !strings.Contains(text, w) {
				t.Errorf("%q: no %q in\n%s", c.manager, w, text)
			}
		}
		for _, w := range c.not {
			if strings.Contains(text, w) {
				t.Errorf("%q: %q in\n%s", c.manager, w, text)
			}
		}
	}
}
