package check

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	rules "github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/finding"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// special are prefixes that are nobody's source on the internet.
var special = []string{"2001:db8::/32", "3fff::/20", "fec0::/10", "100::/64", "5f00::/16", "2002:a00::/24", "2002:c0a8::/32"}

// edgeFilter judges, on routers, transit packets with sources that cannot be genuine,
// and with routing headers.
func edgeFilter(what string, kinds func(*Space) []rules.Kind, message string, fix func(*Space) []finding.Remediation) func(*Context) []Result {
	return func(c *Context) []Result {
		return c.eachFilter(func(s *Space, r *reachable) []Result {
			sub := s.Subject()
			sub.Key = what
			if g := s.placeGap(); g != nil {
				return one(unknown(sub, *g))
			}
			f := s.forwards()
			if g := gapOf(f); g != nil {
				return one(unknown(sub, *g))
			}
			ins, outs := s.transitWays()
			if on, _ := f.Get(); !on || !s.routes() || len(ins) == 0 {
				return one(notApplicable(sub, "This namespace is no router between networks (role "+c.Role.Name+")."))
			}
			up := s.uplinks()
			if len(up) > 0 {
				ins = up
			}
			var bad []string
			var worst answered
			for _, k := range kinds(s) {
				a, _ := s.through(question{what: k.Name, narrow: true, kinds: []rules.Kind{k}}, ins, outs)
				if a.fateKind == in {
					bad = append(bad, k.Name)
				}
				worst = worst.better(a)
			}
			switch worst.fateKind {
			case in:
				res := fail(sub, message+listing(bad, 4)+".", s.fateEvidence(&worst.by)...)
				res.Remediation = fix(s)
				return one(res)
			case unclear:
				return one(s.doubtful(sub, worst))
			}
			return one(pass(sub, "The rules forward none of them."))
		})
	}
}

// uplinks are the interfaces of IPv6 default routes.
func (s *Space) uplinks() []string {
	var out []string
	for _, g := range s.gateways() {
		if n := s.IfName(g.index); n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func bogonKinds(*Space) []rules.Kind {
	var out []rules.Kind
	for _, p := range special {
		k := from(toPort(rs.IPv6, "tcp", 443), netip.MustParsePrefix(p))
		k.Name = "a packet from " + p
		out = append(out, k)
	}
	return out
}

func bogonFix(s *Space) []finding.Remediation {
	up := s.uplinks()
	if len(up) == 0 {
		up = []string{"UPLINK"}
	}
	return []finding.Remediation{s.put(rs.Forward, "", "iifname { "+quotedNames(up)+" } ip6 saddr { "+strings.Join(special, ", ")+" } drop", ""), s.lasts()}
}

func routingKinds(*Space) []rules.Kind {
	var out []rules.Kind
	for _, typ := range []byte{0, 2, 3, 4} {
		k := behindHeader(some(rs.IPv6)[1], rules.Ext{Number: protoRouting, Data: string([]byte{2, typ, 1})}, "")
		k.Name = "a packet with a routing header of type " + strconv.Itoa(int(typ))
		out = append(out, k)
	}
	return out[:1]
}

func routingFix(s *Space) []finding.Remediation {
	return []finding.Remediation{s.put(rs.Forward, "", "rt type 0 drop", "-m rt --rt-type 0 -j DROP"), s.lasts()}
}
