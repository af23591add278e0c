package cli

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"github.com/sixfence/sixfence/internal/engine/vantage"
	"github.com/sixfence/sixfence/internal/engine/verify"
	"github.com/sixfence/sixfence/internal/host/store"
	"github.com/sixfence/sixfence/internal/logic/expect"
	"github.com/sixfence/sixfence/internal/model/fact"
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
			return outputError(vantage.Serve(a.stdin, a.stdout, vantage.Far{
				Seal: func(raw bool) { a.seal(sealing{network: !raw}) },
				Snapshot: func() ([]byte, error) {
					snap, err := a.facts(source{elements: true}, nil, true)
					if err != nil {
						return nil, err
					}
					var b bytes.Buffer
					err = store.WriteSnapshot(&b, snap)
					return b.Bytes(), err
				},
			}))
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

// vias are the hosts that look for us, and the one that is asked for its Snapshot.
type vias struct {
	program  *vantage.Program
	sessions []*vantage.Session
	host     *vantage.Session
}

// openVia starts all connections. host is ssh://… where its Snapshot is to be fetched.
func openVia(places []vantage.Place, host *vantage.Place, program string) (_ *vias, err error) {
	v := &vias{}
	if len(places) == 0 && host == nil {
		return v, nil
	}
	defer func() {
		if err != nil {
			v.close()
		}
	}()
	if v.program, err = vantage.OpenProgram(program); err != nil {
		return nil, err
	}
	if host != nil {
		if v.host, err = vantage.Open(*host, v.program); err != nil {
			return nil, err
		}
	}
	for _, p := range places {
		s, err := vantage.Open(p, v.program)
		if err != nil {
			return nil, err
		}
		v.sessions = append(v.sessions, s)
	}
	return v, nil
}

// fetch reads the Snapshot of the target.
func (a *app) fetch(ctx context.Context, s *vantage.Session) (*fact.Snapshot, error) {
	b, err := s.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	s.Close() // the host is not to wait for the end of the run
	snap, err := store.ReadSnapshot(bytes.NewReader(b), "of "+s.Place.String(), 0)
	if err != nil {
		return nil, err
	}
	for i := range snap.Namespaces {
		n := &snap.Namespaces[i]
		if g, ok := n.PacketFilter.NFTables.Gap(); ok && g.Reason == fact.Permission && (n.IsSelf || n.IsInit) {
			a.log.Warn("the rules of "+s.Place.String()+" are not known: they may be read by root only", "remedy", "log in there as root: --snapshot "+vantage.Place{User: "root", Host: s.Place.Host, Port: s.Place.Port}.String())
			break
		}
	}
	return snap, nil
}

func (v *vias) close() {
	var all sync.WaitGroup
	for _, s := range append(v.sessions, v.host) {
		if s != nil {
			all.Go(s.Close)
		}
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
func (v *vias) ask(ctx context.Context, targets []verify.Target, e probe.Errand, keep *keeper, progress func(sent, left int)) func() []answer {
	if len(v.sessions) == 0 {
		return func() []answer { return nil }
	}
	names := map[netip.Addr]string{}
	for _, t := range targets {
		for _, a := range t.Addrs {
			names[a] = t.Name
		}
	}
	out := make([]answer, len(v.sessions))
	var all sync.WaitGroup
	var mu sync.Mutex
	sent, left := make([]int, len(out)), make([]int, len(out))
	for i, s := range v.sessions {
		e, via := e, s.Place.String()
		e.Known = keep.claimed(via, e.Addresses)
		all.Go(func() {
			var heard vantage.Heard
			if progress != nil {
				heard.Progress = func(n, l int) {
					mu.Lock()
					defer mu.Unlock()
					sent[i], left[i] = n, l
					n, l = 0, 0
					for k := range sent {
						n, l = n+sent[k], l+left[k]
					}
					progress(n, l)
				}
			}
			if keep != nil {
				heard.Part = func(as []*probe.Address) { keep.put(via, as, false) }
			}
			as, raw, err := s.Ask(ctx, e, heard)
			out[i] = answer{via: via, as: as, raw: raw, connect: e.Connect, err: err}
			for _, x := range as {
				x.Target, x.Via = names[x.Addr], via
			}
			keep.put(via, as, true)
		})
	}
	return func() []answer { all.Wait(); return out }
}

// claims takes the answers of the other hosts. Those whose line was cut are named, and what
// they had said by then is taken for what it is.
func (a *app) claims(answers []answer, j *expect.Judge) (errs []error) {
	for _, x := range answers {
		if x.err != nil {
			errs = append(errs, x.err)
			j.Lost = append(j.Lost, expect.Lost{Via: x.via, Why: x.err.Error(), Partly: len(x.as) > 0})
		}
		if !x.raw && !x.connect && len(x.as) > 0 {
			a.log.Info("another host connects instead of sending bare packets", "via", x.via)
		}
		j.Addresses = append(j.Addresses, x.as...)
	}
	return errs
}
