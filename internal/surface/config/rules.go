package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sixfence/sixfence/internal/model/intent"
)

// rule is what the loader holds a value against, and the JSON Schema with it.
type rule struct {
	words   []string                                // a closed set
	also    map[string]string                       // words accepted as another
	hints   map[string]string                       // what to write instead of a word
	pattern string                                  // for the schema: weaker than check, never stronger
	check   func(s string) (norm, why, hint string) // nil: any
}

func strs[T ~string](ws ...T) []string {
	out := make([]string, len(ws))
	for i, w := range ws {
		out[i] = string(w)
	}
	return out
}

var families = rule{
	words: []string{"ipv4", "ipv6"}, also: map[string]string{"ip": "ipv4", "ip6": "ipv6"},
	hints: map[string]string{"inet": "leave families out to mean both", "both": "leave families out to mean both", "dual-stack": "leave families out to mean both", "inet6": "did you mean ipv6?", "4": "did you mean ipv4?", "6": "did you mean ipv6?"},
}

// rules are those of the fields of the intent, by Type.Field; Type.Field.key is the
// rule of a map's keys. What has none is any text.
var rules = map[string]rule{
	"Intent.APIVersion":     {check: version1, pattern: "^" + regexp.QuoteMeta(APIVersion) + "$"},
	"Intent.Role":           {words: strs(intent.RoleServer, intent.RoleRouter, intent.RoleKubernetesNode, intent.RoleHypervisor, intent.RoleWorkstation), hints: map[string]string{"host": "did you mean server?", "kubernetes": "did you mean kubernetes-node?", "k8s": "did you mean kubernetes-node?", "desktop": "did you mean workstation?", "client": "did you mean workstation?", "gateway": "did you mean router?"}},
	"Intent.Families":       {words: strs(intent.DualStack, intent.IPv6Only, intent.Disabled, intent.DisabledKeepLoopback), hints: map[string]string{"ipv4-only": "did you mean disabled-keep-loopback? It takes IPv6 from every interface but loopback", "ipv4": "did you mean disabled-keep-loopback? It takes IPv6 from every interface but loopback", "both": "did you mean dual-stack?", "ipv6": "did you mean ipv6-only?"}},
	"Intent.Interfaces.key": {check: interfaceKey},
	"Intent.Sysctls":        {check: sysctlValue},
	"Intent.Sysctls.key":    {check: sysctlKey},
	"Intent.Checks":         {check: checkURL, pattern: "^(tcp|icmp|http|https|dns)[46]?://"},
	"Intent.Drift":          {words: strs(intent.DriftReport, intent.DriftRestore), hints: map[string]string{"true": "did you mean restore?", "false": "did you mean report?", "enforce": "did you mean restore?", "repair": "did you mean restore?", "ignore": "did you mean report?", "status": "did you mean report?"}},
	"Firewall.Manage":       {words: strs(intent.ManageBoth, intent.ManageIPv6, intent.ManageNone)},
	"Files.Owner":           {check: prose},
	"Interface.Addressing":  {words: strs(intent.Static, intent.SLAAC, intent.DHCPv6, intent.NoIPv6), hints: map[string]string{"dhcp": "did you mean dhcpv6?", "auto": "did you mean slaac?", "ra": "did you mean slaac?", "manual": "did you mean static?", "disabled": "did you mean none?"}},
	"Match.Name":            {check: interfaceGlob},
	"Match.Driver":          {check: driverGlob},
	"Match.MAC":             {check: mac, pattern: macPattern},
	"Match.Role":            {words: []string{intent.DefaultRoute}},
	"Router.Address":        {check: linkLocal, pattern: "^[fF][eE][89aAbB]"},
	"Router.MAC":            {check: mac, pattern: macPattern},
	"Router.Prefixes":       {check: onLink},
	"DHCPv6Server.Address":  {check: linkLocal, pattern: "^[fF][eE][89aAbB]"},
	"Service.Name":          {check: name, pattern: namePattern},
	"Service.Ports":         {check: port, pattern: portPattern},
	"Service.Families":      families,
	"Service.Reason":        {check: prose},
	"Flow.InInterface":      {check: interfaceGlob},
	"Flow.OutInterface":     {check: interfaceGlob},
	"Flow.Ports":            {check: port, pattern: portPattern},
	"Flow.Families":         families,
	"Egress.Metadata":       {words: []string{"allow", "root", "deny"}},
	"EgressFamily.Default":  {words: []string{"allow", "deny"}, hints: map[string]string{"drop": "did you mean deny?", "accept": "did you mean allow?"}},
	"Destination.Ports":     {check: port, pattern: portPattern},
	"Tunnels.Policy":        {words: []string{intent.TunnelsDeny, intent.TunnelsAllow}, hints: map[string]string{"none": "did you mean deny?", "drop": "did you mean deny?"}},
	"Tunnel.Mechanism":      {words: intent.Mechanisms(), also: map[string]string{"sit": "6in4", "wg": "wireguard"}},
	"Limits.EchoPerSecond":  {check: rate},
	"Limits.NDPerSecond":    {check: rate},
	"Logging.Prefix":        {check: logPrefix, pattern: `^[A-Za-z0-9][A-Za-z0-9 ._:-]*$`},
	"Waiver.Control":        {check: controlID, pattern: `^[A-Z][A-Z0-9-]*$`},
	"Waiver.Interface":      {check: interfaceName},
	"Waiver.Port":           {check: port, pattern: portPattern},
	"Waiver.Reason":         {check: prose},
	"Waiver.Owner":          {check: prose},
	"Waiver.Until":          {check: date, pattern: datePattern},
	"Decision.Why":          {check: prose},
	"Decision.Who":          {check: prose},
	"Decision.Until":        {check: date, pattern: datePattern},
}

