package oracle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// replay puts a recorded packet filter into the calling thread's namespace: the
// messages of the dump are sent back as requests, so that exactly the recorded
// bytes are what the kernel runs.
func replay(pf *fact.PacketFilter) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: 256 << 10})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := errors.Join(c.SetReadBuffer(64<<20), c.SetWriteBuffer(64<<20)); err != nil {
		return err
	}
	if msgs, ok := pf.Accounting.Get(); ok {
		for _, m := range msgs {
			if err := request(c, 7<<8, keepAttrs(m, 1)); err != nil { // NFNL_MSG_ACCT_NEW
				return fmt.Errorf("replay accounting object: %w", err)
			}
		}
	}
	if msgs, ok := pf.IPSets.Get(); ok {
		if err := replayIPSets(c, msgs); err != nil {
			return err
		}
	}
	if nft, ok := pf.NFTables.Get(); ok {
		if err := replayNFTables(c, nft); err != nil {
			return err
		}
	}
	if tables, ok := pf.Legacy.Get(); ok {
		for _, t := range tables {
			if err := replayLegacy(t); err != nil {
				return fmt.Errorf("replay legacy table %s %s: %w", t.Family, t.Name, err)
			}
		}
	}
	return nil
}

func request(c *netlink.Conn, typ uint16, data []byte) error {
	_, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | netlink.Acknowledge | netlink.Create}, Data: data,
	})
	return err
}

// attr is an attribute as it came, with its flags.
type attr struct {
	typ uint16
	b   []byte
}

func (a attr) kind() uint16 { return a.typ &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) }

func attrsOf(b []byte) []attr {
	var out []attr
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			break
		}
		out = append(out, attr{binary.NativeEndian.Uint16(b[2:]), b[4:n]})
		b = b[min((n+3)&^3, len(b)):]
	}
	return out
}

