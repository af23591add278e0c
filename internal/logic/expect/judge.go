package expect

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// Result is the answer for one port of one address.
type Result struct {
	Target    string         `json:"target"`
	Via       string         `json:"via,omitempty"` // another host says so; empty: this one saw it
	Address   netip.Addr     `json:"address"`
	Family    string         `json:"family"`
	Proto     string         `json:"proto"`
	Port      uint16         `json:"port"` // of icmp and icmpv6 the type
	Variant   probe.Variant  `json:"variant,omitempty"`
	State     probe.State    `json:"state"`
	Expected  Word           `json:"expected"`  // empty: nothing is expected
	Predicted Word           `json:"predicted"` // empty: no rules were given
	Verdict   Verdict        `json:"verdict"`
	Why       string         `json:"why"`
	ICMP      *ICMP          `json:"icmp,omitempty"`    // the error that came back
	Blocked   bool           `json:"blocked,omitempty"` // an error that is filtered or rejected
	MayBeOpen bool           `json:"mayBeOpen,omitempty"`
	from      *probe.Address // what it is about
}

// ICMP is an error message, and who sent it.
type ICMP struct {
	Type uint8      `json:"type"`
	Code uint8      `json:"code"`
	From netip.Addr `json:"from"`
}

// Judge compares what was seen with what is expected.
type Judge struct {
	Addresses []*probe.Address
	Expected  Source // nil: nothing is expected
	Predicted Source // nil: no rules
	// Together: all targets are one host by different names.
	Together bool
	// Lost are vantages that gave no answer, and why.
	Lost []Lost
}

// Lost is a vantage without an answer.
type Lost struct {
	Via string `json:"via"`
	Why string `json:"why"`
}

// vantages is the judge of each place from where was looked.
func (j *Judge) vantages() []*Judge {
	var out []*Judge
	at := map[string]int{}
	for _, a := range j.Addresses {
		i, ok := at[a.Via]
		if !ok {
			i = len(out)
			at[a.Via] = i
			out = append(out, &Judge{Expected: j.Expected, Predicted: j.Predicted, Together: j.Together})
		}
		out[i].Addresses = append(out[i].Addresses, a)
	}
	return out
}

// Across is ports of an address that do not look alike from everywhere.
type Across struct {
	Target  string        `json:"target"`
	Address netip.Addr    `json:"address"`
	Proto   string        `json:"proto"`
	Variant probe.Variant `json:"variant,omitempty"`
	Ports   string        `json:"ports"`
	Count   int           `json:"count"`
	// States are in the order of Vias; empty: not known from there. An empty via is here.
	Vias   []string `json:"vias"`
	States []Word   `json:"states"`
	set    *probe.Ports
}

// Across lays the vantages side by side, where they do not agree.
func (j *Judge) Across() []Across {
	out := []Across{}
	var vias []string
	for _, v := range j.vantages() {
		vias = append(vias, v.Addresses[0].Via)
	}
	if len(vias) < 2 {
		return out
	}
	type what struct {
		target  string
		addr    netip.Addr
		proto   string
		variant probe.Variant
	}
	var order []what
	tables := map[what][]*probe.Table{}
	for _, a := range j.Addresses {
		for _, t := range a.Tables {
			k := what{a.Target, a.Addr, t.Proto, t.Variant}
			if tables[k] == nil {
				tables[k] = make([]*probe.Table, len(vias))
				order = append(order, k)
			}
			tables[k][slices.Index(vias, a.Via)] = t
		}
	}
	for _, k := range order {
		index := map[string]int{}
		var want probe.Ports
		for _, t := range tables[k] {
			if t != nil {
				want = t.Want
			}
		}
		for p := range want.All {
			states, key, known := make([]Word, len(vias)), "", map[Word]bool{}
			for i, t := range tables[k] {
				if t != nil {
					states[i] = wordOf(t.At(p))
				}
				key += string(states[i]) + "/"
				if states[i] != "" {
					known[states[i]] = true
				}
			}
			if len(known) < 2 {
				continue
			}
			at, ok := index[key]
			if !ok {
				at = len(out)
				index[key] = at
				out = append(out, Across{Target: k.target, Address: k.addr, Proto: k.proto, Variant: k.variant, Vias: vias, States: states, set: &probe.Ports{}})
			}
			out[at].set.Add(p)
		}
	}
	for i := range out {
		out[i].Ports, out[i].Count = out[i].set.List(), out[i].set.Len()
	}
	return out
}

