package probe

import (
	"net/netip"
	"slices"
)

// Distance is how many routers an answer has met, as its hop limit says: hosts begin with 64,
// 128 or 255, some with 32.
func Distance(hopLimit uint8) int {
	for _, n := range []uint8{32, 64, 128, 255} {
		if hopLimit <= n {
			return int(n - hopLimit)
		}
	}
	return 0
}

// Distant are answers of one address that have met as many routers.
type Distant struct {
	Hops int `json:"hops"`
	// HopLimit is that of the first of them.
	HopLimit uint8 `json:"hopLimit"`
	// Ports by protocol: tcp, udp, icmp, icmpv6.
	Ports map[string]string `json:"ports"`
}

// Distances are the answers of an address by the way that they have come, the nearest first.
// Where there is more than one, something in front of the host answers for it, or hands some
// of its ports to another: a proxy, a load balancer, a firewall that sends resets.
func (a *Address) Distances() []Distant {
	sets := map[int]map[string]*Ports{}
	first := map[int]uint8{}
	for _, t := range a.Tables {
		if t.Variant != Plain {
			continue
		}
		for port := range t.Want.All {
			r := t.At(port)
			if r.HopLimit == 0 || r.ICMP && r.From != a.Addr.WithZone("") {
				continue
			}
			d := Distance(r.HopLimit)
			if sets[d] == nil {
				sets[d], first[d] = map[string]*Ports{}, r.HopLimit
			}
			if sets[d][t.Proto] == nil {
				sets[d][t.Proto] = &Ports{}
			}
			sets[d][t.Proto].Add(port)
		}
	}
	out := []Distant{}
	for d, protos := range sets {
		x := Distant{Hops: d, HopLimit: first[d], Ports: map[string]string{}}
		for proto, set := range protos {
			x.Ports[proto] = set.List()
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(x, y Distant) int { return x.Hops - y.Hops })
	return out
}

// Segments are the largest TCP segments that the open ports of an address say that they take
// (MSS), and which ports; 0: they do not say. Empty: nobody has looked at bare packets.
func (a *Address) Segments() map[uint16]*Ports {
	out := map[uint16]*Ports{}
	for _, t := range a.Tables {
		if t.Variant != Plain || t.Proto != "tcp" {
			continue
		}
		for port := range t.Want.All {
			if r := t.At(port); r.State == Open && r.HopLimit != 0 {
				if out[r.MSS] == nil {
					out[r.MSS] = &Ports{}
				}
				out[r.MSS].Add(port)
			}
		}
	}
	return out
}

// PacketOf is the size of a packet with such a segment.
func PacketOf(mss uint16, a netip.Addr) int {
	if a.Is4() {
		return int(mss) + 40
	}
	return int(mss) + 60
}
