package collect

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/sixfence/sixfence/internal/host/collect/ask"
	"github.com/sixfence/sixfence/internal/host/collect/packetfilter"
	"github.com/sixfence/sixfence/internal/host/collect/proc"
	"github.com/sixfence/sixfence/internal/host/collect/sock"
	"github.com/sixfence/sixfence/internal/host/collect/space"
	"github.com/sixfence/sixfence/internal/host/netns"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// maxTotal is how long reading all of the host's own namespaces may take.
const maxTotal = 60 * time.Second

// maxExpand is how long it may take when sets are read whole.
const maxExpand = 15 * time.Minute

// maxSecondLook is how many sockets the processes may hold for a second look at
// all of them to be cheap (a tenth of a second).
const maxSecondLook = 20_000

// visitor enters namespaces and keeps what was read there.
type visitor struct {
	filter  packetfilter.Options
	c       *Collection
	a       *ask.Asker
	budgets Budgets
	end     time.Time   // of the host's own namespaces together
	foreign *ask.Budget // of strangers' together; it starts with the first of them
	spaces  []space.Space
	entered int
	left    int
}

func (v *visitor) own(name string) *ask.Budget {
	return ask.NewBudget(name, min(v.budgets.Own.Time, time.Until(v.end)), v.budgets.Own.Objects, v.budgets.Own.Bytes)
}

// visit reads every namespace, the host's own first. Those of other user
// namespaces share a budget and a number, and are left out of the Snapshot
// beyond it: whoever makes them in thousands must not make the host's report
// long or late.
func (v *visitor) visit(spaces []space.Space) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, max(2, runtime.NumCPU()))
	for _, sp := range spaces {
		d := &spaceDump{ns: sp.Namespace, gap: sp.Gap, fd: sp.FD}
		if sp.Namespace.Foreign {
			if v.entered++; v.entered > v.budgets.Spaces || v.foreign != nil && time.Now().After(v.foreign.Deadline()) {
				v.left++
				continue
			}
		}
		v.c.space = append(v.c.space, d)
		if sp.Gap == nil && sp.FD < 0 {
			d.gap = &fact.Gap{Reason: fact.NotCollected, What: "netns " + sp.Namespace.Name}
		}
		if d.gap != nil {
			continue
		}
		slots <- struct{}{}
		if sp.Namespace.Foreign && v.foreign == nil {
			wait(slots) // the host's own first: theirs is what is left of the machine
			f := v.budgets.Foreign
			v.foreign = ask.NewBudget("namespaces of other user namespaces", f.Time, f.Objects, f.Bytes)
		}
		b, filter := v.foreign, v.filter
		filter.Foreign = sp.Namespace.Foreign
		if !sp.Namespace.Foreign {
			b = v.own("netns " + sp.Namespace.Name)
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := netns.Do(sp.FD, func() { d.read(v.a, b, filter) }); err != nil {
				d.gap = &fact.Gap{Reason: fact.Permission, What: "netns " + sp.Namespace.Name}
			}
		})
	}
	wg.Wait()
	v.spaces = append(v.spaces, spaces...)
	// A namespace of the host's that a second look found still comes before strangers'.
	slices.SortStableFunc(v.c.space, func(x, y *spaceDump) int {
		switch {
		case x.ns.Foreign == y.ns.Foreign:
			return 0
		case y.ns.Foreign:
			return -1
		}
		return 1
	})
}

// wait waits for what runs, while the caller holds one slot.
func wait(slots chan struct{}) {
	for range cap(slots) - 1 {
		slots <- struct{}{}
	}
	for range cap(slots) - 1 {
		<-slots
	}
}

// leftGap is the one line about strangers' namespaces that were not entered.
func (v *visitor) leftGap() []fact.Gap {
	if v.left == 0 {
		return nil
	}
	return []fact.Gap{{Reason: fact.Truncated, What: fmt.Sprintf("%d more network namespaces made by users (of %d) were not entered", v.left, v.entered)}}
}

