package ruleset

// Expr is one expression of a rule. Registers are numbered in units of 4 bytes:
// 0 to 15; the 16-byte registers of old rules are mapped onto them.
type Expr interface{ expr() }

// Reg is the number of a 4-byte register.
type Reg uint8

// VerdictReg is the register of verdicts.
const VerdictReg Reg = 0xff

// Op is a comparison.
type Op uint8

// Comparisons (NFT_CMP_*).
const (
	Eq Op = iota
	Neq
	Lt
	Lte
	Gt
	Gte
)

// Header is the base of a payload load (NFT_PAYLOAD_*).
type Header uint8

// The headers.
const (
	LinkHeader Header = iota
	NetworkHeader
	TransportHeader
	InnerHeader
)

type (
	// Payload loads bytes of the packet.
	Payload struct {
		Dreg   Reg
		Base   Header
		Offset uint32
		Len    uint32
		// Checked: a later fragment surely breaks the load. nf_tables itself may look
		// at the wrong bytes then; x_tables looks at the fragment offset first.
		Checked bool
	}
	// PayloadSet writes bytes of the packet.
	PayloadSet struct {
		Sreg   Reg
		Base   Header
		Offset uint32
		Len    uint32
	}
	// Meta loads a property of the packet (NFT_META_*), in host byte order.
	Meta struct {
		Dreg Reg
		Key  uint32
	}
	// MetaSet writes one.
	MetaSet struct {
		Sreg Reg
		Key  uint32
	}
	// Ct loads a property of the connection (NFT_CT_*). Dir is -1 without direction.
	Ct struct {
		Dreg Reg
		Key  uint32
		Dir  int8
	}
	// CtSet writes one.
	CtSet struct {
		Sreg Reg
		Key  uint32
		Dir  int8
	}
	// Exthdr loads bytes of an extension header or option, or whether it is there.
	Exthdr struct {
		Dreg    Reg
		Op      uint32 // NFT_EXTHDR_OP_*: 0 ipv6, 1 tcpopt, 2 ipv4, 3 sctp, 4 dccp
		Type    uint8
		Offset  uint32
		Len     uint32
		Present bool // NFT_EXTHDR_F_PRESENT: load 0 or 1
	}
	// Cmp compares a register with constant bytes.
	Cmp struct {
		Sreg Reg
		Op   Op
		Data []byte
	}
	// Range checks From <= register <= To.
	Range struct {
		Sreg     Reg
		Invert   bool
		From, To []byte
	}
	// Bitwise computes dreg = (sreg & Mask) ^ Xor, or a shift.
	Bitwise struct {
		Sreg, Dreg Reg
		Sreg2      Reg
		HasSreg2   bool
		Len        uint32
		Op         uint32 // NFT_BITWISE_*: 0 mask-xor, 1 lshift, 2 rshift, 3 and, 4 or, 5 xor
		Mask, Xor  []byte
		Shift      uint32
	}
	// Byteorder swaps units of Size bytes between host and network order.
	Byteorder struct {
		Sreg, Dreg Reg
		Op         uint32 // 0 ntoh, 1 hton
		Len, Size  uint32
	}
	// Immediate loads constant bytes.
	Immediate struct {
		Dreg Reg
		Data []byte
	}
	// Conclude ends the rule with a verdict (an immediate into the verdict register).
	Conclude struct {
		Verdict Verdict
		Chain   string
	}
	// Lookup tests membership; of a map it loads the data, of a verdict map it concludes.
	Lookup struct {
		Set     string
		SetID   uint32
		Sreg    Reg
		Dreg    Reg
		HasDreg bool
		Verdict bool // a verdict map: Dreg is the verdict register
		Invert  bool
	}
	// Dynset adds to a set, and breaks the rule when a stateful expression does.
	Dynset struct {
		Set      string
		SetID    uint32
		Op       uint32 // NFT_DYNSET_OP_*: 0 add, 1 update, 2 delete
		SregKey  Reg
		SregData Reg
		HasData  bool
		Invert   bool
		Exprs    []Expr
	}
	// Fib asks the routing table.
	Fib struct {
		Dreg   Reg
		Result uint32 // NFT_FIB_RESULT_*: 1 oif, 2 oifname, 3 addrtype
		Flags  uint32 // NFTA_FIB_F_*: 1 saddr, 2 daddr, 4 mark, 8 iif, 16 oif, 32 present
	}
	// Rt loads a property of the route (NFT_RT_*).
	Rt struct {
		Dreg Reg
		Key  uint32
	}
	// Socket loads a property of the socket the packet is for (NFT_SOCKET_*).
	Socket struct {
		Dreg  Reg
		Key   uint32
		Level uint32
	}
	// Random is numgen and hash, whose results cannot be known beforehand: an unknown
	// number below Modulus, plus Offset.
	Random struct {
		Dreg            Reg
		Modulus, Offset uint32
	}
	// Limit breaks the rule when a rate is exceeded, or with Over when it is not.
	Limit struct {
		Name string // limit, quota, connlimit, hashlimit, recent …
		Over bool
		// Room is the length in bytes of the longest packet that is within the rate as
		// long as nothing else has used it up; without HasRoom every packet is.
		HasRoom bool
		Room    uint64
	}
	// Nat rewrites an address (snat, dnat).
	Nat struct {
		Dst                 bool
		ByHook              bool // Dst depends on the hook (NETMAP)
		Family              Family
		AddrMin, AddrMax    Reg
		HasAddr, HasAddrMax bool
		ProtoMin, ProtoMax  Reg
		HasProto            bool
		HasProtoMax         bool
		Flags               uint32
	}
	// Redirect is dnat to the address of the interface the packet came in by.
	Redirect struct {
		ProtoMin, ProtoMax Reg
		HasProto           bool
		HasProtoMax        bool
	}
	// Masquerade rewrites the source; it accepts.
	Masquerade struct{}
	// TProxy hands the packet to a local socket without rewriting it.
	TProxy struct {
		Family  Family
		Addr    Reg
		HasAddr bool
		Port    Reg
		HasPort bool
	}
	// Reject drops and answers.
	Reject struct {
		Type uint32 // NFT_REJECT_*: 0 ICMP unreachable, 1 TCP reset, 2 icmpx
		Code uint8
	}
	// Notrack keeps the packet out of connection tracking.
	Notrack struct{}
	// ToQueue hands the packet to a program in user space.
	ToQueue struct{}
	// Steal ends the packet's way here: dup and fwd to another device, synproxy.
	Steal struct{ Name string }
	// Objref uses a stateful object.
	Objref struct {
		Type uint32
		Name string
		Set  string // of a map of objects
		Sreg Reg
	}
	// Nothing has no effect on the packet's way: counter, log, last, trace.
	Nothing struct{ Name string }
	// Opaque was not understood. It may match or not, and may conclude when Ends.
	Opaque struct {
		Name  string
		Data  []byte
		Ends  bool // a statement that could end the packet's way
		Dreg  Reg
		Loads bool // it loads an unknown value into Dreg
		Len   uint32
	}
)

func (Payload) expr()    {}
func (PayloadSet) expr() {}
func (Meta) expr()       {}
func (MetaSet) expr()    {}
func (Ct) expr()         {}
func (CtSet) expr()      {}
func (Exthdr) expr()     {}
func (Cmp) expr()        {}
func (Range) expr()      {}
func (Bitwise) expr()    {}
func (Byteorder) expr()  {}
func (Immediate) expr()  {}
func (Conclude) expr()   {}
func (Lookup) expr()     {}
func (Dynset) expr()     {}
func (Fib) expr()        {}
func (Rt) expr()         {}
func (Socket) expr()     {}
func (Random) expr()     {}
func (Limit) expr()      {}
func (Nat) expr()        {}
func (Redirect) expr()   {}
func (Masquerade) expr() {}
func (TProxy) expr()     {}
func (Reject) expr()     {}
func (Notrack) expr()    {}
func (ToQueue) expr()    {}
func (Steal) expr()      {}
func (Objref) expr()     {}
func (Nothing) expr()    {}
func (Opaque) expr()     {}
