package pfdecode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// IPSet is one set of the ipset subsystem.
type IPSet struct {
	Name   string
	Type   string // hash:ip, bitmap:port, list:set …
	Index  uint16 // the number by which x_tables rules name it
	Family rs.Family
	// Members are the sets of a list:set.
	Members []Member
	// Set holds the elements, keyed by the type's dimensions; nil for a list:set and
	// for types that are not understood.
	Set *rs.Set
	// Protos are the transport protocols among the elements of a type with ports.
	Protos []uint8

	netmask uint8
}

// Member is an entry of a list:set.
type Member struct {
	Name    string
	Expires bool
}

// IPSets are the sets of a namespace.
type IPSets struct {
	byIndex map[uint16]*IPSet
	byName  map[string]*IPSet
	quotas  map[string]bool // the accounting objects of xt_nfacct: whether they have a quota
}

// dimension is one part of a set's key.
type dimension uint8

const (
	dimIP dimension = iota
	dimNet
	dimPort // protocol and port
	dimIface
	dimNumber // a port alone
)

// dimensions are the parts of the key, in the order that a rule's src,dst flags count.
var dimensions = map[string][]dimension{
	"hash:ip":           {dimIP},
	"hash:net":          {dimNet},
	"hash:ip,port":      {dimIP, dimPort},
	"hash:net,port":     {dimNet, dimPort},
	"hash:net,iface":    {dimNet, dimIface},
	"hash:net,net":      {dimNet, dimNet},
	"hash:ip,port,ip":   {dimIP, dimPort, dimIP},
	"hash:ip,port,net":  {dimIP, dimPort, dimNet},
	"hash:net,port,net": {dimNet, dimPort, dimNet},
	"bitmap:ip":         {dimIP},
	"bitmap:port":       {dimNumber},
}

// IPSET_ATTR_* (include/uapi/linux/netfilter/ipset/ip_set.h).
const (
	ipsetName   = 2
	ipsetType   = 3
	ipsetFamily = 5
	ipsetData   = 7
	ipsetADT    = 8
	ipsetIndex  = 11

	ipsetIP       = 1
	ipsetIPTo     = 2
	ipsetCIDR     = 3
	ipsetPort     = 4
	ipsetTimeout  = 6
	ipsetProto    = 7
	ipsetFlags    = 8
	ipsetBitmask  = 12
	ipsetNetmask  = 20
	ipsetMember   = 18
	ipsetIP2      = 20
	ipsetCIDR2    = 21
	ipsetIface    = 23
	ipsetPhysdev  = 1 << 1
	ipsetNoMatch  = 1 << 2
	ipsetWildcard = 1 << 7
)

// NoIPSets is a namespace without sets.
func NoIPSets() *IPSets {
	return &IPSets{byIndex: map[uint16]*IPSet{}, byName: map[string]*IPSet{}}
}

// Len is how many sets there are.
func (s *IPSets) Len() int { return len(s.byName) }

// ByName returns the set with this name, or nil.
func (s *IPSets) ByName(name string) *IPSet {
	if s == nil {
		return nil
	}
	return s.byName[name]
}

func (s *IPSets) index(i uint16) *IPSet {
	if s == nil {
		return nil
	}
	return s.byIndex[i]
}

// DecodeIPSets decodes the answers to IPSET_CMD_LIST (nfgenmsg and attributes). A set
// of a type that is not understood is kept without its elements.
func DecodeIPSets(msgs [][]byte, order binary.ByteOrder) (*IPSets, error) {
	out := NoIPSets()
	nets := map[*IPSet][]entry{}
	for i, m := range msgs {
		if len(m) < 4 {
			return nil, fmt.Errorf("decode ipset %d: message of %d bytes", i, len(m))
		}
		if err := out.message(m[4:], order, nets); err != nil {
			return nil, fmt.Errorf("decode ipset %d: %w", i, err)
		}
	}
	for _, s := range out.byName {
		s.finish(nets[s])
	}
	return out, nil
}

