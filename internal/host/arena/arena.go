// Package arena is a host that is no host: network namespaces with interfaces, addresses,
// routes, settings and rules as they are somewhere else, and a wire at every interface
// through which frames come in. It is where planned rules are shot at before they are
// loaded where it matters.
//
// Nothing of it is in the caller's namespaces. The program starts itself anew as a helper
// (see helper.go) in user, network, mount, PID, IPC and UTS namespaces of its own, as
// nobody where root starts it; the helper makes a second network namespace for the far
// ends of the wires. No namespace has a name, no interface has an end outside, and all of
// it is gone when the helper ends: when its input closes, which the kernel does for a
// caller that was killed, or when its time is up.
//
// It judges nothing: it says what came through.
package arena

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/sixfence/sixfence/internal/host/run"
	"github.com/sixfence/sixfence/internal/host/scratch"
)

// maxLife bounds the life of a helper, whatever its caller does.
const maxLife = 60 * time.Second

// Bounds of what a caller may ask for.
const (
	MaxLinks  = 64
	maxFrames = 200_000
)

// Link is an interface of the host, with a wire.
type Link struct {
	Name  string
	Index uint32 // 0: any
	MAC   [6]byte
	MTU   uint32 // 0: the default
	// Bridge makes it a bridge; the wire is at its first port, a guest's at its second.
	Bridge bool
	// Ports of a bridge, each with a wire of its own name; the first is that of the bridge,
	// and it has no guest. None: one port of our own.
	Ports []Port
	// Plain makes it one that has packets and no frames, as tunnels are (a tun device). The
	// Ethernet header of what is fired at it is taken off.
	Plain     bool
	Addresses []netip.Prefix
}

// Port is an interface in a bridge.
type Port struct {
	Name  string
	Index uint32 // 0: any
	MAC   [6]byte
}

// Route is a unicast route.
type Route struct {
	Dst    netip.Prefix
	Via    netip.Addr // invalid: on the link
	Link   string
	Metric uint32
}

// Neighbour is an entry of the table of neighbours.
type Neighbour struct {
	Link    string
	Address netip.Addr
	MAC     [6]byte
	State   uint16 // NUD_*; 0: permanent
}

// Setting is a sysctl, by its path below /proc/sys.
type Setting struct{ Path, Value string }

// Setup is a host.
type Setup struct {
	// Before are settings that are written before there is an interface but lo (those of
	// "all" and "default"), After those that need one. What this kernel does not have is
	// skipped.
	Before, After []Setting
	Links         []Link
	Routes        []Route
	Neighbours    []Neighbour
}

// Flow is a UDP flow that the host has begun.
type Flow struct{ Local, Remote netip.AddrPort }

// Packet is something that the host itself sends.
type Packet struct {
	Proto uint8 // 17 is a UDP datagram; any other is sent from a raw socket
	Dst   netip.AddrPort
	Body  []byte // after the IP header, for a raw socket
}

// Sent is what became of it: refused by the kernel or its rules, with the reason, or
// seen on the wire of an interface.
type Sent struct{ Refused, Link string }

// Way is where a packet for an address would go.
type Way struct {
	Type uint8 // RTN_*: 1 unicast, 2 local; 0: nowhere
	Via  netip.Addr
	Link string
}

// UnavailableError tells that no arena can be made here, whatever the rules say.
type UnavailableError struct{ Why, Hint string }

// Error implements error.
func (e *UnavailableError) Error() string { return e.Why }

// RulesError tells that the kernel, or nft, refused rules.
type RulesError struct{ Why string }

// Error implements error.
func (e *RulesError) Error() string { return e.Why }

// Arena is a running helper.
type Arena struct {
	p   *run.Apart
	out *gob.Decoder
	in  *gob.Encoder
}

// request is one question; one member is set.
type request struct {
	Setup   *Setup
	Set     []Setting
	Load    string
	Replay  []byte // a Foreign as JSON: its facts have no other form outside
	Fire    *fire
	Begin   *netip.AddrPort
	Send    []Packet
	Lookup  []netip.Addr
	Fill    string
	Unload  string
	Address bool
	Try     *volley
}

type fire struct {
	Link   string
	Frames [][]byte
	// Guest: they are for the guest of a bridge, or from it.
	Guest, From bool
}

// answer is what came of it.
type answer struct {
	Why         string // set: it failed
	Hint        string
	Unavailable bool // it is this system that does not let us
	Rules       bool // it is the rules that are refused
	Failed      []string
	Refused     []Refused
	Six         []uint32
	Four        []uint16
	Flow        Flow
	Sent        []Sent
	Ways        []Way
	Filled      int
	Addresses   []Address
	Outcomes    []Outcome
}

// Address is an address that the host has at the moment.
type Address struct {
	Link   string
	Prefix netip.Prefix
}

