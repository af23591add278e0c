package probe

import (
	"net/netip"
	"slices"
)

// Name is what this host finds out about the name of a target.
type Name struct {
	Name string `json:"name"`
	// Asked is the name that was asked for, with its search domain.
	Asked string `json:"asked,omitempty"`
	// From is where this host takes the addresses from: hosts or dns.
	From NameSource `json:"from"`
	// Lookups are the answers of each resolver, of DNS alone.
	Lookups []Lookup `json:"lookups"`
	// DNS64 are prefixes in which a resolver makes addresses of IPv6 from those of IPv4.
	DNS64 []netip.Prefix `json:"dns64,omitempty"`
	// Special are addresses of the answers that not everybody can reach.
	Special []SpecialAddress `json:"special,omitempty"`
	// Order is that in which a client of this host tries the addresses (RFC 6724).
	Order []netip.Addr `json:"order"`
	// Races are what a client has to wait for until it is connected.
	Races []Race `json:"races"`
}

// NameSource is where addresses come from.
type NameSource string

// The sources.
const (
	FromHosts NameSource = "hosts" // /etc/hosts
	FromDNS   NameSource = "dns"
)

// SpecialAddress is one that not everybody can reach, and why.
type SpecialAddress struct {
	Address netip.Addr `json:"address"`
	Class   string     `json:"class"`
	// Unfit addresses are of no use to anybody who asks, and were not probed.
	Unfit bool `json:"unfit,omitempty"`
}

// Outcome is how a resolver answers.
type Outcome string

// The outcomes.
const (
	Answer   Outcome = "answer"
	NoData   Outcome = "no-data"   // the name is there, and has none of these
	NXDomain Outcome = "nxdomain"  // there is no such name
	ServFail Outcome = "servfail"  // the resolver could not find out
	Refused  Outcome = "refused"   // it does not answer us
	BadReply Outcome = "bad-reply" // another error, or no DNS
	TimedOut Outcome = "timeout"
	NoWay    Outcome = "error" // nobody could be asked
)

// Outcomes lists the outcomes.
func Outcomes() []Outcome {
	return []Outcome{Answer, NoData, NXDomain, ServFail, Refused, BadReply, TimedOut, NoWay}
}

// Lookup is one question to one resolver, over the family of its own address.
type Lookup struct {
	Resolver netip.AddrPort `json:"resolver"`
	Type     string         `json:"type"` // A | AAAA
	Outcome  Outcome        `json:"outcome"`
	Why      string         `json:"why,omitempty"`
	// Chain are the names that the name is an alias of.
	Chain     []string     `json:"chain,omitempty"`
	Addresses []netip.Addr `json:"addresses"`
	TTL       uint32       `json:"ttl"` // the least of the answer, in seconds
	// Truncated: the answer had no room in a packet, and was asked for over TCP.
	Truncated bool `json:"truncated,omitempty"`
	// Milliseconds until the answer: the median of several.
	Milliseconds float64 `json:"milliseconds"`
}

// Race is what clients meet at one port of a name.
type Race struct {
	Proto    string    `json:"proto"`
	Port     uint16    `json:"port"`
	Attempts []Attempt `json:"attempts"` // in the order of Name.Order
	// Winner is the address that a client with Happy Eyeballs (RFC 8305) ends up with, after
	// so many milliseconds with the lookup.
	Winner       netip.Addr `json:"winner,omitzero"`
	Milliseconds float64    `json:"milliseconds"`
	// Best is how long it takes where nothing but the fastest address that works is tried.
	Best float64 `json:"bestMilliseconds"`
	// Plain is how long a client takes that tries one address after the other and knows
	// nothing of Happy Eyeballs.
	Plain float64 `json:"plainMilliseconds"`
}

// Attempt is a connection to one address.
type Attempt struct {
	Address netip.Addr `json:"address"`
	State   State      `json:"state"`
	// Milliseconds until the state was known: the median of several. Of a silent address
	// there are none.
	Milliseconds float64 `json:"milliseconds"`
}

// special are the blocks that not everybody can reach (RFC 6890 and its successors), the
// narrower before the wider.
var special = []struct {
	prefix netip.Prefix
	class  string
	unfit  bool
}{
	{netip.MustParsePrefix("::1/128"), "loopback", false},
	{netip.MustParsePrefix("::/128"), "unspecified", true},
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4-mapped", true},
	{netip.MustParsePrefix("::/96"), "IPv4-compatible", true},
	{netip.MustParsePrefix("64:ff9b::/96"), "NAT64", false},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64", false},
	{netip.MustParsePrefix("100::/64"), "discard-only", false},
	{netip.MustParsePrefix("2001::/32"), "Teredo", false},
	{netip.MustParsePrefix("2001:2::/48"), "benchmarking", false},
	{netip.MustParsePrefix("2001:10::/28"), "ORCHID", false},
	{netip.MustParsePrefix("2001:20::/28"), "ORCHID", false},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation", false},
	{netip.MustParsePrefix("2002::/16"), "6to4", false},
	{netip.MustParsePrefix("3fff::/20"), "documentation", false},
	{netip.MustParsePrefix("fc00::/7"), "unique local", false},
	{netip.MustParsePrefix("fe80::/10"), "link-local", true},
	{netip.MustParsePrefix("fec0::/10"), "site-local", false},
	{netip.MustParsePrefix("ff00::/8"), "multicast", true},
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified", true},
	{netip.MustParsePrefix("10.0.0.0/8"), "private", false},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared by carriers", false},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback", false},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local", false},
	{netip.MustParsePrefix("172.16.0.0/12"), "private", false},
	{netip.MustParsePrefix("192.0.0.0/24"), "for protocols", false},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation", false},
	{netip.MustParsePrefix("192.168.0.0/16"), "private", false},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking", false},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation", false},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation", false},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast", true},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved", true},
}

// Special says why not everybody can reach an address, and whether nobody can who has it
// from DNS; the class is empty for the others.
func Special(a netip.Addr) (class string, unfit bool) {
	for _, s := range special {
		if s.prefix.Contains(a.WithZone("")) {
			return s.class, s.unfit
		}
	}
	return "", false
}

// MadeByDNS64 tells whether a resolver has made an address from one of IPv4.
func (n *Name) MadeByDNS64(a netip.Addr) bool {
	return slices.ContainsFunc(n.DNS64, func(p netip.Prefix) bool { return p.Contains(a) })
}
