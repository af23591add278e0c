package intent

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sixfence/sixfence/internal/model/fact"
)

func TestParsePort(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]Port{
		"tcp/22":        {6, "tcp", 22, 22},
		"udp/1000-2000": {17, "udp", 1000, 2000},
		"sctp/1-65535":  {132, "sctp", 1, 65535},
		"udplite/7":     {136, "udplite", 7, 7},
		"esp":           {Proto: 50, Name: "esp"},
		"vrrp":          {Proto: 112, Name: "vrrp"},
		"proto/112":     {Proto: 112, Name: "112"},
	} {
		got, err := ParsePort(s)
		if err != nil || got != want || got.String() != s {
			t.Errorf("%s: %+v %q, %v", s, got, got, err)
		}
	}
	for s, want := range map[string]string{
		"22": "TCP port, a UDP port", "80-90": "TCP port", "": "no port", "tcp": "needs a port", "tcp/": "no port of tcp", "tcp/0": "no port of tcp",
		"tcp/65536": "no port of tcp", "tcp/022": "no port of tcp", "tcp/+22": "no port of tcp", "tcp/9-3": "ends before", "tcp/1-2-3": "no port of tcp", "tcp/ssh": "no port of tcp",
		"22/tcp": "protocol last", "icmpv6": "no service", "proto/58": "no service", "proto/6": "needs a port", "proto/43": "extension header", "proto/256": "no protocol number",
		"proto/0112": "no protocol number", "TCP/22": "no protocol with ports", "xyz/1": "no protocol with ports", "tcp/22 ": "no port of tcp",
	} {
		_, err := ParsePort(s)
		var p *PortError
		if !errors.As(err, &p) || !strings.Contains(p.Why, want) || p.Hint == "" {
			t.Errorf("%q: %v (%+v), want %q and a hint", s, err, p, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.StringMatching(`(tcp|udp|proto|esp)(/[0-9]{1,5}(-[0-9]{1,5})?)?`)).Draw(t, "s")
		want := s
		if from, to, _ := strings.Cut(s, "-"); to != "" && strings.HasSuffix(from, "/"+to) {
			want = from // a range of one port
		}
		if p, err := ParsePort(s); err == nil && p.String() != want {
			t.Fatalf("%q is %+v, which is written %q", s, p, p.String())
		}
	})
}

