package cli

import (
	"bufio"
	"errors"
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

// hopPorts reads --hops. Without a value, an answering port and a silent one are chosen.
func (o *verifyOptions) hopPorts() (*probe.Spec, error) {
	if len(o.hops) == 0 {
		return nil, nil
	}
	out := &probe.Spec{}
	for _, w := range o.hops {
		if w == hopsAuto {
			continue
		}
		if err := out.Parse(strings.TrimSpace(w)); err != nil {
			var e *probe.SpecError
			if errors.As(err, &e) {
				return nil, &usageError{msg: "--hops " + e.Why, hint: e.Hint}
			}
			return nil, err
		}
	}
	if n := out.TCP.Len() + out.UDP.Len() + max(out.ICMP4.Len(), out.ICMP6.Len()); n > probe.MaxTraces {
		return nil, &usageError{msg: fmt.Sprintf("--hops names %d ports, more than %d", n, probe.MaxTraces), hint: "trace them in several runs"}
	}
	return out, nil
}

// hopsAuto is --hops without a value.
const hopsAuto = "auto"

// verifyHops writes the way to each traced port.
func verifyHops(b *bufio.Writer, j *expect.Judge, width int) {
	byAddress(b, j, "The way, hop by hop", func(a *probe.Address) bool { return len(a.Traces) > 0 }, func(a *probe.Address) {
		for _, t := range a.Traces {
			name := fmt.Sprintf("%s/%d", t.Proto, t.Port)
			var parts []string
			for _, h := range t.Hops {
				who := "*"
				if h.From.IsValid() {
					who = h.From.String()
				}
				parts = append(parts, fmt.Sprintf("%d %s", h.Hop, who))
			}
			parts = append(parts, wayEnd(a, &t))
			for _, line := range wrapText(strings.Join(parts, ", "), max(width-28, 20)) {
				fmt.Fprintf(b, "    %-11s %-11s %s\n", name, t.State, line)
				name, t.State = "", ""
			}
		}
	})
}

// wayEnd says where a way ends. A router that drops what it should hand on still says of a
// packet that its hop limit is spent, so it is the last that spoke, or the next.
func wayEnd(a *probe.Address, t *probe.Trace) string {
	last := t.Last()
	switch {
	case t.Refused > 0 && (t.Reached == 0 || t.Refused < t.Reached):
		return fmt.Sprintf("refused by %s", t.RefusedBy)
	case t.Reached > 0:
		if full := longest(a); full > t.Reached {
			return fmt.Sprintf("an answer at hop %d, and the target is at %d: something in front gives it", t.Reached, full)
		}
		return fmt.Sprintf("%d the target", t.Reached)
	case !last.From.IsValid():
		return "nobody answers"
	}
	full := longest(a)
	switch {
	case full == last.Hop+1:
		return fmt.Sprintf("ends at the target, or at hop %d", last.Hop)
	case full > last.Hop+1:
		for _, x := range a.Traces {
			if next := x.At(last.Hop + 1); next.IsValid() {
				return fmt.Sprintf("ends at hop %d, or before %s", last.Hop, next)
			}
		}
	}
	return fmt.Sprintf("ends at hop %d, or behind it", last.Hop)
}

// longest is how far the target is, as the traced ports say.
func longest(a *probe.Address) (n int) {
	for _, t := range a.Traces {
		n = max(n, t.Reached)
	}
	return n
}
