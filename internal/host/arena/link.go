package arena

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes that golang.org/x/sys does not name.
const (
	vethInfoPeer = 1 // VETH_INFO_PEER
	rtTableMain  = 254
)

// settle is how long interfaces and addresses may take to come up.
const settle = 5 * time.Second

// rtnl makes one rtnetlink request in the calling thread's namespace.
func rtnl(typ uint16, flags netlink.HeaderFlags, body []byte) ([]netlink.Message, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(settle))
	return c.Execute(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | flags}, Data: body})
}

const create = netlink.Acknowledge | netlink.Create | netlink.Excl

// attrs encodes attributes; f adds them.
func attrs(head []byte, f func(ae *netlink.AttributeEncoder)) []byte {
	ae := netlink.NewAttributeEncoder()
	f(ae)
	b, err := ae.Encode()
	if err != nil {
		return head // only values that are too long fail, and none is
	}
	return append(head, b...)
}

func ifinfo(index, flags uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], flags)
	return b
}

// veth makes a pair: one end here, one in the namespace of the far ends.
func (h *helper) veth(name, far string, l *Link, index uint32) error {
	_, err := rtnl(unix.RTM_NEWLINK, create, attrs(ifinfo(index, 0), func(ae *netlink.AttributeEncoder) {
		ae.String(unix.IFLA_IFNAME, name)
		if l.MAC != [6]byte{} {
			ae.Bytes(unix.IFLA_ADDRESS, l.MAC[:])
		}
		if l.MTU >= 1280 && l.MTU <= 65535 {
			ae.Uint32(unix.IFLA_MTU, l.MTU)
		}
		ae.Nested(unix.IFLA_LINKINFO, func(n *netlink.AttributeEncoder) error {
			n.String(unix.IFLA_INFO_KIND, "veth")
			n.Nested(unix.IFLA_INFO_DATA, func(d *netlink.AttributeEncoder) error {
				d.Bytes(vethInfoPeer|unix.NLA_F_NESTED, attrs(ifinfo(0, 0), func(p *netlink.AttributeEncoder) {
					p.String(unix.IFLA_IFNAME, far)
					p.Uint32(unix.IFLA_NET_NS_PID, uint32(h.farID))
					p.Uint32(unix.IFLA_MTU, 65535)
				}))
				return nil
			})
			return nil
		})
	}))
	if err != nil {
		return fmt.Errorf("make interface %s: %w", name, err)
	}
	return nil
}

func (h *helper) bridge(l *Link) error {
	_, err := rtnl(unix.RTM_NEWLINK, create, attrs(ifinfo(l.Index, 0), func(ae *netlink.AttributeEncoder) {
		ae.String(unix.IFLA_IFNAME, l.Name)
		if l.MAC != [6]byte{} {
			ae.Bytes(unix.IFLA_ADDRESS, l.MAC[:])
		}
		ae.Nested(unix.IFLA_LINKINFO, func(n *netlink.AttributeEncoder) error {
			n.String(unix.IFLA_INFO_KIND, "bridge")
			return nil
		})
	}))
	if err != nil {
		return fmt.Errorf("make bridge %s: %w", l.Name, err)
	}
	return nil
}

// plain makes an interface without frames; its wire is the other side of it.
func (h *helper) plain(l *Link) error {
	fd, err := unix.Openat(h.proc, fmt.Sprintf("self/fd/%d", h.tun), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make interface %s: open /dev/net/tun: %w", l.Name, err)
	}
	if l.Index != 0 {
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETIFINDEX, int(l.Index)); err != nil {
			return fmt.Errorf("number interface %s: %w", l.Name, err)
		}
	}
	r, err := unix.NewIfreq(l.Name)
	if err != nil {
		return fmt.Errorf("name interface %s: %w", l.Name, err)
	}
	r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); err != nil {
		return fmt.Errorf("make interface %s: %w", l.Name, err)
	}
	h.wires[l.Name] = &wire{fd: fd, plain: true}
	return nil
}

