package mutate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/change"
)

// Destroys reads what setting a sysctl will take away besides, with the messages that
// make it again. disable_ipv6=1 takes every IPv6 address of the interface, and with
// them its routes and permanent and proxy neighbours; forwarding=1 takes the default
// routes that came by Router Advertisement, unless accept_ra is 2.
func (h *Host) Destroys(target string, i change.Image) ([]change.Object, error) {
	covered, raDefault, err := h.covers(target, i)
	if err != nil || len(covered) == 0 {
		return nil, err
	}
	var out []change.Object
	if !raDefault {
		as, err := addressesOf(covered)
		if err != nil {
			return nil, err
		}
		nb, err := neighboursOf(covered)
		if err != nil {
			return nil, err
		}
		out = append(as, nb...)
	}
	rs, err := routesOf(covered, raDefault)
	return append(out, rs...), err
}

// covers tells the interfaces on which setting a sysctl destroys something; raDefault,
// that it is only the default routes of advertisements.
func (h *Host) covers(target string, i change.Image) (covered map[uint32]string, raDefault bool, err error) {
	w := strings.Split(target, "/")
	if len(w) != 5 || w[0] != "net" || w[1] != "ipv6" || w[2] != "conf" || strings.TrimSpace(i.Text) == "0" {
		return nil, false, nil
	}
	ifname, key := w[3], w[4]
	if key != "disable_ipv6" && key != "forwarding" || ifname == "default" {
		return nil, false, nil
	}
	ns, err := names()
	if err != nil {
		return nil, false, err
	}
	covered = map[uint32]string{}
	for n, name := range ns {
		if ifname != "all" && name != ifname {
			continue
		}
		s, err := h.sysctlState("net/ipv6/conf/" + name + "/" + key)
		if err != nil || s != "= 0" {
			continue // it is so already: nothing more is destroyed
		}
		if key == "forwarding" {
			if ra, err := h.sysctlState("net/ipv6/conf/" + name + "/accept_ra"); err != nil || ra == "= 2" {
				continue
			}
		}
		covered[n] = name
	}
	return covered, key == "forwarding", nil
}

// Watch hears what the kernel deletes while a sysctl is set. An object that appears
// between the reading of Destroys and the setting goes as well, and nobody but the
// kernel knows of it.
type Watch struct {
	c         *netlink.Conn
	covered   map[uint32]string
	raDefault bool
}

// Watch begins to listen; it returns nil where nothing will be destroyed, or nothing
// can be heard.
func (h *Host) Watch(target string, i change.Image) *Watch {
	covered, raDefault, err := h.covers(target, i)
	if err != nil || len(covered) == 0 {
		return nil
	}
	// RTMGRP_NEIGH, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: 0x4 | 0x100 | 0x400})
	if err != nil {
		return nil
	}
	_ = c.SetReadBuffer(4 << 20)
	return &Watch{c: c, covered: covered, raDefault: raDefault}
}

// Close ends the listening.
func (w *Watch) Close() {
	if w != nil {
		_ = w.c.Close()
	}
}

// Fresh brings the list up to date, right before the sysctl is set: until then all that
// is heard is somebody else's doing.
func (w *Watch) Fresh(list []change.Object) []change.Object {
	w.each(func(o change.Object, gone bool, _ uint32) {
		list = slices.DeleteFunc(list, func(x change.Object) bool { return x.Kind == o.Kind && x.Target == o.Target })
		if !gone {
			list = append(list, o)
		}
	})
	return list
}

// Add adds what was deleted since, and is not in the list, to the list, and takes out
// routes that somebody else deleted: of those the kernel says who asked.
func (w *Watch) Add(list []change.Object) []change.Object {
	w.each(func(o change.Object, gone bool, by uint32) {
		if !gone {
			return
		}
		same := func(x change.Object) bool { return x.Kind == o.Kind && x.Target == o.Target }
		switch {
		case o.Kind == change.RouteObj && by != 0:
			list = slices.DeleteFunc(list, same)
		case !slices.ContainsFunc(list, same):
			list = append(list, o)
		}
	})
	return list
}

