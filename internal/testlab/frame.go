package testlab

import "github.com/sixfence/sixfence/internal/logic/ndisc"

// MAC is, as Frame, Ext and RA, that of logic/ndisc, with which the attacker's side of a
// lab builds its packets.
type (
	MAC   = ndisc.MAC
	Frame = ndisc.Frame
	Ext   = ndisc.Ext
	RA    = ndisc.RA
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
