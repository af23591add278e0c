package arena

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// What the kernel tells of an object and does not want to be told: handles, places,
// numbers of users.
var (
	tableNot   = []uint16{unix.NFTA_TABLE_USE, nftaTableHandle, nftaTableOwner, unix.NFTA_TABLE_FLAGS}
	chainNot   = []uint16{unix.NFTA_CHAIN_HANDLE, unix.NFTA_CHAIN_USE, unix.NFTA_CHAIN_COUNTERS}
	ruleNot    = []uint16{unix.NFTA_RULE_HANDLE, unix.NFTA_RULE_POSITION}
	setNot     = []uint16{nftaSetHandle, nftaSetCount, nftaSetType}
	objectNot  = []uint16{unix.NFTA_OBJ_USE, nftaObjHandle}
	elementNot = []uint16{unix.NFTA_SET_ELEM_EXPIRATION}
)

// Attributes that golang.org/x/sys does not name.
const (
	nftaTableHandle = 4
	nftaTableOwner  = 7
	nftaSetHandle   = 16
	nftaSetType     = 19 // from Linux 6.16
	nftaSetCount    = 20
	nftaObjHandle   = 6
	nftaChainFlags  = 10
	nftChainBinding = 4
)

// owner is the family and name of the table that a message belongs to.
func owner(m []byte) string {
	if len(m) < 4 {
		return ""
	}
	return string(m[:1]) + cstring(value(nested(m[4:]), 1)) // the name of the table is the first attribute of all of them
}

func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

var families = map[byte]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_NETDEV: "netdev", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_ARP: "arp"}

// TableName is a table of nf_tables in words, from any message about it.
func TableName(m []byte) string {
	if id := owner(m); id != "" {
		return "table " + families[id[0]] + " " + id[1:]
	}
	return ""
}

// tables loads those of nf_tables.
func tables(t *fact.NFTables) (out []Refused) {
	for _, m := range t.Tables {
		id := owner(m)
		if id == "" {
			continue
		}
		if err := table(t, id, m); err != nil {
			out = append(out, Refused{TableName(m), err.Error()})
		}
	}
	return out
}

// part is about how many bytes of messages go into one transaction: without rights over
// the machine a socket takes no more than net.core.wmem_max.
const part = 96 << 10

// table loads one, in parts. What has no name of its own (an anonymous set, the chain of
// jump { … }) has to live before somebody refers to it, and so gets the name that it has
// as one of its own.
func table(t *fact.NFTables, id string, m []byte) error {
	var batch []netlink.Message
	add := func(typ uint16, flags netlink.HeaderFlags, list [][]byte, f func(n int, b []byte) []byte) {
		for n, x := range list {
			if owner(x) != id {
				continue
			}
			if b := f(n, slices.Clone(x[4:])); b != nil {
				batch = append(batch, message(typ, flags, x[0], b))
			}
		}
	}
	// named takes a flag away that says that something lives with who refers to it.
	named := func(b []byte, typ uint16, flag uint32) []byte {
		if v := value(nested(b), typ); number(v)&flag != 0 {
			return attribute(without(b, []uint16{typ}), typ, binary.BigEndian.AppendUint32(nil, number(v)&^flag))
		}
		return b
	}
	// A table that is asleep stays so; that somebody owns it would end it with our socket.
	b := without(m[4:], tableNot)
	b = attribute(b, unix.NFTA_TABLE_FLAGS, binary.BigEndian.AppendUint32(nil, number(value(nested(m[4:]), unix.NFTA_TABLE_FLAGS))&unix.NFT_TABLE_F_DORMANT))
	batch = append(batch, message(unix.NFT_MSG_NEWTABLE, netlink.Create, m[0], b))
	add(unix.NFT_MSG_NEWCHAIN, netlink.Create, t.Chains, func(_ int, b []byte) []byte {
		return named(without(b, chainNot), nftaChainFlags, nftChainBinding)
	})
	add(unix.NFT_MSG_NEWSET, netlink.Create, t.Sets, func(n int, b []byte) []byte {
		b = attribute(without(b, setNot), unix.NFTA_SET_ID, binary.BigEndian.AppendUint32(nil, uint32(n+1)))
		return named(b, unix.NFTA_SET_FLAGS, unix.NFT_SET_ANONYMOUS)
	})
	add(unix.NFT_MSG_NEWOBJ, netlink.Create, t.Objects, func(_ int, b []byte) []byte { return without(b, objectNot) })
	add(unix.NFT_MSG_NEWSETELEM, netlink.Create, t.Elements, func(_ int, b []byte) []byte {
		if len(value(nested(b), unix.NFTA_SET_ELEM_LIST_ELEMENTS)) == 0 {
			return nil
		}
		return elementsOf(b)
	})
	var bad error
	add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, t.Rules, func(_ int, b []byte) []byte {
		b, err := expressions(without(b, ruleNot))
		if err != nil {
			bad = err
		}
		return b
	})
	if bad != nil {
		return bad
	}
	for from, size, n := 0, 0, 0; n < len(batch); n++ {
		if size += len(batch[n].Data) + 16; size < part && n+1 < len(batch) {
			continue
		}
		if err := commit(batch[from : n+1]); err != nil {
			if from > 0 {
				_ = commit([]netlink.Message{message(unix.NFT_MSG_DELTABLE, 0, m[0], attribute(nil, unix.NFTA_TABLE_NAME, append([]byte(id[1:]), 0)))})
			}
			return err
		}
		from, size = n+1, 0
	}
	return nil
}

