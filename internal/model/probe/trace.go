package probe

import "net/netip"

// Trace is the way to one port, as routers tell it when a hop limit is spent.
type Trace struct {
	Proto string `json:"proto"`
	Port  uint16 `json:"port"`
	State State  `json:"state"` // of the port, when nothing is short
	// Hops are the routers, from the first on; those that keep silent have no address.
	Hops []Hop `json:"hops"`
	// Reached is the lowest hop limit that an answer in the name of the target needs; 0: there
	// is none. Refused is that of a refusal by somebody else, RefusedBy.
	Reached   int        `json:"reached,omitempty"`
	Refused   int        `json:"refused,omitempty"`
	RefusedBy netip.Addr `json:"refusedBy,omitzero"`
}

// Hop is one router on the way.
type Hop struct {
	Hop  int        `json:"hop"`
	From netip.Addr `json:"from,omitzero"`
}

// Last is the last router that is known; the zero Hop when there is none.
func (t *Trace) Last() (last Hop) {
	for _, h := range t.Hops {
		if h.From.IsValid() {
			last = h
		}
	}
	return last
}

// At is the router at a hop, or the zero address.
func (t *Trace) At(hop int) netip.Addr {
	for _, h := range t.Hops {
		if h.Hop == hop {
			return h.From
		}
	}
	return netip.Addr{}
}

// MaxTraces is how many ports of an address are traced.
const MaxTraces = 8
