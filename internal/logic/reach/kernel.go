package reach

import (
	"net/netip"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/model/fact"
)

func set(ps ...string) packetset.Set {
	var ivs []packetset.Interval
	for _, p := range ps {
		ivs = append(ivs, packetset.PrefixInterval(netip.MustParsePrefix(p)))
	}
	return packetset.Normalise(ivs)
}

var (
	bogus4 = set("127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "0.0.0.0/32")
	bogus6 = set("::1/128", "ff00::/8")
	mapped = set("::ffff:0:0/96")
	local4 = set("127.0.0.0/8")
	local6 = set("::1/128")
)

// kernel is the sources that the kernel itself lets in by an interface, whatever the
// rules say: surely, and possibly. (ip_rcv_finish and fib_validate_source;
// ip6_rcv_core; tcp_v6_conn_request for mapped sources.)
func (sp *Space) kernel(is4 bool, proto string, door *fact.Link) (ok, maybe packetset.Set) {
	addrs, _ := sp.Addresses.Get()
	var own []packetset.Interval
	for _, a := range addrs {
		if ip := a.Prefix.Addr(); ip.Is4() == is4 {
			own = append(own, packetset.PrefixInterval(netip.PrefixFrom(ip, ip.BitLen())))
		}
	}
	mine := packetset.Normalise(own)
	if loopback(door) {
		base := local6
		if is4 {
			base = local4
		}
		return unite(mine, base), sources(is4) // a raw socket may forge others
	}
	if !is4 {
		bad := bogus6
		if proto == "tcp" {
			bad = unite(bad, mapped)
		}
		all := bad.Complement(false)
		return all, all
	}
	bad := unite(bogus4, mine)
	ok, maybe = sp.reversePath(bad.Complement(true), door)
	// Packets from the host's own addresses, and from 127.0.0.0/8, are for those who ask
	// for them; whether they pass depends on more than we look at.
	if sp.conf4("accept_local", door) {
		maybe = unite(maybe, mine.Intersect(bogus4.Complement(true)))
	}
	if sp.conf4("route_localnet", door) {
		maybe = unite(maybe, local4)
	}
	return ok, maybe
}

// forwardable is kernel for packets that are forwarded: link-local sources stay on
// their link (ip6_forward).
func (sp *Space) forwardable(is4 bool, proto string, door *fact.Link) (ok, maybe packetset.Set) {
	ok, maybe = sp.kernel(is4, "", door)
	if !is4 {
		stays := set("fe80::/10", "::/128").Complement(false)
		ok, maybe = ok.Intersect(stays), maybe.Intersect(stays)
	}
	return ok, maybe
}

func unite(sets ...packetset.Set) packetset.Set {
	var ivs []packetset.Interval
	for _, s := range sets {
		ivs = append(ivs, s...)
	}
	return packetset.Normalise(ivs)
}

// conf4 tells that an IPv4 switch is on, for all interfaces or for one (IN_DEV_ORCONF).
func (sp *Space) conf4(key string, door *fact.Link) bool {
	t, _ := sp.Sysctls.Get()
	for _, name := range []string{"all", door.Name} {
		if v, ok := t.Get("net/ipv4/conf/" + name + "/" + key).Get(); ok && v != "0" {
			return true
		}
	}
	return false
}

// reversePath applies rp_filter (RFC 3704), the larger of all and the interface's.
func (sp *Space) reversePath(all packetset.Set, door *fact.Link) (ok, maybe packetset.Set) {
	t, known := sp.Sysctls.Get()
	mode := 0
	if known {
		for _, name := range []string{"all", door.Name} {
			v, has := t.Get("net/ipv4/conf/" + name + "/rp_filter").Get()
			switch {
			case !has:
				known = false
			case v == "1":
				mode = max(mode, 1)
			case v == "2":
				mode = max(mode, 2)
			}
		}
	}
	// A source that the host would not send to by a unicast route is refused where the
	// way back is looked up at all.
	odd := sp.Routes.notUnicast4()
	if known && mode == 0 {
		if sp.Routes.plain4() {
			return all, all
		}
		return all.Intersect(odd.Complement(true)), all
	}
	// Loosely, only an interface with an address of its own takes what leads elsewhere.
	strict := mode != 2 || !sp.addressed4(door)
	by, routes := sp.Routes.FibOIF(true, door.Name, strict)
	if !routes {
		if known {
			return nil, all
		}
		return all, all
	}
	pass := packetset.Set{}
	for dev, s := range by {
		if dev != 0 {
			pass = unite(pass, s)
		}
	}
	pass = pass.Intersect(all).Intersect(odd.Complement(true))
	if known {
		return pass, pass
	}
	return pass, all
}

func (sp *Space) addressed4(door *fact.Link) bool {
	addrs, _ := sp.Addresses.Get()
	for _, a := range addrs {
		if a.Index == door.Index && a.Prefix.Addr().Is4() {
			return true
		}
	}
	return false
}