// entry is an element before prefixes are made disjoint.
type entry struct {
	rs.Element
	bits    int // prefix length of the first dimension
	noMatch bool
}

func (s *IPSets) message(b []byte, order binary.ByteOrder, nets map[*IPSet][]entry) error {
	a, err := parse(b, order)
	if err != nil {
		return err
	}
	name := a.str(ipsetName)
	if name == "" {
		return fmt.Errorf("set without a name")
	}
	set := s.byName[name]
	if a.has(ipsetType) {
		if set, err = s.header(name, a, order); err != nil {
			return err
		}
	}
	if set == nil {
		return fmt.Errorf("elements of unknown set %q", name)
	}
	var bad error
	err = walk(a[ipsetADT], order, func(_ uint16, v []byte) {
		e, err := parse(v, order)
		if err != nil {
			bad = err
			return
		}
		if set.Type == "list:set" {
			set.Members = append(set.Members, Member{e.str(ipsetMember), expires(e)})
			return
		}
		if set.Set == nil {
			return
		}
		x, ok := set.element(e, order)
		if !ok {
			set.Set.Complete = false
			return
		}
		nets[set] = append(nets[set], x)
	})
	return firstErr(err, bad)
}

func (s *IPSets) header(name string, a attrs, order binary.ByteOrder) (*IPSet, error) {
	if s.byName[name] != nil {
		return nil, fmt.Errorf("set %q twice", name)
	}
	set := &IPSet{Name: name, Type: a.str(ipsetType)}
	if f, err := a.u8(ipsetFamily); err == nil {
		set.Family = rs.Family(f)
	}
	idx := a[ipsetIndex]
	if len(idx) == 2 {
		set.Index = binary.BigEndian.Uint16(idx)
		if s.byIndex[set.Index] != nil {
			return nil, fmt.Errorf("set number %d twice", set.Index)
		}
		s.byIndex[set.Index] = set
	}
	s.byName[name] = set
	data, err := parse(a[ipsetData], order)
	if err != nil {
		return nil, err
	}
	dims, ok := dimensions[set.Type]
	if !ok || data.has(ipsetBitmask) {
		return set, nil
	}
	if m, err := data.u8(ipsetNetmask); err == nil {
		set.netmask = m
	}
	set.Set = &rs.Set{Name: SetPrefix + name, Interval: true, Complete: true, Timeout: data.has(ipsetTimeout)}
	for _, d := range dims {
		for _, n := range set.lengths(d) {
			set.Set.Concat = append(set.Set.Concat, n)
			set.Set.KeyLen += (n + 3) &^ 3
		}
	}
	if len(set.Set.Concat) == 1 {
		set.Set.KeyLen = set.Set.Concat[0]
		set.Set.Concat = nil
	}
	return set, nil
}

// SetPrefix is put before the name of an ipset among the sets of a table.
const SetPrefix = "ipset "

func (s *IPSet) addrLen() int {
	if s.Family == rs.IPv6 {
		return 16
	}
	return 4
}

func (s *IPSet) lengths(d dimension) []int {
	switch d {
	case dimPort:
		return []int{1, 2}
	case dimNumber:
		return []int{2}
	case dimIface:
		return []int{16}
	}
	return []int{s.addrLen()}
}

