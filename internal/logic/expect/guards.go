package expect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// guards judges what a host made of forged messages: one finding an interface and sort.
func (b *builder) guards(g *probe.Guards) {
	if g == nil {
		return
	}
	first := len(b.findings)
	defer func() {
		for i := range b.findings[first:] {
			if f := &b.findings[first+i]; f.Status == finding.Unknown {
				f.Remediation = []finding.Remediation{} // what is not known is not mended by rules
			}
		}
	}()
	if g.Reason != "" {
		b.add(Guarded, finding.High, finding.Unknown, finding.Subject{Key: "guards"}, "not everything could be tried: "+strings.TrimSuffix(g.Reason+"; "+g.WayOut, "; "))
	}
	for _, i := range g.Interfaces {
		if i.Unknown != "" && len(i.Attacks) == 0 {
			b.add(Guarded, finding.High, finding.Unknown, finding.Subject{Interface: i.Interface, Key: i.Port}, fmt.Sprintf("%s could not be tried: %s", guardPlace(i), i.Unknown))
			continue
		}
		for _, group := range probe.GuardGroups() {
			b.guard(i, group)
		}
		if c := i.Control; c != nil && c.Verdict != probe.GuardTaken {
			s := finding.Subject{Interface: i.Interface, Key: strings.TrimSpace(i.Port + " control")}
			switch {
			case i.Unknown != "":
				b.add(Guarded, finding.High, finding.Unknown, s, fmt.Sprintf("whether the advertisement of the router %s still comes through at %s is not known: %s", i.Router, guardPlace(i), i.Unknown))
			case c.Verdict == probe.GuardUnknown && c.Through: // for a program in user space
			case c.Verdict == probe.GuardUnknown:
				b.add(Guarded, finding.High, finding.Unknown, s, fmt.Sprintf("whether the advertisement of the router %s still comes through at %s is not known: %s", i.Router, guardPlace(i), c.Why))
			case !c.Through:
				b.add(Guarded, finding.High, finding.Fail, s, fmt.Sprintf("at %s the rules stop the advertisement of the router itself (%s): its route ends with the lifetime of the last one", guardPlace(i), i.Router),
					finding.Evidence{Source: "kernel", Key: c.Name, Value: "stopped by rules"})
			}
		}
	}
}

func guardPlace(i probe.Guard) string {
	if i.Port != "" {
		return i.Interface + " (port " + i.Port + ")"
	}
	return i.Interface
}

// harm is what each sort of message does.
var harm = map[probe.GuardGroup]struct {
	severity finding.Severity
	words    string
	fix      []int // of the control
}{
	probe.GuardRA:        {finding.High, "forged router advertisements", []int{0, 1, 4, 5}},
	probe.GuardRedirect:  {finding.High, "forged redirects", []int{2, 4, 5}},
	probe.GuardNeighbour: {finding.Medium, "forged messages that give the router another MAC address", []int{3, 4, 5}},
}

