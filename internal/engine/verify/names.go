package verify

import (
	"context"
	"math"
	"net/netip"
	"slices"
	"sync"

	"github.com/sixfence/sixfence/internal/host/names"
	"github.com/sixfence/sixfence/internal/logic/eyeballs"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// LookUp asks the resolvers of this host about names; the function that it returns waits
// for the answers.
func LookUp(ctx context.Context, s *names.System, ns []string) func() []*probe.Name {
	out := make([]*probe.Name, len(ns))
	var all sync.WaitGroup
	for i, n := range ns {
		all.Go(func() { out[i] = s.Ask(ctx, n) })
	}
	return func() []*probe.Name { all.Wait(); return out }
}

// maxRaces bounds the ports of a name that are connected to.
const maxRaces = 8

// well are ports that people connect to by name: they are the first to be looked at.
var well = []uint16{443, 80, 22, 25, 993, 587}

// Classify notes the addresses of the answers, and of those that were found by other means,
// that not everybody can reach.
func Classify(n *probe.Name, found []netip.Addr) {
	all := slices.Clone(found)
	for _, l := range n.Lookups {
		all = append(all, l.Addresses...)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	for _, a := range slices.Compact(all) {
		class, unfit := probe.Special(a)
		if n.MadeByDNS64(a) {
			class = "DNS64"
		}
		if class != "" {
			n.Special = append(n.Special, probe.SpecialAddress{Address: a, Class: class, Unfit: unfit})
		}
	}
}

// Races connects to the addresses of a name, at ports that are open at one of them, and says
// how long clients take. Nothing is sent over a connection.
func Races(ctx context.Context, n *probe.Name, as []*probe.Address) {
	var ds []eyeballs.Destination
	for _, a := range as {
		ds = append(ds, eyeballs.Destination{Addr: a.Addr, Source: names.Source(a.Addr)})
	}
	eyeballs.Order(ds)
	for _, d := range ds {
		n.Order = append(n.Order, d.Addr)
	}
	if len(as) < 2 {
		return // there is no choice
	}
	for _, port := range open(as) {
		r := probe.Race{Proto: "tcp", Port: port, Attempts: make([]probe.Attempt, len(ds))}
		var all sync.WaitGroup
		for i, d := range ds {
			a := as[slices.IndexFunc(as, func(a *probe.Address) bool { return a.Addr == d.Addr })]
			r.Attempts[i] = probe.Attempt{Address: d.Addr, State: stateOf(a, port)}
			if s := r.Attempts[i].State; s == "" || s == probe.Errored || s == probe.Filtered {
				continue
			}
			all.Go(func() {
				if got := names.Connect(ctx, d.Addr, port); got.State != probe.Errored {
					if r.Attempts[i].State == probe.Rejected && got.State != probe.Open && got.State != probe.Filtered {
						got.State = probe.Rejected
					}
					r.Attempts[i] = got
				}
			})
		}
		all.Wait()
		if ctx.Err() != nil {
			return
		}
		eyeballs.Race(&r, waits(n))
		if r.Winner.IsValid() && !math.IsInf(r.Plain, 1) {
			n.Races = append(n.Races, r)
		}
	}
}

// open are ports of TCP that are open at one of the addresses.
func open(as []*probe.Address) (out []uint16) {
	var all probe.Ports
	for _, a := range as {
		for _, t := range a.Tables {
			if t.Proto != "tcp" || t.Variant != probe.Plain {
				continue
			}
			for p := range t.Want.All {
				if t.At(p).State == probe.Open {
					all.Add(p)
				}
			}
		}
	}
	for _, p := range well {
		if all.Has(p) {
			out = append(out, p)
			all.Del(p)
		}
	}
	for p := range all.All {
		if len(out) == maxRaces {
			break
		}
		out = append(out, p)
	}
	return out
}

func stateOf(a *probe.Address, port uint16) probe.State {
	for _, t := range a.Tables {
		if t.Proto == "tcp" && t.Variant == probe.Plain {
			return t.At(port).State
		}
	}
	return ""
}

// waits is how long the first resolver that answers takes for each family.
func waits(n *probe.Name) eyeballs.Lookup {
	out := eyeballs.Lookup{}
	var server netip.AddrPort
	for _, l := range n.Lookups {
		if !server.IsValid() && l.Outcome != probe.TimedOut && l.Outcome != probe.NoWay {
			server = l.Resolver
		}
	}
	for _, l := range n.Lookups {
		if l.Resolver != server {
			continue
		}
		took := l.Milliseconds
		if l.Outcome == probe.TimedOut {
			took = eyeballs.Never
		}
		if l.Type == "A" {
			out.IPv4 = took
		} else {
			out.IPv6 = took
		}
	}
	return out
}
