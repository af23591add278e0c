package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// List writes a set as people do: 22,80,443-445.
func (p *Ports) List() string {
	var b strings.Builder
	from, last := -1, -2
	end := func() {
		if from < 0 {
			return
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(from))
		if last > from {
			b.WriteString("-" + strconv.Itoa(last))
		}
	}
	for port := range p.All {
		if int(port) != last+1 {
			end()
			from = int(port)
		}
		last = int(port)
	}
	end()
	return b.String()
}

// maxShown is how long a list of ports may be in a sentence.
const maxShown = 40

// Short is List as far as a sentence has room for it, and then how many there are.
func (p *Ports) Short() string {
	l := p.List()
	if len(l) <= maxShown {
		return l
	}
	cut := strings.LastIndexByte(l[:maxShown], ',')
	return fmt.Sprintf("%s… (%d ports)", l[:max(cut, 1)], p.Len())
}

// AddList reads what List writes.
func (p *Ports) AddList(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		a, b, err := span(part)
		if err != nil || b < a {
			return fmt.Errorf("%q is no range of ports", part)
		}
		p.addSpan(a, b)
	}
	return nil
}

// Saved is what a run has found out so far, for one that goes on with it.
type Saved struct {
	SchemaVersion string         `json:"schemaVersion"`
	Addresses     []SavedAddress `json:"addresses"`
}

// SavedVersion is the version of Saved.
const SavedVersion = "1.0"

// SavedAddress is one address of a Saved.
type SavedAddress struct {
	Via     string       `json:"via,omitempty"` // the host that claims it; empty: seen from here
	Address netip.Addr   `json:"address"`
	Source  netip.Addr   `json:"source,omitzero"`
	Tables  []SavedTable `json:"tables"`
	// Soak is one that was cut short.
	Soak *SavedSoak `json:"soak,omitempty"`
}

// SavedTable is one table of a Saved.
type SavedTable struct {
	Proto   string     `json:"proto"`
	Variant Variant    `json:"variant,omitempty"`
	States  []SavedRun `json:"states"`
}

// SavedRun is the ports that have one reason.
type SavedRun struct {
	Ports string `json:"ports"`
	Reason
}

// Save writes down what is known about addresses.
func Save(as []*Address) Saved {
	out := Saved{SchemaVersion: SavedVersion, Addresses: []SavedAddress{}}
	for _, a := range as {
		sa := SavedAddress{Address: a.Addr, Source: a.Vantage.Source, Tables: []SavedTable{}}
		for _, t := range a.Tables {
			st := SavedTable{Proto: t.Proto, Variant: t.Variant, States: []SavedRun{}}
			sets := make([]Ports, len(t.reasons))
			for p := range t.Want.All {
				if i := t.reason[p]; i != 0 {
					sets[i-1].Add(p)
				}
			}
			for i := range sets {
				if sets[i].Len() > 0 {
					st.States = append(st.States, SavedRun{sets[i].List(), t.reasons[i]})
				}
			}
			sa.Tables = append(sa.Tables, st)
		}
		out.Addresses = append(out.Addresses, sa)
	}
	return out
}

// maxSaved bounds what a file may make us remember.
const maxSaved = 4096

// Check tells whether every address of it can be read, and is one that a run may have kept.
func (s *Saved) Check() error {
	for _, a := range s.Addresses {
		a.Via = ""
		if _, err := (&Saved{Addresses: []SavedAddress{a}}).Of(a.Address, a.Source); err != nil {
			return fmt.Errorf("what is known about %s: %w", a.Address, err)
		}
	}
	return nil
}

// Claimed is what one host has claimed about these addresses, as it is told again.
func (s *Saved) Claimed(via string, addrs []netip.Addr) (out []SavedAddress) {
	for _, a := range s.Addresses {
		if a.Via == via && slices.Contains(addrs, a.Address) {
			a.Via = ""
			out = append(out, a)
		}
	}
	return out
}

// Put takes over what is known now, in place of what was known from the same vantage. How
// far a soak is stays.
func (s *Saved) Put(a SavedAddress) {
	at := s.entry(a.Via, a.Address)
	a.Soak = at.Soak
	*at = a
}

// PutSoak notes how far a soak is; nil: it is over.
func (s *Saved) PutSoak(addr, source netip.Addr, k *SavedSoak) {
	at := s.entry("", addr)
	at.Source, at.Soak = source, k
}

func (s *Saved) entry(via string, addr netip.Addr) *SavedAddress {
	i := slices.IndexFunc(s.Addresses, func(o SavedAddress) bool { return o.Via == via && o.Address == addr })
	if i < 0 {
		i = len(s.Addresses)
		s.Addresses = append(s.Addresses, SavedAddress{Via: via, Address: addr, Tables: []SavedTable{}})
	}
	return &s.Addresses[i]
}

// Of are the tables of one address as seen from one source. Errors are not among them:
// they are asked again, and so is what was seen from elsewhere.
func (s *Saved) Of(addr, source netip.Addr) ([]*Table, error) {
	var out []*Table
	if len(s.Addresses) > maxSaved {
		return nil, errors.New("too many addresses")
	}
	for _, a := range s.Addresses {
		if a.Via != "" || a.Address != addr || a.Source != source {
			continue
		}
		if len(a.Tables) > 64 {
			return nil, errors.New("too many tables")
		}
		for _, st := range a.Tables {
			t := &Table{Proto: st.Proto, Variant: st.Variant}
			for _, r := range st.States {
				if !slices.Contains(States(), r.State) {
					return nil, fmt.Errorf("%q is no state", r.State)
				}
				if r.State == Errored || r.State == Unreachable {
					continue
				}
				var ports Ports
				if err := ports.AddList(r.Ports); err != nil {
					return nil, err
				}
				for p := range ports.All {
					t.Want.Add(p)
					t.put(p, r.Reason)
				}
			}
			out = append(out, t)
		}
	}
	return out, nil
}