// each calls f for all that was said until now. It never waits: what the setting of a
// sysctl causes is said before the setting returns, and a wait that this process
// sleeps through, on a busy host, would hear nothing (seen).
func (w *Watch) each(f func(o change.Object, gone bool, by uint32)) {
	if w == nil {
		return
	}
	raw, err := w.c.SyscallConn()
	if err != nil {
		return
	}
	for {
		buf := make([]byte, 64<<10) // the messages are kept
		var n int
		var from unix.Sockaddr
		var err error
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			if e := raw.Control(func(fd uintptr) { n, from, err = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT) }); e != nil {
				return
			}
		}
		if err != nil {
			return // all is heard, or too much was said
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue // not the kernel
		}
		ms, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return
		}
		for _, m := range ms {
			var o change.Object
			var ok, gone bool
			switch m.Header.Type {
			case unix.RTM_DELADDR, unix.RTM_NEWADDR:
				o, ok = addressOf(m.Data, w.covered)
				ok, gone = ok && !w.raDefault, m.Header.Type == unix.RTM_DELADDR
			case unix.RTM_DELROUTE, unix.RTM_NEWROUTE:
				o, ok = routeOf(m.Data, w.covered, w.raDefault)
				gone = m.Header.Type == unix.RTM_DELROUTE
			case unix.RTM_DELNEIGH, unix.RTM_NEWNEIGH:
				o, ok = neighbourOf(m.Data, w.covered)
				ok, gone = ok && !w.raDefault, m.Header.Type == unix.RTM_DELNEIGH
			}
			if ok {
				f(o, gone, m.Header.Pid)
			}
		}
	}
}

func addressesOf(covered map[uint32]string) ([]change.Object, error) {
	body := make([]byte, unix.SizeofIfAddrmsg)
	body[0] = unix.AF_INET6
	ms, err := rtnl(unix.RTM_GETADDR, netlink.Dump, body)
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	var out []change.Object
	for _, m := range ms {
		if o, ok := addressOf(m.Data, covered); ok {
			out = append(out, o)
		}
	}
	return out, nil
}

func addressOf(m []byte, covered map[uint32]string) (change.Object, bool) {
	if len(m) < unix.SizeofIfAddrmsg || m[0] != unix.AF_INET6 {
		return change.Object{}, false
	}
	name, ok := covered[binary.NativeEndian.Uint32(m[4:])]
	a := attributes(m[unix.SizeofIfAddrmsg:])
	if !ok || flags(a)&unix.IFA_F_TEMPORARY != 0 {
		return change.Object{}, false // temporary ones the kernel makes itself, and takes none from us
	}
	local := a[unix.IFA_LOCAL]
	if local == nil {
		local = a[unix.IFA_ADDRESS]
	}
	addr, _ := netip.AddrFromSlice(local)
	o := change.Object{Kind: change.AddressObj, Target: fmt.Sprintf("%s %s/%d", name, addr, m[1]), Interface: name, Message: m}
	if c := a[unix.IFA_CACHEINFO]; len(c) >= 8 {
		o.PreferredLifetime, o.ValidLifetime = finite(binary.NativeEndian.Uint32(c)), finite(binary.NativeEndian.Uint32(c[4:]))
	}
	return o, true
}

// finite is a lifetime as Object has it: 0 for ever.
func finite(v uint32) uint32 {
	if v == 0xffffffff {
		return 0
	}
	return max(v, 1)
}

func flags(a map[uint16][]byte) uint32 {
	if f := a[unix.IFA_FLAGS]; len(f) >= 4 {
		return binary.NativeEndian.Uint32(f)
	}
	return 0
}

func neighboursOf(covered map[uint32]string) ([]change.Object, error) {
	var out []change.Object
	for _, proxy := range []bool{false, true} {
		body := make([]byte, unix.SizeofNdMsg)
		body[0] = unix.AF_INET6
		if proxy {
			body[10] = unix.NTF_PROXY
		}
		ms, err := rtnl(unix.RTM_GETNEIGH, netlink.Dump, body)
		if err != nil {
			return nil, fmt.Errorf("read neighbours: %w", err)
		}
		for _, m := range ms {
			if o, ok := neighbourOf(m.Data, covered); ok {
				out = append(out, o)
			}
		}
	}
	return out, nil
}

