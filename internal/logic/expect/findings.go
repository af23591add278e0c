package expect

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// Findings are what is wrong, and what could not be told, as the audit says it.
func (j *Judge) Findings() ([]finding.Finding, []finding.Gap) {
	b := &builder{gaps: map[string]int{}, ranks: map[string]int{}}
	for _, v := range j.vantages() {
		b.via = v.Addresses[0].Via
		b.judge(v)
	}
	b.via = ""
	b.names(j)
	b.idle(j)
	for _, l := range j.Lost {
		what := "nothing is known from "
		if l.Partly {
			what = "not all is known from "
		}
		b.add(Vantage, finding.High, finding.Unknown, finding.Subject{Key: l.Via}, what+l.Via+": "+l.Why)
	}
	b.guards(j.Guards)
	b.sort()
	return b.findings, b.list
}

// idle says when nothing of what was given to compare with is about what was asked: that is
// no pass.
func (b *builder) idle(j *Judge) {
	if j.Expected == nil && j.Predicted == nil {
		return
	}
	any := false
	for r := range j.Results {
		if any = true; r.Expected != "" || r.Predicted != "" {
			return
		}
	}
	if any {
		b.add(Difference, finding.High, finding.Unknown, finding.Subject{Key: "nothing compared"}, "nothing that was asked is expected: the addresses or ports that were given to compare with are others").Remediation = []finding.Remediation{
			{Kind: finding.Note, Text: "ask what is expected: leave out --ports, or name the same targets as before"},
		}
	}
}

// judge adds what one vantage has seen.
func (b *builder) judge(j *Judge) {
	for _, a := range j.Addresses {
		b.vantage(a)
		b.path(a)
		b.chains(a)
		b.soak(a)
	}
	type group struct {
		Result
		ports probe.Ports
	}
	var groups []*group
	index := map[string]int{}
	for r := range j.Results {
		if r.Verdict.Agree() {
			continue
		}
		key := fmt.Sprint(r.Address, r.Proto, r.Variant, r.State, r.Expected, r.Predicted, r.Verdict, r.MayBeOpen, r.Blocked)
		i, ok := index[key]
		if !ok {
			i = len(groups)
			index[key] = i
			groups = append(groups, &group{Result: *r})
		}
		groups[i].ports.Add(r.Port)
	}
	explained := map[string]*probe.Ports{} // ports with an expectation: they are judged by it
	for _, g := range groups {
		sets, single := each(&g.ports, g.State == probe.Open || g.wanted() == Word(probe.Open))
		for _, ports := range sets {
			b.result(&g.Result, ports, single)
		}
	}
	for r := range j.Results {
		if r.Expected != "" {
			k := r.Proto
			if explained[k] == nil {
				explained[k] = &probe.Ports{}
			}
			explained[k].Add(r.Port)
		}
	}
	b.parity(j.parity(), explained)
	b.wrapped(j)
}

type builder struct {
	findings  []finding.Finding
	list      []finding.Gap
	gaps      map[string]int
	via       string // who says so; empty: this host has seen it
	ranks     map[string]int
	distances map[*probe.Address][]probe.Distant
}

// What comes first among findings of one severity, by fingerprint; others are ranked with
// what is out of order.
const (
	cause   = iota - 3 // why nothing else is known
	exposed            // open, and should not be
	missing            // not open, and should be
	amiss
	vacant // nobody listens where nothing should get through: mostly long lists
)

// sort puts what somebody has to look at tonight before what is long.
func (b *builder) sort() {
	finding.Sort(b.findings)
	status := map[finding.Status]int{finding.Fail: 0, finding.Unknown: 1, finding.Pass: 2}
	slices.SortStableFunc(b.findings, func(x, y finding.Finding) int {
		return cmp.Or(cmp.Compare(status[x.Status], status[y.Status]), cmp.Compare(y.Severity.Rank(), x.Severity.Rank()), cmp.Compare(b.ranks[x.Fingerprint], b.ranks[y.Fingerprint]))
	})
}

