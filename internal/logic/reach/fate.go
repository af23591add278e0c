package reach

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Kind is a kind of packets: what a question fixes of them, who sends them and how
// people call it. The interface is filled in, and the destination where it is open.
type Kind struct {
	Name string
	Packet
	From netip.Prefix // their sources; the zero Prefix is anybody
	// Early packets do their work before the hooks of IP: what the chains on the
	// device say of them is all that counts.
	Early bool
}

// Fate is what becomes of the packets of one kind, over the sources that matter.
type Fate struct {
	Kind      Kind // as it was asked, interface and destination included
	Interface string
	// Must and May are the accepted ones among the sources that were asked about.
	Must, May packetset.Set
	Asked     packetset.Set
	Limited   bool // accepted up to a rate only
	DecidedBy []RuleRef
	Unclear   []fact.Gap
}

// Accepted tells that every source that matters surely gets in.
func (f *Fate) Accepted() bool { return len(f.Unclear) == 0 && equalSets(f.Must, f.Asked) }

// Dropped tells that none gets in.
func (f *Fate) Dropped() bool { return len(f.Unclear) == 0 && len(f.May) == 0 }

// Sure tells that the answer is known for every source.
func (f *Fate) Sure() bool { return len(f.Unclear) == 0 && equalSets(f.Must, f.May) }

// Witness is one packet that shows the answer, for people; empty when no source
// could send one.
func (f *Fate) Witness() string {
	from, verdict := f.Must, WordAccept
	switch {
	case len(f.Must) > 0:
	case len(f.May) > 0:
		from, verdict = f.May, WordUnknown
	default:
		from, verdict = f.Asked, WordDrop
	}
	src, ok := pick(from, f.Kind.Family == rs.IPv4)
	if !ok {
		return ""
	}
	to := ""
	if f.Kind.Daddr.Set {
		to = " to " + f.Kind.Daddr.V.String()
	}
	return fmt.Sprintf("%s from %s%s: %s", f.Kind.Name, src, to, verdict)
}

// Sources are those who surely get in, in words.
func (f *Fate) Sources() string { return Describe(f.Must, f.Asked, f.Kind.Family == rs.IPv4) }

// doorsOutside are the interfaces by which others send. One that is asked for by its
// name need not be up.
func (sp *Space) doorsOutside(family, only string) []*fact.Link {
	var out []*fact.Link
	if only != "" {
		for i := range sp.links {
			if l := &sp.links[i]; l.Name == only && !loopback(l) {
				out = append(out, l)
			}
		}
		return out
	}
	for _, l := range sp.doors(family) {
		if !loopback(l) {
			out = append(out, l)
		}
	}
	return out
}

// Incoming answers for packets for this host by every interface that hears others
// ("" = all).
func (sp *Space) Incoming(k Kind, iface string) []Fate {
	var out []Fate
	for _, door := range sp.doorsOutside(FamilyWord(k.Family), iface) {
		q := k
		q.IIF = Some(door.Name)
		if !q.Daddr.Set {
			if d := sp.destinations(&Listener{Proto: "tcp"}, k.Family, door); len(d) > 0 {
				q.Daddr = Some(d[0])
			}
		}
		ok, maybe := sp.kernel(k.Family == rs.IPv4, "", door)
		h, only := rs.Input, false
		if k.Early {
			h, only = rs.Ingress, true
		}
		out = append(out, sp.decide(q, h, only, ok, maybe, sp.Obstacles(FamilyWord(k.Family), door.Name)))
	}
	return out
}

// Stranger answers for packets that come in by an interface that no rule knows, such
// as one that is yet to come.
func (sp *Space) Stranger(k Kind) Fate {
	k.IIF = Some("some interface")
	h, only := rs.Input, false
	if k.Early {
		h, only = rs.Ingress, true
	}
	all := elsewhere(k.Family == rs.IPv4)
	return sp.decide(k, h, only, all, all, sp.Obstacles(FamilyWord(k.Family), ""))
}

// elsewhere is every source but loopback and multicast.
func elsewhere(is4 bool) packetset.Set {
	if is4 {
		return bogus4.Complement(true)
	}
	return bogus6.Complement(false)
}