// up brings an interface up, and puts it into a bridge unless master is 0.
func up(name string, master uint32) error {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	_, err = rtnl(unix.RTM_NEWLINK, netlink.Acknowledge, attrs(ifinfo(uint32(i.Index), unix.IFF_UP), func(ae *netlink.AttributeEncoder) {
		if master != 0 {
			ae.Uint32(unix.IFLA_MASTER, master)
		}
	}))
	if err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}

// until waits for something of the kernel's own work.
func until(what string, f func() bool) error {
	for end := time.Now().Add(settle); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("in vain waited for " + what)
		}
	}
	return nil
}

func running(name string) bool {
	i, err := net.InterfaceByName(name)
	return err == nil && i.Flags&net.FlagRunning != 0
}

func (h *helper) setup(s *Setup) (failed []string, err error) {
	if len(s.Links) > MaxLinks || len(h.wires) > 0 {
		return nil, fmt.Errorf("%d interfaces are more than %d", len(s.Links), MaxLinks)
	}
	note := func(what string, err error) {
		if err != nil {
			failed = append(failed, what+": "+err.Error())
		}
	}
	h.settings(s.Before)
	if err := up("lo", 0); err != nil {
		return nil, err
	}
	// Those that have a number first: the others take what is left.
	for _, numbered := range []bool{true, false} {
		for n := range s.Links {
			l := &s.Links[n]
			if (l.Index != 0) != numbered {
				continue
			}
			switch {
			case l.Bridge:
				err = h.bridge(l)
			case l.Plain:
				err = h.plain(l)
			default:
				err = h.veth(l.Name, l.Name, l, l.Index)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	for n := range s.Links {
		if err := h.attach(n, &s.Links[n]); err != nil {
			return nil, err
		}
	}
	for n, l := range s.Links {
		far := func() (yes bool) {
			_ = h.there(func() error { yes = running(l.Name); return nil })
			return yes
		}
		if err := until("the carrier of "+l.Name, func() bool {
			if len(l.Ports) > 0 {
				return running(l.Name) // its ports are up already
			}
			return running(l.Name) && (l.Plain || far()) && (!l.Bridge || running(fmt.Sprintf("sixfence-g%d", n)))
		}); err != nil {
			return nil, err
		}
		i, err := net.InterfaceByName(l.Name)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", l.Name, err)
		}
		h.names[uint32(i.Index)] = l.Name
		copy(h.wires[l.Name].mac[:], i.HardwareAddr)
		for _, p := range l.Ports {
			copy(h.wires[p.Name].mac[:], i.HardwareAddr)
		}
	}
	h.settings(s.After)
	for _, l := range s.Links {
		for _, p := range l.Addresses {
			a := p.Addr()
			err := h.address(l.Name, p)
			if err == nil {
				// The kernel installs the route of an address from a work queue.
				err = until("its route", func() bool {
					w, err := h.lookup([]netip.Addr{a})
					return err == nil && (w[0].Type == unix.RTN_LOCAL || a.IsLinkLocalUnicast() && h.has(l.Name, a))
				})
			}
			note(fmt.Sprintf("address %s of %s", p, l.Name), err)
		}
	}
	for _, n := range s.Neighbours {
		note(fmt.Sprintf("neighbour %s of %s", n.Address, n.Link), h.neighbour(n))
	}
	for _, r := range s.Routes {
		note(fmt.Sprintf("route to %s by %s", r.Dst, r.Link), h.route(r))
	}
	return failed, nil
}

// attach opens the wire of an interface and brings both ends up.
func (h *helper) attach(n int, l *Link) error {
	if len(l.Ports) > 0 {
		return h.ports(l)
	}
	port, master := l.Name, uint32(0)
	if l.Bridge {
		i, err := index(l.Name)
		if err != nil {
			return err
		}
		port, master = fmt.Sprintf("sixfence-p%d", n), i
		if err := h.veth(port, l.Name, &Link{}, 0); err != nil {
			return err
		}
	}
	// Addresses are those that are given, and no other.
	_ = h.write("net/ipv6/conf/"+l.Name+"/addr_gen_mode", "1")
	if l.Plain {
		return up(l.Name, 0)
	}
	var err error
	if h.wires[l.Name], err = h.wire(l.Name, port); err != nil {
		return err
	}
	if l.Bridge {
		if err := up(l.Name, 0); err != nil {
			return err
		}
		guest, far := fmt.Sprintf("sixfence-g%d", n), fmt.Sprintf("sixfence-h%d", n)
		if err := h.veth(guest, far, &Link{}, 0); err != nil {
			return err
		}
		if h.guest[l.Name], err = h.wire(far, guest); err != nil {
			return err
		}
		if err := up(guest, master); err != nil {
			return err
		}
	}
	return up(port, master)
}

// ports opens the wires of a bridge whose ports have names.
func (h *helper) ports(l *Link) error {
	master, err := index(l.Name)
	if err != nil {
		return err
	}
	_ = h.write("net/ipv6/conf/"+l.Name+"/addr_gen_mode", "1")
	if err := up(l.Name, 0); err != nil {
		return err
	}
	for _, p := range l.Ports {
		if err := h.veth(p.Name, p.Name, &Link{MAC: p.MAC}, p.Index); err != nil {
			return err
		}
		if h.wires[p.Name], err = h.wire(p.Name, p.Name); err != nil {
			return err
		}
		if err := up(p.Name, master); err != nil {
			return err
		}
	}
	h.wires[l.Name] = h.wires[l.Ports[0].Name]
	return until("the carrier of its ports", func() bool {
		for _, p := range l.Ports {
			there := false
			_ = h.there(func() error { there = running(p.Name); return nil })
			if !there || !running(p.Name) {
				return false
			}
		}
		return true
	})
}

// wire opens the far end of an interface.
func (h *helper) wire(far, port string) (w *wire, err error) {
	_ = h.write("net/ipv6/conf/"+port+"/addr_gen_mode", "1")
	err = h.there(func() (err error) {
		if err = up(far, 0); err == nil {
			w, err = openWire(far)
		}
		return err
	})
	return w, err
}

// settings writes what differs. What this kernel, or a namespace of it, does not have is
// skipped, as are those that hold no plain value.
func (h *helper) settings(list []Setting) {
	for _, s := range list {
		if now, err := h.read(s.Path); err == nil && now != s.Value {
			_ = h.write(s.Path, s.Value)
		}
	}
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func index(name string) (uint32, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, fmt.Errorf("find interface %s: %w", name, err)
	}
	return uint32(i.Index), nil
}

func (h *helper) address(link string, p netip.Prefix) error {
	i, err := index(link)
	if err != nil {
		return err
	}
	b := []byte{family(p.Addr()), byte(p.Bits()), 0, unix.RT_SCOPE_UNIVERSE}
	if p.Addr().IsLinkLocalUnicast() && p.Addr().Is6() {
		b[3] = unix.RT_SCOPE_LINK
	}
	b = binary.NativeEndian.AppendUint32(b, i)
	_, err = rtnl(unix.RTM_NEWADDR, create, attrs(b, func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.IFA_LOCAL, p.Addr().AsSlice())
		ae.Bytes(unix.IFA_ADDRESS, p.Addr().AsSlice())
		if p.Addr().Is6() {
			ae.Uint32(unix.IFA_FLAGS, unix.IFA_F_NODAD|unix.IFA_F_PERMANENT)
		}
	}))
	return err
}

