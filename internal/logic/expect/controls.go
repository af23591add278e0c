package expect

import (
	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// The controls of verify.
const (
	Vantage    = "VERIFY-01"
	Difference = "VERIFY-02"
	Life       = "VERIFY-03"
	Families   = "VERIFY-04"
	Path       = "VERIFY-05"
	Soaked     = "VERIFY-06"
	Guarded    = "VERIFY-07"
	Wrapped    = "VERIFY-08"
	// VERIFY-09 and VERIFY-10 of the catalogue are done elsewhere.
	NameAnswers   = "VERIFY-11"
	NameAddresses = "VERIFY-12"
	Eyeballs      = "VERIFY-13"
)

// Controls are what verify decides. They have no Eval: probes answer them, not facts.
func Controls() []check.Control {
	note := func(s string) []finding.Remediation {
		return []finding.Remediation{{Kind: finding.Note, Text: s}}
	}
	anywhere := []finding.Position{finding.FromInternet, finding.FromLink}
	const raw = "bare packets from this host or, with --via, from another; a connection where there is no CAP_NET_RAW"
	return []check.Control{
		{
			ID: Vantage, Title: "The probes came from the target itself", Severity: finding.High, Positions: anywhere,
			Reason: "a host that asks itself is let in where others are not: the answer is wrong in both directions, and looks right",
			Source: "the route that the kernel takes to the address (RTM_GETROUTE), before anything is sent",
			Rule:   "A packet to an own address, a global one too, goes over lo. Rules for lo hold, and those of the interface are not asked.",
			What:   "Whether the source of the probes is another host than the target, and whether every vantage that was to look gave an answer.",
			Why:    "What a host sends to itself goes over loopback, where other rules hold: a port that neighbours cannot reach is open to it, and an echo to ::1 proves nothing about the network.",
			Attack: "None: a test that was run on the target itself hides what others reach.",
			Check:  "The route to each address is looked up first. What came from the host itself is shown, and agrees with nothing that is expected.",
			Fix:    note("run sixfence verify on another host, or let one look: --via ssh://HOST"), TradeOff: "A second host is needed.",
			Refs: []finding.Reference{{Source: "RFC 9099", ID: "§2.5"}},
		},
		{
			ID: Difference, Title: "The wire does not show what is expected", Severity: finding.High, Positions: anywhere,
			Reason: "what is believed to be closed, and is open, is looked after by nobody; blocked ports of a service are an outage",
			Source: raw + "; the intent, the expectations, an earlier run, or what reach says of a Snapshot",
			Rule:   "An answer, a refusal, an ICMP error and silence are told apart. A reset says that nobody listens, not that a rule is in force; only an error that quotes our own packet is believed.",
			What:   "Whether each port has the state that the intent, the rules or an earlier run say.",
			Why:    "A rule that is written and not in force protects nobody. Tests that know open and closed only print BLOCKED for a host without a firewall, and OPEN for one that is down.",
			Attack: "Whoever can send to the address connects to what was thought to be out of reach.",
			Check:  "Each port is asked until its state is sure, as often as the measured loss asks for, and compared with what is wanted and with what the rules say; the odd one out is named.",
			Fix:    note("look at the odd one out: the rules (sixfence reach), the intent, or what is between"), TradeOff: "Some thousand small packets, at a bounded rate.",
			Refs: []finding.Reference{{Source: "RFC 9293", ID: "§3.10.7"}, {Source: "RFC 4443", ID: "§3.1"}},
		},
		{
			ID: Life, Title: "There is no sign of life", Severity: finding.High, Positions: anywhere,
			Reason: "ports of a host that is down look blocked, and are open again after its next boot",
			Source: raw + "; the neighbour table of this run",
			Rule:   "An answer of the address proves that it is there, a fresh neighbour entry that something has it, an error of a router only that the router lives.",
			What:   "Whether anything at the address answers.",
			Why:    "Silence is what a firewall and a host without power have in common. Ports that look blocked on a host that is down are not tested.",
			Attack: "None: a report about a host that was not there hides what it opens later.",
			Check:  "Before all others one harmless question is asked (an echo, or a port) until there is an answer, a fresh neighbour, or no hope. Without a sign of life, filtered is no pass.",
			Fix:    note("let the host answer something: an echo, or one service"), TradeOff: "A host that answers an echo tells that it is there.",
			Refs: []finding.Reference{{Source: "RFC 4861", ID: "§7.3"}, {Source: "RFC 4890", ID: "§4.4.1"}},
		},
		{
			ID: Families, Title: "IPv4 and IPv6 do not agree", Severity: finding.High, Positions: anywhere,
			Reason: "most hosts are filtered for IPv4 with care and have IPv6 without anybody's doing",
			Source: raw + ", to every address of the target: global, unique local, temporary",
			Rule:   "The families have rules of their own, unless a table of the inet family holds both. One run asks each over itself, and never falls back to the other.",
			What:   "Whether a port answers alike over every address of the host.",
			Why:    "A service that only one family is protected from is reached over the other.",
			Attack: "The attacker asks the AAAA record, finds a database that IPv4 hides, and connects.",
			Check:  "The same ports are asked at every address, and what gets further over one family than over the other is shown first.",
			Fix:    note("compare the rules of both families: sixfence reach on the target lays them side by side, and sixfence audit says which service is wider open over IPv6"), TradeOff: "None.",
			Refs: []finding.Reference{{Source: "RFC 9099", ID: "§5"}},
		},
		{
			ID: Path, Title: "Path-MTU discovery does not work", Severity: finding.High, Positions: []finding.Position{finding.FromInternet},
			Reason: "connections open and then hang as soon as they carry data, over some paths and for some clients only",
			Source: "echoes as large as the link carries, and a Packet Too Big (IPv4: Fragmentation Needed) of ours that quotes the answer",
			Rule:   "No router of IPv6 cuts packets, and none of IPv4 one that says do not fragment, as TCP does: the sender has to. Linux keeps what a router says about a destination for ten minutes, and cuts its answers. A rule that tracks connections takes it for related; one that does not has to name it.",
			What:   "Whether large packets get to the target and back, whether somebody says so when they do not, and whether the target sends smaller ones when it is told.",
			Why:    "Rules that drop ICMP or ICMPv6 as a whole break every path with a tunnel in it, and the break looks like anything but a firewall.",
			Attack: "None is needed: the target fails by itself wherever a link is narrower than its own.",
			Check:  "With --path, an echo of the size of the link is sent. A Packet Too Big on the way is evidence of the hop; silence above a size, of a black hole. Then the target is told that its answer was too big for 1280 bytes (IPv4: 1284 or 588, which no link has), and the next answer has to come in fragments.",
			Fix: []finding.Remediation{
				{Kind: finding.Note, Text: "let ICMPv6 packet-too-big (type 2) in, on the target and at everything on the way: icmpv6 type packet-too-big accept; over IPv4, icmp type destination-unreachable"},
				{Kind: finding.Note, Text: "until then, clamp the size of TCP segments at the narrow link"},
			},
			TradeOff: "For ten minutes the target sends small packets to the host that asked.",
			Refs:     []finding.Reference{{Source: "RFC 8201"}, {Source: "RFC 1191"}, {Source: "RFC 4890", ID: "§4.3.1"}},
		},
		soaked(),
		guarded(),
		{
			ID: Wrapped, Title: "Extension headers or fragments get past the rules", Severity: finding.High, Positions: anywhere,
			Reason: "a rule that one more header defeats is no rule",
			Source: raw + ", each in the wrappings that --variants names (all: 23 over IPv6, 9 over IPv4)",
			Rule:   "The first fragment has to hold every header up to the one of the transport protocol (RFC 7112), fragments must not overlap (RFC 5722), a routing header of type 0 with segments left must not be processed (RFC 5095): Linux drops all three. Routers on the way drop some headers (RFC 7872): less getting through is no finding, and the router that eats them is named.",
			What:   "Whether a probe behind extension headers or IPv4 options, or in fragments, gets further than a plain one, or is answered though it must not be.",
			Why:    "A rule that reads only the first header does not see what comes behind another. Who answers what must be dropped puts packets together otherwise than the rules in front of it.",
			Attack: "The attacker sends his connection in two fragments, or behind a destination options header.",
			Check:  "Ports that answer, and some that do not, are asked again in each wrapping, with a plain packet right behind as a control: silence counts only when that one is answered. hop, dst, frag and frag-atomic are asked of every port.",
			Fix:    note("let the rules drop fragments and unknown headers, or track connections, which puts fragments together"), TradeOff: "DNS over UDP with large answers needs fragments, where EDNS sizes are not small.",
			Refs: []finding.Reference{{Source: "RFC 7112"}, {Source: "RFC 7872"}, {Source: "RFC 5095"}, {Source: "RFC 5722"}, {Source: "RFC 6946"}, {Source: "RFC 9288"}},
		},
		{
			ID: NameAnswers, Title: "DNS does not answer alike for both families", Severity: finding.Medium, Positions: []finding.Position{finding.FromInternet},
			Reason: "a question for AAAA that is not answered delays or hides the name for those who have IPv6, and nobody else sees it",
			Source: "the resolvers in /etc/resolv.conf, each asked for A and for AAAA over the family of its own address",
			Rule:   "A name without AAAA has to be answered with no error and no record (RFC 4074 §3). Clients ask for both and wait for both, a while at least; an error for one is taken for the whole name by some.",
			What:   "Whether each resolver answers for A as it does for AAAA, whether all say the same, and whether the families lead over the same aliases.",
			Why:    "Name servers and middleboxes that drop questions for AAAA, or answer them with an error, make a host slow or unknown, and tests over IPv4 show nothing.",
			Attack: "None is needed. Who can drop answers for one family chooses the family that clients use.",
			Check:  "Every resolver is asked three times before it is called silent; a truncated answer is asked for again over TCP. What differs between the families, or between the resolvers, is shown.",
			Fix:    note("mend the name server that is responsible for the name, or what is between it and the resolver: AAAA of a name without one is NOERROR with no answer"), TradeOff: "None.",
			Refs: []finding.Reference{{Source: "RFC 4074", ID: "§4"}, {Source: "RFC 8305", ID: "§3"}},
		},
		{
			ID: NameAddresses, Title: "A name leads to addresses that not everybody can reach", Severity: finding.Medium, Positions: []finding.Position{finding.FromInternet},
			Reason: "clients try such an address first, and wait for nothing",
			Source: "the addresses in the answers of DNS, and " + raw,
			Rule:   "Blocks for private networks, documentation, transition and one link are not routed between sites (RFC 6890). An IPv4-mapped address, one of a link, or a group in DNS is of no use to anybody.",
			What:   "Whether the addresses of a name are such that those who ask can reach them.",
			Why:    "A unique local or link-local address that a host registers by itself is answered to clients elsewhere, who try it before IPv4.",
			Attack: "A private address in DNS makes a browser talk to the network that it stands in (DNS rebinding).",
			Check:  "Each address is compared with the blocks for special use, and with the prefixes of DNS64 (RFC 7050). One that answers here is shown and is no finding.",
			Fix:    note("take the record out of DNS, or answer it inside only"), TradeOff: "None.",
			Refs: []finding.Reference{{Source: "RFC 6890"}, {Source: "RFC 4193", ID: "§4.4"}, {Source: "RFC 7050"}},
		},
		{
			ID: Eyeballs, Title: "Clients of a name wait for an address that does not work", Severity: finding.Medium, Positions: []finding.Position{finding.FromInternet},
			Reason: "the name works, and is slow or dead for clients that have IPv6",
			Source: "connections to the open ports of the name, over each address, and the source that the kernel takes for each",
			Rule:   "Clients sort the addresses (RFC 6724): IPv6 is first, as a rule. With Happy Eyeballs (RFC 8305) they wait 50 ms for AAAA, and 250 ms for each address before the next one is tried as well; without, for the time-out of the connection, which is 131 s in Linux.",
			What:   "What a client has to wait for at each open port, with and without Happy Eyeballs.",
			Why:    "A firewall that drops one family silently hides the damage from clients that give up on it fast. All others hang for minutes: ssh, curl without its own timer, databases, mail servers.",
			Attack: "Who drops one family on the way moves every client to the other.",
			Check:  "Each open port is connected to three times over each address, eight ports at most, and the median is taken. What the wait would be is computed from that, and from how long the resolver took.",
			Fix:    note("open the port over both families, or take the address out of DNS; refuse instead of dropping: reject with tcp reset"), TradeOff: "A few connections without data show in the logs of the service.",
			Refs: []finding.Reference{{Source: "RFC 8305"}, {Source: "RFC 6724"}, {Source: "RFC 6555"}},
		},
	}
}

// Dispositions are the rows of the family that verify does not decide, and who does.
func Dispositions() []check.Disposition {
	return []check.Disposition{
		{ID: "VERIFY-09", Title: "A written value is in force", State: "done elsewhere", Because: "sixfence harden apply reads back what it has written, and harden status what became of it"},
		{ID: "VERIFY-10", Title: "Interfaces that come later inherit the values", State: "done elsewhere", Because: "the audit judges conf/default, which they inherit"},
	}
}
