package check

import (
	"fmt"
	"net/netip"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

func addressControls() []Control {
	return []Control{
		{
			ID: "SYSCTL-ADDR-01", Title: "Server uses temporary addresses", Severity: finding.Low,
			Reason:   "It costs accountability, not access.",
			Source:   "RTM_GETADDR (IFA_F_TEMPORARY), net.ipv6.conf.IF.use_tempaddr, accept_ra and autoconf",
			Rule:     "Interface only. use_tempaddr > 0 adds a temporary address to each autoconfigured one; 2 also prefers it as source.",
			What:     "Whether a server's source address changes every day.",
			Why:      "Access lists, logs and reverse DNS name addresses. A server that speaks from a changing one cannot be attributed, and fails source filters at random.",
			Attack:   "None directly; an intruder's connections from this host are harder to attribute.",
			Check:    "We look for temporary addresses, and for interfaces that would make them: use_tempaddr above 0 where router advertisements are taken and autoconf is on. Workstations are left alone: there it is privacy.",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.use_tempaddr=0")},
			TradeOff: "On clients it gives up privacy.",
			Refs:     []finding.Reference{rfc("8981", "§3.8"), rfc("9099", "§2.1"), kernelDoc("use_tempaddr")},
			Live:     true, Eval: evalADDR01,
		},
		{
			ID: "SYSCTL-ADDR-02", Title: "Global address is made from the MAC address", Severity: finding.Low,
			Reason:   "It helps to find and follow the host; it opens nothing.",
			Source:   "RTM_GETADDR, IFLA_INET6_ADDR_GEN_MODE, net.ipv6.conf.IF.{addr_gen_mode,accept_ra,autoconf}",
			Rule:     "addr_gen_mode 0 makes EUI-64 identifiers; 2 and 3 are stable and private (RFC 7217). A write to all.addr_gen_mode reaches every interface.",
			What:     "Whether a global or unique local address carries the MAC address in its lower half.",
			Why:      "The vendor part of a MAC leaves 24 bits to scan instead of 64, and the same identifier follows a machine through every network. Link-local addresses are not counted: the MAC is visible on the link anyway.",
			Attack:   "A scanner tries the 2^24 addresses of one vendor's prefix per /64; an observer recognises the machine elsewhere.",
			Check:    "We look at the addresses in use, and at interfaces where the next router advertisement would make one (addr_gen_mode 0).",
			Fix:      []finding.Remediation{command("sysctl -w net.ipv6.conf.IFACE.addr_gen_mode=3"), advice("With systemd-networkd: IPv6LinkLocalAddressGenerationMode=stable-privacy and Token=prefixstable; with NetworkManager: ipv6.addr-gen-mode=stable-privacy.")},
			TradeOff: "The address changes once: DNS and access lists have to follow.",
			Refs:     []finding.Reference{rfc("8064", "§3"), rfc("7217", "§5"), rfc("7721", "§3"), kernelDoc("addr_gen_mode")},
			Live:     true, Eval: evalADDR02,
		},
		{
			ID: "SYSCTL-ADDR-03", Title: "Global address is easy to guess", Severity: finding.Low,
			Reason:   "It makes scanning feasible; what a scanner then finds is judged by other controls.",
			Source:   "RTM_GETADDR",
			Rule:     "None: a property of the address. Low byte (::1 to ::ffff), words (::dead:beef), an embedded IPv4 address, one repeated 16-bit group.",
			What:     "Whether the lower 64 bits of a static global address follow a pattern that scanners try first.",
			Why:      "A /64 cannot be searched, but people choose ::1, ::10 and ::192.0.2.10. Tools such as scan6 and nmap try those in seconds.",
			Attack:   "A scanner walks the low-byte and IPv4-derived addresses of each known prefix.",
			Check:    "We look at permanent global addresses outside loopback, with prefixes of /64 or shorter.",
			Fix:      []finding.Remediation{advice("Choose a random interface identifier for servers that need not be found, and let DNS name it.")},
			TradeOff: "Addresses become harder to remember and to type.",
			Refs:     []finding.Reference{rfc("7707", "§4.1.1"), rfc("7707", "§4.1.2")},
			Live:     true, Eval: evalADDR03,
		},
	}
}

// isEUI64 recognises a modified EUI-64 interface identifier (RFC 4291 appendix A).
func isEUI64(a netip.Addr) bool {
	b := a.As16()
	return b[11] == 0xff && b[12] == 0xfe
}

func evalADDR01(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		if c.Role.Name == RoleWorkstation {
			return one(notApplicable(on, "On a workstation temporary addresses are privacy."))
		}
		if g := gapOf(s.Addresses); g != nil {
			return one(unknown(on, *g))
		}
		x := s.read(on, setting{l.Name, "use_tempaddr"})
		for _, a := range s.Addrs(l.Index, "ipv6") {
			if a.Flags&fact.AddrTemporary != 0 && a.Prefix.Addr().IsGlobalUnicast() && a.Flags&fact.AddrDADFailed == 0 {
				e := s.addressEvidence(a)
				e.Value, e.Volatile = e.Value+" temporary", true
				r := fail(on, l.Name+" uses temporary addresses, which change every day.", append([]finding.Evidence{e}, x.ev...)...)
				r.Remediation = s.SetConf(l.Name, "use_tempaddr", "0")
				return one(r)
			}
		}
		if x.bad != nil {
			return one(*x.bad)
		}
		if x.v[0] <= 0 {
			return one(pass(on, fmt.Sprintf("%s makes no temporary addresses (use_tempaddr=%d).", l.Name, x.v[0]), x.ev...))
		}
		ra := s.raOf(l)
		if ra.gap != nil {
			return one(unknown(on, *ra.gap))
		}
		y := s.read(on, setting{l.Name, "autoconf"}, setting{l.Name, "accept_ra_pinfo"})
		switch {
		case !ra.accepts:
			return one(pass(on, l.Name+" has nothing to make temporary addresses from: the kernel takes no router advertisements.", append(x.ev, ra.evidence...)...))
		case y.bad != nil:
			return one(*y.bad)
		case y.v[0] == 0 || y.v[1] == 0:
			return one(pass(on, l.Name+" has nothing to make temporary addresses from: no prefix is autoconfigured.", append(x.ev, y.ev...)...))
		}
		r := fail(on, fmt.Sprintf("%s would add a temporary address to each prefix it hears (use_tempaddr=%d).", l.Name, x.v[0]), append(x.ev, ra.evidence...)...)
		r.Remediation = s.SetConf(l.Name, "use_tempaddr", "0")
		return one(s.behind(anyRA(), l.Name, r))
	})
}

