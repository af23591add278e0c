package oracle

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/logic/packetset"
)

// world is what the lab's host would answer to a route lookup.
type world struct{ names map[uint32]string }

// RTN_*.
const (
	rtnUnicast = 1
	rtnLocal   = 2
)

// FibOIF tells where the lab sends what.
func (w world) FibOIF(is4 bool, iif string, strict bool) (map[uint32]packetset.Set, bool) {
	own, fwd := local6, forward6
	if is4 {
		own, fwd = local4, forward4
	}
	var first, second []packetset.Interval
	second = append(second, packetset.PrefixInterval(netip.MustParsePrefix(fwd)), packetset.PrefixInterval(netip.MustParsePrefix(own[1])))
	rest := packetset.Normalise(second).Complement(is4)
	first = append(first, rest...)
	out := map[uint32]packetset.Set{}
	all := packetset.Set{{To: packetset.Last(is4)}}
	for i, n := range w.names {
		if strict && n != iif {
			continue
		}
		switch n {
		case Interfaces[0]:
			out[i] = packetset.Normalise(first)
		case Interfaces[1]:
			out[i] = packetset.Normalise(second)
		}
	}
	var rest2 []packetset.Interval
	for _, s := range out {
		rest2 = append(rest2, s...)
	}
	if left := packetset.Normalise(rest2).Complement(is4).Intersect(all); len(left) > 0 {
		out[0] = left
	}
	return out, true
}

// FibType is the type of an address that packets are sent to.
func (w world) FibType(a netip.Addr, iface string) (uint32, bool) {
	for i, p := range append(append([]string(nil), local4...), local6...) {
		if netip.MustParsePrefix(p).Addr() == a && (iface == "" || Interfaces[i%2] == iface) {
			return rtnLocal, true
		}
	}
	return rtnUnicast, iface == ""
}

// To is the interface towards an address.
func (w world) To(a netip.Addr) (ifindex uint32, local, ok bool) {
	if t, _ := w.FibType(a, ""); t == rtnLocal {
		return 0, true, true
	}
	by, _ := w.FibOIF(a.Is4(), "", false)
	for i, s := range by {
		if i != 0 && s.Contains(packetset.FromIP(a)) {
			return i, false, true
		}
	}
	return 0, false, false
}