func neighbourOf(m []byte, covered map[uint32]string) (change.Object, bool) {
	if len(m) < unix.SizeofNdMsg || m[0] != unix.AF_INET6 {
		return change.Object{}, false
	}
	name, ok := covered[binary.NativeEndian.Uint32(m[4:])]
	proxy := m[10]&unix.NTF_PROXY != 0
	if permanent := binary.NativeEndian.Uint16(m[8:])&unix.NUD_PERMANENT != 0; !ok || !proxy && !permanent {
		return change.Object{}, false
	}
	a := attributes(m[unix.SizeofNdMsg:])
	addr, _ := netip.AddrFromSlice(a[unix.NDA_DST])
	o := change.Object{Kind: change.Neighbour, Target: name + " " + addr.String(), Interface: name, Message: m}
	if proxy {
		o.Attributes = []string{"proxy"}
	} else {
		o.Attributes = []string{"lladdr", net.HardwareAddr(a[unix.NDA_LLADDR]).String(), "nud", "permanent"}
	}
	return o, true
}

const rtmFCloned = 0x200 // RTM_F_CLONED: a cached exception, not a route

// routesOf reads the IPv6 routes that hang on the interfaces; raDefault, only the
// default routes that an advertisement made.
func routesOf(covered map[uint32]string, raDefault bool) ([]change.Object, error) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = unix.AF_INET6
	ms, err := rtnl(unix.RTM_GETROUTE, netlink.Dump, body)
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	var out []change.Object
	for _, m := range ms {
		if o, ok := routeOf(m.Data, covered, raDefault); ok {
			out = append(out, o)
		}
	}
	return out, nil
}

func routeOf(m []byte, covered map[uint32]string, raDefault bool) (change.Object, bool) {
	if len(m) < unix.SizeofRtMsg || m[0] != unix.AF_INET6 || binary.NativeEndian.Uint32(m[8:])&rtmFCloned != 0 {
		return change.Object{}, false
	}
	if raDefault && (m[5] != unix.RTPROT_RA || m[1] != 0) {
		return change.Object{}, false
	}
	a := attributes(m[unix.SizeofRtMsg:])
	name, ok := "", false
	if oif := a[unix.RTA_OIF]; len(oif) >= 4 {
		name, ok = covered[binary.NativeEndian.Uint32(oif)]
	}
	for hops := a[unix.RTA_MULTIPATH]; len(hops) >= 8; {
		if n, in := covered[binary.NativeEndian.Uint32(hops[4:])]; in {
			name, ok = n, true
		}
		n := int(binary.NativeEndian.Uint16(hops))
		if n < 8 {
			break
		}
		hops = hops[min((n+3)&^3, len(hops)):]
	}
	o := change.Object{Kind: change.RouteObj, Target: routeText(m, a, name), Interface: name, Message: m}
	if c := a[unix.RTA_CACHEINFO]; len(c) >= 12 {
		if ticks := int32(binary.NativeEndian.Uint32(c[8:])); ticks != 0 {
			o.ValidLifetime = uint32(max(ticks/100, 1)) // USER_HZ
		}
	}
	return o, ok
}

func routeText(m []byte, a map[uint16][]byte, dev string) string {
	s := "default"
	if d, ok := netip.AddrFromSlice(a[unix.RTA_DST]); ok {
		s = netip.PrefixFrom(d, int(m[1])).String()
	}
	if v, ok := netip.AddrFromSlice(a[unix.RTA_GATEWAY]); ok {
		s += " via " + v.String()
	}
	s += " dev " + dev
	for name, p := range routeProtocols {
		if p == m[5] {
			s += " proto " + name
		}
	}
	if p := a[unix.RTA_PRIORITY]; len(p) >= 4 {
		s += fmt.Sprintf(" metric %d", binary.NativeEndian.Uint32(p))
	}
	if t := a[unix.RTA_TABLE]; len(t) >= 4 && binary.NativeEndian.Uint32(t) != unix.RT_TABLE_MAIN {
		s += fmt.Sprintf(" table %d", binary.NativeEndian.Uint32(t))
	}
	return s
}

