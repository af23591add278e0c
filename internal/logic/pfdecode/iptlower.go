package pfdecode

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	rs "github.com/sixfence/sixfence/internal/model/ruleset"
)

// generic reads an option that every rule can have.
func (r *ruleText) generic(g, name string, not bool, w *wordReader) error {
	count := map[string]int{"-f": 0, "-4": 0, "-6": 0, "-c": 2}
	n, ok := count[g]
	if !ok {
		n = 1
	}
	v, err := r.values(name, n, &not, w)
	if err != nil {
		return err
	}
	bad := func(err error) error {
		if err == nil {
			return nil
		}
		return r.b.fail(strings.Join(v, " "), name+": "+err.Error(), restoreHint)
	}
	if not && slices.Contains([]string{"-m", "-j", "-g", "-c", "-4", "-6"}, g) {
		return r.b.fail("! "+name, "this option cannot be negated", restoreHint)
	}
	invert := func(bit uint8) {
		if not {
			r.inv |= bit
		}
	}
	switch g {
	case "-p":
		invert(invProto)
		r.proto, err = protoNumber(v[0])
		r.hasProto = true
		if err == nil && r.proto == 0 && not {
			err = fmt.Errorf("no packet has another protocol than all of them")
		}
		return bad(err)
	case "-s":
		invert(invSrc)
		r.srcs, err = r.addresses(v[0], not)
		return bad(err)
	case "-d":
		invert(invDst)
		r.dsts, err = r.addresses(v[0], not)
		return bad(err)
	case "-i":
		invert(invIn)
		r.iif, err = ifaceName(v[0])
		return bad(err)
	case "-o":
		invert(invOut)
		r.oif, err = ifaceName(v[0])
		return bad(err)
	case "-f":
		if !r.x.is4() {
			return r.b.fail(name, "ip6tables has no such option", "use -m frag")
		}
		r.fragments = !not
		invert(invFrag)
	case "-c":
		for _, c := range v {
			if _, err := strconv.ParseUint(c, 10, 64); err != nil {
				return bad(fmt.Errorf("no number of packets or bytes"))
			}
		}
	case "-m":
		return r.match(v[0])
	case "-j", "-g":
		return r.jump(v[0], g == "-g")
	}
	return nil
}

func (r *ruleText) match(name string) error {
	switch name {
	case "icmpv6", "ipv6-icmp":
		name = "icmp6"
	case "state": // since Linux 2.6.38 another name of it
		name = "conntrack"
	}
	s := matchSyntax[name]
	if s == nil {
		s = &extSyntax{unknown: true}
	}
	if s.only != 0 && s.only != r.x.family {
		return r.b.fail(name, "this match is not for "+familyText(r.x.family), "put it among the rules of the other family")
	}
	e := r.newExt(s, name)
	r.exts = append(r.exts, e)
	r.last = e
	return nil
}

func familyText(f rs.Family) string {
	if f == rs.IPv4 {
		return "IPv4"
	}
	return "IPv6"
}

func (r *ruleText) jump(name string, isGoto bool) error {
	if r.standard != "" {
		return r.b.fail(name, "the rule has a target already", "split it into two rules")
	}
	r.standard, r.isGoto = name, isGoto
	switch name {
	case "", "-":
		return r.b.fail(name, "no name of a target", restoreHint)
	case "ACCEPT", "DROP", "RETURN", "QUEUE":
		if isGoto {
			return r.b.fail(name, "-g takes a chain", "write -j "+name)
		}
		return nil
	}
	if isGoto || r.b.chains[name] != nil {
		return nil
	}
	s := targetSyntax[name]
	if s == nil {
		s = &extSyntax{unknown: true}
	}
	if s.only != 0 && s.only != r.x.family {
		return r.b.fail(name, "this target is not for "+familyText(r.x.family), "put it among the rules of the other family")
	}
	if s.tables != "" && !strings.Contains(s.tables, r.b.t.Name) {
		return r.b.fail(name, "this target is not for table "+r.b.t.Name, "it stands in table "+s.tables)
	}
	r.target = r.newExt(s, name)
	r.last = r.target
	return nil
}

