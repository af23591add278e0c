// Package probe holds the nouns of a look from outside: what was asked of an address,
// and what the wire showed.
//
// A Table has a fixed size, however many ports were asked about: a set of bits and one
// byte a port.
package probe

import (
	"math/bits"
	"net/netip"
	"slices"
)

// State is what the wire showed for one port over one family.
type State string

// The states. Silence is Filtered; of UDP it may as well be an open port that does not
// answer, which Reason.MayBeOpen says.
const (
	Open        State = "open"        // SYN/ACK, or an answer of the service
	Closed      State = "closed"      // RST; of UDP an ICMP port unreachable from the target
	Rejected    State = "rejected"    // an ICMP error says no
	Filtered    State = "filtered"    // no answer, although answers were able to come
	Unreachable State = "unreachable" // the packet did not get there: no route, no neighbour
	Errored     State = "error"       // it could not be told
)

// States lists all states.
func States() []State { return []State{Open, Closed, Rejected, Filtered, Unreachable, Errored} }

// rank orders states by what an answer proves: a later answer of higher rank replaces one
// of lower rank.
func (s State) rank() int {
	switch s {
	case Open:
		return 5
	case Closed:
		return 4
	case Rejected:
		return 3
	case Unreachable:
		return 2
	case Filtered, Errored:
		return 1
	}
	return 0
}

// OtherAnswer is why a UDP port is open that answers, and not in the protocol that it is
// known for.
const OtherAnswer = "other-answer"

// Reason says why a port has its state.
type Reason struct {
	State State `json:"state"`
	// Why: syn-ack, rst, answer, OtherAnswer, reply, icmp, silence, no-route, no-neighbour, own-rules,
	// no-rights; of error also rationed (the answers are, and there was no time to ask one
	// by one) and lossy (too much is lost on the way).
	Why string `json:"why,omitempty"`
	// ICMPType and ICMPCode of the error, and its sender.
	ICMP     bool       `json:"icmp,omitempty"`
	ICMPType uint8      `json:"icmpType,omitempty"`
	ICMPCode uint8      `json:"icmpCode,omitempty"`
	From     netip.Addr `json:"from,omitzero"`
	// Blocked, of error: nothing gets through, and whether it is filtered or rejected could
	// not be told.
	Blocked bool `json:"blocked,omitempty"`
	// HopLimit is that with which the answer has arrived (IPv4: TTL), MSS what a SYN/ACK says
	// is the largest segment. 0: not known; or a SYN/ACK that does not say it.
	HopLimit uint8  `json:"hopLimit,omitempty"`
	MSS      uint16 `json:"mss,omitempty"`
	// MayBeOpen: silence of a protocol whose open ports need not answer.
	MayBeOpen bool `json:"mayBeOpen,omitempty"`
}

// Ports is a set of port numbers, or of ICMP types.
type Ports struct {
	bit [1024]uint64
	n   int
}

// Add puts a port into the set.
func (p *Ports) Add(port uint16) {
	if w := &p.bit[port>>6]; *w&(1<<(port&63)) == 0 {
		*w |= 1 << (port & 63)
		p.n++
	}
}

// addSpan puts the ports from a to b into the set.
func (p *Ports) addSpan(a, b uint16) {
	for n := uint32(a); n <= uint32(b); n++ {
		p.Add(uint16(n))
	}
}

// Del takes a port out of the set.
func (p *Ports) Del(port uint16) {
	if w := &p.bit[port>>6]; *w&(1<<(port&63)) != 0 {
		*w &^= 1 << (port & 63)
		p.n--
	}
}

// Has tells whether a port is in the set.
func (p *Ports) Has(port uint16) bool { return p.bit[port>>6]&(1<<(port&63)) != 0 }

// Len is the number of ports in the set.
func (p *Ports) Len() int { return p.n }

// All goes through the ports in ascending order.
func (p *Ports) All(yield func(uint16) bool) {
	for i, w := range p.bit {
		for ; w != 0; w &= w - 1 {
			if !yield(uint16(i<<6 + bits.TrailingZeros64(w))) {
				return
			}
		}
	}
}

// Table is what was asked of one address about one protocol, and what came back.
type Table struct {
	Proto   string // tcp | udp | icmp | icmpv6: the "ports" of the last two are types
	Variant Variant
	Want    Ports
	reason  [65536]uint8 // index into reasons; 0: no answer yet
	reasons []Reason
}

// maxReasons bounds the different reasons of a table, whose senders a stranger chooses.
const maxReasons = 200

// Set notes a reason for a port, unless a better one is known. It returns whether it was
// taken.
func (t *Table) Set(port uint16, r Reason) bool {
	if !t.Want.Has(port) || t.At(port).State.rank() >= r.State.rank() && t.reason[port] != 0 {
		return false
	}
	t.put(port, r)
	return true
}

// Put notes a reason for a port, whatever was known.
func (t *Table) Put(port uint16, r Reason) { t.put(port, r) }

