package mutate

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/change"
)

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
