package pfdecode

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/sixfence/sixfence/internal/model/fact"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// A legacy table is one block of entries (struct ipt_entry, struct ip6t_entry), each
// a header, matches and a target, behind each other. Chains are not in it: a
// built-in chain begins at hook_entry and ends with its policy at underflow, a chain
// of the user begins behind an entry with the target ERROR, which holds its name,
// and a jump is an offset into the block.

// entryLayout is where the parts of an entry are.
type entryLayout struct {
	family   rs.Family
	addr     int // bytes of an address
	ifaces   int // iniface, outiface, iniface_mask, outiface_mask
	proto    int
	flags    int // invflags follow
	offsets  int // target_offset, next_offset
	smallest int // sizeof(struct ip6t_entry) where 64-bit numbers are aligned to 4
	gotoFlag uint8
}

var (
	layout4 = entryLayout{family: rs.IPv4, addr: 4, ifaces: 16, proto: 80, flags: 82, offsets: 88, smallest: 112, gotoFlag: 2}
	layout6 = entryLayout{family: rs.IPv6, addr: 16, ifaces: 64, proto: 128, flags: 131, offsets: 140, smallest: 164, gotoFlag: 4}
)

// Flags of struct ipt_ip and struct ip6t_ip6.
const (
	ipFragment  = 1 // IPT_F_FRAG
	ip6HasProto = 1 // IP6T_F_PROTO
	invIn       = 1
	invOut      = 2
	invSrc      = 8
	invDst      = 16
	invFrag     = 32
	invProto    = 64
	entryHeader = 32 // struct xt_entry_match, struct xt_entry_target
	extNameLen  = 29
	maxChains   = 65536
)

// hookPriority is the priority of a legacy table on a hook
// (include/uapi/linux/netfilter_ipv4.h, net/ipv4/netfilter/iptable_*.c).
func hookPriority(table string, h rs.Hook) (int32, bool) {
	switch table {
	case "raw":
		return -300, true
	case "mangle":
		return -150, true
	case "nat":
		if h == rs.Prerouting || h == rs.Output {
			return -100, true
		}
		return 100, true
	case "filter":
		return 0, true
	case "security":
		return 50, true
	}
	return 0, false
}

var builtin = map[rs.Hook]string{
	rs.Prerouting: "PREROUTING", rs.Input: "INPUT", rs.Forward: "FORWARD", rs.Output: "OUTPUT", rs.Postrouting: "POSTROUTING",
}

// Legacy decodes a table of ip_tables or ip6_tables. arp_tables filter no IP and give
// no table (nil).
func Legacy(t fact.LegacyTable, order binary.ByteOrder, sets *IPSets) (*rs.Table, error) {
	l := layout4
	switch t.Family {
	case "ipv4":
	case "ipv6":
		l = layout6
	case "arp":
		return nil, nil
	default:
		return nil, fmt.Errorf("decode legacy table %s: unknown family %q", t.Name, t.Family)
	}
	b, ok := t.Blob.Get()
	if !ok {
		return nil, fmt.Errorf("decode legacy table %s %s: it was not read", t.Family, t.Name)
	}
	out := &rs.Table{
		Family: l.family, Name: t.Name, Source: rs.XTables, Sets: map[string]*rs.Set{}, Objects: map[string]*rs.Object{},
	}
	d := &legacyDecoder{l: l, b: b, order: order, t: out, x: &xtable{order: order, family: l.family, table: out, sets: sets}}
	if err := d.decode(t); err != nil {
		return nil, fmt.Errorf("decode legacy table %s %s: %w", t.Family, t.Name, err)
	}
	return out, nil
}

type legacyDecoder struct {
	l       entryLayout
	b       []byte
	order   binary.ByteOrder
	t       *rs.Table
	x       *xtable
	size    int               // of an entry's header
	entries []legacyEntry     // in order
	chains  map[int]*rs.Chain // by the offset they begin at
	policy  map[int]*rs.Chain // base chains by the offset of their underflow
}

type legacyEntry struct {
	off, next int
	b         []byte // the whole entry
	target    int    // offset of the target in b
	name      string // of the target
	revision  uint32
	info      []byte // of the target
}

func (d *legacyDecoder) decode(t fact.LegacyTable) error {
	if err := d.split(); err != nil {
		return err
	}
	if err := d.heads(t); err != nil {
		return err
	}
	var chain *rs.Chain
	for i := range d.entries {
		e := &d.entries[i]
		if c := d.chains[e.off]; c != nil {
			chain = c
		}
		if c := d.policy[e.off]; c != nil {
			v, ok := d.verdict(e)
			if !ok || c != chain || v != rs.Accept && v != rs.Drop {
				return fmt.Errorf("chain %s has no policy", c.Name)
			}
			c.Base.Policy = v
			chain = nil
			continue
		}
		if e.name == "ERROR" {
			chain = nil // the next chain, or the end
			continue
		}
		if chain == nil {
			return fmt.Errorf("entry at %d is in no chain", e.off)
		}
		if err := d.rule(chain, e, i); err != nil {
			return fmt.Errorf("chain %s rule %d: %w", chain.Name, len(chain.Rules)+1, err)
		}
	}
	return nil
}