func (t *Table) put(port uint16, r Reason) {
	i := slices.Index(t.reasons, r)
	if i < 0 && len(t.reasons) >= maxReasons {
		why := ""
		if r.ICMP {
			why = "icmp"
		}
		r = Reason{State: r.State, Blocked: r.Blocked, MayBeOpen: r.MayBeOpen, Why: why} // at most 48 of these
		i = slices.Index(t.reasons, r)
	}
	if i < 0 {
		i = len(t.reasons)
		t.reasons = append(t.reasons, r)
	}
	t.reason[port] = uint8(i + 1)
}

// At is what is known about a port; the zero Reason when nothing is.
func (t *Table) At(port uint16) Reason {
	if i := t.reason[port]; i != 0 {
		return t.reasons[i-1]
	}
	return Reason{}
}

// Count is the number of ports asked about that have a state.
func (t *Table) Count(s State) (n int) {
	for p := range t.Want.All {
		if t.At(p).State == s {
			n++
		}
	}
	return n
}

// Variant is a way of wrapping a probe.
type Variant string

// The variants. IPv4 knows Plain and Fragments alone.
const (
	Plain     Variant = ""     // as any client sends
	HopByHop  Variant = "hop"  // behind a hop-by-hop options header
	DestOpts  Variant = "dst"  // behind a destination options header
	Fragments Variant = "frag" // in two fragments, the first with the whole transport header where eight bytes allow it
	Atomic    Variant = "frag-atomic"
)

// Variants lists all variants.
func Variants() []Variant { return []Variant{Plain, HopByHop, DestOpts, Fragments, Atomic} }

// Life says what shows that there is somebody at an address. Silence of all ports means
// nothing without it.
type Life string

// The signs of life, the strongest first.
const (
	Answered  Life = "answered"  // the address itself answered a probe
	Neighbour Life = "neighbour" // its link-layer address is known, as of this run
	Elsewhere Life = "elsewhere" // a router answered for it
	NoLife    Life = ""          // nothing at all
)

// Vantage says where the probes came from.
type Vantage struct {
	Source    netip.Addr
	Interface string
	Gateway   netip.Addr
	// Self: the address is one of this host's own, and what was measured is loopback.
	Self bool
	// OnLink: no router in between.
	OnLink bool
	// Near: the gateway is the only router in between, as a packet shows that may pass one
	// router and no other. It is not known otherwise.
	Near bool
}

// Address is everything about one address of a target.
type Address struct {
	Target  string // as the user wrote it
	Via     string // another host that claims all this; empty: this host has seen it
	Addr    netip.Addr
	Vantage Vantage
	Life    Life
	// Problem is why nothing could be sent.
	Problem string
	Tables  []*Table
	// Sent counts packets; Controls and Lost those of which an answer was sure.
	Sent, Controls, Lost int
	// Path is what path-MTU discovery does; nil: it was not looked at.
	Path *Path
	// Traces are the ways to some ports, where they were asked for.
	Traces []Trace
	// Chains is what became of header chains, where they were asked for.
	Chains []Chained
	// Soak is whether the address stays findable; nil: it was not looked at.
	Soak *Soak
	// Complete: nothing was cut short.
	Complete bool
	Notes    []string
}

// Family is ipv4 or ipv6.
func (a *Address) Family() string { return FamilyOf(a.Addr) }

// Site is what shows that the source and the target are behind the same border, though a
// router is between: what guards that border is then not on the way.
type Site string

// What shows it, the surest first.
const (
	SiteNear    Site = "one-router" // the gateway is the only router between
	SitePrefix  Site = "prefix"     // both are of one /48, of IPv4 of one /24, and that is all that is known
	SitePrivate Site = "private"    // both are private addresses of IPv4, and that is all that is known
	SiteUnknown Site = ""           // nothing
)

// Sites lists them.
func Sites() []Site { return []Site{SiteNear, SitePrefix, SitePrivate, SiteUnknown} }

// SameSite says what shows that source and target are of one site.
func (a *Address) SameSite() Site {
	src, dst := a.Vantage.Source.WithZone(""), a.Addr.WithZone("")
	switch {
	case a.Vantage.Self, a.Vantage.OnLink, !src.IsValid(), src.Is4() != dst.Is4():
		return SiteUnknown
	case a.Vantage.Near:
		return SiteNear
	case dst.Is4() && src.IsPrivate() && dst.IsPrivate():
		return SitePrivate
	}
	site := 48
	if dst.Is4() {
		site = 24
	}
	if p, err := dst.Prefix(site); err != nil || !p.Contains(src) {
		return SiteUnknown
	}
	return SitePrefix
}

// FamilyOf is ipv4 or ipv6.
func FamilyOf(a netip.Addr) string {
	if a.Is4() {
		return "ipv4"
	}
	return "ipv6"
}

// Take copies what another table knows about ports that are asked about here.
func (t *Table) Take(known *Table) {
	for p := range t.Want.All {
		if r := known.At(p); r.State != "" {
			t.put(p, r)
		}
	}
}

// Open is the number of ports without a state.
func (t *Table) Open() (n int) {
	for p := range t.Want.All {
		if t.reason[p] == 0 {
			n++
		}
	}
	return n
}
