package rtnl

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// IFLA_* numbers that golang.org/x/sys/unix does not name
// (include/uapi/linux/if_link.h).
const (
	iflaInet6Conf        = 2
	iflaInet6Token       = 7
	iflaInet6AddrGenMode = 8
	iflaXDPAttached      = 2
	iflaBridgeIsolated   = 33 // IFLA_BRPORT_ISOLATED
	iflaVLANID           = 1

	iflaBridgeCallIPTables  = 36 // IFLA_BR_NF_CALL_IPTABLES
	iflaBridgeCallIP6Tables = 37 // IFLA_BR_NF_CALL_IP6TABLES
	iflaVLANProtocol        = 5
)

// link decodes struct ifinfomsg.
func (d *Dump) link(b []byte) (fact.Link, verdict) {
	if len(b) < unix.SizeofIfInfomsg {
		return fact.Link{}, malformed
	}
	if b[0] != unix.AF_UNSPEC {
		return fact.Link{}, skip // AF_BRIDGE messages are ports, not links
	}
	out := fact.Link{
		Type:  binary.NativeEndian.Uint16(b[2:]),
		Index: int(int32(binary.NativeEndian.Uint32(b[4:]))),
		Flags: binary.NativeEndian.Uint32(b[8:]),
		// The kernel always sends IFLA_AF_SPEC, with AF_INET6 in it when the
		// interface has an IPv6 side, and IFLA_XDP since it has XDP.
		Inet6:       fact.Absent[map[string]int32](),
		AddrGenMode: fact.Absent[uint8](),
		Token:       fact.Absent[netip.Addr](),
		XDP:         fact.Unsupported[uint8](),
	}
	a := attrs{rest: b[unix.SizeofIfInfomsg:]}
	for a.next() {
		switch a.typ {
		case unix.IFLA_IFNAME:
			out.Name = fact.InterfaceName(a.text())
		case unix.IFLA_MTU:
			out.MTU = a.u32()
		case unix.IFLA_OPERSTATE:
			out.OperState = a.u8()
		case unix.IFLA_MASTER:
			out.Master = int(int32(a.u32()))
		case unix.IFLA_LINK:
			out.Parent = int(int32(a.u32()))
		case unix.IFLA_LINK_NETNSID:
			id := int32(a.u32())
			out.PeerNS = &id
		case unix.IFLA_GROUP:
			n := a.u32()
			out.Group = &n
		case unix.IFLA_ADDRESS:
			if !addressIsIP(out.Type) {
				out.MAC = hardwareAddress(a.v)
			}
		case unix.IFLA_PROP_LIST:
			n := attrs{rest: a.v}
			for n.next() {
				if n.typ == unix.IFLA_ALT_IFNAME {
					out.AltNames = append(out.AltNames, fact.InterfaceName(n.text()))
				}
			}
			a.bad = a.bad || n.bad
		case unix.IFLA_XDP:
			n := attrs{rest: a.v}
			for n.next() {
				if n.typ == iflaXDPAttached {
					out.XDP = fact.Value(n.u8())
				}
			}
			a.bad = a.bad || n.bad
		case unix.IFLA_AF_SPEC:
			a.bad = a.bad || !decodeAFSpec(a.v, &out)
		case unix.IFLA_LINKINFO:
			a.bad = a.bad || !decodeLinkInfo(a.v, &out)
		}
	}
	if a.bad || out.Name == "" {
		return fact.Link{}, malformed
	}
	if out.Tunnel != nil {
		out.Tunnel.Fallback = fallback[out.Name] == out.Kind
	}
	if x, asked := d.drivers[out.Index]; asked && out.Kind == "" {
		out.Driver = x.known("driver of " + out.Name)
	}
	out.TCIngress = d.ingress(&out)
	return out, keep
}

// addressIsIP tells the types whose IFLA_ADDRESS is the tunnel's local IP address.
func addressIsIP(arphrd uint16) bool {
	switch arphrd {
	case unix.ARPHRD_TUNNEL, unix.ARPHRD_TUNNEL6, unix.ARPHRD_SIT, unix.ARPHRD_IPGRE, unix.ARPHRD_IP6GRE:
		return true
	}
	return false
}

