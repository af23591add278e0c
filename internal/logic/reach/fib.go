package reach

import (
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
func (q *question) fib(reg *regs, x rs.Fib) cond {
	load := func(b []abyte) cond { reg.put(x.Dreg, b); return always }
	lost := func() cond { q.opaque["fib"] = true; return load(open(16)) }
	if q.world == nil || x.Flags&fibMark != 0 {
		return lost()
	}
	if x.Result == fibResultAddrType && x.Flags&fibDaddr != 0 && q.p.Daddr.Set {
		iface := ""
		if x.Flags&fibIIF != 0 {
			iface = q.p.IIF.V
		}
		t, ok := q.world.FibType(q.p.Daddr.V, iface)
		if !ok {
			return lost()
		}
		return load(q.u32(t))
	}
	if x.Result != fibResultOIF && x.Result != fibResultOIFName || x.Flags&fibSaddr == 0 || q.p.Local {
		return lost()
	}
	if q.p.IIF.Set && q.p.IIF.V == "lo" {
		return lost() // loopback packets skip the lookup
	}
	by, ok := q.world.FibOIF(q.is4())
	if !ok || x.Flags&fibIIF != 0 && !q.p.IIF.Set {
		return lost()
	}
	var alts []alternative
	for ifindex, set := range by {
		out := ifindex
		if x.Flags&fibIIF != 0 && q.set.Interfaces[ifindex] != q.p.IIF.V {
			out = 0
		}
		var data []byte
		switch {
		case x.Flags&fibPresent != 0:
			data = []byte{0}
			if out != 0 {
				data[0] = 1
			}
		case x.Result == fibResultOIF:
			data = q.order.AppendUint32(nil, out)
		default:
			data = make([]byte, 16)
			copy(data, q.set.Interfaces[out])
		}
		c := cond{yes: set, may: set}
		if q.p.Saddr.Set {
			c = constant(set.Contains(packetset.FromIP(q.p.Saddr.V)))
		}
		alts = append(alts, alternative{c, data})
	}
	return load(q.choose(alts))
}
