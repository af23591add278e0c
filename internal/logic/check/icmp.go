package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

func icmpControls() []Control {
	return []Control{
		{
			ID: "SYSCTL-ICMP-01", Title: "ICMPv6 errors are not limited, or the wrong ones are", Severity: finding.Low,
			Reason:   "Unlimited errors let the host be used as a reflector; limited Packet Too Big messages break path MTU discovery through it.",
			Source:   "net.ipv6.icmp.ratelimit (milliseconds between two messages to one destination) and net.ipv6.icmp.ratemask",
			Rule:     "Per namespace. A type in ratemask is limited unless ratelimit is 0. Kernels without ratemask (before 5.0) limit all but Packet Too Big and informational types.",
			What:     "Whether destination unreachable (1), time exceeded (3) and parameter problem (4) are limited, and packet too big (2) is not.",
			Why:      "RFC 4443 demands a limit for errors. The kernel's defaults are right; tuning guides change them.",
			Attack:   "Forged packets to closed ports make the host send an error to the victim for each.",
			Check:    "We read ratelimit and expand the list of ranges in ratemask.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.icmp.ratelimit=1000"), command("sysctl -w net.ipv6.icmp.ratemask=0-1,3-127")},
			TradeOff: "Trace programs see gaps when they probe fast.",
			Refs:     []finding.Reference{rfc("4443", "§2.4(f)"), kernelDoc("icmp/ratelimit"), kernelDoc("icmp/ratemask")},
			Live:     true, Eval: evalICMP01,
		},
		{
			ID: "SYSCTL-ICMP-02", Title: "Host answers multicast or anycast pings", Severity: finding.Low,
			Reason:   "One packet lists every IPv6 host on the link; it gives no access.",
			Source:   "net.ipv6.icmp.{echo_ignore_all,echo_ignore_multicast,echo_ignore_anycast}",
			Rule:     "Per namespace. An echo request to a multicast address is answered unless echo_ignore_all or echo_ignore_multicast is set; to an anycast address unless echo_ignore_all or echo_ignore_anycast.",
			What:     "Whether this host answers ping ff02::1.",
			Why:      "A /64 cannot be scanned, but a neighbour can ask everyone at once.",
			Attack:   "ping ff02::1%eth0 lists all hosts and their link-local addresses in a second; alive6 does it with variants.",
			Check:    "We read the three switches. A packet filter on the inbound path is asked whether it lets such a packet in.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.icmp.echo_ignore_multicast=1"), command("sysctl -w net.ipv6.icmp.echo_ignore_anycast=1")},
			TradeOff: "A handy tool for finding hosts on the link is gone. MLD queries still list group members.",
			Refs:     []finding.Reference{rfc("4443", "§4.2"), rfc("7707", "§4.2"), kernelDoc("icmp/echo_ignore_multicast")},
			Live:     true, Eval: evalICMP02,
		},
		{
			ID: "SYSCTL-EXT-01", Title: "Extension header options are taken without a limit", Severity: finding.Low,
			Reason: "It costs processor time per packet; the header's own size already bounds it.",
			Source: "net.ipv6.{max_dst_opts_number,max_hbh_opts_number,max_dst_opts_length,max_hbh_length}",
			Rule:   "Per namespace. Numbers count options other than padding, a negative one also refuses unknown options; lengths are in bytes, and a header cannot exceed 2048.",
			What:   "How many options, in how long a header, the kernel walks through.",
			Why:    "RFC 8504 lets a host limit them: no real packet has more than a few. The default numbers are 8, the default lengths have no bound.",
			Attack: "Packets with hundreds of options keep the receive path busy.",
			Check:  "More than 8 options fail (low). Lengths without a bound alone are informational: it is the kernel's default.",
			Fix: []finding.Remediation{
				command("sysctl -w net.ipv6.max_dst_opts_number=8 net.ipv6.max_hbh_opts_number=8"),
				command("sysctl -w net.ipv6.max_dst_opts_length=256 net.ipv6.max_hbh_length=256"),
			},
			TradeOff: "Experimental protocols with long options fail.",
			Refs:     []finding.Reference{rfc("8504", "§5.3"), rfc("9288", "§3.4"), kernelDoc("max_dst_opts_number")},
			Live:     true, Eval: evalEXT01,
		},
		{
			ID: "SYSCTL-FRAG-01", Title: "IPv6 reassembly may hold more memory than usual, or for longer", Severity: finding.Low,
			Reason:   "It decides how much memory and time forged fragments can hold.",
			Source:   "net.ipv6.{ip6frag_high_thresh,ip6frag_time}",
			Rule:     "Per namespace. Fragments are dropped while more than ip6frag_high_thresh bytes wait; ip6frag_time seconds is their life. 0 bytes refuses all fragments.",
			What:     "The bounds of fragment reassembly.",
			Why:      "Each namespace has a budget of its own, so a raised one counts once per container.",
			Attack:   "First fragments without their rest fill the budget: legitimate fragmented packets (large DNS answers) are lost, and a raised budget costs memory.",
			Check:    "More than 16 MiB (four times the default) or more than 60 s fail.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.ip6frag_high_thresh=4194304 net.ipv6.ip6frag_time=60")},
			TradeOff: "Hosts that carry much fragmented traffic on purpose may need more.",
			Refs:     []finding.Reference{rfc("8200", "§4.5"), rfc("8900", "§3.7"), kernelDoc("ip6frag_high_thresh")},
			Live:     true, Eval: evalFRAG01,
		},
	}
}

