package arena

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/logic/ndisc"
)

// Trial is frames that belong together, and what is looked at when they were handled.
type Trial struct {
	ID     uint32 // the flow label of the frames
	Frames [][]byte
	// Neighbours are entries of the host that are written before.
	Neighbours []Neighbour
	// Look are addresses of which is asked where the host sends to.
	Look []netip.Addr
}

// Outcome is what came of a Trial.
type Outcome struct {
	// Through: it came through every rule, to whoever listens.
	Through       bool
	Before, After State
	// Options of advertisements that the kernel handed on to programs, by type: 25 is DNS
	// servers.
	Options []byte
}

// State is what messages of neighbour discovery may change.
type State struct {
	Addresses  []Address
	Routes     []Route // of IPv6, those of the main table
	Neighbours []Neighbour
	Ways       []Way // to Trial.Look
	Settings   []Setting
}

// volley are trials at one interface.
type volley struct {
	Wire, Link string
	Trials     []Trial
}

// Try fires at an interface, one trial after the other, and says what each has changed.
// wire is the interface, or a port of it where it is a bridge.
func (a *Arena) Try(ctx context.Context, wire, link string, list []Trial) ([]Outcome, error) {
	r, err := a.call(ctx, request{Try: &volley{wire, link, list}})
	return r.Outcomes, err
}

// tryWait bounds how long one trial may take.
const tryWait = 3 * time.Second

func (h *helper) try(v *volley) ([]Outcome, error) {
	w := h.wires[v.Wire]
	if w == nil {
		return nil, fmt.Errorf("fire at %s: no such interface", v.Wire)
	}
	if err := h.watch(); err != nil {
		return nil, err
	}
	opts, err := openOptions()
	if err != nil {
		return nil, err
	}
	defer unix.Close(opts)
	last := w.last()
	var out []Outcome
	for n, t := range v.Trials {
		for _, x := range t.Neighbours {
			if err := h.neighbour(x); err != nil {
				return nil, fmt.Errorf("write neighbour %s of %s: %w", x.Address, x.Link, err)
			}
		}
		var o Outcome
		var err error
		if o.Before, err = h.state(v.Link, t.Look); err != nil {
			return nil, err
		}
		_ = options(opts) // those of before
		deadline := time.Now().Add(tryWait)
		if err := h.there(func() error {
			for _, b := range append(append([][]byte{}, t.Frames...), last) {
				if err := w.send(b, deadline); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return nil, err
		}
		if err := arrived(uint64(n+1), v.Wire, deadline); err != nil {
			return nil, err
		}
		if o.After, err = h.state(v.Link, t.Look); err != nil {
			return nil, err
		}
		o.Options = options(opts)
		out = append(out, o)
	}
	through, err := labels()
	if err != nil {
		return nil, err
	}
	for n := range out {
		for _, x := range through {
			out[n].Through = out[n].Through || x == v.Trials[n].ID&0xfffff
		}
	}
	return out, nil
}

// Of RTNLGRP_ND_USEROPT (linux/rtnetlink.h), which golang.org/x/sys does not name.
const (
	groupUserOpt = 20
	newUserOpt   = 68
	sizeUserOpt  = 16 // struct nduseroptmsg
)

// openOptions listens to what the kernel hands on of advertisements that it took.
func openOptions() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, fmt.Errorf("open rtnetlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (groupUserOpt - 1)}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen to options of advertisements: %w", err)
	}
	return fd, nil
}

// options are the types of those that have come.
func options(fd int) (out []byte) {
	buf := make([]byte, 16<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return out
		}
		if b := buf[:n]; n > unix.SizeofNlMsghdr+sizeUserOpt && binary.NativeEndian.Uint16(b[4:]) == newUserOpt {
			out = append(out, b[unix.SizeofNlMsghdr+sizeUserOpt])
		}
	}
}