// Results goes through the ports that have a state, address by address. Nothing is
// kept, so that there may be many.
func (j *Judge) Results(yield func(*Result) bool) {
	for _, a := range j.Addresses {
		for _, t := range a.Tables {
			for port := range t.Want.All {
				r := t.At(port)
				if r.State == "" {
					continue // the run was cut short
				}
				if res := j.one(a, t, port, r); !yield(&res) {
					return
				}
			}
		}
	}
}

func (j *Judge) one(a *probe.Address, t *probe.Table, port uint16, r probe.Reason) Result {
	q := Question{Target: a.Target, Addr: a.Addr, Source: a.Vantage.Source, Proto: t.Proto, Port: port}
	res := Result{
		Target: a.Target, Via: a.Via, Address: a.Addr, Family: a.Family(), Proto: t.Proto, Port: port, Variant: t.Variant,
		State: r.State, Why: r.Why, Blocked: r.Blocked, MayBeOpen: r.MayBeOpen, from: a,
	}
	if r.ICMP {
		res.ICMP = &ICMP{r.ICMPType, r.ICMPCode, r.From}
	}
	if j.Expected != nil {
		res.Expected = j.Expected.Expect(q)
	}
	// What the rules say, they say about plain packets.
	if j.Predicted != nil && t.Variant == probe.Plain {
		res.Predicted = j.Predicted.Expect(q)
	}
	o := Observed{Reason: r, Proven: a.Life == probe.Answered || a.Life == probe.Neighbour, Self: a.Vantage.Self}
	res.Verdict = Compare(res.Expected, res.Predicted, o)
	if t.Variant != probe.Plain && res.Expected == Word(probe.Open) && !res.Verdict.Agree() {
		res.Verdict = None // many hosts drop what nobody needs; more getting through is another thing
	}
	return res
}

// Parity is ports that answer alike over each address of a host.
type Parity struct {
	Target  string        `json:"target"`
	Via     string        `json:"via,omitempty"`
	Proto   string        `json:"proto"`
	Variant probe.Variant `json:"variant,omitempty"`
	Ports   string        `json:"ports"`
	Count   int           `json:"count"`
	// States are in the order of Addresses: states, or Blocked where it could not be told
	// whether a port is filtered or rejected.
	Addresses []netip.Addr `json:"addresses"`
	States    []Word       `json:"states"`
	Differ    bool         `json:"differ"` // the families do not agree
	set       *probe.Ports
}

// wordOf is a state, or Blocked where it could not be told which of two it is.
func wordOf(r probe.Reason) Word {
	if r.Blocked {
		return Blocked
	}
	return Word(r.State)
}

// groups are the addresses of each host.
func (j *Judge) groups() (names []string, of map[string][]*probe.Address) {
	of = map[string][]*probe.Address{}
	var all []string
	for _, a := range j.Addresses {
		if !slices.Contains(all, a.Target) {
			all = append(all, a.Target)
		}
	}
	together := strings.Join(all, " ")
	for _, a := range j.Addresses {
		name := a.Target
		if j.Together {
			name = together
		}
		if of[name] == nil {
			names = append(names, name)
		}
		of[name] = append(of[name], a)
	}
	for _, as := range of { // IPv4 first
		slices.SortStableFunc(as, func(a, b *probe.Address) int { return cmp.Compare(a.Family(), b.Family()) })
	}
	return names, of
}

// Parity lays the families of each host side by side, for each vantage.
func (j *Judge) Parity() []Parity {
	out := []Parity{}
	for _, v := range j.vantages() {
		out = append(out, v.parity()...)
	}
	return out
}

func (j *Judge) parity() []Parity {
	var out []Parity
	names, of := j.groups()
	for _, name := range names {
		as := of[name]
		var addrs []netip.Addr
		for _, a := range as {
			addrs = append(addrs, a.Addr)
		}
		for _, x := range tablesOf(as) {
			first := len(out)
			var want probe.Ports
			for _, t := range x {
				if t != nil {
					for p := range t.Want.All {
						want.Add(p)
					}
				}
			}
			index := map[string]int{}
			for p := range want.All {
				states := make([]Word, len(x))
				key := ""
				for i, t := range x {
					if t != nil {
						states[i] = wordOf(t.At(p))
					}
					key += string(states[i]) + "/"
				}
				at, ok := index[key]
				if !ok {
					at = len(out)
					index[key] = at
					proto, variant := head(x)
					out = append(out, Parity{Target: name, Via: as[0].Via, Proto: proto, Variant: variant, Addresses: addrs, States: states, Differ: differ(as, states), set: &probe.Ports{}})
				}
				out[at].set.Add(p)
			}
			for i := first; i < len(out); i++ {
				out[i].Ports, out[i].Count = out[i].set.List(), out[i].set.Len()
			}
			slices.SortStableFunc(out[first:], func(a, b Parity) int {
				return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a.Count, b.Count))
			})
		}
	}
	return out
}