func appendAttr(b []byte, typ uint16, v []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(v)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, v...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func find(as []attr, kind uint16) []byte {
	for _, a := range as {
		if a.kind() == kind {
			return a.b
		}
	}
	return nil
}

// keepAttrs is a message (nfgenmsg and attributes) with these attributes only.
func keepAttrs(m []byte, kinds ...uint16) []byte {
	out := slices.Clone(m[:4])
	for _, a := range attrsOf(m[4:]) {
		if slices.Contains(kinds, a.kind()) {
			out = appendAttr(out, a.typ, a.b)
		}
	}
	return out
}

// dropAttrs is a message without these attributes.
func dropAttrs(m []byte, kinds ...uint16) []byte {
	out := slices.Clone(m[:4])
	for _, a := range attrsOf(m[4:]) {
		if !slices.Contains(kinds, a.kind()) {
			out = appendAttr(out, a.typ, a.b)
		}
	}
	return out
}

// replayNFTables sends everything in one transaction. Handles, use counts and
// positions are the kernel's to give.
func replayNFTables(c *netlink.Conn, n fact.NFTables) error {
	var batch []netlink.Message
	add := func(msg uint16, flags netlink.HeaderFlags, data []byte) {
		batch = append(batch, netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | msg), Flags: netlink.Request | netlink.Create | flags, Sequence: uint32(len(batch) + 1)}, Data: data,
		})
	}
	edge := func(typ uint16) {
		batch = append(batch, netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request, Sequence: uint32(len(batch) + 1)},
			Data:   []byte{unix.AF_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES},
		})
	}
	edge(unix.NFNL_MSG_BATCH_BEGIN)
	gen := func(m []byte) []byte { m = slices.Clone(m); m[2], m[3] = 0, 0; return m } // res_id
	for _, m := range n.Tables {
		add(unix.NFT_MSG_NEWTABLE, 0, gen(dropAttrs(m, unix.NFTA_TABLE_USE, 4, 7)))
	}
	for _, m := range n.Chains {
		add(unix.NFT_MSG_NEWCHAIN, 0, gen(dropAttrs(m, unix.NFTA_CHAIN_HANDLE, unix.NFTA_CHAIN_USE, 10)))
	}
	for _, m := range n.Objects {
		add(unix.NFT_MSG_NEWOBJ, 0, gen(dropAttrs(m, 5, 6)))
	}
	for i, m := range n.Sets {
		// What is left out is told by the kernel only: handle, kind of set and use.
		m = keepAttrs(m, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18)
		add(unix.NFT_MSG_NEWSET, 0, gen(appendAttr(m, unix.NFTA_SET_ID, binary.BigEndian.AppendUint32(nil, uint32(i+1)))))
	}
	for _, m := range elements(n.Elements) {
		add(unix.NFT_MSG_NEWSETELEM, 0, gen(m))
	}
	for _, m := range n.Rules {
		exprs := find(attrsOf(m[4:]), unix.NFTA_RULE_EXPRESSIONS)
		m = appendAttr(dropAttrs(m, unix.NFTA_RULE_HANDLE, unix.NFTA_RULE_POSITION, unix.NFTA_RULE_EXPRESSIONS), unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, writable(exprs))
		if proto, invert, ok := compat(exprs); ok {
			v := appendAttr(nil, 1, binary.BigEndian.AppendUint32(nil, uint32(proto)))
			flags := uint32(0)
			if invert {
				flags = 1 << 1 // NFT_RULE_COMPAT_F_INV
			}
			m = appendAttr(m, unix.NFTA_RULE_COMPAT|unix.NLA_F_NESTED, appendAttr(v, 2, binary.BigEndian.AppendUint32(nil, flags)))
		}
		add(unix.NFT_MSG_NEWRULE, netlink.Append, gen(m))
	}
	edge(unix.NFNL_MSG_BATCH_END)
	for i := range batch {
		if i > 0 && i < len(batch)-1 {
			batch[i].Header.Flags |= netlink.Acknowledge
		}
		batch[i].Header.Length = uint32(16 + (len(batch[i].Data)+3)&^3)
	}
	sent, err := c.SendMessages(batch)
	if err != nil {
		return fmt.Errorf("replay nf_tables: %w", err)
	}
	for done := 0; done < len(batch)-2; {
		msgs, err := c.Receive()
		if err != nil {
			return fmt.Errorf("replay nf_tables, after %d of %d messages: %w", done, len(sent), err)
		}
		done += len(msgs)
	}
	return nil
}

// elements joins and orders the elements of each set: the kernel lists intervals from
// the last to the first, and wants to be told of them the other way round.
func elements(msgs [][]byte) [][]byte {
	type list struct {
		head  []byte
		elems []attr
	}
	var order []string
	by := map[string]*list{}
	for _, m := range msgs {
		as := attrsOf(m[4:])
		key := string(m[:1]) + string(find(as, unix.NFTA_SET_ELEM_LIST_TABLE)) + string(find(as, unix.NFTA_SET_ELEM_LIST_SET))
		l := by[key]
		if l == nil {
			l = &list{head: keepAttrs(m, unix.NFTA_SET_ELEM_LIST_TABLE, unix.NFTA_SET_ELEM_LIST_SET)}
			by[key], order = l, append(order, key)
		}
		for _, a := range as {
			if a.kind() == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				l.elems = append(l.elems, attrsOf(a.b)...)
			}
		}
	}
	var out [][]byte
	for _, key := range order {
		l := by[key]
		slices.SortStableFunc(l.elems, func(a, b attr) int { return bytes.Compare(elementKey(a), elementKey(b)) })
		const most = 300 // a message holds 64 KiB
		for part := range slices.Chunk(l.elems, most) {
			var b []byte
			for i, a := range part {
				b = appendAttr(b, uint16(i+1)|unix.NLA_F_NESTED, a.b)
			}
			out = append(out, appendAttr(slices.Clone(l.head), unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, b))
		}
	}
	return out
}

