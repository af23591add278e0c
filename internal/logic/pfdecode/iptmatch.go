package pfdecode

import (
	"fmt"
	"strings"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// matchSyntax are the matches of extensions/libxt_*.c, libipt_*.c and libip6t_*.c of
// iptables.
var matchSyntax = map[string]*extSyntax{
	"comment": {size: 256, opts: map[string]*optSyntax{"--comment": value(func(e *textExt, v string) error {
		if copy(e.b, v); len(v) > 255 {
			return fmt.Errorf("a comment has at most 255 characters")
		}
		return nil
	})}},
	"tcp": {size: 12, protos: []int{6}, init: anyPorts, opts: alias(map[string]*optSyntax{
		"--sport": ports(0, 11, 1), "--dport": ports(4, 11, 2),
		"--syn": {inv: true, set: func(e *textExt, _ []string, not bool) error { return e.flags("FIN,SYN,RST,ACK", "SYN", not) }},
		"--tcp-flags": {n: 2, inv: true, set: func(e *textExt, v []string, not bool) error {
			return e.flags(v[0], v[1], not)
		}},
		"--tcp-option": negatable(func(e *textExt, v string, not bool) error {
			n, err := number(v, 8)
			e.b[8] = byte(n)
			e.bit8(11, 8, not)
			return err
		}),
	}, "--source-port", "--sport", "--destination-port", "--dport")},
	"udp": {size: 10, protos: []int{17}, init: anyPorts, opts: alias(map[string]*optSyntax{
		"--sport": ports(0, 8, 1), "--dport": ports(4, 8, 2),
	}, "--source-port", "--sport", "--destination-port", "--dport")},
	"sctp": {size: 296, protos: []int{132}, opts: alias(map[string]*optSyntax{
		"--sport": sctpPorts(4, 284, 1), "--dport": sctpPorts(0, 284, 2), "--chunk-types": beyond(2, "chunk types"),
	}, "--source-port", "--sport", "--destination-port", "--dport")},
	"dccp": {size: 16, protos: []int{33}, opts: alias(map[string]*optSyntax{
		"--sport": dccpPorts(4, 1), "--dport": dccpPorts(0, 2), "--dccp-types": beyond(1, "types"), "--dccp-option": beyond(1, "options"),
	}, "--source-port", "--sport", "--destination-port", "--dport")},
	"multiport": {rev: 1, size: 48, protos: []int{6, 17, 136, 132, 33}, opts: alias(map[string]*optSyntax{
		"--sports": portList(0), "--dports": portList(1), "--ports": portList(2),
	}, "--source-ports", "--sports", "--destination-ports", "--dports")},
	"icmp": {size: 4, only: rs.IPv4, protos: []int{1}, init: func(e *textExt) { e.b[0], e.b[2] = 0xff, 0xff }, opts: map[string]*optSyntax{
		"--icmp-type": icmpOption(icmp4Names),
	}},
	"icmp6": {size: 4, only: rs.IPv6, protos: []int{58}, init: func(e *textExt) { e.b[2] = 0xff }, opts: map[string]*optSyntax{
		"--icmpv6-type": icmpOption(icmp6Names),
	}},
	"conntrack": {rev: 3, size: 164, opts: map[string]*optSyntax{
		"--ctstate": ctStateOption, "--state": ctStateOption,
		"--ctorigsrc": ctAddr(0), "--ctorigdst": ctAddr(1), "--ctreplsrc": ctAddr(2), "--ctrepldst": ctAddr(3),
		"--ctorigsrcport": ctPort(0), "--ctorigdstport": ctPort(1), "--ctreplsrcport": ctPort(2), "--ctrepldstport": ctPort(3),
		"--ctproto": negatable(func(e *textExt, v string, not bool) error {
			n, err := protoNumber(v)
			e.u16(136, uint16(n))
			e.ctFlag(xtctProto, not)
			return err
		}),
		"--ctstatus": negatable(func(e *textExt, v string, not bool) error {
			m, err := bitsOf(ctStatuses, v)
			e.u16(152, m)
			e.ctFlag(xtctStatus, not)
			return err
		}),
		"--ctdir": value(func(e *textExt, v string) error {
			reply, err := pick(map[string]bool{"original": false, "reply": true}, v)
			e.ctFlag(xtctDirection, reply)
			return err
		}),
		"--ctexpire": negatable(func(e *textExt, v string, not bool) error {
			from, to, err := numberRange(v, 32)
			e.u32(128, uint32(from))
			e.u32(132, uint32(to))
			e.ctFlag(xtctExpires, not)
			return err
		}),
	}},
	"connmark": {rev: 1, size: 12, opts: map[string]*optSyntax{"--mark": markOption}},
	"mark":     {rev: 1, size: 12, opts: map[string]*optSyntax{"--mark": markOption}},
	"connlimit": {rev: 1, size: 24, opts: map[string]*optSyntax{
		"--connlimit-above": connlimit(false), "--connlimit-upto": connlimit(true),
		"--connlimit-mask": ignored, "--connlimit-saddr": {}, "--connlimit-daddr": {},
	}},
	"limit": {opts: map[string]*optSyntax{
		"--limit": value(func(_ *textExt, v string) error { _, err := rate(v); return err }), "--limit-burst": ignored,
	}},
	"hashlimit": {rev: 3, size: 320, opts: alias(map[string]*optSyntax{
		"--hashlimit-upto": hashRate(false), "--hashlimit-above": hashRate(true), "--hashlimit-burst": ignored,
		"--hashlimit-mode": ignored, "--hashlimit-name": ignored, "--hashlimit-htable-size": ignored, "--hashlimit-htable-max": ignored,
		"--hashlimit-htable-expire": ignored, "--hashlimit-htable-gcinterval": ignored, "--hashlimit-srcmask": ignored, "--hashlimit-dstmask": ignored,
		"--hashlimit-rate-match": flag(func(e *textExt) { e.add32(272, 1<<6) }), "--hashlimit-rate-interval": ignored,
	}, "--hashlimit", "--hashlimit-upto")},
	"quota": {size: 24, opts: map[string]*optSyntax{"--quota": negatable(func(e *textExt, v string, not bool) error {
		_, err := number(v, 64)
		if not {
			e.u32(0, 1)
		}
		return err
	})}},
	"recent": {rev: 1, size: 240, opts: map[string]*optSyntax{
		"--set": recent(2), "--rcheck": recent(1), "--update": recent(4), "--remove": recent(8),
		"--seconds":  number32Option(0),
		"--hitcount": number32Option(4),
		"--name":     ignored, "--mask": ignored, "--rsource": {}, "--rdest": {},
		"--rttl": flag(func(e *textExt) { e.b[8] |= 16 }), "--reap": flag(func(e *textExt) { e.b[8] |= 32 }),
	}},
	"ttl": {size: 2, only: rs.IPv4, opts: hopOptions("ttl")},
	"hl":  {size: 2, only: rs.IPv6, opts: hopOptions("hl")},
	"mac": {size: 12, opts: map[string]*optSyntax{"--mac-source": negatable(func(e *textExt, v string, not bool) error {
		e.bit8(8, 1, not)
		w := strings.Split(v, ":")
		for i := range 6 {
			n, err := number("0x"+strings.Join(w[min(i, len(w)-1):min(i+1, len(w))], ""), 8)
			if err != nil || len(w) != 6 {
				return fmt.Errorf("%q is no MAC address", v)
			}
			e.b[i] = byte(n)
		}
		return nil
	})}},
	"iprange": {rev: 1, size: 68, opts: map[string]*optSyntax{"--src-range": addrRange(0), "--dst-range": addrRange(1)}},
	"length": {size: 8, opts: map[string]*optSyntax{"--length": negatable(func(e *textExt, v string, not bool) error {
		from, to, err := numberRange(v, 16)
		e.u16(0, uint16(from))
		e.u16(2, uint16(to))
		e.bit8(4, 1, not)
		return err
	})}},
	"tos": {rev: 1, size: 3, opts: map[string]*optSyntax{"--tos": negatable(func(e *textExt, v string, not bool) error {
		value, mask, err := valueMask(v, 8, 0xff)
		if t, named := pick(tosNames, v); err != nil && named == nil {
			value, mask, err = uint32(t), 0x3f, nil
		}
		e.b[0], e.b[1] = byte(mask), byte(value)
		e.bit8(2, 1, not)
		return err
	})}},
	"dscp": {size: 2, opts: map[string]*optSyntax{
		"--dscp": negatable(func(e *textExt, v string, not bool) error {
			n, err := number(v, 6)
			e.b[0] = byte(n)
			e.bit8(1, 1, not)
			return err
		}),
		"--dscp-class": negatable(func(e *textExt, v string, not bool) error {
			n, err := pick(dscpClasses, v)
			e.b[0] = n
			e.bit8(1, 1, not)
			return err
		}),
	}},
	"pkttype": {size: 8, opts: map[string]*optSyntax{"--pkt-type": negatable(func(e *textExt, v string, not bool) error {
		n, err := pick(map[string]uint32{"unicast": 0, "host": 0, "broadcast": 1, "bcast": 1, "multicast": 2, "mcast": 2}, v)
		e.u32(0, n)
		e.bit8(4, 1, not)
		return err
	})}},
	"owner": {rev: 1, size: 20, opts: map[string]*optSyntax{
		"--uid-owner": owner(0, "root"), "--gid-owner": owner(1, "root"),
		"--socket-exists": {inv: true, set: func(e *textExt, _ []string, not bool) error {
			e.b[16] |= 4
			e.bit8(17, 4, not)
			return nil
		}},
		"--suppl-groups": flag(func(e *textExt) { e.b[16] |= 8 }),
	}},
	"devgroup": {size: 20, opts: map[string]*optSyntax{"--src-group": devGroup(0), "--dst-group": devGroup(1)}},
	"addrtype": {rev: 1, size: 8, opts: map[string]*optSyntax{
		"--src-type": addrTypeOption(0), "--dst-type": addrTypeOption(1),
		"--limit-iface-in": flag(func(e *textExt) { e.add32(4, 4) }), "--limit-iface-out": flag(func(e *textExt) { e.add32(4, 8) }),
	}},
	"rpfilter": {size: 1, opts: map[string]*optSyntax{
		"--loose": flag(func(e *textExt) { e.b[0] |= 1 }), "--validmark": flag(func(e *textExt) { e.b[0] |= 2 }),
		"--accept-local": flag(func(e *textExt) { e.b[0] |= 4 }), "--invert": flag(func(e *textExt) { e.b[0] |= 8 }),
	}},
	"esp": {size: 12, protos: []int{50}, init: anyRange32(0), opts: map[string]*optSyntax{"--espspi": range32Option(0, 9, 0, 8, 1)}},
	"ah": {
		size: 16, init: anyRange32(0), needs: func(e *textExt) []int {
			if e.x.is4() {
				return []int{51}
			}
			return nil
		},
		opts: map[string]*optSyntax{
			"--ahspi": negatable(func(e *textExt, v string, not bool) error {
				invAt := 13
				if e.x.is4() {
					invAt = 8
				}
				return range32Option(0, invAt, 0, invAt, 1).set(e, []string{v}, not)
			}),
			"--ahlen": beyond(1, "length of the header"), "--ahres": beyond(0, "reserved bits"),
		},
	},
	"frag": {size: 16, only: rs.IPv6, init: anyRange32(0), opts: map[string]*optSyntax{
		"--fragid": range32Option(0, 12, 1, 13, 1), "--fraglen": negatable(func(e *textExt, v string, _ bool) error { _, err := number(v, 32); return err }),
		"--fragres": bit(12, 4), "--fragfirst": bit(12, 8), "--fragmore": bit(12, 16), "--fraglast": bit(12, 32),
	}},
	"rt": {size: 280, only: rs.IPv6, init: anyRange32(4), opts: map[string]*optSyntax{
		"--rt-type": negatable(func(e *textExt, v string, not bool) error {
			n, err := number(v, 32)
			e.u32(0, uint32(n))
			e.b[16] |= 1
			e.bit8(17, 1, not)
			return err
		}),
		"--rt-segsleft": range32Option(4, 16, 2, 17, 2), "--rt-len": headerLength(12, 16, 4, 17, 4),
		"--rt-0-res": bit(16, 8), "--rt-0-addrs": beyond(1, "addresses"), "--rt-0-not-strict": bit(16, 32),
	}},
	"hbh": {size: 40, only: rs.IPv6, opts: map[string]*optSyntax{"--hbh-len": headerLength(0, 4, 1, 5, 1), "--hbh-opts": beyond(1, "options of the header")}},
	"dst": {size: 40, only: rs.IPv6, opts: map[string]*optSyntax{"--dst-len": headerLength(0, 4, 1, 5, 1), "--dst-opts": beyond(1, "options of the header")}},
	"ipv6header": {size: 3, only: rs.IPv6, opts: map[string]*optSyntax{
		"--header": negatable(func(e *textExt, v string, not bool) error {
			for _, w := range strings.Split(v, ",") {
				h, ok := headerNames[strings.ToLower(w)]
				if !ok {
					return fmt.Errorf("%q is no header", w)
				}
				e.b[0] |= h
			}
			if not {
				e.b[1] = 0xff
			}
			return nil
		}),
		"--soft": bit(2, 1),
	}},
	"set": {rev: 1, size: 4, opts: map[string]*optSyntax{
		"--match-set": {n: 2, inv: true, set: func(e *textExt, v []string, not bool) error {
			if err := e.setInfo(0, v[0], v[1]); err != nil {
				return err
			}
			e.bit8(3, setInvert, not)
			return nil
		}},
		"--return-nomatch": beyond(0, "nomatch"), "--update-counters": {inv: true}, "--update-subcounters": {inv: true},
		"--packets-eq": beyond(1, "counters"), "--packets-lt": beyond(1, "counters"), "--packets-gt": beyond(1, "counters"),
		"--bytes-eq": beyond(1, "counters"), "--bytes-lt": beyond(1, "counters"), "--bytes-gt": beyond(1, "counters"),
	}},

	"bpf": unmodelled("bytecode:1 object-pinned:1"), "cgroup": unmodelled("cgroup:1 path:1"), "cpu": unmodelled("cpu:1"),
	"cluster":   unmodelled("cluster-total-nodes:1 cluster-local-node:1 cluster-local-nodemask:1 cluster-hash-seed:1"),
	"connbytes": unmodelled("connbytes:1 connbytes-dir:1 connbytes-mode:1"), "connlabel": unmodelled("label:1 set:0"),
	"ecn": unmodelled("ecn-tcp-cwr:0 ecn-tcp-ece:0 ecn-ip-ect:1"), "eui64": unmodelled("").of(rs.IPv6), "helper": unmodelled("helper:1"),
	"ipcomp": unmodelled("ipcompspi:1 compres:0").with(108), "mh": unmodelled("mh-type:1").of(rs.IPv6).with(135),
	"ipvs":   unmodelled("ipvs:0 vproto:1 vaddr:1 vport:1 vdir:1 vmethod:1 vportctl:1"),
	"nfacct": unmodelled("nfacct-name:1"), "osf": unmodelled("genre:1 ttl:1 log:1").with(6),
	"physdev": {size: 66, opts: map[string]*optSyntax{
		"--physdev-in": portName(0, rs.PortIn), "--physdev-out": portName(32, rs.PortOut),
		"--physdev-is-in": portFlag(rs.PortIsIn), "--physdev-is-out": portFlag(rs.PortIsOut), "--physdev-is-bridged": portFlag(rs.PortBridged),
	}},
	"policy":  unmodelled("dir:1 pol:1 strict:0 reqid:1 spi:1 tunnel-src:1 tunnel-dst:1 proto:1 mode:1 next:0"),
	"rateest": unmodelled("rateest:1 rateest1:1 rateest2:1 rateest-bps:1 rateest-pps:1 rateest-delta:0 rateest-bps1:1 rateest-bps2:1 rateest-pps1:1 rateest-pps2:1 rateest-lt:0 rateest-gt:0 rateest-eq:0"),
	"realm":   unmodelled("realm:1"), "socket": unmodelled("transparent:0 nowildcard:0 restore-skmark:0"),
	"srh":       unmodelled("srh-next-hdr:1 srh-hdr-len-eq:1 srh-hdr-len-gt:1 srh-hdr-len-lt:1 srh-segs-left-eq:1 srh-segs-left-gt:1 srh-segs-left-lt:1 srh-last-entry-eq:1 srh-last-entry-gt:1 srh-last-entry-lt:1 srh-tag:1 srh-psid:1 srh-nsid:1 srh-lsid:1").of(rs.IPv6),
	"statistic": unmodelled("mode:1 probability:1 every:1 packet:1"), "string": unmodelled("algo:1 from:1 to:1 string:1 hex-string:1 icase:0"),
	"tcpmss": unmodelled("mss:1").with(6),
	"time":   unmodelled("datestart:1 datestop:1 timestart:1 timestop:1 monthdays:1 weekdays:1 contiguous:0 kerneltz:0 utc:0 localtz:0"),
	"u32":    unmodelled("u32:1"),
}

func (e *textExt) flags(mask, want string, not bool) (err error) {
	if e.b[9], err = tcpFlags(mask); err != nil {
		return err
	}
	e.b[10], err = tcpFlags(want)
	e.bit8(11, 4, not)
	return err
}

func sctpPorts(at, flagsAt int, bit uint32) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		from, to, err := portRange(v, ":")
		e.u16(at, from)
		e.u16(at+2, to)
		e.add32(flagsAt, bit)
		if not {
			e.add32(flagsAt+4, bit)
		}
		return err
	})
}

