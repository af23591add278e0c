package mutate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/change"
)

var errNoInterface = errors.New("no such interface")

// index finds an interface in the calling process's namespace.
func index(name string) (uint32, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, errNoInterface)
	}
	return uint32(i.Index), nil
}

// names are the interfaces by their index.
func names() (map[uint32]string, error) {
	is, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	out := map[uint32]string{}
	for _, i := range is {
		out[uint32(i.Index)] = i.Name
	}
	return out, nil
}

// rtnl makes one rtnetlink request and its answer.
func rtnl(typ uint16, flags netlink.HeaderFlags, body []byte) ([]netlink.Message, error) {
	dial := func() (*netlink.Conn, error) { return netlink.Dial(unix.NETLINK_ROUTE, nil) }
	if typ == unix.RTM_NEWROUTE {
		dial = dialRoutes
	}
	c, err := dial()
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_ = c.SetOption(netlink.GetStrictCheck, true)
	m := netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | flags}, Data: body}
	if flags&netlink.Dump == 0 {
		return c.Execute(m)
	}
	for range 50 {
		ms, err := c.Execute(m)
		interrupted := errors.Is(err, unix.EINTR)
		for _, x := range ms {
			interrupted = interrupted || x.Header.Flags&netlink.DumpInterrupted != 0
		}
		if !interrupted {
			return ms, err
		}
	}
	return nil, fmt.Errorf("read rtnetlink: it changed all the time: %w", unix.EINTR)
}

