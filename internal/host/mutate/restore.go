package mutate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/change"
)

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
	case errors.Is(err, unix.EACCES), o.Kind == change.RouteObj && (errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENETDOWN)):
		// IPv6 is off there, the interface is down, or its gateway or its source address is gone.
		// We had made it again if that were our doing.
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
		case unix.RTA_METRICS, unix.RTA_ENCAP:
			b = attr(b, t|unix.NLA_F_NESTED, v)
		case unix.RTA_MULTIPATH:
			b = attr(b, t|unix.NLA_F_NESTED, hops(v))
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

// hops are the next hops of a route, without what the kernel says of their state.
func hops(v []byte) []byte {
	out := slices.Clone(v)
	eachHop(out, func(h []byte) { h[2] &= unix.RTNH_F_ONLINK | unix.RTNH_F_PERVASIVE })
	return out
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
