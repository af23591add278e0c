package check

import "github.com/sixfence/sixfence/internal/model/finding"

// routerControls are the controls on router advertisements outside the kernel's
// own processing: who takes them in user space, who sends them, and what stands
// between guests.
func routerControls() []Control {
	link := []finding.Position{finding.FromLink, finding.FromPod}
	userspace := "The daemon reads RAs from a raw ICMPv6 socket and installs addresses and routes itself: it does so with net.ipv6.conf.*.accept_ra=0 everywhere, and takes fragmented RAs that the kernel refuses (suppress_frag_ndisc). Only its own configuration or a packet filter stops it."
	why := "The host follows whoever announces itself as a router, while every sysctl and every benchmark that reads sysctls says that it does not."
	attack := "Any machine on the link sends one router advertisement. The host takes a default route, an address and, mostly, DNS servers from it; its traffic goes through the attacker."
	return []Control{
		{
			ID: "RA-02", Title: "systemd-networkd would accept rogue router advertisements",
			Severity: finding.Critical, Reason: "one packet from a neighbour redirects the host's traffic",
			Positions: link,
			Source:    "*.network files and their drop-ins (IPv6AcceptRA=, [IPv6AcceptRA]), /run/systemd/netif/links, the running process",
			Rule:      userspace + " The default of IPv6AcceptRA= is yes on interfaces that do not forward.",
			What:      "What systemd-networkd, where it runs or is enabled, does with router advertisements on each interface it manages.",
			Why:       why, Attack: attack,
			Check: "The .network file that applies to the interface (the running networkd's own word, else the first file whose [Match] covers it). IPv6AcceptRA=no passes. An interface that lives by RAs passes with RouterAllowList= and fails with a lower severity without.",
			Fix: []finding.Remediation{
				command("mkdir -p /etc/systemd/network/NAME.network.d && printf '[Network]\\nIPv6AcceptRA=no\\n' >/etc/systemd/network/NAME.network.d/90-ra.conf && networkctl reload"),
				intent("interfaces:\n  IFACE:\n    addressing: static"),
			},
			TradeOff: "An interface without a static address and route loses IPv6 at once: give it both first, or set RouterAllowList= to the routers' link-local addresses (which a neighbour can forge).",
			Refs:     cite("RFC 6104", "RFC 9099 §2.3.2", "systemd.network(5) IPv6AcceptRA="),
			Eval:     func(c *Context) []Result { return c.advertisementsTakenBy("systemd-networkd") },
		},
		{
			ID: "RA-03", Title: "NetworkManager would accept rogue router advertisements",
			Severity: finding.Critical, Reason: "one packet from a neighbour redirects the host's traffic",
			Positions: link,
			Source:    "NetworkManager keyfiles and ifcfg files (ipv6.method), netplan; parsed, not run",
			Rule:      userspace + " ipv6.method auto and dhcp take RAs; manual, link-local and disabled do not; ignore leaves them to the kernel.",
			What:      "What NetworkManager, where it runs or is enabled, does with router advertisements in each connection profile.",
			Why:       why, Attack: attack,
			Check: "The profile that names the interface. Which profile is active is NetworkManager's own state and is not asked; profiles without an interface name apply to any.",
			Fix: []finding.Remediation{
				command("nmcli connection modify NAME ipv6.method manual ipv6.addresses ADDR/64 ipv6.gateway fe80::1 && nmcli connection up NAME"),
				intent("interfaces:\n  IFACE:\n    addressing: static"),
			},
			TradeOff: "NetworkManager has no list of allowed routers: an interface that needs RAs can only be protected by the switch or a packet filter.",
			Refs:     cite("RFC 6104", "RFC 9099 §2.3.2", "nm-settings(5) ipv6.method"),
			Eval:     func(c *Context) []Result { return c.advertisementsTakenBy("NetworkManager", "netplan") },
		},
		{
			ID: "RA-04", Title: "A DHCP or interface manager would accept rogue router advertisements",
			Severity: finding.Critical, Reason: "one packet from a neighbour redirects the host's traffic",
			Positions: link,
			Source:    "dhcpcd.conf, /etc/network/interfaces, connman's configuration, the running process",
			Rule:      "dhcpcd and connman read RAs from a raw socket and install routes and addresses themselves, with accept_ra=0 everywhere. ifupdown takes none: it writes the kernel's accept_ra when it brings an interface up.",
			What:      "What dhcpcd, connman and ifupdown do with router advertisements on each interface.",
			Why:       why, Attack: attack,
			Check: "dhcpcd takes RAs unless noipv6rs or noipv6 covers the interface. For ifupdown the value it writes is compared with the running one; the kernel's own decision is SYSCTL-RA-01.",
			Fix: []finding.Remediation{
				command("printf 'interface IFACE\\nnoipv6rs\\n' >>/etc/dhcpcd.conf && systemctl restart dhcpcd"),
				intent("interfaces:\n  IFACE:\n    addressing: static"),
			},
			TradeOff: "An interface without a static address and route loses IPv6 when its lifetimes end.",
			Refs:     cite("RFC 6104", "RFC 9099 §2.3.2", "dhcpcd.conf(5) noipv6rs", "interfaces(5) accept_ra"),
			Eval:     func(c *Context) []Result { return c.advertisementsTakenBy("dhcpcd", "connman", "ifupdown") },
		},
		{
			ID: "RA-05", Title: "A program listens for router advertisements on a raw socket", Live: true,
			Severity: finding.High, Reason: "what it does with an RA is out of the kernel's hands",
			Positions: link,
			Source:    "raw ICMPv6 sockets (inet_diag or /proc/net/raw6, protocol 58) joined with their owners",
			Rule:      "A raw ICMPv6 socket is given RAs that the kernel itself refuses: with accept_ra=0, with hop limit 254, and reassembled from fragments whatever suppress_frag_ndisc says. The packet filter's input hook comes first.",
			What:      "Raw ICMPv6 sockets and the executables that hold them.",
			Why:       "An RA client that runs is the one fact that decides whether sysctls about RAs mean anything on this host.",
			Attack:    "As RA-02: one advertisement, with the added freedom of fragments and extension headers that an RA guard in a switch may miss.",
			Check:     "Known RA clients fail: high where interfaces have static addresses, medium where they live by RAs. Programs known to use such sockets for other things (ping, radvd, keepalived, routing daemons) pass. Others fail with low severity.",
			Fix: []finding.Remediation{
				advice("Configure the client (RA-02, RA-03, RA-04) or stop it."),
				intent("interfaces:\n  IFACE:\n    addressing: static"),
			},
			TradeOff: "Interfaces that get their addresses from RAs need the client.",
			Refs:     cite("RFC 6104", "RFC 6980", "RFC 7113"),
			Eval:     rawICMPv6,
		},
		{
			ID: "RA-10", Title: "This host sends router advertisements and is no router", Live: true,
			Severity: finding.High, Reason: "it draws its neighbours' traffic to itself",
			Positions: []finding.Position{finding.FromLink, finding.FromLocal},
			Source:    "processes (radvd, corerad, rad), raw ICMPv6 sockets of dnsmasq and bird, IPv6SendRA= of networkd, the role, all.forwarding",
			Rule:      "Every host on the link that takes RAs makes the sender its default router. What the sender does not forward is lost.",
			What:      "Daemons that announce this host as an IPv6 router, against its role and whether it forwards.",
			Why:       "A forgotten radvd, or one that somebody planted, reroutes a whole segment; without forwarding it also cuts it off.",
			Attack:    "Whoever controls this host controls the path of its neighbours.",
			Check:     "A sender fails on a role that does not route, and on any role while the namespace does not forward IPv6.",
			Fix: []finding.Remediation{
				command("systemctl disable --now radvd"),
				intent("role: router"),
			},
			TradeOff: "Hosts that rely on these RAs lose their default route when its lifetime ends.",
			Refs:     cite("RFC 6104 §2", "RFC 4861 §6.2.2"),
			Eval:     sendsRA,
		},
		{
			ID: "RA-11", Title: "DNS servers would be taken from any router advertisement", Live: true,
			Severity: finding.High, Reason: "whoever answers DNS chooses where connections go, without any change of route",
			Positions: link,
			Source:    "UseDNS= of networkd, the managers' RA settings, a running rdnssd; resolv.conf and the servers per link",
			Rule:      "The kernel ignores RDNSS options; the RA client in user space hands them to the resolver. networkd, NetworkManager and dhcpcd do so by default wherever they take RAs.",
			What:      "Whether a program on this host takes DNS servers from RAs, and from which routers.",
			Why:       "An RDNSS option needs no default route and no forwarding: the host keeps its path and asks the attacker for names.",
			Attack:    "Send an RA with router lifetime 0 and an RDNSS option. Most resolvers ask the newest or the IPv6 server first.",
			Check:     "An interface on which a running manager takes RAs and their DNS servers, without a list of allowed routers.",
			Fix: []finding.Remediation{
				command("mkdir -p /etc/systemd/network/NAME.network.d && printf '[IPv6AcceptRA]\\nUseDNS=no\\n' >/etc/systemd/network/NAME.network.d/90-ra-dns.conf && networkctl reload"),
				intent("interfaces:\n  IFACE:\n    addressing: static"),
			},
			TradeOff: "DNS servers must then be configured by hand or come by DHCPv6, which is as easily forged.",
			Refs:     cite("RFC 8106 §7", "RFC 6104"),
			Eval:     dnsFromRA,
		},
		{
			ID: "RA-12", Title: "Ports of a bridge may send router advertisements to each other", Live: true,
			Severity: finding.Medium, Reason: "one guest or container can reroute the others and the host",
			Positions: []finding.Position{finding.FromPod, finding.FromLink},
			Source:    "RTM_GETLINK bridges and their ports (isolated flag, kind), nf_tables bridge chains, ebtables, bridge-nf-call-ip6tables",
			Rule:      "A bridge forwards frames between its ports without asking the host's input chain. Only the bridge family, ebtables, a program on the port, ip6 forward rules with bridge-nf-call-ip6tables=1, or isolated ports stand in between.",
			What:      "Bridges with two or more guest ports (veth, tap) that nothing keeps apart.",
			Why:       "Guests and containers bring their own IPv6 stack, which takes RAs by default.",
			Attack:    "A container with CAP_NET_RAW, or a guest, sends one RA to ff02::1; every neighbour on the bridge that takes RAs routes through it (CVE-2020-10749).",
			Check:     "No filter of any kind that bridged frames pass, and at least one pair of ports of which a guest's port is not isolated. With any filter present the answer is unknown until rules are analysed.",
			Fix: []finding.Remediation{
				command("bridge link set dev PORT isolated on"),
				command("nft add table bridge guard; nft add chain bridge guard forward '{ type filter hook forward priority 0; }'; nft add rule bridge guard forward iifname '{ PORT }' icmpv6 type nd-router-advert drop"),
				intent("role: hypervisor"),
			},
			TradeOff: "Isolated ports cannot talk to each other at all; the rule only stops RAs.",
			Refs:     cite("RFC 6105", "CVE-2020-10749", "RFC 7113"),
			Eval:     bridgeGuard,
		},
	}
}

func routerDispositions() []Disposition {
	return []Disposition{
		{ID: "RA-06", Title: "Census of the routers on the link", State: "needs wire", Because: "with accept_ra=0 the kernel keeps nothing of an RA: it has to be heard."},
		{ID: "RA-07", Title: "Content of router advertisements", State: "needs wire", Because: "preference, lifetimes and options have to be read from the messages."},
		{ID: "RA-08", Title: "Router advertisements that hide behind extension headers or fragments", State: "needs wire", Because: "the headers are gone when the kernel has taken the message."},
		{ID: "RA-09", Title: "Flood of router advertisements or solicitations", State: "needs wire", Because: "a rate has to be measured on the link; its traces are SYSCTL-RA-16 and NDP-02."},
		{ID: "RA-13", Title: "RA guard in the switch", State: "dropped", Because: "no fact on a host tells what its switch drops; an active test or the operator's word is needed."},
	}
}