// check tells what the kernel would refuse because of the protocol.
func (r *ruleText) check() error {
	for _, e := range append(slices.Clone(r.exts), r.target) {
		if e == nil {
			continue
		}
		if e.done != nil {
			if err := e.done(e); err != nil {
				return r.b.fail(e.name, err.Error(), restoreHint)
			}
		}
		protos := e.protos
		if e.needs != nil {
			protos = e.needs(e)
		}
		if len(protos) > 0 && (!r.hasProto || r.inv&invProto != 0 || !slices.Contains(protos, r.proto)) {
			var names []string
			for _, p := range protos {
				names = append(names, "-p "+protoWord(p))
			}
			return r.b.fail(e.name, "it needs "+strings.Join(names, " or ")+" in the same rule", "without it the kernel refuses the rule")
		}
	}
	return nil
}

// lower says the rule in expressions, through the bytes of the kernel's structures.
func (r *ruleText) lower(c *rs.Chain, text string) ([]*rs.Rule, error) {
	if len(r.srcs)*len(r.dsts) > maxExpanded {
		return nil, r.b.fail("", "too many addresses", "use an ipset")
	}
	var out []*rs.Rule
	for _, src := range r.srcs {
		for _, dst := range r.dsts {
			x := &rs.Rule{Chain: c, Text: text, Exprs: r.b.legacy.header(r.entry(src, dst))}
			for _, e := range r.exts {
				if e.name == "comment" {
					x.Comment = cstring(e.b)
				}
				x.Exprs = append(x.Exprs, r.lowerExt(e, false)...)
			}
			r.conclude(x)
			out = append(out, x)
		}
	}
	return out, nil
}

func (r *ruleText) lowerExt(e *textExt, target bool) []rs.Expr {
	kind := "match "
	if target {
		kind = "target "
	}
	if e.opaque != "" { // what lowers an extension that nobody knows does the rest
		out := r.x.apply2(target, e.name, unknownRevision)
		o := out[0].(rs.Opaque)
		o.Name = kind + e.name + " (" + e.opaque + ")"
		out[0] = o
		return out
	}
	if e.exprs != nil {
		return e.exprs
	}
	if target {
		return r.x.target(e.name, e.rev, e.b)
	}
	out := r.x.match(e.name, e.rev, e.b)
	if r.x.table.Source == rs.NFTables && (e.name == "tcp" || e.name == "udp") {
		// Some versions of iptables-nft say these in nf_tables' own expressions, which do
		// not look whether a later fragment has a transport header.
		for i := range out {
			if p, ok := out[i].(rs.Payload); ok {
				p.Checked = false
				out[i] = p
			}
		}
	}
	return out
}

// unknownRevision is one that no extension has.
const unknownRevision = 1 << 16

func (x *xtable) apply2(target bool, name string, rev uint32) []rs.Expr {
	if target {
		return x.target(name, rev, nil)
	}
	return x.match(name, rev, nil)
}

func (r *ruleText) conclude(x *rs.Rule) {
	verdicts := map[string]rs.Verdict{"ACCEPT": rs.Accept, "DROP": rs.Drop, "RETURN": rs.Return}
	switch v, ok := verdicts[r.standard]; {
	case r.standard == "":
	case ok:
		x.Exprs = append(x.Exprs, rs.Conclude{Verdict: v})
	case r.standard == "QUEUE":
		x.Exprs = append(x.Exprs, rs.ToQueue{})
	case r.target != nil && !r.target.unknown:
		x.Exprs = append(x.Exprs, r.lowerExt(r.target, true)...)
	default: // a chain, perhaps of a later line
		r.b.jumps = append(r.b.jumps, pendingJump{x, r.b.n, r.target, r.standard, r.isGoto})
	}
}

// entry is a struct ipt_entry or ip6t_entry.
func (r *ruleText) entry(src, dst textAddr) []byte {
	l := r.b.legacy.l
	b := make([]byte, l.smallest)
	n := l.addr
	copy(b, src.addr)
	copy(b[n:], dst.addr)
	copy(b[2*n:], src.mask)
	copy(b[3*n:], dst.mask)
	copy(b[l.ifaces:], r.iif.name[:])
	copy(b[l.ifaces+16:], r.oif.name[:])
	copy(b[l.ifaces+32:], r.iif.mask[:])
	copy(b[l.ifaces+48:], r.oif.mask[:])
	if r.hasProto {
		r.x.order.PutUint16(b[l.proto:], uint16(r.proto))
	}
	if !r.x.is4() && r.hasProto && r.proto != 0 {
		b[l.flags] |= ip6HasProto
	}
	if r.fragments || r.inv&invFrag != 0 {
		b[l.flags] |= ipFragment
	}
	b[l.flags+1] = r.inv
	return b
}

