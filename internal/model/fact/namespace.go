package fact

import "net/netip"

// NamespaceID identifies a network namespace while the host runs.
type NamespaceID struct {
	Dev   uint64 `json:"dev"`   // device of nsfs
	Inode uint64 `json:"inode"` // inode of the namespace
}

// Namespace is one network namespace.
type Namespace struct {
	ID NamespaceID `json:"id"`
	// Name is the label used in every output: "init", else "self" when the
	// caller runs inside it, else its name under /run/netns, else
	// "container:<id12>", else "net:[inode]". It is unique in a Snapshot.
	Name   string   `json:"name"`
	IsInit bool     `json:"isInit"`
	IsSelf bool     `json:"isSelf"`
	Paths  []string `json:"paths,omitempty"` // bind mounts and /run/netns entries
	Users  int      `json:"users"`           // processes inside, as far as visible
	// Owner is the user namespace that owns it.
	Owner Known[UserNS] `json:"owner,omitzero"`
	// Foreign is true when Owner is known not to be the initial user namespace:
	// any local user could have made it.
	Foreign bool `json:"foreign,omitempty"`
	// IPv6 tells whether the namespace has an IPv6 stack at all
	// (/proc/sys/net/ipv6 exists); false with ipv6.disable=1 or without CONFIG_IPV6.
	IPv6 Known[bool] `json:"ipv6,omitzero"`

	Links           Known[[]Link]      `json:"links,omitzero"`
	Addresses       Known[[]Address]   `json:"addresses,omitzero"`
	Sysctls         Known[Sysctls]     `json:"sysctls,omitzero"`
	Routes          Known[[]Route]     `json:"routes,omitzero"`
	Rules           Known[[]Rule]      `json:"rules,omitzero"`
	Neighbours      Known[[]Neighbour] `json:"neighbours,omitzero"`
	ProxyNeighbours Known[[]Neighbour] `json:"proxyNeighbours,omitzero"`
	// Gateways4 are the ARP entries of the next hops of IPv4 routes, no others: whether
	// the router of IPv6 is the machine that is the gateway of IPv4.
	Gateways4      Known[[]Neighbour]    `json:"gateways4,omitzero"`
	NeighbourTable Known[NeighbourTable] `json:"neighbourTable,omitzero"` // ndisc_cache
	Multicast      Known[[]Membership]   `json:"multicast,omitzero"`
	Sockets        Known[[]Socket]       `json:"sockets,omitzero"`
	PacketFilter   PacketFilter          `json:"packetFilter"`
}

// UserNS identifies the user namespace that owns a network namespace.
type UserNS struct {
	Inode   uint64 `json:"inode"`
	Initial bool   `json:"initial"`
	UID     uint32 `json:"uid"` // creator, as seen from the caller (NS_GET_OWNER_UID)
}

