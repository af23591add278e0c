package check

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// tunnel adds a tunnel device that is up.
func tunnel(name, kind string, t fact.Tunnel) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		l := addLink(s, name)
		l.Kind, l.Type, l.Flags = kind, 768, iffUp|iffPointToPoint|iffNoARP
		t.Complete = true
		l.Tunnel = &t
	}
}

func down(name string) func(*fact.Snapshot) {
	return editLink(name, func(l *fact.Link) { l.Flags &^= iffUp })
}

// module puts tunnel modules on disk, in memory or in the kernel.
func modules(where string, names ...string) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		m := &s.Host.Modules
		switch where {
		case "disk":
			d := map[string]string{}
			for _, n := range names {
				d[n] = "kernel/net/" + n + ".ko"
			}
			m.Loadable = fact.Value(d)
		case "loaded":
			m.Loaded = fact.Value(names)
		case "builtin":
			m.Builtin = fact.Value(names)
		}
	}
}

// modprobe is an edit of modprobe.d: verb, module, args …
func modprobe(words ...string) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		var out []fact.ModprobeDirective
		for i := 0; i+2 < len(words); i += 3 {
			out = append(out, fact.ModprobeDirective{Verb: words[i], Module: words[i+1], Args: words[i+2], Origin: fact.Origin{File: "/etc/modprobe.d/x.conf", Line: len(out) + 1}})
		}
		s.Host.Files.Modprobe = fact.Value(out)
	}
}

func usersMayUnshare(s *fact.Snapshot) {
	s.Host.UserNS.Unprivileged, s.Host.UserNS.Max = fact.Value(true), fact.Value[int64](63000)
}

// vpn moves the IPv4 default into a tunnel device, as OpenVPN does.
func vpn(s *fact.Snapshot) {
	l := addLink(s, "tun0")
	l.Kind, l.Type, l.Flags = "tun", 65534, iffUp|iffPointToPoint|iffNoARP
	index := l.Index
	for _, half := range []string{"0.0.0.0/1", "128.0.0.0/1"} {
		r := route(half, "", index, fact.ProtoBoot)
		r.Family = "ipv4"
		addRoute(s, r)
	}
}

// wgQuick moves the IPv4 default into a tunnel device by policy routing.
func wgQuick(s *fact.Snapshot) {
	l := addLink(s, "wg0")
	l.Kind, l.Type, l.Flags = "wireguard", 65534, iffUp|iffPointToPoint|iffNoARP
	index := l.Index
	r := route("0.0.0.0/0", "", index, fact.ProtoBoot)
	r.Family, r.Table = "ipv4", 51820
	addRoute(s, r)
	s.Namespaces[0].Rules = fact.Value(append(must(s.Namespaces[0].Rules),
		fact.Rule{Family: "ipv4", Priority: 0, Table: 255, Action: 1},
		fact.Rule{Family: "ipv4", Priority: 32764, Table: 254, Action: 1, Conditions: []string{"suppress_prefixlength 0"}},
		fact.Rule{Family: "ipv4", Priority: 32765, Table: 51820, Action: 1, Mark: 0xca6c, Mask: 0xffffffff, Invert: true},
		fact.Rule{Family: "ipv4", Priority: 32766, Table: 254, Action: 1},
	))
}