// split finds the entries. The last one is an ERROR without matches, which tells
// how large a header is on that host.
func (d *legacyDecoder) split() error {
	for off := 0; off < len(d.b); {
		rest := d.b[off:]
		if len(rest) < d.l.smallest+entryHeader {
			return fmt.Errorf("entry at %d is cut off", off)
		}
		target, next := int(d.order.Uint16(rest[d.l.offsets:])), int(d.order.Uint16(rest[d.l.offsets+2:]))
		if target < d.l.smallest || target+entryHeader > next || next > len(rest) {
			return fmt.Errorf("entry at %d: target at %d, next entry at %d of %d", off, target, next, len(rest))
		}
		e := legacyEntry{off: off, next: off + next, b: rest[:next], target: target}
		h := e.b[target:]
		n := int(d.order.Uint16(h))
		if n < entryHeader || target+n > next {
			return fmt.Errorf("entry at %d: target of %d bytes", off, n)
		}
		e.name, e.revision, e.info = cstring(h[2:2+extNameLen]), uint32(h[31]), h[entryHeader:n]
		d.entries = append(d.entries, e)
		off += next
	}
	if len(d.entries) == 0 || d.entries[len(d.entries)-1].name != "ERROR" {
		return fmt.Errorf("no end")
	}
	if d.size = d.entries[len(d.entries)-1].target; d.size > d.l.smallest+4 {
		return fmt.Errorf("header of %d bytes", d.size)
	}
	return nil
}

// heads finds the chains.
func (d *legacyDecoder) heads(t fact.LegacyTable) error {
	d.chains, d.policy = map[int]*rs.Chain{}, map[int]*rs.Chain{}
	starts, names := map[int]bool{}, map[string]bool{}
	for _, e := range d.entries {
		starts[e.off] = true
	}
	add := func(off int, c *rs.Chain) error {
		if !starts[off] || d.chains[off] != nil || len(d.chains) >= maxChains {
			return fmt.Errorf("chain %q begins at %d, where no chain can", c.Name, off)
		}
		if names[c.Name] {
			return fmt.Errorf("chain %q twice", c.Name)
		}
		d.chains[off], names[c.Name] = c, true
		d.t.Chains = append(d.t.Chains, c)
		return nil
	}
	for h := range rs.Hook(5) {
		if t.Hooks>>h&1 == 0 {
			continue
		}
		if int(h) >= len(t.HookEntry) || int(h) >= len(t.Underflow) {
			return fmt.Errorf("the Snapshot does not say where its chains begin")
		}
		c, ok := baseChain(d.t, h)
		if !ok {
			return fmt.Errorf("unknown table")
		}
		if err := add(int(t.HookEntry[h]), c); err != nil {
			return err
		}
		end := int(t.Underflow[h])
		if !starts[end] || d.policy[end] != nil {
			return fmt.Errorf("chain %s ends at %d", c.Name, end)
		}
		d.policy[end] = c
	}
	for _, e := range d.entries[:len(d.entries)-1] {
		if e.name != "ERROR" {
			continue
		}
		if err := add(e.next, &rs.Chain{Table: d.t, Name: cstring(e.info)}); err != nil {
			return err
		}
	}
	return nil
}

// verdict reads a standard target that ends the packet's way.
func (d *legacyDecoder) verdict(e *legacyEntry) (rs.Verdict, bool) {
	if e.name != "" || len(e.info) < 4 {
		return 0, false
	}
	v := int32(d.order.Uint32(e.info))
	switch v {
	case -5: // XT_RETURN
		return rs.Return, true
	case -1, -2, -4: // -NF_DROP - 1, -NF_ACCEPT - 1, -NF_QUEUE - 1
		return rs.Verdict(-v - 1), true
	}
	return 0, false
}

