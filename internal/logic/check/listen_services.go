package check

import "github.com/sixfence/sixfence/internal/model/finding"

// serviceControls are the LISTEN controls about what services are configured to do.
func serviceControls() []Control {
	return []Control{
		{
			ID: "LISTEN-11", Title: "Access list names IPv4 sources and leaves IPv6 to the default",
			Severity: finding.High, Reason: "a denied client comes back over IPv6",
			Positions: []finding.Position{finding.FromInternet, finding.FromLink},
			Source:    "sshd_config (Match Address, DenyUsers, AllowUsers), pg_hba.conf, hosts.deny, nginx and Apache access rules",
			Rule:      "A pattern for IPv4 matches no IPv6 client. A deny list without an IPv6 twin lets IPv6 through; an allow list without one keeps it out. sshd and libwrap turn mapped addresses back into IPv4 before they compare.",
			What:      "Lists of client addresses inside applications, compared between families.",
			Why:       "Rules about who may do what were written when there was one family.",
			Attack:    "Connect over IPv6, by which the deny rule, or the Match block that takes a permission away, does not apply.",
			Check:     "A deny list, or a Match Address block, with IPv4 patterns and no IPv6 one fails where a catch-all does not close the rest. For pg_hba.conf: any IPv6 client is let in while IPv4 is limited to networks. Allow lists pass.",
			Fix: []finding.Remediation{
				command("sshd -T -C addr=2001:db8::1,user=root,host=x | head"),
				advice("Write the IPv6 twin of each pattern, or end the list with a deny for everybody."),
				intent("services:\n  - {name: ssh, ports: [tcp/22], from: [\"192.0.2.0/24\", \"2001:db8:aa::/48\"]}"),
			},
			TradeOff: "IPv6 prefixes of clients have to be known: use /64 or shorter, single addresses change.",
			Refs:     cite("RFC 9099 §2.7.1", "RFC 4942 §2.2"),
			Eval:     aclParity,
		},
		{
			ID: "LISTEN-13", Title: "fail2ban does not ban IPv6 clients",
			Severity: finding.Medium, Reason: "guessing passwords goes on over the other family",
			Source: "fail2ban's configuration (allowipv6, banaction)",
			Rule:   "With allowipv6 = no fail2ban ignores IPv6 addresses; a ban action for one family bans in that family only. Bans are for single addresses: an attacker with a /64 has 2^64 of them.",
			What:   "Whether bans cover IPv6 at all.",
			Why:    "Rate limits and bans are often the only thing between a login and a list of passwords.",
			Attack: "Try passwords over IPv6; where bans work, from a new address of the same /64 after each ban.",
			Check:  "allowipv6 must not be no, and the ban action must not be one for IPv4 alone.",
			Fix: []finding.Remediation{
				command("printf '[Definition]\\nallowipv6 = auto\\n' >/etc/fail2ban/fail2ban.local && systemctl restart fail2ban"),
				intent("services:\n  - {name: ssh, ports: [tcp/22], from: [\"2001:db8:aa::/48\"]}"),
			},
			TradeOff: "Banning a whole /64 also bans its other users.",
			Refs:     cite("RFC 9099 §2.6", "RFC 7707"),
			Eval:     fail2banCovers,
		},
		{
			ID: "LISTEN-14", Title: "Socket unit takes both families without saying so",
			Severity: finding.Low, Reason: "often meant, never visible in the unit",
			Source: ".socket units that are enabled (ListenStream=, ListenDatagram=, BindIPv6Only=), net.ipv6.bindv6only",
			Rule:   "systemd binds a unit that names only a port to [::]; with BindIPv6Only=default the sysctl bindv6only decides whether IPv4 comes in too, and its default is that it does.",
			What:   "Enabled socket units with a port alone or with [::].",
			Why:    "The unit, not the service's own configuration, decides the family.",
			Attack: "As LISTEN-04: the service's configuration says IPv4, the unit listens on both.",
			Check:  "Units that name addresses, or set BindIPv6Only=ipv6-only, pass.",
			Fix: []finding.Remediation{
				command("systemctl edit NAME.socket   # [Socket] ListenStream= / ListenStream=0.0.0.0:PORT / ListenStream=[::]:PORT / BindIPv6Only=ipv6-only"),
				intent("services:\n  - {name: NAME, ports: [tcp/PORT]}"),
			},
			TradeOff: "Two sockets instead of one.",
			Refs:     cite("systemd.socket(5) BindIPv6Only=", "RFC 3493 §5.3"),
			Eval:     socketUnits,
		},
		{
			ID: "LISTEN-15", Title: "IPv6 is switched off and services still hold IPv6 sockets", Live: true,
			Severity: finding.Info, Reason: "harmless until somebody switches IPv6 on again",
			Source: "IPv6 sockets on ::, disable_ipv6 of every interface",
			Rule:   "disable_ipv6=1 takes addresses away, not the address family: binding :: works and serves IPv4 when it is dual-stack. ipv6.disable=1 on the kernel command line makes the socket call fail instead.",
			What:   "Wildcard IPv6 sockets in namespaces whose interfaces all have IPv6 off.",
			Why:    "A listing shows [::]:22 on a host that has no IPv6, which is correct. It also means that the services are there the moment an interface gets IPv6.",
			Attack: "None by itself; see INV-03 for what brings IPv6 back.",
			Check:  "Informational.",
			Fix: []finding.Remediation{
				advice("Bind the services to IPv4 (sshd: AddressFamily inet), or boot with ipv6.disable=1 if no program needs ::1."),
				intent("families: disabled"),
			},
			TradeOff: "Programs that expect AF_INET6 fail with ipv6.disable=1.",
			Refs:     cite("kernel Documentation/networking/ipv6", "RFC 7123 §2"),
			Eval:     socketsWithoutStack,
		},
		{
			ID: "LISTEN-16", Title: "Multicast discovery service answers neighbours", Live: true,
			Severity: finding.Low, Reason: "discloses names and services, and can be abused to divert them; same link only",
			Source: "multicast memberships (RTM_GETMULTICAST or /proc/net/igmp6) and UDP sockets on 5353, 5355, 1900, 123",
			Rule:   "A service is heard by its link when the group is joined on the interface and a socket is bound to its port.",
			What:   "mDNS, LLMNR, SSDP and multicast NTP on interfaces besides loopback.",
			Why:    "They tell neighbours what runs here. LLMNR and mDNS also let a neighbour answer the host's own questions.",
			Attack: "Answer an LLMNR or mDNS query with the own address and collect the credentials that follow.",
			Check:  "On servers, routers and nodes none; on a workstation it is informational.",
			Fix: []finding.Remediation{
				command("mkdir -p /etc/systemd/resolved.conf.d && printf '[Resolve]\\nLLMNR=no\\nMulticastDNS=no\\n' >/etc/systemd/resolved.conf.d/90-multicast.conf && systemctl restart systemd-resolved"),
				command("systemctl disable --now avahi-daemon.socket avahi-daemon.service"),
				intent("role: server"),
			},
			TradeOff: "Printers, casting and .local names stop working.",
			Refs:     cite("RFC 6762 §21", "RFC 4795 §5", "RFC 9099 §2.8"),
			Eval:     multicastServices,
		},
	}
}
