package probe

import "strconv"

// ICMPWords names an ICMP or ICMPv6 error as nft does.
func ICMPWords(v4 bool, typ, code uint8) string {
	four := map[[2]uint8]string{
		{3, 0}: "net-unreachable", {3, 1}: "host-unreachable", {3, 2}: "prot-unreachable", {3, 3}: "port-unreachable", {3, 9}: "net-prohibited",
		{3, 10}: "host-prohibited", {3, 13}: "admin-prohibited", {11, 0}: "time-exceeded",
	}
	six := map[[2]uint8]string{
		{1, 0}: "no-route", {1, 1}: "admin-prohibited", {1, 3}: "addr-unreachable", {1, 4}: "port-unreachable", {1, 5}: "policy-fail", {1, 6}: "reject-route",
		{3, 0}: "time-exceeded", {4, 0}: "parameter-problem", {4, 1}: "unrecognized next header", {4, 2}: "unrecognized option",
	}
	m, name := six, "icmpv6"
	if v4 {
		m, name = four, "icmp"
	}
	if w := m[[2]uint8{typ, code}]; w != "" {
		return name + " " + w
	}
	return name + " type " + strconv.Itoa(int(typ)) + " code " + strconv.Itoa(int(code))
}
