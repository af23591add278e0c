package pfdecode_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/pfdecode"
)

// attr encodes a netlink attribute; nested ones carry NLA_F_NESTED as the kernel writes it.
func attr(order binary.ByteOrder, t uint16, parts ...[]byte) []byte {
	v := slices.Concat(parts...)
	b := make([]byte, 4, 4+len(v))
	order.PutUint16(b, uint16(4+len(v)))
	order.PutUint16(b[2:], t)
	b = append(b, v...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

const nested = 0x8000

func str(s string) []byte { return append([]byte(s), 0) }

func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// message is a NFT_MSG_NEWCHAIN with a hook whose device list is devs.
func message(o binary.ByteOrder, family byte, hook uint32, prio int32, devs ...[]byte) []byte {
	h := [][]byte{attr(o, 1, be32(hook)), attr(o, 2, be32(uint32(prio)))}
	if len(devs) > 0 {
		h = append(h, attr(o, 4|nested, devs...))
	}
	return slices.Concat([]byte{family, 0, 0, 7}, attr(o, 1, str("tab")), attr(o, 2, make([]byte, 8)), attr(o, 3, str("ch")),
		attr(o, 4|nested, h...), attr(o, 5, be32(1)), attr(o, 7, str("filter")))
}

// captured is an "inet a" input chain with policy drop as Linux 6.18 sent it.
var captured = []byte("\x01\x00\x00\x02\x06\x00\x01\x00a\x00\x00\x00\a\x00\x03\x00in\x00\x00\f\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
	"\x14\x00\x04\x00\b\x00\x01\x00\x00\x00\x00\x01\b\x00\x02\x00\x00\x00\x00\x00\b\x00\x05\x00\x00\x00\x00\x00\v\x00\a\x00filter\x00\x00" +
	"\b\x00\n\x00\x00\x00\x00\x01\b\x00\x06\x00\x00\x00\x00\x00")

func TestChains(t *testing.T) {
	for _, o := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		name := func(s string) []byte { return attr(o, 1, str(s)) }
		for what, tc := range map[string]struct {
			msg  []byte
			want string
		}{
			"inet input":         {message(o, 1, 1, -300), "inet tab ch filter hook 1 prio -300 policy 1 [] [] false"},
			"netdev two devices": {message(o, 5, 0, 0, name("eth0"), name("eth1")), "netdev tab ch filter hook 0 prio 0 policy 1 [eth0 eth1] [] false"},
			"prefix":             {message(o, 5, 0, 0, attr(o, 2, str("veth")), name("e")), "netdev tab ch filter hook 0 prio 0 policy 1 [e] [veth] false"},
			"prefix of 6.16":     {message(o, 5, 0, 0, attr(o, 1, []byte("veth"))), "netdev tab ch filter hook 0 prio 0 policy 1 [] [veth] false"},
			"device of tomorrow": {message(o, 5, 0, 0, name("e"), attr(o, 3, str("x"))), "netdev tab ch filter hook 0 prio 0 policy 1 [e] [] true"},
			"regular": {
				slices.Concat([]byte{10, 0, 0, 0}, attr(o, 1, str("tab")), attr(o, 3, str("ch"))),
				"ip6 tab ch  hook 0 prio 0 policy 0 [] [] false",
			},
		} {
			cs, err := pfdecode.Chains([][]byte{tc.msg}, o)
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			c := cs[0]
			got := fmt.Sprintf("%s %s %s %s hook %d prio %d policy %d %v %v %v", pfdecode.FamilyName(c.Family), c.Table, c.Name, c.Type, c.Hook, c.Priority, c.Policy, c.Devices, c.DevicePrefixes, c.AnyDevice)
			if got != tc.want {
				t.Errorf("%s:\n got %s\nwant %s", what, got, tc.want)
			}
			if c.Base != (what != "regular") {
				t.Errorf("%s: base %v", what, c.Base)
			}
		}
	}
	cs, err := pfdecode.Chains([][]byte{captured}, binary.LittleEndian)
	if err != nil || !cs[0].Base || cs[0].Hook != pfdecode.HookInput || cs[0].Policy != 0 || cs[0].Name != "in" {
		t.Errorf("captured: %+v, %v", cs, err)
	}
}

func TestOnDevice(t *testing.T) {
	for _, tc := range []struct {
		c    pfdecode.Chain
		name string
		want bool
	}{
		{pfdecode.Chain{}, "eth0", true}, // names none: nothing is known
		{pfdecode.Chain{Devices: []string{"eth0"}}, "eth0", true},
		{pfdecode.Chain{Devices: []string{"eth0"}}, "eth01", false},
		{pfdecode.Chain{DevicePrefixes: []string{"veth"}}, "veth12", true},
		{pfdecode.Chain{DevicePrefixes: []string{"veth"}}, "eth0", false},
		{pfdecode.Chain{Devices: []string{"eth1"}, AnyDevice: true}, "eth0", true},
	} {
		if got := tc.c.OnDevice(tc.name); got != tc.want {
			t.Errorf("%+v on %s: %v", tc.c, tc.name, got)
		}
	}
}

// TestBadChainIsAnError: a chain whose hook cannot be read must never look like a
// chain without a hook.
func TestBadChainIsAnError(t *testing.T) {
	o := binary.LittleEndian
	for what, m := range map[string][]byte{
		"empty":             {},
		"short header":      {1, 0, 0},
		"stray bytes":       append(message(o, 1, 1, 0), 1, 2, 3),
		"length too small":  {1, 0, 0, 0, 3, 0, 4, 0},
		"length too large":  {1, 0, 0, 0, 200, 0, 4, 0},
		"hook of two bytes": slices.Concat([]byte{1, 0, 0, 0}, attr(o, 4, attr(o, 1, []byte{0, 1}))),
		"hook without num":  slices.Concat([]byte{1, 0, 0, 0}, attr(o, 4, attr(o, 2, be32(0)))),
		"broken hook":       slices.Concat([]byte{1, 0, 0, 0}, attr(o, 4, []byte{9, 0, 1, 0, 0})),
		"broken devices":    slices.Concat([]byte{5, 0, 0, 0}, attr(o, 4, attr(o, 1, be32(0)), attr(o, 4, []byte{99, 0, 1, 0}))),
		"policy":            slices.Concat([]byte{1, 0, 0, 0}, attr(o, 5, []byte{1})),
		"priority":          slices.Concat([]byte{1, 0, 0, 0}, attr(o, 4, attr(o, 1, be32(1)), attr(o, 2, []byte{1}))),
	} {
		if cs, err := pfdecode.Chains([][]byte{m}, o); err == nil {
			t.Errorf("%s: no error, %+v", what, cs)
		}
	}
	if _, err := pfdecode.Chains([][]byte{message(o, 1, 1, 0)}, binary.BigEndian); err == nil {
		t.Error("a message in the other byte order decodes")
	}
	if !strings.Contains(pfdecode.FamilyName(77), "77") {
		t.Error("unknown family has no number")
	}
}

func FuzzChains(f *testing.F) {
	for _, o := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		f.Add(message(o, 1, 1, -5), o == binary.BigEndian)
		f.Add(message(o, 5, 0, 0, attr(o, 1, str("eth0")), attr(o, 2, str("veth"))), o == binary.BigEndian)
	}
	f.Add(captured, false)
	f.Add([]byte{1, 0, 0, 0, 3, 0, 4, 0}, false)
	f.Fuzz(func(t *testing.T, m []byte, big bool) {
		var o binary.ByteOrder = binary.LittleEndian
		if big {
			o = binary.BigEndian
		}
		cs, err := pfdecode.Chains([][]byte{m}, o)
		if err != nil {
			if len(cs) != 0 {
				t.Errorf("an error and %d chains of one message", len(cs))
			}
			return
		}
		c := cs[0]
		n := len(c.Table) + len(c.Name) + len(c.Type)
		for _, d := range append(c.Devices, c.DevicePrefixes...) {
			n += len(d)
			if strings.ContainsRune(d, 0) {
				t.Errorf("device %q", d)
			}
		}
		if n > len(m) {
			t.Errorf("%d bytes of names from %d", n, len(m))
		}
		if !c.Base && (c.Hook != 0 || len(c.Devices) > 0) {
			t.Errorf("hook of a regular chain: %+v", c)
		}
		_ = c.OnDevice("eth0")
	})
}

