package corpus

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sixfence/sixfence/internal/logic/packetset"
	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// Host is an entry ready to be asked.
type Host struct {
	*Entry
	Space *reach.Space
}

// Open reads an entry and joins its rules with its routes.
func Open(name string) (*Host, error) {
	e, err := Read(name)
	if err != nil {
		return nil, err
	}
	if len(e.Snapshot.Namespaces) != 1 {
		return nil, fmt.Errorf("corpus %s: %d namespaces", name, len(e.Snapshot.Namespaces))
	}
	return &Host{e, reach.NewSpace(e.Snapshot, &e.Snapshot.Namespaces[0], nil, false)}, nil
}

// Question is a packet without its source, and the way that the sender means it to take.
type Question struct {
	reach.Packet
	Hook rs.Hook
}

// Ports are the hundred that every ruleset is asked about beside those of its
// listeners: what rules in the wild name, what they forget, and the ends.
var Ports = []uint16{
	1, 7, 9, 19, 20, 21, 23, 25, 37, 49, 67, 68, 69, 79, 88, 110, 111, 113, 119, 123, 135, 137, 138, 139, 143, 161, 162, 177, 179, 194,
	389, 427, 445, 464, 465, 500, 512, 513, 514, 515, 520, 521, 543, 547, 548, 554, 587, 623, 631, 636, 853, 873, 989, 990, 993, 995,
	1023, 1024, 1080, 1194, 1433, 1521, 1701, 1723, 1812, 1883, 1900, 2049, 2181, 2222, 2375, 2376, 2379, 3128, 3306, 3389, 3544, 4500,
	5000, 5060, 5355, 5671, 5900, 6379, 6443, 7000, 8000, 8081, 8443, 9000, 9200, 10250, 11211, 27017, 30080, 32767, 32768, 49151, 51820, 65535,
}

// Sport is the source port of the packets.
const Sport = 49999

// maxDestinations bounds the destinations of a way that are asked about.
const maxDestinations = 6

// Questions are the published probe set, but for the sources: every listener's port
// and Ports, over TCP and UDP, and the messages of ICMP and ICMPv6; by every
// interface; for every address of the host there, for hosts that it forwards to, and
// from the host where rules look at that.
func (h *Host) Questions() []Question {
	var out []Question
	n := h.Space.Namespace
	links, _ := n.Links.Get()
	for _, f := range []rs.Family{rs.IPv4, rs.IPv6} {
		for i := range links {
			l := &links[i]
			if l.Flags&1 == 0 || l.SlaveKind != "" {
				continue
			}
			for _, d := range h.local(f, l) {
				out = append(out, h.packets(reach.Packet{Family: f, IIF: reach.Some(l.Name), Daddr: reach.Some(d)}, rs.Input)...)
			}
			if l.Name == "lo" {
				continue
			}
			for _, d := range h.beyond(f, l) {
				p := reach.Packet{Family: f, IIF: reach.Some(l.Name), Daddr: reach.Some(d.to), OIF: reach.Some(d.by)}
				if h.forwards(f, l.Name) && d.by != l.Name {
					out = append(out, h.packets(p, rs.Forward)...)
				}
			}
		}
		if h.hooked(rs.Output, f) {
			for _, d := range h.beyond(f, nil) {
				out = append(out, h.packets(reach.Packet{Family: f, Local: true, OIF: reach.Some(d.by), Daddr: reach.Some(d.to), UID: reach.Some(uint32(0))}, rs.Output)...)
			}
		}
	}
	return out
}

// packets fills in protocols and ports.
func (h *Host) packets(p reach.Packet, hook rs.Hook) []Question {
	var out []Question
	p.Ct, p.Mark = reach.Some(uint32(reach.CtNew)), reach.Some(uint32(0))
	p.HopLimit = reach.Some(uint8(64))
	for _, proto := range []uint8{6, 17} {
		q := p
		q.Proto, q.Sport = reach.Some(proto), reach.Range{From: Sport, To: Sport}
		if proto == 6 {
			q.TCPFlags = reach.Some(uint8(2))
		}
		for _, port := range h.ports() {
			q.Dport = reach.Some(port)
			out = append(out, Question{q, hook})
		}
	}
	icmp := func(proto, typ uint8, ct uint32, hop uint8) {
		q := p
		q.Proto, q.ICMPType, q.ICMPCode, q.Ct, q.HopLimit = reach.Some(proto), reach.Some(typ), reach.Some(uint8(0)), reach.Some(ct), reach.Some(hop)
		out = append(out, Question{q, hook})
	}
	if p.Family == rs.IPv4 {
		for _, t := range []uint8{8, 13, 15, 17} {
			icmp(1, t, reach.CtNew, 64)
		}
		for _, t := range []uint8{0, 3, 5, 11, 12, 14} {
			icmp(1, t, reach.CtInvalid, 64)
		}
		for _, t := range []uint8{3, 11, 12} {
			icmp(1, t, reach.CtRelated, 64)
		}
		return out
	}
	for _, t := range []uint8{128, 139} {
		icmp(58, t, reach.CtNew, 64)
	}
	for _, t := range []uint8{1, 2, 3, 4, 129, 137, 138, 140, 144, 145, 148, 200} {
		icmp(58, t, reach.CtInvalid, 255)
	}
	for _, t := range []uint8{1, 2, 3, 4} {
		icmp(58, t, reach.CtRelated, 64)
	}
	for _, t := range []uint8{130, 131, 132, 133, 134, 135, 136, 143, 151, 152} {
		icmp(58, t, reach.CtUntracked, 255)
	}
	return out
}

