package expect

import (
	"net/netip"

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
	HopLimit  uint8          `json:"hopLimit,omitempty"` // with which the answer has arrived
	MSS       uint16         `json:"mss,omitempty"`      // that a SYN/ACK offers
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
	// Names are what is known about targets that are names.
	Names []*probe.Name
	// Lost are vantages that gave no answer, and why.
	Lost []Lost
	// Guards is the test of a host's own guards; nil: there was none.
	Guards *probe.Guards
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
		State: r.State, Why: r.Why, Blocked: r.Blocked, MayBeOpen: r.MayBeOpen, HopLimit: r.HopLimit, MSS: r.MSS, from: a,
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
