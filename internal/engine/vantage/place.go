// Package vantage lets another host look at a target, over the ssh of this system, and
// brings back what it says that it saw.
//
// The program that runs there is the one that runs here: it is copied, its hash is checked
// there, and it is gone from there as soon as it runs. It is told addresses and ports and
// not what is expected of them. What comes back is a claim of that host, read as such
// (model/probe.DecodeClaim).
package vantage

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Place is where ssh goes.
type Place struct {
	User string // empty: what ssh takes
	Host string // a name of DNS or of ssh_config, or an address, of IPv6 with a zone maybe
	Port uint16 // 0: what ssh takes
}

// Error is a problem with a vantage, and its remedy.
type Error struct {
	Msg, Hint string
	Cause     error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Msg + ": " + e.Cause.Error()
	}
	return e.Msg
}

// Unwrap implements errors.Unwrap.
func (e *Error) Unwrap() error { return e.Cause }

// scheme of a place.
const scheme = "ssh://"

// Names tells whether a word is meant to be a place, and not the name of a file.
func Names(s string) bool { return strings.HasPrefix(s, scheme) }

// ParsePlace reads ssh://[user@]host[:port]. Nothing that it takes means anything to a
// shell, or is an option of ssh.
func ParsePlace(s string) (Place, error) {
	bad := func(f string, a ...any) (Place, error) {
		return Place{}, &Error{Msg: fmt.Sprintf("%q: ", s) + fmt.Sprintf(f, a...), Hint: "write ssh://host, ssh://user@host:port or ssh://[2001:db8::1]:port; whatever else ssh needs belongs into ~/.ssh/config"}
	}
	rest, ok := strings.CutPrefix(s, scheme)
	if !ok {
		return bad("a vantage begins with ssh://")
	}
	var p Place
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		p.User, rest = rest[:at], rest[at+1:]
		if !word(p.User, "._+") {
			return bad("%q is no user that can be named here", p.User)
		}
	}
	port, hasPort := "", false
	if inner, isLiteral := strings.CutPrefix(rest, "["); isLiteral {
		host, after, closed := strings.Cut(inner, "]")
		if !closed {
			return bad("the ] is missing")
		}
		if after != "" {
			if port, hasPort = strings.CutPrefix(after, ":"); !hasPort {
				return bad("%q follows the address", after)
			}
		}
		// A URI writes the % of a zone as %25 (RFC 6874), people write it as it is.
		addr, zone, hasZone := strings.Cut(host, "%")
		a, err := netip.ParseAddr(addr)
		zone = strings.TrimPrefix(zone, "25")
		switch {
		case err != nil || !a.Is6() || a.Is4In6():
			return bad("%q is no IPv6 address", addr)
		case hasZone && (!word(zone, "._") || len(zone) > 15):
			return bad("%q is no interface", zone)
		case hasZone && !a.IsLinkLocalUnicast():
			return bad("only a link-local address has a zone")
		case !hasZone && a.IsLinkLocalUnicast():
			return bad("%s is link-local: say by which interface, as [%s%%eth0]", a, a)
		}
		p.Host = a.String()
		if hasZone {
			p.Host += "%" + zone
		}
	} else {
		p.Host, port, hasPort = strings.Cut(rest, ":")
		if strings.Contains(port, ":") {
			return bad("an IPv6 address stands in brackets")
		}
		if len(p.Host) > 253 || !word(p.Host, "._") {
			return bad("%q is no host", p.Host)
		}
	}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			return bad("%q is no port", port)
		}
		p.Port = uint16(n)
	}
	return p, nil
}

// word tells whether s has letters, digits, the given marks and hyphens alone, and begins
// with no hyphen.
func word(s, marks string) bool {
	for i, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(marks, r):
		case r == '-' && i > 0:
		default:
			return false
		}
	}
	return s != ""
}

// String writes the place as it is read.
func (p Place) String() string {
	s := scheme
	if p.User != "" {
		s += p.User + "@"
	}
	if strings.Contains(p.Host, ":") {
		s += "[" + p.Host + "]"
	} else {
		s += p.Host
	}
	if p.Port != 0 {
		s += ":" + strconv.Itoa(int(p.Port))
	}
	return s
}

// arguments of ssh. Whatever the user's own configuration says about this host holds
// (identities, jump hosts, aliases), except what would hand something of this host out,
// ask a person, or take a key that is not known.
func (p Place) arguments() []string {
	args := []string{"-T", "-a", "-x"}
	for _, o := range []string{
		"BatchMode=yes", "StrictHostKeyChecking=yes", "VerifyHostKeyDNS=no", "NoHostAuthenticationForLocalhost=no", "UpdateHostKeys=no",
		"ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes", "Tunnel=no", "PermitLocalCommand=no", "RemoteCommand=none",
		"ControlMaster=no", "ControlPath=none", "RequestTTY=no", "EscapeChar=none", "LogLevel=ERROR", "Compression=yes",
		"ConnectTimeout=20", "ServerAliveInterval=10", "ServerAliveCountMax=3",
	} {
		args = append(args, "-o", o)
	}
	if p.User != "" {
		args = append(args, "-l", p.User)
	}
	if p.Port != 0 {
		args = append(args, "-p", strconv.Itoa(int(p.Port)))
	}
	return append(args, "--", p.Host, "exec /bin/sh")
}