const (
	macPattern  = `^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$`
	namePattern = `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`
	portPattern = `^[a-z0-9]+(/[0-9]+(-[0-9]+)?)?$`
	datePattern = `^\d{4}-\d{2}-\d{2}$`
)

// required are the keys that an entry must have wherever it is written.
var required = map[string][]string{
	"Service": {"name", "ports"}, "Router": {"address"}, "DHCPv6Server": {"address"}, "Waiver": {"control", "reason", "until"}, "Tunnel": {"mechanism"},
}

// missing are the hints about a required key.
var missing = map[string]string{
	"Service.name": "name: ssh", "Service.ports": "ports: [tcp/22]", "Router.address": "address: \"fe80::1\"", "DHCPv6Server.address": "address: \"fe80::1\"",
	"Waiver.control": "name one control: control: LISTEN-07", "Waiver.reason": "say why the finding is accepted: reason: …", "Waiver.until": "the last day on which it holds: until: 2027-01-31",
	"Tunnel.mechanism": "one of: " + strings.Join(intent.Mechanisms(), ", "),
}

// notEmpty are the lists that must have an item, with the reason as a hint: left out
// they mean any, and an empty list would look like none.
var notEmpty = map[string]string{
	"Service.Ports": "name a port: ports: [tcp/22]", "Service.From": "leave from out to mean any source; to close the service, take it out", "Service.To": "leave to out to mean any address of this host",
	"Service.Families": "leave families out to mean both; to close the service, take it out", "Service.Interfaces": "leave interfaces out to mean any; to close the service, take it out",
	"Flow.From": "leave from out to mean any", "Flow.To": "leave to out to mean any", "Flow.Ports": "leave ports out to mean any", "Flow.Families": "leave families out to mean both",
	"Destination.To": "leave to out to mean any", "Destination.Ports": "leave ports out to mean any",
}

// wrongKeys are hints for keys that people write where others are meant.
var wrongKeys = map[string]string{
	"Intent.version": "begin the file with: apiVersion: " + APIVersion, "Intent.kind": "there is no kind: an intent is the only document of its sort",
	"Intent.allow": "list what is accepted under services:", "Intent.open": "list what is accepted under services:", "Intent.rules": "list what is accepted under services:", "Intent.ports": "list what is accepted under services:",
	"Intent.ipv6": "families: says which IP versions the host speaks", "Intent.name": "an intent has no name; decision: {why: …} has room for it",
	"Service.port": "the key is ports, a list: ports: [tcp/22]", "Service.proto": "the protocol is part of the port: ports: [tcp/22]", "Service.protocol": "the protocol is part of the port: ports: [tcp/22]",
	"Service.source": "the key is from", "Service.sources": "the key is from", "Service.src": "the key is from", "Service.allow": "the key is from", "Service.family": "the key is families, a list: families: [ipv6]",
	"Service.interface": "the key is interfaces, a list", "Service.iif": "the key is interfaces, a list", "Service.destination": "the key is to", "Service.comment": "the key is reason", "Service.description": "the key is reason", "Service.why": "the key is reason",
	"Interface.router": "the key is routers, a list", "Interface.gateway": "list it under routers: [{address: \"fe80::1\"}]", "Interface.name": "the name is the key itself, or match: {name: eth*}",
	"Interface.mac": "to select by it: match: {mac: \"52:54:00:00:00:01\"}", "Interface.driver": "to select by it: match: {driver: virtio_net}", "Interface.role": "to select by it: match: {role: default-route}",
	"Router.ip": "the key is address", "Router.lladdr": "the key is mac", "Router.prefix": "the key is prefixes, a list", "Waiver.expires": "the key is until", "Waiver.who": "the key is owner",
	"Waiver.subject": "write interface, port or address beside control; `sixfence audit --waivers FILE` takes waivers with more of a subject", "Tunnel.type": "the key is mechanism", "Tunnel.name": "the key is mechanism",
	"Tunnel.remote": "the key is peer", "Egress.default": "say it per family: ipv6: {default: deny}", "Egress.allow": "say it per family: ipv6: {default: deny, allow: […]}", "Egress.tunnels": "tunnels is a key of its own, at the top level",
	"Firewall.enabled": "manage: none leaves the packet filter alone", "Logging.enabled": "dropped: true, or guards: false",
}

