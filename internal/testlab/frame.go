package testlab

import "github.com/sixfence/sixfence/internal/logic/ndisc"

// The attacker's side of a lab builds its packets with logic/ndisc.
type (
	// MAC is ndisc's.
	MAC = ndisc.MAC
	// Frame is ndisc's.
	Frame = ndisc.Frame
	// Ext is ndisc's.
	Ext = ndisc.Ext
	// RA is ndisc's.
	RA = ndisc.RA
)

// AllNodes is ff02::1, the group every IPv6 node hears.
var AllNodes = ndisc.AllNodes

// Numbers of protocols, extension headers and messages.
const (
	ProtoUDP     = ndisc.ProtoUDP
	ProtoICMPv6  = ndisc.ProtoICMPv6
	HdrHopByHop  = ndisc.HdrHopByHop
	HdrFragment  = ndisc.HdrFragment
	HdrDestOpts  = ndisc.HdrDestOpts
	TypeEcho     = ndisc.TypeEcho
	TypeRA       = ndisc.TypeRA
	TypeNS       = ndisc.TypeNS
	TypeNA       = ndisc.TypeNA
	TypeRedirect = ndisc.TypeRedirect
	NARouter     = ndisc.NARouter
	NASolicited  = ndisc.NASolicited
	NAOverride   = ndisc.NAOverride
)

// Options of neighbour discovery messages.
var (
	SourceLinkLayer = ndisc.SourceLinkLayer
	TargetLinkLayer = ndisc.TargetLinkLayer
	PrefixInfo      = ndisc.PrefixInfo
	MTUOption       = ndisc.MTUOption
	RouteInfo       = ndisc.RouteInfo
	RDNSS           = ndisc.RDNSS
)
