package mutate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

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
	rs, err := routesOf(covered, raDefault, true)
	if raDefault {
		rs = slices.DeleteFunc(rs, func(o change.Object) bool {
			return o.Message[5] != unix.RTPROT_RA && !slices.ContainsFunc(o.Attributes, func(a string) bool { return strings.HasPrefix(a, flagged) })
		})
	}
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
	for _, e := range w.heard() {
		if e.gone {
			list = slices.DeleteFunc(list, e.same)
		} else {
			list = e.add(list)
		}
	}
	return list
}

// Add adds what was deleted since, and is not in the list, to the list, and takes out
// what somebody else deleted. Of a route the kernel says who asked. Of an address its
// order tells: who deletes one hears of the address first and of its local route then;
// the switch takes all routes of the interface before the first address.
func (w *Watch) Add(list []change.Object) []change.Object {
	events := w.heard()
	theirs := map[string]bool{} // routes that went with an address that somebody deleted
	for i, e := range events {
		switch {
		case !e.gone:
			if w.raDefault {
				continue // by the next advertisement
			}
			list = e.add(list)
		case e.o.Kind == change.RouteObj && (e.by != 0 || theirs[e.o.Target]), e.forgotten, e.replaced != "":
			list = slices.DeleteFunc(list, e.same)
		case e.o.Kind == change.AddressObj && slices.ContainsFunc(events[i+1:], e.localRoute):
			list = slices.DeleteFunc(list, e.same)
			prefix := slices.IndexFunc(list, e.prefixRoute)
			if prefix < 0 || slices.ContainsFunc(list, e.samePrefix) {
				continue
			}
			theirs[list[prefix].Target] = true
			list = slices.Delete(list, prefix, prefix+1)
		case !slices.ContainsFunc(list, e.same) && !slices.ContainsFunc(list, e.partOf):
			list = append(list, e.o)
		}
	}
	return list
}

// event is one thing that the kernel said.
type event struct {
	o         change.Object
	gone      bool
	forgotten bool   // a permanent neighbour that somebody deleted
	replaced  string // the place of routes that somebody replaced
	by        uint32 // who asked for it; of routes only
}

func (e event) same(x change.Object) bool {
	if e.replaced != "" && x.Kind == change.RouteObj {
		p, _, ok := place(x.Message)
		return ok && p == e.replaced
	}
	return x.Kind == e.o.Kind && x.Target == e.o.Target
}

// partOf tells whether a route that goes is one of the next hops of one in the list.
func (e event) partOf(x change.Object) bool {
	if e.o.Kind != change.RouteObj || x.Kind != change.RouteObj {
		return false
	}
	p, legs, ok := place(e.o.Message)
	q, whole, _ := place(x.Message)
	return ok && p == q && !slices.ContainsFunc(legs, func(l string) bool { return !slices.Contains(whole, l) })
}

// add puts what is new into the list, or in the place of what it was.
func (e event) add(list []change.Object) []change.Object {
	for i, x := range list {
		if e.same(x) {
			e.o.Attributes = x.Attributes
			list[i] = e.o
			return list
		}
	}
	return append(list, e.o)
}

// prefix is the one of an address.
func prefix(o change.Object) netip.Prefix {
	_, s, _ := strings.Cut(o.Target, " ")
	p, _ := netip.ParsePrefix(s)
	return p
}

func (e event) localRoute(x event) bool {
	return x.gone && x.o.Kind == change.RouteObj && x.o.Interface == e.o.Interface && x.o.Message[7] == unix.RTN_LOCAL &&
		strings.HasPrefix(x.o.Target, prefix(e.o).Addr().String()+"/128 ")
}

func (e event) prefixRoute(x change.Object) bool {
	return x.Kind == change.RouteObj && x.Interface == e.o.Interface && x.Message[5] == unix.RTPROT_KERNEL && x.Message[7] == unix.RTN_UNICAST &&
		strings.HasPrefix(x.Target, prefix(e.o).Masked().String()+" ")
}

func (e event) samePrefix(x change.Object) bool {
	return x.Kind == change.AddressObj && x.Interface == e.o.Interface && prefix(x).Masked() == prefix(e.o).Masked()
}