func head(ts []*probe.Table) (string, probe.Variant) {
	for _, t := range ts {
		if t != nil {
			return strings.TrimSuffix(t.Proto, "v6"), t.Variant
		}
	}
	return "", ""
}

// tablesOf are the tables of one protocol and variant, one for each address; icmp and
// icmpv6 have nothing in common but the name.
func tablesOf(as []*probe.Address) [][]*probe.Table {
	var out [][]*probe.Table
	for _, proto := range []string{"tcp", "udp", "icmp", "icmpv6"} {
		for _, v := range probe.Variants() {
			row := make([]*probe.Table, len(as))
			any := false
			for i, a := range as {
				for _, t := range a.Tables {
					if t.Proto == proto && t.Variant == v {
						row[i], any = t, true
					}
				}
			}
			if any {
				out = append(out, row)
			}
		}
	}
	return out
}

// order puts what differs first, then what is open.
func order(p Parity) int {
	switch {
	case p.Differ:
		return 0
	case slices.Contains(p.States, Word(probe.Open)):
		return 1
	case slices.Contains(p.States, Word(probe.Closed)):
		return 2
	}
	return 3
}

// differ tells whether something gets further over one family than over the other.
func differ(as []*probe.Address, states []Word) bool {
	worst := map[string]int{}
	for i, s := range states {
		if s == "" || s == Word(probe.Errored) || as[i].Vantage.Self || as[i].Addr.IsLinkLocalUnicast() {
			continue
		}
		r := 1 // nothing gets through
		switch probe.State(s) {
		case probe.Open:
			r = 3
		case probe.Closed:
			r = 2
		}
		worst[as[i].Family()] = max(worst[as[i].Family()], r)
	}
	return len(worst) == 2 && worst["ipv4"] != worst["ipv6"]
}

// Findings are what is wrong, and what could not be told, as the audit says it.
func (j *Judge) Findings() ([]finding.Finding, []finding.Gap) {
	b := &builder{gaps: map[string]int{}}
	for _, v := range j.vantages() {
		b.via = v.Addresses[0].Via
		b.judge(v)
	}
	b.via = ""
	for _, l := range j.Lost {
		b.add(Vantage, finding.High, finding.Unknown, finding.Subject{Key: l.Via}, "nothing is known from "+l.Via+": "+l.Why)
	}
	finding.Sort(b.findings)
	return b.findings, b.list
}