func evalADDR02(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		if g := gapOf(s.Addresses); g != nil {
			return one(unknown(on, *g))
		}
		for _, a := range s.Addrs(l.Index, "ipv6") {
			if ip := a.Prefix.Addr(); ip.IsGlobalUnicast() && isEUI64(ip) && a.Prefix.Bits() <= 64 {
				r := fail(on, l.Name+" has a global address that carries its MAC address: "+ip.String()+".", s.addressEvidence(a))
				r.Remediation = s.SetConf(l.Name, "addr_gen_mode", "3")
				return one(r)
			}
		}
		ra := s.raOf(l)
		if ra.gap != nil {
			return one(unknown(on, *ra.gap))
		}
		if !ra.accepts {
			return one(pass(on, "No global address of "+l.Name+" is made from the MAC address."))
		}
		x := s.read(on, setting{l.Name, "addr_gen_mode"}, setting{l.Name, "autoconf"}, setting{l.Name, "accept_ra_pinfo"})
		if x.bad != nil {
			return one(*x.bad)
		}
		// addrconf_prefix_rcv asks whether the mode makes stable addresses (2 and 3)
		// and else takes the MAC: none (1) is about the link-local address only.
		// A token comes before everything.
		if t, ok := l.Token.Get(); ok {
			return one(pass(on, fmt.Sprintf("SLAAC on %s uses the token %s, not the MAC address.", l.Name, t), x.ev...))
		}
		if x.v[0] != 2 && x.v[0] != 3 && x.v[1] != 0 && x.v[2] != 0 && l.Type == arphrdEther {
			if g := gapOf(l.Token); g != nil {
				return one(unknown(on, *g))
			}
			r := fail(on, fmt.Sprintf("The next router advertisement gives %s an address made from the MAC address (addr_gen_mode=%d).", l.Name, x.v[0]), x.ev...)
			r.Remediation = s.SetConf(l.Name, "addr_gen_mode", "3")
			return one(s.behind(anyRA(), l.Name, r))
		}
		return one(pass(on, "No global address of "+l.Name+" is made from the MAC address.", x.ev...))
	})
}

// guessable says by what pattern an interface identifier can be guessed.
func (s *Space) guessable(ifindex int, a netip.Addr) string {
	b := a.As16()
	g := [4]uint16{}
	for i := range g {
		g[i] = uint16(b[8+2*i])<<8 | uint16(b[9+2*i])
	}
	switch {
	case g[0] == 0 && g[1] == 0 && g[2] == 0:
		return "only the last 16 bits are set"
	case g[0] == 0 && g[1] == 0:
		if v4 := netip.AddrFrom4([4]byte(b[12:16])); s.hasIPv4(ifindex, v4) {
			return "it embeds the IPv4 address " + v4.String()
		}
	case g[0] == g[1] && g[1] == g[2] && g[2] == g[3]:
		return "one group repeated"
	}
	// 192.0.2.10 written as :192:0:2:10, in hexadecimal digits that look decimal.
	if v4, err := netip.ParseAddr(fmt.Sprintf("%x.%x.%x.%x", g[0], g[1], g[2], g[3])); err == nil && s.hasIPv4(ifindex, v4) {
		return "it spells the IPv4 address " + v4.String()
	}
	words := 0
	for _, w := range g {
		switch w {
		case 0xdead, 0xbeef, 0xcafe, 0xbabe, 0xface, 0xfeed, 0xc0de, 0xf00d, 0xb00c, 0xbad, 0xfab, 0:
			words++
		}
	}
	if words == 4 {
		return "it is made of words"
	}
	return ""
}

func (s *Space) hasIPv4(ifindex int, a netip.Addr) bool {
	for _, x := range s.on(ifindex).addrs {
		if x.Prefix.Addr() == a {
			return true
		}
	}
	return false
}

func evalADDR03(c *Context) []Result {
	return c.eachInterface(func(s *Space, l *fact.Link) []Result {
		on := s.On(l.Name)
		if g := gapOf(s.Addresses); g != nil {
			return one(unknown(on, *g))
		}
		n := 0
		for _, a := range s.Addrs(l.Index, "ipv6") {
			ip := a.Prefix.Addr()
			if !ip.IsGlobalUnicast() || a.Flags&fact.AddrPermanent == 0 || a.Prefix.Bits() > 64 {
				continue
			}
			n++
			if why := s.guessable(l.Index, ip); why != "" {
				return one(fail(on, fmt.Sprintf("%s is easy to guess: %s.", ip, why), s.addressEvidence(a)))
			}
		}
		if n == 0 {
			return one(notApplicable(on, l.Name+" has no static global address in a /64."))
		}
		return one(pass(on, "The static global addresses of "+l.Name+" follow no pattern that scanners try first."))
	})
}
