package reach

import (
	"fmt"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// causeWords say for people what leaves an answer open: fields of a question, and what
// the model says of rules.
var causeWords = map[string]string{
	"iif": "the interface that the packet comes in by", "oif": "the interface that the packet leaves by", "saddr": "the source address", "daddr": "the destination address",
	"proto": "the protocol", "sport": "the source port", "dport": "the destination port", "icmpType": "the ICMP type", "icmpCode": "the ICMP code", "tcpFlags": "the TCP flags",
	"ct": "the state of the connection", "hoplimit": "the hop limit", "etherSaddr": "the sender's hardware address (ether saddr)", "mark": "the packet mark", "uid": "the user that sends",

	unfixedField: "a header field that no question fixes",
	"fib":        "a route lookup (fib)",
	"rt":         "the route of the packet (rt)",
	"meta key":   "something about the packet that is not modelled (meta)",
	"ct key":     "something about the connection that is not modelled (ct)",
	"socket":     "whether a socket of this host belongs to the packet (socket)",
	"dynset":     "what is in a set that rules fill",
	"limit":      "what is left of a rate",
	"random":     "chance (numgen random)",
	"queue":      "a program behind a queue",
}

// unfixedField is said beside the expression that loads such a field, which is better
// known by its own name.
const unfixedField = "a field that the question does not have"

// CauseWords says for people what a word of Trace.Needs or Trace.Unclear means.
func CauseWords(w string) string {
	if t := causeWords[w]; t != "" {
		return t
	}
	return w
}

// causes are what leaves an answer open, for people.
func (a *Answer) causes() []string {
	var out []string
	for _, w := range a.Opaque {
		if w != unfixedField || len(a.Opaque)+len(a.Needs) == 1 {
			out = append(out, CauseWords(w))
		}
	}
	for _, w := range a.Needs {
		out = append(out, CauseWords(w))
	}
	return out
}

// open are gaps that say why the answer for some sources is neither yes nor no, and by
// which rule.
func (sp *Space) open(a *Answer, unsure packetset.Set) []string {
	var out []string
	for _, w := range a.causes() {
		out = append(out, sp.blame(a, unsure, w))
	}
	if out == nil {
		out = []string{sp.blame(a, unsure, "more than the packet")}
	}
	return out
}

// blame names what leaves the answer open for some sources, and a rule that is in its way.
func (sp *Space) blame(a *Answer, unsure packetset.Set, what string) string {
	for _, d := range a.contenders(a.Space.Touching(unsure)) {
		if d.Rule == nil {
			continue
		}
		r := sp.Model.Ref(d.Chain, d.Rule)
		if r.Handle != 0 {
			return fmt.Sprintf("rules that depend on %s (%s %s handle %d)", what, r.Table, r.Chain, r.Handle)
		}
		return fmt.Sprintf("rules that depend on %s (%s %s %s)", what, r.Table, r.Chain, r.Rule)
	}
	return "rules that depend on " + what
}

// contenders are Deciders, and before them the rules of the same tables that perhaps
// decided about the same cells: of a rule that may match, the one that decides if it
// does not is the last.
func (a *Answer) contenders(about *packetset.Cells) []Decider {
	last := a.Deciders(about)
	tables := map[*rs.Table]bool{}
	for _, l := range last {
		if l.Chain != nil {
			tables[l.Chain.Table] = true
		}
	}
	used := make([]bool, len(a.by))
	for _, d := range a.log {
		if a.by[d.by].swath != nil || about.Word(int(d.word))&d.bits != 0 {
			used[d.by] = true
		}
	}
	var out []Decider
	for i := range a.by {
		if !used[i] {
			continue
		}
		met := []Decider{a.by[i].Decider}
		if u := a.by[i].swath; u != nil {
			met = nil
			rules := make([]bool, len(u.rules))
			u.deciders(about.Clone(), rules)
			for k, yes := range rules {
				if yes && len(met) < maxDeciders {
					met = append(met, Decider{Chain: u.c.chain, Rule: u.c.rules[u.rules[k].num].rule})
				}
			}
		}
		for _, d := range met {
			if d.Rule != nil && tables[d.Chain.Table] && !slices.Contains(out, d) {
				if out = append(out, d); len(out) == maxDeciders {
					return out
				}
			}
		}
	}
	for _, d := range last {
		if !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}
