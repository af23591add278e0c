package rtnl

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// IFLA_IPTUN_*, IFLA_GRE_*, IFLA_VTI_* (include/uapi/linux/if_tunnel.h).
const (
	iptunLocal           = 2
	iptunRemote          = 3
	iptunTTL             = 4
	iptunFlags           = 8
	iptunProto           = 9
	iptun6RDPrefix       = 11
	iptun6RDRelay        = 12
	iptun6RDPrefixLen    = 13
	iptun6RDRelayLen     = 14
	iptunEncapType       = 15
	iptunEncapDport      = 18
	iptunCollectMetadata = 19

	// sitISATAP is SIT_ISATAP. The attribute is sent as __be16, but the flag is
	// compared unconverted (net/ipv6/sit.c): on the wire it is in host order.
	sitISATAP = 0x0001

	greLocal           = 6
	greRemote          = 7
	greTTL             = 8
	greEncapType       = 14
	greEncapDport      = 17
	greCollectMetadata = 18

	vtiLocal  = 4
	vtiRemote = 5
)

// IFLA_VXLAN_*, IFLA_GENEVE_*, IFLA_BAREUDP_* (include/uapi/linux/if_link.h) and
// IFLA_AMT_* (include/uapi/linux/amt.h).
const (
	vxlanID              = 1
	vxlanGroup           = 2
	vxlanLocal           = 4
	vxlanTTL             = 5
	vxlanPort            = 15
	vxlanGroup6          = 16
	vxlanLocal6          = 17
	vxlanCollectMetadata = 25

	geneveID              = 1
	geneveRemote          = 2
	geneveTTL             = 3
	genevePort            = 5
	geneveCollectMetadata = 6
	geneveRemote6         = 7

	bareudpPort = 1

	amtRelayPort = 2
	amtLocal     = 5
	amtRemote    = 6
)

// fallback are the devices that a tunnel module makes by itself in every
// namespace (or only the initial one: net.core.fb_tunnels_only_for_init_net).
var fallback = map[string]string{
	"sit0": "sit", "tunl0": "ipip", "ip6tnl0": "ip6tnl", "gre0": "gre", "gretap0": "gretap", "erspan0": "erspan",
	"ip_vti0": "vti", "ip6_vti0": "vti6", "ip6gre0": "ip6gre",
}

// decodeTunnel decodes IFLA_INFO_DATA of the kinds that encapsulate; nil for any
// other kind.
func decodeTunnel(kind string, data []byte) *fact.Tunnel {
	t := &fact.Tunnel{}
	a := attrs{rest: data}
	switch kind {
	case "sit", "ipip", "ip6tnl":
		t.Complete = decodeIPTunnel(kind, &a, t)
	case "gre", "gretap", "erspan", "ip6gre", "ip6gretap", "ip6erspan":
		t.Complete = decodeGRE(&a, t)
	case "vti", "vti6":
		ends := 0
		for a.next() {
			ends += endpoint(&a, t, vtiLocal, vtiRemote)
		}
		t.Complete = !a.bad && ends == 2
	case "vxlan":
		t.Complete = decodeVXLAN(&a, t)
	case "geneve":
		t.Complete = decodeGeneve(&a, t)
	case "bareudp":
		for a.next() {
			if a.typ == bareudpPort {
				t.Port = a.be16()
			}
		}
		t.CollectMetadata = true // it has no endpoints of its own
		t.Complete = !a.bad && t.Port != 0
	case "amt":
		for a.next() {
			if a.typ == amtRelayPort {
				t.Port = a.be16()
			}
			endpoint(&a, t, amtLocal, amtRemote)
		}
		t.Complete = !a.bad && t.Port != 0
	case "tun":
		// The other end is a process, which no attribute could name.
		for a.next() {
		}
		t.Complete = !a.bad
	case "wireguard", "xfrm", "gtp", "ppp", "ovpn", "ovpn-dco", "l2tp", "pfcp":
		// Their peers are kept elsewhere; the kind is all there is.
	default:
		return nil
	}
	return t
}

// endpoint reads one of two address attributes and returns 1 when it did.
func endpoint(a *attrs, t *fact.Tunnel, local, remote uint16) int {
	switch a.typ {
	case local:
		t.Local = a.addr()
	case remote:
		t.Remote = a.addr()
	default:
		return 0
	}
	return 1
}

func decodeIPTunnel(kind string, a *attrs, t *fact.Tunnel) bool {
	var prefix6, relay netip.Addr
	var prefixLen, relayLen uint8
	var dport uint16
	ends, encap, proto := 0, false, false
	for a.next() {
		switch a.typ {
		case iptunTTL:
			t.TTL = a.u8()
		case iptunProto:
			t.Proto, proto = a.u8(), true
		case iptunFlags: // u16 of sit and ipip, u32 of ip6tnl
			t.ISATAP = kind == "sit" && a.u16()&sitISATAP != 0
		case iptun6RDPrefix:
			prefix6 = a.addr()
		case iptun6RDRelay:
			relay = a.addr()
		case iptun6RDPrefixLen:
			prefixLen = uint8(min(a.u16(), 255))
		case iptun6RDRelayLen:
			relayLen = uint8(min(a.u16(), 255))
		case iptunEncapType:
			encap = a.u16() != 0
		case iptunEncapDport:
			dport = a.be16()
		case iptunCollectMetadata:
			t.CollectMetadata = true
		default:
			ends += endpoint(a, t, iptunLocal, iptunRemote)
		}
	}
	if encap {
		t.Port = dport
	}
	if kind == "sit" && !proto {
		t.Proto = 41 // kernels before IFLA_IPTUN_PROTO was sent for sit
	}
	ok := !a.bad && ends == 2
	if prefix6.IsValid() {
		var fits bool
		t.SixRD, fits = prefix(prefix6, prefixLen)
		ok = ok && fits
		if relay.IsValid() {
			t.SixRDRelay, fits = prefix(relay, relayLen)
			ok = ok && fits
		}
	}
	return ok
}

func decodeGRE(a *attrs, t *fact.Tunnel) bool {
	var dport uint16
	ends, encap := 0, false
	for a.next() {
		switch a.typ {
		case greTTL:
			t.TTL = a.u8()
		case greEncapType:
			encap = a.u16() != 0
		case greEncapDport:
			dport = a.be16()
		case greCollectMetadata:
			t.CollectMetadata = true
		default:
			ends += endpoint(a, t, greLocal, greRemote)
		}
	}
	if encap {
		t.Port = dport
	}
	return !a.bad && ends == 2
}

func decodeVXLAN(a *attrs, t *fact.Tunnel) bool {
	id := false
	for a.next() {
		switch a.typ {
		case vxlanID:
			t.VNI, id = a.u32(), true
		case vxlanTTL:
			t.TTL = a.u8()
		case vxlanPort:
			t.Port = a.be16()
		case vxlanCollectMetadata:
			t.CollectMetadata = a.u8() != 0
		default: // an address that was not set is not sent
			endpoint(a, t, vxlanLocal, vxlanGroup)
			endpoint(a, t, vxlanLocal6, vxlanGroup6)
		}
	}
	return !a.bad && id && t.Port != 0
}

func decodeGeneve(a *attrs, t *fact.Tunnel) bool {
	for a.next() {
		switch a.typ {
		case geneveID:
			t.VNI = a.u32()
		case geneveRemote, geneveRemote6:
			t.Remote = a.addr()
		case geneveTTL:
			t.TTL = a.u8()
		case genevePort:
			t.Port = a.be16()
		case geneveCollectMetadata:
			t.CollectMetadata = true
		}
	}
	return !a.bad && t.Port != 0
}