// Through answers for packets that this host passes on, in by one interface and out by
// another. Whether the kernel forwards at all is not asked.
func (sp *Space) Through(k Kind, in, out string) Fate {
	k.IIF, k.OIF = Some(in), Some(out)
	all := elsewhere(k.Family == rs.IPv4)
	if k.Family == rs.IPv6 {
		// What a router never forwards (ip6_forward).
		all = all.Intersect(set("fe80::/10", "::/128").Complement(false))
	}
	gaps := sp.Obstacles(FamilyWord(k.Family), in)
	return sp.decide(k, rs.Forward, false, all, all, gaps)
}

// Outgoing answers for packets that this host sends itself, by an interface; to a host
// on the internet where the destination is open.
func (sp *Space) Outgoing(k Kind, iface string) Fate {
	k.Local, k.OIF = true, Some(iface)
	is4 := k.Family == rs.IPv4
	if !k.Daddr.Set {
		far := "2606:4700::1111"
		if is4 {
			far = "8.8.8.8"
		}
		k.Daddr = Some(netip.MustParseAddr(far))
	}
	var own []packetset.Interval
	addrs, _ := sp.Addresses.Get()
	for _, a := range addrs {
		if ip := a.Prefix.Addr(); ip.Is4() == is4 && !ip.IsLoopback() {
			own = append(own, packetset.PrefixInterval(netip.PrefixFrom(ip, ip.BitLen())))
		}
	}
	mine := packetset.Normalise(own)
	if len(mine) == 0 {
		mine = elsewhere(is4)
	}
	return sp.decide(k, rs.Output, false, mine, mine, sp.ruleGaps(FamilyWord(k.Family)))
}

// ruleGaps are what could not be read of the rules of a family.
func (sp *Space) ruleGaps(family string) []fact.Gap {
	var out []fact.Gap
	for _, g := range sp.gaps {
		if g.family == "" || g.family == family {
			out = append(out, g.Gap)
		}
	}
	return out
}

func (sp *Space) decide(k Kind, h rs.Hook, only bool, ok, maybe packetset.Set, gaps []fact.Gap) Fate {
	is4 := k.Family == rs.IPv4
	a := sp.answer(k.Packet, h, only)
	asked := sources(is4)
	if k.From.IsValid() {
		asked = packetset.Set{packetset.PrefixInterval(k.From)}
	}
	f := Fate{Kind: k, Interface: k.IIF.V, Asked: asked.Intersect(ok), Unclear: slices.Clone(gaps)}
	f.Must, f.May = a.Must().Intersect(f.Asked), a.May().Intersect(asked).Intersect(maybe)
	f.Limited = len(a.Limited.Set(a.Space).Intersect(f.May)) > 0
	if len(f.Must) > 0 {
		f.DecidedBy = sp.deciders(a, f.Must, f.Must)
	} else {
		f.DecidedBy = sp.deciders(a, f.Must, f.May)
	}
	if len(gaps) > 0 {
		f.Must, f.May = nil, asked
		return f
	}
	if equalSets(f.Must, f.May) {
		return f
	}
	unsure := f.May.Intersect(f.Must.Complement(is4))
	for _, w := range sp.open(a, unsure) {
		f.Unclear = append(f.Unclear, fact.Gap{Reason: fact.UnsupportedGap, What: w})
	}
	return f
}

// answer asks the rules, once for all interfaces that they do not tell apart.
func (sp *Space) answer(p Packet, h rs.Hook, only bool) *Answer {
	key := sp.questionKey(p, h, only)
	if a := sp.asked[key]; a != nil {
		return a
	}
	a := sp.Model.Ask(p, h, only)
	if sp.asked == nil {
		sp.asked = map[string]*Answer{}
	}
	if len(sp.asked) < maxAsked {
		sp.asked[key] = a
	}
	return a
}

// maxAsked bounds the answers that are kept.
const maxAsked = 4096

func (sp *Space) questionKey(p Packet, h rs.Hook, only bool) string {
	in, out := "", ""
	if p.IIF.Set {
		in = sp.Kin(p.IIF.V)
	}
	if p.OIF.Set {
		out = sp.Kin(p.OIF.V)
	}
	q := p
	q.IIF.V, q.OIF.V = "", ""
	if !sp.readsDaddr(p.Family) {
		q.Daddr.V = netip.Addr{}
	}
	return fmt.Sprint(h, only, in, "|", out, "|", q)
}