func version1(s string) (string, string, string) {
	if s == APIVersion {
		return s, "", ""
	}
	if strings.HasPrefix(s, "sixfence/") {
		return "", fmt.Sprintf("this release reads %s, not %s", APIVersion, s), "upgrade sixfence, or write: apiVersion: " + APIVersion
	}
	return "", fmt.Sprintf("%q is no version of the intent", s), "begin the file with: apiVersion: " + APIVersion
}

var nameOK = regexp.MustCompile(namePattern)

func name(s string) (string, string, string) {
	if !nameOK.MatchString(s) {
		return "", fmt.Sprintf("%q is no name", s), "letters, digits, dot, dash and underscore, 63 at most: the name stands in comments of the packet filter"
	}
	return s, "", ""
}

func port(s string) (string, string, string) {
	p, err := intent.ParsePort(s)
	if e := (*intent.PortError)(nil); errors.As(err, &e) {
		return "", e.Why, e.Hint
	}
	return p.String(), "", ""
}

// interfaceName is the kernel's rule (dev_valid_name): 15 bytes, no space, slash or
// colon, not . or ..; a glob may be longer.
func interfaceGlob(s string) (string, string, string) {
	globbed := strings.ContainsAny(s, `*?[\`)
	switch {
	case s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/: \t"):
		return "", fmt.Sprintf("%q cannot be the name of an interface", s), "a name like eth0, or a glob: eth*, en[ps]*"
	case s == "lo":
		return "", "the loopback interface needs no entry", "take it out: loopback is always accepted"
	case !globbed && len(s) > 15:
		return "", fmt.Sprintf("%q is longer than the 15 characters that the kernel allows", s), "check the name with: ip link"
	case len(s) > 64:
		return "", fmt.Sprintf("the glob %q is too long", s), "a glob like eth*"
	}
	if _, err := path.Match(s, "x"); err != nil {
		return "", fmt.Sprintf("%q is no glob", s), "* is any text, ? one character, [ab] one of them: close the bracket"
	}
	return s, "", ""
}

// interfaceName is the name of one interface, as findings have it.
func interfaceName(s string) (string, string, string) {
	if strings.ContainsAny(s, "*?[\\") {
		return "", fmt.Sprintf("%q is a glob, and a finding is about one interface", s), "a name like eth0, one waiver each"
	}
	if s == "lo" {
		return s, "", ""
	}
	return interfaceGlob(s)
}

// interfaceKey is a name, a glob, or any word when match: selects.
func interfaceKey(s string) (string, string, string) { return interfaceGlob(s) }

func driverGlob(s string) (string, string, string) {
	if s == "" || len(s) > 64 || strings.ContainsAny(s, "/ \t") {
		return "", fmt.Sprintf("%q cannot be a driver", s), "a name as `ethtool -i eth0` shows it: virtio_net, e1000e, mlx5_*"
	}
	if _, err := path.Match(s, "x"); err != nil {
		return "", fmt.Sprintf("%q is no glob", s), "* is any text, ? one character, [ab] one of them: close the bracket"
	}
	return s, "", ""
}

var (
	macOK     = regexp.MustCompile(macPattern)
	macOther  = regexp.MustCompile(`^([0-9a-fA-F]{2}-){5}[0-9a-fA-F]{2}$`)
	macCisco  = regexp.MustCompile(`^([0-9a-fA-F]{4}\.){2}[0-9a-fA-F]{4}$`)
	macSample = "six pairs of hexadecimal digits with colons: \"52:54:00:00:00:01\""
)

func mac(s string) (string, string, string) {
	norm := strings.ToLower(s)
	switch {
	case macOther.MatchString(s):
		return "", fmt.Sprintf("%q is written with dashes", s), "write " + strings.ReplaceAll(norm, "-", ":")
	case macCisco.MatchString(s):
		h := strings.ReplaceAll(norm, ".", "")
		return "", fmt.Sprintf("%q is written with dots", s), fmt.Sprintf("write %s:%s:%s:%s:%s:%s", h[:2], h[2:4], h[4:6], h[6:8], h[8:10], h[10:])
	case !macOK.MatchString(s):
		return "", fmt.Sprintf("%q is no MAC address", s), macSample
	case norm == "00:00:00:00:00:00":
		return "", "all zeros is nobody's MAC address", macSample
	}
	if b, _ := strconv.ParseUint(norm[:2], 16, 8); b&1 != 0 {
		return "", fmt.Sprintf("%q is a multicast address, which no sender has", s), "check it with: ip -6 neigh"
	}
	return norm, "", ""
}

func linkLocal(s string) (string, string, string) {
	a, err := netip.ParseAddr(s)
	if err == nil && a.Is6() && a.IsLinkLocalUnicast() {
		return s, "", ""
	}
	if err != nil {
		return s, "", "" // said already
	}
	return "", fmt.Sprintf("%s is not link-local", s), "routers and DHCPv6 servers speak from an address in fe80::/10: see ip -6 route, ip -6 neigh"
}

func onLink(s string) (string, string, string) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return s, "", ""
	case p.Addr().Is4():
		return "", fmt.Sprintf("%s is IPv4, which no router advertises", s), "list the IPv6 prefixes of the link: 2001:db8:1::/64"
	case p.Addr().IsLinkLocalUnicast() || p.Addr().IsMulticast() || p.Addr().IsLoopback() || p.Bits() == 0:
		return "", fmt.Sprintf("%s is no prefix that a router advertises", s), "list the prefixes of the link: 2001:db8:1::/64"
	}
	return s, "", ""
}

func date(s string) (string, string, string) {
	if _, err := time.Parse("2006-01-02", s); err != nil {
		return "", fmt.Sprintf("%q is no date", s), "write YYYY-MM-DD: 2027-01-31"
	}
	return s, "", ""
}

const maxRate = 1_000_000

func rate(s string) (string, string, string) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 || n > maxRate {
		return "", fmt.Sprintf("%s packets a second is no rate", s), "from 1 to 1000000; leave it out for the default"
	}
	return s, "", ""
}

var logOK = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._:-]*$`)

func logPrefix(s string) (string, string, string) {
	if len(s) > 32 || !logOK.MatchString(s) {
		return "", fmt.Sprintf("%q is no prefix of log lines", s), "letters, digits, space, dot, dash, colon and underscore, 32 at most"
	}
	return s, "", ""
}

var controlOK = regexp.MustCompile(`^[A-Z][A-Z0-9]*(-[A-Z0-9]+)+$`)

func controlID(s string) (string, string, string) {
	if !controlOK.MatchString(s) {
		return "", fmt.Sprintf("%q is no control", s), "`sixfence explain` lists the controls: LISTEN-07"
	}
	return s, "", ""
}

func prose(s string) (string, string, string) {
	s = strings.Join(strings.Fields(s), " ")
	switch {
	case s == "":
		return "", "it is empty", "say it in a few words, or take the key out"
	case utf8.RuneCountInString(s) > 500:
		return "", "it is longer than 500 characters", "say it shorter, and keep the long story elsewhere"
	}
	return s, "", ""
}

func checkURL(s string) (string, string, string) {
	_, err := intent.ParseCheck(s)
	if e := (*intent.CheckError)(nil); errors.As(err, &e) {
		return "", e.Why, e.Hint
	}
	return s, "", ""
}

// sysctlKey is the path below /proc/sys with slashes. As sysctl(8) does, the first
// separator decides whether dots or slashes separate.
func sysctlKey(s string) (string, string, string) {
	norm := s
	if i := strings.IndexAny(s, "./"); i >= 0 && s[i] == '.' {
		norm = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, s)
	}
	norm = strings.TrimPrefix(norm, "/proc/sys/")
	parts := strings.Split(norm, "/")
	switch {
	case strings.ContainsAny(s, "*?[]"):
		return "", fmt.Sprintf("%q has a wildcard", s), "name the interface, or default for those to come; what the role implies reaches every interface by itself"
	case len(norm) > 200 || strings.ContainsAny(norm, " \t=\"'#;\\"):
		return "", fmt.Sprintf("%q cannot be a sysctl", s), "write net/ipv6/conf/eth0/hop_limit or net.ipv6.conf.eth0.hop_limit"
	case parts[0] != "net" || len(parts) < 3:
		return "", fmt.Sprintf("%q is not below net", s), "sixfence sets net.* only; other settings belong into /etc/sysctl.d"
	}
	for _, p := range parts {
		if p == "" || p == "." || p == ".." {
			return "", fmt.Sprintf("%q cannot be a sysctl", s), "write net/ipv6/conf/eth0/hop_limit or net.ipv6.conf.eth0.hop_limit"
		}
	}
	return norm, "", ""
}

var sysctlOK = regexp.MustCompile(`^-?[A-Za-z0-9][A-Za-z0-9_.:,/ \t-]*$`)

func sysctlValue(s string) (string, string, string) {
	if len(s) > 256 || !sysctlOK.MatchString(s) {
		return "", fmt.Sprintf("%q is no value of a sysctl", s), "a number, several numbers, or one word"
	}
	return s, "", ""
}
