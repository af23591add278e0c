package expect

import (
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/model/probe"
)

// Lost is a vantage without an answer, or with a part of one.
type Lost struct {
	Via string `json:"via"`
	Why string `json:"why"`
	// Partly: what it had said before is among the results.
	Partly bool `json:"partly,omitempty"`
}

// vantages is the judge of each place from where was looked.
func (j *Judge) vantages() []*Judge {
	var out []*Judge
	at := map[string]int{}
	for _, a := range j.Addresses {
		i, ok := at[a.Via]
		if !ok {
			i = len(out)
			at[a.Via] = i
			out = append(out, &Judge{Expected: j.Expected, Predicted: j.Predicted, Together: j.Together})
		}
		out[i].Addresses = append(out[i].Addresses, a)
	}
	return out
}

// Across is ports of an address that do not look alike from everywhere.
type Across struct {
	Target  string        `json:"target"`
	Address netip.Addr    `json:"address"`
	Proto   string        `json:"proto"`
	Variant probe.Variant `json:"variant,omitempty"`
	Ports   string        `json:"ports"`
	Count   int           `json:"count"`
	// States are in the order of Vias; empty: not known from there. An empty via is here.
	Vias   []string `json:"vias"`
	States []Word   `json:"states"`
	set    *probe.Ports
}

// Across lays the vantages side by side, where they do not agree.
func (j *Judge) Across() []Across {
	out := []Across{}
	var vias []string
	for _, v := range j.vantages() {
		vias = append(vias, v.Addresses[0].Via)
	}
	if len(vias) < 2 {
		return out
	}
	type what struct {
		target  string
		addr    netip.Addr
		proto   string
		variant probe.Variant
	}
	var order []what
	tables := map[what][]*probe.Table{}
	for _, a := range j.Addresses {
		for _, t := range a.Tables {
			k := what{a.Target, a.Addr, t.Proto, t.Variant}
			if tables[k] == nil {
				tables[k] = make([]*probe.Table, len(vias))
				order = append(order, k)
			}
			tables[k][slices.Index(vias, a.Via)] = t
		}
	}
	for _, k := range order {
		index := map[string]int{}
		var want probe.Ports
		for _, t := range tables[k] {
			if t != nil {
				want = t.Want
			}
		}
		for p := range want.All {
			states, key, known := make([]Word, len(vias)), "", map[Word]bool{}
			for i, t := range tables[k] {
				if t != nil {
					states[i] = wordOf(t.At(p))
				}
				key += string(states[i]) + "/"
				if states[i] != "" {
					known[states[i]] = true
				}
			}
			if len(known) < 2 {
				continue
			}
			at, ok := index[key]
			if !ok {
				at = len(out)
				index[key] = at
				out = append(out, Across{Target: k.target, Address: k.addr, Proto: k.proto, Variant: k.variant, Vias: vias, States: states, set: &probe.Ports{}})
			}
			out[at].set.Add(p)
		}
	}
	for i := range out {
		out[i].Ports, out[i].Count = out[i].set.List(), out[i].set.Len()
	}
	return out
}