// Kin names the interfaces that no rule tells apart alike: by which of the rules'
// names and numbers are theirs.
func (sp *Space) Kin(name string) string {
	if k, ok := sp.kinOf[name]; ok {
		return k
	}
	if sp.kinOf == nil {
		sp.kinOf = map[string]string{}
		sp.tests, sp.unlike = interfaceTests(sp.Model.Set)
	}
	k := "=" + name
	if !sp.unlike && !sp.switches(name) {
		var b strings.Builder
		for _, t := range sp.tests {
			b.WriteByte("01"[bit(t(name, sp.Routes.names[name]))])
		}
		k = b.String()
	}
	sp.kinOf[name] = k
	return k
}

// switches tells that an interface is a bridge or a port of one: packets that go over it
// meet other chains.
func (sp *Space) switches(name string) bool {
	for bridge, ports := range sp.Model.Set.Bridges {
		if name == bridge || slices.Contains(ports, name) {
			return true
		}
	}
	return false
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// interfaceTest tells whether one constant of a rule is about an interface.
type interfaceTest func(name string, index uint32) bool

// maxInterfaceTests is how many different constants are compared.
const maxInterfaceTests = 256

// interfaceTests are the tests of interfaces in rules; unlike when they cannot be
// listed, and every interface has to be asked about by itself.
func interfaceTests(set *rs.Ruleset) (tests []interfaceTest, unlike bool) {
	seen := map[string]bool{}
	add := func(key string, t interfaceTest) {
		if !seen[key] {
			seen[key] = true
			tests = append(tests, t)
		}
	}
	for _, t := range set.Tables {
		for _, c := range t.Chains {
			if c.Base != nil {
				for _, d := range c.Base.Devices {
					add("dev "+d, func(n string, _ uint32) bool { return device(d, n) })
				}
			}
			for _, r := range c.Rules {
				for i, e := range r.Exprs {
					switch e := e.(type) {
					case rs.Fib, rs.Rt, rs.Socket, rs.Opaque, rs.Any, rs.BridgePort:
						return nil, true
					case rs.Meta:
						switch e.Key {
						case metaIIF, metaOIF, metaIIFName, metaOIFName:
						case metaLen, metaProtocol, metaMark, metaSKUID, metaSKGID, metaNFProto, metaL4Proto:
							continue
						default:
							return nil, true
						}
						if i+1 == len(r.Exprs) {
							continue
						}
						cmp, ok := r.Exprs[i+1].(rs.Cmp)
						if !ok || cmp.Sreg != e.Dreg {
							return nil, true
						}
						data := cmp.Data
						if e.Key == metaIIF || e.Key == metaOIF {
							data := slices.Clone(data)
							add(fmt.Sprintf("if %x", data), func(n string, i uint32) bool { return len(data) == 4 && indexIs(data, i) })
							continue
						}
						add(fmt.Sprintf("name %x", data), func(n string, _ uint32) bool {
							var b [16]byte
							copy(b[:], n)
							return len(data) <= 16 && string(b[:len(data)]) == string(data)
						})
					}
				}
			}
			if len(tests) > maxInterfaceTests {
				return nil, true
			}
		}
	}
	return tests, false
}

// indexIs compares in either byte order: two interfaces that differ in one are told
// apart, which is all that is asked.
func indexIs(data []byte, i uint32) bool {
	le := [4]byte{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)}
	be := [4]byte{le[3], le[2], le[1], le[0]}
	return string(data) == string(le[:]) || string(data) == string(be[:])
}

// Port answers for a port from outside, by every interface ("" = all), at an address
// of the host (invalid or unspecified = all).
func (sp *Space) Port(f rs.Family, proto string, port uint16, iface string, at netip.Addr) []V {
	l := &Listener{Proto: proto, Port: port}
	if at.IsValid() && !at.IsUnspecified() {
		l.local = at
	}
	doors := map[string]bool{}
	for _, d := range sp.doorsOutside(FamilyWord(f), iface) {
		doors[d.Name] = true
	}
	var out []V
	for _, v := range sp.expose(l, f) {
		if slices.ContainsFunc(v.Interfaces, func(n string) bool { return doors[n] }) {
			out = append(out, v)
		}
	}
	return out
}

// Loopback tells whether an interface is a loopback one.
func (sp *Space) Loopback(name string) bool {
	for i := range sp.links {
		if sp.links[i].Name == name {
			return loopback(&sp.links[i])
		}
	}
	return false
}

// Interfaces are the names of the interfaces by which others send packets of a family.
func (sp *Space) Interfaces(family string) []string {
	var out []string
	for _, l := range sp.doorsOutside(family, "") {
		out = append(out, l.Name)
	}
	return out
}
