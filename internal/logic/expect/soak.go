package expect

import (
	"fmt"
	"time"

	"github.com/sixfence/sixfence/internal/logic/check"
	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// soak judges whether an address stays findable, where that was looked at.
func (b *builder) soak(a *probe.Address) {
	m := a.Soak
	if m == nil {
		return
	}
	s := finding.Subject{Family: a.Family(), Address: a.Addr.String()}
	group, who := "its solicited-node group", "a firewall that drops MLD (ICMPv6 130, 131, 132, 143) or the solicitations themselves, or a switch that has forgotten the group"
	if a.Addr.Is4() {
		group, who = "broadcast", "its ARP rules, or a switch on the way"
	}
	ev := []finding.Evidence{
		{Source: "probe", Key: "asked by " + group, Value: fmt.Sprintf("%d of %d answered", m.Group.Answered, m.Group.Sent)},
	}
	if m.Direct.Sent > 0 {
		ev = append(ev, finding.Evidence{Source: "probe", Key: "asked at its MAC address", Value: fmt.Sprintf("%d of %d answered", m.Direct.Answered, m.Direct.Sent)})
	}
	if m.Queries > 0 {
		ev = append(ev, finding.Evidence{Source: "MLD", Key: "querier " + m.Querier.String(), Value: fmt.Sprintf("%d general queries heard, version %d", m.Queries, m.QuerierVersion)})
	}
	switch m.Verdict {
	case probe.SoakLost:
		msg := fmt.Sprintf("neighbours that do not know %s no longer find it: asked by %s it does not answer, asked at its MAC address it does", a.Addr, group)
		if m.LostAfter != nil && *m.LostAfter > 0 {
			msg += fmt.Sprintf(" (%s after it still did)", Seconds(*m.LostAfter))
		} else {
			msg += " (already when the run began)"
		}
		b.add(Soaked, finding.Critical, finding.Fail, s, msg+". The cause is "+who, ev...)
	case probe.SoakUnknown:
		// Over IPv4 there is no group to lose.
		if a.Addr.Is6() {
			b.add(Soaked, finding.Critical, finding.Unknown, s, fmt.Sprintf("whether neighbours find %s after the membership interval is not known: %s", a.Addr, m.Why), ev...)
			b.findings[len(b.findings)-1].Remediation = []finding.Remediation{} // the reason is no fault of rules
		}
	case probe.SoakKept:
	}
}

// Seconds is a time for a person.
func Seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d >= 10*time.Second {
		d = d.Round(time.Second)
	}
	return d.String()
}

// soaked is the control about it.
func soaked() check.Control {
	return check.Control{
		ID: Soaked, Title: "Neighbours do not find the host after the membership interval", Severity: finding.Critical, Positions: []finding.Position{finding.FromLink},
		Reason: "the host becomes unreachable minutes after its boot, for those who have not spoken to it yet, and every test in the first minutes passes",
		Source: "neighbour solicitations of our own, from a packet socket, to the solicited-node group of the address and to its MAC address; MLD queries and reports, heard only",
		Rule:   "A neighbour is asked for by a multicast to its solicited-node group. A switch that snoops sends it to those ports only from which the group was reported, and forgets that a membership interval after the last report: twice 125 s and ten, by default (RFC 3810 §9.4). Linux reports a group when it joins it, and when it is queried.",
		What:   "Whether a neighbour that has never spoken to an address finds it at first, now and then, and after the membership interval.",
		Why:    "Rules that drop MLD queries on the way in, or reports on the way out, keep the switch from knowing that the host is there. Those who know its MAC address solicit that, and notice nothing.",
		Attack: "None is needed: the host is lost to every newcomer, and to its own router as soon as its entry there is gone.",
		Check:  "With --soak the address is asked for by its group and, where that is not answered, at its MAC address, for longer than the membership interval. What the kernel knows of its neighbours plays no part. No MLD query is sent: one may take the role of querier over. Without a querier on the link nothing expires, and that is unknown, not a pass.",
		Fix: []finding.Remediation{
			{Kind: finding.Note, Text: "let MLD in and out before anything drops it: ip6 saddr { ::, fe80::/10 } icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept"},
			{Kind: finding.Note, Text: "not by ip6 nexthdr icmpv6: MLD stands behind a hop-by-hop header, and such a rule never sees it"},
			{Kind: finding.Note, Text: "and let solicitations to the group in: icmpv6 type nd-neighbor-solicit accept"},
		},
		TradeOff: "It takes minutes. A small packet is sent to the address every twenty seconds or so, and at most forty-eight to be sure that it is lost.",
		Refs:     []finding.Reference{{Source: "RFC 4890", ID: "§4.4.1"}, {Source: "RFC 3810", ID: "§9.4"}, {Source: "RFC 4541", ID: "§3"}},
	}
}