// ranges reads a kernel bitmap list: "0-1,3-127".
func ranges(list string) (map[int]bool, bool) {
	set := map[int]bool{}
	for _, part := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }) {
		lo, hi, isRange := strings.Cut(part, "-")
		if !isRange {
			hi = lo
		}
		a, errA := strconv.Atoi(lo)
		b, errB := strconv.Atoi(hi)
		if errA != nil || errB != nil || a < 0 || b > 255 || a > b {
			return nil, false
		}
		for i := a; i <= b; i++ {
			set[i] = true
		}
	}
	return set, true
}

func evalICMP01(c *Context) []Result {
	return c.eachNetwork(func(s *Space, on finding.Subject) []Result {
		x := s.readNet(on, "net/ipv6/icmp/ratelimit")
		if x.bad != nil {
			return one(*x.bad)
		}
		fix := func(r Result) []Result {
			r.Remediation = append(s.Set("net/ipv6/icmp/ratelimit", "1000"), s.Set("net/ipv6/icmp/ratemask", "0-1,3-127")...)
			return one(r)
		}
		if x.v[0] <= 0 {
			return fix(fail(on, fmt.Sprintf("ICMPv6 errors are sent without any limit (ratelimit=%d).", x.v[0]), x.ev...))
		}
		k := s.Sysctl("net/ipv6/icmp/ratemask")
		mask, ok := k.Get()
		if !ok {
			if g := gapOf(k); g != nil {
				return one(unknown(on, *g))
			}
			return one(pass(on, fmt.Sprintf("One ICMPv6 error per %d ms and destination; this kernel has no ratemask and never limits Packet Too Big.", x.v[0]), x.ev...))
		}
		ev := append(x.ev, s.sysctlEvidence("net/ipv6/icmp/ratemask", mask))
		set, ok := ranges(mask)
		if !ok {
			return one(unknown(on, fact.Gap{Reason: fact.ParseGap, What: "net.ipv6.icmp.ratemask"}))
		}
		switch {
		case set[2]:
			return fix(fail(on, "Packet Too Big messages are limited (ratemask "+mask+"): path MTU discovery through this host may fail.", ev...))
		case !set[1] || !set[3] || !set[4]:
			return fix(fail(on, "Not every ICMPv6 error is limited (ratemask "+mask+").", ev...))
		}
		return one(pass(on, fmt.Sprintf("ICMPv6 errors are limited to one per %d ms and destination, Packet Too Big is not.", x.v[0]), ev...))
	})
}

// rtnAnycast is RTN_ANYCAST: an address that this host shares with others, such
// as a forwarding interface's subnet-router address.
const rtnAnycast = 4