// A dormant table filters nothing, whatever chains it lists; one of the same name in
// another family is another table.
func TestActiveChains(t *testing.T) {
	for _, o := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		tab := func(family byte, name string, flags uint32) []byte {
			return slices.Concat([]byte{family, 0, 0, 7}, attr(o, 1, str(name)), attr(o, 2, be32(flags)))
		}
		chains := [][]byte{message(o, pfdecode.FamilyIPv6, 0, -300)}
		for what, tc := range map[string]struct {
			tables [][]byte
			active bool
		}{
			"awake":          {[][]byte{tab(pfdecode.FamilyIPv6, "tab", 0)}, true},
			"dormant":        {[][]byte{tab(pfdecode.FamilyIPv6, "tab", 1)}, false},
			"dormant, owned": {[][]byte{tab(pfdecode.FamilyIPv6, "tab", 3)}, false},
			"another family": {[][]byte{tab(pfdecode.FamilyInet, "tab", 1)}, true},
			"another name":   {[][]byte{tab(pfdecode.FamilyIPv6, "ta", 1)}, true},
			"not listed":     {nil, true},
			"nonsense":       {[][]byte{{1}, append(tab(pfdecode.FamilyIPv6, "tab", 1), 9)}, true},
		} {
			cs, err := pfdecode.ActiveChains(tc.tables, chains, o)
			if err != nil || len(cs) != 1 || cs[0].Base != tc.active {
				t.Errorf("%v, %s: %+v %v, want active %v", o, what, cs, err, tc.active)
			}
		}
	}
}
