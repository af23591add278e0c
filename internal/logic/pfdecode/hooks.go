// Package pfdecode reads what the kernel says about its packet filter: raw
// nf_tables messages as host/collect/packetfilter stored them.
//
// It walks attributes itself and keeps what it does not know, because the
// libraries drop unknown expressions silently. This first part decodes tables and
// base chains only: enough to say whether anything filters on a path. Rules and
// expressions belong to reach.
package pfdecode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// Families of nf_tables (NFPROTO_*, include/uapi/linux/netfilter.h).
const (
	FamilyInet   = 1
	FamilyIPv4   = 2
	FamilyARP    = 3
	FamilyNetdev = 5
	FamilyBridge = 7
	FamilyIPv6   = 10
)

// Hook numbers of the inet, ip, ip6 and bridge families (NF_INET_*), and of netdev.
const (
	HookPrerouting  = 0
	HookInput       = 1
	HookForward     = 2
	HookOutput      = 3
	HookPostrouting = 4
	HookInetIngress = 5

	HookNetdevIngress = 0
	HookNetdevEgress  = 1
)

// Chain is a chain of nf_tables.
type Chain struct {
	Family   uint8
	Table    string
	Name     string
	Type     string // filter, nat, route; empty for regular chains
	Base     bool   // it has a hook
	Hook     uint32
	Priority int32
	Policy   uint32 // 0 drop, 1 accept
	// Devices are the interfaces of a netdev or inet ingress chain, DevicePrefixes
	// its wildcards ("veth" for veth*, Linux 6.16). AnyDevice is set when the list
	// held something this decoder does not know.
	Devices        []string
	DevicePrefixes []string
	AnyDevice      bool
}

