package expect

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// names judges what is known about the names of targets.
func (b *builder) names(j *Judge) {
	for _, n := range j.Names {
		b.answers(n)
		b.special(n, j.Addresses)
		b.races(n, j)
	}
}

// outcomeWords are what a resolver says.
var outcomeWords = map[probe.Outcome]string{
	probe.Answer: "an answer", probe.NoData: "none", probe.NXDomain: "no such name", probe.ServFail: "a failure (SERVFAIL)", probe.Refused: "a refusal",
	probe.BadReply: "an error", probe.TimedOut: "silence", probe.NoWay: "nothing: it cannot be asked",
}

// good tells that a resolver has answered, if only that there is nothing.
func good(o probe.Outcome) bool { return o == probe.Answer || o == probe.NoData }

func said(l *probe.Lookup) string {
	s := outcomeWords[l.Outcome]
	if l.Why != "" {
		s += " (" + l.Why + ")"
	}
	return s
}

// answers compares the families at each resolver, and then the resolvers.
func (b *builder) answers(n *probe.Name) {
	by := map[string][]*probe.Lookup{}
	for i := range n.Lookups {
		l := &n.Lookups[i]
		by[l.Type] = append(by[l.Type], l)
	}
	for i := 0; i < len(by["A"]) && i < len(by["AAAA"]); i++ {
		four, six := by["A"][i], by["AAAA"][i]
		server := four.Resolver.Addr().String()
		s := finding.Subject{Key: n.Name + " " + server}
		ev := []finding.Evidence{
			{Source: "DNS", Key: "A from " + server, Value: said(four)}, {Source: "DNS", Key: "AAAA from " + server, Value: said(six)},
		}
		for _, x := range [][2]*probe.Lookup{{six, four}, {four, six}} {
			bad, well := x[0], x[1]
			if good(bad.Outcome) || !good(well.Outcome) {
				continue
			}
			what := map[probe.Outcome]string{
				probe.TimedOut: "is silent when it is asked for %s of %s, and answers for %s: clients wait for it, for seconds",
				probe.NXDomain: "says that there is no such name when it is asked for %s of %s, and knows its %s: clients that hear the first believe it",
			}[bad.Outcome]
			if what == "" {
				what = "fails when it is asked for %s of %s, and answers for %s: some clients take that for the whole name"
			}
			b.add(NameAnswers, finding.Medium, finding.Fail, s, server+" "+fmt.Sprintf(what, bad.Type, n.Asked, well.Type), ev...)
		}
		if !good(four.Outcome) && !good(six.Outcome) && (four.Outcome != probe.NXDomain || six.Outcome != probe.NXDomain) {
			b.add(NameAnswers, finding.Medium, finding.Fail, s, fmt.Sprintf("%s does not answer for %s: A brings %s, AAAA %s", server, n.Asked, said(four), said(six)), ev...)
		}
		if four.Outcome == probe.Answer && six.Outcome == probe.Answer && !slices.Equal(four.Chain, six.Chain) {
			b.add(NameAnswers, finding.Low, finding.Fail, s, fmt.Sprintf("%s leads A of %s over %s, and AAAA over %s: two hosts may answer", server, n.Asked, chain(four), chain(six)), ev...)
		}
	}
	for _, typ := range []string{"A", "AAAA"} {
		b.resolvers(n, typ, by[typ])
	}
}

func chain(l *probe.Lookup) string {
	if len(l.Chain) == 0 {
		return "no alias"
	}
	return strings.Join(l.Chain, " and ")
}

// resolvers compares what several say about one family.
func (b *builder) resolvers(n *probe.Name, typ string, ls []*probe.Lookup) {
	var some []*probe.Lookup // that know, if only that there is none
	for _, l := range ls {
		if good(l.Outcome) || l.Outcome == probe.NXDomain {
			some = append(some, l)
		}
	}
	same := func(a, b *probe.Lookup) bool { return slices.Equal(a.Addresses, b.Addresses) }
	if len(some) < 2 || !slices.ContainsFunc(some[1:], func(l *probe.Lookup) bool { return !same(some[0], l) }) {
		return
	}
	sev, transport := finding.Low, true
	var ev []finding.Evidence
	var parts []string
	first := map[bool]*probe.Lookup{}
	for _, l := range some {
		has := "none"
		if len(l.Addresses) > 0 {
			has = list(l.Addresses)
		}
		if (len(l.Addresses) > 0) != (len(some[0].Addresses) > 0) {
			sev = finding.Medium
		}
		is4 := l.Resolver.Addr().Is4()
		first[is4] = cmp.Or(first[is4], l)
		transport = transport && same(first[is4], l)
		server := l.Resolver.Addr().String()
		parts = append(parts, server+" says "+has)
		ev = append(ev, finding.Evidence{Source: "DNS", Key: typ + " from " + server, Value: has})
	}
	msg := fmt.Sprintf("the resolvers do not agree about %s of %s: %s", typ, n.Asked, strings.Join(parts, ", "))
	if transport && len(first) == 2 {
		msg += "; it depends on the family that they are asked over"
	}
	b.add(NameAnswers, sev, finding.Fail, finding.Subject{Key: n.Name + " " + typ}, msg, ev...)
}

