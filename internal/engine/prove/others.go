package prove

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/arena"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// split parts our own table from those of others.
func split(all fact.NFTables) (mine, rest *fact.NFTables) {
	mine, rest = &fact.NFTables{}, &fact.NFTables{}
	for _, x := range []struct {
		from      [][]byte
		ours, not *[][]byte
	}{
		{all.Tables, &mine.Tables, &rest.Tables},
		{all.Chains, &mine.Chains, &rest.Chains},
		{all.Rules, &mine.Rules, &rest.Rules},
		{all.Sets, &mine.Sets, &rest.Sets},
		{all.Elements, &mine.Elements, &rest.Elements},
		{all.Objects, &mine.Objects, &rest.Objects},
	} {
		for _, m := range x.from {
			if arena.TableName(m) == "table "+plan.Table {
				*x.ours = append(*x.ours, m)
			} else {
				*x.not = append(*x.not, m)
			}
		}
	}
	rest.Truncated = all.Truncated
	for _, u := range all.Unexpanded {
		if u.Family != unix.NFPROTO_INET || "inet "+u.Table != plan.Table {
			rest.Unexpanded = append(rest.Unexpanded, u)
		}
	}
	return mine, rest
}

// foreign are the rules of others that may do something, by name, and those of them that
// cannot be tried, with the reason.
func (r *proof) foreign(others *fact.NFTables) (f arena.Foreign, names []string, refused []arena.Refused) {
	pf := r.ns.PacketFilter
	f.NFTables = others
	for _, m := range others.Tables {
		names = append(names, arena.TableName(m))
	}
	if g := others.Truncated; g != nil {
		refused = append(refused, arena.Refused{What: "tables", Why: "not all of them were read: " + g.What})
	}
	for _, u := range others.Unexpanded {
		refused = append(refused, arena.Refused{What: "set " + u.Name + " of table " + u.Table, Why: "not all of its elements were read"})
	}
	legacy, _ := pf.Legacy.Get()
	for _, l := range legacy {
		if !arena.LegacyIdle(&l) {
			f.Legacy = append(f.Legacy, l)
			names = append(names, arena.LegacyName(&l))
		}
	}
	unread := func(what string, g fact.Gap, gap bool) {
		if gap {
			refused = append(refused, arena.Refused{What: what, Why: "not known: " + g.What})
		}
	}
	g, gap := pf.Legacy.Gap()
	unread("iptables (legacy)", g, gap)
	f.IPSets, _ = pf.IPSets.Get()
	f.Accounting, _ = pf.Accounting.Get()
	if len(names) > 0 {
		g, gap = pf.IPSets.Gap()
		unread("ipsets", g, gap)
	}
	// Its hooks are those of bridges.
	links, _ := r.ns.Links.Get()
	if slices.ContainsFunc(links, func(l fact.Link) bool { return l.Kind == "bridge" }) {
		if eb, _ := pf.EBTables.Get(); eb {
			refused = append(refused, arena.Refused{What: "ebtables (legacy)", Why: "whether it has rules cannot be asked without making its tables"})
		}
		g, gap = pf.EBTables.Gap()
		unread("ebtables (legacy)", g, gap)
	}
	return f, names, refused
}

// beside fires once more with the rules of others loaded: they can stop what ours lets
// through.
func (r *proof) beside(ctx context.Context, a *arena.Arena, ours table, others *fact.NFTables, alone []verdict) error {
	if g, gap := r.ns.PacketFilter.NFTables.Gap(); gap {
		return &arena.UnavailableError{
			Why:  fmt.Sprintf("the planned table alone does what the intent says (%d shots), but the other tables of this host are not known (%s)", r.p.Shots, g.What),
			Hint: "run as root",
		}
	}
	f, names, refused := r.foreign(others)
	if r.elsewhere {
		refused = nil
		for _, n := range names {
			refused = append(refused, arena.Refused{What: n, Why: "it is another host's"})
		}
		names = nil
	}
	if len(names) > 0 {
		if err := r.make(ctx, a, false); err != nil {
			return err
		}
		more, err := a.Replay(ctx, f)
		if err != nil {
			return err
		}
		bad := func(n string) bool {
			return slices.ContainsFunc(more, func(x arena.Refused) bool { return x.What == n })
		}
		r.p.Together = slices.DeleteFunc(slices.Clone(names), bad)
		if slices.ContainsFunc(names, bad) { // what no table needs is no loss
			refused = append(refused, more...)
		}
	}
	for _, x := range refused {
		r.p.NotTogether = append(r.p.NotTogether, x.What+": "+x.Why)
	}
	if len(r.p.Together) == 0 {
		return nil
	}
	if err := r.load(ctx, a, ours); err != nil {
		return err
	}
	r.progress("firing again, beside %d other tables", len(r.p.Together))
	both, err := r.fireAll(ctx, a)
	if err != nil {
		return err
	}
	type key struct {
		iface, group, name string
		v4                 bool
		n                  int // of those of one name
	}
	keyed := func(list []verdict, f func(key, verdict)) {
		count := map[key]int{}
		for _, v := range list {
			k := key{v.iface, v.shot.Group, v.shot.Name, v.shot.IPv4, 0}
			count[k]++
			k.n = count[k]
			f(k, v)
		}
	}
	was := map[key]bool{}
	keyed(alone, func(k key, v verdict) { was[k] = v.seen })
	keyed(both, func(k key, v verdict) {
		before, fired := was[k]
		delete(was, k)
		switch {
		case v.seen && !v.shot.Pass && !before:
			r.fail(v.misfire("comes through beside the tables of others"))
		case !fired || v.seen || !v.shot.Pass || !before:
		case v.shot.Led && r.lost > 0:
			r.p.NotTogether = append(r.p.NotTogether, fmt.Sprintf("what leads %s elsewhere: the way there is not made again", v.shot.Name))
		default:
			m := v.misfire("is stopped by another table")
			// What is led to a container is routed, and link-local senders are not.
			routed := len(r.ports) > 0 && strings.Contains(v.shot.Name, " from a link-local address")
			if v.shot.Group == "services" && !routed || v.shot.Group == "sessions" {
				r.fail(m)
				return
			}
			m.Frames = nil
			r.p.Held = append(r.p.Held, m)
		}
	})
	// What needs a flow that this host has begun, and it can begin none.
	if len(was) > 0 {
		r.limit("beside the tables of others %d shots were not fired: they stop what this host sends", len(was))
	}
	return nil
}
