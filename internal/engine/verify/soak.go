package verify

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	hostprobe "github.com/sixfence/sixfence/internal/host/probe"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// openSoak opens what the soak of an address needs, when there is to be one.
func (r *Run) openSoak(p *hostprobe.Prober) error {
	var k *hostprobe.Soaker
	if r.o.Soak > 0 {
		var err error
		if k, p.Found.Soak, err = p.Soak(r.o.Soak); err != nil {
			return fmt.Errorf("soak %s: %w", p.Found.Addr, err)
		}
	}
	r.soaks = append(r.soaks, k)
	return nil
}

// soak lets all addresses soak, beside whatever else is asked of them. The function that it
// returns waits for the end.
func (r *Run) soak(ctx context.Context) func() error {
	var all sync.WaitGroup
	errs := make([]error, len(r.soaks))
	found := make([]*probe.Soak, len(r.soaks))
	for i, k := range r.soaks {
		if k == nil {
			continue
		}
		all.Go(func() {
			when := time.Now()
			var err error
			found[i], err = k.Run(ctx, func(left time.Duration) {
				if r.o.Soaking != nil {
					r.mu.Lock()
					r.o.Soaking(left)
					r.mu.Unlock()
				}
				if time.Since(when) > soakedEvery {
					when = time.Now()
					r.soaked(i, k.Saved(when))
				}
			})
			if err != nil && !errors.Is(err, context.Canceled) {
				errs[i] = fmt.Errorf("soak %s: %w", r.probers[i].Found.Addr, err)
			}
			if ctx.Err() != nil {
				r.soaked(i, k.Saved(time.Now()))
			} else {
				r.soaked(i, nil) // it is over: the next one begins anew
			}
		})
	}
	return func() error {
		all.Wait()
		for i, f := range found {
			if f != nil {
				r.probers[i].Found.Soak = f
			}
		}
		return errors.Join(errs...)
	}
}

// soakedEvery is how much of a soak an interruption without warning may cost.
const soakedEvery = 5 * time.Second

// soaked says how far a soak is.
func (r *Run) soaked(i int, s *probe.SavedSoak) {
	if r.o.Soaked != nil {
		r.o.Soaked(r.probers[i].Found, s)
	}
}