// heard is all that was said until now.
func (w *Watch) heard() (out []event) {
	if w == nil {
		return nil
	}
	hear(w.c, func(m syscall.NetlinkMessage) {
		e := event{by: m.Header.Pid}
		var ok bool
		switch m.Header.Type {
		case unix.RTM_DELADDR, unix.RTM_NEWADDR:
			e.o, ok = addressOf(m.Data, w.covered)
			ok, e.gone = ok && !w.raDefault, m.Header.Type == unix.RTM_DELADDR
		case unix.RTM_DELROUTE, unix.RTM_NEWROUTE:
			e.gone = m.Header.Type == unix.RTM_DELROUTE
			if p, _, is := place(m.Data); is && !e.gone && (m.Header.Flags&unix.NLM_F_REPLACE != 0 || attributes(m.Data[unix.SizeofRtMsg:])[unix.RTA_MULTIPATH] != nil) {
				out = append(out, event{o: change.Object{Kind: change.RouteObj}, gone: true, replaced: p})
			}
			e.o, ok = routeOf(m.Data, w.covered, w.raDefault)
		case unix.RTM_DELNEIGH, unix.RTM_NEWNEIGH:
			e.o, ok = neighbourOf(m.Data, w.covered)
			e.gone = m.Header.Type == unix.RTM_DELNEIGH
			if !ok && !e.gone {
				// Who deletes one makes it fail first; the switch does not.
				e.o, ok = namedNeighbour(m.Data, w.covered)
				e.gone, e.forgotten = true, true
			}
			ok = ok && !w.raDefault
		}
		if ok {
			out = append(out, e)
		}
	})
	return out
}

