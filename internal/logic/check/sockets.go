package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sixfence/sixfence/internal/model/fact"
	"github.com/sixfence/sixfence/internal/model/finding"
)

// reach is how far away a sender may be for the kernel to hand its packets of
// one family to a socket, packet filters aside.
type reach int

const (
	nobody   reach = iota // the socket takes no packet of this family
	thisHost              // only what is sent inside the namespace
	sameLink              // neighbours, by link-local or multicast destination
	anywhere              // every sender that can be routed
)

// ear is a receiving socket with what it takes.
type ear struct {
	*fact.Socket
	v4, v6 reach
	// gap is why v4 or v6 may be larger than said.
	gap4, gap6 *fact.Gap
	dual       bool // an IPv6 socket that also takes IPv4
	ephemeral  bool // its port was likely chosen by the kernel
	// idle says why a socket bound to an address or a device gets nothing now.
	idle string
	exe  string
}

// ears are the receiving sockets of one namespace.
type ears struct {
	list []ear
	gap  *fact.Gap // the sockets could not be read
	way  ways
}

// ways are the roads by which packets come into a namespace.
type ways struct {
	v6      []int // indexes of interfaces on which the kernel takes IPv6 from others
	gap     *fact.Gap
	global6 bool // some interface has a global (or unique local) address
	link6   bool // some interface that hears has a link-local one
	addrGap *fact.Gap
	wire4   bool // some interface besides loopback has an IPv4 address
	loIndex int
	ll      map[int]bool // interfaces with a link-local address
	// deaf are interfaces on which the kernel takes nothing from others, by family.
	deaf4, deaf6 map[int]bool
	own          map[ownAddress]bool   // addresses of the namespace
	local        map[netip.Prefix]bool // prefixes that are delivered locally (routes of type local)
	localBits    []int                 // their lengths
	localGap     *fact.Gap
	groups       map[ownAddress]bool // multicast groups that were joined
	groupGap     *fact.Gap
}

// ownAddress is an address or group on an interface; index 0 is any interface.
type ownAddress struct {
	index int
	ip    netip.Addr
}

// listening indexes the receiving sockets of every namespace; one pass, shared
// by the LISTEN controls through the context.
func (s *Space) listening() *ears {
	if s.heard != nil {
		return s.heard
	}
	e := &ears{}
	s.heard = e
	if e.gap = gapOf(s.Sockets); e.gap != nil {
		return e
	}
	e.way = s.roads()
	low, high := s.ephemeralPorts()
	socks, _ := s.Sockets.Get()
	e.list = make([]ear, 0, len(socks))
	for i := range socks {
		k := &socks[i]
		if k.State == "connected" || k.Protocol == "packet" {
			continue
		}
		a := ear{Socket: k, ephemeral: k.Port >= low && k.Port <= high && k.Port != 0}
		a.exe = s.ctx.holder(k)
		e.way.measure(&a)
		e.list = append(e.list, a)
	}
	return e
}

func (s *Space) roads() ways {
	w := ways{ll: map[int]bool{}, deaf4: map[int]bool{}, deaf6: map[int]bool{}, own: map[ownAddress]bool{}, local: map[netip.Prefix]bool{}, groups: map[ownAddress]bool{}}
	if g := gapOf(s.Links); g != nil {
		w.gap = g
	}
	if g := gapOf(s.Addresses); g != nil {
		w.addrGap = g
	}
	hears := map[int]bool{}
	stack, known := s.IPv6.Get()
	for i := range s.links {
		l := &s.links[i]
		if l.Flags&iffLoopback != 0 {
			w.loIndex = l.Index
			continue
		}
		// A VRF device stands for its members.
		if l.Kind != "vrf" && (l.Flags&iffUp == 0 || portKinds[l.SlaveKind]) {
			w.deaf4[l.Index], w.deaf6[l.Index] = true, true
		}
		if l.Flags&iffUp == 0 || known && !stack {
			continue
		}
		why, g := s.hearsNobody(l)
		if why != "" && l.Kind != "vrf" {
			w.deaf6[l.Index] = true
		}
		switch {
		case g != nil:
			if w.gap == nil {
				w.gap = g
			}
		case why == "":
			w.v6 = append(w.v6, l.Index)
			hears[l.Index] = true
		}
	}
	addrs, _ := s.Addresses.Get()
	for _, a := range addrs {
		ip := a.Prefix.Addr()
		if a.Flags&fact.AddrDADFailed != 0 {
			continue
		}
		w.own[ownAddress{0, ip}], w.own[ownAddress{a.Index, ip}] = true, true
		switch {
		case ip.Is4():
			w.wire4 = w.wire4 || !ip.IsLoopback()
		// A tentative address is about to work: what was just configured counts.
		case ip.IsLinkLocalUnicast():
			if hears[a.Index] {
				w.link6, w.ll[a.Index] = true, true
			}
		case !ip.IsLoopback():
			w.global6 = true // also on lo: Linux answers for any address on any interface
		}
	}
	s.localRoutes(&w)
	w.groupGap = gapOf(s.Multicast)
	groups, _ := s.Multicast.Get()
	for _, m := range groups {
		if m.Index != w.loIndex {
			w.groups[ownAddress{0, m.Group}], w.groups[ownAddress{m.Index, m.Group}] = true, true
		}
	}
	return w
}