// settable are the address flags that a request may carry.
const settable = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN

// Restore makes an object again that we destroyed, elapsed seconds ago. One that is
// there, or whose lifetime is over, is left as it is.
func (h *Host) Restore(o change.Object, elapsed uint32) error {
	if err := h.ask(o.Kind, o.Target); err != nil {
		return fmt.Errorf("restore %s: %w", o.Target, err)
	}
	if o.ValidLifetime != 0 && o.ValidLifetime <= elapsed {
		return nil
	}
	i, err := index(o.Interface)
	if err != nil {
		return err
	}
	switch o.Kind {
	case change.AddressObj:
		err = restoreAddress(o, i, elapsed)
	case change.Neighbour:
		if len(o.Message) < unix.SizeofNdMsg {
			return fmt.Errorf("restore %s: no message", o.Target)
		}
		body := append([]byte(nil), o.Message[:unix.SizeofNdMsg]...)
		binary.NativeEndian.PutUint32(body[4:], i)
		each(o.Message[unix.SizeofNdMsg:], func(t uint16, v []byte) {
			if t == unix.NDA_DST || t == unix.NDA_LLADDR || t == 12 { // NDA_PROTOCOL
				body = attr(body, t, v)
			}
		})
		_, err = rtnl(unix.RTM_NEWNEIGH, netlink.Acknowledge|netlink.Create|netlink.Replace, body)
	case change.RouteObj:
		err = restoreRoute(o, i, elapsed)
	default:
		return fmt.Errorf("restore %s: a %s cannot be restored", o.Target, o.Kind)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("restore %s: %w", o.Target, err)
	}
	return nil
}

func restoreAddress(o change.Object, i, elapsed uint32) error {
	if len(o.Message) < unix.SizeofIfAddrmsg {
		return errors.New("no message")
	}
	a := attributes(o.Message[unix.SizeofIfAddrmsg:])
	f := flags(a) & settable
	build := func(f uint32) []byte {
		b := append([]byte(nil), o.Message[:unix.SizeofIfAddrmsg]...)
		b[2] = byte(f)
		binary.NativeEndian.PutUint32(b[4:], i)
		for _, t := range []uint16{unix.IFA_ADDRESS, unix.IFA_LOCAL, unix.IFA_LABEL, unix.IFA_RT_PRIORITY, 11} { // IFA_PROTO
			if v, ok := a[t]; ok {
				b = attr(b, t, v)
			}
		}
		b = attr(b, unix.IFA_FLAGS, u32(f))
		left := func(l uint32) uint32 {
			switch {
			case l == 0:
				return 0xffffffff
			case l <= elapsed:
				return 0
			}
			return l - elapsed
		}
		preferred := left(o.PreferredLifetime)
		if c := a[unix.IFA_CACHEINFO]; len(c) >= 4 && binary.NativeEndian.Uint32(c) == 0 {
			preferred = 0 // it was deprecated
		}
		c := make([]byte, 16)
		binary.NativeEndian.PutUint32(c, preferred)
		binary.NativeEndian.PutUint32(c[4:], left(o.ValidLifetime))
		return attr(b, unix.IFA_CACHEINFO, c)
	}
	// Duplicate address detection would leave it unusable for a second, or for good
	// where somebody forges an answer: it was ours, and is again, at once. Then the flag
	// that says so is taken off.
	_, err := rtnl(unix.RTM_NEWADDR, netlink.Acknowledge|netlink.Create|netlink.Excl, build(f|unix.IFA_F_NODAD))
	if errors.Is(err, unix.EEXIST) {
		// The kernel made it again by itself, or an undo that was interrupted did.
		now, err := flagsOf(o, i)
		if err != nil || now&unix.IFA_F_NODAD == f&unix.IFA_F_NODAD {
			return err
		}
	} else if err != nil {
		return err
	}
	_, addr, _ := strings.Cut(o.Target, " ")
	if p, err := netip.ParsePrefix(addr); err == nil {
		awaitReady(i, p.Addr())
	}
	if f&unix.IFA_F_NODAD != 0 {
		return nil
	}
	return modifyAddress(build(f))
}

