package prove

import (
	"context"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/host/arena"
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
			if f, name := owner(m); f == unix.NFPROTO_INET && name == "sixfence" {
				*x.ours = append(*x.ours, m)
			} else {
				*x.not = append(*x.not, m)
			}
		}
	}
	return mine, rest
}

// owner is the family and the name of the table that a message of nf_tables is about: in
// all of them the name is the first attribute.
func owner(m []byte) (family byte, table string) {
	if len(m) < 4 {
		return 0, ""
	}
	list, err := netlink.UnmarshalAttributes(m[4:])
	if err != nil {
		return m[0], ""
	}
	for _, a := range list {
		if a.Type&0x3fff == 1 && len(a.Data) > 0 {
			return m[0], string(a.Data[:len(a.Data)-1])
		}
	}
	return m[0], ""
}

var families = map[byte]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_NETDEV: "netdev", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_ARP: "arp"}

// beside fires once more with the tables of others loaded: they can stop what ours lets
// through.
func (r *proof) beside(ctx context.Context, a *arena.Arena, ours table, others *fact.NFTables, alone []verdict) error {
	pf := r.ns.PacketFilter
	if pf.NFTables.State() == fact.StateGap {
		g, _ := pf.NFTables.Gap()
		return &arena.UnavailableError{
			Why:  fmt.Sprintf("the planned table alone does what the intent says (%d shots), but the other tables of this host are not known (%s)", r.p.Shots, g.What),
			Hint: "run as root",
		}
	}
	legacy, _ := pf.Legacy.Get()
	for _, l := range legacy {
		if l.Entries > emptyTable(l.Hooks) {
			r.p.NotTogether = append(r.p.NotTogether, fmt.Sprintf("iptables (legacy) table %s of %s: it cannot be loaded elsewhere", l.Name, l.Family))
		}
	}
	if eb, _ := pf.EBTables.Get(); eb {
		r.p.NotTogether = append(r.p.NotTogether, "ebtables: it cannot be read")
	}
	if r.elsewhere {
		for _, m := range others.Tables {
			f, name := owner(m)
			r.p.NotTogether = append(r.p.NotTogether, fmt.Sprintf("table %s %s: it is another host's", families[f], name))
		}
		return nil
	}
	if len(others.Tables) == 0 {
		return nil
	}
	if err := r.make(ctx, a, false); err != nil {
		return err
	}
	failed, err := a.Replay(ctx, others)
	if err != nil {
		return err
	}
	r.p.NotTogether = append(r.p.NotTogether, failed...)
	for _, m := range others.Tables {
		f, name := owner(m)
		id := fmt.Sprintf("table %s %s", families[f], name)
		if !slices.ContainsFunc(failed, func(x string) bool { return len(x) > len(id) && x[:len(id)+1] == id+":" }) {
			r.p.Together = append(r.p.Together, id)
		}
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
	for i, v := range both {
		if i >= len(alone) || alone[i].shot.Name != v.shot.Name || alone[i].seen == v.seen {
			continue
		}
		switch {
		case v.seen && !v.shot.Pass:
			r.fail(v.misfire("comes through beside the tables of others"))
		case !v.seen && v.shot.Pass && alone[i].seen:
			m := v.misfire("is stopped by another table")
			if v.shot.Group == "services" || v.shot.Group == "sessions" {
				r.fail(m)
				continue
			}
			m.Frames = nil
			r.p.Held = append(r.p.Held, m)
		}
	}
	return nil
}

// emptyTable is how many entries a table of x_tables has without a rule: the policy of
// each hook, and the end.
func emptyTable(hooks uint32) uint32 {
	n := uint32(1)
	for ; hooks != 0; hooks &= hooks - 1 {
		n++
	}
	return n
}
