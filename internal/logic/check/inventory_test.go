package check

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// bootLines replaces the boot files: key, value, key, value … (path or glob).
func bootLines(kv ...string) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		var out []fact.SysctlSetting
		for i := 0; i+1 < len(kv); i += 2 {
			out = append(out, fact.SysctlSetting{
				Key: kv[i], Value: kv[i+1], Glob: slices.Contains([]byte(kv[i]), '*'), By: "systemd-sysctl",
				Origin: fact.Origin{File: "/etc/sysctl.d/60-test.conf", Line: i/2 + 1},
			})
		}
		s.Host.Files.Sysctl = fact.Value(out)
	}
}

// unmanaged takes the network managers away.
func unmanaged(s *fact.Snapshot) { s.Host.Managers = fact.Value([]fact.Manager{}) }

// tree is a directory tree: no running kernel.
func tree(s *fact.Snapshot) {
	s.Host.Mode = fact.ModeRoot
	s.Namespaces = nil
	s.Host.Processes = fact.Known[[]fact.Process]{}
}

func noLoopback(s *fact.Snapshot) {
	dropAddresses(s, func(a fact.Address) bool { return a.Prefix.Addr() == netip.IPv6Loopback() })
	confs("lo", "disable_ipv6", "1")(s)
}

func inventoryStates() map[string][]state {
	on := finding.Subject{Interface: "eth0"}
	key := func(k string) finding.Subject { return finding.Subject{Key: k} }
	gapManagers := func(s *fact.Snapshot) {
		s.Host.Managers = fact.Missing[[]fact.Manager](fact.Gap{Reason: fact.Permission, What: "managers"})
	}
	gapFiles := func(s *fact.Snapshot) {
		s.Host.Files.Sysctl = fact.Missing[[]fact.SysctlSetting](fact.Gap{Reason: fact.Permission, What: "sysctl.d"})
	}
	someFiles := func(s *fact.Snapshot) {
		s.Host.Files.SysctlGaps = []fact.Gap{{Reason: fact.Permission, What: "/etc/sysctl.d/70-secret.conf"}}
	}
	return map[string][]state{
		"INV-01": {
			{name: "on", want: finding.Pass},
			{name: "absent", edit: noIPv6, want: finding.NotApplicable},
			{name: "on again", edit: func(s *fact.Snapshot) {
				s.Host.Boot.Parameters = fact.Value(map[string]string{"ipv6.disable_ipv6": "1"})
			}, want: finding.Fail, severity: finding.Info},
			{name: "boot parameters unreadable", edit: func(s *fact.Snapshot) { s.Host.Boot = fact.Boot{} }, want: finding.Unknown},
			{name: "not known", edit: func(s *fact.Snapshot) { s.Namespaces[0].IPv6 = fact.Known[bool]{} }, want: finding.Unknown},
		},
		"INV-02": {
			{name: "declared", role: RoleServer, want: finding.Pass},
			{name: "inferred", want: finding.Fail, severity: finding.Info},
		},
		"INV-03": {
			{name: "IPv6 is wanted", want: finding.NotApplicable},
			{name: "boot parameter", edit: func(s *fact.Snapshot) {
				s.Host.Boot.Parameters = fact.Value(map[string]string{"ipv6.disable_ipv6": "1"})
			}, want: finding.Fail, severity: finding.High, subject: on},
			{name: "file", edit: bootLines("net/ipv6/conf/all/disable_ipv6", "1"), want: finding.Fail, subject: on},
			{name: "really off", edit: edits(bootLines("net/ipv6/conf/all/disable_ipv6", "1"), confs("eth0", "disable_ipv6", "1"), func(s *fact.Snapshot) {
				dropAddresses(s, func(a fact.Address) bool { return a.Index == 2 && a.Prefix.Addr().Is6() })
			}), want: finding.Pass, subject: on},
			{name: "files unreadable", edit: gapFiles, want: finding.Unknown},
			{name: "one file unreadable", edit: someFiles, want: finding.Unknown},
		},
		"INV-04": {
			{name: "no promise", want: finding.Pass, subject: on},
			{name: "mixed", edit: confs("all", "disable_ipv6", "1"), want: finding.Fail, severity: finding.High, subject: on},
			{name: "consistent", edit: edits(confs("all", "disable_ipv6", "1"), confs("eth0", "disable_ipv6", "1")), want: finding.Pass, subject: on},
			{name: "loopback kept", edit: edits(confs("all", "disable_ipv6", "1"), confs("eth0", "disable_ipv6", "1")), want: finding.Pass},
			{name: "unreadable", edit: gapped("net/ipv6/conf/all/disable_ipv6"), want: finding.Unknown},
		},
		"INV-05": {
			{name: "configured", want: finding.Pass},
			{name: "gone", edit: noLoopback, want: finding.Fail, severity: finding.Medium},
			{name: "no stack", edit: noIPv6, want: finding.Fail, severity: finding.Low},
			{name: "not in hosts", edit: edits(noLoopback, func(s *fact.Snapshot) { s.Host.Files.Hosts = fact.Value(must(s.Host.Files.Hosts)[:1]) }), want: finding.Pass},
			{name: "tree, lo kept", edit: edits(bootLines("net/ipv6/conf/all/accept_ra", "0"), tree), want: finding.Pass},
			{name: "tree, lo off", edit: edits(bootLines("net/ipv6/conf/all/disable_ipv6", "1"), tree), want: finding.Fail, severity: finding.Low},
			{name: "tree, lo excepted", edit: edits(bootLines("net/ipv6/conf/all/disable_ipv6", "1", "net/ipv6/conf/lo/disable_ipv6", "0"), tree), want: finding.Pass},
			{name: "hosts unreadable", edit: func(s *fact.Snapshot) { s.Host.Files.Hosts = fact.Known[[]fact.HostsEntry]{} }, want: finding.Unknown},
		},
		"INV-06": {
			{name: "static only", want: finding.Pass, subject: on},
			{name: "and one by RA", edit: raAddress, want: finding.Fail, severity: finding.Medium, subject: on},
			{name: "SLAAC", edit: slaac, want: finding.NotApplicable, subject: on},
			{name: "addresses unreadable", edit: func(s *fact.Snapshot) {
				s.Namespaces[0].Addresses = fact.Missing[[]fact.Address](fact.Gap{Reason: fact.Truncated, What: "addresses"})
			}, want: finding.Unknown, subject: on},
		},
		"INV-07": {
			{name: "no containers", want: finding.NotApplicable},
			{name: "inherits", edit: edits(sysctls("net/core/devconf_inherit_init_net", "1"), func(s *fact.Snapshot) { addNamespace(s, "lab") }), want: finding.Pass},
			{name: "hardened otherwise", edit: func(s *fact.Snapshot) { addNamespace(s, "lab") }, want: finding.Pass},
			{name: "weaker", edit: func(s *fact.Snapshot) {
				setSysctlIn(addNamespace(s, "lab"), "net/ipv6/conf/default/accept_ra", "1")
			}, want: finding.Fail, severity: finding.Medium},
			{name: "host is no better", edit: edits(confs("default", "accept_ra", "1", "accept_redirects", "1"), func(s *fact.Snapshot) {
				setSysctlIn(addNamespace(s, "lab"), "net/ipv6/conf/default/accept_ra", "1")
			}), want: finding.NotApplicable},
			{name: "another user's namespace", edit: func(s *fact.Snapshot) {
				n := addNamespace(s, "lab")
				n.Foreign = true
				setSysctlIn(n, "net/ipv6/conf/default/accept_ra", "1")
			}, want: finding.NotApplicable},
			{name: "unreadable", edit: gapped("net/core/devconf_inherit_init_net"), want: finding.Unknown},
		},
		"INV-08": {
			{name: "the files say the same", want: finding.Pass},
			{name: "hardened by hand", edit: edits(bootLines(), unmanaged), want: finding.Fail, severity: finding.High, subject: key("net.ipv6.conf.*.accept_ra")},
			{name: "ufw undoes it", edit: edits(unmanaged, func(s *fact.Snapshot) {
				s.Host.Files.Sysctl = fact.Value(append(must(s.Host.Files.Sysctl), fact.SysctlSetting{
					Key: "net/ipv6/conf/eth0/accept_redirects", Value: "1", By: "ufw", Origin: fact.Origin{File: "/etc/ufw/sysctl.conf", Line: 20},
				}))
			}), want: finding.Fail, severity: finding.Medium, subject: key("net.ipv6.conf.*.accept_redirects")},
			{name: "opened since boot", edit: confs("eth0", "accept_redirects", "1"), want: finding.Fail, severity: finding.Low, subject: key("net.ipv6.conf.*.accept_redirects")},
			{name: "ifupdown sets it", edit: bootLines("net/ipv6/conf/default/accept_ra", "0"), want: finding.Pass, subject: key("net.ipv6.conf.*.accept_ra")},
			{name: "networkd sets it", edit: edits(bootLines("net/ipv6/conf/default/accept_ra", "0", "net/ipv6/conf/eth0/accept_ra", "1"), unmanaged, networkd), want: finding.NotApplicable, subject: key("net.ipv6.conf.*.accept_ra")},
			{name: "networkd may set it", edit: edits(bootLines("net/ipv6/conf/default/accept_ra", "0"), unmanaged, networkd, confs("eth0", "disable_ipv6", "1"), func(s *fact.Snapshot) {
				must(s.Host.Managers)[0].Running = fact.Known[bool]{}
			}), want: finding.Unknown, subject: key("net.ipv6.conf.*.disable_ipv6")},
			{name: "forwarding by Docker", edit: edits(confs("all", "forwarding", "1"), func(s *fact.Snapshot) {
				s.Host.Runtimes.Docker = fact.Value(fact.Docker{Running: true})
			}), want: finding.Pass, subject: key("net.ipv6.conf.all.forwarding")},
			{name: "files unreadable", edit: gapFiles, want: finding.Unknown},
			{name: "one file unreadable", edit: someFiles, want: finding.Unknown},
			{name: "managers unreadable", edit: gapManagers, want: finding.Unknown},
			{name: "inside a container", edit: func(s *fact.Snapshot) { s.Namespaces[0].IsInit = false }, want: finding.NotApplicable},
			{name: "tree", edit: tree, want: finding.Unknown},
		},
		"INV-09": {
			{name: "pattern", want: finding.Pass},
			{name: "all only", edit: edits(unmanaged, bootLines("net/ipv6/conf/all/accept_ra", "0")), want: finding.Fail, severity: finding.High},
			{name: "all and default", edit: edits(unmanaged, bootLines("net/ipv6/conf/all/accept_ra", "0", "net/ipv6/conf/default/accept_ra", "0")), want: finding.Fail, severity: finding.Medium},
			{name: "each interface and default", edit: edits(unmanaged, bootLines("net/ipv6/conf/eth0/accept_ra", "0", "net/ipv6/conf/default/accept_ra", "0")), want: finding.Pass},
			{name: "each interface, no default", edit: edits(unmanaged, bootLines("net/ipv6/conf/eth0/accept_ra", "0")), want: finding.Fail, severity: finding.Low},
			{name: "one of two interfaces", edit: edits(unmanaged, func(s *fact.Snapshot) { addLink(s, "eth1") }, bootLines("net/ipv6/conf/eth0/accept_ra", "0")), want: finding.Fail, severity: finding.Medium},
			{name: "an exception", edit: edits(unmanaged, bootLines("net/ipv6/conf/*/accept_ra", "0", "net/ipv6/conf/eth0/accept_ra", "1")), want: finding.Pass},
			{name: "nothing", edit: bootLines("net/ipv4/ip_forward", "0"), want: finding.NotApplicable},
			{name: "tree, all and default", edit: edits(tree, bootLines("net/ipv6/conf/all/accept_ra", "0", "net/ipv6/conf/default/accept_ra", "0")), want: finding.Fail, severity: finding.Medium},
			{name: "tree, pattern", edit: edits(tree, bootLines("net/ipv6/conf/*/accept_ra", "0")), want: finding.Pass},
			{name: "tree, files unreadable", edit: edits(tree, gapFiles), want: finding.Unknown},
		},
		"INV-10": {
			{name: "well written", want: finding.Pass},
			{name: "dots", edit: bootLines("net/ipv6/conf/eth0/100/accept_ra", "0"), want: finding.Fail, severity: finding.Medium, subject: finding.Subject{Interface: "eth0.100"}},
			{name: "slash for the dot", edit: bootLines("net/ipv6/conf/eth0.100/accept_ra", "0"), want: finding.Pass},
			{name: "tree", edit: edits(tree, bootLines("net/ipv6/conf/eth0/100/accept_ra", "0")), want: finding.Fail},
			{name: "files unreadable", edit: gapFiles, want: finding.Unknown},
			{name: "one file unreadable", edit: someFiles, want: finding.Unknown},
		},
		"INV-11": {
			{name: "one", want: finding.Pass, subject: on},
			{name: "two", edit: networkd, want: finding.Fail, subject: on},
			{name: "the other is off", edit: edits(networkd, func(s *fact.Snapshot) {
				m := &must(s.Host.Managers)[1]
				m.Running, m.Enabled = fact.Value(false), fact.Value(false)
			}), want: finding.Pass, subject: on},
			{name: "the other may be off", edit: edits(networkd, func(s *fact.Snapshot) {
				m := &must(s.Host.Managers)[1]
				m.Running, m.Enabled = fact.Known[bool]{}, fact.Known[bool]{}
			}), want: finding.Unknown, subject: on},
			{name: "ifupdown's own client", edit: func(s *fact.Snapshot) {
				must(s.Host.Managers)[0].Interfaces[0].DHCPv6 = fact.Value(true)
				addManager(s, fact.Manager{Name: "dhcpcd", Running: fact.Value(true), NetNS: initNS, Interfaces: []fact.ManagedInterface{{Names: []string{"*"}, InUserspace: true}}})
			}, want: finding.Pass, subject: on},
			{name: "managers unreadable", edit: gapManagers, want: finding.Unknown},
		},
	}
}

