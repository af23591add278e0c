package pfdecode

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Words that x_tables rules use for numbers. iptables-save prints most as numbers;
// people write words. They are the same on every host, unlike names of users.

var protoNames = map[string]int{
	"all": 0, "ip": 0, "hopopt": 0, "icmp": 1, "igmp": 2, "ggp": 3, "ipencap": 4, "ipv4": 4, "st": 5, "tcp": 6, "egp": 8, "igp": 9, "pup": 12,
	"udp": 17, "hmp": 20, "xns-idp": 22, "rdp": 27, "iso-tp4": 29, "dccp": 33, "xtp": 36, "ddp": 37, "idpr-cmtp": 38,
	"ipv6": 41, "ipv6-route": 43, "ipv6-frag": 44, "idrp": 45, "rsvp": 46, "gre": 47, "esp": 50, "ipv6-crypt": 50, "ah": 51, "ipv6-auth": 51,
	"skip": 57, "icmpv6": 58, "icmp6": 58, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "rspf": 73, "vmtp": 81, "eigrp": 88,
	"ospf": 89, "ax.25": 93, "ipip": 94, "etherip": 97, "encap": 98, "pim": 103, "ipcomp": 108, "vrrp": 112, "l2tp": 115, "isis": 124,
	"sctp": 132, "fc": 133, "mobility-header": 135, "ipv6-mh": 135, "mh": 135, "udplite": 136, "mpls-in-ip": 137, "manet": 138, "hip": 139,
	"shim6": 140, "wesp": 141, "rohc": 142,
}

func protoNumber(s string) (int, error) {
	if n, err := number(s, 8); err == nil {
		return int(n), nil
	}
	if n, ok := protoNames[strings.ToLower(s)]; ok {
		return n, nil
	}
	return 0, fmt.Errorf("no protocol of this name is known; its number is (0 to 255)")
}

func protoWord(n int) string {
	for _, w := range []string{"tcp", "udp", "udplite", "sctp", "dccp", "icmp", "ipv6-icmp", "esp", "ah", "mh", "ipcomp"} {
		if protoNames[w] == n {
			return w
		}
	}
	return strconv.Itoa(n)
}

// services are the ports that rules name most, as registered with IANA.
var services = map[string]uint16{
	"tcpmux": 1, "echo": 7, "discard": 9, "systat": 11, "daytime": 13, "netstat": 15, "qotd": 17, "chargen": 19, "ftp-data": 20, "ftp": 21, "ssh": 22,
	"telnet": 23, "smtp": 25, "mail": 25, "time": 37, "whois": 43, "tacacs": 49, "domain": 53, "bootps": 67, "bootpc": 68, "tftp": 69, "gopher": 70,
	"finger": 79, "http": 80, "www": 80, "kerberos": 88, "pop3": 110, "pop-3": 110, "sunrpc": 111, "portmapper": 111, "auth": 113, "ident": 113, "nntp": 119,
	"ntp": 123, "epmap": 135, "netbios-ns": 137, "netbios-dgm": 138, "netbios-ssn": 139, "imap2": 143, "imap": 143, "snmp": 161, "snmp-trap": 162, "snmptrap": 162,
	"bgp": 179, "irc": 194, "ldap": 389, "https": 443, "microsoft-ds": 445, "kpasswd": 464, "submissions": 465, "smtps": 465, "ssmtp": 465, "urd": 465,
	"isakmp": 500, "exec": 512, "login": 513, "who": 513, "shell": 514, "syslog": 514, "printer": 515, "route": 520, "uucp": 540, "dhcpv6-client": 546,
	"dhcpv6-server": 547, "rtsp": 554, "nntps": 563, "submission": 587, "ipp": 631, "ldaps": 636, "ldp": 646, "domain-s": 853, "rsync": 873, "ftps-data": 989,
	"ftps": 990, "telnets": 992, "imaps": 993, "pop3s": 995, "socks": 1080, "openvpn": 1194, "ms-sql-s": 1433, "ms-sql-m": 1434, "l2f": 1701,
	"radius": 1812, "radius-acct": 1813, "mqtt": 1883, "nfs": 2049, "git": 9418, "mysql": 3306, "ms-wbt-server": 3389, "svn": 3690, "epmd": 4369,
	"ipsec-nat-t": 4500, "iax": 4569, "mdns": 5353, "postgresql": 5432, "postgres": 5432, "sip": 5060, "sip-tls": 5061, "xmpp-client": 5222, "xmpp-server": 5269,
	"amqps": 5671, "amqp": 5672, "x11": 6000, "redis": 6379, "http-alt": 8080, "webcache": 8080, "puppet": 8140, "zabbix-agent": 10050, "zabbix-trapper": 10051,
}

