package probe

import "net/netip"

// Chain is a way of wrapping a probe in headers or in fragments, and what is known of it.
type Chain struct {
	Name  Variant
	Words string
	// Four and Six: it exists over IPv4, over IPv6.
	Four, Six bool
	// Law is why nobody may answer a packet of that kind over IPv6 (over IPv4 where Six is
	// not set); LawTCP: of TCP only. Empty: it is lawful.
	Law    string
	LawTCP bool
}

// Near is a plain probe that leaves with a hop limit of 255.
const Near Variant = "near"

// Chains are all ways of wrapping that are held against the plain one. At most 30: each
// takes a source port.
func Chains() []Chain {
	return []Chain{
		{Name: HopByHop, Words: "a hop-by-hop header", Six: true},
		{Name: "hop-256", Words: "a hop-by-hop header of 256 bytes", Six: true},
		{Name: DestOpts, Words: "a destination options header", Six: true},
		{Name: "dst-256", Words: "a destination options header of 256 bytes", Six: true},
		{Name: "dst-512", Words: "a destination options header of 512 bytes", Six: true},
		{Name: "dst-3", Words: "three destination options headers", Six: true},
		{Name: "dst-frag", Words: "destination options before fragments", Six: true},
		{Name: "frag-dst", Words: "destination options inside of fragments", Six: true},
		{Name: Fragments, Words: "fragments", Four: true, Six: true},
		{Name: "frag-rev", Words: "fragments, the last first", Four: true, Six: true},
		{Name: Atomic, Words: "an atomic fragment header", Six: true},
		{Name: "frag-atomic-2", Words: "two atomic fragment headers", Six: true},
		{Name: "frag-tiny", Words: "a first fragment of eight bytes", Four: true, Six: true, Law: "RFC 7112", LawTCP: true},
		{Name: "frag-late", Words: "the transport header in the second fragment", Six: true, Law: "RFC 7112"},
		{Name: "frag-overlap", Words: "overlapping fragments", Four: true, Six: true, Law: "RFC 5722"},
		{Name: "rh0", Words: "a routing header of type 0 with nothing left", Six: true},
		{Name: "rh0-1", Words: "a routing header of type 0 with one segment left", Six: true, Law: "RFC 5095"},
		{Name: "rh4", Words: "a segment routing header with nothing left", Six: true},
		{Name: "rh4-1", Words: "a segment routing header with one segment left", Six: true, Law: "RFC 8754 §5.1"},
		{Name: "none", Words: "a header that says that nothing follows", Six: true, Law: "RFC 8200 §4.7"},
		{Name: "unknown", Words: "a header that nobody knows", Six: true, Law: "RFC 8200 §4"},
		{Name: "opt-unknown", Words: "an unknown option of the kind that must be refused", Six: true, Law: "RFC 8200 §4.2"},
		{Name: "opt-nop", Words: "options that do nothing", Four: true},
		{Name: "opt-rr", Words: "a record route option", Four: true},
		{Name: "opt-ts", Words: "a timestamp option", Four: true},
		{Name: "opt-lsrr", Words: "a loose source route", Four: true, Law: "RFC 7126 §4.3"},
		{Name: Near, Words: "a hop limit of 255", Four: true, Six: true},
	}
}

// ChainOf finds a chain by its name.
func ChainOf(name Variant) (Chain, bool) {
	for _, c := range Chains() {
		if c.Name == name {
			return c, true
		}
	}
	return Chain{}, false
}

// Of tells whether the chain exists in the family of an address.
func (c Chain) Of(a netip.Addr) bool { return c.Four && a.Is4() || c.Six && !a.Is4() }

// Against is the law that an answer breaks, or empty.
func (c Chain) Against(a netip.Addr, proto string) string {
	if a.Is4() && c.Six || c.LawTCP && proto != "tcp" {
		return ""
	}
	return c.Law
}

// Fate is what becomes of a wrapped probe, beside the plain one.
type Fate string

// The fates.
const (
	FateSame    Fate = "same"    // as the plain one
	FateFurther Fate = "further" // answered by the transport, and the plain one is not
	FateLess    Fate = "less"    // lost or refused, and the plain one is answered
	FateRefused Fate = "refused" // lost or refused, as it has to be
	FateTaken   Fate = "taken"   // answered, and must not be
	FateUnknown Fate = "unknown"
)

// Fates lists the fates.
func Fates() []Fate {
	return []Fate{FateSame, FateFurther, FateLess, FateRefused, FateTaken, FateUnknown}
}

// Chained is what became of one chain, for ports of which it is the same.
type Chained struct {
	Chain Variant `json:"chain"`
	Proto string  `json:"proto"`
	Ports string  `json:"ports"`
	Fate  Fate    `json:"fate"`
	// Plain is the state of the ports when nothing is wrapped; what follows is the wrapped.
	Plain State `json:"plain"`
	Reason
	// Eaten is where a chain gets lost that gets less far.
	Eaten *Eaten `json:"eaten,omitempty"`
}

// Eaten is where packets get lost on the way: the last router that said of one that its hop
// limit is spent, and the next, as plain packets meet it. It is one of the two, or between.
type Eaten struct {
	Hop  int        `json:"hop"` // of the last; 0: it is the link to the first
	Last netip.Addr `json:"last,omitzero"`
	Next netip.Addr `json:"next,omitzero"`
	// Target: the next is the target itself.
	Target bool `json:"target,omitempty"`
}
