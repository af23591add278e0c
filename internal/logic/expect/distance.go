package expect

import (
	"fmt"

	"github.com/sixfence/sixfence/internal/model/probe"
)

// throughTCP says what a hole in the path means for TCP, which never sends what does not fit
// into the segments that both sides offer.
func throughTCP(a *probe.Address, mtu int) string {
	if a.Path.Way == "back" {
		return "" // what it sends is bounded by what we offer
	}
	small, large := 0, 0
	for mss := range a.Segments() {
		if mss != 0 && probe.PacketOf(mss, a.Addr) <= mtu {
			small++
		} else {
			large++
		}
	}
	switch {
	case small > 0 && large == 0:
		return "; its TCP ports offer segments that fit (MSS), so TCP gets through to it and what is large of UDP does not"
	case large > 0:
		return "; its TCP ports offer larger segments (MSS), so connections hang once they carry data"
	}
	return ""
}

// distance says where an answer came from when the address does not answer from one place;
// empty: nothing shows that.
func (b *builder) distance(r *Result) string {
	if r.HopLimit == 0 || r.from == nil {
		return ""
	}
	all, ok := b.distances[r.from]
	if !ok {
		if b.distances == nil {
			b.distances = map[*probe.Address][]probe.Distant{}
		}
		all = r.from.Distances()
		b.distances[r.from] = all
	}
	mine := probe.Distance(r.HopLimit)
	if len(all) < 2 || mine == all[len(all)-1].Hops {
		return ""
	}
	return fmt.Sprintf("that answer came from %s away, and others of this address from %d: something in front of the host gives it", hops(mine), all[len(all)-1].Hops)
}

func hops(n int) string {
	if n == 1 {
		return "1 hop"
	}
	return fmt.Sprintf("%d hops", n)
}

// ends says where packets to ports end that were traced and do not get there.
func ends(r *Result, ports *probe.Ports) string {
	if r.from == nil || r.Variant != probe.Plain {
		return ""
	}
	for _, t := range r.from.Traces {
		last := t.Last()
		switch {
		case t.Proto != r.Proto || !ports.Has(t.Port) || t.Reached > 0:
		case t.Refused > 0:
			return fmt.Sprintf("packets to %s/%d are refused by %s", t.Proto, t.Port, t.RefusedBy)
		case last.From.IsValid():
			return fmt.Sprintf("packets to %s/%d end at hop %d (%s), or right behind it", t.Proto, t.Port, last.Hop, last.From)
		}
	}
	return ""
}
