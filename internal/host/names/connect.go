package names

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	model "github.com/sixfence/sixfence/internal/model/probe"
)

// connectTime is how long a connection may take: less than a client waits, more than any
// that works needs, and more than the kernel asks for a neighbour.
const connectTime = 4 * time.Second

// Connect connects to a port a few times, sends nothing, and says how long it took. A
// silent address is asked once.
func Connect(ctx context.Context, a netip.Addr, port uint16) model.Attempt {
	out := model.Attempt{Address: a, State: model.Errored}
	var took []float64
	for range 1 + repeats {
		begin := time.Now()
		dctx, stop := context.WithTimeout(ctx, connectTime)
		c, err := (&net.Dialer{KeepAlive: -1}).DialContext(dctx, "tcp", netip.AddrPortFrom(a, port).String())
		stop()
		d := float64(time.Since(begin).Microseconds()) / 1000
		switch {
		case err == nil:
			if t, ok := c.(*net.TCPConn); ok {
				_ = t.SetLinger(0) // nothing of it is to stay, here or there
			}
			_ = c.Close()
			if out.State != model.Open {
				out.State, took = model.Open, nil
			}
			took = append(took, d)
			continue
		case timedOut(err):
			if out.State == model.Errored {
				out.State = model.Filtered
			}
		case out.State == model.Open:
		case errors.Is(err, unix.ECONNREFUSED):
			out.State = model.Closed
			took = append(took, d)
		case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENETDOWN):
			out.State = model.Unreachable
			took = append(took, d)
		}
		if ctx.Err() != nil || out.State == model.Filtered || out.State == model.Unreachable {
			break
		}
	}
	if len(took) > 0 {
		out.Milliseconds = median(took)
	}
	return out
}

// Source is the address that the kernel takes for packets to an address; without a way
// there, there is none.
func Source(a netip.Addr) netip.Addr {
	c, err := net.Dial("udp", netip.AddrPortFrom(a, 9).String()) // sends nothing
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	u, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}
	}
	return u.AddrPort().Addr().Unmap()
}