// RTN_LOCAL and RTN_BROADCAST.
const (
	rtnLocal     = 2
	rtnBroadcast = 3
)

// localRoutes adds what the namespace takes for its own besides its addresses:
// whole prefixes ("ip route add local …", AnyIP), anycast and broadcast addresses.
func (s *Space) localRoutes(w *ways) {
	w.localGap = gapOf(s.Routes)
	routes, _ := s.Routes.Get()
	tables := append(s.commonTables(), tableLocal)
	for _, r := range routes {
		if r.Type != rtnLocal && r.Type != rtnBroadcast && r.Type != rtnAnycast {
			continue
		}
		ip := r.Dst.Addr()
		if r.Dst.IsSingleIP() {
			if !ip.IsLinkLocalUnicast() { // those are their interface's
				w.own[ownAddress{0, ip}] = true
			}
		} else if p := r.Dst.Masked(); !w.local[p] {
			w.local[p] = true
			if !slices.Contains(w.localBits, p.Bits()) {
				w.localBits = append(w.localBits, p.Bits())
			}
		}
		if r.Type == rtnLocal && r.Family == "ipv6" && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && slices.Contains(tables, r.Table) {
			w.global6 = true
		}
	}
}

// delivered tells whether a route for a whole prefix makes an address ours.
func (w *ways) delivered(ip netip.Addr) bool {
	return slices.ContainsFunc(w.localBits, func(bits int) bool {
		p, err := ip.Prefix(bits)
		return err == nil && w.local[p]
	})
}

// absent tells whether no packet for an address is delivered here, whoever
// sent it. The gap says why that is not known.
func (w *ways) absent(ip netip.Addr, index int) (bool, *fact.Gap) {
	switch {
	case ip.IsMulticast() && ip.Is4():
		return false, nil
	case ip.IsMulticast():
		joined := w.groups[ownAddress{index, ip}] || ip == allNodes || ip == interfaceAllNodes
		return !joined && w.groupGap == nil, nil
	case w.own[ownAddress{index, ip}], !ip.IsLinkLocalUnicast() && w.own[ownAddress{0, ip}]:
		return false, nil
	case ip == limitedBroadcast, w.delivered(ip):
		return false, nil
	case w.addrGap != nil:
		return false, w.addrGap
	}
	return w.localGap == nil, w.localGap
}

// Addresses that every node has without being told.
var (
	allNodes          = netip.MustParseAddr("ff02::1")
	interfaceAllNodes = netip.MustParseAddr("ff01::1")
	limitedBroadcast  = netip.MustParseAddr("255.255.255.255")
)

// measure works out how far an ear hears.
func (w *ways) measure(a *ear) {
	v6only, known := a.V6Only.Get()
	a.v4, a.v6 = nobody, nobody
	lo := a.Index != 0 && a.Index == w.loIndex
	local := a.Local.WithZone("")
	if !local.IsValid() {
		local = netip.IPv6Unspecified()
		if a.Family == "ipv4" {
			local = netip.IPv4Unspecified()
		}
	}
	four := func(ip netip.Addr) reach {
		switch {
		case ip.IsLoopback() || lo:
			return thisHost
		case w.deaf4[a.Index]:
			a.idle = "its interface hears nobody"
			return thisHost
		}
		if !ip.IsUnspecified() {
			gone, gap := w.absent(ip, a.Index)
			switch {
			case gone:
				a.idle = "its address is not configured"
				return thisHost
			case gap != nil:
				a.gap4 = gap
				return thisHost
			}
		}
		switch {
		case w.wire4 || !ip.IsUnspecified():
			return anywhere
		case w.addrGap != nil:
			a.gap4 = w.addrGap
		}
		return thisHost
	}
	if local.Unmap().Is4() {
		a.v4 = four(local.Unmap())
		return
	}
	if local.IsUnspecified() && a.Protocol != "raw" {
		switch {
		case !known:
			if a.gap4 = gapOf(a.V6Only); a.gap4 == nil {
				a.gap4 = &fact.Gap{Reason: fact.UnsupportedGap, What: "IPV6_V6ONLY of a socket"}
			}
		case !v6only:
			a.dual = true
			a.v4 = four(netip.IPv4Unspecified())
		}
	}
	a.v6 = thisHost
	switch {
	case lo || local.IsLoopback():
		return
	case len(w.v6) == 0:
		a.gap6 = w.gap
		return
	case w.deaf6[a.Index]:
		a.idle = "its interface hears nobody"
		return
	}
	if !local.IsUnspecified() {
		gone, gap := w.absent(local, a.Index)
		switch {
		case gone && local.IsMulticast():
			a.idle = "nobody joined its group"
			return
		case gone:
			a.idle = "its address is not configured"
			return
		case gap != nil:
			a.gap6 = gap
			return
		}
	}
	switch {
	case a.Index != 0 && !slices.Contains(w.v6, a.Index):
		// Bound to a VRF, or to a device out of sight.
		a.v6 = w.wildcard(a)
	case local.IsLinkLocalUnicast(), local.IsMulticast() && local.As16()[1]&0xf <= 2:
		a.v6 = sameLink
	case !local.IsUnspecified():
		a.v6 = anywhere
	default:
		a.v6 = w.wildcard(a)
	}
}

