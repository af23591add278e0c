package reach

import (
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// martian drops a traced packet whose source the kernel itself refuses on its way to the
// input or forward hook, whatever the rules say (ip_rcv_finish, fib_validate_source,
// ip6_rcv_core). Without facts of the host only what no setting changes is refused.
func (sp *Space) martian(t Trace, p Packet, h rs.Hook, only bool) Trace {
	if only || h != rs.Input && h != rs.Forward || !p.IIF.Set || !p.Saddr.Set || p.Local || !slices.Contains(t.May, WordAccept) {
		return t
	}
	if p.Ct.Set && p.Ct.V&CtEstablished != 0 {
		return t // a socket that knows the flow takes it without a route (tcp_v4_early_demux)
	}
	is4, src := p.Family == rs.IPv4, packetset.FromIP(p.Saddr.V)
	if is4 && p.Saddr.V == netip.IPv4Unspecified() && (!p.Daddr.Set || p.Daddr.V == limitedBroadcast || p.Daddr.V.IsLinkLocalMulticast()) {
		return t // a host that asks for its address
	}
	var refused, perhaps packetset.Set
	if i := slices.IndexFunc(sp.links, func(l fact.Link) bool { return l.Name == p.IIF.V }); i >= 0 {
		if loopback(&sp.links[i]) {
			return t
		}
		ok, maybe := sp.kernel(is4, "", &sp.links[i])
		refused, perhaps = maybe.Complement(is4), ok.Complement(is4)
	} else if p.IIF.V != "lo" {
		refused = bogus6
		if is4 {
			refused, perhaps = bogus4.Intersect(local4.Complement(true)), local4
		}
	}
	if is4 && (!p.Daddr.Set || p.Daddr.V == limitedBroadcast) {
		// To everybody on the link a loopback address is looked up like any other.
		refused, perhaps = refused.Intersect(local4.Complement(true)), unite(perhaps, local4)
	}
	switch {
	case refused.Contains(src):
		t.Path = append(t.Path, Visited{RuleRef: RuleRef{Rule: "the kernel refuses this source address from " + p.IIF.V}, Result: WordDrop})
		t.May = slices.DeleteFunc(t.May, func(w string) bool { return w == WordAccept })
		if !slices.Contains(t.May, WordDrop) {
			t.May = append(t.May, WordDrop)
		}
		if len(t.May) == 1 {
			t.Verdict, t.Limited, t.Needs, t.Unclear = WordDrop, false, []string{}, []string{}
		}
	case perhaps.Contains(src):
		t.Unclear = append(t.Unclear, "whether the kernel takes this source address from "+p.IIF.V)
		t.Verdict = WordUnknown
		if !slices.Contains(t.May, WordDrop) {
			t.May = append(t.May, WordDrop)
		}
	}
	return t
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
