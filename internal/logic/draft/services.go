package draft

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/sixfence/sixfence/internal/logic/reach"
	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/intent"
)

// names are those of well-known ports.
var names = map[string]string{
	"tcp/22": "ssh", "tcp/25": "smtp", "tcp/53": "dns", "udp/53": "dns", "tcp/80": "web", "tcp/443": "web", "udp/443": "web", "udp/123": "ntp", "tcp/143": "imap", "tcp/993": "imaps", "tcp/587": "submission",
	"tcp/3306": "mysql", "tcp/5432": "postgresql", "tcp/6379": "redis", "tcp/6443": "kube-api", "tcp/10250": "kubelet", "udp/51820": "wireguard", "udp/500": "ike", "udp/4500": "ike", "tcp/179": "bgp", "udp/161": "snmp", "udp/67": "dhcp-server", "udp/547": "dhcpv6-server",
}

// ephemeral is the first port that Linux gives to sockets that asked for none.
const ephemeral = 32768

// maxSources is how many prefixes are written for one family of a service.
const maxSources = 32

// group are listeners of one program that the same sources reach.
type group struct {
	name, program  string
	ports          []string
	from           []netip.Prefix
	families       []string
	to             []netip.Prefix
	interfaces     []string
	notes          []string
	admin, session bool
	published      bool // rules pass it on, and nothing here listens
	wider          bool // IPv6 lets in whom IPv4 does not
}

// port is a transport protocol and a port, whatever the number of sockets on it.
type port struct {
	proto  string
	number uint16
}

func (p port) String() string { return fmt.Sprintf("%s/%d", p.proto, p.number) }

func (d *drafting) services() {
	d.Intent.Services = []intent.Service{}
	d.above("services", "What is not listed is not accepted, except loopback, answers, and the ICMPv6, neighbour discovery, MLD and DHCPv6 that the addressing needs. from: left out means anybody, over both families; otherwise a family without a prefix in it is closed.")
	if d.o.MirrorIPv4 {
		d.above("services", "--mirror-ipv4: IPv6 is let in where IPv4 is let in today, and nowhere else.")
	}
	order, listeners, gap := d.reached()
	if gap != nil {
		d.above("services", "The listeners of this host are not known (%s): add your services, ssh first.", gap.What)
		d.Open = append(d.Open, "list the services: the listeners of this host are not known")
		return
	}
	loops := map[string]bool{}
	for _, l := range d.links {
		loops[l.Name] = l.Flags&iffLoopback != 0
	}
	var groups []group
	var skipped []string
	for _, k := range order {
		found, who, why := d.groups(k, listeners[k], loops)
		if why != "" && why != silent {
			skipped = append(skipped, fmt.Sprintf("%s (%s): %s", k, who, why))
		}
		for _, g := range found {
			groups = join(groups, g, k)
		}
	}
	d.write(groups)
	d.lookTwice(groups)
	for i, s := range skipped {
		if i == 0 {
			d.above("services", "Seen and not written:")
		}
		if i == 12 {
			d.above("services", "… and %d more: sixfence reach", len(skipped)-i)
			break
		}
		d.above("services", "- %s", s)
	}
	if !slices.ContainsFunc(d.Intent.Services, func(s intent.Service) bool { return s.Administers != nil && *s.Administers }) {
		d.above("services", "NO SERVICE ADMINISTERS THIS HOST: nothing here is known to be your way in. Add it, with administers: true.")
		d.Open = append(d.Open, "name the service by which you administer the host (administers: true)")
	}
}

// join adds a group to one that differs in its ports alone, or to the list.
func join(groups []group, g group, k port) []group {
	i := slices.IndexFunc(groups, func(o group) bool {
		return o.name == g.name && o.program == g.program && slices.Equal(o.from, g.from) && slices.Equal(o.families, g.families) && slices.Equal(o.to, g.to) && slices.Equal(o.interfaces, g.interfaces) && o.admin == g.admin && o.wider == g.wider
	})
	if i < 0 {
		return append(groups, g)
	}
	groups[i].ports = append(groups[i].ports, g.ports...)
	groups[i].session = groups[i].session || g.session
	if len(groups[i].notes) < 6 {
		groups[i].notes = append(groups[i].notes, fmt.Sprintf("The same for %s.", k))
	}
	return groups
}