func portNumber(s string) (uint16, error) {
	if n, err := number(s, 16); err == nil {
		return uint16(n), nil
	}
	if n, ok := services[strings.ToLower(s)]; ok {
		return n, nil
	}
	return 0, fmt.Errorf("%q is no port: a number from 0 to 65535 is expected", s)
}

// portRange reads "PORT", "FROM:TO", "FROM:" and ":TO".
func portRange(s, sep string) (from, to uint16, err error) {
	a, b, ranged := strings.Cut(s, sep)
	to = 65535
	if a != "" || !ranged {
		if from, err = portNumber(a); err != nil {
			return 0, 0, err
		}
	}
	switch {
	case !ranged:
		to = from
	case b != "":
		if to, err = portNumber(b); err != nil {
			return 0, 0, err
		}
	}
	if from > to {
		return 0, 0, fmt.Errorf("the range %s ends before it begins", s)
	}
	return from, to, nil
}

// numberRange reads "N", "FROM:TO", "FROM:" and ":TO".
func numberRange(s string, bits int) (from, to uint64, err error) {
	a, b, ranged := strings.Cut(s, ":")
	to = 1<<bits - 1
	if a != "" || !ranged {
		if from, err = number(a, bits); err != nil {
			return 0, 0, err
		}
	}
	switch {
	case !ranged:
		to = from
	case b != "":
		if to, err = number(b, bits); err != nil {
			return 0, 0, err
		}
	}
	if from > to {
		return 0, 0, fmt.Errorf("the range %s ends before it begins", s)
	}
	return from, to, nil
}

// valueMask reads "VALUE[/MASK]".
func valueMask(s string, bits int, all uint64) (value, mask uint32, err error) {
	a, b, masked := strings.Cut(s, "/")
	v, err := number(a, bits)
	m := all
	if err == nil && masked {
		m, err = number(b, bits)
	}
	return uint32(v), uint32(m), err
}

