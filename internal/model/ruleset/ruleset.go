// Package ruleset is the packet-filter IR: tables, chains, hooks and rules as
// the kernel holds them, whichever front-end they were read through.
//
// A rule is a small program over registers, exactly as nf_tables runs it;
// x_tables rules are lowered to the same expressions. What a front-end does not
// understand becomes an Opaque expression, so that a reader can never mistake
// "I skipped that match" for "there is no match".
package ruleset

import "fmt"

// Family is a packet-filter family (NFPROTO_*, include/uapi/linux/netfilter.h).
type Family uint8

// The families.
const (
	Inet   Family = 1
	IPv4   Family = 2
	ARP    Family = 3
	Netdev Family = 5
	Bridge Family = 7
	IPv6   Family = 10
)

// String is the word nft uses.
func (f Family) String() string {
	switch f {
	case Inet:
		return "inet"
	case IPv4:
		return "ip"
	case ARP:
		return "arp"
	case Netdev:
		return "netdev"
	case Bridge:
		return "bridge"
	case IPv6:
		return "ip6"
	}
	return fmt.Sprintf("family%d", uint8(f))
}

// Hook is a netfilter hook (NF_INET_*; netdev has ingress and egress of its own).
type Hook uint8

// The hooks. Ingress and Egress are one number here for inet and netdev, though
// the kernel numbers them differently.
const (
	Prerouting Hook = iota
	Input
	Forward
	Output
	Postrouting
	Ingress
	Egress
)

// String is the word nft uses.
func (h Hook) String() string {
	names := [...]string{"prerouting", "input", "forward", "output", "postrouting", "ingress", "egress"}
	if int(h) < len(names) {
		return names[h]
	}
	return fmt.Sprintf("hook%d", uint8(h))
}

// Source is where a table was read from.
type Source uint8

// The sources.
const (
	NFTables Source = iota // nf_tables (native nft, and iptables-nft)
	XTables                // legacy ip_tables, ip6_tables
)

// Ruleset is everything one network namespace filters with.
type Ruleset struct {
	Tables []*Table
	// Interfaces maps ifindex to name in the namespace that the rules belong to:
	// iif and oif match numbers.
	Interfaces map[uint32]string
	// Types maps a name to its ARPHRD_* number (1 Ethernet, 772 loopback); missing
	// when it is not known.
	Types map[string]uint16
	// Kinds maps a name to what made the interface (IFLA_INFO_KIND: bridge, veth …;
	// empty for hardware); missing when it is not known.
	Kinds map[string]string
	// Groups maps a name to the number of its group (ip link set … group); missing when
	// it is not known.
	Groups map[string]uint32
	// MACs are the hardware addresses of Ethernet interfaces, as far as they are known.
	MACs map[string][6]byte
	// Bridges maps a bridge to its ports; with Types it says that no other interface is one.
	Bridges map[string][]string
	// BridgeCalls tells of a family whether bridges hand its packets to the hooks of IP
	// (br_netfilter); missing when it is not known.
	BridgeCalls map[Family]bool
}

// Table is a table of one family.
type Table struct {
	Family  Family
	Name    string
	Source  Source
	Dormant bool // NFT_TABLE_F_DORMANT: its chains are not hooked
	Owner   bool // NFT_TABLE_F_OWNER
	Chains  []*Chain
	Sets    map[string]*Set
	Objects map[string]*Object
}

// Chain returns the chain with this name, or nil.
func (t *Table) Chain(name string) *Chain {
	for _, c := range t.Chains {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Base makes a chain a base chain.
type Base struct {
	Type     string // filter | nat | route
	Hook     Hook
	Priority int32
	Policy   Verdict  // Accept or Drop
	Devices  []string // ingress and egress chains; a trailing '*' is a prefix
}

// Chain is a list of rules.
type Chain struct {
	Table  *Table
	Name   string
	Handle uint64
	Base   *Base
	Rules  []*Rule
}

// Rule is one rule.
type Rule struct {
	Chain   *Chain
	Handle  uint64
	Index   int    // position in its chain, from 1
	Comment string // NFTNL_UDATA_RULE_COMMENT
	Text    string // as the front-end printed it, where it had text
	Exprs   []Expr
}

// Verdict is what becomes of a packet.
type Verdict int32

// Verdict codes: NF_* and NFT_*.
const (
	Drop     Verdict = 0
	Accept   Verdict = 1
	Stolen   Verdict = 2
	Queue    Verdict = 3
	Continue Verdict = -1
	Break    Verdict = -2
	Jump     Verdict = -3
	Goto     Verdict = -4
	Return   Verdict = -5
)

// Object is a stateful object (counter, quota, limit, ct helper …).
type Object struct {
	Name string
	Type uint32 // NFT_OBJECT_*
	Data []byte // NFTA_OBJ_DATA, raw
	Rate *Limit // of a limit, quota or connection limit
}

// Set is a set or a map.
type Set struct {
	Name      string
	ID        uint32
	Anonymous bool
	Constant  bool
	Interval  bool
	Map       bool
	Timeout   bool
	Dynamic   bool   // NFT_SET_EVAL: rules add to it
	Object    uint32 // a map to stateful objects of this type (NFT_OBJECT_*)
	Concat    []int  // byte lengths of the fields of a concatenation, before padding; nil when it is none
	KeyType   uint32
	KeyLen    int // bytes, padded
	DataType  uint32
	DataLen   int
	Verdict   bool // a verdict map
	Size      uint32
	Elements  []Element
	// Complete is false when the elements were not all read: membership is then unknown.
	Complete bool
	// Why says why it is not complete, for people; it names the set. It may be empty.
	Why string
	// Exprs are stateful expressions of every element (limit, counter, quota).
	Exprs []Expr
}

// Element is an element of a set; of an interval set it spans From to To, inclusive.
type Element struct {
	From, To   []byte // equal for a single key; network byte order as stored
	Data       []byte
	Exprs      []Expr // stateful expressions of this element
	Chain      string
	Verdict    Verdict
	HasVerdict bool
	CatchAll   bool
	Expires    bool // its timeout ends within a minute: it may be gone
}
