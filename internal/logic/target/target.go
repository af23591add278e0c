// Package target lists the addresses of a host for those who are to look at it from
// outside. IPv6 is not found by trying: a scanner asks what it is told.
package target

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// Target is one address of the host.
type Target struct {
	Address   netip.Addr `json:"address"` // without a zone
	Family    string     `json:"family"`
	Scope     string     `json:"scope"` // global | ula | private | link-local | loopback
	NetNS     string     `json:"netns"`
	Interface string     `json:"interface"`
	// Labels: temporary, deprecated, optimistic.
	Labels []string `json:"labels"`
	// ValidSeconds is for how long it stays; absent: until somebody removes it.
	ValidSeconds uint32 `json:"validSeconds,omitempty"`
	// Excluded is why no scanner is told of it: no-address (nothing that one host has),
	// mapped, loopback, tentative, duplicate, interface-down, namespace, link-local. Empty:
	// it is a target.
	Excluded string `json:"excluded,omitempty"`
}

// Document is what `sixfence targets --format json` prints.
type Document struct {
	SchemaVersion string   `json:"schemaVersion"`
	Host          string   `json:"host"`
	Targets       []Target `json:"targets"`
	// Prefixes are those that the host answers for as a whole, by a local route.
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
}

// Version is the schemaVersion of a Document.
const Version = "1.0"

// Options of Of.
type Options struct {
	// NetNS is a namespace by its name, or All; empty is the host's own.
	NetNS string
	// LinkLocal tells that link-local addresses are targets, too.
	LinkLocal bool
}

// All is every namespace.
const All = "all"

func (o Options) wants(ns, home *fact.Namespace) bool {
	return o.NetNS == All || o.NetNS == ns.Name || o.NetNS == "" && ns == home
}

// Prefixes are what local routes make the host answer for besides its addresses
// (RTN_LOCAL, "AnyIP"): of those nobody can list the addresses.
func Prefixes(s *fact.Snapshot, o Options) (out []netip.Prefix) {
	home := s.Home()
	for i := range s.Namespaces {
		ns := &s.Namespaces[i]
		routes, _ := ns.Routes.Get()
		if !o.wants(ns, home) {
			continue
		}
		as, _ := ns.Addresses.Get()
		for _, r := range routes {
			own := func(a fact.Address) bool { return r.Dst == netip.PrefixFrom(a.Prefix.Addr(), a.Prefix.Addr().BitLen()) }
			if r.Type == localRoute && r.Protocol != fact.ProtoKernel && r.Dst.IsValid() && !r.Dst.Addr().IsLoopback() && !slices.ContainsFunc(as, own) && !slices.Contains(out, r.Dst) {
				out = append(out, r.Dst)
			}
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

const localRoute = 2 // RTN_LOCAL

const iffUp = 1

// Of lists every address of a host, those that are no targets as well. gaps are
// namespaces whose addresses are not known; found is false when there is no namespace of
// that name.
func Of(s *fact.Snapshot, o Options) (ts []Target, gaps []string, found bool) {
	ts = []Target{}
	home := s.Home()
	for i := range s.Namespaces {
		ns := &s.Namespaces[i]
		wanted := o.wants(ns, home)
		found = found || wanted
		as, ok := ns.Addresses.Get()
		if !ok {
			if wanted {
				gaps = append(gaps, ns.Name)
			}
			continue
		}
		links := map[int]*fact.Link{}
		if ls, ok := ns.Links.Get(); ok {
			for k := range ls {
				links[ls[k].Index] = &ls[k]
			}
		}
		for _, a := range as {
			t := one(a, links[a.Index], ns.Name)
			switch {
			case !wanted:
				t.Excluded = "namespace"
			case t.Excluded != "":
			case t.Scope == "link-local" && !o.LinkLocal:
				t.Excluded = "link-local"
			}
			ts = append(ts, t)
		}
	}
	slices.SortStableFunc(ts, func(a, b Target) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), a.Address.Compare(b.Address), cmp.Compare(a.NetNS, b.NetNS), cmp.Compare(a.Interface, b.Interface))
	})
	return ts, gaps, found || o.NetNS == All
}

func one(a fact.Address, l *fact.Link, netns string) Target {
	addr := a.Prefix.Addr().WithZone("")
	t := Target{Address: addr, Family: "ipv6", Scope: scope(addr), NetNS: netns, Labels: []string{}}
	if addr.Is4() {
		t.Family = "ipv4"
	}
	if l != nil {
		t.Interface = l.Name
	}
	if a.Valid != fact.Forever {
		t.ValidSeconds = a.Valid
	}
	six := !addr.Is4()
	for _, f := range []struct {
		bit  uint32
		name string
	}{{fact.AddrTemporary, "temporary"}, {fact.AddrDeprecated, "deprecated"}, {fact.AddrOptimistic, "optimistic"}} {
		// For IPv4 the first bit says secondary, which nobody who looks has to know.
		if a.Flags&f.bit != 0 && six {
			t.Labels = append(t.Labels, f.name)
		}
	}
	switch {
	case !addr.IsGlobalUnicast() && !addr.IsLinkLocalUnicast() && !addr.IsLoopback():
		t.Excluded = "no-address" // of a damaged Snapshot: nothing, a group, everybody on a link
	case addr.Is4In6():
		t.Excluded = "mapped" // a scanner would ask the IPv4 address, which may be another host's
	case t.Scope == "loopback":
		t.Excluded = "loopback"
	case six && a.Flags&fact.AddrDADFailed != 0:
		t.Excluded = "duplicate"
	case six && a.Flags&fact.AddrTentative != 0 && a.Flags&fact.AddrOptimistic == 0:
		t.Excluded = "tentative"
	case l != nil && l.Flags&iffUp == 0:
		t.Excluded = "interface-down"
	}
	return t
}

func scope(a netip.Addr) string {
	switch {
	case a.IsLoopback():
		return "loopback"
	case a.IsLinkLocalUnicast():
		return "link-local"
	case a.IsPrivate() && a.Is4():
		return "private"
	case a.IsPrivate():
		return "ula"
	}
	return "global"
}