// OnDevice tells whether an ingress or egress chain may see packets of the
// interface. A chain without any device says nothing about them: true.
func (c *Chain) OnDevice(name string) bool {
	if c.AnyDevice || len(c.Devices)+len(c.DevicePrefixes) == 0 {
		return true
	}
	return slices.Contains(c.Devices, name) ||
		slices.ContainsFunc(c.DevicePrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// FamilyName is the word nft uses.
func FamilyName(f uint8) string {
	switch f {
	case FamilyInet:
		return "inet"
	case FamilyIPv4:
		return "ip"
	case FamilyARP:
		return "arp"
	case FamilyNetdev:
		return "netdev"
	case FamilyBridge:
		return "bridge"
	case FamilyIPv6:
		return "ip6"
	}
	return fmt.Sprintf("family %d", f)
}

// Chains decodes NFT_MSG_NEWCHAIN messages (nfgenmsg and attributes). A message
// that makes no sense is an error: what it hooked is unknown.
func Chains(msgs [][]byte, order binary.ByteOrder) ([]Chain, error) {
	out := make([]Chain, 0, len(msgs))
	for i, m := range msgs {
		c, err := chain(m, order)
		if err != nil {
			return out, fmt.Errorf("decode nf_tables chain %d: %w", i, err)
		}
		out = append(out, c)
	}
	return out, nil
}

// ActiveChains is Chains without the hooks of dormant tables, which the kernel has
// taken out (nf_tables_table_disable): their chains are decoded as regular ones.
func ActiveChains(tables, chains [][]byte, order binary.ByteOrder) ([]Chain, error) {
	cs, err := Chains(chains, order)
	asleep := map[string]bool{}
	for _, m := range tables {
		if family, name, dormant := table(m, order); dormant {
			asleep[string(rune(family))+name] = true
		}
	}
	for i := range cs {
		if asleep[string(rune(cs[i].Family))+cs[i].Table] {
			cs[i].Base = false
		}
	}
	return cs, err
}

// table decodes NFT_MSG_NEWTABLE. One that makes no sense is not dormant.
func table(m []byte, order binary.ByteOrder) (family byte, name string, dormant bool) {
	const (
		attrTableName  = 1
		attrTableFlags = 2
		flagDormant    = 1
	)
	if len(m) < 4 {
		return 0, "", false
	}
	err := walk(m[4:], order, func(t uint16, v []byte) {
		switch {
		case t == attrTableName:
			name = cstring(v)
		case t == attrTableFlags && len(v) == 4:
			dormant = binary.BigEndian.Uint32(v)&flagDormant != 0
		}
	})
	return m[0], name, dormant && err == nil
}

// NFTA_CHAIN_* and NFTA_HOOK_* (include/uapi/linux/netfilter/nf_tables.h).
const (
	attrChainTable  = 1
	attrChainName   = 3
	attrChainHook   = 4
	attrChainPolicy = 5
	attrChainType   = 7

	attrHookNum      = 1
	attrHookPriority = 2
	attrHookDev      = 3
	attrHookDevs     = 4

	attrDeviceName   = 1 // NFTA_DEVICE_NAME
	attrDevicePrefix = 2 // NFTA_DEVICE_PREFIX
)

func chain(m []byte, order binary.ByteOrder) (Chain, error) {
	if len(m) < 4 {
		return Chain{}, fmt.Errorf("message of %d bytes", len(m))
	}
	c := Chain{Family: m[0]}
	var bad error
	err := walk(m[4:], order, func(t uint16, v []byte) {
		switch t {
		case attrChainTable:
			c.Table = cstring(v)
		case attrChainName:
			c.Name = cstring(v)
		case attrChainType:
			c.Type = cstring(v)
		case attrChainPolicy:
			if len(v) != 4 {
				bad = fmt.Errorf("policy of %d bytes", len(v))
				return
			}
			c.Policy = binary.BigEndian.Uint32(v)
		case attrChainHook:
			c.Base = true
			if err := hook(&c, v, order); err != nil {
				bad = err
			}
		}
	})
	if err == nil {
		err = bad
	}
	return c, err
}

func hook(c *Chain, b []byte, order binary.ByteOrder) error {
	seen := false
	var bad error
	err := walk(b, order, func(t uint16, v []byte) {
		switch t {
		case attrHookNum:
			if len(v) != 4 {
				bad = fmt.Errorf("hook number of %d bytes", len(v))
				return
			}
			c.Hook, seen = binary.BigEndian.Uint32(v), true
		case attrHookPriority:
			if len(v) != 4 {
				bad = fmt.Errorf("hook priority of %d bytes", len(v))
				return
			}
			c.Priority = int32(binary.BigEndian.Uint32(v))
		case attrHookDev:
			c.device(attrDeviceName, v)
		case attrHookDevs:
			if err := walk(v, order, c.device); err != nil {
				bad = err
			}
		default:
			c.AnyDevice = true
		}
	})
	switch {
	case err != nil:
		return err
	case bad != nil:
		return bad
	case !seen:
		return fmt.Errorf("hook without a number")
	}
	return nil
}

// device adds an entry of the device list. Linux 6.16 writes a wildcard as a name
// without its NUL, later ones have an attribute for it.
func (c *Chain) device(t uint16, v []byte) {
	terminated := len(v) > 0 && v[len(v)-1] == 0
	switch {
	case t == attrDeviceName && terminated:
		c.Devices = append(c.Devices, cstring(v))
	case t == attrDeviceName, t == attrDevicePrefix:
		c.DevicePrefixes = append(c.DevicePrefixes, cstring(v))
	default:
		c.AnyDevice = true
	}
}

// walk visits netlink attributes (struct nlattr, host byte order, 4-byte aligned).
func walk(b []byte, order binary.ByteOrder, f func(t uint16, v []byte)) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return fmt.Errorf("%d stray bytes after attributes", len(b))
		}
		n := int(order.Uint16(b))
		if n < 4 || n > len(b) {
			return fmt.Errorf("attribute length %d of %d", n, len(b))
		}
		f(order.Uint16(b[2:])&0x3fff, b[4:n])
		n = (n + 3) &^ 3
		if n > len(b) {
			break
		}
		b = b[n:]
	}
	return nil
}

func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
