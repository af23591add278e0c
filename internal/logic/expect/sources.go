package expect

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/model/probe"
)

// Intent expects what an intent says. What it does not list is not accepted.
type Intent struct{ intent.Intent }

// Expect implements Source.
func (in Intent) Expect(q Question) Word {
	family := q.Family()
	switch {
	case q.Proto == "icmp" || q.Proto == "icmpv6":
		if q.Proto == "icmp" && q.Port != 8 {
			return ""
		}
		return Word(probe.Open) // echo, up to a rate
	case family == "ipv6" && (in.Families == intent.Disabled || in.Families == intent.DisabledKeepLoopback),
		family == "ipv4" && in.Families == intent.IPv6Only:
		return "" // there is no such address; who asks it knows better
	}
	out := Blocked
	if in.Firewall.Manage == intent.ManageNone || in.Firewall.Manage == intent.ManageIPv6 && family == "ipv4" {
		out = "" // other rules decide
	}
	for _, s := range in.Services {
		if !in.names(s, q) || s.Families != nil && !slices.Contains(s.Families, family) || !within(s.From, q.Source) || !within(s.To, q.Addr) {
			continue
		}
		if s.Interfaces == nil {
			return Word(probe.Open)
		}
		out = Unknown // it depends on the interface, which nobody sees from here
	}
	return out
}

func (Intent) names(s intent.Service, q Question) bool {
	return slices.ContainsFunc(s.Ports, func(w string) bool {
		p, err := intent.ParsePort(w)
		return err == nil && p.Name == q.Proto && !p.Whole() && p.From <= q.Port && q.Port <= p.To
	})
}

// within: no prefixes mean any.
func within(ps []netip.Prefix, a netip.Addr) bool {
	return ps == nil || slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a.WithZone("").Unmap()) })
}

// List expects what a person wrote down for a target that does not run sixfence.
type List []Entry

// Entry is one line of a List. The narrowest entry that names a port holds.
type Entry struct {
	Proto    string // empty: TCP and UDP; or Echo
	From, To uint16 // 0 and 0: every port
	IPv4     Word
	IPv6     Word
}

// Echo is the Proto of an Entry for the echo of both families.
const Echo = "echo"

// Expect implements Source.
func (l List) Expect(q Question) Word {
	best, width := Word(""), 1<<20
	for _, e := range l {
		echo := e.Proto == Echo
		if echo && (q.Proto == "icmp" && q.Port == 8 || q.Proto == "icmpv6" && q.Port == 128) {
			e.Proto, e.From, e.To = q.Proto, q.Port, q.Port
		}
		if e.Proto == "" && q.Proto != "tcp" && q.Proto != "udp" || e.Proto != "" && e.Proto != q.Proto || (e.From != 0 || e.To != 0) && (q.Port < e.From || q.Port > e.To) {
			continue
		}
		w, word := int(e.To)-int(e.From), e.IPv4
		switch {
		case e.Proto == "":
			w = 1 << 18
		case e.From == 0 && e.To == 0:
			w = 1 << 17
		case echo: // wider than the type that it has in one family
			w = 1
		}
		if q.Family() == "ipv6" {
			word = e.IPv6
		}
		if word != "" && w < width {
			best, width = word, w
		}
	}
	return best
}

// Contradicts tells whether another entry is as narrow, names the same port and says another
// thing of it: neither of the two would hold.
func (e Entry) Contradicts(o Entry) bool {
	if !(e.IPv4 != "" && o.IPv4 != "" && e.IPv4 != o.IPv4 || e.IPv6 != "" && o.IPv6 != "" && e.IPv6 != o.IPv6) {
		return false
	}
	return e.Proto == o.Proto && int(e.To)-int(e.From) == int(o.To)-int(o.From) && e.From <= o.To && o.From <= e.To
}

// Name is the entry as people write it.
func (e Entry) Name() string {
	name := cmp.Or(e.Proto, "*")
	switch {
	case e.From == 0 && e.To == 0 && (e.Proto == "" || e.Proto == Echo):
	case e.From == 0 && e.To == 0:
		name += "/*"
	case e.From == e.To:
		name += fmt.Sprintf("/%d", e.From)
	default:
		name += fmt.Sprintf("/%d-%d", e.From, e.To)
	}
	return name
}

// Unasked are the entries of which a spec has no port.
func (l List) Unasked(s *probe.Spec) (out []Entry) {
	for _, e := range l {
		if e.Proto == "" || e.From == 0 {
			continue
		}
		set, asked := s.Of(e.Proto), false
		for p := uint32(e.From); p <= uint32(e.To); p++ {
			asked = asked || set.Has(uint16(p))
		}
		if !asked {
			out = append(out, e)
		}
	}
	return out
}

// Ports adds the ports that the list names to a spec.
func (l List) Ports(s *probe.Spec) {
	for _, e := range l {
		if e.From == 0 || e.Proto == "" {
			continue
		}
		for p := uint32(e.From); p <= uint32(e.To); p++ {
			s.Of(e.Proto).Add(uint16(p))
		}
	}
}

// Ports adds the ports of an intent's services to a spec.
func (in Intent) Ports(s *probe.Spec) {
	for _, x := range in.Services {
		for _, w := range x.Ports {
			p, err := intent.ParsePort(w)
			if err != nil || p.Whole() || p.Name != "tcp" && p.Name != "udp" {
				continue
			}
			for n := uint32(p.From); n <= uint32(p.To); n++ {
				s.Of(p.Name).Add(uint16(n))
			}
		}
	}
}

// Before expects what an earlier run saw.
type Before map[Key]Word

// Key names a port of an address.
type Key struct {
	Addr  netip.Addr
	Proto string
	Port  uint16
}

// Expect implements Source.
func (b Before) Expect(q Question) Word { return b[Key{q.Addr, q.Proto, q.Port}] }
