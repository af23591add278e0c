package intent

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Check is something that must answer before and after a change.
type Check struct {
	Kind string // tcp, icmp, http, https, dns
	// Family is the only one that is tried: of the address, or as the scheme pins it
	// (tcp6://). Empty: every family in which the name has an address must answer.
	Family string
	Host   string     // name or address
	Addr   netip.Addr // of a Host that is an address
	Port   uint16     // zero for icmp
	URL    string     // of http and https, without the pin
	Ask    string     // of dns: the name that is asked for
}

// CheckError says why a text is no check, and what to write instead.
type CheckError struct {
	Why, Hint string
}

// Error implements error.
func (e *CheckError) Error() string { return e.Why }

// CheckKinds are the kinds of checks with the port that each has when none is written.
func CheckKinds() map[string]uint16 {
	return map[string]uint16{"tcp": 0, "icmp": 0, "http": 80, "https": 443, "dns": 53}
}

// ParseCheck reads tcp://[2001:db8::1]:53, icmp6://host, https4://host/path or
// dns://192.0.2.53/name. A 4 or 6 at the end of the scheme pins the family of a name.
// The error is a *CheckError.
func ParseCheck(s string) (Check, error) {
	bad := func(hint, why string, a ...any) (Check, error) {
		return Check{}, &CheckError{Why: fmt.Sprintf(why, a...), Hint: hint}
	}
	const forms = "write tcp://[2001:db8::1]:53, icmp://192.0.2.1, https://host/path or dns://192.0.2.53/name"
	u, err := url.Parse(s)
	switch {
	case strings.Count(s, ":") > 2 && !strings.Contains(s, "["):
		return bad("put the IPv6 address in brackets: tcp://[2001:db8::1]:53", "%q is no check", s)
	case err != nil:
		return bad(forms, "%q is no check", s)
	}
	c := Check{Kind: u.Scheme, Host: u.Hostname()}
	for suffix, family := range map[string]string{"4": "ipv4", "6": "ipv6"} {
		if kind, pinned := strings.CutSuffix(u.Scheme, suffix); pinned {
			c.Kind, c.Family = kind, family
		}
	}
	kinds := CheckKinds()
	def, known := kinds[c.Kind]
	switch {
	case !known:
		return bad(forms, "%q is no kind of check", u.Scheme)
	case u.Opaque != "" || c.Host == "" || len(s) > 512 || strings.ContainsAny(s, " \"'`$;\\"):
		return bad(forms, "%q names no host", s)
	case u.User != nil:
		return bad("leave user and password out: the intent is no place for secrets", "a check carries no password")
	}
	if a, err := netip.ParseAddr(c.Host); err == nil {
		if a.Zone() != "" && !a.IsLinkLocalUnicast() || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() {
			return bad("name the address of a host", "%q asks an address that does not answer", s)
		}
		of := "ipv6"
		if a.Is4() {
			of = "ipv4"
		}
		if c.Family != "" && c.Family != of {
			return bad("write "+c.Kind+"://: the address says the family", "%q asks %s for an %s address", s, u.Scheme, of)
		}
		c.Addr, c.Family = a, of
	}
	path := strings.Trim(u.Path, "/")
	switch {
	case c.Kind == "tcp" && (u.Port() == "" || path != ""):
		return bad("write "+u.Scheme+"://"+u.Host+":53", "%q names no port", s)
	case c.Kind == "icmp" && (u.Port() != "" || path != ""):
		return bad("write "+u.Scheme+"://"+u.Host, "%q: icmp has no ports and no paths", s)
	case c.Kind == "dns" && (path == "" || strings.Contains(path, "/") || len(path) > 253):
		return bad("write "+u.Scheme+"://"+u.Host+"/example.org", "%q does not say which name to ask for", s)
	}
	c.Port = def
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return bad("ports are numbers from 1 to 65535", "%q is no port", p)
		}
		c.Port = uint16(n)
	}
	switch c.Kind {
	case "http", "https":
		u.Scheme = c.Kind
		c.URL = u.String()
	case "dns":
		c.Ask = path
	}
	return c, nil
}