func evalICMP02(c *Context) []Result {
	return c.eachNetwork(func(s *Space, on finding.Subject) []Result {
		get := func(key string) (int64, bool, *fact.Gap, finding.Evidence) {
			k := s.SysctlInt("net/ipv6/icmp/" + key)
			v, ok := k.Get()
			return v, ok, gapOf(k), s.sysctlEvidence("net/ipv6/icmp/"+key, s.Sysctl("net/ipv6/icmp/"+key).Or("not there"))
		}
		all, okAll, gapAll, evAll := get("echo_ignore_all")
		multi, okMulti, gapMulti, evMulti := get("echo_ignore_multicast")
		any_, okAny, gapAny, evAny := get("echo_ignore_anycast")
		ev := []finding.Evidence{evAll, evMulti, evAny}
		switch {
		case okAll && all != 0:
			return one(pass(on, "The kernel answers no echo request at all (echo_ignore_all).", ev...))
		case gapAll != nil:
			return one(unknown(on, *gapAll))
		}
		var open []string
		if okMulti && multi == 0 {
			open = append(open, "multicast")
		}
		routes, okRoutes := s.Routes.Get()
		if okAny && any_ == 0 && (!okRoutes || slices.ContainsFunc(routes, func(r fact.Route) bool { return r.Family == "ipv6" && r.Type == rtnAnycast })) {
			if g := gapOf(s.Routes); g != nil {
				gapAny = firstGap(gapAny, g)
			} else {
				open = append(open, "anycast")
			}
		}
		switch {
		case len(open) > 0:
			q := echoTo(allNodes, "an echo request to a multicast address")
			r := fail(on, "The kernel answers echo requests to "+strings.Join(open, " and ")+" addresses.", ev...)
			if len(open) == 1 && open[0] == "anycast" {
				r.Severity = finding.Info
				q = anyEcho()
			}
			for _, o := range open {
				r.Remediation = append(r.Remediation, s.Set("net/ipv6/icmp/echo_ignore_"+o, "1")...)
			}
			return one(s.behind(q, "", r))
		case firstGap(gapMulti, gapAny) != nil:
			return one(unknown(on, *firstGap(gapMulti, gapAny)))
		case !okMulti && !okAny:
			return one(notApplicable(on, "This kernel has no switch for multicast pings and answers them."))
		}
		return one(pass(on, "The kernel answers no echo request to a multicast or anycast address (of the second kind it may have none now).", ev...))
	})
}

func evalEXT01(c *Context) []Result {
	return c.eachNetwork(func(s *Space, on finding.Subject) []Result {
		x := s.readNet(on, "net/ipv6/max_dst_opts_number", "net/ipv6/max_hbh_opts_number", "net/ipv6/max_dst_opts_length", "net/ipv6/max_hbh_length")
		if x.bad != nil {
			return one(*x.bad)
		}
		abs := func(n int64) int64 { return max(n, -n) }
		q := optioned()
		r := pass(on, "The number and the length of extension header options are bounded.", x.ev...)
		switch {
		case abs(x.v[0]) > 8 || abs(x.v[1]) > 8:
			r = fail(on, fmt.Sprintf("The kernel walks through up to %d destination and %d hop-by-hop options of a packet; 8 are the default.", abs(x.v[0]), abs(x.v[1])), x.ev...)
		case x.v[2] >= 2048 || x.v[3] >= 2048:
			r = fail(on, "Option headers of any length are taken (max_dst_opts_length, max_hbh_length), the kernel's default.", x.ev...)
			r.Severity = finding.Info
		default:
			return one(r)
		}
		for _, kv := range [][2]string{{"max_dst_opts_number", "8"}, {"max_hbh_opts_number", "8"}, {"max_dst_opts_length", "256"}, {"max_hbh_length", "256"}} {
			r.Remediation = append(r.Remediation, s.SetNow("net/ipv6/"+kv[0], kv[1]))
		}
		r.Remediation = append(r.Remediation, s.Persist("net/ipv6/max_dst_opts_number", "8", "net/ipv6/max_hbh_opts_number", "8", "net/ipv6/max_dst_opts_length", "256", "net/ipv6/max_hbh_length", "256"))
		if abs(x.v[1]) > 8 || abs(x.v[0]) <= 8 && x.v[3] >= 2048 {
			q = hopOptioned()
		}
		return one(s.behind(q, "", r))
	})
}

func evalFRAG01(c *Context) []Result {
	return c.eachNetwork(func(s *Space, on finding.Subject) []Result {
		x := s.readNet(on, "net/ipv6/ip6frag_high_thresh", "net/ipv6/ip6frag_time")
		if x.bad != nil {
			return one(*x.bad)
		}
		const limit, life = 16 << 20, 60
		if x.v[0] > limit || x.v[1] > life {
			r := fail(on, fmt.Sprintf("Fragments may hold %d bytes for %d s; the kernel's defaults are 4194304 and 60.", x.v[0], x.v[1]), x.ev...)
			r.Remediation = append(s.Set("net/ipv6/ip6frag_high_thresh", "4194304"), s.Set("net/ipv6/ip6frag_time", "60")...)
			return one(r)
		}
		msg := fmt.Sprintf("Fragments may hold %d bytes for %d s.", x.v[0], x.v[1])
		if x.v[0] == 0 {
			msg = "This namespace reassembles no IPv6 fragment at all: large DNS answers are lost."
		}
		return one(pass(on, msg, x.ev...))
	})
}