// guard judges one sort of message at one interface.
func (b *builder) guard(i probe.Guard, group probe.GuardGroup) {
	var taken, open []probe.GuardAttempt
	n := 0
	for _, a := range i.Attacks {
		if a.Group != group {
			continue
		}
		n++
		switch a.Verdict {
		case probe.GuardTaken:
			taken = append(taken, a)
		case probe.GuardUnknown:
			open = append(open, a)
		case probe.GuardStopped:
		}
	}
	if n == 0 {
		return
	}
	h := harm[group]
	s := finding.Subject{Interface: i.Interface, Key: strings.TrimSpace(i.Port + " " + string(group))}
	var ev []finding.Evidence
	for _, a := range taken {
		ev = append(ev, finding.Evidence{Source: "kernel", Key: a.Name, Value: strings.Join(a.Changed, "; ")})
	}
	names := func(as []probe.GuardAttempt) string { return strings.Join(probe.Names(as), "; ") }
	seen := fmt.Sprintf("%s takes none of %d %s", guardPlace(i), n, h.words)
	if len(taken) > 0 {
		var changed []string
		for _, c := range taken[0].Changed {
			if len(changed) < 3 {
				changed = append(changed, c)
			}
		}
		seen = fmt.Sprintf("%s takes %d of %d %s, and the first brings %s. Taken are those %s", guardPlace(i), len(taken), n, h.words, strings.Join(changed, ", "), names(taken))
	}
	switch {
	case i.Unknown != "":
		b.add(Guarded, h.severity, finding.Unknown, s, fmt.Sprintf("%s. In this copy, that is, and it proves nothing: %s", seen, i.Unknown), ev...)
	case len(taken) > 0:
		b.add(Guarded, h.severity, finding.Fail, s, seen, ev...)
	case len(open) > 0:
		why := slices.Compact([]string{open[0].Why})
		b.add(Guarded, h.severity, finding.Unknown, s, fmt.Sprintf("what becomes of %d of %d %s at %s is not known (%s): %s", len(open), n, h.words, guardPlace(i), names(open), strings.Join(why, "; ")), ev...)
	default:
		b.add(Guarded, h.severity, finding.Pass, s, seen)
	}
	f := &b.findings[len(b.findings)-1]
	f.Remediation = []finding.Remediation{}
	for _, n := range h.fix {
		f.Remediation = append(f.Remediation, guarded().Fix[n])
	}
}

// guarded is the control about it.
func guarded() check.Control {
	return check.Control{
		ID: Guarded, Title: "Forged neighbour discovery is taken, or the router's own is not", Severity: finding.High, Positions: []finding.Position{finding.FromLink},
		Reason: "one packet from the link makes a router, a DNS server or another gateway; it needs a shared link",
		Source: "the rules, settings, routes and neighbours of the host, or of a Snapshot, made again in network namespaces of their own; frames sent there; routes, addresses, neighbours and settings of that copy before and after",
		Rule:   "Linux takes an advertisement behind hop-by-hop and destination options, and one in fragments where suppress_frag_ndisc is 0. Rules that read the first header only (ip6 nexthdr icmpv6) do not see those. It checks the hop limit (255) and that the sender is link-local, and nothing else that a neighbour could not forge.",
		What:   "Whether a forged router advertisement, redirect or neighbour message changes a route, an address, a neighbour entry, the MTU or the hop limit of this host, in any of the ways to send it; and whether the advertisement of its own router still comes through.",
		Why:    "A guard is written once and read never again. Whether it is in force, at this interface, beside the other tables and with these settings, only a packet shows.",
		Attack: "The attacker sends an advertisement behind a destination options header. The guard looks at the first header and lets it pass, the kernel looks at the last one and makes the attacker its router.",
		Check:  "With --guards the host is made again in namespaces, once without its rules and once with them, and each message is sent there. What changed is read from the kernel. Nothing is sent to the host, and nothing on it is written. What could not be made again makes the answer unknown.",
		Fix: []finding.Remediation{
			{Kind: finding.Note, Text: "by last header, before connection tracking, with a list of routers: icmpv6 type nd-router-advert ip6 saddr != @routers drop in a chain of type filter hook prerouting priority -450"},
			{Kind: finding.Note, Text: "where no router is listened to: net.ipv6.conf.IFACE.accept_ra = 0"},
			{Kind: finding.Note, Text: "redirects: net.ipv6.conf.IFACE.accept_redirects = 0, or icmpv6 type nd-redirect drop"},
			{Kind: finding.Note, Text: "the gateway's MAC address: pin its entry (NDP-06)"},
			{Kind: finding.Note, Text: "and nothing in fragments: net.ipv6.conf.IFACE.suppress_frag_ndisc = 1, or icmpv6 type { nd-router-advert, nd-redirect, nd-neighbor-solicit, nd-neighbor-advert } exthdr frag exists drop"},
			{Kind: finding.Note, Text: "sixfence harden plan writes all of it from an intent"},
		},
		TradeOff: "A list of routers has to follow the routers.",
		Refs:     []finding.Reference{{Source: "RFC 6104"}, {Source: "RFC 6980"}, {Source: "RFC 7113"}, {Source: "RFC 4861", ID: "§11"}},
	}
}