func (b *builder) add(control string, s finding.Severity, status finding.Status, subject finding.Subject, message string, evidence ...finding.Evidence) *finding.Finding {
	c := control
	if evidence == nil {
		evidence = []finding.Evidence{}
	}
	if b.via != "" {
		subject.Key = strings.TrimSpace(b.via + " " + subject.Key)
		message = b.via + " claims: " + message
		for i, e := range evidence {
			if e.Source == "probe" || e.Source == "ICMP" {
				evidence[i].Source = e.Source + ", as " + b.via + " claims"
			}
		}
	}
	f := finding.Finding{
		Control: c, Status: status, Effective: status, Compliance: status, Severity: s, Subject: subject, Message: message,
		Fingerprint: finding.FingerprintOf(c, subject), Evidence: evidence, Remediation: []finding.Remediation{}, References: []finding.Reference{},
	}
	for _, x := range Controls() {
		if x.ID == c {
			f.Title, f.References, f.Remediation = x.Title, x.Refs, x.Fix
		}
	}
	if status == finding.Unknown {
		id := "gap-" + finding.FingerprintOf("gap", finding.Subject{Key: message, Address: subject.Address})[:12]
		f.Gaps = []string{id}
		if _, ok := b.gaps[id]; !ok {
			b.gaps[id] = len(b.list)
			b.list = append(b.list, finding.Gap{ID: id, Reason: fact.NotCollected, What: message})
		}
		g := &b.list[b.gaps[id]]
		if !slices.Contains(g.Controls, c) {
			g.Controls = append(g.Controls, c)
		}
	}
	b.findings = append(b.findings, f)
	return &b.findings[len(b.findings)-1]
}

// about adds a finding about ports. Its fingerprint has to be that of the same finding in the
// next run: of one port it is the port that counts, of many the words for them, since a port
// more or less makes no other finding of it.
func (b *builder) about(control string, s finding.Severity, status finding.Status, subject finding.Subject, words string, ports *probe.Ports, rank int, message string, evidence ...finding.Evidence) *finding.Finding {
	if words != "" {
		subject.Key = strings.TrimSpace(subject.Key + " " + words)
	}
	f := b.add(control, s, status, subject, message, evidence...)
	if ports.Len() == 1 {
		for p := range ports.All {
			f.Subject.Port = p
		}
		if words == "" {
			f.Fingerprint = finding.FingerprintOf(control, f.Subject)
		}
	}
	b.ranks[f.Fingerprint] = rank
	return f
}

// each is the ports one by one, where each matters and they can be counted; else as they are.
func each(ports *probe.Ports, matters bool) (sets []*probe.Ports, single bool) {
	if !matters || ports.Len() >= manyPorts {
		return []*probe.Ports{ports}, false
	}
	for p := range ports.All {
		one := &probe.Ports{}
		one.Add(p)
		sets = append(sets, one)
	}
	return sets, true
}

func (b *builder) vantage(a *probe.Address) {
	s := finding.Subject{Family: a.Family(), Address: a.Addr.String()}
	first := len(b.findings)
	defer func() {
		for _, f := range b.findings[first:] {
			b.ranks[f.Fingerprint] = cause
		}
	}()
	if a.Vantage.Self {
		b.add(Vantage, finding.High, finding.Unknown, s, a.Addr.String()+" is an address of the host that asks: the probes went over loopback, where other rules hold; look from another host")
	}
	if a.Complete && a.Life == probe.NoLife && !a.Vantage.Self && a.Problem == "" {
		b.add(Life, finding.High, finding.Unknown, s, "nothing at "+a.Addr.String()+" gives a sign of life: a host that is down is as silent as a firewall")
	}
	if a.Problem != "" {
		b.add(Life, finding.High, finding.Unknown, s, "nothing could be sent to "+a.Addr.String()+": "+a.Problem).Remediation = []finding.Remediation{{Kind: finding.Note, Text: unreached}}
	}
	if !a.Complete {
		b.add(Life, finding.High, finding.Unknown, s, "the run was cut short: "+a.Addr.String()+" is not known as a whole")
	}
}

