package pfdecode

import (
	"strings"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// addressOptions have addresses among their values.
var addressOptions = map[string]bool{
	"-s": true, "--source": true, "--src": true, "-d": true, "--destination": true, "--dst": true, "--src-range": true, "--dst-range": true,
	"--to-destination": true, "--to-source": true, "--to": true, "--on-ip": true, "--gateway": true,
	"--ctorigsrc": true, "--ctorigdst": true, "--ctreplsrc": true, "--ctrepldst": true, "--tunnel-src": true, "--tunnel-dst": true,
}

var (
	only4 = map[string]bool{"icmp": true, "ttl": true, "ecn": true, "ulog": true, "TTL": true, "ECN": true, "ULOG": true, "CLUSTERIP": true}
	only6 = map[string]bool{
		"icmp6": true, "icmpv6": true, "ipv6-icmp": true, "hl": true, "rt": true, "frag": true, "hbh": true, "dst": true, "ipv6header": true,
		"eui64": true, "mh": true, "srh": true, "HL": true, "DNPT": true, "SNPT": true,
	}
)

// familyOf tells which family a line can only be for; 0 when for both. It is not sure of
// what the other family's tool takes as well.
func familyOf(words []string, sets *IPSets) (f rs.Family, sure bool) {
	for i := 0; i < len(words); i++ {
		w := words[i]
		if w == "-4" || w == "--ipv4" || w == "-6" || w == "--ipv6" {
			return 0, false // the line says which of the tools skips it
		}
		next := ""
		if i+1 < len(words) {
			next = words[i+1]
			if next == "!" && i+2 < len(words) {
				next = words[i+2]
			}
		}
		switch {
		case addressOptions[w]:
			switch {
			case strings.Count(next, ":") > 1:
				return rs.IPv6, true
			case strings.Count(next, ".") == 3:
				return rs.IPv4, true
			}
		case w == "-m" || w == "--match" || w == "-j" || w == "--jump":
			switch {
			case only4[next]:
				return rs.IPv4, true
			case only6[next]:
				return rs.IPv6, true
			}
		case w == "-p" || w == "--protocol" || w == "--proto":
			switch next {
			case "icmpv6", "ipv6-icmp", "icmp6":
				return rs.IPv6, true
			case "icmp":
				f = rs.IPv4
			}
		case w == "--icmpv6-type" || w == "--reject-with" && strings.HasPrefix(next, "icmp6"):
			return rs.IPv6, true
		case w == "--icmp-type" || w == "-f" || w == "--fragment" || w == "--reject-with" && strings.HasPrefix(next, "icmp-"):
			return rs.IPv4, true
		case w == "--match-set":
			if s := sets.ByName(next); s != nil && s.Family != 0 {
				f = s.Family // of packets of the other family none is in it
			}
		case w == "--comment" || w == "--log-prefix" || w == "--nflog-prefix" || w == "--string" || w == "--hex-string":
			i++ // anybody's text
		}
	}
	return f, false
}