func ifaceName(s string) (textIface, error) {
	var f textIface
	switch {
	case len(s) > 15:
		return f, fmt.Errorf("no interface has a name of more than 15 characters")
	case s == "" || strings.ContainsAny(s, " /!"):
		return f, fmt.Errorf("no name of an interface")
	}
	copy(f.name[:], s)
	n := len(s) + 1
	if strings.HasSuffix(s, "+") {
		n = len(s) - 1
	}
	for i := range n {
		f.mask[i] = 0xff
	}
	return f, nil
}

// addresses reads "ADDRESS[/MASK],…".
func (r *ruleText) addresses(s string, not bool) ([]textAddr, error) {
	list := strings.Split(s, ",")
	if not && len(list) > 1 {
		return nil, fmt.Errorf("a negated list of addresses is not possible")
	}
	var out []textAddr
	for _, a := range list {
		x, err := r.x.address(strings.TrimSpace(a))
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// address reads an address with a mask, the way the families' tools do.
func (x *xtable) address(s string) (textAddr, error) {
	host, bits, hasMask := strings.Cut(s, "/")
	addr, err := x.host(host, true)
	if err != nil {
		return textAddr{}, err
	}
	n := x.addrLen()
	mask := make([]byte, n)
	switch l, err := strconv.ParseUint(bits, 10, 16); {
	case !hasMask:
		l = uint64(8 * n)
		fallthrough
	case err == nil && int(l) <= 8*n:
		_, mask = prefixRange(mask, 0)
		for i := int(l); i < 8*n; i++ {
			mask[i/8] &^= 0x80 >> (i % 8)
		}
	default:
		if mask, err = x.host(bits, false); err != nil {
			return textAddr{}, fmt.Errorf("no mask: %q", bits)
		}
	}
	for i := range addr {
		addr[i] &= mask[i]
	}
	return textAddr{addr, mask}, nil
}

// host reads an address; for IPv4 the missing end of a network is zero, and a number may be hexadecimal or octal.
func (x *xtable) host(s string, network bool) ([]byte, error) {
	if !x.is4() {
		a, err := netip.ParseAddr(s)
		if err != nil || !a.Is6() || a.Zone() != "" {
			return nil, x.noAddress(s)
		}
		b := a.As16()
		return b[:], nil
	}
	parts := strings.Split(s, ".")
	if len(parts) > 4 || len(parts) < 4 && !network {
		return nil, x.noAddress(s)
	}
	out := make([]byte, 4)
	for i, p := range parts {
		v, err := number(p, 8)
		if err != nil {
			return nil, x.noAddress(s)
		}
		out[i] = byte(v)
	}
	return out, nil
}

func (x *xtable) noAddress(s string) error {
	if _, err := netip.ParseAddr(s); err == nil {
		return fmt.Errorf("%s is no %s address", s, familyText(x.family))
	}
	if s != "" && strings.Trim(s, "0123456789.:/abcdefABCDEF") != "" {
		return fmt.Errorf("%q is a name: what it resolves to is not in the file", s)
	}
	return fmt.Errorf("%q is no address", s)
}

// number reads a number as strtoul does, with its base told by its beginning.
func number(s string, bits int) (uint64, error) {
	digits, base := s, 10
	switch {
	case strings.HasPrefix(s, "0x"), strings.HasPrefix(s, "0X"):
		digits, base = s[2:], 16
	case len(s) > 1 && s[0] == '0':
		digits, base = s[1:], 8
	}
	v, err := strconv.ParseUint(digits, base, bits)
	if err != nil {
		return 0, fmt.Errorf("%q is no number below %d", s, uint64(1)<<min(bits, 63))
	}
	return v, nil
}