// Link is a network interface (RTM_NEWLINK).
type Link struct {
	Index    int      `json:"index"`
	Name     string   `json:"name"`
	AltNames []string `json:"altNames,omitempty"`
	Kind     string   `json:"kind,omitempty"` // IFLA_INFO_KIND: veth, bridge, sit, vxlan …; empty for hardware
	// Driver is the kernel module that drives it (ETHTOOL_GDRVINFO): virtio_net, e1000e.
	// It is asked of interfaces without a Kind; of the others the Kind is the driver.
	// Unsupported: the interface has no such thing.
	Driver    Known[string] `json:"driver,omitzero"`
	SlaveKind string        `json:"slaveKind,omitempty"` // IFLA_INFO_SLAVE_KIND: bridge, bond, team, vrf, openvswitch
	Type      uint16        `json:"type"`                // ARPHRD_*
	Flags     uint32        `json:"flags"`               // IFF_*
	OperState uint8         `json:"operState"`           // RFC 2863: 6 = up
	MTU       uint32        `json:"mtu"`
	Master    int           `json:"master,omitempty"`      // ifindex of bridge, bond, VRF …
	Parent    int           `json:"parent,omitempty"`      // IFLA_LINK
	PeerNS    *int32        `json:"peerNetnsID,omitempty"` // IFLA_LINK_NETNSID: the parent or peer is in another namespace
	MAC       string        `json:"mac,omitempty"`
	Group     *uint32       `json:"group,omitempty"` // IFLA_GROUP; nil when it was not sent
	// Tunnel is set for the kinds that encapsulate (TUN-01).
	Tunnel *Tunnel `json:"tunnel,omitempty"`
	// VLAN is set for kind vlan.
	VLAN *VLAN `json:"vlan,omitempty"`
	// Inet6 is IFLA_INET6_CONF: the DEVCONF_* array by name (accept_ra,
	// forwarding …). Absent when the interface has no IPv6.
	Inet6 Known[map[string]int32] `json:"inet6,omitzero"`
	// AddrGenMode is IFLA_INET6_ADDR_GEN_MODE: 0 EUI-64, 1 none, 2 stable, 3 random.
	AddrGenMode Known[uint8] `json:"addrGenMode,omitzero"`
	// Token is IFLA_INET6_TOKEN (`ip token`): the interface identifier that SLAAC
	// uses before any other. Absent when none is set.
	Token Known[netip.Addr] `json:"token,omitzero"`
	// XDP is IFLA_XDP_ATTACHED: 0 none, else a program sees every packet first.
	XDP Known[uint8] `json:"xdp,omitzero"`
	// TC tells whether a clsact/ingress qdisc with at least one filter, or a TCX
	// program, sits on the ingress side.
	TCIngress Known[bool] `json:"tcIngress,omitzero"`
	// BridgePort holds IFLA_BRPORT_* facts of a bridge port.
	BridgePort *BridgePort `json:"bridgePort,omitempty"`
	// Bridge holds IFLA_BR_* facts of a bridge.
	Bridge *Bridge `json:"bridge,omitempty"`
}

// Bridge is what a bridge does with the packets of IP that it passes on.
type Bridge struct {
	CallIPTables  bool `json:"callIptables"`  // IFLA_BR_NF_CALL_IPTABLES, whatever the sysctl says
	CallIP6Tables bool `json:"callIp6tables"` // IFLA_BR_NF_CALL_IP6TABLES
}

// BridgePort is what matters for RA guard on a bridge port.
type BridgePort struct {
	Isolated bool `json:"isolated"`
}

// Tunnel holds IFLA_IPTUN_*, IFLA_GRE_*, IFLA_VXLAN_* … in one shape.
type Tunnel struct {
	Local           netip.Addr   `json:"local,omitzero"`
	Remote          netip.Addr   `json:"remote,omitzero"` // unspecified or invalid: any peer
	TTL             uint8        `json:"ttl,omitempty"`
	Proto           uint8        `json:"proto,omitempty"` // 41, 4, 0 = any
	Port            uint16       `json:"port,omitempty"`  // UDP destination port of vxlan, geneve …
	VNI             uint32       `json:"vni,omitempty"`
	ISATAP          bool         `json:"isatap,omitempty"`
	SixRD           netip.Prefix `json:"sixrd,omitzero"` // IFLA_IPTUN_6RD_PREFIX; 2002::/16 (6to4) on any sit device nobody gave one
	SixRDRelay      netip.Prefix `json:"sixrdRelay,omitzero"`
	Fallback        bool         `json:"fallback,omitempty"`        // sit0, tunl0, ip6tnl0 …: made by the module itself
	CollectMetadata bool         `json:"collectMetadata,omitempty"` // external: peers are chosen per packet
	// Complete is false when the kind's attributes were not understood, and for
	// kinds that keep their peers where RTM_GETLINK does not show them (wireguard,
	// xfrm, gtp, ppp, ovpn): Remote then says nothing.
	Complete bool `json:"complete"`
}

// VLAN is IFLA_VLAN_*.
type VLAN struct {
	ID       uint16 `json:"id"`
	Protocol uint16 `json:"protocol"` // 0x8100 or 0x88a8
}