// lookTwice asks for a decision about what IPv6 alone lets in: a host whose filter was
// made for IPv4 is the reason why this program is there.
func (d *drafting) lookTwice(groups []group) {
	var ports []string
	for _, g := range groups {
		if g.wider && !d.disabled() {
			ports = append(ports, g.ports...)
		}
	}
	if len(ports) > 0 {
		d.Open = append(d.Open, fmt.Sprintf("look twice: over IPv6 %s let in more than over IPv4, and are written as they are today; init --mirror-ipv4 writes them as IPv4 has them", several(ports, 8)))
	}
}

// several are the first of a list, in words.
func several(list []string, most int) string {
	if len(list) > most {
		return strings.Join(list[:most], ", ") + fmt.Sprintf(" and %d more", len(list)-most)
	}
	return strings.Join(list, ", ")
}

// reachable is what is reached at a port: by sockets here, and by what rules pass on.
type reachable struct {
	listeners []*reach.Listener
	flows     []reach.Flow
}

// reached are the ports of transport protocols that something here answers, or that rules
// pass on to a container or another host, with who gets there.
func (d *drafting) reached() ([]port, map[port]*reachable, *fact.Gap) {
	sp := reach.NewSpace(d.snap, d.ns, nil, false)
	ls, gap := sp.Listeners()
	if gap != nil {
		return nil, nil, gap
	}
	var order []port
	by := map[port]*reachable{}
	at := func(k port) *reachable {
		if by[k] == nil {
			by[k] = &reachable{}
			order = append(order, k)
		}
		return by[k]
	}
	for i := range ls {
		l := &ls[i]
		if !slices.Contains([]string{"tcp", "udp", "sctp", "udplite"}, l.Proto) || l.Port == 0 {
			continue
		}
		if a, err := netip.ParseAddr(l.Address); err != nil || !a.IsLoopback() {
			sp.Expose(l) // else it is for this host alone, whatever route_localnet lets in
		}
		x := at(port{l.Proto, l.Port})
		x.listeners = append(x.listeners, l)
	}
	for _, f := range sp.Flows() {
		if f.Kind != reach.FlowNAT {
			continue
		}
		if f.Port == 0 {
			d.above("services", "Rules pass every other %s port on to %s: list what is meant to be reached there.", f.Proto, f.Target)
			d.Open = append(d.Open, fmt.Sprintf("list the %s ports that %s is to be reached at: rules pass all on that nothing here uses", f.Proto, f.Target))
			continue
		}
		x := at(port{f.Proto, f.Port})
		x.flows = append(x.flows, f)
	}
	slices.SortFunc(order, func(a, b port) int { return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.proto, b.proto)) })
	return order, by, nil
}

// silent is why a listener is left out without a word.
const silent = "-"