// path judges path-MTU discovery, where it was looked at.
func (b *builder) path(a *probe.Address) {
	m := a.Path
	if m == nil {
		return
	}
	s := finding.Subject{Family: a.Family(), Address: a.Addr.String()}
	var ev []finding.Evidence
	if m.MTU > 0 {
		ev = append(ev, finding.Evidence{Source: "probe", Key: "largest answered packet", Value: fmt.Sprint(m.MTU)})
	}
	message, kind, allows := "Packet Too Big", "ICMPv6 type 2", "1280"
	if a.Addr.Is4() {
		message, kind, allows = "Fragmentation Needed", "ICMP type 3 code 4", "less"
	}
	if m.Hop.IsValid() {
		ev = append(ev, finding.Evidence{Source: "ICMP", Key: message + " from " + m.Hop.String(), Value: fmt.Sprint(m.HopMTU)})
	}
	switch m.Verdict {
	case probe.PathIgnored:
		b.add(Path, finding.High, finding.Fail, s, fmt.Sprintf("%s goes on sending packets of %d bytes after a %s that allows %s: its rules, or some on the way to it, drop %s", a.Addr, m.MTU, message, allows, kind), ev...)
	case probe.PathHole:
		way := map[string]string{"there": "on the way to ", "back": "on the way back from "}[m.Way]
		if way == "" {
			way = "on the way to or from "
		}
		b.add(Path, finding.High, finding.Fail, s, fmt.Sprintf("packets of more than %d bytes are lost %s%s, and nobody says %s%s", m.MTU, way, a.Addr, message, throughTCP(a, m.MTU)), ev...)
	case probe.PathUnknown:
		b.add(Path, finding.Medium, finding.Unknown, s, fmt.Sprintf("path-MTU discovery of %s could not be looked at: %s", a.Addr, m.Why), ev...)
	case probe.PathHonoured:
	}
}

// words of the verdicts.
var verdictWords = map[Verdict]string{
	PolicyWrong: "the rules do that as well, so the rules are what is wrong",
	ModelWrong:  "the rules that were given do not explain it: they are out of date, or something decides that they do not hold",
	Between:     "the rules allow more, so something on the way decides as well: a security group, a switch, a provider",
	AllDiffer:   "the rules say a third thing",
	Differs:     "",
}

// wanted is what the port should be.
func (r *Result) wanted() Word { return cmp.Or(r.Expected, r.Predicted) }

// whyWords are reasons for not knowing.
var whyWords = map[string]string{
	"rationed": "the target rations its answers", "lossy": "too much is lost on the way", "no-rights": "this user may not ask",
	"own-rules": "this host's own rules refuse to send", "no-route": "there is no way to the address", "no-neighbour": "nobody answers for the address",
}

// doubt says why what was seen proves nothing.
func (r *Result) doubt(state string) string {
	switch w := whyWords[r.Why]; {
	case r.from != nil && r.from.Vantage.Self:
		return "the probes came from the target itself"
	case r.wanted() == Unknown:
		return "it is " + state + ", and what it should be depends on what cannot be seen from here"
	case w != "" && r.Blocked:
		return "it is " + state + ": " + w
	case w != "":
		return w
	case r.State == probe.Filtered && !r.MayBeOpen:
		return "it is silent, and so is everything at the address"
	}
	return "it is " + state
}

// gapReason is the word for it that --allow-gaps takes.
func gapReason(r *Result) fact.Reason {
	switch r.Why {
	case "no-rights", "own-rules":
		return fact.Permission
	case "rationed":
		return fact.Truncated
	}
	return fact.NotCollected
}