// ports are those of the listeners and Ports.
func (h *Host) ports() []uint16 {
	out := slices.Clone(Ports)
	if socks, ok := h.Space.Sockets.Get(); ok {
		for _, s := range socks {
			if s.State != "connected" && s.Port != 0 {
				out = append(out, s.Port)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// local are the host's addresses that packets by an interface are sent to.
func (h *Host) local(f rs.Family, l *fact.Link) []netip.Addr {
	var out []netip.Addr
	addrs, _ := h.Space.Addresses.Get()
	for _, a := range addrs {
		ip := a.Prefix.Addr()
		if ip.Is4() == (f == rs.IPv4) && a.Index == l.Index {
			out = append(out, ip)
		}
	}
	return out[:min(len(out), maxDestinations)]
}

// destination is a host that is reached by an interface.
type destination struct {
	to netip.Addr
	by string
}

// beyond are hosts behind every interface: the sixth of every network, one far away,
// and those that rules name.
func (h *Host) beyond(f rs.Family, from *fact.Link) []destination {
	var tos []netip.Addr
	addrs, _ := h.Space.Addresses.Get()
	for _, a := range addrs {
		ip := a.Prefix.Masked().Addr()
		if ip.Is4() != (f == rs.IPv4) || ip.IsLoopback() || ip.IsLinkLocalUnicast() || a.Prefix.IsSingleIP() || from != nil && a.Index == from.Index {
			continue
		}
		for range 5 {
			ip = ip.Next()
		}
		tos = append(tos, ip)
	}
	far := netip.MustParseAddr("2a00:1450::99")
	if f == rs.IPv4 {
		far = netip.MustParseAddr("8.8.4.4")
	}
	tos = append(tos, far)
	for _, a := range h.named(f) {
		if len(tos) < maxDestinations+2 && !slices.Contains(tos, a) {
			tos = append(tos, a)
		}
	}
	var out []destination
	for _, to := range tos {
		dev, local, ok := h.Space.Routes.To(to)
		if name := h.Space.Model.Set.Interfaces[dev]; ok && !local && name != "" && name != "lo" {
			out = append(out, destination{to, name})
		}
	}
	return out
}

// named are the destinations that rules compare with or translate to, spread over
// the ruleset.
func (h *Host) named(f rs.Family) []netip.Addr {
	size := 16
	if f == rs.IPv4 {
		size = 4
	}
	var all []netip.Addr
	add := func(b []byte) {
		if len(b) < size {
			return
		}
		if a, ok := netip.AddrFromSlice(b[:size]); ok && a.IsGlobalUnicast() && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	for _, t := range h.Space.Model.Set.Tables {
		if t.Family != f && t.Family != rs.Inet {
			continue
		}
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				nat := slices.ContainsFunc(r.Exprs, func(e rs.Expr) bool { n, ok := e.(rs.Nat); return ok && n.Dst })
				dst := false
				for _, e := range r.Exprs {
					switch e := e.(type) {
					case rs.Payload:
						dst = e.Base == rs.NetworkHeader && int(e.Len) == size && (e.Offset == 24 || e.Offset == 16 && size == 4)
					case rs.Immediate:
						if nat && len(e.Data) == size {
							add(e.Data)
						}
					case rs.Cmp:
						if dst && len(e.Data) == size {
							add(e.Data)
						}
					case rs.Lookup:
						if s := t.Sets[e.Set]; dst && s != nil {
							for i := range s.Elements {
								add(s.Elements[i].From)
							}
						}
					}
				}
			}
		}
	}
	const most = 3
	if len(all) <= most {
		return all
	}
	return []netip.Addr{all[0], all[len(all)/2], all[len(all)-1]}
}

func (h *Host) forwards(f rs.Family, iface string) bool {
	t, _ := h.Space.Sysctls.Get()
	if f == rs.IPv4 {
		return t.Values["net/ipv4/conf/"+iface+"/forwarding"] == "1"
	}
	return t.Values["net/ipv6/conf/"+iface+"/forwarding"] == "1"
}

// hooked tells whether a chain with rules sees a hook.
func (h *Host) hooked(hook rs.Hook, f rs.Family) bool {
	for _, t := range h.Space.Model.Set.Tables {
		if t.Family != rs.Inet && t.Family != f {
			continue
		}
		for _, c := range t.Chains {
			if c.Base != nil && c.Base.Hook == hook && (len(c.Rules) > 0 || c.Base.Policy == rs.Drop) {
				return true
			}
		}
	}
	return false
}

// fixed sources that every question is asked from: those that filters forget.
var (
	fixed4 = addresses("0.0.0.1", "10.0.0.1", "10.20.0.5", "10.255.255.255", "100.64.0.1", "169.254.0.1", "172.16.0.1", "192.0.0.1", "192.0.2.1", "192.0.2.254",
		"192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "1.1.1.1", "8.8.8.8", "223.255.255.254", "240.0.0.1")
	fixed6 = addresses("::2", "::ffff:192.0.2.1", "64:ff9b::1", "100::1", "2001::1", "2001:db8:0:1::1", "2001:db8:0:1::ffff", "2001:db8:5::1", "2001:db8:bad::1",
		"2002:c000:201::1", "2606:4700::1111", "3fff::1", "5f00::1", "fc00::1", "fd00:20::5", "fe80::1", "fe80::ff:fe00:99", "fec0::1")
)

func addresses(ss ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// maxSources bounds the sources of one question.
const maxSources = 64

// Sources are where the answer to a question could change (a-1, a of every interval
// that a rule cuts out), spread over them when there are many, and the fixed ones.
func (h *Host) Sources(q *Question, a *reach.Answer) []netip.Addr {
	is4 := q.Family == rs.IPv4
	if q.Local {
		return h.own(q)
	}
	out := slices.Clone(fixed6)
	if is4 {
		out = slices.Clone(fixed4)
	}
	cuts := a.Space.Start
	step := max(1, (len(cuts)*2+maxSources-1)/maxSources)
	for i := 0; i < len(cuts); i += step {
		x := cuts[i]
		if p, ok := x.Prev(); ok && i > 0 {
			out = append(out, p.IP(is4))
		}
		out = append(out, x.IP(is4))
	}
	if q.IIF.V == "lo" { // what comes by it this host has sent
		out = h.own(q)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	out = slices.Compact(out)
	return slices.DeleteFunc(out, func(s netip.Addr) bool {
		return s.IsMulticast() || s == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || q.IIF.V != "lo" && s.IsLoopback()
	})
}

// own are addresses of the host that a packet of its own can have.
func (h *Host) own(q *Question) []netip.Addr {
	addrs, _ := h.Space.Addresses.Get()
	var out []netip.Addr
	for _, a := range addrs {
		ip := a.Prefix.Addr()
		if ip.Is4() == (q.Family == rs.IPv4) && ip.IsLoopback() == (q.IIF.V == "lo") && !ip.IsLinkLocalUnicast() {
			out = append(out, ip)
		}
	}
	return out
}

// Summary counts the answers to the probe set of one host.
type Summary struct {
	Questions int // with each source apart
	Accept    int // surely accepted
	Limited   int // of those, up to a rate
	Block     int // surely dropped or rejected
	Unknown   int
	Why       map[string]int // of the unknown ones
}

// Probe asks everything. With sample above 1 every so manieth question is asked again
// for each source by itself; both must agree, or disagree lists them.
func (h *Host) Probe(sample int) (sum Summary, disagree []string) {
	sum.Why = map[string]int{}
	for i, q := range h.Questions() {
		a := h.Space.Model.Ask(q.Packet, q.Hook, false)
		must, may := a.Must(), a.May()
		limited := a.Limited.Set(a.Space)
		obstacle := h.Space.Obstacles(reach.FamilyWord(q.Family), q.IIF.V)
		for _, s := range h.Sources(&q, a) {
			x := packetset.FromIP(s)
			sum.Questions++
			yes, perhaps := must.Contains(x), may.Contains(x)
			switch {
			case len(obstacle) > 0:
				sum.Unknown++
				sum.Why[obstacle[0].What]++
			case yes:
				sum.Accept++
				if limited.Contains(x) {
					sum.Limited++
				}
			case !perhaps:
				sum.Block++
			default:
				sum.Unknown++
				why := fmt.Sprint(append(slices.Clone(a.Opaque), a.Needs...))
				sum.Why[why]++
			}
			if sample > 1 && i%sample == 0 {
				one := q.Packet
				one.Saddr = reach.Some(s)
				b := h.Space.Model.Ask(one, q.Hook, false)
				byes, bperhaps := len(b.Must()) > 0, len(b.May()) > 0
				if (byes && !perhaps) || (yes && !bperhaps) || yes != byes && yes || perhaps != bperhaps && !perhaps {
					disagree = append(disagree, fmt.Sprintf("%s from %v: open %v/%v, fixed %v/%v", Describe(&q), s, yes, perhaps, byes, bperhaps))
				}
			}
		}
	}
	return sum, disagree
}

// Describe is a question for people.
func Describe(q *Question) string {
	s := fmt.Sprintf("%v iif %s oif %s to %v proto %d", q.Hook, q.IIF.V, q.OIF.V, q.Daddr.V, q.Proto.V)
	if q.Dport.Set {
		s += fmt.Sprintf(" port %d", q.Dport.V)
	}
	if q.ICMPType.Set {
		s += fmt.Sprintf(" type %d", q.ICMPType.V)
	}
	return s
}