func list(as []netip.Addr) string {
	var out []string
	for i, a := range as {
		if i == 4 {
			return strings.Join(out, ", ") + fmt.Sprintf(" and %d more", len(as)-i)
		}
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

// special names addresses that not everybody can reach, where that is a problem here.
func (b *builder) special(n *probe.Name, as []*probe.Address) {
	for _, x := range n.Special {
		s := finding.Subject{Family: probe.FamilyOf(x.Address), Address: x.Address.String(), Key: n.Name}
		asked, reached := false, false
		for _, a := range as {
			if a.Addr == x.Address {
				asked, reached = true, reached || a.Life == probe.Answered || a.Life == probe.Neighbour
			}
		}
		switch {
		case x.Unfit:
			b.add(NameAddresses, finding.Medium, finding.Fail, s, fmt.Sprintf("%s leads to %s (%s), which is of no use to anybody who asks; it was not probed", n.Name, x.Address, x.Class))
		case n.From == probe.FromDNS && x.Address.IsLoopback():
			b.add(NameAddresses, finding.Medium, finding.Fail, s, fmt.Sprintf("%s leads to %s (%s): everybody who asks finds himself there", n.Name, x.Address, x.Class))
		case n.From == probe.FromDNS && asked && !reached:
			b.add(NameAddresses, finding.Medium, finding.Fail, s, fmt.Sprintf("%s leads to %s (%s), which nothing answers for here: not everybody can reach such addresses", n.Name, x.Address, x.Class))
		}
	}
}

// races judges what clients wait for; ports that are alike are one finding.
func (b *builder) races(n *probe.Name, j *Judge) {
	type group struct {
		first *probe.Race
		ports probe.Ports
		meant bool
	}
	var groups []*group
	index := map[string]*group{}
	for i := range n.Races {
		r := &n.Races[i]
		late := before(r)
		if len(late) == 0 && r.Winner.Is4() == n.Order[0].Is4() {
			continue
		}
		meant := len(late) > 0
		key := ""
		for _, a := range r.Attempts {
			key += string(a.State) + "/"
		}
		for _, a := range late {
			meant = meant && j.meant(n, a.Address, r.Port)
		}
		key += fmt.Sprint(meant, r.Winner)
		if index[key] == nil {
			index[key] = &group{first: r, meant: meant}
			groups = append(groups, index[key])
		}
		index[key].ports.Add(r.Port)
	}
	for _, g := range groups {
		r := g.first
		late := before(r)
		sev := finding.Low
		var parts []string
		for _, a := range late {
			if a.State == probe.Filtered && !g.meant {
				sev = finding.Medium
			}
			parts = append(parts, fmt.Sprintf("%s is %s", a.Address, a.State))
		}
		msg := fmt.Sprintf("clients of %s at tcp/%s try %s first: ", n.Name, g.ports.Short(), n.Order[0])
		if len(late) == 0 {
			msg += fmt.Sprintf("it is slow, and %s wins after %s", r.Winner, Took(r.Milliseconds))
		} else {
			msg += fmt.Sprintf("%s. With Happy Eyeballs they are connected after %s instead of %s, without after %s",
				strings.Join(parts, ", "), Took(r.Milliseconds), Took(r.Best), Took(r.Plain))
		}
		s := finding.Subject{Family: probe.FamilyOf(n.Order[0]), Proto: "tcp", Key: n.Name + " " + g.ports.List()}
		if g.ports.Len() == 1 {
			s.Port, s.Key = r.Port, n.Name
		}
		b.add(Eyeballs, sev, finding.Fail, s, msg, finding.Evidence{Source: "probe", Key: "order of addresses (RFC 6724)", Value: list(n.Order)})
	}
}

// before are the addresses that a client tries in vain before one that works.
func before(r *probe.Race) (out []probe.Attempt) {
	for _, a := range r.Attempts {
		if a.State == probe.Open {
			return out
		}
		out = append(out, a)
	}
	return out
}

// meant tells that a port is to be blocked at an address.
func (j *Judge) meant(n *probe.Name, a netip.Addr, port uint16) bool {
	if j.Expected == nil {
		return false
	}
	for _, x := range j.Addresses {
		if x.Via == "" && x.Addr == a {
			w := j.Expected.Expect(Question{Target: n.Name, Addr: a, Source: x.Vantage.Source, Proto: "tcp", Port: port})
			return w != "" && w != Unknown && w != Word(probe.Open)
		}
	}
	return false
}

// Took writes milliseconds for people.
func Took(ms float64) string {
	switch {
	case ms >= 10_000:
		return fmt.Sprintf("%.0f s", ms/1000)
	case ms >= 1000:
		return fmt.Sprintf("%.1f s", ms/1000)
	case ms >= 10:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f ms", ms)
}