// elementKey orders elements by key, an end before a start.
func elementKey(a attr) []byte {
	as := attrsOf(a.b)
	key := slices.Clone(find(attrsOf(find(as, unix.NFTA_SET_ELEM_KEY)), unix.NFTA_DATA_VALUE))
	start := byte(1)
	if f := find(as, unix.NFTA_SET_ELEM_FLAGS); len(f) == 4 && f[3]&1 != 0 {
		start = 0
	}
	return append(key, start)
}

// compat is the protocol that extensions of x_tables were checked with: the dump does
// not say it, the comparison before them does.
func compat(exprs []byte) (proto uint8, invert, ok bool) {
	l4 := false
	for _, e := range attrsOf(exprs) {
		as := attrsOf(e.b)
		name := string(bytes.TrimRight(find(as, unix.NFTA_EXPR_NAME), "\x00"))
		data := attrsOf(find(as, unix.NFTA_EXPR_DATA))
		switch name {
		case "meta":
			l4 = string(find(data, unix.NFTA_META_KEY)) == "\x00\x00\x00\x10" // NFT_META_L4PROTO
		case "payload": // IPv4 rules look at the header
			l4 = string(find(data, unix.NFTA_PAYLOAD_BASE)) == "\x00\x00\x00\x01" && string(find(data, unix.NFTA_PAYLOAD_OFFSET)) == "\x00\x00\x00\x09" && string(find(data, unix.NFTA_PAYLOAD_LEN)) == "\x00\x00\x00\x01"
		case "cmp":
			if v := find(attrsOf(find(data, unix.NFTA_CMP_DATA)), unix.NFTA_DATA_VALUE); l4 && len(v) == 1 && proto == 0 {
				proto, invert = v[0], string(find(data, unix.NFTA_CMP_OP)) == "\x00\x00\x00\x01"
			}
			l4 = false
		case "match", "target":
			ok = true
		}
	}
	return proto, invert, ok
}

// writable takes out of expressions what the kernel tells and does not want to hear:
// the flags of an exthdr that writes.
func writable(exprs []byte) []byte {
	const sreg = 7 // NFTA_EXTHDR_SREG
	var out []byte
	for _, e := range attrsOf(exprs) {
		as := attrsOf(e.b)
		data := attrsOf(find(as, unix.NFTA_EXPR_DATA))
		if string(bytes.TrimRight(find(as, unix.NFTA_EXPR_NAME), "\x00")) == "exthdr" && find(data, sreg) != nil {
			var kept []byte
			for _, a := range data {
				if a.kind() != unix.NFTA_EXTHDR_FLAGS {
					kept = appendAttr(kept, a.typ, a.b)
				}
			}
			e.b = appendAttr(appendAttr(nil, unix.NFTA_EXPR_NAME, []byte("exthdr\x00")), unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, kept)
		}
		out = appendAttr(out, e.typ, e.b)
	}
	return out
}

// IPSET_ATTR_* that a set is made with, and those that only the listing has.
var ipsetCreate = []uint16{1, 2, 3, 4, 5, 6, 8, 17, 18, 19, 20}

