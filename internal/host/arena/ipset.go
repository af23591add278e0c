package arena

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// include/uapi/linux/netfilter/ipset/ip_set.h.
const (
	subsysIPSet  = 6
	ipsetCreate  = 2
	ipsetDestroy = 3
	ipsetAdd     = 9

	ipsetProtocol = 1
	ipsetName     = 2
	ipsetType     = 3
	ipsetData     = 7
	ipsetADT      = 8
	ipsetLine     = 9
	ipsetIndex    = 11
)

// ipsetNot is what a list tells of a set and nobody may ask for: how many elements it has,
// who refers to it, how much memory it takes.
var ipsetNot = []uint16{24, 25, 26}

// ipsets makes sets with their elements. Rules know them by number, and so they get the
// numbers that they have: the kernel gives the first that is free.
func ipsets(list [][]byte) (out []Refused) {
	type set struct {
		name   string
		index  uint16
		create []byte
	}
	var sets []set
	for _, m := range list {
		a := nested(m[min(4, len(m)):])
		if value(a, ipsetType) == nil {
			continue // more elements of the set before
		}
		s := set{name: cstring(value(a, ipsetName)), index: uint16(len(sets))}
		if i := value(a, ipsetIndex); len(i) == 2 {
			s.index = binary.BigEndian.Uint16(i)
		}
		s.create = renamed(m, s.name)
		sets = append(sets, s)
	}
	slices.SortStableFunc(sets, func(a, b set) int { return cmp.Compare(a.index, b.index) })
	var fillers []string
	next := uint16(0)
	fill := func() {
		name := fmt.Sprintf("sixfence-%d", next)
		for _, s := range sets {
			if nfnetlink(subsysIPSet, ipsetCreate, netlink.Create, renamed(s.create, name)) == nil {
				fillers = append(fillers, name)
				break
			}
		}
		next++
	}
	for _, s := range sets {
		for next < s.index {
			fill()
		}
		if err := nfnetlink(subsysIPSet, ipsetCreate, netlink.Create|netlink.Excl, s.create); err != nil {
			out = append(out, Refused{"ipset " + s.name, err.Error()})
			fill() // a rule that names it must not meet the next one
			continue
		}
		next++
	}
	for _, m := range list {
		a := nested(m[min(4, len(m)):])
		elements := value(a, ipsetADT)
		name := cstring(value(a, ipsetName))
		if len(elements) == 0 || slices.ContainsFunc(out, func(r Refused) bool { return r.What == "ipset "+name }) {
			continue
		}
		b := slices.Clone(m[:4])
		b = attribute(b, ipsetProtocol, value(a, ipsetProtocol))
		b = attribute(b, ipsetName, append([]byte(name), 0))
		b = attribute(b, ipsetLine, []byte{0, 0, 0, 0})
		_ = each(elements, func(_ uint16, e []byte) error { inNetOrder(e[4:]); return nil })
		b = attribute(b, ipsetADT|unix.NLA_F_NESTED, elements)
		if err := nfnetlink(subsysIPSet, ipsetAdd, 0, b); err != nil {
			out = append(out, Refused{"ipset " + name, err.Error()})
			fillers = append(fillers, name)
		}
	}
	for _, name := range fillers {
		b := attribute([]byte{unix.AF_INET, 0, 0, 0}, ipsetProtocol, []byte{6})
		if err := nfnetlink(subsysIPSet, ipsetDestroy, 0, attribute(b, ipsetName, append([]byte(name), 0))); err != nil && !errors.Is(err, unix.ENOENT) {
			out = append(out, Refused{"ipset " + name, err.Error()})
		}
	}
	return out
}

// renamed is a request for a set like one that was listed.
func renamed(m []byte, name string) []byte {
	b := slices.Clone(m[:4])
	list, err := netlink.UnmarshalAttributes(m[4:])
	if err != nil {
		return b
	}
	for _, a := range list {
		switch a.Type & 0x3fff {
		case ipsetADT, ipsetIndex:
		case ipsetName:
			b = attribute(b, a.Type, append([]byte(name), 0))
		case ipsetData:
			d := without(a.Data, ipsetNot)
			inNetOrder(d)
			b = attribute(b, a.Type, d)
		default:
			b = attribute(b, a.Type, a.Data)
		}
	}
	return b
}

// inNetOrder marks addresses as what they are: a list does not, and a request has to.
func inNetOrder(data []byte) {
	_ = each(data, func(_ uint16, a []byte) error {
		if binary.NativeEndian.Uint16(a[2:])&unix.NLA_F_NESTED != 0 && len(a) >= 8 {
			binary.NativeEndian.PutUint16(a[6:], binary.NativeEndian.Uint16(a[6:])|unix.NLA_F_NET_BYTEORDER)
		}
		return nil
	})
}

// accounting makes the objects that xt_nfacct counts in.
func accounting(list [][]byte) (out []Refused) {
	const subsys, add, use = 7, 0, 4 // NFNL_SUBSYS_ACCT, NFNL_MSG_ACCT_NEW, NFACCT_USE
	for _, m := range list {
		if len(m) < 4 {
			continue
		}
		if err := nfnetlink(subsys, add, netlink.Create, append(slices.Clone(m[:4]), without(m[4:], []uint16{use})...)); err != nil {
			out = append(out, Refused{"nfacct " + cstring(value(nested(m[4:]), 1)), err.Error()})
		}
	}
	return out
}
