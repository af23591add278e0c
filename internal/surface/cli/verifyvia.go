package cli

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/engine/vantage"
	"github.com/sixfence/sixfence/internal/engine/verify"
	"github.com/sixfence/sixfence/internal/logic/expect"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// vantageCommand is the far end of verify --via.
func (a *app) vantageCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "vantage [DIR]",
		Short:  "Look at what verify --via asks for, and remove the copy of this program in DIR",
		Hidden: true,
		Args:   cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				if err := vantage.Remove(args[0]); err != nil {
					return err
				}
			}
			return outputError(vantage.Serve(a.stdin, a.stdout, func(raw bool) { a.seal(sealing{network: !raw}) }))
		},
	}
}

// maxVia is how many hosts may look at once.
const maxVia = 16

// viaPlaces reads --via. Without it, this host looks.
func viaPlaces(via []string) (places []vantage.Place, here bool, err error) {
	for _, v := range via {
		if v == "here" {
			here = true
			continue
		}
		p, err := vantage.ParsePlace(v)
		if err != nil {
			return nil, false, err
		}
		if slices.Contains(places, p) {
			return nil, false, &usageError{msg: "--via names " + p.String() + " twice", hint: "drop one of the two"}
		}
		places = append(places, p)
	}
	if len(places) > maxVia {
		return nil, false, &usageError{msg: "more than 16 hosts are to look", hint: "let them look in several runs"}
	}
	return places, here || len(places) == 0, nil
}

// vias are the hosts that look for us.
type vias struct {
	program  *vantage.Program
	sessions []*vantage.Session
}

func openVia(places []vantage.Place, program string) (*vias, error) {
	v := &vias{}
	if len(places) == 0 {
		return v, nil
	}
	var err error
	if v.program, err = vantage.OpenProgram(program); err != nil {
		return nil, err
	}
	for _, p := range places {
		s, err := vantage.Open(p, v.program)
		if err != nil {
			v.close()
			return nil, err
		}
		v.sessions = append(v.sessions, s)
	}
	return v, nil
}

func (v *vias) close() {
	var all sync.WaitGroup
	for _, s := range v.sessions {
		all.Go(s.Close)
	}
	all.Wait()
	if v.program != nil {
		v.program.Close()
	}
}

// answer is what one host says, or why it says nothing.
type answer struct {
	via string
	as  []*probe.Address
	raw bool // bare packets were sent
	// connect: they were not to be.
	connect bool
	err     error
}

// ask lets all look at the same time; the function that it returns waits for them.
func (v *vias) ask(ctx context.Context, targets []verify.Target, spec *probe.Spec, variants []probe.Variant, together bool, o verifyOptions, progress func(sent, left int)) func() []answer {
	if len(v.sessions) == 0 {
		return func() []answer { return nil }
	}
	var addrs []netip.Addr
	var names []string
	for _, t := range targets {
		for _, a := range t.Addrs {
			addrs, names = append(addrs, a), append(names, t.Name)
		}
	}
	e := probe.NewErrand(addrs, spec, variants)
	e.Connect, e.Rate, e.Patience = o.connect, o.rate, o.patience
	e.Together = together || len(targets) == 1
	out := make([]answer, len(v.sessions))
	var all sync.WaitGroup
	var mu sync.Mutex
	sent, left := make([]int, len(out)), make([]int, len(out))
	for i, s := range v.sessions {
		all.Go(func() {
			as, raw, err := s.Ask(ctx, e, func(n, l int) {
				if progress == nil {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				sent[i], left[i] = n, l
				n, l = 0, 0
				for k := range sent {
					n, l = n+sent[k], l+left[k]
				}
				progress(n, l)
			})
			out[i] = answer{via: s.Place.String(), as: as, raw: raw, connect: o.connect, err: err}
			for k, x := range as {
				x.Target, x.Via = names[k], out[i].via
			}
		})
	}
	return func() []answer { all.Wait(); return out }
}

// claims takes the answers of the other hosts; those without one are named.
func (a *app) claims(answers []answer, j *expect.Judge) (errs []error) {
	for _, x := range answers {
		if x.err != nil {
			errs = append(errs, x.err)
			j.Lost = append(j.Lost, expect.Lost{Via: x.via, Why: x.err.Error()})
			continue
		}
		if !x.raw && !x.connect {
			a.log.Info("another host connects instead of sending bare packets", "via", x.via)
		}
		j.Addresses = append(j.Addresses, x.as...)
	}
	return errs
}
