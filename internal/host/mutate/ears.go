package mutate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/change"
)

// Ears hear to which places somebody else leads a route. Whoever does so while a route of
// theirs is destroyed, and takes it back later, must not find the former one there again.
type Ears struct {
	c *netlink.Conn
}

// Listen begins to listen; it returns nil where nothing can be heard.
func Listen() *Ears {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: 0x100 | 0x400}) // RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE
	if err != nil {
		return nil
	}
	_ = c.SetReadBuffer(4 << 20)
	return &Ears{c: c}
}

// Close ends the listening.
func (e *Ears) Close() {
	if e != nil {
		_ = e.c.Close()
	}
}

// ourPorts mark the requests for routes that any process of ours makes: the kernel gives
// out none of them by itself.
const ourPorts = 0x5f000000

// dialRoutes opens a socket with such a port.
func dialRoutes() (*netlink.Conn, error) {
	for {
		c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{PID: ourPorts | rand.Uint32N(1<<24)})
		if !errors.Is(err, unix.EADDRINUSE) {
			return c, err
		}
	}
}

// Rumour is what was heard of a place: somebody led a route there, or the kernel took one
// away by itself, as it does for a switch of ours. Of addresses it is that one was taken
// away: by whom, the kernel does not say.
type Rumour struct {
	Place   string
	Taken   bool
	Address bool
}

// Heard is what was heard since the last call.
func (e *Ears) Heard() []Rumour {
	if e == nil {
		return nil
	}
	var out []Rumour
	hear(e.c, func(m syscall.NetlinkMessage) {
		if m.Header.Type == unix.RTM_DELADDR {
			out = append(out, Rumour{Place: Place(change.Object{Kind: change.AddressObj, Message: m.Data}), Address: true})
		}
		if m.Header.Type != unix.RTM_NEWROUTE && m.Header.Type != unix.RTM_DELROUTE {
			return
		}
		theirs := m.Header.Type == unix.RTM_NEWROUTE && m.Header.Pid != 0 && m.Header.Pid>>24 != ourPorts>>24
		taken := m.Header.Type == unix.RTM_DELROUTE && m.Header.Pid == 0
		if p, _, ok := place(m.Data); ok && (theirs || taken) {
			out = append(out, Rumour{Place: p, Taken: taken})
		}
	})
	return out
}

// Wait returns when something may be heard, at the latest after d.
func (e *Ears) Wait(d time.Duration) {
	if e == nil {
		time.Sleep(d)
		return
	}
	raw, err := e.c.SyscallConn()
	if err != nil {
		time.Sleep(d)
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(d.Milliseconds()))
	})
	if err != nil {
		time.Sleep(time.Millisecond) // a signal
	}
}

// Place is where a route leads, or where an address is, as Heard says it.
func Place(o change.Object) string {
	p := ""
	switch {
	case o.Kind == change.RouteObj:
		p, _, _ = place(o.Message)
	case o.Kind == change.AddressObj && len(o.Message) >= unix.SizeofIfAddrmsg:
		a := attributes(o.Message[unix.SizeofIfAddrmsg:])
		local := a[unix.IFA_LOCAL]
		if local == nil {
			local = a[unix.IFA_ADDRESS]
		}
		p = fmt.Sprintf("address %d %x/%d", binary.NativeEndian.Uint32(o.Message[4:]), local, o.Message[1])
	}
	return p
}
