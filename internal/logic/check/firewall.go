package check

import "github.com/sixfence/sixfence/internal/model/finding"

// firewallControls are the controls on the rules themselves: what they let in of
// each family, which ICMPv6 they keep from the host, and where they do not do what
// they look like.
func firewallControls() []Control {
	anyone := []finding.Position{finding.FromInternet, finding.FromLink, finding.FromPod}
	link := []finding.Position{finding.FromLink}
	const dump = "the nf_tables, x_tables and ipset dumps of the namespace, evaluated for every source address"
	const order = "Every base chain of every table on the packet's way sees it, by priority: accept is final for its chain only, drop for all."
	add := func(c Control) Control {
		c.Live = true
		if c.Source == "" {
			c.Source = dump
		}
		if c.Rule == "" {
			c.Rule = order
		}
		return c
	}
	fw := func(f finding.Remediation, more ...finding.Remediation) []finding.Remediation {
		return append([]finding.Remediation{f}, more...)
	}
	return []Control{
		add(Control{
			ID: "FW-01", Title: "IPv6 input is not denied by default", Severity: finding.Critical, Reason: "every port that anybody opens is open to the network at once", Positions: anyone,
			What: "What becomes of a new TCP connection to a port that no rule names, by every interface.", Why: "iptables -P INPUT DROP and table ip leave IPv6 wide open.",
			Attack: "Connect over IPv6 to whatever listens.", Check: "Pass when nobody outside surely gets in to such a port; critical when IPv4 is closed and IPv6 is not, medium when neither is.",
			Fix: fw(command("nft add chain inet FILTER input '{ policy drop; }'"), advice("Accept loopback, established, ICMPv6 errors, ND and MLD first, then the services.")), TradeOff: "A missing accept locks services, and the administrator, out.",
			Refs: cite("RFC 9099 §3.1", "CIS ip6tables 4.4.3.1", "CIS nftables 4.3.8"), Eval: evalDefaultDeny,
		}),
		add(Control{
			ID: "FW-03", Title: "Rules open a port over IPv6 and not over IPv4", Severity: finding.High, Reason: "somebody closed the port in the family they thought of", Positions: anyone,
			What: "The ports that the rules name, asked over both families.", Why: "Two sets of rules drift apart.", Attack: "Use the family that is open.",
			Check: "Fails when IPv6 is surely wider than IPv4 at a port that rules name.", Fix: fw(advice("Generate both families from one policy, e.g. one table inet.")),
			TradeOff: "Some differences are meant; waive those.", Refs: cite("RFC 9099 §2.7.1", "CIS Debian 12 4.2.6"), Eval: evalRuleParity,
		}),
		lintControl(add(Control{
			ID: "FW-04", Title: "nf_tables and legacy iptables filter at the same time", Severity: finding.High, Reason: "nft list ruleset does not show half of the rules", Positions: anyone,
			What: "Tables of both kinds with rules on the packet's way.", Why: "Both must let a packet pass; each tool shows one half.", Attack: "None by itself: it hides mistakes.",
			Check: "Fails when both have rules or a drop policy on prerouting, input or forward.", Fix: fw(command("iptables-legacy-save; ip6tables-legacy-save"), advice("Move the rules to one of them and flush the other.")),
			TradeOff: "None.", Refs: cite("CIS Debian 12 4.1.1"),
		}), "nft-and-legacy"),
		lintControl(add(Control{
			ID: "FW-05", Title: "Two firewall managers keep rules", Severity: finding.High, Reason: "each believes to be alone and undoes the other", Positions: anyone,
			What: "Tables by the names that firewalld and ufw give them.", Why: "What one opens the other closes, and a reload of either changes the order.", Attack: "None by itself.",
			Check: "Fails when tables of two host managers have rules.", Fix: fw(advice("Stop and disable one of them.")), TradeOff: "None.", Refs: cite("CIS Debian 12 4.1.1"),
		}), "two-managers"),
		lintControl(add(Control{
			ID: "FW-06", Title: "A rule tests ip6 nexthdr and misses packets with extension headers", Severity: finding.High, Reason: "a drop is evaded by one Hop-by-Hop header", Positions: anyone,
			What: "Rules that compare the next-header byte of the IPv6 header and have a verdict.", Why: "That byte is the first header, not the transport protocol.", Attack: "Put an extension header in front.",
			Check: "Each such rule fails.", Fix: fw(advice("Use icmpv6 type, tcp dport or meta l4proto without ip6 nexthdr.")), TradeOff: "None.", Refs: cite("RFC 7045", "RFC 7112"),
		}), "ip6-nexthdr"),
		lintControl(add(Control{
			ID: "FW-07", Title: "A chain with rules is never reached", Severity: finding.High, Reason: "protection that is written down and does not run", Positions: anyone,
			What: "Regular chains that no reached rule jumps to.", Why: "It looks like a guard and guards nothing.", Attack: "What the chain was to stop goes through.", Check: "Follows every jump, goto and verdict map from the base chains.",
			Fix: fw(advice("Jump to the chain before the accepts, or give it a hook, or remove it.")), TradeOff: "A guard that begins to work can drop what was let through.", Refs: cite("nft(8)"),
		}), "unhooked-chain"),
		lintControl(add(Control{
			ID: "FW-08", Title: "A limit or drop comes after a rule that accepts the same packets", Severity: finding.Medium, Reason: "the later rule never applies",
			What: "Rules whose every packet an earlier rule of the chain has taken.", Why: "Order decides, and a rule that never applies is believed to.", Attack: "Flood what was to be limited.", Check: "Proven from the rules' own tests only.",
			Fix: fw(advice("Move the rule before the one that shadows it.")), TradeOff: "The limit begins to work.", Refs: cite("nft(8)"),
		}), "shadowed-limit", "shadowed-drop", "dead-rule"),
		lintControl(add(Control{
			ID: "FW-09", Title: "A set or object that no rule uses", Severity: finding.Low, Reason: "it suggests protection that is not there",
			What: "Named sets, maps and stateful objects without a rule that refers to them.", Why: "A set called flood protection that nothing fills protects nothing.", Attack: "None by itself.", Check: "Counts the references.",
			Fix: fw(advice("Use it or remove it.")), TradeOff: "A program may fill and use it later.", Refs: cite("nft(8)"),
		}), "unused-set", "unused-object"),
		lintControl(add(Control{
			ID: "FW-28", Title: "A rule names an interface by the number of one that is gone", Severity: finding.Medium, Reason: "the rule has silently stopped to match",
			What: "iif and oif with an ifindex that no interface has.", Why: "An interface that is made anew gets a new number.", Attack: "Traffic takes another rule, or the policy.", Check: "Compares the numbers with the interfaces of the namespace.",
			Fix: fw(advice("Use iifname and oifname, and reload.")), TradeOff: "Names cost nanoseconds more.", Refs: cite("nft(8)"),
		}), "stale-iif"),
		messageControl(add(Control{
			ID: "FW-10", Title: "The packet filter drops neighbour discovery", Severity: finding.Critical, Reason: "the host loses its neighbours, the gateway first", Positions: link,
			What: "Neighbour solicitations and advertisements (ICMPv6 135, 136) from link-local sources.", Why: "Without them there is no IPv6 on the link.", Attack: "None: the host cuts itself off.", Check: "Fails when every such message is surely dropped.",
			Fix: fw(command("nft insert rule inet FILTER input icmpv6 type '{ nd-neighbor-solicit, nd-neighbor-advert }' accept")), TradeOff: "None: the kernel checks hop limit 255 itself.", Refs: cite("RFC 4890 §4.4.1", "RFC 4861"),
		}), true, 135, 136),
		messageControl(add(Control{
			ID: "FW-11", Title: "The packet filter drops MLD queries", Severity: finding.Critical, Reason: "behind a switch with snooping the host vanishes after minutes", Positions: link,
			What: "MLD queries (ICMPv6 130) from link-local sources, with their router-alert option.", Why: "A host that answers no query is taken off its solicited-node groups.", Attack: "None: the host cuts itself off.", Check: "Fails when every query is surely dropped. The messages carry a Hop-by-Hop header, so ip6 nexthdr does not see them.",
			Fix: fw(command("nft insert rule inet FILTER input icmpv6 type '{ mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report }' accept")), TradeOff: "None.", Refs: cite("RFC 4890 §4.4.1", "RFC 3810", "RFC 4541"),
		}), true, 130),
		messageControl(add(Control{
			ID: "FW-13", Title: "The packet filter drops ICMPv6 errors of its own connections", Severity: finding.High, Reason: "path-MTU discovery breaks: connections stall", Positions: anyone,
			What: "Errors 1 to 4 that belong to a connection (ct state related).", Why: "Routers do not fragment IPv6; packet-too-big is the only way to learn a smaller MTU.", Attack: "None: a black hole.", Check: "Fails when every such error is surely dropped.",
			Fix: fw(command("nft insert rule inet FILTER input ct state established,related accept")), TradeOff: "None.", Refs: cite("RFC 4890 §4.4.1", "RFC 8201"),
		}), true, 1, 2, 3, 4),
		messageControl(add(Control{
			ID: "FW-15", Title: "The packet filter lets ICMPv6 redirects in", Severity: finding.Medium, Reason: "a neighbour can turn the way of packets where the kernel accepts redirects",
			What: "Redirects (ICMPv6 137) from link-local sources.", Why: "Accept lists that name whole ranges of types let them through; conntrack calls them invalid.", Attack: "Send a redirect that names the gateway as its source.", Check: "Passes when every redirect is surely dropped.",
			Fix: fw(command("nft insert rule inet FILTER input icmpv6 type nd-redirect drop")), TradeOff: "None where one router serves the link.", Refs: cite("RFC 4890 §4.4.4"),
		}), false, 137),
		add(Control{
			ID: "RA-01", Title: "No rule keeps rogue router advertisements from an interface that takes them", Severity: finding.High, Reason: "any neighbour can become the default router", Positions: link,
			What: "Router advertisements from link-local sources on interfaces where the kernel takes them.", Why: "A guard that is not hooked, or comes after an accept, does not run.", Attack: "Send one advertisement with a short preference.", Check: "Passes when only single addresses, or nobody, get one in.",
			Fix: fw(command("nft insert rule inet FILTER input ip6 saddr != fe80::ROUTER icmpv6 type nd-router-advert drop")), TradeOff: "A router that is replaced has a new address.", Refs: cite("RFC 6105", "RFC 9099 §2.3.2.1"), Eval: evalRAGuard,
		}),
		add(Control{
			ID: "LISTEN-03", Title: "Service is open over IPv6 and closed over IPv4", Severity: finding.Critical, Reason: "the filter of one family was forgotten", Positions: anyone,
			What: "Listeners that take both families, and who gets in over each.", Why: "A dual-stack socket needs two filters that agree.", Attack: "Connect over IPv6.", Check: "Fails when IPv6 surely lets more in than IPv4 at a port that takes both.",
			Fix: fw(advice("Give the port the same rule in both families.")), TradeOff: "IPv6 clients lose the service.", Refs: cite("RFC 4942", "RFC 9099 §2.7.1"), Eval: evalListenerParity,
		}),
		add(Control{
			ID: "LISTEN-06", Title: "Who gets to each listener, per family", Severity: finding.Info, Reason: "an inventory of what outsiders get to",
			What: "Every listener joined with the addresses and the rules.", Why: "A socket on all addresses is exposed only as far as the rules let it.", Attack: "Use what is open.", Check: "Passes when nobody outside gets in.",
			Fix: fw(command("sixfence reach"), intent("services:\n  - {name: NAME, ports: [tcp/PORT]}")), TradeOff: "None: this only lists.", Refs: cite("CIS Debian 12 4.2.6"), Eval: evalExposure,
		}),
	}
}

