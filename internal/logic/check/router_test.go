package check

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// taking is a running manager that takes RAs in user space on eth0.
func taking(name string, edit func(*fact.Manager)) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		m := fact.Manager{
			Name: name, Running: fact.Value(true), Enabled: fact.Value(true), NetNS: s.Namespaces[0].ID,
			Interfaces: []fact.ManagedInterface{{
				Names: []string{"eth*"}, AcceptRA: fact.Value(true), InUserspace: true, UseDNS: fact.Value(true),
				Origin: fact.Origin{File: "/etc/systemd/network/10-eth.network", Line: 4},
			}},
		}
		if edit != nil {
			edit(&m)
		}
		addManager(s, m)
	}
}

func managerStates(name string) []state {
	eth0 := finding.Subject{Interface: "eth0", Process: name}
	return []state{
		{name: "takes RAs with every sysctl at 0", edit: taking(name, nil), want: finding.Fail, severity: finding.Critical, subject: eth0},
		{name: "told not to", edit: taking(name, func(m *fact.Manager) { m.Interfaces[0].AcceptRA = fact.Value(false) }), want: finding.Pass, subject: eth0},
		{name: "neither runs nor is enabled", edit: taking(name, func(m *fact.Manager) { m.Running, m.Enabled = fact.Value(false), fact.Value(false) }), want: finding.NotApplicable, subject: finding.Subject{Process: name}},
		{name: "enabled, not started", edit: taking(name, func(m *fact.Manager) { m.Running = fact.Value(false) }), want: finding.Fail, severity: finding.Medium, subject: eth0},
		{name: "lives by RAs", edit: edits(slaac, taking(name, nil)), want: finding.Fail, severity: finding.Medium, subject: eth0},
		{name: "listed routers only", edit: edits(slaac, taking(name, func(m *fact.Manager) {
			m.Interfaces[0].RouterAllowList = []netip.Prefix{netip.MustParsePrefix("fe80::1/128")}
		})), want: finding.Pass, subject: eth0},
		{name: "filtered", edit: edits(taking(name, nil), legacyFilter), want: finding.Unknown, subject: eth0},
		{name: "match that names cannot decide", edit: taking(name, func(m *fact.Manager) {
			m.Interfaces[0].Names, m.Interfaces[0].Match = nil, []string{"Driver=virtio_net"}
		}), want: finding.Unknown, subject: eth0},
		{name: "a MAC address decides", edit: taking(name, func(m *fact.Manager) {
			m.Interfaces[0].Names, m.Interfaces[0].Match = nil, []string{"MACAddress=52:54:00:00:00:02"}
		}), want: finding.Fail, subject: eth0},
		{name: "one of two names", edit: taking(name, func(m *fact.Manager) {
			m.Interfaces[0].Names, m.Interfaces[0].Match = nil, []string{"interface-name=wlan*", "interface-name=eth*"}
		}), want: finding.Fail, subject: eth0},
		{name: "another MAC address", edit: taking(name, func(m *fact.Manager) {
			m.Interfaces[0].Names, m.Interfaces[0].Match = nil, []string{"MACAddress=52:54:00:00:00:77"}
		}), want: finding.NotApplicable, subject: eth0},
		{name: "the first file wins", edit: taking(name, func(m *fact.Manager) {
			m.Interfaces = append([]fact.ManagedInterface{{Names: []string{"eth0"}, AcceptRA: fact.Value(false), Origin: fact.Origin{File: "/etc/systemd/network/05.network"}}}, m.Interfaces...)
		}), want: finding.Pass, subject: eth0},
		{name: "the manager says which file it uses", edit: taking(name, func(m *fact.Manager) {
			m.Interfaces = append(m.Interfaces, fact.ManagedInterface{Index: 2, AcceptRA: fact.Value(false), Origin: fact.Origin{File: "/etc/systemd/network/90.network"}})
		}), want: finding.Pass, subject: eth0},
		{name: "a file could not be read", edit: taking(name, func(m *fact.Manager) {
			m.Interfaces[0].AcceptRA = fact.Value(false)
			m.Gaps = []fact.Gap{{Reason: fact.Permission, What: "/etc/x"}}
		}), want: finding.Unknown, subject: eth0},
		{name: "in a namespace out of sight", edit: taking(name, func(m *fact.Manager) { m.NetNS = fact.NamespaceID{Dev: 4, Inode: 1} }), want: finding.Unknown, subject: finding.Subject{Process: name}},
		{name: "IPv6 is off on the interface", edit: edits(taking(name, nil), confs("eth0", "disable_ipv6", "1")), want: finding.NotApplicable, subject: eth0},
		{name: "an image that boots with it", edit: edits(taking(name, nil), func(s *fact.Snapshot) { s.Host.Mode = fact.ModeRoot }), want: finding.Fail, subject: finding.Subject{Process: name}},
		{name: "an image that boots without it", edit: edits(taking(name, func(m *fact.Manager) { m.Enabled = fact.Value(false) }), func(s *fact.Snapshot) { s.Host.Mode = fact.ModeRoot }), want: finding.NotApplicable, subject: finding.Subject{Process: name}},
	}
}

// raw6 is a raw ICMPv6 socket of a program.
func raw6(exe string) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		addProcess(s, 900, exe)
		addSocket(s, fact.Socket{Family: "ipv6", Protocol: "raw", Number: 58, State: "unconnected", Local: netip.IPv6Unspecified(), Inode: 77, Owners: fact.Value([]int{900}), V6Only: fact.Value(true), Source: "proc"})
	}
}