// element decodes one element; false when it cannot be said.
func (s *IPSet) element(a attrs, order binary.ByteOrder) (entry, bool) {
	var e entry
	flags, err := a.u32(ipsetFlags)
	if err != nil || flags&ipsetPhysdev != 0 {
		return e, false
	}
	e.Expires = expires(a)
	e.noMatch = flags&ipsetNoMatch != 0
	dims := dimensions[s.Type]
	ips := 0
	add := func(from, to []byte) {
		e.From, e.To = append(e.From, from...), append(e.To, to...)
		for len(dims) > 1 && len(e.From)%4 != 0 {
			e.From, e.To = append(e.From, 0), append(e.To, 0)
		}
	}
	for _, d := range dims {
		switch d {
		case dimIP, dimNet:
			ip, to, cidr := uint16(ipsetIP), uint16(ipsetIPTo), uint16(ipsetCIDR)
			if ips++; ips == 2 {
				ip, to, cidr = ipsetIP2, 0, ipsetCIDR2
			}
			from, err := s.address(a[ip], order)
			if err != nil {
				return e, false
			}
			bits := 8 * len(from)
			if v, err := a.u8(cidr); err == nil && a.has(cidr) {
				bits = int(v)
			}
			if s.netmask != 0 && ips == 1 {
				bits = min(bits, int(s.netmask))
			}
			if bits > 8*len(from) {
				return e, false
			}
			if ips == 1 {
				e.bits = bits
			}
			first, last := prefixRange(from, bits)
			if v := a[to]; v != nil && to != 0 {
				if last, err = s.address(v, order); err != nil || bytes.Compare(first, last) > 0 {
					return e, false
				}
			}
			add(first, last)
		case dimPort:
			p, err := a.u8(ipsetProto)
			if err != nil || !a.has(ipsetProto) || len(a[ipsetPort]) != 2 {
				return e, false
			}
			if !slices.Contains(s.Protos, p) {
				s.Protos = append(s.Protos, p)
			}
			add([]byte{p}, []byte{p})
			add(a[ipsetPort], a[ipsetPort])
		case dimNumber:
			if len(a[ipsetPort]) != 2 {
				return e, false
			}
			add(a[ipsetPort], a[ipsetPort])
		case dimIface:
			name := a.str(ipsetIface)
			if name == "" || len(name) > 15 {
				return e, false
			}
			from, to := make([]byte, 16), make([]byte, 16)
			copy(from, name)
			if flags&ipsetWildcard != 0 {
				to = bytes.Repeat([]byte{0xff}, 16)
			}
			copy(to, name)
			add(from, to)
		}
	}
	return e, true
}

func (s *IPSet) address(b []byte, order binary.ByteOrder) ([]byte, error) {
	a, err := parse(b, order)
	if err != nil {
		return nil, err
	}
	v := a[1]
	if s.Family == rs.IPv6 {
		v = a[2]
	}
	if len(v) != s.addrLen() {
		return nil, fmt.Errorf("address of %d bytes", len(v))
	}
	return v, nil
}

func prefixRange(a []byte, bits int) (first, last []byte) {
	first, last = bytes.Clone(a), bytes.Clone(a)
	for i := bits; i < 8*len(a); i++ {
		first[i/8] &^= 0x80 >> (i % 8)
		last[i/8] |= 0x80 >> (i % 8)
	}
	return first, last
}

// finish makes the elements those of a set of intervals. Where an exception
// (nomatch) lies in a prefix, the longest prefix that holds an address decides.
func (s *IPSet) finish(es []entry) {
	if s.Set == nil {
		return
	}
	exceptions := slices.ContainsFunc(es, func(e entry) bool { return e.noMatch })
	if s.Set.Concat == nil {
		if exceptions {
			s.Set.Elements = carve(es)
			return
		}
	} else {
		s.doubt(es)
	}
	for _, e := range es {
		if !e.noMatch {
			s.Set.Elements = append(s.Set.Elements, e.Element)
		}
	}
}

// maxDoubts bounds the work of doubt; beyond it every element is in doubt.
const maxDoubts = 1 << 24

// doubt marks the elements of several dimensions that a key may lie in and not match, as
// those that may be gone. The order in which prefixes of several dimensions are tried is
// the kernel's own: an exception (nomatch) may come first. Of hash:net,iface it does not
// look at a shorter prefix once it met a longer one, whatever that one's interface
// (mtype_test_cidrs).
func (s *IPSet) doubt(es []entry) {
	if s.Type == "hash:net,iface" {
		s.doubtShorter(es)
	}
	var not []entry
	for _, e := range es {
		if e.noMatch {
			not = append(not, e)
		}
	}
	if len(not) == 0 {
		return
	}
	s.Set.Dynamic = true
	for i := range es {
		es[i].Expires = es[i].Expires || len(not)*len(es) > maxDoubts ||
			slices.ContainsFunc(not, func(x entry) bool { return s.meet(&es[i], &x) })
	}
}