func message(typ uint16, flags netlink.HeaderFlags, family byte, b []byte) netlink.Message {
	return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | typ), Flags: netlink.Request | flags}, Data: append([]byte{family, unix.NFNETLINK_V0, 0, 0}, b...)}
}

// attribute appends one; types keep the flag of nesting.
func attribute(b []byte, typ uint16, v []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(v)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, v...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// without copies attributes but for some.
func without(b []byte, not []uint16) []byte {
	var out []byte
	list, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return nil
	}
	for _, a := range list {
		if !slices.Contains(not, a.Type&0x3fff) {
			out = attribute(out, a.Type, a.Data)
		}
	}
	return out
}

// elementsOf copies a list of elements without the moment at which each ends.
func elementsOf(b []byte) []byte {
	var out []byte
	list, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return nil
	}
	for _, a := range list {
		if a.Type&0x3fff == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			var all []byte
			es, err := netlink.UnmarshalAttributes(a.Data)
			if err != nil {
				return nil
			}
			for _, e := range es {
				all = attribute(all, e.Type, without(e.Data, elementNot))
			}
			a.Data = all
		}
		out = attribute(out, a.Type, a.Data)
	}
	return out
}

// commit sends one transaction and waits for its end.
func commit(list []netlink.Message) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: 256 << 10})
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_ = c.SetWriteBuffer(64 << 20)
	_ = c.SetOption(netlink.ExtendedAcknowledge, true) // it says which attribute is wrong
	edge := func(typ uint16) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request}, Data: []byte{0, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}}
	}
	// Only the last is acknowledged; errors come in any case.
	list = slices.Clone(list)
	list[len(list)-1].Header.Flags |= netlink.Acknowledge
	all := append([]netlink.Message{edge(unix.NFNL_MSG_BATCH_BEGIN)}, list...)
	all = append(all, edge(unix.NFNL_MSG_BATCH_END))
	if _, err := c.SendMessages(all); err != nil {
		return err
	}
	_, err = c.Receive()
	return err
}

// fillMessage is how many elements one message carries.
const fillMessage = 1000

// fill fills the sets of a table that packets add to.
func fill(table string) (int, error) {
	ms, err := nft(unix.NFT_MSG_GETSET, netlink.Dump, text(unix.NFTA_SET_TABLE, table))
	if err != nil {
		return 0, fmt.Errorf("list sets: %w", err)
	}
	filled := 0
	for _, m := range ms {
		if len(m.Data) < 4 {
			continue
		}
		a := nested(m.Data[4:])
		flags, length := number(value(a, unix.NFTA_SET_FLAGS)), int(number(value(a, unix.NFTA_SET_KEY_LEN)))
		size := number(value(nested(value(a, unix.NFTA_SET_DESC)), unix.NFTA_SET_DESC_SIZE))
		if cstring(value(a, unix.NFTA_SET_TABLE)) != table || flags&unix.NFT_SET_EVAL == 0 || size == 0 || size > 1<<20 || length < 4 {
			continue
		}
		name := cstring(value(a, unix.NFTA_SET_NAME))
		for from, n := uint32(0), uint32(fillMessage); from < size && n > 0; from += n {
			var es []byte
			for i := from; i < min(from+n, size); i++ {
				k := make([]byte, length)
				k[0] = 0xb2 // a MAC address of no vendor, an address of nobody's
				if length >= 8 {
					k[1] = 0xee
				}
				binary.BigEndian.PutUint32(k[min(2, length-4):], i)
				if length == 4 {
					k[0] |= 0xb0
				}
				key := attribute(nil, unix.NFTA_DATA_VALUE, k)
				es = attribute(es, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, attribute(nil, unix.NFTA_SET_ELEM_KEY|unix.NLA_F_NESTED, key))
			}
			b := attribute(nil, unix.NFTA_SET_ELEM_LIST_TABLE, append([]byte(table), 0))
			b = attribute(b, unix.NFTA_SET_ELEM_LIST_SET, append([]byte(name), 0))
			b = attribute(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, es)
			err := commit([]netlink.Message{message(unix.NFT_MSG_NEWSETELEM, netlink.Create, unix.NFPROTO_INET, b)})
			if errors.Is(err, unix.ENFILE) {
				// Packets had added some: fewer go in.
				from, n = from-n/10, n/10
				continue
			}
			if err != nil {
				return filled, fmt.Errorf("fill set %s: %w", name, err)
			}
		}
		filled++
	}
	return filled, nil
}

func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