func (d *legacyDecoder) rule(c *rs.Chain, e *legacyEntry, i int) error {
	r := &rs.Rule{Chain: c, Index: len(c.Rules) + 1, Exprs: d.header(e.b)}
	for off := d.size; off < e.target; {
		h := e.b[off:e.target]
		if len(h) < entryHeader {
			return fmt.Errorf("match is cut off")
		}
		n := int(d.order.Uint16(h))
		if n < entryHeader || n > len(h) {
			return fmt.Errorf("match of %d bytes", n)
		}
		name := cstring(h[2 : 2+extNameLen])
		if name == "comment" {
			r.Comment = cstring(h[entryHeader:n])
		}
		r.Exprs = append(r.Exprs, d.x.match(name, uint32(h[31]), h[entryHeader:n])...)
		off += n
	}
	end, last, err := d.conclusion(e, i)
	if err != nil {
		return err
	}
	if last && len(r.Exprs) == 0 && d.closes(i) {
		return nil // the end of a user's chain, which no rule set
	}
	r.Exprs = append(r.Exprs, end...)
	c.Rules = append(c.Rules, r)
	return nil
}

// closes tells that an entry is the last of its chain.
func (d *legacyDecoder) closes(i int) bool {
	return i+1 < len(d.entries) && d.entries[i+1].name == "ERROR"
}

// conclusion is the target; last tells that it is a plain return.
func (d *legacyDecoder) conclusion(e *legacyEntry, i int) (end []rs.Expr, last bool, err error) {
	if e.name != "" {
		return d.x.target(e.name, e.revision, e.info), false, nil
	}
	if len(e.info) < 4 {
		return nil, false, fmt.Errorf("standard target of %d bytes", len(e.info))
	}
	if v, ok := d.verdict(e); ok {
		if v == rs.Queue {
			return one(rs.ToQueue{}), false, nil
		}
		return one(rs.Conclude{Verdict: v}), v == rs.Return, nil
	}
	v := int32(d.order.Uint32(e.info))
	if v < 0 {
		return nil, false, fmt.Errorf("verdict %d", v)
	}
	if int(v) == e.next {
		return nil, false, nil // no target: the rule only counts
	}
	t := d.chains[int(v)]
	if t == nil || t.Base != nil {
		return nil, false, fmt.Errorf("jump to %d, where no chain begins", v)
	}
	jump := rs.Conclude{Verdict: rs.Jump, Chain: t.Name}
	if e.b[d.l.flags]&d.l.gotoFlag != 0 {
		jump.Verdict = rs.Goto
	}
	return one(jump), false, nil
}

// header is ip_packet_match and ip6_packet_match.
func (d *legacyDecoder) header(b []byte) []rs.Expr {
	flags, inv := b[d.l.flags], b[d.l.flags+1]
	var out []rs.Expr
	n := d.l.addr
	for k, bit := range []uint8{invSrc, invDst} {
		want, mask := b[k*n:(k+1)*n], b[(2+k)*n:(3+k)*n]
		not := inv&bit != 0
		if bytes.Count(mask, []byte{0}) == n && bytes.Equal(mask, want) {
			if not {
				out = append(out, broken)
			}
			continue
		}
		want, mask = bytes.Clone(want), bytes.Clone(mask)
		if n == 16 { // ipv6_masked_addr_cmp; IPv4's only masks the packet's address
			under(want, mask)
		}
		out = append(out, masked(d.x.addr(k == 1), want, mask, not)...)
	}
	for k, bit := range []uint8{invIn, invOut} {
		name, mask := b[d.l.ifaces+16*k:][:16], b[d.l.ifaces+32+16*k:][:16]
		out = append(out, ifaceMatch(uint32(metaIIFName+k), name, mask, inv&bit != 0)...)
	}
	proto := d.order.Uint16(b[d.l.proto:])
	not := inv&invProto != 0
	switch {
	case d.l.family == rs.IPv4 && proto != 0, d.l.family == rs.IPv6 && flags&ip6HasProto != 0:
		switch {
		case proto > 255 && !not:
			out = append(out, broken)
		case proto == 0 && !not: // "-p all", which for IPv6 is "any header but none"
			out = append(out, meta32(metaL4Proto))
		case proto <= 255:
			out = append(out, meta32(metaL4Proto), is([]byte{byte(proto)}, not))
		}
	}
	if d.l.family == rs.IPv4 {
		switch {
		case flags&ipFragment != 0:
			out = append(out, net(6, 2), and([]byte{0x1f, 0xff}), is([]byte{0, 0}, inv&invFrag == 0))
		case inv&invFrag != 0:
			out = append(out, broken)
		}
	}
	return out
}

// ifaceMatch compares a name under a mask, as bytes.
func ifaceMatch(key uint32, name, mask []byte, not bool) []rs.Expr {
	n := 0
	for n < 16 && mask[n] == 0xff {
		n++
	}
	switch {
	case bytes.Count(mask[n:], []byte{0}) != len(mask)-n:
		return masked(meta32(key), bytes.Clone(name), bytes.Clone(mask), not)
	case n == 0 && not:
		return one(broken)
	case n == 0:
		return nil
	}
	return []rs.Expr{meta32(key), is(bytes.Clone(name[:n]), not)}
}
