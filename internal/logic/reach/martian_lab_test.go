package reach_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sixfence/sixfence/internal/logic/ndisc"
	"github.com/sixfence/sixfence/internal/logic/reach"
	rs "github.com/sixfence/sixfence/internal/model/ruleset"
	"github.com/sixfence/sixfence/internal/testlab"
)

// TestMartianSources sends sources that the kernel refuses by itself: a trace says so,
// although every rule accepts.
func TestMartianSources(t *testing.T) {
	for _, setting := range []string{"", "rp_filter", "accept_local", "route_localnet"} {
		t.Run("with "+setting, func(t *testing.T) { martianLab(t, setting) })
	}
}

func martianLab(t *testing.T, setting string) {
	victim, attacker := testlab.NewNS(t, "mv"), testlab.NewNS(t, "ma")
	testlab.Link(victim, "v0", attacker, "a0")
	victim.IP("link", "set", "lo", "up")
	victim.IP("link", "set", "v0", "up")
	attacker.IP("link", "set", "a0", "up")
	victim.IP("addr", "add", "192.0.2.1/24", "brd", "+", "dev", "v0")
	victim.IP("addr", "add", "2001:db8::1/64", "dev", "v0", "nodad")
	for _, key := range []string{"rp_filter", "accept_local", "route_localnet"} {
		for _, dev := range []string{"all", "v0"} {
			value := "0"
			if key == setting {
				value = "1"
			}
			victim.Sysctl("net/ipv4/conf/"+dev+"/"+key, value)
		}
	}
	f := filepath.Join(t.TempDir(), "r.nft")
	script := `table inet f {
 set s4 { type ipv4_addr . ipv4_addr; flags dynamic; size 1000; }
 set s6 { type ipv6_addr . ipv6_addr; flags dynamic; size 1000; }
 chain input { type filter hook input priority 0; policy accept;
  udp dport 53 add @s4 { ip saddr . ip daddr } accept
  udp dport 53 add @s6 { ip6 saddr . ip6 daddr } accept
 }
}`
	if err := os.WriteFile(f, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	victim.Run(testlab.RequireTool(t, "nft"), "-f", f)
	sp := spaceOf(t, victim)

	var mac ndisc.MAC
	if _, err := fmt.Sscanf(linkMAC(t, victim, "v0"), "%02x:%02x:%02x:%02x:%02x:%02x", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5]); err != nil {
		t.Fatal(err)
	}
	type shot struct{ src, dst netip.Addr }
	var shots []shot
	w := attacker.Wire("a0")
	testlab.Eventually(t, 5*time.Second, "the link is up", func() bool { return strings.Contains(victim.IP("link", "show", "v0"), "LOWER_UP") })
	for _, family := range [][2]string{
		{"0.0.0.0 0.0.0.5 127.0.0.1 127.5.5.5 224.0.0.1 240.0.0.1 255.255.255.255 192.0.2.1 192.0.2.255 192.0.2.7 10.0.0.1", "192.0.2.1 224.0.0.1 255.255.255.255 192.0.2.255"},
		{":: ::1 ff02::1 ::ffff:192.0.2.9 2001:db8::9 fe80::9", "2001:db8::1 ff02::1"},
	} {
		for s := range strings.FieldsSeq(family[0]) {
			for d := range strings.FieldsSeq(family[1]) {
				x := shot{netip.MustParseAddr(s), netip.MustParseAddr(d)}
				shots = append(shots, x)
				if x.src.Is4() {
					w.Send(ndisc.Frame4{SrcMAC: w.MAC, DstMAC: to4(x.dst, mac), Src: x.src, Dst: x.dst}.UDP(4000, 53, []byte("x")).Bytes())
				} else {
					frame := ndisc.Frame{SrcMAC: w.MAC, Src: x.src, Dst: x.dst}
					if !x.dst.IsMulticast() {
						frame.DstMAC = mac
					}
					w.Send(frame.UDP(4000, 53, []byte("x")).Bytes())
				}
			}
		}
	}
	// Every frame before this one has been looked at when it is in the set.
	last := shot{netip.MustParseAddr("2001:db8::ffff"), netip.MustParseAddr("2001:db8::1")}
	w.Send(ndisc.Frame{SrcMAC: w.MAC, DstMAC: mac, Src: last.src, Dst: last.dst}.UDP(4000, 53, []byte("x")).Bytes())
	listed := func() string { return victim.Run("nft", "list", "table", "inet", "f") }
	testlab.Eventually(t, 5*time.Second, "the last frame arrives", func() bool { return strings.Contains(listed(), last.src.String()+" . ") })
	got, arrived, refused := listed(), 0, 0
	got = strings.NewReplacer("\n", " ", "\t", " ", ",", " ").Replace(got)
	for _, x := range shots {
		p := reach.Packet{
			Family: rs.IPv6, IIF: reach.Some("v0"), Saddr: reach.Some(x.src), Daddr: reach.Some(x.dst), Proto: reach.Some(uint8(17)),
			Sport: reach.Range{From: 4000, To: 4000}, Dport: reach.Some(uint16(53)), Ct: reach.Some(uint32(reach.CtNew)),
		}
		if x.src.Is4() {
			p.Family = rs.IPv4
		}
		in := strings.Contains(got, fmt.Sprintf(" %s . %s ", x.src, x.dst))
		if in {
			arrived++
		} else {
			refused++
		}
		kernel := map[bool]string{true: reach.WordAccept, false: reach.WordDrop}[in]
		vague := x.src.IsLoopback() && (setting == "route_localnet" || x.dst == netip.MustParseAddr("255.255.255.255")) || setting == "accept_local" && x.src == netip.MustParseAddr("192.0.2.1")
		for _, v := range []reach.Trace{sp.Trace(p, rs.Input, false), sp.Verdict(p, rs.Input, false)} {
			if v.Verdict != kernel && (v.Verdict != reach.WordUnknown || !vague) {
				t.Errorf("%s to %s: the kernel says %s, we %s (%v)", x.src, x.dst, kernel, v.Verdict, v.Unclear)
			}
		}
		if v := sp.Verdict(p, rs.Input, true); v.Verdict != reach.WordAccept {
			t.Errorf("%s to %s: the hook alone says %s", x.src, x.dst, v.Verdict)
		}
	}
	if arrived == 0 || refused == 0 {
		t.Errorf("%d arrived, %d were refused: the lab tells nothing\n%s", arrived, refused, got)
	}
}

// to4 is the Ethernet destination of an IPv4 packet.
func to4(dst netip.Addr, unicast ndisc.MAC) ndisc.MAC {
	a := dst.As4()
	switch {
	case dst.IsMulticast():
		return ndisc.MAC{1, 0, 0x5e, a[1] & 0x7f, a[2], a[3]}
	case a[3] == 255:
		return ndisc.MAC{255, 255, 255, 255, 255, 255}
	}
	return unicast
}
