package cli

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sixfence/sixfence/internal/host/scratch"
	"github.com/sixfence/sixfence/internal/logic/draft"
	"github.com/sixfence/sixfence/internal/logic/plan"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/testlab"
	"github.com/sixfence/sixfence/internal/testlab/corpus"
)

// TestDraftsOfTheCorpus drafts every recorded host, ufw's and firewalld's and Docker's
// among them, and asks the rules that the draft leads to: what is reached today stays
// reached beside the rules that are there, and by an interface by which nobody gets to a
// port the draft lets nobody in either. With --mirror-ipv4 IPv6 is let in by an interface
// if and only if IPv4 is observed to be.
func TestDraftsOfTheCorpus(t *testing.T) {
	t.Parallel()
	testlab.RequireRoot(t)
	var asked, opened, mirrored atomic.Int64
	t.Run("hosts", func(t *testing.T) {
		for _, name := range corpus.Names() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				e, err := corpus.Read(name)
				if err != nil {
					t.Fatal(err)
				}
				for _, mirror := range []bool{false, true} {
					h := newDrafted(t, e.Snapshot, fmt.Sprintf("%s, mirror %v", name, mirror), draft.Options{MirrorIPv4: mirror})
					h.compare(mirror)
					asked.Add(h.asked)
					opened.Add(h.opened)
					mirrored.Add(h.mirrored)
				}
			})
		}
	})
	t.Logf("%d questions, %d of what is reached today; %d times IPv6 follows IPv4", asked.Load(), opened.Load(), mirrored.Load())
	if asked.Load() < 2000 || opened.Load() < 500 || mirrored.Load() < 300 {
		t.Error("too few questions to say anything")
	}
}

// drafted is a host, what init writes of it, and what becomes of that.
type drafted struct {
	t                       *testing.T
	name                    string
	ns                      *fact.Namespace
	in                      intent.Intent
	links                   []fact.Link
	addrs                   []fact.Address
	routes                  []fact.Route
	before, alone, together *reach.Space
	asked, opened, mirrored int64
}

func newDrafted(t *testing.T, s *fact.Snapshot, name string, o draft.Options) *drafted {
	t.Helper()
	session, err := scratch.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	h := &drafted{t: t, name: name, ns: s.Home()}
	d, err := draft.New(s, h.ns, o)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if _, err := draftText(d); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	h.in = d.Intent
	for k, f := range h.in.Interfaces {
		for i := range f.Routers {
			f.Routers[i].Accepted = nil
		}
		h.in.Interfaces[k] = f
	}
	h.links, _ = h.ns.Links.Get()
	h.addrs, _ = h.ns.Addresses.Get()
	h.routes, _ = h.ns.Routes.Get()
	var tables []*rs.Table
	p := plan.New(h.in, s, plan.Options{Decode: func(script string) (*rs.Ruleset, error) {
		set, err := decodeScript(session, script, h.ns)
		if err == nil {
			tables = set.Tables
		}
		return set, err
	}})
	for _, r := range p.Refusals {
		// A listener that nobody can tell who reaches is written as it may be.
		if r.ID != "default-router-lost" && !(o.MirrorIPv4 && r.ID == "foreign-drop" && strings.Contains(r.Title, ", ipv6)")) {
			t.Errorf("%s: init wrote what plan refuses: %s: %s", name, r.Title, r.Detail)
		}
	}
	if tables == nil {
		t.Fatalf("%s: no rules were planned: %+v", name, p.Gaps)
	}
	h.before, h.together = reach.NewSpace(s, h.ns, nil, false), reach.NewSpace(s, h.ns, nil, false)
	set := h.together.Model.Set
	set.Tables = append(slices.Clone(set.Tables), tables...)
	h.alone = reach.WithRules(s, h.ns, tables, reach.OrderOf(s.Host.ByteOrder))
	return h
}

// senders are addresses that come in by an interface: on its link, and from afar.
func (h *drafted) senders(l *fact.Link, is4 bool) (out []netip.Addr) {
	if is4 {
		out = append(out, netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("203.0.113.77"))
	} else {
		out = append(out, netip.MustParseAddr("2606:4700::1111"), netip.MustParseAddr("2a00:1450::77"))
	}
	for _, a := range h.addrs {
		p := a.Prefix.Masked()
		if a.Index != l.Index || p.Addr().Is4() != is4 || p.Bits() > p.Addr().BitLen()-3 || p.Addr().IsLinkLocalUnicast() || p.Addr().IsLoopback() {
			continue
		}
		x := p.Addr()
		for range 5 {
			x = x.Next()
			if !slices.ContainsFunc(h.addrs, func(b fact.Address) bool { return b.Prefix.Addr() == x }) {
				out = append(out, x)
			}
		}
	}
	return slices.DeleteFunc(out, func(a netip.Addr) bool { return h.way(a) != l.Index })
}

// way is the interface by which the routes lead to an address.
func (h *drafted) way(a netip.Addr) int {
	best, metric, index := -1, uint32(0), 0
	for _, r := range h.routes {
		if r.Type != 1 || r.Table == 255 || len(r.NextHops) == 0 || !r.Dst.Contains(a) {
			continue
		}
		if r.Dst.Bits() > best || r.Dst.Bits() == best && r.Priority < metric {
			best, metric, index = r.Dst.Bits(), r.Priority, r.NextHops[0].Index
		}
	}
	return index
}

