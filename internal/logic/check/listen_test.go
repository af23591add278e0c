package check

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// bound is a receiving socket. spec is "tcp 127.0.0.1:5432", "udp [::]:53";
// v6only counts for IPv6 ones.
func bound(spec string, v6only bool, pid int) fact.Socket {
	var proto, at string
	if _, err := fmt.Sscan(spec, &proto, &at); err != nil {
		panic(err)
	}
	ap := netip.MustParseAddrPort(at)
	k := fact.Socket{
		Family: "ipv4", Protocol: proto, State: "listen", Local: ap.Addr(), Port: ap.Port(), V6Only: fact.Absent[bool](),
		Inode: uint64(ap.Port())*100 + uint64(pid), Owners: fact.Value([]int{pid}), Source: "inet_diag",
	}
	if proto == "udp" {
		k.State = "unconnected"
	}
	if ap.Addr().Is6() {
		k.Family, k.V6Only = "ipv6", fact.Value(v6only)
	}
	return k
}

// sockets adds dual-stack or IPv4 sockets of one program.
func sockets(exe string, specs ...string) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		pid := 1000 + len(must(s.Host.Processes))
		addProcess(s, pid, exe)
		for _, spec := range specs {
			addSocket(s, bound(spec, false, pid))
		}
	}
}

// sockets6 adds v6only sockets.
func sockets6(exe string, specs ...string) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		pid := 1000 + len(must(s.Host.Processes))
		addProcess(s, pid, exe)
		for _, spec := range specs {
			addSocket(s, bound(spec, true, pid))
		}
	}
}

// anyIP takes a whole prefix for the namespace's own.
func anyIP(s *fact.Snapshot) {
	r := route("2001:db8:99::/48", "", 1, fact.ProtoStatic)
	r.Type, r.Table = 2, 255
	addRoute(s, r)
}

// device binds the socket added last to a new interface, x1.
func device(f func(*fact.Link)) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		l := addLink(s, "x1")
		f(l)
		index := l.Index
		lastSocket(func(k *fact.Socket) { k.Index = index })(s)
	}
}

// lastSocket edits the socket added last.
func lastSocket(f func(*fact.Socket)) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) {
		ks := must(s.Namespaces[0].Sockets)
		f(&ks[len(ks)-1])
	}
}

func onlyLoopbackUp(s *fact.Snapshot) { editLink("eth0", func(l *fact.Link) { l.Flags &^= iffUp })(s) }

func kernel(release string) func(*fact.Snapshot) {
	return func(s *fact.Snapshot) { s.Host.Kernel = fact.Value(fact.Kernel{Release: release}) }
}