// wildcard is how far a socket bound to no address hears: as far as the
// addresses packets can be sent to.
func (w *ways) wildcard(a *ear) reach {
	switch {
	case w.global6:
		return anywhere
	case w.link6:
		a.gap6 = w.addrGap
		return sameLink
	case w.addrGap != nil:
		a.gap6 = w.addrGap
		return thisHost
	case a.Protocol == "udp" || a.Protocol == "udplite" || a.Protocol == "raw":
		return sameLink // ff02::1 needs no address of ours
	}
	return thisHost
}

// ephemeralPorts is the range the kernel picks ports from. Ports below the
// default range are taken for chosen ones even where the range was widened.
func (s *Space) ephemeralPorts() (low, high uint16) {
	low, high = 32768, 60999
	v, ok := s.Sysctl("net/ipv4/ip_local_port_range").Get()
	if !ok {
		return low, high
	}
	f := strings.Fields(v)
	if len(f) != 2 {
		return low, high
	}
	a, err1 := strconv.ParseUint(f[0], 10, 16)
	b, err2 := strconv.ParseUint(f[1], 10, 16)
	if err1 != nil || err2 != nil {
		return low, high
	}
	return uint16(max(a, 32768)), uint16(b)
}

// holder names the executable that a socket is reported by: that of the oldest
// holder besides the service manager that opened the socket for it.
func (c *Context) holder(k *fact.Socket) string {
	pids, _ := k.Owners.Get()
	if len(pids) == 0 {
		return ""
	}
	best, manager := 0, ""
	for _, pid := range pids {
		p := c.procs[pid]
		if p == nil {
			continue
		}
		exe, ok := p.Exe.Get()
		if !ok {
			continue
		}
		if pid == 1 || baseName(exe) == "systemd" {
			manager = exe
			continue
		}
		if best == 0 || pid < best {
			best = pid
		}
	}
	if best != 0 {
		return c.procs[best].Exe.Or("")
	}
	return manager
}

// subject names a socket without anything that a reboot changes.
func (s *Space) socketSubject(a *ear) finding.Subject {
	sub := finding.Subject{NetNS: s.Name, Family: a.Family, Proto: a.Protocol, Process: a.exe}
	if a.Local.IsValid() {
		sub.Address = a.Local.WithZone("").String()
	}
	if a.ephemeral {
		sub.Key = "port chosen by the kernel"
	} else {
		sub.Port = a.Port
	}
	if a.Protocol == "raw" {
		sub.Port, sub.Key = 0, "protocol "+strconv.Itoa(int(a.Number))
	}
	if a.Index != 0 {
		sub.Interface = s.IfName(a.Index)
	}
	return sub
}

// evidence of a socket.
func (s *Space) socketEvidence(a *ear) finding.Evidence {
	src := a.Source
	if src == "" {
		src = "inet_diag"
	}
	v := endpoint(a)
	switch only, known := a.V6Only.Get(); {
	case a.Family == "ipv6" && known && only:
		v += " v6only=1"
	case a.Family == "ipv6" && known:
		v += " v6only=0"
	}
	if a.exe != "" {
		v += " " + a.exe
	}
	return finding.Evidence{Source: src, Key: a.Protocol, Value: v, At: s.ctx.At(), Volatile: a.ephemeral}
}

// endpoint is "[::]:22", "127.0.0.1:25%lo".
func endpoint(a *ear) string {
	l := a.Local
	if !l.IsValid() {
		l = netip.IPv6Unspecified()
		if a.Family == "ipv4" {
			l = netip.IPv4Unspecified()
		}
	}
	return netip.AddrPortFrom(l, a.Port).String()
}

// takes says in words what a socket takes.
func takes(a *ear) string {
	if a.idle != "" && a.v4 <= thisHost && a.v6 <= thisHost {
		return "nothing from others now (" + a.idle + ")"
	}
	word := map[reach]string{thisHost: "this host only", sameLink: "neighbours", anywhere: "any sender"}
	var p []string
	if a.v4 != nobody {
		p = append(p, "IPv4 from "+word[a.v4])
	} else if a.gap4 != nil {
		p = append(p, "IPv4 perhaps")
	}
	if a.v6 != nobody {
		p = append(p, "IPv6 from "+word[a.v6])
	}
	if p == nil {
		return "nothing"
	}
	return strings.Join(p, " and ")
}

// service is "tcp/5432 of /usr/lib/postgresql/…".
func service(a *ear) string {
	v := fmt.Sprintf("%s/%d", a.Protocol, a.Port)
	if a.Protocol == "raw" {
		v = fmt.Sprintf("raw protocol %d", a.Number)
	}
	if a.exe != "" {
		v += " of " + a.exe
	}
	return v
}
