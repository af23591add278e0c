package reach

import (
	"maps"
	"net/netip"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// NFTA_FIB_F_* and NFT_FIB_RESULT_* (include/uapi/linux/netfilter/nf_tables.h).
const (
	fibSaddr   = 1
	fibDaddr   = 2
	fibMark    = 4
	fibIIF     = 8
	fibOIF     = 16
	fibPresent = 32

	fibResultOIF      = 1
	fibResultOIFName  = 2
	fibResultAddrType = 3
)

// fib asks the routing table (net/ipv6/netfilter/nft_fib_ipv6.c).
func (q *question) fib(reg *regs, x rs.Fib, e *env) cond {
	load := func(b []abyte) cond { reg.put(x.Dreg, b); return always }
	lost := func() cond { q.opaque["fib"] = true; return load(open(16)) }
	if x.Result == fibResultAddrType && x.Flags&fibDaddr != 0 && e.toLocal && e.daddrLost && !q.at.any {
		return load(q.u32(rtnLocal)) // redirect takes an address of this host, whichever
	}
	// The mark matters to routing rules that ask for it: of a host that has any, the
	// World knows no routes.
	if q.daddrType != 0 && x.Result == fibResultAddrType && x.Flags&^fibMark == fibDaddr && !e.daddr.IsValid() && !q.at.any {
		if _, dst := q.rewritten(e); !dst {
			return load(q.u32(q.daddrType))
		}
	}
	if q.world == nil || x.Flags&fibOIF != 0 {
		return lost()
	}
	if x.Flags&fibIIF != 0 && !q.p.IIF.Set && !q.p.Local {
		q.needs |= 1 << fieldIIF
		return lost()
	}
	if q.at.any {
		e = &env{} // where sources part does not depend on what rules did
	}
	src, dst := q.rewritten(e)
	if dst && x.Flags&fibDaddr != 0 || src && x.Flags&fibSaddr != 0 {
		q.opaque["a field that a rule rewrote"] = true
		return lost()
	}
	if x.Result == fibResultAddrType && x.Flags&fibDaddr != 0 && q.p.Daddr.Set {
		daddr := q.p.Daddr.V
		if e.daddr.IsValid() {
			daddr = e.daddr
		}
		iface := ""
		if x.Flags&fibIIF != 0 {
			iface = q.p.IIF.V
		}
		t, ok := q.world.FibType(daddr, iface)
		if !ok {
			return lost()
		}
		return load(q.u32(t))
	}
	if x.Result == fibResultAddrType && x.Flags&fibSaddr != 0 && (q.p.Saddr.Set || q.is4()) {
		iface := ""
		if x.Flags&fibIIF != 0 {
			iface = q.p.IIF.V
		}
		if !q.p.Saddr.Set {
			by, ok := q.world.FibTypes4(iface)
			if !ok {
				return lost()
			}
			var alts []alternative
			for t, set := range by {
				alts = append(alts, alternative{cond{yes: set, may: set}, q.order.AppendUint32(nil, t)})
			}
			return load(q.choose(alts))
		}
		t, ok := q.world.FibType(q.p.Saddr.V, iface)
		if !ok {
			return lost()
		}
		return load(q.u32(t))
	}
	if x.Result != fibResultOIF && x.Result != fibResultOIFName || x.Flags&fibSaddr == 0 || q.p.Local {
		return lost()
	}
	if !q.p.IIF.Set {
		q.needs |= 1 << fieldIIF
		return lost()
	}
	answer := func(out uint32) []byte {
		switch {
		case x.Flags&fibPresent != 0:
			if out != 0 {
				return []byte{1}
			}
			return []byte{0}
		case x.Result == fibResultOIF:
			return q.order.AppendUint32(nil, out)
		}
		data := make([]byte, 16)
		copy(data, q.set.Interfaces[out])
		return data
	}
	if q.p.IIF.V == "lo" {
		// Loopback packets skip the lookup (nft_fib_can_skip): lo is the answer.
		for i, n := range q.set.Interfaces {
			if n == "lo" {
				return load(knownBytes(answer(i)))
			}
		}
		return lost()
	}
	by, ok := q.world.FibOIF(q.is4(), q.p.IIF.V, x.Flags&fibIIF != 0)
	if !ok {
		return lost()
	}
	skips := q.fibSkips()
	switch skips {
	case yes:
		by = q.skipped(by)
	case maybe: // the interface itself is an answer, even where no route leads back by it
		by = maps.Clone(by)
		for dev, name := range q.set.Interfaces {
			if _, has := by[dev]; name == q.p.IIF.V && !has {
				by[dev] = packetset.Set{}
			}
		}
	}
	var alts []alternative
	for out, set := range by {
		data := answer(out)
		c := cond{yes: set, may: set}
		if skips == maybe { // what is not looked up may have this answer or the interface itself
			c.yes = set.Intersect(q.skippedSources().Complement(q.is4()))
			if q.set.Interfaces[out] == q.p.IIF.V {
				c.may = packetset.Normalise(append(append([]packetset.Interval{}, set...), q.skippedSources()...))
			}
		}
		if s := q.p.Saddr; s.Set {
			x := packetset.FromIP(s.V)
			c = cond{yesAll: c.yes.Contains(x), mayAll: c.may.Contains(x)}
		}
		alts = append(alts, alternative{c, data})
	}
	if skips == maybe {
		q.needs |= 1 << fieldDaddr
	}
	return load(q.choose(alts))
}

// fibSkips tells whether the lookup of some sources (skippedSources) is taken for
// granted: ICMPv6 to one link in prerouting, duplicate address detection above all
// (nft_fib_v6_skip_icmpv6); IPv4 to one link, as from hosts that ask for an address
// (nft_fib4_eval).
func (q *question) fibSkips() tri {
	d, s := q.p.Daddr, q.p.Saddr
	if s.Set && !q.skippedSources().Contains(packetset.FromIP(s.V)) {
		return no
	}
	if q.is4() {
		switch {
		case q.at.any:
			return yes // where sources part
		case !d.Set:
			return maybe
		case d.V == netip.AddrFrom4([4]byte{255, 255, 255, 255}), linkGroups4.Contains(d.V):
			return yes
		}
		return no
	}
	switch {
	case q.p.Proto.Set && q.p.Proto.V != 58,
		d.Set && !d.V.IsLinkLocalUnicast() && !d.V.IsMulticast(),
		!q.at.any && q.at.hook != rs.Prerouting && q.at.hook != rs.Ingress:
		return no
	case q.at.any:
		return yes
	case !d.Set || !q.p.Proto.Set || q.at.hook == rs.Ingress:
		return maybe
	}
	return yes
}

func (q *question) skippedSources() packetset.Set {
	return anySet // of 0.0.0.0/8, too, nothing else since Linux 5.3 (ipv4_is_zeronet)
}

var linkGroups4 = netip.MustParsePrefix("224.0.0.0/24")

// skipped gives the sources that are not looked up to the interface the packet came in by.
func (q *question) skipped(by map[uint32]packetset.Set) map[uint32]packetset.Set {
	out := map[uint32]packetset.Set{}
	for dev, s := range by {
		out[dev] = s.Intersect(q.skippedSources().Complement(q.is4()))
	}
	for dev, name := range q.set.Interfaces {
		if name == q.p.IIF.V {
			out[dev] = packetset.Normalise(append(append([]packetset.Interval{}, out[dev]...), q.skippedSources()...))
		}
	}
	return out
}
