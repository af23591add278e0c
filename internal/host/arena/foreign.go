package arena

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixfence/sixfence/internal/model/fact"
)

// Foreign are the rules of others as a kernel told them.
type Foreign struct {
	NFTables *fact.NFTables
	Legacy   []fact.LegacyTable
	// IPSets and Accounting are what rules of x_tables name.
	IPSets, Accounting [][]byte
}

// Refused is something that was not loaded, and why.
type Refused struct{ What, Why string }

// replay loads what it can, each table by itself: what one of them needs and this kernel
// does not have keeps no other away.
func replay(f *Foreign) (out []Refused) {
	out = append(out, ipsets(f.IPSets)...)
	out = append(out, accounting(f.Accounting)...)
	if f.NFTables != nil {
		out = append(out, tables(f.NFTables)...)
	}
	for i := range f.Legacy {
		if err := legacy(&f.Legacy[i]); err != nil {
			out = append(out, Refused{LegacyName(&f.Legacy[i]), err.Error()})
		}
	}
	return out
}

// extension looks at a match, a target or an expression before it is loaded: some reach
// out of the namespace, some ask somebody who is not here. It may rewrite a match for what
// can be here.
func extension(kind, name string, info []byte) error {
	switch {
	case kind == "target" && (name == "IDLETIMER" || name == "LED" || name == "AUDIT"):
		return fmt.Errorf("its target %s acts on the whole machine, and not in one namespace", name)
	case kind == "target" && (name == "NFQUEUE" || name == "QUEUE"), kind == "expression" && name == "queue":
		return errors.New("it asks a program (NFQUEUE), which is not there")
	case kind == "expression" && name == "log":
		level := value(nested(info), unix.NFTA_LOG_LEVEL)
		if len(level) == 4 && binary.BigEndian.Uint32(level) == nftLogLevelAudit {
			return errors.New("it writes to the audit log of the whole machine")
		}
	case kind == "expression" && name == "exthdr" && inPlace(info)[nftaExthdrSource] != nil:
		// The kernel tells of flags that it does not want to be told where an option is set:
		// an attribute without a number is skipped.
		return each(info, func(typ uint16, a []byte) error {
			if typ == unix.NFTA_EXTHDR_FLAGS {
				clear(a[2:4])
			}
			return nil
		})
	case kind == "match" && name == "owner" && len(info) >= 18:
		ownerOfRoot(info)
	}
	return nil
}

const nftLogLevelAudit = 8 // NFT_LOGLEVEL_AUDIT

// ownerOfRoot rewrites struct xt_owner_match_info: the only user and the only group here is
// number 0, who sends everything, and the kernel takes no other number. What is about
// others becomes what root never is.
func ownerOfRoot(info []byte) {
	for k := range 2 { // users, groups
		bit := byte(1) << k
		if info[16]&bit == 0 {
			continue
		}
		if binary.NativeEndian.Uint32(info[8*k:]) != 0 {
			info[17] ^= bit
		}
		clear(info[8*k : 8*k+8])
	}
}

// each walks attributes in place, by their number, and each as a whole: four bytes of
// header, then its data. What f changes is changed.
func each(b []byte, f func(typ uint16, a []byte) error) error {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return errors.New("its messages are not understood")
		}
		if err := f(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[:n:n]); err != nil {
			return err
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

// expressions looks at what a rule of nf_tables is made of (attributes of a rule), and adds
// what the extensions of x_tables among it need to know: the protocol that the rule is for
// is told when a rule is made (NFTA_RULE_COMPAT), and never given out again.
func expressions(rule []byte) ([]byte, error) {
	var compat bool
	var reads string // what the register was loaded with
	var proto, flags uint32
	err := each(rule, func(typ uint16, list []byte) error {
		if typ != unix.NFTA_RULE_EXPRESSIONS {
			return nil
		}
		return each(list[4:], func(_ uint16, e []byte) error {
			a := inPlace(e[4:])
			name, data := cstring(a[unix.NFTA_EXPR_NAME]), a[unix.NFTA_EXPR_DATA]
			if name != "match" && name != "target" {
				d := inPlace(data)
				if v := inPlace(d[unix.NFTA_CMP_DATA])[unix.NFTA_DATA_VALUE]; name == "cmp" && reads == "protocol" && proto == 0 && len(v) > 0 && len(v) <= 2 {
					if proto = uint32(v[0]); len(v) == 2 { // an Ethernet type, as it is on the wire
						proto = uint32(binary.NativeEndian.Uint16(v))
					}
					if number(d[unix.NFTA_CMP_OP]) == unix.NFT_CMP_NEQ {
						flags = nftCompatInverted
					}
				}
				reads = loads(name, d)
				return extension("expression", name, data)
			}
			compat = true
			// NFTA_MATCH_* and NFTA_TARGET_* have the same numbers.
			x := inPlace(data)
			return extension(name, cstring(x[unix.NFTA_MATCH_NAME]), x[unix.NFTA_MATCH_INFO])
		})
	})
	if err != nil || !compat {
		return rule, err
	}
	c := attribute(nil, nftaCompatProto, binary.BigEndian.AppendUint32(nil, proto))
	c = attribute(c, nftaCompatFlags, binary.BigEndian.AppendUint32(nil, flags))
	return attribute(rule, unix.NFTA_RULE_COMPAT|unix.NLA_F_NESTED, c), nil
}

// Attributes that golang.org/x/sys does not name.
const (
	nftaCompatProto   = 1
	nftaCompatFlags   = 2
	nftCompatInverted = 2
	nftaExthdrSource  = 7
)

// loads tells whether an expression reads the protocol of a packet: "protocol" then.
func loads(name string, d map[uint16][]byte) string {
	at := [3]uint32{number(d[unix.NFTA_PAYLOAD_BASE]), number(d[unix.NFTA_PAYLOAD_OFFSET]), number(d[unix.NFTA_PAYLOAD_LEN])}
	key := number(d[unix.NFTA_META_KEY])
	switch {
	case name == "meta" && (key == unix.NFT_META_L4PROTO || key == unix.NFT_META_PROTOCOL):
	case name == "payload" && (at == [3]uint32{unix.NFT_PAYLOAD_NETWORK_HEADER, 9, 1} || at == [3]uint32{unix.NFT_PAYLOAD_NETWORK_HEADER, 6, 1} || at == [3]uint32{unix.NFT_PAYLOAD_LL_HEADER, 12, 2}):
	default:
		return ""
	}
	return "protocol"
}

// inPlace are attributes by number; what is changed in them is changed in b.
func inPlace(b []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	_ = each(b, func(typ uint16, a []byte) error { out[typ] = a[4:]; return nil })
	return out
}

// nfnetlink makes one request and waits for its end.
func nfnetlink(subsys, typ uint16, flags netlink.HeaderFlags, body []byte) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: 256 << 10})
	if err != nil {
		return fmt.Errorf("open nfnetlink: %w", err)
	}
	defer c.Close()
	_ = c.SetWriteBuffer(64 << 20)
	_, err = c.Execute(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(subsys<<8 | typ), Flags: netlink.Request | netlink.Acknowledge | flags}, Data: body})
	return err
}