func (h *helper) neighbour(n Neighbour) error {
	i, err := index(n.Link)
	if err != nil {
		return err
	}
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = family(n.Address)
	binary.NativeEndian.PutUint32(b[4:], i)
	state := n.State
	if state == 0 {
		state = unix.NUD_PERMANENT
	}
	binary.NativeEndian.PutUint16(b[8:], state)
	_, err = rtnl(unix.RTM_NEWNEIGH, netlink.Acknowledge|netlink.Create|netlink.Replace, attrs(b, func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.NDA_DST, n.Address.AsSlice())
		ae.Bytes(unix.NDA_LLADDR, n.MAC[:])
	}))
	return err
}

func (h *helper) route(r Route) error {
	i, err := index(r.Link)
	if err != nil {
		return err
	}
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1], b[4], b[5], b[6], b[7] = family(r.Dst.Addr()), byte(r.Dst.Bits()), rtTableMain, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	if !r.Via.IsValid() && r.Dst.Addr().Is4() {
		b[6] = unix.RT_SCOPE_LINK
	}
	if r.Via.IsValid() {
		binary.NativeEndian.PutUint32(b[8:], unix.RTNH_F_ONLINK)
	}
	_, err = rtnl(unix.RTM_NEWROUTE, create, attrs(b, func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.RTA_DST, r.Dst.Masked().Addr().AsSlice())
		ae.Uint32(unix.RTA_OIF, i)
		if r.Via.IsValid() {
			ae.Bytes(unix.RTA_GATEWAY, r.Via.WithZone("").AsSlice())
		}
		if r.Metric != 0 {
			ae.Uint32(unix.RTA_PRIORITY, r.Metric)
		}
	}))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// lookup asks the kernel where packets for these addresses go.
