package mutate

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/change"
)

// Destroys reads what setting a sysctl will take away besides, with the messages that
// make it again. disable_ipv6=1 takes every IPv6 address of the interface, and with
// them its routes and permanent and proxy neighbours; forwarding=1 takes the default
// routes that came by Router Advertisement, unless accept_ra is 2.
func (h *Host) Destroys(target string, i change.Image) ([]change.Object, error) {
	covered, raDefault, err := h.covers(target, i)
	if err != nil || len(covered) == 0 {
		return nil, err
	}
	var out []change.Object
	if !raDefault {
		as, err := addressesOf(covered)
		if err != nil {
			return nil, err
		}
		nb, err := neighboursOf(covered)
		if err != nil {
			return nil, err
		}
		out = append(as, nb...)
	}
	rs, err := routesOf(covered, raDefault, true)
	if raDefault {
		rs = slices.DeleteFunc(rs, func(o change.Object) bool {
			return o.Message[5] != unix.RTPROT_RA && !slices.ContainsFunc(o.Attributes, func(a string) bool { return strings.HasPrefix(a, flagged) })
		})
	}
	return append(out, rs...), err
}

// covers tells the interfaces on which setting a sysctl destroys something; raDefault,
// that it is only the default routes of advertisements.
func (h *Host) covers(target string, i change.Image) (covered map[uint32]string, raDefault bool, err error) {
	w := strings.Split(target, "/")
	if len(w) != 5 || w[0] != "net" || w[1] != "ipv6" || w[2] != "conf" || strings.TrimSpace(i.Text) == "0" {
		return nil, false, nil
	}
	ifname, key := w[3], w[4]
	if key != "disable_ipv6" && key != "forwarding" || ifname == "default" {
		return nil, false, nil
	}
	ns, err := names()
	if err != nil {
		return nil, false, err
	}
	covered = map[uint32]string{}
	for n, name := range ns {
		if ifname != "all" && name != ifname {
			continue
		}
		s, err := h.sysctlState("net/ipv6/conf/" + name + "/" + key)
		if err != nil || s != "= 0" {
			continue // it is so already: nothing more is destroyed
		}
		if key == "forwarding" {
			if ra, err := h.sysctlState("net/ipv6/conf/" + name + "/accept_ra"); err != nil || ra == "= 2" {
				continue
			}
		}
		covered[n] = name
	}
	return covered, key == "forwarding", nil
}

func addressesOf(covered map[uint32]string) ([]change.Object, error) {
	body := make([]byte, unix.SizeofIfAddrmsg)
	body[0] = unix.AF_INET6
	ms, err := rtnl(unix.RTM_GETADDR, netlink.Dump, body)
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	var out []change.Object
	for _, m := range ms {
		if o, ok := addressOf(m.Data, covered); ok {
			out = append(out, o)
		}
	}
	// The kernel names the latest first. What is made again in the order in which it was made
	// stands as it stood: of two sources that are as good it takes the one that comes first.
	slices.Reverse(out)
	return out, nil
}

func addressOf(m []byte, covered map[uint32]string) (change.Object, bool) {
	if len(m) < unix.SizeofIfAddrmsg || m[0] != unix.AF_INET6 {
		return change.Object{}, false
	}
	name, ok := covered[binary.NativeEndian.Uint32(m[4:])]
	a := attributes(m[unix.SizeofIfAddrmsg:])
	if !ok {
		return change.Object{}, false
	}
	local := a[unix.IFA_LOCAL]
	if local == nil {
		local = a[unix.IFA_ADDRESS]
	}
	addr, _ := netip.AddrFromSlice(local)
	o := change.Object{Kind: change.AddressObj, Target: fmt.Sprintf("%s %s/%d", name, addr, m[1]), Interface: name, Message: m}
	if c := a[unix.IFA_CACHEINFO]; len(c) >= 8 {
		o.PreferredLifetime, o.ValidLifetime = finite(binary.NativeEndian.Uint32(c)), finite(binary.NativeEndian.Uint32(c[4:]))
	}
	return o, true
}

// Temporary tells whether an object is a temporary (privacy) address, which the kernel
// makes itself and takes from nobody.
func Temporary(o change.Object) bool {
	return o.Kind == change.AddressObj && len(o.Message) >= unix.SizeofIfAddrmsg && flags(attributes(o.Message[unix.SizeofIfAddrmsg:]))&unix.IFA_F_TEMPORARY != 0
}

// finite is a lifetime as Object has it: 0 for ever.
func finite(v uint32) uint32 {
	if v == 0xffffffff {
		return 0
	}
	return max(v, 1)
}

func flags(a map[uint16][]byte) uint32 {
	if f := a[unix.IFA_FLAGS]; len(f) >= 4 {
		return binary.NativeEndian.Uint32(f)
	}
	return 0
}