// TestRole: what makes a role, and what does not.
func TestRole(t *testing.T) {
	for _, x := range []struct {
		name, role string
		edit       func(*fact.Snapshot)
	}{
		{"plain", RoleServer, nil},
		{"forwarding alone", RoleServer, confs("all", "forwarding", "1")},
		{"radvd", RoleRouter, func(s *fact.Snapshot) { addProcess(s, 900, "/usr/sbin/radvd") }},
		{"radvd in a home directory", RoleServer, func(s *fact.Snapshot) { addProcess(s, 900, "/home/eve/radvd") }},
		{"radvd in a container", RoleServer, func(s *fact.Snapshot) {
			addProcess(s, 900, "/usr/sbin/radvd")
			ps := must(s.Host.Processes)
			ps[len(ps)-1].Container = "0123456789ab"
		}},
		{"radvd in another namespace", RoleServer, func(s *fact.Snapshot) {
			addProcess(s, 900, "/usr/sbin/radvd")
			ps := must(s.Host.Processes)
			ps[len(ps)-1].NetNS = fact.Value(fact.NamespaceID{Dev: 4, Inode: 1})
		}},
		{"kubelet", RoleKubeNode, func(s *fact.Snapshot) { s.Host.Runtimes.Kubelet = fact.Value(fact.Kubelet{Running: true}) }},
		{"guests", RoleHypervisor, func(s *fact.Snapshot) { s.Host.Runtimes.Libvirt = fact.Value(fact.Libvirt{Running: true, Guests: 3}) }},
		{"libvirt without guests", RoleServer, func(s *fact.Snapshot) { s.Host.Runtimes.Libvirt = fact.Value(fact.Libvirt{Running: true}) }},
	} {
		r := NewContext(with(x.edit), "").Role
		if r.Name != x.role || !r.Inferred || len(r.Because) == 0 {
			t.Errorf("%s: %+v, want %s", x.name, r, x.role)
		}
	}
	if r := NewContext(host(), RoleRouter).Role; r.Inferred || r.Name != RoleRouter {
		t.Errorf("declared: %+v", r)
	}
}
