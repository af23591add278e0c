package expect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// chains judges what became of header chains. That one gets less far is no finding: many
// hosts and routers drop what nobody needs (RFC 7872).
func (b *builder) chains(a *probe.Address) {
	type group struct {
		proto, ports string
		plain        probe.State
		names        []string
	}
	var further []*group
	unknown := map[string][]string{}
	var whys []string
	for _, c := range a.Chains {
		kind, _ := probe.ChainOf(c.Chain)
		s := finding.Subject{Family: a.Family(), Proto: c.Proto, Address: a.Addr.String(), Key: string(c.Chain) + " " + c.Ports}
		switch c.Fate {
		case probe.FateFurther:
			// A hop limit of 255 is what RFC 5082 asks for, and where all ports were asked that
			// way their table has it.
			if c.Chain == probe.Near || slices.ContainsFunc(a.Tables, func(t *probe.Table) bool { return t.Variant == c.Chain && t.Proto == c.Proto }) {
				continue
			}
			i := slices.IndexFunc(further, func(g *group) bool { return g.proto == c.Proto && g.ports == c.Ports && g.plain == c.Plain })
			if i < 0 {
				i = len(further)
				further = append(further, &group{proto: c.Proto, ports: c.Ports, plain: c.Plain})
			}
			further[i].names = append(further[i].names, string(c.Chain))
		case probe.FateTaken:
			law := kind.Against(a.Addr, c.Proto)
			sev := finding.Medium
			if slices.Contains([]string{"RFC 5095", "RFC 7112", "RFC 5722"}, law) {
				sev = finding.High
			}
			b.add(Wrapped, sev, finding.Fail, s, fmt.Sprintf("%s/%s of %s answers behind %s (%s), which %s forbids", c.Proto, shorten(c.Ports), a.Addr, kind.Words, c.Chain, law),
				finding.Evidence{Source: "probe", Key: string(c.Chain), Value: string(c.State)})
		case probe.FateUnknown:
			if unknown[c.Why] == nil {
				whys = append(whys, c.Why)
			}
			if !slices.Contains(unknown[c.Why], string(c.Chain)) {
				unknown[c.Why] = append(unknown[c.Why], string(c.Chain))
			}
		case probe.FateSame, probe.FateLess, probe.FateRefused:
		}
	}
	for _, g := range further {
		s := finding.Subject{Family: a.Family(), Proto: g.proto, Address: a.Addr.String(), Key: strings.Join(g.names, ",") + " " + g.ports}
		b.add(Wrapped, finding.High, finding.Fail, s, fmt.Sprintf("%s/%s of %s gets an answer in the chains %s, and is %s without: the rules do not look behind these headers", g.proto, shorten(g.ports), a.Addr, strings.Join(g.names, ", "), g.plain),
			finding.Evidence{Source: "probe", Key: "plain", Value: string(g.plain)})
	}
	for _, w := range whys {
		text := map[string]string{
			"own-rules": "this host's own rules do not let them out", "changed": "this host changes or keeps them before they leave (it tracks connections, and puts fragments together)",
			"rationed": "the target answered too few of the plain packets beside them",
		}[w]
		if text == "" {
			text = w
		}
		s := finding.Subject{Family: a.Family(), Address: a.Addr.String(), Key: "chains " + w}
		b.add(Wrapped, finding.Medium, finding.Unknown, s, fmt.Sprintf("what becomes of the chains %s at %s could not be told: %s", strings.Join(unknown[w], ", "), a.Addr, text))
	}
}

// shorten cuts a list of ports for a sentence.
func shorten(list string) string {
	var p probe.Ports
	if p.AddList(list) != nil {
		return list
	}
	return p.Short()
}