// Start makes an arena. It needs no right but to make user namespaces.
func Start() (*Arena, error) {
	nft := scratch.FindNFT()
	if nft == "" {
		return nil, &UnavailableError{"nft is not installed here, and only it reads the planned rules", "install the package nftables"}
	}
	p, err := self.Start(nft)
	if err != nil {
		return nil, unavailable(err)
	}
	a := &Arena{p: p, out: gob.NewDecoder(p.Out), in: gob.NewEncoder(p.In)}
	var hello answer
	if err := a.out.Decode(&hello); err != nil {
		why := strings.TrimSpace(p.Close())
		if why == "" {
			why = err.Error()
		}
		return nil, unavailable(errors.New(why))
	}
	if err := hello.err(); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

func unavailable(err error) error {
	hint := "user namespaces are forbidden here (a container, AppArmor, user.max_user_namespaces or kernel.unprivileged_userns_clone); allow them, or run as root"
	if os.Geteuid() == 0 {
		hint = "user namespaces are forbidden here (a container's seccomp filter, a chroot, or user.max_user_namespaces); allow them"
	}
	return &UnavailableError{"no scratch namespace could be made: " + err.Error(), hint}
}

// Close ends the arena. Nothing of it is left.
func (a *Arena) Close() {
	if a != nil && a.p != nil {
		_ = a.p.Close()
		a.p = nil
	}
}

func (a *answer) err() error {
	switch {
	case a.Why == "":
		return nil
	case a.Rules:
		return &RulesError{a.Why}
	case a.Unavailable:
		return &UnavailableError{a.Why, a.Hint}
	}
	return errors.New(a.Why)
}

// call asks the helper, and ends it when the caller's time is up.
func (a *Arena) call(ctx context.Context, r request) (answer, error) {
	if a.p == nil {
		return answer{}, errors.New("the arena is closed")
	}
	type result struct {
		a   answer
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r2 result
		if r2.err = a.in.Encode(r); r2.err == nil {
			r2.err = a.out.Decode(&r2.a)
		}
		done <- r2
	}()
	select {
	case r := <-done:
		if r.err != nil {
			said := strings.TrimSpace(a.p.Close())
			a.p = nil
			return r.a, fmt.Errorf("the arena ended: %w %s", r.err, said)
		}
		return r.a, r.a.err()
	case <-ctx.Done():
		a.Close()
		<-done
		return answer{}, ctx.Err()
	}
}

// Setup makes the host; once. It returns what of it could not be made.
func (a *Arena) Setup(ctx context.Context, s Setup) (failed []string, err error) {
	r, err := a.call(ctx, request{Setup: &s})
	return r.Failed, err
}

// Set writes settings in order, and returns those that do not hold afterwards.
func (a *Arena) Set(ctx context.Context, list []Setting) (failed []string, err error) {
	r, err := a.call(ctx, request{Set: list})
	return r.Failed, err
}

// Load loads an nft script, as one transaction.
func (a *Arena) Load(ctx context.Context, script string) error {
	_, err := a.call(ctx, request{Load: script})
	return err
}

// Replay loads rules that were read elsewhere on this kernel, each table by itself, and
// returns what is not loaded, with the reason.
func (a *Arena) Replay(ctx context.Context, f Foreign) ([]Refused, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("hand on the rules of others: %w", err)
	}
	r, err := a.call(ctx, request{Replay: b})
	return r.Refused, err
}

// Fire sends frames to an interface and returns the flow labels and IPv4 identifications
// of those that came through every rule, to the host itself or past it.
func (a *Arena) Fire(ctx context.Context, link string, frames [][]byte) (six []uint32, four []uint16, err error) {
	r, err := a.call(ctx, request{Fire: &fire{Link: link, Frames: frames}})
	return r.Six, r.Four, err
}

// Pass sends frames through a bridge, to its guest or from it, and returns the flow labels
// and IPv4 identifications of those that came out at the other side.
func (a *Arena) Pass(ctx context.Context, bridge string, from bool, frames [][]byte) (six []uint32, four []uint16, err error) {
	r, err := a.call(ctx, request{Fire: &fire{bridge, frames, true, from}})
	return r.Six, r.Four, err
}

// Begin begins a UDP flow and keeps it open.
func (a *Arena) Begin(ctx context.Context, to netip.AddrPort) (Flow, error) {
	r, err := a.call(ctx, request{Begin: &to})
	return r.Flow, err
}

// Send sends from the host.
func (a *Arena) Send(ctx context.Context, list []Packet) ([]Sent, error) {
	r, err := a.call(ctx, request{Send: list})
	return r.Sent, err
}

// Lookup asks where the host would send to.
func (a *Arena) Lookup(ctx context.Context, to ...netip.Addr) ([]Way, error) {
	r, err := a.call(ctx, request{Lookup: to})
	return r.Ways, err
}

// Addresses are those the host has now.
func (a *Arena) Addresses(ctx context.Context) ([]Address, error) {
	r, err := a.call(ctx, request{Address: true})
	return r.Addresses, err
}

// Fill fills every set of an inet table that packets may add to with made-up elements, to
// its last place, and returns how many sets that were.
func (a *Arena) Fill(ctx context.Context, table string) (int, error) {
	r, err := a.call(ctx, request{Fill: table})
	return r.Filled, err
}