func neighboursOf(covered map[uint32]string) ([]change.Object, error) {
	var out []change.Object
	for _, proxy := range []bool{false, true} {
		body := make([]byte, unix.SizeofNdMsg)
		body[0] = unix.AF_INET6
		if proxy {
			body[10] = unix.NTF_PROXY
		}
		ms, err := rtnl(unix.RTM_GETNEIGH, netlink.Dump, body)
		if err != nil {
			return nil, fmt.Errorf("read neighbours: %w", err)
		}
		for _, m := range ms {
			if o, ok := neighbourOf(m.Data, covered); ok {
				out = append(out, o)
			}
		}
	}
	return out, nil
}

func neighbourOf(m []byte, covered map[uint32]string) (change.Object, bool) {
	if len(m) < unix.SizeofNdMsg || m[0] != unix.AF_INET6 {
		return change.Object{}, false
	}
	o, ok := namedNeighbour(m, covered)
	switch state := binary.NativeEndian.Uint16(m[8:]); {
	case m[10]&unix.NTF_PROXY != 0, state&unix.NUD_PERMANENT != 0:
		return o, ok
	case state&unix.NUD_NOARP != 0: // of groups the kernel makes them itself
		dst := attributes(m[unix.SizeofNdMsg:])[unix.NDA_DST]
		return o, ok && len(dst) == 16 && dst[0] != 0xff
	}
	return change.Object{}, false
}

// namedNeighbour is neighbourOf for one in any state.
func namedNeighbour(m []byte, covered map[uint32]string) (change.Object, bool) {
	if len(m) < unix.SizeofNdMsg || m[0] != unix.AF_INET6 {
		return change.Object{}, false
	}
	name, ok := covered[binary.NativeEndian.Uint32(m[4:])]
	a := attributes(m[unix.SizeofNdMsg:])
	addr, _ := netip.AddrFromSlice(a[unix.NDA_DST])
	o := change.Object{Kind: change.Neighbour, Target: name + " " + addr.String(), Interface: name, Message: m}
	if m[10]&unix.NTF_PROXY != 0 {
		o.Target += " proxy"
		o.Attributes = []string{"proxy"}
	} else {
		nud := "permanent"
		if binary.NativeEndian.Uint16(m[8:])&unix.NUD_NOARP != 0 {
			nud = "noarp"
		}
		o.Attributes = []string{"lladdr", net.HardwareAddr(a[unix.NDA_LLADDR]).String(), "nud", nud}
	}
	return o, ok
}

const rtmFCloned = 0x200 // RTM_F_CLONED: a cached exception, not a route

// routesOf reads the IPv6 routes that hang on the interfaces; raDefault, only the
// default routes that an advertisement made; whole, with what a restoration needs.
func routesOf(covered map[uint32]string, raDefault, whole bool) ([]change.Object, error) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = unix.AF_INET6
	ms, err := rtnl(unix.RTM_GETROUTE, netlink.Dump, body)
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	var out []change.Object
	for _, m := range ms {
		if o, ok := routeOf(m.Data, covered, raDefault); ok {
			out = append(out, o)
		}
	}
	if !whole {
		return out, nil
	}
	places := map[string][]int{}
	for i := range out {
		if p, _, ok := place(out[i].Message); ok {
			places[p] = append(places[p], i)
		}
	}
	for _, m := range ms {
		if len(places) == 0 {
			break
		}
		p, legs, ok := place(m.Data)
		for _, i := range places[p] {
			_, own, _ := place(out[i].Message)
			for _, leg := range legs {
				if ok && !slices.Contains(own, leg) {
					out[i].Attributes = append(out[i].Attributes, beside+leg)
				}
			}
		}
	}
	advertised(out)
	return out, nil
}

// Attributes of a route that is saved: another route to the same place, and the flags by
// which the kernel knows a route that an advertisement made.
const (
	beside  = "beside "
	flagged = "flags "
)

// place is what a route leads to and how dear it is: of two routes that share it the
// kernel takes one for a replacement of the other. legs tell them apart. What the kernel
// makes itself takes nobody's place.
func place(m []byte) (where string, legs []string, ok bool) {
	if len(m) < unix.SizeofRtMsg || m[0] != unix.AF_INET6 || m[5] == unix.RTPROT_KERNEL || binary.NativeEndian.Uint32(m[8:])&rtmFCloned != 0 {
		return "", nil, false
	}
	a := attributes(m[unix.SizeofRtMsg:])
	where = fmt.Sprintf("%x/%d %x %x", a[unix.RTA_DST], m[1], a[unix.RTA_TABLE], a[unix.RTA_PRIORITY])
	hops := a[unix.RTA_MULTIPATH]
	if hops == nil {
		return where, []string{fmt.Sprintf("%d %x %x", m[7], a[unix.RTA_GATEWAY], a[unix.RTA_OIF])}, true
	}
	eachHop(hops, func(h []byte) {
		legs = append(legs, fmt.Sprintf("%d %x %x", m[7], attributes(h[8:])[unix.RTA_GATEWAY], h[4:8]))
	})
	return where, legs, true
}