// pick finds a word, in any case and also cut short where only one begins so.
func pick[T comparable](names map[string]T, word string) (T, error) {
	w := strings.ToLower(word)
	var keys []string
	for k := range names {
		if k == w {
			return names[k], nil
		}
		if strings.HasPrefix(k, w) && w != "" {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if names[k] != names[keys[0]] {
			return names[k], fmt.Errorf("%q may be %s or %s", word, keys[0], k)
		}
	}
	if len(keys) == 0 {
		var none T
		return none, fmt.Errorf("%q is not known", word)
	}
	return names[keys[0]], nil
}

// icmpKind is a type with a range of codes.
type icmpKind struct{ typ, from, to uint8 }

func kinds(types map[string]uint8, codes map[string][2]uint8) map[string]icmpKind {
	out := map[string]icmpKind{}
	for k, t := range types {
		out[k] = icmpKind{t, 0, 255}
	}
	for k, c := range codes {
		out[k] = icmpKind{c[0], c[1], c[1]}
	}
	return out
}

var icmp4Names = kinds(map[string]uint8{
	"any": 255, "echo-reply": 0, "pong": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8, "ping": 8,
	"router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11, "ttl-exceeded": 11, "parameter-problem": 12,
	"timestamp-request": 13, "timestamp-reply": 14, "address-mask-request": 17, "address-mask-reply": 18,
}, map[string][2]uint8{
	"network-unreachable": {3, 0}, "host-unreachable": {3, 1}, "protocol-unreachable": {3, 2}, "port-unreachable": {3, 3},
	"fragmentation-needed": {3, 4}, "source-route-failed": {3, 5}, "network-unknown": {3, 6}, "host-unknown": {3, 7}, "network-prohibited": {3, 9},
	"host-prohibited": {3, 10}, "tos-network-unreachable": {3, 11}, "tos-host-unreachable": {3, 12}, "communication-prohibited": {3, 13},
	"host-precedence-violation": {3, 14}, "precedence-cutoff": {3, 15}, "network-redirect": {5, 0}, "host-redirect": {5, 1},
	"tos-network-redirect": {5, 2}, "tos-host-redirect": {5, 3}, "ttl-zero-during-transit": {11, 0}, "ttl-zero-during-reassembly": {11, 1},
	"ip-header-bad": {12, 0}, "required-option-missing": {12, 1},
})

var icmp6Names = kinds(map[string]uint8{
	"destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "ttl-exceeded": 3, "parameter-problem": 4, "echo-request": 128, "ping": 128,
	"echo-reply": 129, "pong": 129, "mld-listener-query": 130, "mld-listener-report": 131, "mld-listener-done": 132, "mld-listener-reduction": 132,
	"router-solicitation": 133, "router-advertisement": 134, "neighbour-solicitation": 135, "neighbor-solicitation": 135,
	"neighbour-advertisement": 136, "neighbor-advertisement": 136, "redirect": 137,
}, map[string][2]uint8{
	"no-route": {1, 0}, "communication-prohibited": {1, 1}, "beyond-scope": {1, 2}, "address-unreachable": {1, 3}, "port-unreachable": {1, 4},
	"failed-policy": {1, 5}, "reject-route": {1, 6}, "ttl-zero-during-transit": {3, 0}, "ttl-zero-during-reassembly": {3, 1},
	"bad-header": {4, 0}, "unknown-header-type": {4, 1}, "unknown-option": {4, 2},
})

func icmpType(names map[string]icmpKind, s string) (icmpKind, error) {
	typ, code, hasCode := strings.Cut(s, "/")
	t, err := number(typ, 8)
	if err != nil {
		if hasCode {
			return icmpKind{}, fmt.Errorf("%q is no type", typ)
		}
		return pick(names, s)
	}
	if !hasCode {
		return icmpKind{uint8(t), 0, 255}, nil
	}
	from, to, err := numberRange(code, 8)
	return icmpKind{uint8(t), uint8(from), uint8(to)}, err
}

var tosNames = map[string]uint8{"minimize-delay": 0x10, "maximize-throughput": 8, "maximize-reliability": 4, "minimize-cost": 2, "normal-service": 0}

var dscpClasses = map[string]uint8{
	"cs0": 0, "cs1": 8, "cs2": 16, "cs3": 24, "cs4": 32, "cs5": 40, "cs6": 48, "cs7": 56, "be": 0, "ef": 46,
	"af11": 10, "af12": 12, "af13": 14, "af21": 18, "af22": 20, "af23": 22, "af31": 26, "af32": 28, "af33": 30, "af41": 34, "af42": 36, "af43": 38,
}

var tcpFlagNames = map[string]uint8{"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "all": 63, "none": 0}

func tcpFlags(s string) (uint8, error) {
	var out uint8
	for _, w := range strings.Split(s, ",") {
		f, ok := tcpFlagNames[strings.ToLower(w)]
		if !ok {
			return 0, fmt.Errorf("%q is no flag: SYN, ACK, FIN, RST, URG, PSH, ALL or NONE", w)
		}
		out |= f
	}
	return out, nil
}

var headerNames = map[string]uint8{
	"hop-by-hop": 128, "hop": 128, "dst": 64, "route": 32, "frag": 16, "auth": 8, "esp": 4, "none": 2, "protocol": 1, "prot": 1,
	"ipv6-opts": 64, "ipv6-route": 32, "ipv6-frag": 16, "ah": 8, "ipv6-nonxt": 2, "hopopt": 128,
}

var addrTypes = map[string]uint16{
	"unspec": 1 << 0, "unicast": 1 << 1, "local": 1 << 2, "broadcast": 1 << 3, "anycast": 1 << 4, "multicast": 1 << 5, "blackhole": 1 << 6,
	"unreachable": 1 << 7, "prohibit": 1 << 8, "throw": 1 << 9, "nat": 1 << 10, "xresolve": 1 << 11,
}

var ctStates = map[string]uint16{"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": xtctUntracked, "snat": xtctSNAT, "dnat": xtctDNAT}

var ctStatuses = map[string]uint16{"none": 0, "expected": 1, "seen_reply": 2, "assured": 4, "confirmed": 8}

// bitsOf joins the words of a list.
func bitsOf(names map[string]uint16, list string) (uint16, error) {
	var out uint16
	for _, w := range strings.Split(list, ",") {
		b, err := pick(names, w)
		if err != nil {
			return 0, err
		}
		out |= b
	}
	return out, nil
}