// groups makes services of what is reached at a port, one for each way by which it is
// reached differently, or says why there are none.
func (d *drafting) groups(k port, x *reachable, loops map[string]bool) (out []group, who, why string) {
	g := group{ports: []string{k.String()}}
	var v4, v6 []reach.V
	var where []string
	for _, l := range x.listeners {
		v4, v6 = append(v4, l.IPv4...), append(v6, l.IPv6...)
		g.program = cmp.Or(g.program, l.Process[strings.LastIndexByte(l.Process, '/')+1:])
		if at := inWords(l.Address); !slices.Contains(where, at) {
			where = append(where, at)
		}
	}
	heard := fmt.Sprintf("%s listens on %s.", cmp.Or(g.program, "somebody"), strings.Join(where, ", "))
	var to []string
	for _, f := range x.flows {
		v4, v6 = append(v4, f.IPv4...), append(v6, f.IPv6...)
		if !slices.Contains(to, f.Target) {
			to = append(to, f.Target)
		}
	}
	if len(to) > 0 {
		heard = strings.TrimPrefix(heard+" ", "somebody listens on . ") + fmt.Sprintf("Rules publish it: they pass it on to %s.", several(to, 4))
	}
	// Each of the two speaks one family.
	switch k {
	case port{"udp", 547}, port{"udp", 546}:
		v4 = nil
	case port{"udp", 67}, port{"udp", 68}:
		v6 = nil
	}
	who = cmp.Or(g.program, "somebody")
	g.published = len(to) > 0 && len(x.listeners) == 0
	if len(to) > 0 {
		who = cmp.Or(g.program, "published")
	}
	g.session = d.o.Session.IsValid() && k == port{"tcp", d.o.Session.Port()}
	g.admin = g.program == "sshd" && k.proto == "tcp" || k == port{"tcp", 22} || g.session
	a4, a6 := d.access(v4, true, loops), d.access(v6, false, loops)
	if why := d.leaveOut(k, g.program, a4.closed() && a6.closed() && !g.session); why != "" {
		return nil, who, why
	}
	ways, shut := d.ways(v4, v6, loops)
	if len(ways) == 0 { // nobody, but for the session
		ways = []way{{a4: a4, a6: a6}}
	}
	g.name = cmp.Or(names[k.String()], g.program, strings.TrimSuffix(who, "somebody"), "service")
	if g.admin {
		g.name = "ssh"
	}
	for _, w := range ways {
		g := g
		g.ports, g.interfaces = slices.Clone(g.ports), w.interfaces
		by := "Today"
		if w.interfaces != nil {
			by = "By " + several(w.interfaces, 6) + " today"
		}
		note := fmt.Sprintf("%s %s IPv4: %s; IPv6: %s.", heard, by, w.a4.words, w.a6.words)
		if len(shut) > 0 {
			note += fmt.Sprintf(" By %s: nobody.", several(shut, 6))
		}
		g.notes = append(g.notes, note)
		if !d.policy(&g, w.a4, w.a6) {
			why = fmt.Sprintf("IPv4 is closed to it (%s), so --mirror-ipv4 closes IPv6 (%s today)", w.a4.words, w.a6.words)
			continue
		}
		if !d.o.MirrorIPv4 && !g.admin && len(x.flows) == 0 {
			d.narrow(&g, x.listeners)
		}
		out = append(out, g)
	}
	if len(out) > 0 {
		why = ""
	}
	return out, who, why
}

// inWords is an address that a program listens on, in words where it stands for many.
func inWords(address string) string {
	switch address {
	case "::":
		return "every address (::)"
	case "0.0.0.0":
		return "every IPv4 address (0.0.0.0)"
	}
	return address
}

// narrow keeps a service to the addresses that it listens on, when these are addresses
// of this host and not all: by the address where it is configured, by the interface
// where it changes. The way in is never narrowed.
func (d *drafting) narrow(g *group, ls []*reach.Listener) {
	var to []netip.Prefix
	var on []string
	changes := false
	for _, l := range ls {
		a, err := netip.ParseAddr(l.Address)
		if err != nil || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.Is4In6() {
			return
		}
		if a.IsLoopback() {
			continue
		}
		i := slices.IndexFunc(d.addrs, func(x fact.Address) bool { return x.Prefix.Addr() == a })
		if i < 0 {
			return
		}
		changes = changes || d.addrs[i].Valid != fact.Forever
		p := netip.PrefixFrom(a, a.BitLen())
		if !slices.Contains(to, p) {
			to = append(to, p)
		}
		j := slices.IndexFunc(d.links, func(x fact.Link) bool { return x.Index == d.addrs[i].Index })
		if j < 0 {
			return
		}
		if n := d.links[j].Name; !slices.Contains(on, n) {
			on = append(on, n)
		}
	}
	switch {
	case len(to) == 0:
	case !changes:
		g.to = to
		g.notes = append(g.notes, "It listens on no other address, so none else is opened (to).")
	case g.interfaces != nil: // it is opened no wider than that already
	case !slices.ContainsFunc(on, func(n string) bool { _, ok := d.Intent.Interfaces[n]; return !ok }):
		g.interfaces = on
		g.notes = append(g.notes, "It listens on no other address, and that one may change, so it is opened on the interface alone.")
	}
}

