package pfdecode

import (
	"fmt"
	"strings"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// targetSyntax are the targets of iptables' extensions.
var targetSyntax = map[string]*extSyntax{
	"LOG":       plain("log-level:1 log-prefix:1 log-tcp-sequence:0 log-tcp-options:0 log-ip-options:0 log-uid:0 log-macdecode:0"),
	"NFLOG":     plain("nflog-group:1 nflog-prefix:1 nflog-range:1 nflog-size:1 nflog-threshold:1"),
	"ULOG":      plain("ulog-nlgroup:1 ulog-prefix:1 ulog-cprange:1 ulog-qthreshold:1").of(rs.IPv4),
	"AUDIT":     plain("type:1"),
	"TRACE":     plain("").in("raw"),
	"LED":       plain("led-trigger-id:1 led-delay:1 led-always-blink:0"),
	"CHECKSUM":  plain("checksum-fill:0").in("mangle"),
	"CLASSIFY":  plain("set-class:1"),
	"RATEEST":   plain("rateest-name:1 rateest-interval:1 rateest-ewmalog:1"),
	"IDLETIMER": plain("timeout:1 label:1 alarm:0").at(1),
	"TEE":       plain("gateway:1 oif:1").at(1),
	"SECMARK":   plain("selctx:1").in("mangle, security"), "CONNSECMARK": plain("save:0 restore:0").in("mangle, security"),
	"NFQUEUE": plain("queue-num:1 queue-balance:1 queue-bypass:0 queue-cpu-fanout:0").at(3),
	"NOTRACK": plain("").in("raw"),
	"TTL":     plain("ttl-set:1 ttl-dec:1 ttl-inc:1").of(rs.IPv4).in("mangle"),
	"HL":      plain("hl-set:1 hl-dec:1 hl-inc:1").of(rs.IPv6).in("mangle"),
	"DSCP":    plain("set-dscp:1 set-dscp-class:1").in("mangle"),
	"TOS":     plain("set-tos:1 and-tos:1 or-tos:1 xor-tos:1").in("mangle").at(1),
	"ECN":     plain("ecn-tcp-remove:0 ecn-tcp-cwr:1 ecn-tcp-ece:1 ecn-ip-ect:1").of(rs.IPv4).in("mangle"),
	"TCPMSS":  plain("set-mss:1 clamp-mss-to-pmtu:0").with(6), "TCPOPTSTRIP": plain("strip-options:1").with(6).in("mangle"),
	"DNPT":       plain("src-pfx:1 dst-pfx:1").of(rs.IPv6).in("mangle"),
	"SNPT":       plain("src-pfx:1 dst-pfx:1").of(rs.IPv6).in("mangle"),
	"HMARK":      plain("hmark-tuple:1 hmark-mod:1 hmark-offset:1 hmark-src-prefix:1 hmark-dst-prefix:1 hmark-sport-mask:1 hmark-dport-mask:1 hmark-spi-mask:1 hmark-proto-mask:1 hmark-rnd:1 hmark-sport:1 hmark-dport:1 hmark-spi:1").in("mangle, raw"),
	"MASQUERADE": plain("to-ports:1 random:0 random-fully:0").in("nat"),
	"SYNPROXY":   unmodelled("sack-perm:0 timestamp:0 wscale:1 mss:1 ecn:0").with(6),
	"TPROXY":     unmodelled("on-port:1 on-ip:1 tproxy-mark:1").with(6, 17).in("mangle"),
	"CLUSTERIP":  unmodelled("new:0 hashmode:1 clustermac:1 total-nodes:1 local-node:1 hash-init:1").of(rs.IPv4),

	"REJECT": {size: 4, tables: "filter", init: func(e *textExt) {
		e.u32(0, 3)
		if !e.x.is4() {
			e.u32(0, 4)
		}
	}, needs: func(e *textExt) []int {
		if reset := uint32(7); e.get32(0) == reset && e.x.is4() || e.get32(0) == 6 && !e.x.is4() {
			return []int{6}
		}
		return nil
	}, opts: map[string]*optSyntax{"--reject-with": value(func(e *textExt, v string) error {
		names := rejectNames6
		if e.x.is4() {
			names = rejectNames4
		}
		n, err := pick(names, v)
		e.u32(0, n)
		return err
	})}},
	"MARK": {rev: 2, size: 8, opts: map[string]*optSyntax{
		"--set-mark":  marker(func(v, m uint32) (uint32, uint32) { return v, v | m }),
		"--set-xmark": marker(func(v, m uint32) (uint32, uint32) { return v, m }),
		"--and-mark":  marker(func(v, _ uint32) (uint32, uint32) { return 0, ^v }),
		"--or-mark":   marker(func(v, _ uint32) (uint32, uint32) { return v, v }),
		"--xor-mark":  marker(func(v, _ uint32) (uint32, uint32) { return v, 0 }),
	}},
	"CONNMARK": {rev: 1, size: 16, init: func(e *textExt) { e.u32(4, ^uint32(0)); e.u32(8, ^uint32(0)) }, opts: map[string]*optSyntax{
		"--set-mark":     marker(func(v, m uint32) (uint32, uint32) { return v, v | m }),
		"--set-xmark":    marker(func(v, m uint32) (uint32, uint32) { return v, m }),
		"--and-mark":     marker(func(v, _ uint32) (uint32, uint32) { return 0, ^v }),
		"--or-mark":      marker(func(v, _ uint32) (uint32, uint32) { return v, v }),
		"--xor-mark":     marker(func(v, _ uint32) (uint32, uint32) { return v, 0 }),
		"--save-mark":    flag(func(e *textExt) { e.b[12] = 1 }),
		"--restore-mark": flag(func(e *textExt) { e.b[12] = 2 }),
		"--mask":         connMask(4, 8), "--nfmask": connMask(8), "--ctmask": connMask(4),
		"--left-shift-mark": beyond(1, "shifts"), "--right-shift-mark": beyond(1, "shifts"),
	}},
	"CT": {rev: 2, size: 72, tables: "raw", opts: map[string]*optSyntax{
		"--notrack": flag(func(e *textExt) { e.add16(0, 1) }),
		"--helper":  value(func(e *textExt, v string) error { copy(e.b[12:28], v); return nil }),
		"--timeout": ignored, "--ctevents": ignored, "--expevents": ignored,
		"--zone": ctZoneOption(0), "--zone-orig": ctZoneOption(4), "--zone-reply": ctZoneOption(8),
	}},
	"DNAT": natSyntax("--to-destination"),
	"SNAT": natSyntax("--to-source").at(1),
	"REDIRECT": {size: 44, tables: "nat", init: func(e *textExt) {
		if e.x.is4() {
			e.u32(0, 1)
		}
	}, needs: natNeeds, opts: alias(map[string]*optSyntax{
		"--to-ports": value(func(e *textExt, v string) error {
			flagsAt, portAt := 0, 36
			if e.x.is4() {
				flagsAt, portAt = 4, 16
			}
			from, to, err := portRange(v, "-")
			e.add32(flagsAt, natProto)
			e.be16(portAt, from)
			e.be16(portAt+2, to)
			return err
		}),
		"--random": {},
	}, "--to-port", "--to-ports")},
	"NETMAP": {size: 44, tables: "nat", opts: map[string]*optSyntax{"--to": value(func(e *textExt, v string) error {
		a, err := e.x.address(v)
		if err != nil {
			return err
		}
		last := append([]byte(nil), a.addr...)
		for i := range last {
			last[i] |= ^a.mask[i]
		}
		if e.x.is4() {
			e.u32(0, 1)
			e.u32(4, natMapIPs)
			copy(e.b[8:], a.addr)
			copy(e.b[12:], last)
			return nil
		}
		e.u32(0, natMapIPs)
		copy(e.b[4:], a.addr)
		copy(e.b[20:], last)
		return nil
	})}},
	"SET": {rev: 1, size: 8, init: func(e *textExt) { e.u16(0, 0xffff); e.u16(4, 0xffff) }, opts: map[string]*optSyntax{
		"--add-set": setOption(0), "--del-set": setOption(4), "--map-set": beyond(2, "map"),
		"--timeout": ignored, "--exist": {}, "--map-mark": {}, "--map-prio": {}, "--map-queue": {},
	}},
}

// enum ipt_reject_with and enum ip6t_reject_with.
var rejectNames4 = map[string]uint32{
	"icmp-net-unreachable": 0, "net-unreach": 0, "icmp-host-unreachable": 1, "host-unreach": 1, "icmp-proto-unreachable": 2, "proto-unreach": 2,
	"icmp-port-unreachable": 3, "port-unreach": 3, "icmp-net-prohibited": 5, "net-prohib": 5, "icmp-host-prohibited": 6, "host-prohib": 6,
	"tcp-reset": 7, "tcp-rst": 7, "icmp-admin-prohibited": 8, "admin-prohib": 8,
}

var rejectNames6 = map[string]uint32{
	"icmp6-no-route": 0, "no-route": 0, "icmp6-adm-prohibited": 1, "adm-prohibited": 1, "icmp6-addr-unreachable": 3, "addr-unreach": 3,
	"icmp6-port-unreachable": 4, "port-unreach": 4, "tcp-reset": 6, "icmp6-policy-fail": 7, "policy-fail": 7, "icmp6-reject-route": 8, "reject-route": 8,
}

// marker is an option of MARK and CONNMARK: mark = (mark & ^mask) ^ value.
func marker(f func(value, mask uint32) (uint32, uint32)) *optSyntax {
	return value(func(e *textExt, v string) error {
		value, mask, err := valueMask(v, 32, 1<<32-1)
		value, mask = f(value, mask)
		e.u32(0, value)
		e.u32(4, mask)
		return err
	})
}

func connMask(at ...int) *optSyntax {
	return value(func(e *textExt, v string) error {
		n, err := number(v, 32)
		for _, a := range at {
			e.u32(a, uint32(n))
		}
		return err
	})
}

func ctZoneOption(flags uint16) *optSyntax {
	return value(func(e *textExt, v string) error {
		n, err := number(v, 16)
		if v == "mark" {
			flags, err = flags|16, nil
		}
		e.u16(2, uint16(n))
		e.add16(0, flags)
		return err
	})
}

func setOption(at int) *optSyntax {
	return &optSyntax{n: 2, set: func(e *textExt, v []string, _ bool) error {
		err := e.setInfo(at, v[0], v[1])
		if e.opaque != "" && err == nil {
			// It only writes to a set of which nothing is known anyway.
			e.opaque, e.exprs = "", always("SET")
		}
		return err
	}}
}

func natSyntax(option string) *extSyntax {
	return &extSyntax{
		rev: 2, size: 44, tables: "nat", needs: natNeeds,
		opts: map[string]*optSyntax{
			option:     value(natRangeText),
			"--random": flag(func(e *textExt) { e.add32(0, 4) }), "--random-fully": flag(func(e *textExt) { e.add32(0, 16) }),
			"--persistent": flag(func(e *textExt) { e.add32(0, 8) }),
		},
	}
}

func natNeeds(e *textExt) []int {
	flags := e.get32(0)
	if e.name == "REDIRECT" && e.x.is4() {
		flags = e.get32(4)
	}
	if flags&natProto != 0 {
		return []int{6, 17, 132, 33, 1, 58, 136}
	}
	return nil
}

// natRangeText reads "[ADDRESS[-ADDRESS]][:PORT[-PORT[/BASE]]]" into a struct
// nf_nat_range2; an IPv6 address that a port follows stands in brackets.
func natRangeText(e *textExt, v string) error {
	if e.get32(0)&(natMapIPs|natProto) != 0 {
		return fmt.Errorf("only one range is possible")
	}
	addrs, port, hasPort := v, "", false
	switch {
	case e.x.is4():
		addrs, port, hasPort = strings.Cut(v, ":")
	case strings.HasPrefix(v, "["):
		i := strings.LastIndexByte(v, ']')
		if i < 0 {
			return fmt.Errorf("a ] is missing")
		}
		addrs = strings.NewReplacer("[", "", "]", "").Replace(v[:i])
		if rest := v[i+1:]; rest != "" {
			if port, hasPort = strings.CutPrefix(rest, ":"); !hasPort {
				return fmt.Errorf("%q: a port follows a colon", rest)
			}
		}
	case strings.HasPrefix(v, ":") && !strings.HasPrefix(v, "::"):
		addrs, port, hasPort = "", v[1:], true
	}
	if addrs != "" {
		a, b, ok := strings.Cut(addrs, "-")
		if !ok {
			b = a
		}
		from, err := e.x.host(a, false)
		if err != nil {
			return err
		}
		to, err := e.x.host(b, false)
		if err != nil {
			return err
		}
		e.add32(0, natMapIPs)
		copy(e.b[4:], from)
		copy(e.b[20:], to)
	}
	if !hasPort {
		return nil
	}
	ports, base, shifted := strings.Cut(port, "/")
	from, to, err := portRange(ports, "-")
	if err != nil {
		return err
	}
	e.add32(0, natProto)
	e.be16(36, from)
	e.be16(38, to)
	if shifted {
		n, err := portNumber(base)
		if err != nil {
			return err
		}
		e.add32(0, natOffset)
		e.be16(40, n)
	}
	return nil
}