// last is the frame that comes after all others.
func (w *wire) last() []byte {
	return ndisc.Frame4{SrcMAC: w.from, DstMAC: w.mac, Src: netip.AddrFrom4([4]byte{192, 0, 2, 254}), Dst: netip.AddrFrom4([4]byte{192, 0, 2, 253}), ID: 65535}.Raw(253, []byte("last")).Bytes()
}

// arrived waits until so many of the last have come.
func arrived(want uint64, link string, deadline time.Time) error {
	for {
		n, err := counted("last")
		if err != nil {
			return err
		}
		if n >= want {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nothing of what was sent to %s arrived: something drops every frame before it is seen", link)
		}
		time.Sleep(time.Millisecond)
	}
}

// labels are the flow labels that came through.
func labels() (out []uint32, err error) {
	keys, err := elements(witnessTable, "six")
	for _, k := range keys {
		v := uint32(0)
		for _, b := range k {
			v = v<<8 | uint32(b)
		}
		out = append(out, v&0xfffff)
	}
	return out, err
}

// told are the settings that an advertisement changes.
func told(link string) []string {
	return []string{
		"net/ipv6/conf/" + link + "/mtu", "net/ipv6/conf/" + link + "/hop_limit",
		"net/ipv6/neigh/" + link + "/base_reachable_time_ms", "net/ipv6/neigh/" + link + "/retrans_time_ms",
	}
}

func (h *helper) state(link string, look []netip.Addr) (s State, err error) {
	if s.Addresses, err = h.addresses(); err != nil {
		return s, err
	}
	if s.Routes, err = h.routes(); err != nil {
		return s, err
	}
	if s.Neighbours, err = h.neighbours(); err != nil {
		return s, err
	}
	if s.Ways, err = h.lookup(look); err != nil {
		return s, err
	}
	for _, k := range told(link) {
		if v, err := h.read(k); err == nil {
			s.Settings = append(s.Settings, Setting{k, v})
		}
	}
	return s, nil
}

// routes are those of IPv6 in the main table.
func (h *helper) routes() (out []Route, err error) {
	b := make([]byte, unix.SizeofRtMsg)
	b[0] = unix.AF_INET6
	ms, err := rtnl(unix.RTM_GETROUTE, netlink.Dump, b)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, m := range ms {
		if len(m.Data) < unix.SizeofRtMsg || m.Data[4] != rtTableMain || m.Data[7] != unix.RTN_UNICAST {
			continue
		}
		list := nested(m.Data[unix.SizeofRtMsg:])
		r := Route{Link: h.names[native(value(list, unix.RTA_OIF))], Metric: native(value(list, unix.RTA_PRIORITY))}
		dst, ok := netip.AddrFromSlice(value(list, unix.RTA_DST))
		if !ok {
			dst = netip.IPv6Unspecified()
		}
		r.Dst = netip.PrefixFrom(dst, int(m.Data[1]))
		r.Via, _ = netip.AddrFromSlice(value(list, unix.RTA_GATEWAY))
		out = append(out, r)
	}
	return out, nil
}

// neighbours are those of IPv6 that have a MAC address.
func (h *helper) neighbours() (out []Neighbour, err error) {
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = unix.AF_INET6
	ms, err := rtnl(unix.RTM_GETNEIGH, netlink.Dump, b)
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	for _, m := range ms {
		if len(m.Data) < unix.SizeofNdMsg {
			continue
		}
		list := nested(m.Data[unix.SizeofNdMsg:])
		a, ok := netip.AddrFromSlice(value(list, unix.NDA_DST))
		mac := value(list, unix.NDA_LLADDR)
		if !ok || len(mac) != 6 || a.IsMulticast() {
			continue
		}
		out = append(out, Neighbour{Link: h.names[binary.NativeEndian.Uint32(m.Data[4:])], Address: a, MAC: [6]byte(mac), State: binary.NativeEndian.Uint16(m.Data[8:])})
	}
	return out, nil
}

func native(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}
