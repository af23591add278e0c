package oracle

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Case is one ruleset with its packets and the kernel's verdicts: all that a
// comparison needs, so that it can be repeated without a kernel.
type Case struct {
	Seed       uint64
	Script     string
	Raw        bool // packets are asked about with all their bytes
	NFT        fact.NFTables
	Interfaces map[uint32]string
	Host       []byte // the namespace's facts about routes and addresses, as JSON
	Shapes     []Shape
	Probes     []Probe
	Accepted   []bool
	bug        func(*rs.Ruleset) // planted by a test
	Leave      uint32            // fields that the question about a single packet leaves open, too
}

// Mismatch is a packet about which the kernel and the model disagree.
type Mismatch struct {
	Probe    int
	Open     bool   // of the question that leaves the source open
	Leave    uint32 // of the one that leaves these fields open
	Kernel   bool
	Must     bool
	May      bool
	Path     string
	Question reach.Packet
}

func (m Mismatch) String() string {
	how := "fixed source"
	if m.Open {
		how = "open source"
	}
	if m.Leave != 0 {
		how = fmt.Sprintf("left open %b", m.Leave)
	}
	return fmt.Sprintf("probe %d (%s): kernel accepted=%v, model must=%v may=%v\n%s", m.Probe, how, m.Kernel, m.Must, m.May, m.Path)
}

// Outcome counts a comparison.
type Outcome struct {
	Parts      int // questions that left other fields open
	Verdicts   int // packets compared with the kernel
	Accepted   int
	Uncertain  int // may, and rightly so: opaque, limited, or a state that the packet does not fix
	Mismatches []Mismatch
	Why        map[string]int // reasons of uncertain answers
}

// Ruleset decodes what the kernel gave.
func (c *Case) Ruleset() (*rs.Ruleset, error) {
	ts, err := pfdecode.FromFact(c.NFT, binary.LittleEndian)
	if err != nil {
		return nil, err
	}
	types := map[string]uint16{}
	for _, name := range c.Interfaces {
		types[name] = 1 // ARPHRD_ETHER
		if name == "lo" {
			types[name] = 772
		}
	}
	set := &rs.Ruleset{Tables: ts, Interfaces: c.Interfaces, Types: types, Groups: labGroups, Kinds: labKinds}
	if c.bug != nil {
		c.bug(set)
	}
	return set, nil
}

func (c *Case) model(set *rs.Ruleset) *reach.Model {
	var n fact.Namespace
	if err := json.Unmarshal(c.Host, &n); err != nil {
		n = fact.Namespace{}
	}
	return &reach.Model{Set: set, Order: binary.LittleEndian, World: reach.NewRoutes(&n)}
}

// Compare asks the model about every packet, alone and with an open source.
func (c *Case) Compare(cov *Coverage, maxMismatches int) (*Outcome, error) {
	set, err := c.Ruleset()
	if err != nil {
		return nil, err
	}
	model := c.model(set)
	out := &Outcome{Why: map[string]int{}}
	var open *reach.Answer
	shape := -1
	var must, may packetset.Set
	for id, p := range c.Probes {
		if len(out.Mismatches) >= maxMismatches {
			break
		}
		s := &c.Shapes[p.Shape]
		if p.Shape != shape {
			shape = p.Shape
			open = model.Ask(s.question(noAddr, 0, false), s.hook(), false)
			must, may = open.Must(), open.May()
		}
		out.Verdicts++
		if c.Accepted[id] {
			out.Accepted++
		}
		q := s.question(p.Src, uint32(id), c.Raw)
		a := model.Walk(q, s.hook(), false)
		if quick := model.Ask(q, s.hook(), false); quick.All() != a.All() || quick.Limited.Empty() != a.Limited.Empty() {
			all := quick.All()
			out.Mismatches = append(out.Mismatches, Mismatch{Probe: id, Kernel: c.Accepted[id], Must: all == reach.Accepted, May: all&(reach.Accepted|reach.Stolen) != 0, Path: path(a), Question: q})
			continue
		}
		if cov != nil {
			count(cov, a)
		}
		if m, ok := c.judge(id, a.End(0) == reach.Accepted, a.End(0)&(reach.Accepted|reach.Stolen) != 0, !a.Limited.Empty(), excuse(a, c.Raw), false, out); !ok {
			m.Path, m.Question = path(a), q
			out.Mismatches = append(out.Mismatches, m)
			continue
		}
		x := packetset.FromIP(p.Src)
		if m, ok := c.judge(id, must.Contains(x), may.Contains(x), open.Limited.Has(open.Space.Cell(x)), excuse(open, false), true, out); !ok {
			m.Path, m.Question = path(a), s.question(noAddr, 0, false)
			out.Mismatches = append(out.Mismatches, m)
			continue
		}
		fields := c.Leave
		if len(c.Probes) > 1 {
			fields = leave(c.Seed, uint32(id))
		}
		if fields != 0 {
			part := s.part(p.Src, uint32(id), fields)
			b := model.Ask(part, s.hook(), false)
			out.Parts++
			all := b.All()
			if m, ok := c.judge(id, all == reach.Accepted, all&(reach.Accepted|reach.Stolen) != 0, !b.Limited.Empty(), excuse(b, false), true, out); !ok {
				m.Path, m.Question, m.Leave = path(model.Walk(part, s.hook(), false)), part, fields
				out.Mismatches = append(out.Mismatches, m)
			}
		}
	}
	return out, nil
}