// lets tells whether a sender gets in by an interface: 1 surely, 0 perhaps, -1 no.
func lets(vs []reach.V, iface string, a netip.Addr) int {
	in := func(ps []netip.Prefix) bool {
		return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	out := -1
	for _, v := range vs {
		if len(v.Interfaces) > 0 && !slices.Contains(v.Interfaces, iface) {
			continue
		}
		switch {
		case in(v.Must):
			return 1
		case in(v.May):
			out = 0
		}
	}
	return out
}

// exposed are listeners and published ports of a host, by port.
func exposed(t *testing.T, sp *reach.Space) (v4, v6 map[string][]reach.V) {
	t.Helper()
	v4, v6 = map[string][]reach.V{}, map[string][]reach.V{}
	ls, gap := sp.Listeners()
	if gap != nil {
		t.Fatal(gap.What)
	}
	for i := range ls {
		if a, err := netip.ParseAddr(ls[i].Address); err == nil && a.IsLoopback() {
			continue // a draft does not open what route_localnet does
		}
		sp.Expose(&ls[i])
		k := fmt.Sprintf("%s/%d", ls[i].Proto, ls[i].Port)
		v4[k], v6[k] = append(v4[k], ls[i].IPv4...), append(v6[k], ls[i].IPv6...)
	}
	for _, f := range sp.Flows() {
		if k := fmt.Sprintf("%s/%d", f.Proto, f.Port); f.Kind == reach.FlowNAT && f.Port != 0 {
			v4[k], v6[k] = append(v4[k], f.IPv4...), append(v6[k], f.IPv6...)
		}
	}
	return v4, v6
}

// unlisted are ports that a draft leaves out on purpose.
func unlisted(k string) bool {
	port, err := intent.ParsePort(k)
	return err != nil || slices.Contains([]string{"udp/67", "udp/68", "udp/546", "udp/547", "udp/5353", "udp/5355", "udp/1900", "udp/8472", "udp/4789", "udp/51820"}, k) || strings.HasPrefix(k, "udp/") && port.From >= 32768
}

func (h *drafted) compare(mirror bool) {
	was4, was6 := exposed(h.t, h.before)
	own4, own6 := exposed(h.t, h.alone)
	now4, now6 := exposed(h.t, h.together)
	for k := range was4 {
		if unlisted(k) {
			continue
		}
		for i := range h.links {
			l := &h.links[i]
			if _, ok := h.in.Interfaces[l.Name]; !ok {
				continue
			}
			h.family(k, l, "IPv4", was4[k], own4[k], now4[k], h.senders(l, true))
			if !mirror {
				h.family(k, l, "IPv6", was6[k], own6[k], now6[k], h.senders(l, false))
			} else {
				h.follows(k, l, was4[k], own6[k])
			}
		}
	}
}

// family compares what one interface lets in to a port: today, by our rules, and by all.
func (h *drafted) family(k string, l *fact.Link, word string, was, own, now []reach.V, senders []netip.Addr) {
	some, sure := false, true
	for _, a := range senders {
		h.asked++
		x := lets(was, l.Name, a)
		some, sure = some || x >= 0, sure && x != 0
		if x == 1 {
			h.opened++
			if lets(now, l.Name, a) == -1 {
				h.t.Errorf("%s: %s %s from %s by %s is reached today, and would not be", h.name, word, k, a, l.Name)
			}
		}
	}
	for _, a := range senders {
		if !some && sure && lets(own, l.Name, a) != -1 && !h.ofAny(was, l, a) {
			h.t.Errorf("%s: %s %s is opened to %s by %s, by which nobody reaches it today", h.name, word, k, a, l.Name)
		}
	}
}

// ofAny tells that somebody else gets in by this interface, from where no sender of ours is.
func (h *drafted) ofAny(was []reach.V, l *fact.Link, a netip.Addr) bool {
	for _, v := range was {
		if len(v.Interfaces) == 0 || slices.Contains(v.Interfaces, l.Name) {
			for _, p := range v.May {
				if h.way(p.Addr()) == l.Index || p.Bits() == 0 {
					return true
				}
			}
		}
	}
	return false
}

// follows compares IPv6 by our rules with IPv4 as it is observed.
func (h *drafted) follows(k string, l *fact.Link, was4, own6 []reach.V) {
	var in, out int
	for _, s := range h.senders(l, true) {
		switch lets(was4, l.Name, s) {
		case 1:
			in++
		case -1:
			out++
		default:
			return // nobody can tell
		}
	}
	if in+out == 0 || len(own6) == 0 {
		return
	}
	for _, s := range h.senders(l, false) {
		far := s == netip.MustParseAddr("2606:4700::1111") || s == netip.MustParseAddr("2a00:1450::77")
		got := lets(own6, l.Name, s)
		switch {
		case in == 0 && got != -1:
			h.t.Errorf("%s: IPv6 %s is opened to %s by %s, where IPv4 lets nobody in", h.name, k, s, l.Name)
		case out == 0 && got == -1:
			h.t.Errorf("%s: IPv6 %s is closed to %s by %s, where IPv4 lets everybody in", h.name, k, s, l.Name)
		case in > 0 && out > 0 && far && lets(was4, l.Name, netip.MustParseAddr("8.8.8.8")) == -1 && got != -1:
			h.t.Errorf("%s: IPv6 %s is opened to %s by %s, where IPv4 lets in some only", h.name, k, s, l.Name)
		}
		h.mirrored++
	}
}