func (h *helper) lookup(list []netip.Addr) ([]Way, error) {
	var out []Way
	for _, a := range list {
		b := make([]byte, unix.SizeofRtMsg)
		b[0], b[1] = family(a), byte(a.BitLen())
		ms, err := rtnl(unix.RTM_GETROUTE, 0, attrs(b, func(ae *netlink.AttributeEncoder) { ae.Bytes(unix.RTA_DST, a.WithZone("").AsSlice()) }))
		var w Way
		switch {
		case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL):
		case err != nil:
			return nil, fmt.Errorf("look up %s: %w", a, err)
		case len(ms) > 0 && len(ms[0].Data) >= unix.SizeofRtMsg:
			w.Type = ms[0].Data[7]
			ad, err := netlink.NewAttributeDecoder(ms[0].Data[unix.SizeofRtMsg:])
			if err != nil {
				return nil, fmt.Errorf("look up %s: %w", a, err)
			}
			for ad.Next() {
				switch ad.Type() {
				case unix.RTA_OIF:
					w.Link = h.names[ad.Uint32()]
				case unix.RTA_GATEWAY:
					w.Via, _ = netip.AddrFromSlice(ad.Bytes())
				}
			}
		}
		out = append(out, w)
	}
	return out, nil
}

func (h *helper) has(link string, a netip.Addr) bool {
	list, err := h.addresses()
	if err != nil {
		return false
	}
	for _, x := range list {
		if x.Link == link && x.Prefix.Addr() == a {
			return true
		}
	}
	return false
}

func (h *helper) addresses() ([]Address, error) {
	ms, err := rtnl(unix.RTM_GETADDR, netlink.Dump, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []Address
	for _, m := range ms {
		if len(m.Data) < unix.SizeofIfAddrmsg {
			continue
		}
		list := nested(m.Data[unix.SizeofIfAddrmsg:])
		b := value(list, unix.IFA_LOCAL) // of a peer the other one is the peer's
		if b == nil {
			b = value(list, unix.IFA_ADDRESS)
		}
		a, ok := netip.AddrFromSlice(b)
		if name := h.names[binary.NativeEndian.Uint32(m.Data[4:])]; ok && name != "" {
			out = append(out, Address{name, netip.PrefixFrom(a, int(m.Data[1]))})
		}
	}
	return out, nil
}