func attr(b []byte, typ uint16, v []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(v)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, v...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// --- neighbours

func parseNeighbour(target string) (ifname string, a netip.Addr, err error) {
	ifname, s, ok := strings.Cut(target, " ")
	if a, err = netip.ParseAddr(s); !ok || err != nil {
		return "", a, fmt.Errorf("neighbour %q: not an interface and an address", target)
	}
	return ifname, a, nil
}

func neighbourWant(mac string) (string, error) {
	m, err := net.ParseMAC(mac)
	if err != nil {
		return "", fmt.Errorf("neighbour: %w", err)
	}
	return "permanent " + m.String(), nil
}

// neighbourState sees permanent entries only: what the kernel learned is not ours.
func neighbourState(target string) (string, error) {
	ifname, addr, err := parseNeighbour(target)
	if err != nil {
		return "", err
	}
	i, err := index(ifname)
	if err != nil {
		return "", err
	}
	body := make([]byte, unix.SizeofNdMsg)
	body[0] = family(addr)
	ms, err := rtnl(unix.RTM_GETNEIGH, netlink.Dump, body)
	if err != nil {
		return "", fmt.Errorf("read neighbours: %w", err)
	}
	for _, m := range ms {
		if len(m.Data) < unix.SizeofNdMsg || binary.NativeEndian.Uint32(m.Data[4:]) != i || binary.NativeEndian.Uint16(m.Data[8:])&unix.NUD_PERMANENT == 0 {
			continue
		}
		a := attributes(m.Data[unix.SizeofNdMsg:])
		if d, ok := netip.AddrFromSlice(a[unix.NDA_DST]); ok && d == addr {
			return "permanent " + net.HardwareAddr(a[unix.NDA_LLADDR]).String(), nil
		}
	}
	return Absent, nil
}

func neighbourSet(target string, i change.Image) error {
	ifname, addr, err := parseNeighbour(target)
	if err != nil {
		return err
	}
	n, err := index(ifname)
	if err != nil {
		return err
	}
	body := make([]byte, unix.SizeofNdMsg)
	body[0] = family(addr)
	binary.NativeEndian.PutUint32(body[4:], n)
	binary.NativeEndian.PutUint16(body[8:], unix.NUD_PERMANENT)
	body = attr(body, unix.NDA_DST, addr.AsSlice())
	typ, flags := uint16(unix.RTM_DELNEIGH), netlink.Acknowledge
	if !i.Absent {
		mac, err := net.ParseMAC(i.Text)
		if err != nil {
			return fmt.Errorf("neighbour: %w", err)
		}
		body = attr(body, unix.NDA_LLADDR, mac)
		typ, flags = unix.RTM_NEWNEIGH, netlink.Acknowledge|netlink.Create|netlink.Replace
	}
	if _, err := rtnl(typ, flags, body); err != nil && (!i.Absent || !errors.Is(err, unix.ENOENT)) {
		return fmt.Errorf("set neighbour %s: %w", target, err)
	}
	return nil
}

// --- addresses

func parseAddress(target string) (ifname string, p netip.Prefix, err error) {
	ifname, s, ok := strings.Cut(target, " ")
	if p, err = netip.ParsePrefix(s); !ok || err != nil {
		return "", p, fmt.Errorf("address %q: not an interface and an address with its length", target)
	}
	return ifname, p, nil
}

func addressState(target string) (string, error) {
	ifname, p, err := parseAddress(target)
	if err != nil {
		return "", err
	}
	i, err := index(ifname)
	if err != nil {
		return "", err
	}
	body := make([]byte, unix.SizeofIfAddrmsg)
	body[0] = family(p.Addr())
	ms, err := rtnl(unix.RTM_GETADDR, netlink.Dump, body)
	if err != nil {
		return "", fmt.Errorf("read addresses: %w", err)
	}
	for _, m := range ms {
		if len(m.Data) < unix.SizeofIfAddrmsg || binary.NativeEndian.Uint32(m.Data[4:]) != i || int(m.Data[1]) != p.Bits() {
			continue
		}
		a := attributes(m.Data[unix.SizeofIfAddrmsg:])
		local := a[unix.IFA_LOCAL]
		if local == nil {
			local = a[unix.IFA_ADDRESS]
		}
		if d, ok := netip.AddrFromSlice(local); ok && d == p.Addr() {
			return "present", nil
		}
	}
	return Absent, nil
}

func addressSet(target string, i change.Image) error {
	ifname, p, err := parseAddress(target)
	if err != nil {
		return err
	}
	n, err := index(ifname)
	if err != nil {
		return err
	}
	body := make([]byte, unix.SizeofIfAddrmsg)
	body[0], body[1] = family(p.Addr()), byte(p.Bits())
	binary.NativeEndian.PutUint32(body[4:], n)
	body = attr(body, unix.IFA_LOCAL, p.Addr().AsSlice())
	body = attr(body, unix.IFA_ADDRESS, p.Addr().AsSlice())
	typ, flags := uint16(unix.RTM_DELADDR), netlink.Acknowledge
	if !i.Absent {
		if p.Addr().Is6() {
			body = attr(body, unix.IFA_FLAGS, u32(unix.IFA_F_NODAD))
		}
		typ, flags = unix.RTM_NEWADDR, netlink.Acknowledge|netlink.Create|netlink.Replace
	}
	if _, err := rtnl(typ, flags, body); err != nil && (!i.Absent || !errors.Is(err, unix.EADDRNOTAVAIL)) {
		return fmt.Errorf("set address %s: %w", target, err)
	}
	if !i.Absent && p.Addr().Is6() {
		awaitReady(n, p.Addr())
	}
	return nil
}

// --- routes

// route is what a target of a route says: "default via fe80::1 dev eth0 proto static
// metric 1024", "blackhole 2001:db8::/32".
type route struct {
	typ      byte
	dst      netip.Prefix
	via, src netip.Addr
	dev      string
	proto    byte
	metric   uint32
	table    uint32
	onlink   bool
}

var routeTypes = map[string]byte{"unicast": unix.RTN_UNICAST, "blackhole": unix.RTN_BLACKHOLE, "unreachable": unix.RTN_UNREACHABLE, "prohibit": unix.RTN_PROHIBIT}

var routeProtocols = map[string]byte{"kernel": unix.RTPROT_KERNEL, "boot": unix.RTPROT_BOOT, "static": unix.RTPROT_STATIC, "ra": unix.RTPROT_RA, "dhcp": unix.RTPROT_DHCP}

func parseRoute(target string) (route, error) {
	bad := func(why string) (route, error) { return route{}, fmt.Errorf("route %q: %s", target, why) }
	r := route{typ: unix.RTN_UNICAST, proto: unix.RTPROT_STATIC, table: unix.RT_TABLE_MAIN}
	w := strings.Fields(target)
	if len(w) > 0 {
		if t, ok := routeTypes[w[0]]; ok {
			r.typ, w = t, w[1:]
		}
	}
	if len(w) == 0 {
		return bad("no destination")
	}
	dst, w := w[0], w[1:]
	for ; len(w) > 0; w = w[1:] {
		if w[0] == "onlink" {
			r.onlink = true
			continue
		}
		if len(w) < 2 {
			return bad("a word without a value: " + w[0])
		}
		v := w[1]
		var err error
		var n uint64
		switch w[0] {
		case "via":
			r.via, err = netip.ParseAddr(v)
		case "src":
			r.src, err = netip.ParseAddr(v)
		case "dev":
			r.dev = v
		case "proto":
			var ok bool
			if r.proto, ok = routeProtocols[v]; !ok {
				n, err = strconv.ParseUint(v, 10, 8)
				r.proto = byte(n)
			}
		case "metric":
			n, err = strconv.ParseUint(v, 10, 32)
			r.metric = uint32(n)
		case "table":
			if v != "main" {
				n, err = strconv.ParseUint(v, 10, 32)
				r.table = uint32(n)
			}
		case "pref": // medium is what a route has that says nothing
			if v != "medium" {
				return bad("pref " + v + " is not supported")
			}
		default:
			return bad("the word " + w[0] + " is not understood")
		}
		if err != nil {
			return bad(err.Error())
		}
		w = w[1:]
	}
	if dst == "default" {
		r.dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		if r.via.Is4() || r.src.Is4() {
			r.dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		return r, nil
	}
	if a, err := netip.ParseAddr(dst); err == nil {
		r.dst = netip.PrefixFrom(a, a.BitLen())
		return r, nil
	}
	p, err := netip.ParsePrefix(dst)
	if err != nil {
		return bad(err.Error())
	}
	r.dst = p
	return r, nil
}

func (r route) body() ([]byte, error) {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1], b[5], b[7] = family(r.dst.Addr()), byte(r.dst.Bits()), r.proto, r.typ
	b[4] = unix.RT_TABLE_UNSPEC
	if r.table < 256 {
		b[4] = byte(r.table)
	}
	if r.dst.Addr().Is4() && !r.via.IsValid() && r.typ == unix.RTN_UNICAST {
		b[6] = unix.RT_SCOPE_LINK
	}
	if r.onlink {
		binary.NativeEndian.PutUint32(b[8:], unix.RTNH_F_ONLINK)
	}
	b = attr(b, unix.RTA_TABLE, u32(r.table))
	if r.dst.Bits() > 0 {
		b = attr(b, unix.RTA_DST, r.dst.Masked().Addr().AsSlice())
	}
	if r.via.IsValid() {
		b = attr(b, unix.RTA_GATEWAY, r.via.WithZone("").AsSlice())
	}
	if r.src.IsValid() {
		b = attr(b, unix.RTA_PREFSRC, r.src.AsSlice())
	}
	if r.metric != 0 {
		b = attr(b, unix.RTA_PRIORITY, u32(r.metric))
	}
	if r.dev != "" {
		i, err := index(r.dev)
		if err != nil {
			return nil, err
		}
		b = attr(b, unix.RTA_OIF, u32(i))
	}
	return b, nil
}

func routeState(target string) (string, error) {
	r, err := parseRoute(target)
	if err != nil {
		return "", err
	}
	var i uint32
	if r.dev != "" {
		if i, err = index(r.dev); err != nil {
			return "", err
		}
	}
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = family(r.dst.Addr())
	ms, err := rtnl(unix.RTM_GETROUTE, netlink.Dump, body)
	if err != nil {
		return "", fmt.Errorf("read routes: %w", err)
	}
	for _, m := range ms {
		if len(m.Data) < unix.SizeofRtMsg || int(m.Data[1]) != r.dst.Bits() || m.Data[7] != r.typ {
			continue
		}
		a := attributes(m.Data[unix.SizeofRtMsg:])
		same := func(t uint16, want netip.Addr) bool {
			got, ok := netip.AddrFromSlice(a[t])
			return ok == want.IsValid() && (!ok || got == want.WithZone(""))
		}
		number := func(t uint16) uint32 {
			if len(a[t]) < 4 {
				return 0
			}
			return binary.NativeEndian.Uint32(a[t])
		}
		dst, ok := netip.AddrFromSlice(a[unix.RTA_DST])
		if r.dst.Bits() > 0 && (!ok || dst != r.dst.Masked().Addr()) || number(unix.RTA_TABLE) != r.table || !same(unix.RTA_GATEWAY, r.via) {
			continue
		}
		if r.dev != "" && number(unix.RTA_OIF) != i || r.metric != 0 && number(unix.RTA_PRIORITY) != r.metric {
			continue
		}
		return "present", nil
	}
	return Absent, nil
}

func routeSet(target string, i change.Image) error {
	r, err := parseRoute(target)
	if err != nil {
		return err
	}
	body, err := r.body()
	if err != nil {
		return err
	}
	typ, flags := uint16(unix.RTM_DELROUTE), netlink.Acknowledge
	if !i.Absent {
		typ, flags = unix.RTM_NEWROUTE, netlink.Acknowledge|netlink.Create|netlink.Excl
	}
	_, err = rtnl(typ, flags, body)
	if err != nil && (!i.Absent || !errors.Is(err, unix.ESRCH)) && (i.Absent || !errors.Is(err, unix.EEXIST)) {
		return fmt.Errorf("set route %s: %w", target, err)
	}
	return nil
}
