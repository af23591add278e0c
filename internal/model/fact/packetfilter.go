package fact

// PacketFilter is the raw dump of one namespace's packet filter: kernel
// messages as they came. What they mean is derived (logic/pfdecode), never
// stored in their place.
type PacketFilter struct {
	// NFTables are the nf_tables messages; absent when the subsystem holds no
	// table (also when it is a module that is not loaded, which can hold none),
	// unsupported when this kernel is built without it.
	NFTables Known[NFTables] `json:"nftables,omitzero"`
	// Legacy are the x_tables tables listed in /proc/net/ip{,6,arp}_tables_names,
	// by family. Absent: none listed.
	Legacy Known[[]LegacyTable] `json:"legacy,omitzero"`
	// IPSets are the answers to IPSET_CMD_LIST (nfgenmsg and attributes). Absent: the
	// subsystem is not there, or holds no set.
	IPSets Known[[][]byte] `json:"ipsets,omitzero"`
	// Accounting are the answers to NFNL_MSG_ACCT_GET (nfgenmsg and attributes): the
	// objects that xt_nfacct rules name, whose quotas decide whether those match.
	// Absent: the subsystem is not there, or holds none.
	Accounting Known[[][]byte] `json:"accounting,omitzero"`
	// EBTables is true when the ebtables (bridge) tables of x_tables may hold
	// rules: their module is loaded and they have no list that can be read
	// without creating them. False: the kernel surely has none.
	EBTables Known[bool] `json:"ebtables,omitzero"`
	// BridgeNFCallIP6Tables is net.bridge.bridge-nf-call-ip6tables: bridged IPv6
	// also passes the ip6 and inet hooks.
	BridgeNFCall Known[string] `json:"bridgeNfCallIp6tables,omitzero"`
}

// NFTables holds one consistent generation of nf_tables.
type NFTables struct {
	Generation uint32   `json:"generation"`
	Tables     [][]byte `json:"tables"` // NFT_MSG_NEWTABLE: nfgenmsg + attributes, without the nlmsghdr
	Chains     [][]byte `json:"chains"` // NFT_MSG_NEWCHAIN
	Rules      [][]byte `json:"rules"`  // NFT_MSG_NEWRULE
	Sets       [][]byte `json:"sets"`   // NFT_MSG_NEWSET
	// Elements are NFT_MSG_NEWSETELEM, several to a set.
	Elements [][]byte `json:"elements,omitempty"`
	// ElementsRead tells that elements were asked for: without it a set without
	// elements is unknown, not empty.
	ElementsRead bool `json:"elementsRead,omitempty"`
	// Unexpanded are the sets whose elements were not, or not all, read.
	Unexpanded []UnexpandedSet `json:"unexpanded,omitempty"`
	Objects    [][]byte        `json:"objects,omitempty"`
	Truncated  *Gap            `json:"truncated,omitempty"`
}

// LegacyTable is one ip_tables, ip6_tables or arp_tables table that already existed.
type LegacyTable struct {
	Family  string        `json:"family"` // ipv4 | ipv6 | arp
	Name    string        `json:"name"`   // filter, nat, mangle, raw, security
	Hooks   uint32        `json:"hooks"`  // valid_hooks bit mask (1 << NF_INET_*)
	Entries uint32        `json:"entries"`
	Blob    Known[[]byte] `json:"blob,omitzero"` // struct ipt_get_entries payload
	// HookEntry and Underflow are where the chain of each hook begins in Blob and where
	// its policy is, by hook number (struct ipt_getinfo).
	HookEntry []uint32 `json:"hookEntry,omitempty"`
	Underflow []uint32 `json:"underflow,omitempty"`
}

// UnexpandedSet is a set with more elements than were read.
type UnexpandedSet struct {
	Family uint8  `json:"family"` // NFPROTO_*
	Table  string `json:"table"`
	Name   string `json:"name"`
	Gap    Gap    `json:"gap"`
}
