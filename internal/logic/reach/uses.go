package reach

import (
	"slices"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// uses is what a ruleset makes the kernel do for a family.
type uses struct {
	track     tri  // connection tracking is on, and with it reassembly
	nat       bool // rules may translate addresses
	defrag    bool // fragments are put together even without connection tracking
	dnat      bool // rules choose new destinations
	snat      bool // rules choose new sources
	snatTo    bool // … addresses that need not be this host's
	helper    bool
	zone      bool             // a rule chooses zones
	labels    bool             // rules label connections
	marks     bool             // rules mark connections
	daddrType bool             // rules ask for the type of the destination
	dynamic   map[*rs.Set]bool // sets that rules add to or delete from
	deletes   map[*rs.Set]bool // sets that rules delete from
	bridged   bool             // base chains of family bridge see packets
	atCall    map[rs.Hook]bool // … at the priority of br_netfilter
	ports     bool             // rules ask for the ports of bridges
	devices   []string         // that chains hang on
}

// usesOf looks at every rule: an expression switches conntrack on wherever it is, even
// where no packet comes.
func usesOf(set *rs.Ruleset, f rs.Family) *uses {
	u := &uses{dynamic: map[*rs.Set]bool{}, deletes: map[*rs.Set]bool{}, atCall: map[rs.Hook]bool{}}
	for _, t := range set.Tables {
		mine := t.Family == rs.Inet || t.Family == f
		for _, o := range t.Objects { // these switch it on where no rule uses them
			const helper, connlimit, timeout, expectation, synproxy = 3, 5, 7, 9, 10
			switch o.Type {
			case helper, connlimit, timeout, expectation, synproxy:
				u.tracks(mine, yes)
			}
		}
		for _, s := range t.Sets {
			u.tracks(mine && countsConnections(s.Exprs), yes)
		}
		for _, c := range t.Chains {
			// An empty chain of type nat does not switch connection tracking on.
			u.nat = u.nat || mine && c.Base != nil && c.Base.Type == "nat"
			if c.Base != nil && !t.Dormant {
				u.devices = append(u.devices, c.Base.Devices...)
				if t.Family == rs.Bridge {
					u.bridged = true
					u.atCall[c.Base.Hook] = u.atCall[c.Base.Hook] || c.Base.Priority == priorityOfCall(c.Base.Hook)
				}
			}
			for _, r := range c.Rules {
				for _, e := range flat(r.Exprs) {
					switch e := e.(type) {
					case rs.Ct:
						u.tracks(mine, yes)
					case rs.CtSet:
						u.tracks(mine, yes)
						u.zone = u.zone || mine && e.Key == ctZone
						u.labels = u.labels || mine && e.Key == ctLabels
						u.marks = u.marks || mine && e.Key == ctMark
					case rs.TProxy:
						u.defrag = u.defrag || mine // nft_tproxy_init
					case rs.Nat, rs.Redirect, rs.Masquerade:
						u.tracks(mine, yes)
						u.nat = u.nat || mine
						n, isNat := e.(rs.Nat)
						_, masquerade := e.(rs.Masquerade)
						u.snatTo = u.snatTo || mine && isNat && (!n.Dst || n.ByHook)
						u.snat = u.snat || mine && masquerade || u.snatTo
						u.dnat = u.dnat || mine && !masquerade && !(isNat && !n.Dst)
					case rs.BridgePort:
						u.ports = true
					case rs.Fib:
						u.daddrType = u.daddrType || mine && e.Result == fibResultAddrType && e.Flags&fibDaddr != 0
					case rs.Limit:
						u.tracks(mine && countsConnections([]rs.Expr{e}), yes)
					case rs.Steal:
						u.tracks(mine && e.Name == "synproxy", yes)
					case rs.Opaque:
						u.tracks(mine, maybe)
					case rs.Objref: // what switches connection tracking on is the object itself
						u.helper = u.helper || mine
					case rs.Dynset:
						if s := t.Sets[e.Set]; s != nil {
							u.dynamic[s] = true
							u.deletes[s] = u.deletes[s] || e.Op == dynsetDelete
						}
						u.tracks(mine && countsConnections(e.Exprs), yes)
					}
				}
			}
		}
	}
	return u
}

func (u *uses) tracks(here bool, t tri) {
	if here {
		u.track = max(u.track, t)
	}
}

// countsConnections tells that a stateful expression asks connection tracking.
func countsConnections(list []rs.Expr) bool {
	return slices.ContainsFunc(list, func(e rs.Expr) bool {
		l, ok := e.(rs.Limit)
		return ok && l.Name == "connlimit"
	})
}
