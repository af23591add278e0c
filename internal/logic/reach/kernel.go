package reach

import (
	"net/netip"
	"slices"

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
		mine = packetset.Normalise(append(slices.Clone([]packetset.Interval(mine)), base...))
		return mine, sources(is4) // a raw socket may forge others
	}
	if !is4 {
		bad := bogus6
		if proto == "tcp" {
			bad = packetset.Normalise(append(slices.Clone([]packetset.Interval(bad)), mapped...))
		}
		all := bad.Complement(false)
		return all, all
	}
	all := packetset.Normalise(append(slices.Clone([]packetset.Interval(bogus4)), mine...)).Complement(true)
	return sp.reversePath(all, door)
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
	if known && mode == 0 {
		return all, all
	}
	by, routes := sp.Routes.FibOIF(true, door.Name, mode != 2)
	if !routes {
		if known {
			return nil, all
		}
		return all, all
	}
	pass := packetset.Set{}
	for dev, s := range by {
		if dev != 0 {
			pass = packetset.Normalise(append(slices.Clone([]packetset.Interval(pass)), s...))
		}
	}
	pass = pass.Intersect(all)
	if known {
		return pass, pass
	}
	return pass, all
}