// Address is an IPv4 or IPv6 address (RTM_NEWADDR).
type Address struct {
	Index     int          `json:"index"` // ifindex
	Prefix    netip.Prefix `json:"prefix"`
	Peer      netip.Addr   `json:"peer,omitzero"`
	Scope     uint8        `json:"scope"`              // RT_SCOPE_*
	Flags     uint32       `json:"flags"`              // IFA_F_*
	Protocol  uint8        `json:"protocol,omitempty"` // IFAPROT_*: 1 lo, 2 ra, 3 ll; 0 unspecified or old kernel
	Preferred uint32       `json:"preferred"`          // seconds; 4294967295 = forever
	Valid     uint32       `json:"valid"`              // seconds; 4294967295 = forever
	// Age is for how many seconds it has been there (ifa_cacheinfo.cstamp): of an address
	// made from a router's prefix, for how long somebody has announced that.
	Age Known[int64] `json:"age,omitzero"`
}

// IFA_F_* (include/uapi/linux/if_addr.h).
const (
	AddrTemporary     = 0x01
	AddrNoDAD         = 0x02
	AddrOptimistic    = 0x04
	AddrDADFailed     = 0x08
	AddrHomeAddress   = 0x10
	AddrDeprecated    = 0x20
	AddrTentative     = 0x40
	AddrPermanent     = 0x80
	AddrManageTemp    = 0x100
	AddrNoPrefixRoute = 0x200
	AddrMCAutoJoin    = 0x400
	AddrStablePrivacy = 0x800
)

// Forever is the lifetime of what does not end (RFC 4861 §4.6.2: 0xffffffff).
const Forever = ^uint32(0)

// Route is a route of any table (RTM_NEWROUTE).
type Route struct {
	Family   string       `json:"family"`       // ipv4 | ipv6
	Dst      netip.Prefix `json:"dst"`          // 0.0.0.0/0 or ::/0 for the default route
	Src      netip.Prefix `json:"src,omitzero"` // source-specific routing (RTA_SRC)
	PrefSrc  netip.Addr   `json:"prefSrc,omitzero"`
	Table    uint32       `json:"table"`    // 254 main, 255 local
	Protocol uint8        `json:"protocol"` // RTPROT_*: 2 kernel, 3 boot, 4 static, 9 ra, 16 dhcp …
	Type     uint8        `json:"type"`     // RTN_*: 1 unicast, 2 local, 6 blackhole, 7 unreachable …
	Scope    uint8        `json:"scope"`
	Priority uint32       `json:"priority"`         // metric
	Flags    uint32       `json:"flags"`            // RTM_F_*, RTNH_F_*
	Pref     uint8        `json:"pref,omitempty"`   // RFC 4191: 0 medium, 1 high, 3 low
	Expires  Known[int64] `json:"expires,omitzero"` // seconds until it goes; absent: never
	NextHops []NextHop    `json:"nextHops,omitempty"`
	// NextHopID is the nexthop object the route refers to (RTA_NH_ID). NextHops
	// holds what it resolves to; with an ID and no NextHops it could not be resolved.
	NextHopID uint32 `json:"nextHopId,omitempty"`
}

// Route protocols (include/uapi/linux/rtnetlink.h).
const (
	ProtoRedirect = 1
	ProtoKernel   = 2
	ProtoBoot     = 3
	ProtoStatic   = 4
	ProtoRA       = 9
	ProtoDHCP     = 16
)

// NextHop is where a route leads.
type NextHop struct {
	Via   netip.Addr `json:"via,omitzero"`
	Index int        `json:"index,omitempty"` // ifindex
	Flags uint8      `json:"flags,omitempty"` // RTNH_F_*: 1 dead, 16 linkdown
	Encap uint16     `json:"encap,omitempty"` // LWTUNNEL_ENCAP_*: 0 none, 5 seg6 …
}

// Rule is a policy routing rule (RTM_NEWRULE).
type Rule struct {
	Family   string       `json:"family"`
	Priority uint32       `json:"priority"`
	Src      netip.Prefix `json:"src,omitzero"`
	Dst      netip.Prefix `json:"dst,omitzero"`
	IIF      string       `json:"iif,omitempty"`
	OIF      string       `json:"oif,omitempty"`
	Mark     uint32       `json:"mark,omitempty"`
	Mask     uint32       `json:"mask,omitempty"`
	Table    uint32       `json:"table"`
	Action   uint8        `json:"action"` // FR_ACT_*
	Invert   bool         `json:"invert,omitempty"`
	// Conditions are the selectors that have no field of their own, one each, as
	// ip-rule(8) writes them ("uidrange 0-99", "suppress_prefixlength 0"): a rule
	// that has any does not apply to every packet or does not end the lookup.
	Conditions []string `json:"conditions,omitempty"`
}