// judge adds what one vantage has seen.
func (b *builder) judge(j *Judge) {
	for _, a := range j.Addresses {
		b.vantage(a)
		b.path(a)
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
		b.result(&g.Result, &g.ports)
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
	findings []finding.Finding
	list     []finding.Gap
	gaps     map[string]int
	via      string // who says so; empty: this host has seen it
}

func (b *builder) add(control string, s finding.Severity, status finding.Status, subject finding.Subject, message string, evidence ...finding.Evidence) {
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
}

func (b *builder) vantage(a *probe.Address) {
	s := finding.Subject{Family: a.Family(), Address: a.Addr.String()}
	if a.Vantage.Self {
		b.add(Vantage, finding.High, finding.Unknown, s, a.Addr.String()+" is an address of the host that asks: the probes went over loopback, where other rules hold; look from another host")
	}
	if a.Complete && a.Life == probe.NoLife && !a.Vantage.Self && a.Problem == "" {
		b.add(Life, finding.High, finding.Unknown, s, "nothing at "+a.Addr.String()+" gives a sign of life: a host that is down is as silent as a firewall")
	}
	if a.Problem != "" {
		b.add(Life, finding.High, finding.Unknown, s, "nothing could be sent to "+a.Addr.String()+": "+a.Problem)
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
	if m.Hop.IsValid() {
		ev = append(ev, finding.Evidence{Source: "ICMP", Key: "Packet Too Big from " + m.Hop.String(), Value: fmt.Sprint(m.HopMTU)})
	}
	switch m.Verdict {
	case probe.PathIgnored:
		b.add(Path, finding.High, finding.Fail, s, fmt.Sprintf("%s goes on sending packets of %d bytes after a Packet Too Big that allows 1280: its rules, or some on the way to it, drop ICMPv6 type 2", a.Addr, m.MTU), ev...)
	case probe.PathHole:
		way := map[string]string{"there": "on the way to ", "back": "on the way back from "}[m.Way]
		if way == "" {
			way = "on the way to or from "
		}
		b.add(Path, finding.High, finding.Fail, s, fmt.Sprintf("packets of more than %d bytes are lost %s%s, and nobody says Packet Too Big", m.MTU, way, a.Addr), ev...)
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

func (b *builder) result(r *Result, ports *probe.Ports) {
	s := finding.Subject{Family: r.Family, Proto: r.Proto, Address: r.Address.String()}
	what := r.Proto + "/" + short(ports)
	if ports.Len() == 1 {
		s.Port = r.Port
	} else {
		s.Key = string(r.Variant) + " " + ports.List()
	}
	if r.Variant != probe.Plain {
		what += " behind " + variantWords[r.Variant]
		s.Key = strings.TrimSpace(string(r.Variant) + " " + ports.List())
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
	if w := verdictWords[r.Verdict]; w != "" {
		msg += ": " + w
	}
	ev := []finding.Evidence{{Source: "probe", Key: r.Address.String() + " " + r.Proto + "/" + short(ports), Value: state}}
	if r.ICMP != nil {
		ev = append(ev, finding.Evidence{Source: "ICMP", Key: "from " + r.ICMP.From.String(), Value: fmt.Sprintf("type %d code %d", r.ICMP.Type, r.ICMP.Code)})
	}
	if r.Predicted != "" {
		ev = append(ev, finding.Evidence{Source: "reach", Key: "rules of the target", Value: string(r.Predicted)})
	}
	if r.Verdict == Undecided {
		b.add(Difference, severity(r), finding.Unknown, s, fmt.Sprintf("%s of %s should be %s, and what was seen (%s, %s) proves nothing", what, r.Address, want, state, cmp.Or(r.Why, "no reason")), ev...)
		return
	}
	b.add(Difference, severity(r), finding.Fail, s, msg, ev...)
}

func severity(r *Result) finding.Severity {
	want := r.Expected
	if want == "" {
		want = r.Predicted
	}
	switch {
	case r.State == probe.Open:
		return finding.High
	case want == Word(probe.Open), r.State == probe.Closed && blocks(want):
		return finding.Medium
	case r.Verdict == Undecided:
		return finding.Medium
	}
	return finding.Low
}

// manyPorts that answer over IPv6 and not over IPv4 are no exception to a rule: there is
// no rule.
const manyPorts = 100

// maxShown is how long a list of ports may be in a sentence.
const maxShown = 40

func short(p *probe.Ports) string {
	l := p.List()
	if len(l) <= maxShown {
		return l
	}
	cut := strings.LastIndexByte(l[:maxShown], ',')
	return fmt.Sprintf("%s… (%d ports)", l[:max(cut, 1)], p.Len())
}

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
		s := finding.Subject{Family: wide, Proto: p.Proto, Key: p.Target + " " + left.List()}
		if left.Len() == 1 {
			for port := range left.All {
				s.Port = port
			}
			s.Key = p.Target
		}
		b.add(Families, sev, finding.Fail, s, fmt.Sprintf("%s/%s of %s is %s", p.Proto, short(&left), p.Target, strings.Join(parts, ", ")),
			finding.Evidence{Source: "probe", Key: p.Target, Value: strings.Join(parts, ", ")})
	}
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
				if (got == probe.Open || got == probe.Closed) && was != probe.Open && was != probe.Closed && was != "" {
					through.Add(p)
				}
			}
			if through.Len() > 0 {
				s := finding.Subject{Family: a.Family(), Proto: t.Proto, Address: a.Addr.String(), Key: string(t.Variant) + " " + through.List()}
				b.add(Wrapped, finding.High, finding.Fail, s, fmt.Sprintf("%s/%s of %s answers behind %s, and not without: the rules look at the first header only", t.Proto, short(&through), a.Addr, variantWords[t.Variant]))
			}
		}
	}
}
