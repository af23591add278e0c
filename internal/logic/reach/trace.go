package reach

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// ByteOrder is binary.LittleEndian or binary.BigEndian: that of the host on which
// the ruleset was read.
type ByteOrder = appendOrder

// OrderOf is the byte order by its word in a Snapshot ("big"; anything else is little).
func OrderOf(word string) ByteOrder {
	if word == "big" {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// Words of a verdict.
const (
	WordAccept  = "accept"
	WordDrop    = "drop"
	WordReject  = "reject"
	WordUnknown = "unknown"
)

// RuleRef names a rule, or the policy of a base chain (handle 0).
type RuleRef struct {
	Table  string `json:"table"` // family and name: "inet filter"
	Chain  string `json:"chain"`
	Handle uint64 `json:"handle"`
	Rule   string `json:"rule"`
}

// String is the rule as people cite it.
func (r RuleRef) String() string {
	s := r.Table + " " + r.Chain
	if r.Handle != 0 {
		s += " handle " + strconv.FormatUint(r.Handle, 10)
	}
	return s + ": " + r.Rule
}

// Visited is one rule that a packet met.
type Visited struct {
	RuleRef
	Hook   string `json:"hook,omitempty"` // of a base chain, with its priority
	Result string `json:"result"`         // no match | accept | drop | jump … ; "perhaps" in front of what is not sure
}

// Trace is what becomes of one packet, and why.
type Trace struct {
	Verdict string    `json:"verdict"` // accept | drop | reject | unknown
	May     []string  `json:"may"`     // what is possible when it is unknown
	Needs   []string  `json:"needs"`   // fields that were left out and matter
	Limited bool      `json:"limited"` // accepted up to a rate only
	Unclear []string  `json:"unclear"` // what in the ruleset was not understood or depends on a state
	Path    []Visited `json:"path"`    // in the order of the kernel
}

// Ref names a rule for people.
func (m *Model) Ref(c *rs.Chain, r *rs.Rule) RuleRef {
	if c == nil {
		return RuleRef{Rule: "no rule decides: accepted"}
	}
	out := RuleRef{Table: c.Table.Family.String() + " " + c.Table.Name, Chain: c.Name}
	if c.Table.Source == rs.XTables {
		out.Table += " (legacy)"
	}
	if r == nil {
		out.Rule = "policy accept"
		if c.Base != nil {
			out.Rule = "policy " + verdictWord(c.Base.Policy)
		}
		return out
	}
	out.Handle, out.Rule = r.Handle, r.Render(m.Order, m.Set.Interfaces)
	if out.Handle == 0 {
		out.Rule = fmt.Sprintf("rule %d: %s", r.Index, out.Rule)
	}
	return out
}

// All is what may become of the packet, over all sources.
func (a *Answer) All() End {
	var e End
	for k, c := range a.ends {
		if c != nil && !c.Empty() {
			e |= 1 << k
		}
	}
	return e
}

// alike tells whether all sources come to the same ends.
func (a *Answer) alike() bool {
	n := a.Space.Len()
	for _, c := range a.ends {
		if c != nil && !c.Empty() && !c.Equal(packetset.All(n)) {
			return false
		}
	}
	return true
}

// Words are the verdicts of an End.
func (e End) Words() []string {
	out := []string{}
	if e&(Accepted|Stolen) != 0 {
		out = append(out, WordAccept)
	}
	if e&(Dropped|Stolen) != 0 {
		out = append(out, WordDrop)
	}
	if e&Rejected != 0 {
		out = append(out, WordReject)
	}
	return out
}

// Summary is the answer without its path.
func (a *Answer) Summary() Trace {
	t := Trace{May: a.All().Words(), Needs: []string{}, Unclear: []string{}, Limited: !a.Limited.Empty()}
	if len(t.May) == 1 {
		t.Verdict = t.May[0]
		return t
	}
	t.Verdict = WordUnknown
	t.Needs = append(t.Needs, a.Needs...)
	t.Unclear = append(t.Unclear, a.Opaque...)
	if a.Space.Len() > 1 && !a.alike() {
		t.Needs = append(t.Needs, fieldNames[fieldSaddr])
	}
	return t
}

// Explain traces one packet: every rule it met and what the rule did.
func (m *Model) Explain(p Packet, h rs.Hook, only bool) Trace {
	a := m.Walk(p, h, only)
	t := a.Summary()
	t.Path = []Visited{}
	for _, s := range a.Path {
		v := Visited{RuleRef: m.Ref(s.Chain, s.Rule), Result: s.Result}
		if s.Chain != nil && s.Chain.Base != nil {
			v.Hook = fmt.Sprintf("%s priority %d", s.Chain.Base.Hook, s.Chain.Base.Priority)
		}
		switch {
		case s.Match == no:
			v.Result = "no match"
		case s.Match == maybe:
			v.Result = "perhaps " + s.Result
		}
		t.Path = append(t.Path, v)
	}
	return t
}

// FlagOf is the flag of trace that sets a field of Needs.
func FlagOf(field string) string {
	var b strings.Builder
	b.WriteString("--")
	for _, r := range field {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('-')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// ParseProtocol reads a transport protocol's name or number.
func ParseProtocol(s string) (uint8, error) {
	switch s {
	case "tcp":
		return 6, nil
	case "udp":
		return 17, nil
	case "icmp":
		return 1, nil
	case "icmpv6", "ipv6-icmp":
		return 58, nil
	case "sctp":
		return 132, nil
	case "udplite":
		return 136, nil
	case "dccp":
		return 33, nil
	case "gre":
		return 47, nil
	case "esp":
		return 50, nil
	case "ah":
		return 51, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("protocol %q: use tcp, udp, icmp, icmpv6, sctp, udplite or a number below 256", s)
	}
	return uint8(n), nil
}

// ParseExthdr reads the words of --exthdr.
func ParseExthdr(words []string) ([]Ext, error) {
	var out []Ext
	for _, w := range words {
		switch strings.TrimSpace(w) {
		case "hop", "hbh":
			out = append(out, Ext{Number: 0})
		case "dst":
			out = append(out, Ext{Number: 60})
		case "rt0":
			out = append(out, Ext{Number: 43})
		case "frag-atomic":
			out = append(out, Ext{Number: 44, Frag: Atomic})
		case "frag-first":
			out = append(out, Ext{Number: 44, Frag: First})
		case "frag-later":
			out = append(out, Ext{Number: 44, Frag: Later})
		default:
			return nil, fmt.Errorf("extension header %q: use hop, dst, rt0, frag-atomic, frag-first or frag-later", w)
		}
	}
	return out, nil
}