// dumps calls f for the dumps of namespaces that were entered.
func (v *visitor) dumps(f func(*spaceDump)) {
	for _, d := range v.c.space {
		if d.gap == nil && d.sock != nil {
			f(d)
		}
	}
}

// listed returns the inodes of all sockets in the dumps, sorted.
func (v *visitor) listed() []uint64 {
	var all []uint64
	v.dumps(func(d *spaceDump) { all = append(all, d.sock.Inodes()...) })
	slices.Sort(all)
	return all
}

// join finds the holders of what was listed, and the lists of what is held:
// sockets that appeared after the look at the processes get a second look, and
// sockets in no list lead to namespaces that nothing else keeps alive.
func (v *visitor) join(procs *proc.Table, h *fact.Host) {
	listed := v.listed()
	for _, inode := range listed {
		if procs.Owners(inode).State() == fact.StateValue || os.Geteuid() != 0 {
			continue
		}
		if procs.Held() <= maxSecondLook {
			procs.Again(v.a, v.own("process table, second look"))
		} else {
			procs.Doubt(fact.Gap{Reason: fact.Truncated, What: "owner of a socket that appeared after the processes were read: too many descriptors for a second look"})
		}
		break
	}
	var orphans []fact.OrphanSocket
	var unknown *fact.Gap
	for range 3 {
		hidden := space.FromSockets(v.a, v.own("sockets in no namespace"), procs, v.spaces, listed)
		v.c.snap.Gaps = append(v.c.snap.Gaps, hidden.Gaps...)
		orphans, unknown = append(orphans, hidden.Orphans...), hidden.Unknown
		if len(hidden.Spaces) == 0 {
			break
		}
		v.visit(hidden.Spaces)
		listed = v.listed()
	}
	switch {
	case len(orphans) > 0:
		h.Orphans = fact.Value(orphans)
		if unknown != nil {
			v.c.snap.Gaps = append(v.c.snap.Gaps, *unknown)
		}
	case unknown != nil:
		h.Orphans = fact.Missing[[]fact.OrphanSocket](*unknown)
	default:
		h.Orphans = fact.Value([]fact.OrphanSocket{})
	}
	v.dumps(func(d *spaceDump) {
		d.sock.Learn(func(inode uint64) sock.Options {
			v6only, index := procs.Options(inode)
			return sock.Options{V6Only: v6only, Index: index}
		})
	})
}

// peers looks for namespaces that only a link leads to.
func (v *visitor) peers() {
	fds := make([]int, 0, len(v.spaces))
	for i := range v.spaces {
		if v.spaces[i].FD >= 0 {
			fds = append(fds, v.spaces[i].FD)
		}
	}
	v.dumps(func(d *spaceDump) {
		if d.ns.Foreign || d.fd < 0 {
			return
		}
		var ids []int32
		err := netns.Do(d.fd, func() {
			var err error
			if ids, err = space.Peers(v.a, v.own("netns "+d.ns.Name), fds); err != nil {
				v.c.snap.Gaps = append(v.c.snap.Gaps, fact.Gap{Reason: fact.NotCollected, What: "peers of netns " + d.ns.Name + ": " + err.Error()})
			}
		})
		if err == nil && len(ids) > 0 {
			d.lost = ids
		}
	})
}

// lostPeers are the Gaps about links whose other end is in a namespace that was
// not found.
func (d *spaceDump) lostPeers(ns *fact.Namespace) []fact.Gap {
	var out []fact.Gap
	links, _ := ns.Links.Get()
	for _, id := range d.lost {
		via := ""
		for i := range links {
			if links[i].PeerNS != nil && *links[i].PeerNS == id {
				via = ", the peer of " + links[i].Name
				break
			}
		}
		out = append(out, fact.Gap{Reason: fact.NotCollected, What: fmt.Sprintf("a network namespace that was not found (netnsid %d of netns %s%s)", id, ns.Name, via)})
	}
	return out
}
