package probe

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Bounds of what is claimed about header chains.
const (
	maxChained   = 4096
	chainedBytes = 16 << 10 // of one chain and protocol, in JSON
	maxHop       = 64
)

// claimedChains reads what is said about header chains of one address.
func claimedChains(b json.RawMessage, e *Errand, spec *Spec, a netip.Addr) (out []Chained, err error) {
	err = list(b, maxChained, func(b json.RawMessage) error {
		var c Chained
		if err := strict(b, &c); err != nil {
			return err
		}
		known, ok := ChainOf(c.Chain)
		switch {
		case !ok || !known.Of(a) || !slices.Contains(e.Chains, c.Chain), !slices.Contains(protocols, c.Proto), !asks(spec, a, c.Proto, Plain):
			return fmt.Errorf("%.40q was not asked for", string(c.Chain)+" "+c.Proto)
		case !slices.Contains(Fates(), c.Fate):
			return fmt.Errorf("%.40q is no fate", c.Fate)
		case !slices.Contains(append(States(), ""), c.Plain):
			return fmt.Errorf("%.40q is no state", c.Plain)
		}
		if err := claimedReason(c.Reason, a); err != nil {
			return err
		}
		var ports Ports
		if err := ports.addAscending(c.Ports); err != nil {
			return err
		}
		for p := range ports.All {
			if !spec.Of(c.Proto).Has(p) {
				return fmt.Errorf("%s/%d was not asked for", c.Proto, p)
			}
		}
		if x := c.Eaten; x != nil && (x.Hop < 0 || x.Hop > maxHop || !routerOf(x.Last, a) || !routerOf(x.Next, a)) {
			return errors.New("a place on the way that cannot be")
		}
		out = append(out, c)
		return nil
	})
	return out, err
}

// routerOf tells whether an address can be one on the way to another.
func routerOf(x, a netip.Addr) bool {
	return !x.IsValid() || x.Zone() == "" && x.BitLen() == a.BitLen()
}

// claimedReason checks a reason that somebody else wrote.
func claimedReason(r Reason, a netip.Addr) error {
	switch {
	case !slices.Contains(States(), r.State):
		return fmt.Errorf("%.40q is no state", r.State)
	case len(r.Why) > maxName || strings.Trim(r.Why, "abcdefghijklmnopqrstuvwxyz-") != "":
		return fmt.Errorf("%.80q is no reason", r.Why)
	case !routerOf(r.From, a):
		return fmt.Errorf("a sender that cannot be: %.80q", r.From)
	}
	return nil
}

// claimedTraces reads what is said about the way to some ports.
func claimedTraces(b json.RawMessage, e *Errand, spec *Spec, a netip.Addr) (out []Trace, err error) {
	err = list(b, MaxTraces, func(b json.RawMessage) error {
		var c struct {
			Trace
			Hops json.RawMessage `json:"hops"`
		}
		if err := strict(b, &c); err != nil {
			return err
		}
		t := c.Trace
		switch {
		case !e.Trace || !slices.Contains(protocols, t.Proto) || !asks(spec, a, t.Proto, Plain) || !spec.Of(t.Proto).Has(t.Port):
			return fmt.Errorf("the way to %.40q was not asked for", fmt.Sprintf("%s/%d", t.Proto, t.Port))
		case !slices.Contains(append(States(), ""), t.State):
			return fmt.Errorf("%.40q is no state", t.State)
		case t.Reached < 0 || t.Reached > maxHop || t.Refused < 0 || t.Refused > maxHop || !routerOf(t.RefusedBy, a):
			return errors.New("a place on the way that cannot be")
		}
		t.Hops = []Hop{}
		if err := list(c.Hops, maxHop, func(b json.RawMessage) error {
			var h Hop
			if err := strict(b, &h); err != nil {
				return err
			}
			if h.Hop != len(t.Hops)+1 || !routerOf(h.From, a) {
				return errors.New("a hop that cannot be")
			}
			t.Hops = append(t.Hops, h)
			return nil
		}); err != nil {
			return err
		}
		out = append(out, t)
		return nil
	})
	return out, err
}
