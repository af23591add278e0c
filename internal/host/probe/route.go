package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// route asks the kernel how it would send to an address.
func route(dst netip.Addr) (model.Vantage, int, error) {
	var v model.Vantage
	index := 0
	if z := dst.Zone(); z != "" {
		i, err := net.InterfaceByName(z)
		if err != nil {
			return v, 0, fmt.Errorf("zone %s of %s: %w", z, dst, err)
		}
		index = i.Index
	}
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return v, 0, fmt.Errorf("open netlink: %w", err)
	}
	defer func() { _ = c.Close() }()
	family, full := byte(unix.AF_INET6), byte(128)
	if dst.Is4() {
		family, full = unix.AF_INET, 32
	}
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.RTA_DST, dst.WithZone("").AsSlice())
	if index != 0 {
		ae.Uint32(unix.RTA_OIF, uint32(index))
	}
	attrs, err := ae.Encode()
	if err != nil {
		return v, 0, fmt.Errorf("encode route request: %w", err)
	}
	head := make([]byte, unix.SizeofRtMsg)
	head[0], head[1] = family, full
	msgs, err := c.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request}, Data: append(head, attrs...)})
	if err != nil {
		return v, 0, fmt.Errorf("find route to %s: %w", dst, err)
	}
	for _, m := range msgs {
		if len(m.Data) < unix.SizeofRtMsg {
			continue
		}
		switch m.Data[7] {
		case unix.RTN_LOCAL:
			v.Self = true
		case unix.RTN_UNREACHABLE, unix.RTN_BLACKHOLE, unix.RTN_PROHIBIT, unix.RTN_THROW:
			return v, 0, fmt.Errorf("find route to %s: %w", dst, unix.ENETUNREACH)
		case unix.RTN_BROADCAST, unix.RTN_MULTICAST, unix.RTN_ANYCAST:
			return v, 0, fmt.Errorf("%s is not the address of one host", dst)
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofRtMsg:])
		if err != nil {
			return v, 0, fmt.Errorf("read route: %w", err)
		}
		for ad.Next() {
			switch ad.Type() {
			case unix.RTA_PREFSRC:
				v.Source, _ = netip.AddrFromSlice(ad.Bytes())
			case unix.RTA_GATEWAY:
				v.Gateway, _ = netip.AddrFromSlice(ad.Bytes())
			case unix.RTA_VIA: // a gateway of the other family
				if b := ad.Bytes(); len(b) > 2 {
					v.Gateway, _ = netip.AddrFromSlice(b[2:])
				}
			case unix.RTA_OIF:
				index = int(ad.Uint32())
			}
		}
		if err := ad.Err(); err != nil {
			return v, 0, fmt.Errorf("read route: %w", err)
		}
	}
	if i, err := net.InterfaceByIndex(index); err == nil {
		v.Interface = i.Name
	}
	v.OnLink = !v.Gateway.IsValid() && !v.Self
	if dst.Zone() != "" {
		v.Source = v.Source.WithZone(dst.Zone())
	}
	return v, index, nil
}

// source is the address that the kernel takes for packets to dst.
func source(dst netip.Addr, index int) (netip.Addr, error) {
	fd, err := unix.Socket(domain(dst), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sockaddr(dst, 9, index)); err != nil {
		return netip.Addr{}, fmt.Errorf("find source address for %s: %w", dst, err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find source address for %s: %w", dst, err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(sa.Addr), nil
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(sa.Addr), nil
	}
	return netip.Addr{}, errors.New("find source address: what is this?")
}

func domain(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.Addr, port uint16, index int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	s := &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
	if a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() {
		s.ZoneId = uint32(index)
	}
	return s
}

// neighbourly tells whether an interface has neighbours that the kernel asks for. A tunnel has
// none.
func neighbourly(index int) bool {
	i, err := net.InterfaceByIndex(index)
	return err != nil || i.Flags&net.FlagPointToPoint == 0
}

// neighbour tells whether the kernel knows the link-layer address of a neighbour from
// an answer, and whether it knows none at all.
func neighbour(a netip.Addr, index int) (known, gone bool) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return false, false
	}
	defer func() { _ = c.Close() }()
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.NDA_DST, a.WithZone("").AsSlice())
	attrs, err := ae.Encode()
	if err != nil {
		return false, false
	}
	head := make([]byte, unix.SizeofNdMsg)
	head[0] = byte(domain(a))
	binary.NativeEndian.PutUint32(head[4:], uint32(index))
	msgs, err := c.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETNEIGH, Flags: netlink.Request}, Data: append(head, attrs...)})
	if err != nil {
		return false, errors.Is(err, unix.ENOENT)
	}
	for _, m := range msgs {
		if len(m.Data) < unix.SizeofNdMsg {
			continue
		}
		state := binary.NativeEndian.Uint16(m.Data[8:])
		known = known || state&(unix.NUD_REACHABLE|unix.NUD_DELAY|unix.NUD_PROBE) != 0
		gone = gone || state&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) != 0
	}
	return known, gone
}