func firewallDispositions() []Disposition {
	var out []Disposition
	for _, d := range []struct{ id, title, because string }{
		{"FW-02", "IPv6 forward default", "SYSCTL-FWD-01 says whether the kernel forwards at all; the verdict of forward rules per role is not judged yet."},
		{"FW-12", "Rate limit of neighbour discovery by sender", "whether a limit suits the link is not in the rules."},
		{"FW-14", "ICMPv6 in transit", "it is judged with FW-02."},
		{"FW-16", "Experimental and unused ICMPv6 types", "the kernel answers none of them."},
		{"FW-17", "Echo limit comes before established", "the order is shown by FW-08; whether it is per source is not judged yet."},
		{"FW-18", "Reverse path filter for IPv6", "it is not judged yet."},
		{"FW-20", "IPv4-mapped sources", "LISTEN-12 judges the listeners; the rule is not judged yet."},
		{"FW-22", "Special sources at an edge", "which prefixes an edge must refuse belongs to its role."},
		{"FW-23", "Routing headers", "it is not judged yet."},
		{"FW-24", "Fragments", "it is not judged yet."},
		{"FW-27", "DHCPv6 replies", "it is not judged yet."},
		{"FW-33", "Another base chain drops what one accepts", "every verdict here is over all base chains; `sixfence reach` lists several drop policies."},
		{"FW-36", "Egress", "it is judged with TUN-06."},
		{"FW-40", "Bridged IPv6", "ROUTER and bridge settings are listed; the rules of family bridge are not judged yet."},
		{"FW-41", "Multicast services", "LISTEN-16 judges the listeners."},
		{"FW-43", "Connection tracking for IPv6", "it is not judged yet."},
	} {
		out = append(out, Disposition{ID: d.id, Title: d.title, State: "needs reach", Because: d.because})
	}
	for _, d := range []struct{ id, title, because string }{
		{"FW-19", "::1 on a wire", "the kernel drops it."},
		{"FW-21", "Multicast sources", "the kernel drops them."},
		{"FW-25", "Incomplete header chains", "the kernel refuses them."},
		{"FW-26", "Unknown extension headers", "a policy, not a defect."},
		{"FW-29", "Loopback accept", "nothing fails without it that FW-01 would not show."},
		{"FW-30", "Gateway pin by rule", "NDP-06 judges the pin."},
		{"FW-31", "Files that flush the whole ruleset", "files of rules are not read."},
		{"FW-32", "Rules after the next boot", "files of rules are not read."},
		{"FW-34", "Log limits", "they change no verdict."},
		{"FW-35", "Reject or drop", "a choice."},
		{"FW-37", "ufw and IPv6", "what ufw's rules do is in the ruleset: FW-01 and FW-03 judge it."},
		{"FW-38", "firewalld options", "what they do is in the ruleset."},
		{"FW-39", "Docker and IPv6", "what it does is in the ruleset."},
		{"FW-42", "Rules are hit", "counters prove nothing about an attack that has not come."},
	} {
		out = append(out, Disposition{ID: d.id, Title: d.title, State: "dropped", Because: d.because})
	}
	return out
}