// leaveOut says why a listener is no service, or nothing.
func (d *drafting) leaveOut(k port, program string, closed bool) string {
	switch {
	case k == port{"udp", 68}, k == port{"udp", 546}:
		return "the DHCP client, which needs no service"
	case k == port{"udp", 5353}, k == port{"udp", 5355}, k == port{"udp", 1900}:
		return "discovery among neighbours; add a service if you need it"
	case closed:
		return silent
	case program == "" && k.proto == "udp" && d.carries(k.number) != "":
		return "the kernel's own, for " + d.carries(k.number) + ": see tunnels"
	case k.proto == "udp" && k.number >= ephemeral && names[k.String()] == "":
		return "a port that nobody chose: " + cmp.Or(program, "a program") + " asks from it, and answers come in anyway"
	}
	return ""
}

// carries is the tunnel of this host that the kernel itself takes packets for at a port
// which the rules for tunnels know.
func (d *drafting) carries(number uint16) string {
	known := map[string][]uint16{"vxlan": {4789, 8472}, "geneve": {6081}, "wireguard": {51820}}
	for i := range d.links {
		l := &d.links[i]
		if l.Flags&1 != 0 && slices.Contains(known[l.Kind], number) && (l.Kind == "wireguard" || l.Tunnel != nil && l.Tunnel.Port == number) {
			return l.Name + " (" + l.Kind + ")"
		}
	}
	return ""
}