// Neighbour is an entry of the neighbour cache (RTM_NEWNEIGH, AF_INET6).
type Neighbour struct {
	Index    int        `json:"index"`
	Address  netip.Addr `json:"address"`
	MAC      string     `json:"mac,omitempty"`
	State    uint16     `json:"state"` // NUD_*
	Flags    uint8      `json:"flags"` // NTF_*: 0x80 router, 0x08 proxy
	Protocol uint8      `json:"protocol,omitempty"`
}

// NUD_* (include/uapi/linux/neighbour.h) and the router flag.
const (
	NUDIncomplete = 0x01
	NUDReachable  = 0x02
	NUDStale      = 0x04
	NUDDelay      = 0x08
	NUDProbe      = 0x10
	NUDFailed     = 0x20
	NUDNoARP      = 0x40
	NUDPermanent  = 0x80

	NeighRouter = 0x80 // NTF_ROUTER
)

// NeighbourTable is RTM_GETNEIGHTBL of ndisc_cache. Thresholds and statistics
// are global: the same numbers are seen from every namespace.
type NeighbourTable struct {
	GCThresh1  uint32 `json:"gcThresh1"`
	GCThresh2  uint32 `json:"gcThresh2"`
	GCThresh3  uint32 `json:"gcThresh3"`
	Entries    uint32 `json:"entries"` // all namespaces
	GCInterval uint64 `json:"gcIntervalMs"`

	Allocs         uint64        `json:"allocs"`
	Destroys       uint64        `json:"destroys"`
	Lookups        uint64        `json:"lookups"`
	Hits           uint64        `json:"hits"`
	ResFailed      uint64        `json:"resFailed"`
	PeriodicGCRuns uint64        `json:"periodicGCRuns"`
	ForcedGCRuns   uint64        `json:"forcedGCRuns"`
	TableFulls     Known[uint64] `json:"tableFulls,omitzero"` // NDTA_STATS from 4.3
	// Parms are NDTA_PARMS by interface index (0 = default).
	Parms []NeighbourParms `json:"parms,omitempty"`
}

// NeighbourParms are the per-interface neighbour timers (NDTPA_*).
type NeighbourParms struct {
	Index           int    `json:"index"`
	BaseReachableMs uint64 `json:"baseReachableMs"`
	RetransMs       uint64 `json:"retransMs"`
	QueueBytes      uint32 `json:"queueBytes"` // unres_qlen_bytes
}

// Membership is a multicast group joined on an interface (RTM_GETMULTICAST or /proc/net/igmp6).
type Membership struct {
	Index int        `json:"index"`
	Group netip.Addr `json:"group"`
	Users int        `json:"users,omitempty"` // 0: not told (RTM_GETMULTICAST has no such field)
}

// Unread marks every fact of a namespace that was not entered with the reason.
func (n *Namespace) Unread(why *Gap) {
	g := Gap{Reason: NotCollected, What: "netns " + n.Name}
	if why != nil {
		g = *why
	}
	n.IPv6 = Missing[bool](g)
	n.Links = Missing[[]Link](g)
	n.Addresses = Missing[[]Address](g)
	n.Sysctls = Missing[Sysctls](g)
	n.Routes = Missing[[]Route](g)
	n.Rules = Missing[[]Rule](g)
	n.Neighbours = Missing[[]Neighbour](g)
	n.ProxyNeighbours = Missing[[]Neighbour](g)
	n.NeighbourTable = Missing[NeighbourTable](g)
	n.Multicast = Missing[[]Membership](g)
	n.Sockets = Missing[[]Socket](g)
	n.PacketFilter.NFTables = Missing[NFTables](g)
	n.PacketFilter.Legacy = Missing[[]LegacyTable](g)
	n.PacketFilter.IPSets = Missing[[][]byte](g)
}
