package reach

import (
	"math"
	"slices"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// stop is a hook on the way of a packet, with what its chains are told: a hook of IP, or
// one of the bridge that it crosses.
type stop struct {
	hook    rs.Hook
	bridge  bool        // of family bridge
	in, out Opt[string] // "" is none
	// from and to bound the priorities of its chains: between them the kernel does
	// something of its own.
	from, to int32
	link     linkHeader
	routed   bool // the hop limit was counted down
	// decides: IP chooses here between delivering and forwarding.
	decides bool
	// called: a bridge hands the packet to the hook of IP (br_netfilter).
	called bool
	other  bool // the bridge takes the packet for another host's (PACKET_OTHERHOST)
	bare   bool // no hook of IP has seen the packet yet
}

// linkHeader is the link header that a packet bears.
type linkHeader uint8

const (
	noHeader  linkHeader = iota // made here, not yet sent
	cameWith                    // the one that it came with
	leavesBy                    // the one that it leaves with
	someOther                   // one of the two
)

func at(h rs.Hook, in, out Opt[string], link linkHeader) stop {
	return stop{hook: h, in: in, out: out, from: math.MinInt32, to: math.MaxInt32, link: link}
}

var nowhere = Some("")

// direct is the way of a packet that meets no bridge.
func (q *question) direct(h rs.Hook, only bool) []stop {
	hooks := hooksOf(h)
	if only {
		hooks = []rs.Hook{h}
	}
	var out []stop
	for i, h := range hooks {
		s := at(h, q.p.IIF, q.p.OIF, cameWith)
		switch {
		case h == rs.Egress: // its chains are told nothing of the way in (nf_hook_egress)
			s.link, s.in = leavesBy, nowhere
		case q.p.Local:
			s.link = noHeader
		}
		s.routed = !q.p.Local && (h == rs.Forward || h == rs.Postrouting || h == rs.Egress)
		s.decides = i > 0 && hooks[i-1] == rs.Prerouting
		out = append(out, s)
	}
	return out
}

// ways are the ways that a packet may take, of which only one is the right one: why says
// what would have to be known to tell them apart.
func (q *question) ways(h rs.Hook, only bool) (ways [][]stop, why string) {
	if only || h != rs.Input && h != rs.Forward && h != rs.Output || !q.uses.bridged && !q.uses.ports && !q.underBridge() {
		return [][]stop{q.direct(h, only)}, ""
	}
	in, inKnown := q.bridgeOf(q.p.IIF)
	out, outKnown := q.bridgeOf(q.p.OIF)
	if q.p.Local {
		in, inKnown = "", true
	}
	if h == rs.Input {
		out, outKnown = "", true
	}
	calls, callsKnown := q.set.BridgeCalls[q.p.Family]
	if in == "" && inKnown {
		callsKnown = true
	}
	for _, viaIn := range choice(in != "", inKnown) {
		for _, viaOut := range choice(out != "", outKnown) {
			for _, called := range choice(calls, callsKnown) {
				for _, tie := range choice(false, !q.tiesBridge(h, viaIn && called)) {
					b := bridging{q: q, in: viaIn, out: viaOut, called: called && viaIn, tie: tie}
					if h == rs.Forward && viaIn && viaOut && in == out {
						ways = append(ways, b.switched())
						if q.port != "" && q.outPort != "" {
							continue // IP would send by the bridge
						}
					}
					ways = append(ways, b.way(h))
				}
			}
		}
	}
	switch {
	case !inKnown || !outKnown:
		why = "whether an interface is a bridge"
	case !callsKnown:
		why = "whether the bridge hands packets to the hooks of IP"
	case len(ways) > 1:
		why = "what comes first on a bridge"
	}
	return ways, why
}

func choice(v, known bool) []bool {
	if known {
		return []bool{v}
	}
	return []bool{false, true}
}

// bridgeOf is the bridge that an interface is; "" for others. known is false where
// nothing says what it is.
func (q *question) bridgeOf(o Opt[string]) (name string, known bool) {
	switch {
	case o.Set && o.V == "lo":
		return "", true
	case len(q.set.Types) == 0:
		return "", false
	case !o.Set:
		return "", len(q.set.Bridges) == 0
	}
	if _, ok := q.set.Bridges[o.V]; ok {
		return o.V, true
	}
	return "", true
}

// ports turns the ports of bridges that a question names into the bridges: those are the
// interfaces that IP knows.
func (q *question) ports() {
	q.port, q.p.IIF = q.portOf(q.p.IIF)
	q.outPort, q.p.OIF = q.portOf(q.p.OIF)
}

func (q *question) portOf(o Opt[string]) (string, Opt[string]) {
	if o.Set {
		for bridge, ports := range q.set.Bridges {
			if slices.Contains(ports, o.V) {
				return o.V, Some(bridge)
			}
		}
	}
	return "", o
}

// underBridge tells that the way over a bridge matters although no chain of its family
// does: the packet never leaves it, or chains hang on its ports.
func (q *question) underBridge() bool {
	if len(q.set.Bridges) == 0 {
		return false
	}
	if in, out := q.port != "", q.outPort != ""; in && out || (in || out) && q.p.IIF == q.p.OIF {
		return true
	}
	for _, o := range []Opt[string]{q.p.IIF, q.p.OIF} {
		for _, port := range q.set.Bridges[o.V] {
			if slices.ContainsFunc(q.uses.devices, func(d string) bool { return device(d, port) }) {
				return true
			}
		}
	}
	return false
}

// tiesBridge tells that a chain has the priority at which br_netfilter calls the hooks of
// IP: which was there first cannot be read.
func (q *question) tiesBridge(h rs.Hook, called bool) bool {
	return called && (q.uses.atCall[rs.Prerouting] || h == rs.Forward && q.uses.atCall[rs.Forward])
}

// priorityOfCall is where br_netfilter stands among the chains of a bridge (NF_BR_PRI_BRNF).
func priorityOfCall(h rs.Hook) int32 {
	if h == rs.Forward {
		return -1
	}
	return 0
}

// bridging makes the way of a packet that comes in or leaves by a bridge.
type bridging struct {
	q       *question
	in, out bool // it comes in, it leaves by a bridge
	called  bool
	tie     bool // chains of equal priority come before br_netfilter
}

func (b bridging) at(h rs.Hook, in, out Opt[string], link linkHeader) stop {
	s := at(h, in, out, link)
	s.bridge = true
	return s
}

// port is a port of a bridge: the one that the question names, or the only one.
func (b bridging) port(named string, of Opt[string]) Opt[string] {
	if named != "" {
		return Some(named)
	}
	if ports := b.q.set.Bridges[of.V]; len(ports) == 1 {
		return Some(ports[0])
	}
	return Opt[string]{}
}

// around are the chains of a bridge before and behind the call of a hook of IP.
func (b bridging) around(s stop, prio int32, call stop) []stop {
	if !b.called {
		return []stop{s}
	}
	before, behind := s, s
	before.to, behind.from = prio-1, prio
	if b.tie {
		before.to, behind.from = prio, prio+1
	}
	call.called = true
	before.bare, behind.bare = s.bare, false
	return []stop{before, call, behind}
}

// arrive is the way up to the bridge's decision where the frame goes (br_handle_frame).
func (b bridging) arrive(other bool) []stop {
	q := b.q
	port := b.port(q.port, q.p.IIF)
	pre := b.at(rs.Prerouting, port, nowhere, cameWith)
	ingress := at(rs.Ingress, port, nowhere, cameWith)
	ingress.other, pre.other = other, other
	ingress.bare, pre.bare = true, true
	return append([]stop{ingress}, b.around(pre, priorityOfCall(rs.Prerouting), at(rs.Prerouting, q.p.IIF, nowhere, cameWith))...)
}

// leave is the way of a packet that IP sends by the bridge (br_dev_xmit).
func (b bridging) leave() []stop {
	port := b.port(b.q.outPort, b.q.p.OIF)
	out := []stop{
		b.at(rs.Output, nowhere, port, leavesBy), b.at(rs.Postrouting, nowhere, port, leavesBy), at(rs.Egress, nowhere, port, leavesBy),
	}
	for i := range out {
		out[i].routed = !b.q.p.Local
	}
	return out
}

// way is that of a packet that IP delivers, forwards or sends.
func (b bridging) way(h rs.Hook) []stop {
	direct := b.q.direct(h, false)
	var out []stop
	if b.in {
		in := b.at(rs.Input, b.port(b.q.port, b.q.p.IIF), nowhere, cameWith)
		in.bare = !b.called
		out = append(b.arrive(false), in)
		if b.called { // ip_sabotage_in
			direct = slices.Delete(direct, 1, 2)
		}
	}
	out = append(out, direct...)
	if b.out {
		out = append(out, b.leave()...)
	}
	return out
}

// switched is the way of a frame from one port to another.
func (b bridging) switched() []stop {
	q := b.q
	in, out := b.port(q.port, q.p.IIF), b.port(q.outPort, q.p.OIF)
	way := append(b.arrive(true),
		b.around(b.at(rs.Forward, in, out, cameWith), priorityOfCall(rs.Forward), at(rs.Forward, q.p.IIF, q.p.OIF, cameWith))...)
	way = append(way, b.at(rs.Postrouting, nowhere, out, cameWith))
	if b.called {
		post := at(rs.Postrouting, nowhere, q.p.OIF, cameWith)
		post.called = true
		way = append(way, post)
	}
	way = append(way, at(rs.Egress, nowhere, out, cameWith))
	for i := range way {
		way[i].other, way[i].bare = !way[i].called, way[i].bare || !b.called
	}
	return way
}

// bridgeName is the bridge of the port that a hook shows (nft_meta_bridge_get_eval);
// "" for what is none.
func (q *question) bridgeName(out bool) Opt[string] {
	if q.at.any || !q.way.bridge {
		return Opt[string]{}
	}
	port, of := q.way.in, q.p.IIF
	if out {
		port, of = q.way.out, q.p.OIF
	}
	if port == nowhere {
		return nowhere
	}
	if name, known := q.bridgeOf(of); known && name != "" {
		return Some(name)
	}
	return Opt[string]{}
}

// strays are packets that NAT sends another way than the one that was asked about: which
// bridge that way leads over is not followed.
func (w *walker) strays(groups []group, forward bool) {
	if !forward || !w.q.uses.bridged {
		return
	}
	for _, g := range groups {
		w.q.opaque["route after NAT"] = true
		w.reach(g, Accepted|Dropped)
	}
}

// switchedNAT is destination NAT before the bridge decides where a frame goes
// (br_nf_pre_routing_finish): it may send it elsewhere, or back.
func (w *walker) switchedNAT(groups []group) {
	for _, g := range groups {
		if g.env.dnat || g.env.daddrLost {
			w.q.opaque["what the bridge does with a packet that NAT sends back"] = true
			w.reach(g, Accepted|Dropped)
		}
	}
}

// bridgePort is physdev_mt (net/netfilter/xt_physdev.c): what it knows are the ports of
// packets that a bridge handed up.
func (q *question) bridgePort(e rs.BridgePort) cond {
	unsure := func() cond {
		q.opaque["the port of a bridge"] = true
		return perhaps
	}
	handed := q.way.called
	switch {
	case q.at.any, !handed && q.wasHanded():
		return unsure() // whether the kernel still knows depends on its version
	case !handed:
		return constant(e.Match&^e.Invert == 0)
	}
	in, out := q.port, ""
	if q.way.hook != rs.Prerouting {
		out = q.outPort
	}
	if in == "" || q.way.hook != rs.Prerouting && out == "" {
		q.needs |= 1 << fieldIIF
		return unsure()
	}
	is := func(bit uint8, v bool) bool { return e.Match&bit == 0 || v == (e.Invert&bit == 0) }
	ok := is(rs.PortBridged, out != "") && is(rs.PortIsIn, true) && is(rs.PortIsOut, out != "") && is(rs.PortIn, device(e.In, in))
	if e.Match&rs.PortOut != 0 {
		ok = ok && out != "" && is(rs.PortOut, device(e.Out, out))
	}
	return constant(ok)
}

// wasHanded tells that the packet may have met hooks of IP on a bridge before.
func (q *question) wasHanded() bool {
	called, known := q.set.BridgeCalls[q.p.Family]
	in, isKnown := q.bridgeOf(q.p.IIF)
	return !q.p.Local && (called || !known) && (in != "" || !isKnown)
}
