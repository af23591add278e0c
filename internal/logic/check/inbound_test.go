package check

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sixfence/sixfence/internal/logic/pfdecode"
	"github.com/sixfence/sixfence/internal/model/fact"
)

// Which filter stops which packet is shown with packets beside the collectors; here
// is what a lab cannot make: facts that are missing, and snapshots of strangers.

// chainMsg encodes a NFT_MSG_NEWCHAIN with a hook.
func chainMsg(family byte, hook uint32, devices ...string) []byte {
	o := binary.LittleEndian
	attr := func(t uint16, v []byte) []byte {
		b := o.AppendUint16(o.AppendUint16(nil, uint16(4+len(v))), t)
		b = append(b, v...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		return b
	}
	be := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	h := slices.Concat(attr(1, be(hook)), attr(2, be(0)))
	var devs []byte
	for _, d := range devices {
		devs = append(devs, attr(1, append([]byte(d), 0))...)
	}
	if len(devs) > 0 {
		h = append(h, attr(4, devs)...)
	}
	return slices.Concat([]byte{family, 0, 0, 1}, attr(1, []byte("t\x00")), attr(3, []byte("c\x00")), attr(4, h))
}

// bare is a namespace with two interfaces in which surely nothing filters.
func bare() *fact.Snapshot {
	link := func(i int, name string) fact.Link {
		return fact.Link{Index: i, Name: name, XDP: fact.Value[uint8](0), TCIngress: fact.Value(false)}
	}
	s := &fact.Snapshot{Host: fact.Host{ByteOrder: "little"}}
	s.Host.BPF.NetfilterLinks = fact.Absent[[]fact.NetfilterLink]()
	s.Namespaces = []fact.Namespace{{
		ID: fact.NamespaceID{Inode: 7}, Name: "init", Links: fact.Value([]fact.Link{link(1, "lo"), link(2, "eth0")}),
		PacketFilter: fact.PacketFilter{NFTables: fact.Absent[fact.NFTables](), Legacy: fact.Absent[[]fact.LegacyTable](), EBTables: fact.Value(false)},
	}}
	return s
}

func TestInbound(t *testing.T) {
	gap := fact.Gap{Reason: fact.Permission, What: "x"}
	ns := func(f func(*fact.Namespace)) func(*fact.Snapshot) {
		return func(s *fact.Snapshot) { f(&s.Namespaces[0]) }
	}
	links := func(f func([]fact.Link) []fact.Link) func(*fact.Snapshot) {
		return ns(func(n *fact.Namespace) {
			l, _ := n.Links.Get()
			n.Links = fact.Value(f(l))
		})
	}
	nft := func(n fact.NFTables) func(*fact.Snapshot) {
		return ns(func(x *fact.Namespace) { x.PacketFilter.NFTables = fact.Value(n) })
	}
	legacy := func(ts ...fact.LegacyTable) func(*fact.Snapshot) {
		return ns(func(x *fact.Namespace) { x.PacketFilter.Legacy = fact.Value(ts) })
	}
	both := func(a, b func(*fact.Snapshot)) func(*fact.Snapshot) {
		return func(s *fact.Snapshot) { a(s); b(s) }
	}
	bridge := links(func(l []fact.Link) []fact.Link {
		l[1].Master, l[1].SlaveKind = 3, "bridge"
		return append(l, fact.Link{Index: 3, Name: "br0", Kind: "bridge", XDP: fact.Value[uint8](0), TCIngress: fact.Value(false)})
	})
	tunnel := links(func(l []fact.Link) []fact.Link {
		return append(l, fact.Link{Index: 3, Name: "sit1", Kind: "sit", XDP: fact.Value[uint8](0), TCIngress: fact.Value(false)})
	})
	const present = "present"
	for _, tc := range []struct {
		name   string
		change func(*fact.Snapshot)
		ifname string
		want   string // "", "present", or a part of the Gap
		reason fact.Reason
	}{
		{"nothing", func(*fact.Snapshot) {}, "eth0", "", ""},
		{"nothing, anywhere", func(*fact.Snapshot) {}, "", "", ""},
		{"nothing, to come", func(*fact.Snapshot) {}, "eth9", "", ""},

		// What could not be read is never nothing.
		{"an empty snapshot", func(s *fact.Snapshot) { *s = fact.Snapshot{Namespaces: make([]fact.Namespace, 1)} }, "eth0", "nf_tables", fact.NotCollected},
		{"nf_tables", ns(func(n *fact.Namespace) { n.PacketFilter.NFTables = fact.Missing[fact.NFTables](gap) }), "eth0", "nf_tables", fact.Permission},
		{"x_tables", ns(func(n *fact.Namespace) { n.PacketFilter.Legacy = fact.Missing[[]fact.LegacyTable](gap) }), "eth0", "x_tables", fact.Permission},
		{"BPF", func(s *fact.Snapshot) { s.Host.BPF.NetfilterLinks = fact.Missing[[]fact.NetfilterLink](gap) }, "eth0", "BPF", fact.Permission},
		{"links", ns(func(n *fact.Namespace) { n.Links = fact.Missing[[]fact.Link](gap) }), "eth0", "interfaces", fact.Permission},
		{"links, anywhere", ns(func(n *fact.Namespace) { n.Links = fact.Missing[[]fact.Link](gap) }), "", "interfaces", fact.Permission},
		{"XDP", links(func(l []fact.Link) []fact.Link { l[1].XDP = fact.Missing[uint8](gap); return l }), "eth0", "XDP programs of eth0", fact.Permission},
		{"TC", links(func(l []fact.Link) []fact.Link { l[1].TCIngress = fact.Missing[bool](gap); return l }), "eth0", "TC programs of eth0", fact.Permission},
		{"XDP elsewhere", links(func(l []fact.Link) []fact.Link { l[1].XDP = fact.Missing[uint8](gap); return l }), "lo", "", ""},
		{"ebtables without a bridge", ns(func(n *fact.Namespace) { n.PacketFilter.EBTables = fact.Missing[bool](gap) }), "eth0", "", ""},
		{"ebtables with a bridge", both(bridge, ns(func(n *fact.Namespace) { n.PacketFilter.EBTables = fact.Missing[bool](gap) })), "br0", "ebtables", fact.Permission},
		{"ebtables may be there", both(bridge, ns(func(n *fact.Namespace) { n.PacketFilter.EBTables = fact.Value(true) })), "br0", present, ""},
		{"a chain that makes no sense", nft(fact.NFTables{Chains: [][]byte{{1, 0}}}), "eth0", "nf_tables chains", fact.ParseGap},
		{"chains in the other byte order", both(nft(fact.NFTables{Chains: [][]byte{chainMsg(1, 2)}}), func(s *fact.Snapshot) { s.Host.ByteOrder = "big" }), "eth0", "nf_tables chains", fact.ParseGap},
		{"truncated before the chains' end", nft(fact.NFTables{Chains: [][]byte{chainMsg(1, 2)}, Truncated: &gap}), "eth0", "nf_tables chains", fact.Permission},
		{"truncated in the rules", nft(fact.NFTables{Chains: [][]byte{chainMsg(1, 2)}, Rules: [][]byte{{}}, Truncated: &gap}), "eth0", "", ""},

		// A filter that is there is reported before what is unknown.
		{"present before unknown", both(nft(fact.NFTables{Chains: [][]byte{chainMsg(1, 1), {1}}}), func(s *fact.Snapshot) { s.Host.BPF.NetfilterLinks = fact.Missing[[]fact.NetfilterLink](gap) }), "eth0", present, ""},
		{"a family of tomorrow", nft(fact.NFTables{Chains: [][]byte{chainMsg(77, 0)}}), "eth0", present, ""},
		{"a hook of tomorrow", nft(fact.NFTables{Chains: [][]byte{chainMsg(10, 6)}}), "eth0", present, ""},
		{"a netdev hook of tomorrow", nft(fact.NFTables{Chains: [][]byte{chainMsg(5, 2, "eth0")}}), "eth0", present, ""},
		{"ingress without devices", nft(fact.NFTables{Chains: [][]byte{chainMsg(5, 0)}}), "eth0", present, ""},
		{"ingress and a device to come", nft(fact.NFTables{Chains: [][]byte{chainMsg(5, 0, "eth0")}}), "eth9", "", ""},
		{"ingress without devices, to come", nft(fact.NFTables{Chains: [][]byte{chainMsg(5, 0)}}), "eth9", present, ""},
		{"ingress, links unknown", both(nft(fact.NFTables{Chains: [][]byte{chainMsg(5, 0, "eth0")}}), ns(func(n *fact.Namespace) { n.Links = fact.Missing[[]fact.Link](gap) })), "eth0", present, ""},
		{"hooks unknown", legacy(fact.LegacyTable{Family: "ipv6", Name: "filter"}), "eth0", present, ""},
		{"a table family of tomorrow", legacy(fact.LegacyTable{Family: "x", Name: "y", Hooks: 1}), "eth0", present, ""},
		{"arp table", legacy(fact.LegacyTable{Family: "arp", Name: "filter", Hooks: 3}), "eth0", "", ""},
		{"output table", legacy(fact.LegacyTable{Family: "ipv6", Name: "x", Hooks: 1 << 3}), "eth0", "", ""},
		{"BPF in this namespace", func(s *fact.Snapshot) {
			s.Host.BPF.NetfilterLinks = fact.Value([]fact.NetfilterLink{{Family: pfdecode.FamilyIPv6, Hook: 1, NetNS: 7}})
		}, "eth0", present, ""},
		{"BPF in another", func(s *fact.Snapshot) {
			s.Host.BPF.NetfilterLinks = fact.Value([]fact.NetfilterLink{{Family: pfdecode.FamilyIPv6, Hook: 1, NetNS: 8}})
		}, "eth0", "", ""},

		// Stacks of devices.
		{"open vSwitch", links(func(l []fact.Link) []fact.Link { l[1].Kind = "openvswitch"; return l }), "eth0", present, ""},
		{"IPv4 chain around a tunnel", both(tunnel, nft(fact.NFTables{Chains: [][]byte{chainMsg(2, 1)}})), "sit1", present, ""},
		{"IPv4 chain beside a tunnel", both(tunnel, nft(fact.NFTables{Chains: [][]byte{chainMsg(2, 1)}})), "eth0", "", ""},
		{"ingress below a tunnel", both(tunnel, nft(fact.NFTables{Chains: [][]byte{chainMsg(5, 0, "eth0")}})), "sit1", present, ""},
		{"VLAN, bond and port", both(links(func(l []fact.Link) []fact.Link {
			free := func(i int, name, kind string) fact.Link {
				return fact.Link{Index: i, Name: name, Kind: kind, XDP: fact.Value[uint8](0), TCIngress: fact.Value(false)}
			}
			bond, vlan := free(3, "bond0", "bond"), free(4, "bond0.7", "vlan")
			l[1].Master, l[1].SlaveKind, vlan.Parent = 3, "bond", 3
			return append(l, bond, vlan)
		}), nft(fact.NFTables{Chains: [][]byte{chainMsg(5, 0, "eth0")}})), "bond0.7", present, ""},
		{"veth peer", both(links(func(l []fact.Link) []fact.Link {
			l[1].Kind, l[1].Parent = "veth", 3
			return append(l, fact.Link{Index: 3, Name: "peer", Kind: "veth", Parent: 2, XDP: fact.Value[uint8](1), TCIngress: fact.Value(false)})
		}), func(*fact.Snapshot) {}), "eth0", "", ""},
		{"parent in another namespace", links(func(l []fact.Link) []fact.Link {
			id := int32(0)
			l[1].Kind, l[1].Parent, l[1].PeerNS = "macvlan", 1, &id
			l[0].XDP = fact.Value[uint8](1)
			return l
		}), "eth0", "", ""},
		{"a ring of parents and masters", links(func(l []fact.Link) []fact.Link {
			l[0].Parent, l[0].Master, l[1].Parent, l[1].Master = 2, 2, 1, 1
			return l
		}), "eth0", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := bare()
			tc.change(s)
			sp := NewContext(s, RoleServer).Spaces()[0]
			g := sp.Inbound("ipv6", tc.ifname)
			switch {
			case tc.want == "" && g != nil, tc.want != "" && g == nil:
				t.Fatalf("%+v, want %q", g, tc.want)
			case g == nil:
			case tc.want == present:
				if g.What != filtered {
					t.Errorf("%+v, want %q", g, filtered)
				}
			case !strings.Contains(g.What, tc.want) || g.Reason != tc.reason:
				t.Errorf("%+v, want %s of %s", g, tc.reason, tc.want)
			}
			// The second answer comes from memory, and the first was the caller's own.
			if g != nil {
				was := *g
				g.What = "changed"
				if again := sp.Inbound("ipv6", tc.ifname); again == nil || *again != was {
					t.Errorf("asked again: %+v, was %+v", again, was)
				}
			}
			// Whatever stops packets on one interface stops them on some.
			if g != nil && sp.Link(2) != nil && tc.ifname != "eth9" && sp.Inbound("ipv6", "") == nil {
				t.Error("nothing in the way when any interface is asked for")
			}
		})
	}
}