// hear calls f for all that the kernel has said until now. It never waits: what the
// setting of a sysctl causes is said before the setting returns, and a wait that this
// process sleeps through, on a busy host, would hear nothing (seen).
func hear(c *netlink.Conn, f func(m syscall.NetlinkMessage)) {
	raw, err := c.SyscallConn()
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
			f(m)
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
	if !ok {
		return change.Object{}, false
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

// Temporary tells whether an object is a temporary (privacy) address, which the kernel
// makes itself and takes from nobody.
func Temporary(o change.Object) bool {
	return o.Kind == change.AddressObj && len(o.Message) >= unix.SizeofIfAddrmsg && flags(attributes(o.Message[unix.SizeofIfAddrmsg:]))&unix.IFA_F_TEMPORARY != 0
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
	if m[10]&unix.NTF_PROXY == 0 && binary.NativeEndian.Uint16(m[8:])&unix.NUD_PERMANENT == 0 {
		return change.Object{}, false
	}
	return namedNeighbour(m, covered)
}

// namedNeighbour is neighbourOf for one in any state.
func namedNeighbour(m []byte, covered map[uint32]string) (change.Object, bool) {
	if len(m) < unix.SizeofNdMsg || m[0] != unix.AF_INET6 {
		return change.Object{}, false
	}
	name, ok := covered[binary.NativeEndian.Uint32(m[4:])]
	a := attributes(m[unix.SizeofNdMsg:])
	addr, _ := netip.AddrFromSlice(a[unix.NDA_DST])
	o := change.Object{Kind: change.Neighbour, Target: name + " " + addr.String(), Interface: name, Message: m}
	if m[10]&unix.NTF_PROXY != 0 {
		o.Target += " proxy"
		o.Attributes = []string{"proxy"}
	} else {
		o.Attributes = []string{"lladdr", net.HardwareAddr(a[unix.NDA_LLADDR]).String(), "nud", "permanent"}
	}
	return o, ok
}

const rtmFCloned = 0x200 // RTM_F_CLONED: a cached exception, not a route

// routesOf reads the IPv6 routes that hang on the interfaces; raDefault, only the
// default routes that an advertisement made; whole, with what a restoration needs.
func routesOf(covered map[uint32]string, raDefault, whole bool) ([]change.Object, error) {
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
	if !whole {
		return out, nil
	}
	places := map[string][]int{}
	for i := range out {
		if p, _, ok := place(out[i].Message); ok {
			places[p] = append(places[p], i)
		}
	}
	for _, m := range ms {
		if len(places) == 0 {
			break
		}
		p, legs, ok := place(m.Data)
		for _, i := range places[p] {
			_, own, _ := place(out[i].Message)
			for _, leg := range legs {
				if ok && !slices.Contains(own, leg) {
					out[i].Attributes = append(out[i].Attributes, beside+leg)
				}
			}
		}
	}
	advertised(out)
	return out, nil
}

// Attributes of a route that is saved: another route to the same place, and the flags by
// which the kernel knows a route that an advertisement made.
const (
	beside  = "beside "
	flagged = "flags "
)

// place is what a route leads to and how dear it is: of two routes that share it the
// kernel takes one for a replacement of the other. legs tell them apart. What the kernel
// makes itself takes nobody's place.
func place(m []byte) (where string, legs []string, ok bool) {
	if len(m) < unix.SizeofRtMsg || m[0] != unix.AF_INET6 || m[5] == unix.RTPROT_KERNEL || binary.NativeEndian.Uint32(m[8:])&rtmFCloned != 0 {
		return "", nil, false
	}
	a := attributes(m[unix.SizeofRtMsg:])
	where = fmt.Sprintf("%x/%d %x %x", a[unix.RTA_DST], m[1], a[unix.RTA_TABLE], a[unix.RTA_PRIORITY])
	hops := a[unix.RTA_MULTIPATH]
	if hops == nil {
		return where, []string{fmt.Sprintf("%d %x %x", m[7], a[unix.RTA_GATEWAY], a[unix.RTA_OIF])}, true
	}
	eachHop(hops, func(h []byte) {
		legs = append(legs, fmt.Sprintf("%d %x %x", m[7], attributes(h[8:])[unix.RTA_GATEWAY], h[4:8]))
	})
	return where, legs, true
}

// eachHop calls f for every rtnexthop of a RTA_MULTIPATH.
func eachHop(hops []byte, f func(h []byte)) {
	for len(hops) >= 8 {
		n := int(binary.NativeEndian.Uint16(hops))
		if n < 8 || n > len(hops) {
			return
		}
		f(hops[:n])
		hops = hops[min((n+3)&^3, len(hops)):]
	}
}

const (
	rtfDefault   = 0x10000
	rtfAddrconf  = 0x40000
	rtfRouteInfo = 0x800000
	rtfCache     = 0x1000000
)

// advertised marks the routes that the kernel made of an advertisement, by the flags
// that rtnetlink does not tell.
func advertised(rs []change.Object) {
	maybe := func(o change.Object) bool {
		return (o.Message[5] == unix.RTPROT_RA || o.Message[5] == unix.RTPROT_BOOT) && strings.Contains(o.Target, " via ")
	}
	if !slices.ContainsFunc(rs, maybe) {
		return
	}
	b, err := os.ReadFile("/proc/thread-self/net/ipv6_route")
	if err != nil {
		return
	}
	known := map[string]string{}
	for line := range strings.Lines(string(b)) {
		w := strings.Fields(line)
		if len(w) != 10 {
			continue
		}
		f, err := strconv.ParseUint(w[8], 16, 32)
		if err == nil && f&rtfAddrconf != 0 && f&(rtfDefault|rtfRouteInfo) != 0 && f&rtfCache == 0 {
			known[w[0]+" "+w[1]+" "+w[4]+" "+w[5]+" "+w[9]] = w[8]
		}
	}
	for i := range rs {
		a := attributes(rs[i].Message[unix.SizeofRtMsg:])
		dst, gateway, metric := make([]byte, 16), a[unix.RTA_GATEWAY], a[unix.RTA_PRIORITY]
		copy(dst, a[unix.RTA_DST])
		if !maybe(rs[i]) || len(metric) < 4 {
			continue
		}
		if f := known[fmt.Sprintf("%x %02x %x %08x %s", dst, rs[i].Message[1], gateway, binary.NativeEndian.Uint32(metric), rs[i].Interface)]; f != "" {
			rs[i].Attributes = append(rs[i].Attributes, flagged+f)
		}
	}
}

// routeOf is a route that goes when its interface is switched off. One of several next
// hops does not, as long as one of them is left; neither does one that leads through an
// object of next hops.
func routeOf(m []byte, covered map[uint32]string, raDefault bool) (change.Object, bool) {
	if len(m) < unix.SizeofRtMsg || m[0] != unix.AF_INET6 || binary.NativeEndian.Uint32(m[8:])&rtmFCloned != 0 {
		return change.Object{}, false
	}
	// The label is lost of one that an undo made again, see restoreAdvertised.
	if raDefault && (m[5] != unix.RTPROT_RA && m[5] != unix.RTPROT_BOOT || m[1] != 0) {
		return change.Object{}, false
	}
	a := attributes(m[unix.SizeofRtMsg:])
	if _, ok := a[rtaNHID]; ok {
		return change.Object{}, false
	}
	name, ok := "", false
	if oif := a[unix.RTA_OIF]; len(oif) >= 4 {
		name, ok = covered[binary.NativeEndian.Uint32(oif)]
	}
	left := false
	eachHop(a[unix.RTA_MULTIPATH], func(h []byte) {
		n, in := covered[binary.NativeEndian.Uint32(h[4:])]
		left = left || !in
		name, ok = n, in
	})
	if left {
		return change.Object{}, false
	}
	o := change.Object{Kind: change.RouteObj, Target: routeText(m, a, name), Interface: name, Message: m}
	if c := a[unix.RTA_CACHEINFO]; len(c) >= 12 {
		if ticks := int32(binary.NativeEndian.Uint32(c[8:])); ticks != 0 {
			o.ValidLifetime = uint32(max(ticks/100, 1)) // USER_HZ
		}
	}
	return o, ok
}

const rtaNHID = 30

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
	if o.ValidLifetime != 0 && o.ValidLifetime <= elapsed || Temporary(o) {
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
		err = restoreNeighbour(o, body)
	case change.RouteObj:
		err = restoreRoute(o, i, elapsed)
	default:
		return fmt.Errorf("restore %s: a %s cannot be restored", o.Target, o.Kind)
	}
	switch {
	case errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.EACCES), o.Kind == change.RouteObj && (errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EINVAL)):
		// IPv6 is off there, or its gateway or its source address is gone. We had made it
		// again if that were our doing.
		return &LostError{Target: o.Target, Cause: err}
	case err != nil:
		return fmt.Errorf("restore %s: %w", o.Target, err)
	}
	return nil
}

