package expect

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/model/probe"
)

// Parity is ports that answer alike over each address of a host.
type Parity struct {
	Target  string        `json:"target"`
	Via     string        `json:"via,omitempty"`
	Proto   string        `json:"proto"`
	Variant probe.Variant `json:"variant,omitempty"`
	Ports   string        `json:"ports"`
	Count   int           `json:"count"`
	// States are in the order of Addresses: states, or Blocked where it could not be told
	// whether a port is filtered or rejected.
	Addresses []netip.Addr `json:"addresses"`
	States    []Word       `json:"states"`
	Differ    bool         `json:"differ"` // the families do not agree
	set       *probe.Ports
}

// wordOf is a state, or Blocked where it could not be told which of two it is.
func wordOf(r probe.Reason) Word {
	if r.Blocked {
		return Blocked
	}
	return Word(r.State)
}

// groups are the addresses of each host.
func (j *Judge) groups() (names []string, of map[string][]*probe.Address) {
	of = map[string][]*probe.Address{}
	var all []string
	for _, a := range j.Addresses {
		if !slices.Contains(all, a.Target) {
			all = append(all, a.Target)
		}
	}
	together := strings.Join(all, " ")
	for _, a := range j.Addresses {
		name := a.Target
		if j.Together {
			name = together
		}
		if of[name] == nil {
			names = append(names, name)
		}
		of[name] = append(of[name], a)
	}
	for _, as := range of { // IPv4 first
		slices.SortStableFunc(as, func(a, b *probe.Address) int { return cmp.Compare(a.Family(), b.Family()) })
	}
	return names, of
}

// Parity lays the families of each host side by side, for each vantage.
func (j *Judge) Parity() []Parity {
	out := []Parity{}
	for _, v := range j.vantages() {
		out = append(out, v.parity()...)
	}
	return out
}

func (j *Judge) parity() []Parity {
	var out []Parity
	names, of := j.groups()
	for _, name := range names {
		as := of[name]
		var addrs []netip.Addr
		for _, a := range as {
			addrs = append(addrs, a.Addr)
		}
		for _, x := range tablesOf(as) {
			first := len(out)
			var want probe.Ports
			for _, t := range x {
				if t != nil {
					for p := range t.Want.All {
						want.Add(p)
					}
				}
			}
			index := map[string]int{}
			for p := range want.All {
				states := make([]Word, len(x))
				key := ""
				for i, t := range x {
					if t != nil {
						states[i] = wordOf(t.At(p))
					}
					key += string(states[i]) + "/"
				}
				at, ok := index[key]
				if !ok {
					at = len(out)
					index[key] = at
					proto, variant := head(x)
					out = append(out, Parity{Target: name, Via: as[0].Via, Proto: proto, Variant: variant, Addresses: addrs, States: states, Differ: differ(as, states), set: &probe.Ports{}})
				}
				out[at].set.Add(p)
			}
			for i := first; i < len(out); i++ {
				out[i].Ports, out[i].Count = out[i].set.List(), out[i].set.Len()
			}
			slices.SortStableFunc(out[first:], func(a, b Parity) int {
				return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a.Count, b.Count))
			})
		}
	}
	return out
}

func head(ts []*probe.Table) (string, probe.Variant) {
	for _, t := range ts {
		if t != nil {
			return strings.TrimSuffix(t.Proto, "v6"), t.Variant
		}
	}
	return "", ""
}

// tablesOf are the tables of one protocol and variant, one for each address; icmp and
// icmpv6 have nothing in common but the name.
func tablesOf(as []*probe.Address) [][]*probe.Table {
	var out [][]*probe.Table
	for _, proto := range []string{"tcp", "udp", "icmp", "icmpv6"} {
		for _, v := range probe.Variants() {
			row := make([]*probe.Table, len(as))
			any := false
			for i, a := range as {
				for _, t := range a.Tables {
					if t.Proto == proto && t.Variant == v {
						row[i], any = t, true
					}
				}
			}
			if any {
				out = append(out, row)
			}
		}
	}
	return out
}

// order puts what differs first, and there what is open, then what is open.
func order(p Parity) int {
	n := 2
	switch {
	case slices.Contains(p.States, Word(probe.Open)):
		n = 0
	case slices.Contains(p.States, Word(probe.Closed)):
		n = 1
	}
	if !p.Differ {
		n += 3
	}
	return n
}

// differ tells whether something gets further over one family than over the other.
func differ(as []*probe.Address, states []Word) bool {
	worst := map[string]int{}
	for i, s := range states {
		if s == "" || s == Word(probe.Errored) || as[i].Vantage.Self || as[i].Addr.IsLinkLocalUnicast() {
			continue
		}
		r := 1 // nothing gets through
		switch probe.State(s) {
		case probe.Open:
			r = 3
		case probe.Closed:
			r = 2
		}
		worst[as[i].Family()] = max(worst[as[i].Family()], r)
	}
	return len(worst) == 2 && worst["ipv4"] != worst["ipv6"]
}