func (b *builder) result(r *Result, ports *probe.Ports, single bool) {
	s := finding.Subject{Family: r.Family, Proto: r.Proto, Address: r.Address.String(), Key: string(r.Variant)}
	what := r.Proto + "/" + ports.Short()
	if r.Variant != probe.Plain {
		what += " behind " + variantWords[r.Variant]
	}
	state := string(r.State)
	switch {
	case r.MayBeOpen:
		state = "silent, that is open or filtered"
	case r.Blocked:
		state = "filtered or rejected"
	}
	want := string(r.Expected)
	if want == "" {
		want = string(r.Predicted) + " by the rules"
	}
	msg := fmt.Sprintf("%s of %s is %s, and should be %s", what, r.Address, state, want)
	if r.Verdict == ModelWrong && r.Expected == Word(r.State) || r.Verdict == ModelWrong && r.Expected == Blocked && r.State != probe.Open && r.State != probe.Closed {
		msg = fmt.Sprintf("%s of %s is %s, as it should be, and %s by the rules", what, r.Address, state, r.Predicted)
	}
	if w := verdictWords[r.Verdict]; w != "" {
		msg += ": " + w
	}
	ev := []finding.Evidence{{Source: "probe", Key: r.Address.String() + " " + r.Proto + "/" + ports.Short(), Value: state}}
	if r.ICMP != nil {
		ev = append(ev, finding.Evidence{Source: "ICMP", Key: "from " + r.ICMP.From.String(), Value: fmt.Sprintf("type %d code %d", r.ICMP.Type, r.ICMP.Code)})
	}
	if r.Predicted != "" {
		ev = append(ev, finding.Evidence{Source: "reach", Key: "rules of the target", Value: string(r.Predicted)})
	}
	if d := b.distance(r); d != "" {
		msg += "; " + d
		ev = append(ev, finding.Evidence{Source: "probe", Key: "hop limit of the answer", Value: fmt.Sprint(r.HopLimit)})
	}
	if e := ends(r, ports); e != "" {
		msg += "; " + e
	}
	words, rank := "", amiss
	if !single {
		words = fmt.Sprintf("%s, should be %s", state, want)
		if r.Expected != "" && r.Predicted != "" {
			words += ", rules " + string(r.Predicted)
		}
	}
	switch {
	case r.State == probe.Open:
		rank = exposed
	case r.wanted() == Word(probe.Open):
		rank = missing
	case r.State == probe.Closed:
		rank = vacant
	}
	status := finding.Fail
	if r.Verdict == Undecided {
		status, msg = finding.Unknown, fmt.Sprintf("%s of %s should be %s, and that could not be told: %s", what, r.Address, want, r.doubt(state))
	}
	f := b.about(Difference, severity(r), status, s, words, ports, rank, msg, ev...)
	if status == finding.Unknown {
		b.list[b.gaps[f.Gaps[0]]].Reason = gapReason(r)
	}
	if fix := remedy(r); fix != "" {
		f.Remediation = []finding.Remediation{{Kind: finding.Note, Text: fix}}
	}
}

// severity is high for what somebody said and is not so: then the exit status says it, too.
// What the rules alone predict is no wish.
func severity(r *Result) finding.Severity {
	want, said := r.Expected, finding.High
	if want == "" {
		want, said = r.Predicted, finding.Medium
	}
	switch {
	case r.State == probe.Open:
		return finding.High
	case r.MayBeOpen, r.Blocked && blocks(want):
		return finding.Medium // as far as can be told it is as wanted
	case r.Verdict == Undecided, want == Word(probe.Open), r.State == probe.Closed && blocks(want):
		return said
	}
	return finding.Low
}

// manyPorts that answer over IPv6 and not over IPv4 are no exception to a rule: there is
// no rule.
const manyPorts = 100