func dccpPorts(at int, bit uint16) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		from, to, err := portRange(v, ":")
		e.u16(at, from)
		e.u16(at+2, to)
		e.add16(8, bit)
		if not {
			e.add16(10, bit)
		}
		return err
	})
}

func icmpOption(names map[string]icmpKind) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		k, err := icmpType(names, v)
		e.b[0], e.b[1], e.b[2] = k.typ, k.from, k.to
		e.bit8(3, 1, not)
		return err
	})
}

func connlimit(upto bool) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		n, err := number(v, 32)
		e.u32(16, uint32(n))
		if upto != not {
			e.u32(20, 1)
		}
		return err
	})
}

func recent(mode uint8) *optSyntax {
	return &optSyntax{inv: true, set: func(e *textExt, _ []string, not bool) error {
		e.b[8] |= mode
		e.bit8(9, 1, not)
		return nil
	}}
}

func number32Option(at int) *optSyntax {
	return value(func(e *textExt, v string) error {
		n, err := number(v, 32)
		e.u32(at, uint32(n))
		return err
	})
}

func bit(at int, b uint8) *optSyntax { return flag(func(e *textExt) { e.b[at] |= b }) }

// portName is a port of a bridge: its name and a mask, at an offset of struct xt_physdev_info.
func portName(at int, op uint8) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		if len(v) == 0 || len(v) > 15 {
			return fmt.Errorf("interface %q", v)
		}
		n := copy(e.b[at:], v) + 1
		if strings.HasSuffix(v, "+") {
			n -= 2
		}
		for i := range n {
			e.b[at+16+i] = 0xff
		}
		e.bit8(65, op, true)
		e.bit8(64, op, not)
		return nil
	})
}