// judge compares one verdict.
func (c *Case) judge(id int, must, may, limited bool, why string, open bool, out *Outcome) (Mismatch, bool) {
	k := c.Accepted[id]
	m := Mismatch{Probe: id, Open: open, Kernel: k, Must: must, May: may}
	switch {
	case must && !k && !limited, !may && k:
		return m, false
	case must == may:
		return m, true
	case len(c.Probes) == 1 && k && why == causeLimit+": limit":
		return m, false // the first packet is within every rate
	case limited || why != "":
		if !open {
			if why == "" {
				why = "limit"
			}
			out.Uncertain++
			out.Why[why]++
		}
		return m, true
	}
	return m, false
}

// Causes of an uncertain answer.
const (
	causeLeaf  = "an expression that no question answers"
	causeLimit = "a rate or a quota"
	causeState = "a state that the packet does not fix"
	causeField = "a field that the question leaves open"
)

// causes are what may make an answer uncertain, by what the model calls it. Whatever is
// not listed is no excuse: the answer then counts as a mismatch.
var causes = map[string]string{
	"limit":                        causeLimit,
	"dynset":                       causeLimit,
	"object map":                   causeLimit,
	"the other fragments":          causeState,
	"order of conntrack and chain": causeState,
	"an element that times out":    causeState,
	"random":                       causeState,
	"order of NAT and chain":       causeState,
	"zone of conntrack":            causeState,
	"which side opened the flow":   causeState,
	"whether the flow is older than the NAT rules":           causeState,
	"whether NAT changed anything":                           causeState,
	"what address source NAT took":                           causeState,
	"the flow that a packet is related to":                   causeState,
	"the group of the sending socket":                        causeState,
	"what the bridge does with a packet that NAT sends back": causeState,
	"link header":                       causeState,
	"queue":                             causeLeaf,
	"ct key":                            causeState,
	"tproxy":                            causeState,
	"socket":                            causeState,
	"rt":                                causeState,
	"route after NAT":                   causeState,
	"route of a rewritten address":      causeState,
	"a field that a rule rewrote":       causeState,
	"address of redirect":               causeState,
	"synproxy":                          causeState,
	"fib":                               causeState,
	"interface type":                    causeState,
	"which address or port NAT chooses": causeState,
	"a header that the host loses its place in":      causeState,
	"whether connection tracking is on":              causeState,
	"interface kind":                                 causeState,
	"interface group":                                causeState,
	"meta pkttype":                                   causeState,
	"transport header of a later fragment":           causeState,
	"meta key":                                       causeLeaf,
	"header options":                                 causeLeaf,
	"inner header":                                   causeLeaf,
	"payload set":                                    causeLeaf,
	"packet length":                                  causeField,
	"a field that the question does not have":        causeField,
	"a part of the source address":                   causeField,
	"mask over the source address that is no prefix": causeField,
}

// excuse is why an answer may be uncertain; "" when nothing that it met allows that.
// Of a question that holds the whole packet no field is open.
func excuse(a *reach.Answer, whole bool) string {
	for _, o := range a.Opaque {
		c := causes[o]
		switch {
		case strings.HasPrefix(o, "set "):
			c, o = causeState, "a dynamic set"
		case strings.HasPrefix(o, "rates in map "), strings.HasPrefix(o, "what is left of the rates in set "):
			c, o = causeLimit, "the rates of a set"
		case strings.HasPrefix(o, "full set "):
			c, o = causeLimit, "a full set"
		case strings.HasPrefix(o, "object "):
			c, o = causeLimit, "a stateful object"
		}
		if c != "" && (c != causeField || !whole) {
			return c + ": " + o
		}
	}
	if len(a.Needs) > 0 && !whole {
		return causeField + ": " + strings.Join(a.Needs, " ")
	}
	return ""
}

func count(cov *Coverage, a *reach.Answer) {
	for _, s := range a.Path {
		if s.Rule == nil {
			continue
		}
		for _, x := range cov.cells(s.Rule.Comment) {
			switch {
			case s.Matched():
				cov.yes[x]++
			case s.Missed():
				cov.no[x]++
			default:
				cov.open[x]++
			}
		}
	}
}

func path(a *reach.Answer) string {
	var b strings.Builder
	for _, s := range a.Path {
		if s.Rule == nil {
			fmt.Fprintf(&b, "  %s %s: %s\n", s.Chain.Table.Name, s.Chain.Name, s.Result)
			continue
		}
		fmt.Fprintf(&b, "  %s %s %d: match=%v %s\n", s.Chain.Table.Name, s.Chain.Name, s.Rule.Index, s.Match, s.Result)
	}
	fmt.Fprintf(&b, "  ends %04b limited %v needs %v opaque %v\n", a.End(0), !a.Limited.Empty(), a.Needs, a.Opaque)
	return b.String()
}

// Exprs lists the rules of a small case as the decoder read them.
func (c *Case) Exprs() string {
	set, err := c.Ruleset()
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, t := range set.Tables {
		for _, ch := range t.Chains {
			for _, r := range ch.Rules {
				fmt.Fprintf(&b, "%s %s %d:", t.Name, ch.Name, r.Index)
				for _, e := range r.Exprs {
					fmt.Fprintf(&b, " %T%+v", e, e)
				}
				b.WriteString("\n")
			}
		}
		for _, s := range t.Sets {
			fmt.Fprintf(&b, "%s set %+v\n", t.Name, *s)
		}
	}
	return b.String()
}