func (b *builder) parity(ps []Parity, explained map[string]*probe.Ports) {
	for _, p := range ps {
		if !p.Differ || p.Variant != probe.Plain {
			continue
		}
		var left probe.Ports
		for port := range p.set.All {
			if e := explained[p.Proto]; e == nil || !e.Has(port) {
				left.Add(port)
			}
		}
		if left.Len() == 0 {
			continue
		}
		var parts []string
		wide, openIn := "", ""
		for i, st := range p.States {
			if st == "" {
				continue
			}
			parts = append(parts, fmt.Sprintf("%s over %s (%s)", st, map[bool]string{true: "IPv4", false: "IPv6"}[p.Addresses[i].Is4()], p.Addresses[i]))
			if st == Word(probe.Open) {
				openIn = probe.FamilyOf(p.Addresses[i])
			}
			if st == Word(probe.Open) || st == Word(probe.Closed) && wide == "" {
				wide = probe.FamilyOf(p.Addresses[i])
			}
		}
		sev := finding.Medium
		if openIn == "ipv6" || wide == "ipv6" && left.Len() >= manyPorts {
			sev = finding.High
		}
		// The order in which the targets were named makes no other finding.
		names := strings.Fields(p.Target)
		slices.Sort(names)
		s := finding.Subject{Family: wide, Proto: p.Proto, Key: strings.Join(names, " ")}
		words, rank := strings.Join(slices.Sorted(slices.Values(parts)), ", "), amiss
		sets, single := each(&left, openIn != "")
		if single {
			words = ""
		}
		if openIn != "" {
			rank = exposed
		}
		for _, ports := range sets {
			b.about(Families, sev, finding.Fail, s, words, ports, rank, fmt.Sprintf("%s/%s of %s is %s", p.Proto, ports.Short(), few(strings.Fields(p.Target), " "), sides(p)),
				finding.Evidence{Source: "probe", Key: p.Target, Value: strings.Join(parts, ", ")})
		}
	}
}

// few is the first names of a list, and how many there are besides.
func few(names []string, sep string) string {
	const most = 4
	if len(names) <= most {
		return strings.Join(names, sep)
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most-1], sep), len(names)-most+1)
}

// sides says what each family shows, what is open first.
func sides(p Parity) string {
	var order []string
	addrs := map[string][]string{}
	for _, open := range []bool{true, false} {
		for i, st := range p.States {
			if st == "" || open != (st == Word(probe.Open)) {
				continue
			}
			k := fmt.Sprintf("%s over %s", st, map[bool]string{true: "IPv4", false: "IPv6"}[p.Addresses[i].Is4()])
			if addrs[k] == nil {
				order = append(order, k)
			}
			addrs[k] = append(addrs[k], p.Addresses[i].String())
		}
	}
	for i, k := range order {
		order[i] = k + " (" + few(addrs[k], ", ") + ")"
	}
	return strings.Join(order, ", ")
}

var variantWords = map[probe.Variant]string{
	probe.HopByHop: "a hop-by-hop header", probe.DestOpts: "a destination options header", probe.Fragments: "fragments", probe.Atomic: "an atomic fragment header",
}

// wrapped looks for packets that get further than their plain kin.
func (b *builder) wrapped(j *Judge) {
	for _, a := range j.Addresses {
		plain := map[string]*probe.Table{}
		for _, t := range a.Tables {
			if t.Variant == probe.Plain {
				plain[t.Proto] = t
			}
		}
		for _, t := range a.Tables {
			k := plain[t.Proto]
			if t.Variant == probe.Plain || k == nil {
				continue
			}
			var through probe.Ports
			for p := range t.Want.All {
				got, was := t.At(p).State, k.At(p).State
				if got == probe.Open && was != probe.Open && was != "" || got == probe.Closed && was != probe.Open && was != probe.Closed && was != "" {
					through.Add(p)
				}
			}
			if through.Len() > 0 {
				s := finding.Subject{Family: a.Family(), Proto: t.Proto, Address: a.Addr.String(), Key: string(t.Variant)}
				sets, single := each(&through, true)
				for _, ports := range sets {
					words := ""
					if !single {
						words = "gets through"
					}
					b.about(Wrapped, finding.High, finding.Fail, s, words, ports, exposed, fmt.Sprintf("%s/%s of %s answers behind %s, and not without: the rules look at the first header only", t.Proto, ports.Short(), a.Addr, variantWords[t.Variant]))
				}
			}
		}
	}
}