// modifyAddress changes the flags of an address that is there. Of one that somebody
// deleted meanwhile RTM_NEWADDR would make a new one, NLM_F_CREATE or not; but not
// with a prefix longer than 128, which a change does not look at (net/ipv6/addrconf.c,
// inet6_rtm_newaddr, inet6_addr_add, inet6_addr_modify).
func modifyAddress(m []byte) error {
	m[1] = 255
	_, err := rtnl(unix.RTM_NEWADDR, netlink.Acknowledge|netlink.Replace, m)
	if errors.Is(err, unix.EINVAL) {
		return nil // deleted: it is not ours to bring back again
	}
	return err
}

// awaitReady waits, shortly, until the kernel has finished with a new IPv6 address:
// its route in the local table comes last. A change of forwarding before that makes
// the kernel count the subnet's anycast address twice, and keep it for ever (seen).
func awaitReady(i uint32, a netip.Addr) {
	for range 60 {
		rs, err := routesOf(map[uint32]string{i: "-"}, false)
		if err != nil {
			return
		}
		for _, r := range rs {
			if r.Message[7] == unix.RTN_LOCAL && strings.HasPrefix(r.Target, a.String()+"/128 ") {
				return
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// flagsOf are the flags that an address has now.
func flagsOf(o change.Object, i uint32) (uint32, error) {
	as, err := addressesOf(map[uint32]string{i: o.Interface})
	for _, a := range as {
		if a.Target == o.Target {
			return flags(attributes(a.Message[unix.SizeofIfAddrmsg:])), nil
		}
	}
	return 0, err
}

func restoreRoute(o change.Object, i, elapsed uint32) error {
	if len(o.Message) < unix.SizeofRtMsg {
		return errors.New("no message")
	}
	if o.Message[5] == unix.RTPROT_KERNEL {
		if t := o.Message[7]; t == unix.RTN_LOCAL || t == unix.RTN_ANYCAST || t == unix.RTN_MULTICAST {
			return nil // the kernel makes it when the address is ready
		}
		if there, err := hasRoute(o, i); there || err != nil {
			return err // it came with the address
		}
	}
	b := append([]byte(nil), o.Message[:unix.SizeofRtMsg]...)
	binary.NativeEndian.PutUint32(b[8:], binary.NativeEndian.Uint32(b[8:])&(unix.RTNH_F_ONLINK|unix.RTNH_F_PERVASIVE))
	each(o.Message[unix.SizeofRtMsg:], func(t uint16, v []byte) {
		switch t {
		case unix.RTA_CACHEINFO:
		case unix.RTA_OIF:
			b = attr(b, t, u32(i))
		case unix.RTA_METRICS, unix.RTA_MULTIPATH, unix.RTA_ENCAP:
			b = attr(b, t|unix.NLA_F_NESTED, v)
		default:
			b = attr(b, t, v)
		}
	})
	if o.ValidLifetime != 0 {
		b = attr(b, unix.RTA_EXPIRES, u32(o.ValidLifetime-elapsed))
	}
	// Without EXCL and with APPEND, a second route to the same place becomes a next hop
	// of the first, which is what a dump of such a route was.
	_, err := rtnl(unix.RTM_NEWROUTE, netlink.Acknowledge|netlink.Create|netlink.Excl, b)
	return err
}

// hasRoute tells whether a route of the kernel's own is there.
func hasRoute(o change.Object, i uint32) (bool, error) {
	rs, err := routesOf(map[uint32]string{i: o.Interface}, false)
	if err != nil {
		return false, err
	}
	for _, r := range rs {
		if r.Target == o.Target && r.Message[7] == o.Message[7] {
			return true, nil
		}
	}
	return false, nil
}