func listenStates() map[string][]state {
	const pg, web = "/usr/lib/postgresql/15/bin/postgres", "/usr/sbin/nginx"
	tcp := func(p uint16) finding.Subject { return finding.Subject{Proto: "tcp", Port: p} }
	udp := func(p uint16) finding.Subject { return finding.Subject{Proto: "udp", Port: p} }
	lonely := func(edit func(*fact.Namespace)) func(*fact.Snapshot) {
		return func(s *fact.Snapshot) {
			n := addNamespace(s, "lab")
			if edit != nil {
				edit(n)
			}
		}
	}
	noSSHD := func(s *fact.Snapshot) { s.Namespaces[0].Sockets = fact.Value([]fact.Socket{}) }
	sshd := func(f func(*fact.SSHD)) func(*fact.Snapshot) {
		return func(s *fact.Snapshot) {
			d := must(s.Host.Apps.SSHD)
			f(&d)
			s.Host.Apps.SSHD = fact.Value(d)
		}
	}
	match := func(keyword, pattern, action string) func(*fact.Snapshot) {
		return sshd(func(d *fact.SSHD) {
			d.MatchAddresses = append(d.MatchAddresses, fact.SourcePattern{Keyword: keyword, Pattern: pattern, Action: action, Origin: fact.Origin{File: "/etc/ssh/sshd_config", Line: 90}})
		})
	}
	acl := func(ps ...fact.SourcePattern) func(*fact.Snapshot) {
		return func(s *fact.Snapshot) {
			s.Host.Apps.SourceACLs = fact.Value([]fact.SourceACL{{App: "nginx", Patterns: ps}})
		}
	}
	hba := func(lines ...string) func(*fact.Snapshot) {
		return func(s *fact.Snapshot) {
			p := fact.Postgres{Listen: []string{"*"}, Port: 5432}
			for i, l := range lines {
				h := fact.SourcePattern{Keyword: "host", Origin: fact.Origin{File: "/etc/postgresql/15/main/pg_hba.conf", Line: i + 1}}
				_, _ = fmt.Sscan(l, &h.Pattern, &h.Action)
				p.HBA = append(p.HBA, h)
			}
			s.Host.Apps.Postgres = fact.Value([]fact.Postgres{p})
		}
	}
	unit := func(mode string, listen ...string) func(*fact.Snapshot) {
		return func(s *fact.Snapshot) {
			s.Host.Files.Units = fact.Value([]fact.Unit{{Name: "x.socket", Path: "/etc/systemd/system/x.socket", Enabled: true, Listen: listen, BindIPv6Only: mode, Origin: fact.Origin{File: "/etc/systemd/system/x.socket"}}})
		}
	}
	ban := func(allow, action string) func(*fact.Snapshot) {
		return func(s *fact.Snapshot) {
			s.Host.Apps.Fail2ban = fact.Value(fact.Fail2ban{AllowIPv6: fact.Value(allow), Action: fact.Value(action), Origin: fact.Origin{File: "/etc/fail2ban/fail2ban.conf", Line: 3}})
		}
	}
	join := func(group string) func(*fact.Snapshot) {
		return func(s *fact.Snapshot) {
			s.Namespaces[0].Multicast = fact.Value(append(must(s.Namespaces[0].Multicast), fact.Membership{Index: 2, Group: netip.MustParseAddr(group), Users: 1}))
		}
	}
	off := edits(confs("eth0", "disable_ipv6", "1"), confs("all", "disable_ipv6", "1"))
	return map[string][]state{
		"LISTEN-01": {
			{name: "one sshd", want: finding.Pass},
			{name: "v6only not read", edit: edits(sockets(web, "tcp [::]:443"), lastSocket(func(k *fact.Socket) {
				k.V6Only = fact.Missing[bool](fact.Gap{Reason: fact.UnsupportedGap, What: "v6only"})
			})), want: finding.Unknown, subject: tcp(443)},
			{name: "sockets not read", edit: func(s *fact.Snapshot) { s.Namespaces[0].Sockets = fact.Known[[]fact.Socket]{} }, want: finding.Unknown},
			{name: "a socket in no namespace", edit: func(s *fact.Snapshot) {
				addProcess(s, 990, "/tmp/hidden")
				s.Host.Orphans = fact.Value([]fact.OrphanSocket{{Inode: 9, PID: 990, Protocol: "TCPv6", Listening: fact.Value(true)}})
			}, want: finding.Fail, severity: finding.Medium, subject: finding.Subject{Process: "/tmp/hidden"}},
			{name: "orphans not looked for", edit: func(s *fact.Snapshot) { s.Host.Orphans = fact.Known[[]fact.OrphanSocket]{} }, want: finding.Unknown},
		},
		"LISTEN-02": {
			{name: "a dual-stack socket alone", edit: sockets(web, "tcp [::]:8080"), want: finding.Pass, subject: tcp(8080)},
			{name: "127.0.0.1 and a v6only [::]", edit: edits(sockets(pg, "tcp 127.0.0.1:5432"), sockets6(pg, "tcp [::]:5432")), want: finding.Fail, severity: finding.Critical, subject: tcp(5432)},
			{name: "127.0.0.1 and a dual-stack [::]", edit: sockets(pg, "tcp 127.0.0.1:5432", "tcp [::]:5432"), want: finding.Fail, severity: finding.Critical, subject: tcp(5432)},
			{name: "mapped loopback and [::]", edit: edits(sockets(pg, "tcp [::ffff:127.0.0.1]:5432"), sockets6(pg, "tcp [::]:5432")), want: finding.Fail, subject: tcp(5432)},
			{name: "another program on the IPv6 side", edit: edits(sockets(pg, "tcp 127.0.0.1:5432"), sockets6("/tmp/x", "tcp [::]:5432")), want: finding.Fail, severity: finding.Critical, subject: finding.Subject{Port: 5432, Process: "/tmp/x"}},
			{name: "127.0.0.1 and a global address", edit: sockets(pg, "tcp 127.0.0.1:5432", "tcp [2001:db8:1:0:8c1f:6e5f:93d1:4a7b]:5432"), want: finding.Fail, subject: tcp(5432)},
			{name: "127.0.0.1 and a link-local address", edit: sockets(pg, "tcp 127.0.0.1:5432", "tcp [fe80::8a3e:51ff:2b60:7c19]:5432"), want: finding.Fail, subject: tcp(5432)},
			{name: "an address that nobody has", edit: sockets(pg, "tcp 127.0.0.1:5432", "tcp [2001:db8:99::9]:5432"), want: finding.Pass, subject: tcp(5432)},
			{name: "an address of a local prefix", edit: edits(sockets(pg, "tcp 127.0.0.1:5432", "tcp [2001:db8:99::9]:5432"), anyIP), want: finding.Fail, subject: tcp(5432)},
			{name: "whether it is ours is not known", edit: edits(sockets(pg, "tcp 127.0.0.1:5432", "tcp [2001:db8:99::9]:5432"), func(s *fact.Snapshot) {
				s.Namespaces[0].Routes = fact.Missing[[]fact.Route](fact.Gap{Reason: fact.Truncated, What: "routes"})
			}), want: finding.Unknown, subject: tcp(5432)},
			{name: "an IPv4 address that nobody has", edit: edits(sockets(pg, "tcp 127.0.0.1:5432", "tcp 192.0.2.99:5432"), sockets6(pg, "tcp [::]:5432")), want: finding.Fail, subject: tcp(5432)},
			{name: "a local prefix and no other address", edit: edits(sockets(pg, "tcp 127.0.0.1:5432"), sockets6(pg, "tcp [::]:5432"), anyIP, func(s *fact.Snapshot) {
				dropAddresses(s, func(a fact.Address) bool { return a.Index == 2 && a.Prefix.Addr().Is6() })
			}), want: finding.Fail, subject: tcp(5432)},
			{name: "an address that was just added", edit: edits(sockets(pg, "tcp 127.0.0.1:5432"), sockets6(pg, "tcp [::]:5432"), func(s *fact.Snapshot) {
				dropAddresses(s, func(a fact.Address) bool { return a.Index == 2 && a.Prefix.Addr().Is6() })
				a := address(2, "2001:db8:1::77/64")
				a.Flags |= fact.AddrTentative
				addAddress(s, a)
			}), want: finding.Fail, severity: finding.Critical, subject: tcp(5432)},
			{name: "IPv6 side bound to a device that is down", edit: edits(sockets(pg, "tcp 127.0.0.1:5432"), sockets6(pg, "tcp [::]:5432"), device(func(l *fact.Link) { l.Flags &^= iffUp })), want: finding.Pass, subject: tcp(5432)},
			{name: "IPv6 side bound to a bridge port", edit: edits(sockets(pg, "tcp 127.0.0.1:5432"), sockets6(pg, "tcp [::]:5432"), device(func(l *fact.Link) { l.SlaveKind, l.Master = "bridge", 2 })), want: finding.Pass, subject: tcp(5432)},
			{name: "IPv6 side bound to a device without IPv6", edit: edits(sockets(pg, "tcp 127.0.0.1:5432"), sockets6(pg, "tcp [::]:5432"), device(func(l *fact.Link) {}), confs("x1", "disable_ipv6", "1")), want: finding.Pass, subject: tcp(5432)},
			{name: "IPv6 side bound to a VRF", edit: edits(sockets(pg, "tcp 127.0.0.1:5432"), sockets6(pg, "tcp [::]:5432"), device(func(l *fact.Link) { l.Kind = "vrf" })), want: finding.Fail, subject: tcp(5432)},
			{name: "UDP", edit: edits(sockets("/usr/sbin/named", "udp 127.0.0.1:53"), sockets6("/usr/sbin/named", "udp [::]:53")), want: finding.Fail, subject: udp(53)},
			{name: "loopback in both", edit: sockets(pg, "tcp 127.0.0.1:5432", "tcp [::1]:5432"), want: finding.Pass, subject: tcp(5432)},
			{name: "IPv4 is as wide", edit: edits(sockets(web, "tcp 127.0.0.1:80", "tcp 192.0.2.10:80"), sockets6(web, "tcp [::]:80")), want: finding.Pass, subject: tcp(80)},
			{name: "both wildcards", edit: edits(sockets(web, "tcp 0.0.0.0:80"), sockets6(web, "tcp [::]:80")), want: finding.Pass, subject: tcp(80)},
			{name: "IPv6 side bound to lo", edit: edits(sockets(pg, "tcp 127.0.0.1:5432"), sockets6(pg, "tcp [::]:5432"), lastSocket(func(k *fact.Socket) { k.Index = 1 })), want: finding.Pass, subject: tcp(5432)},
			{name: "nobody else is heard", edit: edits(sockets(pg, "tcp 127.0.0.1:5432"), sockets6(pg, "tcp [::]:5432"), onlyLoopbackUp), want: finding.Pass, subject: tcp(5432)},
			{name: "IPv6 is off", edit: edits(sockets(pg, "tcp 127.0.0.1:5432"), sockets6(pg, "tcp [::]:5432"), off), want: finding.Pass, subject: tcp(5432)},
			{name: "filtered", edit: edits(sockets(pg, "tcp 127.0.0.1:5432"), sockets6(pg, "tcp [::]:5432"), legacyFilter), want: finding.Unknown, subject: tcp(5432)},
			{name: "interfaces not read", edit: edits(sockets(pg, "tcp 127.0.0.1:5432"), sockets6(pg, "tcp [::]:5432"), func(s *fact.Snapshot) { s.Namespaces[0].Links = fact.Known[[]fact.Link]{} }), want: finding.Unknown, subject: tcp(5432)},
			{name: "in a second namespace", edit: lonely(func(n *fact.Namespace) {
				n.Sockets = fact.Value([]fact.Socket{bound("tcp 127.0.0.1:5432", false, 1), bound("tcp [::]:5432", true, 1)})
			}), want: finding.Fail, subject: finding.Subject{NetNS: "lab", Port: 5432}},
		},
		"LISTEN-04": {
			{name: "no contradiction", want: finding.Pass},
			{name: "AddressFamily inet, and [::]:22", edit: sshd(func(d *fact.SSHD) { d.AddressFamily = "inet" }), want: finding.Fail, subject: tcp(22)},
			{name: "ListenAddress 0.0.0.0, and [::]:22", edit: sshd(func(d *fact.SSHD) { d.Listen = []string{"0.0.0.0"} }), want: finding.Fail, subject: tcp(22)},
			{name: "listen_addresses is IPv4, and [::]:5432", edit: edits(sockets(pg, "tcp [::]:5432"), func(s *fact.Snapshot) {
				s.Host.Apps.Postgres = fact.Value([]fact.Postgres{{Listen: []string{"0.0.0.0"}, Port: 5432}})
			}), want: finding.Fail, subject: tcp(5432)},
			{name: "a program nobody configured here", edit: sockets("/opt/go/app", "tcp [::]:9001"), want: finding.Pass},
			{name: "sshd_config not read", edit: func(s *fact.Snapshot) {
				s.Host.Apps.SSHD = fact.Missing[fact.SSHD](fact.Gap{Reason: fact.Permission, What: "sshd_config"})
			}, want: finding.Unknown},
		},
		"LISTEN-05": {
			{name: "none", want: finding.Pass},
			{name: "a DHCP client", edit: func(s *fact.Snapshot) {
				addProcess(s, 905, "/sbin/dhclient")
				addSocket(s, fact.Socket{Family: "packet", Protocol: "packet", Number: 0x0800, State: "unconnected", Inode: 5, Owners: fact.Value([]int{905}), Source: "packet_diag"})
			}, want: finding.Pass},
			{name: "a packet socket of something else", edit: edits(legacyFilter, func(s *fact.Snapshot) {
				addProcess(s, 905, "/tmp/.x")
				addSocket(s, fact.Socket{Family: "packet", Protocol: "packet", Number: 3, State: "unconnected", Inode: 5, Owners: fact.Value([]int{905}), Source: "packet_diag"})
			}), want: finding.Fail, subject: finding.Subject{Process: "/tmp/.x", Proto: "packet"}},
			{name: "a raw socket of something else", edit: func(s *fact.Snapshot) {
				addProcess(s, 905, "/tmp/.x")
				addSocket(s, fact.Socket{Family: "ipv4", Protocol: "raw", Number: 253, State: "unconnected", Inode: 5, Owners: fact.Value([]int{905}), Source: "proc"})
			}, want: finding.Fail, subject: finding.Subject{Proto: "raw"}},
		},
		"LISTEN-07": {
			{name: "no service", edit: noSSHD, want: finding.Pass},
			{name: "sshd on all addresses", want: finding.Fail, severity: finding.Info, subject: finding.Subject{Interface: "eth0"}},
			{name: "filtered", edit: legacyFilter, want: finding.Unknown},
			{name: "bound to ::1", edit: edits(noSSHD, sockets(pg, "tcp [::1]:5432")), want: finding.Pass},
			{name: "bound to another device", edit: edits(noSSHD, sockets6(pg, "tcp [::]:5432"), device(func(*fact.Link) {})), want: finding.Pass, subject: finding.Subject{Interface: "eth0"}},
		},
		"LISTEN-08": {
			{name: "one namespace", want: finding.NotApplicable},
			{name: "a listener nobody audits", edit: lonely(nil), want: finding.Fail, severity: finding.High, subject: finding.Subject{NetNS: "lab"}},
			{name: "link-local only", edit: lonely(func(n *fact.Namespace) {
				n.Addresses = fact.Value([]fact.Address{address(1, "::1/128"), address(2, "fe80::2/64")})
			}), want: finding.Fail, severity: finding.Medium, subject: finding.Subject{NetNS: "lab"}},
			{name: "on a kube node", edit: lonely(nil), role: RoleKubeNode, want: finding.Fail, severity: finding.Low},
			{name: "filtered there", edit: lonely(func(n *fact.Namespace) {
				n.PacketFilter.Legacy = fact.Value([]fact.LegacyTable{{Family: "ipv6", Name: "filter", Hooks: 2}})
			}), want: finding.Unknown},
			{name: "loopback only", edit: lonely(func(n *fact.Namespace) {
				n.Sockets = fact.Value([]fact.Socket{bound("tcp [::1]:80", false, 1)})
			}), want: finding.Pass, subject: finding.Subject{NetNS: "lab"}},
		},
		"LISTEN-09": {
			{name: "published on both families", edit: sockets("/usr/bin/docker-proxy", "tcp 0.0.0.0:8080", "tcp [::]:8080"), want: finding.Fail, subject: tcp(8080)},
			{name: "published on loopback", edit: sockets("/usr/bin/docker-proxy", "tcp 127.0.0.1:8080"), want: finding.Pass, subject: tcp(8080)},
			{name: "filtered", edit: edits(sockets("/usr/bin/docker-proxy", "tcp [::]:8080"), legacyFilter), want: finding.Unknown},
			{name: "no Docker", want: finding.NotApplicable},
		},
		"LISTEN-10": {
			{name: "nothing on ::1", want: finding.NotApplicable},
			{name: "::1 is there", edit: sockets(pg, "tcp [::1]:5432"), want: finding.Pass},
			{name: "::1 is gone", edit: edits(sockets(pg, "tcp [::1]:5432"), func(s *fact.Snapshot) {
				dropAddresses(s, func(a fact.Address) bool { return a.Prefix.Addr() == netip.IPv6Loopback() })
			}), want: finding.Fail},
		},
		"LISTEN-11": {
			{name: "no lists", edit: match("AllowUsers", "root@192.0.2.*", "allow"), want: finding.Pass},
			{name: "DenyUsers for IPv4", edit: match("DenyUsers", "*@192.0.2.*", "deny"), want: finding.Fail, severity: finding.High},
			{name: "DenyUsers for both", edit: edits(match("DenyUsers", "*@192.0.2.*", "deny"), match("DenyUsers", "*@2001:db8::/32", "deny")), want: finding.Pass},
			{name: "Match Address for IPv4", edit: match("Match Address", "10.0.0.0/8,192.168.0.0/16", ""), want: finding.Fail, severity: finding.Medium},
			{name: "Match Address for both", edit: match("Match Address", "10.0.0.0/8,2001:db8::/32", ""), want: finding.Pass},
			{name: "sshd without IPv6", edit: edits(match("Match Address", "10.0.0.0/8", ""), sshd(func(d *fact.SSHD) { d.AddressFamily = "inet" })), want: finding.Pass},
			{name: "nginx denies IPv4 only", edit: acl(fact.SourcePattern{Keyword: "deny", Pattern: "203.0.113.0/24", Action: "deny", Origin: fact.Origin{File: "/etc/nginx/x", Line: 1}}), want: finding.Fail},
			{name: "nginx allows IPv4 and denies the rest", edit: acl(
				fact.SourcePattern{Keyword: "allow", Pattern: "203.0.113.0/24", Action: "allow", Origin: fact.Origin{File: "/etc/nginx/x", Line: 1}},
				fact.SourcePattern{Keyword: "deny", Pattern: "all", Action: "deny", Origin: fact.Origin{File: "/etc/nginx/x", Line: 2}}), want: finding.Pass},
			{name: "pg_hba wide open on IPv6", edit: hba("10.0.0.0/8 scram-sha-256", "::/0 scram-sha-256"), want: finding.Fail, severity: finding.High},
			{name: "pg_hba with both networks", edit: hba("10.0.0.0/8 scram-sha-256", "2001:db8::/32 scram-sha-256", "::1/128 trust"), want: finding.Pass},
			{name: "pg_hba with a mask, wide open on IPv6", edit: hba("10.0.0.0/255.0.0.0 md5", "::/0 md5"), want: finding.Fail},
			{name: "pg_hba rejects the rest of IPv6 first", edit: hba("10.0.0.0/8 md5", "::/0 reject", "::/0 md5"), want: finding.Pass},
			{name: "Match Address for all but a network", edit: edits(match("Match Address", "*", ""), match("Match Address", "!10.0.0.0/8", "")), want: finding.Pass},
			{name: "where nginx listens is no access list", edit: acl(fact.SourcePattern{Keyword: "listen", Pattern: "0.0.0.0:80", Origin: fact.Origin{File: "/etc/nginx/x", Line: 1}}), want: finding.NotApplicable},
			{name: "pg_hba open in both", edit: hba("0.0.0.0/0 scram-sha-256", "::/0 scram-sha-256"), want: finding.Pass},
		},
		"LISTEN-12": {
			{name: "no UDP", want: finding.NotApplicable},
			{name: "dual-stack wildcard", edit: sockets("/usr/sbin/snmpd", "udp [::]:161"), want: finding.Fail, severity: finding.High, subject: udp(161)},
			{name: "v6only gets it too", edit: sockets6("/usr/sbin/snmpd", "udp [::]:161"), want: finding.Fail, severity: finding.Low, subject: udp(161)},
			{name: "bound to ::1", edit: sockets6("/usr/sbin/chronyd", "udp [::1]:323"), want: finding.Pass, subject: udp(323)},
			{name: "a group that nobody joined", edit: sockets6("/usr/sbin/x", "udp [ff05::78]:161"), want: finding.Pass, subject: udp(161)},
			{name: "a group", edit: edits(sockets6("/usr/sbin/x", "udp [ff05::78]:161"), func(s *fact.Snapshot) {
				n := &s.Namespaces[0]
				n.Multicast = fact.Value(append(must(n.Multicast), fact.Membership{Index: 2, Group: netip.MustParseAddr("ff05::78")}))
			}), want: finding.Fail, severity: finding.Low, subject: udp(161)},
			{name: "bound to a mapped address", edit: sockets("/usr/sbin/snmpd", "udp [::ffff:192.0.2.10]:161"), want: finding.Pass, subject: udp(161)},
			{name: "IPv4 socket", edit: sockets("/usr/sbin/snmpd", "udp 0.0.0.0:161"), want: finding.NotApplicable},
			{name: "connected", edit: edits(sockets("/usr/sbin/snmpd", "udp [::]:161"), lastSocket(func(k *fact.Socket) { k.State = "connected" })), want: finding.NotApplicable},
			{name: "a client's port", edit: sockets("/usr/bin/x", "udp [::]:40123"), want: finding.Fail, severity: finding.Low},
			{name: "a kernel that may drop it", edit: edits(sockets("/usr/sbin/snmpd", "udp [::]:161"), kernel("5.10.0-28-amd64")), want: finding.Unknown},
			{name: "RHEL 9", edit: edits(sockets("/usr/sbin/snmpd", "udp [::]:161"), kernel("5.14.0-427.el9.x86_64")), want: finding.Fail},
			{name: "filtered", edit: edits(sockets("/usr/sbin/snmpd", "udp [::]:161"), legacyFilter), want: finding.Unknown},
			{name: "a tunnel of the kernel", edit: edits(sockets6("/x", "udp [::]:4789"), lastSocket(func(k *fact.Socket) { k.Owners, k.Inode = fact.Absent[[]int](), 0 })), want: finding.Pass},
		},
		"LISTEN-13": {
			{name: "not installed", want: finding.NotApplicable},
			{name: "default", edit: ban("auto", "iptables-multiport"), want: finding.Pass},
			{name: "switched off", edit: ban("no", "iptables-multiport"), want: finding.Fail},
			{name: "IPv4 action", edit: ban("auto", "iptables-ipset-proto4"), want: finding.Fail},
		},
		"LISTEN-14": {
			{name: "a port alone", edit: unit("default", "22"), want: finding.Fail},
			{name: "[::] and both", edit: unit("both", "[::]:22"), want: finding.Fail},
			{name: "addresses", edit: unit("ipv6-only", "0.0.0.0:22", "[::]:22"), want: finding.Pass},
			{name: "bindv6only", edit: edits(unit("default", "22"), sysctls("net/ipv6/bindv6only", "1")), want: finding.Pass},
			{name: "a path", edit: unit("", "/run/x.sock"), want: finding.NotApplicable},
		},
		"LISTEN-15": {
			{name: "IPv6 is on", want: finding.NotApplicable},
			{name: "off, and sshd on [::]", edit: off, want: finding.Fail, severity: finding.Info},
			{name: "off, and no IPv6 socket", edit: edits(off, noSSHD), want: finding.Pass},
		},
		"LISTEN-16": {
			{name: "none", want: finding.Pass},
			{name: "mDNS", edit: edits(sockets6("/usr/sbin/avahi-daemon", "udp [::]:5353"), join("ff02::fb")), want: finding.Fail, severity: finding.Low, subject: finding.Subject{Interface: "eth0"}},
			{name: "joined, nobody on the port", edit: join("ff02::fb"), want: finding.Pass},
			{name: "a workstation", edit: edits(sockets6("/usr/sbin/avahi-daemon", "udp [::]:5353"), join("ff02::fb")), role: RoleWorkstation, want: finding.Fail, severity: finding.Info},
			{name: "filtered", edit: edits(sockets6("/usr/lib/systemd/systemd-resolved", "udp [::]:5355"), join("ff02::1:3"), legacyFilter), want: finding.Unknown},
		},
	}
}

// BenchmarkListeners asks the LISTEN controls about a host with many sockets.
func BenchmarkListeners(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := crowdedHost(n)
			b.ReportAllocs()
			for b.Loop() {
				c := NewContext(s, RoleServer)
				for _, ctl := range listenControls() {
					_ = ctl.Eval(c)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/socket")
		})
	}
}

// crowdedHost has n sockets of every kind, on as few ports as that takes.
func crowdedHost(n int) *fact.Snapshot {
	s := host()
	ks := make([]fact.Socket, 0, n)
	a := netip.MustParseAddr("127.0.1.0")
	for i := range n {
		port := uint16(1 + i%30000)
		k := bound("tcp [::]:1", i%2 == 0, 812)
		switch i % 4 {
		case 1:
			a = a.Next()
			k = bound("tcp 127.0.0.1:1", false, 812)
			k.Local = a
		case 2:
			k = bound("udp [::]:1", true, 812)
		case 3:
			k = bound("udp 0.0.0.0:1", false, 812)
		}
		k.Port, k.Inode = port, uint64(i+1)
		ks = append(ks, k)
	}
	s.Namespaces[0].Sockets = fact.Value(ks)
	return s
}