// replayIPSets makes the sets in the order of their numbers, by which rules name them.
func replayIPSets(c *netlink.Conn, msgs [][]byte) error {
	const create, add = 2, 9
	next := uint16(0)
	type set struct {
		name    []byte
		index   uint16
		message []byte
		data    []attr
		adt     []attr
	}
	var sets []*set
	by := map[string]*set{}
	for _, m := range msgs {
		as := attrsOf(m[4:])
		name := find(as, 2)
		s := by[string(name)]
		if s == nil {
			s = &set{name: name, message: m}
			by[string(name)], sets = s, append(sets, s)
		}
		if i := find(as, 11); len(i) == 2 {
			s.index = binary.BigEndian.Uint16(i)
		}
		if d := find(as, 7); d != nil && s.data == nil {
			s.data, s.message = attrsOf(d), m
		}
		s.adt = append(s.adt, attrsOf(find(as, 8))...)
	}
	slices.SortFunc(sets, func(a, b *set) int { return int(a.index) - int(b.index) })
	for _, s := range sets {
		for ; next < s.index; next++ { // a number that is not in use any more
			if err := ipsetFill(c, next); err != nil {
				return err
			}
		}
		next++
		req := keepAttrs(s.message, 1, 2, 3, 4, 5)
		req[0] = unix.AF_INET
		var data []byte
		for _, a := range s.data {
			if slices.Contains(ipsetCreate, a.kind()) {
				data = appendAttr(data, a.typ, a.b)
			}
		}
		if err := request(c, 6<<8|create, appendAttr(req, 7|unix.NLA_F_NESTED, data)); err != nil {
			return fmt.Errorf("replay ipset %s: %w", s.name, err)
		}
		for _, e := range s.adt {
			var one []byte
			for _, a := range attrsOf(e.b) {
				if k := a.kind(); k == 1 || k == 2 || k == 20 || k == 22 { // addresses come without the flag that they need
					var addr []byte
					for _, x := range attrsOf(a.b) {
						addr = appendAttr(addr, x.typ|unix.NLA_F_NET_BYTEORDER, x.b)
					}
					a.b = addr
				}
				one = appendAttr(one, a.typ, a.b)
			}
			req := keepAttrs(s.message, 1, 2)
			one = appendAttr(one, 9|unix.NLA_F_NET_BYTEORDER, make([]byte, 4)) // line number
			if err := request(c, 6<<8|add, appendAttr(req, 7|unix.NLA_F_NESTED, one)); err != nil {
				return fmt.Errorf("replay element of ipset %s: %w", s.name, err)
			}
		}
	}
	return nil
}

func ipsetFill(c *netlink.Conn, i uint16) error {
	b := []byte{unix.AF_INET, 0, 0, 0}
	b = appendAttr(b, 1, []byte{6})
	b = appendAttr(b, 2, []byte(fmt.Sprintf("fill%d\x00", i)))
	b = appendAttr(b, 3, []byte("hash:ip\x00"))
	b = appendAttr(b, 4, []byte{0})
	b = appendAttr(b, 5, []byte{unix.AF_INET})
	return request(c, 6<<8|2, appendAttr(b, 7|unix.NLA_F_NESTED, nil))
}

// replayLegacy replaces a table of x_tables by its recorded bytes (struct ipt_replace).
func replayLegacy(t fact.LegacyTable) error {
	blob, ok := t.Blob.Get()
	if !ok {
		return errors.New("it was not read")
	}
	domain, level := unix.AF_INET, unix.SOL_IP
	if t.Family == "ipv6" {
		domain, level = unix.AF_INET6, unix.SOL_IPV6
	}
	const replace, info = 64, 64 // IPT_SO_SET_REPLACE, IPT_SO_GET_INFO
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	get := make([]byte, 84)
	copy(get, t.Name)
	n := uint32(len(get))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), info, uintptr(unsafe.Pointer(&get[0])), uintptr(unsafe.Pointer(&n)), 0); errno != 0 {
		return fmt.Errorf("make it: %w", errno)
	}
	old := binary.NativeEndian.Uint32(get[len(get)-8:]) // num_entries
	counters := make([]byte, 16*int(old)+16)
	b := make([]byte, 32, 96+len(blob))
	copy(b, t.Name)
	word := func(v uint32) { b = binary.NativeEndian.AppendUint32(b, v) }
	word(t.Hooks)
	word(t.Entries)
	word(uint32(len(blob)))
	for _, l := range [][]uint32{t.HookEntry, t.Underflow} {
		for _, v := range l {
			word(v)
		}
	}
	word(old)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	b = binary.NativeEndian.AppendUint64(b, uint64(uintptr(unsafe.Pointer(&counters[0]))))
	b = append(b, blob...)
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), replace, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0)
	if errno != 0 {
		return errno
	}
	_ = counters[0]
	return nil
}