// decodeAFSpec looks for AF_INET6 in IFLA_AF_SPEC.
func decodeAFSpec(b []byte, out *fact.Link) bool {
	a := attrs{rest: b}
	for a.next() {
		if a.typ != unix.AF_INET6 {
			continue
		}
		n := attrs{rest: a.v}
		for n.next() {
			switch n.typ {
			case iflaInet6Conf:
				out.Inet6 = fact.Value(decodeDevconf(n.v))
			case iflaInet6Token:
				if a, ok := netip.AddrFromSlice(n.v); ok && a.Is6() && !a.IsUnspecified() {
					out.Token = fact.Value(a)
				}
			case iflaInet6AddrGenMode:
				out.AddrGenMode = fact.Value(n.u8())
			}
		}
		if n.bad {
			return false
		}
	}
	return !a.bad
}

// decodeLinkInfo decodes IFLA_LINKINFO. Data of a kind that is not understood
// leaves a Tunnel that says so; it does not make the link unknown.
func decodeLinkInfo(b []byte, out *fact.Link) bool {
	var data, slave []byte
	a := attrs{rest: b}
	for a.next() {
		switch a.typ {
		case unix.IFLA_INFO_KIND:
			out.Kind = string(a.text())
		case unix.IFLA_INFO_SLAVE_KIND:
			out.SlaveKind = string(a.text())
		case unix.IFLA_INFO_DATA:
			data = a.v
		case unix.IFLA_INFO_SLAVE_DATA:
			slave = a.v
		}
	}
	if a.bad {
		return false
	}
	if out.SlaveKind == "bridge" {
		out.BridgePort = &fact.BridgePort{}
		n := attrs{rest: slave}
		for n.next() {
			if n.typ == iflaBridgeIsolated {
				out.BridgePort.Isolated = n.u8() != 0
			}
		}
		if n.bad {
			return false
		}
	}
	if out.Kind == "bridge" {
		out.Bridge = &fact.Bridge{}
		n := attrs{rest: data}
		for n.next() {
			switch n.typ {
			case iflaBridgeCallIPTables:
				out.Bridge.CallIPTables = n.u8() != 0
			case iflaBridgeCallIP6Tables:
				out.Bridge.CallIP6Tables = n.u8() != 0
			}
		}
		if n.bad {
			return false
		}
	}
	if out.Kind == "vlan" {
		v := &fact.VLAN{}
		n := attrs{rest: data}
		for n.next() {
			switch n.typ {
			case iflaVLANID:
				v.ID = n.u16()
			case iflaVLANProtocol:
				v.Protocol = n.be16()
			}
		}
		if n.bad {
			return false
		}
		out.VLAN = v
	}
	out.Tunnel = decodeTunnel(out.Kind, data)
	return true
}

// ingress joins what is known of the ingress side of a link.
func (d *Dump) ingress(l *fact.Link) fact.Known[bool] {
	what := "TC programs of interface " + l.Name
	filters := fact.Value(false)
	switch k, no := refused[bool](&d.qdiscs, ""); {
	case no && k.State() != fact.StateUnsupported: // without CONFIG_NET_SCHED there are none
		filters = k
	case no:
	default:
		if ans := d.filters[l.Index]; ans != nil {
			if k, no := refused[bool](ans, ""); no {
				filters = k
			} else {
				filters = fact.Value(len(ans.datagrams) > 0)
			}
		}
	}
	if on, ok := filters.Get(); ok && on {
		return filters
	}
	tcx := fact.Missing[bool](fact.Gap{Reason: fact.NotCollected, What: what})
	if t, asked := d.tcx[l.Index]; asked {
		tcx = t.known(what)
	}
	if on, ok := tcx.Get(); ok && on {
		return tcx
	}
	if _, gap := filters.Gap(); gap {
		return filters
	}
	return tcx
}