// FuzzInbound: a Snapshot of a stranger neither hangs nor makes a filter vanish.
func FuzzInbound(f *testing.F) {
	f.Add(chainMsg(1, 1), uint32(3), "ipv6", "veth", 2, 1, uint8(0))
	f.Add(chainMsg(5, 0, "eth0"), uint32(0), "ipv4", "bridge", 1, 2, uint8(1))
	f.Add([]byte{}, uint32(8), "x", "vxlan", 3, 3, uint8(0))
	f.Fuzz(func(t *testing.T, chain []byte, hooks uint32, family, kind string, parent, master int, xdp uint8) {
		s := bare()
		n := &s.Namespaces[0]
		n.PacketFilter.NFTables = fact.Value(fact.NFTables{Chains: [][]byte{chain}})
		n.PacketFilter.Legacy = fact.Value([]fact.LegacyTable{{Family: family, Hooks: hooks}})
		l, _ := n.Links.Get()
		l[1].Kind, l[1].Parent, l[1].Master, l[1].XDP = kind, parent, master, fact.Value(xdp)
		l = append(l, fact.Link{Index: 3, Name: "third", Kind: kind, Parent: master, Master: parent, XDP: fact.Value[uint8](0), TCIngress: fact.Value(false)})
		n.Links = fact.Value(l)
		sp := NewContext(s, RoleServer).Spaces()[0]
		for _, fam := range []string{"ipv4", "ipv6"} {
			any := sp.Inbound(fam, "")
			on := sp.Inbound(fam, "eth0")
			if on != nil && any == nil {
				t.Errorf("%s: %+v on eth0, nothing anywhere", fam, on)
			}
			if xdp != 0 && on == nil {
				t.Errorf("%s: XDP program %d vanished", fam, xdp)
			}
			if family == fam && hooks&3 != 0 && on == nil {
				t.Errorf("%s: legacy table with hooks %b vanished", fam, hooks)
			}
			if cs, err := pfdecode.Chains([][]byte{chain}, binary.LittleEndian); err != nil && on == nil {
				t.Errorf("%s: an unreadable chain vanished", fam)
			} else if err == nil && cs[0].Base && cs[0].Family == pfdecode.FamilyInet && cs[0].Hook <= 1 && on == nil {
				t.Errorf("%s: %s vanished", fam, fmt.Sprintf("%+v", cs[0]))
			}
		}
	})
}

// BenchmarkInbound asks about every interface of a node with many.
func BenchmarkInbound(b *testing.B) {
	s := bare()
	var l []fact.Link
	for i := range 5000 {
		l = append(l, fact.Link{Index: i + 1, Name: fmt.Sprintf("veth%d", i), Kind: "veth", Master: 1, SlaveKind: "bridge", XDP: fact.Value[uint8](0), TCIngress: fact.Value(false)})
	}
	l[0] = fact.Link{Index: 1, Name: "veth0", Kind: "bridge", XDP: fact.Value[uint8](0), TCIngress: fact.Value(false)}
	s.Namespaces[0].Links = fact.Value(l)
	s.Namespaces[0].PacketFilter.NFTables = fact.Value(fact.NFTables{Chains: [][]byte{chainMsg(5, 0, "other")}})
	for b.Loop() {
		sp := NewContext(s, RoleServer).Spaces()[0]
		for i := range l {
			if g := sp.Inbound("ipv6", l[i].Name); g != nil {
				b.Fatal(g)
			}
		}
	}
}
