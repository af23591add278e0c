package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/expect"
	"github.com/sixfence/sixfence/internal/model/probe"
	"github.com/sixfence/sixfence/internal/surface/report"
)

// wayNotes say what the answers of an address show of the way to it.
func wayNotes(a *probe.Address, lead string) (out []string) {
	if ds := a.Distances(); len(ds) > 1 {
		var parts []string
		for _, d := range ds {
			var ports []string
			for _, p := range slices.Sorted(maps.Keys(d.Ports)) {
				var set probe.Ports
				_ = set.AddList(d.Ports[p]) // as Ports.List wrote it
				ports = append(ports, p+"/"+set.Short())
			}
			parts = append(parts, fmt.Sprintf("%s from %s away", strings.Join(ports, " "), plural(d.Hops, "hop", "hops")))
		}
		out = append(out, lead+": its answers do not come from one place: "+strings.Join(parts, ", ")+"; something in front answers for it (a proxy, a load balancer, a firewall that sends resets)")
	}
	segments := a.Segments()
	for _, mss := range slices.Sorted(maps.Keys(segments)) {
		size := probe.PacketOf(mss, a.Addr)
		switch {
		case mss == 0:
			out = append(out, fmt.Sprintf("%s: tcp/%s does not say how large segments may be (no MSS): %d bytes are sent to it", lead, segments[0].Short(), map[bool]int{true: 536, false: 1220}[a.Addr.Is4()]))
		case a.Path != nil && a.Path.Verdict != probe.PathHole && a.Path.MTU > size:
			out = append(out, fmt.Sprintf("%s: tcp/%s takes segments of %d bytes (MSS), packets of %d, though %d come through: something clamps it", lead, segments[mss].Short(), mss, size, a.Path.MTU))
		}
	}
	return out
}

// segmentNotes compare what the families of a host say of the size of segments.
func segmentNotes(j *expect.Judge) (out []string) {
	type host struct{ via, target string }
	sizes := map[host]map[int][]string{}
	for _, a := range j.Addresses {
		h := host{a.Via, a.Target}
		if j.Together {
			h.target = "the target"
		}
		for mss := range a.Segments() {
			if mss == 0 {
				continue
			}
			size := probe.PacketOf(mss, a.Addr)
			if sizes[h] == nil {
				sizes[h] = map[int][]string{}
			}
			w := map[bool]string{true: "IPv4", false: "IPv6"}[a.Addr.Is4()] + fmt.Sprintf(" (MSS %d)", mss)
			if !slices.Contains(sizes[h][size], w) {
				sizes[h][size] = append(sizes[h][size], w)
			}
		}
	}
	for h, of := range sizes {
		if len(of) < 2 {
			continue
		}
		var parts []string
		for _, n := range slices.Sorted(maps.Keys(of)) {
			parts = append(parts, fmt.Sprintf("packets of %d over %s", n, strings.Join(of[n], ", ")))
		}
		lead := report.Clean(h.target)
		if h.via != "" {
			lead = h.via + " says of " + lead
		}
		out = append(out, lead+": TCP is not of one size: "+strings.Join(parts, ", ")+"; a tunnel, or a router that clamps")
	}
	return out
}