// brief lists prefixes in a sentence.
func brief(ps []netip.Prefix) string {
	var out []string
	for i, p := range ps {
		if i == 4 {
			out = append(out, fmt.Sprintf("and %d more", len(ps)-i))
			break
		}
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}

// policy writes who gets in of a group; false closes it.
func (d *drafting) policy(g *group, a4, a6 access) bool {
	if d.o.MirrorIPv4 && !d.mirror(g, &a4, &a6) {
		return false
	}
	switch {
	case a4.closed() && a6.closed():
		g.notes = append(g.notes, "Nobody seems to get to it, and your session does: kept open to anybody. Narrow it with from.")
	case a4.any && a6.any, d.o.MirrorIPv4 && a4.any && g.families == nil:
	case a4.any && a6.closed():
		g.families = []string{"ipv4"}
	case a6.any && a4.closed():
		g.families = []string{"ipv6"}
	default:
		for _, x := range []struct {
			a   access
			all string
		}{{a4, "0.0.0.0/0"}, {a6, "::/0"}} {
			if x.a.any {
				g.from = append(g.from, netip.MustParsePrefix(x.all))
			} else {
				g.from = append(g.from, x.a.from...)
			}
		}
		if a4.long || a6.long {
			g.notes = append(g.notes, fmt.Sprintf("There are more than %d sources, and only these are written: complete them.", maxSources))
		}
	}
	g.wider = !d.disabled() && !d.o.MirrorIPv4 && !ownFamily(g.ports[0]) && !a6.closed() && a4.takesOrNot(a6)
	switch {
	case g.wider:
		g.notes = append(g.notes, "LOOK TWICE: IPv6 lets in whom IPv4 does not. It is written as it is today; take it out unless it is meant.")
	case len(g.families) == 1 && !d.disabled() && !ownFamily(g.ports[0]):
		g.notes = append(g.notes, "One family alone, as it is today; take families out to open both.")
	}
	var out []string
	for _, a := range []access{a4, a6} {
		if len(a.kept) > 0 {
			out = append(out, brief(a.kept))
		} else if a.but != "" {
			out = append(out, a.but)
		}
	}
	if len(out) > 0 {
		g.notes = append(g.notes, fmt.Sprintf("Other rules of this host keep %s out. They stay as they are, and are not repeated here.", strings.Join(out, ", ")))
	}
	if a4.maybe || a6.maybe {
		g.notes = append(g.notes, "That it is open is not certain: sixfence reach says what stands in the way.")
	}
	return true
}

// mirror gives IPv6 the policy that IPv4 is observed to have; false closes the group.
func (d *drafting) mirror(g *group, a4, a6 *access) bool {
	if a4.closed() {
		if g.admin && !a6.closed() {
			g.notes = append(g.notes, "IPv4 is closed to it; kept over IPv6, because people may administer the host by it.")
		}
		return g.admin
	}
	*a6 = access{takes: true, any: a4.any}
	if a4.limited {
		g.notes = append(g.notes, "IPv4 is let in up to a rate. The intent has no rate for services: over IPv6 there is none.")
	}
	if len(a4.kept) > 0 || a4.but != "" {
		g.notes = append(g.notes, "Over IPv6 nobody is kept out: what those addresses are there is not known.")
	}
	if a4.any && g.published && a6.closed() && !a6.takes {
		g.families = []string{"ipv4"}
		g.notes = append(g.notes, "Rules publish it over IPv4 alone, so there is nothing to open over IPv6.")
		*a6 = access{}
		return true
	}
	if a4.any {
		return true
	}
	var alone []netip.Prefix
	if a6.from, alone = d.twins(a4.from); len(a6.from) > 0 {
		g.notes = append(g.notes, fmt.Sprintf("IPv4 lets in the whole of a link of this host, so IPv6 does: %s.", brief(a6.from)))
	}
	if len(alone) > 0 {
		g.notes = append(g.notes, fmt.Sprintf("What %s is over IPv6 is not known: closed there until you add it.", brief(alone)))
	}
	return true
}

// twins are the IPv6 prefixes of the links that IPv4 prefixes hold as a whole, and those
// of which none is known: an address, or a part of a link, has no twin.
func (d *drafting) twins(four []netip.Prefix) (six, alone []netip.Prefix) {
	for _, p := range four {
		found := false
		for _, a := range d.addrs {
			link := a.Prefix.Masked()
			if !link.Addr().Is4() || p.Bits() > link.Bits() || !p.Contains(link.Addr()) {
				continue
			}
			for _, b := range d.addrs {
				x := b.Prefix.Masked()
				if b.Index != a.Index || !x.Addr().Is6() || !x.Addr().IsGlobalUnicast() || x.Addr().Is4In6() || x.Bits() == 128 {
					continue
				}
				if found = true; !slices.Contains(six, x) {
					six = append(six, x)
				}
			}
		}
		if !found {
			alone = append(alone, p)
		}
	}
	return six, alone
}

// ownFamily tells that the protocol of a port is of one IP version by its nature.
func ownFamily(p string) bool {
	return slices.Contains([]string{"udp/67", "udp/68", "udp/546", "udp/547"}, p)
}

var notName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// write puts the groups into the intent, the way in first.
func (d *drafting) write(groups []group) {
	slices.SortStableFunc(groups, func(a, b group) int {
		switch {
		case a.admin == b.admin:
			return 0
		case a.admin:
			return -1
		}
		return 1
	})
	yes := true
	used := map[string]bool{}
	for _, g := range groups {
		base := strings.Trim(notName.ReplaceAllString(g.name, "-"), "-._")
		base = cmp.Or(strings.Trim(base[:min(len(base), 48)], "-._"), "service")
		name := base
		if _, number, _ := strings.Cut(g.ports[0], "/"); used[name] {
			name = base + "-" + number
		}
		for n := 2; used[name]; n++ {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		used[name] = true
		s := intent.Service{Name: name, Ports: g.ports, From: g.from, Families: g.families, To: g.to, Interfaces: g.interfaces}
		p := "services." + name
		if strings.Contains(name, ".") {
			p = "services[" + name + "]"
		}
		if g.admin {
			s.Administers = &yes
			what := cmp.Or(g.program, "port 22")
			if g.session {
				what = "your session of now"
			}
			d.Beside[p+".administers"] = "your way in (" + what + "): plan proves that it stays"
		}
		for _, n := range g.notes {
			d.above(p, "%s", n)
		}
		d.Intent.Services = append(d.Intent.Services, s)
	}
}