// meet tells that two elements have a key in common.
func (s *IPSet) meet(a, b *entry) bool {
	at := 0
	for _, n := range s.Set.Concat {
		to := min(at+n, len(a.From), len(b.From))
		if bytes.Compare(a.To[at:to], b.From[at:to]) < 0 || bytes.Compare(b.To[at:to], a.From[at:to]) < 0 {
			return false
		}
		at = min(at+(n+3)&^3, len(a.From), len(b.From))
	}
	return true
}

func (s *IPSet) doubtShorter(es []entry) {
	n := s.addrLen()
	order := make([]int, len(es))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		if c := bytes.Compare(es[i].From[:n], es[j].From[:n]); c != 0 {
			return c
		}
		return es[i].bits - es[j].bits
	})
	work := 0
	var around []int // those whose prefix holds the one at hand
	for _, i := range order {
		around = slices.DeleteFunc(around, func(j int) bool { return bytes.Compare(es[j].To[:n], es[i].From[:n]) < 0 })
		if work += len(around); work > maxDoubts {
			for j := range es {
				es[j].Expires = true
			}
			return
		}
		for _, j := range around {
			if es[j].bits < es[i].bits && !bytes.Equal(es[j].From[n:], es[i].From[n:]) {
				es[j].Expires = true
			}
		}
		around = append(around, i)
	}
}

// carve cuts nested prefixes into disjoint intervals, each as its longest prefix
// says, and keeps those that match. Prefixes that expire make what they cover uncertain.
func carve(es []entry) []rs.Element {
	slices.SortStableFunc(es, func(a, b entry) int {
		if c := bytes.Compare(a.From, b.From); c != 0 {
			return c
		}
		return a.bits - b.bits
	})
	var out []rs.Element
	var stack []entry
	next := []byte(nil) // where the part that is not written yet begins
	flush := func(to []byte) {
		top := stack[len(stack)-1]
		if next == nil || bytes.Compare(next, to) > 0 {
			return
		}
		expires, match := top.Expires, !top.noMatch
		for k := len(stack) - 2; expires && k >= 0 && !match; k-- {
			match = !stack[k].noMatch // once the exception is gone, it matches
		}
		if match {
			out = append(out, rs.Element{From: bytes.Clone(next), To: bytes.Clone(to), Expires: expires})
		}
	}
	pop := func() {
		top := stack[len(stack)-1]
		flush(top.To)
		stack = stack[:len(stack)-1]
		next = after(top.To)
		if len(stack) == 0 {
			next = nil
		}
	}
	for _, e := range es {
		for len(stack) > 0 && bytes.Compare(stack[len(stack)-1].To, e.From) < 0 {
			pop()
		}
		if len(stack) > 0 && !bytes.Equal(e.From, next) {
			flush(before(e.From))
		}
		stack = append(stack, e)
		next = e.From
	}
	for len(stack) > 0 {
		pop()
	}
	return out
}

// after is key+1 in big-endian arithmetic; nil beyond the last key.
func after(key []byte) []byte {
	out := bytes.Clone(key)
	for i := len(out) - 1; i >= 0; i-- {
		out[i]++
		if out[i] != 0 {
			return out
		}
	}
	return nil
}

// Types lists what this package understands, for documentation and tests.
func Types() []string {
	out := []string{"list:set"}
	for t := range dimensions {
		out = append(out, t)
	}
	slices.SortFunc(out, strings.Compare)
	return out
}

// staysSeconds is how long an element of a set must have to live for its presence to be
// told as a fact: what is asked about a host is asked about the moment of its dump.
const staysSeconds = 60

// expires tells whether an entry is about to go: its timeout is in seconds, 0 for never.
func expires(a attrs) bool {
	b := a[ipsetTimeout]
	ok := b != nil
	if !ok || len(b) < 4 {
		return ok
	}
	left := binary.BigEndian.Uint32(b)
	return left != 0 && left < staysSeconds
}
