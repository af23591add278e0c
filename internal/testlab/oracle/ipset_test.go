package oracle

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// member is an element of an ipset as attributes of IPSET_ATTR_DATA.
type member func(*netlink.AttributeEncoder)

func setAddr(attr uint16, a netip.Addr) member {
	return func(ae *netlink.AttributeEncoder) {
		ae.Nested(attr, func(n *netlink.AttributeEncoder) error {
			typ := uint16(1)
			if a.Is6() {
				typ = 2
			}
			n.Bytes(typ|unix.NLA_F_NET_BYTEORDER, a.AsSlice())
			return nil
		})
	}
}

func setNet(p string) member {
	x := netip.MustParsePrefix(p)
	return func(ae *netlink.AttributeEncoder) {
		setAddr(1, x.Addr())(ae)
		ae.Uint8(3, uint8(x.Bits()))
	}
}

func setIP(a string) member { return setAddr(1, netip.MustParseAddr(a)) }

func setPort(proto uint8, port uint16) member {
	return func(ae *netlink.AttributeEncoder) {
		ae.Bytes(4|unix.NLA_F_NET_BYTEORDER, binary.BigEndian.AppendUint16(nil, port))
		if proto != 0 {
			ae.Uint8(7, proto)
		}
	}
}

func setFlags(f uint32) member {
	return func(ae *netlink.AttributeEncoder) {
		ae.Bytes(8|unix.NLA_F_NET_BYTEORDER, binary.BigEndian.AppendUint32(nil, f))
	}
}

func setText(attr uint16, s string) member {
	return func(ae *netlink.AttributeEncoder) { ae.String(attr, s) }
}

func all(ms ...member) member {
	return func(ae *netlink.AttributeEncoder) {
		for _, m := range ms {
			m(ae)
		}
	}
}

// ipset runs a command of the ipset subsystem.
func ipset(c *netlink.Conn, cmd uint16, name string, head func(*netlink.AttributeEncoder), data member) error {
	ae := netlink.NewAttributeEncoder()
	ae.Uint8(1, 6)
	ae.String(2, name)
	if head != nil {
		head(ae)
	}
	ae.Nested(7, func(n *netlink.AttributeEncoder) error {
		if data != nil {
			data(n)
		}
		return nil
	})
	b, err := ae.Encode()
	if err != nil {
		return err
	}
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(6<<8 | cmd), Flags: netlink.Request | netlink.Acknowledge},
		Data:   append([]byte{unix.AF_INET, 0, 0, 0}, b...),
	})
	return err
}

// makeSets makes the ipsets that the rules name.
func (l *Lab) makeSets(t *testing.T) {
	t.Helper()
	const create, add, noMatch, wildcard = 2, 9, 4, 128
	portRange := func(ae *netlink.AttributeEncoder) {
		ae.Bytes(4|unix.NLA_F_NET_BYTEORDER, []byte{0, 0})
		ae.Bytes(5|unix.NLA_F_NET_BYTEORDER, []byte{0xff, 0xff})
	}
	ipRange := all(setAddr(1, netip.MustParseAddr("10.1.0.0")), setAddr(2, netip.MustParseAddr("10.1.255.255")))
	sets := []struct {
		name, typ string
		family    uint8
		opt       member
		members   []member
	}{
		{"s4", "hash:ip", unix.AF_INET, nil, []member{setIP("10.1.2.3"), setIP("172.17.0.5")}},
		{"m4", "hash:ip", unix.AF_INET, func(ae *netlink.AttributeEncoder) { ae.Uint8(20, 25) }, []member{setIP("10.1.2.3")}},
		{"dyn", "hash:ip", unix.AF_INET, nil, nil},
		{"dyn6", "hash:ip", unix.AF_INET6, nil, nil},
		{"n4", "hash:net", unix.AF_INET, nil, []member{
			setNet("10.1.0.0/16"), all(setNet("10.1.2.0/24"), setFlags(noMatch)), setNet("10.1.2.0/25"), all(setNet("10.1.2.3/32"), setFlags(noMatch)), setNet("198.51.100.128/25"),
		}},
		{"p4", "hash:ip,port", unix.AF_INET, nil, []member{
			all(setIP("10.1.2.3"), setPort(6, 22)), all(setIP("10.1.2.127"), setPort(17, 53)), all(setIP("10.2.2.9"), setPort(1, 8<<8)), all(setIP("172.17.0.5"), setPort(99, 0)),
		}},
		{"bp", "bitmap:port", unix.AF_UNSPEC, portRange, []member{setPort(0, 22), setPort(0, 53)}},
		{"b4", "bitmap:ip", unix.AF_INET, ipRange, []member{setIP("10.1.2.3"), setIP("10.1.2.128")}},
		{"l4", "list:set", unix.AF_UNSPEC, nil, []member{setText(18, "s4"), setText(18, "n4")}},
		{"t4", "hash:ip,port,ip", unix.AF_INET, nil, []member{
			all(setIP("10.1.2.3"), setPort(6, 22), setAddr(20, netip.MustParseAddr("192.0.2.1"))),
			all(setIP("10.1.2.127"), setPort(17, 53), setAddr(20, netip.MustParseAddr("203.0.113.9"))),
		}},
		{"n6", "hash:net", unix.AF_INET6, nil, []member{setNet("2001:db8:1::/48"), all(setNet("2001:db8:1:ffff::/64"), setFlags(noMatch)), setNet("fd00::/8")}},
		{"q6", "hash:net,port", unix.AF_INET6, nil, []member{all(setNet("2001:db8:1::/48"), setPort(6, 22)), all(setNet("fd00::/8"), setPort(17, 9)), all(setNet("2001:db8:2::/48"), setPort(58, 128<<8))}},
		{"i6", "hash:net,iface", unix.AF_INET6, nil, []member{
			all(setNet("2001:db8:1::/48"), setText(23, "eth0")), all(setNet("fd00::/8"), setText(23, "wlan"), setFlags(wildcard)),
		}},
	}
	l.host.Do(func() {
		c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			t.Errorf("open netlink: %v", err)
			return
		}
		defer c.Close()
		for _, s := range sets {
			err := ipset(c, create, s.name, func(ae *netlink.AttributeEncoder) {
				ae.String(3, s.typ)
				ae.Uint8(4, 0)
				ae.Uint8(5, s.family)
			}, s.opt)
			if err != nil {
				t.Errorf("create ipset %s %s: %v", s.name, s.typ, err)
			}
			for i, m := range s.members {
				line := all(m, func(ae *netlink.AttributeEncoder) { ae.Bytes(9|unix.NLA_F_NET_BYTEORDER, make([]byte, 4)) })
				if err := ipset(c, add, s.name, nil, line); err != nil {
					t.Errorf("add member %d to ipset %s: %v", i, s.name, err)
				}
			}
		}
	})
}