func tunnelStates() map[string][]state {
	peer := netip.MustParseAddr("198.51.100.7")
	on := func(n string) finding.Subject { return finding.Subject{Interface: n} }
	mod := func(n string) finding.Subject { return finding.Subject{Key: "module " + n} }
	legacy4 := func(s *fact.Snapshot) {
		s.Namespaces[0].PacketFilter.Legacy = fact.Value([]fact.LegacyTable{{Family: "ipv4", Name: "filter", Hooks: 2}})
	}
	anyOf := fact.Tunnel{Remote: netip.IPv4Unspecified()}
	raw := func(proto uint16, exe string) func(*fact.Snapshot) {
		return func(s *fact.Snapshot) {
			addProcess(s, 950, exe)
			addSocket(s, fact.Socket{Family: "ipv4", Protocol: "raw", Number: proto, State: "unconnected", Inode: 8, Owners: fact.Value([]int{950}), Source: "proc"})
		}
	}
	return map[string][]state{
		"TUN-01": {
			{name: "none", want: finding.Pass},
			{name: "sit for any peer", edit: tunnel("six", "sit", anyOf), want: finding.Fail, severity: finding.High, subject: on("six")},
			{name: "sit for any peer, filtered", edit: edits(tunnel("six", "sit", anyOf), legacy4), want: finding.Unknown, subject: on("six")},
			{name: "a broker's peer", edit: tunnel("he", "sit", fact.Tunnel{Remote: peer}), want: finding.Fail, severity: finding.Medium, subject: on("he")},
			{name: "down", edit: edits(tunnel("six", "sit", anyOf), down("six")), want: finding.Fail, severity: finding.Low, subject: on("six")},
			{name: "ip6tnl for any peer", edit: tunnel("t6", "ip6tnl", fact.Tunnel{Remote: netip.IPv6Unspecified()}), want: finding.Fail, severity: finding.High},
			{name: "wireguard", edit: tunnel("wg0", "wireguard", fact.Tunnel{}), want: finding.Fail, severity: finding.Info, subject: on("wg0")},
			{name: "an overlay on a kube node", edit: tunnel("flannel.1", "vxlan", fact.Tunnel{Port: 8472, VNI: 1}), role: RoleKubeNode, want: finding.Pass, subject: on("flannel.1")},
			{name: "a guest's tap", edit: func(s *fact.Snapshot) {
				l := addLink(s, "vnet0")
				l.Kind, l.SlaveKind = "tun", "bridge"
			}, want: finding.Pass, subject: on("vnet0")},
			{name: "in a second namespace", edit: func(s *fact.Snapshot) {
				l := addLinkIn(addNamespace(s, "lab"), "six")
				l.Kind, l.Tunnel = "sit", &fact.Tunnel{Complete: true}
			}, want: finding.Fail, subject: finding.Subject{NetNS: "lab", Interface: "six"}},
		},
		"TUN-02": {
			{name: "none", want: finding.Pass},
			{name: "sit0 is down", edit: edits(tunnel("sit0", "sit", fact.Tunnel{Fallback: true}), down("sit0")), want: finding.Pass, subject: on("sit0")},
			{name: "sit0 is up", edit: tunnel("sit0", "sit", fact.Tunnel{Fallback: true}), want: finding.Fail, severity: finding.High, subject: on("sit0")},
			{name: "up and filtered", edit: edits(tunnel("sit0", "sit", fact.Tunnel{Fallback: true}), legacy4), want: finding.Unknown, subject: on("sit0")},
			{name: "Calico", edit: tunnel("tunl0", "ipip", fact.Tunnel{Fallback: true}), role: RoleKubeNode, want: finding.Pass, subject: on("tunl0")},
		},
		"TUN-03": {
			{name: "none on disk", want: finding.Pass},
			{name: "sit on disk", edit: modules("disk", "sit"), want: finding.Fail, severity: finding.Low, subject: mod("sit")},
			{name: "for every user", edit: edits(modules("disk", "sit"), usersMayUnshare), want: finding.Fail, severity: finding.Medium, subject: mod("sit")},
			{name: "blocked", edit: edits(modules("disk", "sit"), modprobe("install", "sit", "/bin/false")), want: finding.Pass, subject: mod("sit")},
			{name: "only blacklisted", edit: edits(modules("disk", "sit"), modprobe("blacklist", "sit", "")), want: finding.Fail, severity: finding.Low, subject: mod("sit")},
			{name: "a kernel without modules", edit: edits(modules("disk", "sit"), func(s *fact.Snapshot) { s.Host.Modules.Supported = fact.Value(false) }), want: finding.Pass},
			{name: "loading is off for good", edit: edits(modules("disk", "sit"), func(s *fact.Snapshot) { s.Host.Boot.ModulesDisabled = fact.Value(true) }), want: finding.Pass},
			{name: "needed on a kube node", edit: modules("disk", "vxlan"), role: RoleKubeNode, want: finding.NotApplicable, subject: mod("vxlan")},
			{name: "modprobe.d not read", edit: edits(modules("disk", "sit"), func(s *fact.Snapshot) { s.Host.Files.Modprobe = fact.Known[[]fact.ModprobeDirective]{} }), want: finding.Unknown, subject: mod("sit")},
		},
		"TUN-04": {
			{name: "nothing said", want: finding.NotApplicable},
			{name: "install tunnel6 /bin/true", edit: modprobe("install", "tunnel6", "/bin/true"), want: finding.Fail, severity: finding.Medium, subject: mod("tunnel6")},
			{name: "install sit /bin/true", edit: modprobe("install", "sit", "/bin/true"), want: finding.Fail, severity: finding.Low, subject: mod("sit")},
			{name: "install sit /bin/false", edit: modprobe("install", "sit", "/bin/false"), want: finding.Pass, subject: mod("sit")},
			{name: "alias sit off", edit: modprobe("alias", "sit", "off"), want: finding.Fail, subject: mod("sit")},
			{name: "an image", edit: edits(modprobe("install", "tunnel6", "/bin/true"), func(s *fact.Snapshot) { s.Host.Mode = fact.ModeRoot }), want: finding.Fail},
		},
		"TUN-05": {
			{name: "not there", want: finding.Pass},
			{name: "built in, cannot be blocked", edit: modules("builtin", "sit"), want: finding.Fail, severity: finding.Info, subject: mod("sit")},
			{name: "built in, and blocked in vain", edit: edits(modules("builtin", "sit"), modprobe("install", "sit", "/bin/false")), want: finding.Fail, severity: finding.Medium, subject: mod("sit")},
			{name: "loaded, and blocked too late", edit: edits(modules("loaded", "sit"), modprobe("install", "sit", "/bin/false")), want: finding.Fail, severity: finding.Medium, subject: mod("sit")},
			{name: "loaded for a device", edit: edits(modules("loaded", "sit"), tunnel("he", "sit", fact.Tunnel{Remote: peer})), want: finding.NotApplicable, subject: mod("sit")},
			{name: "a fallback device explains nothing", edit: edits(modules("loaded", "sit"), tunnel("sit0", "sit", fact.Tunnel{Fallback: true})), want: finding.Fail, subject: mod("sit")},
			{name: "modules.builtin not read", edit: func(s *fact.Snapshot) { s.Host.Modules.Builtin = fact.Known[[]string]{} }, want: finding.Unknown},
		},
		"TUN-08": {
			{name: "none", want: finding.Pass},
			{name: "6to4", edit: func(s *fact.Snapshot) { addAddress(s, address(2, "2002:c000:20a::1/16")) }, want: finding.Fail, severity: finding.Medium},
			{name: "Teredo route", edit: func(s *fact.Snapshot) { addRoute(s, route("2001::/32", "", 2, fact.ProtoStatic)) }, want: finding.Fail},
			{name: "ISATAP", edit: func(s *fact.Snapshot) { addAddress(s, address(2, "fe80::5efe:c000:20a/64")) }, want: finding.Fail},
			{name: "a 6to4 neighbour", edit: func(s *fact.Snapshot) {
				addNeighbour(s, fact.Neighbour{Index: 2, Address: netip.MustParseAddr("2002:c000:201::1"), State: fact.NUDStale})
			}, want: finding.Fail, severity: finding.Low},
			{name: "NAT64", edit: func(s *fact.Snapshot) { addRoute(s, route("64:ff9b::/96", "fe80::1", 2, fact.ProtoStatic)) }, want: finding.Fail, severity: finding.Info},
			{name: "a route that discards", edit: func(s *fact.Snapshot) {
				r := route("2002::/16", "", 1, fact.ProtoStatic)
				r.Type = 7
				addRoute(s, r)
			}, want: finding.Pass},
			{name: "ordinary 2001: prefix", edit: func(s *fact.Snapshot) { addRoute(s, route("2001:4860::/32", "", 2, fact.ProtoStatic)) }, want: finding.Pass},
		},
		"TUN-09": {
			{name: "none", want: finding.Pass},
			{name: "miredo", edit: func(s *fact.Snapshot) { addProcess(s, 960, "/usr/sbin/miredo") }, want: finding.Fail, severity: finding.Medium},
			{name: "openvpn", edit: func(s *fact.Snapshot) { addProcess(s, 960, "/usr/sbin/openvpn") }, want: finding.Fail, severity: finding.Info},
			{name: "an enabled unit", edit: func(s *fact.Snapshot) {
				s.Host.Files.Units = fact.Value([]fact.Unit{{Name: "miredo.service", Path: "/lib/systemd/system/miredo.service", Enabled: true}})
			}, want: finding.Fail, severity: finding.Medium},
			{name: "a masked unit", edit: func(s *fact.Snapshot) {
				s.Host.Files.Units = fact.Value([]fact.Unit{{Name: "miredo.service", Path: "/lib/systemd/system/miredo.service", Enabled: true, Masked: true}})
			}, want: finding.Pass},
		},
		"TUN-10": {
			{name: "none", want: finding.Pass},
			{name: "protocol 41", edit: raw(41, "/tmp/t"), want: finding.Fail, severity: finding.High, subject: finding.Subject{Process: "/tmp/t"}},
			{name: "pptp", edit: raw(47, "/usr/sbin/pptp"), want: finding.Fail, severity: finding.Medium},
			{name: "another protocol", edit: raw(89, "/usr/sbin/bird"), want: finding.Pass},
			{name: "filtered", edit: edits(raw(41, "/tmp/t"), legacy4), want: finding.Unknown},
		},
		"TUN-11": {
			{name: "closed", want: finding.Pass},
			{name: "open, nothing to load", edit: usersMayUnshare, want: finding.Fail, severity: finding.Low},
			{name: "open, and modules on disk", edit: edits(usersMayUnshare, modules("disk", "sit")), want: finding.Fail, severity: finding.Medium},
			{name: "restricted by AppArmor", edit: edits(usersMayUnshare, func(s *fact.Snapshot) { s.Host.UserNS.AppArmor = fact.Value(true) }), want: finding.Pass},
			{name: "not read", edit: edits(usersMayUnshare, func(s *fact.Snapshot) { s.Host.UserNS.Max = fact.Known[int64]{} }), want: finding.Unknown},
		},
		"TUN-12": {
			{name: "no networkd", want: finding.NotApplicable},
			{name: "Use6RD=yes", edit: taking("systemd-networkd", func(m *fact.Manager) { m.Interfaces[0].Use6RD = fact.Value(true) }), want: finding.Fail},
			{name: "default", edit: taking("systemd-networkd", func(m *fact.Manager) { m.Interfaces[0].Use6RD = fact.Value(false) }), want: finding.Pass},
			{name: "neither runs nor is enabled", edit: taking("systemd-networkd", func(m *fact.Manager) {
				m.Interfaces[0].Use6RD, m.Running, m.Enabled = fact.Value(true), fact.Value(false), fact.Value(false)
			}), want: finding.NotApplicable},
		},
		"TUN-13": {
			{name: "no VPN", want: finding.NotApplicable},
			{name: "OpenVPN for IPv4 only", edit: vpn, want: finding.Fail, severity: finding.High},
			{name: "wg-quick for IPv4 only", edit: wgQuick, want: finding.Fail, severity: finding.High},
			{name: "no IPv6 default", edit: edits(vpn, func(s *fact.Snapshot) { dropRoutes(s, isDefault6) }), want: finding.Pass},
			{name: "IPv6 is discarded", edit: edits(vpn, func(s *fact.Snapshot) {
				r := route("::/0", "", 1, fact.ProtoStatic)
				r.Type, r.Priority = 7, 1
				addRoute(s, r)
			}), want: finding.Pass},
			{name: "IPv6 in the tunnel", edit: edits(vpn, func(s *fact.Snapshot) { addRoute(s, route("2000::/3", "", 3, fact.ProtoBoot)) }), want: finding.Pass},
			{name: "a rule that cannot be decided", edit: edits(vpn, func(s *fact.Snapshot) {
				s.Namespaces[0].Rules = fact.Value([]fact.Rule{{Family: "ipv6", Priority: 10, Table: 7, Action: 1, Conditions: []string{"uidrange 0-99"}}, {Family: "ipv6", Priority: 32766, Table: 254, Action: 1}})
			}), want: finding.Unknown},
		},
		"TUN-14": {
			{name: "none", want: finding.Pass},
			{name: "vxlan", edit: tunnel("vx0", "vxlan", fact.Tunnel{Port: 4789, VNI: 42}), want: finding.Fail, severity: finding.High, subject: on("vx0")},
			{name: "with one remote", edit: tunnel("vx0", "vxlan", fact.Tunnel{Port: 4789, VNI: 42, Remote: peer}), want: finding.Fail, subject: on("vx0")},
			{name: "down", edit: edits(tunnel("vx0", "vxlan", fact.Tunnel{Port: 4789, VNI: 42}), down("vx0")), want: finding.Pass, subject: on("vx0")},
			{name: "filtered", edit: edits(tunnel("vx0", "vxlan", fact.Tunnel{Port: 4789, VNI: 42, Complete: true}), legacy4), want: finding.Unknown, subject: on("vx0")},
			{name: "filtered over IPv4, open over IPv6", edit: edits(tunnel("vx0", "vxlan", fact.Tunnel{Port: 4789, VNI: 42, CollectMetadata: true, Complete: true}), legacy4), want: finding.Fail, subject: on("vx0")},
		},
	}
}
