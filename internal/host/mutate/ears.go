package mutate

import (
	"sync"
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
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: 0x400}) // RTMGRP_IPV6_ROUTE
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

// own are the ports of this process's requests.
var own sync.Map

// Heard are the places of which something was heard since the last call.
func (e *Ears) Heard() []string {
	if e == nil {
		return nil
	}
	var out []string
	hear(e.c, func(m syscall.NetlinkMessage) {
		if m.Header.Type != unix.RTM_NEWROUTE || m.Header.Pid == 0 {
			return
		}
		if _, ours := own.Load(m.Header.Pid); ours {
			return
		}
		if p, _, ok := place(m.Data); ok {
			out = append(out, p)
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

// Place is where a route leads, as Heard says it; empty of what is no route.
func Place(o change.Object) string {
	if o.Kind != change.RouteObj {
		return ""
	}
	p, _, _ := place(o.Message)
	return p
}
