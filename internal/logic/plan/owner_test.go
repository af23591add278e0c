package plan

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/bootconf"
	"github.com/sixfence/sixfence/internal/model/change"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// owned is a host with an uplink that a network manager owns.
func owned(managers []fact.Manager, settings ...fact.SysctlSetting) *fact.Snapshot {
	s := &fact.Snapshot{Namespaces: []fact.Namespace{{Name: "init", IsInit: true, IsSelf: true}}}
	n := &s.Namespaces[0]
	n.Links = fact.Value([]fact.Link{{Index: 1, Name: "lo", Flags: 8}, {Index: 2, Name: "eth0", Flags: 1}})
	n.Sysctls = fact.Value(fact.Sysctls{Values: map[string]string{"net/ipv6/conf/eth0/accept_ra": "1"}})
	n.Routes, n.Addresses, n.Neighbours, n.Sockets = fact.Value([]fact.Route{}), fact.Value([]fact.Address{}), fact.Value([]fact.Neighbour{}), fact.Value([]fact.Socket{})
	n.PacketFilter = fact.PacketFilter{NFTables: fact.Absent[fact.NFTables](), Legacy: fact.Absent[[]fact.LegacyTable]()}
	s.Host.Managers = fact.Value(managers)
	s.Host.Files.Sysctl = fact.Value(settings)
	return s
}

func textOf(p change.Plan, path string) (string, uint32) {
	for _, s := range p.Steps {
		if s.Kind == change.File && s.Target == path {
			return s.After.Text, s.After.Mode
		}
	}
	return "", 0
}

// TestManagersAreTold: where a manager listens to routers by itself, its own file says
// to whom, and the kernel does not listen beside it.
func TestManagersAreTold(t *testing.T) {
	t.Parallel()
	router := intent.Router{Address: netip.MustParseAddr("fe80::1"), MAC: "52:54:00:00:00:01", Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64")}}
	with := func(a intent.Addressing) intent.Intent {
		return intent.Intent{Role: intent.RoleServer, Interfaces: map[string]intent.Interface{"eth0": {Addressing: a, Routers: []intent.Router{router}, PinGateway: true}}}
	}
	networkd := []fact.Manager{{Name: "systemd-networkd", Running: fact.Value(true), Interfaces: []fact.ManagedInterface{{Names: []string{"eth*"}, InUserspace: true, File: "/run/systemd/network/10-netplan-eth0.network"}}}}
	p := New(with(intent.SLAAC), owned(networkd), Options{})
	const dropin = "/etc/systemd/network/10-netplan-eth0.network.d/zz-sixfence.conf"
	text, _ := textOf(p, dropin)
	for _, want := range []string{"IPv6AcceptRA=yes\n", "RouterAllowList=fe80::1\n", "PrefixAllowList=2001:db8:1::/64\n", "[Neighbor]\nAddress=fe80::1\nLinkLayerAddress=52:54:00:00:00:01\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %q", want, text)
		}
	}
	var steps []string
	for _, s := range p.Steps {
		steps = append(steps, s.ID+"="+s.After.Text)
	}
	for _, want := range []string{"sysctl:net/ipv6/conf/eth0/accept_ra=0", "neighbour:eth0 fe80::1=52:54:00:00:00:01", "action:networkctl-reload="} {
		if !strings.Contains(strings.Join(steps, "\n"), want) {
			t.Errorf("no step %s", want)
		}
	}
	if text, _ = textOf(New(with(intent.Static), owned(networkd), Options{}), dropin); !strings.Contains(text, "IPv6AcceptRA=no\n") {
		t.Errorf("static: %q", text)
	}
	up := []fact.Manager{{Name: "ifupdown", Interfaces: []fact.ManagedInterface{{Names: []string{"eth0"}}}}}
	text, mode := textOf(New(with(intent.Static), owned(up), Options{}), IfupFile)
	if mode != 0o755 || !strings.Contains(text, "set_key accept_ra 0\n") || !strings.Contains(text, "ip -6 neigh replace fe80::1 lladdr 52:54:00:00:00:01 dev \"$IFACE\" nud permanent") {
		t.Errorf("ifupdown: %o %q", mode, text)
	}
	// A line of another file that names a key is named, too; ufw's own file is answered
	// after ufw.
	p = New(with(intent.Static), owned(nil, fact.SysctlSetting{Key: "net/ipv6/conf/eth0/accept_redirects", Value: "1", By: bootconf.BySystemd, Origin: fact.Origin{File: "/etc/sysctl.d/10-x.conf"}},
		fact.SysctlSetting{Key: "net/ipv6/conf/default/accept_redirects", Value: "1", By: bootconf.ByUFW, Origin: fact.Origin{File: "/etc/ufw/sysctl.conf"}}), Options{})
	if text, _ = textOf(p, SysctlFile); !strings.Contains(text, "-net/ipv6/conf/eth0/accept_redirects = 0\n") {
		t.Errorf("the line of another file stands: %s", text)
	}
	if text, _ = textOf(p, LateFile); !strings.Contains(text, "ufw.service") {
		t.Error("ufw has the last word")
	}
}

// TestModulesAreBlocked reads the file as modprobe does.
func TestModulesAreBlocked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		in         intent.Intent
		yes, loads string
	}{
		"server":          {intent.Intent{Role: intent.RoleServer}, "sit ip6_tunnel vxlan ip_gre", "tunnel6 xfrm_interface wireguard"},
		"kubernetes node": {intent.Intent{Role: intent.RoleKubernetesNode}, "sit ip6_tunnel", "vxlan geneve ipip"},
		"a list":          {intent.Intent{Role: intent.RoleServer, Tunnels: intent.Tunnels{Policy: intent.TunnelsList, List: []intent.Tunnel{{Mechanism: "6in4"}}}}, "ipip ip_gre", "sit"},
		"allowed":         {intent.Intent{Role: intent.RoleServer, Tunnels: intent.Tunnels{Policy: intent.TunnelsAllow}}, "", "sit ip_gre vxlan"},
	} {
		var ds []fact.ModprobeDirective
		for line := range strings.Lines(modprobeText(newSite(&c.in, nil, nil).blocked())) {
			if f := strings.Fields(line); len(f) > 1 && f[0] != "#" {
				ds = append(ds, fact.ModprobeDirective{Verb: f[0], Module: f[1], Args: strings.Join(f[2:], " ")})
			}
		}
		for _, m := range strings.Fields(c.yes) {
			if b := bootconf.Module(ds, m); b.How != bootconf.InstallFalse || b.Blacklist == nil {
				t.Errorf("%s: %s is blocked by %s", name, m, b.How)
			}
		}
		for _, m := range strings.Fields(c.loads) {
			if b := bootconf.Module(ds, m); b.How != bootconf.NotBlocked {
				t.Errorf("%s: %s is blocked", name, m)
			}
		}
	}
}
