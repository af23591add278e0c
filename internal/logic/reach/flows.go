package reach

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// maxFlows bounds the ports that are asked about: a set of a map may hold many.
const maxFlows = 1024

// natPorts are the ports that the rules of tables with destination NAT name.
func (sp *Space) natPorts() []uint16 {
	var nat []*rs.Table
	for _, t := range sp.Model.Set.Tables {
		if !t.Dormant && slices.ContainsFunc(t.Chains, func(c *rs.Chain) bool {
			return c.Base != nil && c.Base.Hook == rs.Prerouting && c.Base.Type == "nat"
		}) {
			nat = append(nat, t)
		}
	}
	return portsIn(nat)
}

// portsIn are the ports that rules name.
func portsIn(tables []*rs.Table) []uint16 {
	var out []uint16
	add := func(b []byte) {
		if len(b) >= 2 && len(out) < maxFlows {
			if p := binary.BigEndian.Uint16(b); p != 0 && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	for _, t := range tables {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				ports := false
				for _, e := range r.Exprs {
					switch e := e.(type) {
					case rs.Payload:
						ports = ports || e.Base == rs.TransportHeader && e.Offset <= 2 && e.Offset+e.Len >= 4
					case rs.Cmp:
						if ports && len(e.Data) == 2 {
							add(e.Data)
						}
					case rs.Range:
						if ports && len(e.From) == 2 {
							add(e.From)
						}
					case rs.Lookup:
						if s := t.Sets[e.Set]; ports && s != nil {
							setPorts(s, add)
						}
					}
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// setPorts finds the field of two bytes in the keys of a set.
func setPorts(s *rs.Set, add func([]byte)) {
	off := 0
	for _, f := range s.Concat {
		if f == 2 {
			break
		}
		off += (f + 3) &^ 3
	}
	for i := range s.Elements {
		if k := s.Elements[i].From; len(k) >= off+2 {
			add(k[off : off+2])
		}
	}
}

// Flows are the ports that rules pass on: to another port here, to a container, to
// another host.
func (sp *Space) Flows() []Flow {
	by := map[string]*Flow{}
	var order []string
	for _, port := range sp.natPorts() {
		for _, proto := range []string{"tcp", "udp"} {
			for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
				sp.flows(proto, port, f, func(target string, v V) {
					key := proto + "/" + target + "/" + string(rune(port))
					x := by[key]
					if x == nil {
						x = &Flow{NetNS: sp.Name, Proto: proto, Port: port, Target: target, IPv4: []V{}, IPv6: []V{}}
						by[key], order = x, append(order, key)
					}
					if f == rs.IPv4 {
						x.IPv4 = merge(x.IPv4, v)
					} else {
						x.IPv6 = merge(x.IPv6, v)
					}
				})
			}
		}
	}
	out := []Flow{}
	for _, k := range order {
		out = append(out, *by[k])
	}
	slices.SortStableFunc(out, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Target, b.Target))
	})
	return out
}

func (sp *Space) flows(proto string, port uint16, f rs.Family, put func(string, V)) {
	is4 := f == rs.IPv4
	for _, door := range sp.doors(FamilyWord(f)) {
		if loopback(door) {
			continue
		}
		for i, d := range sp.destinations(&Listener{Proto: "tcp"}, f, door) {
			if i > 0 && !sp.readsDaddr(f) || i == maxDestinations {
				break
			}
			p := Packet{
				Family: f, IIF: Some(door.Name), Daddr: Some(d), Proto: Some(protoNumbers[proto]), Sport: Range{1024, 65535}, Dport: Some(port),
				Ct: Some(uint32(CtNew)), Mark: Some(uint32(0)),
			}
			if proto == "tcp" {
				p.TCPFlags = Some(uint8(2))
			}
			pre := sp.Model.Ask(p, rs.Prerouting, true)
			for _, t := range pre.Translated {
				to, dport := d, port
				if t.Daddr.IsValid() {
					to = t.Daddr
				}
				if t.Dport >= 0 {
					dport = uint16(t.Dport)
				}
				target := netip.AddrPortFrom(to, dport).String()
				if t.Lost || t.Dport == -2 {
					target = "chosen by the rules"
				}
				hook := rs.Input
				var oif uint32
				if t.Daddr.IsValid() && sp.foreign(t.Daddr) {
					hook = rs.Forward
					dev, _, known := sp.Routes.To(t.Daddr)
					if known {
						oif = dev
					}
				}
				q := p
				if n := sp.Model.Set.Interfaces[oif]; hook == rs.Forward && n != "" {
					q.OIF = Some(n)
				}
				a := sp.Model.Ask(q, hook, false)
				ok, maybe := sp.kernel(is4, proto, door)
				cells := t.Cells.Set(pre.Space)
				must, may := a.Must().Intersect(cells).Intersect(ok), a.May().Intersect(cells).Intersect(maybe)
				v := V{Interfaces: []string{door.Name}, Daddr: []netip.Prefix{netip.PrefixFrom(d, d.BitLen())}, DecidedBy: []RuleRef{}, Assumes: []string{}}
				gaps := sp.Obstacles(FamilyWord(f), door.Name)
				if hook == rs.Forward && !sp.forwards(is4, door) {
					gaps = append(gaps, fact.Gap{Reason: fact.NotCollected, What: "whether the kernel forwards " + FamilyWord(f)})
				}
				if len(gaps) > 0 {
					must = nil
				}
				for _, g := range gaps {
					v.Assumes = append(v.Assumes, g.What)
				}
				if !equalSets(must, may) {
					v.Assumes = append(v.Assumes, a.Opaque...)
				}
				if len(may) == 0 {
					continue
				}
				v.Must, v.May = prefixes(must, is4), prefixes(may, is4)
				v.Limited = len(a.Limited.Set(a.Space).Intersect(may)) > 0
				v.Sources = sp.describe(must, may, ok, is4)
				v.DecidedBy = sp.deciders(a, must, may)
				v.Witness = witness(a, must, may, maybe, door.Name, d, port, is4)
				put(target, v)
			}
		}
	}
}

// forwards tells whether the kernel surely forwards what comes in by an interface.
func (sp *Space) forwards(is4 bool, door *fact.Link) bool {
	t, ok := sp.Sysctls.Get()
	if !ok {
		return false
	}
	keys := []string{"net/ipv6/conf/" + door.Name + "/forwarding", "net/ipv6/conf/all/forwarding"}
	if is4 {
		keys = []string{"net/ipv4/conf/" + door.Name + "/forwarding", "net/ipv4/ip_forward"}
	}
	for _, k := range keys {
		if v, ok := t.Get(k).Get(); ok && v != "0" {
			return true
		}
	}
	return false
}
