package ruleset

// Expressions that nf_tables lacks and x_tables rules need.
type (
	// Any matches when one of its programs does; each runs over registers of its
	// own. With Invert it matches when none does. A load that breaks is no match,
	// so that what x_tables decides before it looks at an inversion flag (a fragment has
	// no ports) belongs outside.
	Any struct {
		Name   string // of the match it was lowered from
		Of     [][]Expr
		Invert bool
	}
	// HotDrop drops the packet when its program matches; else the rule goes on
	// (xt_action_param.hotdrop: the packet is dropped in the middle of a match).
	HotDrop struct {
		Name string
		When []Expr
	}
	// ExtHeaders is the ipv6header match: which kinds of extension header the packet
	// has, as MASK_* bits (net/ipv6/netfilter/ip6t_ipv6header.c).
	ExtHeaders struct {
		Match, Invert uint8
		Soft          bool // only the headers in Match are looked at
	}
	// BridgePort is the physdev match: the ports of a bridge that br_netfilter hands a
	// packet up for. Match and Invert are XT_PHYSDEV_OP_* bits.
	BridgePort struct {
		In, Out       string // patterns; a trailing '*' is a prefix
		Match, Invert uint8
	}
)

func (Any) expr()        {}
func (HotDrop) expr()    {}
func (ExtHeaders) expr() {}
func (BridgePort) expr() {}

// XT_PHYSDEV_OP_* (include/uapi/linux/netfilter/xt_physdev.h).
const (
	PortIn      = 1
	PortOut     = 2
	PortBridged = 4
	PortIsIn    = 8
	PortIsOut   = 16
)

// MASK_* of include/net/netfilter/ip6t_ipv6header.h.
const (
	HeaderProto    = 1
	HeaderNone     = 2
	HeaderESP      = 4
	HeaderAH       = 8
	HeaderFragment = 16
	HeaderRouting  = 32
	HeaderDestOpts = 64
	HeaderHopByHop = 128
)
