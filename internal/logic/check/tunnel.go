package check

import "github.com/sixfence/sixfence/internal/model/finding"

// tunnelControls are the controls on tunnels and transition mechanisms: devices
// that exist, modules that can be loaded, and programs that carry packets.
func tunnelControls() []Control { return append(tunnelDeviceControls(), tunnelModuleControls()...) }

func tunnelDeviceControls() []Control {
	outside := []finding.Position{finding.FromInternet, finding.FromLink}
	local := []finding.Position{finding.FromLocal}
	return []Control{
		{
			ID: "TUN-01", Title: "Tunnel device present that nothing on this host explains", Live: true,
			Severity: finding.High, Reason: "a device that takes packets from any peer lets outsiders send as if from inside; others are lower",
			Positions: outside,
			Source:    "RTM_GETLINK kind and tunnel attributes, in every namespace; the role",
			Rule:      "A sit device without a remote (6to4, ISATAP, 6rd) decapsulates protocol 41 from every IPv4 sender; ipip, GRE and ip6tnl without a remote likewise. The inner packet comes in again on the tunnel device, past rules written for the outer one. WireGuard, IPsec and TLS tunnels authenticate their peers.",
			What:      "Devices of every tunnelling kind that are no fallback device (TUN-02), with their peer.",
			Why:       "Policy is written for the interfaces people know. A tunnel is another interface, often with IPv6 where the site has none.",
			Attack:    "Send one IPv4 packet with protocol 41 to the host: the IPv6 packet inside is delivered, with any source.",
			Check:     "High when any peer is taken and the device is up; medium with one peer and no authentication; low when down; informational for authenticated VPNs. What a role expects (overlays on a Kubernetes node, taps on a hypervisor) passes.",
			Fix: []finding.Remediation{
				command("ip -d link show; ip link del DEVICE"),
				intent("tunnels:\n  - {mechanism: wireguard, peer: \"198.51.100.7\"}   # or: tunnels: deny"),
			},
			TradeOff: "What used the tunnel loses its path.",
			Refs:     cite("RFC 6169", "RFC 7123 §3", "RFC 4891"),
			Eval:     tunnelDevices,
		},
		{
			ID: "TUN-02", Title: "Fallback tunnel device is up", Live: true,
			Severity: finding.High, Reason: "an up fallback device decapsulates what no configured tunnel claims",
			Positions: outside,
			Source:    "RTM_GETLINK sit0, tunl0, gre0, ip6tnl0, ip6gre0 … in every namespace",
			Rule:      "Loading a tunnel module makes a device without any peer, in every namespace unless net.core.fb_tunnels_only_for_init_net says otherwise. While it is down it takes nothing; when up, it takes every packet of its protocol that matches no other tunnel.",
			What:      "The devices that tunnel modules make by themselves, and whether they are up.",
			Why:       "ip link set up on such a device, or a script for all interfaces, opens the host to encapsulated packets from anybody.",
			Attack:    "As TUN-01, with no tunnel configured at all.",
			Check:     "Up fails (tunl0 on a Kubernetes node passes: Calico's IPIP uses it); down passes.",
			Fix: []finding.Remediation{
				command("ip link set DEVICE down; sysctl -w net.core.fb_tunnels_only_for_init_net=1; modprobe -r sit"),
				intent("tunnels: deny"),
			},
			TradeOff: "None where no tunnel of that kind is in use.",
			Refs:     cite("RFC 6169 §2", "kernel sysctl net.core.fb_tunnels_only_for_init_net"),
			Eval:     fallbackDevices,
		},
		{
			ID: "TUN-08", Title: "Transition addresses are in use", Live: true,
			Severity: finding.Medium, Reason: "shows that packets leave or enter by a transition mechanism",
			Positions: outside,
			Source:    "RTM_GETADDR, RTM_GETROUTE, RTM_GETNEIGH",
			Rule:      "2002::/16 is 6to4, 2001::/32 Teredo, interface identifiers 0000:5efe and 0200:5efe ISATAP, 64:ff9b::/96 and 64:ff9b:1::/48 NAT64. A route that discards such a prefix is a defence.",
			What:      "Addresses, usable routes and neighbours in the prefixes of transition mechanisms.",
			Why:       "6to4 and Teredo carry IPv6 through relays that anybody may run, under the IPv4 policy of the site.",
			Attack:    "Whoever runs the relay sees and changes the traffic; whoever sends protocol 41 or UDP 3544 gets in.",
			Check:     "Addresses and routes fail, neighbours fail with low severity; NAT64 prefixes are informational.",
			Fix: []finding.Remediation{
				command("ip -6 addr show | grep -E ' (2002|2001:0):'; ip -6 route add unreachable 2002::/16; ip -6 route add unreachable 2001::/32"),
				intent("tunnels: deny"),
			},
			TradeOff: "Hosts without native IPv6 lose it.",
			Refs:     cite("RFC 7526", "RFC 6169", "RFC 4380", "RFC 5214", "RFC 6052"),
			Eval:     transitionAddresses,
		},
		{
			ID: "TUN-09", Title: "Tunnel daemon is running or enabled",
			Severity: finding.Medium, Reason: "it moves packets past the policy of the network it runs in",
			Positions: append(outside, finding.FromLocal),
			Source:    "processes by executable, systemd units that are enabled",
			Rule:      "Teredo (miredo) and the tunnel brokers run in user space over /dev/net/tun and UDP: no kernel module and no protocol-41 rule stops them.",
			What:      "Programs whose purpose is to carry packets inside others.",
			Why:       "Each is a way in and out that the packet filter sees as one UDP or TLS flow.",
			Attack:    "A Teredo client can be reached from the whole IPv6 internet through its NAT.",
			Check:     "Transition and covert tunnels (miredo, aiccu, gogoc, isatapd, iodine, dns2tcp, chisel) fail with medium severity; VPN programs and translators are informational. Units that are enabled and do not run fail as well.",
			Fix: []finding.Remediation{
				command("systemctl disable --now miredo"),
				intent("tunnels: deny"),
			},
			TradeOff: "What uses the tunnel loses its path.",
			Refs:     cite("RFC 4380 §7", "RFC 7123 §3", "RFC 6169"),
			Eval:     tunnelDaemons,
		},
		{
			ID: "TUN-10", Title: "Program takes tunnel packets from a raw socket", Live: true,
			Severity: finding.High, Reason: "encapsulated packets are handled by a program, not by the kernel's rules",
			Positions: append(outside, finding.FromLocal),
			Source:    "raw sockets with protocol 4, 41, 47, 97, 98, 115 or 137 and their owners",
			Rule:      "A raw socket gets every packet of its protocol that passes the input chain, with or without a tunnel module. What the program does with the inner packet no rule of the host decides.",
			What:      "Raw sockets for protocols that carry other packets.",
			Why:       "Blocking modules does not stop a tunnel that needs none.",
			Attack:    "A planted program bridges protocol 41 to the inside, or carries data out.",
			Check:     "Any such socket fails; programs known to terminate GRE (pptpd, pptp, accel-pppd) are medium. Behind a packet filter the answer is unknown.",
			Fix: []finding.Remediation{
				command("ss -4wnp; ss -6wnp"),
				intent("tunnels: deny"),
			},
			TradeOff: "The program's tunnel stops.",
			Refs:     cite("RFC 6169 §2", "RFC 7123 §3.1"),
			Eval:     tunnelRawSockets,
		},
		{
			ID: "TUN-12", Title: "A DHCP server may set up a 6rd tunnel here",
			Severity: finding.Low, Reason: "off by default, needs a rogue DHCP server",
			Positions: []finding.Position{finding.FromLink},
			Source:    "Use6RD= of systemd-networkd",
			Rule:      "With Use6RD=yes networkd makes a sit device from DHCPv4 option 212.",
			What:      "Interfaces whose manager accepts a 6rd configuration by DHCPv4.",
			Why:       "IPv6 connectivity then comes from whoever answers DHCP over IPv4.",
			Attack:    "Answer DHCPv4 with option 212 and the own address as the relay.",
			Check:     "Use6RD=yes in any settings of a manager that runs or is enabled.",
			Fix: []finding.Remediation{
				command("mkdir -p /etc/systemd/network/NAME.network.d && printf '[DHCPv4]\\nUse6RD=no\\n' >/etc/systemd/network/NAME.network.d/90-6rd.conf && networkctl reload"),
				intent("tunnels: deny"),
			},
			TradeOff: "Sites whose provider offers only 6rd lose IPv6.",
			Refs:     cite("RFC 5969 §12", "systemd.network(5) Use6RD="),
			Eval:     sixRDByDHCP,
		},
		{
			ID: "TUN-13", Title: "IPv6 leaves beside the VPN that carries IPv4", Live: true,
			Severity: finding.High, Reason: "traffic meant for the tunnel leaves in the clear",
			Positions: []finding.Position{finding.FromLink, finding.FromInternet},
			Source:    "RTM_GETRULE and RTM_GETROUTE of both families, kinds of the interfaces they lead to",
			Rule:      "The families have routing tables and rules of their own. A tunnel that takes over 0.0.0.0/0 (or its two halves) changes nothing for ::/0.",
			What:      "Where a packet to the internet goes, per family, by the rules and tables as they are.",
			Why:       "Programs prefer IPv6 where they can. Most of the traffic then goes past the VPN, although the VPN is up.",
			Attack:    "The link or the provider sees the traffic. A neighbour can cause it on an IPv4-only link by sending one RA.",
			Check:     "The IPv4 default leads to a VPN device and the IPv6 default to another kind of device. No IPv6 default, or one that discards, passes. With rules whose conditions cannot be decided the answer is unknown.",
			Fix: []finding.Remediation{
				command("ip -6 route add unreachable ::/0 metric 1"),
				advice("Or let the VPN carry IPv6: AllowedIPs = 0.0.0.0/0, ::/0 for WireGuard; redirect-gateway ipv6 for OpenVPN."),
				intent("families: disabled"),
			},
			TradeOff: "Without IPv6 in the VPN the host has no IPv6 while it is up.",
			Refs:     cite("RFC 7359"),
			Eval:     vpnLeak,
		},
		{
			ID: "TUN-14", Title: "Overlay endpoint would take frames from any sender", Live: true,
			Severity: finding.High, Reason: "an unauthenticated frame is delivered into the overlay's network",
			Positions: append(outside, finding.FromPod),
			Source:    "VXLAN and Geneve devices that are up, their UDP port and VNI",
			Rule:      "The kernel's receiver looks up the VNI and delivers the inner frame; it does not compare the outer source with the device's remote or its forwarding table. Only a packet filter on the UDP port does.",
			What:      "VXLAN, Geneve and bareudp devices that are up.",
			Why:       "Whoever can send UDP to the port and guesses a 24-bit number (often 1, 42 or 4096) is inside.",
			Attack:    "Send an RA, an ARP answer or a spoofed packet inside one UDP datagram: it appears on the overlay's device or bridge as if from a peer.",
			Check:     "Any such device fails where nothing filters inbound IPv4 and IPv6 of the underlay, and behind a filter that lets anybody in.",
			Fix: []finding.Remediation{
				command("nft add table inet guard; nft add chain inet guard in '{ type filter hook input priority 0; }'; nft add rule inet guard in udp dport '{ 4789, 8472, 6081 }' ip saddr != PEERS drop"),
				intent("tunnels:\n  - {mechanism: vxlan, peer: \"192.0.2.0/24\"}"),
			},
			TradeOff: "The list of peers has to follow the cluster. Encryption (WireGuard, IPsec) needs none.",
			Refs:     cite("RFC 7348 §7", "RFC 8926 §6"),
			Eval:     overlayEndpoints,
		},
		{
			ID: "TUN-11", Title: "Unprivileged users can make network namespaces and tunnel devices", Live: true,
			Severity: finding.Low, Reason: "reaches kernel code, not other hosts; medium where modules can be loaded that way",
			Positions: local,
			Source:    "kernel.unprivileged_userns_clone, user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns, mode of /dev/net/tun, module state",
			Rule:      "In a user namespace of his own everybody has CAP_NET_ADMIN over the network namespaces made there. Asking for a link of a kind that is not loaded makes the kernel load its module by alias.",
			What:      "Whether an unprivileged user may create user namespaces.",
			Why:       "Tunnel code that no administrator ever used becomes reachable; most local privilege escalations of recent years began there.",
			Attack:    "unshare -Urn ip link add type sit: the module is loaded and its ioctls and netlink code can be attacked.",
			Check:     "Fails when user namespaces are open to everybody. /dev/net/tun being writable by all is the distributions' default and gives a device only to those with CAP_NET_ADMIN.",
			Fix: []finding.Remediation{
				command("printf 'user.max_user_namespaces = 0\\n' >/etc/sysctl.d/60-userns.conf && sysctl -p /etc/sysctl.d/60-userns.conf"),
				advice("On Debian kernel.unprivileged_userns_clone=0, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=1 closes it for users and keeps it for services."),
				intent("tunnels: deny"),
			},
			TradeOff: "Rootless containers, browsers' sandboxes and bubblewrap need user namespaces.",
			Refs:     cite("user_namespaces(7)", "ANSSI-BP-028 R10"),
			Eval:     unprivilegedNamespaces,
		},
	}
}

func tunnelDispositions() []Disposition {
	return []Disposition{
		{ID: "TUN-15", Title: "Tunnels seen on the uplink", State: "needs wire", Because: "signatures are matched against packets."},
	}
}