func portFlag(op uint8) *optSyntax {
	return &optSyntax{inv: true, set: func(e *textExt, _ []string, not bool) error {
		e.bit8(65, op, true)
		e.bit8(64, op, not)
		return nil
	}}
}

func devGroup(k int) *optSyntax {
	return negatable(func(e *textExt, v string, not bool) error {
		n, mask, err := valueMask(v, 32, 1<<32-1)
		if v == "default" {
			n, mask, err = 0, ^uint32(0), nil
		}
		if err != nil && !strings.Contains(v, "/") {
			e.opaque, err = "the number of group "+v, nil
		}
		e.u32(4+8*k, n)
		e.u32(8+8*k, mask)
		e.add32(0, 1<<(2*k))
		if not {
			e.add32(0, 2<<(2*k))
		}
		return err
	})
}

// setInfo writes a struct xt_set_info: a set and which addresses and ports to look up.
func (e *textExt) setInfo(at int, name, dirs string) error {
	list := strings.Split(dirs, ",")
	if len(list) > 6 {
		return fmt.Errorf("%q: at most 6 directions", dirs)
	}
	e.b[at+2] = byte(len(list))
	for k, d := range list {
		switch d {
		case "src":
			e.b[at+3] |= 2 << k
		case "dst":
		default:
			return fmt.Errorf("%q is neither src nor dst", d)
		}
	}
	s := e.x.sets.ByName(name)
	if s == nil {
		e.opaque = "ipset " + name + " was not given"
		return nil
	}
	e.u16(at, s.Index)
	return nil
}
