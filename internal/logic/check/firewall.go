package check

import (
	"slices"

	rules "github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// Sources of the controls on rules.
const (
	dumpSource = "the nf_tables, x_tables and ipset dumps of the namespace, evaluated for every source address"
	orderRule  = "Every base chain of every table on the packet's way sees it, by priority: accept is final for its chain only, drop for all."
)

// ruled fills in what controls on rules have in common.
func ruled(c Control) Control {
	c.Live = true
	if c.Source == "" {
		c.Source = dumpSource
	}
	if c.Rule == "" {
		c.Rule = orderRule
	}
	return c
}

func fixes(f ...finding.Remediation) []finding.Remediation { return f }

// firewallControls are the controls on the rules themselves: what they let in of
// each family, which ICMPv6 they keep from the host, and where they do not do what
// they look like.
func firewallControls() []Control {
	return slices.Concat(defaultControls(), lintControls(), icmpRuleControls(), guardControls(), exposureControls(), passageControls())
}

var (
	fromAnyone = []finding.Position{finding.FromInternet, finding.FromLink, finding.FromPod}
	fromLink   = []finding.Position{finding.FromLink}
)

func defaultControls() []Control {
	return []Control{
		ruled(Control{
			ID: "FW-01", Title: "IPv6 input is not denied by default", Severity: finding.Critical, Reason: "every port that anybody opens is open to the network at once", Positions: fromAnyone,
			What: "What becomes of a new TCP connection to a port that no rule names, by every interface.", Why: "iptables -P INPUT DROP and table ip leave IPv6 wide open.",
			Attack: "Connect over IPv6 to whatever listens.", Check: "Passes when nobody outside gets in to such a port. Critical when IPv4 is closed and IPv6 is not, medium when neither is, low in namespaces besides the host's own where neither is.",
			Fix: fixes(command("nft 'add table inet guard; add chain inet guard input { type filter hook input priority 0; policy drop; }'"), advice("Accept loopback, established, ICMPv6 errors, ND and MLD first, then the services.")), TradeOff: "A missing accept locks services, and the administrator, out.",
			Refs: cite("RFC 9099 §3.1", "CIS ip6tables 4.4.3.1", "CIS nftables 4.3.8"), Eval: evalDefaultDeny,
		}),
		ruled(Control{
			ID: "FW-02", Title: "The packet filter lets strangers' packets through this host", Severity: finding.Medium, Reason: "whether the kernel forwards at all is SYSCTL-FWD-01",
			Positions: fromAnyone, What: "New connections in by one interface and out by another, in namespaces that forward IPv6.", Why: "A drop in any base chain is final; an accept in another table does not help, and no forward chain lets everything pass.",
			Attack: "Send packets for the network behind this host through it.", Check: "On a router it fails when the rules drop everything it would forward; elsewhere when new connections pass.",
			Fix: fixes(command("nft 'add table ip6 nofwd; add chain ip6 nofwd forward { type filter hook forward priority 10; policy drop; }'")), TradeOff: "Containers and guests with IPv6 need accepts of their own.",
			Refs: cite("RFC 9099 §3.1", "CIS nftables 4.3.8"), Eval: forwardDefault,
		}),
		ruled(Control{
			ID: "FW-03", Title: "Rules open a port to one family and not to the other", Severity: finding.High, Reason: "somebody closed the port in the family they thought of", Positions: fromAnyone,
			What: "The ports that the rules name, TCP and UDP, asked over both families.", Why: "Two sets of rules drift apart.", Attack: "Use the family that is open.",
			Check: "Fails when IPv6 is surely wider than IPv4 at a port that rules name: low where nothing listens on it. IPv4 that is wider than IPv6 is informational.",
			Fix:   fixes(advice("Generate both families from one policy, e.g. one table inet.")), TradeOff: "Some differences are meant; waive those.", Refs: cite("RFC 9099 §2.7.1", "CIS Debian 12 4.2.6"), Eval: evalRuleParity,
		}),
		ruled(Control{
			ID: "FW-33", Title: "One base chain accepts a service and another one drops it", Severity: finding.Medium, Reason: "the service is cut off, and the rules look right",
			What: "Ports that rules name, traced through all base chains of both families.", Why: "Accept ends a packet's way through its own base chain only.", Attack: "None by itself.", Check: "Fails when a rule that names the port accepts it and a later chain of another table drops it.",
			Fix: fixes(advice("Accept the port in the table that drops it, or keep one table.")), TradeOff: "None.", Refs: cite("nft(8)"), Eval: drowned,
		}),
		ruled(Control{
			ID: "FW-43", Title: "Rules take a packet for an answer by its source port", Severity: finding.High, Reason: "the sender chooses the source port: every port is open to who knows the trick", Positions: fromAnyone,
			What: "New packets to a port that no rule names, from source ports 20, 53, 67, 80, 123 and 443.", Why: "Without connection tracking, answers can only be let in by what a sender writes.", Attack: "Connect from port 53, or 443.",
			Check: "Fails when such a packet gets in and one from an ordinary port does not.", Fix: fixes(command("nft insert rule inet FILTER input ct state established,related accept"), advice("Then delete the rule that accepts by source port.")),
			TradeOff: "Connection tracking costs memory.", Refs: cite("RFC 6092"), Eval: stateless,
		}),
	}
}

func lintControls() []Control {
	return []Control{
		lintControl(ruled(Control{
			ID: "FW-04", Title: "nf_tables and legacy iptables filter at the same time", Severity: finding.Medium, Reason: "nft list ruleset does not show half of the rules; what they do is judged together", Positions: fromAnyone,
			What: "Tables of both kinds with rules on the packet's way.", Why: "Both must let a packet pass; each tool shows one half.", Attack: "None by itself: it hides mistakes.",
			Check: "Fails when both have rules or a drop policy on prerouting, input or forward.", Fix: fixes(command("iptables-legacy-save; ip6tables-legacy-save"), advice("Move the rules to one of them and flush the other.")),
			TradeOff: "None.", Refs: cite("CIS Debian 12 4.1.1"),
		}), rules.LintNFTAndLegacy),
		lintControl(ruled(Control{
			ID: "FW-05", Title: "Two firewall managers keep rules", Severity: finding.Medium, Reason: "each believes to be alone and undoes the other", Positions: fromAnyone,
			What: "Tables by the names that firewalld and ufw give them.", Why: "What one opens the other closes, and a reload of either changes the order.", Attack: "None by itself.",
			Check: "Fails when tables of two host managers have rules.", Fix: fixes(advice("Stop and disable one of them.")), TradeOff: "None.", Refs: cite("CIS Debian 12 4.1.1"),
		}), rules.LintTwoManagers),
		lintControl(ruled(Control{
			ID: "FW-06", Title: "A rule tests ip6 nexthdr and misses packets with extension headers", Severity: finding.Medium, Reason: "a drop is evaded by one Hop-by-Hop header; RA-01 and FW-01 weigh what gets in", Positions: fromAnyone,
			What: "Rules that compare the next-header byte of the IPv6 header and have a verdict.", Why: "That byte is the first header, not the transport protocol.", Attack: "Put an extension header in front.",
			Check: "Each such rule fails.", Fix: fixes(advice("Use icmpv6 type, tcp dport or meta l4proto without ip6 nexthdr.")), TradeOff: "None.", Refs: cite("RFC 7045", "RFC 7112"),
		}), rules.LintNextHeader),
		lintControl(ruled(Control{
			ID: "FW-07", Title: "A chain or table with rules is never reached", Severity: finding.Medium, Reason: "protection that is written down and does not run", Positions: fromAnyone,
			What: "Regular chains that no reached rule jumps to, and dormant tables.", Why: "It looks like a guard and guards nothing.", Attack: "What the chain was to stop goes through.", Check: "Follows every jump, goto and verdict map from the base chains.",
			Fix: fixes(advice("Jump to the chain before the accepts, or give it a hook, or remove it.")), TradeOff: "A guard that begins to work can drop what was let through.", Refs: cite("nft(8)"),
		}), rules.LintUnhookedChain, rules.LintDormantTable, rules.LintEmptyJump, rules.LintEmptyBase),
		lintControl(ruled(Control{
			ID: "FW-08", Title: "A limit or drop comes after a rule that accepts the same packets", Severity: finding.Medium, Reason: "the later rule never applies",
			What: "Rules whose every packet an earlier rule of the chain has taken.", Why: "Order decides, and a rule that never applies is believed to.", Attack: "Flood what was to be limited.", Check: "Proven from the rules' own tests only.",
			Fix: fixes(advice("Move the rule before the one that shadows it.")), TradeOff: "The limit begins to work.", Refs: cite("nft(8)"),
		}), rules.LintShadowedLimit, rules.LintShadowedDrop, rules.LintDeadRule, rules.LintUnreachable, rules.LintDuplicate, rules.LintNeverMatches, rules.LintRedundantErrors),
		lintControl(ruled(Control{
			ID: "FW-09", Title: "A set or object that no rule uses", Severity: finding.Low, Reason: "it suggests protection that is not there",
			What: "Named sets, maps and stateful objects without a rule that refers to them.", Why: "A set called flood protection that nothing fills protects nothing.", Attack: "None by itself.", Check: "Counts the references.",
			Fix: fixes(advice("Use it or remove it.")), TradeOff: "A program may fill and use it later.", Refs: cite("nft(8)"),
		}), rules.LintUnusedSet, rules.LintUnusedObject),
		lintControl(ruled(Control{
			ID: "FW-28", Title: "A rule names an interface by the number of one that is gone", Severity: finding.Medium, Reason: "the rule has silently stopped to match",
			What: "iif and oif with an ifindex that no interface has.", Why: "An interface that is made anew gets a new number.", Attack: "Traffic takes another rule, or the policy.", Check: "Compares the numbers with the interfaces of the namespace.",
			Fix: fixes(advice("Use iifname and oifname, and reload.")), TradeOff: "Names cost nanoseconds more.", Refs: cite("nft(8)"),
		}), rules.LintStaleInterface),
		lintControl(ruled(Control{
			ID: "FW-34", Title: "A rule logs without a limit", Severity: finding.Low, Reason: "a sender fills the log and hides in it",
			What: "Rules that log and have no rate in front of it.", Why: "Each packet is a line: disks fill, and journald drops what matters.", Attack: "Send a million packets that are logged.", Check: "Each such rule fails.",
			Fix: fixes(advice("Put a limit in front: limit rate 5/minute burst 10 packets log …")), TradeOff: "Not every packet is logged.", Refs: cite("nft(8)"),
		}), rules.LintLogUnlimited),
	}
}

func icmpRuleControls() []Control {
	transit := ruled(Control{
		ID: "FW-14", Title: "The packet filter breaks ICMPv6 for those behind this router", Severity: finding.High, Reason: "path MTU discovery through it fails",
		What: "The messages of RFC 4890 §4.3, in by one interface and out by another, where this namespace forwards.", Why: "A router that drops packet-too-big makes black holes for everybody behind it.", Attack: "None: a black hole.",
		Check: "Errors 1 to 4 of a known connection must pass on some way on which established connections do; reserved types should not, which is informational.",
		Fix:   fixes(command("nft insert rule inet FILTER forward ct state established,related accept")), TradeOff: "None.", Refs: cite("RFC 4890 §4.3"),
	})
	transit.Positions = fromAnyone
	transit.Eval = evalTransit
	return []Control{
		messageControl(ruled(Control{
			ID: "FW-10", Title: "The packet filter drops neighbour discovery", Severity: finding.Critical, Reason: "the host loses its neighbours, the gateway first", Positions: fromLink,
			What: "Neighbour solicitations and advertisements (ICMPv6 135, 136) in and out, to the host and to its solicited-node group; router advertisements where an interface lives by them.", Why: "Without them there is no IPv6 on the link.", Attack: "None: the host cuts itself off.", Check: "Fails when every such message is surely dropped.",
			Fix: fixes(command("nft insert rule inet FILTER input icmpv6 type '{ nd-neighbor-solicit, nd-neighbor-advert }' accept")), TradeOff: "None: the kernel checks hop limit 255 itself.", Refs: cite("RFC 4890 §4.4.1", "RFC 4861"),
		}), neighbourMessages),
		messageControl(ruled(Control{
			ID: "FW-11", Title: "The packet filter drops MLD", Severity: finding.Critical, Reason: "behind a switch with snooping the host vanishes after minutes", Positions: fromLink,
			What: "MLD queries (ICMPv6 130) in from link-local sources, with their router-alert option, and MLDv2 reports (143) out.", Why: "A host that answers no query is taken off its solicited-node groups.", Attack: "None: the host cuts itself off.",
			Check: "Fails when every query, or every report, is surely dropped. The messages carry a Hop-by-Hop header, so ip6 nexthdr does not see them. Reports of others matter to multicast routers only.",
			Fix:   fixes(command("nft insert rule inet FILTER input icmpv6 type '{ mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report }' accept")), TradeOff: "None.", Refs: cite("RFC 4890 §4.4.1", "RFC 3810", "RFC 4541"),
		}), mldMessages),
		messageControl(ruled(Control{
			ID: "FW-13", Title: "The packet filter drops ICMPv6 errors of its own connections", Severity: finding.High, Reason: "path-MTU discovery breaks: connections stall", Positions: fromAnyone,
			What: "Errors 1 to 4 that belong to a connection (ct state related), in and out, and the answers to pings.", Why: "Routers do not fragment IPv6; packet-too-big is the only way to learn a smaller MTU.", Attack: "None: a black hole.", Check: "Packet-too-big that is surely dropped is high, the other errors are low.",
			Fix: fixes(command("nft insert rule inet FILTER input ct state established,related accept")), TradeOff: "None.", Refs: cite("RFC 4890 §4.4.1", "RFC 8201"),
		}), errorMessages),
		transit,
		messageControl(ruled(Control{
			ID: "FW-15", Title: "The packet filter lets ICMPv6 redirects in", Severity: finding.Low, Reason: "SYSCTL-RED-01 says whether the kernel acts on them",
			What: "Redirects (ICMPv6 137) from link-local sources.", Why: "Accept lists that name whole ranges of types let them through; conntrack calls them invalid.", Attack: "Send a redirect that names the gateway as its source.", Check: "Passes when every redirect is surely dropped.",
			Fix: fixes(command("nft insert rule inet FILTER input icmpv6 type nd-redirect drop")), TradeOff: "None where one router serves the link.", Refs: cite("RFC 4890 §4.4.4"),
		}), redirectMessages),
		messageControl(ruled(Control{
			ID: "FW-16", Title: "The packet filter lets in ICMPv6 that no host needs", Severity: finding.Info, Reason: "the kernel answers none of them; a program might",
			What: "Router renumbering, node information, mobile IPv6, experimental and unallocated types.", Why: "An accept of all ICMPv6 takes in what nobody has looked at.", Attack: "Node information queries list names and addresses where a program answers.", Check: "Passes when they are dropped.",
			Fix: fixes(advice("Accept the types that RFC 4890 §4.4 lists, and let the policy drop the rest.")), TradeOff: "Mobile IPv6 needs 144 to 147.", Refs: cite("RFC 4890 §4.4.5"),
		}), needlessMessages),
	}
}

func guardControls() []Control {
	return []Control{
		ruled(Control{
			ID: "RA-01", Title: "No rule keeps rogue router advertisements from an interface that takes them", Severity: finding.High, Reason: "any neighbour can become the default router", Positions: fromLink,
			What: "Router advertisements from link-local sources, plain and behind extension headers, on interfaces where the kernel or a program takes them.", Why: "A guard that is not hooked, comes after an accept or tests ip6 nexthdr does not run.", Attack: "Send one advertisement with a short preference.", Check: "Passes when only single addresses, or nobody, get one in, in every form that the taker accepts.",
			Fix: fixes(command("nft insert rule inet FILTER input ip6 saddr != fe80::ROUTER icmpv6 type nd-router-advert drop")), TradeOff: "A router that is replaced has a new address.", Refs: cite("RFC 6105", "RFC 9099 §2.3.2.1"), Eval: evalRAGuard,
		}),
		ruled(Control{
			ID: "RA-14", Title: "A program would act on fragmented or hidden router advertisements", Severity: finding.High, Reason: "the kernel's refusal of fragments (suppress_frag_ndisc) does not cover programs", Positions: fromLink,
			Source: "network managers, raw ICMPv6 sockets; " + dumpSource,
			What:   "Interfaces on which a program takes router advertisements, and what becomes of those in fragments or behind Hop-by-Hop and Destination Options headers.", Why: "systemd-networkd and dhcpcd were seen to act on both; a switch's RA guard does not see them.", Attack: "Send the advertisement in two fragments.",
			Check: "Passes when the rules drop every such form of strangers. Medium where plain advertisements get in as well.", Fix: fixes(command("nft 'add table inet ndsane; add chain inet ndsane raw { type filter hook prerouting priority -450; }; add rule inet ndsane raw icmpv6 type 133-137 exthdr frag exists drop'")),
			TradeOff: "None known: no router sends them.", Refs: cite("RFC 6980", "RFC 7113"), Eval: evalHiddenRA,
		}),
		ruled(Control{
			ID: "FW-12", Title: "Nothing limits how many neighbours a sender can make up", Severity: finding.Low, Reason: "the neighbour table is bounded by the kernel (NDP-01); a limit keeps it useful", Positions: fromLink,
			What: "Neighbour solicitations from link-local sources.", Why: "Each made-up source is an entry.", Attack: "Send a thousand solicitations a second.", Check: "Passes when a rate limits them, or they are dropped.",
			Fix: fixes(advice("Limit 133, 135 and 136 by ether saddr at prerouting.")), TradeOff: "A sender that changes its MAC address evades it: port security on the switch does not.", Refs: cite("RFC 9099 §2.3.1", "RFC 6583"), Eval: senderLimit,
		}),
		ruled(Control{
			ID: "FW-17", Title: "The limit of echo requests does not limit", Severity: finding.Low, Reason: "a ping flood costs little on today's hosts",
			What: "The first echo request of a ping, and the following ones, which conntrack calls established.", Why: "A limit behind the accept of established packets sees the first request only; one limit for all lets one sender use it up.", Attack: "ping -f.", Check: "Fails when the first request is limited and the following ones are not, and when the limit is not by sender.",
			Fix: fixes(advice("Limit echo requests by sender, before established packets are accepted.")), TradeOff: "Monitoring that pings often is limited, too.", Refs: cite("RFC 4443 §5.2"), Eval: echoLimit,
		}),
		ruled(Control{
			ID: "FW-18", Title: "Packets with a source from another interface's network get in", Severity: finding.High, Reason: "rules that trust that source open their ports to everybody", Positions: fromAnyone,
			What: "On hosts with several networks: new packets by one interface with a source from behind another, to the ports that rules name.", Why: "IPv6 has no rp_filter; only rules drop such packets.", Attack: "Write the trusted address into the packet. One datagram can be enough; TCP needs the answer, which a neighbour on the path may see.",
			Check: "High when such a packet gets in where one from a stranger does not; low when strangers get in as well. Not applicable with one network.",
			Fix:   fixes(command("nft 'add table ip6 rpf; add chain ip6 rpf raw { type filter hook prerouting priority -300; }; add rule ip6 rpf raw fib saddr . iif oif missing drop'")), TradeOff: "Asymmetric routes need the loose form (fib saddr oif missing).", Refs: cite("RFC 2827 (BCP 38)", "RFC 3704 (BCP 84)"), Eval: spoofing,
		}),
		ruled(Control{
			ID: "FW-20", Title: "Packets with an IPv4-mapped source get in", Severity: finding.High, Reason: "a dual-stack UDP service takes the sender for this host", Positions: fromAnyone,
			What: "Datagrams from ::ffff:127.0.0.1 to dual-stack UDP services, and to the host.", Why: "The kernel hands them over; to the program the peer is 127.0.0.1.", Attack: "Send one forged datagram to a service that trusts localhost.", Check: "High when one gets in to a dual-stack UDP service, low when none would be fooled.",
			Fix: fixes(command("nft 'add table ip6 nomapped; add chain ip6 nomapped raw { type filter hook prerouting priority -300; }; add rule ip6 nomapped raw ip6 saddr ::ffff:0:0/96 drop'")), TradeOff: "None.", Refs: cite("RFC 4942 §2.2"), Eval: mappedRule,
		}),
		ruled(Control{
			ID: "FW-22", Title: "A router forwards packets from addresses that are nobody's", Severity: finding.Low, Reason: "they cannot be answered; they help to hide",
			What: "Transit packets from documentation, site-local, discard-only, SRv6 and private 6to4 prefixes, on routers.", Why: "Only forged packets have such sources.", Attack: "Floods that cannot be traced.", Check: "Fails when one is forwarded from an uplink.",
			Fix: fixes(command("nft insert rule inet FILTER forward ip6 saddr '{ 2001:db8::/32, 3fff::/20, fec0::/10, 100::/64, 5f00::/16 }' drop")), TradeOff: "Labs use the documentation prefixes.", Refs: cite("RFC 6890", "RFC 9637"),
			Eval: edgeFilter("special-sources", bogonKinds, "The rules forward ", bogonFix),
		}),
		ruled(Control{
			ID: "FW-23", Title: "A router forwards type 0 routing headers", Severity: finding.Low, Reason: "Linux hosts refuse them; others behind the router may not",
			What: "Transit packets with a routing header of type 0, on routers.", Why: "Type 0 bounces packets between two hosts and is abolished.", Attack: "One packet crosses a link dozens of times.", Check: "Fails when one is forwarded. What this host itself does with routing headers is SYSCTL-SR-01 to 03.",
			Fix: fixes(command("nft insert rule inet FILTER forward rt type 0 drop")), TradeOff: "None.", Refs: cite("RFC 5095", "RFC 9288"),
			Eval: edgeFilter("routing-headers", routingKinds, "The rules forward ", routingFix),
		}),
		ruled(Control{
			ID: "FW-24", Title: "Neighbour discovery in fragments reaches a kernel that takes it", Severity: finding.High, Reason: "it evades the RA guard of switches", Positions: fromLink,
			What: "Neighbour discovery messages in one or two fragments, and suppress_frag_ndisc.", Why: "RFC 6980 forbids them; only attackers send them.", Attack: "Send a router advertisement in two fragments.", Check: "Passes when the rules drop them or the kernel refuses them.",
			Fix: fixes(command("nft insert rule inet FILTER prerouting icmpv6 type 133-137 exthdr frag exists drop"), command("sysctl -w net.ipv6.conf.IFACE.suppress_frag_ndisc=1")), TradeOff: "None.", Refs: cite("RFC 6980", "RFC 8900"), Eval: fragments,
		}),
		ruled(Control{
			ID: "FW-27", Title: "The packet filter drops DHCPv6 replies that the host needs", Severity: finding.High, Reason: "the lease cannot be renewed and the address goes",
			Positions: fromLink, What: "UDP from port 547 of a link-local server to port 546, on interfaces with a DHCPv6 client.", Why: "The client asks a multicast address, so that conntrack calls the reply new.", Attack: "None: the host cuts itself off.", Check: "Fails when every reply is dropped.",
			Fix: fixes(command("nft insert rule inet FILTER input ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept")), TradeOff: "None.", Refs: cite("RFC 8415"), Eval: dhcpReplies,
		}),
		ruled(Control{
			ID: "FW-40", Title: "Forward rules do not see packets between the ports of a bridge", Severity: finding.Info, Reason: "it matters where ports must be kept apart", Positions: []finding.Position{finding.FromPod},
			Source: "/proc/sys/net/bridge/bridge-nf-call-ip6tables, the bridges and the rules", What: "Bridges with several ports in namespaces whose rules filter forwarded IPv6.", Why: "Bridged packets meet the chains of family bridge only, unless br_netfilter hands them up.",
			Attack: "A pod reaches its neighbour on the same bridge past every policy.", Check: "Fails when bridge-nf-call-ip6tables is 0 or absent; medium on Kubernetes nodes.", Fix: fixes(command("modprobe br_netfilter && sysctl -w net.bridge.bridge-nf-call-ip6tables=1"), advice("Or filter in a table of family bridge.")),
			TradeOff: "Every bridged packet passes the rules and connection tracking.", Refs: cite("CIS Kubernetes 5.3"), Eval: bridgedPackets,
		}),
		ruled(Control{
			ID: "FW-41", Title: "Rules let multicast discovery in on a server", Severity: finding.Info, Reason: "it tells neighbours who is here; LISTEN-16 says whether something answers", Positions: fromLink,
			What: "mDNS, LLMNR and SSDP queries to their groups.", Why: "ufw and others accept them by default.", Attack: "Ask, and read names and services.", Check: "Fails when the rules deny by default and let one of them in; workstations are left out.",
			Fix: fixes(command("nft insert rule inet FILTER input ip6 daddr '{ ff02::fb, ff02::1:3, ff02::c }' drop")), TradeOff: "Discovery ends.", Refs: cite("RFC 6762", "RFC 4795"), Eval: discoveryRules,
		}),
	}
}

func exposureControls() []Control {
	return []Control{
		ruled(Control{
			ID: "LISTEN-03", Title: "Service is open over IPv6 and closed over IPv4", Severity: finding.Critical, Reason: "the filter of one family was forgotten", Positions: fromAnyone,
			What: "Listeners that take both families, and who gets in over each.", Why: "A dual-stack socket needs two filters that agree.", Attack: "Connect over IPv6.", Check: "Fails when IPv6 surely lets more in than IPv4 at a port that takes both: critical where IPv6 is open to the internet, high where it is open to some.",
			Fix: fixes(advice("Give the port the same rule in both families.")), TradeOff: "IPv6 clients lose the service.", Refs: cite("RFC 4942", "RFC 9099 §2.7.1"), Eval: evalListenerParity,
		}),
		ruled(Control{
			ID: "LISTEN-06", Title: "Who gets to each listener, per family", Severity: finding.Info, Reason: "an inventory of what outsiders get to",
			What: "Every listener joined with the addresses and the rules.", Why: "A socket on all addresses is exposed only as far as the rules let it.", Attack: "Use what is open.", Check: "Passes when nobody outside gets in.",
			Fix: fixes(command("sixfence reach"), intent("services:\n  - {name: NAME, ports: [tcp/PORT]}")), TradeOff: "None: this only lists.", Refs: cite("CIS Debian 12 4.2.6"), Eval: evalExposure,
		}),
	}
}

func passageControls() []Control {
	return []Control{
		ruled(Control{
			ID: "FW-36", Title: "Nothing limits what leaves over IPv6", Severity: finding.Info, Reason: "most hosts are built that way; it matters where data must not get out",
			What: "A new connection of an ordinary user from this host to a port that no rule names.", Why: "What got in can call home, and IPv6 is often the way nobody watches.", Attack: "Send the loot over IPv6.", Check: "Passes when new connections leave only where a rule lets them.",
			Fix: fixes(command("nft 'add table inet egress; add chain inet egress output { type filter hook output priority 0; policy drop; }'"), advice("Accept loopback, established, ICMPv6, DNS and what the host needs first.")), TradeOff: "Every program's destinations have to be known.", Refs: cite("RFC 9099 §2.7.2"), Eval: egressDefault,
		}),
		ruled(Control{
			ID: "TUN-06", Title: "Encapsulated packets may leave", Severity: finding.Info, Reason: "it takes a program with the right to send them; medium where the rules limit what leaves otherwise", Positions: []finding.Position{finding.FromLocal},
			What: "Protocols 41 and 97 over IPv4, 4 and 41 over IPv6, Teredo, TSP and AYIYA, and the 6to4 relay.", Why: "Inside is another packet that no rule looks at, and the answer comes in as established.", Attack: "A tunnel through the firewall, set up from inside.", Check: "Passes when all of them are dropped on the way out.",
			Fix:      fixes(command("nft 'add table inet notunnel; add chain inet notunnel output { type filter hook output priority 0; }; add rule inet notunnel output meta nfproto ipv4 meta l4proto { 41, 97 } drop; add rule inet notunnel output ip daddr 192.88.99.0/24 drop; add rule inet notunnel output udp dport { 3544, 3653, 5072 } drop; add rule inet notunnel output meta nfproto ipv6 meta l4proto { 4, 41 } drop'")),
			TradeOff: "Tunnel brokers and Teredo end. Encrypted tunnels look like any other traffic.", Refs: cite("RFC 7123 App. A", "RFC 6169 §2"), Eval: tunnelEgress,
		}),
		ruled(Control{
			ID: "TUN-07", Title: "Encapsulated packets from unknown peers get in", Severity: finding.Low, Reason: "without a device that opens them they are answered with an error; medium with one", Positions: fromAnyone,
			What: "Protocols 4, 41 and 47 from any sender, over both families.", Why: "What is inside comes in a second time, by the tunnel's interface, with a source of the sender's choice.", Attack: "Send an inner packet from a trusted address.", Check: "Passes when they are dropped, or accepted from single peers only.",
			Fix: fixes(command("nft insert rule inet FILTER input meta l4proto '{ 4, 41, 47 }' ip saddr != PEER drop")), TradeOff: "Tunnels need their peers listed.", Refs: cite("RFC 6169 §2", "RFC 4891"), Eval: tunnelIngress,
		}),
	}
}

func firewallDispositions() []Disposition {
	var out []Disposition
	for _, d := range []struct{ id, title, because string }{
		{"FW-19", "::1 on a wire", "the kernel drops it whatever the rules say."},
		{"FW-21", "Multicast sources", "the kernel drops them whatever the rules say."},
		{"FW-25", "Incomplete header chains", "the kernel refuses them whatever the rules say."},
		{"FW-26", "Unknown extension headers", "a policy, not a defect: FW-01 says what becomes of packets that no rule names."},
		{"FW-29", "Loopback accept", "nothing fails without it that FW-01 would not show."},
		{"FW-30", "Gateway pin by rule", "NDP-06 asks the rules whether a message can change the gateway's entry."},
		{"FW-31", "Files that flush the whole ruleset", "files of rules are not read: what is loaded is judged."},
		{"FW-32", "Rules after the next boot", "files of rules are not read: what is loaded is judged."},
		{"FW-35", "Reject or drop", "a choice: `sixfence reach` shows which."},
		{"FW-37", "ufw and IPv6", "what ufw's rules do is in the ruleset: FW-01 and FW-03 judge it."},
		{"FW-38", "firewalld options", "what they do is in the ruleset: FW-18 judges the reverse path filter."},
		{"FW-39", "Docker and IPv6", "what it does is in the ruleset: `sixfence reach` lists published ports, LISTEN-09 its proxies."},
		{"FW-42", "Rules are hit", "counters prove nothing about an attack that has not come."},
	} {
		out = append(out, Disposition{ID: d.id, Title: d.title, State: "dropped", Because: d.because})
	}
	return out
}
