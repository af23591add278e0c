// Package verify looks at targets from outside: it opens what the probes need, lets the
// caller give up its privileges, and then asks all addresses at once, each over its own
// family.
package verify

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	hostprobe "github.com/sixfence/sixfence/internal/host/probe"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// MaxAddresses bounds a run: it asks hosts, not networks.
const MaxAddresses = 64

// parallel is how many addresses are asked at the same time.
const parallel = 16

// Target is a host by the name that the user gave it, with all its addresses.
type Target struct {
	Name  string
	Addrs []netip.Addr
	// All are Addrs, and those that a target before it has as well.
	All []netip.Addr
}

// Options of a Run.
type Options struct {
	Targets  []Target
	Spec     *probe.Spec
	Variants []probe.Variant
	Connect  bool
	// Together: all targets are one host.
	Together bool
	Rate     int // packets a second for the whole run; 0: by the way to each address
	Patience time.Duration
	Path     bool // look at path-MTU discovery, too
	Chains   []probe.Variant
	Hops     *probe.Spec // trace the way to these ports; empty: choose some
	// Soak is how long it is watched whether neighbours still find the addresses; 0: it is not.
	Soak time.Duration
	// Look is given what is known of an address, every second or so; settled is when its ports
	// are known, and at its end. Several goroutines call it, but one for each address.
	Look func(a *probe.Address, settled bool)
	// Progress is told how many packets were sent, and about how many are still to be.
	Progress func(sent, left int)
	// Soaking is told how long the soak still takes.
	Soaking func(left time.Duration)
	// Soaked is given how far the soak of an address is, every few seconds; nil: it is over.
	Soaked func(a *probe.Address, s *probe.SavedSoak)
}

// Run is a look at targets that is ready to begin.
type Run struct {
	probers []*hostprobe.Prober
	soaks   []*hostprobe.Soaker // of each prober; nil: there is none
	o       Options
	mu      sync.Mutex
	sent    []int
	left    []int
	looked  []time.Time
}

// Open finds the ways and opens the sockets. Nothing is sent yet.
func Open(o Options) (*Run, error) {
	r := &Run{o: o}
	// One limit for those on a link, and a lower one for those behind a router.
	var limits [2]*hostprobe.Limiter
	for i, rate := range []int{hostprobe.RateOnLink, hostprobe.RateRouted} {
		limits[i] = hostprobe.NewLimiter(rate)
	}
	if o.Rate > 0 {
		limits[0] = hostprobe.NewLimiter(o.Rate)
		limits[1] = limits[0]
	}
	turns := &hostprobe.Turns{}
	for _, t := range o.Targets {
		if !o.Together {
			turns = &hostprobe.Turns{}
		}
		for _, a := range t.Addrs {
			i := len(r.probers)
			po := hostprobe.Options{
				Target: t.Name, Addr: a, Spec: o.Spec, Variants: o.Variants, Connect: o.Connect, Patience: o.Patience, Path: o.Path, Chains: o.Chains, Hops: o.Hops,
				OnLink: limits[0], Routed: limits[1], Turns: turns, Progress: func(sent, left int) { r.progress(i, sent, left) }, Settled: func() { r.look(i, true) },
			}
			p, err := hostprobe.Open(po)
			if err != nil {
				r.Close()
				return nil, fmt.Errorf("probe %s: %w", a, err)
			}
			r.probers = append(r.probers, p)
			if err := r.openSoak(p); err != nil {
				r.Close()
				return nil, err
			}
		}
	}
	n := len(r.probers)
	r.sent, r.left, r.looked = make([]int, n), make([]int, n), make([]time.Time, n)
	return r, nil
}

// lookEvery is how much work an interruption without warning may cost.
const lookEvery = time.Second

// progress is called by the goroutine that asks address i, and by no other.
func (r *Run) progress(i, sent, left int) {
	r.mu.Lock()
	r.sent[i], r.left[i] = sent, left
	s, l := 0, 0
	for i := range r.sent {
		s, l = s+r.sent[i], l+r.left[i]
	}
	if r.o.Progress != nil {
		r.o.Progress(s, l)
	}
	r.mu.Unlock()
	if time.Since(r.looked[i]) > lookEvery {
		r.look(i, false)
	}
}

// look hands over what is known of address i.
func (r *Run) look(i int, settled bool) {
	r.looked[i] = time.Now()
	if r.o.Look != nil {
		r.o.Look(r.probers[i].Found, settled)
	}
}

// Raw tells whether every address is asked with bare packets.
func (r *Run) Raw() bool {
	for _, p := range r.probers {
		if !p.Raw() && p.Found.Problem == "" {
			return false
		}
	}
	return true
}

// Know takes over what an earlier run found out from here: it is not asked again.
func (r *Run) Know(s *probe.Saved) error {
	for i, p := range r.probers {
		known, err := s.Of(p.Found.Addr, p.Found.Vantage.Source)
		if err != nil {
			return fmt.Errorf("read what is known about %s: %w", p.Found.Addr, err)
		}
		p.Know(known)
		if k := r.soaks[i]; k != nil {
			k.Know(s.SoakOf(p.Found.Addr, p.Found.Vantage.Source, time.Now()))
		}
	}
	return nil
}

// Do asks. What is known when ctx ends is in Found; that is no error.
func (r *Run) Do(ctx context.Context) error {
	for i, p := range r.probers { // what is asked is known by now
		r.left[i] = p.Due()
	}
	var all sync.WaitGroup
	soaked := r.soak(ctx)
	errs := make([]error, len(r.probers))
	room := make(chan struct{}, parallel)
	for i, p := range r.probers {
		all.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			if ctx.Err() != nil {
				return
			}
			defer r.look(i, true)
			if err := p.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				errs[i] = fmt.Errorf("probe %s: %w", p.Found.Addr, err)
			}
		})
	}
	all.Wait()
	return errors.Join(append(errs, soaked())...)
}

// Found is what is known about each address, in the order of the targets.
func (r *Run) Found() []*probe.Address {
	out := make([]*probe.Address, len(r.probers))
	for i, p := range r.probers {
		out[i] = p.Found
	}
	return out
}

// Close gives everything back.
func (r *Run) Close() {
	for _, p := range r.probers {
		p.Close()
	}
	for _, k := range r.soaks {
		if k != nil {
			k.Close()
		}
	}
}