// eachHop calls f for every rtnexthop of a RTA_MULTIPATH.
func eachHop(hops []byte, f func(h []byte)) {
	for len(hops) >= 8 {
		n := int(binary.NativeEndian.Uint16(hops))
		if n < 8 || n > len(hops) {
			return
		}
		f(hops[:n])
		hops = hops[min((n+3)&^3, len(hops)):]
	}
}

const (
	rtfDefault   = 0x10000
	rtfAddrconf  = 0x40000
	rtfRouteInfo = 0x800000
	rtfCache     = 0x1000000
)

// advertised marks the routes that the kernel made of an advertisement, by the flags
// that rtnetlink does not tell.
func advertised(rs []change.Object) {
	maybe := func(o change.Object) bool {
		return (o.Message[5] == unix.RTPROT_RA || o.Message[5] == unix.RTPROT_BOOT) && strings.Contains(o.Target, " via ")
	}
	if !slices.ContainsFunc(rs, maybe) {
		return
	}
	b, err := os.ReadFile("/proc/thread-self/net/ipv6_route")
	if err != nil {
		return
	}
	known := map[string]string{}
	for line := range strings.Lines(string(b)) {
		w := strings.Fields(line)
		if len(w) != 10 {
			continue
		}
		f, err := strconv.ParseUint(w[8], 16, 32)
		if err == nil && f&rtfAddrconf != 0 && f&(rtfDefault|rtfRouteInfo) != 0 && f&rtfCache == 0 {
			known[w[0]+" "+w[1]+" "+w[4]+" "+w[5]+" "+w[9]] = w[8]
		}
	}
	for i := range rs {
		a := attributes(rs[i].Message[unix.SizeofRtMsg:])
		dst, gateway, metric := make([]byte, 16), a[unix.RTA_GATEWAY], a[unix.RTA_PRIORITY]
		copy(dst, a[unix.RTA_DST])
		if !maybe(rs[i]) || len(metric) < 4 {
			continue
		}
		if f := known[fmt.Sprintf("%x %02x %x %08x %s", dst, rs[i].Message[1], gateway, binary.NativeEndian.Uint32(metric), rs[i].Interface)]; f != "" {
			rs[i].Attributes = append(rs[i].Attributes, flagged+f)
		}
	}
}

// routeOf is a route that goes when its interface is switched off. One of several next
// hops does not, as long as one of them is left; neither does one that leads through an
// object of next hops.
func routeOf(m []byte, covered map[uint32]string, raDefault bool) (change.Object, bool) {
	if len(m) < unix.SizeofRtMsg || m[0] != unix.AF_INET6 || binary.NativeEndian.Uint32(m[8:])&rtmFCloned != 0 {
		return change.Object{}, false
	}
	// The label is lost of one that an undo made again, see restoreAdvertised.
	if raDefault && (m[5] != unix.RTPROT_RA && m[5] != unix.RTPROT_BOOT || m[1] != 0) {
		return change.Object{}, false
	}
	a := attributes(m[unix.SizeofRtMsg:])
	if _, ok := a[rtaNHID]; ok {
		return change.Object{}, false
	}
	name, ok := "", false
	if oif := a[unix.RTA_OIF]; len(oif) >= 4 {
		name, ok = covered[binary.NativeEndian.Uint32(oif)]
	}
	left := false
	eachHop(a[unix.RTA_MULTIPATH], func(h []byte) {
		n, in := covered[binary.NativeEndian.Uint32(h[4:])]
		if in {
			name, ok = n, true
		}
		// A hop whose interface is off already, perhaps by an earlier step, keeps nothing.
		left = left || !in && h[2]&unix.RTNH_F_DEAD == 0
	})
	if left {
		return change.Object{}, false
	}
	o := change.Object{Kind: change.RouteObj, Target: routeText(m, a, name), Interface: name, Message: m}
	if c := a[unix.RTA_CACHEINFO]; len(c) >= 12 {
		if ticks := int32(binary.NativeEndian.Uint32(c[8:])); ticks != 0 {
			o.ValidLifetime = uint32(max(ticks/100, 1)) // USER_HZ
		}
	}
	return o, ok
}

const rtaNHID = 30

func routeText(m []byte, a map[uint16][]byte, dev string) string {
	s := "default"
	if d, ok := netip.AddrFromSlice(a[unix.RTA_DST]); ok {
		s = netip.PrefixFrom(d, int(m[1])).String()
	}
	if v, ok := netip.AddrFromSlice(a[unix.RTA_GATEWAY]); ok {
		s += " via " + v.String()
	}
	s += " dev " + dev
	for name, p := range routeProtocols {
		if p == m[5] {
			s += " proto " + name
		}
	}
	if p := a[unix.RTA_PRIORITY]; len(p) >= 4 {
		s += fmt.Sprintf(" metric %d", binary.NativeEndian.Uint32(p))
	}
	if t := a[unix.RTA_TABLE]; len(t) >= 4 && binary.NativeEndian.Uint32(t) != unix.RT_TABLE_MAIN {
		s += fmt.Sprintf(" table %d", binary.NativeEndian.Uint32(t))
	}
	return s
}