func TestTunnelsKeepTheFormOfTheFile(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Tunnels{
		`"deny"`:  {Policy: TunnelsDeny},
		`"allow"`: {Policy: TunnelsAllow},
		`[]`:      {Policy: TunnelsList, List: []Tunnel{}},
		`[{"mechanism":"vxlan","peer":"192.0.2.0/24"}]`: {Policy: TunnelsList, List: []Tunnel{{Mechanism: "vxlan", Peer: netip.MustParsePrefix("192.0.2.0/24")}}},
	} {
		var got Tunnels
		if err := json.Unmarshal([]byte(text), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if b, err := json.Marshal(got); err != nil || string(b) != text {
			t.Errorf("%s became %s, %v", text, b, err)
		}
	}
}

func TestHashSeesMeaningOnly(t *testing.T) {
	t.Parallel()
	a := Intent{APIVersion: Version, Role: RoleServer, Interfaces: map[string]Interface{"a": {Addressing: Static}, "b": {Addressing: SLAAC}}}
	b := Intent{APIVersion: Version, Role: RoleServer, Interfaces: map[string]Interface{"b": {Addressing: SLAAC}, "a": {Addressing: Static}}}
	x, err := a.Hash()
	y, err2 := b.Hash()
	if err != nil || err2 != nil || x != y || len(x) != 64 {
		t.Errorf("%s %s %v %v", x, y, err, err2)
	}
	b.Role = RoleRouter
	if z, _ := b.Hash(); z == x {
		t.Error("another role has the same hash")
	}
}

func machine(links ...fact.Link) *fact.Namespace {
	for i := range links {
		links[i].Index = i + 1
	}
	return &fact.Namespace{Name: "init", Links: fact.Value(links), Routes: fact.Value([]fact.Route{
		{Family: "ipv6", Dst: netip.MustParsePrefix("::/0"), Type: 1, Table: 254, NextHops: []fact.NextHop{{Index: 2}}},
		{Family: "ipv4", Dst: netip.MustParsePrefix("192.0.2.0/24"), Type: 1, Table: 254, NextHops: []fact.NextHop{{Index: 3}}},
	})}
}

func TestSelect(t *testing.T) {
	t.Parallel()
	n := func() *fact.Namespace {
		return machine(fact.Link{Name: "lo", Flags: iffLoopback}, fact.Link{Name: "eth0", MAC: "52:54:00:00:00:01", Driver: fact.Value("virtio_net")},
			fact.Link{Name: "eth1", AltNames: []string{"enp1s0"}, Driver: fact.Value("e1000e")}, fact.Link{Name: "docker0", Kind: "bridge"})
	}
	static, slaac, none := Interface{Addressing: Static}, Interface{Addressing: SLAAC}, Interface{Addressing: NoIPv6}
	with := func(i Interface, m Match) Interface { i.Match = m; return i }
	for name, c := range map[string]struct {
		in   map[string]Interface
		want map[string]string
		say  string // part of what else is said
	}{
		"key is the name":          {map[string]Interface{"eth0": static}, map[string]string{"eth0": "eth0"}, "unselected docker0 eth1"},
		"key is a glob":            {map[string]Interface{"eth*": static}, map[string]string{"eth0": "eth*", "eth1": "eth*"}, ""},
		"alternative name":         {map[string]Interface{"enp*": static}, map[string]string{"eth1": "enp*"}, ""},
		"name beats glob":          {map[string]Interface{"eth*": static, "eth0": slaac}, map[string]string{"eth0": "eth0", "eth1": "eth*"}, ""},
		"longer glob beats glob":   {map[string]Interface{"*": none, "eth?": slaac}, map[string]string{"eth0": "eth?", "eth1": "eth?", "docker0": "*"}, ""},
		"mac beats name":           {map[string]Interface{"m": with(slaac, Match{MAC: "52:54:00:00:00:01"}), "eth0": static}, map[string]string{"eth0": "m"}, "unselected docker0 eth1"},
		"driver":                   {map[string]Interface{"v": with(slaac, Match{Driver: "virtio*"}), "b": with(none, Match{Driver: "bridge"})}, map[string]string{"eth0": "v", "docker0": "b"}, ""},
		"role":                     {map[string]Interface{"up": with(slaac, Match{Role: DefaultRoute}), "*": none}, map[string]string{"eth0": "up", "eth1": "*", "docker0": "*"}, ""},
		"role beats glob":          {map[string]Interface{"up": with(slaac, Match{Role: DefaultRoute}), "eth*": none}, map[string]string{"eth0": "up", "eth1": "eth*"}, ""},
		"name beats role":          {map[string]Interface{"up": with(slaac, Match{Role: DefaultRoute}), "eth0": none}, map[string]string{"eth0": "eth0"}, ""},
		"role where nothing else":  {map[string]Interface{"up": with(slaac, Match{Role: DefaultRoute})}, map[string]string{"eth0": "up"}, ""},
		"every member must match":  {map[string]Interface{"x": with(slaac, Match{Name: "eth*", Driver: "e1000e"})}, map[string]string{"eth1": "x"}, ""},
		"more members say more":    {map[string]Interface{"x": with(slaac, Match{Name: "eth*", Driver: "e1000e"}), "eth*": static}, map[string]string{"eth1": "x", "eth0": "eth*"}, ""},
		"tie, different content":   {map[string]Interface{"a": with(slaac, Match{Name: "eth*"}), "b": with(static, Match{Name: "eth*"})}, map[string]string{"eth0": "a", "eth1": "a"}, "conflict eth0 a b"},
		"tie, same content":        {map[string]Interface{"a": with(slaac, Match{Name: "eth*"}), "b": with(slaac, Match{Name: "eth*"})}, map[string]string{"eth0": "a", "eth1": "a"}, ""},
		"tie under a better match": {map[string]Interface{"a": with(slaac, Match{Name: "e*"}), "b": with(static, Match{Name: "e*"}), "eth0": none, "eth1": none}, map[string]string{"eth0": "eth0", "eth1": "eth1"}, ""},
		"nothing":                  {map[string]Interface{"wlan0": static}, map[string]string{}, "unused wlan0"},
	} {
		s, g := Intent{Interfaces: c.in}.Select(n())
		if g != nil {
			t.Fatal(g)
		}
		if !reflect.DeepEqual(s.Keys, c.want) {
			t.Errorf("%s: %v, want %v", name, s.Keys, c.want)
		}
		say := "unselected " + strings.Join(s.Unselected, " ") + "; unused " + strings.Join(s.Unused, " ")
		for _, x := range s.Conflicts {
			say += "; conflict " + x.Interface + " " + x.Keys[0] + " " + x.Keys[1]
		}
		if !strings.Contains(say, c.say) || c.say == "" && len(s.Conflicts) > 0 {
			t.Errorf("%s: says %q, want %q", name, say, c.say)
		}
	}
	// What is not known decides nothing.
	in := Intent{Interfaces: map[string]Interface{"v": with(slaac, Match{Driver: "virtio*"})}}
	s, g := in.Select(machine(fact.Link{Name: "eth0"}))
	if g != nil || len(s.Undecided) != 1 || len(s.Keys) != 0 {
		t.Errorf("%+v %v", s, g)
	}
	if _, g := in.Select(&fact.Namespace{Name: "init"}); g == nil {
		t.Error("no links, and no gap")
	}
	in.Interfaces["up"] = with(slaac, Match{Role: DefaultRoute})
	m := machine(fact.Link{Name: "eth0"})
	m.Routes = fact.Known[[]fact.Route]{}
	if _, g := in.Select(m); g == nil {
		t.Error("no routes, a role, and no gap")
	}
	if got := in.Of(s, "late0"); got.Addressing != Static || got.Routers != nil {
		t.Errorf("an unselected interface is %+v", got)
	}
}

// TestSelectIsAnOrder: which entry wins does not depend on the keys' order, and an
// entry never wins over one that says more.
func TestSelectIsAnOrder(t *testing.T) {
	t.Parallel()
	match := rapid.Custom(func(t *rapid.T) Match {
		return Match{
			Name: rapid.SampledFrom([]string{"", "eth0", "eth*", "e*", "*", "e?h0", "[de]*"}).Draw(t, "name"), MAC: rapid.SampledFrom([]string{"", "52:54:00:00:00:01"}).Draw(t, "mac"),
			Driver: rapid.SampledFrom([]string{"", "virtio_net", "v*"}).Draw(t, "driver"), Role: rapid.SampledFrom([]string{"", DefaultRoute}).Draw(t, "role"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := match.Draw(t, "a"), match.Draw(t, "b"), match.Draw(t, "c")
		if Specificity(a, b) != -Specificity(b, a) {
			t.Fatal("not antisymmetric")
		}
		if Specificity(a, b) >= 0 && Specificity(b, c) >= 0 && Specificity(a, c) < 0 {
			t.Fatal("not transitive")
		}
	})
}
