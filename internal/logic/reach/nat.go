package reach

import (
	"encoding/binary"
	"net/netip"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

func (x *run) redirect(e rs.Redirect) {
	x.changed = true
	x.env.dnat = true
	x.env.rerouted = x.env.rerouted || x.q.at.hook == rs.Output
	x.env.toLocal = true
	to, known := x.q.redirects()
	switch {
	case !known:
		x.q.opaque["address of redirect"] = true
		x.env.daddr, x.env.daddrLost = netip.Addr{}, true
	case !to.IsValid(): // no address to redirect to
		x.conclude(rs.Drop, "", false)
		return
	default:
		x.env.daddr, x.env.daddrLost = to, false
	}
	x.toPorts(e.HasProto, e.HasProtoMax, e.ProtoMin, e.ProtoMax)
}

// redirector is a World that knows where redirect leads: to an address of the interface
// that a packet came in by. An invalid one says that there is none.
type redirector interface {
	Redirect(iface string, daddr netip.Addr) (to netip.Addr, known bool)
}

// redirects is the address that redirect chooses (nf_nat_redirect_ipv4, nf_nat_redirect_ipv6).
func (q *question) redirects() (netip.Addr, bool) {
	if q.at.hook == rs.Output && !q.at.any {
		if q.is4() {
			return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
		}
		return netip.IPv6Loopback(), true
	}
	if w, ok := q.world.(redirector); ok && q.p.IIF.Set && q.p.Daddr.Set {
		return w.Redirect(q.p.IIF.V, q.p.Daddr.V)
	}
	return netip.Addr{}, false
}

const chosenByNAT = "which address or port NAT chooses"

// maxChoices is how many addresses and ports of NAT are followed one by one.
const maxChoices = 16

// toPorts ends a rule that chose a new destination, once for every port that it may have.
func (x *run) toPorts(has, hasMax bool, from, to rs.Reg) {
	if !has {
		x.conclude(rs.Accept, "", false)
		return
	}
	low := port(x.reg.at(from, 2))
	high := low
	if hasMax {
		high = port(x.reg.at(to, 2))
	}
	if low == -2 || high < low || high-low >= maxChoices {
		if low != high || low == -2 {
			low, high = -2, -2
		}
	}
	if low != high {
		x.q.opaque[chosenByNAT] = true
	}
	for p := low; p <= high; p++ {
		y := *x
		y.env.dport, y.beside = p, x.beside || p > low
		y.conclude(rs.Accept, "", false)
	}
}

func port(b []abyte) int32 {
	if c, ok := constantBytes(b); ok {
		return int32(binary.BigEndian.Uint16(c))
	}
	return -2
}

// nat rewrites an address; false when the rule is not for this family and goes on.
func (x *run) nat(e rs.Nat) bool {
	if e.Family != rs.Inet && e.Family != x.q.p.Family && e.Family != 0 {
		return false
	}
	x.changed = true
	if !e.Dst || e.ByHook && x.q.at.hook != rs.Prerouting && x.q.at.hook != rs.Output {
		x.env.saddrLost, x.env.snat = true, true
		x.env.transLost |= 3
		x.conclude(rs.Accept, "", false)
		return true
	}
	x.env.dnat = true
	x.env.rerouted = x.env.rerouted || x.q.at.hook == rs.Output
	addrs := []netip.Addr{{}}
	if e.HasAddr {
		addrs = x.newAddrs(e)
	}
	if len(addrs) > 1 {
		x.q.opaque[chosenByNAT] = true
	}
	for i, a := range addrs {
		y := *x
		y.beside = x.beside || i > 0
		if e.HasAddr {
			y.env.daddr, y.env.daddrLost = a, !a.IsValid()
		}
		y.toPorts(e.HasProto, e.HasProtoMax, e.ProtoMin, e.ProtoMax)
	}
	return true
}

// newAddrs are the addresses that destination NAT may choose; an invalid one says that
// they are not known.
func (x *run) newAddrs(e rs.Nat) []netip.Addr {
	n := 16
	if x.q.is4() {
		n = 4
	}
	lost := []netip.Addr{{}}
	low, ok := constantBytes(x.reg.at(e.AddrMin, n))
	if !ok {
		return lost
	}
	high := low
	if e.HasAddrMax {
		if high, ok = constantBytes(x.reg.at(e.AddrMax, n)); !ok {
			return lost
		}
	}
	from, _ := netip.AddrFromSlice(low)
	to, _ := netip.AddrFromSlice(high)
	const netmap = 64 // NF_NAT_RANGE_NETMAP: the bits that differ come from the old address
	if e.Flags&netmap != 0 {
		old, ok := constantBytes(x.q.net(&x.env)[map[int]int{4: 16, 16: 24}[n]:][:n])
		if !ok {
			return lost
		}
		for i := range old {
			host := low[i] ^ high[i]
			old[i] = old[i]&host | low[i]&^host
		}
		a, _ := netip.AddrFromSlice(old)
		return []netip.Addr{a}
	}
	var out []netip.Addr
	for a := from; a.IsValid() && a.Compare(to) <= 0; a = a.Next() {
		if out = append(out, a); len(out) > maxChoices {
			return lost
		}
	}
	if len(out) == 0 {
		return lost
	}
	return out
}