// guests makes a bridge with two guest ports.
func guests(isolated bool) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		b := addLink(s, "br0")
		b.Kind = "bridge"
		index := b.Index
		for _, n := range []string{"vnet0", "vnet1"} {
			p := addLink(s, n)
			p.Kind, p.SlaveKind, p.Master, p.BridgePort = "tun", "bridge", index, &fact.BridgePort{Isolated: isolated}
		}
	}
}

func routerStates() map[string][]state {
	out := map[string][]state{
		"RA-02": managerStates("systemd-networkd"),
		"RA-03": managerStates("NetworkManager"),
		"RA-04": append(managerStates("dhcpcd"),
			state{name: "ifupdown writes 0", want: finding.Pass, subject: finding.Subject{Process: "ifupdown"}},
			state{name: "ifupdown will switch it on again", edit: func(s *fact.Snapshot) {
				ms := must(s.Host.Managers)
				ms[0].Interfaces[0].AcceptRA, ms[0].Interfaces[0].Sysctls = fact.Value(true), map[string]string{"accept_ra": "2"}
			}, want: finding.Fail, severity: finding.Medium, subject: finding.Subject{Process: "ifupdown"}},
		),
		"RA-05": {
			{name: "no raw socket", want: finding.Pass},
			{name: "networkd listens", edit: raw6("/usr/lib/systemd/systemd-networkd"), want: finding.Fail, severity: finding.High, subject: finding.Subject{Process: "/usr/lib/systemd/systemd-networkd"}},
			{name: "networkd on a SLAAC host", edit: edits(slaac, raw6("/usr/lib/systemd/systemd-networkd")), want: finding.Fail, severity: finding.Medium},
			{name: "radvd and ping do too", edit: edits(raw6("/usr/sbin/radvd"), raw6("/usr/bin/ping")), want: finding.Pass},
			{name: "unknown program", edit: raw6("/opt/x/agent"), want: finding.Fail, severity: finding.Low},
			{name: "filtered", edit: edits(raw6("/usr/sbin/dhcpcd"), legacyFilter), want: finding.Unknown},
			{name: "nobody known holds it", edit: edits(raw6("/usr/sbin/dhcpcd"), func(s *fact.Snapshot) {
				ks := must(s.Namespaces[0].Sockets)
				ks[len(ks)-1].Owners = fact.Missing[[]int](fact.Gap{Reason: fact.Permission, What: "socket owners"})
			}), want: finding.Unknown},
		},
		"RA-10": {
			{name: "nothing sends", want: finding.Pass},
			{name: "radvd on a host that does not forward", edit: func(s *fact.Snapshot) { addProcess(s, 901, "/usr/sbin/radvd") }, want: finding.Fail},
			{name: "radvd on a server", edit: edits(func(s *fact.Snapshot) { addProcess(s, 901, "/usr/sbin/radvd") }, confs("all", "forwarding", "1")), role: RoleServer, want: finding.Fail, severity: finding.High},
			{name: "radvd on a router", edit: edits(func(s *fact.Snapshot) { addProcess(s, 901, "/usr/sbin/radvd") }, confs("all", "forwarding", "1")), want: finding.Pass},
			{name: "networkd sends on a server", edit: taking("systemd-networkd", func(m *fact.Manager) { m.Interfaces[0].SendRA = fact.Value(true) }), want: finding.Fail, subject: finding.Subject{Interface: "eth0"}},
			{name: "dnsmasq with a raw socket", edit: raw6("/usr/sbin/dnsmasq"), role: RoleServer, want: finding.Fail},
		},
		"RA-11": {
			{name: "nobody takes DNS from RAs", want: finding.Pass},
			{name: "networkd does", edit: taking("systemd-networkd", nil), want: finding.Fail, severity: finding.High, subject: finding.Subject{Interface: "eth0"}},
			{name: "on a SLAAC host", edit: edits(slaac, taking("systemd-networkd", nil)), want: finding.Fail, severity: finding.Medium},
			{name: "UseDNS=no", edit: taking("systemd-networkd", func(m *fact.Manager) { m.Interfaces[0].UseDNS = fact.Value(false) }), want: finding.Pass},
			{name: "filtered", edit: edits(taking("systemd-networkd", nil), legacyFilter), want: finding.Unknown},
			{name: "rdnssd", edit: func(s *fact.Snapshot) { addProcess(s, 902, "/usr/sbin/rdnssd") }, want: finding.Fail},
		},
		"RA-12": {
			{name: "isolated ports", edit: guests(true), want: finding.Pass},
			{name: "guests on one bridge", edit: guests(false), want: finding.Fail, severity: finding.Medium, subject: finding.Subject{Interface: "br0"}},
			{name: "on a hypervisor", edit: guests(false), role: RoleHypervisor, want: finding.Fail, severity: finding.High},
			{name: "ebtables", edit: edits(guests(false), func(s *fact.Snapshot) { s.Namespaces[0].PacketFilter.EBTables = fact.Value(true) }), want: finding.Unknown},
			{name: "bridged frames pass ip6tables", edit: edits(guests(false), legacyFilter, func(s *fact.Snapshot) { s.Namespaces[0].PacketFilter.BridgeNFCall = fact.Value("1") }), want: finding.Unknown},
			{name: "bridged frames do not pass ip6tables", edit: edits(guests(false), legacyFilter, func(s *fact.Snapshot) { s.Namespaces[0].PacketFilter.BridgeNFCall = fact.Value("0") }), want: finding.Fail},
		},
	}
	return out
}