// LostError says that an object cannot be made again, because somebody else took away
// what it hangs on.
type LostError struct {
	Target string
	Cause  error
}

// Error implements error.
func (e *LostError) Error() string {
	return fmt.Sprintf("%s cannot be made again: somebody else took away what it hangs on (%v)", e.Target, e.Cause)
}

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Cause }

// Elsewhere tells whether the interface of an object that was read in this boot is
// another one now, which has the same name.
func Elsewhere(o change.Object) bool {
	i, err := index(o.Interface)
	if err != nil {
		return false // gone: Restore says so
	}
	was := i
	switch {
	case o.Kind == change.AddressObj && len(o.Message) >= unix.SizeofIfAddrmsg, o.Kind == change.Neighbour && len(o.Message) >= unix.SizeofNdMsg:
		was = binary.NativeEndian.Uint32(o.Message[4:])
	case o.Kind == change.RouteObj && len(o.Message) >= unix.SizeofRtMsg:
		if oif := attributes(o.Message[unix.SizeofRtMsg:])[unix.RTA_OIF]; len(oif) >= 4 {
			was = binary.NativeEndian.Uint32(oif)
		}
	}
	return was != i
}

func restoreNeighbour(o change.Object, body []byte) error {
	_, err := rtnl(unix.RTM_NEWNEIGH, netlink.Acknowledge|netlink.Create|netlink.Excl, body)
	if !errors.Is(err, unix.EEXIST) || body[10]&unix.NTF_PROXY != 0 {
		return err
	}
	now, err := neighbourState(o.Target)
	if err != nil {
		return err
	}
	want := "permanent " + net.HardwareAddr(attributes(o.Message[unix.SizeofNdMsg:])[unix.NDA_LLADDR]).String()
	switch now {
	case want:
		return nil
	case Absent: // one that the kernel learned
		_, err := rtnl(unix.RTM_NEWNEIGH, netlink.Acknowledge|netlink.Create|netlink.Replace, body)
		return err
	}
	return &ConflictError{Target: "neighbour " + o.Target, Now: now}
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
		rs, err := routesOf(map[uint32]string{i: "-"}, false, false)
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
	for _, x := range o.Attributes {
		if f, ok := strings.CutPrefix(x, flagged); ok {
			if add, err := room(o); !add || err != nil {
				return err
			}
			return restoreAdvertised(o, i, elapsed, f)
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
	_, err := rtnl(unix.RTM_NEWROUTE, netlink.Acknowledge|netlink.Create|netlink.Excl, b)
	if errors.Is(err, unix.EEXIST) {
		add, err := room(o)
		if !add || err != nil {
			return err
		}
		_, err = rtnl(unix.RTM_NEWROUTE, netlink.Acknowledge|netlink.Create|netlink.Append, b)
		return err
	}
	return err
}

// room tells whether a route is missing. Another one to the same place that was not beside
// it then is somebody's replacement, and is kept.
func room(o change.Object) (bool, error) {
	where, own, ok := place(o.Message)
	if !ok {
		return false, nil
	}
	missing := slices.Clone(own)
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = unix.AF_INET6
	ms, err := rtnl(unix.RTM_GETROUTE, netlink.Dump, body)
	if err != nil {
		return false, fmt.Errorf("read routes: %w", err)
	}
	theirs := false
	for _, m := range ms {
		w, legs, ok := place(m.Data)
		if !ok || w != where {
			continue
		}
		for _, l := range legs {
			missing = slices.DeleteFunc(missing, func(x string) bool { return x == l })
			theirs = theirs || !slices.Contains(own, l) && !slices.Contains(o.Attributes, beside+l)
		}
	}
	if len(missing) == 0 {
		return false, nil
	}
	if theirs {
		return false, &ConflictError{Target: "route " + o.Target, Now: "another route to the same place"}
	}
	return true, nil
}

// restoreAdvertised makes a route of an advertisement again, by the old ioctl: only that
// can set the flags by which the kernel finds it when the next advertisement comes. It
// takes a route without them, to the same place, for a failure, and reads that
// advertisement no further: the host would lose its addresses when their time is up, and
// never hear the router take itself back (seen; net/ipv6/ndisc.c). What the ioctl cannot
// set is the label "proto ra".
func restoreAdvertised(o change.Object, i, elapsed uint32, flags string) error {
	f, err := strconv.ParseUint(flags, 16, 32)
	if err != nil {
		return fmt.Errorf("flags %q: %w", flags, err)
	}
	a := attributes(o.Message[unix.SizeofRtMsg:])
	var m struct { // struct in6_rtmsg
		dst, src, gateway [16]byte
		typ               uint32
		dstLen, srcLen    uint16
		metric            uint32
		info              uint64
		flags             uint32
		ifindex           int32
	}
	copy(m.dst[:], a[unix.RTA_DST])
	copy(m.gateway[:], a[unix.RTA_GATEWAY])
	m.dstLen, m.metric, m.flags, m.ifindex = uint16(o.Message[1]), binary.NativeEndian.Uint32(a[unix.RTA_PRIORITY]), uint32(f), int32(i)
	if o.ValidLifetime != 0 {
		m.info = uint64(o.ValidLifetime-elapsed) * 100 // USER_HZ
	}
	s, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(s)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCADDRT, uintptr(unsafe.Pointer(&m))); e != 0 {
		return e
	}
	return nil
}

// hasRoute tells whether a route of the kernel's own is there.
func hasRoute(o change.Object, i uint32) (bool, error) {
	rs, err := routesOf(map[uint32]string{i: o.Interface}, false, false)
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
