//go:build packets

package plan_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/logic/attack"
	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/model/intent"
	"github.com/sixfence/sixfence/internal/surface/config"
	"github.com/sixfence/sixfence/internal/testlab"
)

// read loads an intent as people write them, for a host whose interfaces are v0 and v1.
func read(t *testing.T, path string) intent.Intent {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.NewReplacer("eth0", "v0", "eth1", "v1", "eth*", "v*").Replace(string(text)))
	l, err := config.LoadIntent([]config.IntentFile{{Path: path, Text: text}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l.Intent
}

// ball is a packet for a port or of a protocol.
type ball struct {
	iface    string
	src, dst netip.Addr
	name     string // tcp, udp, or proto
	number   uint16
}

func (b ball) String() string {
	return fmt.Sprintf("%s/%d from %s to %s by %s", b.name, b.number, b.src, b.dst, b.iface)
}

func (b ball) family() string {
	if b.src.Is4() {
		return "ipv4"
	}
	return "ipv6"
}

func within(list []netip.Prefix, a netip.Addr) bool {
	return list == nil || slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

func listed(ports []string, b ball) bool {
	return ports == nil || slices.ContainsFunc(ports, func(s string) bool {
		p, err := intent.ParsePort(s)
		if err != nil {
			return false
		}
		if p.Whole() {
			return b.name == "proto" && uint16(p.Proto) == b.number
		}
		return p.Name == b.name && p.From <= b.number && b.number <= p.To
	})
}

func named(keys []string, in *intent.Intent, iface string) bool {
	return keys == nil || slices.ContainsFunc(keys, func(k string) bool { ok, _ := filepath.Match(k, iface); return ok })
}

// ours tells whether rules of this intent have a say about a family at all.
func ours(in *intent.Intent, family string) bool {
	return in.Firewall.Manage != intent.ManageNone && (family == "ipv6" || in.Firewall.Manage != intent.ManageIPv6)
}

// tunnel tells what the intent says of a tunnel's packet: its peer is the far end.
func tunnel(in *intent.Intent, b ball, peer netip.Addr, out bool) (known, yes bool) {
	by := map[string][]string{"6in4": {"proto/41"}, "gre": {"proto/47"}, "vxlan": {"udp/4789"}, "geneve": {"udp/6081"}}
	over4 := map[string]bool{"6in4": true, "gre": true}
	key := fmt.Sprintf("%s/%d", b.name, b.number)
	for _, x := range in.Tunnels.List {
		if slices.Contains(by[x.Mechanism], key) && (x.Peer.IsValid() && x.Peer.Contains(peer) || !x.Peer.IsValid() && (peer.Is4() || !over4[x.Mechanism])) {
			return true, true
		}
	}
	if in.Tunnels.Policy == intent.TunnelsAllow {
		return false, false
	}
	for _, v := range in.Services {
		if slices.Contains(v.Ports, key) {
			return false, false
		}
	}
	denied := []string{"proto/4", "proto/41", "proto/47"}
	if out {
		denied = append(denied, "udp/3544", "udp/4789", "udp/6081")
	}
	return slices.Contains(denied, key), false
}

// admits is what an intent says of a packet for the host, in the plainest way.
func admits(in *intent.Intent, b ball) bool {
	switch {
	case !ours(in, b.family()):
		return true
	case b.family() == "ipv6" && (in.Families == intent.Disabled || in.Families == intent.DisabledKeepLoopback):
		return false
	}
	if known, yes := tunnel(in, b, b.src, false); known {
		return yes
	}
	if b.family() == "ipv4" && in.Families == intent.IPv6Only {
		return false
	}
	for _, v := range in.Services {
		if v.Families != nil && !slices.Contains(v.Families, b.family()) {
			continue
		}
		if listed(v.Ports, b) && within(v.From, b.src) && within(v.To, b.dst) && named(v.Interfaces, in, b.iface) {
			return true
		}
	}
	return false
}

// sends is what it says of a packet of the host's own.
func sends(in *intent.Intent, b ball) bool {
	e := in.Egress.IPv6
	switch {
	case !ours(in, b.family()):
		return true
	case b.family() == "ipv6" && (in.Families == intent.Disabled || in.Families == intent.DisabledKeepLoopback):
		return false
	case b.family() == "ipv4":
		e = in.Egress.IPv4
	}
	if known, yes := tunnel(in, b, b.dst, true); known {
		return yes
	}
	if m := in.Egress.Metadata; m == "deny" && (b.dst == addr("169.254.169.254") || b.dst == addr("fd00:ec2::254")) {
		return false
	}
	if e.Default != "deny" {
		return true
	}
	return slices.ContainsFunc(e.Allow, func(d intent.Destination) bool { return listed(d.Ports, b) && within(d.To, b.dst) })
}

// passes is what it says of a packet for others.
func passes(in *intent.Intent, b ball, out string) bool {
	if in.Forwarding.Unmanaged || in.Role != intent.RoleRouter && len(in.Forwarding.Allow) == 0 {
		known, yes := tunnel(in, b, b.dst, true)
		return !known || yes
	}
	if known, yes := tunnel(in, b, b.dst, true); known && !yes {
		return false
	}
	return slices.ContainsFunc(in.Forwarding.Allow, func(f intent.Flow) bool {
		return listed(f.Ports, b) && within(f.From, b.src) && within(f.To, b.dst) && (f.Families == nil || slices.Contains(f.Families, b.family())) &&
			(f.InInterface == "" || f.InInterface == b.iface) && (f.OutInterface == "" || f.OutInterface == out)
	})
}

var targets = []string{"tcp/22", "tcp/25", "tcp/53", "tcp/80", "tcp/179", "tcp/443", "tcp/3653", "tcp/5901", "tcp/6443", "tcp/8005", "tcp/8500", "tcp/9100", "tcp/10250", "tcp/31000", "tcp/65535", "udp/53", "udp/123", "udp/150", "udp/443", "udp/546", "udp/3544", "udp/4789", "udp/6081", "udp/31000", "proto/4", "proto/41", "proto/47", "proto/50", "proto/112", "proto/132"}

func ballAt(iface string, src, dst netip.Addr, target string) ball {
	b := ball{iface: iface, src: src, dst: dst}
	b.name, _, _ = strings.Cut(target, "/")
	_, _ = fmt.Sscanf(target[len(b.name)+1:], "%d", &b.number)
	return b
}

// throw is a ball as a frame.
func throw(b ball, id uint32, from, to ndisc.MAC) attack.Shot {
	s := attack.Shot{ID: id, Name: b.String(), IPv4: b.src.Is4()}
	if s.IPv4 {
		f := ndisc.Frame4{SrcMAC: from, DstMAC: to, Src: b.src, Dst: b.dst, ID: uint16(id)}
		switch b.name {
		case "tcp":
			f = f.TCP(40000+uint16(id), b.number, 2)
		case "udp":
			f = f.UDP(40000+uint16(id), b.number, make([]byte, 8))
		default:
			f = f.Raw(uint8(b.number), make([]byte, 40))
		}
		s.Frames = [][]byte{f.Bytes()}
		return s
	}
	f := ndisc.Frame{SrcMAC: from, DstMAC: to, Src: b.src, Dst: b.dst, FlowLabel: id, HopLimit: 64}
	switch b.name {
	case "tcp":
		f = f.TCP(40000+uint16(id), b.number, 2)
	case "udp":
		f = f.UDP(40000+uint16(id), b.number, make([]byte, 8))
	default:
		f = f.Raw(uint8(b.number), make([]byte, 40))
	}
	s.Frames = [][]byte{f.Bytes()}
	return s
}

// TestPacketsIntents fires at the rules of every intent in testdata/packets: who reaches
// which port from where, over both families and both interfaces, what the host may send,
// and what it lets through. What ought to be is read from the intent, by nothing that
// writes rules.
func TestPacketsIntents(t *testing.T) {
	paths, err := filepath.Glob("testdata/packets/*.yaml")
	if err != nil || len(paths) < 40 {
		t.Fatalf("%d intents: %v", len(paths), err)
	}
	f := newFiring(t, "int")
	w1 := f.Attacker.Wire("a1")
	v1 := mac(t, f.Victim, "v1")
	w := newThreeWay(t, "inw", false)
	inputs, outputs, throughs, wrong := 0, 0, 0, 0
	bad := func(format string, a ...any) { t.Helper(); wrong++; t.Errorf(format, a...) }
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		in := read(t, path)
		rules := rulesOf(t, in)
		load(t, f.Victim, rules)
		first := f.Victim.Run("nft", "-s", "list", "table", "inet", "sixfence")
		load(t, f.Victim, rules)
		if again := f.Victim.Run("nft", "-s", "list", "table", "inet", "sixfence"); again != first {
			bad("%s: loading twice makes a difference", name)
		}
		// In.
		var balls []ball
		var shots0, shots1 []attack.Shot
		for _, x := range []struct{ iface, src, dst string }{
			{"v0", "2001:db8:1::7", "2001:db8:1::10"}, {"v0", "2600:1::1", "2001:db8:1::10"}, {"v0", "2600:2::5", "2001:db8:1::10"}, {"v0", "fe80::7", "2001:db8:1::10"}, {"v0", "2001:db8:1::7", "2001:db8:2::10"},
			{"v0", "192.0.2.7", "192.0.2.10"}, {"v0", "203.0.113.9", "192.0.2.10"}, {"v0", "198.18.0.9", "192.0.2.10"},
			{"v1", "2001:db8:2::5", "2001:db8:2::10"}, {"v1", "fe80::7", "2001:db8:2::10"}, {"v1", "198.51.100.5", "198.51.100.10"},
		} {
			for _, p := range targets {
				b := ballAt(x.iface, addr(x.src), addr(x.dst), p)
				id := uint32(len(balls) + 1)
				balls = append(balls, b)
				if x.iface == "v0" {
					shots0 = append(shots0, throw(b, id, f.r.Rogue.MAC, f.r.Host.MAC))
				} else {
					shots1 = append(shots1, throw(b, id, w1.MAC, v1))
				}
			}
		}
		for _, s := range shots1 {
			w1.Send(s.Frames...)
		}
		end := ndisc.Frame{SrcMAC: w1.MAC, DstMAC: v1, Src: addr("fe80::7"), Dst: addr("2001:db8:2::10"), FlowLabel: 0xffffe}.UDP(1, 9, nil)
		load(t, f.Victim, "table inet behind\ndelete table inet behind\ntable inet behind { chain i { type filter hook prerouting priority -500; policy accept; ip6 flowlabel 0xffffe counter; }; }")
		testlab.Eventually(t, 10*time.Second, "v1", func() bool {
			w1.Send(end.Bytes())
			return !strings.Contains(f.Victim.Run("nft", "list", "table", "inet", "behind"), "packets 0 ")
		})
		f.Victim.Run("nft", "delete", "table", "inet", "behind")
		got := map[uint32]bool{}
		six, four := f.seen(t, "seen6"), f.seen(t, "seen4")
		for _, s := range shots1 {
			got[s.ID] = s.IPv4 && four[s.ID] || !s.IPv4 && six[s.ID]
		}
		for id, yes := range f.fire(t, shots0) {
			got[id] = yes
		}
		for _, k := range []string{"seen6", "seen4"} {
			f.Victim.Run("nft", "flush", "set", "inet", "witness", k)
		}
		for i, b := range balls {
			inputs++
			if want := admits(&in, b); got[uint32(i+1)] != want {
				bad("%s: in: %s: came through: %t, want %t", name, b, got[uint32(i+1)], want)
			}
		}
		// Out.
		for _, x := range [][2]string{{"2001:db8:1::10", "2600:1::1"}, {"2001:db8:1::10", "2600:2::1"}, {"192.0.2.10", "203.0.113.9"}, {"192.0.2.10", "198.18.0.9"}, {"2001:db8:1::10", "fd00:ec2::254"}, {"192.0.2.10", "169.254.169.254"}} {
			for _, p := range []string{"udp/53", "udp/123", "udp/3544", "udp/4789", "udp/6081", "udp/9"} {
				outputs++
				b := ballAt("v0", addr(x[0]), addr(x[1]), p)
				var err error
				f.Victim.Do(func() {
					var c net.Conn
					if c, err = net.Dial("udp", netip.AddrPortFrom(b.dst, b.number).String()); err == nil {
						_, err = c.Write([]byte("x"))
						_ = c.Close()
					}
				})
				if want := sends(&in, b); (err == nil) != want {
					bad("%s: out: %s: left: %v, want %t", name, b, err, want)
				}
			}
		}
		// Through.
		if in.Families == intent.Disabled || in.Families == intent.DisabledKeepLoopback {
			continue
		}
		load(t, w.host, rules)
		for _, back := range []bool{false, true} {
			for _, p := range []string{"tcp/25", "tcp/443", "udp/53", "udp/4789", "proto/47", "proto/41"} {
				throughs++
				b := ballAt("v0", addr("2001:db8:1::7"), addr("2001:db8:2::7"), p)
				out := "v1"
				if back {
					b, out = ballAt("v1", addr("2001:db8:2::7"), addr("2001:db8:1::7"), p), "v0"
				}
				got := w.passed(t, func(g ndisc.Frame) ndisc.Frame {
					switch b.name {
					case "tcp":
						return g.TCP(40001, b.number, 2)
					case "udp":
						return g.UDP(40001, b.number, make([]byte, 8))
					}
					return g.Raw(uint8(b.number), make([]byte, 40))
				}, back)
				if want := passes(&in, b, out); got != want {
					bad("%s: through: %s: came through: %t, want %t", name, b, got, want)
				}
			}
		}
	}
	note(t, "%d intents, %d packets in, %d out, %d through, %d wrong", len(paths), inputs, outputs, throughs, wrong)
}
